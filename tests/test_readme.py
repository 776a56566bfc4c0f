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


def masked(text):
    """The text with # for each number and digest, which may differ by machine."""
    return re.sub(r"\b[0-9a-f]{64}\b|\d+(?:[.,]\d+)*%?", "#", text.strip())


@pytest.mark.slow
def test_console_block_shows_what_comes(tmp_path):
    """Commands succeed, and what is shown comes, line by line but for figures; ... stands for any lines."""
    from pellucid import data

    ds = data.load("digits")
    pixels = (ds.images[ds.splits.test[0], 0] * 15).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    for block in blocks("console"):
        for part in block.split("$ ")[1:]:
            command, _, shown = part.strip().partition("\n")
            arguments = [sys.executable, "-m", *shlex.split(command)]
            done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stderr
            pattern = re.escape(masked(shown)).replace(re.escape("..."), ".*")
            assert re.fullmatch(pattern, masked(done.stdout), re.DOTALL), f"{command}\n{done.stdout}"
