"""Normalization layers."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from pellucid import functional as F
from pellucid._types import Array, Shape
from pellucid.errors import OptionError, ShapeError
from pellucid.nn.conv import check_maps
from pellucid.nn.layer import Backward, Buffer, Layer, Parameter
from pellucid.random import Source
from pellucid.shapes import integer, number, text


class _BatchNorm(Layer):
    """What batch norms of vectors, sequences, maps and volumes share."""

    dims: ClassVar[tuple[int, ...]]
    """How many axes of positions the input may have."""

    weight = Parameter()
    bias = Parameter()
    running_mean = Buffer()
    running_var = Buffer()
    num_batches_tracked = Buffer()

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True) -> None:
        super().__init__()
        self.num_features = integer(num_features, "num_features")
        self.eps, self.affine = number(eps, "eps"), bool(affine)
        self.momentum = None if momentum is None else number(momentum, "momentum")
        if self.momentum is not None and self.momentum > 1:
            raise OptionError(f"momentum must lie between 0 and 1, or be None, got {momentum!r}")
        shape = (self.num_features,)
        if self.affine:
            self._declare("weight", shape, ("constant", 1.0), 1, 1)
            self._declare("bias", shape, "zeros", 1, 1)
        self._declare("running_mean", shape, "zeros", 1, 1)
        self._declare("running_var", shape, ("constant", 1.0), 1, 1)
        self._declare("num_batches_tracked", (), "zeros", 1, 1)

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward); in training the running statistics are updated.

        Args:
            x: Input, (N, num_features, ...).
            training: Whether to use the batch's statistics.
            rng: Not used.
        """
        if x.ndim - 2 not in self.dims:
            self.output_shape(x.shape[1:])
        weight, mean, var = self.weight, self._arrays["running_mean"], self._arrays["running_var"]
        momentum = self.momentum
        if training:
            count = self._arrays["num_batches_tracked"]
            momentum = 1 / (float(count) + 1) if momentum is None else momentum
            y = F.batch_norm(x, mean, var, weight, self.bias, True, momentum, self.eps)
            count[...] += 1
            if self._network is not None:
                self._network.version += 1
        else:
            mean, var = mean.copy(), var.copy()
            y = F.batch_norm(x, mean, var, weight, self.bias, False, eps=self.eps)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            dx, dweight, dbias = F.batch_norm_backward(dy, x, mean, var, weight, training, self.eps)
            return dx, {"weight": dweight, "bias": dbias} if self.affine else {}

        return y, backward

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input's shape.

        Args:
            input_shape: (num_features, ...).
        """
        dims = len(input_shape) - 1
        check_maps(input_shape, self.num_features, dims if dims in self.dims else self.dims[-1])
        return input_shape

    def _state_dtype(self, name: str) -> np.dtype[Any]:
        return np.dtype(np.int64) if name == "num_batches_tracked" else super()._state_dtype(name)


class BatchNorm1d(_BatchNorm):
    """Batch norm of vectors (N, num_features) or sequences (N, num_features, L); otherwise as BatchNorm2d.

    >>> layer = BatchNorm1d(1, eps=0.0)
    >>> layer.forward(np.array([[1.0], [3.0]]), training=True)[0]
    array([[-1.],
           [ 1.]])
    """

    dims = (0, 1)


class BatchNorm2d(_BatchNorm):
    """Each channel to mean 0 and variance 1, then weight and bias; see functional.batch_norm.

    In training mean and variance are the batch's, and the running ones follow; else the running ones are used.
    Input and output (N, num_features, H, W). The count of batches is kept in the network's float type, exact to 2^24.

    Args:
        num_features: Channels.
        eps: Added to the variance.
        momentum: Share of a batch in the running values; None averages all batches evenly.
        affine: Whether weight and bias exist.

    Raises:
        OptionError: For arguments that cannot be.

    >>> layer = BatchNorm2d(1, eps=0.0)
    >>> layer.forward(np.array([[[[1.0, 3.0]]]]), training=True)[0]
    array([[[[-1.,  1.]]]])
    """

    dims = (2,)


class BatchNorm3d(_BatchNorm):
    """Batch norm of volumes (N, num_features, D, H, W); otherwise as BatchNorm2d.

    >>> BatchNorm3d(2)(np.zeros((1, 2, 3, 4, 4))).shape
    (1, 2, 3, 4, 4)
    """

    dims = (3,)


class GroupNorm(Layer):
    """Each group of channels of each image to mean 0 and variance 1, then weight and bias; see functional.group_norm.

    Input and output (N, num_channels, ...). Images do not mix, so it does the same in training and inference.

    Args:
        num_groups: Number of groups, which divides num_channels.
        num_channels: Channels.
        eps: Added to the variance.
        affine: Whether each channel has weight and bias.

    Raises:
        OptionError: For arguments that cannot be.

    >>> GroupNorm(1, 2, eps=0.0)(np.array([[[1.0], [3.0]]])).ravel()
    array([-1.,  1.])
    """

    weight = Parameter()
    bias = Parameter()

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.num_groups = integer(num_groups, "num_groups")
        self.num_channels = integer(num_channels, "num_channels")
        if self.num_channels % self.num_groups:
            raise OptionError(f"num_groups {num_groups} must divide num_channels {num_channels}")
        self.eps, self.affine = number(eps, "eps"), bool(affine)
        if self.affine:
            self._declare("weight", (self.num_channels,), ("constant", 1.0), 1, 1)
            self._declare("bias", (self.num_channels,), "zeros", 1, 1)

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, num_channels, ...).
            training: Makes no difference.
            rng: Not used.
        """
        self.output_shape(x.shape[1:])
        weight = self.weight

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            dx, dweight, dbias = F.group_norm_backward(dy, x, self.num_groups, weight, self.eps)
            return dx, {"weight": dweight, "bias": dbias} if self.affine else {}

        return F.group_norm(x, self.num_groups, weight, self.bias, self.eps), backward

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input's shape.

        Args:
            input_shape: (num_channels, ...).
        """
        if not input_shape or input_shape[0] != self.num_channels:
            got = input_shape[0] if input_shape else "none"
            raise ShapeError(f"expects {self.num_channels} channels, but gets {got}; use GroupNorm(..., {got})")
        return input_shape


class LayerNorm(Layer):
    """The last axes to mean 0 and variance 1, then weight and bias; see functional.layer_norm.

    Input and output (N, ..., *normalized_shape). Images do not mix, so it does the same in training and inference.

    Args:
        normalized_shape: Sizes of the axes that a mean goes over: of maps (C, H, W), of vectors a number.
        eps: Added to the variance.
        elementwise_affine: Whether weight and bias exist, of the shape normalized_shape.
        bias: Whether bias exists.

    Raises:
        OptionError: For arguments that cannot be.

    >>> LayerNorm(2, eps=0.0)(np.array([[1.0, 3.0]]))
    array([[-1.,  1.]])
    """

    weight = Parameter()
    bias = Parameter()

    def __init__(
        self,
        normalized_shape: int | Shape,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        shape = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        if not shape:
            raise OptionError("normalized_shape must have at least one axis, got ()")
        self.normalized_shape = tuple(integer(n, "normalized_shape") for n in shape)
        self.eps, self.elementwise_affine, self.has_bias = number(eps, "eps"), bool(elementwise_affine), bool(bias)
        if self.elementwise_affine:
            self._declare("weight", self.normalized_shape, ("constant", 1.0), 1, 1)
            if self.has_bias:
                self._declare("bias", self.normalized_shape, "zeros", 1, 1)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as plain data."""
        return {**super().config(), "bias": self.has_bias}

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, ..., *normalized_shape).
            training: Makes no difference.
            rng: Not used.
        """
        self.output_shape(x.shape[1:])
        weight, bias = self.weight, self.bias

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            dx, dweight, dbias = F.layer_norm_backward(dy, x, self.normalized_shape, weight, self.eps)
            gradients = {"weight": (weight, dweight), "bias": (bias, dbias)}
            return dx, {name: gradient for name, (array, gradient) in gradients.items() if array is not None}

        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps), backward

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input's shape.

        Args:
            input_shape: (..., *normalized_shape).
        """
        if input_shape[-len(self.normalized_shape) :] != self.normalized_shape:
            raise ShapeError(
                f"expects inputs that end with {text(self.normalized_shape)}, but gets {text(input_shape)}; "
                f"use LayerNorm({input_shape})"
            )
        return input_shape
