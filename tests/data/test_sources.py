"""load: every kind of source, always three parts, and names and paths that cannot be."""

from __future__ import annotations

import json

import numpy as np
import pytest

import pellucid as pl
from made import idx_files, picture
from pellucid.data import cifar
from pellucid.data.dataset import from_arrays
from pellucid.data.sources import describe, load, resize
from pellucid.errors import DataError, OptionError


def sizes(ds):
    return len(ds.splits.train), len(ds.splits.val), len(ds.splits.test)


@pytest.mark.capability("E4")
def test_digits_are_the_default():
    ds = load(seed=42)
    assert (ds.name, sizes(ds)) == ("digits", (1149, 288, 360))
    assert sizes(load(subset=200, val_fraction=0.5)) == (100, 100, 360)


@pytest.mark.capability("E10")
def test_folders(photos, parted):
    assert sizes(load(photos)) == (12, 4, 4)
    assert sizes(load(str(parted))) == (8, 4, 6)
    assert load(photos, size=(5, 4)).shape == (3, 5, 4)
    (photos / "cat" / "bad.png").write_text("no")
    assert load(photos).skipped[0].file == "cat/bad.png"
    with pytest.raises(DataError, match=r"bad.png: a text file"):
        load(photos, strict=True)


@pytest.mark.capability("H8")
def test_the_same_seed_gives_the_same_parts(photos):
    first, again = load(photos, seed=3), load(photos, seed=3)
    assert [first.ids[i] for i in first.splits.test] == [again.ids[i] for i in again.splits.test]
    assert first.digest() == again.digest()


@pytest.mark.capability("E2")
def test_idx_folder(tmp_path):
    for name, data in idx_files().items():
        (tmp_path / name).write_bytes(data)
    assert sizes(load(tmp_path)) == (32, 8, 20)
    assert load(tmp_path, size=(3, 3)).shape == (1, 3, 3)


def test_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((50, 4, 4), np.uint8), labels=np.arange(50) % 5)
    assert sizes(load(path)) == (32, 8, 10)


def test_unpacked_cifar_and_its_pickles(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "ROWS", 10)
    rows = np.zeros((10, 3073), np.uint8)
    rows[:, 0] = np.arange(10)
    for name in (*cifar.TRAIN, cifar.TEST):
        (tmp_path / name).write_bytes(rows.tobytes())
    assert sizes(load(tmp_path)) == (40, 10, 10)
    (tmp_path / "data_batch_1").touch()
    with pytest.raises(DataError, match="Python version of CIFAR-10"):
        load(tmp_path)


def test_names_and_paths_that_cannot_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        OptionError, match=r'unknown data set "digit"; did you mean "digits".*no folder or file of that'
    ):
        load("digit")
    with pytest.raises(OptionError, match="no folder or file of that name either"):
        load(tmp_path / "gone")
    with pytest.raises(OptionError, match=r"must be a name or a path, got ndarray; data.from_arrays takes arrays"):
        load(np.zeros(3))
    (tmp_path / "digits").mkdir()
    assert load("digits").name == "digits"
    with pytest.raises(DataError, match="digits holds nothing"):
        load("./digits")


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("a.csv", "give a known name, a folder"),
        ("a.jpg", "a single image is no data set"),
        ("a.zip", "unpack it and give the folder"),
        ("cifar.tar.gz", "unpack it"),
        ("a.npy", "save images and labels in one file: np.savez"),
    ],
)
def test_files_of_another_kind(tmp_path, name, cure):
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=f"{name} cannot be read as a data set; {cure}"):
        load(tmp_path / name)


def test_resize_keeps_type_and_range():
    for dtype, low, high in ((np.uint8, 0, 255), (np.float64, -1.0, 1.0), (np.int16, -300, 300)):
        images = np.random.default_rng(0).uniform(low, high, (3, 2, 8, 6)).astype(dtype)
        ds = resize(from_arrays(images, [0, 1, 0], value_range=(low, high)), (4, 3))
        assert (ds.images.shape, ds.images.dtype, ds.value_range) == ((3, 2, 4, 3), dtype, (low, high))
        assert np.allclose(ds.images.mean(axis=(2, 3)), images.mean(axis=(2, 3)), atol=(high - low) * 0.1)
    assert resize(ds, (4, 3)) is ds


@pytest.mark.capability("E8")
def test_facts():
    facts = describe(load("digits", seed=42))
    assert (facts["count"], facts["shape"], facts["dtype"]) == (1797, (1, 8, 8), "uint8")
    assert (facts["min"], facts["max"], round(facts["mean"], 3)) == (0, 16, 4.884)
    assert facts["balance"]["train"]["0"] + facts["balance"]["val"]["0"] + facts["balance"]["test"]["0"] == 178
    assert json.loads(json.dumps(facts, allow_nan=False))["classes"][9] == "9"
    assert describe(from_arrays(np.zeros((0, 4, 4)), np.zeros((0, 1))))["mean"] is None


@pytest.mark.capability("E8")
def test_facts_of_mnist(real_data):
    facts = describe(load("mnist"))
    assert (facts["count"], facts["shape"], facts["min"], facts["max"]) == (70_000, (1, 28, 28), 0, 255)
    assert sum(facts["balance"]["test"].values()) == 10_000


@pytest.mark.capability("E10")
def test_a_real_folder_of_jpegs(real_data, tmp_path):
    import tarfile

    with tarfile.open(real_data / "cifar10-subset.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    picture(tmp_path / "train" / "ship" / "wide.jpg", 1, (40, 60))
    notes = []
    ds = load(tmp_path, size=(32, 32), notes=notes.append)
    assert (sizes(ds), ds.shape, notes) == ((4000, 1001, 1000), (3, 32, 32), [])
    assert ds.classes[0] == "airplane"


@pytest.mark.capability("E6")
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 28, 28), (2, 5, 7)])
def test_random_images_to_try_a_network(shape):
    ds = pl.data.random_images(8, shape, 3, seed=1)
    assert (ds.images.shape, ds.images.dtype, ds.value_range) == ((8, *shape), np.uint8, (0.0, 255.0))
    assert ds.images.min() < 40 < 215 < ds.images.max()
    assert ds.targets.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert np.array_equal(ds.images, pl.data.random_images(8, shape, 3, seed=1).images)
    assert not np.array_equal(ds.images, pl.data.random_images(8, shape, 3).images)
    net = pl.nn.Sequential(pl.nn.Conv2d(shape[0], 2, 3), pl.nn.Flatten(), pl.nn.LazyLinear(3), input_shape=shape)
    assert net(pl.InputSpec.of(ds).canonical(ds.images)).shape == (8, 3)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((8, (28, 28)), r"shape must be \(C, H, W\), got \(28, 28\)"),
        ((0, (1, 2, 2)), "n and shape must be at least 1, got 0"),
        ((8, (1, 2, 2), 0), "num_classes must be at least 1, got 0"),
    ],
)
def test_random_images_that_cannot_be(arguments, match):
    with pytest.raises(OptionError, match=match):
        pl.data.random_images(*arguments)
