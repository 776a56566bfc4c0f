"""Each operation of the tile language, compiled, against its twin in plain Python: a small function, run both ways."""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import sys
import threading

import llvmlite.binding as llvm
import numba
import numpy as np
import pytest

from pellucid.compiled import simd, twins
from pellucid.compiled.simd import (
    add,
    add_products,
    add_rows,
    add_scaled,
    address,
    as_bytes,
    as_ints,
    at,
    atomic_add,
    atomic_load,
    atomic_store,
    call,
    divide,
    doubles,
    fill,
    floats,
    fold,
    ints,
    lane_sums,
    lanes_equal,
    load,
    load_part,
    longs,
    multiply,
    multiply_add,
    outer,
    outer_block,
    relu,
    repeat,
    spread,
    square_root,
    store,
    store_block,
    store_bytes,
    store_part,
    subtract,
    transpose,
    vector,
    where_byte,
    where_larger,
    where_positive,
    zeros,
)

SHAPES = [(1, 1, 4), (3, 2, 4), (1, 2, 8), (5, 1, 8), (1, 1, 16), (2, 3, 16), (13, 2, 16)]
"""Rows R, vectors V, lanes L."""

SIZE = 2048
FLOATS_FROM = 1200  # where only bytes come before
FUSED = {"multiply_add", "outer", "outer_block", "add_products", "add_rows", "add_scaled", "spread"}
OF_BYTES = {"lanes_equal", "where_byte"}

CALLS: list[tuple[int, int]] = []


@ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)
def remember(operands, work):
    CALLS.append((operands, work))


REMEMBER = ctypes.cast(remember, ctypes.c_void_p).value


# Each case makes case(x, y, n): x and y are addresses of what it reads and writes, n is a small number, 0 to V L + 2.


def elementwise(operation, arguments):
    """The case of an operation on as many tiles as it has arguments."""

    def make(R, V, L):
        P, size, one, two, three = R * V, R * V * L, operation, operation, operation

        def case1(x, y, n):
            store(one(load(P, 1, L, floats(x), L)), P, floats(y), L)

        def case2(x, y, n):
            a, b = load(P, 1, L, floats(x), L), load(P, 1, L, at(floats(x), size), L)
            store(two(a, b), P, floats(y), L)

        def case3(x, y, n):
            a, b = load(P, 1, L, floats(x), L), load(P, 1, L, at(floats(x), size), L)
            store(three(a, b, load(P, 1, L, at(floats(x), 2 * size), L)), P, floats(y), L)

        def case4(x, y, n):
            a, b = load(P, 1, L, floats(x), L), load(P, 1, L, at(floats(x), size), L)
            c, d = load(P, 1, L, at(floats(x), 2 * size), L), load(P, 1, L, at(floats(x), 3 * size), L)
            store(operation(a, b, c, d), P, floats(y), L)

        return (case1, case2, case3, case4)[arguments - 1]

    return make


def of_zeros(R, V, L):
    P = R * V

    def case(x, y, n):
        store(zeros(P, L), P, floats(y), L)

    return case


def of_fill(R, V, L):
    P = R * V

    def case(x, y, n):
        store(fill(P, L, floats(x)[n]), P, floats(y), L)

    return case


def of_load(R, V, L):
    def case(x, y, n):
        store(load(R, V, L, floats(x), n), R, floats(y), V * L)

    return case


def of_load_part(R, V, L):
    def case(x, y, n):
        store(load_part(R, V, L, floats(x), 3, n), R, floats(y), V * L)

    return case


def of_store(R, V, L):
    def case(x, y, n):
        store(load(R, V, L, floats(x), V * L), R, floats(y), n)

    return case


def of_store_part(R, V, L):
    def case(x, y, n):
        store_part(load(R, V, L, floats(x), V * L), R, floats(y), V * L + 1, n)

    return case


def of_repeat(R, V, L):
    def case(x, y, n):
        store(repeat(R, V, L, at(floats(x), n)), R, floats(y), V * L)

    return case


def of_vector(R, V, L):
    P, last = R * V, R * V - 1

    def case(x, y, n):
        t = load(P, 1, L, at(floats(x), n), L)
        store(vector(t, 0), 1, floats(y), 0)
        store(vector(t, last), 1, at(floats(y), L), 0)

    return case


def of_store_bytes(R, V, L):
    size = R * V * L

    def case(x, y, n):
        for i in range(size):
            floats(y)[i] = i * 37 % 256 + 0.75 * (i % 2)  # what a byte can hold, and fractions
        t = load(R, V, L, floats(y), V * L)
        store_bytes(t, R, at(as_bytes(floats(y)), 4 * size + 1), V * L + 1, n)

    return case


