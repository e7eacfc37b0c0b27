"""Nearest neighbours by cosine: k-NN classification, retrieval and galleries, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selftaught._words import listed, plural
from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_features, as_labels, code_labels, feature_pair, join_notes
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.classification import judge
from selftaught.evaluation.result import Number, Result

__all__ = ["knn", "nearest", "retrieval"]

CELLS = 1 << 24


@protocol("knn", "weighted k-nearest-neighbour accuracy by cosine", inputs="split")
def knn(
    train_x: Array,
    train_y: Array,
    test_x: Array,
    test_y: Array,
    *,
    k: int = 20,
    temperature: float = 0.1,
    weighted: bool = True,
) -> Result:
    """k-nearest-neighbour classification by cosine similarity (DCL sheet; Wu et al. 2018 use k = 200).

    Each of the k training samples nearest to a test sample votes for its class with weight ``exp(cos / temperature)``.

    Args:
        train_x: ``(n, d)`` features of the bank (normalised here).
        train_y: ``(n,)`` or ``(n, 1)`` class indices.
        test_x: ``(m, d)``.
        test_y: ``(m,)`` or ``(m, 1)``.
        k: neighbours, default 20 (small banks); 200 is usual for CIFAR and ImageNet. More than n is clipped, with a
            note.
        temperature: of the vote's weight, default 0.1.
        weighted: ``False`` counts heads; equal counts go to the class whose neighbours are nearer.

    Returns:
        ``Result`` "knn": accuracy, balanced accuracy, F1, weighted F1, kappa, each with an interval over test items;
        figures ``confusion`` and ``per_class``.

    Raises:
        UserError: NaN features, widths or lengths that do not match, a single class, k below 1, temperature not
            positive.
    """
    train, test = feature_pair(train_x, test_x)
    coded = code_labels(train_y, test_y, len(train), len(test))
    votes = vote(normalise(train), _index(coded.train, train), normalise(test), len(coded.classes), k=k,
                 temperature=temperature, weighted=weighted)  # fmt: skip
    numbers, figures = judge(votes.cpu().numpy(), coded.test, coded.classes, auc="none")
    clipped = f"k = {k} clipped to the {len(train)} training samples" if k > len(train) else ""
    return Result("knn", numbers, figures, join_notes(coded.note, clipped))


def vote(
    bank: Tensor, labels: Tensor, x: Tensor, classes: int, *, k: int, temperature: float = 0.1, weighted: bool = True
) -> Tensor:
    """Votes of the k nearest bank rows for each class, as shares that sum to 1 over the classes.

    Args:
        bank: ``(n, d)`` unit rows.
        labels: ``(n,)`` int64 in 0..classes-1.
        x: ``(m, d)`` unit rows.
        classes: number of classes.
        k: neighbours; clipped to n.
        temperature: see ``knn``.
        weighted: see ``knn``.

    Returns:
        ``(m, classes)``.

    Raises:
        UserError: k below 1 or temperature not positive.
    """
    if k < 1:
        raise UserError(f"k: {k}; at least 1 neighbour has to vote")
    if not temperature > 0:
        raise UserError(f"temperature: {temperature}; it must be positive")
    k, shares = min(k, len(bank)), []
    for rows in chunks(len(x), len(bank)):
        cosine, nearest_rows = (x[rows] @ bank.T).topk(k, dim=1)
        weight = ((cosine - cosine[:, :1]) / temperature).exp() if weighted else 1 + (cosine - 1) / (4.0 * k)
        votes = x.new_zeros(len(cosine), classes).scatter_add_(1, labels[nearest_rows], weight)
        shares.append(votes / votes.sum(1, keepdim=True))
    return torch.cat(shares)


@protocol("retrieval", "mean average precision and precision at k by cosine", inputs="labelled")
def retrieval(
    x: Array,
    y: Array,
    query_x: Array | None = None,
    query_y: Array | None = None,
    *,
    ks: Sequence[int] = (1, 5, 10),
) -> Result:
    """Retrieval by cosine: mean average precision over the whole ranking, and precision among the first k.

    ``AP = 1/R * sum_r rel(r) * precision(r)`` with R the number of relevant items (same class) in the gallery. Items
    that are equally near are judged together, whatever their order in the gallery: AP is scikit-learn's
    ``average_precision_score``, precision@k its mean over all orders of the tied items. An encoder that gives every
    sample the same vector so scores the share of relevant items, which is chance.

    Args:
        x: ``(n, d)`` features of the gallery.
        y: ``(n,)`` class indices.
        query_x: ``(m, d)`` queries; every gallery item queries the rest of the gallery if not given.
        query_y: ``(m,)`` their classes.
        ks: cut-offs; those above the number of candidates are clipped, with a note.

    Returns:
        ``Result`` "retrieval": ``map`` and ``precision@k``, each with an interval over queries. Queries without a
        relevant item are left out and counted in the note.

    Raises:
        UserError: NaN features, lengths that do not match, queries without labels, or no query with a relevant item.
    """
    alone = query_x is None
    if alone != (query_y is None):
        raise UserError("queries: pass query_x and query_y together, or neither")
    gallery = as_features(x, "gallery features")
    labels = torch.as_tensor(as_labels(y, len(gallery), "gallery labels")).to(gallery.device)
    if query_x is None or query_y is None:
        queries, wanted = gallery, labels
    else:
        gallery, queries = feature_pair(gallery, query_x)
        wanted = torch.as_tensor(as_labels(query_y, len(queries), "query labels")).to(gallery.device)
    candidates = len(gallery) - alone
    if candidates < 1 or min(ks, default=1) < 1:
        raise UserError("retrieval: needs two gallery items and every k at least 1")
    cuts = {k: min(k, candidates) for k in ks}
    precision, found = _rankings(normalise(gallery), labels, normalise(queries), wanted, cuts, alone)
    kept = found.numpy() > 0
    if not kept.any():
        raise UserError("query labels: no query has an item of its class in the gallery; pass matching labels")
    numbers = {name: Number.bootstrap(values.numpy()[kept]) for name, values in precision.items()}
    lost = f"{plural(int((~kept).sum()), 'query')} without a relevant item left out" if not kept.all() else ""
    clipped = [k for k in ks if k > candidates]
    return Result(
        "retrieval", numbers, note=join_notes(lost, f"k {listed(clipped)} clipped to {candidates}" if clipped else "")
    )


def _rankings(
    gallery: Tensor, labels: Tensor, queries: Tensor, wanted: Tensor, cuts: dict[int, int], alone: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """Average precision, precision at the cuts and the number of relevant items of every query, on the CPU."""
    parts: dict[str, list[Tensor]] = {"map": [], **{f"precision@{k}": [] for k in cuts}}
    counts = []
    for rows in chunks(len(queries), 8 * len(gallery)):
        cosine, relevant = queries[rows] @ gallery.T, wanted[rows, None] == labels
        if alone:
            own = torch.arange(rows.start, rows.stop, device=gallery.device)[:, None]
            cosine.scatter_(1, own, -torch.inf)
            relevant.scatter_(1, own, False)
        ranked = Ranking.of(cosine, relevant)
        parts["map"].append(ranked.average_precision())
        for k, cut in cuts.items():
            parts[f"precision@{k}"].append(ranked.precision(cut))
        counts.append(ranked.total)
    return {name: torch.cat(values).cpu() for name, values in parts.items()}, torch.cat(counts).cpu()


@dataclass(frozen=True)
class Ranking:
    """A ranking of n items for each of m queries, the nearest first, in which equal scores share a place.

    Attributes:
        before: ``(m, n)`` items ranked strictly before the tied ones that the item at this position belongs to.
        hits_before: ``(m, n)`` relevant ones among them.
        tied: ``(m, n)`` how many items are tied at this position; 1 without ties.
        hits_tied: ``(m, n)`` relevant ones among the tied.
        total: ``(m,)`` relevant items.
    """

    before: Tensor
    hits_before: Tensor
    tied: Tensor
    hits_tied: Tensor
    total: Tensor

    @classmethod
    def of(cls, scores: Tensor, relevant: Tensor) -> Ranking:
        """Rank by score, largest first.

        Scores of unit vectors that differ by less than the rounding of their type are tied.

        Args:
            scores: ``(m, n)``, at most about 1 in size.
            relevant: ``(m, n)`` bool.
        """
        ranked, order = scores.sort(dim=1, descending=True)
        relevant = relevant.gather(1, order).long()
        hits = relevant.cumsum(1)
        n = scores.shape[1]
        position = torch.arange(n, device=scores.device).expand_as(hits)
        edge = ranked[:, :-1] - ranked[:, 1:] > 8 * torch.finfo(scores.dtype).eps
        if bool(edge.all()):
            return cls(position, hits - relevant, torch.ones_like(hits), relevant, hits[:, -1])
        true = torch.ones_like(edge[:, :1])
        first = torch.where(torch.cat([true, edge], 1), position, 0).cummax(1).values
        last = torch.where(torch.cat([edge, true], 1), position, n).flip(1).cummin(1).values.flip(1)
        hits_before = torch.where(first > 0, hits.gather(1, (first - 1).clamp_min(0)), 0)
        return cls(first, hits_before, last - first + 1, hits.gather(1, last) - hits_before, hits[:, -1])

    @property
    def share(self) -> Tensor:
        """``(m, n)`` how likely the item at a position is relevant, over all orders of the tied."""
        return self.hits_tied.double() / self.tied

    def average_precision(self) -> Tensor:
        """``(m,)`` float64: mean over the relevant items of the precision at the last one that they are tied with."""
        precision = (self.hits_before + self.hits_tied).double() / (self.before + self.tied)
        return (self.share * precision).sum(1) / self.total.clamp_min(1)

    def trapezoid(self) -> Tensor:
        """``(m,)`` float64: area under straight lines between the points of the precision-recall curve.

        ``1/R sum_r rel(r) (precision(r - 1) + precision(r)) / 2`` with ``precision(0) = 1``; its mean over all orders
        of the tied items.
        """
        rank = torch.arange(1, self.before.shape[1] + 1, device=self.before.device, dtype=torch.float64)
        others = (self.hits_tied - 1).clamp_min(0) / (self.tied - 1).clamp_min(1)  # relevant, given that this one is
        hits = self.hits_before + (rank - 1 - self.before) * others
        ahead = torch.where(rank > 1, hits / (rank - 1).clamp_min(1), 1.0)
        return (self.share * (ahead + (hits + 1) / rank)).sum(1) / 2 / self.total.clamp_min(1)

    def precision(self, k: int) -> Tensor:
        """``(m,)`` float64: share of relevant items among the first k, its mean over all orders of the tied."""
        return self.share[:, :k].sum(1) / k


def nearest(x: Array, queries: Array, k: int = 8) -> np.ndarray:
    """The nearest samples by cosine, nearest first: what a gallery shows.

    Args:
        x: ``(n, d)`` features.
        queries: ``(m,)`` indices into ``x`` (a sample is then not its own neighbour), or ``(m, d)`` features.
        k: neighbours, default 8; clipped to what there is.

    Returns:
        ``(m, k)`` int64 indices into ``x``.

    Raises:
        UserError: NaN features, an index out of range, or k below 1.
    """
    gallery = as_features(x)
    asked = torch.as_tensor(np.asarray(queries)) if not isinstance(queries, Tensor) else queries
    own = asked.ndim == 1
    inside = not own or (not asked.is_floating_point() and bool(((asked >= 0) & (asked < len(gallery))).all()))
    if not inside or not len(asked):
        raise UserError(f"queries: pass indices 0..{len(gallery) - 1}, or features (m, d)")
    asked = asked.to(gallery.device)
    k = min(k, len(gallery) - own)
    if k < 1:
        raise UserError("k: no neighbour to show; pass k >= 1 and at least two samples")
    unit = normalise(gallery)
    rows = unit[asked.long()] if own else normalise(feature_pair(gallery, asked)[1])
    found = []
    for part in chunks(len(rows), len(unit)):
        cosine = rows[part] @ unit.T
        if own:
            cosine.scatter_(1, asked[part, None].long(), -torch.inf)
        found.append(cosine.topk(k, dim=1).indices.cpu())
    return torch.cat(found).numpy()


def normalise(x: Tensor) -> Tensor:
    """Rows scaled to unit length; a row of zeros stays zero."""
    return torch.nn.functional.normalize(x, dim=1)


def chunks(rows: int, width: int) -> Iterator[slice]:
    """Slices over ``rows`` such that a block of ``width`` columns stays below a fixed number of cells (64 MiB)."""
    step = max(1, CELLS // max(1, width))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def _index(labels: np.ndarray, like: Tensor) -> Tensor:
    return torch.as_tensor(labels, device=like.device)
