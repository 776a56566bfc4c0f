"""A network as a list of operations on values, in the order of computation.

Containers are gone, residual blocks have become sums, and what runs as one kernel has become one operation: ReLU joins
the convolution (depthwise, transposed or neither), dense layer, batch norm or sum before it, and max-pooling joins a
convolution where that pays. Padding other than with zeros has become an operation of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from pellucid import nn
from pellucid._types import Shape
from pellucid.compiled.sums import SumsOfMap, of_padding, of_upsampling
from pellucid.errors import EngineError
from pellucid.nn import Layer, Network
from pellucid.nn.layer import join
from pellucid.shapes import Padding, resolve_padding

_KINDS: dict[type[Layer], str] = {
    nn.Conv2d: "conv",
    nn.ConvTranspose2d: "conv_transpose",
    nn.Linear: "linear",
    nn.MaxPool2d: "max_pool",
    nn.AdaptiveMaxPool2d: "select_pool",
    nn.AvgPool2d: "mean_pool",
    nn.AdaptiveAvgPool2d: "mean_pool",
    nn.BatchNorm1d: "norm",
    nn.BatchNorm2d: "norm",
    nn.GroupNorm: "group_norm",
    nn.LayerNorm: "layer_norm",
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.PReLU: "prelu",
    nn.ELU: "elu",
    nn.SiLU: "silu",
    nn.GELU: "gelu",
    nn.Softplus: "softplus",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.Softmax: "softmax",
    nn.LogSoftmax: "log_softmax",
    nn.Dropout: "dropout",
    nn.Dropout2d: "dropout",
    nn.ZeroPad2d: "pad",
    nn.ReflectionPad2d: "pad",
    nn.ReplicationPad2d: "pad",
    nn.Upsample: "upsample",
    nn.Flatten: "flatten",
    nn.Unflatten: "unflatten",
    nn.Identity: "identity",
}

Convolution: TypeAlias = nn.Conv2d | nn.ConvTranspose2d


@dataclass(eq=False)
class Value:
    """What flows between operations.

    Attributes:
        shape: Of one image, as the layers see it.
        maps: (C, H, W) as it is stored, channels last; of what is no map, (numbers, 1, 1).
        needs_gradient: Whether it depends on a parameter.
    """

    shape: Shape
    maps: tuple[int, int, int]
    needs_gradient: bool = False


@dataclass(eq=False)
class Operation:
    """One step of the computation.

    Attributes:
        kind: A value of _KINDS, or "depthwise", "conv_pool", "gelu_tanh", "select_pool" (dilated, adaptive, unpooled
            later), "unpool", "add", "concat", "reorder" (a map to a vector, channels first), "arrange" (back).
        path: Where its layer stands in the network.
        layer: None where no layer stands there: for a sum, for reordering.
        number: The layer's place among all, which dropout's random numbers depend on.
        inputs: What it reads.
        output: What it writes.
        relu: Whether negative outputs become 0.
        pool: Of a conv_pool, the pooling layer.
        convolved: Of a conv_pool, shape of the convolution's output.
        sums: Of padding and resampling, what it is.
        source: Of unpooling, the pooling whose places it takes.
    """

    kind: str
    path: str
    layer: Layer | None
    number: int
    inputs: list[Value]
    output: Value
    relu: bool = False
    pool: nn.MaxPool2d | None = None
    convolved: Shape = ()
    sums: SumsOfMap | None = None
    source: Operation | None = None

    @property
    def title(self) -> str:
        """Kind and path, for messages and the debug view."""
        return f"{self.kind}{' relu' if self.relu else ''} {self.path}"

    @property
    def conv(self) -> Convolution:
        """The layer of a convolution."""
        if not isinstance(self.layer, (nn.Conv2d, nn.ConvTranspose2d)):
            raise EngineError(f"{self.title} is no convolution")
        return self.layer

    @property
    def padding(self) -> Padding:
        """The zeros ((top, bottom), (left, right)) around what a convolution's windows slide over."""
        conv, (_, *size) = self.conv, self.windowed
        if isinstance(conv, nn.Conv2d) and conv.padding_mode != "zeros":
            return (0, 0), (0, 0)
        return resolve_padding(conv.padding, tuple(size), conv.kernel_size, conv.stride, conv.dilation)

    @property
    def windowed(self) -> tuple[int, int, int]:
        """The maps that a convolution's windows slide over: its input, or of a transposed one its output."""
        return (self.output if self.kind == "conv_transpose" else self.inputs[0]).maps

    @property
    def positions(self) -> Shape:
        """The maps with a number for each window and filter: its output, or of a transposed one its input."""
        return self.inputs[0].maps if self.kind == "conv_transpose" else self.convolved or self.output.maps

    @property
    def has_bias(self) -> bool:
        """Whether its layer adds a bias."""
        return isinstance(self.layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) and self.layer.has_bias

    @property
    def cost(self) -> int:
        """Multiplications with a weight for one image."""
        if isinstance(self.layer, (nn.Conv2d, nn.ConvTranspose2d)):
            window = math.prod(self.layer.kernel_size) * self.windowed[0] // self.layer.groups
            return window * math.prod(self.positions)
        return 0 if self.layer is None else self.layer.multiply_adds(self.inputs[0].shape)


