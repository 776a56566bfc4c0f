"""The folder of a run: what was asked, what was learned, and how well it does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pellucid._types import Array
from pellucid.data.dataset import Dataset, Splits
from pellucid.errors import FileError, OptionError
from pellucid.files import read_bytes, write_atomic
from pellucid.interop import sealed
from pellucid.interop.model_file import FORMAT
from pellucid.model import Model
from pellucid.training.history import History


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
        folder = Path(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise FileError(f"{folder} is not empty; give another folder, or resume the run that is there")
        except OSError as error:
            raise FileError(f"cannot make the folder {folder}: {error.strerror or error}") from error
        return cls(folder)

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

    def write_checkpoint(self, arrays: dict[str, Array], facts: dict[str, Any], settings: dict[str, Any]) -> None:
        """Write last.ckpt: everything that is needed to go on.

        Args:
            arrays: Flat arrays by name.
            facts: Position, sums, history.
            settings: What a resume must agree with.
        """
        document = {"format": FORMAT, "kind": "checkpoint", "settings": settings, "training": facts}
        write_atomic(self.path / "last.ckpt", sealed.pack(arrays, document))

    @property
    def has_results(self) -> bool:
        """Whether something was learned that a new start would lose."""
        return any((self.path / name).exists() for name in ("model.safetensors", "history.jsonl"))

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from."""
        return (self.path / "last.ckpt").exists()

    def read_checkpoint(self) -> tuple[dict[str, Array], dict[str, Any], dict[str, Any]]:
        """Return arrays, facts and settings of last.ckpt.

        Raises:
            FileError: Where it cannot be read, or is damaged.
        """
        from pellucid.interop.schema import Checkpoint

        arrays, document = sealed.read(self.path / "last.ckpt", "checkpoint", FORMAT, Checkpoint)
        return arrays, document.training.model_dump(mode="json"), document.settings

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
        then: Of the checkpoint.

    Raises:
        OptionError: Names the first setting that differs.
    """
    plain = json.loads(json.dumps(now))
    if plain != then:
        name, before, after = _first_difference("", then, plain)
        raise OptionError(
            f"cannot resume: {name} was {before!r:.80}, now it is {after!r:.80}; leave it out, or start a new run"
        )


def _first_difference(name: str, before: Any, after: Any) -> tuple[str, Any, Any]:
    """Return (dotted name, before, after) of the first value that differs in two documents; kinds before the rest."""
    inside: list[tuple[str, Any, Any]] = []
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted({*before, *after}, key=lambda key: (key not in ("name", "layer"), key))
        inside = [(key, before.get(key), after.get(key)) for key in keys]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        inside = [(str(i), *values) for i, values in enumerate(zip(before, after, strict=True))]
    for key, old, new in inside:
        if old != new:
            return _first_difference(f"{name}.{key}" if name else key, old, new)
    return name, before, after
