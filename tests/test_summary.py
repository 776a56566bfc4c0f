"""The summary: sizes and sums by hand, and receptive fields against what a gradient reaches."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid import engines, models, nn, optim, summarize


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


def transposed(kernel, stride, **options):
    return nn.ConvTranspose2d(1, 1, kernel, stride, bias=False, init=("constant", 1.0), **options)


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
    "shallow body, wide shortcut": [nn.Residual(conv(1, 1, 1), conv(1, 1, 5, padding=2)), conv(1, 1, 3)],
    "wide and low, narrow and high": [
        nn.Residual(conv(1, 1, (1, 7), padding=(0, 3)), conv(1, 1, (5, 1), padding=(2, 0))),
        nn.ReLU(),
    ],
    "branches that look to different sides": [
        nn.Residual(conv(1, 1, 4, padding="same_upper"), conv(1, 1, 4, padding="same_lower")),
        nn.ReLU(),
    ],
    "shortcut in a shortcut": [
        conv(1, 1, 3),
        nn.Residual(conv(1, 1, 1), nn.Residual(conv(1, 1, 7, padding=3), conv(1, 1, 3, padding=1))),
        conv(1, 1, 3),
    ],
    "empty body": [conv(1, 1, 3), nn.Residual(nn.Sequential(), conv(1, 1, 5, padding=2)), nn.ReLU()],
    "empty body and empty shortcut": [conv(1, 1, 3), nn.Residual(nn.Sequential(), nn.Sequential()), nn.ReLU()],
    "adaptive pooling 2 over 5 and 4": [conv(1, 1, 3, 15), nn.AdaptiveAvgPool2d(2)],
    "behind adaptive pooling 4 over 7": [conv(1, 1, 3, 9, padding="valid"), nn.AdaptiveAvgPool2d(4), conv(1, 1, 2)],
    "adaptive pooling of one axis": [conv(1, 1, 3, 9), nn.AdaptiveAvgPool2d((None, 3))],
    "Flatten at the end": [conv(1, 2, 3), conv(2, 2, 3, 6, padding=1), nn.Flatten(), nn.ReLU()],
    "Flatten in the middle": [conv(1, 2, 3, 40), nn.Flatten(), nn.ReLU(), nn.LazyLinear(3, init=("constant", 1.0))],
    "Flatten in a block": [
        conv(1, 2, 3, 20),
        nn.AdaptiveAvgPool2d((4, 2)),
        nn.Residual(nn.Flatten(), nn.Sequential(conv(2, 2, 3, padding=1), nn.Flatten())),
        nn.ReLU(),
    ],
    "transposed": [conv(1, 1, 3, 4), transposed(3, 2, padding=1, output_padding=1), conv(1, 1, (2, 3))],
    "transposed, dilated": [conv(1, 1, 3, 5), transposed((2, 3), (3, 1), dilation=(1, 3)), nn.AvgPool2d(2)],
    "nearest": [conv(1, 1, 3, 5), nn.Upsample(scale_factor=(2, 1.5)), conv(1, 1, 3)],
    "bilinear": [conv(1, 1, 3, 5), nn.Upsample((20, 9), mode="bilinear"), conv(1, 1, 2)],
    "bicubic": [conv(1, 1, 3, 8), nn.Upsample(scale_factor=2, mode="bicubic", align_corners=True), nn.ReLU()],
    "branches": [conv(1, 1, 3), nn.Concat(conv(1, 2, 1), conv(1, 1, (5, 3), padding=(2, 1))), conv(3, 1, 2)],
    "branches of features": [
        nn.AvgPool2d(20),
        nn.Concat(nn.Flatten(), nn.Sequential(conv(1, 1, 2), nn.Flatten())),
        nn.ReLU(),
    ],
    "padding of four sides": [conv(1, 1, 3), nn.ZeroPad2d((3, 0, -1, 2)), conv(1, 1, 5, 2), nn.ReplicationPad2d(2)],
    "a mirror": [conv(1, 1, 3, 8), nn.ReflectionPad2d((3, 0, 0, 2)), conv(1, 1, 2, 2)],
    "a mirror in a convolution": [conv(1, 1, 3, 8), conv(1, 1, 3, 2, padding=2, padding_mode="reflect")],
    "no cell sees the whole padded window": [conv(1, 1, 3, 15), conv(1, 1, 7, 4, padding=3)],
}


def reached(net, axis):
    """The most rows (axis 1) or columns (axis 2) of pixels that the gradient of one row, column or feature reaches.

    All weights and inputs are positive, so that nothing cancels.
    """
    shape = net.output_shape(net.input_shape)
    lines = axis if len(shape) == 3 else 0
    y, backward = net.forward(np.ones((shape[lines], *net.input_shape), dtype=np.float32))
    dy = np.zeros_like(y)
    for i in range(shape[lines]):
        np.moveaxis(dy[i], lines, 0)[i] = 1
    hit = np.moveaxis(backward(dy)[0], axis + 1, 1).any(axis=(2, 3))
    return max(np.ptp(np.flatnonzero(line)) + 1 for line in hit)


@pytest.mark.capability("F9")
@pytest.mark.parametrize("name", NETS)
def test_receptive_field_is_what_the_gradient_of_one_cell_reaches(name):
    net = nn.Sequential(*NETS[name], input_shape=(1, 63, 61))
    expected = summarize(net).layers[-1].receptive_field
    assert expected == (reached(net, 1), reached(net, 2))
    assert max(expected) < 50


def test_receptive_field_by_hand():
    shallow = nn.Sequential(
        nn.Residual(conv(1, 1, 1), conv(1, 1, 5, padding=2)),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4, 2),
        input_shape=(1, 15, 15),
    )
    fields = {path: layer.receptive_field for path, layer in by_path(shallow).items()}
    assert fields == {"0.body": (1, 1), "0.shortcut": (5, 5), "1": (10, 10), "2": (10, 10), "3": (15, 15)}
    features = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), input_shape=(4,))
    assert [layer.receptive_field for layer in summarize(features).layers] == [(1, 1), (1, 1)]
    softmax = nn.Sequential(nn.Softmax(), nn.Flatten(), nn.Softmax(), input_shape=(2, 5, 3))
    assert [layer.receptive_field for layer in summarize(softmax).layers] == [(1, 1), (1, 1), (5, 3)]


def test_receptive_fields_of_other_layers_by_hand():
    """Unpooling needs the windows of its pool; norms of an image see all of it, batch norm does not."""
    net = nn.Sequential(
        nn.MaxUnpool2d(nn.MaxPool2d(2), nn.Conv2d(1, 1, 1)),
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.LayerNorm(10),
        nn.GroupNorm(1, 2),
        input_shape=(1, 14, 12),
    )
    fields = {path: layer.receptive_field for path, layer in by_path(net).items()}
    assert fields == {"0.pool": (2, 2), "0.body": (2, 2), "1": (4, 4), "2": (4, 4), "3": (4, 12), "4": (14, 12)}


def test_sequences_and_volumes():
    sequence = nn.Sequential(
        nn.Conv1d(4, 8, 5, 2), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.LazyLinear(3), input_shape=(4, 22)
    )
    layers = summarize(sequence).layers
    assert [layer.receptive_field for layer in layers] == [(5,), (5,), (7,), (7,), (19,)]
    assert [layer.dropped for layer in layers] == [(1,), (0,), (1,), (0,), (0,)]
    assert layers[0].multiply_adds == 4 * 8 * 5 * 9
    volume = nn.Sequential(nn.Conv3d(1, 2, (1, 2, 3)), nn.AvgPool3d(2), input_shape=(1, 4, 7, 8))
    assert [layer.receptive_field for layer in summarize(volume).layers] == [(1, 2, 3), (2, 3, 4)]
    assert summarize(volume).layers[1].dropped == (0, 0, 0)
    assert " 2x3x4" in str(summarize(volume))


def test_a_transposed_convolution_multiplies_at_each_input_cell():
    net = nn.Sequential(nn.ConvTranspose2d(3, 4, (2, 5), 2, groups=1), input_shape=(3, 6, 7))
    assert summarize(net).multiply_adds == 3 * 4 * 2 * 5 * 6 * 7


@pytest.mark.capability("H22")
def test_planned_memory_is_what_training_then_takes():
    network = models.create("lesson1", (1, 28, 28), 10)
    planned = summarize(network).planned
    engine = engines.create("compiled")
    engine.build(network, nn.CrossEntropyLoss(), optim.Adam(), threads=1)
    x, y = np.zeros((64, 1, 28, 28), dtype=np.float32), np.zeros(64, dtype=np.int64)
    engine.train(x, y, np.arange(64), 64, 0, np.array([1e-3]))
    machine = engine._built.trainer
    arrays = [value for value in vars(machine).values() if isinstance(value, np.ndarray)] + machine.memory
    taken = sum(array.nbytes for array in [*arrays, machine.program.tables])
    assert planned is not None
    assert abs(planned[0] - taken) < 0.05 * taken
    assert "compiled engine: " in str(summarize(network))


def test_no_planned_memory_where_the_engine_cannot_run_the_network():
    class Own(nn.Layer):
        def forward(self, x, *, training=False, rng=None):
            return x, lambda dy: (dy, {})

    summary = summarize(nn.Sequential(Own(), nn.Flatten(), nn.LazyLinear(2), input_shape=(1, 3, 3)))
    assert summary.planned is None
    assert "compiled engine" not in str(summary)
