"""last.ckpt: whole at every moment, on every disk; and read as strictly as a model."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest

import pellucid as pl
from made import without_compiling
from pellucid.errors import FileError, OptionError
from pellucid.files import is_temporary, read_bytes, write_atomic
from pellucid.interop.sealed import pack, unpack
from pellucid.training import Callback
from pellucid.training.run_directory import RunDirectory
from saver import DISK, Saver

NO_STRACE = "strace is not here, or may not trace"

pytestmark = pytest.mark.capability("H14")


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing takes a second; a picture is written as all files are, and a page that cannot be written is no error."""
    monkeypatch.setattr(
        "pellucid.report.plots.write_all", lambda folder, *what: write_atomic(folder / "curves.png", b"curves")
    )
    monkeypatch.setattr("pellucid.report.page.write", lambda *what: None)


class Disk:
    """Stands before the calls by which files come into a folder.

    Args:
        folder: Where.
        act: Called with the number of the call, from 1, before it; an OSError that it raises is the call's.
    """

    CALLS = ("mkdir", "open", "write", "fsync", "close", "replace")

    def __init__(self, monkeypatch, folder, act):
        self.folder, self.act, self.count, self._handles = folder, act, 0, set()
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name, call):
        def watched(target, *rest, **options):
            inside = target in self._handles if isinstance(target, int) else str(target).startswith(str(self.folder))
            if not inside:
                return call(target, *rest, **options)
            self.count += 1
            try:
                self.act(self.count)
            except OSError:
                if name == "write":
                    call(target, rest[0][: len(rest[0]) // 2])
                if name == "close":
                    call(target)
                raise
            result = call(target, *rest, **options)
            if name == "open":
                self._handles.add(result)
            elif name == "close":
                self._handles.remove(target)
            return result

        return watched


def train(plain, ds, out, **options):
    """Two epochs of six steps, five checkpoints each besides the first."""
    return pl.fit(
        plain(), ds, epochs=2, batch_size=8, engine="reference", progress=False, out=out, checkpoint_every=3, **options
    )


def content(folder):
    """All that is the same in two runs of the same kind."""
    names = {path.name for path in folder.iterdir()}
    return names, [(folder / name).read_bytes() for name in ("model.safetensors", "metrics.json", "splits.json")]


def finish(plain, ds, out):
    """Do what a user does after a crash."""
    return train(plain, ds, out, resume=(out / "last.ckpt").exists())


@pytest.fixture
def whole(plain, stripes, tmp_path):
    """What an undisturbed run leaves."""
    train(plain, stripes, tmp_path / "whole")
    return content(tmp_path / "whole")


def test_killed_at_each_call_of_a_run(plain, stripes, tmp_path, monkeypatch, whole):
    """What lies on the disk before each call is what a kill there leaves."""
    out = tmp_path / "run"

    def look(number):
        if out.exists():
            shutil.copytree(out, tmp_path / "killed" / str(number))

    with monkeypatch.context() as patch:
        disk = Disk(patch, out, look)
        train(plain, stripes, out)
    assert disk.count > 100
    steps = []
    for number in range(2, disk.count + 1):
        killed = tmp_path / "killed" / str(number)
        if (killed / "last.ckpt").exists():
            steps.append(RunDirectory(killed).read_checkpoint().training["step"])
        if (killed / "model.safetensors").exists():
            pl.load(killed)
        finish(plain, stripes, killed)
        assert content(killed) == whole, number
    assert steps == sorted(steps)
    assert set(steps) == {0, 3, 6, 9, 12}
    assert len(steps) > disk.count - 12, "from the first checkpoint on there always is one"


@pytest.mark.parametrize("times", [1, 10**6], ids=["once", "for good"])
def test_a_disk_that_is_full_at_each_call_of_a_run(plain, stripes, tmp_path, monkeypatch, whole, times):
    first, out = 0, tmp_path / "run"

    def refuse(number):
        if first <= number < first + times:
            raise OSError(28, "No space left on device")

    while True:
        first += 1
        shutil.rmtree(out, ignore_errors=True)
        with monkeypatch.context() as patch:
            disk = Disk(patch, out, refuse)
            try:
                train(plain, stripes, out)
            except FileError as error:
                message = str(error)
            else:
                assert disk.count == first - 1
                break
        resumable = (out / "last.ckpt").exists()
        hint = "; the run stops here, its last checkpoint is whole.*go on with --resume" if resumable else ""
        assert re.fullmatch(rf"cannot (write|make the folder) {out}\S*: No space left on device{hint}.*", message)
        if out.exists():
            assert not any(map(is_temporary, out.iterdir()))
        finish(plain, stripes, out)
        assert content(out) == whole, first
    assert first > 100


def test_a_run_that_cannot_be_saved_leaves_what_it_learned_in_the_network(plain, stripes, tmp_path, monkeypatch, whole):
    write, network = RunDirectory.write_checkpoint, plain()

    def refuse(self, checkpoint):
        if checkpoint.training["epoch"] == 2:
            raise FileError("cannot write it")
        write(self, checkpoint)

    monkeypatch.setattr(RunDirectory, "write_checkpoint", refuse)
    with pytest.raises(FileError, match="cannot write it; the run stops here"):
        train(lambda: network, stripes, tmp_path / "run")
    kept = pl.load(tmp_path / "whole").network
    assert not np.array_equal(kept.flat_parameters, plain().flat_parameters)
    assert np.array_equal(network.flat_parameters, kept.flat_parameters)


@pytest.fixture(scope="module")
def saver(tmp_path_factory):
    if shutil.which("strace") is None:
        pytest.skip(NO_STRACE)
    with Saver(tmp_path_factory.mktemp("saver")) as process:
        try:
            process.save()
        except OSError:
            pytest.skip(NO_STRACE)
        yield process


def test_killed_at_each_system_call_of_a_save(saver):
    epochs = []
    for call, code, _, epoch, left in saver.meddle("signal=KILL"):
        assert (code, left) == (-9, []), call
        epochs.append(epoch)
    assert set(epochs) == {1, 2}


@pytest.mark.parametrize(("error", "words"), [("ENOSPC", "No space left on device"), ("EIO", "Input/output error")])
def test_each_system_call_of_a_save_refused(saver, error, words):
    failed = []
    for call, code, message, epoch, left in saver.meddle(f"error={error}", DISK):
        assert left == [], call
        assert (code, epoch) == (0, 2) or (
            code == 1 and re.match(rf"cannot write {saver.run}/[\w.]+: {words}; the run stops here", message)
        ), call
        failed += [call.split()[0]] * code
    assert set(failed) == {"openat", "write", "fsync", "close", "rename"}


LIMIT = 500_000  # bytes; the first checkpoint of block_cnn has 433 000, the one after the first epoch 577 000


@pytest.mark.slow
@pytest.mark.capability("H34")
def test_a_file_that_may_not_grow_ends_the_command_in_one_line(tmp_path):
    command = [sys.executable, "-m", "pellucid", "train", "digits", "--subset", "100", "--epochs", "2", "--out"]

    def limit():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))

    subprocess.run([*command, tmp_path / "whole"], capture_output=True, check=True)
    out = tmp_path / "run"
    done = subprocess.run([*command, out], preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert without_compiling(done.stderr) == (
        f"error: cannot write {out}/last.ckpt: File too large; the run stops here, its last checkpoint is whole: "
        "once that is mended, go on with --resume (in Python resume=True)\n"
    )
    assert sorted(path.name for path in out.iterdir()) == ["config.toml", "history.jsonl", "last.ckpt", "splits.json"]
    subprocess.run([*command[:4], "--resume", "--out", out], capture_output=True, check=True)
    assert content(out) == content(tmp_path / "whole")


# Where it lies


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX systems")
def test_permissions_are_those_of_the_umask(plain, stripes, tmp_path):
    before = os.umask(0o027)
    try:
        train(plain, stripes, tmp_path / "run")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "run").iterdir()} == {0o640}


