"""iSogCLR: contrastive learning with a temperature per sample (Qiu et al., ICML 2023, arXiv 2305.11965), and SogCLR.

    F(w, tau) = (1/n) sum_i [ tau_i log E_{z in S_i^-} exp(h_i(z) / tau_i) + tau_i rho ],   tau_min <= tau_i <= tau_max

with h_i(z) = <e_i, e_z> - <e_i, e_i+>. Its dual weighs the negatives by a distribution p_i at most rho away from
uniform (KL divergence): tau_i is the multiplier, and at an interior optimum KL(p_i || uniform) = rho. A moving average
s_i per sample follows the mean over all negatives, so that a small batch is enough.

The functions are pure: the state of the batch's samples goes in as tensors (B,), the new state comes out of the
``_terms`` form. A value of the loss is a surrogate: its gradient is that of F (exactly, where s_i is the batch's own
mean), its value is not; ``objective`` in the terms is the estimate of F to look at.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._blocks import by_rows
from selftaught.objectives._common import (
    NO_NEGATIVES,
    check_choice,
    check_entries,
    check_views,
    expect_unit,
    in_float32,
    unit,
)
from selftaught.objectives._isogclr_bimodal import PairState, isogclr_bimodal, isogclr_bimodal_terms
from selftaught.objectives._isogclr_rates import STARTS, check_rates

__all__ = [
    "PairState",
    "isogclr",
    "isogclr_bimodal",
    "isogclr_bimodal_terms",
    "isogclr_libauc",
    "isogclr_libauc_terms",
    "isogclr_queue",
    "isogclr_queue_terms",
    "isogclr_terms",
    "sogclr",
]

SAFE_EXPONENT = 80.0
"""exp of plus or minus this is a normal float32, with room for sums."""


class _Rates(NamedTuple):
    """How the state moves: all hyper-parameters that the network's gradient doesn't see, but for gamma."""

    gamma: float
    beta_u: float
    rho: float
    eta: float
    tau_min: float
    tau_max: float
    clip: float
    start: str = "mean"


def isogclr(
    z1: Tensor,
    z2: Tensor,
    *,
    tau: float | Tensor = 0.1,
    s: Tensor | None = None,
    u: Tensor | None = None,
    gamma: float = 0.8,
    beta_u: float = 0.5,
    rho: float = 0.4,
    eta: float = 0.03,
    tau_min: float = 0.05,
    tau_max: float = 1.0,
    clip: float = 3.0,
    s_views: str = "mean",
    start: str = "mean",
) -> Tensor:
    """One step of iSogCLR on two views, the form of the authors' unimodal code (arXiv 2305.11965, algorithm 1).

    Rows a are both views of the batch, the negatives of a row are all M = 2B - 2 rows of other samples:

        e_ab = exp(sim_ab / tau_a),   g_a = mean_b e_ab,   s_a = (1 - gamma) s_i + gamma g_a     (s_a = g_a at first)
        loss = mean_i sum_{a in i} [ (1/M) sum_b (e_ab / s_a) sim_ab - sim_{a,a+} ],             e / s constant
        G_i = clamp( mean_a [ log s_a + rho - (1/M) sum_b (e_ab / s_a) sim_ab / tau_a ], -clip, clip )
        s_i <- mean_a s_a,   u_i <- (1 - beta_u) u_i + beta_u G_i,   tau_i <- clamp(tau_i - eta u_i, tau_min, tau_max)

    The loss takes the old temperatures. This function returns the loss alone, :func:`isogclr_terms` the new state, too.

    Args:
        z1: (B, D) embeddings of the first view, **unit vectors already**: nothing is normalised here.
        z2: (B, D) embeddings of the second view; row i belongs to the same sample.
        tau: temperatures (B,) of the samples, or one for all; at least 0.0125, looked at on the CPU only.
        s: (B,) moving averages; 0 where the sample is seen for the first time. None: all are.
        u: (B,) momenta of the temperatures' gradients. None: 0.
        gamma: weight of the NEW value in s, in (0, 1]; 1 forgets the past.
        beta_u: weight of the new gradient in u.
        rho: radius of the KL ball, 0 or more; larger makes temperatures smaller. Never enters the network's gradient.
        eta: step size of the temperatures; 0 is SogCLR.
        tau_min: lowest temperature, at least 0.0125 (exp(1/tau) must be finite).
        tau_max: highest temperature.
        clip: bound of the temperatures' gradient.
        s_views: s of the two views is stored as their ``"mean"``, or their ``"sum"`` (the authors' SogCLR class).
        start: s of a sample that is seen for the first time is ``"mean"``, g itself, or ``"zero"``, gamma g: the
            authors' code starts so at samples that it first sees after epoch 0.

    Returns:
        A scalar near -1.

    Raises:
        UserError: (a ``ValueError``) B < 2, shapes differ, a state that isn't (B,), a rate or a temperature outside its
            range, an unknown ``s_views`` or ``start``.
    """
    return isogclr_terms(
        z1, z2, tau=tau, s=s, u=u, gamma=gamma, beta_u=beta_u, rho=rho, eta=eta, tau_min=tau_min, tau_max=tau_max,
        clip=clip, s_views=s_views, start=start,
    )["loss"]  # fmt: skip


@in_float32
def isogclr_terms(
    z1: Tensor,
    z2: Tensor,
    *,
    tau: float | Tensor = 0.1,
    s: Tensor | None = None,
    u: Tensor | None = None,
    gamma: float = 0.8,
    beta_u: float = 0.5,
    rho: float = 0.4,
    eta: float = 0.03,
    tau_min: float = 0.05,
    tau_max: float = 1.0,
    clip: float = 3.0,
    s_views: str = "mean",
    start: str = "mean",
) -> dict[str, Tensor]:
    """:func:`isogclr` with what it leaves behind.

    Returns:
        ``loss``; ``objective``, F of the batch over its 2B rows; ``gradient`` G (B,); and the state to keep, detached:
        ``tau``, ``s``, ``u``, each (B,).
    """
    check_choice("s_views", s_views, ("mean", "sum"))
    rates = _Rates(gamma, beta_u, rho, eta, tau_min, tau_max, clip, start)
    tau, s, u = _state(z1, z2, tau, s, u, rates)
    expect_unit("isogclr", z1, z2)
    fresh = _first_visits(s, rates)
    return _unimodal(z1, z2, tau, s, u, rates, fresh=fresh, floor=0.0, stored=2.0 if s_views == "sum" else 1.0)


@in_float32
def sogclr(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float = 0.1,
    s: Tensor | None = None,
    gamma: float = 0.8,
    start: str = "mean",
) -> Tensor:
    """SogCLR (Yuan et al., ICML 2022, arXiv 2202.12387): :func:`isogclr` with one temperature that stays.

    The new ``s`` is that of ``isogclr_terms(..., tau=temperature, eta=0)``. ``gamma=1`` is the fixed-temperature
    contrastive loss of the batch alone (without the positive in the denominator, times the temperature).
    Arguments, result and errors as there.
    """
    return isogclr(
        z1, z2, tau=temperature, s=s, gamma=gamma, eta=0.0, tau_min=temperature, tau_max=temperature, start=start
    )


def isogclr_libauc(
    z1: Tensor,
    z2: Tensor,
    *,
    tau: float | Tensor = 0.1,
    s: Tensor | None = None,
    u: Tensor | None = None,
    gamma: float = 0.9,
    beta_u: float = 0.9,
    rho: float = 0.3,
    eta: float = 0.01,
    tau_min: float = 0.05,
    tau_max: float = 0.7,
) -> Tensor:
    """:func:`isogclr` as LibAUC's GCLoss (v1) has it. It differs in four things.

    It **normalises** here; the temperatures' gradient isn't clipped; s is a first visit only where the s of the whole
    batch are 0; and s is raised to 1e-8 where it divides. The arguments are those of :func:`isogclr`, the defaults
    LibAUC's; :func:`isogclr_libauc_terms` returns the new state, too.
    """
    return isogclr_libauc_terms(
        z1, z2, tau=tau, s=s, u=u, gamma=gamma, beta_u=beta_u, rho=rho, eta=eta, tau_min=tau_min, tau_max=tau_max
    )["loss"]


@in_float32
def isogclr_libauc_terms(
    z1: Tensor,
    z2: Tensor,
    *,
    tau: float | Tensor = 0.1,
    s: Tensor | None = None,
    u: Tensor | None = None,
    gamma: float = 0.9,
    beta_u: float = 0.9,
    rho: float = 0.3,
    eta: float = 0.01,
    tau_min: float = 0.05,
    tau_max: float = 0.7,
) -> dict[str, Tensor]:
    """:func:`isogclr_libauc` with the terms and the state of :func:`isogclr_terms`."""
    rates = _Rates(gamma, beta_u, rho, eta, tau_min, tau_max, math.inf)
    tau, s, u = _state(z1, z2, tau, s, u, rates)
    z1, z2 = unit(z1), unit(z2)
    return _unimodal(z1, z2, tau, s, u, rates, fresh=(s == 0).all().expand_as(s), floor=1e-8, stored=1.0)


@in_float32
def isogclr_queue_terms(
    q: Tensor,
    k: Tensor,
    queue: Tensor,
    *,
    tau: float | Tensor = 0.1,
    s: Tensor | None = None,
    u: Tensor | None = None,
    gamma: float = 0.8,
    beta_u: float = 0.5,
    rho: float = 0.4,
    eta: float = 0.03,
    tau_min: float = 0.05,
    tau_max: float = 1.0,
    clip: float = 3.0,
    start: str = "mean",
) -> dict[str, Tensor]:
    """:func:`isogclr_queue` with the terms and the state of :func:`isogclr_terms`."""
    rates = _Rates(gamma, beta_u, rho, eta, tau_min, tau_max, clip, start)
    tau, s, u = _state(q, k, tau, s, u, rates, minimum=1, lowest=2 / SAFE_EXPONENT)
    check_entries(queue, q.shape[1])
    expect_unit("isogclr", q, k, queue)
    k, queue = k.detach(), queue.detach()

    def summary(query: Tensor, key: Tensor, temperature: Tensor) -> Tensor:
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], 1)
        return _summary(logits - logits[:, :1], temperature, None, 1 + len(queue))

    log_g, expected = by_rows(summary, q, k, tau, width=1 + len(queue)).unbind(1)
    g = log_g.exp().detach()
    new = _mixed(s, g, gamma, _first_visits(s, rates))
    loss = (g / new * expected).mean()
    gradient = new.log() + rho - g / new * expected.detach() / tau
    return _outcome(loss, tau * new.log() + tau * rho, tau, new, u, gradient, rates)


def isogclr_queue(
    q: Tensor,
    k: Tensor,
    queue: Tensor,
    *,
    tau: float | Tensor = 0.1,
    s: Tensor | None = None,
    u: Tensor | None = None,
    gamma: float = 0.8,
    beta_u: float = 0.5,
    rho: float = 0.4,
    eta: float = 0.03,
    tau_min: float = 0.05,
    tau_max: float = 1.0,
    clip: float = 3.0,
    start: str = "mean",
) -> Tensor:
    """:func:`isogclr` against a queue of momentum keys (the authors' MoCo variant).

    The h of a query are the similarities to its key and to the N rows of the queue, less that to its key; h = 0 of the
    key itself is among them, and means are over all 1 + N:

        e_ij = exp(h_ij / tau_i),   loss = mean_i (1/(1+N)) sum_j (e_ij / s_i) h_ij

    Args:
        q: (B, D) unit queries.
        k: (B, D) unit keys of the other view by the momentum copy; taken as constants, as is the queue.
        queue: (N, D) unit rows.
        tau: as in :func:`isogclr`, and so is all else. s contains the positive's similarity here.
        s: see ``tau``.
        u: see ``tau``.
        gamma: see ``tau``.
        beta_u: see ``tau``.
        rho: see ``tau``.
        eta: see ``tau``.
        tau_min: see ``tau``; at least 0.025.
        tau_max: see ``tau``.
        clip: see ``tau``.
        start: see ``tau``.

    Returns:
        A scalar; :func:`isogclr_queue_terms` returns the new state, too.
    """
    return isogclr_queue_terms(
        q, k, queue, tau=tau, s=s, u=u, gamma=gamma, beta_u=beta_u, rho=rho, eta=eta, tau_min=tau_min,
        tau_max=tau_max, clip=clip, start=start,
    )["loss"]  # fmt: skip


# ---- the steps that all forms share --------------------------------------------------------------------------------
def _unimodal(
    z1: Tensor, z2: Tensor, tau: Tensor, s: Tensor, u: Tensor, rates: _Rates, *, fresh: Tensor, floor: float,
    stored: float,
) -> dict[str, Tensor]:  # fmt: skip
    """A step on unit vectors; ``stored`` views' worth of s are written back."""
    rows, both = len(z1), torch.cat([z1, z2])
    sample = torch.arange(rows, device=z1.device).repeat(2)
    tau_a = tau.repeat(2)

    def summary(query: Tensor, i: Tensor, temperature: Tensor) -> Tensor:
        return _summary(query @ both.T, temperature, i.unsqueeze(1) == sample, 2 * rows - 2)

    log_g, expected = by_rows(summary, both, sample, tau_a, width=2 * rows).unbind(1)
    g = log_g.exp().detach()
    new = _mixed(s.repeat(2), g, rates.gamma, fresh.repeat(2))
    share = g / new.clamp(min=floor)
    positive = (z1 * z2).sum(1)
    loss = (share * expected).view(2, rows).sum(0).mean() - 2 * positive.mean()
    gradient = new.log() + rates.rho - share * expected.detach() / tau_a
    value = tau_a * (new.log() + rates.rho) - positive.detach().repeat(2)
    kept = new.view(2, rows).mean(0) * stored
    return _outcome(loss, value, tau, kept, u, gradient.view(2, rows).mean(0), rates)


def _summary(h: Tensor, tau: Tensor, left_out: Tensor | None, count: int) -> Tensor:
    """Of each row of h, (log mean exp(h / tau), mean of h under softmax(h / tau) taken as constant): (n, 2)."""
    logits = h.detach() / tau.unsqueeze(1)
    logits = logits if left_out is None else logits.masked_fill(left_out, -torch.inf)
    return torch.stack([logits.logsumexp(1) - math.log(count), (logits.softmax(1) * h).sum(1)], 1)


def _first_visits(s: Tensor, rates: _Rates) -> Tensor:
    """Where the moving average begins at the mean itself (B,)."""
    check_choice("start", rates.start, STARTS)
    return s == 0 if rates.start == "mean" else torch.zeros_like(s, dtype=torch.bool)


def _mixed(s: Tensor, g: Tensor, gamma: float, fresh: Tensor) -> Tensor:
    """The moving average's new value: g itself where it is fresh."""
    return torch.where(fresh, g, (1 - gamma) * s + gamma * g)


def _outcome(
    loss: Tensor, value: Tensor, tau: Tensor, s: Tensor, u: Tensor, gradient: Tensor, rates: _Rates
) -> dict[str, Tensor]:
    """The terms, with the temperatures' momentum step taken."""
    gradient = gradient.clamp(-rates.clip, rates.clip)
    u = (1 - rates.beta_u) * u + rates.beta_u * gradient
    tau = (tau - rates.eta * u).clamp(rates.tau_min, rates.tau_max)
    return {"loss": loss, "objective": value.mean(), "gradient": gradient, "tau": tau, "s": s, "u": u}


def _state(
    z1: Tensor, z2: Tensor, tau: float | Tensor, s: Tensor | None, u: Tensor | None, rates: _Rates, minimum: int = 2,
    lowest: float = 1 / SAFE_EXPONENT,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The state (B,) of the batch in the embeddings' type, without gradient; checked."""
    rows, _ = check_views(z1, z2, minimum=minimum, why=NO_NEGATIVES)
    check_rates(*rates[:-1])
    if rates.tau_min < lowest:
        raise UserError(
            f"a temperature must be at least {lowest:g} here (exp(1/tau) overflows), got tau_min {rates.tau_min}"
        )
    if isinstance(tau, Tensor):
        low = tau.min().item() if tau.numel() and tau.device.type == "cpu" else math.inf
    else:
        low, tau = tau, z1.new_full((rows,), tau)
    if not low >= lowest * (1 - 1e-6):  # of float32 that rounded down
        raise UserError(f"a temperature must be at least {lowest:g} here (exp(1/tau) overflows), got tau {low:g}")
    found = (tau, z1.new_zeros(rows) if s is None else s, z1.new_zeros(rows) if u is None else u)
    for name, value in zip(("tau", "s", "u"), found, strict=True):
        if value.shape != (rows,):
            raise UserError(f"{name} must be one number per sample, ({rows},), got {tuple(value.shape)}")
    tau, s, u = (value.detach().to(z1.dtype) for value in found)
    return tau, s, u
