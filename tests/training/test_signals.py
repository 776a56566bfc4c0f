"""Ctrl-C and SIGTERM: in this process, and on the command line with its exit codes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import pellucid as pl
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


def test_outside_the_main_thread_training_works_without_handlers(stripes, net):
    runs = []
    thread = threading.Thread(target=lambda: runs.append(pl.fit(net(), stripes, epochs=1, progress=False)))
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
def test_ctrl_c_keeps_what_was_learned(stripes, net):
    at = Signal(15)
    network = net()
    run = pl.fit(network, stripes, epochs=9, batch_size=8, callbacks=[at], progress=False)
    assert run.stopped == "interrupted"
    assert len(run.history) == 2
    assert np.array_equal(network.flat_parameters, at.ended)
    one = pl.fit(net(), stripes, epochs=9, batch_size=8, callbacks=[Signal(12)], progress=False)
    assert run.digest == one.digest, "both end with the best of two epochs"
    assert run.evaluate().n == 9


def test_ctrl_c_in_the_first_epoch_keeps_the_weights_as_they_are(stripes, net):
    at = Signal(2)
    run = pl.fit(net(), stripes, batch_size=8, callbacks=[at], progress=False)
    assert run.stopped == "interrupted"
    assert len(run.history) == 0
    assert not np.array_equal(run.model.network.flat_parameters, net().flat_parameters)


def test_sigterm_reaches_its_handler_after_everything_is_written(stripes, net, tmp_path):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append((tmp_path / "r/metrics.json").exists()))
    try:
        pl.fit(net(), stripes, batch_size=8, callbacks=[Signal(8, signal.SIGTERM)], out=tmp_path / "r", progress=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [True]


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
            assert process.stderr.read() == ""
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
