"""Operators that only look at the same numbers in another way, or do nothing in inference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from pellucid.interop.onnx.call import Call
from pellucid.interop.onnx.fold import Known
from pellucid.interop.onnx.graph import FLOAT
from pellucid.interop.onnx.places import LARGEST_ORDER, View
from pellucid.shapes import text


def _reshape_to(call: Call, view: View, targets: Sequence[Sequence[int]]) -> View:
    """Reshape to a shape that is given for both batches; the batch must stay the first axis."""
    shapes = set()
    for n, target in zip(call.batches, targets, strict=True):
        shape = tuple(target)
        if shape.count(-1) == 1:
            known = -math.prod(shape)
            if known <= 0 or n * math.prod(view.shape) % known:
                raise call.refuse(f"N x {text(view.shape)} cannot become {shape}")
            shape = tuple(n * math.prod(view.shape) // known if size == -1 else size for size in shape)
        if not shape or shape[0] != n or math.prod(shape) != n * math.prod(view.shape) or min(shape) < 1:
            raise call.refuse(f"N x {text(view.shape)} becomes {shape}; the batch must stay the first axis")
        shapes.add(shape[1:])
    if len(shapes) != 1:
        raise call.refuse("the shape of an image depends on the batch")
    return view.reshaped(shapes.pop())


def _reshape(call: Call) -> View:
    view, target, keeps_zeros = call.view(), call.inputs[1] if call.given(1) else None, call.attribute("allowzero", 0)
    if not isinstance(target, Known) or any(a.ndim != 1 or a.dtype.kind != "i" or a.size > 16 for a in target.arrays):
        raise call.refuse("its shape must be a list of integers that the file holds, or is computed from shapes")
    targets = []
    for n, array in zip(call.batches, target.arrays, strict=True):
        before, wanted = (n, *view.shape), [int(size) for size in array]
        if not keeps_zeros:
            wanted = [before[i] if size == 0 and i < len(before) else size for i, size in enumerate(wanted)]
        targets.append(wanted)
    return _reshape_to(call, view, targets)


def _flatten(call: Call) -> View:
    view = call.view()
    axis = call.attribute("axis", 1)
    if axis not in (1, 1 - (len(view.shape) + 1)):
        raise call.refuse("flattens the batch too; pellucid keeps it apart")
    return view.reshaped((math.prod(view.shape),))


def reduced_axes(call: Call, since: int) -> list[int] | None:
    """Return axes, which are an input since some opset and were an attribute before.

    Args:
        call: Of the operator.
        since: Which opset.
    """
    if call.opset < since:
        axes = call.attribute("axes")
        return None if axes is None else [int(n) for n in axes]
    return call.integers(1) if call.given(1) else None


def _squeeze(call: Call) -> View:
    view, axes = call.view(), reduced_axes(call, 13)
    rank = len(view.shape) + 1
    gone = {i + 1 for i, n in enumerate(view.shape) if n == 1} if axes is None else {call.axis(a, rank) for a in axes}
    if 0 in gone or any(view.shape[a - 1] != 1 for a in gone) or (axes is None and 1 in call.batches):
        raise call.refuse(f"cannot take the axes {sorted(gone)} out of N x {text(view.shape)}")
    return view.reshaped(tuple(n for i, n in enumerate(view.shape) if i + 1 not in gone))


def _unsqueeze(call: Call) -> View:
    view, axes = call.view(), reduced_axes(call, 13) or []
    rank = len(view.shape) + 1 + len(axes)
    new = {call.axis(a, rank) for a in axes}
    if 0 in new or len(new) != len(axes) or rank > 8:
        raise call.refuse(f"cannot put the axes {axes} into N x {text(view.shape)}")
    rest = iter(view.shape)
    return view.reshaped(tuple(1 if i in new else next(rest) for i in range(1, rank)))


def _transpose(call: Call) -> View:
    view = call.view()
    rank = len(view.shape) + 1
    axes = call.attribute("perm", list(range(rank))[::-1])
    if sorted(axes) != list(range(rank)) or axes[0] != 0:
        raise call.refuse(f"perm = {axes!r:.60}; the batch must stay the first of {rank} axes")
    return view.seen(view.places().transpose([a - 1 for a in axes[1:]]))


def _tile(call: Call) -> View:
    view, repeats = call.view(), call.integers(1)
    if len(repeats) != len(view.shape) + 1 or repeats[0] != 1 or min(repeats) < 1:
        raise call.refuse(f"repeats = {repeats!r:.60} of N x {text(view.shape)}; the batch cannot be repeated")
    if math.prod(view.shape) * math.prod(repeats) > LARGEST_ORDER:
        raise call.refuse("gives maps that are too large")
    return view.seen(np.tile(view.places(), repeats[1:]))


def _slice(call: Call) -> View:
    raise call.refuse("cuts maps or features; pellucid has no layer for that")


def _identity(call: Call) -> View:
    return call.view()


def _cast(call: Call) -> View:
    if call.attribute("to", 0) != FLOAT:
        raise call.refuse("only float32 is read")
    return replace(call.view(), integer=False)


def _dropout(call: Call) -> View:
    call.attribute("ratio", 0.5)
    call.attribute("seed")
    training = call.opset < 7 and not call.attribute("is_test", 0)
    if training or (call.given(2) and bool(call.constant(2).any())):
        raise call.refuse("drops numbers; export the network for inference")
    return call.view()


READERS: dict[str, Callable[[Call], View]] = {
    "Cast": _cast,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Identity": _identity,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
