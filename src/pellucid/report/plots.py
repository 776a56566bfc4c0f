"""The pictures of a run directory: learning curves, confusion matrix, sample images."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid import filters
from pellucid._types import Array
from pellucid.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pellucid.data.dataset import Dataset
    from pellucid.metrics import Evaluation
    from pellucid.training import History

# Okabe and Ito's palette, which people without full color vision can tell apart.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def curves(history: History) -> Figure:
    """Return a figure of loss and accuracy by epoch, training and validation, the best epoch marked.

    Args:
        history: At least one epoch.
    """
    columns = [("loss", "loss")]
    if history["train_accuracy"][0] is not None:
        columns.append(("accuracy", "accuracy"))
    figure = _figure(5 * len(columns), 3.6)
    best = history.best
    for ax, (name, label) in zip(np.ravel(figure.subplots(1, len(columns))), columns, strict=True):
        epochs = history["epoch"]
        ax.plot(epochs, history[f"train_{name}"], color=BLUE, marker="o", ms=3.5, label="training")
        values = history[f"val_{name}"]
        if values and values[0] is not None:
            ax.plot(epochs, values, color=ORANGE, marker="s", ms=3.5, label="validation")
            if best is not None:
                at = (best.epoch, getattr(best, f"val_{name}"))
                ax.axvline(best.epoch, color=GREEN, lw=1, ls="--", zorder=0)
                ax.plot(*at, marker="*", ms=13, color=GREEN, ls="", label=f"kept: epoch {best.epoch}, {at[1]:.4g}")
        ax.set(xlabel="epoch", ylabel=label)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.grid(alpha=0.25)
        ax.legend(frameon=False)
    return figure


def confusion(evaluation: Evaluation) -> Figure:
    """Return a figure of the confusion matrix with counts: rows true, columns predicted, colored by share of the row.

    Args:
        evaluation: Of a classifier.
    """
    counts, names = evaluation.confusion, [_short(name) for name in evaluation.labels]
    k = len(names)
    longest = max(map(len, names))
    side = min(max(4.5, 0.5 * k + 2) + 0.05 * longest, 14)
    figure = _figure(side + 0.6, side)
    ax = figure.subplots()
    rows = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(rows, 1)
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ticks = np.arange(k)
    long = longest > 3
    ax.set_xticks(ticks, names, rotation=45 if long else 0, ha="right" if long else "center", parse_math=False)
    ax.set_yticks(ticks, names, parse_math=False)
    ax.set(xlabel="predicted", ylabel="true")
    figure.suptitle(f"accuracy {evaluation.accuracy:.2%} of {evaluation.n} images")
    if k <= 25:
        for i, j in np.argwhere(counts > 0):
            dark = share[i, j] > 0.5
            ax.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=8, color="white" if dark else "black")
    figure.colorbar(image, ax=ax, label="share of the true class", shrink=0.8)
    return figure


def show(image: Array, value_range: tuple[float, float]) -> Array:
    """Return an image (C, H, W) as matplotlib shows it: (H, W) or (H, W, 3), from 0 to 1.

    Args:
        image: Raw.
        value_range: Lowest and highest raw value.
    """
    low, high = value_range
    unit = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)
    return np.moveaxis(unit, 0, -1) if len(unit) == 3 else unit[0]


def samples(ds: Dataset, indices: Array, predicted: tuple[str, ...] | None = None, columns: int = 8) -> Figure:
    """Return a figure of images with their labels; wrong predictions stand below in another color.

    Args:
        ds: The data set.
        indices: Which images, at most 24 are shown.
        predicted: Predicted class names of these images.
        columns: How many images stand in a row.

    >>> import pellucid as pl
    >>> len(samples(pl.data.load("digits"), np.array([23, 24, 1, 2, 3, 4]), columns=3).axes)
    6
    """
    chosen, captions, wrong = np.asarray(indices)[:24], [], []
    for position, i in enumerate(chosen):
        label = ds.classes[int(ds.targets[i])] if ds.is_classification else str(ds.ids[i])
        read_as = None if predicted is None or predicted[position] == label else predicted[position]
        captions.append(f"{_short(label)}\n{'' if read_as is None else _short(f'read as {read_as}')}")
        wrong.append(read_as is not None)
    return _grid(ds, chosen, captions, wrong, columns)


def mistakes(ds: Dataset, part: str, evaluation: Evaluation, chosen: Array | None = None) -> Figure:
    """Return a figure of samples with what they are, what they were read as, how surely, and their ids.

    Args:
        ds: The data set.
        part: The part that was evaluated.
        evaluation: Of that part.
        chosen: Which of its samples, at most 24 are shown, as evaluation.suspects() finds them; the worst mistakes if
            None.

    >>> import pellucid as pl
    >>> ds = pl.data.load("digits")
    >>> run = pl.fit(pl.models.create("mlp", ds.shape, 10), ds, epochs=1, progress=False)
    >>> len(mistakes(ds, "test", run.evaluate()).axes)
    24
    """
    chosen = (evaluation.top_losses() if chosen is None else np.asarray(chosen))[:24]
    captions = []
    for i in chosen.tolist():
        label, read_as = (evaluation.labels[labels[i]] for labels in (evaluation.true, evaluation.predicted))
        sure = evaluation.probabilities[i].max()
        captions.append(
            f"{_short(label)}\n{_short(f'read as {read_as}')} {sure:.0%}\n{_short(f'id {evaluation.ids[i]}')}"
        )
    wrong = (evaluation.true != evaluation.predicted)[chosen].tolist()
    return _grid(ds, ds.indices(part)[chosen], captions, wrong, columns=6)


def _grid(ds: Dataset, indices: Array, captions: list[str], wrong: list[bool], columns: int) -> Figure:
    columns = min(columns, max(len(indices), 1))
    lines = -(-max(len(indices), 1) // columns)
    rows = max((caption.count("\n") for caption in captions), default=0)
    figure = _figure((1.05 + 0.2 * rows) * columns, (1.4 + 0.2 * rows) * lines)
    axes = np.ravel(figure.subplots(lines, columns, squeeze=False))
    for ax in axes:
        ax.axis("off")
    for ax, i, caption, is_wrong in zip(axes, indices, captions, wrong, strict=False):
        ax.imshow(show(ds.images[i], ds.value_range), cmap="gray", vmin=0, vmax=1)
        ax.set_title(caption, fontsize=8, color=RED if is_wrong else "black", pad=2, parse_math=False)
    return figure


def kernel_sheet(gray: Array, equalized: bool = False) -> Figure:
    """Return a figure of a picture before and after each kernel of the gallery, with the kernels' numbers.

    Args:
        gray: (H, W), 0 to 1.
        equalized: Whether the contrast is made even afterwards.
    """
    columns = 6
    lines = -(-len(filters.KERNELS) // columns)
    figure = _figure(2.2 * columns, 2.9 * lines)
    axes = np.ravel(figure.subplots(lines, columns, squeeze=False))
    for ax in axes:
        ax.axis("off")
    for ax, (name, kernel) in zip(axes, filters.KERNELS.items(), strict=False):
        after = filters.to_unit(filters.apply(gray, kernel), kernel)
        ax.imshow(filters.equalize(after) if equalized else after, cmap="gray", vmin=0, vmax=1)
        scale = 1.0 if np.array_equal(kernel, np.round(kernel)) else 1 / np.abs(kernel[kernel != 0]).min()
        rows = "\n".join(" ".join(f"{round(number * scale):d}" for number in row) for row in kernel)
        ax.set_title(f"{name}{'' if scale == 1 else f' / {scale:.0f}'}\n{rows}", fontsize=7, pad=2)
    return figure


def _short(name: str, longest: int = 18) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def telling(evaluation: Evaluation, wrong: int = 8, count: int = 24) -> Array:
    """Return which samples to show: the mistakes that the model was surest of, then right ones from all classes.

    Args:
        evaluation: Of a classifier.
        wrong: How many mistakes at most, where there are enough right ones.
        count: How many in all at most.
    """
    right = evaluation.true == evaluation.predicted
    sureness = evaluation.probabilities.max(axis=1, initial=0.0)
    mistakes = np.flatnonzero(~right)
    mistakes = mistakes[np.argsort(-sureness[mistakes], kind="stable")][: max(wrong, count - int(right.sum()))][:count]
    by_class = np.flatnonzero(right)
    by_class = by_class[np.argsort(evaluation.true[by_class], kind="stable")]
    spread = np.linspace(0, len(by_class), min(count - len(mistakes), len(by_class)), endpoint=False).astype(int)
    return np.concatenate([mistakes, by_class[spread]])


def to_png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file.

    Args:
        figure: Any.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks becomes boxes; the picture is still worth having.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def write_all(folder: Path, history: History, ds: Dataset, part: str, evaluation: Evaluation | None) -> None:
    """Write curves.png, and for classifiers confusion.png and samples.png, into a run directory.

    Args:
        folder: Where to.
        history: Of the training.
        ds: The data.
        part: The part that was evaluated.
        evaluation: Of that part; None where there are no classes.
    """
    figures: dict[str, Any] = {}
    if len(history):
        figures["curves.png"] = curves(history)
    if evaluation is not None:
        figures["confusion.png"] = confusion(evaluation)
        picked = telling(evaluation)
        names = tuple(evaluation.labels[k] for k in evaluation.predicted[picked])
        figures["samples.png"] = samples(ds, ds.indices(part)[picked], names)
    for name, figure in figures.items():
        write_atomic(folder / name, to_png(figure))
