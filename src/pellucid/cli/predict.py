"""pellucid predict: what a model sees in image files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli.app import app, fail, shown
from pellucid.cli.common import load_model, say, write_seen

if TYPE_CHECKING:
    from pellucid.errors import PellucidError

EPILOG = """[bold]Examples[/bold]

pellucid predict runs/digits-1 photo.png

pellucid predict runs/m/model.safetensors scans/ --top 3 --json
"""


@app.command(epilog=EPILOG)
def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run directory or a model file.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name for each image.")] = 1,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    save_seen: Annotated[Path | None, typer.Option(help="Write what the network saw into this folder.")] = None,
) -> None:
    """Predict the class of image files.

    A file that cannot be read does not keep the others from being done; the exit
    code is then 1. For a model of digits the figure is found in the photo; which
    of the two is dark is printed, and --save-seen shows what came of it.
    """
    import numpy as np

    from pellucid.data.images import open_image, printable
    from pellucid.errors import PellucidError

    loaded = load_model(model)
    rows: list[dict[str, Any]] = []
    seen: list[Any] = []
    for file, problem in _files(images):
        try:
            if problem is not None:
                raise problem
            prepared = loaded.input.prepare(open_image(file))
            seen.append(loaded.input.raw(prepared.image))
            found = {"polarity": prepared.polarity} if prepared.polarity else {}
            rows.append({"file": printable(file), **found})
        except PellucidError as error:
            rows.append({"file": printable(file), "error": str(error)})
        except OSError as error:
            reason = f"cannot read image {printable(file)}: {error.strerror or error}"
            rows.append({"file": printable(file), "error": reason})
    good = [row for row in rows if "error" not in row]
    if good:
        prediction = loaded.predict_prepared(np.stack(seen))
        for row, index, p, unsure in zip(
            good, prediction.indices, prediction.probabilities, prediction.unsure, strict=True
        ):
            best = np.argsort(-p, kind="stable")[:top]
            row["label"] = loaded.classes[index]
            row["probability"] = float(p[index])
            row["top"] = [[loaded.classes[i], float(p[i])] for i in best]
            row["unsure"] = unsure
            if "polarity" in row:  # after what every row has
                row["polarity"] = row.pop("polarity")
    if json_:
        say(json.dumps(rows, allow_nan=False))
    for row in rows:
        if "error" in row:
            fail(row["error"])
        elif not json_:
            words = ", ".join(f"{label} {p:.1%}" for label, p in row["top"])
            which = f" ({row['polarity'].replace('-', ' ')})" if "polarity" in row else ""
            say(shown(f"{row['file']}: {words}{which}"))
            if row["unsure"]:
                say(f"  not sure: {row['unsure']}")
    if save_seen is not None:
        write_seen(save_seen, [row["file"] for row in good], seen, loaded.input.value_range)
    if len(good) < len(rows):
        raise typer.Exit(1)


def _files(images: list[str]) -> Iterator[tuple[str, PellucidError | None]]:
    """Yield each file, and for a folder the images below it; a folder that has none comes with an error."""
    from pellucid.data.images import printable
    from pellucid.data.listing import READ, walk
    from pellucid.errors import DataError

    for given in images:
        if not os.path.isdir(given):  # unlike Path.is_dir it takes any name
            yield given, None
            continue
        try:
            inside = sorted(file for file in walk(Path(given)) if file.suffix.lower() in READ)
        except DataError as error:
            yield given, error
            continue
        yield from ((str(file), None) for file in inside)
        if not inside:
            yield given, DataError(f"{printable(given)} is a folder without images (PNG, JPEG, BMP or GIF)")
