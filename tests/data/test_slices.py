"""Volumes as slices: partitions, who is annotated, preparation and its way back, the volume's own space."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest

from selftaught.data import open_source
from selftaught.data.embedded import list_embedded
from selftaught.data.slices import Preparation, Slices, label_values, partition_of, volume_sets
from selftaught.data.space import nifti_bytes, plain_space
from selftaught.errors import SampleError, UserError


def test_partitions_are_equal_runs_and_drop_the_rest() -> None:
    assert partition_of(11, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, -1, -1, -1]
    assert partition_of(4, 4).tolist() == [0, 1, 2, 3]
    with pytest.raises(UserError, match="3 slices can't be cut in 4"):
        partition_of(3, 4)


def test_who_is_annotated_is_a_draw_of_its_own() -> None:
    for which in range(1, 6):
        few, held = volume_sets(12, 2, 3, which)
        assert len(few) == 2
        assert len(held) == 3
        assert not set(few) & set(held)
    assert len({tuple(volume_sets(12, 2, 0, w)[0].tolist()) for w in range(1, 6)}) > 1
    assert [len(v) for v in volume_sets(3, 0, 2)] == [1, 2]
    assert [len(v) for v in volume_sets(3, 2, 2)] == [2, 1]
    with pytest.raises(UserError, match="labels=4: there are 3"):
        volume_sets(3, 4, 0)


def test_intensities_are_percentiles_and_are_not_clipped() -> None:
    volume = np.random.default_rng(0).normal(100, 20, (5, 16, 16, 2)) * [1, 3]
    found = Preparation(16).slices(volume.astype(np.float32))
    low, high = np.percentile(volume, 1, axis=(0, 1, 2)), np.percentile(volume, 99, axis=(0, 1, 2))
    np.testing.assert_allclose(found, (volume - low) / (high - low), atol=1e-4)
    assert found.max() > 1 > 0 > found.min()
    with pytest.raises(SampleError, match="alike"):
        Preparation(16).slices(np.ones((3, 8, 8, 1), np.uint8))


@pytest.mark.parametrize(
    ("shape", "spacing", "preparation"),
    [
        ((6, 40, 30), None, Preparation(32)),
        ((6, 40, 30), [4.0, 1.0, 1.5], Preparation(32)),
        ((40, 6, 30), [1.0, 5.0, 1.0], Preparation(32)),
        ((6, 40, 30), [4.0, 1.0, 1.0], Preparation(48, 1.0)),
        ((6, 40, 30), [4.0, 1.0, 1.0], Preparation(24, 2.0)),
        ((6, 40, 30), [np.nan] * 3, Preparation(32, 2.0, "width")),
    ],
)
def test_masks_come_back_where_they_were(shape: tuple, spacing: list | None, preparation: Preparation) -> None:
    places = [np.linspace(-1, 1, n) for n in shape]
    distance = np.sqrt(sum(p**2 for p in np.meshgrid(*places, indexing="ij")))
    mask = np.digitize(-distance, [-0.8, -0.4])
    steps = None if spacing is None else np.array(spacing, dtype=np.float32)
    slices = preparation.masks(mask, steps)
    assert slices.shape[1:] == (preparation.side, preparation.side)
    back = preparation.back(np.eye(3)[slices].transpose(0, 3, 1, 2), shape, steps)
    assert back.shape == shape
    assert (back == mask).mean() > (0.9 if preparation.pixel == 2 else 0.95)
    volume = preparation.slices(mask[..., None].astype(np.float32), steps)
    assert volume.shape == (*slices.shape, 1)
    assert np.corrcoef(volume[..., 0].ravel(), slices.ravel())[0, 1] > 0.92, "volume and mask lie apart"


def test_slices_of_a_source_leave_out_what_cannot_be_used() -> None:
    rng = np.random.default_rng(0)
    volumes = [rng.integers(0, 255, (d, 8, 8)).astype(np.uint8) for d in (6, 3, 9)]
    parts = [open_source(v[None], modality="volume", split="all") for v in [*volumes, np.zeros((6, 8, 8), np.uint8)]]
    for k, part in enumerate(parts):
        part.names = [str(k)]
    source = Slices(open_source(parts, split="all"), Preparation(8), parts=4)
    assert np.bincount(source.volume_of).tolist() == [6, 0, 9]
    assert source.part_of.tolist() == [0, 1, 2, 3, -1, -1, 0, 0, 1, 1, 2, 2, 3, 3, -1]
    assert source.read(7).shape == (1, 8, 8, 1)
    assert [note.split(": ")[1][:21] for note in source.notes[1:]] == ["left out, 3 slices wh", "left out, all of its "]
    with pytest.raises(UserError, match="no volume can be used"):
        Slices(parts[1], Preparation(8), parts=4)


def test_masks_are_classes_by_their_numbers(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    for folder, kind in (("scans", np.int16), ("masks", np.float32)):
        (tmp_path / folder).mkdir()
        x = np.random.default_rng(1).choice([0, 3, 7], (8, 8, 4)).astype(kind)
        x[0, 0, :3] = 0, 3, 7
        nibabel.save(nibabel.Nifti1Image(x, np.eye(4)), tmp_path / folder / "a.nii.gz")
    source = open_source(f"pairs:{tmp_path}?volume=scans&mask=masks", split="all")
    assert label_values(source) == [0, 3, 7]
    slices = Slices(source, Preparation(8), parts=1, values=[0, 7, 3])
    sample = slices.sample(2)
    assert sample["mask"].shape == (8, 8)
    np.testing.assert_array_equal(np.array([0, 7, 3])[sample["mask"]], source.sample(0)["mask"][2])
    with pytest.raises(UserError, match="holds 7, which is none"):
        Slices(source, Preparation(8), parts=1, values=[0, 3])
    nibabel.save(nibabel.Nifti1Image(x + 0.5, np.eye(4)), tmp_path / "masks" / "a.nii.gz")
    with pytest.raises(SampleError, match="whole numbers"):
        source.sample(0)


def test_every_orientation_of_a_file_is_found_again(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    for k, axes in enumerate(itertools.permutations(range(3))):
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[list(axes)] * rng.choice([-1, 1], 3) * [1, 2, 3] + rng.normal(0, 0.05, (3, 3))
        voxels = rng.integers(0, 300, (4, 5, 6)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / f"{k}.nii.gz")
        source = open_source(tmp_path / f"{k}.nii.gz", modality="volume", split="all")
        read, space = source.subset([0]).read(0)[..., 0], source.subset([0]).space(0)
        np.testing.assert_array_equal(space.back(read), voxels)
        (tmp_path / "out.nii.gz").write_bytes(nifti_bytes(read, space))
        again = nibabel.load(tmp_path / "out.nii.gz")
        np.testing.assert_array_equal(np.asarray(again.dataobj), voxels)
        np.testing.assert_allclose(again.affine, affine, atol=1e-6)
    with pytest.raises(UserError, match="don't fit"):
        space.back(read[:2])


def test_a_volume_without_a_space_gets_a_plain_one(tmp_path: Path) -> None:
    pytest.importorskip("nibabel")
    mask = np.random.default_rng(0).integers(0, 5, (3, 4, 5))
    data = nifti_bytes(mask, plain_space(mask.shape, np.array([3.0, 1.0, np.nan])))
    assert gzip.decompress(data)
    assert data == nifti_bytes(mask, plain_space(mask.shape, np.array([3.0, 1.0, np.nan])))
    (tmp_path / "x.nii.gz").write_bytes(data)
    source = open_source(tmp_path / "x.nii.gz", modality="volume", split="all")
    np.testing.assert_array_equal(source.read(0)[..., 0], mask)
    assert source.spacing is not None
    np.testing.assert_allclose(source.spacing[0], [3, 1, 1])


@pytest.mark.parametrize("name", ["phantoms", "brain-scans"])
def test_made_scans_have_structures_and_are_the_same_every_time(name: str) -> None:
    if name == "brain-scans":
        pytest.importorskip("nilearn")
    source = open_source(f"{name}?train=3&test=1&depth=8&side=32", split="all")
    assert source.generated
    assert len(open_source(f"{name}?train=3&test=1")) == 3
    first, second = source.sample(0), source.sample(1)
    assert first["volume"].shape == (8, 32, 32, 1)
    assert first["mask"].shape == (8, 32, 32)
    assert np.unique(first["mask"]).tolist() == [0, 1, 2]
    levels = [first["volume"][first["mask"] == k].mean() for k in range(3)]
    assert levels == sorted(levels)
    assert (first["mask"] != second["mask"]).mean() > 0.02
    np.testing.assert_array_equal(source.sample(0)["volume"], first["volume"])
    with pytest.raises(UserError, match="side=8 must be at least 16"):
        open_source(f"{name}?side=8")


def test_the_lobes_of_one_head_lie_where_they_do_and_grey_values_do_not_tell_them() -> None:
    if not next(entry for entry in list_embedded() if entry.name == "brain-lobes").present:
        pytest.skip("mricron-data is not here; selftaught data fetch brain-lobes brings it")
    source = open_source("brain-lobes?train=2&test=0&depth=10&side=32", split="all")
    first, second = source.sample(0), source.sample(1)
    assert source.structures[:2] == ["background", "frontal"]
    assert np.unique(first["mask"]).tolist() == list(range(8))
    middle = {
        name: np.argwhere(first["mask"] == k).mean(0) for k, name in enumerate(source.structures) if k
    }  # feet to head, front to back
    assert middle["cerebellum"][0] < middle["deep"][0] < middle["parietal"][0]
    assert middle["frontal"][1] < middle["deep"][1] < middle["occipital"][1]
    levels = [first["volume"][first["mask"] == k].mean() for k in range(1, 8)]
    assert max(levels) - min(levels) < 60
    assert (first["mask"] != second["mask"]).mean() > 0.02
