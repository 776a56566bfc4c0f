"""Counter-based random numbers: each one depends on its counters only.

There is no state to advance. Element i of the stream (seed, epoch, step, layer) is

    mix(key + (i + 1) G) with key = chain of mix over the four counters,

where mix is the finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
OOPSLA 2014) and G = 0x9E3779B97F4A7C15, all modulo 2^64. So a dropout mask is the same in every engine, for any
number of threads and after any resume. Nothing here reads or writes global random state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from pellucid._types import Array, Shape
from pellucid.shapes import integer

GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1

# Layer numbers of streams that belong to no layer, far above any network's.
SHUFFLE = 1 << 32
AUGMENT = SHUFFLE + 1


def mix(z: Array) -> Array:
    """Return the SplitMix64 finalizer of each element.

    Args:
        z: uint64, any shape.

    >>> hex(mix(np.array([0x9E3779B97F4A7C15], dtype=np.uint64))[0])
    '0xe220a8397b1dcdaf'
    """
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def _mix_int(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
    return z ^ (z >> 31)


@dataclass(frozen=True)
class Stream:
    """The random numbers of one layer in one step.

    Args:
        seed: Of the whole run.
        epoch: Counted from 0.
        step: Counted from 0.
        layer: Number of the layer in its network, depth first.

    >>> Stream(seed=0).random((2, 2)).shape
    (2, 2)
    >>> bool((Stream(1, step=3).random(4) == Stream(1, step=3).random(4)).all())
    True
    """

    seed: int
    epoch: int = 0
    step: int = 0
    layer: int = 0

    def __post_init__(self) -> None:
        for name in ("seed", "epoch", "step", "layer"):
            integer(getattr(self, name), name, minimum=0)

    @cached_property
    def key(self) -> int:
        """The 64-bit key that the four counters give."""
        key = 0
        for counter in (self.seed, self.epoch, self.step, self.layer):
            key = _mix_int((key + (counter + 1) * GOLDEN) & _WORD)
        return key

    def at(self, layers: int) -> Stream:
        """Return the stream of the layer that stands that many places further on."""
        return Stream(self.seed, self.epoch, self.step, self.layer + layers)

    def bits(self, n: int) -> Array:
        """Return the first n elements: uint64, shape (n,)."""
        counters = np.arange(1, n + 1, dtype=np.uint64)
        return mix(np.uint64(self.key) + counters * np.uint64(GOLDEN))

    def random(self, size: int | Shape) -> Array:
        """Return uniform numbers in [0, 1), multiples of 2^-24 and so exact in float32 too.

        Args:
            size: Number of elements, or shape; elements are counted in row-major order.
        """
        shape = (size,) if isinstance(size, int) else size
        uniform = (self.bits(math.prod(shape)) >> np.uint64(40)).astype(np.float64) * 2.0**-24
        return uniform.reshape(shape)

    def uniform(self, low: float, high: float, size: int | Shape) -> Array:
        """Return uniform numbers in [low, high), float64."""
        return low + (high - low) * self.random(size)

    def normal(self, mean: float, std: float, size: int | Shape) -> Array:
        """Return normal numbers by the Box-Muller transform, float64; element i uses the elements 2i and 2i + 1."""
        shape = (size,) if isinstance(size, int) else size
        bits = self.bits(2 * math.prod(shape)) >> np.uint64(11)
        u = ((bits.astype(np.float64) + 0.5) * 2.0**-53).reshape(-1, 2)
        z = np.sqrt(-2.0 * np.log(u[:, 0])) * np.cos(2.0 * np.pi * u[:, 1])
        return mean + std * z.reshape(shape)

    def permutation(self, n: int) -> Array:
        """Return the numbers 0 to n - 1 in random order: int64, shape (n,)."""
        return np.argsort(self.bits(n), kind="stable")


def step_keys(seed: int, first: int, steps: int, layers: Sequence[int]) -> Array:
    """Return the keys of Stream(seed, step=step, layer=layer) for consecutive steps: uint64, shape (steps, layers).

    Args:
        seed: Of the whole run.
        first: Number of the first step.
        steps: How many.
        layers: Numbers of layers.

    >>> int(step_keys(7, 3, 2, [5])[1, 0]) == Stream(7, step=4, layer=5).key
    True
    """
    golden, key = np.uint64(GOLDEN), 0
    for counter in (seed, 0):
        key = _mix_int((key + (counter + 1) * GOLDEN) & _WORD)
    numbers = np.arange(first + 1, first + steps + 1, dtype=np.uint64)
    keys = mix(np.uint64(key) + numbers * golden)
    return mix(keys[:, None] + (np.array(layers, dtype=np.uint64) + np.uint64(1))[None, :] * golden)


def shuffled(seed: int, epoch: int, n: int) -> Array:
    """Return the order in which an epoch sees n samples: int64, shape (n,).

    >>> sorted(shuffled(seed=0, epoch=1, n=4).tolist())
    [0, 1, 2, 3]
    """
    return Stream(seed, epoch, layer=SHUFFLE).permutation(n)


def per_sample(seed: int, epoch: int, ids: Array, draws: int) -> Array:
    """Return uniform numbers in [0, 1) that depend on (seed, epoch, sample id) only: float64, shape (len(ids), draws).

    Args:
        seed: Of the whole run.
        epoch: Counted from 0.
        ids: Sample numbers, integers of at least 0, shape (N,).
        draws: How many numbers each sample gets.

    >>> a, b = per_sample(0, 2, np.array([7, 3]), 2), per_sample(0, 2, np.array([3]), 2)
    >>> bool((a[1] == b[0]).all())
    True
    """
    golden = np.uint64(GOLDEN)
    key = np.uint64(Stream(seed, epoch, layer=AUGMENT).key)
    keys = mix(key + (np.asarray(ids).astype(np.uint64) + np.uint64(1)) * golden)
    counters = np.arange(1, draws + 1, dtype=np.uint64) * golden
    return (mix(keys[:, None] + counters[None, :]) >> np.uint64(40)).astype(np.float64) * 2.0**-24


Source: TypeAlias = Stream | np.random.Generator
"""Where a layer draws from: a Stream, or NumPy's generator for a layer used alone."""


def advance(rng: Source | None, layers: int) -> Source | None:
    """Return the stream of a layer further on; a NumPy generator, which has state, is handed on as it is."""
    return rng.at(layers) if isinstance(rng, Stream) else rng
