"""pellucid explain: the page and its pictures from one command, and one line for what cannot be."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

import pellucid as pl
from made import picture
from pellucid import nn

pytestmark = pytest.mark.capability("H34")


@pytest.fixture
def digit(tmp_path):
    """A file with a digit in the training's size and polarity."""
    pixels = (pl.data.load("digits").images[7, 0] * (255 / 16)).round().astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "seven.png")
    return tmp_path / "seven.png"


def sources(page):
    return set(re.findall(r'src="([^"]*)"', page.read_text(encoding="utf-8")))


@pytest.mark.capability("F10", "H19", "H20", "H21")
def test_one_command_from_a_model_to_a_page_with_all_pictures(cli, trained, digit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("explain", trained, digit) == (0, "wrote seven-explained/index.html\n", "")
    page = tmp_path / "seven-explained" / "index.html"
    names = sources(page)
    assert {path.name for path in page.parent.iterdir()} == {*names, "index.html"}
    assert {"saliency.png", "integrated-gradients.png", "occlusion.png", "grad-cam.png", "number.png"} <= names
    assert "seven.png</bdi>, explained" in page.read_text(encoding="utf-8")
    label = pl.load(trained).predict(digit).labels[0]
    assert f"<strong><bdi>{label}</bdi></strong>" in page.read_text(encoding="utf-8")


@pytest.mark.capability("F4")
def test_a_photo_shows_how_the_input_came_about(cli, trained, digit, tmp_path):
    for name in ("stored", "photo"):
        if name == "photo":
            Image.open(digit).resize((240, 240), Image.Resampling.BICUBIC).save(digit)
        assert cli("explain", trained, digit, "--out", tmp_path / name).code == 0
        assert ("preparation.png" in sources(tmp_path / name / "index.html")) == (name == "photo")
    assert "The ink is light on dark" in (tmp_path / "photo" / "index.html").read_text(encoding="utf-8")


@pytest.mark.capability("F11")
def test_data_and_target(cli, trained, digit, tmp_path):
    out = tmp_path / "deep" / "out"
    code, said, err = cli("explain", trained, digit, "--target", "3", "--data", "digits", "--out", out)
    assert (code, said, err) == (0, f"wrote {out}/index.html\n", "")
    assert {"nearest.png", "map-pca.png", "map-tsne.png"} <= sources(out / "index.html")
    assert "Which pixels count for the class &#34;3&#34;" in (out / "index.html").read_text(encoding="utf-8")


def test_a_second_time_writes_the_same(cli, trained, digit, tmp_path):
    out = tmp_path / "out"
    assert cli("explain", trained, digit, "--out", out).code == 0
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert cli("explain", trained, digit, "--out", out).code == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["gone", "seven.png"], "there is no model gone"),
        (["{run}", "gone.png"], "cannot read image gone.png: there is no such file"),
        (["{run}", "."], "it is a folder, not an image"),
        (["{run}", "seven.png", "--target", "ten"], 'unknown class "ten"'),
        (["{run}", "seven.png", "--data", "nothing"], "nothing"),
        (["{run}", "seven.png", "--out", "seven.png"], "cannot make the folder seven.png"),
    ],
)
def test_one_line_for_what_cannot_be(cli, trained, digit, tmp_path, monkeypatch, words, match):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("explain", *[word.format(run=trained) for word in words])
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert match in err
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"seven.png"}


def test_data_of_another_kind_are_brought_into_the_models_shape(cli, trained, digit, tmp_path):
    for i in range(8):
        picture(tmp_path / "photos" / "ab"[i % 2] / f"{i}.png", i, (20, 30))
    out = tmp_path / "out"
    code, _, err = cli("explain", trained, digit, "--data", tmp_path / "photos", "--out", out)
    assert (code, err) == (0, f"{tmp_path}/photos is not known to be what the model was trained on; the page says so\n")
    assert "nearest.png" in sources(out / "index.html")
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "<h2>The nearest images of photos</h2>" in page
    assert "not known to be images that the model was trained on" in page
    assert "training images" not in page


@pytest.mark.capability("F12", "C12")
def test_a_run_knows_its_training_images_and_a_model_file_does_not(cli, digit, tmp_path):
    net = nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 3), nn.Linear(3, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8))),
        input_shape=(1, 8, 8),
    )
    ds = pl.data.load("digits").reconstruction()
    pl.fit(net, ds, epochs=1, engine="reference", progress=False, out=tmp_path / "run")
    page = tmp_path / "out" / "index.html"
    code, _, err = cli("explain", tmp_path / "run", digit, "--data", "digits", "--out", page.parent)
    assert (code, err) == (0, "")
    assert "<h2>The nearest training images</h2>" in page.read_text(encoding="utf-8")
    (model,) = (tmp_path / "run").glob("*.safetensors")
    code, _, err = cli("explain", model, digit, "--data", "digits", "--out", page.parent)
    assert (code, err) == (0, "digits is not known to be what the model was trained on; the page says so\n")
    assert "<h2>The nearest images of digits</h2>" in page.read_text(encoding="utf-8")
