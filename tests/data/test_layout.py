from __future__ import annotations

import os

import numpy as np
import pytest

from selftaught.data import check, open_source, require_labels
from selftaught.data.layout import layout
from selftaught.data.source import LEFT_OUT, TEST, TRAIN, UNLABELLED, VAL
from selftaught.errors import UserError
from tests.data.helpers import folder_of, write


def meant(names, listed=None):
    """(class of each name or None, its split) of a layout."""
    found = layout(names, listed)
    classes = None if found.labels is None else [found.classes[k] if k >= 0 else None for k in found.labels]
    return classes, None if found.given is None else found.given.tolist()


def test_tiny_imagenet(tmp_path):
    names = [f"train/n0{w}/images/n0{w}_{i}.JPEG" for w in (1, 2) for i in range(3)]
    names += [f"val/images/val_{i}.JPEG" for i in range(2)] + [f"test/images/test_{i}.JPEG" for i in range(2)]
    folder_of(tmp_path, names)
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n")
    (tmp_path / "train" / "n01" / "n01_boxes.txt").write_text("n01_0.JPEG\t0\t0\t9\t9\n")
    train, test = (open_source(tmp_path, split=s) for s in ("train", "test"))
    assert train.classes == ["n01", "n02"]
    assert list(train.names) == names[:6]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert list(test.names) == names[6:8]
    assert test.labels.tolist() == [1, 0]
    whole = open_source(tmp_path, split="all")
    assert whole.notes == ["left out: the test part, whose 2 files have no classes"]
    assert whole.describe().endswith(
        "/: 10 images, 3 channels, 2 classes, 6 to train + 2 to validate + 2 in none of these parts"
    )
    assert dict(zip(whole.names, whole.labels.tolist(), strict=True))["test/images/test_0.JPEG"] == -1


def test_a_stray_file_beside_class_folders(tmp_path):
    names = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png", "overview.png"]
    folder_of(tmp_path, names)
    source = open_source(tmp_path, split="all")
    assert (list(source.names), source.classes) == (names, ["cat", "dog"])
    assert source.labels.tolist() == [0, 0, 1, 1, -1]
    note = "1 file beside the class folders, without label"
    assert source.notes[0] == note
    assert "4 to train + 1 without label" in source.describe()
    assert note in str(check(tmp_path))
    assert check(tmp_path).classes == {"cat": 2, "dog": 2}
    train, test, wide = (open_source(tmp_path, split=s, by="ratio:0.5") for s in ("train", "test", "pretrain"))
    assert sorted([*train.names, *test.names]) == names[:4]
    assert set(train.labels) == set(test.labels) == {0, 1}
    assert sorted(wide.names) == sorted([*train.names, "overview.png"])
    with pytest.raises(UserError, match="1 sample has no label; take split=train"):
        require_labels(source)


def test_strays_inside_and_beside_a_split():
    names = [f"{s}/{c}/{i}.png" for s in ("train", "test") for c in "ab" for i in range(3)]
    strays = ["train/x.png", "test/x.png", "readme.png", "docs/logo.png"]
    classes, given = meant([*names, *strays])
    assert classes == ["a"] * 3 + ["b"] * 3 + ["a"] * 3 + ["b"] * 3 + [None] * 4
    assert given == [TRAIN] * 6 + [TEST] * 6 + [UNLABELLED] + [LEFT_OUT] * 3
    assert layout([*names, *strays]).notes == [
        "left out: 1 file beside the folders of the split",
        "left out: 1 file of docs/ beside the folders of the split",
        "1 file beside the class folders, without label",
        "left out: 1 file beside the class folders of the test part",
        "1 file without label: split=pretrain takes them too, split=train leaves them out",
    ]


def test_stl10(tmp_path):
    names = [f"{s}/{c}/{i}.png" for s in ("test", "train") for c in ("cat", "dog") for i in range(2)]
    names += [f"unlabeled/{i}.png" for i in range(5)]
    folder_of(tmp_path, names)
    train, test, wide, whole = (open_source(tmp_path, split=s) for s in ("train", "test", "pretrain", "all"))
    assert list(train.names) == names[4:8]
    assert list(test.names) == names[:4]
    assert train.labels.tolist() == test.labels.tolist() == [0, 0, 1, 1]
    assert list(wide.names) == names[4:8] + names[8:]
    assert wide.labels is None
    assert wide.subset([0, 1]).labels is None
    assert whole.labels.tolist() == [0, 0, 1, 1] * 2 + [-1] * 5
    assert "4 to train + 4 to test + 5 without label" in whole.describe()
    assert any("5 files without label: split=pretrain" in note for note in train.notes)
    halves = [open_source(tmp_path, split=s, by="ratio:0.5") for s in ("train", "test")]
    assert not any(n.startswith("unlabeled") for half in halves for n in half.names)


