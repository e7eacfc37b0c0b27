"""Files of every kind that is read, and ways in which they rot: bytes changed, cut, put in, wiped out."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from selftaught.data import CheckReport, check
from tests.data.test_points import write_las, write_pcd, write_ply
from tests.data.test_scans import write_meta, write_series
from tests.data.test_video import write_video

_RNG = np.random.default_rng(0)
_PICTURE = _RNG.integers(0, 255, (24, 28, 3), dtype=np.uint8)
_VOXELS = _RNG.integers(-100, 300, (6, 7, 5)).astype(np.int16)


def _picture(suffix: str, deep: bool = False) -> Callable[[Path], bytes]:
    pixels = _PICTURE.astype(np.uint16) * 200 if deep else _PICTURE
    return lambda folder: cv2.imencode(suffix, pixels)[1].tobytes()


def _tiff(packed: bool) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        import tifffile

        buffer = io.BytesIO()
        tifffile.imwrite(buffer, _PICTURE, compression="deflate" if packed else None)
        return buffer.getvalue()

    return make


def _turned(folder: Path) -> bytes:
    from PIL import Image

    picture, buffer = Image.fromarray(_PICTURE), io.BytesIO()
    exif = picture.getexif()
    exif[274] = 6
    picture.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def _arrays(save: Callable[..., None], **arrays: np.ndarray) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        buffer = io.BytesIO()
        save(buffer, **arrays)
        return buffer.getvalue()

    return make


def _nifti(suffix: str) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        import nibabel

        nibabel.save(nibabel.Nifti1Image(_VOXELS, np.diag([1.0, 2.0, 3.0, 1.0])), folder / f"whole{suffix}")
        return (folder / f"whole{suffix}").read_bytes()

    return make


def _meta(folder: Path) -> bytes:
    write_meta(folder / "whole.mha", _VOXELS, np.eye(4), local=True, packed=True, big=False)
    return (folder / "whole.mha").read_bytes()


def _slice(folder: Path) -> bytes:
    write_series(folder / "series", _VOXELS[:, :, :1], np.eye(4))
    return next((folder / "series").iterdir()).read_bytes()


def _video(suffix: str, codec: str) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        write_video(folder / f"whole{suffix}", count=8, codec=codec)
        return (folder / f"whole{suffix}").read_bytes()

    return make


def _shard(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for i in range(4):
            for suffix, data in ((".png", _picture(".png")(folder)), (".json", b'{"label": 1}')):
                entry = tarfile.TarInfo(f"{i}{suffix}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _written(write: Callable[[Path], object], suffix: str) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        write(folder / f"whole{suffix}")
        return (folder / f"whole{suffix}").read_bytes()

    return make


KINDS: dict[str, tuple[str, Callable[[Path], bytes], str | None]] = {
    "png": (".png", _picture(".png"), None),
    "png of 16 bits": (".png", _picture(".png", deep=True), None),
    "jpeg": (".jpg", _turned, None),
    "webp": (".webp", _picture(".webp"), None),
    "bmp": (".bmp", _picture(".bmp"), None),
    "tiff": (".tif", _tiff(packed=False), None),
    "packed tiff": (".tif", _tiff(packed=True), None),
    "tiff by OpenCV": (".tif", _picture(".tiff"), None),
    "npy": (".npy", _arrays(np.save, arr=_PICTURE), None),
    "npz": (".npz", _arrays(np.savez, images=np.stack([_PICTURE] * 4), labels=np.arange(4)), None),
    "packed npz": (".npz", _arrays(np.savez_compressed, images=np.stack([_PICTURE] * 4), labels=np.arange(4)), None),
    "series npz": (".npz", _arrays(np.savez, x=_RNG.normal(size=(8, 3, 40)), y=np.arange(8) % 2), "series"),
    "nifti": (".nii", _nifti(".nii"), "volume"),
    "packed nifti": (".nii.gz", _nifti(".nii.gz"), "volume"),
    "metaimage": (".mha", _meta, "volume"),
    "dicom": (".dcm", _slice, "volume"),
    "mp4": (".mp4", _video(".mp4", "h264"), "clip"),
    "avi": (".avi", _video(".avi", "mpeg4"), "clip"),
    "mkv": (".mkv", _video(".mkv", "h264"), "clip"),
    "ply": (".ply", _written(write_ply, ".ply"), "points"),
    "pcd": (".pcd", _written(lambda path: write_pcd(path, "binary"), ".pcd"), "points"),
    "packed pcd": (".pcd", _written(lambda path: write_pcd(path, "binary_compressed"), ".pcd"), "points"),
    "las": (".las", _written(write_las, ".las"), "points"),
    "shard": (".tar", _shard, "shard"),
}
"""Suffix, what makes the bytes of a whole file (in a folder to work in), and the kind of samples."""


def rotted(whole: bytes, seed: int) -> bytes:
    """A file that has rotted in one of six ways; the same seed, the same way."""
    rng, data = random.Random(seed), bytearray(whole)
    way = rng.choice(["head", "any", "any", "cut", "insert", "zero", "ones"])
    if way == "head":
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(min(len(data), 200))] = rng.choice([0, 255, 127, 128, rng.randrange(256)])
    elif way == "any":
        for _ in range(rng.randint(1, 30)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif way == "cut":
        del data[rng.randrange(len(data)) :]
    elif way == "insert":
        place = rng.randrange(len(data))
        data[place:place] = rng.randbytes(rng.randint(1, 20))
    else:
        place, count = rng.randrange(len(data)), rng.randint(1, 16)
        data[place : place + count] = (b"\0" if way == "zero" else b"\xff") * len(data[place : place + count])
    return bytes(data)


def checked(kind: str, data: bytes, whole: bytes, folder: Path) -> CheckReport:
    """What ``data check`` says of a folder with this file and two whole ones (of archives and slices: this alone)."""
    suffix, _, modality = KINDS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"rotten{suffix}").write_bytes(data)
    if suffix == ".npz":
        return check(folder / f"rotten{suffix}", modality=modality)
    for k in range(2):
        (folder / f"good{k}{suffix}").write_bytes(whole)
    return check(f"wds:{folder}/*.tar") if modality == "shard" else check(folder, modality=modality)
