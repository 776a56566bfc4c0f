"""Group norm and layer norm: y = (x - mean) inverse weight + bias over sets of numbers of one image.

A set has a run of neighboring numbers in each pixel of rows and columns:

| norm                      | sets                    | pixels           | run                  | weights           |
|---------------------------|-------------------------|------------------|----------------------|-------------------|
| group norm of a map       | groups of channels      | all of the map   | channels of a group  | one for a channel |
| layer norm of a vector    | as many as fit into it  | one              | the set              | one for a number  |

With c = (x - mean) inverse and m numbers in a set, the way back is

    dweight = sum of dy c      dbias = sum of dy
    dx = inverse (dy weight - mean of dy weight - c (mean of dy weight c))

Each image leaves its dweight and dbias in its frame; those are added over the images like the gradient of a bias
(gradients.bias_gradient). Lanes are numbers of a run. The slow equivalents are functional.group_norm, layer_norm and
their backwards.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numba import carray

from pellucid.compiled.kernel import Kernel, inline
from pellucid.compiled.records import Record
from pellucid.compiled.simd import (
    add,
    at,
    fill,
    floats,
    load_part,
    multiply,
    multiply_add,
    store,
    store_part,
    subtract,
    zeros,
)

GROUP_NORM = Record(
    "GroupNorm",
    """Operands of a normalization over sets.

    x, x_down, y, y_down: Where input and output begin, and steps to the next row.
    dy, dy_down, dx, dx_down: The same of the gradients, which may be the same memory.
    rows, columns, right: Pixels of a set, and the step from one column to the next.
    sets, set_step, run: How many there are, the step from one to the next, numbers of a set in each pixel.
    weight, bias, weight_step: Where they lie among the parameters, and the step from one set's to the next's.
    length: How many there are of each.
    statistics: Where an image keeps mean and inverse of each set, in its frame.
    sums: Where it keeps its dweight and dbias, length numbers each.
    eps: As in the layer.
    """,
    "x x_down y y_down dy dy_down dx dx_down rows columns right sets set_step run weight bias weight_step length "
    "statistics sums",
    reals="eps",
)


@cache
def _lanes(lanes: int) -> tuple[Any, Any]:
    """Return the inlined functions total(scratch, t) and spread_out(scratch, value).

    The first adds the lanes of a vector, in float64; the second leaves a number L times in scratch, for load_part.

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    @inline
    def total(scratch, t):
        store(t, 1, scratch, 0)
        sum_of_lanes = 0.0
        for lane in range(L):
            sum_of_lanes += np.float64(scratch[lane])
        return sum_of_lanes

    @inline
    def spread_out(scratch, value):
        store(fill(1, L, np.float32(value)), 1, scratch, 0)

    return total, spread_out


@cache
def group_norm(lanes: int) -> Kernel:
    """Return the kernel of y.

    Args:
        lanes: L, of a vector.
    """
    L = lanes
    total, spread_out = _lanes(L)

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        scratch, run, right = floats(work.scratch), op.run, op.right
        count = np.float64(op.rows * op.columns * run)
        means = at(scratch, L)
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            statistics = at(frame, op.statistics)
            for number in range(op.sets):
                x, y = at(frame, op.x + number * op.set_step), at(frame, op.y + number * op.set_step)
                sums = zeros(1, L)
                for row in range(op.rows):
                    of_row = zeros(1, L)
                    for column in range(op.columns):
                        pixel = at(x, row * op.x_down + column * right)
                        for k in range(0, run, L):
                            of_row = add(of_row, load_part(1, 1, L, at(pixel, k), 0, run - k))
                    sums = add(sums, of_row)
                mean = total(scratch, sums) / count
                spread_out(means, mean)
                sums = zeros(1, L)
                for row in range(op.rows):
                    of_row = zeros(1, L)
                    for column in range(op.columns):
                        pixel = at(x, row * op.x_down + column * right)
                        for k in range(0, run, L):
                            left = run - k
                            value = load_part(1, 1, L, at(pixel, k), 0, left)
                            value = subtract(value, load_part(1, 1, L, means, 0, left))
                            of_row = multiply_add(value, value, of_row)
                    sums = add(sums, of_row)
                inverse = 1.0 / math.sqrt(total(scratch, sums) / count + op.eps)
                statistics[2 * number], statistics[2 * number + 1] = np.float32(mean), np.float32(inverse)
                middle, factor = fill(1, L, np.float32(mean)), fill(1, L, np.float32(inverse))
                weight = at(floats(work.weights), op.weight + number * op.weight_step)
                bias = at(floats(work.weights), op.bias + number * op.weight_step)
                for row in range(op.rows):
                    for column in range(op.columns):
                        pixel = at(x, row * op.x_down + column * right)
                        target = at(y, row * op.y_down + column * right)
                        for k in range(0, run, L):
                            left = run - k
                            value = subtract(load_part(1, 1, L, at(pixel, k), 0, left), middle)
                            w, b = load_part(1, 1, L, at(weight, k), 0, left), load_part(1, 1, L, at(bias, k), 0, left)
                            store_part(multiply_add(multiply(value, factor), w, b), 1, at(target, k), 0, left)

    return Kernel(f"group_norm[{lanes}]", GROUP_NORM, body)


