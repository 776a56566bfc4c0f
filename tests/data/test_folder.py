"""Folders of class folders: layout, sizes, what is skipped, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from made import picture
from pellucid.data.folder import load_folder
from pellucid.data.images import open_image, to_array
from pellucid.errors import DataError, OptionError


@pytest.mark.capability("E10")
def test_one_folder_for_each_class(photos):
    notes = []
    ds = load_folder(photos, notes=notes.append)
    assert ds.classes == ("cat", "dog")
    assert ds.images.shape == (20, 3, 8, 8)
    assert (ds.images.dtype, ds.value_range, ds.name) == (np.uint8, (0, 255), "photos")
    assert ds.targets.tolist() == [0] * 10 + [1] * 10
    assert ds.ids[0] == "cat/00.png"
    assert ds.ids[19] == "dog/09.png"
    assert ds.splits.train.tolist() == list(range(20))
    assert (ds.skipped, notes) == ((), [])
    for i in (0, 13):
        assert np.array_equal(ds.images[i], to_array(open_image(photos / ds.ids[i]), None, 3))


@pytest.mark.capability("E10")
def test_folders_of_parts(parted):
    ds = load_folder(parted)
    assert ds.splits.train.tolist() == list(range(8))
    assert ds.splits.val.tolist() == list(range(8, 12))
    assert ds.splits.test.tolist() == list(range(12, 18))
    assert ds.ids[8] == "val/cat/0.png"
    assert ds.targets[ds.splits.test].tolist() == [0, 0, 0, 1, 1, 1]
    (parted / "val").rename(parted / "Validation")
    assert load_folder(parted).ids[8] == "Validation/cat/0.png"


def test_classes_are_sorted_by_name_and_suffixes_may_be_capital(tmp_path):
    for name in ("b", "B", "10", "2", "ä"):
        picture(tmp_path / name / "X.PNG", 1)
    assert load_folder(tmp_path).classes == ("10", "2", "B", "b", "ä")


def test_gray_only_if_every_image_is(tmp_path):
    picture(tmp_path / "a" / "1.png", 1, mode="L")
    picture(tmp_path / "b" / "1.png", 2, mode="L")
    assert load_folder(tmp_path).shape == (1, 8, 8)
    picture(tmp_path / "b" / "2.png", 3)
    ds = load_folder(tmp_path)
    assert ds.shape == (3, 8, 8)
    assert np.array_equal(ds.images[0, 0], ds.images[0, 2])


class TestSizes:
    def test_up_to_96_pixels_they_keep_their_own(self, tmp_path):
        for name in "ab":
            picture(tmp_path / name / "1.png", 1, (96, 20))
        assert load_folder(tmp_path).shape == (3, 96, 20)

    def test_larger_ones_become_64_and_that_is_said(self, tmp_path):
        for name in "ab":
            picture(tmp_path / name / "1.png", 1, (20, 97))
        notes = []
        assert load_folder(tmp_path, notes=notes.append).shape == (3, 64, 64)
        assert notes == ["the images are 20x97; all are resized to 64x64, as long as no size (--size HxW) is given"]

    def test_different_ones_become_64_and_that_is_said(self, tmp_path):
        small, large = picture(tmp_path / "a" / "1.png", 1, (10, 20)), picture(tmp_path / "b" / "1.png", 2, (300, 200))
        notes = []
        ds = load_folder(tmp_path, notes=notes.append)
        assert notes[0].startswith("the images have 2 sizes, from 10x20 to 300x200; all are resized to 64x64")
        for i, path in enumerate((small, large)):
            assert np.array_equal(ds.images[i], to_array(open_image(path), (64, 64), 3))

    def test_a_given_one_holds(self, tmp_path):
        for k, name in enumerate("ab"):
            picture(tmp_path / name / "1.png", 1, (10 + k, 20))
        notes = []
        assert load_folder(tmp_path, size=(30, 12), notes=notes.append).shape == (3, 30, 12)
        assert notes == []
        with pytest.raises(OptionError, match="size must be at least 1"):
            load_folder(tmp_path, size=(0, 3))


@pytest.mark.capability("H7")
def test_bad_files_are_left_out_with_their_reason(photos):
    whole = (photos / "cat" / "01.png").read_bytes()
    (photos / "cat" / "01.png").write_bytes(whole[:-40])
    (photos / "dog" / "list.jpg").write_text("milk\n")
    ds = load_folder(photos)
    assert len(ds) == 19
    assert [s.file for s in ds.skipped] == ["cat/01.png", "dog/list.jpg"]
    assert "truncated" in ds.skipped[0].reason
    assert "text file" in ds.skipped[1].reason
    with pytest.raises(DataError, match=r"cat/01.png: truncated"):
        load_folder(photos, strict=True)


@pytest.mark.capability("H7")
def test_sideways_photos_stand_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in "ab":
        picture(tmp_path / name / "1.png", 1, (10, 30), exif=exif)
    assert load_folder(tmp_path).shape == (3, 30, 10)


def test_other_and_hidden_files_do_not_count(photos):
    (photos / "cat" / "Thumbs.db").write_bytes(b"x")
    (photos / "labels.csv").write_text("a,b\n")
    (photos / "cat" / "._00.png").write_bytes(b"x")
    (photos / ".git").mkdir()
    (photos / "__MACOSX").mkdir()
    ds = load_folder(photos, strict=True)
    assert (len(ds), ds.classes) == (20, ("cat", "dog"))


def test_folders_inside_and_loops_of_links(photos):
    picture(photos / "cat" / "more" / "x.png", 500)
    (photos / "cat" / "more" / "again").symlink_to(photos / "cat", target_is_directory=True)
    (photos / "dog" / "up").symlink_to(photos / "dog", target_is_directory=True)
    (photos / "dog" / "all").symlink_to(photos, target_is_directory=True)  # in which cats would be dogs
    ds = load_folder(photos)
    assert len(ds) == 21
    assert "cat/more/x.png" in ds.ids


def test_progress(photos):
    seen = []
    load_folder(photos, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 20) for i in range(1, 21)]


class TestRefused:
    def test_no_folder(self, tmp_path):
        with pytest.raises(DataError, match="gone is not there; check the path"):
            load_folder(tmp_path / "gone")
        with pytest.raises(DataError, match="is not a folder"):
            load_folder(picture(tmp_path / "a.png", 1))

    def test_nothing_in_it(self, tmp_path):
        with pytest.raises(DataError, match="holds nothing; expected one folder of images for each class"):
            load_folder(tmp_path)
        (tmp_path / "a.txt").touch()
        with pytest.raises(DataError, match="holds no images and no class folders"):
            load_folder(tmp_path)

    def test_images_without_class_folders(self, tmp_path):
        picture(tmp_path / "rex.png", 1)
        with pytest.raises(DataError, match=r"no class folders; put the images of each class into .*cat/rex\.png"):
            load_folder(tmp_path)

    def test_one_class_only(self, photos):
        with pytest.raises(DataError, match=r'only one class, "photos"; did you mean .*photos'):
            load_folder(photos.parent)
        for file in (photos / "dog").iterdir():
            file.unlink()
        (photos / "dog").rmdir()
        with pytest.raises(DataError, match='only one class, "cat"; add a folder for each other class'):
            load_folder(photos)

    def test_a_class_without_readable_images(self, photos):
        (photos / "eel").mkdir()
        with pytest.raises(DataError, match="no readable image for eel; put images there or remove the folder"):
            load_folder(photos)
        (photos / "eel" / "1.jpg").write_text("x")
        with pytest.raises(DataError, match=r"for eel; .* \(1 unreadable, as eel/1.jpg: a text file"):
            load_folder(photos)

    def test_parts_with_different_classes(self, parted):
        picture(parted / "train" / "eel" / "1.png", 7)
        with pytest.raises(DataError, match="val/ has no folder for eel, which another part has"):
            load_folder(parted)

    def test_parts_beside_classes(self, parted):
        picture(parted / "eel" / "1.png", 7)
        with pytest.raises(DataError, match="has test, train, val beside eel; it must hold either"):
            load_folder(parted)

    def test_two_folders_for_one_part_and_no_train(self, parted):
        (parted / "valid").mkdir()
        with pytest.raises(DataError, match="expected one train/, and val/ or test/ beside it"):
            load_folder(parted)
        (parted / "valid").rmdir()
        (parted / "train").rename(parted / "validation")
        with pytest.raises(DataError, match="expected one train/"):
            load_folder(parted)

    def test_images_directly_in_a_part(self, parted):
        for name in ("cat", "dog"):
            (parted / "test" / name).rename(parted / f".{name}")
        picture(parted / "test" / "1.png", 1)
        with pytest.raises(DataError, match="test holds images, but no class folders"):
            load_folder(parted)


def test_a_folder_that_was_not_meant_is_refused_in_one_short_line(tmp_path):
    for i in range(30):
        (tmp_path / f"part{i:02}").mkdir()
    with pytest.raises(DataError, match="no readable image for part00, part01, part02, part03, part04 and 25 more"):
        load_folder(tmp_path)
