"""What train can be told: from the command line, then from --config, then the defaults."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pellucid import schedules
from pellucid.errors import FileError, OptionError, unknown
from pellucid.files import read_bytes
from pellucid.optim import OPTIMIZERS, SGD, Optimizer, RMSprop

_PEAKS = {"adam": 3e-3, "adamw": 3e-3, "rmsprop": 1e-3, "sgd": 5e-2}


class Settings(BaseModel):
    """Every setting of a training, checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    data: str = "digits"
    model: str | None = None
    engine: str = "compiled"
    device: str = "cpu"
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(64, ge=1)
    optimizer: str = "adam"
    lr: float | None = Field(None, gt=0, allow_inf_nan=False)
    momentum: float | None = Field(None, ge=0, allow_inf_nan=False)
    weight_decay: float | None = Field(None, ge=0, allow_inf_nan=False)
    schedule: str = "onecycle"
    clip: float | None = Field(None, gt=0, allow_inf_nan=False)
    augment: str = "none"
    balance: bool = False
    size: str | None = None
    normalize: Literal["standard", "unit"] = "standard"
    val_fraction: float = Field(0.2, ge=0, lt=1)
    subset: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    threads: int | None = Field(None, ge=1)
    checkpoint_every: int | None = Field(None, ge=1)
    strict: bool = False

    @field_validator("lr", "momentum", "weight_decay", "clip", "val_fraction", mode="before")
    @classmethod
    def _whole_numbers_too(cls, value: object) -> object:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    def make_optimizer(self) -> Optimizer:
        """Return the optimizer that the settings describe."""
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, OPTIMIZERS)
        kind = OPTIMIZERS[self.optimizer]
        options: dict[str, Any] = {"lr": self.lr or _PEAKS[self.optimizer], "clip_norm": self.clip}
        if self.weight_decay is not None:
            options["weight_decay"] = self.weight_decay
        if self.momentum is not None:
            if kind not in (SGD, RMSprop):
                raise OptionError(f"momentum is for sgd and rmsprop; {self.optimizer} has its own")
            options["momentum"] = self.momentum
        elif kind is SGD:
            options["momentum"] = 0.9
        return kind(**options)

    def make_schedule(self) -> schedules.Schedule:
        """Return the schedule that the settings describe."""
        return schedules.by_name(self.schedule, self.epochs)

    def image_size(self) -> tuple[int, int] | None:
        """Return --size as (height, width)."""
        if self.size is None:
            return None
        parts = self.size.lower().split("x")
        if len(parts) in (1, 2) and all(p.isdecimal() and 0 < int(p) <= 4096 for p in parts):
            return int(parts[0]), int(parts[-1])
        raise OptionError(f"size must be HEIGHTxWIDTH such as 28x28, got {self.size!r}")


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds, or raise a FileError."""
    try:
        return parse_toml(read_bytes(path).decode(), str(path))
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not valid TOML: {error}") from None


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """Return what a text in TOML says, or raise a FileError.

    Args:
        text: The whole text.
        name: Where it stands, for errors.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{name} is not valid TOML: {error}") from None


def resolve(given: dict[str, Any], config: Path | None = None, recorded: dict[str, Any] | None = None) -> Settings:
    """Return the settings of a command line over those of a file over the defaults.

    Args:
        given: From the command line; None is not given.
        config: A TOML file, or None. Its table "resolved", which a run directory's has, is passed over.
        recorded: In place of a file: what a run holds that is resumed.

    Raises:
        OptionError: Names the setting, what is wrong, and what would be right.
    """
    values = dict(recorded or {}) if config is None else read_toml(config)
    values.pop("resolved", None)
    for name in values:
        if name not in Settings.model_fields:
            raise OptionError(f"{config or 'last.ckpt'}: {unknown('setting', name, Settings.model_fields)}")
    values.update({name: value for name, value in given.items() if value is not None})
    for name, value in values.items():
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            raise OptionError(f"setting {name}: a whole number must fit 64 bits")
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        reason = first["msg"][:1].lower() + first["msg"][1:]
        raise OptionError(f"setting {name}: {reason}, got {first['input']!r:.80}") from None
