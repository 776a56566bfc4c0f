"""What a graph's values are while it is read: constants, and views of what the layers found so far give.

A Place is a layer, or where branches meet. Together they are a graph with one input, which network() turns into a tree
of Sequential, Residual and Concat. Branches that meet began at the last place that all of them come through: the
meeting's nearest dominator (Cooper, Harvey, Kennedy: A simple, fast dominance algorithm, 2001).

A View says where each element of an ONNX value stands in what a place gives. So transposing, reshaping and repeating
cost nothing and mean nothing until a layer needs its input in a certain order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pellucid import nn
from pellucid._types import Array, Shape
from pellucid.errors import FileError
from pellucid.nn import Layer
from pellucid.shapes import text

LARGEST_ORDER = 1 << 22
_DEEPEST = 50
_STEPS_BACK, _MOST_PARTS = 8, 40


@dataclass(eq=False)
class Place:
    """A layer of the network that is being found, or a meeting of branches.

    Args:
        name: Of the ONNX operator, for errors.
        inputs: What it computes from; none for the input of the network.
        shape: Of one output, as pellucid has it.
        layer: What computes it; None where no layer does (yet).
        meeting: Residual or Concat, where several inputs meet.
        function: What it does to each number of its inputs, if it does the same to each.
        affine: Whether the layer is a batch norm that was made up to scale and shift.
    """

    name: str
    inputs: list[Place]
    shape: Shape
    layer: Layer | None = None
    meeting: type[nn.Residual | nn.Concat] | None = None
    function: Callable[..., Array] | None = None
    affine: bool = False
    dominator: Place | None = field(init=False, default=None)
    depth: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.inputs:
            self.dominator = nearest(self.inputs)
            self.depth = self.dominator.depth + 1

    def dominators(self) -> Iterator[Place]:
        """Yield what every way to here comes through, the nearest first."""
        place = self.dominator
        while place is not None:
            yield place
            place = place.dominator


def nearest(places: Sequence[Place]) -> Place:
    """Return the nearest place that every way to each of the given ones comes through.

    Args:
        places: At least one.
    """
    common = places[0]
    for place in places[1:]:
        while common is not place:
            if common.depth >= place.depth:
                common, place = common.dominator or common, place
            else:
                place = place.dominator or place
    return common


def network(last: Place) -> nn.Sequential:
    """Return the layers from the input to a place as a tree.

    Args:
        last: What the network gives.

    Raises:
        FileError: Where an operator on the way is no layer, or the graph is not series-parallel.
    """
    first = last
    while first.dominator is not None:
        first = first.dominator
    return nn.Sequential(*_between(first, last, set(), 0))


def _between(first: Place, last: Place, used: set[int], depth: int) -> list[Layer]:
    """Return the layers that lead from one place to another that it dominates."""
    if depth > _DEEPEST:
        raise FileError(f"{last.name} lies in branches nested more than {_DEEPEST} deep")
    layers: list[Layer] = []
    place = last
    while place is not first:
        if id(place) in used:
            raise FileError(
                f"{place.name} is used by two branches that began before it; pellucid reads series-parallel graphs"
            )
        used.add(id(place))
        if place.meeting is not None and place.dominator is not None:
            fork = place.dominator
            branches = [_between(fork, end, used, depth + 1) for end in place.inputs]
            layers.append(_meeting(place.meeting, branches))
            place = fork
        elif place.layer is not None:
            layers.append(place.layer)
            place = place.inputs[0]
        else:
            raise FileError(f"{place.name} does not belong to anything that a layer of pellucid computes")
    return layers[::-1]


def _meeting(kind: type[nn.Residual | nn.Concat], branches: list[list[Layer]]) -> Layer:
    made = [
        layers[0] if len(layers) == 1 else nn.Sequential(*layers) if layers else nn.Identity() for layers in branches
    ]
    if kind is nn.Concat:
        return nn.Concat(*made)
    body, around = (0, 1) if len(branches[0]) >= len(branches[1]) else (1, 0)
    return nn.Residual(made[body], made[around] if branches[around] else None)


@dataclass(eq=False)
class View:
    """An ONNX value that depends on the network's input, for one image.

    Args:
        place: What the numbers come from.
        shape: As ONNX has it, without the batch.
        order: Which element of the place's output each one is, as an array of that shape; None for all in order.
        sole: Whether nobody else reads the place.
        integer: Whether it is the network's input of uint8, which has to be cast before it is used.
    """

    place: Place
    shape: Shape
    order: Array | None = None
    sole: bool = True
    integer: bool = False

    @property
    def source(self) -> Shape:
        """Shape of what the place gives."""
        return self.place.shape

    @property
    def plain(self) -> bool:
        """Whether it is what the place gives, as it is."""
        return self.order is None and self.shape == self.source

    @property
    def channels_last(self) -> bool:
        """Whether it is what the place gives with the channels behind the other axes."""
        shape = (*self.source[1:], self.source[0])
        return (
            len(self.source) > 1
            and self.shape == shape
            and np.array_equal(self.places(), np.moveaxis(_in_order(self.source), 0, -1))
        )

    def places(self) -> Array:
        """Return the order as an array."""
        return _in_order(self.shape) if self.order is None else self.order

    def seen(self, order: Array) -> View:
        """Return a view of the same place in another order.

        Args:
            order: Indices into the place's output.
        """
        if order.size > LARGEST_ORDER:
            raise FileError(f"maps {text(order.shape)} are too large to be transposed")
        kept = order.size == math.prod(self.source) and np.array_equal(order.ravel(), np.arange(order.size))
        return replace(self, shape=order.shape, order=None if kept else np.ascontiguousarray(order))

    def reshaped(self, shape: Shape) -> View:
        """Return the same elements in another shape.

        Args:
            shape: Without the batch; as many elements.
        """
        return replace(self, shape=shape, order=None if self.order is None else self.order.reshape(shape))

    def at(self, place: Place) -> View:
        """Return the same view of another place of the same shape.

        Args:
            place: Whose output is seen.
        """
        return replace(self, place=place, sole=True)


def _in_order(shape: Shape) -> Array:
    if math.prod(shape) > LARGEST_ORDER:
        raise FileError(f"maps {text(shape)} are too large to be transposed")
    return np.arange(math.prod(shape)).reshape(shape)


# Functions that are known by their values

_SAMPLES = np.concatenate([np.linspace(-30, 30, 1201), *(sign * np.logspace(-6, 37, 431) for sign in (-1, 1))])


def known_function(place: Place) -> tuple[Layer, Place] | None:
    """Return the activation that the last few operators compute together, and what it is applied to.

    Exporters divide activations that have no operator of their own, each in its own way, so they are known by the
    values that they give.

    Args:
        place: The last operator.
    """
    for number, base in enumerate(place.dominators()):
        if number == _STEPS_BACK:
            break
        y = _values(place, base)
        layer = None if y is None else _activation(y)
        if layer is not None:
            return layer, base
        if base.function is None:
            break
    return None


def scale_and_shift(place: Place) -> tuple[float, float] | None:
    """Return a and b where an operator computes a x + b of its only input, else None.

    Args:
        place: The operator.
    """
    if len({id(source) for source in place.inputs}) != 1 or (y := _values(place, place.inputs[0])) is None:
        return None
    scale, shift = (_at(y, 1.0) - _at(y, -1.0)) / 2, _at(y, 0.0)
    with np.errstate(all="ignore"):
        return (scale, shift) if _same(y, scale * _SAMPLES + shift) else None


def _at(y: Array, x: float) -> float:
    return float(y[np.abs(_SAMPLES - x).argmin()])


def _same(a: Array, b: Array) -> bool:
    size = np.abs(b)
    return bool(np.isfinite(a).all() and (np.abs(a - b) <= 1e-6 * size + 1e-7 * min(1.0, size.max())).all())


def _values(place: Place, base: Place) -> Array | None:
    """Return what a place makes of the samples where base gives them; None where it is no function of base alone."""
    known: dict[int, Array] = {id(base): _SAMPLES}
    waiting = [place]
    with np.errstate(all="ignore"):
        while waiting:
            now = waiting[-1]
            missing = [source for source in now.inputs if id(source) not in known]
            if id(now) in known:
                waiting.pop()
            elif now.function is None or not now.inputs or len(known) > _MOST_PARTS:
                return None
            elif missing:
                waiting += missing
            else:
                try:
                    known[id(now)] = np.asarray(now.function(*(known[id(source)] for source in now.inputs)))
                except TypeError:  # arithmetic with true and false
                    return None
    y = known[id(place)]
    return y if y.shape == _SAMPLES.shape and y.dtype == np.float64 else None


def _activation(y: Array) -> Layer | None:
    slope, bend, depth = -_at(y, -1.0), _at(y, 0.0), -_at(y, -30.0)
    candidates: list[Layer] = [nn.ReLU(), nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Sigmoid(), nn.Tanh()]
    if math.isfinite(slope) and abs(slope - 1) > 1e-6:
        candidates.append(nn.LeakyReLU(slope))
    if 1e-3 < bend < 1e3:
        candidates.append(nn.Softplus(math.log(2) / bend))
    if 1e-3 < abs(depth) < 1e3:
        candidates.append(nn.ELU(depth))
    return next((layer for layer in candidates if _same(y, layer(_SAMPLES))), None)
