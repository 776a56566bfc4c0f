"""Convolution as networks use it, which is cross-correlation; its transpose; and their gradients. In two dimensions:

    y[n, o, i, j] = bias[o] + sum over c, a, b of weight[o, c, a, b] xp[n, c, i s + a d, j s + b d]

with xp the padded input, s the stride, d the dilation; in one or three dimensions there is one index less or more.
The kernel is not rotated (PyTorch's convention); the rotated one is called convolution in mathematics, see convolve2d.
Everything runs as matrix products over patches: each column of a patch matrix is what one output cell sees
(Chellapilla, Puri, Simard: High performance convolutional neural networks for document processing, 2006).

With P the patches of an image and W the weights as a matrix, a convolution is Y = W P. Its transpose goes the other
way: the columns of W^T X are patches, and each output cell adds up what all patches hold of it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pellucid._types import Array, Shape
from pellucid.errors import OptionError, ShapeError
from pellucid.functional._checks import MAPS, check, check_dy
from pellucid.functional._windows import crop, output_sizes, pad, taps
from pellucid.shapes import (
    Padding,
    PaddingArgument,
    SizeArgument,
    integer,
    resolve_padding,
    sizes,
    transposed_sizes,
)

_KERNELS = {1: "k", 2: "kh x kw", 3: "kd x kh x kw"}


class _Geometry(NamedTuple):
    """Of a convolution from maps of the given size to maps of size out."""

    kernel: Shape
    stride: Shape
    padding: Padding
    dilation: Shape
    groups: int
    size: Shape
    out: Shape


def _geometry(
    dims: int, x: Array, weight: Array, stride: object, padding: PaddingArgument, dilation: object, groups: int
) -> _Geometry:
    check(x, "x", MAPS[dims])
    check(weight, "weight", f"out x in/groups x {_KERNELS[dims]}")
    groups = integer(groups, "groups")
    channels, filters = x.shape[1], weight.shape[0]
    if channels != weight.shape[1] * groups:
        raise ShapeError(
            f"weight {weight.shape} with groups={groups} takes {weight.shape[1] * groups} channels, "
            f"but x {x.shape} has {channels}"
        )
    if filters % groups:
        raise OptionError(f"groups={groups} must divide the {filters} output channels")
    size, kernel = x.shape[2:], weight.shape[2:]
    steps, spread = sizes(stride, "stride", dims), sizes(dilation, "dilation", dims)
    sides = resolve_padding(padding, size, kernel, steps, spread)
    return _Geometry(kernel, steps, sides, spread, groups, size, output_sizes(size, kernel, steps, sides, spread))


def _unfold(x: Array, g: _Geometry) -> Array:
    """Patches of x: n c h w -> n groups (c/groups kh kw) (oh ow)."""
    n, c = x.shape[:2]
    cells = math.prod(g.kernel)
    patches = np.empty((n, c, cells, *g.out), dtype=x.dtype)
    for k, view in enumerate(taps(pad(x, g.padding), g.kernel, g.stride, g.dilation, g.out)):
        patches[:, :, k] = view
    return patches.reshape(n, g.groups, c // g.groups * cells, math.prod(g.out))


def _fold(patches: Array, shape: Shape, g: _Geometry) -> Array:
    """The adjoint of _unfold: each cell of x collects what all patches hold of it."""
    n, c = shape[:2]
    patches = patches.reshape(n, c, math.prod(g.kernel), *g.out)
    padded = pad(np.zeros(shape, dtype=patches.dtype), g.padding)
    for k, view in enumerate(taps(padded, g.kernel, g.stride, g.dilation, g.out)):
        view += patches[:, :, k]
    return crop(padded, g.padding, g.size)


def _rows(maps: Array, g: _Geometry) -> Array:
    """What stands beside the patches: n o oh ow -> n groups (o/groups) (oh ow)."""
    return maps.reshape(len(maps), g.groups, maps.shape[1] // g.groups, math.prod(g.out))


def _matrices(weight: Array, g: _Geometry) -> Array:
    """Weights as matrices: o c/groups kh kw -> groups (o/groups) (c/groups kh kw)."""
    return weight.reshape(g.groups, len(weight) // g.groups, math.prod(weight.shape[1:]))


def _weight_gradient(rows: Array, patches: Array, weight: Array, g: _Geometry) -> Array:
    """Sum over images of Y P^T, in the weight's shape."""
    total = np.zeros(_matrices(weight, g).shape, dtype=np.result_type(rows, patches))
    for rows_n, patches_n in zip(rows, patches, strict=True):
        total += rows_n @ patches_n.swapaxes(1, 2)
    return total.reshape(weight.shape)


