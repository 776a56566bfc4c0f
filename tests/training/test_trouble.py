"""Trainings that go wrong say where and what to try."""

from __future__ import annotations

import math

import numpy as np
import pytest

import pellucid as pl
from pellucid import models, nn, optim, schedules
from pellucid.errors import TrainingError
from pellucid.training import Callback, trouble

pytestmark = pytest.mark.capability("H37")


def fit(network, ds, **options):
    return pl.fit(network, ds, **{"progress": False, "batch_size": 8, "epochs": 2, **options})


def deep():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(8),
        nn.ReLU(),
        nn.Linear(8, 3),
        input_shape=(1, 6, 5),
        seed=0,
    )


# Losses that are not finite


def test_a_learning_rate_far_too_high_stops_within_a_step_and_says_what_to_try(stripes):
    with pytest.raises(TrainingError) as caught:
        fit(deep(), stripes, optimizer=optim.SGD(lr=1e30), schedule=schedules.Constant())
    message = str(caught.value)
    assert message.startswith("the loss became nan at step 2, epoch 1 (that step was not applied), first in the output")
    assert "of layer 3 (Linear)" in message
    assert "Try a lower learning rate (1e+29 instead of 1e+30), clipping (clip_norm=1), or check the data" in message
    assert "\n" not in message


def test_the_step_is_counted_over_epochs_and_the_best_weights_come_back(stripes):
    class Sabotage(Callback):
        def on_batch_end(self, trainer, step, loss):
            if step == 7:
                self.best = {name: array.copy() for name, array in trainer.best.items()}
                with trainer.network.edit():
                    trainer.network[0].weight[0, 0, 0, 0] = np.nan

    network, sabotage = deep(), Sabotage()
    match = r"became nan at step 9, epoch 2 \(that step was not applied\), first in the output of layer 0 \(Conv2d\)"
    with pytest.raises(TrainingError, match=match):
        fit(network, stripes, callbacks=[sabotage])
    assert np.array_equal(network.flat_parameters, sabotage.best["parameters"])
    assert np.isfinite(network.flat_parameters).all()


def test_nan_in_the_weights_names_the_first_layer_that_gives_it(stripes):
    network = deep()
    with network.edit():
        network[3].bias[2] = np.nan
    with pytest.raises(TrainingError, match=r"at step 1, epoch 1 .*in the output of layer 3 \(Linear\)"):
        fit(network, stripes)


def test_a_loss_that_is_not_finite_only_in_validation_is_no_success(stripes):
    """One step an epoch: its loss is still that of the first weights."""
    with pytest.raises(
        TrainingError, match=r"became nan at the validation after epoch 1, first in the output of layer"
    ):
        fit(deep(), stripes, batch_size=45, epochs=1, optimizer=optim.SGD(lr=1e38), schedule=schedules.Constant())


def test_the_message_tells_images_layers_and_loss_apart():
    network, x = deep(), np.zeros((2, 1, 6, 5), dtype=np.float32)
    say = trouble.not_finite(network, x, math.inf, "step 1, epoch 1", 0.5)
    assert "the loss became inf at step 1, epoch 1, first in the loss itself" in say
    assert "(0.05 instead of 0.5)" in say
    x[1, 0, 0, 0] = np.inf
    assert "in the images: they hold NaN or infinity" in trouble.not_finite(network, x, math.nan, "step 1", 0.5)


def test_clipping_is_a_cure(stripes):
    with pytest.raises(TrainingError):
        fit(deep(), stripes, optimizer=optim.SGD(lr=1e10), schedule=schedules.Constant())
    run = fit(deep(), stripes, optimizer=optim.SGD(lr=0.01, clip_norm=1.0), schedule=schedules.Constant())
    assert np.isfinite(run.history["train_loss"]).all()


# Losses that do not move


def killed(network, layer):
    with network.edit():
        network[layer].bias[...] = -100
        network[5].bias[...] = 0
    return network


def test_a_dead_relu_is_named_within_an_epoch(stripes):
    run = fit(killed(deep(), 3), stripes, optimizer=optim.Adam(lr=0.01), epochs=3)
    assert len(run.warnings) == 1, "said once, not each epoch"
    (warning,) = run.warnings
    assert warning.startswith("epoch 1: the loss is stuck at ")
    assert "which is ln(3) = 1.099, the loss of guessing" in warning
    assert "layer 4 (ReLU) gives 0 for every image, so no layer before it can learn any more" in warning
    assert "Try a lower learning rate (0.00" in warning
    assert "another seed, or more filters" in warning


def test_the_first_dead_layer_is_the_one_that_is_named(stripes):
    network = killed(killed(deep(), 0), 3)
    assert "layer 1 (ReLU)" in fit(network, stripes).warnings[0]


def test_the_collapse_of_lesson_4_is_named():
    ds = pl.data.load("digits", subset=200, size=(28, 28))
    network = models.lesson4().build(ds.shape, 0)
    dense = [layer for _, layer in network.children() if isinstance(layer, nn.Linear)]
    with network.edit():
        dense[0].bias[...] = -100
        dense[-1].bias[...] = 0
    run = pl.fit(network, ds, epochs=1, optimizer=optim.Adam(lr=0.01), progress=False)
    assert "ln(10) = 2.303" in run.warnings[0]
    assert "(ReLU) gives 0 for every image" in run.warnings[0]


def test_the_warning_is_printed(stripes, capsys):
    fit(killed(deep(), 3), stripes, progress=True)
    assert "warning: epoch 1: the loss is stuck at 1." in capsys.readouterr().out


def test_no_false_alarm(stripes, net):
    assert fit(net(), stripes, epochs=4).warnings == ()
    x = np.zeros((2, 1, 6, 5), dtype=np.float32)
    chance = math.log(3)
    assert trouble.stuck(deep(), x, 0.5 * chance, 3, 0.01, 1000) is None
    assert trouble.stuck(deep(), x, 2 * chance, 3, 0.01, 1000) is None
    assert trouble.stuck(deep(), x, chance, 3, 0.01, 10) is None, "ten steps are too few to judge"


def test_a_network_that_only_guesses_is_named_after_many_steps():
    x = np.random.default_rng(0).normal(size=(20, 1, 6, 5)).astype(np.float32)
    say = trouble.stuck(deep(), x, math.log(3), 3, 0.01, 200)
    assert "no layer is dead, the network only guesses" in say


def test_outputs_walk_through_nested_layers():
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU()),
        nn.Residual(nn.ReLU()),
        nn.Flatten(),
        nn.LazyLinear(3),
        input_shape=(1, 6, 5),
    )
    x = np.ones((2, 1, 6, 5), dtype=np.float32)
    walked = list(trouble.outputs(network, x))
    assert [path for path, _, _ in walked] == ["0.0", "0.1", "1", "2", "3"]
    assert np.array_equal(walked[-1][2], network(x))
