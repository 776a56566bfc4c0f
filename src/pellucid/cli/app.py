"""The typer application, and how a command ends: exit codes and errors in one line."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from contextlib import suppress
from types import FrameType

import typer

from pellucid.errors import PellucidError

EPILOG = """[bold]Examples[/bold]

pellucid train digits --out runs/first

pellucid evaluate runs/first digits

pellucid predict runs/first photo.png

pellucid COMMAND --help says more.
"""

app = typer.Typer(
    name="pellucid",
    help="Convolutional networks for images that one can see through.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def shown(text: str) -> str:
    """Return a text without what would move the cursor or split the line: control characters are spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def fail(message: object) -> None:
    """Write an error as one line to stderr."""
    print("error: " + shown(" ".join(str(message).split())), file=sys.stderr)


def _version(show: bool) -> None:
    if show:
        from pellucid import __version__

        print(f"pellucid {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> None:
    """Run the command line; cli.main, around it, answers Ctrl-C.

    Exit codes: 0 done; 1 an error that the user can act on, in one line on stderr; 2 the shape of the command line;
    130 and 143 interrupted.
    """
    # A class name or path that the terminal cannot show is no reason to fail.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _terminated)
    try:
        # In the order of --help.
        for command in ("train", "evaluate", "predict", "explain", "summary", "filter", "export", "data", "bench"):
            importlib.import_module(f"pellucid.cli.{command}")
        try:
            app(prog_name="pellucid")
        finally:
            sys.stdout.flush()
    except PellucidError as error:
        fail(error)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read our output is gone; keep Python from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MemoryError:
        fail("there is not enough memory; use a smaller network, smaller images or a smaller batch")
        sys.exit(1)
    except OSError as error:
        fail(f"{error.filename or 'the system'}: {error.strerror or error}")
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
