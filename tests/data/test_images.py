"""Decoding: every mode and orientation, and a reason for every file that cannot be read."""

from __future__ import annotations

import io
import os
import warnings

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pellucid.data.images import UnreadableImage, open_image, printable, to_array
from pellucid.errors import DataError, OptionError

UPRIGHT = np.random.default_rng(0).integers(0, 256, (5, 3, 3)).astype(np.uint8)
# EXIF's own words: which visual side the first stored row and the first stored column are.
STORED = {
    1: lambda u: u,
    2: lambda u: u[:, ::-1],
    3: lambda u: u[::-1, ::-1],
    4: lambda u: u[::-1],
    5: lambda u: u.swapaxes(0, 1),
    6: lambda u: u[:, ::-1].swapaxes(0, 1),
    7: lambda u: u[::-1, ::-1].swapaxes(0, 1),
    8: lambda u: u[::-1].swapaxes(0, 1),
}


def tagged(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.capability("H7")
@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_applied(tmp_path, orientation):
    path = tmp_path / "photo.png"
    Image.fromarray(np.ascontiguousarray(STORED[orientation](UPRIGHT))).save(path, exif=tagged(orientation))
    image = open_image(path)
    assert np.array_equal(np.asarray(image), UPRIGHT)
    # Opened again, it is not turned once more.
    assert np.array_equal(np.asarray(open_image(image)), UPRIGHT)


@pytest.mark.capability("H7")
@pytest.mark.parametrize("orientation", STORED)
def test_orientation_of_a_jpeg(tmp_path, orientation):
    upright = np.zeros((32, 16), dtype=np.uint8)
    upright[:16, :8] = 255
    path = tmp_path / "photo.jpg"
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    stored.save(path, exif=tagged(orientation), quality=95)
    assert np.abs(np.asarray(open_image(path)).astype(int) - upright).max() < 30


def test_an_unknown_orientation_and_broken_metadata_are_no_reason_to_refuse(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.fromarray(UPRIGHT).save(path, exif=tagged(77))
    assert open_image(path).size == (3, 5)
    Image.fromarray(UPRIGHT).save(path, exif=b"Exif\0\0MM\0*broken")
    assert open_image(path).size == (3, 5)


CLEAR = [
    ("RGBA", (10, 20, 30, 0), "RGB", (255, 255, 255)),
    ("RGBA", (0, 0, 0, 51), "RGB", (204, 204, 204)),
    ("LA", (0, 51), "L", 204),
    ("La", (0, 51), "L", 204),
    ("RGBa", (0, 0, 0, 0), "RGB", (255, 255, 255)),
    ("PA", (0, 0), "L", 255),
    ("CMYK", (0, 255, 255, 0), "RGB", (255, 0, 0)),
    ("YCbCr", (128, 128, 128), "RGB", (128, 128, 128)),
    ("1", 1, "L", 255),
    ("L", 77, "L", 77),
    ("I;16", 65535, "L", 255),
    ("I;16", 257 * 100, "L", 100),
    ("I", 257 * 3 + 128, "L", 3),
    ("I", 70000, "L", 255),
    ("I", -5, "L", 0),
    ("F", 0.5, "L", 128),
    ("F", 200.4, "L", 200),
    ("F", -1.0, "L", 0),
]


@pytest.mark.capability("H7")
@pytest.mark.parametrize(("mode", "value", "result", "expected"), CLEAR)
def test_every_mode_becomes_plain(mode, value, result, expected):
    image = open_image(Image.new(mode, (2, 2), value))
    assert (image.mode, image.getpixel((1, 1))) == (result, expected)


@pytest.mark.capability("H7")
def test_white_figures_on_nothing_are_laid_on_black():
    """As sketch pads give them; on white there would be nothing to be seen."""
    image = Image.new("RGBA", (4, 3))
    assert np.array_equal(open_image(image), np.full((3, 4, 3), 255))
    image.putpixel((1, 2), (255, 255, 255, 102))
    expected = np.zeros((3, 4, 3))
    expected[2, 1] = 102
    assert np.array_equal(open_image(image), expected)
    image.putpixel((0, 0), (255, 255, 120, 255))  # seen on white, as H7 wants it
    assert np.asarray(open_image(image))[1, 1].tolist() == [255, 255, 255]


@pytest.mark.capability("H7")
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16"])
def test_a_transparent_color_is_white(tmp_path, mode):
    path = tmp_path / "clear.png"
    transparency = (0, 0, 0) if mode == "RGB" else 0
    Image.new(mode, (2, 2)).save(path, transparency=transparency)
    assert np.asarray(open_image(path)).min() == 255


@pytest.mark.capability("H7")
def test_16_bit_png(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16)).save(path)
    assert np.asarray(open_image(path)).tolist() == [[0, 1, 255]]


@pytest.mark.capability("H7")
def test_cmyk_jpeg(tmp_path):
    path = tmp_path / "print.jpg"
    Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK").save(path, quality=95)
    red, green, blue = open_image(path).getpixel((8, 8))
    assert red > 230
    assert max(green, blue) < 40


def test_first_frame_of_a_gif(tmp_path):
    path = tmp_path / "film.gif"
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert open_image(path).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp"])
def test_a_gray_palette_is_gray(tmp_path, suffix):
    path = tmp_path / f"gray.{suffix}"
    Image.new("L", (4, 4), 60).convert("P").save(path)
    assert (open_image(path).mode, open_image(path).getpixel((0, 0))) == ("L", 60)


def test_content_counts_not_the_name(tmp_path):
    path = tmp_path / "really_png.jpg"
    Image.new("RGB", (2, 3)).save(path, "PNG")
    assert open_image(str(path)).size == (2, 3)


def saved(format_, **options):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3)).astype(np.uint8)).save(
        buffer, format_, **options
    )
    return buffer.getvalue()


