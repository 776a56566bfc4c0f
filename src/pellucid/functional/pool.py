"""Pooling: the largest or the mean value of each window, and the gradients."""

from __future__ import annotations

import numpy as np

from pellucid._types import Array
from pellucid.errors import ShapeError
from pellucid.functional._checks import check
from pellucid.functional._windows import crop, pad, taps
from pellucid.shapes import Padding, Pair, adaptive_regions, adaptive_size, cover, output_pair, pair, pool_padding


def _geometry(
    x: Array, kernel_size: object, stride: object, padding: object, ceil_mode: bool
) -> tuple[Pair, Pair, Padding, Padding, Pair]:
    """Return kernel, stride, padding, padding that holds every window, output size."""
    check(x, "x", "N x C x H x W")
    kernel = pair(kernel_size, "kernel_size")
    step = kernel if stride is None else pair(stride, "stride")
    size: Pair = (x.shape[2], x.shape[3])
    sides = pool_padding(padding, kernel)
    out = output_pair(size, kernel, step, sides, ceil_mode=ceil_mode)
    return kernel, step, sides, cover(size, kernel, step, sides, out), out


def _check_dy(dy: Array, shape: tuple[int, ...]) -> None:
    if dy.shape != shape:
        raise ShapeError(f"dy must have the output's shape {shape}, got {dy.shape}")


def max_pool2d(
    x: Array,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    *,
    ceil_mode: bool = False,
) -> Array:
    """Return the largest value of each window; NaN in a window stays NaN.

    Args:
        x: Input, (N, C, H, W).
        kernel_size: Size of the window, a number or (height, width).
        stride: Step of the window; kernel_size if None.
        padding: Cells of minus infinity on each side, at most half of kernel_size.
        ceil_mode: Keep a last window that reaches beyond the edge.

    Returns:
        (N, C, H', W').

    Raises:
        ShapeError: Where no window fits.
        OptionError: For arguments that cannot be.

    >>> max_pool2d(np.array([[[[2.0, 3.0], [5.0, 6.0]]]]), 2)
    array([[[[6.]]]])
    """
    kernel, step, _, reach, out = _geometry(x, kernel_size, stride, padding, ceil_mode)
    y = np.full((*x.shape[:2], *out), -np.inf, dtype=x.dtype)
    for _, _, value in taps(pad(x, reach, -np.inf), kernel, step, (1, 1), out):
        np.maximum(y, value, out=y)
    return y


