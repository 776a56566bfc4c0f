"""The history: columns, the best epoch, JSON lines."""

from __future__ import annotations

import json

import pytest

from pellucid.training import History, Row

pytestmark = pytest.mark.capability("D17")


def rows(*losses):
    return [Row(i + 1, 2.0 - i, 0.5, loss, 0.25, 0.1, float(i)) for i, loss in enumerate(losses)]


def test_columns_and_rows():
    history = History(rows(3.0, 2.0))
    assert history["epoch"] == [1, 2]
    assert history["val_loss"] == [3.0, 2.0]
    assert [row.train_loss for row in history] == [2.0, 1.0]
    assert len(history) == 2
    with pytest.raises(AttributeError, match="val_los"):
        history["val_los"]


@pytest.mark.capability("D15")
@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ((3, 1, 2), 2),
        ((1, 1), 1),
        ((float("nan"), 2, float("inf")), 2),
        ((0.0, -1.0), 2),
        ((None, None), None),
        ((), None),
    ],
)
def test_best_is_the_first_with_the_lowest_finite_validation_loss(losses, best):
    found = History(rows(*losses)).best
    assert (found and found.epoch) == best


def test_a_new_history_does_not_share_its_rows():
    a, b = History(), History()
    a.rows.append(rows(1.0)[0])
    assert (len(a), len(b)) == (1, 0)
    assert repr(b) == "History(0 epochs, best None)"


def test_json_lines():
    history = History([*rows(0.1 + 0.2), Row(2, float("nan"), None, float("inf"), None, 0.1, 1.0)])
    lines = history.to_jsonl().splitlines()
    assert json.loads(lines[0])["val_loss"] == 0.1 + 0.2
    assert json.loads(lines[1]) == {
        "epoch": 2,
        "train_loss": None,
        "train_accuracy": None,
        "val_loss": None,
        "val_accuracy": None,
        "lr": 0.1,
        "seconds": 1.0,
    }
    assert History().to_jsonl() == ""
