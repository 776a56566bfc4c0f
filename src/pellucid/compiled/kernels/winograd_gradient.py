"""Gradients of filters 3x3 with 16 multiplications where 36 are usual: Winograd's F(3x3, 2x2).

For 2x2 neighboring gradients e of one output channel and the 4x4 numbers d of an input channel that they saw:

    dw = G' [sum over places and images of (A e A') * (B' d B)] G        (* number by number; ' is the transpose)

with the matrices of winograd.py: what is a sum over channels there is a sum over places here. The last row of A has the
other sign, which saves work and is given back by the last row of G'. Where rows or columns are odd, the last 2x2 goes
back by one, and what was counted before is zero.

    B' d:  d0 - d2,  d1 + d2,  d2 - d1,  d1 - d3          (of rows; then the same of columns)
    A e:   e0,  e0 + e1,  e0 - e1,  e1
    G' m:  m0 + (m1 + m2) / 2,  (m1 - m2) / 2,  (m1 + m2) / 2 - m3

The work names rows of w, as in gradients.py, whose slow equivalent holds here too; results differ by rounding. Every
number is summed by one thread alone: over the places of a block, then over blocks and images in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numba import carray

from pellucid.compiled.kernel import Kernel, inline
from pellucid.compiled.kernels.gradients import WEIGHT_GRADIENT
from pellucid.compiled.kernels.winograd import inputs
from pellucid.compiled.records import Record
from pellucid.compiled.simd import (
    add,
    at,
    fill,
    floats,
    ints,
    load,
    load_part,
    multiply,
    outer,
    store,
    store_part,
    subtract,
    vector,
    zeros,
)

WINOGRAD_GRADIENT = Record(
    "WinogradGradient",
    """Operands of such a gradient: those of WeightGradient, of a kernel 3x3, and

    block: How many places (of 2x2 outputs) of an image go through together.
    """,
    " ".join(WEIGHT_GRADIENT.dtype.names or ()) + " block",
)


@inline
def _step(numbers, lanes, cells):
    """Return the distance of places: numbers in whole vectors, of so many cells; no power of two where cells are 16."""
    return (numbers + lanes - 1) // lanes * lanes * cells + cells // 16 * 16


def scratch_size(places: int, rows: int, tile: Sequence[int], channels: int) -> int:
    """Return how many floats of scratch memory a task needs.

    Args:
        places: That go through together, of all images.
        rows: Rows of w.
        tile: R, V, L, K.
        channels: Columns of w.
    """
    (_, vectors, lanes, inner_lanes), step = tile, _step.py_func
    read = step(rows, inner_lanes, 16) + step(vectors * lanes, 1, 16)
    return int(places * read + 16 * rows * step(channels, vectors * lanes, 1))


@inline
def _gradients(a, b):
    """Return A (a, b), the last with the other sign."""
    return a, add(a, b), subtract(a, b), b


@inline
def _filters(a, b, c, d, half):
    """Return G' (a, b, c, d), the last with the other sign."""
    mean = multiply(half, add(b, c))
    return add(a, mean), multiply(half, subtract(b, c)), subtract(mean, d)


