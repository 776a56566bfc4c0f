"""How well a classifier does: confusion matrix, accuracy, precision and recall per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid import functional as F
from pellucid._types import Array
from pellucid.errors import DataError


def confusion_matrix(true: Array, predicted: Array, num_classes: int) -> Array:
    """Return how often each true class (row) was predicted as each class (column): int64, (K, K).

    Args:
        true: Labels, (N,).
        predicted: Labels, (N,).
        num_classes: K.

    Raises:
        DataError: For different lengths or labels out of range.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    array([[1, 1],
           [0, 1]])
    """
    true, predicted = np.asarray(true, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if true.shape != predicted.shape or true.ndim != 1:
        raise DataError(f"true and predicted labels must have one shape (N,), got {true.shape} and {predicted.shape}")
    both = np.concatenate([true, predicted])
    if both.size and (both.min() < 0 or both.max() >= num_classes):
        raise DataError(f"labels must lie between 0 and {num_classes - 1}, got {both.min()} to {both.max()}")
    return np.bincount(true * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def recall(confusion: Array) -> Array:
    """Return hits / all that truly are of the class; NaN for a class that does not occur: float64, (K,).

    Args:
        confusion: (K, K), rows true.

    >>> recall(np.array([[1, 1], [0, 0]]))
    array([0.5, nan])
    """
    return _share(np.diag(confusion), confusion.sum(axis=1))


def precision(confusion: Array) -> Array:
    """Return hits / all that were predicted as the class; NaN for a class never predicted: float64, (K,).

    Args:
        confusion: (K, K), rows true.

    >>> precision(np.array([[1, 0], [1, 0]]))
    array([0.5, nan])
    """
    return _share(np.diag(confusion), confusion.sum(axis=0))


def _share(part: Array, whole: Array) -> Array:
    share: Array = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return share


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation found.

    Attributes:
        loss: Mean over the samples; without class weights.
        accuracy: Share of hits.
        confusion: int64, (K, K); rows true, columns predicted.
        labels: Names of the classes.
        ids: What identifies each sample.
        true: Labels, (N,).
        predicted: Labels, (N,).
        probabilities: (N, K).
    """

    loss: float
    accuracy: float
    confusion: Array
    labels: tuple[str, ...]
    ids: tuple[int | str, ...]
    true: Array
    predicted: Array
    probabilities: Array

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.true)

    @property
    def recall(self) -> dict[str, float]:
        """Recall by class name; NaN for a class that does not occur."""
        return dict(zip(self.labels, recall(self.confusion).tolist(), strict=True))

    @property
    def precision(self) -> dict[str, float]:
        """Precision by class name; NaN for a class never predicted."""
        return dict(zip(self.labels, precision(self.confusion).tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain data; what is undefined is None."""

        def defined(values: dict[str, float]) -> dict[str, float | None]:
            return {name: finite(value) for name, value in values.items()}

        return {
            "loss": finite(self.loss),
            "accuracy": finite(self.accuracy),
            "recall": defined(self.recall),
            "precision": defined(self.precision),
            "confusion": self.confusion.tolist(),
            "labels": list(self.labels),
            "n": self.n,
        }


def finite(value: float) -> float | None:
    """Return a number, or None where it is NaN or infinite, which JSON does not know.

    >>> finite(float("nan")) is None
    True
    """
    return float(value) if np.isfinite(value) else None


def measure(logits: Array, true: Array, labels: Sequence[str], ids: Sequence[int | str]) -> Evaluation:
    """Return loss, accuracy and confusion of a classifier's outputs.

    Args:
        logits: (N, K).
        true: Labels, (N,).
        labels: Names of the K classes.
        ids: What identifies each sample.
    """
    logits = logits.astype(np.float64)
    predicted = logits.argmax(axis=1)
    return Evaluation(
        loss=F.cross_entropy(logits, true),
        accuracy=float(np.mean(predicted == true)) if len(true) else float("nan"),
        confusion=confusion_matrix(true, predicted, len(labels)),
        labels=tuple(labels),
        ids=tuple(ids),
        true=true,
        predicted=predicted,
        probabilities=F.softmax(logits, 1),
    )
