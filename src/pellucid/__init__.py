"""pellucid: convolutional networks for images that one can see through.

    import pellucid as pl
    ds = pl.data.load("digits")
    net = pl.models.create("block_cnn", ds.shape, len(ds.classes))
    run = pl.fit(net, ds, out="runs/digits")
    run.evaluate().accuracy

Everything is imported when it is first used, so that importing pellucid takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pellucid.errors import (
    DataError,
    EngineError,
    FileError,
    MissingDependencyError,
    OptionError,
    PellucidError,
    ShapeError,
    TrainingError,
)

if TYPE_CHECKING:
    from pellucid import (
        arithmetic,
        data,
        engines,
        explain,
        filters,
        functional,
        interop,
        metrics,
        models,
        nn,
        optim,
        random,
        schedules,
        testing,
    )
    from pellucid.model import InputSpec, Model, Prediction, load
    from pellucid.summary import summarize
    from pellucid.training import Callback, EarlyStopping, Run, compare, evaluate, fit

__version__ = "0.1.0"

_MODULES = (
    "arithmetic",
    "data",
    "engines",
    "explain",
    "filters",
    "functional",
    "interop",
    "metrics",
    "models",
    "nn",
    "optim",
    "random",
    "schedules",
    "testing",
)
_HOMES = {
    "Callback": "pellucid.training",
    "EarlyStopping": "pellucid.training",
    "InputSpec": "pellucid.model",
    "Model": "pellucid.model",
    "Prediction": "pellucid.model",
    "Run": "pellucid.training",
    "compare": "pellucid.training",
    "evaluate": "pellucid.training",
    "fit": "pellucid.training",
    "load": "pellucid.model",
    "summarize": "pellucid.summary",
}

__all__ = [
    "Callback",
    "DataError",
    "EarlyStopping",
    "EngineError",
    "FileError",
    "InputSpec",
    "MissingDependencyError",
    "Model",
    "OptionError",
    "PellucidError",
    "Prediction",
    "Run",
    "ShapeError",
    "TrainingError",
    "arithmetic",
    "compare",
    "data",
    "engines",
    "evaluate",
    "explain",
    "filters",
    "fit",
    "functional",
    "interop",
    "load",
    "metrics",
    "models",
    "nn",
    "optim",
    "random",
    "schedules",
    "summarize",
    "testing",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"pellucid.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pellucid' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
