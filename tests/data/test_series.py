from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
import torch

from selftaught.data import check, open_source
from selftaught.data.kinds.series import as_ct
from selftaught.data.series import time_axis, window_places
from selftaught.errors import SampleError, UserError

X = np.random.default_rng(0).normal(size=(12, 3, 40)).astype(np.float32)


@pytest.mark.parametrize("axes", ["nct", "ntc"])
def test_arrays_with_time_last_or_in_the_middle(tmp_path, axes):
    stored = X if axes == "nct" else np.ascontiguousarray(X.transpose(0, 2, 1))
    np.savez(tmp_path / "a.npz", x=stored, y=np.arange(12) % 3, subject=np.arange(12) // 4)
    source = open_source(tmp_path / "a.npz", modality="series", split="all")
    assert (source.modality, source.channels, len(source.classes)) == ("series", 3, 3)
    assert source.groups.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    got = source.read(5)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, X[5])
    train, test = (
        open_source(tmp_path / "a.npz", modality="series"),
        open_source(tmp_path / "a.npz", modality="series", split="test"),
    )
    assert not set(train.groups) & set(test.groups)


def test_the_rule_for_time_and_how_to_overrule_it():
    assert time_axis((9, 3, 40)) == 2
    assert time_axis((9, 40, 3)) == 1
    assert time_axis((9, 5, 5)) == 2
    assert open_source(X, modality="series", split="all", layout="ntc").read(0).shape == (40, 3)
    with pytest.raises(UserError, match="neither nct nor ntc"):
        open_source(X, modality="series", layout="cnt")


def test_one_channel_tensors_labels_and_rate():
    source = open_source(torch.from_numpy(X[:, 0]), modality="series", split="all", labels=list("ab" * 6), rate=25.0)
    assert (source.channels, source.rate, source.classes) == (1, 25.0, ["a", "b"])
    np.testing.assert_array_equal(source.read(3), X[3, :1])
    assert source.subset([1, 2]).rate == 25.0


def test_given_split_in_an_npz(tmp_path):
    np.savez(tmp_path / "a.npz", train_x=X[:8], train_y=np.arange(8) % 2, test_x=X[8:], test_y=np.arange(4) % 2)
    test = open_source(tmp_path / "a.npz", modality="series", split="test")
    assert test.names == ["test/00000", "test/00001", "test/00002", "test/00003"]
    np.testing.assert_array_equal(test.read(1), X[9])


def test_values_that_are_not_finite(tmp_path):
    broken = X.copy()
    broken[2, 1, 7] = np.nan
    source = open_source(broken, modality="series", split="all")
    with pytest.raises(SampleError, match="NaN or infinite") as error:
        source.read(2)
    assert error.value.name == "00002"
    assert source.read(1).shape == (3, 40)


def test_a_series_is_not_an_image():
    with pytest.raises(UserError, match="holds series samples, not image"):
        open_source(open_source(X, modality="series"), modality="image")
    with pytest.raises(UserError, match="watch holds series samples, not image; choose a method for series"):
        open_source("watch", modality="image")


