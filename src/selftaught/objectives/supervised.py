"""With labels: supervised contrast, and cross-entropy as the yardstick."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_positive, check_views, in_float32
from selftaught.objectives._tiled import lse_self


@in_float32
def supcon(
    *views: Tensor,
    labels: Tensor | None = None,
    temperature: float = 0.1,
    form: str = "out",
    base_temperature: float | None = None,
) -> Tensor:
    """Supervised contrast (Khosla et al., NeurIPS 2020, arXiv 2004.11362, eq. 2 and 3).

    Over the rows i of all views, with s_ij = cos(z_i, z_j) / t and P(i) the other rows of the same label:

        out:  L_i = log sum_{a != i} exp(s_ia) - (1/|P(i)|) sum_{p in P(i)} s_ip
        in:   L_i = log sum_{a != i} exp(s_ia) - log( (1/|P(i)|) sum_{p in P(i)} exp(s_ip) )

    and the mean over the rows that have a positive. Memory is linear in the batch.

    Args:
        *views: one or more (N, D) projections; row i belongs to the same sample in all. Normalised here.
        labels: (N,) int64. None: every sample is a class of its own, which of two views makes NT-Xent (``simclr``).
        temperature: t, above 0.
        form: where the mean over the positives stands, ``"out"`` of the logarithm (the paper's choice) or ``"in"``.
        base_temperature: the loss is multiplied by temperature / base_temperature (the authors' code: 0.07); None: 1.

    Returns:
        A scalar >= 0. Rows without a positive are left out of the mean; with none left it is 0, gradient included.

    Raises:
        UserError: (a ``ValueError``) no views, shapes differ, one row in all, labels of another length, an unknown
            form, a temperature that isn't above 0.
    """
    check_choice("form", form, ("out", "in"))
    check_positive(temperature=temperature, base_temperature=1.0 if base_temperature is None else base_temperature)
    if not views:
        raise UserError("supcon needs at least one view (N, D)")
    rows, _ = check_views(*views, minimum=2 if len(views) == 1 else 1, why=" (one row has nothing to compare with)")
    z = F.normalize(torch.cat(views), dim=1)
    _, group, size = _labels(labels, rows, z).repeat(len(views)).unique(return_inverse=True, return_counts=True)
    itself = torch.arange(len(z), device=z.device).unsqueeze(1)
    partition = lse_self(z, scale=1 / temperature, exclude=itself, bound=1 / temperature)
    positives = (size[group] - 1).to(z.dtype)
    kept = positives > 0
    if form == "out":
        sums = z.new_zeros(len(size), z.shape[1]).index_add(0, group, z)
        pull = ((sums[group] - z) * z).sum(1) / temperature / positives.clamp_min(1)
    else:
        pull = _within_groups(z, group, size, 1 / temperature) - positives.clamp_min(1).log()
    total = torch.where(kept, partition - pull, 0.0).sum() / kept.sum().clamp_min(1)
    return total if base_temperature is None else total * (temperature / base_temperature)


@in_float32
def supervised(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, mean over the batch: -sum_c y_c log softmax(logits)_c with y one-hot, or smoothed.

    Args:
        logits: (N, K).
        labels: (N,) int64 in [0, K).
        smoothing: share of the label's mass that is spread evenly over all K classes (Szegedy et al., 1512.00567).

    Returns:
        A scalar >= 0; of equal logits log K.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, or smoothing outside [0, 1).
    """
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or not len(logits):
        raise UserError(f"need logits (N, K) and labels (N,), got {tuple(logits.shape)} and {tuple(labels.shape)}")
    if not 0 <= smoothing < 1:
        raise UserError(f"smoothing must lie in [0, 1), got {smoothing}")
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def _labels(labels: Tensor | None, rows: int, like: Tensor) -> Tensor:
    if labels is None:
        return torch.arange(rows, device=like.device)
    if labels.shape != (rows,):
        raise UserError(f"labels must have the shape ({rows},), one per sample, got {tuple(labels.shape)}")
    return labels


def _within_groups(z: Tensor, group: Tensor, size: Tensor, scale: float) -> Tensor:
    """Log-sum-exp over each row's own group without itself (N,): group by group, so that no N x N matrix is held.

    A row that is alone gets 0, a constant.
    """
    order = group.argsort(stable=True)
    parts = []
    for members in z[order].split(size.tolist()):
        if len(members) == 1:
            parts.append(members.new_zeros(1))
            continue
        itself = torch.arange(len(members), device=z.device).unsqueeze(1)
        parts.append(lse_self(members, scale=scale, exclude=itself, bound=scale))
    return torch.cat(parts)[order.argsort()]
