"""The page: complete, escaped, and true of any network."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import pellucid as pl
from explain.networks import NETS, model, network, picture
from pellucid import explain, models, nn
from pellucid.data.dataset import Splits
from pellucid.errors import DataError, OptionError
from pellucid.explain import figures, page


class Read(HTMLParser):
    """The page's pictures, headings and text; that each element is closed."""

    def __init__(self, path):
        super().__init__()
        self.open, self.images, self.headings, self.text, self.links = [], {}, [], "", []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "img":
            self.images[attrs["src"]] = attrs["alt"]
        self.links += [attrs[name] for name in ("href", "src") if name in attrs]
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if "style" not in self.open:
            self.text += data


def check(path):
    """Return the page, all of whose pictures are there, have words for who does not see them, and nothing else is."""
    read = Read(path)
    for name, alt in read.images.items():
        assert len(alt) > 10
        with Image.open(path.parent / name) as image:
            image.load()
            assert image.size[0] <= 700
    assert {file.name for file in path.parent.iterdir()} == {"index.html", *read.images}
    assert set(read.links) == set(read.images), "no network"
    content = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|nan\b|\binf\b", content, re.IGNORECASE)
    assert "prefers-color-scheme: dark" in content
    assert "@media print" in content
    assert 'name="viewport"' in content
    return read


kernels = figures.kernels
ALWAYS = ["What the network saw", "Layer by layer"]


@pytest.mark.capability("F10", "H19", "F6", "F7", "F8", "F9")
@pytest.mark.parametrize("name", NETS)
def test_a_page_of_any_network(tmp_path, name):
    m = model(network(name))
    read = check(page.write(m, picture(), tmp_path / "out", name="a <b>&.png"))
    assert "a <b>&.png, explained" in read.text
    convolutional = name != "dense"
    assert read.headings[:2] == ALWAYS
    assert ("What the filters have learned" in read.headings) == convolutional
    assert ("How much of the image a cell sees" in read.headings) == convolutional
    assert "One number, step by step" in read.headings
    assert "What excites a filter" in read.headings
    best = m.predict(picture()).labels[0]
    assert f'Which pixels count for the class "{best}"' in read.headings
    assert ("grad-cam.png" in read.images) == convolutional
    assert ("Grad-CAM needs maps, and this network has none" in read.text) != convolutional
    maps = {src for src in read.images if src.startswith("maps-")}
    silent = (nn.Flatten, nn.Identity, nn.Dropout, nn.Sequential)
    named = {f"maps-{p}.png" for p, layer in explain.walk.places(m.network) if p and not isinstance(layer, silent)}
    assert maps == named


@pytest.mark.capability("F13", "H21")
def test_the_numbers_of_the_page(tmp_path):
    m = model(network("plain"))
    read = check(page.write(m, picture(), tmp_path, target="class 0"))
    p = m.predict(picture()).probabilities[0]
    for i in range(3):
        assert f"class {i}{100 * p[i]:.1f}%" in read.text.replace("\n", "")
    assert 'Which pixels count for the class "class 0"' in read.headings
    one = explain.pixel(m, picture(), 0)
    assert f"make {one.total:.{one.decimals}f}; the engine computed {one.value:.{one.decimals}f}." in read.text
    assert str(one) in read.text
    found = explain.integrated_gradients(m, picture(), 0)
    assert f"The shares sum to {found.values.sum():.4g}; the score rose by {found.difference:.4g}." in read.text


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(3, 2, (6, 5)), nn.Flatten(), nn.Linear(2, 2)],
        [nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)],
        [nn.AdaptiveAvgPool2d(1), nn.Flatten()],
        [nn.Conv2d(3, 70, 9, padding=5), nn.ReLU(), nn.Flatten(), nn.LazyLinear(30), nn.Softmax()],
        [nn.Flatten(), nn.LayerNorm(90), nn.Linear(90, 1)],
        [nn.Conv2d(3, 3, 3, padding=1)],
        [nn.Conv2d(3, 4, 3, groups=1), nn.GroupNorm(2, 4), nn.PReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 3)],
    ],
    ids=[
        "1x1 maps",
        "1x1 kernels",
        "no weights",
        "many filters and classes",
        "one output",
        "an image of the same size",
        "an output of maps",
    ],
)
def test_odd_networks(tmp_path, layers):
    net = nn.Sequential(*layers, input_shape=(3, 6, 5))
    m = model(net, classes=len(net.output_shape((3, 6, 5))) == 1)
    check(page.write(m, picture((3, 6, 5)), tmp_path / "out"))


