"""Losses and their gradients by the network's output. Each value is a mean over what its docstring says."""

from __future__ import annotations

import numpy as np

from pellucid._types import Array
from pellucid.errors import DataError, OptionError, ShapeError
from pellucid.functional._checks import check_float
from pellucid.functional.activation import log_softmax, sigmoid, softmax


def one_hot(num_classes: int, labels: Array) -> Array:
    """Return rows with a 1 at each label.

    Args:
        num_classes: K.
        labels: Integers from 0 to K - 1, (N,).

    Returns:
        float64, (N, K).

    Raises:
        DataError: For labels that are no whole numbers or out of range.

    >>> one_hot(3, np.array([2, 0]))
    array([[0., 0., 1.],
           [1., 0., 0.]])
    """
    labels = _labels(np.asarray(labels), num_classes)
    return np.asarray(np.eye(num_classes)[labels])


def _labels(labels: Array, k: int) -> Array:
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels must be whole numbers, got {labels.dtype}; use labels.astype(int)")
    if labels.ndim != 1:
        raise ShapeError(f"labels must have shape (N,), got {labels.shape}")
    if labels.size and (labels.min() < 0 or labels.max() >= k):
        bad = labels.min() if labels.min() < 0 else labels.max()
        raise DataError(f"label {bad} is out of range; with {k} classes labels are 0 to {k - 1}")
    return labels


def _class_shares(logits: Array, target: Array, weight: Array | None, label_smoothing: float) -> tuple[Array, float]:
    """Return q (N, K) and Z such that the loss is -sum(q log p) / Z."""
    check_float(logits, "logits")
    if logits.ndim != 2:
        raise ShapeError(f"cross-entropy takes logits of shape (N, K), got {logits.shape}; put a Flatten before")
    n, k = logits.shape
    if not 0 <= label_smoothing <= 1:
        raise OptionError(f"label_smoothing must lie between 0 and 1, got {label_smoothing:g}")
    if weight is not None and np.shape(weight) != (k,):
        raise ShapeError(f"class weights must have shape ({k},), got {np.shape(weight)}")
    w = np.ones(k, dtype=logits.dtype) if weight is None else np.asarray(weight, dtype=logits.dtype)
    target = np.asarray(target)
    if np.issubdtype(target.dtype, np.floating):
        if target.shape != logits.shape:
            raise ShapeError(f"float targets must have the shape {logits.shape} of the logits, got {target.shape}")
        shares, z = target.astype(logits.dtype), float(n)
    else:
        target = _labels(target, k)
        if len(target) != n:
            raise ShapeError(f"there are {n} rows of logits, but {len(target)} labels")
        shares, z = one_hot(k, target).astype(logits.dtype), float(w[target].sum())
    return w * ((1 - label_smoothing) * shares + label_smoothing / k), z


def cross_entropy(logits: Array, target: Array, weight: Array | None = None, label_smoothing: float = 0.0) -> float:
    """Return the mean of -log softmax(logits) at the target class.

    With labels y the mean is weighted: sum of w[y] l / sum of w[y]. With rows of probabilities it divides by N.

    Args:
        logits: Scores before softmax, (N, K).
        target: Labels (N,) as integers, or rows of probabilities (one-hot) (N, K) as floats.
        weight: Weight of each class, (K,).
        label_smoothing: Share of the target that is spread evenly over all classes.

    Raises:
        ShapeError: Where shapes do not fit.
        DataError: For labels out of range.

    >>> round(cross_entropy(np.zeros((2, 10)), np.array([3, 7])), 4)
    2.3026
    """
    q, z = _class_shares(logits, target, weight, label_smoothing)
    log_p = log_softmax(logits)
    total = np.multiply(q, log_p, where=q != 0, out=np.zeros_like(log_p)).sum()
    return float(-total / z) if z else float("nan")


def cross_entropy_backward(
    logits: Array, target: Array, weight: Array | None = None, label_smoothing: float = 0.0
) -> Array:
    """Return the gradient of cross_entropy by the logits: (softmax - target) / N without weights.

    Args:
        logits: As in cross_entropy.
        target: As in cross_entropy.
        weight: As in cross_entropy.
        label_smoothing: As in cross_entropy.

    >>> cross_entropy_backward(np.zeros((1, 2)), np.array([1]))
    array([[ 0.5, -0.5]])
    """
    q, z = _class_shares(logits, target, weight, label_smoothing)
    gradient: Array = (softmax(logits) * q.sum(axis=1, keepdims=True) - q) / (z or 1.0)
    return gradient


def _same_shape(output: Array, target: Array) -> Array:
    check_float(output, "output")
    target = np.asarray(target)
    if not np.issubdtype(target.dtype, np.floating):
        raise DataError(
            f"this loss takes float targets of the output's shape {output.shape}, got {target.dtype}; "
            "use CrossEntropyLoss for labels"
        )
    if output.shape != target.shape:
        raise ShapeError(f"targets must have the output's shape {output.shape}, got {target.shape}")
    return target.astype(output.dtype, copy=False)


def mse_loss(output: Array, target: Array) -> float:
    """Return the mean over all elements of (output - target)^2.

    Args:
        output: Any shape.
        target: Same shape, float.

    >>> mse_loss(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    2.0
    """
    return float(np.square(output - _same_shape(output, target)).sum() / max(output.size, 1))


def mse_loss_backward(output: Array, target: Array) -> Array:
    """Return the gradient of mse_loss by the output: 2 (output - target) / (number of elements).

    >>> mse_loss_backward(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    array([0., 2.])
    """
    return 2 * (output - _same_shape(output, target)) / max(output.size, 1)


def binary_cross_entropy_with_logits(output: Array, target: Array) -> float:
    """Return the mean over all elements of -t log s(x) - (1 - t) log(1 - s(x)), s the sigmoid.

    Computed as max(x, 0) - x t + log(1 + exp(-|x|)), which does not overflow.

    Args:
        output: Logits x, any shape.
        target: t between 0 and 1, same shape, float.

    >>> round(binary_cross_entropy_with_logits(np.array([0.0]), np.array([1.0])), 4)
    0.6931
    """
    target = _same_shape(output, target)
    terms = np.maximum(output, 0) - output * target + np.log1p(np.exp(-np.abs(output)))
    return float(terms.sum() / max(output.size, 1))


def binary_cross_entropy_with_logits_backward(output: Array, target: Array) -> Array:
    """Return the gradient by the logits: (sigmoid(x) - t) / (number of elements).

    >>> binary_cross_entropy_with_logits_backward(np.array([0.0]), np.array([1.0]))
    array([-0.5])
    """
    return (sigmoid(output) - _same_shape(output, target)) / max(output.size, 1)
