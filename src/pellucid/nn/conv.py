"""Convolution layers."""

from __future__ import annotations

from typing import Any

from pellucid import functional as F
from pellucid._types import Array, Shape
from pellucid.errors import OptionError, ShapeError
from pellucid.nn.init import Scheme, check_scheme
from pellucid.nn.layer import Backward, Layer, Parameter
from pellucid.random import Source
from pellucid.shapes import (
    PaddingArgument,
    Pair,
    check_padding,
    integer,
    output_pair,
    pair,
    resolve_padding,
    text,
)


def check_maps(input_shape: Shape, channels: int | None = None) -> None:
    """Raise a ShapeError unless input_shape is (C, H, W) with that many channels."""
    if len(input_shape) == 2:
        raise ShapeError(
            f"expects maps C x H x W, but gets {text(input_shape)}; add the channel axis: 1x{text(input_shape)}"
        )
    if len(input_shape) != 3:
        raise ShapeError(f"expects maps C x H x W, but gets {text(input_shape)}; put it before Flatten")
    if channels is not None and input_shape[0] != channels == input_shape[2]:
        right = (input_shape[2], *input_shape[:2])
        raise ShapeError(
            f"expects {channels} channels first, but gets {text(input_shape)}; put them first: {text(right)}"
        )
    if channels is not None and input_shape[0] != channels:
        raise ShapeError(f"expects {channels} channels, but gets {input_shape[0]}; use {input_shape[0]}")


class Conv2d(Layer):
    """Cross-correlation with learned filters; see functional.conv2d for the formula.

    Input (N, in_channels, H, W), output (N, out_channels, H', W') with H' = floor((H + 2p - d(k - 1) - 1) / s) + 1.

    Args:
        in_channels: Channels of the input.
        out_channels: Number of filters.
        kernel_size: Size of the filters, a number or (height, width).
        stride: Step, a number or (height, width).
        padding: Zeros on each side, a number or (height, width), or "valid", "same" (stride 1), "same_upper",
            "same_lower" (any stride; the odd zero behind or in front).
        dilation: Distance of neighboring kernel cells.
        groups: Divides channels and filters into groups that do not see each other; groups=in_channels is depthwise.
        bias: Whether each filter adds a number.
        init: How the weights start, see nn.init; with another scheme than "default" biases start at 0.

    Raises:
        OptionError: For arguments that cannot be.

    >>> import numpy as np
    >>> Conv2d(1, 32, 3)(np.zeros((2, 1, 28, 28), dtype=np.float32)).shape
    (2, 32, 26, 26)
    """

    weight = Parameter()
    bias = Parameter()

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: PaddingArgument = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
        init: Scheme = "default",
    ) -> None:
        super().__init__()
        self._options(out_channels, kernel_size, stride, padding, dilation, groups, bias, init)
        self._open(integer(in_channels, "in_channels"))

    def _options(
        self,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair,
        padding: PaddingArgument,
        dilation: int | Pair,
        groups: int,
        bias: bool,
        init: Scheme,
    ) -> None:
        self.out_channels = integer(out_channels, "out_channels")
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.stride = pair(stride, "stride")
        self.padding = check_padding(padding, self.stride)
        self.dilation = pair(dilation, "dilation")
        self.groups = integer(groups, "groups")
        self.has_bias = bool(bias)
        self.init = check_scheme(init)
        if self.out_channels % self.groups:
            raise OptionError(f"out_channels {self.out_channels} must be a multiple of groups {self.groups}")

    def _open(self, in_channels: int) -> None:
        if in_channels % self.groups:
            raise OptionError(f"in_channels {in_channels} must be a multiple of groups {self.groups}")
        self.in_channels = in_channels
        cells = self.kernel_size[0] * self.kernel_size[1]
        fan_in, fan_out = in_channels // self.groups * cells, self.out_channels // self.groups * cells
        shape = (self.out_channels, in_channels // self.groups, *self.kernel_size)
        self._declare("weight", shape, self.init, fan_in, fan_out)
        if self.has_bias:
            start = "default" if self.init == "default" else "zeros"
            self._declare("bias", (self.out_channels,), start, fan_in, fan_out)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as plain data."""
        return {"in_channels": self.in_channels, **self._config()}

    def _config(self) -> dict[str, Any]:
        names = ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        return {**{name: getattr(self, name) for name in names}, "bias": self.has_bias, "init": self.init}

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, in_channels, H, W).
            training: Makes no difference.
            rng: Not used.
        """
        weight, bias = self.weight, self.bias
        geometry = (self.stride, self.padding, self.dilation, self.groups)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            dx, dweight, dbias = F.conv2d_backward(dy, x, weight, *geometry)
            return dx, {"weight": dweight} if bias is None else {"weight": dweight, "bias": dbias}

        return F.conv2d(x, weight, bias, *geometry), backward

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (out_channels, H', W').

        Args:
            input_shape: (in_channels, H, W).
        """
        check_maps(input_shape, self.in_channels)
        size = (input_shape[1], input_shape[2])
        padding = resolve_padding(self.padding, size, self.kernel_size, self.stride, self.dilation)
        return self.out_channels, *output_pair(size, self.kernel_size, self.stride, padding, self.dilation)

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return the multiplications for one image: every weight once per output position.

        Args:
            input_shape: (in_channels, H, W).
        """
        _, h, w = self.output_shape(input_shape)
        return int(self._arrays["weight"].size) * h * w


class LazyConv2d(Conv2d):
    """A Conv2d that takes in_channels from what it gets when the network is built, and is a Conv2d from then on.

    Args:
        out_channels: Number of filters.
        kernel_size: As in Conv2d.
        stride: As in Conv2d.
        padding: As in Conv2d.
        dilation: As in Conv2d.
        groups: As in Conv2d.
        bias: As in Conv2d.
        init: As in Conv2d.

    >>> from pellucid import nn
    >>> nn.Sequential(LazyConv2d(8, 3), input_shape=(3, 9, 9))[0]
    Conv2d(3, 8, (3, 3))
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: PaddingArgument = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
        init: Scheme = "default",
    ) -> None:
        Layer.__init__(self)
        self._options(out_channels, kernel_size, stride, padding, dilation, groups, bias, init)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as plain data."""
        return self._config()

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Raise an error: the number of channels is not known before the network is built.

        Args:
            x: Not used.
            training: Not used.
            rng: Not used.
        """
        raise OptionError("LazyConv2d has no weights yet; build its network with input_shape=(C, H, W)")

    def resolve(self, input_shape: Shape) -> None:
        """Take the number of channels from the input and become a Conv2d.

        Args:
            input_shape: (C, H, W).
        """
        check_maps(input_shape)
        self._open(input_shape[0])
        self.__class__ = Conv2d  # type: ignore[assignment]
