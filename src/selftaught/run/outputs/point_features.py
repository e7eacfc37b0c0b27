"""Features of every point of a scan, written beside what the scan's file has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from selftaught import evaluation
from selftaught.data import Source, open_source
from selftaught.data.clouds import Clouds, clouds_of, point_classes
from selftaught.data.formats._clouds import LAS
from selftaught.data.kinds.points import pack
from selftaught.engine.embedding import none_usable
from selftaught.engine.method import Method
from selftaught.errors import SampleError, UserError
from selftaught.evaluation.points import principal_directions
from selftaught.run.applying import Applied, Job
from selftaught.run.outputs import _clouds, _folder
from selftaught.run.outputs._base import Judged, Output, Page
from selftaught.run_settings import Settings

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["PointFeatures"]

_PROTOCOLS = ("point-linear", "point-knn", "point-pca")
_ALLOWED = ", ".join(_PROTOCOLS)
_SCANS, _POINTS, _SHOWN, _DRAWN, _COMPONENTS, _FITTED = 64, 2000, 3, 8000, 16, 30_000
Split = tuple[list[np.ndarray], list[np.ndarray]]


class PointFeatures(Output):
    """(M, D) float32 of packed clouds; judged by a linear layer and neighbours, shown as a turning cloud."""

    hint: ClassVar[str] = "--data FOLDER of scans whose points have a column label"
    headlines: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("point-linear", "miou", "linear probe mIoU"),
        ("point-knn", "miou", "k-NN mIoU"),
        ("point-pca", "effective_rank", "effective rank"),
    )
    takes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "components": {"help": "points: principal components of the features to write (16), or all"},
    }

    def needed(self, settings: Settings, data: Mapping[str, Any]) -> str:
        """None where the points of the run's own data have classes."""
        return "" if data.get("truth") else self.hint

    def apply(self, job: Job) -> Applied:
        """A file for every scan: .las and .laz stay what they are, anything else becomes .ply; one scan may go to a
        file that was named.

        Columns ``f0``, ``f1`` ... are principal components of the features (``--components 16``, or ``all`` for the
        features themselves), ``pca_red`` ... colours of the first three. Original attributes stay.
        """
        source, _ = clouds_of(job.source)
        wanted = str(job.options.get("apply components") or _COMPONENTS)
        if wanted != "all" and not (wanted.isdigit() and int(wanted)):
            raise UserError(f"--components {wanted}: a number from 1 on, or all")
        paths = _folder.places(list(source.scans), lambda own: own if own.lower() in LAS else ".ply")
        reduce: list[Any] = []

        def make(i: int, path: Path) -> None:
            features = _clouds.features_of(job.method, source.cloud(i), source.block)
            if not reduce:
                reduce.append(_basis(job.method, source))
            mean, directions, colours = reduce[0]
            shown = colours(features)
            count = len(directions) if wanted == "all" else min(int(wanted), len(directions))
            if path.suffix.lower() in LAS and count > _clouds.LAS_MOST:
                raise UserError(f"--components {wanted}: a .las file takes {_clouds.LAS_MOST} at most")
            kept = features if wanted == "all" else (features - mean) @ directions[:count].T
            _clouds.written(path, source, i, _clouds.attributes(kept, shown))

        whole = _Scans(source)
        return _folder.write(_replaced(job, whole), paths, make, {path.suffix.lower() for path in paths})

    def evaluate(self, bench: Bench) -> Judged:
        """Linear probe and neighbours on labelled points; components without labels."""
        names = list(bench.protocols)
        for name in names:
            if name not in _PROTOCOLS:
                raise UserError(f"--protocol {name}: {bench.method.slug} gives point features; it may be {_ALLOWED}")
        train, test, labelled = _parts(bench)
        names = names or [n for n in _PROTOCOLS if labelled or n == "point-pca"]
        if not labelled and set(names) - {"point-pca"}:
            raise UserError(f"{bench.data}: its points have no label; give scans with a column label")
        kinds: dict[str, Method | None] = {"this": bench.method}
        if bench.baselines:
            kinds |= {"random": bench.untrained(), "raw": None}
        found: dict[str, dict[str, evaluation.Result]] = {name: {} for name in names}
        for kind, method in kinds.items():
            bench.say(f"features per point: {'untrained' if kind == 'random' else kind}")
            sides = [_sampled(method, bench.method, part, labelled) for part in (train, test)]
            for name in names:
                if name == "point-pca":
                    made = evaluation.point_pca(sides[1][0])
                else:
                    told = bench.options.nearest() if name == "point-knn" else {}
                    judge: Any = evaluation.point_linear if name == "point-linear" else evaluation.point_knn
                    made = judge(*sides[0], *sides[1], **told)
                found[name][kind] = made.noted(f"{_POINTS:,} points drawn of each scan")
        return Judged(found, sections={"clouds": _shown(bench.method, test)})

    def draw(self, page: Page) -> dict[str, Any]:
        """The turning cloud; of a run that was not judged, of its training scans."""
        if page.sections or page.train is None:
            return dict(page.sections)
        return {"clouds": _shown(page.method, page.train)}

    def card(self, method: Method, facts: dict[str, Any]) -> dict[str, Any]:
        """As of any kind, and the columns of the clouds that it takes."""
        return super().card(method, facts) | {"columns": "x y z, red green blue (0 to 255), nx ny nz, further features"}

    def example(self, card: dict[str, Any]) -> Tensor:
        """Scans go by their own packed form; nothing of one shape stands for them."""
        return torch.zeros(1, 9)

    def export(self, method: Method, card: dict[str, Any], form: str, out: Path) -> Path:
        """Weights with their card; a network whose shapes follow the scan has no ONNX form.

        Raises:
            UserError: any other form.
        """
        if form != "safetensors":
            raise UserError(f"--format {form}: {method.slug} looks its voxels up as it goes; use safetensors")
        return super().export(method, card, form, out)


