"""How many threads there are to use."""

from __future__ import annotations

import math
import os
from pathlib import Path

from pellucid.errors import OptionError
from pellucid.shapes import integer

_VARIABLE = "PELLUCID_THREADS"


def available() -> int:
    """Return how many threads may run at once: PELLUCID_THREADS, else cores less what the system withholds.

    Raises:
        OptionError: For a PELLUCID_THREADS that is no number of threads.
    """
    asked = os.environ.get(_VARIABLE, "").strip()
    if asked:
        if not asked.isdecimal() or int(asked) < 1:
            raise OptionError(f"{_VARIABLE} must be a number of threads, at least 1, got {asked!r}")
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _quota()))


def check(threads: int | None) -> int:
    """Return a number of threads that was asked for, checked; available() for None."""
    return available() if threads is None else integer(threads, "threads")


def _quota(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many cores' worth of time a container may use, rounded up."""
    try:
        limit, period = (root / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            limit = (root / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        except OSError:
            return 1 << 20
    if not limit.isdecimal() or not period.isdecimal() or int(period) == 0:
        return 1 << 20
    return max(1, math.ceil(int(limit) / int(period)))
