"""pellucid explain: pictures of what a model does with one image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.app import app, shown
from pellucid.cli.common import load_data, load_model, note, progress_bar, recorded_split, say

EPILOG = """[bold]Examples[/bold]

pellucid explain runs/digits-1 photo.png

pellucid explain runs/m photo.png --target 7 --data mnist --out explained
"""


@app.command(epilog=EPILOG)
def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run directory or a model file.")],
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="An image file.")],
    out: Annotated[Path | None, typer.Option(help="A folder; IMAGE-explained, here, if not said.")] = None,
    target: Annotated[str | None, typer.Option(help="The class to explain; the likeliest if not said.")] = None,
    data: Annotated[
        str | None, typer.Option(help="The model's data, for the nearest training images and a map of all.")
    ] = None,
) -> None:
    """Write pictures of what a model does with an image, and index.html, which shows and explains them.

    What each layer gives, what the filters have learned, how much of the
    image a cell sees, one number step by step, which pixels count, and images
    that excite filters. With --data also the nearest training images and maps
    of the images; of an autoencoder also images decoded from other numbers.
    Which images the model was trained on is known for a run directory and the
    run's own data; others are called images of DATA.
    """
    from pellucid.data.images import printable
    from pellucid.explain.page import write

    loaded = load_model(model)
    loaded.input.read(image)  # a bad image is said before data are read
    ds = recorded = None
    if data is not None:
        channels, height, width = loaded.input.shape
        ds = load_data(data, divide=False, size=(height, width), channels=channels)
        recorded = recorded_split(model, loaded, ds if loaded.classes else ds.reconstruction())
        if recorded is None:
            note(f"{printable(data)} is not known to be what the model was trained on; the page says so")
        else:
            ds = ds.with_splits(recorded.splits)
    folder = out or Path(f"{Path(image).stem[:100]}-explained")
    with progress_bar("explaining") as progress:
        page = write(loaded, image, folder, target, ds, printable(Path(image).name), progress, recorded is not None)
    say(shown(f"wrote {printable(page)}"))
