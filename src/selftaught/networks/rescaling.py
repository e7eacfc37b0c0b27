"""Rescalers: small networks that turn what is known of a labelled sample into a weight in (0, 1) (arXiv 2412.12955)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["ClassRescalers", "Rescaler"]


class Rescaler(nn.Module):
    """Linear F-F, BatchNorm without affine, ReLU, Linear F-2, BatchNorm without affine, softmax: its second output.

    BatchNorm takes the statistics of the batch in training, in both loops; it fixes the batch's mean logit at 0, so
    that no loss can drive all weights to 0.

    Args:
        features: F, 19 for STORM's.
    """

    def __init__(self, features: int = 19) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, features),
            nn.BatchNorm1d(features, affine=False),
            nn.ReLU(),
            nn.Linear(features, 2),
            nn.BatchNorm1d(2, affine=False),
        )

    def logits(self, features: Tensor) -> Tensor:
        """(B, F) to (B, 2), before the softmax."""
        return self.layers(features)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) to weights (B,)."""
        return self.logits(features).softmax(1)[:, 1]


class ClassRescalers(nn.Module):
    """One rescaler for each given class, or one for all.

    Every rescaler sees the whole batch, and each sample takes the weight that its own class's gives.

    Args:
        classes: C.
        features: F.
        separate: one for each class; off shares a single one.
    """

    def __init__(self, classes: int, features: int = 19, *, separate: bool = True) -> None:
        super().__init__()
        self.separate = separate
        self.rescalers = nn.ModuleList([Rescaler(features) for _ in range(classes if separate else 1)])

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """(B, F) and given classes (B,) to weights (B,).

        Raises:
            UserError: labels of another length or outside the classes; a single sample in training.
        """
        if features.dim() != 2 or labels.shape != features.shape[:1]:
            raise UserError(f"features (B, F) and labels (B,): {tuple(features.shape)} and {tuple(labels.shape)}")
        if self.training and len(features) < 2:
            raise UserError("a rescaler compares the samples of a batch: use batches of 2 or more")
        if not self.separate:
            return self.rescalers[0](features)
        if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= len(self.rescalers)):
            raise UserError(f"labels must lie in 0 to {len(self.rescalers) - 1}")
        every = torch.stack([rescaler(features) for rescaler in self.rescalers], 1)
        return every.gather(1, labels[:, None]).squeeze(1)
