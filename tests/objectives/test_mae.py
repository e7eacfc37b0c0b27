"""MAE's loss against a literal transcription, what it must not depend on, and its small form."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught import objectives
from selftaught.errors import UserError
from selftaught.networks.masks import random_masking
from selftaught.networks.tokens import patchify, unpatchify

G = torch.Generator().manual_seed(0)
PREDICTION, PATCHES = (torch.rand(2, 6, 12, generator=G, dtype=torch.float64) for _ in range(2))
MASK = torch.tensor([[1, 1, 0, 1, 0, 0], [0, 1, 0, 1, 1, 1]]).bool()


def literal(prediction, patches, mask, norm_pix):
    total, removed = 0.0, 0
    for b in range(len(patches)):
        for i in range(patches.shape[1]):
            t = patches[b, i].tolist()
            if norm_pix:
                mean = sum(t) / len(t)
                variance = sum((v - mean) ** 2 for v in t) / (len(t) - 1)
                t = [(v - mean) / math.sqrt(variance + 1e-6) for v in t]
            if mask[b, i]:
                removed += 1
                total += sum((p - v) ** 2 for p, v in zip(prediction[b, i].tolist(), t, strict=True)) / len(t)
    return total / removed


@pytest.mark.parametrize("norm_pix", [True, False])
def test_the_formula(norm_pix: bool) -> None:
    found = objectives.mae(PREDICTION, PATCHES, MASK, norm_pix=norm_pix)
    assert found.item() == pytest.approx(literal(PREDICTION, PATCHES, MASK, norm_pix), rel=1e-10)
    assert objectives.mae(PREDICTION, PATCHES, MASK.double(), norm_pix=norm_pix) == found


def test_facts() -> None:
    prediction = PREDICTION.clone().requires_grad_()
    objectives.mae(prediction, PATCHES, MASK).backward()
    assert prediction.grad is not None
    assert (prediction.grad[~MASK] == 0).all(), "visible patches teach nothing"
    assert (prediction.grad[MASK] != 0).all()
    assert objectives.mae(PATCHES + 0.5, PATCHES, MASK, norm_pix=False).item() == pytest.approx(0.25)
    moved = objectives.mae(PREDICTION, 3 * PATCHES + 2, MASK)
    assert moved.item() == pytest.approx(objectives.mae(PREDICTION, PATCHES, MASK).item(), rel=1e-4)
    none = objectives.mae(prediction, PATCHES, torch.zeros_like(MASK))
    assert none.item() == 0
    assert (torch.autograd.grad(none, prediction)[0] == 0).all()
    flat = objectives.mae_target(torch.ones(1, 1, 12))
    assert (flat == 0).all()
    assert objectives.mae_target(PATCHES).var(2).sub(1).abs().max() < 1e-4


def test_the_small_form_is_the_same_where_the_ratio_is_exact() -> None:
    image, prediction = (torch.rand(3, 3, 8, 8, generator=G, dtype=torch.float64) for _ in range(2))
    _, mask, _ = random_masking(3, 16, 0.75, generator=G)
    cut = [patchify(x, (2, 2), channels_last=True) for x in (prediction, image)]
    wide = mask[:, :, None].expand(-1, -1, 4).double()
    pixels = unpatchify(wide, (2, 2), (8, 8))[:, 0]
    whole = objectives.mae(*cut, mask, norm_pix=False)
    assert objectives.mae_pixels(prediction, image, pixels, ratio=0.75).item() == pytest.approx(whole.item())
    assert objectives.mae_pixels(prediction, image, pixels[:, None].expand_as(image)).item() == pytest.approx(
        whole.item()
    )


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="need shapes"):
        objectives.mae(PREDICTION, PATCHES[:1], MASK)
    with pytest.raises(UserError, match="one value"):
        objectives.mae_target(torch.rand(1, 2, 1))
    with pytest.raises(UserError, match="the mask needs the shape"):
        objectives.mae_pixels(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4), torch.rand(1, 2, 2))
