"""Depthwise convolution: each channel has a filter of its own, so lanes are channels on both sides.

    y[r, c, n] = b[n] + sum over taps t: x[r, c; t, n] w[row[t], n]

A tap is a kernel cell. The data gradient is the same sum with the flipped kernel, once for each residue of a stride,
as in correlate.py; w is not transposed, the table row says which of its rows belongs to a tap.

The slow equivalent, for one image:

    for r, c, n:
        y[r, c, n] = b[n] + sum(x[r x_down + c x_right + tap[t] + n] w[row[t], n] for t in range(tap_count))
    for t, n:
        dw[t, n] += sum(x[r x_down + c x_right + tap[t] + n] dy[r, c, n] for r, c in windows)
"""

from __future__ import annotations

from functools import cache

from numba import carray

from pellucid.compiled.kernel import Kernel
from pellucid.compiled.records import Record
from pellucid.compiled.simd import (
    add,
    at,
    floats,
    ints,
    load_part,
    multiply_add,
    relu,
    store_part,
    zeros,
)

DEPTHWISE = Record(
    "Depthwise",
    """Operands of a depthwise convolution and its gradients.

    x, y: Where the first window begins (before the taps), and its output; of the weight's gradient, y stands for dy.
    x_down, x_right, y_down, y_right: Steps from one row of windows to the next, and from one column to the next.
    rows, columns, channels: Of the output.
    taps, weight_rows, tap_count: Tables of the taps and of the rows of w that belong to them, and their length.
    weights, width: Where w begins, and the distance of its rows.
    bias: Where b lies among the parameters.
    relu: Whether negative outputs become 0.
    adds: Of the weight's gradient: 1 to add to what is there.
    """,
    "x y x_down x_right y_down y_right rows columns channels taps weight_rows tap_count weights width bias relu adds",
)


@cache
def depthwise(lanes: int) -> Kernel:
    """Return the kernel of the convolution and its data gradient.

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        taps, weight_rows = at(ints(work.tables), op.taps), at(ints(work.tables), op.weight_rows)
        tap_count, width, channels, as_relu = op.tap_count, op.width, op.channels, op.relu
        x_right, y_right = op.x_right, op.y_right
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            for row in range(op.rows):
                from_row, to_row = at(frame, op.x + row * op.x_down), at(frame, op.y + row * op.y_down)
                for n in range(0, channels, L):
                    w, left = at(floats(work.weights), op.weights + n), channels - n
                    b = load_part(1, 1, L, at(floats(work.weights), op.bias + n), 0, left)
                    for column in range(op.columns):
                        t = b
                        for tap in range(tap_count):
                            x = load_part(1, 1, L, at(from_row, column * x_right + taps[tap] + n), 0, left)
                            t = multiply_add(x, load_part(1, 1, L, at(w, weight_rows[tap] * width), 0, left), t)
                        if as_relu:
                            t = relu(t)
                        store_part(t, 1, at(to_row, column * y_right + n), 0, left)

    return Kernel(f"depthwise[{lanes}]", DEPTHWISE, body)


@cache
def depthwise_weight_gradient(lanes: int) -> Kernel:
    """Return the kernel of the weight's gradient; it computes all of it.

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        taps, channels, width = at(ints(work.tables), op.taps), op.channels, op.width
        for tap in range(op.tap_count):
            for n in range(0, channels, L):
                left = channels - n
                target = at(floats(work.gradients), op.weights + tap * width + n)
                total = load_part(1, 1, L, target, 0, left) if op.adds else zeros(1, L)
                for image in range(work.batch):
                    frame = at(floats(work.frames), image * work.frame)
                    t = zeros(1, L)
                    for row in range(op.rows):
                        x, dy = at(frame, op.x + row * op.x_down + taps[tap] + n), at(frame, op.y + row * op.y_down + n)
                        for column in range(op.columns):
                            of_x = load_part(1, 1, L, at(x, column * op.x_right), 0, left)
                            t = multiply_add(of_x, load_part(1, 1, L, at(dy, column * op.y_right), 0, left), t)
                    total = add(total, t)
                store_part(total, 1, target, 0, left)

    return Kernel(f"depthwise_weight_gradient[{lanes}]", DEPTHWISE, body)
