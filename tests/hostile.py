"""Files that lie: model files and data files, each with a part of the message that refuses it.

Used by the tests, by scripts/reliability, and as seeds of the fuzzers.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from made import IDX_NAMES, idx_bytes, idx_files, picture
from pellucid import nn
from pellucid.interop.sealed import pack, unpack
from pellucid.model import InputSpec, Model

CLASSES = ("ant", "bee", "Käfer")
CANARY = "PELLUCID_CANARY"
"""Environment variable with the path of a file that hostile code would make."""


class Trap:
    """What a pickle runs: it makes the canary."""

    def __reduce__(self):
        return (exec, (f"import os; open(os.environ[{CANARY!r}], 'w').close()",))


# Model files


def network(dtype: str = "float32") -> nn.Sequential:
    """A small network with each kind of thing that a file holds."""
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


def kinds_of_layers() -> nn.Sequential:
    """A network with layers of each kind: padding, branches, unpooling, norms, one and three dimensions."""
    return nn.Sequential(
        nn.ZeroPad2d((1, 0, 1, 0)),
        nn.Concat(
            nn.Identity(),
            nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"), nn.GroupNorm(2, 4, affine=False)),
            nn.MaxUnpool2d(nn.MaxPool2d(2), nn.Sequential(nn.PReLU(3), nn.GroupNorm(1, 3))),
        ),
        nn.LayerNorm((10, 9, 7), elementwise_affine=False),
        nn.ConvTranspose2d(10, 4, 3, stride=2, groups=2),
        nn.LayerNorm(15, bias=False),
        nn.Upsample(scale_factor=1.5, mode="bilinear", align_corners=True),
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
    ).build((3, 8, 6), seed=1)


def model(dtype: str = "float32") -> Model:
    """The small network with input spec and names."""
    spec = InputSpec((3, 8, 6), (0.0, 255.0), (0.1, 0.2, 0.3), (0.5, 0.25, 1 / 3), "light")
    return Model(network(dtype), spec, CLASSES, {"val_accuracy": 0.1 + 0.2}, "ab" * 32)


def header_of(content: bytes) -> bytes:
    """The header of a safetensors file."""
    return content[8 : 8 + int.from_bytes(content[:8], "little")]


def sealed(header: bytes, body: bytes) -> bytes:
    """A file of any header, with a digest that is right for it where it has a place for one."""
    mark = b'sha256\\":\\"'
    file = struct.pack("<Q", len(header)) + header + body
    if mark not in header:
        return file
    start = 8 + header.index(mark) + len(mark)
    file = file[:start] + b"0" * 64 + file[start + 64 :]
    return file[:start] + hashlib.sha256(file).hexdigest().encode() + file[start + 64 :]


def repacked(content: bytes, change: Callable[[dict, dict], object]) -> bytes:
    """The file with other tensors or facts, well sealed."""
    arrays, facts = unpack(content, "m")
    arrays, facts = dict(arrays), json.loads(json.dumps(facts))
    change(arrays, facts)
    return pack(arrays, facts)


Make = Callable[[bytes], bytes]


def raw(change: Callable[[bytes, bytes], tuple[bytes, bytes]]) -> Make:
    """Change header and body."""

    def make(content: bytes) -> bytes:
        header = header_of(content)
        return sealed(*change(header, content[8 + len(header) :]))

    return make


def header(old: bytes, new: bytes) -> Make:
    """Replace the first such text in the header."""

    def change(head: bytes, body: bytes) -> tuple[bytes, bytes]:
        assert old in head
        return head.replace(old, new, 1), body

    return raw(change)


def entry(key: str, value: Any) -> Make:
    """Change the bias of the last layer in the table of tensors."""

    def change(head: bytes, body: bytes) -> tuple[bytes, bytes]:
        table = json.loads(head)
        table["7.bias"][key] = value
        return json.dumps(table).encode(), body

    return raw(change)


def table(change: Callable[[dict], object]) -> Make:
    """Change the table of tensors."""

    def apply(head: bytes, body: bytes) -> tuple[bytes, bytes]:
        entries = json.loads(head)
        change(entries)
        return json.dumps(entries).encode(), body

    return raw(apply)


def text(change: Callable[[str], str]) -> Make:
    """Change the facts as text."""

    def apply(head: bytes, body: bytes) -> tuple[bytes, bytes]:
        entries = json.loads(head)
        entries["__metadata__"]["pellucid"] = change(entries["__metadata__"]["pellucid"])
        return json.dumps(entries).encode(), body

    return raw(apply)


def fact(*keys: str | int, value: Any) -> Make:
    """Set a fact."""

    def change(arrays: dict, facts: dict) -> None:
        place = facts
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return lambda content: repacked(content, change)


def layer(number: int, **arguments: Any) -> Make:
    """Set arguments of a layer."""

    def change(arrays: dict, facts: dict) -> None:
        facts["network"]["layers"][number].update(arguments)

    return lambda content: repacked(content, change)


def instead(*layers: dict[str, Any]) -> Make:
    """Put others at the place of the ReLU, which gets and gives 4x6x4."""
    return fact("network", "layers", 2, value={"layer": "Sequential", "layers": list(layers)})


def tensor(name: str, change: Callable[[np.ndarray], np.ndarray] | None) -> Make:
    """Change a tensor, or leave it out."""

    def apply(arrays: dict, facts: dict) -> None:
        array = arrays.pop(name, np.zeros(3, np.float32)).copy()
        if change is not None:
            arrays[name] = change(array)

    return lambda content: repacked(content, apply)


def set_first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array.flat[0] = value
        return array

    return change


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def npz_of_objects(content: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, images=np.array([Trap()] * 4, dtype=object), labels=np.arange(4) % 2)
    return buffer.getvalue()


def nested(depth: int) -> Make:
    def change(arrays: dict, facts: dict) -> None:
        for _ in range(depth):
            facts["network"] = {"layer": "Sequential", "layers": [facts["network"]]}

    return lambda content: repacked(content, change)


def doubled(path: str, times: int) -> dict:
    """A layer that stands 2^times times."""
    if not times:
        return {"layer": "ReLU"}
    return {"layer": "Sequential", "layers": [doubled(f"{path}.0", times - 1), {"same_as": f"{path}.0"}]}


def swapped(entries: dict) -> None:
    """Two tensors of the same size at each other's place, with a gap of 4 bytes between."""
    begin, end = entries["7.bias"]["data_offsets"]
    entries["7.bias"]["data_offsets"] = [begin + 4, end + 4]


