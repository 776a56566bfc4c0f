"""The profile: every instruction of a program, shares that sum to one, and work that is left as it was."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid import models, nn, optim
from pellucid.compiled import profile as profiling
from pellucid.compiled.engine import programs
from pellucid.compiled.profile import peak, profile

pytestmark = pytest.mark.capability("H22", "H38")


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(profiling, "_SECONDS", 0.01)


def network():
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Residual(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))),
        nn.Conv2d(8, 6, 3),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(10),
        input_shape=(2, 13, 12),
    )


def titles(program):
    """(stage, title) of all instructions, in order, each once."""
    found = {}
    for number, stage in enumerate(program.stages):
        listed = stage.instructions or [i for t in sorted(stage.tasks, key=lambda t: -t.cost) for i in t.instructions]
        found |= dict.fromkeys((number, instruction.title) for instruction in listed)
    return list(found)


@pytest.mark.parametrize("trains", [True, False])
def test_every_instruction_has_its_share(trains):
    net = network()
    before = net.flat_parameters.copy()
    found = profile(net, optim.Adam() if trains else None, 5)
    assert [(row.stage, row.title) for row in found.rows] == titles(programs(net)[0 if trains else 1])
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    assert all(row.microseconds >= 0 for row in found.rows)
    assert sum(row.microseconds for row in found.rows) > 0
    np.testing.assert_array_equal(net.flat_parameters, before)


def test_batches_of_one_image_are_seen():
    """Whatever program the engine has for them."""
    net = models.block_cnn(1, [32], [30, 10], input_shape=(1, 8, 8))
    found = profile(net, optim.SGD(0.01), 1)
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    assert sum(row.microseconds for row in found.rows) > 0
    assert "loss CrossEntropyLoss" in {row.title for row in found.rows}


def test_multiplications_are_those_of_the_formula():
    rows = {row.title: row for row in profile(network(), optim.SGD(), 4).rows}
    first, second, third, dense = 7 * 6 * 8 * 2 * 9, 7 * 6 * 8 * 8 * 9, 5 * 4 * 6 * 8 * 9, 10 * 6 * 2 * 2
    expected = {
        "conv relu 0": first,
        "weight gradient 0": first,
        "conv 2.body.0": second,
        "data gradient 2.body.0": second,
        "conv_pool 3": third,
        "weight gradient 3": third,
        "linear 6": dense,
        "data gradient 6": dense,
        "norm 2.body.1": None,
        "update 6": None,
    }
    assert {title: rows[title].multiplications for title in expected} == expected
    for row in rows.values():
        assert (row.fraction is None) == (row.multiplications is None or row.microseconds == 0)


def test_fractions_are_of_the_peak():
    (row,) = (r for r in profile(models.create("lesson2", (1, 28, 28), 10), None, 16).rows if r.title == "conv relu 6")
    assert row.fraction == pytest.approx(row.multiplications / (row.microseconds * 1e-6) / peak())


def test_the_view_fits_the_terminal():
    lines = str(profile(models.create("resnet8", (3, 32, 32), 10), optim.SGD(momentum=0.9), 2)).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].endswith(" GFLOP/s")
    assert any("data gradient 7.shortcut.0" in line for line in lines)


def test_shares_when_everything_is_faster_than_the_clock(monkeypatch):
    def nothing(programs, run):
        return programs[0], np.zeros(len(programs[0].instruction_table))

    net = network()
    monkeypatch.setattr(profiling, "_watched", nothing)
    found = profile(net, None, 2)
    assert {row.share for row in found.rows} == {0.0}
    assert {row.fraction for row in found.rows} == {None}
    assert "0.000" in str(found)
