"""Naming what is wrong with a training: losses that are not finite, and losses that do not move."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from pellucid._types import Array
from pellucid.nn import Layer, ReLU, Sequential
from pellucid.nn.layer import join


def outputs(network: Layer, x: Array, path: str = "") -> Iterator[tuple[str, Layer, Array]]:
    """Yield (path, layer, output) of each layer for inference; a residual block counts as one layer.

    Args:
        network: A built network.
        x: Canonical input, (N, C, H, W).
        path: Of the network itself.
    """
    if not isinstance(network, Sequential):
        yield path, network, network(x)
        return
    for name, layer in network.children():
        y = x
        for inner, part, y in outputs(layer, x, join(path, name)):
            yield inner, part, y
        x = y


def not_finite(network: Layer, x: Array, loss: float, where: str, lr: float) -> str:
    """Return what to say of a loss that is not finite: where it came from and what to try.

    Args:
        network: As it was before the step.
        x: The batch, canonical.
        loss: NaN or infinite.
        where: Step and epoch, in words, and what became of the step.
        lr: Learning rate that the optimizer was given.
    """
    source = "in the loss itself"
    with np.errstate(all="ignore"):
        if not np.isfinite(x).all():
            source = "in the images: they hold NaN or infinity"
        else:
            for path, layer, y in outputs(network, x):
                if not np.isfinite(y).all():
                    source = f"in the output of layer {path} ({type(layer).__name__})"
                    break
    return (
        f"the loss became {loss} at {where}, first {source}. "
        f"Try a lower learning rate ({lr / 10:.3g} instead of {lr:.3g}), clipping (clip_norm=1), or check the data"
    )


def stuck(network: Layer, x: Array, loss: float, num_classes: int, lr: float, steps: int) -> str | None:
    """Return what to say of an epoch whose loss stayed at that of guessing, or None where it did not.

    A network that gives every class the same probability has the loss ln K. Named is the ReLU that gives 0 for every
    image, since nothing before it can learn any more.

    Args:
        network: After the epoch.
        x: Some canonical images.
        loss: Mean over validation, or over the epoch where there is none.
        num_classes: K.
        lr: Learning rate that the optimizer was given.
        steps: Steps of the epoch.
    """
    chance = math.log(num_classes)
    if not (0.98 * chance <= loss <= 1.1 * chance):
        return None
    dead = None
    with np.errstate(all="ignore"):
        for path, layer, y in outputs(network, x):
            if isinstance(layer, ReLU) and not y.any():
                dead = f"layer {path} (ReLU) gives 0 for every image, so no layer before it can learn any more"
                break
    if dead is None and steps < 100:
        return None
    reason = dead or "no layer is dead, the network only guesses"
    return (
        f"the loss is stuck at {loss:.3f}, which is ln({num_classes}) = {chance:.3f}, the loss of guessing: {reason}. "
        f"Try a lower learning rate ({lr / 10:.3g} instead of {lr:.3g}), another seed, or more filters"
    )
