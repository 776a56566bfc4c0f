"""Tiles fit the registers of every CPU and the shapes that they are for; the CPU is known, also an imitated one."""

from __future__ import annotations

import itertools
import math
import os
import platform
import subprocess
import sys

import pytest

from pellucid.compiled import tiles

CPUS = [(16, 32), (8, 16), (4, 16), (4, 32)]
"""Lanes and registers: AVX-512, AVX2, SSE, NEON."""

CHANNELS = [1, 2, 3, 4, 5, 8, 9, 10, 16, 17, 24, 32, 33, 48, 64, 65, 80, 128, 130, 512]


@pytest.fixture(params=CPUS, ids=str)
def cpu(request, monkeypatch):
    monkeypatch.setattr(tiles, "cpu", lambda: request.param)
    tiles.window_tile.cache_clear()  # others ask it for its tile
    yield request.param
    tiles.window_tile.cache_clear()


def test_padded():
    assert [tiles.padded(n, 8) for n in (0, 1, 8, 9)] == [0, 8, 8, 16]


def test_lanes_are_half_full_at_least(cpu):
    for channels in range(1, 100):
        lanes = tiles.lanes_for(channels)
        assert lanes in (4, 8, 16)
        assert lanes <= cpu[0]
        assert lanes == 4 or channels > lanes // 2
        assert lanes == cpu[0] or channels <= lanes, "a wider vector would be half full too"


