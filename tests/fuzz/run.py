"""Fuzz the parsers for a while: python tests/fuzz/run.py [--seconds N] [--seed N] [TARGET ...].

With atheris (Linux) its coverage leads the search; without it good inputs are changed at random. An input out of which
something else came than a PellucidError is written to crash-TARGET, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import traceback
import warnings
from importlib.util import find_spec
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def search(name: str, seconds: float, seed: int) -> int:
    """Change good inputs at random; return how many were tried."""
    from fuzz.targets import TARGETS, attempt

    target, random = TARGETS[name], Random(f"{seed} {name}")
    seeds, end, tried = target.seeds(), time.monotonic() + seconds, 0
    kept = list(seeds)
    with TemporaryDirectory() as folder:
        while time.monotonic() < end:
            data = target.mutate(random.choice(kept), random)
            try:
                taken = attempt(name, data, Path(folder)) == "taken"
            except Exception:
                Path(f"crash-{name.replace(' ', '-')}").write_bytes(data)
                raise
            if taken and len(kept) < 200:
                kept.append(data)
            tried += 1
    return tried


def lead(name: str, seconds: float, seed: int) -> None:
    """Let atheris search; it ends the process."""
    import atheris

    with atheris.instrument_imports(include=["pellucid", "zipfile", "gzip"]):
        from fuzz.targets import TARGETS, attempt

    folder = TemporaryDirectory()
    corpus = Path(folder.name) / "corpus"
    corpus.mkdir()
    for number, data in enumerate(TARGETS[name].seeds()):
        (corpus / str(number)).write_bytes(data)
    (Path(folder.name) / "work").mkdir()
    options = [f"-max_total_time={seconds:.0f}", f"-seed={seed + 1}", "-rss_limit_mb=4096", "-timeout=20"]
    options += [f"-artifact_prefix=crash-{name.replace(' ', '-')}-", "-print_final_stats=1"]

    def once(data: bytes) -> None:
        attempt(name, data, Path(folder.name) / "work")

    def change(data: bytes, size: int, number: int) -> bytes:
        try:
            return TARGETS[name].mutate(data, Random(number))[:size]
        except (ValueError, IndexError):  # not a document any more
            return atheris.Mutate(data, size)

    atheris.Setup([sys.argv[0], *options, str(corpus)], once, custom_mutator=change)
    atheris.Fuzz()


def main() -> None:
    """Fuzz each target, atheris in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all if none is named")
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--led", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    warnings.simplefilter("error")
    if asked.led:  # before anything of pellucid is imported, so that atheris sees it
        lead(asked.targets[0], asked.seconds, asked.seed)
    from fuzz.targets import TARGETS

    if unknown := set(asked.targets) - set(TARGETS):
        parser.error(f"unknown target {sorted(unknown)[0]}; known: {', '.join(TARGETS)}")
    failed = []
    for name in asked.targets or TARGETS:
        try:
            if find_spec("atheris"):
                times = ["--seconds", str(asked.seconds), "--seed", str(asked.seed)]
                subprocess.run([sys.executable, __file__, "--led", *times, name], check=True)
            else:
                tried = search(name, asked.seconds, asked.seed)
                sys.stdout.write(f"{name}: {tried} inputs, nothing found\n")
                sys.stdout.flush()
        except Exception:
            traceback.print_exc()
            failed.append(name)
    if failed:
        sys.exit(f"something else than a PellucidError came out of: {', '.join(failed)}")


if __name__ == "__main__":
    main()