@dataclass
class Graph:
    """All operations of a network.

    Attributes:
        input: What goes in.
        output: What comes out.
        operations: In the order of computation.
    """

    input: Value
    output: Value
    operations: list[Operation] = field(default_factory=list)

    def consumers(self, value: Value) -> list[Operation]:
        """Return the operations that read a value; one that reads it twice stands twice."""
        return [op for op in self.operations for v in op.inputs if v is value]


def translate(network: Network) -> Graph:
    """Return the graph of a built network.

    Args:
        network: Built.

    Raises:
        EngineError: For a layer that no kernel exists for.
    """
    start = Value(network.input_shape, _maps(network.input_shape))
    graph = Graph(start, start)
    shapes = enumerate(after for _, _, _, after in network.trace(network.input_shape))
    graph.output = _walk(network, "", start, graph, shapes)
    if len(graph.output.shape) == 1 and math.prod(graph.output.maps[1:]) > 1:
        graph.output = _in_order(graph.output, "output", graph)
    _straighten_shared(graph)
    for op in graph.operations:
        trained = op.layer is not None and bool(op.layer.named_parameters())
        op.output.needs_gradient = trained or any(v.needs_gradient for v in op.inputs)
    _join_relu(graph)
    _join_pool(graph)
    return graph


def _maps(shape: Shape) -> tuple[int, int, int]:
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (math.prod(shape), 1, 1)


def _walk(layer: Layer, path: str, value: Value, graph: Graph, shapes: Iterator[tuple[int, Shape]]) -> Value:
    """Append the operations of a layer and all below it, and return what comes out."""
    if isinstance(layer, nn.Residual):
        body = _walk(layer.body, join(path, "body"), value, graph, shapes)
        around = value
        if layer.shortcut is not None:
            around = _walk(layer.shortcut, join(path, "shortcut"), value, graph, shapes)
        body, around = _alike([body, around], path, graph)
        out = Value(body.shape, body.maps)
        graph.operations.append(Operation("add", path, None, -1, [body, around], out))
        return out
    if isinstance(layer, nn.Concat):
        branches = [_walk(child, join(path, name), value, graph, shapes) for name, child in layer.children()]
        branches = _alike(branches, path, graph)
        shape = (sum(branch.shape[0] for branch in branches), *branches[0].shape[1:])
        out = Value(shape, (sum(branch.maps[0] for branch in branches), *branches[0].maps[1:]))
        graph.operations.append(Operation("concat", path, None, -1, branches, out))
        return out
    if isinstance(layer, nn.MaxUnpool2d):
        pooled = _walk(layer.pool, join(path, "pool"), value, graph, shapes)
        pool = graph.operations[-1]
        pool.kind = "select_pool"  # whose places are numbers of cells
        moved = _walk(layer.body, join(path, "body"), pooled, graph, shapes)
        out = Value(value.shape, value.maps)
        graph.operations.append(Operation("unpool", path, None, -1, [moved], out, source=pool))
        return out
    if isinstance(layer, nn.Sequential):
        for name, child in layer.children():
            value = _walk(child, join(path, name), value, graph, shapes)
        return value
    return _leaf(layer, path, value, graph, *next(shapes))


def _leaf(layer: Layer, path: str, value: Value, graph: Graph, number: int, shape: Shape) -> Value:
    kind = _kind(layer, path, value.shape)
    if kind == "identity":
        return value
    if kind == "unflatten":
        return _arranged(value, shape, path, graph)
    by_channel = kind in ("norm", "group_norm") or (isinstance(layer, nn.PReLU) and layer.num_parameters > 1)
    if kind == "layer_norm" or (by_channel and len(shape) == 1):
        value = _in_order(value, path, graph)
    elif by_channel and len(shape) != 3:  # the axes behind the channels become one
        value = _arranged(value, (shape[0], 1, math.prod(shape[1:])), path, graph)
    if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
        value = _padded(layer, path, value, graph)
    own = kind == "linear" or (len(shape) == 3 and kind != "layer_norm")
    op = Operation(kind, path, layer, number, [value], Value(shape, _maps(shape) if own else value.maps))
    graph.operations.append(op)
    if isinstance(layer, (nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)):
        left, right, top, bottom = layer.padding
        op.sums = of_padding(value.shape[1:], ((top, bottom), (left, right)), layer.mode)
    elif isinstance(layer, nn.Upsample):
        op.sums = of_upsampling(layer, value.shape[1:])
    if kind == "layer_norm" and len(shape) == 3:
        return _arranged(op.output, shape, path, graph)
    if by_channel and len(shape) not in (1, 3):
        return _in_order(op.output, path, graph)
    return op.output


