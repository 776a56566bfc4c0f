"""What each operator of ONNX becomes."""

from __future__ import annotations

from collections.abc import Callable

from pellucid.interop.onnx import layers, pointwise, views, windows
from pellucid.interop.onnx.call import Call, Value
from pellucid.interop.onnx.fold import FOLDS
from pellucid.interop.onnx.places import View

OPERATORS: dict[str, Callable[[Call], View]] = {
    **views.READERS,
    **windows.READERS,
    **layers.READERS,
    **pointwise.READERS,
}


def read(call: Call) -> Value:
    """Return what a node gives.

    Args:
        call: The node with its inputs.

    Raises:
        FileError: For an operator, attribute or shape outside the scope.
    """
    op = call.node.op
    if op == "Shape" or not any(isinstance(value, View) for value in call.inputs):
        if op not in FOLDS:
            raise call.refuse("is not computed on constants")
        made: Value = FOLDS[op](call)
    elif op not in OPERATORS:
        raise call.refuse("is not one that pellucid has a layer for")
    else:
        made = OPERATORS[op](call)
    call.end()
    return made
