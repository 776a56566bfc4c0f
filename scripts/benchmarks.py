"""Measure everything, several times, keep what was found in benchmarks/NAME.json, and write docs/benchmarks.md.

    python scripts/benchmarks.py [--instructions avx2] [--runs N] [--rounds N] [--page]

Takes about a quarter of an hour with all peers. --page only writes the page anew, from the files.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pellucid.benchmark.contestants import INSTRUCTIONS, OWN, TITLES
from pellucid.benchmark.measure import Result, Settings, run
from pellucid.benchmark.text import number, peers, thread_counts

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"
SEEDS = (0, 1, 2)

PAGE_TEXT = """\
# How fast it is

Written by `make bench` and `make bench-avx2`; do not edit. `make peers` installs the peers that they look for.

## How it is measured

- A **time** is microseconds per image: in training of a whole step (forward, loss, backward, optimizer), in
  prediction of a whole call in Python that takes a float32 array. Times depend on the machine, and on what else it
  does; only ratios within one run say something.
- **Turns.** Every contestant is a process of its own, once with one thread and once with all. In each round each takes
  a turn, while the others wait: some steps that are not counted, then about {seconds:g} s that are. Rounds: {rounds};
  tables show the best, and the median behind it. The whole is done again with new processes; runs: {runs}. A **ratio**
  is a peer's best time divided by pellucid's best time of the same run, and tables show the **least** of the runs.
- **The same work.** Network, weights, batches and optimizer are the same. The losses of the first {steps} steps
  (without dropout, which every framework draws differently) are compared first, in prediction the outputs; whoever
  differs by more than a thousandth is left out. Each turn begins with the first weights. Images are random numbers.
- **Each peer in its best way.** What a framework can do in several ways is tried in all of them, and the fastest takes
  part, for each workload and number of threads. PyTorch: contiguous or channels-last, its optimizer as it comes or
  fused, prediction in `torch.inference_mode`. Keras 3 on TensorFlow: `train_on_batch` and `predict_on_batch`, or a step
  as `tf.function`, with XLA or without. JAX: a step in plain JAX (`lax.conv_general_dilated`, channels last) that is
  compiled whole and whose buffers are donated. ONNX Runtime: `session.run` with all optimizations. At batch 1, where
  the compiled engine is given many steps in one call, TensorFlow is also tried with {many} steps in one `tf.function`,
  and JAX with {many} in one `lax.scan`.
- **Threads** are set as each framework wants it: `torch.set_num_threads`, `tf.config.threading`, the cores that JAX's
  process may use, `intra_op_num_threads` of ONNX Runtime, `threads` of pellucid's engine. With all threads pellucid
  uses as many as pay, which is its default, and at batch 1 that is one.
- **The control** is NumPy's product of two 512x512 matrices on one thread, in every round: it tells a slow machine from
  slow code, and a quiet run from a disturbed one.

{native}
{avx2}{accuracy}{paths}
## Where the time goes

`pellucid bench W2 --profile` shows each instruction of a workload: its time, its share, and which part of the
measured peak of one thread it reaches.
"""

SET_TEXT = """\
## {title}

{machine}.

Control: {control}.

Training, best (median):

{training}

How many times as fast as each peer pellucid is, each with the number of threads that suits it (both with one thread,
both with all); the least of the runs:

{training_ratios}

Prediction, best (median):

{prediction}

{prediction_ratios}

The way in which each peer was fastest with all threads:

{ways}

The loss of step {steps} of each, without dropout:

{losses}
{rest}"""

MEMORY_TEXT = """
By how many MB a process grows that has trained on two images and goes on with whole batches (and what it has then in
all, its libraries included; JAX and TensorFlow compile for the new batch, which is part of theirs):

{memory}
"""

STARTUP_TEXT = """
Whole processes in seconds, with an empty cache of compiled kernels and with a full one:

{startup}
"""

ACCURACY_TEXT = """
## Accuracy

Training lesson 2's network on MNIST, `pellucid train mnist --model lesson2 --epochs 5`, all else by default, takes
{seconds} s on {cores} cores, reading the data included; {accuracies} of the 10 000 test images are right for the
seeds {seeds}.
"""

PATHS_TEXT = """
## What each fast path gains

Microseconds per image on one thread without the path and with it (`scripts/fast_paths.py`); docs/ARCHITECTURE.md says
what decides where each is taken:

