"""Edits: a picture made of a picture and an instruction."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from selftaught import evaluation
from selftaught._words import plural
from selftaught.data import Source, open_source
from selftaught.data.editing import EDITED, INSTRUCTION, TARGET
from selftaught.engine.batches import render_sample, stack_views
from selftaught.engine.loader import divides
from selftaught.errors import SampleError, UserError
from selftaught.evaluation.editing import editing as judged_edits
from selftaught.report import images as pictures
from selftaught.run.applying import Applied, Job, Skipped
from selftaught.run.outputs import _folder
from selftaught.run.outputs._base import Judged, Output, Page
from selftaught.run.outputs._pictures import PICTURE_FORMS, write_image
from selftaught.run_settings import Settings
from selftaught.views import Recipe, View

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["EditOutput"]

_SHOWN, _ROWS, _SIDE = 8, 64, 96


class EditOutput(Output):
    """(N, C, H, W) in [0, 1] of pictures (N, C, H, W) and their instructions."""

    headlines: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("editing", "right", "edits right by their pixels"),
        ("editing", "overall", "edits right by the held-out judge"),
    )
    takes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "instruction": {"help": 'edits: what to do to every picture, such as "make it blue"'},
    }

    def needed(self, settings: Settings, data: Mapping[str, Any]) -> str:
        """None: what was learnt from has edits."""
        return ""

    def apply(self, job: Job) -> Applied:
        """A folder of edited pictures: each by ``instruction``; without one by the edits that come with the data."""
        method: Any = job.method
        told = str(job.options.get("apply instruction") or "").strip()
        if not told:
            try:
                job = dataclasses.replace(job, source=method.takes(job.source))
            except UserError as error:
                raise UserError(f'give --instruction "make it blue", or edits with the pictures ({error})') from None
        source = job.source

        def make(i: int, path: Path) -> None:
            image = _image(method, source, i)
            said = told or str(source.sample(i, [INSTRUCTION])[INSTRUCTION])
            edited = method.edit(image.to(method.device), [said])[0].float().cpu()
            if not bool(torch.isfinite(edited).all()):
                raise UserError(f"{job.run}: NaN in the edit of {source.names[i]}; the model diverged")
            write_image(path, np.rint(255 * edited.permute(1, 2, 0).numpy()).astype(np.uint8))

        bare = ".png" if source.channels in (1, 3, 4) else ".npy"
        found = _folder.write(job, _folder.places(source.names, lambda own: own or bare), make, PICTURE_FORMS)
        side = method.config.image_size
        found.notes = [f"squares of {side} pixels a side, cut from the middle: what the editor learnt (--image-size)"]
        return found

    def evaluate(self, bench: Bench) -> Judged:
        """The edits of test pictures by a judge that did not teach, and by pixels where the right results are known."""
        for name in bench.protocols:
            if name != "editing":
                raise UserError(f"--protocol {name}: {bench.method.slug} edits pictures; it may be editing")
        method: Any = bench.method
        by, own = bench.settings.by, str(bench.data) == str(bench.own.data)
        learnt = own and not divides(open_source(bench.data, modality="image", split="all"), by)
        seen = "pictures that it learnt from" if learnt else ""
        source = method.takes(open_source(bench.data, modality="image", split="test", by=by))
        lost: Skipped = []
        batches = list(_batches(method, _some(source, bench.limit), lost))
        if not batches:
            raise UserError(f"{bench.data}: no edit can be judged{f' ({lost[0][1]})' if lost else ''}")
        found: dict[str, evaluation.Result] = {}
        shown: list[Tensor] = []
        kinds: dict[str, Any] = {"this": method}
        if bench.baselines:
            kinds |= {"random": bench.untrained(), "raw": None}
        for kind, editor in kinds.items():
            bench.say(f"editing: {kind}")
            made = [b["image"] if editor is None else _edited(editor, b) for b in batches]
            note = f"{plural(len(lost), 'edit')} left out" if lost else ""
            found[kind] = _judged(method, batches, made).noted(note).on_seen(seen)
            shown = shown or made
        return Judged({"editing": found}, sections={"pictures": _table(batches, shown)})

    def draw(self, page: Page) -> dict[str, Any]:
        """Pictures and their edits; of a run that was not judged, of its training pictures."""
        if page.sections or page.train is None:
            return dict(page.sections)
        method: Any = page.method
        batches = list(_batches(method, _some(page.train, _SHOWN), []))
        return {"pictures": _table(batches, [_edited(method, b) for b in batches])} if batches else {}

    def example(self, card: dict[str, Any]) -> Tensor:
        """A batch in [0, 1] of the editor's size."""
        side = card["image_size"]
        return torch.rand(2, card["channels"], side, side, generator=torch.Generator().manual_seed(0))


