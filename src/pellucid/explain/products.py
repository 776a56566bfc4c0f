"""One output of a convolution or dense layer, number by number: patch, kernel, products, sum over channels, bias."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pellucid import functional as F
from pellucid import nn
from pellucid._types import Array, Shape
from pellucid.errors import OptionError, ShapeError, unknown
from pellucid.explain.walk import as_numbers, canonical, check_model, find, index, places, trace
from pellucid.model import Model
from pellucid.nn.conv import PADDING_MODES
from pellucid.shapes import PaddingArgument, SizeArgument, resolve_padding, sizes, window_extent

_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Softplus, nn.Sigmoid, nn.Tanh)


@dataclass(frozen=True, eq=False)
class Pixel:
    """How one output comes about: the sum of patch times kernel, and a bias added once.

    Attributes:
        cell: (row, column) of the output; () of a dense layer.
        channel: Which filter, or which output of a dense layer.
        patch: What the window holds, zeros of the padding included, float64: (C, kh, kw), or (n,) of a dense layer.
        kernel: The filter's weights, of the same shape.
        bias: Of the filter; 0 without one.
        value: What the engine computed.
        padded: The input with its padding, (C, H, W); what a dense layer gets as it is.
        window: Where in it the patch begins and how it goes on: a slice for rows and one for columns; () if dense.
        first_channel: Number of the patch's first channel in the input; not 0 only with groups.
        activated: (name, value) of an activation right behind the layer, or None.
    """

    cell: tuple[int, ...]
    channel: int
    patch: Array
    kernel: Array
    bias: float
    value: float
    padded: Array
    window: tuple[slice, ...] = ()
    first_channel: int = 0
    activated: tuple[str, float] | None = None

    @property
    def products(self) -> Array:
        """Patch times kernel, of their shape."""
        return self.patch * self.kernel

    @property
    def channel_sums(self) -> Array:
        """Sum of the products of each input channel, (C,)."""
        products = self.products
        return np.asarray(products.reshape(len(products), -1).sum(axis=1)) if products.ndim > 1 else products

    @property
    def total(self) -> float:
        """Sum of all products, and the bias."""
        return float(self.products.sum()) + self.bias

    @property
    def decimals(self) -> int:
        """How many decimals of the sum can be shown so that it agrees with the engine's value; at most 4."""
        return next((d for d in range(4, -40, -1) if round(self.total, d) == round(self.value, d)), 4)

    def __str__(self) -> str:
        d = self.decimals
        where = f"filter {self.channel}, cell {self.cell}" if self.cell else f"output {self.channel}"
        lines = [f"{where}: {self.patch.size} products"]
        if self.patch.ndim == 3:
            for c, (patch, kernel, products) in enumerate(zip(self.patch, self.kernel, self.products, strict=True)):
                lines.append(f"channel {self.first_channel + c}: patch, kernel, products")
                lines += [
                    "  |  ".join(_row(row, 4) for row in rows) for rows in zip(patch, kernel, products, strict=True)
                ]
                lines.append(f"  sum of the channel {shown(products.sum(), d + 2)}")
        lines.append(f"sum of all products {shown(self.total - self.bias, d + 2)}, bias {shown(self.bias, d + 2)}")
        lines.append(f"output {shown(self.total, d)}, the engine's value {shown(self.value, d)}")
        if self.activated is not None:
            lines.append(f"after {self.activated[0]}: {shown(self.activated[1], d)}")
        return "\n".join(lines)


def shown(value: float, decimals: int) -> str:
    """Return a number with so many decimals; a negative count rounds to tens, hundreds and so on.

    Args:
        value: Any.
        decimals: How many.

    >>> shown(1.25, 3), shown(1234.5, -2)
    ('1.250', '1200')
    """
    return f"{round(float(value), decimals) + 0.0:.{max(decimals, 0)}f}"  # + 0.0: no -0.00


def _row(numbers: Array, decimals: int) -> str:
    return " ".join(f"{shown(number, decimals):>8}" for number in numbers)


def pixel(model: Model, image: object, layer: int | str, channel: int | None = None, cell: object = None) -> Pixel:
    """Return how one output of a layer comes about, from the values that the engine computes with.

    Args:
        model: A model.
        image: A file, a PIL image, or a raw array (C, H, W).
        layer: Place of a Conv2d or Linear.
        channel: Which filter or output; of the cell, or of all, the one with the largest value if None.
        cell: (row, column) of the output map; the one with the largest value if None. Not for Linear.

    Raises:
        OptionError: For another layer, or a cell that does not exist.

    >>> import pellucid as pl
    >>> net = pl.models.create("lenet5", (1, 28, 28), 10)
    >>> model = Model(net, pl.InputSpec((1, 28, 28), (0.0, 1.0), (0.5,), (0.5,)))
    >>> one = pixel(model, np.eye(28), "0", channel=2, cell=(4, 4))
    >>> one.patch.shape, round(one.total, one.decimals) == round(one.value, one.decimals)
    ((1, 5, 5), True)
    """
    place, found = find(check_model(model).network, layer)
    seen = trace(model.network, canonical(model, image))
    x, y = seen.inputs[place][0], seen.outputs[place][0]
    if isinstance(found, nn.Linear) and y.ndim == 1:
        if cell is not None:
            raise OptionError("a dense layer's outputs have no cell; give channel=, the number of the output")
        at = index(y.shape, int(y.argmax()) if channel is None else channel, "channel")
        patch, kernel = x.astype(np.float64), found.weight[at[0]].astype(np.float64)
        made = Pixel((), at[0], patch, kernel, _number(found.bias, at[0]), float(y[at]), patch)
    elif isinstance(found, nn.Conv2d):
        at = _strongest(y, channel, cell)
        geometry = (found.stride, found.padding, found.dilation, found.groups, found.padding_mode)
        made = _window(x, found.weight, found.bias, at, float(y[at]), *geometry)
    else:
        raise OptionError(f"layer {place} is a {type(found).__name__}; only a Conv2d or Linear is a sum of products")
    for behind, after in places(model.network):
        if isinstance(after, _ACTIVATIONS) and seen.inputs[behind] is seen.outputs[place]:
            return replace(made, activated=(type(after).__name__, float(seen.outputs[behind][0][at])))
    return made


