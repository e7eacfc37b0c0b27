"""DISCOVR's losses against loops in float64, and against what only the right formula has."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selftaught.errors import UserError
from selftaught.objectives.discovr import (
    cluster_distillation,
    cluster_distillation_terms,
    discovr,
    discovr_center,
    discovr_temperature,
    discovr_terms,
    masked_distillation,
    masked_distillation_terms,
    masked_prediction,
    normalised_patches,
    paired_tokens,
    sigma,
    sigma_terms,
    standardised_tokens,
    videomae,
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- the formulas once more, one operation after the other ----------------------------------------------------------
def literal_codes(scores: np.ndarray, eps: float, iters: int) -> np.ndarray:
    q = np.exp(scores / eps).T
    q = q / q.sum()
    count, tokens = q.shape
    for _ in range(iters):
        q = q / q.sum(1, keepdims=True) / count
        q = q / q.sum(0, keepdims=True) / tokens
    return (q / q.sum(0, keepdims=True)).T


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def literal_clusters(video, image, prototypes, targets: str, tau: float, eps: float, iters: int) -> tuple[float, float]:
    p, width = unit(prototypes.numpy()), video.shape[2]
    s_v, s_i = (unit(z.numpy().reshape(-1, width)) @ p.T for z in (video, image))

    def cross(scores: np.ndarray, codes: np.ndarray) -> float:
        logs, total = log_softmax(scores / tau), 0.0
        for row, code in zip(logs, codes, strict=True):
            total -= row[code.argmax()] if targets == "hard" else (code * row).sum()
        return total / len(logs)

    return cross(s_i, literal_codes(s_v, eps, iters)), cross(s_v, literal_codes(s_i, eps, iters))


def literal_distillation(student, teacher, center, tau_s: float, tau_t: float) -> float:
    p = np.exp(log_softmax((teacher.numpy() - center.numpy()) / tau_t))
    total = 0.0
    for view in student.numpy():
        total -= (p * log_softmax(view / tau_s)).sum(1).mean() / len(student)
    return float(total)


def literal_targets(frames: np.ndarray, tubelet: int) -> np.ndarray:
    clips = []
    for clip in frames:
        flat = clip.reshape(-1, clip.shape[-1])
        deviation = np.sqrt(((flat - flat.mean(0)) ** 2).sum(0) / (len(flat) - 1))
        z = ((flat - flat.mean(0)) / (deviation + 1e-6)).reshape(clip.shape)
        clips.append(np.concatenate([z[t] for t in range(0, len(clip), tubelet)]))
    return np.stack(clips)


# ---- tokens ----------------------------------------------------------------------------------------------------------
def test_standardised_tokens_have_mean_0_and_unbiased_deviation_1() -> None:
    x = 3 + 5 * draw(2, 7, 4)
    z = standardised_tokens(x)
    assert z.mean(1).abs().max() < 1e-12
    assert torch.allclose(z.std(1), torch.ones(2, 4, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(standardised_tokens(x * 4 - 1), z, atol=1e-5)
    x[:, :, 1] = 2.5
    assert standardised_tokens(x)[:, :, 1].abs().max() < 1e-6, "a constant channel must stay finite"
    with pytest.raises(UserError, match="one token"):
        standardised_tokens(draw(2, 1, 4))
    with pytest.raises(UserError, match="batch, tokens, width"):
        standardised_tokens(draw(2, 4))


@pytest.mark.parametrize("tubelet", [1, 2, 3])
def test_pairs_are_the_first_frame_of_each_tubelet_at_the_same_place(tubelet: int) -> None:
    frames = draw(2, 6, 5, 3)
    found = paired_tokens(frames, tubelet=tubelet)
    np.testing.assert_allclose(found.numpy(), literal_targets(frames.numpy(), tubelet), atol=1e-12)
    assert found.shape == (2, 6 // tubelet * 5, 3)
    official = paired_tokens(frames, tubelet=tubelet, pairing="official")
    np.testing.assert_allclose(official.numpy(), literal_targets(frames.numpy(), 1)[:, ::tubelet], atol=1e-12)
    assert torch.equal(official, found) == (tubelet == 1)


def test_pairing_refuses_what_has_no_partner() -> None:
    with pytest.raises(UserError, match="no multiple of tubelet=4"):
        paired_tokens(draw(1, 6, 5, 3), tubelet=4)
    with pytest.raises(UserError, match="pairing must be one of"):
        paired_tokens(draw(1, 6, 5, 3), pairing="random")
    with pytest.raises(UserError, match="batch, frames, places, width"):
        paired_tokens(draw(6, 5, 3))


# ---- semantic cluster distillation -----------------------------------------------------------------------------------
@pytest.mark.parametrize("targets", ["hard", "soft"])
@pytest.mark.parametrize(("tau", "eps", "iters"), [(0.1, 0.05, 10), (0.3, 0.2, 3), (1.0, 0.05, 1)])
def test_cluster_distillation_equals_its_formula(targets: str, tau: float, eps: float, iters: int) -> None:
    video, image, prototypes = draw(2, 6, 5), draw(2, 6, 5, seed=1), 3 * draw(7, 5, seed=2)
    settings = {"targets": targets, "temperature": tau, "eps": eps, "iters": iters}
    terms = cluster_distillation_terms(video, image, prototypes, **settings)
    first, second = literal_clusters(video, image, prototypes, targets, tau, eps, iters)
    assert terms["image_term"].item() == pytest.approx(first, rel=1e-9)
    assert terms["video_term"].item() == pytest.approx(second, rel=1e-9)
    assert cluster_distillation(video, image, prototypes, **settings).item() == pytest.approx(first + second, rel=1e-9)


def test_cluster_distillation_defaults_are_the_launch_scripts() -> None:
    video, image, prototypes = draw(2, 6, 5), draw(2, 6, 5, seed=1), draw(7, 5, seed=2)
    expected = sum(literal_clusters(video, image, prototypes, "hard", 0.1, 0.05, 10))
    assert cluster_distillation(video, image, prototypes).item() == pytest.approx(expected, rel=1e-9)


def test_cluster_distillation_identities() -> None:
    video, image, prototypes = draw(2, 6, 5), draw(2, 6, 5, seed=1), draw(7, 5, seed=2)
    value = cluster_distillation(video, image, prototypes, targets="soft").item()
    scaled = cluster_distillation(3 * video, 0.2 * image, prototypes * draw(7, 1, seed=3).abs(), targets="soft").item()
    assert scaled == pytest.approx(value, abs=1e-9), "only directions count"
    order = torch.randperm(12, generator=torch.Generator().manual_seed(5))
    shuffled = [z.flatten(0, 1)[order].view(2, 6, 5) for z in (video, image)]
    assert cluster_distillation(*shuffled, prototypes, targets="soft").item() == pytest.approx(value, abs=1e-9)
    unpaired = cluster_distillation(shuffled[0], image, prototypes, targets="soft").item()
    assert abs(unpaired - value) > 1e-3, "pairs count"
    same = torch.ones(7, 5, dtype=torch.float64)
    equal = cluster_distillation_terms(video, image, same, targets="soft")
    assert equal["video_term"].item() == pytest.approx(math.log(7), abs=1e-9)
    assert equal["image_term"].item() == pytest.approx(math.log(7), abs=1e-9)


def test_gradient_reaches_video_tokens_and_prototypes_through_the_second_term_alone() -> None:
    video, image, prototypes = (t.requires_grad_() for t in (draw(2, 6, 5), draw(2, 6, 5, seed=1), draw(7, 5, seed=2)))
    terms = cluster_distillation_terms(video, image, prototypes)
    assert not terms["image_term"].requires_grad
    terms["loss"].backward()
    assert image.grad is None
    by_hand = [t.detach().clone().requires_grad_() for t in (video, prototypes)]
    rows = F.normalize(by_hand[1], dim=1)
    s_v = F.normalize(by_hand[0].flatten(0, 1), dim=1) @ rows.T
    s_i = F.normalize(image.detach().flatten(0, 1), dim=1) @ rows.T
    best = torch.from_numpy(literal_codes(s_i.detach().numpy(), 0.05, 10).argmax(1))
    (-(s_v / 0.1).log_softmax(1)[range(12), best].mean()).backward()
    assert torch.allclose(video.grad, by_hand[0].grad, atol=1e-12)
    assert torch.allclose(prototypes.grad, by_hand[1].grad, atol=1e-12)
    tangent = (video.grad * video.detach()).sum(2)
    assert tangent.abs().max() < 1e-12, "lengths don't count, so no gradient along a token"


def test_gradients_by_finite_differences() -> None:
    video, prototypes = draw(1, 4, 3).requires_grad_(), draw(3, 3, seed=2).requires_grad_()
    image = draw(1, 4, 3, seed=1)
    # the codes are constants: only the hard ones stay the same under a small change of the prototypes
    assert torch.autograd.gradcheck(
        lambda v, p: cluster_distillation_terms(v, image, p)["video_term"], (video, prototypes)
    )
    student = draw(2, 3, 4).requires_grad_()
    teacher = draw(3, 4, seed=3)
    assert torch.autograd.gradcheck(lambda s: masked_distillation(s, teacher), (student,))
    assert torch.autograd.gradgradcheck(lambda s: masked_distillation(s, teacher), (student,))
    tokens = draw(1, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(standardised_tokens, (tokens,))


def test_what_shows_a_collapse() -> None:
    rows = F.normalize(draw(8, 16, seed=3), dim=1)
    tokens = rows.repeat(4, 1)[None]
    terms = cluster_distillation_terms(tokens, tokens, rows)
    assert terms["agreement"].item() == 1
    assert terms["used_prototypes"].item() == 1
    assert cluster_distillation_terms(tokens[:, :3], tokens[:, :3], rows)["used_prototypes"].item() < 0.5
    far = cluster_distillation_terms(tokens.roll(1, 1), tokens, rows)
    assert far["agreement"].item() == 0
    assert far["loss"] > terms["loss"] + 1


@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_tokens_that_are_all_alike_stay_finite(targets: str) -> None:
    video = torch.zeros(1, 3, 4, requires_grad=True)
    prototypes = torch.eye(4).requires_grad_()
    loss = cluster_distillation(video, torch.zeros(1, 3, 4), prototypes, targets=targets)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(video.grad).all()
    assert torch.isfinite(prototypes.grad).all()
    one = torch.ones(1, 200, 4)
    assert torch.isfinite(cluster_distillation(one, -one, torch.randn(50, 4), targets=targets))


def test_half_precision_is_raised_before_the_exponential() -> None:
    video, image, prototypes = (t.bfloat16() for t in (draw(2, 6, 5), draw(2, 6, 5, seed=1), draw(7, 5, seed=2)))
    found = cluster_distillation(video, image, prototypes)
    assert found.dtype == torch.float32
    wide = cluster_distillation(*(t.double() for t in (video, image, prototypes)))
    assert found.item() == pytest.approx(wide.item(), abs=1e-4)


def train_free_tokens(seed: int, shuffle: bool) -> float:
    """The sheet's check 4: free video tokens and prototypes against fixed image tokens; the agreement at the end."""
    g = torch.Generator().manual_seed(seed)
    image = standardised_tokens(torch.randn(1, 32, 32, generator=g))
    video = torch.randn(1, 32, 32, generator=g).requires_grad_()
    prototypes = torch.randn(20, 32, generator=g).requires_grad_()
    optimizer = torch.optim.Adam([video, prototypes], lr=0.05)
    for _ in range(200):
        order = torch.randperm(32, generator=g) if shuffle else torch.arange(32)
        optimizer.zero_grad()
        cluster_distillation(video, image[:, order], prototypes).backward()
        optimizer.step()
    return cluster_distillation_terms(video, image, prototypes)["agreement"].item()


