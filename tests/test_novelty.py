"""Thresholds below which a model is not sure."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from scipy.special import logsumexp

import pellucid as pl
from pellucid.novelty import Novelty, evidence, looks

pytestmark = pytest.mark.capability("H6")


def test_evidence_is_log_sum_exp():
    logits = np.random.default_rng(0).normal(0, 30, (50, 7)).astype(np.float32)
    assert np.allclose(evidence(logits), logsumexp(logits.astype(np.float64), axis=1), rtol=1e-14)
    assert evidence(np.array([[-1e30, 1e30]])).tolist() == [1e30]


def test_looks_by_hand():
    images = np.zeros((2, 1, 6, 5), np.uint8)
    images[0, 0, 2, 2] = 255
    images[1] = 51
    expected = [[1 / 30, np.sqrt(1 / 30 - 1 / 900), 2 / 25 + 2 / 24, 0.0], [0.2, 0.0, 0.0, 0.2]]
    assert np.allclose(looks(images, (0.0, 255.0)), expected, atol=1e-12)
    assert np.allclose(looks(images.astype(float) / 255 * 3 - 1, (-1.0, 2.0)), expected, atol=1e-12)
    assert looks(np.ones((2, 3, 1, 1)), (0.0, 1.0)).tolist() == [[1.0, 0.0, 0.0, 1.0]] * 2
    many = np.random.default_rng(0).integers(0, 256, (1100, 2, 3, 4)).astype(np.uint8)
    assert np.array_equal(looks(many, (0.0, 255.0))[1050:], looks(many[1050:], (0.0, 255.0)))


def test_thresholds_by_hand():
    """Class 0 has 1000 images, class 1 has 249: too few for a threshold of its own."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (1249, 1, 3, 4)).astype(np.uint8)
    logits = np.full((1249, 2), -1e9)
    values = rng.permutation(1249).astype(float)
    logits[:1000, 0], logits[1000:, 1] = values[:1000], values[1000:]
    found = Novelty.measured(images, logits, (0.0, 255.0))
    assert found.evidence == (sorted(values[:1000])[7], 8.0)
    means = images.mean(axis=(1, 2, 3)) / 255
    assert np.allclose(found.looks[0], [means.min() - 0.05 * np.ptp(means), means.max() + 0.05 * np.ptp(means)])
    doubted = [doubt is not None for doubt in found.doubts(images, logits, (0.0, 255.0), ("a", "b"))]
    assert np.array_equal(doubted, values < np.where(np.arange(1249) < 1000, *found.evidence))


def test_too_few_images_or_no_numbers_measure_nothing():
    images = np.zeros((100, 1, 2, 2))
    assert Novelty.measured(images[:99], np.zeros((99, 2)), (0.0, 1.0)) is None
    assert Novelty.measured(images, np.full((100, 2), np.nan), (0.0, 1.0)) is None
    assert Novelty.measured(images, np.zeros((100, 2)), (0.0, 1.0)).looks == ((0.0, 0.0),) * 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    ds = pl.data.load("digits")
    out = tmp_path_factory.mktemp("runs") / "run"
    return pl.fit(pl.models.create("block_cnn", ds.shape, 10), ds, epochs=5, out=out, progress=False)


def test_fit_measures_them_on_validation_images(run):
    ds = run.dataset
    unseen = ds.images[ds.splits.val]
    logits = run.model.network(run.model.input.canonical(unseen))
    lowest = sorted(logsumexp(logits.astype(np.float64), axis=1))[int(0.007 * len(unseen))]
    assert np.allclose(run.model.novelty.evidence, lowest, rtol=1e-4)
    doubts = run.model.predict(ds.images[ds.splits.test]).unsure
    assert sum(doubt is not None for doubt in doubts) <= 0.03 * len(doubts)


def test_the_model_file_keeps_them_exactly(run, tmp_path):
    loaded = pl.load(run.path)
    assert loaded.novelty == run.model.novelty
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (run.path / "model.safetensors").read_bytes()


def test_the_reasons(run):
    flat, noise = np.full((8, 8), 9), np.random.default_rng(0).choice([0, 16], (20, 8, 8))
    noise[:, 0] = noise[:, -1] = noise[:, :, 0] = noise[:, :, -1] = 0
    assert run.model.predict(np.zeros((8, 8))).unsure == ("it is blank: nothing stands out in it",)
    assert "its border is light" in run.model.predict(flat).unsure[0]
    reasons = [reason for reason in run.model.predict(noise).unsure if reason]
    assert len(reasons) >= 15
    assert all("that the model knows" in reason for reason in reasons)
    assert any(reason.startswith("its roughness is ") for reason in reasons)


def test_without_validation_nothing_is_measured():
    ds = pl.data.load("digits", val_fraction=0.0)
    model = pl.fit(pl.models.create("block_cnn", ds.shape, 10), ds, epochs=1, progress=False).model
    assert model.novelty is None
    assert model.predict(np.zeros((8, 8))).unsure == ("it is blank: nothing stands out in it",)
    assert model.predict(np.eye(8)).unsure == (None,)


class InterruptAt(pl.Callback):
    """Ctrl-C after so many steps."""

    def on_batch_end(self, trainer, step, loss):
        if step == 40:
            signal.raise_signal(signal.SIGINT)


def test_a_resumed_run_measures_the_same(run, tmp_path):
    ds = pl.data.load("digits")
    options = {"epochs": 5, "out": tmp_path / "run", "progress": False}
    stopped = pl.fit(pl.models.create("block_cnn", ds.shape, 10), ds, callbacks=[InterruptAt()], **options)
    assert stopped.stopped == "interrupted"
    pl.fit(pl.models.create("block_cnn", ds.shape, 10), ds, resume=True, **options)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (run.path / "model.safetensors").read_bytes()
    assert pl.load(tmp_path / "run").novelty is not None
