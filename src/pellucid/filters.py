"""Named kernels on a picture, and contrast equalization.

Kernels are applied as they are written, without rotation (cross-correlation), so [-1, 0, 1] along a row answers a rise
from left to right, a vertical edge, with a positive number. docs/convolution.md says what rotation would change.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pellucid import functional as F
from pellucid._types import Array
from pellucid.errors import FileError, OptionError, ShapeError, unknown
from pellucid.files import read_bytes
from pellucid.shapes import integer, number

if TYPE_CHECKING:
    from pellucid.data.images import Source

_LARGEST_KERNEL = 101


def _kernel(*rows: list[float], divisor: float = 1.0) -> Array:
    array = np.array(rows, dtype=np.float64) / divisor
    array.flags.writeable = False
    return array


_LINE = [1.0, 4.0, 6.0, 4.0, 1.0]
_GAUSSIAN_5 = np.outer(_LINE, _LINE) / 256

KERNELS: dict[str, Array] = {
    "identity": _kernel([0, 0, 0], [0, 1, 0], [0, 0, 0]),
    "box": _kernel([1, 1, 1], [1, 1, 1], [1, 1, 1], divisor=9),
    "gaussian-3": _kernel([1, 2, 1], [2, 4, 2], [1, 2, 1], divisor=16),
    "gaussian-5": _kernel(*_GAUSSIAN_5.tolist()),
    "sharpen": _kernel([0, -1, 0], [-1, 5, -1], [0, -1, 0]),
    "unsharp": _kernel(*(2 * np.pad([[1.0]], 2) - _GAUSSIAN_5).tolist()),
    "edges": _kernel([-1, -1, -1], [-1, 8, -1], [-1, -1, -1]),
    "ridge": _kernel([0, -1, 0], [-1, 4, -1], [0, -1, 0]),
    "vertical-lines": _kernel([-2, 4, -2], [-2, 4, -2], [-2, 4, -2]),
    "horizontal-lines": _kernel([-2, -2, -2], [4, 4, 4], [-2, -2, -2]),
    "vertical-edges": _kernel([-1, 0, 1]),
    "horizontal-edges": _kernel([-1], [0], [1]),
    "sobel-x": _kernel([-1, 0, 1], [-2, 0, 2], [-1, 0, 1]),
    "sobel-y": _kernel([-1, -2, -1], [0, 0, 0], [1, 2, 1]),
    "prewitt-x": _kernel([-1, 0, 1], [-1, 0, 1], [-1, 0, 1]),
    "prewitt-y": _kernel([-1, -1, -1], [0, 0, 0], [1, 1, 1]),
    "emboss": _kernel([-2, -1, 0], [-1, 1, 1], [0, 1, 2]),
}
"""The gallery, named by effect. What blurs or sharpens sums to 1, what finds edges to 0."""


def kernel(name: str) -> Array:
    """Return a kernel of the gallery, or one from a text file with a row of numbers on each line.

    Args:
        name: One of KERNELS, or a path. Numbers are divided by spaces or commas; # begins a remark.

    Raises:
        OptionError: For an unknown name.
        FileError: For a file that holds no kernel.

    >>> kernel("vertical-edges")
    array([[-1.,  0.,  1.]])
    """
    if name in KERNELS:
        return KERNELS[name]
    if not Path(name).exists():
        if Path(name).suffix or "/" in name:
            raise FileError(f"there is no kernel file {name}; or give a name: {', '.join(KERNELS)}")
        raise unknown("kernel", name, KERNELS)
    try:
        lines = [line.split("#")[0].replace(",", " ").split() for line in read_bytes(name).decode().splitlines()]
        rows = [[float(word) for word in line] for line in lines if line]
    except ValueError:  # a word that is no number, or bytes that are no text
        raise FileError(f"{name} is no kernel: each line must be a row of numbers such as -1 0 1") from None
    if not rows or len({len(row) for row in rows}) > 1 or max(len(rows), len(rows[0])) > _LARGEST_KERNEL:
        raise FileError(f"{name} is no kernel: it needs rows of equal length, at most {_LARGEST_KERNEL} numbers")
    array = np.array(rows)
    if not np.isfinite(array).all():
        raise FileError(f"{name} is no kernel: its numbers must be finite")
    return array


def read_gray(source: Source) -> Array:
    """Return a picture in gray: float64, (H, W), 0 to 1.

    Args:
        source: A file, or a PIL image; color, palette, transparency (on white) and 16 bits are understood.

    Raises:
        DataError: For what is no picture.
    """
    from pellucid.data.images import open_image, to_array

    return np.asarray(to_array(open_image(source), None, 1)[0] / 255.0)


def _check_gray(gray: Array) -> None:
    if not isinstance(gray, np.ndarray) or gray.ndim != 2 or gray.size == 0 or gray.dtype.kind != "f":
        raise ShapeError(f"gray must be a float array (H, W), got {getattr(gray, 'dtype', '')} {np.shape(gray)}")


def apply(gray: Array, kernel: Array) -> Array:
    """Return the response of a kernel at each pixel: float64, (H, W). The picture is mirrored at its edges.

    Args:
        gray: (H, W).
        kernel: (kh, kw).

    Raises:
        ShapeError: For other axes.

    >>> apply(np.array([[0.0, 0.0, 1.0, 1.0]]), KERNELS["vertical-edges"])
    array([[0., 1., 1., 0.]])
    """
    _check_gray(gray)
    return F.convolve2d(gray, kernel, "same", flip=False, boundary="symm")


def to_unit(response: Array, kernel: Array) -> Array:
    """Return a response as a picture, 0 to 1.

    That of a kernel that sums to 1 has the picture's own range, and is cut off beyond it. Another is divided by its
    largest absolute value (unless that is 0); where it may be negative, 0 becomes middle gray.

    Args:
        response: What apply gave.
        kernel: That it was applied with.

    >>> to_unit(np.array([[0.0, 2.0, -1.0]]), KERNELS["vertical-edges"])
    array([[0.5 , 1.  , 0.25]])
    """
    total = float(kernel.sum())
    if math.isclose(total, 1):
        return np.clip(response, 0, 1)
    largest = float(np.abs(response).max(initial=0.0))
    scaled = response / largest if largest else response
    signed = math.isclose(total, 0, abs_tol=1e-12) or response.min(initial=0.0) < 0
    return np.asarray((scaled + 1) / 2 if signed else scaled)


def equalize(gray: Array, tiles: int = 8, bins: int = 256, clip: float = 0.03) -> Array:
    """Return a picture whose contrast is even everywhere: float64, (H, W), 0 to 1.

    The picture is cut into tiles. In each a gray becomes the share of pixels that are not brighter. No gray counts for
    more than the share clip of the pixels (what is more is spread over all grays), so that noise in even parts is not
    blown up. Between the tiles' centers results are mixed (Zuiderveld: Contrast limited adaptive histogram
    equalization, 1994).

    Args:
        gray: (H, W), 0 to 1.
        tiles: How many along each axis.
        bins: How many grays are told apart.
        clip: Largest share of a gray in a tile.

    Raises:
        ShapeError: For other axes.
        OptionError: For arguments that cannot be, and values outside 0 to 1.

    >>> equalize(np.array([[0.5, 0.502]]), tiles=1, bins=1000, clip=1.0)
    array([[0.5, 1. ]])
    """
    _check_gray(gray)
    tiles, bins = integer(tiles, "tiles"), integer(bins, "bins", minimum=2)
    if not (gray.min() >= 0 and gray.max() <= 1):
        raise OptionError(f"gray must lie between 0 and 1, got {gray.min():g} to {gray.max():g}")
    size = [-(-n // tiles) for n in gray.shape]
    behind = [(0, s * tiles - n) for s, n in zip(size, gray.shape, strict=True)]
    levels = np.minimum((np.pad(gray, behind, mode="symmetric") * bins).astype(np.int64), bins - 1)
    pixels = size[0] * size[1]
    limit = max(number(clip, "clip") * pixels, 1.0)
    curves = np.empty((tiles, tiles, bins))
    for i, j in np.ndindex(tiles, tiles):
        tile = levels[i * size[0] : (i + 1) * size[0], j * size[1] : (j + 1) * size[1]]
        counts = np.bincount(tile.ravel(), minlength=bins)
        cut = np.minimum(counts, limit)
        curves[i, j] = np.cumsum(cut + (pixels - cut.sum()) / bins) / pixels
    (top, bottom, down), (left, right, across) = (_between(n, s, tiles) for n, s in zip(gray.shape, size, strict=True))
    seen, down = levels[: gray.shape[0], : gray.shape[1]], down[:, None]
    above = (1 - across) * curves[top[:, None], left, seen] + across * curves[top[:, None], right, seen]
    below = (1 - across) * curves[bottom[:, None], left, seen] + across * curves[bottom[:, None], right, seen]
    return np.clip((1 - down) * above + down * below, 0, 1)


def _between(n: int, size: int, tiles: int) -> tuple[Array, Array, Array]:
    """Return for each of n cells the tiles whose centers it lies between, and how far it is on the way."""
    at = np.clip((np.arange(n) + 0.5) / size - 0.5, 0, tiles - 1)
    first = at.astype(np.int64)
    return first, np.minimum(first + 1, tiles - 1), at - first
