"""Segmentation as a protocol of a run: images and masks from folders, a head on patch tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import selftaught
from selftaught import cli
from selftaught.errors import UserError
from selftaught.networks import UPerHead


def write(root: Path, count: int = 24) -> None:
    """Bright squares on dark noise, and where they are."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for i in range(count):
        mask = np.zeros((32, 32), np.uint8)
        y, x = rng.integers(0, 16, 2)
        mask[y : y + 16, x : x + 16] = 1
        image = np.clip(30 + 160 * mask + 10 * rng.normal(size=mask.shape), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(root / "images" / f"{i:02d}.png")
        Image.fromarray(mask).save(root / "masks" / f"{i:02d}.png")


def test_upernet_takes_one_map_or_several_and_gives_the_finest_size() -> None:
    torch.manual_seed(0)
    head = UPerHead(12, 3, channels=8)
    assert head(torch.randn(2, 12, 7, 7)).shape == (2, 3, 28, 28)
    several = UPerHead([4, 6, 8], 5, channels=8)
    maps = [torch.randn(2, width, side, side) for width, side in ((4, 16), (6, 8), (8, 4))]
    assert several(maps).shape == (2, 5, 16, 16)
    several(maps).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in several.parameters())
    far = [m.clone() for m in maps]
    far[2][:, :, 3, 3] += 5  # a corner of the coarsest map is seen everywhere, through the pooled context
    assert (several(far) - several(maps))[:, :, 0, 0].abs().max() > 1e-5
    with pytest.raises(UserError, match="made for 3 maps"):
        several(maps[:2])
    with pytest.raises(UserError, match="each must be 1 or more"):
        UPerHead([], 3)


@pytest.mark.slow
def test_a_run_is_judged_by_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "scenes")
    data = f"pairs:{tmp_path / 'scenes'}?image=images&mask=masks"
    options = {
        "encoder": "vit-micro",
        "image_size": 32,
        "steps": 2,
        "batch_size": 8,
        "quiet": True,
        "loggers": ["none"],
    }
    run = selftaught.train(
        "simclr", str(tmp_path / "scenes/images"), out=str(tmp_path / "run"), preset="laptop", **options
    )
    both = run.evaluate(data, protocols=["segmentation", "segmentation-knn"], head="upernet", baselines=False)
    for name in ("segmentation", "segmentation-knn"):
        assert set(both[name]) == {"this"}
        assert both[name]["this"]["miou"].mean > 0.6
    with pytest.raises(UserError, match="needs image and mask"):
        run.evaluate(str(tmp_path / "scenes/images"), protocols=["segmentation"])
    assert cli.main(["evaluate", str(run.path), "--data", data, "--protocol", "segmentation", "--head", "linear"]) == 0
    told = capsys.readouterr().out
    assert "miou" in told
    assert "untrained" in told or "random" in told