def test_dense_layers_of_one_number_and_of_very_many(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 2049), nn.Linear(2049, 1), input_shape=(1, 3, 3))
    read = check(page.write(model(net), picture((1, 3, 3)), tmp_path))
    assert re.search(r"2049 numbers, from \S+ to \S+\. The first 2048 are drawn\.", read.text)
    assert re.search(r"One number, -?[\d.e-]*\d\.\n", read.text)
    assert "1 numbers" not in read.text


@pytest.mark.capability("F4")
def test_only_steps_that_were_made_are_told(tmp_path, monkeypatch):
    m = pl.Model(
        models.create("mlp", (1, 8, 8), 10), pl.InputSpec((1, 8, 8), (0.0, 255.0), (0.5,), (0.5,), preparation="digit")
    )
    photo = np.full((60, 60), 230, np.uint8)
    blank = check(page.write(m, Image.fromarray(photo), tmp_path / "blank"))
    assert "No figure was found." in blank.text
    assert "strokes" not in blank.text
    photo[15:45, 28:33] = 20
    drawn = check(page.write(m, Image.fromarray(photo), tmp_path / "drawn"))
    assert "The figure is found, its strokes brought to a usual width, fitted, and centered by mass." in drawn.text
    prepare = pl.InputSpec.prepare
    monkeypatch.setattr(pl.InputSpec, "prepare", lambda spec, picture: prepare(spec, picture, pen=None))
    as_drawn = check(page.write(m, Image.fromarray(photo), tmp_path / "pen"))
    assert "The figure is found, fitted, and centered by mass." in as_drawn.text


@pytest.mark.capability("F7")
def test_kernels_of_transposed_convolutions_and_of_groups_are_by_filter(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        figures, "kernels", lambda *given, **options: drawn.append((*given, options)) or kernels(*given)
    )
    net = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, groups=2, padding=1), nn.ConvTranspose2d(4, 6, (2, 3), groups=2)),
        *(nn.ConvTranspose2d(6, 1, 2), nn.Flatten(), nn.LazyLinear(2)),
        input_shape=(2, 6, 5),
    )
    read = check(page.write(model(net), picture((2, 6, 5)), tmp_path))
    grouped, plain = net[1].weight, net[2].weight
    assert [(weight.shape, options) for weight, options in drawn] == [
        ((4, 1, 3, 3), {"groups": 2}),
        ((6, 2, 2, 3), {"groups": 2}),
        ((1, 6, 2, 2), {"groups": 1}),
    ]
    for out, into in np.ndindex(6, 2):
        assert np.array_equal(drawn[1][0][out, into], grouped[out // 3 * 2 + into, out % 3])
    assert np.array_equal(drawn[2][0][0], plain[:, 0])
    assert (
        "6 x 2 kernels 2x3. Filters along one side, input channels of the filter's group along the other." in read.text
    )
    assert "1 x 6 kernels 2x2. Filters along one side, input channels along the other." in read.text


def test_an_image_of_one_color(tmp_path):
    """Nothing can be said of it, and nothing fails."""
    check(page.write(model(network("plain")), np.zeros((13, 11)), tmp_path))


@pytest.mark.capability("F11")
def test_with_data_come_neighbors_and_maps(tmp_path):
    ds = pl.data.load("digits", subset=200)
    run = pl.fit(models.create("block_cnn", ds.shape, 10), ds, epochs=2, engine="reference", progress=False)
    read = check(page.write(run.model, ds.images[0], tmp_path, ds=run.dataset))
    assert read.headings[-2:] == ["The nearest training images", "A map of all images"]
    found, distances = explain.nearest(run.model, ds.images[0], run.dataset)
    assert f"{ds.targets[found[0]]}: {distances[0]:.2f}" in read.images["nearest.png"]
    assert "Distances between groups, their sizes and the axes mean nothing" in read.text
    with pytest.raises(DataError, match="the data have images 1x8x8, the model takes 1x13x11"):
        page.write(model(network("plain")), picture(), tmp_path / "other", ds=ds)
    assert not (tmp_path / "other").exists()


def test_with_data_of_two_images_and_a_network_without_weights(tmp_path):
    ds = pl.data.load("digits")
    few = ds.with_splits(Splits(np.array([0, 1]), np.array([], dtype=int), np.array([2])))
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), input_shape=ds.shape)
    read = check(
        page.write(pl.Model(net, pl.InputSpec.of(ds), ("a",), engine="reference"), ds.images[3], tmp_path, ds=few)
    )
    assert read.headings[-1] == "The nearest training images"


