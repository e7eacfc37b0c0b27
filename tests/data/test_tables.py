from __future__ import annotations

import datetime as dt
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from selftaught.data import check, open_source
from selftaught.data.clocks import clock_of, resample, seconds_of_text, unit_of
from selftaught.data.tables import read_table
from selftaught.errors import SampleError, UserError

RNG = np.random.default_rng(0)
XYZ = RNG.normal(size=(60, 3)).round(4)


def write(path, header: str | None, rows, sep: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [] if header is None else [header]
    path.write_text("\n".join([*lines, *(sep.join(str(v) for v in row) for row in rows)]) + "\n", encoding="utf-8")


def opened(path, **options):
    return open_source(path, split="all", modality="series", **options)


def stamps(n: int, step: float, style: str, start: float = 1.7e9) -> list[str]:
    moments = [dt.datetime.fromtimestamp(start + i * step, dt.UTC) for i in range(n)]
    return [m.strftime(style) for m in moments]


STYLES = [
    "%Y-%m-%d %H:%M:%S.%f",
    "%Y-%m-%dT%H:%M:%S.%fZ",
    "%d.%m.%Y %H:%M:%S.%f",
    "%m/%d/%Y %I:%M:%S.%f %p",
    "%d-%b-%Y %H:%M:%S.%f",
    "%H:%M:%S.%f",
    "%Y-%m-%dT%H:%M:%S.%f+02:00",
]


@pytest.mark.parametrize("style", STYLES)
def test_text_stamps_tell_the_rate_and_are_no_channel(tmp_path, style):
    rows = [[s, *xyz] for s, xyz in zip(stamps(60, 0.02, style), XYZ, strict=True)]
    write(tmp_path / "a.csv", "when,x,y,z", rows)
    source = opened(tmp_path / "a.csv")
    assert (source.channels, source.rate) == (3, 50.0)
    np.testing.assert_allclose(source.read(0), XYZ.T, rtol=1e-6)


def test_stamps_to_seconds():
    seconds = seconds_of_text(pa.array(["2024-05-01T12:00:00.25+02:00", None, "2024-05-01 10:00:01"]))
    wanted = dt.datetime(2024, 5, 1, 10, 0, 0, 250_000, tzinfo=dt.UTC).timestamp()
    assert seconds[0] == wanted
    assert np.isnan(seconds[1])
    assert seconds[2] == wanted + 0.75
    assert seconds_of_text(pa.array(["23:59:59", "00:00:01"])).tolist() == [86399, 86401]
    assert np.diff(seconds_of_text(pa.array(["1/31/2024 1:00", "2/1/2024 1:00"]))).tolist() == [86400]
    assert np.diff(seconds_of_text(pa.array(["31/1/2024 1:00", "1/2/2024 1:00"]))).tolist() == [86400]
    assert np.diff(seconds_of_text(pa.array(["2024-05-01 12:00:00+02", "2024-05-01 10:00:00 GMT"]))).tolist() == [0]
    assert np.diff(seconds_of_text(pa.array(["2024-05-01 12:00-05:30", "2024-05-01 12:00Z"]))).tolist() == [-19800]
    assert np.diff(seconds_of_text(pa.array(["12:30 AM", "12:30 PM"]))).tolist() == [43200]
    for cells in (["walk", "run"], ["12:00", "walk"], ["2024-13-01", "2024-13-02"], [""]):
        assert seconds_of_text(pa.array(cells)) is None


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("time", 1.0),
        ("t", 1.0),
        ("timestamp_ms", 1e3),
        ("Time (s)", 1.0),
        ("time_us", 1e6),
        ("seconds_elapsed", 1.0),
        ("unix", 1.0),
        ("zeit [s]", 1.0),
    ],
)
def test_numeric_time_is_no_channel_and_tells_the_rate(tmp_path, name, scale):
    rows = [[round((1e3 + i * 0.04) * scale, 3), *xyz] for i, xyz in enumerate(XYZ)]
    write(tmp_path / "a.csv", f"{name},x,y,z", rows)
    source = opened(tmp_path / "a.csv")
    assert (source.channels, source.rate) == (3, 25.0)
    np.testing.assert_allclose(source.read(0), XYZ.T, rtol=1e-6)


