"""A run that was stopped anywhere ends, resumed, with the bits of the run that was not."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
import tomllib
from dataclasses import replace
from random import Random

import numpy as np
import pytest

import pellucid as pl
from pellucid import nn, optim, schedules
from pellucid.errors import FileError, OptionError
from pellucid.files import write_atomic
from pellucid.training import Callback, EarlyStopping
from survival import KINDS, Victim

pytestmark = pytest.mark.capability("H14")

OPTIMIZERS = {
    "adam": lambda: optim.Adam(lr=0.01),
    "sgd": lambda: optim.SGD(lr=0.05, momentum=0.9, clip_norm=1.0),
    "rmsprop": lambda: optim.RMSprop(lr=0.001, momentum=0.5),
}


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing takes a second; that it is done is tested once."""
    monkeypatch.setattr(
        "pellucid.report.plots.write_all", lambda folder, *what: write_atomic(folder / "curves.png", b"curves")
    )


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


def test_an_ended_run_resumed_stays_as_it_is(fit, stripes, net, tmp_path, capsys):
    whole = fit(net(), stripes, tmp_path / "run")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in whole.path.iterdir()}
    same(whole, fit(net(seed=3), stripes, tmp_path / "run", resume=True, threads=2, checkpoint_every=1, progress=True))
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in whole.path.iterdir()} == before
    assert capsys.readouterr().out == "this run has ended already: finished after 3 epochs\n"


@pytest.mark.parametrize("engine", ["compiled"])
@pytest.mark.capability("H15")
def test_threads_may_differ_between_the_parts_of_a_run(fit, stripes, net, tmp_path):
    whole = fit(net(), stripes, tmp_path / "whole", threads=1)
    for number, (first, second, third) in enumerate([(2, 3, 5), (8, 1, 2), (1, 8, None), (5, 2, 8)]):
        out = tmp_path / str(number)
        fit(net(), stripes, out, threads=first, callbacks=[InterruptAt(4)])
        fit(net(), stripes, out, threads=second, callbacks=[InterruptAt(15)], resume=True)
        same(whole, fit(net(), stripes, out, threads=third, resume=True))


# More epochs


@pytest.mark.parametrize("schedule", [schedules.Constant(), schedules.Step(2, 0.5)], ids=repr)
@pytest.mark.parametrize("stop", [None, 8, 12])
def test_more_epochs_where_the_schedule_does_not_depend_on_them(fit, stripes, net, tmp_path, schedule, stop):
    whole = fit(net(), stripes, tmp_path / "whole", schedule=schedule, epochs=5)
    callbacks = [] if stop is None else [InterruptAt(stop)]
    fit(net(), stripes, tmp_path / "parts", schedule=schedule, epochs=2, callbacks=callbacks)
    fit(net(), stripes, tmp_path / "parts", schedule=schedule, epochs=3, resume=True)
    end = fit(net(), stripes, tmp_path / "parts", schedule=schedule, epochs=5, resume=True)
    assert (end.stopped, len(end.history)) == ("finished", 5)
    same(whole, end)
    assert tomllib.loads((end.path / "config.toml").read_text())["resolved"]["epochs"] == 5


class Own(schedules.Constant):
    needs_length = schedules.Schedule.needs_length


@pytest.mark.parametrize("schedule", [schedules.OneCycle(), schedules.Cosine(), Own()], ids=lambda s: type(s).__name__)
def test_no_more_epochs_where_it_does(fit, stripes, net, tmp_path, schedule):
    fit(net(), stripes, tmp_path / "run", schedule=schedule, epochs=2)
    name = type(schedule).__name__
    with pytest.raises(
        OptionError, match=f"epochs was 2, now it is 3, but the schedule {name} is laid out over all epochs; only"
    ):
        fit(net(), stripes, tmp_path / "run", schedule=schedule, epochs=3, resume=True)


