"""Where the time of a program goes: microseconds per image of each instruction, beside what the CPU could do.

The program runs as always, on one thread, but each instruction is first a look at the clock, then the kernel, then
another look. What a multiplication counts as is the layer's formula: a kernel that skips zeros or multiplies less than
the formula can exceed the peak.
"""

from __future__ import annotations

import copy
import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numba import carray

from pellucid._types import Array
from pellucid.compiled.engine import CompiledEngine
from pellucid.compiled.graph import Graph
from pellucid.compiled.kernel import Kernel, prepare
from pellucid.compiled.machine import Machine
from pellucid.compiled.program import INSTRUCTION, Instruction, Program
from pellucid.compiled.records import Record
from pellucid.compiled.simd import address, call, fill, floats, longs, multiply_add, store
from pellucid.compiled.tiles import cpu
from pellucid.errors import EngineError
from pellucid.nn import CrossEntropyLoss, Network
from pellucid.optim import Optimizer

_ROUNDS = 5
_SECONDS = 0.2  # of a round

TIMED = Record(
    "Timed",
    """An instruction between two looks at the clock.

    kernel, operands: The instruction.
    clock, which: Address of clock_gettime, and the number of the clock.
    now: Where it writes seconds and nanoseconds.
    spent: Where nanoseconds and calls are summed up.
    """,
    "kernel operands clock which now spent",
)

CHAINS = Record("Chains", "count: How many steps. sums: Address of the results.", "count sums", reals="factor")


@cache
def timed() -> Kernel:
    """Return the kernel that runs another one and takes its time."""

    def body(op, work):  # type: ignore[no-untyped-def]
        work_address = address(work)
        op = carray(op, 1)[0]
        now, spent = longs(op.now), longs(op.spent)
        call(op.clock, op.which, op.now)
        before = now[0] * 1_000_000_000 + now[1]
        call(op.kernel, op.operands, work_address)
        call(op.clock, op.which, op.now)
        spent[0] += now[0] * 1_000_000_000 + now[1] - before
        spent[1] += 1

    return Kernel("timed", TIMED, body)


@cache
def nothing() -> Kernel:
    """Return the kernel that does nothing, which tells what the looks at the clock cost."""

    def body(op, work):  # type: ignore[no-untyped-def]
        pass

    return Kernel("nothing", TIMED, body)


@cache
def chains(lanes: int) -> Kernel:
    """Return the kernel that multiplies and adds in registers, in twelve chains, more than a CPU has under way.

    Args:
        lanes: L, of a vector.
    """
    L = lanes

    def body(op, work):  # type: ignore[no-untyped-def]
        op = carray(op, 1)[0]
        t, factor = fill(12, L, np.float32(0)), fill(12, L, np.float32(op.factor))
        for _ in range(op.count):
            t = multiply_add(t, factor, factor)
        store(t, 12, floats(op.sums), L)

    return Kernel(f"chains[{lanes}]", CHAINS, body)


@cache
def peak() -> float:
    """Return the most multiplications (with their additions) a second of one thread, measured in registers."""
    lanes, count = cpu()[0], 2_000_000
    sums = np.zeros(12 * lanes, dtype=np.float32)
    operands = CHAINS.make(count=count, sums=sums.ctypes.data, factor=0.5)
    kernel = chains(lanes)
    prepare([kernel])
    seconds = min(_seconds(lambda: _run(kernel, operands)) for _ in range(10 * _ROUNDS))
    return 12 * lanes * count / seconds


@dataclass(frozen=True)
class Row:
    """One instruction of a stage; blocks of the same parameter are one row.

    Attributes:
        stage: Number of the stage.
        title: What it does for the network.
        kernels: What runs.
        microseconds: Per image.
        share: Of all instructions' time.
        multiplications: Per image, by the layer's formula; None for what is no convolution or dense layer.
        fraction: Of the measured peak; None likewise.
    """

    stage: int
    title: str
    kernels: str
    microseconds: float
    share: float
    multiplications: int | None
    fraction: float | None


@dataclass(frozen=True)
class Profile:
    """Where the time of one image goes, on one thread.

    Attributes:
        rows: In the order of the program.
        total: Microseconds per image of a whole step or call, without looks at the clock.
        peak: Multiplications a second.
    """

    rows: tuple[Row, ...]
    total: float
    peak: float

    def __str__(self) -> str:
        sum_ = sum(row.microseconds for row in self.rows)
        done = sum(row.multiplications or 0 for row in self.rows)
        lines = [
            f"{self.total:.2f} us per image, instructions {sum_:.2f}; "
            f"{done / self.total * 1e6 / self.peak:.0%} of the peak of {2 * self.peak / 1e9:.0f} GFLOP/s",
            f"{'st':>2} {'instruction':29} {'kernel':22} {'us':>7} {'share':>6} {'peak':>5}",
        ]
        for row in self.rows:
            fraction = "-" if row.fraction is None else f"{row.fraction:.0%}"
            lines.append(
                f"{row.stage:2} {_short(row.title, 29)} {_short(row.kernels, 22)} "
                f"{row.microseconds:7.3f} {row.share:6.1%} {fraction:>5}"
            )
        return "\n".join(lines)


