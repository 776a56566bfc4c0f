"""Killing real trainings, and disks that refuse: what is left, and how the run ends."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

from page import table

from saver import DISK, Outcome, Saver
from survival import KINDS, Victim

KILLS = 200
MOST = 8  # kills of one run, after which it may end
LOADING = 1.5  # seconds that a process takes before it trains, roughly
MEDDLING = {"SIGKILL": "signal=KILL", "disk full (ENOSPC)": "error=ENOSPC", "disk failing (EIO)": "error=EIO"}


def kill(name: str, count: int, folder: Path, rng: Random) -> tuple[list[int], list[str]]:
    """Kill trainings of one kind so often.

    Args:
        name: Of the kind.
        count: How often.
        folder: Empty.
        rng: Draws moments.

    Returns:
        Kills, those while loading, runs, and runs that ended the same; what was not as it should be.
    """
    whole = Victim(folder / "whole", KINDS[name], rng)
    seconds = whole.finish()
    kills = early = runs = same = 0
    while kills < count:
        victim = Victim(folder / str(runs), KINDS[name], rng)
        while victim.kills < min(MOST, count - kills):
            loaded = rng.random() > 0.1
            if not victim.kill(rng.uniform(0, seconds / 4 if loaded else LOADING), loaded=loaded):
                break
            early += not loaded
        victim.finish()
        runs, kills, same = runs + 1, kills + victim.kills, same + (victim.result() == whole.result())
        shutil.rmtree(victim.folder)
        print(f"{name}: {kills} kills", flush=True)
    return [kills, early, runs, same], [f"a killed run ({name})"] * (runs - same)


def at_random() -> tuple[dict[str, str], list[str]]:
    """Kill trainings of all kinds at random moments; return a table and what was not as it should be."""
    rng, counts, failures = Random(0), {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name in KINDS:
            counts[name], failed = kill(name, KILLS // len(KINDS), Path(folder, name), rng)
            failures += failed
    counts["together"] = [sum(column) for column in zip(*counts.values(), strict=True)]
    head = ["training", "kills", "of them while loading", "runs", "ended the same"]
    return {"kills": table(head, [[name, *map(str, row)] for name, row in counts.items()])}, failures


def right(what: str, outcome: Outcome) -> bool:
    """Return whether a save that was meddled with ended as it should."""
    if outcome.left:
        return False
    if what.startswith("signal"):
        return outcome.code == -signal.SIGKILL
    named = outcome.message.startswith("cannot write ") and "/run/" in outcome.message
    return (outcome.code, outcome.epochs) == (0, 2) or (outcome.code == 1 and named)


def at_each_call() -> tuple[dict[str, str], list[str]]:
    """Meddle with each system call of a save; return a table and what was not as it should be."""
    if shutil.which("strace") is None:
        return {"calls": "Not measured: strace was not installed."}, []
    rows, failures = [], []
    with tempfile.TemporaryDirectory() as folder, Saver(Path(folder)) as saver:
        for name, what in MEDDLING.items():
            outcomes = list(saver.meddle(what, () if what.startswith("signal") else DISK))
            failures += [f"{name} at {outcome.call}" for outcome in outcomes if not right(what, outcome)]
            codes, epochs = Counter(o.code for o in outcomes), Counter(o.epochs for o in outcomes)
            rows.append([name, *map(str, (len(outcomes), codes[1], codes[0], epochs[1], epochs[2]))])
            print(f"{name} at each call", flush=True)
    head = ["done to each call", "saves", "refused: exit 1, path and reason", "no harm", "old loads", "new loads"]
    return {"calls": table(head, rows)}, failures
