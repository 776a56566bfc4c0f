"""Networks read from ONNX graphs of others: PyTorch's two exporters, Keras', and graphs made by hand."""

from __future__ import annotations

import io
import json
import pickle
import sys
import warnings

import numpy as np
import pytest

import pellucid as pl
from available import NO_ONNX, NO_TORCH
from golden import make
from interop.graphs import f4, model
from oracles import assert_near, randn
from pellucid import interop
from pellucid.errors import FileError, MissingDependencyError
from pellucid.interop.onnx import proof

onnx = pytest.importorskip("onnx", reason=NO_ONNX)

pytestmark = pytest.mark.capability("C14")

# PyTorch


def torch_file(torch, module, x, dynamo, dynamic):
    """What an exporter of PyTorch makes of a module in evaluation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both exporters warn of themselves
        if not dynamo:
            buffer = io.BytesIO()
            axes = {"input": {0: "batch"}} if dynamic else None
            torch.onnx.export(module, (x,), buffer, dynamo=False, input_names=["input"], dynamic_axes=axes)
            return buffer.getvalue()
        pytest.importorskip("onnxscript", reason=NO_TORCH)
        shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
        return torch.onnx.export(
            module, (x,), dynamo=True, dynamic_shapes=shapes, verbose=False
        ).model_proto.SerializeToString()


def settled(torch, module, shape, seed=0):
    """The module in evaluation, with statistics that are not those of the beginning."""
    torch.manual_seed(seed)
    module(torch.randn(4, *shape))
    for part in module.modules():
        if getattr(part, "running_var", None) is not None:
            part.running_mean.data.normal_()
            part.running_var.data.uniform_(0.5, 2)
    return module.eval()


def residual(torch):
    t = torch.nn

    class Block(t.Module):
        def __init__(self, before, after, stride):
            super().__init__()
            self.body = t.Sequential(
                t.Conv2d(before, after, 3, stride, 1, bias=False),
                t.BatchNorm2d(after),
                t.ReLU(),
                t.Conv2d(after, after, 3, 1, 1),
                t.BatchNorm2d(after),
            )
            self.around = t.Conv2d(before, after, 1, stride) if before != after else t.Identity()

        def forward(self, x):
            return torch.relu(self.body(x) + self.around(x))

    class Net(t.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.norm = t.Conv2d(3, 8, 3), t.BatchNorm2d(8)
            self.first, self.second, self.head = Block(8, 8, 1), Block(8, 12, 2), t.Linear(12, 5)

        def forward(self, x):
            x = torch.max_pool2d(self.norm(torch.relu(self.stem(x))), 2)
            x = torch.nn.functional.adaptive_avg_pool2d(self.second(self.first(x)), 1)
            return torch.log_softmax(self.head(x.view(x.size(0), -1)), 1)

    return Net()


def inception(torch):
    t = torch.nn

    class Net(t.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = t.Conv2d(3, 4, 1), t.Sequential(t.Conv2d(3, 5, 1), t.ReLU(), t.Conv2d(5, 6, 5, padding=2))
            self.up = t.Sequential(t.AvgPool2d(2), t.Conv2d(13, 7, 3, padding=1), t.Upsample(scale_factor=2))

        def forward(self, x):
            x = torch.cat([self.a(x), torch.nn.functional.silu(self.b(x)), x], 1)
            return torch.cat([x, self.up(x)], 1) * 0.5 + 1

    return Net()


def many(torch):
    t = torch.nn
    return t.Sequential(
        t.Conv2d(2, 4, 3, padding="same", padding_mode="reflect"),
        t.GELU(),
        t.GELU("tanh"),
        t.SiLU(),
        t.Softplus(),
        t.ELU(0.7),
        t.PReLU(4),
        t.LeakyReLU(0.2),
        t.GroupNorm(2, 4),
        t.LayerNorm((4, 8, 10)),
        t.Upsample(scale_factor=2, mode="bilinear"),
        t.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        t.ConvTranspose2d(4, 2, 3, 2, 1, 1),
        t.Dropout(0.3),
        t.ReplicationPad2d(1),
        t.ZeroPad2d((1, 2, 0, -1)),
        t.MaxPool2d(3, 2, 1, ceil_mode=True),
        t.Flatten(),
        t.LazyLinear(6),
        t.BatchNorm1d(6),
        t.Tanh(),
        t.Unflatten(1, (3, 2)),
        t.Softmax(1),
    )


def sequences(torch):
    t = torch.nn
    return t.Sequential(
        t.Conv1d(4, 6, 5, padding=2), t.BatchNorm1d(6), t.ReLU(), t.MaxPool1d(2), t.Flatten(), t.LazyLinear(3)
    )


def volumes(torch):
    t = torch.nn
    return t.Sequential(t.Conv3d(1, 4, 3), t.BatchNorm3d(4), t.ReLU(), t.AvgPool3d(2), t.Flatten(), t.LazyLinear(3))


MODULES = {
    residual: (3, 14, 13),
    inception: (3, 8, 6),
    many: (2, 8, 10),
    sequences: (4, 30),
    volumes: (1, 8, 9, 10),
}


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("build", MODULES)
def test_what_pytorch_exports(torch, build, dynamo, dynamic):
    shape = MODULES[build]
    module = settled(torch, build(torch), shape)
    x = randn(1, 3, *shape, dtype="float32")
    net = interop.import_onnx(torch_file(torch, module, torch.tensor(x), dynamo, dynamic))
    assert net.input_shape == shape
    assert_near(net(x), module(torch.tensor(x)), 1e-5)


@pytest.mark.parametrize("dynamo", [True, False])
def test_a_model_that_pytorch_trained_predicts_the_same(torch, dynamo):
    ds = pl.data.load("digits")
    x, y = (ds.images / 16).astype(np.float32), ds.targets
    t = torch.nn
    torch.manual_seed(0)
    module = t.Sequential(
        t.Conv2d(1, 8, 3, padding=1),
        t.BatchNorm2d(8),
        t.ReLU(),
        t.MaxPool2d(2),
        t.Dropout(0.1),
        t.Conv2d(8, 16, 3),
        t.ReLU(),
        t.Flatten(),
        t.Linear(64, 10),
    )
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for start in range(0, 1600, 32):
        loss = t.functional.cross_entropy(
            module(torch.tensor(x[start : start + 32])), torch.tensor(y[start : start + 32])
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    expected = module.eval()(torch.tensor(x)).detach().numpy()
    assert (expected.argmax(1) == y).mean() > 0.8
    net = interop.import_onnx(torch_file(torch, module, torch.tensor(x[:2]), dynamo, dynamic=True))
    assert_near(net(x), expected, 1e-5)
    assert np.array_equal(net(x).argmax(1), expected.argmax(1))
    assert np.array_equal(net[0].weight.shape, (8, 1, 3, 3))


K = f4(1, 3, 2, 3, 3)
CONV = model([("Conv", "x k", {})], k=K)

# Keras


@pytest.mark.parametrize("path", sorted(make.FOLDER.glob("keras-*.onnx")), ids=lambda path: path.stem)
def test_what_keras_exports(path):
    """Keras' own outputs; channels stand first here, last there."""
    net = interop.import_onnx(path)
    with np.load(path.with_suffix(".npz")) as data:
        x, expected = data["x"], data["y"]
    assert net.input_shape == (x.shape[-1], *x.shape[1:-1])
    assert_near(np.moveaxis(net(np.moveaxis(x, -1, 1)), 1, -1), expected, 1e-5)


