"""Engines: one protocol, chunks that give the same bits however they are cut, and PyTorch's numbers."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from available import EVERY_ENGINE
from pellucid import engines, models, nn, optim
from pellucid.compiled.engine import CompiledEngine
from pellucid.engines import Engine, ReferenceEngine
from pellucid.errors import EngineError, OptionError, ShapeError
from pellucid.random import Stream

METHODS = ("build", "predict", "loss_and_gradients", "train", "interrupt", "state", "load_state")


@pytest.fixture(params=EVERY_ENGINE)
def name(request) -> str:
    """Of an engine."""
    return request.param


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


def built(name: str, net: nn.Network, optimizer: optim.Optimizer | None = None, **options) -> Engine:
    engine = engines.create(name)
    engine.build(net, nn.CrossEntropyLoss(), optimizer or optim.Adam(lr=1e-2), **options)
    return engine


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


@pytest.mark.parametrize("method", METHODS)
def test_every_engine_has_the_protocols_methods(name, method):
    kind = type(engines.create(name))
    assert inspect.signature(getattr(kind, method)) == inspect.signature(getattr(Engine, method))
    assert {m for m in vars(Engine) if not m.startswith("_")} == set(METHODS)
    assert isinstance(kind().hits, np.ndarray)


def test_create():
    assert engines.NAMES == ("compiled", "reference", "torch")
    assert [type(engines.create(name)) for name in engines.NAMES[:2]] == [CompiledEngine, ReferenceEngine]
    with pytest.raises(OptionError, match=r'unknown engine "refernce"; did you mean "reference"'):
        engines.create("refernce")


def test_what_is_not_ready_says_so(name):
    x, y = samples()
    engine = engines.create(name)
    with pytest.raises(EngineError, match=r"not built yet; call build"):
        engine.predict(x)
    with pytest.raises(EngineError, match=r"give input_shape=\(C, H, W\)"):
        engine.build(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)))
    with pytest.raises(OptionError, match=r"threads must be at least 1, got 0"):
        engine.build(network(), threads=0)
    engine.build(network())
    with pytest.raises(EngineError, match=r"without a loss"):
        engine.loss_and_gradients(x, y)
    with pytest.raises(ShapeError, match=r"takes \(N, 1, 7, 6\), got \(22, 7, 6\)"):
        engine.predict(x[:, 0])
    engine.build(network(), nn.CrossEntropyLoss())
    with pytest.raises(EngineError, match=r"without an optimizer"):
        engine.train(x, y, np.arange(4), 2, 0, np.ones(2))


@pytest.mark.capability("D4")
def test_softmax_before_cross_entropy_is_refused_at_build(name):
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3), nn.Softmax(), input_shape=(1, 7, 6))
    with pytest.raises(OptionError, match=r"takes logits and applies softmax itself.*remove that last layer"):
        engines.create(name).build(net, nn.CrossEntropyLoss())


# what only the reference engine runs


class OwnLayer(nn.ReLU):
    pass


class OwnLoss(nn.Loss):
    def forward(self, output, target):
        return float(output.mean()), lambda: np.full_like(output, 1 / output.size)


class OwnMSELoss(nn.MSELoss):
    def forward(self, output, target):
        value, backward = super().forward(output, target)
        return 3 * value, lambda: 3 * backward()


class OwnOptimizer(optim.SGD):
    def step(self, *arguments):
        super().step(*arguments)


REFERENCE_ONLY = {
    "layer": ((nn.ReLU(), nn.Sequential(OwnLayer())), nn.MSELoss(), optim.SGD(), "layer 2.0 (OwnLayer)"),
    "loss": ((), OwnLoss(), optim.SGD(), "the loss OwnLoss"),
    "changed loss": ((), OwnMSELoss(), optim.SGD(), "the loss OwnMSELoss"),
    "optimizer": ((), nn.MSELoss(), OwnOptimizer(lr=0.1), "the optimizer OwnOptimizer(lr=0.1)"),
}


@pytest.mark.parametrize("kind", REFERENCE_ONLY)
def test_what_users_write_runs_in_the_reference_engine_and_the_compiled_one_says_so(kind):
    layers, loss, optimizer, words = REFERENCE_ONLY[kind]
    net = nn.Sequential(nn.Flatten(), *layers, nn.LazyLinear(2), input_shape=(1, 7, 6))
    with pytest.raises(EngineError) as caught:
        CompiledEngine().build(net, loss, optimizer)
    assert f'the engine "compiled" has no kernel for {words}' in str(caught.value)
    assert 'the engine "reference" runs any' in str(caught.value)
    assert "\n" not in str(caught.value)
    engine = ReferenceEngine()
    engine.build(net, loss, optimizer)
    assert len(engine.train(samples()[0], np.zeros((22, 2)), np.arange(8), 4, 0, np.full(2, 0.1))) == 2


def test_the_compiled_engine_trains_in_float32_only():
    net, x = network(dtype="float64"), samples()[0]
    before = net.flat_parameters.copy()
    for optimizer in (None, optim.Adam()):
        with pytest.raises(EngineError) as caught:
            CompiledEngine().build(net, nn.CrossEntropyLoss(), optimizer)
        assert "trains in float32, the network is float64" in str(caught.value)
        assert 'use the engine "reference", or network.astype("float32")' in str(caught.value)
    engine = CompiledEngine()
    engine.build(net)
    outputs = engine.predict(x)
    assert outputs.dtype == np.float32
    assert np.allclose(outputs, net(x.astype(np.float64)), rtol=1e-5, atol=1e-6)
    assert net.dtype == np.float64
    assert np.array_equal(net.flat_parameters, before)


def test_without_numba_the_compiled_engine_names_the_reference():
    """Numba is asked not to compile, as when debugging; nothing may run half compiled."""
    code = """
