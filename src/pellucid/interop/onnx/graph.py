"""An ONNX file as plain data, of which nothing is believed unchecked; what is outside the scope is refused by name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid._types import Array
from pellucid.errors import FileError, one_line
from pellucid.interop.onnx import proof
from pellucid.shapes import LARGEST

LOWEST_OPSET, HIGHEST_OPSET = 6, 28
_MOST_NODES = 10_000
_HOME = ("", "ai.onnx")
_FLOAT, _STRING, _TENSOR = 1, 3, 4
_ATTRIBUTES = {_FLOAT: "f", 2: "i", _STRING: "s", _TENSOR: "t", 6: "floats", 7: "ints"}
_LISTS = {"f4": "float_data", "f8": "double_data", "i4": "int32_data", "i8": "int64_data", "b1": "int32_data"}
_KINDS = {1: "f4", 11: "f8", 6: "i4", 7: "i8", 9: "b1"}
"""Types of constants by their number in ONNX."""
FLOAT, UINT8 = 1, 2


@dataclass
class Node:
    """An operator of the graph.

    Attributes:
        op: The operator's name.
        name: The node's own name, or that of its first output.
        inputs: Names of values; "" for an optional one that is absent.
        outputs: Names of values.
        attributes: Numbers, lists of integers or floats, strings, arrays.
    """

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]

    def __str__(self) -> str:
        return f"operator {one_line(self.op, 60)} ({one_line(self.name, 100)})"


@dataclass
class Graph:
    """What an ONNX file holds.

    Attributes:
        opset: Version of the operators.
        nodes: In the order of computation.
        constants: Arrays by name.
        input: Name of the only input.
        shape: Its sizes, the batch first; None where one is open.
        uint8: Whether it takes uint8, not float32.
        output: Name of the only output.
        metadata: Texts by key.
    """

    opset: int
    nodes: list[Node]
    constants: dict[str, Array]
    input: str
    shape: list[int | None]
    uint8: bool
    output: str
    metadata: dict[str, str]


def parse(content: bytes) -> Graph:
    """Return an ONNX file as plain data.

    Args:
        content: The file.

    Raises:
        FileError: For what is no ONNX file, is damaged, or lies outside the scope.
    """
    onnx = proof.onnx_package()
    from google.protobuf.message import DecodeError

    try:
        file = onnx.ModelProto.FromString(content)
        if not file.HasField("graph"):
            raise FileError("it is not an ONNX file: there is no graph in it")
        return _graph(file)
    except DecodeError:
        raise FileError("it is not an ONNX file, or it is damaged") from None
    except UnicodeDecodeError:
        raise FileError("it is damaged: a name in it is not text") from None


def _graph(file: Any) -> Graph:
    graph = file.graph
    for what, found in (
        ("functions of its own", file.functions),
        ("a graph for training", file.training_info),
        ("sparse initializers", graph.sparse_initializer),
    ):
        if found:
            raise FileError(f"it holds {what}, which pellucid does not read; export the network for inference, inlined")
    if len(graph.node) > _MOST_NODES:
        raise FileError(f"it has {len(graph.node)} operators, more than {_MOST_NODES}")
    versions = [entry.version for entry in file.opset_import if entry.domain in _HOME]
    if len(versions) != 1 or not LOWEST_OPSET <= versions[0] <= HIGHEST_OPSET:
        raise FileError(f"it needs opset {versions or 'none'}; pellucid reads {LOWEST_OPSET} to {HIGHEST_OPSET}")
    constants: dict[str, Array] = {}
    for tensor in graph.initializer:
        if not tensor.name or tensor.name in constants:
            raise FileError(f"the initializer {one_line(tensor.name, 100)!r} stands twice, or has no name")
        constants[tensor.name] = array(tensor, f"initializer {one_line(tensor.name, 100)}")
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise FileError(
            f"the graph has {len(inputs)} inputs and {len(graph.output)} outputs; pellucid reads one of each"
        )
    shape, kind = _input_type(inputs[0])
    nodes = [read_node(node) for node in graph.node]
    _check_names({inputs[0].name, *constants}, nodes)
    return Graph(
        versions[0],
        nodes,
        constants,
        inputs[0].name,
        shape,
        kind == UINT8,
        graph.output[0].name,
        {entry.key: entry.value for entry in file.metadata_props},
    )


def _check_names(known: set[str], nodes: list[Node]) -> None:
    """Refuse a value that is made twice, or used before it is made."""
    for node in nodes:
        for name in node.inputs:
            if name and name not in known:
                raise FileError(
                    f"{node} takes {one_line(name, 100)!r}, which nothing before it gives; a constant is missing, or "
                    "the graph has a cycle"
                )
        for name in filter(None, node.outputs):
            if name in known:
                raise FileError(f"{node} gives {one_line(name, 100)!r}, which is there already")
            known.add(name)


def _input_type(value: Any) -> tuple[list[int | None], int]:
    name, kind = one_line(value.name, 100), value.type.tensor_type
    if not value.type.HasField("tensor_type") or kind.elem_type not in (FLOAT, UINT8):
        raise FileError(f"the input {name} is not a tensor of float32 (type {kind.elem_type}); export it in float32")
    if not kind.HasField("shape"):
        raise FileError(f"the input {name} has no shape; export it with one")
    # Some exporters write -1 or 0 for a size that is open.
    return [axis.dim_value if axis.dim_value > 0 else None for axis in kind.shape.dim], kind.elem_type


def read_node(node: Any) -> Node:
    """Return an operator of the graph.

    Args:
        node: ONNX's NodeProto.

    Raises:
        FileError: For one outside the scope.
    """
    name = node.name or (node.output[0] if node.output else "")
    made = Node(node.op_type, name, list(node.input), list(node.output), {})
    if node.domain not in _HOME:
        raise FileError(f"{made} is of the domain {one_line(node.domain, 60)!r}; pellucid reads ONNX's own operators")
    if not node.output or not node.output[0]:
        raise FileError(f"{made} gives nothing")
    for attribute in node.attribute:
        key = one_line(attribute.name, 60)
        if attribute.type not in _ATTRIBUTES or attribute.ref_attr_name:
            raise FileError(f"{made} has the attribute {key}, of a kind (a graph, a list of texts) that is not read")
        if attribute.name in made.attributes:
            raise FileError(f"{made} has the attribute {key} twice")
        value = getattr(attribute, _ATTRIBUTES[attribute.type])
        if attribute.type == _STRING:
            value = value.decode()
        elif attribute.type == _TENSOR:
            value = array(value, f"{made}")
        elif attribute.type == _FLOAT:
            value = float(str(np.float32(value)))  # 0.01, not the float32 next to it
        made.attributes[attribute.name] = list(value) if attribute.type in (6, 7) else value
    return made


def array(tensor: Any, where: str) -> Array:
    """Return a constant; its memory is that of the file.

    Args:
        tensor: ONNX's TensorProto.
        where: It stands, for errors.

    Raises:
        FileError: For other types, data outside the file, or data that do not fit the shape.
    """
    if tensor.data_location or tensor.external_data:
        raise FileError(f"{where} has its data in another file; save the network as one file")
    if tensor.data_type not in _KINDS:
        raise FileError(f"{where} has the type {tensor.data_type}; constants must be float32, float64 or integers")
    kind, dims = _KINDS[tensor.data_type], list(tensor.dims)
    if min(dims, default=1) < 0 or math.prod(dims) > LARGEST or tensor.HasField("segment"):
        raise FileError(f"{where} has the shape {one_line(dims, 60)}, which cannot be")
    if tensor.HasField("raw_data"):
        raw = tensor.raw_data
        if len(raw) != math.prod(dims) * np.dtype(kind).itemsize:
            raise FileError(f"{where} has {len(raw)} bytes, too few or too many for its shape {one_line(dims, 60)}")
        flat = np.frombuffer(raw, dtype=np.dtype(kind).newbyteorder("<"))
    else:
        listed = getattr(tensor, _LISTS[kind])
        if len(listed) != math.prod(dims):
            raise FileError(f"{where} has {len(listed)} numbers, its shape is {one_line(dims, 60)}")
        flat = np.asarray(listed, dtype=kind)
    return flat.reshape(dims)
