"""What flows through a network: the values behind each layer and, on the way back, the gradient at each of them.

Layers are called as the reference engine calls them, so the values are its own; nothing is stored on a layer. A place
in a network is named as in its summary: "0", "3.body.0". A container has a name too, "3", and the input is "input".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from pellucid import functional as F
from pellucid import nn
from pellucid._types import Array, Shape
from pellucid.errors import DataError, OptionError, one_line, unknown
from pellucid.model import Model
from pellucid.nn import Layer, Network
from pellucid.nn.layer import blank, join
from pellucid.shapes import text

INPUT = "input"

_Notes: TypeAlias = tuple[dict[str, Array], dict[str, Array]]
"""Inputs and outputs by place."""

_Back: TypeAlias = Callable[[Array, dict[str, Array]], Array]
"""Takes the gradient by a layer's output, and the dictionary of all; returns the gradient by its input."""


@dataclass(frozen=True, eq=False)
class Trace:
    """What flowed through a network for N inputs.

    Attributes:
        inputs: What each layer and each container got, by place, (N, ...).
        outputs: What each of them gave, and the "input"; the last is the network's output, "".
        backward: See gradients, which calls it.
    """

    inputs: dict[str, Array]
    outputs: dict[str, Array]
    backward: _Back

    def gradients(self, by: Mapping[str, Array]) -> dict[str, Array]:
        """Return the gradient of sum(by[place] * outputs[place]) by the values at every place.

        Args:
            by: Arrays of the shapes of outputs, by place.
        """
        gradients = dict(by)
        with _one_thread():
            gradients[INPUT] = self.backward(np.zeros_like(self.outputs[""]), gradients)
        return gradients


def trace(network: Network, x: Array) -> Trace:
    """Return what flows through a network in inference.

    Args:
        network: Built.
        x: Canonical input, (N, C, H, W).
    """
    x = np.asarray(x, dtype=network.dtype)
    inputs: dict[str, Array] = {}
    outputs = {INPUT: x}
    with _one_thread():
        _, backward = _walk(network, "", x, (inputs, outputs))
    return Trace(inputs, outputs, backward)


@cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute as the reference engine does."""
    with _blas().limit(limits=1), np.errstate(all="ignore"):
        yield


def _walk(layer: Layer, path: str, x: Array, notes: _Notes) -> tuple[Array, _Back]:
    """Return (y, backward) of a layer or container, and note x, y and, on the way back, the gradient by y."""
    inside = _CONTAINERS.get(type(layer).forward)
    if inside is not None:
        y, back = inside(layer, path, x, notes)
    else:
        y, backward = layer.forward(x)

        def back(dy: Array, gradients: dict[str, Array]) -> Array:
            return backward(dy)[0]

    notes[0][path], notes[1][path] = x, y

    def noted(dy: Array, gradients: dict[str, Array]) -> Array:
        gradients[path] = dy + gradients[path] if path in gradients else dy
        return back(gradients[path], gradients)

    return y, noted


def _sequential(layer: nn.Sequential, path: str, x: Array, notes: _Notes) -> tuple[Array, _Back]:
    backs: list[_Back] = []
    for name, child in layer.children():
        x, back_of_child = _walk(child, join(path, name), x, notes)
        backs.append(back_of_child)

    def back(dy: Array, gradients: dict[str, Array]) -> Array:
        for back_of_child in reversed(backs):
            dy = back_of_child(dy, gradients)
        return dy

    return x, back


def _residual(layer: nn.Residual, path: str, x: Array, notes: _Notes) -> tuple[Array, _Back]:
    y, back_of_body = _walk(layer.body, join(path, "body"), x, notes)
    if layer.shortcut is None:
        return y + x, lambda dy, gradients: back_of_body(dy, gradients) + dy
    around, back_of_shortcut = _walk(layer.shortcut, join(path, "shortcut"), x, notes)
    return y + around, lambda dy, gradients: back_of_body(dy, gradients) + back_of_shortcut(dy, gradients)


def _concat(layer: nn.Concat, path: str, x: Array, notes: _Notes) -> tuple[Array, _Back]:
    walked = [_walk(branch, join(path, name), x, notes) for name, branch in layer.children()]
    ends = np.cumsum([y.shape[1] for y, _ in walked])[:-1]

    def back(dy: Array, gradients: dict[str, Array]) -> Array:
        parts = zip(walked, np.split(dy, ends, axis=1), strict=True)
        return np.asarray(sum(back_of_branch(part, gradients) for (_, back_of_branch), part in parts))

    return np.concatenate([y for y, _ in walked], axis=1), back


def _unpool(layer: nn.MaxUnpool2d, path: str, x: Array, notes: _Notes) -> tuple[Array, _Back]:
    pool = layer.pool.config()
    window = (pool["kernel_size"], pool["stride"], pool["padding"], x.shape[2:])
    _, indices = F.max_pool2d(x, **pool, return_indices=True)
    pooled, back_of_pool = _walk(layer.pool, join(path, "pool"), x, notes)
    moved, back_of_body = _walk(layer.body, join(path, "body"), pooled, notes)

    def back(dy: Array, gradients: dict[str, Array]) -> Array:
        dmoved = F.max_unpool2d_backward(dy, moved, indices, *window)
        return back_of_pool(back_of_body(dmoved, gradients), gradients)

    return F.max_unpool2d(moved, indices, *window), back


_CONTAINERS: dict[Callable[..., Any], Callable[..., tuple[Array, _Back]]] = {
    nn.Sequential.forward: _sequential,
    nn.Residual.forward: _residual,
    nn.Concat.forward: _concat,
    nn.MaxUnpool2d.forward: _unpool,
}
"""By what a container computes; one of the user's own is walked through as one layer."""


