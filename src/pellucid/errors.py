"""Every error that pellucid raises on purpose.

::

    PellucidError
    ├── OptionError (ValueError)       an argument, a setting or a name that cannot be
    ├── ShapeError (ValueError)        arrays or layers whose sizes do not fit
    ├── DataError (ValueError)         a data set or an image that cannot be used
    ├── FileError (ValueError)         a file that cannot be read, written or trusted
    ├── EngineError                    a network that an engine cannot run
    ├── TrainingError                  a training that cannot go on
    └── MissingDependencyError (ImportError)

A message is one line: what was expected, what came, and the likely cure.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PellucidError(Exception):
    """Root of every error that pellucid raises on purpose."""


class OptionError(PellucidError, ValueError):
    """An argument, a setting or a name that cannot be."""


class ShapeError(PellucidError, ValueError):
    """Arrays or layers whose sizes do not fit."""


class DataError(PellucidError, ValueError):
    """A data set or an image that cannot be used."""


class FileError(PellucidError, ValueError):
    """A file that cannot be read, written or trusted."""


class EngineError(PellucidError):
    """A network that an engine cannot run."""


class TrainingError(PellucidError):
    """A training that cannot go on."""


class MissingDependencyError(PellucidError, ImportError):
    """An optional package that is not installed; the message holds the line that installs it."""


def one_line(text: object, limit: int = 400) -> str:
    """Return a text that a file may have made up as one short line: control characters are spelled out.

    Args:
        text: Anything.
        limit: Longer ones are cut.

    >>> one_line("a\\nb")
    'a\\\\nb'
    """
    long = str(text)
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in long[:limit])
    return f"{shown}..." if len(long) > limit else shown


def unknown(kind: str, name: object, known: Iterable[str]) -> OptionError:
    """Return the error for a name that is not among the known ones, with the nearest of them.

    Args:
        kind: What the name stands for, as in "model".
        name: What was given.
        known: The names that exist.

    >>> str(unknown("model", "lenet", ["lenet5", "mlp"]))
    'unknown model "lenet"; did you mean "lenet5"? Known: lenet5, mlp'
    """
    names = list(known)
    spelled = {known_name.lower(): known_name for known_name in names}
    near = difflib.get_close_matches(str(name).lower(), spelled, n=1, cutoff=0.5)
    hint = f'; did you mean "{spelled[near[0]]}"?' if near else ";"
    return OptionError(f'unknown {kind} "{name}"{hint} Known: {", ".join(names)}')
