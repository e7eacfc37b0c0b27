"""Sources made of sources: pairs by name, one after the other, stacks of slices, samples after a function."""

from __future__ import annotations

import functools
import pickle
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest

from selftaught.data import Concat, Grouped, Mapped, Pairs, by_field, check, open_source, pack, split_source, take
from selftaught.data.fields import Field
from selftaught.data.source import TEST, TRAIN, Source
from selftaught.errors import SampleError, UserError
from tests.data.helpers import encode, folder_of, picture, write


def images(root: Path, names: list[str], **options: object) -> Source:
    return open_source(str(folder_of(root, names)), split="all", **options)


def series(channels: int = 2, classes: list[str] | None = None, labels: object = None, n: int = 4) -> Source:
    table = {"x": np.random.default_rng(0).normal(size=(n, channels, 30))}
    source = open_source(table, modality="series", split="all")
    source.labels, source.classes = (None if labels is None else np.array(labels)), classes
    return source


# ---- pairs -----------------------------------------------------------------------------------------------------------
def test_pairs_join_names_whose_accents_are_composed_otherwise(tmp_path: Path) -> None:
    apart, composed = (unicodedata.normalize(form, "é1.png") for form in ("NFD", "NFC"))
    low, high = images(tmp_path / "lr", [apart, "b.png"]), images(tmp_path / "hr", [composed, "b.png"])
    pairs = Pairs({"low": low, "high": high})
    assert sorted(pairs.names) == sorted([apart, "b.png"])
    with pytest.raises(UserError, match="samples without a partner"):
        Pairs({"low": low, "high": high}, by="name")


def test_pairs_join_by_name_without_suffix_whatever_the_order(tmp_path: Path) -> None:
    low = images(tmp_path / "lr", ["a/1.png", "a/2.png", "b/3.png"])
    for k, name in enumerate(["b/3", "a/2", "a/1"]):
        write(tmp_path / f"hr/{name}.bmp", encode(picture(40, 48, seed=10 + k), "BMP"))
    high = open_source(str(tmp_path / "hr"), split="all")
    pairs = Pairs({"low": low, "high": high})
    assert pairs.fields == {"low": Field("image", 3), "high": Field("image", 3), "label": Field("label")}
    assert (pairs.main, pairs.modality, pairs.names) == ("low", "image", low.names)
    sample = pairs.sample(2)
    np.testing.assert_array_equal(sample["low"], low.read(2))
    np.testing.assert_array_equal(sample["high"], picture(40, 48, seed=10))
    assert sample["label"] == 1
    assert pairs.describe() == "lr/ + hr/: 3 images, 3 channels, 2 classes, each with high (images)"
    again = pickle.loads(pickle.dumps(pairs))
    np.testing.assert_array_equal(again.sample(1)["high"], sample["high"] * 0 + again.parts["high"].read(1))
    assert again.fingerprint() == pairs.fingerprint()
    part = pairs.subset([2, 0])
    assert part.fields == pairs.fields
    np.testing.assert_array_equal(part.sample(0, ["high"])["high"], sample["high"])


def test_missing_partners_are_listed_or_dropped_and_counted(tmp_path: Path) -> None:
    low, high = images(tmp_path / "lr", ["1.png", "2.png", "4.png"]), images(tmp_path / "hr", ["2.png", "3.png"])
    said = r"without a partner \(not in lr/: 3; not in hr/: 1, 4\); add them, or leave them out with missing=drop"
    with pytest.raises(UserError, match=said):
        Pairs({"low": low, "high": high})
    pairs = Pairs({"low": low, "high": high}, missing="drop")
    assert (pairs.names, pairs.dropped) == (["2.png"], 3)
    assert pairs.describe().endswith("; 3 without a partner left out")
    other = images(tmp_path / "no", [f"x{k}.png" for k in range(9)])
    with pytest.raises(UserError, match=r"no two samples share a name \(lr/ has '1', no/ has 'x0'\)"):
        Pairs({"low": low, "high": other}, missing="drop")
    with pytest.raises(UserError, match="x0, x1, x2, x3, x4 and 3 more"):
        Pairs({"low": other, "high": other.subset([8])})


def test_duplicates_are_an_error(tmp_path: Path) -> None:
    twice = images(tmp_path, ["1.png", "2.png"])
    write(tmp_path / "1.bmp", encode(picture(), "BMP"))
    twice = open_source(str(tmp_path), split="all")
    with pytest.raises(UserError, match=r"1\.bmp and 1\.png both go by '1'"):
        Pairs({"a": twice, "b": twice})
    assert len(Pairs({"a": twice, "b": twice}, by="name")) == 3
    with pytest.raises(UserError, match="join one of stem, name"):
        Pairs({"a": twice}, by="suffix")


