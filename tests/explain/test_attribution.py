"""Saliency, integrated gradients, occlusion and Grad-CAM against captum on the same network in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import NO_TORCH
from explain.networks import NETS, SHAPE, model, network, picture, twin
from oracles import assert_near
from pellucid import explain, nn
from pellucid.errors import DataError, OptionError

pytestmark = pytest.mark.capability("H19")


@pytest.fixture(scope="module")
def captum(torch):
    return pytest.importorskip("captum.attr", reason=NO_TORCH)


@pytest.fixture(params=NETS)
def pair(request, torch):
    """A model, an image, and for captum the network in PyTorch with the network's input."""
    m = model(network(request.param))
    image = picture()
    x = m.input.canonical(m.prepared(image)).astype(np.float64)
    return m, image, twin(m.network), torch.tensor(x)


def test_saliency(captum, pair):
    m, image, net, x = pair
    for target in range(3):
        expected = captum.Saliency(net).attribute(x.clone().requires_grad_(), target=target)[0]
        assert_near(explain.saliency(m, image, target), expected, 1e-9)


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_integrated_gradients(captum, pair, torch, steps):
    m, image, net, x = pair
    baseline = picture(seed=1)
    start = torch.tensor(m.input.canonical(m.prepared(baseline)).astype(np.float64))
    expected = captum.IntegratedGradients(net).attribute(x, start, target=1, n_steps=steps)[0]
    found = explain.integrated_gradients(m, image, "class 1", baseline, steps)
    assert_near(found.values, expected, 1e-6)  # captum's weights of the sum are float32
    assert found.steps == steps
    difference = (net(x) - net(start))[0, 1].item()
    assert found.difference == pytest.approx(difference, rel=1e-9)
    assert found.gap == pytest.approx(expected.sum().item() - difference, abs=1e-6)


def test_integrated_gradients_are_complete(pair):
    m, image, _, _ = pair
    for target in (0, 2):
        found = explain.integrated_gradients(m, image, target, baseline=0.25)
        assert abs(found.values.sum() - found.difference) <= 0.01 * abs(found.difference)
        assert found.gap == pytest.approx(found.values.sum() - found.difference)


@pytest.mark.parametrize(
    ("window", "stride"), [((4, 4), (2, 2)), ((3, 5), (3, 2)), ((13, 11), (1, 1)), ((1, 1), (1, 1))]
)
def test_occlusion(captum, pair, window, stride):
    m, image, net, x = pair
    expected = captum.Occlusion(net).attribute(x, (1, *window), strides=(1, *stride), baselines=-0.75, target=2)
    found = explain.occlusion(m, image, 2, window, stride, baseline=m.input.value_range[0] + 5 * (0.45 - 0.75 * 0.2))
    assert_near(found, expected[0].sum(0), 1e-5, size=0.05)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("plain", 0),
        ("plain", 1),
        ("plain", 4),
        ("residual", 3),
        ("residual", "5.body"),
        ("branches", "0.1.0"),
        ("branches", 3),
    ],
)
def test_grad_cam(captum, torch, name, layer):
    m, image = model(network(name)), picture()
    net = twin(m.network)
    x = torch.tensor(m.input.canonical(m.prepared(image)).astype(np.float64))
    for target in range(3):
        at = net.get_submodule(str(layer))
        expected = captum.LayerGradCam(net, at).attribute(x, target=target, relu_attributions=True)[0, 0]
        assert_near(explain.grad_cam(m, image, target, layer), expected, 1e-9, size=1e-3)


def test_colors(captum, torch):
    net = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2), input_shape=(3, 6, 7), dtype="float64"
    )
    m, image = model(net), picture((3, 6, 7))
    other, x = twin(net), torch.tensor(m.input.canonical(m.prepared(image)).astype(np.float64))
    assert_near(
        explain.saliency(m, image, 0), captum.Saliency(other).attribute(x.clone().requires_grad_(), target=0)[0], 1e-9
    )
    expected = captum.Occlusion(other).attribute(x, (3, 2, 2), baselines=-2.25, target=0)[0, 0]
    assert_near(explain.occlusion(m, image, 0, 2, 1, baseline=-2.25), expected, 1e-5, size=0.05)


def test_an_output_that_is_a_map(captum, torch):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.ConvTranspose2d(2, 1, 3), input_shape=SHAPE, dtype="float64")
    m, image = model(net, classes=False), picture()
    other, x = twin(net), torch.tensor(m.input.canonical(m.prepared(image)).astype(np.float64))
    expected = captum.Saliency(other).attribute(x.clone().requires_grad_(), target=(0, 3, 4))[0]
    assert_near(explain.saliency(m, image, (0, 3, 4)), expected, 1e-9)
    assert explain.grad_cam(m, image).shape == SHAPE[1:]


def test_the_border_is_the_baseline_and_the_largest_output_the_target():
    m = model(network("plain"))
    image = picture()
    image[:, [0, -1]] = image[:, :, [0, -1]] = 0.5
    best = int(explain.feature_maps(m, image)["8"].argmax())
    given = explain.integrated_gradients(m, image, best, 0.5, 20)
    assert np.array_equal(given.values, explain.integrated_gradients(m, image, steps=20).values)
    assert np.array_equal(explain.occlusion(m, image, best, baseline=0.5), explain.occlusion(m, image))
    assert not given.values[:, 0].any()


def test_where_grad_cam_looks():
    assert explain.cam_layer(network("plain")) == "4"
    assert explain.cam_layer(network("residual")) == "6", "the last pooling is left out"
    assert explain.cam_layer(network("branches")) == "2"
    with pytest.raises(OptionError, match="this network has none; try saliency"):
        explain.grad_cam(model(network("dense")), picture())
    with pytest.raises(OptionError, match="8 gives 3 numbers without a place"):
        explain.grad_cam(model(network("plain")), picture(), layer=8)
    cells = nn.Sequential(nn.Conv2d(1, 2, (13, 11)), nn.Flatten(), nn.Linear(2, 2), input_shape=SHAPE)
    with pytest.raises(OptionError, match="this network has none"):
        explain.grad_cam(model(cells), picture())
    assert explain.grad_cam(model(cells), picture(), layer=0).shape == (1, 1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"window": (14, 2)}, "window 14x2 is larger than the image, 13x11"),
        ({"window": 2, "stride": 3}, "stride 3x3 is larger than the window, 2x2; pixels would be left out"),
        ({"window": 0}, "window must be at least 1"),
        ({"baseline": np.zeros((4, 4))}, r"baseline must be a raw value, .* got shape \(4, 4\)"),
        ({"baseline": np.nan}, "got NaN"),
        ({"target": "9"}, 'unknown class "9"'),
    ],
)
def test_arguments_that_cannot_be(options, match):
    with pytest.raises((OptionError, DataError), match=match) as caught:
        explain.occlusion(model(network("plain")), picture(), **options)
    assert "\n" not in str(caught.value)
    with pytest.raises(OptionError, match="steps must be at least 1"):
        explain.integrated_gradients(model(network("plain")), picture(), steps=0)
