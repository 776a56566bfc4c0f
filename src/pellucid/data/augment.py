"""Augmentation: images shifted, turned, zoomed, mirrored and cut, seeded per sample.

What happens to a sample depends on (seed, epoch, sample id) only, never on the batch that it is in. All but
cutout is one affine map per image. Positions are those of pixel centers and maps turn about the center of the
image, so that the identity gives back the image bit for bit and whole-pixel shifts are exact.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from pellucid._types import Array
from pellucid.errors import OptionError, ShapeError, unknown
from pellucid.random import per_sample
from pellucid.shapes import Pair, text

Fill: TypeAlias = Literal["edge", "low"]
FILLS = ("edge", "low")

_DRAWS = 9
# Images per pass: their intermediate arrays stay in the cache.
_BLOCK = 32


@dataclass(frozen=True)
class Augmentation:
    """What may happen to an image; each value is the largest that is drawn, and 0 leaves that part out.

    Sizes are whole numbers of pixels, or fractions below 1 of the image's height and width.

    Args:
        shift: Move up or down and left or right by up to this size.
        rotate: Turn by up to this many degrees, either way.
        scale: Zoom by a factor between 1 - scale and 1 + scale.
        flip: Mirror left and right, one image in two.
        crop: Pad by this size on each side, then cut out the original size at a random place.
        cutout: Side of a square that is blanked, at a random place and possibly partly outside.
        fill: What stands outside of the image: "edge" repeats its border, "low" is the low end of the value
            range. The square of cutout gets the middle of the range with "edge", the low end with "low".

    Raises:
        OptionError: For a value that cannot be.

    >>> turned = Augmentation(rotate=15, fill="low")
    >>> images = np.zeros((2, 1, 8, 8), dtype=np.uint8)
    >>> turned.apply(images, np.array([4, 7]), seed=0, epoch=0, value_range=(0, 255)).shape
    (2, 1, 8, 8)
    """

    shift: float = 0
    rotate: float = 0.0
    scale: float = 0.0
    flip: bool = False
    crop: float = 0
    cutout: float = 0
    fill: Fill = "edge"

    def __post_init__(self) -> None:
        for name in ("shift", "crop", "cutout"):
            _check_size(getattr(self, name), name)
        _check_number(self.rotate, "rotate", 180.0, "degrees from 0 to 180")
        if _check_number(self.scale, "scale", 1.0, "a number from 0 to below 1") == 1.0:
            raise OptionError("scale must be below 1, got 1; 0.1 zooms between 0.9 and 1.1")
        if not isinstance(self.flip, (bool, np.bool_)):
            raise OptionError(f"flip must be True or False, got {self.flip!r}")
        if self.fill not in FILLS:
            raise unknown("fill", self.fill, FILLS)

    def apply(
        self,
        images: Array,
        ids: Array,
        seed: int,
        epoch: int,
        value_range: tuple[float, float] = (0.0, 255.0),
    ) -> Array:
        """Return the augmented images: a new array of the same shape and dtype, integers rounded.

        Args:
            images: Shape (N, C, H, W), integers or floats.
            ids: Number of each sample in its data set: integers of at least 0, shape (N,).
            seed: Of the whole run.
            epoch: Counted from 0.
            value_range: Lowest and highest value that a pixel can have.

        Raises:
            ShapeError: Where images and ids do not fit together.
            OptionError: For ids that are no whole numbers, or a size that is larger than the image.
        """
        images, ids = np.asarray(images), np.asarray(ids)
        if images.ndim != 4 or ids.shape != images.shape[:1]:
            raise ShapeError(
                f"images must have shape (N, C, H, W) and ids shape (N,), got {images.shape} and {ids.shape}"
            )
        if len(ids) and (not np.issubdtype(ids.dtype, np.integer) or ids.min() < 0):
            raise OptionError(f"ids must be whole numbers of at least 0, got {ids.dtype}; use places in the data set")
        size = (images.shape[2], images.shape[3])
        draws = per_sample(seed, epoch, ids, _DRAWS)
        maps = self._maps(draws, size)
        square = self._pixels("cutout", size)
        low, high = value_range
        blank = low if self.fill == "low" else (low + high) / 2
        exact = not (self.shift or self.rotate or self.scale)
        still = exact and not (self.flip or self.crop)
        out = np.empty(images.shape, images.dtype)
        for start in range(0, len(images), _BLOCK):
            block = slice(start, start + _BLOCK)
            moved = images[block] if still else _sample(images[block], maps[block], self.fill, low, exact)
            if self.cutout:
                moved = np.where(_squares(draws[block, 7:9], size, square), images.dtype.type(blank), moved)
            out[block] = moved
        return out

    def _pixels(self, name: str, size: Pair) -> tuple[float, float]:
        """Return a size for height and width in pixels."""
        value = getattr(self, name)
        if isinstance(value, (float, np.floating)):
            return float(value * size[0]), float(value * size[1])
        if value >= min(size) > 0:
            raise OptionError(
                f"{name} of {value} pixels is too much for images of {text(size)}; use at most {min(size) - 1}"
            )
        return value, value

    def _maps(self, draws: Array, size: Pair) -> Array:
        """Return where each output pixel comes from: (y, x, 1) -> (y, x), shape (N, 2, 3), float64.

        Forward, an image is mirrored, zoomed by z and turned by t about its center c, then moved by d:
        q = c + d + z R(t) M (p - c); this is its inverse p = c + M R(-t) (q - c - d) / z.
        """
        signed = 2.0 * draws - 1.0
        centers = (np.array(size) - 1) / 2
        shift, crop = self._pixels("shift", size), self._pixels("crop", size)
        steps = [round(pad) for pad in crop]
        places = np.floor(draws[:, 5:7] * (2 * np.array(steps) + 1)) - steps
        moves = signed[:, :2] * shift + places
        angles = signed[:, 2] * math.radians(self.rotate)
        mirror = np.where(draws[:, 4] < 0.5, -1.0, 1.0) if self.flip else np.ones(len(draws))
        cos, sin = np.cos(angles), np.sin(angles)
        linear = np.stack([cos, sin, -mirror * sin, mirror * cos], axis=1).reshape(-1, 2, 2)
        linear /= (1.0 + signed[:, 3] * self.scale)[:, None, None]
        target = centers + moves
        offsets = centers - (linear[:, :, 0] * target[:, :1] + linear[:, :, 1] * target[:, 1:])
        return np.concatenate([linear, offsets[:, :, None]], axis=2)


def warp(images: Array, maps: Array, fill: Fill = "edge", low: float = 0.0) -> Array:
    """Return images moved by affine maps, with bilinear sampling: same shape and dtype, integers rounded.

    Args:
        images: Shape (N, C, H, W), integers or floats.
        maps: Where each output pixel comes from: (y, x, 1) -> (y, x) in pixels, shape (N, 2, 3).
        fill: What stands outside: "edge" or "low".
        low: The value of "low".

    Raises:
        OptionError: For an unknown fill.

    >>> image = np.array([[[[1, 2, 3], [4, 5, 6]]]])
    >>> right = np.array([[[1, 0, 0], [0, 1, -1]]])
    >>> warp(image, right, fill="low")[0, 0].tolist()
    [[0, 1, 2], [0, 4, 5]]
    """
    if fill not in FILLS:
        raise unknown("fill", fill, FILLS)
    return _sample(images, np.asarray(maps), fill, low, exact=False)


def _sample(images: Array, maps: Array, fill: str, low: float, exact: bool) -> Array:
    """Sample images at maps; exact skips the interpolation where maps lead from pixel to pixel."""
    n, channels, height, width = images.shape
    work = images.dtype if exact else np.result_type(images.dtype, np.float32)
    # One pixel of margin: with positions clipped to it, both fills are ordinary pixels.
    stride = width + 2
    padded = np.empty((n, channels, height + 2, stride), work)
    padded[:, :, 1:-1, 1:-1] = images
    if fill == "edge":
        padded[:, :, 1:-1, 0], padded[:, :, 1:-1, -1] = images[..., 0], images[..., -1]
        padded[:, :, 0], padded[:, :, -1] = padded[:, :, 1], padded[:, :, -2]
    else:
        padded[:, :, 0], padded[:, :, -1], padded[..., 0], padded[..., -1] = low, low, low, low
    planes = np.arange(n * channels).reshape(n, channels, 1, 1) * ((height + 2) * stride)
    flat = padded.reshape(-1)
    rows, columns = np.arange(height), np.arange(width)
    if exact:
        y = np.clip(maps[:, 0, 0:1] * rows + maps[:, 0, 2:], -1, height).astype(np.intp) + 1
        x = np.clip(maps[:, 1, 1:2] * columns + maps[:, 1, 2:], -1, width).astype(np.intp) + 1
        places = (y * stride)[:, :, None] + x[:, None, :]
        moved: Array = flat[places[:, None] + planes]
        return moved
    # Sums in float64, so that rounding does not depend on the dtype of the images.
    y = (maps[:, 0, 0:1] * rows + maps[:, 0, 2:])[:, :, None] + (maps[:, 0, 1:2] * columns)[:, None, :]
    x = (maps[:, 1, 0:1] * rows + maps[:, 1, 2:])[:, :, None] + (maps[:, 1, 1:2] * columns)[:, None, :]
    y, x = np.clip(y, -1, height) + 1, np.clip(x, -1, width) + 1
    top, left = np.minimum(y.astype(np.intp), height), np.minimum(x.astype(np.intp), width)
    down, right = (y - top).astype(work)[:, None], (x - left).astype(work)[:, None]
    places = (top * stride + left)[:, None] + planes
    upper = flat[places]
    upper += right * (flat[1:][places] - upper)
    lower = flat[stride:][places]
    lower += right * (flat[stride + 1 :][places] - lower)
    upper += down * (lower - upper)
    return _cast(upper, images.dtype)


def _cast(values: Array, dtype: np.dtype[np.generic]) -> Array:
    if np.issubdtype(dtype, np.integer):
        np.rint(values, out=values)
    return values.astype(dtype, copy=False)


def _squares(draws: Array, size: Pair, sides: tuple[float, float]) -> Array:
    """Return where the squares of cutout lie: bool, shape (N, 1, H, W)."""
    inside = []
    for axis in (0, 1):
        side = round(sides[axis])
        first = np.floor(draws[:, axis, None] * size[axis]) - side // 2
        places = np.arange(size[axis])
        inside.append((places >= first) & (places < first + side))
    squares: Array = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return squares


def _check_number(value: object, name: str, maximum: float, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise OptionError(f"{name} must be {expected}, got {value!r}")
    if not 0.0 <= value <= maximum:
        raise OptionError(f"{name} must be {expected}, got {value:g}")
    return float(value)


def _check_size(value: object, name: str) -> None:
    expected = "pixels as a whole number, or a fraction from 0 to below 1"
    if isinstance(value, (float, np.floating)):
        if not 0.0 <= value < 1.0:
            raise OptionError(f"{name} must be {expected}, got {value!r}")
        return
    try:
        if isinstance(value, bool):
            raise TypeError
        pixels = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise OptionError(f"{name} must be {expected}, got {value!r}") from None
    if pixels < 0:
        raise OptionError(f"{name} must be {expected}, got {pixels}")


# Fractions, so that one name fits 8x8 digits and 96x96 photos: at 28 pixels a digit moves by up to 2, at 32
# pixels a photo is padded by 4 and loses a square of 8.
NAMED: dict[str, Augmentation | None] = {
    "none": None,
    "digit": Augmentation(shift=2 / 28, rotate=10.0, scale=0.1, fill="low"),
    "photo": Augmentation(flip=True, crop=4 / 32, cutout=8 / 32),
}


def augmentation(value: str | Augmentation | None) -> Augmentation | None:
    """Return the augmentation of a name, or the given one; None stands for no augmentation.

    Args:
        value: "none", "digit" (moved, turned and zoomed, never mirrored), "photo" (mirrored, cropped, a
            square blanked), an Augmentation, or None.

    Raises:
        OptionError: For an unknown name.

    >>> augmentation("digit").flip, augmentation("none")
    (False, None)
    """
    if value is None or isinstance(value, Augmentation):
        return value
    if not isinstance(value, str):
        raise OptionError(f"augment must be a name ({', '.join(NAMED)}), an Augmentation or None, got {value!r}")
    if value not in NAMED:
        raise unknown("augmentation", value, NAMED)
    return NAMED[value]
