"""fit: from a network and a data set to a trained model, and evaluate."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid import engines, metrics, optim, schedules
from pellucid._repr import picture, table
from pellucid._types import Array
from pellucid.data.augment import Augmentation, augmentation
from pellucid.data.dataset import Dataset, Splits, check_images, check_targets, from_arrays, outside, rescaled
from pellucid.data.splits import split
from pellucid.errors import DataError, FileError, OptionError, TrainingError, one_line
from pellucid.files import sweep
from pellucid.host import computes_with
from pellucid.interop.model_file import weights_digest
from pellucid.model import InputSpec, Model, Normalize, check_finite
from pellucid.nn import CrossEntropyLoss, Loss, MSELoss, Network
from pellucid.nn.spec import to_spec
from pellucid.novelty import ENOUGH, Novelty
from pellucid.optim import Optimizer
from pellucid.schedules import Schedule
from pellucid.shapes import integer, text
from pellucid.training.callbacks import Callback, EarlyStopping
from pellucid.training.history import History
from pellucid.training.progress import ProgressReport
from pellucid.training.run_directory import Checkpoint, RunDirectory, check_same_settings, other_host, to_toml
from pellucid.training.trainer import Trainer


@dataclass(eq=False)
class Run:
    """What fit returns.

    Attributes:
        model: The trained network with its input spec and class names; best weights.
        history: What each epoch gave.
        stopped: "finished", "early stopping", "interrupted", or what a callback said.
        dataset: The data, with the parts that were used.
        warnings: What went wrong without ending the training.
        path: The run directory, or None.
    """

    model: Model
    history: History
    stopped: str
    dataset: Dataset
    warnings: tuple[str, ...] = ()
    path: Path | None = None

    def evaluate(
        self, ds: Dataset | tuple[object, object] | None = None, part: str | None = None
    ) -> metrics.Evaluation:
        """Return how well the model does; see evaluate().

        Args:
            ds: Data set or (images, labels); the run's own if None.
            part: "train", "val", "test" or "all"; if None, the first of "test", "val" and "all" that there is.
        """
        return evaluate(self.model, self.dataset if ds is None else ds, part)

    @property
    def digest(self) -> str:
        """SHA-256 of parameters and buffers, in hex."""
        return weights_digest(self.model.network)

    def __repr__(self) -> str:
        return f"Run({one_line(self.stopped)}, {self.history!r}, path={self.path and str(self.path)!r})"

    def _repr_html_(self) -> str:
        """Return the last epochs, the best one and the learning curves, for notebooks."""
        from pellucid.report.plots import curves, to_png

        best = self.history.best
        rows: list[list[object]] = [
            [row.epoch, *(_short(v) for v in (row.train_loss, row.train_accuracy, row.val_loss, row.val_accuracy))]
            for row in self.history.rows[-10:]
        ]
        kept = f"kept: epoch {best.epoch}" if best is not None else ""
        head = ["epoch", "training loss", "accuracy", "validation loss", "accuracy"]
        shown = table(f"Run: {self.stopped} after {len(self.history)} epochs", head, rows, kept)
        return shown + (picture(to_png(curves(self.history)), "learning curves") if rows else "")


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def evaluate(model: Model, ds: Dataset | tuple[object, object], part: str | None = None) -> metrics.Evaluation:
    """Return loss, accuracy, recall and precision per class and the confusion matrix of a model on a data set.

    Args:
        model: A classifier.
        ds: Data set or (images, labels), raw.
        part: "train", "val", "test" or "all"; if None, the first of "test", "val" and "all" that there is.

    Raises:
        DataError: Where the classes or images do not fit the model, or its outputs are not finite.
    """
    if not model.classes:
        raise OptionError("this model has no classes to evaluate; compare model.outputs(images) with the targets")
    if not isinstance(ds, Dataset):
        if not isinstance(ds, (tuple, list)) or len(ds) != 2:
            cure = '; a part is named by part="val"' if isinstance(ds, str) else ""
            raise OptionError(f"ds must be a Dataset or (images, labels), got {type(ds).__name__}{cure}")
        ds = replace(from_arrays(*ds, classes=model.classes), value_range=model.input.value_range)
    if not ds.is_classification:
        raise DataError("evaluating a classifier needs labels, got float targets")
    chosen = _chosen(ds, part)
    true = renumbered(ds, chosen, model.classes)
    logits = model.outputs(rescaled(ds, chosen, model.input.value_range))
    check_finite(logits, chosen)
    ids = [ds.ids[i] for i in chosen.tolist()]
    return metrics.measure(logits, true, model.classes, ids)


def reconstruction_errors(model: Model, ds: Dataset, part: str | None = None) -> Array:
    """Return the mean squared error of each image's reconstruction: float64, (N,).

    Args:
        model: An autoencoder.
        ds: Data set with images as targets, as Dataset.reconstruction makes it.
        part: "train", "val", "test" or "all"; if None, the first of "test", "val" and "all" that there is.

    Raises:
        DataError: Where the images do not fit the model, or its outputs are not finite.
    """
    if not ds.is_reconstruction:
        raise DataError("the targets are no images; ds.reconstruction() makes images their own targets")
    chosen, errors = _chosen(ds, part), []
    for start in range(0, len(chosen), 4096):
        piece = chosen[start : start + 4096]
        outputs = model.outputs(rescaled(ds, piece, model.input.value_range))
        if outputs.shape != ds.targets[piece].shape:
            raise DataError(f"the model gives {text(outputs.shape[1:])} for an image, not another image")
        check_finite(outputs, piece)
        errors.append(np.square(outputs.astype(np.float64) - ds.targets[piece]).mean(axis=(1, 2, 3)))
    return np.concatenate(errors)


def _chosen(ds: Dataset, part: str | None) -> Array:
    """Return the indices of the part to evaluate."""
    part = part or default_part(ds)
    chosen = ds.indices(part)
    if not len(ds):
        raise DataError("there are no images to evaluate")
    if not len(chosen):
        raise DataError(f'the data set has no part "{part}"; use the part "all"')
    return chosen


def renumbered(ds: Dataset, part: Array, classes: tuple[str, ...]) -> Array:
    """Return the labels of some images as numbers in another list of classes: int64.

    Args:
        ds: The data set.
        part: Which images: indices.
        classes: The other list; it must hold every class of the data set.

    Raises:
        DataError: For a class that is not in the list.
    """
    positions = {name: i for i, name in enumerate(classes)}
    strange = [name for name in ds.classes if name not in positions]
    if strange:
        raise DataError(
            f'the data have the class "{strange[0]}", which the model does not know; its classes: {", ".join(classes)}'
        )
    return np.array([positions[name] for name in ds.classes], dtype=np.int64)[ds.targets[part]]


def default_part(ds: Dataset) -> str:
    """Return the first of "test", "val" and "all" that a data set has.

    Args:
        ds: The data set.
    """
    return next((part for part in ("test", "val") if len(ds.indices(part))), "all")


def fit(
    net: Network,
    ds: Dataset | tuple[object, object],
    loss: Loss | None = None,
    validation: Dataset | tuple[object, object] | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    optimizer: Optimizer | None = None,
    schedule: Schedule | None = None,
    augment: str | Augmentation | None = None,
    callbacks: Sequence[Callback] = (),
    engine: str = "compiled",
    seed: int = 0,
    threads: int | None = None,
    out: str | Path | None = None,
    *,
    normalize: Normalize = "standard",
    balance: bool = False,
    checkpoint_every: int | None = None,
    progress: bool = True,
    resume: bool = False,
    settings: dict[str, Any] | None = None,
    device: str = "cpu",
    precision: str = "float32",
    other_bits: bool = False,
) -> Run:
    """Train a network in place and return the run; the network ends with the weights of the lowest validation loss.

    Args:
        net: Built, or it is built here for the images' shape. Its parameters are never drawn again.
        ds: Data set, or (images, targets). What has neither validation nor test part, as arrays, is divided into
            training and validation (a fifth).
        loss: Cross-entropy for labels and mean squared error for float targets if None.
        validation: Data to validate on instead of the data set's own part.
        epochs: How often each sample is seen.
        batch_size: Samples of a step; the last step of an epoch may have fewer.
        optimizer: Adam with lr 3e-3 if None.
        schedule: What the optimizer's lr is multiplied by; one-cycle if None.
        augment: "digit", "photo", "none" or an Augmentation, for training images only.
        callbacks: What hears of epochs and steps.
        engine: What computes: "compiled" (float32, fast), "reference" (NumPy, runs layers and losses of your own) or
            "torch" (PyTorch, which must be installed).
        seed: Of parameters, order, dropout and augmentation.
        threads: How many the engine uses; if None as many as pay, at most PELLUCID_THREADS or the cores that there are.
        out: Run directory; nothing is written if None.
        normalize: "standard", "unit", or (mean, std); see InputSpec.of.
        balance: Weight classes by how rare they are.
        checkpoint_every: Save last.ckpt every so many steps, besides the end of each epoch; needs out.
        progress: Show what happens.
        resume: Go on from last.ckpt in out, with the same bits as if nothing had stopped the run (with the engine
            "torch": on the same CPU, with the same threads). Threads and checkpoint_every may differ, and epochs may
            grow where the schedule does not depend on it.
        settings: Written into config.toml besides fit's own.
        device: "cpu", or with the engine "torch" "cuda".
        precision: "float32", or with the engine "torch" "bfloat16": products and activations have 8 bits of precision,
            parameters still 24.
        other_bits: Resume also with other versions or on another kind of CPU or GPU than the run was computed with,
            which is refused otherwise: it may end with other bits.

    Raises:
        DataError: For data that cannot be used.
        ShapeError: Where network and images do not fit.
        OptionError: For arguments that cannot be.
        TrainingError: For a loss that is not finite.
        EngineError: For a network that the engine cannot run, or a device that is not there.
        MissingDependencyError: For the engine "torch" without PyTorch.
        FileError: Where the run cannot be saved; the network keeps the best weights so far.

    >>> import pellucid as pl
    >>> from pellucid import nn
    >>> net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(10))
    >>> run = pl.fit(net, pl.data.load("digits"), epochs=2, progress=False)
    >>> run.evaluate().accuracy > 0.5
    True
    """
    epochs, batch_size = integer(epochs, "epochs"), integer(batch_size, "batch_size")
    seed = integer(seed, "seed", minimum=0)
    for name, number in (("threads", threads), ("checkpoint_every", checkpoint_every)):
        if number is not None:
            integer(number, name)
    if hasattr(loss, "__array__") or isinstance(loss, (list, tuple)):
        raise OptionError("images and labels go together: fit(net, (images, labels))")
    _check_kind(loss, Loss, "loss", "nn.CrossEntropyLoss()")
    _check_kind(optimizer, Optimizer, "optimizer", "optim.Adam(lr=1e-3)")
    _check_kind(schedule, Schedule, "schedule", "schedules.OneCycle()")
    if not isinstance(callbacks, (list, tuple)):
        raise OptionError(f"callbacks must be a list of callbacks, got {callbacks!r:.80}")
    for callback in callbacks:
        _check_kind(callback, Callback, "each of callbacks", "EarlyStopping()")
    if checkpoint_every is not None and out is None:
        raise OptionError("checkpoint_every needs out, the folder to write to")
    if resume and out is None:
        raise OptionError("resume needs out, the folder of the run")
    if other_bits and not resume:
        raise OptionError("other_bits is for resume=True, a run that began elsewhere")
    ds = _dataset(ds, validation, seed)
    net = _network(net, ds, seed)
    loss = _loss(loss, net, ds, balance)
    spec = InputSpec.of(ds, normalize)
    optimizer = optimizer or optim.Adam(lr=3e-3)
    schedule = schedule or schedules.OneCycle()
    varied = augmentation(augment)
    worker = engines.create(engine, device, precision)
    worker.build(net, loss, optimizer, seed, threads)
    model = Model(net, spec, ds.classes if ds.is_classification else (), {}, ds.digest(), engine)

    report = ProgressReport() if progress else None
    trainer = Trainer(
        net,
        ds,
        spec,
        loss,
        optimizer,
        schedule,
        worker,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        augment=varied,
        callbacks=callbacks,
        report=report,
        checkpoint_every=checkpoint_every,
    )
    if not trainer.validates and any(isinstance(callback, EarlyStopping) for callback in callbacks):
        raise OptionError("EarlyStopping needs a validation part; give validation=, or leave it out")
    folder = None
    if out is not None:
        exact = {
            "epochs": epochs,
            "batch_size": batch_size,
            "seed": seed,
            "engine": engine,
            **({"device": device, "precision": precision} if engine == "torch" else {}),
            "early_stopping": [callback.patience for callback in callbacks if isinstance(callback, EarlyStopping)],
            "network": to_spec(net),
            "loss": {"name": type(loss).__name__, **loss.config()},
            "optimizer": {"name": type(optimizer).__name__, **optimizer.config()},
            "schedule": {"name": type(schedule).__name__, **schedule.config()},
            "augment": varied and {"name": type(varied).__name__, **asdict(varied)},
            "normalize": normalize if isinstance(normalize, str) else [list(spec.mean), list(spec.std)],
            "value_range": list(spec.value_range),
            "data_digest": model.data_digest,
            "split": _split_digest(ds.splits),
        }
        # TOML has no null, which a layer's arguments may hold.
        config = to_toml({**(settings or {}), "resolved": {**exact, "network": json.dumps(exact["network"])}})
        here = computes_with(engine, device)
        if resume:
            folder, config = _take_up(out, trainer, model, exact, config, here, other_bits)
        else:
            folder = RunDirectory.create(out)
        _save_as_it_goes(folder, trainer, model, exact, config, here, ds)
    trainer.run()
    _keep_validation(model, trainer.history)
    if model.classes and trainer.history.best is not None and len(ds.splits.val) >= ENOUGH:
        unseen = ds.images[ds.splits.val]
        model.novelty = Novelty.measured(unseen, model.outputs(unseen), spec.value_range)
    path = folder.path if folder is not None else None
    run = Run(model, trainer.history, trainer.stopped, ds, tuple(trainer.warnings), path)
    if folder is not None:
        with _saving(folder):
            found, errors = _write_results(run, folder, ds.is_reconstruction and not loss.takes_logits)
        _write_report(folder, run, found, errors, config, report)
    if trainer.signal == signal.SIGTERM:
        signal.raise_signal(signal.SIGTERM)
    return run


def _check_kind(value: object, kind: type, name: str, example: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise OptionError(f"{name} must be an object such as {example}, got {value!r:.80}")


def _dataset(ds: Dataset | tuple[object, object], validation: object, seed: int) -> Dataset:
    """Return one data set whose parts "train" and "val" are what to train and validate on."""
    if not isinstance(ds, Dataset):
        if not isinstance(ds, (tuple, list)) or len(ds) != 2:
            raise OptionError(f"ds must be a Dataset or (images, targets), got {type(ds).__name__}")
        ds = from_arrays(*ds)
    if not len(ds.splits.train):
        raise DataError("there are no images to train on")
    if validation is not None:
        return _with_validation(ds, validation)
    if not len(ds.splits.val) and not len(ds.splits.test):  # divided data without validation are meant that way
        ds = split(ds, test_fraction=0.0, seed=seed)
    return ds


def _with_validation(ds: Dataset, validation: object) -> Dataset:
    if isinstance(validation, Dataset):
        part = validation.splits.val if len(validation.splits.val) else np.arange(len(validation))
        images, targets = rescaled(validation, part, ds.value_range), validation.targets[part]
        if ds.is_classification and validation.is_classification:
            targets = renumbered(validation, part, ds.classes)
        if images.dtype != validation.images.dtype and not outside(images, ds.value_range):  # they were rescaled
            whole = np.issubdtype(ds.images.dtype, np.integer)
            images = (np.rint(images) if whole else images).astype(ds.images.dtype)
    elif isinstance(validation, (tuple, list)) and len(validation) == 2:
        images = check_images(validation[0])
        targets = check_targets(validation[1], len(images), len(ds.classes) if ds.is_classification else None)
    else:
        raise OptionError(f"validation must be a Dataset or (images, targets), got {type(validation).__name__}")
    if not len(images):
        raise DataError("validation holds no images")
    if images.shape[1:] != ds.shape:
        raise DataError(f"validation images are {text(images.shape[1:])}, training images {text(ds.shape)}")
    if images.dtype != ds.images.dtype or targets.dtype != ds.targets.dtype:
        raise DataError(
            f"validation has {images.dtype} images and {targets.dtype} targets, "
            f"training {ds.images.dtype} and {ds.targets.dtype}; use .astype so that they agree"
        )
    if outside(images, ds.value_range):
        raise DataError(f"validation pixels lie outside the training's value_range {ds.value_range}")
    return replace(
        ds,
        images=np.concatenate([ds.images, images]),
        targets=np.concatenate([ds.targets, targets]),
        splits=replace(ds.splits, val=np.arange(len(ds), len(ds) + len(images))),
        ids=[*ds.ids, *(f"validation/{i}" for i in range(len(images)))],
    )


def _network(net: object, ds: Dataset, seed: int) -> Network:
    if not isinstance(net, Network):
        raise OptionError(f"net must be a network such as nn.Sequential(...), got {type(net).__name__}")
    return net.build(ds.shape, seed)


def _loss(loss: Loss | None, net: Network, ds: Dataset, balance: bool) -> Loss:
    """Return the loss, checked against the network's outputs and the targets."""
    out = net.output_shape(net.input_shape)
    if balance:
        if loss is not None or not ds.is_classification:
            raise OptionError("balance weights the classes of the default loss; give weights to your own loss instead")
        counts = np.bincount(ds.targets[ds.splits.train], minlength=out[0])
        loss = CrossEntropyLoss(weight=np.where(counts > 0, counts.sum() / (len(counts) * np.maximum(counts, 1)), 0.0))
    if loss is None:
        loss = CrossEntropyLoss() if ds.is_classification else MSELoss()
    if ds.is_classification:
        if not loss.takes_labels:
            raise DataError(
                f"{loss!r} takes float targets of the output's shape {text(out)}, but the targets are labels; "
                "use CrossEntropyLoss, or give float targets"
            )
        if len(ds.classes) < 2:
            raise DataError("the data have only one class; telling classes apart needs at least two")
        if out != (len(ds.classes),):
            raise DataError(
                f"the data have {len(ds.classes)} classes, but the network gives {text(out)} outputs; "
                f"end it with LazyLinear({len(ds.classes)})"
            )
    elif ds.targets.shape[1:] != out:
        raise DataError(f"targets are {text(ds.targets.shape[1:])} each, but the network gives {text(out)}")
    loss.check_network(net)
    return loss


