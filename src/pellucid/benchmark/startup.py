"""How long whole commands take, with an empty cache of compiled kernels and with a full one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pellucid.benchmark.contestants import INSTRUCTIONS
from pellucid.errors import EngineError

_BUILD_ALL = """
from pellucid import engines, models, nn, optim
for name in models.NAMES:
    shape = (3, 32, 32) if name == "resnet8" else (1, 28, 28)
    for optimizer in (optim.Adam(), optim.SGD(momentum=0.9)):
        engines.create("compiled").build(models.create(name, shape, 10), nn.CrossEntropyLoss(), optimizer)
"""


def startup(later: int = 1, every_model: bool = False, instructions: str = "native") -> list[dict[str, Any]]:
    """Return seconds of whole processes: {command, first, later (best)}.

    Args:
        later: How often to repeat with a full cache.
        every_model: Whether to build all named models too.
        instructions: A key of contestants.INSTRUCTIONS.
    """
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(folder / "digit.png")
        train = ["-m", "pellucid", "train", "digits", "--epochs", "1", "--out"]
        commands: dict[str, Callable[[int], list[str]]] = {
            "`pellucid train digits --epochs 1`": lambda number: [*train, f"run{number}"],
            "`pellucid predict` of one image": lambda _: ["-m", "pellucid", "predict", "run0", "digit.png"],
        }
        if every_model:
            commands["all named models built for training with Adam and SGD"] = lambda _: ["-c", _BUILD_ALL]
        for place, (title, command) in enumerate(commands.items()):
            cache = folder / f"cache{place}"
            times = []
            for number in range(1 + later):
                times.append(_seconds(command(number), cache, folder, instructions))
            found.append({"command": title, "first": times[0], "later": min(times[1:])})
    return found


def _seconds(command: list[str], cache: Path, folder: Path, instructions: str) -> float:
    environment = {**os.environ, **INSTRUCTIONS[instructions], "XDG_CACHE_HOME": str(cache)}
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *command], env=environment, cwd=folder, capture_output=True, text=True)
    taken = time.perf_counter() - began
    if done.returncode:
        raise EngineError(f"{' '.join(command[:3])} failed: {done.stderr.strip().splitlines()[-1:]}")
    return taken
