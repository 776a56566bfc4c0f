"""One table of all layers and losses, run through the same checks; a class that is not in it fails."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

from oracles import assert_near, randn
from pellucid import functional as F
from pellucid import nn
from pellucid.errors import OptionError, ShapeError
from pellucid.nn.layer import Layer
from pellucid.nn.spec import LEAVES, from_spec, to_spec
from pellucid.random import Stream
from pellucid.testing import check_gradients, check_loss


def in_network(*layers, shape):
    return nn.Sequential(*layers, input_shape=shape)


def block(channels):
    return nn.Sequential(nn.Conv2d(channels, channels, (3, 5), padding="same"), nn.Tanh(), nn.BatchNorm2d(channels))


LAYERS = {
    nn.AdaptiveAvgPool1d: [(lambda: nn.AdaptiveAvgPool1d(3), (2, 7))],
    nn.AdaptiveAvgPool2d: [
        (lambda: nn.AdaptiveAvgPool2d(1), (2, 4, 5)),
        (lambda: nn.AdaptiveAvgPool2d((3, 2)), (2, 7, 5)),
        (lambda: nn.AdaptiveAvgPool2d((None, 7)), (2, 4, 5)),
        (lambda: nn.AdaptiveAvgPool2d(np.int64(2)), (2, 4, 5)),
    ],
    nn.AdaptiveAvgPool3d: [(lambda: nn.AdaptiveAvgPool3d((2, None, 1)), (2, 3, 4, 2))],
    nn.AdaptiveMaxPool1d: [(lambda: nn.AdaptiveMaxPool1d(3), (2, 7))],
    nn.AdaptiveMaxPool2d: [(lambda: nn.AdaptiveMaxPool2d((3, 2)), (2, 7, 5))],
    nn.AdaptiveMaxPool3d: [(lambda: nn.AdaptiveMaxPool3d((2, None, 1)), (2, 3, 4, 2))],
    nn.AvgPool1d: [(lambda: nn.AvgPool1d(3, 2, 1), (2, 7))],
    nn.AvgPool2d: [
        (lambda: nn.AvgPool2d(2), (2, 5, 6)),
        (lambda: nn.AvgPool2d((3, 2), (2, 1), (1, 1), ceil_mode=True), (2, 6, 7)),
        (lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), (2, 6, 7)),
    ],
    nn.AvgPool3d: [(lambda: nn.AvgPool3d((2, 1, 3)), (2, 4, 3, 5))],
    nn.BatchNorm1d: [(lambda: nn.BatchNorm1d(3), (3,)), (lambda: nn.BatchNorm1d(3), (3, 5))],
    nn.BatchNorm2d: [
        (lambda: nn.BatchNorm2d(3), (3, 4, 5)),
        (lambda: nn.BatchNorm2d(2, eps=0.1, momentum=None, affine=False), (2, 3, 2)),
    ],
    nn.BatchNorm3d: [(lambda: nn.BatchNorm3d(2), (2, 3, 2, 4))],
    nn.Concat: [
        (lambda: nn.Concat(nn.Identity(), nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Tanh())), (2, 5, 4)),
        (lambda: nn.Concat(nn.Linear(6, 2), nn.Dropout(0.5), nn.Linear(6, 1)), (6,)),
        (
            lambda: in_network(nn.Concat(nn.Concat(block(2)), nn.Dropout(0.4)), nn.LazyConv2d(3, 1), shape=(2, 4, 5)),
            (2, 4, 5),
        ),
    ],
    nn.Conv1d: [
        (lambda: nn.Conv1d(4, 3, 5), (4, 9)),
        (lambda: nn.Conv1d(4, 6, 3, 2, "same_upper", 2, groups=2, bias=False), (4, 9)),
    ],
    nn.Conv2d: [
        (lambda: nn.Conv2d(3, 4, (3, 2)), (3, 6, 5)),
        (lambda: nn.Conv2d(4, 6, (2, 3), (2, 1), (1, 2), (1, 2), groups=2, bias=False), (4, 6, 7)),
        (lambda: nn.Conv2d(3, 6, 3, padding="same", groups=3, init="he_normal"), (3, 5, 4)),
        (lambda: nn.Conv2d(2, 3, (3, 4), 2, padding="same_lower", init=("uniform", -0.5, 0.5)), (2, 7, 6)),
        (lambda: nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="reflect", bias=False), (2, 5, 4)),
        (lambda: nn.Conv2d(2, 3, (3, 2), padding="same", padding_mode="replicate"), (2, 5, 4)),
        (lambda: nn.Conv2d(2, 3, 3, 2, padding=1, padding_mode="circular"), (2, 5, 4)),
    ],
    nn.Conv3d: [
        (lambda: nn.Conv3d(2, 3, (1, 2, 3), padding=(0, 1, 1)), (2, 3, 4, 5)),
        (lambda: nn.Conv3d(2, 4, 2, 2, groups=2, padding=1, padding_mode="reflect"), (2, 3, 4, 5)),
    ],
    nn.ConvTranspose1d: [(lambda: nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, groups=2), (4, 5))],
    nn.ConvTranspose2d: [
        (lambda: nn.ConvTranspose2d(3, 2, (3, 2)), (3, 4, 5)),
        (lambda: nn.ConvTranspose2d(4, 6, (2, 3), (3, 1), (1, 0), (2, 0), 2, False, (2, 1)), (4, 3, 4)),
        (lambda: nn.ConvTranspose2d(2, 3, 3, 2, padding=1, output_padding=1, init="he_normal"), (2, 3, 4)),
    ],
    nn.ConvTranspose3d: [(lambda: nn.ConvTranspose3d(2, 1, 2, (1, 2, 2)), (2, 2, 3, 2))],
    nn.Dropout: [(lambda: nn.Dropout(0.3), (4, 3, 5)), (lambda: nn.Dropout(0.0), (7,)), (lambda: nn.Dropout(1), (7,))],
    nn.Dropout2d: [(lambda: nn.Dropout2d(0.3), (4, 3, 5)), (lambda: nn.Dropout2d(0.0), (2, 2, 2))],
    nn.ELU: [(lambda: nn.ELU(), (2, 4, 5)), (lambda: nn.ELU(0.3), (6,))],
    nn.Flatten: [(lambda: nn.Flatten(), (2, 3, 4)), (lambda: nn.Flatten(), (5,))],
    nn.GELU: [(lambda: nn.GELU(), (2, 4, 5)), (lambda: nn.GELU("tanh"), (6,))],
    nn.GroupNorm: [(lambda: nn.GroupNorm(2, 4), (4, 3, 2)), (lambda: nn.GroupNorm(3, 6, 0.1, affine=False), (6,))],
    nn.Identity: [(lambda: nn.Identity(), (2, 3))],
    nn.LayerNorm: [
        (lambda: nn.LayerNorm(5), (2, 3, 5)),
        (lambda: nn.LayerNorm((3, 5), 0.1, bias=False), (2, 3, 5)),
        (lambda: nn.LayerNorm((2, 3, 5), elementwise_affine=False), (2, 3, 5)),
    ],
    nn.LazyConv2d: [(lambda: in_network(nn.LazyConv2d(4, (3, 2), stride=2), shape=(3, 6, 5)), (3, 6, 5))],
    nn.LazyLinear: [(lambda: in_network(nn.LazyLinear(4, bias=False), shape=(6,)), (6,))],
    nn.LeakyReLU: [(lambda: nn.LeakyReLU(), (2, 4, 5)), (lambda: nn.LeakyReLU(0.3), (6,))],
    nn.Linear: [
        (lambda: nn.Linear(6, 4), (6,)),
        (lambda: nn.Linear(6, 1, bias=False, init=("normal", 0.1)), (6,)),
    ],
    nn.LogSoftmax: [(lambda: nn.LogSoftmax(), (6,)), (lambda: nn.LogSoftmax(-1), (2, 4, 5))],
    nn.MaxPool1d: [(lambda: nn.MaxPool1d(3, 2, 1), (2, 7))],
    nn.MaxPool2d: [
        (lambda: nn.MaxPool2d(2), (2, 5, 6)),
        (lambda: nn.MaxPool2d((3, 2), (2, 1), (1, 1), ceil_mode=True), (2, 6, 7)),
        (lambda: nn.MaxPool2d((3, 2), 1, (2, 1), dilation=(2, 3)), (2, 6, 7)),
    ],
    nn.MaxPool3d: [(lambda: nn.MaxPool3d((1, 2, 3), 2), (2, 3, 4, 5))],
    nn.MaxUnpool2d: [
        (lambda: nn.MaxUnpool2d(nn.MaxPool2d(2), nn.Conv2d(2, 2, 3, padding=1)), (2, 5, 6)),
        (
            lambda: in_network(
                nn.MaxUnpool2d(nn.MaxPool2d(2), nn.MaxUnpool2d(nn.MaxPool2d(3, 2, 1), nn.Dropout(0.3))), shape=(1, 9, 7)
            ),
            (1, 9, 7),
        ),
    ],
    nn.PReLU: [(lambda: nn.PReLU(), (2, 4, 5)), (lambda: nn.PReLU(3, -0.5), (3, 4)), (lambda: nn.PReLU(6), (6,))],
    nn.ReLU: [(lambda: nn.ReLU(), (2, 4, 5))],
    nn.ReflectionPad2d: [(lambda: nn.ReflectionPad2d((1, 0, 2, 3)), (2, 4, 5))],
    nn.ReplicationPad2d: [
        (lambda: nn.ReplicationPad2d((1, 0, 2, 7)), (2, 4, 5)),
        (lambda: nn.ReplicationPad2d(1), (2, 1, 1)),
    ],
    nn.Residual: [
        (lambda: nn.Residual(block(2)), (2, 5, 6)),
        (lambda: nn.Residual(block(2), nn.Conv2d(2, 2, 1)), (2, 5, 6)),
        (lambda: in_network(nn.Residual(nn.Residual(block(2)), nn.Dropout(0.5)), shape=(2, 4, 5)), (2, 4, 5)),
    ],
    nn.Sequential: [
        (
            lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Sequential(nn.Flatten(), nn.Linear(24, 5))),
            (2, 6, 4),
        ),
        (lambda: in_network(block(2), nn.Dropout(), nn.Flatten(), nn.LazyLinear(3), shape=(2, 6, 5)), (2, 6, 5)),
        (lambda: nn.Sequential(nn.Sequential(), nn.ReLU()), (3,)),
    ],
    nn.SiLU: [(lambda: nn.SiLU(), (2, 4, 5))],
    nn.Sigmoid: [(lambda: nn.Sigmoid(), (2, 4, 5))],
    nn.Softmax: [(lambda: nn.Softmax(), (6,)), (lambda: nn.Softmax(-1), (2, 4, 5)), (lambda: nn.Softmax(2), (2, 4, 5))],
    nn.Softplus: [(lambda: nn.Softplus(), (2, 4, 5)), (lambda: nn.Softplus(2.0, 0.5), (6,))],
    nn.Tanh: [(lambda: nn.Tanh(), (2, 4, 5))],
    nn.Unflatten: [(lambda: nn.Unflatten(1, (2, 3)), (6,)), (lambda: nn.Unflatten(-2, (2, 1, 3)), (2, 6, 4))],
    nn.Upsample: [
        (lambda: nn.Upsample(scale_factor=2), (2, 3)),
        (lambda: nn.Upsample((5, 7)), (2, 3, 4)),
        (lambda: nn.Upsample(scale_factor=(1.5, 2.5), mode="bilinear"), (2, 3, 4)),
        (lambda: nn.Upsample(6, mode="bicubic", align_corners=True), (2, 3, 4)),
        (lambda: nn.Upsample(scale_factor=2.0, mode="trilinear", align_corners=False), (1, 2, 3, 2)),
    ],
    nn.ZeroPad2d: [(lambda: nn.ZeroPad2d((1, 0, 2, 3)), (2, 4, 5)), (lambda: nn.ZeroPad2d((-1, 1, 0, -2)), (2, 4, 5))],
}
CASES = [
    pytest.param(make, shape, id=f"{kind.__name__}{i}")
    for kind, cases in LAYERS.items()
    for i, (make, shape) in enumerate(cases)
]
every = pytest.mark.parametrize(("make", "shape"), CASES)


@pytest.mark.capability("B25")
def test_every_layer_and_loss_is_in_the_table():
    public = [getattr(nn, name) for name in nn.__all__]
    layers = {kind for kind in public if isinstance(kind, type) and issubclass(kind, nn.Layer)}
    losses = {kind for kind in public if isinstance(kind, type) and issubclass(kind, nn.Loss)}
    assert layers - {nn.Layer, nn.Network} == set(LAYERS)
    assert losses - {nn.Loss} == set(LOSSES)
    assert set(LEAVES.values()) == set(LAYERS) - {nn.Concat, nn.MaxUnpool2d, nn.Residual, nn.Sequential}


@pytest.mark.capability("B4", "B5", "B9", "B11", "B12", "B17", "B18", "B19", "B20", "B21", "B22", "B23", "H3")
@pytest.mark.parametrize("training", [False, True])
@every
def test_gradients(make, shape, training):
    layer = make()
    before = pickle.dumps(layer)
    check_gradients(layer, randn(3, 3, *shape), training=training)
    assert pickle.dumps(layer) == before


@pytest.mark.capability("C8")
@pytest.mark.parametrize("n", [1, 4, 8, 0])
@every
def test_output_shape_and_any_batch(make, shape, n):
    layer = make()
    x = randn(0, 8, *shape, dtype="float32")
    y, backward = layer.forward(x[:n])
    assert y.shape == (n, *layer.output_shape(shape))
    if n:
        assert_near(y, layer(x)[:n], 1e-5)
    dx, gradients = backward(np.ones_like(y))
    assert dx.shape == x[:n].shape
    assert {name: g.shape for name, g in gradients.items()} == {
        name: value.shape for name, value in layer.named_parameters().items()
    }
    assert n > 0 or not any(g.any() for g in gradients.values())


@pytest.mark.capability("B25", "D16")
@every
def test_a_call_stores_nothing(make, shape):
    layer = make()
    parts = [layer, *(leaf for _, leaf in layer.leaves())]
    names, state = [sorted(vars(part)) for part in parts], pickle.dumps(layer)
    x = randn(0, 2, *shape, dtype="float32")
    kept = x.copy()
    layer(x)
    y, backward = layer.forward(x)
    backward(np.ones_like(y))
    assert [sorted(vars(part)) for part in parts] == names
    assert pickle.dumps(layer) == state
    assert np.array_equal(x, kept)


@every
def test_training_changes_buffers_only(make, shape):
    layer = make()
    x = randn(0, 3, *shape, dtype="float32")
    kept, before = x.copy(), layer.state_dict()
    y, backward = layer.forward(x, training=True, rng=Stream(1))
    dy = randn(1, *y.shape, dtype="float32")
    dy_kept, y_kept = dy.copy(), y.copy()
    first = backward(dy)
    second = backward(dy)
    assert np.array_equal(x, kept)
    assert np.array_equal(dy, dy_kept)
    assert np.array_equal(y, y_kept)
    assert np.array_equal(first[0], second[0])
    changed = {name for name, value in layer.state_dict().items() if not np.array_equal(value, before[name])}
    assert changed == set(layer.named_buffers())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("training", [False, True])
@every
def test_the_dtype_is_kept(make, shape, training, dtype):
    layer = make().astype(dtype)
    y, backward = layer.forward(randn(0, 2, *shape, dtype=dtype), training=training, rng=Stream(0))
    dx, gradients = backward(np.ones_like(y))
    names = {"y": y, "dx": dx, **gradients, **layer.named_parameters(), **layer.named_buffers()}
    assert {name: a.dtype.name for name, a in names.items()} == dict.fromkeys(names, dtype)


def leaves_of(make):
    return [leaf for _, leaf in make().leaves()]


@every
def test_config_and_repr_rebuild_a_leaf(make, shape):
    for leaf in leaves_of(make):
        for twin in (type(leaf)(**leaf.config()), eval(repr(leaf), dict(vars(nn)))):
            assert type(twin) is type(leaf)
            assert twin.config() == leaf.config()
            assert {k: v.shape for k, v in twin.state_dict().items()} == {
                k: v.shape for k, v in leaf.state_dict().items()
            }


def test_config_of_what_is_still_lazy():
    for layer in (nn.LazyConv2d(4, (3, 2), stride=2, padding="same_upper", bias=False), nn.LazyLinear(3, bias=False)):
        assert type(layer)(**layer.config()).config() == eval(repr(layer), dict(vars(nn))).config() == layer.config()
        with pytest.raises(OptionError, match=r"Lazy\w+ has no weights yet; build its network"):
            layer(np.zeros((1, 2, 5, 5), dtype=np.float32))


@every
def test_spec_survives_json(make, shape):
    layer = make()
    spec = to_spec(layer)
    twin = from_spec(json.loads(json.dumps(spec)))
    assert to_spec(twin) == spec
    twin.load_state_dict(layer.state_dict())
    x = randn(0, 2, *shape, dtype="float32")
    assert np.array_equal(twin(x), layer(x))


@every
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_equal_and_independent(make, shape, duplicate):
    layer = make()
    twin, x = duplicate(layer), randn(0, 2, *shape, dtype="float32")
    y = layer(x)
    assert np.array_equal(twin(x), y)
    assert repr(twin) == repr(layer)
    twin.load_state_dict({name: np.zeros_like(value) for name, value in twin.state_dict().items()})
    assert np.array_equal(layer(x), y)


@pytest.mark.capability("B25")
@every
def test_one_set_of_names(make, shape):
    """Callable, printable, forward with (y, backward), parameters; so any two layers fit behind each other."""
    layer = make()
    assert repr(layer).startswith(type(layer).__name__)
    y, backward = layer.forward(randn(0, 2, *shape, dtype="float32"), training=False, rng=None)
    assert callable(backward)
    assert np.array_equal(layer(randn(0, 2, *shape, dtype="float32")), y)
    assert all(not value.flags.writeable for value in layer.named_parameters().values())


@pytest.mark.capability("B2", "C10")
@pytest.mark.parametrize(
    ("layer", "count"),
    [
        (nn.Conv2d(3, 16, 5), 1216),
        (nn.Conv2d(3, 16, 2, 2), 208),
        (nn.Conv2d(3, 8, 3, dilation=2), 224),
        (nn.Conv2d(3, 1, 3), 28),
        (nn.Conv2d(1, 32, 3), 320),
        (nn.Conv2d(32, 64, 3), 18496),
        (nn.Conv2d(3, 10, 5), 760),
        (nn.Conv2d(3, 10, 5, bias=False), 750),
        (nn.Conv2d(6, 6, 3, groups=6), 60),
        (nn.Linear(576, 64), 36928),
        (nn.BatchNorm2d(16), 32),
        (nn.BatchNorm2d(16, affine=False), 0),
    ],
)
def test_parameter_counts(layer, count):
    assert sum(value.size for value in layer.named_parameters().values()) == count


def test_three_convolutions_in_a_row():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 4, (2, 3), stride=2), nn.Conv2d(4, 2, 2, padding=1))
    check_gradients(net, randn(0, 2, 2, 9, 8))


@pytest.mark.capability("B22")
def test_batch_norm_counts_batches_and_averages_evenly():
    layer = nn.BatchNorm2d(1, momentum=None)
    assert layer.state_dict()["num_batches_tracked"].dtype == np.int64
    for value in (2.0, 4.0, 9.0):
        layer.forward(np.array([[[[value - 1, value + 1]]]]), training=True)
    assert layer.state_dict()["num_batches_tracked"] == 3
    assert layer.running_mean[0] == pytest.approx(5, rel=1e-6)
    assert layer.running_var[0] == pytest.approx(2, rel=1e-6)


def test_batch_norm_backward_in_eval_does_not_see_later_batches():
    layer, x = nn.BatchNorm2d(2), randn(0, 3, 2, 4, 4, dtype="float32")
    _, backward = layer.forward(x)
    before = backward(x)[0]
    layer.forward(x + 5, training=True)
    assert np.array_equal(backward(x)[0], before)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: nn.Conv2d(0, 1, 3), OptionError, "in_channels must be at least 1, got 0"),
        (lambda: nn.Conv2d(1, 2.0, 3), OptionError, "out_channels must be a whole number, got 2.0"),
        (lambda: nn.Conv2d(4, 3, 3, groups=2), OptionError, "out_channels 3 must be a multiple of groups 2"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), OptionError, "in_channels 3 must be a multiple of groups 2"),
        (lambda: nn.Conv2d(3, 4, 3, 2, "same"), OptionError, '"same_upper" and "same_lower" take any stride'),
        (lambda: nn.Conv2d(3, 4, 3, init="he"), OptionError, 'unknown initialization "he"'),
        (lambda: nn.Conv2d(3, 4, 3, init=("normal",)), OptionError, r'init "normal" takes the numbers \(std\)'),
        (lambda: nn.Conv2d(3, 4, 3, init=("normal", np.nan)), OptionError, "takes the numbers"),
        (lambda: nn.Conv2d(3, 4, 3, init=3), OptionError, "init must be a name"),
        (lambda: nn.Linear(-1, 3), OptionError, "in_features must be at least 1"),
        (lambda: nn.LazyLinear(0), OptionError, "out_features must be at least 1"),
        (lambda: nn.MaxPool2d(2, padding=2), OptionError, "must be at most half of kernel_size"),
        (lambda: nn.AvgPool2d(0), OptionError, "kernel_size must be at least 1"),
        (lambda: nn.AdaptiveAvgPool2d(0), OptionError, "output_size must be at least 1"),
        (lambda: nn.AdaptiveAvgPool2d((1, 2, 3)), OptionError, "output_size must be a number or a pair"),
        (lambda: nn.BatchNorm2d(2, eps=-1), OptionError, "eps must be a number of at least 0"),
        (lambda: nn.BatchNorm2d(2, momentum=2), OptionError, "momentum must lie between 0 and 1"),
        (lambda: nn.Dropout(1.5), OptionError, "p is the share of elements to drop, from 0 to 1, got 1.5"),
        (lambda: nn.Dropout(True), OptionError, "p is the share"),
        (lambda: nn.Dropout(float("nan")), OptionError, "p is the share"),
        (lambda: nn.Softmax(0), OptionError, "dim=0 is the batch"),
        (lambda: nn.Sequential(nn.ReLU), OptionError, r"ReLU is a class; write ReLU\(\.\.\.\)"),
        (lambda: nn.Sequential("ReLU"), OptionError, "expected a layer, got 'ReLU'"),
        (lambda: nn.Residual(None), OptionError, "expected a layer, got None"),
        (
            lambda: setattr(nn.Linear(2, 3), "weight", np.zeros((2, 3))),
            ShapeError,
            r"must have shape \(3, 2\), got \(2, 3",
        ),
        (lambda: setattr(nn.Linear(2, 3), "weight", [["a"]]), OptionError, "must be numbers"),
        (lambda: setattr(nn.Linear(2, 3, bias=False), "bias", np.zeros(3)), OptionError, "was made without bias"),
        (lambda: nn.Softmax(-2).output_shape((3,)), ShapeError, "no axis dim=-2 in a batch with 2 axes"),
        (lambda: nn.Conv2d(1, 1, 3)(np.zeros((28, 28))), ShapeError, r"x must have the axes N x C x H x W"),
        (lambda: nn.Conv2d(1, 1, 3)(np.zeros((1, 1, 5, 5), np.uint8)), OptionError, "float32 or float64, got uint8"),
        (lambda: nn.Layer()(np.zeros(1)), TypeError, "Layer must define forward"),
        (
            lambda: nn.Dropout().forward(np.zeros(3), training=True),
            OptionError,
            r"needs rng=, for example .*Stream\(seed",
        ),
    ],
)
def test_refusals(make, error, match):
    with pytest.raises(error, match=match):
        make()


class Scale(Layer):
    """A layer of a user's own, with an argument that it does not keep."""

    weight = nn.Parameter()

    def __init__(self, size, start=1.0):
        super().__init__()
        self.start = start
        self.weight = np.full(size, start)

    def forward(self, x, *, training=False, rng=None):
        w = self.weight
        return x * w, lambda dy: (dy * w, {"weight": (dy * x).sum(axis=0)})


