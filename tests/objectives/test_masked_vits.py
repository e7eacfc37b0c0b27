"""SimMIM, BEiT, MaskFeat, iBOT and MSN: their equations once more in NumPy, their limits, what has no gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from selftaught import objectives
from selftaught.errors import UserError

G = torch.Generator().manual_seed(0)
CONSTANT = [[True, False, True, True, False, False], [False] * 6, [True] * 6]
MASK = torch.tensor(CONSTANT)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=G)


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


# ---- SimMIM --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("channels", [1, 3])
def test_simmim_is_the_papers(channels: int) -> None:
    x, y = randn(2, channels, 4, 4), randn(2, channels, 4, 4)
    mask = torch.rand(2, 4, 4, generator=G) > 0.4
    total = 0.0
    for b in range(2):
        for c in range(channels):
            for i in range(4):
                for j in range(4):
                    total += abs(float(x[b, c, i, j] - y[b, c, i, j])) * bool(mask[b, i, j])
    expected = total / (int(mask.sum()) + 1e-5) / channels
    assert objectives.simmim(y, x, mask).item() == pytest.approx(expected, rel=1e-9)
    assert objectives.simmim(y, x, mask[:, None].double()).item() == pytest.approx(expected, rel=1e-9)


def test_simmim_of_an_equal_error_is_its_size_and_visible_pixels_get_no_gradient() -> None:
    x, mask = randn(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[:, :2] = True
    y = (x + 0.3).requires_grad_()
    loss = objectives.simmim(y, x, mask)
    assert loss.item() == pytest.approx(0.3, rel=1e-5)
    loss.backward()
    assert y.grad[:, :, :2].abs().min() > 0
    assert not y.grad[:, :, 2:].any()
    assert objectives.simmim(y, x, torch.zeros_like(mask)).item() == 0
    assert torch.autograd.gradcheck(lambda r: objectives.simmim(r, x, mask), (y.detach().requires_grad_(),))


# ---- BEiT ----------------------------------------------------------------------------------------------------------
def test_beit_is_the_papers() -> None:
    logits, words = randn(3, 6, 5).requires_grad_(), torch.randint(5, (3, 6), generator=G)
    found = []
    for b, i in MASK.nonzero().tolist():
        p = softmax(logits.detach().numpy()[b, i])
        found.append(-math.log(p[int(words[b, i])]))
    loss = objectives.beit(logits, words, MASK)
    assert loss.item() == pytest.approx(float(np.mean(found)), rel=1e-9)
    loss.backward()
    assert not logits.grad[~MASK].any()
    assert objectives.beit(torch.zeros(3, 6, 5), words, MASK).item() == pytest.approx(math.log(5))
    with pytest.raises(UserError, match="at least one"):
        objectives.beit(logits, words, torch.zeros_like(MASK))


# ---- MaskFeat ------------------------------------------------------------------------------------------------------
def literal_hog(image: np.ndarray, bins: int, cell: int, window: int) -> np.ndarray:
    """One channel (H, W), pixel by pixel."""
    height, width = image.shape
    padded = np.pad(image, 1, mode="reflect")
    found = np.zeros((bins, height // cell, width // cell))
    place = np.arange(window) - (window - 1) / 2 if window else np.zeros(1)
    one = np.exp(-0.5 * (place / max(1, window // 2)) ** 2)
    weights = np.outer(one, one) / np.outer(one, one).sum()
    for i in range(height):
        for j in range(width):
            p = padded[i : i + 3, j : j + 3]
            gx = (p[:, 0] - p[:, 2]) @ [1, 2, 1]
            gy = (p[0] - p[2]) @ [1, 2, 1]
            weight = weights[i % window, j % window] if window else 1.0
            number = math.floor(math.atan2(gx, gy) / math.pi * bins) % bins
            found[number, i // cell, j // cell] += weight * math.hypot(gx, gy)
    return found / np.maximum(np.sqrt((found**2).sum(0)), 1e-12)


@pytest.mark.parametrize(("cell", "window"), [(4, 8), (2, 0), (8, 16)])
def test_hog_is_the_sum_over_pixels(cell: int, window: int) -> None:
    x = randn(2, 2, 16, 16)
    found = objectives.hog(x, bins=9, cell=cell, window=window)
    for b in range(2):
        for c in range(2):
            np.testing.assert_allclose(found[b, c].numpy(), literal_hog(x[b, c].numpy(), 9, cell, window), atol=1e-9)


def test_hog_knows_orientation_not_sign_contrast_or_brightness() -> None:
    columns = torch.arange(16.0).expand(1, 1, 16, 16)
    right, down = objectives.hog(columns), objectives.hog(columns.transpose(2, 3))
    assert right.argmax(2).unique().numel() == down.argmax(2).unique().numel() == 1
    assert right.argmax(2)[0, 0, 0, 0] != down.argmax(2)[0, 0, 0, 0]
    x = randn(1, 3, 16, 16)
    torch.testing.assert_close(objectives.hog(5 * x + 2), objectives.hog(x))
    assert not objectives.hog(torch.ones(1, 1, 16, 16)).any()


def test_targets_hold_the_cells_of_their_patch() -> None:
    x = randn(2, 3, 32, 32)
    whole, targets = objectives.hog(x), objectives.hog_targets(x)
    assert targets.shape == (2, 4, 108)
    parts = targets.view(2, 2, 2, 3, 9, 2, 2)
    for row in range(2):
        for column in range(2):
            cells = whole[..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            torch.testing.assert_close(parts[:, row, column], cells)
    said = targets + 0.1
    assert objectives.maskfeat(said, targets, MASK[:2, :4]).item() == pytest.approx(0.01)
    with pytest.raises(UserError, match="multiple"):
        objectives.hog_targets(x, 12)


# ---- iBOT ----------------------------------------------------------------------------------------------------------
def literal_patches(s: np.ndarray, t: np.ndarray, mask: np.ndarray, center: np.ndarray, tau: float) -> float:
    views = []
    for u in range(len(s)):
        images = []
        for b in range(s.shape[1]):
            total = 0.0
            for i in range(s.shape[2]):
                if mask[u, b, i]:
                    p = softmax((t[u, b, i] - center) / tau)
                    total -= float((p * np.log(softmax(s[u, b, i] / 0.1))).sum())
            images.append(total / max(1, int(mask[u, b].sum())))
        views.append(np.mean(images))
    return float(np.mean(views))


def test_ibots_patch_loss_is_normalised_image_by_image() -> None:
    s, t, center = randn(2, 3, 6, 5).requires_grad_(), randn(2, 3, 6, 5).requires_grad_(), randn(5)
    mask = torch.stack([MASK, ~MASK])
    loss = objectives.ibot_patches(s, t, mask, center=center, teacher_temperature=0.05)
    expected = literal_patches(s.detach().numpy(), t.detach().numpy(), mask.numpy(), center.numpy(), 0.05)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    same = objectives.ibot_patches(s, t, mask, center=center.view(1, 1, 5), teacher_temperature=0.05)
    assert torch.equal(loss, same)
    loss.backward()
    assert t.grad is None
    assert not s.grad[~mask].any()
    assert objectives.ibot_patches(s, t, torch.zeros_like(mask)).item() == 0
    zeros = torch.zeros(2, 3, 6, 5)
    assert objectives.ibot_patches(zeros, zeros, mask).item() == pytest.approx(math.log(5) * 4 / 6)  # 2 of 6 empty


def test_ibot_is_dino_and_the_patches() -> None:
    cls, whole, s, t = randn(4, 3, 5), randn(2, 3, 5), randn(2, 3, 6, 5), randn(2, 3, 6, 5)
    mask, c1, c2 = torch.stack([MASK, ~MASK]), randn(5), randn(5)
    settings = {"student_temperature": 0.2, "teacher_temperature": 0.05}
    terms = objectives.ibot_terms(
        cls, whole, s, t, mask, center=c1, patch_center=c2, patch_temperature=0.07, lambda1=0.5, lambda2=2, **settings
    )
    dino = objectives.dino(cls, whole, center=c1, **settings)
    patch = objectives.ibot_patches(s, t, mask, center=c2, student_temperature=0.2, teacher_temperature=0.07)
    assert terms["loss"].item() == pytest.approx((0.5 * dino + 2 * patch).item())
    moved = objectives.ibot_center(torch.zeros(1, 1, 5, dtype=torch.float64), t)
    torch.testing.assert_close(moved, 0.1 * t.mean((0, 1, 2)).view(1, 1, 5))
    # one vector more on the teacher's logits and on the centre changes nothing
    shift = randn(5)
    same = objectives.ibot_patches(s, t + shift, mask, center=c2 + shift, teacher_temperature=0.07)
    torch.testing.assert_close(same, objectives.ibot_patches(s, t, mask, center=c2, teacher_temperature=0.07))


# ---- MSN -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("lambda_", [0.0, 1.0, 2.5])
def test_msn_is_the_papers(lambda_: float) -> None:
    z, target, prototypes = randn(3, 4, 5), randn(4, 5), randn(6, 5)
    unit = [(x / x.norm(dim=-1, keepdim=True)).numpy() for x in (z, target, prototypes)]
    p = softmax(unit[0] @ unit[2].T / 0.1)
    q = softmax(unit[1] @ unit[2].T / 0.025)
    match = float(np.mean([-(q[n] * np.log(p[v, n])).sum() for v in range(3) for n in range(4)]))
    mean = p.mean((0, 1))
    expected = match + lambda_ * float((mean * np.log(mean)).sum())
    assert objectives.msn(z, target, prototypes, lambda_=lambda_).item() == pytest.approx(expected, rel=1e-9)


def test_msns_target_is_a_constant_and_its_prototypes_learn_from_the_anchors_alone() -> None:
    z, target, prototypes = (randn(*shape).requires_grad_() for shape in ((2, 4, 5), (4, 5), (6, 5)))
    objectives.msn(z, target, prototypes).backward()
    assert target.grad is None
    assert z.grad.abs().sum() > 0
    assert prototypes.grad.abs().sum() > 0
    equal = torch.ones(6, 5, dtype=torch.float64)
    assert objectives.msn(z, target, equal, lambda_=0.25).item() == pytest.approx(0.75 * math.log(6))
    even = objectives.msn_terms(z, target, prototypes, iterations=3)
    scores = torch.nn.functional.normalize(target) @ torch.nn.functional.normalize(prototypes).T
    q = objectives.sinkhorn(scores, eps=0.025, iters=3)
    log_p = (torch.nn.functional.normalize(z, dim=2) @ torch.nn.functional.normalize(prototypes).T / 0.1).log_softmax(2)
    assert even["match"].item() == pytest.approx(-(q * log_p).sum(2).mean().item())
