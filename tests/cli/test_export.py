"""pellucid export, and what the other commands do with the file."""

from __future__ import annotations

import importlib
import json
import re
import sys

import numpy as np
import pytest

import pellucid as pl
from available import NO_ONNX, NO_TORCH
from made import picture

pytest.importorskip("onnx", reason=NO_ONNX)

pytestmark = pytest.mark.capability("H24", "H25", "H34")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A model of digits that is hardly trained."""
    folder = tmp_path_factory.mktemp("export")
    ds = pl.data.load("digits")
    pl.fit(pl.models.create("block_cnn", ds.shape, 10), ds, epochs=1, progress=False, out=folder / "run")
    return folder / "run"


def test_a_run_goes_out_with_the_proof_in_one_line(cli, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("export", digits, "--to", "onnx")
    assert (code, err) == (0, "")
    found = re.fullmatch(r"wrote run\.onnx \((\d+) bytes\); largest difference (\S+) of the largest output\n", out)
    assert int(found[1]) == (tmp_path / "run.onnx").stat().st_size
    assert float(found[2]) <= 1e-5
    assert cli("export", digits / "model.safetensors", "--to", "onnx", "--out", "again.onnx").code == 0
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "run.onnx").read_bytes()


@pytest.mark.parametrize("options", [(), ("--preprocessing",)])
def test_the_file_predicts_and_is_judged_as_the_run(cli, digits, tmp_path, options):
    photo = picture(tmp_path / "photo.png", 1, (8, 8))
    assert cli("export", digits, "--to", "onnx", "--out", tmp_path / "m.onnx", *options).code == 0
    ours, theirs = (json.loads(cli("predict", model, photo, "--json").out) for model in (digits, tmp_path / "m.onnx"))
    assert theirs[0]["label"] == ours[0]["label"]
    assert np.isclose(theirs[0]["probability"], ours[0]["probability"], atol=1e-5)
    ours, theirs = (
        json.loads(cli("evaluate", model, "digits", "--split", "all", "--json").out)
        for model in (digits, tmp_path / "m.onnx")
    )
    assert theirs["confusion"] == ours["confusion"]
    assert "Conv2d" in cli("summary", tmp_path / "m.onnx").out


def test_code_and_weights_for_torch(cli, digits, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("export", digits, "--to", "torch")
    assert (code, err) == (0, "")
    found = re.fullmatch(r"wrote run\.py and run\.safetensors; largest difference (\S+) of the largest output\n", out)
    assert float(found[1]) <= 1e-5
    assert cli("export", digits, "--to", "torch", "--out", "other/m.py").code == 1
    monkeypatch.syspath_prepend(tmp_path)
    made, images = importlib.import_module("run"), pl.data.load("digits").images[:40]
    with torch.no_grad():
        theirs = torch.softmax(made.load()(made.preprocess(torch.tensor(images))), 1).numpy()
    assert np.allclose(theirs, pl.load(digits).predict(images).probabilities, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("RUN", "--to", "torch", "--preprocessing"), "--preprocessing is for --to onnx"),
        (("RUN", "--to", "onx"), 'unknown format "onx"; did you mean "onnx"?'),
        (("none", "--to", "onnx"), "there is no model none; pellucid train writes one"),
        (("RUN", "--to", "onnx", "--out", "no/where.onnx"), "cannot write no/where.onnx"),
        (("RUN", "--to", "onnx", "--out", "."), "cannot write ."),
        (("text.onnx", "--to", "onnx"), "text.onnx: it is not an ONNX file, or it is damaged"),
    ],
)
def test_one_line_for_what_cannot_be(cli, digits, tmp_path, monkeypatch, words, match):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.onnx").write_text("milk")
    code, out, err = cli("export", *(digits if word == "RUN" else word for word in words))
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert match in err
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"text.onnx"}


def test_a_missing_package_is_named_with_its_cure(cli, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _, err = cli("export", digits, "--to", "onnx")
    assert (code, list(tmp_path.iterdir())) == (1, [])
    assert "needs the package onnxruntime: pip install 'pellucid[onnx]'" in err
