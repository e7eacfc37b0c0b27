"""What a run says before it begins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from selftaught.data import open_source
from selftaught.run.announcing import network_lines, plan_lines
from selftaught.run_settings import Settings


@pytest.mark.parametrize(("data", "pixels"), [("digits?n=8", True), ("sentiment?n=8", False)])
def test_pixels_are_told_of_pictures_alone(data: str, pixels: bool) -> None:
    settings = Settings(steps=3, batch_size=4, device="cpu", precision="32")
    config = SimpleNamespace(image_size=224)
    lines = plan_lines("x", open_source(data, split="all"), settings, config, Path("runs/x"))
    assert ("224 pixels" in lines[-2]) == pixels
    assert lines[-2].startswith("the paper's recipe; 3 steps; batches of 4; ")


@pytest.mark.parametrize(
    ("layer", "devices", "said"), [("BatchNorm1d", 2, True), ("BatchNorm1d", 1, False), ("LayerNorm", 2, False)]
)
def test_batchnorm_over_processes_of_a_cpu_is_said_to_be_each_ones_own(layer: str, devices: int, said: bool) -> None:
    network = nn.Sequential(nn.Linear(3, 4), getattr(nn, layer)(4))
    lines = network_lines(network, Settings(steps=3, devices=devices, device="cpu"))
    assert [line.startswith("BatchNorm is not synchronised") for line in lines] == [True] * said
