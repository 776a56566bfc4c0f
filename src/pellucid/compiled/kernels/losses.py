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

from pellucid.compiled.kernel import Kernel, inline
from pellucid.compiled.records import Record
from pellucid.compiled.simd import at, doubles, floats, longs

SOFTMAX = Record(
    "Softmax",
    """Operands of softmax or its logarithm along one axis, and of the gradients.

    x, y: Where input and output begin; of a gradient, x stands for dy, which dx replaces.
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
    class_weights: Of losses of labels: vector among the buffers.
    weights, positive: Of a weighted loss of elements: vectors among the buffers, channels first: the weight of each
        element, and of what is there in it.
    smoothing: Of cross-entropy.
    bend: Of Huber's loss: where the parabola becomes a line.
    """,
    "x x_down dx dx_down rows columns channels labels class_weights weights positive",
    reals="smoothing bend",
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
def log_softmax() -> Kernel:
    """Return the kernel y = x - log of the sum of exp(x)."""

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
                        total += math.exp(np.float64(x[k * x_step]) - np.float64(largest))
                    shift = math.log(total)
                    for k in range(size):
                        y[k * y_step] = np.float32(np.float64(x[k * x_step]) - np.float64(largest) - shift)

    return Kernel("log_softmax", SOFTMAX, body)


@cache
def log_softmax_gradient() -> Kernel:
    """Return the kernel dx = dy - exp(y) (sum of dy), in the place of dy."""

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
                        total += np.float64(dy[k * x_step])
                    for k in range(size):
                        share = math.exp(np.float64(y[k * y_step]))
                        dy[k * x_step] = np.float32(np.float64(dy[k * x_step]) - share * total)

    return Kernel("log_softmax_gradient", SOFTMAX, body)


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
def nll() -> Kernel:
    """Return the kernel of the loss -w x at the label."""

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        classes, weights = op.channels, at(floats(work.buffers), op.class_weights)
        factor = 1.0 / work.divisor if work.divisor else 1.0
        losses, hits, order, labels = doubles(work.losses), longs(work.hits), longs(work.order), longs(work.targets)
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            x, dx = at(frame, op.x), at(frame, op.dx)
            label = labels[order[work.sample + image]]
            largest, best = x[0], 0
            for k in range(1, classes):
                if x[k] > largest or (x[k] != x[k] and largest == largest):
                    largest, best = x[k], k
            for k in range(classes):
                dx[k] = np.float32(0)
            weight = np.float64(weights[label])
            dx[label] = np.float32(-weight * factor)
            losses[image] = -weight * np.float64(x[label]) if weight != 0.0 else 0.0
            hits[image] = 1 if best == label else 0

    return Kernel("nll", LOSS, body)


# Losses of elements: each returns (loss, slope) for output x and target t; positive weighs what is there.


@inline
def _mse(x, t, bend, positive):
    return (x - t) * (x - t), 2.0 * (x - t)


@inline
def _l1(x, t, bend, positive):
    d = x - t
    return abs(d), 1.0 if d > 0.0 else -1.0 if d < 0.0 else d


@inline
def _huber(x, t, bend, positive):
    d = x - t
    loss = d * d / 2.0 if abs(d) < bend else bend * (abs(d) - bend / 2.0)
    return loss, bend if d > bend else -bend if d < -bend else d


@inline
def _smooth_l1(x, t, bend, positive):
    loss, slope = _huber(x, t, bend, positive)
    return loss / bend, slope / bend


@inline
def _bce(x, t, bend, positive):
    loss = (0.0 if x < 0.0 else x) - x * t
    loss += math.log1p(math.exp(-abs(x)))
    return loss, 1.0 / (1.0 + math.exp(-x)) - t


@inline
def _weighted_bce(x, t, bend, positive):
    rest, there = math.log1p(math.exp(-abs(x))), t * positive
    loss = (1.0 - t) * ((0.0 if x < 0.0 else x) + rest) + there * ((0.0 if x > 0.0 else -x) + rest)
    return loss, (1.0 - t + there) / (1.0 + math.exp(-x)) - there


@inline
def _bce_of_probabilities(x, t, bend, positive):
    log_p, log_rest, divisor = math.log(x), math.log1p(-x), x * (1.0 - x)
    log_p = -100.0 if log_p < -100.0 else log_p
    log_rest = -100.0 if log_rest < -100.0 else log_rest
    return -t * log_p - (1.0 - t) * log_rest, (x - t) / (1e-12 if divisor < 1e-12 else divisor)


ELEMENTWISE = {
    "mse": _mse,
    "l1": _l1,
    "huber": _huber,
    "smooth_l1": _smooth_l1,
    "bce": _bce,
    "weighted_bce": _weighted_bce,
    "bce_of_probabilities": _bce_of_probabilities,
}


@cache
def elementwise_loss(name: str, weighted: bool = False) -> Kernel:
    """Return the kernel of a loss that is a sum over all elements.

    Args:
        name: One of ELEMENTWISE; "bce" and "weighted_bce" take logits.
        weighted: Whether elements have weights.
    """
    term = ELEMENTWISE[name]

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        rows, columns, channels, factor = op.rows, op.columns, op.channels, 1.0 / work.divisor
        losses, hits, order = doubles(work.losses), longs(work.hits), longs(work.order)
        weights, positive = at(floats(work.buffers), op.weights), at(floats(work.buffers), op.positive)
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            target = at(floats(work.targets), order[work.sample + image] * rows * columns * channels)
            total = 0.0
            for row in range(rows):
                for column in range(columns):
                    x = at(frame, op.x + row * op.x_down + column * channels)
                    dx = at(frame, op.dx + row * op.dx_down + column * channels)
                    for n in range(channels):
                        i = (n * rows + row) * columns + column
                        there = np.float64(positive[i]) if weighted else 1.0
                        loss, slope = term(np.float64(x[n]), np.float64(target[i]), op.bend, there)
                        if weighted:
                            loss, slope = loss * np.float64(weights[i]), slope * np.float64(weights[i])
                        total += loss
                        dx[n] = np.float32(slope * factor)
            losses[image] = total
            hits[image] = 0

    return Kernel(f"{name}{'[weighted]' if weighted else ''}", LOSS, body)
