"""Gives every docstring example np, so that each can be as short as its point."""

from typing import Any

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _np_in_examples(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace["np"] = np
