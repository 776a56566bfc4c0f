"""Losses: what training makes small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np

from pellucid import functional as F
from pellucid._repr import arguments, call
from pellucid._types import Array
from pellucid.errors import OptionError, unknown
from pellucid.functional.loss import REDUCTIONS
from pellucid.nn.activation import LogSoftmax, Sigmoid, Softmax
from pellucid.nn.layer import Layer
from pellucid.nn.linear import Linear
from pellucid.nn.network import Network
from pellucid.shapes import number

LossBackward: TypeAlias = Callable[..., Array]
"""Takes the gradient by the value, 1.0 if left out, and returns that by the output."""


class Loss:
    """Base of the losses. A loss of one's own defines forward.

    Attributes:
        takes_logits: Whether the network must not end in softmax or sigmoid.
        takes_labels: Whether targets are labels; else they are floats of the output's shape.
        reduction: What becomes of the terms: "mean", "sum", or "none" for an array of them, which nobody trains with.
    """

    takes_logits: ClassVar[bool] = False
    takes_labels: ClassVar[bool] = False
    reduction: str = "mean"

    def forward(self, output: Array, target: Array) -> tuple[float, LossBackward]:
        """Return (value, backward), where backward() returns the gradient by the output.

        Args:
            output: What the network gives, (N, ...).
            target: What it should give.
        """
        raise TypeError(f"{type(self).__name__} must define forward(self, output, target)")

    def __call__(self, output: Array, target: Array) -> float:
        """Return the value.

        Args:
            output: What the network gives, (N, ...).
            target: What it should give.
        """
        return self.forward(output, target)[0]

    def total_weight(self, target: Array) -> float:
        """Return by what the sum over samples was divided, so that means of batches can be averaged rightly.

        A sum counts as one, so that an average is one of the sums of batches.

        Args:
            target: Targets of the batch.
        """
        return 1.0 if self.reduction == "sum" else float(len(target))

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as plain data."""
        config = arguments(self)
        return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in config.items()}

    def check_network(self, network: Layer) -> None:
        """Refuse to train with an array of losses, or with logits that went through softmax or sigmoid before.

        Args:
            network: What will be trained.

        Raises:
            OptionError: With the fix.
        """
        if self.reduction == "none":
            raise OptionError(f'{self!r} gives an array; training needs one number: reduction="mean" or "sum"')
        last = self._last(network)
        if self.takes_logits and isinstance(last, (Softmax, LogSoftmax, Sigmoid)):
            raise OptionError(
                f"{type(self).__name__} takes logits and applies {type(last).__name__.lower()} itself, but the network "
                f"ends in {last!r}, which would apply it twice; remove that last layer"
            )

    def _last(self, network: Layer) -> Layer:
        while isinstance(network, Network) and network.leaf_count:
            network = list(network.children())[-1][1]
        return network

    def __repr__(self) -> str:
        return call(type(self), self.config())


def _reduction(name: object) -> str:
    if name not in REDUCTIONS:
        raise unknown("reduction", name, REDUCTIONS)
    return str(name)


_CLASS_WEIGHTS = "class weights must be one number of at least 0 for each class"


def _weights(weight: Sequence[float] | Array | None, rule: str, ndim: int | None = None) -> Array | None:
    if weight is None:
        return None
    array = np.asarray(weight, dtype=np.float64)
    if ndim not in (None, array.ndim) or not np.isfinite(array).all() or (array < 0).any():
        raise OptionError(rule)
    return array


class _OfClasses(Loss):
    """What losses of labels share: class weights, and means that are weighted by them."""

    takes_labels = True
    weight: Array | None

    def total_weight(self, target: Array) -> float:
        """Return the sum of the targets' class weights; N without weights.

        Args:
            target: Labels or rows of probabilities.
        """
        if self.weight is None or self.reduction == "sum" or np.issubdtype(target.dtype, np.floating):
            return super().total_weight(target)
        return float(self.weight[target].sum())


