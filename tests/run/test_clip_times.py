"""Embeddings of clips come with the time at which each clip begins and ends."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import selftaught
from selftaught.data import open_source


def test_a_table_of_windows_has_their_times(tmp_path: Path) -> None:
    options = {"encoder": "cnn-small-video", "frames": 4, "stride": 1, "image_size": 16, "steps": 1, "batch_size": 4}
    run = selftaught.train("video-rotnet", "motion?train=6&test=0&frames=12&side=16", out=str(tmp_path / "run"),
                           quiet=True, knn_every=0, workers=0, **options)  # fmt: skip
    assert run.apply("motion?train=3&test=0&frames=10&side=16", tmp_path / "whole.parquet") == 3
    table = pq.read_table(tmp_path / "whole.parquet")
    assert table["start"].to_pylist() == [0.0] * 3
    assert table["end"].to_pylist() == pytest.approx([9 / 25] * 3)


def test_times_of_a_video_follow_its_stamps(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "uneven.mkv"
    shown = [0, 40, 80, 200, 240, 400, 440, 480]  # milliseconds
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        stream.codec_context.time_base = Fraction(1, 1000)
        for at in shown:
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), at % 256, np.uint8), format="rgb24")
            frame.pts, frame.time_base = at, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    source = open_source(str(path) + "?window=3&stride=2", split="all")
    assert [source.seconds(i) for i in range(len(source))] == [
        pytest.approx((shown[k] / 1000, shown[k + 2] / 1000)) for k in (0, 2, 4)
    ]
    even = open_source(str(path) + "?window=3&stride=2&fps=10", split="all")
    assert even.seconds(1) == pytest.approx((0.2, 0.4))
    assert open_source("photos?train=1&test=1", split="all").seconds(0) is None
