"""The loop: order, chunks, means over samples, best weights, callbacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pellucid import engines, nn, optim, schedules
from pellucid.data.dataset import Splits, from_arrays
from pellucid.training.callbacks import Callback, EarlyStopping

CONSTANT = schedules.Constant()


class Recorder(Callback):
    """Keeps a copy of the weights after each epoch, and whatever else is called."""

    def __init__(self):
        self.weights, self.calls = [], []

    def on_train_begin(self, trainer):
        self.calls.append("train begin")

    def on_epoch_begin(self, trainer, epoch):
        self.calls.append(f"epoch begin {epoch}")

    def on_epoch_end(self, trainer, row):
        self.calls.append(f"epoch end {row.epoch}")
        self.weights.append((trainer.network.flat_parameters.copy(), trainer.network.flat_buffers.copy()))

    def on_train_end(self, trainer):
        self.calls.append("train end")
        self.last = trainer.network.flat_parameters.copy()


def worsening(ds):
    """The same data with wrong labels in validation: the better the training, the worse the validation."""
    targets = ds.targets.copy()
    targets[ds.splits.val] = (targets[ds.splits.val] + 1) % 3
    return replace(ds, targets=targets)


# Best weights


@pytest.mark.capability("D15", "H13")
def test_the_best_weights_are_a_copy_and_come_back(fit, stripes, net):
    seen = Recorder()
    network = net()
    run = fit(network, worsening(stripes), epochs=6, optimizer=optim.Adam(lr=0.02), schedule=CONSTANT, callbacks=[seen])
    assert run.stopped == "finished"
    assert len(run.history) == 6
    assert run.history["val_loss"][-1] > 2 * run.history["val_loss"][0]
    assert run.history.best.epoch == 1
    assert np.array_equal(network.flat_parameters, seen.weights[0][0])
    assert np.array_equal(network.flat_buffers, seen.weights[0][1])
    assert not np.array_equal(network.flat_parameters, seen.weights[-1][0])
    assert np.array_equal(seen.last, seen.weights[0][0]), "on_train_end sees the best weights"
    assert run.model.network is network


@pytest.mark.capability("H13")
def test_early_stopping(fit, stripes, net):
    seen = Recorder()
    stop = EarlyStopping(patience=2)
    run = fit(net(), worsening(stripes), epochs=9, optimizer=optim.Adam(lr=0.02), callbacks=[stop, seen])
    best = run.history.best.epoch
    assert run.stopped == "early stopping"
    assert len(run.history) == best + 2
    assert np.array_equal(run.model.network.flat_parameters, seen.weights[best - 1][0])


def test_without_validation_the_last_weights_are_kept(fit, stripes, net):
    seen = Recorder()
    ds = replace(stripes, splits=replace(stripes.splits, val=np.empty(0, dtype=np.int64)))
    run = fit(net(), ds, epochs=2, callbacks=[seen])
    assert len(run.dataset.splits.val) == 0, "parts that are divided are not divided again"
    assert run.history["val_loss"] == run.history["val_accuracy"] == [None, None]
    assert np.array_equal(run.model.network.flat_parameters, seen.weights[-1][0])


# Numbers


def losses_by_hand(network, ds, part):
    chosen = ds.indices(part)
    raw = ds.images[ds.splits.train] / 255
    x = (ds.images[chosen] / 255 - raw.mean()) / raw.std()
    logits = network.astype("float64")(x)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = ds.targets[chosen]
    return -np.log(p[np.arange(len(y)), y]), p.argmax(axis=1) == y


@pytest.mark.capability("D13", "D14", "F1")
def test_losses_and_accuracies_are_means_over_samples(fit, stripes, plain):
    """With lr 0 nothing changes, so that every sample has the loss that one can compute beside it."""
    network = plain()
    train, hits = losses_by_hand(network, stripes, "train")
    val, val_hits = losses_by_hand(network, stripes, "val")
    run = fit(network, stripes, epochs=1, batch_size=8, optimizer=optim.SGD(lr=0.0))
    (row,) = run.history
    assert row.train_loss == pytest.approx(train.mean(), rel=1e-5)
    assert row.train_accuracy == hits.mean()
    assert row.val_loss == pytest.approx(val.mean(), rel=1e-5)
    assert row.val_accuracy == val_hits.mean()
    # 45 samples are 5 batches of 8 and one of 5: a mean of batch means is another number.
    order = np.random.default_rng(0).permutation(45)
    assert abs(np.mean([train[order[i : i + 8]].mean() for i in range(0, 45, 8)]) - train.mean()) > 1e-3
    assert row.lr == 0.0
    assert row.seconds > 0


@pytest.mark.capability("D14")
def test_weighted_losses_are_divided_by_the_weights(fit, stripes, plain):
    weight = np.array([0.2, 1.0, 3.0])
    network = plain()
    train, _ = losses_by_hand(network, stripes, "train")
    val, _ = losses_by_hand(network, stripes, "val")
    loss = nn.CrossEntropyLoss(weight=weight)
    (row,) = fit(network, stripes, loss=loss, epochs=1, optimizer=optim.SGD(lr=0.0)).history
    w, v = weight[stripes.targets[stripes.splits.train]], weight[stripes.targets[stripes.splits.val]]
    assert row.train_loss == pytest.approx((w * train).sum() / w.sum(), rel=1e-5)
    assert row.val_loss == pytest.approx((v * val).sum() / v.sum(), rel=1e-5)


# What the engine is given


@pytest.fixture
def spy(engine, monkeypatch):
    """Calls of the engine: what it trained on, step by step, and what it predicted."""
    calls = {"train": [], "predict": [], "steps": []}
    kind = type(engines.create(engine))
    train, predict = kind.train, kind.predict

    def spied_train(self, images, targets, order, batch_size, first_step, learning_rates):
        calls["steps"].append((first_step, len(learning_rates)))
        calls["train"].append((images[order].copy(), targets[order].copy()))
        return train(self, images, targets, order, batch_size, first_step, learning_rates)

    def spied_predict(self, x):
        calls["predict"].append(x.copy())
        return predict(self, x)

    monkeypatch.setattr(kind, "train", spied_train)
    monkeypatch.setattr(kind, "predict", spied_predict)
    return calls


def by_epoch(calls, size=45):
    """(images, targets) of each epoch, in the order in which they were trained."""
    x = np.concatenate([images for images, _ in calls["train"]])
    y = np.concatenate([targets for _, targets in calls["train"]])
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


@pytest.mark.capability("D11")
def test_training_is_shuffled_each_epoch_and_validation_never(fit, stripes, plain, spy):
    run = fit(plain(), stripes, epochs=3)
    canonical = run.model.input.canonical(stripes.images)
    expected = {x.tobytes(): y for x, y in zip(canonical[:45], stripes.targets[:45].tolist(), strict=True)}
    epochs = by_epoch(spy)
    orders = []
    for x, y in epochs:
        keys = [image.tobytes() for image in x]
        assert set(keys) == set(expected), "each sample once an epoch, the short last batch included"
        assert [expected[key] for key in keys] == y.tolist(), "labels move with their images"
        orders.append(keys)
    assert len(orders) == 3
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert orders[0] != [x.tobytes() for x in canonical[:45]]
    assert len(spy["predict"]) == 3
    assert all(np.array_equal(x, canonical[45:58]) for x in spy["predict"])
    assert sum(n for _, n in spy["steps"]) == 3 * 6


@pytest.mark.capability("E5", "D11")
def test_only_training_images_are_augmented_and_differently_each_epoch(fit, stripes, plain, spy):
    run = fit(plain(), stripes, epochs=2, augment="photo")
    canonical = run.model.input.canonical(stripes.images)
    plainly = {x.tobytes() for x in canonical[:45]}
    first, second = ({image.tobytes() for image in x} for x, _ in by_epoch(spy))
    assert len(first - plainly) > 30
    assert len(first & second) < 15
    assert all(np.array_equal(x, canonical[45:58]) for x in spy["predict"])
    assert sorted(by_epoch(spy)[0][1]) == sorted(stripes.targets[:45])


class Steps(Callback):
    def __init__(self):
        self.seen = []

    def on_batch_end(self, trainer, step, loss):
        self.seen.append((step, loss))


@pytest.mark.capability("D10")
def test_a_batch_callback_makes_training_go_step_by_step(fit, stripes, net, spy):
    steps = Steps()
    run = fit(net(), stripes, epochs=2, callbacks=[steps])
    assert spy["steps"] == [(i, 1) for i in range(12)]
    assert [step for step, _ in steps.seen] == list(range(12))
    sizes = [8, 8, 8, 8, 8, 5]
    by_hand = sum(loss * n for (_, loss), n in zip(steps.seen[6:], sizes, strict=True)) / 45
    assert run.history["train_loss"][1] == pytest.approx(by_hand, rel=1e-12)


def test_chunks_change_no_bit(fit, stripes, net, spy):
    whole = fit(net(), stripes, epochs=4)
    lengths = [n for _, n in spy["steps"]]
    assert max(lengths) > 1
    assert sum(lengths) == 24
    single = fit(net(), stripes, epochs=4, callbacks=[Steps()])
    assert single.digest == whole.digest
    for column in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"):
        assert single.history[column] == whole.history[column], column


@pytest.mark.parametrize("augment", [None, "photo"])
def test_an_engine_that_ends_a_chunk_early_changes_no_bit(engine, fit, stripes, net, monkeypatch, augment):
    """As after interrupt(): the samples of the steps that were not done come again."""
    whole = fit(net(), stripes, epochs=2, batch_size=2, augment=augment)
    kind = type(engines.create(engine))
    train, lengths = kind.train, []

    def one_step_of(self, images, targets, order, batch_size, first_step, learning_rates):
        lengths.append(len(learning_rates))
        return train(self, images, targets, order[:batch_size], batch_size, first_step, learning_rates[:1])

    monkeypatch.setattr(kind, "train", one_step_of)
    short = fit(net(), stripes, epochs=2, batch_size=2, augment=augment)
    assert max(lengths) > 1
    assert len(lengths) == 2 * 23
    assert short.digest == whole.digest
    assert short.history["train_loss"] == whole.history["train_loss"]


def test_validation_in_pieces_is_that_of_the_whole(fit, plain, spy):
    """Of a fixed size: the reference engine's last bits depend on it."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 1, 6, 5)).astype(np.uint8)
    ds = from_arrays(images, np.arange(300) % 3)
    ds = replace(ds, splits=Splits(np.arange(20), np.arange(20, 300), np.empty(0, dtype=np.int64)))
    network = plain()
    run = fit(network, ds, epochs=2, optimizer=optim.SGD(lr=0.0))
    assert np.array_equal(np.concatenate(spy["predict"][:9]), run.model.input.canonical(images[20:]))
    *pieces, thresholds = [len(x) for x in spy["predict"]]
    assert (pieces, thresholds) == ([32] * 8 + [24] + [32] * 8 + [24], 280)
    val, hits = losses_by_hand(network, ds, "val")
    assert run.history["val_loss"] == pytest.approx([val.mean()] * 2, rel=1e-5)
    assert run.history["val_accuracy"] == [hits.mean()] * 2


