"""What convolution and pooling share: padding, and the views that the cells of a window see."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid._types import Array
from pellucid.errors import OptionError, ShapeError
from pellucid.shapes import Padding, Pair


def check_float(x: Array, name: str) -> None:
    """Raise an OptionError that names the argument unless x is float32 or float64."""
    if x.dtype.type not in (np.float32, np.float64):
        raise OptionError(f'{name} must be float32 or float64, got {x.dtype}; use {name}.astype("float32")')


def check(x: Array, name: str, axes: str) -> Array:
    """Return x as a float array with the given axes, or raise an error that names the argument and the cure.

    Args:
        x: Any array.
        name: Of the argument.
        axes: Expected axes, as in "N x C x H x W".
    """
    x = np.asarray(x)
    check_float(x, name)
    ndim = axes.count("x") + 1
    if x.ndim != ndim:
        single = f"; for a single image use {name}[None]" if ndim == 4 and x.ndim == 3 else ""
        raise ShapeError(f"{name} must have the axes {axes}, got shape {x.shape}{single}")
    return x


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


def cover(size: Pair, kernel: Pair, stride: Pair, padding: Padding, out: Pair) -> Padding:
    """Return the padding, extended behind the input until it holds every window (ceil_mode reaches beyond)."""
    sides = []
    for n, k, s, p, o in zip(size, kernel, stride, padding, out, strict=True):
        sides.append((p[0], max(p[1], (o - 1) * s + k - n - p[0])))
    return sides[0], sides[1]


def taps(padded: Array, kernel: Pair, stride: Pair, dilation: Pair, out: Pair) -> Iterator[tuple[int, int, Array]]:
    """Yield (a, b, view): view[..., i, j] is what cell (a, b) of the window at position (i, j) sees.

    In symbols view[..., i, j] = padded[..., i s + a d, j s + b d]. A view can be written to.
    """
    for a in range(kernel[0]):
        rows = slice(a * dilation[0], a * dilation[0] + stride[0] * (out[0] - 1) + 1, stride[0])
        for b in range(kernel[1]):
            columns = slice(b * dilation[1], b * dilation[1] + stride[1] * (out[1] - 1) + 1, stride[1])
            yield a, b, padded[..., rows, columns]