@pytest.mark.capability("B25", "H3")
def test_a_layer_of_ones_own():
    layer = Scale(3)
    check_gradients(layer, randn(0, 4, 3))
    assert repr(layer) == "Scale()"
    assert repr(Scale(3, start=2.0)) == "Scale(start=2.0)"
    assert list(layer.named_parameters()) == ["weight"]
    with pytest.raises(OptionError, match="Scale is not one of pellucid's layers, so a file cannot hold it"):
        to_spec(nn.Sequential(layer))
    net = nn.Sequential(nn.Linear(4, 3), Scale(3, 2.0), input_shape=(4,))
    assert net[1].weight.tolist() == [2, 2, 2]
    assert net.flat_parameters.size == 18
    check_gradients(net, randn(0, 4, 4))


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ([], r'the network must be an object such as \{"layer": "ReLU"\}, got \[\]'),
        ({"layer": "ReLu"}, 'the network: unknown layer "ReLu"; .*ReLU'),
        ({"layer": "__import__"}, "unknown layer"),
        ({"layer": ["ReLU"]}, "unknown layer"),
        ({"layer": "Sequential"}, "the network lacks layers"),
        ({"layer": "Sequential", "layers": {}}, '"layers" must be a list'),
        ({"layer": "Sequential", "layers": [3]}, "layer 0 must be an object"),
        ({"layer": "Sequential", "layers": [{"layer": "Linear", "in_features": 2}]}, "layer 0 lacks out_features"),
        ({"layer": "ReLU", "inplace": True}, 'the network: unknown argument "inplace"'),
        (
            {"layer": "Conv2d", "in_channels": 0, "out_channels": 1, "kernel_size": 1},
            r"\(Conv2d\): in_channels must be",
        ),
        ({"layer": "LeakyReLU", "negative_slope": "a"}, r"\(LeakyReLU\)"),
        ({"layer": "LeakyReLU", "negative_slope": 10**400}, r"\(LeakyReLU\)"),
        ({"layer": "Residual", "shortcut": {"layer": "ReLU"}}, "lacks body"),
        ({"layer": "Sequential", "layers": [{"same_as": "1"}, {"layer": "ReLU"}]}, "does not stand before it"),
        ({"layer": "Sequential", "layers": [{"same_as": ["0"]}]}, "does not stand before it"),
        ({"layer": "Sequential", "layers": [{"layer": "ReLU"}, {"same_as": "0", "p": 1}]}, "does not stand before it"),
        ({1: 2}, "must be an object"),
    ],
)
def test_a_spec_that_is_none(spec, match):
    with pytest.raises(OptionError, match=match):
        from_spec(spec)


