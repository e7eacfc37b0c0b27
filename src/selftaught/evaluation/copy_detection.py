"""Copy detection: which picture of a large set is this one a copy of? R-MAC descriptors, whitened, ranked by cosine.

R-MAC: Tolias, Sicre and Jegou, ICLR 2016 (arXiv 1511.05879), section 3; the evaluation on Copydays as in SEER (arXiv
2202.08360).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selftaught._words import plural
from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_features, as_labels, feature_pair
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.neighbours import Ranking, chunks, normalise
from selftaught.evaluation.result import Number, Result

__all__ = ["copy_detection", "fit_whitening", "regional_maxima", "rmac"]

LEVELS = 3
OVERLAP = 0.4
"""Share of a region that its neighbour should cover, where the map is not square."""
FLOOR = 1e-6
"""Principal components below this share of the largest variance are noise, and not whitened."""


def rmac_regions(height: int, width: int, levels: int = LEVELS) -> list[tuple[int, int, int]]:
    """The overlapping square regions of R-MAC on a map.

    Level ``l`` has squares of side ``2 min(H, W) / (l + 1)``, ``l`` of them along the shorter side and ``l + m - 1``
    along the longer one, evenly spread from edge to edge. ``m`` is 1 on a square map, else the number from 2 to 7 for
    which neighbours on level 1 overlap by a share nearest to 0.4.

    Args:
        height: H of the map in cells.
        width: W.
        levels: L, default 3; a square map has 1 + 4 + 9 regions.

    Returns:
        ``(top, left, side)`` of each region, level by level.

    Raises:
        UserError: an empty map, or fewer levels than 1.
    """
    if min(height, width, levels) < 1:
        raise UserError(f"regions: a map of {height} x {width} at {levels} levels; all must be at least 1")
    short, spare = min(height, width), abs(height - width)
    extra = 0
    if spare:
        overlap = [1 - spare / (steps * short) for steps in range(1, 7)]
        extra = 1 + int(np.argmin([abs(share - OVERLAP) for share in overlap]))
    found = []
    for level in range(1, levels + 1):
        side = max(1, 2 * short // (level + 1))
        rows = level + (extra if height > width else 0)
        columns = level + (extra if width > height else 0)
        found += [(top, left, side) for top in _starts(height, side, rows) for left in _starts(width, side, columns)]
    return found


def _starts(length: int, side: int, count: int) -> list[int]:
    """First cells of ``count`` stretches of ``side`` cells, from one edge to the other."""
    step = (length - side) / (count - 1) if count > 1 else 0.0
    return [int(k * step + 1e-9) for k in range(count)]


def regional_maxima(maps: Tensor, levels: int = LEVELS) -> Tensor:
    """Maximum activation of every channel in every region, each region's vector of unit length.

    Args:
        maps: (N, C, H, W) feature maps.
        levels: see `rmac_regions`.

    Returns:
        (N, R, C) float32; float64 stays so.

    Raises:
        UserError: not maps, or NaN in them.
    """
    if maps.ndim != 4:
        raise UserError(f"feature maps: shape {tuple(maps.shape)}; pass (N, C, H, W)")
    if not torch.isfinite(maps).all():
        raise UserError("feature maps: NaN or infinity in them; the encoder diverged or the input was broken")
    maps = maps if maps.dtype == torch.float64 else maps.float()
    regions = rmac_regions(maps.shape[2], maps.shape[3], levels)
    found = [maps[:, :, y : y + s, x : x + s].amax((2, 3)) for y, x, s in regions]
    return torch.nn.functional.normalize(torch.stack(found, 1), dim=2)


@dataclass(frozen=True)
class Whitening:
    """Principal components scaled to unit variance: ``(x - mean) @ directions``.

    Args:
        mean: (C,).
        directions: (C, K).
    """

    mean: Tensor
    directions: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., K)."""
        return (x - self.mean.to(x)) @ self.directions.to(x)


def fit_whitening(x: Array, components: int | None = None) -> Whitening:
    """Learn PCA-whitening, on data that are neither queries nor database.

    Args:
        x: ``(n, C)`` vectors; for R-MAC the regional ones, R for every image.
        components: dimensions K to keep; default all whose variance is above a millionth of the largest.

    Returns:
        What makes the covariance of ``x`` the identity (divisor n).

    Raises:
        UserError: NaN, a single vector, or vectors that are all the same.
    """
    rows = as_features(x, "whitening vectors").double()
    if len(rows) < 2:
        raise UserError("whitening vectors: a single one; pass at least two")
    mean = rows.mean(0)
    centred = rows - mean
    variance, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
    variance, vectors = variance.flip(0), vectors.flip(1)
    if float(variance[0]) <= 1e-20:
        raise UserError("whitening vectors: all the same; the encoder has collapsed")
    kept = int((variance > FLOOR * variance[0]).sum())
    kept = kept if components is None else max(1, min(kept, components))
    return Whitening(mean.float(), (vectors[:, :kept] / variance[:kept].sqrt()).float())


