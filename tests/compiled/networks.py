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


# Every operation but those of a usual classifier, which the tests name themselves

OPERATIONS_SHAPE = (2, 9, 7)

OPERATIONS: dict[str, list[nn.Layer]] = {
    "transposed": [nn.ConvTranspose2d(2, 5, 3, 2, 1, 1), nn.ReLU(), nn.Conv2d(5, 3, 2)],
    "transposed, uneven": [nn.ConvTranspose2d(2, 17, (2, 3), (3, 2), (0, 1), (1, 0), bias=False)],
    "transposed, dilated": [nn.ConvTranspose2d(2, 4, (3, 2), (1, 2), (2, 1), (1, 2), dilation=(2, 3))],
    "transposed, groups": [nn.ConvTranspose2d(2, 6, 3, 2, groups=2), nn.ReLU(), nn.ConvTranspose2d(6, 3, 2, groups=3)],
    "transposed, stride beyond kernel": [nn.ConvTranspose2d(2, 3, (2, 1), 3)],
    "transposed, 3x3": [nn.Conv2d(2, 16, 1), nn.ConvTranspose2d(16, 16, 3, padding=1), nn.Conv2d(16, 2, 1)],
    "transposed sum": [nn.Residual(nn.ConvTranspose2d(2, 2, 3, padding=1)), nn.ReLU()],
    "dilated max": [nn.MaxPool2d((2, 3), (1, 2), 0, (3, 2))],
    "dilated max, padded": [nn.MaxPool2d(3, 2, 1, (2, 1), ceil_mode=True), nn.ReLU()],
    "adaptive max": [nn.AdaptiveMaxPool2d((4, 3))],
    "adaptive max, more cells than there are": [nn.AdaptiveMaxPool2d((11, None))],
    "mean of what is there": [nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)],
    "unpooled": [nn.MaxUnpool2d(nn.MaxPool2d(2), nn.Conv2d(2, 2, 3, padding=1))],
    "unpooled, overlapping": [nn.MaxUnpool2d(nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.Tanh()), nn.Conv2d(2, 3, 2)],
    "unpooled twice": [
        nn.Conv2d(2, 5, 3, padding=1),
        nn.MaxUnpool2d(nn.MaxPool2d(2), nn.MaxUnpool2d(nn.MaxPool2d((3, 2), 1), nn.Identity())),
    ],
    "nearest": [nn.Upsample(scale_factor=(2, 1.5))],
    "bilinear": [nn.Upsample((13, 5), mode="bilinear"), nn.Conv2d(2, 3, 3, padding=1)],
    "bilinear, corners": [nn.Upsample((4, 17), mode="bilinear", align_corners=True)],
    "bicubic": [nn.Upsample(scale_factor=1.7, mode="bicubic"), nn.ReLU()],
    "bicubic, corners": [nn.Upsample((13, 1), mode="bicubic", align_corners=True)],
    "zeros": [nn.ZeroPad2d((1, -2, 0, 3)), nn.Conv2d(2, 4, 3, padding=1)],
    "reflection": [nn.ReflectionPad2d((3, 0, 1, 2))],
    "replication": [nn.ReplicationPad2d((3, 0, 1, 12)), nn.ReLU()],
    "reflected": [nn.Conv2d(2, 9, 3, padding=1, padding_mode="reflect"), nn.ReLU(), nn.MaxPool2d(2)],
    "replicated": [nn.Conv2d(2, 2, (4, 3), 2, 2, groups=2, padding_mode="replicate"), nn.ReLU()],
    "circular": [nn.Conv2d(2, 3, (4, 3), padding="same", dilation=(1, 2), padding_mode="circular")],
    "reflected by nothing": [nn.Conv2d(2, 3, 3, padding_mode="reflect")],
    "group norm": [nn.Conv2d(2, 6, 3), nn.GroupNorm(3, 6), nn.ReLU()],
    "group norm, one group": [nn.Conv2d(2, 35, 2), nn.GroupNorm(1, 35, affine=False)],
    "group norm, a channel each": [nn.GroupNorm(2, 2), nn.Conv2d(2, 3, 3, padding=1)],
    "group norm of a vector": [nn.Flatten(), nn.Linear(126, 12), nn.GroupNorm(3, 12), nn.Tanh()],
    "group norm of three axes": [nn.Unflatten(2, (3, 3)), nn.GroupNorm(2, 2), nn.Softmax(-1)],
    "layer norm": [nn.LayerNorm((2, 9, 7)), nn.Conv2d(2, 3, 3, padding=1)],
    "layer norm of rows": [nn.LayerNorm(7, 1e-3, bias=False)],
    "layer norm of maps": [nn.Conv2d(2, 3, 3), nn.LayerNorm((7, 5)), nn.ReLU()],
    "layer norm of a vector": [nn.Conv2d(2, 3, 3), nn.Flatten(), nn.LayerNorm(105, elementwise_affine=False)],
    "batch norm of a vector": [nn.Conv2d(2, 3, (9, 6)), nn.Flatten(), nn.BatchNorm1d(6), nn.ReLU()],
    "channels dropped": [nn.Dropout2d(0.4), nn.Conv2d(2, 7, 3, padding=1), nn.Dropout2d(0.5)],
    "elu": [nn.ELU(0.7)],
    "silu": [nn.SiLU()],
    "gelu": [nn.GELU()],
    "gelu, tanh": [nn.GELU("tanh")],
    "softplus": [nn.Softplus(), nn.Conv2d(2, 3, 3, padding=1)],
    "softplus, sharp": [nn.Softplus(3.0, 2.0)],
    "prelu": [nn.PReLU(init=0.1)],
    "prelu, a slope each": [nn.Conv2d(2, 6, 3), nn.PReLU(6), nn.Conv2d(6, 2, 1)],
    "prelu of a vector": [nn.Flatten(), nn.Linear(126, 9), nn.PReLU(9, 0.4), nn.PReLU()],
    "prelu of flattened maps": [nn.Flatten(), nn.PReLU(126, 0.4)],
    "log softmax": [nn.LogSoftmax(1)],
    "log softmax of rows": [nn.LogSoftmax(-1)],
    "unflatten": [nn.Flatten(), nn.Linear(126, 24), nn.Unflatten(1, (4, 3, 2)), nn.Conv2d(4, 3, 2, padding=1)],
    "unflatten what was flattened": [
        nn.Flatten(),
        nn.Residual(nn.Sequential(nn.Unflatten(1, (2, 9, 7)), nn.Conv2d(2, 2, 3, padding=1), nn.Flatten())),
    ],
    "other maps": [nn.Flatten(), nn.Unflatten(1, (3, 6, 7)), nn.Conv2d(3, 2, 3)],
    "identity": [nn.Identity(), nn.Residual(nn.Identity())],
    "concat": [nn.Concat(nn.Identity(), nn.Conv2d(2, 5, 3, padding=1), nn.Identity()), nn.Conv2d(9, 3, 2)],
    "inception": [
        nn.Concat(
            nn.Conv2d(2, 3, 1),
            nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU()),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(2, 2, 1)),
        ),
        nn.ReLU(),
    ],
    "skip": [
        nn.Concat(
            nn.Identity(),
            nn.Sequential(nn.Conv2d(2, 4, 3, (2, 2), 1), nn.ReLU(), nn.ConvTranspose2d(4, 3, 3, 2, 1), nn.ReLU()),
        ),
        nn.Conv2d(5, 2, 1),
    ],
    "concat of vectors": [
        nn.Concat(
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten()),
            nn.Sequential(nn.Conv2d(2, 1, (4, 5)), nn.Flatten()),
        ),
        nn.Tanh(),
    ],
    "concat of maps that were flattened": [
        nn.Concat(nn.Flatten(), nn.Sequential(nn.Conv2d(2, 1, 3, padding=1), nn.Flatten())), nn.Linear(189, 4)
    ],
}  # fmt: skip


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
    mode = "zeros" if rng.random() < 0.8 else rng.choice(("reflect", "replicate", "circular"))
    return nn.Conv2d(channels, out, _pair(rng, 5), stride, padding, dilation, groups, bias, mode)


