"""ResNets of the CIFAR literature for 32-pixel images: 6n + 2 layers, three stages, shortcuts without weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["CIFAR_RESNETS", "CIFARResNet"]

CIFAR_RESNETS = ("cresnet20", "cresnet32", "cresnet44", "cresnet56", "cresnet110")


class _Block(nn.Module):
    """Two 3x3 convolutions; the shortcut is sub-sampled and filled up with zeros (He et al. 2016, option A)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.stride, self.added = stride, width - width_in

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, width, h / stride, w / stride)."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(y + (F.pad(x, (0, 0, 0, 0, 0, self.added)) if self.added else x))


class CIFARResNet(nn.Module):
    """ResNet of 6n + 2 layers for small images (He et al., CVPR 2016, arXiv 1512.03385, section 4.2): 64 features.

    A 3x3 convolution to 16 channels, three stages of n basic blocks with 16, 32 and 64 channels and strides 1, 2, 2.
    Convolutions start at N(0, 2 / (k k out)), norms at 1 and 0.

    Args:
        name: one of :data:`CIFAR_RESNETS`, which says the depth.
        channels: channels C of the images.

    Attributes:
        dim: 64.
        spec: name and channels, as plain JSON.

    Raises:
        UserError: an unknown name.
    """

    dim = 64

    def __init__(self, name: str = "cresnet32", *, channels: int = 3) -> None:
        super().__init__()
        if name not in CIFAR_RESNETS:
            raise UserError(f"encoder={name}: choose {', '.join(CIFAR_RESNETS)}")
        blocks = (int(name.removeprefix("cresnet")) - 2) // 6
        self.spec: dict[str, Any] = {"name": name, "channels": channels}
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        layers: list[nn.Module] = []
        for stage, width in enumerate((16, 32, 64)):
            for number in range(blocks):
                first = number == 0 and stage > 0
                layers.append(_Block(width // 2 if first else width, width, 2 if first else 1))
        self.stages = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def maps(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 64, H / 4, W / 4), before pooling."""
        return self.stages(self.stem(x))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 64)."""
        return self.maps(x).mean((2, 3))