def test_there_are_files_of_keras():
    assert len(list(make.FOLDER.glob("keras-*.onnx"))) == 6


def test_an_open_size_is_given_by_hand():
    content = model([("Conv", "x k", {})], shape=(2, "H", "W"), k=K)
    with pytest.raises(
        FileError, match=r"its input is \?x2x\?x\?; every size but the batch must be known: give input_"
    ):
        interop.import_onnx(content)
    assert interop.import_onnx(content, input_shape=(2, 9, 7)).input_shape == (2, 9, 7)
    with pytest.raises(FileError, match=r"input_shape is \(3, 9, 7\), the file says"):
        interop.import_onnx(content, input_shape=(3, 9, 7))


def test_a_path_and_bytes(tmp_path):
    (tmp_path / "net.onnx").write_bytes(CONV)
    x = randn(0, 1, 2, 5, 6, dtype="float32")
    assert np.array_equal(interop.import_onnx(tmp_path / "net.onnx")(x), interop.import_onnx(CONV)(x))
    with pytest.raises(FileError, match=r"cannot read .*none.onnx: No such file or directory"):
        interop.import_onnx(str(tmp_path / "none.onnx"))


def test_what_is_read_can_be_trained():
    ds = pl.data.load("digits")
    net = interop.import_onnx(
        model(
            [("Conv", "x k", {}), ("Relu", "x1", {}), ("Flatten", "x2", {}), ("MatMul", "x3 w", {})],
            shape=(1, 8, 8),
            k=f4(0, 4, 1, 3, 3) / 10,
            w=f4(1, 144, 10) / 10,
        )
    )
    run = pl.fit(net, ds, epochs=5, progress=False)
    assert run.history.rows[-1].train_accuracy > 0.7


def test_without_onnx_runtime_the_same_is_read(monkeypatch):
    monkeypatch.setattr("pellucid.interop.onnx.reading.find_spec", lambda name: None)
    x = randn(0, 1, 2, 5, 6, dtype="float32")
    assert interop.import_onnx(CONV)(x).shape == (1, 3, 3, 4)


