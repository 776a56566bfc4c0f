"""The dense layer's arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles import EXACT, assert_near, laid_out, layouts, randn, seeds
from pellucid import functional as F
from pellucid.errors import OptionError, ShapeError


@pytest.mark.capability("B17")
def test_by_hand():
    x, w, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0], [7.0, 8.0], [9.0, 1.0]]), np.array([1.0, 2, 3])
    assert F.linear(x, w, b).tolist() == [[18, 25, 14], [40, 55, 34]]
    dx, dw, db = F.linear_backward(np.array([[1.0, 0, 2], [0, 3, 1]]), x, w)
    assert dx.tolist() == [[23, 8], [30, 25]]
    assert dw.tolist() == [[1, 2], [9, 12], [5, 8]]
    assert db.tolist() == [1, 3, 3]


@pytest.mark.capability("B17", "C14")
@pytest.mark.parametrize("dtype", EXACT)
@given(seeds, st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 6), st.integers(1, 6), layouts)
def test_equals_torch(torch, dtype, seed, batch, inputs, outputs, layout):
    x, w, b = randn(seed, *batch, inputs), randn(seed + 1, outputs, inputs), randn(seed + 2, outputs)
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
    expected = torch.nn.functional.linear(*leaves)
    dy = randn(seed + 3, *expected.shape)
    expected.backward(torch.tensor(dy))
    x, w, dy = (laid_out(a.astype(dtype), layout) for a in (x, w, dy))
    results = [F.linear(x, w, b.astype(dtype)), *F.linear_backward(dy, x, w)]
    for name, actual, wanted in zip(
        ("y", "dx", "dw", "db"), results, (expected, *(a.grad for a in leaves)), strict=True
    ):
        assert actual.dtype == dtype
        assert_near(actual, wanted, EXACT[dtype], name, size=1)


@pytest.mark.capability("C8")
def test_empty_batch():
    x, w = np.zeros((0, 3)), randn(0, 2, 3)
    assert F.linear(x, w).shape == (0, 2)
    dx, dw, db = F.linear_backward(np.zeros((0, 2)), x, w)
    assert dx.shape == (0, 3)
    assert dw.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert db.tolist() == [0, 0]


@given(seeds)
def test_adjoint(seed):
    x, w, y = randn(seed, 4, 5), randn(seed + 1, 3, 5), randn(seed + 2, 4, 3)
    dx, dw, _ = F.linear_backward(y, x, w)
    left = (F.linear(x, w) * y).sum()
    bound = 1e-12 * np.linalg.norm(x) * np.linalg.norm(w) * np.linalg.norm(y)
    assert abs(left - (x * dx).sum()) <= bound
    assert abs(left - (w * dw).sum()) <= bound


X, W = np.zeros((2, 3)), np.zeros((4, 3))


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((X, W[:, :2]), ShapeError, r"x \(2, 3\) must end with the 2 input features of weight \(4, 2\)"),
        ((X, W[0]), ShapeError, "must end with the 3 input features"),
        ((X.astype(int), W), OptionError, r'x must be float32 or float64, got int64; use x.astype\("float32"\)'),
        ((X, W, np.zeros(1)), ShapeError, r"bias must have shape \(4,\), one number per output, got \(1,\)"),
    ],
)
def test_refusals(arguments, error, match):
    with pytest.raises(error, match=match):
        F.linear(*arguments)


def test_dy_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match=r"dy must have the output's shape \(2, 4\), got \(4, 2\)"):
        F.linear_backward(np.zeros((4, 2)), X, W)
