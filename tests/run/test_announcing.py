"""What a run says before it begins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from selftaught.data import open_source
from selftaught.run.announcing import plan_lines
from selftaught.run_settings import Settings


@pytest.mark.parametrize(("data", "pixels"), [("digits?n=8", True), ("sentiment?n=8", False)])
def test_pixels_are_told_of_pictures_alone(data: str, pixels: bool) -> None:
    settings = Settings(steps=3, batch_size=4, device="cpu", precision="32")
    config = SimpleNamespace(image_size=224)
    lines = plan_lines("x", open_source(data, split="all"), settings, config, Path("runs/x"))
    assert ("224 pixels" in lines[-2]) == pixels
    assert lines[-2].startswith("the paper's recipe; 3 steps; batches of 4; ")
