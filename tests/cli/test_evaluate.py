"""pellucid evaluate: numbers, JSON, and which part of the data counts."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import pellucid as pl

pytestmark = pytest.mark.capability("H34", "F1", "F2", "F3")


def evaluated(cli, *words):
    code, out, err = cli("evaluate", *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_json_has_the_shape_of_the_contract(cli, trained):
    found = evaluated(cli, trained, "digits")
    assert list(found) == ["loss", "accuracy", "recall", "precision", "confusion", "labels", "n"]
    assert found["labels"] == [str(i) for i in range(10)]
    assert found["n"] == 360
    assert np.array(found["confusion"]).sum() == 360
    assert found["accuracy"] == np.trace(found["confusion"]) / 360 > 0.5
    assert list(found["recall"]) == list(found["precision"]) == found["labels"]
    assert found == json.loads((trained / "metrics.json").read_text())["test"]


@pytest.mark.capability("E4")
def test_a_run_uses_its_recorded_split_for_its_own_data(cli, trained):
    sizes = {part: evaluated(cli, trained, "digits", "--split", part)["n"] for part in ("train", "val", "test", "all")}
    assert sizes == {"train": 320, "val": 80, "test": 360, "all": 1797}
    recorded = json.loads((trained / "splits.json").read_text())
    assert {part: len(ids) for part, ids in recorded.items()} == {"train": 320, "val": 80, "test": 360}


def test_other_data_are_used_whole(cli, trained, tmp_path):
    ds = pl.data.load("digits")
    np.savez(tmp_path / "other.npz", images=ds.images[:50], labels=ds.targets[:50], value_range=(0, 16))
    assert evaluated(cli, trained, tmp_path / "other.npz")["n"] == 50
    assert evaluated(cli, trained / "model.safetensors", "digits")["n"] == 1797


def test_the_same_data_from_elsewhere_are_the_same_data(cli, trained, tmp_path):
    ds = pl.data.load("digits")
    same = {"images": ds.images, "labels": ds.targets, "classes": list(ds.classes), "value_range": ds.value_range}
    np.savez(tmp_path / "mine.npz", **same)
    assert evaluated(cli, trained, tmp_path / "mine.npz") == evaluated(cli, trained, "digits")


def test_undefined_numbers_are_null(cli, trained, tmp_path):
    ds = pl.data.load("digits")
    zeros = np.flatnonzero(ds.targets == 0)[:9]
    np.savez(tmp_path / "zeros.npz", images=ds.images[zeros], labels=ds.targets[zeros], value_range=(0, 16))
    found = evaluated(cli, trained, tmp_path / "zeros.npz")
    assert found["recall"]["1"] is None
    assert found["recall"]["0"] is not None
    assert found["n"] == 9
    code, out, _ = cli("evaluate", trained, tmp_path / "zeros.npz")
    assert code == 0
    assert " ".join(out.splitlines()[3].split()[:2]) == "1 -"


def test_the_table(cli, trained):
    lines = cli("evaluate", trained, "digits").out.splitlines()
    found = evaluated(cli, trained, "digits")
    assert lines[0] == f"accuracy {found['accuracy']:.4f}, loss {found['loss']:.4f}, 360 images (test part)"
    assert lines[1].split() == ["class", "recall", "precision", "images"]
    assert lines[2].split()[:2] == ["0", f"{found['recall']['0']:.4f}"]
    assert lines[12] == "confusion (rows true, columns predicted)"
    rows = [[int(cell.replace(".", "0")) for cell in line.split()[1:]] for line in lines[13:23]]
    assert rows == found["confusion"]
    assert max(map(len, lines)) <= 80


def test_splits_that_were_changed_are_refused(cli, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "splits.json").write_text('{"train": [99999], "val": [], "test": []}')
    code, out, err = cli("evaluate", tmp_path / "run", "digits", "--json")
    assert (code, out) == (1, "")
    assert "splits.json does not fit the data; it was changed, or belongs to another run" in err


def test_unknown_split(cli, trained):
    code, _, err = cli("evaluate", trained, "digits", "--split", "tset")
    assert code == 1
    assert 'unknown part "tset"; did you mean "test"?' in err


@pytest.mark.capability("F5")
def test_ten_own_digits_in_one_table(cli, trained, tmp_path):
    """Files named by what they show; those of the network's size are taken as they are."""
    ds = pl.data.load("digits")
    own = tmp_path / "own"
    own.mkdir()
    for k in range(10):
        pixels = ds.images[np.flatnonzero(ds.targets == k)[3], 0] * 15.9375
        Image.fromarray(pixels.round().astype(np.uint8)).save(own / (f"{k}.png" if k else "0-mine.png"))
    (own / "notes.txt").write_text("mine")
    code, out, err = cli("evaluate", trained, own)
    assert (code, err) == (0, "")
    table = out.splitlines()[-11:]
    assert table[0].split() == ["image", "true", "read", "as"]
    assert [line.split()[:2] for line in table[1:]] == [
        [name, name[0]] for name in ["0-mine.png", *(f"{k}.png" for k in range(1, 10))]
    ]
    wrong = sum(line.endswith("  wrong") for line in table)
    found = json.loads(cli("evaluate", trained, own, "--json").out)
    assert found["n"] == 10
    assert found["accuracy"] == pytest.approx(1 - wrong / 10)


