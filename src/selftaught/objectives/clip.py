"""Contrast between two modalities, rows paired: images and their texts."""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_positive, check_views, in_float32, one_number, softplus, unit
from selftaught.objectives._tiled import lse_rows, lse_rows_and_columns

__all__ = ["clip", "clip_sharded"]


@in_float32
def clip(image: Tensor, text: Tensor, *, temperature: float | Tensor = 0.07, smoothing: float = 0.0) -> Tensor:
    """CLIP's symmetric cross-entropy (Radford et al. 2021, arXiv 2103.00020, figure 3).

    With s_ij = <image_i, text_j> / temperature of the L2-normalised rows, over one matrix of similarities:

        L = -(1 / 2N) sum_i [ log( exp(s_ii) / sum_j exp(s_ij) ) + log( exp(s_ii) / sum_j exp(s_ji) ) ]

    For a number it is half of :func:`infonce` between the unit vectors with ``negatives="cross_view_only"``.

    Args:
        image: (N, D) projections of the images; row i belongs to row i of ``text``. Normalised here.
        text: (N, D) projections of the texts.
        temperature: above 0; a learnt tensor of one number gets a gradient. CLIP learns t = log(1/temperature) from
            log(1/0.07) and keeps it at log(100) or below: ``temperature=(-t).exp()``.
        smoothing: share e of the target that all N rows have alike, as ``torch.nn.functional.cross_entropy`` smooths
            labels; from 0 (CLIP) to below 1.

    Returns:
        A scalar >= 0, exact near 0, in memory linear in N. A batch of one pair: 0. All projections equal: log N.

    Raises:
        UserError: (a ``ValueError``) shapes differ or aren't (N, D), an empty batch, a temperature that isn't
            above 0, a smoothing outside [0, 1).
    """
    rows, _ = check_views(image, text)
    check_positive(temperature=temperature)
    check_smoothing(smoothing)
    a, b, scale = unit(image), unit(text), 1 / temperature
    own = torch.arange(rows, device=a.device).unsqueeze(1)
    others = lse_rows_and_columns(a, b, scale=scale, exclude=own, bound=scale)
    loss = softplus(torch.stack(others) - (a * b).sum(1) * scale).mean()
    if not smoothing:
        return loss
    everyone = (a.mean(0) * b.mean(0)).sum()  # the mean of all N x N cosines
    return loss + smoothing * one_number(scale) * ((a * b).sum(1).mean() - everyone)


@in_float32
def clip_sharded(
    image: Tensor,
    text: Tensor,
    image_keys: Tensor,
    text_keys: Tensor,
    *,
    first: int = 0,
    temperature: float | Tensor = 0.07,
    smoothing: float = 0.0,
) -> Tensor:
    """:func:`clip` for one process' rows: queries of its own against the keys of all processes.

    The mean over processes of equally many rows is :func:`clip` of all rows, and so is its gradient where the keys were
    gathered with gradient (``engine.distributed.gather``). With keys gathered without one an embedding learns as a
    query alone, as in the released code of arXiv 2305.08675. Each process makes n x M similarities, tile by tile.

    Args:
        image: (n, D) projections of this process' images. Normalised here, as all the others.
        text: (n, D) projections of their texts.
        image_keys: (M, D) of all processes' images.
        text_keys: (M, D) of all processes' texts.
        first: the row of the keys at which this process' own begin: rank times n.
        temperature: as in :func:`clip`.
        smoothing: as in :func:`clip`.

    Raises:
        UserError: (a ``ValueError``) as :func:`clip`; own rows that don't lie within the keys.
    """
    rows, width = check_views(image, text)
    total, other = check_views(image_keys, text_keys)
    check_positive(temperature=temperature)
    check_smoothing(smoothing)
    if width != other or not 0 <= first <= total - rows:
        raise UserError(
            f"rows {first} to {first + rows - 1} of width {width} don't lie within {total} keys of width {other}"
        )
    scale = 1 / temperature
    own = first + torch.arange(rows, device=image.device).unsqueeze(1)
    loss = image.new_zeros(())
    for queries, keys in ((unit(image), unit(text_keys)), (unit(text), unit(image_keys))):
        positive = (queries * keys[first : first + rows]).sum(1) * one_number(scale)
        others = lse_rows(queries, keys, scale=scale, exclude=own, bound=scale)
        loss = loss + softplus(others - positive).mean() / 2
        if smoothing:
            everyone = (queries.mean(0) * keys.mean(0)).sum() * one_number(scale)
            loss = loss + smoothing * (positive.mean() - everyone) / 2
    return loss


def check_smoothing(smoothing: float) -> None:
    """Refuse a label smoothing outside [0, 1).

    Raises:
        UserError: it is outside.
    """
    if not 0 <= smoothing < 1:
        raise UserError(f"smoothing is a share from 0 to below 1, got {smoothing:g}")
