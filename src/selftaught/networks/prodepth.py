"""ProDepth's networks: a single-frame network with uncertainty, and a multi-frame one on a modulated cost volume.

single    depth network and a second decoder for sigma; frozen in the second stage
matching  encoder's first stage on both frames -> cost volume; a decoder of its own reads the raw one (``aux``)
multi     first stage's features and modulated costs -> the other stages -> disparities
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.networks.cost_volume import (
    Modulation,
    Spacing,
    cost_volume,
    depth_bins,
    fill_missing,
    modulate_cost_volume,
    single_frame_distribution,
    static_weight,
)
from selftaught.networks.depth import ConvBlock, DepthDecoder, PoseNet, depth_encoder, depth_net, small_widths
from selftaught.networks.projection import disparity_to_depth, intrinsics_matrix, pose_matrix

__all__ = ["CostDecoder", "Matched", "MultiFrameNet", "SingleFrameNet"]


class SingleFrameNet(nn.Module):
    """Depth of one picture, and how uncertain it is: sigma = scale times a second decoder's sigmoid.

    Args:
        encoder: name, see ``DEPTH_ENCODERS``.
        channels: of the picture.
        pretrained: ImageNet's weights.
        scales: of the disparities.
        sigma_scale: largest deviation, in depth (default 20).
    """

    def __init__(
        self,
        encoder: str = "lite-mono-8m",
        channels: int = 3,
        pretrained: bool = False,
        scales: tuple[int, ...] = (0, 1, 2),
        sigma_scale: float = 20.0,
    ) -> None:
        super().__init__()
        self.depth = depth_net(encoder, channels, pretrained, scales)
        self.uncertainty = DepthDecoder(self.depth.encoder.channels, scales, widths=small_widths(encoder))
        self.sigma_scale = sigma_scale

    def forward(self, image: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """(N, C, H, W) in [0, 1] to disparities by scale, and sigma (N, 1, H, W)."""
        maps = self.depth.encoder(image)
        return self.depth.decoder(maps), self.sigma_scale * self.uncertainty(maps)[0]


class CostDecoder(nn.Module):
    """Disparity out of the raw cost volume, for what moves shows there: its own encoder, whose first stage is replaced.

    Args:
        encoder: name.
        channels: of the picture.
        bins: of the volume.
    """

    def __init__(self, encoder: str, channels: int, bins: int) -> None:
        super().__init__()
        self.encoder = depth_encoder(encoder, channels)
        width = self.encoder.channels[1]
        self.join = ConvBlock(width + bins, width)
        self.decoder = DepthDecoder(self.encoder.channels, (0,), widths=small_widths(encoder))

    def forward(self, image: Tensor, features: Tensor, volume: Tensor) -> Tensor:
        """Picture, the multi-frame encoder's features and the raw volume, both detached -> sigmoid (N, 1, H, W)."""
        joined = self.join(torch.cat((features.detach(), volume.detach()), 1))
        found: Tensor = self.decoder(self.encoder.late(self.encoder.early(image), joined))[0]
        return found


@dataclass
class Matched:
    """What the multi-frame network found.

    Attributes:
        disparities: sigmoid, by scale.
        aux: of the raw cost volume, sigmoid (N, 1, H, W).
        volume: filled raw costs (N, D, h, w).
        modulated: what replaced them.
    """

    disparities: dict[int, Tensor]
    aux: Tensor
    volume: Tensor
    modulated: Tensor


