"""report.html: one page that shows a run, in a file that needs no other and no network."""

from __future__ import annotations

import base64
import io
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid import host
from pellucid._types import Array
from pellucid.errors import one_line
from pellucid.files import write_atomic
from pellucid.metrics import Evaluation
from pellucid.nn import Conv2d, Network
from pellucid.report.charts import Chart, Series, chart, matrix
from pellucid.report.plots import show
from pellucid.shapes import text
from pellucid.summary import size, summarize

if TYPE_CHECKING:
    import jinja2

    from pellucid.data.dataset import Dataset
    from pellucid.model import Model
    from pellucid.training import History, Run

NAME = "report.html"
PARTS = {"train": "training", "val": "validation", "test": "test"}
_LARGEST = 96  # pixels of a picture's longer side; larger ones are made smaller
_MANY = 25  # classes from which on the confusion matrix is a picture without numbers
_SHOWN = 24  # pictures of a kind
_COMMONEST = 6  # mistakes that are named


@dataclass(frozen=True)
class Picture:
    """An image of the page.

    Attributes:
        src: The PNG file as a data address.
        alt: What a reader who does not see it should know.
        lines: Words below it.
        wrong: Whether the model was wrong.
        beside: The same, of a second image beside it.
    """

    src: str
    alt: str
    lines: tuple[str, ...] = ()
    wrong: bool = False
    beside: Picture | None = None


def write(path: Path, run: Run, found: Mapping[str, Evaluation], errors: Mapping[str, Array], config: str) -> None:
    """Write the page that render returns.

    Args:
        path: Where to.
        run: What was trained.
        found: Of a classifier, its evaluation of each part that was evaluated.
        errors: Of an autoencoder, the error of each image of those parts.
        config: The content of config.toml.

    Raises:
        FileError: Where it cannot be written.
    """
    write_atomic(path, render(run, found, errors, config).encode("utf-8", "replace"))


def render(run: Run, found: Mapping[str, Evaluation], errors: Mapping[str, Array], config: str) -> str:
    """Return the page.

    Args:
        run: What was trained.
        found: Of a classifier, its evaluation of each part that was evaluated.
        errors: Of an autoencoder, the error of each image of those parts.
        config: The content of config.toml.
    """
    from pellucid import __version__

    ds, model = run.dataset, run.model
    settings = tomllib.loads(config)
    part = next((p for p in ("test", "val") if p in found or p in errors), "train")
    judged = found.get(part)
    summary = summarize(model.network)
    return _template().render(
        run=run,
        ds=ds,
        model=model,
        kind=Path(str(settings.get("model") or "a network")).stem,
        parts=PARTS,
        part=part,
        judged=judged,
        found=found,
        classes=_class_rows(ds),
        charts=_curves(run.history),
        overfit=_overfit(run.history),
        confusion=_confusion(judged) if judged else None,
        calibration=_calibration(judged, model.metrics.get("temperature")) if judged else None,
        mistakes=_mistakes(ds, part, judged) if judged else [],
        suspects=_suspects(ds, found),
        samples=_samples(ds, part, judged) if judged else [],
        reconstructions=_reconstructions(model, ds, part, errors[part]) if part in errors else None,
        errors={p: (float(e.mean()), len(e)) for p, e in errors.items()},
        inside=_inside(model, ds, part, judged),
        summary=summary,
        size=size,
        text=text,
        settings=_settings(settings),
        machine={**host.machine(), "pellucid": __version__, "engine": model.engine},
    )


@cache
def _template() -> jinja2.Template:
    import jinja2
    from markupsafe import Markup

    def shown(value: object) -> object:
        """Names are whatever the data's owner liked: the template escapes them, here go control characters."""
        return value if isinstance(value, (Markup, jinja2.Undefined)) else one_line(value)

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )
    environment.filters["number"] = _number
    environment.filters["short"] = _short
    return environment.get_template("page.html.j2")


def _number(value: float | None, form: str) -> str:
    """Return a number in words, a dash where there is none."""
    return format(value, form) if value is not None and math.isfinite(value) else "–"


def _short(name: str, longest: int = 32) -> str:
    """Return a name without its middle where it is long: names of a family differ at the start or at the end."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[: half - 1].rstrip()}…{name[-half:].lstrip()}"


# Pictures


def _png(pixels: Array, largest: int = _LARGEST) -> str:
    """Return pixels from 0 to 1, (H, W) or (H, W, 3), as the data address of a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.fromarray((np.nan_to_num(pixels) * 255).round().astype(np.uint8))
    image.thumbnail((largest, largest))
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _picture(ds: Dataset, index: int, alt: str, lines: Iterable[str] = (), wrong: bool = False) -> Picture:
    return Picture(_png(show(ds.images[index], ds.value_range)), alt, tuple(lines), wrong)


