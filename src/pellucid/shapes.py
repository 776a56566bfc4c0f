"""Sizes: of outputs, of padding, of windows. The only place where this arithmetic lives.

Letters: N batch, C channels, D depth, H height, W width; n one spatial size, k kernel, s stride, p padding, d dilation.
Sizes have one number for each spatial axis: (length,), (height, width) or (depth, height, width).
"""

from __future__ import annotations

import math
import operator
from typing import TypeAlias

import numpy as np

from pellucid._types import Shape
from pellucid.errors import OptionError, ShapeError, unknown

Pair: TypeAlias = tuple[int, int]
SizeArgument: TypeAlias = int | tuple[int, ...]
PaddingArgument: TypeAlias = int | tuple[int, ...] | str
Padding: TypeAlias = tuple[Pair, ...]
"""Zeros added before and after each axis: ((top, bottom), (left, right)) for maps."""

AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
_ONE_EACH = {1: "a tuple (length,)", 2: "a pair (height, width)", 3: "a triple (depth, height, width)"}

LARGEST = 1 << 31
"""No array may have more elements: it would take 8 GB as float32."""
_LONGEST = 1 << 63

PADDING_NAMES = ("valid", "same", "same_upper", "same_lower")


def integer(value: object, name: str, minimum: int = 1) -> int:
    """Return value as an int of at least minimum, or raise an OptionError that names the argument.

    >>> integer(3, "stride")
    3
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise OptionError(f"{name} must be a whole number, got {value!r}") from None
    if not -_LONGEST < number < _LONGEST:
        raise OptionError(f"{name} is too large: it must fit 64 bits")
    if number < minimum:
        raise OptionError(f"{name} must be at least {minimum}, got {number}")
    return number


def number(value: object, name: str, minimum: float = 0.0, below: float = math.inf) -> float:
    """Return value as a finite float of at least minimum, or raise an OptionError that names the argument.

    >>> number(1, "lr")
    1.0
    """
    real = isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool)
    if not real or not minimum <= value < below:  # type: ignore[operator]
        limits = ([f"at least {minimum:g}"] if minimum > -math.inf else []) + (
            [f"below {below:g}"] if below < math.inf else []
        )
        raise OptionError(f"{name} must be a number{' of ' if limits else ''}{' and '.join(limits)}, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def sizes(value: object, name: str, dims: int = 2, minimum: int = 1) -> Shape:
    """Return a number, or a tuple with one number for each axis, as such a tuple.

    >>> sizes(3, "kernel_size"), sizes((2, 4, 1), "kernel_size", dims=3)
    ((3, 3), (2, 4, 1))
    """
    if isinstance(value, (tuple, list)):
        if len(value) != dims:
            raise OptionError(f"{name} must be a number or {_ONE_EACH[dims]}, got {value!r}")
        return tuple(integer(n, name, minimum) for n in value)
    return (integer(value, name, minimum),) * dims


def pair(value: object, name: str, minimum: int = 1) -> Pair:
    """Return a number or a (height, width) pair as a pair.

    >>> pair(3, "size"), pair((2, 4), "size")
    ((3, 3), (2, 4))
    """
    height, width = sizes(value, name, 2, minimum)
    return height, width


def window_extent(kernel: int, dilation: int) -> int:
    """Return how many cells a dilated kernel spans: d(k - 1) + 1.

    >>> window_extent(3, 2)
    5
    """
    return dilation * (kernel - 1) + 1


def output_size(
    n: int, kernel: int, stride: int = 1, padding: Pair = (0, 0), dilation: int = 1, ceil_mode: bool = False
) -> int:
    """Return how many positions a window takes: floor((n + p - d(k - 1) - 1) / s) + 1.

    With ceil_mode the division is rounded up (so a window larger than the input may fit once), and a last window that
    would start in the padding behind the input is dropped, as in PyTorch. The result is 0 or less where the window
    does not fit.

    Args:
        n: Size of the input.
        kernel: Size of the window.
        stride: Step of the window.
        padding: Cells added before and after.
        dilation: Distance of two neighboring cells of the window.
        ceil_mode: Round up instead of down.

    >>> output_size(28, 5), output_size(10, 5, 1, (2, 2)), output_size(13, 3, 2, ceil_mode=True)
    (24, 10, 6)
    """
    room = n + sum(padding) - window_extent(kernel, dilation)
    if not ceil_mode:
        return room // stride + 1
    size = -(-room // stride) + 1
    return size - 1 if (size - 1) * stride >= n + padding[0] else size


def check_padding(padding: PaddingArgument, stride: Shape) -> str | Shape:
    """Return the padding of a convolution, checked: a number, one for each axis, or one of PADDING_NAMES.

    >>> check_padding([1, 2], (1, 1))
    (1, 2)
    """
    if isinstance(padding, str):
        if padding not in PADDING_NAMES:
            raise unknown("padding", padding, PADDING_NAMES)
        if padding == "same" and set(stride) != {1}:
            raise OptionError(
                f'padding="same" needs stride 1, got stride {stride}; '
                '"same_upper" and "same_lower" take any stride and give ceil(n / stride) outputs'
            )
        return padding
    return sizes(padding, "padding", len(stride), minimum=0)


def resolve_padding(padding: PaddingArgument, size: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Padding:
    """Return the zeros before and after each axis for a padding given by number, numbers or name.

    "same" and "same_upper" put the odd zero behind (right, bottom), "same_lower" in front. "same" is PyTorch's,
    for stride 1; the other two are ONNX's and give ceil(n / s) outputs for any stride.

    >>> resolve_padding("same", (5, 5), (2, 3), (1, 1), (1, 1))
    ((0, 1), (1, 1))
    >>> resolve_padding("same_lower", (5, 5), (2, 3), (2, 2), (1, 1))
    ((1, 0), (1, 1))
    """
    checked = check_padding(padding, stride)
    if checked == "valid":
        return ((0, 0),) * len(size)
    if not isinstance(checked, str):
        return tuple((p, p) for p in checked)
    sides = []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + window_extent(k, d) - n, 0)
        small, large = total // 2, total - total // 2
        sides.append((large, small) if checked == "same_lower" else (small, large))
    return tuple(sides)


def output_sizes(
    size: Shape,
    kernel: Shape,
    stride: Shape,
    padding: Padding,
    dilation: Shape,
    ceil_mode: bool = False,
) -> Shape:
    """Return the output's size along each axis, or raise a ShapeError where the window does not fit.

    >>> output_sizes((28, 28), (2, 4), (2, 2), ((1, 1), (1, 1)), (1, 1))
    (15, 14)
    """
    cells = [n + sum(p) for n, p in zip(size, padding, strict=True)]
    if math.prod(cells) > LARGEST or max(*kernel, *stride, *dilation) > LARGEST:
        raise ShapeError(f"maps of {text(tuple(cells))} cells, with padding, are too large; use less of both")
    axes = list(zip(size, kernel, stride, padding, dilation, strict=True))
    outs = tuple(output_size(n, k, s, p, d, ceil_mode) for n, k, s, p, d in axes)
    for axis, (n, k, _, p, d), out in zip(AXES[len(size)], axes, outs, strict=True):
        if out < 1:
            extent = window_extent(k, d)
            missing = extent - n - sum(p)
            raise ShapeError(
                f"a window of {axis} {extent} does not fit into {n} cells with {sum(p)} of padding; "
                f"use padding {max(p) + -(-missing // 2)} or a kernel of at most {max(1, (n + sum(p) - 1) // d + 1)}"
            )
    return outs


def padded_size(n: int, sides: Pair, mode: str = "constant") -> int:
    """Return the size of an axis with cells added before and after it, or with a constant taken away.

    Raises:
        OptionError: For negative numbers with another mode than "constant" or "zeros".
        ShapeError: For more cells than a mirror image (n - 1) or a repetition (n) has, or where nothing is left.

    >>> padded_size(5, (2, 1), "reflect")
    8
    """
    if mode not in ("constant", "zeros") and min(sides) < 0:
        raise OptionError(f'padding {sides} takes cells away, which only "constant" does, not "{mode}"')
    most = {"reflect": n - 1, "circular": n}.get(mode, LARGEST)
    if max(sides) > most or n + sum(sides) < 1 or n < 1:
        raise ShapeError(f'padding {sides} with mode "{mode}" does not fit an axis of {n} cells')
    return n + sum(sides)


def cover(size: Shape, kernel: Shape, stride: Shape, padding: Padding, dilation: Shape, out: Shape) -> Padding:
    """Return the padding, extended behind the input until it holds every window (ceil_mode reaches beyond)."""
    sides = []
    for n, k, s, p, d, o in zip(size, kernel, stride, padding, dilation, out, strict=True):
        sides.append((p[0], max(p[1], (o - 1) * s + window_extent(k, d) - n - p[0])))
    return tuple(sides)


def pool_padding(padding: object, kernel: Shape, dilation: Shape | None = None) -> Padding:
    """Return the padding of a pool, checked: at most half a window, or some windows would see padding only.

    >>> pool_padding(1, (3, 2))
    ((1, 1), (1, 1))
    """
    sides, spread = sizes(padding, "padding", len(kernel), minimum=0), dilation or (1,) * len(kernel)
    if any(2 * p > window_extent(k, d) for p, k, d in zip(sides, kernel, spread, strict=True)):
        dilated = f" with dilation {spread}" if set(spread) != {1} else ""
        raise OptionError(
            f"padding {sides} must be at most half of kernel_size {kernel}{dilated}, "
            "else windows would see padding only"
        )
    return tuple((p, p) for p in sides)


def transposed_sizes(
    size: Shape, kernel: Shape, stride: Shape, padding: Shape, output_padding: Shape, dilation: Shape
) -> Shape:
    """Return the output's size of a transposed convolution: (n - 1) s - 2p + d(k - 1) + output_padding + 1.

    Raises:
        OptionError: For an output_padding of stride and dilation or more.
        ShapeError: Where nothing is left.

    >>> transposed_sizes((7, 3), (3, 3), (2, 2), (1, 1), (1, 0), (1, 1))
    (14, 5)
    """
    outs = []
    for axis, n, k, s, p, o, d in zip(
        AXES[len(size)], size, kernel, stride, padding, output_padding, dilation, strict=True
    ):
        if o >= max(s, d):
            raise OptionError(f"output_padding {o} must be less than stride {s} or dilation {d}")
        outs.append((n - 1) * s - 2 * p + window_extent(k, d) + o)
        if outs[-1] < 1:
            raise ShapeError(f"padding {p} leaves nothing of the output's {axis}: {outs[-1] + 2 * p} - 2 x {p}")
    if math.prod(outs) > LARGEST:
        raise ShapeError(f"maps of {text(tuple(outs))} cells are too large; use a smaller stride")
    return tuple(outs)


def check_resizing(size: object, scale_factor: object, dims: int) -> tuple[Shape | None, tuple[float, ...] | None]:
    """Return a new size and the factors to it, one of them None, with one number for each axis.

    Raises:
        OptionError: Unless one of both is given and possible.

    >>> check_resizing(None, 1.5, 2)
    (None, (1.5, 1.5))
    """
    if (size is None) == (scale_factor is None):
        raise OptionError("give size or scale_factor" + (", but not both" if size is not None else ""))
    if size is not None:
        return sizes(size, "size", dims), None
    factors = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * dims
    if len(factors) != dims:
        raise OptionError(f"scale_factor must be a number or {_ONE_EACH[dims]}, got {scale_factor!r}")
    factors = tuple(number(f, "scale_factor", below=LARGEST) for f in factors)
    if min(factors) == 0:
        raise OptionError("scale_factor must be above 0")
    return None, factors


def resized(size: Shape, new_size: object, scale_factor: object) -> tuple[Shape, tuple[float | None, ...]]:
    """Return the output's size, and how many input cells each output cell covers where a factor says so, else None.

    Args:
        size: Of the input.
        new_size: A number or one for each axis, or None.
        scale_factor: A factor or one for each axis, or None.

    Raises:
        OptionError: Unless one of both is given and possible.
        ShapeError: Where nothing would be left, or too much would come.

    >>> resized((4, 5), None, 2)
    ((8, 10), (0.5, 0.5))
    """
    out, factors = check_resizing(new_size, scale_factor, len(size))
    scales: tuple[float | None, ...] = (None,) * len(size)
    if factors is not None:
        out, scales = tuple(int(n * f) for n, f in zip(size, factors, strict=True)), tuple(1 / f for f in factors)
    if out is None or min(out) < 1 or math.prod(out) > LARGEST:
        raise ShapeError(f"cells {text(size)} cannot become {text(out or ())}; choose another size or scale_factor")
    return out, scales


def adaptive_size(output_size: object, size: Shape) -> Shape:
    """Return the size that adaptive pooling gives; None keeps the input's.

    >>> adaptive_size((None, 2), (5, 7))
    (5, 2)
    """
    sides = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * len(size)
    if len(sides) != len(size):
        raise OptionError(f"output_size must be a number or {_ONE_EACH[len(size)]}, got {output_size!r}")
    out = tuple(n if o is None else integer(o, "output_size") for o, n in zip(sides, size, strict=True))
    if math.prod(out) > 1 << 24:
        raise OptionError(f"output_size {text(out)} is too large for adaptive pooling, which goes cell by cell")
    return out


def adaptive_regions(n: int, out: int) -> list[slice]:
    """Return which cells each output of adaptive pooling reads: from floor(i n / out) to ceil((i + 1) n / out).

    >>> adaptive_regions(5, 2)
    [slice(0, 3, None), slice(2, 5, None)]
    """
    return [slice(i * n // out, -(-(i + 1) * n // out)) for i in range(out)]


def text(shape: tuple[int, ...]) -> str:
    """Return a shape as people write it.

    >>> text((1, 28, 28))
    '1x28x28'
    """
    return "x".join(str(n) for n in shape)
