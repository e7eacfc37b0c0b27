"""What restoration from pairs shares: where the pairs come from, what is delivered, how it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from selftaught.catalog.rules import Count
from selftaught.engine.method import LearningRateScaling, Method, MethodConfig, Optimizer, Schedule
from selftaught.errors import SampleError, UserError
from selftaught.views import Dihedral, Downsample, Pipeline, RandomCrop, Recipe, View
from selftaught.views import bicubic as resample

HIGH, LOW = "high", "low"
"""Names of the views, and of the fields of a source of pairs."""


@dataclass
class SuperResolutionConfig(MethodConfig):
    """Options of super-resolution methods."""

    optimizer: Optimizer = "adam"
    lr: float = 1e-4
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    scale: Count = 4
    """How many times larger the output is."""
    patch: Count = 96
    """Side of the high-resolution training patches; a multiple of the scale."""


class SuperResolutionMethod(Method):
    """Base of methods that enlarge images, trained on high-resolution images and small copies of them.

    The copies are made here (antialiased bicubic), or come with the data as pairs of fields "low" and "high".
    """

    config_class = SuperResolutionConfig
    config: SuperResolutionConfig
    output = "image"
    pixels = "float32"
    default_data = "photos:whole"
    compares = False
    pair_fields: ClassVar[tuple[str, str]] = (LOW, HIGH)

    fields: Mapping[str, Any] = {}

    # ---- pairs -----------------------------------------------------------------------------------------------
    def recipe(self) -> Recipe | None:
        """A random patch in one of the eight orientations, and its low-resolution copy."""
        c = self.config
        if c.patch % c.scale or c.patch < c.scale:
            raise UserError(f"--patch {c.patch}: must be a multiple of --scale {c.scale}")
        high = Pipeline((RandomCrop(c.patch), Dihedral()))
        if {HIGH, LOW} <= self.fields.keys():
            low = Pipeline((RandomCrop(c.patch // c.scale), Dihedral()))
            return Recipe((View(HIGH, HIGH, high, space="pair", scale=c.scale), View(LOW, LOW, low, space="pair")))
        return Recipe((View(HIGH, "image", high), View(LOW, HIGH, self.degradation())))

    def order(self, source: Any, role: str) -> None:
        """Shuffled; which fields the data bring is noted for :meth:`recipe`."""
        self.fields = source.fields

    def degradation(self) -> Pipeline:
        """What makes an input of a clean image."""
        return Pipeline((Downsample(self.config.scale),))

    def pair(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Low-resolution images in [0, 1], which the kernel's lobes would leave, and their originals.

        Raises:
            UserError: a pair of another ratio than the scale.
        """
        low, high = batch[LOW].clamp(0, 1), batch[HIGH]
        if tuple(high.shape[2:]) != tuple(self.config.scale * side for side in low.shape[2:]):
            small, large = tuple(low.shape[2:]), tuple(high.shape[2:])
            raise UserError(f"low {small} and high {large}: the ratio must be --scale {self.config.scale}")
        return low, high

    # ---- what one keeps --------------------------------------------------------------------------------------
    def network(self) -> nn.Module:
        """The network that enlarges, with ``scale`` and ``receptive_radius()``."""
        raise TypeError(f"{type(self).__name__} names no network")

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Enlarged images (N, C, sH, sW) in [0, 1] from (N, C, H, W) of that range."""
        return self.deliverable()(self.inputs(batch))

    def deliverable(self) -> nn.Module:
        """The network between images in [0, 1]."""
        return Enlarger(self.network())

    # ---- judging ---------------------------------------------------------------------------------------------
    def judged(self) -> dict[str, Any]:
        """As papers on super-resolution do it: on the luma, without a border as wide as the scale."""
        return {"channel": "y" if self.channels in (1, 3) else "rgb", "shave": self.config.scale}

    def degraded(self, clean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """An image (H, W, C) float in [0, 1], cropped to a multiple of the scale, and what is to be made of it again.

        Returns:
            The small copy, rounded to 8 bits as a file would be, and the cropped image.

        Raises:
            SampleError: an image too small to judge.
        """
        s = self.config.scale
        height, width = (side // s * s for side in clean.shape[:2])
        if min(height, width) <= 2 * s:
            raise SampleError("image", f"{clean.shape[1]} x {clean.shape[0]} pixels are too few to enlarge {s} times")
        clean = clean[:height, :width]
        low = np.clip(resample(clean, 1 / s), 0, 1)
        return (np.rint(low * 255) / 255).astype(np.float32), clean

    def simplest(self, degraded: np.ndarray) -> np.ndarray:
        """What costs nothing, to compare with: the bicubic enlargement, in [0, 1]."""
        return np.clip(resample(degraded, float(self.config.scale)), 0, 1)


class Enlarger(nn.Module):
    """A super-resolution network between images in [0, 1], of which it clips its output.

    Args:
        network: with ``scale`` and ``receptive_radius()``.
        symmetric: its output lies in [-1, 1], as SRGAN's.

    Attributes:
        scale: how many times larger the output is.
        receptive_radius: input pixels that an output looks away.
    """

    def __init__(self, network: Any, *, symmetric: bool = False) -> None:
        super().__init__()
        self.network, self.symmetric = network, symmetric
        self.scale, self.receptive_radius = int(network.scale), int(network.receptive_radius())

    def forward(self, low: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, sH, sW)."""
        high = self.network(low)
        return ((high + 1) / 2 if self.symmetric else high).clamp(0, 1)
