"""Depth from a user's own videos: trained by name, applied, made metric, judged, exported."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import selftaught
from selftaught import methods
from selftaught.data import open_source
from selftaught.data.fields import Field
from selftaught.data.intrinsics import doubts, read_intrinsics
from selftaught.data.snippets import Snippets, _left_over, measured_motion
from selftaught.errors import UserError
from selftaught.run.applying import Job
from selftaught.run.outputs._metric import Scale, camera_height, flicker
from selftaught.run.outputs._points import camera_points
from selftaught.run.outputs.depth import _learns_camera, _why_flat, coloured
from selftaught.run.samples import facts
from tests.data.test_video import write_video
from tests.methods.resuming import cut_and_whole

TINY: dict[str, Any] = {
    "encoder": "small", "pose_encoder": "small", "height": 32, "width": 32, "scales": 1, "batch_size": 4, "steps": 3,
    "workers": 0, "quiet": True, "loggers": ["none"], "precision": "32",
}  # fmt: skip
FRAMES, HEIGHT, WIDTH = 9, 40, 48


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of frames of a textured wall that slides by, with its depth; the second stands still for a while."""
    root = tmp_path_factory.mktemp("user")
    rng = np.random.default_rng(0)
    for name in ("walk", "halt"):
        wall = cv2.GaussianBlur(rng.integers(0, 256, (HEIGHT, 200, 3), dtype=np.uint8), (0, 0), 1.0)
        for part in ("rgb", "depth", "copies/rain"):
            (root / part / name).mkdir(parents=True)
        at = 0
        for t in range(FRAMES):
            at += 0 if name == "halt" and t < 5 else 2
            frame = np.ascontiguousarray(wall[:, at : at + WIDTH])
            cv2.imwrite(str(root / "rgb" / name / f"{t:03d}.png"), frame)
            cv2.imwrite(str(root / "copies/rain" / name / f"{t:03d}.png"), 255 - frame)
            ramp = np.linspace(1500, 4000, HEIGHT)[:, None].repeat(WIDTH, 1)
            cv2.imwrite(str(root / "depth" / name / f"{t:03d}.png"), ramp.astype(np.uint16))
    return root


