"""What an evaluation compares: classes by name, numbers by value; and what it refuses, or leaves out and says so."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch

import selftaught
from selftaught import UserError
from selftaught.data import open_source
from selftaught.engine.in_order import evaluation_batches
from selftaught.run import contenders, evaluating
from selftaught.run.features import check_channels, embed
from tests.conftest import TINY, write_photos

COLOURS = {"amber": (30, 160, 240), "cyan": (230, 220, 30), "lilac": (200, 80, 180), "moss": (40, 120, 60)}


def colours(folder: Path, names: dict[str, str], each: int = 12) -> Path:
    """Class folders of nearly plain pictures; called as ``names`` says."""
    rng = np.random.default_rng(len(names))
    for name, called in names.items():
        (folder / called).mkdir(parents=True, exist_ok=True)
        for k in range(each):
            image = np.clip(np.array(COLOURS[name]) + rng.normal(0, 12, (32, 32, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / called / f"{k}.png"), image)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> selftaught.Run:
    """A classifier that tells four colours apart."""
    folder = tmp_path_factory.mktemp("classifier")
    colours(folder / "train", {name: name for name in COLOURS}, each=24)
    options = {k: v for k, v in TINY.items() if k != "projector"} | {"steps": 60, "lr": 0.01, "augment": "grey"}
    run = selftaught.train("supervised", str(folder / "train"), out=str(folder / "run"), **options)
    assert run.evaluate(protocols=["classify"], baselines=False)["classify"]["this"]["accuracy"].mean > 0.9
    return run


@pytest.mark.slow
def test_classes_of_another_source_are_compared_by_name(classifier, tmp_path: Path) -> None:
    """Other order, one class less, one more: indices would be wrong for all of them."""
    other = colours(tmp_path / "other", {"moss": "Moss", "cyan": "cyan", "amber": "zebra"})
    for protocol in ("classify", "robustness"):
        found = classifier.evaluate(str(other), protocols=[protocol], baselines=False)[protocol]["this"]
        assert found["accuracy"].mean > 0.9
        assert "samples of classes that the run does not know (zebra) left out" in found.note
    strange = colours(tmp_path / "strange", {"moss": "0", "cyan": "1"})
    with pytest.raises(UserError, match=r"has none of the run's classes .amber, cyan, lilac"):
        classifier.evaluate(str(strange), protocols=["classify"], baselines=False)


def test_a_source_whose_classes_changed_since_is_still_compared_by_name(classifier, tmp_path: Path) -> None:
    own = colours(tmp_path / "more", {name: name for name in COLOURS} | {"amber": "aaa first"})
    found = classifier.evaluate(str(own), protocols=["classify"], baselines=False)["classify"]["this"]
    assert found["accuracy"].mean > 0.9
    assert "aaa first" in found.note


def test_numbers_are_predicted_by_their_value(tmp_path: Path) -> None:
    """Folders 5, 60 and 72.5: their codes 0, 1, 2 (sorted as text) are no numbers."""
    folder = colours(tmp_path / "data", {"moss": "5", "cyan": "60", "lilac": "72.5"})
    source = open_source(str(folder), split="all")
    values = evaluating.numbers_of(source)
    assert values is not None
    assert {(Path(n).parent.name, v) for n, v in zip(source.names, values, strict=True)} == {
        ("5", 5.0),
        ("60", 60.0),
        ("72.5", 72.5),
    }
    run = selftaught.train(
        "simclr", str(folder), out=str(tmp_path / "run"), augment="small", **TINY | {"steps": 4, "batch_size": 16}
    )
    found = run.evaluate(protocols=["regression"], baselines=False)["regression"]["this"]
    assert set(np.ravel(found.figures["scatter"]["truth"])) == {5.0, 60.0, 72.5}
    words = colours(tmp_path / "words", {"moss": "a", "cyan": "b"})
    assert evaluating.numbers_of(open_source(str(words), split="all")) is None
    with pytest.raises(UserError, match='protocols="regression" needs a number for each sample'):
        run.evaluate(str(words), protocols=["regression"])


def test_numbers_of_a_table_are_the_targets(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (60, 16, 16, 3), dtype=np.uint8)
    y = images.mean((1, 2, 3)) / 7 + 0.25
    y[3] = np.nan
    np.savez(tmp_path / "data.npz", images=images, y=y)
    options = TINY | {"steps": 2, "batch_size": 16}
    run = selftaught.train("simclr", str(tmp_path / "data.npz"), out=str(tmp_path / "run"), augment="small", **options)
    found = run.evaluate()
    assert list(found) == ["regression", "diagnostics"]
    truth = np.ravel(found["regression"]["raw"].figures["scatter"]["truth"])
    assert np.isin(np.round(truth, 6), np.round(y, 6)).all()
    assert found["regression"]["raw"]["rho"].mean > found["regression"]["random"]["rho"].mean - 1
    with pytest.raises(UserError, match='protocols="knn" needs labels'):
        run.evaluate(protocols=["knn"])


# ---- channels ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> selftaught.Run:
    """An encoder of RGB images."""
    folder = tmp_path_factory.mktemp("rgb")
    write_photos(folder / "in", count=32)
    options = TINY | {"steps": 2, "batch_size": 16}
    return selftaught.train("simclr", str(folder / "in"), out=str(folder / "run"), augment="small", **options)


def test_evaluate_and_apply_agree_on_grey_and_alpha(run, tmp_path: Path) -> None:
    write_photos(tmp_path / "grey", count=20, channels=1)
    write_photos(tmp_path / "alpha", count=20, channels=4)
    for name in ("grey", "alpha"):
        folder = str(tmp_path / name)
        assert run.evaluate(folder, protocols=["knn"])["knn"]["this"]["accuracy"].mean >= 0
        out = tmp_path / f"{name}.npy"
        assert run.apply(folder, out, workers=0) == 20
        x, _, _ = embed(run.method, open_source(folder, split="all"), workers=0)
        np.testing.assert_allclose(np.load(out), x, rtol=1e-2, atol=1e-2)
    grey = cv2.imread(str(tmp_path / "grey/class0/000.png"))
    (tmp_path / "same").mkdir()
    cv2.imwrite(str(tmp_path / "same/000.png"), grey)
    x, _, _ = embed(run.method, open_source(str(tmp_path / "same"), split="all"), workers=0)
    np.testing.assert_allclose(np.load(tmp_path / "grey.npy")[0], x[0], rtol=1e-2, atol=1e-2)


def test_other_channels_are_one_line_everywhere(run, tiny_run, tmp_path: Path) -> None:
    write_photos(tmp_path / "seven", count=20, channels=7)
    write_photos(tmp_path / "bands", count=20, channels=3)
    for path in sorted((tmp_path / "bands").rglob("*.png")):  # red, green, blue and near infrared
        image = np.concatenate([cv2.imread(str(path)), np.full((48, 48, 1), 90, np.uint8)], axis=2)
        tifffile.imwrite(path.with_suffix(".tif"), image, photometric="rgb", extrasamples=["unspecified"])
        path.unlink()
    said = {"seven": "has 7 channels, the run was", "bands": "fourth is not marked as transparency, and the run was"}
    for name, problem in said.items():
        for call in (
            lambda name=name: run.evaluate(str(tmp_path / name), protocols=["knn"]),
            lambda name=name: run.evaluate(str(tmp_path / name)),
            lambda name=name: run.evaluate(str(tmp_path / name), protocols=["layerwise"]),
            lambda name=name: run.apply(str(tmp_path / name), tmp_path / "e.npy"),
        ):
            with pytest.raises(UserError, match=f"{problem} trained on 3"):
                call()
    write_photos(tmp_path / "colour", count=20)
    source = open_source(str(tmp_path / "colour"), split="all")
    with pytest.raises(UserError, match=r"ask for grey: colour\?channels=1"):
        check_channels(tiny_run.method, source)
    asked = open_source(f"{tmp_path / 'colour'}?channels=1", split="all")
    check_channels(tiny_run.method, asked)


# ---- whose fault it is -------------------------------------------------------------------------------------------
def test_a_bug_is_never_taken_for_a_bad_sample(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.zeros((6, 20, 20, 3), np.uint8)
    source = open_source(images, split="all")
    monkeypatch.setattr("selftaught.engine.in_order.render", lambda *_: int("no number"))
    with pytest.raises(ValueError, match="invalid literal"):
        list(evaluation_batches(source, run.method.evaluation_view(), workers=0))
    monkeypatch.undo()
    from selftaught.errors import SampleError

    def broken(i: int, *_: object) -> np.ndarray:
        if i == 2:
            raise SampleError("2", "cut short")
        return images[i]

    monkeypatch.setattr(source, "read", broken)
    (batch,) = evaluation_batches(source, run.method.evaluation_view(), workers=0)
    assert batch["index"].tolist() == [0, 1, 3, 4, 5]
    assert [tuple(pair) for pair in batch["skipped"]] == [(2, "cut short")]


@pytest.mark.parametrize(
    ("error", "shape"),
    [
        (AssertionError("Input height (64) doesn't match model (224)."), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), True),
        (RuntimeError("Given input size: (3x4x4). Calculated output size: (3x0x0). Output size is too small"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (input size ...)"), False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"), False),
        (ValueError("not enough values to unpack (expected 2, got 1)"), False),
        (RuntimeError("expected scalar type Float but found BFloat16"), False),
    ],
)
def test_a_full_memory_or_a_bug_is_not_a_wrong_size(run, monkeypatch, error: Exception, shape: bool) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(contenders, "maps_of", fail)
    contender = contenders.Contender("this", run.method)
    if shape:
        assert contender._takes(32, 48) is False
    else:
        with pytest.raises(type(error)):
            contender._takes(32, 48)


def test_where_no_sample_can_be_used_the_first_reason_is_said(tmp_path: Path) -> None:
    """Counts of unknown range, by a run of eight bits: the files are fine, and `data check` would say so."""
    write_photos(tmp_path / "photos", count=8, classes=1)
    run = selftaught.train("simclr", str(tmp_path / "photos"), out=str(tmp_path / "run"), **TINY | {"batch_size": 8})
    (tmp_path / "counts").mkdir()
    for i in range(4):
        counts = np.random.default_rng(i).integers(0, 2000, (40, 40), dtype=np.uint16)
        cv2.imwrite(str(tmp_path / "counts" / f"{i}.png"), counts)
    with pytest.raises(UserError, match="none of its 4 samples can be used, the first because: 16-bit values up to"):
        run.evaluate(str(tmp_path / "counts"))
