"""Activations and the dropout mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles import EXACT, assert_near, laid_out, layouts, randn, seeds
from pellucid import functional as F

INF, NAN = np.inf, np.nan


@pytest.mark.capability("B19")
def test_relu_by_hand():
    x, dy = np.array([-2.0, -0.0, 0.0, 3.0]), np.array([7.0, 7.0, 7.0, -7.0])
    assert F.relu(x).tolist() == [0, 0, 0, 3]
    assert F.relu_backward(dy, x).tolist() == [0, 0, 0, -7]
    assert x.tolist() == [-2, 0, 0, 3]


def test_relu_of_what_is_not_finite():
    x = np.array([NAN, INF, -INF])
    assert np.array_equal(F.relu(x), [NAN, INF, 0], equal_nan=True)
    assert F.relu_backward(np.array([2.0, 3.0, 4.0]), x).tolist() == [2, 3, 0]
    assert np.isnan(F.leaky_relu(x)[0])


@pytest.mark.capability("B20")
def test_softmax_by_hand():
    y = F.softmax(np.array([1.0, 2, 3, 4, 1, 2, 3]))
    assert y.round(4).tolist() == [0.0236, 0.0643, 0.1747, 0.4748, 0.0236, 0.0643, 0.1747]


@pytest.mark.capability("B20")
@pytest.mark.parametrize("dtype", EXACT)
def test_logits_of_1200(dtype):
    x = np.array([[1200.0, 1200.0], [1200.0, -1200.0], [-1200.0, -1200.0]], dtype=dtype)
    assert F.softmax(x).tolist() == [[0.5, 0.5], [1, 0], [0.5, 0.5]]
    assert_near(F.log_softmax(x), [[-np.log(2), -np.log(2)], [0, -2400], [-np.log(2), -np.log(2)]], 1e-7)
    assert F.softmax_backward(np.zeros_like(x), F.softmax(x)).tolist() == [[0, 0]] * 3


@pytest.mark.capability("B20")
@pytest.mark.parametrize("dtype", EXACT)
def test_sigmoid_and_tanh_at_the_ends(dtype):
    x = np.array([-INF, -1e4, 0, 1e4, INF], dtype=dtype)
    assert F.sigmoid(x).tolist() == [0, 0, 0.5, 1, 1]
    assert F.tanh(x).tolist() == [-1, -1, 0, 1, 1]
    assert F.sigmoid_backward(np.ones(5, dtype), F.sigmoid(x)).tolist() == [0, 0, 0.25, 0, 0]


def both(torch, name, x, dy, *options):
    """Value and gradient here and there."""
    leaf = torch.tensor(x.astype("float64"), requires_grad=True)
    expected = getattr(torch.nn.functional, name)(leaf, *options)
    expected.backward(torch.tensor(dy.astype("float64")))
    return expected, leaf.grad


@pytest.mark.capability("B19", "B20", "C14")
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("name", ["relu", "leaky_relu", "sigmoid", "tanh"])
@given(seed=seeds, shape=st.lists(st.integers(0, 4), min_size=1, max_size=4), layout=layouts)
def test_elementwise_equal_torch(torch, dtype, name, seed, shape, layout):
    x = np.where(randn(seed + 1, *shape) > 1, 0, 4 * randn(seed, *shape)).astype(dtype)
    dy = randn(seed + 2, *shape, dtype=dtype)
    options = (0.2,) if name == "leaky_relu" else ()
    expected, dx = both(torch, name, x, dy, *options)
    x, dy = laid_out(x, layout), laid_out(dy, layout)
    y = getattr(F, name)(x, *options)
    kept = x if "relu" in name else y
    actual = getattr(F, f"{name}_backward")(dy, kept, *options)
    assert y.dtype == actual.dtype == dtype
    assert_near(y, expected, EXACT[dtype], "y")
    assert_near(actual, dx, EXACT[dtype], "dx", size=np.abs(dy).max(initial=0))


@pytest.mark.capability("B20", "C14")
@pytest.mark.parametrize("dtype", EXACT)
@given(seed=seeds, shape=st.lists(st.integers(1, 5), min_size=2, max_size=4), data=st.data(), layout=layouts)
def test_softmax_equals_torch_along_any_axis(torch, dtype, seed, shape, data, layout):
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    x, dy = (5 * randn(seed, *shape)).astype(dtype), randn(seed + 1, *shape, dtype=dtype)
    expected, dx = both(torch, "softmax", x, dy, dim)
    logs, _ = both(torch, "log_softmax", x, dy, dim)
    y = F.softmax(laid_out(x, layout), dim)
    actual = F.softmax_backward(laid_out(dy, layout), y, dim)
    assert y.dtype == actual.dtype == F.log_softmax(x, dim).dtype == dtype
    assert_near(y, expected, EXACT[dtype])
    assert_near(F.log_softmax(laid_out(x, layout), dim), logs, EXACT[dtype])
    assert_near(actual, dx, EXACT[dtype], "dx", size=np.abs(dy).max())


@pytest.mark.capability("B20")
def test_softmax_rows_do_not_mix():
    x = randn(0, 4, 5)
    for i in range(4):
        assert np.array_equal(F.softmax(x)[i], F.softmax(x[i : i + 1])[0])


@pytest.mark.capability("B21")
def test_dropout_mask_by_hand():
    uniform = np.array([0.0, 0.24, 0.25, 0.9])
    assert F.dropout_mask(uniform, 0.25).tolist() == [0, 0, 4 / 3, 4 / 3]
    assert F.dropout_mask(uniform, 0.75).tolist() == [0, 0, 0, 4]
    assert F.dropout_mask(uniform, 0.0).tolist() == [1, 1, 1, 1]
    assert F.dropout_mask(uniform, 1.0).tolist() == [0, 0, 0, 0]
