"""How well a classifier does: confusion matrix, accuracy, precision, recall, calibration, the worst samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid import functional as F
from pellucid._types import Array
from pellucid.errors import DataError, OptionError
from pellucid.shapes import integer

_TEMPERATURES = (0.05, 20.0)


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
class Calibration:
    """Whether a classifier is right as often as it says: predictions in bins of how sure they are.

    Attributes:
        count: Predictions in each bin, int64, (B,); the bins divide 0 to 1 evenly.
        confidence: Mean probability of the predicted classes in each bin, NaN in an empty one: (B,).
        accuracy: Share of hits in each bin, NaN in an empty one: (B,).
    """

    count: Array
    confidence: Array
    accuracy: Array

    @property
    def ece(self) -> float:
        """Expected calibration error: |accuracy - confidence| of the bins, weighted by their counts; NaN for none."""
        full = self.count > 0
        gaps = np.abs(self.accuracy - self.confidence)[full]
        return float(np.average(gaps, weights=self.count[full])) if full.any() else float("nan")


def calibration(probabilities: Array, true: Array, bins: int = 15) -> Calibration:
    """Return how sure a classifier is beside how often it is right.

    After Guo, Pleiss, Sun and Weinberger: On calibration of modern neural networks, 2017, section 2. Bin b holds what
    lies above b / bins, up to (b + 1) / bins. Predictions that are not finite are left out.

    Args:
        probabilities: (N, K), rows that sum to 1.
        true: Labels, (N,).
        bins: B, how many.

    Raises:
        DataError: For different lengths.

    >>> found = calibration(np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.4, 0.6]]), np.array([0, 1, 0, 1]), bins=2)
    >>> found.count, found.accuracy, found.confidence.round(2), round(found.ece, 2)
    (array([0, 4]), array([ nan, 0.75]), array([ nan, 0.75]), 0.0)
    """
    probabilities, true = np.asarray(probabilities, dtype=np.float64), np.asarray(true)
    if probabilities.ndim != 2 or true.shape != probabilities.shape[:1]:
        raise DataError(
            f"probabilities must be (N, K) and true labels (N,), got {probabilities.shape} and {true.shape}"
        )
    bins = integer(bins, "bins")
    known = np.isfinite(probabilities).all(axis=1)
    sure = probabilities[known].max(axis=1, initial=0.0)
    right = probabilities[known].argmax(axis=1) == true[known] if known.any() else np.zeros(0, dtype=bool)
    place = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, weights=values, minlength=bins) for values in (sure, right))
    confidence, accuracy = (_share(total, count) for total in sums)
    return Calibration(count, confidence, accuracy)


def fit_temperature(logits: Array, true: Array) -> float:
    """Return the T for which softmax(logits / T) fits the labels best: the least cross-entropy.

    After Guo et al., 2017, section 4.2. T above 1 makes a classifier less sure, and no T changes which class is the
    likeliest. It must be fitted to samples that were neither trained nor tested on. Samples without a mistake fit no
    temperature, and 1 is returned; else T lies between 0.05 and 20.

    Args:
        logits: (N, K); logarithms of probabilities are logits too.
        true: Labels, (N,).

    Raises:
        DataError: For different lengths, or logits that are not finite.

    >>> logits = np.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    >>> round(fit_temperature(logits, np.array([0, 0, 0, 1])), 4)  # e^(2/T) = 3
    1.8205
    """
    logits, true = np.asarray(logits, dtype=np.float64), np.asarray(true, dtype=np.int64)
    if logits.ndim != 2 or true.shape != logits.shape[:1]:
        raise DataError(f"logits must be (N, K) and true labels (N,), got {logits.shape} and {true.shape}")
    if not np.isfinite(logits).all():
        raise DataError("logits hold NaN or infinity, which fit no temperature")
    right = np.take_along_axis(logits, true[:, None], 1)[:, 0] if len(true) else np.zeros(0)
    if (right >= logits.max(axis=1, initial=-np.inf)).all():
        return 1.0
    # The loss is convex in b = 1 / T; its slope is the mean of sum_k p_k z_k - z_true, p = softmax(b z).
    low, high = (1 / t for t in reversed(_TEMPERATURES))
    for _ in range(40):
        b = np.sqrt(low * high)
        slope = ((F.softmax(b * logits, 1) * logits).sum(axis=1) - right).mean()
        low, high = (low, b) if slope > 0 else (b, high)
    return float(1 / b)


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

    @property
    def losses(self) -> Array:
        """-log p of the true class of each sample: float64, (N,)."""
        with np.errstate(divide="ignore"):
            each: Array = -np.log(self.probabilities[np.arange(self.n), self.true])
        return each

    def top_losses(self, count: int = 24) -> Array:
        """Return which samples were misread worst, the largest loss first: int64 indices, at most count.

        Args:
            count: How many at most.
        """
        wrong = np.flatnonzero(self.predicted != self.true)
        return wrong[np.argsort(-self.losses[wrong], kind="stable")][:count]

    def suspects(self) -> Array:
        """Return which samples look mislabeled, the least likely label first: int64 indices.

        These are the samples that were read as another class, with at least 50% and at least as surely as that class's
        own samples are on average (the threshold of Northcutt, Jiang and Chuang: Confident learning, 2021). Right
        labels can be among them, and the model must not have been trained on them.
        """
        own = self.probabilities[np.arange(self.n), self.true]
        counts = self.confusion.sum(axis=1)
        typical = _share(np.bincount(self.true, weights=own, minlength=len(self.labels)), counts)
        sure = self.probabilities[np.arange(self.n), self.predicted]
        chosen = np.flatnonzero((self.predicted != self.true) & (sure >= np.maximum(typical[self.predicted], 0.5)))
        return chosen[np.argsort(own[chosen], kind="stable")]

    def fit_temperature(self) -> float:
        """Return the temperature that fits these samples; see fit_temperature."""
        return fit_temperature(self._logits, self.true)

    def calibration(self, temperature: float = 1.0, bins: int = 15) -> Calibration:
        """Return how sure the model is beside how often it is right; see calibration.

        Args:
            temperature: What logits are divided by, as fit_temperature of the validation part has found it.
            bins: How many.
        """
        if not 0 < temperature < np.inf:
            raise OptionError(f"temperature must be a finite number above 0, got {temperature!r}")
        return calibration(F.softmax(self._logits / temperature, 1), self.true, bins)

    @property
    def _logits(self) -> Array:
        """Logarithms of the probabilities, which are logits; where float64 holds none, the least that it holds."""
        return np.log(np.maximum(self.probabilities, np.finfo(np.float64).tiny))

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
