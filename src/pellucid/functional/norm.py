"""Normalizations and their gradients: to mean 0 and variance 1, then scaled and shifted by learned numbers.

They differ in what a mean goes over. Batch norm: each channel, over the batch and all positions (Ioffe, Szegedy: Batch
normalization, 2015). Group norm: each image, over the channels of a group and all positions (Wu, He: Group
normalization, 2018). Layer norm: each image (or position), over the last axes (Ba, Kiros, Hinton: Layer normalization,
2016).
"""

from __future__ import annotations

import math

import numpy as np

from pellucid._types import Array, Shape
from pellucid.errors import OptionError, ShapeError
from pellucid.functional._checks import check_dy, check_float
from pellucid.shapes import integer


def _per_channel(v: Array, x: Array) -> Array:
    """Return numbers of channels so that they can be multiplied with x (N, C, ...)."""
    return v.reshape(-1, *[1] * (x.ndim - 2))


def _all_but_channels(x: Array) -> Shape:
    return (0, *range(2, x.ndim))


def _statistics(x: Array) -> tuple[Array, Array]:
    """Return mean and biased variance of each channel."""
    if x.size // max(x.shape[1], 1) < 2:
        raise ShapeError(
            f"batch norm in training needs more than one value per channel, got x {x.shape}; "
            "use a larger batch, or training=False"
        )
    mean = x.mean(axis=_all_but_channels(x))
    return mean, np.square(x - _per_channel(mean, x)).mean(axis=_all_but_channels(x))


