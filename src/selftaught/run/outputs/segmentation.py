"""Segmentation: the class of every voxel of a volume, in the volume's own space."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np

from selftaught import evaluation
from selftaught._words import plural, typed
from selftaught.data import Source, open_source
from selftaught.data.slices import partition_of, volume_sets
from selftaught.data.source import TEST
from selftaught.data.space import nifti_bytes, plain_space
from selftaught.engine.method import Method
from selftaught.errors import SampleError, UserError
from selftaught.evaluation import Result
from selftaught.evaluation.volume_dice import volume_dice
from selftaught.report import images as pictures
from selftaught.run import samples
from selftaught.run.applying import Applied, Job, Skipped
from selftaught.run.outputs import _folder
from selftaught.run.outputs._base import Judged, Output, Page
from selftaught.run.outputs._pictures import replaced
from selftaught.run_settings import Settings

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["Segmentation", "coloured_classes"]

_SHOWN, _SIDE = 6, 192
_PROTOCOLS = ("dice", "slice-position")
_ENDS = re.compile(r"\.(nii(\.gz)?|npy|npz|nrrd|mha|mhd)$", re.IGNORECASE)


class Segmentation(Output):
    """Whole numbers (D, H, W) of a volume (D, H, W, C): those of the masks that were learnt from."""

    hint: ClassVar[str] = "--data 'pairs:?volume=SCANS/&mask=MASKS/'"
    headlines: ClassVar[tuple[tuple[str, str, str], ...]] = (("dice", "dice", "Dice"),)

    def needed(self, settings: Settings, data: Mapping[str, Any]) -> str:
        """The annotated volumes, of which those that weren't learnt from are judged, where they lie apart."""
        apart = settings.streams.get("labelled")
        return f"--data {typed(apart)}" if apart else "" if data.get("truth") else self.hint

    def apply(self, job: Job) -> Applied:
        """A folder of .nii.gz files, one for each volume, voxel for voxel where the volume is; that of one volume may
        go to a file that was named.
        """
        method: Any = job.method
        values = np.asarray(method.mask_values)

        def make(i: int, path: Path) -> None:
            source = job.source
            volume = source.read(i)
            classes = method.segment(volume, _spacing(source, i), source.names[i])
            space = source.space(i) or plain_space(volume.shape[:3], _spacing(source, i))
            written = nifti_bytes(values[classes], space)
            replaced(path, lambda part: part.write_bytes(written))

        bare = [_ENDS.sub("", name) for name in job.source.names]
        alone = {".gz"} if job.out.name.lower().endswith(".nii.gz") else set()
        return _folder.write(job, _folder.places(bare, lambda own: f"{own}.nii.gz"), make, alone)

    def evaluate(self, bench: Bench) -> Judged:
        """3-D Dice of every structure in every volume that wasn't learnt from, beside an untrained network's.

        ``--protocol slice-position`` asks instead whether the encoder's nearest slice of another volume is of the same
        partition.
        """
        wanted = list(bench.protocols) or ["dice"]
        for name in wanted:
            if name not in _PROTOCOLS:
                raise UserError(f"--protocol {name}: {bench.method.slug} segments; it may be {' or '.join(_PROTOCOLS)}")
        source, left_out = judged_volumes(bench)
        kinds: dict[str, Any] = {"this": bench.method}
        if bench.baselines:
            kinds["random"] = bench.untrained()
        found: dict[str, dict[str, Result]] = {name: {} for name in wanted}
        shown: list[list[str]] = []
        for kind, method in kinds.items():
            bench.say(f"{', '.join(wanted)}: {'untrained' if kind == 'random' else kind}")
            if "dice" in wanted:
                made, drawn = _dice(method, source)
                found["dice"][kind] = made.noted(left_out)
                shown = shown or drawn
            if "slice-position" in wanted:
                found["slice-position"][kind] = _position(method, source)
        if not shown:
            return Judged(found)
        return Judged(found, sections={"pictures": {"columns": ["slice", "mask", "found"], "rows": shown}})

    def draw(self, page: Page) -> dict[str, Any]:
        """Slices with their masks; of a run that was not judged, slices of its training volumes."""
        whole: Any = getattr(page.train, "source", None)
        if page.sections or whole is None:
            return dict(page.sections)
        rows = [[one[0], one[-1]] for one in _drawn(page.method, whole)]
        return {"pictures": {"columns": ["slice", "found"], "rows": rows}} if rows else {}


