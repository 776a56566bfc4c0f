"""The compiled engine: a network becomes a program for kernels, and the program runs on as many threads as pay."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid import nn, optim
from pellucid._types import Array, Shape
from pellucid.compiled import graph
from pellucid.compiled import threads as threads_to_use
from pellucid.compiled.backward import Backward, in_one_go
from pellucid.compiled.forward import Forward
from pellucid.compiled.kernel import prepare
from pellucid.compiled.layout import ParameterLayout
from pellucid.compiled.machine import SHORT, Machine
from pellucid.compiled.program import Program
from pellucid.compiled.runner import STEP, run_program
from pellucid.errors import EngineError, ShapeError
from pellucid.nn import Loss, Network
from pellucid.optim import Optimizer
from pellucid.random import step_keys

_GROUP = 4  # images of a task, at most
_TASK_SECONDS = 0.01  # for which a task should not last longer, since a stop waits for one instruction of it
_SPEED = 3e10  # multiplications a second of one thread, roughly; only decides how many threads pay and who waits
_WORTH = 60e-6  # seconds of work for which a further thread pays


class CompiledEngine:
    """Runs a network as compiled kernels, in float32; see engines.base.Engine for the methods."""

    def __init__(self) -> None:
        self.hits: Array = np.empty(0, dtype=np.int64)
        self._built: _Built | None = None
        self._lock, self._process = threading.RLock(), os.getpid()

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
        most, shape = threads_to_use.check(threads), network.output_shape(network.input_shape)
        if loss is not None:
            loss.check_network(network)
            loss.forward(np.zeros((1, *shape), np.float32), _example(loss, shape))
        translated = graph.translate(network)
        prediction = Forward(translated, network, training=False).lower()
        training = None if loss is None else Backward(translated, network, loss, optimizer, most).lower()
        prepare([run_program(), *prediction.kernels(), *(training.kernels() if training is not None else ())])
        maps = [op.output.maps for op in translated.operations if op.kind == "norm"]
        built = _Built(
            network=network,
            output_shape=shape,
            graph=translated,
            loss=loss,
            optimizer=optimizer,
            seed=seed,
            most=most,
            exactly=threads is not None,
            predictor=Machine(prediction, network),
            trainer=Machine(training, network) if training is not None and optimizer is not None else None,
            differentiator=Machine(training, network) if training is not None and optimizer is None else None,
            fewest=max((-(-2 // (h * w)) for _, h, w in maps), default=1),
        )
        with self._guard():
            self._built = built

    @property
    def program(self) -> Program:
        """The program of a training step, or of prediction where there is none; str() of it is the debug view."""
        built = self._ready()
        return (built.trainer or built.predictor).program

    def interrupt(self) -> None:
        """Let a train that runs (in another thread, or below a signal handler) return after the steps done so far.

        One that begins later does not know of it; who calls this must remember it.
        """
        if self._built is not None:
            for machine in (self._built.trainer, self._built.one_by_one):
                if machine is not None:
                    machine.stop()

    def predict(self, x: Array) -> Array:
        """Return the network's raw outputs (N, ...).

        Args:
            x: Canonical input, (N, C, H, W).
        """
        built = self._ready()
        x = built.network.check_images(x)
        x = np.ascontiguousarray(x, dtype=np.float32)
        outputs = np.empty((len(x), *built.output_shape), dtype=np.float32)
        machine = built.predictor
        seconds = machine.program.cost * len(x) / _SPEED
        count, group = built.threads(seconds, len(x)), _group(machine.program)
        with self._guard():
            machine.refresh()
            if count == 1 and seconds < SHORT:
                machine.predict_alone(x, outputs, group)
                return outputs
            step = np.zeros(1, dtype=STEP.dtype)
            step["batch"] = len(x)
            machine.go()
            machine.run(
                step,
                threads=count,
                frames=count * group,
                group=group,
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
        built = self._ready()
        if built.loss is None:
            raise EngineError("the engine was built without a loss; gradients need one")
        with self._guard():
            if built.differentiator is None:
                program = Backward(built.graph, built.network, built.loss, None, built.most).lower()
                prepare(program.kernels())
                built.differentiator = Machine(program, built.network)
            machine = built.differentiator
            machine.go()
            prepared = built.prepare(machine, x, target, np.arange(len(x)), max(len(x), 1), step, np.zeros(1))
            losses, _ = machine.run(**prepared)
            gradients = np.zeros(built.network.flat_parameters.size, dtype=np.float32)
            machine.program.parameters.unpack(machine.gradients, gradients)
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
        built = self._ready()
        if built.trainer is None:
            missing = "a loss" if built.loss is None else "an optimizer"
            raise EngineError(f"the engine was built without {missing}; training needs one")
        with self._guard():
            machine = built.trainer
            if batch_size == 1 and in_one_go(built.optimizer) and built.loss is not None:
                if built.one_by_one is None:
                    single = Backward(built.graph, built.network, built.loss, built.optimizer, one_image=True).lower()
                    prepare(single.kernels())
                    built.one_by_one = Machine(single, built.network)
                machine = built.one_by_one
            machine.go()
            prepared = built.prepare(machine, images, targets, order, batch_size, first_step, learning_rates)
            try:
                losses, self.hits = machine.run(**prepared)
            finally:  # after Ctrl-C too: the steps that were finished hold
                machine.hand_over()
        return losses

    def state(self) -> dict[str, Array]:
        """Return copies of the parameters, buffers and what the optimizer remembers, as flat arrays by name."""
        built = self._ready()
        with self._guard():
            network = built.network
            state = {"parameters": network.flat_parameters.copy(), "buffers": network.flat_buffers.copy()}
            for name, memory, layout in built.memories():
                state[name] = np.zeros_like(network.flat_parameters)
                layout.unpack(memory, state[name])
        return state

    def load_state(self, state: dict[str, Array]) -> None:
        """Take back what state() gave.

        Args:
            state: Flat arrays by name.
        """
        built = self._ready()
        with self._guard(), built.network.edit():
            own = self.state()
            if set(state) != set(own) or any(state[name].shape != array.shape for name, array in own.items()):
                raise EngineError("this state belongs to another network or optimizer")
            built.network.flat_parameters[...] = state["parameters"]
            built.network.flat_buffers[...] = state["buffers"]
            for name, memory, layout in built.memories():
                memory[:] = np.where(layout.source >= 0, layout.pack(state[name]), 0)

    def _ready(self) -> _Built:
        if self._built is None:
            raise EngineError("the engine is not built yet; call build(network) first")
        return self._built

    def _guard(self) -> threading.RLock:
        """Return the lock that keeps several callers apart; a new one after a fork, where nobody else is left."""
        if self._process != os.getpid():
            self._lock, self._process = threading.RLock(), os.getpid()
        return self._lock


@dataclass
class _Built:
    """What build() has made of a network, all of it or nothing.

    Attributes:
        most, exactly: How many threads, and whether just as many or as pay.
        differentiator: Made when gradients are first asked for.
        one_by_one: The trainer for batches of one image, where there is a faster one; made when first needed.
        fewest: How many images a batch must have for batch norm.
    """

    network: Network
    output_shape: Shape
    graph: graph.Graph
    loss: Loss | None
    optimizer: Optimizer | None
    seed: int
    most: int
    exactly: bool
    predictor: Machine
    trainer: Machine | None
    differentiator: Machine | None
    fewest: int
    one_by_one: Machine | None = None

    def threads(self, seconds: float, images: int) -> int:
        """Return how many threads to use for work of so many seconds on one, over so many images."""
        if self.exactly:
            return self.most
        return max(1, min(self.most, images, math.ceil(seconds / _WORTH)))

    def memories(self) -> Iterator[tuple[str, Array, ParameterLayout]]:
        """Yield name, array and layout of what the optimizer remembers."""
        if self.trainer is not None and self.optimizer is not None:
            for name, memory in zip(self.optimizer.start(0, np.float32), self.trainer.memory, strict=False):
                yield name, memory, self.trainer.program.parameters

    def prepare(
        self,
        machine: Machine,
        images: Array,
        targets: Array,
        order: Array,
        batch_size: int,
        first_step: int,
        rates: Array,
    ) -> dict[str, Any]:
        """Return what a machine wants for training steps, checked; it then has the present parameters."""
        order, count = self._checked_order(order, batch_size, rates), len(rates)
        images, targets = self.network.check_images(images), np.asarray(targets)
        if len(targets) != len(images):
            raise ShapeError(f"there are {len(images)} images, but {len(targets)} targets")
        if order.min() < 0 or order.max() >= len(images):
            raise ShapeError(f"order has indices from {order.min()} to {order.max()} into {len(images)} images")
        if not (images.dtype == np.float32 and images.flags.c_contiguous):  # only what these steps need is converted
            images = np.ascontiguousarray(images[order], dtype=np.float32)
            targets, order = targets[order], np.arange(len(order))
        targets = self._checked_targets(targets, order)

        steps = np.zeros(count, dtype=STEP.dtype)
        steps["start"] = np.arange(count) * batch_size
        steps["batch"] = np.minimum(len(order) - steps["start"], batch_size)
        if steps["batch"].min() < self.fewest:
            raise ShapeError(
                "batch norm in training needs more than one value per channel, but a batch has one image of one pixel "
                f"({len(order)} samples in batches of {batch_size}); use another batch size"
            )
        steps["rate"] = rates
        if isinstance(self.optimizer, optim.Adam):
            (beta1, beta2), numbers = self.optimizer.betas, first_step + 1.0 + np.arange(count)
            steps["correction1"] = 1 / (1 - beta1**numbers)
            steps["correction2"] = 1 / np.sqrt(1 - beta2**numbers)
        steps["divisor"] = self._divisors(targets[order], steps)
        dropouts = machine.program.dropouts
        steps["keys"] = np.arange(count) * len(dropouts)
        if machine.program.loss is not None:
            machine.program.loss.record["labels"] = int(targets.dtype == np.int64)
        seconds = 3 * machine.program.cost * batch_size / _SPEED
        threads = 1 if machine is self.one_by_one else self.threads(seconds, batch_size)
        machine.refresh()
        return {
            "steps": steps,
            "threads": threads,
            "frames": int(steps["batch"].max()),
            "group": min(_group(machine.program), max(1, batch_size // (2 * threads))),
            "images": images,
            "targets": targets,
            "order": order,
            "keys": step_keys(self.seed, first_step, count, dropouts) if dropouts else None,
            "seconds": seconds * count / threads,
        }

    def _checked_order(self, order: Array, batch_size: int, rates: Array) -> Array:
        order = np.asarray(order)
        if order.dtype.kind not in "iu" or order.ndim != 1 or not len(order):
            raise ShapeError(f"order must be one or more indices, (S,) integers, got {order.dtype} {order.shape}")
        if batch_size < 1 or -(-len(order) // batch_size) < len(rates):
            raise ShapeError(f"{len(order)} samples in batches of {batch_size} are fewer than {len(rates)} steps")
        return np.ascontiguousarray(order[: len(rates) * batch_size], dtype=np.int64)

    def _checked_targets(self, targets: Array, order: Array) -> Array:
        """Return targets as the kernels want them; the loss is asked about extreme labels, or a row of floats.

        Of probabilities, which must lie between 0 and 1, it is asked about the most extreme rows.
        """
        if self.loss is not None:
            chosen = targets[order]
            some = [chosen.argmin(), chosen.argmax()] if chosen.ndim == 1 else [0]
            if isinstance(self.loss, nn.BCELoss) and chosen.size:
                each = chosen.size // len(chosen)
                some = [chosen.argmin() // each, chosen.argmax() // each]
            self.loss.forward(np.zeros((len(some), *self.output_shape), dtype=np.float32), chosen[some])
        return np.ascontiguousarray(targets, dtype=np.int64 if targets.dtype.kind in "iu" else np.float32)

    def _divisors(self, targets: Array, steps: Array) -> Array:
        """Return what the sum over each step's images is divided by; targets are those of all steps, in order."""
        loss, sizes = self.loss, steps["batch"].astype(np.float64)
        if loss is not None and loss.reduction == "sum":
            return np.ones_like(sizes)
        if not isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)):
            return np.asarray(sizes * math.prod(targets.shape[1:]))
        if loss.weight is None or targets.dtype != np.int64:
            return np.asarray(sizes)
        return np.add.reduceat(loss.weight[targets], steps["start"])


def programs(network: Network, optimizer: Optimizer | None = None) -> tuple[Program, Program]:
    """Return the programs of a training step and of prediction, to look at; compiles nothing.

    Args:
        network: Built.
        optimizer: Of the training; Adam if None.

    Raises:
        EngineError: For a network that the engine cannot run.
    """
    translated, labels = graph.translate(network), len(network.output_shape(network.input_shape)) == 1
    loss, threads = nn.CrossEntropyLoss() if labels else nn.MSELoss(), threads_to_use.available()
    training = Backward(translated, network, loss, optimizer or optim.Adam(), threads)
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
    frames = count * _group(prediction)
    return training.memory_bytes(batch_size, count), prediction.memory_bytes(frames, count)


def _group(program: Program) -> int:
    """Return how many images a task has at most."""
    return max(1, min(_GROUP, int(_TASK_SECONDS * _SPEED / max(program.cost, 1))))


def _example(loss: Loss, shape: Shape) -> Array:
    """Return targets for one image, to let the loss check the output's shape."""
    return np.zeros(1, dtype=np.int64) if loss.takes_labels else np.zeros((1, *shape), dtype=np.float32)