def _add_bias(y: Array, bias: Array | None) -> Array:
    filters = y.shape[1]
    if bias is not None:
        if bias.shape != (filters,):
            raise ShapeError(f"bias must have shape ({filters},), one number per filter, got {bias.shape}")
        y += bias.reshape(filters, *[1] * (y.ndim - 2))
    return y


def _conv(
    dims: int,
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: SizeArgument,
    padding: PaddingArgument,
    dilation: SizeArgument,
    groups: int,
) -> Array:
    g = _geometry(dims, x, weight, stride, padding, dilation, groups)
    y = _matrices(weight, g) @ _unfold(x, g)
    return _add_bias(y.reshape(len(x), len(weight), *g.out), bias)


def _conv_backward(
    dims: int,
    dy: Array,
    x: Array,
    weight: Array,
    stride: SizeArgument,
    padding: PaddingArgument,
    dilation: SizeArgument,
    groups: int,
) -> tuple[Array, Array, Array]:
    g = _geometry(dims, x, weight, stride, padding, dilation, groups)
    check_dy(dy, (len(x), len(weight), *g.out))
    dY = _rows(dy, g)
    dweight = _weight_gradient(dY, _unfold(x, g), weight, g)
    dx = _fold(_matrices(weight, g).swapaxes(1, 2) @ dY, x.shape, g)
    return dx, dweight, dy.sum(axis=(0, *range(2, dy.ndim)))


