"""Reads a torch.nn.Module as a network, strictly: what is not understood to the last number is refused by name.

torch.nn.Sequential is read child by child. The forward of any other module is followed by torch.fx, its own modules as
single steps, and must be series-parallel: steps one after another, sums (Residual), branches side by side (Concat),
and pools whose indices go to an unpooling (MaxUnpool2d).
"""

from __future__ import annotations

import copy
import inspect
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from pellucid import functional as F
from pellucid import nn
from pellucid._types import Shape
from pellucid.engines.torch_module import quiet
from pellucid.errors import OptionError, PellucidError, one_line
from pellucid.nn import Layer, Network
from pellucid.nn.layer import blank, join
from pellucid.nn.spec import LEAVES

_DTYPES = {torch.float32: "float32", torch.float64: "float64"}
_IGNORED = {"device", "dtype", "inplace", "_stacklevel"}
_ALIKE = 1e-9  # of the largest output, in float64

_LAYERS: dict[str, type[Layer]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softmax": nn.Softmax,
    "log_softmax": nn.LogSoftmax,
    "interpolate": nn.Upsample,
    **{f"{kind.lower()}_pool{d}d": LEAVES[f"{kind}Pool{d}d"] for kind in ("Max", "Avg") for d in (1, 2, 3)},
    **{
        f"adaptive_{kind.lower()}_pool{d}d": LEAVES[f"Adaptive{kind}Pool{d}d"]
        for kind in ("Max", "Avg")
        for d in (1, 2, 3)
    },
    "dropout": nn.Dropout,
    "dropout2d": nn.Dropout2d,
}
"""Functions of torch and torch.nn.functional, and methods, that stand for a layer."""

_SUMS = {"add", "iadd", "add_"}
_SHAPES = {"flatten", "view", "reshape", "contiguous"}
_ASKS = {"size", "getattr", "getitem"}
_NAMES = {*_LAYERS, *_SHAPES, "add", "cat", "concat", "mean", "max_unpool2d"}
_FUNCTIONS: dict[Any, str] = {
    **{getattr(room, n): n for room in (torch, torch.nn.functional) for n in sorted(_NAMES) if hasattr(room, n)},
    operator.add: "add",
    operator.iadd: "iadd",
    operator.getitem: "getitem",
    getattr: "getattr",
}
_METHODS = _NAMES | _SUMS | {"size"}
# In inference these give the memory that they get.
_PASSING = (torch.nn.Flatten, torch.nn.Unflatten, torch.nn.Identity, torch.nn.Dropout, torch.nn.Dropout2d)


def read(module: Any, input_shape: Shape | None) -> Network:
    """Return a network that computes what a module does, with its weights; see interop.from_torch.

    Args:
        module: A torch.nn.Module; it is not changed.
        input_shape: Shape of one input, or None where it is not known.

    Raises:
        OptionError: Names the module that cannot be read, and why.
    """
    if not isinstance(module, torch.nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise OptionError(f"module must be a torch.nn.Module that was not scripted, got {type(module).__name__}")
    dtype = _dtype(module)
    try:
        own = copy.deepcopy(module).cpu().double()
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise OptionError(f"the module cannot be copied: {one_line(error)}") from error
    example = None
    if input_shape is not None:
        example = torch.tensor(np.random.default_rng(0).standard_normal((2, *input_shape)))
    with torch.no_grad(), blank(), quiet():
        layer = _Reader(dtype).module(own.eval(), "", example)
        network = layer if isinstance(layer, Network) else nn.Sequential(layer)
        if input_shape is None or example is None:
            return network
        network.build(input_shape, dtype=dtype)
        expected = _run(own.eval(), "", example).numpy()
    with np.errstate(all="ignore"):
        found = network.astype("float64")(example.numpy())
    size = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=_ALIKE * size, equal_nan=True):
        raise OptionError(
            "the module gives other outputs than the layers that it was read as; does its forward depend on chance, "
            "or write into what it gets?"
        )
    return network


