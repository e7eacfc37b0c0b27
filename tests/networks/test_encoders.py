import json

import pytest
import torch

from selftaught import methods, networks
from selftaught.errors import UserError

CASES = [
    {"name": "resnet18", "image_size": 32},
    {"name": "resnet18", "image_size": 64},
    {"name": "resnet10", "image_size": 64},
    {"name": "resnet10", "image_size": 28},
    {"name": "resnet10-narrow", "image_size": 64},
    {"name": "resnet50d", "image_size": 32, "channels": 1},
    {"name": "mobilenetv4_conv_small_050", "image_size": 32},
    {"name": "vit_tiny_patch16_224", "image_size": 32, "depth": 2},
    {"name": "resnet18", "image_size": 32, "drop_path_rate": 0.1, "zero_init_last": False},
]


def _label(case):
    return "-".join(str(value) for value in case.values())


def _randomised(encoder):
    """Every tensor of the state different from its initial value, so that equality proves that it was carried over."""
    generator = torch.Generator().manual_seed(3)
    for tensor in encoder.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.abs() + 0.05 * torch.rand(tensor.shape, generator=generator))
    return encoder.eval()


@pytest.mark.parametrize("case", CASES, ids=_label)
def test_spec_round_trip_and_plain_timm_give_the_same_outputs(case):
    torch.manual_seed(0)
    first = _randomised(networks.encoder(**case))
    side = case["image_size"]
    x = torch.randn(2, case.get("channels", 3), side, side)

    again = networks.build(json.loads(json.dumps(first.spec)))
    again.load_state_dict(first.state_dict())
    assert again.spec == first.spec
    assert torch.equal(first(x), again.eval()(x))

    room: dict = {}
    code = first.spec["timm_code"]
    assert len(code.splitlines()) <= 6
    assert "selftaught" not in code
    exec(code, room)
    plain = room["model"].eval()
    assert list(plain.state_dict()) == list(first.model.state_dict())
    plain.load_state_dict(first.model.state_dict())
    assert torch.equal(first(x), plain(x))


@pytest.mark.parametrize("channels", [1, 3, 4, 13])
@pytest.mark.parametrize("name", ["resnet18", "resnet10-narrow", "vit_tiny_patch16_224"])
def test_any_number_of_channels(name, channels):
    encoder = networks.encoder(name, channels=channels, image_size=32).eval()
    x = torch.randn(2, channels, 32, 32)
    embedding = encoder(x)
    assert embedding.shape == (2, encoder.dim)
    shifted = x.clone()
    shifted[:, -1] += 1  # the last channel is looked at
    assert (encoder(shifted) - embedding).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("name", "side", "map_shape"),
    [
        ("resnet18", 32, (512, 4, 4)),
        ("resnet18", 64, (512, 2, 2)),
        ("resnet10", 28, (512, 4, 4)),
        ("resnet10", 64, (512, 2, 2)),
        ("resnet10-narrow", 64, (256, 2, 2)),
        ("efficientnet_lite0", 32, (1280, 2, 2)),
        ("vit_tiny_patch16_224", 32, (192, 8, 8)),
        ("vit_tiny_patch16_224", 96, (192, 8, 8)),
        ("swin_tiny_patch4_window7_224", 64, (768, 2, 2)),
        ("convnext_atto", 64, (320, 2, 2)),
    ],
)
def test_maps_and_stems_by_image_size(name, side, map_shape):
    encoder = networks.encoder(name, image_size=side).eval()
    with torch.no_grad():
        assert tuple(encoder.maps(torch.randn(1, 3, side, side)).shape) == (1, *map_shape)


def test_maps_of_a_resnet_average_to_the_embedding():
    encoder = _randomised(networks.encoder("resnet10-narrow"))
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder.maps(x).mean((2, 3)), encoder(x))


@pytest.mark.parametrize(
    "name", ["resnet10-narrow", "cnn-small", "alexnet-small", "vit-pico", "swin_tiny_patch4_window7_224"]
)
def test_embedding_and_maps_of_one_pass_are_those_of_two(name: str) -> None:
    options = {"depths": (1, 1, 1, 1), "window_size": 2} if "swin" in name else {}
    encoder = networks.encoder(name, image_size=32, **options).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        embedding, maps = encoder.with_maps(x)
        torch.testing.assert_close(embedding, encoder(x))
        torch.testing.assert_close(maps, encoder.maps(x))
    assert maps.ndim == 4


def test_a_module_that_pools_by_itself_has_no_maps() -> None:
    given = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    encoder = methods.SimCLR(encoder=given, image_size=16, projector="8-4").encoder
    for ask in (encoder.maps, encoder.with_maps):
        with pytest.raises(UserError, match="no feature map"):
            ask(torch.zeros(2, 3, 16, 16))


def test_maps_of_a_transformer_keep_the_place_of_each_patch():
    encoder = networks.encoder("vit_tiny_patch16_224", image_size=32, depth=1).eval()
    model = encoder.model
    tokens = model.forward_features(torch.ones(1, 3, 32, 32))
    maps = encoder.maps(torch.ones(1, 3, 32, 32))
    assert torch.equal(maps[0, :, 2, 5], tokens[0, 1 + 2 * 8 + 5])  # one class token, 8 patches a row


