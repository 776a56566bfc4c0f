"""Pooling layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from pellucid import functional as F
from pellucid._types import Array, Shape
from pellucid.errors import OptionError
from pellucid.nn.conv import check_maps
from pellucid.nn.layer import Backward, Layer
from pellucid.random import Source
from pellucid.shapes import SizeArgument, adaptive_size, output_sizes, pool_padding, sizes


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise OptionError(f"{name} must be True or False, got {value!r}")
    return value


class _Pool(Layer):
    """What pools in one, two and three dimensions share: a window that slides over the maps."""

    dims: ClassVar[int]
    _run: ClassVar[Callable[..., Array]]
    _run_backward: ClassVar[Callable[..., Array]]

    dilation: Shape
    ceil_mode: bool

    def _window(self, kernel_size: SizeArgument, stride: SizeArgument | None, padding: SizeArgument) -> None:
        self.kernel_size = sizes(kernel_size, "kernel_size", self.dims)
        self.stride = self.kernel_size if stride is None else sizes(stride, "stride", self.dims)
        self._sides = pool_padding(padding, self.kernel_size, self.dilation)
        self.padding = sizes(padding, "padding", self.dims, minimum=0)

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, C, ...).
            training: Makes no difference.
            rng: Not used.
        """
        options = self.config()
        return self._run(x, **options), lambda dy: (self._run_backward(dy, x, **options), {})

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C, ...).

        Args:
            input_shape: (C, ...).
        """
        check_maps(input_shape, dims=self.dims)
        window = (self.kernel_size, self.stride, self._sides, self.dilation)
        return input_shape[0], *output_sizes(input_shape[1:], *window, self.ceil_mode)


class _MaxPool(_Pool):
    def __init__(
        self,
        kernel_size: SizeArgument,
        stride: SizeArgument | None = None,
        padding: SizeArgument = 0,
        dilation: SizeArgument = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.dilation = sizes(dilation, "dilation", self.dims)
        self._window(kernel_size, stride, padding)
        self.ceil_mode = _flag(ceil_mode, "ceil_mode")


class _AvgPool(_Pool):
    def __init__(
        self,
        kernel_size: SizeArgument,
        stride: SizeArgument | None = None,
        padding: SizeArgument = 0,
        *,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.dilation = (1,) * self.dims
        self._window(kernel_size, stride, padding)
        self.ceil_mode = _flag(ceil_mode, "ceil_mode")
        self.count_include_pad = _flag(count_include_pad, "count_include_pad")


class MaxPool1d(_MaxPool):
    """The largest value of each window of sequences (N, C, L); arguments as in MaxPool2d.

    >>> import numpy as np
    >>> MaxPool1d(2)(np.array([[[2.0, 3.0, 5.0, 4.0]]]))
    array([[[3., 5.]]])
    """

    dims = 1
    _run = staticmethod(F.max_pool1d)
    _run_backward = staticmethod(F.max_pool1d_backward)


class MaxPool2d(_MaxPool):
    """The largest value of each window; its gradient goes to the first such cell in row-major order.

    Input (N, C, H, W), output (N, C, H', W'). Rows and columns behind the last whole window are dropped (and get
    gradient 0) unless ceil_mode keeps them. MaxUnpool2d goes the other way.

    Args:
        kernel_size: Size of the window, a number or (height, width).
        stride: Step; kernel_size if None.
        padding: Cells of minus infinity on each side, at most half of kernel_size.
        dilation: Distance of neighboring cells of the window.
        ceil_mode: Keep a last window that reaches beyond the edge.

    >>> import numpy as np
    >>> MaxPool2d(2)(np.array([[[[2.0, 3.0], [5.0, 6.0]]]]))
    array([[[[6.]]]])
    """

    dims = 2
    _run = staticmethod(F.max_pool2d)
    _run_backward = staticmethod(F.max_pool2d_backward)


class MaxPool3d(_MaxPool):
    """The largest value of each window of volumes (N, C, D, H, W); arguments as in MaxPool2d.

    >>> import numpy as np
    >>> MaxPool3d(2)(np.zeros((1, 2, 4, 6, 6))).shape
    (1, 2, 2, 3, 3)
    """

    dims = 3
    _run = staticmethod(F.max_pool3d)
    _run_backward = staticmethod(F.max_pool3d_backward)


class AvgPool1d(_AvgPool):
    """The mean of each window of sequences (N, C, L); arguments as in AvgPool2d.

    >>> import numpy as np
    >>> AvgPool1d(2)(np.array([[[2.0, 3.0, 5.0, 4.0]]]))
    array([[[2.5, 4.5]]])
    """

    dims = 1
    _run = staticmethod(F.avg_pool1d)
    _run_backward = staticmethod(F.avg_pool1d_backward)


class AvgPool2d(_AvgPool):
    """The mean of each window; padding counts as zeros in it, unless count_include_pad=False.

    Input (N, C, H, W), output (N, C, H', W').

    Args:
        kernel_size: Size of the window, a number or (height, width).
        stride: Step; kernel_size if None.
        padding: Zeros on each side, at most half of kernel_size.
        ceil_mode: Keep a last window that reaches beyond the edge.
        count_include_pad: Whether padding counts as cells of the window.

    >>> import numpy as np
    >>> AvgPool2d(2)(np.array([[[[2.0, 3.0], [5.0, 6.0]]]]))
    array([[[[4.]]]])
    """

    dims = 2
    _run = staticmethod(F.avg_pool2d)
    _run_backward = staticmethod(F.avg_pool2d_backward)


class AvgPool3d(_AvgPool):
    """The mean of each window of volumes (N, C, D, H, W); arguments as in AvgPool2d.

    >>> import numpy as np
    >>> AvgPool3d(2)(np.zeros((1, 2, 4, 6, 6))).shape
    (1, 2, 2, 3, 3)
    """

    dims = 3
    _run = staticmethod(F.avg_pool3d)
    _run_backward = staticmethod(F.avg_pool3d_backward)


class _AdaptivePool(Layer):
    """What adaptive pools share: as many nearly equal regions as the output has cells, for inputs of any size."""

    dims: ClassVar[int]
    _run: ClassVar[Callable[..., Array]]
    _run_backward: ClassVar[Callable[..., Array]]

    def __init__(self, output_size: int | tuple[int | None, ...]) -> None:
        super().__init__()
        adaptive_size(output_size, (1,) * self.dims)
        several = isinstance(output_size, (tuple, list))
        each = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * self.dims
        plain = tuple(None if side is None else int(side) for side in each)
        self.output_size = plain[0] if not several and plain[0] is not None else plain

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, C, ...).
            training: Makes no difference.
            rng: Not used.
        """
        size = self.output_size
        return self._run(x, size), lambda dy: (self._run_backward(dy, x, size), {})

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C, ...).

        Args:
            input_shape: (C, ...).
        """
        check_maps(input_shape, dims=self.dims)
        return input_shape[0], *adaptive_size(self.output_size, input_shape[1:])


class AdaptiveAvgPool1d(_AdaptivePool):
    """Means over nearly equal parts of sequences (N, C, L); see AdaptiveAvgPool2d.

    >>> import numpy as np
    >>> AdaptiveAvgPool1d(2)(np.array([[[1.0, 2.0, 6.0]]]))
    array([[[1.5, 4. ]]])
    """

    dims = 1
    _run = staticmethod(F.adaptive_avg_pool1d)
    _run_backward = staticmethod(F.adaptive_avg_pool1d_backward)


class AdaptiveAvgPool2d(_AdaptivePool):
    """Means over as many nearly equal rectangles as the output has cells, for maps of any size.

    Input (N, C, H, W), output (N, C, H', W').

    Args:
        output_size: Height and width of the output, a number or a pair; None keeps the input's. 1 is the global mean.

    >>> import numpy as np
    >>> AdaptiveAvgPool2d(1)(np.arange(6.0).reshape(1, 1, 2, 3))
    array([[[[2.5]]]])
    """

    dims = 2
    _run = staticmethod(F.adaptive_avg_pool2d)
    _run_backward = staticmethod(F.adaptive_avg_pool2d_backward)


class AdaptiveAvgPool3d(_AdaptivePool):
    """Means over nearly equal parts of volumes (N, C, D, H, W); see AdaptiveAvgPool2d.

    >>> import numpy as np
    >>> AdaptiveAvgPool3d((1, None, None))(np.zeros((1, 2, 4, 6, 6))).shape
    (1, 2, 1, 6, 6)
    """

    dims = 3
    _run = staticmethod(F.adaptive_avg_pool3d)
    _run_backward = staticmethod(F.adaptive_avg_pool3d_backward)


class AdaptiveMaxPool1d(_AdaptivePool):
    """The largest values of nearly equal parts of sequences (N, C, L); see AdaptiveMaxPool2d.

    >>> import numpy as np
    >>> AdaptiveMaxPool1d(2)(np.array([[[1.0, 2.0, 6.0]]]))
    array([[[2., 6.]]])
    """

    dims = 1
    _run = staticmethod(F.adaptive_max_pool1d)
    _run_backward = staticmethod(F.adaptive_max_pool1d_backward)


class AdaptiveMaxPool2d(_AdaptivePool):
    """The largest values of as many nearly equal rectangles as the output has cells, for maps of any size.

    Input (N, C, H, W), output (N, C, H', W').

    Args:
        output_size: Height and width of the output, a number or a pair; None keeps the input's.

    >>> import numpy as np
    >>> AdaptiveMaxPool2d(1)(np.arange(6.0).reshape(1, 1, 2, 3))
    array([[[[5.]]]])
    """

    dims = 2
    _run = staticmethod(F.adaptive_max_pool2d)
    _run_backward = staticmethod(F.adaptive_max_pool2d_backward)


class AdaptiveMaxPool3d(_AdaptivePool):
    """The largest values of nearly equal parts of volumes (N, C, D, H, W); see AdaptiveMaxPool2d.

    >>> import numpy as np
    >>> AdaptiveMaxPool3d(2)(np.zeros((1, 2, 4, 6, 6))).shape
    (1, 2, 2, 2, 2)
    """

    dims = 3
    _run = staticmethod(F.adaptive_max_pool3d)
    _run_backward = staticmethod(F.adaptive_max_pool3d_backward)
