"""Pictures with captions: text files beside them, tables, built-in sets, class names in their place."""

from __future__ import annotations

import io
import tarfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selftaught.data import captioned, open_source
from selftaught.data.builtin import emoji, stamps
from selftaught.data.builtin._pictured import squared
from selftaught.data.debian import _members
from selftaught.errors import SampleError, UserError


def _folder(root: Path, names: list[str]) -> Path:
    for k, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 24, 3), 10 * k, np.uint8)).save(root / name)
    return root


def test_text_files_beside_images_are_their_captions_a_line_each(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "photos", ["a.jpg", "b.png", "c.png"])
    (folder / "a.txt").write_text("a cat\n\n the cat of a neighbour \n")
    (folder / "c.txt").write_text("ein Hund")
    source = open_source(folder, split="all")
    assert list(source.fields) == ["image", "text"]
    assert source.modality == "image"
    assert source.sample(0, ["text"]) == {"text": ("a cat", "the cat of a neighbour")}
    assert source.sample(2)["text"] == "ein Hund"
    assert source.sample(2)["image"].shape == (20, 24, 3)
    with pytest.raises(SampleError, match="no caption"):
        source.sample(1, ["text"])
    assert source.read(1).shape == (20, 24, 3), "an image without caption is an image"
    assert "1 without" in source.describe()
    dropped = open_source(f"{folder}?missing=drop", split="all")
    assert list(dropped.names) == ["a.jpg", "c.png"]
    assert dropped.sample(1, ["text"]) == {"text": "ein Hund"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.csv", "file_name,caption\na.jpg,one\nsub/b.png,two\nsub/b.png,three\n"),
        ("captions.jsonl", '{"image": "a", "text": "one"}\n{"image": "sub/b", "text": ["two", "three"]}\n'),
        ("captions.txt", "a.jpg#0\tone\nb.png#0\ttwo\nb.png#1\tthree\n"),
        ("captions.txt", "image,caption\na.jpg,one\nb.png,two\nb.png,three\n"),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_a_table_in_or_beside_the_folder(tmp_path: Path, name: str, content: str, beside: bool) -> None:
    folder = _folder(tmp_path / "photos", ["a.jpg", "sub/b.png"])
    ((tmp_path if beside else folder) / name).write_text(content)
    source = open_source(folder, split="all")
    assert [source.sample(i, ["text"])["text"] for i in range(2)] == ["one", ("two", "three")]
    changed = source.fingerprint()
    ((tmp_path if beside else folder) / name).write_text(content.replace("one", "another"))
    assert open_source(folder, split="all").fingerprint() != changed


def test_a_table_in_each_part_of_a_split(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "photos", ["train/a.png", "train/b.png", "test/a.png"])
    (folder / "train" / "captions.csv").write_text("name,text\na,one\nb,two\nb,two more\n")
    (folder / "test" / "captions.jsonl").write_text('{"file_name": "a.png", "caption": "three"}\n')
    train, test = (open_source(folder, split=split) for split in ("train", "test"))
    assert [train.sample(i, ["text"])["text"] for i in range(2)] == ["one", ("two", "two more")]
    assert test.sample(0, ["text"])["text"] == "three"  # not "one": that a.png is another
    (folder / "test" / "captions.jsonl").unlink()
    assert "1 without" in open_source(folder, split="all").describe()


def test_metadata_of_the_datasets_library_hold_captions_where_they_hold_texts(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "photos", ["train/a.png", "test/b.png"])
    for part, name in (("train", "a"), ("test", "b")):
        (folder / part / "metadata.jsonl").write_text(f'{{"file_name": "{name}.png", "text": "of {name}"}}\n')
    source = open_source(folder, split="all")
    assert [source.sample(i, ["text"])["text"] for i in range(2)] == ["of b", "of a"]
    other = _folder(tmp_path / "boxes", ["a.png"])
    (other / "metadata.csv").write_text("file_name,boxes\na.png,3\n")
    assert list(open_source(other, split="all").fields) == ["image"]


def test_a_table_of_another_folder_is_passed_over_and_a_wrong_one_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "photos", ["a.jpg"])
    (tmp_path / "captions.csv").write_text("name,text\nx,one\n")
    assert list(open_source(folder, split="all").fields) == ["image"]
    (folder / "captions.csv").write_text("name,text\nx,one\n")
    with pytest.raises(UserError, match=r"captions.csv: no caption for any of the images"):
        open_source(folder)
    with pytest.raises(UserError, match=r"no file words.csv in the folder or beside it"):
        open_source(f"{folder}?captions=words.csv")
    with pytest.raises(UserError, match="may be keep or drop"):
        open_source(f"{folder}?missing=none")


