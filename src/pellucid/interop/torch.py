"""PyTorch: networks there and back, and files that PyTorch alone can run."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid._types import Array, Shape
from pellucid.engines.base import check_torch
from pellucid.errors import FileError, OptionError
from pellucid.files import read_bytes, write_atomic
from pellucid.nn import Network
from pellucid.random import Stream
from pellucid.shapes import integer

if TYPE_CHECKING:
    from pellucid.model import Model

TOLERANCE = 1e-5
"""How far an exported network's outputs may lie from ours, as a share of the largest."""
_SAMPLES = 8


def to_torch(net: Network) -> Any:
    """Return a network as a torch.nn.Module with the same state-dict names, its weights copied, in inference mode.

    It consists of PyTorch's own classes only, so it runs, trains, and is saved where pellucid is not installed.

    Args:
        net: Built.

    Raises:
        EngineError: For a layer that PyTorch has nothing for.
        MissingDependencyError: Without PyTorch.
        OptionError: For a network that is not built.

    >>> from pellucid import nn
    >>> net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10), input_shape=(1, 8, 8))
    >>> to_torch(net)
    Sequential(
      (0): Conv2d(1, 8, kernel_size=(3, 3), stride=(1, 1))
      (1): ReLU()
      (2): Flatten(start_dim=1, end_dim=-1)
      (3): Linear(in_features=288, out_features=10, bias=True)
    )
    """
    check_torch()
    from pellucid.engines.torch_module import to_module

    module = to_module(_checked(net))
    module.input_shape = net.input_shape  # what from_torch would otherwise have to be told
    return module.eval()


def from_torch(module: Any, input_shape: Shape | None = None) -> Network:
    """Return a torch.nn.Module as a network, its weights copied; or refuse and name the module that cannot be read.

    Taken are torch.nn.Sequential, the modules of torch.nn that pellucid has by the same name, and modules whose forward
    calls such modules and their functions one after another, adds branches that part from one place (a residual
    block), puts them one behind the other (an inception block), or unpools with the indices of its pool. Not taken is
    what does something else in training than in inference, depends on values or chance, has hooks, or ties single
    parameters. Where the input's shape is known, the outputs of both are compared at the end.

    Names of parameters follow the structure of the network, which is the module's for Sequential.

    Args:
        module: A torch.nn.Module of float32 or float64; it is not changed.
        input_shape: Shape of one input, as (C, H, W). If None, what to_torch noted or a first Linear says; if
            neither, the network is not built yet, and a forward with sizes in it cannot be read.

    Raises:
        MissingDependencyError: Without PyTorch.
        OptionError: Names the module that cannot be read, and why.
        ShapeError: For an input_shape that does not fit.

    >>> import torch
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10), torch.nn.Softmax(dim=1))
    >>> from_torch(module, input_shape=(1, 8, 8))
    Sequential(
      (0) Flatten()
      (1) Linear(64, 10)
      (2) Softmax()
    )
    """
    check_torch()
    from pellucid.interop.torch_reader import known_input, read

    shape = known_input(module) if input_shape is None else input_shape
    if shape is not None:
        if not isinstance(shape, (tuple, list)) or not shape:
            raise OptionError(f"input_shape must be a tuple such as (1, 28, 28), got {shape!r}")
        shape = tuple(integer(n, "input_shape") for n in shape)
    return read(module, shape)


@dataclass(frozen=True)
class TorchExport:
    """What export_torch has written.

    Attributes:
        code: The Python file.
        weights: The safetensors file beside it.
        difference: Largest difference of its outputs from ours, as a share of the largest output.
    """

    code: Path
    weights: Path
    difference: float


