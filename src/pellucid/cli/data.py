"""pellucid data: what sets there are, bringing them here, and looking through one before training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli.app import app
from pellucid.cli.common import progress_bar

if TYPE_CHECKING:
    from pellucid.data import CheckReport


def _examples(*commands: str) -> str:
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(f"pellucid {command}" for command in commands)


data_app = typer.Typer(
    help="List, fetch and check data sets.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")

SHOWN = 10
"""Rows of a table; --json has them all."""


@data_app.command("list", epilog=_examples("data list"))
def list_() -> None:
    """List the known data sets, and where they lie on this machine.

    Every command also takes a folder with one folder of images for each class,
    a folder of IDX files, or an .npz file with images and labels.
    """
    from pellucid.data.registry import KNOWN, locate
    from pellucid.shapes import text

    rows, places = [], []
    for known in KNOWN.values():
        files = locate(known)
        if files is None:
            cure = 'pip install "pellucid[lessons]"' if known.package else f"pellucid data fetch {known.name}"
            where, place = "not here", f"to get {known.name}: {cure}"
        elif known.package and known.package[0] in files[0].parts:
            where, place = "bundled", ""
        else:
            where, place = "here", f"{known.name} is in {files[0] if files[0].is_dir() else files[0].parent}"
        count = f"{known.count:,}".replace(",", " ")
        rows.append((known.name, known.title, count, text(known.shape), str(len(known.classes)), where))
        places.append(place)
    _table("", ("name", "what", "images", "size", "classes", "where"), rows, right=(2, 4))
    for place in filter(None, places):
        _say(place)


@data_app.command(epilog=_examples("data fetch mnist", "data fetch mnist --from downloads/"))
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from: pellucid data list")],
    from_dir: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Take the files from this folder instead of downloading them."),
    ] = None,
) -> None:
    """Bring a known data set onto this machine.

    Files are known by their content, so any mirror's or torchvision's will do.
    """
    from pellucid.data import fetch as fetch_set

    with progress_bar(f"fetching {name}") as progress:
        folder = fetch_set(name, from_dir=from_dir, progress=progress)
    _say(f"{name} is in {folder}")


@data_app.command(epilog=_examples("data check photos/", "data check photos/ --json"))
def check(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A known name, a folder or an .npz file.")],
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document with every finding.")] = False,
) -> None:
    """Look through a data set before training; nothing is changed.

    Lists every unreadable file with its reason, equal images in different
    classes or parts, and how many images each class has.
    """
    from pellucid.data import check as check_set

    with progress_bar(f"checking {path}") as progress:
        report = check_set(path, progress=progress)
    if json_:
        import json

        typer.echo(json.dumps(report.to_dict(), indent=2, allow_nan=False))
    else:
        _show(report)


def _show(report: CheckReport) -> None:
    parts = list(report.balance)
    _say(f"{report.source}: {report.images} images, {len(report.classes)} classes, {_sizes(report.sizes)}")
    for problem in report.problems:
        _say(f"[bold red]cannot be loaded:[/] {_plain(problem)}", markup=True)
    _files(
        "unreadable files, left out in training", [(s.file, s.reason) for s in report.unreadable], ("file", "reason")
    )
    _files("equal images in different parts: the score would be flattered", report.across_parts, ("image", "equal to"))
    _files("equal images in different classes: one label is wrong", report.across_classes, ("image", "equal to"))
    _files("suspects: images that look alike", report.suspects, ("image", "looks like"))
    if report.inside:
        leak = "; a split would put some of them into training and test" if parts == ["train"] else ""
        _say(f"further copies of an image in the same class and part: {report.inside}{leak}")
    if report.ignored:
        more = f" and {len(report.ignored) - 3} more" if len(report.ignored) > 3 else ""
        _say(f"ignored, because they are no images: {', '.join(report.ignored[:3])}{more}")
    titles = ("class", *(parts if parts != ["train"] else ["images"]))
    rows = [(_plain(name), *(str(report.balance[part][name]) for part in parts)) for name in report.classes if parts]
    _table("balance", titles, rows, right=range(1, len(titles)))
    if not (report.problems or report.unreadable or report.across_parts or report.across_classes):
        _say("no unreadable files, no equal images across parts or classes")


def _sizes(sizes: dict[str, int]) -> str:
    if len(sizes) == 1:
        return f"all {next(iter(sizes))}"
    most = ", ".join(f"{size} ({n})" for size, n in list(sizes.items())[:3])
    return f"{len(sizes)} sizes, mostly {most}" if sizes else "none readable"


def _files(title: str, rows: Sequence[tuple[str, str]], columns: tuple[str, str]) -> None:
    if rows:
        cells = [(_plain(a), _plain(b)) for a, b in rows[:SHOWN]]
        _table(f"{title} ({len(rows)})", columns, cells)
        if len(rows) > SHOWN:
            _say(f"... and {len(rows) - SHOWN} more; --json lists them all")


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    if title:
        _say(f"\n[bold]{_plain(title)}[/]", markup=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i in right else "left", overflow="fold", no_wrap=i in right)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)


def _say(line: str, **options: Any) -> None:
    from rich.console import Console

    Console(highlight=False, soft_wrap=True).print(line, **{"markup": False, **options})


def _plain(text: str) -> str:
    """Return text whose brackets are not taken for rich's markup."""
    from rich.markup import escape

    return escape(text)
