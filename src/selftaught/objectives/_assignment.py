"""Quadratic assignment for graph matching, in NumPy float64 on the CPU: small, and a function of its input alone.

Maximised over permutations p (v_{i p(i)} = 1):

    f(p) = sum_i c[i, p(i)] + sum over the edges e = (i, j) of G^s with f = (p(i), p(j)) an edge of G^t of c_e[e, f]

Nothing of size N^4 is ever made, nor is an edge pair looked at that p doesn't touch: at a permutation, row e of c_e
takes part only with the few edges into p(j) or out of p(i), so that one gradient costs |E| times the degree.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations

import numpy as np

from selftaught.errors import UserError

Array = np.ndarray
LARGEST_EXHAUSTIVE = 8
_STEPS = 10
_TOLERANCE = 1e-10


def assign(affinity: Array) -> Array:
    """The permutation (N,) of largest total affinity (N, N), by Jonker and Volgenant's algorithm."""
    from scipy.optimize import linear_sum_assignment  # 0.5 s that only matching needs

    return linear_sum_assignment(affinity, maximize=True)[1]


class Problem:
    """One matching problem: affinities of vertices c (N, N) and of edge pairs c_e (E, F).

    Args:
        vertex: (N, N) float64.
        edge: (E, F) float64.
        source: (E, 2) directed edges of G^s, no self loops, none twice.
        target: (F, 2) directed edges of G^t, likewise.
    """

    def __init__(self, vertex: Array, edge: Array, source: Array, target: Array) -> None:
        self.vertex, self.size = vertex, len(vertex)
        self.i, self.j = source[:, 0], source[:, 1]
        self.a, self.b = target[:, 0], target[:, 1]
        self.rows = np.arange(len(source))
        self.lookup = edge_numbers(target, self.size)
        back, back_too = edge_numbers(source, self.size)[self.j, self.i], self.lookup[self.b, self.a]
        self.undirected = bool((back >= 0).all() and (back_too >= 0).all())
        # an edge pair and its reverse are matched together: with their mean M is symmetric and f the same
        self.edge = (edge + edge[back][:, back_too]) / 2 if self.undirected and edge.size else np.asarray(edge)
        self.into, self.out_of = _incident(self.b, self.size), _incident(self.a, self.size)

    def value(self, p: Array) -> float:
        """f(p)."""
        return float(self.vertex[np.arange(self.size), p].sum() + self._pairs(p[self.i], p[self.j]).sum())

    def _pairs(self, a: Array, b: Array) -> Array:
        """Per edge e of G^s its c_e with the edge (a, b) of G^t; 0 where there is none."""
        which = self.lookup[a, b]
        return np.where(which >= 0, self.edge[self.rows, which], 0.0) if self.edge.size else np.zeros(len(self.rows))

    def slope(self, p: Array) -> Array:
        """(M + M^T) v at the permutation p: (N, N), M the matrix of edge-pair affinities."""
        if not self.edge.size:
            return np.zeros((self.size, self.size))
        ahead = self._spread(self.into[p[self.j]], self.i, self.a)
        if self.undirected:
            return 2 * ahead
        return ahead + self._spread(self.out_of[p[self.i]], self.j, self.b)

    def _spread(self, which: Array, node: Array, end: Array) -> Array:
        """Sum c_e[e, f] over the given edges f of every e into place (node of e, end of f)."""
        weights = np.where(which >= 0, self.edge[self.rows[:, None], which], 0.0)
        place = node[:, None] * self.size + end[which]
        total = np.bincount(place.ravel(), weights.ravel(), minlength=self.size**2)
        return total.reshape(self.size, self.size)

    def swap_gains(self, p: Array) -> Array:
        """(N, N): how much f rises when p(i) and p(j) are exchanged, exactly."""
        slope = (self.vertex + self.slope(p))[:, p]
        both = np.zeros((self.size, self.size))
        if self.edge.size:
            a, b = p[self.i], p[self.j]
            both[self.i, self.j] = self._pairs(b, a) + self._pairs(a, b)
        own = np.diagonal(slope)
        return slope + slope.T - own[:, None] - own[None, :] + both + both.T


