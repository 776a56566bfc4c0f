"""Dividing a data set into parts that share no sample: stratified, seeded."""

from __future__ import annotations

import math

import numpy as np

from pellucid._types import Array
from pellucid.data.dataset import Dataset, Splits
from pellucid.errors import DataError, OptionError


def check_fraction(value: float, name: str) -> float:
    """Return a share that lies in [0, 1), or raise an OptionError."""
    if not 0.0 <= value < 1.0:
        raise OptionError(f"{name} must be at least 0 and below 1, got {value:g}")
    return float(value)


def divide(indices: Array, targets: Array, size: int, seed: int, what: str) -> tuple[Array, Array]:
    """Return (rest, chosen): size of the indices chosen, each class in proportion, both sorted.

    Args:
        indices: Samples to divide: int64.
        targets: Targets of all samples; labels are stratified, floats are not.
        size: How many to choose.
        seed: Same seed, same division.
        what: Name of the chosen part, for the error.

    Raises:
        DataError: Where a class would be missing in one of the two.
    """
    from sklearn.model_selection import train_test_split

    if not 0 < size < len(indices):
        raise DataError(f'{len(indices)} images are too few to put some into the part "{what}"; add images')
    labels = targets[indices] if np.issubdtype(targets.dtype, np.integer) else None
    if labels is not None:
        names, counts = np.unique(labels, return_counts=True)
        if counts.min() < 2 or min(size, len(indices) - size) < len(names):
            raise DataError(
                f"{len(indices)} images of {len(names)} classes are too few to put one of each class into the part "
                f'"{what}" and into the rest (smallest class: {counts.min()}); add images or change the fraction'
            )
    rest, chosen = train_test_split(indices, test_size=size, random_state=seed % 2**32, stratify=labels)
    if labels is not None and not set(targets[chosen]) == set(targets[rest]) == set(names):
        missing = sorted(set(names) - (set(targets[chosen]) & set(targets[rest])))
        raise DataError(
            f'class number {missing[0]} has too few images to stand in the part "{what}" and in the rest; add images'
        )
    return np.sort(rest), np.sort(chosen)


def sample(indices: Array, targets: Array, size: int, seed: int) -> Array:
    """Return size of the indices, each class in proportion, sorted; arguments as in divide."""
    labels = targets[indices] if np.issubdtype(targets.dtype, np.integer) else np.zeros(len(indices), dtype=np.int64)
    names, counts = np.unique(labels, return_counts=True)
    if size < len(names):
        raise DataError(f"a subset of {size} images cannot hold all {len(names)} classes; take more images")
    # Largest remainders: each class gets its share rounded down, and those that lost most get one more.
    share = counts * size / len(indices)
    take = np.maximum(np.floor(share).astype(np.int64), 1)
    order = np.argsort(take - share, kind="stable")
    take[order[: max(0, size - int(take.sum()))]] += 1
    while take.sum() > size:
        take[np.argmax(take)] -= 1
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(indices[labels == name])[:n] for name, n in zip(names, take, strict=True)]
    return np.sort(np.concatenate(chosen))


def split(
    ds: Dataset,
    *,
    test_fraction: float = 0.2,
    val_fraction: float = 0.2,
    seed: int = 0,
    subset: int | None = None,
) -> Dataset:
    """Return the data set with training, validation and test parts.

    Parts that the data set already has (official test images, folders called train and test) are kept; missing
    ones are cut from "train": the test part first, then validation as a share of the rest. Sizes are rounded up.

    Args:
        ds: The data set.
        test_fraction: Share of all images for the test, where there is no test part yet.
        val_fraction: Share of what is not test for validation, where there is no validation part yet.
        seed: Same seed, same parts.
        subset: Keep only that many of the images that are not test, each class in proportion.

    Raises:
        DataError: Where a class has too few images to stand in each part.

    >>> from pellucid.data.dataset import from_arrays
    >>> ds = split(from_arrays(np.zeros((100, 8, 8)), np.arange(100) % 2))
    >>> len(ds.splits.train), len(ds.splits.val), len(ds.splits.test)
    (64, 16, 20)
    """
    check_fraction(test_fraction, "test_fraction")
    check_fraction(val_fraction, "val_fraction")
    train, val, test = ds.splits.train, ds.splits.val, ds.splits.test
    if not len(test) and test_fraction:
        train, test = divide(train, ds.targets, math.ceil(test_fraction * len(train)), seed, "test")
    if subset is not None and subset < len(train) + len(val):
        if subset < 1:
            raise OptionError(f"subset must be at least 1, got {subset}")
        keep_val = round(subset * len(val) / (len(train) + len(val)))
        train = sample(train, ds.targets, subset - keep_val, seed)
        if keep_val:
            val = sample(val, ds.targets, keep_val, seed)
    if not len(val) and val_fraction:
        train, val = divide(train, ds.targets, math.ceil(val_fraction * len(train)), seed, "val")
    return ds.with_splits(Splits(train, val, test))
