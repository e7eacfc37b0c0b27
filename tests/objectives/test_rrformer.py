"""RRFormer's and IBCLN's losses against literal transcriptions, with the identities of the sheet."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from selftaught import objectives
from selftaught.errors import UserError

G = torch.Generator().manual_seed(0)
O, T = (torch.rand(2, 3, 5, 6, dtype=torch.float64, generator=G) for _ in range(2))  # noqa: E741
R, F = (torch.randn(4, dtype=torch.float64, generator=G) for _ in range(2))


def test_pixels_by_hand() -> None:
    squares = [
        (O[n, c, y, x] - T[n, c, y, x]) ** 2 for n in range(2) for c in range(3) for y in range(5) for x in range(6)
    ]
    down, right = [], []
    for n in range(2):
        for c in range(3):
            for y in range(5):
                for x in range(6):
                    if y < 4:
                        down.append(abs(O[n, c, y + 1, x] - O[n, c, y, x] - T[n, c, y + 1, x] + T[n, c, y, x]))
                    if x < 5:
                        right.append(abs(O[n, c, y, x + 1] - O[n, c, y, x] - T[n, c, y, x + 1] + T[n, c, y, x]))
    mean = lambda values: float(sum(values)) / len(values)  # noqa: E731
    expected = 0.2 * mean(squares) + 0.4 * (mean(down) + mean(right))
    assert objectives.rrformer_pixel(O, T).item() == pytest.approx(expected, rel=1e-12)
    assert objectives.rrformer_pixel(T, T).item() == 0
    assert objectives.rrformer_pixel(T + 0.3, T).item() == pytest.approx(0.2 * 0.09, rel=1e-9)


def test_features_are_a_weighted_sum_and_leave_the_target_alone() -> None:
    maps = [torch.rand(2, 4, 3, 3, dtype=torch.float64, generator=G, requires_grad=True) for _ in range(5)]
    others = [torch.rand(2, 4, 3, 3, dtype=torch.float64, generator=G, requires_grad=True) for _ in range(5)]
    weights = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)
    expected = sum(w * float((a - b).abs().mean().detach()) for w, a, b in zip(weights, maps, others, strict=True))
    loss = objectives.rrformer_feature(maps, others)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss.backward()
    assert all(m.grad is not None for m in maps)
    assert all(m.grad is None for m in others)
    assert objectives.rrformer_feature(maps, maps).item() == 0
    assert objectives.rrformer_feature(maps[:2], others[:2]).item() < expected


def test_the_relativistic_losses_by_hand_and_their_symmetry() -> None:
    one, zero = torch.ones_like(R), torch.zeros_like(R)
    d = (bce(R - F.mean(), one) + bce(F - R.mean(), zero)) / 2
    g = (bce(R - F.mean(), zero) + bce(F - R.mean(), one)) / 2
    assert objectives.rrformer_discriminator(R, F).item() == pytest.approx(d.item(), rel=1e-12)
    assert objectives.rrformer_adversarial(R, F).item() == pytest.approx(g.item(), rel=1e-12)
    assert objectives.rrformer_adversarial(F, R).item() == pytest.approx(d.item(), rel=1e-12)
    same = torch.full((3, 1), 1.7)
    for gan in ("rasgan", "rsgan"):
        for loss in (objectives.rrformer_discriminator, objectives.rrformer_adversarial):
            assert loss(same, same, gan=gan).item() == pytest.approx(math.log(2), rel=1e-6)
    one_each = R[:1], F[:1]  # of one sample the average is the sample
    for loss in (objectives.rrformer_discriminator, objectives.rrformer_adversarial):
        assert loss(*one_each).item() == pytest.approx(loss(*one_each, gan="rsgan").item(), rel=1e-12)
    assert objectives.rrformer_discriminator(R, F, gan="rsgan").item() == pytest.approx(bce(R - F, one).item())
    assert objectives.rrformer_discriminator(R, F, gan="sgan").item() == pytest.approx(
        ((bce(R, one) + bce(F, zero)) / 2).item()
    )
    assert objectives.rrformer_adversarial(R, F, gan="sgan").item() == pytest.approx(bce(F, one).item())


def test_the_whole_loss_and_its_gradients() -> None:
    maps, others = [O[:, :, :2, :2]], [T[:, :, :2, :2]]
    terms = objectives.rrformer(O, T, output_maps=maps, target_maps=others, real=R, fake=F)
    expected = terms["pixel"] + 0.1 * terms["feature"] + 0.01 * terms["adversarial"]
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-12)
    assert set(objectives.rrformer(O, T)) == {"loss", "pixel"}
    o, r, f = (x.clone().requires_grad_() for x in (O[:1, :1, :3, :3], R, F))
    assert torch.autograd.gradcheck(lambda x: objectives.rrformer_pixel(x, T[:1, :1, :3, :3]), o)
    assert torch.autograd.gradcheck(objectives.rrformer_adversarial, (r, f))
    assert torch.autograd.gradgradcheck(objectives.rrformer_discriminator, (r, f))


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match="one shape"):
        objectives.rrformer_pixel(O, T[:1])
    with pytest.raises(UserError, match="one shape"):
        objectives.rrformer_discriminator(R, F[:2])
    with pytest.raises(UserError, match="gan"):
        objectives.rrformer_adversarial(R, F, gan="wgan")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="weights"):
        objectives.rrformer_feature([O] * 6, [T] * 6)


def test_ibcln_by_hand() -> None:
    ts, rs = [O, O / 2], [T / 3, O / 4]
    image, alpha = (O + T) / 2, torch.tensor([0.8, 0.9], dtype=torch.float64)
    a = alpha.view(2, 1, 1, 1)
    pixel = sum(((t - T) ** 2).mean() for t in ts)
    rest = sum(((image**2.2 - a * t**2.2 - r**2.2) ** 2).mean() for t, r in zip(ts, rs, strict=True))
    layer = sum(((image**2.2 - a * T**2.2 - r**2.2) ** 2).mean() for r in rs)
    terms = objectives.ibcln(ts, rs, T, image, alpha=alpha)
    assert terms["loss"].item() == pytest.approx(float(pixel + 10 * (rest + layer)), rel=1e-10)
    assert set(objectives.ibcln(ts, rs, T, image)) == {"loss", "pixel"}
    with pytest.raises(UserError, match="per round"):
        objectives.ibcln(ts, rs[:1], T, image)


def test_half_of_a_term_is_refused() -> None:
    for given in ({"real": R}, {"fake": F}, {"target_maps": [T]}, {"output_maps": [O]}):
        with pytest.raises(UserError, match="both or neither"):
            objectives.rrformer(O, T, **given)
