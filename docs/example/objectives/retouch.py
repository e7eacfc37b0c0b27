"""Retouch: stay near the wanted picture, and be taken for one that a person made."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError

__all__ = ["retouch", "retouch_critic"]


def retouch(made: Tensor, wanted: Tensor, judged: Tensor, *, weight: float = 0.01) -> dict[str, Tensor]:
    """L = mean |made - wanted| + weight * mean softplus(-critic(made)).

    Args:
        made: (N, C, H, W) pictures.
        wanted: (N, C, H, W) what they should be.
        judged: (N,) logits of the critic for ``made``.
        weight: of the second term, default 0.01.

    Returns:
        ``loss`` and its two terms.

    Raises:
        UserError: pictures of different shapes.
    """
    if made.shape != wanted.shape:
        raise UserError(f"retouch: made {tuple(made.shape)} and wanted {tuple(wanted.shape)} must have one shape")
    near, taken = (made.float() - wanted.float()).abs().mean(), F.softplus(-judged.float()).mean()
    return {"loss": near + weight * taken, "near": near, "taken": taken}


def retouch_critic(real: Tensor, fake: Tensor) -> Tensor:
    """Mean softplus(-real) + mean softplus(fake) of the critic's logits (N,); 2 ln 2 where it can't tell."""
    return F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean()
