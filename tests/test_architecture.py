"""docs/ARCHITECTURE.md's hops of one batch are those that a batch takes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pellucid as pl
from pellucid import models
from pellucid.compiled.machine import Machine

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "pellucid"


def written_hops():
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    return [
        (file, name.rpartition(".")[2]) for file, name in re.findall(r"^\| \d \| `([^`]+)` \| `([^`]+)`", text, re.M)
    ]


def test_hops_are_those_of_the_page():
    ds = pl.data.load("digits", subset=100)
    net = models.create("block_cnn", ds.shape, 10)
    stacks = []

    def watch(frame, event, argument):
        if event == "call" and frame.f_code is Machine.run.__code__:
            chain = []
            while frame is not None:
                path = Path(frame.f_code.co_filename)
                if path.is_relative_to(SRC):
                    chain.append((path.relative_to(SRC).as_posix(), frame.f_code.co_name))
                frame = frame.f_back
            stacks.append(chain[::-1])

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        pl.fit(net, ds, epochs=1, progress=False)
    finally:
        sys.setprofile(before)
    assert len(written_hops()) == 5
    assert written_hops() in stacks
