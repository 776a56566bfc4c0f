"""Image files and pictures to plain 8-bit images. The only place where image files are decoded."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pellucid._types import Array
from pellucid.errors import DataError, OptionError, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

Source: TypeAlias = "str | os.PathLike[str] | Image"

FORMATS = ("PNG", "JPEG", "BMP", "GIF")
MAX_PIXELS = 50_000_000
"""Of a picture, unless the environment variable PELLUCID_MAX_PIXELS says otherwise."""
_VARIABLE = "PELLUCID_MAX_PIXELS"
# Beyond, PIL itself refuses.
_MOST_PIXELS = 178_956_970
_ORIENTATION = 0x0112
_GRAY_MODES = {"1", "L", "LA", "La", "I", "F"}
# What a file begins with, for files that are not read: (offset, bytes, name).
_OTHERS = (
    (8, b"WEBP", "WebP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"PK\x03\x04", "zip"),
)
_OWN = (b"\x89PNG", b"\xff\xd8", b"GIF8")


class UnreadableImage(DataError):
    """A picture that cannot be used; reason says why without naming it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot read image {name}: {reason}")
        self.reason = reason


def printable(path: str | os.PathLike[str]) -> str:
    """Return a path as text that every terminal and JSON file can hold, with / between folders.

    >>> printable(Path("cat") / "1.png")
    'cat/1.png'
    """
    return Path(path).as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def open_image(source: Source, max_pixels: int | None = None) -> Image:
    """Return a picture as it is meant to be seen: upright, on white, 8 bits a channel, mode "L" or "RGB".

    Files are recognized by their content, whatever they are called: PNG, JPEG, BMP and GIF (its first frame).
    The EXIF orientation is applied, transparency is laid on white (on black where that leaves nothing to be seen), CMYK
    and palettes become RGB; a palette of grays becomes "L". 16-bit grays (modes "I;16" and "I") are divided by 257, so
    that 65535 becomes 255.
    Floats (mode "F") are multiplied by 255 where none is above 1, and otherwise taken as 0 to 255 and clipped.

    Args:
        source: A file, or a PIL image, which is left as it is.
        max_pixels: Larger pictures are refused before they are decoded; if None, PELLUCID_MAX_PIXELS or 50 million.

    Raises:
        DataError: Where there is no such picture, with the reason.
        OptionError: For a PELLUCID_MAX_PIXELS that is no number of pixels.

    >>> from PIL import Image
    >>> open_image(Image.new("RGBA", (3, 2), (0, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    with _opened(source, _max_pixels() if max_pixels is None else max_pixels) as image:
        turned = _upright(_plain(image), _orientation(image))
        # A tag left behind would turn the picture once more when it is opened again.
        turned.info.clear()
        return turned


def to_array(image: Image, size: tuple[int, int] | None, channels: int) -> Array:
    """Return a picture as an array: uint8, shape (channels, H, W).

    Args:
        image: What open_image returned.
        size: (H, W) to which it is resized, bilinear and antialiased; None keeps its own.
        channels: 1 for gray, 3 for color.

    >>> from PIL import Image
    >>> to_array(Image.new("L", (4, 6), 200), (2, 2), 3).tolist()[0]
    [[200, 200], [200, 200]]
    """
    from PIL import Image as pil

    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], pil.Resampling.BILINEAR)
    array = np.array(image, dtype=np.uint8)
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _max_pixels() -> int:
    asked = os.environ.get(_VARIABLE, "").strip()
    if not asked:
        return MAX_PIXELS
    if not (asked.isdecimal() and len(asked) < 10 and 1 <= int(asked) <= _MOST_PIXELS):
        raise OptionError(f"{_VARIABLE} must be a number of pixels from 1 to {_MOST_PIXELS}, got {asked!r:.40}")
    return int(asked)


@contextmanager
def _opened(source: Source, max_pixels: int) -> Iterator[Image]:
    from PIL import Image as pil
    from PIL import UnidentifiedImageError

    if isinstance(source, pil.Image):
        name, path = "(a PIL image)", None
    elif isinstance(source, (str, os.PathLike)):
        name, path = printable(source), Path(os.path.expanduser(source))
    else:
        raise DataError(f"an image must be a path or a PIL image, got {type(source).__name__}")
    with warnings.catch_warnings():
        # PIL warns of large pictures and odd metadata; the pixel limit and the decoder are the judges here.
        warnings.simplefilter("ignore")
        try:
            if path is None:
                _check_size(source.size, max_pixels)  # type: ignore[union-attr]
                yield source  # type: ignore[misc]
                return
            _check_file(path)
            with pil.open(path, formats=FORMATS) as image:
                _check_size(image.size, max_pixels)
                yield image
        except _Reason as reason:
            raise UnreadableImage(name, str(reason)) from None
        except UnidentifiedImageError:
            raise UnreadableImage(name, _what_it_is(path)) from None
        except pil.DecompressionBombError:
            raise UnreadableImage(name, f"more than {max_pixels} pixels; make it smaller") from None
        except MemoryError:
            raise UnreadableImage(name, "it does not fit into memory; make it smaller") from None
        # PIL's parsers raise whatever they stumble over: OSError, SyntaxError, struct.error, IndexError, ...
        except Exception as error:
            raise UnreadableImage(name, _why(error)) from None


class _Reason(Exception):
    """Why a picture cannot be used."""


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    if min(size) < 1:
        raise _Reason(f"it has no pixels ({size[1]}x{size[0]})")
    if size[0] * size[1] > max_pixels:
        raise _Reason(f"{size[1]}x{size[0]} is more than {max_pixels} pixels; make it smaller, or set {_VARIABLE}")


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise _Reason("it is a folder, not an image")
    if not path.exists():
        raise _Reason("a link to a file that is not there" if path.is_symlink() else "there is no such file")
    if not path.is_file():
        raise _Reason("it is not a regular file")
    if not path.stat().st_size:
        raise _Reason("the file is empty; copy it again")


def _why(error: Exception) -> str:
    text = str(error)
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if any(word in text.lower() for word in ("truncated", "not enough", "incomplete", "premature")):
        return "truncated, the file ends too early; copy it again"
    return f"damaged ({one_line(' '.join(text.split())) or type(error).__name__}); copy it again"


def _what_it_is(path: Path | None) -> str:
    """Say what a file is that PIL did not recognize."""
    if path is None:
        return "not an image"
    with path.open("rb") as file:
        head = file.read(512)
    for offset, signature, name in _OTHERS:
        if head[offset : offset + len(signature)] == signature:
            return f"{name} files are not supported; save it as PNG or JPEG"
    if head.startswith(_OWN):
        return "damaged or truncated at its beginning; copy it again"
    if not any(byte < 9 or 13 < byte < 32 for byte in head):
        return "a text file, not an image; images are PNG, JPEG, BMP or GIF"
    return "not an image; images are PNG, JPEG, BMP or GIF"


def _orientation(image: Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return value if value in range(1, 9) else 1
    # A camera's broken metadata is no reason to refuse its picture.
    except Exception:
        return 1


def _upright(image: Image, orientation: int) -> Image:
    from PIL.Image import Transpose as t

    turn = {
        2: t.FLIP_LEFT_RIGHT,
        3: t.ROTATE_180,
        4: t.FLIP_TOP_BOTTOM,
        5: t.TRANSPOSE,
        6: t.ROTATE_270,
        7: t.TRANSVERSE,
        8: t.ROTATE_90,
    }.get(orientation)
    return image if turn is None else image.transpose(turn)


def _is_gray(image: Image) -> bool:
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in _GRAY_MODES or image.mode.startswith("I;16")


def _plain(image: Image) -> Image:
    """Return a new picture in mode "L" or "RGB"."""
    from PIL import Image as pil

    image.load()
    mode = "L" if _is_gray(image) else "RGB"
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return pil.fromarray(_to_bytes(image))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = pil.new("RGBA", image.size, "white")
        laid = pil.alpha_composite(white, rgba).convert("RGB")
        if laid.convert("L").getextrema() == (255, 255) and rgba.getchannel("A").getbbox() is not None:
            # White on nothing, as from a sketch pad.
            laid = pil.alpha_composite(pil.new("RGBA", image.size, "black"), rgba).convert("RGB")
        return laid.convert(mode)
    if mode == "L" and image.mode == "P":
        return image.convert("RGB").convert("L")
    return image.convert(mode)


def _to_bytes(image: Image) -> Array:
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise _Reason("it holds NaN or infinity")
    if image.mode == "F":
        scaled = values * 255 if values.max() <= 1 else values
    else:
        scaled = values / 257
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            scaled[values == clear] = 255
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
