import math

import pytest
import torch

from selftaught import objectives
from selftaught.errors import UserError


def images(batch=2, channels=3, height=12, width=18, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(batch, channels, height, width, generator=g, dtype=dtype)


@pytest.mark.parametrize("r", [1, 2, 3, 6])
def test_s2b_makes_the_phase_images_and_b2s_undoes_it(r):
    x = images()
    stacked = objectives.s2b(x, r)
    assert stacked.shape == (r * r * 2, 3, 12 // r, 18 // r)
    for i in range(r):
        for j in range(r):
            start = (i * r + j) * 2
            assert torch.equal(stacked[start : start + 2], x[:, :, i::r, j::r])
    assert torch.equal(objectives.b2s(stacked, r), x)


def test_random_subsample_takes_the_drawn_pixel_of_every_cell_in_all_channels():
    x = images()
    m = objectives.draw_subsample(x, 3, generator=torch.Generator().manual_seed(1))
    sub = objectives.random_subsample(x, m, 3)
    assert m.shape == (2, 4, 6)
    assert m.dtype == torch.int64
    assert m.min() == 0
    assert m.max() == 8
    for b in range(2):
        for i in range(4):
            for j in range(6):
                row, column = 3 * i + int(m[b, i, j]) // 3, 3 * j + int(m[b, i, j]) % 3
                assert torch.equal(sub[b, :, i, j], x[b, :, row, column])


def test_random_subsample_statistics():
    cell = torch.arange(4, dtype=torch.float64).view(1, 1, 2, 2).repeat(1, 2, 100, 100)
    m = objectives.draw_subsample(cell, 2, generator=torch.Generator().manual_seed(0))
    sub = objectives.random_subsample(cell, m, 2)
    assert torch.equal(sub[:, 0], sub[:, 1])
    assert torch.equal(sub[:, 0], m.double())
    assert sub.mean().item() == pytest.approx(1.5, abs=0.05)
    assert sub.var().item() == pytest.approx(1.25, abs=0.05)


def test_the_regular_subsampler_keeps_one_phase_per_sample():
    x = images(batch=50)
    m = objectives.draw_subsample(x, 2, subsampler="pixel-shuffle", generator=torch.Generator().manual_seed(0))
    assert (m == m[:, :1, :1]).all()
    assert set(m[:, 0, 0].tolist()) == {0, 1, 2, 3}
    phase = int(m[0, 0, 0])
    assert torch.equal(objectives.random_subsample(x, m, 2)[0], x[0, :, phase // 2 :: 2, phase % 2 :: 2])


def test_normalise_patch_is_per_image_and_channel_with_a_floor():
    x = images()
    normalised, mean, std = objectives.normalise_patch(x)
    assert mean.shape == std.shape == (2, 3, 1, 1)
    for b in range(2):
        for c in range(3):
            values = x[b, c].flatten().tolist()
            m = sum(values) / len(values)
            s = math.sqrt(sum((v - m) ** 2 for v in values) / len(values))
            torch.testing.assert_close(normalised[b, c], (x[b, c] - m) / s, rtol=0, atol=1e-12)
    torch.testing.assert_close(objectives.denormalise_patch(normalised, mean, std), x, rtol=0, atol=1e-12)
    almost_flat = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)
    almost_flat[0, 0, 0, 0] = 0.6
    almost_flat.requires_grad_()
    normalised, _, std = objectives.normalise_patch(almost_flat)
    assert std.item() == pytest.approx(1 / 8)
    normalised.square().sum().backward()
    assert almost_flat.grad.isfinite().all()


def outputs():
    x, blind, unmasked = (images(seed=s) for s in range(3))
    m = objectives.draw_subsample(x, 2, generator=torch.Generator().manual_seed(3))
    return blind, unmasked, images(height=6, width=9, seed=4), x, m


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_c_bsn_equals_its_formula(loss):
    blind, unmasked, sub, x, m = outputs()
    named = objectives.c_bsn_terms(blind, unmasked, sub, x, m, ramp=0.3, lambda_=1.5, loss=loss)

    def distance(a, b):
        differences = [abs(p - q) for p, q in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)]
        return sum(d if loss == "l1" else d * d for d in differences) / len(differences)

    expected = {
        "blind": distance(blind, x),
        "self": distance(unmasked, x),
        "invariance": distance(objectives.random_subsample(unmasked, m, 2), sub),
    }
    expected["loss"] = expected["blind"] + 0.3 * (expected["self"] + 1.5 * expected["invariance"])
    assert {k: v.item() for k, v in named.items()} == pytest.approx(expected, rel=1e-12)
    scalar = objectives.c_bsn(blind, unmasked, sub, x, m, ramp=0.3, lambda_=1.5, loss=loss)
    assert scalar.item() == pytest.approx(expected["loss"], rel=1e-12)


def test_c_bsn_defaults_are_the_official_ones():
    blind, unmasked, sub, x, m = outputs()
    named = objectives.c_bsn_terms(blind, unmasked, sub, x, m)
    total = named["blind"] + named["self"] + 2 * named["invariance"]
    assert named["loss"].item() == pytest.approx(total.item())
    assert named["blind"].item() == pytest.approx((blind - x).abs().mean().item())


def test_gradients_stop_at_the_blind_side_of_the_invariance_term_only():
    blind, unmasked, sub, x, m = outputs()
    leaves = [t.requires_grad_() for t in (blind, unmasked, sub)]
    objectives.c_bsn(*leaves, x, m).backward()
    assert leaves[0].grad.abs().sum() > 0
    assert sub.grad is None
    kept = torch.zeros_like(x)
    kept.flatten(2).scatter_(2, torch.zeros(2, 3, 1, dtype=torch.int64), 0)
    invariance_gradient = torch.autograd.grad(
        objectives.c_bsn_terms(*leaves, x, m)["invariance"], unmasked, retain_graph=False
    )[0]
    touched = (invariance_gradient != 0).double()
    cells = touched.view(2, 3, 6, 2, 9, 2).sum((3, 5))
    assert (cells == 1).all()


def test_limits_of_the_loss():
    blind, unmasked, _, x, m = outputs()
    sub = objectives.random_subsample(blind, m, 2)
    at_start = objectives.c_bsn(blind, unmasked, sub, x, m, ramp=objectives.c_bsn_ramp(0))
    assert at_start.item() == pytest.approx(objectives.blind_spot(blind, x).item())
    trivial = torch.zeros(2, 12, 18, dtype=torch.int64)
    named = objectives.c_bsn_terms(blind, unmasked, blind, x, trivial)
    assert named["invariance"].item() == pytest.approx((unmasked - blind).abs().mean().item())


def test_ramp():
    assert [objectives.c_bsn_ramp(t) for t in (0, 50_000, 200_000, 400_000)] == [0, 0.25, 1, 1]
    assert objectives.c_bsn_ramp(1, 4) == 0.25
    assert objectives.c_bsn_ramp(0, 0) == 1


def test_half_precision_computes_in_float32():
    blind, unmasked, sub, x, m = outputs()
    half = [t.bfloat16() for t in (blind, unmasked, sub, x)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objectives.c_bsn(*half, m)
        normalised, mean, std = objectives.normalise_patch(half[3])
    assert loss.dtype == normalised.dtype == mean.dtype == std.dtype == torch.float32
    assert loss.item() == pytest.approx(objectives.c_bsn(*(t.double() for t in half), m).item(), rel=1e-6)
    assert objectives.s2b(half[3], 2).dtype == torch.bfloat16


def test_wrong_shapes_are_refused():
    blind, unmasked, sub, x, m = outputs()
    with pytest.raises(UserError, match="multiple of the stride 5"):
        objectives.s2b(x, 5)
    with pytest.raises(UserError, match="multiple of 9"):
        objectives.b2s(x, 3)
    with pytest.raises(UserError, match=r"\(B, C, H, W\)"):
        objectives.s2b(x[0], 2)
    with pytest.raises(UserError, match="m must have the shape"):
        objectives.random_subsample(x, m[:, 1:], 2)
    with pytest.raises(UserError, match="one shape"):
        objectives.c_bsn(blind[:, :2], unmasked, sub, x, m)
    with pytest.raises(UserError, match="blind_sub"):
        objectives.c_bsn(blind, unmasked, x, x, m)
    with pytest.raises(UserError, match="m must be"):
        objectives.c_bsn(blind, unmasked, sub, x, m[0])
    with pytest.raises(UserError, match="loss must be one of l1, l2"):
        objectives.c_bsn(blind, unmasked, sub, x, m, loss="huber")
    with pytest.raises(UserError, match="one shape"):
        objectives.blind_spot(sub, x)
    with pytest.raises(UserError, match="subsampler"):
        objectives.draw_subsample(x, 2, subsampler="mean")
