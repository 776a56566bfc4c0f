"""Activations, element by element or along the classes, and their gradients. None works in place."""

from __future__ import annotations

import math

import numpy as np

from pellucid._types import Array
from pellucid.errors import OptionError, ShapeError


def relu(x: Array) -> Array:
    """Return max(x, 0); NaN stays NaN.

    >>> relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    return np.maximum(x, 0)


def relu_backward(dy: Array, x: Array) -> Array:
    """Return dy where x > 0, else 0: the gradient at 0 is 0.

    >>> relu_backward(np.array([5.0, 5.0, 5.0]), np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 5.])
    """
    return np.where(x <= 0, 0, dy)


def leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
    """Return x where x > 0, else negative_slope x.

    >>> leaky_relu(np.array([-1.0, 2.0]), 0.5)
    array([-0.5,  2. ])
    """
    return np.where(x > 0, x, negative_slope * x)


def leaky_relu_backward(dy: Array, x: Array, negative_slope: float = 0.01) -> Array:
    """Return dy where x > 0, else negative_slope dy.

    >>> leaky_relu_backward(np.array([4.0, 4.0]), np.array([-1.0, 2.0]), 0.5)
    array([2., 4.])
    """
    return np.where(x > 0, dy, negative_slope * dy)


def prelu(x: Array, weight: Array) -> Array:
    """Return x where x > 0, else weight x, with one learned slope for all or one for each channel.

    He et al.: Delving deep into rectifiers, 2015.

    Args:
        x: Input, (N, C, ...).
        weight: (1,) or (C,).

    Raises:
        ShapeError: For another number of slopes.

    >>> prelu(np.array([[-1.0, 2.0]]), np.array([0.5]))
    array([[-0.5,  2. ]])
    """
    return np.where(x > 0, x, _slopes(x, weight) * x)


def prelu_backward(dy: Array, x: Array, weight: Array) -> tuple[Array, Array]:
    """Return the gradients of prelu: dx = dy or weight dy, dweight = sum of dy x where x <= 0.

    Args:
        dy: Gradient by the output, (N, C, ...).
        x: Input of the forward pass, (N, C, ...).
        weight: (1,) or (C,).

    Returns:
        dx, dweight.

    >>> dx, dw = prelu_backward(np.array([[4.0, 4.0]]), np.array([[-1.0, 2.0]]), np.array([0.5]))
    >>> dx.tolist(), dw.tolist()
    ([[2.0, 4.0]], [-4.0])
    """
    by_slope = np.where(x > 0, 0, dy * x)
    others = None if weight.size == 1 else (0, *range(2, x.ndim))
    return np.where(x > 0, dy, _slopes(x, weight) * dy), by_slope.sum(axis=others).reshape(weight.shape)


def _slopes(x: Array, weight: Array) -> Array:
    if weight.shape == (1,):
        return weight
    if x.ndim < 2 or weight.shape != x.shape[1:2]:
        raise ShapeError(
            f"weight must have one slope for all or one for each channel of x {x.shape}, got {weight.shape}"
        )
    return weight.reshape(-1, *[1] * (x.ndim - 2))


def elu(x: Array, alpha: float = 1.0) -> Array:
    """Return x where x > 0, else alpha (exp(x) - 1) (Clevert, Unterthiner, Hochreiter, 2015).

    >>> elu(np.array([-np.inf, 0.0, 2.0]))
    array([-1.,  0.,  2.])
    """
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def elu_backward(dy: Array, x: Array, alpha: float = 1.0) -> Array:
    """Return dy where x > 0, else alpha exp(x) dy.

    >>> elu_backward(np.array([3.0, 3.0]), np.array([0.0, 2.0]), 0.5)
    array([1.5, 3. ])
    """
    return np.where(x > 0, dy, alpha * np.exp(np.minimum(x, 0)) * dy)


def silu(x: Array) -> Array:
    """Return x sigmoid(x), also called swish.

    >>> silu(np.array([0.0, 2.0])).round(4)
    array([0.    , 1.7616])
    """
    return np.asarray(x * sigmoid(x))


def silu_backward(dy: Array, x: Array) -> Array:
    """Return dy s (1 + x (1 - s)) for s = sigmoid(x).

    >>> silu_backward(np.array([4.0]), np.array([0.0]))
    array([2.])
    """
    s = sigmoid(x)
    return np.asarray(dy * s * (1 + x * (1 - s)))


_TANH_SLOPE, _TANH_CUBE = math.sqrt(2 / math.pi), 0.044715


def gelu(x: Array, approximate: str = "none") -> Array:
    """Return x times the probability that a normal number lies below x (Hendrycks, Gimpel: GELUs, 2016).

    Args:
        x: Any shape.
        approximate: "none" for the probability itself, "tanh" for (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.

    >>> gelu(np.array([0.0, 1.0])).round(4), gelu(np.array([0.0, 1.0]), "tanh").round(4)
    (array([0.    , 0.8413]), array([0.    , 0.8412]))
    """
    return x * _below(x, approximate)


def gelu_backward(dy: Array, x: Array, approximate: str = "none") -> Array:
    """Return dy (p + x p') for the probability p of gelu.

    Args:
        dy: Gradient by the output.
        x: Input of the forward pass.
        approximate: As in gelu.

    >>> gelu_backward(np.array([4.0]), np.array([0.0]))
    array([2.])
    """
    p = _below(x, approximate)
    if approximate == "tanh":
        slope = 2 * p * (1 - p) * _TANH_SLOPE * (1 + 3 * _TANH_CUBE * x * x)
    else:
        slope = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return np.asarray(dy * (p + x * slope))


def _below(x: Array, approximate: str) -> Array:
    """Return (about) the probability that a normal number lies below x."""
    if approximate == "tanh":
        return (1 + np.tanh(_TANH_SLOPE * (x + _TANH_CUBE * x * x * x))) / 2
    if approximate != "none":
        raise OptionError(f'approximate must be "none" or "tanh", got {approximate!r}')
    from scipy.special import ndtr

    return np.asarray(ndtr(x))


def softplus(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """Return log(1 + exp(beta x)) / beta, a smooth ReLU; x itself where beta x lies above the threshold.

    >>> softplus(np.array([0.0, 30.0])).round(4)
    array([ 0.6931, 30.    ])
    """
    return np.where(beta * x > threshold, x, np.log1p(np.exp(np.minimum(beta * x, threshold))) / beta)


def softplus_backward(dy: Array, x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """Return dy sigmoid(beta x), and dy where beta x lies above the threshold.

    >>> softplus_backward(np.array([4.0, 4.0]), np.array([0.0, 30.0]))
    array([2., 4.])
    """
    return np.where(beta * x > threshold, dy, dy * sigmoid(beta * x))


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), without overflow for any x.

    >>> sigmoid(np.array([-1e4, 0.0, 1e4]))
    array([0. , 0.5, 1. ])
    """
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def sigmoid_backward(dy: Array, y: Array) -> Array:
    """Return dy y (1 - y) for y = sigmoid(x).

    >>> sigmoid_backward(np.array([4.0]), np.array([0.5]))
    array([1.])
    """
    dx: Array = dy * y * (1 - y)
    return dx


def tanh(x: Array) -> Array:
    """Return the hyperbolic tangent.

    >>> tanh(np.array([0.0]))
    array([0.])
    """
    return np.tanh(x)


def tanh_backward(dy: Array, y: Array) -> Array:
    """Return dy (1 - y^2) for y = tanh(x).

    >>> tanh_backward(np.array([4.0]), np.array([0.5]))
    array([3.])
    """
    dx: Array = dy * (1 - y * y)
    return dx


def softmax(x: Array, dim: int = -1) -> Array:
    """Return exp(x) / sum of exp(x) along an axis; the largest entry is subtracted first, so nothing overflows.

    Args:
        x: Any shape.
        dim: The axis that sums to 1.

    >>> softmax(np.array([[1200.0, 1200.0]]))
    array([[0.5, 0.5]])
    """
    e = np.exp(x - x.max(axis=dim, keepdims=True))
    return np.asarray(e / e.sum(axis=dim, keepdims=True))


def softmax_backward(dy: Array, y: Array, dim: int = -1) -> Array:
    """Return y (dy - sum of dy y along the axis) for y = softmax(x).

    >>> softmax_backward(np.array([[1.0, 1.0]]), np.array([[0.25, 0.75]]))
    array([[0., 0.]])
    """
    return np.asarray(y * (dy - (dy * y).sum(axis=dim, keepdims=True)))


def log_softmax(x: Array, dim: int = -1) -> Array:
    """Return x - log of the sum of exp(x) along an axis.

    >>> log_softmax(np.array([[0.0, 0.0]])).round(4)
    array([[-0.6931, -0.6931]])
    """
    shifted = x - x.max(axis=dim, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True)))


def log_softmax_backward(dy: Array, y: Array, dim: int = -1) -> Array:
    """Return dy - exp(y) (sum of dy along the axis) for y = log_softmax(x).

    >>> log_softmax_backward(np.array([[1.0, 0.0]]), np.log(np.array([[0.25, 0.75]])))
    array([[ 0.75, -0.75]])
    """
    return np.asarray(dy - np.exp(y) * dy.sum(axis=dim, keepdims=True))


def dropout_mask(uniform: Array, p: float) -> Array:
    """Return what dropout multiplies with: 0 where a uniform number lies below p, else 1 / (1 - p); all 0 for p = 1.

    The mask of inverted dropout (Srivastava et al.: Dropout, 2014): the mean of the output is the input.

    Args:
        uniform: Numbers in [0, 1), any shape.
        p: Share of elements that are dropped.

    >>> dropout_mask(np.array([0.2, 0.7]), 0.5)
    array([0., 2.])
    """
    if p >= 1:
        return np.zeros_like(uniform)
    return (uniform >= p) / (1 - p)