FOREIGN = "is not a pellucid file"
NOT_OURS = "not one that pellucid wrote, or it is damaged"
TABLE = "its table of tensors is wrong"
SIZE = "is cut off or damaged: it holds"
MAPS = "its maps do not fit into memory"
SMALL = {"layer": "AdaptiveAvgPool2d", "output_size": [6, 4]}
TRANSPOSE = {"layer": "ConvTranspose2d", "in_channels": 4, "out_channels": 4, "groups": 4, "bias": False}

MODELS: dict[str, tuple[Make, str]] = {
    # Other files
    "empty": (lambda c: b"", FOREIGN),
    "seven bytes": (lambda c: c[:7], FOREIGN),
    "zeros": (lambda c: bytes(64), FOREIGN),
    "text": (lambda c: b"milk, bread and butter", FOREIGN),
    "a pickle that runs code": (lambda c: pickle.dumps(Trap()), FOREIGN),
    "a zip of pickles, as PyTorch writes": (lambda c: zipped(data=pickle.dumps(Trap())), FOREIGN),
    "an npz of objects": (npz_of_objects, FOREIGN),
    "gzip of a model": (gzip.compress, FOREIGN),
    "a picture": (lambda c: b"\x89PNG\r\n\x1a\n" + c, FOREIGN),
    "safetensors of somebody else": (
        lambda c: sealed(b'{"w":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}', b""),
        NOT_OURS,
    ),
    # Lengths
    "cut in the header": (lambda c: c[:300], FOREIGN),
    "cut in the tensors": (lambda c: c[:-100], SIZE),
    "one byte short": (lambda c: c[:-1], SIZE),
    "one byte more": (lambda c: c + b"\0", SIZE),
    "twice": (lambda c: c + c, SIZE),
    "header length 0": (lambda c: bytes(8) + c[8:], FOREIGN),
    "header length 2^64 - 1": (lambda c: b"\xff" * 8 + c[8:], FOREIGN),
    "header longer than the file": (lambda c: struct.pack("<Q", len(c)) + c[8:], FOREIGN),
    "header length one less": (lambda c: struct.pack("<Q", len(header_of(c)) - 1) + c[8:], SIZE),
    "header length one more": (lambda c: struct.pack("<Q", len(header_of(c)) + 1) + c[8:], NOT_OURS),
    "header of 17 MB": (raw(lambda head, body: (head + b" " * (17 << 20), body)), FOREIGN),
    # The header as JSON
    "header is a list": (raw(lambda head, body: (b"[" + head + b"]", body)), FOREIGN),
    "header begins with a space": (raw(lambda head, body: (b" " + head, body)), FOREIGN),
    "header in UTF-16": (raw(lambda head, body: (head.decode().encode("utf-16-le"), body)), NOT_OURS),
    "header with a wrong byte": (header(b'"7.bias"', b'"7.b\xff\xff\xffs"'), NOT_OURS),
    "header nested 100 000 deep": (raw(lambda head, body: (b'{"a":' * 100_000, body)), NOT_OURS),
    "a tensor stands twice": (
        header(b'{"', b'{"7.bias":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"'),
        NOT_OURS,
    ),
    "metadata stand twice": (header(b'{"', b'{"__metadata__":{"pellucid":"{}"},"'), NOT_OURS),
    "metadata with a second key": (table(lambda t: t["__metadata__"].update(code="import os")), NOT_OURS),
    "metadata is a list": (table(lambda t: t.update(__metadata__=["pellucid"])), NOT_OURS),
    "no metadata": (table(lambda t: t.pop("__metadata__")), NOT_OURS),
    "facts are no text": (table(lambda t: t.update(__metadata__={"pellucid": 3})), NOT_OURS),
    # The table of tensors
    "tensor of Python objects": (entry("dtype", "O"), TABLE),
    "tensor of half floats": (entry("dtype", "F16"), TABLE),
    "dtype is a list": (entry("dtype", ["F32"]), TABLE),
    "unknown key of a tensor": (entry("hook", "os.system"), TABLE),
    "overlap": (entry("data_offsets", [0, 12]), TABLE),
    "hole": (table(swapped), TABLE),
    "negative offset": (entry("data_offsets", [-12, 0]), TABLE),
    "offset 2^62": (entry("data_offsets", [0, 1 << 62]), TABLE),
    "offsets are fractions": (entry("data_offsets", [0.0, 12.0]), TABLE),
    "one offset": (entry("data_offsets", [0]), TABLE),
    "offsets are text": (entry("data_offsets", "ab"), TABLE),
    "negative shape": (entry("shape", [-3]), TABLE),
    "true as a size": (entry("shape", [True, 3]), TABLE),
    "sizes whose product overflows": (entry("shape", [1 << 32, 1 << 32, 3]), TABLE),
    "size 0 beside size 2^60": (entry("shape", [0, 1 << 60]), TABLE),
    "100 000 axes": (entry("shape", [1] * 100_000 + [3]), TABLE),
    "a size of 4 000 digits": (header(b'"shape":[3]', b'"shape":[' + b"9" * 4000 + b"]"), NOT_OURS),
    # The facts as JSON
    "a fact stands twice": (text(lambda t: t.replace('{"classes"', '{"kind":"model","classes"')), NOT_OURS),
    "NaN as a fact": (text(lambda t: t.replace('"format":2', '"format":NaN')), NOT_OURS),
    "infinity as a fact": (text(lambda t: t.replace("0.30000000000000004", "1e999")), NOT_OURS),
    "a space in the facts": (text(lambda t: t.replace('"format":2', '"format": 2')), NOT_OURS),
    "another spelling": (text(lambda t: t.replace('"kind"', '"\\u006bind"')), NOT_OURS),
    "another order": (text(lambda t: '{"kind":"model",' + t[1:].replace('"kind":"model",', "")), NOT_OURS),
    "an integer of 30 digits": (text(lambda t: t.replace('"format":2', f'"format":{10**30}')), NOT_OURS),
    "facts nested 100 000 deep": (text(lambda t: "[" * 100_000), NOT_OURS),
    "facts are a list": (text(lambda t: f"[{t}]"), NOT_OURS),
    "no digest": (text(lambda t: t.replace("sha256", "sha255")), NOT_OURS),
    "wrong digest": (
        lambda c: c.replace(b'sha256\\":\\"', b'sha256\\":\\"0', 1).replace(b'0\\"}', b'\\"}', 1),
        "damaged",
    ),
    "digest in capitals": (lambda c: _capitals(c), "its digest does not match"),
    "a weight changed": (lambda c: c[:-1] + bytes([c[-1] ^ 1]), "its digest does not match"),
    # What the facts say
    "format of the future": (fact("format", value=3), "has format 3, this version reads 2; install a newer pellucid"),
    "format true": (fact("format", value=True), "has format True"),
    "format 1.0": (fact("format", value=1.0), "has format 1.0"),
    "kind": (fact("kind", value="zoo"), "is not a model file, but 'zoo'"),
    "kind is a list": (fact("kind", value=["model"]), "is not a model file"),
    "unknown fact": (fact("on_load", value="os.system('true')"), "on_load: Extra inputs are not permitted"),
    "unknown fact with a line break": (fact("a\nb", value=1), "a\\nb: Extra inputs are not permitted"),
    "no classes": (lambda c: repacked(c, lambda a, f: f.pop("classes")), "classes: Field required"),
    "one class too few": (fact("classes", value=["a", "b"]), "3 outputs, but there are 2 classes"),
    "a class twice": (fact("classes", value=["a", "b", "a"]), "a class name stands twice"),
    "a class is a number": (fact("classes", value=["a", "b", 3]), "classes.2: Input should be a valid string"),
    "a class that is no text": (fact("classes", value=["a", "b", "\ud800"]), "Invalid JSON"),
    "metrics are text": (fact("metrics", value={"a": "high"}), "metrics.a"),
    "input of text": (fact("input", "shape", value=["3", "8", "6"]), "input.shape.0: Input should be a valid integer"),
    "input of booleans": (fact("input", "shape", value=[True, 8, 6]), "input.shape.0: Input should be a valid integer"),
    "input of fractions": (fact("input", "shape", value=[3.0, 8, 6]), "input.shape.0: Input should be a valid integer"),
    "input of size 0": (fact("input", "shape", value=[3, 0, 6]), "greater than or equal to 1"),
    "input of size 2^40": (fact("input", "shape", value=[3, 8, 1 << 40]), "input.shape.2: Input should be less than"),
    "input that fills memory": (fact("input", "shape", value=[3, 60_000, 60_000]), "is too large"),
    "input of another size": (fact("input", "shape", value=[3, 8, 9]), "use Linear("),
    "range falls": (fact("input", "value_range", value=[1, 0]), "value_range must rise"),
    "range of nothing": (fact("input", "value_range", value=[0, 5e-324]), "value_range must rise"),
    "range beyond float32": (fact("input", "value_range", value=[-1e300, 1e300]), "value_range must rise"),
    "no deviation": (fact("input", "std", value=[1, 1, 0]), "input.std.2: Input should be greater than"),
    "one mean for three channels": (fact("input", "mean", value=[0.0]), "one number for each channel"),
    "preparation by code": (
        fact("input", "preparation", value="eval"),
        "input.preparation: Input should be 'resize' or",
    ),
    "novelty of two classes": (
        fact("novelty", value={"looks": [[0, 1]] * 4, "evidence": [1, 2]}),
        "one threshold for each class",
    ),
    "novelty of three looks": (fact("novelty", value={"looks": [[0, 1]] * 3, "evidence": [1, 2, 3]}), "novelty.looks"),
    "novelty by code": (fact("novelty", value={"looks": [[0, 1]] * 4, "evidence": "eval"}), "novelty.evidence"),
    # The network
    "unknown layer": (fact("network", "layers", 2, value={"layer": "os.system"}), 'layer 2: unknown layer "os.system"'),
    "a class of Python": (fact("network", "layers", 2, value={"layer": "__class__"}), 'unknown layer "__class__"'),
    "layer by module": (fact("network", "layers", 2, value={"layer": "pellucid.nn.ReLU"}), "unknown layer"),
    "layer is a list": (fact("network", "layers", 2, value=["ReLU"]), "layer 2 must be an object"),
    "layers are an object": (fact("network", "layers", value={}), '"layers" must be a list'),
    "argument that runs": (layer(2, forward="lambda x: x"), 'layer 2: unknown argument "forward"'),
    "argument missing": (fact("network", "layers", 7, value={"layer": "Linear"}), "layer 7 lacks in_features"),
    "single layer": (fact("network", value={"layer": "ReLU"}), "the network is a single layer"),
    "no layers": (fact("network", value={"layer": "Sequential", "layers": []}), "has no layers"),
    "lazy layer": (
        fact("network", "layers", 7, value={"layer": "LazyLinear", "out_features": 3}),
        "holds resolved layers only",
    ),
    "nested 60 deep": (nested(60), "nested more than 50 deep"),
    "nested 200 deep": (nested(200), "recursion limit"),
    "2^30 layers": (fact("network", "layers", 2, value=doubled("2", 30)), "has more than 10000 layers"),
    "same as itself": (fact("network", "layers", 2, value={"same_as": "2"}), "which does not stand before it"),
    "same as a file": (fact("network", "layers", 2, value={"same_as": "/etc/passwd"}), "does not stand before it"),
    "kernel 10^9": (layer(0, kernel_size=10**9), "'Conv2d' has more parameters than the file holds"),
    "kernel 0": (layer(0, kernel_size=0), "kernel_size must be at least 1, got 0"),
    "kernel -3": (layer(0, kernel_size=-3), "kernel_size must be at least 1, got -3"),
    "kernel true": (layer(0, kernel_size=True), "kernel_size must be a whole number, got True"),
    "kernel 3.5": (layer(0, kernel_size=3.5), "kernel_size must be a whole number, got 3.5"),
    "kernel of three": (layer(0, kernel_size=[3, 3, 3]), "'Conv2d' has more parameters|must be a number or a pair"),
    "kernel of lists": (layer(0, kernel_size=[[3, 3], 3]), "kernel_size must be a whole number"),
    "10^12 channels": (layer(0, out_channels=10**12), "'Conv2d' has more parameters than the file holds"),
    "10^12 features": (layer(7, out_features=10**12), "'Linear' has more parameters than the file holds"),
    "10^9 channels of a norm": (layer(1, num_features=10**9), "'BatchNorm2d' has more parameters than the file holds"),
    "channels as text": (layer(0, in_channels="3"), "in_channels must be a whole number, got '3'"),
    "no groups": (layer(0, groups=0), "groups must be at least 1, got 0"),
    "3 groups of 4 channels": (layer(0, groups=3), "must be a multiple of groups 3"),
    "stride 0": (layer(0, stride=0), "stride must be at least 1, got 0"),
    "stride 2^63 - 1": (layer(0, stride=(1 << 63) - 1), "too large"),
    "dilation 10^9": (layer(0, dilation=10**9), "does not fit into"),
    "padding -1": (layer(0, padding=-1), "padding must be at least 0, got -1"),
    "padding 10^9": (layer(0, padding=10**9), "are too large"),
    "padding 10 000": (layer(0, padding=10_000, stride=[4001, 6667]), MAPS),
    "padding by name": (layer(0, padding="eval"), 'unknown padding "eval"'),
    "bias no": (layer(0, bias="no"), "bias must be True or False, got 'no'"),
    "dropout 2": (layer(5, p=2), "p is the share of elements to drop"),
    "negative eps": (layer(1, eps=-1), "eps must be a number of at least 0, got -1"),
    "pool of 10^9": (layer(4, kernel_size=10**9), "does not fit into"),
    "pool beyond the maps": (
        instead({"layer": "MaxPool2d", "kernel_size": 20_000, "ceil_mode": True}, SMALL),
        MAPS,
    ),
    "10^9 slopes": (instead({"layer": "PReLU", "num_parameters": 10**9}), "'PReLU' has more parameters than the file"),
    "10^9 channels in a branch": (
        instead({"layer": "Concat", "branches": [{"layer": "GroupNorm", "num_groups": 1, "num_channels": 10**9}]}),
        "'GroupNorm' has more parameters than the file holds",
    ),
    "10^10 numbers of a norm": (
        instead({"layer": "LayerNorm", "normalized_shape": [10**5, 10**5]}),
        "'LayerNorm' has more parameters than the file holds",
    ),
    "kernel of a volume": (
        instead({"layer": "Conv3d", "in_channels": 1, "out_channels": 1, "kernel_size": 50}),
        "'Conv3d' has more parameters than the file holds",
    ),
    "10^10 transposed weights": (
        instead({"layer": "ConvTranspose2d", "in_channels": 10**5, "out_channels": 10**5, "kernel_size": 1}),
        "'ConvTranspose2d' has more parameters than the file holds",
    ),
    "stride of a transpose": (instead({**TRANSPOSE, "kernel_size": 1, "stride": 4500}, SMALL), MAPS),
    "dilation of a transpose, cut off": (
        instead({**TRANSPOSE, "kernel_size": 2, "dilation": 20_000, "padding": 10_000}),
        MAPS,
    ),
    "dilation, padded by name": (fact("network", "layers", 3, "body", "layers", 0, "dilation", value=20_000), MAPS),
    "padding of four sides": (instead({"layer": "ZeroPad2d", "padding": 10_000}, SMALL), MAPS),
    "padded, and the other axis cut": (
        instead(
            {"layer": "ZeroPad2d", "padding": [0, 0, 60_000, 0]},
            {"layer": "ZeroPad2d", "padding": [60_000, 0, -60_005, 0]},
            SMALL,
        ),
        MAPS,
    ),
    "upsampling": (instead({"layer": "Upsample", "size": [20_000, 20_000]}, SMALL), MAPS),
    "upsampling, one axis after the other": (
        instead({"layer": "Upsample", "size": [1, 10**6]}, {"layer": "Upsample", "size": [10**6, 1]}, SMALL),
        MAPS,
    ),
    "align_corners 1": (
        instead({"layer": "Upsample", "scale_factor": 2, "mode": "bilinear", "align_corners": 1}),
        "align_corners must be True, False or None, got 1",
    ),
    "no branches": (instead({"layer": "Concat", "branches": []}), "Concat needs at least one branch"),
    "unpooling of no pool": (
        instead({"layer": "MaxUnpool2d", "pool": {"layer": "ReLU"}, "body": {"layer": "ReLU"}}),
        "pool must be a MaxPool2d without dilation, got ReLU()",
    ),
    "start by code": (layer(7, init="__import__"), 'unknown initialization "__import__"'),
    # The weights
    "tensor missing": (tensor("7.bias", None), "missing ['7.bias'], extra none"),
    "tensor too many": (tensor("8.bias", lambda a: a), "missing none, extra ['8.bias']"),
    "tensor too long": (tensor("7.bias", lambda a: np.zeros(4, np.float32)), "should be float32 (3,), is float32 (4,)"),
    "tensor turned": (tensor("7.weight", lambda a: a.T), "should be float32 (3, 24), is float32 (24, 3)"),
    "tensor of another type": (tensor("7.bias", lambda a: a.astype(np.int64)), "should be float32 (3,), is int64 (3,)"),
    "NaN in a weight": (tensor("7.bias", set_first(np.nan)), "tensor 7.bias holds NaN or infinity"),
    "infinity in a weight": (tensor("0.weight", set_first(np.inf)), "tensor 0.weight holds NaN or infinity"),
    "minus infinity in a mean": (tensor("1.running_mean", set_first(-np.inf)), "running_mean holds NaN or infinity"),
    "negative variance": (tensor("1.running_var", set_first(-1)), "tensor 1.running_var holds negative variances"),
}
"""(how it is made from a good model file, what the message says) by name; "|" stands between two possible messages."""


