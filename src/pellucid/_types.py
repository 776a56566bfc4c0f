"""The two types that every module uses."""

from typing import Any, TypeAlias

import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
"""A NumPy array; its shape and dtype are in the docstring of whoever takes or returns it."""

Shape: TypeAlias = tuple[int, ...]
"""Sizes of an array's axes, without the batch axis unless a docstring says so."""
