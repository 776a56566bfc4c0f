"""Pooling: the largest number or the mean of each window.

    y[r, c, n] = max or mean over the cells (i, j) of window (r, c) of x[i, j, n]

A window's cells are given by tables: rows from top[r] to bottom[r], columns from left[c] to right[c], clipped to the
map. So padding (minus infinity for the maximum), windows beyond the edge (ceil_mode) and adaptive pooling are the same.
Lanes are channels. The place of the maximum is its number within the clipped window, i span + j, where span is the
largest width of a window, as one byte (a float32 for windows of 255 cells and more). Ties go to the first cell. Behind
a convolution with ReLU the place DEAD stands for a maximum that became 0; see pooled.py.

The slow equivalent of the maximum and its gradient, for one image:

    for r, c, n:
        best = -infinity
        for i in range(top[r], bottom[r]):
            for j in range(left[c], right[c]):
                if x[i, j, n] > best or isnan(x[i, j, n]):
                    best, place[r, c, n] = x[i, j, n], (i - top[r]) span + j - left[c]
        y[r, c, n] = best

    for r, c, n:
        dx[where place[r, c, n] says, n] += dy[r, c, n]
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray

from pellucid.compiled.kernel import Kernel, inline
from pellucid.compiled.records import Record
from pellucid.compiled.simd import (
    add,
    as_bytes,
    at,
    fill,
    floats,
    ints,
    load_part,
    multiply,
    relu,
    store_bytes,
    store_part,
    where_larger,
    where_positive,
    zeros,
)

DEAD = 255

POOL = Record(
    "Pool",
    """Operands of pooling and its gradient; of gradients, x and y stand for dx and dy.

    x, x_down, x_right: Where the input begins, steps to the next row and column.
    y, y_down, y_right: The same of the output.
    rows, columns, channels: Of the output.
    places: Where the places begin, in floats from the frame's start; bytes, (rows, columns, channels).
    tops, bottoms, lefts, rights: Tables of the windows' bounds.
    row_counts, column_counts: Tables of what a mean is divided by: their product.
    origins: Table of x's offset of each window's first cell.
    cells: Table of x's offset of each place within a window.
    span: Largest width of a window.
    relu: Whether negative outputs become 0.
    map_rows, map_length: Of the input: rows, and numbers in one.
    """,
    "x x_down x_right y y_down y_right rows columns channels places tops bottoms lefts rights row_counts column_counts "
    "origins cells span relu map_rows map_length",
)


@inline
def clear(op, frame):
    """Set dx to 0; its border is not touched."""
    for row in range(op.map_rows):
        dx = at(frame, op.x + row * op.x_down)
        for i in range(op.map_length):
            dx[i] = np.float32(0)


@cache
def _places(wide: bool) -> tuple[Any, Any]:
    """Return the inlined functions write(places, index, tile, count) and read(places, index) -> place.

    Args:
        wide: For windows of more cells than a byte can number; then each place is a float32.
    """

    @inline
    def write(places, index, tile, count):
        store_bytes(tile, 1, at(as_bytes(places), index), 0, count)

    @inline
    def read(places, index):
        return np.int64(as_bytes(places)[index])

    @inline
    def write_wide(places, index, tile, count):
        store_part(tile, 1, at(places, index), 0, count)

    @inline
    def read_wide(places, index):
        return np.int64(places[index])

    return (write_wide, read_wide) if wide else (write, read)


@cache
def largest_of_four(vectors: int, lanes: int) -> Any:
    """Return the inlined function largest(a, b, c, d, as_relu) -> (maxima, places) for the cells of 2x2 windows.

    Args:
        vectors: Of each of the tiles.
        lanes: L, of a vector.
    """
    P, L = vectors, lanes

    @inline
    def largest(a, b, c, d, as_relu):
        place = where_larger(b, a, fill(P, L, np.float32(1)), zeros(P, L))
        best = where_larger(b, a, b, a)
        place = where_larger(c, best, fill(P, L, np.float32(2)), place)
        best = where_larger(c, best, c, best)
        place = where_larger(d, best, fill(P, L, np.float32(3)), place)
        best = where_larger(d, best, d, best)
        if as_relu:
            place = where_positive(best, place, fill(P, L, np.float32(DEAD)))
            best = relu(best)
        return best, place

    return largest


@cache
def pool_map(lanes: int, wide: bool = False) -> Any:
    """Return the inlined function pool(op, work, x, x_down, x_right, y, places): the maxima of an image.

    Args:
        lanes: L, of a vector.
        wide: Whether windows have more cells than a byte can number.
    """
    L, write = lanes, _places(wide)[0]

    @inline
    def pool(op, work, x, x_down, x_right, y, places):
        tables = ints(work.tables)
        tops, bottoms = at(tables, op.tops), at(tables, op.bottoms)
        lefts, rights = at(tables, op.lefts), at(tables, op.rights)
        rows, columns, channels, span, as_relu = op.rows, op.columns, op.channels, op.span, op.relu
        y_down, y_right = op.y_down, op.y_right
        for row in range(rows):
            for column in range(columns):
                top, bottom, left, right = tops[row], bottoms[row], lefts[column], rights[column]
                for n in range(0, channels, L):
                    best, place = fill(1, L, np.float32(-np.inf)), zeros(1, L)
                    for i in range(top, bottom):
                        for j in range(left, right):
                            value = load_part(1, 1, L, at(x, i * x_down + j * x_right + n), 0, channels - n)
                            here = fill(1, L, np.float32((i - top) * span + j - left))
                            place = where_larger(value, best, here, place)
                            best = where_larger(value, best, value, best)
                    if as_relu:
                        place = where_positive(best, place, fill(1, L, np.float32(DEAD)))
                        best = relu(best)
                    store_part(best, 1, at(y, row * y_down + column * y_right + n), 0, channels - n)
                    write(places, (row * columns + column) * channels + n, place, channels - n)

    return pool


@cache
def max_pool(lanes: int, wide: bool) -> Kernel:
    """Return the kernel of the maximum.

    Args:
        lanes: L, of a vector.
        wide: Whether windows have more cells than a byte can number.
    """
    pool = pool_map(lanes, wide)

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            pool(op, work, at(frame, op.x), op.x_down, op.x_right, at(frame, op.y), at(frame, op.places))

    return Kernel(f"max_pool[{lanes}{', wide' if wide else ''}]", POOL, body)


@cache
def max_pool_gradient(wide: bool) -> Kernel:
    """Return the kernel of the maximum's gradient.

    Args:
        wide: As in max_pool.
    """
    read = _places(wide)[1]

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        tables = ints(work.tables)
        origins, cells, channels = at(tables, op.origins), at(tables, op.cells), op.channels
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            places = at(frame, op.places)
            clear(op, frame)
            for row in range(op.rows):
                for column in range(op.columns):
                    window = row * op.columns + column
                    dx = at(frame, op.x + origins[window])
                    dy = at(frame, op.y + row * op.y_down + column * op.y_right)
                    for n in range(channels):
                        dx[cells[read(places, window * channels + n)] + n] += dy[n]

    return Kernel(f"max_pool_gradient[{'wide' if wide else ''}]", POOL, body)


@cache
def mean_pool(lanes: int) -> Kernel:
    """Return the kernel of the mean.

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        tables, channels = ints(work.tables), op.channels
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            for row in range(op.rows):
                top, bottom = tables[op.tops + row], tables[op.bottoms + row]
                for column in range(op.columns):
                    left, right = tables[op.lefts + column], tables[op.rights + column]
                    count = tables[op.row_counts + row] * tables[op.column_counts + column]
                    share = fill(1, L, np.float32(1) / np.float32(count))
                    for n in range(0, channels, L):
                        total = zeros(1, L)
                        for i in range(top, bottom):
                            for j in range(left, right):
                                x = at(frame, op.x + i * op.x_down + j * op.x_right + n)
                                total = add(total, load_part(1, 1, L, x, 0, channels - n))
                        y = at(frame, op.y + row * op.y_down + column * op.y_right + n)
                        store_part(multiply(total, share), 1, y, 0, channels - n)

    return Kernel(f"mean_pool[{lanes}]", POOL, body)


@cache
def mean_pool_gradient(lanes: int) -> Kernel:
    """Return the kernel of the mean's gradient: each cell of a window gets dy / count.

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        tables, channels = ints(work.tables), op.channels
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            clear(op, frame)
            for row in range(op.rows):
                top, bottom = tables[op.tops + row], tables[op.bottoms + row]
                for column in range(op.columns):
                    left, right = tables[op.lefts + column], tables[op.rights + column]
                    count = tables[op.row_counts + row] * tables[op.column_counts + column]
                    share = fill(1, L, np.float32(1) / np.float32(count))
                    for n in range(0, channels, L):
                        y = at(frame, op.y + row * op.y_down + column * op.y_right + n)
                        dy = multiply(load_part(1, 1, L, y, 0, channels - n), share)
                        for i in range(top, bottom):
                            for j in range(left, right):
                                dx = at(frame, op.x + i * op.x_down + j * op.x_right + n)
                                cell = load_part(1, 1, L, dx, 0, channels - n)
                                store_part(add(cell, dy), 1, dx, 0, channels - n)

    return Kernel(f"mean_pool_gradient[{lanes}]", POOL, body)
