"""Losses and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles import EXACT, assert_near, randn, seeds
from pellucid import functional as F
from pellucid.errors import DataError, OptionError, PellucidError, ShapeError
from torch_parity import refused_alike


@pytest.mark.capability("D1")
def test_cross_entropy_by_hand():
    assert F.cross_entropy(np.zeros((3, 10)), np.array([1, 4, 9])) == pytest.approx(np.log(10), rel=1e-15)
    assert round(F.cross_entropy(np.full((3, 10), 7.0), np.array([1, 4, 9])), 4) == 2.3026
    logits = np.log(np.array([[1.0, 3.0], [1.0, 1.0]]))
    assert F.cross_entropy(logits, np.array([1, 0])) == pytest.approx((np.log(4 / 3) + np.log(2)) / 2)
    assert_near(F.cross_entropy_backward(logits, np.array([1, 0])), [[0.125, -0.125], [-0.25, 0.25]], 1e-14)


@pytest.mark.capability("D1")
def test_random_scores_cost_about_2_33():
    """Scores uniform in [0, 1): ln of the mean of exp, less the mean score."""
    scores = np.random.default_rng(0).random((20000, 10))
    assert F.cross_entropy(scores, np.ones(20000, dtype=int)) == pytest.approx(2.33, abs=0.02)


@pytest.mark.capability("D1")
def test_the_gradient_does_not_grow_with_the_batch():
    logits, labels = randn(0, 4, 3), np.array([0, 1, 2, 1])
    once = F.cross_entropy_backward(logits, labels)
    twice = F.cross_entropy_backward(np.concatenate([logits, logits]), np.concatenate([labels, labels]))
    assert_near(twice[:4], once / 2, 1e-14)


@pytest.mark.capability("D1")
@pytest.mark.parametrize("dtype", EXACT)
def test_extreme_logits(dtype):
    logits = np.array([[1200.0, -1200.0, 0.0], [-1e30, 1e30, 0.0]], dtype=dtype)
    assert F.cross_entropy(logits, np.array([0, 1])) == 0
    assert F.cross_entropy(logits[:1], np.array([1])) == 2400
    assert F.cross_entropy_backward(logits, np.array([1, 1])).tolist() == [[0.5, -0.5, 0], [0, 0, 0]]


def test_a_class_ruled_out_costs_nothing_elsewhere():
    logits = np.array([[0.0, 0.0, -np.inf]])
    assert F.cross_entropy(logits, np.array([0])) == pytest.approx(np.log(2))
    assert F.cross_entropy(logits, np.array([2])) == np.inf
    assert F.cross_entropy_backward(logits, np.array([0])).tolist() == [[-0.5, 0.5, 0]]


@st.composite
def problems(draw):
    """Logits, target and options of a cross-entropy."""
    n, k, seed = draw(st.integers(1, 5)), draw(st.integers(2, 6)), draw(seeds)
    rng = np.random.default_rng(seed)
    kind = draw(st.sampled_from(["labels", "one-hot", "probabilities"]))
    target = rng.integers(0, k, n)
    if kind == "one-hot":
        target = np.eye(k)[target]
    elif kind == "probabilities":
        target = rng.dirichlet(np.ones(k), n)
    weight = rng.random(k) + 0.1 if draw(st.booleans()) else None
    return rng.normal(0, 3, (n, k)), target, weight, draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))


@pytest.mark.capability("D1", "H10", "C14")
@pytest.mark.parametrize("dtype", EXACT)
@given(problems())
def test_cross_entropy_equals_torch(torch, dtype, problem):
    logits, target, weight, smoothing = problem
    leaf = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        leaf, torch.tensor(target), None if weight is None else torch.tensor(weight), label_smoothing=smoothing
    )
    expected.backward()
    arguments = (logits.astype(dtype), target, weight, smoothing)
    assert F.cross_entropy(*arguments) == pytest.approx(expected.item(), rel=EXACT[dtype], abs=EXACT[dtype])
    gradient = F.cross_entropy_backward(*arguments)
    assert gradient.dtype == dtype
    assert_near(gradient, leaf.grad, EXACT[dtype], size=1)


@pytest.mark.capability("D2", "C14")
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("name", ["mse_loss", "binary_cross_entropy_with_logits"])
@given(seed=seeds, shape=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_elementwise_losses_equal_torch(torch, dtype, name, seed, shape):
    output, target = 3 * randn(seed, *shape), np.random.default_rng(seed).random(shape)
    leaf = torch.tensor(output, requires_grad=True)
    expected = getattr(torch.nn.functional, name)(leaf, torch.tensor(target))
    expected.backward()
    arguments = (output.astype(dtype), target.astype(dtype))
    assert getattr(F, name)(*arguments) == pytest.approx(expected.item(), rel=EXACT[dtype])
    gradient = getattr(F, f"{name}_backward")(*arguments)
    assert gradient.dtype == dtype
    assert_near(gradient, leaf.grad, EXACT[dtype] * 10)


def reduced_alike(torch, name, output, arguments, options, dtype):
    """Value and gradient for one reduction; with "none" the gradient by each term is random."""
    leaf = torch.tensor(output, requires_grad=True)
    theirs = {key: torch.tensor(v) if isinstance(v, np.ndarray) else v for key, v in options.items()}
    expected = getattr(torch.nn.functional, name)(leaf, *map(torch.tensor, arguments), **theirs)
    dy = randn(3, *expected.shape)
    expected.backward(torch.tensor(dy))
    arguments = [a.astype(dtype) if a.dtype.kind == "f" else a for a in arguments]
    value = getattr(F, name)(output.astype(dtype), *arguments, **options)
    dy = dy.astype(dtype) if dy.ndim else float(dy)
    gradient = getattr(F, f"{name}_backward")(output.astype(dtype), *arguments, **options, dy=dy)
    assert gradient.dtype == dtype
    assert isinstance(value, float) or value.dtype == dtype
    assert_near(value, expected, EXACT[dtype] * 10, size=1.0)
    assert_near(gradient, leaf.grad, EXACT[dtype] * 10, "gradient", size=1.0)


ELEMENTWISE = {
    "mse_loss": [{}],
    "l1_loss": [{}],
    "smooth_l1_loss": [{}, {"beta": 0.3}, {"beta": 0.0}],
    "huber_loss": [{}, {"delta": 0.3}],
    "binary_cross_entropy": [{}, {"weight": ...}],
    "binary_cross_entropy_with_logits": [{}, {"weight": ...}, {"pos_weight": ...}, {"weight": ..., "pos_weight": ...}],
}


@pytest.mark.capability("D2", "C14")
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ELEMENTWISE)
@given(seed=seeds, shape=st.lists(st.integers(1, 4), min_size=1, max_size=4), data=st.data())
def test_elementwise_losses_equal_torch_in_every_reduction(torch, dtype, name, reduction, seed, shape, data):
    rng = np.random.default_rng(seed)
    target = rng.random(shape)
    output = rng.uniform(0.05, 0.95, shape) if name == "binary_cross_entropy" else rng.normal(0, 1.5, shape)
    options = dict(data.draw(st.sampled_from(ELEMENTWISE[name])), reduction=reduction)
    for key in [key for key, value in options.items() if value is ...]:
        options[key] = rng.random(data.draw(st.sampled_from([shape, shape[-1:]])))
    reduced_alike(torch, name, output, [target], options, dtype)


@pytest.mark.capability("D1", "C14")
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@given(problem=problems())
def test_losses_of_classes_equal_torch_in_every_reduction(torch, dtype, reduction, problem):
    logits, target, weight, smoothing = problem
    options = {"reduction": reduction} if weight is None else {"reduction": reduction, "weight": weight}
    reduced_alike(torch, "cross_entropy", logits, [target], {**options, "label_smoothing": smoothing}, dtype)
    if target.ndim == 1:
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        reduced_alike(torch, "nll_loss", log_p, [target], options, dtype)


def test_probabilities_of_zero_and_one():
    """A logarithm is at least -100, as in PyTorch; the gradient stays finite."""
    p, t = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0])
    assert F.binary_cross_entropy(p, t, reduction="none").tolist() == [0, 0, 100, 100]
    gradient = F.binary_cross_entropy_backward(p, t, reduction="sum")
    assert gradient.tolist() == pytest.approx([0, 0, -1e12, 1e12])


def test_losses_by_hand():
    output, target = np.array([[1.0, -2.0, 0.0]]), np.array([[0.5, 1.0, 0.0]])
    assert F.l1_loss(output, target, "sum") == 3.5
    assert F.smooth_l1_loss(output, target, "none").tolist() == [[0.125, 2.5, 0]]
    assert F.smooth_l1_loss(output, target, "none", 2.0).tolist() == [[0.0625, 2, 0]]
    assert F.huber_loss(output, target, "none", 2.0).tolist() == [[0.125, 4, 0]]
    assert F.huber_loss_backward(output, target, "sum", 2.0).tolist() == [[0.5, -2, 0]]
    assert F.nll_loss(np.array([[-1.0, -3.0], [-2.0, -5.0]]), np.array([1, 0]), np.array([3.0, 1.0])) == 9 / 4


@pytest.mark.parametrize(
    ("name", "arguments", "options", "match"),
    [
        ("mse_loss", (np.zeros(2), np.zeros(2)), {"reduction": "avg"}, 'unknown reduction "avg"'),
        ("cross_entropy", (np.zeros((1, 2)), np.zeros(1, int)), {"reduction": "men"}, 'unknown reduction "men"'),
        ("huber_loss", (np.zeros(2), np.zeros(2)), {"delta": 0}, "delta must be above 0"),
        ("huber_loss", (np.zeros(2), np.zeros(2)), {"delta": -1.0}, "delta must be a number of at least 0, got -1.0"),
        ("smooth_l1_loss", (np.zeros(2), np.zeros(2)), {"beta": -1.0}, "beta must be a number of at least 0"),
        (
            "binary_cross_entropy",
            (np.array([1.5]), np.zeros(1)),
            {},
            "outputs must be probabilities between 0 and 1, got 1.5",
        ),
        ("binary_cross_entropy", (np.array([np.nan]), np.zeros(1)), {}, "outputs must be probabilities"),
        (
            "binary_cross_entropy",
            (np.zeros(2), np.zeros(2)),
            {"weight": np.ones(3)},
            r"weight of shape \(3,\) does not fit",
        ),
        ("nll_loss", (np.zeros((1, 2)), np.array([2])), {}, "label 2 is out of range"),
        ("nll_loss", (np.zeros((1, 2)), np.zeros((1, 2))), {}, "takes labels, got floats"),
    ],
)
def test_what_torch_refuses_in_other_losses_is_refused(torch, name, arguments, options, match):
    refused_alike(torch, name, arguments, options, PellucidError, match)


@pytest.mark.capability("D2")
def test_mse_and_bce_by_hand():
    assert F.mse_loss(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]])) == 2.5
    assert F.mse_loss_backward(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]])).tolist() == [[1, 2]]
    logits, target = np.array([1000.0, -1000.0, 1000.0, 0.0]), np.array([1.0, 0.0, 0.0, 0.5])
    assert F.binary_cross_entropy_with_logits(logits, target) == pytest.approx((1000 + np.log(2)) / 4)
    assert F.binary_cross_entropy_with_logits_backward(logits, target).tolist() == [0, 0, 0.25, 0]


@pytest.mark.capability("D3")
def test_one_hot():
    assert F.one_hot(3, np.array([2, 0, 1], dtype=np.uint8)).tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert F.one_hot(3, np.array([], dtype=int)).shape == (0, 3)


Z = np.zeros((2, 3))


@pytest.mark.capability("D1", "D3")
@pytest.mark.parametrize("function", [F.cross_entropy, F.cross_entropy_backward])
@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((Z, np.array([0, 3])), DataError, "label 3 is out of range; with 3 classes labels are 0 to 2"),
        ((Z, np.array([0, -1])), DataError, "label -1 is out of range"),
        ((Z, np.array([True, False])), DataError, r"labels must be whole numbers, got bool; use labels.astype\(int\)"),
        ((Z, np.array([[0], [1]])), ShapeError, r"labels must have shape \(N,\), got \(2, 1\)"),
        ((Z, np.array([0])), ShapeError, "there are 2 rows of logits, but 1 labels"),
        ((Z, np.array([0.0, 1.0])), ShapeError, r"float targets must have the shape \(2, 3\) of the logits"),
        ((Z[0], np.array([0])), ShapeError, r"takes logits of shape \(N, K\), got \(3,\); put a Flatten before"),
        ((Z[..., None, None], np.array([0, 1])), ShapeError, "put a Flatten before"),
        ((Z.astype(int), np.array([0, 1])), OptionError, "logits must be float32 or float64, got int64"),
        ((Z, np.array([0, 1]), np.ones(2)), ShapeError, r"class weights must have shape \(3,\), got \(2,\)"),
        ((Z, np.array([0, 1]), None, 1.5), OptionError, "label_smoothing must lie between 0 and 1, got 1.5"),
        ((Z, np.array([0, 1]), None, np.nan), OptionError, "label_smoothing must lie between"),
    ],
)
def test_cross_entropy_refusals(function, arguments, error, match):
    with pytest.raises(error, match=match):
        function(*arguments)


@pytest.mark.parametrize("name", ["mse_loss", "binary_cross_entropy_with_logits"])
@pytest.mark.parametrize(
    ("output", "target", "error", "match"),
    [
        (Z, np.zeros((2, 1)), ShapeError, r"targets must have the output's shape \(2, 3\), got \(2, 1\)"),
        (Z, np.zeros((2, 3), int), DataError, "takes float targets .* got int64; use CrossEntropyLoss for labels"),
        (Z.astype(int), np.full((2, 3), 0.5), OptionError, "output must be float32 or float64, got int64"),
    ],
)
def test_elementwise_refusals(name, output, target, error, match):
    for function in (getattr(F, name), getattr(F, f"{name}_backward")):
        with pytest.raises(error, match=match):
            function(output, target)


@pytest.mark.capability("D3")
@pytest.mark.parametrize(
    ("labels", "error", "match"),
    [
        ([0, 3], DataError, "label 3 is out of range"),
        ([-1, 0], DataError, "label -1 is out of range"),
        ([0.0, 1.0], DataError, "labels must be whole numbers"),
        ([[0, 1]], ShapeError, r"labels must have shape \(N,\)"),
    ],
)
def test_one_hot_refusals(labels, error, match):
    with pytest.raises(error, match=match):
        F.one_hot(3, np.array(labels))
