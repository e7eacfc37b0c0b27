"""Depth: a map for every frame of a video, in colours, as 16-bit numbers, and as points."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from selftaught import evaluation
from selftaught._words import plural
from selftaught.data.intrinsics import camera_names, doubts, read_intrinsics
from selftaught.data.snippets import measured_motion
from selftaught.engine.method import Method
from selftaught.errors import SampleError, UserError
from selftaught.evaluation.depth import depth as judged_depth
from selftaught.report import images as pictures
from selftaught.run.applying import Applied, Job, Skipped
from selftaught.run.layout import read_json, write_json
from selftaught.run.outputs import _folder
from selftaught.run.outputs._base import Judged, Output, Page
from selftaught.run.outputs._measured import MILLIMETRES, Row, frames_of, judged_frames
from selftaught.run.outputs._metric import Scale, flicker
from selftaught.run.outputs._pictures import replaced, write_image
from selftaught.run.outputs._points import camera_points, write_ply
from selftaught.run.outputs._video import write_video
from selftaught.run_settings import Settings
from selftaught.views import alter

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["Depth", "coloured", "estimated"]

_CHUNK, _SHOWN, _SEEDED = 8, 6, 20230714
_FLAT, _TOLD, _DEEPEST = 1.15, 5, 65535
_PROTOCOLS = ("depth", "depth-weather")
_WEATHER = (
    "rain",
    "fog",
    "night",
    "snow",
    "dust",
    "dusk",
    "frost",
    "motion_blur",
    "gaussian_noise",
    "rain+fog",
    "fog+night",
)
"""What test frames are altered by, one each, to see whether depth holds in bad weather."""


class Depth(Output):
    """1 / depth (N, 1, H, W) up to one factor, of frames of clips."""

    hint: ClassVar[str] = "--clean FOLDER of depth maps"
    headlines: ClassVar[tuple[tuple[str, str, str], ...]] = (("depth", "abs_rel", "AbsRel"),)
    takes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "scale": {"help": "depth in metres: median=4.2, height=1.65 (the camera's), baseline=0.1 (a step)"},
        "points": {"action": "store_true", "help": "depth: a point cloud .ply beside every frame's map"},
        "intrinsics": {"help": "depth: the camera of these videos, as at training"},
    }

    def needed(self, settings: Settings, data: Mapping[str, Any]) -> str:
        """None where the run's own data bring measured depth."""
        return "" if data.get("truth") else self.hint

    def apply(self, job: Job) -> Applied:
        """A folder for every video: colour/ and depth/ with a picture a frame, points/ where asked for, depth.json."""
        paths = [folder / "depth.json" for folder in _folder.folders(job.source)]
        scale = Scale.parse(str(job.options.get("apply scale") or ""))

        def make(i: int, path: Path) -> None:
            _write_clip(job, i, path, scale)

        found = _folder.write(job, paths, make)
        found.notes = _said(job.out, paths)
        return found

    def evaluate(self, bench: Bench) -> Judged:
        """Errors against measured depth, of clear test frames and of the same frames altered, each in one way.

        The data bring depth as a field (the built-in room does), or ``--clean`` names clips of depth maps of the same
        names (16-bit PNG of millimetres, or .npy of metres).
        """
        wanted = list(bench.protocols) or list(_PROTOCOLS)
        for name in wanted:
            if name not in _PROTOCOLS:
                raise UserError(f"--protocol {name}: {bench.method.slug} estimates depth; {' or '.join(_PROTOCOLS)}")
        lost: Skipped = []
        rows = list(judged_frames(bench, lost))
        if not rows:
            first = f" ({lost[0][0]}: {lost[0][1]})" if lost else ""
            raise UserError(f"{bench.data}: no frame with known depth{first}; give --clean FOLDER of depth maps")
        truths, names = [row.truth for row in rows], [row.name for row in rows]
        masks = [row.moving for row in rows] if any(row.moving is not None for row in rows) else None
        found: dict[str, dict[str, evaluation.Result]] = {name: {} for name in wanted}
        kinds: dict[str, Method | None] = {"this": bench.method}
        if bench.baselines:
            kinds |= {"random": bench.untrained(), "raw": None}
        shown: list[np.ndarray] = []
        for kind, method in kinds.items():
            bench.say(f"depth: {evaluation_name(kind)}")
            for protocol in wanted:
                altered = protocol == "depth-weather"
                maps = [_flat(row) if method is None else _estimate_row(method, row, altered) for row in rows]
                crop = bench.method.config.crop
                made = judged_depth(maps, truths, masks=_whole(masks, truths), names=names, crop=crop)
                told = [f"{plural(len(lost), 'clip')} left out"] if lost else []
                told += ["raw input: one depth everywhere"] if kind == "this" and bench.baselines else []
                found[protocol][kind] = made.noted("; ".join(told))
                if kind == "this" and (not shown or not altered):
                    shown = maps
        picked = np.linspace(0, len(rows) - 1, min(_SHOWN, len(rows))).astype(int)
        table = [_row_pictures(rows[i], shown[i]) for i in picked]
        views = {
            "columns": ["frame", "depth", "measured"], "rows": table, "names": [names[i] for i in picked],
            "note": "near is bright; depth is scaled by its median",
        }  # fmt: skip
        return Judged(found, sections={"pictures": views})

    def draw(self, page: Page) -> dict[str, Any]:
        """Frames and their depth; of a run that was not judged, of its training clips."""
        if page.sections or page.train is None:
            return dict(page.sections)
        source = page.train
        rows = []
        for i in np.linspace(0, len(source) - 1, min(_SHOWN, len(source))).astype(int):
            try:
                frame = frames_of(source, int(i), np.array([min(1, source.frames(int(i)) - 1)]), page.method)
            except SampleError:
                continue
            found = estimated(page.method, frame, frame if page.method.lookback else None, None)
            rows.append([_encoded(frame[0]), _encoded(coloured(1 / found[0]))])
        return {"pictures": {"columns": ["frame", "depth"], "rows": rows}} if rows else {}

    def example(self, card: dict[str, Any]) -> Tensor:
        """A batch in [0, 1] of the networks' size."""
        build = card["build"]
        channels = build.get("channels", card["channels"])
        size = (2, channels, build["height"], build["width"])  # of one alone a trace makes a constant
        return torch.rand(size, generator=torch.Generator().manual_seed(0))


