"""ONNX graphs made by hand, operator by operator."""

from __future__ import annotations

import numpy as np

from oracles import randn


def model(nodes, shape=(2, 5, 6), opset=19, batch="N", kind="float32", **constants):
    """The bytes of an ONNX file: nodes as (op, inputs, attributes), each giving what the next calls "x1", "x2", ...

    Inputs are a text with names and spaces; "x" is the graph's input, the last value its output. A third text in a node
    is its domain.
    """
    return save(proto(nodes, shape, opset, batch, kind, **constants))


def proto(nodes, shape=(2, 5, 6), opset=19, batch="N", kind="float32", **constants):
    from onnx import TensorProto, helper, numpy_helper

    made = []
    for number, (op, inputs, attributes) in enumerate(nodes, 1):
        names = ["" if name == "-" else name for name in inputs.split()]
        made.append(helper.make_node(op, names, [f"x{number}"], name=f"n{number}", **attributes))
    type_ = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = helper.make_graph(
        made,
        "hand",
        [helper.make_tensor_value_info("x", type_, None if shape is None else (batch, *shape))],
        [helper.make_tensor_value_info(f"x{len(nodes)}", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    ir = 3 if opset < 9 else 9
    if ir == 3:  # initializers are inputs too
        for name, array in constants.items():
            kind = helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)
            graph.input.append(helper.make_tensor_value_info(name, kind, np.shape(array)))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def save(made) -> bytes:
    return made.SerializeToString()


def f4(seed, *shape):
    return randn(seed, *shape, dtype="float32")


def i8(*numbers):
    return np.asarray(numbers, dtype=np.int64)
