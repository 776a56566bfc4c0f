"""Convolution as in mathematics, where the kernel is rotated by 180 degrees; NumPy's and SciPy's, by hand.

In one dimension, with m the kernel's size, s the stride and xp the padded x:

    y[i] = sum over k = 0 ... m - 1 of xp[i s + m - 1 - k] w[k]

>>> xp, w = np.array([1.0, 3.0, 2.0, 4.0, 5.0]), np.array([1.0, 0.0, 3.0])
>>> y = [sum(xp[i * 1 + 3 - 1 - k] * w[k] for k in range(3)) for i in range(3)]
>>> y == convolve1d(xp, w, "valid").tolist() == np.convolve(xp, w, "valid").tolist()
True

With flip=False the kernel stays as it is: that is cross-correlation, which layers compute (conv1d, conv2d). Rotating
by 180 degrees is not transposing: [[1, 2], [3, 4]] becomes [[4, 3], [2, 1]], not [[1, 3], [2, 4]].
"""

from __future__ import annotations

import numpy as np

from pellucid._types import Array
from pellucid.errors import OptionError, ShapeError, unknown
from pellucid.functional._windows import taps
from pellucid.shapes import Padding, SizeArgument, output_sizes, sizes

MODES = ("full", "same", "valid", "same_upper", "same_lower")
BOUNDARIES = {"fill": "constant", "symm": "symmetric", "wrap": "wrap"}


def _numbers(values: object, name: str, dims: int) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise OptionError(f"{name} must be real numbers, got {array.dtype}")
    if array.ndim != dims or array.size == 0:
        raise ShapeError(f"{name} must have {dims} {'axis' if dims == 1 else 'axes'} and values, got {array.shape}")
    return array if array.dtype.kind == "f" else array.astype(np.int64)  # bytes of an image would overflow


def _sides(m: int, mode: str) -> tuple[int, int]:
    """Return the cells before and after; with "same" and an even kernel the odd one stands in front."""
    if mode in ("full", "valid"):
        return (m - 1, m - 1) if mode == "full" else (0, 0)
    large, small = m // 2, m - 1 - m // 2
    return (small, large) if mode == "same_upper" else (large, small)


def _convolve(
    dims: int,
    x: object,
    w: object,
    mode: str | None,
    padding: SizeArgument | None,
    stride: SizeArgument,
    flip: bool,
    boundary: str,
) -> Array:
    a, b, steps = _numbers(x, "x", dims), _numbers(w, "w", dims), sizes(stride, "stride", dims)
    if mode is not None and padding is not None:
        raise OptionError(f"give mode or padding, not both; got mode={mode!r} and padding={padding!r}")
    if boundary not in BOUNDARIES:
        raise unknown("boundary", boundary, BOUNDARIES)
    if not flip:
        b = np.flip(b)
    if padding is not None:
        around: Padding = tuple((p, p) for p in sizes(padding, "padding", dims, minimum=0))
    else:
        mode = mode or "full"
        if mode not in MODES:
            raise unknown("mode", mode, MODES)
        covers = all(m >= n for m, n in zip(b.shape, a.shape, strict=True))
        if covers and (dims == 1 or mode == "valid"):  # a * b is b * a, and NumPy wants the larger one first
            a, b = b, a
        around = tuple(_sides(m, mode) for m in b.shape)
    out = output_sizes(a.shape, b.shape, steps, around, (1,) * dims)
    padded = np.pad(a, around, mode=BOUNDARIES[boundary])  # type: ignore[call-overload]
    y = np.zeros(out, dtype=np.result_type(a, b))
    for weight, seen in zip(np.flip(b).ravel(), taps(padded, b.shape, steps, (1,) * dims, out), strict=True):
        y += weight * seen
    return y


def convolve1d(
    x: Array,
    w: Array,
    mode: str | None = None,
    padding: SizeArgument | None = None,
    stride: SizeArgument = 1,
    flip: bool = True,
    boundary: str = "fill",
) -> Array:
    """Return the convolution of two sequences, as np.convolve; with flip=False their cross-correlation.

    Args:
        x: Numbers, (n,).
        w: The kernel, (m,).
        mode: "full" for n + m - 1 outputs (the default), "same" for n, "valid" for those whose window lies inside. For
            an even kernel "same" and "same_lower" put the odd zero in front, as NumPy does, "same_upper" behind.
        padding: Or this: cells on each side, a number.
        stride: Step of the window: every so many outputs of the plain convolution.
        flip: Whether the kernel is rotated, as in mathematics.
        boundary: What the padding holds: "fill" zeros, "symm" a mirror image with the edge, "wrap" the other end.

    Returns:
        (floor((n + 2p - m) / s) + 1,); int64 for whole numbers, else float.

    Raises:
        OptionError: For arguments that cannot be.
        ShapeError: For other axes, or where the kernel does not fit.

    >>> convolve1d([1, 3, 2, 4, 5, 6, 1, 3], [1, 0, 3, 1, 2], padding=2)
    array([ 5, 14, 16, 26, 24, 34, 19, 22])
    >>> convolve1d([1, 3, 2, 4, 5, 6, 1, 3], [1, 0, 3, 1, 2], padding=2, flip=False)
    array([10, 19, 21, 32, 25, 29, 11, 15])
    """
    return _convolve(1, x, w, mode, padding, stride, flip, boundary)


def convolve2d(
    x: Array,
    w: Array,
    mode: str | None = None,
    padding: SizeArgument | None = None,
    stride: SizeArgument = 1,
    flip: bool = True,
    boundary: str = "fill",
) -> Array:
    """Return the convolution of two maps, as scipy.signal.convolve2d; with flip=False their cross-correlation.

    Args:
        x: Numbers, (H, W).
        w: The kernel, (kh, kw).
        mode: As in convolve1d.
        padding: Or this: cells on each side, a number or (height, width).
        stride: Step of the window, a number or (height, width).
        flip: Whether the kernel is rotated by 180 degrees, as in mathematics.
        boundary: As in convolve1d.

    Returns:
        (H', W') with H' = floor((H + 2p - kh) / s) + 1; int64 for whole numbers, else float.

    Raises:
        OptionError: For arguments that cannot be.
        ShapeError: For other axes, or where the kernel does not fit.

    >>> x, w = [[1, 3, 2, 4], [5, 6, 1, 3], [1, 2, 0, 2], [3, 4, 3, 2]], [[1, 0, 3], [1, 2, 1], [0, 1, 1]]
    >>> convolve2d(x, w, "valid")
    array([[25, 24],
           [28, 25]])
    >>> convolve2d(x, w, "valid", flip=False)
    array([[27, 28],
           [20, 24]])
    """
    return _convolve(2, x, w, mode, padding, stride, flip, boundary)


def pixel_convolution(region: Array, filter: Array, bias: float = 0.0) -> float:
    """Return one pixel of a layer's output: the sum of region times filter, plus bias.

    Args:
        region: What the window sees, such as (C, k, k).
        filter: Same shape.
        bias: A number.

    Raises:
        ShapeError: For different shapes.

    >>> pixel_convolution(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 2.0]]), 0.5)
    9.5
    """
    if np.shape(region) != np.shape(filter):
        raise ShapeError(f"region {np.shape(region)} and filter {np.shape(filter)} must have the same shape")
    if np.size(bias) != 1:
        raise ShapeError(f"bias must be one number, got shape {np.shape(bias)}")
    return float(np.sum(np.multiply(region, filter)) + np.asarray(bias).item())
