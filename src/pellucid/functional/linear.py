"""The dense layer's arithmetic: y = x W^T + b, and its gradients."""

from __future__ import annotations

from pellucid._types import Array
from pellucid.errors import ShapeError
from pellucid.functional._checks import check_float


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Return x W^T + b.

    Args:
        x: Input, (..., in), float32 or float64.
        weight: (out, in).
        bias: (out,), or None.

    Returns:
        (..., out).

    Raises:
        ShapeError: Where the sizes do not fit.

    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([0.5]))
    array([[11.5]])
    """
    check_float(x, "x")
    if weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(f"x {x.shape} must end with the {weight.shape[-1]} input features of weight {weight.shape}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"bias must have shape ({weight.shape[0]},), one number per output, got {bias.shape}")
    y = x @ weight.T
    return y if bias is None else y + bias


def linear_backward(dy: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Return the gradients of linear: dx = dy W, dW = dy^T x, db = sum of dy, both summed over the batch.

    Args:
        dy: Gradient by the output, (..., out).
        x: Input of the forward pass, (..., in).
        weight: (out, in).

    Returns:
        dx, dweight, dbias.

    >>> dx, dw, db = linear_backward(np.ones((2, 1)), np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0]]))
    >>> dx.tolist(), dw.tolist(), db.tolist()
    ([[5.0, 6.0], [5.0, 6.0]], [[4.0, 6.0]], [2.0])
    """
    if dy.shape != (*x.shape[:-1], weight.shape[0]):
        raise ShapeError(f"dy must have the output's shape {(*x.shape[:-1], weight.shape[0])}, got {dy.shape}")
    rows = dy.reshape(-1, weight.shape[0])
    return dy @ weight, rows.T @ x.reshape(-1, weight.shape[1]), rows.sum(axis=0)
