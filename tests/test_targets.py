"""What the main jobs must reach on real images."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

import pellucid as pl
from pellucid import models, optim, schedules

pytestmark = pytest.mark.slow


def command(*arguments, folder, code=0):
    """Run pellucid in a folder and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "pellucid", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.capability("E3", "H34")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_default_training_on_digits(seed):
    ds = pl.data.load("digits", seed=seed)
    net = models.create(models.default(ds.shape), ds.shape, 10, seed)
    assert pl.fit(net, ds, seed=seed, progress=False).evaluate().accuracy >= 0.97


@pytest.mark.capability("C1", "D18")
def test_lesson0_one_image_per_step():
    ds = pl.data.load("digits", seed=42)
    net = models.block_cnn(1, [32], [30, 10], input_shape=ds.shape)
    optimizer = optim.SGD(lr=0.01, clip_layer_norm=10.0)
    run = pl.fit(
        net,
        ds,
        epochs=10,
        batch_size=1,
        optimizer=optimizer,
        schedule=schedules.Constant(),
        normalize="unit",
        progress=False,
    )
    assert run.evaluate().accuracy >= 0.94


@pytest.mark.capability("C2", "E5", "D18")
def test_lesson3_on_a_thousand_images():
    ds = pl.data.load("mnist-5k", subset=1250)
    net = models.create("lesson3", ds.shape, 10)
    run = pl.fit(
        net,
        ds,
        epochs=3,
        batch_size=1,
        optimizer=optim.SGD(lr=0.005),
        schedule=schedules.Constant(),
        normalize=(0.5, 1.0),
        progress=False,
    )
    assert np.bincount(ds.targets[ds.splits.train]).tolist() == [100] * 10
    assert run.evaluate().accuracy >= 0.80


@pytest.mark.capability("D18", "E2", "C4")
def test_lenet5_on_mnist_from_the_command_line(real_data, tmp_path):
    line = "train mnist --model lenet5 --epochs 2 --batch-size 64 --lr 5e-3 --schedule onecycle --out m"
    command(*line.split(), folder=tmp_path)
    result = json.loads(command("evaluate", "m", "mnist", "--json", folder=tmp_path).stdout)
    assert set(result) == {"loss", "accuracy", "recall", "precision", "confusion", "labels", "n"}
    assert (result["n"], np.sum(result["confusion"])) == (10_000, 10_000)
    assert result["accuracy"] >= 0.98
    ds = pl.data.load("mnist")
    chosen = ds.splits.test[:20]
    for i in chosen:
        Image.fromarray(ds.images[i, 0]).save(tmp_path / f"{i}.png")
    rows = json.loads(command("predict", "m", *(f"{i}.png" for i in chosen), "--json", folder=tmp_path).stdout)
    assert [row["file"] for row in rows] == [f"{i}.png" for i in chosen]
    assert sum(row["label"] == ds.classes[ds.targets[i]] for row, i in zip(rows, chosen, strict=True)) >= 19
    assert set(rows[0]) == {"file", "label", "probability", "top", "unsure"}


@pytest.mark.capability("H7", "E10")
def test_a_folder_of_photos_with_bad_files_in_it(real_data, tmp_path):
    with tarfile.open(real_data / "cifar10-subset.tar") as archive:
        archive.extractall(tmp_path / "photos", filter="data")
    cats = tmp_path / "photos" / "train" / "cat"
    whole = (cats / "0000.jpg").read_bytes()
    (cats / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (cats / "words.jpg").write_text("not a picture\n")
    upright = Image.open(cats / "0001.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(cats / "sideways.png", exif=turned)

    done = command("train", "photos", "--model", "lenet5", "--epochs", "2", "--out", "run", folder=tmp_path)
    assert "6001 images 3x32x32, 10 classes (4000 train, 1001 val, 1000 test)" in done.stdout
    assert "skipped train/cat/half.jpg: truncated" in done.stderr
    assert "skipped train/cat/words.jpg: a text file, not an image" in done.stderr
    assert pl.load(tmp_path / "run").metrics["test_accuracy"] > 0.3
    ds = pl.data.load(tmp_path / "photos")
    number = {sample: i for i, sample in enumerate(ds.ids)}
    assert (ds.images[number["train/cat/sideways.png"]] == ds.images[number["train/cat/0001.jpg"]]).all()

    strict = command("train", "photos", "--strict", "--out", "other", folder=tmp_path, code=1)
    assert strict.stderr.startswith("error: cannot read image")
    assert strict.stderr.count("\n") == 1
    assert not (tmp_path / "other").exists()
