"""pellucid train: from images to a trained model, its measures and pictures."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli.app import app, shown
from pellucid.cli.common import load_data, note, say

if TYPE_CHECKING:
    from pellucid.cli.resume import Kept
    from pellucid.cli.settings import Settings
    from pellucid.data import Dataset
    from pellucid.nn import Network
    from pellucid.optim import Optimizer
    from pellucid.training import Run

EPILOG = """[bold]Examples[/bold]

pellucid train

pellucid train mnist --model lenet5 --epochs 2

pellucid train photos/ --size 64x64 --augment photo

pellucid train --resume --out runs/digits-1
"""


@app.command(epilog=EPILOG)
def train(
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="A known name, a folder of images by class, IDX files, or an .npz file."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="A name (see pellucid summary --help) or a spec.json.")] = None,
    engine: Annotated[str | None, typer.Option(help="compiled, reference or torch (compiled).")] = None,
    device: Annotated[str | None, typer.Option(help="Where the torch engine computes: cpu or cuda (cpu).")] = None,
    epochs: Annotated[int | None, typer.Option(help="How often each image is seen (10).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images of a step (64).")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, rmsprop, adam or adamw (adam).")] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate, the peak of a schedule (adam 3e-3, rmsprop 1e-3, sgd 0.05).")
    ] = None,
    momentum: Annotated[float | None, typer.Option(help="For sgd (0.9) and rmsprop (0).")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Pulls weights to 0 (0; adamw 0.01).")] = None,
    schedule: Annotated[str | None, typer.Option(help="constant, step, cosine or onecycle (onecycle).")] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradients (none).")] = None,
    augment: Annotated[str | None, typer.Option(help="none, digit or photo (none).")] = None,
    balance: Annotated[bool | None, typer.Option("--balance", help="Weight classes by how rare they are.")] = None,
    size: Annotated[str | None, typer.Option(help="HxW to which images are resized.")] = None,
    normalize: Annotated[str | None, typer.Option(help="standard or unit (standard).")] = None,
    val_fraction: Annotated[float | None, typer.Option(help="Share for validation (0.2).")] = None,
    subset: Annotated[int | None, typer.Option(help="Train on so many images only.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same result (0).")] = None,
    threads: Annotated[int | None, typer.Option(help="How many (as pay, at most PELLUCID_THREADS).")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Save every so many steps too.")] = None,
    strict: Annotated[bool | None, typer.Option("--strict", help="Stop at the first unreadable image.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with these settings.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory (runs/DATA-N).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    other_bits: Annotated[
        bool, typer.Option("--other-bits", help="Resume on another kind of CPU, or with other versions, too.")
    ] = False,
) -> None:
    """Train a network on images, evaluate it, and write a run directory.

    The directory holds the model file, the settings, the splits, the history, the measures, pictures, and
    report.html, a page that shows all of it. The models autoencoder and dense_autoencoder learn to give back the
    images themselves.
    """
    from pellucid import fit
    from pellucid.cli.resume import Kept
    from pellucid.cli.settings import resolve
    from pellucid.data.augment import augmentation
    from pellucid.engines import create
    from pellucid.errors import DataError, OptionError
    from pellucid.models import AUTOENCODERS

    given: dict[str, Any] = {
        "data": data,
        "model": model,
        "engine": engine,
        "device": device,
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "lr": lr,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "clip": clip,
        "augment": augment,
        "balance": balance,
        "size": size,
        "normalize": normalize,
        "val_fraction": val_fraction,
        "subset": subset,
        "seed": seed,
        "threads": threads,
        "checkpoint_every": checkpoint_every,
        "strict": strict,
    }
    if other_bits and not resume:
        raise OptionError("--other-bits is for --resume, a run that began elsewhere")
    kept = Kept.read(out, config) if resume else None
    settings = resolve(given, config, kept.told if kept else None)
    create(settings.engine, settings.device)
    augmentation(settings.augment)
    optimizer_, schedule_ = settings.make_optimizer(), kept.schedule(settings) if kept else settings.make_schedule()
    if kept:
        kept.check_data(settings.data)

    ds = load_data(
        settings.data,
        seed=settings.seed,
        val_fraction=settings.val_fraction,
        subset=settings.subset,
        size=settings.image_size(),
        strict=settings.strict,
    )
    if not ds.is_classification:
        raise DataError("train needs labels, whole numbers of shape (N,); one-hot rows: labels.argmax(axis=1)")
    available = len(ds.splits.train) + len(ds.splits.val)
    if settings.subset is not None and settings.subset > available:
        note(f"--subset {settings.subset}: there are {available} images besides the test part; all are used")
    parts = ", ".join(f"{len(ds.indices(p))} {p}" for p in ("train", "val", "test"))
    shape = "x".join(map(str, ds.shape))
    say(f"data      {shown(ds.name)}: {len(ds)} images {shape}, {len(ds.classes)} classes ({parts})")
    if settings.model in AUTOENCODERS:
        if settings.augment != "none":
            raise OptionError("an autoencoder learns to give back its images as they are; leave --augment out")
        ds = ds.reconstruction()
    told = _resolved(settings, ds, optimizer_)
    if kept:
        kept.check_same(told)
    network = _network(settings, ds, kept if model is None else None)
    say(f"optimizer {optimizer_!r}")
    say(f"schedule  {schedule_!r}")
    folder = out or _new_folder(settings.data)
    say(f"run       {folder} (engine {settings.engine}, seed {settings.seed})")
    go_on = f"interrupted; to go on: pellucid train --resume --out {shlex.quote(str(folder))}"
    with _said_when_stopped(go_on, folder):
        run = fit(
            network,
            ds,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            optimizer=optimizer_,
            schedule=schedule_,
            augment=settings.augment,
            engine=settings.engine,
            device=settings.device,
            seed=settings.seed,
            threads=settings.threads,
            out=folder,
            normalize=settings.normalize,
            balance=settings.balance,
            checkpoint_every=settings.checkpoint_every,
            resume=resume,
            other_bits=other_bits,
            settings=told,
        )
    _report(run)
    if run.stopped == "interrupted":
        say(go_on)
        raise typer.Exit(130)


@contextmanager
def _said_when_stopped(message: str, folder: Path) -> Iterator[None]:
    """Say how to go on where a signal ends the process: SIGTERM, which fit obeys after saving, or a second Ctrl-C."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        if (folder / "last.ckpt").exists():
            say(message)
        raise