@cache
def winograd_gradient(rows: int, vectors: int, lanes: int, inner_lanes: int) -> Kernel:
    """Return the kernel for tiles of so many rows and vectors of channels; blocks must be multiples of the rows.

    Args:
        rows: R, neighboring rows of w.
        vectors: V, vectors of channels.
        lanes: L, of a vector.
        inner_lanes: K, lanes of the input's channels.
    """
    R, V, L, K = rows, vectors, lanes, inner_lanes
    RV, VL = R * V, V * L

    @inline
    def write_inputs(line, target):
        a, b, c, d = inputs(vector(line, 0), vector(line, 1), vector(line, 2), vector(line, 3))
        store(a, 1, target, 0)
        store(b, 1, at(target, K), 0)
        store(c, 1, at(target, 2 * K), 0)
        store(d, 1, at(target, 3 * K), 0)

    @inline
    def write_gradients(line, again, target):
        a, b = vector(line, 0), vector(line, 1)
        if again:
            a = zeros(1, L)
        a, b, c, d = _gradients(a, b)
        store(a, 1, target, 0)
        store(b, 1, at(target, VL), 0)
        store(c, 1, at(target, 2 * VL), 0)
        store(d, 1, at(target, 3 * VL), 0)

    @inline
    def write_filters(line, target, tap, left, adds):
        half = fill(1, L, np.float32(0.5))
        for g in _filters(vector(line, 0), vector(line, 1), vector(line, 2), vector(line, 3), half):
            if adds:
                g = add(g, load_part(1, 1, L, target, 0, left))
            store_part(g, 1, target, 0, left)
            target = at(target, tap)

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        rows, columns, channels, batch = op.rows, op.columns, op.channels, work.batch
        x_down, x_right, dy_down, dy_right = op.x_down, op.x_right, op.dy_down, op.dy_right
        first, count = work.first, work.last - work.first
        across = (columns + 1) // 2
        total = across * ((rows + 1) // 2)
        # Of a block: (places, vectors of rows, 16, K), (places, 16, V L). Of all: the sums (16, rows of w, channels).
        read, dy_read, width = _step(count, K, 16), _step(VL, 1, 16), _step(channels, VL, 1)
        xs = floats(work.scratch)
        dys = at(xs, op.block * op.images_at_once * read)
        sums, cell = at(dys, op.block * op.images_at_once * dy_read), count * width
        window = at(floats(work.frames), op.x + at(ints(work.tables), op.taps)[0] + first)
        gradient = at(floats(work.frames), op.dy)
        for start in range(0, batch, op.images_at_once):
            stop = min(start + op.images_at_once, batch)
            for begin in range(0, total, op.block):
                end = min(begin + op.block, total)
                number = 0
                for image in range(start, stop):
                    down, right = begin // across * 2, begin % across * 2
                    for _ in range(begin, end):
                        row, column = min(down, rows - 2), min(right, columns - 2)
                        x = at(window, image * work.frame + row * x_down + column * x_right)
                        for k in range(0, count, K):
                            d0, d1 = load(4, 1, K, at(x, k), x_right), load(4, 1, K, at(x, k + x_down), x_right)
                            d2 = load(4, 1, K, at(x, k + 2 * x_down), x_right)
                            d3 = load(4, 1, K, at(x, k + 3 * x_down), x_right)
                            r0, r1, r2, r3 = inputs(d0, d1, d2, d3)
                            target = at(xs, number * read + 16 * k)
                            write_inputs(r0, target)
                            write_inputs(r1, at(target, 4 * K))
                            write_inputs(r2, at(target, 8 * K))
                            write_inputs(r3, at(target, 12 * K))
                        number += 1
                        right += 2
                        if right >= columns:
                            down, right = down + 2, 0
                for n in range(0, channels, VL):
                    number = 0
                    for image in range(start, stop):
                        down, right = begin // across * 2, begin % across * 2
                        for _ in range(begin, end):
                            row, column = min(down, rows - 2), min(right, columns - 2)
                            dy = at(gradient, image * work.frame + row * dy_down + column * dy_right + n)
                            for v in range(0, VL, L):
                                e0 = load(2, 1, L, at(dy, v), dy_right)
                                e1 = load(2, 1, L, at(dy, v + dy_down), dy_right)
                                if row < down:
                                    e0 = zeros(2, L)
                                r0, r1, r2, r3 = _gradients(e0, e1)
                                target = at(dys, number * dy_read + v)
                                write_gradients(r0, column < right, target)
                                write_gradients(r1, column < right, at(target, 4 * VL))
                                write_gradients(r2, column < right, at(target, 8 * VL))
                                write_gradients(r3, column < right, at(target, 12 * VL))
                            number += 1
                            right += 2
                            if right >= columns:
                                down, right = down + 2, 0
                    for some in range(16):
                        for k in range(0, count, R):
                            t = zeros(RV, L)
                            x, dy = at(xs, k // K * 16 * K + some * K + k % K), at(dys, some * VL)
                            for _ in range(number):
                                t = outer(t, R, x, 1, dy)
                                x, dy = at(x, read), at(dy, dy_read)
                            target = at(sums, some * cell + k * width + n)
                            if start + begin > 0:
                                t = add(t, load(R, V, L, target, width))
                            store(t, R, target, width)
        tap, half = op.run * op.width, fill(4, L, np.float32(0.5))
        for k in range(count):
            for n in range(0, channels, L):
                target = at(floats(work.gradients), op.weights + (first + k) * op.width + n)
                m = at(sums, k * width + n)
                m0, m1 = load(4, 1, L, m, cell), load(4, 1, L, at(m, 4 * cell), cell)
                m2, m3 = load(4, 1, L, at(m, 8 * cell), cell), load(4, 1, L, at(m, 12 * cell), cell)
                for line in _filters(m0, m1, m2, m3, half):
                    write_filters(line, target, tap, channels - n, op.adds)
                    target = at(target, 3 * tap)

    return Kernel(f"winograd_gradient[{rows}x{vectors}x{lanes}, {inner_lanes}]", WINOGRAD_GRADIENT, body)
