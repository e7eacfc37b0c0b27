"""Restored clips: videos with their rate and sound, folders of frames with their names, and how they are judged."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from selftaught import UserError, evaluation
from selftaught.data import holds_videos, open_source
from selftaught.engine.method import Method
from selftaught.run import outputs
from selftaught.run.applying import Job, open_input, own_options
from selftaught.run.bench import Bench, Options
from selftaught.run.outputs._folder import folders
from selftaught.run.outputs.clip import restored_clip, restored_frames
from selftaught.run_settings import Settings

av: Any = pytest.importorskip("av")


class Smooth(nn.Module):
    """Mean over three frames and a 3x3 neighbourhood, its border repeated: tiles and chunks must not change it."""

    reach, chunk, receptive_radius = 1, 4, 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(x, (1, 1, 1, 1, 1, 1), mode="replicate")
        return nn.functional.avg_pool3d(padded, 3, stride=1)


class Smoother(Method):
    """A method that delivers it."""

    slug, output, pixels, modalities = "smoother", "clip", "float32", ("clip",)
    pair_fields = ("noisy", "clean")

    def deliverable(self) -> nn.Module:
        return Smooth()


def frames(count: int = 11, height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    one = [127 + 80 * np.sin((x + 2 * t) / 6) * np.cos(y / 7) for t in range(count)]
    return np.repeat(np.stack(one)[..., None], 3, axis=3).astype(np.uint8)


def write_film(path: Path, clip: np.ndarray, sound: str | None = "aac") -> None:
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=Fraction(30000, 1001), options={"crf": "1"})
        video.height, video.width = clip.shape[1:3]
        video.pix_fmt = "yuv444p" if clip.shape[1] % 2 else "yuv420p"
        audio = out.add_stream(sound, rate=48000) if sound else None
        for pixels in clip:
            out.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(video.encode())
        if audio is not None:
            for k in range(int(len(clip) / 30 * 48000 / 1024) + 1):
                wave = np.sin(np.arange(1024 * k, 1024 * (k + 1)) / 20).astype(np.float32)[None] / 3
                part = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                part.rate, part.pts = 48000, 1024 * k
                out.mux(audio.encode(part))
            out.mux(audio.encode())


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as file:
        return [bytes(p) for p in file.demux(file.streams.audio[0]) if p.size] if file.streams.audio else []


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    (folder / "a").mkdir()
    write_film(folder / "a" / "loud.mp4", frames())
    write_film(folder / "mute.mkv", frames(5, 37, 51), None)
    return folder


def test_a_video_becomes_a_video_with_its_times_and_its_sound(films: Path, tmp_path: Path) -> None:
    source = open_source(str(films), modality="clip", split="all")
    method = Smoother(channels=3).eval()
    done = outputs.of("clip").apply(Job(method, source, tmp_path / "out", given=str(films)))
    assert int(done) == 2
    made = open_source(str(tmp_path / "out"), modality="clip", split="all")
    assert sorted(made.names) == sorted(source.names) == ["a/loud.mp4", "mute.mkv"]
    for i, name in enumerate(source.names):
        k = list(made.names).index(name)
        assert np.abs(np.subtract(made.times(k), source.times(i))).max() < 1.1e-3  # type: ignore[arg-type]
        wanted = restored_clip(method, source.read(i).astype(np.float32) / 255)
        assert evaluation.restoration([made.read(k)[2]], [np.rint(255 * wanted[2])])["psnr"].mean > 34
    assert packets(tmp_path / "out" / "a" / "loud.mp4") == packets(films / "a" / "loud.mp4") != []
    again = outputs.of("clip").apply(Job(method, source, tmp_path / "out", given=str(films)))
    assert (int(again), again.kept) == (0, 2)


def test_a_single_video_goes_to_the_file_that_was_named(films: Path, tmp_path: Path) -> None:
    film = films / "a" / "loud.mp4"
    source = open_source(str(film), modality="clip", split="all")
    job = Job(Smoother(channels=3).eval(), source, tmp_path / "steady.mp4", given=str(film))
    done = outputs.of("clip").apply(job)
    assert (int(done), done.out) == (1, tmp_path / "steady.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["steady.mp4"]
    assert packets(done.out) == packets(film) != []
    assert np.allclose(open_source(str(done.out), modality="clip", split="all").times(0), source.times(0), atol=1.1e-3)
    with pytest.raises(UserError, match="is there already"):
        outputs.of("clip").apply(job)


def test_a_window_of_a_video_has_its_part_of_the_sound(films: Path, tmp_path: Path) -> None:
    source = open_source(str(films / "a" / "loud.mp4"), modality="clip", split="all", window=5)
    outputs.of("clip").apply(Job(Smoother(channels=3).eval(), source, tmp_path / "out"))
    first, second = (packets(tmp_path / "out" / f"loud@{start}.mp4") for start in (0, 5))
    whole = packets(films / "a" / "loud.mp4")
    assert first == whole[: len(first)]
    assert 0 < len(second) < len(whole)
    assert whole.index(second[0]) in (len(first), len(first) - 1)


def test_frames_keep_their_names_and_depth_and_videos_turn_into_frames(films: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "one").mkdir(parents=True)
    for t, frame in enumerate(frames(4)):
        cv2.imwrite(str(tmp_path / "in" / "one" / f"shot{t + 8}.png"), frame.astype(np.uint16) * 257)
    source = open_source(str(tmp_path / "in"), modality="clip", split="all")
    method = Smoother(channels=3).eval()
    method.value_range = source.value_range
    outputs.of("clip").apply(Job(method, source, tmp_path / "out"))
    names = sorted(p.name for p in (tmp_path / "out" / "one").iterdir())
    assert names == ["clip.json", "shot10.png", "shot11.png", "shot8.png", "shot9.png"]
    picture = np.asarray(cv2.imread(str(tmp_path / "out" / "one" / "shot10.png"), cv2.IMREAD_UNCHANGED))
    assert picture.dtype == np.uint16
    assert np.ptp(picture) > 20_000
    film = open_source(str(films / "mute.mkv"), modality="clip", split="all")
    outputs.of("clip").apply(
        Job(Smoother(channels=3).eval(), film, tmp_path / "pictures", options={"apply into": "frames"})
    )
    assert len(list((tmp_path / "pictures" / "mute").glob("*.png"))) == 5
    with pytest.raises(UserError, match="video or frames"):
        own_options({"into": "gif"}, outputs.of("clip").takes, method.slug)


def test_no_two_clips_share_a_folder(films: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for suffix in (".mkv", ".MP4"):
        shutil.copy(films / "mute.mkv", tmp_path / "in" / f"mute{suffix}")
    both = open_source(str(tmp_path / "in"), modality="clip", split="all")
    assert list(map(str, folders(both))) == ["mute.MP4", "mute.mkv"]
    cut = open_source(str(films), modality="clip", split="all", window=2)
    assert list(map(str, folders(cut)))[-2:] == ["mute@0", "mute@2"]
    job = Job(Smoother(channels=3).eval(), both, tmp_path / "out", options={"apply into": "frames"})
    assert int(outputs.of("clip").apply(job)) == 2
    assert [len(list((tmp_path / "out" / name).glob("*.png"))) for name in ("mute.MP4", "mute.mkv")] == [5, 5]
    (tmp_path / "walk.1").mkdir()
    cv2.imwrite(str(tmp_path / "walk.1" / "0.png"), frames(1)[0])
    alone = open_source(str(tmp_path / "walk.1"), modality="clip", split="all")
    assert list(map(str, folders(alone))) == ["walk.1"]


class Larger(Method):
    """A method of pictures: twice the size, darker; a film of one frame and one of many must come out alike."""

    slug, output, pixels, modalities = "larger", "image", "float32", ("image",)

    def deliverable(self) -> nn.Module:
        class Twice(nn.Module):
            scale, receptive_radius = 2, 0

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return nn.functional.interpolate(x, scale_factor=2) / 2

        return Twice()


def test_a_restorer_of_pictures_takes_a_video_frame_by_frame(films: Path, tmp_path: Path) -> None:
    method = Larger(channels=3).eval()
    source = open_input(str(films), method, videos=True)
    assert source.modality == "clip"
    assert int(outputs.of("image").apply(Job(method, source, tmp_path / "out", given=str(films)))) == 2
    made = open_source(str(tmp_path / "out"), modality="clip", split="all")
    for i, name in enumerate(source.names):
        k = list(made.names).index(name)
        before, after = source.read(i), made.read(k)
        assert after.shape == (len(before), 2 * before.shape[1], 2 * before.shape[2], 3)
        assert np.abs(np.subtract(made.times(k), source.times(i))).max() < 1.1e-3  # type: ignore[arg-type]
        wanted = before.repeat(2, 1).repeat(2, 2).astype(np.float64) / 2
        assert np.abs(after - wanted).mean() < 2
    assert packets(tmp_path / "out" / "a" / "loud.mp4") == packets(films / "a" / "loud.mp4") != []
    film = open_input(str(films / "mute.mkv"), method, videos=True)
    outputs.of("image").apply(Job(method, film, tmp_path / "pictures", options={"apply into": "frames"}))
    assert len(list((tmp_path / "pictures" / "mute").glob("*.png"))) == 5


def test_what_is_taken_for_videos(films: Path, tmp_path: Path) -> None:
    loud = str(films / "a" / "loud.mp4")
    for videos in (str(films), loud, f"{loud}?fps=10", [loud, str(films / "mute.mkv")], f"{films}/*.mkv", "pans"):
        assert holds_videos(videos), videos
    (tmp_path / "clip.mp4").write_bytes(b"")
    cv2.imwrite(str(tmp_path / "cover.png"), np.zeros((8, 8, 3), np.uint8))
    for other in (str(tmp_path), str(tmp_path / "cover.png"), f"{tmp_path}/*", "photos", [loud, "photos"], frames()):
        assert not holds_videos(other)
    assert holds_videos(f"frames:{tmp_path}")
    with pytest.raises(UserError, match="holds clip samples, not image"):
        open_input(loud, Larger(channels=3))


def test_chunks_and_tiles_change_nothing(tmp_path: Path) -> None:
    clip = frames(11, 40, 70)
    for t, frame in enumerate(clip):
        cv2.imwrite(str(tmp_path / f"{t}.png"), frame)
    source = open_source(str(tmp_path), modality="clip", split="all")
    method = Smoother(channels=3).eval()
    whole = restored_clip(method, clip.astype(np.float32) / 255, tile=0)
    parts = np.stack(list(restored_frames(method, source, 0, tile=24)))
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_judged_by_frames_with_flicker() -> None:
    clean = frames(6).astype(np.float64)
    steady, shaky = clean + 10, clean + 10 * (-1.0) ** np.arange(6)[:, None, None, None]
    assert evaluation.flicker(steady, clean) == 0
    assert evaluation.flicker(shaky, clean) == pytest.approx(20)
    assert evaluation.flicker(shaky / 255, clean / 255, 1.0) == pytest.approx(20)
    with pytest.raises(UserError, match="two or more"):
        evaluation.flicker(clean[:1], clean[:1])
    found = evaluation.restored_video([steady, shaky], [clean, clean], names=["a", "b"])
    assert found["flicker"].mean == pytest.approx(10)
    assert [len(found.figures["per_frame"][n]["psnr"]) for n in "ab"] == [6, 6]
    alone = evaluation.restoration(list(steady), list(clean))
    np.testing.assert_allclose(found.figures["per_frame"]["a"]["psnr"], alone.figures["per_image"]["psnr"])
    with pytest.raises(UserError, match="clip b"):
        evaluation.restored_video([steady, shaky[:2]], [clean, clean], names=["a", "b"])


def test_evaluate_against_clean_videos(films: Path) -> None:
    method = Smoother(channels=3).eval()
    bench = Bench(
        method, lambda: method, Settings(), None, Settings(), str(films), Options(), False, print, clean=str(films)
    )
    judged = outputs.of("clip").evaluate(bench)
    assert judged.found["restoration"]["raw"]["psnr"].mean == 100
    assert judged.sections["restoration"][0].keys() >= {"noisy", "restored", "clean", "psnr"}
    bench = Bench(method, lambda: method, Settings(), None, Settings(), str(films), Options(), False, print)
    with pytest.raises(UserError, match="clean"):
        outputs.of("clip").evaluate(bench)
