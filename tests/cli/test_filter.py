"""pellucid filter."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from made import picture
from pellucid import filters

pytestmark = pytest.mark.capability("H34")


def gray_of(path):
    return np.asarray(Image.open(path)) / 255


@pytest.mark.capability("A12", "A14")
def test_a_named_kernel(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo = picture(tmp_path / "in" / "photo.png", 0, (9, 7))
    code, out, err = cli("filter", photo, "--kernel", "sobel-x")
    assert (code, out, err) == (0, "wrote photo-sobel-x.png\n", "")
    kernel = filters.KERNELS["sobel-x"]
    expected = filters.to_unit(filters.apply(filters.read_gray(photo), kernel), kernel)
    assert np.abs(gray_of(tmp_path / "photo-sobel-x.png") - expected).max() <= 0.5 / 255 + 1e-9
    assert cli("filter", photo, "--kernel", "sobel-x", "--equalize", "--out", "e.png").code == 0
    assert np.abs(gray_of(tmp_path / "e.png") - filters.equalize(expected)).max() <= 0.5 / 255 + 1e-9


@pytest.mark.capability("A12")
def test_a_kernel_from_a_file(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo = picture(tmp_path / "photo.png", 0, (5, 6))
    (tmp_path / "k.txt").write_text("0 0 0\n0 1 0\n0 0 0\n")
    assert cli("filter", photo, "--kernel", "k.txt", "--out", "o.PNG").code == 0
    assert np.array_equal(gray_of(tmp_path / "o.PNG"), filters.read_gray(photo))


@pytest.mark.capability("A13")
def test_the_sheet_of_all_kernels(cli, tmp_path):
    photo = picture(tmp_path / "photo.png", 0, (12, 16))
    assert cli("filter", photo, "--kernel", "all", "--out", tmp_path / "sheet.png").code == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 1000


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["photo.png", "--kernel", "sobl-x"], 'unknown kernel "sobl-x"; did you mean "sobel-x"'),
        (["photo.png", "--kernel", "none.txt"], "there is no kernel file none.txt"),
        (["photo.png", "--kernel", "box", "--out", "a.jpg"], "--out must end in .png, got a.jpg"),
        (["nothing.png", "--kernel", "box"], "cannot read image nothing.png: there is no such file"),
        (["photo.png", "--kernel", "box", "--out", "no/where.png"], "cannot write no/where.png"),
    ],
)
def test_one_line_for_what_cannot_be(cli, tmp_path, monkeypatch, words, match):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "photo.png", 0)
    code, out, err = cli("filter", *words)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert match in err
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"photo.png"}
