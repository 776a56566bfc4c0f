"""Batch norm: y = (x - mean) scale + bias for each channel, with scale = weight / sqrt(var + eps).

In training mean and var are the batch's. Each image gives its own mean and sum of squared deviations (moments); then
they are combined in the order of the images (Chan, Golub, LeVeque: Updating formulae, 1979):

    mean = sum of mean_i / N            var = (sum of deviations_i + pixels x sum of (mean_i - mean)^2) / (N pixels)

Likewise on the way back: with m = N pixels, each image gives sums of dy and of dy (x - mean), which add up to

    dbias = sum of dy,    dweight = sum of dy (x - mean) / sqrt(var + eps)
    dx = scale (dy - dbias / m - (x - mean) dweight / (m sqrt(var + eps)))

So the only thing that images share are a few numbers for each channel, added in a fixed order by one thread.
Lanes are channels. The slow equivalent is functional.batch_norm and its backward.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numba import carray

from pellucid.compiled.kernel import Kernel
from pellucid.compiled.records import Record
from pellucid.compiled.simd import (
    add,
    at,
    fill,
    floats,
    load_part,
    multiply,
    multiply_add,
    relu,
    store_part,
    subtract,
    zeros,
)

NORM = Record(
    "Norm",
    """Operands of batch norm.

    x, x_down, y, y_down: Where input and output begin, and steps to the next row; columns lie channels apart.
    dy, dy_down, dx, dx_down: The same of the gradients, which may be the same memory.
    rows, columns, channels: Of the map.
    weight, bias: Where they lie among the parameters, and their gradients among the gradients.
    affine: Whether there are gradients of both.
    mean, scale: Vectors among the buffers: of the batch in training, of the running values in prediction.
    inverse, share, slope: Vectors among the buffers: 1 / sqrt(var + eps), dbias / m, dweight / (m sqrt(var + eps)).
    var: Vector among the buffers: the batch's variance.
    running_mean, running_var, count: Among the buffers.
    sums: Where an image keeps its own two numbers for each channel, in its frame.
    relu: Whether negative outputs become 0.
    adds: 1 where gradients are added to those of another place of the same layer.
    eps, momentum: As in the layer; momentum -1 averages all batches evenly.
    """,
    "x x_down y y_down dy dy_down dx dx_down rows columns channels weight bias affine mean scale inverse share slope "
    "var running_mean running_var count sums relu adds",
    reals="eps momentum",
)


@cache
def normalize(lanes: int) -> Kernel:
    """Return the kernel of y = (x - mean) scale + bias.

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        channels, as_relu, buffers = op.channels, op.relu, floats(work.buffers)
        for n in range(0, channels, L):
            left = channels - n
            mean = load_part(1, 1, L, at(buffers, op.mean + n), 0, left)
            scale = load_part(1, 1, L, at(buffers, op.scale + n), 0, left)
            bias = load_part(1, 1, L, at(floats(work.weights), op.bias + n), 0, left)
            for image in range(work.first, work.last):
                frame = at(floats(work.frames), image * work.frame)
                for row in range(op.rows):
                    x, y = at(frame, op.x + row * op.x_down + n), at(frame, op.y + row * op.y_down + n)
                    for column in range(op.columns):
                        value = load_part(1, 1, L, at(x, column * channels), 0, left)
                        value = multiply_add(subtract(value, mean), scale, bias)
                        if as_relu:
                            value = relu(value)
                        store_part(value, 1, at(y, column * channels), 0, left)

    return Kernel(f"normalize[{lanes}]", NORM, body)


@cache
def moments(lanes: int) -> Kernel:
    """Return the kernel of each image's means and squared deviations.

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        channels, share = op.channels, fill(1, L, np.float32(1) / np.float32(op.rows * op.columns))
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            for n in range(0, channels, L):
                left = channels - n
                mean, deviations = zeros(1, L), zeros(1, L)
                for row in range(op.rows):
                    x, total = at(frame, op.x + row * op.x_down + n), zeros(1, L)
                    for column in range(op.columns):
                        total = add(total, load_part(1, 1, L, at(x, column * channels), 0, left))
                    mean = add(mean, total)
                mean = multiply(mean, share)
                for row in range(op.rows):
                    x, total = at(frame, op.x + row * op.x_down + n), zeros(1, L)
                    for column in range(op.columns):
                        value = subtract(load_part(1, 1, L, at(x, column * channels), 0, left), mean)
                        total = multiply_add(value, value, total)
                    deviations = add(deviations, total)
                store_part(mean, 1, at(frame, op.sums + n), 0, left)
                store_part(deviations, 1, at(frame, op.sums + channels + n), 0, left)

    return Kernel(f"moments[{lanes}]", NORM, body)


@cache
def combine_moments() -> Kernel:
    """Return the kernel that makes the batch's mean and scale; its blocks are channels."""

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        channels, batch, pixels = op.channels, work.batch, op.rows * op.columns
        own, frame = at(floats(work.frames), op.sums), work.frame
        buffers, weights = floats(work.buffers), floats(work.weights)
        for n in range(work.first, work.last):
            mean, deviations, spread = 0.0, 0.0, 0.0
            for image in range(batch):
                mean += np.float64(own[image * frame + n])
            mean /= batch
            for image in range(batch):
                difference = np.float64(own[image * frame + n]) - mean
                spread += difference * difference
                deviations += np.float64(own[image * frame + channels + n])
            var = (deviations + pixels * spread) / (batch * pixels)
            inverse = 1.0 / math.sqrt(var + op.eps)
            buffers[op.mean + n] = np.float32(mean)
            buffers[op.var + n] = np.float32(var)
            buffers[op.inverse + n] = np.float32(inverse)
            buffers[op.scale + n] = np.float32(np.float64(weights[op.weight + n]) * inverse)

    return Kernel("combine_moments", NORM, body)


