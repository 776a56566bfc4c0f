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
    p, scale: Share that is dropped, and 1 / (1 - p).
    slope: Of LeakyReLU on the left; alpha of ELU, beta of Softplus.
    limit: Threshold of Softplus.
    """,
    "a a_down b b_down y y_down rows length channels key",
    reals="p scale slope limit",
)

_GOLDEN = np.uint64(GOLDEN)
_TANH_SLOPE, _TANH_CUBE, _DENSITY = math.sqrt(2 / math.pi), 0.044715, 1 / math.sqrt(2 * math.pi)


# Functions of x; those of float64 numbers where the definition's own formula needs them.
@inline
def _relu(x, slope, limit):
    return np.float32(0) if x <= 0 else x


@inline
def _leaky_relu(x, slope, limit):
    return x * slope if x <= 0 else x


@inline
def _sigmoid(x, slope, limit):
    return np.float32(1.0 / (1.0 + math.exp(-np.float64(x))))


@inline
def _tanh(x, slope, limit):
    return np.float32(math.tanh(np.float64(x)))


@inline
def _elu(x, slope, limit):
    return x if x > 0 else np.float32(slope * math.expm1(np.float64(x)))


@inline
def _silu(x, slope, limit):
    return np.float32(np.float64(x) / (1.0 + math.exp(-np.float64(x))))


@inline
def _below(x):
    """The probability that a normal number lies below x."""
    return 0.5 * math.erfc(-x * math.sqrt(0.5))


@inline
def _about_below(x):
    """About that probability, without erf."""
    return 0.5 * (1.0 + math.tanh(_TANH_SLOPE * (x + _TANH_CUBE * x * x * x)))


@inline
def _gelu(x, slope, limit):
    return np.float32(np.float64(x) * _below(np.float64(x)))


@inline
def _gelu_tanh(x, slope, limit):
    return np.float32(np.float64(x) * _about_below(np.float64(x)))


@inline
def _softplus(x, slope, limit):
    scaled = slope * np.float64(x)
    return x if scaled > limit else np.float32(math.log1p(math.exp(scaled)) / slope)


# Derivatives: of sigmoid and tanh by their output, of the others by their input.
@inline
def _leaky_relu_slope(x, slope, limit):
    return np.float32(1) if x > 0 else slope


@inline
def _sigmoid_slope(y, slope, limit):
    return y * (np.float32(1) - y)


@inline
def _tanh_slope(y, slope, limit):
    return np.float32(1) - y * y


@inline
def _elu_slope(x, slope, limit):
    return np.float32(1) if x > 0 else np.float32(slope * math.exp(np.float64(x)))


@inline
def _silu_slope(x, slope, limit):
    s = 1.0 / (1.0 + math.exp(-np.float64(x)))
    return np.float32(s * (1.0 + np.float64(x) * (1.0 - s)))


@inline
def _gelu_slope(x, slope, limit):
    z = np.float64(x)
    return np.float32(_below(z) + z * math.exp(-0.5 * z * z) * _DENSITY)


@inline
def _gelu_tanh_slope(x, slope, limit):
    z = np.float64(x)
    p = _about_below(z)
    return np.float32(p + z * 2.0 * p * (1.0 - p) * _TANH_SLOPE * (1.0 + 3.0 * _TANH_CUBE * z * z))


@inline
def _softplus_slope(x, slope, limit):
    scaled = slope * np.float64(x)
    return np.float32(1) if scaled > limit else np.float32(1.0 / (1.0 + math.exp(-scaled)))


FUNCTIONS = {
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "elu": _elu,
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "softplus": _softplus,
}
_SLOPES = {
    "leaky_relu": _leaky_relu_slope,
    "sigmoid": _sigmoid_slope,
    "tanh": _tanh_slope,
    "elu": _elu_slope,
    "silu": _silu_slope,
    "gelu": _gelu_slope,
    "gelu_tanh": _gelu_tanh_slope,
    "softplus": _softplus_slope,
}


@cache
def activation(name: str) -> Kernel:
    """Return the kernel y = f(a).

    Args:
        name: One of FUNCTIONS.
    """
    f = FUNCTIONS[name]

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        length, slope, limit = op.length, np.float32(op.slope), op.limit
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            for row in range(op.rows):
                a, y = at(frame, op.a + row * op.a_down), at(frame, op.y + row * op.y_down)
                for i in range(length):
                    y[i] = f(a[i], slope, limit)

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
        length, slope, limit = op.length, np.float32(op.slope), op.limit
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            for row in range(op.rows):
                a, b = at(frame, op.a + row * op.a_down), at(frame, op.b + row * op.b_down)
                y = at(frame, op.y + row * op.y_down)
                for i in range(length):
                    y[i] = b[i] * derivative(a[i], slope, limit)

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


@inline
def _uniform(key, i):
    """Element i of a stream times 2^24: SplitMix64's finalizer over key + (i + 1) G, as in pellucid.random."""
    z = key + np.uint64(i + 1) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(40))


@cache
def dropout() -> Kernel:
    """Return the kernel y = a mask, for values and for gradients: the mask is drawn again from the same stream.

    Elements are numbered in the order (image, channel, row, column) of the batch.
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
                        kept = _uniform(key, i) >= threshold
                        place = column * channels + n
                        y[place] = a[place] * (scale if kept else np.float32(0))

    return Kernel("dropout", POINTWISE, body)


@cache
def channel_dropout() -> Kernel:
    """Return the kernel y = a mask with one number of the stream for each channel of each image; otherwise as dropout.

    The mask of an image lies in scratch.
    """

    def body(op, work):
        op, work = carray(op, 1)[0], carray(work, 1)[0]
        key, mask = np.uint64(longs(work.keys)[op.key]), floats(work.scratch)
        channels, columns = op.channels, op.length // op.channels
        threshold, scale = op.p * 16777216.0, np.float32(op.scale)
        for image in range(work.first, work.last):
            frame = at(floats(work.frames), image * work.frame)
            for n in range(channels):
                mask[n] = scale if _uniform(key, (work.sample + image) * channels + n) >= threshold else np.float32(0)
            for row in range(op.rows):
                a, y = at(frame, op.a + row * op.a_down), at(frame, op.y + row * op.y_down)
                for column in range(columns):
                    for n in range(channels):
                        y[column * channels + n] = a[column * channels + n] * mask[n]

    return Kernel("channel_dropout", POINTWISE, body)
