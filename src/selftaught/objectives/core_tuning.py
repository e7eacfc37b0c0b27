"""Core-tuning: fine-tuning on a pool of features mixed with their hardest pairs, with a focal contrast on top.

h (B, D), labels  --core_tuning_pool-->  features (3B, D), targets (3B, C)
logits = classifier(features), z = head(features)  --core_tuning-->  L = L_ce^m + eta L_con^f
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._blocks import by_rows
from selftaught.objectives._common import (
    check_choice,
    check_floats,
    check_labels,
    check_positive,
    check_range,
    check_views,
    in_float32,
    unit,
)

__all__ = [
    "CoreTuningPool",
    "HardPairs",
    "core_tuning",
    "core_tuning_pool",
    "core_tuning_terms",
    "focal_contrast",
    "hard_pairs",
    "semi_hard_partners",
]

MINING = ("paper", "official", "none")
NORMALISATION = ("code", "per-positive")
TOLERANCE = 1e-6
"""Label vectors that differ by no more than this in every class are equal."""
_ROWS = 2048


class CoreTuningPool(NamedTuple):
    """What the classifier and the head see: originals, hard negatives, hard positives, in this order.

    Attributes:
        features: (3B, D); (B, D) without mixing.
        targets: (3B, C), rows of shares that sum to 1.
    """

    features: Tensor
    targets: Tensor


class HardPairs(NamedTuple):
    """Indices into the batch: for every sample the hardest of its class and the hardest of another.

    Attributes:
        positive: (B,) int64, hp(i), the same-class sample with the lowest cosine similarity.
        negative: (B,) int64, hn(i), the other-class sample with the highest.
    """

    positive: Tensor
    negative: Tensor


@in_float32
@torch.no_grad()
def hard_pairs(h: Tensor, labels: Tensor, *, mining: str = "paper") -> HardPairs:
    """The hardest positive and negative of every sample, by cosine similarity (arXiv 2102.06605, section 4.1).

    Args:
        h: (B, D) features.
        labels: (B,) int64, or (B, C) one-hot.
        mining: ``"paper"``: the rule. ``"official"``: what the released code does: similarity times the class mask
            (without the diagonal), then arg-min, an index of 0 replaced by i. On non-negative features that makes
            hp(i) = i wherever the class is not that of sample 0, and where it is the smaller of i and the first sample
            of another class.

    Returns:
        (hp, hn). A sample that is alone in its class is its own positive; where a batch has one class only, every
        sample is its own negative.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, mining not ``"paper"`` or ``"official"``.
    """
    check_choice("mining", mining, ("paper", "official"))
    rows, _ = check_views(h)
    code = _codes(labels, rows)
    rows_of_h = unit(h)
    every = torch.arange(rows, device=h.device)
    positives, negatives = [], []
    for own in every.split(_ROWS):
        similarity = rows_of_h[own] @ rows_of_h.T
        same = code[own].unsqueeze(1) == code
        others = same & (every != own.unsqueeze(1))
        if mining == "official":
            lowest = similarity.masked_fill(~others, 0.0).argmin(1)
            positive = torch.where(lowest == 0, own, lowest)
            negative = similarity.masked_fill(same, 0.0).argmax(1)
        else:
            lowest = similarity.masked_fill(~others, torch.inf).argmin(1)
            positive = torch.where(others.any(1), lowest, own)
            negative = similarity.masked_fill(same, -torch.inf).argmax(1)
        positives.append(positive)
        negatives.append(torch.where(same.all(1), own, negative))
    return HardPairs(torch.cat(positives), torch.cat(negatives))


@torch.no_grad()
def semi_hard_partners(labels: Tensor, *, mining: str = "paper", generator: torch.Generator | None = None) -> Tensor:
    """A random partner n(i) for every sample's hard negative.

    Args:
        labels: (B,) int64, or (B, C) one-hot.
        mining: ``"paper"``: uniform among the samples of other classes, i itself where there is none.
            ``"official"``: a random permutation of the batch, classes ignored.
        generator: random generator on the labels' device; None takes torch's global one.

    Returns:
        (B,) int64.

    Raises:
        UserError: (a ``ValueError``) mining not ``"paper"`` or ``"official"``.
    """
    check_choice("mining", mining, ("paper", "official"))
    rows, device = labels.shape[0] if labels.dim() else 0, labels.device
    code = _codes(labels, rows)
    if mining == "official":
        return torch.randperm(rows, device=device, generator=generator)
    # Sorted by class, the others of i are all but one run of neighbours: draw a rank and step over that run.
    order = code.argsort(stable=True)
    sorted_code = code[order]
    first = torch.searchsorted(sorted_code, code)
    size = torch.searchsorted(sorted_code, code, right=True) - first
    others = rows - size
    rank = (torch.rand(rows, device=device, generator=generator) * others).long().minimum((others - 1).clamp_min(0))
    found = order[torch.where(rank >= first, rank + size, rank).clamp_max(rows - 1)]
    return torch.where(others > 0, found, torch.arange(rows, device=device))


def draw_shares(rows: int, alpha: float, *, like: Tensor) -> Tensor:
    """(rows,) shares from Beta(alpha, alpha) in float32 on the device of ``like``, from torch's own generator.

    Raises:
        UserError: (a ``ValueError``) alpha isn't above 0.
    """
    check_positive(alpha=alpha)
    concentration = torch.full((rows,), float(alpha), device=like.device)
    return torch.distributions.Beta(concentration, concentration).sample()


@in_float32
def core_tuning_pool(
    h: Tensor,
    labels: Tensor,
    *,
    classes: int | None = None,
    alpha: float = 1.0,
    neg_threshold: float = 0.8,
    mining: str = "paper",
    detach_originals: bool = False,
    lambda_n: Tensor | float | None = None,
    lambda_p: Tensor | float | None = None,
    partner: Tensor | None = None,
) -> CoreTuningPool:
    """The batch and its mixtures with hard pairs (arXiv 2102.06605, eq. 3 and 4).

        h-_i = (1 - lambda_n) h_i + lambda_n h_n(i)             lambda_n = max(Beta(alpha, alpha), neg_threshold)
        h+_i = lambda_p h_hp(i) + (1 - lambda_p) h_hn(i)        lambda_p ~ Beta(alpha, alpha)

    and the one-hot labels with the same shares. The choice of pairs has no gradient, the features that are mixed have.

    Args:
        h: (B, D) features of the encoder, not normalised.
        labels: (B,) int64, or (B, C) one-hot.
        classes: number C of classes; None: as many as the labels name.
        alpha: of the Beta distribution, above 0.
        neg_threshold: smallest share of the other sample in a hard negative, in [0, 1].
        mining: ``"paper"``, ``"official"`` (see :func:`hard_pairs`, :func:`semi_hard_partners`), or ``"none"``: the
            originals alone.
        detach_originals: the first B rows give the encoder no gradient, as in the released code.
        lambda_n: share to use for the hard negatives, () or (B,), as it is (not raised to the threshold); None: drawn.
        lambda_p: share for the hard positives, () or (B,); None: drawn.
        partner: (B,) int64, n(i); None: drawn.

    Returns:
        features and targets: originals, hard negatives, hard positives.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, alpha or the threshold out of range, unknown mining.
    """
    check_choice("mining", mining, MINING)
    if not 0 <= neg_threshold <= 1:
        raise UserError(f"neg_threshold must lie in [0, 1], got {neg_threshold}")
    rows, _ = check_views(h)
    hot = _one_hot(labels, rows, classes, h)
    originals = h.detach() if detach_originals else h
    if mining == "none":
        return CoreTuningPool(originals, hot)
    hp, hn = hard_pairs(h, labels, mining=mining)
    n = semi_hard_partners(labels, mining=mining) if partner is None else _partner(partner, rows)
    if lambda_n is None:
        lambda_n = draw_shares(rows, alpha, like=h).clamp_min(neg_threshold)
    if lambda_p is None:
        lambda_p = draw_shares(rows, alpha, like=h)
    of_n, of_p = _column(lambda_n, "lambda_n", h), _column(lambda_p, "lambda_p", h)

    def mixed(x: Tensor) -> tuple[Tensor, Tensor]:
        return (1 - of_n) * x + of_n * x[n], of_p * x[hp] + (1 - of_p) * x[hn]

    return CoreTuningPool(torch.cat([originals, *mixed(h)]), torch.cat([hot, *mixed(hot)]))


@in_float32
def focal_contrast(
    z: Tensor, targets: Tensor, *, tau: float | Tensor = 0.07, focal: bool = True, normalisation: str = "code"
) -> Tensor:
    """Focal supervised contrast over M rows whose positives have equal label vectors (arXiv 2102.06605, eq. 6).

    With v = z / |z|, p_mj = exp(v_m.v_j / tau) / sum_{k != m} exp(v_m.v_k / tau), P_m = {j != m : y_j = y_m}, and
    w = 1 - p_mj (1 without ``focal``; not detached):

        code:          - sum_m (1/M)     sum_{j in P_m} w log p_mj  /  #{m : P_m not empty}
        per-positive:  - sum_m (1/|P_m|) sum_{j in P_m} w log p_mj  /  #{m : P_m not empty}

    The code's form is smaller by about |P_m| / M. Per-positive without ``focal`` is :func:`supcon`'s.

    Args:
        z: (M, E) projections; normalised here.
        targets: (M, C) label vectors, equal where no class differs by more than 1e-6; or (M,) int64.
        tau: temperature, above 0; a tensor of one number gets a gradient.
        focal: weigh positives that are near already by less.
        normalisation: ``"code"`` (the released code's) or ``"per-positive"`` (the paper's formula, rows without a
            positive left out of the mean).

    Returns:
        A scalar >= 0; 0 with a gradient of 0 where no row has a positive. Memory is linear in M (blocks of rows).

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, tau not above 0, unknown normalisation.
    """
    check_positive(tau=tau)
    check_choice("normalisation", normalisation, NORMALISATION)
    rows, _ = check_views(z)
    if targets.dim() not in (1, 2) or len(targets) != rows:
        raise UserError(f"targets must be ({rows}, C) or ({rows},), one per row of z, got {tuple(targets.shape)}")
    labels = targets.reshape(rows, -1).to(z.dtype if targets.is_floating_point() else torch.float64)
    v, every = unit(z), torch.arange(rows, device=z.device)

    def sums(v_m: Tensor, y_m: Tensor, m: Tensor) -> Tensor:
        itself = m.unsqueeze(1) == every
        logits = v_m @ v.T / tau
        partition = logits.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
        positive = (torch.cdist(y_m, labels, p=torch.inf) <= TOLERANCE) & ~itself
        log_p = (logits - partition).masked_fill(~positive, 0.0)  # finite where it does not count: no NaN gradients
        weighted = -torch.expm1(log_p) * log_p if focal else log_p
        return torch.stack([weighted.sum(1), positive.sum(1).to(v)], dim=1)

    if rows == 1:
        return z.sum() * 0.0
    total, count = by_rows(sums, v, labels, every, width=rows).unbind(1)
    divisor = torch.full_like(count, rows) if normalisation == "code" else count.clamp_min(1)
    return -(total / divisor).sum() / (count > 0).sum().clamp_min(1)


@in_float32
def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy against label vectors: (1/M) sum_m - y_m . log softmax(logits_m).

    Args:
        logits: (M, C).
        targets: (M, C) rows of shares, or (M,) int64.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, or no rows.
    """
    if logits.dim() != 2 or not len(logits) or targets.shape not in (logits.shape, logits.shape[:1]):
        raise UserError(f"need logits (M, C) and targets (M, C) or (M,), got {_shape(logits)} and {_shape(targets)}")
    check_floats(logits=logits)
    if targets.dim() == 1:
        check_labels(targets, *logits.shape)
        return F.cross_entropy(logits, targets)
    return F.cross_entropy(logits, targets.to(logits))


