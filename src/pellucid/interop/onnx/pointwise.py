"""Operators that do the same to each number, or to each number of a channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from pellucid import nn
from pellucid._types import Array
from pellucid.interop.onnx.call import Call, Value, fill
from pellucid.interop.onnx.fold import Known, constant
from pellucid.interop.onnx.layers import BATCH_NORM
from pellucid.interop.onnx.places import LARGEST_ORDER, Place, View, known_function, scale_and_shift
from pellucid.nn import Layer
from pellucid.shapes import text

_MOST_CHANNELS = 1 << 16
_WITH_BIAS = (
    nn.Linear,
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def _layer(kind: type[Layer], **arguments: tuple[str, float | str]) -> Callable[[Call], View]:
    """Return the reader of a layer; arguments are attribute=(argument of the layer, default in ONNX)."""

    def read(call: Call) -> View:
        view = call.view()
        made = kind(**{name: call.attribute(attribute, default) for attribute, (name, default) in arguments.items()})
        return view.at(Place(str(call), [view.place], view.source, made, function=made))

    return read


def _each(function: Callable[..., Array], count: int = 2) -> Callable[[Call], View]:
    """Return the reader of a function of so many numbers, in NumPy."""
    return lambda call: _function(call, function, count, count)


def _function(call: Call, function: Callable[..., Array], least: int, most: int) -> View:
    """Apply a function to the numbers of one or more views of the same order, and to constants."""
    if not least <= len(call.inputs) <= most:
        raise call.refuse(f"has {len(call.inputs)} inputs; pellucid reads {least} to {most}")
    if not all(call.given(number) for number in range(least)):
        raise call.refuse("lacks an input")
    inputs = [_old_broadcast(call, value) for value in call.inputs]
    views = [call.view(number) for number, value in enumerate(inputs) if isinstance(value, View)]
    numbers = {}
    for number, value in enumerate(inputs):
        if isinstance(value, Known):
            array = constant(value, str(call))
            if array.size != 1 or array.ndim > len(views[0].shape) + 1:
                return _by_channel(call, views, inputs)
            numbers[number] = array.ravel().astype(np.float64 if array.dtype.kind != "b" else bool)[0]
    first = views[0]
    for view in views[1:]:
        same = view.shape == first.shape and view.source == first.source
        if not same or not (view.order is first.order or np.array_equal(view.places(), first.places())):
            raise call.refuse(f"takes N x {text(first.shape)} and N x {text(view.shape)}, or the same in another order")

    def of_each(*values: Array) -> Array:
        rest = iter(values)
        return function(
            *(numbers[n] if n in numbers else None if v is None else next(rest) for n, v in enumerate(inputs))
        )

    place = Place(str(call), [view.place for view in views], first.source, function=of_each)
    if (found := known_function(place)) is not None:
        layer, base = found
        return first.at(Place(str(call), [base], first.source, layer, function=layer))
    if len(views) == 1 and (line := scale_and_shift(place)) is not None:
        scale, shift = (np.full(first.source[:1], n) for n in line)
        return _affine(call, first, scale, shift, of_each)
    if call.node.op in ("Add", "Sum") and len(views) == 2 and not numbers:
        place.meeting = nn.Residual
    return first.at(place)


def _old_broadcast(call: Call, value: Value | None) -> Value | None:
    """Return the second operand as opset 6 lays it along the first: beginning at a certain axis."""
    if call.opset >= 7 or value is not call.inputs[-1] or not call.attribute("broadcast", 0):
        return value
    axis = call.attribute("axis", -1)
    if not isinstance(value, Known) or axis < 0:
        return value
    rank = len(call.view().shape) + 1
    return Known(tuple(a.reshape(*a.shape, *[1] * max(rank - axis - a.ndim, 0)) for a in value.arrays))  # type: ignore[arg-type]


def _by_channel(call: Call, views: list[View], inputs: Sequence[Value | None]) -> View:
    """Add, subtract, multiply or divide by a constant for each channel."""
    op = call.node.op
    if op not in ("Add", "Sub", "Mul", "Div", "Sum") or len(inputs) != 2 or len(views) != 1:
        raise call.refuse("takes a constant that is no single number")
    first = isinstance(inputs[0], View)
    value = inputs[1 if first else 0]
    if not isinstance(value, Known) or (op == "Div" and not first):
        raise call.refuse("divides a constant by maps or features")
    array, view = constant(value, str(call)), views[0]
    if array.dtype != np.float32 or not np.isfinite(array).all():
        raise call.refuse(f"takes a constant of {array.dtype}, or one that is not finite")
    wide = _widened(call, view, array)
    if len(view.shape) == 1:
        view = call.features(view)
    numbers = _per_channel(call, view, wide)
    if numbers is None:
        raise call.refuse(f"takes a constant of shape {array.shape}; pellucid has one number for each channel")
    if op in ("Mul", "Div"):
        if op == "Div" and (numbers == 0).any():
            raise call.refuse("divides by 0")
        return _affine(call, view, numbers if op == "Mul" else 1 / numbers, np.zeros_like(numbers))
    scale = np.full_like(numbers, -1.0 if op == "Sub" and not first else 1.0)
    return _affine(call, view, scale, -numbers if op == "Sub" and first else numbers)


def _widened(call: Call, view: View, array: Array) -> Array:
    """Return a constant as wide as the view."""
    shape = (1, *view.shape)
    if math.prod(view.shape) > LARGEST_ORDER:
        raise call.refuse("maps are too large")
    try:
        if array.ndim <= len(shape):
            return np.asarray(np.broadcast_to(array, shape)[0], dtype=np.float64)
    except ValueError:
        pass
    raise call.refuse(f"a constant of shape {array.shape} does not fit N x {text(view.shape)}")


def _per_channel(call: Call, view: View, wide: Array) -> Array | None:
    """Return the number that each channel of the view's place gets; None where cells of a channel get several."""
    if math.prod(view.source) != wide.size:
        raise call.refuse("takes some elements only, or some twice")
    cells = np.full(wide.size, np.nan)
    cells[view.places().ravel()] = wide.ravel()
    rows = cells.reshape(view.source[0], -1)
    return np.array(rows[:, 0]) if (rows == rows[:, :1]).all() else None


