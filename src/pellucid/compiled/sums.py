"""Fixed sums along an axis: padding, resampling, and copies of stretches of channels.

Each output cell is a sum of input cells with weights that are known before; a map goes through one such sum along its
rows and one along its columns. The gradient goes through the transposed sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pellucid import nn
from pellucid._types import Array
from pellucid.functional.padding import copied
from pellucid.functional.resample import terms
from pellucid.shapes import Pair, resized


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
