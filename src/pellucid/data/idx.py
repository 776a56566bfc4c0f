"""IDX files, in which MNIST and its relatives are published.

A header (two zeros, a type code, the number of axes, each axis as a 32-bit number), then the values, all
big-endian.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from pellucid._types import Array
from pellucid.data.dataset import Dataset, Splits, from_arrays
from pellucid.errors import DataError
from pellucid.shapes import text

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP = b"\x1f\x8b"
TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_CHUNK = 1 << 20
_MAX_AXES = 8
# Deflate cannot pack tighter than 1032 to 1.
_MAX_RATIO = 1032


def read_idx(path: str | Path) -> Array:
    """Return the array of an IDX file, plain or gzip, in native byte order.

    Args:
        path: The file; its content, not its name, says whether it is compressed.

    Raises:
        DataError: Where it is no IDX file, is damaged, or holds more or less than its header says.
    """
    path = Path(path)
    with plain_or_gzip(path) as stream:
        return parse_idx(stream, str(path), path.stat().st_size * (1 if isinstance(stream, io.FileIO) else _MAX_RATIO))


def parse_idx(stream: IO[bytes], name: str, room: int) -> Array:
    """Return the array of an IDX stream; nothing is allocated that the stream does not hold.

    Args:
        stream: Not compressed.
        name: Of the file, for errors.
        room: How many bytes the stream can hold at most.
    """
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or not 1 <= magic[3] <= _MAX_AXES:
        raise DataError(
            f"{name} is not an IDX file: it begins with {magic.hex(' ') or 'nothing'}, "
            "expected 00 00, a type code (08, 09, 0b, 0c, 0d or 0e) and the number of axes (1 to 8); fetch it again"
        )
    axes = stream.read(4 * magic[3])
    if len(axes) < 4 * magic[3]:
        raise DataError(f"{name} ends within its header; fetch it again")
    shape = struct.unpack(f">{magic[3]}I", axes)
    dtype = np.dtype(DTYPES[magic[2]])
    # Exact integers: a product of 32-bit sizes overflows NumPy's.
    size = math.prod(shape) * dtype.itemsize
    data = read_at_most(stream, size + 1) if size <= room else b""
    if len(data) != size:
        came = "less" if size > room else "more" if len(data) > size else f"{len(data)}"
        raise DataError(
            f"{name} declares {text(shape)} values, which take {size} bytes, but holds {came}; fetch it again"
        )
    try:
        array = np.frombuffer(data, dtype=dtype).reshape(shape)
    except ValueError as error:
        raise DataError(f"{name} declares {text(shape)} values, which no array can have ({error})") from None
    return array.astype(dtype.newbyteorder("="), copy=False)


def load_idx_folder(path: str | Path) -> Dataset:
    """Return the data set of a folder of IDX files under their standard names; its own test part is kept.

    Looks for train-images-idx3-ubyte and train-labels-idx1-ubyte, and for the same with t10k; each may end in
    .gz, and may have a dot before idx, as some mirrors have it. Training images come first.

    Args:
        path: The folder.

    Raises:
        DataError: Where files are missing, damaged, or do not fit together.
    """
    folder = Path(path)
    found = {name: find_idx(folder, name) for name in TRAIN + TEST}
    missing = [name for name in TRAIN if found[name] is None]
    if any(found[name] for name in TEST):
        missing += [name for name in TEST if found[name] is None]
    if missing:
        names = ", no ".join(missing)
        raise DataError(f"{folder} has no {names} (nor with .gz); put the missing files there")
    pairs = [[found[name] for name in names] for names in (TRAIN, TEST)]
    arrays = [[read_idx(file) for file in pair if file is not None] for pair in pairs]
    return join_parts([a for a in arrays if a], name=folder.resolve().name)


def join_parts(parts: Sequence[Sequence[Array]], name: str, classes: Sequence[str] | None = None) -> Dataset:
    """Return a Dataset of (images, labels) for training and perhaps for the test; both parts are kept.

    Args:
        parts: One or two pairs of images, shape (N, H, W) or (N, C, H, W), and labels, shape (N,).
        name: As a person would call it.
        classes: Names of the classes.

    Raises:
        DataError: Where counts or sizes do not agree.
    """
    for what, (images, labels) in zip(("train", "test"), parts, strict=False):
        if labels.ndim != 1 or images.ndim not in (3, 4) or len(images) != len(labels):
            raise DataError(
                f"{name}: the {what} part has images of shape {images.shape} and labels of shape "
                f"{labels.shape}; expected N x H x W and N with the same N; are the files mixed up?"
            )
        if images.shape[1:] != parts[0][0].shape[1:] or images.dtype != parts[0][0].dtype:
            raise DataError(
                f"{name}: {what} images are {text(images.shape[1:])} {images.dtype}, training images "
                f"{text(parts[0][0].shape[1:])} {parts[0][0].dtype}; all must have the same size and type"
            )
    n = len(parts[0][0])
    images, labels = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    ds = from_arrays(images, labels, classes=classes, name=name)
    none = np.empty(0, dtype=np.int64)
    return ds.with_splits(Splits(np.arange(n), none, np.arange(n, len(ds))))


def find_idx(folder: Path, name: str) -> Path | None:
    """Return the file of that standard name, plain or .gz, with "-" or "." before idx, or None."""
    names = [name, name.replace("-idx", ".idx")]
    candidates = [folder / (n + end) for n in names for end in ("", ".gz")]
    return next((file for file in candidates if file.is_file()), None)


def read_at_most(stream: IO[bytes], n: int) -> bytearray:
    """Return up to n bytes of a stream, taken in small steps, so that a lie about n costs no memory."""
    data = bytearray()
    while len(data) < n:
        chunk = stream.read(min(n - len(data), _CHUNK))
        if not chunk:
            break
        data += chunk
    return data


@contextmanager
def plain_or_gzip(path: Path, name: str = "", cure: str = "; fetch it again") -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed where its content is gzip; damage on the way is a DataError.

    Args:
        path: The file.
        name: What the error calls it; the path if not given.
        cure: What the error ends with.
    """
    try:
        with path.open("rb") as raw:
            head = raw.read(2)
            raw.seek(0)
            if head != GZIP:
                yield raw
                return
            with gzip.open(raw) as stream:
                yield io.BufferedReader(stream)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = "it ends too early" if isinstance(error, EOFError) else str(error)
        raise DataError(f"{name or path} is a damaged gzip file ({reason}){cure}") from None
    except OSError as error:
        raise DataError(f"cannot read {name or path}: {(error.strerror or str(error)).lower()}") from None
