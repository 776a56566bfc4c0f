"""The space of a layer's values: neighbors, a map in two dimensions, and, where a decoder follows, ways back to images.

A layer divides a network into an encoder, which ends with it, and a decoder. A plain autoencoder learns to bring back
its training images and nothing else: it promises neither that points between two images, nor that points drawn at
random, decode to anything. So sample draws from a density that is fitted to the codes of real images, and says nothing
about whether the results are likely; a variational autoencoder would be trained for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pellucid import engines, nn
from pellucid._types import Array
from pellucid.data.dataset import Dataset, rescaled
from pellucid.errors import DataError, EngineError, OptionError, unknown
from pellucid.explain.walk import as_numbers, check_model, find, network_of, one_image, piece, shapes, trace, up_to
from pellucid.model import Model
from pellucid.nn import Network, Sequential
from pellucid.shapes import integer, text

METHODS = ("pca", "tsne")
_BATCH = 1024


def split(network: Model | Network, layer: int | str) -> tuple[Sequential, Sequential]:
    """Return (encoder, decoder): the network up to a layer, and the rest; both are copies.

    Args:
        network: A model, or a built Sequential.
        layer: One of the outermost layers, not the last.

    Raises:
        OptionError: For a network or layer that cannot be divided so.

    >>> from pellucid import nn
    >>> net = Sequential(nn.Flatten(), nn.Linear(9, 2), nn.Linear(2, 9), input_shape=(1, 3, 3))
    >>> encoder, decoder = split(net, 1)
    >>> decoder(encoder(np.zeros((1, 1, 3, 3), dtype=np.float32))).shape
    (1, 9)
    """
    whole = network_of(network)
    place, _ = find(whole, layer)
    outermost = [name for name, _ in whole.children()]
    if not isinstance(whole, Sequential) or place not in outermost:
        raise OptionError(f"layer must be one of the outermost of a Sequential, 0 to {len(outermost) - 1}, got {place}")
    cut = outermost.index(place) + 1
    if cut == len(outermost):
        raise OptionError("layer must not be the last one: nothing would be left to decode with")
    return piece(whole, slice(0, cut), whole.input_shape), piece(whole, slice(cut, None), shapes(whole)[place])


def bottleneck(network: Model | Network) -> str:
    """Return the place of the narrowest of the outermost layers, the first of equals.

    Args:
        network: A model, or a built network.

    >>> from pellucid import nn
    >>> bottleneck(Sequential(nn.Flatten(), nn.Linear(9, 2), nn.ReLU(), nn.Linear(2, 9), input_shape=(1, 3, 3)))
    '1'
    """
    whole = network_of(network)
    after = shapes(whole)
    return min((name for name, _ in whole.children()), key=lambda name: math.prod(after[name]))


def last_hidden(network: Model | Network) -> str:
    """Return the place of the layer whose values the last layer with weights reads: what a classifier decides on.

    Args:
        network: A model, or a built network.

    >>> from pellucid import models
    >>> last_hidden(models.create("lenet5", (1, 28, 28), 10))
    '10'
    """
    silent = (nn.Dropout, nn.Dropout2d, nn.Identity)
    outermost = [(name, layer) for name, layer in network_of(network).children() if not isinstance(layer, silent)]
    weighted = [i for i, (_, layer) in enumerate(outermost) if layer.named_parameters()]
    if not weighted or weighted[-1] == 0:
        raise OptionError("the network has no hidden layer; name one: layer=...")
    return outermost[weighted[-1] - 1][0]


def codes(model: Model, images: object, layer: int | str) -> Array:
    """Return a layer's values for images: (N, n), maps in row-major order.

    Args:
        model: A model.
        images: Files, PIL images, or raw arrays (N, C, H, W).
        layer: Its place.

    >>> import pellucid as pl
    >>> net = pl.models.create("lenet5", (1, 28, 28), 10)
    >>> model = Model(net, pl.InputSpec((1, 28, 28), (0.0, 1.0), (0.5,), (0.5,)))
    >>> codes(model, np.zeros((3, 28, 28)), "10").shape
    (3, 64)
    """
    raw = check_model(model).prepared(images)
    encode = _encoder(model, layer)
    return np.concatenate([encode(raw[i : i + _BATCH]) for i in range(0, max(len(raw), 1), _BATCH)])


def _encoder(model: Model, layer: int | str) -> Callable[[Array], Array]:
    """Return what gives the codes of raw images; for an outermost layer the model's engine computes them."""
    place, _ = find(model.network, layer)
    head = up_to(model.network, place)
    if head is model.network or "." in place:
        return lambda raw: trace(head, model.input.canonical(raw)).outputs[place].reshape(len(raw), -1)
    engine = _engine(head, model.engine if head.dtype == np.float32 else "reference")
    return lambda raw: engine.predict(model.input.canonical(raw)).reshape(len(raw), -1)


