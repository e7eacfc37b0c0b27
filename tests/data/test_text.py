"""Texts: files, tables of captions, and what partners of images they make."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selftaught.data import check, open_source
from selftaught.errors import SampleError, UserError
from tests.data.helpers import folder_of, write


def test_text_files_with_classes(tmp_path: Path) -> None:
    for name, text in (("good/1.txt", " well done \n"), ("bad/1.txt", "no"), ("bad/2.txt", "")):
        write(tmp_path / name, text.encode())
    write(tmp_path / "bad/3.txt", b"\xff\xfe\x00")
    source = open_source(tmp_path, modality="text", split="all")
    assert source.names == ["bad/1.txt", "bad/2.txt", "bad/3.txt", "good/1.txt"]
    assert (source.classes, source.sample(3)) == (["bad", "good"], {"text": "well done", "label": 1})
    assert check(source).problems == [("bad/2.txt", "empty text"), ("bad/3.txt", "not UTF-8 text")]
    (tmp_path / "bad/1.txt").unlink()
    with pytest.raises(SampleError, match="can't be opened"):
        source.read(0)
    assert open_source(tmp_path / "good/1.txt", modality="text", split="all").read(0) == "well done"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no text in this folder"):
        open_source(tmp_path / "empty", modality="text")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json"])
def test_captions_of_images(tmp_path: Path, suffix: str) -> None:
    folder_of(tmp_path / "photos", ["1.png", "2.png"])
    lines = {
        ".csv": 'file_name,caption\n1.png,"a cat, asleep"\n2.png,a dog\n2.png,one dog\n',
        ".tsv": "file_name\tcaption\n1.png\ta cat, asleep\n2.png\ta dog\n2.png\tone dog\n",
        ".jsonl": '{"file_name": "1.png", "text": "a cat, asleep"}\n\n{"image": 0, "file_name": "2.png", '
        '"text": ["a dog", "one dog"]}\n',
        ".json": json.dumps(
            {
                "images": [{"id": 7, "file_name": "1.png"}, {"id": 9, "file_name": "2.png"}],
                "annotations": [
                    {"image_id": 9, "caption": "a dog"},
                    {"image_id": 7, "caption": "a cat, asleep"},
                    {"image_id": 9, "caption": "one dog "},
                ],
            }
        ),
    }
    (tmp_path / f"captions{suffix}").write_text(lines[suffix])
    source = open_source(f"pairs:{tmp_path}?image=photos&text=captions{suffix}", split="all")
    assert source.sample(0, ["text"]) == {"text": "a cat, asleep"}
    assert source.sample(1, ["text"]) == {"text": ("a dog", "one dog")}
    assert "each with text (texts)" in source.describe()
    table = open_source(tmp_path / f"captions{suffix}", modality="text", split="all")
    assert len(table.fingerprint()) == 32


def test_tables_that_do_not_say_what_is_what(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("picture,words\n1,hello\n2,\n")
    with pytest.raises(UserError, match="which column holds the names"):
        open_source(tmp_path / "a.csv", modality="text")
    with pytest.raises(UserError, match=r"which column holds the texts\? \(did you mean words\?\) say column=NAME"):
        open_source(tmp_path / "a.csv", modality="text", key="picture", column="word")
    source = open_source(tmp_path / "a.csv", modality="text", key="picture", column="words", split="all")
    assert source.read(0) == "hello"
    with pytest.raises(SampleError, match="empty text"):
        source.read(1)
    for name, text, said in (
        ("b.jsonl", "{", "line 1 is no JSON"),
        ("c.jsonl", "[1]", "no object"),
        ("d.csv", "", "no line"),
        ("e.json", "{}", "has no images and annotations"),
        ("f.json", "{", "can't be read as JSON"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=said):
            open_source(tmp_path / name, modality="text")
