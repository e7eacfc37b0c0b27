"""A student learns what a momentum teacher says: DINO's prototypes, ReSSL's relations to a queue."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_positive, check_views, in_float32, unit

Crops = Tensor | Sequence[Tensor]


def dino(
    student: Crops,
    teacher: Crops,
    *,
    center: Tensor | None = None,
    student_temperature: float | Tensor = 0.1,
    teacher_temperature: float | Tensor = 0.04,
) -> Tensor:
    """DINO (Caron et al., ICCV 2021, arXiv 2104.14294, eq. 3): the student's crops predict the teacher's global ones.

        L = 1/n sum_{u < U} sum_{v < V, v != u}  mean_b  -sum_k P_u[b,k] log softmax_k(s_v[b] / student_temperature)
        P_u = softmax((t_u - center) / teacher_temperature),        n = number of pairs, U (V - 1)

    The teacher is a constant. The centre keeps one prototype from winning everywhere, the teacher's low temperature
    keeps its output from becoming uniform; without the first the output collapses to one prototype, without the second
    to log K. After the loss move the centre with :func:`dino_center`.

    Args:
        student: logits of the V crops, global ones first: (V, N, K), or V tensors (N, K).
        teacher: logits of the U <= V global crops in the same order: (U, N, K), or U tensors (N, K).
        center: (K,) subtracted from the teacher's logits; None is 0 (no centring).
        student_temperature: above 0.
        teacher_temperature: above 0, below the student's; the paper warms it up from 0.04 to 0.07 in long runs.

    Returns:
        A scalar >= 0; log K where all logits and the centre are 0.

    Raises:
        UserError: (a ``ValueError``) fewer than two student crops, more teacher crops than student crops, shapes that
            differ, a temperature that isn't above 0.
    """
    return dino_terms(
        student, teacher, center=center, student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
    )["loss"]  # fmt: skip


def dino_terms(
    student: Crops,
    teacher: Crops,
    *,
    center: Tensor | None = None,
    student_temperature: float | Tensor = 0.1,
    teacher_temperature: float | Tensor = 0.04,
) -> dict[str, Tensor]:
    """:func:`dino` with what shows a collapse, both without gradient.

    ``loss``; ``teacher_entropy``, the mean entropy of P in nats (log K: uniform); ``kl`` = loss - teacher_entropy, what
    the student has still to learn (0 together with any entropy: nothing is taught).
    """
    s, t = _stack(student, "student"), _stack(teacher, "teacher")
    check_positive(student_temperature=student_temperature, teacher_temperature=teacher_temperature)
    if len(s) < 2 or len(t) > len(s):
        raise UserError(
            f"{len(t)} teacher and {len(s)} student crops: the student needs 2, and no fewer than the teacher"
        )
    if s.shape[1:] != t.shape[1:] or (center is not None and center.shape != s.shape[2:]):
        shapes = [tuple(x.shape[1:]) for x in (s, t)] + ([] if center is None else [tuple(center.shape)])
        raise UserError(f"student, teacher and centre need shapes (N, K), (N, K) and (K,), got {shapes}")
    return _dino(s, t.detach(), t.new_zeros(()) if center is None else center, student_temperature, teacher_temperature)


@in_float32
def _dino(
    student: Tensor, teacher: Tensor, center: Tensor, tau_s: float | Tensor, tau_t: float | Tensor
) -> dict[str, Tensor]:
    targets = ((teacher - center.detach()) / tau_t).softmax(2)
    every, pairs = targets.sum(0), len(teacher) * (len(student) - 1)
    loss = student.new_zeros(())
    for v, logits in enumerate(student):
        wanted = every - targets[v] if v < len(targets) else every
        loss = loss - (wanted * (logits / tau_s).log_softmax(1)).sum(1).mean() / pairs
    entropy = -torch.special.xlogy(targets, targets).sum(2).mean()
    return {"loss": loss, "teacher_entropy": entropy, "kl": (loss - entropy).detach()}


def _stack(crops: Crops, name: str) -> Tensor:
    """(V, N, K) logits from a tensor or a list of tensors (N, K)."""
    if not isinstance(crops, Tensor):
        check_views(*crops)
        crops = torch.stack(list(crops))
    if crops.dim() != 3 or not len(crops) or not crops.shape[1]:
        raise UserError(f"the {name}'s logits need the shape (crops, batch, prototypes), got {tuple(crops.shape)}")
    return crops


@torch.no_grad()
def dino_center(center: Tensor, teacher: Crops, *, momentum: float = 0.9) -> Tensor:
    """The centre after a step: momentum * center + (1 - momentum) * mean of the teacher's logits (DINO, eq. 4).

    Args:
        center: (K,), 0 at first.
        teacher: (U, N, K), or U tensors (N, K): logits, not probabilities, of all crops and all processes.
        momentum: in [0, 1].

    Returns:
        A new tensor (K,). Take it after the loss, not before.

    Raises:
        UserError: (a ``ValueError``) a momentum outside [0, 1], or logits of another width.
    """
    logits = _stack(teacher, "teacher")
    if not 0 <= momentum <= 1:
        raise UserError(f"the centre's momentum must lie in [0, 1], got {momentum}")
    if center.shape != logits.shape[2:]:
        raise UserError(f"a centre of shape {tuple(center.shape)} for logits of width {logits.shape[2]}")
    return momentum * center + (1 - momentum) * logits.to(center.dtype).mean((0, 1))


@in_float32
def ressl(
    q: Tensor, k: Tensor, queue: Tensor, *, temperature_q: float | Tensor = 0.1, temperature_k: float | Tensor = 0.04
) -> Tensor:
    """ReSSL (Zheng et al., NeurIPS 2021, arXiv 2107.09282, eq. 4-6): two views have the same relations to other images.

        L = -1/N sum_i sum_j softmax_j(<k_i, Q_j> / temperature_k) log softmax_j(<q_i, Q_j> / temperature_q)

    q_i is the student's strong view, k_i the momentum teacher's weak view of the same image, Q_j the teacher's earlier
    embeddings. The lower temperature of the teacher makes its relations the sharper ones. One direction only.

    Args:
        q: (N, D) student's projections. Scaled to length 1 here, as are the other two.
        k: (N, D) teacher's projections of the same images; constants.
        queue: (K, D) earlier projections of the teacher, without those of this batch; constants.
        temperature_q: above 0.
        temperature_k: above 0, below ``temperature_q``.

    Returns:
        A scalar >= 0. Equal to the entropy of the relations, with gradient 0, where q = k and the temperatures agree.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, an empty queue, a temperature that isn't above 0.
    """
    return ressl_terms(q, k, queue, temperature_q=temperature_q, temperature_k=temperature_k)["loss"]


@in_float32
def ressl_terms(
    q: Tensor, k: Tensor, queue: Tensor, *, temperature_q: float | Tensor = 0.1, temperature_k: float | Tensor = 0.04
) -> dict[str, Tensor]:
    """:func:`ressl` with ``relation_entropy``: the mean entropy of the teacher's relations in nats, up to log K."""
    _, width = check_views(q, k)
    check_positive(temperature_q=temperature_q, temperature_k=temperature_k)
    if queue.dim() != 2 or not len(queue) or queue.shape[1] != width:
        raise UserError(f"the queue needs the shape (entries, {width}), got {tuple(queue.shape)}")
    others = unit(queue.detach())
    relations = (unit(k.detach()) @ others.T / temperature_k).softmax(1)
    log_relations = (unit(q) @ others.T / temperature_q).log_softmax(1)
    entropy = -torch.special.xlogy(relations, relations).sum(1).mean()
    return {"loss": -(relations * log_relations).sum(1).mean(), "relation_entropy": entropy}
