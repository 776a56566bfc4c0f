"""Networks written as ONNX graphs, held to ONNX Runtime and to ONNX's checker, neither of which is ours."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

import pellucid as pl
from available import NO_ONNX
from golden import make
from nn.test_layers import CASES
from oracles import assert_near, randn
from pellucid import interop, models, nn
from pellucid.errors import FileError, MissingDependencyError, OptionError
from pellucid.interop.onnx import proof

onnx = pytest.importorskip("onnx", reason=NO_ONNX)

pytestmark = pytest.mark.capability("H24", "H25")

# Layers that have no single operator, in a form that cannot be read back; the word is in the error.
ONE_WAY = {
    "AdaptiveAvgPool1d0": "operator Slice",
    "AdaptiveAvgPool2d1": "operator Slice",
    "AdaptiveAvgPool2d2": "operator Slice",
    "AdaptiveAvgPool2d3": "operator Slice",
    "AdaptiveAvgPool3d0": "operator Slice",
    "AdaptiveMaxPool1d0": "operator Slice",
    "AdaptiveMaxPool2d0": "operator Slice",
    "AdaptiveMaxPool3d0": "operator Slice",
    "Conv2d6": "operator Pad .* mode = 'wrap'",
    "Conv3d1": "operator Pad .* over 3 axes",
    "MaxUnpool2d0": "operator MaxPool .* more than its first output",
    "MaxUnpool2d1": "operator MaxPool .* more than its first output",
    "Softplus1": "operator Where",
}
AS_LAYER = [pytest.param(*case.values, case.id, id=case.id) for case in CASES]


def network(layer, shape):
    """A built network, its batch norms with statistics that are not those of the beginning."""
    net = layer if getattr(layer, "built", False) else nn.Sequential(layer, input_shape=shape)
    state = net.state_dict()
    for number, (name, array) in enumerate(sorted(state.items())):
        if "running" in name:
            state[name] = np.abs(randn(number, *array.shape)) + 0.5
    net.load_state_dict(state)
    return net


def zoo(name):
    shape = (3, 32, 32) if name == "resnet8" else (1, 28, 28)
    net = models.create(name, shape, 10, seed=3)
    for layer in (leaf for _, leaf in net.leaves() if isinstance(leaf, nn.BatchNorm2d)):
        layer.running_mean = 0.1 * randn(1, *layer.running_mean.shape)
        layer.running_var = np.abs(randn(2, *layer.running_var.shape)) + 0.5
    return net


@pytest.mark.parametrize("opset", [17, 19, 22])
@pytest.mark.parametrize(("make_layer", "shape", "name"), AS_LAYER)
def test_every_layer_gives_the_same_in_onnx_runtime_and_comes_back(ort, tmp_path, make_layer, shape, name, opset):
    net = network(make_layer(), shape)
    if name == "Conv2d6" and opset < 19:
        with pytest.raises(OptionError, match="layer 0: circular padding needs opset 19, got 17"):
            interop.export_onnx(net, tmp_path / "net.onnx", opset=opset)
        return
    done = interop.export_onnx(net, tmp_path / "net.onnx", opset=opset)
    content = done.path.read_bytes()
    assert len(content) == done.size
    assert 0 <= done.difference <= 1e-5
    onnx.checker.check_model(content, full_check=True)
    for n in (1, 4):
        x = randn(n, n, *shape, dtype="float32")
        assert_near(ort(content, x), net.astype("float64")(x.astype("float64")), 1e-5)
    if name in ONE_WAY:
        with pytest.raises(FileError, match=ONE_WAY[name]):
            interop.import_onnx(content)
    else:
        assert_near(interop.import_onnx(content)(x), net(x), 1e-6)


@pytest.mark.parametrize("name", models.NAMES)
def test_the_zoo_goes_out_and_comes_back(ort, tmp_path, name):
    net = zoo(name)
    content = interop.export_onnx(net, tmp_path / "net.onnx").path.read_bytes()
    back = interop.import_onnx(tmp_path / "net.onnx")
    x = randn(0, 5, *net.input_shape, dtype="float32")
    assert np.ptp(net(x), axis=0).all(), "what gives every image the same proves nothing"
    assert np.array_equal(back(x), net(x))
    assert_near(ort(content, x), net(x), 1e-5)
    assert [a.tobytes() for a in back.state_dict().values()] == [a.tobytes() for a in net.state_dict().values()]


@pytest.mark.parametrize("preprocessing", [False, True])
def test_two_exports_are_the_same_bytes(tmp_path, preprocessing):
    """In another process too, whose hashes differ, of a model that was written and read again."""
    model = make.every_layer()
    first = interop.export_onnx(model, tmp_path / "1.onnx", preprocessing=preprocessing).path.read_bytes()
    assert interop.export_onnx(make.every_layer(), tmp_path / "2.onnx", preprocessing=preprocessing).size == len(first)
    assert (tmp_path / "2.onnx").read_bytes() == first
    model.save(tmp_path / "model.safetensors")
    code = f"""
