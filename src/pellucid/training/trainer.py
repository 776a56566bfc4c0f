"""The loop: epochs, chunks of steps, validation, best weights.

Everything that a resume needs is in the attributes that state() collects. The one helper thread prepares augmented
images, which depend on (seed, epoch, sample) only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np

from pellucid._types import Array
from pellucid.data.augment import Augmentation
from pellucid.data.dataset import Dataset
from pellucid.data.loader import Loader
from pellucid.engines import Engine
from pellucid.errors import TrainingError
from pellucid.model import InputSpec
from pellucid.nn import Loss, Network
from pellucid.optim import Optimizer
from pellucid.schedules import Schedule
from pellucid.training import trouble
from pellucid.training.callbacks import Callback
from pellucid.training.history import History, Row
from pellucid.training.progress import ProgressReport
from pellucid.training.signals import Interrupts

_WEIGHTS = ("parameters", "buffers")
_CHUNK_SECONDS = 0.05
_VALIDATION_PIECE = 32  # images between two looks for Ctrl-C; fixed, since the reference engine's bits depend on it

Inputs: TypeAlias = tuple[Array, Array, Array]
"""Images, targets, indices into both."""


class Trainer:
    """Trains a network on the training part of a data set.

    Args:
        network: Built; trained in place.
        ds: Whose parts "train" and "val" are used.
        spec: How images become the network's input.
        loss: What is made small.
        optimizer: How.
        schedule: What the optimizer's lr is multiplied by.
        engine: Built for network, loss and optimizer.
        epochs: How often each sample is seen.
        batch_size: Samples of a step.
        seed: Of order, augmentation and dropout.
        augment: How training images are varied, or None.
        callbacks: What hears of epochs and steps.
        report: Shows progress, or None.
        checkpoint_every: Steps between two checkpoints within an epoch, or None.

    Attributes:
        checkpoint: Called to save: at the end of each epoch, on an interrupt, and every checkpoint_every steps.
    """

    def __init__(
        self,
        network: Network,
        ds: Dataset,
        spec: InputSpec,
        loss: Loss,
        optimizer: Optimizer,
        schedule: Schedule,
        engine: Engine,
        *,
        epochs: int,
        batch_size: int,
        seed: int,
        augment: Augmentation | None = None,
        callbacks: Sequence[Callback] = (),
        report: ProgressReport | None = None,
        checkpoint_every: int | None = None,
    ) -> None:
        self.network, self.loss, self.optimizer, self.schedule = network, loss, optimizer, schedule
        self.engine, self.epochs, self.batch_size = engine, epochs, batch_size
        self.callbacks = [*callbacks, *([report] if report else [])]
        self._report, self._checkpoint_every = report, checkpoint_every
        self.checkpoint: Callable[[], None] = lambda: None
        self._spec = spec
        self._loader = Loader(ds, "train", batch_size, augment=augment, seed=seed)
        self._targets = ds.targets[ds.splits.train]
        self._images = None if augment else spec.canonical(ds.images[ds.splits.train])
        self._val_x = spec.canonical(ds.images[ds.splits.val])
        self._val_targets = ds.targets[ds.splits.val]
        self._by_step = any(type(c).on_batch_end is not Callback.on_batch_end for c in callbacks)
        self._chunk_steps = 1
        self._helper: ThreadPoolExecutor | None = None
        self._ahead: tuple[Array, Future[Inputs]] | None = None
        self._earlier_seconds = 0.0
        self._epoch_began = self._began = time.perf_counter()

        self.classifies = ds.is_classification
        self.validates = len(self._val_x) > 0
        self.epoch_size = self._loader.samples
        self.steps_per_epoch = len(self._loader)
        self.total_steps = self.steps_per_epoch * epochs
        self.history = History()
        self.epoch = 0
        self.step = 0
        self.seen = 0
        self.epoch_seconds = 0.0
        self.stopped = ""
        self.signal: int | None = None
        self.warnings: list[str] = []
        self.best: dict[str, Array] | None = None
        self._sums = {"loss": 0.0, "weight": 0.0, "hits": 0.0}

    def stop(self, reason: str) -> None:
        """End the training after the present epoch.

        Args:
            reason: What Run.stopped will say.
        """
        self.stopped = self.stopped or reason

    def note(self, message: str) -> None:
        """Say something, where progress is shown.

        Args:
            message: One line.
        """
        if self._report:
            self._report.note(message)

    @property
    def ended(self) -> bool:
        """Whether nothing is left to train."""
        return bool(self.stopped) or self.epoch >= self.epochs

    def run(self) -> None:
        """Train to the end, or to a stop; afterwards the network holds the best weights.

        Raises:
            TrainingError: For a loss that is not finite.
        """
        self._began = time.perf_counter()
        if self.ended:
            self.note(f"this run has ended already: {self.stopped or 'finished'} after {self.epoch} epochs")
        self._call("on_train_begin")
        if self._images is None:
            self._helper = ThreadPoolExecutor(max_workers=1)
        try:
            with Interrupts(self.engine.interrupt) as interrupts:
                while not self.ended:
                    self._epoch_began = time.perf_counter()
                    if self.seen == 0:
                        self._call("on_epoch_begin", self.epoch)
                    order = self._loader.order(self.epoch)
                    while interrupts.caught is None and self.seen < self.epoch_size:
                        self._run_chunk(order)
                    if interrupts.caught is None:
                        self._end_epoch(interrupts)
                    else:
                        self.stopped = "interrupted"
                self.signal = interrupts.caught
                self.stopped = self.stopped or "finished"
                if self.signal is not None:
                    self.checkpoint()
        finally:
            if self._helper is not None:
                self._helper.shutdown()
            self.restore_best()
            self._call("on_train_end")

    def _run_chunk(self, order: Array) -> None:
        """Train the next steps of the epoch, as many as fit into the time of a chunk."""
        samples, (images, targets, chosen) = self._take(order)
        rates = self._rates(self.step, math.ceil(len(samples) / self.batch_size))

        began = time.perf_counter()
        losses = self.engine.train(images, targets, chosen, self.batch_size, self.step, rates)
        if len(losses) < len(rates):
            self._ahead = None  # the next chunk begins before the one that was prepared
        each = (time.perf_counter() - began) / max(len(losses), 1)
        self._chunk_steps = max(1, min(round(_CHUNK_SECONDS / max(each, 1e-6)), 4 * self._chunk_steps))

        sizes = []
        for i, value in enumerate(losses):
            batch = samples[i * self.batch_size : (i + 1) * self.batch_size]
            if not math.isfinite(value):
                where = f"step {self.step + 1}, epoch {self.epoch + 1} (that step was not applied)"
                x = self._canonical(batch)
                raise TrainingError(trouble.not_finite(self.network, x, value, where, self.optimizer.lr))
            weight = self.loss.total_weight(self._targets[batch])
            self._sums["loss"] += float(value) * weight
            self._sums["weight"] += weight
            self.step += 1
            self.seen += len(batch)
            sizes.append(len(batch))
            if self._by_step:
                self._call("on_batch_end", self.step - 1, float(value))
        self._sums["hits"] += float(self.engine.hits.sum())
        if self._report:
            self._report.on_chunk_end(self, losses.tolist(), self.engine.hits.tolist(), sizes)
        if self._checkpoint_every and self.step % self._checkpoint_every == 0:
            self.checkpoint()

    def _take(self, order: Array) -> tuple[Array, Inputs]:
        """Return the next chunk's samples and inputs; augmented ones were prepared while the chunk before trained."""
        if self._ahead is not None:
            samples, future = self._ahead
            inputs = future.result()
        else:
            samples = self._samples(order, self.seen, self.step)
            inputs = self._inputs(samples)
        self._ahead = None
        after = self.seen + len(samples)
        if self._helper is not None and after < self.epoch_size:
            following = self._samples(order, after, self.step + math.ceil(len(samples) / self.batch_size))
            self._ahead = following, self._helper.submit(self._inputs, following)
        return samples, inputs

    def _samples(self, order: Array, seen: int, step: int) -> Array:
        """Return the samples of the chunk that begins at a place of the epoch."""
        count = 1 if self._by_step else self._chunk_steps
        if self._checkpoint_every:
            count = min(count, self._checkpoint_every - step % self._checkpoint_every)
        return order[seen : seen + count * self.batch_size]

    def _inputs(self, samples: Array) -> Inputs:
        """Return (images, targets, indices into both) for positions in the training part.

        Without augmentation these are the arrays of the whole part, made canonical once.
        """
        if self._images is not None:
            return self._images, self._targets, samples
        return self._canonical(samples), self._targets[samples], np.arange(len(samples))

    def _canonical(self, samples: Array) -> Array:
        if self._images is not None:
            return self._images[samples]
        return self._spec.canonical(self._loader.images(samples, self.epoch))

    def _rates(self, first: int, count: int) -> Array:
        steps = np.arange(first, first + count)
        return self.optimizer.lr * self.schedule.factors(steps, self.total_steps, self.steps_per_epoch)

    def _validation_outputs(self, interrupts: Interrupts) -> Array | None:
        """Return the outputs for the validation part, computed in pieces; None if interrupted."""
        parts = []
        for start in range(0, len(self._val_x), _VALIDATION_PIECE):
            parts.append(self.engine.predict(self._val_x[start : start + _VALIDATION_PIECE]))
            if interrupts.caught is not None:
                return None
        return np.concatenate(parts).astype(np.float64)

    def _end_epoch(self, interrupts: Interrupts) -> None:
        val_loss = val_accuracy = None
        if len(self._val_x):
            output = self._validation_outputs(interrupts)
            if output is None:  # the epoch ends when the run goes on
                self.stopped = "interrupted"
                return
            with np.errstate(all="ignore"):
                val_loss = self.loss(output, self._val_targets)
            if not math.isfinite(val_loss):
                where = f"the validation after epoch {self.epoch + 1}"
                x = self._val_x[:256]
                raise TrainingError(trouble.not_finite(self.network, x, val_loss, where, self.optimizer.lr))
            if self.classifies:
                val_accuracy = float((output.argmax(axis=1) == self._val_targets).mean())
        now = time.perf_counter()
        self.epoch_seconds = now - self._epoch_began
        row = Row(
            epoch=self.epoch + 1,
            train_loss=self._sums["loss"] / self._sums["weight"] if self._sums["weight"] else float("nan"),
            train_accuracy=self._sums["hits"] / self.epoch_size if self.classifies else None,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            lr=float(self._rates(self.step - 1, 1)[0]),
            seconds=self._earlier_seconds + now - self._began,
        )
        self.history.rows.append(row)
        if self.history.best is row:
            state = self.engine.state()
            self.best = {name: state[name] for name in _WEIGHTS}
        self.epoch, self.seen = self.epoch + 1, 0
        self._sums = dict.fromkeys(self._sums, 0.0)
        self._look_for_trouble(row)
        self._call("on_epoch_end", row)
        self.checkpoint()

    def _look_for_trouble(self, row: Row) -> None:
        """Say so, once, where the loss stays at that of guessing."""
        if not self.classifies or self.warnings:
            return
        x = self._val_x[:256] if len(self._val_x) else self._canonical(np.arange(min(256, self.epoch_size)))
        value = row.val_loss if row.val_loss is not None else row.train_loss
        classes = self.network.output_shape(self.network.input_shape)[0]
        message = trouble.stuck(self.network, x, value, classes, self.optimizer.lr, self.steps_per_epoch)
        if message:
            self.warnings.append(f"epoch {row.epoch}: {message}")
            self.note("warning: " + self.warnings[-1])

    def restore_best(self) -> None:
        """Put the best weights into the network."""
        if self.best is not None:
            with self.network.edit():
                self.network.flat_parameters[...] = self.best["parameters"]
                self.network.flat_buffers[...] = self.best["buffers"]

    def _call(self, hook: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self, *arguments)

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return (arrays, facts): all that is needed to go on from here."""
        arrays = {f"engine.{name}": array for name, array in self.engine.state().items()}
        if self.best is not None:
            arrays.update({f"best.{name}": array for name, array in self.best.items()})
        facts = {
            "epoch": self.epoch,
            "step": self.step,
            "seen": self.seen,
            "sums": dict(self._sums),
            "history": [asdict(row) for row in self.history],
            "warnings": list(self.warnings),
            # Within an epoch a stop is still to come: what asked for it will ask again.
            "stopped": self.stopped if self.seen == 0 and self.stopped != "interrupted" else "",
            "seconds": self._earlier_seconds + time.perf_counter() - self._began,
        }
        return arrays, facts

    def load_state(self, arrays: dict[str, Array], facts: dict[str, Any]) -> None:
        """Go on from what state() gave.

        Args:
            arrays: Flat arrays by name.
            facts: Plain data.

        Raises:
            TrainingError: Where they do not fit this training.
        """
        history = History([Row(**row) for row in facts["history"]])
        own = self.engine.state()
        expected = {f"engine.{name}": array for name, array in own.items()}
        if history.best is not None:
            expected.update({f"best.{name}": own[name] for name in _WEIGHTS})
        for name in sorted({*arrays, *expected}):
            given, fitting = (a.get(name, np.empty(0, dtype=bool)) for a in (arrays, expected))
            if given.dtype != fitting.dtype or given.shape != fitting.shape:
                raise TrainingError(f"the array {name} is missing, too much, or does not fit")
        epoch, seen = facts["epoch"], facts["seen"]
        steps = epoch * self.steps_per_epoch + math.ceil(seen / self.batch_size)
        between = seen == self.epoch_size or (seen % self.batch_size == 0 and seen < self.epoch_size)
        if facts["step"] != steps or not between or history["epoch"] != list(range(1, epoch + 1)):
            raise TrainingError(f"epoch {epoch}, step {facts['step']} and {seen} seen samples do not fit together")
        self.engine.load_state({name: arrays[f"engine.{name}"] for name in own})
        self.best = {name: arrays[f"best.{name}"] for name in _WEIGHTS} if history.best is not None else None
        self.epoch, self.step, self.seen = epoch, facts["step"], seen
        self._sums = dict(facts["sums"])
        self.history = history
        self.warnings, self.stopped = list(facts["warnings"]), facts["stopped"]
        self._earlier_seconds = facts["seconds"]
