"""SRCNN: three convolutions sharpen the bicubic enlargement (Dong et al., TPAMI 2016, arXiv 1501.00092).

L = mean (x - F(bicubic(low)))^2,      F: 9x9 conv, ReLU, 1x1 conv, ReLU, 5x5 conv; images in [0, 1]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from selftaught.engine.method import Optim, Optimizer
from selftaught.methods._restoration import SuperResolutionConfig, SuperResolutionMethod
from selftaught.networks.srcnn import SRCNN as Network
from selftaught.objectives.srgan import srgan_pixel

__all__ = ["SRCNN"]


@dataclass
class Config(SuperResolutionConfig):
    """SRCNN's options; the defaults are the authors'."""

    optimizer: Optimizer = "sgd"
    patch: int = 32
    last_lr: float = 0.1
    """Learning rate of the last layer as a share of the others'; small, else the training is unstable."""
    first_kernel: int = 9
    """Side of the first layer's kernels, odd."""
    second_kernel: int = 1
    """Side of the second layer's: 1, or 3 or 5 for a little more quality."""
    last_kernel: int = 5
    """Side of the last layer's."""
    widths: int = 64
    """Channels of the first layer; the second has half as many."""


PRESETS = {
    "imagenet": {"steps": 6250000, "batch_size": 128},
    "laptop": {"optimizer": "adam", "lr": 1e-3, "patch": 48, "steps": 1000, "batch_size": 8},
}


class SRCNN(SuperResolutionMethod):
    """SRCNN on all channels together; the authors enlarge the luminance alone."""

    slug = "srcnn"
    config_class = Config
    config: Config

    def build(self) -> None:
        """The network F behind the interpolation."""
        c = self.config
        kernels = (c.first_kernel, c.second_kernel, c.last_kernel)
        self.net = Network(self.channels, scale=c.scale, kernels=kernels, features=(c.widths, c.widths // 2))

    def network(self) -> nn.Module:
        """The network with its interpolation."""
        return self.net

    def optimisers(self) -> dict[str, Optim]:
        """One, slower in the last layer."""
        (main,) = super().optimisers().values()
        *first, last = (layer for layer in self.net.layers if isinstance(layer, nn.Conv2d))
        main.parameters = [
            {"params": [p for layer in first for p in layer.parameters()]},
            {"params": list(last.parameters()), "lr": self.config.last_lr * main.lr},
        ]
        return {"main": main}

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The squared error."""
        low, high = self.pair(batch)
        return {"loss": srgan_pixel(self.net(low), high)}

    def deliverable_spec(self) -> dict[str, Any]:
        """The network's sizes."""
        c = self.config
        kernels = [c.first_kernel, c.second_kernel, c.last_kernel]
        return {"name": "srcnn", "channels": self.channels, "scale": c.scale, "kernels": kernels, "widths": c.widths}