class MultiFrameNet(nn.Module):
    """Depth of a frame and the one before, with the single-frame and pose networks that it needs.

    Args:
        encoder: name, of all three encoders.
        pose_encoder: of the motion.
        channels: of a picture.
        pretrained: ImageNet's weights.
        scales: of the disparities.
        bins: of the cost volume.
        spacing: of the bins.
        modulation: none (ManyDepth's volume), hard or full.
        threshold: above which a pixel counts as static.
        decay: of the weight with the disagreement.
        sigma_scale: see :class:`SingleFrameNet`.
        depths: smallest and largest depth.

    Attributes:
        matches: whether the multi-frame part has been trained; a method sets it.
    """

    low: Tensor
    high: Tensor
    matches: Tensor
    shares: Tensor

    def __init__(
        self,
        encoder: str = "lite-mono-8m",
        pose_encoder: str = "resnet18",
        channels: int = 3,
        *,
        pretrained: bool = False,
        scales: tuple[int, ...] = (0, 1, 2),
        bins: int = 128,
        spacing: Spacing = "sid",
        modulation: Modulation = "full",
        threshold: float = 0.4,
        decay: float = 2 / 3,
        sigma_scale: float = 20.0,
        depths: tuple[float, float] = (0.1, 100.0),
    ) -> None:
        super().__init__()
        self.bins, self.spacing, self.modulation = bins, spacing, modulation
        self.threshold, self.decay, self.depths = threshold, decay, depths
        self.single = SingleFrameNet(encoder, channels, pretrained, scales, sigma_scale)
        self.pose = PoseNet(pose_encoder, channels, pretrained)
        self.encoder = depth_encoder(encoder, channels, pretrained and encoder.startswith("resnet"))
        width = self.encoder.channels[1]
        self.reduce = nn.Sequential(nn.Conv2d(width + bins, width, 3, padding=1), nn.ReLU(inplace=True))
        self.decoder = DepthDecoder(self.encoder.channels, scales, widths=small_widths(encoder))
        self.aux = CostDecoder(encoder, channels, bins)
        self.register_buffer("matches", torch.tensor(False))
        self.register_buffer("low", torch.tensor(0.1))
        self.register_buffer("high", torch.tensor(10.0))
        self.register_buffer("shares", torch.tensor([0.58, 1.92, 0.5, 0.5]))

    def depth_of(self, disparity: Tensor) -> Tensor:
        """Depth of a sigmoid's output."""
        return disparity_to_depth(disparity, *self.depths)[1]

    def teacher(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Sigmoid disparity and sigma of the single frame, both (N, 1, H, W), without gradient."""
        with torch.no_grad():
            disparities, sigma = self.single(image)
        return disparities[0], sigma

    def weight(self, aux: Tensor, single: Tensor) -> Tensor:
        """w of sigmoid disparities (N, 1, h, w), without gradient."""
        return static_weight(self.depth_of(aux.detach()), self.depth_of(single.detach()), self.decay)

    def match(
        self, target: Tensor, lookup: Tensor, transforms: Tensor, shares: Tensor, single: Tensor, sigma: Tensor
    ) -> Matched:
        """Depth of the target, matched with other frames.

        Args:
            target: (N, C, H, W) in [0, 1].
            lookup: (F, N, C, H, W).
            transforms: (F, N, 4, 4), all zero for a frame that is missing.
            shares: intrinsics (N, 4).
            single: sigmoid disparity of the single-frame network (N, 1, H, W).
            sigma: its deviation.
        """
        early = self.encoder.early(target)
        features = early.feature
        with torch.no_grad():
            others = self.encoder.early(lookup.flatten(0, 1)).feature.unflatten(0, lookup.shape[:2])
        camera = intrinsics_matrix(shares, *features.shape[2:])
        bins = depth_bins(self.low, self.high, self.bins, self.spacing).to(features.device)
        raw = cost_volume(features.detach(), others, transforms.detach(), camera.detach(), bins)
        filled = fill_missing(raw)
        aux = self.aux(target, features, raw)
        size = features.shape[2:]
        small, near, wide = (_small(x, size) for x in (single, aux.detach(), sigma))
        prior = single_frame_distribution(bins, self.depth_of(small), wide)
        modulated = modulate_cost_volume(
            filled, prior, self.weight(near, small), threshold=self.threshold, modulation=self.modulation
        )
        reduced = self.reduce(torch.cat((features, modulated), 1))
        return Matched(self.decoder(self.encoder.late(early, reduced)), aux, filled, modulated)

    def forward(self, pair: Tensor, shares: Tensor | None = None, *, alone: bool = False) -> Tensor:
        """1 / depth (N, 1, H, W) of the later of two frames (N, 2 C, H, W): the one before, then the frame.

        Args:
            pair: in [0, 1].
            shares: intrinsics (N, 4); None takes those of the buffer ``shares``.
            alone: whether the frame before is left out, so that the cost volume is empty.
        """
        before, target = pair.chunk(2, 1)
        angle, shift = self.pose(before, target)
        transform = pose_matrix(angle[:, 0], shift[:, 0], invert=True) * (0.0 if alone else 1.0)
        known = self.shares.expand(pair.shape[0], 4) if shares is None else shares
        single, sigma = self.teacher(target)
        found = self.match(target, before[None], transform[None], known, single, sigma)
        return disparity_to_depth(found.disparities[0], *self.depths)[0]


def _small(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
