"""Networks as ONNX graphs, written with the onnx package and proven with ONNX Runtime.

Values are named after the layer that gives them ("3.body.0/Conv"), weights as in the state-dict ("3.body.0.weight").
The same network gives the same bytes. Facts that pellucid.load needs stand in the metadata, under the key "pellucid".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from pellucid import canonical, nn
from pellucid import functional as F
from pellucid._types import Array, Shape
from pellucid.errors import FileError, OptionError, one_line
from pellucid.files import write_atomic
from pellucid.interop.onnx import proof
from pellucid.nn import Layer, Network
from pellucid.nn.layer import join
from pellucid.shapes import Padding, adaptive_regions, cover, integer, resized, resolve_padding

if TYPE_CHECKING:
    from pellucid.interop.schema import Input
    from pellucid.model import InputSpec, Model

FORMAT = 1
LOWEST_OPSET, OPSET, HIGHEST_OPSET = 17, 19, 22
_IR = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10}
_LARGEST_FILE = (1 << 31) - (1 << 20)
_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@dataclass(frozen=True)
class Exported:
    """What export_onnx has written.

    Attributes:
        path: The file.
        size: Its bytes.
        difference: The largest between ONNX Runtime's outputs and ours, relative to the largest output.
    """

    path: Path
    size: int
    difference: float


def export_onnx(
    model: Model | Network, path: str | Path, *, preprocessing: bool = False, opset: int = OPSET
) -> Exported:
    """Write a model or network as an ONNX file, if ONNX Runtime gives the same numbers; else nothing is written.

    The graph takes batches of any size. A model's input spec and class names stand in the metadata, so that
    pellucid.load makes a model of the file again. Dropout does nothing, batch norm uses the running statistics, weights
    are float32.

    Args:
        model: A model, or a built network.
        path: Where to, usually something.onnx.
        preprocessing: Of a model: take raw images (N, C, H, W) in its value range, uint8 for 0 to 255 and else float32,
            and give probabilities, where there are classes. Else the graph takes what the network takes, and gives
            its raw outputs.
        opset: Version of ONNX's operators, 17 to 22.

    Raises:
        FileError: Where the outputs differ by more than 1e-5 of the largest, or the file cannot be written.
        MissingDependencyError: Without the packages onnx and onnxruntime.
        OptionError: For a layer that ONNX cannot express, or an argument that cannot be.

    >>> import tempfile
    >>> from pellucid import interop, nn
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10), input_shape=(1, 8, 8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = interop.export_onnx(net, f"{folder}/net.onnx")
    ...     back = interop.import_onnx(done.path)
    >>> done.difference <= 1e-5, back[3].weight.shape
    (True, (10, 144))
    """
    opset = integer(opset, "opset")
    if not LOWEST_OPSET <= opset <= HIGHEST_OPSET:
        raise OptionError(f"opset must lie between {LOWEST_OPSET} and {HIGHEST_OPSET}, got {opset}")
    if not isinstance(model, Network) and not isinstance(getattr(model, "network", None), Network):
        raise OptionError(f"expected a Model or a built network, got {model!r:.80}")
    known = None if isinstance(model, Network) else model
    network = model if isinstance(model, Network) else model.network
    if preprocessing and known is None:
        raise OptionError("a network has no preprocessing; export a Model, or leave preprocessing=False")
    proof.onnx_package()
    content = _to_bytes(network, known, preprocessing, opset)
    try:
        difference = _prove(content, network, known if preprocessing else None)
    except FileError as error:
        raise FileError(f"{path} is not written: {error}") from error
    write_atomic(path, content)
    return Exported(Path(path), len(content), difference)


def _prove(content: bytes, network: Network, raw: Model | None) -> float:
    """Return the largest relative difference over batches of one and three; raw is the model if its images are."""
    ready, worst = proof.session(content), 0.0
    if ready is None:
        raise FileError("ONNX Runtime does not have all its operators; use another opset")
    random = np.random.default_rng(0)
    for n in (1, 3):
        shape = (n, *network.input_shape)
        if raw is None:
            x = random.standard_normal(shape).astype(np.float32)
            ours = network(x.astype(network.dtype))
        else:
            low, high = raw.input.value_range
            x = random.uniform(low, high, shape).astype(raw_type(raw.input))
            ours = network(raw.input.canonical(x).astype(network.dtype))
            ours = F.softmax(ours.astype(np.float64), 1) if raw.classes else ours
        worst = max(worst, proof.difference(proof.run(ready, x), ours))
    if worst > proof.TOLERANCE:
        raise FileError(f"ONNX Runtime's outputs differ from pellucid's by {worst:.1e} of the largest")
    return worst


def raw_type(spec: InputSpec | Input) -> type[np.generic]:
    """Return the type of raw images: uint8 for 0 to 255, else float32.

    Args:
        spec: The model's.
    """
    return np.uint8 if spec.value_range == (0.0, 255.0) else np.float32


def _to_bytes(network: Network, model: Model | None, preprocessing: bool, opset: int) -> bytes:
    """Return the ONNX file."""
    onnx = proof.onnx_package()
    helper, shape = onnx.helper, network.input_shape
    graph = Graph(network, opset)
    start, end = "input", "output"
    kind: np.dtype[Any] = np.dtype(np.float32)
    if model is not None and preprocessing:
        start, kind = "images", np.dtype(raw_type(model.input))
        x, out = _write(graph, network, "", preprocess(graph, model.input), shape)
        if model.classes:
            x, end = graph.add("Softmax", [x], "probabilities", axis=1), "probabilities"
    else:
        x, out = _write(graph, network, "", start, shape)
    graph.end(x, end)
    made = helper.make_graph(
        graph.nodes,
        "pellucid",
        [helper.make_tensor_value_info(start, helper.np_dtype_to_tensor_dtype(kind), ("N", *shape))],
        [helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, ("N", *out))],
        list(graph.initializers.values()),
    )
    opsets = [helper.make_opsetid("", opset)]
    file = helper.make_model(made, producer_name="pellucid", ir_version=_IR[opset], opset_imports=opsets)
    if model is not None:
        facts = {"format": FORMAT, "kind": "onnx", "preprocessing": preprocessing, **model.facts()}
        helper.set_model_props(file, {"pellucid": canonical.dumps(facts)})
    if file.ByteSize() > _LARGEST_FILE:
        raise OptionError(f"the network takes {file.ByteSize() >> 20} MB, an ONNX file can hold 2 GB")
    try:
        onnx.checker.check_model(file, full_check=True)
    except Exception as error:  # its exceptions have no common base of their own
        raise OptionError(f"ONNX's checker refuses the graph: {one_line(error, 200)}") from None
    return bytes(file.SerializeToString(deterministic=True))


class Graph:
    """Nodes and initializers of a graph that is being written.

    Args:
        network: Whose weights it gets; None for a graph without layers.
        opset: Version of the operators.
    """

    def __init__(self, network: Network | None, opset: int) -> None:
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.opset = opset
        self._homes: dict[int, str] = {}
        for path, leaf in network.leaves() if network is not None else ():
            self._homes.setdefault(id(leaf), path)
        self._names: set[str] = set()

    def unique(self, name: str) -> str:
        """Return a name that nothing in the graph has yet: the given one, maybe with a number behind it."""
        number, chosen = 1, name
        while chosen in self._names:
            number, chosen = number + 1, f"{name}_{number}"
        self._names.add(chosen)
        return chosen

    def add(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name.

        Args:
            op: The operator.
            inputs: Names of values; "" leaves an optional one out.
            name: Of the node and of its output.
            **attributes: The operator's; None leaves one out.
        """
        return self.add_several(op, inputs, name, 1, **attributes)[0]

    def add_several(self, op: str, inputs: Sequence[str], name: str, count: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs and return their names.

        Args:
            op: The operator.
            inputs: Names of values; "" leaves an optional one out.
            name: Of the node and of its first output.
            count: How many outputs.
            **attributes: The operator's; None leaves one out.
        """
        from onnx import helper

        outputs = [self.unique(name) for _ in range(count)]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=outputs[0], **attributes))
        return outputs

    def constant(self, array: Array, name: str) -> str:
        """Add an array to the initializers and return its name.

        Args:
            array: float32 or int64.
            name: Its name, if nothing has it yet.
        """
        from onnx import numpy_helper

        chosen = self.unique(name)
        self.initializers[chosen] = numpy_helper.from_array(np.ascontiguousarray(array), chosen)
        return chosen

    def weight(self, layer: Layer, name: str, shape: Shape | None = None) -> str:
        """Return the name of a layer's parameter or buffer; a shared layer's stands once.

        Args:
            layer: Of the network.
            name: Of the parameter.
            shape: That the graph wants it in, if another.
        """
        full = join(self._homes[id(layer)], name)
        if full not in self.initializers:
            array = getattr(layer, name).astype(np.float32)
            self.constant(array if shape is None else array.reshape(shape), full)
        return full

    def end(self, last: str, name: str) -> None:
        """Give the graph's output its name.

        Args:
            last: The value that is the output.
            name: What it is to be called.
        """
        if not self.nodes or list(self.nodes[-1].output) != [last]:
            self.add("Identity", [last], name)
        self.nodes[-1].output[0] = name


def preprocess(graph: Graph, spec: InputSpec | Input) -> str:
    """Add what makes raw images canonical, step by step as InputSpec.canonical does it; return the value "canonical".

    Args:
        graph: Begins with the input "images".
        spec: The model's.
    """
    from onnx import TensorProto

    low, high = spec.value_range
    x = "images"
    if raw_type(spec) is np.uint8:
        x = graph.add("Cast", [x], "images/Cast", to=TensorProto.FLOAT)
    channels = (-1, 1, 1)
    steps = (
        ("Sub", "low", np.asarray(low)),
        ("Mul", "scale", np.asarray(1 / (high - low))),
        ("Sub", "mean", np.reshape(spec.mean, channels)),
        ("Div", "std", np.reshape(spec.std, channels)),
    )
    for op, name, value in steps:
        constant = graph.constant(value.astype(np.float32), f"images.{name}")
        x = graph.add(op, [x, constant], "canonical" if name == "std" else f"images/{name}")
    return x


class _At(NamedTuple):
    """Where a layer stands: its path, the value that it gets, and the shapes of one input and one output."""

    path: str
    x: str
    before: Shape
    after: Shape


_Writer: TypeAlias = Callable[[Graph, Any, _At], str]


def _write(graph: Graph, layer: Layer, path: str, x: str, shape: Shape) -> tuple[str, Shape]:
    """Add a layer or network; return the value that it gives, and its shape."""
    if type(layer) is nn.Sequential:
        for name, child in layer.children():
            x, shape = _write(graph, child, join(path, name), x, shape)
        return x, shape
    if type(layer) in _JOINS:
        ends = [_write(graph, child, join(path, name), x, shape) for name, child in layer.children()]  # type: ignore[attr-defined]
        return _JOINS[type(layer)](graph, path, x, shape, ends)
    if type(layer) is nn.MaxUnpool2d:
        return _max_unpool(graph, layer, path, x, shape), shape
    if type(layer) not in _WRITERS:
        where = f"layer {path} ({type(layer).__name__})" if path else type(layer).__name__
        raise OptionError(f"{where} cannot be expressed in ONNX; use layers of pellucid.nn")
    after = layer.output_shape(shape)
    return _WRITERS[type(layer)](graph, layer, _At(path, x, shape, after)), after


def _residual(graph: Graph, path: str, x: str, shape: Shape, ends: list[tuple[str, Shape]]) -> tuple[str, Shape]:
    around = ends[1][0] if len(ends) == 2 else x
    return graph.add("Add", [ends[0][0], around], f"{path}/Add"), ends[0][1]


def _concat(graph: Graph, path: str, x: str, shape: Shape, ends: list[tuple[str, Shape]]) -> tuple[str, Shape]:
    out = (sum(end[0] for _, end in ends), *ends[0][1][1:])
    return graph.add("Concat", [value for value, _ in ends], f"{path}/Concat", axis=1), out


_JOINS: dict[type[Layer], Callable[..., tuple[str, Shape]]] = {nn.Residual: _residual, nn.Concat: _concat}


def _max_unpool(graph: Graph, layer: nn.MaxUnpool2d, path: str, x: str, shape: Shape) -> str:
    pool, at = layer.pool, join(path, "pool")
    out = pool.output_shape(shape)
    attributes = _max_pool_attributes(pool, shape, out)
    window = {key: attributes[key] for key in ("kernel_shape", "strides", "pads")}
    pooled, indices = graph.add_several("MaxPool", [x], f"{at}/MaxPool", 2, **attributes)
    moved, _ = _write(graph, layer.body, join(path, "body"), pooled, out)
    size = graph.add("Shape", [x], f"{path}/Shape")
    return graph.add("MaxUnpool", [moved, indices, size], f"{path}/MaxUnpool", **window)


def _both_ends(sides: Padding) -> list[int]:
    """Return padding as ONNX writes it: what comes before each axis, then what comes after."""
    return [before for before, _ in sides] + [after for _, after in sides]


def _pad(graph: Graph, x: str, sides: Padding, mode: str, path: str) -> str:
    """Pad the axes behind the channels."""
    if mode == "circular" and graph.opset < 19:
        raise OptionError(f"layer {path}: circular padding needs opset 19, got {graph.opset}")
    pads = graph.constant(np.asarray(_both_ends(((0, 0), (0, 0), *sides)), dtype=np.int64), f"{path}.pads")
    return graph.add("Pad", [x, pads], f"{path}/Pad", mode=_MODES[mode])


def _conv(graph: Graph, layer: nn.Conv2d, at: _At) -> str:
    sides = resolve_padding(layer.padding, at.before[1:], layer.kernel_size, layer.stride, layer.dilation)
    x = at.x
    if layer.padding_mode != "zeros":
        x, sides = _pad(graph, x, sides, layer.padding_mode, at.path), ((0, 0),) * len(sides)
    return graph.add(
        "Conv",
        [x, *_weights(graph, layer)],
        f"{at.path}/Conv",
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=_both_ends(sides),
        dilations=layer.dilation,
        group=layer.groups,
    )


def _weights(graph: Graph, layer: Layer) -> list[str]:
    """Return the names of weight and bias, as far as the layer has them."""
    return [graph.weight(layer, name) for name in ("weight", "bias") if name in layer.named_parameters()]


def _conv_transpose(graph: Graph, layer: nn.ConvTranspose2d, at: _At) -> str:
    return graph.add(
        "ConvTranspose",
        [at.x, *_weights(graph, layer)],
        f"{at.path}/ConvTranspose",
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=[*layer.padding, *layer.padding],
        output_padding=layer.output_padding,
        dilations=layer.dilation,
        group=layer.groups,
    )


def _linear(graph: Graph, layer: nn.Linear, at: _At) -> str:
    return graph.add("Gemm", [at.x, *_weights(graph, layer)], f"{at.path}/Gemm", transB=1)


def _reach(layer: nn.MaxPool2d | nn.AvgPool2d, before: Shape, after: Shape) -> Padding:
    """Return the padding, extended behind until it holds every window: what ceil_mode means in every runtime."""
    sides = tuple((p, p) for p in layer.padding)
    return cover(before[1:], layer.kernel_size, layer.stride, sides, layer.dilation, after[1:])


def _max_pool_attributes(layer: nn.MaxPool2d, before: Shape, after: Shape) -> dict[str, Any]:
    return {
        "kernel_shape": layer.kernel_size,
        "strides": layer.stride,
        "pads": _both_ends(_reach(layer, before, after)),
        "dilations": layer.dilation,
    }


def _max_pool(graph: Graph, layer: nn.MaxPool2d, at: _At) -> str:
    attributes = _max_pool_attributes(layer, at.before, at.after)
    return graph.add("MaxPool", [at.x], f"{at.path}/MaxPool", **attributes)


def _avg_pool(graph: Graph, layer: nn.AvgPool2d, at: _At) -> str:
    """Average over windows; padding that counts stands apart, for what ceil_mode adds beyond it never does."""
    x, counts, sides = at.x, layer.count_include_pad, tuple((p, p) for p in layer.padding)
    reach = _reach(layer, at.before, at.after)
    if counts and reach != sides:
        x, counts = _pad(graph, x, sides, "constant", at.path), False
        reach = tuple((before - p, after - q) for (before, after), (p, q) in zip(reach, sides, strict=True))
    window = {"kernel_shape": layer.kernel_size, "strides": layer.stride, "pads": _both_ends(reach)}
    return graph.add("AveragePool", [x], f"{at.path}/AveragePool", **window, count_include_pad=int(counts))


def _adaptive(op: str) -> _Writer:
    """Return the writer of an adaptive pool that goes axis by axis, region by region, where regions differ."""

    def write(graph: Graph, layer: nn.AdaptiveAvgPool2d, at: _At) -> str:
        size, out = at.before[1:], at.after[1:]
        if set(out) == {1}:
            return graph.add(f"Global{op}", [at.x], f"{at.path}/Global{op}")
        if all(n % o == 0 for n, o in zip(size, out, strict=True)):
            kernel = [n // o for n, o in zip(size, out, strict=True)]
            return graph.add(op, [at.x], f"{at.path}/{op}", kernel_shape=kernel, strides=kernel)
        x = at.x
        for axis, (n, o) in enumerate(zip(size, out, strict=True)):
            if o != n:
                parts = [_part(graph, op, x, region, axis, len(size), at.path) for region in adaptive_regions(n, o)]
                x = graph.add("Concat", parts, f"{at.path}/Concat", axis=2 + axis)
        return x

    return write


def _part(graph: Graph, op: str, x: str, region: slice, axis: int, dims: int, path: str) -> str:
    """Pool one region along one axis."""
    bounds = [("starts", region.start), ("ends", region.stop), ("axes", 2 + axis)]
    names = [graph.constant(np.asarray([value], dtype=np.int64), f"{path}.{name}") for name, value in bounds]
    kernel = [region.stop - region.start if i == axis else 1 for i in range(dims)]
    return graph.add(op, [graph.add("Slice", [x, *names], f"{path}/Slice")], f"{path}/{op}", kernel_shape=kernel)


def _upsample(graph: Graph, layer: nn.Upsample, at: _At) -> str:
    _, scales = resized(at.before[1:], layer.size, layer.scale_factor)
    covers = list(zip(at.before[1:], at.after[1:], scales, strict=True))
    inputs = [at.x, ""]
    attributes: dict[str, Any] = {}
    if graph.opset >= 18 and all(scale is None or n == o * scale for n, o, scale in covers):
        attributes["axes"] = list(range(2, 2 + len(covers)))
        inputs += ["", graph.constant(np.asarray(at.after[1:], dtype=np.int64), f"{at.path}.sizes")]
    else:
        factors = [_factor(n, o) if scale is None else 1 / scale for n, o, scale in covers]
        inputs += [graph.constant(np.asarray([1, 1, *factors], dtype=np.float32), f"{at.path}.scales")]
    if layer.mode == "nearest":
        attributes |= {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        attributes["mode"] = "cubic" if layer.mode == "bicubic" else "linear"
        attributes["coordinate_transformation_mode"] = "align_corners" if layer.align_corners else "half_pixel"
    return graph.add("Resize", inputs, f"{at.path}/Resize", **attributes)


def _factor(n: int, out: int) -> float:
    """Return out / n in float32, so that n times it does not fall below out."""
    factor = np.float32(out / n)
    return float(factor if float(factor) * n >= out else np.nextafter(factor, np.float32(np.inf)))


def _pad2d(graph: Graph, layer: nn.ZeroPad2d, at: _At) -> str:
    left, right, top, bottom = layer.padding
    return _pad(graph, at.x, ((top, bottom), (left, right)), layer.mode, at.path)


def _batch_norm(graph: Graph, layer: nn.BatchNorm2d, at: _At) -> str:
    inputs = [at.x, *_affine(graph, layer, (layer.num_features,), at.path)]
    inputs += [graph.weight(layer, name) for name in ("running_mean", "running_var")]
    return graph.add("BatchNormalization", inputs, f"{at.path}/BatchNormalization", epsilon=layer.eps)


def _affine(graph: Graph, layer: Layer, shape: Shape, path: str) -> list[str]:
    """Return the names of weight and bias, ones and zeros where the layer has none."""
    return [
        graph.weight(layer, name)
        if name in layer.named_parameters()
        else graph.constant(np.full(shape, start, dtype=np.float32), join(path, name))
        for name, start in (("weight", 1), ("bias", 0))
    ]


def _group_norm(graph: Graph, layer: nn.GroupNorm, at: _At) -> str:
    """Instance norm of groups, laid out as if each were a channel; then weight and bias of the channels."""
    groups = layer.num_groups
    x = _reshape(graph, at.x, (groups, math.prod(at.before) // groups), at.path)
    plain = [
        graph.constant(np.full(groups, v, dtype=np.float32), f"{at.path}.{n}") for n, v in (("ones", 1), ("zeros", 0))
    ]
    x = graph.add("InstanceNormalization", [x, *plain], f"{at.path}/InstanceNormalization", epsilon=layer.eps)
    x = _reshape(graph, x, at.before, at.path)
    if layer.affine:
        channels = (layer.num_channels, *[1] * (len(at.before) - 1))
        x = graph.add("Mul", [x, graph.weight(layer, "weight", channels)], f"{at.path}/Mul")
        x = graph.add("Add", [x, graph.weight(layer, "bias", channels)], f"{at.path}/Add")
    return x


def _layer_norm(graph: Graph, layer: nn.LayerNorm, at: _At) -> str:
    inputs = [at.x, *_affine(graph, layer, layer.normalized_shape, at.path)]
    axis = -len(layer.normalized_shape)
    return graph.add("LayerNormalization", inputs, f"{at.path}/LayerNormalization", axis=axis, epsilon=layer.eps)


def _reshape(graph: Graph, x: str, shape: Shape, path: str) -> str:
    """Give each image another shape; the 0 keeps the batch, an empty one too."""
    target = graph.constant(np.asarray([0, *shape], dtype=np.int64), f"{path}.shape")
    return graph.add("Reshape", [x, target], f"{path}/Reshape")


def _prelu(graph: Graph, layer: nn.PReLU, at: _At) -> str:
    slope = graph.weight(layer, "weight", (-1, *[1] * (len(at.before) - 1)))
    return graph.add("PRelu", [at.x, slope], f"{at.path}/PRelu")


def _silu(graph: Graph, layer: nn.SiLU, at: _At) -> str:
    return graph.add("Mul", [at.x, graph.add("Sigmoid", [at.x], f"{at.path}/Sigmoid")], f"{at.path}/Mul")


def _gelu(graph: Graph, layer: nn.GELU, at: _At) -> str:
    """x p with p = (1 + erf(x / sqrt 2)) / 2, or the formula with tanh; an operator of its own comes with opset 20."""
    if graph.opset >= 20:
        return graph.add("Gelu", [at.x], f"{at.path}/Gelu", approximate=layer.approximate)

    def apply(op: str, x: str, value: float | str) -> str:
        other = value if isinstance(value, str) else graph.constant(np.asarray(value, np.float32), f"{at.path}.number")
        return graph.add(op, [x, other], f"{at.path}/{op}")

    if layer.approximate == "tanh":
        cube = apply("Mul", apply("Mul", at.x, at.x), at.x)
        inner = apply("Add", at.x, apply("Mul", cube, 0.044715))
        bent = graph.add("Tanh", [apply("Mul", inner, math.sqrt(2 / math.pi))], f"{at.path}/Tanh")
    else:
        bent = graph.add("Erf", [apply("Mul", at.x, math.sqrt(0.5))], f"{at.path}/Erf")
    return apply("Mul", apply("Mul", at.x, 0.5), apply("Add", bent, 1.0))


def _softplus(graph: Graph, layer: nn.Softplus, at: _At) -> str:
    """log(1 + exp(beta x)) / beta; above a threshold of 20 that is x anyway, in float32."""

    def number(value: float) -> str:
        return graph.constant(np.asarray(value, dtype=np.float32), f"{at.path}.number")

    scaled = at.x if layer.beta == 1 else graph.add("Mul", [at.x, number(layer.beta)], f"{at.path}/Mul")
    y = graph.add("Softplus", [scaled], f"{at.path}/Softplus")
    if layer.beta != 1:
        y = graph.add("Div", [y, number(layer.beta)], f"{at.path}/Div")
    if layer.threshold < 20:
        above = graph.add("Greater", [scaled, number(layer.threshold)], f"{at.path}/Greater")
        y = graph.add("Where", [above, at.x, y], f"{at.path}/Where")
    return y


def _operator(op: str, **names: str) -> _Writer:
    """Return the writer of a layer that is one operator; names says which attribute is which argument of the layer."""

    def write(graph: Graph, layer: Layer, at: _At) -> str:
        attributes = {attribute: getattr(layer, name) for attribute, name in names.items()}
        return graph.add(op, [at.x], f"{at.path}/{op}", **attributes)

    return write


_WRITERS: dict[type[Layer], _Writer] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _conv),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _conv_transpose),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), _max_pool),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), _avg_pool),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), _adaptive("AveragePool")),
    **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), _adaptive("MaxPool")),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _batch_norm),
    **dict.fromkeys((nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d), _pad2d),
    **dict.fromkeys((nn.Dropout, nn.Dropout2d, nn.Identity), lambda graph, layer, at: at.x),
    nn.ELU: _operator("Elu", alpha="alpha"),
    nn.Flatten: _operator("Flatten"),
    nn.GELU: _gelu,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.LeakyReLU: _operator("LeakyRelu", alpha="negative_slope"),
    nn.Linear: _linear,
    nn.LogSoftmax: _operator("LogSoftmax", axis="dim"),
    nn.PReLU: _prelu,
    nn.ReLU: _operator("Relu"),
    nn.SiLU: _silu,
    nn.Sigmoid: _operator("Sigmoid"),
    nn.Softmax: _operator("Softmax", axis="dim"),
    nn.Softplus: _softplus,
    nn.Tanh: _operator("Tanh"),
    nn.Unflatten: lambda graph, layer, at: _reshape(graph, at.x, at.after, at.path),
    nn.Upsample: _upsample,
}
