"""What several commands share: loading data and models with words for the user."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pellucid._types import Array
    from pellucid.data import Dataset
    from pellucid.model import Model


def say(message: str) -> None:
    """Print a line for the user."""
    print(message)


def note(message: str) -> None:
    """Print a remark to stderr, where it does not mix with results."""
    print(message, file=sys.stderr)


@contextmanager
def progress_bar(title: str, after: float = 1.0) -> Iterator[Callable[[int, int], None]]:
    """Give a function to call with (done, total); it draws a bar on a terminal once the work takes a while.

    Args:
        title: What is being done.
        after: Seconds before the bar appears.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    start = time.monotonic()
    with Progress(console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task(escape(title), visible=False)

        def update(done: int, total: int) -> None:
            if time.monotonic() - start > after:
                bar.update(task, completed=done, total=total or None, visible=True)
                bar.refresh()

        yield update


def load_data(source: str, divide: bool = True, **options: Any) -> Dataset:
    """Return a data set, saying what was left out.

    Args:
        source: A known name or a path.
        divide: Cut the parts that it does not bring along.
        **options: Of data.load, or of data.read where it is not divided.
    """
    from pellucid.data.sources import load, read

    with progress_bar("reading images") as progress:
        ds = (load if divide else read)(source, progress=progress, notes=note, **options)
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


def recorded_split(path: str, model: Model, ds: Dataset) -> Dataset | None:
    """Return a data set divided as a run's was, or None where they are not the run's data, or path is no run.

    Args:
        path: Of the model.
        model: The model.
        ds: The data.
    """
    from pellucid.training.run_directory import RunDirectory

    folder = Path(path)
    if folder.is_dir() and (folder / "splits.json").exists() and ds.digest() == model.data_digest:
        return RunDirectory(folder).recorded_splits(ds)
    return None


def write_seen(
    folder: Path,
    names: Sequence[str],
    images: Sequence[Array] | Array,
    value_range: tuple[float, float],
    labels: Sequence[str] | None = None,
) -> None:
    """Write what the network saw as PNG files, numbered so that equal names do not collide.

    With labels each class gets a folder of its own: a data set.
    """
    import io

    from PIL import Image

    from pellucid.errors import DataError
    from pellucid.files import make_folder, write_atomic
    from pellucid.report.plots import show

    for label in set(labels or ()):
        if label in (".", "..") or Path(label).name != label or not label.isprintable():
            raise DataError(f"cannot make a folder for the class {label!r}: its name is no file name")
    for label in set(labels or ("",)):
        make_folder(folder / label)
    with progress_bar("writing images") as progress:
        for number, (name, image) in enumerate(zip(names, images, strict=True)):
            progress(number, len(names))
            buffer = io.BytesIO()
            Image.fromarray((show(image, value_range) * 255).round().astype("uint8")).save(buffer, format="PNG")
            into = folder / (labels[number] if labels is not None else "")
            write_atomic(into / f"{number:03d}-{Path(name).stem[:100]}.png", buffer.getvalue())