def judged_volumes(bench: Bench) -> tuple[Source, str]:
    """Volumes with masks that nothing was learnt from, and a note of those that are left out for it: a given test part;
    of the run's own data without one those that were neither annotated nor validated; of other data all but such.

    Raises:
        UserError: there is none, or no masks.
    """
    source = _masked(bench)
    if "labelled" not in bench.own.streams and str(bench.data) == str(bench.own.data):
        return source, ""
    learnt = _learnt(bench)
    if learnt is None:
        return source, "what it learnt from is gone: some of these may be among it"
    fresh = [i for i in range(len(source)) if _voxels(source, i) not in learnt]
    if not fresh:
        raise UserError(
            f"{bench.data}: the network learnt from all {len(source)} masks; judge it on others with --data"
        )
    if len(fresh) == len(source):
        return source, ""
    left = plural(len(source) - len(fresh), "volume")
    return source.subset(np.array(fresh), "not learnt from"), f"{left} left out that it learnt from or was chosen by"


def _learnt(bench: Bench) -> set[str] | None:
    """`_voxels` of the volumes that were annotated or validated; None where they are no longer there."""
    own, kind = bench.own, type(bench.method)
    try:
        given = samples.streams(kind, own.data, "volume", own, dict(own.streams))
    except UserError:
        return None
    used: dict[str, Source] = kind.annotated(given, bench.method.config)  # type: ignore[attr-defined]
    return {one for part in used.values() for i in range(len(part)) if (one := _voxels(part, i))}


def _voxels(source: Source, i: int) -> str:
    """What tells a volume from others, wherever its file lies; "" where it can't be read."""
    try:
        volume = source.read(i)
    except SampleError:
        return ""
    return hashlib.sha256(repr(volume.shape).encode() + np.ascontiguousarray(volume).tobytes()).hexdigest()


def _masked(bench: Bench) -> Source:
    """`judged_volumes` as far as names and parts of the data tell."""
    own, method = bench.own, bench.method
    whole = open_source(bench.data, modality="volume", split="all", seed=bench.settings.seed)
    if "mask" not in whole.fields:
        apart = own.streams.get("labelled") if str(bench.data) == str(own.data) else None
        mend = f"judge it on annotated ones, such as --data {typed(apart)}" if apart else f"give {Segmentation.hint}"
        raise UserError(f"{bench.data} has no masks; {mend}")
    if whole.given is not None and (whole.given == TEST).any():
        return whole.subset(np.flatnonzero(whole.given == TEST), "test")
    if str(bench.data) != str(own.data):
        return whole
    if whole.labels is not None or whole.groups is not None or bench.settings.by != "auto":
        return open_source(bench.data, modality="volume", split="test", by=bench.settings.by, seed=own.seed)
    if "labelled" in own.streams:
        return whole
    config: Any = method.config
    held = 0 if "validation" in own.streams else config.validation_volumes
    used = np.concatenate(volume_sets(len(whole), config.labelled_volumes, held, config.subset))
    rest = np.setdiff1d(np.arange(len(whole)), used)
    if not len(rest):
        raise UserError(f"{bench.data}: the network learnt from all {len(whole)} masks; judge it on others with --data")
    return whole.subset(rest, "not learnt from")


