"""Contrast between two modalities, rows paired: images and their texts."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from selftaught.objectives._common import check_positive, check_views, in_float32
from selftaught.objectives._tiled import lse_rows_and_columns


@in_float32
def clip(image: Tensor, text: Tensor, *, temperature: float | Tensor = 0.07) -> Tensor:
    """CLIP's symmetric cross-entropy (Radford et al. 2021, arXiv 2103.00020, figure 3).

    With s_ij = <image_i, text_j> / temperature of the L2-normalised rows, over one matrix of similarities:

        L = -(1 / 2N) sum_i [ log( exp(s_ii) / sum_j exp(s_ij) ) + log( exp(s_ii) / sum_j exp(s_ji) ) ]

    For a number it is half of :func:`infonce` between the unit vectors with ``negatives="cross_view_only"``.

    Args:
        image: (N, D) projections of the images; row i belongs to row i of ``text``. Normalised here.
        text: (N, D) projections of the texts.
        temperature: above 0; a learnt tensor of shape () gets a gradient and isn't checked, which would make the host
            wait for the device. CLIP learns t = log(1/temperature) from log(1/0.07) and keeps it at log(100) or below:
            ``temperature=(-t).exp()``.

    Returns:
        A scalar >= 0, in memory linear in N. A batch of one pair: 0. All projections equal: log N.

    Raises:
        UserError: (a ``ValueError``) shapes differ or aren't (N, D), an empty batch, a number for a temperature that
            isn't above 0.
    """
    check_views(image, text)
    a, b = F.normalize(image, dim=1), F.normalize(text, dim=1)
    scale: float | Tensor
    if isinstance(temperature, Tensor):
        scale, bound = temperature.reciprocal().reshape(()), None
    else:
        check_positive(temperature=temperature)
        scale = bound = 1 / temperature
    by_image, by_text = lse_rows_and_columns(a, b, scale=scale, bound=bound)
    return (0.5 * (by_image + by_text) - (a * b).sum(1) * scale).mean()
