from __future__ import annotations

import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from selftaught.data import open_source
from selftaught.data.files import walk
from selftaught.data.layout import layout
from selftaught.errors import SampleError, UserError
from tests.data.helpers import encode, folder_of, picture, write


def test_a_flat_folder_has_sorted_names_and_no_labels(tmp_path):
    folder_of(tmp_path, ["b.png", "a.png", "c/d/e.png", ".hidden.png", "__MACOSX/x.png"])
    source = open_source(tmp_path, split="all")
    assert list(source.names) == ["a.png", "b.png", "c/d/e.png"]
    assert source.labels is None
    assert source.classes is None
    assert source.name == f"{tmp_path.name}/"
    np.testing.assert_array_equal(source.read(1), picture(20, 24, seed=0))


def test_class_folders_are_labels(tmp_path):
    folder_of(tmp_path, ["dog/1.png", "cat/1.png", "cat/2.png", "dog/2.png"])
    source = open_source(tmp_path, split="all")
    assert source.classes == ["cat", "dog"]
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert source.labels.dtype == np.int64


@pytest.mark.parametrize("names", [["a/1.png", "a/2.png"], ["a/1.png", "b/c/2.png"], ["1.png", "a/2.png"]])
def test_other_layouts_are_no_classes(tmp_path, names):
    assert open_source(folder_of(tmp_path, names), split="all").labels is None


def test_given_split_with_classes(tmp_path):
    folder_of(tmp_path, [f"{s}/{c}/{i}.png" for s in ("train", "test", "val") for c in ("x", "y") for i in range(2)])
    train, test, val = (open_source(tmp_path, split=s) for s in ("train", "test", "val"))
    assert all(n.startswith("train/") for n in train.names)
    assert all(n.startswith("test/") for n in test.names)
    assert all(n.startswith("val/") for n in val.names)
    assert train.classes == ["x", "y"]
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert len(open_source(tmp_path, split="all")) == 12


def test_val_is_the_test_split_where_there_is_no_test(tmp_path):
    folder_of(tmp_path, ["train/1.png", "train/2.png", "valid/3.png"])
    assert list(open_source(tmp_path, split="test").names) == ["valid/3.png"]


def test_a_lone_train_folder_is_no_given_split():
    assert layout(["train/1.png", "train/2.png"]).given is None
    assert layout(["train/1.png", "other/2.png"]).given is None


def test_every_suffix_upper_or_lower_case(tmp_path):
    image = picture()
    kinds = {
        "a.JPG": "JPEG",
        "b.jpeg": "JPEG",
        "c.PNG": "PNG",
        "d.webp": "WEBP",
        "e.tif": "TIFF",
        "f.TIFF": "TIFF",
        "g.bmp": "BMP",
    }
    for name, kind in kinds.items():
        write(tmp_path / name, encode(image, kind))
    np.save(tmp_path / "h.npy", image)
    (tmp_path / "notes.txt").write_text("no image")
    source = open_source(tmp_path, split="all")
    assert len(source) == 8
    for i in range(8):
        assert source.read(i).shape == (48, 64, 3)


def test_grey_and_alpha_in_a_colour_folder(tmp_path):
    for k in range(4):
        write(tmp_path / f"{k}.png", picture(seed=k))
    write(tmp_path / "grey.png", picture(channels=1))
    clear = picture(channels=4)
    clear[..., 3] = 0
    write(tmp_path / "clear.png", clear)
    source = open_source(tmp_path, split="all")
    assert source.channels == 3
    grey = source.read(source.names.index("grey.png"))
    np.testing.assert_array_equal(grey, np.repeat(picture(channels=1), 3, axis=2))
    assert (source.read(source.names.index("clear.png")) == 255).all()


def test_four_channels_stay_where_all_have_them(tmp_path):
    for k in range(3):
        write(tmp_path / f"{k}.png", picture(channels=4, seed=k))
    source = open_source(tmp_path, split="all")
    assert source.channels == 4
    np.testing.assert_array_equal(source.read(2), picture(channels=4, seed=2))
    assert open_source(tmp_path, split="all", channels=3).read(0).shape[2] == 3
    assert open_source(f"{tmp_path}?channels=1", split="all").read(0).shape[2] == 1


def test_thirteen_channels_of_sixteen_bits(tmp_path):
    images = np.random.default_rng(0).integers(0, 3000, (5, 32, 40, 13)).astype(np.uint16)
    for k, image in enumerate(images):
        tifffile.imwrite(tmp_path / f"{k}.tif", image, photometric="minisblack", planarconfig="contig")
    write(tmp_path / "wrong.png", picture())
    source = open_source(tmp_path, split="all")
    assert source.channels == 13
    np.testing.assert_array_equal(source.read(3), images[3])
    assert len(source.value_range) == 13
    assert 2900 < source.value_range[0][1] < 3000
    with pytest.raises(SampleError, match="3 channels where the source has 13"):
        source.read(5)


