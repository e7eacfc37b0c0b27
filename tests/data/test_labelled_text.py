"""Tables of texts with classes, told from captions and from recordings; the archive that `sentiment` is read from."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from selftaught.data import open_source
from selftaught.data.builtin import sentiment
from selftaught.errors import SampleError, UserError

ROWS = [("r1", "good film", "pos", "train"), ("r2", "bad, boring", "neg", "train"), ("r3", "", "neg", "test")]


def test_columns_are_found_by_their_names(tmp_path: Path) -> None:
    lines = ["id,Review,sentiment,split", *(f'{a},"{b}",{c},{d}' for a, b, c, d in ROWS)]
    (tmp_path / "r.csv").write_text("\n".join(lines))
    objects = [dict(zip(("id", "Review", "sentiment", "split"), row, strict=True)) for row in ROWS]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, objects)))
    for name in ("r.csv", "r.jsonl"):
        source = open_source(tmp_path / name, split="all")
        assert (source.modality, source.classes, source.names) == ("text", ["neg", "pos"], ["r1", "r2", "r3"])
        assert source.sample(1) == {"text": "bad, boring", "label": 0}
        assert len(open_source(tmp_path / name, split="test")) == 1
        with pytest.raises(SampleError, match="empty text"):
            source.read(2)


def test_other_names_are_said_and_missing_labels_are_none(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("words\tkind\twho\na b\tx\tann\nc d\t\tann\ne f\ty\tbob\n")
    source = open_source(f"{tmp_path}/t.tsv?column=words&label=kind&group=who", split="all", modality="text")
    assert source.labels.tolist() == [0, -1, 1]
    assert source.groups.tolist() == [0, 0, 1]
    with pytest.raises(UserError, match=r"label=kin: no such column \(did you mean kind\?\)"):
        open_source(f"{tmp_path}/t.tsv?column=words&label=kin", modality="text")
    with pytest.raises(UserError, match="which column holds the texts"):
        open_source(f"{tmp_path}/t.tsv?label=kind", modality="text")
    with pytest.raises(UserError, match="'ann' occurs twice"):
        open_source(f"{tmp_path}/t.tsv?column=words&label=kind&key=who", modality="text")


def test_recordings_and_captions_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("time,x,label\n" + "".join(f"{i},{i % 3}.5,1\n" for i in range(9)))
    assert open_source(tmp_path / "s.csv", split="all").modality == "series"
    (tmp_path / "c.csv").write_text("file_name,caption\n1.png,a cat\n2.png,a dog\n")
    assert open_source(tmp_path / "c.csv", split="all", modality="text").labels is None


def _archive(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def test_a_folder_of_one_table_of_texts_is_that_table(tmp_path: Path) -> None:
    (tmp_path / "mails").mkdir()
    (tmp_path / "mails" / "mails.csv").write_text("message,class\nhello there,ham\nbuy now,spam\nsee you,ham\n")
    source = open_source(tmp_path / "mails", split="all")
    assert (source.modality, source.classes, source.read(1)) == ("text", ["ham", "spam"], "buy now")
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "walk.csv").write_text("x,y,label\n" + "1,2,a\n" * 40)
    assert open_source(tmp_path / "steps", split="all").modality == "series"


def _split(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize("layout", ["{}.csv", "{}/mails.csv", "{}_data.csv", "corpus/{}.csv"])
def test_a_folder_of_train_and_test_tables_is_a_given_split(tmp_path: Path, layout: str) -> None:
    parts = {
        "train": "id,message,class\n1,hello there,ham\n2,buy now,spam\n",
        "test": "id,class,message\n1,spam,cheap pills\n2,ham,see you\n",
        "val": "id,message,class\n1,good night,ham\n",
    }
    folder = _split(tmp_path / "mails", {layout.format(name): text for name, text in parts.items()})
    train, test, val = (open_source(folder, split=split) for split in ("train", "test", "val"))
    assert (train.modality, train.classes) == ("text", ["ham", "spam"])
    assert [[part.read(i) for i in range(len(part))] for part in (train, test, val)] == [
        ["hello there", "buy now"], ["cheap pills", "see you"], ["good night"],
    ]  # fmt: skip
    assert [part.labels.tolist() for part in (train, test, val)] == [[0, 1], [1, 0], [0]]
    assert len(set(open_source(folder, split="all").names)) == 5, "ids that occur in each table stay apart"


def test_tables_of_a_split_without_labels(tmp_path: Path) -> None:
    lines = "".join(f'{{"text": "words {k}", "label": "{"ab"[k % 2]}"}}\n' for k in range(4))
    folder = _split(
        tmp_path / "s",
        {
            "train.jsonl": lines,
            "val.jsonl": '{"text": "one"}\n',
            "test.jsonl": '{"text": "two", "label": "b"}\n',
            "unlabeled.jsonl": '{"text": "x", "label": "a"}\n' * 3,
        },
    )
    assert [len(open_source(folder, split=split)) for split in ("train", "pretrain", "test")] == [4, 7, 1]
    source = open_source(folder, split="all")
    assert source.classes == ["a", "b"]
    assert source.labels[source.given > 2].tolist() == [-1] * 4, "all of unlabeled.jsonl, and what can't be judged"
    assert any("1 sample of the test part" in note for note in source.notes)
    bare = _split(tmp_path / "t", {"train.csv": "text\na\n", "test.csv": "text,label\na,b\n"})
    with pytest.raises(UserError, match=r"train.csv: label=kind: no such column"):
        open_source(f"{bare}?label=kind", modality="text")


def test_options_name_the_columns_of_every_table(tmp_path: Path) -> None:
    folder = _split(tmp_path / "o", {"train.csv": "words,kind\na b,x\nc d,y\n", "test.csv": "words,kind\ne f,y\n"})
    source = open_source(f"{folder}?column=words&label=kind", split="test")
    assert (source.read(0), source.labels.tolist(), source.classes) == ("e f", [1], ["x", "y"])
    two = _split(tmp_path / "two", {"a.csv": "text,label\na,b\n", "b.csv": "text,label\na,b\n"})
    with pytest.raises(UserError, match="which of its tables of texts is meant"):
        open_source(two)


def test_labels_that_are_numbers(tmp_path: Path) -> None:
    def labels_of(*cells: str) -> Any:
        (tmp_path / "n.csv").write_text("text,label\n" + "".join(f"words {i},{c}\n" for i, c in enumerate(cells)))
        return open_source(tmp_path / "n.csv", split="all")

    stars = labels_of("5", "1", "3", "")
    assert (stars.classes, stars.labels.tolist()) == (["1", "3", "5"], [2, 0, 1, -1])
    hidden = labels_of("0", "1", "-1", "nan")
    assert (hidden.classes, hidden.labels.tolist()) == (["0", "1"], [0, 1, -1, -1])
    signs = labels_of("-1", "1", "1")
    assert (signs.classes, signs.labels.tolist()) == (["-1", "1"], [0, 1, 1])
    floats = labels_of("0.0", "2.0", "", "1e0", "2")
    assert (floats.classes, floats.labels.tolist()) == (["0", "1", "2"], [0, 2, -1, 1, 2])
    codes = labels_of("001", "1", "1_2", "12")
    assert codes.classes == ["001", "1", "12", "1_2"], "names as they are written"
    words = labels_of("NA", "null", "None", "1.0")
    assert words.classes == ["1.0", "NA", "None", "null"]
    folder = _split(
        tmp_path / "s", {"train.csv": "text,label\na b,0\nc d,1\n", "test.csv": "text,label\ne f,1.0\ng,\n"}
    )
    assert open_source(folder, split="test").classes == ["0", "1"]
    assert open_source(folder, split="test").labels.tolist() == [1]
    (tmp_path / "several.jsonl").write_text('{"text": "a b", "label": ["x", "y"]}\n')
    with pytest.raises(UserError, match=r"a label is one word or number, not \['x', 'y'\]"):
        open_source(tmp_path / "several.jsonl")
    scores = labels_of("0.25", "0.5", "", "1")
    assert scores.labels is None
    assert scores.targets[[0, 1, 3]].tolist() == [0.25, 0.5, 1.0]


def test_sentiment_is_read_from_the_source_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = b"1\t2.5\tlovely\n2\t0.1\tso so\n3\t-1\tawful\tindeed\n"
    inner = {f"hutto_ICWSM_2014/{name}_GroundTruth.txt": lines for name in sentiment.CORPORA.values()}
    outer = _archive({"vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": _archive(inner)})
    found = sentiment.read_archive(outer)
    assert set(found) == set(sentiment.CORPORA.values())
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path))
    folder = sentiment.sentiment_folder()
    folder.mkdir(parents=True)
    for name, text in found.items():
        (folder / f"{name}.txt").write_text(text)
    source = open_source("sentiment", split="all")
    assert (len(source), source.labels.tolist(), source.classes) == (2, [1, 0], ["negative", "positive"])
    assert source.sample(1) == {"text": "awful\tindeed", "label": 0}
    assert len(open_source("sentiment?corpus=all", split="all")) == 8
    with pytest.raises(UserError, match="it may be films, products"):
        open_source("sentiment?corpus=songs")
    with pytest.raises(KeyError):
        sentiment.read_archive(_archive({"a": b""}))
