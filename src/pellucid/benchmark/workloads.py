"""What is measured: small networks in training and prediction, and the data that every contestant gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pellucid import models, nn, optim
from pellucid.nn.spec import to_spec

_BATCHES = 8  # different batches that a contestant goes through again and again
_FEWEST = 1024  # images, where batches are small


@dataclass(frozen=True)
class Workload:
    """One line of the benchmark.

    Attributes:
        title: For tables.
        network: Makes it, built.
        batch: Images of a step, or of a call.
        optimizer: Of training; None for prediction.
    """

    title: str
    network: Callable[[], nn.Sequential]
    batch: int
    optimizer: optim.Optimizer | None = None


def residual_network() -> nn.Sequential:
    """Return W1's: conv 1-32, ReLU, pool, twice [residual block of conv 32, ReLU, batch norm; pool], 64, 10."""
    layers: list[nn.Layer] = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    for _ in range(2):
        layers.append(nn.Residual(nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(32))))
        layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), nn.Linear(288, 64), nn.ReLU(), nn.Linear(64, 10)]
    return nn.Sequential(*layers, input_shape=(1, 28, 28))


def _named(name: str, shape: tuple[int, int, int] = (1, 28, 28)) -> Callable[[], nn.Sequential]:
    return lambda: models.create(name, shape, 10)


def _digits_network() -> nn.Sequential:
    return models.block_cnn(1, [32], [30, 10], input_shape=(1, 8, 8))


WORKLOADS = {
    "W2": Workload("lesson 2's network (93 322 parameters), batch 150, Adam", _named("lesson2"), 150, optim.Adam()),
    "W4": Workload("LeNet (44 374), batch 64, Adam", _named("lenet5"), 64, optim.Adam()),
    "W1": Workload(
        "conv 32, two residual blocks with batch norm (38 090), batch 16, Adam", residual_network, 16, optim.Adam()
    ),
    "R8": Workload(
        "ResNet-8 on 32x32 color (78 042), batch 128, SGD momentum",
        _named("resnet8", (3, 32, 32)),
        128,
        optim.SGD(0.05, momentum=0.9),
    ),
    "W3": Workload("lesson 3's network (13 602), batch 1, SGD", _named("lesson3"), 1, optim.SGD(0.005)),
    "W0": Workload("lesson 0's network on 8x8 digits (9 300), batch 1, SGD", _digits_network, 1, optim.SGD(0.005)),
    "W2-1": Workload("lesson 2's network, 1 image", _named("lesson2"), 1),
    "W2-1000": Workload("lesson 2's network, 1 000 images", _named("lesson2"), 1000),
    "W4-1": Workload("LeNet, 1 image", _named("lenet5"), 1),
    "W4-1000": Workload("LeNet, 1 000 images", _named("lenet5"), 1000),
}


def data(work: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Return random images (M, C, H, W) float32 and labels (M,) int64, a whole number of batches.

    Args:
        work: The workload.
    """
    rng = np.random.default_rng(0)
    count = work.batch * (max(_BATCHES, -(-_FEWEST // work.batch)) if work.batch < 1000 else 1)
    x = rng.standard_normal((count, *work.network().input_shape), dtype=np.float32)
    return x, rng.integers(0, 10, count)


def write_job(work: Workload, path: Path) -> None:
    """Write all that a contestant needs into an npz file; peers/worker.py reads it.

    Args:
        work: The workload.
        path: Where to.
    """
    network, (x, y) = work.network(), data(work)
    flat = next(before for _, layer, before, _ in network.trace(network.input_shape) if isinstance(layer, nn.Flatten))
    spec: dict[str, Any] = {
        "network": to_spec(network),
        "input_shape": network.input_shape,
        "flattened": flat,
        "batch": work.batch,
        "optimizer": None if work.optimizer is None else _numbers(work.optimizer),
    }
    weights = {f"weight/{name}": array for name, array in network.state_dict().items()}
    np.savez(path, job=np.array(json.dumps(spec)), x=x, y=y, **weights)  # type: ignore[arg-type]


def _numbers(optimizer: optim.Optimizer) -> dict[str, Any]:
    if isinstance(optimizer, optim.SGD):
        return {"name": "sgd", "lr": optimizer.lr, "momentum": optimizer.momentum}
    return {"name": "adam", "lr": optimizer.lr}
