"""The pictures: narrow, to be read on a phone; gray words on no ground, for light and dark pages alike.

Grays, and color scales whose brightness rises all the way, so that nothing is lost without colors, printed or seen.
Of values with a sign 0 lies in the middle of a scale that reaches as far to both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid._types import Array
from pellucid.errors import OptionError, one_line
from pellucid.explain.maps import dead
from pellucid.explain.products import Pixel, shown
from pellucid.explain.walk import as_numbers
from pellucid.report.plots import BLUE, GREEN, ORANGE, RED, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pellucid.data.preparation import Prepared

WIDTH = 4.2
"""Of every figure, in inches."""
_WORDS = "#808080"
_SIZE = 9.5
_SMALL = 8.5
_SIGNED, _UNSIGNED = "cividis", "viridis"
_COLORS = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9", "#8C6D1F", "#808080")
_MARKERS = "osD^v<>pPX*h"


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.03)
    return Figure(figsize=(WIDTH, height), dpi=160, layout=layout, facecolor="none")


def _plain(ax: Axes, title: str = "") -> None:
    """Leave nothing but what is drawn, and a title."""
    ax.set(xticks=[], yticks=[], facecolor="none")
    for spine in ax.spines.values():
        spine.set_visible(False)
    if title:
        ax.set_title(title, fontsize=_SIZE, color=_WORDS, pad=3)


def _ruled(ax: Axes) -> None:
    """Give an axis with numbers the colors of the words."""
    ax.set_facecolor("none")
    ax.tick_params(colors=_WORDS, labelsize=_SIZE)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_WORDS)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set(color=_WORDS, fontsize=_SIZE)


def _limits(values: Array, signed: bool | None = None) -> tuple[float, float]:
    """Return the scale: around 0 for values with a sign, from 0 for others; of NaN and infinity nothing is said."""
    finite = values[np.isfinite(values)]
    most = float(np.abs(finite).max(initial=0.0)) or 1.0
    return (-most if (finite.min(initial=0.0) < 0 if signed is None else signed) else 0.0), most


def _bar(figure: Figure, drawn: Any, ax: Any, limits: tuple[float, float]) -> None:
    low, high = limits
    bar = figure.colorbar(drawn, ax=ax, orientation="horizontal", fraction=0.05, pad=0.02, aspect=40, shrink=0.7)
    bar.outline.set_visible(False)
    ticks = [low, 0.0, high] if low < 0 else [0.0, high]
    bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
    bar.ax.tick_params(colors=_WORDS, labelsize=_SMALL, length=2)


def _mosaic(tiles: Array, columns: int, gap: tuple[int, int] = (1, 1)) -> Array:
    """Return tiles (K, H, W) or (K, H, W, 3) side by side, with nothing between them and where the last row ends."""
    if tiles.ndim == 4:
        tiles = np.concatenate([tiles, np.ones((*tiles.shape[:3], 1))], axis=3)
    k, h, w = tiles.shape[:3]
    rows = -(-k // columns)
    high, wide = h + gap[0], w + gap[1]
    nothing = np.nan if tiles.ndim == 3 else 0.0
    whole = np.full((rows * high - gap[0], columns * wide - gap[1], *tiles.shape[3:]), nothing)
    for i, tile in enumerate(tiles):
        y, x = i // columns * high, i % columns * wide
        whole[y : y + h, x : x + w] = tile
    return whole


def _images(images: Array, value_range: tuple[float, float]) -> Array:
    return np.stack([show(image, value_range) for image in images])


def _columns(h: int, w: int) -> int:
    """Return how many tiles stand in a row."""
    return 8 if w <= 2 * h else 4


def feature_maps(maps: Array) -> Figure:
    """Return a figure of a layer's values, all on one scale; maps that say nothing are crossed out.

    Args:
        maps: (C, H, W), or (n,) of a dense layer.
    """
    maps = as_numbers(maps, "maps")
    if not maps.size:
        raise OptionError(f"maps must hold at least one number to be drawn, got {maps.shape}")
    vector = maps.ndim != 3
    if vector:
        flat = maps.ravel().astype(np.float64)
        wide = min(flat.size, 32 if flat.size <= 512 else 64)
        maps = np.pad(flat, (0, -flat.size % wide), constant_values=np.nan).reshape(1, -1, wide)
    columns = 1 if vector else _columns(*maps.shape[1:])
    whole = _mosaic(maps.astype(np.float64), columns)
    limits = _limits(maps)
    high = whole.shape[0] / whole.shape[1] * WIDTH * 0.9 + 0.55
    row = 0.2 if whole.shape[1] <= 32 else 0.1
    figure = _figure(min(row * whole.shape[0] + 0.15 if vector else high, 14.0))
    ax = figure.subplots()
    shape: Any = "auto" if vector else "equal"
    drawn = ax.imshow(whole, cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="nearest", aspect=shape)
    _plain(ax)
    h, w = maps.shape[1] + 1, maps.shape[2] + 1
    rows = np.arange(-(-len(maps) // columns))
    first = rows * (maps.shape[2] if vector else columns)
    if vector:
        marked = range(0, maps.shape[1], -(-maps.shape[1] // 10))
        ax.set_yticks(list(marked), [str(i * maps.shape[2]) for i in marked])
    else:
        ax.set_yticks(rows * h + (h - 2) / 2, [str(i) for i in first])
        for i in np.flatnonzero(dead(maps)):
            y, x = i // columns * h - 0.5, i % columns * w - 0.5
            for ys in ((y, y + h - 1), (y + h - 1, y)):
                ax.plot((x, x + w - 1), ys, color=ORANGE, lw=0.8)
        _bar(figure, drawn, ax, limits)
    ax.tick_params(colors=_WORDS, labelsize=_SMALL, length=0)
    return figure


def kernels(weight: Array, most: int = 16, groups: int = 1) -> Figure:
    """Return a figure of kernels; 0 is middle gray, white the largest and black the smallest number.

    Args:
        weight: (out, in, kh, kw). With one input channel all filters; with more, filters and input channels stand
            along the two axes, the more numerous ones side by side.
        most: How many filters and channels are shown at most, where there are several channels.
        groups: Of the layer; with more than one, an input channel is counted within its filter's group.
    """
    if weight.ndim != 4:
        raise OptionError(f"only kernels with two axes can be drawn, (out, in, kh, kw), got {weight.shape}")
    limits = _limits(weight, signed=True)
    several = weight.shape[1] > 1
    part = (weight[:most, :most] if several else weight).astype(np.float64)
    turned = several and part.shape[0] > part.shape[1]
    part = part.swapaxes(0, 1) if turned else part
    columns = part.shape[1] if several else _columns(*part.shape[2:])
    tiles = part.reshape(-1, *part.shape[2:])
    whole = _mosaic(tiles, columns)
    whole = np.pad(whole, ((0, 0), (0, max(0, 8 - columns) * (tiles.shape[2] + 1))), constant_values=np.nan)
    figure = _figure(min(whole.shape[0] / whole.shape[1] * WIDTH * 0.9, 10.0) + (0.85 if several else 0.6))
    ax = figure.subplots()
    drawn = ax.imshow(whole, cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    _plain(ax)
    channels = "input channel" if groups == 1 else "input channel of its group"
    h, w = tiles.shape[1] + 1, tiles.shape[2] + 1
    rows = range(-(-len(tiles) // columns))
    ax.set_yticks([row * h + (h - 2) / 2 for row in rows], [str(row * (1 if several else columns)) for row in rows])
    ax.set_ylabel(channels if turned else "filter", fontsize=_SMALL, color=_WORDS)
    if several:
        ax.set_xticks([c * w + (w - 2) / 2 for c in range(columns)], [str(c) for c in range(columns)])
        ax.set_xlabel("filter" if turned else channels, fontsize=_SMALL, color=_WORDS)
        ax.xaxis.set_label_position("top")
    ax.tick_params(colors=_WORDS, labelsize=_SMALL, length=0, labeltop=several, labelbottom=False)
    _bar(figure, drawn, ax, limits)
    return figure


def _outline(ax: Axes, box: tuple[slice, ...]) -> None:
    from matplotlib.patches import Rectangle

    rows, columns = box
    corner = (columns.start - 0.5, rows.start - 0.5)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    ax.add_patch(Rectangle(corner, *size, fill=False, ec="black", lw=3.2))
    ax.add_patch(Rectangle(corner, *size, fill=False, ec=ORANGE, lw=1.6))


def _picture(ax: Axes, image: Array, value_range: tuple[float, float]) -> None:
    ax.imshow(show(image, value_range), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _pair(image: Array) -> tuple[Figure, Any]:
    """Return a figure with two places for something of the image's shape."""
    figure = _figure(image.shape[1] / image.shape[2] * WIDTH / 2 + 0.45)
    return figure, figure.subplots(1, 2)