def evaluation_name(kind: str) -> str:
    """What a reader is told of a model that is judged."""
    return {"random": "untrained", "raw": "one depth everywhere"}.get(kind, kind)


def coloured(depth: np.ndarray, near: float | None = None, far: float | None = None) -> np.ndarray:
    """Depth (H, W) as colours (H, W, 3) uint8, near bright; limits are the 5th and 95th percentile of 1 / depth."""
    import cv2

    inverse = 1 / np.asarray(depth, dtype=np.float32)
    low = float(np.percentile(inverse, 5)) if far is None else 1 / far
    high = float(np.percentile(inverse, 95)) if near is None else 1 / near
    level = np.clip((inverse - low) / max(high - low, 1e-9), 0, 1)
    return np.ascontiguousarray(cv2.applyColorMap((level * 255).astype(np.uint8), cv2.COLORMAP_MAGMA)[:, :, ::-1])


def estimated(method: Any, frames: np.ndarray, before: np.ndarray | None, shares: np.ndarray | None) -> np.ndarray:
    """Disparities (n, h, w), at the networks' size, of frames (n, H, W, C) uint8.

    Args:
        method: a `DepthMethod`.
        frames: at any size.
        before: the frame before each, where the method looks back.
        shares: intrinsics (4,) as shares, or None.
    """
    size = (method.config.height, method.config.width)
    stack = [frames] if not method.lookback or before is None else [before, frames]
    known = np.full(4, np.nan) if shares is None else shares
    camera = torch.from_numpy(np.tile(np.float32(known), (len(frames), 1))).to(method.device)
    found = []
    with torch.inference_mode():
        for start in range(0, len(frames), _CHUNK):
            part = [torch.from_numpy(_resized(one[start : start + _CHUNK], size)).to(method.device) for one in stack]
            x = torch.stack(part, 1).permute(0, 1, 4, 2, 3).float() / 255
            found.append(method.disparity(x, camera[start : start + _CHUNK])[:, 0].float().cpu().numpy())
    made = np.concatenate(found)
    if not np.isfinite(made).all() or not (made > 0).all():
        raise UserError(f"{method.slug}: the depth holds NaN or is not above 0; the model diverged")
    return made


