"""What stands in the pictures."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from oracles import randn
from pellucid import arithmetic, explain
from pellucid.errors import OptionError
from pellucid.explain import figures
from pellucid.report.plots import to_png


def drawn(figure):
    """The numbers of the first image of a figure, as a plain array; NaN where nothing is drawn."""
    return np.ma.filled(figure.axes[0].images[0].get_array().astype(float), np.nan)


def words(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


@pytest.mark.capability("F6")
def test_maps_stand_side_by_side_on_one_scale_and_dead_ones_are_crossed_out():
    maps = randn(0, 10, 3, 4)
    maps[4] = 0
    figure = figures.feature_maps(maps)
    whole = drawn(figure)
    assert whole.shape == (2 * 4 - 1, 8 * 5 - 1)
    assert np.array_equal(whole[:3, 5:9], maps[1])
    assert np.array_equal(whole[4:, :4], maps[8])
    assert np.isnan(whole[4:, 10:]).all()
    most = np.abs(maps).max()
    assert figure.axes[0].images[0].get_clim() == (-most, most)
    assert figures.feature_maps(np.abs(maps)).axes[0].images[0].get_clim() == (0, most)
    assert len(figure.axes[0].lines) == 2
    assert np.array_equal(figure.axes[0].lines[0].get_xdata(), [19.5, 23.5])
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["0", "8"]


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (1, 40, 3), (300, 2, 2), (7,), (500,), (2, 2), (1, 2, 60)])
def test_odd_maps_are_drawn(shape):
    for values in (np.zeros(shape), randn(0, *shape), np.full(shape, np.nan)):
        with Image.open(io.BytesIO(to_png(figures.feature_maps(values)))) as image:
            assert image.size[0] > 500


@pytest.mark.parametrize(
    ("maps", "match"),
    [(np.zeros((0, 3, 3)), r"at least one number to be drawn, got \(0, 3, 3\)"), ("x", "an array of numbers, got 'x'")],
)
def test_what_are_no_maps(maps, match):
    with pytest.raises(OptionError, match=f"maps must .*{match}"):
        figures.feature_maps(maps)


def test_many_numbers_of_a_dense_layer_stay_on_a_screen():
    values = randn(0, 2048)
    figure = figures.feature_maps(values)
    assert np.array_equal(drawn(figure).ravel(), values)
    assert figure.bbox.height <= 600
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()][:3] == ["0", "256", "512"]


@pytest.mark.capability("F7")
def test_kernels_have_zero_in_middle_gray_and_a_column_for_each_input_channel():
    weight = randn(0, 3, 5, 2, 2)
    figure = figures.kernels(weight)
    whole, most = drawn(figure), np.abs(weight).max()
    assert figure.axes[0].images[0].get_clim() == (-most, most)
    assert figure.axes[0].images[0].get_cmap()(0.5)[:3] == pytest.approx((0.5,) * 3, abs=0.01)
    assert np.array_equal(whole[3:5, 6:8], weight[1, 2])
    assert (figure.axes[0].get_ylabel(), figure.axes[0].get_xlabel()) == ("filter", "input channel")
    turned = figures.kernels(weight.swapaxes(0, 1))
    assert np.array_equal(drawn(turned), whole, equal_nan=True)
    assert (turned.axes[0].get_ylabel(), turned.axes[0].get_xlabel()) == ("input channel", "filter")
    assert figures.kernels(weight, groups=2).axes[0].get_xlabel() == "input channel of its group"
    assert np.array_equal(drawn(figures.kernels(weight[:, :1]))[:2, 3:5], weight[1, 0])
    assert drawn(figures.kernels(randn(0, 40, 40, 3, 3))).shape == (16 * 4 - 1, 16 * 4 - 1)
    assert figures.kernels(np.zeros((2, 1, 1, 1))).axes[0].images[0].get_clim() == (-1, 1)
    with pytest.raises(OptionError, match="only kernels with two axes"):
        figures.kernels(np.zeros((2, 1, 3)))


@pytest.mark.capability("F9", "H20")
def test_the_frame_lies_around_the_receptive_field():
    image = np.zeros((1, 9, 7))
    box = (slice(2, 5), slice(0, 7))
    figure = figures.receptive_field(image, (0, 1), box, np.ones((9, 7)))
    for ax in figure.axes:
        frame = ax.patches[-1]
        assert frame.get_xy() == (-0.5, 1.5)
        assert (frame.get_width(), frame.get_height()) == (7, 3)
    assert len(figures.receptive_field(image, (0, 1), box).axes) == 1
    seen = figures.cells_that_see(image, (0, 1), (4, 6), np.eye(3, dtype=bool))
    assert seen.axes[0].patches[-1].get_xy() == (5.5, 3.5)
    assert np.array_equal(seen.axes[1].images[0].get_array(), np.eye(3))


@pytest.mark.capability("H19")
@pytest.mark.parametrize("channels", [1, 3])
def test_attributions_with_and_without_a_sign(channels):
    image, values = np.full((channels, 5, 4), 0.5), randn(0, channels, 5, 4)
    figure = figures.attribution(image, (0, 1), values, signed=True)
    right = figure.axes[1].images[0]
    assert np.allclose(right.get_array(), values.sum(axis=0))
    assert right.get_clim()[0] == -right.get_clim()[1] != 0
    assert figures.attribution(image, (0, 1), np.abs(values)).axes[1].images[0].get_clim()[0] == 0
    cam = figures.attribution(image, (0, 1), np.ones((2, 2)))
    assert cam.axes[1].images[0].get_extent() == [-0.5, 3.5, 4.5, -0.5]
    assert len(to_png(cam)) > 1000


def test_scales_are_brighter_the_larger_the_number():
    """So that nothing is lost without colors."""
    from matplotlib import colormaps

    for name in (figures._SIGNED, figures._UNSIGNED, "gray"):
        light = colormaps[name](np.linspace(0, 1, 50))[:, :3] @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(light) > 0).all()


def test_words_can_be_read_on_light_and_dark_ground():
    """A contrast of at least 3 with both, as large text needs, by WCAG's formula."""
    from matplotlib.colors import to_rgb

    def luminance(color):
        rgb = np.array(to_rgb(color))
        return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    for ground in ("#f5f6f8", "#ffffff", "#141518", "#1e2025"):
        a, b = sorted((luminance(figures._WORDS), luminance(ground)))
        assert (b + 0.05) / (a + 0.05) >= 3
    with Image.open(io.BytesIO(to_png(figures.contributions(np.arange(4))))) as image:
        assert image.mode == "RGBA"
        assert image.getpixel((0, 0))[3] == 0


