"""Constants of a graph, and the arithmetic on shapes that exporters leave in it.

Shapes depend on the batch, so each constant is known for two sizes of batch: where both agree it depends on none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid._types import Array
from pellucid.errors import FileError

if TYPE_CHECKING:
    from pellucid.interop.onnx.call import Call

_LARGEST = 1 << 16
_CAST = {1: "f4", 6: "i4", 7: "i8", 9: "b1", 11: "f8"}


@dataclass(eq=False)
class Known:
    """A value that does not depend on the network's input.

    Attributes:
        arrays: The value for each of the two sizes of batch.
    """

    arrays: tuple[Array, Array]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return max(array.size for array in self.arrays)


def constant(value: Known, where: str) -> Array:
    """Return a value that must not depend on the batch.

    Args:
        value: The value.
        where: It is needed, for errors.

    Raises:
        FileError: Where it depends on the batch.
    """
    first, second = value.arrays
    if first is not second and not np.array_equal(first, second):
        raise FileError(f"{where} takes a number that depends on the size of the batch")
    return first


def _folded(function: Callable[..., Array]) -> Callable[[Call], Known]:
    """Return the reader of an operator whose inputs are all known; function takes the call, then the inputs."""

    def read(call: Call) -> Known:
        known = [value for value in call.inputs if isinstance(value, Known)]
        attributes = dict(call.node.attributes)
        for name in attributes:
            call.attribute(name)
        both = []
        for number in (0, 1):
            given = [value.arrays[number] if isinstance(value, Known) else None for value in call.inputs]
            try:
                with np.errstate(all="ignore"):
                    both.append(np.asarray(function(call, attributes, *given)))
            except (ValueError, TypeError, IndexError, KeyError, OverflowError, AttributeError):
                raise call.refuse("cannot be computed of the constants that it gets") from None
            if both[-1].size > max(_LARGEST, *(value.size for value in known), 0) or both[-1].dtype.kind not in "fib":
                raise call.refuse("gives a constant that is too large")
            if number == 0 and all(value.arrays[0] is value.arrays[1] for value in known):
                return Known((both[0], both[0]))
        return Known((both[0], both[1]))

    return read


def _shape(call: Call) -> Known:
    from pellucid.interop.onnx.places import View

    value = call.inputs[0] if call.inputs else None
    start, end = call.attribute("start", 0), call.attribute("end")
    if isinstance(value, View):
        shapes = [(n, *value.shape) for n in call.batches]
    elif isinstance(value, Known):
        shapes = [array.shape for array in value.arrays]
    else:
        raise call.refuse("lacks its input")
    if end is not None and not isinstance(end, int):
        raise call.refuse("end must be an integer")
    first, second = (np.asarray(shape[start:end], dtype=np.int64) for shape in shapes)
    return Known((first, second))


def _constant(call: Call) -> Known:
    kinds = {"value": None, "value_float": np.float32, "value_int": np.int64, "value_floats": np.float32}
    for name, dtype in {**kinds, "value_ints": np.int64}.items():
        value = call.attribute(name)
        if value is not None:
            array = np.asarray(value, dtype=dtype)
            return Known((array, array))
    raise call.refuse("holds no tensor of numbers")


def _bounded(shape: Any) -> list[int]:
    """Return a shape that an array may be made of."""
    sizes = [int(n) for n in shape]
    if min(sizes, default=1) < 0 or math.prod(sizes) > _LARGEST:
        raise ValueError
    return sizes


def _wide(*arrays: Array) -> None:
    """Refuse what would broadcast to a large array."""
    size = math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))
    if size > max(_LARGEST, *(array.size for array in arrays)):
        raise ValueError


def _each(function: Callable[..., Array]) -> Callable[[Call], Known]:
    def compute(call: Call, attributes: dict[str, Any], *arrays: Array) -> Array:
        _wide(*arrays)
        kinds = {array.dtype for array in arrays}
        y = np.asarray(function(*arrays))
        return y.astype(next(iter(kinds))) if len(kinds) == 1 and y.dtype.kind == "f" else y

    return _folded(compute)


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == b.dtype.kind == "i":
        if (b == 0).any():
            raise ValueError
        return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)))
    return np.asarray(a / b)


def _axes(call: Call, attributes: dict[str, Any], given: Array | None) -> list[int] | None:
    axes = attributes.get("axes") if given is None else given.ravel().tolist()
    return None if axes is None else [int(n) for n in axes]


def _gather(call: Call, attributes: dict[str, Any], x: Array, indices: Array) -> Array:
    if indices.size * max(x.size, 1) > _LARGEST * 8:
        raise ValueError
    return np.take(x, indices, attributes.get("axis", 0))


def _unsqueeze(call: Call, attributes: dict[str, Any], x: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(x, tuple(_axes(call, attributes, axes) or ()))


def _squeeze(call: Call, attributes: dict[str, Any], x: Array, axes: Array | None = None) -> Array:
    gone = _axes(call, attributes, axes)
    return np.squeeze(x, None if gone is None else tuple(gone))


def _concat(call: Call, attributes: dict[str, Any], *arrays: Array) -> Array:
    if sum(array.size for array in arrays) > _LARGEST:
        raise ValueError
    return np.concatenate(arrays, attributes.get("axis", 1 if call.opset < 4 else None) or 0)


def _cast(call: Call, attributes: dict[str, Any], x: Array) -> Array:
    return x.astype(_CAST[attributes["to"]])


def _slice(
    call: Call,
    attributes: dict[str, Any],
    x: Array,
    starts: Array | None = None,
    ends: Array | None = None,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Array:
    begin = attributes["starts"] if starts is None else starts.tolist()
    end = attributes["ends"] if ends is None else ends.tolist()
    chosen = _axes(call, attributes, axes) or list(range(len(begin)))
    step = [1] * len(begin) if steps is None else steps.tolist()
    cut = [slice(None)] * x.ndim
    for axis, first, last, by in zip(chosen, begin, end, step, strict=True):
        # Behind the beginning, counted backwards, is what ONNX writes as a very negative end.
        stop = None if by < 0 and last < -x.shape[axis] else last
        cut[axis] = slice(first, stop, by)
    return x[tuple(cut)]


def _reshape(call: Call, attributes: dict[str, Any], x: Array, shape: Array) -> Array:
    sizes = [int(n) for n in shape]
    if not attributes.get("allowzero", 0):
        sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    return x.reshape(sizes)


def _transpose(call: Call, attributes: dict[str, Any], x: Array) -> Array:
    return x.transpose(attributes.get("perm"))


def _constant_of_shape(call: Call, attributes: dict[str, Any], shape: Array) -> Array:
    value = np.asarray(attributes.get("value", np.zeros(1, dtype=np.float32)))
    return np.full(_bounded(shape), value.ravel()[0], dtype=value.dtype)


def _expand(call: Call, attributes: dict[str, Any], x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(_bounded(shape))))


def _product(call: Call, attributes: dict[str, Any], x: Array, axes: Array | None = None) -> Array:
    gone = _axes(call, attributes, axes)
    keeps = bool(attributes.get("keepdims", 1))
    return np.asarray(np.prod(x, axis=None if gone is None else tuple(gone), keepdims=keeps, dtype=x.dtype))


FOLDS: dict[str, Callable[[Call], Known]] = {
    "Abs": _each(np.abs),
    "Add": _each(np.add),
    "Cast": _folded(_cast),
    "Ceil": _each(np.ceil),
    "Concat": _folded(_concat),
    "Constant": _constant,
    "ConstantOfShape": _folded(_constant_of_shape),
    "Div": _each(_divide),
    "Equal": _each(np.equal),
    "Expand": _folded(_expand),
    "Floor": _each(np.floor),
    "Gather": _folded(_gather),
    "Identity": _folded(lambda call, attributes, x: x),
    "Max": _each(lambda *arrays: np.max(np.broadcast_arrays(*arrays), axis=0)),
    "Min": _each(lambda *arrays: np.min(np.broadcast_arrays(*arrays), axis=0)),
    "Mod": _each(np.mod),
    "Mul": _each(np.multiply),
    "Neg": _each(np.negative),
    "ReduceProd": _folded(_product),
    "Reshape": _folded(_reshape),
    "Shape": _shape,
    "Slice": _folded(_slice),
    "Sqrt": _each(np.sqrt),
    "Squeeze": _folded(_squeeze),
    "Sub": _each(np.subtract),
    "Transpose": _folded(_transpose),
    "Unsqueeze": _folded(_unsqueeze),
    "Where": _each(np.where),
}
