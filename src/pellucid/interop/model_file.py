"""The model file: one safetensors file with weights, network, input spec and class names. It is data, never code.

Tensors stand under PyTorch's state-dict names. The metadata has one key, "pellucid", with canonical JSON (sorted keys,
no NaN, no time). Its "sha256" is the digest of the whole file with its own 64 hex digits as zeros, so that any flipped
bit is noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid._types import Array
from pellucid.errors import FileError, PellucidError
from pellucid.files import read_bytes, write_atomic
from pellucid.nn import Network
from pellucid.nn.spec import from_spec, to_spec

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 1
_ZEROS = "0" * 64
_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "I64": np.dtype("<i8")}
_HEADER_LIMIT = 16 << 20


def pack(arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> bytes:
    """Return a safetensors file with the given facts and its own digest in the metadata.

    Args:
        arrays: float32, float64 or int64, by name.
        facts: Plain data.

    >>> content = pack({"w": np.zeros(2, dtype=np.float32)}, {"kind": "example"})
    >>> unpack(content, "memory")[1]["kind"]
    'example'
    """
    from safetensors.numpy import save as to_bytes

    document = {**facts, "sha256": _ZEROS}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    content = to_bytes(ordered, metadata={"pellucid": text})
    start = _digest_place(content, "this file")
    digest = hashlib.sha256(content).hexdigest()
    return content[:start] + digest.encode() + content[start + 64 :]


def read_whole(path: Path) -> bytes:
    """Return the content of a file that pack made, after its first bytes have said that it may be one.

    Args:
        path: The file.

    Raises:
        FileError: Where it cannot be read, or is longer or shorter than its header says.
    """
    try:
        if path.is_file():
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                ends = [0]
                if size <= _HEADER_LIMIT:
                    header = json.loads(file.read(size))
                    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            if size > _HEADER_LIMIT or path.stat().st_size != 8 + size + max(ends, default=0):
                raise ValueError
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise FileError(f"{path} is not a pellucid file (safetensors expected), or it is cut off or damaged") from None
    return read_bytes(path)


def _digest_place(content: bytes, name: str) -> int:
    """Return where the 64 digits stand: after the one \\"sha256\\":\\" in the header."""
    mark = b'\\"sha256\\":\\"'
    header = content[: 8 + int.from_bytes(content[:8], "little")]
    if header.count(mark) != 1:
        raise FileError(f"{name} is not a file that pellucid wrote: it has no digest")
    return header.index(mark) + len(mark)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _parse(text: bytes | str) -> Any:
    return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)


