"""The command line: one file a command, all of them small next to the library they call."""

from pellucid.cli.app import app, main

__all__ = ["app", "main"]
