"""Normalization layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from pellucid import functional as F
from pellucid._types import Array, Shape
from pellucid.errors import OptionError
from pellucid.nn.conv import check_maps
from pellucid.nn.layer import Backward, Buffer, Layer, Parameter
from pellucid.random import Source
from pellucid.shapes import integer, number


class BatchNorm2d(Layer):
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
            x: Input, (N, num_features, H, W).
            training: Whether to use the batch's statistics.
            rng: Not used.
        """
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
            input_shape: (num_features, H, W).
        """
        check_maps(input_shape, self.num_features)
        return input_shape

    def _state_dtype(self, name: str) -> np.dtype[Any]:
        return np.dtype(np.int64) if name == "num_batches_tracked" else super()._state_dtype(name)
