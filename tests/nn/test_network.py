"""Networks: built once, seeded, owners of their layers, with flat arrays, state and copies."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

from oracles import assert_near, randn
from pellucid import nn
from pellucid.errors import OptionError, ShapeError
from pellucid.nn.layer import blank
from pellucid.optim import SGD
from pellucid.random import Stream
from pellucid.testing import check_gradients


def small(**options):
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Sequential(nn.MaxPool2d(2), nn.Flatten()),
        nn.LazyLinear(4),
        **{"input_shape": (1, 8, 8), **options},
    )


def equal(a, b):
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


# Building


@pytest.mark.capability("H1")
def test_lazy_layers_are_resolved():
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    assert not net.built
    assert net.build((3, 9, 7)) is net
    assert net.built
    assert [type(layer) for layer in net] == [nn.Conv2d, nn.ReLU, nn.Flatten, nn.Linear]
    assert repr(net[0]) == "Conv2d(3, 4, (3, 3))"
    assert repr(net[3]) == "Linear(140, 10)"
    assert net.input_shape == (3, 9, 7)
    assert net.output_shape((3, 9, 7)) == (10,)
    assert net(np.zeros((2, 3, 9, 7), np.float32)).shape == (2, 10)


@pytest.mark.capability("C2")
def test_append():
    net = nn.Sequential()
    assert net.append(nn.Flatten()).append(nn.Linear(4, 2)) is net
    assert len(net.build((1, 2, 2))) == 2
    with pytest.raises(OptionError, match=r"the network is built; make a longer one: nn.Sequential\(\*net, layer"):
        net.append(nn.ReLU())
    part = nn.Sequential(nn.Sequential(nn.ReLU()), input_shape=(3,))[0]
    with pytest.raises(OptionError, match="the network is built"):
        part.append(nn.ReLU())


@pytest.mark.capability("C2", "H2")
def test_lesson_3_declares_300_where_100_come():
    layers = [nn.Conv2d(1, 8, 3), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3), nn.MaxPool2d(2), nn.Flatten()]
    with pytest.raises(ShapeError) as info:
        nn.Sequential(*layers, nn.Linear(300, 50), input_shape=(1, 28, 28))
    assert str(info.value) == (
        "layer 5 (Linear, number 6 of the network) gets 100 from layer 4 (Flatten): expects 300 features, "
        "but gets 100; use Linear(100, 50) or LazyLinear(50)"
    )


@pytest.mark.capability("C1", "H2", "B3")
@pytest.mark.parametrize(
    ("layers", "shape", "match"),
    [
        (
            [nn.Conv2d(3, 4, 3)],
            (1, 8, 8),
            r"layer 0 \(Conv2d, number 1 .* gets 1x8x8 from the network's input: expects 3 ",
        ),
        (
            [nn.ReLU(), nn.Conv2d(3, 4, 3)],
            (1, 8, 8),
            r"layer 1 .* from layer 0 \(ReLU\): expects 3 channels, .*; use 1",
        ),
        ([nn.Flatten(), nn.Conv2d(1, 4, 3)], (1, 8, 8), "expects maps C x H x W, but gets 64; put it before Flatten"),
        ([nn.Linear(64, 3)], (1, 8, 8), r"gets maps 1x8x8; put a Flatten before \(it gives 64\)"),
        ([nn.LazyLinear(3)], (1, 8, 8), "expects features, but gets maps 1x8x8; put a Flatten before"),
        ([nn.Conv2d(1, 4, 9)], (1, 8, 8), "height 9 does not fit into 8 cells .* padding 1 or a kernel of at most 8"),
        ([nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(3, 2)))], (4,), r"layer 0.1.0 \(Linear, number 2 of the"),
        ([nn.LazyConv2d(4, 3, groups=2)], (3, 8, 8), "in_channels 3 must be a multiple of groups 2"),
        ([nn.BatchNorm2d(4)], (3, 8, 8), "expects 4 channels, but gets 3"),
        ([nn.Softmax(3)], (5,), "there is no axis dim=3 in a batch with 2 axes"),
    ],
)
def test_shape_errors_name_the_layer_what_it_gets_and_the_cure(layers, shape, match):
    with pytest.raises(ShapeError, match=match):
        nn.Sequential(*layers, input_shape=shape)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"input_shape": 28}, r"input_shape must be a tuple such as \(1, 28, 28\), got 28"),
        ({"input_shape": ()}, "input_shape must be a tuple"),
        ({"input_shape": (1, 0, 8)}, "input_shape must be at least 1, got 0"),
        ({"input_shape": (1, 8.0, 8)}, "input_shape must be a whole number"),
        ({"input_shape": (1, 8, 8), "dtype": "float16"}, 'unknown dtype "float16"'),
        ({"input_shape": (1, 8, 8), "seed": -1}, "seed must be at least 0"),
    ],
)
def test_refused_builds(options, match):
    with pytest.raises(OptionError, match=match):
        small(**options)


def test_an_empty_network_is_refused():
    with pytest.raises(OptionError, match="the network has no layers"):
        nn.Sequential(nn.Sequential(), input_shape=(1,))


def test_a_network_is_built_once():
    net = small()
    before = net.flat_parameters.copy()
    assert net.build((1, 8, 8), seed=9) is net
    assert np.array_equal(net.flat_parameters, before)
    with pytest.raises(OptionError, match="was built for inputs 1x8x8, not 1x9x9; a network is built once"):
        net.build((1, 9, 9))
    with pytest.raises(OptionError, match=r"this is a part of a network that was built; build a copy.deepcopy"):
        net[3].build((3, 6, 6))


@pytest.mark.parametrize(
    "wrong",
    [{"input_shape": (1, 3, 3)}, {"input_shape": (1, 9, 9), "seed": -1}, {"input_shape": (1, 9, 9), "dtype": "int8"}],
)
def test_a_failed_build_leaves_the_network_as_it_was(wrong):
    net = nn.Sequential(nn.LazyConv2d(3, 3), nn.Conv2d(3, 3, 3), nn.Flatten(), nn.LazyLinear(4))
    before, state = repr(net), net.state_dict()
    with pytest.raises((OptionError, ShapeError)):
        net.build(**wrong)
    assert not net.built
    assert repr(net) == before
    assert equal(net.state_dict(), state)
    net.build((2, 7, 7))
    assert [repr(net[0]), repr(net[3])] == ["Conv2d(2, 3, (3, 3))", "Linear(27, 4)"]


def test_what_needs_a_built_network_says_so():
    net = small(input_shape=None)
    for reach in (lambda: net.input_shape, lambda: net.flat_parameters, lambda: net.flat_buffers):
        with pytest.raises(OptionError, match=r"give input_shape=\(C, H, W\), or call fit"):
            reach()


@pytest.mark.capability("C8")
def test_any_batch_size():
    net = small()
    x = randn(0, 8, 1, 8, 8, dtype="float32")
    for n in (8, 4, 1, 0):
        assert net(x[:n]).shape == (n, 4)
        assert_near(net(x[:n]), net(x)[:n], 1e-5)


# Seeds and starts


@pytest.mark.capability("B24", "D19")
def test_same_seed_same_parameters():
    a, b, c = small(seed=3), small(seed=3), small(seed=4)
    assert equal(a.state_dict(), b.state_dict())
    assert not np.array_equal(a[0].weight, c[0].weight)
    assert not np.array_equal(a[4].bias, c[4].bias)


def test_equal_layers_start_differently():
    net = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), input_shape=(5,))
    assert not np.array_equal(net[0].weight, net[1].weight)
    assert not np.array_equal(net[0].weight[0], net[0].bias)


def test_float32_parameters_are_the_rounded_float64_ones():
    a, b = small(seed=5), small(seed=5, dtype="float64")
    assert b.dtype == np.float64
    assert np.array_equal(a.flat_parameters, b.flat_parameters.astype(np.float32))


@pytest.mark.capability("B24")
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_the_default_start_is_that_of_torch(torch, kind):
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weight and bias: bounds, mean and variance."""
    torch.manual_seed(0)
    make = {"conv": lambda m: m.Conv2d(6, 400, (3, 2), groups=2), "linear": lambda m: m.Linear(18, 2000)}[kind]
    mine, theirs = make(nn), make(torch.nn)
    bound = 1 / math.sqrt(18)
    for name in ("weight", "bias"):
        a, b = getattr(mine, name), getattr(theirs, name).detach().numpy()
        assert a.shape == b.shape
        for values in (a, b):
            assert np.abs(values).max() == pytest.approx(bound, rel=0.03)
            assert np.abs(values).max() <= bound
            assert values.mean() == pytest.approx(0, abs=5 * bound / math.sqrt(3 * values.size))
            assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)


