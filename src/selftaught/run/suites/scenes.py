"""Probes of an encoder of scenes on RGB-D frames: a class for every point, boxes of what stands there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from selftaught.data import Source, open_source
from selftaught.data.clouds import LABEL_OF_POINTS
from selftaught.data.kinds.points import unpack
from selftaught.data.rgbd import rgbd_of
from selftaught.engine.embedding import none_usable
from selftaught.errors import SampleError, UserError
from selftaught.evaluation import Result
from selftaught.evaluation.scene_detection import scene_detection
from selftaught.evaluation.scene_segmentation import scene_segmentation
from selftaught.run.contenders import some
from selftaught.run.features import batches_of
from selftaught.run.suites._suite import suite
from selftaught.views import Recipe, View

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["DETECTION", "SEGMENTATION", "judge_detection", "judge_segmentation"]

SEGMENTATION, DETECTION = "scene-segmentation", "scene-detection"
_TRAIN, _TEST, _POINTS = 400, 200, 128


@suite(SEGMENTATION, images_only=False)
def judge_segmentation(bench: Bench) -> dict[str, Result]:
    """Mean IoU of a linear layer over features of points; ``raw`` is a point's place, colour and normal.

    Raises:
        UserError: another method; data without classes of points.
    """
    train, test = _parts(bench, SEGMENTATION)
    for part in (train, test):
        if LABEL_OF_POINTS not in part.fields:
            raise UserError(f"--protocol {SEGMENTATION}: the points of {part.name} have no classes (a folder label/)")
    judged: dict[str, Any] = {"this": bench.method}
    if bench.baselines:
        judged |= {"random": bench.untrained(), "raw": None}
    found = {}
    for kind, method in judged.items():
        bench.say(f"{SEGMENTATION}: {kind}")
        x, y = _points_of(bench, method, train)
        tx, ty = _points_of(bench, method, test)
        found[kind] = scene_segmentation(np.concatenate(x), np.concatenate(y), tx, ty)
    return found


@suite(DETECTION, images_only=False)
def judge_detection(bench: Bench) -> dict[str, Result]:
    """Average precision of a small detector over the frozen encoder's tokens.

    Raises:
        UserError: another method, one of pictures alone; data without boxes.
    """
    train, test = _parts(bench, DETECTION)
    source, _ = rgbd_of(train)
    if not source.box_classes:
        raise UserError(f"--protocol {DETECTION}: {source.name} has no boxes; the built-in room-frames has some")
    found = {}
    for kind, method in (("this", bench.method), ("random", bench.untrained() if bench.baselines else None)):
        if method is None:
            continue
        bench.say(f"{DETECTION}: {kind}")
        if getattr(method, "point_encoder", None) is None:
            raise UserError("tokens of pictures have no place in space; judge it by scene-segmentation")
        (x, boxes), (tx, test_boxes) = (_boxes_of(method, part) for part in (train, test))
        found[kind] = scene_detection(
            method.deliverable(), x, boxes, tx, test_boxes, source.box_classes, seed=bench.settings.seed
        )
    return found


def _parts(bench: Bench, name: str) -> tuple[Source, Source]:
    if not hasattr(bench.method, "point_features"):
        raise UserError(f"--protocol {name} judges methods of RGB-D scenes, such as gaussian2scene")
    options: dict[str, Any] = {"by": bench.settings.by, "seed": bench.settings.seed}
    parts = [open_source(bench.data, modality="points", split=split, **options) for split in ("train", "test")]
    for part in parts:
        rgbd_of(part)
    return some(parts[0], _TRAIN), some(parts[1], _TEST)


def _batches(
    method: Any, source: Source, fields: tuple[str, ...], lost: list[tuple[int, str]]
) -> Iterator[dict[str, Any]]:
    recipe = method.probing_recipe()
    views = (*recipe.views, *(View(name, name) for name in fields))
    for batch in batches_of(method, source, Recipe(views), batch_size=16, workers=0):
        lost += batch["skipped"]
        if len(batch["index"]):
            yield batch


@torch.inference_mode()
def _points_of(bench: Bench, method: Any, source: Source) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Per cloud features (m, D) and labels (m,) of some of the points that the method sees; None: raw columns."""
    shown: Any = bench.method if method is None else method
    features, labels = [], []
    lost: list[tuple[int, str]] = []
    shown.eval()
    for batch in _batches(shown, source, (LABEL_OF_POINTS,), lost):
        clouds = unpack(batch["points"])
        known = unpack(batch["points"], batch[LABEL_OF_POINTS])
        made = None if method is None else method.point_features(batch)
        for i, cloud in enumerate(clouds):
            seen = shown.drawn(len(cloud))
            rows = torch.linspace(0, len(seen) - 1, min(_POINTS, len(seen))).long()
            value: Tensor = cloud[seen[rows]] if made is None else made[i, rows]
            features.append(value.float().cpu().numpy())
            labels.append(known[i][seen[rows]].cpu().numpy())
    if not features:
        raise none_usable(source, lost)
    return features, labels


@torch.inference_mode()
def _boxes_of(method: Any, source: Source) -> tuple[Tensor, list[np.ndarray]]:
    """Clouds (n, P, C) as the encoder takes them, and the boxes of each."""
    whole, indices = rgbd_of(source)
    clouds, boxes = [], []
    lost: list[tuple[int, str]] = []
    method.eval()
    for batch in batches_of(method, source, method.evaluation_view(), batch_size=16, workers=0):
        lost += batch["skipped"]
        if not len(batch["index"]):
            continue
        clouds.append(method.inputs(batch).cpu())
        for i in batch["index"].tolist():
            try:
                boxes.append(whole.boxes(int(indices[i])))
            except SampleError:
                boxes.append(np.zeros((0, 7)))
    if not clouds:
        raise none_usable(source, lost)
    return torch.cat(clouds).clone(), boxes