def _engine(network: Network, name: str) -> engines.Engine:
    """Return an engine for a network: the named one, or the reference engine where that cannot run it."""
    try:
        engine = engines.create(name)
        engine.build(network)
    except EngineError:
        engine = engines.create("reference")
        engine.build(network)
    return engine


def decode(model: Model | Network, layer: int | str, points: Array) -> Array:
    """Return what the rest of the network makes of values of a layer: (N, ...), as the network gives it.

    Args:
        model: A model, or a built network.
        layer: One of the outermost layers.
        points: (N, n), as codes gives them.

    Raises:
        OptionError: For points of another size, or NaN and infinity among them.

    >>> from pellucid import nn
    >>> net = Sequential(nn.Flatten(), nn.Linear(9, 2), nn.Linear(2, 9), input_shape=(1, 3, 3))
    >>> decode(net, 1, np.zeros((4, 2))).shape
    (4, 9)
    """
    _, decoder = split(model, layer)
    points = _finite(points, "points")
    size = math.prod(decoder.input_shape)
    if points.ndim != 2 or points.shape[1] != size:
        raise OptionError(
            f"points must be (N, {size}), values of the layer ({text(decoder.input_shape)}), got {points.shape}"
        )
    return _engine(decoder, "reference").predict(points.astype(decoder.dtype).reshape(-1, *decoder.input_shape))


def interpolate(model: Model, first: object, second: object, layer: int | str, steps: int = 8) -> Array:
    """Return decoded points on the straight line between the codes of two images, both ends included: (steps, ...).

    Args:
        model: An autoencoder.
        first: A file, a PIL image, or a raw array (C, H, W).
        second: Another.
        layer: One of the outermost layers.
        steps: How many points, at least 2.

    >>> import pellucid as pl
    >>> from pellucid import nn
    >>> net = Sequential(nn.Flatten(), nn.Linear(9, 2), nn.Linear(2, 9), input_shape=(1, 3, 3))
    >>> model = Model(net, pl.InputSpec((1, 3, 3), (0.0, 1.0), (0.0,), (1.0,)))
    >>> interpolate(model, np.zeros((3, 3)), np.eye(3), layer=1, steps=5).shape
    (5, 9)
    """
    place, _ = find(check_model(model).network, layer)
    encode = _encoder(model, place)
    a, b = (encode(model.prepared(image)) for image in (first, second))
    t = np.linspace(0, 1, integer(steps, "steps", minimum=2))[:, None]
    return decode(model, layer, a + t * (b - a))


@dataclass(frozen=True, eq=False)
class Plane:
    """A map of points in two dimensions.

    Attributes:
        points: Where each point lies, float64, (N, 2).
        explained: Share of the variance that the map shows; None for t-SNE, which keeps no distances.
        lift: Takes (M, 2) on the map to (M, n) in the space; None for t-SNE.
    """

    points: Array
    explained: float | None = None
    lift: Callable[[Array], Array] | None = None


def plane(points: Array, fit_on: Array | None = None, method: str = "pca", seed: int = 0) -> Plane:
    """Return a map of points in two dimensions.

    PCA is the plane along which the points vary most; distances on it are at most those in the space. t-SNE keeps near
    points near: distances between groups, their sizes and the axes of its map mean nothing (Wattenberg, Viégas,
    Johnson: How to use t-SNE effectively, 2016).

    Args:
        points: (N, n), N at least 3.
        fit_on: What the plane of PCA is fitted to, as the codes of training images; the points themselves if None.
        method: "pca" or "tsne".
        seed: Of t-SNE.

    Raises:
        OptionError: For too few points, or a method that does not exist.

    >>> made = plane(np.random.default_rng(0).normal(size=(20, 5)) * [9, 3, 1, 1, 1])
    >>> made.points.shape, made.lift(made.points).shape
    ((20, 2), (20, 5))
    """
    points = _checked(points, "points")
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if method == "tsne":
        from sklearn.manifold import TSNE

        if fit_on is not None:
            raise OptionError("t-SNE has no way to place new points on a map that was fitted before; leave out fit_on")
        near = min(30.0, (len(points) - 1) / 3)
        start = plane(points).points
        start = start / (np.std(start[:, 0]) or 1.0) * 1e-4
        return Plane(
            TSNE(perplexity=near, init=start, random_state=integer(seed, "seed", minimum=0)).fit_transform(points)
        )
    base = points if fit_on is None else _checked(fit_on, "fit_on")
    if base.shape[1] != points.shape[1]:
        raise OptionError(f"fit_on has {base.shape[1]} values for each point, points has {points.shape[1]}")
    middle = base.mean(axis=0)
    _, spread, axes = np.linalg.svd(base - middle, full_matrices=False)
    axes = np.vstack([axes[:2], np.zeros((max(0, 2 - len(axes)), axes.shape[1]))])
    axes = axes * np.where(axes[np.arange(2), np.abs(axes).argmax(axis=1)] < 0, -1, 1)[:, None]
    total = float(np.square(spread).sum())
    explained = float(np.square(spread[:2]).sum()) / total if total else 1.0
    return Plane((points - middle) @ axes.T, explained, lambda at: middle + np.asarray(at) @ axes)


