"""Data sets in one .npz file, as np.savez writes it. Read without pickle: a file can never run code."""

from __future__ import annotations

import math
import re
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from pellucid._types import Array
from pellucid.data.dataset import Dataset, check_images, from_arrays
from pellucid.data.idx import read_at_most
from pellucid.errors import DataError, PellucidError, one_line
from pellucid.shapes import text

NEEDED = ("images", "labels")
OPTIONAL = ("classes", "value_range")
CURE = "write it with np.savez(file, images=images, labels=labels)"
# Deflate cannot pack tighter than 1032 to 1: a size beyond that is a lie.
_MAX_RATIO = 1032
_MAX_HEADER = 64 * 1024
_MAX_AXES = 8
_HEADER = re.compile(
    r"\{'descr': ?'([<>|=]?[a-zA-Z]\d{0,9})', ?'fortran_order': ?(True|False), "
    r"?'shape': ?\(((?:\d{1,19}, ?)*\d{0,19})\),? ?\} *\n?"
)


def load_npz(path: str | Path) -> Dataset:
    """Return the data set of an .npz file, all of it in the part "train".

    Args:
        path: A file with images of shape (N, H, W) or (N, C, H, W), labels of shape (N,), and optionally
            classes (the names, K texts) and value_range (lowest and highest possible value of a pixel).

    Raises:
        DataError: Where it is no such file, is damaged, or its arrays do not fit together.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {name: _read(archive, name, path) for name in _names(archive, path)}
    except PellucidError:
        raise
    except OSError as error:
        raise DataError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    # NotImplementedError: a version of another program; RuntimeError: a password; the others: damage.
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, LookupError, RuntimeError) as error:
        raise DataError(f"{path} is not an .npz file, or a damaged one ({one_line(error)}); {CURE}") from None
    try:
        return from_arrays(
            check_images(arrays["images"]),
            arrays["labels"],
            classes=_classes(arrays.get("classes")),
            value_range=_value_range(arrays.get("value_range")),
            name=path.stem,
        )
    except PellucidError as error:
        raise DataError(f"{path}: {error}") from None


def _names(archive: zipfile.ZipFile, path: Path) -> list[str]:
    present = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    missing = [name for name in NEEDED if name not in present]
    if missing:
        held = one_line(", ".join(name.removesuffix(".npy") for name in archive.namelist()[:8]), 80) or "nothing"
        raise DataError(f"{path} has no {' and no '.join(missing)}; it holds {held}; {CURE}")
    wanted = [name for name in NEEDED + OPTIONAL if name in present]
    for name in wanted:
        if present.count(name) > 1:
            raise DataError(f"{path} holds {name} {present.count(name)} times; {CURE}")
    return wanted


def _read(archive: zipfile.ZipFile, name: str, path: Path) -> Array:
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{path}: {name} is compressed in a way that NumPy does not use; {CURE}")
    with archive.open(entry) as stream:
        shape, fortran, dtype = _header(stream, f"{path}: {name}")
        if dtype.hasobject:
            kind = {"images": "np.uint8", "labels": "np.int64", "classes": "str"}.get(name, "float")
            raise DataError(
                f"{path}: {name} is an array of Python objects, which could run code when read; "
                f"save plain values: np.asarray({name}, dtype={kind})"
            )
        if dtype.kind not in "biufUS" or not dtype.itemsize or (dtype.kind in "iuf" and dtype.itemsize > 8):
            raise DataError(f"{path}: {name} must be numbers or texts, got an array of {dtype}; {CURE}")
        size = math.prod(shape) * dtype.itemsize
        if not size <= entry.file_size <= size + _MAX_HEADER or size > _MAX_RATIO * entry.compress_size:
            raise DataError(
                f"{path}: {name} declares {text(shape)} values of {dtype}, which take {size} bytes, "
                f"but the file holds {entry.file_size} for it; it is damaged, {CURE}"
            )
        data = read_at_most(stream, size + 1)
    if len(data) != size:
        raise DataError(f"{path}: {name} should take {size} bytes, {len(data)} came; it is damaged, {CURE}")
    try:
        array = np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    except ValueError as error:
        raise DataError(f"{path}: {name} declares {text(shape)} values, which no array can have ({error})") from None
    return array.astype(dtype.newbyteorder("="), order="C", copy=False)


def _header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Return shape, whether the order is Fortran's, and dtype; read as text, since Python's own reader evaluates it."""
    lead = stream.read(8)
    sizes = {b"\x93NUMPY\1\0": 2, b"\x93NUMPY\2\0": 4}.get(lead, 0)
    header = stream.read(min(int.from_bytes(stream.read(sizes), "little"), _MAX_HEADER)).decode("latin-1")
    found = _HEADER.fullmatch(header)
    try:
        if found is None:
            raise ValueError(one_line(header, 80) if sizes else "it does not begin as one")
        shape = tuple(int(n) for n in found[3].replace(",", " ").split())
        if len(shape) > _MAX_AXES:
            raise ValueError(f"it declares {len(shape)} axes")
        return shape, found[2] == "True", np.dtype(found[1])
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is not a NumPy array of plain values ({one_line(error)}); {CURE}") from None


def _classes(names: Array | None) -> list[str] | None:
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise DataError(f"classes must be K texts, got an array of {names.dtype} and shape {names.shape}")
    if names.dtype.kind == "S":
        names = np.char.decode(names, "utf-8", "replace")
    elif names.size and np.ascontiguousarray(names).view(np.uint32).max() > sys.maxunicode:
        raise DataError("classes must be K texts, got characters that do not exist")
    return [str(name) for name in names]


def _value_range(pair: Array | None) -> tuple[float, float] | None:
    if pair is None:
        return None
    if pair.shape != (2,) or pair.dtype.kind not in "uif" or not np.isfinite(pair).all():
        raise DataError(f"value_range must be two numbers, got {np.array2string(pair, threshold=4)}")
    return float(pair[0]), float(pair[1])
