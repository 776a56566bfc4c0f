"""The text of docs/reliability.md, and what it says of the machine."""

from __future__ import annotations

import platform
from collections.abc import Iterable

import llvmlite
import numba
import numpy as np

import pellucid as pl
from pellucid.compiled.tiles import cpu
from pellucid.host import processor

TEXT = """\
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

A training with dropout, augmentation, momentum and batch norm, 2 epochs (36 steps) of the 8x8 digits, whole on so many
threads, or stopped and resumed on other numbers of threads, and the SHA-256 of all its parameters and buffers:

{trainings}

The outputs of that network for all 1,797 digits, in batches:

{predictions}

Promised, and held by `tests/compiled/test_bits.py`: on one machine with one version of everything named above, the
bits do not depend on the number of threads, on which images come together in predicting, on memory layout, on how
training is cut into chunks, on the process, or on what else runs. Not promised: the same bits on another kind of CPU
or with another version, where sums may be taken in another order.

## Runs that are killed

Real `pellucid train` processes with dropout, batch norm and a ragged last batch, a checkpoint every 5 steps, ended by
SIGKILL at random moments and resumed; number of threads, hash seed and working directory are drawn anew each time.
"Ended the same" is: model, metrics, splits, history without seconds, and everything in the last checkpoint but seconds
and paths have the bits of a run that nothing disturbed, and nothing else lies in the folder.

{kills}

A save (checkpoint, history, model), stopped or refused at each of its system calls, one at a time, by
`strace -e inject`. "Old" is the checkpoint that was there before, "new" the one that was being written; the model was
read too. Where the process lived on, it left no temporary file; what a kill left is swept at the next start.

{calls}

`tests/training/test_checkpoint.py` does the same at each call that writes, of a whole run; `test_resume.py` there does
a few of the random kills.

## Files that lie

Each is loaded in a process in which Python reports whatever is opened, imported or run; [SECURITY.md](../SECURITY.md)
says what is promised:

{refusals}
"""


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
