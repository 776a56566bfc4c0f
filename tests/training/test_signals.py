"""Ctrl-C and SIGTERM: in this process, and on the command line with its exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import pellucid as pl
from made import without_compiling
from pellucid import models
from pellucid.data.dataset import Splits, from_arrays
from pellucid.training import Callback
from pellucid.training.signals import Interrupts


def test_the_first_signal_is_remembered_and_the_second_acts_at_once():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        assert interrupts.caught is None
        signal.raise_signal(signal.SIGINT)
        assert interrupts.caught == signal.SIGINT
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGTERM)
    assert interrupts.caught == signal.SIGTERM
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_first_signal_only_hurries_what_runs():
    calls = []
    with pytest.raises(KeyboardInterrupt), Interrupts(lambda: calls.append(1)):
        signal.raise_signal(signal.SIGINT)
        assert calls == [1]
        signal.raise_signal(signal.SIGINT)
    assert calls == [1]


def test_outside_the_main_thread_training_works_without_handlers(fit, stripes, net):
    runs = []
    thread = threading.Thread(target=lambda: runs.append(fit(net(), stripes, epochs=1)))
    thread.start()
    thread.join()
    assert runs[0].stopped == "finished"


class Signal(Callback):
    def __init__(self, step, number=signal.SIGINT):
        self.step, self.number = step, number

    def on_batch_end(self, trainer, step, loss):
        if step == self.step:
            signal.raise_signal(self.number)

    def on_train_end(self, trainer):
        self.ended = trainer.network.flat_parameters.copy()


@pytest.mark.capability("H13")
def test_ctrl_c_keeps_what_was_learned(fit, stripes, net):
    at = Signal(15)
    network = net()
    run = fit(network, stripes, epochs=9, callbacks=[at])
    assert run.stopped == "interrupted"
    assert len(run.history) == 2
    assert np.array_equal(network.flat_parameters, at.ended)
    one = fit(net(), stripes, epochs=9, callbacks=[Signal(12)])
    assert run.digest == one.digest, "both end with the best of two epochs"
    assert run.evaluate().n == 9


def test_ctrl_c_in_the_first_epoch_keeps_the_weights_as_they_are(fit, stripes, net):
    at = Signal(2)
    run = fit(net(), stripes, callbacks=[at])
    assert run.stopped == "interrupted"
    assert len(run.history) == 0
    assert not np.array_equal(run.model.network.flat_parameters, net().flat_parameters)


def test_sigterm_reaches_its_handler_after_everything_is_written(fit, stripes, net, tmp_path):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append((tmp_path / "r/metrics.json").exists()))
    try:
        fit(net(), stripes, callbacks=[Signal(8, signal.SIGTERM)], out=tmp_path / "r")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [True]


# At any moment: a timer sends the signal while a step, the validation or anything else runs.


class Meter(Callback):
    """How long the last epoch took."""

    def on_epoch_end(self, trainer, row):
        self.seconds = trainer.epoch_seconds


class InterruptAfter(Callback):
    """Ctrl-C a while after training began, and how long it took to be obeyed."""

    def __init__(self, seconds):
        self.timer, self.delay = threading.Timer(seconds, self._send), None

    def _send(self):
        self.sent = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)

    def on_train_begin(self, trainer):
        self.timer.start()

    def on_train_end(self, trainer):
        self.timer.cancel()
        if trainer.signal is not None:
            self.delay = time.perf_counter() - self.sent


def pictures(train, val, size):
    """Random pictures in color."""
    n = train + val
    images = np.random.default_rng(0).integers(0, 256, (n, 3, size, size)).astype(np.uint8)
    parts = Splits(np.arange(train), np.arange(train, n), np.empty(0, dtype=np.int64))
    return from_arrays(images, np.arange(n) % 4).with_splits(parts)


def helpers():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pellucid")]


@pytest.mark.slow
@pytest.mark.capability("H13")
@pytest.mark.parametrize(("batch", "val"), [(256, 16), (8, 1024)], ids=["step", "validation"])
def test_ctrl_c_is_obeyed_within_a_long_step_or_validation(batch, val):
    """An epoch is one step; it takes a second on one thread, nearly all of it in the step or in the validation."""
    ds = pictures(batch, val, 64)
    options = {"batch_size": batch, "threads": 1, "progress": False}
    meter = Meter()
    pl.fit(models.create("resnet8", ds.shape, 4), ds, epochs=2, callbacks=[meter], **options)
    network = models.create("resnet8", ds.shape, 4)
    before = network.flat_parameters.copy()
    at = InterruptAfter(0.25 * meter.seconds)
    run = pl.fit(network, ds, epochs=50, callbacks=[at], **options)
    assert run.stopped == "interrupted"
    assert len(run.history) == 0
    assert np.array_equal(network.flat_parameters, before) == (batch == 256), "a step is done whole or not at all"
    assert at.delay < 0.5 * meter.seconds
    assert helpers() == []


@pytest.mark.capability("H14")
@pytest.mark.parametrize("augment", [None, "photo"])
def test_interrupted_at_any_moment_again_and_again_and_resumed(tmp_path, monkeypatch, augment):
    monkeypatch.setattr("pellucid.report.plots.write_all", lambda *what: None)
    ds = pictures(104, 200, 32)

    def fit(name, resume=False, callbacks=()):
        network = models.create("resnet8", ds.shape, 4)
        options = {"batch_size": 32, "epochs": 3, "augment": augment, "progress": False, "resume": resume}
        return pl.fit(network, ds, out=tmp_path / name, callbacks=callbacks, **options)

    meter = Meter()
    whole = fit("whole", callbacks=[meter])
    assert whole.stopped == "finished"
    run = fit("parts", callbacks=[InterruptAfter(0.3 * meter.seconds)])
    interrupted = 0
    while run.stopped == "interrupted":
        interrupted += 1
        run = fit("parts", resume=True, callbacks=[InterruptAfter((0.3 + 0.07 * interrupted) * meter.seconds)])
    assert interrupted >= 2
    for column in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        assert run.history[column] == whole.history[column], column
    assert run.digest == whole.digest
    files = [(path / "model.safetensors").read_bytes() for path in (tmp_path / "whole", tmp_path / "parts")]
    assert files[0] == files[1]
    assert helpers() == []


@pytest.mark.capability("H13")
@pytest.mark.parametrize("module", ["typer", "matplotlib", "pellucid.data.sources"])
@pytest.mark.parametrize("start", [["-m", "pellucid"], ["-c", "from pellucid.cli import main; main()"]])
def test_ctrl_c_while_modules_are_imported(tmp_path, module, start):
    """One sends it to the process as it is imported, from where Python makes another error of it (until 3.11)."""
    (tmp_path / "sitecustomize.py").write_text(f"""
