"""A small variational autoencoder of embeddings: what a set of samples looks like to an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["Coded", "EmbeddingVAE"]


class Coded(NamedTuple):
    """What the autoencoder makes of a batch.

    Attributes:
        reconstruction: (N, D).
        z: (N, L) the code that was decoded, mu + sigma * noise.
        mean: (N, L), mu.
        log_variance: (N, L), log sigma^2.
    """

    reconstruction: Tensor
    z: Tensor
    mean: Tensor
    log_variance: Tensor


class EmbeddingVAE(nn.Module):
    """Fully connected encoder and decoder with a normal code between (as in LAF, arXiv 2404.00506).

        D -> 128 -> 32 (ReLU after each) -> mu, log sigma^2 (L)      z = mu + sigma * noise
        L -> 32 -> 128 (ReLU after each) -> D -> sigmoid

    Args:
        dim: D, width of the embeddings.
        latent: L, width of the code.
        hidden: widths between, from the embedding to the code; the decoder has them in reverse.
        output: ``"sigmoid"`` bounds reconstructions to (0, 1) although embeddings aren't, as the paper's code does;
            ``"linear"`` reaches any value.

    Raises:
        UserError: a width below 1, or another output.
    """

    def __init__(
        self,
        dim: int,
        latent: int = 8,
        *,
        hidden: Sequence[int] = (128, 32),
        output: Literal["sigmoid", "linear"] = "sigmoid",
    ) -> None:
        super().__init__()
        if min(dim, latent, *hidden) < 1 or not hidden:
            raise UserError(f"a VAE needs widths of at least 1, got dim={dim}, latent={latent}, hidden={tuple(hidden)}")
        if output not in ("sigmoid", "linear"):
            raise UserError(f"output must be sigmoid or linear; got {output!r}")
        self.dim, self.latent, self.output = dim, latent, output
        self.encoder = _layers([dim, *hidden])
        self.mean = nn.Linear(hidden[-1], latent)
        self.log_variance = nn.Linear(hidden[-1], latent)
        self.decoder = nn.Sequential(*_layers([latent, *reversed(hidden)]), nn.Linear(hidden[0], dim))

    def forward(self, e: Tensor, noise: Tensor | None = None) -> Coded:
        """Code and decode a batch; the code is drawn in evaluation mode too.

        Args:
            e: (N, D) embeddings.
            noise: (N, L) standard normal; None draws it from torch's own generator, zeros decode the mean.

        Raises:
            UserError: embeddings or noise of another shape.
        """
        if e.dim() != 2 or e.shape[1] != self.dim:
            raise UserError(f"this VAE takes (batch, {self.dim}) embeddings, got {tuple(e.shape)}")
        x = self.encoder(e)
        mean, log_variance = self.mean(x), self.log_variance(x)
        noise = torch.randn_like(mean) if noise is None else noise
        if noise.shape != mean.shape:
            raise UserError(f"noise must be {tuple(mean.shape)}, got {tuple(noise.shape)}")
        z = mean + (0.5 * log_variance).exp() * noise
        found = self.decoder(z)
        return Coded(found.sigmoid() if self.output == "sigmoid" else found, z, mean, log_variance)


def _layers(widths: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(*(layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())))
