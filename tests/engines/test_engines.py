"""Engines: one protocol, chunks that give the same bits however they are cut, and PyTorch's numbers."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from pellucid import engines, nn, optim
from pellucid.engines import Engine, ReferenceEngine
from pellucid.errors import EngineError, OptionError, ShapeError
from pellucid.random import Stream

ENGINES = [ReferenceEngine]
METHODS = ("build", "predict", "loss_and_gradients", "train", "state", "load_state")


def network(seed: int = 0, dtype: str = "float32", dropout: float = 0.25) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.LazyLinear(3),
    ).build((1, 7, 6), seed, dtype)


def samples(n: int = 22, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 1, 7, 6)).astype(np.float32), rng.integers(0, 3, n)


def built(net: nn.Network, optimizer: optim.Optimizer | None = None, **options) -> ReferenceEngine:
    engine = ReferenceEngine()
    engine.build(net, nn.CrossEntropyLoss(), optimizer or optim.Adam(lr=1e-2), **options)
    return engine


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("name", METHODS)
def test_every_engine_has_the_protocols_methods(kind, name):
    assert inspect.signature(getattr(kind, name)) == inspect.signature(getattr(Engine, name))
    assert {m for m in vars(Engine) if not m.startswith("_")} == set(METHODS)


def test_create():
    assert engines.NAMES == ("reference",)
    assert isinstance(engines.create("reference"), ReferenceEngine)
    with pytest.raises(EngineError, match=r'this version has no engine "compiled" yet; use the engine "reference"'):
        engines.create("compiled")
    with pytest.raises(OptionError, match=r'unknown engine "refernce"; did you mean "reference"'):
        engines.create("refernce")


def test_what_is_not_ready_says_so():
    x, y = samples()
    engine = ReferenceEngine()
    with pytest.raises(EngineError, match=r"not built yet; call build"):
        engine.predict(x)
    with pytest.raises(EngineError, match=r"give input_shape=\(C, H, W\)"):
        engine.build(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)))
    with pytest.raises(OptionError, match=r"threads must be at least 1, got 0"):
        engine.build(network(), threads=0)
    engine.build(network())
    with pytest.raises(EngineError, match=r"without a loss"):
        engine.loss_and_gradients(x, y)
    with pytest.raises(EngineError, match=r"without an optimizer"):
        engine.train(x, y, np.arange(4), 2, 0, np.ones(2))
    with pytest.raises(ShapeError, match=r"takes \(N, 1, 7, 6\), got \(22, 7, 6\)"):
        engine.predict(x[:, 0])


@pytest.mark.capability("D4")
def test_softmax_before_cross_entropy_is_refused_at_build():
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3), nn.Softmax(), input_shape=(1, 7, 6))
    with pytest.raises(OptionError, match=r"takes logits and applies softmax itself.*remove that last layer"):
        ReferenceEngine().build(net, nn.CrossEntropyLoss())


# predict


@pytest.mark.capability("D20")
def test_predict_in_batches_equals_one_call():
    net = network()
    engine = built(net)
    x, _ = samples(50)
    whole = engine.predict(x)
    assert np.allclose(whole, net(x), rtol=1e-5, atol=1e-6)
    engine._predict_batch = 7
    assert np.allclose(engine.predict(x), whole, rtol=1e-5, atol=1e-6)
    assert np.array_equal(engine.predict(x), np.concatenate([net(x[i : i + 7]) for i in range(0, 50, 7)]))


@pytest.mark.capability("D20")
def test_predict_batches_are_bounded_by_memory():
    large = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.Flatten(), nn.LazyLinear(2), input_shape=(1, 96, 96))
    engine = ReferenceEngine()
    engine.build(large)
    assert engine._predict_batch * 9 * 64 * 96 * 96 * 4 <= 40e6
    assert built(network())._predict_batch == 256


@pytest.mark.capability("C8")
@pytest.mark.parametrize("n", [0, 1, 3])
def test_predict_takes_any_number_of_images(n):
    assert built(network()).predict(samples()[0][:n]).shape == (n, 3)


@pytest.mark.capability("D16")
def test_predict_never_drops_and_changes_nothing():
    net = network(dropout=0.9)
    engine = built(net)
    x, _ = samples()
    before, version = engine.state(), net.version
    assert np.array_equal(engine.predict(x), engine.predict(x))
    assert same(engine.state(), before)
    assert net.version == version


# gradients


def test_loss_and_gradients_change_nothing():
    net = network()
    engine = built(net)
    before = engine.state()
    first = engine.loss_and_gradients(*samples(), step=3)
    assert same(engine.state(), before)
    again = engine.loss_and_gradients(*samples(), step=3)
    assert first[0] == again[0]
    assert np.array_equal(first[1], again[1])
    assert not net.flat_parameters.flags.writeable


def test_loss_and_gradients_are_those_of_the_layers_one_by_one():
    net = network(dtype="float64")
    x, y = samples()
    value, flat = built(net, seed=5).loss_and_gradients(x, y, step=2)

    twin, steps, out = network(dtype="float64"), [], x.astype(np.float64)
    for number, (name, layer) in enumerate(twin.children()):
        out, backward = layer.forward(out, training=True, rng=Stream(5, step=2, layer=number))
        steps.append((name, backward))
    shifted = out - out.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    assert value == pytest.approx(-log_p[np.arange(len(y)), y].mean(), rel=1e-12)
    dy = (np.exp(log_p) - np.eye(3)[y]) / len(y)
    gradients = {}
    for name, backward in reversed(steps):
        dy, own = backward(dy)
        gradients.update({f"{name}.{key}": array for key, array in own.items()})
    for key, array in net.unflatten(flat).items():
        assert np.allclose(array, gradients[key], rtol=1e-9, atol=1e-12), key


# training


CUTS = [[9], [1] * 9, [4, 5], [2, 3, 1, 3], [8, 1]]


@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("optimizer", [optim.Adam(lr=1e-2), optim.SGD(lr=0.1, momentum=0.9)], ids=repr)
def test_chunks_cut_in_any_way_give_the_same_bits(cut, optimizer):
    x, y = samples(26)
    order = np.random.default_rng(1).permutation(26)
    rates = np.linspace(0.02, 0.001, 9)

    def run(lengths):
        engine = built(network(), optimizer)
        losses, hits, at = [], [], 0
        for n in lengths:
            batch = order[at * 3 : (at + n) * 3]
            losses += engine.train(x, y, batch, 3, at, rates[at : at + n]).tolist()
            hits += engine.hits.tolist()
            at += n
        return losses, hits, engine.state()

    losses, hits, state = run(cut)
    expected_losses, expected_hits, expected = run([9])
    assert losses == expected_losses
    assert hits == expected_hits
    assert same(state, expected)


@pytest.mark.capability("D11", "D13")
def test_a_short_last_batch_counts_its_real_samples():
    x, y = samples(8)
    engine = built(network(dropout=0.0), optim.SGD(lr=0.0))
    losses = engine.train(x, y, np.arange(8), 3, 0, np.zeros(3))
    assert losses.dtype == np.float64
    last = built(network(dropout=0.0)).loss_and_gradients(x[6:], y[6:])[0]
    assert losses[2] == pytest.approx(last, rel=1e-6)
    assert engine.hits.dtype == np.int64
    assert len(engine.hits) == 3
    assert engine.hits[2] <= 2
    assert engine.hits.sum() <= 8


def test_hits_are_those_of_the_outputs_before_each_step():
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3), input_shape=(1, 7, 6))
    x, y = samples(10)
    expected = (net(x).argmax(axis=1) == y).sum()
    engine = built(net, optim.SGD(lr=0.1))
    engine.train(x, y, np.arange(10), 10, 0, np.array([0.1]))
    assert engine.hits.tolist() == [expected]


@pytest.mark.capability("D19")
def test_dropout_depends_on_seed_and_step_only():
    x, y = samples()
    engine, other = built(network(), seed=4), built(network(), seed=4)
    for step in range(3):
        other.loss_and_gradients(x, y, step=step)
    a = engine.loss_and_gradients(x, y, step=7)[0]
    assert a == other.loss_and_gradients(x, y, step=7)[0]
    assert a != engine.loss_and_gradients(x, y, step=8)[0]
    assert a != built(network(), seed=5).loss_and_gradients(x, y, step=7)[0]


@pytest.mark.capability("H37")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_stops_after_the_first_loss_that_is_not_finite_and_does_not_apply_that_step(bad):
    x, y = samples(12)
    expected = built(network())
    expected.train(x, y, np.arange(8), 4, 0, np.full(2, 0.01))
    x[9] = bad
    engine = built(network())
    losses = engine.train(x, y, np.arange(12), 4, 0, np.full(3, 0.01))
    assert len(losses) == 3
    assert np.isfinite(losses[:2]).all()
    assert not np.isfinite(losses[2])
    assert len(engine.hits) == 3
    assert same(engine.state(), expected.state())
    assert {"parameters", "buffers", "exp_avg", "exp_avg_sq"} <= set(engine.state())


def test_state_goes_round():
    x, y = samples()
    engine = built(network())
    engine.train(x, y, np.arange(8), 4, 0, np.full(2, 0.01))
    kept = engine.state()
    frozen = {name: array.copy() for name, array in kept.items()}
    first = engine.train(x, y, np.arange(8, 16), 4, 2, np.full(2, 0.01))
    assert same(kept, frozen), "state() must give copies"
    other_net = network(seed=9)
    version = other_net.version
    other = built(other_net)
    other.load_state(kept)
    assert other_net.version > version
    assert np.array_equal(other.train(x, y, np.arange(8, 16), 4, 2, np.full(2, 0.01)), first)
    assert same(other.state(), engine.state())


def test_a_foreign_state_is_refused_and_nothing_is_taken():
    engine = built(network())
    before = engine.state()
    foreign = built(network(), optim.SGD(lr=0.1, momentum=0.9)).state()
    small = {name: array[:-1] for name, array in before.items()}
    for state in (foreign, small):
        with pytest.raises(EngineError, match="another network or optimizer"):
            engine.load_state(state)
    assert same(engine.state(), before)


def test_float_targets_train_and_have_no_hits():
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(2), input_shape=(1, 7, 6))
    engine = ReferenceEngine()
    engine.build(net, nn.MSELoss(), optim.SGD(lr=0.01))
    x, _ = samples(20)
    targets = np.random.default_rng(2).normal(size=(20, 2))
    losses = engine.train(x, targets, np.tile(np.arange(20), 5), 20, 0, np.full(5, 0.01))
    assert (np.diff(losses) < 0).all()
    assert engine.hits.tolist() == [0] * 5


@pytest.mark.capability("D10", "C14")
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_twenty_steps_give_pytorchs_losses(torch, name):
    """float64; PyTorch's dropout is replaced by a product with our masks."""
    p, seed, batch = 0.25, 3, 8
    net = network(seed=1, dtype="float64", dropout=p)
    x, y = samples(40)
    x = x.astype(np.float64)
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten()
    ).double()
    head = torch.nn.Linear(16, 3).double()
    state = {key: torch.tensor(np.asarray(value)) for key, value in net.state_dict().items()}
    head.load_state_dict({"weight": state.pop("6.weight"), "bias": state.pop("6.bias")})
    theirs.load_state_dict(state)
    parameters = [*theirs.parameters(), *head.parameters()]
    ours, optimizer = {
        "sgd": (optim.SGD(lr=0.05, momentum=0.9), torch.optim.SGD(parameters, lr=0.05, momentum=0.9)),
        "adam": (optim.Adam(lr=1e-2), torch.optim.Adam(parameters, lr=1e-2)),
    }[name]
    engine = built(net, ours, seed=seed)
    order = np.random.default_rng(5).integers(0, 40, 20 * batch)
    losses = engine.train(x, y, order, batch, 0, np.full(20, ours.lr))

    expected = []
    for step in range(20):
        chosen = order[step * batch : (step + 1) * batch]
        # A dropped value of 1 is 0, a kept one 1 / (1 - p): the layer's own answer to ones, in NCHW order.
        ones = np.ones((batch, 4, 2, 2))
        mask = nn.Dropout(p).forward(ones, training=True, rng=Stream(seed, step=step, layer=4))[0]
        maps = theirs[:4](torch.tensor(x[chosen])) * torch.tensor(mask)
        value = torch.nn.functional.cross_entropy(head(theirs[4](maps)), torch.tensor(y[chosen]))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        expected.append(value.item())
    assert np.abs(losses - expected).max() < 1e-8
    assert losses[-1] < losses[0]
    for key, value in theirs.state_dict().items():
        assert np.allclose(net.state_dict()[key], value.numpy(), rtol=1e-8, atol=1e-10), key
