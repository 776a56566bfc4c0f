"""report.html: what stands in it, that it needs nothing else, and that no name becomes markup."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from scipy.signal import correlate2d

import pellucid as pl
from pellucid import metrics, nn, optim
from pellucid.data import from_arrays
from pellucid.data.dataset import Splits
from pellucid.errors import FileError
from pellucid.report import charts, page
from pellucid.training import EarlyStopping, History, Row

HTML = (
    "html head meta title style body main header section h1 h2 h3 p em strong dl div dt dd ul li details summary span"
)
HTML += " table thead tr th td bdi img figure figcaption code svg g line text polyline circle rect path"
TAGS = frozenset(HTML.split())
EMPTY = {"meta", "img", "th", "td"}  # elements that need no end tag


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.tags, self.words, self.open = html, [], [], []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if self.open[-1] != tag:
            raise AssertionError(f"</{tag}> ends {self.open}")
        self.open.pop()

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    def images(self):
        return [attributes for tag, attributes in self.tags if tag == "img"]

    def headings(self):
        return re.findall(r"<h2>(.*?)</h2>", self.html)


def read(path) -> Page:
    """The page of a run directory, checked for what holds of every page."""
    html = (path / "report.html").read_bytes().decode("utf-8")
    assert html.startswith("<!doctype html>")
    found = Page(html)
    assert {tag for tag, _ in found.tags} <= TAGS, "no script, no link, no frame"
    for tag, attributes in found.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("href", "srcset", "action", "data", "xlink:href"), (tag, name)
            assert name != "src" or value.startswith("data:image/png;base64,")
            assert name != "style" or re.fullmatch(r"--share: \d\.\d+", value)
    assert not re.search(r"https?:|@import|url\(|//\w", re.sub(r"base64,[^\"]*", "", html))
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html
    assert all(image["alt"].strip() for image in found.images())
    assert all(attributes["aria-label"] for tag, attributes in found.tags if tag == "svg")
    for image in found.images():
        assert max(pixels(image).size) <= 96
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", html)
    assert "nan" not in found.text.lower().split()
    return found


def pixels(image) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))


def pictures(n=90, channels=1, classes=("one", "two", "three"), side=(6, 5), seed=0):
    """A data set of three parts that is easy to learn, but for every ninth label."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(classes)
    images = rng.integers(0, 120, (n, channels, *side)).astype(np.uint8)
    images[np.arange(n), :, labels % side[0]] += 120
    labels[::9] = (labels[::9] + 1) % len(classes)
    ds = from_arrays(images, labels, classes=classes)
    return replace(ds, splits=Splits(np.arange(0, n - 40), np.arange(n - 40, n - 20), np.arange(n - 20, n)))


def network(classes=3):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes))


def train(ds, out, net=None, **options):
    options = {"epochs": 6, "batch_size": 8, "progress": False, "engine": "reference", "normalize": "unit", **options}
    return pl.fit(net or network(), ds, out=out, optimizer=optim.Adam(lr=0.02), **options)


