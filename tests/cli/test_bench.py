"""pellucid bench."""

from __future__ import annotations

import json
import re

import pytest

from pellucid.benchmark import contestants
from pellucid.compiled import profile as profiling

pytestmark = pytest.mark.capability("H34", "H38")


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """As if no peer was installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(contestants, "_NEEDS", dict.fromkeys(contestants._NEEDS, ("no_such_module",)))


@pytest.mark.usefixtures("alone")
def test_json_is_one_document(cli):
    code, out, err = cli("bench", "W0", "--rounds", "1", "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert list(result["workloads"]) == ["W0"]
    assert result["absent"] == dict.fromkeys(("torch", "keras", "jax", "onnxruntime"), "not installed")
    assert (result["startup"], result["workloads"]["W0"]["memory"]) == ([], {})


@pytest.mark.usefixtures("alone")
def test_a_table_and_what_is_missing(cli):
    code, out, err = cli("bench", "W4-1", "--rounds", "1")
    assert (code, err) == (0, "")
    assert re.search(r"^W4-1 +[\d.]+", out, re.MULTILINE)
    assert re.search(r"^control .* GFLOP/s", out, re.MULTILINE)
    assert "not here: PyTorch, Keras, JAX, ONNX Runtime; --help says how to add them" in out.splitlines()


def test_profile(cli, monkeypatch):
    monkeypatch.setattr(profiling, "_SECONDS", 0.01)
    code, out, err = cli("bench", "W0", "--profile")
    assert (code, err) == (0, "")
    assert out.startswith("W0: lesson 0's network")
    assert "conv_pool relu 0" in out
    assert max(map(len, out.splitlines())) <= 80
    (found,) = json.loads(cli("bench", "W4-1", "--profile", "--json").out).values()
    assert sum(row["share"] for row in found["rows"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("W22",), 'error: unknown workload "W22"; did you mean "W2"? Known: W2, W4,'),
        (("W2", "--instructions", "avx3"), 'error: unknown instructions "avx3"; did you mean "avx2"?'),
        (
            ("W2", "--peers", "gone"),
            "error: --peers must be a folder of environments named torch, keras, ..., got gone",
        ),
        (("W2", "--profile", "--instructions", "avx2"), "error: --profile shows this process; set NUMBA_CPU_NAME"),
    ],
)
def test_errors(cli, words, message):
    code, out, err = cli("bench", *words)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(message)


@pytest.mark.usefixtures("alone")
def test_what_stops_pellucid_itself_is_one_line(cli, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    code, out, err = cli("bench", "W0", "--rounds", "1")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "NUMBA_DISABLE_JIT is set" in err
