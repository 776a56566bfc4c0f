"""From files and arrays to a Dataset: sources, checks, splits, augmentation."""

from pellucid.data.augment import Augmentation
from pellucid.data.check import CheckReport, check
from pellucid.data.dataset import Dataset, Skipped, Splits, from_arrays, random_images
from pellucid.data.fetching import fetch
from pellucid.data.folder import load_folder
from pellucid.data.idx import load_idx_folder, read_idx
from pellucid.data.images import open_image, to_array
from pellucid.data.loader import Loader
from pellucid.data.npz import load_npz
from pellucid.data.preparation import DigitPreparation, Prepared
from pellucid.data.sources import describe, load
from pellucid.data.splits import split

__all__ = [
    "Augmentation",
    "CheckReport",
    "Dataset",
    "DigitPreparation",
    "Loader",
    "Prepared",
    "Skipped",
    "Splits",
    "check",
    "describe",
    "fetch",
    "from_arrays",
    "load",
    "load_folder",
    "load_idx_folder",
    "load_npz",
    "open_image",
    "random_images",
    "read_idx",
    "split",
    "to_array",
]
