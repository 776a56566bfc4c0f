"""Optimizers: how gradients change parameters. Formulas, names and defaults are PyTorch's.

An optimizer holds hyper-parameters only. What it remembers between steps are flat arrays of the parameters' layout,
made by start() and kept by the engine. Clipping comes before everything else, weight decay (except AdamW's) after it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from pellucid._repr import arguments, call
from pellucid._types import Array
from pellucid.errors import OptionError
from pellucid.shapes import number


def clip_norm(gradients: Array, limit: float) -> Array:
    """Return gradients scaled so that their norm is at most limit: g min(1, limit / |g|). The direction is kept.

    Args:
        gradients: Any shape.
        limit: Largest norm.

    >>> clip_norm(np.array([30.0, 40.0]), 10.0)
    array([6., 8.])
    """
    norm = float(np.linalg.norm(gradients.astype(np.float64)))  # squares of exploding float32 would overflow
    return gradients * (limit / norm) if norm > limit else gradients


def clip_layer_norm(gradients: Array, limit: float, layers: Sequence[slice]) -> Array:
    """Return flat gradients with the norm of each layer's part clipped for itself.

    Args:
        gradients: Flat array.
        limit: Largest norm of a layer.
        layers: Where each layer lies, see Network.layer_slices.

    >>> clip_layer_norm(np.array([30.0, 40.0, 1.0]), 10.0, [slice(0, 2), slice(2, 3)])
    array([6., 8., 1.])
    """
    clipped = gradients.copy()
    for part in layers:
        clipped[part] = clip_norm(gradients[part], limit)
    return clipped


class Optimizer:
    """Base of the optimizers.

    Args:
        lr: Learning rate; a schedule multiplies it.
        weight_decay: Added to the gradient: weight_decay times the parameter.
        clip_norm: Largest norm of all gradients together.
        clip_layer_norm: Largest norm of each layer's gradients.
    """

    state_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, lr: float, weight_decay: float, clip_norm: float | None, clip_layer_norm: float | None) -> None:
        self.lr = number(lr, "lr")
        self.weight_decay = number(weight_decay, "weight_decay")
        for name, limit in (("clip_norm", clip_norm), ("clip_layer_norm", clip_layer_norm)):
            if limit is not None and not number(limit, name) > 0:
                raise OptionError(f"{name} must be greater than 0, got {limit!r}")
        self.clip_norm = clip_norm
        self.clip_layer_norm = clip_layer_norm

    def start(self, size: int, dtype: Any) -> dict[str, Array]:
        """Return what the optimizer remembers before the first step: zeros, one flat array a name.

        Args:
            size: Number of parameters.
            dtype: Of the parameters.
        """
        return {name: np.zeros(size, dtype=dtype) for name in self.state_names}

    def step(
        self,
        parameters: Array,
        gradients: Array,
        state: Mapping[str, Array],
        lr: float,
        step: int,
        layers: Sequence[slice] = (),
    ) -> None:
        """Change parameters and state in place.

        Args:
            parameters: Flat array, written.
            gradients: Flat array of the same size.
            state: As start() gave it, written.
            lr: Learning rate of this step.
            step: Number of this step, counted from 0.
            layers: Where each layer lies in the flat array; needed for clip_layer_norm.

        >>> w = np.array([1.0, 2.0])
        >>> SGD(lr=0.1).step(w, np.array([1.0, -1.0]), {}, lr=0.1, step=0)
        >>> w
        array([0.9, 2.1])
        """
        if self.clip_layer_norm is not None:
            if gradients.size and not layers:
                raise OptionError("clip_layer_norm needs layers=, see Network.layer_slices")
            gradients = clip_layer_norm(gradients, self.clip_layer_norm, layers)
        if self.clip_norm is not None:
            gradients = clip_norm(gradients, self.clip_norm)
        self._update(parameters, gradients, state, lr, step + 1)

    def _decayed(self, parameters: Array, gradients: Array) -> Array:
        return gradients + self.weight_decay * parameters if self.weight_decay else gradients

    def _update(self, w: Array, g: Array, state: Mapping[str, Array], lr: float, t: int) -> None:
        raise TypeError(f"{type(self).__name__} must define _update")

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as plain data."""
        return arguments(self)

    def __repr__(self) -> str:
        return call(type(self), self.config(), always=("lr",))


