"""Autoencoders of patches, and pictures of any size through them."""

from __future__ import annotations

import pytest
import torch

from selftaught.errors import UserError
from selftaught.networks.autoencoders import (
    BlockReconstructor,
    ConvAutoencoder,
    FCAutoencoder,
    blocks_of,
    joined_blocks,
)
from selftaught.networks.luma import OnLuma, from_ycbcr, luma, to_ycbcr
from selftaught.networks.srcnn import SRCNN


def test_sizes_of_the_papers_networks() -> None:
    fc = FCAutoencoder()
    widths = [
        layer.out_features for part in (fc.encoder, fc.decoder) for layer in part if hasattr(layer, "out_features")
    ]
    assert widths == [512, 256, 512, 1024]
    assert sum(p.numel() for p in fc.parameters()) == 2 * (1024 * 512 + 512 * 256) + 512 + 256 + 512 + 1024
    conv = ConvAutoencoder(1, 96)
    convolutions = 25 * (1 * 64 + 64 * 128 + 128 * 256)
    cells = 256 * 12 * 12
    biases = (64 + 128 + 256) + 512 + cells + (128 + 64 + 1)
    assert sum(p.numel() for p in conv.parameters()) == 2 * convolutions + 2 * cells * 512 + biases


@pytest.mark.parametrize("kernel", [4, 5])
@pytest.mark.parametrize("variational", [False, True])
def test_a_picture_comes_back_with_its_size(kernel: int, variational: bool) -> None:
    net = ConvAutoencoder(2, 16, widths=(4, 8), kernel=kernel, code=6, variational=variational)
    x = torch.rand(3, 2, 16, 16)
    noise = torch.randn(3, 6)
    made = net(x, noise)
    assert made.image.shape == x.shape
    assert (made.log_variance is None) != variational
    expected = made.mean + (made.log_variance / 2).exp() * noise if variational else made.mean
    torch.testing.assert_close(made.code, expected)
    torch.testing.assert_close(net(x).code, net(x).mean)
    with pytest.raises(UserError, match=r"\(2, 16, 16\)"):
        net(torch.rand(3, 2, 8, 8))


def test_the_decoder_begins_at_the_mean_picture() -> None:
    x = torch.rand(64, 2, 16, 16) * 0.2 + torch.tensor([0.1, 0.6]).view(2, 1, 1)
    for net in (ConvAutoencoder(2, 16, widths=(4, 8), code=6), FCAutoencoder(2, 16, hidden=(8,), code=4)):
        before = (net(x).image - x).square().mean()
        net.centre(x)
        assert (net(x).image.mean((0, 2, 3)) - x.mean((0, 2, 3))).abs().max() < 0.06
        assert (net(x).image - x).square().mean() < 0.5 * before


def test_blocks_and_back() -> None:
    x = torch.rand(2, 3, 21, 17)
    blocks = blocks_of(x, 8)
    assert blocks.shape == (2 * 3 * 3, 3, 8, 8)
    assert torch.equal(blocks[1, :, :, 0], x[0, :, :8, 8])
    assert torch.equal(joined_blocks(blocks, (21, 17)), x)
    net = BlockReconstructor(ConvAutoencoder(3, 8, widths=(4,), code=5))
    with torch.no_grad():
        torch.testing.assert_close(net(x), net(x, tile=8))
        torch.testing.assert_close(net(x)[:, :, :8, 8:16], net.autoencoder(x[:, :, :8, 8:16]).image)


def test_luma_and_colours_come_back() -> None:
    x = torch.rand(2, 3, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(from_ycbcr(to_ycbcr(x)), x)
    grey = x[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(luma(grey), x[:, :1])
    torch.testing.assert_close(to_ycbcr(grey)[:, 1:], torch.zeros_like(x[:, 1:]), atol=1e-6, rtol=0)
    net = OnLuma(SRCNN(1, scale=2))
    out = net(grey.float())
    torch.testing.assert_close(out[:, 0], out[:, 2], atol=1e-5, rtol=0)
    torch.testing.assert_close(out[:, :1], net.network(x[:, :1].float()), atol=1e-5, rtol=0)