class CrossEntropyLoss(_OfClasses):
    """-log softmax(logits) at the target, mean over the batch; see functional.cross_entropy.

    Args:
        weight: Weight of each class, (K,).
        label_smoothing: Share of the target that is spread over all classes.
        reduction: "mean", "sum" or "none".

    >>> round(CrossEntropyLoss()(np.zeros((1, 10)), np.array([3])), 4)
    2.3026
    """

    takes_logits = True

    def __init__(
        self,
        weight: Sequence[float] | Array | None = None,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        self.weight = _weights(weight, _CLASS_WEIGHTS, 1)
        self.label_smoothing = float(label_smoothing)
        if not 0 <= self.label_smoothing <= 1:
            raise OptionError(f"label_smoothing must lie between 0 and 1, got {label_smoothing!r}")
        self.reduction = _reduction(reduction)

    def forward(self, output: Array, target: Array) -> tuple[Any, LossBackward]:
        """Return (value, backward).

        Args:
            output: Logits, (N, K).
            target: Labels (N,) or rows of probabilities (N, K).
        """
        options = (self.weight, self.label_smoothing, self.reduction)
        value = F.cross_entropy(output, target, *options)
        return value, lambda dy=1.0: F.cross_entropy_backward(output, target, *options, dy)


class NLLLoss(_OfClasses):
    """-log p at the target, mean over the batch, for networks that end in LogSoftmax; see functional.nll_loss.

    Args:
        weight: Weight of each class, (K,).
        reduction: "mean", "sum" or "none".

    >>> NLLLoss()(np.array([[-1.0, -3.0]]), np.array([1]))
    3.0
    """

    def __init__(self, weight: Sequence[float] | Array | None = None, reduction: str = "mean") -> None:
        self.weight = _weights(weight, _CLASS_WEIGHTS, 1)
        self.reduction = _reduction(reduction)

    def forward(self, output: Array, target: Array) -> tuple[Any, LossBackward]:
        """Return (value, backward).

        Args:
            output: Logarithms of probabilities, (N, K).
            target: Labels, (N,).
        """
        options = (self.weight, self.reduction)
        value = F.nll_loss(output, target, *options)
        return value, lambda dy=1.0: F.nll_loss_backward(output, target, *options, dy)

    def check_network(self, network: Layer) -> None:
        """Refuse a network whose outputs are no logarithms of probabilities.

        Args:
            network: What will be trained.

        Raises:
            OptionError: With the fix.
        """
        super().check_network(network)
        last = self._last(network)
        if isinstance(last, (Linear, Softmax, Sigmoid)):
            raise OptionError(
                f"NLLLoss takes logarithms of probabilities, but the network ends in {last!r}; end it with "
                "Linear and LogSoftmax(), or with Linear alone and use CrossEntropyLoss"
            )


class _Elementwise(Loss):
    """What losses of single numbers share: output and target have the same shape."""

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = _reduction(reduction)


class MSELoss(_Elementwise):
    """Mean over all elements of (output - target)^2.

    Args:
        reduction: "mean", "sum" or "none".

    >>> MSELoss()(np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]]))
    2.0
    """

    def forward(self, output: Array, target: Array) -> tuple[Any, LossBackward]:
        """Return (value, backward).

        Args:
            output: Any shape.
            target: Same shape, float.
        """
        value = F.mse_loss(output, target, self.reduction)
        return value, lambda dy=1.0: F.mse_loss_backward(output, target, self.reduction, dy)


class L1Loss(_Elementwise):
    """Mean over all elements of |output - target|.

    Args:
        reduction: "mean", "sum" or "none".

    >>> L1Loss()(np.array([[1.0, 4.0]]), np.array([[1.0, 1.0]]))
    1.5
    """

    def forward(self, output: Array, target: Array) -> tuple[Any, LossBackward]:
        """Return (value, backward).

        Args:
            output: Any shape.
            target: Same shape, float.
        """
        value = F.l1_loss(output, target, self.reduction)
        return value, lambda dy=1.0: F.l1_loss_backward(output, target, self.reduction, dy)


class SmoothL1Loss(Loss):
    """A parabola near the target, slope 1 far from it; see functional.smooth_l1_loss.

    Args:
        reduction: "mean", "sum" or "none".
        beta: Where the parabola becomes a line, at least 0.

    >>> SmoothL1Loss()(np.array([[0.5, 3.0]]), np.zeros((1, 2)))
    1.3125
    """

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        self.reduction, self.beta = _reduction(reduction), number(beta, "beta")

    def forward(self, output: Array, target: Array) -> tuple[Any, LossBackward]:
        """Return (value, backward).

        Args:
            output: Any shape.
            target: Same shape, float.
        """
        options = (self.reduction, self.beta)
        value = F.smooth_l1_loss(output, target, *options)
        return value, lambda dy=1.0: F.smooth_l1_loss_backward(output, target, *options, dy)


class HuberLoss(Loss):
    """Half the squared error near the target, slope delta far from it; see functional.huber_loss.

    Args:
        reduction: "mean", "sum" or "none".
        delta: Where the parabola becomes a line, above 0.

    >>> HuberLoss(delta=2.0)(np.array([[1.0, 3.0]]), np.zeros((1, 2)))
    2.25
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        self.reduction, self.delta = _reduction(reduction), number(delta, "delta")
        if self.delta == 0:
            raise OptionError("delta must be above 0")

    def forward(self, output: Array, target: Array) -> tuple[Any, LossBackward]:
        """Return (value, backward).

        Args:
            output: Any shape.
            target: Same shape, float.
        """
        options = (self.reduction, self.delta)
        value = F.huber_loss(output, target, *options)
        return value, lambda dy=1.0: F.huber_loss_backward(output, target, *options, dy)


class BCELoss(Loss):
    """Binary cross-entropy of probabilities, mean over all elements, for networks that end in Sigmoid.

    Args:
        weight: Of each output or element, None for ones.
        reduction: "mean", "sum" or "none".

    >>> round(BCELoss()(np.array([[0.5]]), np.array([[1.0]])), 4)
    0.6931
    """

    def __init__(self, weight: Sequence[float] | Array | None = None, reduction: str = "mean") -> None:
        self.weight, self.reduction = _weights(weight, "weight must be numbers of at least 0"), _reduction(reduction)

    def forward(self, output: Array, target: Array) -> tuple[Any, LossBackward]:
        """Return (value, backward).

        Args:
            output: Probabilities, any shape.
            target: Between 0 and 1, same shape, float.
        """
        options = (self.weight, self.reduction)
        value = F.binary_cross_entropy(output, target, *options)
        return value, lambda dy=1.0: F.binary_cross_entropy_backward(output, target, *options, dy)


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of sigmoid(output), mean over all elements; for two classes or many labels.

    Args:
        weight: Of each output or element, None for ones.
        reduction: "mean", "sum" or "none".
        pos_weight: Weight of what is there (target 1) for each output or element, None for ones.

    >>> round(BCEWithLogitsLoss()(np.array([[0.0]]), np.array([[1.0]])), 4)
    0.6931
    """

    takes_logits = True

    def __init__(
        self,
        weight: Sequence[float] | Array | None = None,
        reduction: str = "mean",
        pos_weight: Sequence[float] | Array | None = None,
    ) -> None:
        self.weight, self.reduction = _weights(weight, "weight must be numbers of at least 0"), _reduction(reduction)
        self.pos_weight = _weights(pos_weight, "pos_weight must be numbers of at least 0")

    def forward(self, output: Array, target: Array) -> tuple[Any, LossBackward]:
        """Return (value, backward).

        Args:
            output: Logits, any shape.
            target: Between 0 and 1, same shape, float.
        """
        options = (self.weight, self.reduction, self.pos_weight)
        value = F.binary_cross_entropy_with_logits(output, target, *options)
        return value, lambda dy=1.0: F.binary_cross_entropy_with_logits_backward(output, target, *options, dy)
