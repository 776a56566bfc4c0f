"""Fixtures for what may be missing on a machine, and the rule that nothing is missing in CI."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from available import NO_DATA, NO_ONNX, NO_TORCH

os.environ.setdefault("MPLBACKEND", "Agg")
# What a shell starts in the background ignores Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("fuzz", derandomize=False, deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("PELLUCID_HYPOTHESIS", "ci"))

ALLOWED_IN_CI = ("root may write anywhere", "strace is not here, or may not trace")


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure, unless its reason is a known one, so that CI cannot pass by testing less."""
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if reason not in ALLOWED_IN_CI:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where everything must run: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    _refuse_skip(report)
    return report


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with MNIST, Fashion-MNIST and a CIFAR-10 sample."""
    folder = os.environ.get("PELLUCID_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip(NO_DATA)
    return Path(folder)


@pytest.fixture(scope="session")
def torch():
    """PyTorch on one thread, as an oracle."""
    module = pytest.importorskip("torch", reason=NO_TORCH)
    module.set_num_threads(1)
    return module


@pytest.fixture(scope="session")
def ort():
    """A function of an ONNX file's bytes and a batch: what ONNX Runtime gives, as an oracle."""
    pytest.importorskip("onnx", reason=NO_ONNX)
    module = pytest.importorskip("onnxruntime", reason=NO_ONNX)
    module.set_default_logger_severity(4)

    def run(content, x):
        ready = module.InferenceSession(content, providers=["CPUExecutionProvider"])
        (given,) = ready.get_inputs()
        return ready.run(None, {given.name: x})[0]

    return run