def test_free_tokens_learn_their_partners_clusters() -> None:
    assert min(train_free_tokens(seed, shuffle=False) for seed in range(2)) > 0.8
    assert train_free_tokens(0, shuffle=True) < 0.3, "pairs that change at every step teach nothing"


# ---- self-distillation of masked views -------------------------------------------------------------------------------
@pytest.mark.parametrize("views", [1, 4])
def test_masked_distillation_equals_its_formula(views: int) -> None:
    student, teacher, center = draw(views, 3, 6), draw(3, 6, seed=1), 0.2 * draw(6, seed=2)
    found = masked_distillation(student, teacher, center=center, student_temperature=0.5, teacher_temperature=0.2)
    assert found.item() == pytest.approx(literal_distillation(student, teacher, center, 0.5, 0.2), rel=1e-10)
    plain = masked_distillation(student, teacher)
    zero = torch.zeros(6, dtype=torch.float64)
    assert plain.item() == pytest.approx(literal_distillation(student, teacher, zero, 0.1, 0.04), rel=1e-10)


def test_masked_distillation_is_dino_of_other_views() -> None:
    """With a student crop that is skipped against its own teacher, DINO's mean is over the masked views alone."""
    from selftaught.objectives.dino import dino

    student, teacher, center = draw(4, 3, 6), draw(3, 6, seed=1), 0.2 * draw(6, seed=2)
    whole = torch.cat([teacher[None], student])
    expected = dino(whole, teacher[None], center=center, teacher_temperature=0.06)
    found = masked_distillation(student, teacher, center=center, teacher_temperature=0.06)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_masked_distillation_bounds_and_gradient() -> None:
    zero = torch.zeros(2, 3, 16, dtype=torch.float64)
    terms = masked_distillation_terms(zero, zero[0])
    assert terms["loss"].item() == pytest.approx(math.log(16))
    assert terms["teacher_entropy"].item() == pytest.approx(math.log(16))
    student, teacher = draw(2, 3, 6).requires_grad_(), draw(3, 6, seed=1).requires_grad_()
    center = draw(6, seed=2).requires_grad_()
    masked_distillation(student, teacher, center=center).backward()
    assert teacher.grad is None
    assert center.grad is None
    p = ((teacher - center) / 0.04).softmax(1)
    expected = ((student / 0.1).softmax(2) - p) / 0.1 / 6
    assert torch.allclose(student.grad, expected, atol=1e-12)


