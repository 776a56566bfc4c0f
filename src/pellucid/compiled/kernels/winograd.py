"""Convolutions 3x3 with 16 multiplications where 36 are usual: Winograd's F(2x2, 3x3).

For 2x2 neighboring outputs y of one channel of the input, with its 4x4 numbers d and the filter g:

    y = A' [(G g G') * (B' d B)] A        (* number by number; ' is the transpose)

    B' d:  d0 - d2,  d1 + d2,  d2 - d1,  d1 - d3          (of rows; then the same of columns)
    G g:   g0,  (g0 + g1 + g2) / 2,  (g0 - g1 + g2) / 2,  g2
    A' m:  m0 + m1 + m2,  m1 - m2 - m3

The sum over input channels comes before A, so per 2x2 outputs there are 16 sums of products, which is 16 products of
matrices: (places, channels) times (channels, filters). From Lavin and Gray, Fast Algorithms for Convolutional Neural
Networks, 2015 (arXiv:1509.09308). Where rows or columns are odd, the last 2x2 goes back by one.

The slow equivalent is that of correlate.py; results differ by rounding.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import carray

from pellucid.compiled.kernel import Kernel, inline
from pellucid.compiled.kernels.correlate import CORRELATE
from pellucid.compiled.kernels.pool import largest_of_four
from pellucid.compiled.records import Record
from pellucid.compiled.simd import (
    add,
    as_bytes,
    at,
    fill,
    floats,
    ints,
    load,
    load_part,
    multiply,
    outer,
    relu,
    repeat,
    store,
    store_bytes,
    store_part,
    subtract,
    vector,
    zeros,
)

WINOGRAD = Record(
    "Winograd",
    """Operands of such a convolution: those of Correlate, with one run of 3 C numbers for each row of the kernel, and

    weights: Where the filters' side lies among the copies, (4, 4, C, width).
    block: How many places (of 2x2 outputs) go through together.
    places: As in Pool, where a pooling with whole windows of 2x2 follows; then y is the pooled map.
    """,
    " ".join(CORRELATE.dtype.names or ()) + " block places",
)

WINOGRAD_WEIGHTS = Record(
    "WinogradWeights",
    """Operands of G g G' for each pair of channels.

    source, from_copies: Where the filters begin, (3, 3, rows, width), and whether among the transposed copies.
    rows, columns, width: Of a kernel cell; columns of each row's width are in use.
    by_columns: Whether the work's first and last are columns, else rows.
    target: Where the result begins among the copies, (4, 4, rows, width).
    """,
    "source from_copies rows columns width by_columns target",
)


@inline
def inputs(a, b, c, d):
    """Return B' (a, b, c, d)."""
    return subtract(a, c), add(b, c), subtract(c, b), subtract(b, d)


@inline
def _outputs(a, b, c, d):
    """Return A' (a, b, c, d)."""
    return add(add(a, b), c), subtract(subtract(b, c), d)


@inline
def _filters(a, b, c, half):
    """Return G (a, b, c)."""
    ends = add(a, c)
    return a, multiply(half, add(ends, b)), multiply(half, subtract(ends, b)), c


