"""Small data that a small network learns in a few epochs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import pellucid as pl
from available import EVERY_ENGINE
from pellucid import nn
from pellucid.data.dataset import Dataset, Splits


def make_stripes(n: int = 67, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images 1x6x5 with a bright row 1, 2 or 3: (images, labels)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    images = rng.integers(0, 120, (n, 1, 6, 5)).astype(np.uint8)
    images[np.arange(n), 0, labels + 1] += 120
    return images, labels


@pytest.fixture
def stripes() -> Dataset:
    """45 images to train on, 13 to validate, 9 to test; 45 and 13 are no multiples of the batch sizes in use."""
    images, labels = make_stripes()
    ds = pl.data.from_arrays(images, labels, classes=["one", "two", "three"])
    return replace(ds, splits=Splits(np.arange(45), np.arange(45, 58), np.arange(58, 67)))


@pytest.fixture
def net():
    """A function that makes a new network, always with the same parameters."""

    def make(dropout: float = 0.25, seed: int = 0) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.LazyLinear(3),
            input_shape=(1, 6, 5),
            seed=seed,
        )

    return make


@pytest.fixture
def plain():
    """A function that makes a network without dropout and batch norm."""
    return lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3), input_shape=(1, 6, 5), seed=0)


@pytest.fixture(params=EVERY_ENGINE)
def engine(request) -> str:
    """The name of each engine."""
    return request.param


@pytest.fixture
def fit(engine):
    """A function as pellucid.fit, with each engine, quiet and in batches of 8."""

    def run(network, ds, **options):
        return pl.fit(network, ds, **{"progress": False, "batch_size": 8, "engine": engine, **options})

    return run
