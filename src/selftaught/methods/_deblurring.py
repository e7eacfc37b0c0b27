"""What deblurring shares: pairs of a blurred and a sharp picture, brought along or made by motion kernels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from torch import Tensor

from selftaught.catalog.rules import Count, NonNegative, Range, Share
from selftaught.engine.method import LearningRateScaling, Method, MethodConfig
from selftaught.errors import UserError
from selftaught.views import Dihedral, MotionBlur, Pipeline, RandomCrop, Recipe, View, render

BLURRED, SHARP = "blurred", "sharp"
"""Names of the views, and of the fields of a source of pairs."""


@dataclass
class DeblurConfig(MethodConfig):
    """Options of deblurring methods."""

    lr_scaling: LearningRateScaling = "none"
    patch: Count = 256
    """Side of the training patches."""
    kernel: Annotated[int, Range(3)] = 21
    """Side of the motion kernels, odd, that blur sharp pictures where no pairs are given."""
    shortest: NonNegative = 5.0
    """Shortest path of a motion kernel in pixels."""
    roughness: Share = 0.3
    """0 moves straight, 1 trembles."""


class DeblurMethod(Method):
    """Base of methods that sharpen pictures, trained on pairs ("blurred" and "sharp") or on sharp pictures alone."""

    config_class = DeblurConfig
    config: DeblurConfig
    output = "image"
    pixels = "float32"
    default_data = "photos:whole"
    compares = False
    pair_fields: ClassVar[tuple[str, str]] = (BLURRED, SHARP)

    fields: Mapping[str, Any] = {}

    def patch(self) -> int:
        """Side of the training patches now."""
        return self.config.patch

    def recipe(self) -> Recipe | None:
        """A random patch in one of the eight orientations, and its blurred copy."""
        cut = Pipeline((RandomCrop(self.patch()), Dihedral()))
        if {BLURRED, SHARP} <= self.fields.keys():
            return Recipe((View(BLURRED, BLURRED, cut, space="pair"), View(SHARP, SHARP, cut, space="pair")))
        return Recipe((View(SHARP, "image", cut), View(BLURRED, SHARP, Pipeline((self.blur(),)))))

    def order(self, source: Any, role: str) -> Any:
        """Shuffled; which fields the data bring is noted for :meth:`recipe`."""
        self.fields = source.fields
        return None

    def blur(self) -> MotionBlur:
        """What makes an input of a sharp picture.

        Raises:
            UserError: an even kernel, or one that the shortest path doesn't fit into.
        """
        c = self.config
        if c.kernel % 2 == 0 or c.shortest > c.kernel - 1:
            raise UserError(f"--kernel {c.kernel}: an odd side, larger than --shortest {c.shortest:g}")
        return MotionBlur(c.kernel, length=(c.shortest, float(c.kernel - 1)), roughness=c.roughness)

    def pair(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Blurred and sharp images in [0, 1].

        Raises:
            UserError: they differ in size.
        """
        blurred, sharp = batch[BLURRED], batch[SHARP]
        if blurred.shape != sharp.shape:
            raise UserError(f"blurred {tuple(blurred.shape)} and sharp {tuple(sharp.shape)}: pairs must have one size")
        return blurred, sharp

    def degraded(self, clean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A sharp picture (H, W, C) in [0, 1], blurred by a kernel that its pixels decide and in 8 bits; and itself."""
        seed = int.from_bytes(hashlib.blake2b(clean.tobytes(), digest_size=6).digest(), "big")
        pipeline = Pipeline((self.blur(),))
        params = pipeline.sample(np.random.default_rng(seed), *clean.shape[:2])
        blurred = np.clip(render(clean, pipeline, params), 0, 1)
        return (np.rint(blurred * 255) / 255).astype(np.float32), clean
