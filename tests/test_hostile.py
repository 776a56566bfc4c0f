"""Hostile files run no code, load nothing silently and end in one line, under python -O too; see hostile.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hostile

pytestmark = pytest.mark.capability("H23", "H7")

TESTS = Path(__file__).parent


@pytest.fixture(scope="module", params=["", "-O"])
def watched(request, tmp_path_factory):
    """What happened in a process that loaded every hostile file."""
    folder = tmp_path_factory.mktemp("watched")
    paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, hostile.CANARY: str(folder / "canary")}
    (folder / "files").mkdir()
    command = [sys.executable, *filter(None, [request.param]), "-W", "error", str(TESTS / "watched.py")]
    done = subprocess.run([*command, str(folder / "files")], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert result["optimized"] == (request.param == "-O")
    return result


def test_each_is_refused_by_name(watched):
    assert len(watched["outcomes"]) == len(hostile.MODELS) + len(hostile.DATA)
    assert {name: how for name, how in watched["outcomes"].items() if how != "refused"} == {}


def test_none_runs_code_imports_or_opens_another_file(watched):
    assert watched["events"] == []
    assert not watched["code_ran"]


def test_code_that_ran_would_have_been_seen(watched):
    assert {"exec", "compile", "pickle.find_class", "open"} <= set(watched["caught"])
    assert watched["canary_works"]


def test_there_are_many_kinds():
    assert len(hostile.DATA) >= 40
    kinds = {name.split(":")[0] for name in hostile.DATA}
    assert kinds == {"IDX", "npz", "picture", "CIFAR-10"}


def test_what_makes_lying_data_makes_good_data_too(tmp_path):
    """Else all of them might be refused for one and the same mistake in making them."""
    from pellucid.data.sources import read

    good = hostile.idx("", b""), hostile.archive(), hostile.photos(hostile.encoded("PNG")), hostile.cifar(bytes)
    for number, make in enumerate(good):
        (tmp_path / str(number)).mkdir()
        assert len(read(make(tmp_path / str(number))))
