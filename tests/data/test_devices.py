"""Several devices from tables and arrays: one clock, one rate, gaps left out of all, users and classes from folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selftaught.data import open_source
from selftaught.data.combining.devices import Devices, align
from selftaught.errors import UserError
from tests.data.helpers import write


def wave(at: np.ndarray) -> np.ndarray:
    """Three axes that any clock can be compared on."""
    return np.stack([np.sin(at), np.cos(0.7 * at), np.sin(0.3 * at)], 1)


def table(path: Path, at: np.ndarray, head: str = "time,ax,ay,az") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{t:.4f}," + ",".join(f"{v:.6f}" for v in row) for t, row in zip(at, wave(at), strict=True)]
    path.write_text("\n".join([head, *rows]) + "\n")


def test_clocks_rates_and_gaps(tmp_path: Path) -> None:
    begin = 1_700_000_000.0
    for user in ("anna", "ben"):
        for activity in ("walk", "sit"):
            folder = tmp_path / user / activity
            table(folder / "wrist.csv", begin + np.arange(0, 20, 0.02))
            ankle = begin + 1.013 + np.arange(0, 20, 0.01)
            if (user, activity) == ("ben", "sit"):
                ankle = ankle[(ankle < begin + 8) | (ankle > begin + 10)]
            table(folder / "ankle.csv", ankle)
    source = open_source(f"devices:{tmp_path}?window=100&devices=wrist,ankle", split="all")
    assert source.devices == ["wrist", "ankle"]
    assert (source.channels, source.rate, source.classes) == (6, pytest.approx(50.0), ["sit", "walk"])
    assert sorted(set(source.groups.tolist())) == [0, 1]
    counts = {(n.split("@")[0]): sum(m.startswith(n.split("@")[0]) for m in source.names) for n in source.names}
    assert counts["anna/walk"] == counts["anna/sit"] == 9
    assert counts["ben/sit"] < 9
    assert any("a device has a gap" in note for note in source.notes)
    at = 1_700_000_000.0 + 1.013 + np.arange(100) / 50
    np.testing.assert_allclose(source.read(source.names.index("anna/walk@0")), np.tile(wave(at).T, (2, 1)), atol=0.02)
    train, test = (open_source(f"devices:{tmp_path}?window=100", split=part, by="group") for part in ("train", "test"))
    assert not {n.split("/")[0] for n in train.names} & {n.split("/")[0] for n in test.names}
    assert test.devices == source.devices or set(test.devices) == set(source.devices)


def test_flat_names_missing_devices_and_no_time(tmp_path: Path) -> None:
    for name in ("anna_walk_wrist", "anna_walk_ankle", "ben_sit_wrist", "ben_sit_ankle", "cid_sit_wrist"):
        rows = np.random.default_rng(0).normal(size=(60, 3))
        (tmp_path / f"{name}.csv").write_text("ax,ay,az\n" + "\n".join(",".join(f"{v:.4f}" for v in r) for r in rows))
    with pytest.raises(UserError, match="say rate=HZ"):
        open_source(f"devices:{tmp_path}?window=20&devices=wrist,ankle", split="all")
    source = open_source(f"devices:{tmp_path}?window=20&rate=20&devices=wrist,ankle&scale=2", split="all")
    assert {n.split("@")[0] for n in source.names} == {"anna/walk", "ben/sit"}
    assert pytest.approx(np.random.default_rng(0).normal(size=(60, 3))[:20] / 2, abs=1e-4) == source.read(0)[:3].T
    with pytest.raises(UserError, match="fewer than two devices"):
        open_source(f"devices:{tmp_path}?window=20&rate=20&missing=device", split="all")
    with pytest.raises(UserError, match="no device 'knee'"):
        open_source(f"devices:{tmp_path}?window=20&rate=20&devices=wrist,knee", split="all")
    with pytest.raises(UserError, match="no window of 100 instants"):
        open_source(f"devices:{tmp_path}?window=100&rate=20&devices=wrist,ankle", split="all")
    with pytest.raises(UserError, match="no recording there"):
        open_source(f"devices:{tmp_path}/none", split="all")


def test_a_wearer_who_lacks_a_device_is_left_out_and_named(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3))
    for who in ("anna", "ben", "max"):
        for device in ("wrist", "ankle", "chest")[: 2 if who == "max" else 3]:
            text = "ax,ay,az\n" + "\n".join(",".join(f"{v:.4f}" for v in row) for row in rows)
            write(tmp_path / who / "walk" / f"{device}.csv", text.encode())
    source = open_source(f"devices:{tmp_path}?window=20&rate=20", split="all")
    assert source.devices == ["ankle", "chest", "wrist"]
    assert source.group_names == ["anna", "ben"]
    assert source.notes == ["1 recording without all of ankle, chest, wrist left out: max/walk"]
    fewer = open_source(f"devices:{tmp_path}?window=20&rate=20&missing=device", split="all")
    assert fewer.devices == ["ankle", "wrist"]
    assert [fewer.group_names[k] for k in fewer.groups] == ["anna"] * 2 + ["ben"] * 2 + ["max"] * 2
    assert "not used, for too few recordings have them: chest" in fewer.notes[0]


def test_one_file_of_arrays(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(10, 3, 40, 6)).astype(np.float32)
    np.savez(tmp_path / "w.npz", x=x, y=np.arange(10) % 2, subject=np.arange(10) // 5, devices=["a", "b", "c"])
    source = open_source(f"devices:{tmp_path}/w.npz", split="all")
    assert (source.devices, source.channels, len(source)) == (["a", "b", "c"], 18, 10)
    np.testing.assert_array_equal(source.read(4)[6:12], x[4, 1].T)
    chosen = open_source(f"devices:{tmp_path}/w.npz?devices=c,a", split="all")
    np.testing.assert_array_equal(chosen.read(4)[:6], x[4, 2].T)
    assert (source.groups.tolist(), source.labels.tolist()) == (
        (np.arange(10) // 5).tolist(),
        (np.arange(10) % 2).tolist(),
    )
    np.savez(tmp_path / "u.npz", x=x, labels=np.arange(10) % 2, user=np.arange(10) // 5, height=np.arange(10))
    named = open_source(f"devices:{tmp_path}/u.npz", split="all")
    assert (named.groups.tolist(), named.labels.tolist()) == (source.groups.tolist(), source.labels.tolist())
    assert named.notes[-1].startswith("left out: height; labels are called labels or label or y")
    np.savez(tmp_path / "short.npz", x=x, user=np.arange(9))
    with pytest.raises(UserError, match=r"user is \(9,\) for 10 windows"):
        open_source(f"devices:{tmp_path}/short.npz")
    np.savez(tmp_path / "v.npz", y=np.arange(10))
    with pytest.raises(UserError, match="holds no x"):
        open_source(f"devices:{tmp_path}/v.npz")


def test_what_does_not_go_together_is_said() -> None:
    early, late = np.arange(10.0), 100 + np.arange(10.0)
    with pytest.raises(UserError, match="share no time"):
        align({"a": (early, wave(early)), "b": (late, wave(late))}, 1.0)
    with pytest.raises(UserError, match="must rise"):
        align({"a": (early[::-1], wave(early)), "b": (early, wave(early))}, 1.0)
    one = {"a": np.zeros((3, 20)), "b": np.zeros((3, 21))}
    with pytest.raises(UserError, match="as many channels and instants"):
        Devices([one], ["r"], "test", window=5)
    with pytest.raises(UserError, match="two or more"):
        Devices([{"a": np.zeros((3, 20))}], ["r"], "test", window=5)


def test_the_made_up_set_says_that_it_is() -> None:
    source = open_source("worn", split="all")
    assert source.generated
    assert (len(source), source.channels, source.classes) == (360, 24, ["sitting", "walking", "running", "cycling"])
    assert (source.given == 2).sum() == 120
    assert open_source("worn", split="test").devices == source.devices
    assert open_source("worn", split="all").fingerprint() == source.fingerprint()
