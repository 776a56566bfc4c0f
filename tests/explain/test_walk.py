"""What flows through a network: the reference engine's values, and PyTorch's gradients at every place."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from explain.networks import NETS, SHAPE, model, network, picture, twin
from oracles import assert_near, randn
from pellucid import engines, explain, models, nn
from pellucid.errors import DataError, OptionError
from pellucid.explain.walk import canonical, find, index, target_cell


@pytest.mark.capability("F6")
@pytest.mark.parametrize("name", models.NAMES)
def test_values_are_the_reference_engines_to_the_bit(name):
    net = models.create(name, (3, 32, 32), 10)
    x = randn(0, 5, 3, 32, 32, dtype="float32")
    engine = engines.create("reference")
    engine.build(net)
    assert np.array_equal(explain.trace(net, x).outputs[""], engine.predict(x))


@pytest.mark.parametrize("name", NETS)
def test_outputs_and_gradients_at_every_place_are_pytorchs(torch, name):
    net = network(name)
    other, at = twin(net), {}

    def keep(module, inputs, y, place):
        at[place] = y.clone() if any(y is given for given in inputs) else y  # an identity's output has its own gradient
        at[place].retain_grad()
        return at[place]

    for place, module in other.named_modules():
        module.register_forward_hook(partial(keep, place=place))
    x = randn(1, 2, *SHAPE)
    leaf = torch.tensor(x, requires_grad=True)
    y = other(leaf)
    dy = randn(2, *y.shape)
    y.backward(torch.tensor(dy))
    seen = explain.trace(net, x)
    gradients = seen.gradients({"": dy})
    assert set(at) == set(seen.outputs) - {"input"}
    assert_near(gradients["input"], leaf.grad, 1e-10)
    for place, value in at.items():
        assert_near(seen.outputs[place], value, 1e-12, place)
        assert_near(gradients[place], value.grad, 1e-10, place, size=1e-3)


@pytest.mark.parametrize("name", NETS)
def test_the_gradient_of_an_inner_value_is_that_of_the_network_up_to_it(torch, name):
    net = network(name)
    other, at = twin(net), {}
    for place, module in other.named_modules():
        module.register_forward_hook(lambda module, inputs, y, place=place: at.update({place: y}))
    x = randn(1, 2, *SHAPE)
    leaf = torch.tensor(x, requires_grad=True)
    other(leaf)
    seen = explain.trace(net, x)
    for place, value in at.items():
        dy = randn(3, *value.shape)
        (expected,) = torch.autograd.grad(value, leaf, torch.tensor(dy), retain_graph=True)
        assert_near(seen.gradients({place: dy})["input"], expected, 1e-10, place, size=1e-3)


def test_unpooling_goes_through_both_of_its_parts():
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.MaxUnpool2d(nn.MaxPool2d(2), nn.Sequential(nn.Conv2d(2, 2, 1), nn.Tanh())),
        nn.Flatten(),
        nn.LazyLinear(2),
        input_shape=(1, 9, 8),
        dtype="float64",
    )
    x, dy = randn(0, 3, 1, 9, 8), randn(1, 3, 2)
    y, backward = net.forward(x)
    seen = explain.trace(net, x)
    gradients = seen.gradients({"": dy})
    assert np.array_equal(seen.outputs[""], y)
    assert_near(gradients["input"], backward(dy)[0], 1e-12)
    assert list(seen.outputs) == ["input", "0", "1.pool", "1.body.0", "1.body.1", "1.body", "1", "2", "3", ""]
    step, direction = 1e-6, randn(2, 3, 1, 9, 8)
    ahead, behind = (explain.trace(net, x + s * direction).outputs["1.body.0"] for s in (step, -step))
    by = randn(4, *ahead.shape)
    slope = (seen.gradients({"1.body.0": by})["input"] * direction).sum()
    assert slope == pytest.approx((by * (ahead - behind)).sum() / (2 * step), rel=1e-6)


def test_a_container_of_ones_own_and_a_shared_layer():
    class Twice(nn.Sequential):
        def forward(self, x, *, training=False, rng=None):
            y, backward = super().forward(x, training=training, rng=rng)
            return 2 * y, lambda dy: backward(2 * dy)

    class Named(nn.Sequential):
        pass

    shared = nn.Linear(4, 4)
    net = nn.Sequential(shared, Twice(nn.Tanh()), Named(shared, nn.ReLU()), input_shape=(4,), dtype="float64")
    x = randn(0, 2, 4)
    seen = explain.trace(net, x)
    assert list(seen.outputs) == ["input", "0", "1", "2.0", "2.1", "2", ""]
    y, backward = net.forward(x)
    assert np.array_equal(seen.outputs[""], y)
    assert_near(seen.gradients({"": np.ones_like(y)})["input"], backward(np.ones_like(y))[0], 1e-14)


def test_a_trace_leaves_the_network_as_it_was():
    net = network("residual")
    before = net.state_dict()
    seen = explain.trace(net, randn(0, 2, *SHAPE))
    by = np.ones_like(seen.outputs["3"])
    kept = by.copy()
    first, second = seen.gradients({"3": by}), seen.gradients({"3": by})
    assert np.array_equal(first["input"], second["input"])
    assert np.array_equal(by, kept)
    assert all(np.array_equal(value, before[name]) for name, value in net.state_dict().items())


def test_layers_are_found_by_place_and_number():
    net = network("residual")
    assert find(net, "3.body.0")[1] is net[3].body[0]
    assert find(net, 3) == find(net, "3") == ("3", net[3])
    assert find(net, -1)[0] == "9"


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        ("3.body.9", 'unknown layer "3.body.9"; did you mean "3.body'),
        (10, "layer must be -10 to 9, or a name, got 10"),
        (True, 'layer must be a number or a name such as "3.body.0", got True'),
        (None, "layer must be a number or a name"),
        ("", 'unknown layer ""'),
    ],
)
def test_layers_that_are_not_there(layer, match):
    with pytest.raises(OptionError, match=match) as caught:
        find(network("residual"), layer)
    assert "\n" not in str(caught.value)


def test_cells_and_targets_that_are_not_there():
    m = model(network("plain"))
    out = np.array([1.0, 3.0, 2.0])
    assert target_cell(m, out, None) == target_cell(m, out, "class 1") == target_cell(m, out, -2) == (1,)
    with pytest.raises(OptionError, match='unknown class "class 9"; did you mean "class '):
        target_cell(m, out, "class 9")
    with pytest.raises(OptionError, match="target 3 lies outside 3"):
        target_cell(m, out, 3)
    with pytest.raises(OptionError, match="cell must be 2 numbers, for 4x5 values, got 1"):
        index((4, 5), 1, "cell")
    with pytest.raises(OptionError, match="cell must be a number, for 4 values, got True"):
        index((4,), True, "cell")


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (np.full(SHAPE, np.nan), "got NaN"),
        (np.zeros((2, *SHAPE)), "image must be one image, got 2"),
        (np.zeros((3, 11, 13)), "the model takes images N x 1 x 13 x 11"),
        ("nowhere.png", "cannot read image nowhere.png: there is no such file"),
        ([], "there are no images"),
        (np.full(SHAPE, 1e9), "raw values from -2.25 to 2.75"),
    ],
)
def test_images_that_the_model_cannot_take(image, match):
    with pytest.raises(DataError, match=match):
        canonical(model(network("plain")), image)


def test_what_is_no_model():
    with pytest.raises(OptionError, match=r"got Sequential; Model\(network, InputSpec"):
        explain.saliency(network("plain"), picture())
    with pytest.raises(OptionError, match="or a network, got 3"):
        explain.kernels(3)
    with pytest.raises(OptionError, match="not built yet"):
        explain.kernels(nn.Sequential(nn.ReLU()))