def _kind(layer: Layer, path: str, shape: Shape) -> str:
    """Return the kind of operation that a layer is for an input of such a shape."""
    kind = _KINDS.get(type(layer))
    if kind is None or (kind == "upsample" and len(shape) != 3):
        what = type(layer).__name__ if kind is None else repr(layer)
        raise EngineError(
            f'the engine "compiled" has no kernel for layer {path} ({what}); the engine "reference" runs any layer'
        )
    if isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels == layer.out_channels:
        return "depthwise"
    if isinstance(layer, nn.MaxPool2d) and layer.dilation != (1, 1):
        return "select_pool"
    if isinstance(layer, nn.GELU) and layer.approximate == "tanh":
        return "gelu_tanh"
    return kind


def _padded(layer: nn.Conv2d, path: str, value: Value, graph: Graph) -> Value:
    """Return the value with the padding that a convolution wants, other than zeros."""
    size = value.shape[1:]
    sides = resolve_padding(layer.padding, size, layer.kernel_size, layer.stride, layer.dilation)
    shape = (value.shape[0], *(n + sum(both) for n, both in zip(size, sides, strict=True)))
    out = Value(shape, _maps(shape))
    sums = of_padding(size, sides, layer.padding_mode)
    graph.operations.append(Operation("pad", path, None, -1, [value], out, sums=sums))
    return out


def _in_order(value: Value, path: str, graph: Graph) -> Value:
    """Return the value as a vector whose numbers stand channels first."""
    if math.prod(value.maps[1:]) == 1:
        return value
    out = Value(value.shape, (math.prod(value.maps), 1, 1))
    graph.operations.append(Operation("reorder", path, None, -1, [value], out))
    return out


def _arranged(value: Value, shape: Shape, path: str, graph: Graph) -> Value:
    """Return the value with another shape, of as many numbers in the same order."""
    out = Value(shape, _maps(shape))
    if value.maps != out.maps:
        value = _in_order(value, path, graph)
    kind = "flatten" if value.maps == out.maps else "arrange"
    graph.operations.append(Operation(kind, path, None, -1, [value], out))
    return out


def _alike(values: list[Value], path: str, graph: Graph) -> list[Value]:
    """Return values stored alike; flat ones that were flattened from maps of different sizes become vectors."""
    if len({value.maps[1:] for value in values}) > 1:
        return [_in_order(value, path, graph) for value in values]
    return values


def _straighten_shared(graph: Graph) -> None:
    """Let a dense layer that stands at several places read vectors, where it would read maps of different shapes.

    Its weights lie in the order of what it reads, and have but one.
    """
    for op in [op for op in graph.operations if op.kind == "linear"]:
        read = {other.inputs[0].maps for other in graph.operations if other.layer is op.layer}
        if len(read) > 1 and math.prod(op.inputs[0].maps[1:]) > 1:
            place = graph.operations.index(op)
            op.inputs[0] = _in_order(op.inputs[0], op.path, graph)
            graph.operations.insert(place, graph.operations.pop())


def _join_relu(graph: Graph) -> None:
    for op in list(graph.operations):
        after = graph.consumers(op.output)
        joins = op.kind in ("conv", "depthwise", "conv_transpose", "linear", "norm", "add")
        if joins and len(after) == 1 and after[0].kind == "relu":
            op.relu, op.output = True, after[0].output
            graph.operations.remove(after[0])


def _join_pool(graph: Graph) -> None:
    """Join convolution and max-pooling (with ReLU between or behind) where windows overlap little."""
    occurrences = [id(op.layer) for op in graph.operations]
    for op in list(graph.operations):
        after = graph.consumers(op.output)
        if op.kind != "conv" or len(after) != 1 or after[0].kind != "max_pool":
            continue
        conv, pooling = op.layer, after[0].layer
        if not isinstance(conv, nn.Conv2d) or not isinstance(pooling, nn.MaxPool2d):
            continue
        cells = math.prod(pooling.kernel_size)
        sparse = 2 * math.prod(after[0].output.maps) <= math.prod(op.output.maps)
        simple = conv.groups == 1 and conv.dilation[1] == 1 and occurrences.count(id(conv)) == 1
        if not (sparse and simple and 1 < cells < 255):
            continue
        op.kind, op.pool, op.convolved, op.output = "conv_pool", pooling, op.output.maps, after[0].output
        graph.operations.remove(after[0])
        behind = graph.consumers(op.output)
        if not op.relu and len(behind) == 1 and behind[0].kind == "relu":
            op.relu, op.output = True, behind[0].output
            graph.operations.remove(behind[0])
