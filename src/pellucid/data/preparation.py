"""The photo of a digit made like the images that a model of digits was trained on.

MNIST's digits are light on dark, fitted into a box of 20x20 and centered by mass in 28x28 (LeCun et al.: Gradient-based
learning applied to document recognition, 1998, section III.A). A photo has paper, light, lines and a pen besides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pellucid._types import Array
from pellucid.errors import OptionError, unknown
from pellucid.shapes import Pair, pair

if TYPE_CHECKING:
    from PIL.Image import Image

POLARITIES = ("auto", "dark-on-light", "light-on-dark")
CHANNELS = ("auto", "gray", "red", "green", "blue")

_WORK = 640  # pixels of the longer side on which the figure is looked for
_COARSE = 32  # pixels of the longer side on which the background is estimated
_FINE = 160  # pixels of the figure's longer side where its outline is drawn, or _PIXEL for each of the box
_PIXEL = 6
_BLUR = 1.5  # pixels there
_LEVELS = 10  # of gray, by which what reaches the border is told from what does not
_EVEN = 0.15  # difference of light within which a border is all paper
_FILLING = 0.15  # of a drawn picture: a figure, and no rules
_NEAR = 8  # of 255: what a camera's noise leaves of one color
_SMALLEST = 0.025  # of the picture's longer side: what is smaller is dirt


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared picture; of one that was only resized all but the image is empty.

    Attributes:
        image: What the network is to see: uint8, (H, W), light on dark; 0 everywhere if no figure was found.
        polarity: What was found, or was given: "dark-on-light" or "light-on-dark".
        channel: In which channel the ink was looked for.
        steps: What each step gave, by name: (h, w), 0 to 1; light ink on a dark ground may be more.
    """

    image: Array
    polarity: str = ""
    channel: str = ""
    steps: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class DigitPreparation:
    """Finds the figure in a photo, and makes of it an image like those of MNIST.

    Args:
        size: (H, W) of the result.
        box: Side of the box into which the figure is fitted; if None, 20 of 28 pixels, and all of an image below 16.
        polarity: "dark-on-light", "light-on-dark", or "auto": what stands out more from its surroundings.
        channel: Where to look for ink: "gray", "red", "green", "blue", or "auto": gray unless a color shows it clearly
            better.
        threshold: How much of the difference between paper and ink makes a pixel ink.
        clear_border: Take away what reaches the border: rules, squares, the edge of a table.
        pen: Thinnest and thickest stroke, as shares of the figure's longer side: if "auto" (0.1, 0.16), MNIST's, and
            for a size below 16 (0.16, 0.2), a pixel and a half; None leaves strokes as they are.

    Raises:
        OptionError: For values that cannot be.

    >>> from PIL import Image
    >>> photo = Image.new("RGB", (300, 400), (230, 225, 210))
    >>> photo.paste((40, 50, 120), (140, 100, 170, 300))
    >>> prepared = DigitPreparation()(photo)
    >>> prepared.polarity, prepared.image.shape, prepared.image.max(axis=1).astype(bool).tolist().count(True)
    ('dark-on-light', (28, 28), 20)
    """

    size: Pair = (28, 28)
    box: int | None = None
    polarity: str = "auto"
    channel: str = "auto"
    threshold: float = 0.45
    clear_border: bool = True
    pen: tuple[float, float] | str | None = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", pair(self.size, "size"))
        shorter = min(self.size)
        box = self.box if self.box is not None else (round(shorter * 20 / 28) if shorter >= 16 else shorter)
        if isinstance(box, bool) or not isinstance(box, int) or not 1 <= box <= shorter:
            raise OptionError(f"box must be from 1 to {shorter}, the shorter side of size, got {box!r}")
        object.__setattr__(self, "box", box)
        for name, known in (("polarity", POLARITIES), ("channel", CHANNELS)):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        if not _is_share(self.threshold):
            raise OptionError(f"threshold must lie between 0 and 1, got {self.threshold!r}")
        if not isinstance(self.clear_border, bool):
            raise OptionError(f"clear_border must be True or False, got {self.clear_border!r}")
        pen = self.pen
        if isinstance(pen, str) and pen == "auto":
            pen = (0.1, 0.16) if shorter >= 16 else (0.16, 0.2)
        if pen is not None and not (
            isinstance(pen, (tuple, list)) and len(pen) == 2 and all(map(_is_share, pen)) and pen[0] <= pen[1]
        ):
            raise OptionError(f'pen must be "auto", None, or (thinnest, thickest), between 0 and 1, got {pen!r}')
        object.__setattr__(self, "pen", None if pen is None else tuple(pen))

    def __call__(self, picture: Image) -> Prepared:
        """Return what the network is to see of a picture, and how it came about.

        Args:
            picture: Upright, mode "L" or "RGB", as open_image returns it.
        """
        planes = _planes(picture)
        channel, polarity = self._choose(planes)
        plane = planes[channel]
        paper = background(plane)
        steps = {channel: plane, "paper": paper}
        difference = _blurred((paper - plane if polarity == "dark-on-light" else plane - paper) / (paper + 0.1))
        ink = np.maximum(difference, 0)
        steps["ink"] = ink
        least = max(0.08, 6 * _noise(difference))
        drawn = drawn_ground(plane) is not None
        if self.clear_border and not (drawn and np.mean(ink > least / 2) > _FILLING):
            cleared = ink - border_connected(ink)
            # A figure that touches the border itself would be gone; it does so at one place, unlike rules and tables.
            if _top(cleared) <= max(least, 0.25 * _top(ink)):
                cleared = np.where(_across(ink > least / 2), 0, ink)
            # Nor has a drawing anything at its border but the figure and weaker rules.
            ink = ink if drawn and _top(cleared) <= least else cleared
            steps["without what reaches the border"] = ink
        figure = largest_figure(ink, least, self.threshold)
        steps["figure"] = figure
        outline = self._outline(figure) if figure.any() else figure > 0
        if not outline.any():
            return Prepared(np.zeros(self.size, np.uint8), polarity, channel, steps)
        steps["outline"] = outline
        if isinstance(self.pen, tuple):
            outline = with_pen(outline, *self.pen)
            steps["pen"] = outline
        seen = fitted(outline, self.size, self.box or 1)
        steps["seen"] = seen
        return Prepared(np.rint(seen * 255).astype(np.uint8), polarity, channel, steps)

    def _choose(self, planes: dict[str, Array]) -> tuple[str, str]:
        """Return channel and polarity: where the strongest difference to the paper is."""
        signs = {"dark-on-light": -1.0, "light-on-dark": 1.0}
        contrast = {}
        for name in planes if self.channel == "auto" else [self.channel if self.channel in planes else "gray"]:
            half = planes[name][::2, ::2]
            difference = _blurred(half - background(half))
            for polarity, sign in signs.items():
                if self.polarity in ("auto", polarity):
                    # A single channel is noisier than their mean.
                    contrast[name, polarity] = _top(sign * difference) * (1.2 if name == "gray" else 1)
        return max(contrast, key=lambda pair: contrast[pair])

    def _outline(self, figure: Array) -> Array:
        """Return the figure alone, drawn large."""
        from scipy import ndimage

        cut = np.pad(figure[_cut(figure)], 2)
        factor = max(_FINE, _PIXEL * (self.box or 1)) / (max(cut.shape) - 4)
        large = _resized(cut, _scaled(cut.shape, factor), smooth=True)
        level = float(np.median(cut[cut > 0.5 * cut.max()]))
        return np.asarray(ndimage.gaussian_filter(large, _BLUR) > self.threshold * level)


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 < value < 1


