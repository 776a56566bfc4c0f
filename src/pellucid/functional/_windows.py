"""What convolution and pooling share: padding, and the views that the cells of a window see."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid._types import Array
from pellucid.shapes import Padding, Pair


def pad(x: Array, padding: Padding, value: float = 0.0) -> Array:
    """Return x (N, C, H, W) with cells of the given value around each map."""
    (top, bottom), (left, right) = padding
    if not (top or bottom or left or right):
        return x
    n, c, h, w = x.shape
    padded = np.full((n, c, h + top + bottom, w + left + right), value, dtype=x.dtype)
    padded[:, :, top : top + h, left : left + w] = x
    return padded


def crop(padded: Array, padding: Padding, size: Pair) -> Array:
    """Return the part of a padded array (N, C, H, W) that pad() put the input into."""
    top, left = padding[0][0], padding[1][0]
    return padded[:, :, top : top + size[0], left : left + size[1]]


def taps(padded: Array, kernel: Pair, stride: Pair, dilation: Pair, out: Pair) -> Iterator[tuple[int, int, Array]]:
    """Yield (a, b, view): view[..., i, j] is what cell (a, b) of the window at position (i, j) sees.

    In symbols view[..., i, j] = padded[..., i s + a d, j s + b d]. A view can be written to.
    """
    for a in range(kernel[0]):
        rows = slice(a * dilation[0], a * dilation[0] + stride[0] * (out[0] - 1) + 1, stride[0])
        for b in range(kernel[1]):
            columns = slice(b * dilation[1], b * dilation[1] + stride[1] * (out[1] - 1) + 1, stride[1])
            yield a, b, padded[..., rows, columns]
