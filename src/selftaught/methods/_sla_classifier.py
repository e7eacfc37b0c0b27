"""What SLA delivers: a classifier that may look at every transformed copy of an image; and the split of an episode."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, log_softmax, normalize

from selftaught.errors import UserError
from selftaught.views.transformations import Transformation, ten_crop


class SLAClassifier(nn.Module):
    """Normalised images (N, C, H, W) -> class logits (N, K). It shares the weights that it is given.

    Args:
        members: encoder and heads (``joint``, ``single``) of one network, or of each of an ensemble.
        transformations: the M transformations, the identity first.
        inference: ``single`` (the image alone), ``aggregate`` (mean logits of all copies, each read at its own
            transformation), ``distilled`` (the second head) or ``ten-crop`` (mean over ten crops, single inference).
        centres: (K*M, D) prototypes in place of heads, for episodic training.
    """

    SCALE: ClassVar[float] = 30.0
    """Cosines are multiplied by this where heads have no bias (LDAM)."""

    def __init__(
        self,
        members: list[tuple[nn.Module, nn.ModuleDict]],
        transformations: tuple[Transformation, ...],
        inference: str,
        centres: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList([encoder for encoder, _ in members])
        self.heads = nn.ModuleList([heads for _, heads in members])
        self.transformations, self.inference = transformations, inference
        self.register_buffer("centres", centres)

    @staticmethod
    def scores(heads: nn.ModuleDict, z: Tensor) -> dict[str, Tensor]:
        """Logits of every head; a head without bias gives scaled cosines."""
        found = {}
        for name, head in heads.items():
            if head.bias is None:
                found[name] = SLAClassifier.SCALE * linear(normalize(z, eps=1e-8), normalize(head.weight))
            else:
                found[name] = head(z)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Class logits; of an ensemble the logarithm of the members' mean probability."""
        found = [self._member(n, x) for n in range(len(self.encoders))]
        if len(found) == 1:
            return found[0]
        return torch.stack([log_softmax(one.float(), 1) for one in found]).logsumexp(0)

    def _member(self, number: int, x: Tensor) -> Tensor:
        if self.inference == "aggregate":
            parts = [self._given(number, t(x), j) for j, t in enumerate(self.transformations)]
            return torch.stack(parts).mean(0)
        if self.inference == "ten-crop":
            return self._given(number, ten_crop(x), 0).unflatten(0, (-1, 10)).mean(1)
        if self.inference == "distilled":
            return self.scores(self.heads[number], self.encoders[number](x))["single"]  # type: ignore[arg-type]
        return self._given(number, x, 0)

    def _given(self, number: int, x: Tensor, place: int) -> Tensor:
        """Logits of the classes of images that were transformed by transformation ``place``."""
        z, copies = self.encoders[number](x), len(self.transformations)
        if isinstance(self.centres, Tensor):
            return -(z.float()[:, None] - self.centres[place::copies][None]).square().sum(2)
        scores = self.scores(self.heads[number], z)  # type: ignore[arg-type]
        return scores["joint"][:, place::copies] if "joint" in scores else scores["single"]


def few_shot_split(labels: Tensor, ways: int, shots: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw an episode from a batch: up to ``ways`` classes, ``shots`` support images each, the rest are queries.

    Drawn with torch's global generator on the labels' device.

    Args:
        labels: (B,) classes.
        ways: classes at most.
        shots: support images per class.

    Returns:
        places (S,) of the support and (Q,) of the queries in the batch, and the chosen classes (N,).

    Raises:
        UserError: fewer than two classes have more than ``shots`` images.
    """
    names, number = labels.unique(return_counts=True)
    able = names[number > shots]
    if len(able) < 2:
        raise UserError(f"episodes: fewer than 2 classes have over {shots} images in a batch; raise --batch-size")
    chosen = able[torch.rand(len(able), device=labels.device).argsort()[:ways]]
    support, query = [], []
    for name in chosen:
        places = (labels == name).nonzero().squeeze(1)
        places = places[torch.rand(len(places), device=labels.device).argsort()]
        support.append(places[:shots])
        query.append(places[shots:])
    return torch.cat(support), torch.cat(query), chosen
