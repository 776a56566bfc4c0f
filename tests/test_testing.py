"""The tests are tested: wrong layers, gradients and losses, each of which a check must catch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from available import EVERY_ENGINE
from oracles import randn
from pellucid import functional as F
from pellucid import nn, optim
from pellucid.errors import EngineError, OptionError
from pellucid.random import Stream
from pellucid.testing import (
    AgreementError,
    GradientError,
    LayerError,
    assert_engines_agree,
    check_function,
    check_gradients,
    check_layer,
    check_loss,
)


def wrong(base, change):
    """A layer like base whose backward returns change(right, dy, x, layer) for right = (dx, gradients)."""

    class Wrong(type(base)):
        def forward(self, x, *, training=False, rng=None):
            y, backward = super().forward(x, training=training, rng=rng)
            return y, lambda dy: change(backward(dy), dy, x, self)

    base.__class__ = Wrong
    return base


def gradients(**changes):
    """Changes some gradients: name=f(right, dy)."""
    return lambda right, dy, x, layer: (
        right[0],
        {name: changes[name](g, dy) if name in changes else g for name, g in right[1].items()},
    )


def dx(f):
    """Changes dx: f(right, dy, x, layer)."""
    return lambda right, dy, x, layer: (f(right[0], dy, x, layer), right[1])


def from_other_dy(f):
    """The right backward, of another dy."""

    def change(right, dy, x, layer):
        return layer.__class__.__mro__[1].forward(layer, x)[1](f(dy))

    return change


def conv():
    return nn.Conv2d(2, 3, (3, 3))


def with_weight(f):
    """dx with a kernel that f changed."""
    return dx(lambda right, dy, x, layer: F.conv2d_backward(dy, x, f(layer.weight), layer.stride, layer.padding)[0])


SQUARE = (4, 2, 7, 7)  # 5x5 maps: what is transposed keeps its shape
AROUND = ((0, 0), (0, 0), (1, 1), (1, 1))
WRONG_CONVOLUTIONS = {
    "dx: kernel not rotated": (conv, with_weight(lambda w: w[:, :, ::-1, ::-1])),
    "dx: kernel transposed in place of rotated": (conv, with_weight(lambda w: w.swapaxes(2, 3))),
    "dx: transposed": (conv, dx(lambda right, dy, x, layer: right.swapaxes(2, 3))),
    "dx: batch swapped": (conv, dx(lambda right, dy, x, layer: right[::-1])),
    "dx: edges lost": (conv, dx(lambda right, dy, x, layer: np.pad(right[:, :, 1:-1, 1:-1], AROUND))),
    "dx: only the last filter": (
        conv,
        dx(lambda right, dy, x, layer: F.conv2d_backward(dy[:, -1:], x, layer.weight[-1:])[0]),
    ),
    "dx: None": (conv, dx(lambda right, dy, x, layer: None)),
    "dW: kernel rotated": (conv, gradients(weight=lambda g, dy: g[:, :, ::-1, ::-1])),
    "dW: divided by N": (conv, gradients(weight=lambda g, dy: g / len(dy))),
    "dW: divided by the pixels": (conv, gradients(weight=lambda g, dy: g / dy[0, 0].size)),
    "dW: of the first image": (
        conv,
        lambda right, dy, x, layer: (
            right[0],
            {**right[1], "weight": F.conv2d_backward(dy[:1], x[:1], layer.weight)[1]},
        ),
    ),
    "dW: filters in another order": (conv, gradients(weight=lambda g, dy: g[::-1])),
    "db: not summed over N": (conv, gradients(bias=lambda g, dy: dy[0].sum((1, 2)))),
    "db: mean in place of sum": (conv, gradients(bias=lambda g, dy: dy.mean((0, 2, 3)))),
    "db: missing": (conv, lambda right, dy, x, layer: (right[0], {"weight": right[1]["weight"]})),
    "db: wrong shape": (conv, gradients(bias=lambda g, dy: dy.sum((2, 3)))),
    "all: dy transposed": (conv, from_other_dy(lambda dy: dy.swapaxes(2, 3))),
    "all: dy flipped": (conv, from_other_dy(lambda dy: dy[:, :, ::-1, ::-1])),
    "all: dy of another image": (conv, from_other_dy(lambda dy: dy[::-1])),
    "all: dy of another filter": (conv, from_other_dy(lambda dy: np.roll(dy, 1, axis=1))),
    "all: dy ignored": (conv, from_other_dy(np.ones_like)),
    "all: dy squared": (conv, from_other_dy(np.square)),
    "all: 0.1 percent too large": (conv, from_other_dy(lambda dy: 1.001 * dy)),
}

# What a check with dy = 1 everywhere cannot see: there a transposed, flipped or swapped dy is still dy.
INVISIBLE_TO_ONES = [
    "all: dy transposed",
    "all: dy flipped",
    "all: dy of another image",
    "all: dy of another filter",
    "all: dy ignored",
    "all: dy squared",
]


def ones_error(layer, x):
    """The largest relative error that a check with an incoming gradient of ones finds."""
    layer = layer.astype("float64")
    y, backward = layer.forward(x)
    dx, grads = backward(np.ones_like(y))
    rng, h, worst, state = np.random.default_rng(0), 1e-6, 0.0, layer.state_dict()
    for name, gradient in {"x": dx, **grads}.items():
        v = rng.standard_normal(gradient.shape)
        sides = []
        for sign in (h, -h):
            at = x + sign * v if name == "x" else x
            layer.load_state_dict(state if name == "x" else {**state, name: state[name] + sign * v})
            sides.append(layer(at).sum())
        change = (sides[0] - sides[1]) / (2 * h)
        worst = max(worst, abs(change - (gradient * v).sum()) / abs(change))
        layer.load_state_dict(state)
    return worst


@pytest.mark.capability("B4", "B5", "H3")
@pytest.mark.parametrize("name", WRONG_CONVOLUTIONS)
def test_wrong_convolutions_are_caught(name):
    make, change = WRONG_CONVOLUTIONS[name]
    x = randn(0, *SQUARE)
    check_gradients(make(), x)
    with pytest.raises(GradientError):
        check_gradients(wrong(make(), change), x)


@pytest.mark.capability("H3")
@pytest.mark.parametrize("name", INVISIBLE_TO_ONES)
def test_an_incoming_gradient_of_ones_lets_wrong_convolutions_pass(name):
    make, change = WRONG_CONVOLUTIONS[name]
    layer, x = wrong(make(), change), randn(0, *SQUARE)
    assert ones_error(layer, x) < 1e-7
    with pytest.raises(GradientError):
        check_gradients(layer, x)


def test_the_check_with_ones_sees_other_mistakes():
    assert ones_error(conv(), randn(0, *SQUARE)) < 1e-7
    make, change = WRONG_CONVOLUTIONS["dW: divided by N"]
    assert ones_error(wrong(make(), change), randn(0, *SQUARE)) > 0.1


class Function(nn.Layer):
    """A layer of two functions: f(x) and backward(dy, x)."""

    def __init__(self, f, b):
        super().__init__()
        self.f, self.b = f, b

    def forward(self, x, *, training=False, rng=None):
        return self.f(x), lambda dy: (self.b(dy, x), {})


def pool(x):
    return F.max_pool2d(x, 2)


def to_every_maximum(dy, x):
    """Gradient to all tied cells."""
    big = F.max_pool2d(x, 2).repeat(2, axis=2).repeat(2, axis=3)
    return np.where(x == big, dy.repeat(2, axis=2).repeat(2, axis=3), 0)


def overwriting(dy, x):
    """Overlapping windows 2x2, step 1, that overwrite in place of adding."""
    out = np.zeros_like(x)
    for i in range(dy.shape[2]):
        for j in range(dy.shape[3]):
            for n in range(len(x)):
                for c in range(x.shape[1]):
                    a, b = np.unravel_index(x[n, c, i : i + 2, j : j + 2].argmax(), (2, 2))
                    out[n, c, i + a, j + b] = dy[n, c, i, j]
    return out


def missing_stride(dy, x):
    """dx of a convolution with stride 2, whose windows step by 1 on the way back."""
    return np.pad(F.conv2d_backward(dy, x[:, :, :5, :5], KERNEL)[0], ((0, 0), (0, 0), (0, 2), (0, 2)))


KERNEL = randn(9, 2, 2, 3, 3)
MAPS = randn(1, 3, 2, 7, 7)
EVEN = randn(2, 3, 2, 6, 6)
ROWS = randn(3, 4, 5)
WRONG_LAYERS = {
    "stride forgotten on the way back": (
        Function(lambda x: F.conv2d(x, KERNEL, stride=2), missing_stride),
        MAPS,
    ),
    "max-pool: every window's last cell": (
        Function(pool, lambda dy, x: F.max_pool2d_backward(dy, x[:, :, ::-1, ::-1], 2)),
        EVEN,
    ),
    "max-pool: overwritten where windows overlap": (Function(lambda x: F.max_pool2d(x, 2, 1), overwriting), MAPS),
    "max-pool: 1 in place of dy": (
        Function(pool, lambda dy, x: F.max_pool2d_backward(np.ones_like(dy), x, 2)),
        EVEN,
    ),
    "max-pool: shape of what is not dropped": (
        Function(pool, lambda dy, x: F.max_pool2d_backward(dy, x, 2)[:, :, :6, :6]),
        MAPS,
    ),
    "avg-pool: not divided": (
        Function(lambda x: F.avg_pool2d(x, 2), lambda dy, x: 4 * F.avg_pool2d_backward(dy, x, 2)),
        EVEN,
    ),
    "avg-pool: divided twice": (
        Function(lambda x: F.avg_pool2d(x, 2), lambda dy, x: F.avg_pool2d_backward(dy, x, 2) / 4),
        EVEN,
    ),
    "relu: 1 in place of dy": (Function(F.relu, lambda dy, x: (x > 0) * 1.0), ROWS),
    "relu: of dy": (Function(F.relu, lambda dy, x: F.relu(dy)), ROWS),
    "relu: sign of dy": (Function(F.relu, lambda dy, x: np.where(dy > 0, dy, 0)), ROWS),
    "leaky relu: slope forgotten": (Function(lambda x: F.leaky_relu(x, 0.3), F.relu_backward), ROWS),
    "sigmoid: derivative at x": (Function(F.sigmoid, lambda dy, x: F.sigmoid_backward(dy, x)), ROWS),
    "tanh: derivative at x": (Function(F.tanh, F.tanh_backward), ROWS),
    "softmax: without the cross term": (
        Function(F.softmax, lambda dy, x: dy * F.softmax(x) * (1 - F.softmax(x))),
        ROWS,
    ),
    "softmax: only the largest class": (
        Function(F.softmax, lambda dy, x: F.softmax_backward(dy * (x == x.max(1, keepdims=True)), F.softmax(x))),
        ROWS,
    ),
    "softmax: over the batch": (
        Function(F.softmax, lambda dy, x: F.softmax_backward(dy, F.softmax(x), 0)),
        ROWS,
    ),
    "flatten: in another order": (
        Function(lambda x: x.reshape(3, -1), lambda dy, x: dy.reshape(x.shape, order="F")),
        EVEN,
    ),
    "residual: only the body": (
        Function(lambda x: F.tanh(x) + x, lambda dy, x: F.tanh_backward(dy, F.tanh(x))),
        ROWS,
    ),
    "residual: only the way around": (Function(lambda x: F.tanh(x) + x, lambda dy, x: dy), ROWS),
    "linear: dx with the weight not transposed": (
        Function(lambda x: F.linear(x, KERNEL[0, 0]), lambda dy, x: dy @ KERNEL[0, 0].T),
        ROWS[:, :3],
    ),
    "constant: gradient where nothing changes": (Function(np.ones_like, lambda dy, x: dy), ROWS),
    "gradient of zero": (Function(F.tanh, lambda dy, x: np.zeros_like(x)), ROWS),
    "gradient that is not finite": (Function(F.tanh, lambda dy, x: np.full_like(x, np.nan)), ROWS),
    "gradient that overflows": (Function(F.tanh, lambda dy, x: np.full_like(x, np.inf)), ROWS),
    "one wrong element of many": (
        Function(F.tanh, lambda dy, x: F.tanh_backward(dy, F.tanh(x)) + 1e-3 * (np.arange(5) == 2)),
        ROWS,
    ),
}


@pytest.mark.capability("H3", "B9", "B11", "B12", "B19", "B20")
@pytest.mark.parametrize("name", WRONG_LAYERS)
def test_wrong_layers_are_caught(name):
    layer, x = WRONG_LAYERS[name]
    with pytest.raises(GradientError, match=r"the gradient by x is wrong|dx must have"):
        check_gradients(layer, x)


@pytest.mark.capability("B9")
def test_a_gradient_to_every_tied_cell_is_caught():
    """At a tie there is no derivative, but there is one along the direction that keeps the tie."""
    x = EVEN.repeat(2, axis=2).repeat(2, axis=3)
    dy = randn(4, *EVEN.shape)

    def along(a):
        return float((pool(a.repeat(2, axis=2).repeat(2, axis=3)) * dy).sum())

    def gathered(d):
        return d.reshape(3, 2, 6, 2, 6, 2).sum((3, 5))

    check_function(along, gathered(F.max_pool2d_backward(dy, x, 2)), EVEN)
    with pytest.raises(GradientError, match="4 times too large"):
        check_function(along, gathered(to_every_maximum(dy, x)), EVEN)


WRONG_TRAINING = {
    "batch norm: without the mean's term": (
        lambda: nn.BatchNorm2d(2),
        dx(lambda right, dy, x, layer: right + dy.mean((0, 2, 3), keepdims=True)),
    ),
    "batch norm: statistics taken as constants": (
        lambda: nn.BatchNorm2d(2),
        dx(lambda right, dy, x, layer: dy / np.sqrt(x.var((0, 2, 3), keepdims=True) + layer.eps)),
    ),
    "batch norm: without the variance's term": (
        lambda: nn.BatchNorm2d(2),
        dx(
            lambda right, dy, x, layer: (
                (dy - dy.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + layer.eps)
            )
        ),
    ),
    "batch norm: running statistics on the way back": (
        lambda: nn.BatchNorm2d(2),
        lambda right, dy, x, layer: (
            F.batch_norm_backward(dy, x, layer.running_mean, layer.running_var, layer.weight)[0],
            right[1],
        ),
    ),
    "batch norm: weight gradient of x in place of x^": (
        lambda: nn.BatchNorm2d(2),
        lambda right, dy, x, layer: (right[0], {**right[1], "weight": (dy * x).sum((0, 2, 3))}),
    ),
    "dropout: not scaled on the way back": (lambda: nn.Dropout(0.5), dx(lambda right, dy, x, layer: right / 2)),
    "dropout: another mask": (
        lambda: nn.Dropout(0.5),
        dx(lambda right, dy, x, layer: layer.__class__.__mro__[1].forward(layer, dy, training=True, rng=Stream(99))[0]),
    ),
    "dropout: no mask": (lambda: nn.Dropout(0.5), dx(lambda right, dy, x, layer: dy)),
    "dropout: all dropped, gradient kept": (lambda: nn.Dropout(1.0), dx(lambda right, dy, x, layer: dy)),
    "residual: one way": (
        lambda: nn.Residual(nn.Conv2d(2, 2, 1)),
        dx(lambda right, dy, x, layer: right - dy),
    ),
}


@pytest.mark.capability("B21", "B22", "B23", "H3")
@pytest.mark.parametrize("name", WRONG_TRAINING)
def test_wrong_training_passes_are_caught(name):
    make, change = WRONG_TRAINING[name]
    x = 2 + randn(5, 3, 2, 4, 5)
    check_gradients(make(), x, training=True)
    with pytest.raises(GradientError):
        check_gradients(wrong(make(), change), x, training=True)


def test_a_shared_layer_whose_gradients_overwrite_is_caught():
    class Overwriting(nn.Sequential):
        def _merge_shared(self, gradients):
            return {"0.weight": gradients["1.weight"], "0.bias": gradients["1.bias"]}

    shared = nn.Linear(5, 5)
    check_gradients(nn.Sequential(shared, shared), ROWS)
    with pytest.raises(GradientError, match=r"the gradient by 0.weight is wrong"):
        check_gradients(Overwriting(shared, shared), ROWS)


def test_a_wrong_linear_is_caught():
    for change in (
        gradients(bias=lambda g, dy: dy[0]),
        gradients(weight=lambda g, dy: g / len(dy)),
        gradients(weight=lambda g, dy: g.T),
        gradients(weight=lambda g, dy: -g),
        dx(lambda right, dy, x, layer: right / len(dy)),
    ):
        with pytest.raises(GradientError):
            check_gradients(wrong(nn.Linear(5, 5), change), ROWS)


# Losses


class Loss(nn.Loss):
    def __init__(self, value, gradient):
        self.value, self.gradient = value, gradient

    def forward(self, output, target):
        return self.value(output, target), lambda: self.gradient(output, target)


LABELS = np.array([0, 3, 1, 4])
FLOATS = np.random.default_rng(0).random((4, 5))
WRONG_LOSSES = {
    "cross-entropy: without 1/N": (F.cross_entropy, lambda o, t: 4 * F.cross_entropy_backward(o, t), LABELS),
    "cross-entropy: one-hot - p": (F.cross_entropy, lambda o, t: -F.cross_entropy_backward(o, t), LABELS),
    "cross-entropy: only the true class": (
        F.cross_entropy,
        lambda o, t: F.cross_entropy_backward(o, t) * np.eye(5)[t],
        LABELS,
    ),
    "cross-entropy: softmax twice": (
        F.cross_entropy,
        lambda o, t: F.cross_entropy_backward(F.softmax(o), t),
        LABELS,
    ),
    "cross-entropy: softmax over the batch": (
        F.cross_entropy,
        lambda o, t: (F.softmax(o, 0) - np.eye(5)[t]) / 4,
        LABELS,
    ),
    "cross-entropy: divided by the classes": (
        F.cross_entropy,
        lambda o, t: F.cross_entropy_backward(o, t) * 4 / 5,
        LABELS,
    ),
    "class weights: divided by N": (
        lambda o, t: F.cross_entropy(o, t, np.arange(1.0, 6)),
        lambda o, t: np.arange(1.0, 6)[t][:, None] * F.cross_entropy_backward(o, t),
        LABELS,
    ),
    "mse: without 2": (F.mse_loss, lambda o, t: (o - t) / o.size, FLOATS),
    "mse: divided by N only": (F.mse_loss, lambda o, t: 2 * (o - t) / len(o), FLOATS),
    "mse: sign": (F.mse_loss, lambda o, t: 2 * (t - o) / o.size, FLOATS),
    "bce: without the sigmoid": (
        F.binary_cross_entropy_with_logits,
        lambda o, t: (o - t) / o.size,
        FLOATS,
    ),
    "a loss that is NaN": (lambda o, t: float("nan"), F.mse_loss_backward, FLOATS),
}


@pytest.mark.capability("D1", "D2")
@pytest.mark.parametrize("name", WRONG_LOSSES)
def test_wrong_losses_are_caught(name):
    value, gradient, target = WRONG_LOSSES[name]
    with pytest.raises(GradientError, match="the gradient by the output is wrong"):
        check_loss(Loss(value, gradient), ROWS, target)


# The checks themselves


@pytest.mark.capability("H3")
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (gradients(weight=lambda g, dy: 4 * g), "it is 4 times too large"),
        (gradients(weight=lambda g, dy: g / 4), "it is 4 times too small"),
        (gradients(weight=lambda g, dy: 0 * g), "it is zero"),
        (gradients(weight=lambda g, dy: g * np.nan), "it must be finite"),
        (gradients(weight=lambda g, dy: np.flip(g)), "axes or the kernel may be flipped or transposed, or a sum over"),
        (
            gradients(weight=lambda g, dy: g[0]),
            r"the gradient by weight has shape \(2, 3, 3\), must have \(3, 2, 3, 3\)",
        ),
        (
            lambda right, dy, x, layer: (right[0], {}),
            r"backward gives gradients by \[\], the parameters are \['bias', 'w",
        ),
        (dx(lambda right, dy, x, layer: None), r"dx must have the input's shape \(4, 2, 7, 7\), got None"),
        (dx(lambda right, dy, x, layer: right[0]), r"dx must have the input's shape \(4, 2, 7, 7\), got \(2, 7, 7\)"),
    ],
)
def test_the_message_guesses_the_cause(change, match):
    with pytest.raises(GradientError, match=match):
        check_gradients(wrong(conv(), change), randn(0, *SQUARE))


def test_a_gradient_where_nothing_changes_is_named():
    layer, x = WRONG_LAYERS["constant: gradient where nothing changes"]
    with pytest.raises(GradientError, match="the output does not change in that direction"):
        check_gradients(layer, x)


@pytest.mark.capability("H3")
def test_gradients_that_are_zero_pass():
    """Rounding is no error: dead units, and a bias before batch norm, whose gradient is 0 but for rounding."""
    check_gradients(nn.ReLU(), -1 - np.abs(ROWS))
    check_gradients(nn.Dropout(1.0), ROWS, training=True)
    check_gradients(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)), randn(0, *SQUARE), training=True)
    with pytest.raises(GradientError, match=r"the gradient by 0\.bias is wrong"):
        check_gradients(
            nn.Sequential(wrong(nn.Conv2d(2, 3, 3), gradients(bias=lambda g, dy: g + 1e-3)), nn.BatchNorm2d(3)),
            randn(0, *SQUARE),
            training=True,
        )


def test_check_layer_leaves_the_layer_alone():
    layer = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout(), input_shape=(2, 7, 7))
    before = layer.state_dict()
    check_gradients(layer, randn(0, *SQUARE), training=True, seed=5)
    assert layer.version == 0
    assert all(np.array_equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("seed", range(20))
def test_right_layers_pass_for_every_seed(seed):
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(100, 3))
    check_gradients(net, randn(seed, *SQUARE), training=True, seed=seed)
    check_loss(nn.CrossEntropyLoss(), 3 * randn(seed, 4, 5), LABELS, seed=seed)
    check_function(lambda a: float(np.sin(a).sum()), np.cos(ROWS), ROWS, seed=seed)
    with pytest.raises(GradientError):
        check_gradients(wrong(conv(), from_other_dy(lambda dy: 1.00001 * dy)), randn(seed, *SQUARE), seed=seed)


@pytest.mark.capability("H3")
@pytest.mark.parametrize(
    ("gradient", "match"),
    [
        (np.sin(ROWS), "the gradient by x is wrong"),
        (2 * np.cos(ROWS), "it is 2 times too large"),
        (np.cos(ROWS)[0], r"the gradient has shape \(5,\), must have \(4, 5\)"),
        (np.cos(ROWS).T, "must have"),
        (np.full(ROWS.shape, np.inf), "it must be finite"),
    ],
)
def test_check_gradients(gradient, match):
    check_function(lambda a: float(np.sin(a).sum()), np.cos(ROWS), ROWS)
    with pytest.raises(GradientError, match=match):
        check_function(lambda a: float(np.sin(a).sum()), gradient, ROWS)


def test_tolerance():
    layer = wrong(conv(), from_other_dy(lambda dy: 1.001 * dy))
    assert check_gradients(layer, randn(0, *SQUARE), tolerance=0.01) is None
    with pytest.raises(AssertionError, match="allowed 1e-05"):
        check_gradients(layer, randn(0, *SQUARE), tolerance=1e-5)


class Remembers(nn.ReLU):
    def forward(self, x, *, training=False, rng=None):
        self.x = x
        return super().forward(x)


class WrongShape(nn.Flatten):
    def output_shape(self, input_shape):
        return input_shape


class Widens(nn.ReLU):
    def forward(self, x, *, training=False, rng=None):
        y, backward = super().forward(x)
        return y * np.float64(1) + np.zeros(1), backward


class Mixes(nn.Layer):
    def forward(self, x, *, training=False, rng=None):
        return x - x.mean(axis=0), lambda dy: (dy - dy.mean(axis=0), {})


class WrongInTraining(nn.Dropout):
    def forward(self, x, *, training=False, rng=None):
        y, backward = super().forward(x, training=training, rng=rng)
        return y, (lambda dy: (2 * backward(dy)[0], {})) if training else backward


@pytest.mark.parametrize(
    ("layer", "error", "words"),
    [
        (Remembers(), LayerError, "Remembers stores something when it is called"),
        (WrongShape(), LayerError, r"gives \(60,\) for one image, but output_shape says \(3, 4, 5\)"),
        (Widens(), LayerError, "makes float64 of float32"),
        (Mixes(), LayerError, "another output in another batch"),
        (WrongInTraining(0.3), GradientError, "2 times too large"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_check_layer_names_the_broken_promise(layer, error, words):
    with pytest.raises(error, match=words):
        check_layer(layer, randn(0, 4, 3, 4, 5))


@pytest.mark.capability("H3")
@pytest.mark.parametrize(
    "layer", [nn.Conv2d(3, 2, (3, 2)), nn.Dropout(0.4), nn.BatchNorm2d(3), nn.MaxPool2d(2)], ids=repr
)
def test_check_layer_passes_right_layers(layer):
    before = layer.state_dict()
    check_layer(layer, randn(0, 4, 3, 4, 5))
    assert all((layer.state_dict()[name] == value).all() for name, value in before.items())


# Engines


def small(*layers: nn.Layer, dtype: str = "float32") -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), *layers, nn.Flatten(), nn.LazyLinear(3)),
        input_shape=(2, 7, 6),
        dtype=dtype,
    )


@pytest.mark.capability("C14")
@pytest.mark.parametrize("engine", EVERY_ENGINE)
def test_engines_agree(engine):
    net = small()
    before = net.flat_parameters.copy(), net.flat_buffers.copy(), net.version
    assert_engines_agree(net, [engine])
    assert_engines_agree(net, (engine,), nn.MSELoss(), optim.SGD(lr=0.05, momentum=0.9), steps=5, batch_size=3, seed=4)
    assert np.array_equal(net.flat_parameters, before[0])
    assert np.array_equal(net.flat_buffers, before[1])
    assert net.version == before[2]


WRONG = {
    "outputs": ("predict", lambda y: y * 1.001),
    "loss": ("loss_and_gradients", lambda y: (y[0] + 1e-4, y[1])),
    "gradients": ("loss_and_gradients", lambda y: (y[0], y[1][::-1])),
    "loss of step 7": ("train", lambda y: y + 1e-4 * (np.arange(len(y)) > 2) if next(CHUNK) % 5 == 1 else y),
    "loss of step 3": ("train", lambda y: y[:3]),
    "loss of step 0": ("train", lambda y: np.full_like(y, np.nan)),
}
CHUNK = itertools.count()


@pytest.mark.parametrize("what", WRONG)
def test_an_engine_that_is_off_is_caught(monkeypatch, what):
    from pellucid.compiled.engine import CompiledEngine

    method, spoil = WRONG[what]
    true = getattr(CompiledEngine, method)
    monkeypatch.setitem(globals(), "CHUNK", itertools.count())
    monkeypatch.setattr(CompiledEngine, method, lambda self, *a, **k: spoil(true(self, *a, **k)))
    with pytest.raises(
        AgreementError, match=f'the engine "compiled" is off the definition in {what}: by .* allowed is'
    ):
        assert_engines_agree(small())


def test_engines_are_not_asked_about_what_is_no_network():
    for net in (nn.ReLU(), nn.Sequential(nn.ReLU())):
        with pytest.raises(OptionError, match="net must be a built network"):
            assert_engines_agree(net)
    with pytest.raises(OptionError, match='unknown engine "refrence"'):
        assert_engines_agree(small(), ["refrence"])
    sequence = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.LazyLinear(2), input_shape=(2, 9))
    with pytest.raises(EngineError, match="no kernel for layer 0"):
        assert_engines_agree(sequence)
