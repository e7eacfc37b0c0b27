"""iSogCLR for image-text pairs (arXiv 2305.11965, section 5): a temperature per image and one per text.

Temperatures get as low as 0.005 here, where exp(1/tau) overflows: a moving average is kept as two numbers per sample,
s_i exp(b_i) being the average itself.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import (
    NO_NEGATIVES,
    check_choice,
    check_numbers,
    check_positive,
    check_views,
    expect_unit,
    in_float32,
)
from selftaught.objectives._isogclr_rates import STARTS, check_rates

FORMS = ("masked", "official", "libauc")


class PairState(NamedTuple):
    """The state of a batch's anchors on one side, images or texts.

    Attributes:
        tau: (B,) temperatures.
        s: (B,) moving averages over exp(b); 0 where the sample is seen for the first time.
        u: (B,) momenta of the temperatures' gradients.
        b: (B,) logarithms of the moving averages (s is 1 then); with the forms of the two codes the running maxima of
            d / tau, 0 or more.
    """

    tau: Tensor
    s: Tensor
    u: Tensor
    b: Tensor

    @classmethod
    def fresh(cls, like: Tensor, tau: float) -> PairState:
        """The state before any visit, one row for each of ``like``."""
        return cls(like.new_full((len(like),), tau), *(like.new_zeros(len(like)) for _ in range(3)))


class _Rates(NamedTuple):
    gamma: float
    beta_u: float
    rho: float
    eta: float
    tau_min: float
    tau_max: float
    clip: float
    start: str


def isogclr_bimodal(
    image: Tensor,
    text: Tensor,
    *,
    tau: float = 0.01,
    image_state: PairState | None = None,
    text_state: PairState | None = None,
    gamma: float = 0.8,
    beta_u: float = 0.9,
    rho: float = 6.0,
    eta: float = 0.03,
    tau_min: float = 0.005,
    tau_max: float = 1.0,
    clip: float = 5.0,
    form: str = "masked",
    start: str = "mean",
) -> Tensor:
    """One step of iSogCLR on image-text pairs; images are anchors among texts and the other way round.

    For image anchors, with d_ij = <x_i, t_j> - <x_i, t_i>, M = B - 1, and e_ij / s_i constant (texts alike):

        e_ij = exp(d_ij / tau_i),   g_i = (1/M) sum_{j != i} e_ij,   s_i = (1 - gamma) s_i + gamma g_i  (g_i at first)
        loss = mean_i (1/M) sum_{j != i} (e_ij / s_i) d_ij  +  the same of the texts
        G_i  = clamp( log s_i + rho - (1/M) sum_{j != i} (e_ij / s_i) d_ij / tau_i, -clip, clip )

    and u, tau move as in :func:`~selftaught.objectives.isogclr`. ``form`` says whose details are taken:

    - ``"masked"`` (default): the above.
    - ``"official"``: the authors' code, in which the sums hold the diagonal (d = 0) while the normaliser stays B - 1,
      and 1e-10 is added to s where it divides.
    - ``"libauc"``: GCLoss v2, which masks, leaves 1/M out of the loss (not of G), takes half the sum of the two sides,
      clips no gradient, keeps s at 1e-20 or more and knows a first visit only where the s of the whole batch are 0.
      LibAUC's defaults are gamma 0.9, eta 0.01, tau_max 0.05.

    Args:
        image: (B, D) unit embeddings of the images: nothing is normalised here.
        text: (B, D) unit embeddings of the texts; row i belongs to image i.
        tau: temperature of samples without a state.
        image_state: state of the batch's images; None: all seen for the first time.
        text_state: state of its texts.
        gamma: weight of the NEW value in s, in (0, 1].
        beta_u: weight of the new gradient in u.
        rho: radius of the KL ball.
        eta: step size of the temperatures; 0 is SogCLR.
        tau_min: lowest temperature.
        tau_max: highest temperature.
        clip: bound of the temperatures' gradient.
        form: see above.
        start: as in :func:`~selftaught.objectives.isogclr`; not with ``form="libauc"``, which has its own.

    Returns:
        A scalar, a surrogate whose gradient is that of the objective; :func:`isogclr_bimodal_terms` returns the new
        state, too.

    Raises:
        UserError: (a ``ValueError``) B < 2, shapes differ, an unknown ``form``, a rate outside its range.
    """
    return isogclr_bimodal_terms(
        image, text, tau=tau, image_state=image_state, text_state=text_state, gamma=gamma, beta_u=beta_u, rho=rho,
        eta=eta, tau_min=tau_min, tau_max=tau_max, clip=clip, form=form,
        start=start,
    )["loss"]  # type: ignore[return-value]  # fmt: skip


@in_float32
def isogclr_bimodal_terms(
    image: Tensor,
    text: Tensor,
    *,
    tau: float = 0.01,
    image_state: PairState | None = None,
    text_state: PairState | None = None,
    gamma: float = 0.8,
    beta_u: float = 0.9,
    rho: float = 6.0,
    eta: float = 0.03,
    tau_min: float = 0.005,
    tau_max: float = 1.0,
    clip: float = 5.0,
    form: str = "masked",
    start: str = "mean",
) -> dict[str, Tensor | PairState]:
    """:func:`isogclr_bimodal` with what it leaves behind.

    Returns:
        ``loss``; ``objective``, the mean of F over all anchors of both sides; ``image_loss``, ``text_loss``; and the
        states to keep, ``image_state`` and ``text_state``.
    """
    check_choice("form", form, FORMS)
    check_choice("start", start, STARTS)
    check_numbers(tau=tau)
    check_positive(tau=tau)
    check_rates(gamma, beta_u, rho, eta, tau_min, tau_max, clip)
    check_views(image, text, minimum=2, why=NO_NEGATIVES)
    expect_unit("isogclr_bimodal", image, text)
    rates = _Rates(gamma, beta_u, rho, eta, tau_min, tau_max, clip, start)
    similarity = image @ text.T
    sides = []
    for name, sim, given in (("image", similarity, image_state), ("text", similarity.T, text_state)):
        state = PairState.fresh(image, tau) if given is None else given
        if any(value.shape != (len(image),) for value in state):
            raise UserError(f"{name}_state must hold one number per sample, ({len(image)},), in each of its fields")
        if state.tau.device.type == "cpu" and not bool((state.tau > 0).all()):
            raise UserError(f"the temperatures of {name}_state must be above 0, got {state.tau.min().item():g}")
        sides.append(_side(sim, PairState(*(value.detach().to(image.dtype) for value in state)), rates, form))
    (image_loss, image_value, kept_image), (text_loss, text_value, kept_text) = sides
    loss = (image_loss + text_loss) * (0.5 if form == "libauc" else 1.0)
    return {
        "loss": loss,
        "objective": (image_value + text_value) / 2,
        "image_loss": image_loss,
        "text_loss": text_loss,
        "image_state": kept_image,
        "text_state": kept_text,
    }


def _side(sim: Tensor, state: PairState, rates: _Rates, form: str) -> tuple[Tensor, Tensor, PairState]:
    """Loss, mean objective and new state of the anchors along the rows of ``sim`` (B, B)."""
    d, count = sim - sim.diagonal().unsqueeze(1), len(sim) - 1
    scaled = d.detach() / state.tau.unsqueeze(1)
    weights, s, b = (_in_logarithms if form == "masked" else _with_maximum)(scaled, state, rates, form)
    loss = (weights * d).sum(1).mean() / (1 if form == "libauc" else count)
    log_s = s.log() + b
    gradient = log_s + rates.rho - (weights * scaled).sum(1) / count
    gradient = gradient if form == "libauc" else gradient.clamp(-rates.clip, rates.clip)
    u = (1 - rates.beta_u) * state.u + rates.beta_u * gradient
    tau = (state.tau - rates.eta * u).clamp(rates.tau_min, rates.tau_max)
    return loss, (state.tau * (log_s + rates.rho)).mean(), PairState(tau, s, u, b)


def _in_logarithms(scaled: Tensor, state: PairState, rates: _Rates, form: str) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (B, B) and the new average, kept as s = 1 and b = its logarithm: nothing under- or overflows."""
    logits = scaled.masked_fill(_own(scaled), -torch.inf)
    log_g = logits.logsumexp(1) - math.log(len(logits) - 1)
    kept = math.log1p(-rates.gamma) if rates.gamma < 1 else -math.inf
    mixed = torch.logaddexp(kept + state.s.log() + state.b, math.log(rates.gamma) + log_g)
    log_s = torch.where((state.s > 0) | (rates.start == "zero"), mixed, log_g)
    return (logits - log_s.unsqueeze(1)).exp(), torch.ones_like(log_s), log_s


def _with_maximum(scaled: Tensor, state: PairState, rates: _Rates, form: str) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (B, B) and the new average as the two codes keep it, over the running maximum b."""
    b = torch.maximum(state.b, scaled.amax(1))
    e = (scaled - b.unsqueeze(1)).exp()
    e = e if form == "official" else e.masked_fill(_own(e), 0.0)
    g = e.sum(1) / (len(e) - 1)
    mixed = (1 - rates.gamma) * state.s * (state.b - b).exp() + rates.gamma * g
    fresh = (state.s == 0).all() if form == "libauc" else (state.s == 0) & (rates.start == "mean")
    s = torch.where(fresh, g, mixed)
    if form == "libauc":
        s = s.clamp(min=1e-20)
        return e / s.unsqueeze(1), s, b
    return e / (s.unsqueeze(1) + 1e-10), s, b


def _own(matrix: Tensor) -> Tensor:
    return torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)
