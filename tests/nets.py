"""Each layer of the table in nn/test_layers.py as a network, for what runs whole networks with PyTorch."""

from __future__ import annotations

import copy

import pytest

from nn.test_layers import LAYERS
from pellucid import nn

# Padding beyond half of a dilated window, and overlapping windows of an unpooling.
NOT_IN_TORCH = ("MaxPool2d2", "MaxUnpool2d1")


def every_layer(*behind: nn.Layer) -> list:
    """Return a pytest.param for each case: the layer and what stands behind it, built in float64."""
    return [
        pytest.param(
            nn.Sequential(make(), *copy.deepcopy(behind), input_shape=shape, dtype="float64", seed=1),
            id=f"{kind.__name__}{i}",
        )
        for kind, cases in LAYERS.items()
        for i, (make, shape) in enumerate(cases)
        if f"{kind.__name__}{i}" not in NOT_IN_TORCH
    ]