def test_unlabelled_beside_train_only_is_divided_by_ratio():
    names = [f"train/{c}/{i}.png" for c in "ab" for i in range(5)] + ["unlabelled/1.png"]
    _, given = meant(names)
    assert given == [TRAIN] * 10 + [UNLABELLED]
    assert meant(["train/1.png", "train/2.png", "unlabeled/3.png"]) == (None, None)


@pytest.mark.parametrize(
    ("folders", "codes"),
    [
        (("Train", "Test"), (TRAIN, TEST)),
        (("training", "testing"), (TRAIN, TEST)),
        (("train2017", "val2017"), (TRAIN, VAL)),
        (("seg_train", "seg_test"), (TRAIN, TEST)),
        (("train_images", "test_images"), (TRAIN, TEST)),
        (("training_set", "test_set"), (TRAIN, TEST)),
        (("train", "dev"), (TRAIN, VAL)),
        (("train", "eval"), (TRAIN, TEST)),
        (("train", "holdout"), (TRAIN, TEST)),
    ],
)
@pytest.mark.parametrize("outer", ["", "data/", "a/b/"])
def test_names_of_split_folders(folders, codes, outer):
    names = [f"{outer}{f}/{c}/{i}.png" for f in folders for c in "xy" for i in range(2)]
    assert meant(names) == (["x", "x", "y", "y"] * 2, [codes[0]] * 4 + [codes[1]] * 4)


def test_doubled_folders_and_a_class_missing_from_the_test_part():
    names = [f"seg_train/seg_train/{c}/{i}.png" for c in "xy" for i in range(2)] + ["seg_test/seg_test/y/1.png"]
    assert meant(names) == (["x", "x", "y", "y", "y"], [TRAIN] * 4 + [TEST])
    names = [f"train/{c}/{i}.png" for c in "xy" for i in range(2)] + ["test/y/1.png", "test/y/2.png"]
    assert meant(names) == (["x", "x", "y", "y", "y", "y"], [TRAIN] * 4 + [TEST] * 2)


def test_classes_of_a_test_part_are_spelt_as_in_training_and_new_ones_are_said():
    """As two classes Cat and cat would each be learnt from nothing, or tested on nothing."""
    names = [f"{p}/1.png" for p in ("train/Cat", "train/Dog", "test/cat", "test/DOG", "test/owl")]
    assert meant(names) == (["Cat", "Dog", "Cat", "Dog", "owl"], [TRAIN] * 2 + [TEST] * 3)
    assert layout(names).notes == [
        "2 classes taken as spelt in the training part: DOG as Dog, cat as Cat",
        "1 class without a training sample: owl",
    ]
    names = [f"{p}/1.png" for p in ("train/a", "train/A", "train/b", "test/a", "test/B")]
    assert meant(names)[0] == ["a", "A", "b", "a", "b"]


def test_a_test_part_keeps_its_classes_beside_one_that_has_none():
    """The layout of the Intel scenes: pictures to predict lie beside those to test on."""
    names = [f"seg_{s}/seg_{s}/{c}/{i}.png" for s in ("train", "test") for c in "xy" for i in range(2)]
    names += [f"seg_pred/seg_pred/{i}.png" for i in range(3)]
    classes = ["x", "x", "y", "y"] * 2 + [None] * 3
    assert meant(names) == (classes, [TRAIN] * 4 + [TEST] * 4 + [LEFT_OUT] * 3)
    assert layout(names).notes == ["left out: 3 files beside the class folders of the test part"]


def test_a_test_part_without_classes_is_never_trained_on():
    names = [f"train/{c}/{i}.png" for c in "xy" for i in range(3)] + ["test/1.png", "test/2.png"]
    assert meant(names) == (["x"] * 3 + ["y"] * 3 + [None] * 2, [TRAIN] * 6 + [LEFT_OUT] * 2)
    assert layout(names).notes == ["left out: the test part, whose 2 files have no classes"]


def test_splits_inside_classes():
    names = [f"{c}/{s}/{i}.png" for c in ("cup", "nut") for s in ("test", "train") for i in range(2)]
    assert meant(names) == (["cup"] * 4 + ["nut"] * 4, [TEST, TEST, TRAIN, TRAIN] * 2)


def test_outer_and_inner_folders_of_one_name_mean_nothing():
    names = [f"images/{c}/img/{i}.png" for c in ("a", "b") for i in range(2)]
    assert meant(names) == (["a", "a", "b", "b"], None)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a/1.png", "b/c/2.png", "b/d/3.png"], "sub-folders of several names"),
        (["images/1.png", "masks/1.png"], "images, masks are parts of a sample, not classes"),
        (["a/1.png", "b/1.png", "2.png", "3.png"], "2 of 4 files lie beside its sub-folders"),
        (["a/1.png", "2.png"], "1 file beside its one sub-folder"),
    ],
)
def test_labels_that_are_dropped_are_said(names, said):
    found = layout(names)
    assert found.labels is None
    assert len(found.notes) == 1
    assert said in found.notes[0]


