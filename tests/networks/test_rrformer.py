"""Networks of reflection removal: counts, folding, windows, gradients, tiles."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught import networks
from selftaught.errors import UserError
from selftaught.networks.swin_restoration import join_windows, part_windows, shift_mask

G = torch.Generator().manual_seed(0)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_counts_of_the_sheet() -> None:
    with torch.device("meta"):
        whole = networks.RRFormer()
        errnet = networks.RRFormer(sfem="resblocks", dim=256)
        judge = networks.ReflectionDiscriminator()
    layer = 2 * 480 + 240 * 720 + 720 + 240 * 240 + 240 + 225 * 6 + 240 * 480 + 480 + 480 * 240 + 240
    body = 5 * (6 * layer + 9 * 240 * 240 + 240) + 9 * 240 * 240 + 240 + 2 * 480
    ends = 1475 * 256 + 256 + 9 * 256 * 256 + 256 + 16 * 240 * 256 + 256 + 9 * 256 * 256 + 256 + 9 * 256 * 240 + 240
    ends += 4 * 256 * 64 + 512 * 256 + 256 + 256 * 3 + 3
    assert count(whole.body) == body
    assert count(whole) == body + ends == 20_348_647
    block = 2 * (9 * 256 * 256 + 256) + 2 * 256 * 32 + 256 + 32
    assert count(errnet.body) == 13 * block
    assert count(judge) == 9_937_089
    assert whole.embedding.in_channels == 3 + 1472


def test_a_folded_embedding_is_the_convolution_of_the_hypercolumn() -> None:
    image = torch.rand(2, 3, 32, 40, generator=G)
    levels = [torch.rand(2, width, 32 >> k, 40 >> k, generator=G) for k, width in enumerate((4, 6, 8))]
    embedding = networks.FoldedEmbedding(3, (4, 6, 8), 5)
    joined = networks.hypercolumn(image, levels)
    assert joined.shape == (2, 21, 32, 40)
    torch.testing.assert_close(
        embedding(image, levels), F.conv2d(joined, embedding.weight, embedding.bias), atol=1e-5, rtol=0
    )
    with pytest.raises(UserError, match="reads"):
        embedding(image, levels[:2])


def test_hypercolumns_see_the_image_as_it_is_without_a_gradient() -> None:
    columns = networks.Hypercolumn(2, weights="random")
    image = torch.rand(1, 3, 16, 16, generator=G, requires_grad=True)
    first, second = columns(image)
    convolution = columns.features.module.layers[0]
    torch.testing.assert_close(first, F.conv2d(image, convolution.weight, convolution.bias, padding=1).relu().detach())
    assert second.shape == (1, 128, 8, 8)
    assert not second.requires_grad
    assert columns(image[:, :1])[0].shape == first.shape
    state = columns.state_dict()
    assert list(state) == ["code"]
    with pytest.raises(UserError, match="other weights"):
        columns.load_state_dict({"code": state["code"] + 1})


def test_windows_and_the_mask_of_shifted_ones() -> None:
    x = torch.rand(2, 16, 24, 3, generator=G)
    torch.testing.assert_close(join_windows(part_windows(x, 8), 8, 16, 24), x)
    mask = shift_mask(16, 24, 8, 4)
    assert mask.shape == (6, 64, 64)
    assert not mask[0].any()  # inner windows are whole
    assert mask[-1].any()
    # a pixel near the far border never sees those that came round from the near one
    layer = networks.SwinLayer(8, 2, window=8, shift=4).eval()
    a = torch.rand(1, 16, 16, 8, generator=G)
    b = a.clone()
    b[:, :4] = torch.rand(1, 4, 16, 8, generator=G)
    assert torch.equal(layer(a)[:, 4:], layer(b)[:, 4:])
    assert not torch.equal(layer(a)[:, :4], layer(b)[:, :4])


def test_attention_by_hand() -> None:
    attention = networks.WindowAttention(8, 2, 2).double()
    x = torch.rand(3, 4, 8, dtype=torch.float64, generator=G)
    q, k, v = attention.qkv(x).chunk(3, -1)
    found = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        bias = torch.empty(4, 4, dtype=torch.float64)
        for i in range(4):
            for j in range(4):
                dy, dx = i // 2 - j // 2 + 1, i % 2 - j % 2 + 1
                bias[i, j] = attention.bias[3 * dy + dx, head]
        weights = (q[..., part] @ k[..., part].transpose(1, 2) / 2 + bias).softmax(-1)
        found.append(weights @ v[..., part])
    torch.testing.assert_close(attention(x), attention.proj(torch.cat(found, -1)))


def tiny(sfem: str, final: str = "relu") -> networks.RRFormer:
    torch.manual_seed(0)
    sizes = {"width": 8, "dim": 8, "blocks": 1, "depth": 2, "heads": 2, "window": 4, "resblocks": 2}
    return networks.RRFormer(3, levels=(), sfem=sfem, final=final, **sizes).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("sfem", ["swin", "resblocks"])
def test_all_parameters_of_the_body_learn(sfem: str) -> None:
    net = tiny(sfem, "none")
    net(torch.rand(2, 3, 32, 32, generator=G)).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        if ".attention." not in name or sfem == "swin":  # a hidden layer of one ReLU may rest
            assert parameter.grad.abs().max() > 0, name


def test_ends_sizes_and_the_released_form() -> None:
    image = torch.rand(1, 3, 33, 46, generator=G)
    for sfem in ("swin", "identity", "resblocks"):
        assert tiny(sfem)(image).shape == image.shape
        assert tiny(sfem)(image).min() >= 0
    assert torch.equal(tiny("swin", "residual")(image), image)
    assert count(tiny("identity").body) == 0
    pooling = networks.PyramidPooling(8)
    assert pooling(torch.rand(1, 8, 20, 70, generator=G)).shape == (1, 8, 20, 70)
    with pytest.raises(UserError, match="too small"):
        networks.SwinBody(8, blocks=1, depth=1, heads=2)(torch.rand(1, 8, 3, 9))


def test_tiles_agree_with_the_whole_image() -> None:
    image = torch.rand(1, 3, 150, 300, generator=G)
    columns = networks.Hypercolumn(1, weights="random")
    torch.manual_seed(0)
    net = networks.RRFormer(3, levels=columns.widths, sfem="identity", width=6, dim=6, final="none")
    remover = networks.ReflectionRemover(net, columns, overlap=64)
    with torch.inference_mode():
        whole = remover(image)
        torch.testing.assert_close(remover(image, tile=256), whole, atol=1e-5, rtol=0)
        swin = networks.ReflectionRemover(tiny("swin", "none"), overlap=64)
        assert (swin(image, tile=256) - swin(image)).abs().max() < 1 / 255
    assert whole.shape == image.shape
    assert networks.ReflectionRemover(tiny("swin"))(image[:, :, :5, :9]).shape == (1, 3, 5, 9)


def test_the_discriminator_and_ibcln() -> None:
    judge = networks.ReflectionDiscriminator(3, width=4)
    assert judge(torch.rand(2, 3, 40, 64, generator=G)).shape == (2,)
    net = networks.IBCLN(3, width=2)
    image = torch.rand(2, 3, 16, 24, generator=G)
    made = net.eval().layers(image)
    assert len(made.transmissions) == len(made.reflections) == 3
    assert (made.half.shape[2:], made.quarter.shape[2:]) == ((8, 12), (4, 6))
    assert torch.equal(net(image), made.transmissions[-1])
    memory: tuple[Tensor, Tensor] | None = None
    first, memory = net.transmission(torch.cat([image] * 3, 1), memory)
    again, _ = net.transmission(torch.cat([image] * 3, 1), memory)
    assert not torch.equal(first[2], again[2])