FAN_IN, FAN_OUT = 50, 200


@pytest.mark.capability("B24")
@pytest.mark.parametrize(
    ("scheme", "std", "low", "high"),
    [
        ("he_normal", math.sqrt(2 / FAN_IN), None, None),
        ("he_uniform", math.sqrt(2 / FAN_IN), -math.sqrt(6 / FAN_IN), math.sqrt(6 / FAN_IN)),
        ("glorot_normal", math.sqrt(2 / 250), None, None),
        ("glorot_uniform", math.sqrt(2 / 250), -math.sqrt(6 / 250), math.sqrt(6 / 250)),
        ("normal", 1 / FAN_IN, None, None),
        (("normal", 1 / 9), 1 / 9, None, None),
        ("uniform", math.sqrt(1 / 12), -0.5, 0.5),
        (("uniform", -1, 3), math.sqrt(16 / 12), -1, 3),
        ("zeros", 0, 0, 0),
        (("constant", 0.25), 0, 0.25, 0.25),
    ],
)
def test_starts_by_name(scheme, std, low, high):
    for layer in (nn.Linear(FAN_IN, FAN_OUT, init=scheme), nn.Conv2d(2, 8, 5, init=scheme)):
        net = nn.Sequential(layer, input_shape=(FAN_IN,) if isinstance(layer, nn.Linear) else (2, 5, 5), seed=1)
        w = net[0].weight.astype(float)
        assert not net[0].bias.any()
        mean = 0 if low is None else (low + high) / 2
        assert w.mean() == pytest.approx(mean, abs=5 * std / math.sqrt(w.size) + 1e-9)
        assert w.std() == pytest.approx(std, rel=0.1, abs=1e-9)
        if low is not None:
            assert low - 1e-6 <= w.min()
            assert w.max() <= high + 1e-6
        elif std:
            assert np.abs(w).max() > 2 * std  # normal, not uniform