def _predictions(ds: Dataset, part: str, found: Evaluation, chosen: Iterable[int], likeliest: int = 1) -> list[Picture]:
    """Return images with what they are, what they were read as, how surely, and their ids."""
    pictures, where = [], ds.indices(part)
    for i in map(int, chosen):
        p = found.probabilities[i]
        best = np.argsort(-p, kind="stable")[:likeliest]
        label, wrong = found.labels[found.true[i]], found.true[i] != found.predicted[i]
        guesses = [f"{found.labels[k]}: {p[k]:.1%}" for k in best if p[k] >= 0.0005]
        guesses[:1] = [("✗ read as " if wrong else "✓ ") + guess for guess in guesses[:1]]
        if wrong and likeliest == 1:
            guesses.append(f"{label}: {p[found.true[i]]:.1%}")
        lines = (label, *guesses, _id(found.ids[i]))
        alt = f"{PARTS[part]} image {found.ids[i]}, labeled {label}, read as {found.labels[found.predicted[i]]}"
        pictures.append(_picture(ds, int(where[i]), alt, lines, bool(wrong)))
    return pictures


def _id(sample: int | str) -> str:
    return sample if isinstance(sample, str) else f"id {sample}"


def _mistakes(ds: Dataset, part: str, found: Evaluation) -> list[Picture]:
    return _predictions(ds, part, found, found.top_losses(_SHOWN))


def _suspects(ds: Dataset, found: Mapping[str, Evaluation]) -> tuple[int, list[Picture]]:
    """Return how many held-out labels are doubtful, and the most doubtful ones of each part."""
    lists = {part: found[part].suspects() for part in ("test", "val") if part in found}
    room = _SHOWN // max(1, sum(len(chosen) > 0 for chosen in lists.values()))
    pictures = [p for part, chosen in lists.items() for p in _predictions(ds, part, found[part], chosen[:room])]
    return sum(map(len, lists.values())), pictures


def _samples(ds: Dataset, part: str, found: Evaluation) -> list[Picture]:
    """Return images of all classes, spread evenly, right or wrong as it comes, with three guesses each."""
    by_class = np.argsort(found.true, kind="stable")
    spread = np.linspace(0, found.n, min(_SHOWN, found.n), endpoint=False).astype(int)
    return _predictions(ds, part, found, by_class[spread], likeliest=3)


