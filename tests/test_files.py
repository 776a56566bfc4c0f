"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import nullcontext

import pytest

from pellucid import files
from pellucid.errors import FileError
from pellucid.files import is_temporary, make_folder, read_bytes, sweep, write_atomic

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
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (calls.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"), fsync(fd))
    )
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    write_atomic(tmp_path / "a", b"x")
    assert calls == ["file", "rename", "folder"]


def test_a_system_that_writes_a_little_at_a_time(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, content: write(fd, content[:3]))
    write_atomic(tmp_path / "a", b"0123456789")
    assert read_bytes(tmp_path / "a") == b"0123456789"


def test_a_file_that_holds_it_already_is_left_alone(tmp_path):
    path = tmp_path / "a"
    write_atomic(path, b"same")
    os.utime(path, ns=(1, 1))
    write_atomic(path, b"same")
    assert path.stat().st_mtime_ns == 1
    write_atomic(path, b"size")
    assert read_bytes(path) == b"size"


@pytest.mark.skipif(os.name != "posix", reason="only POSIX systems sync folders")
def test_a_file_that_holds_it_already_reaches_the_disk_all_the_same(tmp_path, monkeypatch):
    fsync, synced, broken = os.fsync, [], True

    def watched(fd):
        if broken and stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        synced.append(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    path = tmp_path / "a"
    for _ in range(2):  # the file is there after the first time, but its name may not last
        with pytest.raises(FileError, match="Input/output error"):
            write_atomic(path, b"new")
    assert read_bytes(path) == b"new"
    broken = False
    synced.clear()
    write_atomic(path, b"new")
    assert synced == [path.stat().st_ino, tmp_path.stat().st_ino]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a pipe with a name")
def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(FileError, match=f"cannot write .*{name}: it is not a regular file"):
            write_atomic(tmp_path / name, b"x")
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path) == ["link", "pipe"]


def test_a_link_is_replaced_and_its_target_stays(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    for name, target in (("link", "target"), ("broken", "nowhere"), ("elsewhere", "folder")):
        (tmp_path / name).symlink_to(target)
    for name in ("link", "broken"):
        write_atomic(tmp_path / name, b"new")
        assert not (tmp_path / name).is_symlink()
        assert read_bytes(tmp_path / name) == b"new"
    with pytest.raises(FileError, match=r"cannot write .*elsewhere: it is a folder"):
        write_atomic(tmp_path / "elsewhere", b"new")
    assert read_bytes(tmp_path / "target") == b"old"
    assert names(tmp_path) == ["broken", "elsewhere", "folder", "link", "target"]


def boom(*args, **kwargs):
    raise OSError(28, "No space left on device")


def silent(*args, **kwargs):
    raise OSError("the cable is out")


@pytest.mark.parametrize(("error", "words"), [(boom, "No space left on device"), (silent, "the cable is out")])
@pytest.mark.parametrize("target", ["open", "fsync", "replace", "write"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, target, error, words):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, target, error)
    with pytest.raises(FileError, match=f"cannot write .*a: {words}"):
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_disk_that_does_not_even_remove(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", boom)
    monkeypatch.setattr(files.Path, "unlink", silent)
    with pytest.raises(FileError, match=r"cannot write .*a: No space left on device"):
        write_atomic(tmp_path / "a", b"new")


@pytest.mark.skipif(os.name != "posix", reason="only POSIX systems sync folders")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EIO])
def test_only_what_a_folder_cannot_offer_is_forgiven(tmp_path, monkeypatch, number):
    fsync = os.fsync

    def refuse(fd):
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(FileError, match="Input/output error") if number == errno.EIO else nullcontext():
        write_atomic(tmp_path / "a", b"new")
    assert read_bytes(tmp_path / "a") == b"new"


def test_an_interrupt_leaves_nothing_either(tmp_path, monkeypatch):
    def interrupt(fd):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a", b"new")
    assert names(tmp_path) == []


def test_leftovers_are_told_by_their_names_and_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", boom)
    monkeypatch.setattr(files.Path, "unlink", silent)
    with pytest.raises(FileError):
        write_atomic(tmp_path / "last.ckpt", b"new")
    monkeypatch.undo()
    (left,) = tmp_path.iterdir()
    assert is_temporary(left)
    for name in ("a", ".a.tmp", ".a.0123abcd", "a.0123abcd.tmp", ".a.0123ABCD.tmp", ".a.0123abcd.tmp.txt"):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert len(names(tmp_path)) == 6
    assert left.name not in names(tmp_path)
    (tmp_path / ".b.0123abcd.tmp").mkdir()
    with pytest.raises(FileError, match=f"cannot clear up {tmp_path}: "):
        sweep(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="only POSIX systems sync folders")
def test_new_folders_reach_the_disk(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.stat(fd).st_ino), fsync(fd)))
    make_folder(tmp_path / "a" / "b")
    assert sorted(synced) == sorted(folder.stat().st_ino for folder in (tmp_path, tmp_path / "a"))
    make_folder(tmp_path / "a" / "b")
    assert len(synced) == 2
    monkeypatch.setattr(os, "fsync", boom)
    with pytest.raises(FileError, match=r"cannot make the folder .*c: No space left on device"):
        make_folder(tmp_path / "c")


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=r"cannot write .*gone.a: No such file or directory"):
        write_atomic(tmp_path / "gone" / "a", b"x")
    with pytest.raises(FileError, match=r"cannot write .*file.a: Not a directory"):
        write_atomic(tmp_path / "file" / "a", b"x")
    with pytest.raises(FileError, match=r"cannot write .*folder: it is a folder; add a file name"):
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
