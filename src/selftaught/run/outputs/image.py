"""Images: a picture made from a picture - denoised, sharpened, of more pixels."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from selftaught import evaluation
from selftaught._paths import bare
from selftaught._words import plural
from selftaught.data import Source, from_unit, holds_videos, open_source, to_unit
from selftaught.data.text_boxes import detect_text
from selftaught.engine.pairing import check_pairs
from selftaught.errors import SampleError, UserError, require
from selftaught.evaluation.multi_output import multi_output
from selftaught.evaluation.residual_text import residual_text
from selftaught.evaluation.restoration import restoration
from selftaught.report import images as pictures
from selftaught.run import samples
from selftaught.run.applying import Applied, Job, Skipped
from selftaught.run.features import check_channels
from selftaught.run.outputs import _folder
from selftaught.run.outputs._base import Judged, Output, Page
from selftaught.run.outputs._films import INTO, open_pictures, write_clips
from selftaught.run.outputs._pictures import PICTURE_FORMS, write_image
from selftaught.run.outputs._restoring import (
    FrameByFrame,
    Row,
    answers,
    beyond,
    companions_of,
    finite,
    read_colours,
    read_picture,
    resized,
    restore,
    restored_frames,
    restored_row,
)
from selftaught.run.outputs.clip import Clip

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["Image", "Row", "restore", "restored_row"]

_SHOWN, _SIDE = 6, 640


class Image(Output):
    """(N, C, sH, sW) in [0, 1] from (N, C, H, W); s is the deliverable's ``scale``, 1 where it has none."""

    hint: ClassVar[str] = "--clean FOLDER"
    frame_by_frame: ClassVar[bool] = True
    takes: ClassVar[Mapping[str, Mapping[str, Any]]] = INTO
    headlines: ClassVar[tuple[tuple[str, str, str], ...]] = (("restoration", "psnr", "PSNR"),)

    def apply(self, job: Job) -> Applied:
        """A folder of pictures: same names and bit depth; finished ones are kept. Or one picture, to a named file.

        Videos are restored frame by frame, and written as clips are (of a method with several answers the best one).
        """
        if job.source.modality == "clip":
            return write_clips(job, lambda i: restored_frames(job, i))
        if into := job.options.get("apply into"):
            raise UserError(
                f"--into {into}: is for videos, and {job.source.name} holds pictures, which stay pictures; leave it "
                "out, or name a folder of a video's frames as frames:FOLDER"
            )

        def make(i: int, path: Path) -> None:
            original, beside = read_picture(job.source, i, job.method.channels)
            limits = job.method.value_range
            more = companions_of(job.method, job.source, i)
            given = to_unit(original, limits)
            image = beyond(given, finite(job, i, restore(job.method, given, job.tile, job.source.names[i], more)))
            beside = resized(beside, image.shape[:2])
            write_image(path, from_unit(image, original.dtype, limits), beside)
            if getattr(job.method, "gives_all", False):
                for number, one in enumerate(answers(job.method, given, job.source.names[i])):
                    place = path.with_name(f"{path.stem}.head{number}{path.suffix}")
                    one = beyond(given, finite(job, i, one))
                    write_image(place, from_unit(one, original.dtype, limits), beside)

        suffix = ".png" if job.source.channels in (1, 3, 4) and job.source.value_range is None else ".tif"
        return _folder.write(job, _folder.places(job.source.names, lambda own: own or suffix), make, PICTURE_FORMS)

    def evaluate(self, bench: Bench) -> Judged:
        """PSNR, SSIM and sharpness against clean images: of the same names, or those that were degraded here.

        A method that makes its inputs of clean images says so by ``degraded(clean) -> (input, target)``; then the data
        are clean. One whose output has another size says by ``simplest(input)`` what to compare it with, and one with
        customs of its own by ``judged() -> options of evaluation.restoration``; one that ``erases_text`` is judged by
        what a text detector still finds, too. Of one with several answers, which it gives by ``candidates(images)``,
        each is judged as well. What ``degraded`` makes in other ``strengths`` (name -> its options) is judged by PSNR
        and SSIM besides: ``psnr_gain_16``. Videos are judged as clips are, every frame restored by itself.
        """
        if holds_videos(bench.data):
            by_frame: Any = FrameByFrame(bench.method)
            return Clip().evaluate(dataclasses.replace(bench, method=by_frame))
        known: tuple[str, ...] = ("restoration", "heads") if hasattr(bench.method, "candidates") else ("restoration",)
        known += ("residual-text",) if getattr(bench.method, "erases_text", False) else ()
        wrong = [name for name in bench.protocols if name not in known]
        if wrong:
            may = " or ".join(known)
            raise UserError(f"--protocol {wrong[0]}: {bench.method.slug} restores images; it may be {may}")
        lost: Skipped = []
        rows = list(_restored(bench, lost))
        if not rows:
            first = f" ({lost[0][0]}: {lost[0][1]})" if lost else ""
            raise UserError(f"{bench.data}: no image can be judged{first}; --clean needs images of the same names")
        clean, names = [row.clean for row in rows], [row.name for row in rows]
        method: Any = bench.method
        options: dict[str, Any] = {"data_range": 1.0, "channels": "last"}
        options |= (method.judged() if hasattr(method, "judged") else {}) | bench.options.compared()
        result = {
            kind: restoration([getattr(row, kind) for row in rows], clean, names=names, **options)
            for kind in ("this", "raw")
        }
        if getattr(method, "strengths", {}) and _made_here(bench):
            result = _in_other_strengths(bench, rows, result, options | {"lpips": "off"})
        result = {kind: one.noted(_left_out(lost)) for kind, one in result.items()}
        found = {"restoration": result}
        several = [row.answers for row in rows if row.answers is not None]
        if several:
            single = getattr(method, "chosen", None)
            found["heads"] = {"this": multi_output(several, clean, single=single, names=names)}
        if "residual-text" in known:
            found |= _residual_text(bench, rows)
        worst = np.argsort(result["this"].figures["per_image"]["psnr"], kind="stable")[:_SHOWN]
        shown = [_shown(rows[i]) | _measured(result, i) for i in worst]
        return Judged(found, sections={"restoration": shown})

    def draw(self, page: Page) -> dict[str, Any]:
        """Before, after and clean; of a run that was not judged, before and after."""
        if page.sections or page.train is None:
            return dict(page.sections)
        rows = [_shown(row) for row in _examples(page.method, page.train)]
        return {"restoration": rows} if rows else {}

    def example(self, card: dict[str, Any]) -> Tensor:
        """A batch in [0, 1], large enough for any receptive field that is met."""
        return torch.rand(2, card["channels"], 96, 104, generator=torch.Generator().manual_seed(0))

    def free_axes(self) -> dict[int, tuple[str, int, int]]:
        """Height and width."""
        return {2: ("height", 66, 1 << 14), 3: ("width", 66, 1 << 14)}


