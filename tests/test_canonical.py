"""JSON that can be read in one way only."""

from __future__ import annotations

import json

import pytest

from pellucid import canonical

BAD = {
    "cut": ("{", "Expecting property name"),
    "key twice": ('{"a": 1, "b": {"c": 1, "c": 1}}', "a key stands twice"),
    "NaN": ("[NaN]", "NaN is no number in JSON"),
    "infinity": ("-Infinity", "-Infinity is no number in JSON"),
    "2^63": (f"[{2**63}]", "an integer has more than 64 bits"),
    "5 000 digits": ("-" + "9" * 5000, "an integer has more than 64 bits"),
    "deep": ("[" * 100_000, "it is nested too deep"),
    "UTF-16": ('{"a": 1}'.encode("utf-16-le"), "property name"),
    "Latin-1": (b'"\xe9"', "can't decode"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_could_be_read_in_two_ways_is_refused(name):
    text, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        canonical.loads(text)


def test_what_is_written_comes_back():
    document = {"b": [0.1 + 0.2, -0.0, 2**63 - 1, -(2**63), 5e-324], "a": {"Käfer": None, "\ud800": True}}
    text = canonical.dumps(document)
    assert text.isascii()
    assert canonical.dumps(canonical.loads(text)) == text == canonical.dumps(dict(reversed(document.items())))
    assert canonical.loads(text) == document
    assert json.loads(text) == document
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical.dumps([float("inf")])