import signal, sys

class Interrupting:
    def __set_name__(self, owner, name):
        signal.raise_signal(signal.SIGINT)

class Finder:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            type("Owner", (), {{"attribute": Interrupting()}})

sys.meta_path.insert(0, Finder)
""")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    words = [*COMMAND[:6], "--epochs", "1", "--out", str(tmp_path / "run")]
    process = subprocess.run(
        [sys.executable, *start, *words], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (process.returncode, without_compiling(process.stderr)) == (130, "")


COMMAND = ["train", "digits", "--model", "mlp", "--subset", "150", "--batch-size", "4", "--epochs", "40"]


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "pellucid", *map(str, words)]


@pytest.mark.slow
@pytest.mark.capability("H13", "H14", "H34")
def test_interrupted_on_the_command_line_and_resumed(tmp_path):
    whole = subprocess.run(command(*COMMAND, "--out", tmp_path / "whole"), capture_output=True, text=True, check=True)
    digest = re.search(r"^weights +([0-9a-f]{64})$", whole.stdout, re.MULTILINE)[1]
    out = tmp_path / "parts"
    for number, code, epoch in ((signal.SIGINT, 130, 3), (signal.SIGTERM, 143, 9)):
        words = [*COMMAND, "--out", out] if number == signal.SIGINT else ["train", "--resume", "--out", out]
        with subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith(f"epoch {epoch:>2}/40"):
                    process.send_signal(number)
            assert process.wait() == code
            assert without_compiling(process.stderr.read()) == ""
        assert not any(line.startswith("epoch 40/40") for line in lines)
        assert (out / "last.ckpt").exists()
        assert json.loads((out / "metrics.json").read_text())["stopped"] == "interrupted"
        if number == signal.SIGINT:
            assert lines[-1] == f"interrupted; to go on: pellucid train --resume --out {out}\n"
    end = subprocess.run(command("train", "--resume", "--out", out), capture_output=True, text=True, check=True)
    assert "epoch 40/40" in end.stdout
    assert "epoch  1/40" not in end.stdout
    assert f"weights   {digest}\n" in end.stdout
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
