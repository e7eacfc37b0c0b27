"""ReSSL: two views have the same relations to a queue of other images."""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.objectives._common import check_entries, check_positive, check_views, in_float32, unit

__all__ = ["ressl", "ressl_terms"]


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
    check_entries(queue, width)
    others = unit(queue.detach())
    relations = (unit(k.detach()) @ others.T / temperature_k).softmax(1)
    log_relations = (unit(q) @ others.T / temperature_q).log_softmax(1)
    entropy = -torch.special.xlogy(relations, relations).sum(1).mean()
    return {"loss": -(relations * log_relations).sum(1).mean(), "relation_entropy": entropy}
