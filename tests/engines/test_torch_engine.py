"""The torch engine: the definition's numbers in float64, PyTorch's own state left as it was, clear refusals.

Every test of tests/engines/test_engines.py and of tests/training runs with it too.
"""

from __future__ import annotations

import re
import threading
from random import Random

import numpy as np
import pytest
from hypothesis import Phase, given, settings

import pellucid as pl
from available import needs_torch
from compiled import networks
from nets import every_layer
from oracles import assert_near, randn, seeds
from pellucid import engines, models, nn, optim, schedules
from pellucid.errors import DataError, EngineError, ShapeError
from pellucid.random import Stream
from pellucid.testing import assert_engines_agree

pytestmark = needs_torch

STEPS, BATCH = 50, 6


def fifty_steps(name, net, loss, optimizer, targets, threads=1, steps=STEPS, prepare=lambda engine: None):
    """Losses, hits, state and outputs after fifty steps in chunks, the batch of every fourth step a short one."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((23, *net.input_shape))
    engine = engines.create(name)
    prepare(engine)
    engine.build(net, loss, optimizer, seed=3, threads=threads)
    rates, losses, hits, step = np.linspace(2, 0.1, steps) * optimizer.lr, [], [], 0
    while step < steps:
        count = min(4, steps - step)
        order = rng.permutation(23)[: count * BATCH]
        losses += engine.train(x, targets, order, BATCH, step, rates[step : step + count]).tolist()
        hits += engine.hits.tolist()
        step += count
    return np.array(losses), hits, engine.state(), engine.predict(x)


def compare(net, loss, optimizer, targets):
    expected = fifty_steps("reference", net.astype("float64"), loss, optimizer, targets)
    found = fifty_steps("torch", net.astype("float64"), loss, optimizer, targets)
    assert len(found[0]) == STEPS
    assert np.abs(found[0] - expected[0]).max() < 1e-8
    assert found[1] == expected[1]
    assert found[2].keys() == expected[2].keys()
    for key, array in expected[2].items():
        assert_near(found[2][key], array, 1e-7, key, size=1e-3)
    assert_near(found[3], expected[3], 1e-7, "outputs")
    assert found[3].dtype == np.float64


LABELS = np.random.default_rng(1).integers(0, 3, 23)
FLOATS = np.random.default_rng(1).random((23, 3))


@pytest.mark.capability("C14", "H33")
@pytest.mark.parametrize("net", every_layer(nn.Flatten(), nn.LazyLinear(3)))
def test_fifty_steps_of_every_layer(net):
    compare(net, nn.CrossEntropyLoss(), optim.Adam(lr=1e-2, weight_decay=1e-3, clip_norm=0.5), LABELS)


@pytest.mark.capability("C14")
@given(seeds)
@settings(phases=[Phase.generate])
def test_random_networks(seed):
    """The random networks that the compiled engine is tested with, in float64; what PyTorch leaves open is refused."""
    case = networks.case(Random(seed))
    x, results = case.x.astype(np.float64), []
    rates = np.full(-(-len(case.order) // case.batch), case.optimizer.lr)
    for name in ("reference", "torch"):
        engine, refused = engines.create(name), ""
        try:
            engine.build(case.network.astype("float64"), case.loss, case.optimizer, case.seed, threads=1)
        except EngineError as error:
            refused = str(error)
        if name == "torch" and re.search("overlapping windows|half of", refused):
            return
        assert not refused
        results.append((engine.train(x, case.y, case.order, case.batch, 0, rates), engine.hits, engine.predict(x)))
    (losses, hits, outputs), (found, found_hits, found_outputs) = results
    assert_near(found, losses, 1e-8, size=1.0)
    assert np.array_equal(found_hits, hits)
    assert_near(found_outputs, outputs, 1e-7, size=1.0)


def network(*ends: nn.Layer) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten()),
        *(nn.LazyLinear(3), *ends),
        input_shape=(1, 7, 6),
    )


OPTIMIZERS = [
    optim.SGD(lr=0.05),
    optim.SGD(lr=0.05, momentum=0.9, weight_decay=0.01, clip_layer_norm=0.2),
    optim.SGD(lr=0.05, momentum=0.9, nesterov=True, clip_norm=1.0, clip_layer_norm=0.5),
    optim.RMSprop(lr=1e-3, weight_decay=0.01),
    optim.RMSprop(lr=1e-3, alpha=0.9, momentum=0.5),
    optim.Adam(lr=1e-2, betas=(0.8, 0.99), eps=1e-6),
    optim.AdamW(lr=1e-2, weight_decay=0.1, clip_norm=0.1),
]
LOSSES = [
    (nn.CrossEntropyLoss([0.5, 2.0, 1.0], label_smoothing=0.2), LABELS, ()),
    (nn.CrossEntropyLoss([0.5, 2.0, 1.0], 0.1, "sum"), FLOATS, ()),
    (nn.NLLLoss([1.0, 0.0, 3.0]), LABELS, (nn.LogSoftmax(),)),
    (nn.MSELoss(), FLOATS, ()),
    (nn.L1Loss("sum"), FLOATS, ()),
    (nn.HuberLoss(delta=0.3), FLOATS, ()),
    (nn.SmoothL1Loss(beta=0.2), FLOATS, ()),
    (nn.BCELoss([1.0, 2.0, 0.5]), FLOATS, (nn.Sigmoid(),)),
    (nn.BCEWithLogitsLoss([1.0, 2.0, 0.5], pos_weight=[2.0, 1.0, 3.0]), FLOATS, ()),
]


@pytest.mark.capability("C14", "D5", "D6", "D7", "D8", "D9")
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_fifty_steps_with_every_optimizer(optimizer):
    compare(network(), nn.CrossEntropyLoss(), optimizer, LABELS)


@pytest.mark.capability("C14")
@pytest.mark.parametrize(("loss", "targets", "ends"), LOSSES, ids=lambda v: type(v).__name__)
def test_fifty_steps_with_every_loss(loss, targets, ends):
    compare(network(*ends), loss, optim.Adam(lr=1e-2), targets)


def test_every_loss_is_there():
    kinds = {kind for kind in vars(nn).values() if isinstance(kind, type) and issubclass(kind, nn.Loss)}
    assert {type(loss) for loss, _, _ in LOSSES} == kinds - {nn.Loss}


@pytest.mark.capability("C14", "H33")
@pytest.mark.parametrize("name", models.NAMES)
def test_models_of_the_zoo_agree(name):
    shape = (3, 16, 16) if name == "resnet8" else (1, 28, 28)
    net = models.create(name, shape, 10)
    assert_engines_agree(net, ["torch"], steps=8)


@pytest.mark.capability("C14", "D19")
def test_augmented_and_scheduled_training_gives_the_same_history():
    ds = pl.data.load("digits", subset=150)
    histories = []
    for engine in ("reference", "torch"):
        net = models.create("lesson1", ds.shape, 10).astype("float64")
        run = pl.fit(
            *(net, ds),
            epochs=3,
            batch_size=16,
            augment="digit",
            schedule=schedules.OneCycle(),
            optimizer=optim.AdamW(lr=3e-3, clip_norm=1.0),
            engine=engine,
            progress=False,
        )
        histories.append(run.history)
    for column in ("train_loss", "val_loss"):
        assert np.abs(np.array(histories[0][column]) - histories[1][column]).max() < 1e-8
    for column in ("train_accuracy", "val_accuracy", "lr"):
        assert histories[0][column] == histories[1][column]


@pytest.mark.capability("D19")
@pytest.mark.parametrize("seed", [0, 5, 2**40 + 1])
def test_dropouts_bits_are_those_of_streams(torch, seed):
    from pellucid.engines.torch import _StreamDropout

    for step, layer in ((0, 0), (7, 3), (10**9, 2)):
        stream = Stream(seed, step=step, layer=layer)
        dropout = _StreamDropout(0.3, by_channel=False)
        dropout.key = torch.tensor(np.array(stream.key, dtype=np.uint64).view(np.int64))
        ones = torch.ones(5, 3, 11, 7, dtype=torch.float64)
        expected = np.where(stream.random((5, 3, 11, 7)) < 0.3, 0, 1 / 0.7)
        assert np.array_equal(dropout(ones), expected)
        last = ones.contiguous(memory_format=torch.channels_last)
        assert np.array_equal(dropout(last), expected)


class OneByOne:
    """Stands in for a captured CUDA graph: works on tensors of its own, and gives the same ones each time."""

    made = 0

    def __init__(self, run, x, y):
        type(self).made += 1
        self.run, self.x, self.y = run, x.clone(), y.clone()
        for _ in range(3):
            self.outputs = run(self.x, self.y)

    def __call__(self, x, y):
        self.x.copy_(x)
        self.y.copy_(y)
        for kept, new in zip(self.outputs, self.run(self.x, self.y), strict=True):
            kept.copy_(new)
        return self.outputs


def as_on_cuda(engine):
    engine._cuda = True


@pytest.mark.parametrize("momentum", [0.1, None])
def test_what_is_done_on_cuda_gives_the_same_numbers_on_the_cpu(monkeypatch, momentum):
    """Channels last, data that stay, full batches by a graph, which a stand-in replaces; no CUDA device is needed."""
    monkeypatch.setattr("pellucid.engines.torch._Capture", OneByOne)
    monkeypatch.setattr(OneByOne, "made", 0)
    net = nn.Sequential(
        *(nn.Conv2d(2, 6, (3, 2)), nn.BatchNorm2d(6, momentum=momentum), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout()),
        *(nn.Conv2d(6, 4, 2), nn.Dropout2d(), nn.ConvTranspose2d(4, 3, 3, 2), nn.Flatten(), nn.LazyLinear(3)),
        input_shape=(2, 9, 8),
        dtype="float64",
    )
    arguments = nn.CrossEntropyLoss(), optim.Adam(lr=1e-2, clip_layer_norm=0.3), LABELS
    found = fifty_steps("torch", net.astype("float64"), *arguments, prepare=as_on_cuda)
    expected = fifty_steps("reference", net.astype("float64"), *arguments)
    assert OneByOne.made == (1 if momentum else 0)
    assert np.abs(found[0] - expected[0]).max() < 1e-8
    assert found[1] == expected[1]
    for key, array in expected[2].items():
        assert_near(found[2][key], array, 1e-7, key, size=1e-3)
    gradients = []
    for name in ("torch", "reference"):
        engine = engines.create(name)
        as_on_cuda(engine)
        engine.build(net.astype("float64"), nn.CrossEntropyLoss())
        gradients.append(engine.loss_and_gradients(randn(0, 5, 2, 9, 8), LABELS[:5])[1])
    assert_near(*gradients, 1e-9)


def test_data_stay_where_they_are_as_long_as_they_are_the_same():
    engine = engines.create("torch")
    as_on_cuda(engine)
    engine.build(network(), nn.CrossEntropyLoss(), optim.Adam())
    engine._built._may_capture = False
    x, y = np.zeros((8, 1, 7, 6), dtype=np.float32), np.arange(8) % 3
    kept = []
    for images in (x, x, x.copy()):
        engine.train(images, y, np.arange(8), 4, 0, np.full(2, 0.1))
        kept.append(engine._held[2])
    assert kept[0] is kept[1]
    assert kept[2] is not kept[1]
    with pytest.raises(DataError, match="label 3 is out of range"):
        engine.train(x, y + 1, np.arange(8), 4, 0, np.full(2, 0.1))


def test_bfloat16_is_near_and_keeps_parameters(torch):
    x, y = np.random.default_rng(0).standard_normal((64, 1, 7, 6)).astype(np.float32), np.arange(64) % 3
    losses = []
    for precision in ("float32", "bfloat16"):
        engine, net = engines.create("torch", precision=precision), network()
        engine.build(net, nn.CrossEntropyLoss(), optim.Adam(lr=1e-2))
        losses.append(engine.train(x, y, np.tile(np.arange(64), 10), 64, 0, np.full(10, 1e-2)))
        assert net.dtype == engine.predict(x).dtype == np.float32
    assert not np.array_equal(*losses)
    assert np.abs(losses[0] - losses[1]).max() < 0.05
    with pytest.raises(EngineError, match=r'"bfloat16" is for float32, the network is float64; use network\.astype'):
        engines.create("torch", precision="bfloat16").build(network().astype("float64"))


def test_what_pytorch_keeps_for_the_whole_process_stays(torch):
    torch.manual_seed(7)
    before = torch.random.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()
    with torch.no_grad():  # training switches gradients on for itself
        engine = engines.create("torch")
        engine.build(network(), nn.CrossEntropyLoss(), optim.Adam(), threads=2)
        x, y = np.zeros((8, 1, 7, 6), dtype=np.float32), np.arange(8) % 3
        assert len(engine.train(x, y, np.arange(8), 4, 0, np.full(2, 0.1))) == 2
        engine.loss_and_gradients(x, y)
        engine.predict(x)
        with pytest.raises(ShapeError):
            engine.predict(x[:, :, 1:])
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()) == before[1:]


def test_threads_are_those_asked_for(torch, monkeypatch):
    """Without a number as many as PyTorch would use, at most PELLUCID_THREADS."""
    seen = []
    engine = engines.create("torch")
    before = torch.get_num_threads()
    try:
        for threads, variable, own, expected in ((3, "2", 1, 3), (None, "2", 3, 2), (None, "5", 3, 3)):
            monkeypatch.setenv("PELLUCID_THREADS", variable)
            torch.set_num_threads(own)
            engine.build(network(), threads=threads)
            forward = engine._built.forward
            engine._built.forward = lambda x, f=forward: (seen.append(torch.get_num_threads()), f(x))[1]
            engine.predict(np.zeros((1, 1, 7, 6), dtype=np.float32))
            assert seen.pop() == expected
            assert torch.get_num_threads() == own
    finally:
        torch.set_num_threads(before)


@pytest.mark.capability("H15")
def test_the_bits_repeat_with_the_same_threads():
    arguments = nn.CrossEntropyLoss(), optim.Adam(lr=1e-2), LABELS
    for threads in (1, 2):
        first, second = (fifty_steps("torch", network(), *arguments, threads=threads, steps=8) for _ in range(2))
        assert np.array_equal(first[0], second[0])
        assert all(np.array_equal(first[2][key], second[2][key]) for key in first[2])


def test_interrupt_ends_a_chunk_between_two_steps():
    net = network()
    engine = engines.create("torch")
    engine.build(net, nn.CrossEntropyLoss(), optim.Adam(lr=1e-3))
    x, y = np.zeros((32, 1, 7, 6), dtype=np.float32), np.arange(32) % 3
    order, rates = np.tile(np.arange(32), 20_000), np.full(20_000, 1e-3)
    timer = threading.Timer(0.2, engine.interrupt)
    timer.start()
    losses = engine.train(x, y, order, 32, 0, rates)
    timer.join()
    assert 0 < len(losses) < 20_000
    assert len(engine.hits) == len(losses)
    twin = network()
    other = engines.create("torch")
    other.build(twin, nn.CrossEntropyLoss(), optim.Adam(lr=1e-3))
    assert np.array_equal(other.train(x, y, order[: len(losses) * 32], 32, 0, rates[: len(losses)]), losses)
    assert np.array_equal(twin.flat_parameters, net.flat_parameters)


# Refusals


class OwnLayer(nn.ReLU):
    pass


class OwnLoss(nn.MSELoss):
    pass


class OwnOptimizer(optim.Adam):
    pass


class OwnContainer(nn.Sequential):
    pass


@pytest.mark.parametrize(
    ("layers", "loss", "optimizer", "words"),
    [
        ((nn.Sequential(OwnLayer()),), nn.MSELoss(), optim.SGD(), "PyTorch has nothing for layer 1.0 (OwnLayer)"),
        ((OwnContainer(nn.ReLU()),), nn.MSELoss(), optim.SGD(), "PyTorch has nothing for layer 1 (OwnContainer)"),
        ((), OwnLoss(), optim.SGD(), "PyTorch has nothing for the loss OwnLoss"),
        ((), nn.MSELoss(), OwnOptimizer(), "does not know the optimizer OwnOptimizer(lr=0.001)"),
    ],
    ids=["layer", "container", "loss", "optimizer"],
)
def test_what_pytorch_cannot_run_is_named_with_the_engine_that_can(layers, loss, optimizer, words):
    net = nn.Sequential(nn.Flatten(), *layers, nn.LazyLinear(2), input_shape=(1, 7, 6))
    with pytest.raises(EngineError, match=f'{re.escape(words)}.*; the engine "reference" runs any'):
        engines.create("torch").build(net, loss, optimizer)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (
            nn.MaxPool2d((3, 2), 1, (2, 1), dilation=(2, 3)),
            "layer 0 (MaxPool2d((3, 2), stride=(1, 1), padding=(2, 1), di",
        ),
        (nn.MaxUnpool2d(nn.MaxPool2d(3, 2, 1), nn.ReLU()), "layer 0 (MaxUnpool2d) has overlapping windows"),
    ],
    ids=["pool", "unpool"],
)
def test_what_pytorch_does_otherwise_is_named(layer, words):
    with pytest.raises(EngineError, match=f'{re.escape(words)}.*; the engine "reference" runs it'):
        engines.create("torch").build(nn.Sequential(layer, input_shape=(1, 9, 7)))


def test_a_failed_build_leaves_the_engine_as_it_was():
    engine, x = engines.create("torch"), np.zeros((1, 1, 7, 6), dtype=np.float32)
    engine.build(network())
    before = engine.predict(x)
    with pytest.raises(EngineError):
        engine.build(nn.Sequential(OwnLayer(), input_shape=(1, 7, 6)))
    assert np.array_equal(engine.predict(x), before)


def test_data_that_do_not_fit():
    engine = engines.create("torch")
    engine.build(network(), nn.CrossEntropyLoss(), optim.Adam())
    x, y, rates = np.zeros((8, 1, 7, 6), dtype=np.float32), np.arange(8) % 3, np.full(2, 0.1)
    with pytest.raises(DataError, match="label 3 is out of range; with 3 classes labels are 0 to 2"):
        engine.train(x, y + 1, np.arange(8), 4, 0, rates)
    with pytest.raises(DataError, match="label -1 is out of range"):
        engine.loss_and_gradients(x, y - 1)
    with pytest.raises(ShapeError, match="order has indices from 0 to 8 into 8 images"):
        engine.train(x, y, np.arange(9), 5, 0, rates)
    with pytest.raises(ShapeError, match="there are 8 images, but 7 targets"):
        engine.train(x, y[:7], np.arange(7), 4, 0, rates)
    with pytest.raises(DataError, match="images must be numbers, got complex64"):
        engine.predict(x.astype(np.complex64))
    engine.build(network(), nn.BCELoss(), optim.Adam())
    with pytest.raises(EngineError, match="PyTorch cannot run this: all elements of input should be between 0 and 1"):
        engine.train(x, np.zeros((8, 3)), np.arange(8), 4, 0, rates)
    with pytest.raises(DataError, match="targets must be probabilities between 0 and 1, got 2"):
        engine.train(x, np.full((8, 3), 2.0), np.arange(8), 4, 0, rates)


def test_whole_numbers_and_any_layout_are_taken():
    engine, net = engines.create("torch"), network()
    engine.build(net)
    x = np.random.default_rng(0).integers(0, 200, (5, 1, 7, 12))
    for images in (x[..., ::2], x[..., ::-2].astype(np.uint8), x[::-1, :, :, ::2].astype(np.uint16)):
        assert_near(engine.predict(images), net(images.astype(np.float32)), 1e-5)
    frozen = x[..., :6].astype(np.float32)
    frozen.flags.writeable = False
    assert_near(engine.predict(frozen), net(frozen), 1e-5)


def test_cuda_where_there_is_none(torch, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match=r'PyTorch \S+ finds no CUDA device; use device "cpu", or install') as caught:
        engines.create("torch", "cuda")
    assert "\n" not in str(caught.value)
