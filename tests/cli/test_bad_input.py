"""What goes wrong on the command line: exit code, the argument, what came, and the cure, in one line."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from made import idx_bytes, idx_files, picture

pytestmark = pytest.mark.capability("H34", "H2", "E2")

X = np.random.default_rng(0).integers(0, 256, (20, 6, 6)).astype(np.uint8)
Y = np.arange(20) % 2
TINY = ("--epochs", 1, "--subset", 120, "--model", "mlp")


def npz(**arrays):
    def make(tmp: Path) -> Path:
        np.savez(tmp / "set.npz", **arrays)
        return tmp / "set.npz"

    return make


def text(name: str, content: str | bytes):
    def make(tmp: Path) -> Path:
        path = tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


def folder(*names: str, bad: str = ""):
    """A folder with six pictures under each name; those under the name of bad are no pictures."""

    def make(tmp: Path) -> Path:
        root = tmp / "photos"
        root.mkdir()
        for name in names:
            for i in range(6):
                path = picture(root / name / f"{i}.png", seed=i)
                if name == bad:
                    path.write_text("milk")
        return root

    return make


def idx(name: str, change):
    def make(tmp: Path) -> Path:
        files = idx_files()
        root = tmp / "idx"
        root.mkdir()
        for key, content in files.items():
            if key == name:
                content = change(content)
            if content is not None:
                (root / key).write_bytes(content)
        return root

    return make


def spec(*layers, **other):
    document = {"layer": "Sequential", "layers": list(layers), **other}
    return text("net.json", json.dumps(document))


def made(tmp: Path, part: object) -> object:
    return part(tmp) if callable(part) else part


def run_of(change):
    """A copy of the trained run, changed."""

    def make(tmp: Path, trained: Path) -> Path:
        copy = Path(shutil.copytree(trained, tmp / "copy"))
        change(copy)
        return copy

    make.needs_run = True
    return make


def flip(name: str, place: int):
    def change(run: Path) -> None:
        content = bytearray((run / name).read_bytes())
        content[place] ^= 1
        (run / name).write_bytes(bytes(content))

    return change


RUN = run_of(lambda run: None)
FLAT, LINEAR = {"layer": "Flatten"}, {"layer": "LazyLinear", "out_features": 10}
TRAIN_X, TRAIN_Y = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"

DATA = {
    "unknown name": ("digit", 'unknown data set "digit"; did you mean "digits"?', "there is no folder or file"),
    "no folder": (lambda tmp: tmp / "gone", "unknown data set", "gone", "there is no folder or file of that name"),
    "empty folder": (folder(), "photos holds nothing; expected one folder of images for each class"),
    "loose images": (folder("."), "photos holds images, but no class folders; put the images of each class into"),
    "one class": (folder("cat"), 'photos has only one class, "cat"; add a folder for each other class'),
    "empty class": (
        folder("cat", "dog", bad="dog"),
        "no readable image for dog; put images there or remove the folder",
    ),
    "parts that differ": (
        folder("train/cat", "test/dog"),
        "train/ has no folder for dog, which another part has; all parts need the same classes",
    ),
    "single image": (lambda tmp: picture(tmp / "a.png", 0), "a single image is no data set; give the folder"),
    "archive": (text("a.zip", "PK"), "a.zip cannot be read as a data set; unpack it and give the folder"),
    "npy": (text("a.npy", ""), "np.savez(file, images=images, labels=labels)"),
    "no npz": (text("a.npz", "milk"), "a.npz is not an .npz file, or a damaged one"),
    "npz without labels": (npz(images=X), "has no labels; it holds images; write it with np.savez"),
    "npz with objects": (
        npz(images=X, labels=np.array([{}] * 20)),
        "labels is an array of Python objects, which could run",
    ),
    "lengths": (npz(images=X, labels=Y[:7]), "there are 20 images, but 7 targets; each image needs one"),
    "label out of range": (
        npz(images=X, labels=Y + 1, classes=["a", "b"]),
        "label 2 is out of range; labels must be 0 to 1",
    ),
    "negative label": (npz(images=X, labels=Y - 1), "label -1 is out of range"),
    "float labels": (npz(images=X, labels=Y / 2), "labels must be whole numbers, got floats; use labels.astype(int)"),
    "text labels": (npz(images=X, labels=np.array(["a"] * 20)), "np.unique(labels, return_inverse=True) turns names"),
    "only one label": (
        npz(images=X, labels=Y * 0),
        "the data have only one class; telling classes apart needs at least two",
    ),
    "NHWC": (npz(images=np.zeros((20, 6, 6, 3)), labels=Y), "look like N x H x W x C", "np.moveaxis(images, 3, 1)"),
    "flat images": (npz(images=X.reshape(20, 36), labels=Y), "images must have the axes N x C x H x W", "(20, 36)"),
    "NaN": (npz(images=X * np.nan, labels=Y), "image 0 holds NaN or infinity; remove or repair it"),
    "value range": (npz(images=X, labels=Y, value_range=(0, 1)), "outside value_range (0, 1)"),
    "IDX header lies": (idx(TRAIN_X, lambda c: c[:4] + struct.pack(">I", 10**6) + c[8:]), TRAIN_X, "1000000"),
    "IDX cut off": (idx(TRAIN_X, lambda c: c[:-9]), TRAIN_X, "bytes"),
    "IDX of another kind": (idx(TRAIN_X, lambda c: b"\x89PNG" + c[4:]), TRAIN_X, "not an IDX file"),
    "IDX lengths": (
        idx(TRAIN_Y, lambda c: idx_bytes(np.zeros(7, np.uint8))),
        "shape (40, 6, 6) and labels of shape (7,)",
        "are the files mixed up?",
    ),
    "IDX without labels": (idx(TRAIN_Y, lambda c: None), TRAIN_Y),
    "pickled CIFAR-10": (lambda tmp: text("cifar/data_batch_1", b"\x80\x04")(tmp).parent, "cifar-10-binary.tar.gz"),
}

TRAIN = {
    "model": (["--model", "lenet"], 'unknown model "lenet"; did you mean "lenet5"?'),
    "optimizer": ([*TINY, "--optimizer", "adan"], 'unknown optimizer "adan"; did you mean "adam"?'),
    "schedule": ([*TINY, "--schedule", "cosin"], 'unknown schedule "cosin"; did you mean "cosine"?'),
    "augment": ([*TINY, "--augment", "foto"], 'unknown augmentation "foto"; did you mean "photo"?'),
    "engine": ([*TINY, "--engine", "refrence"], 'unknown engine "refrence"; did you mean "reference"?'),
    "threads": ([*TINY, "--threads", 0], "setting threads: input should be greater than or equal to 1, got 0"),
    "device": ([*TINY, "--device", "gpu"], 'unknown device "gpu"', "Known: cpu, cuda"),
    "cuda": ([*TINY, "--device", "cuda"], 'device "cuda" needs the engine "torch"', '"compiled" has only "cpu"'),
    "normalize": ([*TINY, "--normalize", "none"], "normalize: input should be 'standard' or 'unit'", "got 'none'"),
    "size": ([*TINY, "--size", "28,28"], "size must be HEIGHTxWIDTH such as 28x28, got '28,28'"),
    "no epochs": (["--epochs", 0], "setting epochs: input should be greater than or equal to 1, got 0"),
    "batch size": (["--batch-size", -4], "setting batch_size: input should be greater than or equal to 1, got -4"),
    "lr": (["--lr", -1], "setting lr: input should be greater than 0, got -1.0"),
    "lr NaN": (["--lr", "nan"], "setting lr: input should be a finite number, got nan"),
    "val fraction": (["--val-fraction", 1], "setting val_fraction: input should be less than 1, got 1.0"),
    "seed": (["--seed", -1], "setting seed: input should be greater than or equal to 0, got -1"),
    "momentum": ([*TINY, "--momentum", 0.9], "momentum is for sgd and rmsprop; adam has its own"),
    "subset": (["--subset", 5], "a subset of 5 images cannot hold all 10 classes; take more images"),
    "small images": (["--model", "lesson2"], "lesson2", "1x8x8", "use the model block_cnn"),
    "high lr": (
        [*TINY, "--optimizer", "sgd", "--lr", 1e30, "--schedule", "constant"],
        "the loss became",
        "Try a lower learning rate (1e+29 instead of 1e+30)",
    ),
    "no config": (["--config", "gone.toml"], "cannot read gone.toml: No such file or directory"),
    "no TOML": (["--config", text("s.toml", "epochs = = 3")], "s.toml is not valid TOML"),
    "no text": (["--config", text("s.toml", b"\xff\xfe")], "s.toml is not valid TOML"),
    "unknown setting": (["--config", text("s.toml", "epoch = 3")], 'unknown setting "epoch"; did you mean "epochs"?'),
    "type of a setting": (
        ["--config", text("s.toml", 'epochs = "3"')],
        "setting epochs: input should be a valid integer, got '3'",
    ),
    "400 digits": (
        ["--config", text("s.toml", "lr = " + "9" * 400)],
        "setting lr: a whole number must fit 64 bits",
    ),
    "no spec": (["--model", "gone.json"], "cannot read gone.json: No such file or directory"),
    "no JSON": (["--model", text("net.json", "{")], "net.json is not a network spec"),
    "spec of one layer": (
        ["--model", text("net.json", json.dumps(FLAT))],
        "net.json is a single layer; put it into a Sequential",
    ),
    "spec with a key twice": (
        ["--model", text("net.json", '{"layer": "ReLU", "layer": "Tanh"}')],
        "net.json is not a network spec: a key stands twice",
    ),
    "spec with a long integer": (
        ["--model", text("net.json", '{"layer": "Linear", "in_features": ' + "9" * 99 + "}")],
        "net.json is not a network spec: an integer has more than 64 bits",
    ),
    "unknown layer": (
        ["--model", spec(FLAT, {"layer": "Linar"})],
        'layer 1: unknown layer "Linar"; did you mean "Linear"?',
    ),
    "lacking argument": (["--model", spec(FLAT, {"layer": "LazyLinear"})], "layer 1 lacks out_features"),
    "unknown argument": (["--model", spec(FLAT, {**LINEAR, "units": 3})], 'layer 1: unknown argument "units"'),
    "wrong shape": (
        ["--model", spec(FLAT, {"layer": "Linear", "in_features": 63, "out_features": 10})],
        "layer 1 (Linear, number 2 of the network) gets 64",
        "use Linear(64, 10)",
    ),
    "outputs": (
        ["--model", spec(FLAT, {**LINEAR, "out_features": 9})],
        "10 classes, but the network gives 9 outputs; end it with LazyLinear(10)",
    ),
    "softmax": (
        ["--model", spec(FLAT, LINEAR, {"layer": "Softmax"})],
        "which would apply it twice; remove that last layer",
    ),
    "out is a file": ([*TINY, "--out", text("f", "")], "cannot make the folder", "File exists"),
    "out below a file": (
        [*TINY, "--out", lambda tmp: text("f", "")(tmp) / "run"],
        "cannot make the folder",
        "Not a directory",
    ),
    "out not empty": (
        [*TINY, "--out", lambda tmp: text("full/f", "")(tmp).parent],
        "full is not empty; give another folder",
    ),
    "out holds a run": (["--out", RUN], "go on with that run: --resume"),
    "resume what": (["--resume"], "--resume needs --out, the folder of the run to continue"),
    "nothing to resume": (
        ["--resume", "--out", lambda tmp: tmp],
        "holds no run to resume: there is no last.ckpt in it",
    ),
    "resume and config": (["--resume", "--out", "x", "--config", "y"], "leave --config out"),
    "damaged checkpoint": (
        ["--resume", "--out", run_of(flip("last.ckpt", -5))],
        "last.ckpt is damaged: its digest does not match",
    ),
    "resume with other data": (["fashion", "--resume", "--out", RUN], 'unknown data set "fashion"'),
    "resume with other settings": (
        ["--epochs", 9, "--resume", "--out", RUN],
        "cannot resume: epochs was 4, now it is 9, but the schedule OneCycle is laid out over all epochs",
    ),
}

OTHER = {
    "no model": (
        ["evaluate", "gone", "digits"],
        "there is no model gone; pellucid train writes one into its run directory",
    ),
    "folder without a model": (["predict", lambda tmp: tmp, "a.png"], "cannot read", "model.safetensors: No such file"),
    "damaged model": (
        ["evaluate", run_of(flip("model.safetensors", -5)), "digits"],
        "is damaged: its digest does not match; get the file again",
    ),
    "model cut off": (
        ["evaluate", run_of(lambda run: (run / "model.safetensors").write_bytes(b"abc")), "digits"],
        "or it is cut off",
    ),
    "checkpoint as model": (
        ["predict", run_of(lambda run: shutil.copy(run / "last.ckpt", run / "model.safetensors")), "a.png"],
        "is not a model file, but 'checkpoint'",
    ),
    "picture as model": (
        ["summary", text("m.safetensors", b"\x89PNG" + bytes(50))],
        "is not a pellucid file (safetensors expected)",
    ),
    "foreign classes": (
        ["evaluate", RUN, npz(images=X[:, :1].repeat(8, 1).repeat(2, 2)[..., :8], labels=Y, classes=["a", "b"])],
        'the data have the class "a", which the model does not know; its classes: 0, 1',
    ),
    "color for gray": (
        ["evaluate", RUN, npz(images=np.zeros((4, 3, 8, 8), np.uint8), labels=Y[:4])],
        "the model takes images N x 1 x 8 x 8, got shape (4, 3, 8, 8)",
    ),
    "split": (["evaluate", RUN, "digits", "--split", "tests"], 'unknown part "tests"; did you mean "test"?'),
    "part that is not there": (
        ["evaluate", RUN, npz(images=np.zeros((4, 8, 8), np.uint8), labels=Y[:4]), "--split", "test"],
        'has no part "test"; use the part "all"',
    ),
    "no image": (["predict", RUN, "gone.png"], "cannot read image gone.png: there is no such file"),
    "no picture": (["predict", RUN, text("a.png", "milk")], "a.png: a text file, not an image"),
    "empty picture": (["predict", RUN, text("a.png", "")], "a.png: the file is empty; copy it again"),
    "folder without images": (["predict", RUN, folder()], "photos is a folder without images"),
    "save seen": (
        ["predict", RUN, lambda tmp: picture(tmp / "a.png", 0), "--save-seen", lambda tmp: text("f", "")(tmp) / "x"],
        "cannot make the folder",
        "Not a directory",
    ),
    "summary": (["summary", "resnet9"], 'unknown model "resnet9"; did you mean "resnet8"?'),
    "summary input": (
        ["summary", "mlp", "--input", "28x28"],
        "--input must be CHANNELSxHEIGHTxWIDTH such as 1x28x28, got '28x28'",
    ),
    "fetch": (["data", "fetch", "minst"], '"minst"; did you mean "mnist"?'),
    "check": (["data", "check", "minst"], '"minst"; did you mean "mnist"?'),
}

USAGE = {
    "command": (["trian"], "No such command 'trian'. Did you mean 'train'?"),
    "option": (["train", "--epoch", 3], "No such option: --epoch", "--epochs"),
    "number": (["train", "--epochs", "ten"], "Invalid value for '--epochs'"),
    "model": (["evaluate"], "Missing argument 'MODEL'"),
    "data": (["evaluate", "m"], "Missing argument 'DATA'"),
    "image": (["predict", "m"], "Missing argument 'IMAGE'"),
    "top": (["predict", "m", "a.png", "--top", 0], "Invalid value for '--top'"),
    "too much": (["train", "digits", "mnist"], "Got unexpected extra argument"),
    "data command": (["data", "fetsch", "mnist"], "No such command 'fetsch'. Did you mean 'fetch'?"),
}

CASES = {
    **{f"data: {name}": (["train", case[0], "--epochs", 1], *case[1:]) for name, case in DATA.items()},
    **{f"train: {name}": (["train", *case[0]], *case[1:]) for name, case in TRAIN.items()},
    **OTHER,
}


def line(words, tmp_path, trained):
    return [part(tmp_path, trained) if getattr(part, "needs_run", False) else made(tmp_path, part) for part in words]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize("name", CASES)
def test_an_error_is_one_line_with_what_came_and_the_cure(cli, trained, tmp_path, name):
    words, *says = CASES[name]
    code, out, err = cli(*line(words, tmp_path, trained))
    assert code == 1
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    for word in says:
        assert word in err
    assert "Traceback" not in out + err
    left = [path.name for path in tmp_path.rglob("*.tmp")]
    assert left == []


@pytest.mark.parametrize("name", USAGE)
def test_a_wrong_shape_of_the_command_line_ends_with_2(cli, name):
    words, *says = USAGE[name]
    code, out, err = cli(*words)
    assert (code, out) == (2, "")
    plain = " ".join(err.replace("│", " ").split())
    for word in says:
        assert word in plain
    assert "Usage: pellucid" in plain


def test_too_little_memory_is_one_line(cli, trained, monkeypatch):
    def full(*arguments):
        raise MemoryError

    monkeypatch.setattr("pellucid.load", full)
    code, out, err = cli("summary", trained)
    assert (code, out) == (1, "")
    assert err == "error: there is not enough memory; use a smaller network, smaller images or a smaller batch\n"


def test_there_are_many_kinds():
    assert len(CASES) + len(USAGE) >= 80