def table(path, rows: np.ndarray, delimiter: str = ",", header: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, rows, delimiter=delimiter, header=header or "", comments="")
    if header is None:
        path.write_text(path.read_text().lstrip("\n"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", " "])
@pytest.mark.parametrize("header", [True, False])
def test_a_folder_of_recordings_in_windows(tmp_path, delimiter, header):
    rng = np.random.default_rng(0)
    rows = {
        name: rng.normal(size=(n, 3))
        for name, n in (("run/1.csv", 50), ("run/2.csv", 35), ("walk/3.csv", 41), ("walk/4.csv", 20))
    }
    for name, values in rows.items():
        table(tmp_path / name, values, delimiter, delimiter.join("xyz") if header else None)
    source = open_source(f"{tmp_path}?window=20&step=10", split="all")
    assert (source.modality, source.channels, source.classes) == ("series", 3, ["run", "walk"])
    assert source.names == [
        "run/1.csv@0", "run/1.csv@10", "run/1.csv@20", "run/1.csv@30", "run/2.csv@0", "run/2.csv@10",
        "walk/3.csv@0", "walk/3.csv@10", "walk/3.csv@20", "walk/4.csv@0",
    ]  # fmt: skip
    assert source.labels.tolist() == [0] * 6 + [1] * 4
    assert source.groups.tolist() == [0] * 4 + [1] * 2 + [2] * 3 + [3]
    np.testing.assert_allclose(source.read(3), rows["run/1.csv"][30:50].T, rtol=1e-6)
    train, test = (open_source(tmp_path, split=s, window=20, step=10) for s in ("train", "test"))
    assert set(train.groups) & set(test.groups) == set()
    assert set(test.labels) == {0, 1}


def test_whole_recordings_columns_and_given_split(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("train/a/1.csv", "train/b/2.csv", "test/a/3.csv", "test/b/4.csv"):
        table(tmp_path / name, rng.normal(size=(15, 4)), header="t,x,y,z")
    source = open_source(f"{tmp_path}?columns=x,3", split="test")
    assert (source.channels, source.labels.tolist(), list(source.names)) == (
        2,
        [0, 1],
        ["test/a/3.csv", "test/b/4.csv"],
    )
    values = np.loadtxt(tmp_path / "test/b/4.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(source.read(1), values[:, [1, 3]].T, rtol=1e-6)
    assert pickle.loads(pickle.dumps(source)).read(1).shape == (2, 15)


def test_bad_recordings_are_bad_samples(tmp_path):
    table(tmp_path / "good.csv", np.ones((10, 2)))
    table(tmp_path / "three.csv", np.ones((10, 3)))
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "ragged.csv").write_text("1,2\n" * 9 + "1,2,3\n")
    (tmp_path / "word.csv").write_text("1,2\n" * 9 + "1,two\n")
    (tmp_path / "hole.csv").write_text("1,2\n" * 9 + "1,\n")
    source = open_source(f"{tmp_path}?window=10", split="all")
    said = {}
    for i, name in enumerate(source.names):
        try:
            source.read(i)
        except SampleError as error:
            said[name] = error.reason
    assert said == {
        "empty.csv@0": "empty file",
        "hole.csv@0": "9 instants, shorter than the window of 10 (pad=true fills up with zeros)",
        "ragged.csv@0": "row 10 has 3 columns, the first 2",
        "three.csv@0": "3 channels where the source has 2",
        "word.csv@0": "row 10, column '1': not a number: 'two'",
    }


def test_recordings_of_unequal_length_want_a_window(tmp_path):
    table(tmp_path / "1.csv", np.ones((10, 2)))
    table(tmp_path / "2.csv", np.ones((14, 2)))
    with pytest.raises(UserError, match=r"recordings of 10 to 14 instants; cut them .* as '(.*)' does, or .*: '(.*)'"):
        open_source(tmp_path)
    for proposed, shape in ((f"{tmp_path}?window=8", (2, 8)), (f"{tmp_path}?pad=true", (2, 14))):
        with pytest.raises(UserError, match=re.escape(f"'{proposed}'")):
            open_source(tmp_path)
        assert open_source(proposed, split="all").read(0).shape == shape
    report = check(tmp_path)
    assert [file for file, _ in report.files] == ["1.csv", "2.csv"], (
        "what the columns were taken for is told all the same"
    )
    assert "recordings of 10 to 14 instants" in str(report)
    with pytest.raises(UserError, match="no recording is as long as the window of 99 samples; the longest has 14"):
        open_source(tmp_path, window=99)
    with pytest.raises(UserError, match="must be at least 1"):
        open_source(tmp_path, window=5, step=0)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"no recording in this folder or below; looked for \.csv"):
        open_source(tmp_path / "none", modality="series")


def test_windows_fit_and_do_not_cross_recordings():
    places = window_places([25, 9, 30], 10, 5)
    assert places.tolist() == [[0, 0], [0, 5], [0, 10], [0, 15], [2, 0], [2, 5], [2, 10], [2, 15], [2, 20]]


def test_single_series_as_channels_by_time():
    assert as_ct(np.zeros(9), "x").shape == (1, 9)
    assert as_ct(np.zeros((9, 2)), "x").shape == (2, 9)
    with pytest.raises(SampleError, match="zero length"):
        as_ct(np.zeros((2, 0)), "x")
    with pytest.raises(SampleError, match="no series"):
        as_ct(np.zeros((2, 2, 2)), "x")


HEAD = "#comment\n@problemName toy\n@timeStamps false\n@univariate false\n@classLabel true up down\n@data\n"


def test_ts_pair_with_unequal_length(tmp_path):
    (tmp_path / "toy_TRAIN.ts").write_text(HEAD + "1,2,3:4,5,6:up\n1.5,-2e1:0,1:down\n")
    (tmp_path / "toy_TEST.ts").write_text(HEAD + "9,8,7,6:1,1,1,1:down\n?,1:2,3:up\n")
    for spec in (tmp_path / "toy_TRAIN.ts", tmp_path / "toy_TEST.ts", tmp_path):
        source = open_source(spec, split="all")
        assert list(source.names) == ["train/00000", "train/00001", "test/00000", "test/00001"]
        assert source.classes == ["up", "down"]
        assert source.labels.tolist() == [0, 1, 1, 0]
        assert source.read(1).tolist() == [[1.5, -20, 0, 0], [0, 1, 0, 0]]
    test = open_source(tmp_path, split="test")
    assert test.read(0).tolist() == [[9, 8, 7, 6], [1, 1, 1, 1]]
    with pytest.raises(SampleError, match="NaN"):
        test.read(1)
    assert open_source(f"{tmp_path}?length=2", split="test").read(0).tolist() == [[9, 8], [1, 1]]


def test_ts_without_labels(tmp_path):
    (tmp_path / "a.ts").write_text("@problemName a\n@classLabel false\n@data\n1,2,3\n4,5,6\n")
    source = open_source(tmp_path / "a.ts", split="all")
    assert (source.labels, source.channels, source.read(1).tolist()) == (None, 1, [[4, 5, 6]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2:up\n", "no line @data"),
        (HEAD, "no series after @data"),
        (HEAD + "1,2:3,x:up\n", "line 7: not a number"),
        (HEAD + "1,2:3:up\n", "line 7: its channels have 1 to 2 values"),
        (HEAD + "1,2:3,4:up\n1,2:up\n", "1 to 2 channels"),
        (HEAD.replace("timeStamps false", "timeStamps true") + "(0,1):up\n", "time stamps are not supported"),
    ],
)
def test_broken_ts_files(tmp_path, text, said):
    (tmp_path / "a.ts").write_text(text)
    with pytest.raises(UserError, match=said):
        open_source(tmp_path / "a.ts")
