"""CVRL: two clips of a video agree, all other clips of the batch do not (Qian et al., CVPR 2021, arXiv 2008.03800)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from selftaught.objectives._common import check_choice, check_positive, check_views, in_float32, softplus, unit
from selftaught.objectives._tiled import lse_self

__all__ = ["cvrl", "cvrl_terms", "cvrl_weight_decay"]

REDUCTIONS = ("sum_views", "mean_views")


@in_float32
def cvrl(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    normalize_hidden: bool = True,
    reduction: str = "sum_views",
) -> Tensor:
    """The loss of the official code. With s(u, v) = u.v / tau, z = z1 and z' = z2:

        L_a = mean_i -log exp s(z_i, z'_i) / ( sum_k exp s(z_i, z'_k) + sum_{k != i} exp s(z_i, z_k) )
        L_b = the same with z and z' exchanged;    L = L_a + L_b  ("sum_views")  or half of it ("mean_views")

    Half of the sum is SimCLR's mean over 2N anchors. The paper (eq. 1) writes one anchor's term; the code sums both.

    Args:
        z1: (N, D) projections of the first clips; row i of both is of one video.
        z2: (N, D) projections of the second clips.
        temperature: tau, above 0; a tensor of one number gets a gradient.
        normalize_hidden: scale rows to length 1 (default True).
        reduction: sum_views (the code) or mean_views.

    Returns:
        A scalar. One video has no negatives: exactly 0, with a warning. All projections equal: 2 log(2N - 1) for
        sum_views.

    Raises:
        UserError: shapes differ or aren't (N, D), an empty batch, a temperature that isn't above 0, another reduction.
    """
    rows, _ = check_views(z1, z2)
    check_positive(temperature=temperature)
    check_choice("reduction", reduction, REDUCTIONS)
    if rows == 1:
        warnings.warn("cvrl: a batch of one video has no negatives, the loss is 0; raise the batch size", stacklevel=2)
    both = torch.cat([z1, z2])
    both = unit(both) if normalize_hidden else both
    own = torch.arange(2 * rows, device=both.device)
    exclude = torch.stack([own, (own + rows) % (2 * rows)], dim=1)
    bound = 1 / temperature if normalize_hidden else None
    negatives = lse_self(both, scale=1 / temperature, exclude=exclude, bound=bound)
    positive = ((both[:rows] * both[rows:]).sum(1) / temperature).repeat(2)
    loss = softplus(negatives - positive).mean()
    return 2 * loss if reduction == "sum_views" else loss


@in_float32
def cvrl_terms(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    normalize_hidden: bool = True,
    reduction: str = "sum_views",
) -> dict[str, Tensor]:
    """:func:`cvrl` as ``loss``, with the code's two diagnostics, which have no gradient.

    ``contrast_acc``: share of i with argmax_k s(z_i, z'_k) = i; ``contrast_entropy``: mean over i of
    -sum_k p log(p + 1e-8), p the softmax over k of s(z_i, z'_k).
    """
    loss = cvrl(z1, z2, temperature=temperature, normalize_hidden=normalize_hidden, reduction=reduction)
    with torch.no_grad():
        a, b = (unit(z1), unit(z2)) if normalize_hidden else (z1, z2)
        logits = a @ b.T / temperature
        own = torch.arange(len(a), device=a.device)
        p = logits.softmax(1)
        entropy = -(p * (p + 1e-8).log()).sum(1).mean()
    return {
        "loss": loss,
        "contrast_acc": (logits.argmax(1) == own).to(logits.dtype).mean(),
        "contrast_entropy": entropy,
    }


def cvrl_weight_decay(kernels: Iterable[Tensor], weight: float = 1e-6) -> Tensor:
    """lambda sum 0.5 ||W||^2 over the kernels of convolutions and linear layers, which the code adds to its loss.

    Args:
        kernels: weights with two dimensions or more; others (biases, BatchNorm) are left out.
        weight: lambda, 0 or more.
    """
    total = torch.zeros(())
    for kernel in kernels:
        if kernel.ndim > 1:
            total = total.to(kernel.device) + 0.5 * kernel.float().square().sum()
    return weight * total
