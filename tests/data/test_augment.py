"""Augmentation: hand-computed integers, SciPy as oracle, and independence of batch and order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import affine_transform

from pellucid.data.augment import FILLS, NAMED, Augmentation, augmentation, warp
from pellucid.errors import OptionError, PellucidError, ShapeError

pytestmark = pytest.mark.capability("H11")

X = np.array([[1, 2, 3], [4, 5, 6]])
EVERYTHING = Augmentation(shift=2, rotate=20, scale=0.2, flip=True, crop=2, cutout=3)


def moved(image, linear, offset, **kwargs):
    """Warp one image by p = linear q + offset."""
    maps = np.concatenate([np.array(linear, float), np.array(offset, float)[:, None]], axis=1)
    return warp(image[None, None], maps[None], **kwargs)[0, 0]


def pictures(n, channels=1, height=9, width=12, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, channels, height, width)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
class TestHandComputed:
    def test_one_pixel_right(self, dtype):
        identity, left_neighbor = np.eye(2), [0, -1]
        x = X.astype(dtype)
        assert moved(x, identity, left_neighbor).tolist() == [[1, 1, 2], [4, 4, 5]]
        assert moved(x, identity, left_neighbor, fill="low", low=7).tolist() == [[7, 1, 2], [7, 4, 5]]

    def test_one_pixel_up_and_two_left(self, dtype):
        assert moved(X.astype(dtype), np.eye(2), [1, 2]).tolist() == [[6, 6, 6], [6, 6, 6]]
        assert moved(X.astype(dtype), np.eye(2), [1, 2], fill="low").tolist() == [[6, 0, 0], [0, 0, 0]]

    def test_mirror(self, dtype):
        assert moved(X.astype(dtype), [[1, 0], [0, -1]], [0, 2]).tolist() == [[3, 2, 1], [6, 5, 4]]

    def test_quarter_turn_about_the_center(self, dtype):
        square = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype)
        assert moved(square, [[0, 1], [-1, 0]], [0, 2]).tolist() == [[3, 6, 9], [2, 5, 8], [1, 4, 7]]

    def test_half_a_pixel_is_the_mean_of_two(self, dtype):
        x = np.array([[0, 2, 4, 8]], dtype)
        assert moved(x, np.eye(2), [0, 0.5]).tolist() == [[1, 3, 6, 8]]
        assert moved(x, np.eye(2), [0, 0.5], fill="low").tolist() == [[1, 3, 6, 4]]

    def test_far_outside_is_all_fill(self, dtype):
        assert moved(X.astype(dtype), np.eye(2), [50, -50]).tolist() == [[4, 4, 4], [4, 4, 4]]
        assert moved(X.astype(dtype), np.eye(2), [0, 1e6], fill="low", low=2).tolist() == [[2] * 3] * 2


def test_integers_are_rounded():
    x = np.array([[0, 3, 255, 255]], np.uint8)
    assert moved(x, np.eye(2), [0, 0.25]).tolist() == [[1, 66, 255, 255]]


def test_options_of_zero_give_back_the_image_bit_for_bit():
    for dtype in (np.uint8, np.float32, np.float64):
        x = pictures(5, 3, dtype=dtype) / 7 if dtype != np.uint8 else pictures(5, 3)
        x = x.astype(dtype)
        out = Augmentation().apply(x, np.arange(5), 0, 0)
        assert out.dtype == x.dtype
        assert out.tobytes() == x.tobytes()
        assert not np.shares_memory(out, x)
        identity = np.tile(np.eye(2, 3), (5, 1, 1))
        for fill in FILLS:
            assert warp(x, identity, fill).tobytes() == x.tobytes()


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("size", [(7, 7), (5, 8), (8, 3), (1, 6)])
def test_matches_scipy(fill, size):
    rng = np.random.default_rng(size)
    mode = {"edge": "nearest", "low": "grid-constant"}[fill]
    for _ in range(20):
        x = rng.normal(size=size)
        linear, offset = np.eye(2) + rng.normal(0, 0.5, (2, 2)), rng.normal(0, 2, 2)
        expected = affine_transform(x, linear, offset, order=1, mode=mode, cval=-0.5)
        got = moved(x, linear, offset, fill=fill, low=-0.5)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
        single = moved(x.astype(np.float32), linear, offset, fill=fill, low=-0.5)
        np.testing.assert_allclose(single, expected, rtol=0, atol=2e-6)


def options_of(name):
    return {
        "shift": Augmentation(shift=2, fill="low"),
        "rotate": Augmentation(rotate=30),
        "scale": Augmentation(scale=0.3),
        "flip": Augmentation(flip=True),
        "crop": Augmentation(crop=2, fill="low"),
        "cutout": Augmentation(cutout=4),
        "everything": EVERYTHING,
        "digit": augmentation("digit"),
        "photo": augmentation("photo"),
    }[name]


OPTIONS = ["shift", "rotate", "scale", "flip", "crop", "cutout", "everything", "digit", "photo"]


@pytest.mark.capability("D19")
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_a_sample_does_not_depend_on_its_batch(name, dtype):
    options = options_of(name)
    x, ids = pictures(70, 2, dtype=dtype), np.arange(70) * 13 % 101
    whole = options.apply(x, ids, seed=5, epoch=3)
    assert whole.dtype == x.dtype
    assert whole.shape == x.shape
    order = np.random.default_rng(1).permutation(70)
    assert (options.apply(x[order], ids[order], seed=5, epoch=3) == whole[order]).all()
    for some in (slice(11, 12), slice(30, 37), slice(1, 70, 3), slice(0, 0)):
        part = options.apply(x[some], ids[some], seed=5, epoch=3)
        assert part.tobytes() == whole[some].tobytes()
        assert part.shape == whole[some].shape


@pytest.mark.capability("D19")
@pytest.mark.parametrize("name", OPTIONS)
def test_differs_by_epoch_seed_and_sample(name):
    options, ids = options_of(name), np.arange(40)
    x = np.repeat(pictures(1), 40, axis=0)
    first = options.apply(x, ids, seed=0, epoch=0)
    assert (options.apply(x, ids, seed=0, epoch=0) == first).all()
    assert (options.apply(x, ids, seed=0, epoch=1) != first).any()
    assert (options.apply(x, ids, seed=1, epoch=0) != first).any()
    assert (first != first[:1]).any()


@pytest.mark.capability("D19")
def test_global_random_state_is_untouched_and_without_effect():
    x, ids = pictures(4), np.arange(4)
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = EVERYTHING.apply(x, ids, 0, 0)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert (EVERYTHING.apply(x, ids, 0, 0) == first).all()


@pytest.mark.parametrize("fill", FILLS)
def test_crops_are_the_windows_of_the_padded_image(fill):
    n = 200
    x = pictures(1, 2, 5, 7)
    out = Augmentation(crop=2, fill=fill).apply(np.repeat(x, n, axis=0), np.arange(n), 0, 0, (9, 255))
    margin = ((0, 0), (2, 2), (2, 2))
    padded = np.pad(x[0], margin, mode="edge") if fill == "edge" else np.pad(x[0], margin, constant_values=9)
    windows = {padded[:, i : i + 5, j : j + 7].tobytes(): (i, j) for i in range(5) for j in range(5)}
    assert {windows[image.tobytes()] for image in out} == set(windows.values())


def test_flip_mirrors_about_half_of_the_images():
    x = np.repeat(X[None, None].astype(np.uint8), 400, axis=0)
    out = Augmentation(flip=True).apply(x, np.arange(400), 0, 0)
    mirrored = (out == x[..., ::-1]).all(axis=(1, 2, 3))
    assert (mirrored | (out == x).all(axis=(1, 2, 3))).all()
    assert 150 < mirrored.sum() < 250


def test_shift_stays_within_its_size():
    x = np.zeros((300, 1, 21, 15), np.float64)
    x[:, :, 10, 7] = 1
    for shift, (down, right) in ((2, (2, 2)), (0.2, (4.2, 3.0))):
        out = Augmentation(shift=shift, fill="low").apply(x, np.arange(300), 0, 0)[:, 0]
        np.testing.assert_allclose(out.sum(axis=(1, 2)), 1, atol=1e-12)
        y = out.sum(axis=2) @ np.arange(21) - 10
        z = out.sum(axis=1) @ np.arange(15) - 7
        assert 0.95 * down < abs(y).max() <= down + 1e-12
        assert 0.95 * right < abs(z).max() <= right + 1e-12
        assert abs(y.mean()) < 0.1 * down
        assert abs(np.corrcoef(y, z)[0, 1]) < 0.2


def test_rotate_and_scale_turn_and_zoom_about_the_center():
    # A linear ramp stays one under an affine map, away from the border: its slope shows angle and factor.
    n, size = 200, 41
    ramp = np.repeat((np.arange(size, dtype=np.float64) - 20)[None, None, None], n, axis=0) * np.ones((1, 1, size, 1))
    out = Augmentation(rotate=25, scale=0.2).apply(ramp, np.arange(n), 0, 0)[:, 0]
    np.testing.assert_allclose(out[:, 20, 20], 0, atol=1e-12)
    right, down = out[:, 20, 21], out[:, 21, 20]
    angles, factors = np.degrees(np.arctan2(down, right)), 1 / np.hypot(right, down)
    assert 24 < abs(angles).max() <= 25 + 1e-9
    assert 0.8 - 1e-9 <= factors.min() < 0.82
    assert 1.18 < factors.max() <= 1.2 + 1e-9
    assert abs(angles.mean()) < 3


def test_cutout_blanks_one_square():
    x = np.full((300, 3, 10, 14), 200, np.uint8)
    for fill, blank in (("low", 10), ("edge", 130)):
        out = Augmentation(cutout=4, fill=fill).apply(x, np.arange(300), 0, 0, (10, 250))
        assert set(np.unique(out)) == {blank, 200}
        hit = out == blank
        assert (hit == hit[:, :1]).all()
        counts = hit[:, 0].sum(axis=(1, 2))
        assert counts.max() == 16
        assert counts.min() >= 4
        assert hit.any(axis=(0, 1)).all()


def test_digit_never_mirrors():
    assert augmentation("digit").flip is False
    x = np.zeros((200, 1, 28, 28), np.float64)
    x[..., 18:] = 1
    out = augmentation("digit").apply(x, np.arange(200), 0, 0, (0, 1))
    assert (out[..., 14:].sum(axis=(1, 2, 3)) > out[..., :14].sum(axis=(1, 2, 3))).all()


def test_digit_fits_small_and_large_images():
    for size in (8, 28, 64):
        x = np.zeros((100, 1, size, size), np.uint8)
        middle = slice(size // 4, size - size // 4)
        x[:, :, middle, middle] = 255
        out = augmentation("digit").apply(x, np.arange(100), 0, 0)
        kept = out.sum(axis=(1, 2, 3), dtype=float) / x.sum(axis=(1, 2, 3), dtype=float)
        assert kept.min() > 0.75
        assert kept.max() < 1.25
        assert (out[..., size // 2, size // 2] == 255).all()


def test_named_combinations():
    assert augmentation("none") is None
    assert augmentation(None) is None
    assert augmentation(EVERYTHING) is EVERYTHING
    assert list(NAMED) == ["none", "digit", "photo"]
    assert augmentation("photo").flip


def test_values_stay_in_range():
    x = np.random.default_rng(0).choice([-1.0, 3.0], (50, 3, 12, 9)).astype(np.float32)
    out = EVERYTHING.apply(x, np.arange(50), 0, 0, (-1, 3))
    assert out.min() >= -1 - 1e-6
    assert out.max() <= 3 + 1e-6
    assert math.isfinite(out.sum())


SIZE = "pixels as a whole number, or a fraction from 0 to below 1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shift": -1}, f"shift must be {SIZE}, got -1"),
        ({"shift": 2.0}, f"shift must be {SIZE}, got 2.0"),
        ({"crop": "4"}, f"crop must be {SIZE}, got '4'"),
        ({"crop": True}, f"crop must be {SIZE}, got True"),
        ({"cutout": math.nan}, f"cutout must be {SIZE}, got nan"),
        ({"rotate": 181}, "rotate must be degrees from 0 to 180, got 181"),
        ({"rotate": None}, "rotate must be degrees from 0 to 180, got None"),
        ({"rotate": math.nan}, "rotate must be degrees from 0 to 180, got nan"),
        ({"scale": -0.1}, "scale must be a number from 0 to below 1, got -0.1"),
        ({"scale": 1}, "scale must be below 1, got 1; 0.1 zooms between 0.9 and 1.1"),
        ({"flip": 1}, "flip must be True or False, got 1"),
        ({"fill": "egde"}, 'unknown fill "egde"; did you mean "edge"? Known: edge, low'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(OptionError) as error:
        Augmentation(**options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: augmentation("digits"),
            OptionError,
            'unknown augmentation "digits"; did you mean "digit"? Known: none, digit, photo',
        ),
        (
            lambda: augmentation(3),
            OptionError,
            "augment must be a name (none, digit, photo), an Augmentation or None, got 3",
        ),
        (
            lambda: EVERYTHING.apply(pictures(2)[:, 0], np.arange(2), 0, 0),
            ShapeError,
            "images must have shape (N, C, H, W) and ids shape (N,), got (2, 9, 12) and (2,)",
        ),
        (
            lambda: EVERYTHING.apply(pictures(2), np.arange(3), 0, 0),
            ShapeError,
            "images must have shape (N, C, H, W) and ids shape (N,), got (2, 1, 9, 12) and (3,)",
        ),
        (
            lambda: EVERYTHING.apply(pictures(1), np.array(["a"]), 0, 0),
            OptionError,
            "ids must be whole numbers of at least 0, got <U1; use places in the data set",
        ),
        (
            lambda: Augmentation(shift=9).apply(pictures(1), np.arange(1), 0, 0),
            OptionError,
            "shift of 9 pixels is too much for images of 9x12; use at most 8",
        ),
        (lambda: warp(pictures(1), np.eye(2, 3)[None], "lwo"), OptionError, 'unknown fill "lwo"'),
    ],
)
def test_wrong_calls(call, kind, message):
    with pytest.raises(PellucidError) as error:
        call()
    assert type(error.value) is kind
    assert message in str(error.value)