def test_leftovers_are_swept_at_the_next_start_and_nothing_else(plain, stripes, tmp_path, whole):
    left, other = ".last.ckpt.0123abcd.tmp", ".last.ckpt.swp"
    new, resumed, foreign = (tmp_path / name for name in ("new", "resumed", "foreign"))
    new.mkdir()
    (new / left).touch()
    train(plain, stripes, new)
    train(plain, stripes, resumed)
    for name in (left, other):
        (resumed / name).touch()
    train(plain, stripes, resumed, resume=True)
    (resumed / other).unlink()
    assert content(new) == content(resumed) == whole
    foreign.mkdir()
    for name in (left, other):
        (foreign / name).touch()
    with pytest.raises(FileError, match="foreign is not empty; give another folder"):
        train(plain, stripes, foreign)
    assert (foreign / left).exists()


# What it holds


class FailAt(Callback):
    """As if the power failed."""

    def __init__(self, step):
        self.step = step

    def on_batch_end(self, trainer, step, loss):
        if step + 1 == self.step:
            raise RuntimeError("power")


@pytest.fixture
def broken(plain, stripes, tmp_path):
    """A run that broke off in its second epoch."""
    with pytest.raises(RuntimeError, match="power"):
        train(plain, stripes, tmp_path / "run", callbacks=[FailAt(11)])
    return tmp_path / "run"


