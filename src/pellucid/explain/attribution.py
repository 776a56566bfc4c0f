"""Which pixels an output depends on: saliency, integrated gradients, occlusion, Grad-CAM.

None of them proves why a network decides as it does. They answer four different questions about one output number, a
class's raw score, and can disagree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pellucid import engines, nn
from pellucid._types import Array
from pellucid.errors import OptionError
from pellucid.explain.walk import INPUT, canonical, find, shapes, target_cell, trace
from pellucid.model import Model
from pellucid.nn import Network
from pellucid.shapes import integer, pair

_BATCH = 64
_FINEST = 512
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


def saliency(model: Model, image: object, target: object = None) -> Array:
    """Return how strongly each input value moves an output, at this very image: |d output / d input|, (C, H, W).

    The input is the network's, after scaling by the input spec (Simonyan, Vedaldi, Zisserman: Deep inside convolutional
    networks, 2013).

    Args:
        model: A model.
        image: A file, a PIL image, or a raw array (C, H, W).
        target: A class by name or number, or the cell of another output; the largest output if None.

    >>> import pellucid as pl
    >>> net = pl.models.create("lenet5", (1, 28, 28), 10)
    >>> model = Model(net, pl.InputSpec((1, 28, 28), (0.0, 1.0), (0.5,), (0.5,)))
    >>> saliency(model, np.ones((28, 28))).shape
    (1, 28, 28)
    """
    x = canonical(model, image)
    cell = target_cell(model, _outputs(model.network, x)[0], target)
    return np.asarray(np.abs(_gradient(model.network, x, cell)[0]))


@dataclass(frozen=True, eq=False)
class IntegratedGradients:
    """What integrated_gradients found.

    Attributes:
        values: Each input value's share of the difference, (C, H, W); they sum to difference, up to gap.
        difference: Output for the image less output for the baseline.
        gap: Sum of the values less difference: the error of the integration.
        steps: How many gradients were averaged.
    """

    values: Array
    difference: float
    gap: float
    steps: int


def integrated_gradients(
    model: Model, image: object, target: object = None, baseline: object = None, steps: int | None = None
) -> IntegratedGradients:
    """Return how an output's difference from that of a baseline is made up of the input values.

    (x - baseline) times the mean gradient on the straight way from baseline to x, by Gauss-Legendre integration
    (Sundararajan, Taly, Yan: Axiomatic attribution for deep networks, 2017).

    Args:
        model: A model.
        image: A file, a PIL image, or a raw array (C, H, W).
        target: A class by name or number, or the cell of another output; the largest output if None.
        baseline: A raw value, raw values of each channel (C, 1, 1), or an image like image; the color of the image's
            border if None.
        steps: How many gradients; if None, 32 and then twice as many until the sum is within 1% of the difference,
            at most 512.

    >>> import pellucid as pl
    >>> net = pl.models.create("lenet5", (1, 28, 28), 10)
    >>> model = Model(net, pl.InputSpec((1, 28, 28), (0.0, 1.0), (0.5,), (0.5,)))
    >>> found = integrated_gradients(model, np.eye(28))
    >>> bool(abs(found.values.sum() - found.difference) < 0.02 * abs(found.difference))
    True
    """
    x = canonical(model, image)
    start = _baseline(model, x, baseline)
    outputs = _outputs(model.network, np.concatenate([x, start]))
    cell = target_cell(model, outputs[0], target)
    difference = float(outputs[0][cell]) - float(outputs[1][cell])
    count = integer(32 if steps is None else steps, "steps")
    while True:
        values = _integral(model.network, x, start, cell, count)
        gap = float(values.sum()) - difference
        if steps is not None or abs(gap) <= 0.01 * abs(difference) or 2 * count > _FINEST:
            return IntegratedGradients(values, difference, gap, count)
        count *= 2


def _integral(network: Network, x: Array, start: Array, cell: tuple[int, ...], steps: int) -> Array:
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = np.zeros(x.shape[1:])
    for part in _blocks(steps):
        at = ((nodes[part] + 1) / 2).reshape(-1, 1, 1, 1)
        gradients = _gradient(network, start + at * (x - start), cell)
        total += np.tensordot(weights[part] / 2, gradients, 1)
    return np.asarray(total * (x - start)[0])


def occlusion(
    model: Model,
    image: object,
    target: object = None,
    window: int | tuple[int, int] | None = None,
    stride: int | tuple[int, int] | None = None,
    baseline: object = None,
) -> Array:
    """Return how much an output falls where a patch covers the image: float64, (H, W); negative where it rises.

    Each pixel has the mean over all patches that cover it (Zeiler, Fergus: Visualizing and understanding convolutional
    networks, 2013).

    Args:
        model: A model.
        image: A file, a PIL image, or a raw array (C, H, W).
        target: A class by name or number, or the cell of another output; the largest output if None.
        window: Size of the patch; a seventh of the image if None.
        stride: From patch to patch; half a patch if None.
        baseline: What covers, as in integrated_gradients.

    Raises:
        OptionError: For a patch larger than the image, or a stride that leaves pixels out.

    >>> import pellucid as pl
    >>> net = pl.models.create("lenet5", (1, 28, 28), 10)
    >>> model = Model(net, pl.InputSpec((1, 28, 28), (0.0, 1.0), (0.5,), (0.5,)))
    >>> occlusion(model, np.eye(28), target=3).shape
    (28, 28)
    """
    x = canonical(model, image)
    cover = _baseline(model, x, baseline)
    _, _, h, w = x.shape
    kh, kw = (max(1, round(h / 7)), max(1, round(w / 7))) if window is None else pair(window, "window")
    sh, sw = ((kh + 1) // 2, (kw + 1) // 2) if stride is None else pair(stride, "stride")
    if kh > h or kw > w:
        raise OptionError(f"window {kh}x{kw} is larger than the image, {h}x{w}")
    if sh > kh or sw > kw:
        raise OptionError(f"stride {sh}x{sw} is larger than the window, {kh}x{kw}; pixels would be left out")
    before = _outputs(model.network, x)[0]
    cell = target_cell(model, before, target)
    corners = [(i, j) for i in _starts(h, kh, sh) for j in _starts(w, kw, sw)]
    fall, covered = np.zeros((h, w)), np.zeros((h, w))
    for part in _blocks(len(corners)):
        batch = np.repeat(x, len(corners[part]), axis=0)
        patches = [np.s_[i : i + kh, j : j + kw] for i, j in corners[part]]
        for hidden, patch in zip(batch, patches, strict=True):
            hidden[:, *patch] = cover[0][:, *patch]
        for after, patch in zip(_outputs(model.network, batch), patches, strict=True):
            fall[patch] += float(before[cell]) - float(after[cell])
            covered[patch] += 1
    return fall / covered


def grad_cam(model: Model, image: object, target: object = None, layer: int | str | None = None) -> Array:
    """Return where a layer's maps speak for an output: (h, w) of the layer's maps, no value below 0.

    Maps weighted by their mean gradient, summed, and what is negative cut off (Selvaraju et al.: Grad-CAM, 2017).
    Stretched over the image it is coarse: a cell speaks for its receptive field, see receptive_field.

    Args:
        model: A model.
        image: A file, a PIL image, or a raw array (C, H, W).
        target: A class by name or number, or the cell of another output; the largest output if None.
        layer: Its place; if None, see cam_layer.

    Raises:
        OptionError: For a layer without maps.

    >>> import pellucid as pl
    >>> net = pl.models.create("lenet5", (1, 28, 28), 10)
    >>> model = Model(net, pl.InputSpec((1, 28, 28), (0.0, 1.0), (0.5,), (0.5,)))
    >>> grad_cam(model, np.eye(28)).shape
    (8, 8)
    """
    x = canonical(model, image)
    place = cam_layer(model.network) if layer is None else find(model.network, layer)[0]
    seen = trace(model.network, x)
    maps = seen.outputs[place][0]
    if maps.ndim != 3:
        raise OptionError(f"Grad-CAM needs a layer with maps; {place} gives {maps.size} numbers without a place")
    output = seen.outputs[""]
    weights = seen.gradients({"": _one_hot(output, target_cell(model, output[0], target))})[place][0].mean(axis=(1, 2))
    return np.maximum(np.tensordot(weights, maps, 1), 0)


def cam_layer(network: Network) -> str:
    """Return the place that Grad-CAM looks at: the last outermost layer with maps of several cells that is no pooling.

    Args:
        network: Built.

    Raises:
        OptionError: Where there is none.

    >>> from pellucid import models
    >>> cam_layer(models.create("lesson2", (1, 28, 28), 10))
    '7'
    """
    after = shapes(network)
    for place, layer in reversed(list(network.children())):
        shape = after[place]
        if len(shape) == 3 and shape[1] * shape[2] > 1 and not isinstance(layer, _POOLS):
            return place
    raise OptionError("Grad-CAM needs a layer with maps, and this network has none; try saliency or occlusion")


def _starts(n: int, window: int, stride: int) -> range:
    """Return where patches begin; the last one may hang over the edge."""
    return range(0, -(-(n - window) // stride) * stride + 1, stride)


def _blocks(n: int) -> Iterator[slice]:
    for i in range(0, n, _BATCH):
        yield slice(i, min(i + _BATCH, n))


def _outputs(network: Network, x: Array) -> Array:
    engine = engines.create("reference")
    engine.build(network)
    return engine.predict(x)


def _one_hot(output: Array, cell: tuple[int, ...]) -> Array:
    """Return the incoming gradient that asks for one cell of each image's output."""
    dy = np.zeros_like(output)
    np.moveaxis(dy, 0, -1)[cell] = 1
    return dy


def _gradient(network: Network, x: Array, cell: tuple[int, ...]) -> Array:
    """Return the gradient of an output by the input, for each of N inputs."""
    seen = trace(network, x)
    return seen.gradients({"": _one_hot(seen.outputs[""], cell)})[INPUT]


def _baseline(model: Model, x: Array, baseline: object) -> Array:
    """Return what stands for nothing, as the network's input: (1, C, H, W)."""
    if baseline is None:
        edge = np.concatenate([x[..., [0, -1], :].reshape(x.shape[1], -1), x[..., [0, -1]].reshape(x.shape[1], -1)], 1)
        return np.broadcast_to(np.median(edge, axis=1).astype(x.dtype)[None, :, None, None], x.shape)
    if isinstance(baseline, (int, float, np.ndarray, np.generic)):
        try:
            baseline = np.broadcast_to(np.asarray(baseline), x.shape[1:])
        except ValueError:
            raise OptionError(
                f"baseline must be a raw value, one a channel (C, 1, 1), or an image, got shape {np.shape(baseline)}"
            ) from None
    return canonical(model, baseline, "baseline")
