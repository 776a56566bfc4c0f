"""A fuzz target for each parser: a function of bytes, out of which only a PellucidError may come.

tests/fuzz/test_targets.py tries each for a moment, tests/fuzz/run.py for as long as one likes (`make fuzz`).
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import deepcopy
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import hostile
import pellucid as pl
from golden import make as golden
from made import idx_bytes
from pellucid import canonical, filters
from pellucid.cli.settings import resolve
from pellucid.data.check import check
from pellucid.data.images import FORMATS
from pellucid.interop import sealed
from pellucid.interop.onnx.operators import OPERATORS
from pellucid.nn import Network
from pellucid.nn.spec import from_spec, to_spec
from pellucid.training.run_directory import RunDirectory

Parse = Callable[[bytes, Path], object]
Mutate = Callable[[bytes, Random], bytes]


class Target(NamedTuple):
    """A parser: called with bytes and an empty folder; good inputs; how they are changed."""

    parse: Parse
    seeds: Callable[[], Sequence[bytes]]
    mutate: Mutate


def attempt(name: str, data: bytes, folder: Path) -> str:
    """Parse bytes; "taken" or "refused". Whatever else happens comes out."""
    try:
        TARGETS[name].parse(data, folder)
    except pl.PellucidError as error:
        if "\n" in str(error):
            raise AssertionError(f"an error of several lines: {error}") from error
        return "refused"
    return "taken"


# Changing inputs

_BYTES = (b"\0", b"\xff", b"\x7f", bytes(4), b"\xff" * 4, b"\x80\0\0\0", b"1", b"-", b"9" * 40, b"[", b"{", b'"')
_VALUES = (None, True, False, 0, 1, -1, 3, 2**31, 2**53, 2**63 - 1, 10**12, 0.5, -0.0, 1e-320, 1e308, "", "x", "same")
_VALUES += ("\ud800", "a\nb", "__class__", [], {}, [[]], [1, 2, 3], [0, 0], {"layer": "ReLU"}, {"same_as": "0"})
_SETTINGS = (
    '"x"',
    '""',
    '"\\u0000"',
    "-1",
    "0",
    "9" * 30,
    "9" * 4000,
    "1e400",
    "nan",
    "inf",
    "true",
    "[1]",
    "{a=1}",
    "07:32:00",
)


def change_bytes(data: bytes, random: Random) -> bytes:
    """Flip bits; put in, take out, repeat or move pieces."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        start = random.randrange(len(changed) + 1)
        end = min(len(changed), start + random.choice((0, 1, 2, 4, 8, 64)))
        kind = random.randrange(5)
        if kind == 0 and start < len(changed):
            changed[start] ^= 1 << random.randrange(8)
        elif kind == 1:
            changed[start:end] = random.choice(_BYTES)
        elif kind == 2:
            changed[start:end] = random.randbytes(end - start)
        elif kind == 3:
            changed[start:end] = b""
        else:
            to = random.randrange(len(changed) + 1)
            changed[to:to] = changed[start:end]
    return bytes(changed)


def change_json(data: bytes, random: Random) -> bytes:
    """Replace, remove or repeat a value somewhere in a document."""
    document = json.loads(data)
    for _ in range(random.choice((1, 1, 2, 3))):
        places: list[tuple[Any, Any]] = []
        stack: list[Any] = [document]
        while stack:
            node = stack.pop()
            keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
            places += [(node, key) for key in keys]
            stack += [node[key] for key in keys]
        if not places:
            break
        node, key = random.choice(places)
        kind = random.randrange(6)
        if kind == 0:
            del node[key]
        elif kind == 1 and isinstance(node, dict):
            node[random.choice(("layer", "same_as", "padding", "x", ""))] = deepcopy(random.choice(_VALUES))
        elif kind == 2:
            other, place = random.choice(places)
            node[key] = deepcopy(other[place])
        else:
            node[key] = deepcopy(random.choice(_VALUES))
    return json.dumps(document).encode("utf-8", "surrogatepass")


def change_lines(data: bytes, random: Random) -> bytes:
    """Give a setting another value."""
    lines = data.decode().splitlines()
    number = random.randrange(len(lines))
    value = random.choice(_SETTINGS)
    lines[number] = f"{lines[number].split('=')[0]}= {value}"
    return change_bytes("\n".join(lines).encode(), random) if random.random() < 0.2 else "\n".join(lines).encode()


