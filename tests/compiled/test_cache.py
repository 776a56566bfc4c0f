"""Kernels are compiled once per machine: whatever the cache folder is like, predictions come."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import numpy as np
from pellucid import engines, nn
net = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2), input_shape=(1, 4, 5))
engine = engines.create("compiled")
engine.build(net, threads=1)
x = np.linspace(-1, 1, 60, dtype=np.float32).reshape(3, 1, 4, 5)
assert np.abs(engine.predict(x) - net(x)).max() < 1e-5
print(engine.predict(x).tobytes().hex())
"""


def start(cache: Path | str) -> subprocess.Popen[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(cache: Path | str) -> tuple[str, str]:
    process = start(cache)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out, err


pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the cache folder is named by XDG_CACHE_HOME on Linux"),
    pytest.mark.xdist_group("kernel cache"),
    pytest.mark.capability("H38"),
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    out, err = run(cache)
    assert "once on this machine" in err
    return cache, out


def files(cache: Path) -> list[Path]:
    found = sorted(cache.glob("pellucid/kernels/*/*"))
    assert found
    return found


def test_the_second_process_compiles_nothing(filled):
    cache, out = filled
    before = {file: file.stat().st_mtime_ns for file in files(cache)}
    assert run(cache) == (out, "")
    assert {file: file.stat().st_mtime_ns for file in files(cache)} == before


@pytest.mark.parametrize("damage", ["code cut short", "code gone", "index is nonsense"])
def test_a_damaged_cache_is_made_anew(filled, tmp_path, damage):
    cache, out = filled
    for file in files(cache):
        copy = tmp_path / file.relative_to(cache)
        copy.parent.mkdir(parents=True, exist_ok=True)
        content = file.read_bytes()
        if damage == "index is nonsense" and file.suffix == ".nbi":
            content = b"nonsense"
        if damage == "code cut short" and file.suffix == ".nbc":
            content = content[:100]
        if not (damage == "code gone" and file.suffix == ".nbc"):
            copy.write_bytes(content)
    assert run(tmp_path)[0] == out
    sizes = {file.name: file.stat().st_size for file in files(tmp_path)}
    assert sizes.keys() == {file.name for file in files(cache)}
    assert all(size > 200 for size in sizes.values())
    assert run(tmp_path) == (out, "")


def test_without_a_writable_folder(filled):
    out, err = run("/dev/null/cache")
    assert out == filled[1]
    assert "once on this machine" in err


def test_two_processes_at_once(filled, tmp_path):
    both = [start(tmp_path), start(tmp_path)]
    for process in both:
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert out == filled[1]
    assert run(tmp_path) == (filled[1], "")


def test_folders_of_other_versions_fade_away(filled, tmp_path):
    old, recent = (tmp_path / "pellucid" / "kernels" / name for name in ("old", "recent"))
    for folder in (old, recent):
        folder.mkdir(parents=True)
        (folder / "kernel.nbi").touch()
    os.utime(old, (0, 0))
    assert run(tmp_path)[0] == filled[1]
    assert not old.exists()
    assert recent.exists()
