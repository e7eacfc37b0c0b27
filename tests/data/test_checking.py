from __future__ import annotations

import json

import numpy as np
import pytest

from selftaught.data import check
from selftaught.errors import UserError
from tests.data.helpers import encode, folder_of, picture, write


def test_a_folder_with_faults(tmp_path):
    folder_of(tmp_path, ["cat/1.png", "cat/2.png", "dog/1.png"])
    write(tmp_path / "dog" / "empty.png", b"")
    write(tmp_path / "dog" / "grey.png", picture(10, 12, 1))
    write(tmp_path / "cat" / "cut.jpg", encode(picture(), "JPEG")[:-9])
    np.save(tmp_path / "dog" / "two.npy", np.zeros((9, 12, 2), np.uint8))
    seen = []
    report = check(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert report.problems == [
        ("cat/cut.jpg", "truncated JPEG"),
        ("dog/empty.png", "empty file"),
        ("dog/two.npy", "2 channels where the source has 3"),
    ]
    assert (report.total, report.ok) == (7, 4)
    assert report.share == pytest.approx(3 / 7)
    assert report.channels == {3: 3, 1: 1}
    assert report.shapes == {"20x24": 3, "10x12": 1}
    assert (report.smallest, report.largest) == (10, 24)
    assert report.dtypes == {"uint8": 4}
    assert report.classes == {"cat": 2, "dog": 2}
    assert seen == [(k, 7) for k in range(1, 8)]
    text = str(report)
    assert "4 of 7 can be read" in text
    assert "dog/empty.png: empty file" in text
    assert json.loads(json.dumps(report.to_dict()))["ok"] == 4


def test_a_series_source_and_a_range():
    report = check("watch")
    assert (report.shapes, report.channels, report.groups) == ({"200": 2229}, {6: 2229}, 10)
    assert sum(report.classes.values()) == 2229
    images = np.random.default_rng(0).integers(0, 5000, (6, 9, 9, 5)).astype(np.uint16)
    report = check(images)
    assert len(report.value_range) == 5
    assert report.dtypes == {"uint16": 6}
    assert "scaled to eight bits from" in str(report)


def test_one_split_with_options(tmp_path):
    assert check("digits?n=50", split="test").total == 50
    with pytest.raises(UserError, match="no such file"):
        check(tmp_path / "gone")
