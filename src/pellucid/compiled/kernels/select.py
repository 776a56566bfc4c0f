"""Max-pooling of any cells (dilated, adaptive), which keeps the cells' numbers, and unpooling, which goes by them.

    y[r, c, n] = max over the rows i of window row r, the columns j of window column c of x[i, j, n]
    place[r, c, n] = i columns + j of the first such cell, of the first NaN; -1 where a window reads nothing

Numbers of cells are float32, exact below MOST_CELLS. Lanes are channels. Usual windows have faster kernels in pool.py.

The slow equivalents of the gradient, of unpooling (where the last window that names a cell wins) and of its gradient:

    for r, c, n:
        dx[place[r, c, n], n] += dy[r, c, n]
    for r, c, n:
        x[place[r, c, n], n], owner[place[r, c, n], n] = y[r, c, n], (r, c)
    for r, c, n:
        dy[r, c, n] = dx[place[r, c, n], n] if owner[place[r, c, n], n] == (r, c) else 0
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import carray

from pellucid.compiled.kernel import Kernel
from pellucid.compiled.kernels.pool import clear
from pellucid.compiled.records import Record
from pellucid.compiled.simd import at, fill, floats, ints, load_part, store_part, where_larger

MOST_CELLS = 1 << 24

SELECT = Record(
    "Select",
    """Operands of pooling by numbers of cells, and of what goes by them.

    x, x_down: The map of cells: input of the pooling, its gradient, output of the unpooling, that one's gradient.
    y, y_down: The map of windows: output of the pooling, its gradient, input of the unpooling, that one's gradient.
    rows, columns, channels: Of the map of windows.
    places: Where the numbers of cells begin, (rows, columns, channels).
    row_starts, column_starts: Tables of where the cells of each row and column of windows begin, one more at the end.
    row_cells, column_cells: Tables of those cells' rows and columns.
    offsets: Table of where each cell lies, counted from x.
    map_rows, map_columns, map_length: Of the map of cells: rows, columns, and numbers in a row.
    """,
    "x x_down y y_down rows columns channels places row_starts row_cells column_starts column_cells offsets map_rows "
    "map_columns map_length",
)


@cache
def select_pool(lanes: int) -> Kernel:
    """Return the kernel of the maximum.

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        tables, channels, above = ints(work.tables), op.channels, fill(1, L, np.float32(np.inf))
        row_starts, row_cells = at(tables, op.row_starts), at(tables, op.row_cells)
        column_starts, column_cells = at(tables, op.column_starts), at(tables, op.column_cells)
        offsets, map_columns = at(tables, op.offsets), op.map_columns
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            x = at(frame, op.x)
            for row in range(op.rows):
                top, bottom = row_starts[row], row_starts[row + 1]
                for column in range(op.columns):
                    left, right = column_starts[column], column_starts[column + 1]
                    first = -1
                    if top < bottom and left < right:
                        first = row_cells[top] * map_columns + column_cells[left]
                    for n in range(0, channels, L):
                        count = channels - n
                        best, place = fill(1, L, np.float32(-np.inf)), fill(1, L, np.float32(first))
                        for i in range(top, bottom):
                            for j in range(left, right):
                                cell = row_cells[i] * map_columns + column_cells[j]
                                value = load_part(1, 1, L, at(x, offsets[cell] + n), 0, count)
                                found = where_larger(value, best, fill(1, L, np.float32(cell)), place)
                                # What is NaN stays: nothing is above infinity.
                                place = where_larger(best, above, place, found)
                                best = where_larger(best, above, best, where_larger(value, best, value, best))
                        store_part(best, 1, at(frame, op.y + row * op.y_down + column * channels + n), 0, count)
                        places = at(frame, op.places + (row * op.columns + column) * channels + n)
                        store_part(place, 1, places, 0, count)

    return Kernel(f"select_pool[{lanes}]", SELECT, body)


@cache
def select_pool_gradient() -> Kernel:
    """Return the kernel of the maximum's gradient."""

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        offsets, channels = at(ints(work.tables), op.offsets), op.channels
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            clear(op, frame)
            for row in range(op.rows):
                for column in range(op.columns):
                    places = at(frame, op.places + (row * op.columns + column) * channels)
                    dy = at(frame, op.y + row * op.y_down + column * channels)
                    for n in range(channels):
                        if places[n] >= 0:
                            at(frame, op.x + offsets[np.int64(places[n])] + n)[0] += dy[n]

    return Kernel("select_pool_gradient", SELECT, body)


@cache
def unpool() -> Kernel:
    """Return the kernel of unpooling."""

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        offsets, channels = at(ints(work.tables), op.offsets), op.channels
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            clear(op, frame)
            for row in range(op.rows):
                for column in range(op.columns):
                    places = at(frame, op.places + (row * op.columns + column) * channels)
                    y = at(frame, op.y + row * op.y_down + column * channels)
                    for n in range(channels):
                        at(frame, op.x + offsets[np.int64(places[n])] + n)[0] = y[n]

    return Kernel("unpool", SELECT, body)


@cache
def unpool_gradient() -> Kernel:
    """Return the kernel of unpooling's gradient; the owner of each cell lies in scratch."""

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        offsets, channels, owners = at(ints(work.tables), op.offsets), op.channels, ints(work.scratch)
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            for window in range(op.rows * op.columns):
                places = at(frame, op.places + window * channels)
                for n in range(channels):
                    owners[np.int64(places[n]) * channels + n] = window
            for row in range(op.rows):
                for column in range(op.columns):
                    window = row * op.columns + column
                    places = at(frame, op.places + window * channels)
                    y = at(frame, op.y + row * op.y_down + column * channels)
                    for n in range(channels):
                        cell = np.int64(places[n])
                        own = owners[cell * channels + n] == window
                        y[n] = at(frame, op.x + offsets[cell] + n)[0] if own else np.float32(0)

    return Kernel("unpool_gradient", SELECT, body)