def edge_numbers(edges: Array, size: int) -> Array:
    """(N, N) numbers of the edges (E, 2) between any two vertices, -1 where there is none."""
    table = np.full((size, size), -1)
    table[edges[:, 0], edges[:, 1]] = np.arange(len(edges))
    return table


def _incident(ends: Array, size: int) -> Array:
    """(N, largest degree) numbers of the edges that have ``ends`` at each node, filled up with -1."""
    degree = np.bincount(ends, minlength=size)
    table = np.full((size, max(1, int(degree.max(initial=0)))), -1)
    order = np.argsort(ends, kind="stable")
    first = np.cumsum(degree) - degree
    table[ends[order], np.arange(len(ends)) - first[ends[order]]] = order
    return table


def solve(problem: Problem, solver: str = "ipfp", *, starts: int = 4, seed: int = 0) -> Array:
    """The best permutation (N,) that is found.

    Args:
        problem: what to maximise.
        solver: "ipfp" (integer projected fixed point from several starts, then pair swaps), "assignment" (vertices
            alone) or "exhaustive" (the optimum, up to N = 8).
        starts: of ipfp; the first is the linear assignment of the vertices, the others random permutations.
        seed: of the random permutations; the answer is a function of the problem and the seed alone.

    Raises:
        UserError: exhaustive search among more than 8 vertices.
    """
    if solver == "exhaustive":
        return _exhaustive(problem)
    first = assign(problem.vertex)
    if solver == "assignment" or not problem.edge.size or problem.size < 2:
        return first
    rng = np.random.default_rng(seed)
    best, best_value = first, problem.value(first)
    for number in range(starts):
        start = first if number == 0 else rng.permutation(problem.size)
        found = descend(problem, projected_fixed_point(problem, start))
        value = problem.value(found)
        if value > best_value + _TOLERANCE:
            best, best_value = found, value
    return best


def projected_fixed_point(problem: Problem, start: Array) -> Array:
    """Integer projected fixed point (Leordeanu, Hebert and Sukthankar, NeurIPS 2009) from one permutation.

    From v: b = assignment of the gradient, then the best point of the segment from v to b; the best b met is returned.
    """
    places = np.arange(problem.size)
    v = np.zeros((problem.size, problem.size))
    v[places, start] = 1
    slope = problem.slope(start)
    best, best_value = start, problem.value(start)
    for _ in range(_STEPS):
        gradient = problem.vertex + slope
        b = assign(gradient)
        value = problem.value(b)
        if value > best_value:
            best, best_value = b, value
        step = -v
        step[places, b] += 1
        rise = float((gradient * step).sum())
        if rise <= _TOLERANCE:
            break
        change = problem.slope(b) - slope
        curvature = 0.5 * float((change * step).sum())
        length = 1.0 if 2 * curvature >= -rise else -rise / (2 * curvature)
        v += length * step
        slope += length * change
    return best


def descend(problem: Problem, p: Array) -> Array:
    """Exchange the best pair as long as that helps."""
    p = p.copy()
    for _ in range(4 * problem.size):
        gains = problem.swap_gains(p)
        i, j = divmod(int(gains.argmax()), problem.size)
        if i == j or gains[i, j] <= _TOLERANCE:
            break
        p[i], p[j] = p[j], p[i]
    return p


def _exhaustive(problem: Problem) -> Array:
    if problem.size > LARGEST_EXHAUSTIVE:
        raise UserError(
            f"solver=exhaustive goes up to {LARGEST_EXHAUSTIVE} vertices, the graphs have {problem.size}; use ipfp"
        )
    table = _all_permutations(problem.size)
    values = problem.vertex[np.arange(problem.size), table].sum(1)
    if problem.edge.size:
        which = problem.lookup[table[:, problem.i], table[:, problem.j]]
        values += np.where(which >= 0, problem.edge[problem.rows, which], 0.0).sum(1)
    return table[int(values.argmax())]


@lru_cache(maxsize=LARGEST_EXHAUSTIVE)
def _all_permutations(size: int) -> Array:
    return np.array(list(permutations(range(size))), dtype=np.int64).reshape(-1, size)
