"""The U-Net of global and local contrast: its sizes, its padding, its heads."""

from __future__ import annotations

import pytest
import torch

from selftaught.errors import UserError
from selftaught.networks import ConvNorm, GlobalHead, LocalHead, UNet


def test_sizes_are_the_papers() -> None:
    net = UNet(1, 4).eval()
    with torch.inference_mode():
        maps = net.encoder(torch.rand(1, 1, 192, 192))
        assert [tuple(m.shape[1:]) for m in maps] == [
            (16, 192, 192), (32, 96, 96), (64, 48, 48), (128, 24, 24), (128, 12, 12), (128, 6, 6),
        ]  # fmt: skip
        assert net.decode(maps, 3).shape == (1, 64, 48, 48)
        assert net.decode(maps, 0) is maps[-1]
        assert [net.width(k) for k in range(6)] == [128, 128, 128, 64, 32, 16]
        assert net(torch.rand(1, 1, 192, 192)).shape == (1, 4, 192, 192)
        assert GlobalHead(128, 6)(maps[-1]).shape == (1, 128)
        head = LocalHead(64)
        assert head(net.decode(maps, 3)).shape == (1, 64, 48, 48)
    assert head.weight is not None
    assert head.weight.shape == (128, 576)
    assert LocalHead(64, out=0).weight is None


def test_parameters_add_up() -> None:
    def conv(into: int, out: int, kernel: int) -> int:
        return into * out * kernel**2 + out + 2 * out  # weights, bias, norm

    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    widths, net = (16, 32, 64, 128, 128, 128), UNet(1, 4)
    encoder = sum(conv(i, o, 3) + conv(o, o, 3) for i, o in zip((1, *widths[:-1]), widths, strict=True))
    assert count(net.encoder) == encoder
    back, into = (128, 128, 64, 32, 16), (128, 128, 128, 64, 32)
    blocks = sum(conv(i, o, 2) + conv(2 * o, o, 3) + conv(o, o, 3) for i, o in zip(into, back, strict=True))
    blocks -= conv(16, 16, 3)  # the last block has one convolution
    assert sum(count(block) for block in net.blocks) == blocks
    assert count(net) == encoder + blocks + 2 * conv(16, 16, 3) + 16 * 4 * 9
    assert count(GlobalHead(128, 6)) == 128 * 36 * 1024 + 1024 * 128
    assert count(LocalHead(64)) == 64 * 64 * 2 + 2 * 64 + 128 * 576


def test_an_even_kernel_sees_one_place_more_behind_it() -> None:
    layer = ConvNorm(1, 1, 2).eval()
    conv = layer[1]
    torch.nn.init.ones_(conv.weight)
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 2, 2] = 1
    assert (layer(x)[0, 0] > 0).nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    norm = layer[2]
    assert (norm.eps, norm.momentum) == (1e-3, 0.01)
    assert not conv.bias.any()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="sides of 4"):
        UNet(1, 2, (4, 4, 4))(torch.rand(1, 1, 10, 10))
    with pytest.raises(UserError, match="1 levels"):
        UNet(1, 2, (4,))
