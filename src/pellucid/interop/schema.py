"""The schemas of the facts in model files and checkpoints."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from pellucid.data.dataset import rises
from pellucid.shapes import text

Size = Annotated[int, Field(ge=1, le=1 << 16)]
Count = Annotated[int, Field(ge=0)]
# Numbers that float32 holds, and their inverses too.
Moderate = Annotated[float, Field(gt=-1e37, lt=1e37)]
Positive = Annotated[float, Field(gt=1e-37, lt=1e37)]
Bounds = tuple[FiniteFloat, FiniteFloat]
_LARGEST_INPUT = 1 << 26


class Strict(BaseModel):
    """Takes what is named and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(Strict):
    """The fields of an InputSpec."""

    shape: tuple[Size, Size, Size]
    value_range: tuple[FiniteFloat, FiniteFloat]
    mean: tuple[Moderate, ...]
    std: tuple[Positive, ...]
    polarity: Literal["dark", "light", "mixed"]
    preparation: Literal["resize", "digit"]

    @model_validator(mode="after")
    def _fits(self) -> Input:
        if not rises(*self.value_range):
            raise ValueError("value_range must rise")
        if math.prod(self.shape) > _LARGEST_INPUT:
            raise ValueError(f"an image of {text(self.shape)} numbers is too large")
        if len(self.mean) != self.shape[0] or len(self.std) != self.shape[0]:
            raise ValueError("mean and std need one number for each channel")
        return self


class Novelty(Strict):
    """The fields of a Novelty."""

    looks: tuple[Bounds, Bounds, Bounds, Bounds]
    evidence: tuple[FiniteFloat, ...]


class Facts(Strict):
    """What a model is beside its network."""

    input: Input
    classes: tuple[str, ...]
    metrics: dict[str, FiniteFloat | None]
    data_digest: str
    novelty: Novelty | None = None

    @model_validator(mode="after")
    def _classes_fit(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class name stands twice")
        if self.novelty is not None and len(self.novelty.evidence) != len(self.classes):
            raise ValueError("novelty needs one threshold for each class")
        return self


class Document(Facts):
    """What stands beside the tensors of a model file; the digest is checked and taken out before."""

    format: Literal[1, 2]
    kind: Literal["model"]
    network: dict[str, Any]


class OnnxDocument(Facts):
    """What stands beside the graph of an ONNX file that was exported of a model."""

    format: Literal[1]
    kind: Literal["onnx"]
    preprocessing: bool


class Epoch(Strict):
    """A row of the history."""

    epoch: Count
    train_loss: FiniteFloat
    train_accuracy: FiniteFloat | None
    val_loss: FiniteFloat | None
    val_accuracy: FiniteFloat | None
    lr: FiniteFloat
    seconds: FiniteFloat


class Sums(Strict):
    """What was added up since the epoch began."""

    loss: FiniteFloat
    weight: FiniteFloat
    hits: FiniteFloat


class Training(Strict):
    """Where a training stands."""

    epoch: Count
    step: Count
    seen: Count
    sums: Sums
    history: tuple[Epoch, ...]
    warnings: tuple[str, ...]
    seconds: FiniteFloat
    stopped: str


class Checkpoint(Strict):
    """What stands beside the arrays of a checkpoint; format 1 does not say what computed it."""

    format: Literal[1, 2]
    kind: Literal["checkpoint"]
    computed_with: dict[str, str] | None = None
    settings: dict[str, Any]
    config: str
    training: Training
