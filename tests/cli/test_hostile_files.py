"""Hostile files on the command line: exit code 1, one line on stderr, nothing on stdout, nothing left behind."""

from __future__ import annotations

import pytest

import hostile
from made import picture

pytestmark = pytest.mark.capability("H23", "H34")


def check(result, says: str) -> None:
    assert result.code == 1
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.out + result.err
    assert any(part in result.err for part in says.split("|"))


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m"
    hostile.model().save(path)
    return path.read_bytes()


@pytest.mark.parametrize("name", list(hostile.MODELS)[::3])
@pytest.mark.parametrize("command", ["predict", "evaluate", "summary"])
def test_model_files(cli, content, tmp_path, command, name):
    make, says = hostile.MODELS[name]
    (tmp_path / "m.safetensors").write_bytes(make(content))
    what = {"predict": [picture(tmp_path / "a.png", 0)], "evaluate": ["digits"], "summary": []}[command]
    result = cli(command, tmp_path / "m.safetensors", *what)
    check(result, says)
    assert result.out == ""


@pytest.mark.parametrize("name", list(hostile.DATA)[::3])
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_data(cli, trained, tmp_path, monkeypatch, command, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    source = hostile.data_source(name, tmp_path / "data")
    words = ["train", source, "--out", tmp_path / "run"] if command == "train" else ["evaluate", trained, source]
    check(cli(*words), hostile.DATA[name][1])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name in hostile.DATA if name.startswith("picture")])
def test_pictures_to_predict(cli, trained, tmp_path, name):
    """The one picture of the second class is what lies; the good pictures beside it are predicted all the same."""
    root = hostile.data_source(name, tmp_path)
    result = cli("predict", trained, root / "cat", root / "dog")
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert result.err.startswith("error: ")
    assert result.out.count("\n") >= 6