def test_epochs_tell_their_unit_by_their_size():
    for digits, factor in ((1.7e9, 1.0), (1.7e12, 1e-3), (1.7e15, 1e-6), (1.7e18, 1e-9)):
        assert unit_of("timestamp", digits + np.arange(9.0)) == factor
    assert unit_of("timestamp", np.arange(9.0) * 20) is None
    assert unit_of("time", np.arange(9.0) * 20, "ms") == 1e-3


def test_a_unix_time_is_time_whatever_it_is_called(tmp_path):
    write(tmp_path / "a.csv", "x,moment,y", [[x, 1700000000000 + 40 * i, y] for i, (x, y, _) in enumerate(XYZ)])
    source = opened(tmp_path / "a.csv")
    assert (source.channels, source.rate) == (2, 25.0)


def test_time_without_a_header_and_windows_that_cannot_tell_the_recording(tmp_path):
    for k in range(3):
        write(tmp_path / f"{k}.csv", None, [[1.7e9 + 1e4 * k + i * 0.1, *xyz] for i, xyz in enumerate(XYZ)])
    source = opened(tmp_path, window=20)
    assert (source.channels, len(source)) == (3, 9)
    np.testing.assert_array_equal(source.read(0), source.read(3))
    assert opened(tmp_path, window=20, time="none").channels == 4


def test_running_numbers_labels_and_words_are_no_channels(tmp_path):
    rows = [[i, *xyz, "walking", 7, 3] for i, xyz in enumerate(XYZ)]
    write(tmp_path / "a.csv", ",x,y,z,activity,subject,heart", rows)
    source = opened(tmp_path / "a.csv")
    assert source.channels == 4
    np.testing.assert_allclose(source.read(0)[:3], XYZ.T, rtol=1e-6)
    assert (source.read(0)[3] == 3).all()
    assert "left out '' (counter), 'activity' (text), 'subject' (tag)" in source.taken[0][1]
    assert opened(tmp_path / "a.csv", columns="subject,x").read(0)[0].tolist() == [7.0] * 60


def test_ramps_alone_are_channels(tmp_path):
    write(tmp_path / "a.csv", None, [[i, 2 * i] for i in range(9)])
    assert opened(tmp_path / "a.csv").channels in (1, 2)
    write(tmp_path / "b.csv", "x,y", [[i, 2 * i] for i in range(9)])
    assert opened(tmp_path / "b.csv").channels == 2


@pytest.mark.parametrize("sep", [";", "\t", " ", "|"])
@pytest.mark.parametrize("header", ["x{0}y{0}z", None])
def test_decimal_commas(tmp_path, sep, header):
    rows = [[f"{v:.4f}".replace(".", ",") for v in xyz] for xyz in XYZ]
    write(tmp_path / "a.csv", header and header.format(sep), rows, sep)
    np.testing.assert_allclose(opened(tmp_path / "a.csv").read(0), XYZ.T, rtol=1e-6)


def test_quoted_decimal_commas_between_commas(tmp_path):
    write(tmp_path / "a.csv", '"x","y","z"', [[f'"{v:.4f}"'.replace(".", ",") for v in xyz] for xyz in XYZ])
    np.testing.assert_allclose(opened(tmp_path / "a.csv").read(0), XYZ.T, rtol=1e-6)


@pytest.mark.parametrize("header", ["x", None])
def test_one_column_of_decimal_commas_is_one_channel(tmp_path, header):
    write(tmp_path / "a.csv", header, [[f"{v:.4f}".replace(".", ",")] for v in XYZ[:, 0]])
    source = opened(tmp_path / "a.csv")
    assert source.channels == 1
    np.testing.assert_allclose(source.read(0)[0], XYZ[:, 0], atol=1e-6)


def test_two_columns_of_whole_numbers_stay_two(tmp_path):
    values = RNG.integers(100, 999, (40, 2))
    write(tmp_path / "a.csv", None, values)
    source = opened(tmp_path / "a.csv")
    np.testing.assert_array_equal(source.read(0), values.T)
    assert "two columns of whole numbers" in source.taken[0][1]
    write(tmp_path / "b.csv", "a,b", values)
    assert "two columns" not in opened(tmp_path / "b.csv").taken[0][1]


