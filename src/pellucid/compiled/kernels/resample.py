"""Fixed sums of cells, along rows and along columns: padding, resampling, and copies of stretches of channels.

    y[r, c, n] = sum over terms i of row r, terms j of column c: u[i] v[j] x[row of i, column of j, n]

with weights u and v that are known before. The gradient is the same computation with the transposed sums, see
compiled/sums.py. Lanes are channels. A cell without terms is 0, whatever stands in x.

The slow equivalent, for one image:

    for r, c, n:
        for i in range(row_starts[r], row_starts[r + 1]):
            for j in range(column_starts[c], column_starts[c + 1]):
                y[r, c, n] += row_weights[i] column_weights[j] x[row_offsets[i] + column_offsets[j] + n]
"""

from __future__ import annotations

from functools import cache

from numba import carray

from pellucid.compiled.kernel import Kernel
from pellucid.compiled.records import Record
from pellucid.compiled.simd import at, fill, floats, ints, load_part, multiply_add, store_part, zeros

RESAMPLE = Record(
    "Resample",
    """Operands of fixed sums.

    x, y, y_down, y_right: Where input and output begin, and steps to the output's next row and column.
    rows, columns, channels: Of the output.
    row_starts, column_starts: Tables of where the terms of each row and column begin, one more at the end.
    row_offsets, column_offsets: Tables of what each term reads, counted from x.
    row_weights, column_weights: Vectors among the buffers, one number for each term.
    """,
    "x y y_down y_right rows columns channels row_starts row_offsets row_weights column_starts column_offsets "
    "column_weights",
)


@cache
def resample(lanes: int) -> Kernel:
    """Return the kernel of fixed sums.

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        tables, buffers, channels = ints(work.tables), floats(work.buffers), op.channels
        row_starts, column_starts = at(tables, op.row_starts), at(tables, op.column_starts)
        row_offsets, column_offsets = at(tables, op.row_offsets), at(tables, op.column_offsets)
        row_weights, column_weights = at(buffers, op.row_weights), at(buffers, op.column_weights)
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            x = at(frame, op.x)
            for row in range(op.rows):
                for column in range(op.columns):
                    y = at(frame, op.y + row * op.y_down + column * op.y_right)
                    for n in range(0, channels, L):
                        left, t = channels - n, zeros(1, L)
                        for i in range(row_starts[row], row_starts[row + 1]):
                            for j in range(column_starts[column], column_starts[column + 1]):
                                cell = at(x, row_offsets[i] + column_offsets[j] + n)
                                weight = fill(1, L, row_weights[i] * column_weights[j])
                                t = multiply_add(weight, load_part(1, 1, L, cell, 0, left), t)
                        store_part(t, 1, at(y, n), 0, left)

    return Kernel(f"resample[{lanes}]", RESAMPLE, body)