@pytest.mark.parametrize(("frames", "chunk", "last"), [(10, 4, 2), (8, 4, 4), (3, 1024, 3)])
def test_the_official_scale_keeps_the_last_chunk(frames: int, chunk: int, last: int) -> None:
    student, teacher = draw(2, frames, 5), draw(frames, 5, seed=1)
    found = masked_distillation(student, teacher, official_scale=True, chunk=chunk).item()
    assert found == pytest.approx(256 / last * masked_distillation(student[:, -last:], teacher[-last:]).item())


def test_the_centre_follows_logits_or_as_the_code_has_it_probabilities() -> None:
    center, teacher = 0.1 * draw(5), draw(4, 5, seed=1)
    logits = 0.9 * center + 0.1 * teacher.mean(0)
    assert torch.allclose(discovr_center(center, teacher), logits)
    p = np.exp(log_softmax((teacher - center).numpy() / 0.05))
    probs = 0.8 * center.numpy() + 0.2 * p.mean(0)
    found = discovr_center(center, teacher, momentum=0.8, center_input="probs", teacher_temperature=0.05)
    np.testing.assert_allclose(found.numpy(), probs, atol=1e-12)
    kept = torch.zeros(5, dtype=torch.float64)
    for _ in range(200):
        kept = discovr_center(kept, teacher + 50, center_input="probs")
    assert abs(kept.sum().item() - 1) < 1e-6, "the slip: probabilities can't follow logits"
    both = discovr_center(center, teacher[:2], join=lambda mean: torch.cat([mean, teacher[2:].mean(0, keepdim=True)]))
    assert torch.allclose(both, logits), "two processes are one"


