"""What every engine offers: the same methods, names and defaults."""

from __future__ import annotations

from typing import Protocol

from pellucid._types import Array
from pellucid.errors import MissingDependencyError, OptionError, one_line, unknown
from pellucid.nn import Loss, Network
from pellucid.optim import Optimizer

NAMES = ("compiled", "reference", "torch")
DEVICES = ("cpu", "cuda")
PRECISIONS = ("float32", "bfloat16")


class Engine(Protocol):
    """Runs a whole network on batches.

    Attributes:
        hits: After train: how many samples of each step were classified rightly, int64; 0 where targets are no labels.
    """

    hits: Array

    def build(
        self,
        network: Network,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        seed: int = 0,
        threads: int | None = None,
    ) -> None:
        """Get ready for a network; what the engine cannot run is an EngineError here.

        Args:
            network: Built. Training changes its parameters in place.
            loss: Needed for gradients and training.
            optimizer: Needed for training.
            seed: Of dropout.
            threads: How many to use; chosen by the engine if None.
        """

    def predict(self, x: Array) -> Array:
        """Return the network's raw outputs (N, ...).

        Args:
            x: Canonical input, (N, C, H, W).
        """

    def loss_and_gradients(self, x: Array, target: Array, step: int = 0) -> tuple[float, Array]:
        """Return the loss and the flat array of its gradients, in training mode; parameters stay as they are.

        Args:
            x: Canonical input, (N, C, H, W).
            target: Labels (N,) or floats (N, ...).
            step: Number of the step, which dropout depends on.
        """

    def train(
        self,
        images: Array,
        targets: Array,
        order: Array,
        batch_size: int,
        first_step: int,
        learning_rates: Array,
    ) -> Array:
        """Train a chunk of consecutive steps and return the loss of each, float64.

        Ends early after the first loss that is not finite, whose step is not applied, and at interrupt().

        Args:
            images: Canonical input, (M, C, H, W).
            targets: Labels (M,) or floats (M, ...).
            order: Which samples, in this order: indices into images, (S,).
            batch_size: Samples of a step; the last step may have fewer.
            first_step: Number of the chunk's first step in the whole training, from 0.
            learning_rates: One for each step.
        """

    def interrupt(self) -> None:
        """Ask a train that runs at this moment (in another thread, or below a signal handler) to return early.

        It returns the losses of the steps that were finished, which may be none. An engine that cannot does nothing.
        """

    def state(self) -> dict[str, Array]:
        """Return copies of the parameters, buffers and what the optimizer remembers, as flat arrays by name."""

    def load_state(self, state: dict[str, Array]) -> None:
        """Take back what state() gave.

        Args:
            state: Flat arrays by name.
        """


def create(name: str, device: str = "cpu", precision: str = "float32") -> Engine:
    """Return an engine by its name.

    Args:
        name: One of NAMES.
        device: Where it computes: "cpu", or with the engine "torch" "cuda".
        precision: "float32", or with the engine "torch" "bfloat16" for products and activations. A network of float64
            is computed in float64.

    Raises:
        EngineError: Where the device is not there.
        MissingDependencyError: Where PyTorch is needed and not installed.
        OptionError: For an unknown name, or what only the engine "torch" can.
    """
    for kind, value, known in (
        ("engine", name, NAMES),
        ("device", device, DEVICES),
        ("precision", precision, PRECISIONS),
    ):
        if value not in known:
            raise unknown(kind, value, known)
    if name == "torch":
        check_torch()
        from pellucid.engines.torch import TorchEngine

        return TorchEngine(device, precision)
    for kind, value, usual in (("device", device, "cpu"), ("precision", precision, "float32")):
        if value != usual:
            raise OptionError(f'{kind} "{value}" needs the engine "torch"; the engine "{name}" has only "{usual}"')
    if name == "reference":
        from pellucid.engines.reference import ReferenceEngine

        return ReferenceEngine()
    from pellucid.compiled.engine import CompiledEngine

    return CompiledEngine()


def check_torch() -> None:
    """Say how to install PyTorch, where it is not.

    Raises:
        MissingDependencyError: With the line that installs it.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"PyTorch cannot be imported ({one_line(error)}); pip install 'pellucid[torch]'"
        ) from None
