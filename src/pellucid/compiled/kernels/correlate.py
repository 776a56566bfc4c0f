"""Windows times weights: the forward pass and data gradient of convolutions and dense layers are one computation.

    y[r, c, n] = b[n] + sum over taps t, numbers k of a run: x[r, c; t, k] w[t, k, n]

In a map stored (H, W, C), neighboring channels and neighboring columns lie side by side, so a row of a filter reads
one contiguous **run** of numbers; a **tap** is the place where a run begins, relative to the window's first number:

| computes                        | taps                       | run         | n           |
|---------------------------------|----------------------------|-------------|-------------|
| convolution, dilation 1         | kernel rows                | kw C        | filter      |
| convolution, dilated or grouped | kernel cells               | C / groups  | filter      |
| data gradient of a convolution  | rows of the flipped kernel | kw filters  | channel     |
| dense layer (and its gradient)  | one                        | all inputs  | output      |

The data gradient of a strided convolution is one such computation for each residue of the input's rows and columns,
since cells of one residue meet the same kernel cells. A dense layer has one window, so there images take the place
of columns.

The slow equivalent, for one image:

    for r in range(rows):
        for c in range(columns):
            for n in range(channels):
                total = bias[n]
                for t in range(tap_count):
                    for k in range(run):
                        total += x[r x_down + c x_right + tap[t] + k] w[t run + k, n]
                y[r y_down + c y_right + n] = max(total, 0) if relu else total

It is fast because P windows times V vectors of channels stay in registers over the whole sum: of every number that is
loaded, x serves V multiplications and w serves P. Every sum runs in the same order whatever the tile, so an output
has the same bits in any batch.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import carray

from pellucid.compiled.kernel import Kernel, inline
from pellucid.compiled.records import Record
from pellucid.compiled.simd import (
    add,
    add_products,
    add_rows,
    at,
    floats,
    fold,
    ints,
    lane_sums,
    load,
    load_part,
    outer,
    outer_block,
    relu,
    repeat,
    store,
    store_block,
    store_part,
    zeros,
)

CORRELATE = Record(
    "Correlate",
    """Operands of a correlation. Offsets count from the frame's start, steps in numbers.

    x, y: Where the first window begins (before the taps), and where its first output goes.
    x_down, x_right, y_down, y_right: Steps from one row of outputs to the next, and from one column to the next.
    rows, columns: Outputs of one image; dense layers have one row, and the images of the work as columns.
    taps, tap_count, run: Where the table of taps begins, how many there are, numbers read at each.
    weights, width: Where w begins, and the distance of its rows: (tap_count run, width).
    from_copies: Whether w lies among the transposed copies.
    bias: Where b lies among the parameters.
    channels: Outputs n of each window.
    relu: Whether negative outputs become 0.
    """,
    "x y x_down x_right y_down y_right rows columns taps tap_count run weights width from_copies bias channels relu",
)


@cache
def window_sums(rows: int, columns: int, vectors: int, lanes: int) -> Any:
    """Return the inlined function that computes one tile: a block of windows times some channels.

    Args:
        rows: R, windows one below the other.
        columns: P, windows side by side.
        vectors: V, vectors of channels.
        lanes: L, of a vector.
    """
    R, P, V, L = rows, columns, vectors, lanes
    RP = R * P

    @inline
    def tile(op, taps, x, x_down, x_right, w, b, y, y_down, y_right, left):
        t = repeat(RP, V, L, b)
        run, width = op.run, op.width
        for tap in range(op.tap_count):
            window = at(x, taps[tap])
            for k in range(run):
                t = outer_block(t, R, P, at(window, k), x_down, x_right, w)
                w = at(w, width)
        if op.relu:
            t = relu(t)
        store_block(t, R, P, y, y_down, y_right, left)

    return tile


@cache
def correlate_map(rows: int, columns: int, vectors: int, lanes: int) -> Any:
    """Return the inlined function correlate(op, work, x, y, y_down, y_right) for the windows of one image.

    Args:
        rows: R, windows one below the other, and
        columns: P, windows side by side; at most as many as the map has.
        vectors: V, vectors of channels.
        lanes: L, of a vector.
    """
    R, P, V, L = rows, columns, vectors, lanes
    tile = window_sums(R, P, V, L)

    @inline
    def correlate(op, work, x, y, y_down, y_right):
        taps = at(ints(work.tables), op.taps)
        w = at(floats(work.copies if op.from_copies else work.weights), op.weights)
        b = at(floats(work.weights), op.bias)
        rows, columns, channels, x_down, x_right = op.rows, op.columns, op.channels, op.x_down, op.x_right
        for n in range(0, channels, V * L):
            for top in range(0, rows, R):
                # The last tiles go back and compute some windows again, to the same values.
                row = min(top, rows - R)
                from_row, to_row = at(x, row * x_down), at(y, row * y_down + n)
                for start in range(0, columns, P):
                    column = min(start, columns - P)
                    window, pixel = at(from_row, column * x_right), at(to_row, column * y_right)
                    tile(op, taps, window, x_down, x_right, at(w, n), at(b, n), pixel, y_down, y_right, channels - n)

    return correlate


@cache
def correlate(rows: int, columns: int, vectors: int, lanes: int) -> Kernel:
    """Return the kernel of convolutions and their data gradients.

    Args:
        rows: R, windows one below the other, and
        columns: P, windows side by side; at most as many as the map has.
        vectors: V, vectors of channels.
        lanes: L, of a vector.
    """
    one_map = correlate_map(rows, columns, vectors, lanes)

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            one_map(op, work, at(frame, op.x), at(frame, op.y), op.y_down, op.y_right)

    return Kernel(f"correlate[{rows}x{columns}x{vectors}x{lanes}]", CORRELATE, body)


SCATTER = Record(
    "Scatter",
    """Operands of a data gradient that goes from windows to what they read, which pays on small maps without padding.

    dy: Gradient of the output, (rows, columns, run), one contiguous stretch.
    dx, dx_down, dx_right: Where the first window begins (before the taps), steps to the next row and column of windows.
    rows, columns, run, channels: Of the output, and channels of the input.
    taps, tap_count: Table of offsets in dx, one for each kernel cell.
    weights, width: Where w begins among the copies, and the distance of its rows: (tap_count run, width).
    map_size: Numbers of dx, which begins at dx, to be cleared.
    """,
    "dy dx dx_down dx_right rows columns run channels taps tap_count weights width map_size",
)


@cache
def scatter(windows: int, vectors: int, lanes: int) -> Kernel:
    """Return the kernel dx[window; t, k] += sum over n of dy[window, n] w[t, n, k].

    Args:
        windows: P, at once; it divides their number.
        vectors: V, vectors of channels.
        lanes: L, of a vector.
    """
    P, V, L = windows, vectors, lanes
    PV, VL = P * V, V * L

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        taps, sums, run, width, columns = (
            at(ints(work.tables), op.taps),
            floats(work.scratch),
            op.run,
            op.width,
            op.columns,
        )
        channels = op.channels
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            dx = at(frame, op.dx)
            for i in range(0, op.map_size, L):
                store(zeros(1, L), 1, at(dx, i), 0)
            for tap in range(op.tap_count):
                for k in range(0, channels, VL):
                    for first in range(0, op.rows * columns, P):
                        t, dy = zeros(PV, L), at(frame, op.dy + first * run)
                        w = at(floats(work.copies), op.weights + tap * run * width + k)
                        for n in range(run):
                            t = outer(t, P, at(dy, n), run, w)
                            w = at(w, width)
                        store(t, P, sums, VL)
                        for p in range(P):
                            row, column = (first + p) // columns, (first + p) % columns
                            to = at(dx, taps[tap] + row * op.dx_down + column * op.dx_right + k)
                            total = add(load(1, V, L, to, 0), load(1, V, L, at(sums, p * VL), 0))
                            store_part(total, 1, to, 0, channels - k)

    return Kernel(f"scatter[{windows}x{vectors}x{lanes}]", SCATTER, body)


@cache
def dense(images: int, vectors: int, lanes: int) -> Kernel:
    """Return the kernel of dense layers and their data gradients.

    Args:
        images: P, images side by side.
        vectors: V, vectors of outputs.
        lanes: L, of a vector.
    """
    P, V, L = images, vectors, lanes
    several, single = window_sums(1, P, V, L), window_sums(1, 1, V, L)

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        taps, step, count = at(ints(work.tables), op.taps), work.frame, work.last - work.first
        frames = at(floats(work.frames), work.first * step)
        x, y = at(frames, op.x), at(frames, op.y)
        w = at(floats(work.copies if op.from_copies else work.weights), op.weights)
        b = at(floats(work.weights), op.bias)
        for n in range(0, op.channels, V * L):
            left = op.channels - n
            image = 0
            while image < count:
                start = at(x, image * step)
                target = at(y, image * step + n)
                if image + P <= count:
                    several(op, taps, start, 0, step, at(w, n), at(b, n), target, 0, step, left)
                    image += P
                else:
                    single(op, taps, start, 0, step, at(w, n), at(b, n), target, 0, step, left)
                    image += 1

    return Kernel(f"dense[{images}x{vectors}x{lanes}]", CORRELATE, body)


@cache
def dense_rows(outputs: int, lanes: int) -> Kernel:
    """Return the kernel of dense layers for one image whose weights lie as (outputs, width): lanes are inputs.

    Args:
        outputs: R, outputs at once; at most L and as many as there are.
        lanes: L, of a vector.
    """
    R, L = outputs, lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        frame, inputs, width = floats(work.frames), op.run, op.width
        x, w = at(frame, op.x), at(floats(work.weights), op.weights)
        bias, y = at(floats(work.weights), op.bias), at(frame, op.y)
        for start in range(0, op.channels, R):
            n = min(start, op.channels - R)
            rows, t = at(w, n * width), zeros(R, L)
            for k in range(0, inputs, L):
                t = add_rows(t, load_part(1, 1, L, at(x, k), 0, inputs - k), at(rows, k), width)
            total = add(lane_sums(t), load(1, 1, L, at(bias, n), 0))
            if op.relu:
                total = relu(total)
            store_part(total, 1, at(y, n), 0, R)

    return Kernel(f"dense_rows[{outputs}x{lanes}]", CORRELATE, body)


@cache
def dense_one(vectors: int, lanes: int, ways: int) -> Kernel:
    """Return the kernel of dense layers for one image, summed in several ways at once so that no sum waits for itself.

    Args:
        vectors: V, vectors of outputs.
        lanes: L, of a vector.
        ways: W: input k belongs to sum k mod W.
    """
    V, L, W = vectors, lanes, ways
    WV = W * V

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        frame, run, width = floats(work.frames), op.run, op.width
        x, w = at(frame, op.x), at(floats(work.copies if op.from_copies else work.weights), op.weights)
        for n in range(0, op.channels, V * L):
            sums, weights, k = zeros(WV, L), at(w, n), 0
            while k + W <= run:
                sums = add_products(sums, W, at(x, k), 1, weights, width)
                weights = at(weights, W * width)
                k += W
            t = add(fold(sums, W), repeat(1, V, L, at(floats(work.weights), op.bias + n)))
            while k < run:
                t = outer(t, 1, at(x, k), 0, weights)
                weights = at(weights, width)
                k += 1
            if op.relu:
                t = relu(t)
            store_part(t, 1, at(frame, op.y + n), 0, op.channels - n)

    return Kernel(f"dense_one[{vectors}x{lanes}, {ways}]", CORRELATE, body)
