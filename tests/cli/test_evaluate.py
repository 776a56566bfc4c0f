"""pellucid evaluate: numbers, JSON, and which part of the data counts."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

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
