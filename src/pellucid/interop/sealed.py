"""A sealed file: safetensors with facts beside the tensors and its own digest, of which nothing is believed unchecked.

The metadata has one key, "pellucid", with canonical JSON (sorted keys, no NaN, no time). Its "sha256" is the digest of
the whole file with its own 64 hex digits as zeros, so that any flipped bit is noticed. Model files and checkpoints are
sealed files; a schema says what their facts are.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np

from pellucid import canonical
from pellucid._types import Array, Shape
from pellucid.errors import FileError, one_line
from pellucid.shapes import LARGEST

if TYPE_CHECKING:
    from pydantic import BaseModel

Document = TypeVar("Document", bound="BaseModel")

STANDARD_NAMES = {"model": "model.safetensors", "checkpoint": "last.ckpt"}
# Bytes that a header may have: as objects it takes up to fifty times as much. A checkpoint's holds the history.
HEADER_LIMITS = {"model": 1 << 20, "checkpoint": 16 << 20}
DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "I64": np.dtype("<i8")}
_ZEROS = "0" * 64
_MARK = b'\\"sha256\\":\\"'
_AXES = 8


def pack(arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> bytes:
    """Return a sealed file: the given facts and its own digest stand in the metadata.

    Args:
        arrays: float32, float64 or int64, by name.
        facts: Plain data.

    Raises:
        FileError: Where the header gets larger than may be read.

    >>> content = pack({"w": np.zeros(2, dtype=np.float32)}, {"kind": "example"})
    >>> unpack(content, "memory")[1]
    {'kind': 'example'}
    """
    from safetensors.numpy import save as to_bytes

    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    content = to_bytes(ordered, metadata={"pellucid": canonical.dumps({**facts, "sha256": _ZEROS})})
    length, limit = int.from_bytes(content[:8], "little"), _limit(facts.get("kind"))
    if length > limit:
        raise FileError(f"names, shapes and facts take {length} bytes, a file can hold {limit} of them")
    start = 8 + _digest_place(content[8 : 8 + length], "this file")
    digest = hashlib.sha256(content).hexdigest()
    return content[:start] + digest.encode() + content[start + 64 :]


def read(path: Path, kind: str, version: int, schema: type[Document]) -> tuple[dict[str, Array], Document]:
    """Return the arrays and the facts of a sealed file, both checked; which arrays there must be is for check_arrays.

    Args:
        path: The file.
        kind: What its fact "kind" must be.
        version: What its fact "format" may be at most.
        schema: Of the facts; checked strictly.

    Returns:
        Read-only arrays by name, whose memory is the file's content, and the facts.

    Raises:
        FileError: For anything that is not whole and as pellucid wrote it.
    """
    try:
        if not path.is_file():
            what = "it is a folder" if path.is_dir() else "it is not a regular file"
            raise FileError(f"cannot read {path}: {what if path.exists() else 'No such file or directory'}")
        with path.open("rb") as stream:
            arrays, facts = _read(stream, os.fstat(stream.fileno()).st_size, str(path), _limit(kind))
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    if facts.get("kind") != kind:
        cure = f"use {STANDARD_NAMES[kind]} beside it"
        raise FileError(f"{path} is not a {kind} file, but {facts.get('kind')!r:.40}; {cure}")
    found = facts.get("format")
    if type(found) is not int or not 1 <= found <= version:
        raise FileError(f"{path} has format {found!r:.20}, this version reads {version}; install a newer pellucid")
    return arrays, validate(facts, schema, str(path))


def validate(facts: Mapping[str, Any], schema: type[Document], name: str) -> Document:
    """Return facts as their schema holds them; no type is changed into another.

    Args:
        facts: Plain data.
        schema: What they must be.
        name: What errors begin with.

    Raises:
        FileError: Names the first fact that is wrong.
    """
    from pydantic import ValidationError

    try:
        return schema.model_validate_json(canonical.dumps(facts), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "metadata"
        raise FileError(f"{name}: {one_line(place)}: {one_line(first['msg'])}") from None


def unpack(content: bytes, name: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return arrays and facts of a sealed file, the facts against no schema.

    Args:
        content: The whole file.
        name: Of the file, for errors.

    Raises:
        FileError: Where a single bit is not as it was written.
    """
    return _read(io.BytesIO(content), len(content), name, _limit(None))


