"""The folder of a run: what was asked, what was learned, and how well it does."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pellucid._types import Array
from pellucid.data.dataset import Dataset, Splits
from pellucid.errors import FileError, OptionError, one_line
from pellucid.files import is_temporary, make_folder, read_bytes, sweep, write_atomic
from pellucid.interop import sealed
from pellucid.model import Model
from pellucid.training.history import History

_FORMAT = 2  # of a checkpoint
_SQUARES = ("exp_avg_sq", "square_avg")  # arrays of Adam and RMSprop


@dataclass(frozen=True)
class Checkpoint:
    """Everything that is needed to go on with a run, and to write its other files again.

    Attributes:
        arrays: Flat arrays by name: weights, buffers, what the optimizer remembers, best weights and buffers.
        training: Position, sums, history.
        settings: What a resume must agree with.
        config: The content of config.toml.
        computed_with: What the bits depend on besides, as host.computes_with gives it; None where it is not known.
    """

    arrays: dict[str, Array]
    training: dict[str, Any]
    settings: dict[str, Any]
    config: str
    computed_with: dict[str, str] | None


@dataclass(frozen=True)
class RunDirectory:
    """Paths and formats of a run's files.

    Args:
        path: The folder.
    """

    path: Path

    @classmethod
    def create(cls, path: str | Path) -> RunDirectory:
        """Make the folder for a new run.

        Args:
            path: Must not exist, or be empty.

        Raises:
            FileError: Where there is something already, or it cannot be made.
        """
        folder = cls(Path(path))
        make_folder(folder.path)
        if folder.has_checkpoint:
            raise FileError(
                f"{path} holds a run; give another folder, or go on with that run: --resume, in Python resume=True"
            )
        try:
            empty = all(map(is_temporary, folder.path.iterdir()))
        except OSError as error:
            raise FileError(f"cannot read {path}: {error.strerror or error}") from error
        if not empty:
            raise FileError(f"{path} is not empty; give another folder")
        sweep(folder.path)
        return folder

    @classmethod
    def find(cls, path: str | Path) -> RunDirectory:
        """Return the folder of a run to go on with.

        Args:
            path: Where it is.

        Raises:
            FileError: Where there is no checkpoint.
        """
        folder = cls(Path(path))
        if not folder.has_checkpoint:
            raise FileError(f"{path} holds no run to resume: there is no {folder._checkpoint.name} in it")
        return folder

    def write_settings(self, toml: str, ds: Dataset) -> None:
        """Write config.toml and splits.json.

        Args:
            toml: Every resolved setting, as to_toml gives it.
            ds: The data, with its parts.
        """
        write_atomic(self.path / "config.toml", toml.encode())
        parts = {p: [ds.ids[i] for i in ds.indices(p).tolist()] for p in ("train", "val", "test")}
        self._write_json("splits.json", parts)

    def recorded_splits(self, ds: Dataset) -> Dataset:
        """Return the data set divided as this run recorded it.

        Args:
            ds: The same data as the run's.

        Raises:
            FileError: Where splits.json cannot be read or names samples that the data set does not have.
        """
        path = self.path / "splits.json"
        number = {sample: i for i, sample in enumerate(ds.ids)}
        try:
            parts = json.loads(read_bytes(path))
            train, val, test = (
                np.array([number[sample] for sample in parts[part]], dtype=np.int64)
                for part in ("train", "val", "test")
            )
            together = np.concatenate([train, val, test])
            if len(np.unique(together)) < len(together):
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise FileError(f"{path} does not fit the data; it was changed, or belongs to another run") from None
        return ds.with_splits(Splits(train, val, test))

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write last.ckpt.

        Args:
            checkpoint: Everything that is needed to go on.
        """
        facts = {name: value for name, value in vars(checkpoint).items() if name != "arrays"}
        write_atomic(
            self._checkpoint, sealed.pack(checkpoint.arrays, {"format": _FORMAT, "kind": "checkpoint", **facts})
        )

    def read_checkpoint(self) -> Checkpoint:
        """Return what last.ckpt holds.

        Raises:
            FileError: Where it cannot be read, or is damaged.
        """
        from pellucid.interop import schema

        arrays, document = sealed.read(self._checkpoint, "checkpoint", _FORMAT, schema.Checkpoint)
        for name, array in arrays.items():
            # Sums of squares may overflow in a training that goes on: their steps are then 0.
            if not (np.isfinite(array) | (np.isposinf(array) & name.endswith(_SQUARES))).all():
                raise FileError(
                    f"{self._checkpoint}: the array {name} holds NaN or infinity; the training had diverged, or the "
                    "file was changed: start a new run, with a lower learning rate"
                )
        training = document.training.model_dump(mode="json")
        return Checkpoint(arrays, training, document.settings, document.config, document.computed_with)

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from."""
        return os.path.exists(self._checkpoint)  # False too where the disk gives an error

    @property
    def _checkpoint(self) -> Path:
        return self.path / "last.ckpt"

    def write_history(self, history: History) -> None:
        """Write history.jsonl, a line for each epoch.

        Args:
            history: All epochs so far.
        """
        write_atomic(self.path / "history.jsonl", history.to_jsonl().encode())

    def write_model(self, model: Model) -> None:
        """Write model.safetensors.

        Args:
            model: With the best weights.
        """
        model.save(self.path / "model.safetensors")

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write metrics.json.

        Args:
            metrics: Numbers by part.
        """
        self._write_json("metrics.json", metrics)

    def _write_json(self, name: str, document: Any) -> None:
        write_atomic(self.path / name, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())


