"""Heavy-tailed images: decibels, and each image by its own percentiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selftaught.data import Mapped, open_source
from selftaught.data.tones import Decibels, OwnRange
from selftaught.errors import SampleError, UserError


def test_decibels_are_twenty_logarithms_and_zero_is_the_least() -> None:
    found = Decibels()(np.array([[[1.0], [10.0]], [[0.1], [0.0]]]))
    np.testing.assert_allclose(found[..., 0], [[0, 20], [-20, -20]], atol=1e-6)
    for bad in (np.zeros((2, 2, 1)), np.array([[[-1.0], [2.0]]])):
        with pytest.raises(SampleError, match="amplitudes"):
            Decibels()(bad)


def test_own_range_does_not_depend_on_gain_and_offset() -> None:
    image = np.random.default_rng(0).exponential(size=(20, 20, 2)).astype(np.float32)
    found = OwnRange()(image)
    low, high = np.percentile(image[..., 1].astype(np.float64), [1, 99])
    np.testing.assert_array_equal(found[..., 1], np.clip(np.round((image[..., 1] - low) / (high - low) * 255), 0, 255))
    np.testing.assert_array_equal(found, OwnRange()(4 * image + 3))
    with pytest.raises(SampleError, match="alike"):
        OwnRange()(np.ones((4, 4, 1)))


def test_a_folder_of_amplitudes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for k in range(6):
        np.save(tmp_path / f"{k}.npy", (10.0**k * rng.exponential(size=(12, 12, 1))).astype(np.float32))
    plain, toned = (open_source(f"{tmp_path}{end}", split="all", modality="image") for end in ("", "?tones=db,image"))
    assert list(toned.names) == list(plain.names)
    assert toned.read(0).dtype == np.uint8
    spread = [float(toned.read(i).mean()) for i in range(6)]
    assert max(spread) < 1.3 * min(spread)  # a million times brighter, and shown alike
    assert toned.fingerprint() != plain.fingerprint()
    with pytest.raises(UserError, match="it may be db, image"):
        open_source(f"{tmp_path}?tones=log", modality="image")
    with pytest.raises(UserError, match="has series samples"):
        open_source("watch?tones=db")


def _half(volume: np.ndarray) -> np.ndarray:
    return volume[::2]


def test_a_window_is_dicoms_and_leaves_volumes_where_they_lie(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    voxels = np.linspace(-1000, 2000, 60).reshape(5, 4, 3).astype(np.int16)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])[[1, 2, 0, 3]]  # the file's axes run to the head, the right and the front
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "a.nii.gz")
    plain, seen = (open_source(f"{tmp_path}{end}", split="all") for end in ("", "?tones=window:40:400"))
    values, shown = plain.read(0), seen.read(0)
    assert shown.dtype == np.uint8
    for value, tone in zip(values.ravel().tolist(), shown.ravel().tolist(), strict=True):
        wanted = 0 if value <= -160 else 255 if value > 240 else ((value - 40) / 400 + 0.5) * 255
        assert abs(tone - wanted) <= 0.5
    assert len(np.unique(shown)) > 5
    np.testing.assert_array_equal(seen.space(0).affine, plain.space(0).affine)
    assert seen.space(0).read_shape == shown.shape[:3] == (5, 3, 4)
    np.testing.assert_array_equal(seen.spacing, plain.spacing)
    assert Mapped(plain, _half).space(0) is None
    other = open_source(f"{tmp_path}?tones=window:-600.5:1500", split="all")
    assert len({source.fingerprint() for source in (plain, seen, other)}) == 3
    for wrong in ("window:40:0", "window:40", "window:a:400", "window:40:-3"):
        with pytest.raises(UserError, match="window:CENTRE:WIDTH"):
            open_source(f"{tmp_path}?tones={wrong}")
