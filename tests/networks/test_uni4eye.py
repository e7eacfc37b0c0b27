"""One transformer for pictures and volumes: its tokens, limits between the ranks, both decoders, the dynamic head."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from selftaught.errors import UserError
from selftaught.networks import DualDecoder, DynamicHead, RankEncoder, UnifiedPatchEmbedding
from selftaught.networks.masks import random_masking
from selftaught.networks.tokens import patchify, unpatchify

SMALL = {"dim": 24, "depth": 2, "heads": 3}


def made(**options):
    torch.manual_seed(0)
    return RankEncoder(1, (8, 8), (6, 8, 8), (4, 4), (3, 4, 4), **SMALL | options).eval()


def test_the_embedding_is_a_convolution_in_either_rank() -> None:
    embed = UnifiedPatchEmbedding(2, 5, (4, 2), (3, 4, 2))
    picture, volume = torch.randn(2, 2, 8, 6), torch.randn(2, 2, 6, 8, 6)
    found, rank = embed(picture)
    wanted = F.conv2d(picture, embed.proj2.weight.view(5, 2, 4, 2), embed.proj2.bias, stride=(4, 2))
    assert rank == 2
    assert torch.allclose(found, wanted.flatten(2).transpose(1, 2), atol=1e-5)
    found, rank = embed(volume)
    wanted = F.conv3d(volume, embed.proj3.weight.view(5, 2, 3, 4, 2), embed.proj3.bias, stride=(3, 4, 2))
    assert rank == 3
    assert torch.allclose(found, wanted.flatten(2).transpose(1, 2), atol=1e-5)
    assert torch.equal(unpatchify(patchify(volume, (3, 4, 2)), (3, 4, 2), (6, 8, 6)), volume)
    dot = torch.zeros(1, 2, 6, 8, 6)
    dot[0, 1, 4, 5, 3] = 1
    assert patchify(dot, (3, 4, 2)).sum(2).argmax().item() == ((4 // 3) * 2 + 5 // 4) * 3 + 3 // 2
    with pytest.raises(UserError, match="pictures have the shape"):
        embed(torch.zeros(2, 3))


def test_a_flat_volume_has_the_pictures_tokens() -> None:
    embed = UnifiedPatchEmbedding(1, 5, (4, 4), (3, 4, 4))
    with torch.no_grad():
        embed.proj3.bias.copy_(embed.proj2.bias)
        embed.proj3.weight.copy_(embed.proj2.weight.view(5, 1, 1, 4, 4).expand(-1, -1, 3, -1, -1).flatten(1) / 3)
    picture = torch.randn(2, 1, 8, 8)
    assert torch.allclose(embed(picture)[0], embed(picture[:, :, None].expand(-1, -1, 3, -1, -1))[0], atol=1e-5)


def test_the_ranks_share_their_blocks_and_hidden_patches_are_not_seen() -> None:
    network = made()
    for x, count in ((torch.randn(2, 1, 8, 8), 4), (torch.randn(2, 1, 6, 8, 8), 8)):
        whole, tokens = network.tokens(x)
        assert (whole.shape, tokens.shape) == ((2, 24), (2, count, 24))
        assert network.maps(x).shape == (2, 24, *network.grids[x.dim() - 2])
        keep, mask, _ = random_masking(2, count, 0.5)
        patch = network.embed.patch(x.dim() - 2)
        other = unpatchify(patchify(x, patch).masked_fill(mask[:, :, None], 3.0), patch, x.shape[2:])
        assert torch.allclose(network.tokens(x, keep)[1], network.tokens(other, keep)[1], atol=1e-6)
    network.zero_grad()
    network(torch.randn(2, 1, 8, 8)).sum().backward()
    assert network.embed.proj3.weight.grad is None
    assert network.blocks[0].attn.qkv.weight.grad is not None
    assert (made(pos3d="zero").pos3 == 0).all()
    with pytest.raises(UserError, match="built for 8x8"):
        network(torch.zeros(1, 1, 12, 8))


@pytest.mark.parametrize("options", [{}, {"shared": 1}, {"branches": "gradient"}])
def test_both_decoders(options: dict) -> None:
    network = made()
    decoder = DualDecoder(network, 1, dim=16, depth=2, heads=2, **options)
    for x, count, pixels in ((torch.randn(2, 1, 8, 8), 4, 16), (torch.randn(2, 1, 6, 8, 8), 8, 48)):
        keep = random_masking(2, count, 0.5)[0]
        found = decoder(*network.tokens(x, keep), keep, x.dim() - 2)
        assert set(found) == ({"gradient"} if options.get("branches") else {"intensity", "gradient"})
        assert all(part.shape == (2, count, pixels) for part in found.values())
    if not options:
        one, two = decoder.branches["intensity"], decoder.branches["gradient"]
        assert {id(p) for p in one.parameters()}.isdisjoint(id(p) for p in two.parameters())
    with pytest.raises(UserError, match="a trunk takes"):
        DualDecoder(network, 1, dim=16, depth=2, heads=2, shared=2)


def test_the_dynamic_head_is_a_linear_map_over_tokens() -> None:
    torch.manual_seed(0)
    head = DynamicHead(tokens=4, sources=3)
    assert sum(p.numel() for p in head.parameters()) == (5 + 3) * 20 + 20
    decoded, prediction = torch.randn(2, 5, 6), torch.randn(2, 4, 7)
    found = head(decoded, prediction, torch.tensor([0, 2]))
    told = torch.cat([decoded[1].clamp_min(0).mean(1), torch.tensor([0.0, 0.0, 1.0])])
    made_ = head.controller.weight[:, :, 0] @ told + head.controller.bias
    assert torch.allclose(found[1], made_[:16].view(4, 4) @ prediction[1] + made_[16:, None], atol=1e-5)
    with pytest.raises(UserError, match="sources are numbered"):
        head(decoded, prediction, torch.tensor([0, 3]))
