"""What each epoch gave."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pellucid.metrics import finite


@dataclass(frozen=True)
class Row:
    """One epoch.

    Attributes:
        epoch: Counted from 1.
        train_loss: Mean over the epoch's samples, while the weights were changing, dropout and augmentation included.
        train_accuracy: Share of hits in the same; None where targets are no labels.
        val_loss: Mean over the validation samples at the end of the epoch; None without validation.
        val_accuracy: Share of hits in the same.
        lr: Learning rate of the last step.
        seconds: Since the training began.
    """

    epoch: int
    train_loss: float
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    lr: float
    seconds: float


class History:
    """Rows of all epochs; history["val_loss"] is a column.

    >>> History([Row(1, 2.0, 0.5, 1.0, 0.6, 1e-3, 0.1)])["val_loss"]
    [1.0]
    """

    def __init__(self, rows: list[Row] | None = None) -> None:
        self.rows = rows or []

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, column: str) -> list[Any]:
        return [getattr(row, column) for row in self.rows]

    @property
    def best(self) -> Row | None:
        """The row with the lowest validation loss, the first of equals; None without validation."""
        scored = [row for row in self.rows if row.val_loss is not None and math.isfinite(row.val_loss)]
        return min(scored, key=lambda row: row.val_loss or 0.0, default=None)

    def to_jsonl(self) -> str:
        """Return one line of JSON for each epoch; what is not finite is null."""
        lines = []
        for row in self.rows:
            values = {k: finite(v) if isinstance(v, float) else v for k, v in asdict(row).items()}
            lines.append(json.dumps(values) + "\n")
        return "".join(lines)

    def __repr__(self) -> str:
        return f"History({len(self)} epochs, best {self.best})"