def test_a_spec_that_is_too_deep():
    spec = {"layer": "ReLU"}
    for _ in range(200):
        spec = {"layer": "Sequential", "layers": [spec]}
    with pytest.raises(OptionError, match="is nested more than 50 deep"):
        from_spec(spec)


def test_a_shared_layer_stands_once_in_the_spec():
    shared = nn.Linear(3, 3)
    spec = to_spec(nn.Sequential(shared, nn.Sequential(nn.ReLU(), shared)))
    assert spec["layers"][1]["layers"][1] == {"same_as": "0"}
    twin = from_spec(spec)
    assert twin[0] is twin[1][1]


# Losses

LABELS = np.array([2, 0, 1, 1])
UNIT = np.random.default_rng(0).random((4, 3))
LOSSES = {
    nn.BCELoss: [
        (nn.BCELoss, UNIT),
        (lambda: nn.BCELoss([1.0, 0.0, 3.0], "sum"), UNIT),
    ],
    nn.BCEWithLogitsLoss: [
        (nn.BCEWithLogitsLoss, UNIT),
        (lambda: nn.BCEWithLogitsLoss([1.0, 0.0, 3.0], pos_weight=[2.0, 1.0, 0.5]), UNIT),
        (lambda: nn.BCEWithLogitsLoss(reduction="sum"), UNIT),
    ],
    nn.CrossEntropyLoss: [
        (nn.CrossEntropyLoss, LABELS),
        (lambda: nn.CrossEntropyLoss([1.0, 0.5, 3.0], reduction="sum"), LABELS),
        (lambda: nn.CrossEntropyLoss([1.0, 0.5, 3.0], 0.1), LABELS),
        (lambda: nn.CrossEntropyLoss(weight=[1.0, 0.5, 3.0]), np.eye(3)[LABELS]),
        (lambda: nn.CrossEntropyLoss(label_smoothing=0.2), np.random.default_rng(0).dirichlet(np.ones(3), 4)),
    ],
    nn.HuberLoss: [(nn.HuberLoss, randn(1, 4, 3)), (lambda: nn.HuberLoss("sum", 0.5), randn(1, 4, 3))],
    nn.L1Loss: [(nn.L1Loss, randn(1, 4, 3)), (lambda: nn.L1Loss("sum"), randn(1, 4, 3))],
    nn.MSELoss: [(nn.MSELoss, randn(1, 4, 3)), (lambda: nn.MSELoss("sum"), randn(1, 4, 3))],
    nn.NLLLoss: [
        (nn.NLLLoss, LABELS),
        (lambda: nn.NLLLoss([1.0, 0.5, 3.0]), LABELS),
        (lambda: nn.NLLLoss(reduction="sum"), LABELS),
    ],
    nn.SmoothL1Loss: [(nn.SmoothL1Loss, randn(1, 4, 3)), (lambda: nn.SmoothL1Loss("sum", 0.5), randn(1, 4, 3))],
}
every_loss = pytest.mark.parametrize(
    ("make", "target"),
    [
        pytest.param(make, target, id=f"{kind.__name__}{i}")
        for kind, cases in LOSSES.items()
        for i, (make, target) in enumerate(cases)
    ],
)


