"""pellucid predict: files and folders, JSON, and what happens to bad files."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import pellucid as pl
from made import without_compiling

pytestmark = pytest.mark.capability("H34")


@pytest.fixture
def digits(tmp_path):
    """Files 0.png to 3.png with digits in the training's size and polarity, in a folder."""
    ds = pl.data.load("digits")
    folder = tmp_path / "scans"
    folder.mkdir()
    for i in range(4):
        pixels = (ds.images[i, 0] * (255 / 16)).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def test_json_has_the_shape_of_the_contract(cli, trained, digits):
    code, out, err = cli("predict", trained, digits / "0.png", digits / "1.png", "--top", 3, "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert [list(row) for row in rows] == [["file", "label", "probability", "top", "unsure"]] * 2
    expected = pl.load(trained).predict([digits / "0.png", digits / "1.png"])
    for i, row in enumerate(rows):
        assert row["file"] == str(digits / f"{i}.png")
        assert row["label"] == expected.labels[i] == row["top"][0][0]
        assert row["probability"] == expected.probabilities[i].max() == row["top"][0][1]
        assert len(row["top"]) == 3
        assert row["top"][0][1] >= row["top"][1][1] >= row["top"][2][1]
        assert row["unsure"] is None


def test_lines_for_people(cli, trained, digits):
    code, out, err = cli("predict", trained, digits / "0.png", "--top", 2)
    p = pl.load(trained).predict(digits / "0.png")
    best, second = np.argsort(-p.probabilities[0])[:2]
    assert (code, err) == (0, "")
    assert (
        out == f"{digits / '0.png'}: {best} {p.probabilities[0, best]:.1%}, {second} {p.probabilities[0, second]:.1%}\n"
    )


def test_a_folder_gives_its_images_in_order(cli, trained, digits):
    (digits / "deep").mkdir()
    (digits / "0.png").rename(digits / "deep" / "9.PNG")
    (digits / "notes.txt").write_text("no image")
    rows = json.loads(cli("predict", trained, digits, "--json").out)
    names = ["1.png", "2.png", "3.png", "deep/9.PNG"]
    assert [row["file"] for row in rows] == [str(digits / name) for name in names]
    assert all(len(row["top"]) == 1 for row in rows)


@pytest.mark.capability("H7")
def test_a_bad_file_does_not_keep_the_rest_from_being_done(cli, trained, digits, tmp_path):
    bad = digits / "bad.png"
    bad.write_text("milk")
    (tmp_path / "empty").mkdir()
    words = ("predict", trained, bad, digits / "0.png", digits / "gone.png", tmp_path / "empty", digits / "1.png")
    code, out, err = cli(*words)
    assert code == 1
    assert len(out.splitlines()) == 2
    errors = err.splitlines()
    assert errors[0].startswith(f"error: cannot read image {bad}: a text file, not an image")
    assert errors[1] == f"error: cannot read image {digits / 'gone.png'}: there is no such file"
    assert errors[2].startswith(f"error: {tmp_path / 'empty'} is a folder without images (PNG, JPEG")

    code, out, err = cli(*words, "--json")
    rows = json.loads(out)
    assert code == 1
    assert [list(row) for row in rows if "error" in row] == [["file", "error"]] * 3
    assert [row["file"] for row in rows] == [str(word) for word in words[2:]]
    assert "label" in rows[1]
    assert "label" in rows[4]
    assert len(err.splitlines()) == 3


def test_nothing_readable_still_gives_a_document(cli, trained, tmp_path):
    code, out, err = cli("predict", trained, tmp_path / "a.png", "--json")
    assert code == 1
    assert [list(row) for row in json.loads(out)] == [["file", "error"]]
    assert err.count("\n") == 1


def test_save_seen_writes_what_the_network_saw(cli, trained, digits, tmp_path):
    (tmp_path / "more").mkdir()
    Image.new("RGB", (40, 40), "white").save(tmp_path / "more" / "0.png")
    seen = tmp_path / "deep" / "seen"
    words = ("predict", trained, digits / "0.png", tmp_path / "gone.png", tmp_path / "more" / "0.png")
    assert cli(*words, "--save-seen", seen).code == 1
    assert sorted(path.name for path in seen.iterdir()) == ["000-0.png", "001-0.png"]
    with Image.open(seen / "000-0.png") as a, Image.open(digits / "0.png") as b:
        assert a.size == (8, 8)
        assert np.abs(np.asarray(a).astype(int) - np.asarray(b)).max() <= 1
    with Image.open(seen / "001-0.png") as nothing:
        assert np.asarray(nothing).max() == 0


def test_a_model_file_will_do(cli, trained, digits):
    by_run = cli("predict", trained, digits, "--json").out
    assert cli("predict", trained / "model.safetensors", digits, "--json").out == by_run


def test_a_file_name_that_is_no_text(trained, digits):
    """Bytes that are no UTF-8 are legal in a file name; nothing may fail for that."""
    name = bytes(digits) + b"/\xff.png"
    (digits / "0.png").rename(name.decode("utf-8", "surrogateescape"))
    for extra in ([], ["--json"]):
        command = [sys.executable, "-m", "pellucid", "predict", str(trained), name, *extra]
        done = subprocess.run(command, capture_output=True, check=False)
        assert (done.returncode, without_compiling(done.stderr.decode())) == (0, "")
        assert b".png" in done.stdout


def test_a_closed_pipe_is_no_traceback(trained, digits):
    command = [sys.executable, "-m", "pellucid", "predict", str(trained), *[str(digits)] * 3]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert without_compiling(process.stderr.read().decode()) == ""
        assert process.wait() == 1


@pytest.fixture
def photo(tmp_path):
    """A stroke of blue ink on gray paper, as wide as a one."""
    image = Image.new("RGB", (240, 180), (200, 198, 190))
    image.paste((40, 60, 150), (112, 50, 124, 130))
    image.save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


@pytest.mark.capability("F4", "H5")
def test_a_photo_is_prepared_and_the_polarity_said(cli, trained, photo, tmp_path):
    code, out, err = cli("predict", trained, photo, "--save-seen", tmp_path / "seen")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].endswith(" (dark on light)")
    with Image.open(tmp_path / "seen" / "000-photo.png") as seen:
        pixels = np.asarray(seen)
    assert pixels.shape == (8, 8)
    assert pixels.max(axis=1).min() > 200
    assert pixels[:, [0, 1, 6, 7]].max() == 0
    row = json.loads(cli("predict", trained, photo, "--json").out)[0]
    assert list(row) == ["file", "label", "probability", "top", "unsure", "polarity"]
    assert row["polarity"] == "dark-on-light"


@pytest.mark.capability("H6")
def test_a_blank_photo_is_not_sure(cli, trained, tmp_path):
    Image.new("RGB", (90, 60), "white").save(tmp_path / "blank.png")
    reason = "it is blank: nothing stands out in it"
    assert cli("predict", trained, tmp_path / "blank.png").out.splitlines()[1] == f"  not sure: {reason}"
    assert json.loads(cli("predict", trained, tmp_path / "blank.png", "--json").out)[0]["unsure"] == reason
