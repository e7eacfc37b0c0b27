"""ESPCN (Shi et al., CVPR 2016, arXiv 1609.05158): all convolutions at low resolution, then one PixelShuffle."""

from __future__ import annotations

from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["ESPCN"]


class ESPCN(nn.Module):
    """Efficient sub-pixel convolution: 5x5 conv, tanh, 3x3 conv, tanh, 3x3 conv to C r^2 channels, PixelShuffle(r).

    Args:
        channels: of the images; the authors enlarge the luminance alone, here all channels together.
        scale: whole factor r.
        features: channels of the two inner layers.

    Raises:
        UserError: a factor below 1.
    """

    def __init__(self, channels: int = 3, *, scale: int = 4, features: tuple[int, int] = (64, 32)) -> None:
        super().__init__()
        if scale < 1:
            raise UserError(f"scale={scale}: images are enlarged by a whole factor of at least 1")
        self.scale = scale
        self.layers = nn.Sequential(
            nn.Conv2d(channels, features[0], 5, padding=2),
            nn.Tanh(),
            nn.Conv2d(features[0], features[1], 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(features[1], channels * scale * scale, 3, padding=1),
            nn.PixelShuffle(scale),
        )

    def forward(self, low: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to (N, C, scale * H, scale * W) in about that range."""
        return self.layers(low)

    def receptive_radius(self) -> int:
        """Input pixels that an output looks away in every direction."""
        return 4
