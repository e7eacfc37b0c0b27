"""Scans in NRRD, MetaImage and DICOM: the same voxels at the same places as in NIfTI; what makes no volume is said."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selftaught.data import check, open_source
from selftaught.errors import SampleError, UserError

nibabel = pytest.importorskip("nibabel")
nrrd = pytest.importorskip("nrrd")
pydicom = pytest.importorskip("pydicom")

LPS = np.diag([-1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 2000, (6, 5, 4)).astype(np.int16)


@pytest.fixture(scope="module")
def affine() -> np.ndarray:
    """Axes run to the front, the head and the left, slightly oblique; steps of 0.5, 2 and 3 mm."""
    found = np.eye(4)
    found[:3, :3] = np.array([[0.05, -1, 0.02], [1, 0.03, 0], [0.01, 0, 1.0]])[:, [0, 2, 1]]
    found[:3, :3] = np.linalg.qr(found[:3, :3])[0] * np.sign(np.diag(np.linalg.qr(found[:3, :3])[1]))
    found[:3, :3] *= [0.5, 2, 3]
    found[:3, 3] = 10, -20, 30
    return found


def expected(folder: Path, voxels: np.ndarray, affine: np.ndarray) -> Any:
    nibabel.save(nibabel.Nifti1Image(voxels, affine), folder / "truth.nii.gz")
    return open_source(folder / "truth.nii.gz", modality="volume", split="all")


def assert_same_volume(found: Any, truth: Any) -> None:
    np.testing.assert_array_equal(found.read(0), truth.read(0))
    np.testing.assert_allclose(found.spacing, truth.spacing, rtol=1e-5)
    np.testing.assert_allclose(found.space(0).affine, truth.space(0).affine, atol=1e-5)
    assert found.space(0).shape == truth.space(0).shape


@pytest.mark.parametrize("space", ["left-posterior-superior", "RAS", "left-anterior-superior"])
def test_nrrd_in_any_space(tmp_path: Path, voxels: np.ndarray, affine: np.ndarray, space: str) -> None:
    turn = {"RAS": np.eye(3), "left-posterior-superior": LPS, "left-anterior-superior": np.diag([-1.0, 1, 1])}[space]
    header = {
        "space": space, "space directions": (turn @ affine[:3, :3]).T, "space origin": turn @ affine[:3, 3],
    }  # fmt: skip
    nrrd.write(str(tmp_path / "a.nrrd"), voxels, header)
    assert_same_volume(
        open_source(tmp_path / "a.nrrd", modality="volume", split="all"), expected(tmp_path, voxels, affine)
    )


def test_nrrd_with_channels_without_a_space_and_damaged(tmp_path: Path, voxels: np.ndarray) -> None:
    four = np.stack([voxels, voxels + 1])
    directions = np.vstack([[np.nan] * 3, np.eye(3)])
    nrrd.write(str(tmp_path / "b.nrrd"), four, {"space": "LPS", "space directions": directions})
    source = open_source(tmp_path / "b.nrrd", modality="volume", split="all")
    np.testing.assert_array_equal(source.read(0), four.transpose(3, 2, 1, 0))
    nrrd.write(str(tmp_path / "c.nrrd"), voxels, {"spacings": [1.0, 2.0, 3.0]})
    source = open_source(tmp_path / "c.nrrd", modality="volume", split="all")
    np.testing.assert_array_equal(source.read(0)[..., 0], voxels.transpose(2, 1, 0))
    assert source.spacing[0].tolist() == [3, 2, 1]
    whole = (tmp_path / "c.nrrd").read_bytes()
    (tmp_path / "c.nrrd").write_bytes(whole[: len(whole) - 40])
    with pytest.raises(SampleError, match=r"c.nrrd: (damaged|not a readable)"):
        source.read(0)
    (tmp_path / "c.nrrd").write_bytes(b"nothing")
    with pytest.raises(SampleError, match="not a readable NRRD"):
        source.read(0)
    nrrd.write(str(tmp_path / "d.nrrd"), voxels, {"space": "nowhere", "space directions": np.eye(3)})
    with pytest.raises(SampleError, match="its space 'nowhere' isn't known"):
        open_source(tmp_path / "d.nrrd", modality="volume", split="all").read(0)


def write_meta(path: Path, voxels: np.ndarray, affine: np.ndarray, *, local: bool, packed: bool, big: bool) -> None:
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    turn = (LPS @ affine[:3, :3] / steps).T
    data = voxels.transpose(2, 1, 0).astype(voxels.dtype.newbyteorder(">" if big else "<")).tobytes()
    data = zlib.compress(data) if packed else data
    lines = [
        "ObjectType = Image", "NDims = 3", "BinaryData = True", f"BinaryDataByteOrderMSB = {big}",
        f"CompressedData = {packed}", f"TransformMatrix = {' '.join(f'{v:.9g}' for v in turn.ravel())}",
        f"Offset = {' '.join(f'{v:.9g}' for v in LPS @ affine[:3, 3])}",
        f"ElementSpacing = {' '.join(f'{v:.9g}' for v in steps)}", f"DimSize = {' '.join(map(str, voxels.shape))}",
        "ElementType = MET_SHORT", f"ElementDataFile = {'LOCAL' if local else path.stem + '.raw'}",
    ]  # fmt: skip
    head = ("\n".join(lines) + "\n").encode()
    path.write_bytes(head + data if local else head)
    if not local:
        path.with_suffix(".raw").write_bytes(data)


@pytest.mark.parametrize(("local", "packed", "big"), [(True, False, False), (True, True, True), (False, True, False)])
def test_metaimage(
    tmp_path: Path, voxels: np.ndarray, affine: np.ndarray, local: bool, packed: bool, big: bool
) -> None:
    path = tmp_path / ("a.mha" if local else "a.mhd")
    write_meta(path, voxels, affine, local=local, packed=packed, big=big)
    assert_same_volume(open_source(path, modality="volume", split="all"), expected(tmp_path, voxels, affine))


def test_damaged_metaimages_are_listed(tmp_path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    for name in ("a", "b", "c", "d", "e"):
        write_meta(tmp_path / f"{name}.mha", voxels, affine, local=True, packed=False, big=False)
    whole = (tmp_path / "b.mha").read_bytes()
    (tmp_path / "b.mha").write_bytes(whole[:-10])
    (tmp_path / "c.mha").write_bytes(whole.replace(b"DimSize", b"NoSize"))
    (tmp_path / "d.mha").write_bytes(whole.replace(b"MET_SHORT", b"MET_WORD"))
    (tmp_path / "e.mha").write_bytes(b"\0\1\2\n" * 9)
    problems = dict(check(tmp_path, modality="volume").problems)
    assert problems["b.mha"] == "damaged: 230 bytes of voxels where the header says 240"
    assert problems["c.mha"].endswith("its header has no dimsize")
    assert problems["d.mha"] == "voxels of the type MET_WORD can't be read"
    assert "without =" in problems["e.mha"]
    assert "a.mha" not in problems


def write_series(
    folder: Path, voxels: np.ndarray, affine: np.ndarray, *, uid: str = "1.2.3", suffix: str = ".dcm", number: int = 1
) -> None:
    """Slices (columns, rows, slices) in an order of files that isn't theirs; values are 2 * stored - 1000."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = LPS @ affine[:3, :3]
    steps = np.linalg.norm(lps, axis=0)
    for k in range(voxels.shape[2]):
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{uid}.{k + 1}"
        file = pydicom.dataset.FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        file.SOPClassUID, file.SOPInstanceUID, file.SeriesInstanceUID = (
            pydicom.uid.CTImageStorage, f"{uid}.{k + 1}", uid,
        )  # fmt: skip
        file.SeriesNumber, file.InstanceNumber = number, 7 + k
        file.Rows, file.Columns = voxels.shape[1], voxels.shape[0]
        file.PixelSpacing = [f"{steps[1]:.8f}", f"{steps[0]:.8f}"]
        file.ImageOrientationPatient = [f"{v:.10f}" for v in [*(lps[:, 0] / steps[0]), *(lps[:, 1] / steps[1])]]
        file.ImagePositionPatient = [f"{v:.8f}" for v in LPS @ affine[:3, 3] + k * lps[:, 2]]
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated = file.BitsStored = 16
        file.HighBit, file.PixelRepresentation = 15, 1
        file.RescaleSlope, file.RescaleIntercept = "2", "-1000"
        file.PixelData = voxels[:, :, k].T.astype("<i2").tobytes()
        file.save_as(folder / f"{(k * 3) % 7}-{uid}{suffix}", enforce_file_format=True)