def test_flat_folders_say_nothing():
    assert layout(["1.png", "2.png"]).notes == []
    assert layout(["a/1.png", "a/2.png"]).notes == []


def test_pictures_that_cannot_be_read_are_counted(tmp_path):
    folder_of(tmp_path, ["1.png", "2.png"])
    for k in range(3):
        (tmp_path / f"{k}.HEIC").write_bytes(b"x")
        (tmp_path / f"{k}.gif").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("no picture")
    source = open_source(tmp_path, split="all")
    assert source.left_out == {".heic": 3, ".gif": 3}
    assert "not read: 3 .heic and 3 .gif" in source.describe()
    assert source.notes == ["3 .heic, 3 .gif can't be read and are left out; convert them to .png or .jpg"]
    (tmp_path / "walk.mp4").write_bytes(b"x")
    assert open_source(tmp_path, split="all").notes == [
        "3 .heic can't be read and are left out; convert them to .png or .jpg",
        "1 video and 3 .gif here: methods for clips take them (--modality clip)",
    ]
    (tmp_path / "walk.mp4").unlink()
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "1.gif").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no image in this folder or below.*; there are 1 \.gif, which can't be read"):
        open_source(tmp_path / "only", modality="image")


def test_folders_named_by_numbers_are_targets_by_value(tmp_path):
    folder_of(tmp_path, [f"{age}/{i}.png" for age in ("10", "2.5", "-3", "100") for i in range(2)])
    source = open_source(tmp_path, split="all")
    assert source.targets.dtype == np.float64
    by_name = dict(zip(source.names, source.targets.tolist(), strict=True))
    assert [by_name[f"{age}/1.png"] for age in ("10", "2.5", "-3", "100")] == [10, 2.5, -3, 100]
    assert source.subset([3, 0]).targets.tolist() == source.targets[[3, 0]].tolist()
    assert open_source(folder_of(tmp_path / "words", ["a/1.png", "b/1.png"]), split="all").targets is None


def test_names_are_the_names_on_disk(tmp_path):
    names = ["a b,c.png", 'quote".png', "ümlaut.png", "=1+1.png", "new\nline.png"]
    folder_of(tmp_path, names)
    odd = os.fsencode(str(tmp_path)) + b"/bad\xff.png"
    with open(odd, "wb") as file:
        file.write((tmp_path / names[0]).read_bytes())
    source = open_source(tmp_path, split="all")
    assert set(source.names) == {*names, "bad\udcff.png"}
    assert all(source.read(i).shape == (20, 24, 3) for i in range(6))
    assert len(source.fingerprint()) == 32


@pytest.mark.parametrize("by", ["ration:0.2", "", "given2", "ratio:x", "ratio:2", "list:", "list:/nowhere.txt", None])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_bad_way_to_split_is_said(tmp_path, by, split):
    folder_of(tmp_path, [f"{c}/{i}.png" for c in "ab" for i in range(3)])
    with pytest.raises(UserError, match="by="):
        open_source(tmp_path, split=split, by=by)


def test_a_bad_way_to_split_is_said_for_all_too(tmp_path):
    folder_of(tmp_path, ["1.png", "2.png"])
    with pytest.raises(UserError, match=r"by='ration:0.2' is none of .*did you mean ratio"):
        open_source(tmp_path, split="all", by="ration:0.2")
    with pytest.raises(UserError, match="no such readable text file"):
        open_source(tmp_path, split="all", by="list:/nowhere.txt")


def test_the_fingerprint_follows_what_a_run_depends_on(tmp_path):
    folder_of(tmp_path, ["a/1.png", "a/2.png", "b/3.png"])

    def fingerprint():
        return open_source(tmp_path, split="all").fingerprint()

    seen = [fingerprint()]
    (tmp_path / "a").rename(tmp_path / "c")
    seen.append(fingerprint())
    (tmp_path / "c" / "1.png").rename(tmp_path / "c" / "9.png")
    seen.append(fingerprint())
    first, second = (tmp_path / "c" / "9.png"), (tmp_path / "c" / "2.png")
    first.rename(tmp_path / "swap")
    second.rename(first)
    (tmp_path / "swap").rename(second)
    seen.append(fingerprint())
    write(tmp_path / "b" / "3.png", (tmp_path / "c" / "2.png").read_bytes())
    seen.append(fingerprint())
    assert len(set(seen)) == len(seen)
    assert fingerprint() == seen[-1]
