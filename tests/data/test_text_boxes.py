"""Boxes of text: files, masks, the source that adds them, the photographs with letters, the detector."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from selftaught.data import open_source
from selftaught.data.text_boxes import LETTERING, Lettered, boxes_mask, detect_text, read_boxes
from selftaught.errors import SampleError, UserError
from selftaught.evaluation import residual_text


def test_files_of_boxes(tmp_path: Path) -> None:
    path = tmp_path / "a.boxes.txt"
    path.write_text("1 2 5 6\n\n1,2,5,2,5,6,1,6,Hotel 24\n1;2;5;6;Hotel\n", encoding="utf-8")
    found = read_boxes(path)
    assert found.shape == (3, 4, 2)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    path.write_text("1 2 x\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 1"):
        read_boxes(path)


def test_masks_are_dilated_more_up_and_down() -> None:
    mask = boxes_mask(np.array([[20, 20, 30, 24]]), 60, 60)
    rows, columns = np.flatnonzero((mask == 0).any(1)), np.flatnonzero((mask == 0).any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (12, 32, 16, 34)
    assert boxes_mask(np.zeros((0, 4, 2)), 5, 6).all()
    with pytest.raises(UserError, match="corners"):
        boxes_mask(np.zeros((2, 3)), 5, 6)


def test_pictures_get_their_masks(tmp_path: Path) -> None:
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((40, 50, 3), 90, np.uint8))
    (tmp_path / "a.boxes.txt").write_text("10 15 20 20", encoding="utf-8")
    source = Lettered(open_source(str(tmp_path), split="all"))
    assert [*source.fields] == ["image", LETTERING]
    assert [(source.sample(i)[LETTERING] == 0).any() for i in range(2)] == [True, False]
    assert "beside" in source.notes[-1]
    before = source.fingerprint()
    (tmp_path / "a.boxes.txt").write_text("10 15 20", encoding="utf-8")
    assert source.fingerprint() != before
    with pytest.raises(SampleError, match="line 1"):
        source.sample(0)
    none = Lettered(source.source, "none")
    assert none.sample(0)[LETTERING].all()
    for wrong in (str(tmp_path / "x"), str(tmp_path.parent)):
        with pytest.raises(UserError, match="boxes"):
            Lettered(source.source, wrong)


def test_lettered_photographs_and_the_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path))
    source = open_source("photos:lettered?test=1", split="test")
    one = source.sample(3)
    free = one[LETTERING] == 1
    assert np.array_equal(one["image"][free], one["clean"][free])
    assert (one["image"] != one["clean"]).any()
    assert len(detect_text(one["clean"])) == 0
    found = detect_text(one["image"])
    assert len(found) in (1, 2)
    for x, y in found.mean(1).astype(int):
        assert one[LETTERING][y, x] == 0
    again = Lettered(open_source([one["image"]], split="all"), "detect")
    assert np.array_equal(again.corners(0), found)
    assert [*(tmp_path / "text-boxes").glob("*.npz")]


def test_residual_text_counts_boxes() -> None:
    def detector(image: np.ndarray) -> np.ndarray:
        left = [x for x in (10, 40, 70) if image[5, x, 0] > 100]
        return np.array([[[x, 2], [x + 10, 2], [x + 10, 8], [x, 8]] for x in left], float)

    def picture(*places: int) -> np.ndarray:
        found = np.zeros((10, 90, 1), np.float32)
        for x in places:
            found[:, x : x + 10] = 1
        return found

    result = residual_text([picture(10, 40), picture(70)], [picture(40), picture(10)], detector)
    means = {name: number.mean for name, number in result.numbers.items()}
    assert means == pytest.approx({"erased": 2 / 3, "recall": 1 / 3, "precision": 0.5, "f1": 0.4})
    clean = residual_text([picture(10, 40)], [picture(40)], detector, clean=[picture(40)])
    assert clean.numbers["erased"].mean == 1
    given = residual_text([picture()], [picture(40)], detector, boxes=[np.array([[40, 0, 50, 10]])])
    assert given.numbers["recall"].mean == 1
    with pytest.raises(UserError, match="pass one"):
        residual_text([picture()], [], detector)