@pytest.mark.capability("B24")
def test_he_keeps_the_spread_through_relu_and_the_default_does_not():
    x = randn(0, 64, 100, dtype="float32")
    spread = {}
    for scheme in ("he_normal", "default"):
        net = nn.Sequential(*[part for _ in range(6) for part in (nn.Linear(100, 100, init=scheme), nn.ReLU())])
        spread[scheme] = float(np.square(net.build((100,), seed=2)(x)).mean())
    assert 0.4 < spread["he_normal"] < 2.5
    assert spread["default"] < 0.05


def test_values_assigned_before_the_build_are_kept():
    conv, lazy = nn.Conv2d(1, 2, 3), nn.LazyLinear(2)
    conv.weight = np.full((2, 1, 3, 3), 7.0)
    lazy.weight = np.arange(8).reshape(2, 4)
    net = nn.Sequential(conv, nn.Flatten(), lazy, input_shape=(1, 3, 4), seed=1)
    assert (net[0].weight == 7).all()
    assert net[0].bias.any()
    assert net[2].weight.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    wrong = nn.LazyLinear(2)
    wrong.weight = np.zeros((2, 5))
    with pytest.raises(ShapeError, match=r"weight was assigned with shape \(2, 5\), but must have \(2, 4\)"):
        nn.Sequential(wrong, input_shape=(4,))


# Who owns what


