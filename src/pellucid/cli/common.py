"""What several commands share: loading data and models with words for the user."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from pellucid.data import Dataset
    from pellucid.model import Model


def say(message: str) -> None:
    """Print a line for the user."""
    print(message)


def note(message: str) -> None:
    """Print a remark to stderr, where it does not mix with results."""
    print(message, file=sys.stderr)


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a progress function for a live bar on stderr; None where that is no terminal.

    Args:
        title: What is being done.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def load_data(source: str, **options: Any) -> Dataset:
    """Return a data set, saying what was left out.

    Args:
        source: A known name or a path.
        **options: Of data.load.
    """
    from pellucid import data

    with bar("reading images") as progress:
        ds = data.load(source, progress=progress, notes=note, **options)
    report_skipped(ds)
    return ds


def report_skipped(ds: Dataset) -> None:
    """Name the files that could not be used, the first ten of them."""
    for bad in ds.skipped[:10]:
        note(f"skipped {bad.file}: {bad.reason}")
    if len(ds.skipped) > 10:
        note(f"... and {len(ds.skipped) - 10} more; pellucid data check lists them all")


def load_model(path: str) -> Model:
    """Return the model of a file or run directory.

    Args:
        path: Where.
    """
    from pellucid import load
    from pellucid.errors import FileError

    if not Path(path).exists():
        raise FileError(f"there is no model {path}; pellucid train writes one into its run directory")
    return load(path)
