"""Graph matching with a gradient: a real combinatorial solver stands in the middle.

It gives none; a second solve, of affinities pushed towards the truth, does (implicit maximum likelihood, arXiv
2106.01798; black-box differentiation, arXiv 1912.02175).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._assignment import Problem, edge_numbers, solve
from selftaught.objectives._common import (
    SHORTEST,
    check_choice,
    check_floats,
    check_numbers,
    check_positive,
    check_views,
    in_float32,
    unit,
)

SOLVERS = ("ipfp", "assignment", "exhaustive")
_SHORT = 1e-2


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
    if not 0 <= gumbel_scale < math.inf:
        raise UserError(f"gumbel_scale must be at least 0 and finite, got {gumbel_scale}")
    check_numbers(gumbel_scale=gumbel_scale, lam=lam, kappa=kappa, margin=margin)
    if not (math.isfinite(margin) and math.isfinite(kappa)):
        raise UserError(f"margin and kappa must be finite, got {margin} and {kappa}")
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
    def backward(ctx: Any, slope: Tensor) -> Any:
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
    check_floats(vertex=vertex, edge=edge)
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
