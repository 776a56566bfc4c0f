"""PyTorch as a contestant: contiguous or channels-last, the optimizer as it comes or fused."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from pellucid.benchmark.peers.worker import Job, Way


def versions() -> dict[str, str]:
    """Return PyTorch's version."""
    return {"PyTorch": torch.__version__}


def _layer(spec: dict[str, Any]) -> Any:
    """Return a layer, with children under the names that the weights have."""
    options = dict(spec)
    kind = options.pop("layer")
    options.pop("init", None)
    if kind == "Sequential":
        return torch.nn.Sequential(*[_layer(child) for child in options["layers"]])
    if kind == "Residual":
        block = torch.nn.Module()
        for name, child in options.items():
            block.add_module(name, _layer(child))
        around = getattr(block, "shortcut", torch.nn.Identity())
        block.forward = lambda x: block.body(x) + around(x)
        return block
    return getattr(torch.nn, kind)(**options)


def start(job: Job) -> dict[str, Way]:
    """Return one way for each memory format, and in training for each kind of optimizer step.

    Args:
        job: The workload.
    """
    torch.set_num_threads(job.threads)
    formats = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
    if job.optimizer is None:
        return {name: _prediction(job, layout) for name, layout in formats.items()}
    return {
        f"{name}{', fused' if fused else ''}": _training(job, layout, fused)
        for (name, layout), fused in itertools.product(formats.items(), (False, True))
    }


def _prepared(job: Job, layout: Any) -> tuple[Any, dict[str, Any], list[Any]]:
    """Return network, first weights, batches."""
    network = _layer(job.spec)
    first = {name: torch.from_numpy(np.array(array)) for name, array in job.weights.items()}
    network.load_state_dict(first)
    network = network.to(memory_format=layout)
    parts = [torch.from_numpy(job.x[job.part(i)]).contiguous(memory_format=layout) for i in range(job.batches)]
    return network, first, parts


def _prediction(job: Job, layout: Any) -> Way:
    network, _, parts = _prepared(job, layout)
    network.eval()

    def run(first: int, count: int) -> float:
        with torch.inference_mode():
            for number in range(first, first + count):
                outputs = network(parts[number % job.batches])
        return float(outputs.abs().sum())

    return run, lambda: None


def _training(job: Job, layout: Any, fused: bool) -> Way:
    network, fresh, parts = _prepared(job, layout)
    network.train()
    labels = [torch.from_numpy(job.y[job.part(i)]) for i in range(job.batches)]
    criterion = torch.nn.CrossEntropyLoss()
    options = dict(job.optimizer or {})
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[options.pop("name")]
    optimizer = kind(network.parameters(), **options, fused=fused)

    def run(first: int, count: int) -> float:
        for number in range(first, first + count):
            number %= job.batches
            optimizer.zero_grad()
            loss = criterion(network(parts[number]), labels[number])
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    def reset() -> None:
        network.load_state_dict(fresh)
        optimizer.state.clear()

    return run, reset
