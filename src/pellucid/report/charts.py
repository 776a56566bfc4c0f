"""Where lines, marks and numbers of a chart or a large matrix stand; the template draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pellucid._types import Array

WIDTH, HEIGHT = 400, 270
LEFT, RIGHT, TOP, BOTTOM = 62, 20, 30, 44
_MOST_MARKERS = 40
MATRIX_START, MATRIX_SIDE = 44, 346  # of a picture 400 pixels wide and high
_SHADES = 4

Pair: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Args:
        name: What the legend says.
        style: "a" is solid with circles, "b" dashed with squares.
        points: (x, y); NaN is left out.
        weights: How much stands behind each point, which the size of its marker shows; all the same if left out.
    """

    name: str
    style: str
    points: Sequence[Pair]
    weights: Sequence[float] = ()


@dataclass(frozen=True)
class Chart:
    """A chart in the pixels of its SVG.

    Attributes:
        says: What a reader who does not see it should know.
        labels: Of the two axes.
        ticks: For each axis (place, what stands there).
        lines: (name, style, points, (x, y, radius) of the markers) of each series.
        best: (place, height, what stands there) of the star, or None.
        even: Both ends of a line on which both axes are equal, or None.
    """

    says: str
    labels: tuple[str, str]
    ticks: tuple[list[tuple[float, str]], list[tuple[float, str]]]
    lines: list[tuple[str, str, list[Pair], list[tuple[float, float, float]]]]
    best: tuple[float, float, str] | None
    even: tuple[Pair, Pair] | None


def chart(
    says: str,
    labels: tuple[str, str],
    ranges: tuple[Pair, Pair],
    series: Sequence[Series],
    *,
    formats: tuple[str, str] = ("g", "g"),
    best: tuple[float, float, str] | None = None,
    even: bool = False,
) -> Chart:
    """Return a chart.

    Args:
        says: What a reader who does not see it should know.
        labels: Of the x axis and the y axis.
        ranges: Lowest and highest value of each axis; equal ones are moved apart. An axis of whole numbers has whole
            ticks.
        series: The lines.
        formats: How each axis writes numbers, as "g" or ".0%".
        best: x, y and words of a star, or None.
        even: Whether to draw the line on which both axes are equal.
    """
    (left, right), (low, high) = (_apart(*r) for r in ranges)

    def at(x: float, y: float) -> Pair:
        return (
            round(LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1),
        )

    lines = []
    for line in series:
        weights = line.weights or [1.0] * len(line.points)
        known = [(*at(x, y), w) for (x, y), w in zip(line.points, weights, strict=True) if math.isfinite(y)]
        most = max((w for *_, w in known), default=1.0)
        markers = [(x, y, round(4.5 * max(w / most, 0.1) ** 0.5, 1)) for x, y, w in known]
        lines.append(
            (line.name, line.style, [(x, y) for x, y, _ in known], markers if len(known) <= _MOST_MARKERS else [])
        )
    return Chart(
        says,
        labels,
        (
            [(at(t, low)[0], format(t, formats[0])) for t in ticks(left, right, whole=isinstance(ranges[0][1], int))],
            [(at(left, t)[1], format(t, formats[1])) for t in ticks(low, high)],
        ),
        lines,
        best and (*at(best[0], best[1]), best[2]),
        (at(max(left, low), max(left, low)), at(min(right, high), min(right, high))) if even else None,
    )


@dataclass(frozen=True)
class Matrix:
    """A square matrix as a picture.

    Attributes:
        says: What a reader who does not see it should know.
        cell: How many pixels of the SVG a cell has.
        ticks: (place of a cell's middle, its number).
        marks: (style, opacity, path in cells) of all cells that look the same: "square" on the diagonal, "diamond"
            beside it.
    """

    says: str
    cell: float
    ticks: list[tuple[float, str]]
    marks: list[tuple[str, float, str]]


def matrix(says: str, tints: Array) -> Matrix:
    """Return a matrix, of which cells without tint are left out.

    Args:
        says: What a reader who does not see it should know.
        tints: (K, K), from 0 to 1.
    """
    k = len(tints)
    cell = MATRIX_SIDE / k
    shades = np.ceil(tints * _SHADES).astype(int)
    marks = []
    for style, shape, there in (
        ("square", "M{1} {0}h1v1h-1z", np.eye(k, dtype=bool)),
        ("diamond", "M{1}.5 {0}l.5.5-.5.5-.5-.5z", ~np.eye(k, dtype=bool)),
    ):
        for shade in range(1, _SHADES + 1):
            path = "".join(shape.format(*at) for at in np.argwhere((shades == shade) & there).tolist())
            if path:
                marks.append((style, 0.2 + 0.8 * shade / _SHADES, path))
    numbers = ticks(0, k - 1, most=10, whole=True)
    return Matrix(says, cell, [(round(MATRIX_START + (t + 0.5) * cell, 1), f"{t:g}") for t in numbers], marks)


def _apart(low: float, high: float) -> Pair:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def ticks(low: float, high: float, most: int = 6, whole: bool = False) -> list[float]:
    """Return round numbers between two others.

    Args:
        low: The lower one.
        high: The higher one.
        most: How many at most.
        whole: Whether they must be whole numbers.

    >>> ticks(0, 2.3), ticks(1, 10)
    ([0.0, 0.5, 1.0, 1.5, 2.0], [2.0, 4.0, 6.0, 8.0, 10.0])
    """
    least = max((high - low) / most, 1.0 if whole else 0.0)
    unit = 10.0 ** math.floor(math.log10(least))
    step = next(unit * k for k in (1, 2, 5, 10, 20) if unit * k >= least)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]
