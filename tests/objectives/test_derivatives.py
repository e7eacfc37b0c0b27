"""What holds for every objective: a tensor temperature has its gradient, second derivatives are right."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from selftaught import objectives
from selftaught.errors import UserError
from selftaught.objectives._tiled import lse_rows, lse_rows_and_columns, lse_self

LABELS = torch.tensor([0, 1, 0, 2, 1, 0])
CODES = torch.softmax(torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64), 2)


def unit(seed: int, rows: int = 6, width: int = 4) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=g, dtype=torch.float64), dim=1)


def draws() -> objectives.MochiDraws:
    return objectives.draw_mochi(torch.full((6,), 5), s=3, s_prime=2, generator=torch.Generator().manual_seed(0))


QUEUE, MIXED = unit(7, 5), draws()
Loss = Callable[[Tensor, Tensor, Any], Tensor]
LOSSES: dict[str, Loss] = {
    "simclr": lambda a, b, t: objectives.simclr(a, b, temperature=t),
    "simclr of three views": lambda a, b, t: objectives.simclr(a, b, a + b, temperature=t),
    "dcl": lambda a, b, t: objectives.dcl(a, b, temperature=t),
    "dcl one way": lambda a, b, t: objectives.dcl(a, b, temperature=t, symmetric=False),
    "dcl across views": lambda a, b, t: objectives.dcl(a, b, temperature=t, negatives="cross_view_only"),
    "dclw": lambda a, b, t: objectives.dcl(a, b, temperature=t, sigma=0.5),
    "dclw with the positive": lambda a, b, t: objectives.dcl(a, b, temperature=t, sigma=0.5, include_positive=True),
    "dcl_coupling": lambda a, b, t: objectives.dcl_coupling(a, b, temperature=t).sum(),
    "infonce": lambda a, b, t: objectives.infonce(a, b, temperature=t),
    "infonce across views": lambda a, b, t: objectives.infonce(a, b, temperature=t, negatives="cross_view_only"),
    "clip": lambda a, b, t: objectives.clip(a, b, temperature=t),
    "hcl": lambda a, b, t: objectives.hcl(a, b, temperature=t),
    "debiased": lambda a, b, t: objectives.hcl(a, b, temperature=t, beta=0.0),
    "supcon": lambda a, b, t: objectives.supcon(a, b, labels=LABELS, temperature=t),
    "supcon in": lambda a, b, t: objectives.supcon(a, b, labels=LABELS, temperature=t, form="in"),
    "supcon scaled": lambda a, b, t: objectives.supcon(a, b, temperature=t, base_temperature=0.07),
    "scatsimclr": lambda a, b, t: objectives.scatsimclr(a, b, a, LABELS, temperature=t),
    "frame_projections": lambda a, b, t: objectives.frame_projections(a, b, a * b, temperature=t),
    "projection_head": lambda a, b, t: objectives.projection_head(a, b, temperature=t),
    "projection_head supcon": lambda a, b, t: objectives.projection_head(
        a, b, loss="supcon", labels=LABELS, temperature=t
    ),
    "moco_v2": lambda a, b, t: objectives.moco_v2(a, b, QUEUE, temperature=t),
    "moco_v2 decoupled": lambda a, b, t: objectives.moco_v2(a, b, QUEUE, temperature=t, include_positive=False),
    "moco_v3": lambda a, b, t: objectives.moco_v3(a, b, unit(3), unit(4), temperature=t),
    "mochi": lambda a, b, t: objectives.mochi(a, b, QUEUE, N=5, draws=MIXED, temperature=t),
    "nnclr": lambda a, b, t: objectives.nnclr(a, b, unit(3), unit(4), temperature=t),
    "nt_xent_pairs": lambda a, b, t: objectives.nt_xent_pairs(a, b, temperature=t),
    "nt_xent_pairs hardest": lambda a, b, t: objectives.nt_xent_pairs(a, b, temperature=t, topk_neg=2),
    "cacr_momentum": lambda a, b, t: objectives.cacr_momentum([a], b, temperature=t),
    "amcl": lambda a, b, t: objectives.amcl(a, b, tau_lo=t, tau_hi=t),
    "amcl wide": lambda a, b, t: objectives.amcl(a, b, tau_lo=t, tau_hi=2 * t),
    "amcl_moco": lambda a, b, t: objectives.amcl_moco(a, b, QUEUE, tau_lo=t, tau_hi=t, include_positive=True),
    "focal_contrast": lambda a, b, t: objectives.focal_contrast(torch.cat([a, b]), LABELS.repeat(2), tau=t),
    "swapped_prediction": lambda a, b, t: objectives.swapped_prediction(a, b, codes=CODES, temperature=t),
    "dino": lambda a, b, t: objectives.dino([a, b], [unit(3), unit(4)], student_temperature=t),
    "ressl": lambda a, b, t: objectives.ressl(a, b, QUEUE, temperature_q=t),
}
CONSTANT_KEYS = ("moco_v2", "amcl_moco", "mochi", "cacr_momentum", "ressl")
CONSTANT_WEIGHTS = ("cacr_momentum", "mochi")


def inputs(name: str, temperature: float = 0.4) -> tuple[Tensor, Tensor, Tensor]:
    t = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    return unit(0).requires_grad_(), unit(1).requires_grad_(not any(k in name for k in CONSTANT_KEYS)), t


@pytest.mark.filterwarnings("ignore:.*expects unit vectors")
@pytest.mark.parametrize("name", LOSSES)
def test_a_tensor_temperature_and_the_vectors_have_their_first_and_second_derivatives(name: str) -> None:
    loss, (a, b, t) = LOSSES[name], inputs(name)
    value = loss(a, b, t)
    assert value.shape == ()
    torch.testing.assert_close(value, loss(a, b, 0.4), rtol=1e-12, atol=1e-12)
    assert loss(a, b, t.reshape(1)).shape == ()
    if name in CONSTANT_WEIGHTS:  # shares that depend on a, and on t, are constants
        (slope,) = torch.autograd.grad(value, t)
        step = 1e-6
        assert slope.item() == pytest.approx((loss(a, b, 0.4 + step) - loss(a, b, 0.4 - step)).item() / (2 * step))
        return
    assert gradcheck(loss, (a, b, t), eps=1e-6, atol=1e-6)
    assert gradgradcheck(loss, (a, b, t), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("bound", [None, 100.0], ids=["bounded", "running maximum"])
@pytest.mark.parametrize("tile", [2, 64])
def test_second_derivatives_of_the_tiled_sums(bound: float | None, tile: int) -> None:
    a, b = unit(0, 5).requires_grad_(), unit(1, 7).requires_grad_()
    exclude, scale = torch.tensor([[0, 3], [-1, 9], [2, 2], [6, -1], [1, 4]]), torch.tensor(1.3, dtype=torch.float64)
    each = torch.linspace(0.5, 2.0, 5, dtype=torch.float64).requires_grad_()
    scale.requires_grad_()
    options: dict[str, Any] = {"bound": bound, "tile": tile}
    assert gradgradcheck(lambda a, b: lse_rows(a, b, scale=3.0, exclude=exclude, **options), (a, b))
    assert gradgradcheck(lambda a, b, s: lse_rows(a, b, scale=s, **options), (a, b, each))
    assert gradgradcheck(lambda a, b, s: lse_rows_and_columns(a, b, scale=s, exclude=exclude, **options), (a, b, scale))
    group = torch.tensor([0, 0, 0, 1, 1, 2, 3])
    assert gradcheck(lambda b, s: lse_self(b, scale=s, group=group, **options), (b, scale))
    assert gradgradcheck(lambda b, s: lse_self(b, scale=s, group=group, **options), (b, scale))
    own = torch.arange(7).unsqueeze(1)
    assert gradgradcheck(lambda b: lse_self(b, scale=2.0, exclude=own, **options), (b,))


def test_second_derivatives_of_a_query_without_keys_are_zero() -> None:
    a = unit(0, 2).requires_grad_()
    rows = lse_rows(a, unit(1, 2), exclude=torch.tensor([[0, 1], [-1, -1]]))
    (slope,) = torch.autograd.grad(rows[1], a, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), a)
    assert second[0].tolist() == [0.0] * 4
    assert second.isfinite().all()


def test_a_gradient_penalty_trains_as_with_the_matrix() -> None:
    """The use of second derivatives that people have: |dL/dz|^2 as part of a loss, in float32."""
    z1, z2 = (unit(s, 12).float().requires_grad_() for s in (0, 1))
    (slope,) = torch.autograd.grad(objectives.simclr(z1, z2, temperature=0.2), z1, create_graph=True)
    (ours,) = torch.autograd.grad(slope.square().sum(), z1)
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    logits = (z @ z.T / 0.2).masked_fill(torch.eye(24, dtype=torch.bool), -math.inf)
    (slope,) = torch.autograd.grad(F.cross_entropy(logits, torch.arange(24).roll(12)), z1, create_graph=True)
    (theirs,) = torch.autograd.grad(slope.square().sum(), z1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_blocks_of_rows_have_second_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums by rows that the backward pass computes again."""
    from selftaught.objectives import _blocks

    a, b = unit(0).requires_grad_(), unit(1).requires_grad_()
    losses: list[Callable[[Tensor, Tensor], Tensor]] = [
        objectives.cacr,
        lambda a, b: objectives.cacr(a, b, cost="rbf"),
        lambda a, b: objectives.focal_contrast(torch.cat([a, b]), LABELS.repeat(2)),
    ]
    for loss in losses:
        found = []
        for entries in (2**22, 20):
            monkeypatch.setattr(_blocks, "ENTRIES", entries)
            (slope,) = torch.autograd.grad(loss(a, b), a, create_graph=True)
            found.append(torch.autograd.grad(slope.square().sum(), a)[0])
        torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def near_convergence(noise: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    z1 = F.normalize(torch.randn(256, 128, generator=g, dtype=torch.float64), dim=1)
    z2 = F.normalize(z1 + noise * torch.randn(256, 128, generator=g, dtype=torch.float64), dim=1)
    return z1.to(dtype), z2.to(dtype)


NEAR: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "simclr": lambda a, b: objectives.simclr(a, b, temperature=0.05),
    "infonce": lambda a, b: objectives.infonce(a, b, temperature=0.05),
    "infonce across views": lambda a, b: objectives.infonce(a, b, temperature=0.05, negatives="cross_view_only"),
    "clip": lambda a, b: objectives.clip(a, b, temperature=0.05),
    "supcon": lambda a, b: objectives.supcon(a, b, temperature=0.05),
    "supcon in": lambda a, b: objectives.supcon(a, b, temperature=0.05, form="in"),
    "scatsimclr": lambda a, b: objectives.scatsimclr(a, b, temperature=0.05),
    "projection_head": lambda a, b: objectives.projection_head(a, b, temperature=0.05),
    "frame_projections": lambda a, b: objectives.frame_projections(a, b, None, temperature=0.05),
    "moco_v2": lambda a, b: objectives.moco_v2(a, b, unit(5, 300, 128).to(a), temperature=0.05),
    "moco_v3": lambda a, b: objectives.moco_v3(a, b, a.detach(), b.detach(), temperature=0.05),
    "nnclr": lambda a, b: objectives.nnclr(a, b, a.detach(), b.detach(), temperature=0.05),
    "nt_xent_pairs": lambda a, b: objectives.nt_xent_pairs(a, b, temperature=0.05),
    "cacr_momentum": lambda a, b: objectives.cacr_momentum([a], b, temperature=0.05),
    "amcl": lambda a, b: objectives.amcl(a, b, tau_lo=0.05, tau_hi=0.05, include_positive=True),
}