def test_a_layer_of_another_network_is_cloned_with_its_values():
    first = small(seed=3)
    before = first.flat_parameters.copy()
    second = nn.Sequential(first[0], nn.Flatten(), nn.LazyLinear(2), input_shape=(1, 5, 5), seed=8)
    assert second[0] is not first[0]
    assert np.array_equal(second[0].weight, first[0].weight)
    second[0].weight = np.zeros((3, 1, 3, 3))
    assert np.array_equal(first.flat_parameters, before)
    assert first.built
    assert first.version == 0


@pytest.mark.capability("C7")
def test_a_backbone_is_reused_with_its_weights():
    backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten())
    first = nn.Sequential(backbone, nn.LazyLinear(10), input_shape=(1, 8, 8), seed=1)
    first.forward(randn(0, 4, 1, 8, 8, dtype="float32"), training=True)
    second = nn.Sequential(first[0], nn.LazyLinear(3), input_shape=(1, 8, 8), seed=2)
    state, other = first.state_dict(), second.state_dict()
    shared = [name for name in state if name.startswith("0.")]
    assert len(shared) == 9
    assert all(np.array_equal(state[name], other[name]) for name in shared)
    assert other["0.1.num_batches_tracked"] == 1
    x = randn(1, 2, 1, 8, 8, dtype="float32")
    assert np.array_equal(first[0](x), second[0](x))
    whole = nn.Sequential(first, nn.ReLU(), nn.Linear(10, 2), input_shape=(1, 8, 8))
    assert np.array_equal(whole[0](x), first(x))
    assert whole[0] is not first
    head = nn.Sequential(*first, nn.ReLU(), input_shape=(1, 8, 8))
    assert np.array_equal(head(x), np.maximum(first(x), 0))
    with pytest.raises(ShapeError, match="expects 99 features, but gets 64"):
        nn.Sequential(first[0], nn.Linear(99, 2), input_shape=(1, 8, 8))


def test_a_slice_is_a_network():
    net = small()
    x = randn(0, 2, 1, 8, 8, dtype="float32")
    assert np.array_equal(net[:2](x), net[1](net[0](x)))
    assert net[-1] is net[4]
    assert len(net[1:4]) == 3
    assert net[1:][0] is net[1]
    with pytest.raises(IndexError, match="the network has 5 layers, there is no number 5"):
        net[5]