@pytest.fixture(scope="module")
def run(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("runs") / "mono"
    return selftaught.train(
        "monodepth2", str(videos / "rgb"), out=str(out), intrinsics="fov=70", by="ratio:0.5", **TINY
    )


def test_snippets_leave_out_what_stands_still(videos: Path) -> None:
    found = Snippets(open_source(videos / "rgb", modality="clip", split="all"), gap=1)
    kept = [name for name in found.names if name.startswith("halt")]
    assert kept == [f"halt#{t}" for t in (5, 6, 7)]
    assert any("halt: frames 1 to 4 left out, the picture stands still" in note for note in found.notes)
    assert np.isnan(found.values["intrinsics"]).all()
    assert found.read(0).shape == (3, HEIGHT, WIDTH, 3)
    whole = open_source(videos / "rgb", modality="clip", split="all")
    clip, t, gap = found.places[0].tolist()
    assert np.array_equal(found.read(0), whole.read(clip, frames=np.array([t - gap, t, t + gap])))


def test_the_gap_grows_where_the_picture_moves_slowly(videos: Path) -> None:
    source = open_source(videos / "rgb", modality="clip", split="all")
    assert set(Snippets(source, keep_still=True).places[:, 2]) == {1}
    still = np.zeros((2, 5, 40, 40, 3), dtype=np.uint8)
    with pytest.raises(UserError, match="the camera must move"):
        Snippets(_Clips(still))


class _Clips(selftaught.data.Source):
    """Clips in memory."""

    def __init__(self, clips: np.ndarray) -> None:
        self.clips, self.name, self.modality, self.channels = clips, "memory", "clip", clips.shape[-1]
        self.names = [str(i) for i in range(len(clips))]

    def frames(self, i: int) -> int:
        return len(self.clips[i])

    def read(self, i: int, min_side: int | None = None, frames: Any = None) -> np.ndarray:
        return self.clips[i] if frames is None else self.clips[i][frames]

    @property
    def value_range(self) -> None:
        return None

    def fingerprint(self) -> str:
        return "clips"


def test_intrinsics_of_numbers_fields_of_view_and_files(tmp_path: Path) -> None:
    sizes = [(100, 200), (50, 200)]
    found = read_intrinsics("fov=90", ["a", "b"], sizes)
    np.testing.assert_allclose(found[:, 0], 0.5)
    np.testing.assert_allclose(found[:, 1], [1.0, 2.0])
    np.testing.assert_allclose(read_intrinsics("100,100,99.5,40", ["a"], sizes[:1]), [[0.5, 1, 0.4975, 0.4]])
    (tmp_path / "k.txt").write_text("100 0 99\n0 100 49\n0 0 1\n")
    np.testing.assert_allclose(read_intrinsics(str(tmp_path / "k.txt"), ["a"], sizes[:1]), [[0.5, 1, 0.495, 0.49]])
    (tmp_path / "two.txt").write_text("cam1 100 100 99 49\n* 50 50 99 20\n")
    found = read_intrinsics(str(tmp_path / "two.txt"), ["frames/cam1/v.mp4", "b.mp4"], sizes)
    np.testing.assert_allclose(found[:, 0], [0.5, 0.25])
    (tmp_path / "kitti.txt").write_text("P_rect_02: 100 0 99 1 0 100 49 2 0 0 1 3\n")
    assert read_intrinsics(str(tmp_path / "kitti.txt"), ["a"], sizes[:1])[0, 0] == 0.5
    for text, words in (("fov=0", "between 0 and 180"), ("1,2,3", "four numbers"), ("no.txt", "no such file")):
        with pytest.raises(UserError, match=words):
            read_intrinsics(text, ["a"], sizes[:1])
    with pytest.raises(UserError, match="axis lies outside"):
        read_intrinsics("100,100,500,40", ["a"], sizes[:1])


def test_applied_to_videos_it_writes_colours_numbers_and_points(run: Any, videos: Path, tmp_path: Path) -> None:
    done = run.apply(str(videos / "rgb"), tmp_path / "d", scale="median=2", points=True)
    assert int(done) == 2
    assert done.notes[0].startswith("scale median = 2 m; from frame to frame depth changes by ")
    told = json.loads((tmp_path / "d/walk/depth.json").read_text())
    assert (told["frames"], told["unit"], told["metric"]) == (FRAMES, "millimetres", True)
    maps = [cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in sorted((tmp_path / "d/walk/depth").glob("*.png"))]
    assert len(maps) == FRAMES
    assert (maps[0].shape, maps[0].dtype) == ((HEIGHT, WIDTH), np.uint16)
    assert abs(np.median(np.stack(maps)) - 2000) < 60
    assert cv2.imread(str(tmp_path / "d/walk/colour/000000.png")).shape == (HEIGHT, WIDTH, 3)
    head = (tmp_path / "d/walk/points/000000.ply").read_bytes()
    assert f"element vertex {HEIGHT * WIDTH}".encode() in head
    assert len(head.partition(b"end_header\n")[2]) == 15 * HEIGHT * WIDTH
    assert int(run.apply(str(videos / "rgb"), tmp_path / "d", scale="median=2", points=True)) == 0
    with pytest.raises(UserError, match="other options"):
        run.apply(str(videos / "rgb"), tmp_path / "d", scale="median=3", points=True)
    far = run.apply(str(videos / "rgb"), tmp_path / "far", scale="median=100")
    told = json.loads((tmp_path / "far/walk/depth.json").read_text())
    assert told["notes"][0] == "100.0% of its pixels lie beyond 65.5 m and are written as that"
    assert any("beyond 65.5 m" in note for note in far.notes)
    plain = run.apply(str(videos / "rgb"), tmp_path / "plain")
    told = json.loads((tmp_path / "plain/walk/depth.json").read_text())
    assert told["unit"].startswith("relative")
    assert "unknown factor" in told["scale"]
    flat = told["farthest"] / told["nearest"] < 1.15
    assert any(note.startswith("walk: depth is almost flat") for note in plain.notes) == flat


def test_depth_of_a_video_plays_as_the_video_does(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("av")
    stamps = [0, 40, 80, 200, 240, 300]
    (tmp_path / "in").mkdir()
    for name in ("uneven.mkv", "uneven.mp4"):
        write_video(tmp_path / "in" / name, count=6, stamps=stamps)
    done = run.apply(str(tmp_path / "in"), tmp_path / "d")
    assert int(done) == 2
    for name in ("uneven.mkv", "uneven.mp4"):  # of one name, a folder each
        found = open_source(str(tmp_path / "d" / name / "colour.mp4"), modality="clip", split="all")
        np.testing.assert_allclose(found.times(0), np.array(stamps) / 1000, atol=2e-3)
        first = cv2.imread(str(tmp_path / "d" / name / "colour/000000.png")).astype(int)
        assert np.abs(found.read(0)[0][:, :, ::-1].astype(int) - first).mean() < 12
    with pytest.raises(UserError, match="writes several files; give a folder"):
        run.apply(str(tmp_path / "in" / "uneven.mkv"), tmp_path / "depth.mp4")
    run.apply(str(tmp_path / "in" / "uneven.mkv?window=3"), tmp_path / "cut")
    assert sorted(p.name for p in (tmp_path / "cut").iterdir() if p.is_dir()) == ["uneven@0", "uneven@3"]


def test_judged_against_depth_maps_of_the_same_names(run: Any, videos: Path) -> None:
    found = run.evaluate(str(videos / "rgb"), clean=str(videos / "depth"))
    assert set(found) == {"depth", "depth-weather"}
    assert 0 < found["depth"]["this"]["abs_rel"].mean < 1
    flat = found["depth"]["raw"]["abs_rel"].mean
    truth = np.linspace(1.5, 4, HEIGHT).astype(np.float32).repeat(WIDTH)
    assert abs(flat - np.mean(np.abs(np.median(truth) - truth) / truth)) < 5e-3
    with pytest.raises(UserError, match="clean=FOLDER"):
        run.evaluate(str(videos / "rgb"))
    alone = run.evaluate(str(videos / "rgb" / "walk"), clean=str(videos / "depth" / "walk"), protocols=["depth"])
    assert 0 < alone["depth"]["this"]["abs_rel"].mean < 1
    assert run.report().exists()


@pytest.mark.slow
def test_exported_it_is_the_same_network(run: Any, tmp_path: Path) -> None:
    path = run.export("onnx", tmp_path / "depth.onnx")
    assert path.stat().st_size > 10_000


@pytest.mark.slow
def test_two_frames_through_both_stages_and_copies_from_a_folder(videos: Path, tmp_path: Path) -> None:
    rgb = str(videos / "rgb")
    pro = selftaught.train("prodepth", rgb, out=str(tmp_path / "pro"), single_steps=3, bins=3, by="ratio:0.5", **TINY)
    assert bool(pro.method.net.matches)  # what was loaded knows that it matches frames
    pair = torch.rand(1, 2, 3, 32, 32)
    other = torch.cat((torch.rand(1, 1, 3, 32, 32), pair[:, 1:]), 1)
    known = torch.tensor([[0.7, 0.9, 0.5, 0.5]])
    with torch.inference_mode():
        assert not torch.equal(pro.method.eval().disparity(pair, known), pro.method.disparity(other, known))
    assert int(pro.apply(rgb, tmp_path / "d", scale="baseline=0.1")) == 2
    path = pro.export("onnx", tmp_path / "two.onnx")
    runtime = pytest.importorskip("onnxruntime")
    assert isinstance(runtime.InferenceSession(str(path)).get_inputs()[0].shape[0], str)  # batches of any size
    robust = selftaught.train(
        "robust-depth", rgb, out=str(tmp_path / "robust"), altered=str(videos / "copies"), by="ratio:0.5", **TINY
    )
    assert robust.evaluate(rgb, clean=str(videos / "depth"))["depth-weather"]["this"]["delta1"].mean >= 0


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    room = "room?train=2&test=1&frames=6&width=48&height=48"
    options = TINY | {"steps": 10, "batch_size": 3}
    whole, cut = cut_and_whole("robust-depth", tmp_path, options, data=room)
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_wrong_options_are_one_line(videos: Path, run: Any, tmp_path: Path) -> None:
    for text in ("height", "width=2", "median=-1", "baseline=x", "median=nan", "height=inf"):
        with pytest.raises(UserError, match="scale"):
            run.apply(str(videos / "rgb"), tmp_path / "x", scale=text)
    with pytest.raises(UserError, match="multiples of 16"):
        methods.get("monodepth2")(encoder="small", height=50, width=64)
    with pytest.raises(UserError, match="no folders in it"):
        methods.get("robust-depth").altered_folders(methods.get("robust-depth").config_class(altered=str(tmp_path)))


# ---- metres ------------------------------------------------------------------------------------------------------
def test_a_run_says_which_measured_depth_it_is_judged_by(run: Any, videos: Path) -> None:
    assert run.output.needed(run.settings, run.config["data"]) == "--clean FOLDER of depth maps"
    known = Snippets(open_source("room", modality="clip", split="all").subset([0]), gap=1)
    assert facts(known)["truth"]
    assert "truth" not in facts(Snippets(open_source(videos / "rgb", modality="clip", split="all"), gap=1))
    assert run.output.needed(run.settings, {"truth": True}) == ""


def test_scales_make_the_known_length_true() -> None:
    shares = np.array([0.8, 1.0, 0.5, 0.5])
    height, width = 40, 60
    rows = (np.arange(height) - 20) / (1.0 * height)
    depth = np.where(rows > 0, 0.3 / np.maximum(rows, 1e-9), 30.0)[:, None].repeat(width, 1)  # ground 0.3 below
    depth = np.minimum(depth, 30.0)
    assert abs(camera_height(depth, shares) - 0.3) < 0.01  # type: ignore[operator]
    assert camera_height(np.ones((height, width)), shares) is None
    disparity = np.stack([1 / depth] * 3)
    assert abs(Scale.parse("height=1.5").factor(disparity, shares, None) - 5.0) < 0.2
    assert Scale.parse("median=4").factor(disparity, None, None) * np.median(depth) == pytest.approx(4)
    assert Scale.parse("baseline=0.5").factor(disparity, None, np.array([0.1, 0.1])) == pytest.approx(5)
    assert not Scale.parse("median").metric
    points = camera_points(depth, shares).reshape(height, width, 3)
    np.testing.assert_allclose(points[30, 30], [0.0, 0.3, depth[30, 30]], atol=1e-6)
    assert flicker(np.stack([depth, 2 * depth])) == pytest.approx(np.log(2))
    near, far = coloured(depth)[-1, 0].astype(int).sum(), coloured(depth)[0, 0].astype(int).sum()
    assert near > far


@pytest.mark.parametrize("slug", ["monodepth2", "prodepth"])
def test_learnt_intrinsics_are_delivered(slug: str) -> None:
    options = {k: TINY[k] for k in ("encoder", "pose_encoder", "height", "width", "scales")}
    trained, loaded = (methods.get(slug)(**options) for _ in range(2))
    with torch.no_grad():
        trained.intrinsics_head.layer.bias.copy_(torch.tensor([0.3, -0.2, 0.1, 0.4]))
    loaded.deliverable().load_state_dict(trained.deliverable().state_dict())
    pair = torch.rand(2, 1, 3, 32, 32)
    torch.testing.assert_close(loaded.eval().learnt_camera(*pair), trained.eval().learnt_camera(*pair))


def test_intrinsics_are_learnt_where_they_are_not_known() -> None:
    torch.manual_seed(0)
    method = methods.get("monodepth2")(**{k: TINY[k] for k in ("encoder", "pose_encoder", "height", "width", "scales")})
    batch = {
        "clip": torch.rand(2, 3, 3, 32, 32), "index": torch.arange(2),
        "values": {"intrinsics": torch.tensor([[torch.nan] * 4, [0.6, 0.8, 0.5, 0.5]])},
    }  # fmt: skip
    method.loss(batch)["loss"].backward()
    assert method.intrinsics_head.layer.weight.grad.abs().sum() > 0
    batch["values"]["intrinsics"][0] = torch.tensor([0.6, 0.8, 0.5, 0.5])
    method.zero_grad()
    method.loss(batch)["loss"].backward()
    assert method.intrinsics_head.layer.weight.grad is None


class _Deep(_Clips):
    """Clips whose depth grows from top to bottom; the first row is unknown."""

    @property
    def fields(self) -> dict[str, Field]:
        return {"clip": Field("clip", 3), "depth": Field("clip", 1)}

    def _field(self, name: str, i: int, min_side: int | None, frames: Any) -> Any:
        ramp = np.arange(32, dtype=np.float32)[None, :, None, None].repeat(len(frames), 0).repeat(32, 2)
        return ramp * (i + 1)


class _Wall(methods.Monodepth2):
    """Says one depth everywhere."""

    def predict(self, batch: dict[str, Any]) -> torch.Tensor:
        return torch.full((1, 1, 32, 32), 0.7)


def test_the_epoch_of_the_least_error_on_held_out_videos_is_kept(videos: Path, tmp_path: Path) -> None:
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32, 3), dtype=np.uint8)
    options = {key: TINY[key] for key in ("encoder", "pose_encoder", "height", "width", "scales")}
    kind = methods.Monodepth2.config_class
    wall = _Wall(kind(**options), channels=3)
    snippets = Snippets(_Deep(clips), gap=1, keep_still=True, intrinsics="fov=60")
    rows = np.arange(1, 32)
    assert wall.watched(snippets) == pytest.approx(np.mean(np.abs(16 - rows) / rows), rel=1e-5)
    unknown = Snippets(_Clips(clips), gap=1, keep_still=True, intrinsics="fov=60")
    part = unknown.subset(np.array([1]), "the second")
    clip = torch.from_numpy(clips[1]).permute(3, 0, 1, 2)[None].float() / 255
    camera = torch.from_numpy(unknown.values["intrinsics"][1:])
    wall.eval()
    loss = wall.loss({"clip": clip, "values": {"intrinsics": camera}, "index": torch.tensor([1])})["loss"]
    assert wall.watched(part) == pytest.approx(loss.item(), rel=1e-5)
    selftaught.train(
        "robust-depth", str(videos / "rgb"), out=str(tmp_path / "best"), intrinsics="fov=70", by="ratio:0.5",
        keep_best=True, held_out=0.5, **TINY | {"steps": 4},
    )  # fmt: skip
    rows_of = (tmp_path / "best" / "metrics.csv").read_text().splitlines()
    assert "watched" in rows_of[0].split(",")


