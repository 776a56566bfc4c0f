"""The benchmark: contestants do the same work, what differs or fails is left out in a line, the page is current."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pellucid import engines, nn, optim
from pellucid.benchmark import contestants, measure, text
from pellucid.benchmark.contestants import OWN, Contestant, Dropped
from pellucid.benchmark.workloads import WORKLOADS, write_job

pytestmark = pytest.mark.capability("H38")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("benchmarks", ROOT / "scripts" / "benchmarks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def short(*names, peers=None):
    return measure.Settings(names, peers, rounds=1, seconds=0.001, memory=False, startup=0)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A run with a peer whose environment is broken."""
    folder = tmp_path_factory.mktemp("peers")
    for name in ("keras", "jax", "onnxruntime", "torch"):
        broken = folder / name / "bin" / "python"
        broken.parent.mkdir(parents=True)
        broken.write_text("#!/bin/sh\necho 'no module of that name' >&2\nexit 3\n")
        broken.chmod(0o755)
    return measure.run(short("W0", "W4-1", peers=folder))


def test_a_run_has_the_documented_keys(result):
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert set(result) == {
        *("format", "instructions", "machine", "versions", "absent", "dropped", "control_gflops", "workloads"),
        "startup",
    }
    assert set(result["machine"]) == {"cpu", "cores", "system", "python", "numpy"}
    assert set(result["workloads"]) == {"W0", "W4-1"}
    for work in result["workloads"].values():
        assert set(work) == {"title", "batch", "trains", "times", "losses", "ratios", "memory"}
        rows = work["times"][OWN]
        assert "1" in rows
        for row in rows.values():
            assert set(row) == {"best", "median", "way", "ways"}
            assert 0 < row["best"] <= row["median"]


def test_a_peer_that_cannot_start_is_one_line(result):
    assert set(result["absent"]) == {"torch", "keras", "jax", "onnxruntime"}
    assert set(result["absent"].values()) == {"no module of that name"}
    assert "without JAX: no module of that name" in text.report(result).splitlines()


def test_a_peer_that_is_not_there_is_named(result):
    alone = result | {"absent": {"keras": "not installed", "jax": "not installed"}}
    assert text.report(alone).splitlines()[-1].startswith("not here: Keras, JAX; ")


def test_text_fits_the_terminal(result, script):
    for one in (result, script.stored()["native"]["runs"][0]):
        assert max(map(len, text.report(one).splitlines())) <= 80


def test_progress_reaches_its_total(tmp_path):
    seen = []
    measure.run(short("W4-1"), lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == len(seen)


def test_ratios_are_peer_by_pellucid():
    times = {
        OWN: {"1": {"best": 4.0}, "2": {"best": 2.0}},
        "torch": {"1": {"best": 6.0}, "2": {"best": 10.0}},
    }
    assert measure.ratios(times) == {"torch": {"1": 1.5, "2": 5.0, "best": 3.0}}


def test_other_losses_are_not_the_same_work():
    measure.check_losses([2.0, 3.0], [2.001, 3.001])
    with pytest.raises(Dropped, match=r"not the same work: losses \[2.0, 3.1\], pellucid's \[2.0, 3.0\]"):
        measure.check_losses([2.0, 3.0], [2.0, 3.1])
    with pytest.raises(Dropped):
        measure.check_losses([2.0], [float("nan")])


@pytest.fixture
def contestant(request):
    made = Contestant(request.param, sys.executable, 1)
    yield made
    made.close()


@pytest.mark.parametrize("contestant", [OWN], indirect=True)
def test_first_losses_are_those_of_the_reference_engine(contestant, tmp_path):
    work = WORKLOADS["W0"]
    write_job(work, tmp_path / "job.npz")
    losses = contestant.ask("build", job=str(tmp_path / "job.npz"), seconds=0.001)["losses"]
    with np.load(tmp_path / "job.npz") as job:
        x, y = job["x"], job["y"]
    reference = engines.create("reference")
    reference.build(work.network(), nn.CrossEntropyLoss(), optim.SGD(0.005))
    expected = reference.train(x, y, np.arange(3), 1, 0, np.full(3, 0.005))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert contestant.ask("turn")["us"] > 0


@pytest.mark.parametrize("contestant", ["torch"], indirect=True)
@pytest.mark.parametrize("name", ["W1", "W4-1"])
def test_pytorch_does_the_same_work(torch, contestant, name, tmp_path):
    path = str(tmp_path / "job.npz")
    write_job(WORKLOADS[name], Path(path))
    own = Contestant(OWN, sys.executable, 1)
    try:
        mine = own.ask("build", job=path, seconds=0.001)["losses"]
    finally:
        own.close()
    answer = contestant.ask("build", job=path, seconds=0.001)
    measure.check_losses(mine, answer["losses"])
    assert answer["way"] in answer["ways"]
    assert len(answer["ways"]) == (4 if WORKLOADS[name].optimizer else 2)
    assert contestant.ask("turn")["us"] > 0


@pytest.mark.parametrize("contestant", [OWN], indirect=True)
def test_an_error_and_an_end_are_one_line(contestant, tmp_path):
    with pytest.raises(Dropped, match=r"^RuntimeError: nothing was built$"):
        contestant.ask("turn")
    with pytest.raises(Dropped, match="FileNotFoundError"):
        contestant.ask("build", job=str(tmp_path / "gone.npz"), seconds=0.1)
    contestant._process.kill()
    contestant._process.wait()
    with pytest.raises(Dropped, match="ended with exit code"):
        contestant.ask("control")


@pytest.mark.parametrize("contestant", [OWN], indirect=True)
def test_silence_is_one_line(contestant, monkeypatch):
    monkeypatch.setattr(contestants, "_TIMEOUT", 0.0)
    with pytest.raises(Dropped, match=r"^no answer within 0 s$"):
        contestant.ask("control")


def test_page_is_up_to_date(script):
    message = "docs/benchmarks.md is stale; run: python scripts/benchmarks.py --page"
    assert script.PAGE.read_text(encoding="utf-8") == script.page(script.stored()), message


def test_page_shows_the_least_ratio_of_the_runs(script):
    native = script.stored()["native"]
    native["runs"] = [json.loads(json.dumps(native["runs"][0])) for _ in range(3)]
    for run, value in zip(native["runs"], (9.5, 7.25, 8.5), strict=True):
        run["workloads"]["W2"]["ratios"]["torch"]["best"] = value
    page = script.page({"native": native, "avx2": native})
    assert page.count("**7.25**") == 2
    assert "9.50" not in page
    assert "runs: 3" in page
