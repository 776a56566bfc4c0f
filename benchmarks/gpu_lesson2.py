"""Lesson 2's network on MNIST: the engine torch beside the plain PyTorch loop of a course, on the same device.

    python benchmarks/gpu_lesson2.py [--device cuda|cpu] [--epochs 10] [--rounds 3] [--subset N] [--out FILE.json]

The loop of the course: batch 150, a DataLoader over a TensorDataset that shuffles, Adam(lr=1e-3), loss.item() in every
step, as its notebook has it. The engine does the same work: the same first weights, batch 150, Adam(lr=1e-3), another
order. Measured are the seconds of an epoch (the median, the first epoch apart, which captures CUDA graphs and chooses
convolutions) and the seconds of training until 99% of the test images are right, tested after each epoch, the tests not
timed. Rounds take turns. On CUDA the engine is also measured with bfloat16.

Needs torch, and MNIST in $PELLUCID_DATA or the cache.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pellucid as pl
from pellucid import engines, interop, models, nn, optim
from pellucid.random import shuffled

BATCH, RATE, TARGET = 150, 1e-3, 0.99

Epochs = Iterator[tuple[float, Callable[[], float]]]
"""After each epoch its seconds, and what gives the share of test images that are right."""


def course(data: dict[str, np.ndarray], device: str, seed: int) -> Epochs:
    """The plain loop."""
    import torch

    torch.manual_seed(seed)
    module = interop.to_torch(models.create("lesson2", (1, 28, 28), 10, seed)).to(device)
    optimizer, criterion = torch.optim.Adam(module.parameters(), lr=RATE), torch.nn.CrossEntropyLoss()
    train = torch.utils.data.TensorDataset(torch.tensor(data["x"]), torch.tensor(data["y"]))
    loader = torch.utils.data.DataLoader(train, batch_size=BATCH, shuffle=True)

    def right() -> float:
        module.eval()
        with torch.no_grad():
            parts = [module(part.to(device)).argmax(1).cpu() for part in torch.tensor(data["test_x"]).split(1000)]
        return float((torch.cat(parts).numpy() == data["test_y"]).mean())

    while True:
        module.train()
        began, total = time.perf_counter(), 0.0
        for x, y in loader:
            x, y = x.to(device), y.to(device)
            optimizer.zero_grad()
            loss = criterion(module(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()
        yield time.perf_counter() - began, right


def engine(data: dict[str, np.ndarray], device: str, seed: int, precision: str = "float32") -> Epochs:
    """The engine torch."""
    net = models.create("lesson2", (1, 28, 28), 10, seed)
    worker = engines.create("torch", device, precision)
    worker.build(net, nn.CrossEntropyLoss(), optim.Adam(lr=RATE), seed)
    n = len(data["x"])
    steps = math.ceil(n / BATCH)

    def right() -> float:
        return float((worker.predict(data["test_x"]).argmax(axis=1) == data["test_y"]).mean())

    for epoch in itertools.count():
        order = shuffled(seed, epoch, n)
        began = time.perf_counter()
        worker.train(data["x"], data["y"], order, BATCH, epoch * steps, np.full(steps, RATE))
        yield time.perf_counter() - began, right


def measure(epochs: Epochs, count: int) -> dict[str, Any]:
    """Return the seconds of each epoch, the accuracies, and the seconds until the target, None if not reached."""
    seconds, shares = [], []
    for taken, right in itertools.islice(epochs, count):
        seconds.append(taken)
        shares.append(right())
    reached = next((i for i, share in enumerate(shares) if share >= TARGET), None)
    until = None if reached is None else sum(seconds[: reached + 1])
    return {"seconds": seconds, "accuracies": shares, "until_target": until}


def summary(name: str, rounds: list[dict[str, Any]]) -> str:
    """Return a line: median seconds of an epoch, first epochs apart, and until the target."""
    later = [s for r in rounds for s in (r["seconds"][1:] or r["seconds"])]
    first = statistics.median(r["seconds"][0] for r in rounds)
    reached = [r["until_target"] for r in rounds if r["until_target"] is not None]
    until = f"{statistics.median(reached):8.2f}" if reached else "       -"
    best = statistics.median(max(r["accuracies"]) for r in rounds)
    return (
        f"{name:24} {statistics.median(later):8.3f} {min(later):8.3f} {max(later):8.3f} {first:8.3f} {until} "
        f"{len(reached)}/{len(rounds)} {best:8.4f}"
    )


def main() -> int:
    """Measure, print a table, and write the figures if asked."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--subset", type=int, help="train on so many images only, to try the script")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    try:
        engines.create("torch", arguments.device)
        ds = pl.data.load("mnist")
    except pl.PellucidError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    import torch

    spec = pl.InputSpec.of(ds)
    chosen = np.concatenate([ds.splits.train, ds.splits.val])[: arguments.subset]
    data = {
        "x": spec.canonical(ds.images[chosen]),
        "y": ds.targets[chosen],
        "test_x": spec.canonical(ds.images[ds.splits.test]),
        "test_y": ds.targets[ds.splits.test],
    }
    device = arguments.device
    contestants: dict[str, Callable[[int], Epochs]] = {
        "plain loop": lambda seed: course(data, device, seed),
        "engine torch": lambda seed: engine(data, device, seed),
    }
    if device == "cuda":
        contestants["engine torch, bfloat16"] = lambda seed: engine(data, device, seed, "bfloat16")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
    for seed in range(arguments.rounds):
        for name, start in contestants.items():
            found[name].append(measure(start(seed), arguments.epochs))

    where = (
        torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    print(f"{where}; PyTorch {torch.__version__}; {len(chosen)} images, batch {BATCH}, {arguments.rounds} rounds")
    print(f"{'seconds':24} {'epoch':>8} {'least':>8} {'most':>8} {'first':>8} {'to 99%':>8} reached accuracy")
    for name, rounds in found.items():
        print(summary(name, rounds))
    if arguments.out:
        facts = {"where": where, "torch": torch.__version__, "images": len(chosen), "batch": BATCH, "found": found}
        arguments.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
