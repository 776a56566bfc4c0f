"""pellucid bench: how fast this machine trains and predicts, beside the frameworks that are installed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.app import app
from pellucid.cli.common import progress_bar, say

EPILOG = """[bold]Workloads[/bold]

Training: W2, W4, W1, R8, W3, W0. Prediction: W2-1, W2-1000, W4-1, W4-1000.

[bold]Examples[/bold]

pellucid bench

pellucid bench W2 W4-1 --json

pellucid bench W2 --profile

pellucid bench --peers .peers --rounds 9
"""


@app.command(epilog=EPILOG)
def bench(
    workload: Annotated[list[str] | None, typer.Argument(metavar="[WORKLOAD]...", help="All if none is named.")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Show where pellucid's time goes instead.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="How often each takes a turn.")] = 5,
    peers: Annotated[Path | None, typer.Option(help="Folder with an environment for each peer (.peers).")] = None,
    instructions: Annotated[str, typer.Option(help="native, or avx2 to hold all to that.")] = "native",
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Measure training and prediction of small networks, and the peers beside it.

    PyTorch, Keras on TensorFlow, JAX and ONNX Runtime take part where they are
    installed: beside pellucid, or each in an environment of its own below the
    folder of --peers, named torch, keras, jax, onnxruntime. All take turns, in
    processes of their own. Without names, memory and whole commands are
    measured too. docs/benchmarks.md says how, and what came out elsewhere.
    """
    from pellucid.benchmark.contestants import INSTRUCTIONS
    from pellucid.benchmark.measure import Settings, run
    from pellucid.benchmark.text import report
    from pellucid.benchmark.workloads import WORKLOADS
    from pellucid.errors import OptionError, unknown

    for name in workload or ():
        if name not in WORKLOADS:
            raise unknown("workload", name, WORKLOADS)
    if instructions not in INSTRUCTIONS:
        raise unknown("instructions", instructions, INSTRUCTIONS)
    if peers is not None and not peers.is_dir():
        raise OptionError(f"--peers must be a folder of environments named torch, keras, ..., got {peers}")
    names = tuple(dict.fromkeys(workload or WORKLOADS))
    if profile:
        if instructions != "native":
            raise OptionError("--profile shows this process; set NUMBA_CPU_NAME to imitate another CPU")
        _profiles(names, json_)
        return
    settings = Settings(
        names,
        peers or Path(".peers"),
        rounds,
        memory=not workload,
        startup=0 if workload else 1,
        instructions=instructions,
    )
    with progress_bar("measuring") as progress:
        result = run(settings, progress)
    say(json.dumps(result, allow_nan=False) if json_ else report(result))


def _profiles(names: tuple[str, ...], as_json: bool) -> None:
    from pellucid.benchmark.workloads import WORKLOADS
    from pellucid.compiled.profile import profile

    found = {}
    for name in names:
        work = WORKLOADS[name]
        found[name] = profile(work.network(), work.optimizer, work.batch)
        if not as_json:
            say(f"{name}: {work.title}\n{found[name]}\n")
    if as_json:
        say(json.dumps({name: dataclasses.asdict(made) for name, made in found.items()}, allow_nan=False))
