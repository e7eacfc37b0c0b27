"""Kinds of output: found by file, and a kind of one's own is one new file."""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from selftaught import UserError, methods
from selftaught.data import open_source
from selftaught.run import outputs
from selftaught.run.applying import Job
from selftaught.run.outputs import _folder
from selftaught.run.outputs._pictures import write_image

WEIGHT = '''
"""A weight per sample."""

from typing import Any

from selftaught.run.applying import Applied, Job
from selftaught.run.outputs import _table
from selftaught.run.outputs._base import Output

__all__ = ["WeightsPerSample"]


class WeightsPerSample(Output):
    """How much each sample counts."""

    def apply(self, job: Job) -> Applied:
        """Column ``weight``."""
        return _table.write(job, lambda batch: {"weight": job.method.predict(batch).mean(1)}, main="weight")
'''


class Mean(methods.SimCLR):
    """Embeds an image by its mean."""

    def predict(self, batch: dict) -> torch.Tensor:
        return batch["views"][0].mean((2, 3))


SMALL = {"encoder": "resnet10-narrow", "image_size": 16, "projector": "8-4"}


def test_every_kind_that_a_method_names_has_a_file() -> None:
    assert {"embedding", "classes", "image"} <= set(outputs.kinds())
    for slug in methods.built():
        assert isinstance(outputs.of(methods.get(slug).output), outputs.Output)
    with pytest.raises(UserError, match="no kind of output 'smell'; there are classes, "):
        outputs.of("smell")


def test_a_new_kind_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    (tmp_path / "weights_per_sample.py").write_text(WEIGHT)
    monkeypatch.setattr(outputs, "__path__", [*outputs.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    images = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    method = Mean(**SMALL).eval()
    method.output = "weights per sample"
    source = open_source(images, split="all")
    try:
        kind = outputs.of("weights per sample")
        assert "weights per sample" in outputs.kinds()
        assert kind.apply(Job(method, source, tmp_path / "w.parquet", workers=0)) == 9
        assert kind.apply(Job(method, source, tmp_path / "w.npy", workers=0)) == 9
    finally:
        outputs.of.cache_clear()
        sys.modules.pop("selftaught.run.outputs.weights_per_sample", None)
    found = pq.read_table(tmp_path / "w.parquet").to_pydict()
    expected = [(image.transpose(2, 0, 1) / 255 - 0.5) / 0.25 for image in images]
    np.testing.assert_allclose(found["weight"], [e.mean() for e in expected], rtol=2e-2, atol=1e-2)
    np.testing.assert_allclose(np.load(tmp_path / "w.npy"), found["weight"])


class Enlarger(nn.Module):
    """Every pixel four times a side, each the mean of its 5 x 5 neighbourhood: what a tile's edge would show."""

    scale, receptive_radius = 4, 2

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(max(x.shape[-2:]))
        blurred = nn.functional.avg_pool2d(x, 5, 1, 2)
        return blurred.repeat_interleave(4, 2).repeat_interleave(4, 3)


class Enlarge(methods.SimCLR):
    """A method that delivers four times the pixels."""

    output, pixels = "image", "float32"

    def build(self) -> None:
        self.network = Enlarger()

    def deliverable(self) -> nn.Module:
        return self.network


def test_an_enlarged_picture_is_the_same_in_tiles() -> None:
    method = Enlarge(**SMALL).eval()
    image = np.random.default_rng(0).random((50, 71, 3), dtype=np.float32)
    whole = outputs.of("image") and _restore(method, image, 0)
    assert method.network.seen == [71]
    tiled = _restore(method, image, 16)
    assert whole.shape == tiled.shape == (200, 284, 3)
    assert max(method.network.seen[1:]) == 16
    np.testing.assert_allclose(tiled, whole, atol=1e-6)


def _restore(method: methods.SimCLR, image: np.ndarray, tile: int) -> np.ndarray:
    from selftaught.run.outputs.image import restore

    return restore(method, image, tile)


def test_enlarged_pictures_are_written_under_their_names(tmp_path: Path) -> None:
    import cv2

    for name in ("a/1.png", "b/2.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / name), np.full((6, 5, 3), 77, np.uint8))
    method = Enlarge(**SMALL).eval()
    source = open_source(str(tmp_path / "in"), split="all")
    assert outputs.of("image").apply(Job(method, source, tmp_path / "out")) == 2
    for name in ("a/1.png", "b/2.png"):
        assert cv2.imread(str(tmp_path / "out" / name)).shape == (24, 20, 3)


def test_every_file_lies_inside_the_folder_and_no_two_meet() -> None:
    names = ["x/../a.png", "y/../a.png", "/etc/a.png", "../../a.png", "n" * 300 + ".jpg", "bare", "work.json", ".."]
    found = _folder.places(names, lambda own: own or ".png")
    assert len(set(found)) == len(names)
    for path in found:
        assert not path.is_absolute()
        assert ".." not in path.parts
        assert len(path.name.encode()) <= 255
    assert [str(p) for p in found[:3]] == ["x/a.png", "y/a.png", "etc/a.png"]
    assert found[4].suffix == ".jpg"
    assert str(found[5]) == "bare.png"
    assert str(found[6]) != "work.json"


@pytest.mark.parametrize(
    ("name", "dtype", "channels", "written"),
    [
        ("a.png", np.uint16, 3, "a.png"),
        ("a.jpg", np.uint16, 3, "a.jpg.tif"),
        ("a.png", np.float32, 1, "a.png.tif"),
        ("a.tif", np.float32, 5, "a.tif"),
        ("a.npy", np.uint16, 5, "a.npy"),
        ("a.bmp", np.uint8, 1, "a.bmp"),
        ("a.webp", np.uint8, 3, "a.webp"),
        ("a.jpg", np.uint8, 5, "a.jpg.tif"),
    ],
)
def test_no_picture_loses_depth_or_channels_to_its_suffix(tmp_path: Path, name, dtype, channels, written) -> None:
    image = np.random.default_rng(0).integers(0, 250, (40, 50, channels)).astype(dtype)
    image = image * 200 if dtype == np.uint16 else image
    write_image(tmp_path / name, image)
    assert [p.name for p in tmp_path.iterdir()] == [written]
    if written.endswith(".npy"):
        np.testing.assert_array_equal(np.load(tmp_path / written), image)
        return
    source = open_source(str(tmp_path / written), split="all")
    found = source.read(0)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, image)


def test_lists_are_real_csv_with_the_names_on_disk(tmp_path: Path) -> None:
    from selftaught.run.applying import write_csv

    names = ['say "hi", you.png', "Ärger/ü.png", "two\nlines.png", "caf\udce9.png", "=1+1.png"]
    write_csv(tmp_path / "n.csv", ("name",), [(name,) for name in names])
    with (tmp_path / "n.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = [row[0] for row in csv.reader(file)]
    assert rows == ["name", *names[:4], "'=1+1.png"]
    assert (tmp_path / "n.csv").read_bytes().count(b"caf\xe9") == 1
    write_csv(tmp_path / "m.csv", ("cosine", "note"), [("-0.25", "-"), ("+1e-3", "-1+1")])
    assert (tmp_path / "m.csv").read_text() == "cosine,note\n-0.25,'-\n+1e-3,'-1+1\n"
