"""Convolution layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from pellucid import functional as F
from pellucid._types import Array, Shape
from pellucid.errors import OptionError, ShapeError, unknown
from pellucid.nn.init import Scheme, check_scheme
from pellucid.nn.layer import Backward, Layer, Parameter
from pellucid.random import Source
from pellucid.shapes import (
    Padding,
    PaddingArgument,
    SizeArgument,
    check_padding,
    integer,
    output_sizes,
    padded_size,
    resolve_padding,
    sizes,
    text,
    transposed_sizes,
)

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
_KIND = {1: "sequences C x L", 2: "maps C x H x W", 3: "volumes C x D x H x W"}


def check_maps(input_shape: Shape, channels: int | None = None, dims: int = 2) -> None:
    """Raise a ShapeError unless input_shape is channels, that many if given, and dims axes."""
    if len(input_shape) == dims and dims > 1:
        raise ShapeError(
            f"expects {_KIND[dims]}, but gets {text(input_shape)}; add the channel axis: 1x{text(input_shape)}"
        )
    if len(input_shape) != dims + 1:
        cure = "; put it before Flatten" if len(input_shape) == 1 else ""
        raise ShapeError(f"expects {_KIND[dims]}, but gets {text(input_shape)}{cure}")
    if channels is not None and input_shape[0] != channels == input_shape[-1]:
        right = (input_shape[-1], *input_shape[:-1])
        raise ShapeError(
            f"expects {channels} channels first, but gets {text(input_shape)}; put them first: {text(right)}"
        )
    if channels is not None and input_shape[0] != channels:
        raise ShapeError(f"expects {channels} channels, but gets {input_shape[0]}; use {input_shape[0]}")


def check_mode(padding_mode: object) -> str:
    """Return what fills the padding, or raise an OptionError."""
    if padding_mode not in PADDING_MODES:
        raise unknown("padding_mode", padding_mode, PADDING_MODES)
    return str(padding_mode)


class _Conv(Layer):
    """What convolutions in one, two and three dimensions share."""

    dims: ClassVar[int]
    _run: ClassVar[Callable[..., Array]]
    _run_backward: ClassVar[Callable[..., tuple[Array, Array, Array]]]

    weight = Parameter()
    bias = Parameter()

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: SizeArgument,
        stride: SizeArgument = 1,
        padding: PaddingArgument = 0,
        dilation: SizeArgument = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        init: Scheme = "default",
    ) -> None:
        super().__init__()
        self._options(out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, init)
        self._open(integer(in_channels, "in_channels"))

    def _options(
        self,
        out_channels: int,
        kernel_size: SizeArgument,
        stride: SizeArgument,
        padding: PaddingArgument,
        dilation: SizeArgument,
        groups: int,
        bias: bool,
        padding_mode: str,
        init: Scheme,
    ) -> None:
        self.out_channels = integer(out_channels, "out_channels")
        self.kernel_size = sizes(kernel_size, "kernel_size", self.dims)
        self.stride = sizes(stride, "stride", self.dims)
        self.padding = check_padding(padding, self.stride)
        self.dilation = sizes(dilation, "dilation", self.dims)
        self.groups = integer(groups, "groups")
        self.has_bias = bool(bias)
        self.padding_mode = check_mode(padding_mode)
        self.init = check_scheme(init)
        if self.out_channels % self.groups:
            raise OptionError(f"out_channels {self.out_channels} must be a multiple of groups {self.groups}")

    def _open(self, in_channels: int) -> None:
        if in_channels % self.groups:
            raise OptionError(f"in_channels {in_channels} must be a multiple of groups {self.groups}")
        self.in_channels = in_channels
        cells = math.prod(self.kernel_size)
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
        others = {"bias": self.has_bias, "padding_mode": self.padding_mode, "init": self.init}
        return {**{name: getattr(self, name) for name in names}, **others}

    def _sides(self, size: Shape) -> Padding:
        return resolve_padding(self.padding, size, self.kernel_size, self.stride, self.dilation)

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, in_channels, ...).
            training: Makes no difference.
            rng: Not used.
        """
        weight, bias, unpad = self.weight, self.bias, None
        geometry: tuple[Any, ...] = (self.stride, self.padding, self.dilation, self.groups)
        if self.padding_mode != "zeros":
            x, unpad = self._pad(x)
            geometry = (self.stride, 0, self.dilation, self.groups)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            dx, dweight, dbias = self._run_backward(dy, x, weight, *geometry)
            gradients = {"weight": dweight} if bias is None else {"weight": dweight, "bias": dbias}
            return dx if unpad is None else unpad(dx), gradients

        return self._run(x, weight, bias, *geometry), backward

    def _pad(self, x: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Return x with the padding that padding_mode says, and what takes its gradient back to x."""
        check_maps(x.shape[1:], self.in_channels, self.dims)
        pad = [side for sides in reversed(self._sides(x.shape[2:])) for side in sides]
        return F.pad(x, pad, self.padding_mode), lambda dy: F.pad_backward(dy, x, pad, self.padding_mode)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (out_channels, ...).

        Args:
            input_shape: (in_channels, ...).
        """
        check_maps(input_shape, self.in_channels, self.dims)
        size, padding = input_shape[1:], self._sides(input_shape[1:])
        for n, sides in zip(size, padding, strict=True):
            padded_size(n, sides, self.padding_mode)
        return self.out_channels, *output_sizes(size, self.kernel_size, self.stride, padding, self.dilation)

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return the multiplications for one image: every weight once per output position.

        Args:
            input_shape: (in_channels, ...).
        """
        return int(self._arrays["weight"].size) * math.prod(self.output_shape(input_shape)[1:])


class Conv1d(_Conv):
    """Cross-correlation of sequences with learned filters; see functional.conv1d.

    Input (N, in_channels, L), output (N, out_channels, L'). Arguments as in Conv2d, sizes are one number.

    >>> import numpy as np
    >>> Conv1d(4, 8, 5)(np.zeros((2, 4, 100), dtype=np.float32)).shape
    (2, 8, 96)
    """

    dims = 1
    _run = staticmethod(F.conv1d)
    _run_backward = staticmethod(F.conv1d_backward)


class Conv2d(_Conv):
    """Cross-correlation with learned filters; see functional.conv2d for the formula.

    Input (N, in_channels, H, W), output (N, out_channels, H', W') with H' = floor((H + 2p - d(k - 1) - 1) / s) + 1.

    Args:
        in_channels: Channels of the input.
        out_channels: Number of filters.
        kernel_size: Size of the filters, a number or (height, width).
        stride: Step, a number or (height, width).
        padding: Cells on each side, a number or (height, width), or "valid", "same" (stride 1), "same_upper",
            "same_lower" (any stride; the odd cell behind or in front).
        dilation: Distance of neighboring kernel cells.
        groups: Divides channels and filters into groups that do not see each other; groups=in_channels is depthwise.
        bias: Whether each filter adds a number.
        padding_mode: What the padding holds: "zeros", "reflect", "replicate" or "circular"; see functional.pad.
        init: How the weights start, see nn.init; with another scheme than "default" biases start at 0.

    Raises:
        OptionError: For arguments that cannot be.

    >>> import numpy as np
    >>> Conv2d(1, 32, 3)(np.zeros((2, 1, 28, 28), dtype=np.float32)).shape
    (2, 32, 26, 26)
    """

    dims = 2
    _run = staticmethod(F.conv2d)
    _run_backward = staticmethod(F.conv2d_backward)


class Conv3d(_Conv):
    """Cross-correlation of volumes or videos with learned filters; see functional.conv3d.

    Input (N, in_channels, D, H, W), output (N, out_channels, D', H', W'). Arguments as in Conv2d, sizes are one number
    or (depth, height, width).

    >>> import numpy as np
    >>> Conv3d(1, 4, 3)(np.zeros((2, 1, 8, 16, 16), dtype=np.float32)).shape
    (2, 4, 6, 14, 14)
    """

    dims = 3
    _run = staticmethod(F.conv3d)
    _run_backward = staticmethod(F.conv3d_backward)


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
        padding_mode: As in Conv2d.
        init: As in Conv2d.

    >>> from pellucid import nn
    >>> nn.Sequential(LazyConv2d(8, 3), input_shape=(3, 9, 9))[0]
    Conv2d(3, 8, (3, 3))
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: SizeArgument,
        stride: SizeArgument = 1,
        padding: PaddingArgument = 0,
        dilation: SizeArgument = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        init: Scheme = "default",
    ) -> None:
        Layer.__init__(self)
        self._options(out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, init)

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


class _ConvTranspose(Layer):
    """What transposed convolutions in one, two and three dimensions share."""

    dims: ClassVar[int]
    _run: ClassVar[Callable[..., Array]]
    _run_backward: ClassVar[Callable[..., tuple[Array, Array, Array]]]

    weight = Parameter()
    bias = Parameter()

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: SizeArgument,
        stride: SizeArgument = 1,
        padding: SizeArgument = 0,
        output_padding: SizeArgument = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: SizeArgument = 1,
        init: Scheme = "default",
    ) -> None:
        super().__init__()
        self.in_channels = integer(in_channels, "in_channels")
        self.out_channels = integer(out_channels, "out_channels")
        self.kernel_size = sizes(kernel_size, "kernel_size", self.dims)
        self.stride = sizes(stride, "stride", self.dims)
        self.padding = sizes(padding, "padding", self.dims, minimum=0)
        self.output_padding = sizes(output_padding, "output_padding", self.dims, minimum=0)
        self.groups = integer(groups, "groups")
        self.has_bias = bool(bias)
        self.dilation = sizes(dilation, "dilation", self.dims)
        self.init = check_scheme(init)
        for name, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.groups:
                raise OptionError(f"{name} {channels} must be a multiple of groups {self.groups}")
        cells = math.prod(self.kernel_size)
        # PyTorch's fans are those of the convolution whose transpose this is, so its outputs are our inputs.
        fan_in, fan_out = self.out_channels // self.groups * cells, self.in_channels // self.groups * cells
        shape = (self.in_channels, self.out_channels // self.groups, *self.kernel_size)
        self._declare("weight", shape, self.init, fan_in, fan_out)
        if self.has_bias:
            start = "default" if self.init == "default" else "zeros"
            self._declare("bias", (self.out_channels,), start, fan_in, fan_out)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as plain data."""
        return {**super().config(), "bias": self.has_bias}

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, in_channels, ...).
            training: Makes no difference.
            rng: Not used.
        """
        weight, bias = self.weight, self.bias
        geometry = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            dx, dweight, dbias = self._run_backward(dy, x, weight, *geometry)
            return dx, {"weight": dweight} if bias is None else {"weight": dweight, "bias": dbias}

        return self._run(x, weight, bias, *geometry), backward

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (out_channels, ...).

        Args:
            input_shape: (in_channels, ...).
        """
        check_maps(input_shape, self.in_channels, self.dims)
        geometry = (self.kernel_size, self.stride, self.padding, self.output_padding, self.dilation)
        return self.out_channels, *transposed_sizes(input_shape[1:], *geometry)

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return the multiplications for one image: every weight once per input position.

        Args:
            input_shape: (in_channels, ...).
        """
        return int(self._arrays["weight"].size) * math.prod(input_shape[1:])


class ConvTranspose1d(_ConvTranspose):
    """The transpose of a Conv1d; see ConvTranspose2d. Input (N, in_channels, L), output (N, out_channels, L').

    >>> import numpy as np
    >>> ConvTranspose1d(4, 2, 3, stride=2)(np.zeros((1, 4, 7), dtype=np.float32)).shape
    (1, 2, 15)
    """

    dims = 1
    _run = staticmethod(F.conv_transpose1d)
    _run_backward = staticmethod(F.conv_transpose1d_backward)


class ConvTranspose2d(_ConvTranspose):
    """The transpose of a Conv2d from out_channels to in_channels, not its inverse; see functional.conv_transpose2d.

    Input (N, in_channels, H, W), output (N, out_channels, H', W') with
    H' = (H - 1)s - 2p + d(k - 1) + output_padding + 1.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the filters, a number or (height, width).
        stride: Step of the convolution, so about the factor by which maps grow.
        padding: Cells that are cut off on each side, a number or (height, width).
        output_padding: Cells added at the bottom and right; less than stride or dilation.
        groups: Divides channels into groups that do not see each other.
        bias: Whether each output channel adds a number.
        dilation: Distance of neighboring kernel cells.
        init: How the weights start, see nn.init; with another scheme than "default" biases start at 0.

    Raises:
        OptionError: For arguments that cannot be.

    >>> import numpy as np
    >>> ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1)(np.zeros((2, 8, 7, 7), dtype=np.float32)).shape
    (2, 4, 14, 14)
    """

    dims = 2
    _run = staticmethod(F.conv_transpose2d)
    _run_backward = staticmethod(F.conv_transpose2d_backward)


class ConvTranspose3d(_ConvTranspose):
    """The transpose of a Conv3d; see ConvTranspose2d. Input (N, in_channels, D, H, W), output (N, out_channels, ...).

    >>> import numpy as np
    >>> ConvTranspose3d(2, 1, 2, stride=2)(np.zeros((1, 2, 3, 4, 4), dtype=np.float32)).shape
    (1, 1, 6, 8, 8)
    """

    dims = 3
    _run = staticmethod(F.conv_transpose3d)
    _run_backward = staticmethod(F.conv_transpose3d_backward)
