"""The model file: what is in it, that it comes back bit for bit, and that nothing wrong is believed."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
from dataclasses import asdict

import numpy as np
import pytest

import pellucid as pl
from pellucid import engines, nn
from pellucid.errors import FileError, OptionError
from pellucid.interop import model_file
from pellucid.interop.model_file import pack, unpack, weights_digest
from pellucid.model import InputSpec, Model

pytestmark = pytest.mark.capability("H23")

NAMES = ("ant", "bee", "Käfer")


def network(dtype: str = "float32") -> nn.Sequential:
    net = nn.Sequential(
        nn.LazyConv2d(4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding="same"), nn.ReLU())),
        nn.MaxPool2d(2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.LazyLinear(3),
    ).build((3, 8, 6), 1, dtype)
    with net.edit():
        net[1].running_mean[...] = [0.5, -0.25, 0.125, 2.0]
        net[1].running_var[...] = [1.5, 0.25, 3.0, 2.0]
        net[1].num_batches_tracked[...] = 7
    return net


def model(dtype: str = "float32") -> Model:
    spec = InputSpec((3, 8, 6), (0.0, 255.0), (0.1, 0.2, 0.3), (0.5, 0.25, 1 / 3), "light")
    return Model(network(dtype), spec, NAMES, {"val_accuracy": 0.1 + 0.2}, "ab" * 32)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    model().save(path)
    return path


@pytest.fixture(scope="module")
def content(path):
    return path.read_bytes()


def raw_images(n: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 3, 8, 6)).astype(np.uint8)


def header_of(content: bytes) -> dict:
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


# What comes back


def test_every_kind_of_layer_comes_back(tmp_path):
    """Those without parameters must not be charged for any."""
    net = nn.Sequential(
        nn.ZeroPad2d((1, 0, 1, 0)),
        nn.Concat(
            nn.Identity(),
            nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"), nn.GroupNorm(2, 4, affine=False)),
            nn.MaxUnpool2d(nn.MaxPool2d(2), nn.Sequential(nn.PReLU(3), nn.GroupNorm(1, 3))),
        ),
        nn.LayerNorm((10, 9, 7), elementwise_affine=False),
        nn.ConvTranspose2d(10, 4, 3, stride=2, groups=2),
        nn.LayerNorm(15, bias=False),
        nn.AdaptiveMaxPool2d((4, 6)),
        nn.Flatten(),
        nn.Unflatten(1, (4, 24)),
        nn.Conv1d(4, 2, 5),
        nn.BatchNorm1d(2),
        nn.Unflatten(2, (5, 2, 2)),
        nn.Conv3d(2, 2, 2, bias=False),
        nn.BatchNorm3d(2, affine=False),
        nn.GELU(),
        nn.Flatten(),
        nn.LazyLinear(3),
        input_shape=(3, 8, 6),
        seed=1,
    )
    spec = InputSpec((3, 8, 6), (0.0, 255.0), (0.1, 0.2, 0.3), (0.5, 0.25, 1 / 3), "light")
    Model(net, spec, NAMES, {}, "ab" * 32).save(tmp_path / "m")
    twin = pl.load(tmp_path / "m").network
    assert repr(twin) == repr(net)
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 6)).astype(np.float32)
    assert np.array_equal(twin(x), net(x))


@pytest.mark.parametrize("engine", engines.NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_predictions_are_identical_to_those_before_saving(tmp_path, dtype, engine):
    """The file keeps the network's dtype; the compiled engine predicts in float32 all the same."""
    before = model(dtype)
    before.save(tmp_path / "m.safetensors")
    after = pl.load(tmp_path / "m.safetensors")
    assert after.network.dtype == before.network.dtype == dtype
    before.engine = after.engine = engine
    assert before.outputs(raw_images()).dtype == ("float32" if engine == "compiled" else dtype)
    a, b = before.predict(raw_images()), after.predict(raw_images())
    assert a.logits.tobytes() == b.logits.tobytes()
    assert a.probabilities.tobytes() == b.probabilities.tobytes()
    assert a.labels == b.labels


