"""Degraded copies of videos: pairs as two rolling shutters would have read them, beside the clean frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data import Source, open_source
from selftaught.data.rolling_shutter import BETWEEN, DualReversed
from selftaught.data.spec import call
from selftaught.errors import UserError
from selftaught.run import applying
from selftaught.run.applying import Applied
from selftaught.run.copies import Copies
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

    They are what ``--data 'pairs:OUT?t2b=t2b&b2t=b2t&gs=gs'`` reads. Nothing is drawn. The same call again goes on
    where it was cut off.

    Args:
        recipe: one of `CLIP_RECIPES`.
        options: of the recipe.
        data: source of clips.
        out: folder.
        table: name of the table of what was made of which frames.
        overwrite: whether what another call wrote to ``out`` may be replaced.
        say: called with the number of pairs done.

    Returns:
        how many pairs were written now.

    Raises:
        UserError: an unknown option, a place that is the input's or holds something else, no long enough clip.
    """
    arrange = call(CLIP_RECIPES[recipe][1], recipe, options)
    source = open_source(data, modality="clip", split="all")
    pairs: Any = arrange(source)
    folders = _folder.folders(source)
    drawn = {name: getattr(pairs, name) for name in ("readout", "between", "side")}
    job = Copies.of(recipe, drawn, pairs, out, given=data, overwrite=overwrite, say=say)
    clips = pairs.places[:, 0]
    numbers = np.arange(len(clips)) - np.searchsorted(clips, clips)  # of each pair among those of its clip

    def make(i: int, path: Path) -> list[Any]:
        clip, start = pairs.places[i].tolist()
        _write(out, folders[clip], int(numbers[i]), pairs.sample(i, ["clip", "gs"]))
        return [f"{folders[clip]}/{numbers[i]:06d}.png", source.names[clip], start, pairs.readout]

    def clear() -> None:
        for frame in (p for part in PARTS for folder in folders for p in (out / part / folder).glob("*.png")):
            frame.unlink()

    columns = ["name", "video", "first frame", "read-out in frames"]
    return _folder.write(
        job,
        [Path(PARTS[0]) / folders[clip] / f"{number:06d}.png" for clip, number in zip(clips, numbers, strict=True)],
        make,
        growing=False,
        table=lambda rows: applying.write_csv(out / table, columns, rows),
        clear=clear,
    )


def _write(out: Path, folder: Path, number: int, sample: dict[str, np.ndarray]) -> None:
    """The frames of one pair; the one that says that it is there comes last."""
    clean = sample["gs"]
    groups = {"gs": clean, "b2t": sample["clip"][1:], "t2b": sample["clip"][:1]}
    for part, frames in groups.items():
        place = out / part / folder
        place.mkdir(parents=True, exist_ok=True)
        for k, frame in enumerate(frames):
            write_image(place / f"{number * len(frames) + k:06d}.png", frame)
