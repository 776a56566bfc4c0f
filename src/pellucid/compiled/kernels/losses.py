"""Softmax and losses: few numbers an image, computed in float64.

The loss of a batch is the sum over images of what is stored in losses, divided by the work's divisor, which is known
before the step (number of images, of elements, or the sum of the targets' class weights). Each kernel also writes the
gradient by the network's output. The slow equivalents are in functional.loss and functional.activation.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numba import carray

from pellucid.compiled.kernel import Kernel
from pellucid.compiled.records import Record
from pellucid.compiled.simd import at, doubles, floats, longs

SOFTMAX = Record(
    "Softmax",
    """Operands of softmax along one axis, and of its gradient.

    x, y: Where input and output begin; of the gradient, x stands for dy, which dx replaces.
    size, outer, inner: Lengths of the axis, and of the other two.
    x_step, x_outer, x_inner, y_step, y_outer, y_inner: Distances of neighbors along each of them.
    """,
    "x y size outer inner x_step x_outer x_inner y_step y_outer y_inner",
)

LOSS = Record(
    "Loss",
    """Operands of a loss.

    x, x_down, dx, dx_down: Output of the network and the gradient by it: where they begin, step to the next row.
    rows, columns, channels: Of the output.
    labels: 1 where targets are labels (int64), 0 where they are float32 of the output's shape, channels first.
    class_weights: Of cross-entropy: vector among the buffers.
    smoothing: Of cross-entropy.
    """,
    "x x_down dx dx_down rows columns channels labels class_weights",
    reals="smoothing",
)


@cache
def softmax() -> Kernel:
    """Return the kernel y = exp(x) / sum of exp(x)."""

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        size, x_step, y_step = op.size, op.x_step, op.y_step
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            for i in range(op.outer):
                for j in range(op.inner):
                    x = at(frame, op.x + i * op.x_outer + j * op.x_inner)
                    y = at(frame, op.y + i * op.y_outer + j * op.y_inner)
                    largest, total = x[0], 0.0
                    for k in range(1, size):
                        if x[k * x_step] > largest or x[k * x_step] != x[k * x_step]:
                            largest = x[k * x_step]
                    for k in range(size):
                        total += math.exp(np.float64(x[k * x_step] - largest))
                    for k in range(size):
                        y[k * y_step] = np.float32(math.exp(np.float64(x[k * x_step] - largest)) / total)

    return Kernel("softmax", SOFTMAX, body)


@cache
def softmax_gradient() -> Kernel:
    """Return the kernel dx = y (dy - sum of dy y), in the place of dy."""

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        size, x_step, y_step = op.size, op.x_step, op.y_step
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            for i in range(op.outer):
                for j in range(op.inner):
                    dy = at(frame, op.x + i * op.x_outer + j * op.x_inner)
                    y = at(frame, op.y + i * op.y_outer + j * op.y_inner)
                    total = 0.0
                    for k in range(size):
                        total += np.float64(dy[k * x_step]) * np.float64(y[k * y_step])
                    for k in range(size):
                        dy[k * x_step] = np.float32(np.float64(y[k * y_step]) * (np.float64(dy[k * x_step]) - total))

    return Kernel("softmax_gradient", SOFTMAX, body)


@cache
def cross_entropy() -> Kernel:
    """Return the kernel of cross-entropy: loss -sum of q log p, gradient (p sum of q - q) / divisor.

    q = w ((1 - smoothing) share + smoothing / K), where share is 1 at the label, or the row of float targets.
    """

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        classes, weights = op.channels, at(floats(work.buffers), op.class_weights)
        spread, factor = op.smoothing / classes, 1.0 / work.divisor if work.divisor else 1.0
        losses, hits, order, labels = doubles(work.losses), longs(work.hits), longs(work.order), longs(work.targets)
        exponentials = doubles(work.scratch)
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            x, dx = at(frame, op.x), at(frame, op.dx)
            sample = order[work.sample + image]
            label = labels[sample] if op.labels else -1
            shares = at(floats(work.targets), sample * classes if op.labels == 0 else 0)
            largest, best, total = x[0], 0, 0.0
            for k in range(1, classes):
                if x[k] > largest or (x[k] != x[k] and largest == largest):
                    largest, best = x[k], k
            for k in range(classes):
                exponentials[k] = math.exp(np.float64(x[k]) - np.float64(largest))
                total += exponentials[k]
            shift = math.log(total) + np.float64(largest)
            loss, mass = 0.0, 0.0
            for k in range(classes):
                share = (1.0 if k == label else 0.0) if op.labels else np.float64(shares[k])
                q = np.float64(weights[k]) * ((1.0 - op.smoothing) * share + spread)
                mass += q
                if q != 0.0:
                    loss -= q * (np.float64(x[k]) - shift)
            for k in range(classes):
                share = (1.0 if k == label else 0.0) if op.labels else np.float64(shares[k])
                q = np.float64(weights[k]) * ((1.0 - op.smoothing) * share + spread)
                dx[k] = np.float32((exponentials[k] / total * mass - q) * factor)
            losses[image] = loss
            hits[image] = 1 if best == label else 0

    return Kernel("cross_entropy", LOSS, body)


@cache
def elementwise_loss(name: str) -> Kernel:
    """Return the kernel of a loss that is a mean over all elements.

    Args:
        name: "mse": (x - t)^2; "bce": max(x, 0) - x t + log(1 + exp(-|x|)), the cross-entropy of sigmoid(x).
    """
    squared = name == "mse"

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        rows, columns, channels, factor = op.rows, op.columns, op.channels, 1.0 / work.divisor
        losses, hits, order = doubles(work.losses), longs(work.hits), longs(work.order)
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            target = at(floats(work.targets), order[work.sample + image] * rows * columns * channels)
            loss = 0.0
            for row in range(rows):
                for column in range(columns):
                    x = at(frame, op.x + row * op.x_down + column * channels)
                    dx = at(frame, op.dx + row * op.dx_down + column * channels)
                    for n in range(channels):
                        value, wanted = np.float64(x[n]), np.float64(target[(n * rows + row) * columns + column])
                        if squared:
                            loss += (value - wanted) * (value - wanted)
                            slope = 2.0 * (value - wanted)
                        else:
                            loss += (0.0 if value < 0.0 else value) - value * wanted
                            loss += math.log1p(math.exp(-abs(value)))
                            slope = 1.0 / (1.0 + math.exp(-value)) - wanted
                        dx[n] = np.float32(slope * factor)
            losses[image] = loss
            hits[image] = 0

    return Kernel(name, LOSS, body)
