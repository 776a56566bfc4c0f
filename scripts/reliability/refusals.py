"""How hostile files end: model files, data sets, flipped bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

TESTS = Path(__file__).resolve().parents[2] / "tests"
FLIPS = 2000


def watched(optimize: bool) -> dict[str, dict[str, str] | list[str] | bool]:
    """Load every hostile file in a process that is watched.

    Args:
        optimize: With python -O.
    """
    with TemporaryDirectory() as folder:
        files = Path(folder) / "files"
        files.mkdir()
        paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        canary = {"PYTHONPATH": os.pathsep.join(paths), "PELLUCID_CANARY": str(Path(folder) / "canary")}
        command = [
            sys.executable,
            *(["-O"] if optimize else []),
            str(TESTS / "watched.py"),
            str(files),
        ]
        done = subprocess.run(command, env={**os.environ, **canary}, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def flips() -> tuple[int, int]:
    """Flip single bits of a model file; return how many were tried, and how many were noticed."""
    sys.path.insert(0, str(TESTS))
    import hostile as files
    import pellucid as pl

    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        files.model().save(path)
        content = path.read_bytes()
        bits = {*Random(0).sample(range(8 * len(content)), FLIPS), *range(8 * 1024)}
        noticed = 0
        for bit in bits:
            wrong = bytearray(content)
            wrong[bit // 8] ^= 1 << bit % 8
            path.write_bytes(wrong)
            try:
                pl.load(path)
            except pl.FileError:
                noticed += 1
    return len(bits), noticed


def measure() -> tuple[dict[str, str], list[str]]:
    """Return the page's table, and what went wrong."""
    rows, wrong, events = [], [], 0
    for optimize in (False, True):
        result = watched(optimize)
        outcomes = result["outcomes"]
        for kind, of_kind in (("model files", True), ("data sets", False)):
            ends = {name: end for name, end in outcomes.items() if name.startswith("model: ") == of_kind}
            refused = sum(end == "refused" for end in ends.values())
            silent = sum(end == "loaded silently" for end in ends.values())
            traces = sum(end.startswith("traceback") for end in ends.values())
            name = f"hostile {kind}{', under `python -O`' if optimize else ''}"
            rows.append(f"| {name} | {len(ends)} | {refused} | {silent} | {traces} |")
            wrong += [f"{name}: {end}" for name, end in ends.items() if end != "refused"]
        events += len(result["events"]) + result["code_ran"]
        wrong += [*result["events"], *(["code ran"] if result["code_ran"] else [])]
    tried, noticed = flips()
    rows.append(f"| model file with one flipped bit | {tried} | {noticed} | {tried - noticed} | 0 |")
    wrong += [f"{tried - noticed} flipped bits were not noticed"] * (noticed < tried)
    head = "| | tried | refused by name | loaded silently | tracebacks |\n|---|---|---|---|---|"
    last = f"Code that ran, imports, processes, other files opened: {events or 'none'}."
    return {"refusals": "\n".join([head, *rows, "", last])}, wrong