# Arguments


def network_of(model: object) -> Network:
    """Return the built network of a model, or a network as it is.

    Args:
        model: A Model, or a built network.
    """
    network = getattr(model, "network", model)
    if not isinstance(network, Network):
        raise OptionError(f"model must be a model, as pellucid.load gives it, or a network, got {model!r:.80}")
    _ = network.input_shape  # says what is missing where it is not built
    return network


def check_model(model: object) -> Model:
    """Return a model, or raise an OptionError with the cure.

    Args:
        model: What was given.
    """
    if isinstance(model, Model):
        return model
    cure = ""
    if isinstance(model, Network):
        cure = "; Model(network, InputSpec(shape, value_range, mean, std)) makes one of a network"
    raise OptionError(f"model must be a model, as pellucid.load or a run gives it, got {type(model).__name__}{cure}")


def canonical(model: Model, image: object, name: str = "image") -> Array:
    """Return one image as the network's input: (1, C, H, W).

    Args:
        model: Whose input spec says how.
        image: A file, a PIL image, or a raw array (C, H, W) or (H, W).
        name: Of the argument, for the error.

    Raises:
        DataError: For what the model cannot take, NaN included, and for several images.
    """
    raw = one_image(model, image, name)
    return model.input.canonical(raw).astype(model.network.dtype)


def one_image(model: Model, image: object, name: str = "image") -> Array:
    """Return one image as the model's input spec reads it: raw, (1, C, H, W).

    Args:
        model: Whose input spec says how.
        image: A file, a PIL image, or a raw array (C, H, W) or (H, W).
        name: Of the argument, for the error.

    Raises:
        DataError: For what the model cannot take, NaN included, and for several images.
    """
    raw = check_model(model).prepared(image)
    if len(raw) != 1:
        c = model.input.shape[0]
        takes = f"the model takes {c} channel{'' if c == 1 else 's'}, {text(model.input.shape)}"
        raise DataError(f"{name} must be one image, got {len(raw)}; {takes}")
    return raw


def as_numbers(values: object, name: str) -> Array:
    """Return an array of real numbers, or raise an OptionError.

    Args:
        values: What was given.
        name: Of the argument, for the error.
    """
    try:
        array = np.asarray(values)
    except ValueError:  # rows of unequal length
        array = np.asarray(None)
    if array.dtype.kind not in "buif":
        raise OptionError(f"{name} must be an array of numbers, got {one_line(repr(values), 80)}")
    return array


