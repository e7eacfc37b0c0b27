"""Contrast between two modalities, rows paired: images and their texts."""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.objectives._common import check_positive, check_views, in_float32, softplus, unit
from selftaught.objectives._tiled import lse_rows_and_columns

__all__ = ["clip"]


@in_float32
def clip(image: Tensor, text: Tensor, *, temperature: float | Tensor = 0.07) -> Tensor:
    """CLIP's symmetric cross-entropy (Radford et al. 2021, arXiv 2103.00020, figure 3).

    With s_ij = <image_i, text_j> / temperature of the L2-normalised rows, over one matrix of similarities:

        L = -(1 / 2N) sum_i [ log( exp(s_ii) / sum_j exp(s_ij) ) + log( exp(s_ii) / sum_j exp(s_ji) ) ]

    For a number it is half of :func:`infonce` between the unit vectors with ``negatives="cross_view_only"``.

    Args:
        image: (N, D) projections of the images; row i belongs to row i of ``text``. Normalised here.
        text: (N, D) projections of the texts.
        temperature: above 0; a learnt tensor of one number gets a gradient. CLIP learns t = log(1/temperature) from
            log(1/0.07) and keeps it at log(100) or below: ``temperature=(-t).exp()``.

    Returns:
        A scalar >= 0, exact near 0, in memory linear in N. A batch of one pair: 0. All projections equal: log N.

    Raises:
        UserError: (a ``ValueError``) shapes differ or aren't (N, D), an empty batch, a temperature that isn't
            above 0.
    """
    rows, _ = check_views(image, text)
    check_positive(temperature=temperature)
    a, b, scale = unit(image), unit(text), 1 / temperature
    own = torch.arange(rows, device=a.device).unsqueeze(1)
    others = lse_rows_and_columns(a, b, scale=scale, exclude=own, bound=scale)
    return softplus(torch.stack(others) - (a * b).sum(1) * scale).mean()
