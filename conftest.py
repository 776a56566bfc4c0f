"""Gives every docstring example np, so that each can be as short as its point."""

import importlib.util
from typing import Any

import numpy as np
import pytest

# They belong to other environments.
collect_ignore_glob = ["src/pellucid/benchmark/peers/run_*.py"]
if importlib.util.find_spec("torch") is None:  # which the examples in these need
    collect_ignore_glob += ["src/pellucid/engines/torch*.py", "src/pellucid/interop/torch*.py"]


@pytest.fixture(autouse=True)
def _np_in_examples(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace["np"] = np
