"""Clips: a video made from a video - sharpened, upright again, of more frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from selftaught import evaluation
from selftaught._words import plural
from selftaught.data import Source, open_source, to_unit
from selftaught.data.pixels import conform
from selftaught.engine.method import Method
from selftaught.engine.pairing import check_pairs
from selftaught.errors import SampleError, UserError
from selftaught.evaluation.restored_video import restored_video
from selftaught.networks import tiled
from selftaught.report import images as pictures
from selftaught.run.applying import Applied, Job, Skipped, adapt
from selftaught.run.features import check_channels
from selftaught.run.outputs._base import Judged, Output, Page
from selftaught.run.outputs._films import INTO, named, write_clips

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["Clip", "Row", "restored_clip", "restored_frames", "restored_row"]

_CHUNK, _REACH, _OVERLAP = 12, 2, 32
_JUDGED, _SHOWN = 16, 6
_TILE = 512


class Clip(Output):
    """(N, C, T', H, W) in [0, 1] from clips (N, C, T, H, W) of that range.

    What is delivered takes a clip and gives one of as many frames. It may say its ``reach`` (frames that a frame looks
    to each side, 2 where it doesn't), ``chunk`` (frames that go through it at a time besides these, 12) and
    ``receptive_radius`` (pixels by which tiles overlap, 32). A method whose frames come about in another way defines
    ``restored_frames(source, i, tile, options)``, an iterator over (H, W, C) in [0, 1], and ``times_out(source, i,
    options)``, the seconds at which they are shown, or None; ``frames_out`` of the same arguments gives their names,
    and ``check_applied(source, options)`` refuses what can't be. One that prepares itself for a clip does so in
    ``face(source, i)``, which is called before.
    """

    hint: ClassVar[str] = "--clean FOLDER of videos"
    headlines: ClassVar[tuple[tuple[str, str, str], ...]] = (("restoration", "psnr", "PSNR"),)
    takes: ClassVar[Mapping[str, Mapping[str, Any]]] = INTO

    def apply(self, job: Job) -> Applied:
        """A video for every video, with its frame rate and its sound; a folder of frames for every folder of frames.

        The option ``into`` (video, frames) makes one of the other. A single clip may go to a video file that was named.
        """
        method: Any = job.method
        if hasattr(method, "check_applied"):
            method.check_applied(job.source, job.options)
        return write_clips(
            job, lambda i: restored_frames(method, job.source, i, _TILE if job.tile is None else job.tile, job.options)
        )

    def evaluate(self, bench: Bench) -> Judged:
        """PSNR, SSIM, flicker and the like of every frame, against clean clips.

        These are of the same names (``--clean``), or a field of the data (the method's ``pair_fields``: input and
        clean), or the data are clean and the method makes its inputs of them by ``degraded(clip) -> (input, clip)``.
        A method that needs the data in another form arranges them by ``to_judge(source)``, unless clean ones of the
        same names are given: then they are taken as they are. One with customs of its own
        says them by ``judged() -> options of evaluation.restored_video``, and by ``unscored`` how many frames at each
        end aren't judged. With the option ``adapt`` it adapts to the clips first; what it forgets is told by its PSNR
        on the run's own data, ``source_psnr``, where these are others and still there.
        """
        wrong = [name for name in bench.protocols if name != "restoration"]
        if wrong:
            raise UserError(f"--protocol {wrong[0]}: {bench.method.slug} restores clips; it may be restoration")
        lost: Skipped = []
        before = _own_psnr(bench) if bench.options.adapt else None
        rows = list(_rows(bench, lost))
        if not rows:
            first = f" ({lost[0][0]}: {lost[0][1]})" if lost else ""
            raise UserError(f"{bench.data}: no clip can be judged{first}; --clean needs clips of the same names")
        method: Any = bench.method
        options = (method.judged() if hasattr(method, "judged") else {}) | bench.options.compared()
        clean, names = [row.clean for row in rows], [row.name for row in rows]
        result = {
            kind: restored_video([getattr(row, kind) for row in rows], clean, data_range=1.0, names=names, **options)
            for kind in ("this", "raw")
        }
        note = f"{plural(len(lost), 'clip')} left out ({lost[0][0]}: {lost[0][1]})" if lost else ""
        if bench.options.adapt:
            note = "; ".join(part for part in ("adapted to these clips first", note) if part)
        if before is not None and not getattr(method, "per_video", False):
            after = _own_psnr(bench) or before
            told = f"on its own data {before.mean:.2f} dB before it adapted, {after.mean:.2f} dB after"
            bench.say(told)
            known = dict(result["this"].numbers) | {"source_psnr": after, "source_psnr_before": before}
            result["this"] = dataclasses.replace(result["this"], numbers=known)
            note = "; ".join(part for part in (note, told) if part)
        result = {kind: one.noted(note) for kind, one in result.items()}
        return Judged({"restoration": result}, sections=_sections(rows, result))

    def draw(self, page: Page) -> dict[str, Any]:
        """Before, after and clean; of a run that was not judged, before and after."""
        if page.sections or page.train is None:
            return dict(page.sections)
        method: Any = page.method
        for i in range(min(8, len(page.train))):
            try:
                row = restored_row(method, page.train, i, None)
            except SampleError:
                continue
            middle = len(row.this) // 2
            return {"restoration": [_shown(row, middle)]}
        return {}

    def example(self, card: dict[str, Any]) -> Tensor:
        """A batch in [0, 1] of a few frames."""
        frames = card["frames"] or card["build"].get("frames") or 5
        generator = torch.Generator().manual_seed(0)
        return torch.rand(1, card["channels"], frames, 64, 96, generator=generator)


# ---- restoring ---------------------------------------------------------------------------------------------------
def restored_clip(method: Method, frames: np.ndarray, tile: int = _TILE, name: str = "clip") -> np.ndarray:
    """Frames (T, H, W, C) float in [0, 1] through the method at once -> (T', H', W', C), in tiles where they are large.

    Raises:
        SampleError: channels that the method does not take.
        UserError: NaN came out.
    """
    seen = np.stack([conform(frame, method.channels, name) for frame in frames])
    x = torch.from_numpy(np.ascontiguousarray(seen.transpose(3, 0, 1, 2), np.float32))[None].to(method.device)
    network: Any = method.deliverable()
    overlap = int(getattr(network, "receptive_radius", _OVERLAP))
    with torch.inference_mode():
        if tile and max(x.shape[-2:]) > tile:
            flat = tiled(lambda part: _flat(network, part, len(seen)), x.flatten(1, 2), tile=tile, overlap=overlap)
            y = flat.unflatten(1, (method.channels, -1))
        else:
            y = network(x)
    found = y[0].float().cpu().numpy().transpose(1, 2, 3, 0)
    if not np.isfinite(found).all():
        raise UserError(f"{method.slug}: NaN in the frames of {name}; the model diverged")
    return found.mean(3, keepdims=True) if frames.shape[3] == 1 < found.shape[3] else found


def _flat(network: Any, part: Tensor, frames: int) -> Tensor:
    made: Tensor = network(part.unflatten(1, (-1, frames)))
    return made.flatten(1, 2)


def restored_frames(
    method: Any, source: Source, i: int, tile: int = _TILE, options: dict[str, Any] | None = None
) -> Iterator[np.ndarray]:
    """The restored frames (H, W, C) in [0, 1] of a clip one by one, read and restored some at a time."""
    _face(method, source, i)
    if hasattr(method, "restored_frames"):
        yield from method.restored_frames(source, i, tile, options or {})
        return
    network: Any = method.deliverable()
    reach, chunk = int(getattr(network, "reach", _REACH)), int(getattr(network, "chunk", _CHUNK))
    clips: Any = source
    for start in range(0, source.frames(i), chunk):
        stop = min(start + chunk, source.frames(i))
        low, high = max(0, start - reach), min(stop + reach, source.frames(i))
        frames = to_unit(clips.read(i, frames=np.arange(low, high)), method.value_range)
        made = restored_clip(method, frames, tile, source.names[i])
        yield from made[start - low : stop - low]


def _face(method: Any, source: Any, i: int) -> None:
    """Let a method prepare itself for a clip, where it wants to."""
    if hasattr(method, "face"):
        method.face(source, i)


# ---- evaluation --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Row:
    """Frames (T, H, W, C) in [0, 1] before (``raw``) and after (``this``), and clean ones where they are known."""

    name: str
    raw: np.ndarray
    this: np.ndarray
    clean: np.ndarray


def _rows(bench: Bench, lost: Skipped) -> Iterator[Row]:
    """The test clips, restored: 16 frames each (or a method's ``frames_judged``), as many clips as ``limit`` allows."""
    method: Any = bench.method
    split = "test" if bench.clean is None else "all"
    source = open_source(bench.data, modality="clip", split=split, by=bench.settings.by)
    clean = open_source(bench.clean, modality="clip", split="all") if bench.clean is not None else None
    check_pairs(method, source, first=clean is not None and not hasattr(method, "given_fields"))
    check_channels(method, source)
    if clean is None:
        source = method.to_judge(source) if hasattr(method, "to_judge") else source
    elif hasattr(method, "judged_clip"):
        makes = "takes clean frames as a field of its pairs, gs, or makes pairs of clean videos"
        raise UserError(f"--clean: {method.slug} {makes}; leave it out")
    if hasattr(method, "check_judged"):
        method.check_judged(source)
    if bench.options.adapt:
        bench.say(f"adapting to {source.name}")
        adapt(method, source, bench.options.adapt)
    known = set(getattr(method, "pair_fields", ("",))) <= set(source.fields)
    if clean is None and not known and not hasattr(method, "degraded"):
        raise UserError("PSNR needs clean videos of the same names: give --clean FOLDER")
    each = int(getattr(method, "frames_judged", _JUDGED))
    count = min(len(source), max(1, bench.limit // each))
    for i in np.unique(np.linspace(0, len(source) - 1, count).astype(int)).tolist():
        bench.say(f"restoring {source.names[i]}")
        try:
            yield restored_row(method, source, i, clean)
        except SampleError as error:
            bench.say(f"skipped {error}")
            lost.append((source.names[i], error.reason))


def _own_psnr(bench: Bench) -> evaluation.Number | None:
    """PSNR on the data that the run learnt from, as the method is now; None where it is judged on these, or they are
    gone.
    """
    if bench.data is None or str(bench.data) == str(bench.own.data):
        return None
    options = dataclasses.replace(bench.options, adapt=False)
    own = dataclasses.replace(bench, data=bench.own.data, settings=bench.own, clean=None, options=options)
    try:
        rows = list(_rows(own, []))
    except UserError as error:
        bench.say(f"without the PSNR on its own data: {error}")
        return None
    if not rows:
        return None
    this, clean = [row.this for row in rows], [row.clean for row in rows]
    return restored_video(this, clean, data_range=1.0, lpips="off")["psnr"]


def restored_row(method: Any, source: Any, i: int, clean: Source | None) -> Row:
    """A clip before, after and clean, as it is judged: ``source`` as the method's ``to_judge`` arranges it.

    Raises:
        SampleError: it can't be read, or comes out in another size than its clean clip.
    """
    name = source.names[i]
    _face(method, source, i)
    if hasattr(method, "judged_clip"):
        return Row(name, *method.judged_clip(source, i))
    limits, paired = method.value_range, getattr(method, "pair_fields", ())
    numbers = np.arange(min(source.frames(i), _JUDGED))
    if clean is not None:
        frames, target = source.read(i, frames=numbers), _partner(clean, name, numbers)
    elif paired and set(paired) <= set(source.fields):
        sample = source.sample(i, paired, None, numbers)
        frames, target = (sample[field] for field in paired)
    else:
        frames, target = source.read(i, frames=numbers), np.zeros(0)
    frames = to_unit(frames, limits)
    target = to_unit(target, limits) if target.size else target
    if hasattr(method, "judged_frames"):
        return Row(name, *method.judged_frames(source, i, frames, target))
    if not target.size and hasattr(method, "degraded"):
        frames, target = method.degraded(frames)
    this = restored_clip(method, frames, name=name)
    if target.size and this.shape != target.shape:
        raise SampleError(name, f"is made {_size(this)}, its clean clip is {_size(target)}")
    ends = getattr(method, "unscored", 0)
    if len(this) <= 2 * ends:
        raise SampleError(name, f"{len(this)} frames, of which the first and last {ends} aren't judged")
    inner = slice(ends, len(this) - ends)
    return Row(name, frames[inner], this[inner], target[inner] if target.size else target)


def _partner(clean: Any, name: str, numbers: np.ndarray) -> np.ndarray:
    """The clean frames of a clip's name, or of the same name with another suffix."""
    at = {named(other).rpartition(".")[0]: k for k, other in enumerate(clean.names)}.get(named(name).rpartition(".")[0])
    if at is None:
        raise SampleError(name, "no clean clip of its name")
    if clean.frames(at) <= numbers.max():
        raise SampleError(name, f"its clean clip has {clean.frames(at)} frames")
    found: np.ndarray = clean.read(at, frames=numbers)
    return found


def _size(frames: np.ndarray) -> str:
    return "x".join(map(str, frames.shape))


def _sections(rows: list[Row], result: dict[str, evaluation.Result]) -> dict[str, Any]:
    """The worst frame of each of the worst clips, and their curves."""
    frames = [one.figures["per_frame"] for one in (result["this"], result["raw"])]
    found: list[tuple[float, dict[str, Any], dict[str, Any]]] = []
    for row in rows:
        after, before = (one[row.name] for one in frames)
        worst = int(np.argmin(after["psnr"]))
        numbers = {key: float(after[key][worst]) for key in ("psnr", "ssim")}
        numbers |= {f"{key}_noisy": float(before[key][worst]) for key in ("psnr", "ssim")}
        curve: dict[str, Any] = {"name": row.name, "restored": after["psnr"], "noisy": before["psnr"]}
        if len(row.clean) > 1:
            curve |= {"flicker": evaluation.flicker(row.this, row.clean, 1.0)}
            curve |= {"flicker_noisy": evaluation.flicker(row.raw, row.clean, 1.0)}
        found.append((numbers["psnr"], _shown(row, worst) | numbers, curve))
    found = sorted(found, key=lambda item: item[0])[:_SHOWN]
    return {"restoration": [item for _, item, _ in found], "frames": [curve for _, _, curve in found]}


def _shown(row: Row, at: int) -> dict[str, Any]:
    found = {"name": f"{row.name}#{at}", "noisy": _picture(row.raw[at]), "restored": _picture(row.this[at])}
    return found | ({"clean": _picture(row.clean[at])} if row.clean.size else {})


def _picture(image: np.ndarray) -> str:
    return pictures.encode((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), format="png")
