"""What a sample is turned into to learn from.

An image view is *described* once, by a :class:`Pipeline` of operations, and *executed* twice with the same meaning:
:func:`render` makes one image's view on the CPU, :func:`render_batch` a whole batch's on any device. One sampled set of
parameters gives the same pixels from both. Ready-made sets of views are functions::

    x1, x2 = views.simclr(96)(image)                                   # an array, a tensor, a PIL image, or a path
    params = pipeline.sample(rng, height, width)                       # all randomness is here
    view = views.render(image, pipeline, params)                       # (h, w, C) uint8
    batch = views.render_batch(images, pipeline, views.stack_params([params] * len(images)))   # (N, C, h, w) uint8

A :class:`Recipe` says which views are made of which fields of a sample (image, mask, depth, clip, volume), and which of
them move together.

:mod:`selftaught.views.noise` adds noise to images, :mod:`selftaught.views.series` augments sensor series,
:mod:`selftaught.views.frames` projects them, :mod:`selftaught.views.transformations` turns images in known ways.
Descriptions need NumPy only; OpenCV and torch are imported where pixels are touched. A new operation is a new file:
see :mod:`selftaught.views.operation`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from selftaught._rooms import fill_room


def __getattr__(name: str) -> Any:
    """A file of this room, as ``views.jigsaw``; names in the files' ``__all__`` are found without it."""
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = fill_room(__name__, __path__, globals(), lazy=True)
