"""How objects that are made from plain arguments show themselves."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any


def arguments(made: object) -> dict[str, Any]:
    """Return the constructor's arguments of an object that keeps them under their own names; others are left out.

    Args:
        made: Any object.
    """
    names = inspect.signature(type(made)).parameters
    return {name: getattr(made, name) for name in names if hasattr(made, name)}


def call(kind: type, config: Mapping[str, Any], always: tuple[str, ...] = ()) -> str:
    """Return the call that makes an object, without the arguments that have their default.

    Args:
        kind: The object's class.
        config: Its constructor's arguments.
        always: Arguments that are shown in any case.

    >>> class Window:
    ...     def __init__(self, size, stride=1): ...
    >>> call(Window, {"size": 3, "stride": 1}), call(Window, {"size": 3, "stride": 2})
    ('Window(3)', 'Window(3, stride=2)')
    """
    parameters = inspect.signature(kind).parameters
    words = []
    for name, value in config.items():
        default = parameters[name].default
        if default is inspect.Parameter.empty:
            words.append(repr(value))
        elif name in always or value not in (default, (default, default)):
            words.append(f"{name}={value!r}")
    return f"{kind.__name__}({', '.join(words)})"
