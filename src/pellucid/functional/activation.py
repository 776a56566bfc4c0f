"""Activations, element by element or along the classes, and their gradients. None works in place."""

from __future__ import annotations

import numpy as np

from pellucid._types import Array


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
