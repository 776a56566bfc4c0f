"""Learning-rate schedules against torch.optim.lr_scheduler."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import OptionError
from pellucid.schedules import SCHEDULES, Constant, Cosine, OneCycle, Schedule, Step, by_name

LR = 0.3


def sequence(torch, make, steps):
    """The learning rates that PyTorch uses in each step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    rates = []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return rates


@given(st.integers(1, 5), st.floats(0.1, 1), st.integers(1, 4))
def test_step(torch, step_size, gamma, steps_per_epoch):
    expected = sequence(torch, lambda m, o: m.StepLR(o, step_size, gamma), 12)
    steps = np.arange(12 * steps_per_epoch)
    factors = Step(step_size, gamma).factors(steps, len(steps), steps_per_epoch)
    assert LR * factors == pytest.approx(np.repeat(expected, steps_per_epoch), rel=1e-12)


@given(st.integers(1, 60), st.floats(0, 1))
def test_cosine(torch, total, low):
    expected = sequence(torch, lambda m, o: m.CosineAnnealingLR(o, total, eta_min=low * LR), total)
    assert LR * Cosine(low).factors(np.arange(total), total, 3) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("options", [{}, {"pct_start": 0.25}, {"div_factor": 4.0, "final_div_factor": 10.0}])
@pytest.mark.parametrize("total", [5, 10, 37, 300])
def test_one_cycle(torch, total, options):
    def make(m, o):
        return m.OneCycleLR(o, max_lr=LR, total_steps=total, cycle_momentum=False, **options)

    factors = OneCycle(**options).factors(np.arange(total), total, 1)
    assert LR * factors == pytest.approx(sequence(torch, make, total), rel=1e-9)


@given(st.integers(1, 40), st.sampled_from([0.0, 0.3, 0.9]))
def test_one_cycle_of_any_length(total, pct_start):
    factors = OneCycle(pct_start).factors(np.arange(total), total, 1)
    assert ((factors > 0) & (factors <= 1)).all()
    top = int(factors.argmax())
    assert (np.diff(factors[: top + 1]) > 0).all()
    assert (np.diff(factors[top:]) < 0).all()


def test_a_training_too_short_to_warm_up_starts_at_the_top():
    assert OneCycle().factors(np.arange(3), 3, 1) == pytest.approx([1, 0.5, 0], abs=1e-5)


def test_by_hand():
    steps = np.arange(4)
    assert Constant().factors(steps, 4, 1).tolist() == [1, 1, 1, 1]
    assert Step(1, 0.5).factors(steps, 4, 2).tolist() == [1, 1, 0.5, 0.5]
    assert Cosine(0.5).factors(np.array([0, 2, 4]), 4, 1) == pytest.approx([1, 0.75, 0.5])


@pytest.mark.parametrize("schedule", [Constant(), Step(2), Cosine(0.1), OneCycle(0.2)])
def test_parts_of_a_training_fit_together(schedule):
    """Factors depend on the number of the step only, so that a resumed training goes on as it was."""
    whole = schedule.factors(np.arange(20), 20, 4)
    assert whole.dtype == np.float64
    assert whole.shape == (20,)
    assert np.array_equal(
        np.concatenate([schedule.factors(np.arange(i, i + 5), 20, 4) for i in range(0, 20, 5)]), whole
    )
    twin = type(schedule)(**schedule.config())
    assert np.array_equal(twin.factors(np.arange(20), 20, 4), whole)
    assert repr(eval(repr(schedule), {type(schedule).__name__: type(schedule)})) == repr(schedule)


def test_by_name():
    made = [by_name(name, epochs=9) for name in SCHEDULES]
    assert [type(schedule) for schedule in made] == [Constant, Step, Cosine, OneCycle]
    assert made[1].factors(np.arange(9), 9, 1) == pytest.approx([1] * 3 + [0.1] * 3 + [0.01] * 3)
    assert by_name("step", 1).config()["step_size"] == 1


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: by_name("cosin", 3), OptionError, 'unknown schedule "cosin"; did you mean "cosine"'),
        (lambda: Step(0), OptionError, "step_size must be at least 1"),
        (lambda: OneCycle(1.0), OptionError, "pct_start must be at least 0 and below 1, got 1.0"),
        (lambda: OneCycle(div_factor=0.5), OptionError, "div_factor and final_div_factor must be at least 1"),
        (lambda: OneCycle(final_div_factor=float("nan")), OptionError, "must be at least 1"),
        (lambda: Schedule().factors(np.arange(2), 2, 1), TypeError, "Schedule must define factors"),
    ],
)
def test_refusals(make, error, match):
    with pytest.raises(error, match=match):
        make()
