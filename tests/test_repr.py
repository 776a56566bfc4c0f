"""How networks, data sets, runs and predictions show themselves in notebooks: whole, escaped, small, no network."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import pellucid as pl
from pellucid import _repr, models, nn
from pellucid.data.dataset import Splits, from_arrays

EVIL = '<img src=x onerror="alert(1)">&'


class Table(HTMLParser):
    """Rows of a table, pictures, and text; that every element is closed."""

    def __init__(self, shown):
        super().__init__()
        self.open, self.rows, self.pictures, self.text = [], [], [], ""
        self.feed(shown)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert tag in ("p", "b", "table", "tr", "th", "td", "img"), tag
        if tag == "img":
            content = dict(attrs)["src"].removeprefix("data:image/png;base64,")
            self.pictures.append((Image.open(io.BytesIO(base64.b64decode(content, validate=True))), dict(attrs)["alt"]))
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data


def read(thing):
    shown = thing._repr_html_()
    assert not re.search(r"https?:|<script", shown)
    assert len(shown) < 100_000
    return Table(shown)


def test_a_network():
    rows = read(models.create("resnet8", (3, 32, 32), 10)).rows
    assert rows[0] == ["layer", "kind", "output", "parameters"]
    assert rows[1] == ["", "input", "3x32x32", ""]
    assert rows[2][0] == "0"
    assert rows[2][2:] == ["16x32x32", "432"]
    assert rows[-1] == ["11", "Linear(64, 10)", "10", "650"]
    assert sum(int(row[3].replace(",", "")) for row in rows[2:] if row[3]) == 78_042
    assert [row[0] for row in rows[2:]] == [path for path, _ in models.create("resnet8", (3, 32, 32), 10).leaves()]


def test_a_network_that_is_not_built_or_holds_a_layer_twice():
    shared = nn.Linear(4, 4)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    assert read(net).rows == [["layer", "kind"], ["0", "Linear(4, 4)"], ["1", "ReLU()"], ["2", "Linear(4, 4)"]]
    rows = read(net.build((4,))).rows
    assert [row[3] for row in rows[2:]] == ["20", "", ""]
    assert "20 parameters" in read(net).text


@pytest.mark.parametrize("channels", [1, 3])
def test_a_data_set(channels):
    images = np.random.default_rng(0).integers(0, 256, (9, channels, 100, 60)).astype(np.uint8)
    ds = from_arrays(images, np.arange(9) % 3, classes=("a", EVIL, "c"))
    ds = ds.with_splits(Splits(np.arange(6), np.array([6]), np.array([7, 8])))
    shown = read(ds)
    assert shown.rows == [
        ["class", "train", "val", "test"],
        ["a", "2", "1", "0"],
        [EVIL, "2", "0", "1"],
        ["c", "2", "0", "1"],
    ]
    ((image, alt),) = shown.pictures
    assert image.mode == ("L" if channels == 1 else "RGB")
    assert image.size == (3 * 21, 34)
    assert np.array_equal(np.asarray(image)[:, :20], np.squeeze(np.moveaxis(images[0][:, ::3, ::3], 0, -1)))
    assert EVIL in alt


def test_data_sets_without_classes_images_or_with_many():
    x = np.zeros((4, 1, 3, 3))
    assert read(from_arrays(x, x)).rows[1] == ["all", "4", "0", "0"]
    many = read(from_arrays(np.zeros((70, 2, 2)), np.arange(70)))
    assert len(many.rows) == 51
    assert "and 20 more classes" in many.text
    empty = from_arrays(np.zeros((0, 2, 2)), np.zeros(0, dtype=np.int64), classes=("a",))
    assert read(empty).pictures == []


def test_a_run_and_a_prediction():
    ds = pl.data.load("digits", subset=100)
    run = pl.fit(models.create("mlp", ds.shape, 10), ds, epochs=12, engine="reference", progress=False)
    shown = read(run)
    assert len(shown.rows) == 11
    assert shown.rows[1][:2] == ["3", f"{run.history['train_loss'][2]:.4f}"]
    assert f"kept: epoch {run.history.best.epoch}" in shown.text
    assert "Run: finished after 12 epochs" in shown.text
    assert [alt for _, alt in shown.pictures] == ["learning curves"]
    prediction = run.model.predict(ds.images[:25])
    rows = read(prediction).rows
    assert len(rows) == 21
    assert rows[1][:3] == ["0", prediction.labels[0], f"{prediction.probabilities[0].max():.1%}"]
    assert "25 predictions" in read(prediction).text
    assert "and 5 more" in read(prediction).text
    assert read(run.model.predict(ds.images[:1])).text.startswith("1 predictionimage")


def test_names_are_escaped_and_on_one_line():
    prediction = pl.Prediction(
        np.array([[0.25, 0.75]]), np.array([1]), (f"{EVIL}\n\x1b[0m",), np.zeros((1, 2)), (EVIL,)
    )
    assert read(prediction).rows[1] == ["0", rf"{EVIL}\n\x1b[0m", "75.0%", EVIL]
    assert "<img" not in _repr.table(EVIL, [EVIL], [[EVIL]], EVIL)


def test_a_run_without_validation_or_epochs():
    images = np.random.default_rng(0).random((20, 1, 2, 2))
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    ds = from_arrays(images, images.reshape(20, 4))
    run = pl.fit(net, ds.with_splits(Splits(np.arange(19), np.empty(0, int), np.array([19]))), epochs=1, progress=False)
    assert read(run).rows[1][2:] == ["", "", ""]
    run.history.rows.clear()
    assert read(run).pictures == []
