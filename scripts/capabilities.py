"""Write docs/capabilities.md: which tests hold which capability.

Titles come from docs/capabilities.toml, tests from the `@pytest.mark.capability("X1", ...)` markers below
tests/, read without running them. With --check nothing is written, and a stale file is an error.
"""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TITLES = ROOT / "docs" / "capabilities.toml"
PAGE = ROOT / "docs" / "capabilities.md"
SHOWN = 3

Groups = dict[str, dict[str, str]]


def titles(path: Path = TITLES) -> Groups:
    """Return group letter -> {"title": ..., id: title}."""
    groups: Groups = tomllib.loads(path.read_text(encoding="utf-8"))
    groups.pop("partial")
    return groups


def partial(path: Path = TITLES) -> dict[str, str]:
    """Return id -> what is still missing of it, for capabilities that are built in part."""
    missing: dict[str, str] = tomllib.loads(path.read_text(encoding="utf-8"))["partial"]
    return missing


def known_ids(groups: Groups) -> list[str]:
    """Return all ids, in the order of the file."""
    return [key for rows in groups.values() for key in rows if key != "title"]


def marked(node: ast.AST) -> Iterator[str]:
    """Yield the ids of all capability markers in an expression, those inside pytest.param included."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.capability":
            for argument in call.args:
                if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
                    raise SystemExit(f"line {call.lineno}: a capability marker takes ids as plain strings")
                yield argument.value


def tests_in(source: str) -> Iterator[tuple[str, str]]:
    """Yield (id, name of the test or class), the name "" where the marker is the whole file's."""

    def visit(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, str]]:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = f"{prefix}{node.name}"
                for decorator in node.decorator_list:
                    for key in marked(decorator):
                        yield key, name
                if isinstance(node, ast.ClassDef):
                    yield from visit(node.body, f"{name}::")
            elif isinstance(node, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets
            ):
                for key in marked(node.value):
                    yield key, prefix.removesuffix("::")

    yield from visit(ast.parse(source).body, "")


def collect(tests: Path = ROOT / "tests") -> dict[str, dict[str, list[str]]]:
    """Return id -> {path below tests: names}, sorted."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in sorted(tests.rglob("*.py")):
        for key, name in tests_in(path.read_text(encoding="utf-8")):
            found[key][path.relative_to(tests).as_posix()].add(name)
    return {key: {path: sorted(names) for path, names in sorted(files.items())} for key, files in sorted(found.items())}


def short(files: dict[str, list[str]]) -> str:
    """Return the tests of one capability as one table cell; the first few of each file are named."""
    cells = []
    for path, names in files.items():
        if "" in names:
            cells.append(f"`{path}`")
            continue
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        cells.append(", ".join(f"`{path}::{name}`" for name in names[:SHOWN]) + more)
    return "<br>".join(cells) or "not built yet"


def page(groups: Groups, tests: dict[str, dict[str, list[str]]], missing: dict[str, str]) -> str:
    """Return the Markdown page."""
    ids = known_ids(groups)
    unknown = sorted({*tests, *missing} - set(ids))
    if unknown:
        where = ", ".join(f"{key} in {next(iter(tests[key]))}" for key in unknown)
        raise SystemExit(f"capability markers with unknown ids: {where}; known ids are in docs/capabilities.toml")
    lines = [
        "# Capabilities",
        "",
        "What pellucid is to do, and the tests (below `tests/`) that hold it. Written by",
        "`scripts/capabilities.py` from `docs/capabilities.toml` and the tests' markers; do not edit.",
        "",
        f"{sum(key in tests for key in ids)} of {len(ids)} have tests, "
        f"{sum(key in tests and key in missing for key in ids)} of them in part.",
    ]
    for letter, rows in groups.items():
        lines += ["", f"## {letter}. {rows['title']}", "", "| id | capability | tests |", "|---|---|---|"]
        for key, title in rows.items():
            if key != "title":
                note = f"<br>*in part; not built yet: {missing[key]}*" if key in missing and key in tests else ""
                lines.append(f"| {key} | {title}{note} | {short(tests.get(key, {}))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description="Write docs/capabilities.md.")
    parser.add_argument("--check", action="store_true", help="fail where the file is stale; write nothing")
    check = parser.parse_args().check
    text = page(titles(), collect(), partial())
    if not check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit("docs/capabilities.md is stale; run: python scripts/capabilities.py")


if __name__ == "__main__":
    main()
