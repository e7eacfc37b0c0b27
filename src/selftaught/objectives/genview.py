"""GenView: pairs weighed by what a frozen encoder sees in them, and how much noise a generator may add.

m = T v;  f = (m - min m) / (max m - min m + 1e-7), g = 1 - f;  both scaled to sum 1 over the P tokens of a view
q = cos(sum_p f^1_p T^1_p, sum_p f^2_p T^2_p) - cos(sum_p g^1_p T^1_p, sum_p g^2_p T^2_p)
w = B softmax_b(gamma q),  a constant;  L = mean_b w_b l_b,  l_b the base method's loss of a sample
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_positive, check_views, expect_unit, in_float32, unit
from selftaught.objectives._foreground import TokenSums
from selftaught.objectives._queue import check_queue

__all__ = [
    "cosine_alphas",
    "foreground_direction",
    "foreground_maps",
    "foreground_ratio",
    "foreground_threshold",
    "genview",
    "genview_moco_v2",
    "genview_moco_v3",
    "genview_quality",
    "genview_simclr",
    "genview_simsiam",
    "genview_swav",
    "genview_weights",
    "noise_level",
    "perturb_embedding",
]

_EPS = 1e-7
_BINS, _STEP = (0.2, 0.4, 0.6, 0.8), 100


# ---- foreground ------------------------------------------------------------------------------------------------------
@torch.no_grad()
def foreground_direction(tokens: Tensor, grid: Sequence[int]) -> Tensor:
    """v: the first eigenvector of the tokens' covariance, its sign such that centres score higher than borders.

    Args:
        tokens: (N, P, C) of many images, in raster order.
        grid: rows and columns of the tokens.

    Returns:
        (C,) of length 1. Scores are token . v, without the mean taken out.

    Raises:
        UserError: shapes that don't fit, fewer than two tokens.
    """
    _check_tokens(tokens)
    rows, columns = grid
    if rows * columns != tokens.shape[1]:
        raise UserError(f"a grid of {rows} x {columns} has not the {tokens.shape[1]} tokens of a view")
    if tokens.shape[0] * tokens.shape[1] < 2:
        raise UserError("a direction needs two tokens or more")
    sums = TokenSums()
    sums.add(tokens, grid)
    return sums.direction().to(tokens.dtype)


@torch.no_grad()
def foreground_threshold(tokens: Tensor, direction: Tensor, *, fraction: float = 0.4) -> float:
    """alpha: the score above which a share ``fraction`` of all tokens lies (0.4 in the paper, 0.35 in its script).

    Raises:
        UserError: a share outside (0, 1).
    """
    _check_direction(tokens, direction)
    if not 0 < fraction < 1:
        raise UserError(f"fg_fraction={fraction}: the share of foreground lies between 0 and 1")
    scores = (tokens @ direction).double().flatten().sort().values
    return float(scores[min(len(scores) - 1, math.floor((1 - fraction) * len(scores)))])


@torch.no_grad()
def foreground_ratio(tokens: Tensor, direction: Tensor, alpha: float) -> Tensor:
    """p (N,): share of an image's tokens (N, P, C) with token . v > alpha."""
    _check_direction(tokens, direction)
    return (tokens @ direction > alpha).float().mean(1)


def noise_level(ratio: Tensor, *, bins: Sequence[float] = _BINS, step: int = _STEP) -> Tensor:
    """l(p): 0 up to p = 0.2, 100 up to 0.4, 200 up to 0.6, 300 up to 0.8, 400 above: more foreground, more noise.

    Args:
        ratio: p in [0, 1], any shape.
        bins: rising bounds, each part of the bin below it.
        step: what the level rises by from bin to bin.

    Returns:
        int64 of the same shape.

    Raises:
        UserError: a share outside [0, 1].
    """
    check_floats(ratio=ratio)
    if not bool(((ratio >= 0) & (ratio <= 1)).all()):
        raise UserError("a foreground ratio must lie in [0, 1]")
    bounds = torch.tensor(bins, dtype=ratio.dtype, device=ratio.device)
    return step * torch.bucketize(ratio, bounds)