{paths}
"""

TITLES_OF_SETS = {
    "native": "With all that the CPU has",
    "avx2": "With AVX2",
}
NOTE_AVX2 = (
    "All are held to AVX2, as on a CPU without AVX-512, by the switches that they have; ONNX Runtime has none, so its "
    "figures are those of this CPU. "
)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *map(list, rows)])


def page(found: dict[str, Result]) -> str:
    """Return the page.

    Args:
        found: What the files hold, by instructions.
    """
    native = found["native"]
    first = native["runs"][0]
    return PAGE_TEXT.format(
        seconds=native["seconds"],
        rounds=native["rounds"],
        runs=len(native["runs"]),
        many=100,
        steps=len(next(iter(first["workloads"].values()))["losses"][OWN]),
        native=section(native),
        avx2="\n" + section(found["avx2"]) if "avx2" in found else "",
        accuracy=accuracy(native),
        paths=fast_paths(),
    )


def section(found: Result) -> str:
    """Return the tables of one file."""
    runs = found["runs"]
    first = runs[0]
    works = first["workloads"]
    training, prediction = ([n for n in works if works[n]["trains"] is trains] for trains in (True, False))
    control = [r["control_gflops"] for r in runs]
    at, versions = first["machine"], {k: v for r in runs for k, v in r["versions"].items()}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    note = NOTE_AVX2 if first["instructions"] == "avx2" else ""
    machine = f"{note}Measured on {at['cpu']}, {at['cores']} cores, {at['system']}, Python {at['python']}, "
    machine += f"NumPy {at['numpy']}, {listed}, float32"
    absent = [f"{TITLES[peer]} ({reason})" for peer, reason in first["absent"].items()]
    if absent:
        machine += f"; not there: {', '.join(absent)}"
    rest = ""
    if any(work["memory"] for work in works.values()):
        rest += MEMORY_TEXT.format(memory=memory(works))
    if first["startup"]:
        rows = [[row["command"], f"{row['first']:.1f}", f"{row['later']:.2f}"] for row in first["startup"]]
        rest += STARTUP_TEXT.format(startup=table(["command", "first", "later"], rows))
    dropped = [
        f"- {TITLES[peer]} is not in {name}: {reason}"
        for name, peers_ in first["dropped"].items()
        for peer, reason in peers_.items()
    ]
    if dropped:
        rest += "\n" + "\n".join(dropped) + "\n"
    return SET_TEXT.format(
        title=TITLES_OF_SETS[first["instructions"]],
        machine=machine,
        control=", ".join(f"{c['best']:.0f} GFLOP/s (median {c['median']:.0f})" for c in control),
        runs=len(runs),
        steps=len(next(iter(works.values()))["losses"][OWN]),
        training=times(runs, training),
        training_ratios=ratios(runs, training),
        prediction=times(runs, prediction),
        prediction_ratios=ratios(runs, prediction),
        ways=ways(first),
        losses=losses(works, training),
        rest=rest,
    )


def entrants(runs: list[Result], names: list[str]) -> list[str]:
    """Return the peers that are in some of the workloads."""
    return [p for p in peers(runs[0]) if any(p in runs[0]["workloads"][name]["times"] for name in names)]


def times(runs: list[Result], names: list[str]) -> str:
    """Return the table of times: best of all runs, median of the runs' medians."""
    counts, who = thread_counts(runs[0]), [OWN, *entrants(runs, names)]
    rows = []
    for name in names:
        row = [f"{name}: {runs[0]['workloads'][name]['title']}"]
        for contestant in who:
            for count in counts:
                cells = [r["workloads"][name]["times"].get(contestant, {}).get(count) for r in runs]
                known = [cell for cell in cells if cell]
                best = number(min(cell["best"] for cell in known)) if known else "-"
                row.append(f"{best} ({number(statistics.median(c['median'] for c in known))})" if known else best)
        mine = [min(r["workloads"][name]["times"][OWN][c]["best"] for r in runs) for c in counts]
        rows.append([*row, f"{mine[0] / mine[-1]:.2f}"])
    head = [f"{TITLES[w]}, {c} thread{'s' * (c != '1')}" for w in who for c in counts]
    return table(["workload", *head, "pellucid, one thread / all"], rows)


def ratios(runs: list[Result], names: list[str]) -> str:
    """Return the table of ratios, each the least of all runs."""
    counts, who = thread_counts(runs[0]), entrants(runs, names)

    def least(name: str, peer: str, key: str) -> float | None:
        found = [r["workloads"][name]["ratios"].get(peer) for r in runs]
        return None if None in found else min(one[key] for one in found if one)

    rows = []
    for name in names:
        row = [name]
        for peer in who:
            values = [least(name, peer, key) for key in ("best", *counts)]
            shown = [f"{value:.2f}" for value in values if value is not None]
            row.append(f"**{shown[0]}** ({', '.join(shown[1:])})" if shown else "-")
        rows.append(row)
    return table(["workload", *(TITLES[peer] for peer in who)], rows)


def ways(result: Result) -> str:
    """Return the table of ways."""
    count, who = thread_counts(result)[-1], [p for p in peers(result) if p != "onnxruntime"]
    rows = [
        [name, *(work["times"][p][count]["way"] if p in work["times"] else "-" for p in who)]
        for name, work in result["workloads"].items()
    ]
    return table(["workload", *(TITLES[p] for p in who)], rows)