def test_columns_are_matched_by_name_across_files(tmp_path):
    write(tmp_path / "1.csv", "x,y", XYZ[:, :2])
    write(tmp_path / "2.csv", "y,x", XYZ[:, 1::-1])
    write(tmp_path / "3.csv", "time,Y,extra,X", [[i * 0.1, y, 5, x] for i, (x, y) in enumerate(XYZ[:, :2])])
    write(tmp_path / "4.csv", "x,w", XYZ[:, :2])
    source = opened(tmp_path)
    for i in range(3):
        np.testing.assert_allclose(source.read(i), XYZ[:, :2].T, rtol=1e-6)
    with pytest.raises(SampleError, match="no column 'y'"):
        source.read(3)


def test_chosen_columns(tmp_path):
    write(tmp_path / "1.csv", "t,x,y,z", [[i * 0.1, *xyz] for i, xyz in enumerate(XYZ)])
    write(tmp_path / "2.csv", "z,y,x,t", [[*xyz[::-1], i * 0.1] for i, xyz in enumerate(XYZ)])
    for columns in ("z,x", "Z, X", ["z", "x"], "3,1", (3, 1)):
        source = opened(tmp_path, columns=columns)
        for i in range(2):
            np.testing.assert_allclose(source.read(i), XYZ[:, [2, 0]].T, rtol=1e-6)
    assert open_source(f"{tmp_path}?columns=z,x&window=30", split="all").channels == 2
    with pytest.raises(UserError, match=r"no column 'zz' \(did you mean z\?\); there are t, x, y, z"):
        opened(tmp_path, columns="x,zz")
    write(tmp_path / "3.csv", "x,word", [[1.5, "a"]] * 9)
    with pytest.raises(UserError, match="'word' holds text, not numbers"):
        opened(tmp_path / "3.csv", columns="word")


@pytest.mark.parametrize("hole", ["", "NaN", "NA", "null", "-", "?", "#N/A"])
def test_short_gaps_are_filled_linearly(tmp_path, hole):
    rows = [[2.0 * i + 0.5, 10.0 - i] for i in range(40)]
    wanted = np.array(rows).T
    for i in (7, 8, 9):
        rows[i] = [hole, rows[i][1]]
    write(tmp_path / "a.csv", "x,y", rows)
    source = opened(tmp_path / "a.csv")
    np.testing.assert_allclose(source.read(0), wanted, rtol=1e-6)
    assert "3 missing values filled" in source.taken[0][1]


def test_long_gaps_part_a_recording(tmp_path):
    rows = [[*xyz] for xyz in XYZ]
    for i in range(25, 35):
        rows[i] = ["", *XYZ[i, 1:]]
    rows[0] = ["", "", ""]
    write(tmp_path / "a.csv", "x,y,z", rows)
    source = opened(tmp_path / "a.csv", window=8)
    assert [n.split("@")[1] for n in source.names] == ["1", "9", "17", "35", "43", "51"]
    for i, name in enumerate(source.names):
        start = int(name.split("@")[1])
        np.testing.assert_allclose(source.read(i), XYZ[start : start + 8].T, rtol=1e-6)
    assert "parted at long gaps into 2" in source.taken[0][1]
    assert len(opened(tmp_path / "a.csv", window=8, gap=10)) == 7
    with pytest.raises(UserError, match="recordings of 24 to 25 instants"):
        opened(tmp_path / "a.csv")


def test_rows_that_the_clock_misses_are_filled_or_part_the_recording(tmp_path):
    ramp = np.arange(60) * 3.0
    rows = [[f"{i * 0.02:.2f}", v, -v] for i, v in enumerate(ramp)]
    write(tmp_path / "few.csv", "time,x,y", rows[:20] + rows[22:])
    source = opened(tmp_path / "few.csv")
    np.testing.assert_allclose(source.read(0), np.stack([ramp, -ramp]), rtol=1e-6)
    write(tmp_path / "many.csv", "time,x,y", rows[:20] + rows[40:])
    assert opened(tmp_path / "many.csv", window=20).names == ["many.csv@0", "many.csv@40"]
    write(tmp_path / "reset.csv", "time,x,y", rows[:30] + rows[:30])
    assert opened(tmp_path / "reset.csv", window=30).read(1)[0].tolist() == ramp[:30].tolist()