REASONS = {
    "empty.jpg": (b"", "the file is empty"),
    "notes.jpg": (b"milk, bread\n", "a text file, not an image"),
    "half.jpg": (saved("JPEG")[:900], "truncated"),
    "half.png": (saved("PNG")[:2000], "truncated"),
    "half.bmp": (saved("BMP")[:2000], "truncated"),
    "half.gif": (saved("GIF")[:900], "truncated|damaged"),
    "start.png": (saved("PNG")[:12], "damaged or truncated|damaged"),
    "start.jpg": (saved("JPEG")[:3], "damaged or truncated"),
    "web.webp": (saved("WEBP"), "WebP files are not supported; save it as PNG or JPEG"),
    "scan.jpg": (saved("TIFF"), "TIFF files are not supported"),
    "paper.png": (b"%PDF-1.7\n", "PDF files are not supported"),
    "noise.png": (bytes(range(256)), "not an image"),
}


@pytest.mark.capability("H7")
@pytest.mark.parametrize("name", REASONS)
def test_unreadable_files_have_a_reason(tmp_path, name):
    data, reason = REASONS[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match=rf"^cannot read image .*{name}: .*({reason})") as caught:
        open_image(path)
    assert "\n" not in str(caught.value)
    assert name not in caught.value.reason


def flipped(data, position):
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "GIF", "BMP"])
def test_damage_anywhere_is_an_image_or_a_data_error(tmp_path, format_):
    data = saved(format_)
    path = tmp_path / "damaged"
    outcomes = set()
    for position in range(0, len(data), max(1, len(data) // 120)):
        path.write_bytes(flipped(data, position))
        try:
            outcomes.add(open_image(path).mode)
        except DataError:
            outcomes.add("refused")
    assert outcomes <= {"L", "RGB", "refused"}


def test_what_is_no_file(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        open_image(tmp_path / "gone.png")
    with pytest.raises(DataError, match="it is a folder, not an image"):
        open_image(tmp_path)
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match="a link to a file that is not there"):
        open_image(tmp_path / "link.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="not a regular file"):
        open_image(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="must be a path or a PIL image, got int"):
        open_image(3)


@pytest.mark.capability("H7")
def test_the_pixel_limit_comes_before_decoding(tmp_path):
    path = tmp_path / "wide.png"
    Image.new("1", (300, 200)).save(path)
    with pytest.raises(DataError, match="200x300 is more than 50000 pixels; make it smaller"):
        open_image(path, max_pixels=50_000)
    with pytest.raises(DataError, match="more than 50000 pixels"):
        open_image(Image.new("L", (300, 200)), max_pixels=50_000)


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_bomb_is_refused_without_a_warning(tmp_path, side):
    # A header that declares side x side pixels; PIL itself warns of the first and raises at the second.
    stream = io.BytesIO()
    stream.write(b"\x89PNG\r\n\x1a\n")
    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    PngImagePlugin.putchunk(stream, b"IHDR", header)
    PngImagePlugin.putchunk(stream, b"IDAT", b"x")
    path = tmp_path / "bomb.png"
    path.write_bytes(stream.getvalue())
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(DataError, match="more than 50000000 pixels"):
            open_image(path)
    assert not seen


def test_floats_that_are_no_numbers():
    with pytest.raises(DataError, match="it holds NaN or infinity"):
        open_image(Image.new("F", (2, 2), float("nan")))


def test_to_array():
    gray, color = Image.new("L", (4, 2), 9), Image.fromarray(UPRIGHT)
    assert to_array(gray, None, 1).shape == (1, 2, 4)
    assert to_array(gray, None, 3).tolist() == np.full((3, 2, 4), 9).tolist()
    assert np.array_equal(to_array(color, None, 3), UPRIGHT.transpose(2, 0, 1))
    small = to_array(color, (2, 6), 3)
    assert (small.shape, small.dtype) == ((3, 2, 6), np.uint8)
    assert small.flags.c_contiguous
    assert small.flags.writeable


def test_resizing_is_antialiased():
    stripes = Image.fromarray(np.tile(np.array([0, 255], dtype=np.uint8), (64, 32)))
    values = to_array(stripes, (8, 8), 1)[0, 2:-2, 2:-2]
    assert np.abs(values.astype(int) - 127).max() <= 2


def test_the_given_image_is_left_as_it_is():
    image = Image.new("RGBA", (2, 2))
    result = open_image(image)
    result.putpixel((0, 0), (1, 2, 3))
    assert image.mode == "RGBA"
    assert image.getpixel((0, 0)) == (0, 0, 0, 0)


def test_names_that_are_no_text_can_be_shown():
    assert printable(os.fsdecode(b"caf\xe9.png")) == "caf\ufffd.png"


@pytest.mark.capability("H7")
def test_the_pixel_limit_is_a_setting(monkeypatch):
    monkeypatch.setenv("PELLUCID_MAX_PIXELS", "100")
    assert open_image(Image.new("L", (10, 10))).size == (10, 10)
    with pytest.raises(DataError, match="10x11 is more than 100 pixels; make it smaller, or set PELLUCID_MAX_PIXELS"):
        open_image(Image.new("L", (11, 10)))
    for wrong in ("0", "-1", "many", "1e6", "178956971", "9" * 5000):
        monkeypatch.setenv("PELLUCID_MAX_PIXELS", wrong)
        with pytest.raises(OptionError, match="PELLUCID_MAX_PIXELS must be a number of pixels from 1 to 178956970"):
            open_image(Image.new("L", (1, 1)))


def test_a_user_that_is_not_there_is_no_home(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        open_image("~nobody-of-that-name/a.png")
