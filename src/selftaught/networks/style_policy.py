"""A policy over a chain of decisions: an LSTM that draws one after the other (arXiv 2204.12743)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["Drawn", "StylePolicy"]

_SIZES = (2, 12, 3, 3, 4, 2, 2, 2, 2, 2, 4, 3, 2, 8, 4, 3, 5, 5)
_RANGE = 0.1


class Drawn(NamedTuple):
    """Decisions of N policies.

    Attributes:
        actions: (N, D) int64, option of each decision.
        log_probs: (N, D), log-probability of each.
        entropies: (N, D), of the distribution that it was drawn from.
    """

    actions: Tensor
    log_probs: Tensor
    entropies: Tensor


class StylePolicy(nn.Module):
    """pi(a) = prod_j softmax(W_j h_j)[a_j],   h_j = LSTM(e_j),   e_0 = 0,   e_j = E[a_{j-1} + sum_{i < j-1} n_i]

    Args:
        sizes: n_j, options of each decision; the paper's 18 by default.
        hidden: of the LSTM.
        embedding: of an option.
        features: length of an image feature f that the decisions depend on, e_0 = tanh(P f); 0: none.
        layers: of the LSTM; None: 1, 2 with features.
    """

    def __init__(
        self,
        sizes: Sequence[int] = _SIZES,
        *,
        hidden: int = 100,
        embedding: int = 32,
        features: int = 0,
        layers: int | None = None,
    ) -> None:
        super().__init__()
        if not sizes or min(sizes) < 1:
            raise UserError(f"sizes={tuple(sizes)}: each decision has one option or more")
        self.sizes, self.width = tuple(sizes), embedding
        self.offsets = [sum(self.sizes[:j]) for j in range(len(self.sizes))]
        self.project = nn.Linear(features, embedding) if features else None
        self.embed = nn.Embedding(sum(self.sizes), embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers or (2 if features else 1))
        self.heads = nn.ModuleList(nn.Linear(hidden, n) for n in self.sizes)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -_RANGE, _RANGE)

    def forward(self, count: int = 1, features: Tensor | None = None) -> Drawn:
        """Draw decisions with torch's generator.

        Args:
            count: N.
            features: (N, F) of the images that they are for, where the policy depends on them.

        Raises:
            UserError: features are missing, or not taken.
        """
        return self._run(count if features is None else len(features), features, None)

    def score(self, actions: Tensor, features: Tensor | None = None) -> Drawn:
        """The same of given ``actions`` (N, D).

        Raises:
            UserError: not D decisions, or an option that there isn't.
        """
        limits = torch.tensor(self.sizes, device=actions.device)
        if actions.ndim != 2 or actions.shape[1] != len(limits) or ((actions < 0) | (actions >= limits)).any():
            raise UserError(f"actions {tuple(actions.shape)}: (N, {len(limits)}), each below {self.sizes}")
        return self._run(len(actions), features, actions)

    def _run(self, count: int, features: Tensor | None, given: Tensor | None) -> Drawn:
        if (features is None) != (self.project is None):
            raise UserError("the policy depends on image features: give them" if features is None else "no features")
        device = self.embed.weight.device
        seen = torch.zeros(count, self.width, device=device)
        if self.project is not None:
            seen = torch.tanh(self.project(features))
        state: tuple[Tensor, Tensor] | None = None
        found: list[list[Tensor]] = [[], [], []]
        for j, head in enumerate(self.heads):
            out, state = self.lstm(seen[None], state)
            logs = head(out[0]).log_softmax(-1)
            action = logs.exp().multinomial(1)[:, 0] if given is None else given[:, j]
            found[0].append(action)
            found[1].append(logs.gather(1, action[:, None])[:, 0])
            found[2].append(-(logs.exp() * logs).sum(-1))
            seen = self.embed(self.offsets[j] + action)
        return Drawn(*(torch.stack(one, 1) for one in found))