class SGD(Optimizer):
    """v <- momentum v + g, w <- w - lr v (with Nesterov: w - lr (g + momentum v)); without momentum w <- w - lr g.

    Args:
        lr: Learning rate.
        momentum: Share of v that is kept.
        weight_decay: Added to the gradient: weight_decay times the parameter.
        nesterov: Look ahead; needs momentum.
        clip_norm: Largest norm of all gradients together.
        clip_layer_norm: Largest norm of each layer's gradients.
    """

    state_names = ("momentum_buffer",)

    def __init__(
        self,
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        clip_norm: float | None = None,
        clip_layer_norm: float | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, clip_norm, clip_layer_norm)
        self.momentum = number(momentum, "momentum")
        self.nesterov = bool(nesterov)
        if self.nesterov and not self.momentum:
            raise OptionError("nesterov needs momentum greater than 0")

    def start(self, size: int, dtype: Any) -> dict[str, Array]:
        """Return the momentum buffer; nothing without momentum.

        Args:
            size: Number of parameters.
            dtype: Of the parameters.
        """
        return super().start(size, dtype) if self.momentum else {}

    def _update(self, w: Array, g: Array, state: Mapping[str, Array], lr: float, t: int) -> None:
        g = self._decayed(w, g)
        if self.momentum:
            v = state["momentum_buffer"]
            v *= self.momentum
            v += g
            g = g + self.momentum * v if self.nesterov else v
        w -= lr * g


class RMSprop(Optimizer):
    """s <- alpha s + (1 - alpha) g^2, w <- w - lr g / (sqrt(s) + eps); eps stands outside the root.

    With momentum the quotient is collected first: v <- momentum v + g / (sqrt(s) + eps), w <- w - lr v.

    Args:
        lr: Learning rate.
        alpha: Share of s that is kept.
        eps: Added to the root.
        weight_decay: Added to the gradient: weight_decay times the parameter.
        momentum: Share of v that is kept.
        clip_norm: Largest norm of all gradients together.
        clip_layer_norm: Largest norm of each layer's gradients.
    """

    state_names = ("square_avg", "momentum_buffer")

    def __init__(
        self,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        *,
        clip_norm: float | None = None,
        clip_layer_norm: float | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, clip_norm, clip_layer_norm)
        self.alpha = number(alpha, "alpha")
        self.eps = number(eps, "eps")
        self.momentum = number(momentum, "momentum")

    def start(self, size: int, dtype: Any) -> dict[str, Array]:
        """Return square_avg, and with momentum momentum_buffer.

        Args:
            size: Number of parameters.
            dtype: Of the parameters.
        """
        state = super().start(size, dtype)
        return state if self.momentum else {"square_avg": state["square_avg"]}

    def _update(self, w: Array, g: Array, state: Mapping[str, Array], lr: float, t: int) -> None:
        g = self._decayed(w, g)
        s = state["square_avg"]
        s *= self.alpha
        s += (1 - self.alpha) * g * g
        change = g / (np.sqrt(s) + self.eps)
        if self.momentum:
            v = state["momentum_buffer"]
            v *= self.momentum
            v += change
            change = v
        w -= lr * change


class Adam(Optimizer):
    """m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2, w <- w - lr m^ / (sqrt(v^) + eps).

    m^ = m / (1 - b1^t) and v^ = v / (1 - b2^t) correct the start from 0 (Kingma, Ba: Adam, 2015).

    Args:
        lr: Learning rate.
        betas: (b1, b2), the shares of m and v that are kept.
        eps: Added to the root.
        weight_decay: Added to the gradient: weight_decay times the parameter.
        clip_norm: Largest norm of all gradients together.
        clip_layer_norm: Largest norm of each layer's gradients.
    """

    state_names = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        clip_norm: float | None = None,
        clip_layer_norm: float | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, clip_norm, clip_layer_norm)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise OptionError(f"betas must be a pair of numbers, got {betas!r}")
        self.betas = (number(betas[0], "betas", below=1.0), number(betas[1], "betas", below=1.0))
        self.eps = number(eps, "eps")

    def _update(self, w: Array, g: Array, state: Mapping[str, Array], lr: float, t: int) -> None:
        g = self._decayed(w, g)
        (b1, b2), m, v = self.betas, state["exp_avg"], state["exp_avg_sq"]
        m *= b1
        m += (1 - b1) * g
        v *= b2
        v += (1 - b2) * g * g
        w -= lr / (1 - b1**t) * m / (np.sqrt(v) / math.sqrt(1 - b2**t) + self.eps)


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters directly: w <- w (1 - lr weight_decay), then Adam's step.

    Loshchilov, Hutter: Decoupled weight decay regularization, 2019.

    Args:
        lr: Learning rate.
        betas: (b1, b2), the shares of m and v that are kept.
        eps: Added to the root.
        weight_decay: Share that each parameter loses in a step, before lr.
        clip_norm: Largest norm of all gradients together.
        clip_layer_norm: Largest norm of each layer's gradients.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        clip_norm: float | None = None,
        clip_layer_norm: float | None = None,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, clip_norm=clip_norm, clip_layer_norm=clip_layer_norm)

    def _decayed(self, parameters: Array, gradients: Array) -> Array:
        return gradients

    def _update(self, w: Array, g: Array, state: Mapping[str, Array], lr: float, t: int) -> None:
        w *= 1 - lr * self.weight_decay
        super()._update(w, g, state, lr, t)


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW}
