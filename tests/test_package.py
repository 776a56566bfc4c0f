"""The package as users get it: a wheel in a clean environment outside the checkout, and a light import."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "matplotlib", "sklearn", "numba", "PIL", "scipy", "rich", "pydantic", "jinja2")

# One worker for this file, so that the environment is made once.
pytestmark = pytest.mark.xdist_group("package")


def run(*command: object, cwd: Path) -> str:
    """Run a command without this environment's variables; return its stdout, or fail with all it wrote."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    here = ["--no-isolation"] if importlib.util.find_spec("hatchling") else []
    run(sys.executable, "-m", "build", "--wheel", *here, "--outdir", folder, ROOT, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of the commands of a clean environment that holds the wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    commands = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = [commands / "python", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    run(*pip, "install", "--quiet", wheel, cwd=folder)
    return commands


@pytest.mark.slow
@pytest.mark.capability("H39")
def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "pellucid/py.typed" in names
    assert "pellucid/errors.py" in names
    for page in ("explain/index.html.j2", "explain/page.css", "report/page.html.j2", "report/page.css"):
        assert f"pellucid/{page}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert all(name.startswith(("pellucid/", "pellucid-")) for name in names)
    assert not any("test_" in name or name.endswith(".pyc") for name in names)


@pytest.mark.slow
@pytest.mark.capability("H34", "H39")
def test_installed_wheel_trains_and_judges_the_digits(installed, tmp_path):
    where = run(installed / "python", "-c", "import pellucid; print(pellucid.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    run(installed / "pellucid", "train", "digits", "--epochs", "10", "--out", tmp_path / "run", cwd=tmp_path)
    output = run(installed / "pellucid", "evaluate", tmp_path / "run", "digits", "--json", cwd=tmp_path)
    assert json.loads(output)["accuracy"] >= 0.9


@pytest.mark.capability("H39")
def test_import_is_light():
    code = f"import sys, pellucid; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
