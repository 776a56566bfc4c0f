"""fit and evaluate: what they take, what they refuse, what they leave behind."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace

import numpy as np
import pytest

import pellucid as pl
from made import RUN_FILES
from pellucid import nn, optim
from pellucid.data import from_arrays
from pellucid.errors import DataError, OptionError, PellucidError, ShapeError
from pellucid.training import Callback, Run


def fit(network, ds, **options):
    return pl.fit(network, ds, **{"progress": False, "batch_size": 8, "epochs": 1, **options})


def lazy(n: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(n))


# Data


@pytest.mark.capability("E4")
def test_arrays_are_divided_into_training_and_validation(stripes):
    run = fit(lazy(), (stripes.images, stripes.targets))
    parts = run.dataset.splits
    assert (len(parts.train), len(parts.val), len(parts.test)) == (53, 14, 0)
    assert not set(parts.train) & set(parts.val)
    assert run.model.classes == ("0", "1", "2")
    assert run.model.input.value_range == (0.0, 255.0)


@pytest.mark.capability("E7")
def test_arrays_without_channel_axis(stripes):
    run = fit(lazy(), (stripes.images[:, 0], stripes.targets.tolist()))
    assert run.model.network.input_shape == (1, 6, 5)


def test_validation_as_arrays_or_data_set(stripes):
    val = stripes.images[45:58], stripes.targets[45:58]
    as_parts = fit(lazy(), stripes, epochs=2)
    as_arrays = fit(lazy(), stripes, epochs=2, validation=val)
    other = replace(stripes, images=val[0], targets=val[1], ids=range(13))
    other = other.with_splits(type(stripes.splits)(np.arange(13), np.empty(0, int), np.empty(0, int)))
    assert as_arrays.history["val_loss"] == as_parts.history["val_loss"]
    assert fit(lazy(), stripes, epochs=2, validation=other).history["val_loss"] == as_parts.history["val_loss"]
    assert fit(lazy(), stripes, epochs=2, validation=stripes).history["val_loss"] == as_parts.history["val_loss"]
    assert as_arrays.dataset.ids[-1] == "validation/12"
    assert np.array_equal(as_arrays.dataset.splits.train, stripes.splits.train)
    assert as_arrays.digest == as_parts.digest


@pytest.mark.capability("C12")
def test_float_targets_train_by_mean_squared_error(stripes, tmp_path):
    x = stripes.images.astype(np.float32) / 255
    autoencoder = nn.Sequential(nn.Flatten(), nn.LazyLinear(10), nn.ReLU(), nn.LazyLinear(30))
    targets = x.reshape(67, 30)
    run = fit(
        autoencoder, (x, targets), epochs=8, optimizer=optim.Adam(lr=0.02), normalize="unit", out=tmp_path / "run"
    )
    assert run.history["val_loss"][-1] < 0.6 * run.history["val_loss"][0]
    assert run.history["train_accuracy"] == [None] * 8
    assert run.model.classes == ()
    val = run.dataset.splits.val
    outputs = run.model.outputs(x[val])
    assert np.mean((outputs.astype(np.float64) - targets[val]) ** 2) == pytest.approx(run.history.best.val_loss)
    assert {p.name for p in run.path.iterdir()} & {"curves.png", "confusion.png", "samples.png"} == {"curves.png"}
    assert np.array_equal(pl.load(run.path).outputs(x), run.model.outputs(x))
    with pytest.raises(OptionError, match=r"no classes to evaluate; compare model\.outputs"):
        run.evaluate()


def test_one_hot_targets_train_by_cross_entropy(stripes):
    run = fit(lazy(), (stripes.images, np.eye(3)[stripes.targets]), loss=nn.CrossEntropyLoss(), epochs=3)
    assert run.history["val_loss"][-1] < run.history["val_loss"][0]


# The network


@pytest.mark.capability("H1")
def test_a_lazy_network_is_built_and_trained_in_place(stripes):
    network = lazy()
    run = fit(network, stripes)
    assert network.built
    assert run.model.network is network
    assert repr(network[1]) == "Linear(30, 3)"


def test_a_built_network_is_never_drawn_again(stripes, net):
    network = net()
    kept = network.flat_parameters.copy()
    fit(network, stripes, optimizer=optim.SGD(lr=0.0), seed=5)
    assert np.array_equal(network.flat_parameters, kept)
    fit(network, stripes)
    trained = network.flat_parameters.copy()
    assert not np.array_equal(trained, kept)
    fit(network, stripes, optimizer=optim.SGD(lr=0.0))
    assert np.array_equal(network.flat_parameters, trained)


def test_it_learns(stripes, net):
    assert fit(net(), stripes, epochs=15, optimizer=optim.Adam(lr=0.01)).evaluate(part="val").accuracy > 0.9


# --balance


def test_balance_weighs_classes_by_how_rare_they_are(stripes, plain, monkeypatch):
    given = []
    monkeypatch.setattr(nn.CrossEntropyLoss, "__init__", spied(given, nn.CrossEntropyLoss.__init__))
    fit(plain(), stripes, balance=True)
    counts = np.bincount(stripes.targets[:45])
    assert np.allclose(given[0], 45 / (3 * counts))
    assert (given[0] * counts).sum() == pytest.approx(45)
    with pytest.raises(OptionError, match="give weights to your own loss instead"):
        fit(plain(), stripes, balance=True, loss=nn.CrossEntropyLoss())


def spied(given, original):
    def init(self, weight=None, label_smoothing=0.0):
        given.append(weight)
        original(self, weight, label_smoothing)

    return init


# Evaluation


@pytest.mark.capability("H42", "F1", "F2", "F3")
def test_evaluation_carries_ids_in_order(stripes, net):
    ds = replace(stripes, ids=[f"img{i}" for i in range(67)])
    run = fit(net(), ds, epochs=3)
    result = run.evaluate()
    assert result.ids == tuple(f"img{i}" for i in range(58, 67))
    assert np.array_equal(result.true, ds.targets[58:])
    expected = run.model.predict(ds.images[58:])
    assert np.array_equal(result.predicted, expected.indices)
    assert np.allclose(result.probabilities, expected.probabilities)
    assert result.accuracy == (expected.indices == ds.targets[58:]).mean()
    p = expected.probabilities[np.arange(9), ds.targets[58:]]
    assert result.loss == pytest.approx(-np.log(p).mean(), rel=1e-6)
    matrix = np.zeros((3, 3), dtype=int)
    for t, q in zip(ds.targets[58:], expected.indices, strict=True):
        matrix[t, q] += 1
    assert np.array_equal(result.confusion, matrix)
    assert run.evaluate(part="val").n == 13
    assert run.evaluate(part="all").n == 67
    assert run.evaluate((ds.images[:4], ds.targets[:4])).n == 4


@pytest.mark.capability("F3")
def test_classes_are_matched_by_name(stripes, net):
    run = fit(net(), stripes, epochs=3)
    swapped = replace(stripes, classes=("three", "one", "two"), targets=(stripes.targets + 1) % 3)
    a, b = run.evaluate(), run.evaluate(swapped)
    assert a.labels == b.labels
    assert np.array_equal(a.confusion, b.confusion)
    two = replace(stripes, classes=("one", "four", "two"))
    with pytest.raises(DataError, match='the data have the class "four", which the model does not know; its classes'):
        run.evaluate(two)


def test_what_cannot_be_evaluated(stripes, net):
    run = fit(net(), stripes)
    with pytest.raises(OptionError, match='unknown part "tset"; did you mean "test"'):
        run.evaluate(part="tset")
    empty = stripes.with_splits(replace(stripes.splits, val=np.empty(0, int)))
    with pytest.raises(DataError, match='has no part "val"; use the part "all"'):
        run.evaluate(empty, "val")
    with pytest.raises(DataError, match="needs labels, got float targets"):
        run.evaluate((stripes.images, np.zeros((67, 3))))
    with pytest.raises(DataError, match="the model takes images N x 1 x 6 x 5"):
        run.evaluate((stripes.images[:, :, :4], stripes.targets))


def test_without_a_test_part_the_validation_part_is_evaluated(stripes):
    run = fit(lazy(), (stripes.images, stripes.targets))
    assert run.evaluate().n == len(run.dataset.splits.val) == 14
    assert run.evaluate(part="all").n == 67


@pytest.mark.capability("E7")
def test_images_of_another_declared_range_are_brought_into_the_models(stripes):
    run = fit(lazy(), stripes)
    low, high = stripes.value_range
    chosen = stripes.splits.test
    bytes_ = np.rint((stripes.images[chosen] - low) * (255 / (high - low)))
    other = from_arrays(bytes_, stripes.targets[chosen], classes=stripes.classes, value_range=(0, 255))
    assert run.evaluate(other).predicted.tolist() == run.evaluate().predicted.tolist()


# What is written


def test_nothing_is_written_without_out(stripes, net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fit(net(), stripes)
    assert list(tmp_path.iterdir()) == []
    assert run.path is None
    assert isinstance(run, Run)
    assert repr(run).startswith("Run(finished, History(1 epochs, best Row(epoch=1")
    assert repr(replace(run, stopped="\x1b[2J\n")).startswith(r"Run(\x1b[2J\n, ")


@pytest.mark.capability("H17")
def test_the_run_directory(stripes, net, tmp_path):
    out = tmp_path / "deep" / "run"
    settings = {"data": "stripes", "note": None}
    run = fit(net(), stripes, epochs=3, out=out, settings=settings, checkpoint_every=2)
    assert {path.name for path in out.iterdir()} == RUN_FILES
    config = tomllib.loads((out / "config.toml").read_text())
    assert config["data"] == "stripes"
    assert "note" not in config
    assert config["resolved"]["data_digest"] == stripes.digest()
    assert json.loads(config["resolved"]["network"])["layers"][0]["layer"] == "Conv2d"
    assert json.loads((out / "splits.json").read_text()) == {
        "train": list(range(45)),
        "val": list(range(45, 58)),
        "test": list(range(58, 67)),
    }
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [row["val_loss"] for row in rows] == run.history["val_loss"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["stopped"] == "finished"
    assert metrics["best_epoch"] == run.history.best.epoch
    assert metrics["weights_digest"] == run.digest
    assert metrics["test"] == run.evaluate().to_dict()
    model = pl.load(out)
    assert model.metrics == {
        "val_loss": run.history.best.val_loss,
        "val_accuracy": metrics["val"]["accuracy"],
        "test_accuracy": metrics["test"]["accuracy"],
        "temperature": run.evaluate(part="val").fit_temperature(),
    }
    assert metrics["calibration"]["temperature"] == model.metrics["temperature"]
    for part in ("val", "test"):
        found = run.evaluate(part=part)
        expected = {
            "ece": found.calibration().ece,
            "ece_at_temperature": found.calibration(model.metrics["temperature"]).ece,
        }
        assert metrics["calibration"][part] == expected
    assert model.data_digest == stripes.digest()
    assert np.array_equal(model.predict(stripes.images).logits, run.model.predict(stripes.images).logits)


# What is refused


class OwnReLU(nn.ReLU):
    pass


STRIPES = np.zeros((12, 1, 6, 5), dtype=np.uint8)
LABELS = np.arange(12) % 3
REFUSED = {
    "network": (
        lambda: fit(nn.Linear(30, 3), (STRIPES, LABELS)),
        "net must be a network such as nn.Sequential(...), got",
    ),
    "layers": (lambda: fit([nn.Flatten()], (STRIPES, LABELS)), "got list"),
    "data": (lambda: fit(lazy(), "digits"), "ds must be a Dataset or (images, targets), got str"),
    "three": (lambda: fit(lazy(), (STRIPES, LABELS, 1)), "ds must be a Dataset or (images, targets), got tuple"),
    "optimizer": (
        lambda: fit(lazy(), (STRIPES, LABELS), optimizer="adam"),
        "optimizer must be an object such as optim.Adam(lr=1e-3), got 'adam'",
    ),
    "schedule": (
        lambda: fit(lazy(), (STRIPES, LABELS), schedule="cosine"),
        "schedule must be an object such as schedules.OneCycle(), got 'cosine'",
    ),
    "loss": (
        lambda: fit(lazy(), (STRIPES, LABELS), loss="mse"),
        "loss must be an object such as nn.CrossEntropyLoss(), got 'mse'",
    ),
    "callback": (lambda: fit(lazy(), (STRIPES, LABELS), callbacks=Callback()), "callbacks must be a list of callbacks"),
    "callbacks": (
        lambda: fit(lazy(), (STRIPES, LABELS), callbacks=[print]),
        "each of callbacks must be an object such as",
    ),
    "epochs": (lambda: fit(lazy(), (STRIPES, LABELS), epochs=0), "epochs must be at least 1, got 0"),
    "batch size": (
        lambda: fit(lazy(), (STRIPES, LABELS), batch_size=1.5),
        "batch_size must be a whole number, got 1.5",
    ),
    "seed": (lambda: fit(lazy(), (STRIPES, LABELS), seed=-1), "seed must be at least 0, got -1"),
    "threads": (lambda: fit(lazy(), (STRIPES, LABELS), threads="2"), "threads must be a whole number, got '2'"),
    "device": (
        lambda: fit(lazy(), (STRIPES, LABELS), device="cuda"),
        'device "cuda" needs the engine "torch"; the engine "compiled" has only "cpu"',
    ),
    "precision": (
        lambda: fit(lazy(), (STRIPES, LABELS), engine="reference", precision="bfloat16"),
        'precision "bfloat16" needs the engine "torch"; the engine "reference" has only "float32"',
    ),
    "another precision": (
        lambda: fit(lazy(), (STRIPES, LABELS), precision="bf16"),
        'unknown precision "bf16"; did you mean "bfloat16"',
    ),
    "float64": (
        lambda: fit(lazy().build((1, 6, 5), dtype="float64"), (STRIPES, LABELS)),
        'trains in float32, the network is float64; use the engine "reference", or network.astype("float32")',
    ),
    "own layer": (
        lambda: fit(nn.Sequential(nn.Flatten(), OwnReLU(), nn.LazyLinear(3)), (STRIPES, LABELS)),
        'no kernel for layer 1 (OwnReLU); the engine "reference" runs any layer',
    ),
    "augment": (
        lambda: fit(lazy(), (STRIPES, LABELS), augment="digits"),
        'unknown augmentation "digits"; did you mean "digit"?',
    ),
    "normalize": (
        lambda: fit(lazy(), (STRIPES, LABELS), normalize="none"),
        'normalize must be "standard", "unit" or (mean, std)',
    ),
    "outputs": (
        lambda: fit(lazy(10), (STRIPES, LABELS)),
        "the data have 3 classes, but the network gives 10 outputs; end it with LazyLinear(3)",
    ),
    "maps": (
        lambda: fit(nn.Sequential(nn.Conv2d(1, 3, 3)), (STRIPES, LABELS)),
        "3 classes, but the network gives 3x4x3 outputs",
    ),
    "softmax": (
        lambda: fit(nn.Sequential(nn.Flatten(), nn.LazyLinear(3), nn.Softmax()), (STRIPES, LABELS)),
        "would apply it twice; remove that last layer",
    ),
    "sigmoid": (
        lambda: fit(nn.Sequential(nn.Flatten(), nn.LazyLinear(3), nn.Sigmoid()), (STRIPES, LABELS)),
        "ends in Sigmoid(), which would apply it twice",
    ),
    "mse and labels": (
        lambda: fit(lazy(), (STRIPES, LABELS), loss=nn.MSELoss()),
        "the targets are labels; use CrossEntropyLoss, or give float targets",
    ),
    "float outputs": (lambda: fit(lazy(), (STRIPES, np.zeros((12, 4)))), "targets are 4 each, but the network gives 3"),
    "one class": (
        lambda: fit(lazy(1), (STRIPES, LABELS * 0)),
        "the data have only one class; telling classes apart needs at least two",
    ),
    "rare class": (lambda: fit(lazy(), (STRIPES[:4], [0, 0, 1, 2])), "smallest class: 1"),
    "empty": (lambda: fit(lazy(), (STRIPES[:0], LABELS[:0])), "there are no images to train on"),
    "lengths": (lambda: fit(lazy(), (STRIPES, LABELS[:5])), "there are 12 images, but 5 targets"),
    "negative": (lambda: fit(lazy(), (STRIPES, LABELS - 1)), "label -1 is out of range"),
    "float labels": (
        lambda: fit(lazy(), (STRIPES, LABELS * 1.0)),
        "labels must be whole numbers, got floats; use labels.astype(int)",
    ),
    "texts": (lambda: fit(lazy(), (STRIPES, ["a"] * 12)), "np.unique(labels, return_inverse=True)"),
    "HWC": (
        lambda: fit(lazy(), (np.zeros((12, 6, 5, 3)), LABELS)),
        "put the channels second: np.moveaxis(images, 3, 1)",
    ),
    "NaN": (lambda: fit(lazy(), (np.full((12, 6, 5), np.nan), LABELS)), "image 0 holds NaN or infinity"),
    "validation": (
        lambda: fit(lazy(), (STRIPES, LABELS), validation=0.2),
        "validation must be a Dataset or (images, targets), got float",
    ),
    "validation size": (
        lambda: fit(lazy(), (STRIPES, LABELS), validation=(STRIPES[:, :, :5], LABELS)),
        "validation images are 1x5x5, training images 1x6x5",
    ),
    "validation type": (
        lambda: fit(lazy(), (STRIPES, LABELS), validation=(STRIPES * 1.0, LABELS)),
        "validation has float64 images",
    ),
    "validation label": (
        lambda: fit(lazy(), (STRIPES, LABELS), validation=(STRIPES, LABELS + 1)),
        "label 3 is out of range; labels must be 0 to 2",
    ),
    "resume": (lambda: fit(lazy(), (STRIPES, LABELS), resume=True), "resume needs out, the folder of the run"),
    "checkpoints": (
        lambda: fit(lazy(), (STRIPES, LABELS), checkpoint_every=0),
        "checkpoint_every must be at least 1, got 0",
    ),
}


@pytest.mark.capability("D4", "H2")
@pytest.mark.parametrize("name", REFUSED)
def test_what_fit_refuses(name):
    call, words = REFUSED[name]
    with pytest.raises(PellucidError) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.capability("H2")
def test_a_network_for_other_images_is_refused_and_stays_as_it_was(stripes, net):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(ShapeError, match=r"layer 0 \(Conv2d, number 1 of the network\) gets 1x6x5 from the network's"):
        fit(network, stripes)
    assert not network.built
    with pytest.raises(OptionError, match="the network was built for inputs 1x6x5, not 1x5x6; a network is built once"):
        fit(net(), (np.zeros((12, 5, 6)), LABELS))


def test_a_class_without_training_images_does_not_break_balance(stripes, plain):
    ds = replace(stripes, targets=np.where(np.arange(67) < 45, stripes.targets % 2, stripes.targets))
    run = fit(plain(), ds, balance=True)
    assert np.isfinite(run.history["train_loss"] + run.history["val_loss"]).all()