def check_arrays(arrays: Mapping[str, Array], wanted: Mapping[str, tuple[np.dtype[Any], Shape]]) -> None:
    """Refuse arrays that are missing, that nobody asked for, or that have another type or shape.

    Args:
        arrays: By name.
        wanted: Type and shape by name.

    Raises:
        FileError: Names the first that is wrong.

    >>> check_arrays({"w": np.zeros(2)}, {"w": (np.dtype("float64"), (2,))})
    """
    missing, extra = sorted(set(wanted) - set(arrays)), sorted(set(arrays) - set(wanted))
    if missing or extra:
        raise FileError(f"tensors do not fit: missing {missing or 'none'}, extra {extra or 'none'}")
    for name, (dtype, shape) in wanted.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != dtype:
            raise FileError(f"tensor {name} should be {dtype} {shape}, is {array.dtype} {array.shape}")


def _limit(kind: object) -> int:
    return HEADER_LIMITS.get(str(kind), max(HEADER_LIMITS.values()))


def _read(stream: IO[bytes], size: int, name: str, limit: int) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read a stream of that many bytes; the header accounts for all of them before the tensors are read."""
    lead = stream.read(8)
    length = int.from_bytes(lead, "little")
    header = stream.read(length) if length <= min(size - 8, limit) else b""
    if size < 16 or len(header) < length or not header.startswith(b"{"):
        raise FileError(f"{name} is not a pellucid file (safetensors expected), or it is cut off")
    table, facts = _parse(header, name)
    places = _places(table, size - 8 - length, name)
    body = stream.read(size - 8 - length)
    start = _digest_place(header, name)
    h = hashlib.sha256(lead + header[:start] + _ZEROS.encode() + header[start + 64 :])
    h.update(body)
    if not header[start : start + 64] == h.hexdigest().encode() == facts.pop("sha256").encode():
        raise FileError(f"{name} is damaged: its digest does not match; get the file again")
    view = memoryview(body)
    arrays = {
        key: np.frombuffer(view[begin:end], dtype=dtype).reshape(shape)
        for key, (dtype, shape, begin, end) in places.items()
    }
    return arrays, facts


def _parse(header: bytes, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the table of tensors and the facts."""
    try:
        table = canonical.loads(header)
        metadata = table.pop("__metadata__")
        text = metadata["pellucid"]
        facts = canonical.loads(text)
        if len(metadata) > 1 or not isinstance(facts["sha256"], str) or canonical.dumps(facts) != text:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FileError(f"{name} is a safetensors file, but not one that pellucid wrote, or it is damaged") from None
    return table, facts


def _places(table: dict[str, Any], room: int, name: str) -> dict[str, tuple[np.dtype[Any], Shape, int, int]]:
    """Return type, shape, begin and end of each tensor, which together fill the room without overlap or hole."""
    places = {}
    position = 0
    try:
        for key, entry in sorted(table.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, shape, (begin, end) = DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
            whole = all(type(n) is int and 0 <= n <= max(room, LARGEST) for n in (*shape, begin, end))
            if not whole or len(shape) > _AXES or len(entry) != 3:
                raise ValueError
            if begin != position or end - begin != math.prod(shape) * dtype.itemsize:
                raise ValueError
            places[key] = dtype, shape, begin, end
            position = end
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise FileError(f"{name}: its table of tensors is wrong, or it is damaged") from None
    if position != room:
        what = "more" if position < room else "fewer"
        raise FileError(f"{name} is cut off or damaged: it holds {what} bytes than its tensors take ({position})")
    return places


def _digest_place(header: bytes, name: str) -> int:
    """Return where the 64 digits stand: after the one \\"sha256\\":\\" in the header."""
    if header.count(_MARK) != 1:
        raise FileError(f"{name} is not a file that pellucid wrote: it has no digest, or several")
    return header.index(_MARK) + len(_MARK)
