"""Videos: any frame by any way is that of a plain decoding; sizes, rates, windows, rotation, and what is broken."""

from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from selftaught.data import Source, check, open_source
from selftaught.data.fields import Field
from selftaught.data.formats._pyav import reduced_size
from selftaught.errors import SampleError, UserError
from tests.data.helpers import folder_of, picture

av = pytest.importorskip("av")

CODECS = {"h264.mp4": "libx264", "b.avi": "mpeg4", "c.mov": "mpeg4", "d.mkv": "ffv1", "e.webm": "libvpx-vp9"}


def frame(k: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Frame k: a picture whose brightness tells k, with a bright corner at the top left."""
    image = np.full((*size, 3), 20 + 6 * (k % 39), np.uint8)
    image[: size[0] // 4, : size[1] // 4] = 255
    return image


def write_video(
    path: Path,
    count: int = 30,
    codec: str = "libx264",
    fps: int = 10,
    size: tuple[int, int] = (48, 64),
    stamps: list[int] | None = None,
    rotation: int = 0,
    grey: bool = False,
) -> Path:
    """A video of `frame`s with a key frame every eight; `stamps` are in milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = {"bf": "2", "crf": "5"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = size
        stream.pix_fmt = "gray" if grey else "rgb8" if codec == "gif" else "yuv420p"
        if codec != "gif":
            stream.codec_context.gop_size = 8
        if rotation:
            stream.set_display_rotation(rotation)
        if stamps is not None:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for k in range(count):
            made = av.VideoFrame.from_ndarray(frame(k, size), format="rgb24")
            if stamps is not None:
                made.pts, made.time_base = stamps[k], Fraction(1, 1000)
            container.mux(stream.encode(made))
        container.mux(stream.encode())
    return path


def plain(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def level(clip: np.ndarray) -> list[int]:
    """Which frame of `frame` each one is, told by the brightness at its middle."""
    return [round((float(f[f.shape[0] // 2, f.shape[1] // 2].mean()) - 20) / 6) for f in clip]


@pytest.mark.parametrize("name", [*CODECS, "f.gif"])
def test_any_frames_in_any_order_are_those_of_a_plain_decoding(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, codec=CODECS.get(name, "gif"))
    source, whole = open_source(path, split="all"), plain(path)
    assert (source.modality, source.channels, len(source), source.frames(0)) == ("clip", 3, 1, 30)
    np.testing.assert_array_equal(source.read(0), whole)
    rng = np.random.default_rng(0)
    for wanted in ([29], [0], [3, 4, 5], [28, 2, 2, 17], rng.permutation(30).tolist(), [7, 8], [15, 16, 24]):
        np.testing.assert_array_equal(source.read(0, frames=np.array(wanted)), whole[wanted])
    assert source.sample(0, frames=np.array([4]))["clip"].shape == (1, 48, 64, 3)
    with pytest.raises(IndexError, match=r"0\.\.30 of 30"):
        source.read(0, frames=np.array([0, 30]))


def test_only_the_frames_near_the_wanted_ones_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selftaught.data.formats import _pyav

    path = write_video(tmp_path / "a.mp4")
    decoded: list[int] = []
    go = _pyav._Reader._go

    def counted(self: object, key: int, stamp: int) -> None:
        go(self, key, stamp)
        inner = self.decoded

        def count() -> object:
            for f in inner:
                decoded.append(f.pts)
                yield f

        self.decoded = count()

    monkeypatch.setattr(_pyav._Reader, "_go", counted)
    source = open_source(path, split="all")
    source.read(0, frames=np.array([17, 28]))
    assert len(decoded) <= 8


def test_classes_splits_names_and_the_registry(tmp_path: Path) -> None:
    for name in ("train/jump/1.mp4", "train/run/1.mp4", "test/jump/1.mp4", "test/run/2.mp4"):
        write_video(tmp_path / name, count=4)
    (tmp_path / "notes.txt").write_text("1 2 3")
    source = open_source(tmp_path, split="test")
    assert source.names == ["test/jump/1.mp4", "test/run/2.mp4"]
    assert source.classes == ["jump", "run"]
    assert source.fields == {"clip": Field("clip", 3), "label": Field("label")}
    assert source.describe().endswith("2 clips, 3 channels, 2 classes (test by given)")
    assert source.read(1, frames=np.array([2])).shape == (1, 48, 64, 3)
    whole = open_source(tmp_path, split="all")
    again = pickle.loads(pickle.dumps(whole))
    assert again.fingerprint() == whole.fingerprint()
    np.testing.assert_array_equal(again.read(0), whole.read(0))
    assert open_source(str(tmp_path / "train/*/*.mp4"), split="all").classes == ["jump", "run"]
    files = [tmp_path / "train/jump/1.mp4", tmp_path / "test/run/2.mp4"]
    assert len(open_source(files, split="all")) == 2
    with pytest.raises(UserError, match="holds clip samples, not image"):
        open_source(tmp_path / "train/jump/1.mp4", modality="image")
    with pytest.raises(UserError, match=r"gone\.mp4: no such file"):
        open_source([tmp_path / "gone.mp4"])


def test_windows_and_the_middle_of_a_clip(tmp_path: Path) -> None:
    write_video(tmp_path / "a" / "1.mp4")
    write_video(tmp_path / "b" / "1.mp4", count=9)
    source = open_source(f"{tmp_path}?window=8&stride=6", split="all")
    assert source.names == [*[f"a/1.mp4@{k}" for k in (0, 6, 12, 18)], "b/1.mp4@0"]
    assert source.groups is not None
    assert source.labels is not None
    assert (source.groups.tolist(), source.labels.tolist()) == ([0, 0, 0, 0, 1], [0, 0, 0, 0, 1])
    assert level(source.read(2)) == list(range(12, 20))
    assert level(source.read(2, frames=np.array([7, 0]))) == [19, 12]
    assert source.frames(4) == 8
    middle = open_source(f"{tmp_path}?frames=4&step=3", split="all")
    assert level(middle.read(0)) == [10, 13, 16, 19]
    with pytest.raises(SampleError, match="9 frames where 10 are wanted"):
        middle.read(1)
    assert level(open_source(f"{tmp_path}?step=10", split="all").read(0)) == [0, 10, 20]
    for options, said in (({"frames": 0}, "frames=0 must be"), ({"frames": 4, "step": 3, "window": 9}, "don't fit")):
        with pytest.raises(UserError, match=said):
            open_source(tmp_path, **options)


def test_frames_come_reduced_but_not_below_the_wanted_side(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "a.mp4", count=3, size=(96, 128)), split="all")
    assert source.read(0, 32).shape == (3, 32, 42, 3) or source.read(0, 32).shape == (3, 32, 43, 3)
    assert source.read(0, 49).shape == (3, 96, 128, 3)
    small, whole = source.read(0, 48), source.read(0)
    assert small.shape == (3, 48, 64, 3)
    expected = np.stack([cv2.resize(f, (64, 48), interpolation=cv2.INTER_AREA) for f in whole])
    assert np.abs(small.astype(int) - expected).mean() < 0.2
    assert reduced_size(100, 301, 30) == (33, 100)
    assert reduced_size(100, 301, None) == (100, 301)


def test_a_rate_follows_the_time_stamps(tmp_path: Path) -> None:
    stamps = [0, 100, 200, 300, 1300, 1400, 2000]
    path = write_video(tmp_path / "vfr.mkv", count=7, codec="ffv1", stamps=stamps)
    assert open_source(path, split="all").frames(0) == 7
    source = open_source(f"{path}?fps=5", split="all")
    # at 0, 0.2, 0.4 ... 2.0 s the frame that is shown then
    assert level(source.read(0)) == [0, 2, 3, 3, 3, 3, 3, 5, 5, 5, 6]
    assert (source.frames(0), source.rate) == (11, 5.0)
    assert level(open_source(f"{path}?fps=5&window=4&stride=7", split="all").read(1)) == [5, 5, 5, 6]
    with pytest.raises(UserError, match="fps=0 must be above 0"):
        open_source(f"{path}?fps=0")


@pytest.mark.parametrize(("rotation", "corner"), [(90, (-1, 0)), (-90, (0, -1)), (180, (-1, -1))])
def test_rotation_in_the_file_is_honoured(tmp_path: Path, rotation: int, corner: tuple[int, int]) -> None:
    path = write_video(tmp_path / "r.mp4", count=2, rotation=rotation)
    with av.open(str(path)) as container:
        assert abs(next(container.decode(video=0)).rotation) == abs(rotation)
    clip = open_source(path, split="all").read(0)
    assert clip.shape == ((2, 48, 64, 3) if rotation == 180 else (2, 64, 48, 3))
    assert clip[0][corner].min() > 240
    assert clip[0][0, 0].max() < 60


def test_grey_videos_have_one_channel(tmp_path: Path) -> None:
    path = write_video(tmp_path / "g.mkv", count=5, codec="ffv1", grey=True)
    source = open_source(path, split="all")
    assert source.read(0).shape == (5, 48, 64, 1)
    np.testing.assert_array_equal(source.read(0)[4], frame(4)[:, :, :1])
    assert open_source(path, channels=3, split="all").read(0).shape == (5, 48, 64, 3)
    colour = write_video(tmp_path / "c.mp4", count=5)
    single = open_source(colour, channels=1, split="all").read(0)
    assert single.shape == (5, 48, 64, 1)
    assert abs(int(single[4, 40, 40, 0]) - int(frame(4)[40, 40, 0])) <= 3
    with pytest.raises(UserError, match="channels=2"):
        open_source(colour, channels=2)


def test_what_is_broken_is_listed_with_its_reason(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "d.avi", codec="mpeg4").read_bytes()
    (tmp_path / "a.avi").write_bytes(b"")
    (tmp_path / "b.mp4").write_bytes(b"this is no video at all")
    (tmp_path / "c.avi").write_bytes(whole[: len(whole) // 8])
    with av.open(str(tmp_path / "e.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    report = dict(check(tmp_path).problems)
    assert report.pop("a.avi") == "empty file"
    assert report.pop("b.mp4").startswith("can't be read as a video: invalid data")
    assert report.pop("e.mkv") == "no picture in it, only sound"
    assert set(report) <= {"c.avi"}
    source = open_source(f"{tmp_path}?window=16", split="all")
    assert [n for n in source.names if n.startswith("d")] == ["d.avi@0"]
    listed = dict(check(source).problems)
    assert set(listed) == {"a.avi@0", "b.mp4@0", "c.avi@0", "e.mkv@0"}
    (tmp_path / "d.avi").unlink()
    with pytest.raises(SampleError, match=r"d\.avi: missing"):
        source.read(source.names.index("d.avi@0"))


def test_the_index_of_a_large_file_is_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selftaught.data.formats import _pyav

    path = write_video(tmp_path / "a.mp4")
    plainly = open_source(path, split="all").read(0)
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_pyav, "_STORED_ABOVE", 100)
    _pyav.video_index.cache_clear()
    np.testing.assert_array_equal(open_source(path, split="all").read(0), plainly)
    assert len(list((tmp_path / "cache" / "video-index").glob("*.npz"))) == 1
    _pyav.video_index.cache_clear()
    monkeypatch.delattr(_pyav, "_read_index")
    np.testing.assert_array_equal(open_source(path, split="all").read(0), plainly)
    _pyav.video_index.cache_clear()


def test_windows_of_two_videos_are_partners(tmp_path: Path) -> None:
    for name in ("blurry", "sharp"):
        write_video(tmp_path / name / "1.mp4", count=16)
    pairs = open_source(f"pairs:{tmp_path}?blurry=blurry?window=8&sharp=sharp?window=8", split="all")
    assert pairs.names == ["1.mp4@0", "1.mp4@8"]
    sample = pairs.sample(1, frames=np.array([2]))
    assert level(sample["blurry"]) == level(sample["sharp"]) == [10]


def test_a_video_too_long_to_hold_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4")
    monkeypatch.setattr("selftaught.data.formats.video._MOST_BYTES", 1e5)
    source = open_source(path, split="all")
    with pytest.raises(UserError, match="30 frames of 48x64, too many to hold at a time; read some"):
        source.read(0)
    assert source.read(0, frames=np.arange(4)).shape == (4, 48, 64, 3)


def test_folders_of_frames_are_clips(tmp_path: Path) -> None:
    folder_of(tmp_path, [f"{c}/{v}/{k}.png" for c in ("run", "sit") for v in ("x", "y") for k in range(11)])
    source = open_source(tmp_path, modality="clip", split="all")
    assert source.names == ["run/x", "run/y", "sit/x", "sit/y"]
    assert source.classes == ["run", "sit"]
    assert source.value_range is None
    assert source.read(1).shape == (11, 20, 24, 3)
    np.testing.assert_array_equal(source.read(0, frames=np.array([10]))[0], picture(20, 24, seed=10))
    windows = open_source(f"{tmp_path}?window=4", modality="clip", split="all")
    assert windows.names[:3] == ["run/x@0", "run/x@4", "run/y@0"]
    np.testing.assert_array_equal(windows.read(1), source.read(0)[4:8])
    assert len({source.fingerprint(), windows.fingerprint()}) == 2
    assert pickle.loads(pickle.dumps(windows)).origin() == windows.origin()
    pairs = open_source({"blurry": tmp_path, "sharp": tmp_path}, modality="clip", split="all")
    sample = pairs.sample(0, frames=np.array([1, 2]))
    assert sample["blurry"].shape == sample["sharp"].shape == (2, 20, 24, 3)
    assert pairs.frames(0) == 11
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no video and no folder of frames"):
        open_source(tmp_path / "empty", modality="clip")


def test_folders_of_frames_beside_videos_are_told_and_can_be_added(tmp_path: Path) -> None:
    for kind in ("run", "sit"):
        write_video(tmp_path / kind / "film.mp4", 10)
        folder_of(tmp_path, [f"{kind}/walk/{k:02d}.jpg" for k in range(9)] + [f"{kind}/stills/{k}.png" for k in "ab"])
    source = open_source(tmp_path, modality="clip", split="all")
    assert source.names == ["run/film.mp4", "sit/film.mp4"]
    assert source.left_out == {"folders of images": 2}
    assert f"add them as frames:{tmp_path}/" in source.notes[-1]
    both = open_source(f"{tmp_path} + frames:{tmp_path}", modality="clip", split="all")
    assert len(both) == 6
    assert (both.classes, both.labels.tolist()) == (["run", "sit"], [0, 1, 0, 0, 1, 1])
    with pytest.raises(UserError, match="no such folder"):
        open_source("frames:nowhere", modality="clip")
    report = str(check(tmp_path))
    assert "2 videos here: methods for clips take them (--modality clip)" in report


def test_long_videos_are_checked_by_some_of_their_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", count=300, size=(16, 16))
    report = check(path)
    assert report.ok == 1
    assert report.shapes == {"256x16x16": 1}


@pytest.mark.slow
def test_loader_workers_read_the_same_clips(tmp_path: Path) -> None:
    for k in range(4):
        write_video(tmp_path / f"{k}.mp4", count=9 + k)
    source = open_source(f"{tmp_path}?window=3", split="all")
    source.read(0)  # the parent has used the decoder before it forks
    alone = [int(source.read(i).sum()) for i in range(len(source))]
    loader = torch.utils.data.DataLoader(
        Sums(source), batch_size=None, num_workers=2, multiprocessing_context="fork", shuffle=False
    )
    assert [int(total) for total in loader] == alone


class Sums(torch.utils.data.Dataset):
    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> int:
        return int(self.source.read(i).sum())
