"""The CIFAR ResNets: layers and weights as counted in the literature, shortcuts without weights, their start."""

import pytest
import torch

from selftaught import networks
from selftaught.errors import UserError


def test_depth_and_parameters_are_those_of_the_paper():
    for name, millions in (("cresnet20", 0.27), ("cresnet32", 0.46), ("cresnet56", 0.85)):
        network = networks.CIFARResNet(name)
        convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
        assert len(convolutions) + 1 == int(name[7:])  # and the classifier
        assert all(c.kernel_size == (3, 3) for c in convolutions)
        count = sum(p.numel() for p in network.parameters()) + 64 * 10 + 10
        assert count / 1e6 == pytest.approx(millions, abs=0.01)


def test_shapes_channels_and_pooling():
    network = networks.CIFARResNet("cresnet20", channels=4).eval()
    x = torch.randn(2, 4, 32, 32)
    maps = network.maps(x)
    assert maps.shape == (2, 64, 8, 8)
    torch.testing.assert_close(network(x), maps.mean((2, 3)))
    assert network.spec == {"name": "cresnet20", "channels": 4}


def test_the_shortcut_takes_every_second_pixel_and_zeros():
    block = networks.CIFARResNet("cresnet20").stages[3].eval()
    torch.nn.init.zeros_(block.bn2.weight)  # nothing but the shortcut is left
    x = torch.rand(1, 16, 6, 6)
    y = block(x)
    assert torch.equal(y[:, :16], x[:, :, ::2, ::2])
    assert not y[:, 16:].any()


def test_convolutions_start_with_the_named_spread():
    torch.manual_seed(0)
    weight = networks.CIFARResNet().stages[-1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.03)
    with pytest.raises(UserError, match="cresnet20, cresnet32"):
        networks.CIFARResNet("cresnet33")
