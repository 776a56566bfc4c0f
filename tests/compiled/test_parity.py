"""The compiled engine gives the numbers of the definition: the reference engine in float64. See networks.compare."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from numpy.lib.stride_tricks import sliding_window_view

from available import EVERY_ENGINE
from compiled import networks
from oracles import seeds
from pellucid import engines, models, nn, optim
from pellucid.compiled import graph
from pellucid.compiled.backward import Backward
from pellucid.compiled.engine import programs
from pellucid.errors import ShapeError
from pellucid.nn import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    LazyLinear,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)

pytestmark = pytest.mark.capability("C14")


def check(case: networks.Case) -> None:
    off, allowed, _ = networks.compare(case)
    wrong = [
        f"{name} off by {off[name]:.1e}, allowed {allowed[name]:.1e}" for name in off if not off[name] <= allowed[name]
    ]
    assert not wrong, f"{'; '.join(wrong)}\n{case!r}"


@given(seeds)
@settings(max_examples=4 * settings.default.max_examples, phases=[Phase.generate])
def test_random_networks(seed):
    """Without shrinking: a smaller seed is no simpler network."""
    check(networks.case(Random(seed)))


def shared_everything() -> Sequential:
    conv, norm, dense = Conv2d(6, 6, 3, padding=1), BatchNorm2d(6), Linear(8, 8)
    return Sequential(
        *(Conv2d(2, 6, 3, padding=1), conv, ReLU(), conv, norm, MaxPool2d(2), ReLU(), conv, norm, Flatten()),
        *(LazyLinear(8), dense, Tanh(), dense),
        input_shape=(2, 8, 9),
    )


def shared_across_sizes() -> Sequential:
    conv = Conv2d(2, 2, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2))
    norm = BatchNorm2d(2)
    return Sequential(conv, norm, ReLU(), conv, ReLU(), conv, norm, Flatten(), LazyLinear(3), input_shape=(2, 9, 8))


def shared_around() -> Sequential:
    norm = BatchNorm2d(3)
    return Sequential(Conv2d(2, 3, 3), Residual(norm, norm), norm, Flatten(), LazyLinear(3), input_shape=(2, 6, 5))


def shared_dense_on_maps() -> Sequential:
    """The dense layer first reads flattened maps, whose numbers the engine keeps in another order, then a vector."""
    dense = Linear(24, 24)
    return Sequential(Conv2d(1, 2, 1), Flatten(), dense, Tanh(), dense, input_shape=(1, 3, 4))


def shared_dense_on_two_maps() -> Sequential:
    dense = Linear(24, 5)
    narrow = Sequential(AvgPool2d((1, 2)), Conv2d(2, 4, 1), Flatten(), dense)
    return Sequential(Conv2d(1, 2, 1), Residual(narrow, Sequential(Flatten(), dense)), input_shape=(1, 3, 4))


def shared_winograd() -> Sequential:
    """The same filters on a large map, where Winograd's algorithm pays, and on one of a single row."""
    conv = Conv2d(16, 16, 3, padding=1)
    return Sequential(
        conv, ReLU(), conv, MaxPool2d((8, 3)), Tanh(), conv, Flatten(), LazyLinear(3), input_shape=(16, 9, 7)
    )


def shared_on_two_sizes() -> Sequential:
    conv = Conv2d(16, 16, 3, padding=1)
    return Sequential(conv, Tanh(), conv, AvgPool2d(2), conv, Flatten(), LazyLinear(3), input_shape=(16, 17, 14))


def net(shape: tuple[int, ...], *layers: nn.Layer) -> Callable[[], Sequential]:
    return lambda: Sequential(*layers, input_shape=shape)


