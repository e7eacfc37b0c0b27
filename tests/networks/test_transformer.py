"""Transformers over tokens: patches, positions, tokens that are left out, the decoder; timm's ViT is the judge."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selftaught.errors import UserError
from selftaught.networks import Encoder, build, encoder
from selftaught.networks.tokens import (
    keep_from_mask,
    largest_patch,
    patchify,
    random_keep,
    region_keep,
    sincos_positions,
    sinusoid_positions,
    unpatchify,
    visible_first,
)
from selftaught.networks.transformer import Block, MaskedDecoder, VisionTransformer
from selftaught.networks.video import CLIP_ENCODERS, build_clip, clip_encoder

SMALL = {"dim": 24, "depth": 2, "heads": 3}


def stirred(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter moved off its initial value, so that none can be forgotten."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return module.eval()


# ---- patches ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("size", "patch"), [((6, 8), (3, 2)), ((4, 6, 8), (2, 3, 4)), ((4, 4), (4, 4))])
def test_patches_are_what_a_strided_convolution_sees(size: tuple, patch: tuple) -> None:
    x = torch.randn(2, 3, *size)
    patches = patchify(x, patch)
    assert patches.shape == (2, math.prod(s // p for s, p in zip(size, patch, strict=True)), 3 * math.prod(patch))
    weight = torch.randn(5, 3, *patch)
    conv = (F.conv2d if len(size) == 2 else F.conv3d)(x, weight, stride=patch)
    assert torch.allclose(patches @ weight.flatten(1).T, conv.flatten(2).transpose(1, 2), atol=1e-4)
    assert torch.equal(unpatchify(patches, patch, size), x)


def test_patches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="6x8 isn't a multiple of the patch 4x4"):
        patchify(torch.zeros(1, 3, 6, 8), (4, 4))
    with pytest.raises(UserError, match="isn't a multiple"):
        patchify(torch.zeros(1, 3, 2, 8, 8), (4, 4))
    with pytest.raises(UserError, match="don't fill"):
        unpatchify(torch.zeros(1, 3, 12), (2, 2), (4, 4))
    assert largest_patch("vit", 112) == 16
    assert largest_patch("vit", 32) == 4
    with pytest.raises(UserError, match="encoder=vit: no patch"):
        largest_patch("vit", 13)


# ---- which tokens ----------------------------------------------------------------------------------------------------
def test_kept_tokens_from_a_mask_and_at_random() -> None:
    mask = torch.tensor([[True, False, True, False], [False, True, True, False]])
    assert keep_from_mask(mask).tolist() == [[1, 3], [0, 3]]
    assert visible_first(torch.tensor([[1, 3], [0, 3]]), 4).tolist() == [[1, 3, 0, 2], [0, 3, 1, 2]]
    with pytest.raises(UserError, match="show 1 to 2 tokens"):
        keep_from_mask(torch.tensor([[True, False, True], [False, False, True]]))
    with pytest.raises(UserError, match="at least one"):
        keep_from_mask(torch.ones(2, 3, dtype=torch.bool))
    g = torch.Generator().manual_seed(0)
    keep = random_keep(2000, 10, 0.7, generator=g)
    assert keep.shape == (2000, 3)
    assert (keep.diff(dim=1) > 0).all()
    shares = torch.bincount(keep.flatten(), minlength=10) / 2000
    assert (shares - 0.3).abs().max() < 0.05, "every token equally often"
    assert random_keep(1, 196, 0.9).shape[1] == 20, "VideoMAE's count: 196 - int(0.9 * 196)"
    assert random_keep(1, 3, 0.99).shape[1] == 1
    with pytest.raises(UserError, match="ratio"):
        random_keep(1, 4, 1.0)


def test_a_hidden_region_hangs_together_and_is_the_same_at_every_time_step() -> None:
    torch.manual_seed(0)
    keep = region_keep(50, (3, 5, 6), 0.6)
    assert keep.shape == (50, 3 * (30 - 18))
    steps = keep.view(50, 3, 12)
    assert torch.equal(steps - 30 * torch.arange(3)[:, None], steps[:, :1].expand(-1, 3, -1))
    hidden = torch.ones(50, 30, dtype=torch.bool).scatter_(1, steps[:, 0], False).view(50, 1, 5, 6).float()
    grown = F.conv2d(hidden, torch.tensor([[[[0.0, 1, 0], [1, 0, 1], [0, 1, 0]]]]), padding=1)
    assert (grown[hidden > 0] > 0).all(), "no hidden token without a hidden neighbour"
    assert len({tuple(row.tolist()) for row in steps[:, 0]}) > 10
    assert region_keep(2, (5, 6), 0.0).shape == (2, 30)
    with pytest.raises(UserError, match="ratio"):
        region_keep(1, (2, 2), 1.0)


# ---- positions -------------------------------------------------------------------------------------------------------
def test_fixed_positions_are_the_papers_tables() -> None:
    table = sinusoid_positions(7, 6).numpy()
    for p in range(7):
        for j in range(6):
            angle = p / 10000 ** (2 * (j // 2) / 6)
            assert table[p, j] == pytest.approx(math.sin(angle) if j % 2 == 0 else math.cos(angle), abs=1e-6)
    grid = sincos_positions((2, 3), 8).numpy()
    for row in range(2):
        for column in range(3):
            o = np.array([1.0, 1 / 100.0])
            x, y = column * o, row * o
            expected = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)])
            np.testing.assert_allclose(grid[3 * row + column], expected, atol=1e-6)
    three = sincos_positions((2, 2, 2), 20)
    assert three[:, 18:].abs().max() == 0
    assert len(three.unique(dim=0)) == 8
    with pytest.raises(UserError, match="too small"):
        sincos_positions((2, 2, 2), 4)


# ---- the transformer -------------------------------------------------------------------------------------------------
def from_timm(model: nn.Module, size: tuple[int, int], patch: tuple[int, int]) -> VisionTransformer:
    ours = VisionTransformer(size, patch, dim=24, depth=2, heads=3, positions="learnt")
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("patch_embed")}
    state["patch_embed.weight"] = model.patch_embed.proj.weight.flatten(1)
    state["patch_embed.bias"] = model.patch_embed.proj.bias
    prefix, state["pos_embed"] = state["pos_embed"][0, :1], state["pos_embed"][0, 1:]
    state["cls_token"] = state["cls_token"] + prefix
    ours.load_state_dict(state)
    return ours.eval()


def timm_vit(**options):
    return encoder("vit_tiny_patch16_224", image_size=28, embed_dim=24, depth=2, num_heads=3, patch_size=4, **options)


def test_it_is_timms_vit() -> None:
    theirs = stirred(timm_vit())
    ours = from_timm(theirs.model, (28, 28), (4, 4))
    x = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.maps(x), theirs.maps(x), atol=1e-5, rtol=1e-5)
        keep = random_keep(4, 49, 0.8)
        for own, other in zip(ours.tokens(x, keep), theirs.tokens(x, keep), strict=True):
            torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.attention(x), theirs.attention(x), atol=1e-6, rtol=1e-5)


def test_timm_tokens_agree_with_timms_own_features() -> None:
    for options in ({}, {"class_token": False, "global_pool": "avg"}, {"reg_tokens": 2}, {"qk_norm": True}):
        model = stirred(timm_vit(**options))
        x = torch.randn(2, 3, 28, 28)
        with torch.no_grad():
            whole, patches = model.tokens(x)
            features = model.model.forward_features(x)
            prefix = model.model.num_prefix_tokens
            assert torch.allclose(patches, features[:, prefix:], atol=1e-6)
            assert (whole is None) == (options.get("class_token") is False)
            if whole is not None:
                assert torch.allclose(whole, features[:, 0], atol=1e-6)
            every = torch.arange(49).repeat(2, 1)
            assert torch.allclose(model.tokens(x, every)[1], patches, atol=1e-5)
            seen: list[torch.Tensor] = []
            attn = model.model.blocks[-1].attn
            attn.fused_attn = False
            handle = attn.attn_drop.register_forward_hook(lambda *args, seen=seen: seen.append(args[2]))
            model(x)
            handle.remove()
            expected = seen[0][:, :, 0, prefix:] if whole is not None else seen[0].mean(2)
            assert torch.allclose(model.attention(x), expected, atol=1e-6)


def test_networks_without_tokens_say_so() -> None:
    network = encoder("resnet10-narrow", image_size=32)
    with pytest.raises(UserError, match="resnet10-narrow: has no tokens"):
        network.tokens(torch.zeros(1, 3, 32, 32))
    with pytest.raises(UserError, match="has no tokens"):
        network.attention(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(("size", "patch"), [((12, 8), (4, 4)), ((4, 8, 8), (2, 4, 4))])
@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("positions", ["sinusoid", "sincos", "learnt"])
def test_hidden_tokens_are_never_seen(size: tuple, patch: tuple, class_token: bool, positions: str) -> None:
    torch.manual_seed(0)
    net = VisionTransformer(size, patch, channels=2, class_token=class_token, positions=positions, **SMALL)
    stirred(net)
    x = torch.randn(3, 2, *size)
    keep = random_keep(3, net.count, 0.5)
    whole, patches = net.tokens(x, keep)
    assert patches.shape == (3, keep.shape[1], 24)
    hidden = torch.ones(3, net.count, dtype=torch.bool).scatter_(1, keep, False)
    other = patchify(x, patch).clone()
    other[hidden] = 99.0
    y = unpatchify(other, patch, size)
    for a, b in zip(net.tokens(y, keep), (whole, patches), strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    order = torch.randperm(keep.shape[1])
    turned = net.tokens(x, keep[:, order])
    assert torch.allclose(turned[1], patches[:, order], atol=1e-5), "positions go with the tokens"
    full = net.tokens(x, torch.arange(net.count).repeat(3, 1))
    assert torch.allclose(full[1], net.tokens(x)[1], atol=1e-5)
    assert torch.allclose(net(x), net.tokens(x)[1].mean(1) if whole is None else net.tokens(x)[0])
    assert net.maps(x).shape == (3, 24, *net.grid)
    assert torch.equal(net.maps(x).flatten(2).transpose(1, 2), net.tokens(x)[1])
    attention = net.attention(x)
    assert attention.shape == (3, 3, net.count)
    sums = attention.sum(2)
    assert (sums < 1).all() if class_token else torch.allclose(sums, torch.ones(3, 3), atol=1e-5)


def test_several_masked_views_at_once_are_each_alone() -> None:
    net = stirred(VisionTransformer((4, 8, 8), (2, 4, 4), **SMALL))
    x = torch.randn(3, 3, 4, 8, 8)
    keeps = [random_keep(3, 8, 0.5) for _ in range(2)]
    together = net.tokens(x, torch.cat(keeps))
    for number, keep in enumerate(keeps):
        alone = net.tokens(x, keep)
        for a, b in zip(together, alone, strict=True):
            assert torch.allclose(a.chunk(2)[number], b, atol=1e-5)


def test_positions_tell_places_apart_and_travel_as_they_should() -> None:
    net = VisionTransformer((8, 8), (4, 4), **SMALL).eval()
    x = torch.randn(1, 3, 8, 8)
    patches = patchify(x, (4, 4))[:, [1, 0, 2, 3]]
    assert not torch.allclose(net(x), net(unpatchify(patches, (4, 4), (8, 8))), atol=1e-4)
    assert "pos_embed" not in net.state_dict()
    assert "pos_embed" in dict(VisionTransformer((8, 8), (4, 4), positions="learnt", **SMALL).named_parameters())


def test_every_parameter_gets_a_gradient_and_a_second_one() -> None:
    net = VisionTransformer((4, 4), (2, 2), channels=1, dim=6, depth=1, heads=2, positions="learnt").double()
    keep = torch.tensor([[0, 3], [1, 2]])
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    (net.tokens(x, keep)[0].square().sum() + net.tokens(x, keep)[1].sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters() if p.numel() > 6)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda y: net.tokens(y, keep)[0], (x,))
    block = Block(4, 2).double()
    h = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(block, (h,))


def test_what_does_not_fit_is_refused() -> None:
    net = VisionTransformer((8, 8), (4, 4), **SMALL)
    x = torch.zeros(2, 3, 8, 8)
    with pytest.raises(UserError, match="3x8x12 for a network built for 3x8x8"):
        net(torch.zeros(2, 3, 8, 12))
    with pytest.raises(UserError, match="keep needs the shape"):
        net.tokens(x, torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(UserError, match="keep needs the shape"):
        net.tokens(x, torch.zeros(2, 4, dtype=torch.bool))
    with pytest.raises(UserError, match="heads"):
        VisionTransformer((8, 8), (4, 4), dim=10, heads=3)
    with pytest.raises(UserError, match="positions=other"):
        VisionTransformer((8, 8), (4, 4), positions="other")


# ---- the decoder -----------------------------------------------------------------------------------------------------
def test_the_decoder_answers_in_raster_order_from_visible_tokens() -> None:
    torch.manual_seed(0)
    decoder = stirred(MaskedDecoder((2, 3), 8, 5, dim=12, depth=2, heads=3))
    keep = torch.tensor([[4, 1], [0, 5]])
    visible = torch.randn(2, 2, 8)
    found = decoder(visible, keep)
    assert found.shape == (2, 6, 5)
    by_hand = decoder.mask_token.expand(2, 6, -1).clone()
    for n in range(2):
        for i, place in enumerate(keep[n]):
            by_hand[n, place] = visible[n, i] @ decoder.embed.weight.T
    h = by_hand + sinusoid_positions(6, 12)
    for block in decoder.blocks:
        h = block(h)
    assert torch.allclose(found, decoder.head(decoder.norm(h)), atol=1e-5)
    turned = decoder(visible[:, [1, 0]], keep[:, [1, 0]])
    assert torch.allclose(turned, found, atol=1e-5), "the order in which visible tokens come doesn't matter"
    assert decoder.embed.bias is None
    with_class = decoder(visible, keep, class_token=torch.randn(2, 8))
    assert with_class.shape == found.shape
    assert not torch.allclose(with_class, found, atol=1e-3)
    with pytest.raises(UserError, match="doesn't fit"):
        decoder(visible, keep[:, :1])


@pytest.mark.parametrize("with_class", [False, True])
def test_the_decoder_s_answers_are_those_of_all_tokens(with_class: bool) -> None:
    """In values and in gradients, in the order that is asked for."""
    torch.manual_seed(0)
    decoder = stirred(MaskedDecoder((2, 3), 8, 5, dim=12, depth=2, heads=3, embed_bias=True)).double()
    keep, answer = torch.tensor([[4, 1], [0, 5]]), torch.tensor([[3, 0, 2, 5], [4, 1, 3, 2]])
    visible = torch.randn(2, 2, 8, dtype=torch.float64, requires_grad=True)
    token = torch.randn(2, 8, dtype=torch.float64) if with_class else None
    some, all_ = decoder(visible, keep, token, answer), decoder(visible, keep, token)
    wanted = torch.stack([all_[n, answer[n]] for n in range(2)])
    torch.testing.assert_close(some, wanted)
    leaves = [visible, *decoder.parameters()]
    grads = [
        torch.autograd.grad(x.sin().sum(), leaves, allow_unused=True, materialize_grads=True) for x in (some, wanted)
    ]
    torch.testing.assert_close(*grads)


@pytest.mark.slow
def test_a_masked_autoencoder_learns_to_fill_in() -> None:
    """Plane waves: what is hidden follows from what is seen. A mean would leave the error at 1."""
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    net = VisionTransformer((16, 16), (4, 4), channels=1, dim=48, depth=2, heads=3, positions="sincos")
    decoder = MaskedDecoder((4, 4), 48, 16, dim=48, depth=1, heads=3, positions="sincos")
    optimizer = torch.optim.AdamW([*net.parameters(), *decoder.parameters()], lr=2e-3)
    for _ in range(200):
        phase = torch.rand(32, 1, 1) * 2 * math.pi
        x = math.sqrt(2) * torch.sin(0.4 * rows + 0.3 * columns + phase)[:, None]
        keep = random_keep(32, 16, 0.5)
        mask = torch.ones(32, 16, dtype=torch.bool).scatter_(1, keep, False)
        loss = (decoder(net.tokens(x, keep)[1], keep) - patchify(x, (4, 4)))[mask].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5


# ---- clips by name ---------------------------------------------------------------------------------------------------
def test_clip_encoders_are_built_by_name_and_again_from_their_spec() -> None:
    first = stirred(clip_encoder("vit-nano-video", channels=1, frames=4, image_size=28, positions="sincos"))
    assert first.grid == (2, 7, 7)
    assert (first.dim, first.tubelet) == (96, 2)
    assert isinstance(build(first.spec), type(first))
    again = build_clip(first.spec)
    again.load_state_dict(first.state_dict())
    x = torch.randn(2, 1, 4, 28, 28)
    with torch.no_grad():
        assert torch.equal(again.eval()(x), first(x))
    assert not isinstance(first, Encoder)


@pytest.mark.parametrize(("name", "millions"), [("vit-small-video", 21), ("vit-base-video", 86)])
def test_sizes_are_timms(name: str, millions: int) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in clip_encoder(name, frames=16, image_size=224).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=1.5)


def test_wrong_clip_encoders_are_refused() -> None:
    with pytest.raises(UserError, match=f"choose {next(iter(CLIP_ENCODERS))}"):
        clip_encoder("vit-huge-video")
    with pytest.raises(UserError, match="frames=5 isn't a multiple of tubelet=2"):
        clip_encoder("vit-nano-video", frames=5)
    with pytest.raises(UserError, match="isn't a multiple of patch=5"):
        clip_encoder("vit-nano-video", patch=5)
    with pytest.raises(UserError, match="1 or more"):
        clip_encoder("vit-nano-video", channels=0)
    with pytest.raises(UserError, match="frames missing"):
        build_clip({"name": "vit-nano-video", "channels": 1, "image_size": 32})
