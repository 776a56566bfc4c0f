"""Out of every parser comes a PellucidError or a result, whatever it is given."""

from __future__ import annotations

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.targets import TARGETS, attempt

pytestmark = pytest.mark.capability("H23", "H7")


@pytest.mark.parametrize("name", TARGETS)
def test_good_inputs_are_taken(name, tmp_path):
    for seed in TARGETS[name].seeds():
        assert attempt(name, seed, tmp_path) == "taken"


@pytest.mark.parametrize("name", TARGETS)
@given(number=st.integers(0, 2**32), again=st.integers(0, 5))
def test_changed_inputs(name, number, again):
    """The number says what is changed, so that a failure can be repeated."""
    target, random = TARGETS[name], Random(number)
    data = random.choice(target.seeds())
    for _ in range(again + 1):
        with TemporaryDirectory() as folder:
            assert attempt(name, target.mutate(data, random), Path(folder)) in ("taken", "refused")


@pytest.mark.parametrize(
    "name", ["sealed", "model", "spec text", "idx", "npz", "picture", "folder", "config", "kernel", "onnx bytes"]
)
@given(data=st.binary(max_size=300))
def test_any_bytes(name, data):
    with TemporaryDirectory() as folder:
        assert attempt(name, data, Path(folder)) in ("taken", "refused")