# ---- evaluation --------------------------------------------------------------------------------------------------
def _restored(bench: Bench, lost: Skipped) -> Iterator[Row]:
    """The test images, restored; those that can't be are added to ``lost``."""
    for name, image, target, more in _pairs(bench, lost):
        bench.say(f"restoring {name}")
        try:
            yield restored_row(bench.method, name, image, target, more)
        except SampleError as error:
            bench.say(f"skipped {error}")
            lost.append((name, error.reason))


def _residual_text(bench: Bench, rows: list[Row]) -> dict[str, dict[str, evaluation.Result]]:
    """What a text detector finds before and after, where it is installed."""
    try:
        require("rapidocr_onnxruntime", "ocr")
    except UserError as error:
        bench.say(f"without residual text: {error}")
        return {}
    bench.say("residual text")
    seen: dict[bytes, np.ndarray] = {}

    def detector(image: np.ndarray) -> np.ndarray:
        key = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        if key not in seen:
            seen[key] = detect_text(image)
        return seen[key]

    before, clean = [row.raw for row in rows], [row.clean for row in rows]
    options: dict[str, Any] = {"clean": clean, "names": [row.name for row in rows]}
    result = {
        kind: residual_text(before, [getattr(row, kind) for row in rows], detector, **options)
        for kind in ("this", "raw")
    }
    return {"residual-text": result}


def _made_here(bench: Bench) -> bool:
    """Whether the data are clean, and the method degrades them."""
    method: Any = bench.method
    source = open_source(bench.data, modality="image", split="all")
    paired = getattr(method, "pair_fields", ())
    known = bool(bench.settings.noise) or (paired and set(paired) <= set(source.fields))
    return bench.clean is None and not known and hasattr(method, "degraded")


def _in_other_strengths(
    bench: Bench, rows: list[Row], result: dict[str, evaluation.Result], options: dict[str, Any]
) -> dict[str, evaluation.Result]:
    """The same results with PSNR and SSIM of the same pictures, degraded less or more."""
    method: Any = bench.method
    for name, strength in method.strengths.items():
        bench.say(f"restoring at {name}")
        others = []
        for row in rows:
            image, target, *rest = method.degraded(row.clean, **strength)
            others.append(restored_row(method, row.name, image, target, rest[0] if rest else {}))
        for kind, one in result.items():
            made = restoration([getattr(r, kind) for r in others], [r.clean for r in others], **options)
            more = {f"{key}_{name.replace(' ', '_')}": made[key] for key in ("psnr", "ssim")}
            result = result | {kind: dataclasses.replace(one, numbers=dict(one.numbers) | more)}
    return result


