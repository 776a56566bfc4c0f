"""How long compiling takes, and how long a process takes when all is compiled.

    python benchmarks/compiling.py        (a part of make bench)

Each command runs in a process of its own, first with an empty cache folder, then with the one it has filled.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from pellucid import models

TRAIN_ALL = """
import numpy as np
from pellucid import engines, models, nn, optim
for name in models.NAMES:
    shape = (3, 32, 32) if name == "resnet8" else (1, 28, 28)
    for optimizer in (optim.Adam(), optim.SGD(momentum=0.9)):
        engines.create("compiled").build(models.create(name, shape, 10), nn.CrossEntropyLoss(), optimizer)
"""

EVERY_KERNEL = """
from pellucid.compiled.kernels import (
    correlate, depthwise, edges, gradients, losses, norm, pointwise, pool, pooled, update
)
from pellucid.compiled.runner import run_program
from pellucid.compiled.tiles import cpu
lanes = cpu()[0]
kernels = [run_program(), correlate.correlate(6, 2, lanes), correlate.dense(4, 2, lanes),
    depthwise.depthwise(lanes), depthwise.depthwise_weight_gradient(lanes),
    edges.read_images(), edges.write_outputs(), edges.reorder(False), edges.reorder(True),
    gradients.weight_gradient(6, 2, lanes), gradients.bias_gradient(lanes),
    losses.softmax(), losses.softmax_gradient(), losses.cross_entropy(),
    losses.elementwise_loss("mse"), losses.elementwise_loss("bce"),
    norm.normalize(lanes), norm.moments(lanes), norm.combine_moments(), norm.gradient_sums(lanes),
    norm.combine_gradients(), norm.normalize_gradient(lanes), norm.update_running(),
    *(pointwise.activation(name) for name in pointwise.FUNCTIONS),
    *(pointwise.activation_gradient(name) for name in pointwise.FUNCTIONS if name != "relu"),
    pointwise.relu_gradient(lanes), pointwise.add_maps(lanes, False), pointwise.add_maps(lanes, True),
    pointwise.copy_map(lanes), pointwise.dropout(),
    *(pool.max_pool(lanes, wide) for wide in (False, True)),
    *(pool.max_pool_gradient(wide) for wide in (False, True)),
    pool.mean_pool(lanes), pool.mean_pool_gradient(lanes),
    pooled.correlate_pool(6, 2, lanes, lanes), pooled.pooled_data_gradient(3, 2, lanes),
    pooled.pooled_weight_gradient(3, 2, lanes, 1), pooled.pooled_weight_gradient(3, 1, 4, 4),
    *(update.update(kind, lanes, clips) for kind in update.KINDS for clips in (False, True)),
    update.squares(), update.transposed(lanes)]
for kernel in kernels:
    kernel.address
"""


def seconds(command: list[str], cache: Path, folder: Path) -> float:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], env=environment, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(folder / "digit.png")
        train = ["-m", "pellucid", "train", "digits", "--epochs", "1", "--out"]
        predict = ["-m", "pellucid", "predict", "run", "digit.png"]
        print("seconds of a whole process, first / best of three later ones; caches are those of each line")
        for number, (title, command) in enumerate(
            (
                ("pellucid train digits --epochs 1", [*train, "run"]),
                ("pellucid predict of one image", predict),
                (f"the {len(models.NAMES)} named models, Adam and SGD", ["-c", TRAIN_ALL]),
                ("every kernel, one variant of each", ["-c", EVERY_KERNEL]),
            )
        ):
            cache = folder / f"cache{number}"
            first = seconds(command, cache, folder)
            later = []
            for again in range(3):
                repeated = [*train, f"run{again}"] if command[:4] == train[:4] else command
                later.append(seconds(repeated, cache, folder))
            print(f"{title:44} {first:6.1f} / {min(later):.2f}")


if __name__ == "__main__":
    main()