def export_torch(model_or_net: Model | Network, path: str | Path) -> TorchExport:
    """Write FILE.py, a torch.nn.Module as plain code with a function that loads it, and its weights FILE.safetensors.

    FILE.py needs torch and safetensors only. Of a model it also holds class names and preprocessing. Before anything is
    written the code runs in this process, and its outputs are compared with the definition's. Both files are written,
    or neither.

    Args:
        model_or_net: A model, or a built network.
        path: FILE, FILE.py or FILE.safetensors.

    Raises:
        EngineError: For a layer that PyTorch has nothing for.
        FileError: Where the files cannot be written, or the outputs differ by more than TOLERANCE.
        MissingDependencyError: Without PyTorch.

    >>> import tempfile
    >>> from pellucid import models
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export = export_torch(models.create("mlp", (1, 8, 8), 10), Path(folder, "mlp"))
    >>> export.code.name, export.weights.name, export.difference < 1e-5
    ('mlp.py', 'mlp.safetensors', True)
    """
    check_torch()
    from safetensors.numpy import save as to_bytes

    from pellucid.interop.torch_source import source_of

    path = Path(path)
    stem = path.name.removesuffix(".py").removesuffix(".safetensors")
    code, weights = path.with_name(f"{stem}.py"), path.with_name(f"{stem}.safetensors")
    model: Any = None if isinstance(model_or_net, Network) else model_or_net
    net = _checked(model_or_net if model is None else getattr(model, "network", model))
    facts: dict[str, Any] = {}
    if model is not None:
        spec = model.input
        facts = {"CLASSES": model.classes, "PREPARATION": spec.preparation, "VALUE_RANGE": spec.value_range}
        facts |= {"MEAN": spec.mean, "STD": spec.std}
    source, state = source_of(net, facts), net.state_dict()

    samples = Stream(0).normal(0, 1, (_SAMPLES, *net.input_shape))
    if model is not None:
        low, high = model.input.value_range
        samples = Stream(0).uniform(low, high, samples.shape)
    samples = samples.astype(net.dtype)
    with np.errstate(all="ignore"):
        expected = net((samples if model is None else model.input.canonical(samples)).astype(net.dtype))
    found = _outputs(source, code.name, state, samples, with_preprocessing=model is not None)
    difference = float(np.abs(found - expected).max() / (np.abs(expected).max() or 1.0))
    if not difference <= TOLERANCE:
        raise FileError(
            f"cannot export {code}: PyTorch's outputs differ by {difference:.1e} of the largest, {TOLERANCE:g} is "
            "allowed; are weights or outputs very large, or not finite?"
        )
    _write_both(weights, to_bytes({name: np.asarray(array, order="C") for name, array in state.items()}), code, source)
    return TorchExport(code, weights, difference)


def _checked(net: object) -> Network:
    if not isinstance(net, Network) or not net.built:
        what = "a network that is not built yet" if isinstance(net, Network) else type(net).__name__
        raise OptionError(
            f"net must be a built network such as nn.Sequential(..., input_shape=(1, 28, 28)), got {what}"
        )
    return net


def _outputs(source: str, name: str, state: dict[str, Array], samples: Array, with_preprocessing: bool) -> Array:
    """Return what the written code gives for samples: it is run here, in a namespace of its own."""
    import torch

    from pellucid.engines.torch_module import quiet

    namespace: dict[str, Any] = {"__name__": "exported", "__file__": name}
    with torch.random.fork_rng(devices=[]), torch.no_grad(), quiet():
        exec(compile(source, name, "exec"), namespace)
        module = namespace["Network"]()
        module.load_state_dict({key: torch.tensor(array) for key, array in state.items()})
        x = torch.tensor(samples)
        return np.asarray(module.eval()(namespace["preprocess"](x) if with_preprocessing else x).numpy())


def _write_both(weights: Path, content: bytes, code: Path, source: str) -> None:
    before = read_bytes(weights) if weights.exists() else None
    write_atomic(weights, content)
    try:
        write_atomic(code, source.encode())
    except FileError:
        with suppress(OSError, FileError):
            weights.unlink() if before is None else write_atomic(weights, before)
        raise