@pytest.fixture(autouse=True)
def _no_other_pictures(monkeypatch):
    """They take longer than the page."""
    monkeypatch.setattr("pellucid.report.plots.write_all", lambda *what: None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(
        pictures(), tmp_path_factory.mktemp("runs") / "run", epochs=12, settings={"model": "tiny", "note": "by hand"}
    )


@pytest.mark.capability("D17", "F2", "F3", "H17", "H18")
def test_what_stands_in_it(run):
    found = read(run.path)
    assert found.headings() == [
        "Learning", "Right and wrong by class", "Calibration", "The worst mistakes", "Suspect labels",
        "Sample predictions", "Inside", "Network", "Data", "Settings",
    ]  # fmt: skip
    judged = {part: run.evaluate(part=part) for part in ("val", "test")}
    best = run.history.best
    t = run.model.metrics["temperature"]
    for words in (
        "tiny on arrays",
        "learned to tell 3 classes apart from 50 training images of 1x6x5",
        f"validation accuracy {judged['val'].accuracy:.2%} of 20 images",
        f"test accuracy {judged['test'].accuracy:.2%} of 20 images",
        f"kept epoch {best.epoch} validation loss {best.val_loss:.4g}",
        f"calibration error {judged['test'].calibration().ece:.1%}",
        f"{judged['test'].calibration(t).ece:.1%} where outputs are divided by {t:.3f}",
        "note by hand",
        "optimizer Adam(lr=0.02",
        "python 3.",
        f"SHA-256 of the weights: {run.digest}",
        f"SHA-256 of the data: {run.dataset.digest()}",
        "one "
        + " ".join(str((run.dataset.targets[run.dataset.indices(p)] == 0).sum()) for p in ("train", "val", "test")),
    ):
        assert words in found.text, words
    for name in judged["test"].labels:
        row = f"{judged['test'].recall[name]:.1%} {judged['test'].precision[name]:.1%}"
        assert f"{name} {row}" in found.text
    for name, counts in zip(judged["test"].labels, judged["test"].confusion.tolist(), strict=True):
        assert f"{name} {' '.join(str(n or '·') for n in counts)}" in found.text
    rows = [line for line in found.text.split("seconds ")[1].split() if line != "★"][: 7 * len(run.history)]
    assert rows[3::7] == [f"{loss:.4f}" for loss in run.history["val_loss"]]
    assert f"{best.epoch} ★ {best.train_loss:.4f}" in found.text


@pytest.mark.capability("H18")
def test_mistakes_and_suspects_are_shown_with_their_images_and_ids(run):
    found, judged = read(run.path), run.evaluate()
    shown = {image["alt"]: image for image in found.images()}
    wrong = judged.top_losses()
    assert len(wrong)
    for i in wrong:
        names = judged.labels[judged.true[i]], judged.labels[judged.predicted[i]]
        image = shown[f"test image {judged.ids[i]}, labeled {names[0]}, read as {names[1]}"]
        assert np.array_equal(np.asarray(pixels(image)), run.dataset.images[judged.ids[i], 0])
        p = judged.probabilities[i]
        lines = f"{names[0]} ✗ read as {names[1]}: {p.max():.1%} {names[0]}: {p[judged.true[i]]:.1%} id {judged.ids[i]}"
        assert lines in found.text
    suspects = sum(len(run.evaluate(part=part).suspects()) for part in ("val", "test"))
    assert suspects > 1
    assert f"{suspects} held-out images were read as another class" in found.text


def test_the_commonest_mistakes_are_few_and_short(run):
    names = ("oak " + "a" * 120 + " old", "oak " + "a" * 120 + " young", *"cdefg")
    true, read_as = np.divmod(np.arange(49), 7)
    times = np.where(true == read_as, 5, 1 + (true == 0) * (read_as == 1))
    true, read_as = np.repeat(true, times), np.repeat(read_as, times)
    judged = metrics.measure(np.eye(7)[read_as], true, names, np.arange(len(true)))
    ds = from_arrays(np.zeros((len(true), 1, 6, 5), np.uint8), true, classes=names)
    ds = ds.with_splits(Splits(np.empty(0, int), np.empty(0, int), np.arange(len(true))))
    found = evaluated(replace(run, dataset=ds), {"test": judged})
    listed = re.findall(r"<li>(.*?)</li>", found.html)
    old, young = f"oak {'a' * 11}…{'a' * 12} old", f"oak {'a' * 11}…{'a' * 10} young"
    assert listed[0] == f"<bdi>{old}</bdi> <em>read as</em> <bdi>{young}</bdi> (2)"
    assert listed[1] == f"<bdi>{old}</bdi> <em>read as</em> <bdi>c</bdi> (1)"
    assert len(listed) == 6


@pytest.mark.capability("F2")
def test_kernels_and_maps_are_those_of_the_first_convolution(run):
    found = read(run.path)
    shown = {image["alt"]: np.asarray(pixels(image)).astype(float) for image in found.images()}
    net = run.model.network
    judged = run.evaluate()
    example = judged.ids[np.flatnonzero(judged.true == judged.predicted)[0]]
    x = run.dataset.images[example, 0] / 255.0
    for i in range(4):
        kernel = net[0].weight[i, 0].astype(float)
        reach = abs(kernel).max()
        assert np.abs(shown[f"kernel {i}"] - (kernel / reach + 1) / 2 * 255).max() <= 1
        cells = correlate2d(x, kernel, "valid")
        cells = (cells - cells.min()) / (cells.max() - cells.min())
        assert np.abs(shown[f"its map {i}"] - cells * 255).max() <= 1


@pytest.mark.parametrize("place", ["residual", "deep", "none"])
def test_the_first_convolution_wherever_it_stands(place):
    conv = nn.Conv2d(1, 2, 3, padding=1)
    layers = {
        "residual": [nn.ReLU(), nn.Residual(nn.Sequential(conv, nn.ReLU()), nn.Conv2d(1, 2, 1))],
        "deep": [nn.Sequential(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), nn.Sequential(conv))],
        "none": [nn.Flatten(), nn.Linear(30, 3)],
    }
    net = nn.Sequential(*layers[place], input_shape=(1, 6, 5))
    x = np.random.default_rng(0).standard_normal((1, 1, 6, 5)).astype("float32")
    found = page._first_convolution(net, x)
    if place == "none":
        assert found is None
        return
    path, layer, before = found
    assert (path, layer) == ({"residual": "1.body.0", "deep": "0.1.0"}[place], conv)
    expected = np.maximum(x, 0) if place == "residual" else np.maximum(x[:, :, :6, :4], 0).reshape(1, 1, 3, 2, 2, 2)
    assert np.array_equal(before, expected if place == "residual" else expected.max((3, 5)))