import pellucid as pl
model = pl.load({str(tmp_path / "model.safetensors")!r})
pl.interop.export_onnx(model, {str(tmp_path / "3.onnx")!r}, preprocessing={preprocessing})
"""
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
    assert hashlib.sha256((tmp_path / "3.onnx").read_bytes()).digest() == hashlib.sha256(first).digest()


def test_preprocessing_takes_stored_images_and_gives_probabilities(ort, tmp_path):
    model = make.every_layer()
    raw = make.images(model.input.shape, 255)
    content = interop.export_onnx(model, tmp_path / "m.onnx", preprocessing=True).path.read_bytes()
    assert raw.dtype == np.uint8
    assert_near(ort(content, raw), model.predict(raw).probabilities, 1e-5)
    plain = interop.export_onnx(model, tmp_path / "p.onnx").path.read_bytes()
    assert_near(ort(plain, model.input.canonical(raw)), model.outputs(raw), 1e-5)


def test_raw_images_of_another_range_are_float32(ort, tmp_path):
    model = make.shared_layer()
    raw = make.images(model.input.shape, 16).astype(np.float32)
    content = interop.export_onnx(model, tmp_path / "m.onnx", preprocessing=True).path.read_bytes()
    assert_near(ort(content, raw), model.network(model.input.canonical(raw).astype("float64")), 1e-5)


def test_any_batch_and_names_that_say_something(ort, tmp_path):
    net = zoo("lesson1")
    content = interop.export_onnx(net, tmp_path / "net.onnx").path.read_bytes()
    graph = onnx.load_from_string(content).graph
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert [node.name for node in graph.node][:5] == ["0/Conv", "1/Relu", "2/MaxPool", "3.body.0/Conv", "3.body.1/Relu"]
    assert {t.name for t in graph.initializer} == set(net.state_dict()) - {"3.body.2.num_batches_tracked"}
    for n in (0, 1, 2, 7):
        assert ort(content, randn(0, n, 1, 28, 28, dtype="float32")).shape == (n, 10)


@pytest.mark.parametrize("preprocessing", [False, True])
def test_pellucid_load_makes_the_model_again(tmp_path, preprocessing):
    model = make.every_layer()
    interop.export_onnx(model, tmp_path / "m.onnx", preprocessing=preprocessing)
    back, raw = pl.load(tmp_path / "m.onnx"), make.images(model.input.shape, 255)
    assert (back.input, back.classes, back.metrics) == (model.input, model.classes, model.metrics)
    assert back.data_digest == model.data_digest
    assert_near(back.predict(raw).probabilities, model.predict(raw).probabilities, 1e-6)
    again = interop.export_onnx(back, tmp_path / "again.onnx", preprocessing=preprocessing)
    assert again.difference <= 1e-5


def test_a_shared_layer_is_stored_once(tmp_path):
    path = interop.export_onnx(make.shared_layer(), tmp_path / "m.onnx").path
    names = [t.name for t in onnx.load(path).graph.initializer]
    assert names == ["0.weight", "0.bias", "4.weight"]


class Mine(nn.ReLU):
    pass


def test_a_layer_of_ones_own_is_refused_by_name(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Residual(Mine()), input_shape=(4,))
    with pytest.raises(OptionError, match=r"layer 1.body \(Mine\) cannot be expressed in ONNX"):
        interop.export_onnx(net, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"opset": 16}, "opset must lie between 17 and 22, got 16"),
        ({"opset": 23}, "opset must lie between 17 and 22, got 23"),
        ({"opset": 17.5}, "opset must be a whole number, got 17.5"),
        ({"preprocessing": True}, "a network has no preprocessing; export a Model"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, match):
    with pytest.raises(OptionError, match=match):
        interop.export_onnx(zoo("lesson4"), tmp_path / "net.onnx", **options)
    with pytest.raises(OptionError, match="the network is not built yet"):
        interop.export_onnx(nn.Sequential(nn.ReLU()), tmp_path / "net.onnx")
    with pytest.raises(OptionError, match=r"expected a Model or a built network, got ReLU\(\)"):
        interop.export_onnx(nn.ReLU(), tmp_path / "net.onnx")


@pytest.mark.capability("H39")
@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_its_cure(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"needs? the package {package}: pip install 'pellucid\[onnx\]'"):
        interop.export_onnx(zoo("lesson4"), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_other_numbers_are_not_written(tmp_path, monkeypatch):
    """The proof is one: it fails where a single output is off by a ten-thousandth."""
    right = proof.run

    def wrong(ready, x):
        y = right(ready, x).copy()
        y[0, 3] += 1e-4 * np.abs(y).max()
        return y

    monkeypatch.setattr(proof, "run", wrong)
    with pytest.raises(FileError, match=r"net.onnx is not written: ONNX Runtime's outputs differ .* by 1.0e-04 of the"):
        interop.export_onnx(zoo("lesson4"), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_no_numbers_prove_nothing(tmp_path):
    net = zoo("lesson4")
    net[0].bias = np.full(1, np.nan)
    with pytest.raises(FileError, match="outputs for random inputs are not finite"):
        interop.export_onnx(net, tmp_path / "net.onnx")


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(FileError, match=r"cannot write .*net.onnx: No such file or directory"):
        interop.export_onnx(zoo("lesson4"), tmp_path / "none" / "net.onnx")
