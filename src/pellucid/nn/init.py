"""How parameters start: PyTorch's default, or one of a few names.

A scheme is "default", "he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "zeros", or a tuple with its
numbers: ("normal", std), ("uniform", low, high), ("constant", value). "normal" alone is N(0, 1) / fan_in and "uniform"
alone is U(-1/2, 1/2). He is Kaiming He et al.: Delving deep into rectifiers, 2015; Glorot is Glorot and Bengio:
Understanding the difficulty of training deep feedforward neural networks, 2010.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from pellucid._types import Array, Shape
from pellucid.errors import OptionError, unknown
from pellucid.random import Stream

Scheme: TypeAlias = str | tuple[str | float, ...]

_LARGEST = 1e38
"""Of a scheme's numbers; float32 has hardly larger ones."""

_Draw: TypeAlias = Callable[[Stream, Shape, int, int], Array]

_BY_NAME: dict[str, _Draw] = {
    # PyTorch's: Kaiming uniform with a = sqrt(5), which is U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
    "default": lambda s, shape, i, o: s.uniform(-1 / math.sqrt(i), 1 / math.sqrt(i), shape),
    "he_normal": lambda s, shape, i, o: s.normal(0, math.sqrt(2 / i), shape),
    "he_uniform": lambda s, shape, i, o: s.uniform(-math.sqrt(6 / i), math.sqrt(6 / i), shape),
    "glorot_normal": lambda s, shape, i, o: s.normal(0, math.sqrt(2 / (i + o)), shape),
    "glorot_uniform": lambda s, shape, i, o: s.uniform(-math.sqrt(6 / (i + o)), math.sqrt(6 / (i + o)), shape),
    "normal": lambda s, shape, i, o: s.normal(0, 1 / i, shape),
    "uniform": lambda s, shape, i, o: s.uniform(-0.5, 0.5, shape),
    "zeros": lambda s, shape, i, o: np.zeros(shape),
}
_WITH_NUMBERS = {"normal": ("std",), "uniform": ("low", "high"), "constant": ("value",)}


def check_scheme(scheme: object) -> Scheme:
    """Return a scheme, checked, in its canonical form.

    Raises:
        OptionError: For an unknown name or wrong numbers.

    >>> check_scheme(["uniform", -0.5, 0.5])
    ('uniform', -0.5, 0.5)
    """
    if isinstance(scheme, str):
        if scheme not in _BY_NAME:
            raise unknown("initialization", scheme, _BY_NAME)
        return scheme
    if not isinstance(scheme, (tuple, list)) or not scheme or scheme[0] not in _WITH_NUMBERS:
        raise OptionError(
            f'init must be a name such as "he_normal", or ("normal", std), ("uniform", low, high), '
            f'("constant", value); got {scheme!r}'
        )
    name, *numbers = scheme
    expected = _WITH_NUMBERS[name]
    real = [n for n in numbers if isinstance(n, (int, float)) and not isinstance(n, bool) and abs(n) < _LARGEST]
    if len(real) != len(numbers) or len(numbers) != len(expected):
        raise OptionError(f'init "{name}" takes the numbers ({", ".join(expected)}), got {tuple(numbers)!r}')
    if name == "normal" and numbers[0] < 0:
        raise OptionError(f"the standard deviation must be at least 0, got {numbers[0]!r}")
    return (name, *(float(n) for n in numbers))


def draw(scheme: Scheme, stream: Stream, shape: Shape, fan_in: int, fan_out: int) -> Array:
    """Return the first values of a parameter, float64.

    Args:
        scheme: One of the schemes of this module.
        stream: Where the random numbers come from.
        shape: Of the parameter.
        fan_in: Inputs that each output sums over.
        fan_out: Outputs that each input feeds.

    >>> draw(("constant", 2.0), Stream(0), (2,), 1, 1)
    array([2., 2.])
    """
    if isinstance(scheme, str):
        return _BY_NAME[scheme](stream, shape, max(fan_in, 1), max(fan_out, 1))
    name, *numbers = scheme
    values = [float(n) for n in numbers]
    if name == "normal":
        return stream.normal(0, values[0], shape)
    if name == "uniform":
        return stream.uniform(values[0], values[1], shape)
    return np.full(shape, values[0])
