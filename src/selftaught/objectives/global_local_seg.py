"""Contrast of slice positions and of local regions (Chaitanya et al., NeurIPS 2020, arXiv 2006.10511).

    s(a, b)    = cos(a, b) / tau
    l(a, b; N) = -log( e^s(a,b) / ( e^s(a,b) + sum_{n in N} e^s(a,n) ) ),    L(a, b; N) = l(a, b; N) + l(b, a; N)

Global: the negatives of a slice are all slices of other partitions of any volume, its positives its own augmented
copies (D-) and the same partition of the next volume (D). Local: a region of a feature map against the regions around
it. Sums are divided as the released code does, so that its learning rates hold: see each function's factor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_positive, check_range, check_views, in_float32, softplus
from selftaught.objectives._common import unit as normalised
from selftaught.objectives.simclr import simclr

__all__ = [
    "global_domain",
    "global_domain_minus",
    "global_random",
    "local_domain",
    "local_random",
    "one_directional",
    "region_corners",
    "region_features",
    "region_negatives",
    "soft_dice",
]

_GRID = ("00", "0h", "0m", "h0", "hh", "hm", "m0", "mh", "mm", "qq", "qt", "tq", "tt")
"""Row and column of the corners of the 13 regions; the first nine are those of 9 regions."""
_AROUND = (
    ("0h", "qq", "qh", "h0", "hq"), ("00", "0m", "qq", "qt", "hh"), ("0h", "qh", "qt", "ht", "hm"),
    ("00", "qq", "hh", "m0", "tq"), ("qq", "qt", "tq", "tt", "h0"), ("0m", "hh", "mm", "qt", "tt"),
    ("h0", "hq", "mh", "tq", "th"), ("hh", "m0", "mm", "tq", "tt"), ("ht", "hm", "mh", "tt", "th"),
    ("00", "0h", "h0", "hh", "qt"), ("0h", "0m", "qq", "hh", "hm"), ("h0", "hh", "m0", "mh", "tt"),
    ("hh", "hm", "mh", "mm", "tq"),
)  # fmt: skip
"""The five negatives of each of the 13 regions of 3 x 3; some are regions of their own."""
_LEAST = -1e9
"""Similarity of what is no negative: nothing is left of it, and a sum of nothing else stays finite."""


# ---- the term --------------------------------------------------------------------------------------------------------
@in_float32
def one_directional(positive: Tensor, negatives: Tensor) -> Tensor:
    """l = -log( e^s+ / (e^s+ + sum_k e^s-_k) ) of similarities that are divided by tau already.

    Args:
        positive: (...,) similarity of the anchor and its positive.
        negatives: (..., K) similarities of the anchor and its negatives; K = 0 gives 0.

    Returns:
        (...,) terms, by log-sum-exp.

    Raises:
        UserError: shapes that don't fit.
    """
    check_floats(positive=positive, negatives=negatives)
    if negatives.dim() < 1 or negatives.shape[:-1] != positive.shape:
        raise UserError(
            f"negatives {tuple(negatives.shape)} need the positive's shape {tuple(positive.shape)} and (K,)"
        )
    if not negatives.shape[-1]:
        return positive * 0
    return softplus(negatives.logsumexp(-1) - positive)


def _terms(z: Tensor, parts: int, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """Similarities (M, M), and log of the sum over each sample's negatives (M,): those of the other partitions."""
    u = normalised(z)
    s = u @ u.T / temperature
    part = torch.arange(len(z), device=z.device) % parts
    return s, s.masked_fill(part[:, None] == part, _LEAST).logsumexp(1)


