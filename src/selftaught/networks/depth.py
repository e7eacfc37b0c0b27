"""Depth from one picture and motion from two: Monodepth2's networks (ICCV 2019, arXiv 1806.01260).

An encoder gives maps from fine to coarse, the first at half the picture's size; a decoder turns them into sigmoid
disparities at several scales; a second encoder on two pictures, with a small head, gives the motion between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = [
    "DEPTH_ENCODERS",
    "DepthDecoder",
    "DepthNet",
    "EarlyMaps",
    "PoseDecoder",
    "PoseNet",
    "PyramidEncoder",
    "SmallPyramid",
    "check_multiple",
    "depth_encoder",
    "depth_net",
    "unit_normalised",
]

DEPTH_ENCODERS = ("small", "resnet18", "resnet34", "resnet50", "lite-mono-8m", "mpvit-small")
"""Encoders of depth networks; mpvit-small comes with MonoViT's HR decoder."""
_WIDTHS = (16, 32, 64, 128, 256)
_SMALL_WIDTHS = (8, 12, 16, 24, 32)


def unit_normalised(image: Tensor) -> Tensor:
    """A picture in [0, 1] as the networks take it: (x - 0.45) / 0.225."""
    return (image - 0.45) / 0.225


class EarlyMaps:
    """What the first stage of an encoder made: its last map, at a quarter of the picture's size, and the rest."""

    def __init__(self, feature: Tensor, state: Any) -> None:
        self.feature, self.state = feature, state


class PyramidEncoder(nn.Module):
    """Base of the encoders: pictures in [0, 1] to maps from fine to coarse.

    Attributes:
        channels: of the maps; the first is at half the picture's size, each further one at half of the last.
    """

    channels: tuple[int, ...]

    def early(self, image: Tensor) -> EarlyMaps:
        """The stages down to a quarter of the picture's size; a multi-frame encoder matches on their result."""
        raise TypeError(f"{type(self).__name__} has no early stages")

    def late(self, early: EarlyMaps, feature: Tensor | None = None) -> list[Tensor]:
        """All maps, made on from the early stages; ``feature`` takes the place of their last map."""
        raise TypeError(f"{type(self).__name__} has no late stages")

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps of pictures (N, C, H, W) in [0, 1], sides a multiple of the coarsest map's stride."""
        return self.late(self.early(image))


class ResNetPyramid(PyramidEncoder):
    """A ResNet of timm: maps at strides 2 to 32 (64, 64, 128, 256, 512 channels for 18 and 34 layers).

    Args:
        name: of timm.
        channels: of the picture.
        pretrained: start from ImageNet's weights; a first layer of several pictures has them divided among these.
    """

    def __init__(self, name: str = "resnet18", channels: int = 3, pretrained: bool = False) -> None:
        super().__init__()
        import timm

        try:
            net: Any = timm.create_model(name, features_only=True, in_chans=channels, pretrained=pretrained)
        except Exception as error:
            if not pretrained:
                raise
            raise UserError(f"pretrained weights of {name} can't be had ({error}); use pretrained=False") from error
        self.net: Any = net
        self.channels = tuple(net.feature_info.channels())

    def early(self, image: Tensor) -> EarlyMaps:
        """First convolution and first stage."""
        net = self.net
        first = net.act1(net.bn1(net.conv1(unit_normalised(image))))
        return EarlyMaps(net.layer1(net.maxpool(first)), first)

    def late(self, early: EarlyMaps, feature: Tensor | None = None) -> list[Tensor]:
        """Stages two to four."""
        maps = [early.state, early.feature if feature is None else feature]
        for stage in (self.net.layer2, self.net.layer3, self.net.layer4):
            maps.append(stage(maps[-1]))
        return maps


class SmallPyramid(PyramidEncoder):
    """Four strided convolutions, for small pictures and short runs on a laptop.

    Args:
        channels: of the picture.
        widths: of the maps.
    """

    def __init__(self, channels: int = 3, widths: Sequence[int] = (16, 24, 40, 64)) -> None:
        super().__init__()
        self.channels = tuple(widths)
        ins = (channels, *widths[:-1])
        self.stages = nn.ModuleList(_small_stage(a, b) for a, b in zip(ins, widths, strict=True))

    def early(self, image: Tensor) -> EarlyMaps:
        """The first two stages."""
        first = self.stages[0](unit_normalised(image))
        return EarlyMaps(self.stages[1](first), first)

    def late(self, early: EarlyMaps, feature: Tensor | None = None) -> list[Tensor]:
        """The other stages."""
        maps = [early.state, early.feature if feature is None else feature]
        for stage in list(self.stages)[2:]:
            maps.append(stage(maps[-1]))
        return maps


