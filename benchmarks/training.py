"""Time and memory of a training step beside PyTorch, in one run: microseconds per image, best of several rounds.

    make bench            (PyTorch beside it: make bench TORCH=1)

The workloads are those of docs/benchmarks.md. Random images serve, since time does not depend on them. Engines and
PyTorch take turns within each round, each on one thread and on all cores; weights, batches and optimizers are the same.
The control, a matrix product of NumPy on one thread, tells a slow machine from slow code. Before anything is timed,
the losses of the first steps must agree. Memory is what training adds to the process, each in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

import pellucid as pl
from pellucid import engines, models, nn, optim

ROUNDS = 9
SECONDS = 0.15  # of one measurement, about


@dataclass(frozen=True)
class Workload:
    network: Callable[[], nn.Sequential]
    batch: int
    optimizer: Callable[[], optim.Optimizer]
    deterministic: bool = True  # without dropout, whose masks PyTorch draws differently


def residual_network() -> nn.Sequential:
    """W1: conv 1-32, ReLU, pool, twice [residual block of conv 32, ReLU, batch norm; pool], 64, 10."""
    layers: list[nn.Layer] = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    for _ in range(2):
        layers.append(nn.Residual(nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(32))))
        layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), nn.Linear(288, 64), nn.ReLU(), nn.Linear(64, 10)]
    return nn.Sequential(*layers, input_shape=(1, 28, 28))


def adam() -> optim.Optimizer:
    return optim.Adam(lr=1e-3)


WORKLOADS = {
    "W2": Workload(lambda: models.create("lesson2", (1, 28, 28), 10), 150, adam, deterministic=False),
    "W4": Workload(lambda: models.create("lenet5", (1, 28, 28), 10), 64, adam),
    "W1": Workload(residual_network, 16, adam),
    "R8": Workload(lambda: models.create("resnet8", (3, 32, 32), 10), 128, lambda: optim.SGD(lr=0.05, momentum=0.9)),
}

Step = Callable[[], float]


def data(work: Workload, batches: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = work.network().input_shape
    x = rng.standard_normal((batches * work.batch, *shape), dtype=np.float32)
    return x, rng.integers(0, 10, len(x))


def pellucid_steps(work: Workload, name: str, threads: int, steps: int) -> Step:
    """Return a function that trains so many steps, each on a batch of its own, and returns the last loss."""
    engine = engines.create(name)
    engine.build(work.network(), nn.CrossEntropyLoss(), work.optimizer(), threads=threads)
    x, y = data(work, steps)
    starts, rates = itertools.count(step=steps), np.full(steps, work.optimizer().lr)
    return lambda: float(engine.train(x, y, np.arange(len(x)), work.batch, next(starts), rates)[-1])


def torch_steps(work: Workload, threads: int, steps: int, channels_last: bool = False) -> Step:
    import torch

    network = work.network()
    twin = torch_layer(torch, network).train()
    twin.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in network.state_dict().items()})
    x, y = (torch.from_numpy(a) for a in data(work, steps))
    if channels_last:
        twin, x = twin.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    settings = work.optimizer()
    if isinstance(settings, optim.Adam):
        optimizer = torch.optim.Adam(twin.parameters(), lr=settings.lr)
    else:
        optimizer = torch.optim.SGD(twin.parameters(), lr=settings.lr, momentum=settings.momentum)
    criterion = torch.nn.CrossEntropyLoss()

    def run() -> float:
        torch.set_num_threads(threads)
        for i in range(steps):
            part = slice(i * work.batch, (i + 1) * work.batch)
            optimizer.zero_grad()
            loss = criterion(twin(x[part]), y[part])
            loss.backward()
            optimizer.step()
        return loss.item()

    return run


def torch_layer(torch, layer: nn.Layer):
    """Return the same layer in PyTorch, with children under the same names."""
    t = torch.nn
    if isinstance(layer, nn.Residual):
        block = t.Module()
        for name, child in layer.children():
            block.add_module(name, torch_layer(torch, child))
        around = getattr(block, "shortcut", t.Identity())
        block.forward = lambda x: block.body(x) + around(x)
        return block
    if isinstance(layer, nn.Sequential):
        return t.Sequential(*[torch_layer(torch, child) for child in layer])
    if isinstance(layer, nn.Linear):
        return t.Linear(layer.in_features, layer.out_features)
    if isinstance(layer, nn.Conv2d):
        sizes = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        return t.Conv2d(*sizes, groups=layer.groups, bias=layer.has_bias)
    if isinstance(layer, nn.MaxPool2d):
        return t.MaxPool2d(layer.kernel_size, layer.stride, layer.padding, ceil_mode=layer.ceil_mode)
    if isinstance(layer, nn.BatchNorm2d):
        return t.BatchNorm2d(layer.num_features)
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return t.AdaptiveAvgPool2d(layer.output_size)
    return {nn.ReLU: t.ReLU, nn.Flatten: t.Flatten, nn.Dropout: t.Dropout}[type(layer)]()


@threadpool_limits.wrap(limits=1)
def control() -> float:
    a = np.ones((512, 512), dtype=np.float32)
    began = time.perf_counter()
    for _ in range(20):
        a @ a
    return (time.perf_counter() - began) / 20


def check_losses(work: Workload, peer: Step) -> None:
    """Refuse to time what does not compute the same: the loss after three steps."""
    own = pellucid_steps(work, "compiled", 1, 3)()
    if work.deterministic and not np.isclose(own, peer(), rtol=1e-3, atol=0):
        raise SystemExit(f"not the same work: loss {own}")


def timed(runs: dict[str, Step], steps: int, batch: int) -> dict[str, float]:
    """Return microseconds per image of each, best of the rounds; the first round warms up."""
    best = dict.fromkeys(runs, np.inf)
    for number in range(ROUNDS + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if number:
                best[name] = min(best[name], (time.perf_counter() - began) / (steps * batch) * 1e6)
    return best


def steps_for(work: Workload) -> int:
    """Return how many steps take about SECONDS with the compiled engine on one thread."""
    run = pellucid_steps(work, "compiled", 1, 1)
    run()
    began = time.perf_counter()
    run()
    return int(np.clip(SECONDS / (time.perf_counter() - began), 2, 64))


def resident(field: str = "VmRSS") -> float:
    """Return the memory of this process in MB; VmHWM: the most it ever had."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024


