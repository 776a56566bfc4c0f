"""How objects that are made from plain arguments show themselves."""

from __future__ import annotations

import html
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pellucid.errors import one_line

if TYPE_CHECKING:
    from pellucid._types import Array


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


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> str:
    """Return a table as HTML for a notebook; every text is escaped and on one line.

    Args:
        title: Above it.
        head: Names of the columns.
        rows: A cell for each column; what is no text stands at the right.
        note: Below it; none if empty.

    >>> table("a <b>", ["x"], [[1]])
    '<p><b>a &lt;b&gt;</b></p><table><tr><th>x</th></tr><tr><td style="text-align: right">1</td></tr></table>'
    """
    lines = ["".join(f"<th>{_text(name)}</th>" for name in head)] if head else []
    for row in rows:
        cells = []
        for value in row:
            side = "left" if isinstance(value, str) else "right"
            cells.append(f'<td style="text-align: {side}">{_text(value)}</td>')
        lines.append("".join(cells))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<p><b>{_text(title)}</b></p><table>{body}</table>" + (f"<p>{_text(note)}</p>" if note else "")


def strip(images: Array, alt: str, largest: int = 48) -> str:
    """Return small images side by side as HTML for a notebook: one picture within the page.

    Args:
        images: From 0 to 1, (K, H, W) or (K, H, W, 3).
        alt: What a reader who does not see them should know.
        largest: Longer sides are thinned out to so many pixels.
    """
    import io

    import numpy as np
    from PIL import Image

    step = -(-max(images.shape[1:3]) // largest)
    thin = images[:, ::step, ::step]
    row = np.concatenate(
        [np.pad(i, [(0, 0), (0, 1), *[(0, 0)] * (i.ndim - 2)], constant_values=1) for i in thin], axis=1
    )
    buffer = io.BytesIO()
    Image.fromarray(np.round(255 * row).astype(np.uint8)).save(buffer, format="PNG")
    return picture(buffer.getvalue(), alt, f"height: {largest}px; image-rendering: pixelated")


def picture(png: bytes, alt: str, style: str = "max-width: 100%") -> str:
    """Return a PNG file as HTML that holds it.

    Args:
        png: The file's bytes.
        alt: What a reader who does not see it should know.
        style: CSS.
    """
    import base64

    return f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" alt="{_text(alt)}" style="{style}">'


def _text(value: object) -> str:
    return html.escape(one_line(value, 200))
