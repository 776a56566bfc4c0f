"""NaN and infinity spread as in the definition, stay with their image, and end a training without harm."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from available import EVERY_ENGINE
from compiled import networks
from pellucid import engines, nn, optim
from pellucid.compiled.engine import programs
from pellucid.engines import Engine
from pellucid.nn import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    LazyLinear,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)

pytestmark = pytest.mark.capability("C14", "H15")

SHAPE = networks.OPERATIONS_SHAPE
VALUES = [np.nan, np.inf, -np.inf]

LAYERS = {
    "conv": [Conv2d(2, 3, 3)],
    "conv, padded": [Conv2d(2, 5, (3, 4), 2, padding=2, dilation=(1, 2))],
    "conv relu": [Conv2d(2, 17, 3, padding=1), ReLU(), Conv2d(17, 2, 1)],
    "groups": [Conv2d(2, 8, 3, groups=2), ReLU(), Conv2d(8, 4, 2, 2, groups=4)],
    "depthwise": [Conv2d(2, 2, 3, padding=1, groups=2), ReLU()],
    "fused": [Conv2d(2, 9, 3, padding=1), ReLU(), MaxPool2d(2)],
    "fused, ReLU behind": [Conv2d(2, 9, 2), MaxPool2d((3, 2)), ReLU(), Conv2d(9, 2, 1)],
    "max": [MaxPool2d(3, 2, 1, ceil_mode=True)],
    "max alone": [Tanh(), MaxPool2d(2, 1)],
    "wide max": [LeakyReLU(0.1), MaxPool2d((16, 16), 1, 8)],
    "mean": [AvgPool2d(2, 2, 1, ceil_mode=True)],
    "adaptive": [AdaptiveAvgPool2d((4, 3))],
    "norm": [Conv2d(2, 3, 1), BatchNorm2d(3), ReLU()],
    "leaky": [LeakyReLU(0.1)],
    "leaky, flat": [LeakyReLU(0.0)],
    "sigmoid": [Sigmoid()],
    "tanh": [Tanh()],
    "softmax": [Softmax(1)],
    "softmax of rows": [Softmax(-1)],
    "softmax of all": [Flatten(), Softmax(1)],
    "relu": [ReLU()],
    "dropout": [Dropout(0.5), Conv2d(2, 3, 3, padding=1)],
    "dense": [Flatten(), LazyLinear(19), ReLU(), Linear(19, 5)],
    "residual": [Residual(Sequential(Conv2d(2, 2, 3, padding=1), ReLU())), ReLU()],
    "flatten": [Conv2d(2, 3, 3), Flatten()],
}


FAST = {
    "pooled in registers": [Conv2d(2, 9, 3), ReLU(), MaxPool2d(2)],
    "pooled in registers, no ReLU": [Conv2d(2, 19, (2, 3), padding=1), MaxPool2d(2), Conv2d(19, 2, 1)],
    "before Winograd": [Conv2d(2, 16, 3, padding=1), Tanh(), Conv2d(16, 16, 3, padding=1), Conv2d(16, 3, 1)],
}
LAYERS |= FAST | networks.OPERATIONS


def images(n: int = 21) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((n, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("bad", VALUES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_stays_with_its_image_and_spreads_as_in_the_definition(name, bad):
    network = Sequential(*copy.deepcopy(LAYERS[name]), input_shape=SHAPE)
    x, spoiled = images(), images()
    # Corners, the middle, everything; the frames of these images serve others afterwards.
    places = {0: (0, 0, 0), 3: (1, 4, 3), 4: (1, 8, 6), 7: (..., 0), 12: (...,), 20: (0, 8, 0)}
    for image, place in places.items():
        spoiled[(image, *place)] = bad
    definition = engines.create("reference")
    definition.build(network.astype("float64"))
    expected = definition.predict(spoiled)
    for threads in (1, 3):
        engine = engines.create("compiled")
        engine.build(network, threads=threads)
        clean = engine.predict(x)
        outputs = engine.predict(spoiled)
        assert np.array_equal(np.isnan(outputs), np.isnan(expected))
        infinite = np.isinf(expected)
        assert np.array_equal(np.where(infinite, expected, 0), np.where(np.isinf(outputs), outputs, 0))
        fine = np.isfinite(expected)
        assert np.allclose(outputs[fine], expected[fine], rtol=1e-4, atol=1e-5)
        others = [i for i in range(len(x)) if i not in places]
        assert outputs[others].tobytes() == clean[others].tobytes()
        assert engine.predict(x).tobytes() == clean.tobytes()


def test_the_faster_ways_are_among_these():
    for name, kernel in zip(FAST, ("correlate_pool2[", "correlate_pool2[", "winograd["), strict=True):
        network = Sequential(*LAYERS[name], Flatten(), LazyLinear(2), input_shape=SHAPE)
        assert kernel in str(programs(network)[1]), name


@pytest.mark.parametrize("bad", VALUES, ids=str)
@pytest.mark.parametrize("pools", [False, True])
def test_winograd(pools, bad):
    """NaN goes where it goes in the definition; an infinity there too, but as NaN where it meets itself."""
    layers = [Conv2d(16, 32, 3, padding=1), ReLU(), MaxPool2d(2)] if pools else [Conv2d(16, 16, 3, padding=1)]
    network = Sequential(*layers, Flatten(), Softmax(1), input_shape=(16, 9, 7))
    kernel = "winograd_pool2[" if pools else "winograd["
    assert kernel in str(programs(network)[1])
    network = Sequential(*layers, input_shape=(16, 9, 7))
    x = np.random.default_rng(5).standard_normal((70, 16, 9, 7)).astype(np.float32)
    spoiled = x.copy()
    for i in range(63):
        spoiled[i, i % 16, i // 7, i % 7] = bad  # each pixel once
    definition, engine = engines.create("reference"), engines.create("compiled")
    definition.build(network.astype("float64"))
    engine.build(network, threads=2)
    expected, outputs, clean = definition.predict(spoiled), engine.predict(spoiled), engine.predict(x)
    wrong = ~np.isfinite(expected)
    assert np.isnan(outputs[np.isnan(expected)]).all()
    assert not np.isfinite(outputs[wrong]).any()
    if np.isnan(bad):
        assert not np.isnan(outputs[~wrong]).any()
    fine = np.isfinite(outputs)
    assert np.allclose(outputs[fine], expected[fine], rtol=1e-4, atol=1e-4)
    reached = np.isnan(definition.predict(np.where(np.isfinite(spoiled), spoiled, np.nan)))
    assert not (~fine & ~reached).any(), "only what the definition computes from it"
    assert outputs[63:].tobytes() == clean[63:].tobytes()
    assert engine.predict(x).tobytes() == clean.tobytes()


def test_the_values_above_do_reach_the_outputs():
    for name in ("conv", "fused", "max", "dense", "residual"):
        network = Sequential(*LAYERS[name], input_shape=SHAPE)
        x = images(2)
        x[1, 0, 0, 0] = np.nan
        assert np.isnan(network(x)[1]).any(), name


# Training


def network() -> Sequential:
    return Sequential(
        Conv2d(2, 6, 3, padding=1),
        BatchNorm2d(6),
        ReLU(),
        Conv2d(6, 8, 3),
        ReLU(),
        MaxPool2d(2),
        Dropout(0.3),
        Flatten(),
        LazyLinear(4),
        input_shape=SHAPE,
    )


def built(name: str, loss: nn.Loss, optimizer: optim.Optimizer, threads: int = 2) -> Engine:
    engine = engines.create(name)
    engine.build(network(), loss, optimizer, seed=2, threads=threads)
    return engine


def bits(engine: Engine) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in engine.state().items()}


OPTIMIZERS = [optim.SGD(0.05, 0.9), optim.Adam(1e-2), optim.RMSprop(1e-3, momentum=0.9), optim.SGD(0.1, clip_norm=0.1)]


@pytest.mark.capability("H37")
@pytest.mark.parametrize("bad", VALUES, ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_a_loss_that_is_not_finite_ends_training_with_that_step_not_applied(optimizer, bad):
    x, y = images(24), np.arange(24) % 4
    spoiled = x.copy()
    spoiled[17, 1, 4, 4] = bad
    order, rates = np.arange(24), np.full(6, optimizer.lr)
    for threads in (1, 3):
        engine = built("compiled", nn.CrossEntropyLoss(), optimizer, threads)
        clean = built("compiled", nn.CrossEntropyLoss(), optimizer, 1)
        definition = built("reference", nn.CrossEntropyLoss(), optimizer)
        losses = engine.train(spoiled, y, order, 4, 0, rates)
        expected = definition.train(spoiled, y, order, 4, 0, rates)
        before = clean.train(x, y, order, 4, 0, rates[:4])
        assert len(losses) == len(expected) == len(engine.hits) == len(definition.hits) == 5
        assert losses[:4].tolist() == before.tolist()
        assert not np.isfinite(losses[4])
        assert not np.isfinite(expected[4])
        assert bits(engine) == bits(clean)
        # Nothing of it is left in frames, sums or memory: training goes on as if it had never been.
        assert engine.predict(x).tobytes() == clean.predict(x).tobytes()
        after = engine.train(x, y, order[16:], 4, 4, rates[:2])
        assert after.tolist() == clean.train(x, y, order[16:], 4, 4, rates[:2]).tolist()
        assert bits(engine) == bits(clean)


@pytest.mark.capability("H37")
@pytest.mark.parametrize("bad", VALUES, ids=str)
def test_so_does_one_image_at_a_time(bad):
    x, y, optimizer = images(8), np.arange(8) % 4, optim.SGD(0.05, weight_decay=0.1)
    spoiled = x.copy()
    spoiled[5, 1, 4, 4] = bad
    engine, clean = (built("compiled", nn.CrossEntropyLoss(), optimizer) for _ in range(2))
    losses = engine.train(spoiled, y, np.arange(8), 1, 0, np.full(8, 0.05))
    assert losses[:5].tolist() == clean.train(x, y, np.arange(8), 1, 0, np.full(5, 0.05)).tolist()
    assert len(losses) == 6
    assert not np.isfinite(losses[5])
    assert bits(engine) == bits(clean)
    after = engine.train(x, y, np.arange(5, 8), 1, 5, np.full(3, 0.05))
    assert after.tolist() == clean.train(x, y, np.arange(5, 8), 1, 5, np.full(3, 0.05)).tolist()
    assert bits(engine) == bits(clean)


@pytest.mark.parametrize("other", EVERY_ENGINE)
def test_an_infinite_gradient_stays_in_its_rows(other):
    """A loss may be finite whose gradient is not; what fills up a row of the weight in memory must not become NaN."""
    predictions = []
    for name in ("reference", other):
        network = Sequential(Linear(3, 2), ReLU(), Linear(2, 2), input_shape=(3,))
        with network.edit():
            network[0].weight[...], network[0].bias[...] = 1e-38, 0
            network[2].weight[...], network[2].bias[...] = [[3e38, 0], [0, 1]], 0
        engine = engines.create(name)
        engine.build(network, nn.MSELoss(), optim.SGD(1.0))
        x = np.ones((1, 3), dtype=np.float32)
        with np.errstate(all="ignore"):
            assert np.isfinite(engine.train(x, np.full((1, 2), -50.0), np.zeros(1, dtype=int), 1, 0, np.ones(1))).all()
        assert np.isinf(network[0].weight[0]).all()
        predictions.append(engine.train(x, np.zeros((1, 2)), np.zeros(1, dtype=int), 1, 1, np.ones(1)))
    assert np.allclose(*predictions, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("name", EVERY_ENGINE)
def test_a_first_step_that_is_not_finite_changes_nothing(name):
    engine = built(name, nn.CrossEntropyLoss(), optim.Adam(0.1))
    before = bits(engine)
    x = images(8)
    x[:] = np.inf
    losses = engine.train(x, np.zeros(8, dtype=np.int64), np.arange(8), 4, 0, np.ones(2))
    assert len(losses) == 1
    assert not np.isfinite(losses[0])
    assert bits(engine) == before


@pytest.mark.parametrize("name", EVERY_ENGINE)
@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.BCEWithLogitsLoss(), nn.CrossEntropyLoss()], ids=repr)
def test_targets_that_are_not_finite(name, loss):
    engine = built(name, loss, optim.SGD(0.1, 0.9))
    x, y = images(12), np.full((12, 4), 0.25)
    y[6, 2] = np.nan
    losses = engine.train(x, y, np.arange(12), 4, 0, np.full(3, 0.1))
    expected = built(name, loss, optim.SGD(0.1, 0.9))
    assert losses[:1].tolist() == expected.train(x, y, np.arange(4), 4, 0, np.full(1, 0.1)).tolist()
    assert len(losses) == 2
    assert np.isnan(losses[1])
    assert bits(engine) == bits(expected)


@pytest.mark.parametrize("name", EVERY_ENGINE)
def test_a_batch_whose_class_weights_are_all_zero(name):
    """The mean of nothing: NaN in both engines."""
    engine = built(name, nn.CrossEntropyLoss([0.0, 1.0, 1.0, 1.0]), optim.SGD(0.1))
    losses = engine.train(images(8), np.array([1, 0, 2, 3, 0, 0, 0, 0]), np.arange(8), 4, 0, np.full(2, 0.1))
    assert len(losses) == 2
    assert np.isfinite(losses[0])
    assert np.isnan(losses[1])


@pytest.mark.parametrize("name", EVERY_ENGINE)
def test_parameters_that_grow_beyond_float32(name):
    """A learning rate far too large: both engines end early, and only with a last loss that is not finite."""
    engine = built(name, nn.MSELoss(), optim.SGD(1e30))
    x, y = images(12), np.zeros((12, 4))
    losses = engine.train(x, y, np.tile(np.arange(12), 3), 4, 0, np.full(9, 1e30))
    assert 1 < len(losses) < 9
    assert np.isfinite(losses[:-1]).all()
    assert not np.isfinite(losses[-1])