def growth(name: str, engine: str, threads: int) -> float:
    """Return by how many MB training at the workload's batch makes this process grow, after a step with two images."""
    work = WORKLOADS[name]
    small = Workload(work.network, 2, work.optimizer)
    start = torch_steps if engine == "torch" else lambda w, t, s: pellucid_steps(w, engine, t, s)
    start(small, threads, 1)()
    run = start(work, threads, 2)
    before = resident()
    for _ in range(3):
        run()
    return resident("VmHWM") - before


def memory(name: str, engine: str, threads: int) -> float:
    """Return growth() of a process of its own."""
    command = [sys.executable, __file__, "--growth", name, engine, str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of a training step beside PyTorch.")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--growth", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.growth:
        print(growth(options.growth[0], options.growth[1], int(options.growth[2])))
        return

    peer = importlib.util.find_spec("torch") is not None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    machine = {"pellucid": pl.__version__, "numpy": np.__version__, "python": platform.python_version()}
    if peer:
        machine["torch"] = importlib.import_module("torch").__version__
    machine |= {"cpu": cpu_name(), "cores": cores, "control_us": round(control() * 1e6)}
    results = {}
    for name, work in WORKLOADS.items():
        steps = steps_for(work)
        runs = {f"compiled {t}": pellucid_steps(work, "compiled", t, steps) for t in (1, cores)}
        if peer:
            check_losses(work, torch_steps(work, 1, 3))
            runs |= {f"PyTorch {t}": torch_steps(work, t, steps) for t in (1, cores)}
            if name == "R8":
                runs |= {f"PyTorch channels-last {t}": torch_steps(work, t, steps, True) for t in (1, cores)}
        results[name] = {"us_per_image": timed(runs, steps, work.batch)}
        if sys.platform == "linux":
            engines_ = ["compiled", *(["torch"] if peer else [])]
            results[name]["growth_mb"] = {engine: memory(name, engine, cores) for engine in engines_}
        if not options.json:
            report(name, results[name], cores)
    if options.json:
        print(json.dumps({"machine": machine, "results": results}))
    else:
        print(" ".join(f"{key} {value}" for key, value in machine.items()))


def report(name: str, result: dict[str, dict[str, float]], cores: int) -> None:
    times = result["us_per_image"]
    print(f"{name}  " + ", ".join(f"{key} threads: {value:.1f}" for key, value in times.items()) + " us per image")
    peers = [value for key, value in times.items() if key.startswith("PyTorch") and key.endswith(f" {cores}")]
    if peers:
        print(f"    {min(peers) / times[f'compiled {cores}']:.2f} times as fast as PyTorch on {cores} threads")
    if "growth_mb" in result:
        print("    memory: " + ", ".join(f"{key} {value:.0f} MB" for key, value in result["growth_mb"].items()))


def cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