def losses(works: Result, names: list[str]) -> str:
    """Return the table of losses."""
    who = [w for w in TITLES if any(w in works[name]["losses"] for name in names)]
    rows = [
        [name, *(f"{works[name]['losses'][w][-1]:.5f}" if w in works[name]["losses"] else "-" for w in who)]
        for name in names
    ]
    return table(["workload", *(TITLES[w] for w in who)], rows)


def memory(works: Result) -> str:
    """Return the table of memory."""
    names = [name for name, work in works.items() if work["memory"]]
    who = [w for w in TITLES if any(w in works[name]["memory"] for name in names)]
    rows = []
    for name in names:
        found = works[name]["memory"]
        cells = (f"{found[w]['growth']:.0f} ({found[w]['peak']:.0f})" if w in found else "-" for w in who)
        rows.append([name, *cells])
    return table(["workload", *(TITLES[w] for w in who)], rows)


def accuracy(found: Result) -> str:
    """Return the section on accuracy; none where there were no data."""
    rows = found["accuracy"]
    if not rows:
        return ""
    return ACCURACY_TEXT.format(
        seconds=" to ".join(dict.fromkeys(f"{f(row['seconds'] for row in rows):.0f}" for f in (min, max))),
        cores=found["runs"][0]["machine"]["cores"],
        accuracies=together([f"{row['accuracy']:.4f}" for row in rows]),
        seeds=together([str(row["seed"]) for row in rows]),
    )


def fast_paths() -> str:
    """Return the section on fast paths; none where they were not measured."""
    path = RESULTS / "fast_paths.json"
    if not path.exists():
        return ""
    rows = []
    for found in json.loads(path.read_text(encoding="utf-8")):
        cells = [
            f"{name} {number(row['without'])} to {number(row['with'])} ({row['without'] / row['with']:.2f}x)"
            for name, row in found["workloads"].items()
        ]
        rows.append([found["title"], ", ".join(cells)])
    return PATHS_TEXT.format(paths=table(["path", "gain"], rows))


def together(words: list[str]) -> str:
    """Return words as a list in a sentence."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def train_mnist() -> list[Result]:
    """Return seconds and accuracy of training on MNIST; nothing without the data."""
    data = os.environ.get("PELLUCID_DATA")
    if not data or not (Path(data) / "mnist").is_dir():
        return []
    found = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            out = str(Path(folder) / "run")
            began = time.perf_counter()
            pellucid("train", "mnist", "--model", "lesson2", "--epochs", "5", "--seed", str(seed), "--out", out)
            seconds = time.perf_counter() - began
            judged = json.loads(pellucid("evaluate", out, "mnist", "--split", "test", "--json"))
            found.append({"seed": seed, "seconds": seconds, "accuracy": judged["accuracy"]})
        print(found[-1], flush=True)
    return found


def pellucid(*words: str) -> str:
    """Run a command and return what it prints."""
    command = [sys.executable, "-m", "pellucid", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def stored() -> dict[str, Result]:
    """Return what the files hold, by instructions."""
    paths = {name: RESULTS / f"{name}.json" for name in INSTRUCTIONS}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def measured(options: argparse.Namespace, say: Callable[[str], None]) -> Result:
    """Return what a file holds, measured now."""
    native, runs = options.instructions == "native", []
    for place in range(options.runs):
        settings = Settings(
            peers=ROOT / ".peers",
            rounds=options.rounds,
            seconds=options.seconds,
            memory=place == 0 and native,
            startup=3 if place == 0 and native else 0,
            every_model=True,
            instructions=options.instructions,
        )
        began = time.perf_counter()
        runs.append(run(settings))
        say(f"run {place + 1} of {options.runs}: {time.perf_counter() - began:.0f} s")
        for name, work in runs[-1]["workloads"].items():
            least = {TITLES[peer]: round(values["best"], 2) for peer, values in work["ratios"].items()}
            say(f"  {name}: {least}")
    known = stored().get(options.instructions, {}).get("accuracy", [])
    trained = (train_mnist() or known) if native else []
    return {"rounds": options.rounds, "seconds": options.seconds, "accuracy": trained, "runs": runs}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Measure everything and write docs/benchmarks.md.")
    parser.add_argument("--instructions", choices=INSTRUCTIONS, default="native")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.15, help="of a turn")
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    options = parser.parse_args()
    if not options.page:
        result = measured(options, lambda line: print(line, flush=True))
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps(result, allow_nan=False).replace('{"format"', '\n{"format"') + "\n"  # a run is a line
        (RESULTS / f"{options.instructions}.json").write_text(text, encoding="utf-8")
    PAGE.write_text(page(stored()), encoding="utf-8")


if __name__ == "__main__":
    main()
