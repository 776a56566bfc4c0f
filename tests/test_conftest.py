"""In CI a skip fails the run, unless its reason is an allowed one, on one process and on two."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

IN_A_TEST = """
import pytest
def test_needs():
    pytest.skip("{reason}")
def test_passes():
    assert True
"""
AT_IMPORT = """
import pytest
pytest.skip("{reason}", allow_module_level=True)
"""


def outcome(tmp_path: Path, source: str, ci: str, *options: str) -> tuple[int, str]:
    """Run a test file below a copy of conftest.py; return pytest's exit status and output."""
    for name in ("conftest.py", "available.py"):
        shutil.copy(Path(__file__).with_name(name), tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    (tmp_path / "test_example.py").write_text(source)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "PELLUCID"))} | {"CI": ci}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "two workers"])
def test_skips_fail_in_ci(tmp_path, options):
    source = IN_A_TEST.format(reason="torch not here: make test TORCH=1")
    assert outcome(tmp_path, source, "", *options)[0] == 0
    status, output = outcome(tmp_path, source, "true", *options)
    assert status == 1
    assert "skipped in CI, where everything must run: torch not here: make test TORCH=1" in output
    assert "1 failed, 1 passed" in output


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "two workers"])
def test_skips_of_whole_files_fail_in_ci(tmp_path, options):
    status, output = outcome(tmp_path, AT_IMPORT.format(reason="onnx not here: make test"), "true", *options)
    assert status not in (0, 5)
    assert "skipped in CI, where everything must run: onnx not here" in output


@pytest.mark.parametrize("reason", ["needs a GPU", "could not import 'zlib'", "unconditional skip", "root may write"])
def test_a_reason_that_nobody_has_allowed_fails_in_ci(tmp_path, reason):
    status, output = outcome(tmp_path, IN_A_TEST.format(reason=reason), "true")
    assert status == 1
    assert f"skipped in CI, where everything must run: {reason}" in output


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "two workers"])
def test_allowed_reasons_are_skips_in_ci_too(tmp_path, options):
    status, output = outcome(tmp_path, IN_A_TEST.format(reason="root may write anywhere"), "true", *options)
    assert status == 0
    assert "1 passed, 1 skipped" in output


MARKS = """
import pytest
@pytest.mark.skipif(True, reason="{reason}")
def test_marked():
    assert False
@pytest.mark.xfail(reason="known")
def test_expected_to_fail():
    assert False
"""


def test_marks_count_as_skips_and_expected_failures_do_not(tmp_path):
    status, output = outcome(tmp_path, MARKS.format(reason="not on this system"), "true")
    assert status == 1
    assert "1 xfailed, 1 error" in output  # a mark skips before the test begins
    status, output = outcome(tmp_path, MARKS.format(reason="root may write anywhere"), "true")
    assert status == 0
    assert "1 skipped, 1 xfailed" in output


FIXTURES = """
def test_data(real_data): assert real_data.is_dir()

"""


def test_missing_data_fail_in_ci_and_are_skipped_elsewhere(tmp_path):
    status, output = outcome(tmp_path, FIXTURES, "true", "-k", "data")
    assert status == 1
    assert "real data not here: set PELLUCID_DATA" in output
    assert outcome(tmp_path, FIXTURES, "", "-k", "data")[0] == 0
