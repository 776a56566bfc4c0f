"""A network as the source of a Python file for PyTorch; the layers are those of engines.torch_module."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pellucid import __version__, nn
from pellucid._repr import call
from pellucid._types import Shape
from pellucid.engines.torch_module import check_container, check_unpool, namesake, sides_differ
from pellucid.nn import Layer, Network
from pellucid.nn.layer import join

_HEAD = '''"""A network exported by pellucid {version}; it needs torch, and safetensors to read the weights.

{usage}
"""

from pathlib import Path

import torch
from torch import nn
'''

_CLASSES = {
    "Residual": """
class Residual(nn.Module):
    def __init__(self, body, shortcut=None):
        super().__init__()
        self.body = body
        if shortcut is not None:
            self.shortcut = shortcut

    def forward(self, x):
        return self.body(x) + (self.shortcut(x) if hasattr(self, "shortcut") else x)
""",
    "Concat": """
class Concat(nn.Sequential):
    def forward(self, x):
        return torch.cat([branch(x) for branch in self], dim=1)
""",
    "MaxUnpool2d": '''
class MaxUnpool2d(nn.Module):
    """Each value goes back where the pool had found it."""

    def __init__(self, pool, body):
        super().__init__()
        self.pool, self.body = pool, body

    def forward(self, x):
        y, indices = self.pool(x)
        window = self.pool.kernel_size, self.pool.stride, self.pool.padding
        return nn.functional.max_unpool2d(self.body(y), indices, *window, output_size=x.size())
''',
    "Padded": '''
class Padded{name}(nn.{name}):
    """Padding that differs from side to side, as torch.nn.functional.pad takes it."""

    def __init__(self, *arguments, sides, **options):
        super().__init__(*arguments, **options)
        self.sides = sides

    def forward(self, x):
        mode = {{"zeros": "constant"}}.get(self.padding_mode, self.padding_mode)
        x = nn.functional.pad(x, self.sides, mode)
        run = nn.functional.{function}
        return run(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
''',
}

_PREPROCESS = '''
def preprocess(images):
    """Return images N x C x H x W as they are stored, values from low to high, as the network's input.

    PREPARATION says how a picture becomes H x W before: "resize" scales it (bilinear, antialiased), "digit" finds the
    figure in a photo, which pellucid alone does.
    """
    low, high = VALUE_RANGE
    mean, std = (torch.tensor(v, dtype=torch.{dtype}).view(-1, 1, 1) for v in (MEAN, STD))
    return ((images.to(torch.{dtype}) - low) / (high - low) - mean) / std
'''

_LOAD = '''
def load(path=None):
    """Return the network with its weights, for inference; they lie beside this file if path is None."""
    from safetensors.torch import load_file

    network = Network()
    network.load_state_dict(load_file(path or Path(__file__).with_suffix(".safetensors")))
    return network.eval()
'''


def source_of(network: Network, facts: dict[str, Any]) -> str:
    """Return the file's text.

    Args:
        network: Built.
        facts: Constants by name: of a model CLASSES, PREPARATION, VALUE_RANGE, MEAN and STD.

    Raises:
        EngineError: Names the layer that PyTorch has nothing for.
    """
    writer = _Writer(network)
    base, arguments = writer.network()
    usage = "    network = load()\n    outputs = network(x)  # x: N x " + " x ".join(map(str, network.input_shape))
    if facts:
        usage = "    network = load()\n    logits = network(preprocess(images))  # images as they are stored"
    parts = [_HEAD.format(version=__version__, usage=usage)]
    constants = {"INPUT_SHAPE": network.input_shape, **facts}
    parts.append("\n".join(f"{name} = {value!r}" for name, value in constants.items()) + "\n")
    parts += [_CLASSES[name] for name in ("Residual", "Concat", "MaxUnpool2d") if name in writer.used]
    for name in sorted(name.removeprefix("Padded") for name in writer.used if name.startswith("Padded")):
        parts.append(_CLASSES["Padded"].format(name=name, function=name.lower()))
    body = [f"class Network({base}):", "    def __init__(self):"]
    body += [f"        {name} = {made}" for name, made in writer.shared.values()]
    body += ["        super().__init__(", *(f"            {line}" for line in arguments), "        )"]
    if network.dtype == "float64":
        body.append("        self.double()")
    parts += ["\n" + "\n".join(body) + "\n"]
    if facts:
        parts.append(_PREPROCESS.format(dtype=network.dtype.name))
    return "\n".join([*parts, _LOAD])


class _Writer:
    """Writes layers as calls; a layer that stands at several places gets a name."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._steps = iter(network.trace(network.input_shape))
        self._places = Counter(id(leaf) for _, leaf in network.leaves())
        self.used: set[str] = set()
        self.shared: dict[str, tuple[str, str]] = {}

    def network(self) -> tuple[str, list[str]]:
        """Return the base class of the whole network and the lines of its arguments."""
        lines = self._call(self._network, "")
        return lines[0].removesuffix("("), [line.removeprefix("    ") for line in lines[1:-1]]

    def _call(self, layer: Layer, path: str) -> list[str]:
        """Return the lines that make a layer."""
        if not isinstance(layer, Network):
            return [self._leaf(layer, path, next(self._steps)[2])]
        check_container(layer, path)
        name = type(layer).__name__
        lines = [f"nn.{name}(" if name == "Sequential" else f"{name}("]
        if isinstance(layer, nn.MaxUnpool2d):
            check_unpool(layer, path)
            next(self._steps)
            pool = f"nn.{call(type(layer.pool), layer.pool.config())[:-1]}, return_indices=True)"
            children = [("pool", [pool]), ("body", self._call(layer.body, join(path, "body")))]
        else:
            children = [(key, self._call(child, join(path, key))) for key, child in layer.children()]
        if name != "Sequential":
            self.used.add(name)
        for key, child in children:
            word = f"{key}=" if not key.isdecimal() else ""
            child = [word + child[0], *child[1:]]
            lines += [f"    {line}" for line in child[:-1]] + [f"    {child[-1]},"]
        return [*lines, ")"] if children else [lines[0] + ")"]

    def _leaf(self, layer: Layer, path: str, input_shape: Shape) -> str:
        name, options = namesake(layer, path, input_shape)
        prefix = "nn."
        if sides_differ(name, options):
            sides, prefix = options.pop("padding"), "Padded"
            self.used.add(f"Padded{name}")
        made = prefix + call(type(layer), options, always=("dim",))
        if prefix == "Padded":
            made = f"{made[:-1]}, sides={sides!r})"
        if self._places[id(layer)] == 1:
            return made
        key = f"{id(layer)} {options.get('padding')}"
        return self.shared.setdefault(key, (f"shared{len(self.shared) + 1}", made))[0]