def cosine_alphas(steps: int = 1000) -> Tensor:
    """abar of the squared-cosine schedule (Nichol and Dhariwal 2021): (steps,) float64, each beta at most 0.999.

    Raises:
        UserError: fewer than one step.
    """
    if steps < 1:
        raise UserError(f"steps={steps} must be 1 or more")
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return torch.cumprod(1 - (1 - bar[1:] / bar[:-1]).clamp(max=0.999), 0)


def perturb_embedding(
    embedding: Tensor,
    level: Tensor,
    *,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    noise: Tensor | None = None,
    alphas: Tensor | None = None,
) -> Tensor:
    """c_l = sqrt(abar_l) c + sqrt(1 - abar_l) eps on the standardised embedding, then undone (unCLIP).

    Args:
        embedding: c (N, D).
        level: l (N,) int64, 0 to the steps of the schedule less one.
        mean, std: (D,) of the embeddings; None: 0 and 1.
        noise: eps (N, D); None draws it.
        alphas: abar; None: :func:`cosine_alphas` of 1000 steps.

    Raises:
        UserError: shapes that don't fit, a level outside the schedule.
    """
    check_views(embedding)
    check_floats(mean=mean, std=std, noise=noise, alphas=alphas)
    table = cosine_alphas() if alphas is None else alphas
    width = embedding.shape[1:]
    if table.dim() != 1 or any(x is not None and x.shape != width for x in (mean, std)):
        raise UserError(f"mean and std need the shape {tuple(width)}, alphas one dimension")
    if noise is not None and noise.shape != embedding.shape:
        raise UserError(f"noise needs the embedding's shape {tuple(embedding.shape)}, got {tuple(noise.shape)}")
    if level.dtype != torch.int64 or level.shape != embedding.shape[:1]:
        raise UserError(f"levels need the shape ({len(embedding)},) and type int64, got {tuple(level.shape)}")
    if int(level.min()) < 0 or int(level.max()) >= len(table):
        raise UserError(f"levels must lie in 0 to {len(table) - 1}")
    bar = table.to(embedding)[level.to(table.device)].to(embedding)[:, None]
    eps = torch.randn_like(embedding) if noise is None else noise.to(embedding)
    shift, scale = (0.0 if mean is None else mean), (1.0 if std is None else std)
    return bar.sqrt() * (embedding - shift) + (1 - bar).sqrt() * eps * scale + shift  # no division: std may be 0


