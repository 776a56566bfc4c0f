"""The reference engine: calls the layers' own NumPy definitions. Slower than the compiled one, but the definition.

BLAS runs on one thread, so that a run gives the same bits as the run before.
"""

from __future__ import annotations

import math

import numpy as np
from threadpoolctl import ThreadpoolController

from pellucid._types import Array
from pellucid.errors import EngineError, OptionError, ShapeError
from pellucid.nn import Loss, Network
from pellucid.optim import Optimizer
from pellucid.random import Stream

# Patches of a convolution hold about kernel-size times the activations; this many floats bound a batch of predict.
_PREDICT_FLOATS = 1 << 23


class ReferenceEngine:
    """Runs a network by calling its layers; see engines.base.Engine for the methods."""

    def __init__(self) -> None:
        self.hits: Array = np.empty(0, dtype=np.int64)
        self._network: Network | None = None
        self._loss: Loss | None = None
        self._optimizer: Optimizer | None = None
        self._slots: dict[str, Array] = {}
        self._seed = 0
        self._blas = ThreadpoolController()

    def build(
        self,
        network: Network,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        seed: int = 0,
        threads: int | None = None,
    ) -> None:
        """Get ready for a network.

        Args:
            network: Built. Training changes its parameters in place.
            loss: Needed for gradients and training.
            optimizer: Needed for training.
            seed: Of dropout.
            threads: Makes no difference: this engine uses one.
        """
        if not network.built:
            raise EngineError("the network is not built yet; give input_shape=(C, H, W), or call fit")
        if threads is not None and threads < 1:
            raise OptionError(f"threads must be at least 1, got {threads}")
        if loss is not None:
            loss.check_network(network)
        self._network, self._loss, self._optimizer, self._seed = network, loss, optimizer, seed
        self._layers = network.layer_slices()
        largest = max(math.prod(out) for _, _, _, out in network.trace(network.input_shape))
        self._predict_batch = max(1, min(256, _PREDICT_FLOATS // (9 * largest)))
        if optimizer is not None:
            self._slots = optimizer.start(network.flat_parameters.size, network.dtype)

    def predict(self, x: Array) -> Array:
        """Return the network's raw outputs (N, ...).

        Args:
            x: Canonical input, (N, C, H, W).
        """
        network = self._ready()
        x = np.asarray(x)
        if x.shape[1:] != network.input_shape:
            raise ShapeError(f"the network takes (N, {', '.join(map(str, network.input_shape))}), got {x.shape}")
        starts = range(0, max(len(x), 1), self._predict_batch)
        with self._blas.limit(limits=1), np.errstate(all="ignore"):
            parts = [network(x[i : i + self._predict_batch].astype(network.dtype, copy=False)) for i in starts]
        return np.concatenate(parts)

    def loss_and_gradients(self, x: Array, target: Array, step: int = 0) -> tuple[float, Array]:
        """Return the loss and the flat array of its gradients, in training mode; parameters stay as they are.

        Args:
            x: Canonical input, (N, C, H, W).
            target: Labels (N,) or floats (N, ...).
            step: Number of the step, which dropout depends on.
        """
        network = self._ready()
        version = network.version
        with self._blas.limit(limits=1), np.errstate(all="ignore"), network.edit():
            buffers = network.flat_buffers.copy()
            try:
                value, gradients, _ = self._forward_backward(network, x, target, step)
            finally:
                network.flat_buffers[...] = buffers
        network.version = version  # nothing has changed, so no engine needs to repack
        return value, gradients

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

        Args:
            images: Canonical input, (M, C, H, W).
            targets: Labels (M,) or floats (M, ...).
            order: Which samples, in this order: indices into images, (S,).
            batch_size: Samples of a step; the last step may have fewer.
            first_step: Number of the chunk's first step in the whole training, from 0.
            learning_rates: One for each step.
        """
        network = self._ready()
        if self._optimizer is None:
            raise EngineError("the engine was built without an optimizer; training needs one")
        losses, hits = [], []
        with self._blas.limit(limits=1), np.errstate(all="ignore"), network.edit():
            for i, lr in enumerate(learning_rates):
                batch = order[i * batch_size : (i + 1) * batch_size]
                buffers = network.flat_buffers.copy()
                step = first_step + i
                value, gradients, correct = self._forward_backward(network, images[batch], targets[batch], step)
                losses.append(value)
                hits.append(correct)
                if not math.isfinite(value):
                    network.flat_buffers[...] = buffers
                    break
                self._optimizer.step(network.flat_parameters, gradients, self._slots, float(lr), step, self._layers)
        self.hits = np.array(hits, dtype=np.int64)
        return np.array(losses, dtype=np.float64)

    def _forward_backward(self, network: Network, x: Array, target: Array, step: int) -> tuple[float, Array, int]:
        if self._loss is None:
            raise EngineError("the engine was built without a loss; gradients need one")
        rng = Stream(self._seed, step=step)
        output, backward = network.forward(x.astype(network.dtype, copy=False), training=True, rng=rng)
        value, backward_of_loss = self._loss.forward(output, target)
        _, gradients = backward(backward_of_loss().astype(network.dtype, copy=False))
        labels = np.issubdtype(target.dtype, np.integer) and output.ndim == 2
        hits = int((output.argmax(axis=1) == target).sum()) if labels else 0
        return value, network.flatten(gradients), hits

    def interrupt(self) -> None:
        """Do nothing: a chunk of steps runs to its end."""

    def state(self) -> dict[str, Array]:
        """Return copies of the parameters, buffers and what the optimizer remembers, as flat arrays by name."""
        network = self._ready()
        arrays = {"parameters": network.flat_parameters, "buffers": network.flat_buffers, **self._slots}
        return {name: array.copy() for name, array in arrays.items()}

    def load_state(self, state: dict[str, Array]) -> None:
        """Take back what state() gave.

        Args:
            state: Flat arrays by name.
        """
        network = self._ready()
        with network.edit():
            arrays = {"parameters": network.flat_parameters, "buffers": network.flat_buffers, **self._slots}
            if set(state) != set(arrays) or any(state[name].shape != a.shape for name, a in arrays.items()):
                raise EngineError("this state belongs to another network or optimizer")
            for name, array in arrays.items():
                array[...] = state[name]

    def _ready(self) -> Network:
        if self._network is None:
            raise EngineError("the engine is not built yet; call build(network) first")
        return self._network