def test_a_dicom_series_is_a_volume_where_it_lies(tmp_path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    right = affine.copy()
    if np.linalg.det(right[:3, :3]) < 0:  # slices are sorted along the normal of rows and columns
        right[:3, 2] *= -1
    if np.linalg.det(LPS @ right[:3, :3]) < 0:
        right[:3, 2] *= -1
    write_series(tmp_path / "scan", voxels, right)
    source = open_source(tmp_path / "scan", split="all")
    assert source.modality == "volume"
    truth = expected(tmp_path, (2.0 * voxels - 1000).astype(np.float32), right)
    assert_same_volume(source, truth)
    assert source.names == ["scan"]
    one = next((tmp_path / "scan").iterdir())
    np.testing.assert_array_equal(open_source(one, modality="volume", split="all").read(0), source.read(0))


def test_folders_of_series_classes_and_bare_names(tmp_path: Path, voxels: np.ndarray) -> None:
    plain = np.diag([-1.0, -1, 2, 1])
    for k, place in enumerate(("ill/p1", "ill/p2", "well/p3", "well/p4")):
        write_series(tmp_path / "a" / place, voxels, plain, uid=f"1.{k + 1}")
    source = open_source(tmp_path / "a", modality="volume", split="all")
    assert source.classes == ["ill", "well"]
    assert [name.split("/")[-1] for name in source.names] == ["p1", "p2", "p3", "p4"]
    for k in (1, 2):
        write_series(tmp_path / "b", voxels, plain, uid=f"1.{k}", suffix="", number=k)
    source = open_source(tmp_path / "b", modality="volume", split="all")
    assert sorted(source.names) == ["series-1", "series-2"]
    assert len(source.fingerprint()) == 32


def test_series_that_make_no_volume_are_listed(tmp_path: Path, voxels: np.ndarray) -> None:
    plain = np.diag([-1.0, -1, 2, 1])
    for name in ("whole", "gap", "sizes", "broken", "one"):
        write_series(tmp_path / name, voxels, plain, uid=f"1.{len(name)}.{ord(name[0])}")
    files = {name: sorted((tmp_path / name).iterdir()) for name in ("gap", "sizes", "broken", "one")}
    order = sorted(files["gap"], key=lambda f: float(pydicom.dcmread(f).ImagePositionPatient[2]))
    order[1].unlink()
    for file in files["one"][1:]:
        file.unlink()
    odd = pydicom.dcmread(files["sizes"][0])
    odd.Rows, odd.PixelData = 4, odd.PixelData[: 4 * odd.Columns * 2]
    odd.save_as(files["sizes"][0])
    bad = pydicom.dcmread(files["broken"][0])
    bad.PixelData = bad.PixelData[:4]
    bad.save_as(files["broken"][0])
    (tmp_path / "whole" / "notes.dcm").write_text("no picture")
    source = open_source(tmp_path, modality="volume", split="all")
    assert "1 single slices" in source.describe()
    assert "1 files that are no DICOM pictures" in source.describe()
    problems = dict(check(tmp_path, modality="volume").problems)
    assert set(problems) == {"gap", "sizes", "broken"}
    assert "some are missing or there twice" in problems["gap"]
    assert problems["sizes"] == "slices of several sizes: 4x6 and 5x6"
    assert problems["broken"].startswith("its pixels can't be read")
    with pytest.raises(UserError, match="no DICOM series of several slices"):
        open_source(tmp_path / "one", modality="volume")
