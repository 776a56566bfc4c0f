"""Operators with a window, and those that change the size of maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pellucid import nn
from pellucid._types import Array, Shape
from pellucid.functional.resample import terms
from pellucid.interop.onnx.call import Call, fill
from pellucid.interop.onnx.fold import Known
from pellucid.interop.onnx.places import LARGEST_ORDER, View
from pellucid.interop.onnx.views import reduced_axes
from pellucid.shapes import Padding, output_size, output_sizes, resized, resolve_padding, text, window_extent

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_MAX_POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVG_POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_ADAPTIVE_AVG = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
_ADAPTIVE_MAX = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d}


def _conv_axes(call: Call, weight: Array) -> int:
    dims = weight.ndim - 2
    if dims not in _CONV:
        raise call.refuse(f"the weights have shape {weight.shape}; pellucid convolves one to three axes")
    if call.attribute("kernel_shape", list(weight.shape[2:])) != list(weight.shape[2:]):
        raise call.refuse("kernel_shape differs from the weights")
    return dims


def _sides(call: Call, size: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Padding:
    """Return the padding that pads or auto_pad says."""
    dims, auto = len(size), call.attribute("auto_pad", "NOTSET")
    pads = call.numbers("pads", 2 * dims, 0)
    if min(*stride, *dilation, *kernel) < 1:
        raise call.refuse("strides, dilations and kernel_shape must be at least 1")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return resolve_padding(auto.lower(), size, kernel, stride, dilation)
    if auto not in ("NOTSET", "VALID"):
        raise call.refuse(f"auto_pad = {auto!r:.40}")
    if min(pads) < 0:
        raise call.refuse(f"pads = {pads} takes cells away")
    return tuple(zip(pads[:dims], pads[dims:], strict=True)) if auto == "NOTSET" else ((0, 0),) * dims


def _even(sides: Padding) -> bool:
    return all(before == after for before, after in sides)


def _padded(call: Call, view: View, sides: Padding) -> View:
    """Put zeros around maps; negative numbers take cells away."""
    if all(pair == (0, 0) for pair in sides):
        return view
    if len(sides) != 2:
        raise call.refuse(f"pads {len(sides)} axes with {sides}; pellucid pads sequences and volumes evenly only")
    (top, bottom), (left, right) = sides
    return call.add(view, nn.ZeroPad2d((left, right, top, bottom)))


def _bias(call: Call, size: int) -> dict[str, Array]:
    if not call.given(2):
        return {}
    bias = call.weight(2, 1)
    if bias.shape != (size,):
        raise call.refuse(f"the bias has shape {bias.shape}, expected ({size},)")
    return {"bias": bias}


def _conv(call: Call) -> View:
    weight = call.constant(1)
    weight = call.weight(1, weight.ndim)
    dims = _conv_axes(call, weight)
    view = call.maps(call.view(), (dims,))
    kernel, groups = weight.shape[2:], call.attribute("group", 1)
    stride, dilation = call.numbers("strides", dims, 1), call.numbers("dilations", dims, 1)
    size = view.shape[1:]
    sides = _sides(call, size, kernel, stride, dilation)
    padding: str | tuple[int, ...] = tuple(before for before, _ in sides)
    if not _even(sides):
        named = [
            name
            for name in ("same_upper", "same_lower")
            if resolve_padding(name, size, kernel, stride, dilation) == sides
        ]
        view = view if named else _padded(call, view, sides)
        padding = named[0] if named else (0,) * dims
    bias = _bias(call, weight.shape[0])
    options = (kernel, stride, padding, dilation, groups, bool(bias))
    layer = _CONV[dims](weight.shape[1] * max(groups, 1), weight.shape[0], *options)
    return call.add(view, fill(layer, weight=weight, **bias))


def _conv_transpose(call: Call) -> View:
    weight = call.constant(1)
    weight = call.weight(1, weight.ndim)
    dims = _conv_axes(call, weight)
    view = call.maps(call.view(), (dims,))
    kernel, groups, size = weight.shape[2:], call.attribute("group", 1), view.shape[1:]
    stride, dilation = call.numbers("strides", dims, 1), call.numbers("dilations", dims, 1)
    more = call.numbers("output_padding", dims, 0)
    if min(*stride, *dilation, groups) < 1 or min(more) < 0:
        raise call.refuse("strides, dilations and group must be at least 1")
    before, after = _cropped(call, size, kernel, stride, dilation, more)
    # A layer takes the same from both sides; what it takes too little comes back as output_padding, or is cut off.
    back = [m + b - a for m, b, a in zip(more, before, after, strict=True)]
    options = (kernel, stride, before, tuple(max(n, 0) for n in back), groups, call.given(2), dilation)
    bias = _bias(call, weight.shape[1] * groups)
    layer = _TRANSPOSED[dims](weight.shape[0], weight.shape[1] * groups, *options)
    return _padded(call, call.add(view, fill(layer, weight=weight, **bias)), tuple((0, min(n, 0)) for n in back))


def _cropped(
    call: Call, size: Shape, kernel: Shape, stride: Shape, dilation: Shape, more: Shape
) -> tuple[Shape, Shape]:
    """Return what a transposed convolution takes away before and behind each axis."""
    dims, auto = len(size), call.attribute("auto_pad", "NOTSET")
    pads, wanted = call.numbers("pads", 2 * dims, 0), call.attribute("output_shape")
    full = [
        (n - 1) * s + window_extent(k, d) + m
        for n, k, s, d, m in zip(size, kernel, stride, dilation, more, strict=True)
    ]
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(size, stride, strict=True)]
    if wanted is not None:
        if len(wanted) != dims:
            raise call.refuse(f"output_shape = {wanted!r:.60}, expected {dims} sizes")
        total = [f - w for f, w in zip(full, wanted, strict=True)]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = (*small, *large) if auto == "SAME_UPPER" else (*large, *small)
    elif auto == "VALID":
        pads = (0,) * (2 * dims)
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER") or min(pads) < 0:
        raise call.refuse(f"auto_pad = {auto!r:.40} with pads = {pads}")
    return tuple(pads[:dims]), tuple(pads[dims:])


def _pool_window(call: Call, view: View) -> tuple[Shape, Shape, Shape, Padding, bool]:
    """Return kernel, stride, dilation, padding and ceil_mode."""
    dims = len(view.shape) - 1
    kernel, stride = call.numbers("kernel_shape", dims, 0), call.numbers("strides", dims, 1)
    dilation = call.numbers("dilations", dims, 1)
    return (
        kernel,
        stride,
        dilation,
        _sides(call, view.shape[1:], kernel, stride, dilation),
        bool(call.attribute("ceil_mode", 0)),
    )


def _fitting(size: Shape, kernel: Shape, stride: Shape, dilation: Shape, sides: Padding, ceil: bool) -> bool | None:
    """Return the ceil_mode with which the padding before each axis, taken on both sides, gives as many windows.

    Only where a window begins counts, for cells that count for nothing: those that a maximum or mean leaves out.
    """
    wanted = output_sizes(size, kernel, stride, sides, dilation, ceil)
    both = tuple((before, before) for before, _ in sides)
    for mode in (False, True):
        axes = zip(size, kernel, stride, both, dilation, strict=True)
        if tuple(output_size(*axis, mode) for axis in axes) == wanted:
            return mode
    return None


def _max_pool(call: Call) -> View:
    view = call.maps(call.view())
    call.attribute("storage_order", 0)
    kernel, stride, dilation, sides, ceil = _pool_window(call, view)
    mode = _fitting(view.shape[1:], kernel, stride, dilation, sides, ceil)
    padding = tuple(before for before, _ in sides)
    if mode is None:
        # A window that sees padding sees the edge too, so copies of the edge change no maximum.
        if (
            ceil
            or len(sides) != 2
            or set(dilation) != {1}
            or any(max(pair) >= k for pair, k in zip(sides, kernel, strict=True))
        ):
            raise call.refuse(f"pads = {sides} gives windows that no MaxPool of pellucid has")
        (top, bottom), (left, right) = sides
        view, mode, padding = call.add(view, nn.ReplicationPad2d((left, right, top, bottom))), False, (0, 0)
    return call.add(view, _MAX_POOL[len(kernel)](kernel, stride, padding, dilation, ceil_mode=mode))


def _avg_pool(call: Call) -> View:
    view = call.maps(call.view())
    kernel, stride, dilation, sides, ceil = _pool_window(call, view)
    counts = bool(call.attribute("count_include_pad", 0))
    if set(dilation) != {1}:
        raise call.refuse("dilations of a mean are not read")
    if counts and not _even(sides):
        view, sides = _padded(call, view, sides), ((0, 0),) * len(sides)
    mode = ceil if counts else _fitting(view.shape[1:], kernel, stride, dilation, sides, ceil)
    if mode is None:
        raise call.refuse(f"pads = {sides} gives windows that no AvgPool of pellucid has")
    padding = tuple(before for before, _ in sides)
    options = {"ceil_mode": mode, "count_include_pad": counts or not any(padding)}
    return call.add(view, _AVG_POOL[len(kernel)](kernel, stride, padding, **options))


def _global_pool(kinds: dict[int, Any]) -> Callable[[Call], View]:
    def read(call: Call) -> View:
        view = call.maps(call.view())
        return call.add(view, kinds[len(view.shape) - 1](1))

    return read


def _reduce(kinds: dict[int, Any]) -> Callable[[Call], View]:
    """Return the reader of ReduceMean or ReduceMax, which is global pooling if it goes over all positions."""

    def read(call: Call) -> View:
        view, axes, keeps = call.view(), reduced_axes(call, 18), bool(call.attribute("keepdims", 1))
        call.attribute("noop_with_empty_axes", 0)
        rank, maps = len(view.shape) + 1, view.source
        gone = sorted({call.axis(a, rank) for a in axes or []})
        if not gone or 0 in gone or not 2 <= len(maps) <= 4:
            raise call.refuse(f"over the axes {axes} of N x {text(view.shape)}; only global pooling is read")
        cells = math.prod(maps[1:])
        channels = np.moveaxis(view.places(), [a - 1 for a in gone], range(-len(gone), 0))
        channels = channels.reshape(*channels.shape[: -len(gone)], -1)
        if (
            channels.shape[-1] != cells
            or (np.diff(np.sort(channels, axis=-1)) != 1).any()
            or (channels.min(axis=-1) % cells).any()
        ):
            raise call.refuse(f"over the axes {axes} of N x {text(view.shape)}; only global pooling is read")
        pooled = call.add(View(view.place, maps), kinds[len(maps) - 1](1))
        shape = tuple(1 if i + 1 in gone else n for i, n in enumerate(view.shape) if keeps or i + 1 not in gone)
        return pooled.seen((channels.min(axis=-1) // cells).reshape(shape))

    return read


_PADDINGS = {"reflect": nn.ReflectionPad2d, "edge": nn.ReplicationPad2d}


def _pad(call: Call) -> View:
    view = call.view()
    rank, mode = len(view.shape) + 1, call.attribute("mode", "constant")
    if call.opset < 11:
        pads, value = list(call.numbers("pads", 2 * rank, 0)), call.attribute("value", 0.0)
    else:
        pads, filler = call.integers(1), call.constant(2) if call.given(2) else np.zeros(1)
        value = float(filler.ravel()[0]) if filler.size == 1 else math.nan
    axes = list(range(rank))
    if call.given(3):
        axes = [call.axis(a, rank) for a in call.integers(3)]
    if len(pads) != 2 * len(axes) or len(set(axes)) != len(axes):
        raise call.refuse(f"pads = {pads!r:.60} for {len(axes)} axes")
    sides = dict(zip(axes, zip(pads[: len(axes)], pads[len(axes) :], strict=True), strict=True))
    if all(pair == (0, 0) for pair in sides.values()):
        return view
    moved = view.channels_last
    spatial = tuple(sides.get(a, (0, 0)) for a in (range(1, rank - 1) if moved else range(2, rank)))
    if any(pair != (0, 0) for pair in (sides.get(0, (0, 0)), sides.get(rank - 1 if moved else 1, (0, 0)))):
        raise call.refuse("pads the batch or the channels")
    if mode not in ("constant", *_PADDINGS) or (mode == "constant" and value != 0) or len(spatial) != 2:
        raise call.refuse(
            f"mode = {mode!r:.40} with {value:g} over {len(spatial)} axes; pellucid pads maps with zeros, "
            "mirrored or with their edge"
        )
    maps = View(view.place, view.source, sole=view.sole) if moved else call.maps(view, (2,))
    (top, bottom), (left, right) = spatial
    layer = nn.ZeroPad2d if mode == "constant" else _PADDINGS[mode]
    padded = call.add(maps, layer((left, right, top, bottom)))
    return padded.seen(np.moveaxis(padded.places(), 0, -1)) if moved else padded


_RESIZED = {("linear", 1): "linear", ("linear", 2): "bilinear", ("linear", 3): "trilinear", ("cubic", 2): "bicubic"}


def _resize(call: Call) -> View:
    view = call.maps(call.view())
    rank, dims, before = len(view.shape) + 1, len(view.shape) - 1, view.shape[1:]
    mode, old = call.attribute("mode", "nearest"), call.opset < 11
    where = "asymmetric" if old else call.attribute("coordinate_transformation_mode", "half_pixel")
    rounds = "floor" if old else call.attribute("nearest_mode", "round_prefer_floor")
    for name, fine in (("antialias", 0), ("exclude_outside", 0), ("keep_aspect_ratio_policy", "stretch")):
        if call.attribute(name, fine) != fine:
            raise call.refuse(f"the attribute {name} is not one that pellucid reads")
    call.attribute("extrapolation_value", 0.0)
    if abs(call.attribute("cubic_coeff_a", -0.75) + 0.75) > 1e-6:
        raise call.refuse("cubic_coeff_a must be -0.75")
    axes = [call.axis(a, rank) for a in call.attribute("axes", list(range(rank)))]
    size, factors = _new_size(call, before, axes)
    options: dict[str, Any] = {}
    if mode != "nearest":
        short = any(o == 1 < n for n, o in zip(before, size, strict=True))
        if where not in ("half_pixel", "align_corners") and not (where == "pytorch_half_pixel" and not short):
            raise call.refuse(f"coordinate_transformation_mode = {where!r:.40} is not read")
        if (mode, dims) not in _RESIZED:
            raise call.refuse(f"mode = {mode!r:.40} over {dims} axes is not read")
        options = {"mode": _RESIZED[mode, dims], "align_corners": where == "align_corners"}
    axes_of = list(zip(before, size, factors, strict=True))
    if any(f is not None and f != o / n for n, o, f in axes_of):
        options["scale_factor"] = tuple(o / n if f is None else f for n, o, f in axes_of)
    elif any(o % n for n, o, _ in axes_of):
        options["size"] = size
    else:
        options["scale_factor"] = tuple(o // n for n, o, _ in axes_of)
    layer = nn.Upsample(**options)
    out, scales = resized(before, layer.size, layer.scale_factor)
    if out != size:
        raise call.refuse(f"the scales {factors} give another size than pellucid's")
    if mode == "nearest":
        for (n, o, f), scale in zip(axes_of, scales, strict=True):
            if not np.array_equal(terms(n, o, scale, "nearest", False)[0][0], _nearest(call, n, o, f, where, rounds)):
                raise call.refuse(f"takes other cells ({where}, {rounds}) than pellucid's nearest")
    return call.add(view, layer)


def _new_size(call: Call, before: Shape, axes: list[int]) -> tuple[Shape, list[float | None]]:
    """Return the new size, and the factors where they say it."""
    number = 1 if call.opset < 11 else 2
    given = call.inputs[3] if call.given(3) else None
    sizes: dict[int, int] = {}
    factors: dict[int, float] = {}
    if call.opset < 9:
        scales = call.attribute("scales", [1.0] * len(axes))
    elif isinstance(given, Known):
        if any(array.shape != (len(axes),) or array.dtype.kind != "i" for array in given.arrays):
            raise call.refuse("sizes must have one integer for each axis")
        both = [dict(zip(axes, map(int, array), strict=True)) for array in given.arrays]
        if any(one.pop(0, n) != n for one, n in zip(both, call.batches, strict=True)) or both[0] != both[1]:
            raise call.refuse("resizes the batch")
        sizes, scales = both[0], None
    else:
        scales = call.constant(number).tolist() if call.given(number) else None
    if scales is not None:
        if (
            not isinstance(scales, list)
            or len(scales) != len(axes)
            or not all(isinstance(f, float) and 0 < f < 1e6 for f in scales)
        ):
            raise call.refuse("scales must have one positive number for each axis")
        factors = dict(zip(axes, scales, strict=True))
        sizes = {
            a: int(np.float32(n) * np.float32(factors[a]))
            for a, n in zip(range(2, 2 + len(before)), before, strict=True)
            if a in factors
        }
    if (
        not (sizes or factors)
        or factors.get(0, 1.0) != 1
        or factors.get(1, 1.0) != 1
        or sizes.get(1, call.view().shape[0]) != call.view().shape[0]
    ):
        raise call.refuse("resizes the batch or the channels, or nothing")
    spatial = range(2, 2 + len(before))
    out = tuple(sizes.get(a, n) for a, n in zip(spatial, before, strict=True))
    if min(out) < 1 or math.prod(out) > LARGEST_ORDER:
        raise call.refuse(f"maps {text(before)} cannot become {text(out)}")
    return out, [factors.get(a) for a in spatial]


def _nearest(call: Call, n: int, out: int, factor: float | None, where: str, rounds: str) -> Array:
    """Return which cells the operator takes along an axis."""
    i = np.arange(out, dtype=np.float32)
    scale = np.float32(out / n if factor is None else factor)
    at = {
        "asymmetric": i / scale,
        "half_pixel": (i + np.float32(0.5)) / scale - np.float32(0.5),
        "pytorch_half_pixel": (i + np.float32(0.5)) / scale - np.float32(0.5) if out > 1 else i * 0,
        "tf_half_pixel_for_nn": (i + np.float32(0.5)) / scale,
        "align_corners": i * np.float32((n - 1) / max(out - 1, 1)),
    }.get(where)
    if at is None:
        raise call.refuse(f"coordinate_transformation_mode = {where!r:.40} is not read")
    rounded = {
        "floor": np.floor(at),
        "ceil": np.ceil(at),
        "round_prefer_floor": np.ceil(at - 0.5),
        "round_prefer_ceil": np.floor(at + 0.5),
    }.get(rounds)
    if rounded is None:
        raise call.refuse(f"nearest_mode = {rounds!r:.40} is not read")
    return np.asarray(np.clip(rounded, 0, n - 1), dtype=np.int64)


READERS: dict[str, Callable[[Call], View]] = {
    "AveragePool": _avg_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": _global_pool(_ADAPTIVE_AVG),
    "GlobalMaxPool": _global_pool(_ADAPTIVE_MAX),
    "MaxPool": _max_pool,
    "Pad": _pad,
    "ReduceMax": _reduce(_ADAPTIVE_MAX),
    "ReduceMean": _reduce(_ADAPTIVE_AVG),
    "Resize": _resize,
    "Upsample": _resize,
}
