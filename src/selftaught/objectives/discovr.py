"""DISCOVR: an image branch hands its semantics to a video branch by cluster assignments (2025, arXiv 2506.11777).

    L = w_s L_SCD + w_v L_vid + w_i L_img

L_vid and L_img are self-distillation of masked views (:func:`masked_distillation`), L_SCD is semantic cluster
distillation (:func:`cluster_distillation`) between the decoder's tokens of a clip and the image teacher's tokens of its
frames (:func:`paired_tokens`). :func:`sigma` and :func:`videomae` are the baselines that fill in what is hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_floats, check_positive, in_float32
from selftaught.objectives._masked import masked_prediction, normalised_patches
from selftaught.objectives._token_clusters import (
    check_tokens,
    cluster_distillation,
    cluster_distillation_terms,
    sigma,
    sigma_terms,
)
from selftaught.objectives.dino import dino_center
from selftaught.objectives.swav import Join

__all__ = [
    "cluster_distillation",
    "cluster_distillation_terms",
    "discovr",
    "discovr_center",
    "discovr_temperature",
    "discovr_terms",
    "masked_distillation",
    "masked_distillation_terms",
    "masked_prediction",
    "normalised_patches",
    "paired_tokens",
    "sigma",
    "sigma_terms",
    "standardised_tokens",
    "videomae",
]

_FRAMES = 256
"""Frames to which the authors' code scales its image term."""