def known_input(module: Any) -> Shape | None:
    """Return the shape of a module's input that to_torch noted, or that a first Linear says.

    Args:
        module: A torch.nn.Module, or anything else, of which nothing is known.
    """
    if isinstance(module, torch.nn.Module) and isinstance(getattr(module, "input_shape", None), (tuple, list)):
        return tuple(module.input_shape)
    while type(module) is torch.nn.Sequential and len(module):
        module = module[0]
    return (module.in_features,) if type(module) is torch.nn.Linear else None


def _dtype(module: Any) -> str:
    found = {array.dtype for array in (*module.parameters(), *module.buffers()) if array.is_floating_point()}
    if any(isinstance(p, torch.nn.parameter.UninitializedTensorMixin) for p in module.parameters()):
        raise OptionError("the module has lazy layers that have seen no input yet; run it once")
    if len(found) > 1 or not found <= set(_DTYPES):
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
        raise OptionError(f"parameters must all be float32, or all float64, got {names}; use module.float()")
    return _DTYPES[found.pop()] if found else "float32"


def _named(module: Any, path: str) -> str:
    return f"module {path} ({type(module).__name__})" if path else f"the module ({type(module).__name__})"


def _run(module: Any, path: str, x: Any) -> Any:
    try:
        return module(x.clone())
    except Exception as error:
        raise OptionError(f"{_named(module, path)} cannot run on inputs {tuple(x.shape)}: {one_line(error)}") from error


def _check_unchanged(module: Any, path: str) -> None:
    """Refuse a module that does something else than its class says."""
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        raise OptionError(f"{_named(module, path)} has hooks, or a forward of its own, which may change its numbers")
    if type(module).__call__ is not torch.nn.Module.__call__ and not isinstance(module, fx.GraphModule):
        raise OptionError(f"{_named(module, path)} has a __call__ of its own")


class _Reader:
    """Makes layers of modules; a module that stands at several places becomes one layer.

    Args:
        dtype: Of the network.
    """

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._leaves: dict[int, Layer] = {}
        self._owners: dict[int, tuple[Any, str]] = {}

    def module(self, module: Any, path: str, x: Any) -> Layer:
        """Return the layer or network that a module is.

        Args:
            module: In inference mode.
            path: Where it stands.
            x: An example of what it gets, or None.
        """
        _check_unchanged(module, path)
        if type(module) is torch.nn.Sequential:
            layers = []
            for key, child in module._modules.items():  # named_children leaves out a child's second place
                layers.append(self.module(child, join(path, key), x))
                x = None if x is None else _run(child, join(path, key), x)
            return nn.Sequential(*layers)
        if getattr(torch.nn, type(module).__name__, None) is type(module):
            return self._leaf(module, path)
        return _Graph(self, module, path, x).layer()

    def _leaf(self, module: Any, path: str) -> Layer:
        if id(module) not in self._leaves:
            self._leaves[id(module)] = self._read(module, path)
        return self._leaves[id(module)]

    def _read(self, module: Any, path: str) -> Layer:
        name = type(module).__name__
        kind = LEAVES.get(name)
        if kind is None or "Lazy" in name:
            raise OptionError(f"{_named(module, path)} is not among pellucid's layers")
        ours, theirs = (inspect.signature(k.__init__).parameters for k in (kind, type(module)))
        options = {key: getattr(module, key) for key in ours if key in theirs and key not in ("self", "bias")}
        if "bias" in ours:
            options["bias"] = module.bias is not None
        options.update({key: tuple(value) for key, value in options.items() if isinstance(value, (list, torch.Size))})
        for key, parameter in theirs.items():
            if key in ours or key in _IGNORED:
                continue
            value = getattr(module, key, parameter.default)
            if key == "bias":  # of a norm: with weight or not at all
                value = (module.bias is None) == (module.weight is None)
            if value != parameter.default:
                raise OptionError(f"{_named(module, path)} has {key}={value!r}, which pellucid's {name} has not")
        layer = _made(kind, options, _named(module, path))
        for key in (*layer.parameter_names, *layer.buffer_names):
            array = getattr(module, key, None)
            if array is None:
                continue
            owner = self._owners.setdefault(id(array), (module, path))
            if owner[0] is not module:
                raise OptionError(
                    f"{_named(module, path)} shares its {key} with module {owner[1]}; share the whole module"
                )
            setattr(layer, key, array.detach().numpy().astype(self._dtype))
        return layer


