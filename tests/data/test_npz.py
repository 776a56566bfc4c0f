"""One file with images and labels, and files that are something else."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from pellucid.data.npz import load_npz
from pellucid.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 3, 5, 4)).astype(np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture
def save(tmp_path):
    def write(packed=False, **arrays):
        path = tmp_path / "photos.npz"
        (np.savez_compressed if packed else np.savez)(path, **arrays)
        return path

    return write


@pytest.mark.capability("E7")
@pytest.mark.parametrize("packed", [False, True])
def test_round_trip(save, packed):
    ds = load_npz(save(packed, images=IMAGES, labels=LABELS, classes=["a", "b", "é"], value_range=[0, 255]))
    assert np.array_equal(ds.images, IMAGES)
    assert ds.targets.tolist() == LABELS.tolist()
    assert (ds.classes, ds.value_range, ds.name) == (("a", "b", "é"), (0.0, 255.0), "photos")
    assert len(ds.splits.train) == 6


def test_what_may_be_left_out_and_other_layouts(save):
    ds = load_npz(save(images=np.asfortranarray(IMAGES[:, 0] / 255.0).astype(">f4"), labels=LABELS.astype(np.uint8)))
    assert ds.shape == (1, 5, 4)
    assert np.allclose(ds.images[:, 0], IMAGES[:, 0] / 255)
    assert ds.images.dtype == np.float32
    assert ds.images.dtype.isnative
    assert ds.classes == ("0", "1", "2")


BAD = [
    ({"labels": LABELS}, "has no images; it holds labels; write it with np.savez"),
    ({"x": LABELS}, "has no images and no labels; it holds x"),
    ({"images": IMAGES.transpose(0, 2, 3, 1), "labels": LABELS}, "look like N x H x W x C; .*np.moveaxis"),
    ({"images": IMAGES, "labels": LABELS[:5]}, "there are 6 images, but 5 targets"),
    ({"images": IMAGES, "labels": LABELS - 1}, "label -1 is out of range"),
    ({"images": IMAGES, "labels": LABELS, "classes": ["a", "b"]}, "label 2 is out of range"),
    ({"images": IMAGES, "labels": LABELS, "classes": [1, 2, 3]}, "classes must be K texts"),
    ({"images": IMAGES, "labels": LABELS, "value_range": [0]}, "value_range must be two numbers"),
    ({"images": IMAGES, "labels": LABELS, "value_range": [0, 9]}, "outside value_range"),
    ({"images": np.full((6, 4, 4), np.nan), "labels": LABELS}, "image 0 holds NaN"),
    ({"images": np.array([IMAGES[0], None], dtype=object), "labels": LABELS}, "Python objects, which could run code"),
    ({"images": np.zeros(6, dtype=[("a", "u1")]), "labels": LABELS}, "images is not a NumPy array of plain values"),
]


@pytest.mark.parametrize(("arrays", "message"), BAD)
def test_arrays_that_do_not_fit(save, arrays, message):
    with pytest.raises(DataError, match=message) as caught:
        load_npz(save(**arrays))
    assert "photos.npz" in str(caught.value)


def npy(shape, dtype="|u1", body=b""):
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return path


def test_headers_that_lie(tmp_path):
    labels = io.BytesIO()
    np.save(labels, LABELS)
    for shape in ("(6, 4, 1000000000)", "(65536, 65536, 65536, 65536)"):
        path = archive(tmp_path / "lie.npz", images=npy(shape, body=bytes(100)), labels=labels.getvalue())
        with pytest.raises(DataError, match=r"images declares .* values of uint8.* it is damaged"):
            load_npz(path)
    for text in (
        b"no header",
        npy("(1,)")[:20],
        npy("(-1, 2)"),
        npy("(2,)", "nonsense"),
        npy("(2,)").replace(b"1", b"9"),
    ):
        path = archive(tmp_path / "lie.npz", images=text, labels=labels.getvalue())
        with pytest.raises(DataError, match=r"lie.npz: images"):
            load_npz(path)


def test_files_that_are_no_npz(tmp_path, save):
    path = tmp_path / "a.npz"
    path.write_bytes(b"nothing of that kind")
    with pytest.raises(DataError, match=r"is not an .npz file, or a damaged one"):
        load_npz(path)
    data = save(packed=True, images=IMAGES, labels=LABELS).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"is not an .npz file, or a damaged one"):
        load_npz(path)
    with pytest.raises(DataError, match=r"cannot read .*gone.npz: no such file"):
        load_npz(tmp_path / "gone.npz")


def test_a_flipped_bit_in_the_pixels_is_noticed(tmp_path, save):
    data = bytearray(save(images=IMAGES, labels=LABELS).read_bytes())
    data[data.index(IMAGES.tobytes()) + 10] ^= 1
    (tmp_path / "flip.npz").write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        load_npz(tmp_path / "flip.npz")
