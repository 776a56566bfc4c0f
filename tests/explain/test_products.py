"""One output number by number: the terms against PyTorch's unfold, the sum against the engine's value."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explain.networks import model, network, picture
from oracles import ints, randn, seeds
from pellucid import explain, models, nn
from pellucid.errors import OptionError, ShapeError
from pellucid.explain import figures

pytestmark = pytest.mark.capability("H21", "A11")


@given(
    size=ints(4, 9), kernel=ints(1, 3), stride=ints(1, 3), padding=ints(0, 2), dilation=ints(1, 2),
    channels=st.sampled_from([(1, 2, 1), (3, 2, 1), (4, 6, 2), (3, 3, 3)]), bias=st.booleans(), seed=seeds,
)  # fmt: skip
def test_the_sum_is_the_engines_value(size, kernel, stride, padding, dilation, channels, bias, seed):
    into, out, groups = channels
    if any(n + 2 * p < d * (k - 1) + 1 for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)):
        return
    layer = nn.Conv2d(into, out, kernel, stride, padding=padding, dilation=dilation, groups=groups, bias=bias)
    net = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.LazyLinear(2), input_shape=(into, *size), seed=seed % 1000)
    m, image = model(net), picture((into, *size), seed)
    y = explain.feature_maps(m, image)["0"]
    channel, *cell = (int(i) for i in np.unravel_index(seed % y.size, y.shape))
    one = explain.pixel(m, image, 0, channel, tuple(cell))
    assert one.value == float(y[channel, cell[0], cell[1]])
    assert one.total == pytest.approx(one.value, rel=1e-5, abs=1e-5)
    assert one.patch.shape == one.kernel.shape == (into // groups, *kernel)
    assert one.channel_sums.sum() + one.bias == pytest.approx(one.total)
    assert (one.bias == 0) or bias
    d = one.decimals
    assert round(one.total, d) == round(one.value, d)
    words = re.search(r"output (\S+), the engine's value (\S+)\n", str(one) + "\n")
    assert words[1] == words[2]
    assert one.activated == ("Tanh", float(explain.feature_maps(m, image)["1"][channel, cell[0], cell[1]]))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"), [(1, 0, 1, 1), (2, (2, 1), (1, 2), 1), ((1, 3), 2, 1, 2)]
)
def test_patch_and_kernel_are_those_of_pytorch(torch, mode, stride, padding, dilation, groups):
    x, weight, bias = randn(0, 4, 7, 8), randn(1, 6, 4 // groups, 3, 2), randn(2, 6)
    other = torch.nn.Conv2d(4, 6, (3, 2), stride, padding, dilation, groups, padding_mode=mode, dtype=torch.float64)
    other.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    y = other(torch.tensor(x[None]))[0].detach().numpy()
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": mode}
    for at in [(0, 0, 0), (5, y.shape[1] - 1, y.shape[2] - 1), (3, 1, 1)]:
        one = explain.window(x, weight, bias, at[0], at[1:], **options)
        assert one.total == pytest.approx(y[at], rel=1e-12)
        assert one.value == pytest.approx(y[at], rel=1e-12)
        assert np.array_equal(one.kernel, weight[at[0]])
        assert np.array_equal(
            one.patch, one.padded[(slice(one.first_channel, one.first_channel + 4 // groups), *one.window)]
        )
    assert explain.window(x, weight, None, **options).bias == 0


def test_numbers_by_hand():
    x = np.arange(1.0, 10.0).reshape(1, 3, 3)
    one = explain.window(x, np.array([[[[1.0, 2.0], [3.0, -4.0]]]]), np.array([0.25]), cell=(0, 0), padding=1)
    assert one.patch.tolist() == [[[0, 0], [0, 1]]]
    assert one.products.tolist() == [[[0, 0], [0, -4]]]
    assert (one.total, one.bias, one.channel_sums.tolist()) == (-3.75, 0.25, [-4.0])
    assert "  0.0000   1.0000" in str(one)
    assert str(one).endswith("sum of all products -4.000000, bias 0.250000\noutput -3.7500, the engine's value -3.7500")
    strongest = explain.window(x, np.ones((1, 1, 2, 2)), cell=None, channel=None)
    assert (strongest.channel, strongest.cell, strongest.total) == (0, (1, 1), 5 + 6 + 8 + 9)


def test_two_channels_are_summed_and_the_bias_is_added_once():
    x = np.stack([np.ones((3, 3)), 2 * np.ones((3, 3))])
    one = explain.window(x, np.ones((1, 2, 3, 3)), np.array([10.0]))
    assert one.channel_sums.tolist() == [9, 18]
    assert one.total == 37


def test_what_is_shown_agrees_even_where_float32_and_float64_do_not():
    one = explain.window(np.full((1, 1, 1), 1e6), np.full((1, 1, 1, 1), 1 / 3))
    off = explain.Pixel(**{**vars(one), "value": float(np.float32(1e6 / 3))})
    assert off.value != off.total
    words = re.search(r"output (\S+), the engine's value (\S+)", str(off))
    assert words[1] == words[2] == "333333.3"


def test_dense_layers_and_inner_convolutions():
    m, image = model(network("plain")), picture()
    maps = explain.feature_maps(m, image)
    dense = explain.pixel(m, image, "6", channel=2)
    assert dense.cell == ()
    assert dense.value == float(maps["6"][2])
    assert np.array_equal(dense.patch, maps["5"])
    assert dense.total == pytest.approx(dense.value, rel=1e-12)
    assert dense.activated == ("ReLU", float(maps["7"][2]))
    last = explain.pixel(m, image, -1)
    assert last.value == maps["8"].max()
    assert last.activated is None
    inner = explain.pixel(model(network("residual")), image, "3.body.0", channel=1)
    y = explain.feature_maps(model(network("residual")), image)["3.body.0"]
    assert inner.value == y[1].max()
    assert inner.activated[0] == "SiLU"
    given_cell = explain.pixel(m, image, 0, cell=(2, 3))
    assert given_cell.channel == maps["0"][:, 2, 3].argmax()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"layer": 1}, "layer 1 is a ReLU; only a Conv2d or Linear is a sum of products"),
        ({"layer": 6, "cell": (0, 0)}, "a dense layer's outputs have no cell; give channel="),
        ({"layer": 0, "channel": 4}, "channel 4 lies outside 4"),
        ({"layer": 0, "cell": (13, 0)}, r"cell \(13, 0\) lies outside 13x11"),
        ({"layer": 0, "cell": "0"}, "cell must be 2 numbers"),
    ],
)
def test_what_cannot_be(options, match):
    with pytest.raises(OptionError, match=match) as caught:
        explain.pixel(model(network("plain")), picture(), **options)
    assert "\n" not in str(caught.value)
    with pytest.raises(ShapeError, match=r"x must be \(C, H, W\) and weight"):
        explain.window(np.zeros((3, 3)), np.zeros((1, 1, 2, 2)))
    with pytest.raises(OptionError, match="x must be an array of numbers, got 'abc'"):
        explain.window("abc", np.zeros((1, 1, 2, 2)))
    with pytest.raises(OptionError, match=r'unknown padding_mode "foo".* Known: zeros, reflect, replicate, circular'):
        explain.window(np.zeros((1, 3, 3)), np.zeros((1, 1, 2, 2)), padding_mode="foo")
    with pytest.raises(ShapeError):
        explain.window(np.zeros((2, 3, 3)), np.zeros((1, 1, 2, 2)))


def words_of(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_the_picture_has_the_numbers():
    one = explain.pixel(model(network("plain")), picture(), 0)
    figure = figures.pixel(one)
    assert [ax.get_title() for ax in figure.axes] == ["patch", "kernel", "products"]
    expected = [f"{n + 0.0:.2f}" for part in (one.patch, one.kernel, one.products) for n in part.round(2).ravel()]
    assert words_of(figure) == expected
    assert figure.get_supxlabel().endswith(f"= {one.total:.{one.decimals}f}")
    deep = figures.pixel(explain.pixel(model(network("plain")), picture(), 3), channels=2)
    assert len(deep.axes) == 6
    with pytest.raises(OptionError, match="at most 7x7"):
        figures.pixel(explain.pixel(model(network("plain")), picture(), 6))


def test_the_steps_of_a_sliding_window():
    x, kernel = np.arange(9.0).reshape(1, 3, 3), np.ones((1, 1, 2, 2))
    steps = [explain.window(x, kernel, cell=cell, padding=1, stride=2) for cell in np.ndindex(2, 2)]
    figure = figures.sliding_window(steps)
    assert [ax.get_title() for ax in figure.axes[:4]] == ["(0, 0): 0", "(0, 1): 3", "(1, 0): 9", "(1, 1): 24"]
    assert [ax.patches[0].get_xy() for ax in figure.axes[:4]] == [(-0.5, -0.5), (1.5, -0.5), (-0.5, 1.5), (1.5, 1.5)]
    assert words_of(figure)[:6] == ["0"] * 6
    with pytest.raises(OptionError, match="windows must be steps of one convolution"):
        figures.sliding_window([])


def test_a_network_of_the_zoo_in_float32():
    m = model(models.create("lesson2", (1, 28, 28), 10))
    for layer in ("0", "3", "6", "9", "12"):
        one = explain.pixel(m, picture((1, 28, 28)), layer)
        assert one.decimals >= 3