# What others wrote


HOSTILE = (
    '<script>alert(1)</script><img src=x onerror="alert(2)">',
    '" onmouseover="alert(3)" x="',
    "</style></title></table>\x00\x1b[31m\u202egnp.exe\n{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;" + "long" * 5000,
    "大きな木 $\\frac{$",
)


def test_names_never_become_markup(tmp_path):
    ds = replace(
        pictures(classes=HOSTILE), name=HOSTILE[0], ids=[f"{i}{HOSTILE[2]}\udcff{HOSTILE[1]}" for i in range(90)]
    )
    settings = {"model": HOSTILE[1], "data": HOSTILE[0], HOSTILE[0]: HOSTILE[2]}
    train(ds, tmp_path / "run", network(5), settings=settings)
    found = read(tmp_path / "run")
    for words in (
        HOSTILE[0],
        '" onmouseover="alert(3)" x="',
        "{{ 7 * 7 }}{% raw %}",
        r"\x1b[31m\u202egnp",
        "大きな木 $\\frac{$",
    ):
        assert words in found.text
    assert "&lt;b&gt;longlong" in found.text
    assert "49" not in found.text.split("Network")[0].split()
    assert len(found.html) < 300_000, "long names are cut"


# What may be missing


def evaluated(run, found, errors=None, config=""):
    """The page of a run that was put together by hand."""
    path = run.path / "other"
    path.mkdir(exist_ok=True)
    page.write(path / "report.html", run, found, errors or {}, config)
    return read(path)


def test_without_validation_and_test(tmp_path):
    ds = pictures()
    ds = ds.with_splits(Splits(np.arange(90), np.empty(0, int), np.empty(0, int)))
    x = replace(ds, splits=replace(ds.splits, val=np.empty(0, int), test=np.array([0])))
    train(x, tmp_path / "test")
    found = read(tmp_path / "test")
    assert "Without a validation part there is nothing to fit a temperature on" in found.text
    assert "test accuracy" in found.text
    assert "kept" not in found.text.split("Learning")[0]
    run = replace(train(x, tmp_path / "train"), dataset=ds)
    found = evaluated(run, {"train": run.evaluate(ds, "train")})
    assert "Of the 90 training images, which the network was trained on" in found.text
    assert "Suspect labels" not in found.headings(), "only held-out predictions say something of labels"


def test_two_images(tmp_path):
    ds = from_arrays(np.arange(60, dtype=np.uint8).reshape(2, 1, 6, 5), [0, 1])
    ds = ds.with_splits(Splits(np.array([0, 1]), np.empty(0, int), np.array([1])))
    train(ds, tmp_path / "run", network(2), epochs=1)
    assert "from 2 training images" in read(tmp_path / "run").text


def test_classes_that_do_not_occur_have_no_recall(run):
    judged = run.evaluate()
    only = judged.true == 0
    part = metrics.measure(np.log(judged.probabilities[only]), judged.true[only], judged.labels, range(only.sum()))
    found = evaluated(run, {"test": part})
    assert "three – " in found.text
    alone = from_arrays(np.zeros((2, 1, 6, 5), np.uint8), [0, 0], classes=["only"])
    alone = alone.with_splits(Splits(np.array([0]), np.empty(0, int), np.array([1])))
    net = nn.Sequential(nn.Flatten(), nn.Linear(30, 1), input_shape=(1, 6, 5))
    lonely = pl.Model(net, pl.InputSpec.of(alone), ("only",), engine="reference")
    single = replace(run, model=lonely, dataset=alone)
    found = evaluated(single, {"test": metrics.measure(np.zeros((1, 1)), np.array([0]), ["only"], [1])})
    assert "There was no mistake" in found.text
    assert "Inside" not in found.headings()


def test_numbers_that_are_not_finite(run):
    judged = run.evaluate()
    nothing = metrics.measure(np.full((20, 3), np.nan), judged.true, judged.labels, judged.ids)
    history = History([Row(1, float("nan"), None, float("inf"), 0.1, 0.1, 0.0), Row(2, 1.0, None, 2.0, None, 0.1, 0.0)])
    found = evaluated(replace(run, history=history), {"test": nothing})
    assert "expected calibration error on the 20 test images is –" in found.text