# ---- weights ---------------------------------------------------------------------------------------------------------
@in_float32
def foreground_maps(tokens: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Foreground and background weights of the tokens (N, P, C) along v (C,): two (N, P), each summing to 1.

    Where all tokens score alike the foreground is 0 and the background even.
    """
    _check_direction(tokens, direction)
    m = tokens @ direction
    low, high = m.amin(1, keepdim=True), m.amax(1, keepdim=True)
    f = (m - low) / (high - low + _EPS)
    g = 1 - f
    return f / (f.sum(1, keepdim=True) + _EPS), g / (g.sum(1, keepdim=True) + _EPS)


@in_float32
def genview_quality(
    tokens1: Tensor,
    tokens2: Tensor,
    direction: Tensor,
    *,
    similarity: Literal["cosine", "dot"] = "cosine",
    parts: Literal["both", "foreground", "background"] = "both",
) -> Tensor:
    """q (N,): how alike two views' foregrounds are less how alike their backgrounds; no gradient.

    Args:
        tokens1, tokens2: (N, P, C) of a frozen encoder for the augmented views; P may differ between them.
        direction: v (C,), pointing to the foreground.
        similarity: cosine (in [-2, 2]; of a vector of zeros 0), or dot.
        parts: of both, or one of them alone.

    Raises:
        UserError: shapes that don't fit, another word.
    """
    _check_direction(tokens1, direction)
    _check_direction(tokens2, direction)
    if len(tokens1) != len(tokens2):
        raise UserError(f"{len(tokens1)} and {len(tokens2)} views are no pairs")
    if similarity not in ("cosine", "dot") or parts not in ("both", "foreground", "background"):
        raise UserError(f"similarity={similarity}, parts={parts}: cosine or dot; both, foreground or background")
    one, two = tokens1.detach(), tokens2.detach()
    sides = []
    for a, b in zip(foreground_maps(one, direction), foreground_maps(two, direction), strict=True):
        za, zb = ((weights[..., None] * t).sum(1) for weights, t in ((a, one), (b, two)))
        if similarity == "cosine":
            za, zb = unit(za), unit(zb)
        sides.append((za * zb).sum(1))
    fore, back = sides
    return {"both": fore - back, "foreground": fore, "background": -back}[parts].detach()


@in_float32
def genview_weights(quality: Tensor, *, gamma: float = 1.0) -> Tensor:
    """w = B exp(gamma q) / sum exp(gamma q) over the local batch (B,), without gradient; their mean is 1.

    Raises:
        UserError: no row of numbers.
    """
    check_floats(quality=quality)
    if quality.dim() != 1 or not len(quality):
        raise UserError(f"the quality needs the shape (B,), got {tuple(quality.shape)}")
    return len(quality) * (gamma * quality.detach()).softmax(0)


@in_float32
def genview(losses: Tensor, weights: Tensor) -> Tensor:
    """GenView (Li et al., ECCV 2024, arXiv 2403.12003): mean_b w_b l_b, the weights constant.

    Args:
        losses: l (B,) of the base method, one per pair.
        weights: w (B,), :func:`genview_weights`; ones give the base method.

    Returns:
        A scalar.

    Raises:
        UserError: other shapes.
    """
    check_floats(losses=losses, weights=weights)
    if losses.dim() != 1 or losses.shape != weights.shape or not len(losses):
        raise UserError(f"losses and weights need one shape (B,), got {tuple(losses.shape)}, {tuple(weights.shape)}")
    return (weights.detach() * losses).mean()


@in_float32
def genview_moco_v3(
    q1: Tensor, q2: Tensor, k1: Tensor, k2: Tensor, weights: Tensor, *, temperature: float | Tensor = 1.0
) -> Tensor:
    """MoCo v3 with weighed pairs: l_b = 2 tau CE(q_b . k / tau, own key), both directions; negatives are untouched.

    Args:
        q1, q2: predictions (B, D) of the two views.
        k1, k2: keys (B, D) of the momentum copy; constants.
        weights: w (B,).
        temperature: tau.

    Raises:
        UserError: shapes that don't fit, a temperature that isn't above 0.
    """
    check_views(q1, q2, k1, k2)
    check_positive(temperature=temperature)
    own = torch.arange(len(q1), device=q1.device)

    def one(q: Tensor, k: Tensor) -> Tensor:
        logits = unit(q) @ unit(k.detach()).T / temperature
        return genview(2 * temperature * cross_entropy(logits, own, reduction="none"), weights)

    return one(q1, k2) + one(q2, k1)


@in_float32
def genview_simsiam(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor, weights: Tensor) -> Tensor:
    """SimSiam (or BYOL) with weighed pairs: l_b = -cos(p_b, sg z_b), half of both directions.

    Args:
        p1, p2: predictions (B, D).
        z1, z2: projections (B, D); constants.
        weights: w (B,).

    Raises:
        UserError: shapes that don't fit.
    """
    check_views(p1, p2, z1, z2)

    def one(p: Tensor, z: Tensor) -> Tensor:
        return genview(-(unit(p) * unit(z.detach())).sum(1), weights)

    return (one(p1, z2) + one(p2, z1)) / 2


@in_float32
def genview_moco_v2(
    q: Tensor,
    k: Tensor,
    queue: Tensor,
    weights: Tensor,
    *,
    temperature: float | Tensor = 0.2,
    mask: Tensor | None = None,
) -> Tensor:
    """MoCo v2 with weighed pairs: l_b = -log of the own key's share among it and the queue; one direction.

    Args:
        q, k: queries and keys (B, D), unit vectors already; keys are constants.
        queue: (K, D) past keys, unit vectors.
        weights: w (B,).
        temperature: tau.
        mask: (B, K) bool, True where an entry of the queue is no negative.

    Raises:
        UserError: shapes that don't fit, a temperature that isn't above 0.
    """
    check_queue(q, k, queue, mask)
    check_positive(temperature=temperature)
    expect_unit("genview_moco_v2", q, k, queue)
    negatives = q @ queue.detach().T / temperature
    if mask is not None:
        negatives = negatives.masked_fill(mask, -math.inf)
    logits = torch.cat([(q * k.detach()).sum(1, keepdim=True) / temperature, negatives], 1)
    return genview(-logits.log_softmax(1)[:, 0], weights)


@in_float32
def genview_simclr(z1: Tensor, z2: Tensor, weights: Tensor, *, temperature: float | Tensor = 0.1) -> Tensor:
    """SimCLR with weighed pairs: l_b is the mean NT-Xent of both views of sample b; negatives are untouched.

    Args:
        z1, z2: projections (B, D).
        weights: w (B,).
        temperature: tau.

    Raises:
        UserError: shapes that don't fit, a temperature that isn't above 0.
    """
    rows, _ = check_views(z1, z2)
    check_positive(temperature=temperature)
    z = unit(torch.cat([z1, z2]))
    itself = torch.eye(2 * rows, dtype=torch.bool, device=z.device)
    logits = (z @ z.T / temperature).masked_fill(itself, -math.inf)
    other = torch.arange(2 * rows, device=z.device).roll(rows)
    found = cross_entropy(logits, other, reduction="none")
    return genview((found[:rows] + found[rows:]) / 2, weights)


@in_float32
def genview_swav(*scores: Tensor, codes: Tensor, weights: Tensor, temperature: float | Tensor = 0.1) -> Tensor:
    """SwAV with weighed pairs: the two large crops predict each other with weights, small crops without.

    Args:
        *scores: (B, K) of each crop, the two large ones first.
        codes: (2, B, K), :func:`sinkhorn`'s for the large ones; constants.
        weights: w (B,).
        temperature: tau.

    Raises:
        UserError: shapes that don't fit, a temperature that isn't above 0.
    """
    check_views(*scores)
    check_positive(temperature=temperature)
    check_floats(codes=codes)
    if len(scores) < 2 or codes.shape != (2, *scores[0].shape):
        raise UserError(f"two crops or more of shape (B, K), codes (2, B, K); got {len(scores)}, {tuple(codes.shape)}")
    total = scores[0].new_zeros(())
    one = torch.ones_like(scores[0][:, 0])
    for i, q in enumerate(codes.detach()):
        for v, s in enumerate(scores):
            if v != i:
                rows = -(q * (s / temperature).log_softmax(1)).sum(1)
                total = total + genview(rows, weights if v < 2 else one)
    return total / (2 * (len(scores) - 1))


def _check_tokens(tokens: Tensor) -> None:
    check_floats(tokens=tokens)
    if tokens.dim() != 3 or 0 in tokens.shape:
        raise UserError(f"tokens need the shape (views, tokens, width), got {tuple(tokens.shape)}")


def _check_direction(tokens: Tensor, direction: Tensor) -> None:
    _check_tokens(tokens)
    check_floats(direction=direction)
    if direction.shape != tokens.shape[2:]:
        raise UserError(f"the direction needs the shape ({tokens.shape[2]},), got {tuple(direction.shape)}")
