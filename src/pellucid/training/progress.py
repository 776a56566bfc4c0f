"""What a person sees while a network trains: a live line in a terminal, else one line per epoch."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from pellucid.errors import one_line
from pellucid.training.callbacks import Callback

if TYPE_CHECKING:
    from pellucid.training.history import Row
    from pellucid.training.trainer import Trainer

_RECENT = 100


class ProgressReport(Callback):
    """Prints loss and accuracy of the last 100 steps, validation after each epoch, and the time that is left."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(highlight=False, soft_wrap=True)
        self._bar: Any = None
        self._recent: deque[tuple[float, int, int]] = deque(maxlen=_RECENT)

    def on_train_begin(self, trainer: Trainer) -> None:
        """Start the live line.

        Args:
            trainer: The running training.
        """
        if not self.console.is_terminal:
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task("", total=trainer.total_steps, completed=trainer.step, numbers="")

    def on_chunk_end(self, trainer: Trainer, losses: list[float], hits: list[int], sizes: list[int]) -> None:
        """Update the live line.

        Args:
            trainer: The running training.
            losses: Of each step of the chunk.
            hits: Rightly classified samples of each step.
            sizes: Samples of each step.
        """
        self._recent.extend(zip(losses, hits, sizes, strict=True))
        if self._bar is None:
            return
        samples = sum(size for _, _, size in self._recent)
        loss = sum(value * size for value, _, size in self._recent) / samples
        numbers = f"loss {loss:.4f}"
        if trainer.classifies:
            numbers += f" acc {sum(h for _, h, _ in self._recent) / samples:.1%}"
        numbers += f" {trainer.seen}/{trainer.epoch_size}"
        self._bar.update(
            self._task,
            completed=trainer.step,
            description=f"epoch {trainer.epoch + 1}/{trainer.epochs}",
            numbers=numbers,
        )

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """Print the epoch's line.

        Args:
            trainer: The running training.
            row: The epoch's row.
        """
        text = f"epoch {row.epoch:>{len(str(trainer.epochs))}}/{trainer.epochs}  loss {row.train_loss:.4f}"
        if row.train_accuracy is not None:
            text += f" acc {row.train_accuracy:.1%}"
        if row.val_loss is not None:
            text += f" | val loss {row.val_loss:.4f}"
        if row.val_accuracy is not None:
            text += f" acc {row.val_accuracy:.1%}"
        left = (trainer.epochs - row.epoch) * trainer.epoch_seconds
        text += f" | {row.seconds:.0f} s" + (f", {left:.0f} s left" if row.epoch < trainer.epochs else "")
        self.console.print(text)

    def note(self, message: str) -> None:
        """Print a line of its own.

        Args:
            message: What to say; a checkpoint's texts may stand in it, so control characters are spelled out.
        """
        self.console.print(one_line(message, 2000), markup=False)

    def on_train_end(self, trainer: Trainer) -> None:
        """Take the live line away.

        Args:
            trainer: The ended training.
        """
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