def _transposed(rng: Random, shape: Shape) -> nn.Layer:
    channels, groups = shape[0], 1
    if rng.random() < 0.3:
        groups = rng.choice([g for g in range(1, channels + 1) if channels % g == 0 and g < 20])
    out = groups * rng.randint(1, 4) if groups > 1 else _channels(rng)
    stride, dilation = _pair(rng, 3), 1 if rng.random() < 0.7 else _pair(rng, 3)
    padding, more = rng.choice((0, 1, 1, (0, 2))), rng.choice((0, 0, 1, (1, 0)))
    return nn.ConvTranspose2d(
        channels, out, _pair(rng, 4), stride, padding, more, groups, rng.random() < 0.75, dilation
    )


def _pool(rng: Random, kind: type) -> nn.Layer:
    window = rng.choice((2, 2, 2, 3, (2, 3), (3, 1), _pair(rng, 6)))
    h, w = window if isinstance(window, tuple) else (window, window)
    padding = 0 if rng.random() < 0.6 else (rng.randint(0, h // 2), rng.randint(0, w // 2))
    stride = None if rng.random() < 0.6 else _pair(rng, 4)
    others: dict[str, object] = {"ceil_mode": rng.random() < 0.3}
    if kind is nn.MaxPool2d and rng.random() < 0.2:
        others["dilation"] = _pair(rng, 3)
    elif kind is nn.AvgPool2d:
        others["count_include_pad"] = rng.random() < 0.5
    return kind(window, stride, padding, **others)


def _resized(rng: Random) -> nn.Layer:
    kind = rng.randint(0, 4)
    if kind < 3:
        least = -1 if kind == 0 else 0
        sides = tuple(rng.randint(least, 3) for _ in range(4))
        return (nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)[kind](sides)
    mode = rng.choice(("nearest", "bilinear", "bicubic"))
    corners = None if mode == "nearest" else rng.choice((None, True, False))
    if rng.random() < 0.5:
        return nn.Upsample(_pair(rng, 12), mode=mode, align_corners=corners)
    return nn.Upsample(scale_factor=rng.choice((2, 2, 0.5, 1.3, (1.5, 3))), mode=mode, align_corners=corners)


def _unpooled(rng: Random, shape: Shape, shared: list[nn.Layer], depth: int) -> nn.Layer:
    pool = nn.MaxPool2d(rng.choice((2, 2, 3, (1, 2))), rng.choice((None, None, 1, 2)), ceil_mode=rng.random() < 0.3)
    pooled = pool.output_shape(shape)
    body = nn.Sequential(*_layers(rng, pooled, shared, 1, depth + 1))
    return nn.MaxUnpool2d(pool, body if body.output_shape(pooled) == pooled else nn.Identity())


def _concat(rng: Random, shape: Shape, shared: list[nn.Layer], depth: int) -> nn.Layer:
    """Branches of one size: those that have another are brought to that of the first."""
    branches: list[nn.Layer] = []
    size: Shape | None = None
    for _ in range(rng.randint(1, 3)):
        branch = nn.Sequential(*_layers(rng, shape, shared, rng.randint(1, 2), depth + 1))
        out = branch.output_shape(shape)
        size = size or out
        if len(out) != len(size):
            branch = nn.Identity()
        elif out[1:] != size[1:]:
            branch.append(nn.Upsample(size[1:]))
        if branch.output_shape(shape)[1:] == size[1:] and len(branch.output_shape(shape)) == len(size):
            branches.append(branch)
    return nn.Concat(*branches)


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
            nn.LogSoftmax(rng.choice(dims)),
            nn.ELU(rng.choice((1.0, 0.3))),
            nn.SiLU(),
            nn.GELU(rng.choice(("none", "tanh"))),
            nn.Softplus(*rng.choice(((1.0, 20.0), (3.0, 1.0)))),
            nn.PReLU(rng.choice((1, shape[0]))),
        )
    )


