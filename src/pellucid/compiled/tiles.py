"""Which tiles suit the CPU: lanes and registers, and the shape that keeps its multipliers busy."""

from __future__ import annotations

from functools import cache

import llvmlite.binding as llvm
from numba.core.registry import cpu_target

# Cycles from a fused multiply-add's start to its result, and how many start in a cycle, on CPUs of the last ten years.
_LATENCY, _PER_CYCLE = 4, 2


@cache
def cpu() -> tuple[int, int]:
    """Return (lanes of the widest vector of float32, number of vector registers), as LLVM will use them.

    LLVM is asked what it makes of adding vectors of 16, so that any CPU that it knows is known here, also one that is
    imitated (NUMBA_CPU_NAME).
    """
    module = llvm.parse_assembly(
        "define void @add(ptr %a, ptr %b) {\n"
        "  %x = load <16 x float>, ptr %a\n  %y = load <16 x float>, ptr %b\n"
        "  %z = fadd <16 x float> %x, %y\n  store <16 x float> %z, ptr %a\n  ret void\n}"
    )
    codegen = cpu_target.target_context.codegen()
    code = codegen._tm.emit_assembly(module)
    if "%zmm" in code:
        return 16, 32
    if "%ymm" in code:
        return 8, 16
    return 4, 16 if "%xmm" in code else 32


def padded(count: int, multiple: int) -> int:
    """Return count, raised to a multiple."""
    return -(-count // multiple) * multiple


def lanes_for(channels: int) -> int:
    """Return the lanes of a vector for so many channels: the widest, or fewer where half of it would idle."""
    lanes = cpu()[0]
    while lanes > 4 and channels <= lanes // 2:
        lanes //= 2
    return lanes


def _cycles(rows: int, vectors: int) -> float:
    """Return about how many cycles one step of a tile takes: multiplications, loads, or waiting for the sums."""
    return max(rows * vectors / _PER_CYCLE, (rows + vectors) / 2, _LATENCY)


@cache
def window_tile(columns: int, channels: int) -> tuple[int, int, int]:
    """Return (columns P, vectors V, lanes L) of a tile of windows, for maps of so many columns and channels."""
    lanes, registers = lanes_for(channels), cpu()[1]
    vectors = -(-channels // lanes)
    choices = []
    for v in (1, 2, 4):
        for p in range(1, columns + 1):
            if v <= max(vectors, 1) and p * v + v + 1 <= registers - 1:
                tiles = -(-columns // p) * -(-vectors // v)
                choices.append((tiles * (_cycles(p, v) + 0.5), -p, v))
    _, p, v = min(choices)
    return -p, v, lanes


@cache
def row_tile(run: int, channels: int) -> tuple[int, int, int]:
    """Return (rows R, vectors V, lanes L) of a tile of a weight's gradient; R divides run."""
    lanes, registers = lanes_for(channels), cpu()[1]
    vectors = -(-channels // lanes)
    choices = []
    for v in (1, 2, 4):
        for r in range(1, run + 1):
            if v <= vectors and run % r == 0 and r * v + v + 1 <= registers - 1:
                tiles = run // r * -(-vectors // v)
                choices.append((tiles * (_cycles(r, v) + 0.5), r, v))
    _, r, v = min(choices)
    return r, v, lanes


@cache
def image_tile(channels: int) -> tuple[int, int, int]:
    """Return (images P, vectors V, lanes L) of a tile of a dense layer."""
    lanes, registers = lanes_for(channels), cpu()[1]
    vectors = -(-channels // lanes)
    v = 4 if vectors >= 4 and registers > 16 else min(vectors, 2)
    return (8 if v == 1 else 4), v, lanes


@cache
def run_tile(taps: int, run: int) -> tuple[int, int, int]:
    """Return (taps T, vectors V, lanes L) of a tile of a run's numbers in several kernel rows; T is taps or 1."""
    lanes, registers = lanes_for(run), cpu()[1]
    vectors = -(-run // lanes)
    most = registers - 4
    if taps * vectors <= most:
        return taps, vectors, lanes
    return 1, max(v for v in range(1, most + 1) if vectors % v == 0), lanes