NETWORKS = {
    "one pixel": net(
        (200, 1, 1), Conv2d(200, 7, 1), ReLU(), BatchNorm2d(7), Conv2d(7, 200, 1), MaxPool2d(1), Flatten()
    ),
    "200 channels": net((200, 3, 2), Conv2d(200, 200, (2, 1)), ReLU(), Conv2d(200, 1, 1), Flatten(), LazyLinear(2)),
    "one row": net((1, 1, 31), Conv2d(1, 5, (1, 4)), Tanh(), MaxPool2d((1, 3), 2), Flatten(), LazyLinear(3)),
    "one class": net((1, 4, 4), Flatten(), Linear(16, 1)),
    "1000 classes": net((2, 5, 4), Conv2d(2, 9, 3), ReLU(), Flatten(), LazyLinear(1000)),
    "wide window": net((1, 21, 21), Conv2d(1, 6, 3), Tanh(), MaxPool2d(17), Flatten(), LazyLinear(4)),
    "wide windows overlap": net((1, 24, 23), Conv2d(1, 3, 3), Tanh(), MaxPool2d(16, 2, 8), Flatten(), LazyLinear(4)),
    "254 cells": net((1, 2, 127), Conv2d(1, 6, 3, padding=1), ReLU(), MaxPool2d((2, 127)), Flatten(), LazyLinear(4)),
    "255 cells": net((1, 3, 85), Conv2d(1, 6, 3, padding=1), ReLU(), MaxPool2d((3, 85)), Flatten(), LazyLinear(4)),
    "stride beyond kernel": net(
        (3, 29, 31), Conv2d(3, 17, 2, 5, 1), ReLU(), Conv2d(17, 9, 1, 3), Flatten(), LazyLinear(6)
    ),
    "pool beyond window": net((2, 17, 16), Conv2d(2, 5, 3), MaxPool2d(2, 3), AvgPool2d(1, 2), Flatten(), LazyLinear(3)),
    "dilation": net(
        *((2, 14, 11), Conv2d(2, 5, (3, 2), dilation=(2, 3), padding=(2, 1)), Tanh()),
        *(Conv2d(5, 6, 3, dilation=2, stride=(2, 1), padding=2), Sigmoid(), Flatten(), LazyLinear(3)),
    ),
    "groups": net(
        *((4, 17, 12), Conv2d(4, 8, 3, padding=1), ReLU(), Conv2d(8, 12, 3, 2, 1, groups=4), ReLU()),
        *(
            Conv2d(12, 12, 3, 2, 1, 2, groups=12),
            ReLU(),
            Conv2d(12, 6, 1, groups=2, bias=False),
            Flatten(),
            LazyLinear(5),
        ),
    ),
    "depthwise first": net((6, 9, 10), Conv2d(6, 6, 3, groups=6), ReLU(), AdaptiveAvgPool2d((2, 3)), Flatten()),
    "depthwise stride": net(
        (19, 9, 8), Conv2d(19, 19, 1), Conv2d(19, 19, (3, 2), (2, 3), 1, groups=19), ReLU(), Flatten()
    ),
    "many filters of a channel": net((3, 6, 7), Conv2d(3, 9, 3, groups=3), ReLU(), Flatten(), LazyLinear(2)),
    "same": net(
        *((3, 19, 14), Conv2d(3, 5, 2, 2, "same_lower"), ReLU(), Conv2d(5, 6, 4, padding="same"), ReLU(), MaxPool2d(2)),
        *(Conv2d(6, 5, 4, 3, "same_upper"), Conv2d(5, 3, 1, padding="valid"), Flatten(), LazyLinear(6)),
    ),
    "fused, padded": net(
        *((2, 18, 20), Conv2d(2, 9, 3, padding=1), BatchNorm2d(9), ReLU(), Conv2d(9, 20, 5, padding=2), ReLU()),
        *(MaxPool2d(2), Conv2d(20, 33, 3, padding=2, dilation=(2, 1)), MaxPool2d(3, 3, 1), ReLU(), Flatten()),
    ),
    "fused, no ReLU": net((1, 12, 13), Conv2d(1, 8, 3), MaxPool2d(2), Conv2d(8, 4, 2), MaxPool2d(2, 2, 1), Flatten()),
    "fused, stride and ceil": net(
        *((3, 21, 20), Conv2d(3, 6, 3, 2, bias=False), MaxPool2d((3, 2), (3, 2), (1, 0), ceil_mode=True), ReLU()),
        *(Conv2d(6, 40, (2, 1), padding=1), ReLU(), MaxPool2d(4, 3, ceil_mode=True), Flatten(), LazyLinear(3)),
    ),
    "pools": net(
        *((1, 19, 16), Conv2d(1, 6, 3, padding=1), MaxPool2d(3, 2, 1, ceil_mode=True), ReLU(), Conv2d(6, 10, 3)),
        *(
            LeakyReLU(0.1),
            AvgPool2d((3, 2), (2, 1), (1, 1), ceil_mode=True),
            Conv2d(10, 4, 2),
            MaxPool2d(2, 1),
            Flatten(),
        ),
    ),
    "means of more cells than there are": net(
        (1, 3, 5), Conv2d(1, 6, 1), AdaptiveAvgPool2d((7, 9)), Flatten(), LazyLinear(3)
    ),
    "softmax everywhere": net(
        *((1, 7, 8), Conv2d(1, 6, 3, padding=1), Softmax(1), Conv2d(6, 4, 3, padding=1), Softmax(-1), Conv2d(4, 4, 3)),
        *(Softmax(2), Flatten(), Softmax(1), LazyLinear(4)),
    ),
    "dropout everywhere": net(
        *(
            (1, 7, 8),
            Dropout(0.2),
            Conv2d(1, 6, 3, padding=1),
            Dropout(0.3),
            ReLU(),
            Dropout(0.4),
            Flatten(),
            Dropout(0.5),
        ),
        *(LazyLinear(4), Dropout(0.1)),
    ),
    "all dropped": net((1, 4, 3), Conv2d(1, 2, 1), Dropout(1.0), Flatten(), LazyLinear(3)),
    "norm first": net((2, 5, 4), BatchNorm2d(2), Conv2d(2, 3, 2), Flatten()),
    "norm behind what is not trained": net(
        (2, 6, 4), AvgPool2d(2), BatchNorm2d(2, affine=False), Flatten(), LazyLinear(3)
    ),
    "norms": net(
        *((1, 4, 4), Conv2d(1, 3, 1), BatchNorm2d(3, affine=False, momentum=None), BatchNorm2d(3, 1e-3, 0.3), ReLU()),
        *(AvgPool2d(2), Flatten(), LazyLinear(2)),
    ),
    "residual": net(
        *(
            (3, 10, 8),
            Conv2d(3, 8, 3, padding=1),
            Residual(Sequential(ReLU(), Conv2d(8, 8, 3, padding=1), BatchNorm2d(8))),
        ),
        *(
            Residual(Conv2d(8, 8, 3, padding=1)),
            ReLU(),
            Residual(Sequential(Conv2d(8, 16, 3, 2, 1), Dropout(0.2)), Conv2d(8, 16, 1, 2)),
        ),
        *(
            Residual(Residual(Sequential(Tanh(), Sigmoid()))),
            Flatten(),
            LazyLinear(5),
            Residual(Linear(5, 5)),
            Residual(ReLU()),
        ),
    ),
    "residual around flatten": net(
        *((3, 8, 8), Conv2d(3, 8, 3, padding=1)),
        Residual(Sequential(Conv2d(8, 4, 3, 2, 1), Flatten()), Sequential(Conv2d(8, 8, 3, (4, 2), 1), Flatten())),
        LazyLinear(5),
    ),
    "residual around nothing": net(
        (2, 4, 3), Conv2d(2, 2, 1), Residual(Sequential(), Sequential()), Residual(Dropout(0.5)), Flatten()
    ),
    "shared": shared_everything,
    "shared across sizes": shared_across_sizes,
    "shared around": shared_around,
    "shared dense on maps": shared_dense_on_maps,
    "shared dense on two maps": shared_dense_on_two_maps,
    "no parameters": net((1, 4, 6), MaxPool2d(2), Tanh(), Flatten()),
    "vector": net((17,), Linear(17, 33), Tanh(), Dropout(0.2), Linear(33, 33, bias=False), ReLU(), Linear(33, 3)),
    "two axes": net((3, 4), Tanh(), Softmax(1), Dropout(0.3), Softmax(-1), Flatten(), Linear(12, 2)),
    "four axes": net((2, 3, 2, 2), Softmax(2), Softmax(-4), Flatten(), Linear(24, 2)),
}


