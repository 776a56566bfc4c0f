"""A run that was stopped anywhere ends, resumed, with the bits of the run that was not."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest

import pellucid as pl
from pellucid import engines, nn, optim, schedules
from pellucid.errors import FileError, OptionError
from pellucid.training import Callback, EarlyStopping

pytestmark = pytest.mark.capability("H14")

OPTIMIZERS = {
    "adam": lambda: optim.Adam(lr=0.01),
    "sgd": lambda: optim.SGD(lr=0.05, momentum=0.9, clip_norm=1.0),
    "rmsprop": lambda: optim.RMSprop(lr=0.001, momentum=0.5),
}


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing takes a second; that it is done is tested once."""
    monkeypatch.setattr("pellucid.report.plots.write_all", lambda folder, *what: (folder / "curves.png").touch())


class InterruptAt(Callback):
    """Ctrl-C after so many steps."""

    def __init__(self, step):
        self.step = step

    def on_batch_end(self, trainer, step, loss):
        if step + 1 == self.step:
            signal.raise_signal(signal.SIGINT)


class FailAt(InterruptAt):
    """As if the power failed: nothing is written at the end."""

    def on_batch_end(self, trainer, step, loss):
        if step + 1 == self.step:
            raise RuntimeError("power")


@pytest.fixture
def fit(fit):
    """Augmented, three epochs, into a folder."""
    return lambda network, ds, out, **options: fit(network, ds, out=out, **{"epochs": 3, "augment": "digit", **options})


def same(a, b):
    for column in ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"):
        assert a.history[column] == b.history[column], column
    assert a.digest == b.digest
    assert a.warnings == b.warnings
    model = (a.path / "model.safetensors").read_bytes()
    assert model == (b.path / "model.safetensors").read_bytes()
    assert (a.path / "metrics.json").read_text() == (b.path / "metrics.json").read_text()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("step", [1, 5, 6, 7, 17, 18])
def test_interrupted_anywhere_and_resumed(fit, stripes, net, tmp_path, name, step):
    """6 steps an epoch: within epochs, and at their last steps."""
    whole = fit(net(), stripes, tmp_path / "whole", optimizer=OPTIMIZERS[name]())
    first = fit(net(), stripes, tmp_path / "parts", optimizer=OPTIMIZERS[name](), callbacks=[InterruptAt(step)])
    assert first.stopped == "interrupted"
    assert len(first.history) == (step - 1) // 6
    assert np.isfinite(first.model.network.flat_parameters).all()
    second = fit(net(seed=9), stripes, tmp_path / "parts", optimizer=OPTIMIZERS[name](), resume=True)
    assert second.stopped == "finished"
    same(whole, second)


def test_interrupted_again_and_again(fit, stripes, net, tmp_path):
    whole = fit(net(), stripes, tmp_path / "whole", augment=None)
    fit(net(), stripes, tmp_path / "parts", augment=None, callbacks=[InterruptAt(2)])
    for step in (3, 9, 11):
        again = fit(net(), stripes, tmp_path / "parts", augment=None, resume=True, callbacks=[InterruptAt(step)])
        assert again.stopped == "interrupted"
    same(whole, fit(net(), stripes, tmp_path / "parts", augment=None, resume=True))


