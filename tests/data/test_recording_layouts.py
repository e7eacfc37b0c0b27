"""Folders of known data sets give recordings of the camera alone, with the intrinsics that lie beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from selftaught.data import open_source
from selftaught.data.snippets import Snippets
from selftaught.errors import UserError


def pictures(folder: Path, names: Sequence[str], value: int = 0, size: tuple[int, int] = (12, 40)) -> None:
    """Pictures (height, width) whose grey value counts up."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((*size, 3), value + k, np.uint8))


def shown(source: object, i: int) -> list[int]:
    """The value of each frame of a recording."""
    return [int(frame[0, 0, 0]) for frame in source.read(i)]  # type: ignore[attr-defined]


def test_kitti_raw_has_each_cameras_own_intrinsics_and_no_grey_pictures(tmp_path: Path) -> None:
    day = tmp_path / "2011_09_26"
    drive = day / "2011_09_26_drive_0001_sync"
    frames = [f"{k:010d}.png" for k in range(4)]
    for camera, value in (("00", 0), ("02", 20), ("03", 30)):
        pictures(drive / f"image_{camera}" / "data", frames, value)
    numbers = {"02": "20 0 19 0.1 0 24 6 0.2 0 0 1 0", "03": "21 0 20 0.1 0 24 6 0.2 0 0 1 0"}
    lines = [f"S_rect_{k}: 40 12\nP_rect_{k}: {v}" for k, v in numbers.items()]
    (day / "calib_cam_to_cam.txt").write_text("\n".join(["calib_time: 09-Jan-2012 13:57:47", *lines]))
    source = open_source(str(tmp_path), modality="clip", split="all")
    name = "2011_09_26/2011_09_26_drive_0001_sync/image_0"
    assert source.names == [f"{name}2", f"{name}3"]
    said = "KITTI: 2 recordings, 8 frames, intrinsics out of its files; left out: 4 other pictures"
    assert source.notes == [said]
    np.testing.assert_allclose(
        source.values["intrinsics"], [[20 / 40, 24 / 12, 19 / 40, 0.5], [21 / 40, 24 / 12, 0.5, 0.5]], rtol=1e-6
    )
    assert shown(source, 1) == [30, 31, 32, 33]
    assert open_source(str(drive), modality="clip", split="all").values["intrinsics"].shape == (2, 4)
    snippets = Snippets(source, gap=1, keep_still=True)
    np.testing.assert_allclose(snippets.values["intrinsics"][:, 0], [0.5, 0.5, 0.525, 0.525])
    assert snippets.notes[0] == said


def test_kitti_odometry_takes_the_size_from_its_pictures(tmp_path: Path) -> None:
    pictures(tmp_path / "sequences" / "00" / "image_2", ["000000.png", "000001.png"])
    told = "P0: 9 0 9 0 0 9 9 0 0 0 1 0\nP2: 20 0 18 0 0 24 6 0 0 0 1 0\n"
    (tmp_path / "sequences" / "00" / "calib.txt").write_text(told)
    source = open_source(str(tmp_path), modality="clip", split="all")
    np.testing.assert_allclose(source.values["intrinsics"], [[0.5, 2, 0.45, 0.5]], rtol=1e-6)


def test_cityscapes_sequences_end_where_numbers_jump_and_keep_their_split(tmp_path: Path) -> None:
    for split, city in (("train", "aachen"), ("val", "lindau")):
        pictures(
            tmp_path / "leftImg8bit_sequence" / split / city,
            [f"{city}_000001_{k:06d}_leftImg8bit.png" for k in (0, 1, 2, 30, 31, 32)],
        )
        pictures(tmp_path / "leftImg8bit" / split / city, [f"{city}_000001_000001_leftImg8bit.png"])
        cameras = tmp_path / "camera" / split / city
        cameras.mkdir(parents=True)
        for frame, fx in ((1, 2262.5), (31, 2048.0)):
            told = {"intrinsic": {"fx": fx, "fy": 2265.3, "u0": 1096.98, "v0": 513.137}}
            (cameras / f"{city}_000001_{frame:06d}_camera.json").write_text(json.dumps(told))
    source = open_source(str(tmp_path), modality="clip", split="train")
    assert len(source) == 2
    whole = open_source(str(tmp_path), modality="clip", split="all")
    assert len(whole) == 4
    assert whole.notes == [
        "Cityscapes: 4 recordings, 12 frames, intrinsics out of its files; left out: 2 other pictures"
    ]
    assert [whole.frames(i) for i in range(4)] == [3] * 4
    assert shown(whole, 1) == [3, 4, 5]
    wanted = [2262.5 / 2048, 2265.3 / 1024, 1096.98 / 2048, 513.137 / 1024]
    np.testing.assert_allclose(whole.values["intrinsics"][0], wanted, rtol=1e-6)
    assert whole.values["intrinsics"][1, 0] == 1  # of the nearest frame that has a file
    inner = open_source(str(tmp_path / "leftImg8bit_sequence" / "train"), modality="clip", split="all")
    np.testing.assert_allclose(inner.values["intrinsics"][0], wanted, rtol=1e-6)
    (tmp_path / "camera/train/aachen/aachen_000001_000001_camera.json").write_text("{}")
    with pytest.raises(UserError, match="no intrinsic fx, fy, u0, v0"):
        open_source(str(tmp_path), modality="clip")


def test_tum_and_scannet_give_pictures_alone_and_their_cameras(tmp_path: Path) -> None:
    tum = tmp_path / "tum" / "rgbd_dataset_freiburg1_desk"
    pictures(tum / "rgb", ["1305031452.9.png", "1305031453.1.png"], size=(48, 64))
    pictures(tum / "depth", ["1305031452.9.png"], size=(48, 64))
    for name in ("rgb", "depth"):
        (tum / f"{name}.txt").write_text(f"# {name} images\n1305031452.9 {name}/1305031452.9.png\n")
    source = open_source(str(tmp_path / "tum"), modality="clip", split="all")
    assert source.notes == [
        "TUM RGB-D: 1 recordings, 2 frames, intrinsics out of its files; left out: 1 other pictures"
    ]
    np.testing.assert_allclose(
        source.values["intrinsics"], [[517.3 / 640, 516.5 / 480, 318.6 / 640, 255.3 / 480]], rtol=1e-6
    )
    for scene in ("scene0000_00", "scene0001_00"):
        folder = tmp_path / "scannet" / scene
        pictures(folder / "color", ["0.jpg", "2.jpg", "10.jpg"], size=(96, 128))
        pictures(folder / "depth", ["0.png", "2.png", "10.png"])
        (folder / "intrinsic").mkdir()
        (folder / "intrinsic" / "intrinsic_color.txt").write_text("115 0 64 0\n0 116 48 0\n0 0 1 0\n0 0 0 1\n")
    source = open_source(str(tmp_path / "scannet"), modality="clip", split="all")
    assert source.names == ["scene0000_00", "scene0001_00"]
    assert source.frame_names(0) == ["0.jpg", "2.jpg", "10.jpg"]  # type: ignore[attr-defined]
    np.testing.assert_allclose(source.values["intrinsics"][1], [115 / 128, 116 / 96, 0.5, 0.5], rtol=1e-6)
    (tmp_path / "scannet/scene0000_00/intrinsic/intrinsic_color.txt").write_text("1150 640 480 1150")
    with pytest.raises(UserError, match="doesn't fit pictures of 128x96"):
        open_source(str(tmp_path / "scannet"), modality="clip")
