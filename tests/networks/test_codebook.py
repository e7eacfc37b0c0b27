"""The codebook finds the clusters of what it sees batch by batch; masks of iBOT and by attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selftaught import networks
from selftaught.errors import UserError


def test_words_are_the_means_of_their_clusters() -> None:
    torch.manual_seed(0)
    centres = 10 * torch.randn(5, 3)
    codebook = networks.Codebook(3, 5)
    assert not list(codebook.parameters())
    for _ in range(20):
        which = torch.randint(5, (200,))
        distance = codebook.learn(centres[which] + 0.1 * torch.randn(200, 3))
    assert distance < 0.05
    words = codebook(centres)
    assert sorted(words.tolist()) == list(range(5))
    torch.testing.assert_close(codebook.weight[words], centres, atol=0.05, rtol=0)
    rows = torch.randn(2, 4, 3)
    nearest = torch.cdist(rows, codebook.weight.expand(2, -1, -1)).argmin(2)
    assert torch.equal(codebook(rows), nearest)


def test_the_first_batch_needs_as_many_rows_as_words() -> None:
    with pytest.raises(UserError, match="5 words need"):
        networks.Codebook(3, 5).learn(torch.randn(4, 3))
    same = networks.Codebook(2, 3)
    same.learn(torch.ones(6, 2))
    assert torch.isfinite(same.weight).all()


def test_ibots_masks_are_none_or_blocks_of_a_drawn_ratio() -> None:
    rng = np.random.default_rng(0)
    masks = networks.drawn_ratio_masks(400, (14, 14), rng=rng)
    shares = masks.float().mean(1)
    assert 0.4 < (shares == 0).float().mean() < 0.6
    some = shares[shares > 0.02]
    assert some.max() <= 0.5
    assert 0.25 < some.mean() < 0.32
    plain = networks.drawn_ratio_masks(50, (6, 6), 0.5, variance=0.0, probability=1.0, blockwise=False, rng=rng)
    assert torch.equal(plain.sum(1), torch.full((50,), 18))
    with pytest.raises(UserError, match="variance"):
        networks.drawn_ratio_masks(2, (6, 6), 0.1)


def test_attention_hides_what_is_looked_at_most() -> None:
    attention = torch.rand(3, 2, 10)
    mask = networks.attention_masks(attention, 0.4)
    assert torch.equal(mask.sum(1), torch.full((3,), 4))
    mean = attention.mean(1)
    assert (mean[mask].view(3, 4).min(1).values >= mean[~mask].view(3, 6).max(1).values).all()


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_hidden_patch_is_the_mask_token_whatever_was_there(dynamic: bool) -> None:
    torch.manual_seed(0)
    vit = networks.encoder("vit-nano", channels=1, image_size=28, dynamic_img_size=dynamic).eval()
    x, token = torch.randn(2, 1, 28, 28), torch.randn(1, 1, 96)
    mask = torch.zeros(2, 49, dtype=torch.bool)
    mask[:, 0] = True
    other = x.clone()
    other[:, :, :4, :4] = 5
    for a, b in zip(
        vit.tokens(x, mask=mask, mask_token=token), vit.tokens(other, mask=mask, mask_token=token), strict=True
    ):
        torch.testing.assert_close(a, b)
    none = vit.tokens(x, mask=torch.zeros_like(mask), mask_token=token)
    torch.testing.assert_close(none[0], vit(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="mask_token"):
        vit.tokens(x, mask=mask[:, 1:], mask_token=token)
