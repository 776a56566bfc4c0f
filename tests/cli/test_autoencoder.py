"""pellucid train --model autoencoder, and what the other commands make of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import pellucid as pl
from made import picture

pytestmark = pytest.mark.capability("C12")

QUICK = ("--model", "autoencoder", "--engine", "reference", "--subset", 120, "--epochs", 2)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr("pellucid.report.plots.write_all", lambda *what: None)


def test_train_evaluate_predict_and_resume(cli, tmp_path, monkeypatch):
    """With the definition's engine throughout, so that no kernel is needed."""
    for command in ("evaluate", "predict"):
        monkeypatch.setattr(f"pellucid.cli.{command}.load_model", lambda path: pl.load(path, engine="reference"))
    out = tmp_path / "run"
    code, text, err = cli("train", *QUICK, "--out", out)
    assert (code, err) == (0, "")
    model = pl.load(out, engine="reference")
    ds = pl.data.load("digits").reconstruction()
    errors = pl.training.reconstruction_errors(model, ds, "test")
    assert "model     autoencoder: " in text
    assert "acc" not in text.split("seed 0)")[1]
    assert f"test error          {errors.mean():.5f} (mean squared) of 360 images" in text
    assert (out / "report.html").read_text().count("its reconstruction") == 24
    assert cli("evaluate", out, "digits").out.startswith("mean squared error 0.")
    document = json.loads(cli("evaluate", out, "digits", "--json").out)
    assert document["n"] == 360, "the recorded test part"
    assert document["mse"] == pytest.approx(errors.mean(), rel=1e-5)
    assert json.loads(cli("evaluate", out, "digits", "--split", "all", "--json").out)["n"] == 1797
    picture(tmp_path / "a.png", 0)
    code, _, err = cli("predict", out, tmp_path / "a.png")
    assert (code, err) == (1, "error: this model has no classes; model.outputs(images) gives its raw outputs\n")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert cli("train", "--resume", "--out", out).code == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--augment", "digit"), "give back its images as they are; leave --augment out"),
        (("--balance",), "balance weights the classes of the default loss"),
    ],
)
def test_what_an_autoencoder_cannot_be_told(cli, tmp_path, words, message):
    code, _, err = cli("train", *QUICK, *words, "--out", tmp_path / "run")
    assert (code, err.count("\n")) == (1, 1)
    assert message in err
    assert not (tmp_path / "run").exists()


def test_summary(cli):
    assert ["1.6", "Sigmoid"] in [line.split()[:2] for line in cli("summary", "dense_autoencoder").out.splitlines()]
    assert "ConvTranspose2d" in cli("summary", "autoencoder", "--input", "3x32x32").out


def test_a_model_that_gives_neither_classes_nor_images(cli, tmp_path):
    x = np.random.default_rng(0).random((20, 1, 8, 8))
    net = pl.nn.Sequential(pl.nn.Flatten(), pl.nn.LazyLinear(1))
    pl.fit(net, (x, x.mean((2, 3))), epochs=1, progress=False, out=tmp_path / "run")
    code, _, err = cli("evaluate", tmp_path / "run", "digits")
    assert (code, err) == (1, "error: the model gives 1 for an image, not another image\n")
