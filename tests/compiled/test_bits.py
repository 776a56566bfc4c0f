"""The same bits, whatever the number of threads, the batch, the cut of the training, the process."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import pellucid as pl
from pellucid import engines, models, nn, optim
from pellucid.compiled.engine import programs
from pellucid.compiled.machine import Machine
from pellucid.engines import Engine
from pellucid.interop.model_file import weights_digest

pytestmark = pytest.mark.capability("H15")

THREADS = (1, 2, 3, 5, 8)
SHAPE = (2, 13, 11)


def network(seed: int = 0) -> nn.Sequential:
    """Something of everything."""
    return nn.Sequential(
        nn.Conv2d(2, 9, 3, padding=1),
        nn.BatchNorm2d(9),
        nn.ReLU(),
        nn.Conv2d(9, 16, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.2),
        nn.Residual(nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.Tanh())),
        nn.AvgPool2d(2, padding=1),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.LazyLinear(7),
        input_shape=SHAPE,
        seed=seed,
    )


def fast(seed: int = 0) -> nn.Sequential:
    """Layers for which there are faster ways."""
    return nn.Sequential(
        nn.Conv2d(2, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, (2, 1)),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(7),
        input_shape=SHAPE,
        seed=seed,
    )


def test_the_faster_ways_are_among_these():
    training, prediction = map(str, programs(fast(), optim.SGD()))
    assert "data gradient 2 " in training
    assert all(kernel in training for kernel in ("winograd[", "winograd_pool2[", "winograd_gradient[", "scatter["))
    assert all(kernel in prediction for kernel in ("winograd[", "winograd_pool2["))


def samples(n: int = 97) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.standard_normal((n, *SHAPE)).astype(np.float32), rng.integers(0, 7, n)


def built(threads: int | None = 2, net: nn.Network | None = None, optimizer: optim.Optimizer | None = None) -> Engine:
    engine = engines.create("compiled")
    engine.build(net or network(), nn.CrossEntropyLoss(), optimizer or optim.SGD(0.05, 0.9), seed=6, threads=threads)
    return engine


def trained(engine: Engine, cut: list[int], batch: int = 13, first: int = 0) -> list[float]:
    """Train chunks of so many steps and return all losses."""
    x, y = samples()
    order = np.random.default_rng(8).integers(0, len(x), 200 * batch)
    losses, at = [], first
    for steps in cut:
        rates = 0.05 / (1.0 + np.arange(at, at + steps))
        losses += engine.train(x, y, order[at * batch :], batch, at, rates).tolist()
        at += steps
    return losses


def bits(arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in arrays.items()}


def assert_same(a: np.ndarray, b: np.ndarray) -> None:
    assert a.shape == b.shape
    assert a.tobytes() == b.tobytes(), f"{(a != b).sum()} of {a.size} numbers differ"


# Threads


def digest(threads: int | None) -> str:
    """Train with all that could shake bits: dropout, augmentation, momentum, batch norm."""
    rng = np.random.default_rng(3)
    images, labels = rng.integers(0, 256, (90, 13, 11)).astype(np.uint8), np.arange(90) % 3
    net = nn.Sequential(
        nn.Conv2d(1, 12, 3),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 8, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.4),
        nn.LazyLinear(3),
    )
    optimizer = optim.SGD(0.05, momentum=0.9)
    options = {"epochs": 2, "batch_size": 13, "augment": "digit", "progress": False, "engine": "compiled"}
    return pl.fit(net, (images, labels), optimizer=optimizer, threads=threads, **options).digest


def test_a_training_has_one_digest_for_any_number_of_threads():
    assert {digest(threads) for threads in (*THREADS, None)} == {digest(1)}


OPTIMIZERS = [
    optim.SGD(0.05, clip_norm=0.5, clip_layer_norm=0.2),
    optim.RMSprop(1e-3, momentum=0.5),
    optim.AdamW(1e-3),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
@pytest.mark.parametrize("batch", [1, 13, 64])
def test_threads_do_not_show_in_steps(optimizer, batch):
    results = []
    for threads in THREADS:
        engine = built(threads, optimizer=optimizer)
        losses = trained(engine, [6], batch)
        results.append((losses, engine.hits.tolist(), bits(engine.state())))
    assert len(results[0][0]) == 6
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("batch", [1, 13])
def test_threads_do_not_show_on_faster_ways(batch):
    results = []
    for threads in THREADS:
        engine = built(threads, fast(), optim.SGD(0.05, weight_decay=0.01))
        losses = trained(engine, [6], batch)
        results.append((losses, engine.hits.tolist(), bits(engine.state())))
        assert (engine._built.one_by_one is not None) == (batch == 1)
    assert len(results[0][0]) == 6
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("name", ["lesson1", "lesson2", "mlp"])
def test_threads_do_not_show_in_named_models(name):
    x = np.random.default_rng(0).standard_normal((20, 1, 28, 28)).astype(np.float32)
    digests, outputs = set(), []
    for threads in THREADS:
        net = models.create(name, (1, 28, 28), 7)
        engine = built(threads, net)
        assert len(engine.train(x, np.arange(20) % 7, np.tile(np.arange(20), 3), 20, 0, np.full(3, 0.02))) == 3
        digests.add(weights_digest(net))
        outputs.append(engine.predict(x))
    assert len(digests) == 1
    for output in outputs:
        assert_same(output, outputs[0])


def test_threads_do_not_show_in_gradients_and_outputs():
    x, y = samples()
    expected, (loss, gradients) = built(1).predict(x), built(1).loss_and_gradients(x, y, step=3)
    for threads in (*THREADS[1:], None):
        engine = built(threads)
        assert_same(engine.predict(x), expected)
        other_loss, other = engine.loss_and_gradients(x, y, step=3)
        assert other_loss == loss
        assert_same(other, gradients)


# Batches and layouts


@pytest.mark.parametrize("make", [network, fast])
@pytest.mark.parametrize("threads", [1, 3, None])
def test_an_image_has_the_same_outputs_in_any_company(threads, make):
    x, _ = samples()
    engine = built(threads, make())
    trained(engine, [3])  # so that batch norm's running values are no round numbers
    expected = engine.predict(x)
    for size in (1, 2, 7, 8, 9, 64):
        parts = [engine.predict(x[i : i + size]) for i in range(0, len(x), size)]
        assert_same(np.concatenate(parts), expected)
    order = np.random.default_rng(1).permutation(len(x))
    assert_same(engine.predict(x[order]), expected[order])
    repeated = engine.predict(np.repeat(x[5:6], 30, axis=0))
    assert_same(repeated, np.repeat(expected[5:6], 30, axis=0))


@pytest.mark.parametrize("make", [network, fast])
def test_a_few_images_on_the_callers_thread(make, monkeypatch):
    """Records are kept from call to call; neither larger batches in between nor new weights must find old ones."""
    alone = []
    monkeypatch.setattr(
        Machine, "predict_alone", lambda *given, way=Machine.predict_alone: alone.append(1) or way(*given)
    )
    x, _ = samples(1000)
    engine, other = built(None, make()), built(3, make())
    for step in range(3):
        expected = other.predict(x)
        assert not alone, "three threads, as they were asked for"
        for size in (1, 7, 1, 100, 1000, 1, 8, 2):
            assert_same(engine.predict(x[-size:]), expected[-size:])
        assert alone
        alone.clear()
        if step == 0:
            assert trained(engine, [2]) == trained(other, [2])
        else:
            for net in (engine._built.network, other._built.network):
                with net.edit():
                    net.flat_parameters[...] *= np.float32(1.5)
        assert not np.array_equal(engine.predict(x[:1]), expected[:1])
        alone.clear()


def test_memory_layout_does_not_show():
    x, y = samples()
    engine = built()
    expected, gradients = engine.predict(x), engine.loss_and_gradients(x, y)[1]
    wide = np.zeros((*x.shape[:3], 3 * x.shape[3]), dtype=np.float32)
    wide[..., ::3] = x
    buffer = np.zeros(x.nbytes + 1, dtype=np.uint8)
    odd = buffer[1:].view(np.float32).reshape(x.shape)
    odd[...] = x
    layouts = {
        "Fortran": np.asfortranarray(x),
        "channels last": np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "every third": wide[..., ::3],
        "backwards": x[:, ::-1, :, ::-1].copy()[:, ::-1, :, ::-1],
        "float64": x.astype(np.float64),
        "other byte order": x.astype(x.dtype.newbyteorder()),
        "odd address": odd,
    }
    for same in layouts.values():
        assert_same(engine.predict(same), expected)
        assert_same(engine.loss_and_gradients(same, y.astype(np.int32))[1], gradients)
    assert_same(engine.predict(x[::-1]), expected[::-1])
    assert_same(engine.predict(x[3::5]), expected[3::5])


# Cuts


@pytest.mark.parametrize("cut", [[1] * 11, [5, 6], [2, 3, 1, 5], [10, 1]], ids=str)
@pytest.mark.parametrize(
    ("optimizer", "batch"), [(optim.SGD(0.05, 0.9), 13), (optim.Adam(1e-3), 13), (optim.SGD(0.01, weight_decay=0.1), 1)]
)
def test_chunks_of_any_size(cut, optimizer, batch):
    whole, engine = built(optimizer=optimizer), built(optimizer=optimizer)
    assert trained(engine, cut, batch) == trained(whole, [11], batch)
    assert bits(engine.state()) == bits(whole.state())


@pytest.mark.parametrize(
    ("optimizer", "batch"), [(optim.SGD(0.05, 0.9), 13), (optim.RMSprop(1e-3, momentum=0.4), 13), (optim.SGD(0.01), 1)]
)
@pytest.mark.parametrize("make", [network, fast])
def test_a_state_that_was_kept_and_loaded(optimizer, batch, make):
    whole, first = built(net=make(), optimizer=optimizer), built(net=make(), optimizer=optimizer)
    losses = trained(whole, [11], batch)
    start = trained(first, [4], batch)
    kept = first.state()
    trained(first, [2], batch, first=4)  # what happens afterwards must not show
    second = built(3, make(seed=9), optimizer)
    trained(second, [3], batch)
    for engine in (second, first):
        engine.load_state(kept)
        assert start + trained(engine, [7], batch, first=4) == losses
        assert bits(engine.state()) == bits(whole.state())


@pytest.mark.parametrize("make", [network, fast])
def test_batches_of_one_image_among_others(make):
    """They have a program of their own, which starts from what others left, and leaves what others start from."""
    one = built(net=make(), optimizer=optim.SGD(0.01))
    for batch in (1, 13, 1, 1, 5):
        other = built(3, make(seed=9), optim.SGD(0.01))
        other.load_state(one.state())
        assert trained(other, [3], batch) == trained(one, [3], batch)
        assert bits(other.state()) == bits(one.state())
        assert_same(other.predict(samples()[0]), one.predict(samples()[0]))


def test_predicting_and_gradients_in_between_leave_no_trace():
    x, y = samples()
    plain, busy = built(), built()
    losses = trained(plain, [3, 3])
    start = trained(busy, [3])
    busy.predict(x)
    busy.loss_and_gradients(x, y, step=40)
    assert start + trained(busy, [3], first=3) == losses
    assert bits(busy.state()) == bits(plain.state())
    assert_same(busy.predict(x), plain.predict(x))


# Processes and threads of the caller

SCRIPT = "from compiled import test_bits\nprint(test_bits.digest(3))"


def test_from_run_to_run():
    path = os.pathsep.join([os.path.dirname(os.path.dirname(os.path.abspath(__file__))), *sys.path])
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        command = [sys.executable, "-c", SCRIPT]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == digest(2)


def test_two_engines_that_train_at_once():
    one, two = [built(3), built(2, network(seed=1))], [built(1), built(1, network(seed=1))]
    with ThreadPoolExecutor(2) as pool:
        losses = list(pool.map(lambda engine: trained(engine, [5, 20]), one))
    assert losses == [trained(engine, [25]) for engine in two]
    assert [bits(engine.state()) for engine in one] == [bits(engine.state()) for engine in two]


def test_one_engine_that_predicts_for_several_threads_at_once():
    x, _ = samples()
    engine = built(2)
    expected = engine.predict(x)
    parts = [slice(i % 5, 97 - i, 1 + i % 3) for i in range(40)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda part: engine.predict(x[part]), parts))
    for part, outputs in zip(parts, found, strict=True):
        assert_same(outputs, expected[part])


def test_one_engine_that_predicts_while_it_trains():
    """What is predicted belongs to some moment between two chunks, and the training does not notice."""
    x, _ = samples(20)
    engine, alone = built(2), built(1)
    moments = [alone.predict(x).tobytes()]
    losses = []
    for step in range(12):
        losses += trained(alone, [1], first=step)
        moments.append(alone.predict(x).tobytes())
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(trained, engine, [1] * 12)
        seen = []
        while not training.done():
            seen.append(engine.predict(x).tobytes())
    assert training.result() == losses
    assert set(seen) <= set(moments)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_after_a_fork():
    x, _ = samples()
    engine, twin = built(3), built(1)
    losses = trained(engine, [4])
    expected = engine.predict(x)
    wanted = trained(twin, [8])[4:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of the test runner
        child = os.fork()
    if child == 0:
        code = 1
        try:
            same = engine.predict(x).tobytes() == expected.tobytes()
            code = 0 if same and trained(engine, [4], first=4) == wanted else 2
        finally:
            os._exit(code)
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 0
    assert losses + trained(engine, [4], first=4) == losses + wanted


def test_a_copied_network_gives_the_same():
    net = network()
    engine = built(2, net)
    trained(engine, [3])
    x, _ = samples()
    other = engines.create("compiled")
    other.build(copy.deepcopy(net))
    assert_same(other.predict(x), engine.predict(x))