class _Scans(Source):
    """Whole scans in the place of their blocks, so that every file is written once."""

    def __init__(self, source: Clouds) -> None:
        self.clouds, self.names, self.name, self.modality = source, list(source.scans), source.name, "points"
        self.root = getattr(source, "root", None)
        if self.root is None:
            del self.root

    def fingerprint(self) -> str:
        """Of the clouds."""
        return self.clouds.fingerprint()

    def origin(self) -> str:
        """Of the clouds."""
        return self.clouds.origin()


def _replaced(job: Job, source: Source) -> Job:
    import dataclasses

    return dataclasses.replace(job, source=source)


def _parts(bench: Bench) -> tuple[Source, Source, bool]:
    """Scans to learn from and to judge on, and whether their points have labels."""
    settings = bench.settings
    whole = open_source(bench.data, modality="points", split="all", seed=settings.seed)
    labelled = "point_label" in whole.fields and bool(point_classes(whole))
    if len(whole) < 2:
        if labelled:
            raise UserError(
                f"{bench.data}: one scan; cut it into blocks to learn on some and judge on others: ?block=5"
            )
        return whole, whole, False
    train, test = (
        open_source(bench.data, modality="points", split=s, by=settings.by, seed=settings.seed)
        for s in ("train", "test")
    )
    return _some(train), _some(test), labelled


def _some(source: Source) -> Source:
    if len(source) <= _SCANS:
        return source
    return source.subset(np.linspace(0, len(source) - 1, _SCANS).round().astype(int))


def _sampled(method: Any, like: Any, source: Source, labelled: bool) -> Split:
    """Features and classes of points drawn of each scan; those of the input itself where there is no method."""
    xs, ys = [], []
    lost: list[tuple[str, str]] = []
    for _, points, label, rows in _readable(source, labelled, lost):
        if method is None:
            x = like.encoder.inputs(torch.from_numpy(points[rows, 3:]).to(like.device)).cpu().numpy()
        else:
            x = _predicted(method, points)[rows]
        xs.append(x)
        ys.append(label[rows] if label is not None else np.full(len(rows), -1))
    if not xs:
        raise none_usable(source, lost)
    return xs, ys


def _readable(
    source: Source, labelled: bool, lost: list[tuple[str, str]] | None = None
) -> Iterator[tuple[int, np.ndarray, np.ndarray | None, np.ndarray]]:
    """Number, points, labels and drawn rows of every scan that can be read, of labelled points where there are some;
    name and reason of the others join ``lost``.

    Labels are None where none are wanted, or where a scan among labelled ones has none.
    """
    lost = [] if lost is None else lost
    for i in range(len(source)):
        sample = _read(source, i, ("points", "point_label"), []) if labelled else None
        sample = sample or _read(source, i, ("points",), lost)
        if sample is None:
            continue
        label = sample.get("point_label")
        rows = (
            np.flatnonzero(label >= 0) if label is not None and (label >= 0).any() else np.arange(len(sample["points"]))
        )
        drawn = np.random.default_rng([7, i]).permutation(rows)[:_POINTS]
        yield i, sample["points"], label, np.sort(drawn)


def _read(source: Source, i: int, want: tuple[str, ...], lost: list[tuple[str, str]]) -> dict[str, Any] | None:
    try:
        return source.sample(i, want=want)
    except SampleError as error:
        lost.append((source.names[i], error.reason))
        return None


def _predicted(method: Any, points: np.ndarray) -> np.ndarray:
    batch = {name: value.to(method.device) for name, value in pack([points]).items()}
    with torch.inference_mode():
        found: np.ndarray = method.predict({"points": batch}).float().cpu().numpy()
    if not np.isfinite(found).all():
        raise UserError(f"{method.slug}: features hold NaN or infinite values; the model diverged")
    return found


def _basis(method: Any, source: Clouds) -> tuple[np.ndarray, np.ndarray, Any]:
    """Mean and principal directions of features of some points of some scans, and the colours of the first three."""
    parts: list[np.ndarray] = []
    for i in np.linspace(0, len(source) - 1, min(8, len(source))).round().astype(int).tolist():
        try:
            points = source.read(i)
        except SampleError:
            continue
        found = _predicted(method, points[:: max(1, len(points) // 200_000)])
        parts.append(found[np.random.default_rng(i).permutation(len(found))[: _FITTED // 8]])
    rows = np.concatenate(parts)
    return rows.mean(0), principal_directions(rows, rows.shape[1]), evaluation.principal_colours(rows)


def _shown(method: Any, source: Source) -> list[dict[str, Any]]:
    """A few scans for the report: places, own colours, colours of their features, and classes where they are known."""
    labelled = "point_label" in source.fields
    found = []
    names = point_classes(source) if labelled else []
    for i, points, label, _ in _readable(source, labelled):
        features = _predicted(method, points)
        rows = np.sort(np.random.default_rng(i).permutation(len(points))[:_DRAWN])
        colours = evaluation.principal_colours(features)(features[rows])
        one = {
            "name": str(source.names[i]), "xyz": np.round(points[rows, :3], 3).tolist(),
            "colours": {"features": colours.tolist(), "colour": points[rows, 3:6].round().astype(int).tolist()},
        }  # fmt: skip
        if label is not None:
            one |= {"label": label[rows].tolist(), "classes": names}
        found.append(one)
        if len(found) == _SHOWN:
            break
    return found
