"""The model file: one sealed file with weights, network, input spec and class names. It is data, never code.

Tensors stand under PyTorch's state-dict names; the facts beside them are those of schema.Document.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid._types import Array, Shape
from pellucid.errors import FileError, PellucidError, one_line
from pellucid.files import write_atomic
from pellucid.interop import sealed
from pellucid.nn import Network
from pellucid.nn.layer import blank
from pellucid.nn.spec import from_spec, to_spec
from pellucid.shapes import cover, resolve_padding

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 2
"""Since 2 a file may hold thresholds of novelty, and the preparation "digit"."""
_LARGEST_MAPS = 1 << 30
"""Numbers that an image may become on its way through the network: 4 GB as float32."""


def weights_digest(network: Network) -> str:
    """Return the SHA-256, in hex, of all parameters and buffers in the order of the state-dict, little endian.

    Args:
        network: Built.
    """
    h = hashlib.sha256()
    for array in unique_state(network).values():
        h.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes())
    return h.hexdigest()


def unique_state(network: Network) -> dict[str, Array]:
    """Return the network's state-dict with a shared layer under its first name only.

    Args:
        network: Built.
    """
    names = network.state_layout()
    return {name: array for name, array in network.state_dict().items() if name in names}


@dataclass(frozen=True)
class Content:
    """What a model file holds.

    Attributes:
        network: Built, with its weights.
        input: Fields of the input spec.
        classes: Names, in the order of the outputs.
        metrics: Numbers worth keeping.
        data_digest: SHA-256 of the training data.
        novelty: Fields of the thresholds, if there are any.
    """

    network: Network
    input: dict[str, Any]
    classes: tuple[str, ...]
    metrics: dict[str, float]
    data_digest: str
    novelty: dict[str, Any] | None


def write(network: Network, facts: Mapping[str, Any], path: str | Path) -> None:
    """Write a model file, whole or not at all.

    Args:
        network: Built.
        facts: Input spec, classes, metrics, data digest and novelty, as plain data.
        path: Where to.

    Raises:
        FileError: Where it cannot be written, or holds what no file may, such as NaN.
        OptionError: For a network with layers of one's own.
    """
    arrays = unique_state(network)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise FileError(f"cannot save {path}: {name} holds NaN or infinity")
    from pellucid.interop.schema import Document

    document = {"format": FORMAT, "kind": "model", "network": to_spec(network), **facts}
    sealed.validate(document, Document, f"cannot save {path}")
    try:
        content = sealed.pack(arrays, document)
    except FileError as error:
        raise FileError(f"cannot save {path}: {error}") from error
    write_atomic(path, content)


def read(path: Path) -> Content:
    """Return what a model file holds.

    Args:
        path: The file.

    Raises:
        FileError: For anything that is not whole and as pellucid wrote it.
    """
    from pellucid.interop.schema import Document

    arrays, document = sealed.read(path, "model", FORMAT, Document)
    try:
        check_sizes(document.network, sum(array.size for array in arrays.values()))
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise FileError(f"tensor {name} holds NaN or infinity")
            if name.endswith("running_var") and (array < 0).any():
                raise FileError(f"tensor {name} holds negative variances")
        with blank():
            network = from_spec(document.network)
            if not isinstance(network, Network):
                raise FileError("the network is a single layer")
            dtype = "float64" if any(a.dtype == np.float64 for a in arrays.values()) else "float32"
            network.build(document.input.shape, dtype=dtype)
        check_maps(network)
        sealed.check_arrays(arrays, network.state_layout())
        network.load_state_dict(arrays, strict=False)
    except PellucidError as error:
        raise FileError(f"{path}: {one_line(error)}") from error
    metrics = {name: value for name, value in document.metrics.items() if value is not None}
    novelty = None if document.novelty is None else document.novelty.model_dump()
    return Content(network, document.input.model_dump(), document.classes, metrics, document.data_digest, novelty)


def check_sizes(spec: dict[str, Any], held: int) -> None:
    """Refuse a network that would take more memory than the file accounts for, before any of it is made.

    Args:
        spec: The network as plain data.
        held: How many numbers the file holds.

    Raises:
        FileError: Names the layer.
    """
    parts: list[Any] = [spec]
    total = 0
    while parts:
        part = parts.pop()
        if isinstance(part, list):
            parts += part
        if not isinstance(part, dict):
            continue
        parts += [part[key] for key in ("layers", "body", "shortcut", "branches", "pool") if key in part]
        name = f"{part.get('layer')!r:.40}"
        if "Lazy" in name:
            raise FileError(f"{name} has no sizes; a model file holds resolved layers only")
        total += _least_size(part)
        if total > held:
            raise FileError(f"{name} has more parameters than the file holds")


def _least_size(layer: dict[str, Any]) -> int:
    """Return how many parameters a layer has at least, as its arguments say."""
    keys = ["in_features", "out_features", "num_features", "num_parameters", "out_channels"]
    keys += ["num_channels"] if layer.get("affine", True) else []
    keys += ["normalized_shape"] if layer.get("elementwise_affine", True) else []
    sizes = [layer[key] for key in keys if key in layer]
    if "out_channels" in layer:
        dims = {"1": 1, "3": 3}.get(str(layer.get("layer"))[-2:-1], 2)
        channels, groups = layer.get("in_channels", 1), layer.get("groups", 1)
        sizes.append(channels // groups if type(channels) is type(groups) is int and groups > 0 else 1)
        sizes += [layer.get("kernel_size", 1)] * (1 if isinstance(layer.get("kernel_size"), list) else dims)
    numbers = [n for size in sizes for n in (size if isinstance(size, list) else [size]) if isinstance(n, int)]
    return abs(math.prod(numbers)) if sizes else 0


def check_maps(network: Network) -> int:
    """Refuse a network that would take any memory for a single image, as a padding of thousands of zeros does.

    Args:
        network: Built.

    Returns:
        How many numbers an image becomes on its way through the network, at most.

    Raises:
        FileError: Names the layer.
    """
    total = 0
    for path, layer, before, after in network.trace(network.input_shape):
        total += math.prod(_widest(layer, before, after)) + math.prod(after)
        if total > _LARGEST_MAPS:
            raise FileError(f"layer {path} ({type(layer).__name__}) is too large: its maps do not fit into memory")
    return total


def _widest(layer: Any, before: Shape, after: Shape) -> Shape:
    """Return the largest maps on the way through a layer, which may be larger than those at both ends."""
    if not hasattr(layer, "kernel_size"):
        # Padding and resampling change one axis after the other.
        return tuple(max(b, a) for b, a in zip(before, after, strict=True)) if len(before) == len(after) else before
    padded, windows = (after, before) if hasattr(layer, "output_padding") else (before, after)
    size, out = padded[1:], windows[1:]
    sides = resolve_padding(layer.padding, size, layer.kernel_size, layer.stride, layer.dilation)
    reach = cover(size, layer.kernel_size, layer.stride, sides, layer.dilation, out)
    return padded[0], *(n + sum(p) for n, p in zip(size, reach, strict=True))
