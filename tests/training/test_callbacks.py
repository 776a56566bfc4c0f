"""EarlyStopping by itself; what the loop calls is in test_trainer."""

from __future__ import annotations

import pytest

from pellucid.errors import OptionError
from pellucid.training import Callback, EarlyStopping, History, Row


class FakeTrainer:
    def __init__(self, losses):
        self.history = History([Row(i + 1, 1.0, None, loss, None, 0.1, 0.0) for i, loss in enumerate(losses)])
        self.stopped = None

    def stop(self, reason):
        self.stopped = reason


@pytest.mark.capability("H13")
@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ([3, 2, 1], False),
        ([1, 2], False),
        ([1, 2, 3], True),
        ([2, 1, 2], False),
        ([1, 1, 1], True),
        ([3, float("nan"), 1], False),
        ([None, None, None, None], False),
    ],
)
def test_it_stops_after_so_many_epochs_without_a_better_one(losses, stops):
    trainer = FakeTrainer(losses)
    EarlyStopping(patience=2).on_epoch_end(trainer, trainer.history.rows[-1])
    assert (trainer.stopped == "early stopping") is stops


@pytest.mark.parametrize("patience", [0, -1, 1.5, "2", True])
def test_patience_is_a_number_of_epochs(patience):
    with pytest.raises(OptionError, match="patience must be"):
        EarlyStopping(patience)


def test_every_hook_may_be_left_out():
    callback = Callback()
    assert callback.on_train_begin(None) is None
    assert callback.on_epoch_begin(None, 0) is None
    assert callback.on_batch_end(None, 0, 0.0) is None
    assert callback.on_epoch_end(None, None) is None
    assert callback.on_train_end(None) is None
