"""Compare plain with convolutional networks on MNIST, and write docs/comparisons.md.

    PELLUCID_DATA=... python scripts/comparisons.py

Takes some minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

import pellucid as pl
from pellucid import models, nn
from pellucid.host import machine

PAGE = Path(__file__).resolve().parents[1] / "docs" / "comparisons.md"
SEEDS = (0, 1, 2)
SHAPE = (1, 28, 28)

PAGE_TEXT = """\
# Plain and convolutional networks side by side

Written by `make comparisons`; do not edit. Every network of a table is trained by `pellucid.compare` on the same images
of MNIST, divided in the same way, for the same epochs with the same optimizer (Adam, one-cycle with peak 3e-3, batches
of 64), and judged on the 10,000 test images. Figures are means over the seeds {seeds}, behind ± half of the range.
Seconds depend on the machine ({machine}); only those of one table can be compared.

## Classifiers

"Plain" is a network of dense layers on 784 pixels. "Moved by 2" is the accuracy on the same test images two pixels to
the left, right, up and down; no network was trained on moved images.

{classifiers}

## Autoencoders

An image of 784 numbers goes through a bottleneck and comes back; the error is the mean squared difference of pixels
from 0 to 1. Only networks with equal bottlenecks can be compared (the ratio is 784 / bottleneck), and
`pellucid.compare` warns where they differ. "Spatial" bottlenecks are maps, 4x2x2 or 8x2x2; "flat" ones are made by a
dense layer. The decoders mirror their encoders with transposed convolutions, or with repeated cells and convolutions
("upsample"). The spatial ones are four convolutions deep, with batch norm; the others two.

{autoencoders}
"""


def classifiers() -> dict[str, nn.Network]:
    """The networks of the first page, not built."""
    return {
        "plain, 784-128-64-32-10": models.mlp(),
        "convolutional, starved: 1 and 1 filters": models.lesson4(filters=(1, 1)),
        "convolutional: 6 and 16 filters (lenet5)": models.lenet5(),
        "convolutional: 32, 64 and 64 filters (lesson2)": models.lesson2(),
    }


def autoencoders(size: int) -> dict[str, nn.Network]:
    """Autoencoders with a bottleneck of 16 or 32 numbers, not built."""
    return {
        f"dense, 784-128-64-{size} and back": models.dense_autoencoder(SHAPE, bottleneck=size),
        "convolutional, flat": models.autoencoder(SHAPE, bottleneck=size),
        "convolutional, flat, upsample": models.autoencoder(SHAPE, bottleneck=size, upsample=True),
        f"convolutional, spatial {size // 4}x2x2": models.autoencoder(SHAPE, (16, 32, 32, size // 4), None),
    }


def measured(make: Callable[[], dict[str, nn.Network]], ds: pl.data.Dataset, epochs: int) -> str:
    """Train them with each seed; return the table in Markdown."""
    found = [pl.compare(make(), ds, epochs=epochs, seed=seed, progress=False) for seed in SEEDS]
    if any(comparison.warning for comparison in found):
        raise SystemExit(found[0].warning)
    tables = [comparison.table() for comparison in found]
    parts = f"{len(ds.splits.train):,} images to train on, {len(ds.splits.val):,} to validate on"
    lines = [f"{parts}, {epochs} epochs:", ""]
    for i, cells in enumerate(zip(*tables, strict=True)):
        lines.append("| " + " | ".join(joined(values) for values in zip(*cells, strict=True)) + " |")
        if i == 0:
            lines.append("|" + "---|" * len(cells[0]))
    return "\n".join(lines)


def joined(values: tuple[str, ...]) -> str:
    """Equal texts as they are; different numbers as their mean and half of their range."""
    if len(set(values)) == 1:
        return values[0]
    percent = values[0].endswith("%")
    digits = len(values[0].rstrip("%").partition(".")[2])
    numbers = np.array([float(value.rstrip("%")) for value in values])
    return f"{numbers.mean():.{digits}f}{'%' * percent} ± {np.ptp(numbers) / 2:.{digits}f}"


def main() -> None:
    """Measure, and write the page."""
    found = machine()
    large, small = pl.data.load("mnist"), pl.data.load("mnist", subset=1000)
    images = pl.data.load("mnist", subset=5000).reconstruction()
    text = PAGE_TEXT.format(
        seeds=", ".join(map(str, SEEDS)),
        machine=f"{found['cpu']}, {found['cores']} cores",
        classifiers="\n\n".join(measured(classifiers, ds, epochs) for ds, epochs in ((large, 5), (small, 10))),
        autoencoders="\n\n".join(measured(lambda size=size: autoencoders(size), images, 10) for size in (16, 32)),
    )
    PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
