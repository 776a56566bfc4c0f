"""Whether an image is one that the model can know anything of: thresholds measured on validation images.

The evidence for an image is the negative of its energy: the logarithm of the sum of the exponentials of the outputs
(Liu et al.: Energy-based Out-of-distribution Detection, 2020). A network gives less of it to what it was not trained
on, even where the probabilities, from which the sum has been divided out, look certain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from pellucid._types import Array

REFUSED = 0.008
"""Share of the validation images that is below its threshold: of new ones hardly more than 1% then are."""
_ENOUGH = 100  # images, for a threshold to mean something
_ENOUGH_OF_CLASS = 250


@dataclass(frozen=True)
class Novelty:
    """Thresholds below which an image is doubted.

    Args:
        blank: Of the standard deviation of an image scaled to 0 to 1.
        evidence: Of the evidence, one for each class: that of images which the model takes for this class.

    >>> Novelty(0.1, (5.0, 6.0)).doubts(np.eye(9)[None, None], np.array([[3.0, 4.0]]), (0.0, 1.0), ("a", "b"))
    ('it is unlike the images of b that the model knows: evidence 4.3, of them 99% have 6.0 or more',)
    """

    blank: float
    evidence: tuple[float, ...]

    @classmethod
    def measured(cls, images: Array, logits: Array, value_range: tuple[float, float]) -> Self | None:
        """Return the thresholds for images that were not trained on; None for fewer than 100.

        An image counts as blank with half the contrast of the faintest of them. A class with fewer than 250 images
        gets the threshold of all.

        Args:
            images: Raw, (N, C, H, W).
            logits: What the model makes of them, (N, K).
            value_range: Lowest and highest raw value.
        """
        if len(images) < _ENOUGH or not np.isfinite(logits).all():
            return None
        known, taken_for = evidence(logits), logits.argmax(axis=1)
        of_all = _low(known)
        by_class = [known[taken_for == k] for k in range(logits.shape[1])]
        thresholds = [_low(own) if len(own) >= _ENOUGH_OF_CLASS else of_all for own in by_class]
        return cls(float(contrast(images, value_range).min() / 2), tuple(thresholds))

    def doubts(
        self, images: Array, logits: Array, value_range: tuple[float, float], classes: tuple[str, ...]
    ) -> tuple[str | None, ...]:
        """Return for each image None, or why it is doubted.

        Args:
            images: Raw, (N, C, H, W).
            logits: What the model makes of them, (N, K).
            value_range: Lowest and highest raw value.
            classes: Names of the K classes.
        """
        blank, known, taken_for = contrast(images, value_range) < self.blank, evidence(logits), logits.argmax(axis=1)
        return tuple(
            "it is blank: nothing stands out in it"
            if empty
            else None
            if e >= self.evidence[k]
            else f"it is unlike the images of {classes[k]} that the model knows: "
            f"evidence {e:.1f}, of them 99% have {self.evidence[k]:.1f} or more"
            for empty, e, k in zip(blank.tolist(), known.tolist(), taken_for.tolist(), strict=True)
        )


def evidence(logits: Array) -> Array:
    """Return log(sum(exp(logits))) of each row, float64, (N,).

    Args:
        logits: (N, K).

    >>> evidence(np.array([[0.0, 0.0], [1000.0, 0.0]])).round(3).tolist()
    [0.693, 1000.0]
    """
    x = logits.astype(np.float64)
    top = x.max(axis=1)
    return np.asarray(top + np.log(np.exp(x - top[:, None]).sum(axis=1)))


def contrast(images: Array, value_range: tuple[float, float]) -> Array:
    """Return the standard deviation of each image, scaled so that the value range is 0 to 1: float64, (N,).

    Args:
        images: Raw, (N, C, H, W).
        value_range: Lowest and highest raw value.
    """
    low, high = value_range
    return np.array([image.std(dtype=np.float64) for image in images]) / (high - low)


def _low(known: Array) -> float:
    """Return what all but REFUSED of the values reach."""
    return float(np.sort(known)[int(REFUSED * len(known))])