def coloured_classes(picture: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """A slice (H, W) in [0, 1] with its classes (H, W) laid over it in colours, 0 left alone: (H, W, 3) uint8."""
    grey = np.repeat((np.clip(picture, 0, 1) * 255).astype(np.float32)[..., None], 3, axis=2)
    for k in np.unique(classes[classes > 0]).tolist():
        hue = np.array([[[int(180 * ((k - 1) * 0.618 % 1)), 200, 255]]], dtype=np.uint8)
        colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
        grey[classes == k] = 0.45 * grey[classes == k] + 0.55 * colour
    return np.rint(grey).astype(np.uint8)


def _spacing(source: Source, i: int) -> np.ndarray | None:
    return None if source.spacing is None else source.spacing[i]


def _truth(method: Any, mask: np.ndarray) -> np.ndarray:
    """The mask of a volume as classes; numbers that the network doesn't know are background."""
    found = np.zeros(mask.shape, dtype=np.uint8)
    for k, value in enumerate(method.mask_values):
        found[mask == value] = k
    return found


def _dice(method: Any, source: Source) -> tuple[Result, list[list[str]]]:
    """Dice of every volume, and pictures of some."""
    made, truths, names = [], [], []
    rows: list[list[str]] = []
    lost: Skipped = []
    strange: set[int] = set()
    for i in range(len(source)):
        try:
            sample = source.sample(i, [source.main, "mask"])
            volume, truth = sample[source.main], _truth(method, sample["mask"])
            classes = method.segment(volume, _spacing(source, i), source.names[i])
            if classes.shape != truth.shape:
                raise SampleError(source.names[i], f"a mask of {truth.shape} beside a volume of {classes.shape}")
        except SampleError as error:
            lost.append((error.name, error.reason))
            continue
        strange |= set(np.unique(sample["mask"]).tolist()) - set(method.mask_values)
        made.append(classes)
        truths.append(truth)
        names.append(source.names[i])
        if len(rows) < _SHOWN:
            rows.append(_row(volume, truth, classes, _spacing(source, i)))
    if not made:
        first = f" ({lost[0][0]}: {lost[0][1]})" if lost else ""
        raise UserError(f"{source.name}: no volume can be judged{first}")
    result = volume_dice(made, truths, structures=method.structures, names=names)
    notes = [f"{plural(len(lost), 'volume')} left out ({lost[0][0]}: {lost[0][1]})"] if lost else []
    notes += (
        [f"numbers in masks that the network doesn't know, taken as background: {sorted(strange)}"] if strange else []
    )
    return result.noted("; ".join(notes)), rows


def _position(method: Any, source: Source) -> Result:
    features, volumes, parts = [], [], []
    for i in range(len(source)):
        try:
            found = method.slice_features(source.read(i), _spacing(source, i), source.names[i])
            part = partition_of(len(found), method.config.n_parts)
        except (SampleError, UserError):
            continue
        kept = part >= 0
        features.append(found[kept])
        parts.append(part[kept])
        volumes.append(np.full(int(kept.sum()), i))
    if len(features) < 2:
        raise UserError(f"{source.name}: slice-position needs two volumes or more that can be cut into partitions")
    return evaluation.slice_position(np.concatenate(features), np.concatenate(volumes), np.concatenate(parts))


def _drawn(method: Method, source: Source) -> Iterator[list[str]]:
    count = 0
    for i in range(len(source)):
        if count == _SHOWN:
            return
        try:
            volume = source.read(i)
            classes = method.segment(volume, _spacing(source, i), source.names[i])  # type: ignore[operator]
        except SampleError:
            continue
        count += 1
        yield _row(volume, classes, classes, _spacing(source, i))


def _row(volume: np.ndarray, truth: np.ndarray, classes: np.ndarray, spacing: np.ndarray | None) -> list[str]:
    """The slice with most of the mask in it, as wide and high as it is in millimetres: as it is, with its mask, with
    what was found.
    """
    k = int((truth > 0).sum((1, 2)).argmax()) if truth.any() else len(volume) // 2
    picture = volume[k].mean(2).astype(np.float32)
    low, high = (float(np.percentile(volume, p)) for p in (1, 99))
    picture = (picture - low) / max(high - low, 1e-6)
    shown = [coloured_classes(picture, np.zeros_like(truth[k]))] + [
        coloured_classes(picture, m[k]) for m in (truth, classes)
    ]
    size = _shown_size(picture.shape, spacing)
    return [pictures.encode(cv2.resize(one, size, interpolation=cv2.INTER_NEAREST), format="png") for one in shown]


def _shown_size(shape: tuple[int, ...], spacing: np.ndarray | None) -> tuple[int, int]:
    """Width and height in pixels of a slice (H, W) whose longer side is shown with ``_SIDE`` or as many as it has."""
    sides = np.asarray(shape[:2]) * (np.ones(2) if spacing is None else np.asarray(spacing, dtype=np.float64)[1:])
    height, width = np.maximum(1, np.rint(sides / sides.max() * max(_SIDE, *shape[:2]))).astype(int).tolist()
    return width, height
