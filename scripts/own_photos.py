"""Write docs/own-photos.md: how well a model reads photos of digits, and what it is not sure of.

The photos are made from MNIST's test digits (tests/photos.py); nothing of them was trained on. Needs PELLUCID_DATA with
MNIST, Fashion-MNIST and cifar10-subset.tar, and a quarter of an hour.
"""

from __future__ import annotations

import io
import os
import string
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

import pellucid as pl
from pellucid.data import open_image, to_array
from pellucid.model import borders

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import photos  # noqa: E402

EACH, COMBINED, FOREIGN = 40, 220, 150
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
LETTERS = ("DejaVuSans.ttf", "DejaVuSerif-Bold.ttf", "cmr10.ttf", "STIXGeneral.ttf", "cmtt10.ttf")
LIKE_DIGITS = set("oOQDlIiSsZzBbgqGLTtJjyY")

TEXT = """# Own photos

Written by `python scripts/own_photos.py`; do not edit.

{total} photos of {frame} pixels were made from MNIST's *test* digits: paper, light, lines, pen and camera are drawn
([tests/photos.py](../tests/photos.py)), one disturbance in each row, three or four at a time in "combined". They were
read by lesson 2's network, trained by `pellucid train mnist` (10 epochs; {accuracy:.2%} on the test images themselves).
Made photos are no real ones, and the same people made photos and preparation: the table compares, and shows what
breaks; it promises nothing for a photo of yours.

- **before**: the usual way. Gray, resized to 28x28, inverted where the border is light.
- **after**: the preparation `digit` of `pellucid predict` ([data/preparation.py](../src/pellucid/data/preparation.py)).
- **not sure**: the share that is answered with "not sure" after preparation, and how many of the others are right.

| photo | n | before | after | not sure | right if sure |
|---|--:|--:|--:|--:|--:|
{table}

The default model, of the 8x8 digits, sees far less: it reads {small:.0%} of the plain photos, and is not sure of
{doubted:.0%}.

Preparing a photo takes {median:.0f} ms of processor time (median; 95% take less than {slow:.0f} ms), reading its file
included.

![Photos, and below each what the network saw](own-photos.png)

## Not sure

A model keeps thresholds, measured on its validation images when `fit` ends
([novelty.py](../src/pellucid/novelty.py)): the range of brightness, contrast, roughness and margin, and for each class
the evidence, log(sum(exp(outputs))), that all but 0.7% of them reach (Liu et al.: Energy-based Out-of-distribution
Detection, 2020). The numbers come from validation images alone; that these are the measures was chosen among a dozen,
on letters and clothes like those below.

| what the model gets | n | "not sure" | a class with 99% |
|---|--:|--:|--:|
{foreign}

The last column is what the probabilities alone would say. Letters that look like a digit
({alike}) are counted apart, since an O is a good 0. A photo of clothing goes through the preparation,
which leaves a silhouette.
"""


def usual(picture: Any) -> np.ndarray:
    """What most people do first: gray, 28x28, inverted where the border is light."""
    pixels = to_array(picture, (28, 28), 1)
    return 255 - pixels if borders(pixels[None])[0] > 127.5 else pixels


def made(ds: pl.data.Dataset) -> Iterator[tuple[str, bytes, int]]:
    """Yield kind, file and label of each photo."""
    for number, kind in enumerate([*photos.KINDS, photos.COMBINED]):
        for i in range(COMBINED if kind == photos.COMBINED else EACH):
            rng = np.random.default_rng([2, number, i])
            chosen = rng.choice(ds.splits.test)
            yield kind, photos.photo(ds.images[chosen, 0], kind, rng), int(ds.targets[chosen])


def digits(model: pl.Model, ds: pl.data.Dataset) -> tuple[dict[str, Any], list[tuple[str, Any, np.ndarray]]]:
    """Return the table by kind of disturbance with the times, and one example of each kind."""
    kinds, before, after, true, seconds, sheet = [], [], [], [], [], []
    for kind, file, label in made(ds):
        began = time.process_time()
        picture = open_image(Image.open(io.BytesIO(file)))
        image = model.input.prepare(picture).image
        seconds.append(time.process_time() - began)
        if kind not in kinds:
            sheet.append((kind, picture, image[0]))
        kinds.append(kind)
        before.append(usual(picture))
        after.append(image)
        true.append(label)
    usually, prepared = (model.predict_prepared(np.stack(images)) for images in (before, after))
    of, labels = np.array(kinds), np.array(true)
    right = [prediction.indices == labels for prediction in (usually, prepared)]
    unsure = np.array([doubt is not None for doubt in prepared.unsure])
    rows = []
    for name in [*dict.fromkeys(kinds), "all"]:
        row = np.ones(len(of), bool) if name == "all" else of == name
        sure = right[1][row & ~unsure].mean()
        cells = f"{right[0][row].mean():.1%} | {right[1][row].mean():.1%} | {unsure[row].mean():.1%} | {sure:.1%}"
        rows.append(f"| {name} | {row.sum()} | {cells} |")
    milliseconds = 1000 * np.array(seconds)
    facts = {"table": "\n".join(rows), "total": len(of), "median": np.median(milliseconds)}
    return {**facts, "slow": np.percentile(milliseconds, 95)}, sheet


