"""Sizes, contributions, links and parameter counts: by hand, and against what layers do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid import functional as F
from pellucid import nn
from pellucid.arithmetic import Links, contributions, links, output_size_steps, parameters_in_words
from pellucid.errors import OptionError, ShapeError


@pytest.mark.capability("A4")
def test_the_steps_of_an_output_size():
    assert output_size_steps(10, 5, padding=2).endswith("= floor(9 / 1) + 1 = 9 + 1 = 10")
    assert output_size_steps((28, 28), (2, 4), 2, 1).splitlines() == [
        "height: floor((28 + 2 x 1 - 1 x (2 - 1) - 1) / 2) + 1 = floor(28 / 2) + 1 = 14 + 1 = 15",
        "width: floor((28 + 2 x 1 - 1 x (4 - 1) - 1) / 2) + 1 = floor(26 / 2) + 1 = 13 + 1 = 14",
    ]
    assert output_size_steps(13, 2, 2, ceil_mode=True).endswith("= ceil(11 / 2) + 1 = 6 + 1 = 7")
    assert output_size_steps(3, 2, 2, 1, ceil_mode=True) == (
        "ceil((3 + 2 x 1 - 1 x (2 - 1) - 1) / 2) + 1 = ceil(3 / 2) + 1 = 2 + 1 = 3, "
        "less the last window, which would start in the padding behind: 2"
    )
    assert output_size_steps(9, 4, 2, "same_upper", 2).startswith("floor((9 + 2 x 3 - 2 x (4 - 1) - 1) / 2) + 1")
    assert "(5 + 0 + 1 - 1 x" in output_size_steps(5, 2, padding="same")
    with pytest.raises(ShapeError, match="a window of length 5 does not fit into 4 cells"):
        output_size_steps(4, 5)
    with pytest.raises(OptionError, match="stride must be at least 1"):
        output_size_steps(4, 3, 0)
    with pytest.raises(OptionError, match="one to three numbers"):
        output_size_steps((1, 2, 3, 4), 1)


settings = st.tuples(st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2), st.integers(1, 3))


@pytest.mark.capability("A4")
@given(settings, st.booleans())
def test_the_last_number_is_what_a_pool_gives(setting, ceil_mode):
    n, k, s, p, d = setting
    p = min(p, (d * (k - 1) + 1) // 2)
    x = np.zeros((1, 1, n))
    try:
        expected = F.max_pool1d(x, k, s, p, d, ceil_mode).shape[2]
    except ShapeError:
        with pytest.raises(ShapeError, match="does not fit"):
            output_size_steps(n, k, s, p, d, ceil_mode)
        return
    assert int(output_size_steps(n, k, s, p, d, ceil_mode).split()[-1]) == expected


@pytest.mark.capability("A6")
def test_contributions_by_hand():
    assert contributions(5, 3).tolist() == [1, 2, 3, 2, 1]
    assert contributions(5, 3, padding=1).tolist() == [2, 3, 3, 3, 2]
    assert contributions(5, 3, padding=2).tolist() == [3, 3, 3, 3, 3]
    square = contributions((5, 5), 3)
    assert square.shape == (5, 5)
    assert (square[0, 0], square[2, 2]) == (1, 9)
    assert contributions(6, 2, stride=3).tolist() == [1, 1, 0, 1, 1, 0]
    assert contributions((2, 3), (1, 2), dilation=(1, 2)).tolist() == [[1, 0, 1], [1, 0, 1]]


@pytest.mark.capability("A6")
@given(settings, settings)
def test_contributions_are_the_gradient_of_a_sum(rows, columns):
    """With weights of one the gradient of the sum of all outputs counts them."""
    size, kernel, stride, padding, dilation = zip(rows, columns, strict=True)
    x, weight = np.zeros((1, 1, *size)), np.ones((1, 1, *kernel))
    try:
        y = F.conv2d(x, weight, None, stride, padding, dilation)
    except ShapeError:
        return
    dx = F.conv2d_backward(np.ones_like(y), x, weight, stride, padding, dilation)[0]
    assert np.array_equal(contributions(size, kernel, stride, padding, dilation), dx[0, 0])


@pytest.mark.capability("B26")
def test_what_sparse_links_save():
    assert links(nn.Conv2d(1, 1, 3), (1, 28, 28)) == Links(784, 676, 9, 9, 6084, 529_984)
    several = links(nn.Conv2d(4, 6, (3, 2), 2, groups=2), (4, 9, 8))
    assert several == Links(288, 6 * 4 * 4, 2 * 6, 6 * 2 * 6, 96 * 12, 96 * 288)
    dense = links(nn.Linear(6, 4), (6,))
    assert dense.shared == dense.local == dense.dense == 24
    assert links(nn.Conv1d(4, 2, 5), (4, 9)).seen == 20
    with pytest.raises(OptionError, match=r"layer must be a convolution or Linear, .* got ReLU\(\)"):
        links(nn.ReLU(), (3,))
    with pytest.raises(ShapeError, match="expects 1 channels"):
        links(nn.Conv2d(1, 1, 3), (3, 28, 28))


@pytest.mark.capability("C10")
@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Conv2d(1, 32, 3), "32 filters of 3 x 3 x 1 weights and a bias each: 32 x 9 + 32 = 320"),
        (nn.Conv2d(32, 64, 3), "64 filters of 3 x 3 x 32 weights and a bias each: 64 x 288 + 64 = 18,496"),
        (nn.Conv2d(3, 10, 5), "10 filters of 5 x 5 x 3 weights and a bias each: 10 x 75 + 10 = 760"),
        (nn.Conv2d(3, 10, 5, bias=False), "10 filters of 5 x 5 x 3 weights each: 10 x 75 = 750"),
        (nn.Conv2d(4, 4, 3, groups=4), "4 filters of 3 x 3 x 1 weights and a bias each: 4 x 9 + 4 = 40"),
        (nn.Linear(576, 64), "64 outputs of 576 weights and a bias each: 64 x 576 + 64 = 36,928"),
        (nn.BatchNorm2d(16), "weight 16, bias 16: 16 + 16 = 32"),
        (nn.ConvTranspose2d(2, 3, 4), "weight 2 x 3 x 4 x 4, bias 3: 96 + 3 = 99"),
        (nn.ReLU(), "none"),
    ],
)
def test_parameters_in_words(layer, words):
    assert parameters_in_words(layer) == words


@pytest.mark.capability("C10")
def test_parameters_of_a_network_in_words():
    shared = nn.Linear(4, 4)
    text = parameters_in_words(nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(4, 2, bias=False)))
    assert text.splitlines() == [
        "0 Linear: 4 outputs of 4 weights and a bias each: 4 x 4 + 4 = 20",
        "3 Linear: 2 outputs of 4 weights each: 2 x 4 = 8",
        "together 28",
    ]