def rmac(maps: Tensor, whitening: Whitening | None = None, *, levels: int = LEVELS) -> Tensor:
    """R-MAC descriptors: regional maxima, unit length, PCA-whitened, unit length, summed, unit length.

    Args:
        maps: (N, C, H, W) feature maps.
        whitening: of regional vectors (see `fit_whitening`); None leaves that step out.
        levels: L, default 3.

    Returns:
        (N, K) unit vectors; the cosine of two says how alike the pictures are.

    Raises:
        UserError: as `regional_maxima`.
    """
    regions = regional_maxima(maps, levels)
    if whitening is not None:
        regions = torch.nn.functional.normalize(whitening(regions), dim=2)
    return normalise(regions.sum(1))


@protocol("copy-detection", "mean average precision of finding the originals of copies", inputs="copies")
def copy_detection(
    database: Array,
    groups: Array,
    queries: Array,
    query_groups: Array,
    *,
    distractors: Array | None = None,
    blocks: Sequence[str] | None = None,
) -> Result:
    """Rank a database by cosine for every query; a query's group names the pictures that it was made from.

    Args:
        database: ``(n, d)`` descriptors of the originals (normalised here).
        groups: ``(n,)`` whole numbers from 0.
        queries: ``(m, d)`` descriptors of the copies.
        query_groups: ``(m,)``.
        distractors: ``(q, d)`` descriptors of further pictures that no query was made from.
        blocks: ``(m,)`` kind of change of each query ("strong", "crops/50"); numbers of their own for each kind.

    Returns:
        ``Result`` "copy-detection", with intervals over queries: ``map`` (mean average precision, ``AP = 1/R sum_r
        rel(r) precision(r)``), ``map_trapezoid`` (the area under straight lines between the points of the
        precision-recall curve, as INRIA's evaluation and hence the papers on Copydays count it; below ``map`` unless
        all is right), ``precision@1`` (pictures that are equally near
        share a place, see `retrieval`), and ``map: BLOCK`` and ``map_trapezoid: BLOCK`` where there are at least two
        blocks. Queries without an original are left out, with a note.

    Raises:
        UserError: NaN, widths or lengths that do not match, a negative group, no query with an original.
    """
    gallery, asked = feature_pair(database, queries)
    known = as_labels(groups, len(gallery), "groups")
    wanted = as_labels(query_groups, len(asked), "query groups")
    if min(known.min(), wanted.min()) < 0:
        raise UserError("groups: a negative one; number them from 0")
    if blocks is not None and len(blocks) != len(asked):
        raise UserError(f"blocks: {len(blocks)} names for {len(asked)} queries; pass one per query")
    if distractors is not None:
        gallery, others = feature_pair(gallery, distractors)
        gallery = torch.cat([gallery, others])
        known = np.concatenate([known, np.full(len(others), -1)])
    kept = np.isin(wanted, known)
    if not kept.any():
        raise UserError("query groups: no query has an original in the database; pass matching groups")
    measured = _rankings(normalise(gallery), torch.as_tensor(known), normalise(asked), torch.as_tensor(wanted))
    numbers = {name: Number.bootstrap(values[kept]) for name, values in measured.items()}
    names = np.asarray(blocks if blocks is not None else [], dtype=str)
    for block in np.unique(names) if len(np.unique(names)) > 1 else []:
        rows = (names == block) & kept
        if rows.any():
            numbers |= {f"{name}: {block}": Number.bootstrap(measured[name][rows]) for name in ("map", "map_trapezoid")}
    lost = int((~kept).sum())
    return Result(
        "copy-detection", numbers, note=f"{plural(lost, 'query')} without an original left out" if lost else ""
    )


def _rankings(gallery: Tensor, known: Tensor, asked: Tensor, wanted: Tensor) -> dict[str, np.ndarray]:
    """The measures of every query, (m,) each; 0 where nothing is relevant."""
    parts: dict[str, list[Tensor]] = {"map": [], "map_trapezoid": [], "precision@1": []}
    known, wanted = known.to(gallery.device), wanted.to(gallery.device)
    for rows in chunks(len(asked), 8 * len(gallery)):
        ranked = Ranking.of(asked[rows] @ gallery.T, wanted[rows, None] == known)
        parts["map"].append(ranked.average_precision())
        parts["map_trapezoid"].append(ranked.trapezoid())
        parts["precision@1"].append(ranked.precision(1))
    return {name: torch.cat(values).cpu().numpy() for name, values in parts.items()}
