"""Files are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from pellucid.errors import FileError


def write_atomic(path: str | Path, content: bytes) -> None:
    """Write a file so that at any moment either the old or the new content stands there.

    Temporary file in the same folder, fsync, rename, fsync of the folder; permissions by umask.

    Args:
        path: Where to.
        content: The bytes.

    Raises:
        FileError: With path and reason, where it cannot be written; nothing is left behind.
    """
    path = Path(path)
    if not path.name:
        raise FileError(f"cannot write {path}: it is a folder; add a file name")
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise FileError(f"cannot write {path}: {error.strerror or error}") from error
        raise


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    with suppress(OSError):  # the file is in its place; some file systems cannot do more
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