def receptive_field(
    image: Array, value_range: tuple[float, float], box: tuple[slice, ...], effective: Array | None = None
) -> Figure:
    """Return a figure of an image with a cell's receptive field, and beside it how strongly each pixel counts.

    Args:
        image: Raw, (C, H, W).
        value_range: Lowest and highest raw value.
        box: As receptive_field gives it.
        effective: As effective_field gives it, (H, W); left out if None.
    """
    if effective is None:
        figure = _figure(image.shape[1] / image.shape[2] * WIDTH / 2 + 0.45)
        axes = [figure.subplots()]
    else:
        figure, axes = _pair(image)
        axes[1].imshow(effective, cmap=_UNSIGNED, vmin=0, vmax=_limits(effective)[1], interpolation="nearest")
        _plain(axes[1], "how strongly each pixel counts")
    _picture(axes[0], image, value_range)
    _plain(axes[0], "what the cell can see")
    for ax in axes:
        _outline(ax, box)
    return figure


def cells_that_see(image: Array, value_range: tuple[float, float], pixel: tuple[int, int], cells: Array) -> Figure:
    """Return a figure of a pixel on the image, and beside it the cells of a layer that see it.

    Args:
        image: Raw, (C, H, W).
        value_range: Lowest and highest raw value.
        pixel: (row, column).
        cells: As cells_that_see gives them: bool, (h, w).
    """
    figure, (left, right) = _pair(image)
    _picture(left, image, value_range)
    _outline(left, tuple(slice(i, i + 1) for i in pixel))
    _plain(left, f"pixel {pixel[0]}, {pixel[1]}")
    right.imshow(np.atleast_2d(cells), cmap="gray", vmin=-0.5, vmax=1, interpolation="nearest")
    _plain(right, "cells that see it (white)")
    return figure