def _split_digest(splits: Splits) -> str:
    import hashlib

    parts = (splits.train, splits.val, splits.test)
    return hashlib.sha256(b"|".join(np.asarray(part, dtype="<i8").tobytes() for part in parts)).hexdigest()


def _take_up(
    out: str | Path,
    trainer: Trainer,
    model: Model,
    exact: dict[str, Any],
    config: str,
    here: dict[str, str],
    other_bits: bool,
) -> tuple[RunDirectory, str]:
    """Bring trainer and folder to where the run stands; return the folder and its config.toml's content."""
    folder = RunDirectory.find(out)
    kept = folder.read_checkpoint()
    check_same_settings(exact, _lengthened(kept.settings, exact, trainer.schedule))
    elsewhere = other_host(here, kept.computed_with)
    if elsewhere and not other_bits:
        raise OptionError(
            f"{elsewhere}; resume it where it began, or go on all the same with --other-bits "
            "(in Python other_bits=True)"
        )
    try:
        trainer.load_state(kept.arrays, kept.training)
    except TrainingError as error:
        raise FileError(f"{folder.path / 'last.ckpt'} does not belong to this run: {error}") from error
    sweep(folder.path)
    if trainer.ended:
        return folder, kept.config
    if elsewhere:
        trainer.note(elsewhere)
    if trainer.best is not None:  # the model file may be older than the checkpoint
        trainer.restore_best()
        _keep_validation(model, trainer.history)
        with _saving(folder):
            folder.write_model(model)
        trainer.load_state(kept.arrays, kept.training)
    return folder, config


