"""Write the golden files of this version: small models, and what they say of fixed images.

Run it once when a version is released; older files stay as they are. tests/interop/test_golden.py loads all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import pellucid as pl
from pellucid import nn
from pellucid.model import InputSpec, Model

FOLDER = Path(__file__).parent


def every_layer() -> Model:
    """Every layer of version 0.1, in float32."""
    body = nn.Sequential(nn.Conv2d(4, 8, 3, padding="same", bias=False), nn.BatchNorm2d(8), nn.LeakyReLU(0.1))
    net = nn.Sequential(
        nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(1, 0), dilation=(1, 2), groups=2),
        nn.Tanh(),
        nn.Residual(body, nn.Conv2d(4, 8, 1)),
        nn.ReLU(),
        nn.MaxPool2d(2, stride=1, padding=1, ceil_mode=True),
        nn.AvgPool2d((2, 1)),
        nn.Sigmoid(),
        nn.AdaptiveAvgPool2d((2, None)),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.LazyLinear(3, init=("normal", 0.5)),
        nn.Softmax(),
    ).build((2, 7, 9), seed=1)
    with net.edit():
        net[2].body[1].running_mean[...] = np.linspace(-1, 1, 8)
        net[2].body[1].running_var[...] = np.linspace(0.5, 2, 8)
        net[2].body[1].num_batches_tracked[...] = 7
    spec = InputSpec((2, 7, 9), (0.0, 255.0), (0.1, 0.2), (0.5, 1 / 3), "light")
    return Model(net, spec, ("ant", "bee", "Käfer"), {"test_accuracy": 0.1 + 0.2}, "ab" * 32)


def shared_layer() -> Model:
    """A layer at two places, in float64, without classes."""
    conv = nn.Conv2d(1, 1, 3, padding="same_lower")
    net = nn.Sequential(conv, nn.ReLU(), conv, nn.Flatten(), nn.LazyLinear(2, bias=False))
    return Model(net.build((1, 5, 4), seed=2, dtype="float64"), InputSpec((1, 5, 4), (0.0, 16.0), (0.5,), (0.25,)))


def images(shape: tuple[int, ...], high: float) -> np.ndarray:
    """Three images that no random generator has to repeat."""
    values = np.arange(3 * np.prod(shape)) * 37 % (int(high) + 1)
    return values.reshape(3, *shape).astype(np.uint8)


def main() -> None:
    """Write what is not there yet."""
    for name, model in {"every-layer": every_layer(), "shared-layer": shared_layer()}.items():
        path = FOLDER / f"{pl.__version__}-{name}.safetensors"
        if path.exists():
            sys.exit(f"{path.name} is there already; a golden file is never written again")
        model.save(path)
        model.engine = "reference"
        outputs = model.outputs(images(model.input.shape, model.input.value_range[1]))
        facts = {"classes": list(model.classes), "metrics": model.metrics, "outputs": outputs.tolist()}
        path.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
