"""Rescalers: small networks that turn what is known of a labelled sample into a weight in (0, 1) (arXiv 2412.12955)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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

    Every rescaler sees the whole batch, and each sample takes the weight that its own class's gives. All are computed
    in one pass: a class costs no call of its own.

    Args:
        classes: C.
        features: F.
        separate: one for each class; off shares a single one.

    Attributes:
        weight, bias: first layers, (C, F, F) and (C, F).
        out_weight, out_bias: second layers, (C, 2, F) and (C, 2).
    """

    def __init__(self, classes: int, features: int = 19, *, separate: bool = True) -> None:
        super().__init__()
        self.separate, self.count = separate, classes if separate else 1
        alone = [Rescaler(features).layers for _ in range(self.count)]
        first, second = ([layers[place] for layers in alone] for place in (0, 3))
        self.weight, self.bias = _stacked(first, "weight"), _stacked(first, "bias")
        self.out_weight, self.out_bias = _stacked(second, "weight"), _stacked(second, "bias")
        self.norm = nn.BatchNorm1d(self.count * features, affine=False)
        self.out_norm = nn.BatchNorm1d(self.count * 2, affine=False)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """(B, F) and given classes (B,) to weights (B,).

        Raises:
            UserError: labels of another length or outside the classes; a single sample in training.
        """
        if features.dim() != 2 or labels.shape != features.shape[:1]:
            raise UserError(f"features (B, F) and labels (B,): {tuple(features.shape)} and {tuple(labels.shape)}")
        if self.training and len(features) < 2:
            raise UserError("a rescaler compares the samples of a batch: use batches of 2 or more")
        if self.separate and len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= self.count):
            raise UserError(f"labels must lie in 0 to {self.count - 1}")
        rows = len(features)
        hidden = self.norm(F.linear(features, self.weight.flatten(0, 1), self.bias.flatten())).relu()
        by_class = hidden.view(rows, self.count, -1).transpose(0, 1)
        out = torch.baddbmm(self.out_bias[:, None], by_class, self.out_weight.transpose(1, 2))
        logits = self.out_norm(out.transpose(0, 1).reshape(rows, -1)).view(rows, self.count, 2)
        own = logits[torch.arange(rows, device=labels.device), labels] if self.separate else logits[:, 0]
        return own.softmax(1)[:, 1]

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *more: Any) -> None:
        """Weights that were stored class by class are put together."""
        for name, (place, joined) in _APART.items():
            apart = [f"{prefix}rescalers.{k}.layers.{place}" for k in range(self.count)]
            if all(one in state for one in apart):  # where one is missing torch says so
                state[prefix + name] = joined([state.pop(one) for one in apart])
        super()._load_from_state_dict(state, prefix, *more)


_APART: dict[str, tuple[str, Callable[[list[Tensor]], Tensor]]] = {
    "weight": ("0.weight", torch.stack), "bias": ("0.bias", torch.stack),
    "out_weight": ("3.weight", torch.stack), "out_bias": ("3.bias", torch.stack),
    "norm.running_mean": ("1.running_mean", torch.cat), "norm.running_var": ("1.running_var", torch.cat),
    "norm.num_batches_tracked": ("1.num_batches_tracked", lambda parts: parts[0]),
    "out_norm.running_mean": ("4.running_mean", torch.cat), "out_norm.running_var": ("4.running_var", torch.cat),
    "out_norm.num_batches_tracked": ("4.num_batches_tracked", lambda parts: parts[0]),
}  # fmt: skip
"""What rescalers have together -> what each alone had under which name, and how these are put together."""


def _stacked(layers: list[nn.Module], name: str) -> nn.Parameter:
    return nn.Parameter(torch.stack([getattr(layer, name).detach() for layer in layers]))
