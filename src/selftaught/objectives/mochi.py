"""MoCHi: MoCo v2 with hard negatives mixed from the hardest of the queue, and from those and the query."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_positive, check_range, expect_unit, in_float32, unit
from selftaught.objectives._queue import CHUNK, check_queue, contrast, diagnostics
from selftaught.objectives.moco_v2 import moco_v2_terms

__all__ = ["MochiDraws", "draw_mochi", "mochi", "mochi_negatives", "mochi_terms"]


class MochiDraws(NamedTuple):
    """The random draws of MoCHi: which of its hardest negatives a query mixes, and with which coefficients.

    Attributes:
        first: (B, s) int64, i of n_i as a rank: 0 is the query's hardest negative.
        second: (B, s) int64, j of n_j.
        alpha: (B, s), share of n_i.
        partner: (B, s') int64, j of the n_j that is mixed with the query.
        beta: (B, s'), share of the query.
    """

    first: Tensor
    second: Tensor
    alpha: Tensor
    partner: Tensor
    beta: Tensor


def draw_mochi(
    count: Tensor,
    *,
    s: int = 1024,
    s_prime: int = 128,
    alpha_range: tuple[float, float] = (0.0, 1.0),
    beta_max: float = 0.5,
    generator: torch.Generator | None = None,
) -> MochiDraws:
    """Draw MoCHi's partners and shares, independently for every query, with replacement.

    Args:
        count: (B,) int64, from how many hardest negatives each query may draw: N, fewer where a mask leaves fewer.
        s: number of mixtures of two negatives.
        s_prime: number of mixtures with the query.
        alpha_range: alpha is uniform in it.
        beta_max: beta is uniform in [0, beta_max).
        generator: random generator on the device of ``count``; None takes torch's global one.

    Raises:
        UserError: (a ``ValueError``) a count that isn't (B,) int64, a range that :func:`mochi` refuses.
    """
    if count.dim() != 1 or count.dtype != torch.int64:
        raise UserError(f"count must be (B,) int64, got {tuple(count.shape)} {count.dtype}")
    _check_shares(s, s_prime, alpha_range, beta_max)
    rows, last = len(count), (count - 1).clamp_min(0).unsqueeze(1)

    def uniform(width: int) -> Tensor:
        return torch.rand(rows, width, device=count.device, generator=generator)

    def ranks(width: int) -> Tensor:
        return torch.minimum((uniform(width) * count.unsqueeze(1)).long(), last)

    low, high = alpha_range
    return MochiDraws(
        ranks(s), ranks(s), low + (high - low) * uniform(s), ranks(s_prime), beta_max * uniform(s_prime)
    )  # fmt: skip


@in_float32
def mochi(
    q: Tensor,
    k: Tensor,
    queue: Tensor,
    *,
    temperature: float | Tensor = 0.2,
    N: int = 1024,
    s: int | None = None,
    s_prime: int | None = None,
    alpha_range: tuple[float, float] = (0.0, 1.0),
    beta_max: float = 0.5,
    normalize: bool = True,
    only_hard: bool = False,
    include_positive: bool = True,
    mask: Tensor | None = None,
    draws: MochiDraws | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """MoCHi, hard negative mixing (Kalantidis et al., NeurIPS 2020, arXiv 2010.01028, section 4).

    For every query, with n_i and n_j drawn from the N rows of the queue that score highest with it:

        h_m  = (alpha_m n_i + (1 - alpha_m) n_j) / ||.||,    alpha_m ~ U(0, 1)              m = 1..s
        h'_m = (beta_m  q   + (1 - beta_m)  n_j) / ||.||,    beta_m  ~ U(0, 1/2)            m = 1..s'
        L = mean -log( exp(q.k/t) / ( exp(q.k/t) + sum_n exp(q.n/t) + sum_m exp(q.h_m/t) + sum_m exp(q.h'_m/t) ) )

    The mixtures are constants, also the q inside h'. They are never formed: q.h is the mixture of two similarities over
    a length, so that memory is B (K + N + s + s') numbers and not B (s + s') D.

    Args:
        q: (B, D) queries, **unit vectors already**: only the mixtures are normalised here.
        k: (B, D) keys, unit vectors; a constant.
        queue: (K, D) past keys without the current ones, unit vectors; a constant.
        temperature: t, above 0; a tensor of one number gets a gradient.
        N: number of hardest negatives to draw from, 1 to K. N = K mixes entries at random (ablation).
        s: mixtures of two negatives; None: 1024, or as many as ``draws`` has. With s = s_prime = 0 this is
            :func:`moco_v2` to the bit.
        s_prime: s', mixtures with the query; None: 128, or as many as ``draws`` has.
        alpha_range: alpha is uniform in it.
        beta_max: beta, the query's share, is uniform in (0, beta_max); at most 1.
        normalize: bring mixtures back to unit length. Off makes them easier (ablation).
        only_hard: of the queue only the N hardest are negatives, the rest is left out (ablation).
        include_positive: the positive's own term in the denominator; off is the decoupled form.
        mask: (B, K) bool, True where a queue entry is no negative of the query; it isn't mixed either.
        draws: what :func:`draw_mochi` gave, of these B, s, s' and N; None draws.
        generator: random generator for that; None takes torch's global one.

    Returns:
        A scalar, above that of :func:`moco_v2` on the same queue. A query whose negatives are all masked adds 0.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, N outside 1 to K, a negative s or s_prime, draws of other
            sizes or (seen on the CPU only) of ranks outside 0 .. N - 1, beta_max outside (0, 1], alpha_range outside
            [0, 1], a temperature that isn't above 0.
    """
    return mochi_terms(
        q, k, queue, temperature=temperature, N=N, s=s, s_prime=s_prime, alpha_range=alpha_range, beta_max=beta_max,
        normalize=normalize, only_hard=only_hard, include_positive=include_positive, mask=mask, draws=draws,
        generator=generator,
    )["loss"]  # fmt: skip


@in_float32
def mochi_terms(
    q: Tensor,
    k: Tensor,
    queue: Tensor,
    *,
    temperature: float | Tensor = 0.2,
    N: int = 1024,
    s: int | None = None,
    s_prime: int | None = None,
    alpha_range: tuple[float, float] = (0.0, 1.0),
    beta_max: float = 0.5,
    normalize: bool = True,
    only_hard: bool = False,
    include_positive: bool = True,
    mask: Tensor | None = None,
    draws: MochiDraws | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """:func:`mochi` as ``loss`` with the diagnostics of :func:`moco_v2_terms`; synthetic negatives count as negatives.

    ``proxy_accuracy`` falls with MoCHi: the task is harder.
    """
    s, s_prime = _sizes(draws, s, s_prime)
    if not (s or s_prime or only_hard):
        return moco_v2_terms(q, k, queue, temperature=temperature, include_positive=include_positive, mask=mask)
    check_queue(q, k, queue, mask)
    check_positive(temperature=temperature)
    _check_mixing(len(queue), N, s, s_prime, alpha_range, beta_max)
    expect_unit("mochi", q, k, queue)
    queue = queue.detach()
    similarity = q @ queue.T
    negatives = similarity if mask is None else similarity.masked_fill(mask, -math.inf)
    index, count = _ranked(negatives, N, mask)
    if draws is None:
        draws = draw_mochi(count, s=s, s_prime=s_prime, alpha_range=alpha_range, beta_max=beta_max, generator=generator)
    _check_draws(draws, len(q), s, s_prime, N)
    mixed = _similarity_to_mixtures(q, queue, similarity.gather(1, index), index, draws, normalize)
    mixed = mixed.masked_fill(count.unsqueeze(1) == 0, -math.inf)
    logits = torch.cat([negatives.gather(1, index) if only_hard else negatives, mixed], 1)
    positive = (q * k.detach()).sum(1) / temperature
    loss = contrast(positive, (logits / temperature).logsumexp(1), include_positive)
    return {"loss": loss, **diagnostics(q, k, logits.detach().amax(1))}


@in_float32
@torch.no_grad()
def mochi_negatives(
    q: Tensor,
    queue: Tensor,
    *,
    N: int = 1024,
    s: int | None = None,
    s_prime: int | None = None,
    alpha_range: tuple[float, float] = (0.0, 1.0),
    beta_max: float = 0.5,
    normalize: bool = True,
    mask: Tensor | None = None,
    draws: MochiDraws | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """MoCHi's synthetic negatives themselves, to look at or for a loss of one's own; :func:`mochi` doesn't need them.

    Arguments and errors as in :func:`mochi`.

    Returns:
        h (B, s, D), mixtures of two hard negatives, and h' (B, s', D), mixtures of the query with one. No gradient.
    """
    s, s_prime = _sizes(draws, s, s_prime)
    check_queue(q, q, queue, mask)
    _check_mixing(len(queue), N, s, s_prime, alpha_range, beta_max)
    similarity = q @ queue.T
    index, count = _ranked(similarity if mask is None else similarity.masked_fill(mask, -math.inf), N, mask)
    if draws is None:
        draws = draw_mochi(count, s=s, s_prime=s_prime, alpha_range=alpha_range, beta_max=beta_max, generator=generator)
    _check_draws(draws, len(q), s, s_prime, N)
    first, second, partner = (queue[index.gather(1, at)] for at in (draws.first, draws.second, draws.partner))
    alpha, beta = draws.alpha.to(q).unsqueeze(2), draws.beta.to(q).unsqueeze(2)
    pairs = alpha * first + (1 - alpha) * second
    with_query = beta * q.unsqueeze(1) + (1 - beta) * partner
    if not normalize:
        return pairs, with_query
    return unit(pairs), unit(with_query)


def _ranked(negatives: Tensor, n: int, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Each query's n hardest: positions in the queue (B, n), hardest first, and how many of them are unmasked (B,)."""
    index = negatives.detach().topk(n, dim=1).indices
    left = negatives.shape[1] - (mask.sum(1) if mask is not None else index.new_zeros(len(index)))
    return index, left.clamp_max(n)


def _similarity_to_mixtures(
    q: Tensor, queue: Tensor, hard: Tensor, index: Tensor, draws: MochiDraws, normalize: bool
) -> Tensor:
    """q.h and q.h' side by side (B, s + s'), from the similarities ``hard`` (B, N) of the entries ``index``.

    Lengths, shares and the inner q are constants; the gradient goes through the outer q alone.
    """
    alpha, beta = draws.alpha.to(q), draws.beta.to(q)
    pairs = alpha * hard.gather(1, draws.first) + (1 - alpha) * hard.gather(1, draws.second)
    partner = hard.gather(1, draws.partner)
    with_query = beta * (q * q.detach()).sum(1, keepdim=True) + (1 - beta) * partner
    if not normalize:
        return torch.cat([pairs, with_query], 1)
    with torch.no_grad():
        tiny = torch.finfo(q.dtype).tiny
        length = _mixture_lengths(queue, index, draws, alpha)
        own = queue.square().sum(1)[index.gather(1, draws.partner)]
        square = beta**2 * q.square().sum(1, keepdim=True) + (1 - beta) ** 2 * own + 2 * beta * (1 - beta) * partner
        longer = square.clamp_min(tiny).sqrt()
    return torch.cat([pairs / length.clamp_min(tiny), with_query / longer], 1)


def _mixture_lengths(queue: Tensor, index: Tensor, draws: MochiDraws, alpha: Tensor) -> Tensor:
    """||alpha n_i + (1 - alpha) n_j|| (B, s), gathered a few queries at a time."""
    first, second = index.gather(1, draws.first), index.gather(1, draws.second)
    step = max(1, CHUNK // max(1, first.shape[1] * queue.shape[1]))
    parts = [
        torch.linalg.vector_norm(torch.lerp(queue[j], queue[i], share.unsqueeze(2)), dim=2)
        for i, j, share in zip(first.split(step), second.split(step), alpha.split(step), strict=True)
    ]
    return torch.cat(parts)


def _sizes(draws: MochiDraws | None, s: int | None, s_prime: int | None) -> tuple[int, int]:
    """How many mixtures of each kind: as asked, else as drawn, else the paper's."""
    drawn = (1024, 128) if draws is None else tuple(x.shape[-1] if x.dim() else 0 for x in (draws.first, draws.partner))
    return drawn[0] if s is None else s, drawn[1] if s_prime is None else s_prime


def _check_draws(draws: MochiDraws, rows: int, s: int, s_prime: int, n: int) -> None:
    expected = ((rows, s), (rows, s), (rows, s), (rows, s_prime), (rows, s_prime))
    for name, value, shape in zip(MochiDraws._fields, draws, expected, strict=True):
        if value.shape != shape:
            raise UserError(f"draws.{name} needs the shape {shape} of B and s or s_prime, got {tuple(value.shape)}")
        if name in ("first", "second", "partner"):
            if value.dtype != torch.int64:
                raise UserError(f"draws.{name} must be int64, got {value.dtype}")
            check_range(f"draws.{name}", value, 0, n)
        else:
            check_floats(**{f"draws.{name}": value})


def _check_mixing(
    entries: int, n: int, s: int, s_prime: int, alpha_range: tuple[float, float], beta_max: float
) -> None:
    if not 1 <= n <= entries:
        raise UserError(f"N must lie in 1 to the queue's {entries} entries, got {n}")
    _check_shares(s, s_prime, alpha_range, beta_max)


def _check_shares(s: int, s_prime: int, alpha_range: tuple[float, float], beta_max: float) -> None:
    if s < 0 or s_prime < 0:
        raise UserError(f"s and s_prime must be 0 or more, got {s} and {s_prime}")
    if not 0 < beta_max <= 1:
        raise UserError(f"beta_max must lie above 0 and at most at 1, got {beta_max}")
    if not 0 <= alpha_range[0] <= alpha_range[1] <= 1:
        raise UserError(f"alpha_range must be two rising shares in [0, 1], got {alpha_range}")
