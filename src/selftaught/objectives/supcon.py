"""Supervised contrast: a class's images attract one another."""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import (
    check_choice,
    check_positive,
    check_views,
    in_float32,
    one_number,
    softplus,
    unit,
)
from selftaught.objectives._tiled import lse_self

__all__ = ["supcon"]

LARGEST = 64
"""Rows of a class whose similarities are held as a matrix; classes up to this size have a loss that is exact near 0."""


@in_float32
def supcon(
    *views: Tensor,
    labels: Tensor | None = None,
    temperature: float | Tensor = 0.1,
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
        labels: (N,) integers. None: every sample is a class of its own, which of two views makes NT-Xent (``simclr``).
        temperature: t, above 0; a tensor of one number gets a gradient.
        form: where the mean over the positives stands, ``"out"`` of the logarithm (the paper's choice) or ``"in"``.
        base_temperature: the loss is multiplied by temperature / base_temperature (the authors' code: 0.07); None: 1.

    Returns:
        A scalar >= 0, exact near 0 where classes have few rows. Rows without a positive are left out of the mean; with
        none left it is 0, gradient included.

    Raises:
        UserError: (a ``ValueError``) no views, shapes differ, one row in all, labels of another length, an unknown
            form, a temperature that isn't above 0.
    """
    check_choice("form", form, ("out", "in"))
    check_positive(temperature=temperature, base_temperature=1.0 if base_temperature is None else base_temperature)
    if not views:
        raise UserError("supcon needs at least one view (N, D)")
    rows, _ = check_views(*views, minimum=2 if len(views) == 1 else 1, why=" (one row has nothing to compare with)")
    z, scale = unit(torch.cat(views)), 1 / temperature
    _, group, size = _labels(labels, rows, z).repeat(len(views)).unique(return_inverse=True, return_counts=True)
    group, order = group.sort()  # classes side by side; the mean over the rows has no order
    z, kept, others = z[order], size[group] > 1, (size[group] - 1).clamp_min(1)
    if int(size.max()) <= LARGEST:
        own, gap = _positives(z, size, scale)
        negatives = lse_self(z, scale=scale, group=group, bound=scale)
        loss = softplus(negatives - own) + (gap if form == "out" else others.to(z.dtype).log())
    else:
        itself = torch.arange(len(z), device=z.device).unsqueeze(1)
        partition = lse_self(z, scale=scale, exclude=itself, bound=scale)
        if form == "out":
            sums = z.new_zeros(len(size), z.shape[1]).index_add(0, group, z)
            loss = partition - ((sums[group] - z) * z).sum(1) * scale / others
        else:
            loss = partition - _positives(z, size, scale)[0] + others.to(z.dtype).log()
    total = torch.where(kept, loss, 0.0).sum() / kept.sum().clamp_min(1)
    return total if base_temperature is None else total * (one_number(temperature) / base_temperature)


def _labels(labels: Tensor | None, rows: int, like: Tensor) -> Tensor:
    if labels is None:
        return torch.arange(rows, device=like.device)
    if labels.shape != (rows,):
        raise UserError(f"labels must have the shape ({rows},), one per sample, got {tuple(labels.shape)}")
    if labels.is_floating_point():
        raise UserError(f"labels must be integers, got {labels.dtype}")
    return labels


def _positives(z: Tensor, size: Tensor, scale: float | Tensor) -> tuple[Tensor, Tensor]:
    """Log-sum-exp (N,) of each row's logits with the others of its class, and that less their mean (N,); alone: 0.

    Rows of a class stand side by side. Classes of equal size go together as one batched product, large ones one by one:
    no N x N matrix is held.
    """
    first = size.cumsum(0) - size
    sums, gaps = z.new_zeros(len(z)), z.new_zeros(len(z))
    for count in size.unique().tolist():
        if count == 1:
            continue
        members = first[size == count].unsqueeze(1) + torch.arange(count, device=z.device)
        for part in members.split(max(1, 4096 // count)) if count <= LARGEST else members.split(1):
            found = _within(z[part], scale) if count <= LARGEST else (_within_large(z[part[0]], scale), None)
            sums = sums.index_put((part.flatten(),), found[0].flatten())
            if found[1] is not None:
                gaps = gaps.index_put((part.flatten(),), found[1].flatten())
    return sums, gaps


def _within(z: Tensor, scale: float | Tensor) -> tuple[Tensor, Tensor]:
    """The same of classes (G, n, D): (G, n) twice."""
    logits = z @ z.transpose(1, 2) * scale
    itself = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
    apart = logits.clone()  # both parts of the gap's gradient meet here first: of one positive they cancel exactly
    mean = apart.masked_fill(itself, 0.0).sum(2) / (z.shape[1] - 1)
    return logits.masked_fill(itself, -torch.inf).logsumexp(2), apart.masked_fill(itself, -torch.inf).logsumexp(
        2
    ) - mean


def _within_large(z: Tensor, scale: float | Tensor) -> Tensor:
    """The log-sum-exp of one class (n, D), with memory linear in n."""
    itself = torch.arange(len(z), device=z.device).unsqueeze(1)
    return lse_self(z, scale=scale, exclude=itself, bound=scale)