def test_a_clock_of_whole_seconds(tmp_path):
    rows = [[s, *xyz] for s, xyz in zip(stamps(60, 0.1, "%H:%M:%S"), XYZ, strict=True)]
    write(tmp_path / "a.csv", "time,x,y,z", rows)
    source = opened(tmp_path / "a.csv")
    assert source.rate == 10.0
    np.testing.assert_allclose(source.read(0), XYZ.T, rtol=1e-6)


def test_unequal_rates_are_resampled(tmp_path):
    def wave(rate):
        at = np.arange(0, 4, 1 / rate)
        return [[f"{t:.5f}", np.sin(2 * np.pi * t), 3 * t] for t in at]

    write(tmp_path / "a.csv", "time,x,y", wave(50))
    write(tmp_path / "b.csv", "time,x,y", wave(100))
    write(tmp_path / "c.csv", "time,x,y", wave(50))
    source = opened(tmp_path, window=100)
    assert source.rate == 50.0
    for i, name in enumerate(source.names):
        at = (int(name.split("@")[1]) + np.arange(100)) / 50
        np.testing.assert_allclose(source.read(i)[0, 3:-3], np.sin(2 * np.pi * at)[3:-3], atol=0.01)
        np.testing.assert_allclose(source.read(i)[1, 3:-3], 3 * at[3:-3], atol=1e-4)
    assert "resampled from 100 Hz" in dict(source.taken)["b.csv"]
    finer = opened(tmp_path, window=300, rate=100)
    assert finer.rate == 100.0
    np.testing.assert_allclose(finer.read(0)[0], np.sin(2 * np.pi * np.arange(300) / 100), atol=0.01)


def test_uneven_steps_become_even(tmp_path):
    at = np.cumsum(RNG.uniform(0.01, 0.03, 400))
    write(tmp_path / "a.csv", "time,x", [[f"{t:.6f}", 2 * t + 1] for t in at])
    source = opened(tmp_path / "a.csv")
    assert source.rate == pytest.approx(1 / np.median(np.diff(at)), rel=0.01)
    series = source.read(0)[0].astype(np.float64)
    step = np.diff(series)
    np.testing.assert_allclose(step, step.mean(), rtol=1e-3)
    assert series[0] == pytest.approx(2 * at[0] + 1, rel=1e-5)


def test_what_is_too_fast_for_the_new_rate_is_damped():
    at = np.arange(0, 10, 0.01)
    fast, slow = np.sin(2 * np.pi * 23 * at), np.sin(2 * np.pi * 0.5 * at)
    got = resample(np.stack([fast, slow, np.ones_like(at)], axis=1), at, 0.01, 0.1)[5:-5]
    assert np.abs(got[:, 0]).max() < 0.06
    np.testing.assert_allclose(got[:, 1], np.sin(2 * np.pi * 0.5 * np.arange(100) / 10)[5:-5], atol=0.02)
    np.testing.assert_allclose(got[:, 2], 1)


def test_rows_that_changed_places_are_put_in_order(tmp_path):
    rows = [[f"{i * 0.02:.2f}", 3.0 * i] for i in range(50)]
    rows[10], rows[11] = rows[11], rows[10]
    write(tmp_path / "a.csv", "time,x", rows)
    assert opened(tmp_path / "a.csv").read(0)[0].tolist() == (3.0 * np.arange(50)).tolist()


def test_short_recordings_are_listed_or_padded(tmp_path):
    write(tmp_path / "long.csv", "x,y", XYZ[:40, :2])
    write(tmp_path / "short.csv", "x,y", XYZ[:7, :2])
    source = opened(tmp_path, window=10)
    assert source.names[-1] == "short.csv@0"
    with pytest.raises(SampleError, match="7 instants, shorter than the window of 10"):
        source.read(len(source) - 1)
    padded = opened(tmp_path, window=10, pad=True).read(len(source) - 1)
    np.testing.assert_allclose(padded[:, :7], XYZ[:7, :2].T, rtol=1e-6)
    assert not padded[:, 7:].any()
    assert open_source(f"{tmp_path}?pad=true", split="all").read(1).shape == (2, 40)


