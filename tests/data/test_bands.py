"""A fourth channel is transparency where the file says so, and else a band like the others, never laid on white."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from selftaught.data import Concat, open_source
from selftaught.data.decoding import fourth_is_alpha
from selftaught.data.pixels import choose_channels
from selftaught.errors import SampleError

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 20, 4), dtype=np.uint8)
BAND = "a fourth channel that is not marked as transparency"


def write(folder: Path, kind: str, name: str = "a") -> Path:
    """A picture of four channels; what the file says of the fourth is in ``kind``."""
    folder.mkdir(exist_ok=True)
    if kind == "npy":
        np.save(folder / f"{name}.npy", IMAGE)
    elif kind in ("png", "webp"):
        Image.fromarray(IMAGE).save(folder / f"{name}.{kind}", lossless=True)
    else:
        extra = None if kind == "pages" else [kind]
        light = "minisblack" if kind == "pages" else "rgb"
        image = np.moveaxis(IMAGE, 2, 0) if kind == "pages" else IMAGE
        tifffile.imwrite(folder / f"{name}.tif", image, photometric=light, extrasamples=extra)
    return folder


@pytest.mark.parametrize("kind", ["png", "webp", "assocalpha", "unassalpha"])
def test_transparency_is_known_and_laid_on_white(tmp_path: Path, kind: str) -> None:
    folder = write(tmp_path / kind, kind)
    assert fourth_is_alpha(next(folder.iterdir()).read_bytes())
    source = open_source(str(folder), split="all")
    assert (source.channels, source.bands) == (4, False)
    assert open_source(f"{folder}?channels=3", split="all").read(0).shape == (24, 20, 3)


@pytest.mark.parametrize("kind", ["unspecified", "pages", "npy"])
def test_bands_are_not_made_to_colours(tmp_path: Path, kind: str) -> None:
    folder = write(tmp_path / kind, kind)
    source = open_source(str(folder), split="all")
    assert (source.channels, source.bands) == (4, True)
    np.testing.assert_array_equal(source.read(0), IMAGE)
    assert source.subset([0]).bands
    assert Concat([source, source]).bands
    for channels in (1, 3):
        with pytest.raises(SampleError, match=BAND):
            open_source(f"{folder}?channels={channels}", split="all").read(0)


def test_a_band_among_colours_is_left_out_and_not_mixed_in(tmp_path: Path) -> None:
    for k in range(5):
        cv2.imwrite(str(tmp_path / f"{k}.png"), IMAGE[..., :3])
    write(tmp_path, "unspecified", "x")
    write(tmp_path, "assocalpha", "y")
    source = open_source(str(tmp_path), split="all")
    assert source.channels == 3
    with pytest.raises(SampleError, match=BAND):
        source.read(5)
    assert source.read(6).shape[2] == 3


def test_bands_are_most_of_some_files_and_stay() -> None:
    assert choose_channels([4, 4, 4, 3]) == 3  # transparency: all can be shown
    assert choose_channels([4, 4, 4, 3], bands=True) == 4


def test_arrays_never_say_that_they_are_transparent_and_pillow_images_always_do() -> None:
    stack = np.stack([IMAGE] * 3)
    assert open_source(stack, split="all").bands
    with pytest.raises(SampleError, match=BAND):
        open_source(stack, split="all", channels=3).read(0)
    rows = [(torch.from_numpy(IMAGE).movedim(2, 0), 0)] * 3
    assert open_source(rows, split="all").bands
    assert not open_source([(Image.fromarray(IMAGE), 0)] * 3, split="all").bands