def window(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    channel: int = 0,
    cell: object = (0, 0),
    *,
    stride: SizeArgument = 1,
    padding: PaddingArgument = 0,
    dilation: SizeArgument = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Pixel:
    """Return how one output of F.conv2d comes about, for numbers of one's own.

    Args:
        x: One input, (C, H, W).
        weight: (out, C / groups, kh, kw).
        bias: (out,), or None.
        channel: Which filter.
        cell: (row, column) of the output.
        stride: Of the window.
        padding: Cells on each side, or a name such as "same".
        dilation: Distance of neighboring kernel cells.
        groups: Into how many groups the channels are divided.
        padding_mode: "zeros", "reflect", "replicate" or "circular".

    Raises:
        ShapeError: Where the arrays do not fit.
        OptionError: For a cell, channel or padding mode that does not exist, and for what is no array of numbers.

    >>> x = np.arange(9.0).reshape(1, 3, 3)
    >>> one = window(x, np.ones((1, 1, 2, 2)), np.array([0.5]), cell=(1, 1))
    >>> one.patch.tolist(), one.total
    ([[[4.0, 5.0], [7.0, 8.0]]], 24.5)
    """
    x, weight = as_numbers(x, "x").astype(np.float64), as_numbers(weight, "weight").astype(np.float64)
    if x.ndim != 3 or weight.ndim != 4:
        raise ShapeError(f"x must be (C, H, W) and weight (out, C, kh, kw), got {x.shape} and {weight.shape}")
    if padding_mode not in PADDING_MODES:
        raise unknown("padding_mode", padding_mode, PADDING_MODES)
    padded = _padded(x, weight.shape[2:], stride, padding, dilation, padding_mode)
    y = F.conv2d(padded[None], weight, bias, stride, 0, dilation, groups)[0]
    at = _strongest(y, channel, cell)
    return _window(x, weight, bias, at, float(y[at]), stride, padding, dilation, groups, padding_mode)


def _padded(
    x: Array, kernel: Shape, stride: SizeArgument, padding: PaddingArgument, dilation: SizeArgument, mode: str
) -> Array:
    sides = resolve_padding(padding, x.shape[1:], kernel, sizes(stride, "stride"), sizes(dilation, "dilation"))
    return F.pad(x, [n for side in reversed(sides) for n in side], "constant" if mode == "zeros" else mode)


def _window(
    x: Array,
    weight: Array,
    bias: Array | None,
    at: tuple[int, ...],
    value: float,
    stride: SizeArgument,
    padding: PaddingArgument,
    dilation: SizeArgument,
    groups: int,
    padding_mode: str,
) -> Pixel:
    channel, *cell = at
    padded = _padded(x, weight.shape[2:], stride, padding, dilation, padding_mode).astype(np.float64)
    first = channel // (len(weight) // groups) * weight.shape[1]
    steps = zip(cell, weight.shape[2:], sizes(stride, "stride"), sizes(dilation, "dilation"), strict=True)
    rows, columns = (slice(i * s, i * s + window_extent(k, d), d) for i, k, s, d in steps)
    patch = padded[first : first + weight.shape[1], rows, columns]
    kernel = weight[channel].astype(np.float64)
    return Pixel(tuple(cell), channel, patch, kernel, _number(bias, channel), value, padded, (rows, columns), first)


def _number(bias: Array | None, channel: int) -> float:
    return 0.0 if bias is None else float(np.asarray(bias)[channel])


def _strongest(y: Array, channel: int | None, cell: object) -> tuple[int, ...]:
    """Return (channel, row, column), what was left open chosen so that the value is the largest."""
    if channel is None and cell is None:
        return tuple(int(i) for i in np.unravel_index(int(y.argmax()), y.shape))
    if channel is None:
        at = index(y.shape[1:], cell, "cell")
        return int(np.moveaxis(y, 0, -1)[at].argmax()), *at
    (chosen,) = index(y.shape[:1], channel, "channel")
    if cell is None:
        return chosen, *(int(i) for i in np.unravel_index(int(y[chosen].argmax()), y.shape[1:]))
    return chosen, *index(y.shape[1:], cell, "cell")
