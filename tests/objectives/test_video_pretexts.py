"""RotNet, VCOP, PRP, TDL, RSPNet and their distillation: literal formulas, limits, gradients."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from selftaught import objectives
from selftaught.errors import UserError

G = torch.Generator().manual_seed(1)
F64 = torch.float64


def unit(rows: int = 4, width: int = 6) -> torch.Tensor:
    return normalize(torch.randn(rows, width, generator=G, dtype=F64), dim=1)


def cross_entropy(logits: np.ndarray, target: np.ndarray) -> float:
    terms = []
    for row, t in zip(logits, target, strict=True):
        terms.append(math.log(sum(math.exp(x - row[t]) for x in row)))
    return float(np.mean(terms))


# ---- RotNet --------------------------------------------------------------------------------------------------------
def test_four_quarter_turns_are_none_and_pixels_only_move() -> None:
    clips = torch.rand(4, 3, 2, 5, 5, generator=G)
    once = torch.ones(4, dtype=torch.int64)
    turned = clips
    for _ in range(4):
        turned = objectives.rotate_clips(turned, once)
    assert torch.equal(turned, clips)
    mixed = objectives.rotate_clips(clips, torch.arange(4))
    every, turns = objectives.video_rotnet_all(clips)
    assert turns.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    for k in range(4):
        assert torch.equal(mixed[k], every[4 * k + k])
        np.testing.assert_array_equal(mixed[k, 1, 1].numpy(), np.rot90(clips[k, 1, 1].numpy(), k))
    logits = torch.randn(5, 4, generator=G, dtype=F64)
    labels = torch.tensor([0, 3, 2, 1, 1])
    assert objectives.video_rotnet(logits, labels).item() == pytest.approx(cross_entropy(logits.numpy(), labels))
    with pytest.raises(UserError, match="square frames"):
        objectives.rotate_clips(clips[..., :4], once)


# ---- VCOP ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("clips", [2, 3, 4, 5])
def test_every_order_comes_back_from_its_number(clips: int) -> None:
    count = math.factorial(clips)
    orders = objectives.order_of(torch.arange(count), clips)
    assert [tuple(row) for row in orders.tolist()] == list(permutations(range(clips)))
    assert objectives.order_index(orders).tolist() == list(range(count))
    uniform = objectives.vcop(torch.zeros(3, count), torch.tensor([0, 1, count - 1]))
    assert uniform.item() == pytest.approx(math.log(count), rel=1e-6)


def test_the_label_names_the_order_of_the_shuffled_tuple() -> None:
    clips = torch.arange(3.0).expand(2, 3).unsqueeze(-1)
    shuffled = objectives.shuffle_clips(clips, torch.tensor([3, 4]))
    assert shuffled[..., 0].tolist() == [[1, 2, 0], [2, 0, 1]]
    assert objectives.order_index(shuffled[..., 0].long()).tolist() == [3, 4]


# ---- PRP -----------------------------------------------------------------------------------------------------------
def test_prp_is_the_literal_formula() -> None:
    out, target = (torch.rand(2, 3, 4, 5, 5, generator=G, dtype=F64) for _ in range(2))
    mask = 0.8 + 1.2 * torch.rand(2, 1, 4, 5, 5, generator=G, dtype=F64)
    flags = torch.tensor([[True, False, True, False], [True] * 4])
    logits, rate = torch.randn(2, 4, generator=G, dtype=F64), torch.tensor([0, 2])
    samples = []
    for n in range(2):
        frames = [(mask[n, 0, t] * (out[n, :, t] - target[n, :, t]) ** 2).mean().item() for t in range(4)]
        samples.append(np.mean([f for f, keep in zip(frames, flags[n].tolist(), strict=True) if keep]))
    expected = np.mean(samples) + 0.1 * cross_entropy(logits.numpy(), rate.numpy())
    found = objectives.prp_terms(out, target, logits, rate, mask=mask, flags=flags)
    assert found["loss"].item() == pytest.approx(expected, rel=1e-10)
    plain = objectives.prp_reconstruction(out, target)
    assert plain.item() == pytest.approx((out - target).square().mean().item(), rel=1e-10)


def test_at_the_slowest_rate_missing_frames_are_means_and_do_not_count() -> None:
    clip = torch.arange(3.0).view(1, 1, 3, 1, 1).repeat(2, 1, 1, 2, 2)
    fine = torch.full((2, 1, 6, 2, 2), 9.0)
    target, flags = objectives.prp_target(clip, fine, torch.tensor([True, False]))
    assert target[0, 0, :, 0, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2]
    assert target[1].unique().tolist() == [9]
    assert flags.tolist() == [[True, False] * 3, [True] * 6]


def test_the_motion_mask_is_high_where_something_moves() -> None:
    clip = torch.zeros(1, 1, 3, 8, 8)
    clip[:, :, 1, :4, :4] = 1.0
    mask = objectives.motion_mask(clip, patch=4)
    assert mask.shape == (1, 1, 3, 8, 8)
    assert mask[0, 0, 1, :4, :4].unique().item() == pytest.approx(2.0)
    assert mask[0, 0, 1, 4:].unique().item() == pytest.approx(0.8)
    assert objectives.motion_mask(torch.ones(1, 3, 2, 5, 7), patch=4).unique().tolist() == [1]


# ---- TDL -----------------------------------------------------------------------------------------------------------
def test_tdl_is_the_literal_formula_and_its_gradients_go_where_they_should() -> None:
    q, k, n, queue = unit(), unit(), unit(), unit(5)
    tau, terms = 0.07, []
    for i in range(4):
        logits = [q[i] @ k[i], *(q[i] @ row for row in queue), q[i] @ n[i]]
        values = [float(x) / tau for x in logits]
        terms.append(math.log(sum(math.exp(v - values[0]) for v in values)))
    for t in (q, k, n, queue):
        t.requires_grad_()
    loss = objectives.tdl(q, k, n, queue)
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-9)
    loss.backward()
    assert k.grad is None
    assert queue.grad is None
    assert q.grad.abs().sum() > 0
    assert n.grad.abs().sum() > 0
    fresh = (unit().requires_grad_(), unit().requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: objectives.tdl(a, k, b, queue, temperature=0.5), fresh)
    empty = objectives.tdl(q, k, k.detach(), torch.zeros(0, 6, dtype=F64))
    assert empty.item() == pytest.approx(math.log(2), rel=1e-9)


def test_mixing_in_one_frame_keeps_the_motion() -> None:
    clip = torch.rand(2, 3, 4, 5, 5, generator=G, dtype=F64)
    frame, share = torch.tensor([3, 0]), torch.tensor([0.1, 0.05], dtype=F64)
    mixed = objectives.intra_video_mix(clip, frame, share)
    for n in range(2):
        for t in range(4):
            expected = (1 - share[n]) * clip[n, :, t] + share[n] * clip[n, :, frame[n]]
            assert torch.allclose(mixed[n, :, t], expected)
    assert torch.allclose(mixed.diff(dim=2), (1 - share).view(2, 1, 1, 1, 1) * clip.diff(dim=2))


# ---- RSPNet --------------------------------------------------------------------------------------------------------
def test_rspnet_is_the_literal_formula() -> None:
    q, k, kneg, qm, km, knegm = (unit() for _ in range(6))
    queue, tau = unit(5), 0.07
    avid = speed = 0.0
    for i in range(4):
        for key in (k, kneg):
            values = [float(q[i] @ key[i]) / tau, *(float(q[i] @ row) / tau for row in queue)]
            avid += math.log(sum(math.exp(v - values[0]) for v in values)) / 4
        speed += max(0.0, 1 - (float(qm[i] @ km[i]) - float(qm[i] @ knegm[i])) / tau) / 4
    for t in (q, qm, k, km):
        t.requires_grad_()
    found = objectives.rspnet_terms((q, k, kneg), (qm, km, knegm), queue)
    assert found["a_vid"].item() == pytest.approx(avid, rel=1e-9)
    assert found["rsp"].item() == pytest.approx(speed, rel=1e-9)
    assert found["loss"].item() == pytest.approx(avid + speed, rel=1e-9)
    found["loss"].backward()
    assert k.grad is None
    assert km.grad is None
    assert q.grad.abs().sum() > 0
    assert torch.autograd.gradcheck(
        lambda a: objectives.a_vid(a, k, kneg, queue, temperature=0.5), (unit().requires_grad_(),)
    )


def test_a_gap_of_the_temperature_is_enough() -> None:
    q = torch.tensor([[1.0, 0.0]], dtype=F64)

    def at(cosine: float) -> torch.Tensor:
        return torch.tensor([[cosine, math.sqrt(1 - cosine**2)]], dtype=F64)

    assert objectives.relative_speed(q, at(0.5701), at(0.5)).item() == 0
    assert objectives.relative_speed(q, at(0.5), at(0.5)).item() == 1
    assert objectives.relative_speed(q, at(0.535), at(0.5)).item() == pytest.approx(0.5, abs=1e-9)


# ---- distillation --------------------------------------------------------------------------------------------------
def test_distillation_is_the_literal_formula_and_0_where_they_agree() -> None:
    s, t = (torch.randn(3, 5, generator=G, dtype=F64) for _ in range(2))
    p, q = ((x / 4).softmax(1) for x in (t, s))
    kl = 16 * (p * (p / q).log()).sum(1).mean().item()
    assert objectives.pretext_distillation(s, t).item() == pytest.approx(kl, rel=1e-9)
    assert objectives.pretext_distillation(t, t).item() == pytest.approx(0, abs=1e-12)
    ce = objectives.pretext_distillation(s, t, kind="cross_entropy").item()
    assert ce == pytest.approx(-16 * (p * q.log()).sum(1).mean().item(), rel=1e-9)
    mse = objectives.pretext_distillation(s, t, kind="mse").item()
    assert mse == pytest.approx((2 - 2 * torch.cosine_similarity(s, t)).mean().item(), rel=1e-9)
    both = objectives.pretext_distillation_terms([s, s], [t, s])
    assert both["loss"].item() == pytest.approx(kl / 2, rel=1e-9)
