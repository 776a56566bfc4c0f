"""--help: examples everywhere, within 80 columns, and nothing heavy imported for it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.capability("H34", "H39")

COMMANDS = (
    *("train", "evaluate", "predict", "explain", "summary", "filter", "export"),
    *("data list", "data fetch", "data check", "bench"),
)
HEAVY = (
    *("numpy", "sklearn", "matplotlib", "PIL", "safetensors", "scipy", "torch", "onnx", "onnxruntime", "pooch"),
    "jinja2",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_with_examples(cli, command):
    code, out, err = cli(*command.split(), "--help")
    assert (code, err) == (0, "")
    assert f"Usage: pellucid {command}" in out
    if command != "data list":
        assert re.search(rf"pellucid {command} ?\S*", out.split("Usage:")[1].split("\n", 1)[1]), "no example"
        assert "Example" in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_first_page(cli):
    code, out, _ = cli("--help")
    assert code == 0
    words = ("train", "evaluate", "predict", "explain", "summary", "filter", "export", "data", "bench", "--version")
    for word in words:
        assert re.search(rf"\b{word}\b" if word[0] != "-" else word, out)
    assert "pellucid train digits --out runs/first" in out
    assert cli("-h").out == out


def test_version(cli):
    import pellucid

    assert cli("--version") == (0, f"pellucid {pellucid.__version__}\n", "")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_names_every_option_of_the_contract(cli, command):
    options = {
        "train": "--model --engine --device --epochs --batch-size --optimizer --lr --momentum --weight-decay "
        "--schedule --clip --augment --balance --size --normalize --val-fraction --subset --seed --threads "
        "--checkpoint-every --strict --config --out --resume --other-bits",
        "evaluate": "--split --json --save-seen",
        "predict": "--top --json --save-seen",
        "explain": "--out --target --data",
        "summary": "--input",
        "export": "--to --out",
        "bench": "--profile --rounds --peers --instructions --json",
        "data fetch": "--from",
    }
    out = cli(*command.split(), "--help").out
    missing = [option for option in options.get(command, "--help").split() if option not in out]
    assert missing == []


def test_help_imports_nothing_heavy():
    """Time is not asserted; what takes it is. Every command's help in one process."""
    code = f"""
import contextlib, io, sys
from pellucid.cli.app import main
for words in {[c.split() for c in ("", *COMMANDS)]!r}:
    sys.argv = ["pellucid", *words, "--help"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main()
print(*[name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