def output_for(loss):
    """Numbers of any size; for BCELoss probabilities."""
    x = 3 * randn(0, 4, 3)
    return 1 / (1 + np.exp(-x)) if isinstance(loss, nn.BCELoss) else x


@pytest.mark.capability("D1", "D2")
@every_loss
def test_gradients_of_losses(make, target):
    check_loss(make(), output_for(make()), target)


@every_loss
def test_losses_keep_dtype_and_store_nothing(make, target):
    loss = make()
    output, state = output_for(loss).astype("float32"), pickle.dumps(loss)
    kept = output.copy()
    value, backward = loss.forward(output, target)
    assert value == loss(output, target)
    assert isinstance(value, float)
    assert backward().dtype == np.float32
    assert backward().shape == output.shape
    assert np.array_equal(output, kept)
    assert pickle.dumps(loss) == state


@every_loss
def test_config_and_repr_rebuild_a_loss(make, target):
    loss, output = make(), output_for(make())
    for twin in (
        type(loss)(**loss.config()),
        eval(repr(loss), dict(vars(nn))),
        copy.deepcopy(loss),
        pickle.loads(pickle.dumps(loss)),
    ):
        assert twin(output, target) == loss(output, target)
        assert twin.config() == loss.config()
    json.dumps(loss.config())


