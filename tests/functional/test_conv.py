"""conv2d: integers by hand, SciPy, PyTorch, the adjoint, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.signal import convolve2d, correlate2d

from oracles import EXACT, assert_near, ints, laid_out, layouts, randn, seeds
from pellucid import functional as F
from pellucid.errors import OptionError, ShapeError


@pytest.mark.capability("B3", "B4")
def test_by_hand():
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    w = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert F.conv2d(x, w, np.array([10.0])).tolist() == [[[[37, 47], [67, 77]]]]
    dy = np.array([[[[1.0, 2.0], [3.0, 5.0]]]])
    dx, dw, db = F.conv2d_backward(dy, x, w)
    assert dx.tolist() == [[[[1, 4, 4], [6, 21, 18], [9, 27, 20]]]]
    assert dw.tolist() == [[[[31, 42], [64, 75]]]]
    assert db.tolist() == [11]


def test_stride_padding_and_dilation_by_hand():
    x = np.arange(1.0, 26).reshape(1, 1, 5, 5)
    w = np.array([[[[1.0, 0.0], [0.0, 10.0]]]])
    assert F.conv2d(x, w, stride=(3, 2), padding=(1, 0))[0, 0].tolist() == [[20, 40], [181, 203]]
    assert F.conv2d(x, w, dilation=(3, 4))[0, 0].tolist() == [[201], [256]]
    assert F.conv2d(x, w, padding="same")[0, 0, -1].tolist() == [21, 22, 23, 24, 25]
    assert F.conv2d(x, w, padding="same_lower")[0, 0, 0].tolist() == [10, 20, 30, 40, 50]


def test_groups_by_hand():
    x = np.stack([np.full((2, 2), 1.0), np.full((2, 2), 10.0)])[None]
    w = np.array([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1, 1)
    assert F.conv2d(x, w, groups=2)[0, :, 0, 0].tolist() == [1, 2, 30, 40]


@pytest.mark.capability("B2", "B3")
@pytest.mark.parametrize(
    ("shape", "filters", "kernel", "options", "expected"),
    [
        ((8, 3, 28, 28), 16, (5, 5), {}, (8, 16, 24, 24)),
        ((8, 3, 28, 28), 16, (5, 5), {"padding": "same"}, (8, 16, 28, 28)),
        ((8, 3, 28, 28), 16, (2, 2), {"stride": 2}, (8, 16, 14, 14)),
        ((8, 3, 28, 28), 8, (3, 3), {"dilation": 2}, (8, 8, 24, 24)),
        ((1, 1, 28, 28), 1, (2, 4), {"stride": 2, "padding": 1}, (1, 1, 15, 14)),
        ((1, 1, 28, 28), 1, (3, 3), {"padding": "valid"}, (1, 1, 26, 26)),
        ((1, 1, 28, 28), 1, (3, 3), {"padding": 1}, (1, 1, 28, 28)),
    ],
)
def test_shapes(shape, filters, kernel, options, expected):
    assert F.conv2d(np.zeros(shape), np.zeros((filters, shape[1], *kernel)), **options).shape == expected


@pytest.mark.capability("B6")
def test_filters_stack_without_a_stray_axis():
    x, w = randn(0, 1, 3, 7, 6), randn(1, 5, 3, 3, 2)
    y = F.conv2d(x, w)
    assert y.shape == (1, 5, 5, 5)
    assert y[0].shape == (5, 5, 5)
    for f in range(5):
        assert_near(y[:, f], F.conv2d(x, w[f : f + 1])[:, 0], 1e-12)


@pytest.mark.capability("B1", "B4")
@given(seeds, ints(1, 3), ints(1, 3), ints(0, 4))
def test_equals_scipy(seed, stride, kernel, extra):
    h, w = kernel[0] + extra[0], kernel[1] + extra[1]
    x, weight = randn(seed, 2, 3, h, w), randn(seed + 1, 4, 3, *kernel)
    y = F.conv2d(x, weight, stride=stride)
    for n in range(2):
        for o in range(4):
            whole = sum(correlate2d(x[n, c], weight[o, c], "valid") for c in range(3))
            assert_near(y[n, o], whole[:: stride[0], :: stride[1]], 1e-12)


@pytest.mark.capability("B4")
def test_gradients_are_the_formulas():
    """dx = rot180(W) * dy in full, dW = x * dy, db = sum dy; with stride 2, dy is spread out by zeros."""
    x, weight = randn(0, 2, 3, 9, 8), randn(1, 4, 3, 3, 2)
    dy = randn(2, 2, 4, 4, 4)
    dx, dw, db = F.conv2d_backward(dy, x, weight, stride=2)
    spread = np.zeros((2, 4, 7, 7))
    spread[:, :, ::2, ::2] = dy
    for c in range(3):
        for n in range(2):
            expected = sum(convolve2d(spread[n, o], weight[o, c], "full") for o in range(4))
            assert_near(dx[n, c], expected, 1e-12)
        for o in range(4):
            expected = sum(correlate2d(x[n, c], spread[n, o], "valid") for n in range(2))
            assert_near(dw[o, c], expected, 1e-12)
    assert_near(db, dy.sum((0, 2, 3)), 1e-14)


@st.composite
def cases(draw):
    """Arrays and options of a convolution that fits."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel, stride, padding = draw(ints(1, 4)), draw(ints(1, 3)), draw(ints(0, 3))
    dilation = draw(ints(1, 3))
    size = []
    for k, p, d in zip(kernel, padding, dilation, strict=True):
        size.append(max(1, d * (k - 1) + 1 - 2 * p + draw(st.integers(0, 5))))
    n, c, o = draw(st.integers(1, 3)), groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3))
    seed, bias = draw(seeds), draw(st.booleans())
    x, weight = randn(seed, n, c, *size), randn(seed + 1, o, c // groups, *kernel)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return x, weight, randn(seed + 2, o) if bias else None, options


def compare(torch, x, weight, bias, options, dtype="float64", layout="C", reference=None):
    """Forward and all gradients against PyTorch in float64, for a random incoming gradient."""
    leaves = [torch.tensor(np.ascontiguousarray(a), requires_grad=True) for a in (x, weight)]
    tbias = None if bias is None else torch.tensor(bias, requires_grad=True)
    expected = (reference or torch.nn.functional.conv2d)(*leaves, tbias, **options)
    dy = randn(7, *expected.shape)
    expected.backward(torch.tensor(dy))
    rel = EXACT[dtype]
    x, weight, dy = (laid_out(a.astype(dtype), layout) for a in (x, weight, dy))
    y = F.conv2d(x, weight, None if bias is None else bias.astype(dtype), **options)
    dx, dweight, dbias = F.conv2d_backward(dy, x, weight, **options)
    assert {a.dtype.name for a in (y, dx, dweight, dbias)} == {dtype}
    assert_near(y, expected, rel, "y")
    assert_near(dx, leaves[0].grad, rel, "dx")
    assert_near(dweight, leaves[1].grad, rel, "dweight")
    if bias is not None:
        assert_near(dbias, tbias.grad, rel, "dbias")


@pytest.mark.capability("B1", "B4", "C14")
@pytest.mark.parametrize("dtype", EXACT)
@given(case=cases(), layout=layouts)
def test_equals_torch(torch, dtype, case, layout):
    compare(torch, *case, dtype, layout)


@pytest.mark.capability("B1", "B4")
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_equals_torch(torch, dtype, multiplier):
    weight = randn(1, 4 * multiplier, 1, 3, 2)
    compare(torch, randn(0, 3, 4, 8, 7), weight, None, {"stride": (2, 1), "padding": (1, 0), "groups": 4}, dtype)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1)])
