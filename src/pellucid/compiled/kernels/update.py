"""The optimizer's step over a block of parameters, the transposed copies, and the norms that clipping needs.

Formulas are those of pellucid.optim. A parameter is a matrix (taps, rows, width); a block is the same range of rows of
every tap, which lies in one piece for each tap. Padding at the end of a row starts as 0 and is updated too; no kernel
uses what becomes of it.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numba import carray

from pellucid.compiled.kernel import Kernel, inline
from pellucid.compiled.records import Record
from pellucid.compiled.simd import (
    add,
    at,
    divide,
    doubles,
    fill,
    floats,
    ints,
    load,
    load_part,
    multiply,
    spread,
    square_root,
    store,
    store_part,
    subtract,
    transpose,
    zeros,
)

UPDATE = Record(
    "Update",
    """Operands of an optimizer's step.

    weights, taps, rows, width: Where the parameter begins, and its shape.
    part: Which partial sum of squares belongs to this block, for clipping.
    layers, layer_count: Table of each layer's first part, one more at the end; for clipping.
    decay: Weight decay.
    momentum: Of SGD and RMSprop.
    beta1, beta2, eps: Of Adam; beta2 is RMSprop's alpha.
    clip, layer_clip: Largest norms of all gradients and of each layer's; infinity for none.
    """,
    "weights taps rows width part layers layer_count",
    reals="decay momentum beta1 beta2 eps clip layer_clip",
)

TRANSPOSE = Record(
    "Transpose",
    """Operands of a transposed copy: from (taps, rows, width) to (taps, columns, copy_width).

    weights, taps, rows, columns, width: The parameter; columns of each row's width are in use.
    from_copies: Whether weights lies among the copies too.
    copy, copy_width: Where the copy begins among the copies, and the length of its rows.
    order: Table: which tap of the copy each tap becomes.
    """,
    "weights taps rows columns width from_copies copy copy_width order",
)

RANK_ONE = Record(
    "RankOne",
    """Operands of a dense layer's step after one image, whose gradient is x dy.

    x, dy: Input and gradient of the output, in the frame.
    weights, inputs, outputs, width: The weight, (outputs, width).
    bias: The bias; -1 where there is none.
    decay: Weight decay.
    """,
    "x dy weights inputs outputs width bias",
    reals="decay",
)


KINDS = ("sgd", "momentum", "nesterov", "rmsprop", "rmsprop_momentum", "adam", "adamw")


@inline
def _clipping(op, statistics, tables):
    """Return what the gradients of this block are multiplied by: limit / norm, of its layer and of all layers."""
    factor, total = 1.0, 0.0
    for layer in range(op.layer_count):
        begin, end = np.int64(tables[op.layers + layer]), np.int64(tables[op.layers + layer + 1])
        squares = 0.0
        for part in range(begin, end):
            squares += statistics[part]
        norm = math.sqrt(squares)
        if norm > op.layer_clip:
            if begin <= op.part < end:
                factor = op.layer_clip / norm
            norm = op.layer_clip
        total += norm * norm
    norm = math.sqrt(total)
    return factor * (op.clip / norm) if norm > op.clip else factor


@cache
def squares() -> Kernel:
    """Return the kernel that adds up the squares of a block of gradients, for clipping."""

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        total = 0.0
        for tap in range(op.taps):
            start = op.weights + (tap * op.rows + work.first) * op.width
            g = at(floats(work.gradients), start)
            for i in range((work.last - work.first) * op.width):
                total += np.float64(g[i]) * np.float64(g[i])
        at(doubles(work.statistics), op.part)[0] = total

    return Kernel("squares", UPDATE, body)


@cache
def update(kind: str, lanes: int, clips: bool) -> Kernel:
    """Return the kernel of an optimizer's step.

    Args:
        kind: One of KINDS.
        lanes: L, of a vector.
        clips: Whether gradients are clipped first.
    """
    L = lanes
    momentum, nesterov, rmsprop = kind in ("momentum", "nesterov"), kind == "nesterov", kind.startswith("rmsprop")
    collects, adam, adamw = kind == "rmsprop_momentum", kind in ("adam", "adamw"), kind == "adamw"
    first, second = kind != "sgd", kind in ("rmsprop_momentum", "adam", "adamw")

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        factor = fill(1, L, np.float32(1))
        if clips:
            clipped = _clipping(op, doubles(work.statistics), ints(work.tables))
            factor = fill(1, L, np.float32(clipped))
        decay = fill(1, L, np.float32(op.decay))
        rate = fill(1, L, np.float32(work.rate))
        kept, eps = fill(1, L, np.float32(op.momentum)), fill(1, L, np.float32(op.eps))
        beta1, rest1 = fill(1, L, np.float32(op.beta1)), fill(1, L, np.float32(1.0 - op.beta1))
        beta2, rest2 = fill(1, L, np.float32(op.beta2)), fill(1, L, np.float32(1.0 - op.beta2))
        adam_rate = fill(1, L, np.float32(work.rate * work.correction1))
        correction2 = fill(1, L, np.float32(work.correction2))
        shrink = fill(1, L, np.float32(1.0 - work.rate * op.decay))
        for tap in range(op.taps):
            start = op.weights + (tap * op.rows + work.first) * op.width
            length = (work.last - work.first) * op.width
            ws, gs = at(floats(work.weights), start), at(floats(work.gradients), start)
            ms, vs = at(floats(work.memory1), start), at(floats(work.memory2), start)
            for i in range(0, length, L):
                left = length - i
                w, g = load_part(1, 1, L, at(ws, i), 0, left), load_part(1, 1, L, at(gs, i), 0, left)
                m, v = w, w
                if first:
                    m = load_part(1, 1, L, at(ms, i), 0, left)
                if second:
                    v = load_part(1, 1, L, at(vs, i), 0, left)
                if clips:
                    g = multiply(g, factor)
                if adamw:
                    w = multiply(w, shrink)
                elif op.decay != 0.0:
                    g = add(g, multiply(decay, w))
                step = multiply(rate, g)
                if momentum:
                    m = add(multiply(kept, m), g)
                    step = multiply(rate, add(g, multiply(kept, m)) if nesterov else m)
                if rmsprop:
                    m = add(multiply(beta2, m), multiply(rest2, multiply(g, g)))
                    step = divide(g, add(square_root(m), eps))
                    if collects:
                        v = add(multiply(kept, v), step)
                        step = v
                    step = multiply(rate, step)
                if adam:
                    m = add(multiply(beta1, m), multiply(rest1, g))
                    v = add(multiply(beta2, v), multiply(rest2, multiply(g, g)))
                    step = divide(multiply(adam_rate, m), add(multiply(square_root(v), correction2), eps))
                store_part(subtract(w, step), 1, at(ws, i), 0, left)
                if first:
                    store_part(m, 1, at(ms, i), 0, left)
                if second:
                    store_part(v, 1, at(vs, i), 0, left)

    return Kernel(f"update[{kind}, {lanes}{', clips' if clips else ''}]", UPDATE, body)


@cache
def transposed(lanes: int) -> Kernel:
    """Return the kernel that writes a block's rows as columns of the copy.

    Args:
        lanes: L: blocks of L x L numbers go through registers, what is left goes one by one.
    """
    L = lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        columns, width, copy_width = op.columns, op.width, op.copy_width
        source = floats(work.copies if op.from_copies else work.weights)
        for tap in range(op.taps):
            w = at(source, op.weights + tap * op.rows * width)
            target = np.int64(at(ints(work.tables), op.order)[tap])
            copy = at(floats(work.copies), op.copy + target * columns * copy_width)
            row = work.first
            while row < work.last:
                column = 0
                if row + L <= work.last:
                    while column + L <= columns:
                        block = transpose(load(L, 1, L, at(w, row * width + column), width))
                        store(block, L, at(copy, column * copy_width + row), copy_width)
                        column += L
                    rows = L
                else:
                    rows = work.last - row
                for i in range(row, row + rows):
                    for j in range(column, columns):
                        copy[j * copy_width + i] = w[i * width + j]
                row += rows

    return Kernel(f"transposed[{lanes}]", TRANSPOSE, body)


@cache
def rank_one(lanes: int) -> Kernel:
    """Return the kernel of plain SGD after one image: gradient and step of a dense layer as one, to the same bits.

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    @inline
    def step(w, width, a, b, rate, decay, count):
        """Step a vector of each of four rows from w on, whose gradients are a[r] b; count numbers of each."""
        old = load(4, 1, L, w, width)
        g = add(spread(zeros(4, L), 4, a, 1, b), multiply(decay, old))
        store_part(subtract(old, multiply(rate, g)), 4, w, width, count)

    @inline
    def step_one(w, a, b, rate, decay, count):
        """Step count numbers of the vector at w, whose gradient is a b."""
        old = load(1, 1, L, w, 0)
        g = add(spread(zeros(1, L), 1, a, 0, b), multiply(decay, old))
        store_part(subtract(old, multiply(rate, g)), 1, w, 0, count)

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        rate, decay = fill(1, L, np.float32(work.rate)), fill(1, L, np.float32(op.decay))
        rates, decays = fill(4, L, np.float32(work.rate)), fill(4, L, np.float32(op.decay))
        width, outputs, left = op.width, op.outputs, op.outputs % 4
        x, dy = at(floats(work.frames), op.x), at(floats(work.frames), op.dy)
        for k in range(0, op.inputs, L):
            count = op.inputs - k  # what fills up a row stays 0, even where a gradient is infinite
            numbers = load_part(1, 1, L, at(x, k), 0, count)
            w = at(floats(work.weights), op.weights + k)
            for n in range(0, outputs - left, 4):
                step(at(w, n * width), width, at(dy, n), numbers, rates, decays, count)
            for n in range(outputs - left, outputs):
                step_one(at(w, n * width), at(dy, n), numbers, rate, decay, count)
        if op.bias >= 0:
            b = at(floats(work.weights), op.bias)
            for n in range(0, outputs, L):
                old, g = load_part(1, 1, L, at(b, n), 0, outputs - n), load_part(1, 1, L, at(dy, n), 0, outputs - n)
                g = add(g, multiply(decay, old))
                store_part(subtract(old, multiply(rate, g)), 1, at(b, n), 0, outputs - n)

    return Kernel(f"rank_one[{lanes}]", RANK_ONE, body)
