"""What DADeblur delivers: a deblurrer of windows of five frames as one of whole clips."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

__all__ = ["VideoDeblurrer"]


class VideoDeblurrer(nn.Module):
    """A video deblurrer between clips in [0, 1].

    Args:
        network: (N, T, C, H, W), shifted to [-0.5, 0.5], to T - 4 frames.
        magnitude: the magnitude estimator, which comes along for the adaptation.
        noise: the noise predictor of the blurring model, likewise; None where a path blurs.

    Attributes:
        reach: frames that a frame looks to each side.
        chunk: frames that go through at a time.
        receptive_radius: pixels by which tiles overlap.
    """

    reach, chunk, receptive_radius = 2, 8, 32

    def __init__(self, network: Any, magnitude: nn.Module, noise: nn.Module | None) -> None:
        super().__init__()
        self.network, self.magnitude, self.noise = network, magnitude, noise

    def forward(self, clip: Tensor) -> Tensor:
        """(N, C, T, H, W) to the same; the first and the last frame stand for those beyond, borders likewise."""
        height, width = clip.shape[3:]
        multiple = int(self.network.multiple)
        x = clip.transpose(1, 2) - 0.5
        x = torch.cat((x[:, :1], x[:, :1], x, x[:, -1:], x[:, -1:]), 1)
        edges = (0, -width % multiple, 0, -height % multiple)
        x = pad(x.flatten(0, 1), edges, mode="replicate").unflatten(0, x.shape[:2])
        windows = [self.network(x[:, t : t + 2 * self.reach + 1])[:, 0] for t in range(clip.shape[2])]
        made = torch.stack(windows, 2)[..., :height, :width]
        return made.clamp(-0.5, 0.5) + 0.5
