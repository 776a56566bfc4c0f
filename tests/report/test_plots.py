"""The pictures of a run: what stands in them."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import pellucid as pl
from pellucid import metrics
from pellucid.data.dataset import from_arrays
from pellucid.report import plots
from pellucid.training import History, Row


def rows(*losses, accuracy=0.0):
    return [Row(i + 1, 2.0, accuracy, loss, accuracy, 0.1, 0.0) for i, loss in enumerate(losses)]


def labels_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.capability("D17")
def test_curves_mark_the_best_epoch():
    figure = plots.curves(History(rows(3.0, 1.0, 2.0)))
    loss, accuracy = figure.axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss", "accuracy")
    assert labels_of(loss) == ["training", "validation", "kept: epoch 2, 1"]
    assert loss.lines[1].get_ydata().tolist() == [3.0, 1.0, 2.0]
    assert loss.lines[2].get_xdata() == [2, 2]


def test_an_accuracy_of_zero_is_an_accuracy():
    assert len(plots.curves(History(rows(1.0, accuracy=0.0))).axes) == 2
    assert len(plots.curves(History(rows(1.0, accuracy=None))).axes) == 1


@pytest.mark.parametrize("epochs", [1, 2, 3, 30])
def test_ticks_stand_at_whole_epochs_only(epochs):
    for ax in plots.curves(History(rows(*[1.0] * epochs))).axes:
        low, high = ax.get_xlim()
        ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
        assert ticks
        assert all(tick == round(tick) for tick in ticks)


def test_without_validation_there_is_one_curve():
    (ax,) = plots.curves(History(rows(None, None, accuracy=None))).axes
    assert labels_of(ax) == ["training"]


def evaluation(k=3):
    true = np.arange(4 * k) % k
    predicted = true.copy()
    predicted[0] = 1
    names = [f"class {i}" for i in range(k)]
    return metrics.measure(np.eye(k)[predicted], true, names, range(4 * k))


@pytest.mark.capability("F3")
def test_confusion_has_counts_and_names_on_both_axes():
    figure = plots.confusion(evaluation())
    ax = figure.axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
    names = ["class 0", "class 1", "class 2"]
    assert [t.get_text() for t in ax.get_xticklabels()] == [t.get_text() for t in ax.get_yticklabels()] == names
    counts = {t.get_position(): t.get_text() for t in ax.texts}
    assert counts == {(0, 0): "3", (1, 0): "1", (1, 1): "4", (2, 2): "4"}, "column, row"
    assert figure.get_suptitle() == "accuracy 91.67% of 12 images"


def test_many_classes_and_absent_ones_are_drawn_without_numbers():
    assert not plots.confusion(evaluation(30)).axes[0].texts
    empty = replace(evaluation(), confusion=np.zeros((3, 3), dtype=np.int64))
    assert plots.to_png(plots.confusion(empty))[:4] == b"\x89PNG"


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_show_what_was_misread(channels):
    images = np.random.default_rng(0).integers(0, 256, (30, channels, 5, 7)).astype(np.uint8)
    ds = from_arrays(images, np.arange(30) % 2, classes=["cat", "a dog with a very long name"])
    figure = plots.samples(ds, np.arange(30), ("cat",) * 30)
    assert len(figure.axes) == 24
    assert figure.axes[0].get_title() == "cat\n"
    assert figure.axes[1].get_title() == "a dog with a very…\nread as cat"
    assert figure.axes[1].title.get_color() == plots.RED
    assert len(plots.samples(ds, np.arange(3)).axes) == 3


@pytest.mark.parametrize("n", [3, 10, 24, 40])
def test_each_image_is_shown_once_misread_ones_first(tmp_path, monkeypatch, n):
    x = np.random.default_rng(0).integers(0, 256, (n + 20, 1, 3, 3)).astype(np.uint8)
    ds = from_arrays(x, np.arange(n + 20) % 2)
    ds = ds.with_splits(replace(ds.splits, train=np.arange(20), test=np.arange(20, n + 20)))
    run = pl.fit(pl.nn.Sequential(pl.nn.Flatten(), pl.nn.LazyLinear(2)), ds, epochs=1, progress=False)
    shown = []
    draw = plots.samples
    monkeypatch.setattr(
        plots, "samples", lambda ds, indices, names: (shown.append(indices), draw(ds, indices, names))[1]
    )
    result = run.evaluate(part="test")
    plots.write_all(tmp_path, run.history, ds, "test", result)
    wrong = [
        (-max(row), i)
        for row, i, t, p in zip(result.probabilities, result.ids, result.true, result.predicted, strict=True)
        if t != p
    ]
    assert len(shown[0]) == len(set(shown[0].tolist())) == min(n, 24)
    assert shown[0][: min(8, len(wrong))].tolist() == [i for _, i in sorted(wrong)][:8]
    classes = ds.targets[shown[0][8:]]
    assert n < 24 or set(classes) == {0, 1}


def test_show_brings_images_between_0_and_1():
    assert plots.show(np.array([[[-1.0, 3.0, 1.0]]]), (-1.0, 3.0)).tolist() == [[0.0, 1.0, 0.5]]
    assert plots.show(np.zeros((3, 4, 5)), (0.0, 1.0)).shape == (4, 5, 3)


@pytest.mark.parametrize("labels", [("大", "小", "ж"), ("$\\frac{$", "a" * 20_000, "\n\n")])
def test_names_that_cannot_be_drawn_do_not_warn(labels):
    e = replace(evaluation(), labels=labels)
    ds = from_arrays(np.zeros((12, 5, 7)), e.true, classes=labels)
    for figure in (plots.confusion(e), plots.samples(ds, np.arange(3), labels), plots.mistakes(ds, "all", e)):
        with Image.open(io.BytesIO(plots.to_png(figure))) as image:
            assert 100 < min(image.size) < max(image.size) < 2000


@pytest.mark.capability("E9")
@pytest.mark.parametrize("channels", [1, 3])
def test_any_images_with_their_labels_in_two_rows_of_three(channels):
    """The data set is indexed, so that an index means the same whatever was shown before."""
    images = np.random.default_rng(0).integers(0, 256, (30, channels, 5, 7)).astype(np.uint8)
    ds = from_arrays(images, np.arange(30) % 3, classes=["cat", "dog", "owl"])
    chosen = [23, 24, 0, 29, 7, 7]
    axes = plots.samples(ds, np.array(chosen), columns=3).axes
    assert [ax.get_title().strip() for ax in axes] == ["owl", "cat", "cat", "owl", "dog", "dog"]
    for ax, i in zip(axes, chosen, strict=True):
        expected = images[i, 0] if channels == 1 else np.moveaxis(images[i], 0, -1)
        assert np.allclose(ax.images[0].get_array(), expected / 255)
    places = [ax.get_subplotspec() for ax in axes]
    assert [(p.rowspan.start, p.colspan.start) for p in places] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    plain = from_arrays(images, np.arange(30) % 3)
    assert plots.samples(plain, np.array([23])).axes[0].get_title() == "2\n"


@pytest.mark.capability("H18")
def test_mistakes_come_worst_first_with_their_ids():
    e = evaluation()
    p = e.probabilities.copy()
    p[0] = [0.3, 0.6, 0.1]
    p[4] = [0.8, 0.15, 0.05]
    e = replace(metrics.measure(np.log(p), e.true, e.labels, [f"{i}.png" for i in range(12)]), labels=("a", "b", "c"))
    ds = from_arrays(np.arange(12 * 35).reshape(12, 5, 7).astype(np.float64), e.true)
    axes = plots.mistakes(ds, "all", e).axes
    assert [ax.get_title() for ax in axes] == ["b\nread as a 80%\nid 4.png", "a\nread as b 60%\nid 0.png"]
    assert (
        np.argmin([np.abs(axes[0].images[0].get_array() - plots.show(x, ds.value_range)).sum() for x in ds.images]) == 4
    )
    assert [ax.get_title() for ax in plots.mistakes(ds, "all", e, np.array([1])).axes] == ["b\nread as b 58%\nid 1.png"]


def test_pictures_are_the_same_bytes_each_time():
    history = History(rows(3.0, 1.0))
    assert plots.to_png(plots.curves(history)) == plots.to_png(plots.curves(history))


def test_a_run_without_classes_gets_curves_only(tmp_path):
    x = np.random.default_rng(0).random((20, 2, 2))
    net = pl.nn.Sequential(pl.nn.Flatten(), pl.nn.LazyLinear(4))
    run = pl.fit(net, (x, x.reshape(20, 4)), epochs=1, progress=False)
    plots.write_all(tmp_path, run.history, run.dataset, "train", None)
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
