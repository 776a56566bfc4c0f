"""Networks with every container, models of them, and the same networks in PyTorch."""

from __future__ import annotations

import numpy as np

from pellucid import interop, nn
from pellucid.model import InputSpec, Model

NETS = {
    "plain": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, (3, 2), (2, 1)), nn.ReLU(),
        nn.Flatten(), nn.LazyLinear(7), nn.ReLU(), nn.Linear(7, 3),
    ),
    "residual": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.SiLU(), nn.BatchNorm2d(4))), nn.ReLU(),
        nn.Residual(nn.Conv2d(4, 6, 3, 2, padding=1), nn.Conv2d(4, 6, 1, 2)), nn.Tanh(),
        nn.AvgPool2d(2), nn.Flatten(), nn.LazyLinear(3),
    ),
    "branches": lambda: nn.Sequential(
        nn.Concat(nn.Identity(), nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU()), nn.Conv2d(1, 2, 1)),
        nn.Conv2d(6, 4, 3, groups=2), nn.Sigmoid(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(36, 3),
    ),
    "dense": lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(9), nn.Tanh(), nn.Linear(9, 3)),
}  # fmt: skip
SHAPE = (1, 13, 11)


def network(name: str, shape: tuple[int, ...] = SHAPE, seed: int = 3) -> nn.Sequential:
    """One of NETS in float64, its running statistics random."""
    net = NETS[name]().build(shape, seed=seed, dtype="float64")
    rng = np.random.default_rng(seed)
    with net.edit():
        for buffer_name, buffer in net.named_buffers().items():
            if buffer_name.endswith(("running_mean", "running_var")):
                buffer[...] = rng.uniform(0.5, 1.5, buffer.shape)
    return net


def model(net: nn.Sequential, classes: bool = True) -> Model:
    """A model whose raw images are the network's inputs, for values that float32 holds."""
    shape = net.input_shape
    (outputs, *_) = net.output_shape(shape)
    names = tuple(f"class {i}" for i in range(outputs)) if classes else ()
    spec = InputSpec(shape, (-2.25, 2.75), (0.45,) * shape[0], (0.2,) * shape[0])  # (x + 2.25) / 5, less mean, / std: x
    return Model(net, spec, names, engine="reference")


def picture(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    """A random image for such a model."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def twin(net: nn.Network):
    """The same network in PyTorch, in float64."""
    return interop.to_torch(net).double()