def unpack(content: bytes, name: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return arrays and facts of a file that pack made; everything is checked before anything is used.

    Args:
        content: The whole file.
        name: Of the file, for errors.

    Raises:
        FileError: Where a single bit is not as it was written.
    """
    size = int.from_bytes(content[:8], "little")
    if len(content) < 16 or size > min(len(content) - 8, _HEADER_LIMIT) or content[8:9] != b"{":
        raise FileError(f"{name} is not a pellucid file (safetensors expected), or it is cut off")
    try:
        header = _parse(content[8 : 8 + size])
        text = header.pop("__metadata__")["pellucid"]
        start = _digest_place(content, name)
        facts = _parse(text)
        digest = facts.pop("sha256")
        if not isinstance(facts, dict):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FileError(f"{name} is a safetensors file, but not one that pellucid wrote, or it is damaged") from None
    h = hashlib.sha256(content[:start])
    h.update(_ZEROS.encode())
    h.update(memoryview(content)[start + 64 :])
    if content[start : start + 64] != h.hexdigest().encode() or digest != h.hexdigest():
        raise FileError(f"{name} is damaged: its digest does not match; get the file again")
    return _arrays(header, memoryview(content)[8 + size :], name), facts


def _arrays(header: dict[str, Any], body: memoryview, name: str) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    position = 0
    try:
        for key, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, (begin, end) = _DTYPES[entry["dtype"]], entry["data_offsets"]
            shape = tuple(entry["shape"])
            whole = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
            if not whole or begin != position or end - begin != math.prod(shape) * dtype.itemsize:
                raise ValueError
            arrays[key] = np.frombuffer(body[begin:end], dtype=dtype).reshape(shape)
            position = end
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FileError(f"{name}: its table of tensors is wrong") from None
    if position != len(body):
        raise FileError(f"{name} has {len(body) - position} bytes that belong to no tensor")
    return arrays


def weights_digest(network: Network) -> str:
    """Return the SHA-256, in hex, of all parameters and buffers in the order of the state-dict, little endian.

    Args:
        network: Built.
    """
    h = hashlib.sha256()
    for array in unique_state(network).values():
        h.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes())
    return h.hexdigest()


def unique_state(network: Network) -> dict[str, Array]:
    """Return the network's state-dict with a shared layer under its first name only.

    Args:
        network: Built.
    """
    names = {**network.named_parameters(), **network.named_buffers()}
    return {name: array for name, array in network.state_dict().items() if name in names}


@dataclass(frozen=True)
class Content:
    """What a model file holds.

    Attributes:
        network: Built, with its weights.
        input: Fields of the input spec.
        classes: Names, in the order of the outputs.
        metrics: Numbers worth keeping.
        data_digest: SHA-256 of the training data.
    """

    network: Network
    input: dict[str, Any]
    classes: tuple[str, ...]
    metrics: dict[str, float]
    data_digest: str


def write(network: Network, facts: Mapping[str, Any], path: str | Path) -> None:
    """Write a model file, whole or not at all.

    Args:
        network: Built.
        facts: Input spec, classes, metrics and data digest, as plain data.
        path: Where to.

    Raises:
        FileError: Where it cannot be written, or the network holds NaN or infinity.
        OptionError: For a network with layers of one's own.
    """
    arrays = unique_state(network)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise FileError(f"cannot save {path}: {name} holds NaN or infinity")
    write_atomic(path, pack(arrays, {"format": FORMAT, "kind": "model", "network": to_spec(network), **facts}))


def read(path: Path) -> Content:
    """Return what a model file holds.

    Args:
        path: The file.

    Raises:
        FileError: For anything that is not whole and as pellucid wrote it.
    """
    arrays, facts = unpack(read_whole(path), str(path))
    if facts.get("kind") != "model":
        raise FileError(f"{path} is not a model file, but {facts.get('kind')!r:.40}; use model.safetensors beside it")
    if facts.get("format") != FORMAT:
        raise FileError(
            f"{path} has format {facts.get('format')!r:.20}, this version reads {FORMAT}; install a newer pellucid"
        )
    try:
        document = _validated(facts)
        _check_sizes(document.network, sum(array.size for array in arrays.values()))
        network = from_spec(document.network)
        if not isinstance(network, Network):
            raise FileError("the network is a single layer")
        dtype = "float64" if any(a.dtype == np.float64 for a in arrays.values()) else "float32"
        network.build(document.input.shape, dtype=dtype)
        _check_tensors(arrays, unique_state(network))
        network.load_state_dict(arrays, strict=False)
    except PellucidError as error:
        raise FileError(f"{path}: {error}") from error
    metrics = {name: value for name, value in document.metrics.items() if value is not None}
    return Content(network, document.input.model_dump(), document.classes, metrics, document.data_digest)


def _check_sizes(spec: dict[str, Any], held: int) -> None:
    """Refuse a network that would take more memory than the file accounts for, before any of it is made."""
    parts: list[Any] = [spec]
    total = 0
    while parts:
        part = parts.pop()
        if isinstance(part, list):
            parts += part
        if not isinstance(part, dict):
            continue
        parts += [part[key] for key in ("layers", "body", "shortcut", "branches", "pool") if key in part]
        name = f"{part.get('layer')!r:.40}"
        if "Lazy" in name:
            raise FileError(f"{name} has no sizes; a model file holds resolved layers only")
        total += _least_size(part)
        if total > held:
            raise FileError(f"{name} has more parameters than the file holds")


def _least_size(layer: dict[str, Any]) -> int:
    """Return how many parameters a layer has at least, as its arguments say."""
    keys = ["in_features", "out_features", "num_features", "num_parameters", "out_channels"]
    keys += ["num_channels"] if layer.get("affine", True) else []
    keys += ["normalized_shape"] if layer.get("elementwise_affine", True) else []
    sizes = [layer[key] for key in keys if key in layer]
    if "out_channels" in layer:
        dims = {"1": 1, "3": 3}.get(str(layer.get("layer"))[-2:-1], 2)
        channels, groups = layer.get("in_channels", 1), layer.get("groups", 1)
        sizes.append(channels // groups if type(channels) is type(groups) is int and groups > 0 else 1)
        sizes += [layer.get("kernel_size", 1)] * (1 if isinstance(layer.get("kernel_size"), list) else dims)
    numbers = [n for size in sizes for n in (size if isinstance(size, list) else [size]) if isinstance(n, int)]
    return abs(math.prod(numbers)) if sizes else 0


def _check_tensors(arrays: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    missing, extra = sorted(set(wanted) - set(arrays)), sorted(set(arrays) - set(wanted))
    if missing or extra:
        raise FileError(f"tensors do not fit the network: missing {missing or 'none'}, extra {extra or 'none'}")
    for name, array in arrays.items():
        if array.shape != wanted[name].shape or array.dtype != wanted[name].dtype:
            raise FileError(
                f"tensor {name} should be {wanted[name].dtype} {wanted[name].shape}, is {array.dtype} {array.shape}"
            )
        if not np.isfinite(array).all():
            raise FileError(f"tensor {name} holds NaN or infinity")


def _validated(facts: dict[str, Any]) -> Any:
    """Return the facts, checked against the schema; pydantic is imported only when a file is read."""
    from pydantic import ValidationError

    from pellucid.interop.schema import Document

    try:
        return Document.model_validate(facts)
    except ValidationError as error:
        first = error.errors()[0]
        raise FileError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
