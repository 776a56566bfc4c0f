"""A network as a list of operations on values, in the order of computation.

Containers are gone, residual blocks have become sums, and what runs as one kernel has become one operation: ReLU joins
the convolution (depthwise or not), dense layer, batch norm or sum before it, and max-pooling joins a convolution where
that pays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from pellucid import nn
from pellucid._types import Shape
from pellucid.errors import EngineError
from pellucid.nn import Layer, Network
from pellucid.nn.layer import join
from pellucid.shapes import Padding, resolve_padding

_KINDS: dict[type[Layer], str] = {
    nn.Conv2d: "conv",
    nn.Linear: "linear",
    nn.MaxPool2d: "max_pool",
    nn.AvgPool2d: "mean_pool",
    nn.AdaptiveAvgPool2d: "mean_pool",
    nn.BatchNorm2d: "norm",
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.Softmax: "softmax",
    nn.Dropout: "dropout",
    nn.Flatten: "flatten",
}


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
        kind: A value of _KINDS, or "depthwise", "conv_pool", "add", "reorder".
        path: Where its layer stands in the network.
        layer: None for a sum and for reordering.
        number: The layer's place among all, which dropout's random numbers depend on.
        inputs: What it reads.
        output: What it writes.
        relu: Whether negative outputs become 0.
        pool: Of a conv_pool, the pooling layer.
        convolved: Of a conv_pool, shape of the convolution's output.
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

    @property
    def title(self) -> str:
        """Kind and path, for messages and the debug view."""
        return f"{self.kind}{' relu' if self.relu else ''} {self.path}"

    @property
    def conv(self) -> nn.Conv2d:
        """The layer of a convolution."""
        if not isinstance(self.layer, nn.Conv2d):
            raise EngineError(f"{self.title} is no convolution")
        return self.layer

    @property
    def padding(self) -> Padding:
        """The zeros ((top, bottom), (left, right)) around a convolution's input."""
        _, h, w = self.inputs[0].maps
        conv = self.conv
        return resolve_padding(conv.padding, (h, w), conv.kernel_size, conv.stride, conv.dilation)

    @property
    def has_bias(self) -> bool:
        """Whether its layer adds a bias."""
        return isinstance(self.layer, (nn.Conv2d, nn.Linear)) and self.layer.has_bias

    @property
    def cost(self) -> int:
        """Multiplications with a weight for one image."""
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
    if isinstance(layer, nn.Residual):
        body = _walk(layer.body, join(path, "body"), value, graph, shapes)
        around = value
        if layer.shortcut is not None:
            around = _walk(layer.shortcut, join(path, "shortcut"), value, graph, shapes)
        out = Value(body.shape, body.maps)
        if body.maps != around.maps:  # both are flat, but were flattened from maps of different shapes
            body, around = (_in_order(v, path, graph) for v in (body, around))
            out = Value(body.shape, body.maps)
        graph.operations.append(Operation("add", path, None, -1, [body, around], out))
        return out
    if isinstance(layer, nn.Sequential):
        for name, child in layer.children():
            value = _walk(child, join(path, name), value, graph, shapes)
        return value
    kind = _KINDS.get(type(layer))
    if kind is None or _has_unknown_options(layer):
        what = type(layer).__name__ if kind is None else repr(layer)
        raise EngineError(
            f'the engine "compiled" has no kernel for layer {path} ({what}); the engine "reference" runs any layer'
        )
    number, shape = next(shapes)
    out = Value(shape, value.maps if len(shape) != 3 and kind != "linear" else _maps(shape))
    if isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels == layer.out_channels:
        kind = "depthwise"
    graph.operations.append(Operation(kind, path, layer, number, [value], out))
    return out


def _has_unknown_options(layer: Layer) -> bool:
    """Return whether a layer of a known kind does something that its kernels do not."""
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode != "zeros"
    if isinstance(layer, nn.MaxPool2d):
        return layer.dilation != (1, 1)
    return isinstance(layer, nn.AvgPool2d) and not layer.count_include_pad


def _in_order(value: Value, path: str, graph: Graph) -> Value:
    """Return the value as a vector whose numbers stand channels first."""
    out = Value(value.shape, (math.prod(value.maps), 1, 1))
    graph.operations.append(Operation("reorder", path, None, -1, [value], out))
    return out


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
        joins = op.kind in ("conv", "depthwise", "linear", "norm", "add")
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