def test_the_teachers_temperature_is_a_line_then_constant() -> None:
    assert discovr_temperature(0) == pytest.approx(0.04)
    assert discovr_temperature(15) == pytest.approx(0.055)
    assert discovr_temperature(30) == discovr_temperature(400) == pytest.approx(0.07)
    assert discovr_temperature(0, warmup=0) == 0.07
    with pytest.raises(UserError, match="warmup"):
        discovr_temperature(1, warmup=-1)
    with pytest.raises(UserError, match="start"):
        discovr_temperature(1, start=0)


# ---- the whole -------------------------------------------------------------------------------------------------------
def whole() -> dict[str, torch.Tensor]:
    return {
        "video_tokens": draw(2, 6, 4),
        "frame_tokens": draw(2, 4, 3, 4, seed=1),
        "prototypes": draw(5, 4, seed=2),
        "video_student": draw(3, 2, 6, seed=3),
        "video_teacher": draw(2, 6, seed=4),
        "image_student": draw(2, 8, 6, seed=5),
        "image_teacher": draw(8, 6, seed=6),
    }


def test_the_whole_is_the_weighted_sum_of_its_terms() -> None:
    x, weights = whole(), (0.5, 2.0, 3.0)
    centers = {"video_center": 0.1 * draw(6, seed=7), "image_center": 0.1 * draw(6, seed=8)}
    partners = torch.from_numpy(literal_targets(x["frame_tokens"].numpy(), 2))
    scd = sum(literal_clusters(x["video_tokens"], partners, x["prototypes"], "hard", 0.1, 0.05, 10))
    video = literal_distillation(x["video_student"], x["video_teacher"], centers["video_center"], 0.1, 0.06)
    image = literal_distillation(x["image_student"], x["image_teacher"], centers["image_center"], 0.1, 0.06)
    terms = discovr_terms(**x, **centers, weights=weights, teacher_temperature=0.06)
    assert terms["scd"].item() == pytest.approx(scd, rel=1e-9)
    assert terms["video"].item() == pytest.approx(video, rel=1e-9)
    assert terms["image"].item() == pytest.approx(image, rel=1e-9)
    total = discovr(**x, **centers, weights=weights, teacher_temperature=0.06).item()
    assert total == pytest.approx(0.5 * scd + 2 * video + 3 * image, rel=1e-9)
    parity = discovr_terms(**x, official_scale=True, pairing="official")
    assert parity["image"].item() == pytest.approx(256 / 8 * discovr_terms(**x)["image"].item(), rel=1e-9)
    assert parity["video"].item() == pytest.approx(discovr_terms(**x)["video"].item(), rel=1e-12)
    assert abs(parity["scd"].item() - discovr_terms(**x)["scd"].item()) > 1e-3