def _norm(rng: Random, shape: Shape) -> nn.Layer:
    kind = rng.random()
    if kind < 0.25:
        groups = [g for g in range(1, shape[0] + 1) if shape[0] % g == 0 and math.prod(shape) > g]
        if groups:
            return nn.GroupNorm(rng.choice(groups), shape[0], affine=rng.random() < 0.75)
    if kind < 0.5 or len(shape) != 3:
        return nn.LayerNorm(shape[rng.randrange(len(shape)) :], 1e-3, rng.random() < 0.75, rng.random() < 0.75)
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
    except (OptionError, ShapeError):
        return False
    return True


def _layer(rng: Random, shape: Shape, shared: list[nn.Layer], depth: int) -> nn.Layer:
    kinds: dict[str, Callable[[], nn.Layer]] = {
        "activation": lambda: _activation(rng, shape),
        "dropout": lambda: nn.Dropout(rng.choice((0.1, 0.5, 0.0, 0.9))),
        "norm": lambda: _norm(rng, shape),
    }
    weights = {"activation": 4, "dropout": 1, "norm": 2 if len(shape) == 3 else 1}
    if len(shape) == 3:
        kinds |= {
            "conv": lambda: _conv(rng, shape),
            "fused": lambda: _fused(rng, shape),
            "max": lambda: _pool(rng, nn.MaxPool2d),
            "mean": lambda: _pool(rng, nn.AvgPool2d),
            "adaptive": lambda: rng.choice((nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d))(
                rng.choice((1, 2, (3, None), (None, 2), _pair(rng, 6)))
            ),
            "transposed": lambda: _transposed(rng, shape),
            "resized": lambda: _resized(rng),
            "channels": lambda: nn.Dropout2d(rng.choice((0.1, 0.5))),
        }
        weights |= {"conv": 5, "fused": 3, "max": 1, "mean": 1, "adaptive": 1, "transposed": 2, "resized": 2}
        weights["channels"] = 1
    elif len(shape) == 1:
        sizes = [(a, b, shape[0] // (a * b)) for a in (1, 2, 3) for b in (1, 2) if shape[0] % (a * b) == 0]
        kinds["linear"] = lambda: _linear(rng, shape)
        kinds["unflatten"] = lambda: nn.Unflatten(1, rng.choice(sizes))
        weights |= {"linear": 4, "unflatten": 1}
    if len(shape) > 1 or rng.random() < 0.1:
        kinds["flatten"] = nn.Flatten
        weights["flatten"] = 1
    if depth < 2 and len(shape) in (1, 3):
        kinds["residual"] = lambda: _residual(rng, shape, shared, depth)
        kinds["sequential"] = lambda: nn.Sequential(*_layers(rng, shape, shared, rng.randint(1, 3), depth + 1))
        weights |= {"residual": 2, "sequential": 1}
        if len(shape) == 3:
            kinds["concat"] = lambda: _concat(rng, shape, shared, depth)
            kinds["unpooled"] = lambda: _unpooled(rng, shape, shared, depth)
            weights |= {"concat": 1, "unpooled": 1}
    again = [layer for layer in shared if _fits(layer, shape)]
    if again:
        kinds["shared"] = lambda: rng.choice(again)
        weights["shared"] = 2
    try:
        layer = kinds[rng.choice([kind for kind, weight in weights.items() for _ in range(weight)])]()
    except (OptionError, ShapeError):  # what does not fit such a shape
        return nn.Identity()
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
        except (OptionError, ShapeError):
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
    last = list(network.leaves())[-1][1]
    weight = np.array([rng.choice((0.2, 1.0, 3.0)) for _ in range(out[-1])]) if rng.random() < 0.3 else None
    if isinstance(last, nn.Sigmoid):
        return nn.BCELoss(weight)
    if isinstance(last, nn.LogSoftmax) and len(out) == 1:
        return nn.NLLLoss(weight)
    choices: list[nn.Loss] = [nn.MSELoss(), nn.BCEWithLogitsLoss(weight), nn.L1Loss(), nn.SmoothL1Loss(beta=0.5)]
    if len(out) == 1:
        choices += [nn.CrossEntropyLoss(weight, rng.choice((0.0, 0.1)))] * 8
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
        if isinstance(leaf, (nn.BatchNorm1d, nn.BatchNorm2d))
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
            if rng.random() < 0.2:
                layers.append(rng.choice((nn.LogSoftmax(), nn.Sigmoid())))
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
