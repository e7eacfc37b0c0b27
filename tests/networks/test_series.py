import json

import pytest
import torch

from selftaught import networks
from selftaught.errors import UserError

LENGTHS = [200, 128, 100, 480, 1000]


def count(module):
    return sum(p.numel() for p in module.parameters())


def inputs(name, n, channels, length):
    if name == "fourier":
        return (torch.randn(n, channels, length // 2 + 1), torch.randn(n, channels, length // 2 + 1))
    return (torch.randn(n, 48, length, channels),) if name == "wavelet" else (torch.randn(n, channels, length),)


def test_parameter_counts():
    # conv biases included; 206 k in the sheet is with the BatchNorm that the first block of the original never uses
    widths = [(32, 32)] * 4 + [(32, 64)] + [(64, 64)] * 3
    blocks = sum((5 * i + 1) * o + (5 * o + 1) * o + 2 * i + 2 * o for i, o in widths) - 2 * 32
    assert count(networks.series_encoder(length=200)) == 6 * 32 + 64 + blocks + 128 + 65 * 128 == 205_440
    branch = (3 + 1) * 16 + (3 * 16 + 1) * 32 + (3 * 32 + 1) * 32 + (3 * 32 + 1) * 64 + (3 * 64 + 1) * 64
    assert count(networks.series_encoder("fourier", length=200)) == 2 * (branch + 27) == 46_646
    planes = [(1, 32), (32, 64), (65, 96), (97, 128)]
    blocks = sum((25 * i + 1) * o + 2 * o for i, o in planes)
    assert count(networks.series_encoder("wavelet", length=200)) == blocks + 26 + 7 == 519_393


@pytest.mark.parametrize(("length", "remaining"), zip(LENGTHS, [26, 17, 13, 61, 126], strict=True))
def test_fourier_remaining_length(length, remaining):
    encoder = networks.series_encoder("fourier", length=length)
    assert encoder.magnitude[-1].in_features == encoder.angle[-1].in_features == remaining


@pytest.mark.parametrize(("length", "remaining"), zip(LENGTHS, [25, 16, 13, 60, 125], strict=True))
def test_wavelet_remaining_length(length, remaining):
    encoder = networks.series_encoder("wavelet", length=length)
    assert (encoder.over_time.in_features, encoder.over_scales.in_features) == (remaining, 6)


@pytest.mark.parametrize("name", ["resnet1d", "fourier", "wavelet"])
@pytest.mark.parametrize(("channels", "length"), [(1, 200), (6, 101), (9, 37), (2, 2)])
def test_any_channels_and_length_and_every_parameter_learns(name, channels, length):
    encoder = networks.series_encoder(name, channels=channels, length=length)
    out = encoder(*inputs(name, 4, channels, length))
    assert out.shape == (4, encoder.dim) == (4, 128)
    out.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize("name", ["resnet1d", "fourier", "wavelet"])
def test_spec_round_trip(name):
    first = networks.series_encoder(name, channels=3, length=64, dim=64).eval()
    again = networks.build(json.loads(json.dumps(first.spec))).eval()
    again.load_state_dict(first.state_dict())
    x = inputs(name, 2, 3, 64)
    assert torch.equal(first(*x), again(*x))


def test_strides_of_the_time_encoder():
    encoder = networks.series_encoder(length=200).eval()
    x, seen = encoder.stem(torch.randn(1, 1, 200)), []
    for block in encoder.blocks:
        x = block(x)
        seen.append(tuple(x.shape[1:]))
    assert seen == [(32, 200), (32, 100), (32, 100), (32, 50), (64, 50), (64, 25), (64, 25), (64, 13)]
    assert sum(isinstance(m, torch.nn.Dropout) and m.p == 0.5 for m in encoder.modules()) == 15


def test_block_is_its_shortcut_when_the_convolutions_are_silent():
    from selftaught.networks.series import SeriesBlock

    block = SeriesBlock(2, 4, kernel_size=3, stride=2, norm=False)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
    x = torch.tensor([[[-1.0, -2, 3, 4, -5], [1, 2, 3, 4, 5]]])
    want = torch.tensor([[[0.0, 0, 0], [-1, 4, -5], [2, 4, 5], [0, 0, 0]]])
    assert torch.equal(block(x), want)


def test_magnitude_and_angle_stay_apart():
    encoder = networks.series_encoder("fourier", length=50).eval()
    magnitude, angle = inputs("fourier", 2, 1, 50)
    whole, changed = encoder(magnitude, angle), encoder(magnitude, angle + 1)
    assert torch.equal(whole[:, :64], changed[:, :64])
    assert (whole[:, 64:] - changed[:, 64:]).abs().max() > 1e-6


def test_conv_mapping():
    assert (count(networks.ConvMapping(64)), count(networks.ConvMapping(1))) == (449, 8)
    phi = networks.ConvMapping(1)
    with torch.no_grad():
        for parameter in phi.parameters():
            parameter.zero_()
        phi.down.weight[0, 0, 1] = 1  # takes every second sample, from the first
        phi.up.weight[0, 0, 1] = 2
        phi.up.bias[0] = 10
    x = torch.tensor([[1.0, 5, -3, 5, 4, 5]])
    assert torch.equal(phi(x), torch.tensor([[12.0, 10, 10, 10, 18, 10]]))
    with pytest.raises(ValueError, match="odd"):
        phi(torch.zeros(1, 5))


def test_a_mapper_of_one_channel_never_begins_dead():
    """In 60 draws eight or nine would be: no gradient, and one constant in place of features."""
    for seed in range(60):
        torch.manual_seed(seed)
        phi = networks.ConvMapping(1)
        phi(0.2 * torch.randn(16, 32)).square().sum().backward()
        assert phi.down.weight.grad.abs().max() > 0, seed


@pytest.mark.parametrize("kind", ["conv", "linear", "mlp"])
def test_mappers(kind):
    assert networks.mapper(kind, 32, hidden=8)(torch.randn(5, 32)).shape == (5, 32)


def test_errors():
    for bad in ({"name": "lstm"}, {"channels": 0}, {"length": 1}, {"depth": 3}, {"name": "fourier", "dim": 30}):
        with pytest.raises(UserError):
            networks.series_encoder(**bad)
    with pytest.raises(UserError, match="conv, linear or mlp"):
        networks.mapper("tree")
    with pytest.raises(ValueError, match="built for 48"):
        networks.series_encoder("wavelet", length=20)(torch.zeros(1, 40, 20, 1))
    with pytest.raises(ValueError, match="frequencies"):
        networks.series_encoder("fourier", length=20)(torch.zeros(1, 1, 20), torch.zeros(1, 1, 20))