FAST = {
    "Winograd": net(
        *(
            (16, 9, 7),
            Conv2d(16, 16, 3, padding=1),
            ReLU(),
            Conv2d(16, 16, 3, padding="same"),
            Flatten(),
            LazyLinear(5),
        ),
    ),
    "Winograd, no padding": net(
        *((17, 12, 13), Conv2d(17, 35, 3, bias=False), Tanh(), Conv2d(35, 18, 3), ReLU(), Flatten(), LazyLinear(3)),
    ),
    "Winograd, residual": net(
        *((16, 8, 9), Conv2d(16, 16, 3, padding=1), ReLU(), Residual(Sequential(Conv2d(16, 16, 3, padding=1), ReLU()))),
        *(BatchNorm2d(16), Flatten(), LazyLinear(3)),
    ),
    "Winograd, shared": shared_winograd,
    "Winograd, shared on two sizes": shared_on_two_sizes,
    "Winograd, wide": net(
        *((3, 19, 13), Conv2d(3, 48, 3), Tanh(), Conv2d(48, 40, 3, padding=2), Flatten(), LazyLinear(3)),
    ),
    "Winograd, pooled": net(
        *((16, 11, 9), Conv2d(16, 32, 3, padding=1), ReLU(), MaxPool2d(2), Flatten(), LazyLinear(5)),
    ),
    "Winograd, pooled behind another": net(
        *((16, 10, 13), Conv2d(16, 16, 3, padding=1), ReLU(), Conv2d(16, 35, 3, padding=1), MaxPool2d(2), Flatten()),
        LazyLinear(4),
    ),
    "pooled in registers": net((1, 13, 11), Conv2d(1, 8, 3), ReLU(), MaxPool2d(2), Flatten(), LazyLinear(5)),
    "pooled in registers, uneven": net(
        *((3, 12, 17), Conv2d(3, 11, (2, 3), padding=1), MaxPool2d(2), Tanh(), Flatten(), LazyLinear(5)),
    ),
    "not selected at edges": net(
        (1, 13, 12), Conv2d(1, 8, 2), ReLU(), MaxPool2d(3, 2, 1, ceil_mode=True), Flatten(), LazyLinear(5)
    ),
    "selected": net((1, 14, 15), Conv2d(1, 7, (3, 2)), ReLU(), MaxPool2d((1, 3)), Flatten(), LazyLinear(2)),
    "scatter": net((1, 7, 7), Conv2d(1, 32, 3), ReLU(), Conv2d(32, 32, 3), ReLU(), Flatten(), LazyLinear(5)),
    "scatter, strides": net(
        (2, 9, 10), Conv2d(2, 35, 3, 2), ReLU(), Conv2d(35, 17, (2, 3), (2, 1)), ReLU(), Flatten(), LazyLinear(5)
    ),
    "scatter, residual": net(
        *((1, 7, 7), Conv2d(1, 32, 3), Tanh(), Residual(Conv2d(32, 32, 3), AvgPool2d(3, 1)), ReLU()),
        *(Flatten(), LazyLinear(5)),
    ),
}
"""Networks for which there is a faster way."""