import numpy as np
from pellucid import engines, nn
from pellucid.errors import EngineError
net = nn.Sequential(nn.Flatten(), nn.LazyLinear(2), input_shape=(1, 3, 3))
try:
    engines.create("compiled").build(net)
except EngineError as error:
    print(error)
engine = engines.create("reference")
engine.build(net)
print(engine.predict(np.zeros((2, 1, 3, 3))).shape)
"""
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    refusal, shape = done.stdout.splitlines()
    assert "NUMBA_DISABLE_JIT" in refusal
    assert 'use the engine "reference"' in refusal
    assert shape == "(2, 2)"


# predict


@pytest.mark.capability("D20")
def test_predict_in_batches_equals_one_call(name):
    net = network()
    engine = built(name, net)
    x, _ = samples(50)
    whole = engine.predict(x)
    assert np.allclose(whole, net(x), rtol=1e-5, atol=1e-6)
    parts = np.concatenate([engine.predict(x[i : i + 7]) for i in range(0, 50, 7)])
    assert np.allclose(parts, whole, rtol=1e-5, atol=1e-6)
    if name == "reference":
        engine._predict_batch = 7
        assert np.array_equal(engine.predict(x), parts)
        assert np.array_equal(parts, np.concatenate([net(x[i : i + 7]) for i in range(0, 50, 7)]))


@pytest.mark.capability("D20")
def test_predict_batches_are_bounded_by_memory():
    large = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.Flatten(), nn.LazyLinear(2), input_shape=(1, 96, 96))
    engine = ReferenceEngine()
    engine.build(large)
    assert engine._predict_batch * 9 * 64 * 96 * 96 * 4 <= 40e6
    assert built("reference", network())._predict_batch == 256


@pytest.mark.capability("C8")
@pytest.mark.parametrize("n", [0, 1, 3])
def test_predict_takes_any_number_of_images(name, n):
    assert built(name, network()).predict(samples()[0][:n]).shape == (n, 3)


@pytest.mark.capability("D16")
def test_predict_never_drops_and_changes_nothing(name):
    net = network(dropout=0.9)
    engine = built(name, net)
    x, _ = samples()
    before, version = engine.state(), net.version
    assert np.array_equal(engine.predict(x), engine.predict(x))
    assert same(engine.state(), before)
    assert net.version == version


def test_predict_sees_what_has_changed_in_the_network(name):
    net, x = network(), samples()[0]
    engine = built(name, net)
    first = engine.predict(x)
    with net.edit():
        net[1].running_mean[...] += 1.0
    second = engine.predict(x)
    net.load_state_dict(network(seed=3).state_dict())
    third = engine.predict(x)
    engine.train(x, samples()[1], np.arange(22), 22, 0, np.full(1, 0.1))
    for outputs, other in ((second, first), (third, second), (engine.predict(x), third)):
        assert not np.allclose(outputs, other)
    assert np.allclose(third, network(seed=3)(x), rtol=1e-5, atol=1e-6)
    assert np.allclose(engine.predict(x), net(x), rtol=1e-5, atol=1e-6)


# gradients


def test_loss_and_gradients_change_nothing(name):
    net = network()
    engine = built(name, net)
    before, version = engine.state(), net.version
    first = engine.loss_and_gradients(*samples(), step=3)
    assert same(engine.state(), before)
    again = engine.loss_and_gradients(*samples(), step=3)
    assert first[0] == again[0]
    assert np.array_equal(first[1], again[1])
    assert not net.flat_parameters.flags.writeable
    assert net.version == version


# In float32 the sums of a layer are exact to about 1e-6 of their largest terms.
TOLERANCES = {
    "compiled": ("float32", 1e-6, 1e-4, 1e-6),
    "reference": ("float64", 1e-12, 1e-9, 1e-12),
    "torch": ("float64", 1e-12, 1e-9, 1e-12),
}


def test_loss_and_gradients_are_those_of_the_layers_one_by_one(name):
    dtype, of_loss, rtol, atol = TOLERANCES[name]
    net = network(dtype=dtype)
    x, y = samples()
    value, flat = built(name, net, seed=5).loss_and_gradients(x, y, step=2)

    twin, steps, out = net.astype("float64"), [], x.astype(np.float64)
    for number, (key, layer) in enumerate(twin.children()):
        out, backward = layer.forward(out, training=True, rng=Stream(5, step=2, layer=number))
        steps.append((key, backward))
    shifted = out - out.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    assert value == pytest.approx(-log_p[np.arange(len(y)), y].mean(), rel=of_loss)
    dy = (np.exp(log_p) - np.eye(3)[y]) / len(y)
    gradients = {}
    for key, backward in reversed(steps):
        dy, own = backward(dy)
        gradients.update({f"{key}.{part}": array for part, array in own.items()})
    for key, array in net.unflatten(flat).items():
        assert np.allclose(array, gradients[key], rtol=rtol, atol=atol), key


# training


CUTS = [[9], [1] * 9, [4, 5], [2, 3, 1, 3], [8, 1]]


@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("optimizer", [optim.Adam(lr=1e-2), optim.SGD(lr=0.1, momentum=0.9)], ids=repr)
def test_chunks_cut_in_any_way_give_the_same_bits(name, cut, optimizer):
    x, y = samples(26)
    order = np.random.default_rng(1).permutation(26)
    rates = np.linspace(0.02, 0.001, 9)

    def run(lengths):
        engine = built(name, network(), optimizer)
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
def test_a_short_last_batch_counts_its_real_samples(name):
    x, y = samples(8)
    engine = built(name, network(dropout=0.0), optim.SGD(lr=0.0))
    losses = engine.train(x, y, np.arange(8), 3, 0, np.zeros(3))
    assert losses.dtype == np.float64
    last = built(name, network(dropout=0.0)).loss_and_gradients(x[6:], y[6:])[0]
    assert losses[2] == pytest.approx(last, rel=1e-6)
    assert engine.hits.dtype == np.int64
    assert len(engine.hits) == 3
    assert engine.hits[2] <= 2
    assert engine.hits.sum() <= 8


def test_hits_are_those_of_the_outputs_before_each_step(name):
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3), input_shape=(1, 7, 6))
    x, y = samples(10)
    expected = (net(x).argmax(axis=1) == y).sum()
    engine = built(name, net, optim.SGD(lr=0.1))
    engine.train(x, y, np.arange(10), 10, 0, np.array([0.1]))
    assert engine.hits.tolist() == [expected]


@pytest.mark.capability("D19")
def test_dropout_depends_on_seed_and_step_only(name):
    x, y = samples()
    engine, other = built(name, network(), seed=4), built(name, network(), seed=4)
    for step in range(3):
        other.loss_and_gradients(x, y, step=step)
    a = engine.loss_and_gradients(x, y, step=7)[0]
    assert a == other.loss_and_gradients(x, y, step=7)[0]
    assert a != engine.loss_and_gradients(x, y, step=8)[0]
    assert a != built(name, network(), seed=5).loss_and_gradients(x, y, step=7)[0]


@pytest.mark.capability("H37")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_stops_after_the_first_loss_that_is_not_finite_and_does_not_apply_that_step(name, bad):
    x, y = samples(12)
    expected = built(name, network())
    expected.train(x, y, np.arange(8), 4, 0, np.full(2, 0.01))
    x[9] = bad
    engine = built(name, network())
    losses = engine.train(x, y, np.arange(12), 4, 0, np.full(3, 0.01))
    assert len(losses) == 3
    assert np.isfinite(losses[:2]).all()
    assert not np.isfinite(losses[2])
    assert len(engine.hits) == 3
    assert same(engine.state(), expected.state())
    assert {"parameters", "buffers", "exp_avg", "exp_avg_sq"} <= set(engine.state())


def test_state_goes_round(name):
    x, y = samples()
    engine = built(name, network())
    engine.train(x, y, np.arange(8), 4, 0, np.full(2, 0.01))
    kept = engine.state()
    frozen = {name: array.copy() for name, array in kept.items()}
    first = engine.train(x, y, np.arange(8, 16), 4, 2, np.full(2, 0.01))
    assert same(kept, frozen), "state() must give copies"
    other_net = network(seed=9)
    version = other_net.version
    other = built(name, other_net)
    other.load_state(kept)
    assert other_net.version > version
    assert np.array_equal(other.train(x, y, np.arange(8, 16), 4, 2, np.full(2, 0.01)), first)
    assert same(other.state(), engine.state())


def test_a_foreign_state_is_refused_and_nothing_is_taken(name):
    engine = built(name, network())
    before = engine.state()
    foreign = built(name, network(), optim.SGD(lr=0.1, momentum=0.9)).state()
    small = {key: array[:-1] for key, array in before.items()}
    for state in (foreign, small):
        with pytest.raises(EngineError, match="another network or optimizer"):
            engine.load_state(state)
    assert same(engine.state(), before)


def test_float_targets_train_and_have_no_hits(name):
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(2), input_shape=(1, 7, 6))
    engine = engines.create(name)
    engine.build(net, nn.MSELoss(), optim.SGD(lr=0.01))
    x, _ = samples(20)
    targets = np.random.default_rng(2).normal(size=(20, 2))
    losses = engine.train(x, targets, np.tile(np.arange(20), 5), 20, 0, np.full(5, 0.01))
    assert (np.diff(losses) < 0).all()
    assert engine.hits.tolist() == [0] * 5


@pytest.mark.capability("D10", "C14")
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_twenty_steps_give_pytorchs_losses(torch, name, kind):
    """PyTorch in float64; its dropout is replaced by a product with our masks."""
    dtype, tolerance = ("float32", 1e-5) if name == "compiled" else ("float64", 1e-8)
    p, seed, batch = 0.25, 3, 8
    net = network(seed=1, dtype=dtype, dropout=p)
    x, y = samples(40)
    x = x.astype(np.float64)
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten()
    ).double()
    head = torch.nn.Linear(16, 3).double()
    state = {key: torch.tensor(np.asarray(value, dtype=np.float64)) for key, value in net.state_dict().items()}
    head.load_state_dict({"weight": state.pop("6.weight"), "bias": state.pop("6.bias")})
    theirs.load_state_dict(state)
    parameters = [*theirs.parameters(), *head.parameters()]
    ours, optimizer = {
        "sgd": (optim.SGD(lr=0.05, momentum=0.9), torch.optim.SGD(parameters, lr=0.05, momentum=0.9)),
        "adam": (optim.Adam(lr=1e-2), torch.optim.Adam(parameters, lr=1e-2)),
    }[kind]
    engine = built(name, net, ours, seed=seed)
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
    assert np.abs(losses - expected).max() < tolerance
    assert losses[-1] < losses[0]
    for key, value in theirs.state_dict().items():
        if dtype == "float32" and key in ("0.bias", "1.running_mean"):
            continue  # batch norm takes the bias out, so its gradient is rounding only, which Adam makes large
        assert np.allclose(net.state_dict()[key], value.numpy(), rtol=tolerance, atol=tolerance / 100), key


# interrupt


@pytest.mark.capability("H13")
def test_interrupt_ends_the_compiled_engines_training_between_two_steps():
    """What was finished counts, the step that was begun has left nothing, and no thread stays behind."""
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3), input_shape=(1, 40, 40)
    )
    x = np.random.default_rng(0).normal(size=(64, 1, 40, 40)).astype(np.float32)
    y = np.arange(64) % 3
    order, rates = np.tile(np.arange(64), 20_000), np.full(20_000, 0.01)
    engine = built("compiled", net, threads=2)
    timer = threading.Timer(0.3, engine.interrupt)
    timer.start()
    losses = engine.train(x, y, order, 64, 0, rates)
    timer.join()
    assert 0 < len(losses) < 10_000
    assert len(engine.hits) == len(losses)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pellucid")]
    more = engine.train(x, y, order[:192], 64, len(losses), rates[:3])

    twin = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3), input_shape=(1, 40, 40)
    )
    steps = len(losses) + 3
    other = built("compiled", twin, threads=2)
    expected = other.train(x, y, order[: steps * 64], 64, 0, rates[:steps])
    assert np.array_equal(np.concatenate([losses, more]), expected)
    assert same(engine.state(), other.state())


def test_an_interrupt_while_nothing_runs_is_forgotten(name):
    engine = engines.create(name)
    engine.interrupt()
    engine = built(name, network())
    engine.interrupt()
    assert len(engine.train(*samples(), np.arange(22), 11, 0, np.full(2, 0.01))) == 2
    assert len(engine.predict(samples()[0])) == 22


def test_ctrl_c_in_a_long_prediction_leaves_no_thread_and_a_working_engine():
    net = models.create("resnet8", (3, 64, 64), 4)
    x = np.random.default_rng(0).normal(size=(512, 3, 64, 64)).astype(np.float32)
    engine = CompiledEngine()
    engine.build(net, threads=2)
    engine.predict(x[:64])  # takes its memory
    began = time.perf_counter()
    whole = engine.predict(x)
    seconds = time.perf_counter() - began
    timer = threading.Timer(0.2 * seconds, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        engine.predict(x)
    assert time.perf_counter() - began < 0.7 * seconds
    timer.join()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pellucid")]
    assert np.array_equal(engine.predict(x), whole)