def test_what_is_wrong_with_a_file_is_said_when_it_is_read(tmp_path):
    folder_of(tmp_path, ["0.png", "1.png", "2.png"])
    write(tmp_path / "empty.png", b"")
    write(tmp_path / "text.jpg", b"hello")
    write(tmp_path / "cut.jpg", encode(picture(), "JPEG")[:-200])
    np.save(tmp_path / "nan.npy", np.full((4, 4, 3), np.nan, np.float32))
    np.save(tmp_path / "two.npy", np.zeros((9, 12, 2), np.uint8))
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    source = open_source(tmp_path, split="all")
    said = {}
    for i in range(len(source)):
        try:
            source.read(i)
        except SampleError as error:
            said[error.name] = error.reason
    assert said == {
        "empty.png": "empty file",
        "text.jpg": "not an image that OpenCV or Pillow can read",
        "cut.jpg": "truncated JPEG",
        "nan.npy": "NaN or infinite values (100.00% of them)",
        "two.npy": "2 channels where the source has 3",
        "gone.png": "missing",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_forbidden_file_is_a_bad_sample(tmp_path):
    folder_of(tmp_path, ["0.png", "1.png"])
    (tmp_path / "1.png").chmod(0)
    with pytest.raises(SampleError, match="can't be opened"):
        open_source(tmp_path, split="all").read(1)


def test_a_folder_where_everything_is_broken_opens_and_reports(tmp_path):
    write(tmp_path / "a.png", b"x")
    with pytest.raises(SampleError, match="not an image"):
        open_source(tmp_path, split="all").read(0)


def test_glob_names_start_after_the_fixed_part(tmp_path):
    folder_of(tmp_path, ["x/1.png", "x/2.png", "y/1.png", "y/z/3.png"])
    assert list(open_source(f"{tmp_path}/*/1.png", split="all").names) == ["x/1.png", "y/1.png"]
    assert list(open_source(f"{tmp_path}/**/*.png", split="all").names) == [
        "x/1.png",
        "x/2.png",
        "y/1.png",
        "y/z/3.png",
    ]
    assert list(open_source(f"{tmp_path}/x/?.png", split="all").names) == ["1.png", "2.png"]


def test_single_file_and_list_of_files(tmp_path):
    folder_of(tmp_path, ["x/1.png", "y/2.png"])
    one = open_source(tmp_path / "x" / "1.png", split="all")
    assert (len(one), list(one.names), one.labels) == (1, ["1.png"], None)
    two = open_source([tmp_path / "y" / "2.png", tmp_path / "x" / "1.png"], split="all")
    assert list(two.names) == ["y/2.png", "x/1.png"]
    np.testing.assert_array_equal(two.read(1), one.read(0))


def test_reading_reduced_keeps_the_side(tmp_path):
    write(tmp_path / "a.jpg", encode(picture(400, 480), "JPEG"))
    source = open_source(tmp_path, split="all")
    assert source.read(0).shape == (400, 480, 3)
    assert source.read(0, 100).shape == (100, 120, 3)
    assert source.subset([0]).read(0, min_side=150).shape == (200, 240, 3)


def test_links_in_a_circle_end(tmp_path):
    folder_of(tmp_path, ["a/1.png"])
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert walk(tmp_path, (".png",)) == ["a/1.png"]


def test_pickled_sources_read_the_same(tmp_path):
    folder_of(tmp_path, ["a/1.png", "b/2.png"])
    source = open_source(tmp_path, split="all")
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.read(1), source.read(1))
    assert again.fingerprint() == source.fingerprint()


def test_fingerprint_follows_content_not_place(tmp_path):
    folder_of(tmp_path / "one", ["a.png", "b.png"])
    before = open_source(tmp_path / "one", split="all").fingerprint()
    assert open_source(tmp_path / "one", split="all").fingerprint() == before
    (tmp_path / "one").rename(tmp_path / "two")
    assert open_source(tmp_path / "two", split="all").fingerprint() == before
    write(tmp_path / "two" / "a.png", picture(21, 24, seed=9))
    changed = open_source(tmp_path / "two", split="all").fingerprint()
    assert changed != before
    assert open_source(tmp_path / "two", split="all").subset([0]).fingerprint() != changed


def test_exif_is_honoured_through_a_source(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "a.jpg", encode(picture(40, 60), "JPEG", exif=exif))
    assert open_source(tmp_path, split="all").read(0).shape == (60, 40, 3)


def test_an_empty_folder_says_what_was_looked_for(tmp_path):
    (tmp_path / "notes.md").write_text("nothing")
    with pytest.raises(
        UserError,
        match=r"no image in this folder or below; looked for \.jpg \.jpeg \.png \.webp \.tif \.tiff \.bmp \.npy",
    ):
        open_source(tmp_path)


def test_a_pattern_without_match(tmp_path):
    with pytest.raises(UserError, match=r"no image matches this pattern"):
        open_source(f"{tmp_path}/*.png")


def test_pipes_and_devices_are_passed_over_and_named(tmp_path: Path) -> None:
    folder_of(tmp_path, ["a.png", "b.png", "c.png"])
    os.mkfifo(tmp_path / "waits.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    passed: Counter[str] = Counter()
    assert "waits.png" not in walk(tmp_path, (".png",), passed)
    assert passed["pipes and devices"] == 2
    assert len(open_source(tmp_path, split="all")) == 3
    for pattern in ("*.png", "**/*", "[a-z]*"):
        source = open_source(f"{tmp_path}/{pattern}", split="all")
        assert (len(source), source.left_out) == (3, {"pipes and devices": 2})