def test_several_fields_on_one_grid_are_never_reduced_one_alone_is(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / "1.jpg", encode(picture(256, 320), "JPEG"))
    pairs = open_source({"a": tmp_path / "a", "b": tmp_path / "b"}, split="all")
    assert pairs.sample(0, min_side=32)["a"].shape == (256, 320, 3)
    assert pairs.sample(0, ["a"], min_side=32)["a"].shape[0] < 256
    assert pairs.read(0, 32).shape[0] < 256


def test_a_field_called_like_a_kind_is_of_that_kind(tmp_path: Path) -> None:
    images(tmp_path / "rgb", ["1.png", "2.png"])
    for k in (1, 2):
        write(tmp_path / f"seg/{k}.png", np.full((20, 24, 1), k, np.uint8))
        depth = np.full((20, 24), 1000 * k, np.uint16)
        (tmp_path / "d").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"d/{k}.png"), depth)
        (tmp_path / f"rgb/{k}.txt").write_text(f"picture {k}\n")
    spec = f"pairs:{tmp_path}?image=rgb&mask=seg&depth=d&text=rgb"
    source = open_source(spec, split="all")
    assert {n: f.kind for n, f in source.fields.items()} == {
        "image": "image", "mask": "mask", "depth": "depth", "text": "text",
    }  # fmt: skip
    sample = source.sample(1)
    assert (sample["mask"].shape, sample["mask"].max()) == ((20, 24), 2)
    assert (sample["depth"].dtype, sample["depth"][0, 0, 0]) == (np.float32, 2000)
    assert sample["text"] == "picture 2"
    assert check(source).ok == 2


def test_a_spec_names_sub_folders_or_any_sources(tmp_path: Path) -> None:
    images(tmp_path / "lr", ["1.png", "2.png"])
    images(tmp_path / "hr", ["1.png", "2.png", "3.png"])
    with pytest.raises(UserError, match="not in"):
        open_source(f"pairs:{tmp_path}?low=lr&high=hr")
    source = open_source(f"pairs:{tmp_path}?low=lr&high=hr&missing=drop", split="all")
    assert list(source.fields) == ["low", "high"]
    other = open_source(f"pairs:?blurry={tmp_path / 'lr'}&sharp={tmp_path / 'hr'}?channels=1&missing=drop", split="all")
    assert other.fields == {"blurry": Field("image", 3), "sharp": Field("image", 1)}
    with pytest.raises(UserError, match=r"no hrr in .* for high \(did you mean hr"):
        open_source(f"pairs:{tmp_path}?low=lr&high=hrr")
    with pytest.raises(UserError, match="say which sub-folders belong together"):
        open_source(f"pairs:{tmp_path}?low=lr")
    with pytest.raises(UserError, match="missing='some'"):
        open_source({"low": tmp_path / "lr", "high": tmp_path / "hr"}, missing="some")


def test_pairs_split_and_limit_like_any_source(tmp_path: Path) -> None:
    names = [f"{s}/{c}/{k}.png" for s in ("train", "test") for c in "ab" for k in range(3)]
    images(tmp_path / "x", names)
    images(tmp_path / "y", names)
    test = open_source({"x": tmp_path / "x", "y": tmp_path / "y"}, split="test")
    assert len(test) == 6
    assert test.classes == ["a", "b"]
    few = open_source({"x": tmp_path / "x", "y": tmp_path / "y"}, split="train", n=2)
    assert few.labels is not None
    assert sorted(few.labels.tolist()) == [0, 1]
    np.testing.assert_array_equal(few.sample(1)["x"], few.sample(1)["y"])


def test_a_broken_partner_is_a_sample_error_and_ranges_are_per_field(tmp_path: Path) -> None:
    images(tmp_path / "x", ["1.png", "2.png"])
    for k in (1, 2):
        path = write(tmp_path / f"y/{k}.png", b"")
        cv2.imwrite(str(path), np.full((8, 8), 300 * k, np.uint16))
    source = open_source({"x": tmp_path / "x", "y": tmp_path / "y"}, split="all")
    assert source.value_range is None
    assert source.range_of("x") is None
    assert source.range_of("y") == source.subset([0]).range_of("y") == [[300.0, 600.0]]
    (tmp_path / "y/2.png").write_bytes(b"no picture")
    with pytest.raises(SampleError, match=r"2\.png"):
        source.sample(1)
    assert source.sample(1, ["x"])["x"].shape == (20, 24, 3)
    assert [name for name, _ in check(source).problems] == ["2.png"]


