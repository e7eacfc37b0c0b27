"""Which tokens are hidden, and MAE's networks around timm's ViT."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selftaught.errors import UserError
from selftaught.networks import encoder
from selftaught.networks.mae import MaskedAutoencoder, fix_positions, mae_vit
from selftaught.networks.masks import blockwise_mask, blockwise_masks, grid_mask, random_masking, unit_masks
from selftaught.networks.tokens import patchify, sincos_positions, unpatchify

G = torch.Generator().manual_seed(0)


def test_random_masking_is_per_sample_and_undone_by_restore() -> None:
    keep, mask, restore = random_masking(64, 256, 0.75, generator=G)
    assert keep.shape == (64, 64)
    assert (mask.sum(1) == 192).all()
    assert not mask.gather(1, keep).any()
    assert len({tuple(row.tolist()) for row in keep}) == 64
    shuffled = torch.cat([keep, torch.full((64, 192), -1)], dim=1)
    back = shuffled.gather(1, restore)
    assert torch.equal(back == -1, mask)
    assert torch.equal(back[~mask], torch.arange(256).expand(64, -1)[~mask])
    noise = torch.tensor([[0.3, 0.1, 0.2, 0.9]])
    keep, mask, restore = random_masking(1, 4, 0.5, noise=noise)
    assert keep.tolist() == [[1, 2]]
    assert restore.tolist() == [[2, 0, 1, 3]]
    assert random_masking(1, 49, 0.75)[0].shape == (1, 12)
    with pytest.raises(UserError, match="noise needs"):
        random_masking(2, 4, 0.5, noise=noise)


def test_blocks_units_and_the_grid() -> None:
    rng = np.random.default_rng(0)
    masks = [blockwise_mask((14, 14), 75, rng=rng) for _ in range(50)]
    counts = [int(mask.sum()) for mask in masks]
    assert max(counts) <= 75
    assert np.mean(counts) > 60
    joined = np.mean([(m[:, 1:] & m[:, :-1]).sum() / m.sum() for m in masks])
    assert joined > 0.6, "hidden tokens lie together"
    exact = blockwise_masks(8, (8, 8), 0.4, rng=rng)
    assert (exact.sum(1) == 25).all()
    units = unit_masks(4, (6, 4), 0.6, unit=2, generator=G)
    assert (units.sum(1) == 16).all()
    square = units.view(4, 3, 2, 2, 2)
    assert (square == square[:, :, :1, :, :1]).all()
    assert grid_mask(2, (2, 4))[1].tolist() == [False, True, False, True, True, True, True, True]
    for call, message in (
        (lambda: blockwise_mask((4, 4), 17), "hides 0 to 16"),
        (lambda: blockwise_mask((4, 4), 3, aspect=0.0), "aspect"),
        (lambda: unit_masks(1, (5, 4)), "multiple of unit"),
        (lambda: unit_masks(1, (4, 4), 1.0), "mask ratio"),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_patches_with_channels_last() -> None:
    x = torch.randn(2, 3, 4, 6)
    cut = patchify(x, (2, 3), channels_last=True)
    assert torch.equal(cut[1, 0], x[1, :, :2, :3].permute(1, 2, 0).flatten())
    assert torch.equal(unpatchify(cut, (2, 3), (4, 6), channels_last=True), x)
    volume = torch.randn(1, 2, 2, 4, 6)
    cut = patchify(volume, (1, 2, 3), channels_last=True)
    assert torch.equal(unpatchify(cut, (1, 2, 3), (2, 4, 6), channels_last=True), volume)


def test_the_published_sizes() -> None:
    def blocks(dim: int, depth: int) -> int:
        return depth * (2 * 2 * dim + dim * 3 * dim + 3 * dim + dim * dim + dim + 8 * dim * dim + 5 * dim)

    def count(network: MaskedAutoencoder) -> int:
        return sum(p.numel() for p in network.parameters() if p.requires_grad)

    base = mae_vit("base")
    encoder_ = blocks(768, 12) + 16 * 16 * 3 * 768 + 768 + 768 + 2 * 768
    decoder = blocks(512, 8) + 768 * 512 + 512 + 512 + 2 * 512 + 512 * 768 + 768
    assert count(base) == encoder_ + decoder
    assert count(base) + 197 * (768 + 512) == 111_907_840, "mae_vit_base_patch16 of the official code"
    tiny = mae_vit("tiny")
    assert tiny.decoder.count == 256
    tokens = 256 * 192 + 257 * 192
    assert count(tiny) == blocks(192, 16) + 12 * 192 + 192 + 192 + 2 * 192 + 192 + 2 * 192 + 192 * 12 + 12 + tokens


def test_the_encoder_never_sees_what_is_hidden() -> None:
    torch.manual_seed(0)
    network = mae_vit("base", image_size=32, patch=8, decoder_dim=32, decoder_depth=1, decoder_heads=4).eval()
    x = torch.randn(2, 3, 32, 32)
    keep, mask, _ = random_masking(2, 16, 0.75, generator=G)
    other = patchify(x, (8, 8)).masked_fill(mask[:, :, None], 5.0)
    with torch.no_grad():
        seen, again = network(x, keep), network(unpatchify(other, (8, 8), (32, 32)), keep)
    assert seen.shape == (2, 16, 192)
    assert torch.allclose(seen, again)


def test_positions_are_fixed_and_masked_tokens_take_a_token() -> None:
    network = encoder("vit-nano", channels=1, image_size=28, patch_size=4)
    fix_positions(network)
    assert network.grid == (7, 7)
    assert network.dim == 96
    table = network.model.pos_embed
    assert not table.requires_grad
    assert torch.equal(table[0, 1:], sincos_positions((7, 7), 96))
    assert (table[0, 0] == 0).all()
    x, mask = torch.randn(2, 1, 28, 28), torch.zeros(2, 49, dtype=torch.bool)
    mask[:, :10] = True
    token = torch.zeros(96, requires_grad=True)
    changed = x.clone()
    changed[:, :, :4, :] += 1.0  # the first seven patches
    network.eval()
    one, two = (network.tokens(each, mask=mask, mask_token=token)[1] for each in (x, changed))
    assert torch.allclose(one, two)
    assert not torch.allclose(network.tokens(x)[1], one)
    one.sum().backward()
    assert token.grad is not None
    with pytest.raises(UserError, match="a mask needs"):
        network.tokens(x, mask=mask)
    with pytest.raises(UserError, match="no absolute positions"):
        fix_positions(encoder("resnet10-narrow", image_size=32))