def to_toml(settings: dict[str, Any]) -> str:
    """Return settings as TOML, None left out.

    Args:
        settings: Plain data, tables within tables.

    Raises:
        OptionError: For what is no plain data.
    """
    import tomli_w

    def clean(values: dict[str, Any]) -> dict[str, Any]:
        return {k: clean(v) if isinstance(v, dict) else v for k, v in values.items() if v is not None}

    try:
        return tomli_w.dumps(clean(settings))
    except (TypeError, ValueError) as error:
        raise OptionError(f"settings must be plain data such as numbers, texts and lists ({error})") from None


def check_same_settings(now: dict[str, Any], then: dict[str, Any]) -> None:
    """Refuse to resume with other settings.

    Args:
        now: Of this call.
        then: Of the run.

    Raises:
        OptionError: Names all settings that differ, with both values.
    """
    found = [
        f"{name} was {before!r:.80}, now it is {after!r:.80}"
        for name, before, after in _differences("", then, json.loads(json.dumps(now)))
    ]
    if found:
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
        raise OptionError(
            f"cannot resume: {'; '.join(found[:5])}{more}; resume with what the run began with, or start a new run"
        )


def other_host(now: dict[str, str], then: dict[str, str] | None) -> str:
    """Return what a resumed run would be computed with otherwise, in words; "" where there is nothing.

    Args:
        now: As host.computes_with gives it.
        then: Of the run; None where its checkpoint does not say.
    """
    before = now if then is None else then
    found = ", ".join(
        f"{name} {before.get(name, 'none')} (here {now.get(name, 'none')})"
        for name in {**now, **before}
        if before.get(name) != now.get(name)
    )
    return f"this run was computed with {one_line(found)}: it may end with other bits" if found else ""


def _differences(name: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted name, before, after) of what differs in two documents; of things of two kinds only the kinds."""
    inside: list[tuple[str, Any, Any]] = []
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted({*before, *after})
        kinds = [key for key in ("name", "layer") if before.get(key) != after.get(key)]
        inside = [(key, before.get(key), after.get(key)) for key in kinds or keys]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        inside = [(str(i), *values) for i, values in enumerate(zip(before, after, strict=True))]
    elif before != after:
        yield name, before, after
    for key, old, new in inside:
        yield from _differences(f"{name}.{key}" if name else key, old, new)
