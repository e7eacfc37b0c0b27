from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from selftaught.data import open_source
from selftaught.errors import SampleError, UserError
from tests.data.helpers import encode, folder_of, picture, write

hub = pytest.importorskip("datasets")


def saved(tmp_path, splits: tuple[str, ...] = ("train", "test")):
    features = hub.Features(
        {"photo": hub.Image(), "animal": hub.ClassLabel(names=["cat", "dog"]), "note": hub.Value("string")}
    )
    tables = {}
    for k, split in enumerate(splits):
        rows = [encode(picture(seed=10 * k + i), "PNG") for i in range(6)]
        if split == "train":
            rows[4] = rows[4][:-40]
        columns = {"photo": [{"bytes": r, "path": None} for r in rows], "animal": [0, 1] * 3, "note": list("abcdef")}
        tables[split] = hub.Dataset.from_dict(columns, features=features)
    hub.DatasetDict(tables).save_to_disk(tmp_path / "pets")
    return tmp_path / "pets"


@pytest.mark.parametrize("prefix", ["hf:", ""])
def test_a_saved_dataset_with_its_splits(tmp_path, prefix):
    spec = f"{prefix}{saved(tmp_path)}"
    train, test = open_source(spec), open_source(spec, split="test")
    assert (len(train), len(test), train.channels) == (6, 6, 3)
    assert train.classes == ["cat", "dog"]
    assert train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert test.names[3] == "test/00003"
    np.testing.assert_array_equal(test.read(3), picture(seed=13))
    with pytest.raises(SampleError, match="truncated PNG"):
        train.read(4)
    assert train.value_range is None


def test_one_table_is_split_by_ratio_and_pickles(tmp_path):
    spec = f"hf:{saved(tmp_path, ('train',))}"
    train = open_source(spec, by="ratio:0.34")
    assert len(train) == 4
    again = pickle.loads(pickle.dumps(train))
    np.testing.assert_array_equal(again.read(0), train.read(0))
    assert again.fingerprint() == train.fingerprint() == open_source(spec, by="ratio:0.34").fingerprint()


def test_texts_beside_images_of_one_data_set(tmp_path):
    folder = saved(tmp_path)
    source = open_source(f"pairs:?image=hf:{folder}&text=hf:{folder}?column=note", split="test")
    assert (len(source), source.classes) == (6, ["cat", "dog"])
    sample = source.sample(3)
    np.testing.assert_array_equal(sample["image"], picture(seed=13))
    assert (sample["text"], sample["label"]) == ("d", 1)
    with pytest.raises(UserError, match="can read image and series and text columns, not clip"):
        open_source(f"hf:{folder}", modality="clip")


def test_an_image_folder_through_hf(tmp_path, monkeypatch):
    monkeypatch.setattr(hub.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder_of(tmp_path / "pics", ["train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"])
    test = open_source(f"hf:{tmp_path / 'pics'}", split="test")
    assert (len(test), test.classes) == (2, ["a", "b"])
    np.testing.assert_array_equal(test.read(1), picture(20, 24, seed=3))


def test_columns_by_name_and_series(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5, 2, 12)).astype(np.float32)
    table = hub.Dataset.from_dict({"wave": rows.tolist(), "kind": ["u", "v", "u", "v", "u"]})
    table.save_to_disk(tmp_path / "waves")
    source = open_source(f"hf:{tmp_path / 'waves'}?column=wave&label=kind", modality="series", split="all")
    assert (source.modality, source.channels, source.classes) == ("series", 2, ["u", "v"])
    np.testing.assert_allclose(source.read(3), rows[3])
    assert source.value_range is None
    with pytest.raises(UserError, match=r"no column 'wawe' \(did you mean wave"):
        open_source(f"hf:{tmp_path / 'waves'}?column=wawe", modality="series")
    with pytest.raises(UserError, match="which column holds the samples"):
        open_source(f"hf:{tmp_path / 'waves'}")


def test_a_name_that_is_nowhere(tmp_path, monkeypatch):
    monkeypatch.setattr(hub.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match=r"^hf:nobody/nothing: neither a folder here nor to be had from the hub \("
    ) as error:
        open_source("hf:nobody/nothing")
    assert "\n" not in str(error.value)