def core_tuning_terms(
    logits: Tensor,
    z: Tensor,
    targets: Tensor,
    *,
    eta: float = 0.1,
    tau: float | Tensor = 0.07,
    focal: bool = True,
    normalisation: str = "code",
) -> dict[str, Tensor]:
    """:func:`core_tuning` as its terms: ``loss``, ``cross_entropy``, ``contrast`` (before eta)."""
    if not eta >= 0:
        raise UserError(f"eta must be at least 0, got {eta}")
    if logits.dim() != 2 or targets.dim() not in (1, 2):
        raise UserError(f"need logits (M, C) and targets (M, C) or (M,), got {_shape(logits)} and {_shape(targets)}")
    cross_entropy = soft_cross_entropy(logits, targets[: len(logits)])
    contrast = focal_contrast(z, targets, tau=tau, focal=focal, normalisation=normalisation)
    return {"loss": cross_entropy + eta * contrast, "cross_entropy": cross_entropy, "contrast": contrast}


def core_tuning(
    logits: Tensor,
    z: Tensor,
    targets: Tensor,
    *,
    eta: float = 0.1,
    tau: float | Tensor = 0.07,
    focal: bool = True,
    normalisation: str = "code",
) -> Tensor:
    """Core-tuning's loss on a pool (Zhang et al., NeurIPS 2021, arXiv 2102.06605, eq. 7): L = L_ce^m + eta L_con^f.

        L_ce^m  = (1/M) sum_m - y_m . log softmax(logits_m)          L_con^f = focal_contrast(z, y)

    >>> pool = core_tuning_pool(h, labels, classes=10)
    >>> loss = core_tuning(classifier(pool.features), head(pool.features), pool.targets)

    Args:
        logits: (M, C) scores of the pool's features. Fewer rows than targets are those of the first targets: the B
            originals alone leave the mixtures to the contrast.
        z: (M, E) projections of the pool's features; normalised here.
        targets: (M, C) label vectors, or (M,) int64.
        eta: weight of the contrast, at least 0. Its useful size depends on ``normalisation``.
        tau: temperature of the contrast, above 0.
        focal: see :func:`focal_contrast`.
        normalisation: see :func:`focal_contrast`.

    Returns:
        A scalar; with eta 0 and no mixing it is cross-entropy.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, eta or tau out of range, unknown normalisation.
    """
    return core_tuning_terms(logits, z, targets, eta=eta, tau=tau, focal=focal, normalisation=normalisation)["loss"]


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _codes(labels: Tensor, rows: int) -> Tensor:
    """(B,) class numbers of labels that may be one-hot."""
    if labels.dim() not in (1, 2) or not rows or len(labels) != rows:
        raise UserError(f"labels must be ({rows},) or ({rows}, C), one per sample, got {_shape(labels)}")
    if labels.dim() == 1:
        check_labels(labels, rows)
        return labels
    if labels.shape[1] == 1:
        raise UserError(f"labels {_shape(labels)} are a column; give ({rows},), or one-hot rows of 2 classes or more")
    hot = labels.to(torch.float32)
    if labels.device.type == "cpu" and not (bool((hot >= 0).all()) and bool((hot.sum(1) - 1).abs().max() < 1e-3)):
        raise UserError(f"labels {_shape(labels)} are no one-hot rows: each must hold shares that sum to 1")
    return hot.argmax(1)


