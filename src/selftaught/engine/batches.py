"""From a source to batches: reads, skips what is broken, renders the views."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from selftaught.data import Source, as_uint8, to_unit
from selftaught.data.kinds import kind_of
from selftaught.data.kinds.camera import Camera
from selftaught.errors import SampleError, UserError
from selftaught.views import Pipeline, Recipe, render, stack_params

_TRIES = 64


def enough_for(pipelines: list[Pipeline] | None) -> int | None:
    """Shorter side at which images may be decoded for all these views; None where one of them needs every pixel."""
    sides = [pipeline.enough for pipeline in pipelines or []]
    known = [side for side in sides if side is not None]
    return max(known) if known and len(known) == len(sides) else None


class Batches(Dataset[Any]):
    """Whole batches of one source, made in the loader's workers.

    Indexed with ``(epoch, indices)``, or ``(epoch, indices, times)`` where a sample comes again in an epoch; returns
    the batch dict of the contract, ``values`` with the numbers that the source knows of each sample, and ``skipped``:
    pairs of a sample's index and the reason it could not be used. A skipped sample's place is taken by the next good
    one. The views' randomness depends on (seed, epoch, index, time) alone, so no worker holds a state that a resumed
    run would miss.

    Args:
        source: where the samples come from.
        views: one pipeline per view of the source's main field; a recipe for views of several fields; None for samples
            passed whole, under the main field's name.
        seed: fixes the views.
        pixels: "uint8" rendered views, or "float32" in [0, 1] at the source's full depth (restoration).
        on_device: pass ``images`` (N,C,H,W) of one size and ``params``, one array per view, for the model's device to
            render; the pixels are those that the CPU would have made, within rounding.
        value_range: scales the samples, as another source's; None: the source's own.
        finish: changes the views of a sample and may add facts of theirs, ``finish(views, rng) -> views`` (recipes).
    """

    def __init__(
        self,
        source: Source,
        views: list[Pipeline] | Recipe | None,
        seed: int,
        pixels: str = "uint8",
        on_device: bool = False,
        finish: Callable[[dict[str, Any], np.random.Generator], dict[str, Any]] | None = None,
        value_range: Any = None,
    ) -> None:
        self.source, self.seed, self.pixels = source, seed, pixels
        self.given = None if value_range is None else source.scaled_as(value_range)
        self.scale = (source.unit_scale() if self.given is None else self.given) if pixels == "float32" else None
        self.finish = finish
        self.recipe = views if isinstance(views, Recipe) else None
        self.pipelines = views if not isinstance(views, Recipe) else None
        self.brings = self.pipelines is not None and pixels == "uint8" and source.brings()
        self.on_device = on_device and not self.brings
        self.min_side = None if on_device else enough_for(self.pipelines)
        if self.recipe is not None:
            missing = [name for name in self.recipe.fields if name not in source.fields]
            if missing:
                has = ", ".join(source.fields)
                raise UserError(f"{source.name} has no field {missing[0]!r}, which the views are made of; it has {has}")
            self.recipe = self.recipe.with_kinds({name: field.kind for name, field in source.fields.items()})

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[Any, ...]) -> dict[str, Any]:
        epoch, indices = key[:2]
        times = key[2] if len(key) > 2 else [0] * len(indices)
        skipped: list[tuple[int, str]] = []
        rows = [self._sample(int(i), (epoch, t), skipped) for i, t in zip(indices, times, strict=True)]
        kept = np.array([row[0] for row in rows], dtype=np.int64)
        batch: dict[str, Any] = {"index": torch.from_numpy(kept), "skipped": skipped}
        if self.source.labels is not None:
            batch["label"] = torch.from_numpy(np.asarray(self.source.labels)[kept])
        if self.source.values:
            batch["values"] = {name: torch.from_numpy(v[kept]) for name, v in self.source.values.items()}
        made = [row[1] for row in rows]
        if self.recipe is not None:
            return batch | stack_views(made, self.recipe)
        if self.pipelines is None:
            batch[self.source.main] = kind_of(self.source.modality).stack([row[0] for row in made])
        elif self.on_device:
            batch["images"] = self._one_size([row[0] for row in made])
            batch["params"] = [stack_params([row[1 + v] for row in made]) for v in range(len(self.pipelines))]
        else:
            batch["views"] = [stack_images([row[v] for row in made]) for v in range(len(self.pipelines))]
        return batch

    def _brought(self, index: int) -> list[np.ndarray]:
        """The views that the source brings, as many as the method compares."""
        views, wanted = self.source.brought(index) or [], len(self.pipelines or [])
        if len(views) < wanted:
            raise UserError(f"{self.source.name} brings {len(views)} views of a sample, the method compares {wanted}")
        return [as_uint8(view, self._range) for view in views[:wanted]]

    @property
    def _range(self) -> Any:
        return self.source.value_range if self.given is None else self.given

    def _one_size(self, images: list[np.ndarray]) -> torch.Tensor:
        sizes = {image.shape for image in images}
        if len(sizes) > 1:
            raise UserError(f"--view-device model: {self.source.name} has images of several sizes; use cpu")
        return stack_images(images)

    def _sample(self, index: int, when: tuple[int, int], skipped: list[tuple[int, str]]) -> tuple[int, Any]:
        """The sample's views; ``when``: the epoch, and how often the sample came in it before."""
        epoch, time = when
        for attempt in range(_TRIES):
            i = (index + attempt) % len(self.source)
            try:
                key = [self.seed, epoch, i] if time == 0 else [self.seed, epoch, i, time]
                return i, self._views(i, np.random.Generator(np.random.PCG64(key)))
            except SampleError as error:
                skipped.append((i, error.reason))
        raise UserError(
            f"{self.source.name}: {_TRIES} samples in a row can't be used, the first because: {skipped[0][1]}; "
            f"run: selftaught data check"
        )

    def _views(self, index: int, rng: np.random.Generator) -> Any:
        if self.recipe is not None:
            made = render_sample(self.source, index, self.recipe, rng, self.pixels, self.scale or self.given)
            return made if self.finish is None else self.finish(made, rng)
        if self.brings:
            return self._brought(index)
        sample = self.source.read(index, self.min_side)
        if self.pipelines is None:
            return [sample]
        image = to_unit(sample, self.scale) if self.scale is not None else as_uint8(sample, self._range)
        height, width = image.shape[:2]
        if self.on_device:
            return [image, *(draw(p, rng, height, width, self.source.names[index]) for p in self.pipelines)]
        drawn = ((p, draw(p, rng, height, width, self.source.names[index])) for p in self.pipelines)
        return [render(image, pipeline, params) for pipeline, params in drawn]


