"""A node of a graph with the values that it is given, and what may be asked of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from pellucid import nn
from pellucid._types import Array, Shape
from pellucid.errors import FileError
from pellucid.interop.onnx.fold import Known, constant
from pellucid.interop.onnx.graph import Node
from pellucid.interop.onnx.places import Place, View
from pellucid.nn import Layer
from pellucid.shapes import text

Value: TypeAlias = View | Known


class Call:
    """A node with the values of its inputs.

    Attributes are taken one by one; one that nobody takes is refused at the end, so that nothing is passed over.

    Args:
        node: The node.
        inputs: A value for each of its inputs, None for one that is absent.
        opset: Version of the operators.
        batches: The sizes of batch for which shapes are computed.
    """

    def __init__(self, node: Node, inputs: Sequence[Value | None], opset: int, batches: tuple[int, int]) -> None:
        self.node, self.inputs, self.opset, self.batches = node, list(inputs), opset, batches
        self._left = dict(node.attributes)

    def __str__(self) -> str:
        return str(self.node)

    def refuse(self, why: str) -> FileError:
        """Return the error for what the operator does.

        Args:
            why: What is outside the scope.
        """
        return FileError(f"{self}: {why}")

    def attribute(self, name: str, default: Any = None) -> Any:
        """Take an attribute.

        Args:
            name: Its name.
            default: For one that is absent; its type is the type that the attribute must have.
        """
        value = self._left.pop(name, default)
        if default is not None and type(value) is not type(default):
            raise self.refuse(f"the attribute {name} is {value!r:.60}")
        return value

    def numbers(self, name: str, count: int, default: int) -> Shape:
        """Take an attribute that has one integer for each axis.

        Args:
            name: Its name.
            count: How many there must be.
            default: Each of them where it is absent.
        """
        value = self.attribute(name, [default] * count)
        if len(value) != count or not all(isinstance(n, int) for n in value):
            raise self.refuse(f"the attribute {name} is {value!r:.60}, expected {count} integers")
        return tuple(value)

    def end(self) -> None:
        """Refuse attributes that were not taken."""
        if self._left:
            name, value = next(iter(self._left.items()))
            raise self.refuse(f"the attribute {name} = {value!r:.60} is not one that pellucid reads")

    def given(self, number: int) -> bool:
        """Return whether an input is there.

        Args:
            number: Which.
        """
        return number < len(self.inputs) and self.inputs[number] is not None

    def view(self, number: int = 0) -> View:
        """Return an input that depends on the network's.

        Args:
            number: Which.
        """
        value = self.inputs[number] if self.given(number) else None
        if not isinstance(value, View):
            raise self.refuse(
                f"input {number} is {'absent' if value is None else 'a constant'}, expected maps or features"
            )
        if value.integer and self.node.op != "Cast":
            raise self.refuse("takes uint8, but only a Cast to float32 can")
        return value

    def constant(self, number: int) -> Array:
        """Return an input that does not depend on the network's, nor on the batch.

        Args:
            number: Which.
        """
        value = self.inputs[number] if self.given(number) else None
        if not isinstance(value, Known):
            raise self.refuse(f"input {number} must be a constant that the file holds")
        return constant(value, str(self))

    def integers(self, number: int) -> list[int]:
        """Return a constant input that is a list of integers.

        Args:
            number: Which.
        """
        array = self.constant(number)
        if array.dtype.kind != "i" or array.ndim > 1 or array.size > 64:
            raise self.refuse(f"input {number} must be a few integers, is {array.dtype} {array.shape}")
        return [int(n) for n in array.ravel()]

    def weight(self, number: int, ndim: int) -> Array:
        """Return a constant input that becomes a parameter.

        Args:
            number: Which.
            ndim: How many axes it must have.
        """
        array = self.constant(number)
        if array.dtype != np.float32 or array.ndim != ndim or not array.size:
            raise self.refuse(f"input {number} must be float32 with {ndim} axes, is {array.dtype} {array.shape}")
        if not np.isfinite(array).all():
            raise self.refuse(f"input {number} holds NaN or infinity")
        return array

    def axis(self, axis: int, rank: int) -> int:
        """Return an axis counted from the front.

        Args:
            axis: As ONNX counts, from behind where negative.
            rank: How many axes there are.
        """
        if not -rank <= axis < rank:
            raise self.refuse(f"there is no axis {axis} among {rank}")
        return axis % rank

    def add(self, view: View, layer: Layer, affine: bool = False) -> View:
        """Put a layer behind what a place gives, and return what it gives.

        Args:
            view: Of the place; it must be plain, unless the layer keeps the shape.
            layer: The layer.
            affine: Whether it was made up to scale and shift.
        """
        shape = layer.output_shape(view.source)
        place = Place(str(self), [view.place], shape, layer, affine=affine)
        return View(place, shape) if view.plain else view.at(place)

    def features(self, view: View) -> View:
        """Return a view of features, (N, K): of the place's output, flattened.

        Args:
            view: Of one axis.
        """
        if len(view.shape) != 1:
            raise self.refuse(f"takes features N x K, gets N x {text(view.shape)}")
        if len(view.source) == 1:
            return view
        flat = self.add(View(view.place, view.source), nn.Flatten())
        return replace(flat, shape=view.shape, order=view.order)

    def maps(self, view: View, dims: tuple[int, ...] = (1, 2, 3)) -> View:
        """Return plain maps (N, C, ...).

        Args:
            view: Any.
            dims: How many axes there may be behind the channels.
        """
        view = self.in_order(view)
        if len(view.shape) - 1 not in dims:
            raise self.refuse(f"gets N x {text(view.shape)}, which it cannot take")
        return view

    def in_order(self, view: View) -> View:
        """Return a view as a plain one, by layers that reshape or repeat.

        Args:
            view: Any.
        """
        if view.plain:
            return view
        if not view.shape:
            raise self.refuse("gets one number for each image, without an axis")
        if view.order is not None:
            return self._upsampled(view)
        flat = View(view.place, view.source)
        if len(view.source) > 1:
            flat = self.add(flat, nn.Flatten())
        return flat if len(view.shape) == 1 else self.add(flat, nn.Unflatten(1, view.shape))

    def _upsampled(self, view: View) -> View:
        """Return maps whose cells each are repeated, as exporters write upsampling."""
        before, after = view.source, view.shape
        fits = len(before) == len(after) > 1 and before[0] == after[0]
        factors = [a // b for b, a in zip(before, after, strict=True)] if fits else []
        order = np.arange(math.prod(before)).reshape(before) if fits else np.empty(0)
        for axis, factor in enumerate(factors):
            order = order.repeat(factor, axis)
        if not fits or not np.array_equal(order, view.places()):
            raise self.refuse(
                f"gets N x {text(after)} in an order that no layer brings them to (transposed, cut or repeated)"
            )
        return self.add(View(view.place, before), nn.Upsample(scale_factor=tuple(factors[1:])))


def fill(layer: Layer, **arrays: Array) -> Layer:
    """Return a layer with its parameters and buffers set.

    Args:
        layer: Made blank.
        **arrays: All of them, by name.

    Raises:
        FileError: For numbers beyond float32.
    """
    for name, array in arrays.items():
        with np.errstate(over="ignore"):
            value = array.astype(np.float32)
        if not np.isfinite(value).all():
            raise FileError(f"{name} is beyond the numbers of float32")
        setattr(layer, name, value)
    return layer
