"""The README's blocks run, and what it shows is what comes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    out = capsys.readouterr().out
    assert names["run"].evaluate().accuracy > 0.95
    assert "use Linear(100, 10) or LazyLinear(10)" in out
    assert "(5, 4, 4, 3) (5, 1, 9, 7)" in out


@pytest.mark.slow
def test_console_block_shows_what_comes(tmp_path):
    """Commands succeed, and each shown line starts as a line of the real output does; figures may differ by machine."""
    from pellucid import data

    ds = data.load("digits")
    pixels = (ds.images[ds.splits.test[0], 0] * 15).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    for block in blocks("console"):
        for part in block.split("$ ")[1:]:
            command, *shown = part.strip().split("\n")
            arguments = [sys.executable, "-m", *shlex.split(command)]
            done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stderr
            heads = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
            for line in shown:
                assert line == "..." or line.split()[0] in heads, f"{command}: {line}"
