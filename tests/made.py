"""Files that the tests make themselves."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
from PIL import Image

# MNIST's, in the order of idx_files; spelled out here, so that a wrong name in the package does not pass.
IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


RUN_FILES = {
    "config.toml",
    "splits.json",
    "model.safetensors",
    "last.ckpt",
    "history.jsonl",
    "metrics.json",
    "curves.png",
    "confusion.png",
    "samples.png",
    "report.html",
}
"""What a run directory of a classifier holds."""


def without_compiling(stderr: str) -> str:
    """Stderr without what is said where kernels are compiled, which happens once on a machine."""
    return re.sub(r"^compiling \d+ kernels \(once on this machine\)\n", "", stderr, flags=re.MULTILINE)


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX file of an array."""
    code = CODES[array.dtype.str[1:]]
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def idx_files(train: int = 40, test: int = 20, size: int = 6, classes: int = 2) -> dict[str, bytes]:
    """The four files of a small set, not compressed, by their standard names."""
    rng = np.random.default_rng(0)
    arrays = []
    for n in (train, test):
        arrays.append(rng.integers(0, 256, (n, size, size)).astype(np.uint8))
        arrays.append((np.arange(n) % classes).astype(np.uint8))
    return dict(zip(IDX_NAMES, map(idx_bytes, arrays), strict=True))


def picture(path: Path, seed: int, size: tuple[int, int] = (8, 8), mode: str = "RGB", **options) -> Path:
    """Write a random picture of (H, W)."""
    shape = size if mode == "L" else (*size, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path
