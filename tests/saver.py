"""A run that saves, again and again, under strace: killed at a system call, or with the call failing.

As a script this is the process that saves: for each line that it reads, a copy of itself waits to be traced, then
writes checkpoint, history and model of the run's second epoch over those of the first.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import pellucid as pl
from pellucid import nn, optim, schedules
from pellucid.errors import PellucidError
from pellucid.files import is_temporary
from pellucid.training.run_directory import RunDirectory

DISK = ("openat", "newfstatat", "stat", "fstat", "read", "write", "fsync", "close", "rename")  # what a disk can refuse
WRITTEN = ("last.ckpt", "history.jsonl", "model.safetensors")
MARK = "getppid"  # a system call that saving has no use for


class Outcome(NamedTuple):
    """What became of a save.

    Attributes:
        call: Name and number of the system call that was meddled with.
        code: Exit code; -9 for killed.
        message: Of the error.
        epochs: How many the checkpoint has: 1 is the old one, 2 the new.
        left: Files that should not be there; where the process was killed, besides a temporary file.
    """

    call: str
    code: int
    message: str
    epochs: int
    left: list[str]


class Saver:
    """The process that saves, as seen from outside.

    Args:
        folder: Empty.

    Raises:
        OSError: Where there is no strace, or it may not trace.
    """

    def __init__(self, folder: Path) -> None:
        self.old, self.run, self._trace = folder / "old", folder / "run", folder / "trace"
        command = [sys.executable, __file__, str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.communicate()

    def _listen(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process that saves has ended")
        return line.rstrip("\n")

    def save(self, *options: str) -> tuple[int, str]:
        """Save once, traced with these options of strace; return exit code and error."""
        shutil.rmtree(self.run)
        shutil.copytree(self.old, self.run)
        self._process.stdin.write("save\n")
        self._process.stdin.flush()
        child = self._listen()
        try:
            command = ["strace", "-o", str(self._trace), *options, "-p", child]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
                if "attached" not in (said := strace.stderr.readline()):
                    raise OSError(said)
                os.kill(int(child), signal.SIGUSR1)
        except OSError:
            os.kill(int(child), signal.SIGKILL)
            raise
        code, _, message = self._listen().partition(" ")
        return int(code), message

    def calls(self) -> Counter[str]:
        """Return how often a save makes each system call."""
        code, message = self.save()
        if code:
            raise RuntimeError(message)
        _, saving, _ = re.split(rf"^{MARK}\(.*\n", self._trace.read_text(), flags=re.MULTILINE)
        return Counter(re.findall(r"^(\w+)\(", saving, re.MULTILINE))

    def meddle(self, what: str, only: tuple[str, ...] = ()) -> Iterator[Outcome]:
        """Save once for each system call that a save makes, and meddle with that call.

        Args:
            what: To do, in strace's words: "signal=KILL" or "error=ENOSPC".
            only: Names of calls; all if empty.
        """
        for name, count in sorted(self.calls().items()):
            for number in range(1, count + 1) if name in only or not only else ():
                code, message = self.save("-e", f"trace={name}", "-e", f"inject={name}:{what}:when={number}")
                pl.load(self.run)
                epochs = RunDirectory(self.run).read_checkpoint().training["epoch"]
                known = {path.name for path in self.old.iterdir()}
                left = [path for path in self.run.iterdir() if path.name not in known]
                left = [path.name for path in left if not (code == -signal.SIGKILL and is_temporary(path))]
                yield Outcome(f"{name} {number}", code, message, epochs, left)


class _Keep(pl.Callback):
    def on_train_begin(self, trainer):
        self.trainer = trainer


def _main(folder: Path) -> None:
    ds = pl.data.load("digits", subset=100)
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(10))
    options = {
        "optimizer": optim.Adam(1e-3),
        "schedule": schedules.Constant(),
        "out": folder / "run",
        "progress": False,
    }
    pl.fit(net, ds, epochs=1, **options)
    shutil.copytree(folder / "run", folder / "old")
    keep = _Keep()
    pl.fit(net, ds, epochs=2, callbacks=[keep], resume=True, **options)
    for name in WRITTEN:
        if (folder / "run" / name).read_bytes() == (folder / "old" / name).read_bytes():
            raise RuntimeError(f"{name} is the same after both epochs")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    _say("ready")
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            _save(keep.trainer, folder / "message")
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        _say(f"{code} {(folder / 'message').read_text() if code == 1 else ''}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _save(trainer, message: Path) -> None:
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER: any process may trace this
    _say(str(os.getpid()))
    code = 2
    try:
        signal.sigwait([signal.SIGUSR1])
        os.getppid()
        trainer.checkpoint()
        os.getppid()
        code = 0
    except PellucidError as error:
        message.write_text(str(error))
        code = 1
    finally:
        os._exit(code)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
