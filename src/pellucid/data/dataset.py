"""A data set: images as stored, their targets, and who belongs to which part."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np

from pellucid._repr import strip, table
from pellucid._types import Array, Shape
from pellucid.errors import DataError, OptionError, unknown
from pellucid.shapes import integer, text

Part: TypeAlias = Literal["train", "val", "test", "all"]
PARTS = ("train", "val", "test", "all")
USUAL_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 16.0), (0.0, 255.0), (0.0, 65535.0))

_HUGE = 1e37
_SHOWN, _ROWS = 12, 50  # images and classes in a notebook


@dataclass(frozen=True)
class Skipped:
    """A file that could not be used, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Splits:
    """Indices of the samples of each part: int64, disjoint, any of them possibly empty."""

    train: Array
    val: Array
    test: Array


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and what is known about them.

    Args:
        images: Shape (N, C, H, W), as stored: uint8 or float.
        targets: int64 labels of shape (N,), or floats of shape (N, ...) for regression and autoencoders.
        classes: Names of the classes, in the order of the labels; empty where targets are floats.
        value_range: Lowest and highest value that a pixel can have.
        splits: Which sample belongs to which part.
        name: As a person would call it.
        ids: What identifies each sample: its number, or its path below the folder.
        skipped: Files that were left out.
        range_given: Whether value_range is known, and not guessed from the pixels.
        preparation: How a photo becomes an image like these: "resize" or "digit"; see InputSpec.

    >>> ds = from_arrays(np.zeros((4, 8, 8)), [0, 1, 0, 1], value_range=(0, 16))
    >>> ds.shape, ds.classes, len(ds)
    ((1, 8, 8), ('0', '1'), 4)
    """

    images: Array
    targets: Array
    classes: tuple[str, ...]
    value_range: tuple[float, float]
    splits: Splits
    name: str = "arrays"
    ids: Sequence[int | str] = field(default=(), repr=False)
    skipped: tuple[Skipped, ...] = ()
    range_given: bool = True
    preparation: str = "resize"

    def __post_init__(self) -> None:
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise DataError(f'the class "{twice}" stands twice; each class needs a name of its own')
        for name in self.classes:
            if not name.isascii() and name.encode("utf-8", "replace").decode() != name:
                raise DataError(f"the class {name!r:.80} holds characters that do not exist; give it another name")
        if not self.ids:
            object.__setattr__(self, "ids", range(len(self.images)))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> Shape:
        """(C, H, W) of one image."""
        return self.images.shape[1:]

    @property
    def is_classification(self) -> bool:
        """Whether the targets are labels."""
        return bool(np.issubdtype(self.targets.dtype, np.integer))

    def indices(self, part: str) -> Array:
        """Return the indices of a part: "train", "val", "test" or "all"."""
        if part not in PARTS:
            raise unknown("part", part, PARTS)
        if part == "all":
            return np.arange(len(self))
        return np.asarray(getattr(self.splits, part))

    @property
    def is_reconstruction(self) -> bool:
        """Whether the targets are images like the images themselves."""
        return not self.is_classification and self.targets.shape == self.images.shape

    def digest(self) -> str:
        """Return the SHA-256, in hex, of images, targets and class names: what the data are, wherever they lie."""
        h = hashlib.sha256()
        for array in (self.images, self.targets):
            h.update(f"{array.dtype.newbyteorder('<').str}{array.shape}".encode())
            h.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
        h.update("\0".join(self.classes).encode())
        return h.hexdigest()

    def reconstruction(self) -> Dataset:
        """Return the same images with themselves as targets, scaled to 0 to 1: float32, what an autoencoder learns.

        >>> from_arrays(np.full((2, 1, 1), 4), [0, 1], value_range=(0, 16)).reconstruction().targets.ravel()
        array([0.25, 0.25], dtype=float32)
        """
        low, high = self.value_range
        targets = self.images.astype(np.float32)
        targets -= np.float32(low)
        targets *= np.float32(1 / (high - low))
        return replace(self, targets=targets, classes=())

    def with_splits(self, splits: Splits) -> Dataset:
        """Return the same data divided in another way."""
        return replace(self, splits=splits)

    def __repr__(self) -> str:
        parts = ", ".join(f"{p} {len(self.indices(p))}" for p in PARTS[:3])
        kinds = f"{len(self.classes)} classes" if self.classes else f"targets {text(self.targets.shape[1:])}"
        return f"Dataset({self.name!r}, {len(self)} images {text(self.shape)}, {kinds}, {parts})"

    def _repr_html_(self) -> str:
        """Return how many images each class has in each part, and an image of each, for notebooks."""
        low, high = self.value_range
        title = f"{self.name}: {len(self):,} images {text(self.shape)}, values {low:g} to {high:g}"
        if not self.is_classification:
            rows: list[list[object]] = [["all", *(len(self.indices(part)) for part in PARTS[:3])]]
            shown = list(range(min(len(self), _SHOWN)))
            alt = "the first images"
        else:
            counts = [np.bincount(self.targets[self.indices(part)], minlength=len(self.classes)) for part in PARTS[:3]]
            rows = [[name, *(int(count[k]) for count in counts)] for k, name in enumerate(self.classes)]
            shown = [int(np.flatnonzero(self.targets == k)[0]) for k in np.unique(self.targets)[:_SHOWN]]
            alt = f"an image of each class: {', '.join(self.classes[int(self.targets[i])] for i in shown)}"
        note = f"and {len(rows) - _ROWS} more classes" if len(rows) > _ROWS else ""
        made = table(title, ["class", *PARTS[:3]], rows[:_ROWS], note)
        unit = np.clip((self.images[shown].astype(np.float64) - low) / (high - low), 0, 1)
        return made + (strip(np.moveaxis(unit, 1, -1) if self.shape[0] == 3 else unit[:, 0], alt) if shown else "")


def check_images(images: object) -> Array:
    """Return images as (N, C, H, W), uint8 or float; (N, H, W) gets its channel axis.

    Raises:
        DataError: Where the array cannot be a batch of images, with the cure.
    """
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise DataError(f"images do not form one array ({error}); all must have the same size") from None
    if array.dtype == object or not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise DataError(f"images must be numbers, got an array of {array.dtype}")
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4:
        raise DataError(
            f"images must have the axes N x C x H x W or N x H x W, got shape {array.shape}; "
            f"reshape them, for example images.reshape(-1, 1, {_side(array)}, {_side(array)})"
        )
    if array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        raise DataError(
            f"images of shape {array.shape} look like N x H x W x C; put the channels second: np.moveaxis(images, 3, 1)"
        )
    if min(array.shape[1:]) == 0:
        raise DataError(f"images have no pixels: shape {array.shape}")
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))[0])
        raise DataError(f"image {bad} holds NaN or infinity; remove or repair it")
    return array.astype(np.float64) if array.dtype.itemsize > 8 else array


def _side(array: Array) -> int:
    """Return the side of the square that rows of pixels may form; 28 where they form none."""
    side = math.isqrt(array.shape[1]) if array.ndim == 2 else 0
    return side if side and side * side == array.shape[1] else 28


def check_targets(targets: object, n: int, classes: int | None = None) -> Array:
    """Return targets as int64 labels (N,) or floats (N, ...).

    Args:
        targets: Labels 0 to K - 1, or arrays of floats.
        n: How many images there are.
        classes: K, where it is known.

    Raises:
        DataError: For wrong lengths, labels that are no whole numbers, negative or out of range.
    """
    try:
        array = np.asarray(targets)
    except ValueError as error:
        raise DataError(f"targets do not form one array ({error}); all must have the same size") from None
    if array.ndim == 0 or len(array) != n:
        got = len(array) if array.ndim else "a single number"
        raise DataError(f"there are {n} images, but {got} targets; each image needs one")
    if np.issubdtype(array.dtype, np.floating):
        if array.ndim == 1:
            raise DataError(
                "labels must be whole numbers, got floats; use labels.astype(int), "
                "or targets of shape (N, 1) for regression"
            )
        if not np.isfinite(array).all():
            raise DataError("targets hold NaN or infinity; remove or repair them")
        return array.astype(np.float64) if array.dtype.itemsize > 8 else array
    if array.dtype == bool or not np.issubdtype(array.dtype, np.integer):
        raise DataError(
            f"labels must be whole numbers from 0, got {array.dtype}; "
            "np.unique(labels, return_inverse=True) turns names into numbers"
        )
    if array.ndim != 1:
        raise DataError(
            f"labels must have shape (N,), got {array.shape}; "
            "one-hot rows become labels by labels.argmax(axis=1), other targets must be floats"
        )
    if n:
        low, high = int(array.min()), int(array.max())
        if high >= 1 << 31:
            raise DataError(f"label {high} is out of range; labels number the classes from 0")
        if low < 0 or (classes is not None and high >= classes):
            bad = low if low < 0 else high
            limit = f"0 to {classes - 1}" if classes is not None else "0 to K - 1"
            raise DataError(f"label {bad} is out of range; labels must be {limit}")
    return array.astype(np.int64)


def from_arrays(
    images: object,
    targets: object,
    *,
    classes: Sequence[str] | None = None,
    value_range: tuple[float, float] | None = None,
    name: str = "arrays",
) -> Dataset:
    """Return a Dataset of arrays, all of it in the part "train".

    Args:
        images: Shape (N, C, H, W) or (N, H, W), numbers.
        targets: int labels of shape (N,), or floats of shape (N, ...).
        classes: Names of the classes; "0", "1", ... if not given.
        value_range: Lowest and highest possible value. If None, (0, 255) for uint8; else the first of (0, 1), (-1, 1)
            and, for whole numbers, (0, 16), (0, 255), (0, 65535) that holds all values; else what they span.
        name: As a person would call it.

    Raises:
        DataError: Where images and targets do not fit together.
    """
    x = check_images(images)
    t = check_targets(targets, len(x), len(classes) if classes is not None else None)
    if classes is None:
        labels = np.issubdtype(t.dtype, np.integer) and len(t)
        classes = [str(k) for k in range(_count_classes(t))] if labels else []
    given = value_range is not None or x.dtype == np.uint8
    if value_range is None:
        value_range = (0.0, 255.0) if x.dtype == np.uint8 or not len(x) else _measured_range(x)
    low, high = float(value_range[0]), float(value_range[1])
    if not rises(low, high):
        raise DataError(f"value_range must be two finite numbers that rise, got ({low:g}, {high:g})")
    if len(x) and not low <= x.min() <= x.max() <= high:
        raise DataError(f"pixels lie between {x.min():g} and {x.max():g}, outside value_range ({low:g}, {high:g})")
    none = np.empty(0, dtype=np.int64)
    parts = Splits(np.arange(len(x)), none, none)
    return Dataset(x, t, tuple(classes), (low, high), parts, name, range_given=given)


def random_images(n: int, shape: Shape, num_classes: int = 10, seed: int = 0) -> Dataset:
    """Return random images, bytes from 0 to 255 as photos have, and labels: to try a network before there are data.

    Args:
        n: How many images.
        shape: (C, H, W) of one image.
        num_classes: How many classes take turns.
        seed: Same seed, same images.

    Raises:
        OptionError: For numbers that cannot be.

    >>> ds = random_images(8, (3, 28, 28))
    >>> ds.images.shape, ds.images.dtype, ds.targets.tolist()
    ((8, 3, 28, 28), dtype('uint8'), [0, 1, 2, 3, 4, 5, 6, 7])
    """
    if len(shape) != 3:
        raise OptionError(f"shape must be (C, H, W), got {shape!r}")
    sizes = [integer(k, "n and shape") for k in (n, *shape)]
    k = integer(num_classes, "num_classes")
    images = np.random.default_rng(seed).integers(0, 256, sizes, dtype=np.uint8)
    return from_arrays(images, np.arange(n) % k, classes=[str(i) for i in range(k)], name="random")


def _count_classes(labels: Array) -> int:
    """Return K for labels that use each of 0 to K - 1, or raise a DataError that names one that is missing."""
    used = np.unique(labels)
    if len(used) <= used[-1]:
        absent = int(np.flatnonzero(used != np.arange(len(used)))[0])
        cure = (
            "subtract 1 from the labels"
            if used[0] == 1 and len(used) == used[-1]
            else "give all names, as in data.from_arrays(images, labels, classes=[...])"
        )
        raise DataError(
            f"no image has the label {absent}, but the largest is {used[-1]}; labels are 0 to K - 1: {cure}"
        )
    return len(used)


def _measured_range(images: Array) -> tuple[float, float]:
    smallest, largest = float(images.min()), float(images.max())
    whole = np.issubdtype(images.dtype, np.integer) or bool((images == np.rint(images)).all())
    usual = USUAL_RANGES if whole else USUAL_RANGES[:2]
    for low, high in usual:
        if low <= smallest and largest <= high:
            return low, high
    low = min(smallest, 0.0)
    return low, max(largest, low + 1.0)


def rises(low: float, high: float) -> bool:
    """Return whether two numbers can be a value range: finite and apart, in float32 too.

    Args:
        low: Lowest value.
        high: Highest value.

    >>> rises(0, 255), rises(1, 0), rises(0, 1e-300), rises(-1e300, 1e300)
    (True, False, False, False)
    """
    return -_HUGE < low < high < _HUGE and high - low > 1 / _HUGE


def outside(images: Array, value_range: tuple[float, float]) -> bool:
    """Return whether pixels lie where none can be, NaN included.

    The usual ranges, as 0 to 255, are exact. Others were measured on some images, so that a new one may go beyond;
    then as much again on either side is allowed.

    Args:
        images: Any shape.
        value_range: Lowest and highest value.

    >>> outside(np.array([256.0]), (0.0, 255.0)), outside(np.array([3.0]), (-2.25, 2.75))
    (True, False)
    """
    low, high = value_range
    slack = 0.0 if value_range in USUAL_RANGES else high - low
    return bool(images.size and not (images.min() >= low - slack and images.max() <= high + slack))


def rescaled(ds: Dataset, part: Array, wanted: tuple[float, float]) -> Array:
    """Return images of a data set in another range: 0 to 16 becomes 0 to 255.

    They stay as they are where their range was not given but guessed from the values, or one of the two is unusual.

    Args:
        ds: The data set.
        part: Which images: indices.
        wanted: The other range.

    >>> ds = from_arrays(np.full((2, 1, 1), 8.0), [0, 1], value_range=(0, 16))
    >>> rescaled(ds, np.array([0]), (0.0, 1.0)).ravel()
    array([0.5])
    """
    images = ds.images[part]
    known = ds.range_given and ds.value_range in USUAL_RANGES and wanted in USUAL_RANGES
    if not known or ds.value_range == wanted:
        return images
    (low, high), (new_low, new_high) = ds.value_range, wanted
    return (images.astype(np.float64) - low) * ((new_high - new_low) / (high - low)) + new_low
