"""Folders of pictures, a small known set, and a server that also lies."""

from __future__ import annotations

import gzip
import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from made import idx_files, picture
from pellucid.data.registry import KNOWN, DataFile, KnownSet


@pytest.fixture
def photos(tmp_path):
    """A flat folder of two classes with ten pictures each."""
    root = tmp_path / "photos"
    for k, name in enumerate(("cat", "dog")):
        for i in range(10):
            picture(root / name / f"{i:02}.png", 100 * k + i)
    return root


@pytest.fixture
def parted(tmp_path):
    """A folder with train, val and test of two classes."""
    root = tmp_path / "parted"
    for p, (part, n) in enumerate((("train", 4), ("val", 2), ("test", 3))):
        for k, name in enumerate(("cat", "dog")):
            for i in range(n):
                picture(root / part / name / f"{i}.png", 1000 * p + 100 * k + i)
    return root


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty user's cache, and no other place for data."""
    folder = tmp_path / "cache"
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *args, **kwargs: folder)
    monkeypatch.delenv("PELLUCID_DATA", raising=False)
    return folder


@pytest.fixture
def tiny(cache, monkeypatch):
    """A known set "tiny" of four small IDX files; returns their contents."""
    files = idx_files()
    entries = tuple(
        DataFile(name, len(data), hashlib.sha256(data).hexdigest(), f"{name}.gz") for name, data in files.items()
    )
    known = KnownSet("tiny", "noise", 60, (1, 6, 6), ("even", "odd"), entries, ("http://127.0.0.1:9/nothing/",))
    monkeypatch.setitem(KNOWN, "tiny", known)
    return files


@dataclass
class Server:
    """What the server answers: (status, body, Content-Length or None for none) by path, and what it was asked."""

    url: str
    answers: dict[str, tuple[int, bytes, int | None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def serve(self, name: str, body: bytes, *, status: int = 200, length: int | None = -1) -> None:
        self.answers[f"/{name}"] = (status, body, len(body) if length == -1 else length)

    def serve_all(self, files: dict[str, bytes]) -> None:
        for name, data in files.items():
            self.serve(f"{name}.gz", gzip.compress(data))


@pytest.fixture
def server():
    state = Server("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.asked.append(self.path)
            status, body, length = state.answers.get(self.path, (404, b"", 0))
            self.send_response(status)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                state.asked.append("hung up")

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    state.url = f"http://127.0.0.1:{http.server_port}/"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    thread.join()
    http.server_close()
