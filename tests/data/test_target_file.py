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
    table = tmp_path / "t.csv"
    table.write_text("file,score\na/1.png,1.5\n2,-4\nlost,7\n")
    pictures = open_source(f"{tmp_path / 'pics'}?targets={table}", split="all")
    assert pictures.classes == ["a", "b"]
    assert pictures.targets is not None
    np.testing.assert_array_equal(pictures.targets, [1.5, np.nan, -4])
    assert "1 of 3 samples have no number in t.csv" in pictures.notes


def test_a_bare_name_that_two_files_have_is_refused_and_a_whole_one_comes_first(tmp_path: Path) -> None:
    folder_of(tmp_path / "pics", ["a/1.png", "b/1.png", "b/2.png"])
    table = tmp_path / "t.csv"
    spec = f"{tmp_path / 'pics'}?targets={table}"
    for bare in ("1", "1.png"):
        table.write_text(f"file,score\na/1.png,1.5\n{bare},100\n")
        with pytest.raises(UserError, match=rf"t.csv: {bare} may be a/1.png or b/1.png; write names"):
            open_source(spec, split="all")
    table.write_text("file,score\na/1.png,1\n2.png,2\nb/2,3\n")
    with pytest.raises(UserError, match=r"b/2.png has the numbers 2 and 3"):
        open_source(spec, split="all")
    table.write_text("file,score\na/1.png,\nb/2,3\n2.png,\nb/2,3\na/1,\n")  # an empty cell is no second number
    assert open_source(spec, split="all").targets.tolist()[2] == 3
    folder_of(tmp_path / "deep", ["1.png", "a/1.png"])
    table.write_text("file,score\n1.png,5\na/1,6\n")
    whole = open_source(f"{tmp_path / 'deep'}?targets={table}", split="all")
    assert whole.targets is not None
    assert dict(zip(whole.names, whole.targets, strict=True)) == {"1.png": 5, "a/1.png": 6}


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
