"""How the tests of arithmetic compare, and the arrays that they make. Shares no code with the package."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

EXACT = {"float64": 1e-10, "float32": 1e-5}
LAYOUTS = ("C", "F", "every second", "reversed")


def assert_near(actual, expected, rel: float, what: str = "result", size: float = 0.0) -> None:
    """Norm-wise: max |a - b| / max(max |b|, size); NaN and infinities stand at the same places.

    A size is for results that may cancel: that of the terms.
    """
    a = np.asarray(actual, dtype=np.float64)
    b = np.asarray(expected.detach() if hasattr(expected, "detach") else expected, dtype=np.float64)
    assert a.shape == b.shape, f"{what}: shape {a.shape}, expected {b.shape}"
    fine = np.isfinite(b)
    assert np.array_equal(a[~fine], b[~fine], equal_nan=True), f"{what}: NaN or infinity elsewhere"
    if fine.any():
        off, size = np.abs(a[fine] - b[fine]).max(), max(np.abs(b[fine]).max(), size)
        assert off <= rel * size, f"{what}: off by {off:g}, size {size:g}, relative {off / (size or 1):.1e} > {rel:g}"


def randn(seed: int, *shape: int, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def laid_out(x: np.ndarray, layout: str) -> np.ndarray:
    """The same values with other strides."""
    if layout == "F":
        return np.asfortranarray(x)
    if layout == "every second":
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), dtype=x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    return x[::-1].copy()[::-1] if layout == "reversed" else x


seeds = st.integers(0, 2**32 - 1)
layouts = st.sampled_from(LAYOUTS)


def ints(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    """A (height, width) pair."""
    return st.tuples(st.integers(low, high), st.integers(low, high))