def conv1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: SizeArgument = 1,
    padding: PaddingArgument = 0,
    dilation: SizeArgument = 1,
    groups: int = 1,
) -> Array:
    """Return the cross-correlation of sequences x (N, C, L) with filters (O, C / groups, k); otherwise as conv2d.

    >>> conv1d(np.array([[[1.0, 2.0, 4.0]]]), np.array([[[1.0, 10.0]]]))
    array([[[21., 42.]]])
    """
    return _conv(1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: SizeArgument = 1,
    padding: PaddingArgument = 0,
    dilation: SizeArgument = 1,
    groups: int = 1,
) -> Array:
    """Return the cross-correlation of x with each filter: Y = W P + bias for the patch matrix P of each image.

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
    return _conv(2, x, weight, bias, stride, padding, dilation, groups)


def conv3d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: SizeArgument = 1,
    padding: PaddingArgument = 0,
    dilation: SizeArgument = 1,
    groups: int = 1,
) -> Array:
    """Return the cross-correlation of volumes x (N, C, D, H, W) with filters (O, C / groups, kd, kh, kw); see conv2d.

    >>> conv3d(np.ones((1, 2, 4, 4, 4)), np.ones((1, 2, 3, 3, 3))).tolist()
    [[[[[54.0, 54.0], [54.0, 54.0]], [[54.0, 54.0], [54.0, 54.0]]]]]
    """
    return _conv(3, x, weight, bias, stride, padding, dilation, groups)


def conv1d_backward(
    dy: Array,
    x: Array,
    weight: Array,
    stride: SizeArgument = 1,
    padding: PaddingArgument = 0,
    dilation: SizeArgument = 1,
    groups: int = 1,
) -> tuple[Array, Array, Array]:
    """Return the gradients dx, dweight, dbias of conv1d; see conv2d_backward.

    >>> dx, dw, db = conv1d_backward(np.array([[[1.0, 2.0]]]), np.array([[[3.0, 4.0, 5.0]]]), np.array([[[6.0, 7.0]]]))
    >>> dx.tolist(), dw.tolist(), db.tolist()
    ([[[6.0, 19.0, 14.0]]], [[[11.0, 14.0]]], [3.0])
    """
    return _conv_backward(1, dy, x, weight, stride, padding, dilation, groups)


def conv2d_backward(
    dy: Array,
    x: Array,
    weight: Array,
    stride: SizeArgument = 1,
    padding: PaddingArgument = 0,
    dilation: SizeArgument = 1,
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
    return _conv_backward(2, dy, x, weight, stride, padding, dilation, groups)


def conv3d_backward(
    dy: Array,
    x: Array,
    weight: Array,
    stride: SizeArgument = 1,
    padding: PaddingArgument = 0,
    dilation: SizeArgument = 1,
    groups: int = 1,
) -> tuple[Array, Array, Array]:
    """Return the gradients dx, dweight, dbias of conv3d; see conv2d_backward.

    >>> dx, dw, db = conv3d_backward(np.ones((1, 1, 1, 1, 2)), np.ones((1, 1, 2, 2, 3)), np.ones((1, 1, 2, 2, 2)))
    >>> dx.sum(), dw.tolist(), db.tolist()
    (np.float64(16.0), [[[[[2.0, 2.0], [2.0, 2.0]], [[2.0, 2.0], [2.0, 2.0]]]]], [2.0])
    """
    return _conv_backward(3, dy, x, weight, stride, padding, dilation, groups)


def _transposed(
    dims: int,
    x: Array,
    weight: Array,
    stride: object,
    padding: object,
    output_padding: object,
    groups: int,
    dilation: object,
) -> _Geometry:
    """Return the geometry of the convolution whose transpose is asked for: it maps the output to x."""
    check(x, "x", MAPS[dims])
    check(weight, "weight", f"in x out/groups x {_KERNELS[dims]}")
    groups = integer(groups, "groups")
    if x.shape[1] != weight.shape[0]:
        raise ShapeError(f"weight {weight.shape} takes {weight.shape[0]} channels, but x {x.shape} has {x.shape[1]}")
    if weight.shape[0] % groups:
        raise OptionError(f"groups={groups} must divide the {weight.shape[0]} input channels")
    kernel, out = weight.shape[2:], x.shape[2:]
    steps, spread = sizes(stride, "stride", dims), sizes(dilation, "dilation", dims)
    sides = sizes(padding, "padding", dims, minimum=0)
    extra = sizes(output_padding, "output_padding", dims, minimum=0)
    size = transposed_sizes(out, kernel, steps, sides, extra, spread)
    return _Geometry(kernel, steps, tuple((p, p) for p in sides), spread, groups, size, out)


def _conv_transpose(
    dims: int,
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: SizeArgument,
    padding: SizeArgument,
    output_padding: SizeArgument,
    groups: int,
    dilation: SizeArgument,
) -> Array:
    g = _transposed(dims, x, weight, stride, padding, output_padding, groups, dilation)
    patches = _matrices(weight, g).swapaxes(1, 2) @ _rows(x, g)
    return _add_bias(_fold(patches, (len(x), weight.shape[1] * g.groups, *g.size), g), bias)


def _conv_transpose_backward(
    dims: int,
    dy: Array,
    x: Array,
    weight: Array,
    stride: SizeArgument,
    padding: SizeArgument,
    output_padding: SizeArgument,
    groups: int,
    dilation: SizeArgument,
) -> tuple[Array, Array, Array]:
    g = _transposed(dims, x, weight, stride, padding, output_padding, groups, dilation)
    check_dy(dy, (len(x), weight.shape[1] * g.groups, *g.size))
    patches = _unfold(dy, g)
    dx = (_matrices(weight, g) @ patches).reshape(x.shape)
    return dx, _weight_gradient(_rows(x, g), patches, weight, g), dy.sum(axis=(0, *range(2, dy.ndim)))


def conv_transpose1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: SizeArgument = 1,
    padding: SizeArgument = 0,
    output_padding: SizeArgument = 0,
    groups: int = 1,
    dilation: SizeArgument = 1,
) -> Array:
    """Return the transpose of conv1d: x (N, C, L), weight (C, O / groups, k); otherwise as conv_transpose2d.

    >>> conv_transpose1d(np.array([[[1.0, 2.0]]]), np.array([[[1.0, 10.0, 100.0]]]), stride=2)
    array([[[  1.,  10., 102.,  20., 200.]]])
    """
    return _conv_transpose(1, x, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: SizeArgument = 1,
    padding: SizeArgument = 0,
    output_padding: SizeArgument = 0,
    groups: int = 1,
    dilation: SizeArgument = 1,
) -> Array:
    """Return the transpose of conv2d with the same weight, which is not its inverse: each x is laid out as a patch.

    With A the convolution, <A u, x> = <u, conv_transpose2d(x)> for every u and x. It gives back A's input size, if
    output_padding says which of the sizes that A brings to the size of x is meant.

    Args:
        x: Input, (N, C, H, W), float32 or float64.
        weight: The filters of A, (C, O / groups, kh, kw): C are its output channels, O its input channels.
        bias: One number per channel of the output, (O,), or None.
        stride: Step of A.
        padding: Cells that are cut off on each side, as A would add them; a number or (height, width).
        output_padding: Cells added behind (bottom, right); less than stride or dilation.
        groups: As in conv2d.
        dilation: As in conv2d.

    Returns:
        (N, O, H', W') with H' = (H - 1)s - 2p + d(kh - 1) + output_padding + 1.

    Raises:
        ShapeError: Where the sizes do not fit.
        OptionError: For arguments that cannot be.

    >>> conv_transpose2d(np.array([[[[1.0, 2.0]]]]), np.array([[[[1.0, 10.0], [100.0, 1000.0]]]]))[0, 0]
    array([[1.0e+00, 1.2e+01, 2.0e+01],
           [1.0e+02, 1.2e+03, 2.0e+03]])
    """
    return _conv_transpose(2, x, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: SizeArgument = 1,
    padding: SizeArgument = 0,
    output_padding: SizeArgument = 0,
    groups: int = 1,
    dilation: SizeArgument = 1,
) -> Array:
    """Return the transpose of conv3d: x (N, C, D, H, W), weight (C, O / groups, kd, kh, kw); see conv_transpose2d.

    >>> conv_transpose3d(np.ones((1, 1, 1, 1, 2)), np.ones((1, 1, 1, 2, 2))).tolist()
    [[[[[1.0, 2.0, 1.0], [1.0, 2.0, 1.0]]]]]
    """
    return _conv_transpose(3, x, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose1d_backward(
    dy: Array,
    x: Array,
    weight: Array,
    stride: SizeArgument = 1,
    padding: SizeArgument = 0,
    output_padding: SizeArgument = 0,
    groups: int = 1,
    dilation: SizeArgument = 1,
) -> tuple[Array, Array, Array]:
    """Return the gradients dx, dweight, dbias of conv_transpose1d; see conv_transpose2d_backward.

    >>> x, w = np.array([[[1.0, 2.0]]]), np.array([[[1.0, 10.0]]])
    >>> dx, dw, db = conv_transpose1d_backward(np.array([[[1.0, 2.0, 3.0]]]), x, w)
    >>> dx.tolist(), dw.tolist(), db.tolist()
    ([[[21.0, 32.0]]], [[[5.0, 8.0]]], [6.0])
    """
    return _conv_transpose_backward(1, dy, x, weight, stride, padding, output_padding, groups, dilation)


def conv_transpose2d_backward(
    dy: Array,
    x: Array,
    weight: Array,
    stride: SizeArgument = 1,
    padding: SizeArgument = 0,
    output_padding: SizeArgument = 0,
    groups: int = 1,
    dilation: SizeArgument = 1,
) -> tuple[Array, Array, Array]:
    """Return the gradients of conv_transpose2d: dx is the convolution of dy.

    Args:
        dy: Gradient of the loss by the output, (N, O, H', W').
        x: Input of the forward pass, (N, C, H, W).
        weight: As in conv_transpose2d.
        stride: As in conv_transpose2d.
        padding: As in conv_transpose2d.
        output_padding: As in conv_transpose2d.
        groups: As in conv_transpose2d.
        dilation: As in conv_transpose2d.

    Returns:
        dx, dweight, dbias, of the shapes of x, weight and (O,).

    >>> dy, x, w = np.arange(6.0).reshape(1, 1, 2, 3), np.array([[[[1.0, 2.0]]]]), np.ones((1, 1, 2, 2))
    >>> dx, dw, db = conv_transpose2d_backward(dy, x, w)
    >>> dx.tolist(), dw.tolist(), db.tolist()
    ([[[[8.0, 12.0]]]], [[[[2.0, 5.0], [11.0, 14.0]]]], [15.0])
    """
    return _conv_transpose_backward(2, dy, x, weight, stride, padding, output_padding, groups, dilation)


def conv_transpose3d_backward(
    dy: Array,
    x: Array,
    weight: Array,
    stride: SizeArgument = 1,
    padding: SizeArgument = 0,
    output_padding: SizeArgument = 0,
    groups: int = 1,
    dilation: SizeArgument = 1,
) -> tuple[Array, Array, Array]:
    """Return the gradients dx, dweight, dbias of conv_transpose3d; see conv_transpose2d_backward.

    >>> dy, x, w = np.ones((1, 1, 1, 2, 3)), np.ones((1, 1, 1, 1, 2)), np.ones((1, 1, 1, 2, 2))
    >>> dx, dw, db = conv_transpose3d_backward(dy, x, w)
    >>> dx.tolist(), dw.tolist(), db.tolist()
    ([[[[[4.0, 4.0]]]]], [[[[[2.0, 2.0], [2.0, 2.0]]]]], [6.0])
    """
    return _conv_transpose_backward(3, dy, x, weight, stride, padding, output_padding, groups, dilation)
