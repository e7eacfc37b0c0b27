"""The temporal probes of a run on clips: the same videos shown forward, backward, out of order and faster."""

from __future__ import annotations

import numpy as np

from selftaught.data import EmptyPartError, Source, open_source
from selftaught.data.combining import Retimed
from selftaught.errors import SampleError, UserError
from selftaught.evaluation import Result
from selftaught.evaluation.temporal import temporal
from selftaught.run.bench import Bench
from selftaught.run.contenders import Contender, some
from selftaught.run.suites._suite import suite

__all__ = ["NAME", "judge"]

NAME = "temporal"
_LIMIT = 500
_FASTER = ("x2", "x4")


@suite(NAME, images_only=False)
def judge(bench: Bench) -> dict[str, Result]:
    """Accuracy of a linear probe on order, speed and direction, for this encoder, an untrained one and raw input.

    Speeds are asked for where videos are long enough for them; a video too short for a single clip is left out.

    Raises:
        UserError: samples other than clips, too few videos.
    """
    method = bench.method
    if method.modality != "clip":
        raise UserError(f"--protocol {NAME} is for clips; {method.slug} takes {method.modality} samples")
    length = int(getattr(method.config, "frames", 0) or 0)
    needed = length * int(getattr(method.config, "stride", 1) or 1)
    parts = [_part(bench, split) for split in ("train", "test")]
    counts = [_lengths(part) for part in parts]
    ways = ["forward", "backward", "shuffled"]
    ways += [way for way in _FASTER if all((n >= needed * int(way[1:])).mean() > 0.5 for n in counts)]
    least = needed * max([1, *(int(way[1:]) for way in ways if way in _FASTER)])
    kept = [part.subset(np.flatnonzero(n >= max(least, 1))) for part, n in zip(parts, counts, strict=True)]
    if min(len(part) for part in kept) < 2:
        raise UserError(
            f"--protocol {NAME}: {bench.data} needs two videos of {needed} frames to learn from and two to test; long "
            f"ones can be cut, as in 'FOLDER/?window={4 * needed}'"
        )
    found = {}
    for contender in bench.each(NAME, kept[0]):
        sides = [{way: _features(contender, Retimed(part, way, length)) for way in ways} for part in kept]
        found[contender.kind] = temporal(*(_alike(side) for side in sides))
    return found


def _part(bench: Bench, split: str) -> Source:
    try:
        source = open_source(bench.data, modality="clip", split=split, by=bench.settings.by, seed=bench.settings.seed)
    except EmptyPartError as error:
        raise UserError(f"--protocol {NAME}: {error}") from None
    return some(source, _LIMIT)


def _lengths(source: Source) -> np.ndarray:
    """Frames of every video; 0 where it can't be read."""
    found = np.zeros(len(source), dtype=np.int64)
    for i in range(len(source)):
        try:
            found[i] = source.frames(i)
        except SampleError:
            continue
    return found


def _features(contender: Contender, source: Source) -> dict[int, np.ndarray]:
    x, index = contender.features(source)
    return dict(zip(index.tolist(), x, strict=True))


def _alike(side: dict[str, dict[int, np.ndarray]]) -> dict[str, np.ndarray]:
    """Of the videos that could be read in every way, their features by way."""
    common = sorted(set.intersection(*(set(rows) for rows in side.values())))
    if len(common) < 2:
        raise UserError(f"--protocol {NAME}: fewer than two videos can be read")
    return {way: np.stack([rows[i] for i in common]) for way, rows in side.items()}
