"""LAF: forgetting without labels, by two autoencoders and by alignment with the model before (Shen et al., ICLR 2024).

e (N, D) embeddings of a batch to keep (r) and of one to forget (f), VAE reconstructions h(e_r) and h_f(e_f)

    laf_vae     trains each VAE;   laf_ue  stay reconstructible by h, stop being so by h_f
    laf_ra      embeddings to keep stay where the model before had them, those to forget move away

The baselines that LAF is compared with, which need labels or a second model: :func:`negative_gradient`,
:func:`random_label`, :func:`bad_teacher`. arXiv 2404.00506.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_labels, check_positive, check_views, in_float32

__all__ = [
    "bad_teacher",
    "laf_phi",
    "laf_ra",
    "laf_ra_terms",
    "laf_ue",
    "laf_ue_terms",
    "laf_vae",
    "laf_vae_terms",
    "negative_gradient",
    "random_label",
    "random_other_labels",
]


# ---- the two autoencoders ----------------------------------------------------------------------------------------
@in_float32
def laf_vae_terms(
    e: Tensor, reconstruction: Tensor, mean: Tensor, log_variance: Tensor, *, kl_weight: float = 0.025
) -> dict[str, Tensor]:
    """See :func:`laf_vae`; ``loss``, ``reconstruction`` and ``kl`` (not weighted), each divided by the batch."""
    rows, _ = check_views(e, reconstruction)
    others, _ = check_views(mean, log_variance)
    if others != rows:
        raise UserError(f"{rows} embeddings but latent codes of {others}: one code for each embedding")
    if not kl_weight >= 0:
        raise UserError(f"kl_weight must be at least 0, got {kl_weight}")
    error = (reconstruction - e).square().sum() / rows
    variance = log_variance.exp()
    kl = -0.5 * ((variance + 1e-8).log() + 1 - mean.square() - variance).sum() / rows
    return {"loss": error + kl_weight * kl, "reconstruction": error, "kl": kl}


def laf_vae(
    e: Tensor, reconstruction: Tensor, mean: Tensor, log_variance: Tensor, *, kl_weight: float = 0.025
) -> Tensor:
    """The loss of a variational autoencoder of embeddings, as the released code of LAF has it.

        1/n sum_i ||e'_i - e_i||^2  -  kl_weight / 2n  sum_ik ( log(sigma_ik^2 + 1e-8) + 1 - mu_ik^2 - sigma_ik^2 )

    Args:
        e: (N, D) embeddings.
        reconstruction: (N, D), e' = h(e).
        mean: (N, L), mu.
        log_variance: (N, L), log sigma^2.
        kl_weight: weight of the divergence from the standard normal, at least 0.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, a negative weight.
    """
    return laf_vae_terms(e, reconstruction, mean, log_variance, kl_weight=kl_weight)["loss"]


# ---- extractor unlearning ----------------------------------------------------------------------------------------
@in_float32
def laf_phi(q: Tensor) -> Tensor:
    """Squash reconstruction errors q >= 0 to exp( q / (q + 1) ), in [1, e); the slope is phi / (q + 1)^2."""
    check_floats(q=q)
    return (q / (q + 1)).exp()


@in_float32
def laf_ue_terms(
    e_remain: Tensor, h_remain: Tensor, e_forget: Tensor, h_forget: Tensor, *, squash: bool = True
) -> dict[str, Tensor]:
    """See :func:`laf_ue`; ``loss`` = ``remain`` - ``forget``, the two sums."""
    check_views(e_remain, h_remain)
    check_views(e_forget, h_forget)

    def sum_of(e: Tensor, h: Tensor) -> Tensor:
        q = (h - e).square().sum(1)
        return (laf_phi(q) if squash else q).sum()

    remain, forget = sum_of(e_remain, h_remain), sum_of(e_forget, h_forget)
    return {"loss": remain - forget, "remain": remain, "forget": forget}


def laf_ue(e_remain: Tensor, h_remain: Tensor, e_forget: Tensor, h_forget: Tensor, *, squash: bool = True) -> Tensor:
    """Extractor unlearning: sums over the two batches, no means (arXiv 2404.00506, with the released code's squashing).

        L_UE = sum_{i in B_r} phi( ||h(e_i) - e_i||^2 )  -  sum_{j in B_f} phi( ||h_f(e_j) - e_j||^2 )

    Gradient flows through the reconstruction and through e itself; keep the autoencoders' own weights frozen.

    Args:
        e_remain: (N, D) embeddings of samples to keep.
        h_remain: (N, D) their reconstruction by the VAE of what remains.
        e_forget: (M, D) embeddings of samples to forget; M need not be N.
        h_forget: (M, D) their reconstruction by the VAE of what goes.
        squash: phi(q) = exp(q / (q + 1)); False takes q itself, and the loss has no lower bound.

    Raises:
        UserError: (a ``ValueError``) an embedding and its reconstruction of different shapes.
    """
    return laf_ue_terms(e_remain, h_remain, e_forget, h_forget, squash=squash)["loss"]


# ---- representation alignment ------------------------------------------------------------------------------------
@in_float32
def laf_ra_terms(
    e_remain: Tensor, teacher_remain: Tensor, e_forget: Tensor, teacher_forget: Tensor, *, temperature: Tensor | float
) -> dict[str, Tensor]:
    """See :func:`laf_ra`; ``loss`` and the mean distance of each side, ``remain`` and ``forget``."""
    rows, _ = check_views(e_remain, teacher_remain)
    check_views(e_forget, teacher_forget)
    if not isinstance(temperature, Tensor):
        check_positive(temperature=temperature)
    kept = 1 - F.cosine_similarity(e_remain, teacher_remain.detach(), dim=1, eps=1e-8)
    moved = 1 - F.cosine_similarity(e_forget, teacher_forget.detach(), dim=1, eps=1e-8)
    loss = kept.sum() - rows * torch.logsumexp(moved / temperature, 0)
    return {"loss": loss, "remain": kept.mean(), "forget": moved.mean()}


def laf_ra(
    e_remain: Tensor,
    teacher_remain: Tensor,
    e_forget: Tensor,
    teacher_forget: Tensor,
    *,
    temperature: Tensor | float = 20.0,
) -> Tensor:
    """Representation alignment against the model before forgetting (arXiv 2404.00506).

        c_i = 1 - cos(e_i, e_i^teacher)
        L_RA = sum_{i in B_r} log( exp(c_i) / sum_{j in B_f} exp(c_j / T) )

    The temperature stands in the denominator only. The teacher's embeddings get no gradient. Where the student is the
    teacher, L_RA = -N log M.

    Args:
        e_remain: (N, D) embeddings of samples to keep.
        teacher_remain: (N, D) the same samples' by the model before.
        e_forget: (M, D) embeddings of samples to forget.
        teacher_forget: (M, D) the same samples' by the model before.
        temperature: T above 0; a tensor gets its gradient.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, a temperature that isn't above 0.
    """
    return laf_ra_terms(e_remain, teacher_remain, e_forget, teacher_forget, temperature=temperature)["loss"]


# ---- the baselines -----------------------------------------------------------------------------------------------
@in_float32
def negative_gradient(
    logits_remain: Tensor, labels_remain: Tensor, logits_forget: Tensor, labels_forget: Tensor, *, weight: float = 1.0
) -> Tensor:
    """Cross-entropy of what stays less ``weight`` times that of what goes (means): ascent on the samples to forget.

    Args:
        logits_remain: (N, K).
        labels_remain: (N,) int64.
        logits_forget: (M, K).
        labels_forget: (M,) int64.
        weight: of the ascent, at least 0; 0 is fine-tuning on what stays. The loss has no lower bound.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, a negative weight.
    """
    _check_weight(weight)
    _check_classes(logits_remain, logits_forget)
    return _cross_entropy(logits_remain, labels_remain) - weight * _cross_entropy(logits_forget, labels_forget)


@in_float32
def random_label(
    logits_remain: Tensor, labels_remain: Tensor, logits_forget: Tensor, wrong_labels: Tensor, *, weight: float = 1.0
) -> Tensor:
    """Cross-entropy of what stays, and ``weight`` times that of what goes against wrong labels (means).

    Args:
        logits_remain: (N, K).
        labels_remain: (N,) int64.
        logits_forget: (M, K).
        wrong_labels: (M,) int64, see :func:`random_other_labels`.
        weight: of the second term, at least 0.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, a negative weight.
    """
    _check_weight(weight)
    _check_classes(logits_remain, logits_forget)
    return _cross_entropy(logits_remain, labels_remain) + weight * _cross_entropy(logits_forget, wrong_labels)


def random_other_labels(labels: Tensor, classes: int, *, generator: torch.Generator | None = None) -> Tensor:
    """(M,) labels drawn evenly from the ``classes - 1`` that each sample is not of.

    Raises:
        UserError: (a ``ValueError``) fewer than two classes, or a label outside them.
    """
    if classes < 2 or (labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes):
        raise UserError(f"labels must lie in 0 .. classes - 1 with at least two classes, got classes={classes}")
    step = torch.randint(1, classes, labels.shape, device=labels.device, generator=generator)
    return (labels + step) % classes


@in_float32
def bad_teacher(
    logits_remain: Tensor,
    competent: Tensor,
    logits_forget: Tensor,
    incompetent: Tensor,
    *,
    temperature: Tensor | float = 1.0,
) -> Tensor:
    """A student learns what stays from the model before and what goes from an untrained one (arXiv 2205.08096, eq. 1).

        1/(N + M) [ sum_{i in B_r} KL( T_s(x_i) || S(x_i) ) + sum_{j in B_f} KL( T_d(x_j) || S(x_j) ) ]

    with softmax of the logits over ``temperature``; no label is needed, the teachers get no gradient.

    Args:
        logits_remain: (N, K) the student's.
        competent: (N, K) of the model before, T_s.
        logits_forget: (M, K) the student's.
        incompetent: (M, K) of a model with random weights, T_d.
        temperature: above 0.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, a temperature that isn't above 0.
    """
    if not isinstance(temperature, Tensor):
        check_positive(temperature=temperature)
    rows, _ = check_views(logits_remain, competent)
    others, _ = check_views(logits_forget, incompetent)
    _check_classes(logits_remain, logits_forget)
    student = torch.cat([logits_remain, logits_forget]) / temperature
    teacher = torch.cat([competent, incompetent]).detach() / temperature
    log_p, log_q = teacher.log_softmax(1), student.log_softmax(1)
    return F.kl_div(log_q, log_p, reduction="sum", log_target=True) / (rows + others)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    check_labels(labels, len(logits), logits.shape[1])
    rows, _ = check_views(logits)
    if labels.shape != (rows,):
        raise UserError(f"{rows} rows of logits need ({rows},) labels, got {tuple(labels.shape)}")
    return F.cross_entropy(logits, labels)


def _check_classes(remain: Tensor, forget: Tensor) -> None:
    if remain.dim() != 2 or forget.dim() != 2 or remain.shape[1] != forget.shape[1]:
        raise UserError(f"logits of one width are needed, got {tuple(remain.shape)} and {tuple(forget.shape)}")


def _check_weight(weight: float) -> None:
    if not weight >= 0:
        raise UserError(f"weight must be at least 0, got {weight}")