def change_graph(data: bytes, random: Random) -> bytes:
    """Change operators, their inputs and attributes, and shapes; bytes where it is no graph any more."""
    import onnx

    try:
        file = onnx.ModelProto.FromString(data)
    except Exception:
        return change_bytes(data, random)
    graph = file.graph
    if not graph.node or not graph.initializer:
        return change_bytes(data, random)
    numbers = (0, 1, -1, 2, 3, 7, -(1 << 63), (1 << 63) - 1, 1 << 31, 1 << 20)
    for _ in range(random.choice((1, 1, 2, 3))):
        node, other, tensor = random.choice(graph.node), random.choice(graph.node), random.choice(graph.initializer)
        kind = random.randrange(8)
        if kind == 0:
            node.op_type = random.choice((other.op_type, *OPERATORS))
        elif kind == 1 and node.input:
            names = [*other.input, *other.output, "", tensor.name]
            node.input[random.randrange(len(node.input))] = random.choice(names)
        elif kind == 2:
            node.input.append(random.choice((tensor.name, *other.output)))
        elif kind == 3 and node.attribute:
            attribute = random.choice(node.attribute)
            attribute.i = random.choice(numbers)
            if attribute.ints:
                attribute.ints[random.randrange(len(attribute.ints))] = random.choice(numbers)
        elif kind == 4 and tensor.dims:
            tensor.dims[random.randrange(len(tensor.dims))] = random.choice(numbers)
        elif kind == 5 and tensor.data_type == onnx.TensorProto.INT64 and tensor.raw_data:
            values = np.frombuffer(tensor.raw_data, dtype=np.int64).copy()
            values[random.randrange(len(values))] = random.choice(numbers)
            tensor.raw_data = values.tobytes()
        elif kind == 6:
            graph.node.remove(node)
        else:
            dims = graph.input[0].type.tensor_type.shape.dim
            dims[random.randrange(len(dims))].dim_value = random.choice(numbers)
        if not graph.node:
            break
    return bytes(file.SerializeToString())


# The parsers


@cache
def good_model() -> bytes:
    model = hostile.model()
    facts = {"input": {"shape": [3, 8, 6], "value_range": [0, 255], "mean": [0.1] * 3, "std": [0.5] * 3}}
    facts["input"] |= {"polarity": "light", "preparation": "resize"}
    facts |= {"classes": list(model.classes), "metrics": {}, "data_digest": "", "format": 1, "kind": "model"}
    return sealed.pack(model.network.state_dict(), {**facts, "network": to_spec(model.network)})


def resealed(data: bytes) -> bytes:
    """The bytes with a digest that is right, so that what lies behind it is reached."""
    header = hostile.header_of(data)
    return hostile.sealed(header, data[8 + len(header) :])


def parse_sealed(data: bytes, folder: Path) -> object:
    return sealed.unpack(data, "memory"), sealed.unpack(resealed(data), "memory")


def parse_model(data: bytes, folder: Path) -> object:
    (folder / "m").write_bytes(resealed(data))
    return pl.load(folder / "m")


def facts_of(data: bytes) -> bytes:
    return canonical.dumps(sealed.unpack(data, "m")[1]).encode()


def plain(data: bytes) -> dict[str, Any] | None:
    """The facts that could be sealed, or None."""
    try:
        facts = canonical.loads(data)
        text = canonical.dumps(facts)
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) and "sha256" not in text else None


def parse_facts(data: bytes, folder: Path) -> object:
    """A well sealed model whose facts are anything."""
    if (facts := plain(data)) is None:
        return None
    (folder / "m").write_bytes(sealed.pack(sealed.unpack(good_model(), "m")[0], facts))
    return pl.load(folder / "m")


@cache
def good_checkpoint() -> bytes:
    row = {"epoch": 1, "train_loss": 0.5, "train_accuracy": None, "val_loss": 0.4, "val_accuracy": 0.9, "lr": 0.1}
    training = {"epoch": 1, "step": 7, "seen": 3, "sums": {"loss": 0.5, "weight": 1.0, "hits": 3.0}, "warnings": []}
    training |= {"history": [{**row, "seconds": 0.25}], "seconds": 1.5, "stopped": ""}
    facts = {"format": 1, "kind": "checkpoint", "settings": {"lr": 0.1}, "config": "lr = 0.1", "training": training}
    return sealed.pack({"parameters": np.zeros(5, np.float32), "best": np.ones(5, np.float32)}, facts)


def parse_checkpoint(data: bytes, folder: Path) -> object:
    (folder / "last.ckpt").write_bytes(resealed(data))
    return RunDirectory(folder).read_checkpoint()


def parse_checkpoint_facts(data: bytes, folder: Path) -> object:
    if (facts := plain(data)) is None:
        return None
    (folder / "last.ckpt").write_bytes(sealed.pack({"parameters": np.zeros(5, np.float32)}, facts))
    return RunDirectory(folder).read_checkpoint()


def parse_spec(data: bytes, folder: Path) -> object:
    """As `train --model spec.json` does; layers are kept small, for what they say themselves may take any memory."""
    with ExitStack() as limits:
        for module in ("shapes", "nn.layer", "nn.network"):
            limits.enter_context(mock.patch(f"pellucid.{module}.LARGEST", 1 << 16))
        try:
            network = from_spec(canonical.loads(data))
        except ValueError as error:  # the command makes one error of both
            raise pl.OptionError(" ".join(str(error).split())) from error
        return network.build((3, 8, 6)) if isinstance(network, Network) else None