def _lengthened(then: dict[str, Any], now: dict[str, Any], schedule: Schedule) -> dict[str, Any]:
    """Return a run's settings with the number of epochs that it is to have now, where that may grow."""
    before, after = then.get("epochs"), now["epochs"]
    if type(before) is not int or after <= before:
        return then
    if schedule.needs_length:
        raise OptionError(
            f"cannot resume: epochs was {before}, now it is {after}, but the schedule {type(schedule).__name__} is "
            "laid out over all epochs; only constant and step can go on longer"
        )
    return {**then, "epochs": after}


def _save_as_it_goes(
    folder: RunDirectory,
    trainer: Trainer,
    model: Model,
    exact: dict[str, Any],
    config: str,
    here: dict[str, str],
    ds: Dataset,
) -> None:
    """Save the run, now and as it goes: the checkpoint first, since the other files can be made from it."""

    def checkpoint() -> None:
        with _saving(folder):
            arrays, facts = trainer.state()
            folder.write_checkpoint(Checkpoint(arrays, facts, exact, config, here))
            folder.write_history(trainer.history)
            best = trainer.history.best
            if best is not None and best is trainer.history.rows[-1] and trainer.seen == 0:
                _keep_validation(model, trainer.history)
                folder.write_model(model)

    trainer.checkpoint = checkpoint
    if not trainer.ended:
        checkpoint()
    with _saving(folder):
        folder.write_settings(config, ds)


