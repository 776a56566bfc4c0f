"""Autoencoders: images as their own targets, mirrored decoders, reconstruction errors, on the command line too."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import pellucid as pl
from pellucid import engines, models, nn, optim
from pellucid.data import from_arrays
from pellucid.data.dataset import Splits
from pellucid.errors import DataError, EngineError, OptionError
from pellucid.training import reconstruction_errors

SHAPES = [(1, 28, 28), (3, 17, 23), (1, 7, 7), (2, 1, 5), (1, 8, 9)]


@pytest.mark.capability("C12")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("bottleneck", [None, 5])
@pytest.mark.parametrize("filters", [(4,), (6, 3, 4)])
def test_the_decoder_gives_back_the_very_size(shape, upsample, bottleneck, filters):
    net = models.autoencoder(shape, filters, bottleneck, upsample=upsample).build(shape)
    x = np.random.default_rng(0).standard_normal((8, *shape)).astype("float32")
    y = net(x)
    assert y.shape == x.shape
    assert (y.min() > 0, y.max() < 1) == (True, True), "bounded to the range of the targets"
    code = net[0](x)
    assert code.shape == ((8, bottleneck) if bottleneck else (8, filters[-1], *halved(shape[1:], len(filters))))
    assert np.array_equal(net[1](code), y)
    assert (code < 0).any(), "nothing follows the bottleneck"
    maps = [after for *_, after in net[0].trace(shape)] if bottleneck is None else []
    assert all(after in [before for _, _, before, _ in net[1].trace(code.shape[1:])] for after in maps)


def halved(size, times):
    for _ in range(times):
        size = tuple(-(-n // 2) for n in size)
    return size


@pytest.mark.capability("C12", "C13")
def test_the_sizes_of_the_lesson():
    """7 -> 4 -> 7, and 8x2x2 is 32 numbers, 4x2x2 is 16."""
    net = models.autoencoder((1, 28, 28), (16, 32, 32, 8), None).build((1, 28, 28))
    transposed = [layer for _, layer in net.leaves() if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.output_padding for layer in transposed] == [(1, 1), (0, 0), (1, 1), (1, 1)]
    assert [out[1:] for _, layer, _, out in net.trace((1, 28, 28)) if layer in transposed] == [
        (4, 4), (7, 7), (14, 14), (28, 28),
    ]  # fmt: skip
    assert net[0].output_shape((1, 28, 28)) == (8, 2, 2)
    dense = models.dense_autoencoder((1, 28, 28)).build((1, 28, 28))
    sizes = [784, 128, 64, 16, 64, 128, 784]
    assert dense.flat_parameters.size == sum(a * b + b for a, b in pairwise(sizes))
    assert dense[0].output_shape((1, 28, 28)) == (16,)
    assert dense.output_shape((1, 28, 28)) == (1, 28, 28)


@pytest.mark.capability("C12")
def test_the_transposed_convolutions_are_those_of_pytorch(torch):
    net = models.autoencoder((1, 7, 10), (4, 3), None).build((1, 7, 10))
    encoder, decoder = (
        [(type(layer), layer) for _, layer in part.leaves() if layer.named_parameters()] for part in (net[0], net[1])
    )
    layers = []
    for (kind, layer), last in [(pair, pair is encoder[-1]) for pair in encoder] + [
        (pair, pair is decoder[-1]) for pair in decoder
    ]:
        options = {"stride": 2, "padding": 1}
        if kind is nn.ConvTranspose2d:
            options["output_padding"] = layer.output_padding
        twin = getattr(torch.nn, kind.__name__)(
            *layer.weight.shape[:2][:: 1 if kind is nn.ConvTranspose2d else -1], 3, **options
        )
        with torch.no_grad():
            twin.weight.copy_(torch.from_numpy(layer.weight.copy()))
            twin.bias.copy_(torch.from_numpy(layer.bias.copy()))
        layers += [twin, *([] if last else [torch.nn.ReLU()])]
    x = np.random.default_rng(0).standard_normal((3, 1, 7, 10)).astype("float32")
    expected = torch.sigmoid(torch.nn.Sequential(*layers)(torch.from_numpy(x)))
    np.testing.assert_allclose(net(x), expected.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "match"), [(((28, 28),), r"needs \(C, H, W\)"), (((1, 8, 8), ()), "at least one")]
)
def test_refused_autoencoders(arguments, match):
    with pytest.raises(OptionError, match=match):
        models.autoencoder(*arguments)
    with pytest.raises(OptionError, match='unknown model "autoencodr"; did you mean "autoencoder"'):
        models.create("autoencodr", (1, 8, 8), 10)


# Images as their own targets


@pytest.mark.parametrize(("dtype", "value_range"), [(np.uint8, None), (np.float64, (-3.0, 5.0)), (np.int16, (0, 16))])
def test_images_become_targets_between_0_and_1(dtype, value_range):
    images = np.random.default_rng(0).integers(0, 5, (6, 1, 3, 4)).astype(dtype)
    ds = from_arrays(images, np.arange(6) % 2, classes=["a", "b"], value_range=value_range)
    twin = ds.reconstruction()
    low, high = ds.value_range
    np.testing.assert_allclose(twin.targets, (images.astype(float) - low) / (high - low), rtol=1e-6, atol=1e-7)
    assert twin.targets.dtype == np.float32
    assert (twin.is_reconstruction, ds.is_reconstruction, twin.is_classification) == (True, False, False)
    assert (twin.classes, twin.splits, twin.value_range) == ((), ds.splits, ds.value_range)
    assert np.array_equal(ds.images, images)


def pictures():
    """Images that two numbers describe: where a bright row is, and how bright."""
    rng = np.random.default_rng(0)
    images = np.zeros((120, 1, 7, 6), np.uint8)
    rows, light = rng.integers(0, 7, 120), rng.integers(100, 256, 120)
    images[np.arange(120), 0, rows] = light[:, None]
    ds = from_arrays(images, rows)
    return replace(ds, splits=Splits(np.arange(80), np.arange(80, 100), np.arange(100, 120)))


@pytest.mark.capability("C12")
@pytest.mark.parametrize(
    ("name", "normalize"),
    [("flat", "standard"), ("spatial", "standard"), ("upsample", "standard"), ("dense", "standard"), ("dense", "unit")],
)
def test_they_learn_and_come_back_from_a_file(tmp_path, name, normalize):
    shape = (1, 7, 6)
    net = {
        "flat": models.autoencoder(shape, (8, 8), 4),
        "spatial": models.autoencoder(shape, (8, 4), None),
        "upsample": models.autoencoder(shape, (8, 8), 4, upsample=True),
        "dense": models.dense_autoencoder(shape, (16,), 4),
    }[name]
    ds = pictures().reconstruction()
    options = {
        "epochs": 60,
        "seed": 1,
        "batch_size": 8,
        "optimizer": optim.Adam(lr=0.003),
        "engine": "reference",
        "progress": False,
    }
    run = pl.fit(net, ds, normalize=normalize, out=tmp_path / "run", **options)
    errors = reconstruction_errors(run.model, ds)
    test = ds.splits.test
    outputs = run.model.outputs(ds.images[test])
    np.testing.assert_allclose(errors, ((outputs - ds.images[test] / 255.0) ** 2).mean((1, 2, 3)), rtol=1e-4)
    assert errors.mean() < 0.5 * ds.targets[test].var()
    again = pl.load(tmp_path / "run", engine="reference")
    assert again.classes == ()
    assert again.metrics["test_mse"] == errors.mean()
    assert np.array_equal(again.outputs(ds.images), run.model.outputs(ds.images))
    document = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert document["test"] == {"mse": errors.mean(), "n": 20}
    assert document["val"]["mse"] == pytest.approx(run.history.best.val_loss)
    with pytest.raises(OptionError, match="no classes"):
        again.predict(ds.images)


@pytest.mark.capability("C12")
@pytest.mark.parametrize("name", models.AUTOENCODERS)
def test_an_engine_that_cannot_run_it_says_so_at_once_or_agrees_with_the_definition(name):
    ds = pictures().reconstruction()
    outputs, said = [], []
    for engine in engines.NAMES:
        try:
            run = pl.fit(models.create(name, ds.shape, 0), ds, epochs=2, engine=engine, progress=False)
        except EngineError as error:
            said.append(str(error))
        else:
            outputs.append(run.model.outputs(ds.images))
    assert all('"compiled" has no kernel for layer 1.' in text and '"reference" runs any' in text for text in said)
    assert np.allclose(outputs[0], outputs[-1], atol=1e-3)


def test_logits_are_no_reconstruction(tmp_path):
    ds = pictures().reconstruction()
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(42), nn.Unflatten(1, ds.shape))
    options = {"loss": nn.BCEWithLogitsLoss(), "epochs": 1, "engine": "reference", "progress": False}
    run = pl.fit(net, ds, out=tmp_path / "run", **options)
    assert set(run.model.metrics) == {"val_loss"}
    assert "Reconstructions" not in (tmp_path / "run" / "report.html").read_text()


def test_what_has_no_reconstruction():
    ds = pictures()
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(42), nn.Sigmoid()).build(ds.shape)
    model = pl.Model(net, pl.InputSpec.of(ds), engine="reference")
    with pytest.raises(DataError, match=r"the targets are no images; ds\.reconstruction\(\) makes"):
        reconstruction_errors(model, ds)
    with pytest.raises(DataError, match="the model gives 42 for an image, not another image"):
        reconstruction_errors(model, ds.reconstruction())
    with pytest.raises(DataError, match='no part "val"'):
        empty = replace(ds.splits, val=np.empty(0, int))
        reconstruction_errors(model, ds.reconstruction().with_splits(empty), "val")
    with pytest.raises(OptionError, match="balance weights the classes"):
        pl.fit(models.create("autoencoder", ds.shape, 0), ds.reconstruction(), balance=True)


# Side by side


@pytest.mark.capability("C13")
def test_bottlenecks_and_ratios_stand_beside_the_loss():
    ds = pictures().reconstruction()
    networks = {
        "dense": models.dense_autoencoder(ds.shape, (8,), 4),
        "convolutional": models.autoencoder(ds.shape, (4, 3), 4),
    }
    options = {"engine": "reference", "progress": False, "epochs": 2}
    found = pl.compare(networks, ds, **options)
    assert found.warning is None
    for contender, (name, network) in zip(found.contenders, networks.items(), strict=True):
        assert (contender.name, contender.bottleneck, contender.ratio) == (name, 4, 42 / 4)
        assert contender.parameters == network.flat_parameters.size
        assert contender.loss == reconstruction_errors(found.runs[name].model, ds).mean()
    lines = str(found).splitlines()
    assert lines[0].split() == [
        "network",
        "parameters",
        "mult-adds",
        "seconds",
        "bottleneck",
        "ratio",
        "squared",
        "error",
    ]
    assert lines[1].split()[0::4] == ["dense", "4"]
    assert lines[1].split()[-2:] == ["10.5", f"{found.contenders[0].loss:.5f}"]
    uneven = {"narrow": models.autoencoder(ds.shape, (4, 3), 4), "spatial": models.autoencoder(ds.shape, (4, 3), None)}
    found = pl.compare(uneven, ds, **options)
    assert [c.bottleneck for c in found.contenders] == [4, 3 * 2 * 2]
    assert "the bottlenecks differ, from 4 to 12 numbers" in found.warning
    assert str(found).endswith(f"warning: {found.warning}")


@pytest.mark.capability("C6")
def test_plain_and_convolutional_classifiers_side_by_side():
    ds = pictures()
    networks = {
        "plain": models.mlp((8,), 7),
        "convolutional": nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(7)),
    }
    found = pl.compare(networks, ds, shifts=(0, 2), epochs=5, engine="reference", progress=False, batch_size=8)
    for contender in found.contenders:
        run = found.runs[contender.name]
        judged = run.evaluate()
        assert (contender.loss, contender.accuracy, contender.shifted[0]) == (
            judged.loss,
            judged.accuracy,
            judged.accuracy,
        )
        assert contender.seconds == run.history.rows[-1].seconds
        expected = []
        for axis, step in ((2, 2), (2, -2), (3, 2), (3, -2)):
            images = np.pad(ds.images[ds.splits.test], ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
            moved = np.roll(images, step, axis)[:, :, 2:-2, 2:-2]
            right = run.model.predict(moved).indices == ds.targets[ds.splits.test]
            expected.append(right.mean())
        assert contender.shifted[2] == pytest.approx(np.mean(expected))
    plain = found.contenders[0]
    assert (plain.parameters, plain.multiply_adds) == (42 * 8 + 8 + 8 * 7 + 7, 42 * 8 + 8 * 7)
    titles, *lines = str(found).splitlines()
    assert titles.split()[:6] == ["network", "parameters", "mult-adds", "seconds", "loss", "accuracy"]
    assert lines[0].split()[4] == f"{plain.loss:.4f}", "the loss is a number"
    with pytest.raises(OptionError, match="networks must be a dict"):
        pl.compare({}, ds)


@pytest.mark.capability("C12", "C13")
@pytest.mark.parametrize("upsample", [False, True])
def test_deep_ones_learn_with_every_seed(real_data, upsample):
    """More than that most pixels are black, and more than the mean of all images."""
    ds = pl.data.load("mnist", subset=4000).reconstruction()
    targets = ds.targets[ds.splits.test[:1000]]
    mean = ((targets - targets.mean(axis=0)) ** 2).mean()
    for seed in range(3):
        net = models.autoencoder((1, 28, 28), (16, 32, 32, 4), None, upsample=upsample)
        run = pl.fit(net, ds, epochs=5, seed=seed, progress=False)
        assert ((run.model.outputs(ds.images[ds.splits.test[:1000]]) - targets) ** 2).mean() < 0.85 * mean
