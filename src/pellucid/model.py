"""A model: a network, how its input is prepared, and what its outputs mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from pellucid import functional as F
from pellucid._repr import table
from pellucid._types import Array, Shape
from pellucid.data.dataset import Dataset, outside
from pellucid.errors import DataError, FileError, OptionError, ShapeError
from pellucid.interop import model_file
from pellucid.metrics import finite
from pellucid.nn import Network
from pellucid.novelty import BLANK, Novelty
from pellucid.shapes import text

if TYPE_CHECKING:
    from PIL.Image import Image

    from pellucid.data.preparation import Prepared
    from pellucid.engines import Engine

Normalize: TypeAlias = str | tuple[float | Sequence[float], float | Sequence[float]]


@dataclass(frozen=True)
class InputSpec:
    """How an image becomes a network's input: (raw - low) / (high - low), then (x - mean) / std for each channel.

    Args:
        shape: (C, H, W).
        value_range: Lowest and highest raw value.
        mean: Of each channel, after scaling to 0 to 1.
        std: Of each channel, after scaling to 0 to 1.
        polarity: Whether the border of nearly all training images is "dark" or "light", or "mixed".
        preparation: How image files are made fit: "resize" scales to H x W, "digit" finds the figure in a photo, and
            fits and centers it (data.DigitPreparation).

    >>> spec = InputSpec((1, 1, 2), (0.0, 255.0), (0.5,), (0.5,))
    >>> spec.canonical(np.array([[[[0, 255]]]], dtype=np.uint8))
    array([[[[-1.,  1.]]]], dtype=float32)
    """

    shape: Shape
    value_range: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    polarity: str = "mixed"
    preparation: str = "resize"

    @classmethod
    def of(cls, ds: Dataset, normalize: Normalize = "standard") -> Self:
        """Return the input spec that fits a data set, its statistics taken from the training part.

        Args:
            ds: The data set.
            normalize: "standard" (mean 0 and standard deviation 1 in training), "unit" (0 to 1), or (mean, std) of
                the images scaled to 0 to 1, each a number or one per channel.
        """
        channels = ds.shape[0]
        low, high = ds.value_range
        raw = ds.images[ds.splits.train]
        if isinstance(normalize, str):
            if normalize not in ("standard", "unit"):
                raise OptionError(f'normalize must be "standard", "unit" or (mean, std), got {normalize!r}')
            mean, std = np.zeros(channels), np.ones(channels)
            if normalize == "standard" and raw.size:
                mean, std = _statistics(raw)
                mean, std = (mean - low) / (high - low), std / (high - low)
                std[std == 0] = 1.0
        else:
            try:
                mean, std = (np.broadcast_to(np.asarray(v, dtype=np.float64), (channels,)) for v in normalize)
            except (TypeError, ValueError):
                raise OptionError(
                    f"normalize must be (mean, std), each a number or {channels} numbers, got {normalize!r}"
                ) from None
            if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
                raise OptionError(f"normalize needs finite means and positive standard deviations, got {normalize!r}")
        polarity = _polarity(raw, ds.value_range)
        return cls(ds.shape, ds.value_range, tuple(mean.tolist()), tuple(std.tolist()), polarity, ds.preparation)

    def canonical(self, raw: Array) -> Array:
        """Return raw images as the network's input: float32, (N, C, H, W).

        Args:
            raw: (N, C, H, W), in value_range.
        """
        low, high = self.value_range
        x = raw.astype(np.float32)
        x -= np.float32(low)
        x *= np.float32(1 / (high - low))
        x -= np.asarray(self.mean, dtype=np.float32)[:, None, None]
        x /= np.asarray(self.std, dtype=np.float32)[:, None, None]
        return x

    def check(self, images: object) -> Array:
        """Return raw images as (N, C, H, W); a single image (C, H, W) or (H, W) becomes a batch of one.

        Args:
            images: Numbers in value_range.

        Raises:
            DataError: Where shape or values do not fit, with the cure.
        """
        try:
            x = np.asarray(images)
        except ValueError:
            raise DataError(
                "images do not form one array; all must be arrays of the same shape, or all files"
            ) from None
        if x.dtype == object or not np.issubdtype(x.dtype, np.number) or np.iscomplexobj(x):
            raise DataError(f"images must be numbers, got an array of {x.dtype}")
        c, h, w = self.shape
        if x.shape == (c, h, w) or (c == 1 and x.shape == (h, w)):
            x = x.reshape(1, c, h, w)
        elif c == 1 and x.ndim == 3 and x.shape[1:] == (h, w):
            x = x[:, None]
        if x.shape[1:] != (c, h, w):
            cure = "resize them, or give image files, which are resized"
            if x.shape[-3:] == (h, w, c):
                cure = "put the channels before height and width: np.moveaxis(images, -1, -3)"
            raise DataError(f"the model takes images N x {c} x {h} x {w}, got shape {x.shape}; {cure}")
        low, high = self.value_range
        if outside(x, self.value_range):
            bad = "NaN" if np.isnan(x.astype(np.float64)).any() else f"values from {x.min():g} to {x.max():g}"
            raise DataError(f"the model takes raw values from {low:g} to {high:g}, got {bad}; do not normalize before")
        return x

    def read(self, source: str | Path | Image) -> Array:
        """Return an image file or PIL image as a raw image in value_range: (C, H, W).

        Args:
            source: Path or PIL image.
        """
        from pellucid.data.images import open_image

        return self.raw(self.prepare(open_image(source)).image)

    def prepare(self, picture: Image, **changes: Any) -> Prepared:
        """Return a picture in the network's size, and for a model of digits each step on the way: image is (C, H, W).

        A picture that has the network's size, and a border like the training images, is no photo: it stays as it is.

        Args:
            picture: What data.open_image returned.
            **changes: Arguments of data.DigitPreparation, to override what it finds.
        """
        from pellucid.data.images import to_array
        from pellucid.data.preparation import DigitPreparation, Prepared

        c, h, w = self.shape
        plain = to_array(picture, (h, w), c)
        stored = picture.size == (w, h) and self.polarity in (
            "mixed",
            "light" if borders(plain[None]) > 127.5 else "dark",
        )
        if self.preparation != "digit" or (stored and not changes):
            return Prepared(plain)
        prepared = DigitPreparation((h, w), **changes)(picture)
        image = 255 - prepared.image if self.polarity == "light" else prepared.image
        return replace(prepared, image=np.repeat(image[None], c, axis=0))

    def raw(self, pixels: Array) -> Array:
        """Return pixels from 0 to 255 in value_range.

        Args:
            pixels: uint8, any shape.
        """
        low, high = self.value_range
        if (low, high) == (0.0, 255.0):
            return pixels
        return pixels.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)


def borders(images: Array) -> Array:
    """Return the median of each image's outermost pixels, float64, (N,).

    Args:
        images: (N, C, H, W).
    """
    n = len(images)
    sides = (images[:, :, [0, -1]], images[:, :, :, [0, -1]])
    return np.asarray(np.median(np.concatenate([side.reshape(n, -1) for side in sides], axis=1), axis=1))


def _polarity(images: Array, value_range: tuple[float, float], consistent: float = 0.98) -> str:
    if not len(images):
        return "mixed"
    light = float((borders(images) > sum(value_range) / 2).mean())
    return "light" if light >= consistent else "dark" if light <= 1 - consistent else "mixed"


def _statistics(images: Array, block: int = 1024) -> tuple[Array, Array]:
    """Return mean and standard deviation of each channel, float64, without a float copy of all images."""
    parts = [images[i : i + block] for i in range(0, len(images), block)]
    count = images.size / images.shape[1]
    mean = sum(part.sum(axis=(0, 2, 3), dtype=np.float64) for part in parts) / count
    squares = (np.square(part - mean[:, None, None]).sum(axis=(0, 2, 3)) for part in parts)
    return mean, np.sqrt(sum(squares) / count)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of N images.

    Attributes:
        probabilities: (N, K), each row sums to 1.
        indices: Number of the likeliest class, int64, (N,).
        labels: Name of the likeliest class, N of them.
        logits: Raw outputs, (N, K).
        unsure: For each image None, or why the model should not be trusted with it.
    """

    probabilities: Array
    indices: Array
    labels: tuple[str, ...]
    logits: Array
    unsure: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{label} {p[i]:.1%}"
            for label, i, p in zip(self.labels[:5], self.indices[:5], self.probabilities[:5], strict=True)
        )
        return f"Prediction({shown}{', ...' if len(self) > 5 else ''})"

    def _repr_html_(self) -> str:
        """Return a row for each image, at most 20, for notebooks."""
        best = self.probabilities.max(axis=1, initial=0.0)
        rows: list[list[object]] = [
            [i, label, f"{p:.1%}", unsure or ""]
            for i, (label, p, unsure) in enumerate(zip(self.labels, best, self.unsure, strict=True))
        ]
        note = f"and {len(rows) - 20} more" if len(rows) > 20 else ""
        return table(
            f"{len(self)} prediction{'s' if len(self) != 1 else ''}",
            ["image", "class", "probability", "not sure"],
            rows[:20],
            note,
        )


