"""Reading the known data sets; a set that is not on this machine is fetched first."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from pellucid._types import Array
from pellucid.data import cifar
from pellucid.data.dataset import Dataset, from_arrays
from pellucid.data.fetching import fetch
from pellucid.data.folder import Notes, Progress
from pellucid.data.idx import join_parts, parse_idx
from pellucid.data.registry import KnownSet, cache_folder, content, get, given_folder, locate
from pellucid.errors import DataError


def load_known(name: str, *, progress: Progress | None = None, notes: Notes | None = None) -> Dataset:
    """Return a known set; its official test part is kept, what has none is all "train".

    Args:
        name: digits, mnist-5k, mnist, fashion-mnist or cifar10.
        progress: Called with bytes done and bytes in all while the set is fetched.
        notes: Called before something is fetched.

    Raises:
        OptionError: For another name.
        DataError: Where a file on this machine is damaged, or not the published one.
        FileError: Where the set is not on this machine and cannot be fetched.
        MissingDependencyError: Where the package that brings it is not installed.

    >>> load_known("digits")
    Dataset('digits', 1797 images 1x8x8, 10 classes, train 1797, val 0, test 0)
    """
    known = get(name)
    return replace(_read(known, progress, notes), preparation=known.preparation)


def _read(known: KnownSet, progress: Progress | None, notes: Notes | None) -> Dataset:
    name = known.name
    files = locate(known)
    if files is None:
        if name == "cifar10":
            for folder in (given_folder(name), cache_folder(name)):
                if folder is not None:
                    cifar.refuse_pickles(folder)
        if notes is not None and not known.package:
            notes(f"{name} is not on this machine; fetching it from {known.mirrors[0]}")
        fetch(name, progress=progress)
        files = locate(known)
    if files is None:
        raise DataError(f"{name} was fetched, but cannot be found; run: pellucid data fetch {name}")
    if name == "digits":
        return _digits(known)
    if files[0].is_dir():
        return join_parts(cifar.read_unpacked(files[0]), name, known.classes)
    cure = f"; replace it, or delete it and run: pellucid data fetch {name}"
    contents = [content(path, file, cure=cure) for path, file in zip(files, known.files, strict=True)]
    if name == "cifar10":
        return join_parts(cifar.read_archive(contents[0], str(files[0])), name, known.classes)
    if name == "mnist-5k":
        return _mnist_5k(known, contents[0], files[0])
    arrays = [parse_idx(io.BytesIO(data), str(path), len(data)) for data, path in zip(contents, files, strict=True)]
    return join_parts([arrays[:2], arrays[2:]], name, known.classes)


def _digits(known: KnownSet) -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)
    return from_arrays(images, bunch.target, classes=known.classes, value_range=(0, 16), name=known.name)


def _mnist_5k(known: KnownSet, data: bytes, path: Path) -> Dataset:
    """Read rows of 784 pixels and a label."""
    try:
        rows: Array = np.loadtxt(io.BytesIO(data), delimiter=",", dtype=np.uint8, ndmin=2)
    except ValueError as error:
        raise DataError(f"{path} holds something else than numbers from 0 to 255 ({error})") from None
    images = rows[:, :-1].reshape(-1, *known.shape)
    return from_arrays(images, rows[:, -1], classes=known.classes, name=known.name)
