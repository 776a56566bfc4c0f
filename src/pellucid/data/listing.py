"""What lies in a folder of class folders, before any file is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pellucid.data.images import printable
from pellucid.errors import DataError, one_line

# Formats that are not read are here too: such a file was meant as a picture, so it is reported, not ignored.
READ = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif"}
SUFFIXES = READ | {".webp", ".tif", ".tiff", ".heic", ".heif", ".avif"}
_DEPTH = 50
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Picture:
    """A file that should be a picture: id is its path below the folder, with /."""

    id: str
    path: Path
    part: str
    label: str


@dataclass(frozen=True)
class Listing:
    """What lies in a folder of class folders: pictures by part, class and name, and the other files.

    named says that there are no class folders, and the class is taken from the files' names.
    """

    root: Path
    pictures: tuple[Picture, ...]
    folders: dict[str, tuple[str, ...]]
    ignored: tuple[str, ...]
    named: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the class folders, sorted."""
        return tuple(sorted({name for names in self.folders.values() for name in names}))

    def problems(self, readable: set[str]) -> Iterator[str]:
        """Say what keeps the folder from being a data set.

        Args:
            readable: The ids of the pictures that could be read.
        """
        if len(self.classes) == 1 and not self.named:
            inner = self.root / self.classes[0]
            deeper = any(p.path.parent != inner for p in self.pictures)
            cure = f"did you mean {printable(inner)}?" if deeper else "add a folder for each other class"
            yield f'{printable(self.root)} has only one class, "{self.classes[0]}"; {cure}'
        for part, names in self.folders.items():
            missing = sorted(set(self.classes) - set(names))
            if missing:
                yield (
                    f"{printable(self.root)}: {part}/ has no folder for {', '.join(missing)}, "
                    "which another part has; all parts need the same classes"
                )
            full = {p.label for p in self.pictures if p.part == part and p.id in readable}
            empty = sorted(set(names) - full)
            if empty:
                where = f"{part}/: " if len(self.folders) > 1 else ""
                more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
                listed = ", ".join(empty[:5]) + more
                yield (
                    f"{printable(self.root)}: {where}no readable image for {listed}; "
                    "put images there or remove the folder"
                )


def scan(path: str | Path, classes: Sequence[str] = ()) -> Listing:
    """Return what lies in a folder of class folders, without opening any file.

    Hidden files and folders do not count. A class folder may have folders inside; a loop of links ends.

    Args:
        path: The folder.
        classes: If given, the folder may hold pictures alone, whose names begin with their class: 7.png, 7-b.jpg.

    Raises:
        DataError: Where there is no folder, or no class folder in it.
    """
    root = Path(os.path.expanduser(path))
    if not root.is_dir():
        raise DataError(f"{printable(root)} is {'not a folder' if root.exists() else 'not there'}; check the path")
    names, files = _entries(root)
    parts = {name: PARTS[name.lower()] for name in names if name.lower() in PARTS}
    if parts:
        _check_parts(root, names, parts)
    elif not names and (named := _by_name(root, files, classes)):
        return named
    elif not names:
        _refuse(root, files)
    order = sorted(parts, key=lambda name: ("train", "val", "test").index(parts[name])) if parts else [""]
    ignored = list(files)
    pictures: list[Picture] = []
    folders: dict[str, tuple[str, ...]] = {}
    for name in order:
        part = parts.get(name, "train")
        classes, loose = _entries(root / name)
        ignored += [f"{name}/{file}" for file in loose] if name else []
        folders[part] = tuple(printable(c) for c in classes)
        above = frozenset({_here(root), _here(root / name)})
        for label in classes:
            for file in sorted(walk(root / name / label, above)):
                identity = printable(file.relative_to(root))
                if file.suffix.lower() in SUFFIXES:
                    pictures.append(Picture(identity, file, part, printable(label)))
                else:
                    ignored.append(identity)
    return Listing(root, tuple(pictures), folders, tuple(printable(file) for file in ignored))


def _by_name(root: Path, files: list[str], classes: Sequence[str]) -> Listing | None:
    """Return pictures whose names begin with their class; None if there are none, or one of them does not."""
    pictures = []
    for file in (file for file in files if Path(file).suffix.lower() in SUFFIXES):
        stem = printable(Path(file).stem)
        label = max(
            (c for c in classes if stem.startswith(c) and not stem[len(c) :][:1].isalnum()), key=len, default=""
        )
        if not label:
            return None
        pictures.append(Picture(printable(file), root / file, "train", label))
    found = tuple(sorted({picture.label for picture in pictures}))
    others = tuple(printable(file) for file in files if Path(file).suffix.lower() not in SUFFIXES)
    return Listing(root, tuple(pictures), {"train": found}, others, named=True) if pictures else None


def _check_parts(root: Path, names: list[str], parts: dict[str, str]) -> None:
    others = [name for name in names if name not in parts]
    if others:
        raise DataError(
            f"{printable(root)} has {', '.join(parts)} beside {', '.join(map(printable, others[:5]))}; "
            "it must hold either class folders only or train/, val/ and test/ only"
        )
    if len(set(parts.values())) < len(parts) or "train" not in parts.values():
        raise DataError(f"{printable(root)} has {', '.join(parts)}; expected one train/, and val/ or test/ beside it")
    for name in parts:
        classes, files = _entries(root / name)
        if not classes:
            _refuse(root / name, files)


def _refuse(folder: Path, files: list[str]) -> None:
    """Raise the error for a folder without folders."""
    pictures = [file for file in files if Path(file).suffix.lower() in SUFFIXES]
    if pictures:
        raise DataError(
            f"{printable(folder)} holds images, but no class folders; put the images of each class into "
            f"a folder with its name, as in {printable(folder / 'cat' / pictures[0])}"
        )
    what = "no images and no class folders" if files else "nothing"
    raise DataError(f"{printable(folder)} holds {what}; expected one folder of images for each class")


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in a folder, sorted, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            seen = sorted((e.name, e.is_dir()) for e in entries if e.name[0] != "." and e.name != "__MACOSX")
    except OSError as error:
        raise DataError(f"cannot read the folder {printable(folder)}: {error.strerror}") from None
    return [name for name, is_folder in seen if is_folder], [name for name, is_folder in seen if not is_folder]


def _here(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise DataError(f"cannot read the folder {printable(folder)}: {error.strerror}") from None
    return status.st_dev, status.st_ino


def walk(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Yield the files below a folder, hidden ones left out.

    Args:
        folder: Where to look.
        above: Folders, as _here names them, that are open already; a link to one of them is not followed.
    """
    here = _here(folder)
    if here in above:
        return
    if len(above) > _DEPTH:
        raise DataError(f"{one_line(printable(folder))} lies more than {_DEPTH} folders deep; move the images up")
    folders, files = _entries(folder)
    yield from (folder / name for name in files)
    for name in folders:
        yield from walk(folder / name, above | {here})