def batch_norm(
    x: Array,
    running_mean: Array,
    running_var: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    """Return weight (x - mean) / sqrt(var + eps) + bias for each channel.

    In training mean and (biased) variance are the batch's, and the running values move towards them in place:
    running = (1 - momentum) running + momentum batch, with the unbiased variance. Else they are the running ones.

    Args:
        x: Input, (N, C), or (N, C, ...) with any axes of positions.
        running_mean: (C,); written in training.
        running_var: (C,); written in training.
        weight: (C,), or None for ones.
        bias: (C,), or None for zeros.
        training: Whether to use the batch's statistics.
        momentum: Share of the batch in the running values.
        eps: Added to the variance.

    Returns:
        Same shape as x.

    Raises:
        ShapeError: For another number of channels; in training, for one value per channel.

    >>> x = np.array([[[[1.0, 3.0]]]])
    >>> mean, var = np.zeros(1), np.ones(1)
    >>> batch_norm(x, mean, var, training=True, eps=0.0), mean.tolist(), var.tolist()
    (array([[[[-1.,  1.]]]]), [0.2], [1.1])
    """
    check_float(x, "x")
    if x.ndim < 2:
        raise ShapeError(f"x must have the axes N x C x ..., got shape {x.shape}")
    if running_mean.shape != x.shape[1:2]:
        raise ShapeError(f"batch norm over {len(running_mean)} channels gets x {x.shape} with {x.shape[1]}")
    mean, var = _statistics(x) if training else (running_mean, running_var)
    if training:
        m = x.size // x.shape[1]
        running_mean[...] = (1 - momentum) * running_mean + momentum * mean
        running_var[...] = (1 - momentum) * running_var + momentum * var * (m / (m - 1))
    scale = 1 / np.sqrt(var + eps) if weight is None else weight / np.sqrt(var + eps)
    y = (x - _per_channel(mean, x)) * _per_channel(scale, x)
    return y if bias is None else y + _per_channel(bias, x)


def batch_norm_backward(
    dy: Array,
    x: Array,
    running_mean: Array,
    running_var: Array,
    weight: Array | None = None,
    training: bool = False,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Return the gradients of batch_norm.

    With x^ = (x - mean) / sqrt(var + eps) and m values per channel: dweight = sum of dy x^, dbias = sum of dy, and
    dx = weight / sqrt(var + eps) (dy - dbias / m - x^ dweight / m) in training, where mean and variance depend on
    x too; without the last two terms else.

    Args:
        dy: Gradient by the output, (N, C, ...).
        x: Input of the forward pass, (N, C, ...).
        running_mean: (C,); used without training.
        running_var: (C,); used without training.
        weight: (C,), or None for ones.
        training: As in the forward pass.
        eps: As in the forward pass.

    Returns:
        dx (N, C, ...), dweight (C,), dbias (C,).

    >>> dx, dw, db = batch_norm_backward(np.ones((2, 1, 1, 1)), np.array([0.0, 2.0]).reshape(2, 1, 1, 1),
    ...                                  np.zeros(1), np.ones(1), training=True)
    >>> np.abs(dx).max() < 1e-12, db.tolist()
    (np.True_, [2.0])
    """
    mean, var = _statistics(x) if training else (running_mean, running_var)
    inverse = 1 / np.sqrt(var + eps)
    normalized = (x - _per_channel(mean, x)) * _per_channel(inverse, x)
    dweight = (dy * normalized).sum(axis=_all_but_channels(x))
    dbias = dy.sum(axis=_all_but_channels(x))
    scale = inverse if weight is None else weight * inverse
    if training:
        m = x.size // x.shape[1]
        dy = dy - _per_channel(dbias / m, x) - normalized * _per_channel(dweight / m, x)
    return dy * _per_channel(scale, x), dweight, dbias


def _normalized(x: Array, axes: int | Shape, eps: float) -> tuple[Array, Array]:
    """Return (x - mean) / sqrt(var + eps) and 1 / sqrt(var + eps), over the given axes."""
    centered = x - x.mean(axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(np.square(centered).mean(axis=axes, keepdims=True) + eps)
    return centered * inverse, inverse


def _normalized_backward(dy: Array, normalized: Array, inverse: Array, axes: int | Shape) -> Array:
    """Return dx: what is left of dy without its mean and without its part along the normalized values, divided."""
    along = normalized * (dy * normalized).mean(axis=axes, keepdims=True)
    dx: Array = inverse * (dy - dy.mean(axis=axes, keepdims=True) - along)
    return dx


def _groups(x: Array, num_groups: int) -> Array:
    """n (g c) ... -> n g (c ...)."""
    check_float(x, "x")
    groups = integer(num_groups, "num_groups")
    if x.ndim < 2:
        raise ShapeError(f"x must have the axes N x C x ..., got shape {x.shape}")
    if x.shape[1] % groups:
        raise OptionError(f"num_groups {groups} must divide the {x.shape[1]} channels of x")
    grouped = x.reshape(len(x), groups, x.shape[1] // groups * math.prod(x.shape[2:]))
    if len(x) * grouped.shape[2] == 1:
        raise ShapeError(f"group norm needs more than one value per group, got x {x.shape}; use fewer groups")
    return grouped


def group_norm(
    x: Array, num_groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Array:
    """Return weight (x - mean) / sqrt(var + eps) + bias; mean and variance are a group's, of channels of one image.

    Args:
        x: Input, (N, C, ...).
        num_groups: Number of groups, which divides C.
        weight: One number for each channel, (C,), or None for ones.
        bias: (C,), or None for zeros.
        eps: Added to the variance.

    Raises:
        OptionError: For groups that do not divide the channels.
        ShapeError: For parameters of another shape.

    >>> group_norm(np.array([[[1.0], [3.0], [5.0], [5.0]]]), 2, eps=0.01).round(2).ravel()
    array([-1.,  1.,  0.,  0.])
    """
    _check_affine(weight, bias, x.shape[1:2])
    y = _normalized(_groups(x, num_groups), 2, eps)[0].reshape(x.shape)
    y = y if weight is None else y * _per_channel(weight, x)
    return y if bias is None else y + _per_channel(bias, x)


def group_norm_backward(
    dy: Array, x: Array, num_groups: int, weight: Array | None = None, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Return the gradients of group_norm.

    Args:
        dy: Gradient by the output, (N, C, ...).
        x: Input of the forward pass, (N, C, ...).
        num_groups: As in group_norm.
        weight: As in group_norm.
        eps: As in group_norm.

    Returns:
        dx (N, C, ...), dweight (C,), dbias (C,).

    >>> dx, dw, db = group_norm_backward(np.ones((1, 2, 3)), np.arange(6.0).reshape(1, 2, 3), 1)
    >>> np.abs(dx).max() < 1e-12, db.tolist()
    (np.True_, [3.0, 3.0])
    """
    check_dy(dy, x.shape)
    normalized, inverse = _normalized(_groups(x, num_groups), 2, eps)
    scaled = dy if weight is None else dy * _per_channel(weight, x)
    dx = _normalized_backward(scaled.reshape(normalized.shape), normalized, inverse, 2).reshape(x.shape)
    dweight = (dy * normalized.reshape(x.shape)).sum(axis=_all_but_channels(x))
    return dx, dweight, dy.sum(axis=_all_but_channels(x))


def _last_axes(x: Array, normalized_shape: int | Shape) -> Shape:
    check_float(x, "x")
    shape = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    shape = tuple(integer(n, "normalized_shape") for n in shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(f"x {x.shape} must end with normalized_shape {shape}")
    return tuple(range(-len(shape), 0))


def _check_affine(weight: Array | None, bias: Array | None, shape: Shape) -> None:
    for name, array in (("weight", weight), ("bias", bias)):
        if array is not None and array.shape != shape:
            raise ShapeError(f"{name} must have shape {shape}, got {array.shape}")


def layer_norm(
    x: Array,
    normalized_shape: int | Shape,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """Return weight (x - mean) / sqrt(var + eps) + bias; mean and variance go over the last axes.

    Args:
        x: Input, (..., *normalized_shape).
        normalized_shape: Sizes of the axes that a mean goes over.
        weight: Of the shape normalized_shape, or None for ones.
        bias: Same shape, or None for zeros.
        eps: Added to the variance.

    Raises:
        ShapeError: Where the sizes do not fit.

    >>> layer_norm(np.array([[1.0, 3.0], [6.0, 4.0]]), 2, eps=0.0)
    array([[-1.,  1.],
           [ 1., -1.]])
    """
    axes = _last_axes(x, normalized_shape)
    _check_affine(weight, bias, x.shape[axes[0] :])
    y = _normalized(x, axes, eps)[0]
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def layer_norm_backward(
    dy: Array, x: Array, normalized_shape: int | Shape, weight: Array | None = None, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Return the gradients of layer_norm.

    Args:
        dy: Gradient by the output, of the shape of x.
        x: Input of the forward pass.
        normalized_shape: As in layer_norm.
        weight: As in layer_norm.
        eps: As in layer_norm.

    Returns:
        dx, dweight, dbias, of the shapes of x, normalized_shape and normalized_shape.

    >>> dx, dw, db = layer_norm_backward(np.ones((3, 2)), np.arange(6.0).reshape(3, 2), 2)
    >>> np.abs(dx).max() < 1e-12, db.tolist()
    (np.True_, [3.0, 3.0])
    """
    axes = _last_axes(x, normalized_shape)
    check_dy(dy, x.shape)
    normalized, inverse = _normalized(x, axes, eps)
    dx = _normalized_backward(dy if weight is None else dy * weight, normalized, inverse, axes)
    others = tuple(range(x.ndim - len(axes)))
    return dx, (dy * normalized).sum(axis=others), dy.sum(axis=others)