def test_two_parts_must_not_bring_a_field_of_one_name() -> None:
    one, two = series(), series()
    one.values = two.values = {"age": np.zeros(4, np.float32)}
    with pytest.raises(UserError, match="b brings a field 'age', which a has too"):
        Pairs({"a": one, "b": two})
    two.values = {}
    assert list(Pairs({"a": one, "b": two}).fields) == ["a", "b", "age"]


def test_the_devices_of_one_wearer_are_fields() -> None:
    source = series(n=6)
    source.names = ["s1/wrist/0", "s1/wrist/1", "s1/ankle/0", "s1/ankle/1", "s2/wrist/0", "s2/ankle/0"]
    both = by_field(source, "/(?P<field>wrist|ankle)/")
    assert both.names == ["s1/wrist/0", "s1/wrist/1", "s2/wrist/0"]
    sample = both.sample(2)
    np.testing.assert_array_equal(sample["wrist"], source.read(4))
    np.testing.assert_array_equal(sample["ankle"], source.read(5))
    with pytest.raises(UserError, match="without a partner"):
        by_field(source.subset(range(5)), "/(?P<field>wrist|ankle)/")
    assert by_field(source.subset(range(5)), "/(?P<field>wrist|ankle)/", missing="drop").dropped == 1
    with pytest.raises(UserError, match="has no group"):
        by_field(source, "wrist|ankle")
    with pytest.raises(UserError, match="doesn't match the name 's1/ankle/0'"):
        by_field(source, "(?P<field>wrist)")


def test_a_pair_is_not_packed_without_its_other_half(tmp_path: Path) -> None:
    images(tmp_path / "x", ["1.png"])
    pairs = open_source({"a": tmp_path / "x", "b": tmp_path / "x"}, split="all")
    with pytest.raises(UserError, match="its samples have b besides images; go without the cache"):
        pack(pairs, 16, tmp_path / "packs")
    with pytest.raises(UserError, match="only images and clips are packed, not series"):
        pack(series(), 16, tmp_path / "packs")
    alone = images(tmp_path / "x", ["1.png"])
    alone.values = {"age": np.ones(1)}
    assert pack(alone, 16, tmp_path / "packs").sample(0)["age"] == 1


# ---- one after the other ---------------------------------------------------------------------------------------------
def test_classes_are_joined_by_name(tmp_path: Path) -> None:
    one = images(tmp_path / "one", ["cat/1.png", "dog/1.png"])
    two = images(tmp_path / "two", ["ant/1.png", "cat/1.png", "cat/2.png", "dog/9.png"])
    both = Concat([one, two])
    assert both.classes == ["cat", "dog", "ant"]
    assert both.labels is not None
    assert both.labels.tolist() == [0, 1, 2, 0, 0, 1]
    assert both.names[:3] == ["one/cat/1.png", "one/dog/1.png", "two/ant/1.png"]
    np.testing.assert_array_equal(both.read(3), two.read(1))
    assert both.sample(2)["label"] == 2
    again = pickle.loads(pickle.dumps(both))
    assert again.fingerprint() == both.fingerprint() != Concat([two, one]).fingerprint()
    opened = open_source([tmp_path / "one", str(tmp_path / "two")], split="all")
    assert opened.classes == both.classes
    assert opened.describe() == "one/ + two/: 6 images, 3 channels, 3 classes"


def test_names_stay_apart_where_two_sources_are_called_alike(tmp_path: Path) -> None:
    parts = [images(tmp_path / k / "x", ["1.png"]) for k in "ab"]
    assert Concat(parts).names == ["x/1.png", "x#2/1.png"]


def test_a_source_without_labels_is_an_unlabelled_part() -> None:
    both = Concat([series(labels=[0, 1, 0, 1]), series()])
    assert both.labels is not None
    assert both.labels.tolist() == [0, 1, 0, 1, -1, -1, -1, -1]
    assert both.classes == ["0", "1"]
    train, test, pretrain = (split_source(both, split) for split in ("train", "test", "pretrain"))
    assert train.labels is not None
    assert train.labels.min() >= 0
    assert len(train) + len(test) == 4
    assert set(pretrain.names) == set(train.names) | set(both.names[4:])
    assert pretrain.labels is None
    again = Concat([both, series(labels=[0, 0, 0, 0], classes=["1"])])
    assert again.labels is not None
    assert again.labels.tolist() == [0, 1, 0, 1, -1, -1, -1, -1, 1, 1, 1, 1]
    assert Concat([series(), series()]).labels is None
    numbered = Concat([series(labels=[0, 1, 0, 1]), series(labels=[2, 1, 2, 1])])
    assert numbered.classes == ["0", "1", "2"]
    assert numbered.labels is not None
    assert numbered.labels.tolist() == [0, 1, 0, 1, 2, 1, 2, 1]


