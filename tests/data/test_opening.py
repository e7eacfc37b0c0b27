from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from selftaught.data import Grouped, Mapped, Pairs, open_source, pack
from selftaught.data.spec import call, literal, near, parse
from selftaught.errors import UserError
from tests.data.helpers import encode, folder_of, picture, write


class Reading(Dataset):
    """What an engine does with a source in a worker, for several sources of equal size."""

    def __init__(self, sources) -> None:
        self.sources = sources

    def __len__(self) -> int:
        return len(self.sources[0])

    def __getitem__(self, i: int):
        return i, sum(float(source.read(i).astype(np.float64).sum()) * (k + 1) for k, source in enumerate(self.sources))


def sums(sources, context: str | None) -> dict[int, float]:
    loader = DataLoader(
        Reading(sources), batch_size=4, num_workers=2 if context else 0, multiprocessing_context=context
    )
    return {int(i): float(s) for index, total in loader for i, s in zip(index, total, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_sources_in_loader_workers(tmp_path, context):
    folder_of(tmp_path / "files", [f"{k}.png" for k in range(9)])
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).integers(0, 256, (9, 8, 8), dtype=np.uint8))
    tars = write_tar(tmp_path / "a.tar", [encode(picture(seed=k), "PNG") for k in range(9)])
    specs = [tmp_path / "files", tmp_path / "a.npz", tars, "photos?train=1&test=1", "watch"]
    specs += [[tmp_path / "files", "photos?train=1&test=1"], "ultrasound?train=9&test=0&frames=2"]
    sources = [open_source(spec, split="all").subset(range(9)) for spec in specs]
    pair = Pairs({"a": sources[0], "b": sources[0]})
    sources += [pair, Mapped(pair, np.sqrt), Grouped(sources[0], r"\d")]
    sources.append(pack(sources[0], 16, tmp_path / "packs"))
    assert sums(sources, context) == sums(sources, None)


def write_tar(path, pictures: list[bytes]):
    with tarfile.open(path, "w") as tar:
        for k, data in enumerate(pictures):
            info = tarfile.TarInfo(f"{k}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_an_open_source_can_be_given_again():
    source = open_source("digits", split="all")
    assert open_source(source, split="all") is source
    assert open_source(source).names == open_source("digits").names
    with pytest.raises(UserError, match="is open already"):
        open_source(source, channels=3)


def test_channels_may_be_forced_on_embedded_and_other_images(tmp_path):
    assert open_source({"x": np.zeros((4, 6, 6), np.uint8)}, channels=3, split="all").read(0).shape == (6, 6, 3)
    write(tmp_path / "a.jpg", encode(picture(), "JPEG"))
    assert open_source(tmp_path / "a.jpg", channels=1, split="all").read(0).shape == (48, 64, 1)


def test_an_embedded_name_wins_over_a_folder_unless_a_path_is_written(tmp_path, monkeypatch):
    folder_of(tmp_path / "photos", ["1.png", "2.png"])
    monkeypatch.chdir(tmp_path)
    assert len(open_source("./photos", split="all")) == 2
    assert len(open_source("photos/", split="all")) == 2
    assert len(open_source("photos", split="all")) == 2
    assert len(open_source("embedded:photos", split="all")) == 17 * 250


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("photo", r"photo: no such file or folder, and no built-in data set of that name \(did you mean photos"),
        ("photos/", "photos/: no such file or folder; for the built-in data set write photos"),
        ("zzz", "there are .*basic-motions, .*digits, .*photos, photos:lettered, photos:whole"),
        ("nowhere/at/all.png", "nowhere/at/all.png: no such file or folder"),
        (
            "photos?tiles=3",
            r"'tiles' \(did you mean tile or test\?\); it knows by, .*enlarge, .*stride, test, tile, train",
        ),
        ("photos?tile=big", "photos: tile='big' must be a whole number"),
        ("digits?n=many", "digits: n='many' must be a whole number"),
        ("digits?n=0", "n=0 must be at least 1"),
    ],
)
def test_errors_of_one_line(spec, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said) as error:
        open_source(spec)
    assert "\n" not in str(error.value)


def test_errors_that_look_around(tmp_path):
    write(tmp_path / "holiday.png", picture())
    write(tmp_path / "notes.docx", b"x")
    with pytest.raises(UserError, match=r"holidays\.png: no such file or folder \(did you mean holiday\.png"):
        open_source(tmp_path / "holidays.png")
    with pytest.raises(UserError, match="can't tell what this file holds by its suffix"):
        open_source(tmp_path / "notes.docx")
    with pytest.raises(UserError, match="no such file"):
        open_source([tmp_path / "holiday.png", tmp_path / "gone.png"])
    with pytest.raises(UserError, match=r"notes\.docx: can't tell what this file holds by its suffix"):
        open_source([tmp_path / "notes.docx"])


def test_source_strings(tmp_path):
    assert parse("watch?step=50&window=200") == ("watch", {"step": "50", "window": "200"})
    assert parse("img?.png") == ("img?.png", {})
    assert parse("x/img?.png?n=3") == ("x/img?.png", {"n": "3"})
    assert parse("wds:http://host/a.tar?key=1") == ("wds:http://host/a.tar?key=1", {})
    odd = write(tmp_path / "a?b=c", b"x")
    assert parse(str(odd)) == (str(odd), {})


def test_options_are_typed_by_their_default():
    def build(where: str, *, count: int = 1, share: float | None = None, flag: bool = False, name: str = "") -> tuple:
        return count, share, flag, name

    text = {"count": "3", "share": "0.5", "flag": "yes", "name": "12"}
    assert call(build, "x", text, "w") == (3, 0.5, True, "12")
    for wrong, said in (({"flag": "perhaps"}, "true or false"), ({"share": "much"}, "a number")):
        with pytest.raises(UserError, match=f"must be {said}"):
            call(build, "x", wrong, "w")
    assert literal("(3, 4)") == (3, 4)
    assert literal("true") is True
    assert literal("extra") == "extra"
    assert near("phots", ["photos", "digits"]) == " (did you mean photos?)"
    assert near("qqq", ["photos"]) == ""


def test_describe_is_one_line_that_says_what_it_is():
    assert open_source("digits").describe() == "digits: 1,438 images, 1 channel, 10 classes (train by ratio:0.2)"
    assert "watch: 2,229 series, 6 channels, 7 classes, 10 groups" in open_source("watch", split="all").describe()
    assert repr(open_source("digits")).startswith("<Subset digits")
