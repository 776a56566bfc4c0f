"""pellucid export: a model for others to run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.app import app
from pellucid.cli.common import load_model, say

EPILOG = """[bold]Formats[/bold]

onnx      a graph that ONNX Runtime and many others run

torch     FILE.py, plain torch.nn without pellucid, and FILE.safetensors

[bold]Examples[/bold]

pellucid export runs/digits-1 --to onnx

pellucid export runs/digits-1 --to onnx --preprocessing --out digits.onnx

pellucid predict digits.onnx photo.png

pellucid export runs/digits-1 --to torch --out digits.py
"""


@app.command(epilog=EPILOG)
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run directory or a model file.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="onnx or torch.")],
    out: Annotated[Path | None, typer.Option(help="The file; else MODEL.onnx or MODEL.py, here.")] = None,
    preprocessing: Annotated[
        bool,
        typer.Option("--preprocessing", help="ONNX: raw images in, probabilities out; else canonical, logits."),
    ] = False,
) -> None:
    """Write a model in another format, if it gives the same numbers there.

    Input spec and class names go along. What ONNX Runtime or PyTorch makes of
    random images is compared with pellucid's outputs; where they differ by more
    than 1e-5 of the largest, nothing is written.
    """
    from pellucid.errors import unknown

    if to not in _FORMATS:
        raise unknown("format", to, _FORMATS)
    _FORMATS[to](model, out, preprocessing)


def _onnx(model: str, out: Path | None, preprocessing: bool) -> None:
    from pellucid import interop

    out = out or Path(f"{_stem(model)}.onnx")
    done = interop.export_onnx(load_model(model), out, preprocessing=preprocessing)
    say(f"wrote {done.path} ({done.size} bytes); largest difference {done.difference:.1e} of the largest output")


def _torch(model: str, out: Path | None, preprocessing: bool) -> None:
    from pellucid import interop
    from pellucid.errors import OptionError

    if preprocessing:
        raise OptionError("--preprocessing is for --to onnx; the file of --to torch has a function preprocess")
    done = interop.export_torch(load_model(model), out or Path(f"{_stem(model)}.py"))
    say(f"wrote {done.code} and {done.weights}; largest difference {done.difference:.1e} of the largest output")


_FORMATS = {"onnx": _onnx, "torch": _torch}


def _stem(model: str) -> str:
    """Return the name of a run directory, or of a model file without its ending."""
    path = Path(model).resolve()
    return path.name if path.is_dir() else path.stem
