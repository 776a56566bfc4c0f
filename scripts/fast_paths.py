"""What each fast path of the compiled engine gains: workloads with the path and without it, on one thread.

    python scripts/fast_paths.py        (a part of make bench; writes benchmarks/fast_paths.json)

A path is left out by telling the translation that it does not pay, so what runs instead is the general path.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from pellucid import engines, nn
from pellucid.benchmark.workloads import WORKLOADS, Workload, data
from pellucid.compiled.tiles import window_tile

ROUNDS = 15
SECONDS = 0.1  # of a turn
KEPT = Path(__file__).resolve().parents[1] / "benchmarks" / "fast_paths.json"


@dataclass(frozen=True)
class FastPath:
    """A fast path.

    Attributes:
        title: For the table.
        name: What decides, below pellucid.compiled.
        instead: What it says without the path.
        workloads: Where it pays.
    """

    title: str
    name: str
    instead: Any
    workloads: tuple[str, ...]


def never(*args: object) -> tuple[()]:
    """Say that a tile does not pay."""
    return ()


PATHS = [
    FastPath(
        "convolution, ReLU and max-pooling are one operation; the way back goes only to the maxima",
        "graph._join_pool",
        lambda graph: None,
        ("W2", "W4", "W1", "W2-1000", "W4-1000"),
    ),
    FastPath(
        "2x2 windows are pooled in registers",
        "forward.in_pairs",
        lambda *axes: False,
        ("W2", "W4", "W1", "W2-1000", "W4-1000"),
    ),
    FastPath(
        "Winograd's algorithm for convolutions 3x3 and their data gradients",
        "forward.winograd_tile",
        lambda *sizes: (0,),
        ("W2", "W1", "R8", "W2-1000"),
    ),
    FastPath(
        "Winograd's algorithm for weight gradients of convolutions 3x3, with SGD",
        "backward.winograd_gradient_tile",
        never,
        ("R8",),
    ),
    FastPath(
        "the weight gradient of a pooled first layer selects lanes, without lists",
        "backward.select_tile",
        never,
        ("W2", "W1", "W3", "W0"),
    ),
    FastPath(
        "the data gradient of a small map goes from windows to what they read", "backward.scatter_tile", never, ("W2",)
    ),
    FastPath(
        "where rows are short, a block of windows shares its weights",
        "forward.map_tile",
        lambda rows, columns, terms, channels: (1, *window_tile(columns, channels)),
        ("W2", "W2-1000"),
    ),
    FastPath(
        "parameters are cut into few blocks: three a thread, not 24", "backward._TASKS", 24, ("W2", "W4", "W1", "R8")
    ),
    FastPath(
        "batch 1 with SGD: gradient and step of a dense layer are one, sums go several ways at once",
        "engine.in_one_go",
        lambda optimizer: False,
        ("W3", "W0"),
    ),
    FastPath(
        "one image: the caller's thread, with records kept from call to call", "engine.SHORT", 0.0, ("W2-1", "W4-1")
    ),
]


def steps_of(work: Workload) -> Callable[[], int]:
    """Return a function that takes a turn and returns how many images went through."""
    network, engine = work.network(), engines.create("compiled")
    x, y = data(work)
    if work.optimizer is None:
        engine.build(network, threads=1)
        image = x[: work.batch]
        return lambda: len(engine.predict(image))
    engine.build(network, nn.CrossEntropyLoss(), work.optimizer, threads=1)
    count = max(1, len(x) // work.batch)
    order, rates = np.arange(count * work.batch), np.full(count, work.optimizer.lr / 10)
    starts = itertools.count(step=count)
    return lambda: len(engine.train(x, y, order, work.batch, next(starts), rates)) * work.batch


def turn(step: Callable[[], int], seconds: float) -> float:
    """Return microseconds per image of steps that take about so long."""
    images, began = 0, time.perf_counter()
    while (now := time.perf_counter() - began) < seconds:
        images += step()
    return now / images * 1e6 if images else np.inf


def measured(path: FastPath, name: str) -> dict[str, float]:
    """Return the best times with and without a path; both take turns."""
    target = f"pellucid.compiled.{path.name}"
    with_it = steps_of(WORKLOADS[name])
    with patch(target, path.instead):
        without = steps_of(WORKLOADS[name])
        without()
    best = {"with": np.inf, "without": np.inf}
    for _ in range(ROUNDS):
        best["with"] = min(best["with"], turn(with_it, SECONDS))
        with patch(target, path.instead):
            best["without"] = min(best["without"], turn(without, SECONDS))
    return {key: round(value, 3) for key, value in best.items()}


def main() -> None:
    """Measure all and write the file."""
    found = []
    for path in PATHS:
        rows = {name: measured(path, name) for name in path.workloads}
        print(path.title, {n: f"{r['without']:.4g} -> {r['with']:.4g}" for n, r in rows.items()}, flush=True)
        found.append({"title": path.title, "decides": path.name, "workloads": rows})
    KEPT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
