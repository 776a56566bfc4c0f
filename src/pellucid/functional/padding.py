"""Padding of each side by itself, with zeros, a mirror image or copies of the edge, and the gradient.

Each padded cell is a copy of one cell of the input (or a constant), so on the way back each cell adds up the gradients
of its copies. Along an axis 1 2 3 4 with two cells before and behind becomes 0 0 1 2 3 4 0 0 (constant),
3 2 1 2 3 4 3 2 (reflect), 1 1 1 2 3 4 4 4 (replicate), 3 4 1 2 3 4 1 2 (circular).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pellucid._types import Array
from pellucid.errors import OptionError, unknown
from pellucid.functional._checks import check_dy, check_float
from pellucid.shapes import LARGEST, Pair, integer, padded_size

MODES = ("constant", "reflect", "replicate", "circular")


def collect(dy: Array, cells: Array, n: int, axis: int) -> Array:
    """Return what each of n cells gets back along an axis whose entry i is a copy of cell cells[i]; -1 is no copy."""
    dx = np.zeros((n, *np.moveaxis(dy, axis, 0).shape[1:]), dtype=dy.dtype)
    for cell, gradient in zip(cells, np.moveaxis(dy, axis, 0), strict=True):
        if cell >= 0:
            dx[cell] += gradient
    return np.moveaxis(dx, 0, axis)


def _sides(x: Array, pad: Sequence[int], mode: str) -> list[tuple[int, Pair]]:
    """Return (axis, (before, after)) for each axis that is padded."""
    check_float(x, "x")
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if not isinstance(pad, (tuple, list)) or len(pad) % 2:
        raise OptionError(f"pad must have two numbers for each axis, the last axis first (left, right), got {pad!r}")
    if len(pad) > 2 * x.ndim:
        raise OptionError(f"pad has {len(pad)} sides, but x of shape {x.shape} has only {2 * x.ndim}")
    numbers = [integer(p, "pad", minimum=-LARGEST) for p in pad]
    return [(x.ndim - 1 - i // 2, (numbers[i], numbers[i + 1])) for i in range(0, len(pad), 2)]


def copied(n: int, sides: Pair, mode: str) -> Array:
    """Return which of n cells each cell of the padded axis is a copy of; -1 for a constant."""
    i = np.arange(padded_size(n, sides, mode)) - sides[0]
    if mode == "reflect":
        return np.where(i < n, np.abs(i), 2 * (n - 1) - i)
    if mode == "replicate":
        return np.clip(i, 0, n - 1)
    return i % n if mode == "circular" else np.where((i < 0) | (i >= n), -1, i)


def pad(x: Array, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Array:
    """Return x with cells added on each side, or with mode="constant" taken away where a number is negative.

    Args:
        x: Any shape, float32 or float64.
        pad: Cells before and after each axis, the last axis first: (left, right, top, bottom).
        mode: "constant", "reflect", "replicate" or "circular".
        value: The constant.

    Raises:
        OptionError: For arguments that cannot be.
        ShapeError: For more cells than a mirror image (n - 1) or a repetition (n) has.

    >>> pad(np.array([[1.0, 2.0], [3.0, 4.0]]), (1, 0, 0, 1))
    array([[0., 1., 2.],
           [0., 3., 4.],
           [0., 0., 0.]])
    >>> pad(np.array([1.0, 2.0, 3.0]), (2, 1), "reflect")
    array([3., 2., 1., 2., 3., 2.])
    """
    for axis, sides in _sides(x, pad, mode):
        cells = copied(x.shape[axis], sides, mode)
        outside = np.flatnonzero(cells < 0)
        x = np.take(x, cells, axis)
        np.moveaxis(x, axis, 0)[outside] = value
    return x


def pad_backward(dy: Array, x: Array, pad: Sequence[int], mode: str = "constant") -> Array:
    """Return the gradient of pad by x: each cell adds up the gradients of its copies.

    Args:
        dy: Gradient by the output.
        x: Input of the forward pass; only its shape counts.
        pad: As in pad.
        mode: As in pad.

    >>> pad_backward(np.ones(6), np.array([1.0, 2.0, 3.0]), (2, 1), "reflect")
    array([1., 3., 2.])
    """
    sides = _sides(x, pad, mode)
    cells = {axis: copied(x.shape[axis], both, mode) for axis, both in sides}
    check_dy(dy, tuple(len(cells[axis]) if axis in cells else n for axis, n in enumerate(x.shape)))
    for axis in cells:
        dy = collect(dy, cells[axis], x.shape[axis], axis)
    return dy
