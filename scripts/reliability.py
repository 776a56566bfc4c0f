"""Write docs/reliability.md: how near the compiled engine is to its definition, and that its bits stay the same.

Takes some minutes. Ends with an error where a promise of the page does not hold.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random

import llvmlite
import numba
import numpy as np

import pellucid as pl
from pellucid import engines, models, nn, optim
from pellucid.compiled.tiles import cpu

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
sys.path.insert(0, str(ROOT / "tests"))

from compiled import networks  # noqa: E402

RANDOM = 200
THREADS = (1, 2, 3, 5, 8)
BATCHES = (1, 7, 64, 1797)
COLUMNS = ("outputs", "gradients", "losses")
SHAPES = {"resnet8": (3, 32, 32), "block_cnn": (1, 8, 8)}

Distances = dict[str, float]
Found = list[tuple[str, Distances, Distances, Distances]]
"""What was measured: how far the compiled engine is, how far it may be, how far the reference in float32 is."""

PAGE_TEXT = """\
# How far to trust the numbers

Written by `make reliability`; do not edit. Measured on {machine}.

## The same numbers as the definition

The definition is the reference engine in float64: NumPy code that reads like the formulas. The compiled engine
computes in float32. Both get the same network, data, order and dropout, and what comes out is compared norm-wise:
the largest difference, divided by the largest number of the definition.

- **outputs** of prediction, before training;
- **gradients** of a first batch, for each parameter by its own size (but at least a hundredth of the largest gradient);
- **losses** of {steps} training steps.

`tests/compiled/test_parity.py` allows 1e-5, and ten times what the definition itself is unsure of in float32: how far
the reference engine is off in float32, and how far it moves when all numbers are moved by one part in a million. That
matters where a number stands at a kink of ReLU, or where batch norm divides by next to nothing.

Named models, batches of 16:

{named}

{count} random networks (any layers, sizes, options, losses, optimizers and 1 to 5 threads; `networks.case(Random(n))`
in `tests/compiled` makes number n):

{random}

{verdict}

## The same bits

A training with dropout, augmentation, momentum and batch norm, 2 epochs of the 8x8 digits, and the SHA-256 of all
its parameters and buffers:

{trainings}

The outputs of that network for all 1,797 digits, in batches:

{predictions}

Promised, and held by `tests/compiled/test_bits.py`: on one machine with one version of everything named above, the
bits do not depend on the number of threads, on which images come together in predicting, on memory layout, on how
training is cut into chunks, on the process, or on what else runs. Not promised: the same bits on another kind of CPU
or with another version, where sums may be taken in another order.
"""


def processor() -> str:
    """Return the CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine() -> str:
    """Return what the numbers were measured on."""
    versions = {
        "Python": platform.python_version(),
        "pellucid": pl.__version__,
        "NumPy": np.__version__,
        "Numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
    }
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{processor()} ({cpu()[0]} float32 in a vector), {platform.system()}, {listed}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def named() -> Found:
    """Return what was measured for each named model."""
    found = []
    for name in models.NAMES:
        shape = SHAPES.get(name, (1, 28, 28))
        case = networks.make(models.create(name, shape, 10), optimizer=optim.Adam(1e-4, eps=1e-4), batch=16)
        found.append((f"{name} ({'x'.join(map(str, shape))})", *networks.compare(case)))
        print(found[-1][0], flush=True)
    return found


def drawn() -> Found:
    """Return the same for random networks."""
    found = []
    for number in range(RANDOM):
        found.append((f"random network {number}", *networks.compare(networks.case(Random(number)))))
        if number % 20 == 19:
            print(f"{number + 1} random networks", flush=True)
    return found


def spread(found: Found) -> str:
    """Return the table of random networks."""
    ours, plain = [off for _, off, _, _ in found], [off for *_, off in found]
    rows = [
        ["half of them are within", *(f"{np.median([off[name] for off in ours]):.1e}" for name in COLUMNS)],
        ["19 of 20 are within", *(f"{np.quantile([off[name] for off in ours], 0.95):.1e}" for name in COLUMNS)],
        ["the farthest", *(f"{max(off[name] for off in ours):.1e}" for name in COLUMNS)],
        ["the farthest of the reference in float32", *(f"{max(off[name] for off in plain):.1e}" for name in COLUMNS)],
    ]
    return table(["", *COLUMNS], rows)


def digests() -> tuple[dict[int, str], dict[int, str]]:
    """Return the digest of a training by number of threads, and of the outputs by batch size."""
    ds = pl.data.load("digits")
    trainings = {}
    for threads in THREADS:
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.LazyLinear(10),
        )
        optimizer = optim.SGD(0.05, momentum=0.9)
        run = pl.fit(net, ds, epochs=2, optimizer=optimizer, augment="digit", threads=threads, progress=False)
        trainings[threads] = run.digest
    engine = engines.create("compiled")
    engine.build(run.model.network)
    images = np.ascontiguousarray(ds.images, dtype=np.float32).reshape(-1, 1, 8, 8)
    predictions = {}
    for size in BATCHES:
        parts = [engine.predict(images[i : i + size]) for i in range(0, len(images), size)]
        predictions[size] = hashlib.sha256(np.concatenate(parts).tobytes()).hexdigest()
    return trainings, predictions


def main() -> None:
    """Measure and write the page."""
    models_found, random_found = named(), drawn()
    trainings, predictions = digests()
    failures = [
        name
        for name, off, allowed, _ in models_found + random_found
        if any(not off[part] <= allowed[part] for part in off)
    ]
    strict = sum(all(off[name] <= networks.TOLERANCE for name in COLUMNS) for _, off, _, _ in random_found)
    verdict = (
        f"{strict} of the {RANDOM} are within 1e-5 everywhere. Beyond what is allowed: {', '.join(failures) or 'none'}."
    )
    PAGE.write_text(
        PAGE_TEXT.format(
            machine=machine(),
            steps=networks.STEPS,
            count=RANDOM,
            named=table(
                ["model", *COLUMNS], [[name, *(f"{off[c]:.1e}" for c in COLUMNS)] for name, off, _, _ in models_found]
            ),
            random=spread(random_found),
            verdict=verdict,
            trainings=table(["", "SHA-256"], [[f"{n} thread{'s' * (n > 1)}", f"`{d}`"] for n, d in trainings.items()]),
            predictions=table(["images at once", "SHA-256"], [[str(n), f"`{d}`"] for n, d in predictions.items()]),
        ),
        encoding="utf-8",
    )
    if len(set(trainings.values())) > 1 or len(set(predictions.values())) > 1:
        failures.append("bits differ")
    if failures:
        sys.exit(f"what {PAGE.name} promises does not hold: {', '.join(failures)}")


if __name__ == "__main__":
    main()
