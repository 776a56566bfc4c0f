"""Metrics against scikit-learn; and wrong ones, which the comparison catches."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

import pellucid as pl
from oracles import randn
from pellucid import metrics
from pellucid.errors import DataError, PellucidError

LABELS = st.integers(2, 5).flatmap(
    lambda k: st.tuples(st.just(k), st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), max_size=30))
)


def judge(true, predicted, k, confusion=metrics.confusion_matrix, recall=metrics.recall, precision=metrics.precision):
    """Compare with scikit-learn."""
    matrix = confusion(true, predicted, k)
    expected = sk.confusion_matrix(true, predicted, labels=range(k)) if len(true) else np.zeros((k, k))
    assert np.array_equal(matrix, expected)
    options = {"labels": range(k), "average": None, "zero_division": np.nan}
    if len(true):
        np.testing.assert_allclose(recall(matrix), sk.recall_score(true, predicted, **options), rtol=1e-12)
        np.testing.assert_allclose(precision(matrix), sk.precision_score(true, predicted, **options), rtol=1e-12)


@pytest.mark.capability("F2", "F3")
@given(LABELS)
def test_equal_scikit_learn(case):
    k, pairs = case
    true, predicted = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    judge(true, predicted, k)


TRUE = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 1, 1, 1, 0, 1])


@pytest.mark.capability("F3")
def test_rows_are_true_and_columns_predicted():
    assert metrics.confusion_matrix(TRUE, PREDICTED, 4).tolist() == [
        [1, 2, 0, 0],
        [1, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
    ]
    assert metrics.confusion_matrix(np.array([], int), np.array([], int), 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.capability("F2")
def test_what_is_absent_is_undefined():
    matrix = metrics.confusion_matrix(TRUE, PREDICTED, 4)
    assert metrics.recall(matrix).tolist() == pytest.approx([1 / 3, 1 / 2, 0, math.nan], nan_ok=True)
    assert metrics.precision(matrix).tolist() == pytest.approx([1 / 2, 1 / 4, math.nan, math.nan], nan_ok=True)


WRONG = {
    "matrix transposed": {"confusion": lambda t, p, k: metrics.confusion_matrix(p, t, k)},
    "recall swapped with precision": {"recall": metrics.precision, "precision": metrics.recall},
    "recall over all samples": {"recall": lambda m: np.diag(m) / m.sum()},
    "absent class counted as 0": {"recall": lambda m: np.nan_to_num(metrics.recall(m))},
    "precision of a class never predicted as 1": {"precision": lambda m: np.nan_to_num(metrics.precision(m), nan=1.0)},
    "matrix in shares": {"confusion": lambda t, p, k: metrics.confusion_matrix(t, p, k) / max(len(t), 1)},
    "only classes that occur": {"confusion": lambda t, p, k: sk.confusion_matrix(t, p)},
    "predictions shuffled": {"confusion": lambda t, p, k: metrics.confusion_matrix(t, p[::-1], k)},
}


@pytest.mark.capability("F2", "F3")
@pytest.mark.parametrize("name", WRONG)
def test_wrong_metrics_are_caught(name):
    judge(TRUE, PREDICTED, 4)
    with pytest.raises((AssertionError, ValueError)):
        judge(TRUE, PREDICTED, 4, **WRONG[name])


def evaluation(n=7, k=4, seed=0):
    logits, true = 3 * randn(seed, n, k), np.arange(n) % (k - 1)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    names = ["a", "b", "c", "d"][:k]
    return metrics.measure(logits, true, names, [f"{i}.png" for i in range(n)]), logits, true, shares


@pytest.mark.capability("F1", "F2", "D14")
def test_evaluate():
    found, logits, true, shares = evaluation()
    assert found.n == 7
    assert found.loss == pytest.approx(sk.log_loss(true, shares, labels=range(4)), rel=1e-12)
    assert found.accuracy == pytest.approx(sk.accuracy_score(true, logits.argmax(1)))
    assert np.array_equal(found.predicted, logits.argmax(1))
    assert found.recall == pytest.approx(
        dict(zip("abcd", sk.recall_score(true, logits.argmax(1), **OPTIONS), strict=True)), nan_ok=True
    )
    assert found.precision == pytest.approx(
        dict(zip("abcd", sk.precision_score(true, logits.argmax(1), **OPTIONS), strict=True)), nan_ok=True
    )
    assert found.ids[3] == "3.png"


OPTIONS = {"labels": range(4), "average": None, "zero_division": np.nan}


@pytest.mark.capability("D14", "F1")
def test_the_loss_is_a_mean_over_samples_not_over_batches():
    _, logits, true, shares = evaluation()
    each = -np.log(shares[np.arange(7), true])
    of_batches = np.mean([each[:6].mean(), each[6:].mean()])
    loss = metrics.measure(logits, true, list("abcd"), range(7)).loss
    assert loss == pytest.approx(each.mean(), rel=1e-12)
    assert loss != pytest.approx(of_batches, rel=1e-3)
    assert loss != pytest.approx(np.sum([each[:6].mean(), each[6:].mean()]) / 7, rel=1e-3)


@pytest.mark.capability("F2")
def test_to_dict_is_json_without_nan():
    found, *_ = evaluation()
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["recall"]["d"] is None
    assert plain["n"] == 7
    assert plain["labels"] == ["a", "b", "c", "d"]
    assert sum(map(sum, plain["confusion"])) == 7
    assert plain["accuracy"] == found.accuracy


def test_no_samples():
    found, *_ = evaluation(n=0)
    assert found.to_dict() == {
        "loss": None,
        "accuracy": None,
        "recall": dict.fromkeys("abcd"),
        "precision": dict.fromkeys("abcd"),
        "confusion": [[0] * 4] * 4,
        "labels": list("abcd"),
        "n": 0,
    }


def test_float32_logits_are_summed_in_float64():
    logits = np.zeros((100_000, 4), dtype=np.float32)
    true = np.zeros(100_000, dtype=np.int64)
    found = metrics.measure(logits, true, list("abcd"), range(100_000))
    assert found.loss == pytest.approx(math.log(4), rel=1e-12)


def test_finite():
    assert metrics.finite(2) == 2.0
    assert [metrics.finite(x) for x in (math.nan, math.inf, -math.inf)] == [None] * 3


@pytest.mark.parametrize(
    ("true", "predicted", "match"),
    [
        ([0, 1], [0], r"must have one shape \(N,\), got \(2,\) and \(1,\)"),
        ([[0, 1]], [[0, 1]], r"must have one shape \(N,\)"),
        ([0, 3], [0, 1], "labels must lie between 0 and 2, got 0 to 3"),
        ([0, 1], [-1, 1], "labels must lie between 0 and 2, got -1 to 1"),
    ],
)
def test_refusals(true, predicted, match):
    with pytest.raises(DataError, match=match):
        metrics.confusion_matrix(np.array(true), np.array(predicted), 3)


# Calibration


def simulated(n=400, k=4, seed=0, sharpness=2.0):
    """Labels drawn from softmax(z), and sharpness * z as an overconfident classifier's logits."""
    z = 1.5 * randn(seed, n, k)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    draws = np.random.default_rng(seed).random((n, 1))
    return sharpness * z, (p.cumsum(1) < draws).sum(1)