def _planes(picture: Image) -> dict[str, Array]:
    """Return gray, and of a colored picture red, green and blue: float32, 0 to 1, at most _WORK pixels wide or high."""
    from PIL import Image as pil

    if max(picture.size) > _WORK:
        picture = picture.resize(_scaled(picture.size, _WORK / max(picture.size)), pil.Resampling.BOX)
    planes = {"gray": picture.convert("L")}
    if picture.mode == "RGB":
        planes.update(zip(("red", "green", "blue"), picture.split(), strict=True))
    return {name: np.asarray(plane, dtype=np.float32) / 255 for name, plane in planes.items()}


def background(plane: Array) -> Array:
    """Return the paper without the figure: a wide median at low resolution, then a narrower one.

    Light changes slowly, or at edges, which a median follows; a figure covers less than half of a wide window. What
    stands out from the wide median without reaching the border is a figure, and makes way before the narrow one. Where
    the picture was drawn its ground is known.

    Args:
        plane: (h, w), 0 to 1.
    """
    from scipy import ndimage

    drawn = drawn_ground(plane)
    if drawn is not None:
        return np.full_like(plane, drawn)
    coarse = _resized(plane, _scaled(plane.shape, min(1.0, _COARSE / max(plane.shape))))
    coarser = _resized(coarse, _scaled(coarse.shape, 0.5))
    wide = _resized(ndimage.median_filter(coarser, _odd(coarser.shape, 1.0)), coarse.shape)
    rim = np.concatenate([coarse[0], coarse[-1], coarse[1:-1, 0], coarse[1:-1, -1]])
    if np.subtract(*np.percentile(rim, (90, 10))) < _EVEN:
        wide = np.full_like(coarse, np.median(rim))
    stands_out = np.abs(coarse - wide) > 0.2
    figure = ndimage.binary_dilation(stands_out & ~_along_border(stands_out, 0.15))
    narrow = ndimage.median_filter(np.where(figure, wide, coarse), _odd(coarse.shape, 0.2))
    return _resized(ndimage.gaussian_filter(narrow, 1), plane.shape)


