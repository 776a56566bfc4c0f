"""Photos of handwritten digits, made from the images of a data set: paper, light, pen and camera are drawn.

Each kind has one disturbance (KINDS), "combined" three or four of them. A phone's frame has 1200 x 900 pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

FRAME = (900, 1200)
_BLACK, _BLUE, _RED = (45, 42, 50), (40, 62, 150), (190, 40, 45)


@dataclass(frozen=True)
class Scene:
    """What is drawn; each kind of photo changes something.

    Args:
        height: Of the figure, as a share of the frame's shorter side.
        place: Of the figure's center, as shares of height and width; anywhere in the middle if None.
        pen: Pixels by which strokes grow (or shrink), for a figure of 20 pixels.
        ink: Color.
        chalk: White on a dark board.
        close: Room on each side to which the photo is cropped, as a share of the figure's longer side.
    """

    height: tuple[float, float] = (0.3, 0.7)
    place: tuple[float, float] | None = None
    pen: float = 0.0
    ink: tuple[int, int, int] = _BLACK
    chalk: bool = False
    gradient: bool = False
    vignette: bool = False
    shadow: bool = False
    table: bool = False
    lined: bool = False
    squared: bool = False
    texture: bool = False
    specks: bool = False
    noise: float = 4.0
    perspective: float = 0.0
    blur: float = 1.0
    close: float | None = None
    turned: bool = False
    quality: int = 90


Change = Callable[[np.random.Generator], dict[str, object]]

KINDS: dict[str, Change] = {
    "plain": lambda rng: {},
    "inverted": lambda rng: {"chalk": True},
    "gradient": lambda rng: {"gradient": True},
    "vignette": lambda rng: {"vignette": True},
    "shadow": lambda rng: {"shadow": True},
    "table edge": lambda rng: {"table": True},
    "lined": lambda rng: {"lined": True},
    "squared": lambda rng: {"squared": True},
    "textured": lambda rng: {"texture": True},
    "specks": lambda rng: {"specks": True},
    "noisy": lambda rng: {"noise": rng.uniform(15, 30)},
    "blurred": lambda rng: {"blur": rng.uniform(3, 6)},
    "perspective": lambda rng: {"perspective": 0.25},
    "small": lambda rng: {"height": (0.07, 0.12), "place": tuple(rng.uniform(0.15, 0.85, 2))},
    "near an edge": lambda rng: {
        "height": (0.2, 0.4),
        "place": tuple(rng.permutation([rng.choice([0.0, 1.0]), rng.uniform()])),
    },
    "cropped close": lambda rng: {"close": rng.uniform(0.03, 0.1)},
    "turned by EXIF": lambda rng: {"turned": True},
    "thin pen": lambda rng: {"pen": -rng.uniform(0.7, 1.3)},
    "thick pen": lambda rng: {"pen": rng.uniform(0.5, 0.9)},
    "pencil": lambda rng: {"ink": (int(rng.uniform(115, 140)),) * 3},
    "blue ink": lambda rng: {"ink": _BLUE},
    "red ink": lambda rng: {"ink": _RED},
    "JPEG 30%": lambda rng: {"quality": 30},
}
COMBINED = "combined"


def scene(kind: str, rng: np.random.Generator) -> Scene:
    """Draw a scene of a kind."""
    kinds = [kind]
    if kind == COMBINED:
        kinds = list(rng.choice([name for name in KINDS if name != "plain"], rng.integers(3, 5), replace=False))
    drawn = Scene()
    for name in kinds:
        drawn = replace(drawn, **KINDS[name](rng))  # type: ignore[arg-type]
    return drawn


def photo(digit: np.ndarray, kind: str, rng: np.random.Generator, frame: tuple[int, int] = FRAME) -> bytes:
    """The JPEG file of a photo of a digit: (28, 28), light on dark, 0 to 255."""
    drawn = scene(kind, rng)
    size = frame if rng.uniform() < 0.7 else frame[::-1]
    alpha = _place(_stroke(digit / 255.0, drawn, min(size), rng), drawn, size, rng)
    if drawn.close is not None:
        alpha = _cropped(alpha, drawn.close)
    return shoot(alpha, drawn, rng)


def shoot(alpha: np.ndarray, drawn: Scene, rng: np.random.Generator) -> bytes:
    """The JPEG file of a scene with what is drawn in ink: (H, W), 0 to 1."""
    size = alpha.shape
    if drawn.perspective:
        alpha = _warped(alpha, drawn.perspective, rng)
    board = (
        np.array([50, 58, 52]) + rng.uniform(-15, 15) if drawn.chalk else rng.uniform(205, 245) - rng.uniform(0, 14, 3)
    )
    ink = np.array([225, 225, 220]) if drawn.chalk else np.array(drawn.ink)
    picture = np.broadcast_to(board.astype(np.float32), (*size, 3)).copy()
    if drawn.texture:
        grain = sum(_smooth(rng, size, s) * w for s, w in ((1.5, 9.0), (6, 6.0), (40, 7.0)))
        picture += grain[..., None]
    rules = np.array(rng.choice([[150, 175, 215], [110, 140, 200], [150, 150, 155], [200, 130, 140]]), dtype=np.float32)
    if drawn.lined or drawn.squared:
        lines = _lines(size, drawn.squared, rng)[..., None]
        picture += lines * (rules - picture)
    pressure = 1.0 - 0.12 * np.abs(_smooth(rng, size, 8))[..., None]
    if drawn.specks:
        alpha = np.maximum(alpha, _specks(size, rng))
    picture += np.clip(alpha[..., None] * pressure, 0, 1) * (ink - picture)
    if drawn.table:
        picture = _on_table(picture, rng)
    picture *= _light(drawn, size, rng)[..., None]
    blurred = ndimage.gaussian_filter(picture, (drawn.blur, drawn.blur, 0), truncate=2.5)
    grain = drawn.noise * rng.standard_normal(size, dtype=np.float32)
    for channel in range(3):  # half of the noise is each channel's own
        blurred[..., channel] += grain + 0.5 * np.roll(grain, 7 * (channel + 1), axis=1)
    image = Image.fromarray(np.clip(blurred, 0, 255).astype(np.uint8))
    exif = Image.Exif()
    if drawn.turned:
        how = [(Image.Transpose.ROTATE_180, 3), (Image.Transpose.ROTATE_90, 6), (Image.Transpose.ROTATE_270, 8)]
        turn, tag = how[rng.integers(3)]
        image, exif[0x0112] = image.transpose(turn), tag
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=drawn.quality, exif=exif)
    return buffer.getvalue()


def letter(character: str, font: Path, kind: str, rng: np.random.Generator) -> bytes:
    """The JPEG file of a photo of a letter (or word) in a font."""
    drawn = scene(kind, rng)
    pixels = int(rng.uniform(0.35, 0.6) * FRAME[0])
    face = ImageFont.truetype(str(font), pixels)
    sheet = Image.new("L", FRAME[::-1])
    ImageDraw.Draw(sheet).text((FRAME[1] / 2, FRAME[0] / 2), character, 255, face, anchor="mm")
    return shoot(np.asarray(sheet, dtype=np.float32) / 255, drawn, rng)


def _stroke(unit: np.ndarray, drawn: Scene, short: int, rng: np.random.Generator) -> np.ndarray:
    """Ink of the figure alone, at the size that it has in the photo."""
    rows, columns = np.flatnonzero(unit.max(1) > 0.3), np.flatnonzero(unit.max(0) > 0.3)
    around = np.pad(unit, 3)[rows[0] : rows[-1] + 7, columns[0] : columns[-1] + 7]
    height = rng.uniform(*drawn.height) * short
    factor = height / 20
    large = np.asarray(
        Image.fromarray(around.astype(np.float32)).resize(
            (int(around.shape[1] * factor), int(around.shape[0] * factor)), Image.Resampling.BICUBIC
        )
    )
    inside = large > 0.5
    if not inside.any():
        inside = large > large.max() / 2
    depth = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    grow = drawn.pen * factor
    if grow < 0:  # a thin pen leaves a line everywhere
        grow = max(grow, -0.8 * np.percentile(depth[inside], 60))
        ridge = (depth >= ndimage.maximum_filter(depth, 3)) & inside
        depth = np.maximum(depth + grow, 1.5 - ndimage.distance_transform_edt(~ridge))
    else:
        depth = depth + grow
    return np.clip(depth + 0.5, 0, 1).astype(np.float32)


def _place(figure: np.ndarray, drawn: Scene, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    place = drawn.place or tuple(rng.uniform(0.35, 0.65, 2))
    used = [np.flatnonzero(figure.max(1 - axis) > 0) for axis in (0, 1)]
    figure = figure[used[0][0] : used[0][-1] + 1, used[1][0] : used[1][-1] + 1]
    corner = []
    for share, room, extent in zip(place, size, figure.shape, strict=True):
        margin = 0.012 * room
        corner.append(int(np.clip(share * room - extent / 2, margin, room - extent - margin)))
    alpha = np.zeros(size, dtype=np.float32)
    alpha[corner[0] : corner[0] + figure.shape[0], corner[1] : corner[1] + figure.shape[1]] = figure
    return alpha


def _cropped(alpha: np.ndarray, room: float) -> np.ndarray:
    rows, columns = np.flatnonzero(alpha.max(1) > 0.5), np.flatnonzero(alpha.max(0) > 0.5)
    margin = int(room * max(np.ptp(rows), np.ptp(columns)))
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    return alpha[top : rows[-1] + margin + 1, left : columns[-1] + margin + 1]


def _warped(alpha: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """As if the camera looked from aside: about the frame's middle, so that the figure stays inside."""
    height, width = alpha.shape
    g, h = rng.uniform(-strength, strength, 2) / np.array([width, height])
    shear = rng.uniform(-0.15, 0.15)
    cx, cy = width / 2, height / 2
    to, back = np.array([[1, 0, cx], [0, 1, cy], [0, 0, 1]]), np.array([[1, 0, -cx], [0, 1, -cy], [0, 0, 1]])
    m = to @ np.array([[1, shear, 0], [0, 1, 0], [g, h, 1]]) @ back
    m /= m[2, 2]
    image = Image.fromarray(alpha)
    data = m.ravel()[:8].tolist()
    return np.asarray(image.transform(image.size, Image.Transform.PERSPECTIVE, data, Image.Resampling.BILINEAR))