def test_checking_shows_one_line_per_file(tmp_path):
    write(tmp_path / "1.csv", "time,x,y,note", [[f"{i * 0.02:.2f}", i % 3, i % 5, "ok"] for i in range(40)])
    write(tmp_path / "2.csv", "time,x,y,note", [[f"{i * 0.02:.2f}", i % 3, "oops!", "ok"] for i in range(40)])
    (tmp_path / "3.csv").write_text("1,2\n" * 39 + "1,2,3\n" + "1,2\n")
    report = check(f"{tmp_path}?window=10")
    assert report.files == [
        ("1.csv", "channels x y; time 'time' (50 Hz); left out 'note' (text)"),
        ("2.csv", "column 'y' is text"),
        ("3.csv", "row 40 has 3 columns, the first 2"),
    ]
    text = str(report).splitlines()
    assert sum("2.csv" in line for line in text) == 1
    assert sum("1.csv" in line for line in text) == 1
    assert report.problems == [("2.csv@0", "column 'y' is text"), ("3.csv@0", "row 40 has 3 columns, the first 2")]


def test_preambles_units_comments_and_other_encodings(tmp_path):
    body = "\n".join(f"{i * 0.02:.2f};{x:.4f};{y:.4f}" for i, (x, y, _) in enumerate(XYZ))
    text = f"Gerät: Uhr\nSeriennummer: 12\n\nZeit;Größe;y\n(s);(g);(g)\n{body}\n"
    for encoding in ("utf-8", "utf-8-sig", "cp1252", "utf-16"):
        (tmp_path / "a.csv").write_bytes(text.encode(encoding))
        source = opened(tmp_path / "a.csv")
        np.testing.assert_allclose(source.read(0), XYZ[:, :2].T, rtol=1e-6)
        assert source.rate == 50.0
        assert "channels Größe y" in source.taken[0][1]
    (tmp_path / "b.txt").write_text("# x y z\n" + "\n".join(" ".join(map(str, xyz)) for xyz in XYZ))
    assert "channels x y z" in opened(tmp_path / "b.txt").taken[0][1]
    (tmp_path / "c.csv").write_text("sep=;\nx;y\n" + body.replace("0.00;", "", 1).partition("\n")[0] + "\n1;2\n3;4\n")
    assert opened(tmp_path / "c.csv").channels == 2