def default_model(ds: pl.data.Dataset) -> dict[str, float]:
    """What the model that `pellucid train digits` gives makes of plain photos of MNIST's digits."""
    digits = pl.data.load("digits")
    model = pl.fit(pl.models.create("block_cnn", digits.shape, 10), digits, progress=False).model
    pictures, true = [], []
    for i in range(COMBINED):
        rng = np.random.default_rng([4, i])
        chosen = rng.choice(ds.splits.test)
        pictures.append(Image.open(io.BytesIO(photos.photo(ds.images[chosen, 0], "plain", rng))))
        true.append(ds.targets[chosen])
    answer = model.predict(pictures)
    unsure = np.mean([doubt is not None for doubt in answer.unsure])
    return {"small": float(np.mean(answer.indices == true)), "doubted": float(unsure)}


def foreign(model: pl.Model, ds: pl.data.Dataset) -> str:
    """Return the table of what should be answered with "not sure", and of test digits, which should not."""
    clothes = pl.data.load("fashion-mnist")
    some = clothes.images[clothes.splits.test][:2000]

    def prepared(draw: Callable[[np.random.Generator, int], bytes | Any], count: int) -> np.ndarray:
        images = []
        for i in range(count):
            given = draw(np.random.default_rng([3, i]), i)
            picture = Image.open(io.BytesIO(given)) if isinstance(given, bytes) else given
            images.append(model.input.prepare(open_image(picture)).image)
        return np.stack(images)

    def letters(alike: bool) -> np.ndarray:
        pairs = [(c, font) for font in LETTERS for c in string.ascii_letters if (c in LIKE_DIGITS) == alike]
        return prepared(lambda rng, i: photos.letter(pairs[i][0], FONTS / pairs[i][1], "plain", rng), len(pairs))

    kinds, photographs = list(photos.KINDS), pictures()
    rows = {
        "MNIST's test digits (should be sure)": ds.images[ds.splits.test],
        "photos of empty paper": prepared(lambda rng, i: photos.blank(kinds[i % len(kinds)], rng), FOREIGN),
        "images of one gray": np.repeat(np.arange(0, 250, 5, dtype=np.uint8), 784).reshape(-1, 1, 28, 28),
        "images of noise": np.random.default_rng(4).integers(0, 256, (FOREIGN, 1, 28, 28)).astype(np.uint8),
        "Fashion-MNIST": some,
        "Fashion-MNIST as photos of 280x280": prepared(
            lambda rng, i: Image.fromarray(some[i, 0]).resize((280, 280), Image.Resampling.BICUBIC), FOREIGN
        ),
        "photographs (CIFAR-10, 320x320)": prepared(
            lambda rng, i: Image.open(photographs[i]).resize((320, 320), Image.Resampling.BICUBIC), len(photographs)
        ),
        "photos of textures": prepared(lambda rng, i: photos.texture(rng), FOREIGN),
        "photos of letters in five fonts": letters(False),
        "photos of letters that look like a digit": letters(True),
    }
    lines = []
    for name, images in rows.items():
        answer = model.predict_prepared(images)
        unsure = np.mean([doubt is not None for doubt in answer.unsure])
        lines.append(
            f"| {name} | {len(images)} | {unsure:.1%} | {(answer.probabilities.max(axis=1) >= 0.99).mean():.1%} |"
        )
    return "\n".join(lines)


def pictures() -> list[io.BytesIO]:
    """Some of CIFAR-10's photographs, from all classes."""
    with tarfile.open(Path(os.environ["PELLUCID_DATA"]) / "cifar10-subset.tar") as tar:
        files = sorted((m for m in tar.getmembers() if m.isfile() and m.name.endswith(".jpg")), key=lambda m: m.name)
        chosen = files[:: max(1, len(files) // FOREIGN)][:FOREIGN]
        return [io.BytesIO(tar.extractfile(member).read()) for member in chosen]


def draw(sheet: list[tuple[str, Any, np.ndarray]], path: Path) -> None:
    """Write a photo of each kind, and below it what the network saw."""
    columns, width, height = 8, 112, 160
    picture = Image.new("L", (columns * width, -(-len(sheet) // columns) * height), 255)
    pen = ImageDraw.Draw(picture)
    for number, (kind, photo, seen) in enumerate(sheet):
        x, y = number % columns * width, number // columns * height
        small = photo.convert("L")
        small.thumbnail((width - 6, 84))
        picture.paste(small, (x + 3, y + 14))
        pen.text((x + 3, y + 1), kind, 0)
        picture.paste(Image.fromarray(seen).resize((56, 56), Image.Resampling.NEAREST), (x + 3, y + 100))
    picture.quantize(32).save(path, optimize=True)


def main() -> None:
    """Train, measure, write."""
    ds = pl.data.load("mnist")
    run = pl.fit(pl.models.create("lesson2", ds.shape, 10), ds, progress=False)
    facts, sheet = digits(run.model, ds)
    frame = f"{photos.FRAME[1]}x{photos.FRAME[0]}"
    facts |= default_model(ds)
    facts |= {"frame": frame, "accuracy": run.evaluate().accuracy, "foreign": foreign(run.model, ds)}
    draw(sheet, ROOT / "docs" / "own-photos.png")
    page = TEXT.format(**facts, alike="".join(sorted(LIKE_DIGITS)))
    (ROOT / "docs" / "own-photos.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