@pytest.mark.capability("D14")
@every_loss
def test_means_of_batches_combine_by_their_weight(make, target):
    """Sum of value x total_weight over batches, one of them short, is that of the whole."""
    loss, output = make(), output_for(make())
    parts = [slice(0, 3), slice(3, 4)]
    total = sum(loss(output[p], target[p]) * loss.total_weight(target[p]) for p in parts)
    assert total / loss.total_weight(target) == pytest.approx(loss(output, target), rel=1e-12)


@pytest.mark.capability("D4")
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss()])
@pytest.mark.parametrize("last", [nn.Softmax(), nn.Sigmoid(), nn.LogSoftmax()])
def test_softmax_before_a_loss_on_logits_is_refused(loss, last):
    for net in (nn.Sequential(nn.Linear(4, 3), last), nn.Sequential(nn.Linear(4, 3), nn.Sequential(last))):
        with pytest.raises(
            OptionError, match=r"takes logits .* ends in (Softmax|Sigmoid|LogSoftmax)\(.*apply it twice; remove"
        ):
            loss.check_network(net)
    loss.check_network(nn.Sequential(nn.Linear(4, 3)))
    assert nn.MSELoss().check_network(nn.Sequential(nn.Linear(4, 3), last)) is None


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: nn.CrossEntropyLoss(label_smoothing=-0.1), "label_smoothing must lie between 0 and 1, got -0.1"),
        (lambda: nn.CrossEntropyLoss([[1.0]]), "class weights must be one number of at least 0 for each class"),
        (lambda: nn.CrossEntropyLoss([1.0, -1.0]), "class weights must be"),
        (lambda: nn.CrossEntropyLoss([1.0, np.inf]), "class weights must be"),
    ],
)
def test_refused_losses(make, match):
    with pytest.raises(OptionError, match=match):
        make()


