from __future__ import annotations

import functools
import http.server
import io
import json
import pickle
import shutil
import tarfile
import threading

import numpy as np
import pytest
from PIL import Image

from selftaught.data import open_source
from selftaught.data.shards import expand
from selftaught.errors import SampleError, UserError
from tests.data.helpers import encode, picture


def shard(path, samples: list[dict[str, bytes]], mode: str = "w") -> None:
    """A tar file of samples: {"": base name, suffix: bytes}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for sample in samples:
            for suffix, data in sample.items():
                if suffix:
                    info = tarfile.TarInfo(f"{sample['']}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def numbered(first: int, n: int) -> list[dict]:
    return [
        {"": f"{k:04d}", "cls": str(k % 3).encode(), "png": encode(picture(seed=k), "PNG"), "txt": b"words"}
        for k in range(first, first + n)
    ]


@pytest.fixture
def shards(tmp_path):
    for s in range(3):
        shard(tmp_path / f"set-{s:03d}.tar", numbered(10 * s, 4))
    return tmp_path


@pytest.mark.parametrize("pattern", ["set-{000..002}.tar", "set-*.tar", "set-{000,001,002}.tar", ""])
def test_local_shards_are_read_in_place(shards, pattern):
    source = open_source(f"wds:{shards}/{pattern}".rstrip("/"), split="all")
    assert (len(source), source.channels) == (12, 3)
    assert source.names[5] == "0011.png"
    assert source.labels.tolist() == [k % 3 for s in range(3) for k in range(10 * s, 10 * s + 4)]
    np.testing.assert_array_equal(source.read(5), picture(seed=11))
    assert [p.name for p in sorted(shards.iterdir())] == ["set-000.tar", "set-001.tar", "set-002.tar"]


def test_a_given_test_split_and_pickling(shards):
    spec = f"wds:{shards}/set-{{000..001}}.tar?test={shards}/set-002.tar"
    train, test = open_source(spec), open_source(spec, split="test")
    assert (len(train), len(test)) == (8, 4)
    again = pickle.loads(pickle.dumps(test))
    np.testing.assert_array_equal(again.read(1), picture(seed=21))
    assert again.fingerprint() == test.fingerprint()


def test_labels_out_of_json_and_names_that_repeat(tmp_path):
    sample = {"": "dir/one", "jpg": encode(picture(), "JPEG"), "json": json.dumps({"label": "cat"}).encode()}
    other = {"": "dir/two.part", "seg.png": b"", "jpg": b"\xff\xd8", "json": json.dumps({"label": "dog"}).encode()}
    for name in ("a.tar", "b.tar"):
        shard(tmp_path / name, [sample, other])
    source = open_source(f"wds:{tmp_path}/{{a,b}}.tar", split="all")
    assert source.classes == ["cat", "dog"]
    assert source.labels.tolist() == [0, 1, 0, 1]
    assert source.names[2] == "b/dir/one.jpg"
    with pytest.raises(SampleError):
        source.read(1)


@pytest.mark.parametrize(
    ("kind", "labels", "classes", "codes"),
    [
        ("json", [0.0, 1, 2.0, 1], ["0", "1", "2"], [0, 1, 2, 1]),
        ("json", [None, True, False, True], ["0", "1"], [-1, 1, 0, 1]),
        ("json", ["NA", "null", 1.0, 1], ["1", "NA", "null"], [1, 2, 0, 0]),
        ("cls", ["001", "1", "002", "1"], ["001", "002", "1"], [0, 2, 1, 2]),
        ("cls", ["10", "2.0", "2", "0"], ["0", "10", "2"], [1, 2, 2, 0]),
    ],
)
def test_labels_are_numbers_or_names_as_they_are_written(tmp_path, kind, labels, classes, codes):
    written = [json.dumps({"label": label}) if kind == "json" else label for label in labels]
    shard(
        tmp_path / "a.tar",
        [{"": f"{i}", kind: text.encode(), "png": encode(picture(), "PNG")} for i, text in enumerate(written)],
    )
    source = open_source(f"wds:{tmp_path}/a.tar", split="all")
    assert [source.classes[k] if k >= 0 else None for k in source.labels] == [
        classes[k] if k >= 0 else None for k in codes
    ]
    assert set(source.classes) >= set(classes)


def test_fractions_in_json_are_numbers_to_predict(tmp_path):
    values = [0.5, 1.25, 2.0, 1]
    shard(
        tmp_path / "a.tar",
        [
            {"": f"{i}", "json": json.dumps({"label": v}).encode(), "png": encode(picture(), "PNG")}
            for i, v in enumerate(values)
        ],
    )
    source = open_source(f"wds:{tmp_path}/a.tar", split="all")
    assert (source.labels, source.targets.tolist()) == (None, values)


def test_a_truncated_shard_gives_what_it_has(tmp_path):
    shard(tmp_path / "cut.tar", numbered(0, 4))
    data = (tmp_path / "cut.tar").read_bytes()
    end = data.rfind(b"0003.png")
    (tmp_path / "cut.tar").write_bytes(data[: end + 700])
    source = open_source(tmp_path / "cut.tar", split="all")
    np.testing.assert_array_equal(source.read(2), picture(seed=2))
    assert len(source) in (3, 4)
    if len(source) == 4:
        with pytest.raises(SampleError, match=r"shard cut\.tar is truncated"):
            source.read(3)


def test_a_shard_that_vanishes_is_a_bad_sample(shards):
    source = open_source(f"wds:{shards}/set-000.tar", split="all")
    (shards / "set-000.tar").unlink()
    with pytest.raises(SampleError, match=r"shard set-000\.tar: No such file"):
        source.read(0)


def test_errors_of_one_line(tmp_path):
    shard(tmp_path / "packed.tar.gz", numbered(0, 1), "w:gz")
    shard(tmp_path / "words.tar", [{"": "a", "txt": b"hello"}])
    (tmp_path / "empty.tar").write_bytes(b"")
    for name, said in (
        ("packed.tar.gz", "it is compressed; unpack it"),
        ("words.tar", "no image in these shards"),
        ("empty.tar", "empty or damaged"),
        ("gone-{0..1}.tar", "no such shard"),
        ("gone-*.tar", "no shard matches"),
    ):
        with pytest.raises(UserError, match=said):
            open_source(f"wds:{tmp_path}/{name}")


def test_brace_patterns():
    assert expand("a-{08..11}-{x,y}.tar")[:3] == ["a-08-x.tar", "a-08-y.tar", "a-09-x.tar"]
    assert len(expand("a-{08..11}-{x,y}.tar")) == 8
    assert expand("{2..0}") == ["2", "1", "0"]
    assert expand("plain.tar") == ["plain.tar"]


def test_remote_shards_are_fetched_once(shards, tmp_path, monkeypatch):
    pytest.importorskip("webdataset")
    if shutil.which("curl") is None:
        pytest.skip("webdataset fetches through curl, which is not here")
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    asked = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(shards)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        where = f"wds:http://127.0.0.1:{server.server_address[1]}/set-{{000..001}}.tar"
        for _ in range(2):
            source = open_source(where, split="all")
            np.testing.assert_array_equal(source.read(6), picture(seed=12))
        assert len(asked) == 2
        with pytest.raises(UserError, match="can't be fetched"):
            open_source(where.replace("set-", "gone-"))
        assert len(list((tmp_path / "cache" / "shards").glob("*.tar"))) == 2
        assert not list((tmp_path / "cache" / "shards").glob("*.part*"))
    finally:
        server.shutdown()


def test_pictures_stand_upright_and_missing_labels_are_no_class(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    rows = [
        {"": f"{k}", "png": encode(picture(20, 30, seed=k), "PNG", exif=exif)}
        | ({"cls": b"ab"[k % 2 :][:1]} if k < 4 else {})
        for k in range(6)
    ]
    shard(tmp_path / "a.tar", rows)
    source = open_source(f"wds:{tmp_path}/a.tar", split="all")
    np.testing.assert_array_equal(source.read(2), np.rot90(picture(20, 30, seed=2), 3))
    assert (source.classes, source.labels.tolist()) == (["a", "b"], [0, 1, 0, 1, -1, -1])


def test_captions_out_of_text_files_and_json(tmp_path):
    samples = [{k: v for k, v in sample.items() if k not in ("txt", "json")} for sample in numbered(0, 4)]
    samples[0]["txt"] = b"a red square\na square that is red\n"
    samples[1]["json"] = b'{"caption": "a blue disc", "label": 3}'
    samples[2] |= {"json": b'{"captions": ["not this", "nor this"]}', "txt": "gr\u00fcn".encode()}
    shard(tmp_path / "pairs.tar", samples)
    source = open_source(f"wds:{tmp_path}/pairs.tar", split="all")
    assert "text" in source.fields
    said = [source.sample(i, ["text"])["text"] for i in range(3)]
    assert said == [("a red square", "a square that is red"), "a blue disc", "gr\u00fcn"]
    with pytest.raises(SampleError, match="no caption"):
        source.sample(3, ["text"])
    assert source.read(1).shape == open_source(f"wds:{tmp_path}/pairs.tar", split="all").read(3).shape
    one = tmp_path / "pairs.tar"
    assert open_source(one, split="all").fingerprint() != ""


@pytest.mark.parametrize("spec", ["", "/set-*.tar", "/"])
def test_shards_need_no_scheme(shards, spec):
    """A folder of shards, or a pattern of them, is read as what it is."""
    source = open_source(f"{shards}{spec}", split="all")
    assert (len(source), source.labels.tolist()[:3]) == (12, [0, 1, 2])
    np.testing.assert_array_equal(source.read(5), picture(seed=11))


def test_a_folder_of_shards_has_its_splits_and_names(tmp_path):
    """``train/`` and ``val/`` are a given split; shards called alike keep names of their own, in any folder's name."""
    for number, part in enumerate(("train", "val")):
        shard(tmp_path / "my [1] {a,b}" / part / "000.tar", numbered(10 * number, 4))
    folder = tmp_path / "my [1] {a,b}"
    train, test = open_source(folder), open_source(folder, split="test")
    assert (len(train), len(test)) == (4, 4)
    assert not set(train.names) & set(test.names)
    np.testing.assert_array_equal(test.read(0), picture(seed=10))
    alone = open_source(folder / "train" / "000.tar", split="all")
    np.testing.assert_array_equal(alone.read(1), picture(seed=1))


def test_images_beside_a_shard_are_what_a_folder_holds(tmp_path):
    shard(tmp_path / "set.tar", numbered(0, 3))
    for k in range(2):
        (tmp_path / f"{k}.png").write_bytes(encode(picture(seed=k), "PNG"))
    assert open_source(tmp_path, split="all").names == ["0.png", "1.png"]
