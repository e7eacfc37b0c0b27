"""``apply``: what is whose, what goes on, what is refused."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import selftaught
from selftaught import UserError
from selftaught.cli import main
from selftaught.run import applying
from selftaught.run.outputs import _table
from tests.conftest import TINY, write_photos

SIDE = 12


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_table, "BATCH", 16)
    monkeypatch.setattr(_table, "PART", 64)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred and fifty images: three parts."""
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (150, SIDE, SIDE), dtype=np.uint8))
    return path


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ten grey images, one of them broken."""
    folder = tmp_path_factory.mktemp("few") / "in"
    write_photos(folder, count=9, classes=1, channels=1)
    (folder / 'broken, "quoted".png').write_bytes(b"\x89PNG nothing")
    return folder


@pytest.fixture(scope="module")
def other(tiny_run: selftaught.Run, tmp_path_factory: pytest.TempPathFactory) -> selftaught.Run:
    """The same method with other weights."""
    out = tmp_path_factory.mktemp("other") / "run"
    return selftaught.train("simclr", "digits", out=str(out), augment="grey", **TINY | {"steps": 1}, seed=3)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> selftaught.Run:
    """A restorer after two steps, of grey images."""
    folder = tmp_path_factory.mktemp("denoiser")
    write_photos(folder / "in", count=8, classes=1, channels=1)
    options = {"patch": 24, "width": 16, "modules": 1, "steps": 2, "batch_size": 4, "workers": 0, "quiet": True}
    return selftaught.train("c-bsn", str(folder / "in"), out=str(folder / "run"), **options)


class Cut(Exception):
    pass


def cut_after(samples: int):
    def progress(done: int) -> None:
        if done >= samples:
            raise Cut

    return progress


# ---- tables ------------------------------------------------------------------------------------------------------
def test_the_count_says_what_was_skipped(tiny_run, few: Path, tmp_path: Path) -> None:
    found = tiny_run.apply(few, tmp_path / "e.parquet", workers=0)
    assert found == 9
    assert f"{found}" == "9"
    assert found + 1 == 10
    assert found.listed == tmp_path / "e.parquet.skipped.csv"
    ((name, reason),) = found.skipped
    assert name == 'broken, "quoted".png'
    with found.listed.open(newline="") as file:
        assert list(csv.reader(file)) == [["name", "reason"], [name, reason]]
    names = pq.read_table(found.out).column("name").to_pylist()
    assert names == sorted(p.name for p in few.glob("0*.png"))
    rows = tiny_run.apply(few, tmp_path / "e.npy", workers=0)
    assert rows == 9
    with (tmp_path / "e.npy.names.csv").open(newline="") as file:
        listed = [row[0] for row in csv.reader(file)][1:]
    array = np.load(tmp_path / "e.npy")
    assert len(listed) == len(array) == 10
    assert np.isnan(array[listed.index(name)]).all()
    assert np.isfinite(np.delete(array, listed.index(name), 0)).all()


def test_a_finished_table_is_left_alone(tiny_run, few: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.parquet"
    first = tiny_run.apply(few, out, workers=0)
    stamp = out.stat().st_mtime_ns
    again = tiny_run.apply(few, out, workers=0)
    assert (again, again.skipped) == (first, first.skipped)
    assert out.stat().st_mtime_ns == stamp
    assert {p.name for p in tmp_path.iterdir()} == {"e.parquet", "e.parquet.work.json", "e.parquet.skipped.csv"}


@pytest.mark.parametrize("name", ["e.parquet", "e.npy"])
def test_what_another_run_began_or_finished_is_refused(tiny_run, other, images: Path, tmp_path: Path, name) -> None:
    out = tmp_path / name
    with pytest.raises(Cut):
        tiny_run.apply(images, out, workers=0, progress=cut_after(80))
    with pytest.raises(UserError, match=r"holds results of another run .*simclr on images.npy.*overwrite") as error:
        other.apply(images, out, workers=0)
    assert "\n" not in str(error.value)
    assert other.apply(images, out, workers=0, overwrite=True) == 150
    with pytest.raises(UserError, match="holds results of another run"):
        tiny_run.apply(images, out, workers=0)
    mine = other.apply(images, tmp_path / f"fresh-{name}", workers=0)
    read = np.load if name.endswith("npy") else lambda p: np.stack(pq.read_table(p)["embedding"].to_numpy())
    np.testing.assert_array_equal(read(out), read(mine.out))


def test_other_data_and_strange_files_are_refused(tiny_run, few: Path, images: Path, tmp_path: Path) -> None:
    tiny_run.apply(few, tmp_path / "e.parquet", workers=0)
    with pytest.raises(UserError, match="holds results of other data"):
        tiny_run.apply(images, tmp_path / "e.parquet", workers=0)
    (tmp_path / "mine.npy").write_bytes(b"precious")
    with pytest.raises(UserError, match="holds what this run did not write"):
        tiny_run.apply(few, tmp_path / "mine.npy", workers=0)
    assert (tmp_path / "mine.npy").read_bytes() == b"precious"


@pytest.mark.parametrize("harm", ["gone", "cut", "empty", "flipped", "short"])
def test_a_part_that_is_missing_or_damaged_is_made_again(tiny_run, images: Path, tmp_path: Path, harm: str) -> None:
    out = tmp_path / "e.npy"
    with pytest.raises(Cut):
        tiny_run.apply(images, out, workers=0, progress=cut_after(140))
    part = tmp_path / "e.npy.parts/000000.npz"
    content = part.read_bytes()
    if harm == "gone":
        part.unlink()
    elif harm == "short":  # whole, but with a sample less than it should have
        with np.load(part) as found:
            arrays = {name: found[name] for name in found.files}
        arrays |= {"index": arrays["index"][:-1], "column embedding": arrays["column embedding"][:-1]}
        np.savez(part, **arrays)
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 8]) + content[middle + 1 :]
        part.write_bytes({"cut": content[:middle], "empty": b"", "flipped": flipped}[harm])
    seen: list[int] = []
    assert tiny_run.apply(images, out, workers=0, progress=seen.append) == 150
    assert seen[0] == _table.PART
    assert np.isfinite(np.load(out)).all()


@pytest.mark.parametrize("harm", ["cut", "gone", "a folder", "flipped"])
def test_a_finished_table_that_is_no_longer_what_was_written_is_made_again(
    tiny_run, few: Path, tmp_path: Path, harm: str
) -> None:
    out = tmp_path / "e.npy"
    tiny_run.apply(few, out, workers=0)
    whole = out.read_bytes()
    harms = {"cut": whole[:100], "flipped": whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]}
    out.unlink()
    if harm == "a folder":
        out.mkdir()
        with pytest.raises(UserError, match="a folder of that name is in the way"):
            tiny_run.apply(few, out, workers=0)
        return
    if harm in harms:
        out.write_bytes(harms[harm])
    assert tiny_run.apply(few, out, workers=0) == 9
    assert out.read_bytes() == whole


def test_what_is_noted_of_finished_work_is_not_believed_when_it_has_rotted(tiny_run, few: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.npy"
    tiny_run.apply(few, out, workers=0)
    mark = tmp_path / "e.npy.work.json"
    mark.write_text(mark.read_text().replace('"written": 9', '"written": 8'))
    with pytest.raises(UserError, match="overwrite"):
        tiny_run.apply(few, out, workers=0)
    assert tiny_run.apply(few, out, workers=0, overwrite=True) == 9


def test_an_empty_mark_does_not_block_the_next_try(tiny_run, few: Path, tmp_path: Path) -> None:
    (tmp_path / "e.npy.work.json").write_text("")
    assert tiny_run.apply(few, tmp_path / "e.npy", workers=0) == 9


def test_a_second_process_is_told_who_is_at_work(tiny_run, few: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.npy"
    with (
        applying.held(tmp_path / "e.npy.lock", out),
        pytest.raises(UserError, match=rf"process {os.getpid()} on .* is writing to it"),
    ):
        tiny_run.apply(few, out, workers=0)
    assert not (tmp_path / "e.npy.lock").exists()
    assert tiny_run.apply(few, out, workers=0) == 9


def test_nan_is_refused_in_weights_and_in_results(tiny_run, few: Path, tmp_path: Path, monkeypatch) -> None:
    method = tiny_run.method
    monkeypatch.setattr(type(method), "predict", lambda self, batch: torch.full((len(batch["index"]), 4), torch.nan))
    with pytest.raises(UserError, match=r"NaN or infinity for 000.png"):
        tiny_run.apply(few, tmp_path / "e.npy", workers=0)
    assert not (tmp_path / "e.npy").exists()


@pytest.mark.parametrize("lr", [1e39, 1e30])
def test_a_learning_rate_that_is_huge_in_the_last_step_is_told_by_the_weights(lr: float, tmp_path: Path) -> None:
    """No loss is computed after it. Weights of 1e29 are finite, and nothing that is computed with them is."""
    options = TINY | {"steps": 1, "clip": 0.0, "warmup_epochs": 0, "optimizer": "sgd", "lr": lr}
    with pytest.raises(UserError, match=r"weight .* became NaN or infinite at step 1; none saved yet; try a smaller"):
        selftaught.train("simclr", "digits?n=60", out=str(tmp_path / "run"), augment="grey", **options)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_one_line(tiny_run, few: Path, tmp_path: Path, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", full)
        with pytest.raises(UserError, match=r"can't be written .No space left on device.*the same command goes on"):
            tiny_run.apply(few, tmp_path / "e.npy", workers=0)
    assert tiny_run.apply(few, tmp_path / "e.npy", workers=0) == 9


def test_the_input_is_never_the_output(tiny_run, images: Path, denoiser, few: Path, tmp_path: Path) -> None:
    for overwrite in (False, True):
        with pytest.raises(UserError, match="is the input itself"):
            tiny_run.apply(images, images, workers=0, overwrite=overwrite)
        for out in (few, few / "deeper"):
            with pytest.raises(UserError, match="choose a place outside it"):
                denoiser.apply(few, out, overwrite=overwrite)
        one = next(few.glob("000.png"))
        with pytest.raises(UserError, match="would overwrite the input"):
            denoiser.apply(one, few, overwrite=overwrite)
    assert not (few / "deeper").exists()


# ---- folders -----------------------------------------------------------------------------------------------------
def test_restored_pictures_go_to_a_folder_and_are_kept(denoiser, few: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = denoiser.apply(few, out)
    assert found == 9
    assert found.listed == out / "skipped.csv"
    picture = out / "000.png"
    assert cv2.imread(str(picture), cv2.IMREAD_UNCHANGED).shape == (48, 48)
    stamp = picture.stat().st_mtime_ns
    (out / "001.png").unlink()
    (out / ".part-99.png").write_bytes(b"half a picture of a process that was killed")
    (out / ".part-99-7.png").write_bytes(b"half a picture of a thread of it")
    again = denoiser.apply(few, out)
    assert (again, again.kept) == (1, 8)
    assert picture.stat().st_mtime_ns == stamp
    assert (out / "001.png").is_file()
    assert not list(out.glob(".part*"))


def test_a_folder_that_grew_or_changed_is_caught_up_with(denoiser, tmp_path: Path) -> None:
    write_photos(tmp_path / "in", count=3, classes=1, channels=1)
    out = tmp_path / "out"
    assert denoiser.apply(tmp_path / "in", out) == 3
    stamps = {p.name: p.stat().st_mtime_ns for p in out.glob("*.png")}
    cv2.imwrite(str(tmp_path / "in/001.png"), np.full((30, 30), 99, np.uint8))
    cv2.imwrite(str(tmp_path / "in/new.png"), np.full((20, 20), 99, np.uint8))
    caught = denoiser.apply(tmp_path / "in", out)
    assert (caught, caught.kept) == (2, 2)
    again = {p.name: p.stat().st_mtime_ns for p in out.glob("*.png")}
    assert [name for name in stamps if again[name] == stamps[name]] == ["000.png", "002.png"]
    assert cv2.imread(str(out / "001.png")).shape[:2] == (30, 30)
    write_photos(tmp_path / "other", count=3, classes=1, channels=1)
    with pytest.raises(UserError, match="holds results of other data"):
        denoiser.apply(tmp_path / "other", out)


def test_a_table_is_no_place_for_pictures(denoiser, few: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="writes a file per sample; give a folder"):
        denoiser.apply(few, tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


def test_a_single_picture_goes_to_the_file_that_was_named(denoiser, few: Path, tmp_path: Path) -> None:
    first = sorted(few.rglob("*.png"))[0]
    image = cv2.imread(str(first), cv2.IMREAD_UNCHANGED).astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "deep.png"), image)
    made = denoiser.apply(tmp_path / "deep.png", tmp_path / "new" / "clean.png")
    assert (made, made.out) == (1, tmp_path / "new" / "clean.png")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["clean.png"]
    found = cv2.imread(str(made.out), cv2.IMREAD_UNCHANGED)
    assert denoiser.apply(tmp_path / "deep.png", tmp_path / "folder") == 1
    assert np.array_equal(found, cv2.imread(str(tmp_path / "folder" / "deep.png"), cv2.IMREAD_UNCHANGED))
    assert found.dtype == np.uint16
    stored = made.out.read_bytes()
    with pytest.raises(UserError, match="is there already"):
        denoiser.apply(first, made.out)
    assert made.out.read_bytes() == stored
    assert denoiser.apply(first, made.out, overwrite=True) == 1
    assert cv2.imread(str(made.out), cv2.IMREAD_UNCHANGED).dtype == np.uint8
    with pytest.raises(UserError, match="is the input"):
        denoiser.apply(first, first, overwrite=True)
    with pytest.raises(UserError, match="10 samples don't go into one file"):
        denoiser.apply(few, tmp_path / "all.png")
    narrow = denoiser.apply(tmp_path / "deep.png", tmp_path / "small.jpg")  # JPEG has no 16 bits
    assert narrow.out.name == "small.jpg.tif"
    assert narrow.out.exists()


def test_pictures_and_notes_that_were_damaged_since_are_made_again(denoiser, few: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert denoiser.apply(few, out) == 9
    first = next(out.glob("*.png"))
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    again = denoiser.apply(few, out)
    assert (again, again.kept) == (1, 8)
    assert first.read_bytes() == whole
    (out / ".done").write_bytes(b"\xff\xfe\xe9\n[[1], 2]\nnull\n")
    assert denoiser.apply(few, out) == 9
    lines = (out / ".done").read_text(errors="replace").splitlines(keepends=True)
    (out / ".done").write_text("".join([*lines[:-1], lines[-1].replace("0", "1")]))
    assert denoiser.apply(few, out) == 1


def test_where_no_picture_can_be_used_it_is_said_and_the_place_stays_free(denoiser, few: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.png").write_bytes(next(few.glob("*.png")).read_bytes()[:60])
    with pytest.raises(UserError, match="its only sample can't be used"):
        denoiser.apply(tmp_path / "bad", tmp_path / "out")
    assert denoiser.apply(few, tmp_path / "out") == 9


def test_pictures_of_another_run_are_refused_and_replaced_on_request(denoiser, few: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    denoiser.apply(few, out)
    mark = json.loads((out / "work.json").read_text())
    mark["key"]["weights"] = "0" * 32
    del mark["sum"]
    applying._seal(out / "work.json", mark)
    stale = np.zeros((48, 48), np.uint8)
    cv2.imwrite(str(out / "000.png"), stale)
    with pytest.raises(UserError, match="holds results of another run"):
        denoiser.apply(few, out)
    assert denoiser.apply(few, out, overwrite=True) == 9
    assert cv2.imread(str(out / "000.png"), cv2.IMREAD_UNCHANGED).any()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("precious")
    with pytest.raises(UserError, match="holds what this run did not write"):
        denoiser.apply(few, tmp_path / "mine")


def test_the_command_says_what_was_written_and_left_out(tiny_run, few: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "e.parquet"
    assert main(["apply", str(tiny_run.path), str(few), "--out", str(out), "--workers", "0"]) == 0
    said = capsys.readouterr().out
    assert f"9 written to {out}" in said
    assert f"1 could not be used, listed in {out}.skipped.csv" in said


# ---- killed anywhere ---------------------------------------------------------------------------------------------
class Killed(BaseException):
    """What no handler takes for an error."""


def killed_at(monkeypatch: pytest.MonkeyPatch, moment: int, after: bool) -> None:
    """Kill before or after the file system's n-th replacement of a file."""
    calls, replace = [0], Path.replace

    def deadly(self: Path, target: object) -> Path:
        calls[0] += 1
        if calls[0] == moment and not after:
            raise Killed
        done = replace(self, target)  # type: ignore[arg-type]
        if calls[0] == moment:
            raise Killed
        return done

    monkeypatch.setattr(Path, "replace", deadly)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", ["e.npy", "e.parquet", "folder"])
def test_killed_at_every_seam_it_goes_on_to_the_same(
    tiny_run, denoiser, few: Path, tmp_path: Path, monkeypatch, kind: str, after: bool
) -> None:
    monkeypatch.setattr(_table, "BATCH", 2)
    monkeypatch.setattr(_table, "PART", 4)
    run = denoiser if kind == "folder" else tiny_run

    def content(place: Path) -> dict[str, bytes]:
        files = [place, *place.parent.glob(f"{place.name}.*")] if place.is_file() else sorted(place.rglob("*"))
        return {p.name.replace(place.name, "OUT"): p.read_bytes() for p in files if p.is_file()}

    run.apply(few, tmp_path / "whole" / kind, workers=0)
    expected = content(tmp_path / "whole" / kind)
    moment, kills = 1, 0
    while True:
        out = tmp_path / f"{moment}" / kind
        with monkeypatch.context() as patched:
            killed_at(patched, moment, after)
            try:
                run.apply(few, out, workers=0)
                break
            except Killed:
                kills += 1
        assert run.apply(few, out, workers=0).skipped
        assert content(out) == expected
        moment += 1
    assert kills > 5
