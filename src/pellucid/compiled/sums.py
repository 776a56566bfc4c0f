"""Fixed sums along an axis: padding, resampling, copies of stretches of channels; the cells that windows see.

Each output cell is a sum of input cells with weights that are known before; a map goes through one such sum along its
rows and one along its columns. The gradient goes through the transposed sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pellucid import nn
from pellucid._types import Array
from pellucid.errors import EngineError
from pellucid.functional.padding import copied
from pellucid.functional.resample import terms
from pellucid.shapes import Pair, adaptive_regions, pool_padding, resized


@dataclass(frozen=True)
class Sums:
    """What the cells of an axis take, one cell behind the other.

    Attributes:
        starts: Where each output cell's terms begin among all, one more at the end.
        cells: Which input cell each term reads.
        weights: What it is multiplied with.
        size: Cells of the input.
    """

    starts: Array
    cells: Array
    weights: Array
    size: int

    def transposed(self) -> Sums:
        """Return the sums that the gradient goes through; terms in the order of the output cells."""
        outputs = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        order = np.argsort(self.cells, kind="stable")
        starts = np.searchsorted(self.cells[order], np.arange(self.size + 1))
        return Sums(starts, outputs[order], self.weights[order], len(self.starts) - 1)


SumsOfMap: TypeAlias = tuple[Sums, Sums]
"""Of rows and of columns."""


def copies(cells: Array, size: int) -> Sums:
    """Return the sums of cells that are copies, or 0 where the number is -1.

    Args:
        cells: Which of the input each is a copy of.
        size: Cells of the input.
    """
    starts = np.concatenate([[0], np.cumsum(cells >= 0)])
    cells = cells[cells >= 0]
    return Sums(starts, cells, np.ones(len(cells)), size)


def of_padding(size: tuple[int, ...], sides: tuple[Pair, ...], mode: str) -> SumsOfMap:
    """Return the sums of padding.

    Args:
        size: (H, W).
        sides: ((top, bottom), (left, right)).
        mode: As in functional.pad.
    """
    rows, columns = (copies(copied(n, both, mode), n) for n, both in zip(size, sides, strict=True))
    return rows, columns


def of_upsampling(layer: nn.Upsample, size: tuple[int, ...]) -> SumsOfMap:
    """Return the sums of resampling.

    Args:
        layer: Which.
        size: (H, W) of its input.
    """
    out, scales = resized(size, layer.size, layer.scale_factor)
    axes = []
    for n, o, scale in zip(size, out, scales, strict=True):
        found = terms(n, o, scale, layer.mode, bool(layer.align_corners))
        cells, weights = (np.stack([term[k] for term in found], axis=1) for k in (0, 1))
        axes.append(Sums(np.arange(o + 1) * len(found), cells.ravel(), weights.ravel(), n))
    return axes[0], axes[1]


def of_nothing(size: tuple[int, ...]) -> SumsOfMap:
    """Return the sums that change nothing, which copy.

    Args:
        size: (H, W).
    """
    rows, columns = (copies(np.arange(n), n) for n in size)
    return rows, columns


def of_windows(layer: nn.Layer | None, size: tuple[int, int], out: tuple[int, int]) -> SumsOfMap:
    """Return which cells the windows of a max-pooling see, dilated or adaptive; the weights mean nothing.

    Args:
        layer: A pooling layer.
        size: (H, W) of its input.
        out: (H, W) of its output.
    """
    axes = []
    if isinstance(layer, nn.AdaptiveMaxPool2d):
        for n, o in zip(size, out, strict=True):
            axes.append(_listed([list(range(n))[region] for region in adaptive_regions(n, o)], n))
    elif isinstance(layer, nn.MaxPool2d):
        sides = pool_padding(layer.padding, layer.kernel_size, layer.dilation)
        numbers = (size, out, layer.kernel_size, layer.stride, layer.dilation, sides)
        for n, o, k, s, d, (front, _) in zip(*numbers, strict=True):
            windows = [range(i * s - front, i * s - front + k * d, d) for i in range(o)]
            axes.append(_listed([[cell for cell in window if 0 <= cell < n] for window in windows], n))
    else:
        raise EngineError(f"{layer!r} is no max-pooling")
    return axes[0], axes[1]


def _listed(cells: list[list[int]], size: int) -> Sums:
    """Return the sums of some cells each."""
    flat = np.array([cell for some in cells for cell in some], dtype=np.int64)
    return Sums(np.cumsum([0, *map(len, cells)]), flat, np.ones(len(flat)), size)