# Containers and layers that need more than the table


@pytest.mark.capability("B18")
def test_unflatten_undoes_flatten():
    x = randn(0, 2, 3, 4, 5)
    net = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (3, 4, 5)))
    assert np.array_equal(net(x), x)


@pytest.mark.capability("B21")
def test_dropout_of_maps_drops_whole_maps():
    y, backward = nn.Dropout2d(0.4).forward(np.ones((50, 20, 3, 2)), training=True, rng=Stream(3))
    assert np.array_equal(y, np.broadcast_to(y[:, :, :1, :1], y.shape))
    assert set(y.ravel()) == {0.0, 1 / 0.6}
    assert (y == 0).mean() == pytest.approx(0.4, abs=0.05)
    assert np.array_equal(backward(np.ones_like(y))[0], y)


def test_branches_stand_one_behind_the_other():
    x = randn(0, 2, 3, 5, 4)
    conv, inner = nn.Conv2d(3, 2, 3, padding=1).astype("float64"), nn.Concat(nn.ReLU(), nn.Identity())
    y = nn.Concat(nn.Identity(), conv, inner)(x)
    assert np.array_equal(y, np.concatenate([x, conv(x), np.maximum(x, 0), x], axis=1))


def test_a_layer_in_two_branches_is_shared():
    shared = nn.Linear(4, 3)
    net = nn.Sequential(nn.Concat(shared, nn.Sequential(nn.Tanh(), shared)), nn.Linear(6, 2), input_shape=(4,))
    assert net.flat_parameters.size == 15 + 14
    check_gradients(net, randn(0, 3, 4))


