"""Operators without a window: dense layers, normalizations, softmax, and channels that are joined."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from pellucid import nn
from pellucid._types import Array
from pellucid.interop.onnx.call import Call, fill
from pellucid.interop.onnx.places import Place, View
from pellucid.shapes import text

BATCH_NORM = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def _linear(call: Call, view: View, weight: Array, bias: Array | None) -> View:
    """Add a dense layer; weight is (K, M), for features in the view's order."""
    view = call.features(view)
    if weight.shape[0] != view.shape[0]:
        raise call.refuse(f"gets {view.shape[0]} features, its weights have shape {weight.shape}")
    if view.order is not None and sorted(view.order.tolist()) != list(range(math.prod(view.source))):
        raise call.refuse("takes some features only, or some twice")
    columns = weight.T
    if view.order is not None:
        columns = np.empty_like(columns)
        columns[:, view.order] = weight.T
    arrays = {"weight": columns} if bias is None else {"weight": columns, "bias": bias}
    layer = fill(nn.Linear(weight.shape[0], weight.shape[1], bias is not None), **arrays)
    return call.add(View(view.place, view.source), layer)


def _gemm(call: Call) -> View:
    view, weight = call.view(), call.weight(1, 2)
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    call.attribute("broadcast", 0)
    if call.attribute("transA", 0):
        raise call.refuse("transA mixes the images of a batch")
    weight = weight.T if call.attribute("transB", 0) else weight
    bias = None
    if call.given(2):
        bias = call.constant(2)
        bias = call.weight(2, bias.ndim)
        if bias.size not in (1, weight.shape[1]) or bias.ndim > 2 or (bias.ndim == 2 and bias.shape[0] != 1):
            raise call.refuse(f"the bias has shape {bias.shape}, expected ({weight.shape[1]},)")
        bias = np.broadcast_to(bias.ravel(), (weight.shape[1],)) * np.float32(beta)
    return _linear(call, view, weight * np.float32(alpha) if alpha != 1 else weight, bias)


def _matmul(call: Call) -> View:
    return _linear(call, call.view(), call.weight(1, 2), None)


def _channel_weights(call: Call, view: View, numbers: Sequence[int]) -> list[Array]:
    arrays = [call.weight(number, 1) for number in numbers]
    if any(array.shape != view.shape[:1] for array in arrays):
        raise call.refuse(f"its weights do not have one number for each of {view.shape[0]} channels")
    return arrays


def _batch_norm(call: Call) -> View:
    view = call.maps(call.view(), (0, 1, 2, 3))
    training = call.attribute("training_mode", 0) or (call.opset < 7 and not call.attribute("is_test", 0))
    if training or not call.attribute("spatial", 1):
        raise call.refuse("in training, or with statistics of each cell; export the network for inference")
    call.attribute("momentum", 0.9)
    weight, bias, mean, var = _channel_weights(call, view, (1, 2, 3, 4))
    if (var < 0).any():
        raise call.refuse("holds negative variances")
    layer = BATCH_NORM[len(view.shape) - 1](len(weight), eps=call.attribute("epsilon", 1e-5))
    arrays = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": var}
    return call.add(view, fill(layer, **arrays, num_batches_tracked=np.zeros(())))


def _instance_norm(call: Call) -> View:
    """Instance norm is group norm with a group for each channel; several channels seen as one make a group."""
    view, eps = call.view(), call.attribute("epsilon", 1e-5)
    weight, bias = _channel_weights(call, view, (1, 2))
    if view.order is None and len(view.shape) > 1 and view.source[0] % view.shape[0] == 0:
        groups, channels = view.shape[0], view.source[0]
        plain = not bias.any() and (weight == 1).all()
        if plain and channels != groups:
            return call.add(view, nn.GroupNorm(groups, channels, eps, affine=False))
        if channels == groups:
            return call.add(view, fill(nn.GroupNorm(groups, channels, eps), weight=weight, bias=bias))
    raise call.refuse(f"of N x {text(view.shape)}, seen in N x {text(view.source)}, is no group norm")


def _group_norm(call: Call) -> View:
    view, eps = call.maps(call.view(), (0, 1, 2, 3)), call.attribute("epsilon", 1e-5)
    groups = call.attribute("num_groups", 0)
    call.attribute("stash_type", 1)
    weight, bias = call.weight(1, 1), call.weight(2, 1)
    channels = view.shape[0]
    if (
        groups < 1
        or channels % groups
        or weight.shape != bias.shape
        or weight.size != (groups if call.opset < 21 else channels)
    ):
        raise call.refuse(f"has {weight.size} weights for {groups} groups of {channels} channels")
    each = channels // weight.size
    layer = nn.GroupNorm(groups, channels, eps)
    return call.add(view, fill(layer, weight=weight.repeat(each), bias=bias.repeat(each)))


def _layer_norm(call: Call) -> View:
    view, eps = call.in_order(call.view()), call.attribute("epsilon", 1e-5)
    call.attribute("stash_type", 1)
    axis = call.axis(call.attribute("axis", -1), len(view.shape) + 1)
    if axis == 0:
        raise call.refuse("goes over the batch")
    shape = view.shape[axis - 1 :]
    arrays = {name: call.weight(n, call.constant(n).ndim) for n, name in ((1, "weight"), (2, "bias")) if call.given(n)}
    if any(array.shape != shape for array in arrays.values()) or "weight" not in arrays:
        raise call.refuse(f"its weights do not have the shape {shape}")
    return call.add(view, fill(nn.LayerNorm(shape, eps, bias="bias" in arrays), **arrays))


def _softmax(kind: type[nn.Softmax | nn.LogSoftmax]) -> Callable[[Call], View]:
    def read(call: Call) -> View:
        view = call.view()
        rank = len(view.shape) + 1
        axis = call.axis(call.attribute("axis", 1 if call.opset < 13 else -1), rank)
        if axis == 0:
            raise call.refuse("goes over the batch")
        if call.opset >= 13 and view.channels_last:
            return call.add(view, kind(1 if axis == rank - 1 else axis + 1))
        if call.opset >= 13 or math.prod(view.shape[axis:]) == 1:
            return call.add(call.in_order(view), kind(axis))
        # Before opset 13 all axes from this one on are one.
        rows, cells = math.prod(view.shape[: axis - 1]), math.prod(view.shape[axis - 1 :])
        flat = view.reshaped((rows, cells) if axis > 1 else (cells,))
        return call.add(call.in_order(flat), kind(-1)).reshaped(view.shape)

    return read


def _concat(call: Call) -> View:
    views = [call.view(number) for number in range(len(call.inputs))]
    axis = call.axis(call.attribute("axis", 1), len(views[0].shape) + 1)
    moved = len(views[0].shape) > 1 and all(view.channels_last for view in views)
    plain = [View(view.place, view.source) for view in views] if moved else [call.in_order(view) for view in views]
    if len({(len(v.shape), v.shape[1:]) for v in plain}) != 1 or axis != (len(views[0].shape) if moved else 1):
        raise call.refuse(
            f"joins {', '.join(text(v.shape) for v in views)} along axis {axis}; pellucid joins channels only"
        )
    shape = (sum(view.shape[0] for view in plain), *plain[0].shape[1:])
    if len(plain) == 1:
        return views[0]
    made = View(Place(str(call), [view.place for view in plain], shape, meeting=nn.Concat), shape)
    return made.seen(np.moveaxis(made.places(), 0, -1)) if moved else made


READERS: dict[str, Callable[[Call], View]] = {
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax(nn.LogSoftmax),
    "MatMul": _matmul,
    "Softmax": _softmax(nn.Softmax),
}
