"""Every operation of the field on the compiled engine: the numbers of the definition, the same bits in any company."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest

from compiled import networks
from compiled.test_parity import check
from pellucid import engines, nn, optim
from pellucid.compiled.engine import programs
from pellucid.errors import DataError, EngineError
from pellucid.nn import Conv2d, Flatten, LazyLinear, Sequential, Tanh

pytestmark = pytest.mark.capability("C14")

SHAPE = networks.OPERATIONS_SHAPE


def network(name: str) -> Sequential:
    """The operation behind and before layers with weights, so that gradients go through it."""
    first, layers = (Conv2d(2, 2, 3, padding=1), Tanh()), copy.deepcopy(networks.OPERATIONS[name])
    return Sequential(*first, *layers, Flatten(), LazyLinear(3), input_shape=SHAPE)


@pytest.mark.parametrize("name", networks.OPERATIONS)
def test_operations(name):
    check(networks.make(network(name), batch=5))


@pytest.mark.parametrize("name", networks.OPERATIONS)
def test_first_and_last(name):
    """Nothing before it needs a gradient, and the loss is that of its own outputs."""
    layers = copy.deepcopy(networks.OPERATIONS[name])
    check(networks.make(Sequential(*layers, input_shape=SHAPE), nn.MSELoss(), batch=3))


@pytest.mark.parametrize("name", [name for name in networks.OPERATIONS if "batch norm" not in name])
def test_one_image_at_a_time(name):
    check(networks.make(network(name), optimizer=optim.SGD(0.01, weight_decay=0.1), batch=1))


def shared_transposed() -> list[nn.Layer]:
    layer = nn.ConvTranspose2d(2, 2, (3, 2), (1, 2), (1, 0))
    return [layer, nn.ReLU(), layer, Conv2d(2, 3, 2, 2)]


def shared_norms() -> list[nn.Layer]:
    group, layer = nn.GroupNorm(1, 2), nn.LayerNorm(126)
    return [group, Conv2d(2, 2, 3, padding=1), group, Flatten(), layer, nn.Linear(126, 126), layer]


def shared_norm_of_maps_and_rows() -> list[nn.Layer]:
    layer = nn.LayerNorm((9, 7))
    return [layer, nn.Tanh(), nn.Residual(layer), nn.MaxPool2d((1, 2), 1), nn.ReplicationPad2d((1, 0, 0, 0)), layer]


def shared_slopes() -> list[nn.Layer]:
    one, two = nn.PReLU(), nn.PReLU(2)
    return [one, two, Conv2d(2, 2, 2), two, one, Flatten(), one]


def shared_reflected() -> list[nn.Layer]:
    layer = Conv2d(2, 2, 3, padding=1, padding_mode="reflect")
    return [layer, nn.ReLU(), nn.MaxPool2d(2), layer, nn.Upsample(scale_factor=2), layer]


def shared_unpooled() -> list[nn.Layer]:
    pool = nn.MaxPool2d(2, 1)
    return [nn.MaxUnpool2d(pool, Conv2d(2, 2, 1)), nn.ReLU(), nn.MaxUnpool2d(pool, nn.Tanh()), pool]


SHARED = [
    shared_transposed,
    shared_norms,
    shared_norm_of_maps_and_rows,
    shared_slopes,
    shared_reflected,
    shared_unpooled,
]


@pytest.mark.parametrize("make", SHARED)
@pytest.mark.parametrize("batch", [1, 4])
def test_shared_layers(make, batch):
    layers = [Conv2d(2, 2, 3, padding=1), *make(), Flatten(), LazyLinear(3)]
    check(networks.make(Sequential(*layers, input_shape=SHAPE), batch=batch))


@pytest.mark.capability("H15")
@pytest.mark.parametrize("name", networks.OPERATIONS)
def test_threads_and_company_do_not_show(name):
    x = np.random.default_rng(4).standard_normal((23, *SHAPE)).astype(np.float32)
    results = []
    for threads in (1, 2, 5):
        engine = engines.create("compiled")
        engine.build(network(name), nn.CrossEntropyLoss(), optim.SGD(0.02, 0.9), seed=6, threads=threads)
        losses = engine.train(x, np.arange(23) % 3, np.tile(np.arange(23), 2), 7, 0, np.full(6, 0.02))
        outputs = engine.predict(x)
        for part in (slice(0, 1), slice(3, 20, 4), slice(None, None, -1)):
            assert engine.predict(x[part]).tobytes() == outputs[part].tobytes()
        results.append((losses.tolist(), outputs.tobytes(), engine.state()["parameters"].tobytes()))
    assert len(results[0][0]) == 6
    assert results[1:] == results[:1] * 2


# Losses

VECTOR, MAPS = (5,), (2, 3, 4)
WEIGHT = np.array([0.5, 0.0, 2.0, 1.0, 3.0])
OF_MAPS = np.random.default_rng(2).random(MAPS)

LOSSES: list[tuple[nn.Loss, type[nn.Layer] | None]] = [
    *((loss(reduction=reduction), None) for reduction in ("mean", "sum") for loss in (nn.L1Loss, nn.SmoothL1Loss)),
    *((nn.HuberLoss(reduction, delta), None) for reduction, delta in (("mean", 0.3), ("sum", 1.0))),
    *((nn.SmoothL1Loss(beta=beta), None) for beta in (0.0, 0.3)),
    (nn.MSELoss("sum"), None),
    (nn.BCEWithLogitsLoss(reduction="sum"), None),
    *((nn.BCELoss(reduction=reduction), nn.Sigmoid) for reduction in ("mean", "sum")),
]
OF_VECTORS: list[tuple[nn.Loss, type[nn.Layer] | None]] = [
    (nn.CrossEntropyLoss(WEIGHT, 0.1, "sum"), None),
    *((nn.NLLLoss(weight, reduction), nn.LogSoftmax) for weight in (None, WEIGHT) for reduction in ("mean", "sum")),
    (nn.BCELoss(WEIGHT), nn.Sigmoid),
    (nn.BCEWithLogitsLoss(WEIGHT), None),
    (nn.BCEWithLogitsLoss(pos_weight=WEIGHT), None),
    (nn.BCEWithLogitsLoss(WEIGHT, "sum", WEIGHT[::-1]), None),
]
OF_WEIGHTED_MAPS = [(nn.BCELoss(OF_MAPS), nn.Sigmoid), (nn.BCEWithLogitsLoss(OF_MAPS[:1], pos_weight=OF_MAPS), None)]


@pytest.mark.parametrize(
    ("loss", "last", "shape"),
    [
        *((*case, VECTOR) for case in LOSSES + OF_VECTORS),
        *((*case, MAPS) for case in LOSSES + OF_WEIGHTED_MAPS),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_losses(loss, last, shape):
    layers = [Flatten(), nn.LazyLinear(5)] if shape == VECTOR else [nn.AdaptiveAvgPool2d(shape[1:])]
    layers = [Conv2d(2, 2, 3), Tanh(), *layers, *([last()] if last else [])]
    check(networks.make(Sequential(*layers, input_shape=SHAPE), loss, optim.SGD(1e-3), seed=3))


@pytest.mark.parametrize("name", engines.NAMES)
@pytest.mark.parametrize("bad", [-0.1, 1.5, np.nan])
def test_targets_that_are_no_probabilities(name, bad):
    net = Sequential(Conv2d(2, 2, 3), nn.Sigmoid(), input_shape=SHAPE)
    engine = engines.create(name)
    engine.build(net, nn.BCELoss(), optim.SGD(0.1))
    y = np.full((4, 2, 7, 5), 0.5)
    y[2, 1, 3, 3] = bad
    with pytest.raises(DataError, match="targets must be probabilities between 0 and 1"):
        engine.train(np.zeros((4, *SHAPE), dtype=np.float32), y, np.arange(4), 4, 0, np.array([0.1]))


# What is said of them


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((2, 9), nn.Conv1d(2, 3, 3)),
        ((2, 5, 5, 5), nn.MaxPool3d(2)),
        ((2, 5, 5, 5), nn.ConvTranspose3d(2, 1, 2)),
        ((2, 9), nn.Upsample(scale_factor=2)),
    ],
    ids=repr,
)
def test_networks_of_other_dimensions_are_refused_by_name(shape, layer):
    engine = engines.create("compiled")
    with pytest.raises(EngineError, match=rf'layer 0 \({type(layer).__name__}.*the engine "reference" runs any layer'):
        engine.build(Sequential(layer, Flatten(), input_shape=shape))


def test_maps_with_more_cells_than_can_be_numbered_are_refused():
    network = Sequential(nn.AdaptiveMaxPool2d(2), input_shape=(1, 4097, 4096))
    with pytest.raises(EngineError, match=r'select_pool 0 has 4097 x 4096 cells.*use the engine "reference"'):
        engines.create("compiled").build(network)


def test_the_program_names_them():
    layers = [
        nn.Concat(nn.Identity(), Sequential(nn.MaxUnpool2d(nn.MaxPool2d(2), nn.GELU()), nn.ZeroPad2d(0))),
        Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.GroupNorm(2, 4),
        nn.ConvTranspose2d(4, 2, 2, 2),
        nn.Upsample(scale_factor=0.5),
        nn.PReLU(2),
    ]
    text = str(programs(Sequential(Conv2d(2, 2, 1), *layers, Flatten(), LazyLinear(2), input_shape=SHAPE))[0])
    for title, kernel in {
        "select_pool 1.1.0.pool": "select_pool[",
        "unpool 1.1.0": "unpool",
        "pad 1.1.1": "resample[",
        "concat 1": "resample[",
        "pad 2": "resample[",
        "conv 2": "correlate[",
        "group_norm 3": "group_norm[",
        "conv_transpose 4": "correlate[",
        "upsample 5": "resample[",
        "prelu 6": "prelu[",
        "gradient 1.1.0": "unpool_gradient",
        "weight gradient 4": "weight_gradient[",
        "weight gradient 6": "bias_gradient[",
    }.items():
        assert re.search(rf"^ +{re.escape(title)} +{re.escape(kernel)}", text, re.MULTILINE), (title, kernel)
