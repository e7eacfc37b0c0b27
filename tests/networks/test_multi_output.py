"""Deblurring networks with several heads: sizes, identities, padding, local averages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from selftaught.errors import UserError
from selftaught.networks.hinet import HINet, SupervisedAttention
from selftaught.networks.mprnet import MPRNet
from selftaught.networks.multi_output import HeadChoice
from selftaught.networks.nafnet import LocalAverage, NAFBlock, NAFNet, PixelNorm
from selftaught.networks.restormer import ChannelAttention, Restormer

SMALL: dict[str, Any] = {
    "nafnet": lambda **o: NAFNet(width=4, encoder=(1, 1), decoder=(1, 1), **o),
    "hinet": lambda **o: HINet(width=4, depth=3, normalised=(1, 2), **o),
    "mprnet": lambda **o: MPRNet(width=4, step=2, extra=2, blocks=1, **o),
    "restormer": lambda **o: Restormer(width=8, blocks=(1, 1, 1, 1), refinement=1, **o),
}


@pytest.mark.parametrize(
    ("width", "heads", "count"), [(32, 1, 17111907), (32, 4, 17114508), (64, 1, 67888835), (64, 4, 67894028)]
)
def test_nafnet_has_the_papers_weights(width: int, heads: int, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in NAFNet(width=width, heads=heads).parameters()) == count


def test_the_other_networks_have_their_authors_weights() -> None:
    with torch.device("meta"):
        for net, count in ((MPRNet(heads=1), 20127127), (Restormer(heads=1), 26126644), (HINet(heads=1), 88668806)):
            assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize("name", SMALL)
def test_any_size_goes_through_and_heads_are_as_said(name: str) -> None:
    x = torch.rand(2, 3, 19, 22)
    stages = {"hinet": 2, "mprnet": 3}.get(name, 1)
    for heads, combine, outputs in ((1, True, 1), (3, False, 3), (3, True, 6)):
        net = SMALL[name](heads=heads, combine=combine).eval()
        with torch.no_grad():
            found = net.stages(x)
            assert [tuple(one.shape) for one in found] == [(2, outputs, 3, 19, 22)] * stages
            torch.testing.assert_close(net(x), found[-1])
            if combine and heads == 3:
                torch.testing.assert_close(found[-1][:, 1], (found[-1][:, 0] + found[-1][:, 2]) / 2)


@pytest.mark.parametrize("name", SMALL)
def test_all_weights_learn(name: str) -> None:
    net = SMALL[name](heads=2)
    for module in net.modules():
        if isinstance(module, NAFBlock):
            nn.init.ones_(module.beta)
            nn.init.ones_(module.gamma)
    x = torch.rand(1, 3, 16, 16)
    sum((one - 0.3).square().sum() for one in net.stages(x)).backward()
    still = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert all(".attention." in n for n in still)  # one hidden channel of ReLU may be off


def test_a_new_block_changes_nothing() -> None:
    x = torch.randn(2, 4, 5, 6)
    assert torch.equal(NAFBlock(4)(x), x)
    norm = PixelNorm(4)(x)
    torch.testing.assert_close(norm.mean(1), torch.zeros(2, 5, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(norm.var(1, correction=0), torch.ones(2, 5, 6), atol=1e-3, rtol=0)


def test_padding_is_cropped_and_leaves_multiples_alone() -> None:
    net = SMALL["nafnet"](heads=2).eval()
    x = torch.rand(1, 3, 13, 14)
    wide = torch.nn.functional.pad(x, (0, 2, 0, 3))
    with torch.no_grad():
        torch.testing.assert_close(net(x), net(wide)[..., :13, :14])


def test_local_averages_are_means_of_windows() -> None:
    x = torch.randn(1, 2, 9, 12)
    pool = LocalAverage(4)
    assert pool(x).shape == (1, 2, 1, 1)
    made = pool.eval()(x)
    assert made.shape == x.shape
    windows = x.unfold(2, 4, 1).unfold(3, 4, 1).mean((4, 5))
    torch.testing.assert_close(made[:, :, 1:7, 1:10], windows)
    torch.testing.assert_close(made[:, :, 0], made[:, :, 1])
    torch.testing.assert_close(made[..., -1], made[..., -3])
    whole = LocalAverage(16).eval()(x)
    torch.testing.assert_close(whole, x.mean((2, 3), keepdim=True))
    net = NAFNet(width=4, encoder=(1, 1), decoder=(1, 1), local=8)
    assert [m.window for m in net.modules() if isinstance(m, LocalAverage)] == [8, 4, 4, 8, 2]  # the middle last


def test_supervised_attention_as_written() -> None:
    net = SupervisedAttention(4, 3, heads=2)
    f, blurred = torch.randn(1, 4, 5, 5), torch.rand(1, 3, 5, 5)
    gated, residuals = net(f, blurred)
    images = torch.cat([blurred, blurred], 1) + net.images(f)
    torch.testing.assert_close(residuals.flatten(1, 2), net.images(f))
    torch.testing.assert_close(gated, net.features(f) * torch.sigmoid(net.gate(images)) + f)


def test_attention_between_channels_as_written() -> None:
    net = ChannelAttention(6, 2)
    x = torch.randn(1, 6, 4, 5)
    q, k, v = net.depthwise(net.qkv(x)).flatten(2).chunk(3, 1)
    parts = []
    for h in range(2):
        a, b, c = (t[0, 3 * h : 3 * h + 3] for t in (q, k, v))
        a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
        parts.append((a @ b.T * net.temperature[h]).softmax(1) @ c)
    torch.testing.assert_close(net(x), net.project(torch.cat(parts).reshape(1, 6, 4, 5)))
    with pytest.raises(UserError, match="heads of attention"):
        ChannelAttention(6, 4)


def test_the_chosen_head_or_the_mean() -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x / 2, x / 4, x * 3], 1)

    x = torch.rand(1, 1, 4, 4)
    torch.testing.assert_close(HeadChoice(Fixed(), 1)(x), x / 4)
    torch.testing.assert_close(HeadChoice(Fixed(), -1)(x), (x * 3.75 / 3).clamp(0, 1))
    nets = NAFNet(3, width=4, encoder=(1,), decoder=(1,), heads=3), Restormer(3, width=8, blocks=(1, 1, 1, 1), heads=3)
    image = torch.rand(1, 3, 13, 18)
    for net in (*nets, NAFNet(3, width=4, encoder=(1,), decoder=(1,), heads=3, combine=False)):
        with torch.no_grad():
            every = net.eval()(image)
            assert (every[:, 1:] - every[:, :-1]).abs().max() > 1e-4
            for number in (0, 2, every.shape[1] - 1):
                torch.testing.assert_close(HeadChoice(net, number)(image), every[:, number].clamp(0, 1))
            torch.testing.assert_close(HeadChoice(net, -1)(image), every.mean(1).clamp(0, 1))
    large = torch.rand(1, 1, 40, 300)
    choice = HeadChoice(Fixed(), 2, context=4)
    torch.testing.assert_close(choice(large, tile=32), choice(large))