def of_lanes_equal(R, V, L):
    def case(x, y, n):
        longs(y)[0] = lanes_equal(at(as_bytes(floats(x)), L), n, R, 100, as_ints(at(floats(y), 3)))

    return case


def of_outer(R, V, L):
    P = R * V

    def case(x, y, n):
        t = load(P, 1, L, floats(x), L)
        store(outer(t, R, at(floats(x), 400), n, at(floats(x), 600)), P, floats(y), L)

    return case


def of_outer_block(R, V, L):
    P = R * V
    A, B = (2, R // 2) if R % 2 == 0 else (R, 1)

    def case(x, y, n):
        t = load(P, 1, L, floats(x), L)
        store(outer_block(t, A, B, at(floats(x), 400), n, 3, at(floats(x), 600)), P, floats(y), L)

    return case


def of_store_block(R, V, L):
    P, VL, right = 2 * R, V * L, V * L + 3

    def case(x, y, n):
        store_block(load(P, V, L, floats(x), VL), 2, R, floats(y), 900, right, n)

    return case


def of_add_products(R, V, L):
    P = R * V

    def case(x, y, n):
        t = load(P, 1, L, floats(x), L)
        store(add_products(t, R, at(floats(x), 500), n, at(floats(x), 600), V * L + n), P, floats(y), L)

    return case


def of_spread(R, V, L):
    P = R * V

    def case(x, y, n):
        t, v = load(P, 1, L, floats(x), L), load(1, 1, L, at(floats(x), 500), 0)
        store(spread(t, R, at(floats(x), 600), n, v), P, floats(y), L)

    return case


def of_add_rows(R, V, L):
    P = R * V

    def case(x, y, n):
        t, v = load(P, 1, L, floats(x), L), load(1, 1, L, at(floats(x), 500), 0)
        store(add_rows(t, v, at(floats(x), 600), L + n), P, floats(y), L)

    return case


def of_add_scaled(R, V, L):
    P = R * V

    def case(x, y, n):
        t = load(P, 1, L, floats(x), L)
        store(add_scaled(t, R, floats(x)[500 + n], at(floats(x), 600), n), P, floats(y), L)

    return case


def of_fold(R, V, L):
    P = R * V

    def case(x, y, n):
        store(fold(load(P, 1, L, floats(x), L), R), 1, floats(y), 0)

    return case


def of_lane_sums(R, V, L):
    def case(x, y, n):
        store(lane_sums(load(R, 1, L, at(floats(x), n), L + 1)), 1, floats(y), 0)

    return case


def of_where_byte(R, V, L):
    def case(x, y, n):
        a = load(1, 1, L, at(floats(x), FLOATS_FROM), 0)
        store(where_byte(at(as_bytes(floats(x)), L + 1), n, a), 1, floats(y), 0)

    return case


def of_transpose(R, V, L):
    def case(x, y, n):
        store(transpose(load(L, 1, L, floats(x), n)), L, floats(y), L)

    return case


def of_floats(R, V, L):
    def case(x, y, n):
        floats(y)[n] = floats(x)[2 * n]

    return case


def of_doubles(R, V, L):
    def case(x, y, n):
        doubles(y)[n] = doubles(x)[n + 1]

    return case


def of_ints(R, V, L):
    def case(x, y, n):
        ints(y)[n] = ints(x)[n + 1] + 7

    return case


def of_longs(R, V, L):
    def case(x, y, n):
        longs(y)[n] = longs(x)[n + 1] // 3

    return case


def of_address(R, V, L):
    def case(x, y, n):
        longs(y)[0] = address(at(floats(x), n)) - x
        longs(y)[1] = address(at(as_bytes(at(floats(x), 1)), n)) - x

    return case


def of_as_bytes(R, V, L):
    def case(x, y, n):
        as_bytes(at(floats(y), R))[n] = as_bytes(at(floats(x), V))[n]

    return case


def of_as_ints(R, V, L):
    def case(x, y, n):
        as_ints(at(floats(y), R))[n] = as_ints(at(floats(x), V))[n]

    return case


def of_at(R, V, L):
    def case(x, y, n):
        at(at(floats(y), n + 5), -n)[0] = at(floats(x), n)[R]
        at(longs(y), 3)[n] = at(longs(x), n)[V]

    return case


def of_call(R, V, L):
    def case(x, y, n):
        call(REMEMBER, R, -n)

    return case


def of_atomic_add(R, V, L):
    def case(x, y, n):
        longs(y)[0] = 0
        longs(y)[1] = atomic_add(longs(y), n + 3)
        longs(y)[2] = atomic_add(longs(y), -R)

    return case


def of_atomic_load(R, V, L):
    def case(x, y, n):
        longs(y)[0] = atomic_load(at(longs(x), n))

    return case


def of_atomic_store(R, V, L):
    def case(x, y, n):
        atomic_store(at(longs(y), n), R - n)

    return case


LANES = [(1, 1, 4), (2, 1, 8), (3, 1, 16)]
ONE = [(3, 2, 8)]

CASES = {
    "zeros": (of_zeros, SHAPES),
    "fill": (of_fill, SHAPES),
    "load": (of_load, SHAPES),
    "load_part": (of_load_part, SHAPES),
    "store": (of_store, SHAPES),
    "store_part": (of_store_part, SHAPES),
    "store_block": (of_store_block, [s for s in SHAPES if math.prod(s) < 200]),
    "repeat": (of_repeat, SHAPES),
    "vector": (of_vector, SHAPES),
    "store_bytes": (of_store_bytes, SHAPES),
    "lanes_equal": (of_lanes_equal, LANES),
    "outer": (of_outer, SHAPES),
    "outer_block": (of_outer_block, SHAPES),
    "add_products": (of_add_products, SHAPES),
    "spread": (of_spread, SHAPES),
    "add_rows": (of_add_rows, SHAPES),
    "add_scaled": (of_add_scaled, SHAPES),
    "add": (elementwise(add, 2), SHAPES),
    "subtract": (elementwise(subtract, 2), LANES),
    "multiply": (elementwise(multiply, 2), LANES),
    "divide": (elementwise(divide, 2), LANES),
    "multiply_add": (elementwise(multiply_add, 3), SHAPES),
    "square_root": (elementwise(square_root, 1), LANES),
    "relu": (elementwise(relu, 1), SHAPES),
    "where_positive": (elementwise(where_positive, 3), LANES),
    "where_larger": (elementwise(where_larger, 4), LANES),
    "where_byte": (of_where_byte, LANES),
    "fold": (of_fold, SHAPES),
    "lane_sums": (of_lane_sums, [*LANES, (4, 1, 4), (3, 1, 8), (8, 1, 8), (16, 1, 16)]),
    "transpose": (of_transpose, LANES),
    "floats": (of_floats, ONE),
    "doubles": (of_doubles, ONE),
    "ints": (of_ints, ONE),
    "longs": (of_longs, ONE),
    "address": (of_address, ONE),
    "as_bytes": (of_as_bytes, ONE),
    "as_ints": (of_as_ints, ONE),
    "at": (of_at, ONE),
    "call": (of_call, ONE),
    "atomic_add": (of_atomic_add, ONE),
    "atomic_load": (of_atomic_load, ONE),
    "atomic_store": (of_atomic_store, ONE),
}


def operations() -> dict[str, object]:
    return {name: value for name, value in vars(simd).items() if isinstance(value, type(simd.at))}


def test_every_operation_has_a_twin_and_a_case():
    assert len(operations()) > 30
    assert operations().keys() == CASES.keys()
    assert [name for name in operations() if not callable(vars(twins).get(name))] == []


@pytest.mark.parametrize("name", CASES)
def test_a_case_uses_its_operation(name):
    case = CASES[name][0](1, 1, 4)
    values = [c.cell_contents for c in case.__closure__ or () if c.cell_contents is operations()[name]]
    assert values or name in case.__code__.co_names


def numbers(rng: np.random.Generator) -> np.ndarray:
    """Normal numbers, and those for which an operation could have a special case."""
    x = rng.standard_normal(SIZE).astype(np.float32)
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38]
    some = rng.random(SIZE) < 0.3
    x[some] = rng.choice(np.array(special, dtype=np.float32), some.sum())
    return x


