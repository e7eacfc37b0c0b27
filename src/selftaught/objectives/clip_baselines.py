"""Improved CLIP (CL2L) and the losses of BarLIP, SiamLIP, BYOLIP and SwALIP (Fini et al., TMLR 2023, arXiv 2305.08675).

All compare A strong views of images with A strong views of their texts, every one with every other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_positive, check_views, in_float32, mean_cosine, unit
from selftaught.objectives._correlation import STATISTICS, off_diagonal_squares
from selftaught.objectives.clip import check_smoothing, clip
from selftaught.objectives.swav import Join, sinkhorn, swav

__all__ = ["barlip", "barlip_pair", "cl2l", "cl2l_terms", "siamlip", "siamlip_distance", "swalip", "swalip_v1"]

Views = Sequence[Tensor]
Contrast = Callable[..., Tensor]


def cl2l(
    z_image: Tensor,
    z_text: Tensor,
    h_images: Views = (),
    h_texts: Views = (),
    *,
    temperature: float | Tensor = 0.07,
    local_temperature: float | Tensor | None = 0.1,
    smoothing: float = 0.1,
    combine: str = "avg",
    contrast: Contrast = clip,
) -> Tensor:
    """CLIP on weak views and on every pair of strong ones.

        L = (g + A l) / (1 + A),    g = clip(z_I, z_T),    l = 1/A^2 sum_{a,b} clip_e(h_I^a, h_T^b)

    with g and l both the mean of the two directions, so that L = (L_I + L_T) / 2. Label smoothing e acts on l alone.

    Args:
        z_image: (N, D) global projections of the weak image view; normalised here.
        z_text: (N, D) of the weak text.
        h_images: A tensors (N, D'), local projections of the strong image views; none (A = 0) is plain CLIP.
        h_texts: A tensors (N, D') of the strong texts.
        temperature: of g, 1/s.
        local_temperature: of l, 1/s_h; None takes ``temperature``.
        smoothing: e, from 0 to below 1.
        combine: "avg", or "sum" for L_I + L_T, twice as much.
        contrast: what compares a pair: ``clip``, or one that gathers rows over processes; takes ``temperature`` and
            ``smoothing``.

    Returns:
        A scalar >= 0.

    Raises:
        UserError: (a ``ValueError``) another number of images' views than of texts'; shapes that differ; what
            :func:`clip` refuses; another ``combine``.
    """
    return cl2l_terms(
        z_image, z_text, h_images, h_texts, temperature=temperature, local_temperature=local_temperature,
        smoothing=smoothing, combine=combine, contrast=contrast,
    )["loss"]  # fmt: skip


def cl2l_terms(
    z_image: Tensor,
    z_text: Tensor,
    h_images: Views = (),
    h_texts: Views = (),
    *,
    temperature: float | Tensor = 0.07,
    local_temperature: float | Tensor | None = 0.1,
    smoothing: float = 0.1,
    combine: str = "avg",
    contrast: Contrast = clip,
) -> dict[str, Tensor]:
    """:func:`cl2l` with its parts: ``global`` g, ``local`` l (where there are strong views) and ``loss``."""
    count = _same_count(h_images, h_texts)
    if combine not in ("avg", "sum"):
        raise UserError(f"combine={combine!r}: it may be avg or sum")
    check_smoothing(smoothing)
    terms = {"global": contrast(z_image, z_text, temperature=temperature, smoothing=0.0)}
    total = terms["global"]
    if count:
        tau = temperature if local_temperature is None else local_temperature
        pairs = [contrast(i, t, temperature=tau, smoothing=smoothing) for i in h_images for t in h_texts]
        terms["local"] = torch.stack(pairs).sum() / count**2
        total = (total + count * terms["local"]) / (1 + count)
    return terms | {"loss": 2 * total if combine == "sum" else total}


@in_float32
def barlip_pair(v1: Tensor, v2: Tensor, *, lambda_: float = 5e-3, scale: float = 0.025) -> Tensor:
    """b(V_1, V_2) = scale * ( sum_i (C_ii - 1)^2 + lambda * sum_{i != j} C_ij^2 ),   C = V_1^T V_2 / N.

    Args:
        v1: (N, D) projections, normalised over the batch by the projector's last BatchNorm, not here. With several
            processes: gathered, which is the mean of their correlations.
        v2: (N, D) projections of the other modality.
        lambda_: weight of what lies off the diagonal.
        scale: factor on the whole.

    Returns:
        A scalar >= 0; 0 where the cross-correlation is the identity.

    Raises:
        UserError: (a ``ValueError``) N < 2, shapes that differ.
    """
    rows, _ = check_views(v1, v2, minimum=2, why=STATISTICS)
    diagonal = (v1 * v2).sum(0) / rows
    off = off_diagonal_squares(v1, v2, diagonal, rows)
    return scale * ((diagonal - 1).square().sum() + lambda_ * off)


def barlip(
    global_image: Tensor,
    global_text: Tensor,
    images: Views = (),
    texts: Views = (),
    *,
    lambda_: float = 5e-3,
    scale: float = 0.025,
) -> Tensor:
    """L_bar = ( b(global I, global T) + sum_{a,b} b(I^a, T^b) ) / (1 + A^2); b is :func:`barlip_pair`.

    Args:
        global_image: (N, D) projections of the weak image view.
        global_text: (N, D) of the weak text.
        images: A tensors (N, D) of the strong image views.
        texts: A tensors (N, D) of the strong texts.
        lambda_: see :func:`barlip_pair`.
        scale: see :func:`barlip_pair`.

    Raises:
        UserError: (a ``ValueError``) as :func:`barlip_pair`; another number of images' views than of texts'.
    """
    count = _same_count(images, texts)
    pairs = [(global_image, global_text), *((i, t) for i in images for t in texts)]
    return torch.stack([barlip_pair(i, t, lambda_=lambda_, scale=scale) for i, t in pairs]).sum() / (1 + count**2)


@in_float32
def siamlip_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """d(p, v) = 2 - 2 mean_i cos(p_i, sg(v_i)), from 0 to 4; no gradient reaches ``target``.

    Args:
        prediction: (N, D).
        target: (N, D).

    Raises:
        UserError: (a ``ValueError``) shapes that differ or aren't (N, D), an empty batch.
    """
    check_views(prediction, target)
    return 2 - 2 * mean_cosine(prediction, target.detach())


def siamlip(
    p_image: Tensor,
    p_text: Tensor,
    v_image: Tensor,
    v_text: Tensor,
    *,
    p_images: Views = (),
    p_texts: Views = (),
    v_images: Views = (),
    v_texts: Views = (),
) -> Tensor:
    """Each modality predicts the other's projection: SiamLIP, and BYOLIP with a momentum copy's targets.

        L = [ d(p_I, v_T) + d(p_T, v_I) + sum_{a,b} ( d(p_I^a, v_T^b) + d(p_T^a, v_I^b) ) ] / (2 + 2 A^2)

    with d of :func:`siamlip_distance`. All arguments are tensors (N, D).

    Args:
        p_image: predictions of texts from the weak image view.
        p_text: predictions of images from the weak text.
        v_image: projections of the weak image view; constants.
        v_text: projections of the weak text; constants.
        p_images: A predictions from strong image views.
        p_texts: A predictions from strong texts.
        v_images: A projections of strong image views; constants.
        v_texts: A projections of strong texts; constants.

    Raises:
        UserError: (a ``ValueError``) shapes or numbers of views that differ.
    """
    count = _same_count(p_images, p_texts, v_images, v_texts)
    pairs = [(p_image, v_text), (p_text, v_image)]
    for a in range(count):
        for b in range(count):
            pairs += [(p_images[a], v_texts[b]), (p_texts[a], v_images[b])]
    return torch.stack([siamlip_distance(p, v) for p, v in pairs]).sum() / (2 + 2 * count**2)


def swalip(
    h_images: Views,
    h_texts: Views,
    *,
    image_keys: Views | None = None,
    text_keys: Views | None = None,
    temperature: float | Tensor = 0.1,
    eps: float = 0.05,
    iters: int = 3,
    join: Join | None = None,
) -> Tensor:
    """Swapped prediction with the batch of the other modality as prototypes (SwALIP).

    With S_ab = h_I^a h_T^b^T (cosines), Q_ab = Sinkhorn(S_ab) without gradient, S' and Q' with modalities exchanged:

        L = 1/A^2 sum_{l,m in {0,1}} 1/2 [ H(Q_{1-l,1-m}, softmax(s S_{lm})) + H(Q'_{1-l,1-m}, softmax(s S'_{lm})) ]

    H is the mean over rows of -sum q log p. Written for A = 2.

    Args:
        h_images: two tensors (n, D) of the strong image views; normalised here.
        h_texts: two tensors (n, D) of the strong texts.
        image_keys: two tensors (M, D) of all processes; None: ``h_images``.
        text_keys: two tensors (M, D) of all processes; None: ``h_texts``.
        temperature: 1/s of the predictions.
        eps: smoothness of the codes.
        iters: rounds of Sinkhorn's algorithm.
        join: gathers rows over processes, see :func:`sinkhorn`.

    Returns:
        A scalar >= 0.

    Raises:
        UserError: (a ``ValueError``) other than two views on each side; shapes that differ; numbers out of range.
    """
    if len(h_images) != 2 or len(h_texts) != 2:
        raise UserError(f"SwALIP swaps two views of each side, got {len(h_images)} and {len(h_texts)}; use num_augs=2")
    check_views(*h_images, *h_texts)
    check_positive(temperature=temperature)
    image_keys, text_keys = (
        (h_images if image_keys is None else image_keys),
        (h_texts if text_keys is None else text_keys),
    )
    if len(image_keys) != 2 or len(text_keys) != 2:
        raise UserError(f"keys of two views on each side are needed, got {len(image_keys)} and {len(text_keys)}")
    check_views(*image_keys, *text_keys)
    options: dict[str, Any] = {"temperature": temperature, "eps": eps, "iters": iters, "join": join}
    return (_swapped(*h_images, *text_keys, **options) + _swapped(*h_texts, *image_keys, **options)) / 2


@in_float32
def _swapped(
    first: Tensor,
    second: Tensor,
    keys: Tensor,
    more_keys: Tensor,
    *,
    temperature: Any,
    eps: float,
    iters: int,
    join: Any,
) -> Tensor:
    """1/4 sum_{l,m} H(Q_{1-l,1-m}, softmax(s S_{lm})) for one modality's two views as queries."""
    queries, pool = (unit(first), unit(second)), (unit(keys), unit(more_keys))
    if keys.shape[1] != first.shape[1]:
        raise UserError(f"keys of width {keys.shape[1]} for queries of width {first.shape[1]}")
    scores = {(a, b): queries[a] @ pool[b].T for a in range(2) for b in range(2)}
    codes = {ab: sinkhorn(s, eps=eps, iters=iters, join=join) for ab, s in scores.items()}
    total = first.new_zeros(())
    for (a, b), s in scores.items():
        total = total - (codes[1 - a, 1 - b] * (s / temperature).log_softmax(1)).sum(1).mean()
    return total / 4


def swalip_v1(
    image_scores: Tensor,
    text_scores: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    eps: float = 0.05,
    iters: int = 3,
    join: Join | None = None,
) -> Tensor:
    """SwALIP with shared prototypes: each modality predicts the other's codes.

        L = ( CE(s p_I, Sinkhorn(p_T)) + CE(s p_T, Sinkhorn(p_I)) ) / 2

    Args:
        image_scores: (N, K) cosines p_I of image projections and prototypes.
        text_scores: (N, K) cosines p_T of text projections and the same prototypes.
        temperature: 1/s.
        eps: smoothness of the codes.
        iters: rounds of Sinkhorn's algorithm.
        join: see :func:`sinkhorn`.

    Raises:
        UserError: (a ``ValueError``) shapes that differ; numbers out of range.
    """
    options: dict[str, Any] = {"temperature": temperature, "eps": eps, "iters": iters, "join": join}
    return swav(image_scores, text_scores, **options)


def _same_count(*several: Views) -> int:
    """How many views each side has.

    Raises:
        UserError: they have different numbers.
    """
    counts = {len(views) for views in several}
    if len(counts) > 1 or any(isinstance(views, Tensor) for views in several):
        raise UserError(f"as many strong texts as strong images are needed, got {[len(views) for views in several]}")
    return counts.pop()
