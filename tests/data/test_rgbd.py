"""RGB-D sources: clouds agree with pictures and cameras, in the built-in rooms and in folders of four layouts."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from selftaught.data import open_source
from selftaught.data.builtin.room_frames import look_at
from selftaught.data.formats._rgbd_layouts import quaternion_pose
from selftaught.data.rgbd import backprojected, depth_normals, rgbd_of
from selftaught.errors import UserError

K = np.array([[40.0, 0, 19.5], [0, 40.0, 14.5], [0, 0, 1]])
SIZE = (30, 40)


def plane(pose: np.ndarray, matrix: np.ndarray = K, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """A picture and the depth of the floor z = 0 (as far as 6 m), coloured by where it is in the world."""
    rays = backprojected(np.ones(size), matrix) @ pose[:3, :3].T
    depth = np.where(rays[..., 2] < -1e-6, -pose[2, 3] / np.minimum(rays[..., 2], -1e-6), 0)
    depth = np.where(depth < 6, depth, 0)
    world = rays * depth[..., None] + pose[:3, 3]
    image = np.clip(np.rint(128 + 40 * world[..., [0, 1, 0]]), 0, 255).astype(np.uint8)
    image[depth == 0] = 0
    return image, depth.astype(np.float32)


def poses(count: int = 4) -> list[np.ndarray]:
    return [look_at(np.array([0.1 * i, 0.0, 1.5]), np.array([0.1 * i + 1.0, 0.1, 0.7])) for i in range(count)]


def write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1] if picture.ndim == 3 else picture)


def scene(folder: Path, count: int = 4) -> Path:
    for i, pose in enumerate(poses(count)):
        image, depth = plane(pose)
        write(folder / "rgb" / f"{i}.png", image)
        write(folder / "depth" / f"{i}.png", np.rint(depth * 1000).astype(np.uint16))
        write(folder / "label" / f"{i}.png", (np.rint(depth * 1000) > 2000).astype(np.uint8))
        (folder / "pose").mkdir(exist_ok=True)
        np.savetxt(folder / "pose" / f"{i}.txt", pose)
    (folder / "intrinsics.txt").write_text("40 40 19.5 14.5")
    return folder


def agrees(sample: dict[str, object], tolerance: float = 2.0) -> None:
    """Points seen by the camera fall on pixels of their colour, in both frames."""
    points: np.ndarray = sample["points"]  # type: ignore[assignment]
    for camera, image in (("camera", "image"), ("other_camera", "other_image")):
        intrinsics, pose = sample[camera]  # type: ignore[misc]
        local = (points[:, :3] - pose[:3, 3]) @ pose[:3, :3]
        at = np.rint(local[:, :2] / local[:, 2:] * np.diag(intrinsics)[:2] + intrinsics[:2, 2]).astype(int)
        picture: np.ndarray = sample[image]  # type: ignore[assignment]
        inside = (local[:, 2] > 0.1) & (at >= 0).all(1) & (at < picture.shape[1::-1]).all(1)
        assert inside.mean() > 0.5
        shown = picture[at[inside, 1], at[inside, 0]].astype(float)
        assert np.median(np.abs(shown - points[inside, 3:6])) <= tolerance


def test_a_folder_of_scenes_is_told_by_what_lies_in_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        scene(tmp_path / name)
    source = open_source(str(tmp_path), modality="points", split="all")
    assert [*source.names] == [f"{s}/{i}" for s in "ab" for i in range(4)]
    assert list(source.fields) == [
        "points", "point_label", "image", "depth", "camera", "other_image", "other_camera", "frame_size",
    ]  # fmt: skip
    assert np.unique(source.groups).tolist() == [0, 1]
    sample = source.sample(1)
    agrees(sample)
    assert sample["points"].shape[1] == 9
    np.testing.assert_allclose(sample["points"][:, 6:], np.tile([0, 0, 1.0], (len(sample["points"]), 1)), atol=0.02)
    assert sample["point_label"].tolist() == (sample["depth"][sample["depth"] > 0] > 2).astype(int).tolist()
    parent, _ = rgbd_of(source)
    assert [parent.neighbour(k) for k in range(8)] == [1, 2, 3, 2, 5, 6, 7, 6]
    assert source.fingerprint() == open_source(f"rgbd:{tmp_path}", split="all").fingerprint()
    assert open_source(f"rgbd:{tmp_path}?step=2", split="all").fingerprint() != source.fingerprint()
    assert len(open_source(f"rgbd:{tmp_path}?points=50", split="all").read(0)) == 50


def test_scannet_leaves_out_lost_poses_and_uses_the_depth_camera(tmp_path: Path) -> None:
    here = tmp_path / "scene0000_00"
    big = np.array([[80.0, 0, 39.5], [0, 80.0, 29.5], [0, 0, 1]])
    for i, pose in enumerate(poses(4)):
        write(here / "color" / f"{i}.png", plane(pose, big, (60, 80))[0])
        write(here / "depth" / f"{i}.png", np.rint(plane(pose)[1] * 1000).astype(np.uint16))
        (here / "pose").mkdir(exist_ok=True)
        np.savetxt(here / "pose" / f"{i}.txt", np.full((4, 4), -np.inf) if i == 2 else pose)
    (here / "intrinsic").mkdir()
    for name, matrix in (("color", big), ("depth", K)):
        whole = np.eye(4)
        whole[:3, :3] = matrix
        np.savetxt(here / "intrinsic" / f"intrinsic_{name}.txt", whole)
    source = open_source(f"rgbd:{here}?gap=1", split="all")
    assert [*source.names] == ["0", "1", "3"]
    assert source.sample(0)["image"].shape == (30, 40, 3)
    agrees(source.sample(0), tolerance=4.0)


def test_tum_joins_by_time(tmp_path: Path) -> None:
    here = tmp_path / "rgbd_dataset_own"
    rows: dict[str, list[str]] = {"rgb": [], "depth": [], "groundtruth": []}
    for i, pose in enumerate(poses(3)):
        image, depth = plane(pose)
        write(here / "rgb" / f"{i}.png", image)
        write(here / "depth" / f"{i}.png", np.rint(depth * 5000).astype(np.uint16))
        w = np.sqrt(max(0.0, 1 + np.trace(pose[:3, :3]))) / 2
        r = pose[:3, :3]
        q = np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]]) / (4 * w)
        np.testing.assert_allclose(quaternion_pose([*pose[:3, 3], *q, w]), pose, atol=1e-12)
        rows["rgb"].append(f"{i}.000 rgb/{i}.png")
        rows["depth"].append(f"{i}.015 depth/{i}.png")
        rows["groundtruth"].append(f"{i + (5 if i == 2 else 0)}.005 " + " ".join(map(str, [*pose[:3, 3], *q, w])))
    for name, lines in rows.items():
        (here / f"{name}.txt").write_text("# time\n" + "\n".join(lines))
    source = open_source(f"rgbd:{here}?intrinsics=40,40,19.5,14.5&gap=1", split="all")
    assert [*source.names] == ["0", "1"]  # the third has no pose near its time
    agrees(source.sample(0))


def test_sun_rgbd_is_levelled_and_its_bits_are_turned_back(tmp_path: Path) -> None:
    (pose,) = poses(1)
    level = pose.copy()
    level[:3, 3] = 0
    image, depth = plane(pose)
    metric = np.rint(depth * 1000).astype(np.uint16)
    write(tmp_path / "s" / "image" / "a.png", image)
    write(tmp_path / "s" / "depth" / "a.png", (metric << 3) | (metric >> 13))
    (tmp_path / "s" / "extrinsics").mkdir()
    tilt = level[:3, :3] @ np.linalg.inv(np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]))
    np.savetxt(tmp_path / "s" / "extrinsics" / "2020.txt", np.hstack([tilt, np.zeros((3, 1))]))
    np.savetxt(tmp_path / "s" / "intrinsics.txt", K)
    sample = open_source(f"rgbd:{tmp_path}", split="all").sample(0)
    np.testing.assert_allclose(sample["depth"][..., 0], metric / 1000, atol=1e-6)
    assert np.ptp(sample["points"][:, 2]) < 0.01  # the floor is level
    agrees(sample)


def test_what_is_wrong_is_told_by_its_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no scene there"):
        open_source(f"rgbd:{tmp_path}")
    here = scene(tmp_path / "a")
    (here / "intrinsics.txt").unlink()
    with pytest.raises(UserError, match=r"intrinsics\.txt"):
        open_source(f"rgbd:{here}")
    with pytest.raises(UserError, match="layout=kinect"):
        open_source(f"rgbd:{here}?layout=kinect")
    (here / "intrinsics.txt").write_text("40 40 19.5")
    with pytest.raises(UserError, match="3 numbers"):
        open_source(f"rgbd:{here}")
    (here / "intrinsics.txt").write_text("40 40 19.5 14.5")
    (here / "pose" / "1.txt").write_text("1 0 0")
    with pytest.raises(UserError, match=r"1\.txt: 3 numbers"):
        open_source(f"rgbd:{here}")


def test_y_up_becomes_z_up(tmp_path: Path) -> None:
    here = scene(tmp_path / "a", 1)
    pose = poses(1)[0]
    to_y = np.eye(4)
    to_y[1:3, 1:3] = [[0, 1], [-1, 0]]
    np.savetxt(here / "pose" / "0.txt", to_y @ pose)
    points = open_source(f"rgbd:{here}?up=y", split="all").read(0)
    assert np.ptp(points[:, 2]) < 0.01


def test_rooms_agree_with_their_cameras_classes_and_boxes() -> None:
    source = open_source("room-frames?train=1&test=0&frames=2&width=64&height=48&points=1500", split="all")
    sample = source.sample(0)
    agrees(sample, tolerance=6.0)
    parent, _ = rgbd_of(source)
    assert set(np.unique(sample["point_label"])) <= set(range(5))
    floor = sample["points"][sample["point_label"] == 0, 2]
    assert not len(floor) or np.ptp(floor) < 0.05
    for box in parent.boxes(0):
        inside = (np.abs(sample["points"][:, :3] - box[:3]) <= box[3:6] / 2 + 0.03).all(1)
        kind = 3 if box[6] == 0 else 4
        assert (sample["point_label"][inside] == kind).any()
    normals = depth_normals(backprojected(sample["depth"][..., 0], sample["camera"].intrinsics))
    np.testing.assert_allclose(np.linalg.norm(normals, axis=2), 1, atol=1e-6)