@dataclass(eq=False)
class Model:
    """A network with its input spec and class names; made by fit, or read by pellucid.load.

    Args:
        network: Built.
        input: How an image becomes the network's input.
        classes: Names, in the order of the outputs; empty for regression and autoencoders.
        metrics: Numbers worth keeping, as the accuracy on the test part, and the temperature that fits the validation
            part (metrics.fit_temperature); probabilities are given without it.
        data_digest: SHA-256 of the data that it was trained on.
        engine: What predicts: "compiled", "reference" or "torch".
        novelty: Thresholds below which an image is doubted, if they were measured.
    """

    network: Network
    input: InputSpec
    classes: tuple[str, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    data_digest: str = ""
    engine: str = "compiled"
    novelty: Novelty | None = None
    _engine: Engine | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.network.input_shape != self.input.shape:
            raise ShapeError(
                f"the network takes {text(self.network.input_shape)}, the input spec gives {text(self.input.shape)}"
            )
        out = self.network.output_shape(self.input.shape)
        if self.classes and out != (len(self.classes),):
            raise ShapeError(f"the network gives {text(out)} outputs, but there are {len(self.classes)} classes")

    def outputs(self, raw: object) -> Array:
        """Return the network's raw outputs for raw images.

        Args:
            raw: Numbers in the input spec's value_range, (N, C, H, W), (N, H, W) or one image.
        """
        return self._run(self.input.check(raw))

    def _run(self, x: Array) -> Array:
        if self._engine is None:
            from pellucid import engines

            self._engine = engines.create(self.engine)
            self._engine.build(self.network)
        parts = [self._engine.predict(self.input.canonical(x[i : i + 4096])) for i in range(0, max(len(x), 1), 4096)]
        return np.concatenate(parts)

    def predict(self, images: object) -> Prediction:
        """Return classes and probabilities.

        Args:
            images: Raw arrays, or a path, a PIL image, or a list of these.

        Raises:
            DataError: For images that cannot be read or do not fit.

        >>> import pellucid as pl
        >>> ds = pl.data.load("digits")
        >>> run = pl.fit(pl.models.create("block_cnn", ds.shape, 10), ds, epochs=1, progress=False)
        >>> len(run.model.predict(ds.images[:3]))
        3
        """
        return self.predict_prepared(self.prepared(images))

    def prepared(self, images: object) -> Array:
        """Return images as raw arrays that the input spec has read or checked: (N, C, H, W).

        Args:
            images: Raw arrays, or a path, a PIL image, or a list of these.

        Raises:
            DataError: For images that cannot be read or do not fit.
        """
        sources: Sequence[Any] = images if isinstance(images, (list, tuple)) else [images]
        if not sources:
            raise DataError("there are no images to predict")
        if all(isinstance(s, (str, Path)) or hasattr(s, "getexif") for s in sources):  # getexif: a PIL image
            return np.stack([self.input.read(s) for s in sources])
        raw = self.input.check(images)
        self._refuse_scaled(raw)
        return raw

    def _refuse_scaled(self, raw: Array) -> None:
        """Catch the usual slip: images already divided by 255, which the model divides once more."""
        low, high = self.input.value_range
        if np.issubdtype(raw.dtype, np.floating) and raw.size and low == 0 and high >= 255 and 0 < raw.max() <= 1:
            raise DataError(
                f"the model takes raw values from {low:g} to {high:g}, got values from {raw.min():g} to {raw.max():g}, "
                f"which look scaled; multiply by {high:g}, or give the images as stored"
            )

    def predict_prepared(self, raw: Array) -> Prediction:
        """Return classes and probabilities of images that the input spec has read or checked.

        Args:
            raw: (N, C, H, W).

        Raises:
            DataError: Where the network's outputs are not finite.
        """
        if not self.classes:
            raise OptionError("this model has no classes; model.outputs(images) gives its raw outputs")
        logits = self._run(raw)
        check_finite(logits, np.arange(len(raw)))
        probabilities = F.softmax(logits.astype(np.float64), 1)
        indices = logits.argmax(axis=1)
        labels = tuple(self.classes[i] for i in indices)
        return Prediction(probabilities, indices, labels, logits, self._doubts(raw, logits))

    def _doubts(self, raw: Array, logits: Array) -> tuple[str | None, ...]:
        """Return for each image None, or why the model should not be trusted with it."""
        if self.novelty is None:  # an image of one color is blank to any model
            doubts: tuple[str | None, ...] = tuple(BLANK if image.min() == image.max() else None for image in raw)
        else:
            doubts = self.novelty.doubts(raw, logits, self.input.value_range, self.classes)
        if self.input.polarity == "mixed" or not len(raw):
            return doubts
        seen = np.where(borders(raw) > sum(self.input.value_range) / 2, "light", "dark")
        return tuple(
            doubt
            if polarity == self.input.polarity
            else f"its border is {polarity}, that of the training images was {self.input.polarity}; invert the image"
            for doubt, polarity in zip(doubts, seen, strict=True)
        )

    def facts(self) -> dict[str, Any]:
        """Return what the model is beside its network, as plain data."""
        return {
            "input": asdict(self.input),
            "classes": list(self.classes),
            "metrics": {name: finite(value) for name, value in self.metrics.items()},
            "data_digest": self.data_digest,
            "novelty": None if self.novelty is None else asdict(self.novelty),
        }

    def save(self, path: str | Path) -> None:
        """Write the model file: weights, network, input spec, class names; see interop.model_file.

        Args:
            path: Where to, usually something.safetensors.

        Raises:
            FileError: Where it cannot be written, or the network holds NaN or infinity.
            OptionError: For a network with layers of one's own.
        """
        model_file.write(self.network, self.facts(), path)


def check_finite(outputs: Array, numbers: Array) -> None:
    """Refuse outputs that say nothing.

    Args:
        outputs: Of a network, (N, ...).
        numbers: Of the images, for the error, (N,).

    Raises:
        DataError: Where one is NaN or infinite.
    """
    good = np.isfinite(outputs).all(axis=tuple(range(1, outputs.ndim)))
    if not good.all():
        first = int(np.flatnonzero(~good)[0])
        given = outputs[first].tolist() if outputs.ndim == 2 else "NaN or infinity"
        raise DataError(f"the network gives {given} for image {numbers[first]}; its weights are unusable")


def load(path: str | Path, engine: str = "compiled") -> Model:
    """Return the model of a model file or run directory; it predicts exactly what it predicted before saving.

    Of an ONNX file that interop.export_onnx wrote of a model too, without dropout; it predicts the same up to rounding.

    Args:
        path: A model file or ONNX file, whatever it is called, or a folder with model.safetensors.
        engine: Which engine predicts. Only the one that predicted before gives the same bits.

    Raises:
        FileError: For anything that is not whole and as pellucid wrote it.
    """
    path = Path(path)
    if _is_onnx(path):
        from pellucid.interop.onnx.reading import read_model

        content = read_model(path)
    else:
        content = model_file.read(path / "model.safetensors" if path.is_dir() else path)
    spec = InputSpec(**content.input)
    novelty = None if content.novelty is None else Novelty(**content.novelty)
    try:
        return Model(content.network, spec, content.classes, content.metrics, content.data_digest, engine, novelty)
    except ShapeError as error:
        raise FileError(f"{path}: {error}") from error


def _is_onnx(path: Path) -> bool:
    """Return whether a file is to be read as ONNX: it begins like that, or is called so and begins as neither does.

    ONNX begins with the tag of its version, safetensors with the length of a header in eight bytes, and "{".
    """
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            lead = file.read(9)
    except OSError:
        return False  # reading it says why
    if lead[:1] == b"\x08" and any(lead[4:8]):
        return True
    return path.suffix.lower() == ".onnx" and lead[4:] != b"\0\0\0\0{"