PATHS = {
    "Winograd": (
        *(("conv relu 0", "winograd["), ("conv 2", "winograd["), ("data gradient 2", "winograd[")),
        ("weight gradient 2", "winograd_gradient["),
    ),
    "Winograd, no padding": (("conv 0", "winograd["), ("data gradient 2", "winograd[")),
    "Winograd, residual": (("data gradient 2.body.0", "winograd["), ("weight gradient 2.body.0", "winograd_gradient[")),
    "Winograd, shared": (("conv relu 0", "winograd["), ("conv 5", "correlate["), ("weight gradient 5", "weight_grad")),
    "Winograd, shared on two sizes": (("weight gradient 4", "winograd_gradient["),),
    "Winograd, wide": (("weight gradient 2", "winograd_gradient["),),
    "Winograd, pooled": (("conv_pool relu 0", "winograd_pool2["), ("weight gradient 0", "pooled_weight_gradient[")),
    "Winograd, pooled behind another": (
        ("conv_pool 2", "winograd_pool2["),
        ("data gradient 2", "pooled_data_gradient["),
    ),
    "pooled in registers": (
        ("conv_pool relu 0", "correlate_pool2["),
        ("weight gradient 0", "selected_weight_gradient["),
    ),
    "pooled in registers, uneven": (("conv_pool 0", "correlate_pool2["),),
    "not selected at edges": (("weight gradient 0", "pooled_weight_gradient["),),
    "selected": (("conv_pool relu 0", "correlate_pool["), ("weight gradient 0", "selected_weight_gradient[")),
    "scatter": (("data gradient 2", "scatter["),),
    "scatter, strides": (("data gradient 2", "scatter["),),
    "scatter, residual": (("data gradient 2.body", "scatter["),),
}
"""What does what in their training."""

NETWORKS |= FAST


