"""Which tiles suit the CPU: lanes and registers, and the shape that keeps its multipliers busy."""

from __future__ import annotations

from functools import cache

import llvmlite.binding as llvm
from numba.core.registry import cpu_target

# Cycles from a fused multiply-add's start to its result, and how many start in a cycle, on CPUs of the last ten years.
_LATENCY, _PER_CYCLE = 4, 2

# Cycles of bringing 4x4 vectors of numbers into the form that Winograd's algorithm multiplies, or back.
_MOVED = 30

# Numbers that a tile reads at once: each has an address, and addresses have registers too.
_PLACES = 16

# Places of Winograd's algorithm whose products are summed in registers, before the sum goes to memory.
_TOGETHER = 64

# Pairs of channels below which it does not pay for the gradient of filters.
_FEWEST = 128

# Bytes that stay in the first cache while others pass through.
_NEAR = 40_000


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
    return max(rows * vectors / _PER_CYCLE, 0.6 * (rows + vectors), _LATENCY)


@cache
def map_tile(rows: int, columns: int, terms: int, channels: int) -> tuple[int, int, int, int]:
    """Return (rows R, columns P, vectors V, lanes L) of a tile of windows: a block where a row of them is short.

    Args:
        rows: Of the map.
        columns: Of the map.
        terms: Of each sum.
        channels: Of the map.
    """
    p, v, lanes = window_tile(columns, channels)
    registers, vectors = cpu()[1], -(-channels // lanes)
    choices = [(_tiles_cycles(rows, columns, terms, channels, (1, p, v)), 1, p, v)]
    for v in (1, 2, 4):
        for r in range(2, rows + 1):
            if v <= vectors and r * columns <= _PLACES and r * columns * v + v + 1 <= registers - 1:
                choices.append((_tiles_cycles(rows, columns, terms, channels, (r, columns, v)), r, columns, v))
    _, r, p, v = min(choices)
    return r, p, v, lanes


def _tiles_cycles(rows: int, columns: int, terms: int, channels: int, tile: tuple[int, int, int]) -> float:
    """Return about how many cycles the windows of a map take with tiles of (rows, columns, vectors)."""
    (r, p, v), lanes = tile, lanes_for(channels)
    vectors, blocks = -(-channels // lanes), -(-rows // r) * -(-columns // p)
    far = 4 * terms * vectors * lanes > _NEAR  # then each tile brings its weights from the second cache
    step = max(_cycles(r * p, v), 2.0 * v if far else 0.0) + 0.5
    return blocks * -(-vectors // v) * step * terms


@cache
def window_tile(columns: int, channels: int) -> tuple[int, int, int]:
    """Return (columns P, vectors V, lanes L) of a tile of a row of windows, for so many columns and channels."""
    lanes, registers = lanes_for(channels), cpu()[1]
    vectors = -(-channels // lanes)
    choices = []
    for v in (1, 2, 4):
        for p in range(1, min(columns, _PLACES) + 1):
            if v <= vectors and p * v + v + 1 <= registers - 1:
                tiles = -(-columns // p) * -(-vectors // v)
                choices.append((tiles * (_cycles(p, v) + 0.5), -p, v))
    _, p, v = min(choices)
    return -p, v, lanes


@cache
def pair_tile(columns: int, channels: int) -> tuple[int, int, int]:
    """Return (columns P, vectors V, lanes L) of a tile of 2x2 windows each, for pooled maps of so many columns."""
    lanes, registers = lanes_for(channels), cpu()[1]
    vectors = -(-channels // lanes)
    choices = []
    for v in (1, 2, 4):
        for p in range(1, columns + 1):
            if v <= vectors and 4 * p * v + v + 1 <= registers - 1:
                tiles = -(-columns // p) * -(-vectors // v)
                choices.append((tiles * (_cycles(4 * p, v) + 1), -p, v))
    _, p, v = min(choices)
    return -p, v, lanes


@cache
def winograd_tile(rows: int, columns: int, inner: int, channels: int) -> tuple[int, ...]:
    """Return (block, places P, vectors V, lanes L, lanes of the inner channels) for Winograd's algorithm on such maps.

    (0,) where the usual algorithm is about as fast.

    Args:
        rows: Of the output.
        columns: Of the output.
        inner: Channels of the input.
        channels: Of the output.
    """
    total = -(-rows // 2) * -(-columns // 2)
    if min(rows, columns) < 2:
        return (0,)
    inner_lanes, vectors = lanes_for(inner), -(-channels // lanes_for(channels))
    moved = _MOVED * (-(-inner // inner_lanes) + vectors)
    choices = []
    for parts in range(1, total + 1):
        block = -(-total // parts)
        if block >= min(total, 7) and block <= 32:
            p, v, lanes = window_tile(block, channels)
            multiplied = -(-block // p) * -(-vectors // v) * (_cycles(p, v) + 0.5) * 16 * inner
            weights = 16 * inner * v * lanes
            near = 4 * (16 * block * (inner + v * lanes) + weights) < _NEAR
            read = 16 * inner * vectors  # the filters, from the second cache
            cost = parts * (block * moved * (1 if near else 2) + multiplied + read)
            choices.append((cost, block, p, v, lanes, inner_lanes))
    cost, *best = min(choices)
    return tuple(best) if cost < _usual(rows, columns, 9 * inner, channels) else (0,)


def _usual(rows: int, columns: int, terms: int, channels: int) -> float:
    """Return about how many cycles a correlation with so many terms a sum takes."""
    return _tiles_cycles(rows, columns, terms, channels, map_tile(rows, columns, terms, channels)[:3])


@cache
def scatter_tile(size: tuple[int, int], out: tuple[int, int], cells: int, channels: int, run: int) -> tuple[int, ...]:
    """Return (windows P, vectors V, lanes L) for a data gradient by scattering; () where gathering is as fast.

    Args:
        size: (H, W) of the input.
        out: (H, W) of the output.
        cells: Of the kernel.
        channels: Of the input.
        run: Channels of the output.
    """
    lanes, registers, windows = lanes_for(channels), cpu()[1], out[0] * out[1]
    vectors = -(-channels // lanes)
    choices = []
    for v in (1, 2, 4):
        for p in range(1, windows + 1):
            if v <= vectors and windows % p == 0 and p * v + v + 1 <= registers - 1:
                tiles = windows // p * -(-vectors // v)
                choices.append((cells * tiles * ((_cycles(p, v) + 0.5) * run + 5 * p * v), p, v))
    cost, p, v = min(choices)
    return (p, v, lanes) if cost < 0.6 * _usual(*size, cells * run, channels) else ()


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
def winograd_gradient_tile(rows: int, columns: int, inner: int, channels: int) -> tuple[int, ...]:
    """Return (block, images at once, rows R, vectors V, lanes L, lanes of the inner channels) for a filter's gradient.

    () where the usual algorithm is about as fast.

    Args:
        rows: Of the output.
        columns: Of the output.
        inner: Channels of the input.
        channels: Of the output.
    """
    lanes, inner_lanes, total = lanes_for(channels), lanes_for(inner), -(-rows // 2) * -(-columns // 2)
    few = min(rows, columns) < 2 or inner % inner_lanes or inner * channels < _FEWEST
    if few or 16 * total > 0.7 * 9 * rows * columns:
        return ()
    block, r = -(-total // -(-total // _TOGETHER)), min(inner_lanes, 8 if cpu()[1] > 16 else 4)
    return block, max(1, _TOGETHER // total), r, 2 if channels > lanes else 1, lanes, inner_lanes


@cache
def image_tile(channels: int) -> tuple[int, int, int]:
    """Return (images P, vectors V, lanes L) of a tile of a dense layer."""
    lanes, registers = lanes_for(channels), cpu()[1]
    vectors = -(-channels // lanes)
    v = 4 if vectors >= 4 and registers > 16 else min(vectors, 2)
    return (8 if v == 1 else 4), v, lanes


@cache
def one_tile(channels: int) -> tuple[int, int, int]:
    """Return (vectors V, lanes L, ways W) of a dense layer for one image."""
    lanes = lanes_for(channels)
    vectors = min(4, -(-channels // lanes))
    return vectors, lanes, _LATENCY * _PER_CYCLE // vectors


@cache
def run_tile(taps: int, run: int) -> tuple[int, int, int]:
    """Return (taps T, vectors V, lanes L) of a tile of a run's numbers in several kernel rows; T is taps or 1."""
    lanes, registers = lanes_for(run), cpu()[1]
    vectors = -(-run // lanes)
    most = registers - 4
    choices = [(t * v, v, t) for t in {taps, 1} for v in range(1, vectors + 1) if vectors % v == 0 and t * v <= most]
    _, v, t = max(choices)
    return t, v, lanes


@cache
def select_tile(taps: int, run: int, filters: int, window: int) -> tuple[int, ...]:
    """Return (taps T, run, lanes L) for the gradient of pooled filters with few numbers; () where lists are faster.

    Args:
        taps: Kernel rows.
        run: Numbers in one.
        filters: How many.
        window: Cells of the pooling.
    """
    lanes, registers = lanes_for(filters), cpu()[1]
    at_once = taps if taps * run + 3 <= registers else 1
    if run + 3 > registers:
        return ()
    vectors, rounds = -(-filters // lanes), taps // at_once
    selecting = vectors * rounds * window * (max(at_once * run / _PER_CYCLE, _LATENCY) + 3)
    _, run_vectors, _ = run_tile(taps, run)
    listing = filters * (max(taps * run_vectors / _PER_CYCLE, 2) + 6)
    return (at_once, run, lanes) if selecting < listing else ()