@pytest.mark.capability("D19")
@pytest.mark.parametrize("augment", [None, "digit"])
def test_the_same_seed_gives_the_same_bits(fit, stripes, augment):
    def run(seed):
        network = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.Dropout(0.5), nn.LazyLinear(3))
        return fit(network, (stripes.images, stripes.targets), epochs=2, seed=seed, augment=augment)

    a, b, c = run(42), run(42), run(43)
    assert a.digest == b.digest
    assert a.history["train_loss"] == b.history["train_loss"]
    assert np.array_equal(a.dataset.splits.val, b.dataset.splits.val)
    assert a.digest != c.digest


def test_nothing_touches_global_random_state(fit, stripes, net):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    fit(net(), stripes, epochs=1, augment="photo")
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_the_schedule_is_followed_by_step(engine, fit, stripes, plain, monkeypatch):
    rates = []
    kind = type(engines.create(engine))
    train = kind.train

    def spied(self, *arguments):
        rates.extend(arguments[-1].tolist())
        return train(self, *arguments)

    monkeypatch.setattr(kind, "train", spied)
    schedule = schedules.OneCycle()
    run = fit(plain(), stripes, epochs=3, optimizer=optim.SGD(lr=0.1), schedule=schedule)
    assert np.allclose(rates, 0.1 * schedule.factors(np.arange(18), 18, 6), rtol=1e-12)
    assert run.history["lr"] == pytest.approx([rates[5], rates[11], rates[17]])


