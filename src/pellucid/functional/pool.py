"""Pooling: the largest or the mean value of each window; max-unpooling, which goes the other way; the gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from pellucid._types import Array, Shape
from pellucid.errors import OptionError, ShapeError
from pellucid.functional._checks import MAPS, check, check_dy
from pellucid.functional._windows import cover, crop, output_sizes, pad, taps
from pellucid.shapes import (
    Padding,
    SizeArgument,
    pool_padding,
    sizes,
)


class _Windows(NamedTuple):
    """The windows of a pool; reach is the padding, extended until it holds every window."""

    kernel: Shape
    stride: Shape
    dilation: Shape
    padding: Padding
    reach: Padding
    out: Shape

    def taps(self, padded: Array) -> Iterator[Array]:
        """Yield what each cell of the window sees of maps that were padded to reach."""
        return taps(padded, self.kernel, self.stride, self.dilation, self.out)


def _windows(
    dims: int,
    x: Array,
    kernel_size: object,
    stride: object,
    padding: object,
    dilation: object,
    ceil_mode: bool,
) -> _Windows:
    check(x, "x", MAPS[dims])
    kernel = sizes(kernel_size, "kernel_size", dims)
    steps = kernel if stride is None else sizes(stride, "stride", dims)
    spread = sizes(dilation, "dilation", dims)
    size, sides = x.shape[2:], pool_padding(padding, kernel, spread)
    out = output_sizes(size, kernel, steps, sides, spread, ceil_mode)
    return _Windows(kernel, steps, spread, sides, cover(size, kernel, steps, sides, spread, out), out)


def _largest(x: Array, w: _Windows) -> Array:
    y = np.full((*x.shape[:2], *w.out), -np.inf, dtype=x.dtype)
    for value in w.taps(pad(x, w.reach, -np.inf)):
        np.maximum(y, value, out=y)
    return y


def _hits(x: Array, w: _Windows) -> Iterator[Array]:
    """Yield for each cell of the window, in row-major order, in which windows it is the first of the largest."""
    y = _largest(x, w)
    waiting = np.ones(y.shape, dtype=bool)  # windows whose largest cell was not met yet
    inside = pad(np.ones((1, 1, *x.shape[2:]), dtype=bool), w.reach)
    for value, real in zip(w.taps(pad(x, w.reach)), w.taps(inside), strict=True):
        hit = waiting & real & ((value == y) | (value != value))  # only NaN differs from itself, and then y is NaN
        yield hit
        waiting ^= hit


def _max_pool(
    dims: int,
    x: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None,
    padding: SizeArgument,
    dilation: SizeArgument,
    ceil_mode: bool,
    return_indices: bool,
) -> Array | tuple[Array, Array]:
    w = _windows(dims, x, kernel_size, stride, padding, dilation, ceil_mode)
    y = _largest(x, w)
    if not return_indices:
        return y
    indices = np.zeros(y.shape, dtype=np.int64)
    cells = np.arange(math.prod(x.shape[2:])).reshape(1, 1, *x.shape[2:])
    for cell, hit in zip(w.taps(pad(cells, w.reach)), _hits(x, w), strict=True):
        np.copyto(indices, cell, where=hit)
    return y, indices


def _max_pool_backward(
    dims: int,
    dy: Array,
    x: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None,
    padding: SizeArgument,
    dilation: SizeArgument,
    ceil_mode: bool,
) -> Array:
    w = _windows(dims, x, kernel_size, stride, padding, dilation, ceil_mode)
    check_dy(dy, (*x.shape[:2], *w.out))
    padded = pad(np.zeros(x.shape, dtype=dy.dtype), w.reach)
    for view, hit in zip(w.taps(padded), _hits(x, w), strict=True):
        view += np.where(hit, dy, 0)
    return crop(padded, w.reach, x.shape[2:])


def _divisors(x: Array, w: _Windows, count_include_pad: bool) -> Array:
    """Return how many cells each window averages over; what ceil_mode adds beyond the padding never counts."""
    counts = []
    for n, k, s, (before, after), out in zip(x.shape[2:], w.kernel, w.stride, w.padding, w.out, strict=True):
        start = np.arange(out) * s - before
        first, last = (-before, n + after) if count_include_pad else (0, n)
        counts.append(np.minimum(start + k, last) - np.maximum(start, first))
    return np.asarray(functools.reduce(np.multiply.outer, counts), dtype=x.dtype)


def _avg_pool(
    dims: int,
    x: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None,
    padding: SizeArgument,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Array:
    w = _windows(dims, x, kernel_size, stride, padding, 1, ceil_mode)
    total = np.zeros((*x.shape[:2], *w.out), dtype=x.dtype)
    for view in w.taps(pad(x, w.reach)):
        total += view
    return total / _divisors(x, w, count_include_pad)


def _avg_pool_backward(
    dims: int,
    dy: Array,
    x: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None,
    padding: SizeArgument,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Array:
    w = _windows(dims, x, kernel_size, stride, padding, 1, ceil_mode)
    check_dy(dy, (*x.shape[:2], *w.out))
    share = dy / _divisors(x, w, count_include_pad)
    padded = pad(np.zeros(x.shape, dtype=share.dtype), w.reach)
    for view in w.taps(padded):
        view += share
    return crop(padded, w.reach, x.shape[2:])


def max_pool1d(
    x: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None = None,
    padding: SizeArgument = 0,
    dilation: SizeArgument = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the largest value of each window of sequences (N, C, L); otherwise as max_pool2d.

    >>> max_pool1d(np.array([[[2.0, 3.0, 5.0, 4.0]]]), 2)
    array([[[3., 5.]]])
    """
    return _max_pool(1, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    x: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None = None,
    padding: SizeArgument = 0,
    dilation: SizeArgument = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the largest value of each window; NaN in a window stays NaN.

    Args:
        x: Input, (N, C, H, W).
        kernel_size: Size of the window, a number or (height, width).
        stride: Step of the window; kernel_size if None.
        padding: Cells of minus infinity on each side, at most half of kernel_size.
        dilation: Distance of neighboring cells of the window.
        ceil_mode: Keep a last window that reaches beyond the edge.
        return_indices: Also return where each largest value stands: row W + column, int64; the first, if several.

    Returns:
        (N, C, H', W'), or with return_indices two arrays of that shape.

    Raises:
        ShapeError: Where no window fits.
        OptionError: For arguments that cannot be.

    >>> max_pool2d(np.array([[[[2.0, 3.0], [5.0, 6.0]]]]), 2)
    array([[[[6.]]]])
    >>> max_pool2d(np.array([[[[2.0, 3.0], [5.0, 6.0]]]]), 2, return_indices=True)[1]
    array([[[[3]]]])
    """
    return _max_pool(2, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    x: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None = None,
    padding: SizeArgument = 0,
    dilation: SizeArgument = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the largest value of each window of volumes (N, C, D, H, W); otherwise as max_pool2d.

    >>> max_pool3d(np.arange(8.0).reshape(1, 1, 2, 2, 2), (1, 2, 2)).tolist()
    [[[[[3.0]], [[7.0]]]]]
    """
    return _max_pool(3, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool1d_backward(
    dy: Array,
    x: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None = None,
    padding: SizeArgument = 0,
    dilation: SizeArgument = 1,
    ceil_mode: bool = False,
) -> Array:
    """Return the gradient of max_pool1d by x; see max_pool2d_backward.

    >>> max_pool1d_backward(np.array([[[7.0]]]), np.array([[[2.0, 3.0]]]), 2)
    array([[[0., 7.]]])
    """
    return _max_pool_backward(1, dy, x, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d_backward(
    dy: Array,
    x: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None = None,
    padding: SizeArgument = 0,
    dilation: SizeArgument = 1,
    ceil_mode: bool = False,
) -> Array:
    """Return the gradient of max_pool2d by x: each dy goes to the first largest cell, in row-major order.

    Where windows overlap, a cell adds up what it gets.

    Args:
        dy: Gradient by the output, (N, C, H', W').
        x: Input of the forward pass, (N, C, H, W).
        kernel_size: As in max_pool2d.
        stride: As in max_pool2d.
        padding: As in max_pool2d.
        dilation: As in max_pool2d.
        ceil_mode: As in max_pool2d.

    >>> max_pool2d_backward(np.array([[[[7.0]]]]), np.ones((1, 1, 2, 2)), 2)
    array([[[[7., 0.],
             [0., 0.]]]])
    """
    return _max_pool_backward(2, dy, x, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool3d_backward(
    dy: Array,
    x: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None = None,
    padding: SizeArgument = 0,
    dilation: SizeArgument = 1,
    ceil_mode: bool = False,
) -> Array:
    """Return the gradient of max_pool3d by x; see max_pool2d_backward.

    >>> max_pool3d_backward(np.array([[[[[7.0]]]]]), np.arange(2.0).reshape(1, 1, 2, 1, 1), (2, 1, 1)).ravel()
    array([0., 7.])
    """
    return _max_pool_backward(3, dy, x, kernel_size, stride, padding, dilation, ceil_mode)


def avg_pool1d(
    x: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None = None,
    padding: SizeArgument = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """Return the mean of each window of sequences (N, C, L); otherwise as avg_pool2d.

    >>> avg_pool1d(np.array([[[2.0, 3.0, 5.0, 4.0]]]), 2)
    array([[[2.5, 4.5]]])
    """
    return _avg_pool(1, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    x: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None = None,
    padding: SizeArgument = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """Return the mean of each window.

    Args:
        x: Input, (N, C, H, W).
        kernel_size: Size of the window, a number or (height, width).
        stride: Step of the window; kernel_size if None.
        padding: Zeros on each side, at most half of kernel_size.
        ceil_mode: Keep a last window that reaches beyond the edge.
        count_include_pad: Whether padding counts as cells of the window.

    Returns:
        (N, C, H', W').

    Raises:
        ShapeError: Where no window fits.
        OptionError: For arguments that cannot be.

    >>> avg_pool2d(np.array([[[[2.0, 3.0], [5.0, 6.0]]]]), 2)
    array([[[[4.]]]])
    """
    return _avg_pool(2, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool3d(
    x: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None = None,
    padding: SizeArgument = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """Return the mean of each window of volumes (N, C, D, H, W); otherwise as avg_pool2d.

    >>> avg_pool3d(np.arange(8.0).reshape(1, 1, 2, 2, 2), 2).ravel()
    array([3.5])
    """
    return _avg_pool(3, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool1d_backward(
    dy: Array,
    x: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None = None,
    padding: SizeArgument = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """Return the gradient of avg_pool1d by x; see avg_pool2d_backward.

    >>> avg_pool1d_backward(np.array([[[7.0]]]), np.ones((1, 1, 2)), 2)
    array([[[3.5, 3.5]]])
    """
    return _avg_pool_backward(1, dy, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d_backward(
    dy: Array,
    x: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None = None,
    padding: SizeArgument = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """Return the gradient of avg_pool2d by x: each cell of a window gets dy / (cells of the window).

    Args:
        dy: Gradient by the output, (N, C, H', W').
        x: Input of the forward pass, (N, C, H, W); only its shape counts.
        kernel_size: As in avg_pool2d.
        stride: As in avg_pool2d.
        padding: As in avg_pool2d.
        ceil_mode: As in avg_pool2d.
        count_include_pad: As in avg_pool2d.

    >>> avg_pool2d_backward(np.array([[[[8.0]]]]), np.ones((1, 1, 2, 2)), 2).tolist()
    [[[[2.0, 2.0], [2.0, 2.0]]]]
    """
    return _avg_pool_backward(2, dy, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool3d_backward(
    dy: Array,
    x: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None = None,
    padding: SizeArgument = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """Return the gradient of avg_pool3d by x; see avg_pool2d_backward.

    >>> avg_pool3d_backward(np.array([[[[[8.0]]]]]), np.ones((1, 1, 2, 2, 2)), 2).ravel()
    array([1., 1., 1., 1., 1., 1., 1., 1.])
    """
    return _avg_pool_backward(3, dy, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


def _places(x: Array, indices: Array, size: Shape) -> Array:
    """Return the indices, checked, as (N, C, number of cells of a map of x)."""
    if not np.issubdtype(indices.dtype, np.integer) or indices.shape != x.shape:
        raise ShapeError(
            f"indices must be whole numbers of the shape {x.shape} of x, got {indices.dtype} {indices.shape}; "
            "use what max_pool2d(..., return_indices=True) gave"
        )
    cells = math.prod(size)
    if indices.size and (indices.min() < 0 or indices.max() >= cells):
        bad = indices.min() if indices.min() < 0 else indices.max()
        raise OptionError(
            f"index {bad} lies outside the output {size[0]}x{size[1]}; indices must be those of this input's own pool"
        )
    return indices.reshape(*x.shape[:2], math.prod(x.shape[2:]))


def _unpooled_size(
    x: Array, kernel_size: SizeArgument, stride: SizeArgument | None, padding: SizeArgument, output_size: object
) -> Shape:
    check(x, "x", MAPS[2])
    kernel = sizes(kernel_size, "kernel_size")
    steps, sides = kernel if stride is None else sizes(stride, "stride"), sizes(padding, "padding", minimum=0)
    usual = [(n - 1) * s - 2 * p + k for n, k, s, p in zip(x.shape[2:], kernel, steps, sides, strict=True)]
    size = tuple(usual) if output_size is None else sizes(output_size, "output_size")
    if min(size) < 1 or any(abs(n - u) >= s for n, u, s in zip(size, usual, steps, strict=True)):
        ranges = " x ".join(f"{max(1, u - s + 1)}..{u + s - 1}" for u, s in zip(usual, steps, strict=True))
        raise OptionError(f"output_size {size} is none that pools to {x.shape[2:]}; it must lie in {ranges}")
    return size


def max_unpool2d(
    x: Array,
    indices: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None = None,
    padding: SizeArgument = 0,
    output_size: SizeArgument | None = None,
) -> Array:
    """Return maps of zeros with each x at the place that its index names: max_pool2d backwards.

    Args:
        x: What max_pool2d gave, or what was made of it, (N, C, H, W).
        indices: What max_pool2d gave with return_indices, same shape. If two are equal, the last one counts.
        kernel_size: As in the pool.
        stride: As in the pool.
        padding: As in the pool.
        output_size: Size of what was pooled, where the pool brought several sizes to one (14 and 15 to 7).

    Returns:
        (N, C, H', W'), with H' = (H - 1)s - 2p + k unless output_size says another.

    Raises:
        OptionError: For an output_size that the pool does not bring to the size of x, or indices outside the output.
        ShapeError: For indices of another shape.

    >>> y, indices = max_pool2d(np.array([[[[2.0, 3.0], [5.0, 4.0]]]]), 2, return_indices=True)
    >>> max_unpool2d(y, indices, 2)[0, 0]
    array([[0., 0.],
           [5., 0.]])
    """
    size = _unpooled_size(x, kernel_size, stride, padding, output_size)
    places = _places(x, indices, size)
    y = np.zeros((*x.shape[:2], math.prod(size)), dtype=x.dtype)
    np.put_along_axis(y, places, x.reshape(places.shape), axis=2)
    return y.reshape(*x.shape[:2], *size)


def max_unpool2d_backward(
    dy: Array,
    x: Array,
    indices: Array,
    kernel_size: SizeArgument,
    stride: SizeArgument | None = None,
    padding: SizeArgument = 0,
    output_size: SizeArgument | None = None,
) -> Array:
    """Return the gradient of max_unpool2d by x: dy at the place of each x; 0 where another x took that place.

    Args:
        dy: Gradient by the output, (N, C, H', W').
        x: Input of the forward pass, (N, C, H, W); only its shape counts.
        indices: As in max_unpool2d.
        kernel_size: As in max_unpool2d.
        stride: As in max_unpool2d.
        padding: As in max_unpool2d.
        output_size: As in max_unpool2d.

    >>> dy, x = np.array([[[[1.0, 2.0], [3.0, 4.0]]]]), np.zeros((1, 1, 1, 1))
    >>> max_unpool2d_backward(dy, x, np.full(x.shape, 2), 2)
    array([[[[3.]]]])
    """
    size = _unpooled_size(x, kernel_size, stride, padding, output_size)
    check_dy(dy, (*x.shape[:2], *size))
    places = _places(x, indices, size)
    own = np.broadcast_to(np.arange(places.shape[2]), places.shape)
    owner = np.zeros((*x.shape[:2], math.prod(size)), dtype=np.int64)
    np.put_along_axis(owner, places, own, axis=2)
    there = np.take_along_axis(dy.reshape(owner.shape), places, axis=2)
    return np.where(np.take_along_axis(owner, places, axis=2) == own, there, 0).reshape(x.shape)
