"""Bicubic interpolation as a method: what every super-resolution network is compared with. Nothing is learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from selftaught.methods._restoration import SuperResolutionConfig, SuperResolutionMethod
from selftaught.networks.upsampling import BicubicUpsample
from selftaught.objectives.srgan import srgan_pixel

__all__ = ["Bicubic"]


@dataclass
class Config(SuperResolutionConfig):
    """The shared options; only the scale matters."""

    @property
    def learns(self) -> bool:
        """Never."""
        return False


PRESETS = {"laptop": {"steps": 1, "batch_size": 8, "patch": 48}}


class _Network(BicubicUpsample):
    def receptive_radius(self) -> int:
        return 2


class Bicubic(SuperResolutionMethod):
    """Bicubic enlargement; a step measures its squared error and changes nothing."""

    slug = "bicubic"
    config_class = Config
    config: Config

    def build(self) -> None:
        """The interpolation."""
        self.interpolation = _Network(self.config.scale)

    def network(self) -> nn.Module:
        """The interpolation."""
        return self.interpolation

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The squared error in [0, 1]."""
        low, high = self.pair(batch)
        return {"loss": srgan_pixel(self.interpolation(low), high)}

    def deliverable_spec(self) -> dict[str, Any]:
        """The scale."""
        return {"name": "bicubic", "channels": self.channels, "scale": self.config.scale}