def small_bytes(rng: np.random.Generator) -> np.ndarray:
    x = numbers(rng)
    x[:FLOATS_FROM] = rng.integers(0, 5, 4 * FLOATS_FROM).astype(np.uint8).view(np.float32)
    return x


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where bits are the same, or both are NaN."""
    return (a.view(np.int32) == b.view(np.int32)) | (np.isnan(a) & np.isnan(b))


@pytest.mark.parametrize(
    ("name", "R", "V", "L"), [(name, *shape) for name, (_, shapes) in CASES.items() for shape in shapes]
)
def test_compiled_is_as_its_twin(name, R, V, L, monkeypatch):
    case = CASES[name][0](R, V, L)
    compiled = numba.njit("void(int64, int64, int64)", error_model="numpy")(case)
    plain = twins.plain(case)
    rng = np.random.default_rng(R * 100 + V * 10 + L)
    most = 16 if name == "lanes_equal" else V * L + 2
    changed = False
    for n in range(most + 1):
        x = small_bytes(rng) if name in OF_BYTES else numbers(rng)
        start = n % 4  # in the middle of a vector
        before = rng.standard_normal(SIZE).astype(np.float32)
        actual, expected = before.copy(), before.copy()
        CALLS.clear()
        compiled(x[start:].ctypes.data, actual[start:].ctypes.data, n)
        with twins.memory(x, expected), np.errstate(all="ignore"):
            plain(x[start:].ctypes.data, expected[start:].ctypes.data, n)
        if name == "call":
            assert set(CALLS) == {(R, -n)}
            assert len(CALLS) == 2
            continue
        changed |= not same(before, expected).all()
        if name == "lanes_equal":  # all 16 places behind the count may be written to
            found = int(expected[start:].view(np.uint8)[:8].view(np.int64)[0])
            assert np.array_equal(
                actual.view(np.int32)[: start + 3 + found], expected.view(np.int32)[: start + 3 + found]
            )
            assert same(actual, before)[start + 3 + 16 :].all()
            continue
        if name == "store_bytes":  # which may look like NaN
            assert np.array_equal(actual.view(np.uint8), expected.view(np.uint8))
            continue
        near = same(actual, expected)
        if name in FUSED:
            # The twin rounds twice to the same place, which may be one unit off; some CPUs round the product too.
            with monkeypatch.context() as patch, twins.memory(x, before), np.errstate(all="ignore"):
                patch.setattr(twins, "multiply_add", lambda a, b, c: a * b + c)
                twins.plain(case)(x[start:].ctypes.data, before[start:].ctypes.data, n)
                near |= same(actual, before) | (np.abs(actual - expected) <= 1.2e-7 * np.abs(expected))
        assert near.all(), (n, np.flatnonzero(~near), actual[~near], expected[~near])
    assert changed or name == "call", "the case wrote nothing"


@pytest.mark.parametrize(("cpu", "feature"), [("haswell", "avx2"), ("nehalem", "sse4.2")])
def test_operations_on_narrower_cpus(cpu, feature):
    """Those for which such a CPU has no instruction, in another process, since Numba reads the name once."""
    if not llvm.get_host_cpu_features().get(feature):
        pytest.skip(f"this CPU cannot imitate {cpu}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k"]
    chosen = "as_its_twin and (lane or byte or _part or outer or multiply_add or spread or add_)"
    environment = os.environ | {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}
    done = subprocess.run([*command, chosen], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_sums_and_parts_of_counted_numbers():
    def case(x, y, n):
        t = load(8, 1, 8, floats(x), 8)
        store(transpose(t), 8, floats(y), 8)
        store(fold(t, 8), 1, at(floats(y), 64), 0)
        store(fold(t, 2), 4, at(floats(y), 72), 8)
        store(lane_sums(t), 1, at(floats(y), 104), 0)
        store(vector(t, 5), 1, at(floats(y), 112), 0)

    x, y = np.arange(64, dtype=np.float32).reshape(8, 8), np.zeros((15, 8), dtype=np.float32)
    numba.njit(case)(x.ctypes.data, y.ctypes.data, 0)
    assert np.array_equal(y[:8], x.T)
    assert np.array_equal(y[8], x.sum(axis=0))
    assert np.array_equal(y[9:13], x[:4] + x[4:])
    assert np.array_equal(y[13], x.sum(axis=1))
    assert np.array_equal(y[14], x[5])


def test_threads_count_together():
    @numba.njit("void(int64, int64)", nogil=True)
    def count(total, seen):
        for i in range(20000):
            longs(seen)[i] = atomic_add(longs(total), 1)

    total, seen = np.zeros(1, dtype=np.int64), np.zeros((4, 20000), dtype=np.int64)
    threads = [threading.Thread(target=count, args=(total.ctypes.data, row.ctypes.data)) for row in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total[0] == 80000
    assert np.array_equal(np.sort(seen.ravel()), np.arange(80000))


def test_twins_check_bounds():
    x = np.zeros(4, dtype=np.float32)
    with twins.memory(x):
        pointer = twins.at(twins.floats(x.ctypes.data), 2)
        assert twins.load(1, 1, 4, twins.at(pointer, -2), 0).shape == (1, 4)
        assert twins.load_part(1, 1, 4, pointer, 0, 2).shape == (1, 4)
        for wrong in (lambda: pointer[2], lambda: pointer[-3], lambda: twins.load(1, 1, 4, pointer, 0)):
            with pytest.raises(IndexError, match="of an array of 4"):
                wrong()
        with pytest.raises(IndexError, match="of an array of 0"):
            twins.longs(0)[0]
    with pytest.raises(IndexError):
        twins.floats(x.ctypes.data)[0]
