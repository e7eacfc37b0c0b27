"""Features per point of a run: judged, written beside a scan's own attributes, shown as a cloud, exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import selftaught
from selftaught.data import open_source
from selftaught.data.clouds import clouds_of
from selftaught.errors import UserError
from selftaught.run.outputs._clouds import features_of
from selftaught.run.outputs.point_features import _shown
from tests.data.test_points import XYZ, write_las, write_ply
from tests.methods.test_masked_scene_modeling import ROOMS, TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("points") / "run"
    return selftaught.train("masked-scene-modeling", ROOMS, out=str(folder), steps=3, batch_size=2, quiet=True, **TINY)


def test_features_are_written_beside_what_a_file_has(run, tmp_path: Path) -> None:
    plyfile, laspy = pytest.importorskip("plyfile"), pytest.importorskip("laspy")
    scans = tmp_path / "scans"
    scans.mkdir()
    write_ply(scans / "a.ply")
    write_las(scans / "b.las")
    np.savetxt(scans / "c.xyz", np.concatenate((XYZ, 200 * np.ones((50, 3))), 1))
    spec = f"{scans}?features=none"
    written = run.apply(spec, tmp_path / "out", components="5")
    assert (int(written), written.kept) == (3, 0)
    ply = plyfile.PlyData.read(str(tmp_path / "out/a.ply"))["vertex"].data
    assert ply.dtype.names[:8] == ("x", "y", "z", "red", "green", "blue", "intensity", "label")
    assert ply.dtype.names[8:] == (*[f"f{k}" for k in range(5)], "pca_red", "pca_green", "pca_blue")
    np.testing.assert_allclose(ply["x"], XYZ[:, 0])
    las = laspy.read(tmp_path / "out/b.las")
    np.testing.assert_allclose(las.x, XYZ[:, 0] + 500000, atol=1e-3)
    np.testing.assert_allclose(las.f0, ply["f0"], atol=0.05)
    np.testing.assert_allclose(
        np.sort(plyfile.PlyData.read(str(tmp_path / "out/c.ply"))["vertex"].data["x"]), np.sort(XYZ[:, 0]), atol=1e-6
    )
    assert run.apply(spec, tmp_path / "out", components="5").kept == 3
    whole = run.apply(f"{scans / 'a.ply'}?features=none", tmp_path / "all", components="all")
    assert int(whole) == 1
    found = plyfile.PlyData.read(str(tmp_path / "all/a.ply"))["vertex"].data
    source = open_source(f"{scans / 'a.ply'}?features=none", split="all")
    wanted = features_of(run.method, source.cloud(0))
    np.testing.assert_allclose(np.stack([found[f"f{k}"] for k in range(32)], 1), wanted, atol=1e-5)
    with pytest.raises(UserError, match='components="no'):
        run.apply(spec, tmp_path / "bad", components="no")
    with pytest.raises(UserError, match="has 10 channels"):
        run.apply(str(scans / "a.ply"), tmp_path / "bad")


def test_nothing_of_a_file_is_lost_and_no_scan_overwrites_another(run, tmp_path: Path) -> None:
    plyfile = pytest.importorskip("plyfile")
    scans = tmp_path / "scans"
    scans.mkdir()
    write_ply(scans / "mesh.ply")
    plain = plyfile.PlyData.read(str(scans / "mesh.ply"))
    faces = np.array([([0, 1, 2],), ([3, 1, 2],)], dtype=[("vertex_indices", "i4", (3,))])
    mesh = [plain["vertex"], plyfile.PlyElement.describe(faces, "face")]
    plyfile.PlyData(mesh, comments=["of the living room"]).write(str(scans / "mesh.ply"))
    tracks = np.concatenate((XYZ, np.arange(50.0)[:, None] + 1_600_000_000, np.arange(50.0)[:, None]), 1)
    tracks[7, 0] = np.nan
    np.savetxt(scans / "room.pts", tracks, header="x y z gps_time point_id", fmt="%.4f")
    np.savetxt(scans / "room.xyz", XYZ[:40], fmt="%.4f")
    done = run.apply(f"{scans}?features=none", tmp_path / "out", components="2")
    assert int(done) == 3
    assert int(run.apply(f"{scans / 'mesh.ply'}?features=none", tmp_path / "one.ply")) == 1
    assert len(plyfile.PlyData.read(str(tmp_path / "one.ply"))["face"]) == 2
    with pytest.raises(UserError, match="3 samples don't go into one file"):
        run.apply(f"{scans}?features=none", tmp_path / "all.ply")
    with pytest.raises(UserError, match="give a folder"):
        run.apply(f"{scans / 'mesh.ply'}?features=none", tmp_path / "one.las")
    found = plyfile.PlyData.read(str(tmp_path / "out/mesh.ply"))
    assert [row.tolist() for row in found["face"]["vertex_indices"]] == [[0, 1, 2], [3, 1, 2]]
    assert found.comments == ["of the living room"]
    rows = {p.name: plyfile.PlyData.read(str(p))["vertex"].data for p in (tmp_path / "out").glob("room*.ply")}
    assert sorted((name, len(own)) for name, own in rows.items()) == [("room.ply", 50), ("room~2.ply", 40)]
    kept = rows["room.ply"]
    assert kept.dtype.names == ("x", "y", "z", "gps_time", "point_id", "f0", "f1", "pca_red", "pca_green", "pca_blue")
    np.testing.assert_allclose(kept["gps_time"], tracks[:, 3])
    np.testing.assert_allclose(kept["x"], tracks[:, 0], atol=6e-5)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(kept["f0"])), [7])


def test_blocks_of_a_large_scan_have_the_features_of_the_whole(run) -> None:
    cloud = clouds_of(open_source(ROOMS))[0].cloud(0)
    whole, parts = features_of(run.method, cloud), features_of(run.method, cloud, block=1.5)
    assert whole.shape == (400, 32)
    np.testing.assert_allclose(parts, whole, atol=1e-5)  # the margin holds the whole of this room


def test_it_is_judged_beside_an_untrained_one_and_the_input(run) -> None:
    found = run.evaluate()
    assert set(found) == {"point-linear", "point-knn", "point-pca"}
    assert set(found["point-linear"]) == {"this", "random", "raw"}
    with pytest.raises(UserError, match=r'protocols="knn": .*it may be point-linear'):
        run.evaluate(protocols=["knn"])
    page = run.report().read_text(encoding="utf-8")
    assert 'data-cloud="' in page
    assert "http" not in page.split("<canvas")[1].split("</figure>")[0]
    section = json.loads((run.path / "sections.json").read_text())["clouds"][0]
    assert section["classes"] == ["floor", "wall", "box", "ball", "column"]
    assert len(section["xyz"]) == len(section["label"]) == 400


def test_scans_without_labels_among_labelled_ones_are_shown_too(run, tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply", label=None)
    write_ply(tmp_path / "b.ply")
    source = open_source(f"{tmp_path}?features=none", split="all")
    first, second = _shown(run.method, source)
    assert (first["name"], second["name"]) == ("a.ply", "b.ply")
    assert "label" not in first
    assert len(second["label"]) == len(second["xyz"]) == 50


def test_without_labels_components_are_measured_and_weights_exported(run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(3):
        np.savetxt(tmp_path / f"{k}.xyz", np.concatenate((rng.uniform(0, 2, (200, 3)), np.full((200, 3), 99.0)), 1))
    found = run.evaluate(str(tmp_path), baselines=False)
    assert set(found) == {"point-pca"}
    with pytest.raises(UserError, match="no label"):
        run.evaluate(str(tmp_path), protocols=["point-knn"])
    out = run.export()
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["build"]["name"] == "hunet"
    assert card["columns"].startswith("x y z")
    with pytest.raises(UserError, match="use safetensors"):
        run.export("onnx")