def _smooth(rng: np.random.Generator, size: tuple[int, int], scale: float) -> np.ndarray:
    """Noise of mean 0 and deviation 1 that is as coarse as scale pixels."""
    small = rng.standard_normal((int(size[0] / scale) + 3, int(size[1] / scale) + 3), dtype=np.float32)
    image = Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(image) / 0.75


def _lines(size: tuple[int, int], squared: bool, rng: np.random.Generator) -> np.ndarray:
    """Rules, or squares, a little askew."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    angle, step, width = np.radians(rng.uniform(-4, 4)), rng.uniform(30, 110), rng.uniform(1.2, 4)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    ink = np.zeros(size, dtype=np.float32)
    for axis in (across, along) if squared else (across,):
        from_rule = np.abs((axis + rng.uniform(0, step)) % step - step / 2)
        ink = np.maximum(ink, np.clip(width / 2 + 0.5 - from_rule, 0, 1))
    return ink * rng.uniform(0.6, 1.0)


def _specks(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Dirt: a few dots and hairs."""
    sheet = Image.new("L", size[::-1])
    draw = ImageDraw.Draw(sheet)
    for _ in range(rng.integers(3, 9)):
        x, y, r = rng.uniform(0, size[1]), rng.uniform(0, size[0]), rng.uniform(2, 7)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=int(rng.uniform(120, 255)))
        draw.arc((x, y, x + 9 * r, y + 12 * r), 0, rng.uniform(30, 120), fill=int(rng.uniform(60, 200)), width=2)
    return np.asarray(sheet, dtype=np.float32) / 255


