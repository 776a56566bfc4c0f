"""JSON that can be read in one way only: what stands in files, and in specs from outside."""

from __future__ import annotations

import json
from typing import Any


def dumps(document: object) -> str:
    """Return plain data as the one JSON text that stands for it: sorted keys, no spaces, ASCII, no NaN.

    Args:
        document: Plain data.

    >>> dumps({"b": 1, "a": [0.5, None]})
    '{"a":[0.5,null],"b":1}'
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def loads(text: bytes | str) -> Any:
    """Return what a JSON text holds.

    Args:
        text: UTF-8 if bytes; spaces and the order of keys are free.

    Raises:
        ValueError: For what is no JSON, a key that stands twice, NaN, infinity, an integer beyond 64 bits, or
            data nested too deep.

    >>> loads('{"a": [1, 2]}')
    {'a': [1, 2]}
    """
    try:
        content = text if isinstance(text, str) else text.decode()  # json would take UTF-16 too
        return json.loads(content, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key stands twice")
    return document


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _integer(digits: str) -> int:
    # Arithmetic with longer integers takes any time, and Python refuses to print the longest.
    if len(digits) > 20 or not -(1 << 63) <= int(digits) < 1 << 63:
        raise ValueError("an integer has more than 64 bits")
    return int(digits)
