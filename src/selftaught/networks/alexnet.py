"""The small AlexNet on which alignment-and-uniformity and CACR compare losses at 32 pixels (arXiv 2005.10242)."""

from __future__ import annotations

from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["SmallAlexNet"]

SMALL_ALEXNET = "alexnet-small"
ABOUT = "five convolutions, two wide layers, 4096 features, 27 M parameters; CACR's network for small images"
SMALLEST = 15  # pixels: a last map of 1 x 1
_BLOCKS = ((96, True), (192, True), (384, False), (384, False), (192, True))
_WIDE = 4096


class SmallAlexNet(nn.Sequential):
    """Five 3x3 convolutions without bias, each with BatchNorm and ReLU; 3/2 max-pooling after the 1st, 2nd and 5th; two
    wide layers without bias, with BatchNorm and ReLU. Weights start from N(0, 0.02).

    (N, C, H, W) to (N, 4096), the second wide layer ("fc7"); the paper's 128 outputs are the projector's one Linear.
    """

    num_features = _WIDE

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map (N, 192, h, w), pooled."""
        for layer in self[: _first_wide(self)]:
            x = layer(x)
        return x

    def forward_head(self, features: Tensor) -> Tensor:
        """The embedding of such a map."""
        for layer in self[_first_wide(self) :]:
            features = layer(features)
        return features


def small_alexnet(channels: int, image_size: int | None = None) -> tuple[nn.Module, list[str]]:
    """Build the network.

    Args:
        channels: channels of the image.
        image_size: side that the wide layers are built for (default 32: a map of 3 x 3); maps of others are averaged.

    Returns:
        The module, and the line of Python that builds an equal one with torch alone.

    Raises:
        UserError: images below 15 pixels.
    """
    side = image_size or 32
    if side < SMALLEST:
        raise UserError(f"image_size={side} is too small for {SMALL_ALEXNET}: use {SMALLEST} or more")
    layers: list[nn.Module] = []
    for width, pooled in _BLOCKS:
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
        if pooled:
            layers.append(nn.MaxPool2d(3, 2))
            side = (side - 3) // 2 + 1
    layers += [nn.AdaptiveAvgPool2d(side), nn.Flatten()]
    for width in (channels * side**2, _WIDE):
        layers += [nn.Linear(width, _WIDE, bias=False), nn.BatchNorm1d(_WIDE), nn.ReLU()]
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.02)
    return SmallAlexNet(*layers), [f"model = torch.nn.Sequential({', '.join(map(_written, layers))})"]


def _first_wide(layers: nn.Sequential) -> int:
    return next(i for i, layer in enumerate(layers) if isinstance(layer, nn.AdaptiveAvgPool2d))


def _written(layer: nn.Module) -> str:
    """A layer as a line of Python makes it."""
    if isinstance(layer, nn.Conv2d):
        return f"torch.nn.Conv2d({layer.in_channels}, {layer.out_channels}, 3, padding=1, bias=False)"
    if isinstance(layer, nn.Linear):
        return f"torch.nn.Linear({layer.in_features}, {layer.out_features}, bias=False)"
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        return f"torch.nn.{type(layer).__name__}({layer.num_features})"
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return f"torch.nn.AdaptiveAvgPool2d({layer.output_size})"
    return f"torch.nn.{type(layer).__name__}({'3, 2' if isinstance(layer, nn.MaxPool2d) else ''})"
