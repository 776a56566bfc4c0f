"""InputSpec and Model: raw images in, probabilities out, and what is refused on the way."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pellucid import nn
from pellucid.data.dataset import Splits, from_arrays
from pellucid.errors import DataError, OptionError, ShapeError
from pellucid.model import InputSpec, Model


def spec(shape=(1, 4, 5), value_range=(0.0, 255.0), mean=0.0, std=1.0) -> InputSpec:
    c = shape[0]
    return InputSpec(shape, value_range, (mean,) * c, (std,) * c)


def model(shape=(1, 4, 5), value_range=(0.0, 255.0)) -> Model:
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3), input_shape=shape)
    return Model(net, spec(shape, value_range), ("a", "b", "c"))


def images(n=6, shape=(1, 4, 5), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape)).astype(np.uint8)


# Canonical input


def test_canonical_by_hand():
    s = InputSpec((2, 1, 2), (-1.0, 3.0), (0.5, 0.25), (0.5, 0.125))
    raw = np.array([[[[-1, 3]], [[0, 1]]]])
    # (raw + 1) / 4 = [0, 1] and [0.25, 0.5]; then (x - mean) / std for each channel.
    assert s.canonical(raw).tolist() == [[[[-1.0, 1.0]], [[0.0, 2.0]]]]
    assert s.canonical(raw).dtype == np.float32
    assert raw.tolist() == [[[[-1, 3]], [[0, 1]]]]


def split_set(raw: np.ndarray, train: int, value_range=(0.0, 255.0)):
    ds = from_arrays(raw, np.arange(len(raw)) % 2, value_range=value_range)
    rest = np.arange(train, len(raw))
    return replace(ds, splits=Splits(np.arange(train), rest[::2], rest[1::2]))


def test_statistics_come_from_the_training_part_only():
    raw = images(10, (3, 4, 5))
    raw[6:] = 255
    s = InputSpec.of(split_set(raw, 6))
    part = raw[:6] / 255
    assert np.allclose(s.mean, part.mean(axis=(0, 2, 3)), rtol=1e-12)
    assert np.allclose(s.std, part.std(axis=(0, 2, 3)), rtol=1e-12)
    x = s.canonical(raw[:6])
    assert np.abs(x.mean(axis=(0, 2, 3))).max() < 1e-6
    assert np.abs(x.std(axis=(0, 2, 3)) - 1).max() < 1e-6


def test_unit_and_given_statistics():
    ds = split_set(images(4), 4)
    assert InputSpec.of(ds, "unit").canonical(np.full((1, 1, 4, 5), 255)).max() == 1.0
    s = InputSpec.of(split_set(images(4, (3, 4, 5)), 4), (0.5, [0.1, 0.2, 0.3]))
    assert (s.mean, s.std) == ((0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    for bad, match in (
        ("standrad", r'normalize must be "standard", "unit" or \(mean, std\), got \'standrad\''),
        ((0.5, 0.0), "finite means and positive standard deviations"),
        ((float("nan"), 1.0), "finite means and positive"),
        ((0.5,), r"must be \(mean, std\)"),
        (([0.1, 0.2], 1.0), "each a number or 1 numbers"),
        (3, r"must be \(mean, std\)"),
    ):
        with pytest.raises(OptionError, match=match):
            InputSpec.of(ds, bad)


def test_images_of_one_color_do_not_divide_by_zero():
    s = InputSpec.of(split_set(np.full((4, 4, 5), 7, dtype=np.uint8), 4))
    assert s.std == (1.0,)
    assert np.abs(s.canonical(np.full((1, 1, 4, 5), 7))).max() < 1e-7


@pytest.mark.parametrize(("border", "polarity"), [(0, "dark"), (255, "light")])
def test_polarity_is_that_of_the_border(border, polarity):
    raw = np.full((4, 1, 6, 6), border, dtype=np.uint8)
    raw[:, :, 2:4, 2:4] = 255 - border
    assert InputSpec.of(split_set(raw, 4)).polarity == polarity


# Raw arrays


@pytest.mark.capability("E7", "B1")
@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 5)])
def test_shapes_that_are_taken(shape):
    s, raw = spec(shape), images(2, shape)
    assert s.check(raw).shape == (2, *shape)
    assert np.array_equal(s.check(raw[0]), raw[:1])
    assert s.check(raw[:0]).shape == (0, *shape)
    assert s.check(raw.tolist()).shape == (2, *shape)
    if shape[0] == 1:
        assert np.array_equal(s.check(raw[:, 0]), raw)
        assert np.array_equal(s.check(raw[0, 0]), raw[:1])


@pytest.mark.capability("E7", "H2")
@pytest.mark.parametrize(
    ("shape", "given", "match"),
    [
        (
            (3, 4, 5),
            (2, 4, 5, 3),
            r"takes images N x 3 x 4 x 5, got shape \(2, 4, 5, 3\); .*np\.moveaxis\(images, -1, -3\)",
        ),
        ((3, 4, 5), (4, 5, 3), r"np\.moveaxis\(images, -1, -3\)"),
        ((1, 4, 5), (2, 4, 5, 1), r"np\.moveaxis\(images, -1, -3\)"),
        ((1, 4, 5), (2, 1, 5, 4), r"got shape \(2, 1, 5, 4\); resize them, or give image files"),
        ((1, 4, 5), (2, 3, 4, 5), "resize them"),
        ((1, 4, 5), (20,), r"got shape \(20,\)"),
        ((3, 4, 5), (4, 5), r"got shape \(4, 5\)"),
    ],
)
def test_shapes_that_are_refused_with_the_cure(shape, given, match):
    with pytest.raises(DataError, match=match):
        spec(shape).check(np.zeros(given))


def test_the_cure_cures():
    s, raw = spec((3, 4, 5)), images(2, (3, 4, 5))
    assert np.array_equal(s.check(np.moveaxis(np.moveaxis(raw, 1, 3), -1, -3)), raw)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (np.full((1, 4, 5), np.nan), "takes raw values from 0 to 255, got NaN; do not normalize before"),
        (np.full((1, 4, 5), np.inf), "values from inf to inf"),
        (np.linspace(-1, 1, 20).reshape(1, 4, 5), "got values from -1 to 1; do not normalize before"),
        (np.full((1, 4, 5), 256), "got values from 256 to 256"),
        (np.full((1, 4, 5), "a"), "images must be numbers, got an array of <U1"),
        (np.full((1, 4, 5), 1j), "images must be numbers"),
        (None, "images must be numbers, got an array of object"),
        ([np.zeros((4, 5)), np.zeros((1, 4, 6))], "do not form one array; all must be arrays of the same shape"),
    ],
)
def test_values_that_are_refused(values, match):
    with pytest.raises(DataError, match=match):
        spec().check(values)


def test_a_black_image_of_floats_is_an_image():
    assert not spec().check(np.zeros((1, 4, 5))).any()
    assert spec(value_range=(0.0, 1.0)).check(np.full((1, 4, 5), 0.5)).max() == 0.5


# Models


@pytest.mark.capability("H42", "D16")
def test_predictions_are_the_networks():
    m, raw = model(), images()
    p = m.predict(raw)
    logits = m.network(raw.astype(np.float32) / np.float32(255))
    assert np.allclose(p.logits, logits, rtol=1e-5)
    assert p.indices.tolist() == logits.argmax(axis=1).tolist()
    assert p.labels == tuple("abc"[i] for i in p.indices)
    e = np.exp(logits.astype(np.float64))
    assert np.allclose(p.probabilities, e / e.sum(axis=1, keepdims=True), rtol=1e-5)
    assert np.allclose(p.probabilities.sum(axis=1), 1)
    assert p.unsure == (None,) * 6
    assert len(p) == 6
    assert repr(p).endswith(", ...)")
    assert len(m.predict(raw[0])) == len(m.predict(raw[0, 0])) == 1
    assert np.array_equal(m.predict(list(raw)).indices, p.indices)


def test_many_images_go_in_parts(monkeypatch):
    m, raw = model(), images(4100)
    whole = m.outputs(raw)
    assert whole.shape == (4100, 3)
    assert np.allclose(whole[4096:], m.outputs(raw[4096:]), rtol=1e-5)
    assert m.outputs(raw[:0]).shape == (0, 3)


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 5)])
def test_files_and_pil_images_give_what_their_pixels_give(tmp_path, shape):
    m, raw = model(shape), images(2, shape)
    pictures = [Image.fromarray(r[0] if shape[0] == 1 else np.moveaxis(r, 0, 2)) for r in raw]
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    expected = m.predict(raw).logits
    paths = [tmp_path / "0.png", str(tmp_path / "1.png")]
    assert np.array_equal(m.predict(paths).logits, expected)
    assert np.array_equal(m.predict(tuple(pictures)).logits, expected)
    assert np.array_equal(m.predict([paths[0], pictures[1]]).logits, expected)
    assert np.array_equal(m.predict(paths[0]).logits, m.predict(raw[0]).logits)
    assert len(m.predict(pictures[1])) == 1


def test_a_file_is_resized_and_brought_into_the_value_range(tmp_path):
    Image.new("RGB", (40, 16), (255, 255, 255)).save(tmp_path / "white.png")
    s = spec((1, 4, 5), (-1.0, 16.0))
    raw = s.read(tmp_path / "white.png")
    assert raw.shape == (1, 4, 5)
    assert np.allclose(raw, 16.0)
    assert s.check(raw).shape == (1, 1, 4, 5)


def test_what_cannot_be_predicted(tmp_path):
    m = model()
    with pytest.raises(DataError, match="there are no images to predict"):
        m.predict([])
    with pytest.raises(DataError, match=r"cannot read image gone\.png: there is no such file"):
        m.predict("gone.png")
    (tmp_path / "a.png").write_text("milk")
    with pytest.raises(DataError, match="a text file, not an image"):
        m.predict([tmp_path / "a.png"])
    with pytest.raises(DataError, match="do not form one array"):
        m.predict([np.zeros((4, 5)), "a.png"])


def test_a_model_without_classes_gives_outputs_only():
    m = model()
    m.classes = ()
    assert m.outputs(images()).shape == (6, 3)
    with pytest.raises(OptionError, match=r"has no classes; model\.outputs\(images\)"):
        m.predict(images())


def test_network_input_and_classes_must_fit():
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3), input_shape=(1, 4, 5))
    with pytest.raises(ShapeError, match="network takes 1x4x5, the input spec gives 1x5x4"):
        Model(net, spec((1, 5, 4)), ("a", "b", "c"))
    with pytest.raises(ShapeError, match=re.escape("3 outputs, but there are 2 classes")):
        Model(net, spec(), ("a", "b"))
    with pytest.raises(OptionError, match="not built yet"):
        Model(nn.Sequential(nn.Flatten()), spec())