@pytest.mark.capability("F12", "C12")
def test_an_autoencoder(tmp_path):
    ds = pl.data.load("digits", subset=120)
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)),
        nn.Sequential(nn.Linear(3, 16), nn.Unflatten(1, (4, 2, 2)), nn.ConvTranspose2d(4, 1, 4, 4), nn.Sigmoid()),
        input_shape=ds.shape,
    )
    m = pl.Model(net, pl.InputSpec.of(ds), engine="reference")
    read = check(page.write(m, ds.images[0], tmp_path, ds=ds))
    assert "What comes back" in read.headings
    assert read.headings[-1] == "What the decoder makes of other numbers"
    assert {"reconstruction.png", "interpolation.png", "grid.png", "samples.png"} <= set(read.images)
    assert "It promises neither that points between two images" in read.text
    assert "The image passes through 3 numbers (layer 0 Sequential), 21.3 times fewer than it has." in read.text
    assert not any(heading.startswith("Which pixels count") for heading in read.headings)
    without = replace(ds, targets=(ds.images / 16).astype(np.float32), classes=())
    check(page.write(m, ds.images[0], tmp_path / "plain", ds=without))


@pytest.mark.capability("F9")
def test_receptive_fields_end_with_the_body_of_the_last_block(tmp_path):
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.Residual(nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 3, 1)),
        *(nn.Flatten(), nn.LazyLinear(2)),
        input_shape=(1, 6, 5),
    )
    read = check(page.write(model(net), picture((1, 6, 5)), tmp_path))
    assert [src for src in read.images if src.startswith("field-")] == ["field-0.png", "field-1.body.png"]
    assert read.images["seen-by.png"]


def test_maps_are_of_images_of_all_classes():
    """Though those of a folder stand in the order of their classes."""
    assert page._spread(list(range(1000)), 5) == [0, 250, 500, 749, 999]
    assert page._spread([3, 4], 5) == [3, 4]


@pytest.mark.parametrize(
    ("image", "options", "match"),
    [
        (np.full((13, 11), np.nan), {}, "got NaN"),
        (np.zeros((2, 13, 11)), {}, "image must be one image, got 2"),
        (np.zeros((13, 11)), {"target": "class 7"}, 'unknown class "class 7"'),
    ],
)
def test_nothing_is_written_where_it_cannot_be_done(tmp_path, image, options, match):
    with pytest.raises((DataError, OptionError), match=match):
        page.write(model(network("plain")), image, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_finite_are_said(tmp_path):
    net = network("plain")
    net[0].weight = np.full((4, 1, 3, 3), np.inf)
    with pytest.raises(DataError, match="the network gives NaN or infinity for this image; its weights are unusable"):
        page.write(model(net), picture(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
