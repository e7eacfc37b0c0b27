"""Files that have rotted are listed or refused in a line, whatever of them has rotted; whole ones are read."""

from __future__ import annotations

import contextlib
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from selftaught.data import check, open_source
from selftaught.errors import UserError
from tests.conftest import write_photos
from tests.data.rotten import KINDS, checked, rotted

FOUND = {
    "tiff": (7, 10), "packed tiff": (10, 22), "packed npz": (1, 4), "nifti": (16, 21), "mp4": (9, 13), "mkv": (5,),
    "dicom": (0, 3, 4, 11, 21, 22),
}  # fmt: skip
"""Seeds that once ended in a traceback."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_rotten_file_is_listed_and_the_others_are_read(kind: str, tmp_path: Path) -> None:
    suffix, make, _ = KINDS[kind]
    for needs, package in {"nii": "nibabel", "mha": "nibabel", "dcm": "pydicom", "las": "laspy"}.items():
        if needs in suffix:
            pytest.importorskip(package)
    whole = make(tmp_path)
    for seed in (*range(100, 104), *FOUND.get(kind, ())):
        alone = suffix in (".npz", ".dcm", ".tar")  # nothing else is in the folder that is read for itself
        with contextlib.suppress(*([UserError] if alone else [])):
            report = checked(kind, rotted(whole, seed), whole, tmp_path / str(seed))
            assert alone or report.ok >= 2, (seed, report.problems)


def test_what_is_no_file_of_a_folder_is_passed_over(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", count=4, side=16, classes=1)
    os.mkfifo(folder / "pipe")  # no suffix: DICOM files have none
    (folder / "endless").symlink_to("/dev/zero")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "self").symlink_to("self")
    report = check(folder)
    assert report.ok == 4
    assert [name for name, _ in report.problems] == ["loop.png"]


def test_archives_that_nobody_unpacks_are_said(tmp_path: Path) -> None:
    whole = tmp_path / "whole.npz"
    np.savez_compressed(whole, images=np.zeros((4, 8, 8), np.uint8), labels=np.arange(4))
    data = whole.read_bytes()
    for name, change in {"method": (8, 10, 99), "password": (6, 8, 1)}.items():
        changed, (at, central, value) = bytearray(data), change
        for place in [i for i in range(len(data)) if data[i : i + 4] == b"PK\x03\x04"]:
            changed[place + at] = value
        for place in [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]:
            changed[place + central] = value
        (tmp_path / f"{name}.npz").write_bytes(changed)
        with pytest.raises((NotImplementedError, RuntimeError)), zipfile.ZipFile(tmp_path / f"{name}.npz") as file:
            file.read("images.npy")
        with pytest.raises(UserError, match="not a readable"):
            open_source(tmp_path / f"{name}.npz", split="all").read(0)
