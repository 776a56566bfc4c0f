"""pellucid train: settings, the run directory, what is printed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from PIL import Image
from platformdirs import user_cache_path

import pellucid as pl
from available import EVERY_ENGINE
from made import RUN_FILES, picture, without_compiling
from pellucid.cli.settings import Settings, resolve
from pellucid.errors import OptionError

pytestmark = pytest.mark.capability("H34")

QUICK = ("--subset", 120, "--epochs", 1, "--model", "mlp")


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr("pellucid.report.plots.write_all", lambda *what: None)


def test_the_run_directory(trained):
    assert {path.name for path in trained.iterdir()} == RUN_FILES
    config = tomllib.loads((trained / "config.toml").read_text())
    assert (config["data"], config["subset"], config["epochs"], config["seed"]) == ("digits", 400, 4, 0)
    assert config["resolved"]["data_digest"] == pl.data.load("digits").digest()
    for name in ("curves", "confusion", "samples"):
        with Image.open(trained / f"{name}.png") as image:
            assert image.format == "PNG"
            assert min(image.size) > 100
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["stopped"] == "finished"
    assert set(metrics["test"]) == {"loss", "accuracy", "recall", "precision", "confusion", "labels", "n"}
    assert len((trained / "history.jsonl").read_text().splitlines()) == 4


@pytest.mark.capability("D13")
def test_what_is_printed(cli, tmp_path):
    code, out, err = cli("train", *QUICK, "--out", tmp_path / "run")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == "data      digits: 1797 images 1x8x8, 10 classes (96 train, 24 val, 360 test)"
    assert re.fullmatch(r"model     mlp: [\d,]+ parameters", lines[1])
    assert lines[2].startswith("optimizer Adam(lr=0.003")
    assert lines[3].startswith("schedule  OneCycle(")
    assert lines[4] == f"run       {tmp_path / 'run'} (engine compiled, seed 0)"
    assert re.fullmatch(r"epoch 1/1  loss .* \| val loss .* \| \d s", lines[5])
    assert re.fullmatch(r"kept      epoch 1 with validation loss \d\.\d{4}", lines[6])
    assert re.fullmatch(r"validation accuracy [01]\.\d{4} of 24 images", lines[7])
    assert re.fullmatch(r"test accuracy       [01]\.\d{4} of 360 images", lines[8])
    model = pl.load(tmp_path / "run")
    assert lines[9] == f"weights   {pl.interop.model_file.weights_digest(model.network)}"
    assert lines[10] == f"written   {tmp_path / 'run'}"
    assert lines[11] == f"report    {tmp_path / 'run' / 'report.html'}"
    assert max(map(len, lines[:4])) <= 80


def test_runs_are_numbered(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("train", *QUICK).code == 0
    assert cli("train", "digits", *QUICK).code == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["digits-1", "digits-2"]
    assert cli("train", *QUICK, "--out", tmp_path / "runs" / "digits-1").code == 1


def test_a_subset_larger_than_the_data_is_said(cli, tmp_path):
    done = cli("train", "--subset", 9999, "--epochs", 1, "--model", "mlp", "--out", tmp_path / "run")
    assert "--subset 9999: there are 1437 images besides the test part; all are used" in done.err


@pytest.mark.parametrize("other", [engine for engine in EVERY_ENGINE if engine != "reference"])
def test_each_engine_by_name(cli, tmp_path, other):
    """The model file says nothing of the engine; config.toml does, for a resume."""
    outs = {}
    for name in ("reference", other):
        outs[name] = cli("train", *QUICK, "--engine", name, "--threads", 1, "--out", tmp_path / name).out.splitlines()
        assert outs[name][4] == f"run       {tmp_path / name} (engine {name}, seed 0)"
        config = tomllib.loads((tmp_path / name / "config.toml").read_text())
        assert (config["engine"], config["threads"]) == (name, 1)
        assert name.encode() not in (tmp_path / name / "model.safetensors").read_bytes()
    a, b = (pl.load(tmp_path / name).network.flat_parameters for name in ("reference", other))
    assert not np.array_equal(a, b)
    assert np.allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("words", [("train", *QUICK), ("evaluate", "RUN", "digits"), ("predict", "RUN", "a.png")])
def test_threads_for_all_commands_come_from_the_environment(cli, trained, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png", 0)
    words = [trained if word == "RUN" else word for word in words]
    monkeypatch.setenv("PELLUCID_THREADS", "2")
    assert cli(*words).code == 0
    monkeypatch.setenv("PELLUCID_THREADS", "many")
    code, _, err = cli(*words)
    assert (code, err) == (1, "error: PELLUCID_THREADS must be a number of threads, at least 1, got 'many'\n")


@pytest.mark.capability("D19")
def test_the_same_command_gives_the_same_weights(cli, tmp_path):
    outs = [cli("train", *QUICK, "--seed", 7, "--augment", "digit", "--out", tmp_path / name).out for name in "ab"]
    digests = [re.search(r"weights +(\w{64})", out)[1] for out in outs]
    assert digests[0] == digests[1]


def test_a_folder_of_images(cli, tmp_path):
    for name in ("cat", "dog"):
        for i in range(10):
            picture(tmp_path / "photos" / name / f"{i}.png", seed=i, size=(12, 10))
    (tmp_path / "photos" / "cat" / "bad.png").write_text("milk")
    words = ("train", tmp_path / "photos", "--size", "16x16", "--model", "mlp", "--epochs", 1, "--batch-size", 4)
    code, out, err = cli(*words, "--augment", "photo", "--balance", "--out", tmp_path / "run")
    assert code == 0
    assert "skipped cat/bad.png: a text file, not an image" in err
    assert "data      photos: 20 images 3x16x16, 2 classes" in out
    assert pl.load(tmp_path / "run").classes == ("cat", "dog")
    parts = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert sorted(name for names in parts.values() for name in names) == sorted(
        f"{c}/{i}.png" for c in ("cat", "dog") for i in range(10)
    )
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert config["data"] == str(tmp_path / "photos")
    strict = cli(*words, "--strict", "--out", tmp_path / "strict")
    assert (strict.code, strict.err.count("\n")) == (1, 1)
    assert "bad.png: a text file, not an image" in strict.err


def test_a_network_from_a_spec(cli, tmp_path):
    layers = [{"layer": "Flatten"}, {"layer": "LazyLinear", "out_features": 10}]
    (tmp_path / "net.json").write_text(json.dumps({"layer": "Sequential", "layers": layers}))
    words = ("train", "--subset", 120, "--epochs", 1, "--model", tmp_path / "net.json", "--out", tmp_path / "run")
    assert "net.json: 650 parameters" in cli(*words).out


@pytest.mark.capability("D5", "D6", "D9")
def test_optimizers_and_schedules_by_name(cli, tmp_path):
    words = ("--optimizer", "sgd", "--lr", 0.1, "--clip", 1, "--schedule", "step", "--val-fraction", 0)
    code, out, _ = cli("train", *QUICK, *words, "--out", tmp_path / "run")
    assert code == 0
    assert "optimizer SGD(lr=0.1, momentum=0.9" in out
    assert "clip_norm=1.0" in out
    assert "(120 train, 0 val, 360 test)" in out
    assert "val loss" not in out
    assert "validation accuracy" not in out


# Where settings come from


def test_the_command_line_wins_over_the_file_over_the_defaults(cli, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text('epochs = 3\nbatch_size = 32\nsubset = 120\nmodel = "mlp"\n[resolved]\nold = 1\n')
    assert cli("train", "--config", file, "--epochs", 1, "--out", tmp_path / "run").code == 0
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (config["epochs"], config["batch_size"], config["seed"]) == (1, 32, 0)
    assert config["resolved"]["epochs"] == 1
    again = cli("train", "--config", tmp_path / "run" / "config.toml", "--out", tmp_path / "again")
    assert again.code == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "run" / "model.safetensors"
    ).read_bytes()


def test_defaults_are_those_of_the_design():
    s = resolve({"epochs": None})
    assert (s.data, s.epochs, s.batch_size, s.val_fraction, s.seed) == ("digits", 10, 64, 0.2, 0)
    assert (s.engine, s.threads) == ("compiled", None)
    assert repr(s.make_optimizer()).startswith("Adam(lr=0.003")
    assert type(s.make_schedule()).__name__ == "OneCycle"
    assert set(Settings.model_fields) >= {"checkpoint_every", "strict", "balance", "normalize", "device", "threads"}


@pytest.mark.parametrize(("text", "size"), [("28x30", (28, 30)), ("32", (32, 32)), ("8X4", (8, 4)), (None, None)])
def test_sizes(text, size):
    assert resolve({"size": text}).image_size() == size


@pytest.mark.parametrize("text", ["x", "28x", "0x4", "-1x3", "3x3x3", "9999x2", "28,28", ""])
def test_sizes_that_cannot_be(text):
    with pytest.raises(OptionError, match="size must be HEIGHTxWIDTH such as 28x28"):
        resolve({"size": text}).image_size()


def test_whole_numbers_are_taken_for_real_ones_but_not_the_other_way_round(tmp_path):
    assert resolve({"lr": 1}).lr == 1.0
    for text in ('epochs = "3"', "epochs = 3.0", "lr = true", "balance = 1", "data = 3", "lr = nan"):
        (tmp_path / "s.toml").write_text(text)
        with pytest.raises(OptionError, match=f"setting {text.split()[0]}: .*, got"):
            resolve({}, tmp_path / "s.toml")


# Resume


def seen(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.capability("H14")
def test_a_finished_run_resumed_says_so_and_changes_nothing(cli, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    before = seen(run)
    code, out, _ = cli("train", "--resume", "--out", run, "--threads", 1)
    assert code == 0
    assert "this run has ended already: finished after 4 epochs\nkept      epoch" in out
    assert f"weights   {json.loads((run / 'metrics.json').read_text())['weights_digest']}\n" in out
    assert seen(run) == before
    changed = cli("train", "--resume", "--out", run, "--lr", 0.5, "--val-fraction", 0.3, "--model", "mlp")
    assert changed.code == 1
    assert changed.err == (
        "error: cannot resume: lr was 0.003, now it is 0.5; model was 'block_cnn', now it is 'mlp'; "
        "val_fraction was 0.2, now it is 0.3; resume with what the run began with, or start a new run\n"
    )
    assert seen(run) == before


@pytest.mark.capability("H39")
def test_python_m_pellucid_in_an_ascii_terminal(tmp_path):
    """A class name that the terminal cannot show is no reason to fail."""
    for name in ("Käfer", "大"):
        for i in range(5):
            picture(tmp_path / "insects" / name / f"{i}.png", seed=i)
    words = ["train", str(tmp_path / "insects"), "--epochs", "1", "--model", "mlp", "--out", str(tmp_path / "run")]
    env = {"PATH": "", "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "MPLBACKEND": "Agg", "HOME": str(tmp_path)}
    env["XDG_CACHE_HOME"] = str(user_cache_path())  # the kernels compiled before will do
    for command in (words, ["evaluate", str(tmp_path / "run"), str(tmp_path / "insects")]):
        done = subprocess.run(
            [sys.executable, "-m", "pellucid", *command], capture_output=True, text=True, env=env, check=False
        )
        assert (done.returncode, without_compiling(done.stderr)) == (0, "")
    assert r"K\xe4fer" in done.stdout
    assert np.isfinite(pl.load(tmp_path / "run").network.flat_parameters).all()