def draw(pipeline: Pipeline, rng: np.random.Generator, height: int, width: int, name: str) -> Any:
    """A view's parameters; an image that is too small for it is a sample that can't be used.

    Raises:
        SampleError: the pipeline refuses the image's size.
    """
    try:
        return pipeline.sample(rng, height, width)
    except UserError as error:
        raise SampleError(name, str(error)) from error


def render_sample(
    source: Source,
    index: int,
    recipe: Recipe,
    rng: np.random.Generator,
    pixels: str = "uint8",
    value_range: Any = None,
) -> dict[str, Any]:
    """A recipe's views of one sample, and the facts of its operations; only the frames that they need are decoded.

    The main field is scaled by ``value_range``, a run's; None takes the source's own.

    Raises:
        SampleError: the sample can't be read, or is too small for a view.
    """
    clips = [f for f in recipe.fields if kind_of(source.fields[f].kind).framed]
    try:
        frames = recipe.frames(rng, {f: source.frames(index) for f in clips}) if clips else None
    except UserError as error:
        raise SampleError(source.names[index], str(error)) from error
    read = dict(frames.read) if frames is not None else {}
    if len({tuple(numbers) for numbers in read.values()}) > 1:
        raise UserError(f"{source.name}: views pick different frames of {' and '.join(read)}; give them one space")
    side = recipe.enough.get(source.main) if len(recipe.fields) == 1 else None
    values = source.sample(index, want=recipe.fields, min_side=side, frames=next(iter(read.values()), None))
    given = {source.main: value_range}
    if pixels == "float32":  # an input and its target share one scale
        given = dict.fromkeys(values, source.unit_scale() if value_range is None else value_range)
    ready = {}
    for key, value in values.items():
        change = _change(source, key, pixels, given.get(key))
        if change is not None and _one_by_one(value, change.keywords["value_range"]):
            ready[key] = change
        elif change is not None:
            values[key] = change(value)
        elif source.fields[key].kind == "depth":
            values[key] = value[..., 0]  # views know a map without channels
    try:
        params = recipe.sample(rng, {key: _shape(value) for key, value in values.items()}, frames)
    except UserError as error:
        raise SampleError(source.names[index], str(error)) from error
    return recipe.render(values, params, ready)


def _shape(value: Any) -> tuple[int, ...]:
    """Of an array; a camera has none."""
    return () if isinstance(value, Camera) else np.shape(value)


def _change(source: Source, field: str, pixels: str, value_range: Any) -> partial[np.ndarray] | None:
    """What brings a field's brightnesses to what views take, uint8 or unit floats; None for other values.

    They are scaled by ``value_range``; None takes the source's own.
    """
    if not kind_of(source.fields[field].kind).pixels:
        return None
    if pixels == "float32":
        return partial(to_unit, value_range=value_range)
    return partial(as_uint8, value_range=source.range_of(field) if value_range is None else value_range)


def _one_by_one(value: np.ndarray, value_range: Any) -> bool:
    """Whether each pixel alone decides what it becomes: an image of another type than its run's is judged whole."""
    return value.dtype == np.uint8 or getattr(value_range, "depth", None) in (None, str(value.dtype))


def stack_views(rows: list[dict[str, Any]], recipe: Recipe) -> dict[str, Any]:
    """Views and facts of several samples as one batch: images (N,C,h,w), clips (N,C,T,h,w), tokens and facts (N, ...),
    texts as a list, clouds packed, cameras as one `Camera`.

    Raises:
        UserError: a view has several sizes.
    """
    found: dict[str, Any] = {}
    for name in rows[0]:
        if isinstance(rows[0][name], Camera):
            found[name] = kind_of("camera").stack([row[name] for row in rows])
            continue
        values = [np.asarray(row[name]) for row in rows]
        kind = recipe.kind_of(name, values[0].ndim) if "." not in name else "value"
        if kind == "text" and values[0].dtype.kind in "iuf":  # tokens
            kind = "value"
        if kind == "depth":
            values = [value[..., None] for value in values]
        if kind != "value":
            found[name] = kind_of(kind).stack([row[name] for row in rows] if kind == "text" else values)
            continue
        if len({value.shape for value in values}) > 1:
            raise UserError(f"{name} has several sizes in one batch; crop or resize to one size")
        found[name] = torch.from_numpy(np.stack(values))
    return found


def stack_images(images: list[np.ndarray]) -> torch.Tensor:
    """(h,w,C) arrays -> one contiguous (N,C,h,w) tensor in channels-last memory, copied once."""
    out = np.stack(images)
    return torch.from_numpy(out).permute(0, 3, 1, 2)
