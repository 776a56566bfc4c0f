"""Batches: how many, in what order, and that images and targets move together."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid import data
from pellucid.errors import OptionError


def numbered(n, size=3):
    """Images whose every pixel is their own number, which is the label too."""
    images = np.broadcast_to(np.arange(n, dtype=np.float64)[:, None, None, None], (n, 1, size, size))
    return data.from_arrays(images, np.arange(n), value_range=(0, n))


@pytest.mark.capability("D11")
@pytest.mark.parametrize(
    ("n", "size", "batches", "last"),
    [(60_000, 64, 938, 32), (60_000, 150, 400, 150), (10_000, 150, 67, 100), (7, 7, 1, 7)],
)
def test_short_last_batch_is_kept(n, size, batches, last):
    loader = data.Loader(numbered(n, 1), batch_size=size)
    sizes = [len(targets) for _, targets in loader.batches()]
    assert (len(loader), len(sizes), sizes[-1], sum(sizes)) == (batches, batches, last, n)


@pytest.mark.capability("D11")
def test_images_and_targets_move_together_and_each_epoch_is_complete():
    loader = data.Loader(numbered(101), batch_size=8, seed=3)
    for epoch in range(3):
        seen = []
        for images, targets in loader.batches(epoch):
            assert (images[:, 0, 0, 0] == targets).all()
            seen += targets.tolist()
        assert sorted(seen) == list(range(101))
        assert seen != sorted(seen)


@pytest.mark.capability("D11", "D19")
def test_order_depends_on_seed_and_epoch_only():
    ds = numbered(50)
    first = data.Loader(ds, seed=1)
    list(first.batches(0))
    assert (first.order(4) == data.Loader(ds, seed=1).order(4)).all()
    assert (first.order(4) != first.order(5)).any()
    assert (first.order(4) != data.Loader(ds, seed=2).order(4)).any()


@pytest.mark.capability("D11")
def test_only_training_is_shuffled():
    ds = data.split(numbered(100), test_fraction=0.0, val_fraction=0.0)
    assert (data.Loader(ds, "all").order(0) == np.arange(100)).all()
    assert (data.Loader(ds, "train").order(0) != np.arange(100)).any()
    assert (data.Loader(ds, "train", shuffle=False).order(0) == np.arange(100)).all()


def test_augmentation_of_a_sample_does_not_depend_on_its_batch():
    ds = data.load("digits")
    small, large = (data.Loader(ds, batch_size=size, augment="digit", seed=5) for size in (3, 70))
    positions = np.arange(40)
    alone = np.concatenate([small.images(positions[i : i + 1], 2) for i in range(40)])
    assert (alone == large.images(positions, 2)).all()
    assert (alone != ds.images[ds.splits.train[:40]]).any()


def test_empty_part_and_wrong_batch_size():
    ds = numbered(5)
    assert (len(data.Loader(ds, "val")), list(data.Loader(ds, "val").batches())) == (0, [])
    with pytest.raises(OptionError, match="batch_size must be at least 1, got 0"):
        data.Loader(ds, batch_size=0)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 0.9, (0, 1)),
        (-0.5, 0.5, (-1, 1)),
        (0.0, 16.0, (0, 16)),
        (-2.25, 2.5, (-2.25, 2.5)),
        (3.0, 3.0, (0, 16)),
        (0.0, 200.0, (0, 255)),
        (-9.0, 70.0, (-9, 70)),
        (0.5, 3.0, (0, 3)),
    ],
)
def test_range_of_float_arrays(low, high, expected):
    images = np.full((2, 3, 3), low)
    images[1] = high
    assert data.from_arrays(images, [0, 1]).value_range == expected