def _small_stage(a: int, b: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True),
        nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True),
    )  # fmt: skip


class ConvBlock(nn.Module):
    """Convolution 3 x 3 on a reflected border, then ELU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        return F.elu(self.conv(x), inplace=True)


def exact_sigmoid(head: nn.Module, x: Tensor) -> Tensor:
    """sigmoid(head(x)) in float32 whatever autocast says: bf16 would give disparity in steps of half a percent."""
    with torch.autocast(x.device.type, enabled=False):
        return torch.sigmoid(head(x.float()))


class DepthDecoder(nn.Module):
    """Monodepth2's decoder: convolution, twice the size, skip connection, convolution, at every level.

    Args:
        channels: of the encoder's maps, fine to coarse.
        scales: of the outputs; scale s is at 1 / 2^s of the picture's size.
        outputs: channels of each.
        widths: of the levels, the finest first.

    Raises:
        UserError: a scale that the levels don't reach.
    """

    def __init__(
        self,
        channels: Sequence[int],
        scales: Sequence[int] = (0, 1, 2, 3),
        outputs: int = 1,
        widths: Sequence[int] = _WIDTHS,
    ) -> None:
        super().__init__()
        levels = len(channels)
        if not set(scales) <= set(range(levels)) or len(widths) < levels:
            raise UserError(f"scales {tuple(scales)}: {levels} maps give scales 0 to {levels - 1}")
        self.scales = tuple(scales)
        self.before, self.after = nn.ModuleList(), nn.ModuleList()
        for i in range(levels):
            inputs = channels[-1] if i == levels - 1 else widths[i + 1]
            self.before.append(ConvBlock(inputs, widths[i]))
            self.after.append(ConvBlock(widths[i] + (channels[i - 1] if i > 0 else 0), widths[i]))
        heads = (nn.Conv2d(widths[s], outputs, 3, padding=1, padding_mode="reflect") for s in self.scales)
        self.heads = nn.ModuleDict({str(s): head for s, head in zip(self.scales, heads, strict=True)})

    def forward(self, maps: Sequence[Tensor]) -> dict[int, Tensor]:
        """Scale -> sigmoid output (N, outputs, H / 2^s, W / 2^s)."""
        x, found = maps[-1], {}
        for i in range(len(self.before) - 1, -1, -1):
            x = F.interpolate(self.before[i](x), scale_factor=2.0, mode="nearest")
            x = self.after[i](torch.cat((x, maps[i - 1]), 1) if i > 0 else x)
            if i in self.scales:
                found[i] = exact_sigmoid(self.heads[str(i)], x)
        return found


class DepthNet(nn.Module):
    """Encoder and decoder: a picture in [0, 1] to sigmoid disparities by scale.

    Args:
        encoder: of a picture's maps.
        decoder: of disparities.
    """

    def __init__(self, encoder: PyramidEncoder, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder: PyramidEncoder = encoder
        self.decoder = decoder

    @property
    def multiple(self) -> int:
        """What the sides of a picture must be a multiple of."""
        return int(2 ** len(self.encoder.channels))

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """(N, C, H, W) to scale -> (N, 1, H / 2^s, W / 2^s).

        Raises:
            UserError: sides that are no multiple of ``multiple``.
        """
        check_multiple(image, self.multiple)
        found: dict[int, Tensor] = self.decoder(self.encoder(image))
        return found


def check_multiple(image: Tensor, multiple: int) -> None:
    """Refuse a picture whose sides are no multiple of the coarsest map's stride.

    Raises:
        UserError: it names the next fitting size.
    """
    height, width = image.shape[-2:]
    if height % multiple or width % multiple or min(height, width) < 2 * multiple:
        fit = tuple(max(2, round(side / multiple)) * multiple for side in (height, width))
        raise UserError(
            f"pictures of {width}x{height}: sides must be multiples of {multiple} from {2 * multiple} on, such as "
            f"{fit[1]}x{fit[0]}"
        )


class PoseDecoder(nn.Module):
    """Motion out of the coarsest map: 1x1 to 256, twice 3x3, 1x1 to 6 numbers a slot, mean over places, times 0.01.

    Args:
        channels: of the coarsest map, or of several that are laid side by side after the first convolution.
        inputs: how many maps.
        slots: motions that are predicted (Monodepth2 makes two and uses the first).
        width: of the convolutions.
    """

    def __init__(self, channels: int, inputs: int = 1, slots: int = 2, width: int = 256) -> None:
        super().__init__()
        self.slots = slots
        self.squeeze = nn.Conv2d(channels, width, 1)
        self.first = nn.Conv2d(inputs * width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 6 * slots, 1)

    def forward(self, *maps: Tensor) -> tuple[Tensor, Tensor]:
        """Coarsest maps (N, C, h, w) to axis-angle and translation, each (N, slots, 3)."""
        with torch.autocast(maps[0].device.type, enabled=False):
            x = torch.cat([F.relu(self.squeeze(one.float())) for one in maps], 1)
            x = self.last(F.relu(self.second(F.relu(self.first(x)))))
            found = 0.01 * x.mean((2, 3)).view(-1, self.slots, 6)
        return found[..., :3], found[..., 3:]


class PoseNet(nn.Module):
    """Motion between two pictures in the order of time.

    Args:
        encoder: name, "small" or a ResNet; sees both pictures as one of twice the channels.
        channels: of one picture.
        pretrained: ImageNet's weights.
    """

    def __init__(self, encoder: str = "resnet18", channels: int = 3, pretrained: bool = False) -> None:
        super().__init__()
        self.encoder = depth_encoder(encoder, 2 * channels, pretrained)
        width = 256 if encoder != "small" else 64
        self.decoder = PoseDecoder(self.encoder.channels[-1], width=width)

    def forward(self, earlier: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
        """Two pictures (N, C, H, W) in [0, 1] to axis-angle and translation (N, 2, 3), of which row 0 is used."""
        found: tuple[Tensor, Tensor] = self.decoder(self.encoder(torch.cat((earlier, later), 1))[-1])
        return found

    def coarsest(self, earlier: Tensor, later: Tensor) -> Tensor:
        """The coarsest map, for a head that learns the camera's intrinsics."""
        return self.encoder(torch.cat((earlier, later), 1))[-1]


