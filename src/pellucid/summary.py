"""A network layer by layer: shapes, parameters, multiply-adds, memory, receptive field, what pooling drops."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pellucid._types import Shape
from pellucid.nn import Network
from pellucid.shapes import resolve_padding, text, window_extent


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
        receptive_field: (height, width) of the input pixels that one output cell sees.
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
    """

    input_shape: Shape
    layers: tuple[LayerSummary, ...]
    buffers: int

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
    seen: set[int] = set()
    layers = []
    fields: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}
    for path, layer, before, after in network.trace(network.input_shape):
        field, step = _start(path, fields)
        drops = (0, 0)
        kernel = getattr(layer, "kernel_size", None)
        if kernel is not None and len(before) == 3:
            dilation = getattr(layer, "dilation", (1, 1))
            extent = [window_extent(k, d) for k, d in zip(kernel, dilation, strict=True)]
            stride = layer.stride  # type: ignore[attr-defined]
            padding = layer.padding  # type: ignore[attr-defined]
            sides = resolve_padding(padding, (before[1], before[2]), kernel, stride, dilation)
            field = (field[0] + (extent[0] - 1) * step[0], field[1] + (extent[1] - 1) * step[1])
            step = (step[0] * stride[0], step[1] * stride[1])
            ends = [(after[i + 1] - 1) * stride[i] + extent[i] - sides[i][0] for i in (0, 1)]
            drops = (max(0, before[1] - ends[0]), max(0, before[2] - ends[1]))
        elif len(before) == 3 and (len(after) == 1 or after[1:] != before[1:]):
            # One number made of whole maps sees whatever any of their cells sees.
            field = (field[0] + (before[1] - 1) * step[0], field[1] + (before[2] - 1) * step[1])
        whole = network.input_shape[1:] if len(network.input_shape) == 3 else (1, 1)
        field = (min(field[0], whole[0]), min(field[1], whole[1]))
        fields[path] = (field, step)
        layers.append(
            LayerSummary(
                path,
                type(layer).__name__,
                after,
                0 if id(layer) in seen else sum(a.size for a in layer.named_parameters().values()),
                layer.multiply_adds(before),
                4 * math.prod(after),
                field,
                drops,
            )
        )
        seen.add(id(layer))
    return Summary(network.input_shape, tuple(layers), sum(b.size for b in network.named_buffers().values()))


def _start(
    path: str, fields: dict[str, tuple[tuple[int, int], tuple[int, int]]]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return receptive field and step of what a layer gets.

    That is what the layer before it gives; a shortcut starts where its block does, and behind a block the body, which
    sees more than the shortcut, counts.
    """
    names = list(fields)
    parts = path.split(".")
    if "shortcut" in parts and not any(name.startswith(_block(path, "shortcut")) for name in names):
        stem = _block(path, "shortcut").removesuffix("shortcut") + "body"
        names = names[: next(i for i, name in enumerate(names) if name.startswith(stem))]
    elif names and "shortcut" in names[-1].split(".") and not path.startswith(_block(names[-1], "shortcut")):
        stem = _block(names[-1], "shortcut").removesuffix("shortcut") + "body"
        names = [name for name in names if name.startswith(stem)]
    return fields[names[-1]] if names else ((1, 1), (1, 1))


def _block(path: str, part: str) -> str:
    parts = path.split(".")
    return ".".join(parts[: parts.index(part) + 1])
