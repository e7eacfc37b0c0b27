"""GOPro: the right class, prompts that agree between views, features that agree between views (arXiv 2308.11605)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_labels, check_views, in_float32
from selftaught.objectives.simclr import simclr

__all__ = ["gopro", "gopro_semantic", "gopro_terms"]


@in_float32
def gopro_semantic(text: Tensor, *others: Tensor) -> Tensor:
    """L_sem = sum over the other views of the mean over all B K D entries of (T - T')^2; gradient into all.

    Args:
        text: (B, K, D) text embeddings made for the image.
        *others: (B, K, D), made for its other views.

    Raises:
        UserError: (a ``ValueError``) shapes that differ, no other view.
    """
    if not others or text.dim() != 3 or any(other.shape != text.shape for other in others) or not text.numel():
        shapes = [tuple(t.shape) for t in (text, *others)]
        raise UserError(f"text embeddings of an image and of its views are (B, K, D), all alike; got {shapes}")
    check_floats(text=text, other=next((o for o in others if not o.is_floating_point()), None))
    return sum((F.mse_loss(text, other) for other in others), start=text.new_zeros(()))


def gopro(
    logits: Tensor,
    labels: Tensor,
    text: Tensor,
    text_moco: Tensor,
    text_augmix: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    con_weight: float = 0.1,
    sem_weight: float = 1.0,
    temperature: float = 0.1,
) -> Tensor:
    """L = L_ce + w_sem L_sem + w_con L_con.

        L_ce  = mean_i CE(logits_i, y_i)                       logits_i = s T_i f_i, each image with its own prompts
        L_sem = MSE(T, T^mo) + MSE(T, T^au)                    mean over all B K D entries (:func:`gopro_semantic`)
        L_con = NT-Xent(a, b) at temperature tau               2B - 1 candidates a row, both ways (:func:`simclr`)

    Args:
        logits: (B, K) of the original view.
        labels: (B,) int64.
        text: (B, K, D) text embeddings T of the original view.
        text_moco: (B, K, D) of the MoCo-style view.
        text_augmix: (B, K, D) of the AugMix view.
        a: (B, D') projections of the original view; with several processes gathered, with gradient.
        b: (B, D') projections of the MoCo-style view.
        con_weight: w_con.
        sem_weight: w_sem.
        temperature: tau.

    Returns:
        A scalar >= 0.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, fewer than two rows of ``a``, labels out of range.
    """
    return gopro_terms(
        logits, labels, text, text_moco, text_augmix, a, b, con_weight=con_weight, sem_weight=sem_weight,
        temperature=temperature,
    )["loss"]  # fmt: skip


@in_float32
def gopro_terms(
    logits: Tensor,
    labels: Tensor,
    text: Tensor,
    text_moco: Tensor,
    text_augmix: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    con_weight: float = 0.1,
    sem_weight: float = 1.0,
    temperature: float = 0.1,
) -> dict[str, Tensor]:
    """:func:`gopro` with its terms ``ce``, ``sem``, ``con`` and ``loss``; a weight of 0 leaves its term out."""
    rows, classes = check_views(logits)
    check_labels(labels, rows, classes)
    if text.dim() != 3 or text.shape[:2] != logits.shape:
        raise UserError(f"text embeddings are (B, K, D) for logits {tuple(logits.shape)}, got {tuple(text.shape)}")
    check_views(a, b, minimum=2, why=" (there are no negatives); raise the batch size")
    terms = {"ce": F.cross_entropy(logits, labels)}
    terms["loss"] = terms["ce"]
    if sem_weight:
        terms["sem"] = gopro_semantic(text, text_moco, text_augmix)
        terms["loss"] = terms["loss"] + sem_weight * terms["sem"]
    if con_weight:
        terms["con"] = simclr(a, b, temperature=temperature)
        terms["loss"] = terms["loss"] + con_weight * terms["con"]
    return terms
