"""LVM-Med: two views of a batch are two graphs, and the network must find the matching between them.

A real combinatorial solver stands in the middle. It gives no gradient; a second solve, of affinities pushed towards the
truth, does (implicit maximum likelihood, arXiv 2106.01798; black-box differentiation, arXiv 1912.02175).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._assignment import Problem, edge_numbers, solve
from selftaught.objectives._common import SHORTEST, check_choice, check_positive, check_views, in_float32, unit

SOLVERS = ("ipfp", "assignment", "exhaustive")
_SHORT = 1e-2


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
    of the Hamming distance divided by N, so that the learning rate doesn't hang on N.

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
        gumbel_scale: of the noise; 0 is deterministic, but a batch that is matched then teaches nothing any more. (The
            paper's unit noise would swamp cosines.)
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


@in_float32
def graph_matching(
    vertex: Tensor,
    edge: Tensor | None = None,
    source: Tensor | None = None,
    target: Tensor | None = None,
    *,
    solver: str = "ipfp",
    starts: int = 4,
    gumbel_scale: float = 0.1,
    lam: float = 80.0,
    kappa: float = 1.0,
    margin: float = 0.0,
) -> Tensor:
    """Hamming distance of the solved matching vhat to the identity v*, with a gradient (arXiv 2306.11925, eq. 5-8).

        vhat   = solve(c^v + noise - margin v*, c^e + noise)
        vtilde = solve(c^v + noise - lam (1 - 2 v*), c^e + the same noise)
        dL/dc^v = kappa (vhat - vtilde)        dL/dc^e_{ia,jb} = kappa (vhat_ia vhat_jb - vtilde_ia vtilde_jb)

    Affinities are maximised. With lam infinite vtilde is v*, and the gradient that of the structured perceptron.

    Args:
        vertex: (N, N) affinities c^v of vertex i of G^s with vertex a of G^t.
        edge: (E, E') affinities c^e of edge pairs, or None for a linear assignment.
        source: (E, 2) int64, the directed edges (i, j) of G^s; a pair of opposite edges is two of them.
        target: (E', 2) int64, the directed edges (a, b) of G^t.
        solver: see :func:`lvm_med`; the options below likewise.
        starts: of ipfp.
        gumbel_scale: of the noise, drawn with torch's global generator.
        lam: strength of the push towards the truth, above 0, possibly infinite.
        kappa: scale of the gradient.
        margin: subtracted from the true matches' affinity before the first solve.

    Returns:
        L = 2 (N - correct matches), a scalar. NaN in the affinities gives NaN.

    Raises:
        UserError: shapes that don't fit, edges out of range, self loops, an unknown solver, lam not above 0.
    """
    check_choice("solver", solver, SOLVERS)
    check_positive(lam=lam, starts=starts)
    if not gumbel_scale >= 0:
        raise UserError(f"gumbel_scale must be at least 0, got {gumbel_scale}")
    edge, source, target = _edges(vertex, edge, source, target)
    _check_graph(vertex, edge, source, target)
    return _Matching.apply(
        vertex, edge, source, target, {"solver": solver, "starts": starts}, gumbel_scale, lam, kappa, margin
    )


def match_graphs(
    vertex: Tensor,
    edge: Tensor | None = None,
    source: Tensor | None = None,
    target: Tensor | None = None,
    *,
    solver: str = "ipfp",
    starts: int = 4,
    seed: int = 0,
) -> Tensor:
    """Solve one matching: the permutation p (N,) int64 that maximises sum_i c^v[i, p(i)] + the matched edge pairs' c^e.

    Arguments as in :func:`graph_matching`; ``seed`` fixes the random starts.
    """
    check_choice("solver", solver, SOLVERS)
    check_positive(starts=starts)
    edge, source, target = _edges(vertex, edge, source, target)
    _check_graph(vertex, edge, source, target)
    problem = Problem(_numpy(vertex), _numpy(edge), source.cpu().numpy(), target.cpu().numpy())
    return torch.from_numpy(solve(problem, solver, starts=starts, seed=seed)).to(vertex.device)


class _Matching(torch.autograd.Function):
    """Both solves happen in the forward pass: one way to the CPU and back."""

    @staticmethod
    def forward(
        ctx: Any,
        vertex: Tensor,
        edge: Tensor,
        source: Tensor,
        target: Tensor,
        how: dict[str, Any],
        gumbel_scale: float,
        lam: float,
        kappa: float,
        margin: float,
    ) -> Tensor:
        c_v, c_e = _numpy(_perturbed(vertex, gumbel_scale)), _numpy(_perturbed(edge, gumbel_scale))
        ctx.kappa, ctx.shapes = kappa, (vertex.shape, edge.shape)
        if not (np.isfinite(c_v).all() and np.isfinite(c_e).all()):
            ctx.matches = None
            return vertex.new_tensor(math.nan)
        truth = np.eye(len(c_v))
        edges = source.cpu().numpy(), target.cpu().numpy()
        hat = solve(Problem(c_v - margin * truth, c_e, *edges), **how)
        tilde = np.arange(len(c_v))
        if math.isfinite(lam) and any(ctx.needs_input_grad):
            tilde = solve(Problem(c_v - lam * (1 - 2 * truth), c_e, *edges), **how)
        ctx.matches = hat, tilde, edges
        return vertex.new_tensor(2.0 * (hat != np.arange(len(hat))).sum())

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:  # type: ignore[override]
        if ctx.matches is None:
            spoilt = [slope.new_full(shape, math.nan) for shape in ctx.shapes]
            return *spoilt, None, None, None, None, None, None, None
        hat, tilde, (source, target) = ctx.matches
        size = len(hat)
        vertex = np.zeros((size, size))
        vertex[np.arange(size), hat] += 1
        vertex[np.arange(size), tilde] -= 1
        edge = np.zeros(ctx.shapes[1])
        if edge.size:
            lookup = edge_numbers(target, size)
            for p, sign in ((hat, 1), (tilde, -1)):
                which = lookup[p[source[:, 0]], p[source[:, 1]]]
                rows = np.flatnonzero(which >= 0)
                edge[rows, which[rows]] += sign
        found = (torch.from_numpy(g).to(slope.device, slope.dtype) * (slope * ctx.kappa) for g in (vertex, edge))
        return *found, None, None, None, None, None, None, None


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()


def _perturbed(x: Tensor, scale: float) -> Tensor:
    """With Gumbel(0, 1) noise times ``scale``."""
    if not scale or not x.numel():
        return x
    u = torch.rand(x.shape, dtype=x.dtype, device=x.device)
    tiny = torch.finfo(x.dtype).tiny
    return x - scale * (-u.clamp_min(tiny).log()).clamp_min(tiny).log()


def _edges(
    vertex: Tensor, edge: Tensor | None, source: Tensor | None, target: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """All three of a graph's edge tensors, empty where none was given."""
    given = [tensor for tensor in (edge, source, target) if tensor is not None]
    if not given:
        ends = torch.zeros(0, 2, dtype=torch.int64, device=vertex.device)
        return vertex.new_zeros(0, 0), ends, ends
    if edge is None or source is None or target is None:
        raise UserError("affinities of edges need the ends of both graphs: give edge, source and target, or none")
    return edge, source, target


def _check_ends(edges: Tensor, size: int) -> None:
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype != torch.int64:
        raise UserError(f"edges must be (E, 2) int64, got {tuple(edges.shape)} {edges.dtype}")
    outside = len(edges) and (int(edges.min()) < 0 or int(edges.max()) >= size)
    if outside or bool((edges[:, 0] == edges[:, 1]).any()):
        raise UserError(f"edges must join two different vertices among 0 .. {size - 1}")


def _check_graph(vertex: Tensor, edge: Tensor, source: Tensor, target: Tensor) -> None:
    size = len(vertex) if vertex.ndim == 2 else 0
    if size < 1 or vertex.shape != (size, size):
        raise UserError(f"vertex affinities must be square and not empty, got {tuple(vertex.shape)}")
    if source.shape[1:] != (2,) or target.shape[1:] != (2,) or edge.shape != (len(source), len(target)):
        found = f"{tuple(edge.shape)}, {tuple(source.shape)}, {tuple(target.shape)}"
        raise UserError(f"edge affinities (E, F) need edges (E, 2) and (F, 2), got {found}")
    for edges in (source, target):
        _check_ends(edges, size)


@in_float32
@torch.no_grad()
def knn_edges(z: Tensor, k: int = 5) -> Tensor:
    """Edges from every vertex to its k nearest by cosine, and back; no self loops, no gradient.

    Args:
        z: (N, F) embeddings.
        k: neighbours, above 0; N - 1 where there are no more.

    Returns:
        (E, 2) int64, both directions of every edge, sorted.
    """
    rows, _ = check_views(z)
    check_positive(k=k)
    k = min(k, rows - 1)
    rows_of_z = unit(z)
    similarity = (rows_of_z @ rows_of_z.T).fill_diagonal_(-torch.inf)
    adjacent = torch.zeros(rows, rows, dtype=torch.bool, device=z.device)
    adjacent.scatter_(1, similarity.topk(k, dim=1).indices, True)
    return (adjacent | adjacent.T).fill_diagonal_(False).nonzero()


@in_float32
def edge_affinity(z1: Tensor, z2: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Second-order affinities cos(z1_i - z1_j, z2_a - z2_b) of all edge pairs (arXiv 2306.11925, eq. 4).

    Args:
        z1: (N, F) embeddings of the first graph.
        z2: (N, F) of the second.
        source: (E, 2) edges of the first graph.
        target: (E', 2) edges of the second.

    Returns:
        (E, E'). An edge shorter than a hundredth of its graph's mean length is all rounding and without direction; its
        cosines are taken as if it had that length, so they fall to 0 with it. Gradients are bounded by the inverse of
        that length, and where a whole graph has shrunk to a point by that of 1e-8.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, edges out of range, self loops.
    """
    rows, _ = check_views(z1, z2)
    for edges in (source, target):
        _check_ends(edges, rows)
    first, second = (_directions(z[e[:, 0]] - z[e[:, 1]]) for z, e in ((z1, source), (z2, target)))
    return first @ second.T


def _directions(edges: Tensor) -> Tensor:
    """Rows (E, F) of length 1, shorter ones where they were nearly 0."""
    lengths = edges.norm(dim=1, keepdim=True)
    shortest = (_SHORT * lengths.detach().mean()).clamp_min(SHORTEST)
    return edges / lengths.clamp_min(shortest)