def max_pool2d_backward(
    dy: Array,
    x: Array,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    *,
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
        ceil_mode: As in max_pool2d.

    >>> max_pool2d_backward(np.array([[[[7.0]]]]), np.ones((1, 1, 2, 2)), 2)
    array([[[[7., 0.],
             [0., 0.]]]])
    """
    kernel, step, _, reach, out = _geometry(x, kernel_size, stride, padding, ceil_mode)
    _check_dy(dy, (*x.shape[:2], *out))
    y = max_pool2d(x, kernel, step, padding, ceil_mode=ceil_mode)
    values = taps(pad(x, reach), kernel, step, (1, 1), out)
    inside = taps(pad(np.ones((1, 1, *x.shape[2:]), dtype=bool), reach), kernel, step, (1, 1), out)
    padded = pad(np.zeros(x.shape, dtype=dy.dtype), reach)
    waiting = np.ones(y.shape, dtype=bool)  # windows whose largest cell was not met yet
    for (_, _, view), (_, _, value), (_, _, real) in zip(
        taps(padded, kernel, step, (1, 1), out), values, inside, strict=True
    ):
        hit = waiting & real & ((value == y) | (value != value))  # only NaN differs from itself, and then y is NaN
        view += np.where(hit, dy, 0)
        waiting ^= hit
    return crop(padded, reach, (x.shape[2], x.shape[3]))


def _window_sizes(x: Array, kernel: Pair, step: Pair, sides: Padding, reach: Padding, out: Pair) -> Array:
    """Return how many cells each window averages over: padding counts, what ceil_mode adds beyond does not."""
    counted = np.zeros((x.shape[2] + sum(reach[0]), x.shape[3] + sum(reach[1])), dtype=x.dtype)
    counted[: x.shape[2] + sum(sides[0]), : x.shape[3] + sum(sides[1])] = 1
    total = np.zeros(out, dtype=x.dtype)
    for _, _, view in taps(counted, kernel, step, (1, 1), out):
        total += view
    return total


def avg_pool2d(
    x: Array,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    *,
    ceil_mode: bool = False,
) -> Array:
    """Return the mean of each window; padding counts as zeros in it (PyTorch's count_include_pad=True).

    Args:
        x: Input, (N, C, H, W).
        kernel_size: Size of the window, a number or (height, width).
        stride: Step of the window; kernel_size if None.
        padding: Zeros on each side, at most half of kernel_size.
        ceil_mode: Keep a last window that reaches beyond the edge.

    Returns:
        (N, C, H', W').

    Raises:
        ShapeError: Where no window fits.
        OptionError: For arguments that cannot be.

    >>> avg_pool2d(np.array([[[[2.0, 3.0], [5.0, 6.0]]]]), 2)
    array([[[[4.]]]])
    """
    kernel, step, sides, reach, out = _geometry(x, kernel_size, stride, padding, ceil_mode)
    total = np.zeros((*x.shape[:2], *out), dtype=x.dtype)
    for _, _, view in taps(pad(x, reach), kernel, step, (1, 1), out):
        total += view
    return total / _window_sizes(x, kernel, step, sides, reach, out)


def avg_pool2d_backward(
    dy: Array,
    x: Array,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    *,
    ceil_mode: bool = False,
) -> Array:
    """Return the gradient of avg_pool2d by x: each cell of a window gets dy / (cells of the window).

    Args:
        dy: Gradient by the output, (N, C, H', W').
        x: Input of the forward pass, (N, C, H, W); only its shape counts.
        kernel_size: As in avg_pool2d.
        stride: As in avg_pool2d.
        padding: As in avg_pool2d.
        ceil_mode: As in avg_pool2d.

    >>> avg_pool2d_backward(np.array([[[[8.0]]]]), np.ones((1, 1, 2, 2)), 2).tolist()
    [[[[2.0, 2.0], [2.0, 2.0]]]]
    """
    kernel, step, sides, reach, out = _geometry(x, kernel_size, stride, padding, ceil_mode)
    _check_dy(dy, (*x.shape[:2], *out))
    share = dy / _window_sizes(x, kernel, step, sides, reach, out)
    padded = pad(np.zeros(x.shape, dtype=share.dtype), reach)
    for _, _, view in taps(padded, kernel, step, (1, 1), out):
        view += share
    return crop(padded, reach, (x.shape[2], x.shape[3]))


def _regions(x: Array, output_size: object) -> list[list[tuple[slice, slice]]]:
    """Return the rectangle that each output cell averages: from floor(i n / o) to ceil((i + 1) n / o)."""
    check(x, "x", "N x C x H x W")
    size: Pair = (x.shape[2], x.shape[3])
    out = adaptive_size(output_size, size)
    bounds = [adaptive_regions(n, o) for n, o in zip(size, out, strict=True)]
    return [[(rows, columns) for columns in bounds[1]] for rows in bounds[0]]


def adaptive_avg_pool2d(x: Array, output_size: int | tuple[int | None, int | None]) -> Array:
    """Return means over as many nearly equal rectangles as the output has cells; 1 gives the global average.

    Args:
        x: Input, (N, C, H, W).
        output_size: Height and width of the output, a number or a pair; None keeps the input's.

    Returns:
        (N, C, H', W').

    >>> adaptive_avg_pool2d(np.arange(6.0).reshape(1, 1, 2, 3), 1)
    array([[[[2.5]]]])
    """
    return np.stack(
        [np.stack([x[:, :, r, c].mean(axis=(2, 3)) for r, c in row], axis=-1) for row in _regions(x, output_size)],
        axis=-2,
    )


def adaptive_avg_pool2d_backward(dy: Array, x: Array, output_size: int | tuple[int | None, int | None]) -> Array:
    """Return the gradient of adaptive_avg_pool2d by x.

    Args:
        dy: Gradient by the output, (N, C, H', W').
        x: Input of the forward pass, (N, C, H, W); only its shape counts.
        output_size: As in adaptive_avg_pool2d.

    >>> adaptive_avg_pool2d_backward(np.array([[[[6.0]]]]), np.ones((1, 1, 2, 3)), 1).sum()
    np.float64(6.0)
    """
    regions = _regions(x, output_size)
    _check_dy(dy, (*x.shape[:2], len(regions), len(regions[0])))
    dx = np.zeros(x.shape, dtype=dy.dtype)
    for i, row in enumerate(regions):
        for j, (r, c) in enumerate(row):
            cells = (r.stop - r.start) * (c.stop - c.start)
            dx[:, :, r, c] += dy[:, :, i, j, None, None] / cells
    return dx
