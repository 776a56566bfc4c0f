"""Model files of every released version load, say what they said, and are written again as they were."""

from __future__ import annotations

import json

import numpy as np
import pytest

import pellucid as pl
from available import EVERY_ENGINE
from golden import make

FILES = sorted(make.FOLDER.glob("*.safetensors"))

pytestmark = pytest.mark.capability("H23")


def test_there_are_files_of_0_1():
    assert {"0.1.0-every-layer.safetensors", "0.1.0-shared-layer.safetensors"} <= {path.name for path in FILES}


@pytest.mark.parametrize("engine", EVERY_ENGINE)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_what_it_said(path, engine):
    facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    model = pl.load(path, engine)
    assert list(model.classes) == facts["classes"]
    assert model.metrics == facts["metrics"]
    outputs = model.outputs(make.images(model.input.shape, model.input.value_range[1]))
    assert np.abs(outputs - facts["outputs"]).max() <= 1e-5 * np.abs(facts["outputs"]).max()


def test_files_of_0_1_know_no_thresholds():
    assert all(pl.load(path).novelty is None for path in FILES if path.name.startswith("0.1.0"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_keeps_every_weight(path, tmp_path):
    """Compared with what safetensors itself reads."""
    from safetensors.numpy import load_file

    stored, network = load_file(path), pl.load(path).network
    state = network.state_dict()
    assert stored.keys() == network.state_layout().keys()
    assert all(state[name].tobytes() == array.tobytes() for name, array in stored.items())