def test_who_gets_a_gradient_from_the_whole() -> None:
    x = {name: t.requires_grad_() for name, t in whole().items()}
    discovr(**x).backward()
    trained = {name for name, t in x.items() if t.grad is not None}
    assert trained == {"video_tokens", "prototypes", "video_student", "image_student"}


# ---- baselines -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_sigma_is_the_same_formula_with_both_directions_trained(targets: str) -> None:
    x, y, prototypes = (t.requires_grad_() for t in (draw(2, 6, 5), draw(2, 6, 5, seed=1), draw(7, 5, seed=2)))
    loss = sigma(x, y, prototypes, targets=targets)
    with torch.no_grad():
        assert loss.item() == pytest.approx(cluster_distillation(x, y, prototypes, targets=targets).item(), rel=1e-12)
        assert sigma(y, x, prototypes, targets=targets).item() == pytest.approx(loss.item(), rel=1e-12)
    loss.backward()
    assert min(t.grad.abs().sum().item() for t in (x, y, prototypes)) > 0
    alone = x.detach().requires_grad_()
    cluster_distillation(alone, y.detach(), prototypes.detach(), targets=targets).backward()
    assert torch.allclose(x.grad, alone.grad, atol=1e-12)
    assert 0 < sigma_terms(x, y, prototypes)["used_prototypes"].item() <= 1