@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_used_twice_is_shared(torch, nested):
    shared = nn.Linear(4, 4)
    layers = [shared, nn.Tanh(), nn.Sequential(nn.Sequential(shared), nn.Tanh()) if nested else shared, nn.Linear(4, 2)]
    net = nn.Sequential(*layers, input_shape=(4,), seed=1, dtype="float64")
    assert net.flat_parameters.size == 16 + 4 + 8 + 2
    assert list(net.named_parameters()) == ["0.weight", "0.bias", "3.weight", "3.bias"]
    module = torch.nn.Linear(4, 4)
    theirs = torch.nn.Sequential(
        module,
        torch.nn.Tanh(),
        torch.nn.Sequential(torch.nn.Sequential(module), torch.nn.Tanh()) if nested else module,
        torch.nn.Linear(4, 2),
    ).double()
    assert list(net.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict({name: torch.tensor(value) for name, value in net.state_dict().items()})
    x, dy = randn(0, 3, 4), randn(1, 3, 2)
    y, backward = net.forward(x)
    expected = theirs(torch.tensor(x))
    expected.backward(torch.tensor(dy))
    _, gradients = backward(dy)
    assert_near(y, expected, 1e-12)
    assert set(gradients) == set(net.named_parameters())
    for name, parameter in theirs.named_parameters():
        assert_near(gradients[name], parameter.grad, 1e-12, name)
    check_gradients(net, x)


def test_a_shared_container_and_a_shared_layer_across_branches():
    shared = nn.Conv2d(2, 2, 3, padding=1)
    block = nn.Sequential(shared, nn.Tanh())
    net = nn.Sequential(block, nn.Residual(block, nn.Sequential(shared)), block, input_shape=(2, 4, 5), seed=3)
    assert net.flat_parameters.size == 38
    assert net[0] is net[2]
    assert len(net.state_dict()) == 8
    check_gradients(net, randn(0, 2, 2, 4, 5))
    check_gradients(net, randn(0, 2, 2, 4, 5), training=True)
    twin = copy.deepcopy(net)
    assert twin[0] is twin[2]
    assert twin[1].shortcut[0] is twin[0][0]


def test_a_shared_layer_of_another_network_is_cloned_once():
    shared = nn.Linear(3, 3)
    first = nn.Sequential(shared, shared, input_shape=(3,))
    second = nn.Sequential(*first, nn.Sequential(first[0]), input_shape=(3,))
    assert second[0] is second[1] is second[2][0] is not first[0]
    assert second.flat_parameters.size == 12


def test_a_shared_parameter_has_one_value():
    shared = nn.Linear(2, 2, bias=False)
    net = nn.Sequential(shared, shared, input_shape=(2,))
    state = net.state_dict()
    state["1.weight"] = state["1.weight"] + 1
    with pytest.raises(OptionError, match=r"0.weight and 1.weight are one shared parameter, but their values differ"):
        net.load_state_dict(state)
    net.load_state_dict({"1.weight": np.eye(2)}, strict=False)
    assert net[0].weight.tolist() == [[1, 0], [0, 1]]


# Flat arrays


def test_parameters_and_buffers_are_views_of_flat_arrays():
    net = small()
    assert list(net.named_parameters()) == ["0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"]
    assert list(net.named_buffers()) == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    for flat, named in (
        (net.flat_parameters, net.named_parameters()),
        (net.flat_buffers, net.named_buffers()),
    ):
        assert np.array_equal(flat, np.concatenate([value.ravel() for value in named.values()]))
        assert all(np.shares_memory(flat, value) for value in named.values())
        assert flat.dtype == np.float32
        assert not flat.flags.writeable
    with net.edit():
        net.flat_parameters[...] = np.arange(net.flat_parameters.size)
    assert net[0].weight.ravel().tolist() == list(range(27))
    assert net[4].bias[-1] == net.flat_parameters.size - 1


def test_flatten_undoes_unflatten():
    net = small()
    flat = randn(0, net.flat_parameters.size)
    parts = net.unflatten(flat)
    assert {name: part.shape for name, part in parts.items()} == {
        name: value.shape for name, value in net.named_parameters().items()
    }
    assert all(np.shares_memory(part, flat) for part in parts.values())
    assert np.array_equal(net.flatten(parts), flat)
    assert np.array_equal(net.flatten(dict(reversed(parts.items()))), flat)
    assert nn.Sequential(nn.ReLU(), input_shape=(2,)).flatten({}).shape == (0,)


def test_layer_slices_are_the_layers_that_have_parameters():
    assert small().layer_slices() == [slice(0, 30), slice(30, 36), slice(36, 36 + 27 * 4 + 4)]
    shared = nn.Linear(2, 2)
    assert nn.Sequential(shared, nn.Sequential(shared), input_shape=(2,)).layer_slices() == [slice(0, 6)]


def test_views_are_read_only_outside_edit():
    net = small()
    with pytest.raises(ValueError, match="read-only"):
        net[0].weight[...] = 0
    with pytest.raises(ValueError, match="read-only"):
        net.flat_buffers[...] = 0
    kept = net[0].weight
    with net.edit() as same:
        assert same is net
        net[0].weight[...] = 2
        net[1].running_mean[...] = 3
    assert (kept == 2).all()
    with pytest.raises(ValueError, match="read-only"):
        net[1].running_mean[...] = 0
    with pytest.raises(ZeroDivisionError), net.edit():
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="read-only"):
        net[0].weight[...] = 0


def test_every_write_raises_the_version():
    net = small()
    versions = [net.version]

    def note():
        versions.append(net.version)
        assert versions[-1] > versions[-2]

    with net.edit():
        pass
    note()
    net[0].weight = np.zeros((3, 1, 3, 3))
    note()
    net[1].running_mean = [1, 2, 3]
    note()
    net.load_state_dict(net.state_dict())
    note()
    net[4].load_state_dict(net[4].state_dict())
    note()
    with pytest.raises(ShapeError):
        net[0].weight = np.zeros(3)
    before = net.version
    net(randn(0, 2, 1, 8, 8, dtype="float32"))
    assert net.version == before