def test_dropout_in_branches_draws_from_streams_of_their_own():
    net = nn.Sequential(nn.Concat(nn.Dropout(), nn.Dropout()), nn.Dropout(), input_shape=(400,))
    y = net[0].forward(np.ones((1, 400)), training=True, rng=Stream(0))[0]
    assert not np.array_equal(y[:, :400], y[:, 400:])
    after = net.forward(np.ones((1, 400)), training=True, rng=Stream(0))[0]
    assert np.array_equal(
        after, y * nn.Dropout().forward(y, training=True, rng=Stream(0, layer=2))[0] / np.where(y, y, 1)
    )


@pytest.mark.capability("B16")
@pytest.mark.parametrize("size", [(14, 14), (15, 14), (7, 9)])
def test_unpooling_gives_back_the_size_of_the_input(size):
    net = nn.Sequential(
        nn.MaxUnpool2d(nn.MaxPool2d(2), nn.Conv2d(1, 1, 3, padding=1)), nn.Conv2d(1, 2, 1), input_shape=(1, *size)
    )
    x = randn(0, 2, 1, *size, dtype="float32")
    assert net(x).shape == (2, 2, *size)
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    assert np.array_equal(net[0](x), F.max_unpool2d(net[0].body(pooled), indices, 2, output_size=size))
    assert list(net.state_dict()) == ["0.body.weight", "0.body.bias", "1.weight", "1.bias"]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nll_behind_log_softmax_is_cross_entropy(reduction):
    logits, weight = 3 * randn(0, 4, 3), [1.0, 0.5, 3.0]
    log_p, backward = nn.LogSoftmax().forward(logits)
    value, backward_of_loss = nn.NLLLoss(weight, reduction).forward(log_p, LABELS)
    expected, expected_backward = nn.CrossEntropyLoss(weight, reduction=reduction).forward(logits, LABELS)
    assert value == pytest.approx(expected, rel=1e-12)
    assert_near(backward(backward_of_loss())[0], expected_backward(), 1e-12)


def build(*layers, shape=(2, 6, 5)):
    return nn.Sequential(*layers, input_shape=shape)


