"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from pellucid.errors import FileError

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}\.tmp")


def write_atomic(path: str | Path, content: bytes) -> None:
    """Write a file so that at any moment either the old or the new content stands there.

    Temporary file in the same folder, fsync, rename, fsync of the folder; permissions by umask. A file that holds the
    content already is only made durable. A link to a file is replaced, and what it points to stays as it is; a device
    or pipe is refused.

    Args:
        path: Where to.
        content: The bytes.

    Raises:
        FileError: With path and reason, where it cannot be written; nothing is left behind.
    """
    path = Path(path)
    _refuse_irregular(path)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        if _holds(path, content):  # maybe from a write whose fsync failed
            with path.open("rb" if os.name == "posix" else "r+b") as file:  # Windows syncs only what may be written
                os.fsync(file.fileno())
            _sync_folder(path.parent)
            return
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o666)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise FileError(f"cannot write {path}: {error.strerror or error}") from error
        raise


def _refuse_irregular(path: Path) -> None:
    """Refuse what a rename would destroy, or cannot replace."""
    mode = 0
    with suppress(OSError):
        mode = path.stat().st_mode
    if not path.name or stat.S_ISDIR(mode):
        raise FileError(f"cannot write {path}: it is a folder; add a file name")
    if mode and not stat.S_ISREG(mode):
        raise FileError(f"cannot write {path}: it is not a regular file")


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system offers that."""
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP):
            raise


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durable like a file that write_atomic writes.

    Args:
        path: Where; may exist already.

    Raises:
        FileError: With path and reason.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            _sync_folder(folder.parent)
    except OSError as error:
        raise FileError(f"cannot make the folder {path}: {error.strerror or error}") from error


def is_temporary(path: Path) -> bool:
    """Return whether a file's name is one that write_atomic uses until the file is whole.

    Args:
        path: Of the file.
    """
    return _TEMPORARY.fullmatch(path.name) is not None


def sweep(folder: Path) -> None:
    """Remove the temporary files that a killed write_atomic left.

    Args:
        folder: Where nobody writes at the moment.

    Raises:
        FileError: With path and reason.
    """
    try:
        for path in folder.iterdir():
            if is_temporary(path):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"cannot clear up {folder}: {error.strerror or error}") from error


def read_bytes(path: str | Path) -> bytes:
    """Return a file's content.

    Args:
        path: Where from.

    Raises:
        FileError: With path and reason.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise FileError(f"cannot read {path}: it is {'a folder' if Path(path).is_dir() else 'not a regular file'}")
        return Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
