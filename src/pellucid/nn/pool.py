"""Pooling layers."""

from __future__ import annotations

from pellucid import functional as F
from pellucid._types import Array, Shape
from pellucid.errors import OptionError
from pellucid.nn.conv import check_maps
from pellucid.nn.layer import Backward, Layer
from pellucid.random import Source
from pellucid.shapes import Pair, adaptive_size, output_pair, pair, pool_padding


class _Pool2d(Layer):
    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair = 0,
        *,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.stride = self.kernel_size if stride is None else pair(stride, "stride")
        self._sides = pool_padding(padding, self.kernel_size)
        self.padding = pair(padding, "padding", minimum=0)
        if not isinstance(ceil_mode, bool):
            raise OptionError(f"ceil_mode must be True or False, got {ceil_mode!r}")
        self.ceil_mode = ceil_mode

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C, H', W').

        Args:
            input_shape: (C, H, W).
        """
        check_maps(input_shape)
        c, h, w = input_shape
        return c, *output_pair((h, w), self.kernel_size, self.stride, self._sides, ceil_mode=self.ceil_mode)


class MaxPool2d(_Pool2d):
    """The largest value of each window; its gradient goes to the first such cell in row-major order.

    Input (N, C, H, W), output (N, C, H', W'). Rows and columns behind the last whole window are dropped (and get
    gradient 0) unless ceil_mode keeps them.

    Args:
        kernel_size: Size of the window, a number or (height, width).
        stride: Step; kernel_size if None.
        padding: Cells of minus infinity on each side, at most half of kernel_size.
        ceil_mode: Keep a last window that reaches beyond the edge.

    >>> import numpy as np
    >>> MaxPool2d(2)(np.array([[[[2.0, 3.0], [5.0, 6.0]]]]))
    array([[[[6.]]]])
    """

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, C, H, W).
            training: Makes no difference.
            rng: Not used.
        """
        window = (self.kernel_size, self.stride, self.padding)
        y = F.max_pool2d(x, *window, ceil_mode=self.ceil_mode)
        return y, lambda dy: (F.max_pool2d_backward(dy, x, *window, ceil_mode=self.ceil_mode), {})


class AvgPool2d(_Pool2d):
    """The mean of each window; padding counts as zeros in it.

    Input (N, C, H, W), output (N, C, H', W').

    Args:
        kernel_size: Size of the window, a number or (height, width).
        stride: Step; kernel_size if None.
        padding: Zeros on each side, at most half of kernel_size.
        ceil_mode: Keep a last window that reaches beyond the edge.

    >>> import numpy as np
    >>> AvgPool2d(2)(np.array([[[[2.0, 3.0], [5.0, 6.0]]]]))
    array([[[[4.]]]])
    """

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, C, H, W).
            training: Makes no difference.
            rng: Not used.
        """
        window = (self.kernel_size, self.stride, self.padding)
        y = F.avg_pool2d(x, *window, ceil_mode=self.ceil_mode)
        return y, lambda dy: (F.avg_pool2d_backward(dy, x, *window, ceil_mode=self.ceil_mode), {})


class AdaptiveAvgPool2d(Layer):
    """Means over as many nearly equal rectangles as the output has cells, for maps of any size.

    Input (N, C, H, W), output (N, C, H', W').

    Args:
        output_size: Height and width of the output, a number or a pair; None keeps the input's. 1 is the global mean.

    >>> import numpy as np
    >>> AdaptiveAvgPool2d(1)(np.arange(6.0).reshape(1, 1, 2, 3))
    array([[[[2.5]]]])
    """

    def __init__(self, output_size: int | tuple[int | None, int | None]) -> None:
        super().__init__()
        adaptive_size(output_size, (1, 1))
        sides = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
        h, w = (None if side is None else int(side) for side in sides)
        self.output_size = (h, w) if h is None or isinstance(output_size, (tuple, list)) else h

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, C, H, W).
            training: Makes no difference.
            rng: Not used.
        """
        size = self.output_size
        return F.adaptive_avg_pool2d(x, size), lambda dy: (F.adaptive_avg_pool2d_backward(dy, x, size), {})

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C, H', W').

        Args:
            input_shape: (C, H, W).
        """
        check_maps(input_shape)
        return input_shape[0], *adaptive_size(self.output_size, (input_shape[1], input_shape[2]))