def test_a_picture_that_moves_as_a_whole_has_no_parallax() -> None:
    y, x = np.mgrid[:64, :96].astype(np.float32)
    turned = np.stack((1 + 0.01 * x - 0.02 * y, 0.5 + 0.02 * x), -1)
    turned[:4] += np.random.default_rng(0).normal(0, 3, turned[:4].shape)  # the flow's noise at the border
    near = turned + 2.0 * (y > 30)[..., None]
    assert _left_over(turned) * 96 < 1e-3
    assert _left_over(near) * 96 > 0.2


def test_what_moves_with_the_camera_is_told(videos: Path, tmp_path: Path) -> None:
    bonnet = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (13, WIDTH, 3), dtype=np.uint8), (0, 0), 1.0)
    (tmp_path / "dash").mkdir()
    for file in sorted((videos / "rgb/walk").iterdir()):
        frame = cv2.imread(str(file))
        frame[-13:] = bonnet
        cv2.imwrite(str(tmp_path / "dash" / file.name), frame)
    fixed = open_source(tmp_path, modality="clip", split="all")
    assert 0.2 < measured_motion(fixed, 0).fixed < 0.45  # a third of the height
    assert any("of the picture moves with the camera" in note for note in Snippets(fixed, gap=1).notes)
    free = open_source(videos / "rgb", modality="clip", split="all")
    walk = free.names.index("walk")
    assert measured_motion(free, walk).fixed < 0.05
    notes = Snippets(free, gap=1).notes
    assert not any("with the camera" in note for note in notes)
    assert any("are few" in note for note in notes)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        ((500, 500, 320, 240), []),
        ((4000, 4000, 320, 240), ["larger"]),  # those of frames eight times as large
        ((640, 360, 320, 240), ["turned"]),
        ((500, 500, 100, 240), ["middle"]),
    ],
)
def test_intrinsics_of_other_frames_are_doubted(pixels: tuple[float, ...], said: list[str]) -> None:
    shares = read_intrinsics(",".join(map(str, pixels)), ["a"], [(480, 640)])[0]
    found = doubts(shares, (480, 640))
    assert len(found) == len(said)
    assert all(word in line for word, line in zip(said, found, strict=True))


