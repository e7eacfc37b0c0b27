"""A codebook of visual words, learnt by k-means from batches: the offline tokeniser of masked modelling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["Codebook"]

_SAMPLE = 20_000
"""Rows that a codebook begins from, at most."""


class Codebook(nn.Module):
    """K words of width D: a feature's word is the nearest one.

    Learnt by mini-batch k-means (Sculley 2010) from k-means++ seeds of the first batch: each word is the running mean
    of the rows that it was nearest to. It has no parameters, so that no optimiser moves it.

    Args:
        dim: D.
        words: K.

    Raises:
        UserError: fewer than one word or one number.
    """

    weight: Tensor
    counts: Tensor

    def __init__(self, dim: int, words: int) -> None:
        super().__init__()
        if dim < 1 or words < 1:
            raise UserError(f"a codebook of {words} words of width {dim}: both must be 1 or more")
        self.register_buffer("weight", torch.zeros(words, dim))
        self.register_buffer("counts", torch.zeros(words))

    @torch.no_grad()
    def forward(self, rows: Tensor) -> Tensor:
        """Numbers of the nearest words: (..., D) -> (...) int64."""
        flat = rows.detach().reshape(-1, self.weight.shape[1]).to(self.weight)
        scores = flat @ self.weight.T - self.weight.square().sum(1) / 2
        return scores.argmax(1).view(rows.shape[:-1])

    @torch.no_grad()
    def learn(self, rows: Tensor) -> Tensor:
        """Take in a batch (..., D): a round of mini-batch k-means; the mean squared distance to the nearest word.

        Raises:
            UserError: at first, fewer rows than words.
        """
        flat = rows.detach().reshape(-1, self.weight.shape[1]).to(self.weight)
        if not self.counts.any():
            self._seed(flat)
        nearest = self(flat)
        found = torch.bincount(nearest, minlength=len(self.counts)).to(self.counts)
        sums = torch.zeros_like(self.weight).index_add_(0, nearest, flat)
        self.counts += found
        share = (1 / self.counts.clamp_min(1))[:, None]
        self.weight += share * (sums - found[:, None] * self.weight)
        return (flat - self.weight[nearest]).square().sum(1).mean()

    def _seed(self, rows: Tensor) -> None:
        """k-means++: each next word is a row, drawn by its squared distance to the nearest word so far."""
        if len(rows) < len(self.weight):
            raise UserError(f"{len(self.weight)} words need as many patches in the first batch, it has {len(rows)}")
        rows = rows[torch.randperm(len(rows), device=rows.device)[:_SAMPLE]]
        distance = torch.full((len(rows),), torch.inf, device=rows.device)
        place = torch.randint(len(rows), (), device=rows.device)
        for word in range(len(self.weight)):
            self.weight[word] = rows[place]
            distance = torch.minimum(distance, (rows - rows[place]).square().sum(1))
            chances = distance if bool(distance.sum() > 0) else torch.ones_like(distance)
            place = torch.multinomial(chances, 1)[0]
