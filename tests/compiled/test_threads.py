"""How many threads there are to use."""

from __future__ import annotations

import os

import pytest

from pellucid.compiled import threads
from pellucid.errors import OptionError

pytestmark = pytest.mark.capability("H38")


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch):
    monkeypatch.delenv("PELLUCID_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(threads, "_quota", lambda: 1 << 20)


def test_as_many_as_the_process_may_use():
    assert threads.available() == 4


def test_the_variable_says_how_many(monkeypatch):
    monkeypatch.setenv("PELLUCID_THREADS", " 7 ")
    assert threads.available() == 7
    assert threads.check(None) == 7
    assert threads.check(3) == 3


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_variable_that_is_no_number_of_threads(monkeypatch, value):
    monkeypatch.setenv("PELLUCID_THREADS", value)
    with pytest.raises(OptionError, match="PELLUCID_THREADS must be a number of threads"):
        threads.available()


def test_threads_must_be_at_least_one():
    with pytest.raises(OptionError, match="threads must be at least 1"):
        threads.check(0)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 1 << 20),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1 << 20),
        ({}, 1 << 20),
        ({"cpu.max": "nonsense"}, 1 << 20),
    ],
)
def test_a_container_may_withhold_some(tmp_path, monkeypatch, files, cores):
    monkeypatch.undo()
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert threads._quota(tmp_path) == cores
