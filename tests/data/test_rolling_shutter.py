"""Rolling-shutter pairs: made of videos row by row, and given ones with their frames' names."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from selftaught import UserError
from selftaught.data import open_source
from selftaught.data.rolling_shutter import DualReversed, pair_frames, rolled_pair
from selftaught.errors import SampleError


def moving(count: int, height: int = 40, width: int = 60, speed: float = 2.0) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    one = [127 + 60 * np.sin((x - speed * t) / 5) + 50 * np.cos(y / 4 + (x - speed * t) / 9) for t in range(count)]
    return np.rint(np.repeat(np.stack(one)[..., None], 3, 3)).astype(np.uint8)


def write(folder: Path, frames: np.ndarray, names: list[str] | None = None) -> None:
    folder.mkdir(parents=True)
    for k, frame in enumerate(frames):
        cv2.imwrite(str(folder / (names[k] if names else f"{k:03d}.png")), frame)


def test_a_row_shows_its_own_time() -> None:
    frames = moving(5)
    height, y = 40, np.arange(40)
    for between, most in (("flow", 2.5), ("linear", 4.0), ("nearest", 0.0)):
        down, up = rolled_pair(frames, between)  # type: ignore[arg-type]
        np.testing.assert_array_equal(down[0], frames[0, 0])
        np.testing.assert_array_equal(down[-1], frames[4, -1])
        np.testing.assert_array_equal(up[0], frames[4, 0])
        np.testing.assert_array_equal(up[-1], frames[0, -1])
        if between == "nearest":
            np.testing.assert_array_equal(down, frames[np.rint(y / 39 * 4).astype(int), y])
            continue
        wanted = np.stack([moving(1, height)[0, 0]] * height).astype(float)
        x = np.arange(60)
        for row in range(height):
            moved = x - 2.0 * 4 * row / 39
            wanted[row] = (127 + 60 * np.sin(moved / 5) + 50 * np.cos(row / 4 + moved / 9))[:, None]
        assert np.abs(down - wanted)[:, 8:-8].mean() < most
    still = np.repeat(moving(1), 3, 0)
    np.testing.assert_array_equal(rolled_pair(still)[1], still[0])
    with pytest.raises(UserError, match="two frames"):
        rolled_pair(frames[:1])
    with pytest.raises(UserError, match="between=blend"):
        rolled_pair(frames, "blend")  # type: ignore[arg-type]


def test_pairs_are_made_of_plain_videos(tmp_path: Path) -> None:
    write(tmp_path / "a" / "one", moving(9))
    write(tmp_path / "a" / "short", moving(2))
    pairs = DualReversed(open_source(str(tmp_path / "a"), modality="clip", split="all"), readout=4)
    assert [name.rpartition("/")[2] for name in pairs.names] == ["one#0", "one#2", "one#4"]
    assert any("short" in note and "2 frames where 5" in note for note in pairs.notes)
    sample = pairs.sample(1)
    assert {name: value.shape for name, value in sample.items() if name in ("clip", "rows", "gs")} == {
        "clip": (2, 40, 60, 3), "rows": (40, 60, 1), "gs": (5, 40, 60, 3),
    }  # fmt: skip
    np.testing.assert_allclose(sample["rows"][:, 3, 0], np.arange(40) / 39, atol=1e-7)
    np.testing.assert_array_equal(sample["clip"], rolled_pair(sample["gs"]))
    small = DualReversed(pairs.source, readout=4, side=20)
    assert small.read(0).shape == (2, 20, 30, 3)
    assert small.fingerprint() != pairs.fingerprint()
    with pytest.raises(UserError, match="readout fewer"):
        DualReversed(pairs.source, readout=9)


def test_given_pairs_are_taken_frame_by_frame(tmp_path: Path) -> None:
    gs = moving(9)
    pairs = [rolled_pair(gs[:3]), rolled_pair(gs[4:7])]
    write(tmp_path / "down" / "x", np.stack([p[0] for p in pairs]))
    write(tmp_path / "up" / "x", np.stack([p[1] for p in pairs]))
    write(tmp_path / "clean" / "x", np.concatenate((gs[:3], gs[4:7])))
    spec = f"pairs:{tmp_path}?t2b=down&b2t=up"
    source = open_source(spec, modality="clip", split="all")
    assert pair_frames(source, 0) == 2
    found = DualReversed(source)
    assert len(found) == 2
    assert "gs" not in found.fields
    np.testing.assert_array_equal(found.read(1), pairs[1])
    known = DualReversed(open_source(f"{spec}&gs=clean", modality="clip", split="all"))
    np.testing.assert_array_equal(known.sample(1, ["gs"])["gs"], gs[4:7])
    part = DualReversed(open_source(f"{spec}&gs=clean", modality="clip", split="all").subset([0]))
    np.testing.assert_array_equal(part.sample(1, ["gs"])["gs"], gs[4:7])


def test_frames_that_are_no_pair_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "down" / "x", moving(2), ["a.png", "b.png"])
    write(tmp_path / "up" / "x", moving(2), ["a.png", "c.png"])
    write(tmp_path / "few" / "x", moving(1))
    source = open_source(f"pairs:{tmp_path}?t2b=down&b2t=up", modality="clip", split="all")
    with pytest.raises(SampleError, match=r"b.png and c.png are no partners"):
        pair_frames(source, 0)
    source = open_source(f"pairs:{tmp_path}?t2b=down&b2t=few", modality="clip", split="all")
    with pytest.raises(SampleError, match=r"2 frames read downwards \(t2b\), 1 upwards"):
        pair_frames(source, 0)
    with pytest.raises(UserError, match="no rolling-shutter pair"):
        DualReversed(source)
