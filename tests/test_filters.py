"""The kernel gallery and contrast equalization: sums, SciPy, scikit-image, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from oracles import assert_near
from pellucid import filters
from pellucid.errors import FileError, OptionError, ShapeError


def photo_in_gray(name):
    from sklearn.datasets import load_sample_image

    return load_sample_image(name).mean(axis=2) / 255


@pytest.fixture
def photo():
    """A real photo of uneven size."""
    return photo_in_gray("china.jpg")[::4, ::5]


@pytest.mark.capability("A12")
def test_kernels_are_those_of_the_books():
    assert filters.KERNELS["sharpen"].tolist() == [[0, -1, 0], [-1, 5, -1], [0, -1, 0]]
    assert filters.KERNELS["edges"].tolist() == [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]
    assert filters.KERNELS["vertical-lines"].tolist() == [[-2, 4, -2]] * 3
    assert filters.KERNELS["box"].tolist() == (np.ones((3, 3)) / 9).tolist()
    assert filters.KERNELS["vertical-edges"].tolist() == [[-1, 0, 1]]


@pytest.mark.capability("A13")
def test_blurs_and_sharpeners_sum_to_one_and_edges_to_zero():
    sums = {name: round(float(kernel.sum()), 12) for name, kernel in filters.KERNELS.items()}
    ones = {"identity", "box", "gaussian-3", "gaussian-5", "sharpen", "unsharp", "emboss"}
    assert {name for name, total in sums.items() if total == 1} == ones
    assert {total for name, total in sums.items() if name not in ones} == {0}
    assert filters.KERNELS["unsharp"][2, 2] == 476 / 256
    assert (filters.KERNELS["gaussian-5"][0] * 256).tolist() == [1, 4, 6, 4, 1]
    assert not any(kernel.flags.writeable for kernel in filters.KERNELS.values())


@pytest.mark.capability("A12", "A13")
@pytest.mark.parametrize("name", filters.KERNELS)
def test_a_response_is_scipys_correlation(photo, name):
    kernel = filters.KERNELS[name]
    assert_near(filters.apply(photo, kernel), ndimage.correlate(photo, kernel, mode="reflect"), 1e-12)


@pytest.mark.capability("A12")
def test_named_by_effect():
    """A rise from left to right is a vertical edge, and positive; from top to bottom a horizontal one."""
    rise = np.repeat([[0.0, 0, 0, 1, 1, 1]], 6, axis=0)
    for name in ("vertical-edges", "sobel-x", "prewitt-x"):
        assert filters.apply(rise, filters.KERNELS[name]).max() > 0
        assert filters.apply(rise, filters.KERNELS[name]).min() == 0
    for name in ("horizontal-edges", "sobel-y", "prewitt-y"):
        assert not filters.apply(rise, filters.KERNELS[name]).any()
        assert filters.apply(rise.T, filters.KERNELS[name]).max() > 0


@pytest.mark.capability("A14")
def test_responses_as_pictures():
    edges, blur = filters.KERNELS["edges"], filters.KERNELS["box"]
    assert filters.to_unit(np.array([[-4.0, 0, 2]]), edges).tolist() == [[0, 0.5, 0.75]]
    assert filters.to_unit(np.zeros((1, 2)), edges).tolist() == [[0.5, 0.5]]
    assert filters.to_unit(np.array([[-0.5, 0.25, 1.5]]), blur).tolist() == [[0, 0.25, 1]]
    assert filters.to_unit(np.array([[0.0, 3, 6]]), np.ones((3, 3))).tolist() == [[0, 0.5, 1]]
    assert filters.to_unit(np.zeros((1, 2)), np.ones((3, 3))).tolist() == [[0, 0]]


@pytest.mark.capability("A14")
@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_equalization_is_near_scikit_images(name):
    """Both cut, clip and mix; what is clipped scikit-image spreads in whole pixels, and not over full grays."""
    exposure = pytest.importorskip("skimage.exposure", reason="scikit-image not here: it is in the extra dev")
    photo = photo_in_gray(name)[:424, :640]
    gray = (photo - photo.min()) / np.ptp(photo)
    theirs = exposure.equalize_adapthist(gray, kernel_size=(53, 80), clip_limit=0.03, nbins=256)
    ours = filters.equalize(gray)
    assert np.abs(ours - theirs).mean() < 0.012
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.998


@pytest.mark.capability("A14")
def test_equalization_spreads_a_dull_picture(photo):
    dull = 0.4 + 0.2 * photo
    assert np.std(filters.equalize(dull)) > 2 * np.std(dull)


@pytest.mark.capability("A14")
def test_equalization_by_hand():
    """One tile without clipping: a gray becomes the share of pixels that are not brighter."""
    gray = np.array([[0.1, 0.2, 0.2, 0.9]])
    assert filters.equalize(gray, tiles=1, bins=10, clip=1.0)[0].tolist() == [0.25, 0.75, 0.75, 1]
    even = filters.equalize(np.full((40, 33), 0.3))
    assert np.ptp(even) < 1e-12
    assert even[0, 0] == pytest.approx(0.3, abs=0.05)
    assert filters.equalize(np.array([[0.5]])).shape == (1, 1)


@pytest.mark.capability("A14")
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "I;16"])
def test_any_picture_becomes_gray(tmp_path, mode):
    values = np.arange(12, dtype=np.uint16).reshape(3, 4) * 20
    image = Image.fromarray(values * 257) if mode == "I;16" else Image.fromarray(values.astype(np.uint8)).convert(mode)
    image.save(tmp_path / "p.png")
    gray = filters.read_gray(tmp_path / "p.png")
    assert gray.shape == (3, 4)
    assert np.abs(gray * 255 - values).max() <= (8 if mode == "P" else 1)


def test_kernels_from_files(tmp_path):
    (tmp_path / "k.txt").write_text("# a kernel\n-1, 0 1\n\n-2 0 2.5e0 # and a remark\n")
    assert filters.kernel(str(tmp_path / "k.txt")).tolist() == [[-1, 0, 1], [-2, 0, 2.5]]
    for content, match in {
        b"1 2\n3": "rows of equal length",
        b"": "rows of equal length",
        b"1 a": "must be a row of numbers such as -1 0 1",
        b"\xff\xfe": "must be a row of numbers",
        b"1 nan": "must be finite",
        b"1 " * 200: "at most 101 numbers",
    }.items():
        (tmp_path / "k.txt").write_bytes(content)
        with pytest.raises(FileError, match=f"k.txt is no kernel: .*{match}"):
            filters.kernel(str(tmp_path / "k.txt"))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: filters.kernel("sobel"), OptionError, 'unknown kernel "sobel"; did you mean "sobel-'),
        (lambda: filters.kernel("sobel.txt"), FileError, "there is no kernel file sobel.txt; or give a name: identity"),
        (
            lambda: filters.apply(np.zeros((2, 2, 3)), np.ones((1, 1))),
            ShapeError,
            r"gray must be a float array \(H, W\)",
        ),
        (lambda: filters.equalize(np.zeros((2, 2), int)), ShapeError, "gray must be a float array"),
        (lambda: filters.equalize(np.full((2, 2), 2.0)), OptionError, "gray must lie between 0 and 1, got 2 to 2"),
        (lambda: filters.equalize(np.full((2, 2), np.nan)), OptionError, "gray must lie between 0 and 1"),
        (lambda: filters.equalize(np.zeros((2, 2)), tiles=0), OptionError, "tiles must be at least 1"),
        (lambda: filters.equalize(np.zeros((2, 2)), clip=-1), OptionError, "clip must be a number of at least 0"),
    ],
)
def test_refusals(call, error, match):
    with pytest.raises(error, match=match):
        call()