def test_a_part_is_edited_through_its_network():
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), input_shape=(2,))
    before = net.version
    with net[0].edit():
        net[0][0].weight[...] = 5
    assert (net.flat_parameters[:4] == 5).all()
    assert net.version > before


def test_assigning_copies():
    values = np.ones((2, 2))
    net = nn.Sequential(nn.Linear(2, 2), input_shape=(2,))
    net[0].weight = values
    values[...] = 7
    assert (net[0].weight == 1).all()
    lone = nn.Linear(2, 2)
    lone.weight = values
    values[...] = 8
    assert (lone.weight == 7).all()


# State


@pytest.mark.capability("C14")
def test_state_dict_is_that_of_torch(torch):
    def make(m):
        return m.Sequential(
            m.Conv2d(3, 4, (3, 2), bias=False),
            m.BatchNorm2d(4),
            m.Sequential(m.ReLU(), m.Conv2d(4, 6, 3, groups=2), m.BatchNorm2d(6, affine=False)),
            m.Flatten(),
            m.Dropout(0.5),
            m.Linear(90, 5),
        )

    mine, theirs = make(nn).build((3, 7, 8), seed=2), make(torch.nn)
    ours = mine.state_dict()
    assert list(ours) == list(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        array = tensor.numpy()
        assert (name, ours[name].shape, ours[name].dtype) == (name, array.shape, array.dtype)
    assert list(mine.named_parameters()) == [name for name, _ in theirs.named_parameters()]
    theirs(torch.tensor(randn(0, 6, 3, 7, 8, dtype="float32")))
    mine.load_state_dict(theirs.state_dict())
    theirs.eval()
    x = randn(1, 4, 3, 7, 8, dtype="float32")
    assert_near(mine(x), theirs(torch.tensor(x)), 1e-5)
    assert mine.state_dict()["1.num_batches_tracked"] == 1
    theirs.load_state_dict({name: torch.tensor(value) for name, value in mine.state_dict().items()})
    assert_near(mine(x), theirs(torch.tensor(x)), 1e-5)


def test_state_dict_is_a_copy():
    net = small()
    state = net.state_dict()
    state["0.weight"][...] = 9
    assert not (net[0].weight == 9).any()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda s: s.pop("4.bias"), OptionError, r"missing \['4.bias'\], unexpected none"),
        (lambda s: s.update(extra=1), OptionError, r"missing none, unexpected \['extra'\]"),
        (lambda s: s.update({"4.bias": np.zeros(3)}), ShapeError, r"Linear.bias must have shape \(4,\), got \(3,\)"),
        (lambda s: s.update({"4.bias": np.zeros((1, 4))}), ShapeError, "Linear.bias must have shape"),
        (lambda s: s.update({"4.bias": ["a"] * 4}), OptionError, "Linear.bias must be numbers"),
        (lambda s: s.update({"4.bias": np.zeros(4, complex)}), OptionError, "must be numbers, got complex128"),
    ],
)
def test_load_state_dict_sets_all_or_nothing(change, error, match):
    net = small()
    before, version = net.state_dict(), net.version
    state = {name: value + 1 for name, value in before.items()}
    change(state)
    with pytest.raises(error, match=match):
        net.load_state_dict(state)
    assert equal(net.state_dict(), before)
    assert net.version == version


def test_load_state_dict_without_strict():
    net = small()
    net.load_state_dict({"4.bias": np.ones(4), "other": 3}, strict=False)
    assert net[4].bias.tolist() == [1, 1, 1, 1]


