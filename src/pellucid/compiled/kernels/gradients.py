"""Gradients of weights and biases: sums over all images of a batch, in the order of the images.

    dw[t, k, n] = sum over images i, windows (r, c): x[i; r, c; t, k] dy[i; r, c, n]
    db[n] = sum over images i, windows (r, c): dy[i; r, c, n]

with taps and runs as in correlate.py. The work names rows of w, the same of every tap, so blocks of rows can be
computed in any order by any thread; each sum is made by one thread alone, so its bits never depend on their number.

The slow equivalent:

    for k in range(first, last):
        for n in range(channels):
            for i in range(batch):
                for r, c in windows:
                    dw[t, k, n] += x[i][r x_down + c x_right + tap[t] + k] dy[i][r dy_down + c dy_right + n]

It is fast because R rows times V vectors of channels stay in registers while all windows of an image go by. The sum of
an image is added to the sum of those before, which also keeps rounding errors small; of dense layers, which have one
window, all images are summed in registers.
"""

from __future__ import annotations

from functools import cache

from numba import carray

from pellucid.compiled.kernel import Kernel
from pellucid.compiled.records import Record
from pellucid.compiled.simd import add, at, floats, fold, ints, load, load_part, outer, store_part, zeros

WEIGHT_GRADIENT = Record(
    "WeightGradient",
    """Operands of the gradient of a weight.

    x, dy: Where the first window begins (before the taps), and where its gradient lies.
    x_down, x_right, dy_down, dy_right: Steps from one row of windows to the next, and from one column to the next.
    rows, columns: Windows of one image.
    taps, tap_count, run: Where the table of taps begins, how many there are, numbers read at each.
    weights, width, channels: Where dw begins, the distance of its rows, numbers in a row.
    adds: 1 to add to what is there, for a layer that stands at several places.
    images_at_once: How many images are summed in registers before the sum goes to memory.
    """,
    "x dy x_down x_right dy_down dy_right rows columns taps tap_count run weights width channels adds images_at_once",
)

BIAS_GRADIENT = Record(
    "BiasGradient",
    """Operands of the gradient of a bias.

    dy, dy_down, dy_right, rows, columns: As for weights.
    bias, channels: Where db begins, and its length.
    adds: 1 to add to what is there.
    """,
    "dy dy_down dy_right rows columns bias channels adds",
)


@cache
def weight_gradient(rows: int, vectors: int, lanes: int) -> Kernel:
    """Return the kernel for tiles of so many rows and vectors of channels; blocks must be multiples of the rows.

    Args:
        rows: R, neighboring rows of w.
        vectors: V, vectors of channels.
        lanes: L, of a vector.
    """
    R, V, L = rows, vectors, lanes
    RV = R * V

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        frame, batch, taps = work.frame, work.batch, at(ints(work.tables), op.taps)
        rows, columns, x_down, x_right = op.rows, op.columns, op.x_down, op.x_right
        dy_down, dy_right, width, channels = op.dy_down, op.dy_right, op.width, op.channels
        for start in range(0, batch, op.images_at_once):
            stop = min(start + op.images_at_once, batch)
            keep = op.adds != 0 or start > 0
            for tap in range(op.tap_count):
                x = at(floats(work.frames), op.x + taps[tap])
                for k in range(work.first, work.last, R):
                    for n in range(0, channels, V * L):
                        t = zeros(RV, L)
                        for image in range(start, stop):
                            from_map = at(x, image * frame + k)
                            dy_map = at(floats(work.frames), image * frame + op.dy + n)
                            for row in range(rows):
                                from_row, dy = at(from_map, row * x_down), at(dy_map, row * dy_down)
                                for column in range(columns):
                                    t = outer(t, R, at(from_row, column * x_right), 1, at(dy, column * dy_right))
                        target = at(floats(work.gradients), op.weights + (tap * op.run + k) * width + n)
                        if keep:
                            t = add(t, load_part(R, V, L, target, width, channels - n))
                        store_part(t, R, target, width, channels - n)

    return Kernel(f"weight_gradient[{rows}x{vectors}x{lanes}]", WEIGHT_GRADIENT, body)


@cache
def bias_gradient(lanes: int) -> Kernel:
    """Return the kernel for vectors of so many lanes.

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        columns, step = op.columns, op.dy_right
        for n in range(0, op.channels, L):
            left = op.channels - n
            total = zeros(1, L)
            if op.adds:
                total = load_part(1, 1, L, at(floats(work.gradients), op.bias + n), 0, left)
            for image in range(work.batch):
                of_image = zeros(1, L)
                for row in range(op.rows):
                    dy = at(floats(work.frames), image * work.frame + op.dy + row * op.dy_down + n)
                    four = zeros(4, L)
                    column = 0
                    while column + 4 <= columns:
                        four = add(four, load(4, 1, L, at(dy, column * step), step))
                        column += 4
                    of_row = fold(four, 4)
                    while column < columns:
                        of_row = add(of_row, load(1, 1, L, at(dy, column * step), step))
                        column += 1
                    of_image = add(of_image, of_row)
                total = add(total, of_image)
            store_part(total, 1, at(floats(work.gradients), op.bias + n), 0, left)

    return Kernel(f"bias_gradient[{lanes}]", BIAS_GRADIENT, body)