@pytest.mark.capability("H13")
def test_a_run_that_stopped_early_would_have_done_so_with_more_epochs(fit, stripes, net, tmp_path):
    options = {"schedule": schedules.Constant(), "optimizer": optim.SGD(lr=0.0), "callbacks": [EarlyStopping(2)]}
    options["augment"] = None
    fit(net(), stripes, tmp_path / "run", epochs=5, **options)
    again = fit(net(), stripes, tmp_path / "run", epochs=9, resume=True, **options)
    assert (again.stopped, len(again.history)) == ("early stopping", 3)


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
    "epochs": ({"epochs": 2}, "epochs was 3, now it is 2"),
    "several": ({"epochs": 2, "seed": 1}, "epochs was 3, now it is 2; seed was 0, now it is 1"),
    "batch_size": ({"batch_size": 9}, "batch_size was 8, now it is 9"),
    "seed": ({"seed": 1}, "seed was 0, now it is 1"),
    "optimizer": ({"optimizer": optim.Adam(lr=0.5)}, "optimizer.lr was 0.003, now it is 0.5"),
    "another optimizer": ({"optimizer": optim.SGD()}, "optimizer.name was 'Adam', now it is 'SGD'"),
    "schedule": ({"schedule": schedules.Constant()}, "schedule.name was 'OneCycle', now it is 'Constant'"),
    "augment": ({"augment": None}, r"augment was {.* now it is None"),
    "normalize": ({"normalize": "unit"}, "normalize was 'standard', now it is 'unit'"),
    "statistics": ({"normalize": (0.5, 0.5)}, r"normalize was 'standard', now it is \[\[0.5\], \[0.5\]\]"),
    "loss": (
        {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
        r"loss\.label_smoothing was 0\.0, now it is 0\.1",
    ),
    "balance": ({"balance": True}, r"loss\.weight was None, now it is \[0\.8333"),
    "early stopping": ({"callbacks": [EarlyStopping(2)]}, r"early_stopping was \[\], now it is \[2\]"),
    "engine": ({}, "engine was '(compiled|reference|torch)', now it is '(compiled|reference)'"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_settings_are_refused_by_name(engine, fit, stripes, net, stopped, name):
    options, match = CHANGES[name]
    if name == "engine":
        options = {"engine": "reference" if engine != "reference" else "compiled"}
    before = (stopped / "last.ckpt").read_bytes()
    with pytest.raises(
        OptionError, match=f"cannot resume: .*{match}.*; resume with what the run began with, or start a new run"
    ):
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
    with pytest.raises(OptionError, match=r"cannot resume: .*value_range\.1 was 255\.0, now it is 256\.0"):
        fit(net(), replace(stripes, value_range=(0.0, 256.0)), stopped, resume=True)
    parts = replace(stripes.splits, train=stripes.splits.train[::-1])
    with pytest.raises(OptionError, match="cannot resume: split was"):
        fit(net(), stripes.with_splits(parts), stopped, resume=True)


def test_another_host_is_refused_by_name_or_named(engine, fit, stripes, net, stopped, monkeypatch, capsys):
    """Where it is the same, all other tests go on without a word."""
    monkeypatch.setattr(np, "__version__", "9.8.7")
    before = (stopped / "last.ckpt").read_bytes()
    words = r"^this run was computed with numpy \d\S* \(here 9\.8\.7\): it may end with other bits"
    with pytest.raises(
        OptionError, match=words + "; resume it where it began, or go on all the same with --other-bits"
    ):
        fit(net(), stripes, stopped, resume=True)
    assert (stopped / "last.ckpt").read_bytes() == before
    assert fit(net(), stripes, stopped, resume=True, other_bits=True, progress=True).stopped == "finished"
    assert re.match(words + "\n", capsys.readouterr().out)
    with pytest.raises(OptionError, match="other_bits is for resume=True"):
        fit(net(), stripes, stopped, other_bits=True)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="imitates an x86 CPU")
def test_another_kind_of_cpu_is_refused_by_name(tmp_path):
    command = [sys.executable, "-m", "pellucid", "train", "--resume", "--out", tmp_path / "run"]
    first = [*command[:4], "digits", "--subset", "100", "--epochs", "1", "--schedule", "constant", *command[5:]]
    subprocess.run(first, capture_output=True, check=True)
    other = {**os.environ, "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""}
    command += ["--epochs", "2"]
    refused = subprocess.run(command, env=other, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    words = r"this run was computed with CPU \S+ \(here haswell-\w{8}\): it may end with other bits"
    assert re.search(rf"^error: {words}; resume it where", refused.stderr, re.MULTILINE)
    done = subprocess.run([*command, "--other-bits"], env=other, capture_output=True, text=True, check=True)
    assert re.search(f"^{words}$", done.stdout, re.MULTILINE)


def test_a_run_is_not_overwritten(fit, stripes, net, stopped):
    with pytest.raises(FileError, match=r"run holds a run; .* go on with that run: --resume, in Python resume=True"):
        fit(net(), stripes, stopped)


def test_without_a_checkpoint(fit, stripes, net, tmp_path):
    with pytest.raises(FileError, match=r"holds no run to resume: there is no last\.ckpt in it"):
        fit(net(), stripes, tmp_path, resume=True)
    with pytest.raises(OptionError, match="resume needs out, the folder of the run"):
        fit(net(), stripes, None, resume=True)


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


# Real processes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Adam, one-cycle, digit", "reference engine"])
def test_killed_at_random_and_resumed(tmp_path, name):
    """A few of the kills of make reliability; with threads, hash seeds and working directories that change."""
    rng = Random(name)
    whole, victim = (Victim(tmp_path / folder, KINDS[name], rng, epochs=40) for folder in ("whole", "killed"))
    seconds = whole.finish()
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        if not victim.kill(rng.uniform(0, seconds / 4), number):
            break
    assert victim.kills
    victim.finish()
    assert victim.result() == whole.result()
