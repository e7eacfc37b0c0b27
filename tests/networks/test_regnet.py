"""The RegNetY family: the sheet's table, counted by arithmetic and by timm's own networks on the meta device."""

from __future__ import annotations

import pytest
import timm
import torch

from selftaught import networks
from selftaught.errors import UserError
from selftaught.networks import REGNETS

TABLE = {
    "regnety-400mf": ([1, 3, 6, 6], [48, 104, 208, 440], 3.90),
    "regnety-16gf": ([2, 4, 11, 1], [224, 448, 1232, 3024], 80.57),
    "regnety-32gf": ([2, 5, 12, 1], [232, 696, 1392, 3712], 141.33),
    "regnety-128gf": ([2, 7, 17, 1], [528, 1056, 2904, 7392], 637.42),
    "regnety-256gf": ([2, 7, 17, 1], [746, 1492, 4103, 10444], 1272.16),
    "regnety-10b": ([2, 7, 17, 1], [2020, 4040, 11110, 28280], 9323.93),
}
"""Blocks and widths of the stages, millions of parameters without classifier (seer sheet)."""


@pytest.mark.parametrize("name", TABLE)
def test_stages_and_parameters_are_those_of_the_table(name: str) -> None:
    blocks, widths, millions = TABLE[name]
    assert [stage[0] for stage in REGNETS[name].stages] == blocks
    assert [stage[1] for stage in REGNETS[name].stages] == widths
    assert REGNETS[name].dim == widths[-1]
    assert REGNETS[name].parameters() / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("name", REGNETS)
def test_the_networks_on_the_meta_device_agree_with_the_arithmetic(name: str) -> None:
    encoder = networks.regnety(name, channels=4, device="meta")
    assert {p.device.type for p in encoder.parameters()} == {"meta"}
    assert sum(p.numel() for p in encoder.parameters()) == REGNETS[name].parameters(channels=4)
    assert encoder.dim == REGNETS[name].dim
    convolutions = [m for m in encoder.modules() if isinstance(m, torch.nn.Conv2d) and m.groups > 1]
    assert [m.groups for m in convolutions] == [g for n, _, g in REGNETS[name].stages for _ in range(n) if g > 1]
    with torch.device("meta"):
        assert encoder(torch.empty(2, 4, 64, 64)).shape == (2, REGNETS[name].dim)


def test_timm_alone_builds_the_ten_billion_from_the_spec() -> None:
    encoder = networks.regnety("regnety-10b", device="meta")
    space: dict = {}
    with torch.device("meta"):
        exec(encoder.spec["timm_code"], space)
        again = networks.build(encoder.spec)
    shapes = {key: value.shape for key, value in encoder.model.state_dict().items()}
    assert {key: value.shape for key, value in space["model"].state_dict().items()} == shapes
    assert {key: value.shape for key, value in again.model.state_dict().items()} == shapes


def test_a_small_one_computes_and_the_others_keep_their_timm_name() -> None:
    encoder = networks.regnety("regnety-400mf", channels=2, image_size=64)
    assert encoder(torch.randn(2, 2, 64, 64)).shape == (2, 440)
    assert encoder.maps(torch.randn(2, 2, 64, 64)).shape == (2, 440, 2, 2)
    assert networks.timm_name("regnety-32gf") == ("regnety_320", {})
    assert networks.timm_name("resnet18") == ("resnet18", {})
    name, options = networks.timm_name("regnety-10b")
    assert timm.is_model(name)
    assert options["w0"] == 1744


def test_wrong_names_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="choose regnety-400mf"):
        networks.regnety("regnety-1gf")
    with pytest.raises(UserError, match="no pretrained weights"):
        networks.regnety("regnety-10b", pretrained=True)
    with pytest.raises(UserError, match="too small"):
        networks.regnety("regnety-400mf", image_size=16)
