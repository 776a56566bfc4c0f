"""Networks side by side: the same data, the same parts, the same budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pellucid._types import Array
from pellucid.data.dataset import Dataset
from pellucid.errors import OptionError
from pellucid.nn import Network
from pellucid.summary import summarize
from pellucid.training.run import Run, default_part, fit, reconstruction_errors


@dataclass(frozen=True)
class Contender:
    """What became of one network.

    Attributes:
        name: As it was given.
        parameters: How many it has.
        multiply_adds: Multiplications with a weight for one image.
        seconds: That the training took.
        loss: On held-out images: mean cross-entropy, or mean squared error of an autoencoder.
        accuracy: Share of hits; None for an autoencoder.
        shifted: Accuracy on the same images moved by so many pixels, mean of left, right, up and down.
        bottleneck: Fewest numbers that an image becomes on its way through an autoencoder; None for a classifier.
        ratio: Numbers of an image for each of the bottleneck.
    """

    name: str
    parameters: int
    multiply_adds: int
    seconds: float
    loss: float
    accuracy: float | None = None
    shifted: dict[int, float] = field(default_factory=dict)
    bottleneck: int | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Networks side by side; str() of it is a table.

    Attributes:
        contenders: One for each network.
        warning: Why the comparison is not fair, or None.
        runs: The trained networks, by name.
    """

    contenders: tuple[Contender, ...]
    warning: str | None
    runs: dict[str, Run] = field(repr=False)

    def table(self) -> list[list[str]]:
        """Return the table as rows of texts, the titles first."""
        shifts = list(self.contenders[0].shifted)
        classifies = self.contenders[0].accuracy is not None
        titles = ["network", "parameters", "mult-adds", "seconds"]
        titles += ["loss", "accuracy"] if classifies else ["bottleneck", "ratio", "squared error"]
        rows = [[*titles, *(f"moved by {shift}" for shift in shifts)]]
        for c in self.contenders:
            row = [c.name, f"{c.parameters:,}", f"{c.multiply_adds:,}", f"{c.seconds:.1f}"]
            if c.accuracy is not None:
                row += [f"{c.loss:.4f}", f"{c.accuracy:.2%}", *(f"{c.shifted[shift]:.2%}" for shift in shifts)]
            else:
                row += [str(c.bottleneck), f"{c.ratio:.1f}", f"{c.loss:.5f}"]
            rows.append(row)
        return rows

    def __str__(self) -> str:
        rows = self.table()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        return "\n".join([*lines, *([f"warning: {self.warning}"] if self.warning else [])])


def compare(
    networks: Mapping[str, Network], ds: Dataset, shifts: tuple[int, ...] = (1, 2, 3), **options: Any
) -> Comparison:
    """Train networks on the same data in the same way, and return how well each does on what is held out.

    Args:
        networks: By name; trained in place, as fit does. All classifiers, or all autoencoders.
        ds: The data set; for autoencoders one that Dataset.reconstruction gave.
        shifts: By how many pixels classifiers' images are moved besides, each in four directions; what comes in repeats
            the border.
        **options: Of fit, for all of them.

    Raises:
        OptionError: Without networks.

    >>> import pellucid as pl
    >>> ds = pl.data.load("digits")
    >>> networks = {name: pl.models.create(name, ds.shape, 10) for name in ("mlp", "block_cnn")}
    >>> found = compare(networks, ds, shifts=(1,), epochs=1, progress=False)
    >>> [contender.parameters for contender in found.contenders]
    [18986, 35914]
    """
    if not networks:
        raise OptionError('networks must be a dict such as {"plain": models.mlp()}, got none')
    runs = {name: fit(network, ds, **options) for name, network in networks.items()}
    contenders = tuple(_judged(name, run, shifts) for name, run in runs.items())
    widths = sorted({c.bottleneck for c in contenders if c.bottleneck is not None})
    warning = None
    if len(widths) > 1:
        warning = (
            f"the bottlenecks differ, from {widths[0]} to {widths[-1]} numbers: a wider one is an easier task; "
            "compare networks with equal bottlenecks"
        )
    return Comparison(contenders, warning, runs)


def _judged(name: str, run: Run, shifts: tuple[int, ...]) -> Contender:
    network, ds = run.model.network, run.dataset
    summary = summarize(network)
    seconds = run.history.rows[-1].seconds if len(run.history) else 0.0
    facts = (name, summary.parameters, summary.multiply_adds, seconds)
    if not ds.is_reconstruction:
        found = run.evaluate()
        moved = {shift: _moved_accuracy(run, shift) for shift in shifts}
        return Contender(*facts, found.loss, found.accuracy, moved)
    bottleneck = min(math.prod(layer.output_shape) for layer in summary.layers)
    loss = float(reconstruction_errors(run.model, ds).mean())
    return Contender(*facts, loss, bottleneck=bottleneck, ratio=math.prod(ds.shape) / bottleneck)


def _moved_accuracy(run: Run, shift: int) -> float:
    """Return the accuracy on held-out images moved by some pixels, mean of four directions."""
    part = default_part(run.dataset)
    chosen = run.dataset.indices(part)
    ds, directions = run.dataset, ((0, shift), (0, -shift), (shift, 0), (-shift, 0))
    accuracies = []
    for down, right in directions:
        images = ds.images[chosen]
        moved = replace(ds, images=_moved(images, down, right), targets=ds.targets[chosen], ids=range(len(chosen)))
        accuracies.append(run.evaluate(moved, "all").accuracy)
    return float(np.mean(accuracies))


def _moved(images: Array, down: int, right: int) -> Array:
    """Return images (N, C, H, W) moved by whole pixels; what comes in repeats the border."""
    height, width = images.shape[2:]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return images[:, :, rows[:, None], columns]
