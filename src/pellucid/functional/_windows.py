"""What convolution and pooling share, over any number of axes: padding, and what the cells of a window see."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from pellucid import shapes
from pellucid._types import Array, Shape
from pellucid.shapes import Padding

# The same few sizes come again and again; for a single image, working them out would take a tenth of the time.
output_sizes, cover = lru_cache(maxsize=1024)(shapes.output_sizes), lru_cache(maxsize=1024)(shapes.cover)


def pad(x: Array, padding: Padding, value: float = 0.0) -> Array:
    """Return x (N, C, ...) with cells of the given value before and after each axis."""
    if not any(before or after for before, after in padding):
        return x
    size = x.shape[2:]
    around = [before + n + after for n, (before, after) in zip(size, padding, strict=True)]
    padded = np.full((*x.shape[:2], *around), value, dtype=x.dtype)
    crop(padded, padding, size)[...] = x
    return padded


def crop(padded: Array, padding: Padding, size: Shape) -> Array:
    """Return the part of a padded array (N, C, ...) that pad() put the input into."""
    return padded[:, :, *(slice(before, before + n) for n, (before, _) in zip(size, padding, strict=True))]


def taps(padded: Array, kernel: Shape, stride: Shape, dilation: Shape, out: Shape) -> Iterator[Array]:
    """Yield a view for each cell of the window, in row-major order: what it sees where the window stands.

    In symbols, for cell (a, b) of a window with two axes, view[..., i, j] = padded[..., i s + a d, j s + b d]. A view
    can be written to.
    """
    axes: list[list[Any]] = [
        [slice(a * d, a * d + s * (o - 1) + 1, s) for a in range(k)]
        for k, s, d, o in zip(kernel, stride, dilation, out, strict=True)
    ]
    for seen in itertools.product(*axes):
        yield padded[(..., *seen)]
