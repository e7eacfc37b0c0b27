"""Degraded copies of videos: pairs as two rolling shutters would have read them, beside the clean frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data import Source, open_source
from selftaught.data.rolling_shutter import BETWEEN, DualReversed
from selftaught.data.spec import call
from selftaught.errors import SampleError, UserError
from selftaught.run import applying
from selftaught.run.applying import Applied, Job, Skipped
from selftaught.run.outputs import _folder
from selftaught.run.outputs._pictures import write_image

__all__ = ["CLIP_RECIPES", "degrade_clips"]

PARTS = ("t2b", "b2t", "gs")
"""Folders: read downwards, read upwards, and the clean frames, as many for each pair as its read-out has."""


def _rolled(*, readout: int = 8, between: str = "flow", side: int = 0, stride: int = 0) -> Callable[[Source], Source]:
    if readout < 1 or side < 0 or stride < 0:
        raise UserError(f"rolling-shutter: readout={readout}, side={side}, stride={stride}: 1 and 0 are the least")
    if between not in BETWEEN:
        raise UserError(f"rolling-shutter: between={between}: it may be {', '.join(BETWEEN)}")
    return lambda source: DualReversed(
        source,
        readout=readout,
        between=between,  # type: ignore[arg-type]
        side=side,
        stride=stride or readout,
    )


CLIP_RECIPES: dict[str, tuple[str, Callable[..., Callable[[Source], Source]]]] = {
    "rolling-shutter": ("videos to pairs read in opposite directions, beside their clean frames", _rolled),
}
"""Recipe -> what it does, and what makes pairs of a source of clips, of its options."""


def degrade_clips(
    recipe: str,
    options: dict[str, Any],
    data: Any,
    out: Path,
    table: str,
    *,
    overwrite: bool = False,
    say: Callable[[int], None] = lambda done: None,
) -> Applied:
    """Write the pairs of every video as frames: OUT/t2b/NAME/000000.png, OUT/b2t/..., and OUT/gs/... the clean ones.

    They are what ``--data 'pairs:OUT?t2b=t2b&b2t=b2t&gs=gs'`` reads. Nothing is drawn.

    Args:
        recipe: one of `CLIP_RECIPES`.
        options: of the recipe.
        data: source of clips.
        out: folder; what lies there of other names is left alone.
        table: name of the table of what was made of which frames.
        overwrite: whether files of the same names may be replaced.
        say: called with the number of pairs done.

    Returns:
        how many pairs were written.

    Raises:
        UserError: an unknown option, a place that is the input's, files that are there already, no long enough clip.
    """
    arrange = call(CLIP_RECIPES[recipe][1], recipe, options)
    source = open_source(data, modality="clip", split="all")
    applying.refuse_input(Job(None, source, out, given=data))  # type: ignore[arg-type]
    pairs: Any = arrange(source)
    folders = [path.with_suffix("") for path in _folder.places(source.names, lambda own: own)]
    if len(set(folders)) < len(folders):
        folders = _folder.places(source.names, lambda own: own)
    there = [p for part in PARTS for f in folders if (p := out / part / f).exists()]
    if (there or (out / table).exists()) and not overwrite:
        found = there[0] if there else out / table
        raise UserError(f"--out {out}: {found.relative_to(out)} is there already; choose another, or add --overwrite")
    rows: list[list[Any]] = []
    skipped: Skipped = []
    counts = np.zeros(len(source), dtype=np.int64)
    with applying.writing(out):
        for i, (clip, start) in enumerate(pairs.places.tolist()):
            try:
                sample = pairs.sample(i, ["clip", "gs"])
                _write(out, folders[clip], int(counts[clip]), sample)
                rows.append([f"{folders[clip]}/{counts[clip]:06d}.png", source.names[clip], start, pairs.readout])
                counts[clip] += 1
            except SampleError as error:
                skipped.append((pairs.names[i], error.reason))
            say(i + 1)
        applying.write_csv(out / table, ["name", "video", "first frame", "read-out in frames"], rows)
        applying.list_skipped(out, skipped)
    return Applied(len(rows), out, skipped)


def _write(out: Path, folder: Path, number: int, sample: dict[str, np.ndarray]) -> None:
    clean = sample["gs"]
    groups = {"t2b": sample["clip"][:1], "b2t": sample["clip"][1:], "gs": clean}
    for part, frames in groups.items():
        place = out / part / folder
        place.mkdir(parents=True, exist_ok=True)
        for k, frame in enumerate(frames):
            write_image(place / f"{number * len(frames) + k:06d}.png", frame)
