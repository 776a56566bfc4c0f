"""CIFAR-10's binary files: rows of one label byte and 3072 bytes, the red, green and blue plane of 32x32 pixels."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np

from pellucid._types import Array
from pellucid.errors import DataError

TRAIN = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
TEST = "test_batch.bin"
FOLDER = "cifar-10-batches-bin"
ROWS = 10_000
_ROW = 1 + 3 * 32 * 32
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"


def find_unpacked(folder: Path) -> Path | None:
    """Return the folder with the six binary files: this one, or cifar-10-batches-bin inside; None without them."""
    for place in (folder, folder / FOLDER):
        if all((place / name).is_file() for name in (*TRAIN, TEST)):
            return place
    return None


def refuse_pickles(folder: Path) -> None:
    """Raise a DataError where a folder holds CIFAR-10 in its Python version, which is made of pickles."""
    for place in (folder, folder / "cifar-10-batches-py"):
        for name in ("cifar-10-python.tar.gz", "data_batch_1"):
            if (place / name).is_file():
                raise DataError(
                    f"{place / name} is the Python version of CIFAR-10, made of pickles, which can run code; "
                    f"pellucid reads the binary version only: {URL}"
                )


def read_unpacked(folder: Path) -> list[tuple[Array, Array]]:
    """Return (images, labels) for training and test from the six binary files in a folder.

    Raises:
        DataError: Where a file has not the size, or the labels, that it must have.
    """
    sizes = {name: (folder / name).stat().st_size for name in (*TRAIN, TEST)}
    for name, size in sizes.items():
        _check_size(f"{folder / name}", size)
    return _parts({name: (folder / name).read_bytes() for name in sizes}, str(folder))


def read_archive(data: bytes, name: str) -> list[tuple[Array, Array]]:
    """Return (images, labels) for training and test from cifar-10-binary.tar.gz, read without unpacking it to disk.

    Args:
        data: The archive.
        name: Of the archive, for errors.

    Raises:
        DataError: Where it is damaged or lacks one of the six files.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            for member in archive:
                short = member.name.rpartition("/")[2]
                if short not in (*TRAIN, TEST) or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    continue
                _check_size(f"{member.name} in {name}", member.size)
                stream = archive.extractfile(member)
                found[short] = stream.read(member.size) if stream else b""
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{name} is a damaged archive ({error}); fetch it again: {URL}") from None
    missing = [file for file in (*TRAIN, TEST) if file not in found]
    if missing:
        raise DataError(f"{name} has no {', '.join(missing)}; expected the binary version: {URL}")
    return _parts(found, name)


def _check_size(name: str, size: int) -> None:
    if size != ROWS * _ROW:
        raise DataError(f"{name} has {size} bytes, expected {ROWS * _ROW}; fetch it again: {URL}")


def _parts(files: dict[str, bytes], name: str) -> list[tuple[Array, Array]]:
    parts = []
    for names in (TRAIN, (TEST,)):
        rows = np.frombuffer(b"".join(files[n] for n in names), dtype=np.uint8).reshape(-1, _ROW)
        if rows[:, 0].max() > 9:
            raise DataError(f"{name} holds the label {rows[:, 0].max()}, expected 0 to 9; fetch it again: {URL}")
        parts.append((rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]))
    return parts
