"""ONNX Runtime as a contestant, in prediction: a graph made of the network's layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pellucid.benchmark.peers.worker import Job, Way


def versions() -> dict[str, str]:
    """Return ONNX Runtime's version."""
    return {"ONNX Runtime": onnxruntime.__version__}


def _model(job: Job) -> bytes:
    """Return the network as an ONNX model of any batch size."""
    nodes, value = [], "x"
    for place, layer in enumerate(job.spec["layers"]):
        kind, inputs, options = layer["layer"], [value], {}
        if kind in ("Conv2d", "Linear"):
            inputs += [f"{place}.{name}" for name in ("weight", "bias") if f"{place}.{name}" in job.weights]
        if kind in ("Conv2d", "MaxPool2d"):
            options = {"kernel_shape": layer["kernel_size"], "strides": layer["stride"], "pads": layer["padding"] * 2}
        if kind == "Linear":
            options = {"transB": 1}
        if kind == "Dropout":
            continue
        operator = {"Conv2d": "Conv", "MaxPool2d": "MaxPool", "ReLU": "Relu", "Flatten": "Flatten", "Linear": "Gemm"}
        value = f"y{place}"
        nodes.append(helper.make_node(operator[kind], inputs, [value], **options))
    shape: list[Any] = ["N", *job.input_shape]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", None])],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in job.weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def start(job: Job) -> dict[str, Way]:
    """Return its only way, session.run with all optimizations; it cannot train.

    Args:
        job: The workload.
    """
    if job.optimizer is not None:
        raise ValueError("ONNX Runtime predicts only")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job.threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(_model(job), options, providers=["CPUExecutionProvider"])
    parts = [job.x[job.part(i)] for i in range(job.batches)]

    def run(first: int, count: int) -> float:
        outputs = np.empty(0)
        for number in range(first, first + count):
            (outputs,) = session.run(None, {"x": parts[number % job.batches]})
        return math.fsum(np.abs(outputs).ravel())

    return {"session.run": (run, lambda: None)}
