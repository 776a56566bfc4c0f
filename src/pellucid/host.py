"""The machine that pellucid runs on, as results name it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.compiled.threads import available


def machine() -> dict[str, Any]:
    """Return what numbers are measured on: cpu, cores, system, and the versions python and numpy."""
    return {
        "cpu": processor(),
        "cores": available(),
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def processor() -> str:
    """Return the CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine() or os.name
