"""The heads of the projection-head study."""

from __future__ import annotations

import pytest
import torch

from selftaught import networks
from selftaught.errors import UserError


def test_the_weights_are_powers_of_kappa_and_underflow_quietly() -> None:
    weights = networks.reweighting(2048, 1.05)
    assert weights.dtype == torch.float32
    for i in (0, 1, 7, 500):
        assert weights[i].item() == pytest.approx(1.05**-i, rel=1e-5)
    assert 0 <= weights[-1] < 1e-43
    assert networks.reweighting(2048, 1.5)[-1] == 0
    assert torch.equal(networks.reweighting(5, 1.0), torch.ones(5))
    for kappa in (1.0, 1.05, 3.0):
        scaled = networks.reweighting(300, kappa, normalise=True)
        assert scaled.double().square().mean().item() == pytest.approx(1, rel=1e-5)
        assert (scaled[3] / scaled[2]).item() == pytest.approx(1 / kappa, rel=1e-5)


def test_the_fixed_head_scales_values_and_gradients_and_trains_nothing() -> None:
    head = networks.projection_head("reweight", 6, kappa=2.0)
    h = torch.randn(4, 6, requires_grad=True)
    z = head(h)
    torch.testing.assert_close(z, h * 2.0 ** -torch.arange(6.0))
    upstream = torch.randn(4, 6)
    z.backward(upstream)
    torch.testing.assert_close(h.grad, upstream * head.weight)
    assert not list(head.parameters())
    assert "weight" in head.state_dict()
    steep = networks.projection_head("reweight", 3000, kappa=1.2)
    wide = torch.randn(2, 3000, requires_grad=True)
    torch.nn.functional.normalize(steep(wide), dim=1).sum().backward()
    assert wide.grad.isfinite().all()
    assert (wide.grad[:, -1] == 0).all()


def test_the_identity_head_starts_as_the_identity_bit_for_bit() -> None:
    h = torch.randn(50, 16)
    head = networks.projection_head("identity-mlp", 16)
    assert torch.equal(head(h), h)
    head(h).square().sum().backward()
    assert all(p.grad is not None for p in head.parameters())
    assert head[1].threshold.shape == ()


def test_the_symmetrised_relu_is_odd_and_soft_thresholding() -> None:
    s = networks.SymmetrisedReLU()
    x = torch.linspace(-3, 3, 61)
    assert torch.equal(s(x), x)
    with torch.no_grad():
        s.threshold.fill_(0.8)
    torch.testing.assert_close(s(x), x.sign() * (x.abs() - 0.8).clamp_min(0))
    torch.testing.assert_close(s(-x), -s(x))
    with torch.no_grad():
        s.threshold.fill_(-0.5)  # as the definition says, not clamped at 0
    torch.testing.assert_close(s(x), torch.relu(x + 0.5) - torch.relu(0.5 - x))


@pytest.mark.parametrize(
    ("kind", "linears"), [("none", 0), ("linear", 1), ("mlp", 2), ("mlp2", 3), ("identity-mlp", 2)]
)
def test_kinds_keep_the_width(kind: str, linears: int) -> None:
    head = networks.projection_head(kind, 12)
    assert head(torch.randn(3, 12)).shape == (3, 12)
    found = [m for m in head.modules() if isinstance(m, torch.nn.Linear)]
    assert len(found) == linears
    assert all(m.weight.shape == (12, 12) and m.bias is not None for m in found)
    assert sum(isinstance(m, torch.nn.ReLU) for m in head.modules()) == max(0, linears - 1) * (kind != "identity-mlp")


def test_wrong_options_are_refused_in_one_line() -> None:
    assert set(networks.HEADS) == {"none", "linear", "mlp", "mlp2", "identity-mlp", "reweight"}
    with pytest.raises(UserError, match="identity-mlp"):
        networks.projection_head("identity", 4)
    with pytest.raises(UserError, match=r"kappa=0\.5"):
        networks.projection_head("reweight", 4, kappa=0.5)
