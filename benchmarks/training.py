"""Time of a training step beside PyTorch, in one run: microseconds per image, best and median of several, interleaved.

    make bench            (PyTorch beside it: make bench TORCH=1)

Random images serve, since time does not depend on them. The reference engine uses one thread; PyTorch is timed on one
(code beside code) and on all cores (what its users get). The control, a matrix product of NumPy on one thread, tells a
slow machine from slow code. Weights and batches are the same, so W4's losses (after 24 steps) must agree; dropout
masks differ, so W2's agree only roughly.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import platform
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

import pellucid as pl
from pellucid import engines, models, nn, optim

WORKLOADS = {"W2": ("lesson2", 150), "W4": ("lenet5", 64)}
STEPS = 8
ROUNDS = 9


def pellucid_steps(model: str, batch: int, x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    engine = engines.create("reference")
    engine.build(models.create(model, (1, 28, 28), 10), nn.CrossEntropyLoss(), optim.Adam(lr=1e-3))
    starts = itertools.count(step=STEPS)
    return lambda: float(engine.train(x, y, np.arange(len(x)), batch, next(starts), np.full(STEPS, 1e-3))[-1])


def torch_steps(torch, threads: int, model: str, batch: int, x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    network = models.create(model, (1, 28, 28), 10)
    twin = torch.nn.Sequential(*[_torch_layer(torch, layer) for layer in network])
    twin.load_state_dict({name: torch.from_numpy(a) for name, a in network.state_dict().items()})
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3)
    criterion = torch.nn.CrossEntropyLoss()
    images, labels = torch.from_numpy(x), torch.from_numpy(y)

    def run() -> float:
        torch.set_num_threads(threads)
        for i in range(STEPS):
            part = slice(i * batch, (i + 1) * batch)
            optimizer.zero_grad()
            loss = criterion(twin(images[part]), labels[part])
            loss.backward()
            optimizer.step()
        return loss.item()

    return run


def _torch_layer(torch, layer: nn.Layer):
    if isinstance(layer, nn.Linear):
        return torch.nn.Linear(layer.in_features, layer.out_features)
    if isinstance(layer, nn.Conv2d):
        sizes = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        return torch.nn.Conv2d(*sizes, groups=layer.groups, bias=layer.has_bias)
    if isinstance(layer, nn.MaxPool2d):
        return torch.nn.MaxPool2d(layer.kernel_size, layer.stride, layer.padding, ceil_mode=layer.ceil_mode)
    return {nn.ReLU: torch.nn.ReLU, nn.Flatten: torch.nn.Flatten, nn.Dropout: torch.nn.Dropout}[type(layer)]()


@threadpool_limits.wrap(limits=1)
def control() -> float:
    a = np.ones((512, 512), dtype=np.float32)
    began = time.perf_counter()
    for _ in range(20):
        a @ a
    return (time.perf_counter() - began) / 20


def main() -> None:
    torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    peer = f"PyTorch {torch.__version__}" if torch else "PyTorch not here"
    print(f"pellucid {pl.__version__}, NumPy {np.__version__}, {peer}, Python {platform.python_version()}")
    print(f"{platform.machine()}, {cores} cores; control: 512x512 matrix product {control() * 1e6:.0f} us")
    threads = [1, cores] if torch else []
    heads = ["reference, 1 thread", *(f"PyTorch, {n} thread{'s' * (n > 1)}" for n in threads)]
    print("  ", *(f"{head:>20}" for head in heads), "  ratios, losses")
    for name, (model, batch) in WORKLOADS.items():
        rng = np.random.default_rng(0)
        x = rng.standard_normal((STEPS * batch, 1, 28, 28), dtype=np.float32)
        y = rng.integers(0, 10, STEPS * batch)
        runs = [pellucid_steps(model, batch, x, y)]
        runs += [torch_steps(torch, n, model, batch, x, y) for n in threads]
        times, losses = np.empty((2, ROUNDS + 1, len(runs)))
        for i, j in np.ndindex(times.shape):
            began = time.perf_counter()
            losses[i, j] = runs[j]()
            times[i, j] = (time.perf_counter() - began) / (STEPS * batch) * 1e6
        if name == "W4":  # later Adam has blown up rounding: PyTorch on one thread then leaves PyTorch on two
            assert np.allclose(losses[:3], losses[:3, :1], rtol=1e-3, atol=0), f"not the same work:\n{losses}"
        best, median = times[1:].min(axis=0), np.median(times[1:], axis=0)  # the first round warms up
        cells = [f"{b:.1f} / {m:.1f}" for b, m in zip(best, median, strict=True)]
        ratios = [f"{best[0] / b:.2f}" for b in best[1:]]
        print(name, *(f"{cell:>20}" for cell in cells), " ", *ratios, *(f"{loss:.4f}" for loss in losses[2]))
    print("us per image, best / median of the rounds; ratios: reference to PyTorch, by best")


if __name__ == "__main__":
    main()
