"""Packed clips: the frames of the files at their size, wherever in a recording; what is broken stays broken."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import selftaught
from selftaught.data import Grouped, PackedClips, open_source, pack, packed_clips
from selftaught.data.cache import reduce_to
from selftaught.data.scaling import as_uint8
from selftaught.errors import SampleError, UserError
from tests.data.helpers import damage_file, folder_of, picture, write
from tests.data.test_video import write_video


def videos(root: Path) -> Path:
    """Two whole videos, one with a damaged frame 17, a file that is none, a phone's that lies on its side."""
    write_video(root / "run" / "a.mp4", count=30)
    write_video(root / "jump" / "b.avi", count=17, codec="mpeg4")
    write_video(root / "jump" / "phone.mp4", count=9, rotation=90, stamps=[0, 90, 210, 300, 420, 480, 600, 720, 810])
    scratched = write_video(root / "run" / "cut.avi", count=30, codec="mpeg4", size=(96, 128))
    data = bytearray(scratched.read_bytes())
    frame = [found.end() for found in re.finditer(b"00dc", bytes(data))][18]
    size = int.from_bytes(data[frame : frame + 4], "little")
    data[frame + 4 : frame + 4 + size] = b"\xff" * size
    scratched.write_bytes(data)
    (root / "run" / "none.mp4").write_bytes(b"no video at all")
    return root


def read(source: Any, i: int, frames: np.ndarray) -> np.ndarray:
    found: np.ndarray = source.read(i, frames=frames)
    return found


def at_size(source: Any, i: int, side: int, frames: np.ndarray | None = None) -> np.ndarray:
    clip = source.read(i, side) if frames is None else source.read(i, side, frames=frames)
    return np.stack([reduce_to(frame, side) for frame in clip])


@pytest.mark.parametrize("side", [24, 17, 1000])
@pytest.mark.parametrize("options", ["", "?fps=7", "?window=8&stride=3&frames=3&step=2"])
def test_clips_of_a_pack_are_those_of_the_files(tmp_path: Path, side: int, options: str) -> None:
    source = open_source(f"{videos(tmp_path / 'v')}{options}", split="all")
    packed = pack(source, side, tmp_path / "packs", workers=2)
    assert isinstance(packed, PackedClips)
    assert (packed.names, packed.classes, packed.rate) == (source.names, source.classes, source.rate)
    np.testing.assert_array_equal(packed.labels, source.labels)
    rng, seen = np.random.default_rng(0), 0
    for i, name in enumerate(source.names):
        if name.startswith(("run/none", "run/cut")):
            continue
        np.testing.assert_array_equal(packed.read(i), at_size(source, i, side))
        some = rng.integers(0, source.frames(i), 5)
        np.testing.assert_array_equal(packed.read(i, frames=some), at_size(source, i, side, some))
        assert (packed.frames(i), packed.seconds(i)) == (source.frames(i), source.seconds(i))
        np.testing.assert_array_equal(packed.times(i), source.times(i))
        assert min(packed.read(i).shape[1:3]) == min(side, 48)
        seen += 1
    assert seen >= 3
    assert packed.read(0).flags.writeable


def test_what_is_broken_is_as_broken_in_the_pack(tmp_path: Path) -> None:
    source = open_source(videos(tmp_path / "v"), split="all")
    packed = pack(source, 48, tmp_path / "packs")
    for name in ("run/none.mp4", "run/cut.avi"):
        said = []
        for one in (source, packed):
            with pytest.raises(SampleError) as error:
                one.read(list(source.names).index(name))
            said.append((error.value.name, error.value.reason))
        assert said[0] == said[1]
    cut = list(source.names).index("run/cut.avi")
    lost: list[int] = []
    for k in range(30):
        frame = np.array([k])
        try:
            wanted = at_size(source, cut, 48, frame)
        except SampleError as error:
            lost.append(k)
            with pytest.raises(SampleError, match=f"^{error}$"):
                read(packed, cut, frame)
        else:
            np.testing.assert_array_equal(read(packed, cut, frame), wanted)
    assert lost == list(range(17, 24))  # up to the next key frame


def test_a_second_opening_and_a_part_decode_nothing_more_than_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, done = videos(tmp_path / "v"), []
    for _ in range(2):
        pack(open_source(root, split="all"), 24, tmp_path / "packs", progress=lambda k, n: done.append((k, n)))
    assert sorted(done) == [(2, 5), (3, 5), (4, 5), (5, 5)]  # the one that is no video needs no decoding
    part = open_source(root, split="all").subset([1, 0])
    packed = pack(part, 24, tmp_path / "packs")
    assert packed.nbytes < pack(open_source(root, split="all"), 24, tmp_path / "packs").nbytes
    for i in (0, 1):
        np.testing.assert_array_equal(packed.read(i), at_size(part, i, 24))
    again = pickle.loads(pickle.dumps(packed))
    np.testing.assert_array_equal(again.subset([1]).read(0), packed.read(1))


