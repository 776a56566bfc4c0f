"""Pooling: integers by hand, PyTorch with ties, NaN, infinities and every edge, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles import EXACT, assert_near, ints, laid_out, layouts, randn, seeds
from pellucid import functional as F
from pellucid.errors import OptionError, ShapeError

INF, NAN = np.inf, np.nan


def maps(*rows):
    return np.array(rows, dtype=float)[None, None]


@pytest.mark.capability("B8", "B11")
def test_by_hand():
    x = maps([2, 3], [5, 6])
    assert F.max_pool2d(x, 2).tolist() == [[[[6]]]]
    assert F.avg_pool2d(x, 2).tolist() == [[[[4.0]]]]
    assert F.adaptive_avg_pool2d(x, 1).tolist() == [[[[4.0]]]]
    assert F.max_pool2d(np.zeros((1, 1, 10, 10)), 2).shape == (1, 1, 5, 5)


X1 = "913402 258163 072211 436590 117035 824421"
X2 = "491836 032715 526082 713449 682350 357144"


@pytest.mark.capability("B13")
def test_two_inputs_that_differ_everywhere_have_one_pooled_map():
    a, b = (np.array([[int(c) for c in row] for row in text.split()], dtype=float)[None, None] for text in (X1, X2))
    assert (a != b).all()
    assert F.max_pool2d(a, 2)[0, 0].tolist() == [[9, 8, 6], [7, 6, 9], [8, 7, 5]]
    assert np.array_equal(F.max_pool2d(a, 2), F.max_pool2d(b, 2))
    assert [F.avg_pool2d(m, 2)[0, 0, 0, 0] for m in (a, b)] == [4.25, 4.0]


@pytest.mark.capability("B9")
def test_the_first_maximum_gets_all_of_dy():
    x = maps([1, 1, 0, 7], [1, 1, 7, 7])
    assert F.max_pool2d_backward(maps([5, -3]), x, 2).tolist() == [[[[5, 0, 0, -3], [0, 0, 0, 0]]]]


@pytest.mark.capability("B9", "B12")
def test_overlapping_windows_add():
    x = maps([0, 0, 0], [0, 9, 0], [0, 0, 0])
    dx = F.max_pool2d_backward(maps([1, 2], [4, 8]), x, 2, 1)
    assert dx.tolist() == [[[[0, 0, 0], [0, 15, 0], [0, 0, 0]]]]


@pytest.mark.capability("B10", "B12")
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2)])
def test_odd_sizes(kernel, stride):
    """13 gives 6 both ways; what no window covers gets gradient zero."""
    x = randn(0, 2, 3, 13, 13)
    assert F.max_pool2d(x, kernel, stride).shape == (2, 3, 6, 6)
    dx = F.max_pool2d_backward(randn(1, 2, 3, 6, 6), x, kernel, stride)
    assert dx.shape == x.shape
    edge = 12 if kernel == 2 else 13
    assert not dx[:, :, edge:].any()
    assert not dx[..., edge:].any()
    assert dx[:, :, :edge].any()


@pytest.mark.capability("B10")
def test_ceil_mode_keeps_the_edge():
    x = np.arange(25.0).reshape(1, 1, 5, 5)
    assert F.max_pool2d(x, 2)[0, 0].tolist() == [[6, 8], [16, 18]]
    assert F.max_pool2d(x, 2, ceil_mode=True)[0, 0].tolist() == [[6, 8, 9], [16, 18, 19], [21, 23, 24]]
    assert F.avg_pool2d(x, 2, ceil_mode=True)[0, 0].tolist() == [[3, 5, 6.5], [13, 15, 16.5], [20.5, 22.5, 24]]


@pytest.mark.capability("B8")
def test_max_pool_pads_with_minus_infinity():
    assert F.max_pool2d(-np.ones((1, 1, 2, 2)), 3, padding=1).tolist() == [[[[-1]]]]


@pytest.mark.capability("B11")
def test_avg_pool_counts_padding():
    assert F.avg_pool2d(np.full((1, 1, 2, 2), 8.0), 2, padding=1).tolist() == [[[[2, 2], [2, 2]]]]


@pytest.mark.capability("B8")
def test_nan_stays():
    x = maps([1, NAN, 3, 4], [5, 6, 7, 8])
    y = F.max_pool2d(x, 2)
    assert np.isnan(y[0, 0, 0, 0])
    assert y[0, 0, 0, 1] == 8
    assert F.max_pool2d_backward(maps([2, 3]), x, 2).tolist() == [[[[0, 2, 0, 0], [0, 0, 0, 3]]]]


def test_infinities():
    x = maps([-INF, -INF, INF, 1], [-INF, -INF, 1, INF])
    assert F.max_pool2d(x, 2).tolist() == [[[[-INF, INF]]]]
    assert F.max_pool2d_backward(maps([2, 3]), x, 2).tolist() == [[[[2, 0, 3, 0], [0, 0, 0, 0]]]]


def test_a_window_of_minus_infinity_in_the_padding(torch):
    """Its gradient goes to a real cell, not to the padding."""
    x, dy = np.full((1, 1, 3, 3), -INF), randn(0, 1, 1, 2, 2)
    leaf = torch.tensor(x, requires_grad=True)
    torch.nn.functional.max_pool2d(leaf, 3, 2, 1).backward(torch.tensor(dy))
    dx = F.max_pool2d_backward(dy, x, 3, 2, 1)
    assert np.array_equal(dx, leaf.grad.numpy())
    assert dx.sum() == pytest.approx(dy.sum())


@st.composite
def windows(draw):
    """Size of the maps and options of a pooling that fits."""
    kernel, stride, ceil_mode = draw(ints(1, 4)), draw(st.none() | ints(1, 4)), draw(st.booleans())
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    size = tuple(max(1, k - 2 * p + draw(st.integers(0, 7))) for k, p in zip(kernel, padding, strict=True))
    return size, {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}


def compare(torch, name, x, options, dtype, layout):
    leaf = torch.tensor(x, requires_grad=True)
    expected = getattr(torch.nn.functional, name)(leaf, **options)
    dy = randn(5, *expected.shape)
    expected.backward(torch.tensor(dy))
    x, dy = laid_out(x.astype(dtype), layout), laid_out(dy.astype(dtype), layout)
    y, dx = getattr(F, name)(x, **options), getattr(F, f"{name}_backward")(dy, x, **options)
    assert y.dtype == dx.dtype == dtype
    assert_near(y, expected, EXACT[dtype], "y")
    assert_near(dx, leaf.grad, EXACT[dtype], "dx")


@pytest.mark.capability("B8", "B9", "B10", "B12", "C14")
@pytest.mark.parametrize("dtype", EXACT)
@given(seeds, windows(), st.booleans(), layouts)
def test_max_pool_equals_torch(torch, dtype, seed, window, ties, layout):
    size, options = window
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, (2, 3, *size)).astype(float) if ties else randn(seed, 2, 3, *size)
    compare(torch, "max_pool2d", x.astype(dtype).astype("float64"), options, dtype, layout)


@pytest.mark.capability("B11", "C14")
@pytest.mark.parametrize("dtype", EXACT)
@given(seeds, windows(), layouts)
def test_avg_pool_equals_torch(torch, dtype, seed, window, layout):
    size, options = window
    compare(torch, "avg_pool2d", randn(seed, 2, 3, *size), options, dtype, layout)


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 1)])
def test_a_window_larger_than_the_map_in_ceil_mode(torch, name, size):
    options = {"kernel_size": 3, "stride": 3, "padding": 0, "ceil_mode": True}
    compare(torch, name, randn(0, 1, 2, *size), options, "float64", "C")


@pytest.mark.parametrize("dtype", EXACT)
@given(seeds, ints(1, 9), ints(1, 9), layouts)
def test_adaptive_avg_pool_equals_torch(torch, dtype, seed, size, out, layout):
    """Uneven sizes too, and more cells than the input has."""
    compare(torch, "adaptive_avg_pool2d", randn(seed, 2, 3, *size), {"output_size": out}, dtype, layout)


@pytest.mark.parametrize("out", [3, (None, 2), (4, None)])
def test_adaptive_sizes_as_torch_takes_them(torch, out):
    compare(torch, "adaptive_avg_pool2d", randn(0, 2, 2, 5, 7), {"output_size": out}, "float64", "C")


@given(seeds, windows())
def test_avg_pool_is_linear(seed, window):
    """<A x, y> = <x, A^T y>."""
    size, options = window
    x = randn(seed, 2, 3, *size)
    ax = F.avg_pool2d(x, **options)
    y = randn(seed + 1, *ax.shape)
    off = (ax * y).sum() - (x * F.avg_pool2d_backward(y, x, **options)).sum()
    assert abs(off) <= 1e-12 * np.linalg.norm(ax) * np.linalg.norm(y)


@given(seeds, windows())
def test_each_dy_arrives_once(seed, window):
    """In max-pooling every dy goes to exactly one cell, so that the sums agree."""
    size, options = window
    x = np.random.default_rng(seed).integers(0, 2, (2, 3, *size)).astype(float)
    dy = np.random.default_rng(seed + 1).integers(1, 9, F.max_pool2d(x, **options).shape).astype(float)
    assert F.max_pool2d_backward(dy, x, **options).sum() == dy.sum()


@pytest.mark.capability("C8")
def test_empty_batch():
    x = np.zeros((0, 3, 5, 4))
    for name, options, out in [
        ("max_pool2d", {"kernel_size": 2}, (2, 2)),
        ("avg_pool2d", {"kernel_size": 2}, (2, 2)),
        ("adaptive_avg_pool2d", {"output_size": (1, 3)}, (1, 3)),
    ]:
        y = getattr(F, name)(x, **options)
        assert y.shape == (0, 3, *out)
        assert getattr(F, f"{name}_backward")(y, x, **options).shape == x.shape


X = np.zeros((2, 3, 6, 6))


@pytest.mark.capability("B8")
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize(
    ("x", "options", "error", "match"),
    [
        (X[0], {"kernel_size": 2}, ShapeError, r"x must have the axes N x C x H x W, got shape \(3, 6, 6\)"),
        (X.astype(np.uint8), {"kernel_size": 2}, OptionError, "x must be float32 or float64, got uint8"),
        (X, {"kernel_size": 7}, ShapeError, "a window of height 7 does not fit into 6 cells"),
        (X, {"kernel_size": (2, 7)}, ShapeError, "a window of width 7 does not fit into 6 cells"),
        (X, {"kernel_size": 0}, OptionError, "kernel_size must be at least 1, got 0"),
        (X, {"kernel_size": 2.0}, OptionError, "kernel_size must be a whole number"),
        (X, {"kernel_size": 2, "stride": 0}, OptionError, "stride must be at least 1"),
        (X, {"kernel_size": 2, "padding": 2}, OptionError, r"padding \(2, 2\) must be at most half of kernel_size"),
        (X, {"kernel_size": (3, 2), "padding": (1, 2)}, OptionError, "must be at most half"),
        (X, {"kernel_size": 2, "padding": -1}, OptionError, "padding must be at least 0"),
    ],
)
def test_refusals(name, x, options, error, match):
    with pytest.raises(error, match=match):
        getattr(F, name)(x, **options)


@pytest.mark.parametrize(
    ("out", "match"),
    [(0, "output_size must be at least 1"), ((1, 2, 3), "must be a number or a pair"), (1.5, "whole number")],
)
def test_adaptive_refusals(out, match):
    with pytest.raises(OptionError, match=match):
        F.adaptive_avg_pool2d(X, out)
    with pytest.raises(ShapeError, match="x must have the axes"):
        F.adaptive_avg_pool2d(X[0], 1)


def test_dy_of_another_shape_is_refused():
    for name, size in (("max_pool2d", 2), ("avg_pool2d", 2), ("adaptive_avg_pool2d", 3)):
        with pytest.raises(ShapeError, match=r"dy must have the output's shape \(2, 3, 3, 3\)"):
            getattr(F, f"{name}_backward")(np.zeros((2, 3, 3, 1)), X, size)
