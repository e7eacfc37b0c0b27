"""Segmentation with a run's encoder: a head of a few layers on patch tokens or maps, beside an untrained one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch import Tensor

from selftaught.data import Source, as_uint8, open_source
from selftaught.data.pixels import conform
from selftaught.engine.embedding import check_channels, none_usable
from selftaught.engine.method import Method
from selftaught.errors import SampleError, UserError
from selftaught.evaluation import Result
from selftaught.evaluation.segmentation import segmentation
from selftaught.evaluation.segmentation_knn import segmentation_knn
from selftaught.run.contenders import some
from selftaught.run.suites._suite import suite

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

NAME, NEIGHBOURS = "segmentation", "segmentation-knn"
_TRAIN, _TEST, _SIDE = 2000, 500, 64


@suite(NAME)
def judge(bench: Bench) -> dict[str, Result]:
    """Mean IoU of a head trained on the training part's masks, on the frozen encoder.

    Raises:
        UserError: data without image and mask, an encoder without maps, samples that can't be read.
    """
    options = {"head": bench.options.head, "seed": bench.settings.seed}
    return {kind: segmentation(*inputs, **options) for kind, inputs in _inputs(NAME, bench)}


@suite(NEIGHBOURS)
def judge_neighbours(bench: Bench) -> dict[str, Result]:
    """Mean IoU by the nearest labelled tokens of the training part.

    Raises:
        UserError: as `judge`.
    """
    told: Any = bench.options.nearest()
    return {kind: segmentation_knn(*inputs, **told) for kind, inputs in _inputs(NEIGHBOURS, bench)}


def _inputs(name: str, bench: Bench) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Kind, and encoder, images and masks to train with and to test with."""
    parts: list[Source] = []
    for split, limit in (("train", _TRAIN), ("test", _TEST)):
        source = open_source(bench.data, split=split, by=bench.settings.by, seed=bench.settings.seed)
        if not {"image", "mask"} <= set(source.fields):
            raise UserError(f"--protocol {name} needs image and mask: --data 'pairs:FOLDER?image=images&mask=masks'")
        parts.append(some(source, limit))
    for kind, method in mapped_models(name, bench):
        side = side_of(method, bench)
        yield kind, (method.deliverable(), *(array for part in parts for array in _arrays(method, part, side)))


def mapped_models(name: str, bench: Bench) -> Iterator[tuple[str, Method]]:
    """The trained model and, where baselines are asked for, the one it began from and an untrained one.

    Raises:
        UserError: they don't.
    """
    kinds = {"this": bench.method}
    if bench.baselines:
        before = bench.method.began_from()
        kinds |= ({} if before is None else {"original": before}) | {"random": bench.untrained()}
    for kind, method in kinds.items():
        bench.say(f"{name}: {kind}")
        if not hasattr(method.deliverable(), "maps"):
            raise UserError(f"--protocol {name}: {method.slug} delivers no encoder with feature maps")
        yield kind, method


def side_of(method: Method, bench: Bench) -> int:
    """Side in pixels at which images are shown: ``--size``, the run's own, or 64."""
    return bench.options.size or int(getattr(method.config, "image_size", 0) or _SIDE)


def _arrays(method: Method, source: Source, side: int) -> tuple[Tensor, np.ndarray]:
    """Normalised images (n, C, side, side) and masks (n, side, side) of what can be read."""
    check_channels(method, source)
    images, masks, lost = [], [], []
    for i in range(len(source)):
        try:
            sample = source.sample(i, want=("image", "mask"))
            image = conform(sample["image"], method.channels, str(source.names[i]))
        except SampleError as error:
            lost.append((source.names[i], error.reason))
            continue
        pixels = as_uint8(image, source.scaled_as(method.value_range))
        if pixels.shape[:2] != sample["mask"].shape:
            raise UserError(
                f"{source.names[i]}: image {pixels.shape[:2]} and mask {sample['mask'].shape} differ in size"
            )
        small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA).reshape(side, side, -1)
        images.append(torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1))))
        mask = sample["mask"].astype(np.int32)
        masks.append(cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST).astype(np.int64))
    if not images:
        raise none_usable(source, lost)
    x = method.normalise(torch.stack(images).to(method.device)).cpu()
    return x, np.stack(masks)
