"""Where images come in and outputs go out: from channels first to channels last, and back.

    frame[r, c, n] = image[n, r, c]
    output[n, r, c] = frame[r, c, n]
    vector[(n H + r) W + c] = frame[r, c, n]

The loops are the formulas; they touch each number once.
"""

from __future__ import annotations

from functools import cache

from numba import carray

from pellucid.compiled.kernel import Kernel
from pellucid.compiled.records import Record
from pellucid.compiled.simd import at, floats, longs

EDGE = Record(
    "Edge",
    """Operands of reading and writing.

    map, down: Where the map begins in the frame, and the step to its next row.
    rows, columns, channels: Of the map.
    """,
    "map down rows columns channels",
)


REORDER = Record(
    "Reorder",
    """Operands of flattening.

    map, down, rows, columns, channels: As in Edge.
    vector: Where the vector begins in the frame.
    """,
    "map down rows columns channels vector",
)


@cache
def read_images() -> Kernel:
    """Return the kernel that brings the batch's images (C, H, W) into their frames (H, W, C)."""

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        rows, columns, channels, order = op.rows, op.columns, op.channels, longs(work.order)
        for image in range(work.first, work.last):
            sample = work.sample + image
            if work.order:
                sample = order[sample]
            source = at(floats(work.images), sample * rows * columns * channels)
            target = at(floats(work.frames), image * work.frame + op.map)
            for n in range(channels):
                for row in range(rows):
                    x, y = at(source, (n * rows + row) * columns), at(target, row * op.down + n)
                    if channels == 1:  # a loop that LLVM makes vectors of
                        for column in range(columns):
                            y[column] = x[column]
                    else:
                        for column in range(columns):
                            y[column * channels] = x[column]

    return Kernel("read_images", EDGE, body)


@cache
def write_outputs() -> Kernel:
    """Return the kernel that brings outputs from the frames (H, W, C) to the caller's array (C, H, W)."""

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        rows, columns, channels = op.rows, op.columns, op.channels
        for image in range(work.first, work.last):
            source = at(floats(work.frames), image * work.frame + op.map)
            target = at(floats(work.outputs), (work.sample + image) * rows * columns * channels)
            for n in range(channels):
                for row in range(rows):
                    x, y = at(source, row * op.down + n), at(target, (n * rows + row) * columns)
                    for column in range(columns):
                        y[column] = x[column * channels]

    return Kernel("write_outputs", EDGE, body)


@cache
def reorder(back: bool) -> Kernel:
    """Return the kernel that flattens a map channels first: from (H, W, C) to a vector (C, H, W), or back.

    Args:
        back: For the gradient: from the vector to the map.
    """

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        rows, columns, channels = op.rows, op.columns, op.channels
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            for row in range(rows):
                for column in range(columns):
                    place = at(frame, op.map + row * op.down + column * channels)
                    for n in range(channels):
                        vector = at(frame, op.vector + (n * rows + row) * columns + column)
                        if back:
                            place[n] = vector[0]
                        else:
                            vector[0] = place[n]

    return Kernel(f"reorder[{'back' if back else ''}]", REORDER, body)
