"""AMCL: several heads, a temperature for every pair (Wang et al., ECCV 2024, arXiv 2310.05615), in four frameworks.

With unit vectors z, a score phi(a, b) of a pair from a small network (:class:`selftaught.networks.PairScore`), and the
width d of a head:

    tau_ab   = tau_lo + (tau_hi - tau_lo) sigmoid(phi(a, b))
    Omega(t) = (d/2) log t + 1/t

-s/tau + Omega(tau) is, up to a constant, the negative log-likelihood of a positive under N(z, tau I): Omega keeps a
temperature from explaining everything. All losses are summed over the heads and averaged over the anchors; the values
are dominated by Omega and can't be compared between settings.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_floats, in_float32, softplus
from selftaught.objectives._correlation import off_diagonal, standardise
from selftaught.objectives._temperature import Score, Temperature, amcl_omega, check_heads, heads_of, unit_heads
from selftaught.objectives._tiled import lse_rows

__all__ = [
    "amcl",
    "amcl_barlow_twins",
    "amcl_barlow_twins_terms",
    "amcl_moco",
    "amcl_moco_terms",
    "amcl_omega",
    "amcl_simsiam",
    "amcl_simsiam_terms",
    "amcl_terms",
]

CHUNK = 2**22
"""Numbers of a tile of pairs; only one tile lives at a time, forward and backward."""


def amcl(
    z1: Tensor,
    z2: Tensor,
    *,
    phi: Score | None = None,
    tau_lo: float | Tensor = 0.05,
    tau_hi: float | Tensor = 0.2,
    beta: float = 0.1,
    negatives: str = "lse",
    include_positive: bool = False,
    detach_phi: bool = False,
) -> Tensor:
    """AMCL on SimCLR (arXiv 2310.05615, 2.1 of its table of losses). For an anchor i among the 2B rows of both views:

        l_i = - s_i+/tau_i+ + beta Omega(tau_i+) + R_i                         summed over heads, mean over anchors
        R_i = log sum_n exp( s_in/tau_in - beta Omega(tau_in) )                ``"lse"``
        R_i = s_in*/tau_in* - beta Omega(tau_in*),   n* = argmax_n s_in        ``"max"``, the paper's

    n runs over the 2B - 2 rows of the other samples, of the same head. For tau_lo = tau_hi the regularisers cancel, and
    ``"lse"`` is C times half of :func:`~selftaught.objectives.dcl`; with ``include_positive`` C times
    :func:`~selftaught.objectives.simclr`.

    The paper's ``"max"`` with wide limits (its released code has 1e-5 and 2) collapses: the negatives take the highest
    temperature, the positives the lowest, and attraction outweighs repulsion. The defaults here don't.

    Args:
        z1: (B, C, D) projections of the first view by C heads, or (B, D) for one head. Normalised here. Gathered.
        z2: the same of the second view.
        phi: scores of pairs of unit vectors; None takes their similarity itself. Unused where tau_lo = tau_hi.
        tau_lo: lowest temperature, above 0.
        tau_hi: highest temperature, at least ``tau_lo``; equal limits fix it.
        beta: weight of the regulariser; 0 leaves it out.
        negatives: ``"lse"`` or ``"max"``. n* is chosen by similarity; only the chosen pair has a gradient.
        include_positive: let n run over the positive, too (the form on LGP and CAN, 2.4).
        detach_phi: predict temperatures from constants: no gradient through phi into the heads.

    Returns:
        A scalar of any sign. Memory is linear in B.

    Raises:
        UserError: (a ``ValueError``) B < 2, shapes that don't fit, limits out of order, an unknown ``negatives``.
    """
    return amcl_terms(
        z1, z2, phi=phi, tau_lo=tau_lo, tau_hi=tau_hi, beta=beta, negatives=negatives,
        include_positive=include_positive, detach_phi=detach_phi,
    )["loss"]  # fmt: skip


@in_float32
def amcl_terms(
    z1: Tensor,
    z2: Tensor,
    *,
    phi: Score | None = None,
    tau_lo: float | Tensor = 0.05,
    tau_hi: float | Tensor = 0.2,
    beta: float = 0.1,
    negatives: str = "lse",
    include_positive: bool = False,
    detach_phi: bool = False,
) -> dict[str, Tensor]:
    """:func:`amcl` as ``loss``, its parts ``attraction`` and ``repulsion``, and the mean temperatures.

    ``tau_positive`` and ``tau_negative`` (over all negatives, or over the hardest) have no gradient. Where they part,
    the one at its lower and the other at its upper limit, the loss is collapsing.
    """
    rows = check_heads(z1, z2, minimum=2)
    temperature = Temperature.of(phi, tau_lo, tau_hi, beta, detach_phi)
    z = torch.cat([unit_heads(z1), unit_heads(z2)], 1)
    anchor = torch.arange(2 * rows, device=z.device).unsqueeze(1)
    exclude = torch.cat([anchor, (anchor + rows) % (2 * rows)], 1)
    return _contrast(z, z.roll(rows, 1), z, exclude, temperature, negatives, include_positive)


def amcl_moco(
    q: Tensor,
    k: Tensor,
    queue: Tensor,
    *,
    phi: Score | None = None,
    tau_lo: float | Tensor = 0.05,
    tau_hi: float | Tensor = 0.2,
    beta: float = 0.1,
    negatives: str = "lse",
    include_positive: bool = False,
    detach_phi: bool = False,
) -> Tensor:
    """AMCL on MoCo: :func:`amcl` with the queue's rows as the negatives of every query.

    For tau_lo = tau_hi, ``"lse"``, it is the sum over heads of :func:`~selftaught.objectives.moco_v2` with the same
    ``include_positive``.

    Args:
        q: (B, C, D) queries, or (B, D) for one head. Normalised here, as all are.
        k: keys of the same samples and heads, of the momentum copy; constants.
        queue: (K, C, D) past keys, or (K, D); constants.
        phi: see :func:`amcl`, as all the others.
        tau_lo: lowest temperature.
        tau_hi: highest temperature.
        beta: weight of the regulariser.
        negatives: ``"lse"`` or ``"max"``.
        include_positive: count the positive among the negatives.
        detach_phi: no gradient through phi into the heads.

    Returns:
        A scalar: sum over heads, mean over queries.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, an empty queue, limits out of order.
    """
    return amcl_moco_terms(
        q, k, queue, phi=phi, tau_lo=tau_lo, tau_hi=tau_hi, beta=beta, negatives=negatives,
        include_positive=include_positive, detach_phi=detach_phi,
    )["loss"]  # fmt: skip


@in_float32
def amcl_moco_terms(
    q: Tensor,
    k: Tensor,
    queue: Tensor,
    *,
    phi: Score | None = None,
    tau_lo: float | Tensor = 0.05,
    tau_hi: float | Tensor = 0.2,
    beta: float = 0.1,
    negatives: str = "lse",
    include_positive: bool = False,
    detach_phi: bool = False,
) -> dict[str, Tensor]:
    """:func:`amcl_moco` with its terms, named as those of :func:`amcl_terms`."""
    check_heads(q, k, minimum=1)
    check_floats(queue=queue)
    if queue.shape[1:] != q.shape[1:] or not len(queue):
        raise UserError(f"the queue needs the shape (entries, *{tuple(q.shape[1:])}), got {tuple(queue.shape)}")
    temperature = Temperature.of(phi, tau_lo, tau_hi, beta, detach_phi)
    anchors, positives, keys = unit_heads(q), unit_heads(k.detach()), unit_heads(queue.detach())
    return _contrast(anchors, positives, keys, None, temperature, negatives, include_positive)


def amcl_simsiam(
    p1: Tensor,
    p2: Tensor,
    z1: Tensor,
    z2: Tensor,
    *,
    phi: Score | None = None,
    tau_lo: float | Tensor = 0.5,
    tau_hi: float | Tensor = 2.0,
    beta: float = 0.1,
    detach_phi: bool = False,
) -> Tensor:
    """AMCL on SimSiam (2.2), with predictions p and projections z of every head; no negatives:

        l_i = - s(p1_i, sg z2_i)/(2 tau_i) - s(p2_i, sg z1_i)/(2 tau~_i) + beta Omega(tau_i) + beta Omega(tau~_i)

    tau_i is the temperature of the pair (p1_i, sg z2_i), tau~_i that of (p2_i, sg z1_i). For tau_lo = tau_hi = 1 and
    beta = 0 it is the sum over heads of :func:`~selftaught.objectives.simsiam`.

    Args:
        p1: (B, C, D) predictions of the first view, or (B, D) for one head; normalised here, as all are.
        p2: predictions of the second view.
        z1: projections of the first view; constants here.
        z2: projections of the second view.
        phi: see :func:`amcl`, as all the others.
        tau_lo: lowest temperature.
        tau_hi: highest temperature.
        beta: weight of the regulariser.
        detach_phi: no gradient through phi into the heads.

    Returns:
        A scalar: sum over heads, mean over samples.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, limits out of order.
    """
    return amcl_simsiam_terms(
        p1, p2, z1, z2, phi=phi, tau_lo=tau_lo, tau_hi=tau_hi, beta=beta, detach_phi=detach_phi
    )["loss"]  # fmt: skip


@in_float32
def amcl_simsiam_terms(
    p1: Tensor,
    p2: Tensor,
    z1: Tensor,
    z2: Tensor,
    *,
    phi: Score | None = None,
    tau_lo: float | Tensor = 0.5,
    tau_hi: float | Tensor = 2.0,
    beta: float = 0.1,
    detach_phi: bool = False,
) -> dict[str, Tensor]:
    """:func:`amcl_simsiam` as ``loss``, its parts ``attraction`` and ``regulariser``, and ``tau_positive``."""
    check_heads(p1, p2, minimum=1)
    if z1.shape != p1.shape or z2.shape != p1.shape:
        raise UserError(f"projections {tuple(z1.shape)} must have the shape {tuple(p1.shape)} of the predictions")
    check_floats(z1=z1, z2=z2)
    temperature = Temperature.of(phi, tau_lo, tau_hi, beta, detach_phi)
    predictions = torch.cat([unit_heads(p1), unit_heads(p2)], 1)
    targets = torch.cat([unit_heads(z2.detach()), unit_heads(z1.detach())], 1)
    tau = temperature.of_pairs(predictions, targets)
    attraction = -((predictions * targets).sum(2) / tau).mean(1).sum()  # twice B anchors: the half is in the mean
    regulariser = 2 * temperature.regulariser(tau, p1.shape[-1]).mean(1).sum()
    terms = {"attraction": attraction, "regulariser": regulariser, "tau_positive": tau.detach().mean()}
    return {"loss": attraction + regulariser, **terms}


def amcl_barlow_twins(
    z1: Tensor,
    z2: Tensor,
    *,
    scores: Tensor | None = None,
    tau_lo: float | Tensor = 0.5,
    tau_hi: float | Tensor = 2.0,
    beta: float = 0.1,
    lambda_: float = 5e-3,
) -> Tensor:
    """AMCL on Barlow Twins (2.3): one temperature for every entry of a head's cross-correlation C.

        sum_l (1 - C_ll/tau_ll)^2 + lambda sum_{l != m} C_lm^2/tau_lm
            + beta sum_l Omega(tau_ll) - beta sum_{l != m} Omega(tau_lm)                             summed over heads

    C as in :func:`~selftaught.objectives.barlow_twins`, which this is for tau_lo = tau_hi = 1, up to a constant.

    Args:
        z1: (N, C, D) projections of the first view, or (N, D) for one head; standardised here. Gathered.
        z2: projections of the second view.
        scores: (C, D, D), or (D, D) for one head, what the sigmoid of the temperatures takes
            (:class:`selftaught.networks.TemperatureTable`); None: 0, the middle between the limits.
        tau_lo: lowest temperature.
        tau_hi: highest temperature.
        beta: weight of the regulariser.
        lambda_: weight of the redundancy term.

    Returns:
        A scalar of any sign.

    Raises:
        UserError: (a ``ValueError``) N < 2, shapes that don't fit, limits out of order.
    """
    return amcl_barlow_twins_terms(
        z1, z2, scores=scores, tau_lo=tau_lo, tau_hi=tau_hi, beta=beta, lambda_=lambda_
    )["loss"]  # fmt: skip


@in_float32
def amcl_barlow_twins_terms(
    z1: Tensor,
    z2: Tensor,
    *,
    scores: Tensor | None = None,
    tau_lo: float | Tensor = 0.5,
    tau_hi: float | Tensor = 2.0,
    beta: float = 0.1,
    lambda_: float = 5e-3,
) -> dict[str, Tensor]:
    """:func:`amcl_barlow_twins` as ``loss``, ``invariance``, ``redundancy`` (without weight), ``regulariser``, taus."""
    rows, heads, width = check_heads(z1, z2, minimum=2), heads_of(z1), z1.shape[-1]
    temperature = Temperature.of(None, tau_lo, tau_hi, beta, False)
    if scores is None:
        scores = z1.new_zeros(heads, width, width)
    check_floats(scores=scores)
    if scores.shape not in ((heads, width, width), (width, width) if heads == 1 else None):
        raise UserError(f"scores need the shape {(heads, width, width)}, got {tuple(scores.shape)}")
    a, b = (standardise(z.reshape(rows, -1), "batch", False).view(rows, heads, width) for z in (z1, z2))
    correlation = torch.einsum("ncl,ncm->clm", a, b) / rows
    tau = temperature.between_limits(scores.reshape(heads, width, width))
    invariance = (1 - correlation.diagonal(0, 1, 2) / tau.diagonal(0, 1, 2)).square().sum()
    redundancy = torch.stack([off_diagonal(entries).sum() for entries in correlation.square() / tau]).sum()
    omega = temperature.regulariser(tau, width)
    on_diagonal = omega.diagonal(0, 1, 2).sum()
    regulariser = 2 * on_diagonal - omega.sum()
    terms = {"invariance": invariance, "redundancy": redundancy, "regulariser": regulariser}
    on, everywhere = tau.detach().diagonal(0, 1, 2).sum(), tau.detach().sum()
    means = on / (heads * width), (everywhere - on) / max(1, heads * width * (width - 1))
    loss = invariance + lambda_ * redundancy + regulariser
    return {"loss": loss, **terms, "tau_positive": means[0], "tau_negative": means[1]}


def _contrast(
    anchors: Tensor,
    positives: Tensor,
    keys: Tensor,
    exclude: Tensor | None,
    temperature: Temperature,
    negatives: str,
    include_positive: bool,
) -> dict[str, Tensor]:
    """The loss of anchors (C, N, d) with their positives (C, N, d) against keys (C, M, d)."""
    check_choice("negatives", negatives, ("lse", "max"))
    width, similarity = anchors.shape[2], (anchors * positives).sum(2)
    tau = temperature.of_pairs(anchors, positives)
    pull = temperature.exponent(similarity, tau, width)
    if negatives == "lse":
        push, tau_negative = _log_sum(anchors, keys, exclude, temperature)
        loss = softplus(push - pull) if include_positive else push - pull
        push = torch.logaddexp(push, pull) if include_positive else push
    else:
        hardest = keys.gather(1, _nearest(anchors, keys, exclude).unsqueeze(2).expand(-1, -1, width))
        highest, tau_hardest = (anchors * hardest).sum(2), temperature.of_pairs(anchors, hardest)
        push, tau_negative = temperature.exponent(highest, tau_hardest, width), tau_hardest.detach().mean()
        push = torch.where(similarity > highest, pull, push) if include_positive else push
        loss = push - pull
    attraction, repulsion = -pull.mean(1).sum(), push.mean(1).sum()
    terms = {"attraction": attraction, "repulsion": repulsion}
    taus = {"tau_positive": tau.detach().mean(), "tau_negative": tau_negative}
    return {"loss": loss.mean(1).sum(), **terms, **taus}


def _log_sum(anchors: Tensor, keys: Tensor, exclude: Tensor | None, temperature: Temperature) -> tuple[Tensor, Tensor]:
    """(C, N) log-sums over the keys not excluded (N, e), and the mean temperature of these pairs; tile by tile."""
    heads, count, width = keys.shape
    if temperature.fixed:
        tau, scale = keys.new_zeros(()) + temperature.lo, 1 / temperature.lo
        sums = [lse_rows(a, b, scale=scale, exclude=exclude, bound=scale) for a, b in zip(anchors, keys, strict=True)]
        return torch.stack(sums) - temperature.regulariser(tau, width), tau.detach()

    def tile(queries: Tensor, keys: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        tau = temperature.of_all(queries, keys)
        logits, shown = temperature.exponent(queries @ keys.transpose(1, 2), tau, width), tau.detach()
        if out is not None:
            out = out.expand(heads, -1, -1)
            logits, shown = logits.scatter(2, out, -torch.inf), shown.scatter(2, out, 0.0)
        return logits.logsumexp(2), shown.sum()

    step = max(1, CHUNK // (heads * count * int(getattr(temperature.phi, "numbers", 1))))
    found = []
    for start in range(0, anchors.shape[1], step):
        part = anchors[:, start : start + step], keys, None if exclude is None else exclude[start : start + step]
        if step >= anchors.shape[1]:
            found.append(tile(*part))
        else:  # the backward pass makes the tile again
            found.append(checkpoint(tile, *part, use_reentrant=False, preserve_rng_state=False))
    pairs = heads * anchors.shape[1] * (count - (0 if exclude is None else exclude.shape[1]))
    return torch.cat([sums for sums, _ in found], 1), torch.stack([total for _, total in found]).sum() / pairs


@torch.no_grad()
def _nearest(anchors: Tensor, keys: Tensor, exclude: Tensor | None) -> Tensor:
    """(C, N): the most similar key of each anchor, of those not excluded."""
    heads, count, _ = keys.shape
    step, found = max(1, CHUNK // (heads * count)), []
    for start in range(0, anchors.shape[1], step):
        similarity = anchors[:, start : start + step] @ keys.transpose(1, 2)
        if exclude is not None:
            similarity.scatter_(2, exclude[start : start + step].expand(heads, -1, -1), -torch.inf)
        found.append(similarity.argmax(2))
    return torch.cat(found, 1)
