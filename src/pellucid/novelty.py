"""Whether an image is one that the model can know anything of: thresholds measured on validation images.

An image is doubted for how it looks (brightness, contrast, roughness, margin, beyond all known images) or for what the
network makes of it. The evidence for an image is the negative of its energy: the logarithm of the sum of the
exponentials of the outputs (Liu et al.: Energy-based Out-of-distribution Detection, 2020). A network gives less of it
to what it was not trained on, even where the probabilities, from which the sum is divided out, look certain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from pellucid._types import Array

REFUSED = 0.007
"""Share of the validation images whose evidence is below the threshold: of new images hardly more than 1% then are."""
BLANK = "it is blank: nothing stands out in it"
LOOKS = ("brightness", "contrast", "roughness", "margin")
ENOUGH = 100
"""Images, for a threshold to mean something."""
_ENOUGH_OF_CLASS = 250
_SLACK = 0.05  # of the range of looks, on both sides
_BLOCK = 1024


@dataclass(frozen=True)
class Novelty:
    """Thresholds beyond which an image is doubted.

    Args:
        looks: Lowest and highest value of each of LOOKS. With half the lowest contrast an image counts as blank.
        evidence: Lowest evidence, one for each class: that of images which the model takes for this class.

    >>> anything = ((0.0, 1.0),) * 4
    >>> Novelty(anything, (5.0, 6.0)).doubts(np.eye(9)[None, None], np.array([[3.0, 4.0]]), (0.0, 1.0), ("a", "b"))
    ('it is unlike the images of b that the model knows: evidence 4.3, of them 99% have 6.0 or more',)
    """

    looks: tuple[tuple[float, float], ...]
    evidence: tuple[float, ...]

    @classmethod
    def measured(cls, images: Array, logits: Array, value_range: tuple[float, float]) -> Self | None:
        """Return the thresholds for images that were not trained on; None for fewer than 100.

        A class with fewer than 250 images gets the threshold of all.

        Args:
            images: Raw, (N, C, H, W).
            logits: What the model makes of them, (N, K).
            value_range: Lowest and highest raw value.
        """
        if len(images) < ENOUGH or not np.isfinite(logits).all():
            return None
        known, taken_for = evidence(logits), logits.argmax(axis=1)
        of_all = _low(known)
        by_class = [known[taken_for == k] for k in range(logits.shape[1])]
        thresholds = [_low(own) if len(own) >= _ENOUGH_OF_CLASS else of_all for own in by_class]
        seen = looks(images, value_range)
        slack = _SLACK * np.ptp(seen, axis=0)
        bounds = zip((seen.min(axis=0) - slack).tolist(), (seen.max(axis=0) + slack).tolist(), strict=True)
        return cls(tuple(bounds), tuple(thresholds))

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
        seen, known, taken_for = looks(images, value_range), evidence(logits), logits.argmax(axis=1)
        rows = zip(seen.tolist(), known.tolist(), taken_for.tolist(), strict=True)
        return tuple(self._doubt(look, e, k, classes[k]) for look, e, k in rows)

    def _doubt(self, look: list[float], known: float, k: int, label: str) -> str | None:
        if look[1] < max(self.looks[1][0] / 2, 1e-6):
            return BLANK
        for name, value, (low, high) in zip(LOOKS, look, self.looks, strict=True):
            if not low <= value <= high:
                return f"its {name} is {value:.2f}, that of the images that the model knows {low:.2f} to {high:.2f}"
        if known < self.evidence[k]:
            return (
                f"it is unlike the images of {label} that the model knows: "
                f"evidence {known:.1f}, of them 99% have {self.evidence[k]:.1f} or more"
            )
        return None


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


def looks(images: Array, value_range: tuple[float, float]) -> Array:
    """Return LOOKS of each image, scaled so that the value range is 0 to 1: float64, (N, 4).

    Brightness is the mean, contrast the standard deviation, roughness the mean difference of neighbors (down plus
    right), margin the mean of the outermost pixels, two deep.

    Args:
        images: Raw, (N, C, H, W).
        value_range: Lowest and highest raw value.

    >>> looks(np.array([[[[0, 1], [0, 1]]]]), (0.0, 1.0))
    array([[0.5, 0.5, 1. , 0.5]])
    """
    low, high = value_range
    found = np.empty((len(images), 4))
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        x = (images[block].astype(np.float64) - low) / (high - low)
        found[block, 0], found[block, 1] = x.mean(axis=(1, 2, 3)), x.std(axis=(1, 2, 3))
        found[block, 2] = _differences(x, 2) + _differences(x, 3)
        outer = np.ones(x.shape[2:], bool)
        outer[2:-2, 2:-2] = False
        found[block, 3] = x[:, :, outer].mean(axis=(1, 2))
    return found


def _differences(x: Array, axis: int) -> Array | float:
    """Return the mean difference of neighbors along an axis, (N,); 0 where there are none."""
    return np.asarray(np.abs(np.diff(x, axis=axis)).mean(axis=(1, 2, 3))) if x.shape[axis] > 1 else 0.0


def _low(known: Array) -> float:
    """Return what all but REFUSED of the values reach."""
    return float(np.sort(known)[int(REFUSED * len(known))])
