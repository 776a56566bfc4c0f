"""Adaptive pooling: as many nearly equal regions as the output has cells, and the gradients.

Along an axis of n cells, output i of o reads the cells from floor(i n / o) to ceil((i + 1) n / o), the last one not
included; regions may overlap.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, TypeAlias

import numpy as np

from pellucid._types import Array, Shape
from pellucid.functional._checks import MAPS, check, check_dy
from pellucid.shapes import SizeArgument, adaptive_regions, adaptive_size

_Region: TypeAlias = tuple[slice, ...]


def _regions(dims: int, x: Array, output_size: object) -> tuple[Shape, list[_Region]]:
    """Return the output's size, and the region that each of its cells reads, row by row."""
    check(x, "x", MAPS[dims])
    size = x.shape[2:]
    out = adaptive_size(output_size, size)
    return out, list(itertools.product(*(adaptive_regions(n, o) for n, o in zip(size, out, strict=True))))


def _adaptive_avg_pool(dims: int, x: Array, output_size: object) -> Array:
    out, regions = _regions(dims, x, output_size)
    y = np.empty((*x.shape[:2], math.prod(out)), dtype=x.dtype)
    for i, region in enumerate(regions):
        y[:, :, i] = x[:, :, *region].mean(axis=tuple(range(2, x.ndim)))
    return y.reshape(*x.shape[:2], *out)


def _adaptive_avg_pool_backward(dims: int, dy: Array, x: Array, output_size: object) -> Array:
    out, regions = _regions(dims, x, output_size)
    check_dy(dy, (*x.shape[:2], *out))
    dx, flat = np.zeros(x.shape, dtype=dy.dtype), dy.reshape(*x.shape[:2], len(regions), *[1] * dims)
    for i, region in enumerate(regions):
        view = dx[:, :, *region]
        view += flat[:, :, i] / math.prod(view.shape[2:])
    return dx


def _adaptive_max_pool(dims: int, x: Array, output_size: object, return_indices: bool) -> Array | tuple[Array, Array]:
    out, regions = _regions(dims, x, output_size)
    indices = np.empty((*x.shape[:2], math.prod(out)), dtype=np.int64)
    cells = np.arange(math.prod(x.shape[2:])).reshape(x.shape[2:])
    for i, region in enumerate(regions):
        seen = cells[region].ravel()
        first = x[:, :, *region].reshape(*x.shape[:2], len(seen)).argmax(axis=2)  # of the largest, or the first NaN
        indices[:, :, i] = seen[first]
    y = np.take_along_axis(x.reshape(*x.shape[:2], cells.size), indices, axis=2).reshape(*x.shape[:2], *out)
    return (y, indices.reshape(y.shape)) if return_indices else y


def _adaptive_max_pool_backward(dims: int, dy: Array, x: Array, output_size: object) -> Array:
    _, indices = _adaptive_max_pool(dims, x, output_size, return_indices=True)
    check_dy(dy, indices.shape)
    dx = np.zeros((*x.shape[:2], math.prod(x.shape[2:])), dtype=dy.dtype)
    for i in np.ndindex(*x.shape[:2]):
        np.add.at(dx[i], indices[i].ravel(), dy[i].ravel())
    return dx.reshape(x.shape)


def adaptive_avg_pool1d(x: Array, output_size: SizeArgument) -> Array:
    """Return means over nearly equal parts of (N, C, L); otherwise as adaptive_avg_pool2d.

    >>> adaptive_avg_pool1d(np.array([[[1.0, 2.0, 6.0]]]), 2)
    array([[[1.5, 4. ]]])
    """
    return _adaptive_avg_pool(1, x, output_size)


def adaptive_avg_pool1d_backward(dy: Array, x: Array, output_size: SizeArgument) -> Array:
    """Return the gradient of adaptive_avg_pool1d by x.

    >>> adaptive_avg_pool1d_backward(np.array([[[6.0]]]), np.ones((1, 1, 3)), 1)
    array([[[2., 2., 2.]]])
    """
    return _adaptive_avg_pool_backward(1, dy, x, output_size)


def adaptive_avg_pool2d(x: Array, output_size: int | tuple[int | None, ...] | None) -> Array:
    """Return means over as many nearly equal rectangles as the output has cells; 1 gives the global average.

    Args:
        x: Input, (N, C, H, W).
        output_size: Height and width of the output, a number or a pair; None keeps the input's.

    Returns:
        (N, C, H', W').

    >>> adaptive_avg_pool2d(np.arange(6.0).reshape(1, 1, 2, 3), 1)
    array([[[[2.5]]]])
    """
    return _adaptive_avg_pool(2, x, output_size)


