"""ESPCN: all work at low resolution, then one PixelShuffle (Shi et al., CVPR 2016, arXiv 1609.05158).

L = mean (x - F(low))^2,      F: 5x5 conv, tanh, 3x3 conv, tanh, 3x3 conv, PixelShuffle(r); images in [0, 1]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor, nn

from selftaught.catalog.rules import Range
from selftaught.engine.method import Schedule
from selftaught.methods._restoration import SuperResolutionConfig, SuperResolutionMethod
from selftaught.networks.espcn import ESPCN as Network
from selftaught.objectives.srgan import srgan_pixel

__all__ = ["ESPCN"]


@dataclass
class Config(SuperResolutionConfig):
    """ESPCN's options; the defaults are the authors' for 4x (the rate falls from 0.01 to 0.0001)."""

    lr: float = 1e-2
    schedule: Schedule = "cosine"
    final_lr: float = 0.01
    patch: int = 68
    widths: Annotated[int, Range(2)] = 64
    """Channels of the first layer; the second has half as many."""


PRESETS = {
    "imagenet": {"steps": 1000000, "batch_size": 16},
    "laptop": {"lr": 1e-3, "patch": 48, "steps": 3000, "batch_size": 8},
}


class ESPCN(SuperResolutionMethod):
    """ESPCN on all channels together; the authors enlarge the luminance alone."""

    slug = "espcn"
    config_class = Config
    config: Config

    def build(self) -> None:
        """The network F."""
        c = self.config
        self.net = Network(self.channels, scale=c.scale, features=(c.widths, c.widths // 2))

    def network(self) -> nn.Module:
        """The network."""
        return self.net

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The squared error."""
        low, high = self.pair(batch)
        return {"loss": srgan_pixel(self.net(low), high)}

    def deliverable_spec(self) -> dict[str, Any]:
        """The network's sizes."""
        c = self.config
        return {"name": "espcn", "channels": self.channels, "scale": c.scale, "widths": c.widths}
