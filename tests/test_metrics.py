"""Metrics against scikit-learn; and wrong ones, which the comparison catches."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from oracles import randn
from pellucid import metrics
from pellucid.errors import DataError

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
