"""Convolution as in mathematics: NumPy, SciPy, and integers by hand."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from oracles import assert_near, ints, randn, seeds
from pellucid import functional as F
from pellucid.errors import OptionError, PellucidError, ShapeError
from pellucid.functional import convolve

X, W = [1, 3, 2, 4, 5, 6, 1, 3], [1, 0, 3, 1, 2]
X2 = np.array([[1, 3, 2, 4], [5, 6, 1, 3], [1, 2, 0, 2], [3, 4, 3, 2]])
W2 = np.array([[1, 0, 3], [1, 2, 1], [0, 1, 1]])
MODES = ["full", "same", "valid"]


@pytest.mark.capability("A1")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"padding": 2}, [5, 14, 16, 26, 24, 34, 19, 22]),
        ({"padding": 0}, [16, 26, 24, 34]),
        ({"padding": 4}, [1, 3, 5, 14, 16, 26, 24, 34, 19, 22, 5, 6]),
        ({"padding": 2, "stride": 2}, [5, 16, 24, 19]),
        ({"padding": 2, "flip": False}, [10, 19, 21, 32, 25, 29, 11, 15]),
        ({}, [1, 3, 5, 14, 16, 26, 24, 34, 19, 22, 5, 6]),
    ],
)
def test_one_dimension_by_hand(options, expected):
    y = F.convolve1d(X, W, **options)
    assert y.tolist() == expected
    assert y.dtype == np.int64


@pytest.mark.capability("A2")
def test_strides_by_hand():
    x, w = [3, 2, 1, 7, 1, 2, 5, 4], [0.5, 0.75, 1, 0.25]
    assert F.convolve1d(x, w, padding=0, stride=2).tolist() == [7, 9, 8]
    assert F.convolve1d(x, w, padding=0).tolist() == [7, 7.25, 9, 6.75, 8]
    assert F.convolve1d(x, w, padding=0, stride=2, flip=False).tolist() == [5.75, 7.25, 8]


@pytest.mark.capability("A2")
@given(seeds, st.integers(1, 12), st.integers(1, 5), st.integers(0, 4), st.integers(1, 4))
def test_a_stride_takes_every_so_many_values_of_the_plain_one(seed, n, m, p, s):
    n = max(n, m - 2 * p)
    x, w = randn(seed, n), randn(seed + 1, m)
    if m <= n + 2 * p:
        assert_near(
            F.convolve1d(x, w, padding=p, stride=s), np.convolve(np.pad(x, p), w, "valid")[::s], 1e-12, size=1.0
        )


@pytest.mark.capability("A1", "A3")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flip", [True, False])
@given(seed=seeds, n=st.integers(1, 9), m=st.integers(1, 9))
def test_one_dimension_equals_numpy_for_every_size_and_mode(mode, flip, seed, n, m):
    """A kernel longer than the sequence included."""
    x, w = (np.random.default_rng(seed + i).integers(-9, 10, k) for i, k in enumerate((n, m)))
    assert F.convolve1d(x, w, mode, flip=flip).tolist() == np.convolve(x, w if flip else w[::-1], mode).tolist()


@pytest.mark.capability("A7")
@pytest.mark.parametrize("boundary", ["fill", "symm", "wrap"])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("mode", MODES)
@given(seed=seeds, size=ints(1, 6), kernel=ints(1, 6))
def test_two_dimensions_equal_scipy_for_every_size_and_mode(mode, flip, boundary, seed, size, kernel):
    x, w = (np.random.default_rng(seed + i).integers(-9, 10, k) for i, k in enumerate((size, kernel)))
    rotated = w if flip else np.flip(w)
    if mode == "valid" and (size[0] - kernel[0]) * (size[1] - kernel[1]) < 0:
        with pytest.raises(ValueError, match="valid"):
            signal.convolve2d(x, rotated, mode, boundary)
        with pytest.raises(ShapeError, match="does not fit into"):
            F.convolve2d(x, w, mode, flip=flip, boundary=boundary)
        return
    y = F.convolve2d(x, w, mode, flip=flip, boundary=boundary)
    assert y.tolist() == signal.convolve2d(x, rotated, mode, boundary).tolist()
    if not flip and (mode == "full" or (mode == "same" and kernel[0] % 2 == kernel[1] % 2 == 1)):
        assert y.tolist() == signal.correlate2d(x, w, mode, boundary).tolist()


@pytest.mark.capability("A3", "A7")
def test_two_dimensions_by_hand():
    assert F.convolve2d(X2, W2, "valid").tolist() == [[25, 24], [28, 25]]
    same = [[11, 25, 32, 13], [19, 25, 24, 13], [13, 28, 25, 17], [11, 17, 14, 9]]
    assert F.convolve2d(X2, W2, "same").tolist() == same
    assert F.convolve2d(X2, W2, "valid", flip=False).tolist() == [[27, 28], [20, 24]]
    picture = np.ones((5, 5)), np.ones((3, 3))
    assert [F.convolve2d(*picture, mode).shape for mode in MODES] == [(7, 7), (5, 5), (3, 3)]


@pytest.mark.capability("A8")
def test_padding_and_stride_together():
    x = np.array([[1, 2, 0], [3, 1, 2], [0, 4, 1]])
    options = {"padding": (1, 1), "stride": (2, 2)}
    assert F.convolve2d(x, W2, **options).tolist() == [[5, 5], [7, 9]]
    six = np.arange(36).reshape(6, 6)
    assert F.convolve2d(six, W2, **options).tolist() == [[8, 38, 54], [62, 149, 169], [122, 269, 289]]
    assert F.convolve2d(x, W2, **options, flip=False).tolist() == [[8, 4], [7, 7]]
    assert F.convolve2d(x, W2.T, **options, flip=False).tolist() == [[8, 5], [7, 5]]  # transposed in place of rotated


@pytest.mark.capability("A3")
def test_an_even_kernel_puts_the_odd_zero_on_a_named_side():
    x, w = [1, 2, 4], [1, 10]
    assert F.convolve1d(x, w, "same").tolist() == np.convolve(x, w, "same").tolist() == [1, 12, 24]
    assert F.convolve1d(x, w, "same_lower").tolist() == [1, 12, 24]
    assert F.convolve1d(x, w, "same_upper").tolist() == [12, 24, 40]
    column = np.array([x]).T
    assert F.convolve2d(column, [[1], [10]], "same_upper").ravel().tolist() == [12, 24, 40]


@pytest.mark.capability("A5")
def test_the_printed_formula_is_a_doctest():
    found = doctest.DocTestFinder(recurse=False).find(convolve, globs={"np": np, **vars(convolve)})
    assert [len(test.examples) for test in found] == [3]
    assert "xp[i s + m - 1 - k] w[k]" in convolve.__doc__
    assert doctest.DocTestRunner().run(found[0]).failed == 0


@pytest.mark.capability("A9")
def test_layers_correlate_and_one_flag_tells_both_apart():
    x, w = randn(0, 6, 7), randn(1, 3, 2)
    layer = F.conv2d(x[None, None], w[None, None])[0, 0]
    assert_near(F.convolve2d(x, w, "valid", flip=False), layer, 1e-14)
    assert_near(F.convolve2d(x, np.rot90(w, 2), "valid"), layer, 1e-14)
    assert np.abs(F.convolve2d(x, w, "valid") - layer).max() > 0.1
    assert np.rot90([[1, 2], [3, 4]], 2).tolist() == [[4, 3], [2, 1]]


@pytest.mark.capability("A9")
def test_the_page_on_both_runs():
    page = Path(__file__).resolve().parents[2] / "docs" / "convolution.md"
    result = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert result.attempted > 10
    assert result.failed == 0


@pytest.mark.capability("A10")
def test_one_pixel():
    region, kernel = randn(0, 3, 2, 2), randn(1, 3, 2, 2)
    y = F.pixel_convolution(region, kernel, 0.5)
    assert type(y) is float
    assert y == pytest.approx(F.conv2d(region[None], kernel[None], np.array([0.5])).item(), rel=1e-12)
    with pytest.raises(ShapeError, match=r"region \(3, 2, 2\) and filter \(2, 2\) must have the same shape"):
        F.pixel_convolution(region, kernel[0])
    with pytest.raises(ShapeError, match="bias must be one number"):
        F.pixel_convolution(region, kernel, np.zeros(3))


def test_bytes_do_not_overflow():
    assert F.convolve2d(np.full((3, 3), 255, np.uint8), np.full((3, 3), 2, np.uint8), "valid").tolist() == [[9 * 510]]


@pytest.mark.parametrize(
    ("function", "arguments", "options", "error", "match"),
    [
        (F.convolve1d, (X2, W), {}, ShapeError, r"x must have 1 axis and values, got \(4, 4\)"),
        (F.convolve1d, (X, []), {}, PellucidError, "w must"),
        (F.convolve2d, (X2, W), {}, ShapeError, r"w must have 2 axes and values, got \(5,\)"),
        (F.convolve2d, (X2 > 1, W2), {}, OptionError, "x must be real numbers, got bool"),
        (F.convolve2d, (X2 * 1j, W2), {}, OptionError, "x must be real numbers, got complex128"),
        (F.convolve2d, (X2, W2, "valdi"), {}, OptionError, 'unknown mode "valdi"; did you mean "valid"'),
        (F.convolve2d, (X2, W2, "full", 1), {}, OptionError, "give mode or padding, not both"),
        (F.convolve2d, (X2, W2), {"padding": (1, 2, 3)}, OptionError, "padding must be a number or a pair"),
        (F.convolve2d, (X2, W2), {"stride": 0}, OptionError, "stride must be at least 1"),
        (F.convolve2d, (X2, W2), {"boundary": "mirror"}, OptionError, 'unknown boundary "mirror"'),
        (F.convolve1d, (X[:2], W), {"padding": 1}, ShapeError, "a window of length 5 does not fit into 2 cells with 2"),
    ],
)
def test_refusals(function, arguments, options, error, match):
    with pytest.raises(error, match=match):
        function(*arguments, **options)