def test_the_other_files_are_made_from_it(plain, stripes, broken, whole):
    before = {path.name: path.read_bytes() for path in broken.iterdir()}
    for name in set(before) - {"last.ckpt"}:
        (broken / name).write_bytes(b"lost")
    with pytest.raises(RuntimeError, match="power"):
        train(plain, stripes, broken, resume=True, callbacks=[FailAt(10)])
    now = {path.name: path.read_bytes() for path in broken.iterdir()}
    assert {name for name in now if now[name] != before[name]} == {"last.ckpt"}
    for name in set(before) - {"last.ckpt"}:
        (broken / name).unlink()
    train(plain, stripes, broken, resume=True)
    assert content(broken) == whole


def test_what_can_be_lost_is_what_the_interval_says(broken):
    assert RunDirectory(broken).read_checkpoint().training["step"] == 9


def changed(path, change):
    """Write a checkpoint that is another one, and whole."""
    arrays, document = unpack(read_bytes(path), "it")
    change(arrays, document)
    path.write_bytes(pack(arrays, document))


def rows(document, *epochs):
    first = document["training"]["history"][0]
    document["training"]["history"] = [{**first, "epoch": epoch} for epoch in epochs]


def spoil(name, value=np.nan):
    """A change that puts a number into an array."""

    def change(arrays, document):
        arrays[name] = arrays[name].copy()
        arrays[name][-1] = value

    return change


