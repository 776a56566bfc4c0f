"""Bringing known sets onto this machine: by download, or from files that one already has.

A file is written beside its place, proven to be the published one, and only then renamed: a bad file never stays.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

from pellucid.data import cifar
from pellucid.data.folder import Progress
from pellucid.data.idx import GZIP, find_idx
from pellucid.data.registry import DataFile, KnownSet, cache_folder, content, get, locate, missing_package
from pellucid.errors import DataError, FileError, PellucidError

TIMEOUT = (10, 30)
"""Seconds to connect, and between two pieces of an answer."""
_DEPTH = 5
# gzip never makes a file much larger than its content.
_SLACK = 1 << 16


def fetch(
    name: str,
    *,
    from_dir: str | Path | None = None,
    progress: Progress | None = None,
    base_url: str | None = None,
) -> Path:
    """Bring a known set onto this machine and return the folder that holds it.

    Nothing is done for files that are here and sound; so a fetch that broke off goes on with the next file.

    Args:
        name: Of the known set.
        from_dir: Copy the files from this folder, or from folders in it (torchvision's layout too), instead of
            downloading them. They are known by their content.
        progress: Called with bytes done and bytes in all, file by file.
        base_url: Address of a folder to download from instead of the known mirrors.

    Raises:
        FileError: Where no mirror gives the right file.
        DataError: Where from_dir does not hold the files, or files that are here are damaged.
        MissingDependencyError: For a set that comes with a package that is not installed.
    """
    known = get(name)
    if from_dir is not None and not Path(os.path.expanduser(from_dir)).is_dir():
        raise DataError(f"{from_dir} is {'not a folder' if Path(from_dir).exists() else 'not there'}; check --from")
    here = locate(known)
    if known.package and (from_dir is None or not known.files):
        if here is None:
            raise missing_package(known)
        return here[0].parent
    cache = cache_folder(name)
    if here is not None and (here[0].is_dir() or cache not in here[0].parents):
        _check(known, here)
        return here[0] if here[0].is_dir() else here[0].parent
    for file in known.files:
        if _is_sound(find_idx(cache, file.name), file):
            continue
        if from_dir is None:
            _download(known, file, cache, (base_url,) if base_url else known.mirrors, progress)
        elif not _copy(known, file, cache, Path(os.path.expanduser(from_dir))):
            break
    return cache


def _check(known: KnownSet, files: tuple[Path, ...]) -> None:
    if not files[0].is_dir():
        for path, file in zip(files, known.files, strict=True):
            content(path, file, cure="; replace or delete it")


def _is_sound(path: Path | None, file: DataFile) -> bool:
    try:
        return path is not None and bool(content(path, file))
    except PellucidError:
        return False


def _place(cache: Path, file: DataFile, name: str, fill: Callable[[IO[bytes]], object]) -> None:
    """Let fill write a file, prove it, and put it into its place in the cache."""
    temporary = cache / f".{file.name}.{os.getpid()}.part"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            fill(stream)
        content(temporary, file, name)
        with temporary.open("rb") as stream:
            packed = stream.read(2) == GZIP and not file.name.endswith(".gz")
        if (old := find_idx(cache, file.name)) is not None:
            old.unlink()
        os.replace(temporary, cache / (file.name + (".gz" if packed else "")))
    except OSError as error:
        raise FileError(f"cannot bring {name} to {cache}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _copy(known: KnownSet, file: DataFile, cache: Path, source: Path) -> bool:
    """Copy one file from below a folder; False where a whole unpacked set was copied instead."""
    reasons = []
    folders = list(_folders(source, _DEPTH))
    for folder in folders:
        path = find_idx(folder, file.name)
        if path is None:
            continue
        try:
            with path.open("rb") as stream:
                _place(cache, file, str(path), partial(shutil.copyfileobj, stream))
            return True
        except DataError as error:
            reasons.append(str(error))
    if known.name == "cifar10":
        for folder in folders:
            if (unpacked := cifar.find_unpacked(folder)) is not None:
                cifar.read_unpacked(unpacked)
                cache.mkdir(parents=True, exist_ok=True)
                for name in (*cifar.TRAIN, cifar.TEST):
                    shutil.copyfile(unpacked / name, cache / f".{name}.part")
                    os.replace(cache / f".{name}.part", cache / name)
                return False
        for folder in folders:
            cifar.refuse_pickles(folder)
    why = reasons[0] if reasons else f"no file {file.name} in {source}, nor in the folders below it"
    raise DataError(f"cannot take {known.name} from {source}: {why}")


def _folders(root: Path, depth: int) -> Iterator[Path]:
    yield root
    try:
        inside = sorted(p for p in root.iterdir() if p.is_dir() and not p.is_symlink())
    except PermissionError:
        inside = []
    for inner in inside if depth else ():
        yield from _folders(inner, depth - 1)


def _download(
    known: KnownSet, file: DataFile, cache: Path, mirrors: tuple[str, ...], progress: Progress | None
) -> None:
    reasons = []
    for mirror in mirrors:
        url = mirror.rstrip("/") + "/" + file.remote
        try:
            _place(cache, file, url, partial(get_url, url, limit=file.size + _SLACK, progress=progress))
            return
        except PellucidError as error:
            reasons.append(str(error))
    raise FileError(
        f"cannot fetch {known.name}: {'; '.join(reasons)}. "
        f"With the files at hand: pellucid data fetch {known.name} --from DIR"
    )


def get_url(url: str, out: IO[bytes], limit: int, progress: Progress | None = None) -> None:
    """Write what an address holds into a stream.

    Args:
        url: The address.
        out: Where to.
        limit: A server that sends more bytes is cut off.
        progress: Called with bytes done and bytes in all.

    Raises:
        FileError: Where the server does not answer, refuses, breaks off, or sends too much.
    """
    import requests
    from pooch import HTTPDownloader

    sink = _Sink(url, out, limit, progress)
    # Without the header a server may send a .gz file decompressed, and its Content-Length would not fit.
    get = HTTPDownloader(sink, 1 << 16, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"})
    try:
        get(url, sink, None)
    except requests.HTTPError as error:
        answer = error if error.response is None else f"{error.response.status_code} {error.response.reason}"
        raise FileError(f"{url}: the server answers {answer}") from None
    except requests.Timeout:
        raise FileError(f"{url}: no answer within {TIMEOUT[1]} seconds") from None
    except requests.RequestException as error:
        if sink.done or sink.total:
            raise FileError(f"{url}: broke off before its {sink.total or 'last'} bytes had come") from None
        cause = "no connection" if isinstance(error, requests.ConnectionError) else str(error)
        raise FileError(f"{url}: {cause}") from None


class _Sink:
    """The file and the progress bar that pooch's downloader writes to."""

    def __init__(self, url: str, out: IO[bytes], limit: int, progress: Progress | None) -> None:
        self.url, self.out, self.limit, self.progress = url, out, limit, progress
        self.done = 0
        self.total = 0

    def write(self, chunk: bytes) -> None:
        self.done += len(chunk)
        if self.done > self.limit:
            raise FileError(f"{self.url}: the server sends more than the {self.limit} bytes that it should")
        self.out.write(chunk)
        if self.progress is not None:
            self.progress(self.done, self.total)

    def flush(self) -> None: ...

    def update(self, n: int) -> None: ...

    def reset(self) -> None: ...

    def close(self) -> None: ...