@pytest.mark.parametrize("noise", [0.02, 0.002])
@pytest.mark.parametrize("name", NEAR)
def test_the_float32_gradient_does_not_drown_near_convergence(name: str, noise: float) -> None:
    slopes = []
    for dtype in (torch.float64, torch.float32):
        a, b = (z.double().to(dtype).requires_grad_() for z in near_convergence(noise, torch.float32))
        slopes.append(torch.autograd.grad(NEAR[name](a, b), a)[0].double())
    true, found = slopes
    assert ((found - true).norm() / true.norm()).item() < 1e-5


@pytest.mark.parametrize("name", ["simclr", "clip", "supcon", "supcon in", "moco_v3", "nnclr", "frame_projections"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_sample_gives_exactly_zero(name: str, dtype: torch.dtype) -> None:
    a, b = (z[:1].to(dtype).requires_grad_() for z in near_convergence(0.5))
    loss = NEAR[name](a, b)
    assert loss.item() == 0.0
    assert torch.autograd.grad(loss, a)[0].abs().max().item() == 0.0


def test_a_temperature_follows_the_type_of_the_vectors() -> None:
    z1, z2 = unit(0).float(), unit(1).float()
    for dtype in (torch.float64, torch.bfloat16):
        t = torch.tensor(0.5, dtype=dtype, requires_grad=True)
        loss = objectives.simclr(z1, z2, temperature=t)
        assert loss.dtype == torch.float32
        assert torch.autograd.grad(loss, t)[0].dtype == dtype
        torch.testing.assert_close(loss, objectives.simclr(z1, z2, temperature=0.5))


def test_a_prior_that_learns_has_its_gradient_and_what_can_learn_nothing_is_refused() -> None:
    a, b = unit(0), unit(1)
    prior = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda p: objectives.hcl(a, b, tau_plus=p), (prior,))
    for call in (
        lambda: objectives.isogclr(a, b, tau=torch.full((6,), 0.5), tau_max=prior),
        lambda: objectives.sogclr(a, b, temperature=prior),
        lambda: objectives.isogclr_bimodal(a, b, tau=prior),
        lambda: objectives.lvm_med(a, b, k=2, margin=prior),
    ):
        with pytest.raises(UserError, match="is a number and gets no gradient"):
            call()