def test_class_folders_split_and_subsets_keep_their_captions(tmp_path: Path) -> None:
    names = [f"{kind}/{k}.png" for kind in ("big_cat", "dog") for k in range(4)]
    folder = _folder(tmp_path / "photos", names)
    plain = captioned(open_source(folder, split="all"))
    assert plain.sample(0, ["text", "label"]) == {"text": "big cat", "label": 0}
    assert any("stand for" in note for note in plain.notes)
    for name in names:
        (folder / name).with_suffix(".txt").write_text(f"caption of {name}")
    source = open_source(folder, split="test", by="ratio:0.5")
    assert source.classes == ["big_cat", "dog"]
    assert captioned(source) is source
    assert source.sample(1, ["text"])["text"] == f"caption of {source.names[1]}"
    with pytest.raises(UserError, match=r"no captions: put NAME.txt beside NAME.jpg"):
        captioned(open_source(_folder(tmp_path / "bare", ["a.png", "b.png"]), split="all"))


def test_generated_scenes_say_what_they_show() -> None:
    source = open_source("scenes?train=64&test=8&captions=2", split="all")
    assert source.generated
    assert source.read(3).shape == (32, 32, 3)
    assert np.array_equal(source.read(3), open_source("scenes?train=64&test=8", split="all").read(3))
    red = [i for i in range(72) if source.sample(i, ["text"])["text"][0].startswith("a red")]
    redness = [float(source.read(i)[..., 0].astype(int).max() - source.read(i)[..., 2].min()) for i in range(72)]
    assert np.mean([redness[i] for i in red]) > np.mean([redness[i] for i in range(72) if i not in red])
    assert len(source.classes or []) == 8
    assert len(open_source("scenes?label=caption", split="all").classes or []) == 32
    sketch = open_source("scenes?train=64&test=8&style=sketch", split="all")
    assert sketch.sample(0, ["text"])["text"] == source.sample(0, ["text"])["text"][0]
    assert not np.array_equal(sketch.read(0), source.read(0))
    with pytest.raises(UserError, match="scenes: colours=9 may be from 1 to 8"):
        open_source("scenes?colours=9")


@pytest.mark.parametrize("place", [emoji.emoji_folder, stamps.stamps_folder])
def test_fetched_sets_have_captions_and_a_split(place) -> None:
    if not place().is_dir():
        pytest.skip("not fetched on this machine")
    name = place().name
    train, test = (open_source(name, split=split) for split in ("train", "test"))
    assert 3.5 < len(train) / len(test) < 4.5
    texts = [train.sample(i, ["text"])["text"] for i in range(len(train))]
    assert all(isinstance(t, str) and t for t in texts)
    assert train.read(0).dtype == np.uint8
    assert not set(train.names) & set(test.names)


def test_files_of_a_package_are_taken_from_its_archive_and_drawn_on_white() -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in (("./usr/share/x/b.txt", b"two"), ("./usr/share/x/a/a.txt", b"one"), ("./etc/c", b"")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    found = list(_members(archive.getvalue(), "./usr/share/x/", lambda path: path.endswith(".txt")))
    assert found == [("a/a.txt", b"one"), ("b.txt", b"two")]
    picture = np.zeros((10, 20, 4), np.uint8)
    picture[..., 1], picture[3:7, :, 3] = 200, 255
    square = squared(Image.fromarray(picture), 20)
    assert square.shape == (20, 20, 3)
    assert tuple(square[0, 0]) == (255, 255, 255)
    assert tuple(square[10, 10]) == (0, 200, 0)


def _said(folder: Path, options: str = "") -> list:
    source = open_source(f"{folder}{options}", split="all")
    return [source.sample(i, ["text"])["text"] for i in range(len(source))]


def test_captions_hold_commas_quotes_line_ends_and_any_letters(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "photos", ["a.png", "b.png", "ü c.png"])
    table = folder / "captions.csv"
    table.write_text('name,caption\na.png,"red, and ""big"""\nb.png,"two\nlines"\nü c.png,Überrot 🎈\n', "utf-8")
    assert _said(folder) == ['red, and "big"', "two\nlines", "Überrot 🎈"]
    table.write_text('sep=;\nname;caption\na.png;red, big\nb.png;"a; b"\nü c.png;c\n', "utf-8-sig")  # as Excel may save
    assert _said(folder) == ["red, big", "a; b", "c"]
    table.write_text("name,caption\na.png,one,,\n\nb.png,two\nü c.png,three\n", "utf-8")
    assert _said(folder) == ["one", "two", "three"], "empty cells at the end are nothing"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "name,caption\na.png,one\nb.png,red, big\n",
            r"line 3 has more cells than the 2 columns; put texts with commas",
        ),
        ('name,caption\na.png,"x\ny"\nb.png,"open\nc.png,c\n', r"double quote that opens in line 4 is never closed"),
        ("name;caption\na.png;red; big\n", r"line 2 .* put texts with semicolons in them into double quotes"),
        (
            'name,caption\na.png,"5 inch nail\nb.png,6" nail\n',
            r"double quote that opens in line 2 is closed within line 3.*double those that are part of a text",
        ),
        ("name,caption,caption\na.png,one,un\n", r"two columns are called caption; give one of them another name"),
        ("a.png,one\nb.png,two\n", r"say key=NAME; it has a.png, one; its first line shall name the columns"),
    ],
)
def test_a_table_that_would_be_read_wrongly_is_refused(tmp_path: Path, content: str, told: str) -> None:
    folder = _folder(tmp_path / "photos", ["a.png", "b.png"])
    (folder / "captions.csv").write_text(content)
    with pytest.raises(UserError, match=told):
        open_source(folder)
    assert list(open_source(f"{folder}?captions=none").fields) == ["image"]


