"""A network: layers that were built together and keep their parameters in one flat array.

Building happens once. It clones layers that belong to another network, resolves lazy layers, checks every shape,
draws the parameters, and moves them into the flat array; a layer's weight is from then on a view into it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeAlias

import numpy as np

from pellucid._repr import table
from pellucid._types import Array, Shape
from pellucid.errors import DataError, OptionError, PellucidError, ShapeError
from pellucid.nn.layer import Gradients, Layer, check_dtype, join
from pellucid.random import Stream
from pellucid.shapes import LARGEST, integer, text

Steps: TypeAlias = list[tuple[str, Layer, Shape, Shape]]
"""(path, layer, input shape, output shape) of each layer."""

_INPUT = "the network's input"


class Network(Layer):
    """Base of the containers: children with names, and what a built network can do.

    Attributes:
        version: Grows with every change of parameters or buffers from outside; engines repack when it does.
        editing: Whether views can be written to at this moment; see edit().
    """

    def __init__(self) -> None:
        super().__init__()
        self._children: dict[str, Layer] = {}
        self.version = 0
        self.editing = False
        self._input_shape: Shape | None = None
        self._flat_parameters = np.empty(0, dtype=np.float32)
        self._flat_buffers = np.empty(0, dtype=np.float32)

    # What it consists of

    def children(self) -> Iterator[tuple[str, Layer]]:
        """Yield (name, layer) for each child, in the order of computation."""
        yield from self._children.items()

    @property
    def leaf_count(self) -> int:
        """How many places for a layer there are below, repeats counted."""
        return sum(child.leaf_count for _, child in self.children())

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Yield (path, layer) for every layer that is no container, in the order of computation, repeats included."""
        for name, child in self.children():
            yield from child.leaves(join(prefix, name))

    def _containers(self) -> Iterator[Network]:
        yield self
        for _, child in self.children():
            if isinstance(child, Network):
                yield from child._containers()

    def _merge_shared(self, gradients: Gradients) -> Gradients:
        """Add the gradients of a layer that stands at several places, under its first name."""
        first: dict[int, str] = {}
        for path, leaf in self.leaves():
            home = first.setdefault(id(leaf), path)
            if home != path:
                for name in leaf.parameter_names:
                    if join(path, name) in gradients:
                        gradients[join(home, name)] = gradients[join(home, name)] + gradients.pop(join(path, name))
        return gradients

    # Building

    @property
    def built(self) -> bool:
        """Whether the network was built as such (and not as a part of another)."""
        return self._network is self

    @property
    def input_shape(self) -> Shape:
        """Shape of one input, without the batch axis."""
        if not self.built or self._input_shape is None:
            raise OptionError("the network is not built yet; give input_shape=(C, H, W), or call fit")
        return self._input_shape

    def build(self, input_shape: Shape, seed: int = 0, dtype: str | None = None) -> Self:
        """Check every shape, draw the parameters that nobody assigned, and return the network itself.

        Args:
            input_shape: Shape of one input, as (C, H, W).
            seed: Same seed, same parameters.
            dtype: "float32" or "float64"; "float32" if None, unless astype has said otherwise.

        Raises:
            ShapeError: Where a layer cannot take what it gets; names the layer, what it gets, and a fix.
            OptionError: Where the network was built for another input or type before.
        """
        if not isinstance(input_shape, (tuple, list)) or not input_shape:
            raise OptionError(f"input_shape must be a tuple such as (1, 28, 28), got {input_shape!r}")
        shape = tuple(integer(n, "input_shape") for n in input_shape)
        if self.built:
            if shape != self.input_shape:
                raise OptionError(
                    f"the network was built for inputs {text(self.input_shape)}, not {text(shape)}; "
                    "a network is built once: make a new one, or resize the images"
                )
            if dtype is not None and check_dtype(dtype) != self.dtype:
                raise OptionError(f"the network was built in {self.dtype}; network.astype({dtype!r}) gives a copy")
            return self
        if self._network is not None:
            raise OptionError("this is a part of a network that was built; build a copy.deepcopy of it")
        if self.leaf_count == 0:
            raise OptionError("the network has no layers")
        kind, stream = check_dtype(dtype or self.dtype), Stream(seed)
        self.trace(shape)  # a network that does not fit stays as it was, lazy layers included
        self._adopt({})
        self._trace(shape, "", [], _INPUT)
        drawn: set[int] = set()
        for number, (_, leaf) in enumerate(self.leaves()):
            if id(leaf) not in drawn:
                leaf._draw(stream.at(number))
                drawn.add(id(leaf))
        self._input_shape = shape
        self._bind(kind)
        return self

    def _adopt(self, clones: dict[int, Any]) -> None:
        """Replace layers that belong to another network by clones (one clone however often the layer occurs)."""
        for name, child in list(self.children()):
            if child._network is not None:
                self._children[name] = copy.deepcopy(child, clones)
            elif isinstance(child, Network):
                child._adopt(clones)

    def trace(self, input_shape: Shape) -> list[tuple[str, Layer, Shape, Shape]]:
        """Return (path, layer, input shape, output shape) for each layer in the order of computation.

        An unbuilt network is asked through a copy, so that its lazy layers stay open.

        Args:
            input_shape: Shape of one input, without the batch axis.

        Raises:
            ShapeError: Where a layer cannot take what it gets.
        """
        steps: Steps = []
        self._asked()._trace(input_shape, "", steps, _INPUT)
        return steps

    def _asked(self) -> Network:
        try:
            return self if self._network is not None else copy.deepcopy(self)
        except RecursionError:
            raise OptionError("the network is nested too deep for Python") from None

    def _trace(self, shape: Shape, prefix: str, steps: Steps, source: str) -> Shape:
        """Resolve the layers below, add them to steps, return the output's shape; source says what shape is from."""
        raise TypeError(f"{type(self).__name__} must define _trace")

    def _trace_child(self, name: str, shape: Shape, prefix: str, steps: Steps, source: str) -> Shape:
        child, path = self._children[name], join(prefix, name)
        if isinstance(child, Network):
            return child._trace(shape, path, steps, source)
        try:
            child.resolve(shape)
            out = child.output_shape(shape)
        except PellucidError as error:
            raise ShapeError(
                f"layer {path} ({type(child).__name__}, number {len(steps) + 1} of the network) gets "
                f"{text(shape)} from {source}: {error}"
            ) from error
        if math.prod(out) > LARGEST:
            raise ShapeError(f"layer {path} ({type(child).__name__}) would give {text(out)} numbers for one image")
        steps.append((path, child, shape, out))
        return out

    def check_images(self, images: Array) -> Array:
        """Return images as an array, if they are real numbers of the input shape: (N, *input_shape).

        Args:
            images: Any numbers.

        Raises:
            ShapeError: For another shape.
            DataError: For what is no number.
        """
        x = np.asarray(images)
        if x.shape[1:] != self.input_shape:
            raise ShapeError(f"the network takes (N, {', '.join(map(str, self.input_shape or ()))}), got {x.shape}")
        if x.dtype.kind not in "fiub":
            raise DataError(f"images must be numbers, got {x.dtype}")
        return x

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of one output, without the batch axis.

        Args:
            input_shape: Shape of one input.
        """
        return self._asked()._trace(input_shape, "", [], _INPUT)

    def _bind(self, dtype: np.dtype[Any]) -> None:
        """Move parameters and buffers into the two flat arrays and become their owner."""
        for kind, flat_name in (("parameter_names", "_flat_parameters"), ("buffer_names", "_flat_buffers")):
            places = [
                (leaf, name)
                for _, leaf in self._unique_leaves()
                for name in getattr(leaf, kind)
                if name in leaf._arrays
            ]
            flat = np.empty(sum(leaf._arrays[name].size for leaf, name in places), dtype=dtype)
            start = 0
            for leaf, name in places:
                array = leaf._arrays[name]
                view = flat[start : start + array.size].reshape(array.shape)
                view[...] = array
                leaf._arrays[name] = view
                start += array.size
            setattr(self, flat_name, flat)
        for container in self._containers():
            container._network = self
            if container is not self:
                container._input_shape = None
                container._flat_parameters = container._flat_buffers = np.empty(0, dtype=dtype)
        for _, leaf in self.leaves():
            leaf._network = self

    # Parameters

    def _flat(self, array: Array) -> Array:
        if not self.built:
            raise OptionError("only a built network has flat arrays; give input_shape=(C, H, W), or call fit")
        view = array.view()
        view.flags.writeable = self.editing
        return view

    @property
    def flat_parameters(self) -> Array:
        """All parameters, one array in the order of named_parameters(); read-only outside edit()."""
        return self._flat(self._flat_parameters)

    @property
    def flat_buffers(self) -> Array:
        """All buffers, one array in the order of named_buffers(); read-only outside edit()."""
        return self._flat(self._flat_buffers)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return (self._network or self)._flat_parameters.dtype

    @contextmanager
    def edit(self) -> Iterator[Self]:
        """Make parameters and buffers writable; raises the version at the end.

        >>> from pellucid import nn
        >>> net = nn.Sequential(nn.Linear(2, 1), input_shape=(2,))
        >>> with net.edit():
        ...     net[0].weight[...] = 1
        >>> net[0].weight
        array([[1., 1.]], dtype=float32)
        """
        owner = self._network  # a part's arrays are those of the whole network
        if owner is None:
            raise OptionError("only a built network can be edited; give input_shape=(C, H, W), or assign to its layers")
        before, owner.editing = owner.editing, True
        try:
            yield self
        finally:
            owner.editing = before
            owner.version += 1

    def unflatten(self, flat: Array) -> dict[str, Array]:
        """Return views of a flat array of the parameters' layout (gradients, optimizer state) by parameter name."""
        views, start = {}, 0
        for name, array in self.named_parameters().items():
            views[name] = flat[start : start + array.size].reshape(array.shape)
            start += array.size
        return views

    def flatten(self, arrays: Mapping[str, Array]) -> Array:
        """Return arrays by parameter name as one flat array."""
        missing = [name for name in self.named_parameters() if name not in arrays]
        if missing:
            raise OptionError(f"there is no {missing[0]} among the arrays; does its layer's backward return it?")
        parts = [np.ravel(arrays[name]) for name in self.named_parameters()]
        return np.concatenate(parts) if parts else np.empty(0, dtype=self.dtype)

    def layer_slices(self) -> list[slice]:
        """Return where in the flat array the parameters of each layer lie, for layers that have any."""
        slices, start = [], 0
        for _, leaf in self._unique_leaves():
            size = sum(leaf._arrays[name].size for name in leaf.parameter_names if name in leaf._arrays)
            if size:
                slices.append(slice(start, start + size))
            start += size
        return slices

    def astype(self, dtype: str) -> Self:
        """Return a copy of the network in "float32" or "float64"."""
        twin = super().astype(dtype)
        if twin.built:
            twin._bind(check_dtype(dtype))
        else:
            twin._flat_parameters = twin._flat_buffers = np.empty(0, dtype=check_dtype(dtype))
        return twin

    def __repr__(self) -> str:
        lines = [f"  ({name}) {child!r}".replace("\n", "\n  ") for name, child in self.children()]
        return f"{type(self).__name__}(" + "".join(f"\n{line}" for line in lines) + ("\n)" if lines else ")")

    def _repr_html_(self) -> str:
        """Return the layers as a table, for notebooks; with shapes once the network is built."""
        if not self.built:
            return table(type(self).__name__, ["layer", "kind"], [[path, repr(leaf)] for path, leaf in self.leaves()])
        seen: set[int] = set()
        rows: list[list[object]] = [["", "input", text(self.input_shape), ""]]
        for path, leaf, _, after in self.trace(self.input_shape):
            count = 0 if id(leaf) in seen else sum(a.size for a in leaf.named_parameters().values())
            seen.add(id(leaf))
            rows.append([path, repr(leaf), text(after), f"{count:,}" if count else ""])
        title = f"{type(self).__name__}, {self.flat_parameters.size:,} parameters"
        return table(title, ["layer", "kind", "output", "parameters"], rows)

    # Copies

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state["editing"] = False
        state["_flat_parameters"] = np.empty(0, dtype=self.dtype)
        state["_flat_buffers"] = np.empty(0, dtype=self.dtype)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._input_shape is not None:
            self._bind(self.dtype)
