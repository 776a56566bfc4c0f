"""Convolution, ReLU and max-pooling as one: what the pooling drops is neither kept nor multiplied on the way back.

Of each window of the pooling one position of the convolution gets a gradient, and none where ReLU is dead. So instead
of a gradient as large as the convolution's output, of which three quarters and more are zeros, there is the pooled dy
and one byte for each number of it: the place of the maximum. An **event** is one such number that is alive: channel
n, position of the convolution, value.

    forward   convolution of one image into scratch memory, which stays in the cache; then its pooling
    dx        every event adds value x filter n to the window of dx at its position
    dw, db    every event adds value x (window of x at its position) to the gradient of filter n, and value to db

Here lanes are the numbers of a run (a row of the window: kw C numbers side by side), not the filters. Therefore these
weights lie as (kernel row, filter, run): w[a, n, k], and the copy for the forward pass is their transpose.

The slow equivalent of the way back, for one image:

    for window in windows:
        for n in range(channels):
            if place[window, n] != DEAD:
                value, start = dy[window, n], origins[window] + cells[place[window, n]]
                for a in range(kernel rows):
                    for k in range(run):
                        dx[start + tap[a] + k] += value w[a, n, k]
                        dw[a, n, k] += value x[start + tap[a] + k]
                db[n] += value

It is fast because it does a quarter of the multiplications or less. For dx, the channels whose maximum lies at the same
place of a window are gathered first, so that a stretch of dx is loaded and stored once for all of them. For dw, the
events of a channel are gathered into a list first, so that dw stays in registers while they go by.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import carray

from pellucid.compiled.kernel import Kernel
from pellucid.compiled.kernels.correlate import CORRELATE, correlate_map
from pellucid.compiled.kernels.pool import DEAD, POOL, largest_of_four, pool_map
from pellucid.compiled.records import Record
from pellucid.compiled.simd import (
    add,
    add_scaled,
    as_bytes,
    as_ints,
    at,
    floats,
    ints,
    lanes_equal,
    load,
    load_part,
    outer,
    pointer_maker,
    repeat,
    spread,
    store,
    store_bytes,
    store_part,
    where_byte,
    zeros,
)

CORRELATE_POOL = Record(
    "CorrelatePool",
    """Operands of a convolution and the pooling behind it.

    correlate: Address of the convolution's operands (Correlate); y stays unused, outputs lie at 0 of scratch.
    pool: Address of the pooling's operands (Pool); x stays unused.
    """,
    "correlate pool",
)

_correlate_at, _pool_at = pointer_maker(CORRELATE.pointer), pointer_maker(POOL.pointer)

CORRELATE_POOL2 = Record(
    "CorrelatePool2",
    """Operands of a convolution and a pooling with whole windows of 2x2 behind it: those of Correlate, where rows and
    columns are those of the convolution and y is the pooled map, and

    places: As in Pool.
    """,
    " ".join(CORRELATE.dtype.names or ()) + " places",
)

POOLED_GRADIENT = Record(
    "PooledGradient",
    """Operands of the way back.

    x: Where the convolution's input begins (before the taps), or dx, which has the same layout.
    dy, dy_down, dy_right: The pooled gradient.
    rows, columns, channels: Of the pooled map.
    places: As in Pool.
    origins, cells: Tables of offsets in x: of each window's first position, of each place within a window.
    taps, tap_count, run: Kernel rows: table of offsets in x, their number, numbers of a run.
    tap_step: Distance of two taps.
    weights, width: Where w or dw begins, and the distance of its rows: (tap_count, channels, width).
    window: Cells of the largest window.
    bias: Where db begins.
    map, map_size: The whole of dx with its borders, to be cleared: where it begins, numbers.
    """,
    "x dy dy_down dy_right rows columns channels places origins cells taps tap_count run tap_step weights width window "
    "bias map map_size",
)


@cache
def correlate_pool(rows: int, columns: int, vectors: int, lanes: int, pool_lanes: int) -> Kernel:
    """Return the kernel of the forward pass.

    Args:
        rows: R, windows of the convolution one below the other.
        columns: P, windows side by side.
        vectors: V, vectors of channels.
        lanes: L, of a vector.
        pool_lanes: L of the pooling.
    """
    correlate, pool = correlate_map(rows, columns, vectors, lanes), pool_map(pool_lanes)

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        conv, pooling = carray(_correlate_at(op.correlate), 1)[0], carray(_pool_at(op.pool), 1)[0]
        scratch = floats(work.scratch)
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            correlate(conv, work, at(frame, conv.x), scratch, conv.y_down, conv.y_right)
            y, places = at(frame, pooling.y), at(frame, pooling.places)
            pool(pooling, work, scratch, pooling.x_down, pooling.x_right, y, places)

    return Kernel(f"correlate_pool[{rows}x{columns}x{vectors}x{lanes}, {pool_lanes}]", CORRELATE_POOL, body)


@cache
def correlate_pool2(columns: int, vectors: int, lanes: int, keeps: bool = True) -> Kernel:
    """Return the kernel of the forward pass for whole windows of 2x2, whose maximum is taken in registers.

    Args:
        columns: P, windows of the pooling side by side.
        vectors: V, vectors of channels.
        lanes: L, of a vector.
        keeps: Whether the places of the maxima are written, for the way back.
    """
    P, V, L = columns, vectors, lanes
    largest = largest_of_four(P * V, L)

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        rows, columns, channels, run, width = op.rows // 2, op.columns // 2, op.channels, op.run, op.width
        down, right, two, taps = op.x_down, op.x_right, 2 * op.x_right, at(ints(work.tables), op.taps)
        y_down, y_right = op.y_down, op.y_right
        w = at(floats(work.copies if op.from_copies else work.weights), op.weights)
        bias = at(floats(work.weights), op.bias)
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            places = as_bytes(at(frame, op.places))
            for n in range(0, channels, V * L):
                for row in range(rows):
                    for start in range(0, columns, P):
                        column = min(start, columns - P)
                        x = at(frame, op.x + 2 * row * down + column * two)
                        a = repeat(P, V, L, at(bias, n))
                        b, c, d = a, a, a
                        weights = at(w, n)
                        for tap in range(op.tap_count):
                            window = at(x, taps[tap])
                            for k in range(run):
                                a = outer(a, P, at(window, k), two, weights)
                                b = outer(b, P, at(window, k + right), two, weights)
                                c = outer(c, P, at(window, k + down), two, weights)
                                d = outer(d, P, at(window, k + down + right), two, weights)
                                weights = at(weights, width)
                        best, place = largest(a, b, c, d, op.relu)
                        y = at(frame, op.y + row * y_down + column * y_right + n)
                        store_part(best, P, y, y_right, channels - n)
                        if keeps:
                            to = at(places, (row * columns + column) * channels + n)
                            store_bytes(place, P, to, channels, channels - n)

    kept = "" if keeps else ", no places"
    return Kernel(f"correlate_pool2[{columns}x{vectors}x{lanes}{kept}]", CORRELATE_POOL2, body)


@cache
def pooled_data_gradient(taps: int, vectors: int, lanes: int) -> Kernel:
    """Return the kernel of dx.

    Args:
        taps: T, kernel rows at once: all of them, or 1.
        vectors: V, vectors of a run at once.
        lanes: L, of a vector.
    """
    T, V, L = taps, vectors, lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        tables, channels, width, run, window = ints(work.tables), op.channels, op.width, op.run, op.window
        origins, cells, tap_offsets = at(tables, op.origins), at(tables, op.cells), at(tables, op.taps)
        windows, columns, tap_step = op.rows * op.columns, op.columns, op.tap_step
        # Scratch: how many channels have their maximum at each place of each window, then their numbers.
        counts = as_ints(floats(work.scratch))
        numbers = at(counts, windows * window)
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            dx, places = at(frame, op.map), as_bytes(at(frame, op.places))
            for i in range(0, op.map_size, L):
                store(zeros(1, L), 1, at(dx, i), 0)
            listed = 0
            for p in range(windows):
                for place in range(window):
                    found = 0
                    for n in range(0, channels, 16):
                        some = at(places, p * channels + n)
                        found += lanes_equal(some, channels - n, place, n, at(numbers, listed + found))
                    counts[p * window + place] = found
                    listed += found
            for tap in range(0, op.tap_count, T):
                w = at(floats(work.weights), op.weights + tap * channels * width)
                start = np.int64(0)
                for p in range(windows):
                    dy = at(frame, op.dy + (p // columns) * op.dy_down + (p % columns) * op.dy_right)
                    for place in range(window):
                        several = np.int64(counts[p * window + place])
                        if several:
                            target = at(frame, op.x + origins[p] + cells[place] + tap_offsets[tap])
                            for k in range(0, run, V * L):
                                t = load(T, V, L, at(target, k), tap_step)
                                for e in range(start, start + several):
                                    channel = np.int64(numbers[e])
                                    row = at(w, channel * width + k)
                                    t = add_scaled(t, T, dy[channel], row, channels * width)
                                store_part(t, T, at(target, k), tap_step, run - k)
                        start += several

    return Kernel(f"pooled_data_gradient[{taps}x{vectors}x{lanes}]", POOLED_GRADIENT, body)


@cache
def pooled_weight_gradient(taps: int, vectors: int, lanes: int, ways: int) -> Kernel:
    """Return the kernel of dw and db; its blocks are filters.

    Args:
        taps: T, kernel rows at once: all of them, or 1.
        vectors: V, vectors of a run.
        lanes: L, of a vector.
        ways: 4 to sum in four tiles by turns, where one would be too few sums to keep the CPU busy; else 1.
    """
    T, V, L = taps, vectors, lanes
    TV = T * V
    four = ways == 4

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        tables, channels, width, run = ints(work.tables), op.channels, op.width, op.run
        origins, cells, tap_offsets = at(tables, op.origins), at(tables, op.cells), at(tables, op.taps)
        rows, columns, tap_step, gradients = op.rows, op.columns, op.tap_step, floats(work.gradients)
        # Scratch: the events of one channel of one image, values and positions.
        values = floats(work.scratch)
        positions = as_ints(at(values, rows * columns))
        for n in range(work.first, work.last):
            gradients[op.bias + n] = np.float32(0)
            for tap in range(op.tap_count):
                for k in range(width):
                    gradients[op.weights + (tap * channels + n) * width + k] = np.float32(0)
        for image in range(work.batch):
            frame = at(floats(work.frames), image * work.frame)
            places = as_bytes(at(frame, op.places))
            for n in range(work.first, work.last):
                found, total = 0, np.float32(0)
                for row in range(rows):
                    for column in range(columns):
                        p = row * columns + column
                        place = places[p * channels + n]
                        value = at(frame, op.dy + row * op.dy_down + column * op.dy_right)[n]
                        # Written always, kept by counting on: no branch that the CPU would guess wrong.
                        values[found] = value
                        positions[found] = origins[p] + cells[place]
                        alive = place != DEAD
                        total += value if alive else np.float32(0)
                        found += 1 if alive else 0
                gradients[op.bias + n] += total
                for tap in range(0, op.tap_count, T):
                    x = at(frame, op.x + tap_offsets[tap])
                    target = at(gradients, op.weights + (tap * channels + n) * width)
                    for k in range(0, run, V * L):
                        t = zeros(TV, L)
                        e = 0
                        if four:
                            t1, t2, t3 = zeros(TV, L), zeros(TV, L), zeros(TV, L)
                            while e + 4 <= found:
                                t = add_scaled(t, T, values[e], at(x, positions[e] + k), tap_step)
                                t1 = add_scaled(t1, T, values[e + 1], at(x, positions[e + 1] + k), tap_step)
                                t2 = add_scaled(t2, T, values[e + 2], at(x, positions[e + 2] + k), tap_step)
                                t3 = add_scaled(t3, T, values[e + 3], at(x, positions[e + 3] + k), tap_step)
                                e += 4
                            t = add(add(t, t1), add(t2, t3))
                        while e < found:
                            t = add_scaled(t, T, values[e], at(x, positions[e] + k), tap_step)
                            e += 1
                        sums = load_part(T, V, L, at(target, k), channels * width, run - k)
                        store_part(add(t, sums), T, at(target, k), channels * width, run - k)

    return Kernel(f"pooled_weight_gradient[{taps}x{vectors}x{lanes}, {ways}]", POOLED_GRADIENT, body)


@cache
def selected_weight_gradient(taps: int, run: int, lanes: int) -> Kernel:
    """Return the kernel of dw and db where a filter has few numbers; its blocks are filters, a multiple of L.

    Lanes are filters here: of the pooled gradient, each place of a window selects its lanes, which are multiplied with
    the numbers of the window, all alike. So there are no lists of events.

    Args:
        taps: T, kernel rows at once: all of them, or 1.
        run: R, numbers of a run.
        lanes: L, of a vector.
    """
    T, R, L = taps, run, lanes
    TR = T * R

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        tables, channels, width = ints(work.tables), op.channels, op.width
        origins, cells, tap_offsets = at(tables, op.origins), at(tables, op.cells), at(tables, op.taps)
        rows, columns, window, tap_step = op.rows, op.columns, op.window, op.tap_step
        sums = floats(work.scratch)
        for n in range(work.first, work.last, L):
            for tap in range(0, op.tap_count, T):
                store(zeros(TR, L), TR, sums, L)
                bias = zeros(1, L)
                for image in range(work.batch):
                    frame = at(floats(work.frames), image * work.frame)
                    places = at(as_bytes(at(frame, op.places)), n)
                    x = at(frame, op.x + tap_offsets[tap])
                    t, of_image = zeros(TR, L), zeros(1, L)
                    for row in range(rows):
                        for column in range(columns):
                            p = row * columns + column
                            dy = load(1, 1, L, at(frame, op.dy + row * op.dy_down + column * op.dy_right + n), 0)
                            from_window, place = at(x, origins[p]), at(places, p * channels)
                            for cell in range(window):
                                some = where_byte(place, cell, dy)
                                t = spread(t, T, at(from_window, cells[cell]), tap_step, some)
                                of_image = add(of_image, some)
                    store(add(t, load(TR, 1, L, sums, L)), TR, sums, L)
                    bias = add(bias, of_image)
                for lane in range(min(L, work.last - n)):
                    for i in range(TR):
                        place_of = ((tap + i // R) * channels + n + lane) * width + i % R
                        floats(work.gradients)[op.weights + place_of] = sums[i * L + lane]
                store_part(bias, 1, at(floats(work.gradients), op.bias + n), 0, work.last - n)

    return Kernel(f"selected_weight_gradient[{taps}x{run}x{lanes}]", POOLED_GRADIENT, body)
