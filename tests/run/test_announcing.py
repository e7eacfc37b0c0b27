"""What a run says before it begins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from selftaught.data import open_source
from selftaught.run.announcing import network_lines, plan_lines
from selftaught.run_settings import Settings
from tests.data.helpers import folder_of


@pytest.mark.parametrize(("data", "pixels"), [("digits?n=8", True), ("sentiment?n=8", False)])
def test_pixels_are_told_of_pictures_alone(data: str, pixels: bool) -> None:
    settings = Settings(steps=3, batch_size=4, device="cpu", precision="32")
    config = SimpleNamespace(image_size=224, learns=True)
    lines = plan_lines("x", open_source(data, split="all"), settings, config, Path("runs/x"))
    assert ("224 pixels" in lines[-2]) == pixels
    assert lines[-2].startswith("the paper's recipe; 3 steps; batches of 4; ")


def test_data_recipe_machine_and_folder_are_said_before_a_run_begins(tmp_path: Path) -> None:
    folder_of(tmp_path / "pics", ["a/1.png", "a/2.png", "b/1.png", "b/2.png", "over.png"])
    (tmp_path / "pics" / "x.gif").write_bytes(b"x")
    settings = Settings(
        preset="laptop",
        epochs=2,
        batch_size=4,
        accumulate=2,
        device="cpu",
        precision="bf16",
        devices=2,
        validation="0.1",
    )
    source = open_source(tmp_path / "pics", split="all")
    config = SimpleNamespace(image_size=32, learns=True)
    lines = plan_lines("dcl", source, settings, config, Path("runs/x"), "the default here")
    assert lines == [
        "dcl on pics/: 5 images, 3 channels, 2 classes, 4 to train + 1 without label, not read: 1 .gif",
        *source.notes,
        "preset laptop (the default here); 2 epochs; batches of 4 x 2; 32 pixels; watching 0.1; cpu, bf16, 2 processes",
        "into runs/x",
    ]
    assert source.notes[0] == "1 file beside the class folders, without label"
    beside = {"volumes": open_source("digits?n=8", split="all")}
    more = plan_lines("x", source, settings, SimpleNamespace(learns=True), Path("runs/x"), beside=beside)
    assert "volumes: digits: 8 images, 1 channel, 10 classes (8 of 1,797)" in more


@pytest.mark.parametrize(
    ("layer", "devices", "said"), [("BatchNorm1d", 2, True), ("BatchNorm1d", 1, False), ("LayerNorm", 2, False)]
)
def test_batchnorm_over_processes_of_a_cpu_is_said_to_be_each_ones_own(layer: str, devices: int, said: bool) -> None:
    network = nn.Sequential(nn.Linear(3, 4), getattr(nn, layer)(4))
    lines = network_lines(network, Settings(steps=3, devices=devices, device="cpu"))
    assert [line.startswith("BatchNorm is not synchronised") for line in lines] == [True] * said
