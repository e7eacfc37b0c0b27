"""The timeline of a recording: scenes come out as groups, with their times, whatever clips they are read from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selftaught import evaluation, methods, report
from selftaught.data import open_source
from selftaught.errors import UserError
from selftaught.report.timeline import clock
from selftaught.run.timeline import timeline

av = pytest.importorskip("av")

SCENES = ((220, 30, 30), (30, 200, 60), (220, 30, 30), (40, 60, 220))
EACH, FPS = 48, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of four scenes of six seconds, the third like the first, and a short one."""
    root = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for name, scenes in (("day.mp4", SCENES), ("short.mp4", SCENES[:1])):
        with av.open(str(root / name), "w") as container:
            stream = container.add_stream("libx264", rate=FPS, options={"crf": "10"})
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            for k in range(EACH * len(scenes)):
                frame = np.full((48, 64, 3), scenes[k // EACH], np.uint8)
                frame[10:20, k % 50 : k % 50 + 10] = 255
                frame = np.clip(frame + rng.integers(-6, 7, frame.shape), 0, 255).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    return root


def method() -> Any:
    torch.manual_seed(0)
    found = methods.get("cvrl")(encoder="cnn-small-video", frames=4, stride=2, image_size=32, projector="16-8")
    return found.eval()


def scenes(section: dict[str, Any]) -> list[int]:
    """The group of each scene, where all moments that lie within one have the same."""
    start, end, group = (np.array(section[key]) for key in ("start", "end", "group"))
    found = []
    for k in range(len(SCENES)):
        within = (start >= k * EACH / FPS) & (end <= (k + 1) * EACH / FPS)
        assert within.sum() >= 4
        (only,) = set(group[within].tolist())
        found.append(only)
    return found


@pytest.mark.parametrize("options", ["", "?window=8&stride=8"])
def test_scenes_are_groups_at_their_times_and_like_scenes_one_group(folder: Path, options: str) -> None:
    section = timeline(open_source(f"{folder}{options}", split="all"), method())
    assert section is not None
    assert (section["name"], section["timed"]) == ("day.mp4", True)
    assert scenes(section) == [0, 1, 0, 2]
    assert section["end"][-1] == pytest.approx(len(SCENES) * EACH / FPS, abs=0.3)
    assert len(section["typical"]) == 3


def test_a_short_recording_has_no_timeline(folder: Path) -> None:
    assert timeline(open_source(str(folder / "short.mp4"), split="all"), method()) is None


def test_the_page_holds_the_strip_and_needs_no_network(folder: Path, tmp_path: Path) -> None:
    section = timeline(open_source(str(folder), split="all"), method())
    page = report.write(tmp_path / "r.html", [{"title": "one", "timeline": section}]).read_text()
    drawing = page[page.index('class="chart timeline"') :].split("</svg>")[0]
    assert [drawing.count(f"k-c{g}") for g in range(4)] == [2, 1, 1, 0]
    assert "6.0 s to 0:12: B" in drawing
    assert "0:12 to 0:18: A" in drawing
    assert "http://" not in drawing
    assert "https://" not in drawing
    assert "0.0 s to 6.0 s, 0:12 to 0:18" in page
    bad = section | {"group": [9] * len(section["group"])} if section else {}
    with pytest.raises(UserError, match=r"timeline\.group"):
        report.write(tmp_path / "r.html", [{"timeline": bad}])


def test_groups_are_as_many_as_set_themselves_apart() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(6)[[3, 0, 3, 5, 0, 1]]
    x = np.repeat(centres, 5, axis=0) + 0.05 * rng.standard_normal((30, 6))
    assert evaluation.moments(x).tolist() == np.repeat([0, 1, 0, 2, 1, 3], 5).tolist()
    assert evaluation.moments(np.ones((5, 3))).tolist() == [0] * 5
    with pytest.raises(UserError, match="2 rows"):
        evaluation.moments(x[:2])


def test_time_is_told_as_on_a_clock() -> None:
    assert [clock(t) for t in (0, 7.25, 75, 3723)] == ["0.0 s", "7.2 s", "1:15", "1:02:03"]
    assert clock(1234, timed=False) == "1,234"
