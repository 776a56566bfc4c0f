"""What looks right at first sight and is not: refused, or said, instead of answered wrongly."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

import pellucid as pl
from pellucid import nn
from pellucid.data import from_arrays
from pellucid.errors import DataError, FileError, OptionError, PellucidError, ShapeError
from pellucid.nn.spec import from_spec, to_spec


@pytest.fixture(scope="module")
def digits_model():
    ds = pl.data.load("digits")
    return pl.fit(pl.models.create("block_cnn", ds.shape, 10), ds, epochs=3, progress=False).model


@pytest.mark.capability("F4")
def test_a_dark_figure_on_light_ground_is_not_answered_with_confidence(digits_model):
    ds = pl.data.load("digits")
    assert digits_model.input.polarity == "dark"
    raw = ds.images[ds.splits.test]
    assert sum(doubt is not None for doubt in digits_model.predict(raw).unsure) <= 0.03 * len(raw)
    inverted = digits_model.predict(16 - raw)
    doubts = [doubt for doubt in inverted.unsure if doubt]
    assert len(doubts) >= 0.98 * len(raw)
    assert "its border is light, that of the training images was dark; invert the image" in doubts


@pytest.mark.capability("F4", "H5")
def test_pictures_of_digits_are_read_in_both_polarities(digits_model):
    """A picture of another size is a photo: the figure is found, whichever of the two is dark."""
    ds = pl.data.load("digits")
    some = ds.splits.test[:100]
    for invert in (False, True):
        pictures = []
        for image in ds.images[some, 0]:
            large = Image.fromarray(np.uint8(image * 15)).resize((80, 80), Image.Resampling.BICUBIC)
            framed = np.pad(np.asarray(large), 40)
            pictures.append(Image.fromarray(255 - framed if invert else framed))
        assert np.mean(digits_model.predict(pictures).indices == ds.targets[some]) >= 0.65


def test_color_photos_have_no_polarity():
    rng = np.random.default_rng(0)
    photos = from_arrays(rng.integers(0, 256, (40, 3, 9, 9)).astype(np.uint8), np.arange(40) % 2)
    assert pl.InputSpec.of(photos).polarity == "mixed"


def test_a_dark_picture_is_not_taken_for_a_scaled_array(digits_model, tmp_path):
    Image.new("L", (20, 20), 12).save(tmp_path / "dark.png")
    assert len(digits_model.predict(tmp_path / "dark.png")) == 1
    assert len(digits_model.predict(np.full((8, 8), 0.75))) == 1


def test_images_already_divided_by_255_are_refused():
    rng = np.random.default_rng(0)
    ds = from_arrays(rng.integers(0, 256, (40, 1, 6, 6)).astype(np.uint8), np.arange(40) % 2)
    run = pl.fit(nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), ds, epochs=1, progress=False)
    with pytest.raises(DataError, match="look scaled; multiply by 255, or give the images as stored"):
        run.model.predict(ds.images / 255)


def test_outputs_that_are_no_numbers_are_no_prediction(digits_model):
    import copy

    network = copy.deepcopy(digits_model.network)
    network.load_state_dict({name: np.full_like(a, 1e38) for name, a in network.state_dict().items()})
    model = pl.Model(network, digits_model.input, digits_model.classes)
    with pytest.raises(DataError, match="for image 0; its weights are unusable"):
        model.predict(np.full((2, 8, 8), 9))
    ds = pl.data.load("digits")
    with pytest.raises(DataError, match=f"nan.* for image {ds.splits.val[0]}; its weights are unusable"):
        pl.evaluate(model, ds, "val")


def test_no_images_are_no_predictions(digits_model):
    assert len(digits_model.predict(np.empty((0, 1, 8, 8)))) == 0


def test_reconstructions_that_are_no_numbers_have_no_error():
    ds = pl.data.load("digits").reconstruction()
    net = nn.Sequential(nn.Conv2d(1, 1, 1), input_shape=ds.shape).build(ds.shape)
    net.load_state_dict({name: np.full_like(a, 3e38) for name, a in net.state_dict().items()})
    with pytest.raises(DataError, match="gives NaN or infinity for image 0; its weights are unusable"):
        pl.training.reconstruction_errors(pl.Model(net, pl.InputSpec.of(ds)), ds, "all")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([1, 2, 3], "no image has the label 0, but the largest is 3.*subtract 1"),
        ([0, 5, 0], "no image has the label 1, but the largest is 5.*give all names"),
        ([0, 1, 3 * 10**9], "label 3000000000 is out of range"),
        (np.array([0, 1, 2**63], dtype=np.uint64), "out of range"),
        (np.eye(3, dtype=int), r"one-hot rows become labels by labels.argmax\(axis=1\)"),
    ],
)
def test_labels_with_gaps(labels, words):
    with pytest.raises(DataError, match=words):
        from_arrays(np.zeros((3, 4, 4)), labels)


def test_two_classes_of_one_name():
    with pytest.raises(DataError, match='the class "a" stands twice'):
        from_arrays(np.zeros((3, 4, 4)), [0, 1, 2], classes=["a", "b", "a"])


def test_early_stopping_and_checkpoints_need_what_they_work_on():
    ds = pl.data.load("digits", val_fraction=0.0, subset=100)
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    with pytest.raises(OptionError, match="EarlyStopping needs a validation part"):
        pl.fit(net, ds, epochs=1, callbacks=[pl.EarlyStopping(1)], progress=False)
    with pytest.raises(OptionError, match="checkpoint_every needs out"):
        pl.fit(net, ds, epochs=1, checkpoint_every=3, progress=False)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(64, 10**12),
        lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(10**23), input_shape=(1, 8, 8)),
        lambda: nn.Sequential(nn.AvgPool2d(200_001, padding=100_000), input_shape=(1, 8, 8)),
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d(10**6), input_shape=(1, 8, 8)),
        lambda: pl.models.create("lesson1", (1, 10**8, 10**8), 10),
    ],
)
def test_sizes_that_no_machine_holds(make):
    with pytest.raises((OptionError, ShapeError), match=r"make the layer smaller|too large|numbers for one image"):
        make()


def test_shared_parts_cannot_multiply_without_end():
    spec = {"layer": "ReLU"}
    for depth in range(30, 0, -1):
        spec = {"layer": "Sequential", "layers": [spec, {"same_as": ".".join(["0"] * depth)}]}
    with pytest.raises(OptionError, match="has more than 10000 layers"):
        from_spec(spec)


@pytest.mark.parametrize("layer", [{"layer": "Softmax", "dim": "a"}, {"layer": "Softmax", "dim": 1.5}])
def test_wrong_types_in_a_spec(layer):
    with pytest.raises(OptionError, match="dim must be a whole number"):
        from_spec(layer)
    with pytest.raises(OptionError, match="ceil_mode must be True or False"):
        from_spec({"layer": "MaxPool2d", "kernel_size": 2, "ceil_mode": "no"})


def test_a_network_without_parameters_is_saved_and_loaded(tmp_path):
    network = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), input_shape=(1, 2, 4))
    spec = pl.InputSpec((1, 2, 4), (0.0, 255.0), (0.0,), (1.0,))
    pl.Model(network, spec, ("left", "right")).save(tmp_path / "m.safetensors")
    assert to_spec(pl.load(tmp_path / "m.safetensors").network) == to_spec(network)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(FileError, match="not a regular file"):
            pl.load(path)
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(DataError, match="not a regular file"):
        pl.data.load(tmp_path / "a.npz")


def test_a_huge_file_that_is_no_model_is_not_read(tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FileError, match="is not a pellucid file"):
        pl.load(tmp_path / "huge")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Sequential([nn.ReLU()]), r"write nn\.Sequential\(\*layers\)"),
        (lambda: nn.Sequential(pl.functional.relu), r"write a layer such as nn\.ReLU\(\)"),
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), input_shape=(28, 28, 1)), "put them first: 1x28x28"),
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), input_shape=(28, 28)), "add the channel axis: 1x28x28"),
        (lambda: from_arrays(np.zeros((5, 64)), [0, 1, 0, 1, 0]), r"images\.reshape\(-1, 1, 8, 8\)"),
        (lambda: from_arrays(np.zeros((5, 1, 4, 4)), np.zeros((5, 1, 4, 4), int)), "other targets must be floats"),
        (
            lambda: pl.fit(nn.Sequential(nn.Flatten()), np.zeros((5, 4, 4)), np.zeros(5)),
            "images and labels go together",
        ),
    ],
)
def test_the_cure_fits_the_slip(make, words):
    with pytest.raises(PellucidError, match=words):
        make()


@pytest.mark.capability("E10")
def test_color_pictures_for_a_model_of_gray_ones_and_the_reverse(tmp_path, monkeypatch, capsys):
    from pellucid.cli import main

    rng = np.random.default_rng(0)
    for mode, folder in (("L", "gray"), ("RGB", "color")):
        for label in ("dark", "light"):
            (tmp_path / folder / label).mkdir(parents=True)
            for i in range(10):
                level = rng.integers(0, 90) + (150 if label == "light" else 0)
                Image.new(mode, (9, 9), int(level) if mode == "L" else (int(level),) * 3).save(
                    tmp_path / folder / label / f"{i}.png"
                )
    monkeypatch.chdir(tmp_path)
    for trained, other in (("gray", "color"), ("color", "gray")):
        monkeypatch.setattr("sys.argv", ["pellucid", "train", trained, "--model", "mlp", "--out", f"run-{trained}"])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        monkeypatch.setattr("sys.argv", ["pellucid", "evaluate", f"run-{trained}", other])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        assert "accuracy 1.0000" in capsys.readouterr().out


def made(low, high, n=40, dtype=np.uint8, seed=0, **options):
    rng = np.random.default_rng(seed)
    return from_arrays(rng.integers(low, high + 1, (n, 1, 6, 6)).astype(dtype), np.arange(n) % 2, **options)


def linear():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))


def test_a_guessed_range_is_not_taken_for_a_declared_one():
    deep = made(0, 300, dtype=np.uint16)
    assert deep.value_range == (0, 65535)
    run = pl.fit(linear(), deep, epochs=2, progress=False)
    clipped = np.minimum(deep.images, 255)
    guessed = from_arrays(clipped, deep.targets)
    assert run.evaluate(guessed, "all").loss == run.evaluate((clipped, deep.targets)).loss


def test_validation_pixels_never_wrap_around():
    ds = made(0, 255)
    below = from_arrays(((ds.images - 127.0) / 50).astype(np.float32), ds.targets)
    with pytest.raises(DataError, match=r"use \.astype so that they agree|lie outside the training's value_range"):
        pl.fit(linear(), ds, validation=below, epochs=1, progress=False)
    sixteenths = made(0, 16, dtype=np.uint8, value_range=(0, 16))
    run = pl.fit(linear(), ds, validation=sixteenths, epochs=1, progress=False)
    assert run.dataset.images[run.dataset.splits.val].max() == 255
    assert run.dataset.images.dtype == np.uint8


def test_validation_may_lack_a_class_but_not_add_one():
    ds = from_arrays(made(0, 255, 60).images, np.arange(60) % 3)
    two = from_arrays(made(0, 255, 20).images, np.arange(20) % 2)
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    assert pl.fit(net, ds, validation=two, epochs=1, progress=False).history.best is not None
    with pytest.raises(DataError, match='the data have the class "2"'):
        pl.fit(linear(), two, validation=ds, epochs=1, progress=False)
    with pytest.raises(DataError, match="validation holds no images"):
        pl.fit(linear(), two, validation=(two.images[:0], two.targets[:0]), epochs=1, progress=False)


def test_results_without_a_checkpoint_are_not_overwritten(tmp_path):
    ds = made(0, 255)
    digest = pl.fit(linear(), ds, epochs=2, out=tmp_path / "run", progress=False).digest
    (tmp_path / "run" / "last.ckpt").unlink()
    with pytest.raises(FileError, match=r"holds no run to resume: there is no last\.ckpt"):
        pl.fit(linear(), ds, epochs=2, out=tmp_path / "run", resume=True, progress=False)
    assert pl.load(tmp_path / "run").network is not None
    assert digest in (tmp_path / "run" / "metrics.json").read_text()


def test_a_refused_fit_leaves_no_folder(tmp_path):
    ds = data_without_validation()
    with pytest.raises(OptionError, match="EarlyStopping needs"):
        pl.fit(linear(), ds, out=tmp_path / "run", callbacks=[pl.EarlyStopping()], progress=False)
    with pytest.raises(OptionError, match="settings must be plain data"):
        pl.fit(linear(), ds, out=tmp_path / "run", settings={"note": object()}, progress=False)
    assert not (tmp_path / "run").exists()


def data_without_validation():
    from pellucid.data import split

    return split(made(0, 255), val_fraction=0.0)


class StopAtOnce(pl.Callback):
    """Asks for a stop at the first step, and dies at the fifth if told to."""

    def __init__(self, dies):
        self.dies = dies

    def on_batch_end(self, trainer, step, loss):
        trainer.stop("enough")
        if self.dies and step == 4:
            raise KeyboardInterrupt


def test_a_stop_asked_for_within_an_epoch_is_not_kept_by_a_checkpoint(tmp_path):
    ds = data_without_validation()
    options = {"epochs": 3, "batch_size": 4, "checkpoint_every": 2, "progress": False}
    whole = pl.fit(linear(), ds, out=tmp_path / "whole", callbacks=[StopAtOnce(False)], **options)
    with pytest.raises(KeyboardInterrupt):
        pl.fit(linear(), ds, out=tmp_path / "dead", callbacks=[StopAtOnce(True)], **options)
    again = pl.fit(linear(), ds, out=tmp_path / "dead", callbacks=[StopAtOnce(False)], resume=True, **options)
    assert (again.stopped, len(again.history), again.digest) == ("enough", 1, whole.digest)


def test_what_load_refuses_is_not_saved():
    deep = nn.ReLU()
    for _ in range(60):
        deep = nn.Sequential(deep)
    with pytest.raises(OptionError, match="nested more than 50 deep"):
        to_spec(deep)


def test_a_model_without_classes_says_so(tmp_path):
    x = made(0, 255).images
    run = pl.fit(nn.Sequential(nn.Flatten(), nn.LazyLinear(1)), (x, x.mean(axis=(1, 2, 3))[:, None]), progress=False)
    with pytest.raises(OptionError, match="has no classes"):
        run.model.predict_prepared(x)


def test_pixels_beyond_a_given_range():
    with pytest.raises(DataError, match=r"pixels lie between 0 and 1500, outside value_range \(0, 1000\)"):
        from_arrays(np.array([[[0.0]], [[1500.0]]]), [0, 1], value_range=(0, 1000))


def test_arrays_a_little_beyond_a_measured_range_are_evaluated():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 1, 4, 4))
    run = pl.fit(linear(), (x, np.arange(40) % 2), epochs=1, progress=False)
    assert run.evaluate((1.2 * x, np.arange(40) % 2)).n == 40


def test_a_model_saved_by_hand_carries_what_validation_said(tmp_path):
    run = pl.fit(linear(), made(0, 255), epochs=2, progress=False)
    run.model.save(tmp_path / "m.safetensors")
    best = run.history.best
    loaded = pl.load(tmp_path / "m.safetensors")
    assert loaded.metrics == {"val_loss": best.val_loss, "val_accuracy": best.val_accuracy}
    assert loaded.data_digest == run.dataset.digest()


@pytest.mark.parametrize("value_range", [(0, np.inf), (np.nan, 1), (5, 5)])
def test_ranges_that_are_none(value_range):
    with pytest.raises(DataError, match="two finite numbers that rise"):
        from_arrays(np.zeros((2, 3, 3)), [0, 1], value_range=value_range)