def _made(kind: type[Layer], options: dict[str, Any], where: str) -> Layer:
    try:
        return kind(**options)
    except (PellucidError, TypeError) as error:
        raise OptionError(f"{where}: {one_line(error)}") from error


class _Steps(fx.Tracer):
    """Follows a forward; each module that it calls is one step."""

    def is_leaf_module(self, m: Any, module_qualified_name: str) -> bool:
        return True


class _Values(fx.Interpreter):
    """Runs a graph and keeps what each step gives."""

    def __init__(self, module: Any, graph: Any) -> None:
        super().__init__(module, graph=graph)
        self.values: dict[Any, Any] = {}

    def run_node(self, n: Any) -> Any:
        self.values[n] = value = super().run_node(n)
        return value


class _Graph:
    """The forward of one module.

    Args:
        reader: Reads the modules that it calls.
        module: Whose forward.
        path: Where it stands.
        x: An example of what it gets, or None.
    """

    def __init__(self, reader: _Reader, module: Any, path: str, x: Any) -> None:
        self._reader, self._module, self._path = reader, module, path
        self._graph = self._followed()
        self._nodes = list(self._graph.nodes)
        self._place = {node: i for i, node in enumerate(self._nodes)}
        inputs = [n for n in self._nodes if n.op == "placeholder" and (n.users or not n.args)]
        if len(inputs) != 1 or not isinstance(self._nodes[-1].args[0], fx.Node):
            raise self._error("must take one tensor and give one")
        self._input = inputs[0]
        self._values: dict[Any, Any] = {}
        if x is not None:
            interpreter = _Values(module, self._graph)
            try:
                interpreter.run(x.clone())
            except Exception as error:
                raise self._error(f"cannot run on inputs {tuple(x.shape)}: {one_line(error)}") from error
            self._values = interpreter.values
        self._seen: set[Any] = set()

    def _error(self, reason: str) -> OptionError:
        return OptionError(f"{_named(self._module, self._path)} {reason}")

    def _followed(self) -> Any:
        """Return the graph of inference; that of training must be the same but for dropout."""
        graphs = []
        for training in (False, True):
            self._module.train(training)
            try:
                graphs.append(_Steps().trace(self._module))
            except Exception as error:
                raise self._error(f"has a forward that cannot be followed: {one_line(error)}") from error
            finally:
                self._module.eval()
        for modes in zip(*(graph.nodes for graph in graphs), strict=False):
            flags = [
                self._arguments(n).get("training", True) for n in modes if self._name(n) in ("dropout", "dropout2d")
            ]
            if flags not in ([], [False, True]):
                raise self._error(f"calls {self._name(modes[0])} in a way that does not follow train() and eval()")
        if len({tuple(map(self._text, graph.nodes)) for graph in graphs}) > 1:
            raise self._error("does other steps in training than in inference")
        return graphs[0]

    def _text(self, node: Any) -> str:
        options = {key: value for key, value in self._arguments(node).items() if key != "training"}
        return f"{node.name} {node.op} {node.target} {options}"

    def _name(self, node: Any) -> str:
        """Return what a step does, by its name in torch.nn.functional; "" for what is not known."""
        if node.op == "call_function":
            return _FUNCTIONS.get(node.target, "")
        return node.target if node.op == "call_method" and node.target in _METHODS else ""

    def _arguments(self, node: Any) -> dict[str, Any]:
        """Return a step's arguments by name where its function is known, else by number."""
        name = self._name(node)
        if name in ("dropout", "dropout2d"):
            names = ["input", "p", "training", "inplace"]
        elif name in _LAYERS:
            names = ["input", *list(inspect.signature(getattr(F, name)).parameters)[1:]]
        elif name == "max_unpool2d":
            names = ["input", *list(inspect.signature(F.max_unpool2d).parameters)[1:]]
        elif name == "flatten":
            names = ["input", "start_dim", "end_dim"]
        elif name == "mean":
            names = ["input", "dim", "keepdim"]
        elif name in ("cat", "concat"):
            names = ["tensors", "dim"]
        else:
            names = []
        names += [str(i) for i in range(len(names), len(node.args))]
        return {**dict(zip(names, node.args, strict=False)), **node.kwargs}

    def _sources(self, node: Any) -> list[Any]:
        """Return the steps whose tensors a step works on, in the order of its arguments."""
        name = self._name(node)
        if name == "getitem" and isinstance(node.args[0], fx.Node) and node.args[0].op == "call_module":
            return [node.args[0]]
        if node.op in ("placeholder", "get_attr") or name in _ASKS:
            return []
        if name in ("cat", "concat"):
            return [n for n in self._arguments(node).get("tensors", ()) if isinstance(n, fx.Node)]
        return [n for n in node.all_input_nodes if not self._asks(n)]

    def _asks(self, node: Any) -> bool:
        """Return whether a step only asks for a size."""
        if self._name(node) == "getitem":
            return isinstance(node.args[0], fx.Node) and self._asks(node.args[0])
        return self._name(node) == "size" or (self._name(node) == "getattr" and node.args[1] == "shape")

    def layer(self) -> Layer:
        """Return the network."""
        for node in self._nodes:
            readers = [user for user in node.users if not self._asks(user)]
            if len(readers) > 1 and any(self._overwrites(user, node) for user in readers):
                raise self._error(f"works in place on {node.name}, which is read elsewhere; use inplace=False")
        layers = self._chain(self._nodes[-1].args[0], self._input)
        for node in self._nodes:
            if node not in self._seen and node.op.startswith("call_") and not self._asks(node):
                raise self._error(f"computes {node.name}, which does not reach its output")
        return layers[0] if len(layers) == 1 else nn.Sequential(*layers)

    def _overwrites(self, node: Any, source: Any) -> bool:
        """Return whether a step changes the tensor that it reads, or hands it to one that does."""
        name = self._name(node)
        if name in ("iadd", "add_"):
            return node.args[0] is source
        if node.op == "call_module":
            effect = _effect(self._module.get_submodule(node.target))
            passes = effect == "passes"
            if effect == "writes":
                return True
        else:
            if self._arguments(node).get("inplace", False):
                return True
            passes = name in _SHAPES or name in ("dropout", "dropout2d")
        return passes and any(self._overwrites(user, node) for user in node.users)

    def _fork(self, nodes: Sequence[Any]) -> Any:
        """Return the last step that all ways from the input to some steps go through."""
        through: dict[Any, set[Any]] = {}
        for node in self._nodes:
            sources = [through[source] for source in self._sources(node)]
            through[node] = {node} | (set.intersection(*sources) if sources else set())
        return max(set.intersection(*(through[node] for node in nodes)), key=self._place.__getitem__, default=None)

    def _chain(self, end: Any, start: Any) -> list[Layer]:
        """Return the layers that lead from one step's tensor to another's."""
        layers: list[Layer] = []
        while end is not start:
            if end is None or end.op in ("placeholder", "get_attr") or end in self._seen:
                what = "its input" if end is None or end.op == "placeholder" else end.name
                raise self._error(f"is not series-parallel: {what} is read in several branches that do not meet again")
            self._seen.add(end)
            name = self._name(end)
            layer: Layer | None
            if name in _SUMS:
                layer, end = self._sum(end)
            elif name in ("cat", "concat"):
                layer, end = self._concat(end)
            elif name == "max_unpool2d" or self._is_unpool(end):
                layer, end = self._unpool(end)
            else:
                layer, end = self._step(end)
            layers += [] if layer is None else [layer]
        return layers[::-1]

    def _branch(self, end: Any, start: Any) -> Layer:
        layers = self._chain(end, start)
        return layers[0] if len(layers) == 1 else nn.Sequential(*layers) if layers else nn.Identity()

    def _sum(self, node: Any) -> tuple[Layer, Any]:
        sources = self._sources(node)
        if len(node.args) != 2 or node.kwargs or not set(node.args) == set(sources):
            raise self._error(f"adds something to {node.args[0]} that is no tensor")
        if len(sources) == 1:  # x + x
            return nn.Residual(nn.Identity()), sources[0]
        start = self._fork(sources)
        body, around = sorted(sources, key=lambda n: (n is start, self._place[n]))
        return nn.Residual(self._branch(body, start), None if around is start else self._branch(around, start)), start

    def _concat(self, node: Any) -> tuple[Layer, Any]:
        sources, options = self._sources(node), self._arguments(node)
        dim = options.get("dim", 0)
        known = self._values.get(node)
        if dim != 1 and (known is None or dim + known.ndim != 1):
            raise self._error(f"puts tensors one behind the other along dim={dim}; only channels, dim=1, can be")
        start = self._fork(sources)
        return nn.Concat(*(self._branch(source, start) for source in sources)), start

    def _is_unpool(self, node: Any) -> bool:
        return node.op == "call_module" and type(self._module.get_submodule(node.target)) is torch.nn.MaxUnpool2d

    def _unpool(self, node: Any) -> tuple[Layer, Any]:
        if node.op == "call_module":
            unpool = self._module.get_submodule(node.target)
            _check_unchanged(unpool, join(self._path, node.target))
            options = dict(zip(("input", "indices", "output_size"), node.args, strict=False)) | node.kwargs
            window = [unpool.kernel_size, unpool.stride, unpool.padding]
        else:
            options = self._arguments(node)
            window = [options.get("kernel_size"), options.get("stride"), options.get("padding", 0)]
        places = options["indices"]
        pool_step: Any = next(iter(self._sources(places)), None)
        pool: Any = self._module.get_submodule(pool_step.target) if pool_step is not None else None
        if type(pool) is not torch.nn.MaxPool2d or not pool.return_indices or places.args[1] != 1:
            raise self._error(f"gives {node.name} indices that are not those of a MaxPool2d(return_indices=True)")
        _check_unchanged(pool, join(self._path, pool_step.target))
        own = nn.MaxPool2d(pool.kernel_size, pool.stride, pool.padding, pool.dilation, ceil_mode=pool.ceil_mode)
        kernel, stride, padding = (value if isinstance(value, tuple) else (value,) * 2 for value in window)
        stride = kernel if None in stride else stride
        if (kernel, stride, padding) != (own.kernel_size, own.stride, own.padding):
            raise self._error(f"unpools in {node.name} with another window than it pooled with")
        if any(s < k for s, k in zip(own.stride, own.kernel_size, strict=True)):
            raise self._error(f"unpools in {node.name} overlapping windows, which PyTorch leaves undefined")
        start = pool_step.args[0]
        size = options.get("output_size")
        says = isinstance(size, fx.Node) and self._name(size) == "size" and size.args == (start,)
        found, wanted = (getattr(self._values.get(n), "shape", None) for n in (node, start))
        if not says and (found is None or found != wanted):
            raise self._error(f"unpools in {node.name} to another size than that of what was pooled")
        pooled = next((n for n in pool_step.users if n.args[1] == 0), None)
        body = self._branch(options["input"], pooled)
        self._seen |= {pool_step, pooled, places}
        return nn.MaxUnpool2d(own, body), start

    def _step(self, node: Any) -> tuple[Layer | None, Any]:
        """Return the layer of a step with one input, None for one that does nothing, and that input."""
        sources, name = self._sources(node), self._name(node)
        where = self._error("").args[0] + f"calls {name or node.target}"
        if node.op == "call_module":
            child, path = self._module.get_submodule(node.target), join(self._path, node.target)
            if len(node.args) != 1 or node.kwargs or len(sources) != 1:
                raise OptionError(f"{_named(child, path)} is called with other arguments than one tensor")
            return self._reader.module(child, path, self._values.get(sources[0])), sources[0]
        if not name or not sources or sources[0] is not (node.args[0] if node.args else node.kwargs.get("input")):
            raise OptionError(f"{where}, which cannot be read as a layer")
        source = sources[0]
        options = {key: value for key, value in self._arguments(node).items() if key not in ("input", *_IGNORED)}
        if name == "contiguous":
            return None, source
        if name in ("view", "reshape", "flatten"):
            return self._shaped(node, name, options, where), source
        if name == "mean":
            known = self._values.get(source)
            dims = options.get("dim")
            dims = {d % 4 for d in dims} if isinstance(dims, (tuple, list)) else None
            if dims != {2, 3} or known is None or known.ndim != 4:
                raise OptionError(f"{where} over other axes than (2, 3) of maps, or input_shape is not given")
            flat = [] if options.get("keepdim") else [nn.Flatten()]
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), *flat) if flat else nn.AdaptiveAvgPool2d(1), source
        if len(sources) > 1 or any(isinstance(value, fx.Node) for value in options.values()):
            raise OptionError(f"{where} with an argument that depends on the input")
        if name not in _LAYERS or (name.endswith("softmax") and options.get("dim") is None):
            raise OptionError(f"{where} in a way that cannot be read as a layer")
        known_to_us = inspect.signature(_LAYERS[name]).parameters
        options = {key: v for key, v in options.items() if key in known_to_us or (key != "training" and v)}
        return _made(_LAYERS[name], options, where), source

    def _shaped(self, node: Any, name: str, options: dict[str, Any], where: str) -> Layer:
        """Return Flatten, or Unflatten, for what is proven to be one of both."""
        source = self._values.get(node.args[0])
        features = None if source is None else math.prod(source.shape[1:])
        if name == "flatten":
            first, last = options.get("start_dim", 0), options.get("end_dim", -1)
            if first == 1 and (last == -1 or (source is not None and last == source.ndim - 1)):
                return nn.Flatten()
            raise OptionError(f"{where} with start_dim={first}, end_dim={last}; only start_dim=1 keeps the batch")
        sizes = node.args[1:]
        first, *rest = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
        keeps = isinstance(first, fx.Node) and self._is_batch(first)
        whole = all(isinstance(n, int) for n in rest) and math.prod(rest) == features
        if len(rest) == 1 and (whole or rest[0] == -1) and (keeps or (whole and first == -1)):
            return nn.Flatten()
        if whole and (keeps or first == -1) and source is not None and source.ndim == 2:
            return nn.Unflatten(1, tuple(rest))
        cure = "" if source is not None else "; give input_shape, on which that depends"
        raise OptionError(f"{where} with sizes that are not proven to keep the batch{cure}")

    def _is_batch(self, node: Any) -> bool:
        """Return whether a size is that of the batch, which no step changes."""
        if self._name(node) == "size":
            return len(node.args) == 2 and node.args[1] == 0
        return self._name(node) == "getitem" and self._asks(node) and node.args[1] == 0


def _effect(module: Any) -> str:
    """Return what a module does with the memory that it gets in inference: "reads", "writes", or "passes" it on."""
    if getattr(module, "inplace", False):
        return "writes"
    if isinstance(module, _PASSING):
        return "passes"
    if type(module) is torch.nn.Sequential:
        return next((effect for effect in map(_effect, module) if effect != "passes"), "passes")
    return "reads" if getattr(torch.nn, type(module).__name__, None) is type(module) else _effect_of_own(module)


def _effect_of_own(module: Any) -> str:
    """Return the same for a module with a forward of its own: the worst of all that it may do."""
    calls = [node for node in _Steps().trace(module).nodes if node.op.startswith("call_")]
    if any(node.kwargs.get("inplace") or str(node.target).endswith("_") for node in calls):
        return "writes"
    called = (module.get_submodule(node.target) for node in calls if node.op == "call_module")
    return "writes" if "writes" in map(_effect, called) else "passes"
