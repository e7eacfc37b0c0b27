import pytest
import torch
from torch.nn import functional as F

from selftaught.errors import UserError
from selftaught.networks import BlindSpotNetwork, tiled


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return BlindSpotNetwork(3, width=4, modules=1).double().eval()


@pytest.mark.parametrize("shape", [(40, 40), (41, 67), (12, 90), (30, 30), (31, 29), (1, 64)])
@pytest.mark.parametrize("extra", [0, 3])
def test_equals_the_whole_image(net, shape, extra):
    image = torch.randn(2, 3, *shape, dtype=torch.float64)
    with torch.no_grad():
        got = tiled(net, image, tile=24, overlap=net.receptive_radius() + extra)
        torch.testing.assert_close(got, net(image), atol=1e-12, rtol=0)


def test_too_little_context_shows(net):
    image = torch.randn(1, 3, 48, 48, dtype=torch.float64)
    with torch.no_grad():
        got = tiled(net, image, tile=24, overlap=net.receptive_radius() - 2)
        assert (got - net(image)).abs().max() > 1e-6


def test_tiles_have_one_shape_and_bounded_size(net):
    seen = []

    def watched(part):
        seen.append(tuple(part.shape))
        return part

    image = torch.arange(3 * 50 * 77.0).reshape(3, 50, 77)
    assert torch.equal(tiled(watched, image, tile=20, overlap=4), image)
    assert set(seen) == {(1, 3, 20, 20)}


def test_tiles_are_no_larger_than_as_many_need(net):
    seen = []

    def watched(part):
        seen.append(tuple(part.shape[-2:]))
        return net(part)

    image = torch.randn(1, 3, 50, 26, dtype=torch.float64)
    radius = net.receptive_radius()
    with torch.no_grad():
        got = tiled(watched, image, tile=24, overlap=radius, grid=1)
        torch.testing.assert_close(got, net(image), atol=1e-12, rtol=0)
        assert seen == [(24, 18)] * 6
        seen.clear()
        tiled(watched, image[..., :48, :24], tile=24, overlap=radius, grid=8)
    assert set(seen) == {(24, 24)}  # and not 18


def test_larger_outputs_and_other_channels():
    image = torch.randn(1, 3, 21, 34)

    def enlarge(part):
        return F.interpolate(part[:, :1], scale_factor=3, mode="bilinear", align_corners=False)

    torch.testing.assert_close(tiled(enlarge, image, tile=11, overlap=2), enlarge(image))


@pytest.mark.parametrize("options", [{"tile": 8, "overlap": 4}, {"tile": 8, "overlap": -1}])
def test_errors(options):
    with pytest.raises(UserError):
        tiled(lambda part: part, torch.zeros(1, 1, 9, 9), **options)
    with pytest.raises(UserError):
        tiled(lambda part: part, torch.zeros(1, 1, 0, 9), tile=8, overlap=1)
    with pytest.raises(ValueError, match="integer multiple"):
        tiled(lambda part: part[..., 1:], torch.zeros(1, 1, 9, 9), tile=8, overlap=1)


@pytest.mark.parametrize("shape", [(100, 131), (97, 64), (70, 71)])
def test_tiles_of_ragged_sides_pool_where_the_whole_image_does(shape):
    torch.manual_seed(0)
    down, up = (kind(1, 1, 8, 8).double() for kind in (torch.nn.Conv2d, torch.nn.ConvTranspose2d))

    def strided(part):
        height, width = part.shape[-2:]
        return up(down(F.pad(part, (0, -width % 8, 0, -height % 8))))[..., :height, :width]

    image = torch.randn(1, 1, *shape, dtype=torch.float64)
    with torch.no_grad():
        for overlap in (8, 11):
            got = tiled(strided, image, tile=48, overlap=overlap, grid=8)
            torch.testing.assert_close(got, strided(image), atol=1e-12, rtol=0)
