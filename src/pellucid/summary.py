"""A network layer by layer: shapes, parameters, multiply-adds, memory, receptive field, what pooling drops."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from pellucid import nn
from pellucid._types import Shape
from pellucid.errors import EngineError
from pellucid.functional.padding import copied
from pellucid.functional.resample import terms
from pellucid.nn import Layer, Network
from pellucid.nn.layer import join
from pellucid.shapes import Pair, adaptive_regions, resized, resolve_padding, text, window_extent

_BATCH = 64  # what fit takes by default

View: TypeAlias = list[list[Pair]]
"""What each cell sees of the input: for each axis of positions, as rows and columns, a list of (start, stop).

Maps have an entry for each row of cells in the first list, and for each column in the second; vectors, and all else
that has not the input's number of axes, have one in every list for each number.
"""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_ADAPTIVE = (
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_PADS = (nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)


@dataclass(frozen=True)
class LayerSummary:
    """One layer of a network.

    Attributes:
        path: Where it stands.
        kind: Its class.
        output_shape: Of one image.
        parameters: How many; 0 at the second place of a shared layer.
        multiply_adds: Multiplications with a weight, for one image.
        activation_bytes: Memory of its output for one image, float32.
        receptive_field: How many input cells one output cell sees along each axis, of images (height, width) in
            pixels; the most, if cells differ.
        dropped: How many cells at the end of each axis no window covers, of images (rows, columns).
    """

    path: str
    kind: str
    output_shape: Shape
    parameters: int
    multiply_adds: int
    activation_bytes: int
    receptive_field: Shape
    dropped: Shape


@dataclass(frozen=True)
class Summary:
    """All layers of a network and their sums.

    Attributes:
        input_shape: Of one image.
        layers: One entry for each layer, in the order of computation.
        buffers: Numbers that are stored but not trained.
        planned: Bytes that the compiled engine takes for training with batches of 64 and for prediction, everything
            included; None for a network that it cannot run.
    """

    input_shape: Shape
    layers: tuple[LayerSummary, ...]
    buffers: int
    planned: tuple[int, int] | None = None

    @property
    def parameters(self) -> int:
        """How many parameters the network has."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Multiplications with a weight, for one image."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def training_bytes(self) -> int:
        """Memory of all outputs of one image, which training keeps for the way back."""
        return 4 * math.prod(self.input_shape) + sum(layer.activation_bytes for layer in self.layers)

    def __str__(self) -> str:
        rows = [("layer", "kind", "output", "parameters", "mult-adds", "memory", "sees", "drops")]
        pixel = text((1,) * len(self.layers[0].receptive_field))
        rows.append(("", "input", text(self.input_shape), "", "", size(4 * math.prod(self.input_shape)), pixel, ""))
        for layer in self.layers:
            rows.append(
                (
                    layer.path,
                    layer.kind,
                    text(layer.output_shape),
                    f"{layer.parameters:,}" if layer.parameters else "",
                    f"{layer.multiply_adds:,}" if layer.multiply_adds else "",
                    size(layer.activation_bytes),
                    text(layer.receptive_field),
                    text(layer.dropped) if any(layer.dropped) else "",
                )
            )
        total = ("", "total", "", f"{self.parameters:,}", f"{self.multiply_adds:,}", size(self.training_bytes), "", "")
        widths = [max(len(row[i]) for row in [*rows, total]) for i in range(len(total))]
        right = {3, 4, 5, 6}
        gap = "  " if sum(widths) + 2 * len(widths) <= 80 else " "
        lines = [
            gap.join(
                cell.rjust(width) if i in right else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in [*rows, total]
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        lines.insert(-1, lines[1])
        notes = f"{size(4 * (self.parameters + self.buffers))} of weights"
        lines.append(f"for one image: {self.multiply_adds:,} multiply-adds; {notes}; memory is float32 outputs")
        if self.planned is not None:
            training, prediction = map(size, self.planned)
            lines.append(f"compiled engine: {training} to train with batches of {_BATCH}, {prediction} to predict")
        return "\n".join(line.rstrip() for line in lines)


def size(count: int) -> str:
    """Return a number of bytes as people write it.

    >>> size(93322 * 4)
    '365 KB'
    """
    amount = float(count)
    for unit in ("B", "KB", "MB"):
        if amount < 10000:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.0f} GB"


def summarize(network: Network) -> Summary:
    """Return the summary of a built network; str() of it is a table.

    Args:
        network: Built.

    >>> from pellucid import models
    >>> summarize(models.create("lesson2", (1, 28, 28), 10)).parameters
    93322
    """
    steps = network.trace(network.input_shape)
    views = receptive_fields(network)
    seen: set[int] = set()
    layers = []
    for path, layer, before, after in steps:
        sees = tuple(max(max(0, stop - start) for start, stop in spans) for spans in views[path])
        layers.append(
            LayerSummary(
                path,
                type(layer).__name__,
                after,
                0 if id(layer) in seen else sum(a.size for a in layer.named_parameters().values()),
                layer.multiply_adds(before),
                4 * math.prod(after),
                sees,
                _dropped(layer, before, after, len(sees)),
            )
        )
        seen.add(id(layer))
    buffers = sum(b.size for b in network.named_buffers().values())
    return Summary(network.input_shape, tuple(layers), buffers, _planned(network))


def receptive_fields(network: Network) -> dict[str, View]:
    """Return what the cells of each layer and container see of the input, by path; "" is the network's output.

    Args:
        network: Built.

    >>> net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(2), input_shape=(1, 4, 6))
    >>> rows, columns = receptive_fields(net)["1"]
    >>> rows, columns
    ([(0, 3), (1, 4)], [(0, 3), (1, 5), (3, 6)])
    """
    views: dict[str, View] = {}
    shapes = {path: (before, after) for path, _, before, after in network.trace(network.input_shape)}
    _walk(network, "", _pixels(network.input_shape), shapes, views)
    return views


def _planned(network: Network) -> tuple[int, int] | None:
    """Return the memory that the compiled engine plans for training and prediction; None if it cannot run them."""
    from pellucid.compiled.engine import planned_bytes

    try:
        return planned_bytes(network, _BATCH)
    except EngineError:
        return None


def _walk(layer: Layer, path: str, view: View, shapes: dict[str, tuple[Shape, Shape]], views: dict[str, View]) -> View:
    """Return what the outputs of a layer see if its inputs see view; note it for the layer and all below.

    Args:
        layer: A leaf or a container.
        path: Where it stands.
        view: What its inputs see.
        shapes: Shapes before and after each leaf, by path.
        views: Where to note, by path.
    """
    views[path] = _sees(layer, path, view, shapes, views)
    return views[path]


def _sees(layer: Layer, path: str, view: View, shapes: dict[str, tuple[Shape, Shape]], views: dict[str, View]) -> View:
    """Return what the outputs of a layer see if its inputs see view."""
    if isinstance(layer, nn.Residual):
        ways = [_walk(layer.body, join(path, "body"), view, shapes, views), view]
        if layer.shortcut is not None:
            ways[1] = _walk(layer.shortcut, join(path, "shortcut"), view, shapes, views)
        return _merged(ways)
    if isinstance(layer, nn.Concat):
        branches = {name: _walk(child, join(path, name), view, shapes, views) for name, child in layer.children()}
        below = [after for key, (_, after) in shapes.items() if key.startswith(join(path, ""))]
        if below and len(below[-1]) == 1:  # vectors stand one behind the other
            return [[span for spans in axis for span in spans] for axis in zip(*branches.values(), strict=True)]
        return _merged(list(branches.values()))
    if isinstance(layer, nn.MaxUnpool2d):
        pooled = _walk(layer.pool, join(path, "pool"), view, shapes, views)
        inner = _merged([_walk(layer.body, join(path, "body"), pooled, shapes, views), pooled])
        windows = _reads(layer.pool, *shapes[join(path, "pool")]) or []
        return [
            [_hull(spans[i] for i, window in enumerate(axis) if cell in window) for cell in range(len(cells))]
            for cells, spans, axis in zip(view, inner, windows, strict=True)
        ]
    if isinstance(layer, Network):
        for name, child in layer.children():
            view = _walk(child, join(path, name), view, shapes, views)
        return view
    return _look(layer, view, *shapes[path])


def _merged(ways: list[View]) -> View:
    """Return what is seen by one way or another."""
    return [[_hull(spans) for spans in zip(*axis, strict=True)] for axis in zip(*ways, strict=True)]


def _look(layer: Layer, view: View, before: Shape, after: Shape) -> View:
    """Return what the outputs of a leaf see if its inputs see view."""
    dims = len(view)
    reads = _reads(layer, before, after) if len(before) == dims + 1 else None
    if reads is not None:
        return [
            [_hull(spans[i] for i in cells if 0 <= i < len(spans)) for cells in axis]
            for spans, axis in zip(view, reads, strict=True)
        ]
    if isinstance(layer, nn.Flatten) and len(before) == dims + 1:
        # Features stand in row-major order: a cell of axis k returns every so many features.
        size = before[1:]
        return [
            [span for span in spans for _ in range(math.prod(size[k + 1 :]))] * (before[0] * math.prod(size[:k]))
            for k, spans in enumerate(view)
        ]
    mixed = _mixed(layer, before, dims)
    if len(before) == len(after) and _cells(before, dims) == _cells(after, dims):
        return [[_hull(spans)] * len(spans) if k in mixed else spans for k, spans in enumerate(view)]
    # Each output depends on all inputs; of an unknown layer that changes the size nobody can say less.
    return [[_hull(spans)] * count for spans, count in zip(view, _cells(after, dims), strict=True)]


def _mixed(layer: Layer, before: Shape, dims: int) -> range:
    """Return the axes of positions along which a layer that keeps the shape mixes all cells."""
    if isinstance(layer, nn.GroupNorm) or (
        len(before) == 1 and isinstance(layer, (nn.Linear, nn.Softmax, nn.LogSoftmax))
    ):
        return range(dims)
    if isinstance(layer, nn.LayerNorm):
        return range(max(0, dims - len(layer.normalized_shape)) if len(before) == dims + 1 else 0, dims)
    return range(0)


def _reads(layer: Any, before: Shape, after: Shape) -> list[list[Iterable[int]]] | None:
    """Return for each axis which cells each output cell reads (some may lie outside); None where that is not local."""
    sizes = list(zip(before[1:], after[1:], strict=False))
    if isinstance(layer, _ADAPTIVE):
        return [[range(n)[region] for region in adaptive_regions(n, o)] for n, o in sizes]
    if isinstance(layer, nn.Upsample):
        _, scales = resized(before[1:], layer.size, layer.scale_factor)
        sums = [terms(n, o, s, layer.mode, bool(layer.align_corners)) for (n, o), s in zip(sizes, scales, strict=True)]
        return [
            [[int(c[i]) for c, w in axis if w[i]] for i in range(o)] for axis, (_, o) in zip(sums, sizes, strict=True)
        ]
    if isinstance(layer, _PADS):
        left, right, top, bottom = layer.padding
        pads = zip(before[1:], ((top, bottom), (left, right)), strict=True)
        return [[[int(cell)] for cell in copied(n, sides, layer.mode)] for n, sides in pads]
    if isinstance(layer, _TRANSPOSED):
        window = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        return [
            [[(i + p - a * d) // s for a in range(k) if (i + p - a * d) % s == 0] for i in range(o)]
            for (_, o), k, s, p, d in zip(sizes, *window, strict=True)
        ]
    if not isinstance(layer, (*_CONVOLUTIONS, *_POOLS)):
        return None
    sides = resolve_padding(layer.padding, before[1:], layer.kernel_size, layer.stride, layer.dilation)
    axes: list[list[Iterable[int]]] = []
    for (_, o), k, s, d, (front, _) in zip(sizes, layer.kernel_size, layer.stride, layer.dilation, sides, strict=True):
        axes.append([range(i * s - front, i * s - front + window_extent(k, d), d) for i in range(o)])
    if not isinstance(layer, _CONVOLUTIONS) or layer.padding_mode == "zeros":
        return axes
    copies = [copied(n, both, layer.padding_mode).tolist() for n, both in zip(before[1:], sides, strict=True)]
    return [
        [[cells[i + front] for i in window] for window in axis]
        for axis, cells, (front, _) in zip(axes, copies, sides, strict=True)
    ]


def _dropped(layer: Layer, before: Shape, after: Shape, dims: int) -> Shape:
    """Return how many cells behind the last window each axis has."""
    reads = (
        _reads(layer, before, after)
        if isinstance(layer, (*_CONVOLUTIONS, *_POOLS)) and len(before) == dims + 1
        else None
    )
    if reads is None:
        return (0,) * dims
    return tuple(
        max(0, n - 1 - max(cell for cells in axis for cell in cells)) for n, axis in zip(before[1:], reads, strict=True)
    )


def _pixels(shape: Shape) -> View:
    """Return the view of the input itself: each cell sees itself; a vector counts as one pixel."""
    if len(shape) == 1:
        return [[(0, 1)] * shape[0]] * 2
    return [[(i, i + 1) for i in range(n)] for n in shape[1:]]


def _cells(shape: Shape, dims: int) -> Shape:
    """Return how many entries the lists of a view have."""
    return shape[1:] if len(shape) == dims + 1 else (math.prod(shape),) * dims


def _hull(spans: Iterable[Pair]) -> Pair:
    """Return the smallest span that holds all spans; for none one that is empty and adds nothing to another hull."""
    start, stop = sys.maxsize, 0
    for first, last in spans:
        start, stop = min(start, first), max(stop, last)
    return start, stop