def test_groups_stay_apart_and_given_splits_are_carried() -> None:
    one, two = series(), series()
    one.groups = np.array([5, 5, 9, 9])
    assert Concat([one, one]).groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert Concat([one, two]).groups.tolist() == [0, 0, 1, 1, 2, 3, 4, 5]
    one.given = np.array([TRAIN, TRAIN, TEST, TEST], dtype=np.int8)
    both = Concat([two, one])
    assert len(split_source(both, "test")) == 2
    assert len(split_source(both, "train")) == 6
    assert len(take(both, 3)) == 3
    assert open_source([two, one], split="test").names == both.names[-2:]


def test_sources_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"series \(series\) and image \(images\)"):
        Concat([series(), images(tmp_path, ["1.png"])])
    with pytest.raises(UserError, match="2 and 3 channels; make them alike, files with channels=N"):
        Concat([series(), series(3)])
    slow, fast = series(), series()
    slow.rate, fast.rate = 10.0, 50.0
    with pytest.raises(UserError, match="10 and 50 samples a second"):
        Concat([slow, fast])
    with pytest.raises(UserError, match="give at least one"):
        Concat([])


def test_values_and_ranges_of_a_concat() -> None:
    dark, bright = (
        open_source(np.random.default_rng(0).random((3, 8, 8)).astype(np.float32) * k, split="all") for k in (1, 9)
    )
    dark.values, bright.values = {"age": np.arange(3.0)}, {"age": np.arange(3.0) + 7, "more": np.zeros(3)}
    both = Concat([dark, bright])
    assert list(both.fields) == ["image", "age"]
    assert both.sample(4)["age"] == 8
    assert both.value_range is not None
    assert both.value_range[0][1] > 8
    dark.values = bright.values = {}
    pairs = [Pairs({"a": s, "b": s}) for s in (dark, bright)]
    joined = Concat(pairs)
    assert joined.range_of("b") == [[dark.value_range[0][0], bright.value_range[0][1]]]
    np.testing.assert_array_equal(joined.sample(5)["b"], bright.read(2))


# ---- grouped ---------------------------------------------------------------------------------------------------------
def test_slices_of_a_folder_make_a_volume_in_natural_order(tmp_path: Path) -> None:
    names = [f"p{p}/slice{k}.png" for p in (1, 2) for k in range(12)]
    source = images(tmp_path, names)
    volumes = Grouped(source, "folder")
    assert (volumes.modality, volumes.names, volumes.channels) == ("volume", ["p1", "p2"], 3)
    assert volumes.read(1).shape == (12, 20, 24, 3)
    np.testing.assert_array_equal(volumes.read(0)[2], source.read(source.names.index("p1/slice2.png")))
    assert volumes.labels is not None
    assert volumes.labels.tolist() == [0, 1]
    assert volumes.describe() == f"{source.name}: 2 volumes, 3 channels, 2 classes"
    assert pickle.loads(pickle.dumps(volumes)).fingerprint() == volumes.fingerprint()
    clips = Grouped(source, r"^(p\d)/", kind="clip")
    assert clips.frames(0) == 12
    np.testing.assert_array_equal(clips.read(0, frames=np.array([3, 1])), volumes.read(0)[[3, 1]])
    np.testing.assert_array_equal(clips.sample(0, frames=np.array([3]))["clip"], volumes.read(0)[[3]])


def test_what_can_not_be_grouped(tmp_path: Path) -> None:
    source = images(tmp_path, ["a/1.png", "a/2.png", "b/1.png"])
    write(tmp_path / "a/2.png", picture(9, 9))
    with pytest.raises(SampleError, match=r"a/2\.png is 9x9x3, the first 20x24x3"):
        Grouped(source, "folder").read(0)
    with pytest.raises(UserError, match="has no groups"):
        Grouped(source)
    with pytest.raises(UserError, match=r"doesn't match the name 'b/1\.png'"):
        Grouped(source, "(a)/")
    with pytest.raises(UserError, match="regular expression"):
        Grouped(source, "(a")
    with pytest.raises(UserError, match="series can't be grouped"):
        Grouped(series())
    source.groups, source.given = np.array([0, 0, 1]), np.array([TRAIN, TEST, TEST], dtype=np.int8)
    assert Grouped(source).given is None
    assert Grouped(source).labels is not None


# ---- mapped ----------------------------------------------------------------------------------------------------------
def halved(image: np.ndarray) -> np.ndarray:
    return image[::2, ::2]


