"""Baselines of ColloSSL that learn from one device alone without labels: transformations told apart, an autoencoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from selftaught import networks
from selftaught.views.series import jitter, permutation, rotation, scaling, time_warp

__all__ = ["TRANSFORMATIONS", "Reconstruction", "Transformations"]


def _shuffled(x: Tensor) -> Tensor:
    """Every window's channels in an order of its own that is not the one they have."""
    channels = x.shape[1]
    order = torch.rand(len(x), channels, device=x.device).argsort(1)
    same = (order == torch.arange(channels, device=x.device)).all(1)
    order[same] = order[same].roll(1, 1)
    return x.gather(1, order[:, :, None].expand_as(x))


def _permuted(x: Tensor) -> Tensor:
    """Segments of every window in another order; one that was drawn to stay as it is has its halves exchanged."""
    made = permutation(x)
    same = (made == x).all(2).all(1)
    made[same] = x[same].roll(x.shape[2] // 2, 2)
    return made


TRANSFORMATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "noise": lambda x: jitter(x, 0.05),
    "scaling": lambda x: scaling(x, 0.1),
    "rotation": rotation,
    "negation": lambda x: -x,
    "time flip": lambda x: x.flip(2),
    "permutation": _permuted,
    "time warp": time_warp,
    "channel shuffle": _shuffled,
}
"""Of windows (N, C, T), as Saeed et al. name them."""


class Transformations(nn.Module):
    """Multi-task self-supervision (Saeed, Ozcelebi and Lukkien, IMWUT 3(2), 2019): was this done to the window?

    A task for each of the eight `TRANSFORMATIONS`, on one encoder: a head of 256 units says whether a window, of which
    every second one is changed, is as it was. The loss is the mean of the tasks' binary cross-entropies.

    Args:
        dim: D of the encoder's features.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            networks.mlp([dim, 256, 1], norm="none", hidden_bias=True, out_bias=True) for _ in TRANSFORMATIONS
        )

    def forward(self, encoder: nn.Module, x: Tensor) -> dict[str, Tensor]:
        """Windows (N, C, T) to ``loss`` and ``accuracy`` over all tasks."""
        changed = torch.rand(len(TRANSFORMATIONS), len(x), device=x.device).argsort(1) % 2 == 0
        shown = [
            torch.where(c[:, None, None], change(x), x)
            for c, change in zip(changed, TRANSFORMATIONS.values(), strict=True)
        ]
        features = encoder(torch.cat(shown)).chunk(len(shown))
        logits = torch.stack([head(z).squeeze(1) for head, z in zip(self.heads, features, strict=True)]).float()
        right = ((logits > 0) == changed).float().mean()
        return {"loss": binary_cross_entropy_with_logits(logits, changed.float()), "accuracy": right}


class Reconstruction(nn.Module):
    """An autoencoder: the window from its features, through 256 units; the loss is the mean squared error.

    Args:
        dim: D of the encoder's features.
        channels: C of a window.
        length: T of a window.
    """

    def __init__(self, dim: int, channels: int, length: int) -> None:
        super().__init__()
        self.channels = channels
        self.decoder = networks.mlp([dim, 256, channels * length], norm="none", hidden_bias=True, out_bias=True)

    def forward(self, encoder: nn.Module, x: Tensor) -> dict[str, Tensor]:
        """Windows (N, C, T) to ``loss``."""
        made = self.decoder(encoder(x)).unflatten(1, (self.channels, -1)).float()
        return {"loss": mse_loss(made, x)}
