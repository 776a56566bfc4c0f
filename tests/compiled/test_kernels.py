"""Each kernel three times: compiled, its body in plain Python with the twins, and the slow equivalent in NumPy.

A case gives a kernel, memory and a slow function, which writes what the kernel must write. All memory is compared, so
a number written where none belongs fails too.
"""

from __future__ import annotations

import ctypes
import importlib
import itertools
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from oracles import assert_near
from pellucid import functional as F
from pellucid import optim
from pellucid.compiled import kernels, twins
from pellucid.compiled.kernel import Kernel
from pellucid.compiled.kernels import (
    correlate,
    depthwise,
    edges,
    gradients,
    group_norm,
    losses,
    norm,
    pointwise,
    pool,
    pooled,
    prelu,
    resample,
    select,
    update,
    winograd,
    winograd_gradient,
)
from pellucid.compiled.records import WORK
from pellucid.random import Stream

IMAGES = 3


@dataclass
class Case:
    """A kernel at work.

    Attributes:
        kernel: What runs.
        operands: Its record.
        arrays: Memory by the name that the work has for it.
        slow: slow(op, work, memory) writes to memory what the kernel must write there.
        work: Other fields of the work.
        free: Arrays whose content does not matter afterwards.
        others: Further memory, such as records that operands name by address.
        places: Where bytes begin in each frame, which cannot be compared as float32.
    """

    kernel: Kernel
    operands: np.ndarray
    arrays: dict[str, np.ndarray]
    slow: Callable[[SimpleNamespace, SimpleNamespace, SimpleNamespace], None]
    work: dict[str, float] = field(default_factory=dict)
    free: tuple[str, ...] = ()
    others: list[np.ndarray] = field(default_factory=list)
    places: int = 1 << 30


CASES: list[pytest.param] = []


def case(*choices):
    """Register the function under its name, once for each choice of its arguments."""

    def register(make):
        for chosen in choices or [()]:
            CASES.append(pytest.param(make, chosen, id="-".join(map(str, [make.__name__, *chosen]))))
        return make

    return register