def scaled(image: np.ndarray, by: float) -> np.ndarray:
    return image.astype(np.float32) * np.float32(by)


def bright(image: np.ndarray) -> np.ndarray:
    return (image[:, :, 0] > 100).astype(np.uint8)


def never(image: np.ndarray) -> np.ndarray:
    return np.full_like(image, np.nan, dtype=np.float32)


def test_mapped_samples_and_what_stays(tmp_path: Path) -> None:
    source = images(tmp_path, ["a/1.png", "b/1.png"])
    half = Mapped(source, halved)
    assert half.read(0).shape == (10, 12, 3)
    assert half.fields == source.fields
    assert half.value_range is None
    assert half.sample(1)["label"] == 1
    mask = Mapped(source, bright, "mask")
    assert mask.fields == {"mask": Field("mask"), "label": Field("label")}
    assert mask.read(0).shape == (20, 24)
    stretched = Mapped(source, functools.partial(scaled, by=0.5))
    assert stretched.value_range is not None
    prints = {m.fingerprint() for m in (half, mask, stretched, Mapped(source, functools.partial(scaled, by=0.6)))}
    assert len(prints) == 4
    assert Mapped(source, halved).fingerprint() == half.fingerprint()
    with pytest.raises(SampleError, match=r"a/1\.png: NaN"):
        Mapped(source, never).read(0)
    with pytest.raises(UserError, match="can't go to loader workers"):
        Mapped(source, lambda x: x)


def test_the_other_fields_of_a_mapped_source_stay(tmp_path: Path) -> None:
    images(tmp_path / "x", ["1.png"])
    images(tmp_path / "y", ["1.png"])
    pairs = open_source({"x": tmp_path / "x", "y": tmp_path / "y"}, split="all")
    half = Mapped(pairs, halved)
    assert list(half.fields) == ["x", "y"]
    sample = half.sample(0)
    np.testing.assert_array_equal(sample["x"], pairs.read(0)[::2, ::2])
    np.testing.assert_array_equal(sample["y"], pairs.sample(0)["y"])


def test_samples_without_label_stay_so_when_sources_are_joined(tmp_path):
    folder_of(tmp_path / "one", ["a/1.png", "a/2.png", "b/1.png", "b/2.png", "x.png"])
    folder_of(tmp_path / "two", ["b/1.png", "c/1.png"])
    source = open_source([tmp_path / "one", tmp_path / "two"], split="all")
    assert source.classes == ["a", "b", "c"]
    assert source.labels.tolist() == [0, 0, 1, 1, -1, 1, 2]
    assert any(note.startswith("one/: 1 file beside") for note in source.notes)


def test_clips_and_volumes_keep_what_is_known_of_them_when_sources_are_joined(tmp_path: Path) -> None:
    folder_of(tmp_path, [f"{place}/{t:02d}.png" for place in "ab" for t in range(9)])
    both = Concat([open_source(tmp_path / place, modality="clip", split="all") for place in ("a", "b")])
    assert both.frame_names(1) == [f"{t:02d}.png" for t in range(9)]
    films = Concat([open_source("ultrasound?train=2&test=0&frames=6", split="all")] * 2)
    assert films.seconds(3) == (0.0, 5 / 16)
    assert np.allclose(films.times(3), np.arange(6) / 16)
    scan = open_source("phantoms?train=2&test=0&depth=8&side=16", split="all")
    scan.space = lambda i: f"space of {i}"
    assert Concat([scan, scan]).space(3) == "space of 1"
    worn = open_source("worn?users=2&windows=2&held_out=1", split="all")
    joined = Concat([worn, worn])
    assert joined.devices == worn.devices
    assert joined.group_names[joined.groups[-1]] == "worn1"
    other = open_source("worn?users=2&windows=2&held_out=1", split="all")
    other.devices = ["a", "b", "c", "d"]
    with pytest.raises(UserError, match="their devices are wrist"):
        Concat([worn, other])


def test_a_folder_of_broken_files_alone_is_not_said_to_have_channels(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    for k in range(3):
        (tmp_path / "broken" / f"{k}.png").write_bytes(b"no picture")
    broken = open_source(tmp_path / "broken", split="all")
    assert broken.describe() == "broken/: 3 images, none of those looked at can be read"
    grey = write(tmp_path / "grey/1.png", picture(20, 24, 1, seed=0)).parent
    with pytest.raises(UserError, match=r"broken/: none of the samples looked at can be read"):
        Concat([open_source(grey, split="all"), broken])
    with pytest.raises(UserError, match=r"none of the samples looked at can be read"):
        broken.subset([0, 2]).check_read()
