"""The model file: what is in it, that it comes back bit for bit, and that nothing wrong is believed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from random import Random

import numpy as np
import pytest

import hostile
import pellucid as pl
from available import EVERY_ENGINE
from hostile import CLASSES, model
from pellucid import nn
from pellucid.errors import FileError, OptionError
from pellucid.interop import sealed
from pellucid.interop.model_file import weights_digest
from pellucid.interop.sealed import pack, unpack
from pellucid.model import InputSpec, Model

pytestmark = pytest.mark.capability("H23")


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
    return json.loads(hostile.header_of(content))


# What comes back


def test_every_kind_of_layer_comes_back(tmp_path):
    """Those without parameters must not be charged for any."""
    net = hostile.kinds_of_layers()
    spec = InputSpec((3, 8, 6), (0.0, 255.0), (0.1, 0.2, 0.3), (0.5, 0.25, 1 / 3), "light")
    Model(net, spec, CLASSES, {}, "ab" * 32).save(tmp_path / "m")
    twin = pl.load(tmp_path / "m").network
    assert repr(twin) == repr(net)
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 6)).astype(np.float32)
    assert np.array_equal(twin(x), net(x))


@pytest.mark.parametrize("engine", EVERY_ENGINE)
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
    assert after.classes == CLASSES
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
        "novelty",
        "sha256",
    }
    assert document["classes"] == list(CLASSES)
    assert document["format"] == 2
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


def flipped(content: bytes, bit: int) -> bytes:
    wrong = bytearray(content)
    wrong[bit // 8] ^= 1 << bit % 8
    return bytes(wrong)


def test_every_bit_of_the_headers_first_kilobyte_is_noticed(content):
    for bit in range(8 * 1024):
        with pytest.raises(FileError):
            unpack(flipped(content, bit), "m")


def test_2000_flipped_bits_are_noticed(content, tmp_path):
    for bit in Random(0).sample(range(8 * len(content)), 2000):
        (tmp_path / "m").write_bytes(flipped(content, bit))
        with pytest.raises(FileError):
            pl.load(tmp_path / "m")


GROWTH = """
import os, sys
import pellucid as pl

def kilobytes(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

small, path = sys.argv[1:]
pl.load(small)  # what is imported on the way counts for nobody
before = kilobytes("VmRSS:")
open("/proc/self/clear_refs", "w").write("5")  # sets VmHWM to what is resident now
try:
    pl.load(path)
except pl.FileError:
    pass
print((kilobytes("VmHWM:") - before) * 1024, os.path.getsize(path))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.parametrize("kind", ["model", "norms", "objects"])
def test_loading_takes_twice_the_file_and_64_mb_at_most(path, tmp_path, content, kind):
    big = tmp_path / "big"
    if kind == "model":
        net = nn.Sequential(nn.Flatten(), nn.Linear(4096, 2500), nn.ReLU(), nn.Linear(2500, 1000), nn.ReLU())
        net = nn.Sequential(net, nn.Linear(1000, 2), input_shape=(1, 64, 64))
        Model(net, InputSpec((1, 64, 64), (0, 1), (0.0,), (1.0,)), ("a", "b")).save(big)
        assert big.stat().st_size > 50_000_000
    elif kind == "norms":
        net = nn.Sequential(nn.Conv2d(1, 400_000, 1), nn.BatchNorm2d(400_000), nn.AdaptiveAvgPool2d(1))
        net = nn.Sequential(net, nn.Flatten(), nn.Linear(400_000, 10), input_shape=(1, 2, 2))
        Model(net, InputSpec((1, 2, 2), (0, 1), (0.0,), (1.0,))).save(big)
    else:  # a megabyte of text that becomes as many objects as it can
        many = {"layer": "Sequential", "layers": [{}] * 300_000}
        big.write_bytes(hostile.fact("network", value=many)(content))
    command = [sys.executable, "-c", GROWTH, str(path), str(big)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
    growth, size = map(int, out.stdout.split())
    assert growth <= 2 * size + (64 << 20)


def test_no_length_but_the_right_one_passes(content):
    for length in [*range(64), *range(64, len(content), 41), len(content) - 1]:
        with pytest.raises(FileError):
            unpack(content[:length], "m")


@pytest.mark.parametrize("name", hostile.MODELS)
def test_hostile_files_are_refused_by_name(content, tmp_path, name):
    make, says = hostile.MODELS[name]
    refuse(tmp_path / "m", make(content), "|".join(map(re.escape, says.split("|"))))


def test_there_are_many_kinds():
    assert len(hostile.MODELS) >= 60


def test_what_makes_hostile_files_makes_good_ones_too(content, tmp_path):
    """Else all of them might be refused for one and the same mistake in making them."""
    same = (hostile.raw(lambda head, body: (head, body)), hostile.fact("kind", value="model"), hostile.table(bool))
    for make in (*same, hostile.text(str), hostile.tensor("7.bias", lambda array: array)):
        (tmp_path / "m").write_bytes(make(content))
        assert pl.load(tmp_path / "m").classes == CLASSES


def test_a_checkpoint_is_no_model(tmp_path):
    file = pack({"engine.parameters": np.zeros(3, np.float32)}, {"format": 1, "kind": "checkpoint", "settings": {}})
    refuse(tmp_path / "last.ckpt", file, "is not a model file, but 'checkpoint'; use model.safetensors beside it")


def test_a_folder_stands_for_its_model(content, tmp_path):
    with pytest.raises(FileError, match=r"cannot read .*model\.safetensors: No such file"):
        pl.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    assert pl.load(tmp_path).classes == CLASSES
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


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(2), input_shape=(1, 2, 2))
    m = Model(net, InputSpec((1, 2, 2), (0, 1e300), (0.0,), (1.0,)), ("a", "b"))
    with pytest.raises(FileError, match=r"cannot save .*: input: .*value_range must rise"):
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


def test_the_header_has_a_limit(content, tmp_path, monkeypatch):
    monkeypatch.setitem(sealed.HEADER_LIMITS, "model", 100)
    refuse(tmp_path / "m", content, "cut off")
    with pytest.raises(FileError, match=r"cannot save .*: names, shapes and facts take \d+ bytes, a file can hold 100"):
        model().save(tmp_path / "new")
    assert not (tmp_path / "new").exists()