def parse_idx(data: bytes, folder: Path) -> object:
    (folder / "idx").write_bytes(data)
    return pl.data.read_idx(folder / "idx")


def parse_npz(data: bytes, folder: Path) -> object:
    (folder / "set.npz").write_bytes(data)
    return pl.data.load_npz(folder / "set.npz").digest()


def parse_picture(data: bytes, folder: Path) -> object:
    """As predict reads an image file."""
    (folder / "picture.png").write_bytes(data)
    return hostile.model().input.read(folder / "picture.png")


def parse_folder(data: bytes, folder: Path) -> object:
    for label in ("cat", "dog"):
        (folder / label).mkdir(exist_ok=True)
        (folder / label / "0.png").write_bytes(data)
    (folder / "cat" / "1.gif").write_bytes(hostile.encoded("GIF"))
    check(folder)
    return pl.data.load_folder(folder)


def parse_config(data: bytes, folder: Path) -> object:
    (folder / "config.toml").write_bytes(data)
    settings = resolve({}, folder / "config.toml")
    return settings.make_optimizer(), settings.make_schedule(), settings.image_size()


def parse_kernel(data: bytes, folder: Path) -> object:
    (folder / "kernel.txt").write_bytes(data)
    return filters.kernel(str(folder / "kernel.txt"))


def good_npz() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in {**hostile.GOOD, "classes.npy": hostile.array(["a", "b"])}.items():
            file.writestr(name, data)
    return buffer.getvalue()


def good_config() -> bytes:
    lines = ['data = "digits"', "epochs = 3", "batch_size = 64", 'optimizer = "sgd"', "lr = 0.05", "momentum = 0.9"]
    lines += ["weight_decay = 0.1", "clip = 1", 'schedule = "step"', 'size = "28x28"', 'normalize = "unit"']
    lines += ["val_fraction = 0.2", "subset = 9", "seed = 1", "threads = 2", "strict = false", "checkpoint_every = 5"]
    return "\n".join(lines).encode()


@cache
def specs() -> Sequence[bytes]:
    return [canonical.dumps(to_spec(network)).encode() for network in (hostile.network(), hostile.kinds_of_layers())]


def pictures() -> Sequence[bytes]:
    return [hostile.encoded(kind) for kind in FORMATS]


def idx_seeds() -> Sequence[bytes]:
    plain = [idx_bytes(np.arange(12).reshape(3, 4).astype(kind)) for kind in ("u1", "i2", "f4")]
    return [*plain, *(gzip.compress(data, mtime=0) for data in plain)]


@cache
def onnx_files() -> Sequence[bytes]:
    """A model as pellucid writes it with its preprocessing, and networks as Keras writes them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        pl.interop.export_onnx(hostile.model(), path, preprocessing=True)
        return [path.read_bytes(), *(file.read_bytes() for file in sorted(golden.FOLDER.glob("keras-*-13.onnx")))]


def parse_onnx(data: bytes, folder: Path) -> object:
    """The network, and the model if it is one; small, for a padding may say any size."""
    with ExitStack() as limits:
        for module in ("shapes", "nn.layer", "nn.network", "interop.onnx.graph"):
            limits.enter_context(mock.patch(f"pellucid.{module}.LARGEST", 1 << 18))
        limits.enter_context(mock.patch("pellucid.interop.onnx.reading.LARGEST_PROOF", 1 << 16))
        network = pl.interop.import_onnx(data)
        if b"pellucid" in data:
            (folder / "m.onnx").write_bytes(data)
            pl.load(folder / "m.onnx")
        return network


TARGETS = {
    "sealed": Target(parse_sealed, lambda: [good_model(), good_checkpoint()], change_bytes),
    "model": Target(parse_model, lambda: [good_model()], change_bytes),
    "model facts": Target(parse_facts, lambda: [facts_of(good_model())], change_json),
    "checkpoint": Target(parse_checkpoint, lambda: [good_checkpoint()], change_bytes),
    "checkpoint facts": Target(parse_checkpoint_facts, lambda: [facts_of(good_checkpoint())], change_json),
    "spec": Target(parse_spec, specs, change_json),
    "spec text": Target(parse_spec, specs, change_bytes),
    "idx": Target(parse_idx, idx_seeds, change_bytes),
    "npz": Target(parse_npz, lambda: [good_npz(), hostile.patched(0, b"")()], change_bytes),
    "picture": Target(parse_picture, pictures, change_bytes),
    "folder": Target(parse_folder, pictures, change_bytes),
    "config": Target(parse_config, lambda: [good_config()], change_lines),
    "onnx": Target(parse_onnx, onnx_files, change_graph),
    "onnx bytes": Target(parse_onnx, onnx_files, change_bytes),
    "kernel": Target(parse_kernel, lambda: [b"# an edge\n-1 0 1\n-2, 0, 2\n-1 0 1\n"], change_bytes),
}
