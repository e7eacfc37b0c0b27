"""SRCNN (Dong et al., TPAMI 2016, arXiv 1501.00092): three convolutions on the bicubic enlargement."""

from __future__ import annotations

from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.upsampling import BicubicUpsample

__all__ = ["SRCNN"]


class SRCNN(nn.Module):
    """Patch extraction, non-linear mapping, reconstruction; 8,032 weights and 97 biases for one channel.

    Args:
        channels: of the images; the authors enlarge the luminance alone, here all channels together.
        scale: whole factor.
        kernels: sides of the three kernels, odd; the authors' 9-1-5, or 9-3-5 and 9-5-5.
        features: channels of the two inner layers.

    Raises:
        UserError: an even kernel, or not three of them.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        scale: int = 4,
        kernels: tuple[int, int, int] = (9, 1, 5),
        features: tuple[int, int] = (64, 32),
    ) -> None:
        super().__init__()
        if len(kernels) != 3 or any(k < 1 or k % 2 == 0 for k in kernels):
            raise UserError(f"kernels={kernels}: SRCNN has three odd kernels, such as 9, 1, 5")
        self.scale = scale
        self.bicubic = BicubicUpsample(scale)
        first, second, third = kernels
        self.layers = nn.Sequential(
            nn.Conv2d(channels, features[0], first, padding=first // 2),
            nn.ReLU(),
            nn.Conv2d(features[0], features[1], second, padding=second // 2),
            nn.ReLU(),
            nn.Conv2d(features[1], channels, third, padding=third // 2),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=1e-3)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self._reach = sum(k // 2 for k in kernels)

    def forward(self, low: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to (N, C, scale * H, scale * W) in about that range."""
        return self.layers(self.bicubic(low))

    def receptive_radius(self) -> int:
        """Input pixels that an output looks away in every direction."""
        return 2 + -(-self._reach // self.scale)
