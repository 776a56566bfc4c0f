"""Files are written whole or not at all."""

from __future__ import annotations

import os
import stat

import pytest

from pellucid import files
from pellucid.errors import FileError
from pellucid.files import read_bytes, write_atomic

pytestmark = pytest.mark.capability("H14", "H23")


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "a.bin"
    write_atomic(path, b"old")
    write_atomic(str(path), b"new\0\xff")
    assert read_bytes(path) == read_bytes(str(path)) == b"new\0\xff"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX systems")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "a", b"x")
        after = os.umask(umask)
    finally:
        os.umask(before)
    assert after == umask
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_file_and_folder_reach_the_disk_in_order(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, files.Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (calls.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"), fsync(fd))
    )
    monkeypatch.setattr(files.Path, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    write_atomic(tmp_path / "a", b"x")
    assert calls == ["file", "rename", "folder"]


def boom(*args, **kwargs):
    raise OSError(28, "No space left on device")


def silent(*args, **kwargs):
    raise OSError("the cable is out")


@pytest.mark.parametrize(("error", "words"), [(boom, "No space left on device"), (silent, "the cable is out")])
@pytest.mark.parametrize("target", ["fsync", "replace", "write"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, target, error, words):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    if target == "fsync":
        monkeypatch.setattr(os, "fsync", error)
    elif target == "write":
        monkeypatch.setattr(os, "fdopen", lambda fd, mode: (os.close(fd), error()))
    else:
        monkeypatch.setattr(files.Path, target, error)
    with pytest.raises(FileError, match=f"cannot write .*a: {words}"):
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_an_interrupt_leaves_nothing_either(tmp_path, monkeypatch):
    def interrupt(fd):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a", b"new")
    assert names(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=r"cannot write .*gone.a: No such file or directory"):
        write_atomic(tmp_path / "gone" / "a", b"x")
    with pytest.raises(FileError, match=r"cannot write .*file.a: Not a directory"):
        write_atomic(tmp_path / "file" / "a", b"x")
    with pytest.raises(FileError, match=r"cannot write .*folder: Is a directory"):
        write_atomic(tmp_path / "folder", b"x")
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(FileError, match=r"cannot write .*: Permission denied"):
        write_atomic(tmp_path / "locked" / "a", b"x")


def test_places_that_cannot_be_read(tmp_path):
    with pytest.raises(FileError, match=r"cannot read .*gone: No such file or directory"):
        read_bytes(tmp_path / "gone")
    with pytest.raises(FileError, match=r"cannot read .*: it is a folder"):
        read_bytes(tmp_path)


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_a_folder_is_no_file(path):
    with pytest.raises(FileError, match="it is a folder; add a file name"):
        write_atomic(path, b"x")