def test_a_changed_source_is_packed_anew_and_another_rate_beside_it(tmp_path: Path) -> None:
    write_video(tmp_path / "v" / "a.mp4", count=12)
    before = pack(open_source(tmp_path / "v", split="all"), 24, tmp_path / "packs")
    slow = pack(open_source(f"{tmp_path / 'v'}?fps=5", split="all"), 24, tmp_path / "packs")
    assert (before.frames(0), slow.frames(0)) == (12, 6)
    write_video(tmp_path / "v" / "a.mp4", count=20)
    after = pack(open_source(tmp_path / "v", split="all"), 24, tmp_path / "packs")
    assert after.frames(0) == 20
    assert not before.folder.exists()
    assert slow.folder.exists()


@pytest.mark.parametrize("damage", ["bytes", "short", "index", "gone"])
def test_a_damaged_pack_is_made_again(tmp_path: Path, damage: str) -> None:
    write_video(tmp_path / "v" / "a.mp4", count=12)
    source = open_source(tmp_path / "v", split="all")
    where = pack(source, 24, tmp_path / "packs").folder
    file = where / ("index.npz" if damage == "index" else "pixels.bin")
    damage_file(file, damage)
    np.testing.assert_array_equal(pack(source, 24, tmp_path / "packs").read(0), at_size(source, 0, 24))


def test_a_stop_in_the_middle_leaves_no_pack(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    source = open_source(videos(tmp_path / "v"), split="all")
    with pytest.raises(KeyboardInterrupt):
        pack(source, 24, tmp_path / "packs", progress=stop)
    assert not [p for p in (tmp_path / "packs").glob("*") if p.is_dir()]
    assert len(pack(source, 24, tmp_path / "packs")) == 5


def test_folders_of_frames_are_packed_and_other_clips_refused(tmp_path: Path) -> None:
    folder_of(tmp_path / "f", [f"{clip}/{k}.png" for clip in ("x", "y") for k in range(3)])
    source = open_source(tmp_path / "f", split="all", modality="clip")
    packed = pack(source, 10, tmp_path / "packs")
    for i in (0, 1):
        np.testing.assert_array_equal(packed.read(i), at_size(source, i, 10))
    with pytest.raises(UserError, match="only clips of videos or of folders of frames are packed"):
        pack(Grouped(open_source(tmp_path / "f", split="all", modality="image"), "folder", "clip"), 8, tmp_path)


def test_several_folders_are_packed_each_for_itself(tmp_path: Path) -> None:
    """Whatever the order, with the range of all of them, broken files as broken, and one folder twice."""
    for k, name in enumerate(["a/x", "a/y", "b/x", "b/z"]):
        write_video(tmp_path / f"{name}.mp4", count=6 + k)
    (tmp_path / "b" / "none.mp4").write_bytes(b"no video at all")
    for k in range(6):
        deep = picture(20, 24, 3, seed=k).astype(np.uint16) * (20 + k)
        write(tmp_path / "c" / f"deep{k % 2}" / f"{k // 2}.png", cv2.imencode(".png", deep)[1].tobytes())
    whole = open_source([str(tmp_path / name) for name in "abca"], split="all", modality="clip")
    source = whole.subset([8, 3, 5, 0, 6, 2, 4], "some")
    assert source.value_range is not None
    packed = pack(source, 24, tmp_path / "packs")
    assert (packed.names, packed.value_range) == (source.names, source.value_range)
    np.testing.assert_array_equal(packed.given, source.given)
    assert "packed" in packed.describe()
    for i, name in enumerate(source.names):
        if name.endswith("none.mp4"):
            with pytest.raises(SampleError, match=r"none\.mp4: can't be read as a video"):
                packed.read(i)
            continue
        wanted = as_uint8(source.read(i), source.value_range)
        np.testing.assert_array_equal(packed.read(i), np.stack([reduce_to(frame, 24) for frame in wanted]))
        assert (packed.frames(i), packed.seconds(i)) == (source.frames(i), source.seconds(i))
    assert len({path for path in (tmp_path / "packs").iterdir() if path.is_dir()}) == 4
    again = pack(source, 24, tmp_path / "packs", progress=lambda done, total: pytest.fail("decoded anew"))
    np.testing.assert_array_equal(again.read(3), packed.read(3))


def test_a_run_learns_the_same_from_the_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole frames at the size that is packed: same batches, same weights."""
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))
    for k in range(6):
        write_video(tmp_path / "v" / f"{k}.mp4", count=12 + k, size=(32, 48))
    given = {
        "preset": "laptop",
        "steps": 2,
        "batch_size": 3,
        "frames": 4,
        "stride": 1,
        "quiet": True,
        "workers": 0,
        "device": "cpu",
    }
    kept = {}
    for cache in (False, True):
        decoded = packed_clips.PackedClips._decode
        read: list[int] = []
        monkeypatch.setattr(
            packed_clips.PackedClips, "_decode", lambda *a, d=decoded, r=read: (r.append(1), d(*a))[1], raising=True
        )
        run = selftaught.train(
            "cvrl", str(tmp_path / "v"), out=str(tmp_path / f"run{cache}"), cache=cache, cache_side=32 * cache, **given
        )
        monkeypatch.setattr(packed_clips.PackedClips, "_decode", decoded)
        assert bool(read) is cache
        kept[cache] = (run.path / "encoder.safetensors").read_bytes()
    assert kept[False] == kept[True]
    with pytest.raises(UserError, match="cache_side=32 is for cache"):
        selftaught.train("cvrl", str(tmp_path / "v"), out=str(tmp_path / "run"), cache_side=32, **given)
