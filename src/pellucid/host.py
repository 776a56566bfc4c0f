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


def computes_with(engine: str, device: str = "cpu") -> dict[str, str]:
    """Return what the bits of a training depend on besides its settings: versions, and the CPU or the other device.

    Args:
        engine: What computes.
        device: Where.
    """
    from pellucid import __version__

    found = {"pellucid": __version__, "numpy": np.__version__}
    if engine == "compiled":
        from pellucid.compiled.kernel import made_for

        return {**found, **made_for()}
    if engine == "torch":
        import torch

        found["torch"] = str(torch.__version__)  # else it compares as a version
        if device == "cuda":
            return {**found, "device": torch.cuda.get_device_name()}
    return {**found, "CPU": processor()}


def processor() -> str:
    """Return the CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine() or os.name
