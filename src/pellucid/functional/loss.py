"""Losses and their gradients by the network's output.

Each loss is a term for every sample or element, reduced to its mean, its sum, or not at all (reduction="mean", "sum",
"none"). Then f_backward takes dy, the gradient by the value: 1, or with "none" an array like the terms.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pellucid._types import Array
from pellucid.errors import DataError, OptionError, ShapeError, unknown
from pellucid.functional._checks import check_float
from pellucid.functional.activation import log_softmax, sigmoid, softmax
from pellucid.shapes import number

REDUCTIONS = ("mean", "sum", "none")


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


def _divisor(count: float, reduction: str) -> float:
    """Return by what the sum of all terms is divided; count is that of a mean."""
    if reduction not in REDUCTIONS:
        raise unknown("reduction", reduction, REDUCTIONS)
    return count if reduction == "mean" else 1.0


def cross_entropy(
    logits: Array,
    target: Array,
    weight: Array | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    """Return the mean of -log softmax(logits) at the target class.

    With labels y the mean is weighted: sum of w[y] l / sum of w[y]. With rows of probabilities it divides by N.

    Args:
        logits: Scores before softmax, (N, K).
        target: Labels (N,) as integers, or rows of probabilities (one-hot) (N, K) as floats.
        weight: Weight of each class, (K,).
        label_smoothing: Share of the target that is spread evenly over all classes.
        reduction: "mean", "sum", or "none" for an array (N,).

    Raises:
        ShapeError: Where shapes do not fit.
        DataError: For labels out of range.

    >>> round(cross_entropy(np.zeros((2, 10)), np.array([3, 7])), 4)
    2.3026
    """
    q, z = _class_shares(logits, target, weight, label_smoothing)
    z = _divisor(z, reduction)
    log_p = log_softmax(logits)
    terms = -np.multiply(q, log_p, where=q != 0, out=np.zeros_like(log_p))
    if reduction == "none":
        return terms.sum(axis=1)
    return float(terms.sum() / z) if z else float("nan")


def cross_entropy_backward(
    logits: Array,
    target: Array,
    weight: Array | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    dy: float | Array = 1.0,
) -> Array:
    """Return the gradient of cross_entropy by the logits: (softmax - target) / N without weights.

    Args:
        logits: As in cross_entropy.
        target: As in cross_entropy.
        weight: As in cross_entropy.
        label_smoothing: As in cross_entropy.
        reduction: As in cross_entropy.
        dy: Gradient by the value, a number or (N,).

    >>> cross_entropy_backward(np.zeros((1, 2)), np.array([1]))
    array([[ 0.5, -0.5]])
    """
    q, z = _class_shares(logits, target, weight, label_smoothing)
    gradient: Array = (softmax(logits) * q.sum(axis=1, keepdims=True) - q) / (_divisor(z, reduction) or 1.0)
    return gradient * _per_row(dy)


def _per_row(dy: float | Array) -> float | Array:
    return dy[:, None] if isinstance(dy, np.ndarray) else dy


def nll_loss(log_p: Array, target: Array, weight: Array | None = None, reduction: str = "mean") -> Any:
    """Return the mean of -log_p at the target class, weighted as in cross_entropy: what stands behind log_softmax.

    Args:
        log_p: Logarithms of probabilities, (N, K).
        target: Labels, integers, (N,).
        weight: Weight of each class, (K,).
        reduction: "mean", "sum", or "none" for an array (N,).

    Raises:
        ShapeError: Where shapes do not fit.
        DataError: For labels out of range, or targets that are no labels.

    >>> nll_loss(np.array([[-1.0, -3.0], [-2.0, -5.0]]), np.array([1, 0]))
    2.5
    """
    shares, z = _label_weights(log_p, target, weight)
    z = _divisor(z, reduction)
    terms = -np.multiply(shares, log_p, where=shares != 0, out=np.zeros_like(log_p))
    if reduction == "none":
        return terms.sum(axis=1)
    return float(terms.sum() / z) if z else float("nan")


def nll_loss_backward(
    log_p: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    dy: float | Array = 1.0,
) -> Array:
    """Return the gradient of nll_loss by log_p: -1 / N at each target without weights.

    Args:
        log_p: As in nll_loss.
        target: As in nll_loss.
        weight: As in nll_loss.
        reduction: As in nll_loss.
        dy: Gradient by the value, a number or (N,).

    >>> nll_loss_backward(np.array([[-1.0, -3.0], [-2.0, -5.0]]), np.array([1, 0]))
    array([[ 0. , -0.5],
           [-0.5,  0. ]])
    """
    shares, z = _label_weights(log_p, target, weight)
    return 0 - shares / (_divisor(z, reduction) or 1.0) * _per_row(dy)


def _label_weights(log_p: Array, target: Array, weight: Array | None) -> tuple[Array, float]:
    """Return the weight of each sample at its class, (N, K), and their sum."""
    if np.issubdtype(np.asarray(target).dtype, np.floating):
        raise DataError("this loss takes labels, got floats; use cross_entropy for rows of probabilities")
    return _class_shares(log_p, target, weight, 0.0)


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


def _reduced(terms: Array, reduction: str) -> Any:
    divisor = _divisor(max(terms.size, 1), reduction)
    return terms if reduction == "none" else float(terms.sum() / divisor)


def _spread(slopes: Array, reduction: str, dy: float | Array) -> Array:
    """Return the gradient by the output for the slope of each term."""
    gradient: Array = slopes / _divisor(max(slopes.size, 1), reduction) * dy
    return gradient


def mse_loss(output: Array, target: Array, reduction: str = "mean") -> Any:
    """Return the mean over all elements of (output - target)^2.

    Args:
        output: Any shape.
        target: Same shape, float.
        reduction: "mean", "sum", or "none" for an array of the output's shape.

    >>> mse_loss(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    2.0
    """
    return _reduced(np.square(output - _same_shape(output, target)), reduction)


def mse_loss_backward(output: Array, target: Array, reduction: str = "mean", dy: float | Array = 1.0) -> Array:
    """Return the gradient of mse_loss by the output: 2 (output - target) / (number of elements).

    >>> mse_loss_backward(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    array([0., 2.])
    """
    return _spread(2 * (output - _same_shape(output, target)), reduction, dy)


def l1_loss(output: Array, target: Array, reduction: str = "mean") -> Any:
    """Return the mean over all elements of |output - target|.

    Args:
        output: Any shape.
        target: Same shape, float.
        reduction: "mean", "sum", or "none" for an array of the output's shape.

    >>> l1_loss(np.array([1.0, 4.0]), np.array([1.0, 1.0]))
    1.5
    """
    return _reduced(np.abs(output - _same_shape(output, target)), reduction)


def l1_loss_backward(output: Array, target: Array, reduction: str = "mean", dy: float | Array = 1.0) -> Array:
    """Return the gradient of l1_loss by the output: the sign of output - target, 0 at 0, / (number of elements).

    >>> l1_loss_backward(np.array([1.0, 4.0]), np.array([1.0, 1.0]))
    array([0. , 0.5])
    """
    return _spread(np.sign(output - _same_shape(output, target)), reduction, dy)


def huber_loss(output: Array, target: Array, reduction: str = "mean", delta: float = 1.0) -> Any:
    """Return the mean over all elements of d^2 / 2 for d = |output - target| < delta, else delta (d - delta / 2).

    Args:
        output: Any shape.
        target: Same shape, float.
        reduction: "mean", "sum", or "none" for an array of the output's shape.
        delta: Where the parabola becomes a line, above 0.

    >>> huber_loss(np.array([0.5, 3.0]), np.array([0.0, 0.0]), reduction="none")
    array([0.125, 2.5  ])
    """
    d = np.abs(output - _same_shape(output, target))
    delta = _positive(delta, "delta")
    return _reduced(np.where(d < delta, d * d / 2, delta * (d - delta / 2)), reduction)


def huber_loss_backward(
    output: Array, target: Array, reduction: str = "mean", delta: float = 1.0, dy: float | Array = 1.0
) -> Array:
    """Return the gradient of huber_loss by the output: output - target, cut off at delta and -delta.

    >>> huber_loss_backward(np.array([0.5, 3.0]), np.array([0.0, 0.0]), reduction="sum")
    array([0.5, 1. ])
    """
    delta = _positive(delta, "delta")
    return _spread(np.clip(output - _same_shape(output, target), -delta, delta), reduction, dy)


def _positive(value: float, name: str) -> float:
    if number(value, name) == 0:
        raise OptionError(f"{name} must be above 0")
    return float(value)


def smooth_l1_loss(output: Array, target: Array, reduction: str = "mean", beta: float = 1.0) -> Any:
    """Return huber_loss for delta = beta, divided by beta, so that far from the target the slope is 1.

    Args:
        output: Any shape.
        target: Same shape, float.
        reduction: "mean", "sum", or "none" for an array of the output's shape.
        beta: Where the parabola becomes a line, at least 0; 0 gives l1_loss.

    >>> smooth_l1_loss(np.array([0.5, 3.0]), np.array([0.0, 0.0]), reduction="none", beta=2.0)
    array([0.0625, 2.    ])
    """
    if number(beta, "beta") == 0:
        return l1_loss(output, target, reduction)
    return huber_loss(output, target, reduction, beta) / beta


def smooth_l1_loss_backward(
    output: Array, target: Array, reduction: str = "mean", beta: float = 1.0, dy: float | Array = 1.0
) -> Array:
    """Return the gradient of smooth_l1_loss by the output: (output - target) / beta, cut off at 1 and -1.

    >>> smooth_l1_loss_backward(np.array([0.5, 3.0]), np.array([0.0, 0.0]), reduction="sum", beta=2.0)
    array([0.25, 1.  ])
    """
    if number(beta, "beta") == 0:
        return l1_loss_backward(output, target, reduction, dy)
    return huber_loss_backward(output, target, reduction, beta, dy) / beta


def _weighted(terms: Array, weight: Array | None, name: str = "weight") -> Array:
    """Return terms times weights, which may be one for each output or for each element."""
    if weight is None:
        return terms
    try:
        if np.broadcast_shapes(np.shape(weight), terms.shape) != terms.shape:
            raise ValueError
    except ValueError:
        raise ShapeError(f"{name} of shape {np.shape(weight)} does not fit an output of shape {terms.shape}") from None
    return np.asarray(terms * np.asarray(weight, dtype=terms.dtype))


def _between(values: Array, what: str) -> None:
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        bad = values.max() if values.max() > 1 else values.min()
        raise DataError(
            f"{what} must be probabilities between 0 and 1, got {bad:g}; for outputs of any size use "
            "binary_cross_entropy_with_logits"
        )


def binary_cross_entropy(output: Array, target: Array, weight: Array | None = None, reduction: str = "mean") -> Any:
    """Return the mean over all elements of -t log p - (1 - t) log(1 - p), each logarithm at least -100.

    Args:
        output: Probabilities p, any shape.
        target: t between 0 and 1, same shape, float.
        weight: Of each output or element, None for ones.
        reduction: "mean", "sum", or "none" for an array of the output's shape.

    Raises:
        DataError: For an output or target outside 0 to 1.

    >>> round(binary_cross_entropy(np.array([0.5, 0.25]), np.array([1.0, 0.0]), reduction="sum"), 4)
    0.9808
    """
    target = _same_shape(output, target)
    _between(output, "outputs")
    _between(target, "targets")
    with np.errstate(divide="ignore"):
        log_p, log_rest = np.maximum(np.log(output), -100), np.maximum(np.log1p(-output), -100)
    return _reduced(_weighted(-target * log_p - (1 - target) * log_rest, weight), reduction)


def binary_cross_entropy_backward(
    output: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    dy: float | Array = 1.0,
) -> Array:
    """Return the gradient by the output: (p - t) / (p (1 - p)) / (number of elements), the divisor at least 1e-12.

    Args:
        output: As in binary_cross_entropy.
        target: As in binary_cross_entropy.
        weight: As in binary_cross_entropy.
        reduction: As in binary_cross_entropy.
        dy: Gradient by the value, a number or an array of the output's shape.

    >>> binary_cross_entropy_backward(np.array([0.5]), np.array([1.0]))
    array([-2.])
    """
    target = _same_shape(output, target)
    slopes = (output - target) / np.maximum(output * (1 - output), 1e-12)
    return _spread(_weighted(slopes, weight), reduction, dy)


def binary_cross_entropy_with_logits(
    output: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> Any:
    """Return the mean over all elements of -t log s(x) - (1 - t) log(1 - s(x)), s the sigmoid.

    Computed as max(x, 0) - x t + log(1 + exp(-|x|)), which does not overflow.

    Args:
        output: Logits x, any shape.
        target: t between 0 and 1, same shape, float.
        weight: Of each output or element, None for ones.
        reduction: "mean", "sum", or "none" for an array of the output's shape.
        pos_weight: What -t log s(x) is multiplied by, for each output or element; None for ones.

    >>> round(binary_cross_entropy_with_logits(np.array([0.0]), np.array([1.0])), 4)
    0.6931
    """
    target = _same_shape(output, target)
    rest = np.log1p(np.exp(-np.abs(output)))
    if pos_weight is None:
        terms = np.maximum(output, 0) - output * target + rest
    else:
        hit = _weighted(target, pos_weight, "pos_weight")
        terms = (1 - target) * (np.maximum(output, 0) + rest) + hit * (np.maximum(-output, 0) + rest)
    return _reduced(_weighted(terms, weight), reduction)


def binary_cross_entropy_with_logits_backward(
    output: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
    dy: float | Array = 1.0,
) -> Array:
    """Return the gradient by the logits: (sigmoid(x) - t) / (number of elements) without weights.

    Args:
        output: As in binary_cross_entropy_with_logits.
        target: As in binary_cross_entropy_with_logits.
        weight: As in binary_cross_entropy_with_logits.
        reduction: As in binary_cross_entropy_with_logits.
        pos_weight: As in binary_cross_entropy_with_logits.
        dy: Gradient by the value, a number or an array of the output's shape.

    >>> binary_cross_entropy_with_logits_backward(np.array([0.0]), np.array([1.0]))
    array([-0.5])
    """
    target = _same_shape(output, target)
    if pos_weight is None:
        slopes = sigmoid(output) - target
    else:
        hit = _weighted(target, pos_weight, "pos_weight")
        slopes = (1 - target + hit) * sigmoid(output) - hit
    return _spread(_weighted(slopes, weight), reduction, dy)