@pytest.mark.capability("F5")
def test_own_digits_in_class_folders_are_prepared_as_predict_does(cli, trained, tmp_path):
    for k, x in ((0, 60), (1, 90)):
        (tmp_path / "own" / str(k)).mkdir(parents=True)
        image = Image.new("RGB", (200, 150), "white")
        image.paste((30, 30, 90), (x, 40, x + 12, 120))
        image.save(tmp_path / "own" / str(k) / "photo.png")
    out = cli("evaluate", trained, tmp_path / "own").out
    answers = json.loads(cli("predict", trained, tmp_path / "own", "--json").out)
    read = [line.split()[2:4] for line in out.splitlines()[-2:]]
    assert read == [[row["label"], f"{row['probability']:.1%}"] for row in answers]


@pytest.mark.capability("F5")
def test_own_digits_are_saved_as_a_data_set(cli, trained, tmp_path):
    """What is saved needs no preparation: another evaluation says the same."""
    for k in range(10):
        (tmp_path / "own").mkdir(exist_ok=True)
        image = Image.new("L", (120, 150), 230)
        ImageDraw.Draw(image).text((60, 75), str(k), 40, ImageFont.load_default(90), anchor="mm")
        image.save(tmp_path / "own" / f"{k}-mine.png")
    first = json.loads(cli("evaluate", trained, tmp_path / "own", "--json", "--save-seen", tmp_path / "set").out)
    files = sorted(path.relative_to(tmp_path / "set").as_posix() for path in (tmp_path / "set").rglob("*.png"))
    assert files == [f"{k}/{k:03d}-{k}-mine.png" for k in range(10)]
    with Image.open(tmp_path / "set" / files[3]) as seen:
        assert seen.size == (8, 8)
    again = json.loads(cli("evaluate", trained, tmp_path / "set", "--json").out)
    assert {name: first[name] for name in ("accuracy", "confusion", "n")} == {
        name: again[name] for name in ("accuracy", "confusion", "n")
    }
    assert again["loss"] == pytest.approx(first["loss"], rel=0.02)  # 16 levels of gray were 255


def test_a_name_that_says_no_class_is_refused(cli, trained, tmp_path):
    (tmp_path / "own").mkdir()
    for name in ("1.png", "12.png"):
        Image.new("L", (8, 8)).save(tmp_path / "own" / name)
    code, out, err = cli("evaluate", trained, tmp_path / "own")
    assert (code, out) == (1, "")
    assert "holds images, but no class folders" in err
