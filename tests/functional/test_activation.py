"""Activations and the dropout mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles import EXACT, assert_near, laid_out, layouts, randn, seeds
from pellucid import functional as F
from pellucid.errors import PellucidError
from torch_parity import compare

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
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("relu", ()),
        ("leaky_relu", (0.2,)),
        ("elu", (0.7,)),
        ("silu", ()),
        ("gelu", ()),
        ("softplus", ()),
        ("softplus", (2.0, 3.0)),
        ("sigmoid", ()),
        ("tanh", ()),
    ],
)
@given(seed=seeds, shape=st.lists(st.integers(0, 4), min_size=1, max_size=4), layout=layouts)
def test_elementwise_equal_torch(torch, dtype, name, options, seed, shape, layout):
    x = np.where(randn(seed + 1, *shape) > 1, 0, 4 * randn(seed, *shape)).astype(dtype)
    dy = randn(seed + 2, *shape, dtype=dtype)
    expected, dx = both(torch, name, x, dy, *options)
    x, dy = laid_out(x, layout), laid_out(dy, layout)
    y = getattr(F, name)(x, *options)
    kept = y if name in ("sigmoid", "tanh") else x
    actual = getattr(F, f"{name}_backward")(dy, kept, *options)
    assert y.dtype == actual.dtype == dtype
    assert_near(y, expected, EXACT[dtype], "y", size=1e-3)  # tails of GELU and Softplus vanish
    assert_near(actual, dx, EXACT[dtype], "dx", size=np.abs(dy).max(initial=0))


@pytest.mark.parametrize("dtype", EXACT)
@given(seed=seeds, shape=st.lists(st.integers(0, 4), min_size=1, max_size=4), layout=layouts)
def test_gelu_by_tanh_equals_torch(torch, dtype, seed, shape, layout):
    compare(torch, "gelu", [3 * randn(seed, *shape)], {"approximate": "tanh"}, dtype, layout, size=1.0)


@pytest.mark.parametrize("dtype", EXACT)
@given(seed=seeds, shape=st.lists(st.integers(0, 4), min_size=2, max_size=4), each=st.booleans(), layout=layouts)
def test_prelu_equals_torch(torch, dtype, seed, shape, each, layout):
    weight = randn(seed + 1, max(1, shape[1]) if each else 1)
    shape[1] = max(1, shape[1])
    compare(torch, "prelu", [randn(seed, *shape), weight], {}, dtype, layout, keep=("x", "weight"), size=1.0)


def test_activations_far_out():
    """No overflow on either side."""
    x = np.array([-1e4, -50.0, 50.0, 1e4])
    assert F.softplus(x).tolist() == [0, np.log1p(np.exp(-50.0)), 50, 1e4]
    assert F.elu(x, 2.0).tolist() == [-2, -2 * (1 - np.exp(-50.0)), 50, 1e4]
    assert np.array_equal(F.silu(x)[[0, 3]], [0, 1e4])
    for approximate in ("none", "tanh"):
        assert np.array_equal(F.gelu(x, approximate)[[0, 2, 3]], [0, 50, 1e4])
        assert F.gelu_backward(np.ones(4), x, approximate).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("name", "arguments", "match"),
    [
        ("gelu", (np.zeros(2), "erf"), 'approximate must be "none" or "tanh", got \'erf\''),
        ("prelu", (np.zeros((2, 3)), np.zeros(2)), "weight must have one slope for all or one for each channel of x"),
        ("prelu", (np.zeros((2, 3)), np.zeros((3, 1))), "weight must have one slope"),
    ],
)
def test_refusals(torch, name, arguments, match):
    with pytest.raises(PellucidError, match=match):
        getattr(F, name)(*arguments)


@pytest.mark.capability("B20", "C14")
@pytest.mark.parametrize("dtype", EXACT)
@given(seed=seeds, shape=st.lists(st.integers(1, 5), min_size=2, max_size=4), data=st.data(), layout=layouts)
def test_softmax_equals_torch_along_any_axis(torch, dtype, seed, shape, data, layout):
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    x, dy = (5 * randn(seed, *shape)).astype(dtype), randn(seed + 1, *shape, dtype=dtype)
    expected, dx = both(torch, "softmax", x, dy, dim)
    logs, dlogs = both(torch, "log_softmax", x, dy, dim)
    from_logs = F.log_softmax_backward(laid_out(dy, layout), F.log_softmax(x, dim), dim)
    assert_near(from_logs, dlogs, EXACT[dtype], "dx of log_softmax", size=np.abs(dy).sum())
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