@pytest.mark.capability("H17")
@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration_equals_scikit_learn_and_a_plain_loop(bins):
    logits, true = simulated()
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = metrics.calibration(p, true, bins)
    share, mean = calibration_curve(p.argmax(1) == true, p.max(1), n_bins=bins)
    np.testing.assert_allclose(found.accuracy[found.count > 0], share, rtol=1e-12)
    np.testing.assert_allclose(found.confidence[found.count > 0], mean, rtol=1e-12)
    ece = 0.0
    for b in range(bins):
        inside = [i for i in range(400) if b / bins < p[i].max() <= (b + 1) / bins]
        if inside:
            right = sum(p[i].argmax() == true[i] for i in inside) / len(inside)
            ece += len(inside) / 400 * abs(right - sum(p[i].max() for i in inside) / len(inside))
    assert found.ece == pytest.approx(ece, rel=1e-12)
    assert found.count.sum() == 400


@pytest.mark.capability("H17")
def test_calibration_by_hand():
    p = np.array([[0.5, 0.5], [0.6, 0.4], [0.0, 1.0], [0.25, 0.75], [math.nan, math.nan]])
    found = metrics.calibration(p, np.array([0, 1, 1, 1, 0]), bins=4)
    assert found.count.tolist() == [0, 1, 2, 1], "a bin holds its upper end; NaN is in none"
    assert found.accuracy.tolist() == pytest.approx([math.nan, 1, 0.5, 1], nan_ok=True)
    assert found.confidence.tolist() == pytest.approx([math.nan, 0.5, 0.675, 1], nan_ok=True)
    assert found.ece == pytest.approx((0.5 + 2 * 0.175 + 0) / 4)
    nothing = metrics.calibration(np.empty((0, 2)), np.empty(0, int))
    assert math.isnan(nothing.ece)
    assert not nothing.count.any()


@pytest.mark.capability("H17")
def test_the_temperature_is_the_one_that_pytorch_finds(torch):
    logits, true = simulated()
    b = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [b], max_iter=200, tolerance_grad=1e-14, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(torch.from_numpy(logits) * b, torch.from_numpy(true))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert metrics.fit_temperature(logits, true) == pytest.approx(1 / b.item(), rel=1e-6)


@pytest.mark.capability("H17")
def test_a_temperature_undoes_what_made_a_classifier_too_sure():
    logits, true = simulated(20_000, sharpness=2.5)
    assert metrics.fit_temperature(logits, true) == pytest.approx(2.5, rel=0.05)
    found = metrics.measure(logits, true, list("abcd"), range(20_000))
    t = found.fit_temperature()
    assert t == pytest.approx(metrics.fit_temperature(logits, true), rel=1e-6), "log p are logits"
    assert found.calibration().ece > 0.15 > 0.03 > found.calibration(t).ece
    assert found.calibration(t).accuracy[-1] > found.calibration().accuracy[-1]


