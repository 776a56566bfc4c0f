"""Training: fit, its loop, its history, and the folder that a run leaves."""

from pellucid.training.callbacks import Callback, EarlyStopping
from pellucid.training.comparison import Comparison, Contender, compare
from pellucid.training.history import History, Row
from pellucid.training.run import Run, default_part, evaluate, fit, reconstruction_errors

__all__ = [
    "Callback",
    "Comparison",
    "Contender",
    "EarlyStopping",
    "History",
    "Row",
    "Run",
    "compare",
    "default_part",
    "evaluate",
    "fit",
    "reconstruction_errors",
]
