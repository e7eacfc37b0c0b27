"""Activation checkpointing: the same gradients and statistics from less memory."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import selftaught
from selftaught import UserError, methods
from selftaught.engine.checkpointing import blocks, keep_activations, recompute_activations
from selftaught.run.rehearsing import activation_bytes
from tests.conftest import TINY


def gradients(network: nn.Module, x: Tensor) -> list[Tensor]:
    torch.manual_seed(5)  # of drop path
    network(x).square().mean().backward()
    found = [p.grad for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    return found


@pytest.mark.parametrize("name", ["resnet18", "vit-pico", "cnn-small"])
def test_gradients_and_running_statistics_are_the_same(name: str) -> None:
    torch.manual_seed(0)
    encoder = methods.SimCLR(encoder=name, image_size=32).encoder.train()
    x = torch.randn(4, 3, 32, 32)
    if name == "cnn-small":
        with pytest.raises(UserError, match="no blocks"):
            recompute_activations(encoder)
        return
    plain = copy.deepcopy(encoder)
    expected = gradients(plain, x)
    found = recompute_activations(encoder)
    assert len(found) == len(blocks(plain)) > 1
    twin = copy.deepcopy(encoder)  # a copy computes with its own weights
    for one in (encoder, twin):
        for got, wanted in zip(gradients(one, x), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)
        assert set(one.state_dict()) == set(plain.state_dict())
        for key, value in one.state_dict().items():
            torch.testing.assert_close(value, plain.state_dict()[key], msg=key)
    with torch.no_grad():
        next(twin.parameters()).zero_()
    assert not torch.equal(twin(x), encoder(x))
    keep_activations(found)
    assert all("forward" not in vars(block) for block in found)


def test_less_is_kept() -> None:
    encoder = methods.SimCLR(encoder="vit-pico", image_size=32).encoder
    x = torch.randn(8, 3, 32, 32)
    whole = activation_bytes(lambda: encoder(x).sum())
    recompute_activations(encoder)
    assert activation_bytes(lambda: encoder(x).sum()) < whole / 2


def test_a_run_learns_the_same(tmp_path: Path) -> None:
    options: dict[str, Any] = TINY | {"steps": 3, "precision": "32", "knn_every": 0, "loggers": ["none"]}
    states = [
        selftaught.train("simclr", "digits", out=str(tmp_path / str(on)), recompute=on, **options).encoder.state_dict()
        for on in (False, True)
    ]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-5, msg=name)
