"""A program with its memory, and the threads that run it.

Threads live as long as one call, which lasts about 50 ms in training: nothing is left behind, nothing breaks after a
fork, and several callers do not meet. Starting one takes some 50 us.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid._types import Array
from pellucid.compiled.layout import READ_AHEAD
from pellucid.compiled.program import Program
from pellucid.compiled.records import WORK
from pellucid.compiled.runner import BEGIN, DONE, LEAVE, MEETING_SIZE, RUN, START, STEP, STOP, run_program
from pellucid.compiled.tiles import padded
from pellucid.errors import EngineError
from pellucid.nn import Network

SHORT = 0.02
"""Seconds for which a caller may be deaf to signals."""


class Machine:
    """A program with its memory.

    Args:
        program: Finished.
        network: Whose parameters it works on.

    Attributes:
        weights, gradients, memory: Parameters, their gradients, two arrays of the optimizer; in the engine's layout.
    """

    def __init__(self, program: Program, network: Network) -> None:
        self.program, self._network = program, network
        self._version = -1
        size = program.parameters.size
        trained = size if program.loss is not None else 0
        self.weights, self.gradients = _floats(size), _floats(trained)
        self.memory = [_floats(trained), _floats(trained)]
        self._vectors = _floats(program.vectors.size)
        self._copies = _floats(program.copies + READ_AHEAD)
        self._statistics = np.zeros(max(program.parts, 1))
        self._frames, self._scratch = _floats(0), _floats(0)
        self._losses, self._hits = np.zeros(0), np.zeros(0, dtype=np.int64)
        self._meeting = np.zeros(MEETING_SIZE, dtype=np.int64)
        self._stopped = False
        self._alone: _Alone | None = None
        self._own_scratch = padded(program.scratch + READ_AHEAD, 16)
        self._pause = _pause_address()
        program.load()
        self._loop = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(run_program().address)

    def refresh(self) -> None:
        """Take over the network's parameters and buffers where they have changed."""
        network, program = self._network, self.program
        if self._version == network.version:
            return
        self.weights[:] = program.parameters.pack(network.flat_parameters)
        self._vectors[:] = program.vectors.pack(network.flat_buffers)
        for scale, weight, var, channels, eps in program.scales:
            inverse = 1 / np.sqrt(self._vectors[var : var + channels].astype(np.float64) + eps)
            self._vectors[scale : scale + channels] = self.weights[weight : weight + channels] * inverse
        self.run(np.zeros(1, dtype=STEP.dtype), threads=1, frames=0, stages=program.refresh_table)
        self._version = network.version

    def hand_over(self) -> None:
        """Give the network the parameters and buffers that training has changed."""
        network = self._network
        with network.edit():
            self.program.parameters.unpack(self.weights, network.flat_parameters)
            self.program.vectors.unpack(self._vectors, network.flat_buffers)
        self._version = network.version

    def stop(self) -> None:
        """Let a run end soon, without the step that it is in; so does the next one until go() is called."""
        self._stopped = True
        self._meeting[STOP] = 1

    def go(self) -> None:
        """Forget a stop."""
        self._stopped = False

    def predict_alone(self, images: Array, outputs: Array, group: int) -> None:
        """Run the program of a prediction on the caller's thread, with as little ado as possible.

        Args:
            images: float32, C-contiguous.
            outputs: float32, C-contiguous, written.
            group: Images of a task.
        """
        ready = self._alone
        if ready is None or ready.group != group:
            self._make_room(group, 1, 0)
            step, meeting = np.zeros(1, dtype=STEP.dtype), np.zeros(MEETING_SIZE, dtype=np.int64)
            runs = self._runs(1, group, True, step, self.program.stage_table, meeting)
            works = self._works(1, group, True)
            fields = step["batch"], works["images"], works["outputs"]
            kept = step, runs, works, self._frames, self._scratch
            ready = self._alone = _Alone(group, kept, meeting, _address(runs), _address(works), *fields)
        ready.batch[0], ready.images[0], ready.outputs[0] = len(images), _address(images), _address(outputs)
        ready.meeting.fill(0)
        ready.meeting[START] = BEGIN
        self._loop(ready.run, ready.work)

    def _make_room(self, frames: int, threads: int, losses: int) -> None:
        """Make sure that there are so many frames, scratch memory for so many threads, and places for losses."""
        program = self.program
        try:
            self._frames = _grown(self._frames, frames * program.frame + READ_AHEAD)
            self._scratch = _grown(self._scratch, threads * self._own_scratch)
            if self._losses.size < losses:
                self._losses, self._hits = np.zeros(losses), np.zeros(losses, dtype=np.int64)
        except MemoryError:
            need = program.memory_bytes(frames, threads) / 2**30
            raise EngineError(
                f"{frames} images at a time take {need:.1f} GB, which are not there; use a smaller batch or images"
            ) from None

    def _runs(self, threads: int, group: int, own_frames: bool, steps: Array, stages: Array, meeting: Array) -> Array:
        """Return a Run for each thread, without the caller's arrays."""
        tables = {"instructions": self.program.instruction_table, "tasks": self.program.task_table}
        runs = np.zeros(threads, dtype=RUN.dtype)
        for name, array in {**tables, "steps": steps, "stages": stages, "meeting": meeting}.items():
            runs[name] = _address(array)
        runs["stage_count"], runs["step_count"], runs["pause"] = len(stages), len(steps), self._pause
        runs["thread"], runs["threads"] = np.arange(threads), threads
        runs["group"], runs["own_frames"] = group, int(own_frames)
        return runs

    def _works(self, threads: int, group: int, own_frames: bool) -> Array:
        """Return a Work for each thread, without the caller's arrays."""
        program, memory = (
            self.program,
            {
                "frames": self._frames,
                "weights": self.weights,
                "gradients": self.gradients,
                "memory1": self.memory[0],
                "memory2": self.memory[1],
                "copies": self._copies,
                "buffers": self._vectors,
                "tables": self.program.tables,
                "statistics": self._statistics,
                "scratch": self._scratch,
                "losses": self._losses,
                "hits": self._hits,
            },
        )
        works = np.zeros(threads, dtype=WORK.dtype)
        for name, array in memory.items():
            works[name] = _address(array)
        works["frame"] = program.frame
        works["scratch"] += 4 * self._own_scratch * np.arange(threads)
        if own_frames:
            works["frames"] += 4 * program.frame * group * np.arange(threads)
        return works

    def run(
        self,
        steps: Array,
        *,
        threads: int,
        frames: int,
        group: int = 1,
        own_frames: bool = False,
        stages: Array | None = None,
        images: Array | None = None,
        targets: Array | None = None,
        order: Array | None = None,
        outputs: Array | None = None,
        keys: Array | None = None,
        seconds: float = 0.0,
    ) -> tuple[Array, Array]:
        """Run steps and return (loss, hits) of each that was finished.

        Where it will take long, the caller only waits for the threads, so that it can hear signals.

        Args:
            steps: Table of steps.
            threads: How many.
            frames: How many must exist.
            group: Images of a task.
            own_frames: Whether each thread uses frames of its own.
            stages: Table of stages; those of the program if None.
            images: float32, C-contiguous.
            targets: int64 or float32, C-contiguous.
            order: int64, indices into images and targets.
            outputs: float32, C-contiguous, written.
            keys: uint64, one a dropout layer for each step.
            seconds: About how long it will take.
        """
        program = self.program
        self._make_room(frames, threads, int(steps["batch"].max(initial=0)) if program.loss is not None else 0)
        stages = program.stage_table if stages is None else stages
        losses, hits = np.zeros(len(steps)), np.zeros(len(steps), dtype=np.int64)
        meeting = self._meeting = np.zeros(MEETING_SIZE, dtype=np.int64)
        if self._stopped:
            self.stop()

        runs = self._runs(threads, group, own_frames, steps, stages, meeting)
        for name, array in {"order": order, "keys": keys, "losses": losses, "hits": hits}.items():
            runs[name] = _address(array)
        works = self._works(threads, group, own_frames)
        for name, array in {"images": images, "targets": targets, "outputs": outputs}.items():
            works[name] = _address(array)
        alone, ended = seconds < SHORT, []
        kept = (runs, works, steps, stages, meeting, images, targets, order, outputs, keys, losses, hits)

        def work(thread: int, end: threading.Event) -> None:
            try:
                self._loop(runs[thread:].ctypes.data, works[thread:].ctypes.data)
            finally:
                _ = kept  # whatever becomes of the caller, this memory lasts as long as the thread
                end.set()

        try:
            for thread in range(int(alone), threads):
                ended.append(threading.Event())
                threading.Thread(target=work, args=(thread, ended[-1]), name=f"pellucid-{thread}").start()
            meeting[START] = BEGIN
            if alone:
                work(0, threading.Event())
            for end in ended:
                end.wait()
        except BaseException:  # Ctrl-C, or no more threads to be had
            self.stop()
            if meeting[START] == BEGIN:
                _wait_for(ended)
            else:  # the loop expects all threads, so those that are there, or still come, leave again
                meeting[START] = LEAVE
            raise
        done = int(meeting[DONE])
        return losses[:done], hits[:done]