def test_videomae_is_the_error_of_hidden_tubelets_in_normalised_pixels() -> None:
    pixels = 100 + 30 * draw(2, 5, 12)
    mask = torch.tensor([[True, False, True, True, False], [False, True, True, False, True]])
    prediction = draw(2, 5, 12, seed=1)
    total, count = 0.0, 0
    for i, j in mask.nonzero().tolist():
        for c in range(3):
            x = pixels[i, j, 4 * c : 4 * c + 4].numpy()
            y = (x - x.mean()) / (x.std(ddof=1) + 1e-6)
            total += ((prediction[i, j, 4 * c : 4 * c + 4].numpy() - y) ** 2).sum()
            count += 4
    assert videomae(prediction, pixels, mask).item() == pytest.approx(total / count, rel=1e-10)
    plain = ((prediction - pixels)[mask] ** 2).mean().item()
    assert videomae(prediction, pixels, mask, normalise=False).item() == pytest.approx(plain, rel=1e-12)
    l1 = masked_prediction(prediction, pixels, mask, kind="l1").item()
    assert l1 == pytest.approx((prediction - pixels)[mask].abs().mean().item(), rel=1e-12)


def test_visible_patches_have_no_gradient() -> None:
    prediction = draw(1, 4, 6).requires_grad_()
    mask = torch.tensor([[True, False, False, True]])
    videomae(prediction, draw(1, 4, 6, seed=1), mask).backward()
    assert prediction.grad[~mask].abs().max() == 0
    assert prediction.grad[mask].abs().min() > 0


def test_normalised_patches_of_integers_and_of_one_colour() -> None:
    flat = normalised_patches(torch.full((1, 2, 8), 7, dtype=torch.uint8), channels=2)
    assert flat.dtype == torch.float32
    assert flat.abs().max() == 0
    with pytest.raises(UserError, match="one pixel"):
        normalised_patches(draw(1, 2, 3), channels=3)
    with pytest.raises(UserError, match="3 x pixels"):
        normalised_patches(draw(1, 2, 8), channels=3)


# ---- refusals --------------------------------------------------------------------------------------------------------
def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(UserError, match="one shape"):
        cluster_distillation(draw(2, 6, 5), draw(1, 6, 5), draw(7, 5))
    with pytest.raises(UserError, match="tokens' width"):
        cluster_distillation(draw(2, 6, 5), draw(2, 6, 5), draw(7, 4))
    with pytest.raises(UserError, match="targets must be one of"):
        cluster_distillation(draw(2, 6, 5), draw(2, 6, 5), draw(7, 5), targets="firm")
    with pytest.raises(UserError, match="eps must be above 0"):
        sigma(draw(2, 6, 5), draw(2, 6, 5), draw(7, 5), eps=0)
    with pytest.raises(UserError, match="need shapes"):
        masked_distillation(draw(2, 3, 6), draw(1, 6))
    with pytest.raises(UserError, match="need shapes"):
        masked_distillation(draw(2, 3, 6), draw(3, 6), center=draw(1))
    with pytest.raises(UserError, match="teacher_temperature"):
        masked_distillation(draw(2, 3, 6), draw(3, 6), teacher_temperature=0)
    with pytest.raises(UserError, match="momentum"):
        discovr_center(draw(6), draw(3, 6), momentum=1.5)
    with pytest.raises(UserError, match="need shapes"):
        masked_prediction(draw(1, 4, 6), draw(1, 4, 6), torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(UserError, match="hide at least one"):
        masked_prediction(draw(1, 4, 6), draw(1, 4, 6), torch.zeros(1, 4, dtype=torch.bool))
