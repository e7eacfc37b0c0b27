import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from selftaught.errors import UserError
from selftaught.networks.espcn import ESPCN
from selftaught.networks.srcnn import SRCNN
from selftaught.networks.srgan import SRDiscriminator, SRResNet, icnr_
from selftaught.networks.tiling import tiled
from selftaught.networks.upsampling import BicubicUpsample, cubic

TINY = {"blocks": 2, "features": 8}


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_sizes_of_the_paper():
    generator, discriminator = SRResNet(), SRDiscriminator()
    assert parameters(generator) == 1_549_462  # the sheet: about 1.55 M with single slopes and biases
    assert parameters(discriminator) == 23_565_505  # about 23.6 M
    with torch.no_grad():
        assert generator(torch.rand(2, 3, 24, 24)).shape == (2, 3, 96, 96)
        assert discriminator(torch.rand(2, 3, 96, 96)).shape == (2,)


def test_discriminator_layer_by_layer():
    convolutions = [m for m in SRDiscriminator().features if isinstance(m, torch.nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [m.stride[0] for m in convolutions] == [1, 2, 1, 2, 1, 2, 1, 2]
    norms = [m for m in SRDiscriminator().features if isinstance(m, torch.nn.BatchNorm2d)]
    assert [m.num_features for m in norms] == [64, 128, 128, 256, 256, 512, 512]
    assert all(m.negative_slope == 0.2 for m in SRDiscriminator().modules() if isinstance(m, torch.nn.LeakyReLU))


@pytest.mark.parametrize("crop", [16, 40, 48])
def test_discriminator_of_other_crops_and_images_of_other_sizes(crop):
    discriminator = SRDiscriminator(1, width=4, crop=crop)
    assert discriminator(torch.rand(2, 1, crop, crop)).shape == (2,)
    assert discriminator(torch.rand(3, 1, 64, 80)).shape == (3,)


def test_generator_is_the_papers_by_hand():
    torch.manual_seed(0)
    net = SRResNet(**TINY).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    state = net.state_dict()

    def conv(x, name, pad):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=pad)

    def norm(x, name):
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])

    def shuffle(x):
        n, c, h, w = x.shape
        out = x.new_zeros(n, c // 4, 2 * h, 2 * w)
        for channel in range(c // 4):
            for i in range(2):
                for j in range(2):
                    out[:, channel, i::2, j::2] = x[:, 4 * channel + 2 * i + j]
        return out

    low = torch.rand(1, 3, 6, 5)
    first = F.prelu(conv(low, "head.0", 4), state["head.1.weight"])
    x = first
    for k in range(2):
        name = f"body.{k}.body"
        inner = F.prelu(norm(conv(x, f"{name}.0", 1), f"{name}.1"), state[f"{name}.2.weight"])
        x = x + norm(conv(inner, f"{name}.3", 1), f"{name}.4")
    x = first + norm(conv(x, "body.2", 1), "body.3")
    for k in range(2):
        x = F.prelu(shuffle(conv(x, f"upsampling.{k}.0", 1)), state[f"upsampling.{k}.2.weight"])
    with torch.no_grad():
        torch.testing.assert_close(net(low), conv(x, "tail", 4), rtol=1e-4, atol=1e-5)


def test_pixel_shuffle_order_with_an_index_ramp():
    shuffle = next(m for m in SRResNet(**TINY).modules() if isinstance(m, torch.nn.PixelShuffle))
    ramp = torch.arange(8 * 3 * 2).reshape(1, 8, 3, 2)
    out = shuffle(ramp)
    for c in range(2):
        for y in range(6):
            for x in range(4):
                assert out[0, c, y, x] == ramp[0, c * 4 + (y % 2) * 2 + x % 2, y // 2, x // 2]


def test_icnr_starts_as_nearest_neighbour():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 2 * 9, 3, padding=1, bias=False)
    icnr_(conv.weight, 3)
    out = F.pixel_shuffle(conv(torch.rand(1, 3, 4, 5)), 3)
    assert torch.equal(out, out[..., ::3, ::3].repeat_interleave(3, 2).repeat_interleave(3, 3))
    assert out.std() > 0
    net = SRResNet(**TINY, icnr=True)
    weight = net.upsampling[1][0].weight
    assert torch.equal(weight[::4], weight[3::4])


def test_the_laptop_form_starts_as_bicubic():
    low = torch.rand(2, 3, 7, 9)
    net = SRResNet(**TINY, norm="none", upsample_skip=True)
    torch.testing.assert_close((net(low) + 1) / 2, BicubicUpsample(4)(low))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("channels", [1, 5])
def test_scales_and_channels(scale, channels):
    for net in (SRResNet(channels, scale=scale, **TINY), SRCNN(channels, scale=scale), ESPCN(channels, scale=scale)):
        assert net(torch.rand(1, channels, 5, 6)).shape == (1, channels, 5 * scale, 6 * scale)


def test_without_skips_the_input_of_the_blocks_is_not_added():
    net = SRResNet(**TINY, skip=False, norm="none")
    with torch.no_grad():
        net.body[-1].weight.zero_()
        net.body[-1].bias.zero_()
    flat = net.upsampling(torch.zeros(1, 8, 6, 6))
    torch.testing.assert_close(net(torch.rand(1, 3, 6, 6)), net.tail(flat))


def test_slopes_per_channel():
    assert SRResNet(**TINY, slopes="channel").head[1].weight.shape == (8,)
    assert SRResNet(**TINY).head[1].weight.shape == (1,)


# ---- bicubic -------------------------------------------------------------------------------------------------------
def literal_bicubic(row, scale):
    """MATLAB's imresize of one row, enlarging: the kernel's taps at every output pixel, mirrored borders."""
    n = len(row)
    mirrored = [*range(n), *reversed(range(n))]

    def kernel(t):
        t = abs(t)
        if t <= 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0

    out = []
    for k in range(scale * n):
        u = (k + 0.5) / scale - 0.5
        left = int(np.floor(u)) - 1
        out.append(sum(kernel(u - p) * row[mirrored[p % (2 * n)]] for p in range(left, left + 4)))
    return out


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_bicubic_is_matlabs(scale, side):
    x = torch.rand(2, 3, side, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    columns = np.apply_along_axis(literal_bicubic, 2, x.numpy(), scale)
    both = np.apply_along_axis(literal_bicubic, 3, columns, scale)
    np.testing.assert_allclose(BicubicUpsample(scale)(x).numpy(), both, atol=1e-12)


def test_bicubic_is_pillows_away_from_the_border():
    image = np.random.default_rng(0).random((20, 24), dtype=np.float32)
    pillow = np.asarray(Image.fromarray(image).resize((96, 80), Image.Resampling.BICUBIC))
    ours = BicubicUpsample(4)(torch.from_numpy(image)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(ours[8:-8, 8:-8], pillow[8:-8, 8:-8], atol=1e-5)


def test_bicubic_keeps_constants_and_ramps_and_passes_gradients():
    up = BicubicUpsample(4)
    torch.testing.assert_close(up(torch.full((1, 1, 5, 5), 0.3)), torch.full((1, 1, 20, 20), 0.3))
    ramp = torch.arange(12.0)[None, None, None].expand(1, 1, 12, 12)
    expected = (torch.arange(48) + 0.5) / 4 - 0.5
    torch.testing.assert_close(up(ramp)[0, 0, 24, 8:-8], expected[8:-8])
    x = torch.rand(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(up, x)
    assert cubic(torch.tensor([0.0, 1.0, 2.0, 3.0])).tolist() == [1, 0, 0, 0]


# ---- baselines and tiles -------------------------------------------------------------------------------------------
def test_baselines_have_their_papers_sizes():
    assert sum(p.numel() for n, p in SRCNN(1).named_parameters() if "weight" in n) == 8032
    assert sum(p.numel() for n, p in SRCNN(1, kernels=(9, 5, 5)).named_parameters() if "weight" in n) == 57_184
    assert sum(p.numel() for n, p in ESPCN(1, scale=3).named_parameters() if "weight" in n) == 25 * 64 + 9 * 64 * 32 + (
        9 * 32 * 9
    )


@pytest.mark.parametrize(
    "net",
    [
        SRResNet(1, blocks=1, features=4, scale=4),
        SRResNet(1, blocks=2, features=4, scale=2, norm="none", upsample_skip=True),
        SRResNet(1, blocks=0, features=2, scale=8),
        SRCNN(1),
        SRCNN(1, scale=2, kernels=(9, 5, 5)),
        ESPCN(1),
    ],
    ids=["srresnet", "srresnet-2", "srresnet-8", "srcnn", "srcnn-2", "espcn"],
)
def test_receptive_radius_holds_and_tiles_leave_no_seam(net):
    net = net.double().eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.3)
    radius, scale = net.receptive_radius(), net.scale
    side = 2 * radius + 5
    x = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    centre = scale * (side // 2)
    net(x)[0, 0, centre : centre + scale, centre : centre + scale].sum().backward()
    seen = (x.grad[0, 0] != 0).any(1).nonzero().flatten()
    reach = max(side // 2 - int(seen.min()), int(seen.max()) - side // 2)
    assert reach <= radius <= reach + 1
    image = torch.rand(1, 1, side + 3, 2 * radius + 20, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(tiled(net, image, tile=2 * radius + 9, overlap=radius), net(image))


@pytest.mark.parametrize(
    "call",
    [
        lambda: SRResNet(scale=3),
        lambda: SRResNet(scale=1),
        lambda: SRResNet(blocks=-1),
        lambda: SRResNet(0),
        lambda: SRDiscriminator(width=0),
        lambda: SRCNN(kernels=(9, 2, 5)),
        lambda: ESPCN(scale=0),
        lambda: BicubicUpsample(0),
    ],
)
def test_errors(call):
    with pytest.raises(UserError):
        call()
