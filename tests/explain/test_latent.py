"""The space of a layer: neighbors, maps, and a small convolutional autoencoder."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid as pl
from explain.networks import model, network, picture
from oracles import assert_near, randn
from pellucid import explain, models, nn
from pellucid.errors import DataError, OptionError


@pytest.fixture(scope="module")
def digits():
    return pl.data.load("digits")


@pytest.fixture(scope="module")
def autoencoder(digits):
    """8x8 digits through eight numbers and back, by transposed convolution and upsampling."""
    net = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, 2, padding=1), nn.LeakyReLU(), nn.Flatten(), nn.LazyLinear(8)),
        *(nn.Linear(8, 16 * 2 * 2), nn.LeakyReLU(), nn.Unflatten(1, (16, 2, 2))),
        *(nn.ConvTranspose2d(16, 16, 2, 2), nn.LeakyReLU()),
        *(nn.Upsample(scale_factor=2), nn.Conv2d(16, 1, 3, padding=1), nn.Sigmoid()),
    )
    images = digits.images[digits.splits.train]
    targets = (images / 16).astype(np.float32)
    options = {"batch_size": 16, "normalize": "unit", "engine": "reference", "progress": False}
    return pl.fit(net, (images, targets), epochs=12, optimizer=pl.optim.Adam(lr=0.01), **options).model


@pytest.mark.capability("F12", "C12")
def test_encoder_and_decoder_together_are_the_network(autoencoder, digits):
    x = digits.images[:7]
    whole = autoencoder.network(autoencoder.input.canonical(x))
    for layer in (0, 3, "6", -2):
        encoder, decoder = explain.split(autoencoder, layer)
        assert np.array_equal(decoder(encoder(autoencoder.input.canonical(x))), whole)
    points = explain.codes(autoencoder, x, 3)
    assert points.shape == (7, 8)
    assert_near(explain.decode(autoencoder, 3, points), whole, 1e-5)
    assert explain.bottleneck(autoencoder) == "3"


@pytest.mark.capability("F12", "C12")
def test_reconstructions_are_closer_than_the_mean_image(autoencoder, digits):
    test = digits.images[digits.splits.test] / 16
    back = explain.decode(autoencoder, 3, explain.codes(autoencoder, digits.images[digits.splits.test], 3))
    mean = digits.images[digits.splits.train].mean(axis=0) / 16
    assert np.square(back - test).mean() < 0.7 * np.square(mean - test).mean()


@pytest.mark.capability("F12")
def test_interpolation_ends_at_the_reconstructions(autoencoder, digits):
    a, b = digits.images[:2]
    strip = explain.interpolate(autoencoder, a, b, 3, steps=5)
    ends = explain.decode(autoencoder, 3, explain.codes(autoencoder, digits.images[:2], 3))
    assert strip.shape == (5, 1, 8, 8)
    assert_near(strip[[0, -1]], ends, 1e-6)
    middle = explain.codes(autoencoder, digits.images[:2], 3).mean(axis=0, keepdims=True)
    assert_near(strip[2:3], explain.decode(autoencoder, 3, middle), 1e-5)


@pytest.mark.capability("F12")
def test_samples_follow_the_density_and_the_seed(autoencoder, digits):
    points = explain.codes(autoencoder, digits.images[digits.splits.train], 3)
    images = explain.sample(autoencoder, 3, points, count=40, seed=2)
    assert images.shape == (40, 1, 8, 8)
    assert np.array_equal(images, explain.sample(autoencoder, 3, points, count=40, seed=2))
    assert not np.array_equal(images, explain.sample(autoencoder, 3, points, count=40, seed=3))
    mixture = explain.sample(autoencoder, 3, points, count=40, components=5)
    real = digits.images[digits.splits.train].mean(axis=0) / 16
    for drawn in (images, mixture):
        assert np.abs(drawn.mean(axis=0) - real).mean() < 0.1
    linear = nn.Sequential(nn.Flatten(), nn.Linear(9, 2), nn.Linear(2, 2), input_shape=(1, 3, 3))
    linear[2].weight, linear[2].bias = np.eye(2), np.zeros(2)
    cloud = randn(0, 500, 2) @ np.array([[2.0, 1.0], [0.0, 0.5]]) + [3, -1]
    drawn = explain.sample(linear, 1, cloud, count=4000)
    assert_near(np.cov(drawn.T), np.cov(cloud.T), 0.1)
    assert_near(drawn.mean(axis=0), cloud.mean(axis=0), 0.05)


@pytest.mark.capability("F11")
def test_pca_is_scikit_learns():
    from sklearn.decomposition import PCA

    known, new = randn(0, 40, 6) * [5, 3, 1, 1, 1, 0.5], randn(1, 10, 6)
    made = explain.plane(new, known)
    other = PCA(2).fit(known)
    assert_near(np.abs(made.points), np.abs(other.transform(new)), 1e-10)
    assert made.explained == pytest.approx(other.explained_variance_ratio_.sum())
    assert_near(made.lift(made.points), other.inverse_transform(other.transform(new)), 1e-10)
    assert np.array_equal(made.points, explain.plane(new, known).points)
    line = explain.plane(np.arange(5.0)[:, None])
    assert line.points.shape == (5, 2)
    assert not line.points[:, 1].any()
    assert explain.plane(np.ones((4, 3))).explained == 1.0


@pytest.mark.capability("F11")
def test_tsne_keeps_groups_together_and_repeats():
    points = np.concatenate([randn(0, 30, 5), randn(1, 30, 5) + 20])
    made = explain.plane(points, method="tsne", seed=1)
    assert made.points.shape == (60, 2)
    assert made.lift is None
    middles = made.points[:30].mean(axis=0), made.points[30:].mean(axis=0)
    near = np.linalg.norm(made.points - np.repeat(middles, 30, axis=0), axis=1)
    assert near.max() < np.linalg.norm(middles[0] - middles[1])
    assert np.array_equal(made.points, explain.plane(points, method="tsne", seed=1).points)
    assert explain.plane(points[:3], method="tsne").points.shape == (3, 2)


@pytest.mark.capability("F12")
def test_a_grid_goes_over_the_map_from_the_top():
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 2), nn.Linear(2, 2), input_shape=(1, 3, 3))
    net[2].weight, net[2].bias = np.eye(2), np.zeros(2)
    points = randn(0, 200, 2) * [4.0, 1.0]
    made = explain.plane(points)
    sheet = explain.grid(net, 1, made, size=5)
    assert sheet.shape == (5, 5, 2)
    back = (sheet.reshape(-1, 2) - points.mean(axis=0)) @ np.linalg.pinv(made.lift(np.eye(2)) - points.mean(axis=0))
    across, down = back.reshape(5, 5, 2)[0, :, 0], back.reshape(5, 5, 2)[:, 0, 1]
    assert np.all(np.diff(across) > 0)
    assert np.all(np.diff(down) < 0)
    low, high = np.percentile(made.points, [2, 98], axis=0)
    assert_near(
        np.array([across[0], across[-1], down[-1], down[0]]), np.array([low[0], high[0], low[1], high[1]]), 1e-4
    )


def test_nearest_training_images_by_hand(digits):
    """In the space of Flatten they are those with the smallest distance between pixels."""
    m = pl.Model(models.create("mlp", digits.shape, 10), pl.InputSpec.of(digits), digits.classes)
    image = digits.images[digits.splits.test[3]]
    found, distances = explain.nearest(m, image, digits, layer=0, count=5)
    part = digits.splits.train
    off = np.sqrt(np.square((digits.images[part].astype(float) - image) / 16 / m.input.std[0]).sum(axis=(1, 2, 3)))
    assert found.tolist() == part[np.argsort(off, kind="stable")[:5]].tolist()
    assert_near(distances, np.sort(off)[:5], 1e-4)
    assert len(explain.nearest(m, image, digits, count=10_000, part="test")[0]) == len(digits.splits.test)
    assert explain.last_hidden(m) == "6"


def test_layers_inside_a_block_have_codes_too():
    m = model(network("residual"))
    images = np.stack([picture(seed=i) for i in range(3)])
    points = explain.codes(m, images, "3.body.0")
    for image, point in zip(images, points, strict=True):
        assert_near(point, explain.feature_maps(m, image)["3.body.0"].ravel(), 1e-10)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda m, ds: explain.split(m, -1), OptionError, "must not be the last one: nothing would be left"),
        (lambda m, ds: explain.split(model(network("residual")), "3.body.0"), OptionError, "one of the outermost"),
        (lambda m, ds: explain.decode(m, 3, np.zeros((2, 5))), OptionError, r"points must be \(N, 8\)"),
        (lambda m, ds: explain.decode(m, 3, "x"), OptionError, "points must be an array of numbers, got 'x'"),
        (lambda m, ds: explain.decode(m, 3, np.full((2, 8), np.nan)), OptionError, "points must be finite"),
        (lambda m, ds: explain.plane("abc"), OptionError, "points must be an array of numbers, got 'abc'"),
        (lambda m, ds: explain.plane([[1, 2], [3]]), OptionError, "points must be an array of numbers"),
        (lambda m, ds: explain.nearest(m, ds.images[0], ds.images), OptionError, "ds must be a data set.* got ndarray"),
        (lambda m, ds: explain.plane(np.zeros((2, 5))), OptionError, "at least 3 points"),
        (lambda m, ds: explain.plane(np.full((5, 2), np.nan)), OptionError, "points must be finite"),
        (lambda m, ds: explain.plane(np.eye(4), np.eye(3)), OptionError, "fit_on has 3 values for each point"),
        (lambda m, ds: explain.plane(np.eye(4), method="umap"), OptionError, 'unknown method "umap"'),
        (lambda m, ds: explain.plane(np.eye(4), np.eye(4), "tsne"), OptionError, "t-SNE has no way to place"),
        (lambda m, ds: explain.grid(m, 3, explain.Plane(np.eye(3, 2))), OptionError, "no way leads back"),
        (lambda m, ds: explain.sample(m, 3, np.zeros((4, 8)), components=5), OptionError, "at most the number"),
        (lambda m, ds: explain.interpolate(m, ds.images[0], ds.images[1], 3, 1), OptionError, "steps must be at"),
        (lambda m, ds: explain.nearest(m, ds.images[:2], ds), DataError, "image must be one image, got 2"),
        (lambda m, ds: explain.nearest(m, ds.images[0], ds, part="valid"), OptionError, 'unknown part "valid"'),
        (lambda m, ds: explain.nearest(model(network("plain")), picture(), ds), DataError, "the data have images"),
        (lambda m, ds: explain.last_hidden(nn.Sequential(nn.ReLU(), input_shape=(2,))), OptionError, "no hidden"),
    ],
)  # fmt: skip
def test_what_cannot_be(autoencoder, digits, call, error, match):
    with pytest.raises(error, match=match) as caught:
        call(autoencoder, digits)
    assert "\n" not in str(caught.value)
