"""The direction of the foreground from sums over tokens, so that many images need no memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class TokenSums:
    """Sums over the tokens (N, P, C) of many images: count, mean token of each place, second moments; float64."""

    def __init__(self) -> None:
        self.images = 0
        self.grid: Sequence[int] = (0, 0)
        self._places, self._moments = torch.zeros(0), torch.zeros(0)

    def add(self, tokens: Tensor, grid: Sequence[int]) -> None:
        """Take in the tokens of further images, in raster order on a grid of these rows and columns."""
        flat = tokens.double()
        places, rows = flat.sum(0), flat.flatten(0, 1)
        moments = rows.T @ rows
        self._places, self._moments = (
            (self._places + places, self._moments + moments) if self.images else (places, moments)
        )
        self.images, self.grid = self.images + len(tokens), grid

    def direction(self) -> Tensor:
        """v (C,) float64: the covariance's first eigenvector, its sign such that centres score above borders."""
        rows, columns = self.grid
        means = self._places / self.images
        mean = means.mean(0)
        covariance = self._moments / (self.images * len(means)) - torch.outer(mean, mean)
        v = torch.linalg.eigh(covariance).eigenvectors[:, -1]
        y = torch.arange(rows, device=v.device)[:, None].expand(rows, columns).flatten()
        x = torch.arange(columns, device=v.device).repeat(rows)
        inner = ((y + 0.5) / rows - 0.5).abs().maximum(((x + 0.5) / columns - 0.5).abs()) < 0.25
        score = means @ v
        if bool(inner.any()) and not bool(inner.all()) and float(score[inner].mean()) < float(score[~inner].mean()):
            v = -v
        return v