def test_before_the_first_epoch(run):
    found = evaluated(replace(run, history=History(), stopped="interrupted"), {"test": run.evaluate()})
    assert "It ended early: interrupted" in found.text
    assert "It ended before the first epoch was done" in found.text


def test_warnings_and_why_it_stopped(tmp_path):
    ds = pictures()
    run = train(ds, tmp_path / "run", epochs=40, callbacks=[EarlyStopping(2)])
    assert "It ended early: early stopping" in read(tmp_path / "run").text
    found = evaluated(replace(run, warnings=("epoch 1: the loss is <stuck>",)), {"test": run.evaluate()})
    assert "Warnings epoch 1: the loss is <stuck>" in found.text


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ([(1.0, 1.0), (0.5, 0.6), (0.1, 0.9)], "After epoch 2 the validation loss rose by 50% while the training loss"),
        ([(1.0, 1.0), (0.5, 0.6), (0.4, 0.62)], None),
        ([(1.0, 1.0), (0.5, 0.6), (0.9, 0.9)], None),
        ([(1.0, None), (0.5, None)], None),
    ],
)
def test_overfitting_is_said(run, losses, words):
    rows = [Row(i + 1, a, 0.5, b, b and 0.5, 0.1, 0.0) for i, (a, b) in enumerate(losses)]
    found = evaluated(replace(run, history=History(rows)), {"test": run.evaluate()})
    assert (words or "learn its images by heart") in found.text or words is None
    assert ("by heart" in found.text) == (words is not None)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_gray_color_and_other_channels(tmp_path, channels):
    ds = pictures(channels=channels, side=(120, 100))
    net = nn.Sequential(nn.Conv2d(channels, 40, 9, 4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    train(ds, tmp_path / "run", net, epochs=1)
    found = read(tmp_path / "run")
    assert {pixels(image).mode for image in found.images()} == ({"RGB", "L"} if channels == 3 else {"L"})
    assert ("three channels as red, green and blue" in found.text) == (channels == 3)
    assert "The first 32:" in found.text
    assert sum("kernel" in image["alt"] for image in found.images()) == 32


def test_many_classes_are_a_picture(tmp_path):
    names = [f"class {i}" for i in range(30)]
    run = train(pictures(240, classes=names), tmp_path / "run", network(30), epochs=1)
    found = read(tmp_path / "run")
    assert "class 29" in found.text.split("no. class recall precision images")[1].split("30 classes are too many")[0]
    svg = found.html.split('aria-label="confusion matrix of 30 classes"')[1].split("</svg>")[0]
    assert re.findall(r">([^<\s][^<]*)</text>", svg) == [
        *np.repeat(["0", "5", "10", "15", "20", "25"], 2),
        "read as",
        "true",
    ]
    drawn = {
        style: {
            (int(i), int(j))
            for path in re.findall(rf'class="{style}" .* d="(.*)"', svg)
            for j, i in re.findall(at, path)
        }
        for style, at in (("square", r"M(\d+) (\d+)h"), ("diamond", r"M(\d+)\.5 (\d+)l"))
    }
    judged = run.evaluate()
    assert drawn["square"] | drawn["diamond"] == set(zip(judged.true.tolist(), judged.predicted.tolist(), strict=True))
    assert all(i == j for i, j in drawn["square"])
    assert all(i != j for i, j in drawn["diamond"])


@pytest.mark.capability("C12", "F12")
def test_reconstructions(tmp_path):
    ds = pictures().reconstruction()
    run = train(ds, tmp_path / "run", pl.models.autoencoder((1, 6, 5), (4,), 3))
    found = read(tmp_path / "run")
    assert found.headings() == ["Learning", "Reconstructions", "Inside", "Network", "Data", "Settings"]
    errors = pl.training.reconstruction_errors(run.model, ds, "test")
    assert f"test error {errors.mean():.4f} mean squared, of 20 images" in found.text
    worst = int(errors.argmax())
    assert f"error {errors[worst]:.4f} id {ds.splits.test[worst]}" in found.text.split("The largest errors")[1]
    beside = [pixels(i) for i in found.images() if i["alt"] == "its reconstruction"]
    output = run.model.outputs(ds.images[ds.splits.test[:1]])[0, 0]
    assert np.abs(np.asarray(beside[0]).astype(float) - output * 255).max() <= 1


def test_regression_has_no_classes(tmp_path):
    x = np.random.default_rng(0).random((30, 1, 6, 5))
    train((x, x.mean((2, 3))), tmp_path / "run", network(1))
    assert read(tmp_path / "run").headings() == ["Learning", "Inside", "Network", "Data", "Settings"]


# The file


def test_the_same_run_gives_the_same_bytes(run):
    found = {part: run.evaluate(part=part) for part in ("val", "test")}
    config = (run.path / "config.toml").read_text()
    assert page.render(run, found, {}, config) == (run.path / "report.html").read_text()


@pytest.mark.slow
def test_the_size_for_mnist(real_data, tmp_path):
    ds = pl.data.load("mnist", subset=500)
    pl.fit(pl.models.create("lesson2", ds.shape, 10), ds, epochs=1, out=tmp_path / "run", progress=False)
    read(tmp_path / "run")
    assert (tmp_path / "run" / "report.html").stat().st_size < 300_000


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("by\nzero"), FileError("cannot write it: disk full"), MemoryError()]
)
def test_a_report_that_fails_ends_no_training(tmp_path, monkeypatch, capsys, error):
    def fail(*what):
        raise error

    monkeypatch.setattr(page, "render", fail)
    run = train(pictures(), tmp_path / "run", epochs=1, progress=True)
    assert run.stopped == "finished"
    assert not (run.path / "report.html").exists()
    assert pl.load(run.path).classes == run.model.classes
    (warning,) = run.warnings
    where = "" if isinstance(error, FileError) else str(run.path / "report.html")
    assert warning.startswith(f"there is no report: {where}")
    assert "\n" not in warning
    assert f"warning: {warning}" in capsys.readouterr().out


