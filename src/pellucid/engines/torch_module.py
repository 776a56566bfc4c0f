"""A network as a torch.nn.Module: the same layers under the same state-dict names, and nothing of pellucid in it.

Sequential becomes torch.nn.Sequential, a layer its namesake. What PyTorch has no module for (sums, branches, unpooling,
padding that differs from side to side) becomes a torch.fx.GraphModule, whose code PyTorch writes itself.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import fx

from pellucid import nn
from pellucid._types import Array, Shape
from pellucid.errors import EngineError
from pellucid.nn import Layer, Loss, Network
from pellucid.nn import loss as losses
from pellucid.nn.layer import join
from pellucid.nn.spec import LEAVES
from pellucid.shapes import resolve_padding

Replacement: TypeAlias = Callable[[Layer, int], Any]
"""Takes a layer and its place among all; returns the module to stand for it, or None for the usual one."""


def to_module(network: Network, replace: Replacement = lambda layer, number: None) -> Any:
    """Return a torch.nn.Module with the network's parameters and buffers copied, in training mode.

    Args:
        network: Built.
        replace: Gives other modules than the usual ones.

    Raises:
        EngineError: Names the layer that PyTorch has nothing for, and the engine that runs it.
    """
    with torch.random.fork_rng(devices=[]):  # new modules draw their weights, which are replaced here
        module = _Translation(network, replace).module(network, "")
    dtype = getattr(torch, network.dtype.name)
    module.to(dtype)
    state = {name: torch.tensor(array) for name, array in network.state_dict().items()}
    module.load_state_dict(state)
    return module


def namesake(layer: Layer, path: str, input_shape: Shape) -> tuple[str, dict[str, Any]]:
    """Return the name of the torch.nn class that a layer has, and its arguments; padding by name becomes numbers.

    Args:
        layer: A layer that is no container.
        path: Where it stands, for the error.
        input_shape: What it gets, without the batch axis.

    Returns:
        Name and arguments. Where a convolution's padding differs from side to side, "padding" has the numbers of
        torch.nn.functional.pad, twice as many as axes.

    Raises:
        EngineError: For a layer of one's own.
    """
    name = type(layer).__name__
    if LEAVES.get(name) is not type(layer):
        raise EngineError(f'PyTorch has nothing for layer {path} ({name}); the engine "reference" runs any layer')
    options = layer.config()
    if name != "PReLU":  # whose init is PyTorch's own argument
        options.pop("init", None)
    pools = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
    if isinstance(layer, pools) and any(2 * p > k for p, k in zip(layer.padding, layer.kernel_size, strict=True)):
        raise EngineError(
            f"layer {path} ({layer!r}) has more padding than half of kernel_size, which PyTorch does not take; "
            'the engine "reference" runs it'
        )
    if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and layer.padding in ("same_upper", "same_lower"):
        geometry = (layer.kernel_size, layer.stride, layer.dilation)
        sides = resolve_padding(layer.padding, input_shape[1:], *geometry)
        even = all(before == after for before, after in sides)
        options["padding"] = tuple(p[0] for p in sides) if even else tuple(n for p in reversed(sides) for n in p)
    return name, options


def sides_differ(name: str, options: dict[str, Any]) -> bool:
    """Return whether padding is as torch.nn.functional.pad takes it.

    Args:
        name: From namesake.
        options: From namesake.
    """
    padding = options.get("padding")
    return name.startswith("Conv") and isinstance(padding, tuple) and len(padding) > len(options["kernel_size"])


def check_container(layer: Network, path: str) -> None:
    """Refuse a container of one's own.

    Args:
        layer: A container.
        path: Where it stands.

    Raises:
        EngineError: With path and name.
    """
    if type(layer) not in (nn.Sequential, nn.Residual, nn.Concat, nn.MaxUnpool2d):
        raise EngineError(
            f'PyTorch has nothing for layer {path} ({type(layer).__name__}); the engine "reference" runs any layer'
        )


def check_unpool(layer: nn.MaxUnpool2d, path: str) -> None:
    """Refuse windows that overlap.

    Args:
        layer: The container.
        path: Where it stands.

    Raises:
        EngineError: With the path.
    """
    pool = layer.pool
    if any(s < k for s, k in zip(pool.stride, pool.kernel_size, strict=True)):
        raise EngineError(
            f"layer {path} (MaxUnpool2d) has overlapping windows, of which PyTorch leaves open whose value stands "
            'where two meet; the engine "reference" runs it'
        )


class _Translation:
    """Makes modules of layers; a layer that stands at several places becomes one module, or modules that share."""

    def __init__(self, network: Network, replace: Replacement) -> None:
        self._replace = replace
        self._steps: Iterator[tuple[int, tuple[str, Layer, Shape, Shape]]]
        self._steps = enumerate(network.trace(network.input_shape))
        self._made: dict[tuple[int, str], Any] = {}
        self._owners: dict[int, Any] = {}

    def module(self, layer: Layer, path: str) -> Any:
        if not isinstance(layer, Network):
            return self._leaf(layer, path)
        check_container(layer, path)
        if isinstance(layer, nn.MaxUnpool2d):
            return self._unpool(layer, path)
        children = {name: self.module(child, join(path, name)) for name, child in layer.children()}
        if isinstance(layer, nn.Sequential):
            return torch.nn.Sequential(*children.values())
        graph = fx.Graph()
        x = graph.placeholder("x")
        outputs = tuple(graph.call_module(name, (x,)) for name in children)
        if isinstance(layer, nn.Concat):
            y = graph.call_function(torch.cat, (outputs,), {"dim": 1})
        else:
            y = graph.call_function(operator.add, (outputs[0], outputs[1] if len(outputs) > 1 else x))
        return self._block(type(layer).__name__, children, graph, y)

    def _block(self, name: str, children: dict[str, Any], graph: Any, y: Any) -> Any:
        graph.output(y)
        return fx.GraphModule(torch.nn.ModuleDict(children), graph, class_name=name)

    def _leaf(self, layer: Layer, path: str) -> Any:
        number, (_, _, input_shape, _) = next(self._steps)
        other = self._replace(layer, number)
        if other is not None:
            return other
        name, options = namesake(layer, path, input_shape)
        key = id(layer), str(options.get("padding"))
        if key not in self._made:
            self._made[key] = module = self._new(name, options)
            owner = self._owners.setdefault(id(layer), module)
            for parameter, value in owner.named_parameters():
                setattr(module, parameter, value)
        return self._made[key]

    def _new(self, name: str, options: dict[str, Any]) -> Any:
        kind, sides = getattr(torch.nn, name), options.get("padding")
        if not sides_differ(name, options):
            return kind(**options)
        conv = kind(**{**options, "padding": 0})
        graph = fx.Graph()
        mode = {"zeros": "constant"}.get(conv.padding_mode, conv.padding_mode)
        x = graph.call_function(torch.nn.functional.pad, (graph.placeholder("x"), sides), {"mode": mode})
        weights = [graph.get_attr("weight"), graph.get_attr("bias") if conv.bias is not None else None]
        geometry = {"stride": conv.stride, "dilation": conv.dilation, "groups": conv.groups}
        run = getattr(torch.nn.functional, name.lower())
        graph.output(graph.call_function(run, (x, *weights), geometry))
        return fx.GraphModule(conv, graph, class_name=f"Padded{name}")

    def _unpool(self, layer: nn.MaxUnpool2d, path: str) -> Any:
        check_unpool(layer, path)
        next(self._steps)
        options = layer.pool.config()
        children = {
            "pool": torch.nn.MaxPool2d(**options, return_indices=True),
            "body": self.module(layer.body, join(path, "body")),
        }
        graph = fx.Graph()
        x = graph.placeholder("x")
        pooled = graph.call_module("pool", (x,))
        y, places = (graph.call_function(operator.getitem, (pooled, i)) for i in range(2))
        moved = graph.call_module("body", (y,))
        size = graph.call_method("size", (x,))
        window = {name: options[name] for name in ("kernel_size", "stride", "padding")}
        unpool = torch.nn.functional.max_unpool2d
        back = graph.call_function(unpool, (moved, places), {**window, "output_size": size})
        return self._block("MaxUnpool2d", children, graph, back)


def to_loss(loss: Loss, dtype: Any) -> Any:
    """Return the torch.nn loss of the same name.

    Args:
        loss: One of pellucid's.
        dtype: Of its weights, as torch has it.

    Raises:
        EngineError: For a loss of one's own.
    """
    name = type(loss).__name__
    if getattr(losses, name, None) is not type(loss):
        raise EngineError(f'PyTorch has nothing for the loss {name}; the engine "reference" runs any loss')
    options = {
        key: torch.tensor(value, dtype=dtype) if isinstance(value, list) else value
        for key, value in loss.config().items()
    }
    return getattr(torch.nn, name)(**options)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what PyTorch says of speed where padding="same" meets an even kernel."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel", UserWarning)
        yield


def tensor(array: Array) -> Any:
    """Return an array as a tensor, in the same memory where both allow it.

    Args:
        array: Of any layout.
    """
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array) if array.flags.writeable else torch.tensor(array)
