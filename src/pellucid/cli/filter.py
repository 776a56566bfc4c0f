"""pellucid filter: a kernel on a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.app import app
from pellucid.cli.common import say

EPILOG = """[bold]Kernels[/bold]

identity, box, gaussian-3, gaussian-5, sharpen, unsharp, edges, ridge,
vertical-lines, horizontal-lines, vertical-edges, horizontal-edges, sobel-x,
sobel-y, prewitt-x, prewitt-y, emboss

[bold]Examples[/bold]

pellucid filter photo.jpg --kernel sobel-x

pellucid filter photo.jpg --kernel my-kernel.txt --equalize --out edges.png

pellucid filter photo.jpg --kernel all
"""


@app.command("filter", epilog=EPILOG)
def filter_(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture.")],
    kernel: Annotated[str, typer.Option("--kernel", help="A name, all, or a text file with a row on each line.")],
    out: Annotated[Path | None, typer.Option(help="A .png file. [default: IMAGE-KERNEL.png, here]")] = None,
    equalize: Annotated[bool, typer.Option("--equalize", help="Make the contrast even afterwards.")] = False,
) -> None:
    """Apply a kernel to a picture in gray, and write the result.

    Kernels are applied as they are written, without rotation. Of kernels that
    find edges middle gray is 0, white the strongest rise, black the strongest
    fall. With --kernel all the file is a sheet of all kernels.
    """
    import numpy as np
    from PIL import Image

    from pellucid import filters
    from pellucid.errors import OptionError
    from pellucid.files import write_atomic

    out = out or Path(f"{image.stem}-{Path(kernel).stem}.png")
    if out.suffix.lower() != ".png":
        raise OptionError(f"--out must end in .png, got {out}")
    chosen = None if kernel == "all" else filters.kernel(kernel)
    gray = filters.read_gray(image)
    if chosen is None:
        from pellucid.report.plots import kernel_sheet, to_png

        write_atomic(out, to_png(kernel_sheet(gray, equalize)))
    else:
        picture = filters.to_unit(filters.apply(gray, chosen), chosen)
        picture = filters.equalize(picture) if equalize else picture
        buffer = io.BytesIO()
        Image.fromarray(np.round(picture * 255).astype(np.uint8)).save(buffer, "PNG")
        write_atomic(out, buffer.getvalue())
    say(f"wrote {out}")