def profile(network: Network, optimizer: Optimizer | None, batch: int) -> Profile:
    """Return where the time of training (cross-entropy) or prediction goes; random images serve.

    Args:
        network: Built, float32. Stays as it is.
        optimizer: Of training; None for prediction.
        batch: Images of a step or call.

    Raises:
        EngineError: For a network that the engine cannot run, and where the system has no clock_gettime.
    """
    network = copy.deepcopy(network)
    engine = CompiledEngine()
    engine.build(network, None if optimizer is None else CrossEntropyLoss(), optimizer, threads=1)
    built = engine._ready()
    run = _work(engine, network, optimizer, batch)
    run(1)
    count = 1
    while _seconds(partial(run, count)) < _SECONDS:
        count *= 2
    total = min(_seconds(partial(run, count)) for _ in range(_ROUNDS)) / count / batch * 1e6
    programs = [machine.program for machine in vars(built).values() if isinstance(machine, Machine)]
    program, spent = _watched(programs, partial(run, count))
    return Profile(_rows(program, built.graph, spent / count / batch / 1e3), total, peak())


def _work(engine: CompiledEngine, network: Network, optimizer: Optimizer | None, batch: int) -> Callable[[int], object]:
    """Return a function that does so many steps or calls."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *network.input_shape), dtype=np.float32)
    if optimizer is None:
        return lambda count: [engine.predict(x) for _ in range(count)]
    y = rng.integers(0, network.output_shape(network.input_shape)[0], batch)
    start = engine.state()

    def train(count: int) -> object:
        engine.load_state(start)
        return engine.train(x, y, np.tile(np.arange(batch), count), batch, 0, np.full(count, 1e-5))

    return train


def _watched(programs: list[Program], run: Callable[[], object]) -> tuple[Program, Array]:
    """Return which of some programs a run takes, and the nanoseconds of each row of its instruction table.

    Args:
        programs: Loaded.
        run: Takes one of them.
    """
    if os.name == "nt":
        raise EngineError("a profile needs clock_gettime, which Windows does not have")
    clock = int(ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p).value or 0)
    prepare([timed(), nothing()])
    empty = np.array([(nothing().address, 0)], dtype=INSTRUCTION.dtype)
    rows = np.concatenate([*(program.instruction_table for program in programs), empty])
    now, spent, records = np.zeros(2, np.int64), np.zeros((len(rows), 2), np.int64), np.zeros(len(rows), TIMED.dtype)
    records["kernel"], records["operands"] = rows["kernel"], rows["operands"]
    records["clock"], records["which"], records["now"] = clock, time.CLOCK_MONOTONIC, now.ctypes.data
    records["spent"] = spent.ctypes.data + spent.strides[0] * np.arange(len(rows))
    ends = np.cumsum([len(program.instruction_table) for program in programs]).tolist()
    places = [slice(end - len(p.instruction_table), end) for p, end in zip(programs, ends, strict=True)]
    best, chosen = np.zeros(0), programs[0]
    try:
        for program, place in zip(programs, places, strict=True):
            program.instruction_table["kernel"] = timed().address
            program.instruction_table["operands"] = records[place].ctypes.data + records.itemsize * np.arange(
                place.stop - place.start
            )
        for _ in range(_ROUNDS):
            looks = []
            for _ in range(1000):
                spent[:] = 0
                _run(timed(), records[-1:])
                looks.append(spent[-1, 0])
            run()
            taken = np.maximum(spent[:, 0] - float(np.median(looks)) * spent[:, 1], 0)
            program, place = max(zip(programs, places, strict=True), key=lambda pair: spent[pair[1], 1].sum())
            if not best.size or taken[place].sum() < best.sum():
                best, chosen = taken[place], program
    finally:
        for program, place in zip(programs, places, strict=True):
            program.instruction_table[:] = rows[place]
    return chosen, best


def _rows(program: Program, graph: Graph, spent: Array) -> tuple[Row, ...]:
    """Return the rows of a profile.

    Args:
        program: What ran.
        graph: What it was made from, for the multiplications.
        spent: Microseconds per image of each row of the instruction table.
    """
    costs = _costs(graph)
    times: dict[tuple[int, str], float] = {}
    kernels: dict[tuple[int, str], dict[str, None]] = {}
    for number in range(len(program.stages)):
        for row, instruction in _placed(program, number):
            key = number, instruction.title
            times[key] = times.get(key, 0.0) + float(spent[row])
            kernels.setdefault(key, {})[str(instruction.kernel)] = None
    total, fastest = sum(times.values()) or 1.0, peak()
    return tuple(
        Row(
            stage=stage,
            title=title,
            kernels=" ".join(kernels[stage, title]),
            microseconds=us,
            share=us / total,
            multiplications=costs.get(title),
            fraction=costs[title] / us * 1e6 / fastest if title in costs and us else None,
        )
        for (stage, title), us in times.items()
    )


def _placed(program: Program, number: int) -> list[tuple[int, Instruction]]:
    """Return the instructions of a stage with their rows in the instruction table."""
    stage, first = program.stages[number], int(program.stage_table[number]["first"])
    if stage.instructions:
        return list(enumerate(stage.instructions, start=first))
    found = []
    for row, task in enumerate(sorted(stage.tasks, key=lambda t: -t.cost), start=first):
        found += list(enumerate(task.instructions, start=int(program.task_table[row]["first"])))
    return found


def _costs(graph: Graph) -> dict[str, int]:
    """Return the multiplications of an image by an instruction's title."""
    costs: dict[str, int] = {}
    for op in graph.operations:
        if op.kind in ("conv", "conv_pool", "depthwise", "linear"):
            for title in (op.title, f"data gradient {op.path}", f"weight gradient {op.path}"):
                costs[title] = op.cost
    return costs


def _run(kernel: Kernel, operands: Array) -> None:
    ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(kernel.address)(operands.ctypes.data, 0)


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _short(text: str, width: int) -> str:
    """Return a text of just so many columns."""
    return f"{text:{width}}" if len(text) <= width else text[: width - 2] + ".."
