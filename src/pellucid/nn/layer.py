"""What a layer is: hyper-parameters, parameters, buffers, and forward with its backward.

To write one's own, derive from Layer, name its Parameters, and define forward (and output_shape, where the shape
changes). A call stores nothing on the layer; what the backward pass needs lives in the closure that forward returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import numpy as np

from pellucid._repr import arguments, call
from pellucid._types import Array, Shape
from pellucid.errors import OptionError, ShapeError, unknown
from pellucid.nn import init
from pellucid.random import Source, Stream
from pellucid.shapes import LARGEST

if TYPE_CHECKING:
    from pellucid.nn.network import Network

Gradients: TypeAlias = dict[str, Array]
Backward: TypeAlias = Callable[[Array], tuple[Array, Gradients]]

_BLANK: ContextVar[bool] = ContextVar("blank", default=False)


@contextmanager
def blank() -> Iterator[None]:
    """Leave the parameters of layers that are made or built meanwhile undrawn, for one who sets all of them.

    Drawing takes several times the memory of what is drawn.
    """
    token = _BLANK.set(True)
    try:
        yield
    finally:
        _BLANK.reset(token)


class Parameter:
    """An array that training changes. Reading gives a read-only view (None where absent); assigning copies.

    >>> class Scale(Layer):
    ...     weight = Parameter()
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.weight = np.ones(1)
    ...     def forward(self, x, *, training=False, rng=None):
    ...         w = self.weight
    ...         return x * w, lambda dy: (dy * w, {"weight": (dy * x).sum(keepdims=True).reshape(1)})
    >>> Scale()(np.array([3.0]))
    array([3.])
    """

    kind = "parameter"

    def __set_name__(self, owner: type[Layer], name: str) -> None:
        self.name = name
        setattr(owner, f"{self.kind}_names", (*getattr(owner, f"{self.kind}_names"), name))

    def __get__(self, layer: Layer | None, owner: type[Layer]) -> Any:
        return self if layer is None else layer._read(self.name)

    def __set__(self, layer: Layer, value: object) -> None:
        layer._write(self.name, value)


class Buffer(Parameter):
    """An array that belongs to the layer's state but is not trained, as batch norm's running mean."""

    kind = "buffer"


class Layer:
    """Base of every layer.

    Attributes:
        parameter_names: Names of the parameters, in the order in which they are stored.
        buffer_names: Names of the buffers.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ()
    buffer_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}
        self._starts: dict[str, tuple[Shape, init.Scheme, int, int]] = {}
        self._assigned: set[str] = set()
        self._network: Network | None = None

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward), where backward(dy) returns (dx, gradients by parameter name).

        Args:
            x: Input with the batch axis first.
            training: Whether dropout drops and batch norm uses the batch.
            rng: Where random numbers come from; layers that need none ignore it.
        """
        raise TypeError(f"{type(self).__name__} must define forward(self, x, *, training=False, rng=None)")

    def __call__(self, x: Array) -> Array:
        """Return the output for inference.

        Args:
            x: Input with the batch axis first.
        """
        return self.forward(x)[0]

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of one output for one input, both without the batch axis; unchanged unless overridden.

        Raises:
            ShapeError: Where the layer cannot take such an input.
        """
        return input_shape

    def resolve(self, input_shape: Shape) -> None:
        """Fix what a lazy layer left open; others do nothing."""

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return the multiplications with a weight for one image of shape (C, H, W)."""
        return 0

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as plain data; those that the layer keeps under their own names."""
        return arguments(self)

    @property
    def leaf_count(self) -> int:
        """How many places for a layer this one takes: 1, or the sum over a container's children."""
        return 1

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Yield (path, layer) for every layer that is no container, in the order of computation, repeats included."""
        yield prefix, self

    def named_parameters(self) -> dict[str, Array]:
        """Return read-only views by name; a container's names are dotted, a shared layer stands once."""
        return self._named("parameter_names")

    def named_buffers(self) -> dict[str, Array]:
        """Return read-only views of the buffers by name."""
        return self._named("buffer_names")

    def _named(self, kind: str) -> dict[str, Array]:
        return {
            join(path, name): leaf._view(name)
            for path, leaf in self._unique_leaves()
            for name in getattr(leaf, kind)
            if name in leaf._arrays
        }

    def _unique_leaves(self) -> list[tuple[str, Layer]]:
        first: dict[int, tuple[str, Layer]] = {}
        for path, leaf in self.leaves():
            first.setdefault(id(leaf), (path, leaf))
        return list(first.values())

    def state_dict(self) -> dict[str, Array]:
        """Return copies of parameters and buffers under PyTorch's names; a shared layer stands under each of its."""
        state = {}
        for path, leaf in self.leaves():
            for name in (*leaf.parameter_names, *leaf.buffer_names):
                if name in leaf._arrays:
                    state[join(path, name)] = leaf._arrays[name].astype(leaf._state_dtype(name))
        return state

    def state_layout(self) -> dict[str, tuple[np.dtype[Any], Shape]]:
        """Return type and shape of each array of state_dict, no array copied; a shared layer stands once."""
        return {
            join(path, name): (leaf._state_dtype(name), leaf._arrays[name].shape)
            for path, leaf in self._unique_leaves()
            for name in (*leaf.parameter_names, *leaf.buffer_names)
            if name in leaf._arrays
        }

    def load_state_dict(self, state: Mapping[str, object], strict: bool = True) -> None:
        """Set parameters and buffers by name.

        Args:
            state: Arrays by name, as state_dict gives them. Either all are set or, after an error, none.
            strict: Refuse names that are missing or not known.

        Raises:
            OptionError: For missing or unexpected names.
            ShapeError: For an array of the wrong shape.
        """
        places = {
            join(path, name): (leaf, name)
            for path, leaf in self.leaves()
            for name in (*leaf.parameter_names, *leaf.buffer_names)
            if name in leaf._arrays
        }
        missing = [key for key in places if key not in state]
        unexpected = [key for key in state if key not in places]
        if strict and (missing or unexpected):
            raise OptionError(
                f"state does not fit the network: missing {missing or 'none'}, unexpected {unexpected or 'none'}"
            )
        values = {key: leaf._checked(name, state[key]) for key, (leaf, name) in places.items() if key in state}
        first: dict[tuple[int, str], str] = {}
        for key in values:
            home = first.setdefault((id(places[key][0]), places[key][1]), key)
            if home != key and not np.array_equal(values[key], values[home], equal_nan=True):
                raise OptionError(f"{home} and {key} are one shared parameter, but their values differ")
        for key, value in values.items():
            leaf, name = places[key]
            leaf._write(name, value)

    def astype(self, dtype: str) -> Self:
        """Return a copy whose parameters and buffers are "float32" or "float64"."""
        import copy

        twin = copy.deepcopy(self)
        for _, leaf in twin.leaves():
            leaf._arrays = {name: array.astype(check_dtype(dtype)) for name, array in leaf._arrays.items()}
        return twin

    def _declare(self, name: str, shape: Shape, scheme: init.Scheme, fan_in: int, fan_out: int) -> None:
        """Say how a parameter or buffer looks and starts, and start it with seed 0 for use outside a network."""
        self._starts[name] = (shape, scheme, fan_in, fan_out)
        if name in self._assigned and self._arrays[name].shape != shape:
            raise ShapeError(f"{name} was assigned with shape {self._arrays[name].shape}, but must have {shape}")
        if math.prod(shape) > LARGEST:
            raise OptionError(
                f"{name} of shape {shape} would take {math.prod(shape) * 4 >> 30} GB; make the layer smaller"
            )
        self._arrays.setdefault(name, np.empty(shape, dtype=np.float32))
        self._draw(Stream(0), {name})

    def _draw(self, stream: Stream, names: set[str] | None = None) -> None:
        """Draw the parameters that nobody assigned; each name has a stream of its own."""
        if _BLANK.get():
            return
        for position, (name, (shape, scheme, fan_in, fan_out)) in enumerate(self._starts.items()):
            if name not in self._assigned and (names is None or name in names):
                own = Stream(stream.seed, layer=stream.layer, step=position)
                self._arrays[name] = init.draw(scheme, own, shape, fan_in, fan_out).astype(self._arrays[name].dtype)

    def _read(self, name: str) -> Array | None:
        return self._view(name) if name in self._arrays else None

    def _view(self, name: str) -> Array:
        view = self._arrays[name].view()
        view.flags.writeable = self._network is not None and self._network.editing
        return view

    def _state_dtype(self, name: str) -> np.dtype[Any]:
        """Return the type that PyTorch gives an array in a state-dict."""
        return self._arrays[name].dtype

    def _checked(self, name: str, value: object) -> Array:
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise OptionError(f"{type(self).__name__}.{name} must be numbers, got {array.dtype}")
        if name in self._arrays and array.shape != self._arrays[name].shape:
            raise ShapeError(
                f"{type(self).__name__}.{name} must have shape {self._arrays[name].shape}, got {array.shape}"
            )
        return array

    def _write(self, name: str, value: object) -> None:
        if name not in self._arrays and (self._starts or self._network is not None):
            raise OptionError(f"{self!r} was made without {name}")
        array = self._checked(name, value)
        if self._network is not None:
            with self._network.edit():
                self._arrays[name][...] = array
        else:
            self._arrays[name] = array.astype(array.dtype if array.dtype.kind == "f" else np.float32)
        self._assigned.add(name)

    def __getstate__(self) -> dict[str, Any]:
        """A copy stands alone: with its own arrays, outside any network, its values kept by whoever builds it in."""
        state = dict(self.__dict__)
        state["_network"] = None
        state["_arrays"] = dict(self._arrays)  # deepcopy and pickle copy what is in it
        if self._network is not None:
            state["_assigned"] = set(self._arrays)
        return state

    def __copy__(self) -> Self:
        import copy

        return copy.deepcopy(self)

    def __repr__(self) -> str:
        return call(type(self), self.config())


def join(path: str, name: str) -> str:
    """Return a dotted name: join("0", "weight") is "0.weight", join("", "weight") is "weight"."""
    return f"{path}.{name}" if path else name


def check_dtype(dtype: object) -> np.dtype[Any]:
    """Return "float32" or "float64" as a dtype, or raise an OptionError."""
    name = np.dtype(dtype).name if not isinstance(dtype, str) else dtype  # type: ignore[call-overload]
    if name not in ("float32", "float64"):
        raise unknown("dtype", name, ("float32", "float64"))
    return np.dtype(name)