def _capitals(content: bytes) -> bytes:
    mark = b'sha256\\":\\"'
    start = content.index(mark) + len(mark)
    return content[:start] + content[start : start + 64].upper() + content[start + 64 :]


# Data files: (how it is made in a folder, what the message says) by name


def flat(name: str, content: bytes | Callable[[], bytes]) -> Callable[[Path], Path]:
    """A file."""

    def make(tmp: Path) -> Path:
        path = tmp / name
        path.write_bytes(content if isinstance(content, bytes) else content())
        return path

    return make


def npy(shape: str, dtype: str = "'|u1'", body: bytes = b"") -> bytes:
    """A NumPy array whose header says anything."""
    head = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + body


def array(values: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values), allow_pickle=False)
    return buffer.getvalue()


GOOD = {"images.npy": npy("(2, 4, 4)", body=bytes(32)), "labels.npy": array([0, 1])}


def archive(compression: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Callable[[Path], Path]:
    """An .npz file; members by name without .npy replace the good ones."""

    def content() -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as file:
            for name, data in {**GOOD, **{f"{name}.npy": data for name, data in members.items()}}.items():
                file.writestr(name, data)
        return buffer.getvalue()

    return flat("set.npz", content)


def named_twice() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(buffer, "w") as file:
            for name, data in [*GOOD.items(), *GOOD.items()]:
                file.writestr(name, data)
    return buffer.getvalue()


def patched(offset_in_central: int, value: bytes) -> Callable[[], bytes]:
    """A good .npz with bytes of its first central directory entry changed."""

    def make() -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in GOOD.items():
                file.writestr(name, data)
        content = bytearray(buffer.getvalue())
        start = content.index(b"PK\x01\x02") + offset_in_central
        content[start : start + len(value)] = value
        return bytes(content)

    return make


def idx(name: str, content: bytes | None, packed: bool = False) -> Callable[[Path], Path]:
    """A folder of IDX files, one of them replaced or left out."""

    def make(tmp: Path) -> Path:
        root = tmp / "idx"
        root.mkdir()
        for key, good in idx_files().items():
            data = content if key == name else good
            if data is not None:
                (root / key).write_bytes(gzip.compress(data) if packed and key == name else data)
        return root

    return make


def head(code: int, *sizes: int) -> bytes:
    """The header of an IDX file."""
    return struct.pack(f">BBBB{len(sizes)}I", 0, 0, code, len(sizes), *sizes)


def photos(content: bytes | None = None, name: str = "0.png") -> Callable[[Path], Path]:
    """Two classes of pictures; the second class has one file only, of that content."""

    def make(tmp: Path) -> Path:
        root = tmp / "photos"
        for i in range(6):
            picture(root / "cat" / f"{i}.png", seed=i)
        (root / "dog").mkdir()
        if content is not None:
            (root / "dog" / name).write_bytes(content)
        return root

    return make


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG that declares a size; what follows is given."""
    stream = io.BytesIO()
    stream.write(b"\x89PNG\r\n\x1a\n")
    PngImagePlugin.putchunk(stream, b"IHDR", struct.pack(">II", width, height) + bytes([8, 2, 0, 0, 0]))
    for kind, data in chunks or ((b"IDAT", b"x"),):
        PngImagePlugin.putchunk(stream, kind, data)
    return stream.getvalue()


def encoded(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def bmp(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info


def deep(tmp: Path) -> Path:
    root = photos()(tmp)
    picture(root.joinpath("dog", *["d"] * 60) / "0.png", seed=0)
    return root


def linked(tmp: Path) -> Path:
    """A class folder whose only picture is a link to a device that never ends."""
    root = photos()(tmp)
    (root / "dog" / "0.png").symlink_to("/dev/zero")
    return root


def cifar(change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    """CIFAR-10's binary files, one of them changed."""

    def make(tmp: Path) -> Path:
        good = bytes(10_000 * 3073)
        for name in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
            (tmp / name).write_bytes(change(good) if name == "data_batch_1.bin" else good)
        return tmp

    return make


IMAGES, LABELS = IDX_NAMES[:2]
PIXELS = idx_bytes(np.zeros((40, 6, 6), np.uint8))
NO_NPZ = "is not an .npz file, or a damaged one"
PLAIN = "is not a NumPy array of plain values"
DOG = "no readable image for dog; put images there or remove the folder (1 unreadable, as dog/"

DATA: dict[str, tuple[Callable[[Path], Path], str]] = {
    # IDX
    "IDX: a million images declared": (idx(IMAGES, head(8, 10**6, 6, 6) + PIXELS[16:]), "but holds less"),
    "IDX: sizes whose product overflows": (idx(IMAGES, head(8, 1 << 16, 1 << 16, 1 << 16, 1 << 16)), "but holds less"),
    "IDX: 4 GB in 16 bytes": (idx(IMAGES, head(8, (1 << 32) - 1)), "but holds less"),
    "IDX: one value short": (idx(IMAGES, PIXELS[:-1]), "but holds 1439"),
    "IDX: one value more": (idx(IMAGES, PIXELS + b"\0"), "but holds more"),
    "IDX: header cut": (idx(IMAGES, PIXELS[:9]), "ends within its header"),
    "IDX: 255 axes": (idx(IMAGES, b"\0\0\x08\xff" + struct.pack(">255I", *[1] * 255) + b"x"), "is not an IDX file"),
    "IDX: no axes": (idx(IMAGES, b"\0\0\x08\0x"), "is not an IDX file"),
    "IDX: unknown type": (idx(IMAGES, b"\0\0\x07" + PIXELS[3:]), "is not an IDX file"),
    "IDX: a pickle": (idx(IMAGES, pickle.dumps(Trap())), "is not an IDX file"),
    "IDX: no pixels, 2^32 wide": (idx(IMAGES, head(8, 0, (1 << 32) - 1, (1 << 32) - 1)), "which no array can have"),
    "IDX: images without pixels": (idx(IMAGES, head(8, 40, 0, 0)), "training images 0x0"),
    "IDX: fewer labels": (idx(LABELS, head(8, 7) + bytes(7)), "are the files mixed up?"),
    "IDX: labels are images": (idx(LABELS, PIXELS), "are the files mixed up?"),
    "IDX: labels missing": (idx(LABELS, None), "has no train-labels-idx1-ubyte"),
    "IDX: label 2 of 2 billion": (
        idx(LABELS, head(12, 40) + struct.pack(">40i", *[0] * 39, 2**31 - 1)),
        "has the label 2",
    ),
    "IDX: test images of another size": (
        idx(IDX_NAMES[2], head(8, 20, 5, 5) + bytes(500)),
        "all must have the same size and type",
    ),
    "IDX: gzip bomb": (idx(IMAGES, head(8, 40, 6, 6) + bytes(40_000_000), packed=True), "but holds more"),
    "IDX: gzip that declares 4 GB": (idx(IMAGES, head(8, (1 << 32) - 1), packed=True), "but holds less"),
    "IDX: gzip cut off": (idx(IMAGES, gzip.compress(PIXELS)[:-4]), "damaged gzip file"),
    "IDX: gzip with another checksum": (
        idx(IMAGES, gzip.compress(PIXELS)[:-8] + bytes(8)),
        "damaged gzip file",
    ),
    "IDX: garbage behind gzip": (idx(IMAGES, gzip.compress(PIXELS) + b"garbage"), "damaged gzip file"),
    # npz
    "npz: text": (flat("set.npz", b"milk, bread and butter"), NO_NPZ),
    "npz: a pickle": (flat("set.npz", pickle.dumps(Trap())), NO_NPZ),
    "npz: objects that run code": (flat("set.npz", npz_of_objects), "Python objects, which could run code"),
    "npz: 10^11 texts of length 0": (archive(labels=npy("(100000000000,)", "'<U0'")), "must be numbers or texts"),
    "npz: 16 TB declared": (archive(images=npy("(16384, 32768, 32768)", body=bytes(99))), "it is damaged"),
    "npz: sizes whose product overflows": (archive(images=npy("(65536, 65536, 65536, 65536)")), "it is damaged"),
    "npz: size 0 beside 10^18": (archive(images=npy("(0, 1000000000000000000, 99)")), "which no array can have"),
    "npz: negative size": (archive(images=npy("(-1, 4, 4)", body=bytes(32))), PLAIN),
    "npz: size of 30 digits": (archive(images=npy(f"({10**30}, 4, 4)", body=bytes(32))), PLAIN),
    "npz: code as a header": (archive(images=npy("__import__('os').abort()")), PLAIN),
    "npz: header nested deep": (archive(images=npy("(" * 3000 + ")" * 3000)), PLAIN),
    "npz: header of another length": (archive(images=GOOD["images.npy"][:8] + b"\xff\xff" + bytes(99)), PLAIN),
    "npz: records": (archive(images=npy("(2, 4, 4)", "[('a', '|u1')]", bytes(32))), PLAIN),
    "npz: arrays in an array": (archive(images=npy("(2, 4, 4)", "('|u1', (4,))", bytes(128))), PLAIN),
    "npz: dates": (archive(images=npy("(2, 4, 4)", "'<M8'", bytes(256))), "must be numbers or texts"),
    "npz: too short": (archive(images=npy("(2, 4, 4)", body=bytes(31))), "it is damaged"),
    "npz: too long": (archive(images=npy("(2, 4, 4)", body=bytes(33))), "it is damaged"),
    "npz: a name twice": (flat("set.npz", named_twice), "holds images 2 times"),
    "npz: LZMA": (archive(zipfile.ZIP_LZMA), "compressed in a way that NumPy does not use"),
    "npz: a password": (flat("set.npz", patched(8, b"\1\0")), "password"),
    "npz: wrong checksum": (flat("set.npz", patched(16, b"\0\0\0\0")), "Bad CRC-32"),
    "npz: expands further than declared": (flat("set.npz", patched(24, b"\0\0\0\0")), NO_NPZ),
    "npz: declares 4 GB": (flat("set.npz", patched(24, b"\xff\xff\xff\xf0")), "it is damaged"),
    "npz: cut in half": (flat("set.npz", patched(0, b"")()[:250]), NO_NPZ),
    "npz: NaN": (archive(images=array(np.full((2, 4, 4), np.nan))), "image 0 holds NaN or infinity"),
    "npz: numbers beyond float32": (archive(images=array(np.full((2, 4, 4), 1e300))), "value_range must be two finite"),
    "npz: label -1": (archive(labels=array([0, -1])), "label -1 is out of range"),
    "npz: label 2^63": (archive(labels=array(np.array([0, 1 << 63], np.uint64))), "is out of range"),
    "npz: characters that do not exist": (
        archive(classes=npy("(2,)", "'<U1'", b"\xff" * 8)),
        "characters that do not exist",
    ),
    "npz: half a character": (
        archive(classes=npy("(2,)", "'<U1'", b"\0\xd8\0\0a\0\0\0")),
        "characters that do not exist",
    ),
    "npz: range of nothing": (archive(value_range=array([0.0, 5e-324])), "value_range must be two finite numbers"),
    # Folders of pictures
    "picture: empty": (photos(b""), DOG + "0.png: the file is empty"),
    "picture: text": (photos(b"milk, bread and butter"), DOG + "0.png: a text file"),
    "picture: a pickle": (photos(pickle.dumps(Trap())), DOG + "0.png: not an image"),
    "picture: PNG bomb": (photos(png(60_000, 60_000)), "more than 50000000 pixels"),
    "picture: PNG of 2^31 pixels a side": (photos(png((1 << 31) - 1, (1 << 31) - 1)), DOG),
    "picture: PNG without pixels": (photos(png(0, 0)), DOG),
    "picture: PNG with a text bomb": (
        photos(png(8, 8, (b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000))), (b"IDAT", b"x"))),
        DOG,
    ),
    "picture: PNG cut off": (photos(encoded("PNG")[:2000]), DOG + "0.png: truncated"),
    "picture: JPEG cut off": (photos(encoded("JPEG")[:900], "0.jpg"), DOG + "0.jpg: truncated"),
    "picture: GIF cut off": (photos(encoded("GIF")[:900], "0.gif"), DOG),
    "picture: BMP bomb": (photos(bmp(100_000, 100_000), "0.bmp"), "more than 50000000 pixels"),
    "picture: BMP of negative size": (photos(bmp(-8, -8), "0.bmp"), DOG),
    "picture: TIFF called PNG": (photos(encoded("TIFF")), DOG + "0.png: TIFF files are not supported"),
    "picture: WebP called JPEG": (photos(encoded("WEBP"), "0.jpg"), DOG + "0.jpg: WebP files are not supported"),
    "picture: PostScript": (photos(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"), DOG),
    "picture: a link to a device": (linked, DOG + "0.png: it is not a regular file"),
    "picture: 60 folders deep": (deep, "lies more than 50 folders deep"),
    # CIFAR-10
    "CIFAR-10: pickles": (flat("data_batch_1", pickle.dumps(Trap())), "made of pickles, which can run code"),
    "CIFAR-10: one byte short": (cifar(lambda good: good[:-1]), "has 30729999 bytes, expected 30730000"),
    "CIFAR-10: label 255": (cifar(lambda good: b"\xff" + good[1:]), "holds the label 255, expected 0 to 9"),
}


def data_source(name: str, folder: Path) -> Path:
    """Make a lying data set in an empty folder and return what to load."""
    made = DATA[name][0](folder)
    return folder if name.startswith("CIFAR") else made