@contextmanager
def _saving(folder: RunDirectory) -> Iterator[None]:
    """Say of a file that cannot be written how the run goes on."""
    try:
        yield
    except FileError as error:
        if not folder.has_checkpoint:
            raise
        raise FileError(
            f"{error}; the run stops here, its last checkpoint is whole: once that is mended, go on with --resume "
            "(in Python resume=True)"
        ) from error


def _keep_validation(model: Model, history: History) -> None:
    """Note in the model what validation said of its weights."""
    if history.best is not None:
        kept = {"val_loss": history.best.val_loss, "val_accuracy": history.best.val_accuracy}
        model.metrics.update({name: value for name, value in kept.items() if value is not None})


def _write_results(
    run: Run, folder: RunDirectory, reconstructs: bool
) -> tuple[dict[str, metrics.Evaluation], dict[str, Array]]:
    """Write model, metrics and pictures of the ended run; return evaluations or reconstruction errors of its parts."""
    document: dict[str, Any] = {
        "stopped": run.stopped,
        "epochs": len(run.history),
        "best_epoch": run.history.best.epoch if run.history.best else None,
        "weights_digest": run.digest,
        "warnings": list(run.warnings),
    }
    found: dict[str, metrics.Evaluation] = {}
    errors: dict[str, Array] = {}
    kept, parts = run.model.metrics, [p for p in ("val", "test") if len(run.dataset.indices(p))] or ["train"]
    for part in parts if run.model.classes else []:
        found[part] = run.evaluate(part=part)
        document[part] = found[part].to_dict()
        kept[f"{part}_accuracy"] = found[part].accuracy
    for part in parts if reconstructs else []:
        errors[part] = reconstruction_errors(run.model, run.dataset, part)
        kept[f"{part}_mse"] = float(errors[part].mean())
        document[part] = {"mse": metrics.finite(kept[f"{part}_mse"]), "n": len(errors[part])}
    if "val" in found and math.isfinite(found["val"].loss):
        kept["temperature"] = found["val"].fit_temperature()
        document["calibration"] = {"temperature": kept["temperature"]}
        for part, evaluation in found.items():
            states = {"ece": 1.0, "ece_at_temperature": kept["temperature"]}
            document["calibration"][part] = {
                k: metrics.finite(evaluation.calibration(t).ece) for k, t in states.items()
            }
    folder.write_history(run.history)
    folder.write_model(run.model)
    folder.write_metrics(document)
    from pellucid.report import plots

    plots.write_all(folder.path, run.history, run.dataset, parts[-1], found.get(parts[-1]))
    return found, errors


def _write_report(
    folder: RunDirectory,
    run: Run,
    found: dict[str, metrics.Evaluation],
    errors: dict[str, Array],
    config: str,
    report: ProgressReport | None,
) -> None:
    """Write report.html, which is made from what else the folder holds; what goes wrong with it ends no training."""
    from pellucid.report import page

    path = folder.path / page.NAME
    try:
        page.write(path, run, found, errors, config)
    except Exception as error:
        reason = str(error) if isinstance(error, FileError) else f"{path}: {type(error).__name__}: {one_line(error)}"
        run.warnings = (*run.warnings, f"there is no report: {reason}")
        if report is not None:
            report.note(f"warning: {run.warnings[-1]}")