@pytest.mark.capability("H1")
def test_everything_comes_from_the_file(path):
    before, after = model(), pl.load(path)
    assert after.input == before.input
    assert after.classes == NAMES
    assert after.metrics == {"val_accuracy": 0.1 + 0.2}
    assert after.data_digest == "ab" * 32
    assert repr(after.network) == repr(before.network)
    assert "Lazy" not in repr(after.network)
    state = before.network.state_dict()
    assert list(after.network.state_dict()) == list(state)
    assert all(array.tobytes() == state[key].tobytes() for key, array in after.network.state_dict().items())
    assert after.network[1].num_batches_tracked == 7


def test_a_shared_layer_is_stored_once_and_shared_again(tmp_path):
    conv = nn.Conv2d(2, 2, 3, padding=1)
    net = nn.Sequential(conv, nn.ReLU(), conv, nn.Flatten(), nn.LazyLinear(2), input_shape=(2, 4, 4))
    Model(net, InputSpec((2, 4, 4), (0, 1), (0.0, 0.0), (1.0, 1.0)), ("a", "b")).save(tmp_path / "m")
    assert "2.weight" not in header_of((tmp_path / "m").read_bytes())
    again = pl.load(tmp_path / "m").network
    assert again[0] is again[2]
    assert again.flat_parameters.tobytes() == net.flat_parameters.tobytes()


def test_a_loaded_model_can_be_trained_on_without_being_drawn_again(path):
    loaded = pl.load(path)
    kept = loaded.network.flat_parameters.copy()
    images, labels = raw_images(30), np.arange(30) % 3
    pl.fit(loaded.network, (images, labels), optimizer=pl.optim.SGD(lr=0.0), epochs=1, progress=False)
    assert np.array_equal(loaded.network.flat_parameters, kept)


def test_undefined_metrics_are_left_out(tmp_path):
    m = model()
    m.metrics["strange"] = float("nan")
    m.save(tmp_path / "m")
    assert pl.load(tmp_path / "m").metrics == {"val_accuracy": 0.1 + 0.2}


# What the file is


@pytest.mark.capability("C14")
def test_safetensors_reads_it_under_pytorchs_names(path, torch):
    from safetensors.numpy import load_file

    arrays = load_file(path)
    state = model().network.state_dict()
    assert arrays.keys() == state.keys()
    assert all(np.array_equal(arrays[name], state[name]) for name in state)
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.ModuleDict({"body": torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, padding="same"), torch.nn.ReLU())}),
        torch.nn.MaxPool2d(2),
        torch.nn.Dropout(0.5),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 3 * 2, 3),
    )
    theirs.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()}, strict=True)
    assert theirs[1].num_batches_tracked.dtype == torch.int64


def test_metadata_is_one_key_of_canonical_json(content):
    metadata = header_of(content)["__metadata__"]
    assert list(metadata) == ["pellucid"]
    text = metadata["pellucid"]
    document = json.loads(text)
    assert text == json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    assert set(document) == {
        "format",
        "kind",
        "network",
        "input",
        "classes",
        "metrics",
        "data_digest",
        "sha256",
    }
    assert document["classes"] == list(NAMES)
    assert document["format"] == 1
    assert document["input"] == json.loads(json.dumps(asdict(model().input)))


def test_two_saves_are_the_same_bytes(content, tmp_path):
    model().save(tmp_path / "a")
    pl.load(tmp_path / "a").save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == content


def test_the_digest_is_that_of_the_file_with_its_digits_as_zeros(content):
    stated = json.loads(header_of(content)["__metadata__"]["pellucid"])["sha256"]
    assert content.count(stated.encode()) == 1
    assert hashlib.sha256(content.replace(stated.encode(), b"0" * 64)).hexdigest() == stated


