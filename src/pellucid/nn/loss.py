"""Losses: what training makes small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np

from pellucid import functional as F
from pellucid._repr import call
from pellucid._types import Array
from pellucid.errors import OptionError
from pellucid.nn.activation import Sigmoid, Softmax
from pellucid.nn.layer import Layer
from pellucid.nn.network import Network

LossBackward: TypeAlias = Callable[[], Array]


class Loss:
    """Base of the losses. A loss of one's own defines forward.

    Attributes:
        takes_logits: Whether the network must not end in softmax or sigmoid.
        takes_labels: Whether targets are labels; else they are floats of the output's shape.
    """

    takes_logits: ClassVar[bool] = False
    takes_labels: ClassVar[bool] = False

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

        Args:
            target: Targets of the batch.
        """
        return float(len(target))

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as plain data."""
        return {}

    def check_network(self, network: Layer) -> None:
        """Refuse a network that ends in softmax or sigmoid where the loss takes logits.

        Args:
            network: What will be trained.

        Raises:
            OptionError: With the fix.
        """
        last = network
        while isinstance(last, Network) and last.leaf_count:
            last = list(last.children())[-1][1]
        if self.takes_logits and isinstance(last, (Softmax, Sigmoid)):
            raise OptionError(
                f"{type(self).__name__} takes logits and applies {type(last).__name__.lower()} itself, but the network "
                f"ends in {last!r}, which would apply it twice; remove that last layer"
            )

    def __repr__(self) -> str:
        return call(type(self), self.config())


class CrossEntropyLoss(Loss):
    """-log softmax(logits) at the target, mean over the batch; see functional.cross_entropy.

    Args:
        weight: Weight of each class, (K,).
        label_smoothing: Share of the target that is spread over all classes.

    >>> round(CrossEntropyLoss()(np.zeros((1, 10)), np.array([3])), 4)
    2.3026
    """

    takes_logits = True
    takes_labels = True

    def __init__(self, weight: Sequence[float] | Array | None = None, label_smoothing: float = 0.0) -> None:
        self.weight = None if weight is None else np.asarray(weight, dtype=np.float64)
        self.label_smoothing = float(label_smoothing)
        if not 0 <= self.label_smoothing <= 1:
            raise OptionError(f"label_smoothing must lie between 0 and 1, got {label_smoothing!r}")
        if self.weight is not None and (
            self.weight.ndim != 1 or not np.isfinite(self.weight).all() or (self.weight < 0).any()
        ):
            raise OptionError("class weights must be one number of at least 0 for each class")

    def forward(self, output: Array, target: Array) -> tuple[float, LossBackward]:
        """Return (value, backward).

        Args:
            output: Logits, (N, K).
            target: Labels (N,) or rows of probabilities (N, K).
        """
        options = (self.weight, self.label_smoothing)
        value = F.cross_entropy(output, target, *options)
        return value, lambda: F.cross_entropy_backward(output, target, *options)

    def total_weight(self, target: Array) -> float:
        """Return the sum of the targets' class weights; N without weights.

        Args:
            target: Labels or rows of probabilities.
        """
        if self.weight is None or np.issubdtype(target.dtype, np.floating):
            return float(len(target))
        return float(self.weight[target].sum())

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as plain data."""
        weight = None if self.weight is None else self.weight.tolist()
        return {"weight": weight, "label_smoothing": self.label_smoothing}


class MSELoss(Loss):
    """Mean over all elements of (output - target)^2.

    >>> MSELoss()(np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]]))
    2.0
    """

    def forward(self, output: Array, target: Array) -> tuple[float, LossBackward]:
        """Return (value, backward).

        Args:
            output: Any shape.
            target: Same shape, float.
        """
        return F.mse_loss(output, target), lambda: F.mse_loss_backward(output, target)


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of sigmoid(output), mean over all elements; for two classes or many labels.

    >>> round(BCEWithLogitsLoss()(np.array([[0.0]]), np.array([[1.0]])), 4)
    0.6931
    """

    takes_logits = True

    def forward(self, output: Array, target: Array) -> tuple[float, LossBackward]:
        """Return (value, backward).

        Args:
            output: Logits, any shape.
            target: Between 0 and 1, same shape, float.
        """
        value = F.binary_cross_entropy_with_logits(output, target)
        return value, lambda: F.binary_cross_entropy_with_logits_backward(output, target)
