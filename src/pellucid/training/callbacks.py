"""What users hang into the training loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pellucid.shapes import integer

if TYPE_CHECKING:
    from pellucid.training.history import Row
    from pellucid.training.trainer import Trainer


class Callback:
    """Base of the callbacks; each method may be left out.

    trainer.history holds the rows so far, trainer.network the network, trainer.stop(reason) ends the training after
    the present epoch.
    """

    def on_train_begin(self, trainer: Trainer) -> None:
        """Called once, before the first step."""

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Called before each epoch, counted from 0."""

    def on_batch_end(self, trainer: Trainer, step: int, loss: float) -> None:
        """Called after each step, counted from 0; a callback that has this method makes training go step by step."""

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """Called after each epoch with its row of the history."""

    def on_train_end(self, trainer: Trainer) -> None:
        """Called once at the end, best weights restored, also after an interrupt."""


class EarlyStopping(Callback):
    """Stops when the validation loss has not improved for some epochs. The best weights are restored in any case.

    Args:
        patience: Epochs without improvement after which training stops.
    """

    def __init__(self, patience: int = 5) -> None:
        self.patience = integer(patience, "patience")

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """Stop where the best epoch lies patience epochs back.

        Args:
            trainer: The running training.
            row: The epoch's row.
        """
        best = trainer.history.best
        if best is not None and row.epoch - best.epoch >= self.patience:
            trainer.stop("early stopping")
