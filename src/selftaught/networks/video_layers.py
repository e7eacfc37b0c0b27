"""What convolutional networks of clips share: the trunk in named stages, pooling, and what describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["VideoNetwork"]


class VideoNetwork(nn.Module):
    """An encoder of clips: stages one after the other, then the mean over time and place. Made by `video_network`.

    Args:
        stages: name -> module, in order; each takes and gives (N, F, T, h, w).
        dim: channels D of the last stage.
        spec: JSON-able description; `video_network` makes an equal network from it.

    Attributes:
        stages: the modules by name.
        dim: size D of the embedding.
        spec: as given.
    """

    def __init__(self, stages: Mapping[str, nn.Module], dim: int, spec: dict[str, Any]) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.dim, self.spec = dim, spec

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, D)."""
        return self.maps(x).mean((2, 3, 4))

    def maps(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, D, t, h, w): the last stage, before pooling."""
        for stage in self.stages.values():
            x = stage(x)
        return x

    def layers(self, x: Tensor) -> dict[str, Tensor]:
        """The output of every stage, averaged over time and place: name -> (N, F)."""
        found = {}
        for name, stage in self.stages.items():
            x = stage(x)
            found[name] = x.mean((2, 3, 4))
        return found