# Copies


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_are_equal_and_independent(duplicate):
    net = small(seed=4)
    net.forward(randn(0, 5, 1, 8, 8, dtype="float32"), training=True)
    twin = duplicate(net)
    assert twin.built
    assert twin.input_shape == net.input_shape
    assert equal(twin.state_dict(), net.state_dict())
    assert not np.shares_memory(twin.flat_parameters, net.flat_parameters)
    assert np.shares_memory(twin[0].weight, twin.flat_parameters)
    before = net.state_dict()
    twin[0].weight = np.zeros((3, 1, 3, 3))
    twin.forward(randn(0, 5, 1, 8, 8, dtype="float32"), training=True)
    assert equal(net.state_dict(), before)
    assert (twin.flat_parameters[:27] == 0).all()
    with net.edit():
        assert not duplicate(net).editing


def test_a_copy_of_a_part_stands_alone():
    net = small(seed=4)
    twin = copy.deepcopy(net[3:])
    twin = nn.Sequential(nn.ReLU(), twin).build((3, 6, 6), seed=7)
    assert np.array_equal(twin[1][1].weight, net[4].weight)
    part = copy.deepcopy(nn.Sequential(nn.Sequential(nn.Linear(2, 2)), input_shape=(2,))[0])
    assert not part.built
    assert part.build((2,)).built


def test_astype():
    net = small(seed=4)
    twin = net.astype("float64")
    assert twin.dtype == twin[0].weight.dtype == np.float64
    assert net.dtype == np.float32
    assert np.array_equal(twin.flat_parameters, net.flat_parameters)
    assert np.shares_memory(twin[0].weight, twin.flat_parameters)
    assert twin(randn(0, 2, 1, 8, 8)).dtype == np.float64
    assert twin.astype("float32")[4].bias.dtype == np.float32
    with pytest.raises(OptionError, match='unknown dtype "float16"'):
        net.astype("float16")


# Residual blocks


@pytest.mark.capability("B23")
@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 4])
def test_a_residual_block_keeps_its_shape(kernel):
    f = nn.Sequential(nn.Conv2d(64, 64, kernel, padding="same"), nn.ReLU(), nn.Dropout(0.2), nn.BatchNorm2d(64))
    net = nn.Sequential(nn.Residual(f), input_shape=(64, 16, 16))
    x = randn(0, 2, 64, 16, 16, dtype="float32")
    assert net(x).shape == x.shape
    assert_near(net(x) - x, net[0].body(x), 1e-5)
    assert np.array_equal(net(x), net(x))


def test_a_block_of_64_channels_and_kernel_5_has_102_592_parameters():
    f = nn.Sequential(nn.Conv2d(64, 64, 5, padding="same"), nn.ReLU(), nn.BatchNorm2d(64))
    assert nn.Sequential(nn.Residual(f), input_shape=(64, 8, 8)).flat_parameters.size == 102592


@pytest.mark.capability("B23")
def test_the_gradient_comes_on_both_ways():
    net = nn.Residual(nn.Linear(2, 2, bias=False))
    net.body.weight = np.array([[1.0, 2.0], [3.0, 4.0]])
    y, backward = net.forward(np.array([[1.0, 10.0]]))
    assert y.tolist() == [[22, 53]]
    assert backward(np.array([[1.0, 1.0]]))[0].tolist() == [[5, 7]]
    around = nn.Residual(nn.Linear(2, 2), nn.Linear(2, 2))
    assert list(around.named_parameters()) == ["body.weight", "body.bias", "shortcut.weight", "shortcut.bias"]
    assert nn.Residual(nn.ReLU()).shortcut is None
    check_gradients(around, randn(0, 3, 2))


@pytest.mark.capability("B23", "H2")
@pytest.mark.parametrize(
    ("block", "match"),
    [
        (
            nn.Residual(nn.Conv2d(2, 3, 1)),
            r"residual block 0 adds 3x5x5 .* to 2x5x5 .* shortcut such as Conv2d\(2, 3, 1\)",
        ),
        (
            nn.Residual(nn.Conv2d(2, 2, 3)),
            r"adds 2x3x3 .*padding for an odd kernel: kernel_size // 2, .* Conv2d\(2, 2, 1, 2\)",
        ),
        (nn.Residual(nn.Conv2d(2, 4, 3, 2, 1)), r"adds 4x3x3 .* a shortcut such as Conv2d\(2, 4, 1, 2\)"),
        (nn.Residual(nn.Conv2d(2, 2, 2)), r"or padding=\"same\"\)$"),
        (nn.Residual(nn.Conv2d(2, 3, 1), nn.Conv2d(2, 4, 1)), "give both the same channels, stride and padding"),
        (nn.Residual(nn.Conv2d(3, 3, 1)), r"layer 0.body \(Conv2d, .* expects 3 channels, but gets 2"),
    ],
)
def test_a_residual_block_that_does_not_fit(block, match):
    with pytest.raises(ShapeError, match=match):
        nn.Sequential(block, input_shape=(2, 5, 5))