def _affine(call: Call, view: View, scale: Array, shift: Array, function: Callable[..., Array] | None = None) -> View:
    """Multiply each channel by a number and add another: in the layer before, or as a batch norm of its own."""
    if (scale == 1).all() and not shift.any():
        return view
    layer, place = view.place.layer, view.place
    if view.sole and layer is not None:
        if place.affine or isinstance(layer, nn.GroupNorm):
            return view.at(_instead(place, _scaled(layer, scale, shift), function))
        takes_bias = isinstance(layer, _WITH_BIAS)
        if takes_bias and (scale == 1).all():
            old = layer.named_parameters()
            wide = type(layer)(**{**layer.config(), "bias": True})
            fill(wide, weight=old["weight"], bias=old.get("bias", 0) + shift)
            return view.at(_instead(place, wide, None))
    dims = len(view.source) - 1
    if dims not in BATCH_NORM or len(scale) > _MOST_CHANNELS:
        raise call.refuse(f"scales or shifts N x {text(view.source)}")
    made = fill(
        BATCH_NORM[dims](len(scale), eps=0.0),
        weight=scale,
        bias=shift,
        running_mean=np.zeros(len(scale)),
        running_var=np.ones(len(scale)),
        num_batches_tracked=np.zeros(()),
    )
    return view.at(Place(str(call), [place], view.source, made, function=function, affine=True))


def _instead(place: Place, layer: Layer, then: Callable[..., Array] | None) -> Place:
    """Return a place with another layer in it, which does what was there and then something else."""
    first = place.function
    both = None if first is None or then is None else lambda x: then(first(x))
    return Place(place.name, place.inputs, place.shape, layer, function=both, affine=place.affine)


def _scaled(layer: Layer, scale: Array, shift: Array) -> Layer:
    """Return an affine norm, its outputs scaled and shifted."""
    old = layer.named_parameters()
    weight, bias = old.get("weight", 1) * scale, old.get("bias", 0) * scale + shift
    made = type(layer)(**{**layer.config(), "affine": True})
    return fill(made, **layer.named_buffers(), weight=weight, bias=bias)


def _sum(call: Call) -> View:
    total = call.inputs[0]
    for number in range(1, len(call.inputs)):
        pair = Call(call.node, [total, call.inputs[number]], call.opset, call.batches)
        total = _function(pair, np.add, 2, 2)
    if not isinstance(total, View):
        raise call.refuse("sums constants only")
    return total


def _clip(call: Call) -> View:
    if call.opset >= 11:
        return _function(call, lambda x, low=None, high=None: _clipped(x, low, high), 1, 3)
    low, high = call.attribute("min", -math.inf), call.attribute("max", math.inf)
    return _function(call, lambda x: _clipped(x, low, high), 1, 1)


def _clipped(x: Array, low: float | None, high: float | None) -> Array:
    return np.clip(x, -math.inf if low is None else low, math.inf if high is None else high)


def _erf(x: Array) -> Array:
    from scipy.special import erf

    return np.asarray(erf(x))


def _prelu(call: Call) -> View:
    view, slope = call.view(), call.constant(1)
    slope = call.weight(1, slope.ndim)
    wide = _widened(call, view, slope)
    channels = _per_channel(call, view, wide)
    if channels is None:
        raise call.refuse(f"has slopes of shape {slope.shape}; pellucid has one for all or one for each channel")
    channels = channels[:1] if (channels == channels[0]).all() and slope.size == 1 else channels
    return call.add(view, fill(nn.PReLU(len(channels)), weight=channels))


READERS: dict[str, Callable[[Call], View]] = {
    "Add": _each(np.add),
    "Clip": _clip,
    "Div": _each(np.true_divide),
    "Elu": _layer(nn.ELU, alpha=("alpha", 1.0)),
    "Erf": _each(_erf, 1),
    "Exp": _each(np.exp, 1),
    "Gelu": _layer(nn.GELU, approximate=("approximate", "none")),
    "Greater": _each(np.greater),
    "LeakyRelu": _layer(nn.LeakyReLU, alpha=("negative_slope", 0.01)),
    "Less": _each(np.less),
    "Log": _each(np.log, 1),
    "Max": _each(np.maximum),
    "Min": _each(np.minimum),
    "Mul": _each(np.multiply),
    "Neg": _each(np.negative, 1),
    "PRelu": _prelu,
    "Pow": _each(np.power),
    "Relu": _layer(nn.ReLU),
    "Sigmoid": _layer(nn.Sigmoid),
    "Softplus": _layer(nn.Softplus),
    "Sub": _each(np.subtract),
    "Sum": _sum,
    "Tanh": _layer(nn.Tanh),
    "Where": _each(np.where, 3),
}
