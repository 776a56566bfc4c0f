"""Operators of ONNX, one by one: those that are read, held to ONNX Runtime, and those that are refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from available import NO_ONNX
from interop.graphs import f4, i8, model, proto, save
from oracles import assert_near, randn
from pellucid import interop
from pellucid.errors import FileError, OptionError

onnx = pytest.importorskip("onnx", reason=NO_ONNX)

pytestmark = pytest.mark.capability("C14")

C, K = f4(0, 2, 1, 1), f4(1, 3, 2, 3, 3)
LINEAR = {"k": f4(2, 60, 4), "m": f4(3, 4)}
NORM = {"s": f4(4, 2), "b": f4(5, 2), "m": f4(6, 2), "v": np.abs(f4(7, 2)) + 0.5}
ACTIVATIONS = ["Relu", "Sigmoid", "Tanh", "Softplus", "Elu", "LeakyRelu"]
PAIRS = {"kernel_shape": [3, 2], "strides": [2, 1]}


def scalar(value):
    return np.asarray(value, dtype=np.float32)


def erf_gelu(divide):
    """Several spellings of x (1 + erf(x / sqrt 2)) / 2."""
    first = ("Div", "x r", {}) if divide else ("Mul", "x q", {})
    rest = [("Erf", "x1", {}), ("Add", "x2 one", {})]
    last = [("Mul", "x x3", {}), ("Mul", "x4 half", {})] if divide else [("Mul", "half x3", {}), ("Mul", "x4 x", {})]
    numbers = {"r": scalar(2**0.5), "q": scalar(0.5**0.5), "one": scalar(1), "half": scalar(0.5)}
    return model([first, *rest, *last], **{k: v for k, v in numbers.items() if k != ("q" if divide else "r")})


TAKEN = {
    **{op: lambda op=op: model([(op, "x", {})]) for op in ACTIVATIONS},
    "Elu alpha": lambda: model([("Elu", "x", {"alpha": 0.3})]),
    "Gelu": lambda: model([("Gelu", "x", {"approximate": "tanh"})], opset=20),
    "gelu by erf, divided": lambda: erf_gelu(True),
    "gelu by erf, multiplied": lambda: erf_gelu(False),
    "silu": lambda: model([("Sigmoid", "x", {}), ("Mul", "x1 x", {})]),
    "relu by clip": lambda: model([("Clip", "x z", {})], z=scalar(0)),
    "relu by clip, opset 10": lambda: model([("Clip", "x", {"min": 0.0})], opset=10),
    "relu by max": lambda: model([("Max", "z x", {})], z=scalar(0)),
    "leaky relu by max": lambda: model([("Mul", "x z", {}), ("Max", "x x1", {})], z=scalar(0.125)),
    "a line": lambda: model([("Mul", "x z", {}), ("Sub", "one x1", {}), ("Neg", "x2", {})], z=scalar(3), one=scalar(1)),
    "x + x": lambda: model([("Add", "x x", {})]),
    "x + gelu(x)": lambda: model([("Gelu", "x", {}), ("Add", "x x1", {})], opset=20),
    "sum of three": lambda: model([("Relu", "x", {}), ("Tanh", "x", {}), ("Sum", "x1 x x2", {})]),
    "scale each channel": lambda: model([("Mul", "x c", {}), ("Relu", "x1", {}), ("Div", "x2 c", {})], c=np.abs(C) + 1),
    "shift each channel": lambda: model(
        [("Sub", "x c", {}), ("Add", "d x1", {}), ("Sub", "d x2", {})], c=C, d=f4(9, 1, 2, 1, 1)
    ),
    "PRelu": lambda: model([("PRelu", "x c", {})], c=C),
    "PRelu of one slope": lambda: model([("PRelu", "x c", {})], c=f4(0, 1)),
    "BatchNormalization": lambda: model([("BatchNormalization", "x s b m v", {"epsilon": 0.01})], **NORM),
    "InstanceNormalization": lambda: model([("InstanceNormalization", "x s b", {})], s=NORM["s"], b=NORM["b"]),
    "GroupNormalization": lambda: model(
        [("GroupNormalization", "x s b", {"num_groups": 1})], opset=21, s=NORM["s"], b=NORM["b"]
    ),
    "LayerNormalization": lambda: model([("LayerNormalization", "x s b", {"axis": 2})], s=f4(0, 5, 6), b=f4(1, 5, 6)),
    "LayerNormalization without bias": lambda: model([("LayerNormalization", "x s", {})], s=f4(0, 6)),
    "Conv": lambda: model([("Conv", "x k", {"strides": [2, 1], "pads": [1, 0, 1, 0], "dilations": [1, 2]})], k=K),
    "Conv and bias": lambda: model([("Conv", "x k", {}), ("Add", "x1 b", {})], k=K, b=f4(3, 3, 1, 1)),
    "Conv SAME_UPPER": lambda: model(
        [("Conv", "x k", {"auto_pad": "SAME_UPPER", "strides": [2, 2]})], k=f4(1, 3, 2, 2, 3)
    ),
    "Conv SAME_LOWER": lambda: model(
        [("Conv", "x k", {"auto_pad": "SAME_LOWER", "strides": [2, 2]})], k=f4(1, 3, 2, 2, 3)
    ),
    "Conv VALID": lambda: model([("Conv", "x k", {"auto_pad": "VALID"})], k=K),
    "Conv, uneven pads": lambda: model([("Conv", "x k", {"pads": [0, 2, 1, 3]})], k=K),
    "Conv, groups": lambda: model([("Conv", "x k", {"group": 2})], k=f4(0, 4, 1, 2, 2)),
    "Conv by Pad": lambda: model([("Pad", "x p", {}), ("Conv", "x1 k", {})], p=i8(0, 0, 0, 1, 0, 0, 2, 0), k=K),
    "Conv1d SAME_UPPER": lambda: model([("Conv", "x k", {"auto_pad": "SAME_UPPER"})], shape=(2, 7), k=f4(0, 3, 2, 4)),
    "ConvTranspose": lambda: model(
        [("ConvTranspose", "x k b", {"strides": [2, 3], "pads": [1, 1, 1, 1], "output_padding": [1, 0], "group": 2})],
        k=f4(0, 2, 2, 3, 3),
        b=f4(1, 4),
    ),
    "ConvTranspose, more behind": lambda: model(
        [("ConvTranspose", "x k", {"strides": [2, 2], "pads": [0, 0, 1, 1]})], k=f4(0, 2, 3, 3, 3)
    ),
    "ConvTranspose, more before": lambda: model(
        [("ConvTranspose", "x k", {"strides": [2, 2], "pads": [1, 1, 0, 0]})], k=f4(0, 2, 3, 3, 3)
    ),
    "ConvTranspose SAME_UPPER": lambda: model(
        [("ConvTranspose", "x k", {"strides": [2, 2], "auto_pad": "SAME_UPPER"})], k=f4(0, 2, 3, 3, 3)
    ),
    "ConvTranspose output_shape": lambda: model(
        [("ConvTranspose", "x k", {"strides": [2, 2], "output_shape": [10, 12]})], k=f4(0, 2, 3, 3, 3)
    ),
    "MaxPool": lambda: model([("MaxPool", "x", {**PAIRS, "pads": [1, 0, 1, 0]})]),
    "MaxPool SAME_UPPER": lambda: model([("MaxPool", "x", {**PAIRS, "auto_pad": "SAME_UPPER"})]),
    "MaxPool ceil": lambda: model([("MaxPool", "x", {"kernel_shape": [2, 4], "strides": [2, 4], "ceil_mode": 1})]),
    "MaxPool dilated": lambda: model([("MaxPool", "x", {"kernel_shape": [2, 2], "dilations": [2, 3]})]),
    "MaxPool, uneven pads": lambda: model(
        [("MaxPool", "x", {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 0]})]
    ),
    "AveragePool": lambda: model([("AveragePool", "x", {**PAIRS, "pads": [1, 0, 1, 0], "count_include_pad": 1})]),
    "AveragePool that leaves padding out": lambda: model([("AveragePool", "x", {**PAIRS, "pads": [1, 0, 1, 0]})]),
    "AveragePool, uneven pads count": lambda: model(
        [("AveragePool", "x", {**PAIRS, "pads": [0, 0, 2, 1], "count_include_pad": 1})]
    ),
    "AveragePool ceil": lambda: model(
        [("AveragePool", "x", {"kernel_shape": [2, 4], "strides": [2, 4], "ceil_mode": 1})]
    ),
    "GlobalAveragePool": lambda: model([("GlobalAveragePool", "x", {})]),
    "GlobalMaxPool": lambda: model([("GlobalMaxPool", "x", {})], shape=(2, 5)),
    "ReduceMean": lambda: model([("ReduceMean", "x a", {"keepdims": 0})], a=i8(2, 3)),
    "ReduceMean, opset 13": lambda: model([("ReduceMean", "x", {"axes": [-1, -2]})], opset=13),
    "ReduceMax": lambda: model([("ReduceMax", "x a", {})], a=i8(3, 2)),
    "mean of channels last": lambda: model(
        [("Transpose", "x", {"perm": [0, 2, 3, 1]}), ("ReduceMean", "x1 a", {"keepdims": 0})], a=i8(1, 2)
    ),
    "Pad reflect": lambda: model([("Pad", "x p", {"mode": "reflect"})], p=i8(0, 0, 1, 2, 0, 0, 3, 0)),
    "Pad edge by axes": lambda: model([("Pad", "x p - a", {"mode": "edge"})], p=i8(1, 2, 3, 0), a=i8(2, -1)),
    "Pad takes away": lambda: model([("Pad", "x p v", {})], p=i8(0, 0, -1, 2, 0, 0, 0, -1), v=scalar(0)),
    "Pad, opset 9": lambda: model([("Pad", "x", {"pads": [0, 0, 1, 0, 0, 0, 0, 2]})], opset=9),
    "Flatten": lambda: model([("Flatten", "x", {}), ("Gemm", "x1 k m", {"alpha": 0.5, "beta": 2.0})], **LINEAR),
    "Flatten from behind": lambda: model([("Flatten", "x", {"axis": -3}), ("MatMul", "x1 k", {})], k=LINEAR["k"]),
    "Gemm transB": lambda: model([("Flatten", "x", {}), ("Gemm", "x1 k", {"transB": 1})], k=LINEAR["k"].T.copy()),
    "Gemm, one bias": lambda: model([("Flatten", "x", {}), ("Gemm", "x1 k m", {})], k=LINEAR["k"], m=f4(0, 1)),
    "MatMul and Add": lambda: model([("Flatten", "x", {}), ("MatMul", "x1 k", {}), ("Add", "m x2", {})], **LINEAR),
    "dense, then features scaled": lambda: model(
        [("Flatten", "x", {}), ("MatMul", "x1 k", {}), ("Mul", "x2 m", {}), ("Add", "x3 m", {})], **LINEAR
    ),
    "Reshape 0 -1": lambda: model([("Reshape", "x r", {}), ("MatMul", "x1 k", {})], r=i8(0, -1), k=LINEAR["k"]),
    "Reshape by Shape": lambda: model(
        [
            ("Shape", "x", {}),
            ("Gather", "x1 z", {"axis": 0}),
            ("Unsqueeze", "x2 z1", {}),
            ("Concat", "x3 r", {"axis": 0}),
            ("Reshape", "x x4", {}),
            ("MatMul", "x5 k", {}),
        ],
        z=np.asarray(0),
        z1=i8(0),
        r=i8(-1),
        k=LINEAR["k"],
    ),
    "flattened with channels last": lambda: model(
        [("Transpose", "x", {"perm": [0, 2, 3, 1]}), ("Flatten", "x1", {}), ("MatMul", "x2 k", {})], k=LINEAR["k"]
    ),
    "flattened otherwise": lambda: model(
        [
            ("Transpose", "x", {"perm": [0, 3, 1, 2]}),
            ("Reshape", "x1 r", {}),
            ("Add", "x2 c", {}),
            ("MatMul", "x3 k", {}),
        ],
        r=i8(0, 60),
        c=f4(8, 60),
        k=LINEAR["k"],
    ),
    "there and back": lambda: model(
        [
            ("Transpose", "x", {"perm": [0, 2, 3, 1]}),
            ("Mul", "x1 c", {}),
            ("Relu", "x2", {}),
            ("Transpose", "x3", {"perm": [0, 3, 1, 2]}),
            ("Conv", "x4 k", {}),
        ],
        c=f4(0, 2),
        k=K,
    ),
    "softmax of channels last": lambda: model(
        [("Transpose", "x", {"perm": [0, 2, 3, 1]}), ("Softmax", "x1", {}), ("Transpose", "x2", {"perm": [0, 3, 1, 2]})]
    ),
    "joined with channels last": lambda: model(
        [
            ("Transpose", "x", {"perm": [0, 2, 3, 1]}),
            ("Relu", "x1", {}),
            ("Concat", "x1 x2", {"axis": 3}),
            ("Transpose", "x3", {"perm": [0, 3, 1, 2]}),
            ("Relu", "x4", {}),
        ]
    ),
    "padded with channels last": lambda: model(
        [
            ("Transpose", "x", {"perm": [0, 2, 3, 1]}),
            ("Pad", "x1 p", {}),
            ("Transpose", "x2", {"perm": [0, 3, 1, 2]}),
            ("Conv", "x3 k", {}),
        ],
        p=i8(0, 1, 2, 0, 0, 0, 1, 0),
        k=K,
    ),
    "Squeeze": lambda: model([("GlobalAveragePool", "x", {}), ("Squeeze", "x1 a", {}), ("Relu", "x2", {})], a=i8(2, 3)),
    "Unsqueeze": lambda: model(
        [("Unsqueeze", "x a", {}), ("Conv", "x1 k", {})], shape=(5, 6), a=i8(1), k=f4(0, 3, 1, 2, 2)
    ),
    "upsampled by Tile": lambda: model(
        [("Unsqueeze", "x a", {}), ("Tile", "x1 t", {}), ("Reshape", "x2 r", {}), ("Conv", "x3 k", {})],
        a=i8(4),
        t=i8(1, 1, 1, 1, 3),
        r=i8(-1, 2, 5, 18),
        k=K,
    ),
    "Softmax": lambda: model([("Softmax", "x", {"axis": 1})]),
    "Softmax, opset 11": lambda: model([("Softmax", "x", {})], opset=11),
    "LogSoftmax, opset 11": lambda: model([("LogSoftmax", "x", {"axis": 2})], opset=11),
    "LogSoftmax": lambda: model([("LogSoftmax", "x", {})]),
    "Resize nearest": lambda: model(
        [("Resize", "x - s", {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"})],
        s=scalar([1, 1, 2, 3]),
    ),
    "Resize nearest, as it is": lambda: model([("Resize", "x - s", {})], s=scalar([1, 1, 2, 3])),
    "Resize linear": lambda: model([("Resize", "x - s", {"mode": "linear"})], s=scalar([1, 1, 1.5, 2])),
    "Resize linear, corners": lambda: model(
        [("Resize", "x - - s", {"mode": "linear", "coordinate_transformation_mode": "align_corners", "axes": [2, 3]})],
        s=i8(7, 11),
    ),
    "Resize cubic": lambda: model([("Resize", "x - s", {"mode": "cubic"})], s=scalar([1, 1, 2, 2])),
    "Resize linear, PyTorch": lambda: model(
        [("Resize", "x - s", {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"})],
        s=scalar([1, 1, 2, 2]),
    ),
    "Upsample": lambda: model([("Upsample", "x s", {})], opset=9, s=scalar([1, 1, 2, 2])),
    "Upsample, opset 7": lambda: model([("Upsample", "x", {"scales": [1.0, 1.0, 2.0, 2.0]})], opset=7),
    "Dropout": lambda: model([("Dropout", "x", {}), ("Identity", "x1", {}), ("Relu", "x2", {})]),
    "Dropout, opset 7": lambda: model([("Dropout", "x", {"ratio": 0.3})], opset=7),
    "Cast": lambda: model([("Cast", "x", {"to": 1}), ("Relu", "x1", {})], kind="uint8"),
    "a constant": lambda: model([("Constant", "", {"value": onnx.numpy_helper.from_array(C)}), ("Add", "x x1", {})]),
    "a fixed batch": lambda: model(
        [("Reshape", "x r", {}), ("MatMul", "x1 k", {})], batch=2, r=i8(2, 60), k=LINEAR["k"]
    ),
    "blocks in blocks": lambda: model(
        [
            ("Relu", "x", {}),
            ("Tanh", "x1", {}),
            ("Add", "x1 x2", {}),
            ("Sigmoid", "x3", {}),
            ("Add", "x x4", {}),
            ("Concat", "x5 x3", {"axis": 1}),
        ][:5]
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_an_operator_does_what_onnx_runtime_does(ort, name):
    content = TAKEN[name]()
    net = interop.import_onnx(content)
    kind = onnx.load_from_string(content).graph.input[0].type.tensor_type
    x = randn(5, 2, *net.input_shape, dtype="float32")
    x = np.abs(x * 50).astype(np.uint8) if kind.elem_type == 2 else x
    assert_near(net(x.astype(np.float32)), ort(content, x), 1e-5)


def opset_6(opset):
    """The same network in the words of opset 6, and in those of a later one."""
    old = opset < 7
    nodes = [("Conv", "x w b", {"kernel_shape": [3, 3]})]
    nodes += [("Add", "x1 c", {"broadcast": 1, "axis": 1} if old else {})]
    nodes += [("BatchNormalization", "x2 s s s v", {"is_test": 1} if old else {}), ("Relu", "x3", {})]
    nodes += [("Dropout", "x4", {"is_test": 1} if old else {}), ("Reshape", "x5 r", {})]
    nodes += [("Gemm", "x6 k m", {"broadcast": 1} if old else {}), ("Softmax", "x7", {})]
    arrays = {"w": f4(0, 3, 2, 3, 3), "b": f4(1, 3), "c": f4(2, 3) if old else f4(2, 3).reshape(3, 1, 1), "s": f4(3, 3)}
    return model(nodes, opset=opset, **arrays, v=np.abs(f4(4, 3)), r=i8(-1, 36), k=f4(5, 36, 4), m=f4(6, 4))


@pytest.mark.parametrize("opset", [6, 7, 8, 9, 10, 11, 12, 13, 15, 18, 21, 23])
def test_every_opset_from_6_on(ort, opset):
    x = randn(0, 3, 2, 5, 6, dtype="float32")
    assert_near(interop.import_onnx(opset_6(opset))(x), ort(opset_6(13), x), 1e-5)


# What is outside the scope

JOIN = [
    ("Relu", "x", {}),
    ("Tanh", "x1", {}),
    ("Sigmoid", "x1", {}),
    ("Add", "x2 x", {}),
    ("Concat", "x4 x3", {"axis": 1}),
]


def changed(nodes, change, **options):
    file = proto(nodes, **options)
    change(file)
    return save(file)


def external(file):
    file.graph.initializer[0].data_location = 1
    file.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


def huge(file):
    file.graph.initializer[0].dims[0] = 1 << 62


def negative(file):
    file.graph.initializer[0].dims[0] = -3


def half(file):
    file.graph.initializer[0].data_type = 10


def twice(file):
    file.graph.initializer.append(file.graph.initializer[0])


def body(file):
    file.graph.node[0].attribute.append(onnx.helper.make_attribute("then_branch", file.graph))


def domain(file):
    file.graph.node[0].domain = "com.example"


def functions(file):
    file.functions.add(name="f")


def sparse(file):
    file.graph.sparse_initializer.add()


def unsorted(file):
    file.graph.node.reverse()


def no_graph(file):
    file.ClearField("graph")


def no_opset(file):
    del file.opset_import[:]


def two_outputs(file):
    file.graph.output.append(file.graph.output[0])


def two_inputs(file):
    file.graph.input.add(name="y").CopyFrom(file.graph.input[0])
    file.graph.input[1].name = "y"


def unnamed_text(file):
    file.graph.node[0].attribute.append(onnx.helper.make_attribute("auto_pad", b"\xff\xfe"))


CONV = [("Conv", "x k", {})]
REFUSED = {
    "an operator": (
        lambda: model([("LSTM", "x", {})]),
        r"operator LSTM \(n1\): is not one that pellucid has a layer for",
    ),
    "If": (
        lambda: changed([("If", "x", {})], body),
        r"operator If \(n1\) has the attribute then_branch, of a kind \(a graph",
    ),
    "a domain": (lambda: changed(CONV, domain, k=K), r"operator Conv \(n1\) is of the domain 'com.example'"),
    "functions": (lambda: changed(CONV, functions, k=K), "it holds functions of its own"),
    "sparse": (lambda: changed(CONV, sparse, k=K), "it holds sparse initializers"),
    "external data": (lambda: changed(CONV, external, k=K), "initializer k has its data in another file"),
    "huge dims": (
        lambda: changed(CONV, huge, k=K),
        r"initializer k has the shape \[4611686018427387904, 2, 3, 3\], which cannot be",
    ),
    "negative dims": (
        lambda: changed(CONV, negative, k=K),
        r"initializer k has the shape \[-3, 2, 3, 3\], which cannot be",
    ),
    "float16": (lambda: changed(CONV, half, k=K), "initializer k has the type 10; constants must be float32"),
    "a name twice": (lambda: changed(CONV, twice, k=K), "the initializer 'k' stands twice"),
    "a missing constant": (lambda: model(CONV), r"operator Conv \(n1\) takes 'k', which nothing before it gives"),
    "a cycle": (
        lambda: changed([("Add", "x x2", {}), ("Relu", "x1", {})], lambda f: None),
        "takes 'x2', which nothing before it gives; a constant is missing, or the graph has a cycle",
    ),
    "unsorted": (
        lambda: changed([*CONV, ("Relu", "x1", {})], unsorted, k=K),
        r"operator Relu \(n2\) takes 'x1', which nothing",
    ),
    "no graph": (lambda: changed(CONV, no_graph, k=K), "it is not an ONNX file: there is no graph in it"),
    "nothing": (lambda: b"", "it is not an ONNX file"),
    "text": (lambda: b"<html>Not found</html>", "it is not an ONNX file, or it is damaged"),
    "half of it": (lambda: model(CONV, k=K)[:-40], "it is not an ONNX file, or it is damaged"),
    "no opset": (lambda: changed(CONV, no_opset, k=K), "it needs opset none; pellucid reads 6 to 28"),
    "opset 5": (lambda: model(CONV, opset=5, k=K), r"it needs opset \[5\]; pellucid reads 6 to 28"),
    "two outputs": (lambda: changed(CONV, two_outputs, k=K), "the graph has 1 inputs and 2 outputs"),
    "two inputs": (lambda: changed(CONV, two_inputs, k=K), "the graph has 2 inputs and 1 outputs"),
    "text that is none": (lambda: changed(CONV, unnamed_text, k=K), "it is damaged: a name in it is not text"),
    "float64": (lambda: model([("Relu", "x", {})], kind="float64"), "the input x is not a tensor of float32"),
    "weights of float64": (
        lambda: model(CONV, k=K.astype(np.float64)),
        "input 1 must be float32 with 4 axes, is float64",
    ),
    "NaN": (lambda: model(CONV, k=K * np.float32(np.nan)), "input 1 holds NaN or infinity"),
    "uint8": (lambda: model(CONV, kind="uint8", k=K), "takes uint8, but only a Cast to float32 can"),
    "no shape": (lambda: model(CONV, shape=None, k=K), "the input x has no shape"),
    "too large": (lambda: model([("Relu", "x", {})], shape=(2, 1 << 20, 1 << 20)), "is too large"),
    "a padding that is too large": (
        lambda: model([("Pad", "x p", {})], p=i8(0, 0, 0, 0, 0, 0, 1 << 40, 0)),
        "does not fit|too large",
    ),
    "maps that are too large": (
        lambda: model([("Pad", "x p", {})], p=i8(0, 0, 0, 0, 0, 0, 1 << 14, 1 << 14)),
        r"layer 0 \(ZeroPad2d\) is too large",
    ),
    "a constant that is too large": (
        lambda: model([("ConstantOfShape", "s", {}), ("Add", "x x1", {})], s=i8(1 << 20, 1 << 20)),
        "ConstantOfShape .* cannot be computed",
    ),
    "an attribute": (
        lambda: model([("Relu", "x", {"fancy": 3})]),
        r"operator Relu \(n1\): the attribute fancy = 3 is not one that pellucid reads",
    ),
    "an attribute of another type": (lambda: model([("Elu", "x", {"alpha": "a"})]), "the attribute alpha is 'a'"),
    "relu6": (
        lambda: model([("Clip", "x a b", {}), ("Tanh", "x1", {})], a=scalar(0), b=scalar(6)),
        r"operator Clip \(n1\) does not belong to anything that a layer of pellucid",
    ),
    "a bump that is nearly nothing": (
        lambda: model(
            [("Mul", "x x", {}), ("Neg", "x1", {}), ("Exp", "x2", {}), ("Mul", "x3 a", {}), ("Mul", "x4 b", {})],
            a=scalar(1e-8),
            b=scalar(1e8),
        ),
        r"operator Mul \(n5\) does not belong|operator Exp \(n3\) does not belong",
    ),
    "a clip far away": (
        lambda: model([("Clip", "x a b", {})], a=scalar(0), b=scalar(1e9)),
        r"operator Clip \(n1\) does not belong",
    ),
    "a product of maps": (
        lambda: model([("Conv", "x k", {"pads": [1, 1, 1, 1]}), ("Mul", "x x1", {})], k=f4(0, 2, 2, 3, 3)),
        r"operator Mul \(n2\) does not belong",
    ),
    "squeeze and excite": (
        lambda: model([("GlobalAveragePool", "x", {}), ("Sigmoid", "x1", {}), ("Mul", "x x2", {})]),
        "takes N x 2x5x6 and N x 2x1x1",
    ),
    "not series-parallel": (
        lambda: model(JOIN),
        r"operator Relu \(n1\) is used by two branches that began before it; pellucid reads series-parallel",
    ),
    "training": (
        lambda: model([("BatchNormalization", "x s b m v", {"training_mode": 1})], **NORM),
        "BatchNormalization .* in training",
    ),
    "training, opset 6": (
        lambda: model([("Dropout", "x", {})], opset=6),
        "Dropout .* drops numbers; export the network for inference",
    ),
    "negative variances": (
        lambda: model([("BatchNormalization", "x s b m v", {})], **{**NORM, "v": -NORM["v"]}),
        "holds negative variances",
    ),
    "the batch in a Reshape": (
        lambda: model([("Reshape", "x r", {})], r=i8(-1, 3)),
        "the batch must stay the first axis|cannot become",
    ),
    "the batch in a Flatten": (lambda: model([("Flatten", "x", {"axis": 0})]), "flattens the batch too"),
    "the batch in a Transpose": (
        lambda: model([("Transpose", "x", {"perm": [1, 0, 2, 3]})]),
        "the batch must stay the first of 4 axes",
    ),
    "the batch in a Softmax": (lambda: model([("Softmax", "x", {"axis": 0})]), "goes over the batch"),
    "the batch in a Gemm": (
        lambda: model([("Flatten", "x", {}), ("Gemm", "x1 k", {"transA": 1})], k=LINEAR["k"]),
        "transA mixes the images",
    ),
    "the batch in a LayerNormalization": (
        lambda: model([("LayerNormalization", "x s", {"axis": 0})], s=f4(0, 2, 5, 6)),
        "goes over the batch",
    ),
    "the batch in a Flatten, from behind": (
        lambda: model([("Flatten", "x", {"axis": -4})]),
        "flattens the batch too",
    ),
    "numbers beyond float32": (
        lambda: model([("Mul", "x c", {}), ("Mul", "x1 c", {})], c=scalar(1e30)),
        "weight is beyond the numbers of float32",
    ),
    "a transposed output": (
        lambda: model([("Transpose", "x", {"perm": [0, 1, 3, 2]})]),
        "in an order that no layer brings them to",
    ),
    "a cut": (
        lambda: model([("Slice", "x a b", {})], a=i8(0, 0, 1, 0), b=i8(9, 9, 9, 9)),
        "Slice .* cuts maps or features",
    ),
    "a shape of data": (
        lambda: model([("Flatten", "x", {}), ("Reshape", "x x1", {})]),
        "its shape must be a list of integers",
    ),
    "a mean over channels": (lambda: model([("ReduceMean", "x a", {})], a=i8(1)), "only global pooling is read"),
    "a wrong bias": (
        lambda: model([("Conv", "x k b", {})], k=K, b=f4(0, 4)),
        r"the bias has shape \(4,\), expected \(3,\)",
    ),
    "too few features": (
        lambda: model([("Flatten", "x", {}), ("MatMul", "x1 k", {})], k=f4(0, 7, 2)),
        r"gets 60 features, its weights have shape \(7, 2\)",
    ),
    "other channels": (
        lambda: model(CONV, k=f4(0, 3, 5, 3, 3)),
        r"operator Conv \(n1\): expects 5 channels, but gets 2",
    ),
    "a kernel that does not fit": (lambda: model(CONV, k=f4(0, 3, 2, 9, 3)), "does not fit into 5 cells"),
    "a constant for each cell": (
        lambda: model([("Add", "x c", {})], c=f4(0, 2, 5, 6)),
        "pellucid has one number for each channel",
    ),
    "a resize of the batch": (
        lambda: model([("Resize", "x - s", {})], s=scalar([2, 1, 1, 1])),
        "resizes the batch or the channels",
    ),
    "nearest otherwise": (
        lambda: model(
            [("Resize", "x - s", {"nearest_mode": "ceil", "coordinate_transformation_mode": "asymmetric"})],
            s=scalar([1, 1, 2, 2]),
        ),
        "takes other cells",
    ),
    "a constant output": (
        lambda: model([("Shape", "x", {}), ("Cast", "x1", {"to": 1})]),
        "does not depend on its input",
    ),
    "second outputs": (
        lambda: changed(
            [("MaxPool", "x", {"kernel_shape": [2, 2]}), ("Relu", "i", {})],
            lambda f: f.graph.node[0].output.append("i"),
        ),
        "MaxPool .* more than its first output is used",
    ),
    "a function that overflows": (
        lambda: model([("Exp", "x", {}), ("Add", "x1 z", {}), ("Log", "x2", {})], z=scalar(1)),
        r"operator Log \(n3\) does not belong",
    ),
    "a mean with uneven pads": (
        lambda: model([("AveragePool", "x", {**PAIRS, "auto_pad": "SAME_UPPER"})]),
        "no AvgPool of pellucid has",
    ),
    "one constant many times": (
        lambda: model([("Conv", f"x{i or ''} k", {}) for i in range(2000)], shape=(200, 1, 1), k=f4(0, 200, 200, 1, 1)),
        "makes far more of its constants than the file holds",
    ),
    "channels without end": (
        lambda: model([("Mul", "x c", {})], shape=(1 << 20,), c=scalar(2)),
        "scales or shifts N x 1048576",
    ),
    "three numbers": (lambda: model([("Add", "x x x", {})]), "has 3 inputs; pellucid reads 2 to 2"),
    "a pool with much padding": (
        lambda: model([("MaxPool", "x", {"kernel_shape": [2, 2], "pads": [1, 1, 2, 2]})]),
        "no MaxPool of pellucid has|does not take the graph",
    ),
}


@pytest.mark.parametrize("runtime", [True, False])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_outside_is_one_line_that_names_it(name, runtime, monkeypatch):
    build, match = REFUSED[name]
    if not runtime:
        monkeypatch.setattr("pellucid.interop.onnx.reading.find_spec", lambda name: None)
    with pytest.raises(FileError, match=match) as caught:
        interop.import_onnx(build())
    assert "\n" not in str(caught.value)


def test_an_input_shape_that_cannot_be():
    with pytest.raises(FileError, match=r"input_shape must have 3 sizes, got \(3,\)") as caught:
        interop.import_onnx(TAKEN["Conv"](), input_shape=(3,))
    assert isinstance(caught.value.__cause__, OptionError)