def _network(settings: Settings, ds: Dataset, kept: Kept | None) -> Network:
    from pellucid import canonical, models
    from pellucid.errors import OptionError
    from pellucid.files import read_bytes
    from pellucid.nn import Network
    from pellucid.nn.spec import from_spec

    name = settings.model or models.default(ds.shape)
    if not name.endswith(".json"):
        network: Network = models.create(name, ds.shape, len(ds.classes), settings.seed)
    else:
        try:
            made = kept.network() if kept else from_spec(canonical.loads(read_bytes(name)))
        except ValueError as error:
            raise OptionError(f"{name} is not a network spec: {error}") from error
        if not isinstance(made, Network):
            raise OptionError(f"{name} is a single layer; put it into a Sequential")
        network = made.build(ds.shape, settings.seed)
    chosen = "" if settings.model else " (chosen by image size)"
    say(f"model     {shown(name)}{chosen}: {network.flat_parameters.size:,} parameters")
    return network


def _new_folder(source: str) -> Path:
    """Return runs/NAME-N with the first N that is not there yet."""
    stem = re.sub(r"[^\w.-]+", "-", Path(source).stem).strip("-") or "run"
    number = 1
    while Path("runs", f"{stem}-{number}").exists():
        number += 1
    return Path("runs", f"{stem}-{number}")


def _resolved(settings: Settings, ds: Dataset, optimizer: Optimizer) -> dict[str, Any]:
    """Return the settings with what was chosen for the user, and paths that hold from any working directory."""
    from pellucid import models
    from pellucid.data.registry import KNOWN

    model = settings.model or models.default(ds.shape)
    return {
        **settings.model_dump(),
        "data": settings.data if settings.data in KNOWN else str(Path(settings.data).resolve()),
        "model": str(Path(model).resolve()) if model.endswith(".json") else model,
        "lr": optimizer.lr,
        "weight_decay": optimizer.weight_decay,
        "momentum": getattr(optimizer, "momentum", None),
        "size": "x".join(map(str, ds.shape[1:])),
    }


def _report(run: Run) -> None:
    best = run.history.best
    if best is not None:
        say(f"kept      epoch {best.epoch} with validation loss {best.val_loss:.4f}")
    for name, words in (("val_accuracy", "validation"), ("test_accuracy", "test")):
        if name in run.model.metrics:
            part = name.removesuffix("_accuracy")
            say(f"{words + ' accuracy':<20}{run.model.metrics[name]:.4f} of {len(run.dataset.indices(part))} images")
    if "test_mse" in run.model.metrics:
        error = run.model.metrics["test_mse"]
        say(f"{'test error':<20}{error:.5f} (mean squared) of {len(run.dataset.splits.test)} images")
    say(f"weights   {run.digest}")
    say(f"written   {run.path}")
    if run.path is not None and (run.path / "report.html").exists():
        say(f"report    {run.path / 'report.html'}")