def test_after_a_crash_the_last_checkpoint_counts(fit, stripes, net, tmp_path):
    whole = fit(net(), stripes, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power"):
        fit(net(), stripes, tmp_path / "parts", checkpoint_every=4, callbacks=[FailAt(11)])
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {
        "config.toml",
        "splits.json",
        "last.ckpt",
        "history.jsonl",
        "model.safetensors",
    }
    assert pl.load(tmp_path / "parts").classes == ("one", "two", "three")
    same(whole, fit(net(), stripes, tmp_path / "parts", resume=True))


def test_a_finished_run_resumed_is_written_again_from_its_checkpoint(fit, stripes, net, tmp_path):
    whole = fit(net(), stripes, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    for name in ("model.safetensors", "metrics.json", "history.jsonl", "curves.png"):
        (tmp_path / "again" / name).unlink()
    same(whole, fit(net(seed=3), stripes, tmp_path / "again", resume=True))
    assert (tmp_path / "again" / "curves.png").exists()


@pytest.mark.capability("H13")
def test_a_run_that_stopped_early_does_not_go_on(fit, stripes, net, tmp_path):
    targets = stripes.targets.copy()
    targets[stripes.splits.val] = (targets[stripes.splits.val] + 1) % 3
    ds = replace(stripes, targets=targets)
    options = {"epochs": 9, "optimizer": optim.Adam(lr=0.02), "augment": None}
    whole = fit(net(), ds, tmp_path / "a", callbacks=[EarlyStopping(2)], **options)
    assert whole.stopped == "early stopping"
    again = fit(net(), ds, tmp_path / "a", callbacks=[EarlyStopping(2)], resume=True, **options)
    assert again.stopped == "early stopping"
    assert len(again.history) == len(whole.history)
    assert again.digest == whole.digest


# What a resume refuses


@pytest.fixture
def stopped(fit, stripes, net, tmp_path):
    fit(net(), stripes, tmp_path / "run", callbacks=[InterruptAt(7)])
    return tmp_path / "run"


CHANGES = {
    "epochs": ({"epochs": 4}, "epochs was 3, now it is 4"),
    "batch_size": ({"batch_size": 9}, "batch_size was 8, now it is 9"),
    "seed": ({"seed": 1}, "seed was 0, now it is 1"),
    "optimizer": ({"optimizer": optim.Adam(lr=0.5)}, "optimizer.lr was 0.003, now it is 0.5"),
    "another optimizer": ({"optimizer": optim.SGD()}, "optimizer.name was 'Adam', now it is 'SGD'"),
    "schedule": ({"schedule": schedules.Constant()}, "schedule.name was 'OneCycle', now it is 'Constant'"),
    "augment": ({"augment": None}, r"augment was .Augmentation\(.* now it is 'None'"),
    "normalize": ({"normalize": "unit"}, "normalize was 'standard', now it is 'unit'"),
    "statistics": ({"normalize": (0.5, 0.5)}, r"normalize was 'standard', now it is \[\[0.5\], \[0.5\]\]"),
    "loss": ({"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}, r"loss was 'CrossEntropyLoss\("),
    "balance": ({"balance": True}, "loss was 'CrossEntropyLoss"),
    "engine": ({}, "engine was '(compiled|reference)', now it is '(compiled|reference)'"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_settings_are_refused_by_name(engine, fit, stripes, net, stopped, name):
    options, match = CHANGES[name]
    if name == "engine":
        options = {"engine": next(other for other in engines.NAMES if other != engine)}
    before = (stopped / "last.ckpt").read_bytes()
    with pytest.raises(OptionError, match=f"cannot resume: {match}.*; leave it out, or start a new run"):
        fit(net(), stripes, stopped, resume=True, **options)
    assert (stopped / "last.ckpt").read_bytes() == before


def test_another_network_or_data_or_split_is_refused(fit, stripes, net, plain, stopped):
    with pytest.raises(OptionError, match=r"cannot resume: network\.layers\.4\.p was 0\.25, now it is 0\.5"):
        fit(net(dropout=0.5), stripes, stopped, resume=True)
    with pytest.raises(OptionError, match=r"cannot resume: network\.layers was \["):
        fit(plain(), stripes, stopped, resume=True)
    images = stripes.images.copy()
    images[0, 0, 0, 0] ^= 1
    with pytest.raises(OptionError, match="cannot resume: data_digest was"):
        fit(net(), replace(stripes, images=images), stopped, resume=True)
    parts = replace(stripes.splits, train=stripes.splits.train[::-1])
    with pytest.raises(OptionError, match="cannot resume: split was"):
        fit(net(), stripes.with_splits(parts), stopped, resume=True)


def test_a_run_is_not_overwritten(fit, stripes, net, stopped):
    with pytest.raises(FileError, match=r"run is not empty; give another folder, or resume the run"):
        fit(net(), stripes, stopped)


def test_without_a_checkpoint(fit, stripes, net, tmp_path):
    with pytest.raises(FileError, match=r"holds no run to resume: there is no config\.toml in it"):
        fit(net(), stripes, tmp_path, resume=True)
    with pytest.raises(OptionError, match="resume needs out, the folder of the run"):
        fit(net(), stripes, None, resume=True)


def test_a_run_that_died_before_its_first_checkpoint_starts_again(fit, stripes, net, tmp_path):
    whole = fit(net(), stripes, tmp_path / "whole")
    dead = tmp_path / "dead"
    fit(net(), stripes, dead)
    for file in dead.iterdir():
        if file.name not in ("config.toml", "splits.json"):
            file.unlink()
    assert fit(net(), stripes, dead, resume=True).digest == whole.digest


def test_a_checkpoint_is_read_as_strictly_as_a_model(fit, stripes, net, stopped):
    path = stopped / "last.ckpt"
    content = path.read_bytes()
    for place in (0, 9, 300, len(content) // 2, len(content) - 1):
        wrong = bytearray(content)
        wrong[place] ^= 4
        path.write_bytes(bytes(wrong))
        with pytest.raises(FileError, match=r"last\.ckpt"):
            fit(net(), stripes, stopped, resume=True)
    for short in (0, 7, 100, len(content) - 1):
        path.write_bytes(content[:short])
        with pytest.raises(FileError, match=r"last\.ckpt"):
            fit(net(), stripes, stopped, resume=True)
    shutil.copy(stopped / "model.safetensors", path)
    with pytest.raises(FileError, match="is not a checkpoint file, but 'model'"):
        fit(net(), stripes, stopped, resume=True)


def test_the_split_is_recorded_by_id(stripes, net, stopped):
    from pellucid.training.run_directory import RunDirectory

    folder = RunDirectory(stopped)
    alone = stripes.with_splits(type(stripes.splits)(np.arange(67), np.empty(0, int), np.empty(0, int)))
    again = folder.recorded_splits(alone)
    for part in ("train", "val", "test"):
        assert np.array_equal(again.indices(part), stripes.indices(part))
    (stopped / "splits.json").write_text('{"train": [1000], "val": [], "test": []}')
    with pytest.raises(FileError, match="does not fit the data; it was changed"):
        folder.recorded_splits(alone)
