"""Networks read from ONNX graphs."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pellucid import canonical, nn
from pellucid._types import Array, Shape
from pellucid.errors import FileError, MissingDependencyError, OptionError, PellucidError, one_line
from pellucid.files import read_bytes
from pellucid.interop import sealed
from pellucid.interop.model_file import Content, check_maps
from pellucid.interop.onnx import export, proof
from pellucid.interop.onnx.call import Call
from pellucid.interop.onnx.fold import Known
from pellucid.interop.onnx.graph import Graph, Node, array, parse, read_node
from pellucid.interop.onnx.operators import read
from pellucid.interop.onnx.places import Place, View, network
from pellucid.nn.layer import blank
from pellucid.shapes import text

_LARGEST_INPUT = _SPARE = 1 << 26
LARGEST_PROOF = 1 << 25
"""Numbers that the images of the proof may become on their way through the network."""

if TYPE_CHECKING:
    from pellucid.interop.schema import OnnxDocument


def import_onnx(source: str | Path | bytes, *, input_shape: Shape | None = None) -> nn.Sequential:
    """Return the network of an ONNX file.

    It reads convolutional networks of opset 6 and later, as PyTorch and Keras export them: one input, one output,
    branches that begin at one place and meet at another. The network gives what the graph gives, but maps have their
    channels first where Keras has them last, in the input and in the output. Dropout is gone; a scale or shift that
    does not fit into the layer before is a batch norm. Where onnxruntime is installed the network is held to it, and
    refused if outputs differ by more than 1e-5 of the largest; but not where it lacks an operator of opset 6, or where
    that would take gigabytes.

    pellucid.load makes a model, with input spec and class names, of a file that export_onnx wrote of a model.

    Args:
        source: Path, or the file's content.
        input_shape: Shape of one input as the graph has it, where the file leaves it open, as (3, 32, 32).

    Raises:
        FileError: For an operator, graph or type outside the scope, named; for data in other files; for what is no ONNX
            file; where outputs differ.
        MissingDependencyError: Without the package onnx.
    """
    name = "the ONNX file" if isinstance(source, bytes) else str(source)
    content = source if isinstance(source, bytes) else read_bytes(source)
    try:
        return _network(content, parse(content), input_shape)
    except PellucidError as error:
        if isinstance(error, MissingDependencyError):
            raise
        raise FileError(f"{name}: {one_line(error)}") from error


def _network(content: bytes, graph: Graph, input_shape: Shape | None) -> nn.Sequential:
    """Return the network, held to ONNX Runtime where that is installed."""
    made, taken, given = _found(graph, _image(graph, input_shape))
    if find_spec("onnxruntime"):
        _prove(content, graph, made, taken, given)
    return made


def _found(graph: Graph, shape: Shape) -> tuple[nn.Sequential, View, View]:
    """Return the network, and how the graph orders its input and output.

    The channels come first if that needs no reshaping of the input; else they may be last.
    """
    found: list[tuple[nn.Sequential, View, View]] = []
    failures: list[tuple[int, FileError]] = []
    for channels_last in (False, True)[: len(shape)]:
        reader = _Reader(graph, shape, channels_last)
        try:
            with blank():
                made, given = reader.network()
        except FileError as error:
            failures.append((reader.reached, error))
            continue
        found.append((made, reader.input, given))
        if not any(isinstance(layer, nn.Unflatten) for layer in list(made)[:2]):
            break
    if not found:
        raise max(failures, key=lambda failure: failure[0])[1]
    return found[-1]


def read_model(path: Path) -> Content:
    """Return what an ONNX file holds that export_onnx wrote of a model.

    Args:
        path: The file.

    Raises:
        FileError: As import_onnx; and for a file without the facts of a model, or with others than its graph has.
        MissingDependencyError: Without the package onnx.
    """
    from pellucid.interop.schema import OnnxDocument

    content = read_bytes(path)
    try:
        graph = parse(content)
        if "pellucid" not in graph.metadata:
            raise FileError("it was not exported of a model; interop.import_onnx reads its network")
        try:
            facts = canonical.loads(graph.metadata["pellucid"])
        except ValueError as error:
            raise FileError(f"its metadata are damaged: {error}") from None
        document = sealed.validate(facts, OnnxDocument, "metadata")
        network = _network(content, graph, None)
        if document.preprocessing:
            network = _found(_without_preprocessing(graph, document), document.input.shape)[0]
        if network.input_shape != document.input.shape:
            raise FileError(f"its input is {text(network.input_shape)}, its metadata say {text(document.input.shape)}")
    except PellucidError as error:
        if isinstance(error, MissingDependencyError):
            raise
        raise FileError(f"{path}: {one_line(error)}") from error
    metrics = {name: value for name, value in document.metrics.items() if value is not None}
    novelty = None if document.novelty is None else document.novelty.model_dump()
    return Content(network, document.input.model_dump(), document.classes, metrics, document.data_digest, novelty)


def _without_preprocessing(graph: Graph, document: OnnxDocument) -> Graph:
    """Return the graph of the network alone; what stands around it must be what the metadata say."""
    wanted = export.Graph(None, graph.opset)
    start = export.preprocess(wanted, document.input)
    first = [read_node(node) for node in wanted.nodes]
    same = graph.nodes[: len(first)] == first and all(
        name in graph.constants and np.array_equal(graph.constants[name], array(tensor, name))
        for name, tensor in wanted.initializers.items()
    )
    nodes, output = graph.nodes[len(first) :], graph.output
    if document.classes and nodes:
        last = nodes.pop()
        output = last.inputs[0]
        same = same and (last.op, last.outputs, last.attributes) == ("Softmax", [graph.output], {"axis": 1})
    if not same or not nodes or [*graph.shape[1:]] != [*document.input.shape]:
        raise FileError("its preprocessing is not what its metadata say")
    return replace(graph, nodes=nodes, input=start, output=output, uint8=False)


def _image(graph: Graph, input_shape: Shape | None) -> Shape:
    """Return the shape of one input as the graph has it."""
    sizes = graph.shape[1:]
    if input_shape is not None:
        if not isinstance(input_shape, (tuple, list)) or len(input_shape) != len(sizes):
            raise OptionError(f"input_shape must have {len(sizes)} sizes, got {input_shape!r:.60}")
        if any(size not in (None, given) for size, given in zip(sizes, input_shape, strict=True)):
            raise OptionError(f"input_shape is {input_shape!r:.60}, the file says {sizes}")
        sizes = list(input_shape)
    if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes):
        shown = "x".join("?" if size is None else str(size) for size in graph.shape)
        raise FileError(f"its input is {shown or 'a number'}; every size but the batch must be known: give input_shape")
    shape = tuple(size for size in sizes if size is not None)
    if math.prod(shape) > _LARGEST_INPUT or len(shape) > 4:
        raise FileError(f"its input {text(shape)} is too large, or has too many axes")
    return shape


class _Reader:
    """Reads a graph operator by operator.

    Args:
        graph: The graph.
        shape: Of one input, as the graph has it.
        channels_last: Whether its last axis are the channels.
    """

    def __init__(self, graph: Graph, shape: Shape, channels_last: bool) -> None:
        self.graph, self.reached = graph, 0
        fixed = graph.shape[0]
        self.batches = (2, 3) if fixed is None else (fixed, fixed)
        place = Place("the input", [], (shape[-1], *shape[:-1]) if channels_last else shape)
        self.input = View(place, place.shape, integer=graph.uint8)
        if channels_last:
            self.input = self.input.seen(np.moveaxis(self.input.places(), 0, -1))

    def network(self) -> tuple[nn.Sequential, View]:
        """Return the network, built, and how the graph orders its output."""
        graph = self.graph
        values: dict[str, View | Known] = {name: Known((array, array)) for name, array in graph.constants.items()}
        values[graph.input] = self.input
        readers = Counter(name for node in graph.nodes for name in set(node.inputs) if node.op not in ("Shape", "Size"))
        readers[graph.output] += 1
        spare = _SPARE + 8 * sum(array.size for array in graph.constants.values())
        makers = {name: node for node in graph.nodes for name in node.outputs}
        for node in graph.nodes:
            inputs = [self._taken(values, name, readers, makers) for name in node.inputs]
            try:
                made = read(Call(node, inputs, graph.opset, self.batches))
            except PellucidError as error:
                told = str(error).startswith("operator ")
                raise FileError(str(error) if told else f"{node}: {error}") from error
            spare -= _size(made)
            if spare < 0:
                raise FileError(f"{node}: the graph makes far more of its constants than the file holds")
            values[node.outputs[0]] = made
            self.reached += 1
        output = values.get(graph.output)
        if not isinstance(output, View):
            raise FileError(f"its output {one_line(graph.output, 60)} does not depend on its input")
        if not output.channels_last:
            end = Call(graph.nodes[-1], [output], graph.opset, self.batches)
            output = end.in_order(output)
        found = network(output.place)
        if found.leaf_count == 0:
            found.append(nn.Identity())
        found.build(self.input.source)
        check_maps(found)
        return found, output

    @staticmethod
    def _taken(
        values: dict[str, View | Known], name: str, readers: Counter[str], makers: dict[str, Node]
    ) -> View | Known | None:
        if not name:
            return None
        if name not in makers and name not in values:
            raise FileError(f"{one_line(name, 100)!r} belongs to the preprocessing, but the network takes it too")
        if name not in values:
            raise FileError(f"{makers[name]}: more than its first output is used, which pellucid does not read")
        value = values[name]
        return replace(value, sole=value.sole and readers[name] == 1) if isinstance(value, View) else value


def _size(value: View | Known) -> int:
    """Return how many numbers a value keeps in memory."""
    if isinstance(value, Known):
        return sum(array.size for array in value.arrays)
    layer = value.place.layer
    parameters = 0 if layer is None else sum(math.prod(shape) for _, shape in layer.state_layout().values())
    return parameters + (0 if value.order is None else value.order.size)


def _prove(content: bytes, graph: Graph, made: nn.Sequential, taken: View, given: View) -> None:
    """Compare with ONNX Runtime, which gets and gives channels where the graph has them."""
    each = check_maps(made)
    batches = [n for n in ((1, 2) if graph.shape[0] is None else (graph.shape[0],)) if n * each <= LARGEST_PROOF]
    ready = proof.session(content) if batches else None
    if ready is None:  # it lacks some operators of opset 6
        return
    random, definition = np.random.default_rng(0), made.astype("float64")
    for n in batches:
        x = random.uniform(-3, 3, (n, *made.input_shape)).astype(np.float32)
        if graph.uint8:
            x = random.integers(0, 256, x.shape).astype(np.uint8)
        ours = definition(x.astype(np.float64))
        off = proof.difference(proof.run(ready, _ordered(x, taken)), _ordered(ours, given))
        if off > proof.TOLERANCE:
            raise FileError(f"its outputs differ from ONNX Runtime's by {off:.1e} of the largest, so it is not read")


def _ordered(x: Array, view: View) -> Array:
    """Return arrays as the graph has them."""
    return x if view.plain else x.reshape(len(x), -1)[:, view.places()]
