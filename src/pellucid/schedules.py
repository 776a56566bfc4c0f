"""Learning-rate schedules: by what the optimizer's lr is multiplied in each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from pellucid._repr import arguments, call
from pellucid._types import Array
from pellucid.errors import OptionError, unknown
from pellucid.shapes import integer


class Schedule:
    """Base of the schedules.

    Attributes:
        needs_length: Whether the factors depend on how long the whole training is.
    """

    needs_length: ClassVar[bool] = True

    def factors(self, steps: Array, total: int, steps_per_epoch: int) -> Array:
        """Return the factor of each step: float64, the shape of steps.

        Args:
            steps: Numbers of the steps, counted from 0.
            total: Steps of the whole training.
            steps_per_epoch: Steps of an epoch.
        """
        raise TypeError(f"{type(self).__name__} must define factors")

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as plain data."""
        return arguments(self)

    def __repr__(self) -> str:
        return call(type(self), self.config())


class Constant(Schedule):
    """Always 1.

    >>> Constant().factors(np.arange(2), 2, 1)
    array([1., 1.])
    """

    needs_length = False

    def factors(self, steps: Array, total: int, steps_per_epoch: int) -> Array:
        """Return ones.

        Args:
            steps: Numbers of the steps.
            total: Not used.
            steps_per_epoch: Not used.
        """
        return np.ones(np.shape(steps))


class Step(Schedule):
    """Multiplied by gamma every step_size epochs (PyTorch's StepLR).

    Args:
        step_size: Epochs between two changes.
        gamma: The factor of each change.

    >>> Step(1, 0.5).factors(np.arange(4), total=4, steps_per_epoch=2)
    array([1. , 1. , 0.5, 0.5])
    """

    needs_length = False

    def __init__(self, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = integer(step_size, "step_size")
        self.gamma = float(gamma)

    def factors(self, steps: Array, total: int, steps_per_epoch: int) -> Array:
        """Return gamma to the power of epoch // step_size.

        Args:
            steps: Numbers of the steps.
            total: Not used.
            steps_per_epoch: Steps of an epoch.
        """
        return np.asarray(self.gamma ** (steps // steps_per_epoch // self.step_size), dtype=np.float64)


class Cosine(Schedule):
    """From 1 down to low along half a cosine (Loshchilov, Hutter: SGDR, 2017, without restarts).

    Args:
        low: Factor at the end.

    >>> Cosine().factors(np.array([0, 5, 10]), total=10, steps_per_epoch=1).round(3)
    array([1. , 0.5, 0. ])
    """

    def __init__(self, low: float = 0.0) -> None:
        self.low = float(low)

    def factors(self, steps: Array, total: int, steps_per_epoch: int) -> Array:
        """Return low + (1 - low) (1 + cos(pi step / total)) / 2.

        Args:
            steps: Numbers of the steps.
            total: Steps of the whole training.
            steps_per_epoch: Not used.
        """
        return np.asarray(self.low + (1 - self.low) * (1 + np.cos(np.pi * steps / total)) / 2)


class OneCycle(Schedule):
    """Up from 1 / div_factor to 1 in the first pct_start of the steps, then down, both along half a cosine.

    PyTorch's OneCycleLR with its defaults (Smith, Topin: Super-convergence, 2018). Trainings too short to warm up
    start at 1.

    Args:
        pct_start: Share of the steps that warm up.
        div_factor: The first factor is 1 / div_factor.
        final_div_factor: The last factor is 1 / (div_factor final_div_factor).

    >>> OneCycle().factors(np.array([0, 29, 99]), total=100, steps_per_epoch=10).round(4)
    array([0.04, 1.  , 0.  ])
    """

    def __init__(self, pct_start: float = 0.3, div_factor: float = 25.0, final_div_factor: float = 1e4) -> None:
        if not 0 <= pct_start < 1:
            raise OptionError(f"pct_start must be at least 0 and below 1, got {pct_start!r}")
        if not (div_factor >= 1 and final_div_factor >= 1):
            raise OptionError("div_factor and final_div_factor must be at least 1")
        self.pct_start = float(pct_start)
        self.div_factor = float(div_factor)
        self.final_div_factor = float(final_div_factor)

    def factors(self, steps: Array, total: int, steps_per_epoch: int) -> Array:
        """Return the factor of each step.

        Args:
            steps: Numbers of the steps.
            total: Steps of the whole training.
            steps_per_epoch: Not used.
        """
        first = 1 / self.div_factor
        last = first / self.final_div_factor
        top = max(self.pct_start * total - 1, 0.0)
        down = np.clip((steps - top) / max(total - 1 - top, 1e-9), 0, 1)
        falling = last + (1 - last) * (1 + np.cos(np.pi * down)) / 2
        if top == 0:
            return np.asarray(falling)
        rising = 1 + (first - 1) * (1 + np.cos(np.pi * np.minimum(steps / top, 1))) / 2
        return np.where(steps <= top, rising, falling)


SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "constant": lambda epochs: Constant(),
    "step": lambda epochs: Step(max(1, math.ceil(epochs / 3))),
    "cosine": lambda epochs: Cosine(),
    "onecycle": lambda epochs: OneCycle(),
}


def by_name(name: str, epochs: int) -> Schedule:
    """Return a schedule by its name on the command line; "step" changes at each third of the epochs.

    Args:
        name: One of SCHEDULES.
        epochs: Of the whole training.
    """
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    return SCHEDULES[name](epochs)