def depth_encoder(name: str = "resnet18", channels: int = 3, pretrained: bool = False) -> PyramidEncoder:
    """An encoder of maps from fine to coarse.

    Args:
        name: one of ``DEPTH_ENCODERS``.
        channels: of the picture.
        pretrained: ImageNet's weights (ResNets).

    Raises:
        UserError: an unknown name; pretrained where there are no weights to be had.
    """
    if name not in DEPTH_ENCODERS:
        raise UserError(f"encoder={name}: choose {', '.join(DEPTH_ENCODERS)} for depth")
    if name.startswith("resnet"):
        return ResNetPyramid(name, channels, pretrained)
    if pretrained:
        raise UserError(f"encoder={name}: no pretrained weights can be had; use pretrained=False or a ResNet")
    if name == "small":
        return SmallPyramid(channels)
    if name == "lite-mono-8m":
        from selftaught.networks.lite_mono import LiteMono

        return LiteMono(channels)
    from selftaught.networks.mpvit import MPViT

    return MPViT(channels)


def depth_net(
    name: str = "resnet18", channels: int = 3, pretrained: bool = False, scales: Sequence[int] | None = None
) -> DepthNet:
    """A depth network: Monodepth2's decoder on an encoder, MonoViT's HR decoder on mpvit-small.

    Args:
        name: one of ``DEPTH_ENCODERS``.
        channels: of the picture.
        pretrained: ImageNet's weights (ResNets).
        scales: of the disparities; None: 0 to 3, or 0 to 2 where the encoder has four maps.
    """
    encoder = depth_encoder(name, channels, pretrained)
    wanted = tuple(range(min(4, len(encoder.channels) - 1))) if scales is None else tuple(scales)
    if name == "mpvit-small":
        from selftaught.networks.mpvit import HRDecoder

        return DepthNet(encoder, HRDecoder(encoder.channels, wanted))
    return DepthNet(encoder, DepthDecoder(encoder.channels, wanted, widths=small_widths(name)))


def small_widths(encoder: str) -> tuple[int, ...]:
    """Widths of a decoder for an encoder of that name: narrow ones for "small"."""
    return _SMALL_WIDTHS if encoder == "small" else _WIDTHS
