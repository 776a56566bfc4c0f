"""What the compiled engine does with odd networks and arguments, and when it is stopped."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from pellucid import engines, nn, optim
from pellucid.compiled import tiles
from pellucid.compiled.layout import READ_AHEAD
from pellucid.errors import DataError, EngineError, ShapeError
from pellucid.nn import Conv2d, Dropout, Flatten, LazyLinear, Residual, Sequential


def built(network, loss=None, optimizer=None, name="compiled", **options):
    engine = engines.create(name)
    engine.build(network, loss, optimizer, **options)
    return engine


def classifier():
    return Sequential(Conv2d(1, 4, 3), nn.ReLU(), Flatten(), LazyLinear(3), input_shape=(1, 5, 6))


def images(n, shape=(1, 5, 6), seed=0):
    return np.random.default_rng(seed).standard_normal((n, *shape), dtype=np.float32)


def test_dropout_and_flatten_beside_a_convolution_with_padding():
    """In prediction dropout hands its input on, which has a border here, and the dense layer must not read it."""
    body = Sequential(Conv2d(4, 4, 3, padding=1), Flatten(), LazyLinear(10))
    way = Sequential(Dropout(0.5), Flatten(), LazyLinear(10))
    network = Sequential(Conv2d(1, 4, 3, padding=1), Residual(body, way), input_shape=(1, 8, 8))
    x = images(5, (1, 8, 8))
    assert np.allclose(built(network).predict(x), network(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("optimizer", [optim.Adam(1e-3, eps=0.0), optim.RMSprop(1e-3, eps=0.0)])
def test_padding_of_weights_that_becomes_nan_reaches_nothing(optimizer):
    losses = []
    for name in ("compiled", "reference"):
        layers = (Conv2d(1, 5, 3, padding=1), nn.Tanh(), Conv2d(5, 4, 3), nn.MaxPool2d(2), Flatten(), LazyLinear(4))
        network = Sequential(*layers, input_shape=(1, 8, 8))
        engine = built(network, nn.CrossEntropyLoss(), optimizer, name)
        rates = np.full(4, optimizer.lr)
        losses.append(engine.train(images(8, (1, 8, 8)), np.arange(8) % 4, np.arange(8).repeat(4), 8, 0, rates))
    assert np.allclose(*losses, rtol=1e-3)


def test_gradients_of_a_loss_that_is_not_finite():
    """They are no older ones; what is finite in the definition is so here (behind a dead ReLU 0 times NaN may be 0)."""
    finite = {}
    for name in engines.NAMES:
        engine = built(classifier(), nn.CrossEntropyLoss(), name=name)
        x = images(3)
        engine.loss_and_gradients(x, np.arange(3))
        x[1] = np.nan
        loss, gradients = engine.loss_and_gradients(x, np.arange(3))
        assert np.isnan(loss)
        finite[name] = np.isfinite(gradients)
    assert not (finite["reference"] & ~finite["compiled"]).any()
    assert finite["compiled"].mean() < 0.1


def test_a_build_that_fails_leaves_the_engine_as_it_was():
    class Own(nn.Layer):
        def forward(self, x, *, training=False, rng=None):
            return x, lambda dy: (dy, {})

    network, x = classifier(), images(4)
    engine = built(network)
    before = engine.predict(x)
    with pytest.raises(EngineError, match="no kernel for layer 0"):
        engine.build(Sequential(Own(), Flatten(), input_shape=(1, 9, 9)))
    assert np.array_equal(engine.predict(x), before)
    with pytest.raises(ShapeError, match="the network takes"):
        engine.predict(images(2, (1, 9, 9)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"order": np.ones(6, dtype=bool)}, "order must be one or more indices"),
        ({"order": np.array([0.7])}, "order must be one or more indices"),
        ({"order": np.empty(0, dtype=int)}, "order must be one or more indices"),
        ({"order": np.zeros((2, 3), dtype=int)}, "order must be one or more indices"),
        ({"order": np.array([0, 1, 2, 6])}, "from 0 to 6 into 6 images"),
        ({"order": np.array([-1, 1, 2, 5])}, "from -1 to 5 into 6 images"),
        ({"batch_size": 0}, "batches of 0 are fewer"),
        ({"learning_rates": np.ones(9)}, "fewer than 9 steps"),
        ({"targets": np.arange(5) % 3}, "6 images, but 5 targets"),
        ({"targets": np.full(6, 3)}, "label 3 is out of range"),
        ({"targets": np.zeros(6)}, "float targets must have the shape"),
        ({"images": images(6, (1, 6, 5))}, "the network takes"),
        ({"images": images(6).astype(complex)}, "images must be numbers"),
    ],
)
def test_what_train_refuses(changes, words):
    engine = built(classifier(), nn.CrossEntropyLoss(), optim.SGD(0.1))
    before = engine.state()
    arguments = {
        "images": images(6),
        "targets": np.arange(6) % 3,
        "order": np.arange(6),
        "batch_size": 3,
        "first_step": 0,
        "learning_rates": np.full(2, 0.1),
    }
    with pytest.raises((ShapeError, DataError), match=words):
        engine.train(**{**arguments, **changes})
    assert all(np.array_equal(array, before[name]) for name, array in engine.state().items())
    assert len(engine.train(**arguments)) == 2


def test_labels_changed_in_place_are_checked_again():
    engine = built(classifier(), nn.CrossEntropyLoss(weight=[1.0, 2.0, 3.0]), optim.SGD(0.1))
    x, y, rates = images(4), np.array([0, 1, 2, 0]), np.array([0.1])
    engine.train(x, y, np.arange(4), 4, 0, rates)
    y[2] = 99
    with pytest.raises(DataError, match="label 99"):
        engine.train(x, y, np.arange(4), 4, 1, rates)


def test_lists_and_other_types_are_what_they_say():
    losses = []
    x = np.random.default_rng(0).integers(0, 5, (4, 1, 5, 6))
    for kind in (np.float32, np.float64, np.float16, np.uint8):
        engine = built(classifier(), nn.CrossEntropyLoss(), optim.SGD(0.1))
        losses.append(engine.train(x.astype(kind), [0, 1, 2, 0], [3, 1, 2, 0], 2, 0, [0.1, 0.1]))
    assert all(np.array_equal(losses[0], other) for other in losses)


def test_a_batch_that_no_memory_can_hold():
    network = Sequential(Conv2d(1, 64, 3, padding=1), Flatten(), LazyLinear(2), input_shape=(1, 256, 256))
    engine = built(network, nn.CrossEntropyLoss(), optim.SGD(0.1))
    n = 20_000_000
    with pytest.raises(EngineError, match=r"20000000 images at a time take \d+\.\d GB.* use a smaller batch"):
        engine.train(images(1, (1, 256, 256)), np.zeros(1, dtype=int), np.zeros(n, dtype=int), n, 0, np.array([0.1]))


@pytest.mark.capability("H13")
def test_interrupt_between_steps_of_one_image():
    networks = [
        Sequential(Conv2d(1, 8, 3), nn.ReLU(), Flatten(), LazyLinear(3), input_shape=(1, 40, 40)) for _ in range(2)
    ]
    x, y, rates = images(8, (1, 40, 40)), np.arange(8) % 3, np.full(100_000, 1e-3)
    order = np.tile(np.arange(8), len(rates) // 8)
    engine, other = (built(network, nn.CrossEntropyLoss(), optim.SGD(1e-3)) for network in networks)
    engine.train(x, y, order, 1, 0, rates[:1])
    other.train(x, y, order, 1, 0, rates[:1])
    timer = threading.Timer(0.3, engine.interrupt)
    timer.start()
    losses = engine.train(x, y, order, 1, 0, rates)
    timer.join()
    assert 0 < len(losses) < len(rates)
    assert np.array_equal(losses, other.train(x, y, order, 1, 0, rates[: len(losses)]))
    assert np.array_equal(networks[0].flat_parameters, networks[1].flat_parameters)
    assert len(engine.train(x, y, order, 1, 0, rates[:5])) == 5


def test_a_prediction_after_one_that_was_stopped_has_the_present_weights():
    network = Sequential(Conv2d(16, 16, 3, padding=1), input_shape=(16, 9, 7))
    x, engine = images(3, (16, 9, 7)), built(network)
    engine.predict(x)
    engine._built.predictor.stop()  # as Ctrl-C does
    with network.edit():
        network.flat_parameters[...] *= -2
    assert np.allclose(engine.predict(x), network(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("optimizer", "has"),
    [
        (optim.SGD(0.1), True),
        (optim.SGD(0.1, weight_decay=0.1), True),
        (optim.SGD(0.1, momentum=0.9), False),
        (optim.SGD(0.1, clip_norm=1.0), False),
        (optim.SGD(0.1, clip_layer_norm=1.0), False),
        (optim.Adam(0.1), False),
    ],
    ids=repr,
)
def test_who_has_a_program_for_one_image(optimizer, has):
    engine = built(classifier(), nn.CrossEntropyLoss(), optimizer)
    for batch in (2, 1):
        assert engine._built.one_by_one is None
        engine.train(images(4), np.arange(4) % 3, np.arange(4), batch, 0, np.full(2, 0.1))
    assert (engine._built.one_by_one is not None) == has


SCRIPT = """
import os, signal, threading, time
import numpy as np
from pellucid import engines, nn
net = nn.Sequential(
    nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.Flatten(), input_shape=(3, 96, 96)
)
engine = engines.create("compiled")
engine.build(net, threads=2)
x = np.random.default_rng(0).standard_normal((600, 3, 96, 96), dtype=np.float32)
few = engine.predict(x[:5])
for signals in (1, 3):
    begun = time.perf_counter()
    for i in range(signals):
        threading.Timer(0.2 + 0.001 * i, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        engine.predict(x)
    except KeyboardInterrupt:
        print("stopped", time.perf_counter() - begun < 2)
    deadline = time.perf_counter() + 5
    while time.perf_counter() < deadline:
        try:
            left = [t.name for t in threading.enumerate() if t.name.startswith("pellucid")]
            time.sleep(0.1)
            break
        except KeyboardInterrupt:
            pass
    print(left, np.array_equal(engine.predict(x[:5]), few))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_ctrl_c_in_a_prediction():
    for _ in range(3):  # a late signal may end the script itself, between two of its statements
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != -signal.SIGINT:
            break
    assert (done.returncode, done.stdout) == (0, "stopped True\n[] True\n" * 2), done.stderr


def test_tiles_read_no_further_than_memory_goes():
    counts = [*range(1, 200), 256, 1000]
    for n in counts:
        for _, v, lanes in (tiles.window_tile(9, n), tiles.image_tile(n), tiles.row_tile(6, n), tiles.pair_tile(9, n)):
            assert v * lanes <= READ_AHEAD
        some = [tiles.winograd_tile(9, 9, 32, n)[2:4], tiles.scatter_tile((5, 5), (3, 3), 9, n, 32)[1:]]
        assert all(math.prod(tile) <= READ_AHEAD for tile in [*some, tiles.one_tile(n)[:2]])
    for taps in range(1, 12):
        for run in counts:  # such a tile reads whole rows of the weight, which end with a vector
            _, v, lanes = tiles.run_tile(taps, run)
            assert -(-run // lanes) % v == 0
