"""Has the representation collapsed? Rank, spectrum, alignment, uniformity, spread."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_features, feature_pair, join_notes
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.neighbours import chunks, normalise
from selftaught.evaluation.result import Number, Result

__all__ = ["diagnostics"]

LIMIT = 2048
NEIGHBOURS = 10


@protocol("diagnostics", "collapse: effective rank, spectrum, alignment, uniformity", inputs="features")
def diagnostics(x: Array, pairs: Array | None = None, *, limit: int = LIMIT, seed: int = 0) -> Result:
    """Collapse diagnostics of embeddings.

    Args:
        x: ``(n, d)`` embeddings, n >= 2.
        pairs: ``(n, d)`` embeddings of a second view of the same samples, row by row; adds ``alignment``.
        limit: more samples than this are subsampled, default 2048.
        seed: of the subsample.

    Returns:
        ``Result`` "diagnostics": ``effective_rank`` (entropy form, RankMe), ``correlation_rank`` (``tr(K)^2 /
        ||K||_F^2``), ``uniformity``, ``feature_std`` and its ratio ``std_ratio`` to ``1/sqrt(d)`` (1 when spread over
        the sphere, 0 when collapsed), ``dead_features`` (share that is constant) and, with pairs, ``alignment`` and
        (of 12 samples or more that have not collapsed) ``neighbour_stability``. Figure
        ``spectrum``: singular values of the centred embeddings divided by ``sqrt(n)``, largest first. The numbers
        describe these embeddings; there is no interval.

    Raises:
        UserError: NaN, fewer than two samples, or pairs of another shape.
    """
    features = as_features(x)
    if len(features) < 2:
        raise UserError("features: a single sample; diagnostics need at least two")
    other = None
    if pairs is not None:
        features, other = feature_pair(features, pairs)
        if len(features) != len(other):
            raise UserError(f"pairs: {len(other)} rows for {len(features)} samples; pass the second view row by row")
    drawn = ""
    if len(features) > limit:
        drawn = f"on {limit} of {len(features)} samples"
        rows = torch.as_tensor(np.sort(np.random.default_rng(seed).permutation(len(features))[:limit]))
        rows = rows.to(features.device)
        features, other = features[rows], None if other is None else other[rows]
    features = features.double()
    deviation = features.std(0, correction=0)
    dead = deviation <= 1e-6 * features.abs().max().clamp_min(1e-30)
    spread, ratio = feature_std(features)
    values = {
        "effective_rank": effective_rank(features),
        "correlation_rank": correlation_rank(features),
        "uniformity": uniformity(features),
        "feature_std": spread,
        "std_ratio": ratio,
        "dead_features": float(dead.double().mean()),
    }
    if other is not None:
        values["alignment"] = alignment(features, other.double())
        if len(features) >= NEIGHBOURS + 2 and not bool(dead.all()):
            values["neighbour_stability"] = neighbour_stability(features, other.double())
    spectrum = singular_values(features - features.mean(0)) / math.sqrt(len(features))
    collapsed = "collapsed: every embedding is the same" if bool(dead.all()) else ""
    numbers = {name: Number.of(value) for name, value in values.items()}
    return Result("diagnostics", numbers, {"spectrum": spectrum}, join_notes(drawn, collapsed))


def singular_values(x: Tensor) -> Tensor:
    """Singular values of ``(n, d)``, largest first, ``(min(n, d),)``, from the smaller Gram matrix."""
    n, d = x.shape
    energy = torch.linalg.eigvalsh(x @ x.T if n < d else x.T @ x)
    floor = energy[-1].clamp_min(0) * torch.finfo(x.dtype).eps * max(n, d)
    return torch.where(energy > floor, energy, torch.zeros_like(energy)).sqrt().flip(0)


def effective_rank(x: Tensor) -> float:
    """RankMe (Garrido et al. 2023, eq. 1): exp of the entropy of the normalised singular values.

    ``exp(-sum_k p_k log p_k)`` with ``p_k = s_k / sum_j s_j``.

    Args:
        x: ``(n, d)`` embeddings, not centred, as in the paper.

    Returns:
        Between 1 and min(n, d); 0 when all embeddings are zero.
    """
    s = singular_values(x.double())
    if not float(s.sum()):
        return 0.0
    p = s / s.sum()
    return float(torch.special.entr(p).sum().exp())


def correlation_rank(x: Tensor) -> float:
    """``tr(K)^2 / ||K||_F^2`` of the features' correlation matrix K (Barlow Twins sheet).

    Args:
        x: ``(n, d)``; constant features take no part.

    Returns:
        Between 1 (all features say the same) and d (uncorrelated); 0 when every feature is constant.
    """
    x = x.double()
    centred = x - x.mean(0)
    norm = centred.norm(dim=0)
    alive = norm > 1e-6 * math.sqrt(len(x)) * x.abs().max().clamp_min(1e-30)
    if not bool(alive.any()):
        return 0.0
    unit = centred[:, alive] / norm[alive]
    gram = unit @ unit.T if len(unit) < unit.shape[1] else unit.T @ unit
    return float(gram.trace() ** 2 / gram.square().sum())


def alignment(x: Tensor, y: Tensor, power: float = 2.0) -> float:
    """Wang and Isola (2020): ``mean_i ||f(x_i) - f(y_i)||^power`` over positive pairs of unit vectors.

    The rows are normalised here.

    Args:
        x: ``(n, d)`` first views.
        y: ``(n, d)`` second views.
        power: alpha, default 2.
    """
    return float((normalise(x) - normalise(y)).norm(dim=1).pow(power).mean())


def neighbour_stability(x: Tensor, y: Tensor, k: int = NEIGHBOURS) -> float:
    """Share of a sample's k nearest neighbours that its second view finds too, mean over the samples.

    For sample i, the k other rows of ``x`` most similar (cosine) to ``x_i`` are compared with those most similar to
    ``y_i``. It needs no label; unrelated views give ``k / (n - 1)``.

    Args:
        x: ``(n, d)`` first views, n > k.
        y: ``(n, d)`` second views, row by row.
        k: neighbours, default 10.

    Returns:
        Between 0 and 1.
    """
    gallery, other = normalise(x), normalise(y)
    n = len(gallery)
    shared = 0
    for rows in chunks(n, n):
        own = torch.arange(rows.start, rows.stop, device=x.device)[:, None]
        first, second = (
            (queries[rows] @ gallery.T).scatter_(1, own, -torch.inf).topk(k, dim=1).indices
            for queries in (gallery, other)
        )
        shared += int((first[:, :, None] == second[:, None, :]).sum())
    return shared / (n * k)


def uniformity(x: Tensor, t: float = 2.0) -> float:
    """Wang and Isola (2020): ``log mean_{i != j} exp(-t ||f(x_i) - f(x_j)||^2)`` of unit vectors (normalised here).

    Args:
        x: ``(n, d)``, n >= 2.
        t: default 2.

    Returns:
        0 when collapsed; ``log mean exp`` tends to about ``-2t`` when spread over a sphere of many dimensions.
    """
    unit = normalise(x.double())
    n = len(unit)
    parts = []
    for rows in chunks(n, n):
        exponent = (-t * (2 - 2 * unit[rows] @ unit.T)).clamp_max(0)
        exponent.scatter_(1, torch.arange(rows.start, rows.stop, device=x.device)[:, None], -torch.inf)
        parts.append(torch.logsumexp(exponent.flatten(), 0))
    return float(torch.logsumexp(torch.stack(parts), 0)) - math.log(n * (n - 1))


def feature_std(x: Tensor) -> tuple[float, float]:
    """Mean deviation per dimension of the unit vectors, and its ratio to ``1/sqrt(d)`` (SimSiam's collapse measure).

    Args:
        x: ``(n, d)``.
    """
    deviation = float(normalise(x).std(0, correction=0).mean())
    return deviation, deviation * math.sqrt(x.shape[1])