@inline
def _steps(inner, inner_lanes, filters):
    """Return the steps from place to place in scratch; no powers of two, which would meet in the cache."""
    return 16 * ((inner + inner_lanes - 1) // inner_lanes * inner_lanes + 1), 16 * (filters + 1)


def scratch_size(block: int, inner: int, inner_lanes: int, filters: int) -> int:
    """Return how many floats of scratch memory a block of places needs; filters: V L."""
    return int(block * sum(_steps.py_func(inner, inner_lanes, filters)))


@cache
def winograd(places: int, vectors: int, lanes: int, inner_lanes: int, pooled: bool, keeps: bool = True) -> Kernel:
    """Return the kernel of convolutions and their data gradients.

    Args:
        places: P, places (of 2x2 outputs) side by side in a tile; at most as many as the map has.
        vectors: V, vectors of filters.
        lanes: L, of a vector.
        inner_lanes: K, lanes of the input's channels.
        pooled: Whether the maximum of each 2x2 outputs goes to y.
        keeps: Whether its place goes to the places then, for the way back.
    """
    P, V, L, K = places, vectors, lanes, inner_lanes
    PV, VL, largest = P * V, V * L, largest_of_four(1, lanes)
    K2, K3, K4, K8, K12, V4, V8, V12 = 2 * K, 3 * K, 4 * K, 8 * K, 12 * K, 4 * V * L, 8 * V * L, 12 * V * L

    @inline
    def write_inputs(line, target):
        a, b, c, d = inputs(vector(line, 0), vector(line, 1), vector(line, 2), vector(line, 3))
        store(a, 1, target, 0)
        store(b, 1, at(target, K), 0)
        store(c, 1, at(target, K2), 0)
        store(d, 1, at(target, K3), 0)

    @inline
    def write_outputs(line, bias, as_relu, target, step, left):
        a, b = _outputs(vector(line, 0), vector(line, 1), vector(line, 2), vector(line, 3))
        a, b = add(a, bias), add(b, bias)
        if as_relu:
            a, b = relu(a), relu(b)
        if left >= L:
            store(a, 1, target, 0)
            store(b, 1, at(target, step), 0)
        else:
            store_part(a, 1, target, 0, left)
            store_part(b, 1, at(target, step), 0, left)

    @inline
    def write_largest(r0, r1, bias, as_relu, target, places, left):
        a, b = _outputs(vector(r0, 0), vector(r0, 1), vector(r0, 2), vector(r0, 3))
        c, d = _outputs(vector(r1, 0), vector(r1, 1), vector(r1, 2), vector(r1, 3))
        best, place = largest(add(a, bias), add(b, bias), add(c, bias), add(d, bias), as_relu)
        store_part(best, 1, target, 0, left)
        if keeps:
            store_bytes(place, 1, places, 0, left)

    @inline
    def convolve(op, work, frame):
        rows, columns, channels, down, right = op.rows, op.columns, op.channels, op.x_down, op.x_right
        inner, width, count = op.run // 3, op.width, op.block
        across = (columns + 1) // 2
        total = across * ((rows + 1) // 2)
        # What a block of places reads, (places, vectors of channels, 16, K), then its sums, (places, 16, V L).
        read, summed = _steps(inner, K, VL)
        scratch = floats(work.scratch)
        sums = at(scratch, count * read)
        x, y = at(frame, op.x + at(ints(work.tables), op.taps)[0]), at(frame, op.y)
        places, y_down, y_right = as_bytes(at(frame, op.places)), op.y_down, op.y_right
        u = at(floats(work.copies), op.weights)
        b = at(floats(work.weights), op.bias)
        for start in range(0, total, count):
            first = min(start, total - count)
            row, column = first // across * 2, first % across * 2
            for place in range(count):
                window = at(x, min(row, rows - 2) * down + min(column, columns - 2) * right)
                target = at(scratch, place * read)
                for k in range(0, inner, K):
                    d0 = load(4, 1, K, at(window, k), right)
                    d1 = load(4, 1, K, at(window, k + down), right)
                    d2 = load(4, 1, K, at(window, k + 2 * down), right)
                    d3 = load(4, 1, K, at(window, k + 3 * down), right)
                    r0, r1, r2, r3 = inputs(d0, d1, d2, d3)
                    write_inputs(r0, at(target, 16 * k))
                    write_inputs(r1, at(target, 16 * k + K4))
                    write_inputs(r2, at(target, 16 * k + K8))
                    write_inputs(r3, at(target, 16 * k + K12))
                column += 2
                if column >= columns:
                    row, column = row + 2, 0
            for n in range(0, channels, VL):
                for cell in range(16):
                    for some in range(0, count, P):
                        place = min(some, count - P)
                        t = zeros(PV, L)
                        w = at(u, cell * inner * width + n)
                        d = at(scratch, place * read + cell * K)
                        for k in range(0, inner, K):
                            for c in range(min(K, inner - k)):
                                t = outer(t, P, at(d, c), read, w)
                                w = at(w, width)
                            d = at(d, 16 * K)
                        store(t, P, at(sums, place * summed + cell * VL), summed)
                row, column = first // across * 2, first % across * 2
                for place in range(count):
                    if pooled:
                        output = at(y, row // 2 * y_down + column // 2 * y_right + n)
                        output_places = at(places, (first + place) * channels + n)
                    else:
                        output = at(y, min(row, rows - 2) * y_down + min(column, columns - 2) * y_right + n)
                    for v in range(0, min(VL, channels - n), L):
                        m = at(sums, place * summed + v)
                        m0, m1 = load(4, 1, L, m, VL), load(4, 1, L, at(m, V4), VL)
                        m2, m3 = load(4, 1, L, at(m, V8), VL), load(4, 1, L, at(m, V12), VL)
                        bias, target, left = repeat(1, 1, L, at(b, n + v)), at(output, v), channels - n - v
                        r0, r1 = _outputs(m0, m1, m2, m3)
                        if pooled:
                            write_largest(r0, r1, bias, op.relu, target, at(output_places, v), left)
                        else:
                            write_outputs(r0, bias, op.relu, target, y_right, left)
                            write_outputs(r1, bias, op.relu, at(target, y_down), y_right, left)
                    column += 2
                    if column >= columns:
                        row, column = row + 2, 0

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        for image in range(work.first, work.last):
            convolve(op, work, at(floats(work.frames), image * work.frame))

    name, kept = "winograd_pool2" if pooled else "winograd", "" if keeps else ", no places"
    return Kernel(f"{name}[{places}x{vectors}x{lanes}, {inner_lanes}{kept}]", WINOGRAD, body)


@cache
def winograd_weights(lanes: int) -> Kernel:
    """Return the kernel of the filters' side.

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        cell, width = op.rows * op.width, op.width
        source = at(floats(work.copies if op.from_copies else work.weights), op.source)
        copies = at(floats(work.copies), op.target)
        begin, end, first, last = work.first, work.last, np.int64(0), op.columns
        if op.by_columns:
            begin, end, first, last = np.int64(0), op.rows, work.first, work.last
        half = fill(3, L, np.float32(0.5))
        for row in range(begin, end):
            for column in range(first, last, L):
                left = last - column
                g = at(source, row * width + column)
                g0 = load_part(3, 1, L, g, cell, left)
                g1 = load_part(3, 1, L, at(g, 3 * cell), cell, left)
                g2 = load_part(3, 1, L, at(g, 6 * cell), cell, left)
                target = at(copies, row * width + column)
                for line in _filters(g0, g1, g2, half):
                    for u in _filters(vector(line, 0), vector(line, 1), vector(line, 2), vector(half, 0)):
                        store_part(u, 1, target, 0, left)
                        target = at(target, cell)

    return Kernel(f"winograd_weights[{lanes}]", WINOGRAD_WEIGHTS, body)
