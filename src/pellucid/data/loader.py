"""Batches of a data set: in what order, how many, and how varied. Images and targets always move together."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from pellucid._types import Array
from pellucid.data.augment import Augmentation, augmentation
from pellucid.data.dataset import Dataset
from pellucid.random import shuffled
from pellucid.shapes import integer


class Loader:
    """Batches of one part of a data set. The last, shorter batch is kept; only the training part is shuffled.

    Order depends on (seed, epoch), augmentation on (seed, epoch, sample), so nothing depends on what was asked before.

    Args:
        ds: The data set.
        part: "train", "val", "test" or "all".
        batch_size: Images of a batch.
        shuffle: Whether each epoch has an order of its own; only "train" does if None.
        augment: "digit", "photo", "none" or an Augmentation; fit uses it for training only.
        seed: Of order and augmentation.

    >>> from pellucid import data
    >>> loader = Loader(data.load("digits"), "train", batch_size=64)
    >>> len(loader), [len(targets) for images, targets in loader.batches(epoch=0)][-1]
    (18, 61)
    """

    def __init__(
        self,
        ds: Dataset,
        part: str = "train",
        batch_size: int = 64,
        *,
        shuffle: bool | None = None,
        augment: str | Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.ds = ds
        self.indices = ds.indices(part)
        self.batch_size = integer(batch_size, "batch_size")
        self.shuffle = part == "train" if shuffle is None else shuffle
        self.augment = augmentation(augment)
        self.seed = integer(seed, "seed", minimum=0)

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return math.ceil(len(self.indices) / self.batch_size)

    @property
    def samples(self) -> int:
        """How many images an epoch has."""
        return len(self.indices)

    def order(self, epoch: int) -> Array:
        """Return where in the part the samples of an epoch stand, in its order: int64, (samples,).

        Args:
            epoch: Counted from 0.
        """
        n = len(self.indices)
        return shuffled(self.seed, epoch, n) if self.shuffle else np.arange(n)

    def images(self, positions: Array, epoch: int) -> Array:
        """Return raw images, varied if asked: (N, C, H, W), as stored.

        Args:
            positions: Places in the part, as order gives them, (N,).
            epoch: Counted from 0.
        """
        chosen = self.indices[positions]
        raw = self.ds.images[chosen]
        if self.augment is None:
            return raw
        return self.augment.apply(raw, chosen, self.seed, epoch, self.ds.value_range)

    def targets(self, positions: Array) -> Array:
        """Return the targets that belong to images(positions).

        Args:
            positions: Places in the part, (N,).
        """
        return self.ds.targets[self.indices[positions]]

    def batches(self, epoch: int = 0) -> Iterator[tuple[Array, Array]]:
        """Yield (raw images, targets) of each batch of an epoch.

        Args:
            epoch: Counted from 0.
        """
        order = self.order(epoch)
        for start in range(0, len(order), self.batch_size):
            positions = order[start : start + self.batch_size]
            yield self.images(positions, epoch), self.targets(positions)
