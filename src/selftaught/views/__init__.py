"""What a sample is turned into to learn from.

An image view is *described* once, by a :class:`Pipeline` of operations, and *executed* twice with the same meaning:
:func:`render` makes one image's view on the CPU, :func:`render_batch` a whole batch's on any device. One sampled set of
parameters gives the same pixels from both. Ready-made sets of views are functions::

    x1, x2 = views.simclr(96)(image)                                   # an array, a tensor, a PIL image, or a path
    params = pipeline.sample(rng, height, width)                       # all chance is here
    view = views.render(image, pipeline, params)                       # (h, w, C) uint8
    batch = views.render_batch(images, pipeline, views.stack_params([params] * len(images)))   # (N, C, h, w) uint8

:mod:`selftaught.views.noise` degrades images for restoration, :mod:`selftaught.views.series` augments sensor series,
:mod:`selftaught.views.frames` projects them, :mod:`selftaught.views.transformations` turns images in known ways.
Descriptions need NumPy only; OpenCV and torch are imported where pixels are touched.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from selftaught.views.operation import OPS, Op, executor
from selftaught.views.pipeline import Params, Pipeline, stack_params
from selftaught.views.presets import barlow_twins, dcl, grey, multi_crop, patches, plain, simclr, small
from selftaught.views.recipe import ChosenFrames, Recipe, View
from selftaught.views.spec import (
    CenterCrop,
    ColorJitter,
    Dihedral,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    Solarize,
)
from selftaught.views.viewset import ViewSet

if TYPE_CHECKING:
    from selftaught.views import jigsaw, noise, series, transformations
    from selftaught.views.cpu import render, render_into
    from selftaught.views.device import render_batch
    from selftaught.views.series import series_simclr

__all__ = [
    "OPS",
    "CenterCrop",
    "ChosenFrames",
    "ColorJitter",
    "Dihedral",
    "GaussianBlur",
    "Grayscale",
    "HorizontalFlip",
    "Op",
    "Params",
    "Pipeline",
    "RandomCrop",
    "RandomResizedCrop",
    "Recipe",
    "Resize",
    "Solarize",
    "View",
    "ViewSet",
    "barlow_twins",
    "dcl",
    "executor",
    "grey",
    "jigsaw",
    "multi_crop",
    "noise",
    "patches",
    "plain",
    "render",
    "render_batch",
    "render_into",
    "series",
    "series_simclr",
    "simclr",
    "small",
    "stack_params",
    "transformations",
]

_LAZY = {"render": "cpu", "render_into": "cpu", "render_batch": "device", "series_simclr": "series"}
_ROOMS = ("frames", "jigsaw", "noise", "series", "transformations")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"selftaught.views.{_LAZY[name]}"), name)
    if name in _ROOMS:
        return import_module(f"selftaught.views.{name}")
    raise AttributeError(f"module 'selftaught.views' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "frames"})