# ---- tokens of the image branch -------------------------------------------------------------------------------------
@in_float32
def standardised_tokens(tokens: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Every channel of a sample with its mean and deviation over the tokens taken out.

        z = (x - mean_n(x)) / (sqrt(var_n(x)) + eps),      var with divisor N - 1

    Args:
        tokens: (B, N, D), N at least 2.
        eps: keeps a constant channel finite; it comes out as 0.

    Returns:
        (B, N, D), with gradient.

    Raises:
        UserError: (a ``ValueError``) not (B, N, D), or a single token, whose variance is NaN.
    """
    check_tokens(tokens)
    if tokens.shape[1] < 2:
        raise UserError("standardising over one token would divide by a NaN variance: use smaller patches")
    return (tokens - tokens.mean(1, keepdim=True)) / (tokens.std(1, keepdim=True) + eps)


@torch.no_grad()
def paired_tokens(frames: Tensor, *, tubelet: int = 2, pairing: str = "intended") -> Tensor:
    """The image teacher's tokens, standardised over the clip and brought into the order of the video's tokens.

    The video token of tubelet t at place n belongs to the image token of the tubelet's first frame at the same place:
    frames 0, tubelet, 2 tubelet, ... in raster order. The authors' code takes every ``tubelet``-th *token* of the
    flattened (frame, place) axis instead, and compares it with video tokens in the order [visible, hidden]; with
    ``pairing="official"`` the tokens come that way and pair with nothing (the order of the video's tokens is the
    caller's: :func:`selftaught.networks.visible_first`).

    Args:
        frames: (B, T, n, D) patch tokens of every frame, class tokens dropped.
        tubelet: frames that a video token covers; T is a multiple of it.
        pairing: "intended" or "official".

    Returns:
        (B, T / tubelet * n, D), without gradient.

    Raises:
        UserError: (a ``ValueError``) another shape, T not a multiple of ``tubelet``, an unknown pairing.
    """
    check_choice("pairing", pairing, ("intended", "official"))
    if frames.dim() != 4 or not frames.is_floating_point():
        raise UserError(f"frames need the shape (batch, frames, places, width), got {tuple(frames.shape)}")
    if tubelet < 1 or frames.shape[1] % tubelet:
        raise UserError(f"{frames.shape[1]} frames are no multiple of tubelet={tubelet}")
    tokens = standardised_tokens(frames.flatten(1, 2))
    if pairing == "official":
        return tokens[:, ::tubelet]
    return tokens.unflatten(1, frames.shape[1:3])[:, ::tubelet].flatten(1, 2)


# ---- self-distillation of masked views ------------------------------------------------------------------------------
def masked_distillation(
    student: Tensor,
    teacher: Tensor,
    *,
    center: Tensor | None = None,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    official_scale: bool = False,
    chunk: int = 1024,
) -> Tensor:
    """Masked views predict what the teacher says of the whole: DINO with masks for crops (DISCOVR's L_vid and L_img).

        p = softmax((t - c) / tau_t),      L = 1/V sum_m mean_B  -sum_k p[b,k] log softmax_k(s_m[b] / tau_s)

    The teacher is a constant. After the loss move the centre with :func:`discovr_center`.

    Args:
        student: (V, B, K) logits of the class tokens of V masked views; in the image branch B counts frames.
        teacher: (B, K) logits of the class token with nothing hidden.
        center: (K,), None is 0.
        student_temperature: tau_s, above 0.
        teacher_temperature: tau_t, above 0; see :func:`discovr_temperature`.
        official_scale: the image term as the authors' code has it: frames in chunks, of which only the last one counts,
            times 256 / (frames in that chunk). For comparison with their numbers alone.
        chunk: frames in a chunk, with ``official_scale``.

    Returns:
        A scalar >= 0; log K where all logits and the centre are 0.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, a temperature that isn't above 0, an empty chunk.
    """
    return masked_distillation_terms(
        student, teacher, center=center, student_temperature=student_temperature,
        teacher_temperature=teacher_temperature, official_scale=official_scale, chunk=chunk,
    )["loss"]  # fmt: skip


@in_float32
def masked_distillation_terms(
    student: Tensor,
    teacher: Tensor,
    *,
    center: Tensor | None = None,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    official_scale: bool = False,
    chunk: int = 1024,
) -> dict[str, Tensor]:
    """:func:`masked_distillation` with ``teacher_entropy``, the mean entropy of p in nats, without gradient.

    An entropy that goes to 0 or to log K is a collapse.
    """
    check_floats(student=student, teacher=teacher, center=center)
    _check_logits(student, teacher, center)
    check_positive(student_temperature=student_temperature, teacher_temperature=teacher_temperature, chunk=chunk)
    scale = 1.0
    if official_scale:
        last = teacher.shape[0] - (teacher.shape[0] - 1) // chunk * chunk
        student, teacher, scale = student[:, -last:], teacher[-last:], _FRAMES / last
    p = _probabilities(teacher, center, teacher_temperature)
    entropy = -torch.special.xlogy(p, p).sum(1).mean()
    loss = -(p * (student / student_temperature).log_softmax(2)).sum(2).mean()
    return {"loss": scale * loss, "teacher_entropy": entropy}


def _probabilities(teacher: Tensor, center: Tensor | None, temperature: float) -> Tensor:
    logits = teacher.detach() if center is None else teacher.detach() - center.detach()
    return (logits / temperature).softmax(1)


def _check_logits(student: Tensor, teacher: Tensor, center: Tensor | None) -> None:
    fits = student.dim() == 3 and student.shape[1:] == teacher.shape and 0 not in student.shape
    if not fits or (center is not None and center.shape != teacher.shape[1:]):
        shapes = [tuple(t.shape) for t in (student, teacher, center) if t is not None]
        raise UserError(f"student, teacher and centre need shapes (V, B, K), (B, K) and (K,), got {shapes}")


@in_float32
@torch.no_grad()
def discovr_center(
    center: Tensor,
    teacher: Tensor,
    *,
    momentum: float = 0.9,
    center_input: str = "logits",
    teacher_temperature: float = 0.04,
    join: Join | None = None,
) -> Tensor:
    """The centre after a step: c <- momentum c + (1 - momentum) mean_B(t).

    Args:
        center: (K,), 0 at first.
        teacher: (B, K) logits of the teacher.
        momentum: in [0, 1] (0.9 in the launch script, 0.8 where the authors' class is used alone).
        center_input: "logits", as in DINO, or "probs": the authors' code averages p = softmax((t - c) / tau_t) instead,
            whereby c stays near 1/K and centres nothing.
        teacher_temperature: tau_t, for "probs".
        join: gathers rows over processes of equal batches.

    Returns:
        A new tensor (K,). Take it after the loss, not before.

    Raises:
        UserError: (a ``ValueError``) a momentum outside [0, 1], shapes that don't fit, an unknown ``center_input``.
    """
    check_floats(center=center, teacher=teacher)
    check_choice("center_input", center_input, ("logits", "probs"))
    check_positive(teacher_temperature=teacher_temperature)
    _check_logits(teacher[None], teacher, center)
    rows = teacher if center_input == "logits" else _probabilities(teacher, center, teacher_temperature)
    mean = rows.mean(0, keepdim=True)
    return dino_center(center, (join(mean) if join else mean)[None], momentum=momentum)


def discovr_temperature(epoch: float, *, start: float = 0.04, end: float = 0.07, warmup: float = 30.0) -> float:
    """The teacher's temperature: a line from ``start`` to ``end`` over ``warmup`` epochs, then constant.

    Args:
        epoch: passes over the data so far, also between two of them.
        start: above 0.
        end: above 0.
        warmup: epochs; 0 is ``end`` from the beginning.

    Raises:
        UserError: (a ``ValueError``) a temperature that isn't above 0, or a negative warm-up.
    """
    check_positive(start=start, end=end)
    if not warmup >= 0:
        raise UserError(f"warmup can't be negative, got {warmup}")
    return end if epoch >= warmup else start + max(epoch, 0.0) / warmup * (end - start)


# ---- the whole ------------------------------------------------------------------------------------------------------
def discovr(
    video_tokens: Tensor,
    frame_tokens: Tensor,
    prototypes: Tensor,
    video_student: Tensor,
    video_teacher: Tensor,
    image_student: Tensor,
    image_teacher: Tensor,
    *,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    video_center: Tensor | None = None,
    image_center: Tensor | None = None,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    tubelet: int = 2,
    pairing: str = "intended",
    targets: str = "hard",
    score_temperature: float = 0.1,
    eps: float = 0.05,
    iters: int = 10,
    official_scale: bool = False,
    join: Join | None = None,
) -> Tensor:
    """DISCOVR (arXiv 2506.11777): L = w_s L_SCD + w_v L_vid + w_i L_img.

    Args:
        video_tokens: (B, T / tubelet * n, D) all tokens of the video's decoder, in raster order.
        frame_tokens: (B, T, n, D) patch tokens of every frame from the image teacher; constants.
        prototypes: (K, D).
        video_student: (V, B, K_d) logits of the video's masked views.
        video_teacher: (B, K_d) logits of the whole clips.
        image_student: (V', B T, K_d) logits of the frames' masked views.
        image_teacher: (B T, K_d) logits of the whole frames.
        weights: (w_s, w_v, w_i).
        video_center: (K_d,) of the video teacher; None is 0.
        image_center: (K_d,) of the image teacher.
        student_temperature, teacher_temperature: of both distillations, see :func:`masked_distillation`.
        tubelet, pairing: see :func:`paired_tokens`.
        targets, score_temperature, eps, iters, join: see :func:`cluster_distillation`.
        official_scale: of the image term, see :func:`masked_distillation`.

    Returns:
        A scalar >= 0 (for weights that aren't negative).

    Raises:
        UserError: (a ``ValueError``) as the three terms raise it.
    """
    return discovr_terms(
        video_tokens, frame_tokens, prototypes, video_student, video_teacher, image_student, image_teacher,
        weights=weights, video_center=video_center, image_center=image_center,
        student_temperature=student_temperature, teacher_temperature=teacher_temperature, tubelet=tubelet,
        pairing=pairing, targets=targets, score_temperature=score_temperature, eps=eps, iters=iters,
        official_scale=official_scale, join=join,
    )["loss"]  # fmt: skip


def discovr_terms(
    video_tokens: Tensor,
    frame_tokens: Tensor,
    prototypes: Tensor,
    video_student: Tensor,
    video_teacher: Tensor,
    image_student: Tensor,
    image_teacher: Tensor,
    *,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    video_center: Tensor | None = None,
    image_center: Tensor | None = None,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    tubelet: int = 2,
    pairing: str = "intended",
    targets: str = "hard",
    score_temperature: float = 0.1,
    eps: float = 0.05,
    iters: int = 10,
    official_scale: bool = False,
    join: Join | None = None,
) -> dict[str, Tensor]:
    """:func:`discovr` with its terms: ``loss``, ``scd``, ``video``, ``image``, and what shows a collapse.

    The latter are ``agreement`` and ``used_prototypes`` of :func:`cluster_distillation_terms`, and ``video_entropy``
    and ``image_entropy`` of the two teachers.
    """
    partners = paired_tokens(frame_tokens, tubelet=tubelet, pairing=pairing)
    scd = cluster_distillation_terms(
        video_tokens, partners, prototypes, targets=targets, temperature=score_temperature, eps=eps, iters=iters,
        join=join,
    )  # fmt: skip
    video, image = (
        masked_distillation_terms(
            student, teacher, center=center, student_temperature=student_temperature,
            teacher_temperature=teacher_temperature, official_scale=scaled,
        )
        for student, teacher, center, scaled in (
            (video_student, video_teacher, video_center, False),
            (image_student, image_teacher, image_center, official_scale),
        )
    )  # fmt: skip
    total = weights[0] * scd["loss"] + weights[1] * video["loss"] + weights[2] * image["loss"]
    return {
        "loss": total,
        "scd": scd["loss"],
        "video": video["loss"],
        "image": image["loss"],
        "agreement": scd["agreement"],
        "used_prototypes": scd["used_prototypes"],
        "video_entropy": video["teacher_entropy"],
        "image_entropy": image["teacher_entropy"],
    }


# ---- a baseline -----------------------------------------------------------------------------------------------------
def videomae(prediction: Tensor, patches: Tensor, mask: Tensor, *, channels: int = 3, normalise: bool = True) -> Tensor:
    """VideoMAE (Tong et al., NeurIPS 2022, arXiv 2203.12602): the mean squared error of hidden tubelets' pixels.

    Args:
        prediction: (N, L, C P) of all tubelets.
        patches: (N, L, C P) their pixels, channel after channel; see :func:`selftaught.networks.patchify`.
        mask: (N, L) bool, True where hidden.
        channels: C.
        normalise: compare with :func:`normalised_patches`, channel by channel; off: with the pixels.

    Returns:
        A scalar >= 0; about 1 for a prediction of 0 with ``normalise``.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, nothing hidden.
    """
    return masked_prediction(prediction, normalised_patches(patches, channels=channels) if normalise else patches, mask)
