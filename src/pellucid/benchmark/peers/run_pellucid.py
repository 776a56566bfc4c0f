"""pellucid's compiled engine as a contestant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import pellucid
from pellucid import engines, nn, optim
from pellucid.compiled.threads import available
from pellucid.nn.spec import from_spec

if TYPE_CHECKING:
    from pellucid.benchmark.peers.worker import Job, Way


def versions() -> dict[str, str]:
    """Return pellucid's version, and of what its speed depends on."""
    import llvmlite
    import numba

    return {"pellucid": pellucid.__version__, "Numba": numba.__version__, "llvmlite": llvmlite.__version__}


def start(job: Job) -> dict[str, Way]:
    """Return its only way.

    Args:
        job: The workload.
    """
    network = from_spec(job.spec)
    if not isinstance(network, nn.Sequential):
        raise TypeError("a workload is a Sequential")
    network.build(job.input_shape)
    network.load_state_dict(job.weights)
    engine = engines.create("compiled")
    threads = None if job.threads == available() else job.threads  # all: as many as pay, which is the default
    if job.optimizer is None:
        engine.build(network, threads=threads)

        def predict(first: int, count: int) -> float:
            for number in range(first, first + count):
                outputs = engine.predict(job.x[job.part(number)])
            return float(np.abs(outputs).sum())

        return {"predict": (predict, lambda: None)}
    options = dict(job.optimizer)
    kind = {"sgd": optim.SGD, "adam": optim.Adam}[options.pop("name")]
    engine.build(network, nn.CrossEntropyLoss(), kind(**options), threads=threads)
    fresh, rate = engine.state(), options["lr"]

    def train(first: int, count: int) -> float:
        numbers = np.arange(first, first + count) % job.batches
        order = (numbers[:, None] * job.batch + np.arange(job.batch)).ravel()
        losses = engine.train(job.x, job.y, order, job.batch, first, np.full(count, rate))
        return float(losses[-1]) if len(losses) == count else float("nan")

    return {"train": (train, lambda: engine.load_state(fresh))}