def test_the_weights_digest_is_that_of_all_values_in_state_dict_order(content):
    header = header_of(content)
    body = content[8 + int.from_bytes(content[:8], "little") :]
    h = hashlib.sha256()
    for name in model().network.state_dict():
        begin, end = header[name]["data_offsets"]
        h.update(body[begin:end])
    assert weights_digest(model().network) == h.hexdigest()
    assert header["1.num_batches_tracked"]["dtype"] == "I64"


# What is not believed


def refuse(path, content: bytes, match: str) -> None:
    path.write_bytes(content)
    with pytest.raises(FileError, match=match) as caught:
        pl.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_flipped_bit_is_noticed(content):
    size = int.from_bytes(content[:8], "little")
    places = [*range(0, 8 + size, 3), *range(8 + size, len(content), 29)]
    assert len(places) > 500
    for number, place in enumerate(places):
        wrong = bytearray(content)
        wrong[place] ^= 1 << (number % 8)
        with pytest.raises(FileError):
            unpack(bytes(wrong), "m")


def test_no_truncation_and_no_trailing_byte_passes(content):
    for length in [*range(64), *range(64, len(content), 41), len(content) - 1]:
        with pytest.raises(FileError):
            unpack(content[:length], "m")
    for tail in (b"\0", b"x" * 100, content):
        with pytest.raises(FileError, match=r"digest does not match|belong to no tensor"):
            unpack(content + tail, "m")


def resealed(content: bytes, change) -> bytes:
    """The file with another document, and a digest that is right for it."""
    arrays, facts = unpack(content, "m")
    arrays = dict(arrays)
    facts = json.loads(json.dumps(facts))
    change(arrays, facts)
    return pack(arrays, facts)


def put(*keys, value):
    def change(arrays, facts):
        place = facts
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def without(key):
    return lambda arrays, facts: facts.pop(key)