def test_flat_depth_is_told_with_its_reasons(run: Any, tmp_path: Path) -> None:
    assert not _learns_camera(Job(run.method, open_source("room", modality="clip", split="all"), tmp_path / "out"))
    (tmp_path / "tripod").mkdir()
    frame = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for t in range(4):
        cv2.imwrite(str(tmp_path / "tripod" / f"{t}.png"), frame)
    job = Job(run.method, open_source(tmp_path, modality="clip", split="all"), tmp_path / "out")
    turned = np.array([1.0, 0.6, 0.5, 0.5], dtype=np.float32)
    words = " / ".join(_why_flat(job, 0, 1.05, turned, (HEIGHT, WIDTH)))
    assert "/ learnt intrinsics: " in words
    given = dataclasses.replace(job, options={"intrinsics": "fov=70"})
    assert "/ intrinsics: " in " / ".join(_why_flat(given, 0, 1.05, turned, (HEIGHT, WIDTH)))
    for reason in ("almost flat", "hardly moves", "turned", "more frames"):
        assert reason in words
    assert "isn't known" in " / ".join(_why_flat(job, 0, 1.05, None, (HEIGHT, WIDTH)))
    assert _why_flat(job, 0, 3.0, turned, (HEIGHT, WIDTH)) == []
    wall = cv2.GaussianBlur(frame.repeat(2, 0).repeat(2, 1), (0, 0), 1.5)
    clip = np.stack([np.concatenate((np.roll(wall[:40], t, 1), np.roll(wall[40:], 5 * t, 1))) for t in range(6)])
    near = Job(run.method, _Clips(clip[None]), tmp_path / "out")
    sane = np.array([0.714, 0.857, 0.5, 0.5], dtype=np.float32)
    assert _why_flat(near, 0, 1.05, sane, (2 * HEIGHT, 2 * WIDTH))[1:] == [
        "no reason is seen in it; more frames and more steps of training help"
    ]
