"""docs/capabilities.md: complete, known ids only, and as the tests say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COUNTS = {"A": 15, "B": 26, "C": 14, "D": 20, "E": 10, "F": 13, "G": 7, "H": 42}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("capabilities", ROOT / "scripts" / "capabilities.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_up_to_date(script):
    text = script.page(script.titles(), script.collect(), script.partial())
    message = "docs/capabilities.md is stale; run: python scripts/capabilities.py"
    assert script.PAGE.read_text(encoding="utf-8") == text, message


def test_ids_are_complete(script):
    expected = [f"{letter}{i}" for letter, n in COUNTS.items() for i in range(1, n + 1)]
    assert script.known_ids(script.titles()) == expected


def test_titles_are_short_and_different(script):
    rows = [title for group in script.titles().values() for title in group.values()]
    assert len(set(rows)) == len(rows)
    assert all(4 <= len(title) <= 90 and "|" not in title and not title.endswith(".") for title in rows)


def test_every_marker_names_a_known_id(script):
    known = set(script.known_ids(script.titles()))
    assert set(script.collect()) <= known


EXAMPLE = """
import pytest
pytestmark = [pytest.mark.capability("A1"), pytest.mark.slow]
@pytest.mark.capability("B1", "B2")
def test_function(): ...
@pytest.mark.capability("C1")
class TestClass:
    pytestmark = pytest.mark.capability("C2")
    @pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.capability("D1"))])
    def test_method(self, x): ...
@pytest.mark.slow
def test_unmarked(): ...
"""


def test_markers_are_found_wherever_they_stand(script):
    assert sorted(script.tests_in(EXAMPLE)) == [
        ("A1", ""),
        ("B1", "test_function"),
        ("B2", "test_function"),
        ("C1", "TestClass"),
        ("C2", "TestClass"),
        ("D1", "TestClass::test_method"),
    ]


def test_page_names_tests_and_what_is_missing(script, tmp_path):
    (tmp_path / "nn").mkdir()
    (tmp_path / "nn" / "test_x.py").write_text(EXAMPLE)
    found = script.collect(tmp_path)
    groups = {"B": {"title": "Layers", "B1": "First", "B9": "Last"}}
    with pytest.raises(SystemExit, match=r"unknown ids: A1 in nn/test_x\.py"):
        script.page(groups, found, {})
    text = script.page(groups, {"B1": found["B1"]}, {"B1": "the rest", "B9": "all of it"})
    first = "| B1 | First<br>*in part; not built yet: the rest* | `nn/test_x.py::test_function` |\n"
    assert first + "| B9 | Last | not built yet |\n" in text
    assert "1 of 2 have tests, 1 of them in part." in text


def test_ids_must_be_plain_strings(script):
    with pytest.raises(SystemExit, match="plain strings"):
        list(script.tests_in("import pytest\npytestmark = pytest.mark.capability(NAME)\n"))
