"""Who takes part: pellucid, and the frameworks whose environments are found. Each is a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from pellucid.errors import EngineError

OWN = "pellucid"
TITLES = {
    OWN: "pellucid",
    "torch": "PyTorch",
    "keras": "Keras",
    "jax": "JAX",
    "onnxruntime": "ONNX Runtime",
}
_NEEDS = {
    "torch": ("torch",),
    "keras": ("keras", "tensorflow"),
    "jax": ("jax",),
    "onnxruntime": ("onnxruntime", "onnx"),
}
_TIMEOUT = 300.0  # seconds for one answer

# What holds each to the instructions of an older CPU. ONNX Runtime has no such switch.
INSTRUCTIONS: dict[str, dict[str, str]] = {
    "native": {},
    "avx2": {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    },
}


class Dropped(EngineError):
    """A contestant that cannot go on, with the reason in one line."""


def find(folder: Path) -> dict[str, str]:
    """Return the Python of each peer that is there: an environment in the folder, or what runs this.

    Args:
        folder: Has an environment for each peer, by its name; scripts/peers.sh makes them.
    """
    found = {}
    for name, modules in _NEEDS.items():
        inside = folder / name / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        if inside.exists():
            found[name] = str(inside.absolute())
        elif all(importlib.util.find_spec(module) for module in modules):
            found[name] = sys.executable
    return found


class Contestant:
    """A process that answers commands; peers/worker.py says which.

    Args:
        name: Of TITLES.
        python: Which runs it.
        threads: How many it may use.
        instructions: A key of INSTRUCTIONS.
    """

    def __init__(self, name: str, python: str, threads: int, instructions: str = "native") -> None:
        self.name, self.threads = name, threads
        environment = {**os.environ, **INSTRUCTIONS[instructions]}
        if name != OWN:  # what is on our path is not for their Python
            environment.pop("PYTHONPATH", None)
        environment |= {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
        worker = Path(__file__).parent / "peers" / "worker.py"
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [python, str(worker), name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            text=True,
            encoding="utf-8",
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer to a command.

        Args:
            command: A method of peers.worker.Worker.
            **arguments: Its arguments.

        Raises:
            Dropped: Where the process fails, ends or is silent.
        """
        try:
            if self._process.stdin is None:
                raise BrokenPipeError
            self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=_TIMEOUT)
        except BrokenPipeError:
            line = ""
        except queue.Empty:
            raise Dropped(f"no answer within {_TIMEOUT:.0f} s") from None
        if not line:
            raise Dropped(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Dropped(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _listen(self) -> None:
        if self._process.stdout is not None:
            for line in self._process.stdout:
                self._answers.put(line)
        self._answers.put("")

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1][:300] if lines else f"ended with exit code {self._process.returncode}"
