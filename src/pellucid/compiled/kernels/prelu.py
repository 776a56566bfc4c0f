"""PReLU: y = x where x > 0, else w x, with a learned slope w for each channel, or one for all.

On the way back each image leaves a sum for each channel in its frame; those are added over the images like the
gradient of a bias (gradients.bias_gradient). Lanes are channels. The slow equivalents are functional.prelu and its
backward.
"""

from __future__ import annotations

from functools import cache

from numba import carray

from pellucid.compiled.kernel import Kernel
from pellucid.compiled.records import Record
from pellucid.compiled.simd import (
    add,
    at,
    fill,
    floats,
    load_part,
    multiply,
    multiply_add,
    store_part,
    where_positive,
    zeros,
)

PRELU = Record(
    "PReLU",
    """Operands: y = f(a), and gradients: y = b f'(a).

    a, a_down, b, b_down, y, y_down: Where each begins, and the step to its next row; columns lie channels apart.
    rows, columns, channels: Of the map.
    weight: Where the slopes lie among the parameters.
    several: 1 where each channel has a slope of its own.
    sums: Where an image keeps the slopes' gradients, one number for each channel, in its frame.
    """,
    "a a_down b b_down y y_down rows columns channels weight several sums",
)


@cache
def prelu(lanes: int) -> Kernel:
    """Return the kernel y = f(a).

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        weights, channels = at(floats(work.weights), op.weight), op.channels
        for n in range(0, channels, L):
            left, slope = channels - n, fill(1, L, weights[0])
            if op.several:
                slope = load_part(1, 1, L, at(weights, n), 0, left)
            for image in range(work.first, work.last):
                frame = at(floats(work.frames), image * work.frame)
                for row in range(op.rows):
                    a, y = at(frame, op.a + row * op.a_down + n), at(frame, op.y + row * op.y_down + n)
                    for column in range(op.columns):
                        x = load_part(1, 1, L, at(a, column * channels), 0, left)
                        store_part(where_positive(x, x, multiply(slope, x)), 1, at(y, column * channels), 0, left)

    return Kernel(f"prelu[{lanes}]", PRELU, body)


@cache
def prelu_gradient(lanes: int) -> Kernel:
    """Return the kernel of dx (y, which may be the memory of b) and of each image's sums.

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        weights, channels = at(floats(work.weights), op.weight), op.channels
        for n in range(0, channels, L):
            left, slope = channels - n, fill(1, L, weights[0])
            if op.several:
                slope = load_part(1, 1, L, at(weights, n), 0, left)
            for image in range(work.first, work.last):
                frame = at(floats(work.frames), image * work.frame)
                total = zeros(1, L)
                for row in range(op.rows):
                    a, b = at(frame, op.a + row * op.a_down + n), at(frame, op.b + row * op.b_down + n)
                    y, of_row = at(frame, op.y + row * op.y_down + n), zeros(1, L)
                    for column in range(op.columns):
                        x = load_part(1, 1, L, at(a, column * channels), 0, left)
                        dy = load_part(1, 1, L, at(b, column * channels), 0, left)
                        of_row = where_positive(x, of_row, multiply_add(dy, x, of_row))
                        dx = where_positive(x, dy, multiply(slope, dy))
                        store_part(dx, 1, at(y, column * channels), 0, left)
                    total = add(total, of_row)
                store_part(total, 1, at(frame, op.sums + n), 0, left)

    return Kernel(f"prelu_gradient[{lanes}]", PRELU, body)