def test_maps_of_one_cell(torch, size):
    compare(torch, randn(0, 1, 2, *size), randn(1, 3, 2, 3, 3), randn(2, 3), {"padding": 1, "stride": 2})


@pytest.mark.capability("B2")
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@given(seeds, ints(1, 5), ints(1, 3), ints(1, 9))
@example(0, (2, 4), (1, 1), (5, 6))
def test_same_equals_torch(torch, seed, kernel, dilation, size):
    options = {"padding": "same", "dilation": dilation}
    compare(torch, randn(seed, 2, 2, *size), randn(seed + 1, 3, 2, *kernel), randn(seed + 2, 3), options)


@pytest.mark.capability("B2")
@pytest.mark.parametrize("name", ["same_upper", "same_lower"])
@given(seed=seeds, kernel=ints(1, 5), stride=ints(1, 4), dilation=ints(1, 2), size=ints(1, 9))
def test_same_by_name_takes_any_stride(torch, name, seed, kernel, stride, dilation, size):
    """Ceil(n / s) outputs; total padding max((ceil(n / s) - 1) s + d (k - 1) + 1 - n, 0)."""
    around = []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        sides = [total // 2, total - total // 2]
        around = [*(sides if name == "same_upper" else sides[::-1]), *around]

    def reference(x, weight, bias, padding, **options):
        padded = torch.nn.functional.pad(x, around)
        return torch.nn.functional.conv2d(padded, weight, bias, **options)

    x, weight = randn(seed, 2, 2, *size), randn(seed + 1, 3, 2, *kernel)
    options = {"padding": name, "stride": stride, "dilation": dilation}
    compare(torch, x, weight, None, options, reference=reference)
    y = F.conv2d(x, weight, **options)
    assert y.shape[2:] == tuple(-(-n // s) for n, s in zip(size, stride, strict=True))


@pytest.mark.capability("B4")
@given(cases())
def test_adjoint(case):
    """<A x, y> = <x, A^T y>, for the data and for the weights."""
    x, weight, _, options = case
    ax = F.conv2d(x, weight, **options)
    y = randn(3, *ax.shape)
    dx, dweight, _ = F.conv2d_backward(y, x, weight, **options)
    left, size = float((ax * y).sum()), float(np.linalg.norm(ax) * np.linalg.norm(y)) + 1e-300
    assert abs(left - float((x * dx).sum())) <= 1e-12 * size
    assert abs(left - float((weight * dweight).sum())) <= 1e-12 * size


@pytest.mark.capability("C8")
def test_empty_batch():
    x, weight = np.zeros((0, 4, 5, 6)), randn(0, 6, 2, 3, 3)
    assert F.conv2d(x, weight, groups=2).shape == (0, 6, 3, 4)
    dx, dweight, dbias = F.conv2d_backward(np.zeros((0, 6, 3, 4)), x, weight, groups=2)
    assert dx.shape == x.shape
    assert not dweight.any()
    assert not dbias.any()
    assert dweight.shape == weight.shape


def test_an_image_with_nan_leaves_the_others_alone():
    x, weight = randn(0, 3, 2, 5, 5), randn(1, 3, 2, 3, 3)
    clean = F.conv2d(x, weight)
    x[1, 0, 0, 0] = np.nan
    y = F.conv2d(x, weight)
    assert np.array_equal(y[[0, 2]], clean[[0, 2]])
    assert np.isnan(y[1, :, 0, 0]).all()
    assert np.isfinite(y[1, :, 1:, 1:]).all()


def test_inputs_stay_as_they_are():
    arrays = [randn(i, *shape) for i, shape in enumerate([(2, 2, 5, 4), (3, 2, 2, 2), (3,), (2, 3, 6, 5)])]
    before = [a.copy() for a in arrays]
    x, weight, bias, dy = arrays
    F.conv2d(x, weight, bias, padding=1)
    F.conv2d_backward(dy, x, weight, padding=1)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


X, W = np.zeros((2, 3, 6, 6)), np.zeros((4, 3, 3, 3))


@pytest.mark.capability("B1", "B2")
@pytest.mark.parametrize(
    ("x", "weight", "options", "error", "match"),
    [
        (X[0], W, {}, ShapeError, r"x must have the axes N x C x H x W, got shape \(3, 6, 6\); .* use x\[None\]"),
        (X, W[0], {}, ShapeError, r"weight must have the axes out x in/groups x kh x kw"),
        (X.astype(int), W, {}, OptionError, r'x must be float32 or float64, got int64; use x.astype\("float32"\)'),
        (X.astype(np.uint8), W, {}, OptionError, "got uint8"),
        (X.astype(np.float16), W, {}, OptionError, "x must be float32 or float64, got float16"),
        (X, W.astype(int), {}, OptionError, "weight must be float32 or float64"),
        (X[:, :2], W, {}, ShapeError, r"takes 3 channels, but x \(2, 2, 6, 6\) has 2"),
        (X, W, {"groups": 3}, ShapeError, "groups=3 takes 9 channels"),
        (X, W[:, :1], {"groups": 3}, OptionError, "groups=3 must divide the 4 output channels"),
        (X, W, {"groups": 0}, OptionError, "groups must be at least 1, got 0"),
        (X, W, {"bias": np.zeros(3)}, ShapeError, r"bias must have shape \(4,\), one number per filter, got \(3,\)"),
        (X, W, {"bias": np.zeros((4, 1))}, ShapeError, "bias must have shape"),
        (X, W, {"stride": 0}, OptionError, "stride must be at least 1, got 0"),
        (X, W, {"stride": 1.5}, OptionError, "stride must be a whole number, got 1.5"),
        (X, W, {"stride": (1, 2, 3)}, OptionError, r"stride must be a number or a pair \(height, width\)"),
        (X, W, {"stride": True}, OptionError, "stride must be a whole number"),
        (X, W, {"padding": -1}, OptionError, "padding must be at least 0, got -1"),
        (X, W, {"padding": "sam"}, OptionError, 'unknown padding "sam"; did you mean "same"'),
        (X, W, {"padding": "same", "stride": 2}, OptionError, '"same_upper" and "same_lower" take any stride'),
        (X, W, {"dilation": 0}, OptionError, "dilation must be at least 1"),
        (X[:, :, :2], W, {}, ShapeError, "height 3 does not fit into 2 cells with 0 of padding; use padding 1"),
        (X[..., :1], W, {}, ShapeError, "width 3 does not fit into 1 cells .* or a kernel of at most 1"),
        (X, W, {"dilation": 3}, ShapeError, "height 7 does not fit into 6 cells .* kernel of at most 2"),
    ],
)
def test_refusals(x, weight, options, error, match):
    with pytest.raises(error, match=match):
        F.conv2d(x, weight, **options)


def test_dy_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match=r"dy must have the output's shape \(2, 4, 4, 4\), got \(2, 4, 4, 3\)"):
        F.conv2d_backward(np.zeros((2, 4, 4, 3)), X, W)
