"""What may be missing on a machine, and the words with which its tests are skipped there."""

from __future__ import annotations

import importlib.util

import pytest

NO_DATA = "real data not here: set PELLUCID_DATA"
NO_TORCH = "torch not here: make test TORCH=1"
NO_ONNX = "onnx not here: make test"

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason=NO_TORCH)
EVERY_ENGINE = ["compiled", "reference", pytest.param("torch", marks=needs_torch)]