def test_a_lone_block_that_does_not_fit():
    with pytest.raises(ShapeError, match=r"body gives \(1, 3, 4, 4\) but the way around gives \(1, 2, 4, 4\)"):
        nn.Residual(nn.Conv2d(2, 3, 1))(np.zeros((1, 2, 4, 4), np.float32))


def test_nothing_follows_the_sum():
    x = randn(0, 2, 3)
    assert_near(nn.Residual(nn.Tanh())(x), np.tanh(x) + x, 1e-15)


# One's own layers, and training by hand


class Affine(nn.Layer):
    """A user's own layer, with a parameter and a buffer."""

    scale = nn.Parameter()
    shift = nn.Parameter()
    calls = nn.Buffer()

    def __init__(self, size):
        super().__init__()
        self.size = size
        self.scale, self.shift, self.calls = np.ones(size), np.zeros(size), np.zeros(())

    def forward(self, x, *, training=False, rng=None):
        scale = self.scale
        return x * scale + self.shift, lambda dy: (dy * scale, {"scale": (dy * x).sum(0), "shift": dy.sum(0)})


@pytest.mark.capability("D10", "B25", "D5")
def test_a_network_with_a_layer_of_ones_own_trains():
    net = nn.Sequential(Affine(3), nn.Linear(3, 2), input_shape=(3,), seed=1)
    assert list(net.named_buffers()) == ["0.calls"]
    x, target = randn(0, 20, 3, dtype="float32"), np.arange(20) % 2
    x[:, 0] += 3 * target
    loss, optimizer = nn.CrossEntropyLoss(), SGD(lr=0.5)
    losses = []
    for step in range(30):
        y, backward = net.forward(x, training=True, rng=Stream(0, step=step))
        value, backward_of_loss = loss.forward(y, target)
        _, gradients = backward(backward_of_loss())
        with net.edit():
            optimizer.step(net.flat_parameters, net.flatten(gradients), {}, 0.5, step)
        losses.append(value)
    assert losses[-1] < 0.3 * losses[0]
    assert net[0].scale.tolist() != [1, 1, 1]
    check_gradients(net, randn(1, 4, 3))


def test_printing():
    net = nn.Sequential(nn.Residual(nn.Sequential(nn.ReLU())), nn.Sequential(), input_shape=(3,))
    assert repr(net) == (
        "Sequential(\n  (0) Residual(\n    (body) Sequential(\n      (0) ReLU()\n    )\n  )\n  (1) Sequential()\n)"
    )


def test_the_layout_of_the_state_is_that_of_its_arrays():
    shared = nn.Linear(4, 4)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 4), shared, nn.ReLU(), shared)
    net.build((1, 4, 4), dtype="float64")
    layout, state = net.state_layout(), net.state_dict()
    assert layout == {name: (state[name].dtype, state[name].shape) for name in state if not name.startswith("6.")}
    assert layout["1.num_batches_tracked"] == (np.dtype("int64"), ())


def test_what_is_built_blank_is_not_drawn(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("drawn")

    with monkeypatch.context() as patch, blank():
        patch.setattr("pellucid.nn.init.draw", refuse)
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.LazyLinear(3), input_shape=(1, 4, 4))
    assert net.flat_parameters.size == 20 + 27
    again = nn.Sequential(nn.Conv2d(1, 2, 3), input_shape=(1, 4, 4))
    assert again[0].weight.any()