def _one_hot(labels: Tensor, rows: int, classes: int | None, like: Tensor) -> Tensor:
    code = _codes(labels, rows)
    if labels.dim() == 2:
        if classes not in (None, labels.shape[1]):
            raise UserError(f"one-hot labels of {labels.shape[1]} classes, but classes={classes}")
        return labels.to(like)
    count = int(code.max()) + 1 if classes is None else classes
    check_range("labels", code, 0, count)
    return F.one_hot(code, count).to(like)


def _partner(partner: Tensor, rows: int) -> Tensor:
    if partner.shape != (rows,) or partner.dtype != torch.int64:
        raise UserError(f"partner must be ({rows},) int64, one per sample, got {_shape(partner)} {partner.dtype}")
    check_range("partner", partner, 0, rows)
    return partner


def _column(share: Tensor | float, name: str, like: Tensor) -> Tensor:
    """A share for every row (B, 1), or one for all (1, 1)."""
    column = torch.as_tensor(share).to(like)
    if column.shape not in ((), like.shape[:1]):
        raise UserError(f"{name} must have the shape () or ({len(like)},), got {_shape(column)}")
    if column.device.type == "cpu" and not bool(((column >= 0) & (column <= 1)).all()):
        raise UserError(f"{name} must lie in [0, 1], got {column.min().item():g} .. {column.max().item():g}")
    return column.reshape(-1, 1)