def attribution(image: Array, value_range: tuple[float, float], values: Array, signed: bool = False) -> Figure:
    """Return a figure of an image and, beside it, what each pixel counts for.

    Args:
        image: Raw, (C, H, W).
        value_range: Lowest and highest raw value.
        values: (H, W) or (C, H, W), whose channels are added; or smaller maps, as of Grad-CAM, which are laid over it.
        signed: Whether 0 lies in the middle of the scale: bright speaks for the class, dark against it.
    """
    values = values.sum(axis=0) if values.ndim == 3 else values
    limits = _limits(values, signed)
    figure, (left, right) = _pair(image)
    _picture(left, image, value_range)
    _plain(left, "the image")
    whole = values.shape == image.shape[1:]
    edges = (-0.5, image.shape[2] - 0.5, image.shape[1] - 0.5, -0.5)
    smooth = "nearest" if whole else "bilinear"
    drawn = right.imshow(
        values,
        cmap=_SIGNED if signed else _UNSIGNED,
        vmin=limits[0],
        vmax=limits[1],
        extent=edges,
        interpolation=smooth,
    )
    if not whole:
        right.contour(
            show(image, value_range).reshape(*image.shape[1:], -1).mean(axis=2), [0.5], colors="white", linewidths=0.7
        )
    _plain(right, "what counts")
    _bar(figure, drawn, [left, right], limits)
    return figure