def test_small_stem_of_a_resnet():
    small = networks.encoder("resnet18", image_size=40).model
    assert small.conv1.kernel_size == (3, 3)
    assert small.conv1.stride == (1, 1)
    assert isinstance(small.maxpool, torch.nn.Identity)
    standard = networks.encoder("resnet18", image_size=41)
    assert standard.model.conv1.kernel_size == (7, 7)
    assert standard.spec["stem"] == "standard"
    assert networks.encoder("resnet18", image_size=32, stem="standard").model.conv1.stride == (2, 2)
    assert networks.encoder("resnet18", image_size=224, stem="small").spec["stem"] == "small"
    assert networks.encoder("resnet18").spec["stem"] == "standard"


def test_small_stem_can_keep_the_middle_of_trained_weights():
    from selftaught.networks.stems import small_stem

    model = networks.encoder("resnet18").model
    before = model.conv1.weight.detach().clone()
    small_stem(model, keep_weights=True)
    after = model.conv1.weight.detach()
    torch.testing.assert_close(after / after.norm(), before[:, :, 2:5, 2:5] / before[:, :, 2:5, 2:5].norm())
    torch.testing.assert_close(after.norm(), before.norm())


def test_zero_init_last():
    def last_scales(model):
        return [module.bn2.weight for module in model.modules() if hasattr(module, "bn2")]

    assert all(scale.eq(0).all() for scale in last_scales(networks.encoder("resnet10").model))
    kept = networks.encoder("resnet18", zero_init_last=False)
    assert all(scale.eq(1).all() for scale in last_scales(kept.model))
    assert kept.spec["zero_init_last"] is False


def test_patches_of_transformers_follow_the_image():
    def patch(side, **more):
        spec = networks.encoder("vit_tiny_patch16_224", image_size=side, depth=1, **more).spec
        return spec["kwargs"]["patch_size"]

    assert [patch(side) for side in (28, 32, 64, 96, 112, 224)] == [4, 4, 8, 12, 16, 16]
    assert patch(64, patch_size=16) == 16


def test_patches_that_are_not_as_the_name_says_are_said():
    def changed(side, name="vit_tiny_patch16_224", **more):
        return networks.encoder(name, image_size=side, depth=1, **more).changed

    assert changed(64) == "vit_tiny_patch16_224: patches of 8 pixels in place of 16, which are kept from 112 pixels on"
    assert changed(112) == changed(64, patch_size=16) == changed(64, patch_size=4) == ""
    assert (
        networks.encoder("resnet18", image_size=64).changed == networks.encoder("vit-nano", image_size=32).changed == ""
    )


@pytest.mark.parametrize("name", sorted(networks.own_encoders()))
def test_own_encoders_learn_in_every_parameter(name):
    encoder = networks.encoder(name, zero_init_last=False)
    encoder(torch.randn(4, 3, 64, 64)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "resnet118"}, "did you mean resnet"),
        ({"name": "resnet10-narow"}, "resnet10-narrow"),
        ({"name": "resnet18", "foo": 3}, "foo"),
        ({"name": "resnet10", "foo": 3}, "foo"),
        ({"name": "resnet18", "norm_layer": torch.nn.Identity}, "norm_layer"),
        ({"name": "resnet10", "pretrained": True}, "pretrained"),
        ({"name": "vit_tiny_patch16_224", "image_size": 53}, "image_size=53"),
        ({"name": "vit_tiny_patch16_224", "stem": "small"}, "stem=standard"),
        ({"name": "swin_tiny_patch4_window7_224", "image_size": 4, "window_size": 0}, "swin_tiny"),
        ({"name": "resnet18", "channels": 0}, "channels=0"),
        ({"name": "resnet18", "image_size": 0}, "image_size=0"),
        ({"name": "resnet18", "stem": "tiny"}, "stem=tiny"),
    ],
)
def test_errors_are_one_line_that_names_the_option(options, words):
    with pytest.raises(UserError) as caught:
        networks.encoder(**options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_out_of_reach(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nonexistent")
    with pytest.raises(UserError, match=r"resnet18.*pretrained=False"):
        networks.encoder("resnet18", pretrained=True)


def test_spec_of_something_else():
    with pytest.raises(UserError, match="channels"):
        networks.build({"name": "resnet18", "stem": "small"})


def test_images_too_small_for_the_strides_are_refused() -> None:
    """A stride on a one-pixel map learns nothing, and its bf16 weight gradient is not initialised by oneDNN."""
    with pytest.raises(UserError, match=r"image_size=16 is too small .* use 32 or more, or stem=small"):
        networks.encoder("resnet10-narrow", image_size=16, stem="standard")
    assert networks.encoder("resnet10-narrow", image_size=16, stem="small").spec["stem"] == "small"
    assert networks.encoder("resnet10-narrow", image_size=32, stem="standard").dim == 256
    assert networks.encoder("vit_tiny_patch16_224", image_size=32).dim == 192
