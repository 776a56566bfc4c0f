"""The proof of equal numbers: ONNX Runtime's outputs against ours, for random inputs."""

from __future__ import annotations

from types import ModuleType
from typing import Any, cast

import numpy as np

from pellucid._types import Array
from pellucid.errors import FileError, MissingDependencyError

TOLERANCE = 1e-5
"""The largest difference, relative to the largest output, that passes."""


def onnx_package() -> ModuleType:
    """Return the onnx package.

    Raises:
        MissingDependencyError: Where it is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise MissingDependencyError("ONNX files need the package onnx: pip install 'pellucid[onnx]'") from None
    return onnx


def runtime() -> ModuleType:
    """Return the onnxruntime package.

    Raises:
        MissingDependencyError: Where it is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError(
            "the proof of equal numbers needs the package onnxruntime: pip install 'pellucid[onnx]'"
        ) from None
    onnxruntime.set_default_logger_severity(4)
    return cast(ModuleType, onnxruntime)


def session(content: bytes) -> Any:
    """Return ONNX Runtime with a graph, on one thread of the CPU; None for operators that it does not have.

    Args:
        content: The ONNX file.

    Raises:
        FileError: Where ONNX Runtime does not take it.
    """
    package = runtime()
    options = package.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return package.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base of their own
        if "NOT_IMPLEMENTED" in str(error):
            return None
        raise FileError(f"ONNX Runtime does not take the graph: {_first_line(error)}") from None


def run(ready: Any, x: Array) -> Array:
    """Return what ONNX Runtime gives for a batch.

    Args:
        ready: What session gave.
        x: In the type and shape of the graph's only input.

    Raises:
        FileError: Where ONNX Runtime fails.
    """
    try:
        return np.asarray(ready.run(None, {ready.get_inputs()[0].name: x})[0])
    except Exception as error:
        raise FileError(f"ONNX Runtime fails to run the graph: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def difference(theirs: Array, ours: Array) -> float:
    """Return the largest difference, relative to our largest output.

    Args:
        theirs: ONNX Runtime's outputs.
        ours: Of the same batch.

    Raises:
        FileError: Where shapes differ, or one is not finite where the other is.

    >>> difference(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    0.5
    """
    if theirs.shape != ours.shape:
        raise FileError(f"ONNX Runtime gives outputs of shape {theirs.shape}, pellucid {ours.shape}")
    if not (np.isfinite(theirs).all() and np.isfinite(ours).all()):
        raise FileError("outputs for random inputs are not finite, so nothing is proven; are the weights usable?")
    largest = float(np.abs(ours).max(initial=0.0))
    off = float(np.abs(theirs.astype(np.float64) - ours).max(initial=0.0))
    return off / largest if largest else off