def gallery(
    images: Array, value_range: tuple[float, float], labels: Sequence[str] | None = None, columns: int = 4
) -> Figure:
    """Return a figure of images, with words above each.

    Args:
        images: (K, C, H, W).
        value_range: Of their values.
        labels: A short text for each, broken into lines where it is wider than its image; none if None.
        columns: How many stand in a row.
    """
    columns = min(columns, max(len(images), 1))
    tiles = _images(images, value_range)
    h, w = tiles.shape[1:3]
    labels = [fill(label, 64 // columns) for label in labels or ()]
    lines = 1 + max((label.count("\n") for label in labels), default=0)
    gap = max(1, round(h * 0.075 * columns * lines)) if labels else max(1, h // 14)
    whole = _mosaic(tiles, columns, (gap, max(1, w // 14)))
    figure = _figure(min((whole.shape[0] + gap) / whole.shape[1] * WIDTH, 14.0))
    ax = figure.subplots()
    ax.imshow(whole, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    _plain(ax)
    for i, label in enumerate(labels):
        x = i % columns * (w + max(1, w // 14)) + (w - 1) / 2
        ax.text(
            x,
            i // columns * (h + gap) - 1,
            label,
            ha="center",
            va="bottom",
            fontsize=_SMALL,
            color=_WORDS,
            parse_math=False,
        )
    if labels:
        ax.set_ylim(whole.shape[0] - 0.5, -gap)
    return figure


def preparation(prepared: Prepared) -> Figure:
    """Return a figure of each step from a picture to what the network sees.

    Args:
        prepared: What data.DigitPreparation or InputSpec.prepare returned.
    """
    steps = prepared.steps or {"seen": prepared.image.reshape(-1, *prepared.image.shape[-2:])[0] / 255}
    columns = min(3, len(steps))
    rows = -(-len(steps) // columns)
    h, w = next(iter(steps.values())).shape
    figure = _figure(min(rows * WIDTH / columns * (h / w + 0.25), 14.0))
    axes = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for ax in axes[len(steps) :]:
        ax.axis("off")
    for ax, (name, step) in zip(axes, steps.items(), strict=False):
        ax.imshow(step, cmap="gray", vmin=0, vmax=1)
        _plain(ax)
        ax.set_title(fill(name, 17), fontsize=_SMALL, color=_WORDS, pad=3)
    return figure


def pixel(made: Pixel, channels: int = 3) -> Figure:
    """Return a figure of one output number by number: patch, kernel and products of the channels that count most.

    Args:
        made: Of a convolution, with kernels of at most 7 x 7.
        channels: How many at most.
    """
    if made.patch.ndim != 3 or max(made.patch.shape[1:]) > 7:
        raise OptionError(f"only patches of at most 7x7 numbers can be drawn, got {made.patch.shape}")
    order = np.sort(np.argsort(-np.abs(made.channel_sums), kind="stable")[:channels])
    figure = _figure(1.5 * len(order) * made.patch.shape[1] / made.patch.shape[2] + 0.45)
    axes = figure.subplots(len(order), 3, squeeze=False)
    for row, c in zip(axes, order, strict=True):
        names = ("patch", "kernel", "products")
        for ax, name, numbers in zip(row, names, (made.patch[c], made.kernel[c], made.products[c]), strict=True):
            low, high = _limits(numbers, signed=True)
            ax.imshow(numbers, cmap="gray", vmin=1.6 * low, vmax=1.6 * high)
            for (i, j), number in np.ndenumerate(numbers):
                light = number < 0.3 * high
                ax.text(
                    j, i, shown(number, 2), ha="center", va="center", fontsize=8, color="white" if light else "black"
                )
            of = f", channel {made.first_channel + c}" if len(made.patch) > 1 else ""
            _plain(ax, name + of)
    d = made.decimals
    words = f"sum {shown(made.total - made.bias, d + 2)} + bias {shown(made.bias, d + 2)} = {shown(made.total, d)}"
    figure.supxlabel(words, fontsize=_SIZE, color=_WORDS)
    return figure


def sliding_window(windows: Sequence[Pixel]) -> Figure:
    """Return a figure that shows, step by step, where the window stands on the padded input and what comes out.

    Args:
        windows: Steps of one convolution of one channel, as window() gives them; at most 12 are drawn.
    """
    steps = list(windows)[:12]
    if not steps or len({made.padded.shape for made in steps}) > 1 or len(steps[0].padded) > 1:
        raise OptionError("windows must be steps of one convolution of one channel, as explain.window gives them")
    padded = steps[0].padded[0]
    columns = min(3, len(steps))
    rows = -(-len(steps) // columns)
    figure = _figure(rows * (padded.shape[0] / padded.shape[1] * WIDTH / columns + 0.35))
    low, high = _limits(padded)
    axes = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for ax in axes[len(steps) :]:
        ax.axis("off")
    for ax, made in zip(axes, steps, strict=False):
        ax.imshow(padded, cmap="gray", vmin=1.6 * low - 0.4 * high, vmax=1.6 * high)
        for (i, j), number in np.ndenumerate(padded):
            ax.text(
                j,
                i,
                f"{number:g}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if number < 0.4 * high else "black",
            )
        _outline(ax, made.window)
        _plain(ax, f"{made.cell}: {made.total:g}")
    return figure


def contributions(counts: Array) -> Figure:
    """Return a figure of how many outputs each input cell feeds, as arithmetic.contributions counts them.

    Args:
        counts: (n,) or (H, W).
    """
    grid = np.atleast_2d(counts)
    if grid.ndim != 2:
        raise OptionError(f"counts must have one or two axes to be drawn, got {counts.shape}")
    figure = _figure(max(0.6, grid.shape[0] / grid.shape[1] * WIDTH))
    ax = figure.subplots()
    ax.imshow(grid, cmap="gray", vmin=-0.35 * grid.max(), vmax=grid.max())
    if grid.size <= 400:
        for (i, j), count in np.ndenumerate(grid):
            ax.text(
                j,
                i,
                str(count),
                ha="center",
                va="center",
                fontsize=_SIZE,
                color="white" if count < 0.4 * grid.max() else "black",
            )
    _plain(ax)
    return figure


def probabilities(values: Array, classes: Sequence[str], ordered: bool = False, most: int = 10) -> Figure:
    """Return a figure of class probabilities as bars with names and numbers.

    Args:
        values: (K,), which sum to 1.
        classes: Names of the K classes.
        ordered: Whether the likeliest stands first; else in the order of the classes.
        most: How many bars; the likeliest are kept.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (len(classes),):
        raise OptionError(f"values must be one probability for each of {len(classes)} classes, got {values.shape}")
    best = np.argsort(-values, kind="stable")[:most]
    chosen = best if ordered else np.sort(best)
    figure = _figure(0.24 * len(chosen) + 0.3)
    ax = figure.subplots()
    places = np.arange(len(chosen))
    ax.barh(places, values[chosen], color=[BLUE if i == best[0] else _WORDS for i in chosen])
    ax.set_yticks(places, [one_line(classes[i], 15) for i in chosen], parse_math=False)
    ax.set_xlim(0, 1.18)
    ax.invert_yaxis()
    for place, p in enumerate(values[chosen].tolist()):
        ax.text(p + 0.01, place, f"{p:.1%}", va="center", fontsize=_SIZE, color=_WORDS)
    _ruled(ax)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    return figure


def plane(points: Array, labels: Array, classes: Sequence[str], own: Array | None = None) -> Figure:
    """Return a figure of points in two dimensions; each class has its sign as well as its color.

    Args:
        points: (N, 2).
        labels: Number of each point's class, (N,).
        classes: Names.
        own: A point to point out, (2,).
    """
    names = [one_line(name, 10) for name in classes]
    columns = min(6, int(WIDTH / (0.3 + 0.12 * max(map(len, names), default=0))))  # a W and a sign, in inches
    figure = _figure(WIDTH * 0.8 + 0.18 * (1 + len(names) // columns))
    ax = figure.subplots()
    for k, name in enumerate(names):
        here = points[labels == k]
        marker = f"${name}$" if len(name) == 1 and name.isalnum() else _MARKERS[k % len(_MARKERS)]
        color = _COLORS[k % len(_COLORS)]
        ax.scatter(
            here[:, 0],
            here[:, 1],
            s=22 if marker[0] == "$" else 10,
            marker=marker,
            color=color,
            lw=0.3,
            alpha=0.75,
            label=name,
        )
    if own is not None:
        ax.scatter(own[0], own[1], s=160, marker="*", color="white", ec="black", lw=1.2, zorder=3, label="this image")
    _ruled(ax)
    ax.set_aspect("equal", "datalim")
    legend = ax.legend(
        fontsize=_SMALL,
        labelcolor=_WORDS,
        frameon=False,
        ncols=columns,
        handlelength=1,
        handletextpad=0.4,
        columnspacing=1,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.08),
    )
    for words in legend.get_texts():
        words.set_parse_math(False)
    return figure