@pytest.mark.capability("H17")
def test_temperatures_that_nothing_fits():
    z = np.array([[3.0, 0.0], [0.0, 2.0]])
    assert metrics.fit_temperature(z, np.array([0, 1])) == 1.0, "no mistake"
    assert metrics.fit_temperature(np.empty((0, 3)), np.empty(0, int)) == 1.0
    assert metrics.fit_temperature(z, np.array([1, 0])) == pytest.approx(20), "all wrong: as unsure as may be"
    ties = np.zeros((4, 2))
    assert metrics.fit_temperature(ties, np.array([0, 1, 1, 0])) == 1.0
    huge = np.array([[1e4, 0.0], [0.0, 1e4], [1e4, 0.0]])
    assert metrics.fit_temperature(huge, np.array([0, 1, 1])) == pytest.approx(20)


@pytest.mark.capability("H17")
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_probabilities_that_float64_cannot_tell_from_0(shift):
    logits = np.array([[900.0, 0.0, -5.0], [0.0, 900.0, 3.0], [0.0, 1.0, 0.0]]) + shift
    found = metrics.measure(logits, np.array([1, 1, 1]), list("abc"), range(3))
    assert np.isfinite(found.fit_temperature())
    assert found.calibration(2.0).count.sum() == 3
    assert found.losses[0] == math.inf
    assert found.top_losses().tolist() == [0]


# Top losses, suspects


@pytest.mark.capability("H18")
def test_top_losses_are_the_mistakes_by_their_loss():
    found, logits, true, shares = evaluation(40)
    each = [-math.log(shares[i, true[i]]) for i in range(40)]
    wrong = [i for i in range(40) if logits[i].argmax() != true[i]]
    assert found.losses == pytest.approx(each)
    assert len(wrong) > 8
    assert found.top_losses().tolist() == sorted(wrong, key=lambda i: -each[i])[:24]
    assert found.top_losses(3).tolist() == sorted(wrong, key=lambda i: -each[i])[:3]


@pytest.mark.capability("H18")
def test_suspects_are_those_that_another_class_claims():
    p = np.array([[0.9, 0.1], [0.7, 0.3], [0.85, 0.15], [0.75, 0.25], [0.3, 0.7], [0.2, 0.8]])
    true = np.array([0, 0, 1, 1, 0, 1])
    found = metrics.measure(np.log(p), true, ["a", "b"], range(6))
    # Class a's own samples: 0.9, 0.7 and 0.3, mean 0.633; class b's: 0.15, 0.25 and 0.8, mean 0.4.
    assert found.suspects().tolist() == [2, 3, 4]
    surer = metrics.measure(np.log(np.array([[0.9, 0.1], [0.95, 0.05], [0.85, 0.15]])), true[:3], ["a", "b"], range(3))
    assert surer.suspects().tolist() == [], "less sure than of class a's own"
    weak = metrics.measure(np.log(np.array([[0.4, 0.3, 0.3], [0.45, 0.35, 0.2]])), true[1:3], list("abc"), range(2))
    assert weak.suspects().tolist() == [], "a weak model's guess is no claim"


@pytest.mark.capability("H18")
def test_labels_that_were_swapped_are_suspected(digits_model):
    """A tenth of the held-out labels made wrong: most are found, and little else."""
    found = digits_model.evaluate()
    true = found.true.copy()
    swapped = np.random.default_rng(0).choice(found.n, found.n // 10, replace=False)
    true[swapped] = (true[swapped] + 3) % 10
    logits = np.log(np.maximum(found.probabilities, 1e-300))
    suspects = metrics.measure(logits, true, found.labels, found.ids).suspects()
    assert len(set(suspects) & set(swapped)) > 0.8 * len(swapped)
    assert len(set(suspects) - set(swapped)) < 0.05 * found.n


@pytest.fixture(scope="module")
def digits_model():
    ds = pl.data.load("digits")
    return pl.fit(pl.models.create("mlp", ds.shape, 10), ds, epochs=10, progress=False)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: metrics.calibration(np.ones((2, 2)), np.array([0])), r"\(N, K\) and true labels \(N,\), got \(2, 2\)"),
        (lambda: metrics.calibration(np.ones((1, 2)), np.array([0]), 0), "bins must be at least 1, got 0"),
        (lambda: metrics.fit_temperature(np.ones(2), np.array([0, 0])), r"must be \(N, K\) and true labels"),
        (lambda: metrics.fit_temperature(np.array([[math.nan, 0]]), np.array([0])), "logits hold NaN or infinity"),
        (lambda: evaluation()[0].calibration(0), "temperature must be a finite number above 0, got 0"),
    ],
)
def test_refusals_of_calibration(call, match):
    with pytest.raises(PellucidError, match=match):
        call()