def test_window_tiles(cpu):
    for channels in CHANNELS:
        for columns in range(1, 40):
            p, v, lanes = tiles.window_tile.__wrapped__(columns, channels)
            assert lanes == tiles.lanes_for(channels)
            assert 1 <= p <= columns
            assert 1 <= v <= -(-channels // lanes)
            assert p * v + v + 1 < cpu[1], "sums, weights and a number of x, one register to spare"


def test_map_tiles(cpu):
    for channels in CHANNELS:
        for rows, columns in ((1, 1), (3, 3), (2, 5), (7, 7), (14, 14), (32, 3)):
            for terms in (9, 200, 5000):
                r, p, v, lanes = tiles.map_tile.__wrapped__(rows, columns, terms, channels)
                assert lanes == tiles.lanes_for(channels)
                assert 1 <= r <= rows
                assert 1 <= p <= columns
                assert r == 1 or p == columns, "a block is of whole rows"
                assert r * p * v + v + 1 < cpu[1]
    assert tiles.map_tile.__wrapped__(3, 3, 576, 64)[0] > 1, "short rows go together"


def test_wide_maps_keep_the_multipliers_busy(cpu):
    """Eight sums in flight hide the latency of a multiplication."""
    for channels in CHANNELS:
        p, v, _ = tiles.window_tile.__wrapped__(32, channels)
        assert p * v >= 8


def test_row_tiles(cpu):
    for channels in CHANNELS:
        for run in [*range(1, 40), 64, 97, 144, 576]:
            r, v, lanes = tiles.row_tile.__wrapped__(run, channels)
            assert lanes == tiles.lanes_for(channels)
            assert run % r == 0
            assert 1 <= v <= -(-channels // lanes)
            assert r * v + v + 1 < cpu[1]


def test_image_tiles(cpu):
    for channels in CHANNELS:
        p, v, lanes = tiles.image_tile.__wrapped__(channels)
        assert lanes == tiles.lanes_for(channels)
        assert p >= 1
        assert 1 <= v <= -(-channels // lanes)
        assert p * v + v + 1 < cpu[1]


def test_pair_tiles(cpu):
    for channels in CHANNELS:
        for columns in range(1, 40):
            p, v, lanes = tiles.pair_tile.__wrapped__(columns, channels)
            assert lanes == tiles.lanes_for(channels)
            assert 1 <= p <= columns
            assert 1 <= v <= -(-channels // lanes)
            assert 4 * p * v + v + 1 < cpu[1], "four sums for each window"


def test_winograd_tiles(cpu):
    chosen = 0
    for rows, columns in itertools.product((1, 2, 3, 7, 14, 32), (1, 2, 5, 9, 28)):
        for inner, channels in itertools.product((1, 3, 16, 33, 64), CHANNELS):
            tile = tiles.winograd_tile.__wrapped__(rows, columns, inner, channels)
            if tile == (0,):
                continue
            chosen += 1
            block, p, v, lanes, inner_lanes = tile
            assert min(rows, columns) > 1
            assert (lanes, inner_lanes) == (tiles.lanes_for(channels), tiles.lanes_for(inner))
            assert 1 <= p <= block <= -(-rows // 2) * -(-columns // 2)
            assert 1 <= v <= -(-channels // lanes)
            assert p * v + v + 1 < cpu[1]
    assert chosen > 50
    assert tiles.winograd_tile.__wrapped__(32, 32, 64, 64) != (0,)
    assert tiles.winograd_tile.__wrapped__(28, 28, 1, 8) == (0,), "moving one channel costs more than it saves"


def test_winograd_gradient_tiles(cpu):
    chosen = 0
    for rows, columns in itertools.product((1, 2, 3, 7, 14, 32), (1, 2, 5, 9, 28)):
        for inner, channels in itertools.product((1, 3, 8, 16, 24, 33, 64), CHANNELS):
            tile = tiles.winograd_gradient_tile.__wrapped__(rows, columns, inner, channels)
            if not tile:
                continue
            chosen += 1
            block, images, r, v, lanes, inner_lanes = tile
            assert min(rows, columns) > 1
            assert inner % inner_lanes == inner_lanes % r == 0
            assert (lanes, inner_lanes) == (tiles.lanes_for(channels), tiles.lanes_for(inner))
            assert 1 <= block <= -(-rows // 2) * -(-columns // 2)
            assert images >= 1
            assert r * v + v + 1 < cpu[1]
    assert chosen > 50
    assert tiles.winograd_gradient_tile.__wrapped__(14, 14, 32, 32)
    assert not tiles.winograd_gradient_tile.__wrapped__(14, 14, 8, 8), "moving few channels costs more than it saves"
    assert not tiles.winograd_gradient_tile.__wrapped__(3, 3, 64, 64), "where 2 x 2 do not fit, much is done twice"


def test_scatter_tiles(cpu):
    chosen = 0
    for (h, w), (kh, kw) in itertools.product(
        [(5, 5), (5, 4), (8, 8), (16, 9), (32, 32)], [(1, 1), (3, 3), (3, 2), (5, 4)]
    ):
        out = h - kh + 1, w - kw + 1
        for channels, run in itertools.product(CHANNELS, (1, 16, 32, 65)):
            tile = tiles.scatter_tile.__wrapped__((h, w), out, kh * kw, channels, run)
            if tile:
                chosen += 1
                p, v, lanes = tile
                assert lanes == tiles.lanes_for(channels)
                assert math.prod(out) % p == 0
                assert 1 <= v <= -(-channels // lanes)
                assert p * v + v + 1 < cpu[1]
    assert chosen > 20
    assert tiles.scatter_tile.__wrapped__((5, 5), (3, 3), 9, 32, 32)
    assert not tiles.scatter_tile.__wrapped__((32, 32), (30, 30), 9, 32, 32)


def test_one_image_tiles(cpu):
    for channels in CHANNELS:
        v, lanes, ways = tiles.one_tile.__wrapped__(channels)
        assert lanes == tiles.lanes_for(channels)
        assert 1 <= v <= -(-channels // lanes)
        assert ways >= 1
        assert ways * v >= 6, "sums enough that none waits"
        assert ways * v + v + 1 < cpu[1]


def test_select_tiles(cpu):
    chosen = 0
    for taps, run, window in itertools.product(range(1, 8), [*range(1, 13), 15, 25, 48], (1, 4, 9)):
        for filters in CHANNELS:
            tile = tiles.select_tile.__wrapped__(taps, run, filters, window)
            if tile:
                chosen += 1
                t, r, lanes = tile
                assert lanes == tiles.lanes_for(filters)
                assert t in (1, taps)
                assert r == run
                assert t * r + 3 <= cpu[1]
    assert chosen > 50
    assert tiles.select_tile.__wrapped__(3, 3, 8, 4)
    assert not tiles.select_tile.__wrapped__(3, 96, 32, 4), "too many sums"


def test_run_tiles(cpu):
    for taps in range(1, 12):
        for run in [*range(1, 40), 64, 96, 97, 144, 576]:
            t, v, lanes = tiles.run_tile.__wrapped__(taps, run)
            vectors = -(-run // lanes)
            assert lanes == tiles.lanes_for(run)
            assert t in (1, taps)
            assert v >= 1
            assert vectors % v == 0, "a run is a whole number of tiles, or numbers behind it would be added twice"
            assert t * v + 2 < cpu[1], "sums, the factor and a vector"


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="imitates x86")
@pytest.mark.parametrize(("name", "expected"), [("haswell", (8, 16)), ("nehalem", (4, 16)), ("generic", (4, 16))])
def test_imitated_cpus(name, expected):
    """In another process, since Numba reads the name once."""
    code = "from pellucid.compiled import tiles; print(tiles.cpu())"
    environment = os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(expected)


def test_this_cpu():
    assert tiles.cpu() in CPUS
