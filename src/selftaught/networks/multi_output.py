"""Several answers of one restoration network (Liu et al., 2022, arXiv 2208.13029): heads and their pairwise means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.errors import UserError
from selftaught.networks.tiling import tiled

__all__ = [
    "HeadChoice",
    "ResidualHeads",
    "add_heads",
    "combined_count",
    "combined_heads",
    "head_pairs",
    "head_weights",
    "mixed_heads",
]


def head_pairs(heads: int) -> list[tuple[int, int]]:
    """Which stored heads each combined one is the mean of: (0,0), (1,0), (1,1), (2,0), ...

    >>> head_pairs(3)
    [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    """
    return [(i, j) for i in range(heads) for j in range(i + 1)]


def combined_count(heads: int) -> int:
    """K (K + 1) / 2 outputs of K stored heads."""
    return heads * (heads + 1) // 2


def combined_heads(heads: Tensor) -> Tensor:
    """All unordered pairs of heads with repetition, h_(i,j) = (r_i + r_j) / 2, in the order of :func:`head_pairs`.

    Args:
        heads: (N, K, ...).

    Returns:
        (N, K (K + 1) / 2, ...); no parameters are added, the diagonal holds the heads themselves.

    Raises:
        UserError: no heads.
    """
    if heads.ndim < 2 or heads.shape[1] < 1:
        raise UserError(f"heads are (N, K, ...), K of 1 or more, got {tuple(heads.shape)}")
    if heads.shape[1] == 1:
        return heads
    pairs = torch.tensor(head_pairs(heads.shape[1]), device=heads.device)
    return (heads[:, pairs[:, 0]] + heads[:, pairs[:, 1]]) / 2


def add_heads(image: Tensor, residuals: Tensor, *, combine: bool = True) -> Tensor:
    """y_h = image + r_h: residual heads, first combined in pairs where asked for, on the image itself.

    Args:
        image: (N, C, H, W).
        residuals: (N, K, C, H, W).
        combine: pairs of heads as well.
    """
    return image[:, None] + (combined_heads(residuals) if combine else residuals)


def head_weights(heads: int, choice: Tensor, *, combine: bool = True) -> Tensor:
    """What each of K stored heads counts in one output, (K,): head ``choice`` of all (:func:`combined_heads` where
    they are combined), or below 0 the mean of all.

    >>> head_weights(3, torch.tensor(1)).tolist()
    [0.5, 0.5, 0.0]
    """
    every = torch.eye(heads, device=choice.device)
    every = combined_heads(every.T[None])[0] if combine else every
    chosen = every.index_select(0, choice.clamp_min(0).reshape(1))[0]
    return torch.where(choice < 0, every.mean(0), chosen)


def mixed_heads(image: Tensor, residuals: Tensor, weights: Tensor) -> Tensor:
    """One image (N, C, H, W): the mean of residual heads (N, K, C, H, W) by weights (K,), on the image itself."""
    return image + (residuals * weights.to(residuals.dtype).reshape(-1, 1, 1, 1)).sum(1)


class ResidualHeads(nn.Module, ABC):
    """A network whose one pass gives the residual images of K heads, for images of any size.

    What is built on it defines :meth:`residuals` and says what follows.

    Attributes:
        heads: K.
        combine: whether the output has all pairwise means of the heads (:func:`combined_heads`).
        multiple: what the sides that :meth:`residuals` takes are multiples of.
        padding: how images are brought to such sides, at the bottom and on the right; what is added is cut off again.
    """

    heads: int
    combine: bool
    multiple: int
    padding: Literal["constant", "replicate"] = "constant"

    @abstractmethod
    def residuals(self, x: Tensor) -> Tensor:
        """(N, C, H, W), sides that fit, to (N, heads, C, H, W)."""

    def stages(self, blurred: Tensor) -> list[Tensor]:
        """All outputs that a loss looks at, each (N, heads, C, H, W): here one."""
        return [self(blurred)]

    def forward(self, blurred: Tensor) -> Tensor:
        """(N, C, H, W) of any size to the images of all heads, (N, heads, C, H, W)."""
        return add_heads(blurred, self._cropped(blurred), combine=self.combine)

    def mixed(self, blurred: Tensor, choice: Tensor) -> Tensor:
        """The image (N, C, H, W) of one head by its number, or below 0 the mean of all."""
        weights = head_weights(self.heads, choice, combine=self.combine)
        return mixed_heads(blurred, self._cropped(blurred), weights)

    def _cropped(self, blurred: Tensor) -> Tensor:
        """The residuals of an image of any size."""
        height, width = blurred.shape[-2:]
        more = (0, (-width) % self.multiple, 0, (-height) % self.multiple)
        return self.residuals(F.pad(blurred, more, mode=self.padding))[..., :height, :width]


@runtime_checkable
class _Mixing(Protocol):
    def mixed(self, image: Tensor, choice: Tensor) -> Tensor: ...


class HeadChoice(nn.Module):
    """One image of the heads of a network, clipped to [0, 1].

    Args:
        network: (N, C, H, W) to (N, heads, C, H, W). One that mixes its heads by itself, ``mixed(image, choice)``, does
            so, which saves the images of all others.
        choice: number of the head, -1 for their mean.
        context: pixels that tiles of large images overlap by.
    """

    choice: Tensor

    def __init__(self, network: nn.Module, choice: int = 0, *, context: int = 64) -> None:
        super().__init__()
        self.network, self.context = network, context
        self.register_buffer("choice", torch.tensor(choice))

    def forward(self, image: Tensor, tile: int = 0) -> Tensor:
        """(N, C, H, W) to the same; ``tile`` is the largest side of one pass, 0 for no bound."""
        if tile and max(image.shape[-2:]) > tile:
            return tiled(self._one, image, tile=max(tile, 4 * self.context), overlap=self.context)
        return self._one(image)

    def _one(self, image: Tensor) -> Tensor:
        if isinstance(self.network, _Mixing):
            return self.network.mixed(image, self.choice).clamp(0, 1)
        made = self.network(image)
        chosen = made.index_select(1, self.choice.clamp_min(0).reshape(1))[:, 0]
        return torch.where(self.choice < 0, made.mean(1), chosen).clamp(0, 1)
