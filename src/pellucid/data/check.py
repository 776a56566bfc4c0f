"""Looking through a data set before training: unreadable files, duplicates, leaks between parts, balance."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pellucid.data.dataset import PARTS, Skipped
from pellucid.data.folder import Progress
from pellucid.data.images import UnreadableImage, open_image
from pellucid.data.listing import scan
from pellucid.data.registry import KNOWN
from pellucid.data.sources import balance, existing, is_class_folder, read
from pellucid.shapes import text

if TYPE_CHECKING:
    from PIL.Image import Image

Pairs: TypeAlias = list[tuple[str, str]]


@dataclass
class CheckReport:
    """What is wrong with a data set, and what is in it.

    Args:
        source: What was checked.
        images: How many images can be read.
        classes: Their names.
        problems: What keeps it from being loaded: sentences.
        unreadable: Files that should be pictures and cannot be read.
        ignored: Files that are no pictures.
        across_classes: Ids of equal images with different labels.
        across_parts: Ids of equal images in different parts: the test would be flattered.
        inside: How many further copies of an image stand in the same class and part.
        suspects: Ids of images that look alike (equal difference hash) without being equal; folders only.
        balance: How many images of each class every part has.
        sizes: How many images have each size, as HxW.
    """

    source: str
    images: int = 0
    classes: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)
    unreadable: list[Skipped] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    across_classes: Pairs = field(default_factory=list)
    across_parts: Pairs = field(default_factory=list)
    inside: int = 0
    suspects: Pairs = field(default_factory=list)
    balance: dict[str, dict[str, int]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return the report as plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Seen:
    id: str
    part: str
    label: str
    digest: bytes
    hash: int = 0


def check(path: str | Path, *, progress: Progress | None = None) -> CheckReport:
    """Look through everything that load accepts, and report what is wrong; nothing is changed.

    Two images are equal where their decoded pixels are (SHA-256). Of a group of equal images, each is reported
    beside the first, in the order train, val, test.

    Args:
        path: A known name, a folder or an .npz file.
        progress: Called with how much is done, and of how much.

    Raises:
        OptionError: For a name that is neither known nor a path.
        DataError: Where the source as a whole cannot be read.

    >>> report = check("digits")
    >>> report.images, report.across_classes, report.balance["train"]["0"]
    (1797, [], 178)
    """
    if str(path) not in KNOWN and is_class_folder(existing(path)):
        return _check_folder(path, progress)
    ds = read(path, progress=progress)
    part_of = {int(i): part for part in PARTS[:3] for i in ds.indices(part)}
    images = np.ascontiguousarray(ds.images)
    labels = ds.targets if ds.is_classification else np.zeros(len(ds), dtype=np.int64)
    seen = [
        _Seen(str(ds.ids[i]), part, str(labels[i]), hashlib.sha256(images[i].data).digest())
        for i, part in sorted(part_of.items())
    ]
    report = CheckReport(str(path), len(ds), ds.classes, balance=balance(ds))
    report.sizes = {text(ds.shape[1:]): len(ds)}
    _find_copies(report, seen)
    return report


def _check_folder(path: str | Path, progress: Progress | None) -> CheckReport:
    listing = scan(path)
    report = CheckReport(str(path), classes=listing.classes, ignored=list(listing.ignored))
    seen: list[_Seen] = []
    sizes: Counter[str] = Counter()
    for done, picture in enumerate(listing.pictures, 1):
        try:
            image = open_image(picture.path)
        except UnreadableImage as error:
            report.unreadable.append(Skipped(picture.id, error.reason))
        else:
            size = text((image.height, image.width))
            sizes[size] += 1
            digest = hashlib.sha256(f"{image.mode}{size}".encode() + image.tobytes()).digest()
            seen.append(_Seen(picture.id, picture.part, picture.label, digest, difference_hash(image)))
        if progress is not None:
            progress(done, len(listing.pictures))
    report.images = len(seen)
    report.problems = list(listing.problems({s.id for s in seen}))
    report.sizes = dict(sizes.most_common())
    counts = Counter((s.part, s.label) for s in seen)
    report.balance = {part: {name: counts[part, name] for name in listing.classes} for part in listing.folders}
    _find_copies(report, seen)
    _find_suspects(report, seen)
    return report


def difference_hash(image: Image) -> int:
    """Return 64 bits that stay when a picture is scaled or compressed: is each of 8x8 cells darker than the next?

    0 for a picture without such differences, like an even area; it says nothing then.
    """
    from PIL.Image import Resampling

    cells = np.asarray(image.convert("L").resize((9, 8), Resampling.BILINEAR)).astype(np.int16)
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")


def _groups(pairs: Iterable[tuple[object, _Seen]]) -> list[list[_Seen]]:
    """Return what shares a key, in groups of two and more."""
    groups: defaultdict[object, list[_Seen]] = defaultdict(list)
    for key, seen in pairs:
        groups[key].append(seen)
    return [group for group in groups.values() if len(group) > 1]


def _find_copies(report: CheckReport, seen: list[_Seen]) -> None:
    for first, *others in _groups((s.digest, s) for s in seen):
        places = {(first.part, first.label)}
        for other in others:
            if other.label != first.label:
                report.across_classes.append((first.id, other.id))
            if other.part != first.part:
                report.across_parts.append((first.id, other.id))
            report.inside += (other.part, other.label) in places
            places.add((other.part, other.label))


def _find_suspects(report: CheckReport, seen: list[_Seen]) -> None:
    for first, *others in _groups((s.hash, s) for s in seen if s.hash):
        known = {first.digest}
        for other in others:
            if other.digest not in known:
                report.suspects.append((first.id, other.id))
            known.add(other.digest)
