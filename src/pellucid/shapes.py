"""Sizes: of outputs, of padding, of windows. The only place where this arithmetic lives.

Letters: N batch, C channels, H height, W width; n one spatial size, k kernel, s stride, p padding, d dilation.
Pairs are always (height, width).
"""

from __future__ import annotations

import math
import operator
from typing import TypeAlias

import numpy as np

from pellucid.errors import OptionError, ShapeError, unknown

Pair: TypeAlias = tuple[int, int]
PaddingArgument: TypeAlias = int | tuple[int, int] | str
Padding: TypeAlias = tuple[Pair, Pair]
"""Zeros added before and after: ((top, bottom), (left, right))."""

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


def pair(value: object, name: str, minimum: int = 1) -> Pair:
    """Return a number or a (height, width) pair as a pair.

    >>> pair(3, "kernel_size"), pair((2, 4), "kernel_size")
    ((3, 3), (2, 4))
    """
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise OptionError(f"{name} must be a number or a pair (height, width), got {value!r}")
        return integer(value[0], name, minimum), integer(value[1], name, minimum)
    number = integer(value, name, minimum)
    return number, number


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


def check_padding(padding: PaddingArgument, stride: Pair) -> str | Pair:
    """Return the padding of a convolution, checked: a number, a pair or one of PADDING_NAMES.

    >>> check_padding([1, 2], (1, 1))
    (1, 2)
    """
    if isinstance(padding, str):
        if padding not in PADDING_NAMES:
            raise unknown("padding", padding, PADDING_NAMES)
        if padding == "same" and stride != (1, 1):
            raise OptionError(
                f'padding="same" needs stride 1, got stride {stride}; '
                '"same_upper" and "same_lower" take any stride and give ceil(n / stride) outputs'
            )
        return padding
    return pair(padding, "padding", minimum=0)


def resolve_padding(padding: PaddingArgument, size: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> Padding:
    """Return the zeros before and after each axis for a padding given by number, pair or name.

    "same" and "same_upper" put the odd zero behind (right, bottom), "same_lower" in front. "same" is PyTorch's,
    for stride 1; the other two are ONNX's and give ceil(n / s) outputs for any stride.

    >>> resolve_padding("same", (5, 5), (2, 3), (1, 1), (1, 1))
    ((0, 1), (1, 1))
    >>> resolve_padding("same_lower", (5, 5), (2, 3), (2, 2), (1, 1))
    ((1, 0), (1, 1))
    """
    checked = check_padding(padding, stride)
    if checked == "valid":
        return (0, 0), (0, 0)
    if not isinstance(checked, str):
        return (checked[0], checked[0]), (checked[1], checked[1])
    sides = []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + window_extent(k, d) - n, 0)
        small, large = total // 2, total - total // 2
        sides.append((large, small) if checked == "same_lower" else (small, large))
    return sides[0], sides[1]


def output_pair(
    size: Pair, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair = (1, 1), ceil_mode: bool = False
) -> Pair:
    """Return the output (height, width), or raise a ShapeError where the window does not fit.

    >>> output_pair((28, 28), (2, 4), (2, 2), ((1, 1), (1, 1)))
    (15, 14)
    """
    cells = [n + sum(p) for n, p in zip(size, padding, strict=True)]
    if math.prod(cells) > LARGEST or max(*kernel, *stride, *dilation) > LARGEST:
        raise ShapeError(f"maps of {text(tuple(cells))} cells, with padding, are too large; use less of both")
    sizes = [output_size(size[i], kernel[i], stride[i], padding[i], dilation[i], ceil_mode) for i in (0, 1)]
    for axis, n, k, p, d, out in zip(("height", "width"), size, kernel, padding, dilation, sizes, strict=True):
        if out < 1:
            extent = window_extent(k, d)
            missing = extent - n - sum(p)
            raise ShapeError(
                f"a window of {axis} {extent} does not fit into {n} cells with {sum(p)} of padding; "
                f"use padding {max(p) + -(-missing // 2)} or a kernel of at most {max(1, (n + sum(p) - 1) // d + 1)}"
            )
    return sizes[0], sizes[1]


def cover(size: Pair, kernel: Pair, stride: Pair, padding: Padding, out: Pair) -> Padding:
    """Return the padding, extended behind the input until it holds every window (ceil_mode reaches beyond)."""
    sides = []
    for n, k, s, p, o in zip(size, kernel, stride, padding, out, strict=True):
        sides.append((p[0], max(p[1], (o - 1) * s + k - n - p[0])))
    return sides[0], sides[1]


def pool_padding(padding: object, kernel: Pair) -> Padding:
    """Return the padding of a pool, checked: at most half a window, or some windows would see padding only.

    >>> pool_padding(1, (3, 2))
    ((1, 1), (1, 1))
    """
    p = pair(padding, "padding", minimum=0)
    if 2 * p[0] > kernel[0] or 2 * p[1] > kernel[1]:
        raise OptionError(
            f"padding {p} must be at most half of kernel_size {kernel}, else windows would see padding only"
        )
    return (p[0], p[0]), (p[1], p[1])


def adaptive_size(output_size: object, size: Pair) -> Pair:
    """Return the (height, width) that adaptive pooling gives; None keeps the input's.

    >>> adaptive_size((None, 2), (5, 7))
    (5, 2)
    """
    sides = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    if len(sides) != 2:
        raise OptionError(f"output_size must be a number or a pair (height, width), got {output_size!r}")
    h, w = (n if o is None else integer(o, "output_size") for o, n in zip(sides, size, strict=True))
    if h * w > 1 << 24:
        raise OptionError(f"output_size {h}x{w} is too large for adaptive pooling, which goes cell by cell")
    return h, w


def adaptive_regions(n: int, out: int) -> list[slice]:
    """Return which cells each output of adaptive pooling averages: from floor(i n / out) to ceil((i + 1) n / out).

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