@cache
def gradient_sums(lanes: int) -> Kernel:
    """Return the kernel of each image's sums of dy and of dy (x - mean).

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        channels = op.channels
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            for n in range(0, channels, L):
                left = channels - n
                mean = load_part(1, 1, L, at(floats(work.buffers), op.mean + n), 0, left)
                plain, weighted = zeros(1, L), zeros(1, L)
                for row in range(op.rows):
                    x, dy = at(frame, op.x + row * op.x_down + n), at(frame, op.dy + row * op.dy_down + n)
                    row_plain, row_weighted = zeros(1, L), zeros(1, L)
                    for column in range(op.columns):
                        d = load_part(1, 1, L, at(dy, column * channels), 0, left)
                        value = subtract(load_part(1, 1, L, at(x, column * channels), 0, left), mean)
                        row_plain, row_weighted = add(row_plain, d), multiply_add(d, value, row_weighted)
                    plain, weighted = add(plain, row_plain), add(weighted, row_weighted)
                store_part(plain, 1, at(frame, op.sums + n), 0, left)
                store_part(weighted, 1, at(frame, op.sums + channels + n), 0, left)

    return Kernel(f"gradient_sums[{lanes}]", NORM, body)


@cache
def combine_gradients() -> Kernel:
    """Return the kernel of dweight, dbias and what dx needs; its blocks are channels."""

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        channels, batch, values = op.channels, work.batch, work.batch * op.rows * op.columns
        own, frame = at(floats(work.frames), op.sums), work.frame
        buffers, gradients = floats(work.buffers), floats(work.gradients)
        for n in range(work.first, work.last):
            plain, weighted = 0.0, 0.0
            for image in range(batch):
                plain += np.float64(own[image * frame + n])
                weighted += np.float64(own[image * frame + channels + n])
            inverse = np.float64(buffers[op.inverse + n])
            weighted *= inverse
            buffers[op.share + n] = np.float32(plain / values)
            buffers[op.slope + n] = np.float32(weighted * inverse / values)
            if op.affine:
                if op.adds:
                    weighted += np.float64(gradients[op.weight + n])
                    plain += np.float64(gradients[op.bias + n])
                gradients[op.weight + n] = np.float32(weighted)
                gradients[op.bias + n] = np.float32(plain)

    return Kernel("combine_gradients", NORM, body)


@cache
def normalize_gradient(lanes: int) -> Kernel:
    """Return the kernel of dx.

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        channels, buffers = op.channels, floats(work.buffers)
        for n in range(0, channels, L):
            left = channels - n
            mean = load_part(1, 1, L, at(buffers, op.mean + n), 0, left)
            scale = load_part(1, 1, L, at(buffers, op.scale + n), 0, left)
            share = load_part(1, 1, L, at(buffers, op.share + n), 0, left)
            slope = load_part(1, 1, L, at(buffers, op.slope + n), 0, left)
            for image in range(work.first, work.last):
                frame = at(floats(work.frames), image * work.frame)
                for row in range(op.rows):
                    x, dy = at(frame, op.x + row * op.x_down + n), at(frame, op.dy + row * op.dy_down + n)
                    dx = at(frame, op.dx + row * op.dx_down + n)
                    for column in range(op.columns):
                        value = subtract(load_part(1, 1, L, at(x, column * channels), 0, left), mean)
                        d = subtract(load_part(1, 1, L, at(dy, column * channels), 0, left), share)
                        d = multiply(subtract(d, multiply(value, slope)), scale)
                        store_part(d, 1, at(dx, column * channels), 0, left)

    return Kernel(f"normalize_gradient[{lanes}]", NORM, body)


@cache
def update_running() -> Kernel:
    """Return the kernel that moves the running values towards the batch's."""

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        buffers, values = floats(work.buffers), np.float64(work.batch * op.rows * op.columns)
        momentum = op.momentum if op.momentum >= 0 else 1.0 / (np.float64(buffers[op.count]) + 1.0)
        for n in range(op.channels):
            mean, var = np.float64(buffers[op.running_mean + n]), np.float64(buffers[op.running_var + n])
            unbiased = np.float64(buffers[op.var + n]) * values / (values - 1.0)
            buffers[op.running_mean + n] = np.float32((1.0 - momentum) * mean + momentum * buffers[op.mean + n])
            buffers[op.running_var + n] = np.float32((1.0 - momentum) * var + momentum * unbiased)
        buffers[op.count] += np.float32(1)

    return Kernel("update_running", NORM, body)
