"""The arithmetic of layers, step by step and in words: sizes, parameters, and what sparse links save."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from pellucid import nn
from pellucid._types import Array, Shape
from pellucid.errors import OptionError
from pellucid.nn import Layer, Network
from pellucid.shapes import (
    AXES,
    Padding,
    PaddingArgument,
    SizeArgument,
    output_size,
    output_sizes,
    resolve_padding,
    sizes,
    window_extent,
)


def _geometry(
    n: SizeArgument, kernel: SizeArgument, stride: SizeArgument, padding: PaddingArgument, dilation: SizeArgument
) -> tuple[Shape, Shape, Shape, Padding, Shape]:
    """Return all of it with one number for each axis; the first that has several says how many."""
    several = next((a for a in (n, kernel, stride, padding, dilation) if isinstance(a, (tuple, list))), (1,))
    dims = len(several)
    if dims not in AXES:
        raise OptionError(f"sizes must have one to three numbers, got {several!r}")
    size, window = sizes(n, "n", dims), sizes(kernel, "kernel", dims)
    steps, spread = sizes(stride, "stride", dims), sizes(dilation, "dilation", dims)
    return size, window, steps, resolve_padding(padding, size, window, steps, spread), spread


def output_size_steps(
    n: SizeArgument,
    kernel: SizeArgument,
    stride: SizeArgument = 1,
    padding: PaddingArgument = 0,
    dilation: SizeArgument = 1,
    ceil_mode: bool = False,
) -> str:
    """Return how many outputs a convolution or pool gives, with each step of the sum; a line for each axis.

    Args:
        n: Size of the input, a number, or one for each axis.
        kernel: Size of the window.
        stride: Step of the window.
        padding: Cells on each side, or "valid", "same", "same_upper", "same_lower".
        dilation: Distance of neighboring kernel cells.
        ceil_mode: Round up, as pools can.

    Raises:
        ShapeError: Where the window does not fit.
        OptionError: For arguments that cannot be.

    >>> print(output_size_steps(28, 5))
    floor((28 + 2 x 0 - 1 x (5 - 1) - 1) / 1) + 1 = floor(23 / 1) + 1 = 23 + 1 = 24
    >>> print(output_size_steps(28, (2, 4), stride=2, padding=1))
    height: floor((28 + 2 x 1 - 1 x (2 - 1) - 1) / 2) + 1 = floor(28 / 2) + 1 = 14 + 1 = 15
    width: floor((28 + 2 x 1 - 1 x (4 - 1) - 1) / 2) + 1 = floor(26 / 2) + 1 = 13 + 1 = 14
    """
    geometry = _geometry(n, kernel, stride, padding, dilation)
    output_sizes(*geometry, ceil_mode)
    lines = []
    for size, window, step, (before, after), spread in zip(*geometry, strict=True):
        around = f"2 x {before}" if before == after else f"{before} + {after}"
        room = size + before + after - window_extent(window, spread)
        rounding, steps = ("ceil", -(-room // step)) if ceil_mode else ("floor", room // step)
        line = (
            f"{rounding}(({size} + {around} - {spread} x ({window} - 1) - 1) / {step}) + 1 = "
            f"{rounding}({room} / {step}) + 1 = {steps} + 1 = {steps + 1}"
        )
        out = output_size(size, window, step, (before, after), spread, ceil_mode)
        if out <= steps:
            line += f", less the last window, which would start in the padding behind: {out}"
        lines.append(line)
    if len(lines) == 1:
        return lines[0]
    return "\n".join(f"{axis}: {line}" for axis, line in zip(AXES[len(lines)], lines, strict=True))


def contributions(
    n: SizeArgument,
    kernel: SizeArgument,
    stride: SizeArgument = 1,
    padding: PaddingArgument = 0,
    dilation: SizeArgument = 1,
) -> Array:
    """Return how many outputs each input cell feeds: int64, of the shape n.

    Args:
        n: Size of the input, a number, or one for each axis.
        kernel: Size of the window.
        stride: Step of the window.
        padding: As in output_size_steps.
        dilation: Distance of neighboring kernel cells.

    Raises:
        ShapeError: Where the window does not fit.
        OptionError: For arguments that cannot be.

    >>> contributions(5, 3), contributions(5, 3, padding=1)
    (array([1, 2, 3, 2, 1]), array([2, 3, 3, 3, 2]))
    """
    geometry = _geometry(n, kernel, stride, padding, dilation)
    axes = []
    for out, size, window, step, (before, after), spread in zip(output_sizes(*geometry), *geometry, strict=True):
        count = np.zeros(before + size + after, dtype=np.int64)
        for i in range(out):
            count[i * step : i * step + window_extent(window, spread) : spread] += 1
        axes.append(count[before : before + size])
    return functools.reduce(np.multiply.outer, axes)


@dataclass(frozen=True)
class Links:
    """What the links of a layer cost; biases are left out.

    Attributes:
        inputs: Numbers that go in for one image.
        outputs: Numbers that come out.
        seen: Inputs that one output sees.
        shared: Weights that the layer has.
        local: Weights that it would have if each output had its own.
        dense: Weights that it would have if each output also saw all inputs.
    """

    inputs: int
    outputs: int
    seen: int
    shared: int
    local: int
    dense: int

    def __str__(self) -> str:
        return (
            f"each of {self.outputs:,} outputs sees {self.seen:,} of {self.inputs:,} inputs: {self.shared:,} weights; "
            f"{self.local:,} if each output had its own, {self.dense:,} if it saw all inputs"
        )


def links(layer: Layer, input_shape: Shape) -> Links:
    """Return what sparse links and shared weights of a convolution save; for a dense layer nothing.

    Args:
        layer: A Conv1d, Conv2d, Conv3d or Linear.
        input_shape: Shape of one input, as (C, H, W).

    Raises:
        OptionError: For another layer.
        ShapeError: For an input that does not fit.

    >>> print(links(nn.Conv2d(1, 1, 3), (1, 28, 28)))
    each of 676 outputs sees 9 of 784 inputs: 9 weights; 6,084 if each output had its own, 529,984 if it saw all inputs
    """
    if not isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
        raise OptionError(
            f"layer must be a convolution or Linear, whose outputs are linked by weights, got {layer!r:.80}"
        )
    inputs, outputs = math.prod(input_shape), math.prod(layer.output_shape(tuple(input_shape)))
    seen = math.prod(layer.weight.shape[1:])
    return Links(inputs, outputs, seen, int(layer.weight.size), outputs * seen, outputs * inputs)


def parameters_in_words(layer: Layer) -> str:
    """Return how the number of a layer's parameters comes about; of a network a line for each layer that has any.

    Args:
        layer: A layer, or a network.

    >>> print(parameters_in_words(nn.Conv2d(32, 64, 3)))
    64 filters of 3 x 3 x 32 weights and a bias each: 64 x 288 + 64 = 18,496
    >>> print(parameters_in_words(nn.Linear(576, 64)))
    64 outputs of 576 weights and a bias each: 64 x 576 + 64 = 36,928
    """
    if isinstance(layer, Network):
        lines, seen = [], set()
        for path, leaf in layer.leaves():
            if leaf.named_parameters() and id(leaf) not in seen:
                seen.add(id(leaf))
                lines.append(f"{path} {type(leaf).__name__}: {parameters_in_words(leaf)}")
        return "\n".join([*lines, f"together {sum(a.size for a in layer.named_parameters().values()):,}"])
    arrays = layer.named_parameters()
    total = sum(a.size for a in arrays.values())
    if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
        count, *each = layer.weight.shape
        what = "outputs" if isinstance(layer, nn.Linear) else "filters"
        cells = " x ".join(str(n) for n in (*each[1:], each[0]))
        bias = (" and a bias each", f" + {count}") if layer.has_bias else (" each", "")
        return f"{count} {what} of {cells} weights{bias[0]}: {count} x {math.prod(each)}{bias[1]} = {total:,}"
    parts = [f"{name} {' x '.join(map(str, a.shape))}" for name, a in arrays.items()]
    return f"{', '.join(parts)}: {' + '.join(f'{a.size:,}' for a in arrays.values())} = {total:,}" if parts else "none"