@pytest.mark.capability("B8", "B14", "B15", "B16", "C2")
@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: nn.Concat(), OptionError, "Concat needs at least one branch"),
        (
            lambda: build(nn.ReLU(), nn.Concat(nn.Identity(), nn.Conv2d(2, 3, 3))),
            ShapeError,
            "Concat 1 puts 2x6x5, 3x4x3 one behind the other, which may differ in channels only; give all branches",
        ),
        (lambda: nn.Concat(nn.Identity(), nn.Flatten())(np.zeros((1, 2, 3))), ShapeError, "only channels may differ"),
        (
            lambda: nn.MaxUnpool2d(nn.AvgPool2d(2), nn.ReLU()),
            OptionError,
            "pool must be a MaxPool2d without dilation, got",
        ),
        (lambda: nn.MaxUnpool2d(nn.MaxPool2d(2, dilation=2), nn.ReLU()), OptionError, "without dilation"),
        (lambda: nn.MaxUnpool2d(nn.MaxPool2d(2), None), OptionError, "expected a layer, got None"),
        (
            lambda: build(nn.MaxUnpool2d(nn.MaxPool2d(2), nn.Conv2d(2, 4, 1))),
            ShapeError,
            "MaxUnpool2d 0 has indices for 2x3x2, but its body gives 4x3x2; keep the shape in the body",
        ),
        (lambda: build(nn.Conv1d(2, 3, 3)), ShapeError, "expects sequences C x L, but gets 2x6x5"),
        (
            lambda: build(nn.Conv3d(2, 3, 3)),
            ShapeError,
            "expects volumes .* but gets 2x6x5; add the channel axis: 1x2x6x5",
        ),
        (
            lambda: build(nn.Conv2d(2, 3, 3, padding=5, padding_mode="reflect")),
            ShapeError,
            'padding .5, 5. with mode "ref',
        ),
        (
            lambda: nn.Conv2d(2, 3, 3, padding_mode="zero"),
            OptionError,
            'unknown padding_mode "zero"; did you mean "zeros"',
        ),
        (
            lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect")(np.zeros((2, 5, 5))),
            ShapeError,
            "expects maps",
        ),
        (lambda: nn.ConvTranspose2d(3, 4, 3, groups=2), OptionError, "in_channels 3 must be a multiple of groups 2"),
        (
            lambda: build(nn.ConvTranspose2d(2, 3, 3, output_padding=1)),
            ShapeError,
            "output_padding 1 must be less than",
        ),
        (lambda: build(nn.ConvTranspose2d(3, 3, 3)), ShapeError, "expects 3 channels, but gets 2; use 2"),
        (lambda: build(nn.MaxPool2d(2, padding=2)), OptionError, "at most half"),
        (lambda: build(nn.AvgPool2d(2, count_include_pad=1)), OptionError, "count_include_pad must be True or False"),
        (lambda: build(nn.BatchNorm1d(2)), ShapeError, "expects sequences C x L, but gets 2x6x5"),
        (lambda: nn.BatchNorm2d(2)(np.zeros((3, 2))), ShapeError, "expects maps C x H x W, but gets 2"),
        (lambda: build(nn.GroupNorm(2, 4)), ShapeError, r"expects 4 channels, but gets 2; use GroupNorm\(\.\.\., 2\)"),
        (lambda: nn.GroupNorm(3, 4), OptionError, "num_groups 3 must divide num_channels 4"),
        (lambda: build(nn.LayerNorm(6)), ShapeError, r"expects inputs that end with 6, but gets 2x6x5"),
        (lambda: nn.LayerNorm(()), OptionError, "normalized_shape must have at least one axis"),
        (lambda: build(nn.PReLU(3)), ShapeError, "has 3 slopes, but gets 2 channels"),
        (lambda: nn.GELU("erf"), OptionError, "approximate must be"),
        (lambda: nn.Softplus(0), OptionError, "beta must be above 0"),
        (lambda: build(nn.Dropout2d(), shape=(4,)), ShapeError, "expects maps"),
        (lambda: nn.Unflatten(0, (2, 3)), OptionError, "dim=0 is the batch, which cannot be divided"),
        (lambda: nn.Unflatten(1, 6), OptionError, "unflattened_size must be a tuple such as"),
        (lambda: build(nn.Unflatten(3, (2, 3))), ShapeError, "expects 6 = 2x3 along dim=3, but gets 5"),
        (lambda: build(nn.Unflatten(4, (2, 3))), ShapeError, "there is no axis dim=4 to divide"),
        (lambda: nn.Upsample(), OptionError, "give size or scale_factor"),
        (lambda: nn.Upsample(scale_factor=2, mode="linar"), OptionError, 'unknown mode "linar"; did you mean "linear"'),
        (lambda: nn.Upsample(scale_factor=2, align_corners=True), OptionError, "align_corners has no meaning"),
        (lambda: nn.Upsample((2, 3), mode="trilinear"), OptionError, 'mode "trilinear" is not for 2 axes'),
        (lambda: build(nn.Upsample(scale_factor=0.1)), ShapeError, "cells 6x5 cannot become 0x0"),
        (lambda: build(nn.Upsample(scale_factor=2, mode="linear")), ShapeError, "expects sequences C x L"),
        (lambda: build(nn.ReflectionPad2d(5)), ShapeError, 'with mode "reflect" does not fit an axis of 5 cells'),
        (lambda: nn.ReplicationPad2d(-1), OptionError, "padding must be at least 0, got -1"),
        (lambda: nn.ZeroPad2d((1, 2)), OptionError, r"padding must be a number or \(left, right, top, bottom\)"),
        (lambda: build(nn.ZeroPad2d(-3)), ShapeError, "does not fit an axis of"),
    ],
)
def test_more_refusals(make, error, match):
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize(
    ("loss", "last", "match"),
    [
        (nn.MSELoss("none"), nn.Identity(), r"MSELoss\(reduction='none'\) gives an array; training needs one number"),
        (nn.NLLLoss(), nn.Identity(), "nothing"),
        (
            nn.NLLLoss(),
            nn.Softmax(),
            r"NLLLoss takes logarithms .* ends in Softmax\(\); end it with Linear and LogSoftmax",
        ),
    ],
)
def test_losses_that_do_not_fit_a_network(loss, last, match):
    net = nn.Sequential(nn.Linear(4, 3), last)
    if match == "nothing":
        loss.check_network(net)
        return
    with pytest.raises(OptionError, match=match):
        loss.check_network(net)