def _image(method: Any, source: Source, i: int) -> Tensor:
    """One picture (1, C, H, W) in [0, 1] as the editor takes it."""
    recipe = Recipe((View("image", source.main, method.evaluation_view()),))
    made = render_sample(source, i, recipe, np.random.default_rng(0), "float32")
    return stack_views([made], recipe)["image"].float()


def _some(source: Source, pictures_at_most: int) -> Source:
    """All edits of some pictures, spread evenly over the source."""
    of = np.asarray(source.values["picture"]) if "picture" in source.values else np.arange(len(source))
    known = np.unique(of)
    kept = known[np.linspace(0, len(known) - 1, min(pictures_at_most, len(known))).astype(int)]
    return source.subset(np.flatnonzero(np.isin(of, kept)))


def _batches(method: Any, source: Source, lost: Skipped) -> Iterator[dict[str, Any]]:
    """Batches of edits with all their texts, and the right results where they are known."""
    recipe = method.edit_recipe(supervised=EDITED in source.fields).with_kinds(
        {name: field.kind for name, field in source.fields.items()}
    )
    for start in range(0, len(source), _ROWS):
        rows = []
        for i in range(start, min(start + _ROWS, len(source))):
            try:
                rows.append(render_sample(source, i, recipe, np.random.default_rng(i), "float32"))
            except SampleError as error:
                lost.append((source.names[i], error.reason))
        if rows:
            batch = stack_views(rows, recipe)
            yield {k: v.float().to(method.device) if isinstance(v, Tensor) else v for k, v in batch.items()}


@torch.no_grad()
def _edited(method: Any, batch: dict[str, Any]) -> Tensor:
    return method.to(batch["image"].device).eval().predict(batch)


@torch.no_grad()
def _judged(method: Any, batches: list[dict[str, Any]], made: list[Tensor]) -> evaluation.Result:
    """One editor's edits, by both of the run's small judges."""
    parts: dict[str, list[Tensor]] = {name: [] for name in method.judges.small}
    for batch, edits in zip(batches, made, strict=True):
        for name, found in parts.items():
            logits = method.judges.answers(batch, edits, name)
            found.append((logits[..., 0] - logits[..., 1]).sigmoid().cpu())
    said = {name: torch.cat(found).double().numpy() for name, found in parts.items()}
    truth = _pixels([b[EDITED] for b in batches]) if EDITED in batches[0] else None
    return judged_edits(
        _pixels([b["image"] for b in batches]),
        _pixels(made),
        followed=said["second"][:, 0],
        kept=said["second"][:, 1],
        taught=said["judge"][:, 0] if "judge" in said else None,
        truth=truth,
    )


def _pixels(parts: list[Tensor]) -> np.ndarray:
    return torch.cat(parts).permute(0, 2, 3, 1).double().cpu().numpy()


def _table(batches: list[dict[str, Any]], made: list[Tensor]) -> dict[str, Any]:
    """Rows of pictures for the report: before, after, and the right result where it is known."""
    first, edits = batches[0], made[0]
    known = EDITED in first
    sides = [first["image"], edits, *([first[EDITED]] if known else [])]
    picked = np.linspace(0, len(edits) - 1, min(_SHOWN, len(edits))).astype(int)
    rows = [[_encoded(side[i]) for side in sides] for i in picked]
    said = [f"{first[INSTRUCTION][i]} ({first['text'][i]} to {first[TARGET][i]})" for i in picked]
    columns = ["picture", "edited", *(["right result"] if known else [])]
    return {"columns": columns, "rows": rows, "names": said, "note": "edited in the sampler's few steps"}


def _encoded(x: Tensor) -> str:
    image = np.rint(255 * x.clamp(0, 1).permute(1, 2, 0).cpu().numpy()).astype(np.uint8)
    return pictures.encode(image, size=_SIDE, format="png")
