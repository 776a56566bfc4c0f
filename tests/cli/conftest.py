"""The command line within this process, and a small trained run."""

from __future__ import annotations

import signal
import sys
from typing import NamedTuple

import pytest

from made import without_compiling
from pellucid.cli import main


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch, capsys):
    """A function that runs `pellucid WORDS...` as a shell would: exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("PELLUCID_DATA", raising=False)

    def run(*words: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["pellucid", *map(str, words)])
        handler = signal.getsignal(signal.SIGTERM)
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            signal.signal(signal.SIGTERM, handler)
        out, err = capsys.readouterr()
        return Result(code, out, without_compiling(err))

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The directory of a run on 400 digits that learned something."""
    from typer.testing import CliRunner

    from pellucid.cli.app import app

    import pellucid.cli.train  # noqa: F401  isort: skip

    out = tmp_path_factory.mktemp("runs") / "digits"
    words = ["train", "digits", "--subset", "400", "--epochs", "4", "--batch-size", "16", "--out", str(out)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return out
