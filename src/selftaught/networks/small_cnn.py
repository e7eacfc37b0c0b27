"""The two-layer network on which LAF forgets digits and clothes (arXiv 2404.00506): 256 features."""

from __future__ import annotations

from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["SmallCNN", "small_cnn"]

SMALL_CNN = "cnn-small"
ABOUT = "two 5x5 convolutions and one wide layer, 256 features, 0.4 M parameters at 28 pixels; LAF's for small images"
_SMALLEST = 4


class SmallCNN(nn.Sequential):
    """Twice a 5x5 convolution (16, then 32 channels), ReLU and 2x2 max-pooling; then a Linear without activation.

    (N, C, H, W) to (N, 256).
    """

    num_features = 256

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map (N, 32, H / 4, W / 4)."""
        for layer in self[:6]:
            x = layer(x)
        return x

    def forward_head(self, features: Tensor) -> Tensor:
        """The embedding of such a map."""
        for layer in self[6:]:
            features = layer(features)
        return features


def small_cnn(channels: int, image_size: int | None = None) -> tuple[nn.Module, list[str]]:
    """Build the network.

    Args:
        channels: channels of the image.
        image_size: side that the Linear is built for (default 28: a map of 7 x 7); maps of others are averaged.

    Returns:
        The module, and the line of Python that builds an equal one with torch alone.

    Raises:
        UserError: images below 4 pixels.
    """
    side = image_size or 28
    if side < _SMALLEST:
        raise UserError(f"image_size={side} is too small for {SMALL_CNN}: use {_SMALLEST} or more")
    side //= 4
    line = (
        f"torch.nn.Sequential(torch.nn.Conv2d({channels}, 16, 5, padding=2), torch.nn.ReLU(), torch.nn.MaxPool2d(2), "
        "torch.nn.Conv2d(16, 32, 5, padding=2), torch.nn.ReLU(), torch.nn.MaxPool2d(2), "
        f"torch.nn.AdaptiveAvgPool2d({side}), torch.nn.Flatten(), torch.nn.Linear({32 * side**2}, 256))"
    )
    model = SmallCNN(
        nn.Conv2d(channels, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(side), nn.Flatten(), nn.Linear(32 * side**2, 256),
    )  # fmt: skip
    return model, [f"model = {line}"]