def _light(drawn: Scene, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    y, x = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]), indexing="ij")
    light = np.ones(size)
    angle = rng.uniform(0, 2 * np.pi)
    if drawn.gradient:
        light *= 0.675 + 0.325 * (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2)
    if drawn.vignette:
        light *= 1 - 0.35 * (x**2 + y**2)
    if drawn.shadow:
        offset, softness = rng.uniform(-0.4, 0.4), rng.uniform(0.03, 0.3)
        bend = 0.2 * np.sin(3 * (x * np.sin(angle) - y * np.cos(angle)) + angle)
        side = (x * np.cos(angle) + y * np.sin(angle) + bend - offset) / softness
        light *= 1 - rng.uniform(0.25, 0.5) / (1 + np.exp(-side))
    return light.astype(np.float32)


def _on_table(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The paper ends, and a strip of the table shows."""
    height, width, _ = picture.shape
    share, slope = rng.uniform(0.03, 0.13), rng.uniform(-0.05, 0.05)
    y, x = np.mgrid[:height, :width]
    edge = x - share * width - slope * y
    if rng.uniform() < 0.5:
        edge = y - share * height - slope * x
    wood = np.array([95, 62, 40]) * rng.uniform(0.6, 1.5)
    over = edge < 0
    if rng.uniform() < 0.5:
        over = over[::-1, ::-1]
    return np.where(over[..., None], wood + 6 * _smooth(rng, (height, width), 5)[..., None], picture).astype(np.float32)


def texture(rng: np.random.Generator) -> bytes:
    """The JPEG file of a photo of cloth, wood or plaster: no figure at all."""
    size = FRAME
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    kind = rng.integers(3)
    angle, period = rng.uniform(0, np.pi), rng.uniform(8, 120)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle) + 20 * _smooth(rng, size, 60)) * 2 * np.pi / period)
    if kind == 0:
        gray = 128 + 60 * wave + 10 * _smooth(rng, size, 3)
    elif kind == 1:
        gray = 128 + 45 * _smooth(rng, size, rng.uniform(3, 80)) + 20 * _smooth(rng, size, rng.uniform(2, 20))
    else:
        across = np.sin((y * np.cos(angle) - x * np.sin(angle)) * 2 * np.pi / period)
        gray = 128 + 50 * np.sign(wave) * np.sign(across) + 15 * _smooth(rng, size, 4)
    tint = rng.uniform(0.7, 1.1, 3)
    image = Image.fromarray(np.clip(gray[..., None] * tint, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def blank(kind: str, rng: np.random.Generator) -> bytes:
    """The JPEG file of a photo of empty paper."""
    return shoot(np.zeros(FRAME, dtype=np.float32), scene(kind, rng), rng)