@pytest.mark.parametrize("name", FAST)
def test_networks_take_the_way_that_they_are_here_for(name):
    network = NETWORKS[name]()
    text = str(programs(network, optim.SGD())[0])
    assert "winograd_gradient[" not in str(programs(network)[0]), "Adam makes whole steps of what rounding leaves"
    for title, kernel in PATHS[name]:
        assert re.search(rf"^ +{re.escape(title)} +{re.escape(kernel)}", text, re.MULTILINE), (title, kernel)
    forward = [kernel for title, kernel in PATHS[name] if "gradient" not in title]
    assert all(kernel in str(programs(network)[1]) for kernel in forward), "prediction goes the same way"


@pytest.mark.parametrize(
    "layer",
    [
        Conv2d(32, 32, 3, 2, 1),
        Conv2d(32, 32, 3, padding=2, dilation=2),
        Conv2d(32, 32, 3, padding=1, groups=2),
        Conv2d(32, 32, (3, 2), padding=1),
        Conv2d(32, 32, 5, padding=2),
    ],
    ids=repr,
)
def test_what_winograd_is_not_for(layer):
    network = Sequential(layer, ReLU(), layer, Flatten(), LazyLinear(3), input_shape=(32, 16, 16))
    assert not any("winograd" in str(program) for program in programs(network))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    check(networks.make(NETWORKS[name](), batch=5))


NETWORKS["narrow"] = net((3,), Linear(3, 5), Tanh(), Linear(5, 7), Tanh(), Linear(7, 2))
ALONE = [
    *FAST,
    "narrow",
    "groups",
    "same",
    "fused, padded",
    "residual",
    "vector",
    "shared",
    "shared dense on maps",
    "two axes",
]


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ALONE)
def test_one_image_at_a_time(name, decay):
    """Plain SGD then has kernels of its own."""
    network = NETWORKS[name]()
    check(networks.make(network, optimizer=optim.SGD(0.01, weight_decay=decay), batch=1))


@pytest.mark.parametrize("name", ["vector", "groups", "Winograd", "shared", "shared dense on maps"])
def test_the_steps_of_dense_layers_alone(name):
    """One that is used twice has a gradient of two images, so to speak."""
    network = NETWORKS[name]()
    one = Backward(graph.translate(network), network, nn.CrossEntropyLoss(), optim.SGD(0.1), one_image=True).lower()
    dense = [leaf for _, leaf, *_ in network.trace(network.input_shape) if isinstance(leaf, Linear)]
    once = sum(dense.count(layer) == 1 for layer in dense)
    assert str(one).count("rank_one[") == str(one).count("dense_rows[") == once


@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (2, 3), (67, 5)])
@pytest.mark.parametrize("name", ["fused, stride and ceil", "residual", "groups", "shared", "vector"])
def test_batches(name, batch, threads):
    check(networks.make(NETWORKS[name](), batch=batch, threads=threads))


MAPS = net((2, 5, 7), Conv2d(2, 3, 3, padding=1), Tanh(), Conv2d(3, 2, (2, 3), padding="same"))
WEIGHT = np.array([0.5, 0.0, 2.0, 1.0, 3.0])