@pytest.mark.capability("A6")
@pytest.mark.parametrize(("padding", "expected"), [(0, "12321"), (1, "23332"), (2, "33333")])
def test_contributions(padding, expected):
    assert "".join(words(figures.contributions(arithmetic.contributions(5, 3, padding=padding)))) == expected
    square = words(figures.contributions(arithmetic.contributions((5, 5), 3, padding=padding)))
    assert len(square) == 25
    assert square[12] == "9"
    assert square[0] == str(int(expected[0]) ** 2)
    with pytest.raises(OptionError, match="one or two axes"):
        figures.contributions(np.ones((2, 2, 2)))


@pytest.mark.capability("F13")
def test_bars_of_class_probabilities():
    p, names = np.array([0.1, 0.0, 0.65, 0.25]), ("ant", "bee", "cat", "dog")
    figure = figures.probabilities(p, names)
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == list(names)
    assert [bar.get_width() for bar in ax.patches] == p.tolist()
    assert words(figure) == ["10.0%", "0.0%", "65.0%", "25.0%"]
    ordered = figures.probabilities(p, names, ordered=True, most=3).axes[0]
    assert [t.get_text() for t in ordered.get_yticklabels()] == ["cat", "dog", "ant"]
    with pytest.raises(OptionError, match="one probability for each of 4 classes"):
        figures.probabilities(p[:2], names)


@pytest.mark.capability("F11")
def test_each_class_has_its_sign_as_well_as_its_color():
    points, labels = randn(0, 60, 2), np.arange(60) % 12
    names = [*map(str, range(9)), "shirt", "b&w", "大"]
    ax = figures.plane(points, labels, names, points[0]).axes[0]
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == [*names, "this image"]
    signs = {(c.get_paths()[0].vertices.tobytes(), c.get_facecolor().tobytes()) for c in ax.collections}
    assert len(signs) == 13
    assert len({c.get_paths()[0].vertices.tobytes() for c in ax.collections[:9]}) == 9
    assert len(to_png(figures.plane(points, labels, names))) > 1000


def test_names_are_no_formulas():
    name = r"$\frac{$"
    made = [
        figures.plane(randn(0, 6, 2), np.zeros(6, dtype=int), [name]),
        figures.gallery(np.zeros((1, 1, 4, 4)), (0, 1), [name]),
        figures.probabilities(np.array([1.0]), [name]),
    ]
    assert all(len(to_png(figure)) > 1000 for figure in made)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("letter", ["n", "W"])
@pytest.mark.parametrize("k", [2, 10, 100])
def test_long_names_fit(letter, k):
    """All words lie inside of the figure; where there is no place for both, matplotlib warns."""
    names = [f"{i} {letter * 120}" for i in range(k)]
    plane = figures.plane(randn(0, 40, 2), np.arange(40) % k, names, np.zeros(2))
    bars = figures.probabilities(np.full(k, 1 / k), names)
    for figure, ax in ((plane, plane.axes[0].get_legend()), (bars, bars.axes[0])):
        assert len(to_png(figure)) > 1000
        box = ax.get_tightbbox()
        assert box.x0 >= 0
        assert box.y0 >= -5, "a legend has an empty margin"
        assert box.x1 <= figure.bbox.x1
    assert min(ax.get_window_extent().height for ax in (plane.axes[0], bars.axes[0])) > 60


def test_words_above_an_image_are_broken_where_it_ends():
    labels = [f"{'n' * 10}...: -1.5 to 12.5"] * 5
    figure = figures.gallery(np.zeros((5, 1, 4, 4)), (0, 1), labels)
    assert words(figure) == ["nnnnnnnnnn...:\n-1.5 to 12.5"] * 5
    to_png(figure)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes[:4]))
    assert boxes[4].y1 < boxes[0].y0
    assert boxes[0].y1 <= figure.bbox.y1


@pytest.mark.capability("F12", "F8")
def test_a_gallery_in_gray_and_color_with_words():
    images = np.random.default_rng(0).random((5, 1, 4, 4))
    figure = figures.gallery(images, (0, 1), [str(i) for i in range(5)])
    whole = drawn(figure)
    assert np.allclose(whole[:4, 5:9], images[1, 0])
    assert words(figure) == ["0", "1", "2", "3", "4"]
    color = figures.gallery(np.random.default_rng(0).random((2, 3, 4, 4)), (0, 1))
    assert drawn(color).shape == (4, 9, 4)
    assert len(to_png(figures.gallery(np.zeros((1, 1, 1, 1)), (0, 1)))) > 100


def test_pictures_are_the_same_bytes_each_time():
    maps = randn(0, 3, 4, 4)
    assert to_png(figures.feature_maps(maps)) == to_png(figures.feature_maps(maps))
    assert explain.figures is figures
