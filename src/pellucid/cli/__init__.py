"""The command line: one file a command, all of them small next to the library they call."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; Ctrl-C ends it with exit code 130 and no word, while its modules are imported too."""
    try:
        from pellucid.cli.app import main as run

        run()
    except (Exception, KeyboardInterrupt) as error:
        if not _is_interrupt(error):
            raise
        sys.exit(130)


def _is_interrupt(error: BaseException | None) -> bool:
    """Return whether Ctrl-C is behind an error: what an import interrupts may raise another (as __set_name__ does)."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
