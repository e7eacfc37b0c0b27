"""Clouds of points: every format gives the same columns, blocks cover a scan, batches are packed."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from selftaught.data import open_source
from selftaught.data.clouds import COLUMNS, CloudArrays, canonical, clouds_of, estimated_normals, point_classes
from selftaught.data.formats._pcd import decompressed
from selftaught.data.kinds import kind_of
from selftaught.data.kinds.points import pack, unpack
from selftaught.errors import SampleError, UserError

RNG = np.random.default_rng(0)
XYZ = np.round(RNG.uniform(0, 4, (50, 3)), 3)
RGB = RNG.integers(0, 256, (50, 3))
LABEL = RNG.integers(2, 5, 50)


def write_ply(path: Path, xyz: np.ndarray = XYZ, label: np.ndarray | None = LABEL) -> Path:
    """An ascii .ply with colour, intensity and, where given, labels."""
    rows = [*xyz.T, *RGB[: len(xyz)].T, np.arange(len(xyz)) / 10, *([] if label is None else [label])]
    kinds = [("double", c) for c in "xyz"] + [("uchar", c) for c in ("red", "green", "blue")] + [("float", "intensity")]
    kinds += [] if label is None else [("int", "label")]
    head = ["ply", "format ascii 1.0", f"element vertex {len(xyz)}", *(f"property {k} {n}" for k, n in kinds)]
    whole = ("uchar", "int")
    lines = [
        " ".join(str(int(v)) if k in whole else f"{v:.4f}" for v, (k, _) in zip(r, kinds, strict=True))
        for r in zip(*rows, strict=True)
    ]
    path.write_text("\n".join([*head, "end_header", *lines]) + "\n")
    return path


def write_pcd(path: Path, coding: str) -> Path:
    """A .pcd of x y z and a packed colour, with the given coding."""
    packed = (RGB[:, 0] << 16 | RGB[:, 1] << 8 | RGB[:, 2]).astype(np.uint32)
    head = f"# .PCD\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F U\nCOUNT 1 1 1 1\nPOINTS {len(XYZ)}\nDATA {coding}\n"
    if coding == "ascii":
        body = "\n".join(f"{a} {b} {c} {p}" for (a, b, c), p in zip(XYZ, packed, strict=True)).encode()
    elif coding == "binary":
        rows = np.empty(len(XYZ), [("xyz", "<f4", 3), ("rgb", "<u4")])
        rows["xyz"], rows["rgb"] = XYZ, packed
        body = rows.tobytes()
    else:
        flat = XYZ.astype("<f4").T.tobytes() + packed.tobytes()
        literal = b"".join(bytes([len(flat[a : a + 32]) - 1]) + flat[a : a + 32] for a in range(0, len(flat), 32))
        body = struct.pack("<II", len(literal), len(flat)) + literal
    path.write_bytes(head.encode() + body)
    return path


def write_las(path: Path) -> Path:
    """A .las or .laz with 16-bit colours, far from the origin."""
    laspy = pytest.importorskip("laspy")
    if path.suffix == ".laz" and not laspy.LazBackend.detect_available():
        pytest.skip("no library for .laz")
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.offsets, header.scales = (500000, 0, 0), (0.001,) * 3
    las = laspy.LasData(header)
    las.x, las.y, las.z = XYZ[:, 0] + 500000, XYZ[:, 1], XYZ[:, 2]
    las.red, las.green, las.blue = (RGB.T * 257).astype(np.uint16)
    las.classification = LABEL.astype(np.uint8)
    las.write(path)
    return path


def written(folder: Path, kind: str) -> Path:
    """The same cloud in one of the formats."""
    path = folder / f"scan.{kind.partition('-')[0]}"
    table = np.concatenate([XYZ, RGB], 1)
    if kind.startswith("pcd"):
        return write_pcd(path, kind.partition("-")[2])
    if kind == "npz":
        np.savez(path, coord=XYZ, color=RGB, label=LABEL)
    elif kind == "npy":
        np.save(path, table)
    elif kind in ("xyz", "txt"):
        np.savetxt(path, table, header="x y z r g b" if kind == "txt" else "", fmt="%.4f")
    else:
        return {"ply": write_ply, "las": write_las, "laz": write_las}[kind](path)
    return path


KINDS = ["ply", "pcd-ascii", "pcd-binary", "pcd-binary_compressed", "las", "laz", "npz", "npy", "xyz", "txt"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_points(kind: str, tmp_path: Path) -> None:
    source = open_source(str(written(tmp_path, kind)), modality="points", split="all")
    cloud = source.read(0)
    kind_of("points").check(cloud, "x")
    corner = np.floor(XYZ.min(0))
    np.testing.assert_allclose(cloud[:, :3], XYZ - corner, atol=6e-4)
    np.testing.assert_allclose(cloud[:, 3:6], RGB, atol=1e-3)
    assert (cloud[:, 6:9] == 0).all()
    if kind in ("ply", "las", "npz"):
        np.testing.assert_array_equal(source.sample(0)["point_label"], LABEL - 2)
    if kind == "las":
        assert point_classes(source) == ["ground", "low vegetation", "medium vegetation"]
        assert clouds_of(source)[0].cloud(0).corner[0] == 500000
    if kind == "ply":
        assert source.columns == (*COLUMNS, "intensity")
        assert source.fields["points"].channels == 10


def test_blocks_cover_a_scan_once_and_names_say_where(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply")
    write_ply(tmp_path / "b.ply", XYZ[:30], LABEL[:30])
    source = open_source(f"{tmp_path}?block=2", split="all")
    parts = [source.read(i) for i in range(len(source))]
    assert sum(map(len, parts)) <= 80
    assert all(np.ptp(part[:, :2], axis=0).max() <= 2 for part in parts)
    assert all(name.startswith(("a.ply@", "b.ply@")) for name in source.names)
    whole = CloudArrays([RNG.uniform(0, 3, (400, 9))], "x", block=1.5)
    assert sum(len(whole.read(i)) for i in range(len(whole))) == 400
    assert pickle.loads(pickle.dumps(source)).fingerprint() == source.fingerprint()
    assert set(source.groups.tolist()) == {0, 1}


def test_batches_are_packed_with_the_end_of_every_cloud() -> None:
    clouds = [RNG.random((n, 9)).astype(np.float32) for n in (5, 2, 7)]
    batch = pack(clouds)
    assert batch["coord"].shape == (14, 3)
    assert batch["feat"].shape == (14, 6)
    assert batch["offset"].tolist() == [5, 7, 14]
    for one, cloud in zip(unpack(batch), clouds, strict=True):
        np.testing.assert_array_equal(one.numpy(), cloud)
    assert [len(one) for one in unpack(batch, torch.zeros(14, 2))] == [5, 2, 7]
    with pytest.raises(UserError, match="3 rows where the packed batch has 14"):
        unpack(batch, torch.zeros(3, 2))
    with pytest.raises(UserError, match="4 and 9 columns make no batch"):
        pack([np.zeros((2, 9)), np.zeros((2, 4))])


def test_options_turn_scale_and_refuse(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply")
    tall = open_source(f"{tmp_path}?up=y&scale=0.5&features=none", split="all")
    place = tall.read(0)[:, :3]
    np.testing.assert_allclose(np.ptp(place, axis=0), np.ptp(XYZ[:, [0, 2, 1]], axis=0) / 2, atol=1e-3)
    assert tall.columns == COLUMNS
    with pytest.raises(UserError, match="features=depth: not every file has depth; common are intensity"):
        open_source(f"{tmp_path}?features=depth", split="all")
    with pytest.raises(UserError, match="up is y or z"):
        open_source(f"{tmp_path}?up=x", split="all")
    with pytest.raises(UserError, match="block=-1"):
        open_source(f"{tmp_path}?block=-1", split="all")
    (tmp_path / "broken.ply").write_text("ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\n")
    source = open_source(str(tmp_path), modality="points", split="all")
    with pytest.raises(SampleError, match=r"broken.ply"):
        source.read(1)


def test_columns_that_name_or_count_things_are_no_features_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    head = "ply\nformat ascii 1.0\nelement vertex 2\n" + "".join(
        f"property float {name}\n" for name in ("x", "y", "z", "intensity", "scan_id", "point_index", "return_number")
    )
    (tmp_path / "a.ply").write_text(head + "end_header\n0 0 0 1 7 8 1\n1 1 1 2 7 9 2\n")
    source = open_source(str(tmp_path), split="all")
    assert source.columns == (*COLUMNS, "intensity", "return_number")
    assert any("features beside colour and normal: intensity, return_number" in note for note in source.notes)
    assert open_source(f"{tmp_path}?features=scan_id", split="all").read(0)[:, -1].tolist() == [7, 7]
    (tmp_path / "b.ply").write_text(head.replace("intensity", "heat") + "end_header\n0 0 0 1 7 8 1\n")
    both = open_source(str(tmp_path), split="all")
    assert both.columns == (*COLUMNS, "return_number")
    assert any("left out: heat, intensity, which not every file has" in note for note in both.notes)


def test_what_a_file_lacks_is_neutral_and_bad_points_are_left_out() -> None:
    x = np.array([0.0, 1, np.nan, 2])
    cloud = canonical({"x": x + 7.5, "y": np.zeros(4), "z": np.zeros(4), "nx": x, "ny": x, "nz": x})
    assert cloud.row.tolist() == [0, 1, 3]
    assert cloud.corner.tolist() == [7, 0, 0]
    assert (cloud.points[:, 3:6] == 127.5).all()
    floats = canonical({a: np.zeros(2) for a in "xyz"} | {c: np.array([0.0, 1]) for c in ("red", "green", "blue")})
    assert floats.points[:, 3].tolist() == [0, 255]


def test_normals_of_a_tilted_plane() -> None:
    place = RNG.uniform(-1, 1, (200, 3))
    place[:, 2] = 0.5 * place[:, 0]
    wanted = np.array([-0.5, 0, 1]) / np.sqrt(1.25)
    np.testing.assert_allclose(estimated_normals(place), np.tile(wanted, (200, 1)), atol=1e-6)


def test_lzf_copies_may_read_what_they_write() -> None:
    packed = bytes([0, 65, (2 << 5), 0, 1, 66, 67])  # A, then 4 copies of the byte before, then B C
    assert decompressed(packed, 7) == b"AAAAABC"


def test_generated_rooms_say_so_and_have_their_classes() -> None:
    source = open_source("point-rooms?points=600&train=2&test=1", split="all")
    assert "generated by the program" in source.describe()
    assert point_classes(source) == ["floor", "wall", "box", "ball", "column"]
    sample = source.sample(0)
    assert sample["points"].shape == (600, 9)
    assert set(np.unique(sample["point_label"])) == set(range(5))
    np.testing.assert_allclose(np.linalg.norm(sample["points"][:, 6:9], axis=1), 1, atol=1e-5)
    again = open_source("point-rooms?points=600&train=2&test=1", split="all")
    np.testing.assert_array_equal(again.read(2), source.read(2))
    assert [len(open_source("point-rooms?points=600&train=2&test=1", split=s)) for s in ("train", "test")] == [2, 1]
    with pytest.raises(UserError, match="points=3 must be at least 256"):
        open_source("point-rooms?points=3")


# ---- layouts of data sets --------------------------------------------------------------------------------------------
def test_scannet_takes_its_coarse_mesh_and_the_labels_beside_it(tmp_path: Path) -> None:
    for scene in ("scene0000_00", "scene0001_00", "scene0707_00"):
        (tmp_path / scene).mkdir()
        mesh = tmp_path / scene / f"{scene}_vh_clean_2.ply"
        write_ply(mesh, label=None)
        write_ply(tmp_path / scene / f"{scene}_vh_clean.ply", XYZ[:9], None)
        if scene != "scene0707_00":  # a test scan has no labels
            label = np.resize([0, 1, 2, 13, 39], len(XYZ))
            write_ply(mesh.with_suffix(".labels.ply"), label=label)
    source = open_source(str(tmp_path), split="all")
    assert len(source) == 3
    assert source.notes[0] == "ScanNet: 3 scans (_vh_clean_2.ply), 2 with points of its 20 classes (.labels.ply)"
    assert point_classes(source) == ["wall", "floor", "other furniture"]
    sample = source.sample(0)
    assert sample["point_label"][:5].tolist() == [-1, 0, 1, -1, 2]  # unannotated, and blinds, which isn't judged
    assert (source.sample(2)["point_label"] == -1).all()
    write_ply(tmp_path / "scene0001_00/scene0001_00_vh_clean_2.labels.ply", XYZ[:9], LABEL[:9])
    with pytest.raises(SampleError, match="no label for each of its 50 points"):
        open_source(str(tmp_path), split="all").read(1)


def test_s3dis_takes_whole_rooms_with_classes_out_of_annotations(tmp_path: Path) -> None:
    table = np.concatenate((XYZ, RGB), 1)
    for area, room in (("Area_1", "office_1"), ("Area_1", "hallway_2"), ("Area_5", "lobby_1")):
        folder = tmp_path / area / room
        (folder / "Annotations").mkdir(parents=True)
        np.savetxt(folder / f"{room}.txt", table, fmt="%.3f")
        np.savetxt(folder / "Annotations" / "chair_1.txt", table[30:40][::-1], fmt="%.3f")
        np.savetxt(folder / "Annotations" / "stairs_1.txt", table[40:], fmt="%.3f")
        np.savetxt(folder / "Annotations" / "ceiling_1.txt", table[5:30], fmt="%.3f")
        (tmp_path / area / f"{area}_alignmentAngle.txt").write_text("## Global alignment\n")
    source = open_source(str(tmp_path), split="all")
    note = "S3DIS: 3 rooms of 2 areas, classes of points out of Annotations; Area_5 is the test part"
    assert source.notes[0] == note
    assert source.names == [
        "Area_1/hallway_2/hallway_2.txt",
        "Area_1/office_1/office_1.txt",
        "Area_5/lobby_1/lobby_1.txt",
    ]
    assert point_classes(source) == ["ceiling", "chair", "clutter"]
    sample = source.sample(1)
    assert sample["point_label"].tolist() == [-1] * 5 + [0] * 25 + [1] * 10 + [2] * 10
    np.testing.assert_allclose(sample["points"][:, 3:6], RGB)
    assert open_source(str(tmp_path), split="test").names == ["Area_5/lobby_1/lobby_1.txt"]
    one = open_source(str(tmp_path / "Area_1/office_1"), split="all")
    assert one.names == ["office_1.txt"]
    np.testing.assert_array_equal(one.sample(0)["point_label"], sample["point_label"])
