"""How near the compiled engine is to its definition."""

from __future__ import annotations

from random import Random

import numpy as np
from page import table

from compiled import networks
from pellucid import models, optim

RANDOM = 200
COLUMNS = ("outputs", "gradients", "losses")
SHAPES = {"resnet8": (3, 32, 32), "block_cnn": (1, 8, 8)}

Distances = dict[str, float]
Found = list[tuple[str, Distances, Distances, Distances]]
"""What was measured: how far the compiled engine is, how far it may be, how far the reference in float32 is."""


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


def measure() -> tuple[dict[str, str], list[str]]:
    """Return the page's tables, and what is farther off than allowed."""
    models_found, random_found = named(), drawn()
    failures = [
        name
        for name, off, allowed, _ in models_found + random_found
        if any(not off[part] <= allowed[part] for part in off)
    ]
    strict = sum(all(off[name] <= networks.TOLERANCE for name in COLUMNS) for _, off, _, _ in random_found)
    return {
        "steps": str(networks.STEPS),
        "count": str(RANDOM),
        "named": table(
            ["model", *COLUMNS], [[name, *(f"{off[c]:.1e}" for c in COLUMNS)] for name, off, _, _ in models_found]
        ),
        "random": spread(random_found),
        "verdict": f"{strict} of the {RANDOM} are within 1e-5 everywhere. "
        f"Beyond what is allowed: {', '.join(failures) or 'none'}.",
    }, failures
