"""What a cell sees of the input, and which cells see a pixel; in theory, and on an image."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np

from pellucid._types import Array, Shape
from pellucid.explain.walk import INPUT, canonical, find, index, network_of, shapes, trace
from pellucid.model import Model
from pellucid.nn import Network
from pellucid.summary import View, receptive_fields


def receptive_field(model: Model | Network, layer: int | str, cell: object) -> tuple[slice, ...]:
    """Return the smallest box of the input that holds every pixel a cell can see: slices of (rows, columns).

    Padding is left out. With dilation or stride some pixels inside the box may not be seen.

    Args:
        model: A model, or a built network.
        layer: Its place.
        cell: (row, column) of its maps, or the number of an output without a place.

    Raises:
        OptionError: For a layer or cell that does not exist.

    >>> from pellucid import models
    >>> receptive_field(models.create("lesson2", (1, 28, 28), 10), 6, (1, 1))
    (slice(4, 22, None), slice(4, 22, None))
    """
    view, cells = _layer(network_of(model), layer)
    at = index(cells, cell, "cell")
    spans = [axis[i] for axis, i in zip(view, at if len(cells) == len(view) else at * len(view), strict=True)]
    return tuple(slice(start, stop) if start < stop else slice(0, 0) for start, stop in spans)


def cells_that_see(model: Model | Network, layer: int | str, pixel: object) -> Array:
    """Return which cells of a layer have a pixel in their receptive field: bool, (h, w), or (n,) without a place.

    Args:
        model: A model, or a built network.
        layer: Its place.
        pixel: (row, column) of the input.

    Raises:
        OptionError: For a layer or pixel that does not exist.

    >>> from pellucid import nn
    >>> net = nn.Sequential(nn.Conv2d(1, 1, 2), nn.MaxPool2d(2), input_shape=(1, 5, 7))
    >>> cells_that_see(net, 1, (0, 4))
    array([[False,  True,  True],
           [False, False, False]])
    """
    network = network_of(model)
    view, cells = _layer(network, layer)
    at = index(network.input_shape[1:], pixel, "pixel")
    hit = [np.array([start <= i < stop for start, stop in axis]) for axis, i in zip(view, at, strict=True)]
    return reduce(np.logical_and.outer if len(cells) == len(view) else np.logical_and, hit)


def effective_field(model: Model, image: object, layer: int | str, cell: object, channel: int | None = None) -> Array:
    """Return how strongly each pixel of this image moves a cell: |d cell / d input| summed over channels, (H, W).

    Usually much smaller than the box of receptive_field, and strongest in the middle (Luo et al.: Understanding the
    effective receptive field, 2016).

    Args:
        model: A model.
        image: A file, a PIL image, or a raw array (C, H, W).
        layer: Its place.
        cell: (row, column) of its maps, or the number of an output without a place.
        channel: Which map; the one with the largest value at the cell if None.

    >>> import pellucid as pl
    >>> net = pl.models.create("lenet5", (1, 28, 28), 10)
    >>> model = Model(net, pl.InputSpec((1, 28, 28), (0.0, 1.0), (0.5,), (0.5,)))
    >>> field = effective_field(model, np.eye(28), 3, (0, 0))
    >>> field.shape, bool(field[16:].any())
    ((28, 28), False)
    """
    x = canonical(model, image)
    place, _ = find(model.network, layer)
    seen = trace(model.network, x)
    y = seen.outputs[place]
    dy = np.zeros_like(y)
    if y.ndim > 2:
        at = index(y.shape[2:], cell, "cell")
        if channel is None:
            channel = int(np.moveaxis(y[0], 0, -1)[at].argmax())
        dy[0, *index(y.shape[1:2], channel, "channel"), *at] = 1
    else:
        dy[0, *index(y.shape[1:], cell, "cell")] = 1
    return np.asarray(np.abs(seen.gradients({place: dy})[INPUT][0]).sum(axis=0))


def _layer(network: Network, layer: int | str) -> tuple[View, Shape]:
    """Return what a layer's cells see, and how many there are along each axis of the image, or in all if vectors."""
    place, _ = find(network, layer)
    view, shape = receptive_fields(network)[place], shapes(network)[place]
    return view, shape[1:] if len(shape) == len(view) + 1 else (math.prod(shape),)
