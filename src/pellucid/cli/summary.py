"""pellucid summary: a network layer by layer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.app import app
from pellucid.cli.common import load_model, say

EPILOG = """[bold]Models[/bold]

block_cnn, lesson1, lesson2, lesson3, lesson4, lenet5, mlp, resnet8, autoencoder, dense_autoencoder

[bold]Examples[/bold]

pellucid summary lesson2

pellucid summary resnet8 --input 3x32x32

pellucid summary runs/digits-1

pellucid summary lenet5 --program
"""


@app.command(epilog=EPILOG)
def summary(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A run directory, a model file, or the name of a model.")
    ],
    input_: Annotated[str | None, typer.Option("--input", help="CxHxW, for a name (1x28x28; resnet8 3x32x32).")] = None,
    program: Annotated[bool, typer.Option("--program", help="Show what the compiled engine makes of it.")] = False,
) -> None:
    """Show each layer's output shape, parameters, multiply-adds, memory, and how much of the image it sees.

    "sees" is the receptive field in pixels (height x width); "drops" are the
    rows x columns at the bottom and right that no window covers. --program
    shows stages, instructions with their kernels, and the memory of a frame;
    docs/ARCHITECTURE.md explains them.
    """
    from pellucid import models
    from pellucid.errors import OptionError
    from pellucid.summary import summarize

    if model not in (*models.NAMES, *models.AUTOENCODERS) and (
        Path(model).exists() or "/" in model or model.endswith(".safetensors")
    ):
        if input_ is not None:
            raise OptionError("--input is for names of models; a trained model knows its own input")
        network = load_model(model).network
    else:
        shape = input_ or ("3x32x32" if model == "resnet8" else "1x28x28")
        if not re.fullmatch(r"\d+x\d+x\d+", shape):
            raise OptionError(f"--input must be CHANNELSxHEIGHTxWIDTH such as 1x28x28, got {shape!r}")
        c, h, w = map(int, shape.split("x"))
        network = models.create(model, (c, h, w), 10)
    if program:
        from pellucid.compiled.engine import programs

        for title, made in zip(("training step", "prediction"), programs(network), strict=True):
            say(f"{title}: {made}")
        return
    say(str(summarize(network)))
