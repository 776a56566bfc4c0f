"""What every operation asks of the arrays that it is given."""

from __future__ import annotations

import numpy as np

from pellucid._types import Array
from pellucid.errors import OptionError, ShapeError

MAPS = {1: "N x C x L", 2: "N x C x H x W", 3: "N x C x D x H x W"}
"""Axes of a batch of sequences, images and volumes."""

_ONE = {3: "sequence", 4: "image", 5: "volume"}


def check_float(x: Array, name: str) -> None:
    """Raise an OptionError that names the argument unless x is an array of float32 or float64."""
    if not isinstance(x, np.ndarray):
        raise OptionError(f"{name} must be a NumPy array, got {type(x).__name__}; use np.asarray({name})")
    if x.dtype.type not in (np.float32, np.float64):
        raise OptionError(f'{name} must be float32 or float64, got {x.dtype}; use {name}.astype("float32")')


def check(x: Array, name: str, axes: str) -> None:
    """Raise an error that names the argument and the cure unless x is a float array with the given axes.

    Args:
        x: Any array.
        name: Of the argument.
        axes: Expected axes, as in "N x C x H x W".
    """
    check_float(x, name)
    ndim = axes.count("x") + 1
    if x.ndim != ndim:
        alone = axes in MAPS.values() and x.ndim == ndim - 1
        single = f"; for a single {_ONE[ndim]} use {name}[None]" if alone else ""
        raise ShapeError(f"{name} must have the axes {axes}, got shape {x.shape}{single}")


def check_dy(dy: Array, shape: tuple[int, ...]) -> None:
    """Raise a ShapeError unless dy has the output's shape."""
    if dy.shape != shape:
        raise ShapeError(f"dy must have the output's shape {shape}, got {dy.shape}")