def test_without_onnx_the_cure_is_named(monkeypatch):
    content = CONV
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r"the package onnx: pip install 'pellucid\[onnx\]'"):
        interop.import_onnx(content)


def test_other_numbers_are_refused(monkeypatch):
    right = proof.run
    monkeypatch.setattr(proof, "run", lambda ready, x: right(ready, x) * np.float32(1.0001))
    with pytest.raises(FileError, match=r"its outputs differ from ONNX Runtime's by 1.0e-04 of the largest"):
        interop.import_onnx(CONV)


# Models


def exported(tmp_path, change=None, **options):
    interop.export_onnx(make.every_layer(), tmp_path / "m.onnx", **options)
    file = onnx.load(tmp_path / "m.onnx")
    if change is not None:
        facts = json.loads(file.metadata_props[0].value)
        change(facts, file.graph)
        file.metadata_props[0].value = json.dumps(facts)
        (tmp_path / "m.onnx").write_bytes(file.SerializeToString())
    return tmp_path / "m.onnx"


def other_mean(facts, graph):
    facts["input"]["mean"][0] = 0.3


def other_scale(facts, graph):
    for tensor in graph.initializer:
        if tensor.name == "images.scale":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32(1), tensor.name))


def past_the_preprocessing(facts, graph):
    (conv,) = (node for node in graph.node if node.name == "0/Conv")
    conv.input[0] = "images/scale"


def fewer_classes(facts, graph):
    facts["classes"].pop()


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        (other_mean, {"preprocessing": True}, "its preprocessing is not what its metadata say"),
        (other_scale, {"preprocessing": True}, "its preprocessing is not what its metadata say"),
        (past_the_preprocessing, {"preprocessing": True}, "'images/scale' belongs to the preprocessing"),
        (fewer_classes, {"preprocessing": True}, "the network gives 3 outputs, but there are 2 classes"),
        (fewer_classes, {}, "the network gives 3 outputs, but there are 2 classes"),
        (lambda f, g: f["input"].update(shape=[2, 9, 7]), {}, "its input is 2x7x9, its metadata say 2x9x7"),
        (lambda f, g: f.update(preprocessing=1), {}, "metadata: preprocessing: Input should be a valid boolean"),
        (lambda f, g: f.update(preprocessing=True), {}, "its preprocessing is not what its metadata say"),
        (lambda f, g: f.update(format=2), {}, "metadata: format: Input should be 1"),
        (lambda f, g: f.update(more=2), {}, "metadata: more: Extra inputs are not permitted"),
    ],
)
def test_a_model_whose_facts_do_not_fit_is_refused(tmp_path, change, options, match):
    assert pl.load(exported(tmp_path, None, **options)).classes == ("ant", "bee", "Käfer")
    with pytest.raises(FileError, match=match):
        pl.load(exported(tmp_path, change, **options))


def test_a_network_is_no_model(tmp_path):
    interop.export_onnx(make.every_layer().network, tmp_path / "net.onnx")
    with pytest.raises(
        FileError, match=r"net\.onnx: it was not exported of a model; interop.import_onnx reads its network"
    ):
        pl.load(tmp_path / "net.onnx")


@pytest.mark.parametrize("preprocessing", [False, True])
def test_a_model_is_told_by_its_content(tmp_path, preprocessing):
    model, path = make.every_layer(), exported(tmp_path, preprocessing=preprocessing)
    for name in ("m2.bin", "m2.safetensors", "m2"):
        assert pl.load(path.rename(tmp_path / name)).classes == model.classes
        path = tmp_path / name
    model.save(path)
    for name in ("st.onnx", "st.ONNX"):
        assert pl.load(path.rename(tmp_path / name)).classes == model.classes
        path = tmp_path / name


NEITHER = {
    "text": b"<html>Not found</html>",
    "pickle": pickle.dumps({"weights": [1.0, 2.0]}),
    "archive": b"PK\x03\x04" + bytes(30),
    "nothing": b"",
    "a byte": b"\x08",
    "a length": b"\x08" + bytes(7),
    "zeros": bytes(64),
    "a length of no header": b"\x08" + bytes(40),
}


@pytest.mark.parametrize("content", NEITHER.values(), ids=NEITHER)
def test_what_is_neither_is_refused_as_what_its_name_says(tmp_path, content):
    for name, words in (
        ("m", "is not a pellucid file \\(safetensors expected\\)"),
        ("m.onnx", "it is (not an ONNX file|damaged)"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FileError, match=words):
            pl.load(tmp_path / name)


def test_a_graph_with_preprocessing_is_read_as_it_is(ort, tmp_path):
    """The network then takes raw images and gives probabilities, as the graph does."""
    path = exported(tmp_path, preprocessing=True)
    raw = make.images((2, 7, 9), 255)
    assert_near(interop.import_onnx(path)(raw.astype(np.float32)), ort(path.read_bytes(), raw), 1e-5)
