"""Optimizers against torch.optim, clipping, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles import assert_near, randn, seeds
from pellucid import nn
from pellucid.errors import OptionError
from pellucid.optim import OPTIMIZERS, SGD, Adam, AdamW, Optimizer, RMSprop, clip_layer_norm, clip_norm

CASES = [
    (SGD, {}),
    (SGD, {"momentum": 0.9}),
    (SGD, {"weight_decay": 0.1}),
    (SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    (SGD, {"momentum": 0.8, "nesterov": True}),
    (SGD, {"momentum": 0.8, "nesterov": True, "weight_decay": 0.05}),
    (RMSprop, {}),
    (RMSprop, {"alpha": 0.9, "eps": 1e-3}),
    (RMSprop, {"momentum": 0.9}),
    (RMSprop, {"momentum": 0.5, "weight_decay": 0.1}),
    (Adam, {}),
    (Adam, {"betas": (0.5, 0.9), "eps": 1e-3}),
    (Adam, {"weight_decay": 0.1}),
    (AdamW, {}),
    (AdamW, {"betas": (0.8, 0.99), "weight_decay": 0.3}),
]


def rates(steps):
    """A learning rate that changes in every step."""
    return 0.01 * (1.5 + np.sin(np.arange(steps)))


def train(kind, options, start, gradients, dtype=np.float64):
    optimizer, w = kind(**options), start.astype(dtype)
    state = optimizer.start(w.size, dtype)
    path = []
    for step, (g, lr) in enumerate(zip(gradients, rates(len(gradients)), strict=True)):
        optimizer.step(w, g.astype(dtype), state, float(lr), step)
        path.append(w.copy())
    return path, state


@pytest.mark.capability("D5", "D6", "D7", "D8", "C14")
@pytest.mark.parametrize(("kind", "options"), CASES)
def test_100_steps_equal_torch(torch, kind, options):
    start, gradients = randn(0, 20), randn(1, 100, 20) * np.logspace(-4, 2, 20)
    leaf = torch.tensor(start, requires_grad=True)
    theirs = getattr(torch.optim, kind.__name__)([leaf], lr=1.0, **options)
    path, state = train(kind, options, start, gradients)
    for w, g, lr in zip(path, gradients, rates(100), strict=True):
        theirs.param_groups[0]["lr"] = lr
        leaf.grad = torch.tensor(g)
        theirs.step()
        assert_near(w, leaf, 1e-10)
    for name, value in state.items():
        assert_near(value, theirs.state[leaf][name], 1e-10, name)


@pytest.mark.capability("D7")
@pytest.mark.parametrize(("kind", "options"), CASES)
def test_float32_stays_float32(kind, options):
    start, gradients = randn(0, 20), randn(1, 50, 20)
    path, state = train(kind, options, start, gradients, np.float32)
    expected, _ = train(kind, options, start, gradients)
    assert path[-1].dtype == np.float32
    assert all(value.dtype == np.float32 for value in state.values())
    assert_near(path[-1], expected[-1], 1e-4)


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_defaults_and_config(torch, kind, options):
    optimizer = kind(**options)
    theirs = getattr(torch.optim, kind.__name__)([torch.zeros(1)], **options)
    assert {k: v for k, v in optimizer.config().items() if k in theirs.defaults} == {
        k: v for k, v in theirs.defaults.items() if k in optimizer.config()
    }
    for twin in (kind(**optimizer.config()), eval(repr(optimizer), {kind.__name__: kind})):
        assert twin.config() == optimizer.config()


@pytest.mark.capability("D5", "D6")
def test_by_hand():
    w, state = np.array([1.0]), {"momentum_buffer": np.zeros(1)}
    sgd = SGD(momentum=0.5)
    sgd.step(w, np.array([2.0]), state, lr=0.1, step=0)
    assert w[0] == pytest.approx(0.8)
    sgd.step(w, np.array([2.0]), state, lr=0.2, step=1)
    assert w[0] == pytest.approx(0.8 - 0.2 * 3)
    w = np.array([1.0])
    Adam().step(w, np.array([-7.0]), Adam().start(1, float), lr=0.1, step=0)
    assert w[0] == pytest.approx(1.1)


@pytest.mark.capability("D5", "D6")
@pytest.mark.parametrize(("kind", "options"), CASES)
def test_gradients_are_not_written(kind, options):
    optimizer, g = kind(**options), randn(0, 5)
    kept = g.copy()
    state = optimizer.start(5, float)
    for step in range(3):
        optimizer.step(np.ones(5), g, state, 0.1, step)
    assert np.array_equal(g, kept)


def test_what_is_remembered():
    assert SGD().start(3, float) == {}
    assert list(SGD(momentum=0.9).start(3, float)) == ["momentum_buffer"]
    assert list(RMSprop().start(3, float)) == ["square_avg"]
    assert list(RMSprop(momentum=0.9).start(3, float)) == ["square_avg", "momentum_buffer"]
    assert list(AdamW().start(3, float)) == ["exp_avg", "exp_avg_sq"]
    assert Adam().start(3, np.float32)["exp_avg"].dtype == np.float32
    assert set(OPTIMIZERS.values()) == {SGD, RMSprop, Adam, AdamW}


# Clipping


@pytest.mark.capability("D9")
@given(seeds, st.integers(1, 30), st.floats(-6, 6), st.floats(-3, 3))
def test_clip_norm_equals_torch_and_keeps_the_direction(torch, seed, n, size, limit):
    g, limit = randn(seed, n) * 10**size, 10**limit
    leaf = torch.zeros(n, dtype=torch.float64, requires_grad=True)
    leaf.grad = torch.tensor(g)
    torch.nn.utils.clip_grad_norm_([leaf], limit)
    clipped = clip_norm(g, limit)
    assert_near(clipped, leaf.grad, 1e-5 + 1e-6 / np.linalg.norm(g))  # PyTorch adds 1e-6 to the norm
    assert np.linalg.norm(clipped) <= limit * (1 + 1e-12) or np.array_equal(clipped, g)
    assert_near(clipped / np.linalg.norm(clipped), g / np.linalg.norm(g), 1e-12)


@pytest.mark.capability("D9")
def test_clip_norm_by_hand():
    assert clip_norm(np.array([30.0, 40.0]), 10).tolist() == [6, 8]
    assert clip_norm(np.array([3.0, 4.0]), 10).tolist() == [3, 4]
    assert clip_norm(np.zeros(3), 10).tolist() == [0, 0, 0]
    assert clip_norm(np.zeros(0), 10).shape == (0,)
    assert clip_norm(np.array([3, 4], np.float32), 1).dtype == np.float32


@pytest.mark.capability("D9")
def test_clip_norm_of_exploding_float32():
    """The square of 1e30 is no float32; the norm is."""
    assert_near(clip_norm(np.array([3e30, -4e30], np.float32), 10), [6, -8], 1e-6)


@pytest.mark.capability("D9")
def test_clip_layer_norm_clips_each_layer_for_itself():
    g = np.array([30.0, 40.0, 0.0, 0.0, 5.0])
    kept = g.copy()
    layers = [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert clip_layer_norm(g, 10, layers).tolist() == [6, 8, 0, 0, 5]
    assert np.array_equal(g, kept)


@pytest.mark.capability("D9")
def test_clipping_comes_before_the_step():
    net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False), input_shape=(2,))
    g = np.array([30.0, 40.0, 100.0])
    for options, expected in [
        ({"clip_layer_norm": 10}, [-6, -8, -10]),
        ({"clip_norm": np.sqrt(12500) / 10}, [-3, -4, -10]),
        ({"clip_norm": np.sqrt(2), "clip_layer_norm": 1}, [-0.6, -0.8, -1]),
    ]:
        w = np.zeros(3)
        SGD(**options).step(w, g, {}, lr=1.0, step=0, layers=net.layer_slices())
        assert w == pytest.approx(expected)
    with pytest.raises(OptionError, match=r"clip_layer_norm needs layers=, see Network\.layer_slices"):
        SGD(clip_layer_norm=1.0).step(np.zeros(3), g, {}, lr=1.0, step=0)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SGD(lr=-1), "lr must be a number of at least 0, got -1"),
        (lambda: SGD(lr="0.1"), "lr must be a number"),
        (lambda: SGD(lr=float("nan")), "lr must be a number"),
        (lambda: SGD(lr=float("inf")), "lr must be a number"),
        (lambda: SGD(lr=True), "lr must be a number"),
        (lambda: SGD(momentum=-0.1), "momentum must be a number of at least 0"),
        (lambda: SGD(nesterov=True), "nesterov needs momentum greater than 0"),
        (lambda: SGD(weight_decay=-1), "weight_decay must be a number"),
        (lambda: SGD(clip_norm=0), "clip_norm must be greater than 0, got 0"),
        (lambda: Adam(clip_norm=-1), "clip_norm must be a number of at least 0"),
        (lambda: Adam(clip_layer_norm=0.0), "clip_layer_norm must be greater than 0"),
        (lambda: RMSprop(alpha=-1), "alpha must be a number"),
        (lambda: RMSprop(eps=-1), "eps must be a number"),
        (lambda: Adam(betas=0.9), "betas must be a pair of numbers, got 0.9"),
        (lambda: Adam(betas=(0.9, 1.0)), "betas must be a number of at least 0 and below 1, got 1.0"),
        (lambda: AdamW(betas=(0.9,)), "betas must be a pair"),
    ],
)
def test_refusals(make, match):
    with pytest.raises(OptionError, match=match):
        make()


def test_an_optimizer_of_ones_own_must_say_how():
    class Mine(Optimizer):
        def __init__(self):
            super().__init__(0.1, 0.0, None, None)

    with pytest.raises(TypeError, match="Mine must define _update"):
        Mine().step(np.zeros(1), np.zeros(1), {}, 0.1, 0)
