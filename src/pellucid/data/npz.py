"""Data sets in one .npz file, as np.savez writes it. Read without pickle: a file can never run code."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from pellucid._types import Array
from pellucid.data.dataset import Dataset, check_images, from_arrays
from pellucid.data.idx import read_at_most
from pellucid.errors import DataError, PellucidError
from pellucid.shapes import text

NEEDED = ("images", "labels")
OPTIONAL = ("classes", "value_range")
CURE = "write it with np.savez(file, images=images, labels=labels)"
# Deflate cannot pack tighter than 1032 to 1: a size beyond that is a lie.
_MAX_RATIO = 1032
_MAX_HEADER = 64 * 1024


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
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path} is not an .npz file, or a damaged one ({error}); {CURE}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    # NotImplementedError: a compression of another program; RuntimeError: a password.
    except (NotImplementedError, RuntimeError) as error:
        raise DataError(f"cannot read {path}: {error}; {CURE}") from None
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
    present = [name.removesuffix(".npy") for name in archive.namelist()]
    missing = [name for name in NEEDED if name not in present]
    if missing:
        held = ", ".join(present[:8]) or "nothing"
        raise DataError(f"{path} has no {' and no '.join(missing)}; it holds {held}; {CURE}")
    return [name for name in NEEDED + OPTIONAL if name in present]


def _read(archive: zipfile.ZipFile, name: str, path: Path) -> Array:
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as stream:
        try:
            shape, fortran, dtype = _header(stream)
        except (zipfile.BadZipFile, zlib.error, EOFError):
            raise
        # NumPy's header parser raises what Python's tokenizer and literal_eval stumble over.
        except Exception as error:
            why = " ".join(str(error).split())
            raise DataError(f"{path}: {name} is not a NumPy array ({why}); {CURE}") from None
        if len(shape) > 8 or not all(type(n) is int and n >= 0 for n in shape):
            raise DataError(f"{path}: {name} declares a shape that cannot be; {CURE}")
        if dtype.hasobject:
            kind = {"images": "np.uint8", "labels": "np.int64", "classes": "str"}.get(name, "float")
            raise DataError(
                f"{path}: {name} is an array of Python objects, which could run code when read; "
                f"save plain values: np.asarray({name}, dtype={kind})"
            )
        size = math.prod(shape) * dtype.itemsize
        if not size <= entry.file_size <= size + _MAX_HEADER or size > _MAX_RATIO * entry.compress_size:
            raise DataError(
                f"{path}: {name} declares {text(shape)} values of {dtype}, which take {size} bytes, "
                f"but the file holds {entry.file_size} for it; it is damaged, {CURE}"
            )
        data = read_at_most(stream, size + 1)
    if len(data) != size:
        raise DataError(f"{path}: {name} should take {size} bytes, {len(data)} came; it is damaged, {CURE}")
    array = np.frombuffer(data, dtype=dtype) if size else np.empty(shape, dtype=dtype)
    array = array.reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), order="C", copy=False)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"format version {version[0]}.{version[1]} is for arrays with named fields")


def _classes(names: Array | None) -> list[str] | None:
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise DataError(f"classes must be K texts, got an array of {names.dtype} and shape {names.shape}")
    if names.dtype.kind == "S":
        names = np.char.decode(names, "utf-8", "replace")
    return [str(name) for name in names]


def _value_range(pair: Array | None) -> tuple[float, float] | None:
    if pair is None:
        return None
    if pair.shape != (2,) or pair.dtype.kind not in "uif" or not np.isfinite(pair).all():
        raise DataError(f"value_range must be two numbers, got {np.array2string(pair, threshold=4)}")
    return float(pair[0]), float(pair[1])
