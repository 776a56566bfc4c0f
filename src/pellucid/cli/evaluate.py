"""pellucid evaluate: how well a model does on a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli.app import app, shown
from pellucid.cli.common import load_data, load_model, note, recorded_split, say, write_seen

if TYPE_CHECKING:
    from pellucid.metrics import Evaluation

EPILOG = """[bold]Examples[/bold]

pellucid evaluate runs/digits-1 digits

pellucid evaluate runs/m mnist --split val --json

pellucid evaluate runs/m my-digits --save-seen my-set
"""


@app.command(epilog=EPILOG)
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run directory or a model file.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="A known name, a folder, IDX files, or an .npz file.")],
    split: Annotated[str | None, typer.Option(help="train, val, test or all.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    save_seen: Annotated[
        Path | None, typer.Option(help="Write what the network saw here, in a folder for each class: a data set.")
    ] = None,
) -> None:
    """Evaluate a model: loss, accuracy, recall and precision of each class, confusion matrix.

    Of an autoencoder: the mean squared error of its reconstructions, of images scaled to 0 to 1.

    For a run directory and the run's own data, the recorded split counts (the test part, if not said otherwise);
    other data are used whole. DATA may also be a folder of pictures whose names
    begin with their class, as your own digits: 7.png, 7-b.jpg. A model of digits
    finds the figures in photos. Up to 20 images are listed one by one.
    """
    from pellucid.metrics import finite
    from pellucid.training import default_part, reconstruction_errors
    from pellucid.training import evaluate as measure

    loaded = load_model(model)
    channels, height, width = loaded.input.shape
    given: dict[str, Any] = {"size": (height, width), "channels": channels, "classes": loaded.classes}
    if loaded.input.preparation == "digit":
        given["prepare"] = lambda picture: loaded.input.prepare(picture).image
    ds = load_data(data, divide=False, **given)
    if not loaded.classes:
        ds = ds.reconstruction()
    recorded = recorded_split(model, loaded, ds)
    if recorded is not None:
        ds = recorded
    part = split or ("all" if recorded is None else default_part(ds))
    if loaded.classes:
        result = measure(loaded, ds, part)
    else:
        errors = reconstruction_errors(loaded, ds, part)
    if save_seen is not None:
        which = ds.indices(part)
        labels = [loaded.classes[k] for k in ds.targets[which]] if loaded.classes else None
        write_seen(save_seen, [str(ds.ids[i]) for i in which], ds.images[which], ds.value_range, labels)
    if not loaded.classes:
        words = f"mean squared error {errors.mean():.5f}, {len(errors)} images ({_whose(part)})"
        say(json.dumps({"mse": finite(errors.mean()), "n": len(errors)}) if json_ else words)
    elif json_:
        say(json.dumps(result.to_dict(), allow_nan=False))
    else:
        _print(result, part)


def _whose(part: str) -> str:
    return "all" if part == "all" else f"{part} part"


def _print(result: Evaluation, part: str) -> None:
    say(f"accuracy {result.accuracy:.4f}, loss {result.loss:.4f}, {result.n} images ({_whose(part)})")
    width = max(5, *map(len, result.labels))
    say(f"{'class':<{width}}  recall  precision  images")
    for label, images in zip(result.labels, result.confusion.sum(axis=1).tolist(), strict=True):
        recall, precision = result.recall[label], result.precision[label]
        cells = [f"{value:.4f}" if value == value else "-" for value in (recall, precision)]
        say(f"{label:<{width}}  {cells[0]:>6}  {cells[1]:>9}  {images:>6}")
    if len(result.labels) <= 12 and width <= 12:
        say("confusion (rows true, columns predicted)")
        cell = max(4, width, len(str(int(result.confusion.max()))))
        for label, row in zip(result.labels, result.confusion.tolist(), strict=True):
            say(f"{label:<{width}}" + "".join(f" {count or '.':>{min(cell, 5)}}" for count in row))
    else:
        note("the confusion matrix is too wide for the terminal; use --json")
    if result.n <= 20:
        _list(result)


def _list(result: Evaluation) -> None:
    """Print a line for each image: what it is, and what it was taken for."""
    names = [shown(str(identity)) for identity in result.ids]
    long = max(5, *map(len, names))
    say(f"{'image':<{long}}  true  read as")
    sureness = result.probabilities.max(axis=1)
    for name, true, read, p in zip(names, result.true, result.predicted, sureness, strict=True):
        wrong = "" if true == read else "  wrong"
        say(f"{name:<{long}}  {result.labels[true]:<4}  {result.labels[read]} {p:.1%}{wrong}")
