"""A network layer by layer: shapes, parameters, multiply-adds, memory, receptive field, what pooling drops."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from pellucid._types import Shape
from pellucid.errors import EngineError
from pellucid.nn import AdaptiveAvgPool2d, Flatten, Layer, Linear, Network, Residual, Softmax
from pellucid.nn.layer import join
from pellucid.shapes import adaptive_regions, resolve_padding, text, window_extent

_BATCH = 64  # what fit takes by default

_Spans: TypeAlias = list[tuple[int, int]]
_View: TypeAlias = tuple[_Spans, _Spans]
"""What each cell sees of the input: (start, stop) rows and (start, stop) columns.

Maps have one entry for each row of cells and one for each column; vectors have one in both lists for each feature.
"""


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
        receptive_field: (height, width) of the input pixels that one output cell sees; the largest, if cells differ.
        dropped: (rows, columns) at the bottom and right that no window covers.
    """

    path: str
    kind: str
    output_shape: Shape
    parameters: int
    multiply_adds: int
    activation_bytes: int
    receptive_field: tuple[int, int]
    dropped: tuple[int, int]


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
        rows.append(("", "input", text(self.input_shape), "", "", size(4 * math.prod(self.input_shape)), "1x1", ""))
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
    views: dict[str, _View] = {}
    shapes = {path: (before, after) for path, _, before, after in steps}
    _walk(network, "", _pixels(network.input_shape), shapes, views)
    seen: set[int] = set()
    layers = []
    for path, layer, before, after in steps:
        rows, columns = (max(max(0, stop - start) for start, stop in spans) for spans in views[path])
        layers.append(
            LayerSummary(
                path,
                type(layer).__name__,
                after,
                0 if id(layer) in seen else sum(a.size for a in layer.named_parameters().values()),
                layer.multiply_adds(before),
                4 * math.prod(after),
                (rows, columns),
                _dropped(layer, before, after),
            )
        )
        seen.add(id(layer))
    buffers = sum(b.size for b in network.named_buffers().values())
    return Summary(network.input_shape, tuple(layers), buffers, _planned(network))


def _planned(network: Network) -> tuple[int, int] | None:
    """Return the memory that the compiled engine plans for training and prediction; None if it cannot run them."""
    from pellucid.compiled.engine import planned_bytes

    try:
        return planned_bytes(network, _BATCH)
    except EngineError:
        return None


def _walk(
    layer: Layer, path: str, view: _View, shapes: dict[str, tuple[Shape, Shape]], views: dict[str, _View]
) -> _View:
    """Return what the outputs of a layer see if its inputs see view; note it in views for every leaf below.

    Args:
        layer: A leaf or a container.
        path: Where it stands.
        view: What its inputs see.
        shapes: Shapes before and after each leaf, by path.
        views: Where to note, by path.
    """
    if isinstance(layer, Residual):
        body = _walk(layer.body, join(path, "body"), view, shapes, views)
        if layer.shortcut is not None:
            view = _walk(layer.shortcut, join(path, "shortcut"), view, shapes, views)
        rows, columns = ([_hull(both) for both in zip(*ways, strict=True)] for ways in zip(body, view, strict=True))
        return rows, columns
    if isinstance(layer, Network):
        for name, child in layer.children():
            view = _walk(child, join(path, name), view, shapes, views)
        return view
    views[path] = _look(layer, view, *shapes[path])
    return views[path]


def _look(layer: Layer, view: _View, before: Shape, after: Shape) -> _View:
    """Return what the outputs of a leaf see if its inputs see view."""
    rows, columns = view
    windows = _windows(layer, before, after)
    if windows is not None:
        rows, columns = (
            [_hull(spans[i] for i in window if 0 <= i < len(spans)) for window in axis]
            for spans, axis in zip(view, windows, strict=True)
        )
        return rows, columns
    if isinstance(layer, Flatten) and len(before) == 3:
        channels, height, width = before
        return [span for span in rows for _ in range(width)] * channels, columns * (channels * height)
    mixes = isinstance(layer, (Linear, Softmax)) and len(before) == 1
    if not mixes and len(before) == len(after) and _cells(before) == _cells(after):
        return view
    # Each output depends on all inputs; of an unknown layer that changes the size nobody can say less.
    height, width = _cells(after)
    return [_hull(rows)] * height, [_hull(columns)] * width


def _windows(layer: Layer, before: Shape, after: Shape) -> list[list[range]] | None:
    """Return for both axes which cells each output cell reads (some may lie in the padding); None without windows."""
    if isinstance(layer, AdaptiveAvgPool2d):
        return [
            [range(n)[region] for region in adaptive_regions(n, o)] for n, o in zip(before[1:], after[1:], strict=True)
        ]
    kernel = getattr(layer, "kernel_size", None)
    if kernel is None or len(before) != 3:
        return None
    stride = layer.stride  # type: ignore[attr-defined]
    padding = layer.padding  # type: ignore[attr-defined]
    dilation = getattr(layer, "dilation", (1, 1))
    sides = resolve_padding(padding, (before[1], before[2]), kernel, stride, dilation)
    axes = []
    for o, k, s, d, (front, _) in zip(after[1:], kernel, stride, dilation, sides, strict=True):
        axes.append([range(i * s - front, i * s - front + window_extent(k, d), d) for i in range(o)])
    return axes


def _dropped(layer: Layer, before: Shape, after: Shape) -> tuple[int, int]:
    """Return the rows and columns behind the last window."""
    windows = _windows(layer, before, after)
    if windows is None:
        return 0, 0
    return max(0, before[1] - windows[0][-1].stop), max(0, before[2] - windows[1][-1].stop)


def _pixels(shape: Shape) -> _View:
    """Return the view of the input itself: each pixel sees itself; what has no rows and columns counts as one pixel."""
    height, width = _cells(shape)
    if len(shape) != 3:
        return [(0, 1)] * height, [(0, 1)] * width
    return [(i, i + 1) for i in range(height)], [(i, i + 1) for i in range(width)]


def _cells(shape: Shape) -> tuple[int, int]:
    """Return how many entries the two lists of a view have."""
    return (shape[1], shape[2]) if len(shape) == 3 else (math.prod(shape), math.prod(shape))


def _hull(spans: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Return the smallest span that holds all spans; for none one that is empty and adds nothing to another hull."""
    start, stop = sys.maxsize, 0
    for first, last in spans:
        start, stop = min(start, first), max(stop, last)
    return start, stop