def drawn_ground(plane: Array) -> float | None:
    """Return the ground of a drawn picture, or of a stored image enlarged; None for a photo.

    It has exactly one value, at many pixels and half of the border, where a camera leaves many values close together.

    Args:
        plane: (h, w), 0 to 1, multiples of 1/255.
    """
    some = max(1, max(plane.shape) // 160)
    values = np.rint(plane[::some, ::some] * 255).astype(np.intp)
    counts = np.bincount(values.ravel(), minlength=256)
    ground = int(counts.argmax())
    near = counts[max(0, ground - _NEAR) : ground + _NEAR + 1].sum() - counts[ground]
    if counts[ground] < 0.15 * values.size or near > 0.5 * counts[ground]:
        return None
    sides = [np.mean(np.rint(side * 255) == ground) for side in (plane[0], plane[-1], plane[:, 0], plane[:, -1])]
    return ground / 255 if np.mean(sides) >= 0.5 and min(sides) > 0 else None


def border_connected(ink: Array) -> Array:
    """Return the part of the ink that reaches the border: its reconstruction from there by dilation.

    A rule that crosses the figure is taken away along its whole length, and its own strength from the figure as well,
    which keeps what it has more. (Soille: Morphological Image Analysis, 2003, section 6.3.6.)

    Args:
        ink: (h, w), at least 0.
    """
    from scipy import ndimage

    height, width = ink.shape
    rows, columns = -(-height // 2), -(-width // 2)
    padded = np.pad(ink, ((0, 2 * rows - height), (0, 2 * columns - width)))
    # Half as fine, which is four times as fast; maxima, so that a thin line does not fall apart.
    half = ndimage.maximum_filter(padded.reshape(rows, 2, columns, 2).max(axis=(1, 3)), 3)
    reached = np.zeros_like(half)
    for level in np.linspace(0, float(half.max()), _LEVELS, endpoint=False)[1:]:
        reached[_along_border(half > level)] = level
    reached += (reached > 0) * half.max() / _LEVELS
    return np.asarray(np.minimum(reached.repeat(2, 0).repeat(2, 1)[:height, :width], ink))


def largest_figure(ink: Array, least: float, threshold: float) -> Array:
    """Return the ink of the largest figure with what lies near it, 0 elsewhere; 0 everywhere if there is none.

    Args:
        ink: (h, w), at least 0.
        least: Ink that is no stronger anywhere is noise.
        threshold: Share of the strongest ink that makes a pixel ink.
    """
    from scipy import ndimage

    top = _top(ink)
    if top <= least:
        return np.zeros_like(ink)
    labels, count = ndimage.label(ink > max(threshold * top * 0.8, 0.5 * least), np.ones((3, 3)))
    mass = np.bincount(labels.ravel(), ink.ravel(), count + 1)
    strong = np.bincount(labels[ink > threshold * top], minlength=count + 1) > 0
    strong[0] = False
    main = int(np.argmax(mass * strong))
    places = ndimage.find_objects(labels)
    rows, columns = places[main - 1]
    longer = max(rows.stop - rows.start, columns.stop - columns.start)
    if longer < _SMALLEST * max(ink.shape):
        return np.zeros_like(ink)
    reach = 0.25 * longer
    kept = []
    for number in np.flatnonzero(strong & (mass >= 0.03 * mass[main])):
        r, c = places[number - 1]
        if max(rows.start - r.stop, r.start - rows.stop, columns.start - c.stop, c.start - columns.stop) < reach:
            kept.append(number)
    # A rim of two pixels, so that the outline is cut where the ink ends and not where a pixel does.
    rim = np.isin(labels, kept)
    r, c = _cut(rim, 2)
    rim[r, c] = ndimage.binary_dilation(rim[r, c], np.ones((3, 3)), iterations=2)
    return np.where(rim, ink, 0)


def with_pen(outline: Array, thinnest: float, thickest: float) -> Array:
    """Return a figure whose strokes are thickened or thinned where they are outside of a range.

    Args:
        outline: bool, (h, w).
        thinnest: Stroke, as share of the longer side.
        thickest: Stroke, as share of the longer side.
    """
    from scipy import ndimage

    longer = max(outline[_cut(outline)].shape)
    depth = ndimage.distance_transform_edt(np.pad(outline, longer // 4))
    ridge = (depth > 1) & (depth >= ndimage.maximum_filter(depth, 5))
    stroke = 2 * float(np.median(depth[ridge])) if ridge.any() else 1.0
    grow = (min(max(stroke, thinnest * longer), thickest * longer) - stroke) / 2
    if abs(grow) < 0.5:
        return outline
    if grow < 0:
        thinner = depth > -grow
        # Where a stroke would vanish its middle stays.
        return np.asarray(thinner | (ridge & ~ndimage.binary_dilation(thinner, iterations=2)))
    return np.asarray(ndimage.distance_transform_edt(depth == 0) <= grow)


def fitted(outline: Array, size: Pair, box: int) -> Array:
    """Return a figure fitted into a box by its longer side, its center of mass in the middle of the image: 0 to 1.

    It stays inside the image, wherever its mass is.

    Args:
        outline: (h, w), at least one value above 0.
        size: (H, W) of the image.
        box: Side of the box.
    """
    cut = outline[_cut(outline)].astype(np.float32)
    small = _resized(cut, _scaled(cut.shape, box / max(cut.shape)))
    image = np.zeros(size, np.float32)
    corner = []
    for axis in (0, 1):
        center = np.average(np.arange(small.shape[axis]), weights=small.sum(axis=1 - axis))
        corner.append(int(np.clip(round((size[axis] - 1) / 2 - center), 0, size[axis] - small.shape[axis])))
    image[corner[0] : corner[0] + small.shape[0], corner[1] : corner[1] + small.shape[1]] = small
    return image


def _odd(shape: tuple[int, ...], share: float) -> Pair:
    """Return a share of both sides as odd numbers."""
    window = int(max(shape) * share) // 2 * 2 + 1
    return window, window


def _along_border(mask: Array, share: float = 0.0) -> Array:
    """Return those parts of a mask that touch the border, along more than a share of it."""
    labels, sides = _touching(mask)
    chosen = np.asarray(np.sum(sides, axis=0) > share * 2 * sum(mask.shape))
    chosen[0] = False
    return np.asarray(chosen[labels])


def _across(mask: Array) -> Array:
    """Return those parts of a mask that reach opposite sides of the border, or touch a tenth of it."""
    labels, (top, bottom, left, right) = _touching(mask)
    chosen = (top * bottom > 0) | (left * right > 0) | (top + bottom + left + right > 0.2 * sum(mask.shape))
    chosen[0] = False
    return np.asarray(chosen[labels])


def _touching(mask: Array) -> tuple[Array, list[Array]]:
    """Return the number of each pixel's part, and how many pixels of each part lie on each of the four sides."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3, 3)))
    sides = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    return labels, [np.bincount(side, minlength=count + 1) for side in sides]


def _cut(mask: Array, margin: int = 0) -> tuple[slice, slice]:
    """Return rows and columns of what is in a mask, with a margin as far as there is room."""
    places = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    rows, columns = (slice(max(0, int(at[0]) - margin), int(at[-1]) + 1 + margin) for at in places)
    return rows, columns


def _scaled(shape: tuple[int, ...], factor: float) -> Pair:
    """Return both sides times a factor, at least 1."""
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _resized(plane: Array, to: tuple[int, ...], smooth: bool = False) -> Array:
    """Return a plane in another size, antialiased where it gets smaller; smooth is bicubic instead of bilinear."""
    from PIL import Image as pil

    how = pil.Resampling.BICUBIC if smooth else pil.Resampling.BILINEAR
    return np.asarray(pil.fromarray(plane.astype(np.float32)).resize((to[1], to[0]), how))


def _blurred(plane: Array) -> Array:
    """Return a plane with the finest noise taken out, where it is large enough to have any."""
    from scipy import ndimage

    return np.asarray(ndimage.gaussian_filter(plane, min(1.0, max(plane.shape) / 400), truncate=3.0))


def _top(ink: Array) -> float:
    """Return the mean of the strongest pixels: a hundredth of a small picture, at most 64."""
    count = max(1, min(64, ink.size // 100))
    strong = ink[ink > ink.max() / 2]  # few, and sorted in no time
    among = strong if strong.size >= count else ink.ravel()
    return float(np.partition(among, among.size - count)[-count:].mean())


def _noise(difference: Array) -> float:
    """Return the standard deviation of the paper, which slow light and a small figure hardly change."""
    lag = max(1, max(difference.shape) // 50)
    steps = np.abs(difference[lag::2, ::2] - difference[:-lag:2, ::2])
    return float(np.median(steps)) / 0.954 if steps.size else 0.0