def _resized(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import cv2

    if frames.shape[1:3] == size:
        return np.ascontiguousarray(frames)
    smaller = frames.shape[1] > size[0]
    way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.stack([cv2.resize(f, size[::-1], interpolation=way).reshape(*size, -1) for f in frames])


def _tensor(frames: np.ndarray, method: Method) -> Tensor:
    """(n, H, W, C) uint8 -> (n, C, H, W) in [0, 1] on the method's device."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float().to(method.device) / 255


# ---- apply -------------------------------------------------------------------------------------------------------
def _write_clip(job: Job, i: int, path: Path, scale: Scale) -> None:
    """All files of one video; depth.json is last."""
    method: Any = job.method
    count = job.source.frames(i)
    folder = path.parent
    first = frames_of(job.source, i, np.array([0]), method)
    shares = _camera_of(job, i, first.shape[1:3])
    small, factor = _scaled_maps(job, i, count, shares, scale)
    near, far = (float(np.percentile(factor / small, q)) for q in (5, 95))
    points = bool(job.options.get("apply points"))
    if points and shares is None:
        raise UserError("--points needs the camera: give --intrinsics fov=70, fx,fy,cx,cy or a FILE")
    for part in ("colour", "depth", *(["points"] if points else [])):
        (folder / part).mkdir(parents=True, exist_ok=True)
    beyond = 0.0
    unit = MILLIMETRES if scale.metric else _DEEPEST * 0.9 / float((factor / small).max())
    for t in range(count):
        frame = frames_of(job.source, i, np.array([t]), method)[0]
        depth = _to_size(small[t], frame.shape[:2], factor)
        name = f"{t:06d}"
        write_image(folder / "colour" / f"{name}.png", coloured(depth, near, far))
        beyond += float((depth * unit > _DEEPEST).mean()) / count
        levels = np.clip(np.rint(depth * unit), 0, _DEEPEST).astype(np.uint16)
        write_image(folder / "depth" / f"{name}.png", levels[..., None])
        if points:
            assert shares is not None
            xyz = camera_points(depth, shares)
            colours = frame.reshape(-1, frame.shape[2])
            replaced(folder / "points" / f"{name}.ply", partial(write_ply, points=xyz, colours=colours))
    _write_film(folder, count, job.source.times(i), job.source.rate)
    facts = {
        "frames": count, "unit": "millimetres" if scale.metric else f"relative: 1 unit = {unit:.6g} levels of the PNG",
        "metric": scale.metric, "factor": factor, "scale": scale.words(), "nearest": near, "farthest": far,
        "flicker": flicker(1 / small),
        "notes": _too_deep(beyond) + _why_flat(job, i, far / near, shares, first.shape[1:3]),
        "intrinsics": None if shares is None else [float(v) for v in shares],
    }  # fmt: skip
    write_json(path, facts)


def _said(out: Path, paths: list[Path]) -> list[str]:
    """What the depth.json of the videos say, shortly."""
    files = {path.parent.as_posix(): out / path for path in paths if (out / path).is_file()}
    all_facts = {name: read_json(file, "apply again with --overwrite") for name, file in files.items()}
    if not all_facts:
        return []
    scale = next(iter(all_facts.values()))["scale"]
    changes = float(np.mean([facts["flicker"] for facts in all_facts.values()]))
    found = [f"scale {scale}; from frame to frame depth changes by {changes:.2%}"]
    told = [f"{name}: {'; '.join(facts['notes'])}" for name, facts in all_facts.items() if facts["notes"]]
    more = [f"... and so in {plural(len(told) - _TOLD, 'more video')}, see depth.json"] if len(told) > _TOLD else []
    return [*found, *told[:_TOLD], *more]


def _too_deep(share: float) -> list[str]:
    """What is said of depth that 16 bits of millimetres can't hold."""
    most = _DEEPEST / MILLIMETRES
    return [f"{share:.1%} of its pixels lie beyond {most:.1f} m and are written as that"] if share else []


def _why_flat(job: Job, i: int, spread: float, shares: np.ndarray | None, size: tuple[int, int]) -> list[str]:
    """Where depth came out almost alike everywhere: what of this video may be the reason."""
    if spread > _FLAT:
        return []
    notes = [f"depth is almost flat: the far end is {spread:.2f} times as far as the near one"]
    notes += measured_motion(job.source, i).reasons
    if shares is None:
        notes.append("the camera isn't known: train with --intrinsics fov=..., or learn with more videos")
    else:
        told = "learnt intrinsics" if _learns_camera(job) else "intrinsics"
        notes += [f"{told}: {line}" for line in doubts(shares, size)]
    more = "more frames and more steps of training help"
    return [*notes, f"{more} where none of these is the reason" if notes[1:] else f"no reason is seen in it; {more}"]


def _scaled_maps(job: Job, i: int, count: int, shares: np.ndarray | None, scale: Scale) -> tuple[np.ndarray, float]:
    """Disparities (T, h, w) of a clip, and the factor that makes depth of 1 / them."""
    method: Any = job.method
    found, ways = [], []
    for start in range(0, count, _CHUNK):
        numbers = np.arange(max(0, start - 1), min(start + _CHUNK, count))
        frames = frames_of(job.source, i, numbers, method)
        now = frames if start == 0 else frames[1:]
        before = np.concatenate((frames[:1], frames[:-1])) if start == 0 else frames[:-1]
        found.append(estimated(method, now, before, shares))
        if scale.kind == "baseline":
            ways.append(_ways(method, before, now))
    small = np.concatenate(found)
    return small, scale.factor(small, shares, np.concatenate(ways)[1:] if ways else None)


def _ways(method: Any, before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Length (n,) of the way from each frame before to the next, in the network's unit."""
    size = (method.config.height, method.config.width)
    a, b = (_tensor(_resized(x, size), method) for x in (before, now))
    with torch.inference_mode():
        return method.pose_net(a, b)[1][:, 0].norm(dim=1).cpu().numpy()


def _learns_camera(job: Job) -> bool:
    """Whether nothing but the network says what the camera is."""
    text = str(job.options.get("apply intrinsics") or job.options.get("intrinsics") or "auto")
    return text in ("auto", "learn") and "intrinsics" not in job.source.values


def _camera_of(job: Job, i: int, size: tuple[int, int]) -> np.ndarray | None:
    """Intrinsics (4,) as shares: those given, the source's, those of training, or what was learnt; None: unknown."""
    given = job.options.get("apply intrinsics")
    known = job.source.values.get("intrinsics")
    text = str(given or job.options.get("intrinsics") or "auto")
    if text not in ("auto", "learn") and (given is not None or known is None):
        return read_intrinsics(text, [camera_names(job.source)[i]], [size])[0]
    if known is not None:
        return np.asarray(known[i])
    method: Any = job.method
    if job.source.frames(i) < 2 or not hasattr(method, "learnt_camera"):
        return None
    frames = _resized(frames_of(job.source, i, np.array([0, 1]), method), (method.config.height, method.config.width))
    pair = _tensor(frames, method)
    with torch.inference_mode():
        return method.learnt_camera(pair[:1], pair[1:])[0].cpu().numpy()


def _to_size(disparity: np.ndarray, size: tuple[int, ...], factor: float) -> np.ndarray:
    import cv2

    full = cv2.resize(disparity, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return factor / full


def _write_film(folder: Path, count: int, times: np.ndarray | None, rate: float | None) -> None:
    """An .mp4 of the pictures in ``colour``, shown when the video's frames are; without its clock at ``rate``, else 10
    frames a second. Where OpenCV can't write one, the pictures are all there is.
    """
    import cv2

    names = [str(folder / "colour" / f"{t:06d}.png") for t in range(count)]
    pictures = (np.asarray(cv2.imread(name)) for name in names)
    path = folder / "colour.mp4"
    if times is not None:  # of a video, so PyAV is there
        write_video(path, (np.ascontiguousarray(picture[:, :, ::-1]) for picture in pictures), times)
        return
    writer: Any = None
    for picture in pictures:
        if writer is None:
            code = cv2.VideoWriter_fourcc(*"mp4v")  # type: ignore[attr-defined]
            writer = cv2.VideoWriter(str(path), code, rate or 10.0, picture.shape[1::-1])
        if writer.isOpened():
            writer.write(picture)
    if writer is not None:
        writer.release()
    if path.exists() and not path.stat().st_size:
        path.unlink()


# ---- evaluation --------------------------------------------------------------------------------------------------
def _estimate_row(method: Any, row: Row, altered: bool) -> np.ndarray:
    """Disparity (h, w) of a frame, clear or altered in the one way that its name draws."""
    size = (method.config.height, method.config.width)
    frame, before = _resized(np.stack((row.frame, row.before)), size)
    if altered:
        seed = [_SEEDED, *os.fsencode(row.name)]
        kind = _WEATHER[int(np.random.default_rng(seed).integers(len(_WEATHER)))]
        frame, before = (alter(x, kind, 0.6, rng=np.random.default_rng(seed)) for x in (frame, before))
    found: np.ndarray = estimated(method, frame[None], before[None], row.shares)[0]
    return found


def _flat(row: Row) -> np.ndarray:
    return np.ones(row.truth.shape, dtype=np.float32)


def _whole(masks: list[Any] | None, truths: list[np.ndarray]) -> list[np.ndarray] | None:
    if masks is None:
        return None
    return [np.zeros(t.shape, dtype=bool) if m is None else m for m, t in zip(masks, truths, strict=True)]


def _row_pictures(row: Row, disparity: np.ndarray) -> list[str]:
    known = row.truth > 0
    factor = evaluation.median_scale(_to_size(disparity, row.truth.shape, 1.0)[known], row.truth[known])
    depth = _to_size(disparity, row.truth.shape, factor)
    near, far = (float(np.percentile(row.truth[known], q)) for q in (5, 95))
    truth = np.where(known, row.truth, far)
    return [_encoded(row.frame), _encoded(coloured(depth, near, far)), _encoded(coloured(truth, near, far))]


def _encoded(picture: np.ndarray) -> str:
    return pictures.encode(picture, format="png")
