"""What a person sees while a network trains."""

from __future__ import annotations

import io
import re

import pytest

import pellucid as pl
from pellucid.training import Row
from pellucid.training.progress import ProgressReport

pytestmark = pytest.mark.capability("D13")

LINE = r"epoch +{n}/2  loss \d\.\d{{4}} acc \d+\.\d% \| val loss \d\.\d{{4}} acc \d+\.\d% \| 0 s{left}"


def test_one_line_per_epoch_where_it_is_no_terminal(stripes, net, capsys):
    pl.fit(net(), stripes, epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(LINE.format(n=1, left=", 0 s left"), lines[0])
    assert re.fullmatch(LINE.format(n=2, left=""), lines[1])
    pl.fit(net(), stripes, epochs=2, progress=False)
    assert capsys.readouterr().out == ""


def test_without_accuracy_and_validation_they_are_left_out(capsys):
    report = ProgressReport()

    class Trainer:
        epochs, epoch_seconds = 12, 60.0

    report.on_epoch_end(Trainer(), Row(2, 0.5, None, None, None, 0.1, 120.0))
    assert capsys.readouterr().out == "epoch  2/12  loss 0.5000 | 120 s, 600 s left\n"


def terminal(monkeypatch, ds, network, **options):
    """Everything written to a terminal of 80 columns."""
    from rich.console import Console

    written = io.StringIO()
    reports = options.pop("reports", [])
    make = ProgressReport.__init__

    def init(self):
        make(self)
        reports.append(self)
        self.console = Console(file=written, force_terminal=True, width=80, soft_wrap=True, highlight=False)

    monkeypatch.setattr(ProgressReport, "__init__", init)
    pl.fit(network, ds, **options)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue()).replace("\r", "\n")


def test_a_live_line_on_a_terminal(stripes, net, monkeypatch):
    text = terminal(monkeypatch, stripes, net(), epochs=2, batch_size=8)
    live = [line for line in text.split("\n") if "━" in line]
    assert re.search(r"epoch 2/2 .*100% loss \d\.\d{4} acc \d+\.\d% 45/45", live[-1])
    assert all(len(line.rstrip()) <= 80 for line in live)
    assert len(re.findall(r"\| val loss", text)) == 2


def test_the_terminal_is_given_back_after_an_error(stripes, net, monkeypatch):
    class Broken(pl.Callback):
        def on_batch_end(self, trainer, step, loss):
            raise RuntimeError("broken")

    reports = []
    with pytest.raises(RuntimeError, match="broken"):
        terminal(monkeypatch, stripes, net(), callbacks=[Broken()], reports=reports)
    assert reports[0]._bar is None
    assert reports[0].console.file.getvalue().rstrip().endswith("\x1b[2K")
    assert "\x1b[?25h" in reports[0].console.file.getvalue(), "the cursor is shown again"


def test_the_live_numbers_are_those_of_the_last_hundred_steps():
    class Bar:
        def update(self, task, **fields):
            self.fields = fields

    class Trainer:
        classifies, seen, epoch_size, step, epoch, epochs = True, 130, 640, 130, 0, 3

    report = ProgressReport()
    report._bar, report._task = Bar(), 0
    report.on_chunk_end(Trainer(), [9.0] * 30, [0] * 30, [4] * 30)
    report.on_chunk_end(Trainer(), [1.0] * 99 + [3.0], [4] * 99 + [0], [4] * 99 + [1])
    # 99 steps of 4 samples with loss 1, one of a single sample with loss 3.
    assert report._bar.fields["numbers"] == f"loss {(99 * 4 + 3) / 397:.4f} acc {396 / 397:.1%} 130/640"
    assert report._bar.fields["description"] == "epoch 1/3"
