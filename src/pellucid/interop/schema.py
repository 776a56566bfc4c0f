"""The schema of a model file's facts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

Size = Annotated[int, Field(ge=1, le=1 << 16)]
Positive = Annotated[FiniteFloat, Field(gt=0)]


class Strict(BaseModel):
    """Takes what is named and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(Strict):
    """The fields of an InputSpec."""

    shape: tuple[Size, Size, Size]
    value_range: tuple[FiniteFloat, FiniteFloat]
    mean: tuple[FiniteFloat, ...]
    std: tuple[Positive, ...]
    polarity: Literal["dark", "light"]
    preparation: Literal["resize"]

    @model_validator(mode="after")
    def _fits(self) -> Input:
        if not self.value_range[0] < self.value_range[1]:
            raise ValueError("value_range must rise")
        if len(self.mean) != self.shape[0] or len(self.std) != self.shape[0]:
            raise ValueError("mean and std need one number for each channel")
        return self


class Document(Strict):
    """What stands beside the tensors; the digest is checked and taken out before."""

    format: Literal[1]
    kind: Literal["model"]
    network: dict[str, Any]
    input: Input
    classes: tuple[str, ...]
    metrics: dict[str, FiniteFloat | None]
    data_digest: str
