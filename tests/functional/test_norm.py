"""Batch normalization."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles import EXACT, assert_near, ints, laid_out, layouts, randn, seeds
from pellucid import functional as F
from pellucid.errors import OptionError, PellucidError, ShapeError


@pytest.mark.capability("B22")
def test_by_hand():
    """Biased variance normalizes, the unbiased one enters the running value."""
    x = np.array([1.0, 3, 5, 7]).reshape(2, 1, 1, 2)
    mean, var = np.zeros(1), np.ones(1)
    y = F.batch_norm(x, mean, var, np.array([np.sqrt(5)]), np.array([10.0]), training=True, momentum=0.5, eps=0.0)
    assert y.ravel() == pytest.approx([7, 9, 11, 13], abs=1e-12)
    assert mean.tolist() == [2]
    assert var[0] == pytest.approx(0.5 + 0.5 * 20 / 3)
    assert F.batch_norm(x, np.array([1.0]), np.array([4.0]), eps=0.0).ravel().tolist() == [0, 1, 2, 3]


@pytest.mark.capability("B22", "C14")
@pytest.mark.parametrize("dtype", EXACT)
@given(seeds, st.integers(2, 4), st.integers(1, 4), ints(1, 5), st.booleans(), st.booleans(), st.floats(0, 1), layouts)
def test_equals_torch(torch, dtype, seed, n, c, size, training, affine, momentum, layout):
    x = 3 + 2 * randn(seed, n, c, *size)
    weight, bias = (randn(seed + i, c) if affine else None for i in (1, 2))
    mean, var = randn(seed + 3, c), 0.5 + randn(seed + 4, c) ** 2
    tx, tw, tb = (None if a is None else torch.tensor(a, requires_grad=True) for a in (x, weight, bias))
    tmean, tvar = torch.tensor(mean), torch.tensor(var)
    expected = torch.nn.functional.batch_norm(tx, tmean, tvar, tw, tb, training, momentum, 1e-2)
    dy = randn(seed + 5, *x.shape)
    expected.backward(torch.tensor(dy))

    x, dy = laid_out(x.astype(dtype), layout), laid_out(dy.astype(dtype), layout)
    weight, bias, mean, var = (None if a is None else a.astype(dtype) for a in (weight, bias, mean, var))
    before = mean.copy(), var.copy()
    y = F.batch_norm(x, mean, var, weight, bias, training, momentum, 1e-2)
    dx, dw, db = F.batch_norm_backward(dy, x, *before, weight, training, 1e-2)
    rel = EXACT[dtype] * (1 if dtype == "float64" else 10)  # differences of values around 3
    assert {a.dtype.name for a in (y, dx, dw, db, mean, var)} == {dtype}
    assert_near(y, expected, rel, "y")
    assert_near(mean, tmean, rel, "running_mean")
    assert_near(var, tvar, rel, "running_var")
    scale = 10 * np.abs(dy).max() * (1 if weight is None else np.abs(weight).max())
    assert_near(dx, tx.grad, rel, "dx", size=scale)  # may vanish: two values have no freedom left
    if affine:
        assert_near(dw, tw.grad, rel, "dw", size=np.abs(dy).sum())
        assert_near(db, tb.grad, rel, "db", size=np.abs(dy).sum())


@pytest.mark.capability("B22")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(), (5,), (2, 3, 4)])
def test_any_number_of_axes_equals_torch(torch, size, training):
    """Vectors, sequences and volumes: each is what the maps of the same values in two axes give."""
    x, weight, bias = 2 + randn(0, 4, 3, *size), randn(1, 3), randn(2, 3)
    mean, var = randn(3, 3), 0.5 + randn(4, 3) ** 2
    leaf = torch.tensor(x, requires_grad=True)
    options = (torch.tensor(mean), torch.tensor(var), torch.tensor(weight), torch.tensor(bias), training)
    expected = torch.nn.functional.batch_norm(leaf, *options)
    dy = randn(5, *x.shape)
    expected.backward(torch.tensor(dy))
    dx = F.batch_norm_backward(dy, x, mean.copy(), var.copy(), weight, training)[0]
    assert_near(F.batch_norm(x, mean, var, weight, bias, training), expected, 1e-10)
    assert_near(dx, leaf.grad, 1e-10)
    assert_near(mean, options[0], 1e-10)


def affine(seed, shape, draw):
    weight = randn(seed + 1, *shape) if draw(st.booleans()) else None
    return weight, randn(seed + 2, *shape) if weight is not None and draw(st.booleans()) else None


@pytest.mark.parametrize("dtype", EXACT)
@given(data=st.data(), seed=seeds, groups=st.integers(1, 3), layout=layouts)
def test_group_norm_equals_torch(torch, dtype, data, seed, groups, layout):
    shape = (data.draw(st.integers(0, 3)), groups * data.draw(st.integers(2, 3)))
    shape += tuple(data.draw(st.lists(st.integers(1, 4), max_size=3)))
    arrays = [randn(seed, *shape), *affine(seed, shape[1:2], data.draw)]
    compare_norm(torch, "group_norm", arrays, {"num_groups": groups, "eps": 1e-2}, dtype, layout)


@pytest.mark.parametrize("dtype", EXACT)
@given(data=st.data(), seed=seeds, layout=layouts)
def test_layer_norm_equals_torch(torch, dtype, data, seed, layout):
    normalized = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    shape = (*data.draw(st.lists(st.integers(0, 3), max_size=2)), *normalized)
    arrays = [randn(seed, *shape), *affine(seed, normalized, data.draw)]
    compare_norm(torch, "layer_norm", arrays, {"normalized_shape": normalized, "eps": 1e-2}, dtype, layout)


def compare_norm(torch, name, arrays, options, dtype, layout):
    """Both take the options before weight and bias, so they go by name."""
    named = ["x", "weight", "bias"]
    leaves = [None if a is None else torch.tensor(a, requires_grad=True) for a in arrays]
    expected = getattr(torch.nn.functional, name)(leaves[0], weight=leaves[1], bias=leaves[2], **options)
    dy = randn(9, *expected.shape)
    expected.backward(torch.tensor(dy))
    x, weight, bias = (None if a is None else laid_out(a.astype(dtype), layout) for a in arrays)
    y = getattr(F, name)(x, weight=weight, bias=bias, **options)
    dy = laid_out(dy.astype(dtype), layout)
    gradients = getattr(F, f"{name}_backward")(dy, x, weight=weight, **options)
    assert y.dtype == dtype
    assert_near(y, expected, EXACT[dtype], "y", size=1.0)
    for which, leaf, gradient in zip(named, leaves, gradients, strict=True):
        assert gradient.dtype == dtype
        if leaf is not None:
            assert_near(gradient, leaf.grad, EXACT[dtype], which, size=10 + np.abs(dy).sum())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda f, x, a: f.group_norm(x, 4), "num_groups 4 must divide the 6 channels of x"),
        (lambda f, x, a: f.group_norm(x, 0), "num_groups must be at least 1"),
        (lambda f, x, a: f.group_norm(x, 2, a(3)), r"weight must have shape \(6,\), got \(3,\)"),
        (lambda f, x, a: f.group_norm(x[:1, :, :1, 0], 6), "group norm needs more than one value per group"),
        (lambda f, x, a: f.layer_norm(x, (5,)), r"x \(2, 6, 3, 4\) must end with normalized_shape \(5,\)"),
        (lambda f, x, a: f.layer_norm(x, ()), r"must end with normalized_shape \(\)"),
        (lambda f, x, a: f.layer_norm(x, (4,), None, a(3)), r"bias must have shape \(4,\), got \(3,\)"),
    ],
)
def test_what_torch_refuses_in_other_norms_is_refused(torch, call, match):
    with pytest.raises(PellucidError, match=match):
        call(F, np.zeros((2, 6, 3, 4)), np.zeros)
    with pytest.raises((RuntimeError, ValueError, ZeroDivisionError)):
        call(torch.nn.functional, torch.zeros(2, 6, 3, 4), torch.zeros)


@pytest.mark.capability("B22")
def test_output_has_mean_zero_and_variance_one():
    y = F.batch_norm(5 + 3 * randn(0, 8, 3, 6, 5), np.zeros(3), np.ones(3), training=True, eps=0.0)
    assert np.abs(y.mean((0, 2, 3))).max() < 1e-14
    assert np.abs(y.var((0, 2, 3)) - 1).max() < 1e-12


@pytest.mark.capability("B22", "C8")
def test_one_image_and_none_outside_training():
    mean, var = randn(0, 3), np.ones(3)
    assert_near(F.batch_norm(np.zeros((1, 3, 1, 1)), mean, var, eps=0.0).ravel(), -mean, 1e-15)
    empty = np.zeros((0, 3, 2, 2))
    assert F.batch_norm(empty, mean, var).shape == empty.shape
    dx, dw, db = F.batch_norm_backward(empty, empty, mean, var)
    assert dx.shape == empty.shape
    assert dw.tolist() == db.tolist() == [0, 0, 0]


def test_running_values_stay_outside_training():
    mean, var = np.zeros(2), np.ones(2)
    F.batch_norm(randn(0, 4, 2, 3, 3), mean, var)
    assert mean.tolist() == [0, 0]
    assert var.tolist() == [1, 1]


@pytest.mark.capability("B22")
@pytest.mark.parametrize(
    ("shape", "dtype", "training", "error", "match"),
    [
        (
            (1, 2, 1, 1),
            float,
            True,
            ShapeError,
            "more than one value per channel, .*; use a larger batch, or training=F",
        ),
        ((0, 2, 3, 3), float, True, ShapeError, "more than one value per channel"),
        ((2,), float, False, ShapeError, r"x must have the axes N x C x \.\.\., got shape \(2,\)"),
        ((1, 2), float, True, ShapeError, "more than one value per channel"),
        ((4, 2, 3, 3), int, False, OptionError, "x must be float32 or float64, got int64"),
        ((4, 3, 3, 3), float, False, ShapeError, r"over 2 channels gets x \(4, 3, 3, 3\) with 3"),
        ((4, 1, 3, 3), float, True, ShapeError, "over 2 channels"),
    ],
)
def test_refusals(shape, dtype, training, error, match):
    with pytest.raises(error, match=match):
        F.batch_norm(np.zeros(shape, dtype), np.zeros(2), np.ones(2), training=training)