@dataclass(frozen=True)
class _Alone:
    """The records of a prediction on the caller's thread, kept from call to call: making them takes longer than a
    small network. Fields are views of single numbers, the quickest to write.
    """

    group: int
    kept: tuple[Array, ...]
    meeting: Array
    run: int
    work: int
    batch: Array
    images: Array
    outputs: Array


def _wait_for(ended: list[threading.Event]) -> None:
    """Wait until all threads have ended, whatever signals come: they work on memory that the next run uses."""
    for end in ended:
        while not end.is_set():
            with contextlib.suppress(BaseException):
                end.wait()


def _address(array: Array | None) -> int:
    """Return where an array's memory begins; 0 for none."""
    return 0 if array is None else array.ctypes.data


def _pause_address() -> int:
    """Return the address of the system's function that lets another thread run."""
    if os.name == "nt":
        function: Any = ctypes.windll.kernel32.SwitchToThread  # type: ignore[attr-defined]
    else:
        function = ctypes.CDLL(None).sched_yield
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


def _grown(array: Array, size: int) -> Array:
    """Return an array of at least so many floats: the same one, or a new one of zeros."""
    return array if array.size >= size else _floats(size)


def _floats(size: int) -> Array:
    """Return zeros, float32, whose first lies at the start of a cache line."""
    raw = np.zeros(size + 16, dtype=np.float32)
    skip = -raw.ctypes.data % 64 // 4
    return raw[skip : skip + size]
