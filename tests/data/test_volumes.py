"""Volumes: arrays, files, and NIfTI's spacing and orientation."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from selftaught.data import check, open_source
from selftaught.data.fields import Field
from selftaught.data.formats.volumes import kind_by_shape
from selftaught.errors import SampleError, UserError
from selftaught.methods.uni4eye import Uni4Eye
from selftaught.run.configuration import modality_of


def voxels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)


def test_files_of_one_volume_each(tmp_path: Path) -> None:
    for k, name in enumerate(("a/1.npy", "a/2.npy", "b/1.npy")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, voxels(4, 5, 6) + k)
    source = open_source(tmp_path, modality="volume", split="all")
    assert source.fields == {"volume": Field("volume", 1), "label": Field("label")}
    assert source.describe().endswith("3 volumes, 1 channel, 2 classes")
    assert source.read(1).shape == (4, 5, 6, 1)
    np.testing.assert_array_equal(source.read(1)[..., 0], voxels(4, 5, 6) + 1)
    assert source.value_range is not None
    assert source.value_range[0][1] > 900
    assert len(source.fingerprint()) == 32
    (tmp_path / "a/1.npy").write_bytes(b"x")
    np.save(tmp_path / "a/2.npy", np.full((2, 2, 2), np.nan))
    np.save(tmp_path / "b/2.npy", voxels(4, 5))
    np.save(tmp_path / "b/3.npy", voxels(4, 5, 6, 2))
    problems = dict(check(tmp_path, modality="volume").problems)
    assert problems["a/1.npy"] == "not a readable .npy file"
    assert problems["a/2.npy"].startswith("NaN")
    assert problems["b/2.npy"].startswith("4x5 where a volume is")
    assert problems["b/3.npy"] == "2 channels where the source has 1"
    (tmp_path / "b/3.npy").unlink()
    (tmp_path / "b/1.npy").unlink()
    with pytest.raises(SampleError, match="can't be opened"):
        source.read(2)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no volume in this folder"):
        open_source(tmp_path / "none", modality="volume")


def test_one_file_is_a_volume_or_a_stack_by_its_axes(tmp_path: Path) -> None:
    for shape, expected in (
        ((4, 5, 6), [(4, 5, 6, 1)]),
        ((4, 5, 6, 3), [(4, 5, 6, 3)]),
        ((2, 4, 5, 6), [(4, 5, 6, 1)] * 2),
        ((2, 4, 5, 6, 3), [(4, 5, 6, 3)] * 2),
    ):
        np.save(tmp_path / "x.npy", voxels(*shape))
        source = open_source(tmp_path / "x.npy", modality="volume", split="all")
        assert [source.read(i).shape for i in range(len(source))] == expected
    (tmp_path / "x.npy").write_bytes(b"x")
    with pytest.raises(UserError, match="not a readable array"):
        open_source(tmp_path / "x.npy", modality="volume")


def test_arrays_with_labels_and_splits(tmp_path: Path) -> None:
    table = {"train_images": voxels(4, 3, 4, 5).astype(np.uint8), "train_labels": np.array([[0], [1], [0], [1]])}
    table |= {"test_images": voxels(2, 3, 4, 5).astype(np.uint8), "test_labels": np.array([[1], [0]])}
    np.savez(tmp_path / "a.npz", **table)
    for spec in (table, tmp_path / "a.npz"):
        source = open_source(spec, modality="volume", split="test")
        assert (len(source), source.read(1).shape, source.value_range) == (2, (3, 4, 5, 1), None)
        assert source.labels is not None
        assert source.labels.tolist() == [1, 0]
    assert len(open_source(table, modality="volume").fingerprint()) == 32
    with pytest.raises(UserError, match=r"volumes must be numbers \(N, D, H, W\)"):
        open_source(voxels(3, 4, 5), modality="volume")
    with pytest.raises(UserError, match=r"arrays hold .* samples, not camera"):
        open_source(voxels(3, 4, 5), modality="camera")


def test_nifti_is_turned_and_keeps_its_spacing(tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    data = voxels(3, 4, 5)
    (tmp_path / "x").mkdir()
    # stored with axes towards the head, the right and the front, 2, 0.5 and 3 mm apart
    affine = np.array([[0, 0.5, 0, 0], [0, 0, 3, 0], [2, 0, 0, 0], [0, 0, 0, 1]], dtype=float)
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "x" / "a.nii.gz")
    nib.save(nib.Nifti1Image(voxels(3, 4, 5, 2), np.eye(4)), tmp_path / "b.nii")
    one = open_source(tmp_path / "x", split="all")
    assert one.modality == "volume"
    np.testing.assert_allclose(one.spacing, [[2, 3, 0.5]])
    # D to the head as stored, H to the back: front reversed, W to the left: right reversed
    np.testing.assert_array_equal(one.read(0)[..., 0], data[:, ::-1, ::-1].transpose(0, 2, 1))
    assert pickle.loads(pickle.dumps(one)).fingerprint() == one.fingerprint()
    np.testing.assert_allclose(one.subset([0, 0]).spacing, [[2, 3, 0.5]] * 2)
    two = open_source(tmp_path / "b.nii", split="all")
    assert two.read(0).shape == (5, 4, 3, 2)
    whole = (tmp_path / "x" / "a.nii.gz").read_bytes()
    (tmp_path / "x" / "c.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "x" / "d.nii").write_bytes(b"nothing")
    (tmp_path / "x" / "e.nii.gz").write_bytes(b"nothing")
    report = check(tmp_path / "x")
    assert [name for name, _ in report.problems] == ["c.nii.gz", "d.nii", "e.nii.gz"]
    pairs = open_source({"volume": one, "twin": one}, split="all")
    np.testing.assert_allclose(pairs.spacing, one.spacing)


def test_the_spacing_of_arrays_is_stated(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in "ab":
        np.save(tmp_path / "x" / f"{name}.npy", voxels(4, 5, 6))
    steps = [[2.5, 1, 0.5]] * 2
    told, silent = (open_source(f"volumes:{tmp_path}/x{how}", split="all") for how in ("?spacing=2.5:1:0.5", ""))
    np.testing.assert_allclose(told.spacing, steps)
    assert silent.spacing is None
    assert told.fingerprint() != silent.fingerprint()  # slices of it are others
    np.save(tmp_path / "stack.npy", voxels(2, 4, 5, 6))
    stack = open_source(tmp_path / "stack.npy", modality="volume", split="all", spacing=(2.5, 1, 0.5))
    np.testing.assert_allclose(stack.spacing, steps)
    np.testing.assert_allclose(stack.subset([1]).spacing, steps[:1])
    np.testing.assert_allclose(
        open_source(voxels(2, 4, 5, 6), modality="volume", split="all", spacing=3).spacing, [[3] * 3] * 2
    )
    for wrong in ("2:1", "0:1:1", "nan:1:1", "thick"):
        with pytest.raises(UserError, match="millimetres along depth, height and width"):
            open_source(f"volumes:{tmp_path}/x?spacing={wrong}", split="all")


def test_scans_say_their_own_spacing(tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    nib.save(nib.Nifti1Image(voxels(3, 4, 5), np.diag([2, 2, 4, 1.0])), tmp_path / "a.nii")
    with pytest.raises(UserError, match="these files say their own"):
        open_source(f"{tmp_path}?spacing=1:1:1", split="all")
    np.save(tmp_path / "b.npy", voxels(3, 4, 5))
    both = open_source(f"volumes:{tmp_path}?spacing=1:1:1", split="all")
    np.testing.assert_allclose(both.spacing, [[4, 2, 2], [1, 1, 1]])


@pytest.mark.parametrize(
    ("shape", "kind", "told"),
    [
        ((8, 8), "image", ""),
        ((8, 8, 3), "image", ""),
        ((12, 24, 24), "volume", "taken for a volume"),
        ((24, 24, 9), "image", "taken for an image of 9 channels"),
        ((24, 24, 13), "volume", "taken for a volume"),
        ((4, 8, 8, 2), "volume", ""),
    ],
)
def test_arrays_of_a_folder_are_images_or_volumes_by_their_shapes(
    tmp_path: Path, shape: tuple, kind: str, told: str
) -> None:
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    found, line = kind_by_shape(tmp_path)
    assert found == kind
    assert told in line
    assert bool(told) == bool(line)
    assert kind_by_shape(f"{tmp_path}?n=3")[0] == kind
    assert kind_by_shape("digits") == kind_by_shape(np.zeros(3)) == ("", "")
    assert modality_of(Uni4Eye, str(tmp_path)) == kind
    if told:
        assert open_source(f"volumes:{tmp_path}", split="all").read(0).shape == (*shape, 1)
        assert open_source(f"images:{tmp_path}", split="all").read(0).size == np.prod(shape)


def test_a_single_array_is_a_stack_of_either(tmp_path: Path) -> None:
    for shape, kind in (((5, 8, 8), "image"), ((5, 8, 8, 3), "image"), ((5, 6, 8, 8), "volume")):
        np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
        assert kind_by_shape(tmp_path / "x.npy")[0] == kind
    np.save(tmp_path / "x.npy", np.zeros((5, 8, 8), np.uint8))
    assert "taken for a stack of images" in kind_by_shape(tmp_path / "x.npy")[1]
    assert open_source(f"volumes:{tmp_path}/x.npy", split="all").read(0).shape == (5, 8, 8, 1)
    assert len(open_source(f"images:{tmp_path}/x.npy", split="all")) == 5
    for scheme in ("volumes", "images"):
        with pytest.raises(UserError, match="no such file or folder"):
            open_source(f"{scheme}:{tmp_path}/nowhere")
