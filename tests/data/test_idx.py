"""IDX files: every type, both packings, and headers that lie."""

from __future__ import annotations

import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from made import CODES, idx_bytes, idx_files
from pellucid.data.idx import TEST, TRAIN, load_idx_folder, read_idx
from pellucid.errors import DataError

pytestmark = pytest.mark.capability("E2")


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", CODES)
def test_every_type_plain_and_gzip(tmp_path, dtype, packed):
    array = np.array([[1, 2, 3], [100, 101, 102]]).astype(dtype)
    data = idx_bytes(array)
    # The content says whether it is packed, not the name.
    got = read_idx(write(tmp_path / "file", gzip.compress(data) if packed else data))
    assert got.tolist() == array.tolist()
    assert got.dtype == np.dtype(dtype)
    assert got.dtype.isnative
    assert got.flags.writeable


def test_hand_written_bytes(tmp_path):
    data = bytes([0, 0, 0x0B, 2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 255, 254])
    assert read_idx(write(tmp_path / "file", data)).tolist() == [[256, -2]]


def test_no_values(tmp_path):
    assert read_idx(write(tmp_path / "file", idx_bytes(np.zeros((0, 28, 28), np.uint8)))).shape == (0, 28, 28)


GOOD = idx_bytes(np.arange(12, dtype=np.uint8).reshape(3, 4))
BAD = {
    "nothing": (b"", "is not an IDX file: it begins with nothing"),
    "text": (b"hello", "begins with 68 65 6c 6c, expected 00 00"),
    "type": (b"\0\0\x07\x01\0\0\0\1x", "is not an IDX file"),
    "no axes": (b"\0\0\x08\x00", "is not an IDX file"),
    "header cut": (GOOD[:9], "ends within its header; fetch it again"),
    "values cut": (GOOD[:-1], "declares 3x4 values, which take 12 bytes, but holds 11"),
    "too long": (GOOD + b"x", "declares 3x4 values, which take 12 bytes, but holds more"),
    "product overflows": (b"\0\0\x08\x04" + struct.pack(">4I", 1 << 16, 1 << 16, 1 << 16, 1 << 16), "but holds less"),
    "too many axes": (b"\0\0\x08\xff" + struct.pack(">255I", *[1] * 255) + b"x", r"the number of axes \(1 to 8\)"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path, name, packed):
    data, message = BAD[name]
    path = write(tmp_path / "the-file", gzip.compress(data) if packed else data)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert "the-file" in str(caught.value)


def test_damaged_gzip(tmp_path):
    packed = gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 256, (50, 50)).astype(np.uint8)))
    with pytest.raises(DataError, match=r"damaged gzip file \(it ends too early\); fetch it again"):
        read_idx(write(tmp_path / "a", packed[:-100]))
    with pytest.raises(DataError, match="damaged gzip file"):
        read_idx(write(tmp_path / "b", packed[:-8] + bytes(4) + packed[-4:]))
    with pytest.raises(DataError, match="damaged gzip file"):
        read_idx(write(tmp_path / "c", b"\x1f\x8b\x08nonsense"))
    with pytest.raises(DataError, match=r"cannot read .*gone: no such file"):
        read_idx(tmp_path / "gone")


@pytest.mark.parametrize("sizes", [(1 << 31,), (12,)])
def test_neither_a_large_header_nor_a_bomb_takes_memory(tmp_path, sizes):
    head = b"\0\0\x08\x01" + struct.pack(">I", *sizes)
    path = write(tmp_path / "bomb", gzip.compress(head + bytes(40_000_000 if sizes == (12,) else 100)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"but holds (more|less);"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def folder_of(path, files, name=lambda n: n, pack=lambda data: data):
    for file, data in files.items():
        write(path / name(file), pack(data))
    return path


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        (lambda n: n, bytes),
        (lambda n: f"{n}.gz", gzip.compress),
        (lambda n: n.replace("-idx", ".idx"), bytes),
        (lambda n: n.replace("-idx", ".idx") + ".gz", bytes),
    ],
)
def test_folder(tmp_path, name, pack):
    ds = load_idx_folder(folder_of(tmp_path, idx_files(train=7, test=3), name, pack))
    assert ds.images.shape == (10, 1, 6, 6)
    assert ds.splits.train.tolist() == list(range(7))
    assert ds.splits.test.tolist() == [7, 8, 9]
    assert ds.targets.tolist() == [0, 1, 0, 1, 0, 1, 0, 0, 1, 0]
    assert ds.value_range == (0, 255)


def test_folder_without_test_files(tmp_path):
    files = idx_files()
    ds = load_idx_folder(folder_of(tmp_path, {name: files[name] for name in TRAIN}))
    assert (len(ds.splits.train), len(ds.splits.test)) == (40, 0)


def test_folder_that_does_not_fit(tmp_path):
    files = idx_files()
    half = {name: files[name] for name in (*TRAIN, TEST[0])}
    with pytest.raises(DataError, match=r"has no t10k-labels-idx1-ubyte .*put the missing files there"):
        load_idx_folder(folder_of(tmp_path, half))
    mixed = {**files, TRAIN[1]: files[TEST[1]]}
    with pytest.raises(DataError, match=r"images of shape \(40, 6, 6\) and labels of shape \(20,\).*mixed up"):
        load_idx_folder(folder_of(tmp_path, mixed))
    other = {**files, TEST[0]: idx_bytes(np.zeros((20, 5, 5), np.uint8))}
    with pytest.raises(DataError, match="test images are 5x5 uint8, training images 6x6 uint8"):
        load_idx_folder(folder_of(tmp_path, other))


@pytest.mark.capability("E8")
@pytest.mark.parametrize(("name", "first"), [("mnist", 5), ("fashion-mnist", 9)])
def test_real_files(real_data, name, first):
    ds = load_idx_folder(real_data / name)
    assert (len(ds), ds.shape, ds.images.dtype) == (70_000, (1, 28, 28), np.uint8)
    assert (len(ds.splits.train), len(ds.splits.test)) == (60_000, 10_000)
    assert (ds.targets[0], sorted(set(ds.targets.tolist()))) == (first, list(range(10)))
