"""Pictures of a transformer: attention where the class token looks, one colour for like parts."""

from __future__ import annotations

import pytest
import torch

from selftaught import methods, networks
from selftaught.errors import UserError


def vit(**options) -> networks.Encoder:
    torch.manual_seed(0)
    return networks.encoder("vit-pico", channels=3, image_size=28, **options).eval()


def test_maps_are_the_attention_on_its_grid() -> None:
    network, x = vit(), torch.randn(2, 3, 28, 28)
    maps = networks.attention_maps(network, x)
    assert maps.shape == (2, 2, 28, 28)
    assert maps.min() >= 0
    assert maps.max() <= 1
    weights = network.attention(x).view(2, 2, 7, 7)
    middle = torch.nn.functional.avg_pool2d(maps, 4)
    places = weights.flatten(2).argmax(2)
    inside = middle.flatten(2).gather(2, places[:, :, None])
    assert (inside > 0.8 * middle.flatten(2).amax(2, keepdim=True)).all()


@pytest.mark.parametrize("dynamic", [False, True])
def test_like_parts_have_like_colours(dynamic: bool) -> None:
    network = vit(dynamic_img_size=dynamic)
    torch.nn.init.zeros_(network.model.pos_embed)
    x = torch.full((2, 3, 28, 28), -1.0)
    x[:, :, :, 12:] = 1.0  # two kinds of patches
    x[1] = x[1].flip(2)
    colours = networks.token_colours(network, x)
    assert colours.shape == (2, 3, 28, 28)
    assert 0 <= colours.min() < 0.1
    assert 0.9 < colours.max() <= 1
    bright = x[:, 0] > 0
    parts = [colours.permute(0, 2, 3, 1)[kind][:, 0] for kind in (bright, ~bright)]
    assert all(part.std() < 0.05 for part in parts)
    assert (parts[0].mean() - parts[1].mean()).abs() > 0.5


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_method_around_a_transformer_draws_them_and_one_around_a_resnet_nothing(channels: int) -> None:
    method = methods.Rotation(encoder="vit-pico", image_size=28, channels=channels).eval()
    assert method.draws
    x = torch.randn(3, channels, 28, 28)
    shown = method.pictures(x)
    assert list(shown) == ["image", "attention of the class token", "patch tokens"]
    mean, std = method.pixel_mean.view(-1, 1, 1), method.pixel_std.view(-1, 1, 1)
    for part in list(shown.values())[1:]:
        pixels = part * std + mean
        assert -1e-5 <= pixels.min() <= pixels.max() <= 1 + 1e-5
    plain = methods.Rotation(encoder="cnn-small", image_size=28, channels=channels)
    assert not plain.draws
    assert plain.pictures(x) == {}
    with pytest.raises(UserError, match="no tokens"):
        networks.attention_maps(plain.encoder, x)


@pytest.mark.parametrize("adapter", ["uni", "lora", "vpt"])
def test_an_adapted_transformer_shows_what_it_looks_at_now(adapter: str) -> None:
    torch.manual_seed(0)
    network = networks.Adapted(networks.encoder("vit-pico", channels=1, image_size=28), adapter, rank=4, prompts=2)
    assert networks.has_tokens(network)
    with torch.no_grad():
        for part in network.parts.parameters():
            part.normal_()
    x = torch.randn(3, 1, 28, 28)
    maps, colours = networks.attention_maps(network, x), networks.token_colours(network, x)
    assert (maps.shape[2:], colours.shape) == ((28, 28), (3, 3, 28, 28))
    assert not torch.allclose(maps, networks.attention_maps(network.base, x), atol=1e-3)
    assert not networks.has_tokens(networks.encoder("cnn-small", channels=1, image_size=28))
