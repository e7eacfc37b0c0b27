"""The small AlexNet: the sheet's layers, sizes, start and a way back to plain torch."""

import json

import pytest
import torch
from torch import nn

from selftaught import networks
from selftaught.errors import UserError


@pytest.mark.parametrize(("side", "flat"), [(32, 192 * 9), (64, 192 * 49), (15, 192)])
def test_layers_and_features_are_the_papers(side, flat):
    encoder = networks.encoder("alexnet-small", channels=4, image_size=side)
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    linear = [m for m in encoder.modules() if isinstance(m, nn.Linear)]
    assert [m.out_channels for m in convolutions] == [96, 192, 384, 384, 192]
    assert [(m.in_features, m.out_features) for m in linear] == [(flat, 4096), (4096, 4096)]
    assert not any(m.bias is not None for m in (*convolutions, *linear))
    assert sum(isinstance(m, nn.MaxPool2d) for m in encoder.modules()) == 3
    for layer in (*convolutions[1:], linear[1]):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    x = torch.randn(3, 4, side, side)
    assert encoder(x).shape == (3, encoder.dim) == (3, 4096)
    assert encoder.maps(x).shape == (3, 192, *[round((flat / 192) ** 0.5)] * 2)
    assert encoder(torch.randn(3, 4, side + 9, side + 9)).shape == (3, 4096)


def test_spec_and_plain_torch_rebuild_it():
    first = networks.encoder("alexnet-small", channels=1, image_size=20).eval()
    x = torch.randn(2, 1, 20, 20)
    again = networks.build(json.loads(json.dumps(first.spec)))
    again.load_state_dict(first.state_dict())
    assert torch.equal(first(x), again.eval()(x))
    room: dict = {}
    exec(first.spec["timm_code"], room)
    plain = room["model"].eval()
    plain.load_state_dict(first.model.state_dict())
    assert torch.equal(first(x), plain(x))
    assert "selftaught" not in first.spec["timm_code"]


def test_what_it_has_not_is_refused():
    for options, said in (
        ({"image_size": 14}, "15 or more"),
        ({"pretrained": True}, "pretrained"),
        ({"drop_rate": 0.1}, "drop_rate"),
    ):
        with pytest.raises(UserError, match=said):
            networks.encoder("alexnet-small", **options)