LAYERS = ("network", "layers")
LINEAR = {"layer": "Linear", "in_features": 1, "out_features": 1}
DOCUMENTS = {
    "format": (put("format", value=2), "has format 2, this version reads 1; install a newer pellucid"),
    "no format": (without("format"), "has format None"),
    "kind": (put("kind", value="zoo"), "is not a model file, but 'zoo'"),
    "unknown key": (put("pickle", value="x"), "pickle: Extra inputs are not permitted"),
    "unknown input key": (put("input", "crop", value=1), r"input\.crop: Extra inputs"),
    "missing key": (without("classes"), "classes: Field required"),
    "metrics": (put("metrics", value={"a": "high"}), r"metrics\.a"),
    "value range": (put("input", "value_range", value=[1, 0]), "value_range must rise"),
    "std": (put("input", "std", value=[1, 1, 0]), "greater than 0"),
    "channels": (put("input", "mean", value=[0.0]), "one number for each channel"),
    "classes": (put("classes", value=["a"]), r"3 outputs, but there are 1 classes"),
    "shape": (put("input", "shape", value=[3, 8, 9]), r"use Linear"),
    "huge shape": (put("input", "shape", value=[3, 8, 1 << 40]), r"input\.shape\.2: Input should be less than"),
    "unknown layer": (put(*LAYERS, 2, value={"layer": "os.system"}), 'layer 2: unknown layer "os.system"'),
    "near layer": (put(*LAYERS, 2, value={"layer": "Linar"}), 'did you mean "Linear"'),
    "own layer": (put(*LAYERS, 2, value={"layer": "ReLU", "code": "1"}), 'unknown argument "code"'),
    "no layer": (put(*LAYERS, 2, value=[]), r'layer 2 must be an object such as \{"layer": "ReLU"\}'),
    "single layer": (put("network", value=LINEAR), "the network is a single layer"),
    "lazy": (put(*LAYERS, 7, value={"layer": "LazyLinear", "out_features": 3}), "holds resolved layers only"),
    "memory": (put(*LAYERS, 7, "out_features", value=10**12), "'Linear' has more parameters than the file holds"),
    "memory of maps": (put(*LAYERS, 0, "kernel_size", value=10**6), "'Conv2d' has more parameters than the file"),
    "memory inside": (put(*LAYERS, 3, "body", "layers", 0, "out_channels", value=10**9), "more parameters than"),
    "memory in branches": (
        put(
            *LAYERS,
            3,
            value={"layer": "Concat", "branches": [{"layer": "GroupNorm", "num_groups": 1, "num_channels": 10**9}]},
        ),
        "'GroupNorm' has more parameters than the file holds",
    ),
    "memory of volumes": (
        put(*LAYERS, 3, value={"layer": "Conv3d", "in_channels": 1, "out_channels": 1, "kernel_size": 50}),
        "'Conv3d' has more parameters than the file holds",
    ),
    "memory of axes": (
        put(*LAYERS, 3, value={"layer": "LayerNorm", "normalized_shape": [10**5, 10**5]}),
        "'LayerNorm' has more parameters than the file holds",
    ),
    "deep": (put("network", value={"layer": "Sequential", "layers": []}), "has no layers"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_wrong_documents_are_refused(content, tmp_path, name):
    change, match = DOCUMENTS[name]
    refuse(tmp_path / "m", resealed(content, change), match)


def nested(arrays, facts):
    for _ in range(200):
        facts["network"] = {"layer": "Sequential", "layers": [facts["network"]]}


def test_deep_nesting_is_refused(content, tmp_path):
    refuse(tmp_path / "m", resealed(content, nested), "nested more than 50 deep")
    deep = b'{"__metadata__":{"pellucid":"' + b"[" * 100_000 + b'"}}'
    refuse(tmp_path / "m", struct.pack("<Q", len(deep)) + deep, "damaged")
    deep = b'{"a":' * 100_000
    refuse(tmp_path / "m", struct.pack("<Q", len(deep)) + deep, "damaged")


def change_tensor(name, array):
    return lambda arrays, facts: arrays.update({name: array})


F32, NAN = np.float32, np.full((3,), np.nan, dtype=np.float32)
TENSORS = {
    "missing": (lambda arrays, facts: arrays.pop("7.bias"), r"missing \['7.bias'\], extra none"),
    "extra": (change_tensor("8.bias", np.zeros(3, F32)), r"missing none, extra \['8.bias'\]"),
    "shape": (change_tensor("7.bias", np.zeros(4, F32)), r"7.bias should be float32 \(3,\), is float32 \(4,\)"),
    "turned": (change_tensor("7.weight", np.zeros((24, 3), F32)), r"should be float32 \(3, 24\), is float32 \(24, 3\)"),
    "dtype": (change_tensor("1.num_batches_tracked", np.float32(1)), "should be int64"),
    "NaN": (change_tensor("7.bias", NAN), "7.bias holds NaN or infinity"),
    "infinity": (change_tensor("7.bias", -NAN / NAN * np.inf), "7.bias holds NaN or infinity"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_wrong_tensors_are_refused(content, tmp_path, name):
    change, match = TENSORS[name]
    refuse(tmp_path / "m", resealed(content, change), match)


def resign(header: bytes, body: bytes) -> bytes:
    """A file of any header, with a digest that is right for it."""
    start = header.index(b'sha256\\":\\"') + len(b'sha256\\":\\"')
    zeros = header[:start] + b"0" * 64 + header[start + 64 :]
    file = struct.pack("<Q", len(zeros)) + zeros + body
    return file[: 8 + start] + hashlib.sha256(file).hexdigest().encode() + file[8 + start + 64 :]


def test_tricks_in_the_header_are_refused(content, tmp_path):
    size = int.from_bytes(content[:8], "little")
    header, body = content[8 : 8 + size], content[8 + size :]
    path = tmp_path / "m"
    path.write_bytes(resign(header, body))
    assert pl.load(path).classes == NAMES
    refuse(path, resign(header, body + b"1234"), "cut off or damaged")
    twice = header.replace(b'{\\"classes', b'{\\"kind\\":\\"model\\",\\"classes')
    refuse(path, resign(twice, body), "damaged")
    entry = json.dumps(header_of(content)["7.bias"]).encode()
    refuse(path, resign(header.replace(b"{", b'{"7.bias":' + entry + b",", 1), body), "damaged")
    refuse(path, resign(header.replace(b'\\"format\\":1', b'\\"format\\":NaN'), body), "damaged")
    refuse(path, resign(header.replace(b'"F32"', b'"F16"', 1), body), "table of tensors is wrong|cut off or damaged")
    wrong = header_of(content)
    begin, end = wrong["7.bias"]["data_offsets"]
    for offsets in ([begin - 4, end - 4], [begin, end + 4], [-4, 8], [0.0, 12.0], [0, 1 << 62], "ab", None):
        table = json.loads(header)
        table["7.bias"]["data_offsets"] = offsets
        refuse(path, resign(json.dumps(table).encode(), body), "table of tensors is wrong|cut off or damaged")
    for shape in ([-3], [3, -1], [1 << 62], [True, 3], "3", [1.5, 2]):
        table = json.loads(header)
        table["7.bias"]["shape"] = shape
        refuse(path, resign(json.dumps(table).encode(), body), "table of tensors is wrong|cut off or damaged")
    refuse(path, content.replace(b"sha256", b"sha255"), "damaged|no digest")
    refuse(path, struct.pack("<Q", 1 << 40) + content[8:], "cut off")


class Trap:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a file was run')",))


def test_other_files_are_refused(tmp_path):
    from safetensors.numpy import save

    path = tmp_path / "m"
    refuse(path, pickle.dumps(Trap()), "is not a pellucid file")
    refuse(path, b"", "is not a pellucid file")
    refuse(path, b"PK\x03\x04" + bytes(100), "is not a pellucid file")
    refuse(path, save({"weight": np.zeros(3, F32)}), "not one that pellucid wrote")
    refuse(path, save({"weight": np.zeros(3, F32)}, metadata={"pellucid": "{}"}), "not one that pellucid wrote|digest")
    refuse(path, save({"weight": np.zeros(3, F32)}, metadata={"pellucid": "[1]"}), "not one that pellucid wrote")


def test_a_checkpoint_is_no_model(tmp_path):
    file = pack({"engine.parameters": np.zeros(3, F32)}, {"format": 1, "kind": "checkpoint", "settings": {}})
    refuse(tmp_path / "last.ckpt", file, "is not a model file, but 'checkpoint'; use model.safetensors beside it")


def test_a_folder_stands_for_its_model(content, tmp_path):
    with pytest.raises(FileError, match=r"cannot read .*model\.safetensors: No such file"):
        pl.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    assert pl.load(tmp_path).classes == NAMES
    with pytest.raises(FileError, match=r"cannot read .*gone: No such file"):
        pl.load(tmp_path / "gone")


# What is not written


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    m = model()
    with m.network.edit():
        m.network[7].bias[0] = np.nan
    with pytest.raises(FileError, match=r"cannot save .*: 7\.bias holds NaN or infinity"):
        m.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


class Own(nn.ReLU):
    pass


def test_layers_of_ones_own_are_not_saved(tmp_path):
    net = nn.Sequential(nn.Flatten(), Own(), nn.LazyLinear(2), input_shape=(1, 2, 2))
    m = Model(net, InputSpec((1, 2, 2), (0, 1), (0.0,), (1.0,)), ("a", "b"))
    with pytest.raises(OptionError, match=r"Own is not one of pellucid's layers.*save its state_dict"):
        m.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_pack_refuses_numbers_that_json_does_not_know():
    with pytest.raises(ValueError, match="JSON"):
        pack({}, {"a": float("nan")})


def test_the_header_has_a_limit(content, monkeypatch):
    monkeypatch.setattr(model_file, "_HEADER_LIMIT", 100)
    with pytest.raises(FileError, match="cut off"):
        unpack(content, "m")