def test_a_caption_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "photos", ["a.png"])
    (folder / "captions.jsonl").write_text('{"name": "a.png", "text": [{"raw": "a dog"}]}\n')
    with pytest.raises(UserError, match=r"text of a.png is no text and no list of texts: \{'raw': 'a dog'\}"):
        open_source(folder)


def test_names_that_look_alike_are_found_and_those_that_end_in_a_number_are_their_own(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café.png") for form in ("NFC", "NFD"))
    for on_disk, in_table in ((composed, apart), (apart, composed)):
        folder = _folder(tmp_path / str(len(on_disk)), ["b.PNG", on_disk])
        (folder / "captions.csv").write_text(f"Name, Caption\n{in_table},coffee\nb.png,tea\n", "utf-8")
        assert _said(folder) == ["tea", "coffee"]
    folder = _folder(tmp_path / "photos", ["p#1.png", "p#2.png", "p.png"])
    (folder / "captions.csv").write_text("name,caption\np#1,one\np#2.png,two\np.png#0,zero\np.png#1,none\n")
    assert _said(folder) == ["one", "two", ("zero", "none")]
    (folder / "captions.csv").write_text("name,caption\nP.PNG,one\np#1.png,two\n")
    assert open_source(folder).notes[0] == "captions.csv: 1 name is of no image here (P.PNG)", "a name, not its suffix"
    (folder / "captions.txt").write_text("p.png\tone\u2028line\np#1.png\ta\x0cb\n", "utf-8")
    (folder / "captions.csv").unlink()
    assert _said(folder, "?missing=drop") == ["a\x0cb", "one\u2028line"], "a line ends where a file's lines do"
    (folder / "captions.txt").unlink()
    (folder / "p.TXT").write_text("beside")
    assert _said(folder, "?missing=drop") == ["beside"]


def test_a_table_that_is_not_utf_8_says_the_mend(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "photos", ["a.png"])
    (folder / "captions.csv").write_bytes("name,caption\na.png,größer\n".encode("cp1252"))
    with pytest.raises(UserError, match="save it as UTF-8"):
        open_source(folder)


def test_names_of_no_image_and_tables_that_are_not_read_are_said(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "photos", ["a.png", "sub/b.png"])
    (folder / "captions.csv").write_text("name,caption\n./a.png,one\nsub\\b.png,two\ngone.png,a ghost\n")
    assert _said(folder) == ["one", "two"], "as Windows writes folders"
    assert open_source(folder).notes[-1] == "captions.csv: 1 name is of no image here (gone.png)"
    (folder / "captions.jsonl").write_text('{"image": "a.png", "caption": "other"}\n')
    (folder / "a.txt").write_text("yet another")
    note = "captions are those of captions.csv, not of captions.jsonl, NAME.txt beside NAME.jpg"
    assert note in open_source(folder).notes
    asked = open_source(f"{folder}?captions=captions.jsonl", split="all")
    assert asked.sample(0, ["text"])["text"] == "other"
    assert note not in asked.notes


def test_a_bare_name_that_two_folders_have_is_no_caption_of_both(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "photos", ["cats/1.png", "dogs/1.png"])
    (folder / "captions.csv").write_text("name,caption\n1.png,one\n")
    with pytest.raises(UserError, match=r"1.png may be cats/1.png or dogs/1.png; write names with their folders"):
        open_source(folder)
    (folder / "captions.csv").write_text("name,caption\ncats/1.png,one\n1.png,two\n")
    with pytest.raises(UserError, match=r"1.png may be .*captions=none"):
        open_source(folder)
    (folder / "captions.csv").write_text("name,caption\ncats/1.png,one\ndogs/1.png,two\n")
    assert _said(folder) == ["one", "two"]
    _folder(folder, ["1.png"])
    (folder / "captions.csv").write_text("name,caption\n1.png,three\ncats/1,one\ndogs/1.png#0,two\n1.png,four\n")
    source = open_source(folder, split="all")
    assert [source.sample(i, ["text"])["text"] for i in range(3)] == [("three", "four"), "one", "two"]


def test_columns_of_a_table_of_captions_may_be_named(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "photos", ["a.png", "b.png"])
    (folder / "captions.csv").write_text("foto,satz\na.png,one\nb.png,two\n")
    assert _said(folder, "?key=foto&column=satz") == ["one", "two"]
