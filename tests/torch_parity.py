"""How an operation is held to PyTorch's of the same name: forward and all gradients, and what both refuse."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from oracles import EXACT, assert_near, laid_out, randn
from pellucid import functional as F


def compare(torch, name, arrays, options, dtype="float64", layout="C", keep=("x",), reference=None, size=0.0):
    """Compare F.<name>(*arrays, **options) and its gradients by all arrays with PyTorch's in float64.

    The incoming gradient is random. keep names what the backward function takes besides dy and the options; arrays may
    be None. A size is that of the terms, where results may cancel.
    """
    ours, ours_backward = getattr(F, name), getattr(F, f"{name}_backward")
    leaves = [None if a is None else torch.tensor(np.ascontiguousarray(a), requires_grad=True) for a in arrays]
    expected = (reference or getattr(torch.nn.functional, name))(*leaves, **options)
    dy = randn(7, *expected.shape)
    expected.backward(torch.tensor(dy))
    given = [None if a is None else laid_out(a.astype(dtype), layout) for a in arrays]
    dy = laid_out(dy.astype(dtype), layout)
    before = [None if a is None else a.copy() for a in given]
    y = ours(*given, **options)
    kept = dict(zip(inspect.signature(ours).parameters, given, strict=False))
    accepted = inspect.signature(ours_backward).parameters
    gradients = ours_backward(
        dy,
        *(kept[key] for key in keep),
        **{key: value for key, value in options.items() if key in accepted},
    )
    rel = EXACT[dtype]
    assert y.dtype == dtype
    assert_near(y, expected, rel, "y", size=size)
    for leaf, gradient in zip(leaves, gradients if isinstance(gradients, tuple) else [gradients], strict=False):
        if leaf is not None:
            assert gradient.dtype == dtype
            grad = np.zeros(leaf.shape) if leaf.grad is None else leaf.grad
            assert_near(gradient, grad, rel, "gradient", size=max(size, 1e-3))
    assert all(np.array_equal(a, b) for a, b in zip(given, before, strict=True) if a is not None)


def refused_alike(torch, name, arguments, options, error, match):
    """Both refuse, and ours says why."""
    with pytest.raises(error, match=match):
        getattr(F, name)(*arguments, **options)
    theirs = [torch.tensor(a) if isinstance(a, np.ndarray) else a for a in arguments]
    with pytest.raises((RuntimeError, ValueError, TypeError, IndexError, NotImplementedError)):
        getattr(torch.nn.functional, name)(*theirs, **options)
