"""Numbers by file name: clips and images get the number of their line, and a run is judged by regression on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import selftaught
from selftaught.data import open_source
from selftaught.errors import UserError
from tests.data.helpers import folder_of

av = pytest.importorskip("av")


def hearts(root: Path, count: int = 24) -> Path:
    """Clips whose square swells by a share that the table names."""
    root.mkdir()
    lines = ["FileName,EF,ESV,Split"]
    for k in range(count):
        share = 10 + 3 * k
        with av.open(str(root / f"h{k:02d}.avi"), "w") as container:
            stream = container.add_stream("ffv1", rate=10)
            stream.height, stream.width, stream.pix_fmt = 32, 32, "gray"
            for t in range(8):
                frame = np.full((32, 32), 30, np.uint8)
                half = round((4 + share / 10) if t % 2 else 4)
                frame[16 - half : 16 + half, 16 - half : 16 + half] = 220
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
            container.mux(stream.encode())
        lines.append(f"h{k:02d},{share},{k / 2},{'TEST' if k % 3 == 2 else 'TRAIN'}")
    (root.parent / "list.csv").write_text("\n".join(lines))
    return root


def test_a_run_on_clips_is_judged_by_the_numbers_of_a_table(tmp_path: Path) -> None:
    root = hearts(tmp_path / "hearts")
    spec = f"{root}?targets={tmp_path / 'list.csv'}:EF"
    test = open_source(spec, split="test")
    assert test.names == [f"h{k:02d}.avi" for k in range(2, 24, 3)]
    assert test.targets is not None
    assert test.targets.tolist() == [10 + 3 * k for k in range(2, 24, 3)]
    run = selftaught.train(
        "cvrl", str(root), out=str(tmp_path / "run"), preset="laptop", steps=2, batch_size=8, frames=4, stride=1,
        device="cpu", workers=0, knn_every=0.0, quiet=True,
    )  # fmt: skip
    found = run.evaluate(data=spec, protocols=["regression"])["regression"]
    assert found["raw"].numbers["rho"].mean > 0.7  # how far the square swells stands in the pixels
    assert set(found) >= {"this", "random", "raw"}


def test_windows_of_a_recording_share_its_number_and_files_are_found_by_any_clear_name(tmp_path: Path) -> None:
    hearts(tmp_path / "hearts", 3)
    windows = open_source(f"{tmp_path / 'hearts'}?window=4&targets={tmp_path / 'list.csv'}:ESV", split="all")
    assert windows.targets is not None
    assert windows.targets.tolist() == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    folder_of(tmp_path / "pics", ["a/1.png", "b/1.png", "b/2.png"])
    (tmp_path / "t.csv").write_text("file,score\na/1.png,1.5\n2,-4\n1,100\nlost,7\n")
    pictures = open_source(f"{tmp_path / 'pics'}?targets={tmp_path / 't.csv'}", split="all")
    assert pictures.classes == ["a", "b"]
    assert pictures.targets is not None
    np.testing.assert_array_equal(pictures.targets, [1.5, np.nan, -4])  # two are called 1: neither is meant
    assert "1 of 3 samples have no number in t.csv" in pictures.notes


@pytest.mark.parametrize(
    ("table", "option", "says"),
    [
        ("name,EF\nx,1\n", "t.csv", "no line names a sample"),
        ("name,EF,ESV\nh00,1,2\n", "t.csv", "several columns of numbers"),
        ("name,EF\nh00,1\n", "t.csv:EV", "no column 'EV'"),
        ("name,EF\nh00,high\n", "t.csv:EF", "holds text, not numbers"),
        ("name,EF\nh00,high\n", "t.csv", "no column of numbers"),
        ("name,EF\nh00,1\n", "gone.csv:EF", "gone.csv: no such file"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_in_a_line(tmp_path: Path, table: str, option: str, says: str) -> None:
    hearts(tmp_path / "hearts", 2)
    (tmp_path / "t.csv").write_text(table)
    with pytest.raises(UserError, match=says):
        open_source(f"{tmp_path / 'hearts'}?targets={tmp_path / option}", split="all")
