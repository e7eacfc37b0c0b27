"""Shared by all tests: few threads, a cache of their own, tiny runs made once."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from pathlib import Path

import cv2
import numpy as np
import pytest

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What collecting makes stays to the end: looked through for garbage again and again, it took twice the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # what is let go at the exit is let go: libraries report it as a leak otherwise


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SELFTAUGHT_RUN_FOLDER", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


TINY = {
    "encoder": "resnet10-narrow",
    "stem": "standard",
    "image_size": 32,
    "projector": "32-16",
    "steps": 12,
    "batch_size": 32,
    "workers": 0,
    "quiet": True,
    "knn_every": 0,
    "log_every": 2,
}
"""Options of a run that takes a second or two."""


def write_photos(folder: Path, count: int = 40, side: int = 48, classes: int = 2, channels: int = 3) -> Path:
    """A folder of small images whose classes differ in colour and texture; class folders where classes > 1."""
    rng = np.random.default_rng(0)
    for k in range(count):
        label = k % classes
        base = rng.integers(0, 256, (side // 8, side // 8, channels), dtype=np.uint8)
        image = cv2.resize(base, (side, side), interpolation=cv2.INTER_NEAREST if label else cv2.INTER_CUBIC)
        image = image.reshape(side, side, channels)
        place = folder / f"class{label}" if classes > 1 else folder
        place.mkdir(parents=True, exist_ok=True)
        if channels in (1, 3, 4):
            cv2.imwrite(str(place / f"{k:03d}.png"), image)
        else:
            import tifffile

            tifffile.imwrite(place / f"{k:03d}.tif", image, photometric="minisblack", planarconfig="contig")
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory):
    """A finished SimCLR run on the digits."""
    import selftaught

    folder = tmp_path_factory.mktemp("runs") / "simclr"
    return selftaught.train("simclr", "digits", out=str(folder), augment="grey", **TINY)
