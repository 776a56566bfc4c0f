"""A process that loads every hostile file under an audit hook: python watched.py FOLDER; prints what happened as JSON.

It goes through all files twice: once to get imports done, once with every event recorded.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pellucid as pl

FORBIDDEN = ("exec", "compile", "import", "subprocess", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork")
FORBIDDEN += ("pickle", "marshal", "ctypes", "socket", "shutil", "os.remove", "os.rename", "os.mkdir", "code.__new__")


def attempts(folder: Path) -> dict[str, tuple[Callable[[], object], str]]:
    """Make every hostile file; return by name how to load it, and what the refusal says."""
    models, data = folder / "models", folder / "data"
    models.mkdir()
    hostile.model().save(folder / "good")
    good = (folder / "good").read_bytes()
    calls: dict[str, tuple[Callable[[], object], str]] = {}
    for number, (name, (make, says)) in enumerate(hostile.MODELS.items()):
        path = models / f"{number}.safetensors"
        path.write_bytes(make(good))
        calls[f"model: {name}"] = (lambda path=path: pl.load(path)), says
    for number, (name, (_, says)) in enumerate(hostile.DATA.items()):
        (data / str(number)).mkdir(parents=True)
        source = hostile.data_source(name, data / str(number))
        calls[name] = (lambda source=source: pl.data.load(source)), says
    return calls


def outcome(call: Callable[[], object], says: str) -> str:
    """Say how an attempt ended: "refused", or what should not be."""
    try:
        call()
    except pl.PellucidError as error:
        message = str(error)
        if "\n" in message or len(message) > 2000:
            return f"not one line: {message!r:.200}"
        if not any(part in message for part in says.split("|")):
            return f"other words: {message!r:.300}"
        return "refused"
    except BaseException:
        return f"traceback: {traceback.format_exc()[-500:]}"
    return "loaded silently"


def main() -> None:
    """Load all, twice."""
    folder = Path(sys.argv[1]).resolve()
    calls = attempts(folder)
    for call, says in calls.values():
        outcome(call, says)
    events: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching:
            return
        if event == "open":
            path, _, flags = arguments
            inside = isinstance(path, str) and (os.path.abspath(path).startswith(str(folder)) or path == "/dev/zero")
            if not inside or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                events.append(f"open {path!r} {flags}")
        elif event.startswith(FORBIDDEN):
            events.append(f"{event} {arguments!r:.200}")

    sys.addaudithook(hook)
    outcomes = {name: outcome(call, says) for name, (call, says) in calls.items()}
    seen, canary = list(events), Path(os.environ[hostile.CANARY])
    ran = canary.exists()
    pickle.loads(pickle.dumps(hostile.Trap()))  # what would have been seen
    caught = sorted({event.split()[0] for event in events[len(seen) :]})
    watching = False
    result = {"outcomes": outcomes, "events": seen, "code_ran": ran, "caught": caught, "canary_works": canary.exists()}
    sys.stdout.write(json.dumps({"optimized": sys.flags.optimize, **result}))


if __name__ == "__main__":
    main()
