"""pellucid train --resume: from the checkpoint alone, wherever run and data lie now."""

from __future__ import annotations

import json
import shutil
import signal

import pytest

from pellucid.interop.sealed import pack, unpack
from pellucid.training.progress import ProgressReport
from survival import LAYERS, save_digits

pytestmark = pytest.mark.capability("H14", "H34")

OPTIONS = ("--epochs", 4, "--batch-size", 16, "--augment", "digit", "--size", "9x8", "--val-fraction", 0.25)
SEEN = "model.safetensors", "metrics.json", "splits.json"


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr("pellucid.report.plots.write_all", lambda *what: None)


@pytest.fixture
def place(tmp_path):
    """A folder with data and the description of a network."""
    save_digits(tmp_path / "d.npz")
    (tmp_path / "net.json").write_text(json.dumps({"layer": "Sequential", "layers": LAYERS}))
    return tmp_path


@pytest.fixture
def train(cli, place, monkeypatch):
    """A function that trains from there: exit code, stdout, stderr; stop= interrupts after an epoch."""

    def run(*words, stop=None):
        with monkeypatch.context() as patch:
            patch.chdir(place)
            if stop is not None:
                show = ProgressReport.on_epoch_end

                def on_epoch_end(self, trainer, row):
                    show(self, trainer, row)
                    if row.epoch == stop:
                        signal.raise_signal(signal.SIGINT)

                patch.setattr(ProgressReport, "on_epoch_end", on_epoch_end)
            return cli("train", *words)

    return run


@pytest.fixture
def whole(train, place):
    """What an undisturbed run leaves."""
    assert train("d.npz", "--model", "net.json", *OPTIONS, "--out", "whole").code == 0
    return files(place / "whole")


def files(folder):
    return [(folder / name).read_bytes() for name in SEEN]


@pytest.fixture
def stopped(train, place, whole):
    """The same, interrupted after two epochs."""
    out = place / "my run"
    code, said, err = train("d.npz", "--model", "net.json", *OPTIONS, "--out", out, stop=2)
    assert (code, err) == (130, "")
    assert said.endswith(f"interrupted; to go on: pellucid train --resume --out '{out}'\n")
    return out


def test_everything_but_the_checkpoint_may_be_lost(train, stopped, whole):
    config = (stopped / "config.toml").read_bytes()
    for path in stopped.iterdir():
        if path.name != "last.ckpt":
            path.unlink()
    code, said, err = train("--resume", "--out", stopped)
    assert (code, err) == (0, "")
    assert "epoch 3/4" in said
    assert "epoch 2/4" not in said
    assert files(stopped) == whole
    assert (stopped / "config.toml").read_bytes() == config


def test_what_may_differ(train, place, stopped, whole):
    """Threads, the interval, the place of run, data and network. What was given first may be given again."""
    for name in ("d.npz", "net.json"):
        (place / "elsewhere").mkdir(exist_ok=True)
        (place / name).rename(place / "elsewhere" / name)
    moved = stopped.rename(place / "elsewhere" / "run")
    options = ("--threads", 3, "--checkpoint-every", 2, *OPTIONS, "--lr", 3e-3, "--optimizer", "adam", "--seed", 0)
    code, _, err = train("elsewhere/d.npz", "--resume", "--out", moved, "--model", "elsewhere/net.json", *options)
    assert (code, err) == (0, "")
    assert files(moved) == whole
    config = (moved / "config.toml").read_text()
    assert f'data = "{place}/elsewhere/d.npz"\n' in config
    assert "threads = 3\n" in config


def test_the_file_that_described_the_network_is_not_needed(train, place, stopped, whole):
    (place / "net.json").unlink()
    assert train("--resume", "--out", stopped).code == 0
    assert files(stopped) == whole


def test_data_that_are_not_there_any_more(train, place, stopped):
    (place / "d.npz").rename(place / "e.npz")
    code, _, err = train("--resume", "--out", stopped)
    assert (code, err.count("\n")) == (1, 1)
    assert f"the data of this run are not at {place}/d.npz any more; give their new place: pellucid train DATA" in err
    code, _, err = train("gone.npz", "--resume", "--out", stopped)
    assert (code, "there is no folder or file of that name" in err) == (1, True)
    assert train("e.npz", "--resume", "--out", stopped).code == 0