def _left_out(lost: Skipped) -> str:
    if not lost:
        return ""
    shown = ", ".join(f"{name}: {reason}" for name, reason in lost[:3])
    more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
    return f"{plural(len(lost), 'image')} left out ({shown}{more})"


def _pairs(bench: Bench, lost: Skipped) -> Iterator[tuple[str, np.ndarray, np.ndarray, dict[str, Tensor]]]:
    """Names, inputs and clean images, as float32 in [0, 1], and what an input comes with."""
    method: Any = bench.method
    source = open_pictures(bench.data, split="test" if bench.clean is None else "all", by=bench.settings.by)
    check_pairs(method, source, first=bench.clean is not None)
    check_channels(method, source)
    noisy = samples.degraded(source, bench.settings.noise)
    reference = open_pictures(bench.clean, split="all") if bench.clean is not None else None
    paired = getattr(method, "pair_fields", ())
    known = isinstance(noisy, samples.Degraded) or (paired and set(paired) <= set(source.fields))
    if reference is None and not known and not hasattr(method, "degraded"):
        raise UserError("PSNR needs clean images of the same names: give --clean FOLDER (or train with --noise)")
    limits = method.value_range
    for i in range(min(len(noisy), bench.limit)):
        more: dict[str, Tensor] | None = None
        try:
            if reference is None and paired and set(paired) <= set(source.fields):
                sample = source.sample(i, want=paired)
                image, target = (to_unit(sample[name], limits) for name in paired)
            elif reference is None and not known:
                image, target, *rest = method.degraded(to_unit(read_colours(noisy, i, method.channels), limits))
                more = rest[0] if rest else {}
            elif isinstance(noisy, samples.Degraded):
                image, target = noisy.read(i), to_unit(noisy.clean.read(i), limits)
            else:
                assert reference is not None
                seen, clean = (
                    read_colours(noisy, i, method.channels),
                    _clean(reference, noisy.names[i], method.channels),
                )
                image, target = to_unit(seen, limits), to_unit(clean, limits)
        except SampleError as error:
            bench.say(f"skipped {error}")
            lost.append((noisy.names[i], error.reason))
            continue
        if more is None:
            more = companions_of(method, source, i)
        yield noisy.names[i], image, target, more


def _examples(method: Any, source: Source, count: int = 3) -> Iterator[Row]:
    """Some images before and after."""
    found = 0
    for i in np.linspace(0, len(source) - 1, min(3 * count, len(source))).astype(int):
        if found == count:
            return
        try:
            image = to_unit(source.read(int(i)), method.value_range)
        except SampleError:
            continue
        found += 1
        target, more = np.zeros(0), dict[str, Tensor]()
        if hasattr(method, "degraded"):
            image, target, *rest = method.degraded(image)
            more = rest[0] if rest else {}
        yield restored_row(method, source.names[int(i)], image, target, more)


def _clean(reference: Source, name: str, channels: int) -> np.ndarray:
    """The clean image of a name, or of the same name with another suffix.

    Raises:
        SampleError: there is none, or several; it can't be read.
    """
    found = [i for i, other in enumerate(reference.names) if other == name]
    found = found or [i for i, other in enumerate(reference.names) if bare(other) == bare(name)]
    if len(found) != 1:
        raise SampleError(name, "several clean images of its name" if found else "no clean image of its name")
    return read_colours(reference, found[0], channels)


def _shown(row: Row) -> dict[str, Any]:
    found = {"name": row.name, "noisy": _picture(row.raw), "restored": _picture(row.this)}
    return found | ({"clean": _picture(row.clean)} if row.clean.size else {})


def _measured(result: dict[str, evaluation.Result], i: int) -> dict[str, float]:
    """PSNR and SSIM of one picture, restored and before."""
    before = {"psnr_noisy": "psnr", "ssim_noisy": "ssim"}
    found = {name: float(result["this"].figures["per_image"][name][i]) for name in ("psnr", "ssim")}
    return found | {key: float(result["raw"].figures["per_image"][name][i]) for key, name in before.items()}


def _picture(image: np.ndarray) -> str:
    height, width = image.shape[:2]
    top, left = max(0, (height - _SIDE) // 2), max(0, (width - _SIDE) // 2)
    part = np.clip(image, 0, 1)[top : top + _SIDE, left : left + _SIDE]
    return pictures.encode((part * 255 + 0.5).astype(np.uint8), format="png")
