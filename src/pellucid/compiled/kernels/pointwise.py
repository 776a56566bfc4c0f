"""What happens number by number: activations, dropout, sums, copies.

    y[i] = f(a[i])        y[i] = a[i] + b[i]        dx[i] = f'(...) dy[i]

for the numbers i of a row of a map (columns times channels); rows lie a step apart. The loops are the formulas; where
LLVM would not make vectors of them by itself, they are written in vectors.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numba import carray

from pellucid.compiled.kernel import Kernel, inline
from pellucid.compiled.records import Record
from pellucid.compiled.simd import add, at, floats, load_part, longs, relu, store_part, where_positive, zeros
from pellucid.random import GOLDEN

POINTWISE = Record(
    "Pointwise",
    """Operands: y = f(a) or f(a, b), and gradients dy -> f'(...) dy in place.

    a, a_down, b, b_down, y, y_down: Where each begins, and the step to its next row.
    rows, length: Of the map; length is columns times channels.
    channels: Numbers of one pixel.
    key: Of dropout: which of the step's keys.
    p, scale, slope: Share that is dropped, 1 / (1 - p), and the slope of LeakyReLU on the left.
    """,
    "a a_down b b_down y y_down rows length channels key",
    reals="p scale slope",
)

_GOLDEN = np.uint64(GOLDEN)


@inline
def _relu(x, slope):
    return np.float32(0) if x <= 0 else x


@inline
def _leaky_relu(x, slope):
    return x * slope if x <= 0 else x


@inline
def _sigmoid(x, slope):
    return np.float32(1.0 / (1.0 + math.exp(-np.float64(x))))


@inline
def _tanh(x, slope):
    return np.float32(math.tanh(np.float64(x)))


# Derivatives: of LeakyReLU by its input, of the others by their output.
@inline
def _leaky_relu_slope(x, slope):
    return np.float32(1) if x > 0 else slope


@inline
def _sigmoid_slope(y, slope):
    return y * (np.float32(1) - y)


@inline
def _tanh_slope(y, slope):
    return np.float32(1) - y * y


FUNCTIONS = {"relu": _relu, "leaky_relu": _leaky_relu, "sigmoid": _sigmoid, "tanh": _tanh}
_SLOPES = {"leaky_relu": _leaky_relu_slope, "sigmoid": _sigmoid_slope, "tanh": _tanh_slope}


@cache
def activation(name: str) -> Kernel:
    """Return the kernel y = f(a).

    Args:
        name: One of FUNCTIONS.
    """
    f = FUNCTIONS[name]

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        length, slope = op.length, np.float32(op.slope)
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            for row in range(op.rows):
                a, y = at(frame, op.a + row * op.a_down), at(frame, op.y + row * op.y_down)
                for i in range(length):
                    y[i] = f(a[i], slope)

    return Kernel(name, POINTWISE, body)


@cache
def activation_gradient(name: str) -> Kernel:
    """Return the kernel y = b f'(a): b is dy, y is dx (which may be the same memory); a is what the derivative takes.

    Args:
        name: One of FUNCTIONS but "relu", which has relu_gradient.
    """
    derivative = _SLOPES[name]

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        length, slope = op.length, np.float32(op.slope)
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            for row in range(op.rows):
                a, b = at(frame, op.a + row * op.a_down), at(frame, op.b + row * op.b_down)
                y = at(frame, op.y + row * op.y_down)
                for i in range(length):
                    y[i] = b[i] * derivative(a[i], slope)

    return Kernel(f"{name}_gradient", POINTWISE, body)


def _in_vectors(name: str, lanes: int, combine: Any) -> Kernel:
    """Return the kernel y = combine(a, b), vector by vector.

    Args:
        name: Of the kernel.
        lanes: L, of a vector.
        combine: An inlined function of two tiles of one vector.
    """
    L = lanes

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        length = op.length
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            for row in range(op.rows):
                a, b = at(frame, op.a + row * op.a_down), at(frame, op.b + row * op.b_down)
                y = at(frame, op.y + row * op.y_down)
                for i in range(0, length, L):
                    left = length - i
                    first, second = load_part(1, 1, L, at(a, i), 0, left), load_part(1, 1, L, at(b, i), 0, left)
                    store_part(combine(first, second), 1, at(y, i), 0, left)

    return Kernel(name, POINTWISE, body)


@cache
def relu_gradient(lanes: int) -> Kernel:
    """Return the kernel y = b where a > 0, else 0. A branch for each number would be guessed wrong half of the time.

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    @inline
    def kept(a, b):
        return where_positive(a, b, zeros(1, L))

    return _in_vectors(f"relu_gradient[{lanes}]", lanes, kept)


@cache
def add_maps(lanes: int, as_relu: bool) -> Kernel:
    """Return the kernel y = a + b, or its ReLU.

    Args:
        lanes: L, of a vector.
        as_relu: Whether negative sums become 0.
    """

    @inline
    def total(a, b):
        return relu(add(a, b)) if as_relu else add(a, b)

    return _in_vectors(f"add_maps[{lanes}{', relu' if as_relu else ''}]", lanes, total)


@cache
def copy_map(lanes: int) -> Kernel:
    """Return the kernel y = a.

    Args:
        lanes: L, of a vector.
    """

    @inline
    def same(a, b):
        return a

    return _in_vectors(f"copy_map[{lanes}]", lanes, same)


@cache
def dropout() -> Kernel:
    """Return the kernel y = a mask, for values and for gradients: the mask is drawn again from the same stream.

    Element i of the stream, in the order (image, channel, row, column) of the batch, is SplitMix64's finalizer over
    key + (i + 1) G, as in pellucid.random.
    """

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        key = np.uint64(longs(work.keys)[op.key])
        rows, channels, columns = op.rows, op.channels, op.length // op.channels
        size = rows * op.length
        threshold, scale = op.p * 16777216.0, np.float32(op.scale)
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            for row in range(rows):
                a, y = at(frame, op.a + row * op.a_down), at(frame, op.y + row * op.y_down)
                for column in range(columns):
                    for n in range(channels):
                        i = (work.sample + image) * size + (n * rows + row) * columns + column
                        z = key + np.uint64(i + 1) * _GOLDEN
                        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                        z = z ^ (z >> np.uint64(31))
                        kept = np.float64(z >> np.uint64(40)) >= threshold
                        place = column * channels + n
                        y[place] = a[place] * (scale if kept else np.float32(0))

    return Kernel("dropout", POINTWISE, body)
