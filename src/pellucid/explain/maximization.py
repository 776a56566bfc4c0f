"""Activation maximization: pictures that excite a filter or an output, made by climbing its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pellucid._types import Array
from pellucid.errors import OptionError
from pellucid.explain.walk import INPUT, check_model, find, index, shapes, trace, up_to
from pellucid.model import Model
from pellucid.random import Stream
from pellucid.shapes import integer, number


@dataclass(frozen=True, eq=False)
class Maximized:
    """What maximize found for K filters.

    Attributes:
        images: Raw, in the model's value range, float64, (K, C, H, W).
        before: How strongly the noise at the start excites each filter, (K,): the mean of its map, negative cells as 0;
            the value of an output of a dense layer.
        after: How strongly its image does, (K,); not more than before where the filter is dead.
    """

    images: Array
    before: Array
    after: Array


def maximize(
    model: Model,
    layer: int | str,
    units: int | Sequence[int],
    steps: int = 64,
    rate: float = 0.05,
    decay: float = 0.01,
    jitter: int | None = None,
    blur: float = 0.5,
    seed: int = 0,
) -> Maximized:
    """Return images that excite filters: the mean of what is positive in a filter's map grows step by step.

    Plain gradient ascent ends in noise that no eye can read. So each step moves the image a few pixels at random and
    back, draws it a little toward middle gray, keeps it within the pixels' range, and every
    fourth step blurs it (Olah, Mordvintsev, Schubert: Feature visualization, 2017). Such an image shows one thing that
    excites the filter, not all that does, and nothing that occurs in data.

    Args:
        model: A model.
        layer: Its place.
        units: Numbers of filters, or of outputs of a dense layer.
        steps: How many.
        rate: Length of a step: root mean square over the pixels, of the range of values.
        decay: Share of the way to middle gray that each step goes.
        jitter: Pixels by which a step may move the image; a sixteenth of it if None, at least 1.
        blur: Standard deviation of the blur, in pixels; it ends after three quarters of the steps.
        seed: Of noise and movements.

    Raises:
        OptionError: For a layer, filter or setting that does not exist.

    >>> import pellucid as pl
    >>> net = pl.models.create("lenet5", (1, 28, 28), 10)
    >>> model = Model(net, pl.InputSpec((1, 28, 28), (0.0, 1.0), (0.5,), (0.5,)))
    >>> found = maximize(model, "0", [0, 3], steps=8)
    >>> found.images.shape, bool((found.after > found.before).all())
    ((2, 1, 28, 28), True)
    """
    from scipy.ndimage import gaussian_filter

    network, spec = check_model(model).network, model.input
    place, _ = find(network, layer)
    head, shape = up_to(network, place), shapes(network)[place]
    chosen = units if isinstance(units, (list, tuple, range, np.ndarray)) else [units]
    numbers = [index(shape[:1], unit, "units")[0] for unit in chosen]
    if not numbers:
        raise OptionError("units is empty; give the numbers of filters, as in units=[0, 1]")
    steps, seed = integer(steps, "steps"), integer(seed, "seed", minimum=0)
    rate, decay, blur = number(rate, "rate"), number(decay, "decay", below=1.0), number(blur, "blur")
    reach = max(1, min(spec.shape[1:]) // 16) if jitter is None else integer(jitter, "jitter", minimum=0)
    mean, std = (np.array(values)[:, None, None] for values in (spec.mean, spec.std))
    cells = (np.arange(len(numbers)), numbers)

    def climb(unit: Array) -> tuple[Array, Array]:
        """Return the excitements of images from 0 to 1, (K,), and their gradients."""
        seen = trace(head, (unit - mean) / std)
        maps = seen.outputs[place].reshape(len(unit), shape[0], -1)[cells]
        counted = (maps > 0) | (maps.max(axis=1, keepdims=True) <= 0)  # what is negative everywhere has to rise, too
        dy = np.zeros((len(unit), shape[0], maps.shape[1]), dtype=maps.dtype)
        dy[cells] = counted / maps.shape[1]
        dx = seen.gradients({place: dy.reshape(-1, *shape)})[INPUT]
        return np.where(counted, maps, 0).mean(axis=1), dx / std

    start = np.clip(Stream(seed).normal(0.5, 0.1, (1, *spec.shape)), 0, 1)
    images = np.repeat(start, len(numbers), axis=0)
    before, _ = climb(images)
    for step in range(steps):
        moves = Stream(seed, step=step, layer=1).random(2)
        move = tuple(int(m) for m in np.floor(moves * (2 * reach + 1)) - reach)
        _, slope = climb(np.roll(images, move, axis=(2, 3)))
        slope = np.roll(slope, (-move[0], -move[1]), axis=(2, 3))
        size = np.sqrt(np.square(slope).mean(axis=(1, 2, 3), keepdims=True))
        images = images + np.divide(rate * slope, size, out=np.zeros_like(images), where=size > 0)
        images = np.clip(0.5 + (images - 0.5) * (1 - decay), 0, 1)
        if blur and step % 4 == 3 and step < 0.75 * steps:
            images = gaussian_filter(images, (0, 0, blur, blur), mode="nearest")
    after, _ = climb(images)
    low, high = spec.value_range
    return Maximized(low + images * (high - low), before, after)
