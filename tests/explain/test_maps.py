"""Feature maps and kernels."""

from __future__ import annotations

import numpy as np
import pytest

from explain.networks import model, network, picture
from pellucid import explain, models, nn
from pellucid.errors import DataError, OptionError, ShapeError


@pytest.mark.capability("F6")
def test_maps_of_every_layer_by_place():
    m, image = model(network("residual")), picture()
    maps = explain.feature_maps(m, image)
    leaves = [place for place, _ in m.network.leaves()]
    assert next(iter(maps)) == "input"
    assert [place for place in maps if place in leaves] == leaves
    assert set(maps) - set(leaves) == {"input", "3", "3.body", "5"}
    assert np.array_equal(maps["input"], m.input.canonical(image[None])[0])
    x = maps["input"][None]
    for place, layer in m.network.children():
        x = layer(x)
        assert np.array_equal(maps[place], x[0]), place


def test_dead_maps():
    maps = np.zeros((4, 2, 3))
    maps[1, 0, 0], maps[2] = 1, 5
    maps[3] = np.nan
    assert explain.dead(maps).tolist() == [True, False, True, False]
    assert explain.dead(np.array([[[0.0]], [[2.0]]])).tolist() == [True, False], "a single cell speaks unless it is 0"


def test_what_cannot_be():
    with pytest.raises(ShapeError, match=r"maps must be \(C, H, W\), got \(1, 1\)"):
        explain.dead([[1]])
    with pytest.raises(OptionError, match="maps must be an array of numbers, got 'x'"):
        explain.dead("x")
    gray = model(network("plain"))
    with pytest.raises(DataError, match="image must be one image, got 3; the model takes 1 channel, 1x13x11"):
        explain.feature_maps(gray, np.zeros((3, 13, 11)))


@pytest.mark.capability("F7")
def test_kernels_of_all_layers():
    net = models.create("resnet8", (3, 32, 32), 10)
    found = explain.kernels(net)
    assert list(found) == [place for place, layer in net.leaves() if isinstance(layer, nn.Conv2d)]
    assert all(np.array_equal(weight, net.state_dict()[f"{place}.weight"]) for place, weight in found.items())
    shared = nn.Conv2d(2, 2, 3, padding=1)
    twice = nn.Sequential(shared, nn.ReLU(), shared, nn.ConvTranspose2d(2, 1, 2), input_shape=(2, 5, 5))
    assert list(explain.kernels(twice)) == ["0", "3"]
    assert explain.kernels(network("dense")) == {}
