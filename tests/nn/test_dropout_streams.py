"""Where layers draw from: streams, one number of the layer further for each, or NumPy's generator."""

from __future__ import annotations

import numpy as np
import pytest

from oracles import randn
from pellucid import nn
from pellucid.random import Stream


def ones(*shape):
    return np.ones(shape, dtype=np.float32)


def training(layer, x, rng):
    return layer.forward(x, training=True, rng=rng)[0]


@pytest.mark.capability("B21")
@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_kept_elements_are_scaled_so_that_the_mean_stays(p):
    y = training(nn.Dropout(p), ones(100, 200), Stream(3))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / (1 - p))}
    assert (y == 0).mean() == pytest.approx(p, abs=0.01)
    assert y.mean() == pytest.approx(1, abs=0.03)


@pytest.mark.capability("B21")
def test_the_ends_and_eval():
    x = randn(0, 3, 4)
    assert np.array_equal(training(nn.Dropout(0), x, None), x)
    assert np.array_equal(training(nn.Dropout(0.0), x, Stream(0)), x)
    assert training(nn.Dropout(1), x, Stream(0)).tolist() == np.zeros((3, 4)).tolist()
    for p in (0, 0.5, 1):
        assert np.array_equal(nn.Dropout(p)(x), x)
        assert np.array_equal(nn.Dropout(p).forward(x, rng=Stream(0))[0], x)


def test_backward_uses_the_mask_of_its_forward():
    x, dy = ones(4, 6), randn(0, 4, 6, dtype="float32")
    layer = nn.Dropout(0.5)
    y, backward = layer.forward(x, training=True, rng=Stream(1))
    layer.forward(x, training=True, rng=Stream(2))
    assert np.array_equal(backward(dy)[0], dy * y)


@pytest.mark.capability("B21", "D19")
def test_same_counters_same_mask():
    layer, x = nn.Dropout(0.5), ones(8, 50)
    a = training(layer, x, Stream(1, 2, 3, 4))
    assert np.array_equal(a, training(nn.Dropout(0.5), x, Stream(1, 2, 3, 4)))
    for other in (Stream(0, 2, 3, 4), Stream(1, 0, 3, 4), Stream(1, 2, 0, 4), Stream(1, 2, 3, 0)):
        assert 0.3 < (training(layer, x, other) == a).mean() < 0.7


def test_the_mask_counts_elements_in_row_major_order_of_the_batch():
    layer = nn.Dropout(0.5)
    whole = training(layer, ones(6, 2, 3, 4), Stream(5))
    assert np.array_equal(training(layer, ones(2, 2, 3, 4), Stream(5)), whole[:2])
    assert np.array_equal(training(layer, np.asfortranarray(ones(6, 2, 3, 4)), Stream(5)), whole)
    assert np.array_equal(training(layer, ones(6, 2, 3, 4).astype(float), Stream(5)), whole)


def test_two_dropout_layers_get_different_masks():
    net = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    x = ones(1, 4000)
    first = training(nn.Dropout(0.5), x, Stream(9, layer=0))
    second = training(nn.Dropout(0.5), x, Stream(9, layer=1))
    y = training(net, x, Stream(9))
    assert np.array_equal(y, first * second)
    assert (y > 0).mean() == pytest.approx(0.25, abs=0.03)


def test_the_layer_number_counts_places_depth_first():
    """A layer's stream does not depend on how layers are nested, and body comes before shortcut."""
    x = ones(2, 300)
    flat = nn.Sequential(nn.ReLU(), nn.Dropout(0.5), nn.Tanh(), nn.Dropout(0.3))
    nested = nn.Sequential(nn.Sequential(nn.ReLU(), nn.Sequential(nn.Dropout(0.5)), nn.Tanh()), nn.Dropout(0.3))
    assert np.array_equal(training(flat, x, Stream(1)), training(nested, x, Stream(1)))
    block = nn.Sequential(
        nn.ReLU(), nn.Residual(nn.Sequential(nn.ReLU(), nn.Dropout(0.5)), nn.Dropout(0.5)), nn.Dropout(0.5)
    )
    body, around, after = (training(nn.Dropout(0.5), x, Stream(1, layer=n)) for n in (2, 3, 4))
    assert np.array_equal(training(block, x, Stream(1)), (body + around) * after)


def test_the_same_dropout_twice_draws_twice():
    shared = nn.Dropout(0.5)
    x = ones(1, 500)
    y = training(nn.Sequential(shared, shared), x, Stream(1))
    assert np.array_equal(y, training(shared, x, Stream(1, layer=0)) * training(shared, x, Stream(1, layer=1)))


def test_a_numpy_generator_works_and_moves_on():
    net = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    x = ones(2, 200)
    a = training(net, x, np.random.default_rng(0))
    assert np.array_equal(a, training(net, x, np.random.default_rng(0)))
    rng = np.random.default_rng(0)
    training(net, x, rng)
    assert not np.array_equal(a, training(net, x, rng))


@pytest.mark.capability("D19")
def test_global_random_state_is_neither_read_nor_written():
    def run():
        net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), input_shape=(4,), seed=1)
        return training(net, ones(3, 4), Stream(2))

    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    a = run()
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert np.array_equal(run(), a)
