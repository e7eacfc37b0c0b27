"""LVM-Med: two views of a batch are two graphs, and the network must find the matching between them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_positive, check_views, in_float32, unit
from selftaught.objectives._graph_matching import edge_affinity, graph_matching, knn_edges, match_graphs
from selftaught.objectives._local_affinity import grid_centres, local_similarity

__all__ = [
    "edge_affinity",
    "graph_matching",
    "grid_centres",
    "knn_edges",
    "local_similarity",
    "lvm_med",
    "lvm_med_terms",
    "match_graphs",
]


def lvm_med(
    z1: Tensor,
    z2: Tensor,
    *,
    local: Tensor | None = None,
    edges: tuple[Tensor, Tensor] | None = None,
    alpha: float = 0.8,
    k: int = 5,
    second_order: bool = True,
    edge_weight: float = 1.0,
    solver: str = "ipfp",
    starts: int = 4,
    gumbel_scale: float = 0.1,
    lam: float = 80.0,
    kappa: float = 1.0,
    margin: float = 0.0,
) -> Tensor:
    """Second-order graph matching, the objective of LVM-Med (Nguyen et al., NeurIPS 2023, arXiv 2306.11925, eq. 1-8).

        c^v = alpha local + (1 - alpha) cos(z1_i, z2_a)              c^e = cos(z1_i - z1_j, z2_a - z2_b) on edge pairs
        vhat = argmax_v <c^v, v> + sum_{(i,j), (a,b)} c^e v_ia v_jb  over permutation matrices v
        L    = sum [vhat (1 - v*) + (1 - vhat) v*] / (2N)            the share of wrong matches; v* the identity

    The solver sees c + gumbel_scale times Gumbel(0, 1) noise; for the gradient see :func:`graph_matching`. It is that
    of the Hamming distance divided by N, so that the learning rate doesn't depend on N.

    Args:
        z1: (N, F) vertex embeddings of the first view, after message passing. Normalised here.
        z2: (N, F) of the second view; row i is the match of row i.
        local: (N, N) local affinities, such as :func:`local_similarity`; None leaves the global ones alone (alpha 0).
        edges: the edges (E, 2) and (E', 2) of the two graphs; None takes the k nearest neighbours of z1 and of z2.
        alpha: weight of the local affinity, in [0, 1].
        k: neighbours of a vertex, where ``edges`` aren't given.
        second_order: off leaves the edges out: a linear assignment, matching-based contrastive learning.
        edge_weight: factor on c^e. The paper has 1, with which a vertex's dozen edges outweigh it; 0.1 balances them.
        solver: "ipfp", "assignment" (of the vertices alone) or "exhaustive" (up to 8 vertices).
        starts: of ipfp.
        gumbel_scale: of the noise; 0 is deterministic, but then a batch that is matched already has no gradient. (The
            paper's unit noise would drown cosines.)
        lam: how far the second solve is pushed to the truth, above 0; infinite makes it the truth.
        kappa: scale of the gradient: 1 (implicit maximum likelihood) or 1/lam (black-box).
        margin: subtracted from the true matches' affinity before the first solve.

    Returns:
        A scalar in [0, 1]. One vertex: 0.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, alpha outside [0, 1], an unknown solver, a k or lam that
            isn't above 0, an exhaustive search among more than 8 vertices.
    """
    return lvm_med_terms(
        z1, z2, local=local, edges=edges, alpha=alpha, k=k, second_order=second_order, edge_weight=edge_weight,
        solver=solver, starts=starts, gumbel_scale=gumbel_scale, lam=lam, kappa=kappa, margin=margin,
    )["loss"]  # fmt: skip


@in_float32
def lvm_med_terms(
    z1: Tensor,
    z2: Tensor,
    *,
    local: Tensor | None = None,
    edges: tuple[Tensor, Tensor] | None = None,
    alpha: float = 0.8,
    k: int = 5,
    second_order: bool = True,
    edge_weight: float = 1.0,
    solver: str = "ipfp",
    starts: int = 4,
    gumbel_scale: float = 0.1,
    lam: float = 80.0,
    kappa: float = 1.0,
    margin: float = 0.0,
) -> dict[str, Tensor]:
    """:func:`lvm_med` with what there is to watch: ``loss``, and ``agreement``, the mean affinity of true matches."""
    rows, _ = check_views(z1, z2)
    check_positive(k=k)
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha must lie in [0, 1], got {alpha}")
    vertex = unit(z1) @ unit(z2).T
    if local is not None:
        check_floats(local=local)
        if local.shape != (rows, rows):
            raise UserError(f"local affinities must be ({rows}, {rows}), got {tuple(local.shape)}")
        vertex = alpha * local + (1 - alpha) * vertex
    pairs: dict[str, Any] = {}
    if second_order:
        source, target = edges if edges is not None else (knn_edges(z1, k), knn_edges(z2, k))
        affinity = edge_weight * edge_affinity(z1, z2, source, target)
        pairs = {"edge": affinity, "source": source, "target": target}
    distance = graph_matching(
        vertex, **pairs, solver=solver, starts=starts, gumbel_scale=gumbel_scale, lam=lam, kappa=kappa, margin=margin
    )
    share = distance.detach() / (2 * rows) + (distance - distance.detach()) / rows
    return {"loss": share, "agreement": vertex.detach().diagonal().mean()}