def test_a_report_that_cannot_be_written_is_a_warning(tmp_path, capsys):
    train(pictures(), tmp_path / "run", epochs=1)
    path = tmp_path / "run" / "report.html"
    whole = path.read_bytes()
    path.unlink()
    path.mkdir()
    run = train(pictures(), tmp_path / "run", epochs=1, resume=True)
    assert run.stopped == "finished"
    assert [w[: -len(w.split(": ")[-1])] for w in run.warnings] == [f"there is no report: cannot write {path}: "]
    assert sorted(p.name for p in (tmp_path / "run").iterdir() if p.name.startswith(".")) == []
    path.rmdir()
    assert train(pictures(), tmp_path / "run", epochs=1, resume=True).warnings == ()
    assert path.read_bytes() == whole


# Charts


def test_a_chart_by_hand():
    line = charts.Series("s", "a", [(0, 0.0), (5, float("nan")), (10, 1.0)], [1, 1, 4])
    chart = charts.chart("says", ("x", "y"), ((0, 10), (0.0, 1.0)), [line], best=(10, 1.0, "top"), even=True)
    left, right, top, bottom = 62.0, 380.0, 30.0, 226.0
    assert chart.lines == [("s", "a", [(left, bottom), (right, top)], [(left, bottom, 2.2), (right, top, 4.5)])]
    assert chart.best == (right, top, "top")
    assert chart.ticks[0] == [(left + 31.8 * x, f"{x}") for x in (0, 2, 4, 6, 8, 10)]
    assert [words for _, words in chart.ticks[1]] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert chart.even == ((left, bottom), (left + 31.8, top))


def test_a_matrix_by_hand():
    matrix = charts.matrix("says", np.array([[1.0, 0.3], [0.0, 0.2]]))
    assert matrix.cell == 173
    assert matrix.ticks == [(130.5, "0"), (303.5, "1")]
    assert matrix.marks == [
        ("square", 0.4, "M1 1h1v1h-1z"),
        ("square", 1.0, "M0 0h1v1h-1z"),
        ("diamond", pytest.approx(0.6), "M1.5 0l.5.5-.5.5-.5-.5z"),
    ]


def test_a_chart_of_one_epoch_and_of_many():
    one = charts.chart("", ("", ""), ((1, 1), (0.0, 0.0)), [charts.Series("s", "a", [(1, 0.0)])])
    assert one.lines[0][2] == [(221.0, 128.0)]
    assert [words for _, words in one.ticks[0]] == ["1"]
    many = charts.chart(
        "", ("", ""), ((1, 99), (0.0, 1.0)), [charts.Series("s", "a", [(i, 0.5) for i in range(1, 99)])]
    )
    assert len(many.lines[0][2]) == 98
    assert many.lines[0][3] == []


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 3), (-7.3, 2e6), (0.97, 0.98), (1e-9, 2e-9), (5, 5.0000001)])
def test_ticks_are_round_and_within(low, high):
    found = charts.ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low <= t <= high for t in found)
    assert np.allclose(np.diff(found), found[1] - found[0])
    assert all(t == int(t) for t in charts.ticks(low, high, whole=True))