def _pair(s: Tensor, negative: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """L(a, b; N) summed over pairs of rows."""
    return softplus(negative[a] - s[a, b]).sum() + softplus(negative[b] - s[b, a]).sum()


def _check_parts(rows: int, unit: int, parts: int, what: str) -> None:
    if parts < 1:
        raise UserError(f"parts={parts} must be at least 1")
    if not rows or rows % (unit * parts):
        raise UserError(f"{rows} rows: {what} needs a multiple of {unit * parts} ({unit} x {parts} partitions)")


# ---- global ----------------------------------------------------------------------------------------------------------
@in_float32
def global_random(z: Tensor, *, temperature: float | Tensor = 0.1) -> Tensor:
    """G^R: SimCLR of neighbours, mean over all anchors; negatives are all but the pair.

    Args:
        z: (2B, D), rows 2k and 2k + 1 are views of one slice. Normalised here.
        temperature: above 0.

    Raises:
        UserError: an odd number of rows.
    """
    check_views(z, minimum=2)
    if len(z) % 2:
        raise UserError(f"{len(z)} rows: G^R needs pairs, rows 2k and 2k + 1 of one slice")
    return simclr(z[0::2], z[1::2], temperature=temperature)


@in_float32
def global_domain_minus(z: Tensor, *, parts: int = 4, temperature: float | Tensor = 0.1) -> Tensor:
    """G^D-: a slice and its two augmented copies, against all slices of other partitions.

        (1 / 3B) sum_i L(x_i, x'_i; N_i) + L(x_i, x''_i; N_i) + L(x'_i, x''_i; N_i)

    That is twice the mean one-directional term.

    Args:
        z: (3B, D): the slices, their first and their second copies; within each, volume by volume, partition by
            partition, so that row i is of partition i mod ``parts``. Normalised here.
        parts: partitions of a volume.
        temperature: above 0.

    Returns:
        A scalar; 0 for one partition; 2 log(1 + 3B (1 - 1 / parts)) where all rows are alike.

    Raises:
        UserError: rows that aren't a multiple of 3 x ``parts``.
    """
    check_views(z)
    check_positive(temperature=temperature)
    _check_parts(len(z), 3, parts, "G^D-")
    s, negative = _terms(z, parts, temperature)
    i = torch.arange(len(z) // 3, device=z.device)
    first, second = i + len(i), i + 2 * len(i)
    total = _pair(s, negative, i, first) + _pair(s, negative, i, second) + _pair(s, negative, first, second)
    return total / len(z)


@in_float32
def global_domain(z: Tensor, *, parts: int = 4, temperature: float | Tensor = 0.1) -> Tensor:
    """G^D: besides its own copy, a slice's positives are those of the same partition of the next volume, in a ring.

    For every slice i1 of a volume: i2 its copy, i3 the same partition of the next volume, i4 that one's copy;

        (1 / M) sum L(i1, i2) + L(i1, i3) + L(i3, i4) + L(i2, i4),     negatives: all rows of other partitions

    That is four times the mean one-directional term.

    Args:
        z: (M, D) in blocks of ``parts``: a volume's slices, their copies, the next volume's slices, their copies ...
            Normalised here.
        parts: partitions of a volume.
        temperature: above 0.

    Returns:
        A scalar; 0 for one partition.

    Raises:
        UserError: rows that aren't a multiple of 2 x ``parts``.
    """
    check_views(z)
    check_positive(temperature=temperature)
    _check_parts(len(z), 2, parts, "G^D")
    s, negative = _terms(z, parts, temperature)
    rows = torch.arange(len(z), device=z.device)
    i1 = rows[rows % (2 * parts) < parts]
    i2, i3, i4 = ((i1 + k * parts) % len(z) for k in (1, 2, 3))
    pairs = ((i1, i2), (i1, i3), (i3, i4), (i2, i4))
    return torch.stack([_pair(s, negative, a, b) for a, b in pairs]).sum() / len(z)


# ---- regions ---------------------------------------------------------------------------------------------------------
def _named_corners(names: tuple[str, ...], most: int) -> Tensor:
    place = {"0": 0, "h": most // 2, "m": most, "q": most // 4, "t": 3 * most // 4}
    return torch.tensor([[place[row], place[column]] for row, column in map(tuple, names)], dtype=torch.int64)


def region_corners(side: int, regions: int = 13, size: int = 3) -> Tensor:
    """Row and column of the upper left corners of the regions of a square map: (``regions``, 2) int64.

    With m = side - 4 for regions of 3 x 3 (side - 1 for single places), h = m // 2, q = m // 4, t = 3 m // 4: the nine
    places of {0, h, m} x {0, h, m}, then for 13 regions (q, q), (q, t), (t, q), (t, t).

    Args:
        side: of the map.
        regions: 9 or 13.
        size: 1 or 3, the side of a region.

    Raises:
        UserError: another number or size, a map in which regions would coincide.
    """
    if regions not in (9, 13) or size not in (1, 3):
        raise UserError(f"regions={regions}, size={size}: 9 or 13 regions of size 1 or 3")
    most = side - (4 if size == 3 else 1)
    if most < (4 if regions == 13 else 2):
        raise UserError(f"a map of {side} x {side} is too small for {regions} regions of {size} x {size}")
    return _named_corners(_GRID[:regions], most)


def region_negatives(side: int, regions: int = 13, size: int = 3, count: int = 5) -> Tensor:
    """Corners of each region's negatives: (``regions``, ``count``, 2) int64.

    13 regions of 3 x 3 have the table of the released code, its first ``count``; all others their ``count`` nearest
    other regions, the earlier one where two are as near.

    Args:
        side: of the map.
        regions: 9 or 13.
        size: 1 or 3.
        count: negatives of a region; at most 5.

    Raises:
        UserError: see `region_corners`; a count out of range.
    """
    corners = region_corners(side, regions, size)
    if not 1 <= count <= 5:
        raise UserError(f"count={count}: a region has 1 to 5 negatives")
    if (regions, size) == (13, 3):
        return torch.stack([_named_corners(row[:count], side - 4) for row in _AROUND])
    far = (corners[:, None] - corners).square().sum(2)
    far.fill_diagonal_(int(far.max()) + 1)
    return corners[far.argsort(dim=1, stable=True)[:, :count]]


@in_float32
def region_features(f: Tensor, corners: Tensor, *, size: int = 3, weight: Tensor | None = None) -> Tensor:
    """Features of regions of maps: flattened rows first, then columns, then channels.

    Args:
        f: (N, C, H, W) maps.
        corners: (..., 2) int64, row and column of the upper left corners.
        size: side of a region.
        weight: (D, size * size * C) of a linear map of every region; None: as they are.

    Returns:
        (N, ..., size * size * C), or (N, ..., D).

    Raises:
        UserError: shapes that don't fit, a region that leaves the map.
    """
    if f.dim() != 4 or not f.is_floating_point() or not f.numel():
        raise UserError(f"maps are (N, C, H, W) of floating-point values, got {tuple(f.shape)} {f.dtype}")
    if corners.dim() < 1 or corners.shape[-1] != 2 or corners.dtype != torch.int64 or not corners.numel():
        raise UserError(f"corners are (..., 2) int64, got {tuple(corners.shape)} {corners.dtype}")
    check_range("corners", corners, 0, min(f.shape[2:]) - size + 1)
    y, x = corners.to(f.device).unbind(-1)
    step = torch.arange(size, device=f.device)
    y, x = y[..., None, None] + step[:, None], x[..., None, None] + step
    found = f[:, :, y, x].movedim(1, -1).flatten(-3)
    if weight is None:
        return found
    if weight.dim() != 2 or not weight.is_floating_point() or weight.shape[1] != found.shape[-1] or not len(weight):
        raise UserError(f"weight needs the shape (D, {found.shape[-1]}), got {tuple(weight.shape)}")
    return found @ weight.T


def _regions(f: Tensor, regions: int, size: int, negatives: int, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Unit vectors of the regions (N, R, D), and of each one's negatives (N, R, K, D)."""
    if f.dim() != 4 or f.shape[2] != f.shape[3]:
        raise UserError(f"maps are square, (N, C, S, S), got {tuple(f.shape)}")
    side = f.shape[3]
    near = region_negatives(side, regions, size, negatives)
    own = region_features(f, region_corners(side, regions, size), size=size, weight=weight)
    return normalised(own), normalised(region_features(f, near, size=size, weight=weight))


def _contrast(anchor: Tensor, positive: Tensor, negatives: Tensor, temperature: float | Tensor) -> Tensor:
    s = torch.einsum("nrd,nrkd->nrk", anchor, negatives) / temperature
    return one_directional((anchor * positive).sum(2) / temperature, s)


@in_float32
def local_random(
    f: Tensor, *, regions: int = 13, size: int = 3, negatives: int = 5, weight: Tensor | None = None,
    temperature: float | Tensor = 0.1,
) -> Tensor:  # fmt: skip
    """L^R: a region in two copies of one image agrees with itself, against the regions around it in both copies.

    The mean of both directions over images and regions.

    Args:
        f: (2B, C, S, S) maps; rows 2k and 2k + 1 are copies of one image without change of place.
        regions: 9 or 13; see `region_corners`.
        size: 1 or 3.
        negatives: of each region in each copy; see `region_negatives`.
        weight: of a linear map of every region; see `region_features`.
        temperature: above 0.

    Returns:
        A scalar; log(1 + 2 ``negatives``), so log 11, for maps that are alike everywhere.

    Raises:
        UserError: shapes that don't fit; maps that are too small.
    """
    check_positive(temperature=temperature)
    if f.dim() == 4 and len(f) % 2:
        raise UserError(f"{len(f)} maps: L^R needs pairs, rows 2k and 2k + 1 of one image")
    own, near = _regions(f, regions, size, negatives, weight)
    a, b = own[0::2], own[1::2]
    around = torch.cat([near[0::2], near[1::2]], dim=2)
    terms = _contrast(a, b, around, temperature) + _contrast(b, a, around, temperature)
    return terms.mean() / 2


@in_float32
def local_domain(
    f: Tensor, *, parts: int = 4, regions: int = 13, size: int = 3, negatives: int = 4, weight: Tensor | None = None,
    temperature: float | Tensor = 0.1,
) -> Tensor:  # fmt: skip
    """L^D: besides its copy, a region's positives are the same region of the same partition of two other volumes.

    The sum over anchors (first copies alone), regions and positives, over regions and twice the anchors: 1.5 times the
    mean term from three volumes on.

    Args:
        f: (2 V parts, C, S, S) maps: the first copies of all slices, volume by volume and partition by partition, then
            their second copies, all without change of place.
        parts: partitions of a volume.
        regions: 9 or 13; see `region_corners`.
        size: 1 or 3.
        negatives: of each region in the anchor's and in the positive's map; see `region_negatives`.
        weight: of a linear map of every region; see `region_features`.
        temperature: above 0.

    Raises:
        UserError: rows that aren't a multiple of 2 x ``parts``; shapes that don't fit; maps that are too small.
    """
    check_positive(temperature=temperature)
    if f.dim() == 4:
        _check_parts(len(f), 2, parts, "L^D")
    own, near = _regions(f, regions, size, negatives, weight)
    count = len(own) // 2
    first, around = own[:count], near[:count]
    shifts = [-k * parts for k in range(1, min(3, count // parts))]
    positives = [(own[count:], near[count:]), *((first.roll(k, 0), around.roll(k, 0)) for k in shifts)]
    total = torch.stack(
        [_contrast(first, p, torch.cat([around, n], dim=2), temperature).sum() for p, n in positives]
    ).sum()
    return total / own.shape[1] / len(own)


# ---- segmentation ----------------------------------------------------------------------------------------------------
@in_float32
def soft_dice(logits: Tensor, target: Tensor, *, epsilon: float = 1e-10) -> Tensor:
    """Soft Dice loss, background included, of each image and class by itself.

        d = 2 sum p y / (sum p + sum y + epsilon),   loss = 1 - mean d,   p = softmax(logits)

    A class that is absent has d near 0, not 1: a constant part of the loss.

    Args:
        logits: (N, K, H, W), or of any further axes in place of H and W.
        target: (N, H, W) int64, or shares (N, K, H, W) of floating-point values (mixup).
        epsilon: in the denominator alone.

    Raises:
        UserError: shapes that don't fit, a class outside 0 .. K - 1.
    """
    if logits.dim() < 3 or not logits.is_floating_point() or not logits.numel():
        raise UserError(f"logits are (N, K, H, W) of floating-point values, got {tuple(logits.shape)} {logits.dtype}")
    count, axes = logits.shape[1], tuple(range(2, logits.dim()))
    if target.is_floating_point():
        if target.shape != logits.shape:
            raise UserError(f"shares {tuple(target.shape)} need the shape of the logits {tuple(logits.shape)}")
        y = target
    else:
        if target.shape != (len(logits), *logits.shape[2:]) or target.dtype != torch.int64:
            wanted = (len(logits), *logits.shape[2:])
            raise UserError(f"classes need the shape {wanted} of int64, got {tuple(target.shape)} {target.dtype}")
        check_range("classes", target, 0, count)
        y = torch.nn.functional.one_hot(target, count).movedim(-1, 1).to(logits.dtype)
    p = logits.softmax(1)
    return 1 - (2 * (p * y).sum(axes) / (p.sum(axes) + y.sum(axes) + epsilon)).mean()
