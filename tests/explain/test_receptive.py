"""Receptive fields both ways against what changes when pixels are changed one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explain.networks import model, picture, twin
from oracles import assert_near, ints
from pellucid import explain, models, nn
from pellucid.errors import OptionError


def changes(net, place):
    """Whether each pixel changes each cell: bool, (rows, columns, *cells)."""
    rng = np.random.default_rng(0)
    c, h, w = net.input_shape
    x = rng.uniform(0.5, 1.5, (1, c, h, w))
    before = explain.trace(net, x).outputs[place][0]
    batch = np.repeat(x, h * w, axis=0)
    pixels = np.unravel_index(np.arange(h * w), (h, w))
    batch[np.arange(h * w), :, pixels[0], pixels[1]] += 1
    moved = explain.trace(net, batch).outputs[place] != before
    return moved.any(axis=1).reshape(h, w, *before.shape[1:]) if before.ndim == 3 else moved.reshape(h, w, -1)


def check(net, place):
    """Compare both directions with brute force. Weights are positive, so that nothing cancels."""
    moved = changes(net, place)
    for cell in np.ndindex(moved.shape[2:]):
        rows, columns = explain.receptive_field(net, place, cell)
        hit = moved[(slice(None), slice(None), *cell)]
        if not hit.any():
            assert rows == columns == slice(0, 0) or not hit[rows, columns].any()
            continue
        r, c = (np.flatnonzero(hit.any(axis=axis)) for axis in (1, 0))
        assert (rows, columns) == (slice(r[0], r[-1] + 1), slice(c[0], c[-1] + 1)), (place, cell)
        assert not np.delete(hit, np.arange(rows.start, rows.stop), axis=0).any()
    for pixel in [(0, 0), (moved.shape[0] // 2, 1), (moved.shape[0] - 1, moved.shape[1] - 1)]:
        cells = explain.cells_that_see(net, place, pixel)
        assert cells.shape == moved.shape[2:]
        assert cells.dtype == bool
        assert not (moved[pixel] & ~cells).any(), "a cell that the pixel changes"
        boxes = np.zeros_like(cells)
        for cell in np.ndindex(cells.shape):
            rows, columns = explain.receptive_field(net, place, cell)
            boxes[cell] = rows.start <= pixel[0] < rows.stop and columns.start <= pixel[1] < columns.stop
        assert np.array_equal(cells, boxes)


def conv(before, after, kernel, stride=1, **options):
    return nn.Conv2d(before, after, kernel, stride, bias=False, init=("constant", 0.3), **options)


NETS = {
    "block": [conv(1, 1, 3), nn.Residual(conv(1, 1, 3, padding=1)), nn.AvgPool2d(2)],
    "shortcut": [nn.Residual(conv(1, 2, 3, 2, padding=1), conv(1, 2, 1, 2)), nn.ReLU(), conv(2, 1, 2)],
    "branches": [nn.Concat(conv(1, 1, (1, 5), padding=(0, 2)), conv(1, 2, 3, padding=1)), conv(3, 1, 2, 2)],
    "up": [conv(1, 1, 3, 2), nn.Upsample(scale_factor=2), nn.ConvTranspose2d(1, 1, 2, 2, init=("constant", 0.3))],
    "features": [conv(1, 2, 3, 3), nn.Flatten(), nn.LazyLinear(3, init=("constant", 0.1))],
}


@pytest.mark.capability("H20", "F9")
@pytest.mark.parametrize("name", NETS)
def test_both_ways_at_every_place(name):
    net = nn.Sequential(*NETS[name], input_shape=(1, 11, 9), dtype="float64")
    for place, _ in net.leaves():
        check(net, place)
    for place in [name for name, _ in net.children()]:
        check(net, place)


@pytest.mark.capability("H20", "F9")
@given(
    size=ints(6, 10), kernel=ints(1, 3), stride=ints(1, 2), padding=ints(0, 1), dilation=ints(1, 2),
    pool=ints(1, 2), channels=st.integers(1, 2),
)  # fmt: skip
def test_both_ways_for_any_window(size, kernel, stride, padding, dilation, pool, channels):
    padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
    first = conv(channels, 2, kernel, stride, padding=padding, dilation=dilation)
    net = nn.Sequential(first, nn.AvgPool2d(pool), input_shape=(channels, *size), dtype="float64")
    check(net, "1")


@pytest.mark.capability("F9")
def test_lesson_2_by_hand():
    """Its last 3x3 maps: 18 pixels wide, a step of 4."""
    net = models.create("lesson2", (1, 28, 28), 10)
    boxes = [explain.receptive_field(net, "7", (i, i)) for i in range(3)]
    assert boxes == [(slice(4 * i, 4 * i + 18),) * 2 for i in range(3)]
    assert explain.receptive_field(net, 7, (-1, 0)) == (slice(8, 26), slice(0, 18))
    assert explain.receptive_field(net, "12", 3) == (slice(0, 26), slice(0, 26)), "pooling drops two lines"
    first = np.argwhere(np.ones((3, 3)))[5]
    assert explain.receptive_field(net, 7, first) == explain.receptive_field(net, 7, (1, 2)), "a row of np.argwhere"
    assert not explain.cells_that_see(net, "7", (27, 27)).any()
    assert explain.cells_that_see(net, "12", (0, 0)).all()


@pytest.mark.capability("H20")
def test_effective_field_is_pytorchs_gradient_and_lies_in_the_box(torch):
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Residual(nn.Conv2d(4, 4, 3, padding=1)), nn.MaxPool2d(2), nn.Flatten(),
        nn.LazyLinear(2), input_shape=(3, 13, 11), dtype="float64", seed=1,
    )  # fmt: skip
    m, image = model(net), picture((3, 13, 11))
    other = twin(net)
    x = torch.tensor(m.input.canonical(m.prepared(image)).astype(np.float64), requires_grad=True)
    for layers, place, cell in ((3, "2", (5, 4)), (4, "3", (0, 3)), (6, "5", 1)):
        y = other[:layers](x)[0]
        at = cell if isinstance(cell, tuple) else (cell,)
        value = y[(int(y[(slice(None), *at)].argmax()), *at)] if y.ndim == 3 else y[at]
        (expected,) = torch.autograd.grad(value, x)
        found = explain.effective_field(m, image, place, cell)
        assert_near(found, expected[0].abs().sum(0), 1e-9)
        rows, columns = explain.receptive_field(net, place, cell)
        outside = found.copy()
        outside[rows, columns] = 0
        assert found.any()
        assert not outside.any()
    y = other[:1](x)[0]
    (expected,) = torch.autograd.grad(y[2, 1, 1], x)
    assert_near(explain.effective_field(m, image, 0, (1, 1), channel=2), expected[0].abs().sum(0), 1e-9)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda net: explain.receptive_field(net, 0, (26, 0)), r"cell \(26, 0\) lies outside 26x26"),
        (lambda net: explain.receptive_field(net, 0, 4), "cell must be 2 numbers, for 26x26 values, got 4"),
        (lambda net: explain.receptive_field(net, -1, (0, 0)), "cell must be a number, for 10 values"),
        (lambda net: explain.receptive_field(net, 0, np.ones((2, 2), int)), "cell must be 2 numbers"),
        (lambda net: explain.receptive_field(net, 0, np.array([0.5, 1])), "cell must be 2 numbers"),
        (lambda net: explain.cells_that_see(net, 0, (0, 28)), r"pixel \(0, 28\) lies outside 28x28"),
        (lambda net: explain.cells_that_see(net, "a", (0, 0)), 'unknown layer "a"'),
    ],
)
def test_cells_that_do_not_exist(call, match):
    with pytest.raises(OptionError, match=match):
        call(models.create("lesson2", (1, 28, 28), 10))
