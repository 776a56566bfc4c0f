"""The compiled engine: a network becomes a program for kernels, and the program runs on as many threads as pay."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from pellucid import nn, optim
from pellucid._types import Array
from pellucid.compiled import graph
from pellucid.compiled import threads as threads_to_use
from pellucid.compiled.backward import Backward
from pellucid.compiled.forward import Forward
from pellucid.compiled.kernel import prepare
from pellucid.compiled.machine import Machine
from pellucid.compiled.program import Program
from pellucid.compiled.runner import STEP, run_program
from pellucid.errors import EngineError, ShapeError
from pellucid.nn import Loss, Network
from pellucid.optim import Optimizer
from pellucid.random import step_keys

_GROUP = 8  # images of a task, at most
_SPEED = 3e10  # multiplications a second of one thread, roughly; only decides how many threads pay and who waits
_WORTH = 60e-6  # seconds of work for which a further thread pays


class CompiledEngine:
    """Runs a network as compiled kernels, in float32; see engines.base.Engine for the methods."""

    def __init__(self) -> None:
        self.hits: Array = np.empty(0, dtype=np.int64)
        self._network: Network | None = None
        self._lock = threading.RLock()

    def build(
        self,
        network: Network,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        seed: int = 0,
        threads: int | None = None,
    ) -> None:
        """Translate a network and compile what it needs; what no kernel can run is an EngineError here.

        Args:
            network: Built. Training changes its parameters in place. In float64 it can only predict, in float32.
            loss: Needed for gradients and training.
            optimizer: Needed for training.
            seed: Of dropout.
            threads: How many to use at most; as many as there are and pay if None.
        """
        if not network.built:
            raise EngineError("the network is not built yet; give input_shape=(C, H, W), or call fit")
        if network.dtype != np.float32 and loss is not None:
            raise EngineError(
                f'the engine "compiled" trains in float32, the network is {network.dtype}; '
                'use the engine "reference", or network.astype("float32")'
            )
        self._most, self._exactly = threads_to_use.check(threads), threads is not None
        if loss is not None:
            loss.check_network(network)
            loss.forward(np.zeros((1, *network.output_shape(network.input_shape)), np.float32), _example(loss, network))
        self._network, self._loss, self._optimizer, self._seed = network, loss, optimizer, seed
        self._graph = graph.translate(network)
        forward = Forward(self._graph, network, training=False)
        programs = [forward.lower()]
        if loss is not None:
            programs.append(Backward(self._graph, network, loss, optimizer).lower())
        prepare([run_program(), *(kernel for program in programs for kernel in program.kernels())])
        self._predictor = Machine(programs[0], network)
        step = Machine(programs[1], network) if loss is not None else None
        self._trainer = None if optimizer is None else step
        self._differentiator = step if optimizer is None else None
        self._names = [] if optimizer is None else list(optimizer.start(0, np.float32))
        self._checked: Array | None = None
        maps = [op.output.maps for op in self._graph.operations if op.kind == "norm"]
        self._smallest = min((h * w for _, h, w in maps), default=2)

    @property
    def program(self) -> Program:
        """The program of a training step, or of prediction where there is none; str() of it is the debug view."""
        self._ready()
        return (self._trainer or self._predictor).program

    def interrupt(self) -> None:
        """Let a train that runs (in another thread, or below a signal handler) return after the steps done so far."""
        if self._network is not None and self._trainer is not None:
            self._trainer.stop()

    def predict(self, x: Array) -> Array:
        """Return the network's raw outputs (N, ...).

        Args:
            x: Canonical input, (N, C, H, W).
        """
        network = self._ready()
        x = self._images(x)
        outputs = np.empty((len(x), *network.output_shape(network.input_shape)), dtype=np.float32)
        step = np.zeros(1, dtype=STEP.dtype)
        step["batch"] = len(x)
        seconds = self._predictor.program.cost * len(x) / _SPEED
        count = self._count(seconds, len(x))
        with self._lock:
            self._predictor.go()
            self._predictor.refresh()
            self._predictor.run(
                step,
                threads=count,
                frames=count * _GROUP,
                group=_GROUP,
                own_frames=True,
                images=x,
                outputs=outputs,
                seconds=seconds / count,
            )
        return outputs

    def loss_and_gradients(self, x: Array, target: Array, step: int = 0) -> tuple[float, Array]:
        """Return the loss and the flat array of its gradients, in training mode; parameters stay as they are.

        Args:
            x: Canonical input, (N, C, H, W).
            target: Labels (N,) or floats (N, ...).
            step: Number of the step, which dropout depends on.
        """
        network = self._ready()
        if self._loss is None:
            raise EngineError("the engine was built without a loss; gradients need one")
        with self._lock:
            if self._differentiator is None:
                program = Backward(self._graph, network, self._loss, None).lower()
                prepare(program.kernels())
                self._differentiator = Machine(program, network)
            self._differentiator.go()
            order, size = np.arange(len(x)), max(len(x), 1)
            prepared = self._prepare(self._differentiator, self._loss, x, target, order, size, step, np.zeros(1))
            losses, _ = self._differentiator.run(**prepared)
            gradients = np.zeros(network.flat_parameters.size, dtype=np.float32)
            self._differentiator.program.parameters.unpack(self._differentiator.gradients, gradients)
        return float(losses[0]), gradients

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
        self._ready()
        if self._loss is None or self._optimizer is None or self._trainer is None:
            missing = "a loss" if self._loss is None else "an optimizer"
            raise EngineError(f"the engine was built without {missing}; training needs one")
        with self._lock:
            self._trainer.go()
            prepared = self._prepare(
                self._trainer, self._loss, images, targets, order, batch_size, first_step, learning_rates
            )
            try:
                losses, self.hits = self._trainer.run(**prepared)
            finally:  # after Ctrl-C too: the steps that were finished hold
                self._trainer.hand_over()
        return losses

    def _prepare(
        self,
        machine: Machine,
        loss: Loss,
        images: Array,
        targets: Array,
        order: Array,
        batch_size: int,
        first_step: int,
        rates: Array,
    ) -> dict[str, Any]:
        """Return what a machine wants for training steps, checked; it then has the present parameters."""
        images, targets = self._images(images), self._targets(loss, targets)
        order = np.ascontiguousarray(order, dtype=np.int64)[: len(rates) * batch_size]
        if len(targets) != len(images):
            raise ShapeError(f"there are {len(images)} images, but {len(targets)} targets")
        if order.size and (order.min() < 0 or order.max() >= len(images)):
            raise ShapeError(f"order has indices from {order.min()} to {order.max()} into {len(images)} images")
        steps = np.zeros(len(rates), dtype=STEP.dtype)
        steps["start"] = np.arange(len(rates)) * batch_size
        steps["batch"] = np.minimum(len(order) - steps["start"], batch_size)
        fewest = int(steps["batch"].min(initial=2))
        if fewest * self._smallest < 2:
            raise ShapeError(
                "batch norm in training needs more than one value per channel, but a batch has one image of one pixel "
                f"({len(order)} samples in batches of {batch_size}); use another batch size"
            )
        steps["rate"] = rates
        numbers = first_step + 1.0 + np.arange(len(rates))
        if isinstance(self._optimizer, optim.Adam):
            beta1, beta2 = self._optimizer.betas
            steps["correction1"] = 1 / (1 - beta1**numbers)
            steps["correction2"] = 1 / np.sqrt(1 - beta2**numbers)
        steps["divisor"] = _divisors(loss, targets[order], steps)
        dropouts = machine.program.dropouts
        keys = step_keys(self._seed, first_step, len(rates), dropouts) if dropouts else None
        steps["keys"] = np.arange(len(rates)) * len(dropouts)
        if machine.program.loss is not None and "labels" in (machine.program.loss.record.dtype.names or ()):
            machine.program.loss.record["labels"] = int(targets.dtype == np.int64)
        seconds = 3 * machine.program.cost * batch_size / _SPEED
        count = self._count(seconds, batch_size)
        group = next(g for g in (_GROUP, 4, 2, 1) if g == 1 or batch_size >= 2 * g * count)
        machine.refresh()
        return {
            "steps": steps,
            "threads": count,
            "frames": min(batch_size, max(len(order), 1)),
            "group": group,
            "images": images,
            "targets": targets,
            "order": order,
            "keys": keys,
            "seconds": seconds * len(rates) / count,
        }

    def state(self) -> dict[str, Array]:
        """Return copies of the parameters, buffers and what the optimizer remembers, as flat arrays by name."""
        network = self._ready()
        state = {"parameters": network.flat_parameters.copy(), "buffers": network.flat_buffers.copy()}
        if self._trainer is not None:
            for name, memory in zip(self._names, self._trainer.memory, strict=False):
                state[name] = np.zeros_like(network.flat_parameters)
                self._trainer.program.parameters.unpack(memory, state[name])
        return state

    def load_state(self, state: dict[str, Array]) -> None:
        """Take back what state() gave.

        Args:
            state: Flat arrays by name.
        """
        network = self._ready()
        own = self.state()
        if set(state) != set(own) or any(state[name].shape != array.shape for name, array in own.items()):
            raise EngineError("this state belongs to another network or optimizer")
        with self._lock, network.edit():
            network.flat_parameters[...] = state["parameters"]
            network.flat_buffers[...] = state["buffers"]
            if self._trainer is not None:
                for name, memory in zip(self._names, self._trainer.memory, strict=False):
                    memory[:] = np.where(
                        self._trainer.program.parameters.source >= 0,
                        self._trainer.program.parameters.pack(state[name]),
                        0,
                    )

    def _ready(self) -> Network:
        if self._network is None:
            raise EngineError("the engine is not built yet; call build(network) first")
        return self._network

    def _images(self, x: Array) -> Array:
        network, x = self._ready(), np.asarray(x)
        if x.shape[1:] != network.input_shape:
            raise ShapeError(f"the network takes (N, {', '.join(map(str, network.input_shape))}), got {x.shape}")
        return np.ascontiguousarray(x, dtype=np.float32)

    def _targets(self, loss: Loss, targets: Array) -> Array:
        """Return targets as the kernels want them; an array is checked when it is first seen."""
        if targets is not self._checked and len(targets):
            network = self._ready()
            shape = network.output_shape(network.input_shape)
            # The loss itself is asked, about the smallest and the largest label, or one row of floats.
            some = [targets.argmin(), targets.argmax()] if targets.ndim == 1 else [0]
            loss.forward(np.zeros((len(some), *shape), dtype=np.float32), targets[some])
            self._checked = targets
        kind = np.int64 if np.issubdtype(targets.dtype, np.integer) else np.float32
        return np.ascontiguousarray(targets, dtype=kind)

    def _count(self, seconds: float, images: int) -> int:
        """Return how many threads to use for work of so many seconds on one, over so many images."""
        if self._exactly:
            return self._most
        return max(1, min(self._most, images, math.ceil(seconds / _WORTH)))


def programs(network: Network) -> tuple[Program, Program]:
    """Return the programs of a training step (with Adam) and of prediction, to look at; compiles nothing.

    Args:
        network: Built.

    Raises:
        EngineError: For a network that the engine cannot run.
    """
    translated, labels = graph.translate(network), len(network.output_shape(network.input_shape)) == 1
    training = Backward(translated, network, nn.CrossEntropyLoss() if labels else nn.MSELoss(), optim.Adam())
    return training.lower(), Forward(translated, network, training=False).lower()


def planned_bytes(network: Network, batch_size: int) -> tuple[int, int]:
    """Return the memory that training (with Adam) and prediction will take, as planned, in bytes; compiles nothing.

    Args:
        network: Built.
        batch_size: Images of a training step.

    Raises:
        EngineError: For a network that the engine cannot run.
    """
    (training, prediction), count = programs(network), threads_to_use.available()
    return training.memory_bytes(batch_size, count), prediction.memory_bytes(count * _GROUP, count)


def _example(loss: Loss, network: Network) -> Array:
    """Return targets for one image, to let the loss check the output's shape."""
    if loss.takes_labels:
        return np.zeros(1, dtype=np.int64)
    return np.zeros((1, *network.output_shape(network.input_shape)), dtype=np.float32)


def _divisors(loss: Loss, targets: Array, steps: Array) -> Array:
    """Return what the sum over each step's images is divided by.

    Args:
        loss: Of the network.
        targets: Of all steps, in order.
        steps: With start and batch.
    """
    if isinstance(loss, nn.CrossEntropyLoss):
        if loss.weight is None or targets.dtype != np.int64:
            return np.asarray(steps["batch"], dtype=np.float64)
        return np.array(
            [loss.weight[targets[s : s + n]].sum() for s, n in zip(steps["start"], steps["batch"], strict=True)]
        )
    return np.asarray(steps["batch"] * math.prod(targets.shape[1:]), dtype=np.float64)
