"""SwAV: equal-partition codes by Sinkhorn's algorithm, and their swapped prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_positive, check_views, in_float32

__all__ = ["sinkhorn", "swapped_prediction", "swav", "swav_terms"]

Join = Callable[[Tensor], Tensor]
"""Puts the rows of all processes together, (n, ...) -> (W n, ...): ``engine.distributed.gather``."""


@in_float32
@torch.no_grad()
def sinkhorn(
    scores: Tensor,
    *,
    eps: float = 0.05,
    iters: int = 3,
    power_law: float = 0.0,
    hard: bool = False,
    join: Join | None = None,
) -> Tensor:
    """Codes: soft assignments of samples to prototypes under a fixed share of samples for each prototype.

    With Q = exp(scores^T / eps) (K x n) each of ``iters`` rounds scales the rows of Q to the sums r_k, then its
    columns to the sum 1/n; at last the columns are scaled to the sum 1 (SwAV, arXiv 2006.09882, eq. 3-5):

        r_k = 1/K,    or with a power-law prior (SEER, arXiv 2202.08360)    r_k = (k + 1)^(-a) / sum_j (j + 1)^(-a)

    Columns come last: every sample's code sums to 1, while the shares of the prototypes are met only nearly after a
    few rounds. Computed with logarithms, so no ``eps`` overflows and no prototype's mass underflows.

    Args:
        scores: (n, K) similarities of samples and prototypes; cosines, if ``eps`` is to mean what it does in the paper.
        eps: smoothness of the codes, above 0 (SwAV 0.05, SEER 0.03). To 0: one-hot codes. To infinity: all shares r_k.
        iters: rounds (SwAV 3, SEER 10). 0 leaves out the partition: the codes are softmax(scores / eps).
        power_law: exponent a of the prior, at least 0; 0 is the equal partition. Prototype 0 is the largest.
        hard: round every code to its largest entry.
        join: gathers rows over processes, where ``scores`` are one process' share of the samples. The rows' sums are
            then those of all samples, the columns are local: no process ever holds all codes.

    Returns:
        (n, K) codes without gradient; each row sums to 1.

    Raises:
        UserError: (a ``ValueError``) scores aren't (n, K), no samples, ``eps`` not above 0, a negative ``iters`` or
            ``power_law``.
    """
    check_views(scores)
    _check(eps, iters, power_law)
    count = scores.shape[1]
    logits = scores / eps
    prior = -power_law * torch.arange(1, count + 1, device=scores.device, dtype=scores.dtype).log()
    row, column = logits.new_zeros(count), logits.new_zeros(len(logits), 1)
    # Constants on all rows or all columns cancel in the end: neither r nor the columns' 1/n need their true sums.
    for _ in range(iters):
        mass = (logits + column).logsumexp(0, keepdim=True)
        row = prior - (join(mass) if join else mass).logsumexp(0)
        column = -(logits + row).logsumexp(1, keepdim=True)
    codes = (logits + row).softmax(1)
    return torch.zeros_like(codes).scatter_(1, codes.argmax(1, keepdim=True), 1.0) if hard else codes


def _check(eps: float, iters: int, power_law: float) -> None:
    check_positive(eps=eps)
    if iters < 0 or not power_law >= 0:
        raise UserError(f"iters and power_law can't be negative, got {iters} and {power_law}")


@in_float32
def swapped_prediction(
    *scores: Tensor, codes: Tensor, crops_for_assign: Sequence[int] = (0, 1), temperature: float | Tensor = 0.1
) -> Tensor:
    """Cross-entropy between the codes of some crops and the scores of all others (SwAV, arXiv 2006.09882, eq. 1-2).

        L = 1/|A| sum_{i in A} 1/(V-1) sum_{v != i}  -1/B sum_b sum_k q_i[b,k] log softmax_k(s_v[b] / temperature)

    Args:
        *scores: V tensors (B, K), the scores s_v of each crop.
        codes: (|A|, B, K), the codes q_i of the crops in ``crops_for_assign``; constants, no gradient flows into them.
        crops_for_assign: numbers A of the crops that ``codes`` belong to.
        temperature: above 0.

    Returns:
        A scalar >= 0; log K for scores that are all equal.

    Raises:
        UserError: (a ``ValueError``) fewer than two crops, shapes that differ, a crop number out of range.
    """
    check_views(*scores)
    check_positive(temperature=temperature)
    _check_crops(len(scores), crops_for_assign)
    check_floats(codes=codes)
    if codes.shape != (len(crops_for_assign), *scores[0].shape):
        expected = (len(crops_for_assign), *scores[0].shape)
        raise UserError(f"the codes need the shape {expected}, got {tuple(codes.shape)}")
    codes = codes.detach()
    total = scores[0].new_zeros(())
    for v, one in enumerate(scores):
        others = [q for i, q in zip(crops_for_assign, codes, strict=True) if i != v]
        if others:
            wanted = others[0] if len(others) == 1 else torch.stack(others).sum(0)
            total = total - (wanted * (one / temperature).log_softmax(1)).sum(1).mean()
    return total / (len(crops_for_assign) * (len(scores) - 1))


def _check_crops(count: int, crops_for_assign: Sequence[int]) -> None:
    if count < 2:
        raise UserError(f"{count} crop of each image: swapped prediction needs at least 2")
    chosen = list(crops_for_assign)
    if not chosen or len(set(chosen)) != len(chosen) or not all(0 <= i < count for i in chosen):
        raise UserError(f"crops_for_assign {chosen}: give different numbers from 0 to {count - 1}")


def swav(
    *scores: Tensor,
    crops_for_assign: Sequence[int] = (0, 1),
    temperature: float | Tensor = 0.1,
    eps: float = 0.05,
    iters: int = 3,
    power_law: float = 0.0,
    hard: bool = False,
    queue: Sequence[Tensor] | None = None,
    join: Join | None = None,
) -> Tensor:
    """SwAV (Caron et al., NeurIPS 2020, arXiv 2006.09882): the codes of one crop are predicted from the others.

    :func:`sinkhorn` makes the codes of the crops in A = ``crops_for_assign`` from their scores,
    :func:`swapped_prediction` compares them with the scores of all other crops. The gradient flows through the scores
    of every crop as predictions, never through codes.

    Args:
        *scores: V >= 2 tensors (B, K), one per crop: <e, c_k> of the embeddings and the prototypes, **both of length 1
            already**. Nothing is normalised here.
        crops_for_assign: numbers A of the crops that give codes, the large ones.
        temperature: of the predictions.
        eps: smoothness of the codes.
        iters: rounds of Sinkhorn's algorithm; 0 is the ablation without equal partition.
        power_law: exponent of the prior over prototypes' sizes, 0 for equal sizes.
        hard: one-hot codes.
        queue: for every crop in A the scores (L, K) of earlier samples, under the present prototypes. They take part in
            the partition, their own codes are dropped.
        join: see :func:`sinkhorn`; the loss stays a mean over the local rows.

    Returns:
        A scalar >= 0. K should stay well below the samples (B + L): more prototypes than samples can't be shared out.

    Raises:
        UserError: (a ``ValueError``) fewer than two crops, shapes that differ, hyper-parameters out of range.
    """
    return swav_terms(
        *scores, crops_for_assign=crops_for_assign, temperature=temperature, eps=eps, iters=iters,
        power_law=power_law, hard=hard, queue=queue, join=join,
    )["loss"]  # fmt: skip


def swav_terms(
    *scores: Tensor,
    crops_for_assign: Sequence[int] = (0, 1),
    temperature: float | Tensor = 0.1,
    eps: float = 0.05,
    iters: int = 3,
    power_law: float = 0.0,
    hard: bool = False,
    queue: Sequence[Tensor] | None = None,
    join: Join | None = None,
) -> dict[str, Tensor]:
    """:func:`swav` with what shows a collapse: ``used``, the share of prototypes that lead some code of this batch.

    The terms are ``loss``, ``used`` in (0, 1] and ``code_entropy``, the mean entropy of a code in nats, up to log K.
    """
    rows, _ = check_views(*scores)
    _check_crops(len(scores), crops_for_assign)
    if queue is not None and len(queue) != len(crops_for_assign):
        raise UserError(f"{len(queue)} queues for {len(crops_for_assign)} crops in crops_for_assign; give one for each")
    found = []
    for place, crop in enumerate(crops_for_assign):
        together = scores[crop].detach()
        if queue is not None:
            check_floats(queue=queue[place])
            if queue[place].dim() != 2 or queue[place].shape[1] != scores[crop].shape[1]:
                expected = f"(entries, {scores[crop].shape[1]})"
                raise UserError(f"a queue of scores needs the shape {expected}, got {tuple(queue[place].shape)}")
            together = torch.cat([queue[place].detach(), together])
        found.append(sinkhorn(together, eps=eps, iters=iters, power_law=power_law, hard=hard, join=join)[-rows:])
    codes = torch.stack(found)
    loss = swapped_prediction(*scores, codes=codes, crops_for_assign=crops_for_assign, temperature=temperature)
    leaders = torch.zeros_like(codes[0, 0]).index_fill_(0, codes.argmax(2).flatten(), 1.0)
    entropy = -torch.special.xlogy(codes, codes).sum(2).mean()
    return {"loss": loss, "used": leaders.mean(), "code_entropy": entropy}
