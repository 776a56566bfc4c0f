"""The summary: sizes and sums by hand, and receptive fields against what a gradient reaches."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid import models, nn, summarize


def by_path(net):
    return {layer.path: layer for layer in summarize(net).layers}


@pytest.mark.capability("C9", "C10", "H22", "F9")
def test_lesson_2():
    summary = summarize(models.create("lesson2", (1, 28, 28), 10))
    weighted = [layer for layer in summary.layers if layer.multiply_adds]
    assert [layer.parameters for layer in weighted] == [320, 18496, 36928, 36928, 650]
    assert [layer.multiply_adds for layer in weighted] == [
        26 * 26 * 9 * 32,
        11 * 11 * 9 * 32 * 64,
        3 * 3 * 9 * 64 * 64,
        576 * 64,
        640,
    ]
    assert summary.parameters == 93322
    assert summary.multiply_adds == 194_688 + 2_230_272 + 331_776 + 36_864 + 640
    assert [layer.output_shape for layer in weighted] == [(32, 26, 26), (64, 11, 11), (64, 3, 3), (64,), (10,)]
    assert [layer.receptive_field for layer in summary.layers[:8]] == [
        (3, 3), (3, 3), (4, 4), (8, 8), (8, 8), (10, 10), (18, 18), (18, 18),
    ]  # fmt: skip
    assert summary.layers[-1].receptive_field == (26, 26)
    assert summary.layers[0].activation_bytes == 4 * 32 * 26 * 26
    assert summary.training_bytes == 4 * (784 + sum(np.prod(layer.output_shape) for layer in summary.layers))
    assert summary.buffers == 0


@pytest.mark.capability("B10", "C9")
@pytest.mark.parametrize(
    ("pool", "size", "dropped"),
    [
        (nn.MaxPool2d(2), (13, 13), (1, 1)),
        (nn.MaxPool2d(2, ceil_mode=True), (13, 13), (0, 0)),
        (nn.MaxPool2d(3, 2), (13, 13), (0, 0)),
        (nn.AvgPool2d((3, 2)), (8, 8), (2, 0)),
        (nn.MaxPool2d(2, padding=1), (13, 13), (0, 0)),
        (nn.Conv2d(1, 1, 2, 3), (10, 12), (2, 1)),
        (nn.Conv2d(1, 1, 3, padding=1), (10, 10), (0, 0)),
    ],
)
def test_what_no_window_covers(pool, size, dropped):
    summary = summarize(nn.Sequential(pool, input_shape=(1, *size)))
    assert summary.layers[0].dropped == dropped


@pytest.mark.capability("B10", "C9")
def test_the_table():
    text = str(summarize(models.create("lesson3", (1, 27, 28), 10)))
    assert "drops" in text.splitlines()[0]
    pool = next(line for line in text.splitlines() if "MaxPool2d" in line)
    assert pool.endswith("  1x0")
    assert "8x12x13" in pool
    total = next(line for line in text.splitlines() if "total" in line)
    assert f"{72 + 8 * 12 * 13 * 10 + 10:,}" in total
    assert f"{72 * 25 * 26 + 8 * 12 * 13 * 10:,}" in total
    both = str(summarize(nn.Sequential(nn.MaxPool2d(3), input_shape=(1, 8, 7))))
    assert "  2x1\n" in both


def test_a_shared_layer_counts_once():
    shared = nn.Conv2d(2, 2, 3, padding=1)
    summary = summarize(nn.Sequential(shared, shared, input_shape=(2, 6, 6)))
    assert [layer.parameters for layer in summary.layers] == [38, 0]
    assert summary.parameters == 38
    assert [layer.multiply_adds for layer in summary.layers] == [36 * 36, 36 * 36]


def test_grouped_and_strided_multiply_adds():
    net = nn.Sequential(nn.Conv2d(4, 6, (3, 2), (2, 1), groups=2, bias=False), input_shape=(4, 9, 9))
    assert summarize(net).multiply_adds == 4 * 8 * 6 * 2 * 3 * 2


@pytest.mark.parametrize("name", models.NAMES)
def test_every_model_is_summarized(name):
    net = models.create(name, (3, 32, 32), 10)
    summary = summarize(net)
    assert summary.parameters == net.flat_parameters.size
    assert summary.buffers == net.flat_buffers.size
    assert len(str(summary).splitlines()) >= len(summary.layers) + 4


def conv(before, after, kernel, stride=1, **options):
    return nn.Conv2d(before, after, kernel, stride, bias=False, init=("constant", 1.0), **options)


def small_block(**options):
    return nn.Residual(conv(1, 1, 3, padding=1), **options)


NETS = {
    "stride, dilation, uneven": [conv(1, 2, (3, 2), (2, 1)), conv(2, 1, 3, dilation=(1, 3)), nn.AvgPool2d((1, 2))],
    "padding and overlaps": [conv(1, 1, 5, 2, padding=2), nn.AvgPool2d(3, 2, 1), conv(1, 1, 3, padding="same")],
    "residual": [conv(1, 1, 3), small_block(), small_block(), nn.AvgPool2d(2)],
    "residual with shortcuts": [
        nn.Residual(nn.Sequential(conv(1, 2, 3, 2, padding=1), conv(2, 2, 3, padding=1)), conv(1, 2, 1, 2)),
        nn.Residual(nn.Sequential(conv(2, 1, 3, 2, padding=1)), nn.Sequential(conv(2, 1, 1, 2), nn.ReLU())),
        nn.AvgPool2d(2),
    ],
    "blocks in a block": [
        nn.Residual(nn.Sequential(small_block(shortcut=conv(1, 1, 1)), small_block()), small_block()),
        conv(1, 1, 3),
    ],
}


@pytest.mark.capability("F9")
@pytest.mark.parametrize("name", NETS)
def test_receptive_field_is_what_the_gradient_of_one_cell_reaches(name):
    """All weights and inputs are positive, so that nothing cancels."""
    net = nn.Sequential(*NETS[name], input_shape=(1, 63, 61))
    expected = summarize(net).layers[-1].receptive_field
    y, backward = net.forward(np.ones((1, 1, 63, 61), dtype=np.float32))
    dy = np.zeros_like(y)
    dy[0, 0, y.shape[2] // 2, y.shape[3] // 2] = 1
    rows, columns = np.nonzero(backward(dy)[0][0, 0])
    assert expected == (np.ptp(rows) + 1, np.ptp(columns) + 1)
    assert max(expected) < 50
