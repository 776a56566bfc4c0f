"""Checks for one's own layers: what each must do, gradients against central differences, engines side by side."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Sequence

import numpy as np

from pellucid import optim
from pellucid._types import Array
from pellucid.engines import create
from pellucid.errors import OptionError, PellucidError
from pellucid.nn import CrossEntropyLoss, Layer, Loss, MSELoss, Network
from pellucid.optim import Optimizer
from pellucid.random import Stream

STEP = 1e-6
TOLERANCE = 1e-7


class GradientError(PellucidError, AssertionError):
    """A backward pass that disagrees with finite differences."""


def _along(gradient: Array, v: Array) -> float:
    """Return the derivative in the direction v; NaN for a gradient that is not finite."""
    with np.errstate(invalid="ignore"):
        return float((gradient * v).sum())


def _compare(name: str, change: float, predicted: float, scale: float, tolerance: float, size: float) -> None:
    """Compare two derivatives; size is that of the numbers whose difference gave change, and so of its rounding."""
    off = abs(change - predicted)
    if off <= 10 * float(np.finfo(np.float64).eps) * size / STEP:
        return
    error = off / max(abs(change), abs(predicted), scale)
    if not error < tolerance:
        ratio = predicted / change if change else math.inf
        hint = "the axes or the kernel may be flipped or transposed, or a sum over the batch may be missing"
        if not math.isfinite(predicted) or not math.isfinite(change):
            hint = "it must be finite"
        elif not math.isfinite(ratio):
            hint = "the output does not change in that direction"
        elif abs(ratio - round(ratio)) < 1e-3 and round(ratio) not in (0, 1):
            hint = f"it is {round(ratio)} times too large"
        elif 0 < ratio < 1 and abs(1 / ratio - round(1 / ratio)) < 1e-3:
            hint = f"it is {round(1 / ratio)} times too small"
        elif predicted == 0:
            hint = "it is zero"
        raise GradientError(
            f"the gradient by {name} is wrong: along a random direction backward gives {predicted:.9g}, "
            f"central differences {change:.9g} (relative error {error:.1e}, allowed {tolerance:g}); {hint}"
        )


class LayerError(PellucidError, AssertionError):
    """A layer that does not do what every layer must."""


def check_layer(layer: Layer, x: Array, *, seed: int = 0, tolerance: float = TOLERANCE) -> None:
    """Check all that a layer must do: shapes, types, no memory of a call, images that do not mix, gradients.

    Args:
        layer: Any layer or network; it is not changed.
        x: Input with the batch axis first, of more than one sample, away from kinks and ties.
        seed: Of the random directions and of dropout.
        tolerance: Allowed relative error of gradients.

    Raises:
        LayerError: Where a layer breaks a promise, which is named.
        GradientError: Where its backward is wrong, in inference or in training.

    >>> from pellucid import nn
    >>> check_layer(nn.BatchNorm2d(2), Stream(1).normal(0, 1, (3, 2, 4, 5)))
    """
    layer = copy.deepcopy(layer)
    name = type(layer).__name__
    before = pickle.dumps(layer)
    y = layer(x.astype(np.float32))
    if pickle.dumps(layer) != before:
        raise LayerError(f"{name} stores something when it is called; keep it in the closure that forward returns")
    if y.shape[1:] != layer.output_shape(x.shape[1:]):
        raise LayerError(
            f"{name} gives {y.shape[1:]} for one image, but output_shape says {layer.output_shape(x.shape[1:])}"
        )
    if y.dtype != np.float32:
        raise LayerError(f"{name} makes {y.dtype} of float32; all its constants must leave the type as it is")
    double = layer.astype("float64")
    x = np.asarray(x, dtype=np.float64)
    together, alone = double(x), np.concatenate([double(x[i : i + 1]) for i in range(len(x))])
    if together.shape != alone.shape or not np.allclose(together, alone, rtol=1e-9, atol=1e-12, equal_nan=True):
        raise LayerError(f"{name} gives an image another output in another batch; images must not mix in inference")
    for training in (False, True):
        check_gradients(layer, x, training=training, seed=seed, tolerance=tolerance)


def check_gradients(
    layer: Layer,
    x: Array,
    *,
    training: bool = False,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> None:
    """Compare a layer's backward with central differences, for the input and each parameter, in float64.

    For a random gradient u of the output and a random direction v, u . (f(a + h v) - f(a - h v)) / 2h must equal v .
    gradient. A gradient u of ones would let flipped and transposed kernels pass; a random one does not. Choose x away
    from kinks (ReLU at 0) and ties (max-pooling), where the derivative does not exist.

    Args:
        layer: Any layer or network; it is not changed.
        x: Input with the batch axis first, of more than one sample.
        training: Check the training mode.
        seed: Of the random directions and of dropout.
        tolerance: Allowed relative error.

    Raises:
        GradientError: Where they disagree, with a guess at the cause.

    >>> from pellucid import nn
    >>> check_gradients(nn.Conv2d(2, 3, (3, 2), stride=2), Stream(1).normal(0, 1, (2, 2, 7, 6)))
    """
    layer = layer.astype("float64")
    x = np.asarray(x, dtype=np.float64)
    rng = np.random.default_rng(seed)
    parameters = {name: value.copy() for name, value in layer.named_parameters().items()}
    start = {**parameters, **{name: value.copy() for name, value in layer.named_buffers().items()}}

    def run(at: Array, changed: dict[str, Array]) -> Array:
        layer.load_state_dict({**start, **changed}, strict=False)  # a shared parameter has one of its names here
        return layer.forward(at, training=training, rng=Stream(seed))[0]

    y, backward = layer.forward(x, training=training, rng=Stream(seed))
    u = rng.standard_normal(y.shape)
    dx, gradients = backward(u)
    if set(gradients) != set(parameters):
        raise GradientError(f"backward gives gradients by {sorted(gradients)}, the parameters are {sorted(parameters)}")
    if dx is None or dx.shape != x.shape:
        raise GradientError(f"dx must have the input's shape {x.shape}, got {None if dx is None else dx.shape}")
    directions = {"x": rng.standard_normal(x.shape)}
    directions.update({name: rng.standard_normal(value.shape) for name, value in parameters.items()})
    for name, v in directions.items():
        gradient = dx if name == "x" else gradients[name]
        if gradient.shape != v.shape:
            raise GradientError(f"the gradient by {name} has shape {gradient.shape}, must have {v.shape}")
        sides = []
        for h in (STEP, -STEP):
            sides.append(run(x + h * v, {}) if name == "x" else run(x, {name: parameters[name] + h * v}))
        change = float((u * (sides[0] - sides[1])).sum() / (2 * STEP))
        scale = 1e-3 * float(np.linalg.norm(gradient) * np.linalg.norm(v))
        size = float(np.linalg.norm(u) * np.linalg.norm(y))
        _compare(name, change, _along(gradient, v), scale, tolerance, size)


def check_loss(loss: Loss, output: Array, target: Array, *, seed: int = 0, tolerance: float = TOLERANCE) -> None:
    """Compare a loss's backward with central differences, in float64.

    Args:
        loss: Any loss.
        output: What a network gives, (N, ...).
        target: What the loss takes with it.
        seed: Of the random direction.
        tolerance: Allowed relative error.

    Raises:
        GradientError: Where they disagree.

    >>> from pellucid import nn
    >>> check_loss(nn.CrossEntropyLoss(), Stream(0).normal(0, 1, (4, 3)), np.array([0, 2, 1, 1]))
    """
    output = np.asarray(output, dtype=np.float64)
    v = np.random.default_rng(seed).standard_normal(output.shape)
    gradient = loss.forward(output, target)[1]()
    value, before = loss(output + STEP * v, target), loss(output - STEP * v, target)
    scale = 1e-3 * float(np.linalg.norm(gradient) * np.linalg.norm(v))
    change = (value - before) / (2 * STEP)
    _compare("the output", change, _along(gradient, v), scale, tolerance, abs(value))


def check_function(
    function: Callable[[Array], float], gradient: Array, x: Array, *, seed: int = 0, tolerance: float = TOLERANCE
) -> None:
    """Compare a gradient that one computed oneself with central differences of a function, in float64.

    Args:
        function: Takes an array like x, returns a number.
        gradient: What is claimed to be the gradient at x.
        x: Where.
        seed: Of the random direction.
        tolerance: Allowed relative error.

    Raises:
        GradientError: Where they disagree.

    >>> x = np.array([1.0, 2.0])
    >>> check_function(lambda a: float((a**2).sum()), 2 * x, x)
    """
    x = np.asarray(x, dtype=np.float64)
    if np.shape(gradient) != x.shape:
        raise GradientError(f"the gradient has shape {np.shape(gradient)}, must have {x.shape}")
    v = np.random.default_rng(seed).standard_normal(x.shape)
    value, before = function(x + STEP * v), function(x - STEP * v)
    scale = 1e-3 * float(np.linalg.norm(gradient) * np.linalg.norm(v))
    change = (value - before) / (2 * STEP)
    _compare("x", change, _along(np.asarray(gradient), v), scale, tolerance, abs(value))


class AgreementError(PellucidError, AssertionError):
    """Engines that give different numbers for the same network."""


def assert_engines_agree(
    net: Network,
    engines: Sequence[str] = ("compiled", "reference"),
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
    *,
    steps: int = 20,
    batch_size: int = 6,
    seed: int = 0,
) -> None:
    """Compare engines on a network with the definition: the reference engine in float64.

    Compared are outputs, loss and gradients (max |a - b| / max |b|), and the losses of some steps of training, dropout
    included, on random inputs. Allowed is 1e-8 in float64, and for the engine "compiled", which computes in float32,
    1e-5, for gradients 1e-4.

    Args:
        net: Built; it is not changed.
        engines: Names of engines.
        loss: If None, cross-entropy where the network gives numbers for classes, else mean squared error.
        optimizer: Adam with lr 1e-3 if None.
        steps: How many are compared.
        batch_size: Samples of a step; every fourth one has fewer.
        seed: Of the inputs, and of dropout.

    Raises:
        AgreementError: Names the engine, what differs, and by how much.
        EngineError: For a network that an engine cannot run.
        OptionError: For a network that is not built, or an unknown engine.

    >>> from pellucid import nn
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.LazyLinear(3))
    >>> assert_engines_agree(net.build((1, 6, 5)))
    """
    if not isinstance(net, Network) or not net.built:
        raise OptionError("net must be a built network; give input_shape=(C, H, W)")
    out = net.output_shape(net.input_shape)
    loss = loss or (CrossEntropyLoss() if len(out) == 1 else MSELoss())
    optimizer = optimizer or optim.Adam(lr=1e-3)
    n = 4 * batch_size - 1
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, *net.input_shape)).astype(np.float32)
    y = rng.integers(0, out[0], n) if loss.takes_labels else rng.random((n, *out))
    chunks = [(rng.permutation(n), np.full(min(4, steps - first), optimizer.lr)) for first in range(0, steps, 4)]

    def measured(name: str) -> dict[str, Array]:
        engine = create(name)
        engine.build(net.astype("float32" if name == "compiled" else "float64"), loss, optimizer, seed)
        outputs = engine.predict(x)
        value, gradients = engine.loss_and_gradients(x, y)
        losses = [
            engine.train(x, y, order[: len(rates) * batch_size], batch_size, 4 * i, rates)
            for i, (order, rates) in enumerate(chunks)
        ]
        return {
            "outputs": outputs,
            "loss": np.array([value]),
            "gradients": gradients,
            **{f"loss of step {i}": np.array([v]) for i, v in enumerate(np.concatenate(losses))},
        }

    definition = measured("reference")
    for name in engines:
        found = measured(name)
        for what, expected in definition.items():
            allowed = (1e-4 if what == "gradients" else 1e-5) if name == "compiled" else 1e-8
            size = float(np.abs(expected).max(initial=0.0)) or 1.0
            got = found.get(what, np.full_like(expected, np.nan))
            off = float(np.abs(got - expected).max(initial=0.0)) / size
            if not off <= allowed:
                raise AgreementError(
                    f'the engine "{name}" is off the definition in {what}: by {off:.1e} of the largest, '
                    f"allowed is {allowed:g}"
                )