def _reconstructions(model: Model, ds: Dataset, part: str, errors: Array) -> dict[str, list[Picture]]:
    """Return inputs beside outputs: as they come, and the worst."""
    where = ds.indices(part)
    spread = np.linspace(0, len(errors), min(_SHOWN // 2, len(errors)), endpoint=False).astype(int)
    worst = np.argsort(-errors, kind="stable")[: _SHOWN // 2]

    def pairs(chosen: Array) -> list[Picture]:
        outputs = model.outputs(ds.images[where[chosen]])
        return [
            Picture(
                _png(show(ds.images[where[i]], ds.value_range)),
                f"image {ds.ids[where[i]]}",
                (f"error {errors[i]:.4f}", _id(ds.ids[where[i]])),
                beside=Picture(_png(show(output, (0.0, 1.0))), "its reconstruction"),
            )
            for i, output in zip(chosen.tolist(), outputs, strict=True)
        ]

    return {"as they come": pairs(spread), "the largest errors": pairs(worst)}


def _inside(model: Model, ds: Dataset, part: str, found: Evaluation | None) -> dict[str, Any] | None:
    """Return the first convolution's kernels and what they make of an example."""
    where = ds.indices(part)
    if not len(where):
        return None
    right = np.flatnonzero(found.true == found.predicted) if found is not None else np.zeros(1, dtype=int)
    example = int(where[right[0] if len(right) else 0])
    x = model.input.canonical(ds.images[example][None]).astype(model.network.dtype)
    with np.errstate(all="ignore"):
        conv = _first_convolution(model.network, x)
        if conv is None:
            return None
        path, layer, before = conv
        maps = layer(before)[0]
    weight = np.asarray(layer.weight, dtype=np.float64)
    filters = []
    for i, (kernel, cells) in enumerate(zip(weight[:32], maps[:32].astype(np.float64), strict=True)):
        reach = float(np.abs(kernel).max()) or 1.0
        low, high = float(cells.min()), float(cells.max())
        filters.append(
            Picture(
                _png(show(kernel, (-reach, reach))),
                f"kernel {i}",
                (f"filter {i}", f"{low:.2g} to {high:.2g}"),
                beside=Picture(_png(show(cells[None], (low, high if high > low else low + 1))), f"its map {i}"),
            )
        )
    label = ds.classes[int(ds.targets[example])] if ds.is_classification else str(ds.ids[example])
    alt = f"the example, {label}"
    return {"path": path, "filters": filters, "count": len(weight), "example": _picture(ds, example, alt, [label])}


def _first_convolution(network: Network, x: Array) -> tuple[str, Conv2d, Array] | None:
    """Return (path, layer, input) of the first 2-D convolution of a network; None without one."""
    for name, layer in network.children():
        if isinstance(layer, Conv2d):
            return name, layer, x
        if isinstance(layer, Network):
            found = _first_convolution(layer, x)
            if found is not None:
                return f"{name}.{found[0]}", *found[1:]
        x = layer(x)
    return None


# Numbers


def _class_rows(ds: Dataset) -> list[tuple[str, list[int]]]:
    """Return how many images of each class each part has."""
    if not ds.is_classification or len(ds.classes) > 4 * _MANY:
        return []
    counts = [np.bincount(ds.targets[ds.indices(part)], minlength=len(ds.classes)).tolist() for part in PARTS]
    return [(name, list(row)) for name, *row in zip(ds.classes, *counts, strict=True)]


def _curves(history: History) -> list[Chart]:
    """Return loss and accuracy by epoch."""
    charts, best = [], history.best
    for name in ("loss", "accuracy"):
        columns = [("training", "a", history[f"train_{name}"]), ("validation", "b", history[f"val_{name}"])]
        series = []
        for part, style, values in columns:
            points = [
                (x, y) for x, y in zip(history["epoch"], values, strict=True) if y is not None and math.isfinite(y)
            ]
            if points:
                series.append(Series(part, style, points))
        values = [y for line in series for _, y in line.points]
        if not values:
            continue
        star, says = None, f"{name} by epoch"
        for line in series:
            says += f"; {line.name} from {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}"
        if best is not None and (y := getattr(best, f"val_{name}")) is not None:
            star = (best.epoch, y, f"kept: epoch {best.epoch}")
            says += f"; kept: epoch {best.epoch} with validation {name} {y:.4g}"
        percent = name == "accuracy"
        top = (math.floor(10 * min(values)) / 10, 1.0) if percent else (min(0.0, *values), 1.05 * max(values))
        epochs = (history["epoch"][0], history["epoch"][-1])
        formats = ("g", ".0%" if percent else "g")
        charts.append(chart(says, ("epoch", name), (epochs, top), series, formats=formats, best=star))
    return charts


def _overfit(history: History) -> tuple[int, float] | None:
    """Return (best epoch, by how much validation loss rose after it) where the training loss fell meanwhile."""
    best = history.best
    if best is None:
        return None
    last = history.rows[-1]
    if not best.val_loss or last.val_loss is None or last.train_loss >= best.train_loss:
        return None
    rise = last.val_loss / best.val_loss - 1
    return (best.epoch, rise) if rise > 0.1 else None


def _confusion(found: Evaluation) -> dict[str, Any]:
    """Return the rows of the confusion matrix with shades, or a drawing of many; and the commonest mistakes."""
    counts = found.confusion
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    tint = np.where(wrong > 0, 0.15 + 0.85 * wrong / max(int(wrong.max(initial=0)), 1), share)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_COMMONEST]
    pairs = [(i, j) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[i, j]]
    many = len(counts) > _MANY
    return {
        "rows": [] if many else list(zip(found.labels, counts.tolist(), tint.tolist(), strict=True)),
        "matrix": matrix(f"confusion matrix of {len(counts)} classes", tint) if many else None,
        "commonest": [(found.labels[i], found.labels[j], int(wrong[i, j])) for i, j in pairs],
    }


def _calibration(found: Evaluation, temperature: float | None) -> dict[str, Any]:
    """Return the reliability diagram and its errors, before and after division by the temperature."""
    states = [("as it is", "a", found.calibration())]
    if temperature is not None:
        states.append((f"temperature {temperature:.2f}", "b", found.calibration(temperature)))
    series = [
        Series(name, style, list(zip(c.confidence, c.accuracy, strict=True)), c.count.tolist())
        for name, style, c in states
    ]
    errors = [(name, c.ece) for name, _, c in states]
    says = "reliability diagram; expected calibration error " + ", ".join(f"{e:.1%} {name}" for name, e in errors)
    one = (0.0, 1.0)
    labels = ("how sure it is", "how often it is right")
    picture = chart(says, labels, (one, one), series, formats=(".0%", ".0%"), even=True)
    return {"chart": picture, "errors": errors, "temperature": temperature}


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return all settings but the network and digests, which stand elsewhere, as (name, value)."""
    merged = {**config, **config.get("resolved", {})}
    left_out = ("resolved", "network", "data_digest", "split")
    return [(name, _words(value)) for name, value in merged.items() if name not in left_out]


def _words(value: object) -> str:
    """Return a value of config.toml as one would write it in Python."""
    if not isinstance(value, dict):
        return str(value)
    inside = ", ".join(f"{k}={_words(v)}" for k, v in value.items() if k != "name")
    return f"{value.get('name', '')}({inside})"
