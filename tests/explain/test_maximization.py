"""Activation maximization: the rise, the range, the seed, and that pictures stay smooth enough to read."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid as pl
from explain.networks import model, network
from pellucid import explain, nn
from pellucid.errors import OptionError

pytestmark = pytest.mark.capability("F8")


@pytest.fixture(scope="module")
def trained():
    """A network that tells upright from lying bars."""
    rng = np.random.default_rng(0)
    images = rng.normal(0.2, 0.05, (200, 1, 12, 12)).clip(0, 1)
    labels = np.arange(200) % 2
    for image, label, at in zip(images, labels, rng.integers(2, 10, 200), strict=True):
        np.moveaxis(image[0], label, 0)[at - 1 : at + 1] = 0.9
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(2))
    return pl.fit(net, (images, labels), epochs=8, engine="reference", progress=False).model


def test_a_class_is_climbed_to_and_recognized(trained):
    found = explain.maximize(trained, -1, [0, 1])
    assert found.images.shape == (2, 1, 12, 12)
    assert (found.after > found.before + 1).all()
    low, high = trained.input.value_range
    assert found.images.min() >= low
    assert found.images.max() <= high
    assert trained.predict(found.images).indices.tolist() == [0, 1]
    lying, upright = (
        np.abs(np.diff(image[0], axis=0)).sum() / np.abs(np.diff(image[0], axis=1)).sum() for image in found.images
    )
    assert lying > upright, "bars of class 0 lie"


def test_before_and_after_are_what_the_filter_answers(trained):
    found = explain.maximize(trained, 0, [1, 3], steps=10)
    for k, unit in enumerate((1, 3)):
        answer = np.maximum(explain.feature_maps(trained, found.images[k])["0"][unit], 0).mean()
        assert found.after[k] == pytest.approx(answer, rel=1e-4)
        assert found.after[k] > found.before[k]
    none = explain.maximize(trained, 0, 1, steps=10, rate=0.0, decay=0.0, blur=0.0)
    assert np.array_equal(none.after, none.before)


def test_same_seed_same_pictures_and_each_filter_for_itself(trained):
    both = explain.maximize(trained, 0, range(2), steps=6, seed=4)
    assert np.array_equal(both.images, explain.maximize(trained, 0, [0, 1], steps=6, seed=4).images)
    assert np.allclose(both.images[1:], explain.maximize(trained, 0, 1, steps=6, seed=4).images, atol=1e-6)
    assert not np.allclose(both.images, explain.maximize(trained, 0, [0, 1], steps=6, seed=5).images, atol=0.01)


def test_jitter_blur_and_decay_make_it_smoother(trained):
    def roughness(images):
        return np.abs(np.diff(images, 2, axis=3)).mean()

    plain = explain.maximize(trained, -1, [0, 1], jitter=0, blur=0.0, decay=0.0)
    assert roughness(explain.maximize(trained, -1, [0, 1]).images) < 0.8 * roughness(plain.images)


def test_a_dead_filter_says_so():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2), input_shape=(1, 6, 6))
    net[0].weight = np.zeros((2, 1, 3, 3))
    net[0].bias = np.array([-1.0, -1.0])
    found = explain.maximize(model(net), 1, [0, 1], steps=4)
    assert found.after.tolist() == found.before.tolist() == [0, 0]
    assert np.isfinite(found.images).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"units": [4]}, "units 4 lies outside 4"),
        ({"units": []}, "units is empty; give the numbers"),
        ({"units": 0, "steps": 0}, "steps must be at least 1"),
        ({"units": 0, "decay": 1.5}, "decay must be a number of at least 0 and below 1"),
        ({"units": 0, "jitter": -1}, "jitter must be at least 0"),
        ({"units": 0, "seed": -1}, "seed must be at least 0"),
        ({"units": "ab"}, "units must be a number"),
    ],
)
def test_settings_that_cannot_be(options, match):
    with pytest.raises(OptionError, match=match):
        explain.maximize(model(network("plain")), 0, **options)
