"""Real trainings that are killed and resumed: a few in the tests, hundreds in make reliability."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np

import pellucid as pl
from made import RUN_FILES, without_compiling
from pellucid.training.run_directory import RunDirectory

CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
LAYERS = [
    {"layer": "Conv2d", "in_channels": 1, "out_channels": 8, "kernel_size": 3, "padding": 1},
    {"layer": "BatchNorm2d", "num_features": 8},
    {"layer": "ReLU"},
    {"layer": "MaxPool2d", "kernel_size": 2},
    {"layer": "Flatten"},
    {"layer": "Dropout", "p": 0.3},
    {"layer": "LazyLinear", "out_features": 10},
]
COMMON = ["--batch-size", "7", "--checkpoint-every", "5"]  # 96 images: the last batch has 5
KINDS = {
    "Adam, one-cycle, digit": ["--augment", "digit"],
    "momentum, steps, photo": ["--optimizer", "sgd", "--lr", "0.01", "--schedule", "step", "--augment", "photo"],
    "RMSprop, cosine, clipped": ["--optimizer", "rmsprop", "--schedule", "cosine", "--clip", "1", "--balance"],
    "reference engine": ["--engine", "reference", "--schedule", "constant", "--augment", "digit"],
}
"""What is trained: the optimizers, schedules and kinds of augmentation, with dropout, batch norm and a ragged batch."""


def save_digits(path: Path, first: int = 0) -> None:
    """Write 150 of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    chosen, digits = slice(first, first + 150), load_digits()
    np.savez(path, images=digits.images[chosen].astype(np.uint8), labels=digits.target[chosen])


@dataclass
class Victim:
    """A training with its own folder, in which it can be killed.

    Args:
        folder: Empty.
        words: Options of pellucid train.
        rng: Draws what may differ between the parts of a run: threads, hash seed, working directory.
        epochs: Of the whole training.

    Attributes:
        kills: How often it was killed.
        positions: Steps in the checkpoint after each start.
    """

    folder: Path
    words: list[str]
    rng: Random
    epochs: int = 100
    kills: int = 0
    positions: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.out = self.folder / "run"
        save_digits(self.folder / "d.npz")
        (self.folder / "net.json").write_text(json.dumps({"layer": "Sequential", "layers": LAYERS}))

    def start(self) -> subprocess.Popen[str]:
        """Start or resume it."""
        words = ["--resume", "--out", str(self.out)]
        if not (self.out / "last.ckpt").exists():
            data, net = self.folder / "d.npz", self.folder / "net.json"
            words = [str(data), "--model", str(net), *COMMON, *self.words, "--out", str(self.out)]
            words += ["--epochs", str(self.epochs)]
        words += ["--threads", str(self.rng.choice((1, 2, 3, 5)))]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": str(self.rng.randrange(1000))}
        return subprocess.Popen(
            [sys.executable, "-m", "pellucid", "train", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=self.rng.choice((self.folder, self.folder.parent)),
        )

    def finish(self) -> float:
        """Let it run to its end; return how long that took after loading."""
        with self.start() as process:
            began = next(time.perf_counter() for line in process.stdout if line.startswith("run "))
            _, err = process.communicate()
        assert (process.returncode, without_compiling(err)) == (0, "")
        self._look()
        return time.perf_counter() - began

    def kill(self, delay: float, number: int = signal.SIGKILL, loaded: bool = True) -> bool:
        """Start it and end it after a while, unless it is through; return whether it was killed.

        Args:
            delay: Seconds.
            number: The signal.
            loaded: Whether the delay begins when data and network are there (for signals that are obeyed: when an
                epoch is done), or at once.
        """
        with self.start() as process:
            if loaded:
                for line in process.stdout:
                    if line.startswith("run " if number == signal.SIGKILL else "epoch "):
                        break
            time.sleep(delay)
            process.send_signal(number)
            out, err = process.communicate()
        killed = process.returncode == CODES[number]
        # -number: the signal came when the run was done and Python had given up its handlers.
        assert killed or process.returncode in (0, -number), (process.returncode, out, err)
        assert without_compiling(err) == ""
        if killed and number != signal.SIGKILL and (self.out / "last.ckpt").exists():
            assert out.endswith(f"interrupted; to go on: pellucid train --resume --out {self.out}\n")
        self.kills += killed
        self._look()
        return killed

    def _look(self) -> None:
        """Whatever happened, there is a checkpoint that loads and is no older than the one before, or none yet."""
        if self.positions or (self.out / "last.ckpt").exists():
            self.positions.append(RunDirectory(self.out).read_checkpoint().training["step"])
            assert self.positions == sorted(self.positions)
        if (self.out / "model.safetensors").exists():
            pl.load(self.out)

    def result(self) -> dict[str, object]:
        """All that two runs must have in common: all of their files but paths, threads and seconds."""
        assert {path.name for path in self.out.iterdir()} == RUN_FILES
        kept = RunDirectory(self.out).read_checkpoint()
        rows = [json.loads(line) for line in (self.out / "history.jsonl").read_text().splitlines()]
        for document in (kept.training, *kept.training["history"], *rows):
            del document["seconds"]
        return {
            "model": (self.out / "model.safetensors").read_bytes(),
            "metrics": (self.out / "metrics.json").read_bytes(),
            "splits": (self.out / "splits.json").read_bytes(),
            "history": rows,
            "arrays": {name: array.tobytes() for name, array in kept.arrays.items()},
            "training": kept.training,
            "settings": kept.settings,
        }
