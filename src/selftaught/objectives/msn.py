"""MSN: masked views take the soft clusters of whole ones."""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_positive, in_float32, unit
from selftaught.objectives.swav import Join, sinkhorn

__all__ = ["msn", "msn_terms"]


def msn(
    anchors: Tensor,
    target: Tensor,
    prototypes: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    target_temperature: float | Tensor = 0.025,
    lambda_: float = 1.0,
    iterations: int = 0,
    join: Join | None = None,
) -> Tensor:
    """MSN (Assran et al., ECCV 2022, arXiv 2204.07141, eq. 1): masked anchors predict the target's prototypes.

        L = 1/(V N) sum_{v,n} H(q_n, p_vn) - lambda H(mean p),        H(p, q) = - sum_k p_k log q_k
        p = softmax(z C^T / tau),    q = softmax(z_t C^T / tau_t)        z, z_t and the rows of C of length 1

    The target is sharper than the anchors, and a constant; the entropy of the mean prediction keeps all prototypes in
    use.

    Args:
        anchors: z (V, N, D) embeddings of V masked views; normalised here. With several processes: gathered.
        target: z_t (N, D) embedding of the whole view; a constant, and so are the prototypes it is compared with.
        prototypes: C (K, D); normalised here.
        temperature: tau, above 0.
        target_temperature: tau_t, above 0, below tau.
        lambda_: weight of the entropy.
        iterations: rounds of Sinkhorn's algorithm that even out the targets over prototypes; 0 for none.
        join: see :func:`sinkhorn`.

    Returns:
        A scalar; (1 - lambda) log K for embeddings equally far from all prototypes.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, a temperature that isn't above 0, negative iterations.
    """
    return msn_terms(
        anchors, target, prototypes, temperature=temperature, target_temperature=target_temperature, lambda_=lambda_,
        iterations=iterations, join=join,
    )["loss"]  # fmt: skip


@in_float32
def msn_terms(
    anchors: Tensor,
    target: Tensor,
    prototypes: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    target_temperature: float | Tensor = 0.025,
    lambda_: float = 1.0,
    iterations: int = 0,
    join: Join | None = None,
) -> dict[str, Tensor]:
    """:func:`msn` with its terms: ``loss``, ``match`` (H(q, p)), ``mean_entropy`` (H(mean p)), ``target_entropy``."""
    check_floats(anchors=anchors, target=target, prototypes=prototypes)
    check_positive(temperature=temperature, target_temperature=target_temperature)
    fits = anchors.dim() == 3 and anchors.shape[1:] == target.shape and prototypes.dim() == 2
    if not fits or prototypes.shape[1:] != target.shape[1:] or 0 in anchors.shape or not len(prototypes):
        shapes = [tuple(t.shape) for t in (anchors, target, prototypes)]
        raise UserError(f"anchors, target and prototypes need shapes (V, N, D), (N, D) and (K, D), got {shapes}")
    centres = unit(prototypes)
    scores = unit(anchors) @ centres.T / temperature
    # without rounds of Sinkhorn's algorithm its codes are the softmax
    q = sinkhorn(unit(target) @ centres.T, eps=float(target_temperature), iters=iterations, join=join)
    log_p = scores.log_softmax(2)
    match = -(q * log_p).sum(2).mean()
    mean = log_p.exp().mean((0, 1))
    spread = -torch.special.xlogy(mean, mean).sum()
    entropy = -torch.special.xlogy(q, q).sum(1).mean()
    return {"loss": match - lambda_ * spread, "match": match, "mean_entropy": spread, "target_entropy": entropy}