@cache
def group_norm_gradient(lanes: int) -> Kernel:
    """Return the kernel of dx, and of each image's dweight and dbias.

    Args:
        lanes: L, of a vector.
    """
    L = lanes
    total, _ = _lanes(L)

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        scratch, run, right, length = floats(work.scratch), op.run, op.right, op.length
        count = np.float64(op.rows * op.columns * run)
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            statistics, own = at(frame, op.statistics), at(frame, op.sums)
            for i in range(2 * length):
                own[i] = np.float32(0)
            for number in range(op.sets):
                start, weights = number * op.set_step, number * op.weight_step
                x, dy, dx = at(frame, op.x + start), at(frame, op.dy + start), at(frame, op.dx + start)
                weight = at(floats(work.weights), op.weight + weights)
                middle, factor = fill(1, L, statistics[2 * number]), fill(1, L, statistics[2 * number + 1])
                plain, along = zeros(1, L), zeros(1, L)
                for k in range(0, run, L):
                    left, w = run - k, load_part(1, 1, L, at(weight, k), 0, run - k)
                    dweight, dbias = zeros(1, L), zeros(1, L)
                    for row in range(op.rows):
                        dweight_of_row, dbias_of_row = zeros(1, L), zeros(1, L)
                        for column in range(op.columns):
                            place = column * right + k
                            d = load_part(1, 1, L, at(dy, row * op.dy_down + place), 0, left)
                            c = subtract(load_part(1, 1, L, at(x, row * op.x_down + place), 0, left), middle)
                            dweight_of_row = multiply_add(d, multiply(c, factor), dweight_of_row)
                            dbias_of_row = add(dbias_of_row, d)
                        dweight, dbias = add(dweight, dweight_of_row), add(dbias, dbias_of_row)
                    plain, along = multiply_add(dbias, w, plain), multiply_add(dweight, w, along)
                    first, second = at(own, weights + k), at(own, length + weights + k)
                    store_part(add(load_part(1, 1, L, first, 0, left), dweight), 1, first, 0, left)
                    store_part(add(load_part(1, 1, L, second, 0, left), dbias), 1, second, 0, left)
                share = fill(1, L, np.float32(total(scratch, plain) / count))
                slope = fill(1, L, np.float32(total(scratch, along) / count))
                for row in range(op.rows):
                    for column in range(op.columns):
                        for k in range(0, run, L):
                            left, place = run - k, column * right + k
                            d = load_part(1, 1, L, at(dy, row * op.dy_down + place), 0, left)
                            d = multiply(d, load_part(1, 1, L, at(weight, k), 0, left))
                            c = subtract(load_part(1, 1, L, at(x, row * op.x_down + place), 0, left), middle)
                            d = subtract(subtract(d, share), multiply(multiply(c, factor), slope))
                            store_part(multiply(d, factor), 1, at(dx, row * op.dx_down + place), 0, left)

    return Kernel(f"group_norm_gradient[{lanes}]", GROUP_NORM, body)
