"""One contestant: a process that builds a workload when told to, and then takes its turns.

    python worker.py NAME THREADS

It runs in the contestant's own environment, where pellucid need not be, so it imports nothing of it. Commands come on
stdin and answers leave on stdout, one JSON object a line; whatever else is printed goes to stderr.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Way: TypeAlias = tuple[Callable[[int, int], float], Callable[[], None]]
"""run(first, count) and reset(); see the package."""

CHECKED = 3
"""Steps whose losses are compared."""

_WARM_UP = 0.2  # of a turn, untimed
_UNIT = 100  # steps at batch 1, which a framework may do in one call


class Job:
    """A workload as its file says it.

    Args:
        path: An npz file of workloads.write_job.
        threads: How many to use.

    Attributes:
        spec: The network, as nn.spec writes it.
        input_shape, flattened: (C, H, W) of an image, and of what is flattened.
        optimizer: {"name", "lr", ...}; None for prediction.
        weights: Arrays by their names in PyTorch.
        x, y: Images (M, C, H, W), labels (M,).
        batch, batches: Images of a batch, and how many there are.
        unit: Steps that come together: count is 1 or a multiple of it.
    """

    def __init__(self, path: str, threads: int) -> None:
        with np.load(path) as file:
            arrays = dict(file)
        job = json.loads(str(arrays.pop("job")))
        self.x, self.y = arrays.pop("x"), arrays.pop("y")
        self.weights = {name.removeprefix("weight/"): array for name, array in arrays.items()}
        self.spec, self.optimizer, self.threads = job["network"], job["optimizer"], threads
        self.input_shape, self.flattened = tuple(job["input_shape"]), tuple(job["flattened"])
        self.batch = 0
        self.cut(job["batch"])

    def cut(self, batch: int) -> None:
        """Cut the images into batches of another size."""
        self.batch, self.batches = batch, len(self.x) // batch
        self.unit = _UNIT if batch == 1 and self.optimizer else 1

    def part(self, number: int) -> slice:
        """Return which images belong to a batch."""
        first = number % self.batches * self.batch
        return slice(first, first + self.batch)

    def without_dropout(self) -> None:
        """Make dropout drop nothing, since every framework draws other numbers."""
        for layer in self.spec["layers"]:
            if layer["layer"] == "Dropout":
                layer["p"] = 0.0

    def channels_last(self) -> None:
        """Transpose images and weights for networks (N, H, W, C): filters (H, W, in, out), matrices (in, out)."""
        self.x = np.ascontiguousarray(self.x.transpose(0, 2, 3, 1))
        matrices = [name for name, array in self.weights.items() if array.ndim == 2]
        for name, array in self.weights.items():
            if name in matrices[:1]:  # it reads what was flattened
                array = array.reshape(-1, *self.flattened).transpose(0, 2, 3, 1).reshape(len(array), -1)
            if array.ndim > 1:
                array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
            self.weights[name] = np.ascontiguousarray(array)


class Worker:
    """Answers commands.

    Args:
        name: Of the contestant.
        threads: How many it may use.
    """

    def __init__(self, name: str, threads: int) -> None:
        self.threads = threads
        if name == "jax" and threads < (os.cpu_count() or 1) and hasattr(os, "sched_setaffinity"):
            # XLA takes a thread for each core that the process may use, and has no number to set.
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        self.contestant = importlib.import_module(f"run_{name}")
        self.way: Way | None = None

    def versions(self) -> dict[str, Any]:
        """Return the contestant's versions."""
        return {"versions": self.contestant.versions()}

    def control(self) -> dict[str, Any]:
        """Return how many GFLOP/s NumPy's matrix product reaches, which uses nothing of any contestant."""
        a = np.ones((512, 512), dtype=np.float32)
        began = time.perf_counter()
        for _ in range(20):
            a @ a
        return {"gflops": 20 * 2 * 512**3 / (time.perf_counter() - began) / 1e9}

    def build(self, job: str, seconds: float) -> dict[str, Any]:
        """Get ready for a workload: show the first losses, and choose the fastest way.

        Args:
            job: File.
            seconds: How long a turn lasts, about.
        """
        self.way = None
        loaded = Job(job, self.threads)
        plain = Job(job, self.threads)
        plain.without_dropout()
        run, _ = next(iter(self.contestant.start(plain).values()))
        losses = [run(number, 1) for number in range(CHECKED)]
        speeds, ways = {}, self.contestant.start(loaded)
        for name, (run, reset) in ways.items():
            speeds[name] = self._speed(run, reset, loaded.unit, seconds)
        best = min(speeds, key=lambda name: speeds[name])
        self.way, self.job = ways[best], loaded
        self.count = max(loaded.unit, round(seconds / speeds[best] / loaded.unit) * loaded.unit)
        microseconds = {name: speed / loaded.batch * 1e6 for name, speed in speeds.items()}
        return {"way": best, "ways": microseconds, "losses": losses}

    def _speed(self, run: Callable[[int, int], float], reset: Callable[[], None], unit: int, seconds: float) -> float:
        """Return about how many seconds a step takes, compiled and warm."""
        run(0, unit)
        count = unit
        while True:
            reset()
            began = time.perf_counter()
            run(0, count)
            taken = time.perf_counter() - began
            if taken > seconds / 3:
                return taken / count
            count *= 2

    def turn(self) -> dict[str, Any]:
        """Run for a turn, from the first weights, and return microseconds per image; its beginning is not counted."""
        if self.way is None:
            raise RuntimeError("nothing was built")
        run, reset = self.way
        unit = self.job.unit
        warm = max(unit, int(_WARM_UP * self.count) // unit * unit)
        reset()
        run(0, warm)
        began = time.perf_counter()
        value = run(warm, self.count)
        taken = time.perf_counter() - began
        if not math.isfinite(value):
            raise ArithmeticError(f"the work ended in {value}")
        return {"us": taken / (self.count * self.job.batch) * 1e6}

    def memory(self, job: str) -> dict[str, Any]:
        """Return by how many MB a process grows that has worked on two images and goes on with whole batches.

        Args:
            job: File.
        """
        small, loaded = Job(job, self.threads), Job(job, self.threads)
        small.cut(2)
        run, _ = next(iter(self.contestant.start(small).values()))
        run(0, 1)
        run, _ = next(iter(self.contestant.start(loaded).values()))
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as refs:
            refs.write("5")  # forget the highest number so far
        before = resident("VmRSS")
        for number in range(3):
            run(number, 1)
        return {"growth": resident("VmHWM") - before, "peak": resident("VmHWM")}


def resident(field: str) -> float:
    """Return the memory of this process in MB; VmHWM: the most it had."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024


def main() -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    worker = Worker(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(worker, command.pop("do"))(**command)
        except Exception as error:
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
