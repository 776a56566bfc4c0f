"""Time of a training step beside PyTorch, in one run: microseconds per image, best of several, interleaved.

    make bench            (PyTorch beside it: make bench TORCH=1)

Random images serve, since time does not depend on them. The control is a matrix product of NumPy, so that a slow
machine can be told from slow code. The losses of both after the timed steps are shown: they start from the same
weights, so equal losses mean equal work (dropout masks differ, so W2 agrees only roughly).
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import numpy as np

import pellucid as pl
from pellucid import engines, models, nn, optim

WORKLOADS = {"W2": ("lesson2", 150), "W4": ("lenet5", 64)}
STEPS = 8


def pellucid_steps(model: str, batch: int, x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    network = models.create(model, (1, 28, 28), 10)
    engine = engines.create("reference")
    engine.build(network, nn.CrossEntropyLoss(), optim.Adam(lr=1e-3))
    step = 0

    def run() -> float:
        nonlocal step
        losses = engine.train(x, y, np.arange(len(x)), batch, step, np.full(STEPS, 1e-3))
        step += STEPS
        return float(losses[-1])

    return run


def torch_steps(model: str, batch: int, x: np.ndarray, y: np.ndarray) -> Callable[[], float] | None:
    try:
        import torch
    except ImportError:
        return None
    network = models.create(model, (1, 28, 28), 10)
    twin = torch.nn.Sequential(*[_torch_layer(torch, layer) for layer in network])
    twin.load_state_dict({name: torch.from_numpy(a) for name, a in network.state_dict().items()})
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3)
    criterion = torch.nn.CrossEntropyLoss()
    images, labels = torch.from_numpy(x), torch.from_numpy(y)

    def run() -> float:
        loss = torch.tensor(0.0)
        for i in range(STEPS):
            part = slice(i * batch, (i + 1) * batch)
            optimizer.zero_grad()
            loss = criterion(twin(images[part]), labels[part])
            loss.backward()
            optimizer.step()
        return loss.item()

    return run


def _torch_layer(torch, layer: nn.Layer):
    if isinstance(layer, nn.Conv2d):
        return torch.nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size)
    if isinstance(layer, nn.Linear):
        return torch.nn.Linear(layer.in_features, layer.out_features)
    if isinstance(layer, nn.MaxPool2d):
        return torch.nn.MaxPool2d(layer.kernel_size)
    return {nn.ReLU: torch.nn.ReLU, nn.Flatten: torch.nn.Flatten, nn.Dropout: torch.nn.Dropout}[type(layer)]()


def control() -> float:
    a = np.ones((512, 512), dtype=np.float32)
    began = time.perf_counter()
    for _ in range(20):
        a @ a
    return (time.perf_counter() - began) / 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed (5)")
    rounds = parser.parse_args().rounds
    print(
        f"pellucid {pl.__version__}, NumPy {np.__version__}, Python {platform.python_version()}, {platform.machine()}"
    )
    print(f"control: 512x512 matrix product {control() * 1e6:.0f} us")
    print(f"{'workload':<10}{'reference':>12}{'PyTorch':>12}{'ratio':>8}   losses")
    for name, (model, batch) in WORKLOADS.items():
        rng = np.random.default_rng(0)
        x = rng.standard_normal((STEPS * batch, 1, 28, 28), dtype=np.float32)
        y = rng.integers(0, 10, STEPS * batch)
        runs = {"reference": pellucid_steps(model, batch, x, y), "PyTorch": torch_steps(model, batch, x, y)}
        best: dict[str, float] = {}
        losses: dict[str, float] = {}
        for _ in range(rounds + 1):  # the first round warms up
            for who, run in runs.items():
                if run is not None:
                    began = time.perf_counter()
                    losses[who] = run()
                    seconds = (time.perf_counter() - began) / (STEPS * batch)
                    best[who] = min(best.get(who, np.inf), seconds)
        peer = best.get("PyTorch")
        cells = [f"{best['reference'] * 1e6:.1f} us", f"{peer * 1e6:.1f} us" if peer else "not here"]
        ratio = f"{peer / best['reference']:.2f}" if peer else "-"
        shown = ", ".join(f"{who} {value:.4f}" for who, value in losses.items())
        print(f"{name:<10}{cells[0]:>12}{cells[1]:>12}{ratio:>8}   {shown}")
    print("per image, smaller is better; ratio above 1 means faster than PyTorch")


if __name__ == "__main__":
    main()
