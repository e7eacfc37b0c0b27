"""Images: a picture made from a picture - denoised, sharpened, of more pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from selftaught import evaluation
from selftaught.data import Source, open_source
from selftaught.engine.loader import as_unit_float
from selftaught.engine.method import Method
from selftaught.errors import SampleError, UserError
from selftaught.networks import tiled
from selftaught.report import images as pictures
from selftaught.run import samples
from selftaught.run.applying import Applied, Job
from selftaught.run.outputs import _folder
from selftaught.run.outputs._base import Judged, Output, Page

if TYPE_CHECKING:
    from selftaught.run.suites import Bench

__all__ = ["Image", "restore"]

_SHOWN, _SIDE = 6, 640


class Image(Output):
    """(N, C, sH, sW) in [0, 1] from (N, C, H, W); s is the deliverable's ``scale``, 1 where it has none."""

    hint: ClassVar[str] = "--clean FOLDER"
    headlines: ClassVar[tuple[tuple[str, str, str], ...]] = (("restoration", "psnr", "PSNR"),)
    takes_unit_range: ClassVar[bool] = True

    def apply(self, job: Job) -> Applied:
        """A folder of pictures: same names and bit depth; finished ones are kept."""

        def make(i: int, path: Path) -> None:
            original = job.source.read(i)
            image = restore(job.method, as_unit_float(original), job.tile)
            if not np.isfinite(image).all():
                raise UserError(f"{job.run}: NaN in the picture for {job.source.names[i]}; the model diverged")
            _folder.write_image(path, as_type(image, original.dtype))

        bare = ".png" if job.source.channels in (1, 3, 4) and job.source.value_range is None else ".tif"
        return _folder.write(job, _folder.places(job.source.names, lambda own: own or bare), make)

    def evaluate(self, bench: Bench) -> Judged:
        """PSNR and SSIM against clean images of the same names, or against those that noise was added to here."""
        if bench.protocols and set(bench.protocols) != {"restoration"}:
            wrong = next(name for name in bench.protocols if name != "restoration")
            raise UserError(f"--protocol {wrong}: {bench.method.slug} restores images; it may be restoration")
        rows = list(_restored(bench))
        if not rows:
            raise UserError(f"{bench.data}: no image with a clean one of its name can be read")
        clean = [row.clean for row in rows]
        result = {
            kind: evaluation.restoration([getattr(row, kind) for row in rows], clean, data_range=1.0)
            for kind in ("this", "raw")
        }
        return Judged({"restoration": result}, sections={"restoration": [_shown(row) for row in rows[:_SHOWN]]})

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


def restore(method: Method, image: np.ndarray, tile: int = 512) -> np.ndarray:
    """One image (H,W,C) float32 in [0, 1] through the method -> (sH,sW,C); large ones in tiles that leave no seam.

    A deliverable that says its ``receptive_radius`` (pixels of the input that an output pixel sees to each side) is
    given tiles that overlap by as much; one whose ``forward`` takes ``tile`` makes them itself.
    """
    x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(method.device)
    network: Any = method.deliverable()
    radius = getattr(network, "receptive_radius", None)
    with torch.inference_mode():
        if radius is None:
            y = network(x, tile=tile)
        elif tile and max(x.shape[-2:]) > tile:
            y = tiled(network, x, tile=max(tile, 4 * radius), overlap=radius)
        else:
            y = network(x)
    return y[0].float().cpu().numpy().transpose(1, 2, 0)


def as_type(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Float images in [0, 1] -> the given type, rounded."""
    if np.issubdtype(dtype, np.integer):
        top = np.iinfo(dtype).max
        return np.clip(np.rint(image * top), 0, top).astype(dtype)
    return image.astype(dtype)


# ---- evaluation --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Row:
    """A picture before (``raw``) and after (``this``), and the clean one where it is known."""

    name: str
    raw: np.ndarray
    this: np.ndarray
    clean: np.ndarray


def _restored(bench: Bench) -> Iterator[_Row]:
    noisy = open_source(
        bench.data, modality="image", split="test" if bench.clean is None else "all", by=bench.settings.by
    )
    noisy = samples.degraded(noisy, bench.settings.noise)
    reference = open_source(bench.clean, modality="image", split="all") if bench.clean is not None else None
    if reference is None and not isinstance(noisy, samples.Degraded):
        raise UserError("PSNR needs clean images of the same names: give --clean FOLDER (or train with --noise)")
    where = {_stem(name): i for i, name in enumerate(reference.names)} if reference is not None else {}
    for i in range(min(len(noisy), bench.limit)):
        try:
            image = as_unit_float(noisy.read(i))
            target = as_unit_float(_clean(noisy, reference, where, i))
        except SampleError as error:
            bench.say(f"skipped {error}")
            continue
        bench.say(f"restoring {noisy.names[i]}")
        yield _Row(noisy.names[i], image, restore(bench.method, image), target)


def _examples(method: Method, source: Source, count: int = 3) -> Iterator[_Row]:
    """Some images before and after."""
    found = 0
    for i in np.linspace(0, len(source) - 1, min(3 * count, len(source))).astype(int):
        if found == count:
            return
        try:
            image = as_unit_float(source.read(int(i)))
        except SampleError:
            continue
        found += 1
        yield _Row(source.names[int(i)], image, restore(method, image), np.zeros(0))


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0]


def _clean(noisy: Source, reference: Source | None, where: dict[str, int], i: int) -> np.ndarray:
    if reference is None:
        return noisy.clean.read(i)  # type: ignore[attr-defined]
    if _stem(noisy.names[i]) not in where:
        raise UserError(f"--clean has no image named {noisy.names[i]}")
    return reference.read(where[_stem(noisy.names[i])])


def _shown(row: _Row) -> dict[str, Any]:
    found = {"name": row.name, "noisy": _picture(row.raw), "restored": _picture(row.this)}
    return found | ({"clean": _picture(row.clean)} if row.clean.size else {})


def _picture(image: np.ndarray) -> str:
    height, width = image.shape[:2]
    top, left = max(0, (height - _SIDE) // 2), max(0, (width - _SIDE) // 2)
    part = np.clip(image, 0, 1)[top : top + _SIDE, left : left + _SIDE]
    return pictures.encode((part * 255 + 0.5).astype(np.uint8), format="png")
