"""Two-dimensional convolution as networks use it: cross-correlation, and its gradients.

    y[n, o, i, j] = bias[o] + sum over c, a, b of weight[o, c, a, b] xp[n, c, i s + a d, j s + b d]

with xp the padded input, s the stride, d the dilation. The kernel is not rotated (PyTorch's convention); the
rotated one is called convolution in mathematics. Everything runs as matrix products over patches: each column of
a patch matrix is what one output pixel sees (Chellapilla, Puri, Simard: High performance convolutional neural
networks for document processing, 2006).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pellucid._types import Array
from pellucid.errors import OptionError, ShapeError
from pellucid.functional._checks import check
from pellucid.functional._windows import crop, pad, taps
from pellucid.shapes import Padding, PaddingArgument, Pair, integer, output_pair, pair, resolve_padding


@dataclass(frozen=True)
class _Geometry:
    kernel: Pair
    stride: Pair
    padding: Padding
    dilation: Pair
    groups: int
    size: Pair
    out: Pair


def _geometry(
    x: Array, weight: Array, stride: object, padding: PaddingArgument, dilation: object, groups: int
) -> _Geometry:
    check(x, "x", "N x C x H x W")
    check(weight, "weight", "out x in/groups x kh x kw")
    groups = integer(groups, "groups")
    channels, filters = x.shape[1], weight.shape[0]
    if channels != weight.shape[1] * groups:
        raise ShapeError(
            f"weight {weight.shape} with groups={groups} takes {weight.shape[1] * groups} channels, "
            f"but x {x.shape} has {channels}"
        )
    if filters % groups:
        raise OptionError(f"groups={groups} must divide the {filters} output channels")
    kernel: Pair = (weight.shape[2], weight.shape[3])
    steps, spread = pair(stride, "stride"), pair(dilation, "dilation")
    size: Pair = (x.shape[2], x.shape[3])
    sides = resolve_padding(padding, size, kernel, steps, spread)
    out = output_pair(size, kernel, steps, sides, spread)
    return _Geometry(kernel, steps, sides, spread, groups, size, out)


def _unfold(x: Array, g: _Geometry) -> Array:
    """Patches of x: n c h w -> n groups (c/groups kh kw) (oh ow)."""
    n, c = x.shape[:2]
    patches = np.empty((n, c, *g.kernel, *g.out), dtype=x.dtype)
    for a, b, view in taps(pad(x, g.padding), g.kernel, g.stride, g.dilation, g.out):
        patches[:, :, a, b] = view
    return patches.reshape(n, g.groups, c // g.groups * g.kernel[0] * g.kernel[1], g.out[0] * g.out[1])


def _fold(patches: Array, shape: tuple[int, ...], g: _Geometry) -> Array:
    """The adjoint of _unfold: each cell of x collects what all patches hold of it."""
    n, c, h, w = shape
    patches = patches.reshape(n, c, *g.kernel, *g.out)
    padded = pad(np.zeros(shape, dtype=patches.dtype), g.padding)
    for a, b, view in taps(padded, g.kernel, g.stride, g.dilation, g.out):
        view += patches[:, :, a, b]
    return crop(padded, g.padding, (h, w))


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int | Pair = 1,
    padding: PaddingArgument = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Array:
    """Return the cross-correlation of x with each filter.

    Args:
        x: Input, (N, C, H, W), float32 or float64.
        weight: Filters, (O, C / groups, kh, kw).
        bias: One number per filter, (O,), or None.
        stride: Step of the window, a number or (height, width).
        padding: Zeros on each side, a number or (height, width), or "valid", "same" (stride 1), "same_upper",
            "same_lower" (any stride; the odd zero behind or in front).
        dilation: Distance of neighboring kernel cells.
        groups: Channels and filters are divided into that many groups that do not see each other.

    Returns:
        (N, O, H', W') with H' = floor((H + 2p - d(kh - 1) - 1) / s) + 1.

    Raises:
        ShapeError: Where the sizes do not fit.
        OptionError: For a stride, padding, dilation or groups that cannot be.

    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> conv2d(x, np.array([[[[1.0, 0.0], [0.0, 2.0]]]]))[0, 0]
    array([[ 8., 11.],
           [17., 20.]])
    """
    g = _geometry(x, weight, stride, padding, dilation, groups)
    filters = weight.shape[0]
    if bias is not None and bias.shape != (filters,):
        raise ShapeError(f"bias must have shape ({filters},), one number per filter, got {bias.shape}")
    matrix = weight.reshape(g.groups, filters // g.groups, -1)  # groups o/groups (c/groups kh kw)
    y = (matrix @ _unfold(x, g)).reshape(len(x), filters, *g.out)
    if bias is not None:
        y += bias[:, None, None]
    return y


def conv2d_backward(
    dy: Array,
    x: Array,
    weight: Array,
    stride: int | Pair = 1,
    padding: PaddingArgument = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> tuple[Array, Array, Array]:
    """Return the gradients of conv2d.

    With Y = W P for the patch matrix P of one image: dW = sum over images of dY P^T, dP = W^T dY, and dx collects
    dP over overlapping patches; dbias = sum of dy over images and positions.

    Args:
        dy: Gradient of the loss by the output, (N, O, H', W').
        x: Input of the forward pass, (N, C, H, W).
        weight: Filters, (O, C / groups, kh, kw).
        stride: As in conv2d.
        padding: As in conv2d.
        dilation: As in conv2d.
        groups: As in conv2d.

    Returns:
        dx, dweight, dbias, of the shapes of x, weight and (O,).

    >>> x, w = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
    >>> dx, dw, db = conv2d_backward(np.ones((1, 1, 2, 2)), x, w)
    >>> dx[0, 0].tolist(), dw.sum(), db.tolist()
    ([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]], np.float64(16.0), [4.0])
    """
    g = _geometry(x, weight, stride, padding, dilation, groups)
    filters = weight.shape[0]
    if dy.shape != (len(x), filters, *g.out):
        raise ShapeError(f"dy must have the output's shape {(len(x), filters, *g.out)}, got {dy.shape}")
    dbias = dy.sum(axis=(0, 2, 3))
    dY = dy.reshape(len(x), g.groups, filters // g.groups, g.out[0] * g.out[1])
    matrix = weight.reshape(g.groups, filters // g.groups, -1)
    dmatrix = np.zeros(matrix.shape, dtype=np.result_type(dy, x))
    for dY_n, patches_n in zip(dY, _unfold(x, g), strict=True):
        dmatrix += dY_n @ patches_n.swapaxes(1, 2)
    dx = _fold(matrix.swapaxes(1, 2) @ dY, x.shape, g)
    return dx, dmatrix.reshape(weight.shape), dbias
