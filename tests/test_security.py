"""SECURITY.md: each promise names a test, and that test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import hostile

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
PROMISES = re.findall(r"^\| (.+) \| (`tests/.+`) \|$", PAGE, re.MULTILINE)


def functions_in(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def test_each_promise_names_tests_that_are_there():
    rows = PAGE.split("| promise | held by |")[1].split("\n\n")[0].count("\n") - 1
    assert len(PROMISES) == rows >= 10
    for promise, named in PROMISES:
        for test in named.split(", "):
            path, name = re.fullmatch(r"`(tests/[\w/]+\.py)::(test_\w+)`", test).groups()
            assert name in functions_in(ROOT / path), f"{promise}: there is no {test}"


def test_the_counts_are_right():
    models, data = (int(number) for number in re.findall(r"^\| (\d+) kinds", PAGE, re.MULTILINE))
    assert models <= len(hostile.MODELS) < models + 10
    assert data <= len(hostile.DATA) < data + 10
