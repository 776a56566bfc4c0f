"""Parts: sizes, stratification, what is kept, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.dataset import Splits, from_arrays
from pellucid.data.known import load_known
from pellucid.data.splits import split
from pellucid.errors import DataError, OptionError


def labeled(labels):
    return from_arrays(np.zeros((len(labels), 2, 2), np.uint8), np.asarray(labels))


def parts(ds):
    return ds.splits.train, ds.splits.val, ds.splits.test


@pytest.fixture(scope="module")
def digits():
    return load_known("digits")


@pytest.mark.capability("E4")
def test_the_digits(digits):
    train, val, test = parts(split(digits, seed=42))
    assert (len(train), len(val), len(test)) == (1149, 288, 360)
    assert np.array_equal(np.sort(np.concatenate([train, val, test])), np.arange(1797))
    share = np.bincount(digits.targets) / 1797
    for part in (train, val, test):
        counts = np.bincount(digits.targets[part], minlength=10)
        assert np.abs(counts - share * len(part)).max() < 1.5


@pytest.mark.capability("H8")
def test_same_seed_same_parts(digits):
    first, again, other = (parts(split(digits, seed=seed)) for seed in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[2], other[2])


@pytest.mark.capability("E4")
@given(
    counts=st.lists(st.integers(8, 40), min_size=2, max_size=5),
    seed=st.integers(0, 2**40),
    val=st.sampled_from([0.0, 0.2, 0.4]),
)
def test_parts_are_disjoint_complete_and_hold_every_class(counts, seed, val):
    ds = labeled(np.repeat(np.arange(len(counts)), counts))
    found = parts(split(ds, val_fraction=val, seed=seed))
    assert sorted(np.concatenate(found).tolist()) == list(range(len(ds)))
    for part in found:
        assert set(ds.targets[part]) == set(range(len(counts))) or (len(part) == 0 and val == 0)


@pytest.mark.capability("H8")
def test_parts_that_are_there_are_kept():
    ds = labeled(np.arange(100) % 2)
    given_test = ds.with_splits(Splits(np.arange(60), np.empty(0, np.int64), np.arange(60, 100)))
    train, val, test = parts(split(given_test))
    assert test.tolist() == list(range(60, 100))
    assert (len(train), len(val)) == (48, 12)
    given_both = ds.with_splits(Splits(np.arange(50), np.arange(50, 70), np.arange(70, 100)))
    assert [len(p) for p in parts(split(given_both))] == [50, 20, 30]


@pytest.mark.capability("E5")
def test_a_subset_is_stratified(digits):
    ds = split(digits, seed=0, subset=1000, val_fraction=0.0)
    assert len(ds.splits.train) == 1000
    counts = np.bincount(digits.targets[ds.splits.train])
    assert (counts.min(), counts.max()) == (97, 102)
    # Lesson 3: 1000 of a balanced set are 100 of each class.
    even = split(labeled(np.arange(5000) % 10), subset=1000, val_fraction=0.0)
    assert np.bincount(even.targets[even.splits.train]).tolist() == [100] * 10


@pytest.mark.capability("E5")
@given(subset=st.integers(4, 30), seed=st.integers(0, 100))
def test_any_subset(subset, seed):
    ds = labeled([0] * 17 + [1] * 9 + [2] * 7)
    ds = ds.with_splits(Splits(np.arange(33), np.empty(0, np.int64), np.empty(0, np.int64)))
    got = split(ds, test_fraction=0.0, val_fraction=0.0, subset=subset, seed=seed).splits.train
    assert len(set(got.tolist())) == subset
    assert set(ds.targets[got]) == {0, 1, 2}


def test_a_subset_takes_from_training_and_validation_and_leaves_the_test():
    ds = labeled(np.arange(100) % 2)
    ds = ds.with_splits(Splits(np.arange(60), np.arange(60, 80), np.arange(80, 100)))
    assert [len(p) for p in parts(split(ds, subset=40))] == [30, 10, 20]
    assert [len(p) for p in parts(split(ds, subset=500))] == [60, 20, 20]


def test_targets_that_are_no_labels():
    ds = from_arrays(np.zeros((50, 2, 2)), np.zeros((50, 3)))
    assert [len(p) for p in parts(split(ds, subset=20))] == [16, 4, 10]


@pytest.mark.capability("H8")
def test_too_few_images_are_refused():
    with pytest.raises(DataError, match=r"too few .*\(smallest class: 1\); add images or change the fraction"):
        split(labeled([0] * 50 + [1]))
    with pytest.raises(DataError, match="add images"):
        split(labeled([0] * 50 + [1] * 2))
    with pytest.raises(DataError, match="a subset of 1 images cannot hold all 2 classes; take more images"):
        split(labeled(np.arange(100) % 2), subset=1)


def test_wrong_arguments():
    ds = labeled(np.arange(100) % 2)
    with pytest.raises(OptionError, match="val_fraction must be at least 0 and below 1, got 1"):
        split(ds, val_fraction=1.0)
    with pytest.raises(OptionError, match=r"test_fraction must be at least 0 and below 1, got -0.1"):
        split(ds, test_fraction=-0.1)
    with pytest.raises(OptionError, match="subset must be at least 1, got 0"):
        split(ds, subset=0)
