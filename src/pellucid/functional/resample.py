"""Resampling to another size: nearest, linear, cubic, and the gradients.

All of it is linear, and one axis follows another. Along an axis each output cell is a sum of a few input cells, so the
gradient of an input cell is the same sum the other way round.

Where output cell i of o lies among n input cells: at (i + 1/2) n / o - 1/2, as pixels are small squares and the corners
of both pictures meet; or with align_corners at i (n - 1) / (o - 1), where the centers of the corner pixels meet.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from pellucid._types import Array
from pellucid.errors import OptionError, unknown
from pellucid.functional._checks import MAPS, check, check_dy
from pellucid.functional.padding import collect
from pellucid.shapes import resized

MODES = {"nearest": (1, 2, 3), "linear": (1,), "bilinear": (2,), "trilinear": (3,), "bicubic": (2,)}
"""How many axes each mode is for."""

_A = -0.75  # of the cubic kernel (Keys: Cubic convolution interpolation, 1981), which took -0.5; PyTorch takes this

_Terms: TypeAlias = list[tuple[Array, Array]]
"""(cells, weights): the sum over them is what each output cell takes, weight times cell."""


def terms(n: int, out: int, scale: float | None, mode: str, align_corners: bool) -> _Terms:
    """Return the terms of an axis; scale is how many input cells an output cell covers, n / out if None."""
    i = np.arange(out)
    step = n / out if scale is None else scale
    if mode == "nearest":
        # In float32, as in PyTorch: in float64 a product just below a whole number would give another cell.
        cells = np.floor(i.astype(np.float32) * np.float32(step)).astype(np.int64)
        return [(np.minimum(cells, n - 1), np.ones(out))]
    at = i * ((n - 1) / max(out - 1, 1)) if align_corners else (i + 0.5) * step - 0.5
    if mode != "bicubic":
        at = np.clip(at, 0, n - 1)
        first = np.floor(at).astype(np.int64)
        t = at - first
        return [(first, 1 - t), (np.minimum(first + 1, n - 1), t)]
    first = np.floor(at).astype(np.int64)
    t = at - first
    around = [(first + k, _cubic(np.abs(t - k))) for k in (-1, 0, 1, 2)]
    return [(np.clip(cells, 0, n - 1), weights) for cells, weights in around]


def _cubic(d: Array) -> Array:
    """Return the weight of a cell at distance d, at most 2."""
    near = ((_A + 2) * d - (_A + 3)) * d * d + 1
    far = ((_A * d - 5 * _A) * d + 8 * _A) * d - 4 * _A
    return np.where(d <= 1, near, far)


def _axes(
    x: Array, size: object, scale_factor: object, mode: str, align_corners: bool | None
) -> list[tuple[int, int, _Terms]]:
    """Return (axis, its new size, terms) for each axis."""
    dims = x.ndim - 2
    check(x, "x", MAPS.get(dims, MAPS[2]))
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if dims not in MODES[mode]:
        fitting = [name for name, axes in MODES.items() if dims in axes]
        raise OptionError(f'mode "{mode}" is not for x of shape {x.shape}; use one of {", ".join(fitting)}')
    if mode == "nearest" and align_corners is not None:
        raise OptionError('align_corners has no meaning with mode "nearest"; leave it None')
    out, scales = resized(x.shape[2:], size, scale_factor)
    axes = zip(x.shape[2:], out, scales, strict=True)
    return [(2 + k, o, terms(n, o, s, mode, bool(align_corners))) for k, (n, o, s) in enumerate(axes)]


def interpolate(
    x: Array,
    size: int | tuple[int, ...] | None = None,
    scale_factor: float | tuple[float, ...] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Array:
    """Return x resampled to a size, or to floor(factor n) cells along each axis.

    Args:
        x: Input, (N, C, L), (N, C, H, W) or (N, C, D, H, W), float32 or float64.
        size: Of the output, a number or one for each axis.
        scale_factor: Or this: a factor or one for each axis.
        mode: "nearest"; "linear", "bilinear", "trilinear" for one, two and three axes; "bicubic" for two.
        align_corners: Whether the centers of the corner cells stay where they are; not for "nearest".

    Returns:
        (N, C, ...).

    Raises:
        OptionError: For arguments that cannot be.
        ShapeError: For an x of other axes.

    >>> interpolate(np.array([[[1.0, 2.0]]]), scale_factor=2)
    array([[[1., 1., 2., 2.]]])
    >>> interpolate(np.array([[[1.0, 2.0]]]), size=4, mode="linear")
    array([[[1.  , 1.25, 1.75, 2.  ]]])
    """
    for axis, out, sums in _axes(x, size, scale_factor, mode, align_corners):
        y = np.zeros((*x.shape[:axis], out, *x.shape[axis + 1 :]), dtype=x.dtype)
        along = (-1, *[1] * (x.ndim - 1 - axis))
        for cells, weights in sums:
            y += weights.astype(x.dtype).reshape(along) * np.take(x, cells, axis)
        x = y
    return x


def interpolate_backward(
    dy: Array,
    x: Array,
    size: int | tuple[int, ...] | None = None,
    scale_factor: float | tuple[float, ...] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Array:
    """Return the gradient of interpolate by x.

    Args:
        dy: Gradient by the output, (N, C, ...).
        x: Input of the forward pass; only its shape counts.
        size: As in interpolate.
        scale_factor: As in interpolate.
        mode: As in interpolate.
        align_corners: As in interpolate.

    >>> interpolate_backward(np.array([[[1.0, 2.0, 3.0, 4.0]]]), np.zeros((1, 1, 2)), scale_factor=2)
    array([[[3., 7.]]])
    """
    axes = _axes(x, size, scale_factor, mode, align_corners)
    check_dy(dy, (*x.shape[:2], *(out for _, out, _ in axes)))
    for axis, _, sums in axes:
        along = (-1, *[1] * (x.ndim - 1 - axis))
        parts = [
            collect(weights.astype(dy.dtype).reshape(along) * dy, cells, x.shape[axis], axis) for cells, weights in sums
        ]
        dy = np.sum(parts, axis=0)
    return dy
