"""Resampling: PyTorch in every mode, integers by hand, the adjoint."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles import EXACT, layouts, randn, seeds
from pellucid import functional as F
from pellucid.errors import PellucidError
from torch_parity import compare, refused_alike

MODES = [
    ("nearest", 1),
    ("nearest", 2),
    ("nearest", 3),
    ("linear", 1),
    ("bilinear", 2),
    ("bicubic", 2),
    ("trilinear", 3),
]


@st.composite
def resizings(draw, mode, dims):
    """A shape, and a new size or factors; both ways to align corners."""
    size = draw(st.tuples(*[st.integers(1, 6)] * dims))
    options = {"mode": mode}
    if draw(st.booleans()):
        options["size"] = draw(st.tuples(*[st.integers(1, 9)] * dims))
    else:
        factors = [draw(st.sampled_from([f for f in (0.3, 0.5, 1.0, 1.5, 2.0, 2.7) if int(n * f)])) for n in size]
        options["scale_factor"] = tuple(factors)
    if mode != "nearest":
        options["align_corners"] = draw(st.sampled_from([None, False, True]))
    return (draw(st.integers(1, 2)), 2, *size), options


@pytest.mark.capability("B15", "C14")
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize(("mode", "dims"), MODES)
@given(data=st.data(), seed=seeds, layout=layouts)
def test_equals_torch(torch, mode, dims, dtype, data, seed, layout):
    shape, options = data.draw(resizings(mode, dims))
    compare(torch, "interpolate", [randn(seed, *shape)], options, dtype, layout, size=1.0)


@pytest.mark.capability("B15")
def test_by_hand():
    x = np.array([[[0.0, 4.0]]])
    assert F.interpolate(x, size=4).ravel().tolist() == [0, 0, 4, 4]
    assert F.interpolate(x, size=4, mode="linear").ravel().tolist() == [0, 1, 3, 4]
    assert F.interpolate(x, size=5, mode="linear", align_corners=True).ravel().tolist() == [0, 1, 2, 3, 4]
    cubic = F.interpolate(np.array([[[[0.0, 0, 1, 0, 0]]]]), scale_factor=(1, 2), mode="bicubic")
    # The kernel of Keys with a = -3/4 at the distances 7/4, 5/4, 3/4 and 1/4 on either side of the one.
    half = np.array([-0.03515625, -0.10546875, 0.26171875, 0.87890625])
    assert cubic.ravel()[1:9] == pytest.approx([*half, *half[::-1]], abs=1e-15)


@pytest.mark.capability("B15")
@pytest.mark.parametrize(("mode", "dims"), MODES)
@given(data=st.data(), seed=seeds)
def test_adjoint(mode, dims, data, seed):
    shape, options = data.draw(resizings(mode, dims))
    x = randn(seed, *shape)
    ax = F.interpolate(x, **options)
    y = randn(seed + 1, *ax.shape)
    off = (ax * y).sum() - (x * F.interpolate_backward(y, x, **options)).sum()
    assert abs(off) <= 1e-12 * (np.linalg.norm(ax) * np.linalg.norm(y) + 1)


def test_an_empty_batch_and_a_nan():
    assert F.interpolate(np.zeros((0, 2, 3, 4)), scale_factor=2).shape == (0, 2, 6, 8)
    assert F.interpolate_backward(np.zeros((0, 2, 6, 8)), np.zeros((0, 2, 3, 4)), scale_factor=2).shape == (0, 2, 3, 4)
    x = np.zeros((1, 1, 1, 8))
    x[..., 0] = np.nan
    assert np.isfinite(F.interpolate(x, size=(1, 16), mode="bilinear")[..., 3:]).all()


X = np.zeros((1, 2, 4, 5))


@pytest.mark.capability("B15")
@pytest.mark.parametrize(
    ("x", "options", "match"),
    [
        (X, {}, "give size or scale_factor"),
        (X, {"size": 3, "scale_factor": 2}, "give size or scale_factor, but not both"),
        (X, {"size": (3, 4, 5)}, r"size must be a number or a pair \(height, width\), got"),
        (X, {"scale_factor": (1.0, 2.0, 3.0)}, "scale_factor must be a number or a pair"),
        (X, {"scale_factor": -1}, "scale_factor must be a number of at least 0"),
        (X, {"scale_factor": 0.1}, "cells 4x5 cannot become 0x0; choose another size or scale_factor"),
        (X, {"size": 0}, "size must be at least 1, got 0"),
        (X, {"size": 3, "mode": "bilnear"}, 'unknown mode "bilnear"; did you mean "bilinear"'),
        (
            X,
            {"size": 3, "mode": "linear"},
            'mode "linear" is not for x of shape .* use one of nearest, bilinear, bicubic',
        ),
        (X, {"size": 3, "align_corners": True}, 'align_corners has no meaning with mode "nearest"'),
        (X[0, 0], {"size": 3}, "x must have the axes N x C x H x W"),
    ],
)
def test_what_torch_refuses_is_refused_with_the_argument_named(torch, x, options, match):
    refused_alike(torch, "interpolate", (x,), options, PellucidError, match)
