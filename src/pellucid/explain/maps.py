"""What a network has computed and what it has learned: the values of every layer, the kernels of all layers."""

from __future__ import annotations

import numpy as np

from pellucid import nn
from pellucid._types import Array
from pellucid.errors import ShapeError
from pellucid.explain.walk import as_numbers, canonical, check_model, network_of, places, trace
from pellucid.model import Model
from pellucid.nn import Network

_WITH_KERNELS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def feature_maps(model: Model, image: object) -> dict[str, Array]:
    """Return what each layer and container gives for an image, by place: (C, H, W) of maps, (n,) of a dense layer.

    Args:
        model: A model.
        image: A file, a PIL image, or a raw array (C, H, W).

    Returns:
        The input first, as "input"; then the layers in the order of computation.

    >>> import pellucid as pl
    >>> net = pl.models.create("lenet5", (1, 28, 28), 10)
    >>> model = Model(net, pl.InputSpec((1, 28, 28), (0.0, 1.0), (0.5,), (0.5,)))
    >>> maps = feature_maps(model, np.eye(28))
    >>> maps["0"].shape, maps["11"].shape
    ((6, 24, 24), (10,))
    """
    outputs = trace(check_model(model).network, canonical(model, image)).outputs
    return {place: y[0] for place, y in outputs.items() if place}


def dead(maps: Array) -> Array:
    """Return which maps of a layer say nothing about this image: the same value everywhere, of one cell 0: bool, (C,).

    Args:
        maps: (C, H, W).

    Raises:
        ShapeError: For an array of other axes.

    >>> dead(np.array([[[2.0, 2.0]], [[0.0, 1.0]]]))
    array([ True, False])
    """
    maps = as_numbers(maps, "maps")
    if maps.ndim != 3:
        raise ShapeError(f"maps must be (C, H, W), got {maps.shape}")
    flat = maps.reshape(len(maps), -1)
    return np.asarray((flat == (flat[:, :1] if flat.shape[1] > 1 else 0)).all(axis=1))


def kernels(model: Model | Network) -> dict[str, Array]:
    """Return the weights of every convolution by place; of a layer that stands at several places once.

    Args:
        model: A model, or a built network.

    Returns:
        (out, C / groups, kh, kw) of Conv2d, (C, out / groups, kh, kw) of ConvTranspose2d; other axes of other ones.

    >>> from pellucid import models
    >>> {place: weight.shape for place, weight in kernels(models.create("lenet5", (1, 28, 28), 10)).items()}
    {'0': (6, 1, 5, 5), '3': (16, 6, 5, 5)}
    """
    found: dict[int, tuple[str, Array]] = {}
    for place, layer in places(network_of(model)):
        if isinstance(layer, _WITH_KERNELS):
            found.setdefault(id(layer), (place, layer.weight))
    return dict(found.values())
