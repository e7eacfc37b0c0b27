"""What the removal of reflections shares: pictures seen through glass, made of two streams or brought along."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from selftaught.catalog.rules import Count, Natural
from selftaught.data.builtin.photos import PHOTOS, pixels
from selftaught.engine.method import LearningRateScaling, Method, MethodConfig, Optimizer, Schedule
from selftaught.engine.orders import Order
from selftaught.errors import SampleError, UserError
from selftaught.views import GlassDraw, HorizontalFlip, Op, Pipeline, RandomCrop, Recipe, View, covered, reflect

BLENDED, TRANSMISSION, REFLECTION = "blended", "transmission", "reflection"
"""Names of the views, and of the fields of a source of pairs."""
NUMBERS = GlassDraw.facts


@dataclass
class ReflectionConfig(MethodConfig):
    """Options of methods that remove reflections."""

    optimizer: Optimizer = "adam"
    lr: float = 2e-4
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    patch: Count = 256
    """Side of the training patches."""
    recipe: Literal["perceptual", "ceilnet", "linear"] = "perceptual"
    """How reflections are made where the data bring none: in linear light with a vignette, CEILNet's, a mixture."""
    flip: bool = False
    """Exchange left and right in half of the patches."""
    overlap: Natural = 96
    """Context of a tile on each side, where large pictures are restored in tiles; rounded up to a multiple of 32."""


class Rolled(Order):
    """The order of a second stream: of as many samples as the first has, always another one than there.

    Args:
        n: number of samples.
    """

    once = True

    def __init__(self, n: int) -> None:
        self.length = n

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """The first stream's permutation, one place on."""
        return np.roll(np.random.default_rng([seed, epoch]).permutation(self.length), 1)


class ReflectionMethod(Method):
    """Base of methods that take reflections away.

    They learn from two streams of ordinary pictures, one seen through the glass and one mirrored in it, or from data
    that have the fields "blended" and "transmission" (and "reflection").
    """

    config_class = ReflectionConfig
    config: ReflectionConfig
    roles: ClassVar[tuple[str, ...]] = ("data", "reflections")
    output = "image"
    pixels = "float32"
    default_data = "photos:whole"
    compares = False
    pair_fields: ClassVar[tuple[str, str]] = (BLENDED, TRANSMISSION)

    fields: Mapping[str, Any] = {}

    # ---- data --------------------------------------------------------------------------------------------------
    @classmethod
    def streams(cls, source: Any, given: dict[str, Any], opened: Callable[..., Any]) -> dict[str, Any]:
        """What is behind the glass and what is mirrored in it: a source of its own, or the same in another order.

        Raises:
            UserError: reflections for data that have some already.
        """
        if {BLENDED, TRANSMISSION} <= set(source.fields):
            if "reflections" in given:
                raise UserError(f"--reflections: {source.name} has blended pictures already; leave it out")
            return {"data": source}
        return {"data": source, "reflections": opened(given["reflections"]) if "reflections" in given else source}

    def order(self, source: Any, role: str) -> Order | None:
        """Shuffled; the second stream never shows the picture of the first. Notes which fields the data bring."""
        if role == "reflections":
            return Rolled(len(source))
        self.fields = source.fields
        return None

    def views_of(self, role: str, source: Any) -> Any:
        """Random patches of either stream."""
        if role == "reflections":
            return Recipe((View(REFLECTION, source.main, Pipeline(self._cut())),))
        return super().views_of(role, source)

    def _cut(self) -> tuple[Op, ...]:
        c = self.config
        return (RandomCrop(c.patch), *((HorizontalFlip(),) if c.flip else ()))

    def recipe(self) -> Recipe:
        """A patch of what is behind the glass, with the numbers of the reflection; or aligned patches of the pairs."""
        c = self.config
        if {BLENDED, TRANSMISSION} <= self.fields.keys():
            return self.patches_of(self.fields)
        return Recipe((View(TRANSMISSION, "image", Pipeline((GlassDraw(c.recipe), *self._cut()))),))

    def patches_of(self, fields: Mapping[str, Any]) -> Recipe:
        """Patches of the same place in all pictures of a pair."""
        names = [name for name in (BLENDED, TRANSMISSION, REFLECTION) if name in fields]
        return Recipe(tuple(View(name, name, Pipeline(self._cut()), space="pair") for name in names))

    def blend(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor | None]:
        """What is seen through the glass, what is behind it, and the layer that was added where it is known.

        Raises:
            UserError: layers of different sizes or channels.
        """
        data = batch.get("data", batch)
        t = data[TRANSMISSION]
        if BLENDED in data:
            if data[BLENDED].shape != t.shape:
                shapes = f"{tuple(data[BLENDED].shape)} and {tuple(t.shape)}"
                raise UserError(f"blended and transmission {shapes}: pairs must have one size")
            return data[BLENDED], t, data.get(REFLECTION)
        r = self._mirrored(batch, t)
        numbers = {name: data[f"{TRANSMISSION}.{name}"] for name in NUMBERS}
        with torch.no_grad():
            made = reflect(t, r, self.config.recipe, **numbers)
        return made.blended, t, made.reflection

    def _mirrored(self, batch: dict[str, Any], t: Tensor) -> Tensor:
        """What is mirrored: the second stream, or without one the patches' neighbours in the batch, mirrored."""
        if "reflections" not in batch:
            return t.flip(3).roll(1, 0)
        r = batch["reflections"][REFLECTION]
        r = r[torch.arange(len(t), device=r.device) % len(r)]
        r = r.expand(-1, t.shape[1], -1, -1) if r.shape[1] == 1 else r
        if r.shape[1] != t.shape[1]:
            raise UserError(f"--reflections: pictures of {r.shape[1]} channels, the data have {t.shape[1]}")
        return r

    # ---- judging -----------------------------------------------------------------------------------------------
    def inputs(self, batch: dict[str, Any]) -> Tensor:
        """Pictures with reflections."""
        return batch[BLENDED] if BLENDED in batch else super().inputs(batch)

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Pictures without reflections, (N, C, H, W) in [0, 1]."""
        return self.deliverable()(self.inputs(batch))

    def degraded(self, clean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A picture (H, W, C) in [0, 1] behind glass, as its pixels decide by chance, in 8 bits; and itself.

        What is mirrored is one of the built-in photographs that are held out, never the picture itself.

        Raises:
            SampleError: an image too small to be blurred.
        """
        rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(clean.tobytes(), digest_size=6).digest(), "big"))
        op: Any = GlassDraw(self.config.recipe)
        values, _, _ = op.draw(rng.random(op.draws).tolist(), *clean.shape[:2])
        mirrored = _other_photo(clean, rng)
        try:
            made = reflect(clean, mirrored, self.config.recipe, **dict(zip(NUMBERS, values, strict=True)))
        except UserError as error:
            raise SampleError("image", str(error)) from error
        return (np.rint(made.blended * 255) / 255).astype(np.float32), clean


def _other_photo(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A held-out photograph that isn't ``clean``, of its size and channels."""
    held_out = [k for k, photo in enumerate(PHOTOS) if photo.held_out]
    eight = np.rint(clean * 255)
    choices = [k for k in held_out if pixels(k).shape != clean.shape or not np.array_equal(pixels(k), eight)]
    photo = covered(pixels(choices[int(rng.integers(len(choices)))]), *clean.shape[:2])
    photo = photo if clean.shape[2] == 3 else photo.mean(2, keepdims=True).repeat(clean.shape[2], 2)
    return np.ascontiguousarray(photo / np.float32(255), clean.dtype)
