"""Random networks with data, for comparing engines. A case is made from a random.Random, so a seed names it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np

from pellucid import engines, nn, optim
from pellucid.errors import OptionError, ShapeError

Shape = tuple[int, ...]

STEPS = 20
TOLERANCE = 1e-5  # sums of some hundred products in float32; the definition computes in float64
_WORK = 3e6  # multiplications of a batch, about: keeps twenty steps of the reference well below a second
_NUMBERS = 20_000  # of any value, for one image
_MOVED = 1e-6  # a few roundings of float32


@dataclass
class Case:
    """What both engines get."""

    network: nn.Sequential
    loss: nn.Loss
    optimizer: optim.Optimizer
    x: np.ndarray
    y: np.ndarray
    order: np.ndarray
    batch: int
    threads: int = 2
    seed: int = 3

    def __repr__(self) -> str:
        size = (
            f"input {self.network.input_shape}, batch {self.batch}, {len(self.order)} samples, {self.threads} threads"
        )
        return f"{size}, {self.loss!r:.80}, {self.optimizer!r}\n{self.network!r}"


# Layers


def _size(rng: Random, most: int) -> int:
    return rng.randint(1, most)


def _pair(rng: Random, most: int) -> int | tuple[int, int]:
    return rng.randint(1, most) if rng.random() < 0.6 else (rng.randint(1, most), rng.randint(1, most))


def _channels(rng: Random) -> int:
    return rng.choice((1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17, 20, 32, 33)) if rng.random() < 0.95 else rng.randint(34, 200)


def _conv(rng: Random, shape: Shape) -> nn.Layer:
    channels, out, groups = shape[0], _channels(rng), 1
    kind = rng.random()
    if kind < 0.15:
        groups = out = channels
    elif kind < 0.3:
        groups = rng.choice([g for g in range(1, channels + 1) if channels % g == 0])
        out = groups * rng.randint(1, 4)
    stride = 1 if rng.random() < 0.6 else _pair(rng, 3)
    dilation = 1 if rng.random() < 0.75 else _pair(rng, 3)
    padding: object = rng.choice(("valid", "same_upper", "same_lower", 0, 1, 1, 2, (0, 2), (3, 1)))
    if stride == 1 and rng.random() < 0.3:
        padding = "same"
    bias = rng.random() < 0.75
    return nn.Conv2d(channels, out, _pair(rng, 5), stride, padding, dilation, groups, bias)


def _pool(rng: Random, kind: type) -> nn.Layer:
    window = rng.choice((2, 2, 2, 3, (2, 3), (3, 1), _pair(rng, 6)))
    h, w = window if isinstance(window, tuple) else (window, window)
    padding = 0 if rng.random() < 0.6 else (rng.randint(0, h // 2), rng.randint(0, w // 2))
    stride = None if rng.random() < 0.6 else _pair(rng, 4)
    return kind(window, stride, padding, ceil_mode=rng.random() < 0.3)


def _activation(rng: Random, shape: Shape) -> nn.Layer:
    dims = [d for d in range(-len(shape), len(shape) + 1) if d]
    return rng.choice(
        (
            nn.ReLU(),
            nn.ReLU(),
            nn.ReLU(),
            nn.LeakyReLU(rng.choice((0.01, 0.3, -0.5, 0.0, 2.0))),
            nn.Sigmoid(),
            nn.Tanh(),
            nn.Softmax(rng.choice(dims)),
        )
    )


def _norm(rng: Random, shape: Shape) -> nn.Layer:
    momentum = rng.choice((0.1, 0.1, 0.5, None))
    return nn.BatchNorm2d(shape[0], rng.choice((1e-5, 1e-3)), momentum, affine=rng.random() < 0.75)


def _fused(rng: Random, shape: Shape) -> nn.Layer:
    """Convolution and max-pooling, with ReLU in between, behind or nowhere."""
    layers = [nn.Conv2d(shape[0], _channels(rng), _pair(rng, 5), padding=rng.randint(0, 2)), _pool(rng, nn.MaxPool2d)]
    if rng.random() < 0.7:
        layers.insert(rng.randint(1, 2), nn.ReLU())
    return nn.Sequential(*layers)


def _linear(rng: Random, shape: Shape) -> nn.Layer:
    out = shape[0] if rng.random() < 0.3 else _channels(rng)
    return nn.Linear(shape[0], out, bias=rng.random() < 0.75)


def _residual(rng: Random, shape: Shape, shared: list[nn.Layer], depth: int) -> nn.Layer:
    body = nn.Sequential(*_layers(rng, shape, shared, rng.randint(1, 3), depth + 1))
    out = body.output_shape(shape)
    if out == shape and rng.random() < 0.5:
        return nn.Residual(body)
    around: list[nn.Layer] = []
    if len(shape) == 3:
        sizes = (
            out[1:]
            if len(out) == 3
            else rng.choice([(a, b) for a in (1, 2, 3) for b in (1, 2) if out[0] % (a * b) == 0])
        )
        if sizes != shape[1:] or rng.random() < 0.3:
            around.append(nn.AdaptiveAvgPool2d(sizes))
        around.append(nn.Conv2d(shape[0], out[0] if len(out) == 3 else out[0] // math.prod(sizes), 1))
        if len(out) == 1:
            around.append(nn.Flatten())
    else:
        around += [nn.Flatten(), nn.Linear(math.prod(shape), out[0])]
    return nn.Residual(body, around[0] if len(around) == 1 else nn.Sequential(*around))


def _fits(layer: nn.Layer, shape: Shape) -> bool:
    try:
        layer.output_shape(shape)
    except ShapeError:
        return False
    return True


def _layer(rng: Random, shape: Shape, shared: list[nn.Layer], depth: int) -> nn.Layer:
    kinds: dict[str, Callable[[], nn.Layer]] = {
        "activation": lambda: _activation(rng, shape),
        "dropout": lambda: nn.Dropout(rng.choice((0.1, 0.5, 0.0, 0.9))),
    }
    weights = {"activation": 4, "dropout": 1}
    if len(shape) == 3:
        kinds |= {
            "conv": lambda: _conv(rng, shape),
            "fused": lambda: _fused(rng, shape),
            "max": lambda: _pool(rng, nn.MaxPool2d),
            "mean": lambda: _pool(rng, nn.AvgPool2d),
            "adaptive": lambda: nn.AdaptiveAvgPool2d(rng.choice((1, 2, (3, None), (None, 2), _pair(rng, 6)))),
            "norm": lambda: _norm(rng, shape),
        }
        weights |= {"conv": 5, "fused": 3, "max": 1, "mean": 1, "adaptive": 1, "norm": 2}
    elif len(shape) == 1:
        kinds["linear"] = lambda: _linear(rng, shape)
        weights["linear"] = 4
    if len(shape) > 1 or rng.random() < 0.1:
        kinds["flatten"] = nn.Flatten
        weights["flatten"] = 1
    if depth < 2 and len(shape) in (1, 3):
        kinds["residual"] = lambda: _residual(rng, shape, shared, depth)
        kinds["sequential"] = lambda: nn.Sequential(*_layers(rng, shape, shared, rng.randint(1, 3), depth + 1))
        weights |= {"residual": 2, "sequential": 1}
    again = [layer for layer in shared if _fits(layer, shape)]
    if again:
        kinds["shared"] = lambda: rng.choice(again)
        weights["shared"] = 2
    layer = kinds[rng.choice([kind for kind, weight in weights.items() for _ in range(weight)])]()
    if layer.parameter_names and rng.random() < 0.3:
        shared.append(layer)
    return layer


def _layers(rng: Random, shape: Shape, shared: list[nn.Layer], count: int, depth: int = 0) -> list[nn.Layer]:
    found: list[nn.Layer] = []
    for _ in range(4 * count):
        if len(found) == count:
            break
        layer = _layer(rng, shape, shared, depth)
        try:
            steps = nn.Sequential(layer).trace(shape)
        except ShapeError:
            continue
        cost = sum(leaf.multiply_adds(inner) for _, leaf, inner, _ in steps)
        if cost < _WORK / 4 and max(math.prod(out) for *_, out in steps) < _NUMBERS:
            found.append(layer)
            shape = nn.Sequential(layer).output_shape(shape)
    return found or [nn.ReLU()]


# Cases


def _optimizer(rng: Random) -> optim.Optimizer:
    clips: dict[str, float] = {}
    if rng.random() < 0.2:
        clips["clip_norm"] = rng.choice((0.1, 1.0))
    if rng.random() < 0.2:
        clips["clip_layer_norm"] = rng.choice((0.05, 1.0))
    decay = rng.choice((0.0, 0.0, 0.01))
    kind = rng.randint(0, 4)
    if kind == 0:
        return optim.SGD(1e-3, 0.0, decay, **clips)
    if kind == 1:
        return optim.SGD(1e-3, 0.9, decay, nesterov=rng.random() < 0.5, **clips)
    if kind == 2:
        return optim.RMSprop(1e-4, 0.9, 1e-3, decay, rng.choice((0.0, 0.5)), **clips)
    return (optim.Adam, optim.AdamW)[kind - 3](1e-4, (0.9, 0.99), 1e-4, decay, **clips)


def _loss(rng: Random, network: nn.Sequential, out: Shape) -> nn.Loss:
    choices: list[nn.Loss] = [nn.MSELoss(), nn.BCEWithLogitsLoss()]
    if len(out) == 1:
        weight = np.array([rng.choice((0.2, 1.0, 3.0)) for _ in range(out[0])]) if rng.random() < 0.3 else None
        choices += [nn.CrossEntropyLoss(weight, rng.choice((0.0, 0.1)))] * 4
    loss = rng.choice(choices)
    try:
        loss.check_network(network)
    except OptionError:
        return nn.MSELoss()
    return loss


def make(
    network: nn.Sequential,
    loss: nn.Loss | None = None,
    optimizer: optim.Optimizer | None = None,
    batch: int = 5,
    threads: int = 2,
    *,
    shares: bool = False,
    short: bool = True,
    seed: int = 0,
) -> Case:
    """Give a built network random data and an order of STEPS batches; short: the last one lacks a sample."""
    loss = loss or nn.CrossEntropyLoss()
    rng, out = np.random.default_rng(seed), network.output_shape(network.input_shape)
    pixels = [
        math.prod(inner[1:])
        for _, leaf, inner, _ in network.trace(network.input_shape)
        if isinstance(leaf, nn.BatchNorm2d)
    ]
    smallest = min(pixels, default=2)
    batch = max(batch, 2) if smallest == 1 else batch
    count = 2 * batch + 3
    x = rng.standard_normal((count, *network.input_shape)).astype(np.float32)
    if isinstance(loss, nn.CrossEntropyLoss) and shares:
        y = rng.dirichlet(np.ones(out[0]), count).astype(np.float32)
    elif loss.takes_labels:
        y = rng.integers(0, out[0], count)
    else:
        y = rng.random((count, *out)).astype(np.float32)
    order = rng.integers(0, count, STEPS * batch - int(short and (batch - 1) * smallest > 1))
    return Case(network, loss, optimizer or optim.SGD(1e-3, momentum=0.9), x, y, order, batch, threads)


def case(rng: Random) -> Case:
    """Return a random case."""
    shape: Shape = (rng.choice((1, 1, 2, 3, 4, 6, 17)), _size(rng, 13), _size(rng, 13))
    kind = rng.random()
    if kind < 0.05:
        shape = (200, rng.randint(1, 3), rng.randint(1, 3))
    elif kind < 0.15:
        shape = (_size(rng, 40),)
    elif kind < 0.18:
        shape = (_size(rng, 4), _size(rng, 5))
    shared: list[nn.Layer] = []
    layers = _layers(rng, shape, shared, rng.randint(1, 7))
    out = nn.Sequential(*layers).output_shape(shape)
    if rng.random() < 0.85:
        if len(out) > 1:
            layers.append(nn.Flatten())
        if math.prod(out) < 5000:
            classes = rng.choice((1, 2, 3, 5, 10, 10, 17)) if rng.random() < 0.95 else rng.randint(18, 1000)
            layers.append(nn.Linear(math.prod(out), classes))
    network = nn.Sequential(*layers, input_shape=shape, seed=rng.randint(0, 99))
    cost = max(1, sum(leaf.multiply_adds(inner) for _, leaf, inner, _ in network.trace(shape)))
    batch = min(rng.choice((1, 2, 3, 5, 8, 16, 33, 67)), max(1, int(_WORK / cost)))
    loss = _loss(rng, network, network.output_shape(shape))
    options = {"shares": rng.random() < 0.2, "seed": rng.randint(0, 999)}
    return make(network, loss, _optimizer(rng), batch, rng.randint(1, 5), **options)


# Comparison


@dataclass
class Answer:
    """What an engine gives for a case: outputs and a loss with gradients before training, then STEPS steps."""

    outputs: np.ndarray
    loss: float
    gradients: dict[str, np.ndarray]
    losses: np.ndarray
    hits: np.ndarray
    buffers: np.ndarray
    after: np.ndarray


def answer(case: Case, name: str, dtype: str, moved: int = 0) -> Answer:
    """Run a case on an engine, on a copy of its network. Where moved, all numbers are moved a little first."""
    network, x = case.network.astype(dtype), case.x.astype(dtype)
    if moved:
        rng = np.random.default_rng(moved)
        with network.edit():
            network.flat_parameters[...] *= 1 + _MOVED * rng.uniform(-1, 1, network.flat_parameters.shape)
        x = x * (1 + _MOVED * rng.uniform(-1, 1, x.shape))
    engine = engines.create(name)
    engine.build(network, case.loss, case.optimizer, case.seed, case.threads)
    outputs = engine.predict(x)
    first = case.order[: case.batch]
    loss, gradients = engine.loss_and_gradients(x[first], case.y[first], step=5)
    rates = case.optimizer.lr * np.linspace(1, 0.5, STEPS)
    losses = engine.train(x, case.y, case.order, case.batch, 0, rates)
    parts = {name: part.copy() for name, part in network.unflatten(gradients).items()}
    return Answer(outputs, loss, parts, losses, engine.hits, network.flat_buffers.copy(), engine.predict(x))


def _off(a: np.ndarray, b: np.ndarray, size: float = 0.0) -> float:
    """Return max |a - b| / max(max |b|, size)."""
    if a.shape != b.shape:
        return math.inf
    if not b.size:
        return 0.0
    return float(np.abs(a - b).max()) / max(float(np.abs(b).max()), size, 1e-30)


def distances(a: Answer, b: Answer) -> dict[str, float]:
    """Return how far an answer is from the definition's, norm-wise, for each kind of number.

    Each parameter's gradients are measured by their own size, but by no less than a hundredth of the largest.
    """
    largest = max((np.abs(g).max(initial=0) for g in b.gradients.values()), default=0)
    return {
        "outputs": _off(a.outputs, b.outputs),
        "loss": _off(np.array([a.loss]), np.array([b.loss]), 1e-3),
        "gradients": max((_off(a.gradients[n], g, largest / 100) for n, g in b.gradients.items()), default=0.0),
        "losses": _off(a.losses, b.losses, 1e-3),
        "buffers": _off(a.buffers, b.buffers, 1e-3),
        "after": _off(a.after, b.after),
    }


def compare(case: Case) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Return how far the compiled engine is from the definition, how far it may be, how far the float32 reference is.

    It may be off by TOLERANCE, and by ten times as much as its peers are: the reference in float32, and the definition
    with all numbers moved by a few roundings of float32. They say what cannot be asked of any engine in float32: where
    a number stands at a kink of ReLU, where batch norm divides by next to nothing, where training is chaotic.
    """
    definition, ours = answer(case, "reference", "float64"), answer(case, "compiled", "float32")
    peers = [answer(case, "reference", "float32"), *(answer(case, "reference", "float64", n) for n in (1, 2))]
    spread = [distances(peer, definition) for peer in peers]
    off, allowed = distances(ours, definition), {}
    for name in off:
        allowed[name] = TOLERANCE + 10 * max(s[name] for s in spread)
    sure = np.all([peer.hits == definition.hits for peer in peers], axis=0)
    off["hits"], allowed["hits"] = float(np.abs(ours.hits - definition.hits)[sure].sum()), 0.0
    return off, allowed, spread[0]