def randn(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def whole(*shape, seed=1):
    """Small whole numbers, so that many are equal."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


def as_map(line, start, down, right, rows, columns, channels):
    """The view (rows, columns, channels) of a map in a frame."""
    strides = (4 * down, 4 * right, 4)
    return np.lib.stride_tricks.as_strided(line[start:], (rows, columns, channels), strides)


def work_of(case: Case, arrays: dict[str, np.ndarray]) -> np.ndarray:
    values = dict.fromkeys(WORK.dtype.names, 0) | {"last": IMAGES, "batch": IMAGES, **case.work}
    if "frames" in arrays:
        values["frame"] = arrays["frames"].shape[1]
    return WORK.make(**(values | {name: array.ctypes.data for name, array in arrays.items()}))


def fields_of(record: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(**{name: record[name][0].item() for name in record.dtype.names})


@pytest.mark.parametrize(("make", "chosen"), CASES)
def test_compiled_plain_and_slow_agree(make, chosen):
    case = make(*chosen)
    compiled, plain, slow = ({name: array.copy() for name, array in case.arrays.items()} for _ in range(3))
    work = work_of(case, compiled)
    entry = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(case.kernel.address)
    entry(case.operands.ctypes.data, work.ctypes.data)
    twins.run(case.kernel, case.operands, work_of(case, plain), *plain.values(), *case.others)
    case.slow(fields_of(case.operands), fields_of(work_of(case, slow)), SimpleNamespace(**slow))
    assert any(not np.array_equal(slow[name], array, equal_nan=True) for name, array in case.arrays.items())
    places = [m["frames"][:, case.places :].copy().view(np.uint8) for m in (compiled, plain, slow) if "frames" in m]
    assert all(np.array_equal(some, places[-1]) for some in places)
    for m in (compiled, plain, slow):
        if "frames" in m:
            m["frames"][:, case.places :] = 0
    for name in case.arrays.keys() - set(case.free):
        assert_near(compiled[name], slow[name], 2e-6, f"{name}, compiled")
        assert_near(plain[name], slow[name], 2e-6, f"{name}, plain")


def test_every_kernel_has_a_case():
    made = {make(*chosen).kernel.name.split("[")[0] for make, chosen in (p.values for p in CASES)}
    makers = set()
    for module in pkgutil.iter_modules(kernels.__path__):
        for name, value in vars(importlib.import_module(f"{kernels.__name__}.{module.name}")).items():
            function = getattr(value, "__wrapped__", None)
            if function is not None and function.__annotations__.get("return") == "Kernel":
                makers.add(name)
    assert len(makers) > 25
    by_function = {"activation": "tanh", "activation_gradient": "tanh_gradient", "elementwise_loss": "mse"}
    assert "winograd_pool2" in made
    assert {by_function.get(name, name) for name in makers} <= made


# Correlations


@case((1, 3, 2, 4, 0, 0), (1, 5, 1, 8, 1, 1), (1, 1, 1, 16, 0, 1), (2, 3, 1, 8, 1, 0), (3, 5, 1, 4, 0, 1))
def correlate_case(R, P, V, L, relu, from_copies):
    channels, C, rows, columns, width, x_columns = 11, 2, 3, 5, 16, 11
    op = correlate.CORRELATE.make(
        x=7, y=150, x_down=x_columns * C, x_right=2 * C, y_down=columns * channels + 5, y_right=channels, rows=rows,
        columns=columns, taps=2, tap_count=2, run=3 * C, weights=9, width=width, from_copies=from_copies, bias=3,
        channels=channels, relu=relu,
    )  # fmt: skip
    arrays = {
        "frames": randn(IMAGES, 400),
        "weights": randn(400, seed=2),
        "copies": randn(400, seed=3),
        "tables": np.array([-1, -1, 0, x_columns * C, -1], dtype=np.int32),
    }
    return Case(correlate.correlate(R, P, V, L), op, arrays, slow_correlate, {"first": 1})


def slow_correlate(op, work, m):
    taps, w = m.tables[op.taps :], (m.copies if op.from_copies else m.weights)[op.weights :]
    for image in range(work.first, work.last):
        x, y = m.frames[image, op.x :], m.frames[image, op.y :]
        for r, c, n in np.ndindex(op.rows, op.columns, op.channels):
            total = float(m.weights[op.bias + n])
            for t, k in np.ndindex(op.tap_count, op.run):
                total += float(x[r * op.x_down + c * op.x_right + taps[t] + k]) * w[(t * op.run + k) * op.width + n]
            y[r * op.y_down + c * op.y_right + n] = max(total, 0) if op.relu else total


@case((2, 2, 4, 1, 0), (4, 1, 16, 0, 1))
def dense_case(P, V, L, relu, from_copies):
    channels, run = 11, 9
    op = correlate.CORRELATE.make(
        x=5, y=20, x_down=0, x_right=0, y_down=0, y_right=0, rows=1, columns=1, taps=1, tap_count=1, run=run,
        weights=9, width=16, from_copies=from_copies, bias=3, channels=channels, relu=relu,
    )  # fmt: skip
    arrays = {
        "frames": randn(8, 50),
        "weights": randn(200, seed=2),
        "copies": randn(200, seed=3),
        "tables": np.array([-1, 0, -1], dtype=np.int32),
    }
    return Case(correlate.dense(P, V, L), op, arrays, slow_correlate, {"first": 1, "last": 8})


@case((2, 8, 3, 0, 17), (4, 4, 2, 1, 9), (1, 16, 8, 1, 5))
def dense_one_case(V, L, W, from_copies, run):
    """Of the first image alone; sums in W ways, also where the run is shorter."""
    case = dense_case(1, V, L, 1 - from_copies, from_copies)
    case.operands["run"], case.operands["y"] = run, 25
    case.arrays["weights"], case.arrays["copies"] = randn(400, seed=2), randn(400, seed=3)
    case.kernel, case.work = correlate.dense_one(V, L, W), {"last": 1}
    return case


@case((4, 4, 0, 11), (8, 8, 1, 11), (16, 16, 0, 18), (3, 16, 1, 3))
def dense_rows_case(R, L, relu, outputs):
    inputs, width = 21, 32
    op = correlate.CORRELATE.make(
        x=5, y=40, x_down=0, x_right=0, y_down=0, y_right=0, rows=1, columns=1, taps=1, tap_count=1, run=inputs,
        weights=30, width=width, from_copies=0, bias=3, channels=outputs, relu=relu,
    )  # fmt: skip
    arrays = {"frames": randn(1, 80), "weights": randn(30 + outputs * width + 20, seed=2)}

    def slow(op, work, m):
        w = m.weights[op.weights :][: outputs * width].reshape(outputs, width)[:, :inputs].astype(np.float64)
        y = w @ m.frames[0, op.x : op.x + inputs] + m.weights[op.bias : op.bias + outputs]
        m.frames[0, op.y : op.y + outputs] = np.maximum(y, 0) if relu else y

    return Case(correlate.dense_rows(R, L), op, arrays, slow)


@case((3, 2, 4, 11), (6, 1, 8, 11), (2, 1, 16, 3))
def scatter_case(P, V, L, channels):
    """Windows of 2 x 2 cells, two columns apart, of a 3 x 7 map."""
    rows, columns, run, width, map_columns = 2, 3, 5, 16, 7
    taps = [a * map_columns * channels + b * channels for a in (0, 1) for b in (0, 1)]
    op = correlate.SCATTER.make(
        dy=3, dx=40, dx_down=map_columns * channels, dx_right=2 * channels, rows=rows, columns=columns, run=run,
        channels=channels, taps=1, tap_count=len(taps), weights=7, width=width, map_size=3 * map_columns * channels,
    )  # fmt: skip
    arrays = {
        "frames": randn(IMAGES, 320),
        "copies": randn(400, seed=3),
        "tables": np.array([-1, *taps, -1], dtype=np.int32),
        "scratch": np.full(P * V * L, np.nan, dtype=np.float32),
    }

    def slow(op, work, m):
        w = m.copies[op.weights :][: 4 * run * width].reshape(2, 2, run, width)[..., :channels].astype(np.float64)
        for line in m.frames[work.first :]:
            dy = as_map(line, op.dy, columns * run, run, rows, columns, run)
            dx = np.zeros((3, map_columns, channels))
            for r, c, a, b in np.ndindex(rows, columns, 2, 2):
                dx[r + a, 2 * c + b] += dy[r, c] @ w[a, b]
            # The kernel clears whole vectors: what lies behind a map is slack.
            line[op.dx : op.dx + -(-op.map_size // L) * L] = 0
            line[op.dx : op.dx + op.map_size] = dx.ravel()

    return Case(correlate.scatter(P, V, L), op, arrays, slow, {"first": 1}, free=("scratch",))


# Winograd's algorithm. Numbers are small and whole, so that it is exact and the largest stands in several cells.

G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def correlated(x, g, bias):
    """Sum over i, j, c of x[r + i, s + j, c] g[i, j, c, n] + bias[n], in loops."""
    rows, columns = x.shape[0] - 2, x.shape[1] - 2
    y = np.tile(bias.astype(np.float64), (rows, columns, 1))
    for r, s, i, j in np.ndindex(rows, columns, 3, 3):
        y[r, s] += x[r + i, s + j].astype(np.float64) @ g[i, j]
    return y


def slow_pool2(y, relu):
    """The largest of each whole 2 x 2, and its place."""
    rows, columns, channels = y.shape[0] // 2, y.shape[1] // 2, y.shape[2]
    best, place = np.empty((rows, columns, channels)), np.empty((rows, columns, channels), dtype=np.uint8)
    for r, c, n in np.ndindex(best.shape):
        at, largest = 0, y[2 * r, 2 * c, n]
        for cell in (1, 2, 3):
            number = y[2 * r + cell // 2, 2 * c + cell % 2, n]
            if number > largest or np.isnan(number):
                at, largest = cell, number
        if relu and not largest > 0:
            at, largest = pool.DEAD, 0 if largest <= 0 else largest
        best[r, c, n], place[r, c, n] = largest, at
    return best, place


def winograd_operands(rows, columns, inner, channels, lanes, y_rows, relu, block):
    """The record, and memory with the filters' side made by matrices; g is returned too."""
    width, y_columns = -(-channels // lanes) * lanes, columns * y_rows // rows
    x_down, y_down = (columns + 2) * inner + 3, y_columns * channels + 5
    x, y = 9, 9 + (rows + 2) * x_down + 16
    places = -(-(y + y_rows * y_down) // 4) * 4 + 16
    op = winograd.WINOGRAD.make(
        x=x + 4, y=y, x_down=x_down, x_right=inner, y_down=y_down, y_right=channels, rows=rows, columns=columns, taps=1,
        tap_count=3, run=3 * inner, weights=7, width=width, from_copies=1, bias=3, channels=channels, relu=relu,
        block=block, places=places,
    )  # fmt: skip
    g = whole(3, 3, inner, channels, seed=4).astype(np.float64)
    u = np.full((4, 4, inner, width), 77, dtype=np.float32)
    u[..., :channels] = np.einsum("ai,bj,ijcn->abcn", G, G, g)
    arrays = {
        "frames": whole(IMAGES, places + -(-y_rows * y_columns * channels // 16) * 4 + 32),
        "weights": whole(60, seed=2),
        "copies": np.concatenate([np.full(7, 77), u.ravel(), np.full(64, 77)]).astype(np.float32),
        "tables": np.array([-1, -4, 0, 4], dtype=np.int32),
    }
    arrays["frames"][1, x : x + x_down] = np.nan  # the first row
    arrays["frames"][2, x + x_down + 3 * inner] = np.nan
    return op, arrays, g


@case(
    *((3, 2, 4, 4, relu, 5, 7, 5, 11, 11) for relu in (0, 1)),  # of 12 places
    (2, 1, 8, 8, 0, 6, 4, 8, 6, 4),
    (4, 1, 16, 4, 1, 3, 3, 3, 4, 4),
    (1, 2, 8, 16, 0, 2, 2, 17, 13, 1),
    (3, 1, 4, 8, 1, 7, 2, 9, 3, 3),
    (3, 2, 16, 4, 0, 4, 5, 2, 35, 4),
)
def winograd_case(P, V, L, K, relu, rows, columns, inner, channels, block):
    """Odd rows and columns, blocks that overlap, filters that fill no vector."""
    op, arrays, g = winograd_operands(rows, columns, inner, channels, L, rows, relu, block)
    arrays["scratch"] = np.full(winograd.scratch_size(block, inner, K, V * L), np.nan, dtype=np.float32)

    def slow(op, work, m):
        for line in m.frames[work.first : work.last]:
            x = as_map(line, op.x + m.tables[1], op.x_down, op.x_right, rows + 2, columns + 2, inner)
            y = correlated(x, g, m.weights[op.bias : op.bias + channels])
            target = as_map(line, op.y, op.y_down, op.y_right, rows, columns, channels)
            target[:] = np.where(y <= 0, 0, y) if relu else y

    return Case(winograd.winograd(P, V, L, K, False), op, arrays, slow, {"first": 1}, free=("scratch",))


def pool2_slow(g, rows, columns, inner, channels, keeps):
    """The slow equivalent of a convolution with filters g and the largest of each 2 x 2, with its place or without."""

    def slow(op, work, m):
        for line in m.frames[work.first : work.last]:
            x = as_map(line, op.x + m.tables[1], op.x_down, op.x_right, rows + 2, columns + 2, inner)
            y = correlated(x, g, m.weights[op.bias : op.bias + channels])
            best, place = slow_pool2(y, op.relu)
            as_map(line, op.y, op.y_down, op.y_right, *best.shape)[:] = best
            if keeps:
                line[op.places :].view(np.uint8)[: place.size] = place.ravel()

    return slow


@case((3, 2, 4, 4, 0, 4, 8, 5, 11, 3, 1), (3, 1, 8, 8, 1, 4, 6, 3, 19, 4, 0), (1, 1, 16, 4, 1, 2, 2, 4, 5, 1, 1))
def winograd_pool2_case(P, V, L, K, relu, rows, columns, inner, channels, block, keeps):
    op, arrays, g = winograd_operands(rows, columns, inner, channels, L, rows // 2, relu, block)
    arrays["scratch"] = np.full(winograd.scratch_size(block, inner, K, V * L), np.nan, dtype=np.float32)
    slow, places = pool2_slow(g, rows, columns, inner, channels, keeps), int(op["places"][0])
    kernel = winograd.winograd(P, V, L, K, True, bool(keeps))
    return Case(kernel, op, arrays, slow, {"first": 1}, free=("scratch",), places=places)


@case((2, 1, 4, 0, 0, 6, 2, 1), (3, 2, 4, 1, 0, 11, 3, 0), (2, 1, 16, 1, 1, 5, 1, 0), (1, 4, 8, 0, 1, 35, 4, 1))
def correlate_pool2_case(P, V, L, relu, from_copies, channels, inner, keeps):
    """Seven columns side by side give three windows; what is left over is not read."""
    rows, columns = 4, 7
    op, arrays, g = winograd_operands(rows, columns, inner, channels, L, rows // 2, relu, 1)
    fields, width = fields_of(op), int(op["width"][0])
    values = {name: getattr(fields, name) for name in pooled.CORRELATE_POOL2.dtype.names}
    values |= {"from_copies": from_copies, "bias": 3, "weights": 50}
    op = pooled.CORRELATE_POOL2.make(**values)
    w = np.full((3, 3, inner, width), 77, dtype=np.float32)
    w[..., :channels] = g
    arrays["tables"] = np.array([-1, *(a * values["x_down"] - 4 for a in range(3)), -1], dtype=np.int32)
    filters = np.concatenate([whole(50, seed=2), w.ravel(), np.full(64, 77, dtype=np.float32)])
    arrays["weights"], arrays["copies"] = (whole(99, seed=2), filters) if from_copies else (filters, whole(9))
    slow = pool2_slow(g, rows, columns, inner, channels, keeps)
    return Case(pooled.correlate_pool2(P, V, L, bool(keeps)), op, arrays, slow, {"first": 1}, places=values["places"])


@case((4, 0, 0, 5, 9), (8, 1, 0, 2, 3), (4, 1, 1, 3, 10), (16, 0, 1, 0, 11))
def winograd_weights_case(L, from_copies, by_columns, first, last):
    """Rows, or columns, first to last of 11."""
    rows, columns, width = 11, 11, 16
    source, target, size = 5, 5 + 9 * rows * width + 3, 25 * rows * width + 40
    op = winograd.WINOGRAD_WEIGHTS.make(
        source=source, from_copies=from_copies, rows=rows, columns=columns, width=width, by_columns=by_columns,
        target=target,
    )  # fmt: skip
    arrays = {"weights": randn(size), "copies": randn(size, seed=2)}

    def slow(op, work, m):
        g = (m.copies if from_copies else m.weights)[source:].copy()[: 9 * rows * width].reshape(3, 3, rows, width)
        u = m.copies[target:][: 16 * rows * width].reshape(4, 4, rows, width)
        for row, column in np.ndindex(rows, columns):
            if first <= (column if by_columns else row) < last:
                u[:, :, row, column] = G @ g[:, :, row, column] @ G.T

    return Case(winograd.winograd_weights(L), op, arrays, slow, {"first": first, "last": last})


# Gradients of weights and biases


@case((3, 2, 4, 0, 1), (2, 1, 8, 1, 2), (6, 1, 16, 0, 1 << 30))
def weight_gradient_case(R, V, L, adds, images_at_once):
    C, channels, rows, columns, x_columns = 2, 11, 3, 2, 6
    op = gradients.WEIGHT_GRADIENT.make(
        x=3, dy=70, x_down=x_columns * C, x_right=2 * C, dy_down=columns * channels + 3, dy_right=channels, rows=rows,
        columns=columns, taps=1, tap_count=2, run=3 * C, weights=5, width=16, channels=channels, adds=adds,
        images_at_once=images_at_once,
    )  # fmt: skip
    arrays = {
        "frames": randn(IMAGES + 1, 170),
        "gradients": randn(220, seed=2),
        "tables": np.array([-1, 0, x_columns * C], dtype=np.int32),
    }
    first = 0 if R == 6 else R
    return Case(gradients.weight_gradient(R, V, L), op, arrays, slow_weight_gradient, {"first": first, "last": 6})


def slow_weight_gradient(op, work, m):
    for t, k, n in itertools.product(range(op.tap_count), range(work.first, work.last), range(op.channels)):
        place = op.weights + (t * op.run + k) * op.width + n
        total = float(m.gradients[place]) if op.adds else 0.0
        for i, r, c in np.ndindex(work.batch, op.rows, op.columns):
            x, dy = m.frames[i, op.x :], m.frames[i, op.dy :]
            number = x[r * op.x_down + c * op.x_right + m.tables[op.taps + t] + k]
            total += float(number) * dy[r * op.dy_down + c * op.dy_right + n]
        m.gradients[place] = total


@case(
    *((2, 2, 4, 4, adds, 5, 7, 8, 11, 5, 1, 4, 8) for adds in (0, 1)),  # of 12 places, rows from the fourth
    (4, 1, 8, 8, 0, 6, 4, 16, 6, 6, 3, 8, 16),
    (8, 1, 16, 16, 1, 3, 3, 16, 4, 4, 2, 0, 16),
    (8, 2, 8, 8, 0, 2, 9, 8, 13, 2, 1, 0, 8),
)
def winograd_gradient_case(R, V, L, K, adds, rows, columns, inner, channels, block, images, first, last):
    """Odd rows and columns, blocks that end early, images that go together, channels that fill no vector."""
    x_down, dy_down = (columns + 2) * inner + 3, columns * channels + 5
    x, dy = 9, 9 + (rows + 2) * x_down + 16
    width = -(-channels // L) * L
    op = winograd_gradient.WINOGRAD_GRADIENT.make(
        x=x - 4, dy=dy, x_down=x_down, x_right=inner, dy_down=dy_down, dy_right=channels, rows=rows, columns=columns,
        taps=1, tap_count=9, run=inner, weights=5, width=width, channels=channels, adds=adds, images_at_once=images,
        block=block,
    )  # fmt: skip
    arrays = {
        "frames": whole(IMAGES + 1, dy + rows * dy_down + 64),
        "gradients": whole(9 * inner * width + 9, seed=2),
        "tables": np.array([-1, *(a * x_down + b * inner + 4 for a in range(3) for b in range(3))], dtype=np.int32),
        "scratch": np.full(
            winograd_gradient.scratch_size(block * images, last - first, (R, V, L, K), channels), np.nan, np.float32
        ),
    }
    kernel, work = winograd_gradient.winograd_gradient(R, V, L, K), {"first": first, "last": last}
    return Case(kernel, op, arrays, slow_weight_gradient, work, free=("scratch",))


@case((4, 0), (8, 1), (16, 0))
def bias_gradient_case(L, adds):
    rows, columns, channels = 3, 7, 6
    op = gradients.BIAS_GRADIENT.make(
        dy=3, dy_down=50, dy_right=channels, rows=rows, columns=columns, bias=5, channels=channels, adds=adds
    )
    arrays = {"frames": randn(IMAGES + 1, 170), "gradients": randn(40, seed=2)}

    def slow(op, work, m):
        target = m.gradients[op.bias : op.bias + channels]
        dy = [as_map(f, op.dy, op.dy_down, op.dy_right, rows, columns, channels) for f in m.frames[: work.batch]]
        target[:] = np.sum(dy, axis=(0, 1, 2), dtype=np.float64) + (target if adds else 0)

    return Case(gradients.bias_gradient(L), op, arrays, slow)


# Depthwise


def depthwise_operands(relu, adds):
    C, rows, columns = 6, 2, 3
    op = depthwise.DEPTHWISE.make(
        x=3, y=130, x_down=5 * C, x_right=2 * C, y_down=columns * C + 1, y_right=C, rows=rows, columns=columns,
        channels=C, taps=1, weight_rows=5, tap_count=3, weights=4, width=8, bias=1, relu=relu, adds=adds,
    )  # fmt: skip
    tables = np.array([-1, 0, C, 5 * C, -1, 2, 0, 1], dtype=np.int32)
    return op, {"frames": randn(IMAGES, 180), "tables": tables}


@case((4, 0), (8, 1))
def depthwise_case(L, relu):
    op, arrays = depthwise_operands(relu, 0)

    def slow(op, work, m):
        taps, weight_rows = m.tables[op.taps :], m.tables[op.weight_rows :]
        for i, r, c, n in np.ndindex(work.last, op.rows, op.columns, op.channels):
            x, total = m.frames[i, op.x + r * op.x_down + c * op.x_right :], float(m.weights[op.bias + n])
            for t in range(op.tap_count):
                total += float(x[taps[t] + n]) * m.weights[op.weights + weight_rows[t] * op.width + n]
            m.frames[i, op.y + r * op.y_down + c * op.y_right + n] = max(total, 0) if relu else total

    return Case(depthwise.depthwise(L), op, arrays | {"weights": randn(40, seed=2)}, slow)


@case((4, 0), (8, 1))
def depthwise_weight_gradient_case(L, adds):
    op, arrays = depthwise_operands(0, adds)

    def slow(op, work, m):
        for t, n in np.ndindex(op.tap_count, op.channels):
            place = op.weights + t * op.width + n
            total = float(m.gradients[place]) if adds else 0.0
            for i, r, c in np.ndindex(work.batch, op.rows, op.columns):
                x = m.frames[i, op.x + r * op.x_down + c * op.x_right + m.tables[op.taps + t] + n]
                total += float(x) * m.frames[i, op.y + r * op.y_down + c * op.y_right + n]
            m.gradients[place] = total

    return Case(depthwise.depthwise_weight_gradient(L), op, arrays | {"gradients": randn(40, seed=2)}, slow)


# Pooling. Windows of 3 x 2 cells of a 5 x 5 map, 2 apart, cut off at its left and lower edge.

TOPS, BOTTOMS, LEFTS, RIGHTS = [0, 2, 4], [3, 5, 5], [0, 1, 3], [1, 3, 5]
SPAN, MAP = 2, 5


def pool_operands(channels, down, right, relu=0, **others):
    """The record, and the tables that it names."""
    table: list[int] = [-1]
    places = {"tops": TOPS, "bottoms": BOTTOMS, "lefts": LEFTS, "rights": RIGHTS, "row_counts": [3, 3, 2]}
    places |= {"column_counts": [2, 2, 1], "origins": [i * down + j * right for i in TOPS for j in LEFTS]}
    places |= {"cells": [i * down + j * right for i in range(3) for j in range(SPAN)]}
    starts = {}
    for name, numbers in places.items():
        starts[name] = len(table)
        table += numbers
    values = {"x": 3, "y": 200, "y_down": 3 * channels + 2, "y_right": channels, "places": 300} | others
    record = pool.POOL.make(
        x_down=down, x_right=right, rows=3, columns=3, channels=channels, span=SPAN, relu=relu, map_rows=MAP,
        map_length=MAP * channels, **starts, **values,
    )  # fmt: skip
    return record, np.array(table, dtype=np.int32)


def places_of(line, op, wide):
    """The view (rows, columns, channels) of the places."""
    count, shape = op.rows * op.columns * op.channels, (op.rows, op.columns, op.channels)
    return (line[op.places :] if wide else line[op.places :].view(np.uint8))[:count].reshape(shape)


def slow_max_pool(op, x, y, places):
    for r, c, n in np.ndindex(op.rows, op.columns, op.channels):
        best, place = -math.inf, 0
        for i in range(TOPS[r], BOTTOMS[r]):
            for j in range(LEFTS[c], RIGHTS[c]):
                if x[i, j, n] > best or np.isnan(x[i, j, n]):
                    best, place = x[i, j, n], (i - TOPS[r]) * SPAN + j - LEFTS[c]
        if op.relu:
            best, place = (best, place) if best > 0 else (0, pool.DEAD)
        y[r, c, n], places[r, c, n] = best, place


def pool_maps(line, op):
    x = as_map(line, op.x, op.x_down, op.x_right, MAP, MAP, op.channels)
    return x, as_map(line, op.y, op.y_down, op.y_right, op.rows, op.columns, op.channels)


@case((4, False, 0), (8, True, 0), (16, False, 1))
def max_pool_case(L, wide, relu):
    op, tables = pool_operands(6, MAP * 6 + 1, 6, relu)
    frames = whole(IMAGES, 400)
    frames[1, 3:170:9] = np.nan if not relu else 2
    frames[2, 3:60] = -np.inf

    def slow(op, work, m):
        for line in m.frames[: work.last]:
            slow_max_pool(op, *pool_maps(line, op), places_of(line, op, wide))

    return Case(pool.max_pool(L, wide), op, {"frames": frames, "tables": tables}, slow, places=300)


@case((False,), (True,))
def max_pool_gradient_case(wide):
    op, tables = pool_operands(6, MAP * 6 + 1, 6)
    frames = randn(IMAGES, 400)
    fields = fields_of(op)
    for line in frames:
        x = whole(MAP, MAP, 6)
        slow_max_pool(fields, x, np.empty((3, 3, 6)), places_of(line, fields, wide))

    def slow(op, work, m):
        for line in m.frames[: work.last]:
            (dx, dy), places = pool_maps(line, op), places_of(line, op, wide)
            dx[:] = 0
            for r, c, n in np.ndindex(op.rows, op.columns, op.channels):
                place = int(places[r, c, n])
                dx[TOPS[r] + place // SPAN, LEFTS[c] + place % SPAN, n] += dy[r, c, n]

    return Case(pool.max_pool_gradient(wide), op, {"frames": frames, "tables": tables}, slow, places=300)


@case((4, "mean_pool"), (8, "mean_pool"), (4, "mean_pool_gradient"), (16, "mean_pool_gradient"))
def mean_pool_case(L, name):
    op, tables = pool_operands(6, MAP * 6 + 1, 6)

    def slow(op, work, m):
        for line in m.frames[: work.last]:
            x, y = pool_maps(line, op)
            if name != "mean_pool":
                x[:] = 0
            for r, c in np.ndindex(op.rows, op.columns):
                window = x[TOPS[r] : BOTTOMS[r], LEFTS[c] : RIGHTS[c]]
                count = [3, 3, 2][r] * [2, 2, 1][c]
                if name == "mean_pool":
                    y[r, c] = window.sum(axis=(0, 1)) / count
                else:
                    window += y[r, c] / count

    return Case(getattr(pool, name)(L), op, {"frames": randn(IMAGES, 400), "tables": tables}, slow)


# Convolution, ReLU and pooling as one: the convolution gives a 5 x 5 map of 6 channels from a 7 x 7 map of 2.

CHANNELS, C, KERNEL, X = 6, 2, 3, 7


@case((1, 3, 1, 4, 8), (1, 5, 2, 4, 4), (1, 1, 1, 16, 16), (2, 5, 1, 8, 8))
def correlate_pool_case(R, P, V, L, pool_lanes):
    pooling, tables = pool_operands(CHANNELS, MAP * CHANNELS, CHANNELS, relu=1, x=0)
    taps = np.array([a * X * C for a in range(KERNEL)], dtype=np.int32)
    conv = correlate.CORRELATE.make(
        x=3, y=0, x_down=X * C, x_right=C, y_down=MAP * CHANNELS, y_right=CHANNELS, rows=MAP, columns=MAP,
        taps=len(tables), tap_count=KERNEL, run=KERNEL * C, weights=5, width=8, from_copies=0, bias=1,
        channels=CHANNELS, relu=0,
    )  # fmt: skip
    op = pooled.CORRELATE_POOL.make(correlate=conv.ctypes.data, pool=pooling.ctypes.data)
    arrays = {
        "frames": randn(IMAGES, 400),
        "weights": randn(200, seed=2) - np.float32(0.3),
        "tables": np.concatenate([tables, taps]),
        "scratch": randn(1, 200, seed=3),
    }

    def slow(op, work, m):
        conv_op, pool_op = fields_of(conv), fields_of(pooling)
        for image in range(work.last):
            maps = SimpleNamespace(tables=m.tables, weights=m.weights, frames=np.zeros((1, 1000), dtype=np.float32))
            maps.frames[0, :400] = m.frames[image]
            conv_op.y = 500
            slow_correlate(conv_op, SimpleNamespace(first=0, last=1), maps)
            x = as_map(maps.frames[0], 500, conv_op.y_down, conv_op.y_right, MAP, MAP, CHANNELS)
            y = pool_maps(m.frames[image], pool_op)[1]
            slow_max_pool(pool_op, x, y, places_of(m.frames[image], pool_op, wide=False))

    kernel = pooled.correlate_pool(R, P, V, L, pool_lanes)
    return Case(kernel, op, arrays, slow, free=("scratch",), others=[conv, pooling], places=300)


def pooled_gradient(seed, L):
    """Operands, and memory with places, some dead, for channels that fill more than one load of 16."""
    channels, run = 19, KERNEL * C
    width = -(-run // L) * L
    origins = [i * X * C + j * C for i in TOPS for j in LEFTS]
    cells = [i * X * C + j * C for i in range(3) for j in range(SPAN)]
    cells += [0] * (pool.DEAD + 1 - len(cells))
    taps = [a * X * C for a in range(KERNEL)]
    op = pooled.POOLED_GRADIENT.make(
        x=3, dy=200, dy_down=3 * channels + 1, dy_right=channels, rows=3, columns=3, channels=channels, places=400,
        origins=1, cells=10, taps=10 + len(cells), tap_count=KERNEL, run=run, tap_step=X * C, weights=5,
        width=width, window=3 * SPAN, bias=1200, map=3, map_size=X * X * C,
    )  # fmt: skip
    frames, weights = randn(IMAGES, 512, seed=seed), np.zeros(1400, dtype=np.float32)
    rng = np.random.default_rng(seed)
    for line in frames:
        window = [(b - t) * SPAN for t, b in zip(TOPS, BOTTOMS, strict=True)]
        for r, c, n in np.ndindex(3, 3, channels):
            place = rng.integers(0, window[r]) if c else 2 * rng.integers(0, window[r] // 2)
            places_of(line, fields_of(op), False)[r, c, n] = place if rng.random() < 0.8 else pool.DEAD
    weights[5 : 5 + KERNEL * channels * width].reshape(-1, width)[:, :run] = randn(KERNEL * channels, run, seed=seed)
    tables = np.array([-1, *origins, *cells, *taps], dtype=np.int32)
    return op, {"frames": frames, "tables": tables, "weights": weights, "scratch": np.zeros(500, dtype=np.float32)}


def events(op, line, tables):
    """Yield (channel, value, first place of the window of x) for every number that is alive."""
    places = places_of(line, op, wide=False)
    for r, c, n in np.ndindex(op.rows, op.columns, op.channels):
        if places[r, c, n] != pool.DEAD:
            start = tables[op.origins + r * op.columns + c] + tables[op.cells + places[r, c, n]]
            yield n, line[op.dy + r * op.dy_down + c * op.dy_right + n], op.x + start


@case((KERNEL, 1, 8), (KERNEL, 2, 4), (KERNEL, 1, 4), (1, 1, 4), (1, 1, 16))
def pooled_data_gradient_case(T, V, L):
    op, arrays = pooled_gradient(1, L)

    def slow(op, work, m):
        for line in m.frames[: work.last]:
            line[op.map : op.map + op.map_size] = 0
            # The kernel clears whole vectors: what lies behind a map is slack.
            line[op.map + op.map_size : op.map + -(-op.map_size // L) * L] = 0
            for n, value, start in list(events(op, line, m.tables)):
                for a, k in np.ndindex(op.tap_count, op.run):
                    w = m.weights[op.weights + (a * op.channels + n) * op.width + k]
                    line[start + m.tables[op.taps + a] + k] += value * w

    return Case(pooled.pooled_data_gradient(T, V, L), op, arrays, slow, free=("scratch",), places=400)


@case((KERNEL, 1, 8, 1), (KERNEL, 2, 4, 4), (KERNEL, 1, 4, 1), (1, 1, 4, 1), (1, 1, 16, 4))
def pooled_weight_gradient_case(T, V, L, ways):
    op, arrays = pooled_gradient(2, L)
    arrays["gradients"] = np.where(arrays["weights"] == 0, arrays["weights"], randn(1400, seed=7))
    arrays["gradients"][1200:1219] = 5
    kernel, work = pooled.pooled_weight_gradient(T, V, L, ways), {"first": 3, "last": 12}
    return Case(kernel, op, arrays, slow_pooled_weight_gradient, work, free=("scratch",), places=400)


def slow_pooled_weight_gradient(op, work, m):
    dw = m.gradients[op.weights :][: op.tap_count * op.channels * op.width]
    dw = dw.reshape(op.tap_count, op.channels, op.width)
    dw[:, work.first : work.last, : op.run] = 0
    m.gradients[op.bias + work.first : op.bias + work.last] = 0
    for line in m.frames[: work.batch]:
        for n, value, start in events(op, line, m.tables):
            if work.first <= n < work.last:
                m.gradients[op.bias + n] += value
                for a, k in np.ndindex(op.tap_count, op.run):
                    dw[a, n, k] += value * line[start + m.tables[op.taps + a] + k]


@case((KERNEL, 4, 4, 12), (1, 8, 8, 16), (KERNEL, 8, 16, 19), (1, 16, 0, 19), (KERNEL, 16, 16, 19))
def selected_weight_gradient_case(T, L, first, last):
    """Blocks begin at a multiple of L; the last of 19 channels lacks some."""
    op, arrays = pooled_gradient(2, 8)
    arrays["gradients"] = randn(1400, seed=7)
    arrays["scratch"][:] = np.nan
    frames = arrays["frames"]
    dead = places_of(frames[1], fields_of(op), False) == pool.DEAD
    as_map(frames[1], 200, int(op["dy_down"][0]), 19, 3, 3, 19)[dead] = np.nan  # which nobody may multiply
    kernel, work = pooled.selected_weight_gradient(T, KERNEL * C, L), {"first": first, "last": last}
    return Case(kernel, op, arrays, slow_pooled_weight_gradient, work, free=("scratch",), places=400)


# Batch norm


def norm_case(kernel, slow, relu=0, adds=0, momentum=0.3, **work):
    channels, rows, columns = 6, 3, 2
    size = rows * (columns * channels + 1)
    vectors = ("mean", "scale", "inverse", "share", "slope", "var", "running_mean", "running_var", "count")
    op = norm.NORM.make(
        x=3, x_down=13, y=3 + size, y_down=13, dy=3 + 2 * size, dy_down=13, dx=3 + 3 * size, dx_down=13, rows=rows,
        columns=columns, channels=channels, weight=1, bias=9, affine=1, sums=170, relu=relu, adds=adds, eps=1e-3,
        momentum=momentum, **{name: 1 + 7 * i for i, name in enumerate(vectors)},
    )  # fmt: skip
    arrays = {
        "frames": randn(IMAGES, 190),
        "buffers": np.abs(randn(70, seed=2)),
        "weights": randn(20, seed=3),
        "gradients": randn(20, seed=4),
    }

    def slow_with_views(op, work, m):
        def maps(name):
            start, down = getattr(op, name), getattr(op, f"{name}_down")
            lines = m.frames[work.first : work.last] if "first" in work_given else m.frames
            return [as_map(line, start, down, channels, rows, columns, channels) for line in lines]

        views = {name: m.buffers[getattr(op, name) :][:channels] for name in vectors}
        views |= {"weight": m.weights[op.weight :][:channels], "bias": m.weights[op.bias :][:channels]}
        sums = m.frames[:, op.sums :][:, : 2 * channels].reshape(IMAGES, 2, channels)
        slow(SimpleNamespace(**views, sums=sums, maps=maps, op=op, work=work, memory=m))

    work_given = work
    return Case(kernel, op, arrays, slow_with_views, work)


@case((4, 0), (8, 1))
def normalize_case(L, relu):
    def slow(v):
        for x, y in zip(v.maps("x"), v.maps("y"), strict=True):
            y[:] = (x - v.mean) * v.scale + v.bias
            y[:] = np.maximum(y, 0) if relu else y

    return norm_case(norm.normalize(L), slow, relu, first=1)


@case((4,), (8,))
def moments_case(L):
    def slow(v):
        for image, x in enumerate(v.maps("x")):
            v.sums[image] = x.mean(axis=(0, 1)), x.var(axis=(0, 1)) * 6

    return norm_case(norm.moments(L), slow)


@case()
def combine_moments_case():
    def slow(v):
        some, pixels = slice(v.work.first, v.work.last), 6
        mean, deviations = v.sums[:, 0, some].astype(np.float64), v.sums[:, 1, some].astype(np.float64)
        v.mean[some] = mean.mean(axis=0)
        var = (deviations.sum(axis=0) + pixels * ((mean - mean.mean(axis=0)) ** 2).sum(axis=0)) / (IMAGES * pixels)
        v.var[some], v.inverse[some] = var, 1 / np.sqrt(var + v.op.eps)
        v.scale[some] = v.weight[some] / np.sqrt(var + v.op.eps)

    case = norm_case(norm.combine_moments(), slow, first=2, last=5)
    case.arrays["frames"][:, 176:182] **= 2
    return case


def test_moments_of_images_make_those_of_the_batch():
    """The formula that combines them, on paper: it is that of all pixels together."""
    x = randn(IMAGES, 6, 4).astype(np.float64)
    mean, deviations = x.mean(axis=1), ((x - x.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    var = (deviations.sum(axis=0) + 6 * ((mean - mean.mean(axis=0)) ** 2).sum(axis=0)) / 18
    assert np.allclose(var, x.var(axis=(0, 1)), rtol=1e-12)


@case((4,), (8,))
def gradient_sums_case(L):
    def slow(v):
        for image, (x, dy) in enumerate(zip(v.maps("x"), v.maps("dy"), strict=True)):
            v.sums[image] = dy.sum(axis=(0, 1)), (dy * (x - v.mean)).sum(axis=(0, 1))

    return norm_case(norm.gradient_sums(L), slow)


@case((0,), (1,))
def combine_gradients_case(adds):
    def slow(v):
        some = slice(v.work.first, v.work.last)
        dbias, weighted = v.sums.sum(axis=0, dtype=np.float64)[:, some]
        dweight = weighted * v.inverse[some]
        v.share[some] = dbias / (IMAGES * 6)
        v.slope[some] = dweight * v.inverse[some] / (IMAGES * 6)
        for start, gradient in ((v.op.weight, dweight), (v.op.bias, dbias)):
            target = v.memory.gradients[start + v.work.first : start + v.work.last]
            target[:] = gradient + (target if adds else 0)

    return norm_case(norm.combine_gradients(), slow, adds=adds, first=2, last=5)


@case((4,), (8,))
def normalize_gradient_case(L):
    def slow(v):
        for x, dy, dx in zip(v.maps("x"), v.maps("dy"), v.maps("dx"), strict=True):
            dx[:] = v.scale * (dy - v.share - (x - v.mean) * v.slope)

    return norm_case(norm.normalize_gradient(L), slow, first=1)


@case((0.3,), (-1.0,))
def update_running_case(momentum):
    def slow(v):
        rate, values = momentum if momentum >= 0 else 1 / (v.count[0] + 1), IMAGES * 6
        v.running_mean[:] = (1 - rate) * v.running_mean + rate * v.mean
        v.running_var[:] = (1 - rate) * v.running_var + rate * v.var * values / (values - 1)
        v.count[0] += 1

    return norm_case(norm.update_running(), slow, momentum=momentum)


# Optimizers: two taps, rows 2 to 5 of 5; statistics of three parts in two layers.

OPTIMIZERS = {
    "sgd": (optim.SGD, {}),
    "momentum": (optim.SGD, {"momentum": 0.7}),
    "nesterov": (optim.SGD, {"momentum": 0.7, "nesterov": True}),
    "rmsprop": (optim.RMSprop, {}),
    "rmsprop_momentum": (optim.RMSprop, {"momentum": 0.7}),
    "adam": (optim.Adam, {}),
    "adamw": (optim.AdamW, {}),
}


def update_operands(**values):
    values = {"weights": 3, "taps": 2, "rows": 5, "width": 7, "part": 2, "layers": 1, "layer_count": 2} | values
    reals = {"decay": 0, "momentum": 0, "beta1": 0, "beta2": 0, "eps": 0, "clip": math.inf, "layer_clip": math.inf}
    return update.UPDATE.make(**(reals | values))


@case(
    *((kind, 4, 0.0, math.inf, math.inf) for kind in update.KINDS),
    *((kind, 8, 0.1, math.inf, math.inf) for kind in update.KINDS),
    *(("momentum", 4, 0.1, clip, layer_clip) for clip in (4.0, 100.0) for layer_clip in (3.0, 100.0)),
)
def update_case(kind, L, decay, clip, layer_clip):
    make, options = OPTIMIZERS[kind]
    optimizer, t, rate = make(lr=1.0, weight_decay=decay, **options), 3, 0.03
    beta1, beta2 = optimizer.betas if kind.startswith("adam") else (0.0, getattr(optimizer, "alpha", 0.0))
    momentum = getattr(optimizer, "momentum", 0.0)
    eps = getattr(optimizer, "eps", 0.0)
    op = update_operands(
        part=1, decay=decay, momentum=momentum, beta1=beta1, beta2=beta2, eps=eps, clip=clip, layer_clip=layer_clip
    )
    names = ("weights", "gradients", "memory1", "memory2")
    arrays = {name: np.abs(randn(80, seed=i)) for i, name in enumerate(names)}
    arrays["statistics"] = np.array([9.0, 16.0, 1.0])
    arrays["tables"] = np.array([-1, 0, 1, 3], dtype=np.int32)
    clips = min(clip, layer_clip) < math.inf

    def slow(op, work, m):
        norms = [3.0, math.sqrt(17)]
        clipped = [min(norm, layer_clip) for norm in norms]
        total = math.hypot(*clipped)
        factor = clipped[1] / norms[1] * min(1, clip / total)
        for tap in range(op.taps):
            start = op.weights + (tap * op.rows + work.first) * op.width
            block = slice(start, start + (work.last - work.first) * op.width)
            state = dict(zip(optimizer.start(1, np.float32), (m.memory1[block], m.memory2[block]), strict=False))
            gradient = m.gradients[block] * (np.float32(factor) if clips else 1)
            optimizer.step(m.weights[block], gradient, state, lr=rate, step=t - 1)

    work = {"first": 2, "last": 5, "rate": rate}
    if kind.startswith("adam"):
        work |= {"correction1": 1 / (1 - beta1**t), "correction2": 1 / math.sqrt(1 - beta2**t)}
    return Case(update.update(kind, L, clips), op, arrays, slow, work)


@case()
def squares_case():
    def slow(op, work, m):
        rows = m.gradients[3 : 3 + 70].reshape(2, 5, 7)[:, work.first : work.last].astype(np.float64)
        m.statistics[2] = (rows**2).sum()

    arrays = {"gradients": randn(80), "statistics": np.zeros(4)}
    return Case(update.squares(), update_operands(), arrays, slow, {"first": 2, "last": 5})


@case((4, 1, 10, 0), (4, 0, 3, 1), (8, 2, 12, 1), (16, 0, 12, 0))
def transposed_case(L, first, last, from_copies):
    taps, rows, columns, width, copy_width = 2, 12, 9, 11, 13
    op = update.TRANSPOSE.make(
        weights=3, taps=taps, rows=rows, columns=columns, width=width, from_copies=from_copies, copy=300,
        copy_width=copy_width, order=1,
    )  # fmt: skip
    arrays = {
        "weights": randn(3 + taps * rows * width + 20),
        "copies": randn(300 + taps * columns * copy_width + 20, seed=2),
        "tables": np.array([-1, 1, 0], dtype=np.int32),
    }

    def slow(op, work, m):
        source = m.copies if from_copies else m.weights
        w = source[op.weights :][: taps * rows * width].reshape(taps, rows, width)
        copy = m.copies[op.copy :][: taps * columns * copy_width].reshape(taps, columns, copy_width)
        for tap, target in enumerate((1, 0)):
            copy[target, :, first:last] = w[tap, first:last, :columns].T

    return Case(update.transposed(L), op, arrays, slow, {"first": first, "last": last})


@case((4, 6, 9, True, 0.0), (8, 3, 8, False, 0.1), (16, 17, 21, True, 0.1), (16, 4, 1, True, 0.0))
def rank_one_case(L, outputs, inputs, bias, decay):
    width = -(-inputs // L) * L
    op = update.RANK_ONE.make(
        x=3, dy=40, weights=7, inputs=inputs, outputs=outputs, width=width, bias=900 if bias else -1, decay=decay
    )
    arrays = {"frames": randn(1, 80), "weights": randn(1000, seed=2)}
    arrays["frames"][0, 42] = np.inf

    def slow(op, work, m):
        x, dy = m.frames[0, 3 : 3 + inputs].astype(np.float64), m.frames[0, 40 : 40 + outputs].astype(np.float64)
        w = m.weights[7 : 7 + outputs * width].reshape(outputs, width)[:, :inputs]
        w -= work.rate * (np.outer(dy, x) + decay * w)
        if bias:
            b = m.weights[900 : 900 + outputs]
            b -= work.rate * (dy + decay * b)

    return Case(update.rank_one(L), op, arrays, slow, {"rate": 0.3})


# Number by number


def pointwise_case(kernel, formula, p=0.0, arrays=None, **work):
    """The case of y = formula(a, b), each of 3 rows of 10 numbers: 5 columns of 2 channels."""
    op = pointwise.POINTWISE.make(
        a=3, a_down=11, b=40, b_down=12, y=80, y_down=13, rows=3, length=10, channels=2, key=1, p=p,
        scale=1 / (1 - p), slope=0.2, limit=0.1,
    )  # fmt: skip
    memory = {"frames": randn(IMAGES, 130)} | (arrays or {})
    memory["frames"][:, 5:9] = 0, -0.0, np.nan, 0

    def slow(op, work, m):
        for image in range(work.first, work.last):
            line = m.frames[image]
            a, b, y = (as_map(line, s, d, 2, 3, 5, 2) for s, d in ((3, 11), (40, 12), (80, 13)))
            y[:] = formula(a, b, image)

    return Case(kernel, op, memory, slow, work)


def normal(a):
    """The probability that a normal number lies below a."""
    return np.array([(1 + math.erf(x / math.sqrt(2))) / 2 for x in a.ravel().tolist()]).reshape(a.shape)


def about_normal(a):
    return (1 + np.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3))) / 2


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


@case(*((name,) for name in pointwise.FUNCTIONS))
def activation_case(name):
    formulas = {
        "relu": lambda a: np.where(a <= 0, 0, a),
        "leaky_relu": lambda a: np.where(a <= 0, np.float32(0.2) * a, a),
        "sigmoid": sigmoid,
        "tanh": np.tanh,
        "elu": lambda a: np.where(a > 0, a, 0.2 * (np.exp(a) - 1)),
        "silu": lambda a: a * sigmoid(a),
        "gelu": lambda a: a * normal(a),
        "gelu_tanh": lambda a: a * about_normal(a),
        "softplus": lambda a: np.where(0.2 * a > 0.1, a, np.log(1 + np.exp(0.2 * a)) / 0.2),
    }
    kernel = pointwise.activation(name)
    return pointwise_case(kernel, lambda a, b, image: formulas[name](a.astype(np.float64)), first=1)


@case(*((name,) for name in pointwise.FUNCTIONS if name != "relu"))
def activation_gradient_case(name):
    def difference(f):
        """A derivative by differences."""
        return lambda a, b: (f(a + 1e-5) - f(a - 1e-5)) / 2e-5 * b

    formulas = {
        "leaky_relu": lambda a, b: np.where(a > 0, 1, np.float32(0.2)) * b,
        "sigmoid": lambda y, b: y * (1 - y) * b,
        "tanh": lambda y, b: (1 - y * y) * b,
        "elu": lambda a, b: np.where(a > 0, 1, 0.2 * np.exp(a)) * b,
        "silu": difference(lambda a: a * sigmoid(a)),
        "gelu": difference(lambda a: a * normal(a)),
        "gelu_tanh": difference(lambda a: a * about_normal(a)),
        "softplus": lambda a, b: np.where(0.2 * a > 0.1, 1, sigmoid(0.2 * a)) * b,
    }
    kernel = pointwise.activation_gradient(name)
    return pointwise_case(kernel, lambda a, b, image: formulas[name](a.astype(np.float64), b))


@case((4,), (8,))
def relu_gradient_case(L):
    return pointwise_case(pointwise.relu_gradient(L), lambda a, b, image: np.where(a > 0, b, 0))


@case((4, True), (8, False))
def add_maps_case(L, as_relu):
    def formula(a, b, image):
        return np.where(a + b <= 0, 0, a + b) if as_relu else a + b

    return pointwise_case(pointwise.add_maps(L, as_relu), formula)


@case((4,), (16,))
def copy_map_case(L):
    return pointwise_case(pointwise.copy_map(L), lambda a, b, image: a)


@case()
def dropout_case():
    streams = [Stream(seed) for seed in (1, 2, 3)]
    mask = F.dropout_mask(streams[1].random((4 + IMAGES, 2, 3, 5)), 0.3).transpose(0, 2, 3, 1)
    keys = np.array([stream.key for stream in streams], dtype=np.uint64).view(np.int64)
    work = {"sample": 4}
    return pointwise_case(
        pointwise.dropout(), lambda a, b, image: a * mask[4 + image].astype(np.float32), 0.3, {"keys": keys}, **work
    )


@case()
def channel_dropout_case():
    streams = [Stream(seed) for seed in (1, 2, 3)]
    mask = F.dropout_mask(streams[1].random((4 + IMAGES, 1, 1, 2)), 0.3).astype(np.float32)
    keys = np.array([stream.key for stream in streams], dtype=np.uint64).view(np.int64)
    arrays = {"keys": keys, "scratch": np.full(2, np.nan, dtype=np.float32)}
    formula = lambda a, b, image: a * mask[4 + image]  # noqa: E731
    case = pointwise_case(pointwise.channel_dropout(), formula, 0.3, arrays, sample=4)
    case.free = ("scratch",)
    return case


# PReLU: maps of 3 rows, 2 columns, 6 channels


@case((4, 0), (8, 1))
def prelu_case(L, several):
    return prelu_at_work(prelu.prelu(L), several)


@case((4, 0), (8, 1))
def prelu_gradient_case(L, several):
    return prelu_at_work(prelu.prelu_gradient(L), several)


def prelu_at_work(kernel, several):
    op = prelu.PRELU.make(
        a=3, a_down=13, b=50, b_down=14, y=100, y_down=12, rows=3, columns=2, channels=6, weight=2, several=several,
        sums=150,
    )  # fmt: skip

    def slow(op, work, m):
        slopes = m.weights[2:8] if several else m.weights[2]
        for line in m.frames[work.first :]:
            x, dy, y = (as_map(line, s, d, 6, 3, 2, 6) for s, d in ((3, 13), (50, 14), (100, 12)))
            if "gradient" in kernel.name:
                line[150:156] = np.where(x > 0, 0, x * dy).sum(axis=(0, 1))
                y[:] = np.where(x > 0, dy, slopes * dy)
            else:
                y[:] = np.where(x > 0, x, slopes * x)

    return Case(kernel, op, {"frames": randn(IMAGES, 170), "weights": randn(20, seed=2)}, slow, {"first": 1})


# Fixed sums: a map of 3 rows, 4 columns, 5 channels becomes 2 rows and 3 columns; some cells are sums of nothing


@case((4,), (8,))
def resample_case(L):
    starts, rows, u = [0, 0, 3], [2, 0, 1], [0.5, -2.0, 3.0]
    ends, columns, v = [0, 2, 3, 3], [0, 3, 2], [1.0, 0.25, -1.5]
    tables = [-1, *starts, *(21 * i for i in rows), *ends, *(5 * j for j in columns), -1]
    op = resample.RESAMPLE.make(
        x=3, y=80, y_down=22, y_right=7, rows=2, columns=3, channels=5, row_starts=1, row_offsets=4, row_weights=2,
        column_starts=7, column_offsets=11, column_weights=6,
    )  # fmt: skip
    arrays = {
        "frames": randn(IMAGES, 140),
        "buffers": np.array([9, 9, *u, 9, *v, 9], dtype=np.float32),
        "tables": np.array(tables, dtype=np.int32),
    }

    def slow(op, work, m):
        by_row, by_column = np.zeros((2, 3)), np.zeros((3, 4))
        for matrix, first, cells, weights in ((by_row, starts, rows, u), (by_column, ends, columns, v)):
            for r in range(len(matrix)):
                for i in range(first[r], first[r + 1]):
                    matrix[r, cells[i]] += weights[i]
        for line in m.frames[1:]:
            x = as_map(line, 3, 21, 5, 3, 4, 5).astype(np.float64)
            as_map(line, 80, 22, 7, 2, 3, 5)[:] = np.einsum("ri,cj,ijn->rcn", by_row, by_column, x)

    return Case(resample.resample(L), op, arrays, slow, {"first": 1})


# Pooling that keeps numbers of cells: 3 x 4 cells, 2 x 3 windows of 5 channels; one column of windows reads nothing

CELLS = ([0, 2, 3], [0, 2, 1], [0, 2, 2, 4], [1, 3, 0, 3])


def selection(places):
    """The operands, and memory whose places name such cells."""
    starts, rows, ends, columns = CELLS
    offsets = [21 * i + 5 * j for i in range(3) for j in range(4)]
    op = select.SELECT.make(
        x=3, x_down=21, y=80, y_down=16, rows=2, columns=3, channels=5, places=120, row_starts=1, row_cells=4,
        column_starts=7, column_cells=11, offsets=15, map_rows=3, map_columns=4, map_length=20,
    )  # fmt: skip
    tables = np.array([-1, *starts, *rows, *ends, *columns, *offsets, -1], dtype=np.int32)
    arrays = {"frames": whole(IMAGES, 160), "tables": tables, "scratch": np.full(60, -1, dtype=np.int32)}
    arrays["frames"][:, 120:150] = np.random.default_rng(3).choice(places, (IMAGES, 30))
    return op, arrays


@case((4,), (8,))
def select_pool_case(L):
    op, arrays = selection([0])
    arrays["frames"][0, 3 + 5] = arrays["frames"][0, 3 + 2 * 21 + 15] = np.nan  # the first of them counts
    starts, rows, ends, columns = CELLS

    def slow(op, work, m):
        for line in m.frames:
            x, y = as_map(line, 3, 21, 5, 3, 4, 5), as_map(line, 80, 16, 5, 2, 3, 5)
            places = line[120:150].reshape(2, 3, 5)
            for r, c, n in np.ndindex(2, 3, 5):
                cells = [(i, j) for i in rows[starts[r] : starts[r + 1]] for j in columns[ends[c] : ends[c + 1]]]
                seen = [x[i, j, n] for i, j in cells]
                best = int(np.argmax(seen)) if cells else -1  # the first of the largest, or the first NaN
                y[r, c, n] = seen[best] if cells else -np.inf
                places[r, c, n] = cells[best][0] * 4 + cells[best][1] if cells else -1

    return Case(select.select_pool(L), op, arrays, slow)


@case()
def select_pool_gradient_case():
    op, arrays = selection([-1, 0, 3, 7, 11])

    def slow(op, work, m):
        for line in m.frames:
            dx, dy = as_map(line, 3, 21, 5, 3, 4, 5), as_map(line, 80, 16, 5, 2, 3, 5)
            dx[:] = 0
            for (r, c, n), place in np.ndenumerate(line[120:150].reshape(2, 3, 5).astype(int)):
                if place >= 0:
                    dx[place // 4, place % 4, n] += dy[r, c, n]

    return Case(select.select_pool_gradient(), op, arrays, slow)


@case()
def unpool_case():
    op, arrays = selection([0, 3, 7, 11])

    def slow(op, work, m):
        for line in m.frames:
            y, x = as_map(line, 3, 21, 5, 3, 4, 5), as_map(line, 80, 16, 5, 2, 3, 5)
            y[:] = 0
            for (r, c, n), place in np.ndenumerate(line[120:150].reshape(2, 3, 5).astype(int)):
                y[place // 4, place % 4, n] = x[r, c, n]

    return Case(select.unpool(), op, arrays, slow)


@case()
def unpool_gradient_case():
    op, arrays = selection([0, 3, 7, 11])

    def slow(op, work, m):
        for line in m.frames:
            dy, dx = as_map(line, 3, 21, 5, 3, 4, 5), as_map(line, 80, 16, 5, 2, 3, 5)
            last = {}
            places = line[120:150].reshape(2, 3, 5).astype(int)
            for (r, c, n), place in np.ndenumerate(places):
                last[place, n] = (r, c)
            for (r, c, n), place in np.ndenumerate(places):
                dx[r, c, n] = dy[place // 4, place % 4, n] if last[place, n] == (r, c) else 0

    return Case(select.unpool_gradient(), op, arrays, slow, free=("scratch",))


# Normalization of sets: two groups of 5 channels, 3 rows and 2 columns; three sets of 7 numbers


@case((4, True), (8, True), (4, False), (16, False))
def group_norm_case(L, maps):
    return sets_at_work(group_norm.group_norm(L), maps)


@case((4, True), (8, True), (4, False), (16, False))
def group_norm_gradient_case(L, maps):
    return sets_at_work(group_norm.group_norm_gradient(L), maps)


def sets_at_work(kernel, maps):
    rows, columns, sets, run, length = (3, 2, 2, 5, 10) if maps else (1, 1, 3, 7, 7)
    right, step = sets * run, 5 if maps else 0
    op = group_norm.GROUP_NORM.make(
        x=3, x_down=21, y=80, y_down=22, dy=160, dy_down=23, dx=240, dx_down=24, rows=rows, columns=columns,
        right=right, sets=sets, set_step=run, run=run, weight=2, bias=15, weight_step=step, length=length,
        statistics=320, sums=330, eps=1e-2,
    )  # fmt: skip
    arrays = {
        "frames": randn(IMAGES, 360),
        "weights": randn(50, seed=2),
        "scratch": np.full(2 * 16, np.nan, dtype=np.float32),
    }
    arrays["frames"][:, 320 : 320 + 2 * sets] = np.abs(arrays["frames"][:, 320 : 320 + 2 * sets])

    def slow(op, work, m):
        weight, bias = (m.weights[start : start + length].astype(np.float64) for start in (2, 15))
        for line in m.frames[work.first :]:
            x, dy = (
                as_map(line, start, down, right, rows, columns, right).reshape(rows, columns, sets, run).astype(float)
                for start, down in ((3, 21), (160, 23))
            )
            w, b = weight.reshape(-1, run), bias.reshape(-1, run)  # of each set, or the same for all
            statistics, axes = line[320 : 320 + 2 * sets].reshape(sets, 2), (0, 1, 3)
            if "gradient" in kernel.name:
                c = (x - statistics[:, :1]) * statistics[:, 1:]
                d = dy * w
                parts = [(dy * c).sum(axis=(0, 1)), dy.sum(axis=(0, 1))]
                parts = [part.ravel() if maps else part.sum(axis=0) for part in parts]
                line[330 : 330 + 2 * length] = np.concatenate(parts)
                d = d - d.mean(axis=axes, keepdims=True) - c * (d * c).mean(axis=axes, keepdims=True)
                as_map(line, 240, 24, right, rows, columns, right)[:] = (statistics[:, 1:] * d).reshape(
                    rows, columns, right
                )
            else:
                mean, inverse = x.mean(axis=axes), 1 / np.sqrt(x.var(axis=axes) + 1e-2)
                statistics[:] = np.stack([mean, inverse], axis=1)
                y = (x - mean[:, None]) * inverse[:, None] * w + b
                as_map(line, 80, 22, right, rows, columns, right)[:] = y.reshape(rows, columns, right)

    return Case(kernel, op, arrays, slow, {"first": 1}, free=("scratch",))


# Edges: maps of 3 rows, 2 columns, 4 channels


@case((0,), (1,))
def read_images_case(ordered):
    op = edges.EDGE.make(map=3, down=9, rows=3, columns=2, channels=4)
    images, order = randn(6, 4, 3, 2), np.array([5, 0, 3, 4, 1, 2], dtype=np.int64)
    arrays = {"frames": randn(IMAGES, 40, seed=2), "images": images} | ({"order": order} if ordered else {})

    def slow(op, work, m):
        for image in range(1, IMAGES):
            sample = order[2 + image] if ordered else 2 + image
            as_map(m.frames[image], 3, 9, 4, 3, 2, 4)[:] = images[sample].transpose(1, 2, 0)

    return Case(edges.read_images(), op, arrays, slow, {"first": 1, "sample": 2})


@case()
def write_outputs_case():
    op = edges.EDGE.make(map=3, down=9, rows=3, columns=2, channels=4)
    arrays = {"frames": randn(IMAGES, 40), "outputs": randn(6, 4, 3, 2, seed=2)}

    def slow(op, work, m):
        for image in range(1, IMAGES):
            m.outputs[2 + image] = as_map(m.frames[image], 3, 9, 4, 3, 2, 4).transpose(2, 0, 1)

    return Case(edges.write_outputs(), op, arrays, slow, {"first": 1, "sample": 2})


@case((False,), (True,))
def reorder_case(back):
    op = edges.REORDER.make(map=3, down=9, rows=3, columns=2, channels=4, vector=40)

    def slow(op, work, m):
        for line in m.frames:
            maps, vector = as_map(line, 3, 9, 4, 3, 2, 4), line[40:64].reshape(4, 3, 2)
            if back:
                maps[:] = vector.transpose(1, 2, 0)
            else:
                vector[:] = maps.transpose(2, 0, 1)

    return Case(edges.reorder(back), op, {"frames": randn(IMAGES, 70)}, slow)


# Softmax and losses


@case(("softmax",), ("softmax_gradient",), ("log_softmax",), ("log_softmax_gradient",))
def softmax_case(name):
    """Along the channels of a map of 2 rows, 3 columns, 5 channels."""
    op = losses.SOFTMAX.make(
        x=3, y=40, size=5, outer=2, inner=3, x_step=1, x_outer=16, x_inner=5, y_step=6, y_outer=30, y_inner=1
    )

    def slow(op, work, m):
        for line in m.frames:
            x = as_map(line, 3, 16, 5, 2, 3, 5)
            y = np.lib.stride_tricks.as_strided(line[40:], (2, 3, 5), (120, 4, 24))
            if name == "softmax":
                y[:] = np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum(axis=-1, keepdims=True)
            elif name == "log_softmax":
                y[:] = x - np.log(np.exp(x.astype(np.float64)).sum(axis=-1, keepdims=True))
            elif name == "log_softmax_gradient":
                x[:] = x - np.exp(y.astype(np.float64)) * x.sum(axis=-1, keepdims=True)
            else:
                x[:] = y * (x - (x * y).sum(axis=-1, keepdims=True))

    return Case(getattr(losses, name)(), op, {"frames": randn(IMAGES, 110)}, slow)


def loss_arrays(targets):
    return {
        "frames": randn(IMAGES, 90),
        "targets": targets,
        "order": np.array([5, 0, 3, 4, 1, 2], dtype=np.int64),
        "losses": np.full(IMAGES, -1.0),
        "hits": np.full(IMAGES, -1, dtype=np.int64),
        "buffers": np.abs(randn(12, seed=3)),
    }


@case((1, 0.0), (1, 0.2), (0, 0.1))
def cross_entropy_case(labels, smoothing):
    classes = 5
    op = losses.LOSS.make(
        x=3, x_down=0, dx=20, dx_down=0, rows=1, columns=1, channels=classes, labels=labels, class_weights=2,
        weights=0, positive=0, smoothing=smoothing, bend=1,
    )  # fmt: skip
    shares = np.abs(randn(6, classes, seed=5))
    targets = np.array([0, 4, 2, 1, 3, 2], dtype=np.int64) if labels else shares

    def slow(op, work, m):
        weights = m.buffers[2 : 2 + classes].astype(np.float64)
        for image in range(IMAGES):
            target, x = targets[m.order[2 + image]], m.frames[image, 3 : 3 + classes].astype(np.float64)
            share = np.eye(classes)[target] if labels else target
            q = weights * ((1 - smoothing) * share + smoothing / classes)
            p = np.exp(x) / np.exp(x).sum()
            m.losses[image] = -(q * np.log(p)).sum()
            m.frames[image, 20 : 20 + classes] = (p * q.sum() - q) / 7
            m.hits[image] = labels and x.argmax() == target

    arrays = loss_arrays(targets) | {"scratch": np.full(classes, np.nan)}
    arrays["targets"] = targets
    for image, sample in enumerate((3, 4, 1)):
        if labels and image:  # two of three are right
            arrays["frames"][image, 3 + targets[sample]] = 4
    return Case(losses.cross_entropy(), op, arrays, slow, {"sample": 2, "divisor": 7.0}, free=("scratch",))


@case((2,), (6,))
def nll_case(class_weights):
    """The second vector has a weight of 0, whose number may be infinite."""
    classes = 5
    op = losses.LOSS.make(
        x=3, x_down=0, dx=20, dx_down=0, rows=1, columns=1, channels=classes, labels=1, class_weights=class_weights,
        weights=0, positive=0, smoothing=0, bend=1,
    )  # fmt: skip
    arrays = loss_arrays(np.array([0, 4, 2, 1, 3, 2], dtype=np.int64))
    arrays["buffers"][7] = 0
    if class_weights == 6:
        arrays["frames"][0, 4] = -np.inf

    def slow(op, work, m):
        weights = m.buffers[class_weights : class_weights + classes].astype(np.float64)
        for image in range(IMAGES):
            label, x = m.targets[m.order[2 + image]], m.frames[image, 3 : 3 + classes].astype(np.float64)
            m.losses[image] = -weights[label] * x[label] if weights[label] else 0
            m.frames[image, 20 : 20 + classes] = -weights / 7 * (np.arange(classes) == label)
            m.hits[image] = x.argmax() == label

    return Case(losses.nll(), op, arrays, slow, {"sample": 2, "divisor": 7.0})


def huber(d, bend):
    return np.where(np.abs(d) < bend, d * d / 2, bend * (np.abs(d) - bend / 2))


@case(*((name, False) for name in losses.ELEMENTWISE), *((name, True) for name in losses.ELEMENTWISE))
def elementwise_loss_case(name, weighted):
    """Slopes are differences of losses."""
    op = losses.LOSS.make(
        x=3, x_down=9, dx=40, dx_down=10, rows=3, columns=2, channels=4, labels=0, class_weights=0, weights=2,
        positive=30, smoothing=0, bend=0.3,
    )  # fmt: skip
    targets = np.random.default_rng(5).random((6, 4, 3, 2)).astype(np.float32)
    arrays = loss_arrays(targets) | {"buffers": np.abs(randn(60, seed=3))}
    if name == "bce_of_probabilities":
        arrays["frames"] = np.random.default_rng(6).uniform(0.1, 0.9, (IMAGES, 90)).astype(np.float32)
    formulas = {
        "mse": lambda x, t, there: (x - t) ** 2,
        "l1": lambda x, t, there: np.abs(x - t),
        "huber": lambda x, t, there: huber(x - t, 0.3),
        "smooth_l1": lambda x, t, there: huber(x - t, 0.3) / 0.3,
        "bce": lambda x, t, there: -t * np.log(sigmoid(x)) - (1 - t) * np.log(sigmoid(-x)),
        "weighted_bce": lambda x, t, there: -there * t * np.log(sigmoid(x)) - (1 - t) * np.log(sigmoid(-x)),
        "bce_of_probabilities": lambda x, t, there: -t * np.log(x) - (1 - t) * np.log(1 - x),
    }

    def slow(op, work, m):
        weights, there = (m.buffers[start : start + 24].reshape(4, 3, 2).transpose(1, 2, 0) for start in (2, 30))
        weights, there = (weights, there) if weighted else (1, 1)
        for image in range(IMAGES):
            x = as_map(m.frames[image], 3, 9, 4, 3, 2, 4).astype(np.float64)
            t = targets[m.order[2 + image]].transpose(1, 2, 0).astype(np.float64)
            near = [formulas[name](x + d, t, there) * weights for d in (0, 1e-6, -1e-6)]
            m.losses[image], m.hits[image] = near[0].sum(), 0
            as_map(m.frames[image], 40, 10, 4, 3, 2, 4)[:] = (near[1] - near[2]) / 2e-6 / 7

    return Case(losses.elementwise_loss(name, weighted), op, arrays, slow, {"sample": 2, "divisor": 7.0})