def test_separators_at_line_ends_and_a_last_row_cut_short(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,\n" + "\n".join(f"{x},{y}," for x, y, _ in XYZ))
    np.testing.assert_allclose(opened(tmp_path / "a.csv").read(0), XYZ[:, :2].T, rtol=1e-6)
    (tmp_path / "b.csv").write_text("x,y,z\n" + "\n".join(f"{x},{y},{z}" for x, y, z in XYZ) + "\n0.5,0.")
    source = opened(tmp_path / "b.csv")
    np.testing.assert_allclose(source.read(0), XYZ.T, rtol=1e-6)
    assert "last row was cut short" in source.taken[0][1]


def test_large_sets_read_again_what_has_no_room(tmp_path, monkeypatch):
    for k in range(3):
        write(tmp_path / f"{k}.csv", "time,x", [[f"{i * 0.02:.2f}", v + k] for i, v in enumerate(XYZ[:, 0])])
    whole = opened(tmp_path, window=20)
    monkeypatch.setattr("selftaught.data.tabular._ROOM", 10)
    source = opened(tmp_path, window=20)
    assert not source._kept
    again = pickle.loads(pickle.dumps(whole))
    for i in range(len(whole)):
        np.testing.assert_array_equal(source.read(i), whole.read(i))
        np.testing.assert_array_equal(again.read(i), whole.read(i))
    assert source.fingerprint() == whole.fingerprint()
    write(tmp_path / "1.csv", "time,x", [[0, 1], [0.02, 3], [0.04, 4]])
    with pytest.raises(SampleError, match="changed since it was opened"):
        source.read(source.names.index("1.csv@40"))
    assert opened(tmp_path, window=20).fingerprint() != whole.fingerprint()


def test_bad_options(tmp_path):
    write(tmp_path / "a.csv", "time,x", [[i * 0.1, v] for i, v in enumerate(XYZ[:, 0])])
    for options, said in (
        ({"rate": 0.0}, "must be a positive number"),
        ({"unit": "days"}, "none of s, ms, us, ns, min, h"),
        ({"gap": -1}, "gap=-1 must be at least 0"),
    ):
        with pytest.raises(UserError, match=said):
            opened(tmp_path / "a.csv", **options)
    with pytest.raises(SampleError, match="no column 'clock'"):
        opened(tmp_path / "a.csv", time="clock").read(0)


def test_clocks_of_shared_stamps_and_gaps():
    clock = clock_of(np.repeat([0.0, 1.0, 2.0], 4), 1.0)
    np.testing.assert_allclose(clock.at, np.arange(12) * 0.25)
    assert (clock.step, clock.even, clock.rate) == (0.25, True, 4.0)
    assert clock_of(np.array([0, 1, 2, 5.0, 6]), None).even
    assert clock_of(np.array([0, np.nan, 2, 3.0]), 1.0).at.tolist() == [0, 1, 2, 3]
    assert clock_of(np.zeros(5), 1.0) is None


def test_a_stray_quote_is_no_crash(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n" + "1,2\n" * 9 + '1,"2\n' + "3,4\n" * 9)
    (tmp_path / "b.csv").write_text("x,y\n" + "1.5,2\n" * 9)
    source = opened(tmp_path, window=5)
    with pytest.raises(SampleError):
        source.read(0)


def test_time_and_subject_without_a_header(tmp_path):
    """As WISDM lists them: subject, activity, time in ns, values, a semicolon at the end."""
    for k in (33, 7):
        rows = [f"{k},Jogging,{49105962326000 + 10**7 * k + i * 50000000},{x},{y};" for i, (x, y, _) in enumerate(XYZ)]
        (tmp_path / f"{k}.txt").write_text("\n".join(rows))
    source = opened(tmp_path, unit="ns")
    assert (source.channels, source.rate) == (2, 20.0)
    np.testing.assert_allclose(source.read(0), XYZ[:, :2].T, rtol=1e-6)
    assert "left out '0' (constant), '1' (text)" in source.taken[0][1]


def test_what_is_constant_in_every_file_but_differs_between_them_is_no_channel(tmp_path):
    for k, weight in enumerate((60, 82.5)):
        write(tmp_path / f"{k}.csv", "x,weight,zero,y", [[x, weight, 0, y] for x, y, _ in XYZ])
    source = opened(tmp_path)
    assert source.channels == 3
    assert "left out 'weight' (constant)" in source.taken[0][1]
    assert opened(tmp_path, columns="x,weight").read(1)[1].tolist() == [82.5] * 60
    for k in range(2):
        write(tmp_path / "flat" / f"{k}.csv", None, [[k, k]] * 9)
    assert opened(tmp_path / "flat").read(1).tolist() == [[1.0] * 9] * 2


@pytest.mark.parametrize("counter", ["PacketCounter", "sample_counter", "Frame", "#", ""])
def test_what_counts_the_rows_is_no_channel(tmp_path, counter):
    """It would tell the recording, and where in it a window lies."""
    write(tmp_path / "a.csv", f"{counter},x,y", [[k, x, y] for k, (x, y, _) in enumerate(XYZ)])
    assert opened(tmp_path / "a.csv").channels == 2


def test_a_header_alone_has_no_rows(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n")
    write(tmp_path / "b.csv", "x,y", XYZ[:, :2])
    assert opened(tmp_path).taken[0] == ("a.csv", "no rows")


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (["0,5;1.234,5", "1,5;987,0", "2,5;1.234.567,25"], [[0.5, 1.5, 2.5], [1234.5, 987, 1234567.25]]),
        (["0,5;1.234", "1,5;987", "2,5;12.345"], [[0.5, 1.5, 2.5], [1234, 987, 12345]]),
        (['0.5,"1,234"', "1.5,987", '2.5,"12,345.5"'], [[0.5, 1.5, 2.5], [1234, 987, 12345.5]]),
        (['3,"1,234"', '1,"987"', '2,"12,345"'], [[3, 1, 2], [1234, 987, 12345]]),
        (["0,5;1 234,5", "1,5;987,0", "2,5;1\u202f234,75"], [[0.5, 1.5, 2.5], [1234.5, 987, 1234.75]]),
        (["0.5;1'234.5", "1.5;987", "2.5;1'234'567"], [[0.5, 1.5, 2.5], [1234.5, 987, 1234567]]),
        (["0.5;1.234", "1.5;9.876", "2.25;1.5"], [[0.5, 1.5, 2.25], [1.234, 9.876, 1.5]]),
        (['1,"0,160"', '3,"1,234"', '2,"0,5"'], [[1, 3, 2], [0.16, 1.234, 0.5]]),
    ],
)
def test_thousands_apart(tmp_path, rows, found):
    """The mark that parts a fraction somewhere for certain says what the other one is."""
    (tmp_path / "a.csv").write_text("\n".join(["x;y" if ";" in rows[0] else "x,y", *rows]), encoding="utf-8")
    np.testing.assert_allclose(opened(tmp_path / "a.csv").read(0), found, rtol=1e-6)


def test_a_start_and_a_rate_in_the_first_two_rows_are_a_clock(tmp_path):
    """Empatica E4: no header; the start in Unix time and the rate, once per column; a file for each sensor."""
    for who in ("rest/anna", "stress/ben"):
        for sensor, rate, width in (("ACC", 32, 3), ("BVP", 64, 1)):
            rows = [[f"{1.7e9:.6f}"] * width, [f"{rate:.6f}"] * width, *XYZ[:, :width].tolist()]
            write(tmp_path / "e4" / who / f"{sensor}.csv", None, rows)
    with pytest.raises(UserError, match=r"ACC.csv, BVP.csv are sensors of one device.*e4/\*\*/ACC.csv"):
        opened(tmp_path / "e4")
    source = opened(str(tmp_path / "e4/**/ACC.csv"))
    np.testing.assert_allclose(source.read(0), XYZ.T, rtol=1e-6)
    assert (source.rate, source.classes) == (32, ["rest", "stress"])
    assert opened(tmp_path / "e4/rest/anna/BVP.csv").read(0).shape == (1, 60)
    slow = opened(str(tmp_path / "e4/*/*/ACC.csv"), rate=16)
    assert slow.read(1).shape == (3, 30)


def test_numbers_like_a_start_and_a_rate_under_a_header_are_numbers(tmp_path):
    write(tmp_path / "a.csv", "x,y", [[1.7e9, 1.7e9], [32.0, 32.0], *XYZ[:, :2].tolist()])
    assert opened(tmp_path / "a.csv").read(0).shape == (2, 62)


def test_the_unit_below_a_time_tells_the_rate(tmp_path):
    """Shimmer's files: names, a line of units, numbers; at 50 and at 25 Hz, so that one is resampled."""
    for name, step in (("a", 20), ("b", 20), ("c", 40)):
        rows = [["ms", "m/s^2"], *([step * k, x] for k, x in enumerate(XYZ[:, 0]))]
        write(tmp_path / f"{name}.csv", "Time\tAx", rows, sep="\t")
    source = opened(tmp_path, pad=True)
    assert source.rate == 50
    np.testing.assert_allclose(source.read(0)[0, :60], XYZ[:, 0], rtol=1e-6)
    assert source.read(2).shape == (1, 119)
    assert opened(tmp_path, pad=True, time="Time").rate == 50
    assert opened(tmp_path, pad=True, columns="ax").rate == 50


def test_a_table_of_very_many_columns_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "wide.csv").write_text(",".join(map(str, range(20_001))) + "\n")
    with pytest.raises(SampleError, match="20,001 columns; at most 20,000 are read"):
        read_table(tmp_path / "wide.csv", "wide.csv")
