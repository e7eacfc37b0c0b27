"""Nearest neighbours by cosine: k-NN classification, retrieval and galleries, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_features, as_labels, code_labels, feature_pair, join_notes
from selftaught.evaluation.classification import judge
from selftaught.evaluation.result import Number, Result

CELLS = 1 << 24


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


def retrieval(
    x: Array,
    y: Array,
    query_x: Array | None = None,
    query_y: Array | None = None,
    *,
    ks: Sequence[int] = (1, 5, 10),
) -> Result:
    """Retrieval by cosine: mean average precision over the whole ranking, and precision among the first k.

    ``AP = 1/R * sum_r rel(r) * precision(r)`` with R the number of relevant items (same class) in the gallery.

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
    lost = f"{int((~kept).sum())} queries without a relevant item left out" if not kept.all() else ""
    clipped = [k for k in ks if k > candidates]
    return Result(
        "retrieval", numbers, note=join_notes(lost, f"k {clipped} clipped to {candidates}" if clipped else "")
    )


def _rankings(
    gallery: Tensor, labels: Tensor, queries: Tensor, wanted: Tensor, cuts: dict[int, int], alone: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """Average precision, precision at the cuts and the number of relevant items of every query, on the CPU."""
    parts: dict[str, list[Tensor]] = {"map": [], **{f"precision@{k}": [] for k in cuts}}
    counts = []
    rank = torch.arange(1, len(gallery) + 1, device=gallery.device)
    for rows in chunks(len(queries), 4 * len(gallery)):
        cosine, relevant = queries[rows] @ gallery.T, wanted[rows, None] == labels
        if alone:
            own = torch.arange(rows.start, rows.stop, device=gallery.device)[:, None]
            cosine.scatter_(1, own, -torch.inf)
            relevant.scatter_(1, own, False)
        hit = relevant.gather(1, cosine.argsort(dim=1, descending=True, stable=True))
        hits, total = hit.cumsum(1), hit.sum(1)
        parts["map"].append(((hits / rank) * hit).sum(1).double() / total.clamp_min(1))
        for k, cut in cuts.items():
            parts[f"precision@{k}"].append(hits[:, cut - 1].double() / cut)
        counts.append(total)
    return {name: torch.cat(values).cpu() for name, values in parts.items()}, torch.cat(counts).cpu()


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
