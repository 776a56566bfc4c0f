"""Counter-based random numbers: documented values, independence, and what depends on what."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import OptionError
from pellucid.random import AUGMENT, SHUFFLE, Stream, advance, mix, per_sample, shuffled

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def splitmix(state):
    """SplitMix64 in Python's own integers, after Vigna's splitmix64.c: the next state and number."""
    state = (state + GOLDEN) & WORD
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return state, z ^ (z >> 31)


def test_reference_values_of_splitmix64():
    """The first numbers of splitmix64.c for the states 0 and 1234567."""
    states = np.array([GOLDEN, (2 * GOLDEN) & WORD, 1234567 + GOLDEN, (1234567 + 2 * GOLDEN) & WORD], dtype=np.uint64)
    assert [int(z) for z in mix(states)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        6457827717110365317,
        3203168211198807973,
    ]


@pytest.mark.capability("D19")
@given(st.lists(st.integers(0, 2**40), min_size=4, max_size=4))
def test_a_stream_is_splitmix64_under_a_key_of_the_counters(counters):
    key = 0
    for counter in counters:
        _, key = splitmix((key + counter * GOLDEN) & WORD)
    state, expected = key, []
    for _ in range(4):
        state, z = splitmix(state)
        expected.append(z)
    stream = Stream(*counters)
    assert [int(z) for z in stream.bits(4)] == expected
    assert stream.random(4).tolist() == [(z >> 40) / 2**24 for z in expected]


def test_values_that_files_and_engines_rely_on():
    """Noted once; a change of these breaks resuming and the equality of engines."""
    assert [int(z) for z in Stream(0).bits(2)] == [8695987549771912286, 13369316111306796529]
    assert shuffled(42, 1, 8).tolist() == [5, 1, 4, 2, 3, 7, 0, 6]


@given(st.integers(0, 1000), st.integers(0, 50), st.integers(0, 50))
def test_a_shorter_draw_is_a_prefix(seed, n, more):
    stream = Stream(seed)
    assert np.array_equal(stream.bits(n + more)[:n], stream.bits(n))
    assert np.array_equal(stream.random((n + more, 2))[:n], stream.random((n, 2)))
    assert np.array_equal(stream.normal(0, 1, n + more)[:n], stream.normal(0, 1, n))
    assert np.array_equal(stream.random(6).reshape(2, 3), stream.random((2, 3)))


def test_each_counter_gives_another_stream():
    names = ("seed", "epoch", "step", "layer")
    streams = [Stream(0)] + [Stream(**{"seed": 0, name: value}) for name in names for value in (1, 2, 1000, 2**40)]
    assert len({s.key for s in streams}) == len(streams)
    draws = np.array([s.random(2000) for s in streams])
    correlation = np.corrcoef(draws) - np.eye(len(streams))
    assert np.abs(correlation).max() < 0.1


def test_counters_are_not_interchangeable():
    keys = {Stream(*counters).key for counters in np.ndindex(4, 4, 4, 4)}
    assert len(keys) == 4**4


def test_uniform_numbers():
    u = Stream(7).random(200_000)
    assert u.mean() == pytest.approx(0.5, abs=0.003)
    assert u.var() == pytest.approx(1 / 12, rel=0.01)
    assert 0 <= u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert np.abs(np.histogram(u, 20, (0, 1))[0] - 10_000).max() < 500
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.01
    assert np.array_equal(u.astype(np.float32).astype(np.float64), u)
    assert np.array_equal(u * 2**24, np.floor(u * 2**24))
    v = Stream(7).uniform(-2, 6, 1000)
    assert np.array_equal(v, -2 + 8 * u[:1000])


def test_normal_numbers():
    z = Stream(7).normal(3, 2, (400, 500))
    assert z.shape == (400, 500)
    assert z.mean() == pytest.approx(3, abs=0.02)
    assert z.std() == pytest.approx(2, rel=0.01)
    shares = [(np.abs(z - 3) < 2 * k).mean() for k in (1, 2, 3)]
    assert shares == pytest.approx([0.6827, 0.9545, 0.9973], abs=0.005)


@pytest.mark.capability("D11", "D19")
@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_permutations_are_complete(n):
    assert sorted(Stream(1).permutation(n).tolist()) == list(range(n))
    assert Stream(1).permutation(n).dtype == np.int64


@pytest.mark.capability("D11", "D19")
def test_each_epoch_is_shuffled_anew():
    orders = [shuffled(0, epoch, 50).tolist() for epoch in range(4)] + [shuffled(1, 0, 50).tolist()]
    assert len({tuple(order) for order in orders}) == 5
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert shuffled(0, 3, 50).tolist() == orders[3]
    assert shuffled(0, 0, 50).tolist() == Stream(0, layer=SHUFFLE).permutation(50).tolist()


def test_permutations_are_even():
    """Each of the 6 orders of 3 comes about equally often."""
    counts = np.zeros(6)
    names = {order: i for i, order in enumerate([(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])}
    for epoch in range(3000):
        counts[names[tuple(shuffled(0, epoch, 3).tolist())]] += 1
    assert np.abs(counts - 500).max() < 100


def test_numbers_of_a_sample_do_not_depend_on_its_batch():
    ids = np.array([5, 0, 17, 5, 123456789])
    draws = per_sample(3, 2, ids, 4)
    assert draws.shape == (5, 4)
    assert np.array_equal(draws[0], draws[3])
    for i, sample in enumerate(ids):
        assert np.array_equal(per_sample(3, 2, np.array([sample]), 4)[0], draws[i])
        assert np.array_equal(per_sample(3, 2, np.array([sample]), 2)[0], draws[i, :2])
    assert len(np.unique(draws[:3])) == 12
    assert not np.array_equal(per_sample(3, 3, ids, 4), draws)
    assert not np.array_equal(per_sample(4, 2, ids, 4), draws)
    assert np.array_equal(per_sample(3, 2, ids.astype(np.int32), 4), draws)
    assert per_sample(3, 2, np.array([], dtype=int), 4).shape == (0, 4)
    many = per_sample(0, 0, np.arange(20_000), 3)
    assert np.abs(many.mean(0) - 0.5).max() < 0.01
    assert np.abs(np.corrcoef(many.T) - np.eye(3)).max() < 0.03
    assert AUGMENT != SHUFFLE


def test_advance():
    assert advance(Stream(1, 2, 3, 4), 5) == Stream(1, 2, 3, 9)
    assert Stream(1, 2, 3, 4).at(1) == Stream(1, 2, 3, 5)
    generator = np.random.default_rng(0)
    assert advance(generator, 5) is generator
    assert advance(None, 5) is None


@pytest.mark.parametrize(
    ("counters", "match"),
    [
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"seed": None}, "seed must be a whole number, got None"),
        ({"seed": 0, "epoch": -1}, "epoch must be at least 0"),
        ({"seed": 0, "step": "1"}, "step must be a whole number"),
        ({"seed": 0, "layer": -2}, "layer must be at least 0"),
    ],
)
def test_refusals(counters, match):
    with pytest.raises(OptionError, match=match):
        Stream(**counters)