def adaptive_avg_pool2d_backward(dy: Array, x: Array, output_size: int | tuple[int | None, ...] | None) -> Array:
    """Return the gradient of adaptive_avg_pool2d by x.

    Args:
        dy: Gradient by the output, (N, C, H', W').
        x: Input of the forward pass, (N, C, H, W); only its shape counts.
        output_size: As in adaptive_avg_pool2d.

    >>> adaptive_avg_pool2d_backward(np.array([[[[6.0]]]]), np.ones((1, 1, 2, 3)), 1).sum()
    np.float64(6.0)
    """
    return _adaptive_avg_pool_backward(2, dy, x, output_size)


def adaptive_avg_pool3d(x: Array, output_size: int | tuple[int | None, ...] | None) -> Array:
    """Return means over nearly equal parts of (N, C, D, H, W); otherwise as adaptive_avg_pool2d.

    >>> adaptive_avg_pool3d(np.arange(8.0).reshape(1, 1, 2, 2, 2), (2, 1, 1)).ravel()
    array([1.5, 5.5])
    """
    return _adaptive_avg_pool(3, x, output_size)


def adaptive_avg_pool3d_backward(dy: Array, x: Array, output_size: int | tuple[int | None, ...] | None) -> Array:
    """Return the gradient of adaptive_avg_pool3d by x.

    >>> adaptive_avg_pool3d_backward(np.full((1, 1, 1, 1, 1), 6.0), np.ones((1, 1, 1, 2, 3)), 1).ravel()
    array([1., 1., 1., 1., 1., 1.])
    """
    return _adaptive_avg_pool_backward(3, dy, x, output_size)


def adaptive_max_pool1d(x: Array, output_size: SizeArgument, return_indices: bool = False) -> Any:
    """Return the largest values of nearly equal parts of (N, C, L); otherwise as adaptive_max_pool2d.

    >>> adaptive_max_pool1d(np.array([[[1.0, 2.0, 6.0]]]), 2)
    array([[[2., 6.]]])
    """
    return _adaptive_max_pool(1, x, output_size, return_indices)


def adaptive_max_pool1d_backward(dy: Array, x: Array, output_size: SizeArgument) -> Array:
    """Return the gradient of adaptive_max_pool1d by x.

    >>> adaptive_max_pool1d_backward(np.array([[[6.0]]]), np.array([[[1.0, 3.0, 2.0]]]), 1)
    array([[[0., 6., 0.]]])
    """
    return _adaptive_max_pool_backward(1, dy, x, output_size)


def adaptive_max_pool2d(
    x: Array, output_size: int | tuple[int | None, ...] | None, return_indices: bool = False
) -> Any:
    """Return the largest values of as many nearly equal rectangles as the output has cells.

    Args:
        x: Input, (N, C, H, W).
        output_size: Height and width of the output, a number or a pair; None keeps the input's.
        return_indices: Also return where they stand, as max_pool2d does.

    Returns:
        (N, C, H', W'), or with return_indices two arrays of that shape.

    >>> adaptive_max_pool2d(np.arange(6.0).reshape(1, 1, 2, 3), (1, 2))
    array([[[[4., 5.]]]])
    """
    return _adaptive_max_pool(2, x, output_size, return_indices)


def adaptive_max_pool2d_backward(dy: Array, x: Array, output_size: int | tuple[int | None, ...] | None) -> Array:
    """Return the gradient of adaptive_max_pool2d by x: each dy goes to the first largest cell.

    Args:
        dy: Gradient by the output, (N, C, H', W').
        x: Input of the forward pass, (N, C, H, W).
        output_size: As in adaptive_max_pool2d.

    >>> adaptive_max_pool2d_backward(np.array([[[[3.0, 2.0]]]]), np.array([[[[1.0, 7.0, 1.0]]]]), (1, 2))
    array([[[[0., 5., 0.]]]])
    """
    return _adaptive_max_pool_backward(2, dy, x, output_size)


def adaptive_max_pool3d(
    x: Array, output_size: int | tuple[int | None, ...] | None, return_indices: bool = False
) -> Any:
    """Return the largest values of nearly equal parts of (N, C, D, H, W); otherwise as adaptive_max_pool2d.

    >>> adaptive_max_pool3d(np.arange(8.0).reshape(1, 1, 2, 2, 2), (2, 1, 1)).ravel()
    array([3., 7.])
    """
    return _adaptive_max_pool(3, x, output_size, return_indices)


def adaptive_max_pool3d_backward(dy: Array, x: Array, output_size: int | tuple[int | None, ...] | None) -> Array:
    """Return the gradient of adaptive_max_pool3d by x.

    >>> adaptive_max_pool3d_backward(np.full((1, 1, 1, 1, 1), 6.0), np.ones((1, 1, 1, 1, 2)), 1).ravel()
    array([6., 0.])
    """
    return _adaptive_max_pool_backward(3, dy, x, output_size)
