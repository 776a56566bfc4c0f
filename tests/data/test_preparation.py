"""The preparation of photos of digits: each step on arrays made by hand, whole photos, and what is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

import pellucid as pl
import photos
from pellucid.data import DigitPreparation, open_image
from pellucid.data.preparation import background, border_connected, drawn_ground, fitted, largest_figure, with_pen
from pellucid.errors import OptionError
from pellucid.explain.figures import preparation as figure_of_steps

pytestmark = pytest.mark.capability("F4", "H5")


def seven(size=(400, 300), paper=(232, 228, 215), ink=(40, 40, 48), width=14, at=(100, 110), mode="RGB") -> Image.Image:
    """A seven of 100 x 140 pixels."""
    image = Image.new("RGB", size, paper)
    x, y = at
    ImageDraw.Draw(image).line([(x, y), (x + 100, y), (x + 30, y + 140)], fill=ink, width=width, joint="curve")
    return image.convert(mode)


def same_figure(a: np.ndarray, b: np.ndarray, far: float = 0.06) -> bool:
    return np.abs(a.astype(float) - b).mean() < far * 255


# Steps


def test_background_follows_uneven_light_but_not_the_figure():
    x = np.mgrid[:300, :400][1]
    light = (0.4 + 0.5 * x / 400).astype(np.float32)
    plane = light.copy()
    plane[100:200, 150:180] *= 0.2
    plane[100:130, 150:260] *= 0.2
    assert np.abs(background(plane) - light).max() < 0.06


def test_background_follows_an_edge():
    """The table beside the paper is background too."""
    plane = np.full((300, 400), 0.9, np.float32)
    plane[:, :120] = 0.3
    paper = background(plane)
    assert np.abs(paper[:, :90] - 0.3).max() < 0.05
    assert np.abs(paper[:, 150:] - 0.9).max() < 0.05


def test_what_reaches_the_border_is_taken_away_at_its_own_strength():
    ink = np.zeros((60, 80), np.float32)
    ink[30:32] = 0.3
    ink[20:50, 38:44] = 0.9
    ink[5:12, 5:12] = 0.9
    left = ink - border_connected(ink)
    assert left[30:32, :30].max() < 1e-6
    assert 0.5 < left[20:50, 38:44].min() <= left[20:50, 38:44].max() <= 0.65
    assert left[5:12, 5:12].min() == np.float32(0.9)


def test_the_largest_figure_keeps_what_lies_near():
    ink = np.zeros((100, 100), np.float32)
    ink[30:70, 40:46] = 0.8
    ink[24:28, 40:60] = 0.8
    ink[90:93, 5:8] = 0.8
    ink[50:52, 80:82] = 0.1
    kept = largest_figure(ink, 0.08, 0.45)
    assert np.array_equal(np.argwhere(kept > 0), np.argwhere((ink > 0.5) & (np.arange(100)[:, None] < 80)))
    assert not largest_figure(ink, 0.9, 0.45).any()
    assert not largest_figure(np.zeros((9, 7), np.float32), 0.0, 0.45).any()


@pytest.mark.parametrize(("width", "stroke"), [(2, 12), (16, 16), (40, 24)])
def test_strokes_are_brought_into_the_range(width, stroke):
    outline = np.zeros((160, 90), bool)
    outline[5:125, 30 : 30 + width] = True
    after = with_pen(outline, 0.1, 0.2)
    middle = after[after.shape[0] // 2]
    assert abs(int(middle.sum()) - stroke) <= 2


def test_fitted_and_centered_by_mass():
    shape = np.zeros((50, 40), np.float32)
    shape[5:45, 10:14] = 1
    shape[37:45, 10:30] = 1
    image = fitted(shape, (28, 28), 20)
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 10)
    mass = [(np.arange(28) * image.sum(axis=1 - axis)).sum() / image.sum() for axis in (0, 1)]
    assert np.abs(np.array(mass) - 13.5).max() <= 0.5
    assert fitted(shape, (8, 8), 8).any(axis=1).all()
    assert abs(image.sum() - shape.sum() / 4) < 0.1 * image.sum()


def test_mnist_comes_out_as_mnist_went_in(real_data):
    """Its makers fitted and centered these digits: doing it again changes little."""
    ds = pl.data.load("mnist")
    prepare = DigitPreparation(pen=None)
    far = []
    for image in ds.images[ds.splits.test[:40], 0]:
        large = Image.fromarray(image).resize((280, 280), Image.Resampling.BICUBIC)
        far.append(np.abs(prepare(large).image.astype(float) - image).mean() / 255)
    assert np.median(far) < 0.08


# Whole pictures


def test_every_step_can_be_seen():
    prepared = DigitPreparation()(seven())
    steps = ["gray", "paper", "ink", "without what reaches the border", "figure", "outline", "pen", "seen"]
    assert list(prepared.steps) == steps
    assert all(step.ndim == 2 and 0 <= step.min() <= step.max() <= 1 for step in prepared.steps.values())
    figure = figure_of_steps(prepared)
    assert [ax.get_title().replace("\n", " ") for ax in figure.axes if ax.get_title()] == steps


def test_polarity_is_found_or_given():
    light_on_dark = seven(paper=(40, 50, 45), ink=(230, 230, 225))
    a, b = DigitPreparation()(seven()), DigitPreparation()(light_on_dark)
    assert (a.polarity, b.polarity) == ("dark-on-light", "light-on-dark")
    assert same_figure(a.image, b.image)
    given = DigitPreparation(polarity="light-on-dark")(seven())
    assert given.polarity == "light-on-dark"
    assert not same_figure(given.image, a.image)


def test_ink_as_bright_as_the_paper_is_found_by_its_color():
    paper, ink = (180, 180, 180), (255, 149, 149)
    picture = seven(paper=paper, ink=ink)
    gray = np.asarray(picture.convert("L")).astype(int)
    assert np.ptp(gray) <= 2
    prepared = DigitPreparation()(picture)
    assert prepared.channel in ("red", "green", "blue")
    assert same_figure(prepared.image, DigitPreparation()(seven()).image)
    assert not DigitPreparation(channel="gray")(picture).image.any()


def test_pens_thick_and_thin_give_similar_strokes():
    sums = [DigitPreparation()(seven(width=width)).image.sum() / 255 for width in (3, 8, 14, 30)]
    assert max(sums) < 2 * min(sums)
    bare = [DigitPreparation(pen=None)(seven(width=width)).image.sum() / 255 for width in (3, 30)]
    assert bare[1] > 3 * bare[0]


def test_a_pen_may_be_a_list():
    thick = DigitPreparation(pen=[0.2, 0.25])(seven())
    assert "pen" in thick.steps
    assert np.array_equal(thick.image, DigitPreparation(pen=(0.2, 0.25))(seven()).image)


@pytest.mark.parametrize("size", [8, 28])
@pytest.mark.parametrize("width", [3, 10, 40])
def test_strokes_stay_whole(size, width):
    """Of a thin pen, and where the network sees few pixels."""
    from scipy import ndimage

    image = DigitPreparation((size, size))(seven(size=(700, 700), width=width)).image
    assert ndimage.label(image > 60, np.ones((3, 3)))[1] == 1
    assert image.max() > 150


def test_other_overrides():
    assert DigitPreparation(box=14)(seven()).image.any(axis=1).sum() == 14
    assert DigitPreparation(size=(40, 32))(seven()).image.shape == (40, 32)
    assert DigitPreparation(size=8).box == 8
    thin, thick = (DigitPreparation(threshold=t, pen=None)(seven()).image.sum() for t in (0.9, 0.1))
    assert thin < thick
    ruled = seven()
    ImageDraw.Draw(ruled).line([(0, 180), (400, 184)], fill=(150, 170, 210), width=3)
    plain = DigitPreparation()(seven()).image
    assert same_figure(DigitPreparation()(ruled).image, plain)
    assert "without what reaches the border" not in DigitPreparation(clear_border=False)(ruled).steps


def test_the_same_picture_in_other_files(tmp_path):
    """EXIF, transparency, palettes and 16 bits change nothing but what rounding does."""
    plain = DigitPreparation()(seven()).image
    gray = np.asarray(seven(mode="L"))
    clear = seven().convert("RGBA")
    clear.putalpha(Image.fromarray(np.where(gray < 120, 255, 0).astype(np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "turned.jpg": lambda path: seven().transpose(Image.Transpose.ROTATE_90).save(path, quality=90, exif=exif),
        "clear.png": clear.save,
        "palette.gif": seven(mode="P").save,
        "deep.png": Image.fromarray(gray.astype(np.uint16) * 257).save,
        "gray.bmp": Image.fromarray(gray).save,
    }
    for name, save in files.items():
        save(tmp_path / name)
        assert same_figure(DigitPreparation()(open_image(tmp_path / name)).image, plain, 0.04), name


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 300), (3, 2), (28, 28), (3000, 2000)])
@pytest.mark.parametrize("color", [0, 128, 255])
@pytest.mark.capability("H6")
def test_one_color_is_no_figure(size, color):
    prepared = DigitPreparation()(Image.new("L", size, color))
    assert not prepared.image.any()
    assert prepared.image.shape == (28, 28)


@pytest.mark.parametrize("size", [(2, 1), (5, 4), (40, 3), (300, 200)])
def test_noise_in_any_size_gives_an_image(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    assert DigitPreparation()(Image.fromarray(pixels)).image.shape == (28, 28)


def test_a_figure_at_the_very_border_is_still_found():
    cut = seven().crop((100, 103, 260, 300))
    assert DigitPreparation()(cut).image.any(axis=1).sum() == 20


def test_a_figure_that_fills_a_drawn_picture_is_kept_and_rules_are_not():
    """An image of the data set, enlarged without a margin, has no paper around it."""
    ds = pl.data.load("digits")
    for image in ds.images[:20, 0]:
        enlarged = np.asarray(Image.fromarray(np.uint8(image * 15)).resize((80, 80), Image.Resampling.BICUBIC))
        for picture in (enlarged, 255 - enlarged, np.pad(enlarged, 20)):
            seen = DigitPreparation((8, 8))(Image.fromarray(picture)).image
            # By a pixel they may be aside: centered by mass.
            assert max(np.corrcoef(np.roll(seen, by, 1).ravel(), image.ravel())[0, 1] for by in (-1, 0, 1)) > 0.7
    ruled, drawn = seven(ink=(0, 0, 0), paper=(255, 255, 255)), seven(ink=(0, 0, 0), paper=(255, 255, 255))
    for y in range(20, 300, 40):
        ImageDraw.Draw(ruled).line([(0, y), (400, y)], fill=(150, 170, 220), width=2)
    assert same_figure(DigitPreparation()(ruled).image, DigitPreparation()(drawn).image)


def test_the_ground_of_a_drawing_is_told_from_paper():
    drawing = np.zeros((80, 60))
    drawing[:, 20:36] = 1.0
    drawing[30:50] = 1.0
    assert drawn_ground(drawing) == 0.0
    assert drawn_ground(1 - drawing) == 1.0
    assert (
        drawn_ground(np.rint(np.clip(drawing + np.random.default_rng(0).normal(0.2, 0.01, (80, 60)), 0, 1) * 255) / 255)
        is None
    )
    drawing[0] = 1.0  # one side has none of the ground: a table's edge
    assert drawn_ground(drawing) is None


@pytest.mark.parametrize("kind", [kind for kind in photos.KINDS if kind not in ("specks", "squared")])
@pytest.mark.capability("H6")
def test_empty_paper_is_blank(kind):
    """But for dirt and pieces of squares, which the model must doubt."""
    made = photos.blank(kind, np.random.default_rng(3))
    assert not DigitPreparation()(open_image(Image.open(io.BytesIO(made)))).image.any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"polarity": "dark"}, 'unknown polarity "dark"'),
        ({"channel": "grey"}, 'unknown channel "grey"; did you mean "gray"'),
        ({"box": 0}, "box must be from 1 to 28, the shorter side of size, got 0"),
        ({"box": 29}, "box must be from 1 to 28"),
        ({"size": (0, 28)}, "size must be at least 1"),
        ({"threshold": 1}, "threshold must lie between 0 and 1, got 1"),
        (
            {"pen": (0.2, 0.1)},
            r"pen must be \"auto\", None, or \(thinnest, thickest\), between 0 and 1, got \(0.2, 0.1\)",
        ),
        ({"pen": 3}, "pen must be .*, got 3"),
        ({"pen": ("a", "b")}, "pen must be .*, got \\('a', 'b'\\)"),
        ({"threshold": "a"}, "threshold must lie between 0 and 1, got 'a'"),
        ({"box": 2.5}, "box must be from 1 to 28, the shorter side of size, got 2.5"),
        ({"clear_border": "no"}, "clear_border must be True or False, got 'no'"),
    ],
)
def test_what_cannot_be(options, words):
    with pytest.raises(OptionError, match=words):
        DigitPreparation(**options)


# What the model does with it


@pytest.fixture(scope="module")
def mnist_model(request):
    request.getfixturevalue("real_data")
    ds = pl.data.load("mnist", subset=15_000)
    return pl.fit(pl.models.create("lenet5", ds.shape, 10), ds, epochs=4, progress=False).model


@pytest.mark.capability("F4", "H5", "H6")
def test_photos_of_every_kind_are_read(mnist_model):
    """docs/own-photos.md has the figures of many more."""
    ds = pl.data.load("mnist")
    right, doubted = {}, 0
    for number, kind in enumerate([*photos.KINDS, photos.COMBINED]):
        images, labels = [], []
        for i in range(4):
            rng = np.random.default_rng([1, number, i])
            chosen = rng.choice(ds.splits.test)
            file = photos.photo(ds.images[chosen, 0], kind, rng, (450, 600))
            images.append(Image.open(io.BytesIO(file)))
            labels.append(ds.classes[ds.targets[chosen]])
        answer = mnist_model.predict(images)
        right[kind] = sum(a == b for a, b in zip(answer.labels, labels, strict=True))
        doubted += sum(doubt is not None for doubt in answer.unsure)
    assert min(right.values()) >= 2, right
    assert sum(right.values()) >= 0.93 * 4 * len(right), right
    assert doubted <= 0.2 * 4 * len(right)


@pytest.mark.capability("H6")
def test_foreign_images_are_mostly_not_sure(mnist_model):
    ds, clothes = pl.data.load("mnist"), pl.data.load("fashion-mnist")
    refused = lambda raw: np.mean([doubt is not None for doubt in mnist_model.predict(raw).unsure])  # noqa: E731
    assert refused(ds.images[ds.splits.test]) <= 0.015
    assert refused(clothes.images[clothes.splits.test[:500]]) >= 0.7
    assert refused(np.random.default_rng(0).integers(0, 256, (50, 28, 28)).astype(np.uint8)) == 1
    assert refused(np.zeros((2, 28, 28), np.uint8)) == 1


def spec(**options) -> pl.InputSpec:
    return pl.InputSpec(**{"shape": (1, 28, 28), "value_range": (0.0, 255.0), "mean": (0.0,), "std": (1.0,), **options})


def test_known_digits_choose_the_preparation_and_others_do_not():
    assert pl.InputSpec.of(pl.data.load("digits")).preparation == "digit"
    ds = pl.data.load("digits")
    assert pl.InputSpec.of(pl.data.from_arrays(ds.images, ds.targets)).preparation == "resize"


def test_the_input_spec_prepares_photos_only():
    digit = spec(polarity="dark", preparation="digit")
    figure = DigitPreparation()(seven()).image
    assert np.array_equal(digit.prepare(seven()).image, figure[None])
    assert np.array_equal(digit.read(seven()), figure[None])
    stored = np.zeros((28, 28), np.uint8)
    stored[1:6, 2:5] = 90
    assert np.array_equal(digit.read(Image.fromarray(stored)), stored[None])
    assert digit.prepare(Image.fromarray(stored)).steps == {}
    # In the wrong polarity it was no training image: it is prepared like any other picture.
    assert digit.prepare(Image.fromarray(255 - stored)).polarity == "dark-on-light"
    assert digit.prepare(seven(), polarity="light-on-dark").polarity == "light-on-dark"
    assert np.array_equal(digit.check(stored)[0, 0], stored)


def test_the_result_is_like_the_training_images():
    figure = DigitPreparation()(seven()).image
    light = spec(shape=(3, 28, 28), mean=(0.0,) * 3, std=(1.0,) * 3, polarity="light", preparation="digit")
    assert np.array_equal(light.read(seven()), np.repeat(255 - figure[None], 3, axis=0))
    sixteen = spec(value_range=(0.0, 16.0), polarity="dark", preparation="digit")
    assert np.allclose(sixteen.read(seven())[0], figure * (16 / 255))
    assert spec(polarity="dark").read(seven()).mean() > 150
