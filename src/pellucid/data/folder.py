"""A folder of pictures, one folder for each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pellucid._types import Array
from pellucid.data.dataset import Dataset, Skipped, Splits
from pellucid.data.images import UnreadableImage, open_image, to_array
from pellucid.data.listing import Picture, scan
from pellucid.errors import DataError
from pellucid.shapes import pair, text

if TYPE_CHECKING:
    from PIL.Image import Image

Progress: TypeAlias = Callable[[int, int], None]
"""Called with how much is done, and of how much (0 where that is not known)."""
Notes: TypeAlias = Callable[[str], None]
"""Called with what the user should know: a sentence."""

LARGEST_OWN, OTHERWISE = 96, (64, 64)


def load_folder(
    path: str | Path,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    strict: bool = False,
    classes: Sequence[str] = (),
    prepare: Callable[[Image], Array] | None = None,
    progress: Progress | None = None,
    notes: Notes | None = None,
) -> Dataset:
    """Return the data set of a folder with one folder for each class, its classes sorted by name.

    A folder with train/ and val/ or test/, each holding the class folders, gives its parts. Images keep their
    size if all have the same one and it is at most 96 pixels; else they become 64x64, and notes is told. They are
    gray if every one is gray, else RGB: uint8, value_range (0, 255). ids are the paths below the folder.

    Args:
        path: The folder.
        size: (H, W) for all images.
        channels: 1 for gray, 3 for color, whatever the images are.
        strict: Raise at the first unreadable picture; otherwise it is left out and listed in skipped.
        classes: If given, a folder without class folders will do whose files' names begin with a class, as 7-b.png.
        prepare: Makes of an opened picture what is kept: uint8, (C, H, W), all of one shape; it is resized if None.
        progress: Called after each picture.
        notes: Called with what the user should know.

    Raises:
        DataError: Where the folder is not laid out like that, or a class has no readable picture.
    """
    if size is not None:
        size = pair(size, "size")
    listing = scan(path, classes)
    arrays: list[Array] = []
    kept: list[Picture] = []
    skipped: list[Skipped] = []
    sizes: set[tuple[int, int]] = set()
    for done, picture in enumerate(listing.pictures, 1):
        try:
            image = open_image(picture.path)
        except UnreadableImage as error:
            if strict:
                raise
            skipped.append(Skipped(picture.id, error.reason))
        else:
            sizes.add((image.height, image.width))
            # Large pictures are made small at once: a thousand photos would not fit into memory.
            small = size or (OTHERWISE if max(image.size) > LARGEST_OWN else None)
            kind = channels or (1 if image.mode == "L" else 3)
            arrays.append(to_array(image, small, kind) if prepare is None else prepare(image))
            kept.append(picture)
        if progress is not None:
            progress(done, len(listing.pictures))
    for problem in listing.problems({picture.id for picture in kept}):
        first = f" ({len(skipped)} unreadable, as {skipped[0].file}: {skipped[0].reason})" if skipped else ""
        raise DataError(problem + first)
    target = arrays[0].shape[1:] if prepare else size or _common_size(sizes, notes)
    numbers = {name: k for k, name in enumerate(listing.classes)}
    parts = np.array([picture.part for picture in kept])
    return Dataset(
        images=_stack(arrays, target),
        targets=np.array([numbers[picture.label] for picture in kept], dtype=np.int64),
        classes=listing.classes,
        value_range=(0.0, 255.0),
        splits=Splits(*(np.flatnonzero(parts == part) for part in ("train", "val", "test"))),
        name=listing.root.resolve().name,
        ids=[picture.id for picture in kept],
        skipped=tuple(skipped),
    )


def _common_size(sizes: set[tuple[int, int]], notes: Notes | None) -> tuple[int, int]:
    smallest, largest = min(sizes, key=_area), max(sizes, key=_area)
    if len(sizes) == 1 and max(largest) <= LARGEST_OWN:
        return largest
    if notes is not None:
        came = f"are {text(largest)}"
        if len(sizes) > 1:
            came = f"have {len(sizes)} sizes, from {text(smallest)} to {text(largest)}"
        notes(f"the images {came}; all are resized to {text(OTHERWISE)}, as long as no size (--size HxW) is given")
    return OTHERWISE


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _stack(arrays: list[Array], size: tuple[int, int]) -> Array:
    """Return one array of all, emptying the list on the way so that nothing is held twice."""
    from PIL import Image

    channels = max(len(array) for array in arrays)
    images = np.empty((len(arrays), channels, *size), dtype=np.uint8)
    for i, array in enumerate(arrays):
        if array.shape[1:] != size:
            picture = Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))
            array = to_array(picture, size, len(array))
        images[i] = array
        arrays[i] = array[:0]
    return images
