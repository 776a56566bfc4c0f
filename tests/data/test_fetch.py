"""Fetching from a local server, honest and lying, and from files at hand."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from made import idx_bytes, idx_files
from pellucid.data import fetching
from pellucid.data.fetching import fetch
from pellucid.data.idx import TEST, TRAIN
from pellucid.data.known import load_known
from pellucid.errors import DataError, FileError, OptionError

pytestmark = pytest.mark.capability("E3")

FIRST = f"{TRAIN[0]}.gz"
CURE = "With the files at hand: pellucid data fetch tiny --from DIR"


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_an_honest_server(tiny, cache, server):
    server.serve_all(tiny)
    seen = []
    folder = fetch("tiny", base_url=server.url, progress=lambda done, total: seen.append((done, total)))
    assert folder == cache / "tiny"
    assert names(folder) == sorted(f"{name}.gz" for name in tiny)
    assert seen[-1][0] == seen[-1][1] > 0
    assert len(load_known("tiny")) == 60
    asked = len(server.asked)
    fetch("tiny", base_url=server.url)
    assert len(server.asked) == asked


def test_a_server_that_sends_the_files_unpacked(tiny, cache, server):
    for name, data in tiny.items():
        server.serve(f"{name}.gz", data, length=None)
    assert names(fetch("tiny", base_url=server.url)) == sorted(tiny)
    assert len(load_known("tiny")) == 60


def test_a_fetch_that_broke_off_goes_on(tiny, cache, server):
    server.serve_all({name: tiny[name] for name in TRAIN})
    with pytest.raises(FileError, match="404"):
        fetch("tiny", base_url=server.url)
    server.serve_all(tiny)
    server.asked.clear()
    fetch("tiny", base_url=server.url)
    assert server.asked == [f"/{name}.gz" for name in TEST]


LIES = {
    "wrong bytes": (
        lambda s, good: s.serve(FIRST, gzip.compress(good[:-1] + b"?")),
        "is not the published train-images-idx3-ubyte: the SHA-256 of its content begins with",
    ),
    "another file": (
        lambda s, good: s.serve(FIRST, b"<html>Welcome to our proxy</html>"),
        "1456 bytes expected, 33 bytes",
    ),
    "truncated": (
        lambda s, good: s.serve(FIRST, gzip.compress(good)[:500], length=len(gzip.compress(good))),
        "broke off before its .* bytes had come",
    ),
    "truncated and silent about it": (
        lambda s, good: s.serve(FIRST, gzip.compress(good)[:500], length=None),
        r"is a damaged gzip file \(it ends too early\)",
    ),
    "not there": (lambda s, good: s.serve(FIRST, b"no", status=404), "the server answers 404 Not Found"),
    "broken server": (lambda s, good: s.serve(FIRST, b"", status=500), "the server answers 500"),
    "too long": (lambda s, good: s.serve(FIRST, bytes(30_000_000), length=None), "sends more than the 66992 bytes"),
    "a bomb": (lambda s, good: s.serve(FIRST, gzip.compress(bytes(30_000_000))), "1456 bytes expected, more came"),
    "nothing": (lambda s, good: s.serve(FIRST, b""), "1456 bytes expected, 0 bytes came"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_server(tiny, cache, server, lie):
    server.serve_all(tiny)
    tell, message = LIES[lie]
    tell(server, tiny[TRAIN[0]])
    with pytest.raises(FileError, match=message) as caught:
        fetch("tiny", base_url=server.url)
    text = str(caught.value)
    assert server.url + FIRST in text
    assert CURE in text
    assert "\n" not in text
    assert names(cache) in ([], ["tiny"])


def test_no_network(tiny, cache):
    with pytest.raises(
        FileError, match=r"http://127.0.0.1:9/nothing/train-images-idx3-ubyte.gz: no connection. With the"
    ):
        fetch("tiny")
    with pytest.raises(FileError, match="no connection"):
        load_known("tiny")


def test_a_server_that_does_not_answer(tiny, cache, monkeypatch):
    import socket

    monkeypatch.setattr(fetching, "TIMEOUT", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        with pytest.raises(FileError, match=r"no answer within 0\.2 seconds"):
            fetch("tiny", base_url=f"http://127.0.0.1:{port}/")


def test_the_next_mirror_is_tried(tiny, cache, server, monkeypatch):
    from dataclasses import replace

    from pellucid.data.registry import KNOWN

    server.serve_all(tiny)
    mirrors = ("http://127.0.0.1:9/", server.url)
    monkeypatch.setitem(KNOWN, "tiny", replace(KNOWN["tiny"], mirrors=mirrors))
    notes = []
    assert len(load_known("tiny", notes=notes.append)) == 60
    assert notes == ["tiny is not on this machine; fetching it from http://127.0.0.1:9/"]


def test_a_damaged_file_in_the_cache_is_fetched_again(tiny, cache, server):
    server.serve_all(tiny)
    fetch("tiny", base_url=server.url)
    (cache / "tiny" / FIRST).write_bytes(b"damaged")
    fetch("tiny", base_url=server.url)
    assert len(load_known("tiny")) == 60


class TestFrom:
    @pytest.mark.parametrize("inner", [".", "MNIST/raw", "a/b/c/d/e"])
    @pytest.mark.parametrize(("pack", "end"), [(bytes, ""), (gzip.compress, ".gz")])
    def test_files_at_hand(self, tiny, cache, tmp_path, inner, pack, end):
        have = tmp_path / "have" / inner
        have.mkdir(parents=True)
        for name, data in tiny.items():
            (have / (name + end)).write_bytes(pack(data))
        assert names(fetch("tiny", from_dir=tmp_path / "have")) == sorted(name + end for name in tiny)
        assert len(load_known("tiny")) == 60

    def test_the_content_chooses_among_files_of_the_same_name(self, tiny, cache, tmp_path):
        # As in torchvision's folder: FashionMNIST/raw and MNIST/raw.
        for folder, files in (("FashionMNIST", idx_files(classes=3, size=5)), ("MNIST", tiny)):
            raw = tmp_path / "have" / folder / "raw"
            raw.mkdir(parents=True)
            for name, data in files.items():
                (raw / name).write_bytes(data)
        fetch("tiny", from_dir=str(tmp_path / "have"))
        assert load_known("tiny").shape == (1, 6, 6)

    def test_files_that_are_missing_or_wrong(self, tiny, cache, tmp_path):
        have = tmp_path / "have"
        with pytest.raises(DataError, match="have is not there; check --from"):
            fetch("tiny", from_dir=have)
        have.mkdir()
        with pytest.raises(DataError, match=r"cannot take tiny from .*: no file train-images-idx3-ubyte in"):
            fetch("tiny", from_dir=have)
        (have / TRAIN[0]).write_bytes(idx_bytes(np.zeros((40, 6, 6), np.uint8)))
        with pytest.raises(DataError, match="have/train-images-idx3-ubyte is not the published"):
            fetch("tiny", from_dir=have)
        assert names(cache) in ([], ["tiny"])

    def test_a_cache_that_cannot_be_written(self, tiny, tmp_path, cache):
        cache.write_text("a file, not a folder")
        (tmp_path / "have").mkdir()
        for name, data in tiny.items():
            (tmp_path / "have" / name).write_bytes(data)
        with pytest.raises(FileError, match=r"cannot bring .* to .*cache"):
            fetch("tiny", from_dir=tmp_path / "have")


def test_the_user_s_mask_gives_the_permissions(tiny, cache, server):
    import os
    import stat

    server.serve_all(tiny)
    old = os.umask(0o027)
    try:
        folder = fetch("tiny", base_url=server.url)
    finally:
        os.umask(old)
    assert stat.S_IMODE((folder / FIRST).stat().st_mode) == 0o640


def test_an_unknown_name():
    with pytest.raises(OptionError, match='unknown data set "mnits"; did you mean "mnist"'):
        fetch("mnits")


def test_real_files(real_data, tmp_path, monkeypatch):
    monkeypatch.delenv("PELLUCID_DATA")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *args, **kwargs: tmp_path)
    assert fetch("mnist", from_dir=real_data) == tmp_path / "mnist"
    assert len(load_known("mnist")) == 70_000


def test_a_folder_that_is_not_there_is_named_even_where_the_set_is_here(tmp_path):
    with pytest.raises(DataError, match="nowhere is not there; check --from"):
        fetch("digits", from_dir=tmp_path / "nowhere")
