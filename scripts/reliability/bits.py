"""That bits stay the same: for any number of threads, any company of an image, and across a resume."""

from __future__ import annotations

import hashlib
import signal
import tempfile
from pathlib import Path

import numpy as np
from page import table

import pellucid as pl
from pellucid import engines, nn, optim

THREADS = (1, 2, 3, 5, 8)
BATCHES = (1, 7, 64, 1797)
STOPS = ([(7, 2), (24, 3), (None, 5)], [(18, 8), (None, 1)], [(1, 1), (35, 8), (None, 2)])
"""Runs in parts: up to which step, on how many threads. There are 18 steps in each of two epochs."""


class _StopAfter(pl.Callback):
    def __init__(self, steps: int | None) -> None:
        self.steps = steps

    def on_batch_end(self, trainer: object, step: int, loss: float) -> None:
        if step + 1 == self.steps:
            signal.raise_signal(signal.SIGINT)


def train(threads: int, **options: object) -> pl.training.Run:
    """Train with all that could shake bits: dropout, augmentation, momentum, batch norm."""
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.LazyLinear(10),
    )
    options = {"epochs": 2, "augment": "digit", "progress": False, **options}
    return pl.fit(net, pl.data.load("digits"), optimizer=optim.SGD(0.05, momentum=0.9), threads=threads, **options)


def trainings() -> dict[str, str]:
    """Return the digest of a training by number of threads, whole and in parts."""
    found = {f"{n} thread{'s' * (n > 1)}": train(n).digest for n in THREADS}
    for parts in STOPS:
        with tempfile.TemporaryDirectory() as folder:
            words = []
            for number, (steps, threads) in enumerate(parts):
                out = Path(folder) / "run"
                run = train(threads, out=out, resume=number > 0, callbacks=[_StopAfter(steps)])
                words.append(f"{threads} " + ("to the end" if steps is None else f"to step {steps}"))
            found["resumed: " + ", ".join(words)] = run.digest
    return found


def predictions() -> dict[str, str]:
    """Return the digest of a trained network's outputs by batch size."""
    engine, ds = engines.create("compiled"), pl.data.load("digits")
    engine.build(train(2).model.network)
    images = np.ascontiguousarray(ds.images, dtype=np.float32)
    found = {}
    for size in BATCHES:
        parts = [engine.predict(images[i : i + size]) for i in range(0, len(images), size)]
        found[str(size)] = hashlib.sha256(np.concatenate(parts).tobytes()).hexdigest()
    return found


def measure() -> tuple[dict[str, str], list[str]]:
    """Return the page's tables, and which of them hold two digests."""
    found = {"trainings": (trainings(), "threads"), "predictions": (predictions(), "images at once")}
    print("digests", flush=True)
    tables = {
        name: table([head, "SHA-256"], [[label, f"`{digest}`"] for label, digest in digests.items()])
        for name, (digests, head) in found.items()
    }
    return tables, [f"bits of {name}" for name, (digests, _) in found.items() if len(set(digests.values())) > 1]
