"""From a name or a path to a Dataset with its three parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pellucid._types import Array
from pellucid.data import cifar
from pellucid.data.dataset import PARTS, Dataset
from pellucid.data.folder import Notes, Progress, load_folder
from pellucid.data.idx import TEST, TRAIN, find_idx, join_parts, load_idx_folder
from pellucid.data.known import load_known
from pellucid.data.listing import SUFFIXES
from pellucid.data.npz import load_npz
from pellucid.data.registry import KNOWN
from pellucid.data.splits import split
from pellucid.errors import DataError, OptionError, unknown
from pellucid.shapes import pair

if TYPE_CHECKING:
    from PIL.Image import Image


def load(
    source: str | Path = "digits",
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    subset: int | None = None,
    size: tuple[int, int] | None = None,
    strict: bool = False,
    progress: Progress | None = None,
    notes: Notes | None = None,
) -> Dataset:
    """Return a data set with training, validation and test parts.

    Parts that the data bring along (official test images, folders called train and test) are kept; missing ones
    are cut by data.split, each class in proportion.

    Args:
        source: A known name (digits, mnist-5k, mnist, fashion-mnist, cifar10); a folder with one folder of images
            for each class, or with train/ (val/) test/ folders of such folders; a folder of IDX files; an .npz
            file with images and labels. A known name wins over a folder of that name: write ./digits for that.
        seed: Same seed, same parts.
        val_fraction: Share of what is not test for validation, where there is no validation part yet.
        subset: Keep only that many of the images that are not test, each class in proportion.
        size: (H, W) to which all images are resized.
        strict: Raise at the first unreadable picture of a folder; otherwise it is left out and listed in skipped.
        progress: Called with how much is done, and of how much, while files are read or fetched.
        notes: Called with sentences that the user should see, as when images are resized.

    Raises:
        OptionError: For a name that is neither known nor a path.
        DataError: Where the data cannot be used.
        FileError: Where a known set cannot be fetched.

    >>> load("digits", seed=42)
    Dataset('digits', 1797 images 1x8x8, 10 classes, train 1149, val 288, test 360)
    """
    ds = read(source, size=size, strict=strict, progress=progress, notes=notes)
    return split(ds, val_fraction=val_fraction, seed=seed, subset=subset)


def read(
    source: str | Path,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    strict: bool = False,
    classes: Sequence[str] = (),
    prepare: Callable[[Image], Array] | None = None,
    progress: Progress | None = None,
    notes: Notes | None = None,
) -> Dataset:
    """Return a data set with the parts that it brings along; arguments and errors as in load.

    Args:
        source: As in load.
        size: As in load.
        channels: 1 or 3: turns the images of a folder gray or into color; as they are if None.
        strict: As in load.
        classes: As in load_folder.
        prepare: As in load_folder.
        progress: As in load.
        notes: As in load.
    """
    if size is not None:
        size = pair(size, "size")
    if isinstance(source, str) and source in KNOWN:
        return resize(load_known(source, progress=progress, notes=notes), size)
    path = existing(source)
    if is_class_folder(path):
        return load_folder(
            path,
            size=size,
            channels=channels,
            strict=strict,
            classes=classes,
            prepare=prepare,
            progress=progress,
            notes=notes,
        )
    if not path.is_dir():
        return resize(load_npz(path), size)
    if (unpacked := cifar.find_unpacked(path)) is not None:
        return resize(join_parts(cifar.read_unpacked(unpacked), path.resolve().name, KNOWN["cifar10"].classes), size)
    return resize(load_idx_folder(path), size)


def existing(source: str | Path) -> Path:
    """Return the path of a source that is not a known name: a folder or an .npz file.

    Raises:
        OptionError: Where there is nothing of that name.
        DataError: For a file of another kind.
    """
    if not isinstance(source, (str, Path)):
        raise OptionError(
            f"source must be a name or a path, got {type(source).__name__}; data.from_arrays takes arrays"
        )
    path = Path(os.path.expanduser(source))
    if not path.exists():
        raise OptionError(f"{unknown('data set', source, KNOWN)}; there is no folder or file of that name either")
    if path.exists() and not path.is_dir() and not path.is_file():
        raise DataError(f"{path} is not a regular file")
    if path.is_dir() or path.suffix.lower() == ".npz":
        return path
    cure = "give a known name, a folder with one folder of images for each class, a folder of IDX files, or an .npz"
    if path.suffix.lower() in SUFFIXES:
        cure = "a single image is no data set; give the folder that holds one folder of images for each class"
    elif any(suffix in (".zip", ".tar", ".tgz", ".gz") for suffix in path.suffixes):
        cure = "unpack it and give the folder"
    elif path.suffix.lower() == ".npy":
        cure = "save images and labels in one file: np.savez(file, images=images, labels=labels)"
    raise DataError(f"{path} cannot be read as a data set; {cure}")


def is_class_folder(path: Path) -> bool:
    """Return whether a path is a folder that holds neither IDX files nor CIFAR-10's binary files."""
    if not path.is_dir():
        return False
    cifar.refuse_pickles(path)
    return cifar.find_unpacked(path) is None and not any(find_idx(path, name) for name in TRAIN + TEST)


def resize(ds: Dataset, size: tuple[int, int] | None) -> Dataset:
    """Return the data set with all images resized to (H, W), bilinear and antialiased, dtype and range kept."""
    from PIL import Image as pil

    if size is None or ds.shape[1:] == size:
        return ds
    images = np.empty((*ds.images.shape[:2], *size), dtype=ds.images.dtype)
    for old, new in zip(ds.images.reshape(-1, *ds.shape[1:]), images.reshape(-1, *size), strict=True):
        plane = pil.fromarray(old.astype(np.float32)).resize(size[::-1], pil.Resampling.BILINEAR)
        values: Array = np.asarray(plane)
        new[...] = values if np.issubdtype(new.dtype, np.floating) else np.rint(values)
    return replace(ds, images=images)


def describe(ds: Dataset) -> dict[str, object]:
    """Return the facts of a data set: what a table or a JSON document shows.

    Args:
        ds: The data set.

    Returns:
        name, count, shape, dtype, min, max, mean, value_range, classes, and balance: how many images of each class
        every part has.

    >>> facts = describe(load("digits"))
    >>> facts["count"], facts["shape"], facts["max"], facts["balance"]["test"]["0"]
    (1797, (1, 8, 8), 16.0, 36)
    """
    empty = not len(ds)
    return {
        "name": ds.name,
        "count": len(ds),
        "shape": ds.shape,
        "dtype": str(ds.images.dtype),
        "min": None if empty else float(ds.images.min()),
        "max": None if empty else float(ds.images.max()),
        "mean": None if empty else float(ds.images.mean(dtype=np.float64)),
        "value_range": ds.value_range,
        "classes": ds.classes,
        "balance": balance(ds),
    }


def balance(ds: Dataset) -> dict[str, dict[str, int]]:
    """Return how many images of each class every part has, without empty parts; nothing where targets are floats."""
    if not ds.is_classification:
        return {}
    counts = {part: np.bincount(ds.targets[ds.indices(part)], minlength=len(ds.classes)).tolist() for part in PARTS[:3]}
    return {part: dict(zip(ds.classes, row, strict=True)) for part, row in counts.items() if sum(row)}
