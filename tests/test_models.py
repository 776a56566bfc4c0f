"""The zoo: sizes and parameter counts of the lessons' networks, and images that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid import models
from pellucid.errors import OptionError, ShapeError

GRAY = (1, 28, 28)


def counts(net):
    """Parameters of each layer that has any."""
    return [part.stop - part.start for part in net.layer_slices()]


def maps(net, kind):
    return [out for _, layer, _, out in net.trace(net.input_shape) if type(layer).__name__ in kind]


@pytest.mark.capability("C1", "C10")
def test_lesson_0():
    net = models.block_cnn(1, [32], [30, 10], input_shape=(1, 8, 8))
    assert counts(net) == [320, 8670, 310]
    assert net.flat_parameters.size == 9300
    assert [out for *_, out in net.trace((1, 8, 8))] == [
        (32, 6, 6), (32, 3, 3), (32, 3, 3), (288,), (30,), (30,), (10,),
    ]  # fmt: skip
    assert type(net[-1]).__name__ == "Linear"


@pytest.mark.capability("C1", "H2")
def test_three_blocks_on_8x8():
    with pytest.raises(
        ShapeError, match=r"images 1x8x8 are too small for 3 blocks without padding; use padding=1 \(layer"
    ):
        models.block_cnn(1, [2, 4, 5], [30, 10], input_shape=(1, 8, 8))
    net = models.block_cnn(1, [2, 4, 5], [30, 10], padding=1, input_shape=(1, 8, 8))
    assert maps(net, ["MaxPool2d"]) == [(2, 4, 4), (4, 2, 2), (5, 1, 1)]
    assert maps(net, ["Flatten"]) == [(5,)]
    with pytest.raises(ShapeError, match="window of height 2 does not fit into 1 cells"):
        models.block_cnn(1, [2, 4, 5, 6], [10], padding=1, input_shape=(1, 8, 8))


def test_wrong_channels_are_not_called_too_small():
    with pytest.raises(ShapeError, match="expects 1 channels, but gets 3") as info:
        models.block_cnn(1, [4], [10], input_shape=(3, 28, 28))
    assert "too small" not in str(info.value)


@pytest.mark.capability("C10")
def test_lesson_1():
    net = models.create("lesson1", GRAY, 10)
    assert counts(net) == [160, 2320, 32, 4640, 2890]
    assert net.flat_parameters.size == 10042
    assert maps(net, ["MaxPool2d"]) == [(16, 14, 14), (16, 7, 7), (32, 3, 3)]
    assert net.flat_parameters.size < 100_000


@pytest.mark.capability("C3", "C10")
def test_lesson_2():
    net = models.create("lesson2", GRAY, 10)
    assert counts(net) == [320, 18496, 36928, 36928, 650]
    assert counts(net) == [3 * 3 * 32 + 32, 32 * 64 * 9 + 64, 64 * 64 * 9 + 64, 576 * 64 + 64, 64 * 10 + 10]
    assert net.flat_parameters.size == 93322
    assert sum(counts(net)[:3]) == 55744
    assert maps(net, ["Conv2d", "MaxPool2d", "Flatten"]) == [
        (32, 26, 26), (32, 13, 13), (64, 11, 11), (64, 5, 5), (64, 3, 3), (576,),
    ]  # fmt: skip


@pytest.mark.capability("C5", "B24")
def test_lesson_3():
    net = models.create("lesson3", GRAY, 10)
    assert counts(net) == [72, 13530]
    assert net.flat_parameters.size == 13602
    assert maps(net, ["Conv2d", "MaxPool2d", "Flatten"]) == [(8, 26, 26), (8, 13, 13), (1352,)]
    assert net[0].bias is None
    assert net[0].weight.std() == pytest.approx(1 / 9, rel=0.3)
    assert net[3].weight.std() == pytest.approx(1 / 1352, rel=0.05)
    assert not net[3].bias.any()


@pytest.mark.capability("C4")
@pytest.mark.parametrize(
    ("filters", "count", "flat"), [((1, 1), 11134, 16), ((6, 1), 11389, 16), ((6, 16), 44374, 256)]
)
def test_lesson_4(filters, count, flat):
    net = models.lesson4(filters=filters).build(GRAY)
    assert net.flat_parameters.size == count
    first, second = filters
    assert maps(net, ["Conv2d", "MaxPool2d", "Flatten"]) == [
        (first, 24, 24), (first, 12, 12), (second, 8, 8), (second, 4, 4), (flat,),
    ]  # fmt: skip


@pytest.mark.capability("C4", "C6")
def test_lenet_mlp_and_resnet():
    assert models.create("lenet5", GRAY, 10).flat_parameters.size == 44374
    assert models.create("mlp", GRAY, 10).flat_parameters.size == 111146
    net = models.create("resnet8", (3, 32, 32), 10)
    assert net.flat_parameters.size == 78042
    assert maps(net, ["Conv2d"])[-1] == (64, 8, 8)
    assert models.mlp(()).build(GRAY).flat_parameters.size == 7850


USUAL = {name: (3, 32, 32) if name == "resnet8" else GRAY for name in models.NAMES}


@pytest.mark.capability("C8", "D19")
@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("shape", [None, (1, 28, 28), (3, 32, 32), (3, 28, 33)])
def test_every_model_builds_and_runs(name, shape):
    shape = shape or USUAL[name]
    net = models.create(name, shape, 7, seed=3)
    for n in (0, 1, 2):
        x = np.random.default_rng(0).random((n, *shape), dtype=np.float32)
        y = net(x)
        assert y.shape == (n, 7)
        assert y.dtype == np.float32
        assert np.isfinite(y).all()
    twin = models.create(name, shape, 7, seed=3)
    assert np.array_equal(net.flat_parameters, twin.flat_parameters)
    assert not np.array_equal(net.flat_parameters, models.create(name, shape, 7, seed=4).flat_parameters)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (("lenet", GRAY, 10), OptionError, 'unknown model "lenet"; did you mean "lenet5"'),
        (("LeNet5", GRAY, 10), OptionError, 'did you mean "lenet5"'),
        (("lesson2", (28, 28), 10), OptionError, r"input_shape must be \(C, H, W\), got \(28, 28\)"),
        (("lesson2", GRAY, 0), OptionError, "out_features must be at least 1"),
        (
            ("lesson2", (1, 12, 12), 10),
            ShapeError,
            r"model lesson2 cannot take images 1x12x12; use the model block_cnn, or",
        ),
        (("lesson4", (1, 8, 8), 10), ShapeError, r"use the model block_cnn, or images of another size"),
        (("block_cnn", (1, 3, 3), 10), ShapeError, "block_cnn cannot take images 1x3x3; use the model mlp"),
    ],
)
def test_refusals(arguments, error, match):
    with pytest.raises(error, match=match):
        models.create(*arguments)


@pytest.mark.parametrize(
    "shape", [(1, 4, 4), (1, 8, 8), (3, 17, 40), (1, 18, 18), (3, 18, 18), (1, 28, 28), (3, 64, 64)]
)
def test_the_default_model_fits(shape):
    assert models.create(models.default(shape), shape, 3).built
