"""Slots of a frame, places in them, and the engine's order of the parameters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.compiled.layout import ParameterLayout, Slot, columns_padded, place_slots

sizes = st.integers(1, 6)
borders = st.one_of(st.just((0, 0, 0, 0)), st.tuples(*[st.integers(0, 2)] * 4))
lives = st.lists(st.integers(0, 12), min_size=1, max_size=3)


@st.composite
def slot(draw):
    slot = Slot("", draw(st.tuples(st.integers(1, 40), sizes, sizes)), draw(borders))
    for instruction in draw(lives):
        slot.use(instruction)
    return slot


@given(st.lists(slot(), max_size=15))
def test_slots_in_use_never_overlap(slots):
    frame = place_slots(slots)
    assert frame // 16 % 2 == 1
    assert frame % 16 == 0
    owner: dict[tuple[int, int], Slot] = {}  # by place, and instruction at which it is in use
    for slot in slots:
        assert slot.offset >= 0
        assert slot.offset % 16 == 0
        assert slot.offset + slot.size <= frame
        life = range(13) if any(slot.border) else range(slot.birth, slot.death + 1)
        for line in range(slot.offset // 16, (slot.offset + slot.size) // 16):
            for instruction in life:
                assert (line, instruction) not in owner
                owner[line, instruction] = slot


@given(st.lists(slot(), min_size=2, max_size=8))
def test_a_bordered_slot_lies_alone(slots):
    slots[0].widen((1, 0, 0, 0))
    place_slots(slots)
    start, end = slots[0].offset, slots[0].offset + slots[0].size
    assert all(other.offset >= end or other.offset + other.size <= start for other in slots[1:])


def test_memory_is_shared_one_after_another():
    slots = [Slot(str(i), (4, 4, 4)) for i in range(6)]
    for i, slot in enumerate(slots):
        slot.use(i)
        slot.use(i + 1)
    assert place_slots(slots) == 16 * 11  # two at a time, 64 floats and 16 of slack each, and an odd number of lines
    assert len({slot.offset for slot in slots}) == 2
    assert place_slots([]) == 16


def test_lives():
    slot = Slot("", (1, 1, 1))
    for instruction in (5, 3, 9, 4):
        slot.use(instruction)
    assert (slot.birth, slot.death) == (3, 9)


@given(slot(), st.integers(1, 40))
def test_places_are_those_of_an_array_with_a_border(slot, floats):
    place_slots([Slot("", (floats, 1, 1), (1, 0, 0, 0)), slot])
    (channels, height, width), (top, left, bottom, right) = slot.maps, slot.border
    padded = np.arange(slot.offset, slot.offset + (top + height + bottom) * (left + width + right) * channels)
    padded = padded.reshape(top + height + bottom, left + width + right, channels)
    assert padded[-1, -1, -1] + 16 < slot.offset + slot.size, "slack for a vector"
    assert slot.corner.offset == padded[0, 0, 0]
    assert slot.place(-top, -left).offset == padded[0, 0, 0]
    assert (slot.place() + (channels - 1)).offset == padded[top, left, -1]
    assert slot.place(height - 1, width - 1).offset == padded[top + height - 1, left + width - 1, 0]
    assert slot.place(1).offset - slot.place().offset == slot.down
    assert (slot.rows, slot.columns, slot.channels) == (height, width, channels)


def test_borders_only_widen():
    slot = Slot("", (1, 2, 3), (1, 2, 0, 0))
    slot.widen((0, 3, 1, 0))
    assert slot.border == (1, 3, 1, 0)


@st.composite
def layouts(draw):
    """A layout of all places of a flat array in another order, with gaps, and the size of that array."""
    size = draw(st.integers(0, 60))
    order = np.array(draw(st.permutations(range(size))), dtype=np.int64)
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=3)))
    layout, parts = ParameterLayout(), []
    for part in np.split(order, cuts):
        for _ in range(draw(st.integers(0, 3))):
            part = np.insert(part, draw(st.integers(0, part.size)), -1)
        constant = draw(st.sampled_from([0.0, 2.5]))
        parts.append((layout.add(part, constant), part, constant))
    layout.finish(draw(st.integers(0, 20)))
    return layout, parts, size


@given(layouts())
def test_there_and_back(made):
    layout, parts, size = made
    flat = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    packed = layout.pack(flat)
    assert packed.dtype == np.float32
    assert packed.shape == (layout.size,)
    expected = np.zeros(layout.size, dtype=np.float32)
    for start, part, constant in parts:
        assert start % 16 == 0
        for i, place in enumerate(part):
            expected[start + i] = flat[place] if place >= 0 else constant
    assert np.array_equal(packed, expected)
    back = np.full(size, np.nan, dtype=np.float32)
    layout.unpack(packed, back)
    assert np.array_equal(back, flat)


def test_unpacking_leaves_other_places_alone():
    layout = ParameterLayout()
    assert layout.add(np.array([[3, -1], [0, -1]])) == 0
    assert layout.add(np.array([-1, 1]), np.array([7.0, 8.0])) == 16
    layout.finish(slack=5)
    assert layout.size == 37
    flat = np.array([1, 2, 3, 4], dtype=np.float32)
    packed = layout.pack(flat)
    assert packed[[0, 1, 2, 3, 16, 17]].tolist() == [4, 0, 1, 0, 7, 2]
    layout.unpack(10 * packed, flat)
    assert flat.tolist() == [10, 20, 3, 40]


def test_columns_padded():
    assert columns_padded(np.array([[1, 2], [3, 4]]), 3).tolist() == [[1, 2, -1], [3, 4, -1]]
    with pytest.raises(ValueError):
        columns_padded(np.array([[1, 2]]), 1)