def test_a_missing_image_is_a_bad_sample(tmp_path):
    features = hub.Features({"image": hub.Image()})
    write(tmp_path / "a.png", picture())
    rows = [{"bytes": None, "path": str(tmp_path / "a.png")}, {"bytes": None, "path": str(tmp_path / "b.png")}, None]
    source = open_source(hub.Dataset.from_dict({"image": rows}, features=features), split="all")
    assert source.labels is None
    np.testing.assert_array_equal(source.read(0), picture())
    for i in (1, 2):
        with pytest.raises(SampleError, match="missing"):
            source.read(i)


def test_a_streamed_set_is_refused_in_one_line():
    stream = hub.Dataset.from_dict({"image": [1, 2]}).to_iterable_dataset()
    for data in (stream, hub.IterableDatasetDict({"train": stream})):
        with pytest.raises(UserError, match="is streamed, and samples must be read in any order") as error:
            open_source(data)
        assert "\n" not in str(error.value)


def test_columns_of_images_and_labels_by_name():
    features = hub.Features(
        {"front": hub.Image(), "back": hub.Image(), "label": hub.Value("int64"), "age": hub.Value("float32")}
    )
    cells = [{"bytes": encode(picture(seed=k), "PNG"), "path": None} for k in range(8)]
    columns = {"front": cells[:4], "back": cells[4:], "label": [0, 1, -1, 1], "age": [1.5, 2.0, 30.25, 4.0]}
    table = hub.Dataset.from_dict(columns, features=features)
    source = open_source(table, image="back", label="age", split="all")
    np.testing.assert_array_equal(source.read(1), picture(seed=5))
    assert (source.labels, source.targets.tolist()) == (None, [1.5, 2.0, 30.25, 4.0])
    assert open_source(table, split="train", by="ratio:0.5").classes == ["0", "1"]
    with pytest.raises(UserError, match=r"no column 'frond' \(did you mean front"):
        open_source(table, image="frond")
    with pytest.raises(UserError, match="give one of them"):
        open_source(table, image="front", column="front")


def test_names_are_those_on_disk_and_other_splits_are_said(tmp_path):
    folder_of(tmp_path, ["a/1.png", "b/2.png"])
    rows = [{"bytes": None, "path": str(tmp_path / n)} for n in ("a/1.png", "b/2.png")]
    table = hub.Dataset.from_dict({"image": rows}, features=hub.Features({"image": hub.Image()}))
    source = open_source(hub.DatasetDict({"train": table, "extra": table}), split="all")
    assert list(source.names) == ["train/a/1.png", "train/b/2.png"]
    assert list(source.notes) == ["left out: 2 samples in the split extra"]
    before = source.fingerprint()
    write(tmp_path / "a" / "1.png", picture(seed=7))
    assert open_source(hub.DatasetDict({"train": table, "extra": table}), split="all").fingerprint() != before
    wide = open_source(hub.DatasetDict({"train": table, "unsupervised": table}), split="pretrain", by="ratio:0.5")
    assert len(wide) == 3


def test_pictures_of_hf_stand_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    cells = [encode(picture(20, 30), kind, exif=exif) for kind in ("PNG", "TIFF")]
    write(tmp_path / "a.png", cells[0])
    rows = [{"bytes": cells[0], "path": None}, {"bytes": cells[1], "path": None}]
    rows.append({"bytes": None, "path": str(tmp_path / "a.png")})
    table = hub.Dataset.from_dict({"image": rows}, features=hub.Features({"image": hub.Image()}))
    source = open_source(table, split="all")
    for i in range(3):
        np.testing.assert_array_equal(source.read(i), np.rot90(picture(20, 30)))


def test_captions_beside_images(tmp_path):
    features = hub.Features(
        {"photo": hub.Image(), "captions": hub.Sequence(hub.Value("string")), "say": hub.Value("string")}
    )
    rows = [{"bytes": encode(picture(seed=k), "PNG"), "path": None} for k in range(3)]
    columns = {"photo": rows, "captions": [["one", "two"], ["three"], []], "say": ["a", "b", "c"]}
    hub.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "told")
    source = open_source(f"hf:{tmp_path}/told", split="all")
    assert [source.sample(i, ["text"])["text"] for i in range(2)] == [("one", "two"), "three"]
    with pytest.raises(SampleError, match="no caption"):
        source.sample(2, ["text"])
    named = open_source(f"hf:{tmp_path}/told?text=say", split="all")
    assert [named.sample(i, ["text"])["text"] for i in range(3)] == ["a", "b", "c"]
    np.testing.assert_array_equal(named.read(2), picture(seed=2))
    with pytest.raises(UserError, match="no column 'sat'"):
        open_source(f"hf:{tmp_path}/told?text=sat")