# Callbacks


def test_hooks_are_called_in_order(fit, stripes, plain):
    seen = Recorder()
    fit(plain(), stripes, epochs=2, callbacks=[seen])
    expected = ["train begin", "epoch begin 0", "epoch end 1", "epoch begin 1", "epoch end 2", "train end"]
    assert seen.calls == expected


def test_a_callback_can_stop_after_the_epoch(fit, stripes, plain):
    class Enough(Callback):
        def on_batch_end(self, trainer, step, loss):
            if step == 7:
                trainer.stop("enough")
                trainer.stop("more than enough")

    run = fit(plain(), stripes, epochs=5, callbacks=[Enough()])
    assert run.stopped == "enough"
    assert len(run.history) == 2


@pytest.mark.capability("H13")
def test_an_error_of_a_callback_comes_through_and_the_best_weights_are_back(fit, stripes, net):
    seen = Recorder()

    class Broken(Callback):
        def on_epoch_end(self, trainer, row):
            if row.epoch == 3:
                raise RuntimeError("my own mistake")

    network = net()
    with pytest.raises(RuntimeError, match="my own mistake"):
        fit(network, worsening(stripes), epochs=5, optimizer=optim.Adam(lr=0.05), callbacks=[seen, Broken()])
    assert len(seen.weights) == 3
    assert np.array_equal(network.flat_parameters, seen.weights[0][0])
    assert seen.calls[-1] == "train end"
    assert not network.editing