REFUSED = {
    "several": (
        ("--batch-size", 8, "--seed", 1, "--schedule", "cosine"),
        "batch_size was 16, now it is 8; schedule was 'onecycle', now it is 'cosine'; seed was 0, now it is 1; resume",
    ),
    "size": (("--size", "8x8"), "size was '9x8', now it is '8x8'"),
    "validation": (("--val-fraction", 0.5), "val_fraction was 0.25, now it is 0.5"),
    "subset": (("--subset", 50), "subset was None, now it is 50"),
    "optimizer": (("--optimizer", "sgd"), "momentum was None, now it is 0.9; optimizer was 'adam', now it is 'sgd'"),
    "clip": (("--clip", 1), "clip was None, now it is 1.0"),
    "model": (("--model", "mlp"), "now it is 'mlp'"),
    "network": (("--model", "other.json"), "network.layers.5.p was 0.3, now it is 0.5"),
    "data": (("other.npz",), "data_digest was '"),
    "engine": (("--engine", "reference"), "engine was 'compiled', now it is 'reference'"),
    "balance": (("--balance",), "balance was False, now it is True"),
    "augment": (("--augment", "none"), "augment was 'digit', now it is 'none'"),
    "fewer": (("--epochs", 3), "epochs was 4, now it is 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_any_other_difference_is_named(train, place, stopped, name):
    words, message = REFUSED[name]
    other = [{**layer, "p": 0.5} if layer["layer"] == "Dropout" else layer for layer in LAYERS]
    (place / "other.json").write_text(json.dumps({"layer": "Sequential", "layers": other}))
    save_digits(place / "other.npz", first=1)
    before = {path: path.read_bytes() for path in stopped.iterdir()}
    code, _, err = train("--resume", "--out", stopped, *words)
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("error: cannot resume: ")
    assert message in err
    assert {path: path.read_bytes() for path in stopped.iterdir()} == before


def test_more_epochs_follow_the_schedule_as_it_began(train, place):
    """Chosen for 3 epochs, "step" changes the rate at each; for 6 it would every second."""
    words = ("d.npz", "--model", "net.json", "--schedule", "step", "--lr", 0.01, "--out", "run")
    assert train(*words, "--epochs", 3).code == 0
    assert train("--resume", "--epochs", 5, "--out", "run", stop=4).code == 130
    assert train("--resume", "--out", "run").code == 0
    rows = [json.loads(line) for line in (place / "run" / "history.jsonl").read_text().splitlines()]
    assert [row["lr"] for row in rows] == pytest.approx([0.01 * 0.1**n for n in range(5)])
    assert train("--resume", "--epochs", 6, "--out", "run").code == 0


FORGED = {
    "config": (lambda d: d.update(config="data = "), "config in my run/last.ckpt is not valid TOML"),
    "setting": (lambda d: d.update(config='data = "d.npz"\ncolour = 1'), 'last.ckpt: unknown setting "colour"'),
    "python": (lambda d: d.update(config="x = 1"), "was made in Python, not by pellucid train; resume it with fit"),
    "network": (lambda d: d["settings"].update(network=3), 'must be an object such as {"layer": "ReLU"}'),
    "huge": (
        lambda d: d["settings"]["network"]["layers"][0].update(out_channels=10**9),
        "'Conv2d' has more parameters than the file holds",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_checkpoint(train, place, stopped, name):
    change, message = FORGED[name]
    arrays, document = unpack((stopped / "last.ckpt").read_bytes(), "it")
    change(document)
    (stopped / "last.ckpt").write_bytes(pack(arrays, document))
    code, _, err = train("--resume", "--out", "my run")
    assert (code, err.count("\n")) == (1, 1)
    assert message in err


def test_texts_of_a_checkpoint_do_not_reach_the_terminal_raw(train, place, stopped):
    """A forged one may say anything where a callback says why it stopped, and name any file."""
    evil = "\x1b[2J evil\nline"
    save_digits(place / "x\x1b[2J.npz")
    arrays, document = unpack((stopped / "last.ckpt").read_bytes(), "it")
    document["training"]["stopped"] = evil
    config = document["config"]
    for name in ("d.npz", "net.json"):
        assert f"/{name}" in config
    for name, other in (("d.npz", r"x\u001b[2J.npz"), ("net.json", r"n\u001b[2J.json")):
        config = config.replace(f"/{name}", f"/{other}")
    document["config"] = config
    (stopped / "last.ckpt").write_bytes(pack(arrays, document))
    code, out, err = train("--resume", "--out", "my run")
    assert (code, err) == (0, "")
    assert r"this run has ended already: \x1b[2J evil\nline after 2 epochs" in out
    assert r"data      x\x1b[2J" in out
    assert r"n\x1b[2J.json: " in out
    assert "\x1b" not in out


def test_a_run_is_not_trained_over(train, place, stopped):
    before = shutil.copytree(stopped, place / "before")
    code, _, err = train("d.npz", "--out", stopped)
    message = f"{stopped} holds a run; give another folder, or go on with that run: --resume, in Python resume=True"
    assert (code, err) == (1, f"error: {message}\n")
    assert files(stopped) == files(before)