def _checked(points: Array, name: str) -> Array:
    points = _finite(points, name)
    if points.ndim != 2 or len(points) < 3:
        raise OptionError(f"{name} must be (N, n) with at least 3 points, got {points.shape}")
    return points


def _finite(points: Array, name: str) -> Array:
    points = as_numbers(points, name).astype(np.float64)
    if not np.isfinite(points).all():
        raise OptionError(f"{name} must be finite; some values are NaN or infinite")
    return points


def grid(model: Model | Network, layer: int | str, made: Plane, size: int = 8) -> Array:
    """Return decoded points of a grid over a map: (size, size, ...); rows from top to bottom, as a plot shows them.

    Args:
        model: An autoencoder, or its network.
        layer: One of the outermost layers.
        made: A map of that layer's codes, by PCA.
        size: Points along each axis, from the 2nd to the 98th percentile of the map.

    Raises:
        OptionError: For a map by t-SNE, from which no way leads back.

    >>> from pellucid import nn
    >>> net = Sequential(nn.Flatten(), nn.Linear(9, 2), nn.Linear(2, 9), input_shape=(1, 3, 3))
    >>> grid(net, 1, plane(np.eye(3, 2)), size=4).shape
    (4, 4, 9)
    """
    if made.lift is None:
        raise OptionError('from a map by t-SNE no way leads back to the space; use method="pca"')
    size = integer(size, "size", minimum=2)
    low, high = np.percentile(made.points, [2, 98], axis=0)
    across, down = np.linspace(low[0], high[0], size), np.linspace(high[1], low[1], size)
    at = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
    images = decode(model, layer, made.lift(at))
    return images.reshape(size, size, *images.shape[1:])


def sample(
    model: Model | Network, layer: int | str, points: Array, count: int = 16, components: int = 1, seed: int = 0
) -> Array:
    """Return decoded points drawn from a density that is fitted to codes: (count, ...).

    Args:
        model: An autoencoder, or its network.
        layer: One of the outermost layers.
        points: Codes of real images, (N, n).
        count: How many to draw.
        components: Of the density, a mixture of Gaussians; 1 is a single one.
        seed: Of fit and draw.

    Raises:
        OptionError: For fewer points than components.

    >>> from pellucid import nn
    >>> net = Sequential(nn.Flatten(), nn.Linear(9, 2), nn.Linear(2, 9), input_shape=(1, 3, 3))
    >>> sample(net, 1, np.random.default_rng(0).normal(size=(30, 2)), count=5).shape
    (5, 9)
    """
    from sklearn.mixture import GaussianMixture

    points, components = _checked(points, "points"), integer(components, "components")
    if components > len(points):
        raise OptionError(f"components must be at most the number of points, {len(points)}, got {components}")
    density = GaussianMixture(components, random_state=integer(seed, "seed", minimum=0)).fit(points)
    return decode(model, layer, density.sample(integer(count, "count"))[0])


def nearest(
    model: Model, image: object, ds: Dataset, layer: int | str | None = None, count: int = 8, part: str = "train"
) -> tuple[Array, Array]:
    """Return the images of a data set whose codes are nearest to an image's, and their distances: (count,) each.

    Args:
        model: A model.
        image: A file, a PIL image, or a raw array (C, H, W).
        ds: Where to look.
        layer: In whose space; that of last_hidden if None.
        count: How many, or all where there are fewer.
        part: "train", "val", "test" or "all".

    Returns:
        Indices into ds.images, the nearest first, and Euclidean distances.

    >>> import pellucid as pl
    >>> ds = pl.data.load("digits")
    >>> model = Model(pl.models.create("block_cnn", ds.shape, 10), pl.InputSpec.of(ds))
    >>> first = ds.splits.train[5]
    >>> found, distances = nearest(model, ds.images[first], ds)
    >>> bool(found[0] == first), bool(distances[0] < 1e-5 < distances[1])
    (True, True)
    """
    place = last_hidden(check_model(model).network) if layer is None else find(model.network, layer)[0]
    if not isinstance(ds, Dataset):
        raise OptionError(f"ds must be a data set, as pellucid.data.load gives it, got {type(ds).__name__}")
    chosen = ds.indices(part)
    if not len(chosen):
        raise DataError(f'the data set has no part "{part}" to look in')
    if ds.shape != model.input.shape:
        raise DataError(f"the data have images {text(ds.shape)}, the model takes {text(model.input.shape)}")
    encode = _encoder(model, place)
    own = encode(one_image(model, image))
    parts = [chosen[i : i + _BATCH] for i in range(0, len(chosen), _BATCH)]
    distances = np.concatenate(
        [np.linalg.norm(encode(rescaled(ds, some, model.input.value_range)) - own, axis=1) for some in parts]
    )
    order = np.argsort(distances, kind="stable")[: integer(count, "count")]
    return chosen[order], distances[order]
