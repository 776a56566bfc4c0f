"""One run of the benchmark: all contestants take turns within each round, while everything else is idle."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.benchmark.contestants import OWN, TITLES, Contestant, Dropped, find
from pellucid.benchmark.startup import startup
from pellucid.benchmark.workloads import WORKLOADS, write_job
from pellucid.compiled.threads import available
from pellucid.host import machine

FORMAT = 1
_PAUSE = 0.02  # seconds between two turns, in which threads that wait actively fall asleep
_SAME = 1e-3  # how far losses may differ, relatively


@dataclass(frozen=True)
class Settings:
    """What to measure, and how long.

    Attributes:
        workloads: Names.
        peers: Folder of the peers' environments; None for pellucid alone.
        rounds: How often each takes a turn.
        seconds: Of a turn.
        memory: Whether to measure this too.
        startup: How often to repeat whole commands; 0 for not at all.
        every_model: Whether to build all named models too.
        instructions: "native" or "avx2".
    """

    workloads: tuple[str, ...] = tuple(WORKLOADS)
    peers: Path | None = None
    rounds: int = 5
    seconds: float = 0.1
    memory: bool = True
    startup: int = 1
    every_model: bool = False
    instructions: str = "native"


Progress = Callable[[int, int], None]
Result = dict[str, Any]
"""What a run has found, plain data. Times are microseconds per image.

    format          1
    instructions    "native" or "avx2"
    machine         cpu, cores, system, python, numpy
    versions        of each contestant's packages
    absent          why a peer is not there: {peer: reason}
    dropped         why a peer is not in a workload: {workload: {peer: reason}}
    control_gflops  NumPy's matrix product on one thread: best, median, worst of all rounds
    workloads       {name: title, batch, trains,
                      times: {contestant: {threads: {best, median, way, ways}}},
                      losses: {contestant: [first steps']},       in prediction, sums of outputs
                      ratios: {peer: {threads or "best": its best time / pellucid's}},
                      memory: {contestant: {growth, peak}}}       MB
    startup         [{command, first, later}], seconds
"""


def run(settings: Settings, progress: Progress = lambda done, total: None) -> Result:
    """Measure, and return what was found.

    Args:
        settings: What to measure.
        progress: Called with (done, total).
    """
    counts = sorted({1, available()})
    pythons = {OWN: sys.executable} | (find(settings.peers) if settings.peers is not None else {})
    result: Result = {
        "format": FORMAT,
        "instructions": settings.instructions,
        "machine": machine(),
        "versions": {},
        "absent": {name: "not installed" for name in TITLES if name not in pythons},
        "dropped": {},
        "control_gflops": {},
        "workloads": {},
        "startup": [],
    }
    turns = len(pythons) * len(counts) * (settings.rounds + 1)
    ticks = _Ticks(progress, len(settings.workloads) * turns)
    control: list[float] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        there: list[Contestant] = []
        for name, python in pythons.items():
            own = [Contestant(name, python, threads, settings.instructions) for threads in counts]
            for contestant in own:
                stack.callback(contestant.close)
            try:
                for contestant in own:
                    result["versions"] |= contestant.ask("versions")["versions"]
            except Dropped as reason:
                if name == OWN:
                    raise
                result["absent"][name] = str(reason)
                continue
            there += own
        for name in settings.workloads:
            path = folder / f"{name}.npz"
            write_job(WORKLOADS[name], path)
            result["workloads"][name], dropped = _workload(name, path, there, settings, ticks, control)
            if dropped:
                result["dropped"][name] = dropped
            if settings.memory and WORKLOADS[name].optimizer is not None and sys.platform == "linux":
                able = result["workloads"][name]["times"]
                result["workloads"][name]["memory"] = _memory(path, {n: pythons[n] for n in able}, counts[-1], settings)
    ordered = sorted(control)
    result["control_gflops"] = {"best": ordered[-1], "median": statistics.median(ordered), "worst": ordered[0]}
    if settings.startup:
        result["startup"] = startup(settings.startup, settings.every_model, settings.instructions)
    return result


class _Ticks:
    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def tick(self, count: int = 1) -> None:
        self._done = min(self._done + count, self._total)
        self._progress(self._done, self._total)


def _workload(
    name: str, path: Path, there: list[Contestant], settings: Settings, ticks: _Ticks, control: list[float]
) -> tuple[Result, dict[str, str]]:
    """Return a workload's times, and who could not do it; control gets one more number a round."""
    work, dropped, built = WORKLOADS[name], {}, {}
    losses: dict[str, list[float]] = {}
    for contestant in there:
        ticks.tick()
        if contestant.name in dropped or (contestant.name == "onnxruntime" and work.optimizer is not None):
            continue
        try:
            answer = contestant.ask("build", job=str(path), seconds=settings.seconds)
            losses.setdefault(contestant.name, answer["losses"])
            check_losses(losses[OWN], answer["losses"])
        except Dropped as reason:
            if contestant.name == OWN:
                raise
            dropped[contestant.name] = str(reason)
        else:
            built[contestant] = answer
    turns: dict[Contestant, list[float]] = {contestant: [] for contestant in built}
    for _ in range(settings.rounds):
        control.append(there[0].ask("control")["gflops"])
        for contestant in built:
            time.sleep(_PAUSE)
            if contestant.name not in dropped:
                try:
                    turns[contestant].append(contestant.ask("turn")["us"])
                except Dropped as reason:
                    if contestant.name == OWN:
                        raise
                    dropped[contestant.name] = str(reason)
            ticks.tick()
    times: dict[str, dict[str, Any]] = {}
    for contestant, answer in built.items():
        if contestant.name not in dropped:
            taken = turns[contestant]
            times.setdefault(contestant.name, {})[str(contestant.threads)] = {
                "best": min(taken),
                "median": statistics.median(taken),
                "way": answer["way"],
                "ways": answer["ways"],
            }
    found = {
        "title": work.title,
        "batch": work.batch,
        "trains": work.optimizer is not None,
        "times": times,
        "losses": {peer: values for peer, values in losses.items() if peer in times},
        "ratios": ratios(times),
        "memory": {},
    }
    return found, dropped


def check_losses(own: Iterable[float], other: Iterable[float]) -> None:
    """Refuse to compare what does not compute the same.

    Args:
        own: Of pellucid's first steps.
        other: Of a peer's.

    Raises:
        Dropped: Where they differ.
    """
    mine, theirs = np.array(list(own)), np.array(list(other))
    if not np.allclose(theirs, mine, rtol=_SAME, atol=0):
        raise Dropped(f"not the same work: losses {theirs.round(4).tolist()}, pellucid's {mine.round(4).tolist()}")


def ratios(times: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return how many times as long each peer takes, by threads, and each with the number of threads that suits it.

    Args:
        times: Of a workload.
    """
    best = {name: {threads: row["best"] for threads, row in rows.items()} for name, rows in times.items()}
    for rows in best.values():
        rows["best"] = min(rows.values())
    own = best.pop(OWN)
    return {name: {key: rows[key] / own[key] for key in rows} for name, rows in best.items()}


def _memory(path: Path, pythons: dict[str, str], threads: int, settings: Settings) -> Result:
    """Return by how much a process of each contestant grows, in one of its own."""
    found: Result = {}
    for name, python in pythons.items():
        contestant = Contestant(name, python, threads, settings.instructions)
        try:
            found[name] = contestant.ask("memory", job=str(path))
        except Dropped:
            continue
        finally:
            contestant.close()
    return found
