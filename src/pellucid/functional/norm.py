"""Batch normalization and its gradients (Ioffe, Szegedy: Batch normalization, 2015)."""

from __future__ import annotations

import numpy as np

from pellucid._types import Array
from pellucid.errors import ShapeError
from pellucid.functional._checks import check


def _per_channel(v: Array) -> Array:
    return v[:, None, None]


def _statistics(x: Array) -> tuple[Array, Array]:
    """Return mean and biased variance of each channel."""
    values = x.shape[0] * x.shape[2] * x.shape[3]
    if values < 2:
        raise ShapeError(
            f"batch norm in training needs more than one value per channel, got x {x.shape}; "
            "use a larger batch, or training=False"
        )
    mean = x.mean(axis=(0, 2, 3))
    return mean, np.square(x - _per_channel(mean)).mean(axis=(0, 2, 3))


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
        x: Input, (N, C, H, W).
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
    check(x, "x", "N x C x H x W")
    if running_mean.shape != x.shape[1:2]:
        raise ShapeError(f"batch norm over {len(running_mean)} channels gets x {x.shape} with {x.shape[1]}")
    mean, var = _statistics(x) if training else (running_mean, running_var)
    if training:
        m = x.shape[0] * x.shape[2] * x.shape[3]
        running_mean[...] = (1 - momentum) * running_mean + momentum * mean
        running_var[...] = (1 - momentum) * running_var + momentum * var * (m / (m - 1))
    scale = 1 / np.sqrt(var + eps) if weight is None else weight / np.sqrt(var + eps)
    y = (x - _per_channel(mean)) * _per_channel(scale)
    return y if bias is None else y + _per_channel(bias)


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
        dy: Gradient by the output, (N, C, H, W).
        x: Input of the forward pass, (N, C, H, W).
        running_mean: (C,); used without training.
        running_var: (C,); used without training.
        weight: (C,), or None for ones.
        training: As in the forward pass.
        eps: As in the forward pass.

    Returns:
        dx (N, C, H, W), dweight (C,), dbias (C,).

    >>> dx, dw, db = batch_norm_backward(np.ones((2, 1, 1, 1)), np.array([0.0, 2.0]).reshape(2, 1, 1, 1),
    ...                                  np.zeros(1), np.ones(1), training=True)
    >>> np.abs(dx).max() < 1e-12, db.tolist()
    (np.True_, [2.0])
    """
    mean, var = _statistics(x) if training else (running_mean, running_var)
    inverse = 1 / np.sqrt(var + eps)
    normalized = (x - _per_channel(mean)) * _per_channel(inverse)
    dweight = (dy * normalized).sum(axis=(0, 2, 3))
    dbias = dy.sum(axis=(0, 2, 3))
    scale = inverse if weight is None else weight * inverse
    if training:
        m = x.shape[0] * x.shape[2] * x.shape[3]
        dy = dy - _per_channel(dbias / m) - normalized * _per_channel(dweight / m)
    return dy * _per_channel(scale), dweight, dbias
