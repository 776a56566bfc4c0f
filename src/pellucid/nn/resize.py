"""Layers that change the size of maps without weights: padding and upsampling."""

from __future__ import annotations

from typing import ClassVar

from pellucid import functional as F
from pellucid._types import Array, Shape
from pellucid.errors import OptionError, unknown
from pellucid.functional.resample import MODES
from pellucid.nn.conv import check_maps
from pellucid.nn.layer import Backward, Layer
from pellucid.random import Source
from pellucid.shapes import LARGEST, SizeArgument, check_resizing, integer, padded_size, resized


class _Pad2d(Layer):
    mode: ClassVar[str]

    def __init__(self, padding: int | tuple[int, int, int, int]) -> None:
        super().__init__()
        sides = padding if isinstance(padding, (tuple, list)) else (padding,) * 4
        if len(sides) != 4:
            raise OptionError(f"padding must be a number or (left, right, top, bottom), got {padding!r}")
        least = -LARGEST if self.mode == "constant" else 0
        left, right, top, bottom = (integer(side, "padding", minimum=least) for side in sides)
        self.padding = (left, right, top, bottom)

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, C, H, W).
            training: Makes no difference.
            rng: Not used.
        """
        check_maps(x.shape[1:])
        return F.pad(x, self.padding, self.mode), lambda dy: (F.pad_backward(dy, x, self.padding, self.mode), {})

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C, top + H + bottom, left + W + right).

        Args:
            input_shape: (C, H, W).
        """
        check_maps(input_shape)
        channels, height, width = input_shape
        left, right, top, bottom = self.padding
        return channels, padded_size(height, (top, bottom), self.mode), padded_size(width, (left, right), self.mode)


class ZeroPad2d(_Pad2d):
    """Zeros around each map; negative numbers take rows and columns away. Input (N, C, H, W).

    Args:
        padding: Cells on each side, a number or (left, right, top, bottom).

    Raises:
        OptionError: For another padding.

    >>> import numpy as np
    >>> ZeroPad2d((1, 0, 0, 0))(np.ones((1, 1, 1, 2)))
    array([[[[0., 1., 1.]]]])
    """

    mode = "constant"


class ReflectionPad2d(_Pad2d):
    """The mirror image of each map around it, without the edge itself: 1 2 3 becomes 2 1 2 3 2. Input (N, C, H, W).

    Args:
        padding: Cells on each side, a number or (left, right, top, bottom), less than the map has.

    Raises:
        OptionError: For another padding.

    >>> import numpy as np
    >>> ReflectionPad2d((1, 1, 0, 0))(np.array([[[[1.0, 2.0, 3.0]]]]))
    array([[[[2., 1., 2., 3., 2.]]]])
    """

    mode = "reflect"


class ReplicationPad2d(_Pad2d):
    """Copies of its edge around each map: 1 2 3 becomes 1 1 2 3 3. Input (N, C, H, W).

    Args:
        padding: Cells on each side, a number or (left, right, top, bottom).

    Raises:
        OptionError: For another padding.

    >>> import numpy as np
    >>> ReplicationPad2d((1, 1, 0, 0))(np.array([[[[1.0, 2.0, 3.0]]]]))
    array([[[[1., 1., 2., 3., 3.]]]])
    """

    mode = "replicate"


class Upsample(Layer):
    """Maps resampled to another size; see functional.interpolate. Input (N, C, ...), output (N, C, ...).

    Args:
        size: Of the output, a number or one for each axis.
        scale_factor: Or this: a factor or one for each axis.
        mode: "nearest"; "linear", "bilinear", "trilinear" for one, two and three axes; "bicubic" for two.
        align_corners: Whether the centers of the corner cells stay where they are; not for "nearest".

    Raises:
        OptionError: For arguments that cannot be.

    >>> import numpy as np
    >>> Upsample(scale_factor=2)(np.array([[[[1.0, 2.0]]]]))[0, 0]
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.]])
    """

    def __init__(
        self,
        size: int | tuple[int, ...] | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
    ) -> None:
        super().__init__()
        self.size: SizeArgument | None
        self.scale_factor: float | tuple[float, ...] | None
        if mode not in MODES:
            raise unknown("mode", mode, MODES)
        if align_corners is not None and not isinstance(align_corners, bool):
            raise OptionError(f"align_corners must be True, False or None, got {align_corners!r}")
        if mode == "nearest" and align_corners is not None:
            raise OptionError('align_corners has no meaning with mode "nearest"; leave it None')
        given = size if size is not None else scale_factor
        dims = len(given) if isinstance(given, (tuple, list)) else MODES[mode][0]
        if dims not in MODES[mode]:
            raise OptionError(f'mode "{mode}" is not for {dims} axes, as {given!r} has')
        self.size, self.scale_factor = check_resizing(size, scale_factor, dims)
        if not isinstance(given, (tuple, list)):  # one number fits any number of axes
            self.size, self.scale_factor = size, scale_factor
        self.mode, self.align_corners = mode, align_corners

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, C, ...).
            training: Makes no difference.
            rng: Not used.
        """
        options = (self.size, self.scale_factor, self.mode, self.align_corners)
        return F.interpolate(x, *options), lambda dy: (F.interpolate_backward(dy, x, *options), {})

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C, ...).

        Args:
            input_shape: (C, ...).
        """
        dims = len(input_shape) - 1
        if dims not in MODES[self.mode]:
            check_maps(input_shape, dims=MODES[self.mode][0] if len(MODES[self.mode]) == 1 else 2)
        return input_shape[0], *resized(input_shape[1:], self.size, self.scale_factor)[0]
