import pytest
import torch

from selftaught.errors import UserError
from selftaught.networks import BlindSpotNetwork, ConditionalMaskedConv


@pytest.fixture
def small():
    torch.manual_seed(0)
    return BlindSpotNetwork(3, width=8, modules=3).double()


def centre_jacobian(net, x, i, j, blind):
    """d out[:, i, j] / d x[:, i, j], every channel pair, by exact reverse mode."""
    jacobian = torch.autograd.functional.jacobian(lambda image: net(image, blind)[0, :, i, j], x)
    return jacobian[:, 0, :, i, j]


def jacobian_support(net, x, i, j, blind):
    jacobian = torch.autograd.functional.jacobian(lambda image: net(image, blind)[0, :, i, j], x)
    return jacobian[:, 0].abs().amax((0, 1)) > 0


def test_parameter_count_at_the_papers_defaults():
    assert sum(p.numel() for p in BlindSpotNetwork().parameters()) == 3_656_131
    # head and tail are all that depends on the image's channels: 128 in, 64 + 1 out each
    assert sum(p.numel() for p in BlindSpotNetwork(13).parameters()) == 3_656_131 + 10 * (128 + 65)


@pytest.mark.parametrize(("i", "j"), [(0, 0), (7, 9), (15, 3)])
def test_masked_output_never_sees_its_own_pixel(small, i, j):
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    assert torch.equal(centre_jacobian(small, x, i, j, blind=True), torch.zeros(3, 3, dtype=torch.float64))
    assert (centre_jacobian(small, x, i, j, blind=False) != 0).all()


def test_masked_output_sees_its_neighbours(small):
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    seen = jacobian_support(small, x, 8, 8, blind=True)
    assert seen[8, 7]
    assert seen[7, 8]
    assert not seen[8, 8]


def test_without_centre_taps_both_modes_agree(small):
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert (small(x, True) - small(x, False)).abs().max() > 1e-6
    with torch.no_grad():
        for branch in small.branches:
            k = branch.masked.kernel_size[0]
            branch.masked.weight[..., k // 2, k // 2] = 0
    assert torch.equal(small(x, True), small(x, False))


def test_centre_tap_learns_in_open_mode_only(small):
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    for blind in (True, False):
        small.zero_grad()
        small(x, blind).square().sum().backward()
        for branch in small.branches:
            k = branch.masked.kernel_size[0]
            gradient = branch.masked.weight.grad[..., k // 2, k // 2]
            assert gradient.eq(0).all() if blind else gradient.abs().max() > 0
            assert branch.masked.weight.grad[..., 0, 0].abs().max() > 0


def test_masking_the_kernel_is_not_zeroing_the_input():
    conv = ConditionalMaskedConv(1, 3).double()
    x = torch.randn(1, 1, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        conv.bias.zero_()
        by_hand = sum(
            conv.weight[0, 0, a, b] * x[0, 0, 1 + a, 1 + b] for a in range(3) for b in range(3) if (a, b) != (1, 1)
        )
        torch.testing.assert_close(conv(x, True)[0, 0, 2, 2], by_hand)
        torch.testing.assert_close(conv(x, False)[0, 0, 2, 2], by_hand + conv.weight[0, 0, 1, 1] * x[0, 0, 2, 2])


def test_dilations_belong_to_the_masks():
    net = BlindSpotNetwork(width=4, modules=2)
    found = [
        (
            branch.masked.kernel_size[0],
            {m.dilation[0] for m in branch.body.modules() if getattr(m, "kernel_size", 0) == (3, 3)},
        )
        for branch in net.branches
    ]
    assert found == [(3, {2}), (5, {3})]
    assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in net.modules())


def test_receptive_radius_is_exact(small):
    assert BlindSpotNetwork(width=1).receptive_radius() == 29
    radius = small.receptive_radius()
    assert radius == 2 + 3 * 3
    side = 2 * radius + 5
    with torch.no_grad():  # all positive: no unit is switched off, so the support is the whole reach
        for parameter in small.parameters():
            parameter.abs_()
    seen = jacobian_support(small, torch.rand(1, 3, side, side, dtype=torch.float64), side // 2, side // 2, blind=False)
    rows = seen.any(1).nonzero().flatten()
    assert (side // 2 - int(rows.min()), int(rows.max()) - side // 2) == (radius, radius)


def test_initial_weights():
    torch.manual_seed(0)
    net = BlindSpotNetwork(3, width=64, modules=2)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert module.bias.eq(0).all()
            std = (2 / module.weight[0].numel()) ** 0.5
            if module.weight.numel() > 4000:
                assert module.weight.std().item() == pytest.approx(std, rel=0.05)
            reach = module.weight.abs().max().item() / std
            assert reach > 2.5 if isinstance(module, ConditionalMaskedConv) else reach < 2.28


@pytest.mark.parametrize("channels", [1, 4])
def test_any_channels(channels):
    net = BlindSpotNetwork(channels, width=4, modules=1)
    x = torch.randn(2, channels, 9, 7)
    assert net(x, True).shape == net(x).shape == x.shape


@pytest.mark.parametrize("bad", [{"channels": 0}, {"width": 0}, {"modules": -1}])
def test_errors(bad):
    with pytest.raises(UserError):
        BlindSpotNetwork(**bad)


@pytest.mark.parametrize("width", [16, 24, 32, 40])
def test_no_part_of_a_bf16_gradient_is_left_uninitialised(width):
    """Uninitialised memory is filled with NaN here, so what a kernel forgets to write is seen."""
    was = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        torch.manual_seed(0)
        network = BlindSpotNetwork(width=width, modules=2)
        x = torch.randn(4, 3, 30, 30).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            y = network(x, blind=True) + network(x)
        y.float().square().mean().backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())
    finally:
        torch.use_deterministic_algorithms(was[0])
        torch.utils.deterministic.fill_uninitialized_memory = was[1]
