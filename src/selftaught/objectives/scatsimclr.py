"""ScatSimCLR: NT-Xent and a pretext task (predicting the rotation, or the permutation of a jigsaw)."""

from __future__ import annotations

from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import NO_NEGATIVES, check_views, in_float32
from selftaught.objectives.simclr import simclr
from selftaught.objectives.supervised import supervised

__all__ = ["scatsimclr", "scatsimclr_terms"]


def scatsimclr(
    z1: Tensor,
    z2: Tensor,
    logits: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    temperature: float | Tensor = 0.5,
    lambda_: float = 0.3,
) -> Tensor:
    """ScatSimCLR (Kinakh et al., ICCV-W 2021, arXiv 2108.13939): NT-Xent and, weighted, a pretext cross-entropy.

        L = L_c + lambda L_t,    L_c = NT-Xent (:func:`simclr`, mean over the 2B anchors),
        L_t = mean over the pretext images of -log softmax(logits)_label

    Args:
        z1: (B, D) projections of the first view, normalised here. With several processes: gathered.
        z2: (B, D) projections of the second view.
        logits: (M, K) predictions of the pretext head: M = 4B rotated images and K = 4, or B sets of tiles and
            K permutations. None leaves the pretext task out, which is SimCLR. Need not be gathered: a mean over rows.
        labels: (M,) int64 targets.
        temperature: tau, above 0; a tensor of one number gets a gradient.
        lambda_: weight of the pretext loss.

    Returns:
        A scalar >= 0. At initialisation L_t is about log K.

    Raises:
        UserError: (a ``ValueError``) B < 2 (no negatives), shapes that don't fit, logits without labels, a temperature
            that isn't above 0.
    """
    return scatsimclr_terms(z1, z2, logits, labels, temperature=temperature, lambda_=lambda_)["loss"]


@in_float32
def scatsimclr_terms(
    z1: Tensor,
    z2: Tensor,
    logits: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    temperature: float | Tensor = 0.5,
    lambda_: float = 0.3,
) -> dict[str, Tensor]:
    """:func:`scatsimclr` with its terms: ``loss``, ``contrast`` (L_c), and with logits ``pretext`` (L_t, no weight)."""
    check_views(z1, z2, minimum=2, why=NO_NEGATIVES)
    contrast = simclr(z1, z2, temperature=temperature)
    if logits is None and labels is not None:
        raise UserError("labels of a pretext task were given without its logits")
    if logits is None:
        return {"loss": contrast, "contrast": contrast}
    if labels is None or logits.dim() != 2 or labels.shape != logits.shape[:1]:
        given = None if labels is None else tuple(labels.shape)
        raise UserError(f"the pretext task needs logits (M, K) and labels (M,), got {tuple(logits.shape)} and {given}")
    pretext = supervised(logits, labels)
    return {"loss": contrast + lambda_ * pretext, "contrast": contrast, "pretext": pretext}
