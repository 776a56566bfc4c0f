"""Looking through a data set: each finding planted, each found, and nothing else."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from made import picture
from pellucid.data import load
from pellucid.data.check import check, difference_hash
from pellucid.errors import DataError, OptionError


@pytest.mark.capability("H9")
def test_a_clean_folder(parted):
    report = check(parted)
    assert (report.images, report.classes, report.sizes) == (18, ("cat", "dog"), {"8x8": 18})
    assert report.balance == {
        "train": {"cat": 4, "dog": 4},
        "val": {"cat": 2, "dog": 2},
        "test": {"cat": 3, "dog": 3},
    }
    assert (report.unreadable, report.ignored, report.problems) == ([], [], [])
    assert (report.across_parts, report.across_classes, report.suspects, report.inside) == ([], [], [], 0)


@pytest.mark.capability("H7")
def test_every_bad_file_is_listed_with_its_reason(parted):
    bad = {"train/cat/empty.png": b"", "train/dog/text.jpg": b"milk", "test/cat/cut.png": b"\x89PNG"}
    for name, data in bad.items():
        (parted / name).write_bytes(data)
    (parted / "train" / "notes.txt").write_text("x")
    (parted / "train" / "cat" / "Thumbs.db").write_text("x")
    report = check(parted)
    found = {s.file: s.reason for s in report.unreadable}
    assert set(found) == set(bad)
    assert "empty" in found["train/cat/empty.png"]
    assert "text file" in found["train/dog/text.jpg"]
    assert "damaged" in found["test/cat/cut.png"]
    assert sorted(report.ignored) == ["train/cat/Thumbs.db", "train/notes.txt"]
    assert report.images == 18


@pytest.mark.capability("H9")
def test_copies_across_parts_and_classes_and_inside_a_class(parted):
    shutil.copy(parted / "train" / "cat" / "0.png", parted / "test" / "cat" / "leak.png")
    shutil.copy(parted / "train" / "cat" / "1.png", parted / "train" / "dog" / "wrong.png")
    shutil.copy(parted / "val" / "dog" / "0.png", parted / "val" / "dog" / "twice.png")
    # Other bytes, other format, the same pixels.
    Image.open(parted / "train" / "dog" / "2.png").save(parted / "val" / "cat" / "both.bmp")
    report = check(parted)
    assert report.across_parts == [
        ("train/cat/0.png", "test/cat/leak.png"),
        ("train/dog/2.png", "val/cat/both.bmp"),
    ]
    assert report.across_classes == [
        ("train/cat/1.png", "train/dog/wrong.png"),
        ("train/dog/2.png", "val/cat/both.bmp"),
    ]
    assert (report.inside, report.suspects) == (1, [])


@pytest.mark.capability("H9")
def test_a_compressed_or_scaled_copy_is_a_suspect(parted):
    ramp = np.add.outer(np.arange(64), np.abs(np.arange(64) - 40) * 3).astype(np.uint8)
    Image.fromarray(ramp).save(parted / "train" / "cat" / "large.png")
    Image.fromarray(ramp).resize((48, 48), Image.Resampling.BILINEAR).save(parted / "test" / "cat" / "small.png")
    report = check(parted)
    assert report.suspects == [("train/cat/large.png", "test/cat/small.png")]
    assert report.across_parts == []
    assert report.sizes == {"8x8": 18, "64x64": 1, "48x48": 1}


def test_even_areas_are_no_suspects(photos):
    for name, shade in (("x", 3), ("y", 200)):
        Image.new("L", (8, 8), shade).save(photos / "cat" / f"{name}.png")
    assert check(photos).suspects == []
    assert difference_hash(Image.new("L", (8, 8), 3)) == 0


def test_the_hash_by_hand():
    cells = np.zeros((8, 9), np.uint8)
    cells[0, 1:] = 10
    cells[7, 8] = 10
    assert difference_hash(Image.fromarray(cells)) == (1 << 63) | 1


@pytest.mark.capability("H7")
def test_what_keeps_a_folder_from_being_loaded_is_reported_not_raised(parted):
    picture(parted / "train" / "eel" / "1.png", 5)
    (parted / "train" / "gnu").mkdir()
    report = check(parted)
    assert "train/: no readable image for gnu" in report.problems[0]
    assert "val/ has no folder for eel, gnu" in report.problems[1]
    assert report.balance["train"] == {"cat": 4, "dog": 4, "eel": 1, "gnu": 0}
    with pytest.raises(DataError, match="no readable image for gnu"):
        load(parted)


@pytest.mark.capability("H9")
def test_arrays_in_a_file(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 4)).astype(np.uint8)
    images[7] = images[0]
    images[8] = images[2]
    path = tmp_path / "a.npz"
    np.savez(path, images=images, labels=np.arange(10) % 2)
    report = check(path)
    assert (report.across_classes, report.inside) == ([("0", "7")], 1)
    assert report.balance == {"train": {"0": 5, "1": 5}}
    assert report.sizes == {"4x4": 10}


def test_a_known_name():
    report = check("digits")
    assert (report.images, report.source, report.sizes) == (1797, "digits", {"8x8": 1797})
    assert report.balance["train"]["3"] == 183


@pytest.mark.capability("H9")
def test_real_sets(real_data):
    report = check("mnist")
    assert (report.across_parts, report.across_classes, report.inside) == ([], [], 0)
    assert sum(report.balance["test"].values()) == 10_000


def test_the_report_is_plain_json(parted):
    (parted / "train" / "cat" / "bad.png").touch()
    plain = json.loads(json.dumps(check(parted).to_dict(), allow_nan=False))
    assert plain["unreadable"] == [{"file": "train/cat/bad.png", "reason": "the file is empty; copy it again"}]
    assert plain["balance"]["val"]["dog"] == 2


def test_progress_and_errors(photos, tmp_path):
    seen = []
    check(photos, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (20, 20)
    with pytest.raises(OptionError, match="unknown data set"):
        check(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds nothing"):
        check(tmp_path / "empty")