def places(layer: Layer, path: str = "") -> Iterator[tuple[str, Layer]]:
    """Yield (place, layer) for everything that a trace notes except the input, in the order of computation.

    Args:
        layer: A layer or network.
        path: Where it stands.
    """
    if isinstance(layer, Network) and type(layer).forward in _CONTAINERS:
        for name, child in layer.children():
            yield from places(child, join(path, name))
    yield path, layer


def find(network: Network, layer: int | str) -> tuple[str, Layer]:
    """Return (place, layer) of a layer that a user has named.

    Args:
        network: Built.
        layer: A place as the summary names it, or the number of one of the outermost layers, from the end if negative.

    Raises:
        OptionError: Where there is no such layer.
    """
    known = {place: found for place, found in places(network) if place}
    if isinstance(layer, (int, np.integer)) and not isinstance(layer, bool):
        outermost = [name for name, _ in network.children()]
        if not -len(outermost) <= layer < len(outermost):
            raise OptionError(f"layer must be -{len(outermost)} to {len(outermost) - 1}, or a name, got {layer}")
        layer = outermost[layer]
    if not isinstance(layer, str):
        raise OptionError(f'layer must be a number or a name such as "3.body.0", got {layer!r:.80}')
    if layer not in known:
        raise unknown("layer", layer, known)
    return layer, known[layer]


def piece(network: nn.Sequential, layers: slice, input_shape: Shape) -> nn.Sequential:
    """Return some of the outermost layers as a network of their own, with the same weights.

    Args:
        network: Built.
        layers: Which.
        input_shape: What the first of them gets, without the batch axis.
    """
    with blank():  # the layers bring their values along
        return network[layers].build(input_shape, dtype=network.dtype.name)


def up_to(network: Network, place: str) -> Network:
    """Return a network that ends with the outermost layer that a place lies in; the places keep their names.

    Args:
        network: Built.
        place: Of a layer.
    """
    if type(network).forward is not nn.Sequential.forward or not isinstance(network, nn.Sequential):
        return network
    names = [name for name, _ in network.children()]
    return piece(network, slice(0, names.index(place.split(".")[0]) + 1), network.input_shape)


def shapes(network: Network) -> dict[str, Shape]:
    """Return the shape of one image's values at every place.

    Args:
        network: Built.
    """
    x = np.zeros((1, *network.input_shape), dtype=network.dtype)
    return {place: y.shape[1:] for place, y in trace(network, x).outputs.items()}


def index(shape: Shape, at: object, name: str) -> tuple[int, ...]:
    """Return a cell of an array as a tuple of numbers from 0, or raise an OptionError.

    Args:
        shape: Of the array.
        at: A number for each axis, in a tuple, list or array; one number alone for one axis.
        name: Of the argument, for the error.

    >>> index((4, 5), (-1, 2), "cell")
    (3, 2)
    """
    at = at.tolist() if isinstance(at, np.ndarray) else at
    numbers = tuple(at) if isinstance(at, (tuple, list)) else (at,)
    whole = all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in numbers)
    if not whole or len(numbers) != len(shape):
        wanted = "a number" if len(shape) == 1 else f"{len(shape)} numbers"
        raise OptionError(f"{name} must be {wanted}, for {text(shape)} values, got {at!r:.80}")
    if not all(-n <= i < n for i, n in zip(numbers, shape, strict=True)):
        raise OptionError(f"{name} {at!r} lies outside {text(shape)}; each number counts from 0")
    return tuple(int(i) % n for i, n in zip(numbers, shape, strict=True))


def target_cell(model: Model, output: Array, target: object) -> tuple[int, ...]:
    """Return which of the network's outputs is meant.

    Args:
        model: Whose classes count.
        output: Of one image, without the batch axis.
        target: A class by name or number, a cell of another output, or None for the largest output.

    Raises:
        OptionError: Where there is no such output.
    """
    if target is None:
        return tuple(int(i) for i in np.unravel_index(int(output.argmax()), output.shape))
    if isinstance(target, str):
        if target not in model.classes:
            raise unknown("class", target, model.classes or ["(this model has no classes)"])
        return (model.classes.index(target),)
    return index(output.shape, target, "target")