@pytest.mark.parametrize("shares", [False, True], ids=["labels", "shares"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["even", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(shares, weight, smoothing):
    check(networks.make(NETWORKS["groups"](), nn.CrossEntropyLoss(weight, smoothing), shares=shares))


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.BCEWithLogitsLoss()], ids=repr)
@pytest.mark.parametrize("network", [MAPS, NETWORKS["vector"]], ids=["maps", "vector"])
def test_losses_of_floats(loss, network):
    check(networks.make(network(), loss))


OPTIMIZERS = [
    optim.SGD(0.01),
    optim.SGD(0.01, weight_decay=0.1),
    optim.SGD(0.01, momentum=0.9, weight_decay=0.01),
    optim.SGD(0.01, momentum=0.9, nesterov=True),
    optim.SGD(0.01, momentum=0.5, clip_layer_norm=0.02, clip_norm=0.03),
    optim.RMSprop(1e-3, alpha=0.9, eps=1e-4, weight_decay=0.1),
    optim.RMSprop(1e-3, eps=1e-4, momentum=0.5, clip_norm=0.01),
    optim.Adam(1e-3, (0.8, 0.99), 1e-4, weight_decay=0.1),
    optim.Adam(1e-3, eps=1e-4, clip_layer_norm=0.01),
    optim.AdamW(1e-3, eps=1e-4, weight_decay=0.1),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_optimizers(optimizer):
    check(networks.make(NETWORKS["residual"](), optimizer=optimizer))


@pytest.mark.parametrize("name", models.NAMES)
def test_named_models(name):
    shape = {"resnet8": (3, 32, 32), "block_cnn": (1, 8, 8)}.get(name, (1, 28, 28))
    check(networks.make(models.create(name, shape, 10), optimizer=optim.Adam(1e-4, eps=1e-4), batch=4))


# What is equal must be equal


TIES = {
    "fused": [MaxPool2d(2)],
    "fused with ReLU": [ReLU(), MaxPool2d(2)],
    "ReLU behind": [MaxPool2d((3, 2)), ReLU()],
    "padded": [MaxPool2d(3, 2, 1, ceil_mode=True)],
    "overlapping": [MaxPool2d(3, 1)],
    "alone": [LeakyReLU(0.5), MaxPool2d(2, padding=1)],
    "alone with ReLU": [Dropout(0.0), ReLU(), MaxPool2d((2, 4))],
    "wide": [LeakyReLU(0.5), MaxPool2d((16, 16), 2)],
}


@pytest.mark.parametrize("name", TIES)
def test_ties_and_zeros_exactly(name):
    """Small whole numbers leave nothing to rounding, so the largest stands in several cells, and ReLU sees zeros."""
    network = Sequential(Conv2d(1, 5, 3, padding=1), *TIES[name], input_shape=(1, 16, 20))
    rng = np.random.default_rng(1)
    with network.edit():
        network.flat_parameters[...] = rng.integers(-1, 2, network.flat_parameters.shape)
    x = rng.integers(-1, 2, (8, 1, 16, 20)).astype(np.float32)
    out = network(x)
    # Multiples of the number of elements, so that the mean has no fraction that float32 would round.
    y = (out + out.size * rng.integers(-2, 3, out.shape)).astype(np.float32)
    answers = []
    for engine, dtype in (("reference", "float64"), ("compiled", "float32")):
        worker = engines.create(engine)
        worker.build(network.astype(dtype), nn.MSELoss(), threads=2)
        answers.append((worker.predict(x), worker.loss_and_gradients(x, y)[1]))
    (expected, expected_gradient), (outputs, gradient) = answers
    assert np.array_equal(outputs, expected)
    assert np.array_equal(gradient, expected_gradient)
    windows = sliding_window_view(network[0](x), (2, 2), axis=(2, 3))
    largest = windows == windows.max(axis=(-2, -1), keepdims=True)
    assert (largest.sum(axis=(-2, -1)) > 1).mean() > 0.1


# Around the numbers


def test_a_float64_network_predicts_in_float32():
    network = NETWORKS["residual"]()
    x = np.random.default_rng(0).standard_normal((9, 3, 10, 8))
    outputs = []
    for dtype in ("float32", "float64"):
        engine = engines.create("compiled")
        engine.build(network.astype(dtype))
        outputs.append(engine.predict(x))
    assert outputs[0].dtype == outputs[1].dtype == np.float32
    assert np.array_equal(*outputs)


@pytest.mark.parametrize("name", EVERY_ENGINE)
def test_batch_norm_of_a_single_value_is_refused(name):
    network = Sequential(Conv2d(1, 2, 3), BatchNorm2d(2), Flatten(), input_shape=(1, 3, 3))
    engine = engines.create(name)
    engine.build(network, nn.CrossEntropyLoss(), optim.SGD(0.1))
    x, y = np.zeros((3, 1, 3, 3), dtype=np.float32), np.zeros(3, dtype=np.int64)
    with pytest.raises(ShapeError, match="more than one value per channel"):
        engine.loss_and_gradients(x[:1], y[:1])
    with pytest.raises(ShapeError, match="more than one value per channel"):
        engine.train(x, y, np.arange(3), 2, 0, np.full(2, 0.1))


def test_the_page_of_measurements_has_all_rows():
    page = (Path(__file__).resolve().parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\w+) \(.+\) \|", page, re.MULTILINE) == list(models.NAMES)
    digests = re.findall(r"^\| (\d) threads? \| `(\w{64})` \|$", page, re.MULTILINE)
    assert [threads for threads, _ in digests] == ["1", "2", "3", "5", "8"]
    assert len({digest for _, digest in digests}) == 1
