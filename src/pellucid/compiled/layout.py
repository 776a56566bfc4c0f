"""Where things lie: values in an image's frame, parameters in the engine's own order.

A **frame** is the memory of one image: every value and gradient that its computation needs, channels last, one behind
another. The frames of a batch follow each other. A map that a padded convolution reads has a border of zeros in its
frame, which nobody writes to, so padding costs nothing at run time. Slots without such a border share memory where
their lives do not overlap.

Parameters keep PyTorch's layout in the network. The engine has copies in the order in which kernels read them;
ParameterLayout says for each number of the copy which number of the network's flat array it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from pellucid._types import Array
from pellucid.compiled.tiles import padded

READ_AHEAD = 64
"""Kernels read whole tiles: up to so many numbers behind what they work on, which they then do not use."""

# Kernels write whole vectors of zeros to clear a slot, so up to so many numbers behind its end.
SLACK = 16
_UNIT = 16


Border: TypeAlias = tuple[int, int, int, int]
"""Rows of zeros above, columns left, rows below, columns right of a map."""


@dataclass(eq=False)
class Slot:
    """Memory in each frame for one map (C, H, W), channels last.

    Attributes:
        name: For the debug view.
        maps: (C, H, W).
        border: Of zeros, which must last, or which a kernel writes to before it is read (cleared).
        cleared: Whether a kernel clears the whole slot, border and all, for each image.
        offset: Where it begins in the frame, in floats; known when all are placed.
        birth, death: First and last instruction that uses it.
    """

    name: str
    maps: tuple[int, int, int]
    border: Border = (0, 0, 0, 0)
    cleared: bool = False
    offset: int = -1
    birth: int = -1
    death: int = -1

    def widen(self, border: Border) -> None:
        """Raise the border to at least what is asked for."""
        top, left, bottom, right = (max(a, b) for a, b in zip(self.border, border, strict=True))
        self.border = top, left, bottom, right

    def use(self, instruction: int) -> None:
        """Note that an instruction uses it."""
        self.birth = instruction if self.birth < 0 else min(self.birth, instruction)
        self.death = max(self.death, instruction)

    @property
    def lasts(self) -> bool:
        """Whether its zeros must last, so that it shares memory with no other slot."""
        return any(self.border) and not self.cleared

    @property
    def channels(self) -> int:
        """Numbers of a pixel, and so the step to the next column."""
        return self.maps[0]

    @property
    def down(self) -> int:
        """Step to the next row."""
        return (self.border[1] + self.maps[2] + self.border[3]) * self.maps[0]

    @property
    def rows(self) -> int:
        """H."""
        return self.maps[1]

    @property
    def columns(self) -> int:
        """W."""
        return self.maps[2]

    @property
    def size(self) -> int:
        """Floats with borders and slack."""
        rows = self.border[0] + self.maps[1] + self.border[2]
        return padded(rows * self.down + SLACK, _UNIT)

    def place(self, row: int = 0, column: int = 0) -> Place:
        """Return the place of a pixel; rows and columns may lie in the border."""
        top, left = self.border[:2]
        return Place(self, (top + row) * self.down + (left + column) * self.maps[0])

    @property
    def corner(self) -> Place:
        """The first number, border included."""
        return Place(self, 0)


@dataclass(frozen=True)
class Place:
    """A place in a slot, whose offset in the frame is known only when all slots are placed."""

    slot: Slot
    inside: int

    @property
    def offset(self) -> int:
        """Floats from the frame's start."""
        return self.slot.offset + self.inside

    def __add__(self, floats: int) -> Place:
        return Place(self.slot, self.inside + floats)


def place_slots(slots: list[Slot]) -> int:
    """Give every slot its offset and return the size of a frame.

    Slots whose zeros must last lie alone; others share memory with those that live before or
    after them. The largest are placed first, each as low as it fits.
    """
    placed: list[Slot] = []
    for slot in sorted(slots, key=lambda s: -s.size):
        alone = slot.lasts
        others = [s for s in placed if alone or s.lasts or (slot.birth <= s.death and s.birth <= slot.death)]
        offset = 0
        for other in sorted(others, key=lambda s: s.offset):
            if offset + slot.size <= other.offset:
                break
            offset = max(offset, other.offset + other.size)
        slot.offset = offset
        placed.append(slot)
    end = max((slot.offset + slot.size for slot in slots), default=0)
    lines = -(-end // _UNIT)
    return (lines + 1 - lines % 2) * _UNIT  # an odd number of cache lines, so that frames do not fall on each other


@dataclass
class ParameterLayout:
    """The engine's order of the parameters.

    Attributes:
        size: Floats of the engine's array.
        source: For each of them the place in the network's flat array; -1 where there is a constant.
        constants: What stands where source is -1.
    """

    size: int = 0
    source: Array = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    constants: Array = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    _parts: list[tuple[int, Array, float | Array]] = field(default_factory=list)

    def add(self, source: Array, constant: float | Array = 0.0) -> int:
        """Append an array of places (any shape, -1 for none) and return where it begins.

        Args:
            source: Places in the network's flat array.
            constant: What stands where source is -1: one number, or one for each place.
        """
        start = self.size
        self._parts.append((start, np.ravel(source), constant))
        self.size = padded(start + source.size, _UNIT)
        return start

    def finish(self, slack: int) -> None:
        """Make the arrays; nothing can be added any more.

        Args:
            slack: Floats behind the end that kernels may read.
        """
        self.size += slack
        self.source = np.full(self.size, -1, dtype=np.int64)
        self.constants = np.zeros(self.size, dtype=np.float32)
        for start, source, constant in self._parts:
            self.source[start : start + source.size] = source
            self.constants[start : start + source.size] = constant

    def pack(self, flat: Array) -> Array:
        """Return a flat array of the network's layout in the engine's."""
        packed = np.where(self.source >= 0, flat[self.source], self.constants) if flat.size else self.constants
        return packed.astype(np.float32)

    def unpack(self, packed: Array, flat: Array) -> None:
        """Write an array of the engine's layout into one of the network's."""
        used = self.source >= 0
        flat[self.source[used]] = packed[used]


def columns_padded(matrix: Array, width: int) -> Array:
    """Return an array of places (..., columns) with its last axis filled up with -1.

    Args:
        matrix: Places.
        width: Length of the last axis afterwards.
    """
    out = np.full((*matrix.shape[:-1], width), -1, dtype=np.int64)
    out[..., : matrix.shape[-1]] = matrix
    return out