FORGED = {
    "nan weights": (spoil("engine.parameters"), "last.ckpt: the array engine.parameters holds NaN or infinity"),
    "infinite weights": (spoil("engine.parameters", np.inf), "the array engine.parameters holds NaN or infinity"),
    "nan memory": (spoil("engine.exp_avg"), "last.ckpt: the array engine.exp_avg holds NaN or infinity"),
    "nan squares": (spoil("engine.exp_avg_sq"), "last.ckpt: the array engine.exp_avg_sq holds NaN or infinity"),
    "infinite best weights": (spoil("best.parameters", -np.inf), "the array best.parameters holds NaN or infinity"),
    "an array more": (lambda a, d: a.update(x=np.zeros(3)), "the array x is missing, too much, or does not fit"),
    "no best weights": (lambda a, d: a.pop("best.parameters"), "the array best.parameters is missing"),
    "no memory": (lambda a, d: a.pop("engine.exp_avg"), "the array engine.exp_avg is missing"),
    "short": (lambda a, d: a.update({"best.buffers": np.zeros(1, "f4")}), "the array best.buffers is"),
    "float64": (lambda a, d: a.update({"engine.exp_avg": a["engine.exp_avg"].astype("f8")}), "engine.exp_avg is"),
    "step": (lambda a, d: d["training"].update(step=8), "epoch 1, step 8 and 24 seen samples do not fit together"),
    "seen": (lambda a, d: d["training"].update(seen=20), "epoch 1, step 9 and 20 seen samples do not fit"),
    "beyond": (lambda a, d: d["training"].update(seen=48, step=12), "epoch 1, step 12 and 48 seen samples do not"),
    "epoch": (lambda a, d: d["training"].update(epoch=0, step=3), "epoch 0, step 3 and 24 seen samples do not fit"),
    "rows": (lambda a, d: rows(d, 1, 2), "epoch 1, step 9 and 24 seen samples do not fit"),
    "row": (lambda a, d: rows(d, 2), "epoch 1, step 9 and 24 seen samples do not fit"),
    "config": (lambda a, d: d.pop("config"), "last.ckpt: config: Field required"),
    "format": (lambda a, d: d.update(format=3), "last.ckpt has format 3, this version reads 2"),
    "kind": (lambda a, d: d.update(kind="model"), "is not a checkpoint file, but 'model'"),
    "more": (lambda a, d: d.update(code="x"), "last.ckpt: code: Extra inputs are not permitted"),
    "host": (
        lambda a, d: d.update(computed_with={"CPU": 7}),
        "last.ckpt: computed_with.CPU: Input should be a valid str",
    ),
    "settings": (lambda a, d: d.update(settings={}), "cannot resume: batch_size was None, now it is 8; "),
    "epochs": (lambda a, d: d["settings"].update(epochs="2"), "cannot resume: epochs was '2', now it is 2"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_checkpoint_is_refused(plain, stripes, broken, name):
    change, words = FORGED[name]
    changed(broken / "last.ckpt", change)
    before = {path.name: path.read_bytes() for path in broken.iterdir()}
    with pytest.raises((FileError, OptionError), match=re.escape(words)):
        train(plain, stripes, broken, resume=True)
    assert {path.name: path.read_bytes() for path in broken.iterdir()} == before


def test_a_sum_of_squares_may_have_overflowed(plain, stripes, broken):
    """A gradient of 1e20 does that; the training goes on, with steps of 0 there."""
    changed(broken / "last.ckpt", spoil("engine.exp_avg_sq", np.inf))
    assert train(plain, stripes, broken, resume=True).stopped == "finished"


def test_of_an_older_format_it_does_not_say_what_computed_it(plain, stripes, broken, whole):
    changed(broken / "last.ckpt", lambda a, d: (d.update(format=1), d.pop("computed_with")))
    train(plain, stripes, broken, resume=True)
    assert content(broken) == whole


def test_each_byte_of_a_checkpoint_counts(plain, stripes, broken):
    path = broken / "last.ckpt"
    whole = path.read_bytes()
    for place in (0, 9, 300, len(whole) // 2, len(whole) - 1):
        wrong = bytearray(whole)
        wrong[place] ^= 4
        path.write_bytes(bytes(wrong))
        with pytest.raises(FileError, match=r"last\.ckpt"):
            train(plain, stripes, broken, resume=True)
    for short in (0, 7, 100, len(whole) - 1):
        path.write_bytes(whole[:short])
        with pytest.raises(FileError, match=r"last\.ckpt"):
            train(plain, stripes, broken, resume=True)
    shutil.copy(broken / "model.safetensors", path)
    with pytest.raises(FileError, match="is not a checkpoint file, but 'model'"):
        train(plain, stripes, broken, resume=True)
