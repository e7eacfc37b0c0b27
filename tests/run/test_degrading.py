"""Degraded copies: names, depth, alpha, the table, kernels, what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from selftaught import views
from selftaught.cli import main
from selftaught.data import open_source
from selftaught.data.kernels import kernel_file_beside, read_kernel
from selftaught.data.text_boxes import LETTERING, Lettered, boxes_beside
from selftaught.errors import UserError
from selftaught.run import applying
from selftaught.run.degrading import RECIPES, TABLE, degradation, degrade
from tests.harness import Killed, content, killing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    (root / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    cv2.imwrite(str(root / "a.png"), rng.integers(0, 256, (48, 52, 3), dtype=np.uint8))
    cv2.imwrite(str(root / "sub" / "b.png"), rng.integers(0, 65536, (44, 48, 3), dtype=np.uint16))
    cv2.imwrite(str(root / "sub" / "c.png"), rng.integers(0, 256, (44, 48, 4), dtype=np.uint8))
    return root


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_keeps_names_depth_and_alpha(recipe: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert degrade(recipe, folder, out) == 3
    scale = 4 if recipe == "low-res" else 1
    for name in ("a.png", "sub/b.png", "sub/c.png"):
        before, after = (cv2.imread(str(root / name), cv2.IMREAD_UNCHANGED) for root in (folder, out))
        assert before is not None
        assert after is not None
        assert after.dtype == before.dtype
        assert after.shape == (before.shape[0] // scale, before.shape[1] // scale, before.shape[2])
        assert scale > 1 or np.abs(after[..., :3].astype(float) - before[..., :3]).mean() > 1
        if before.shape[2] == 4 and scale == 1:
            assert np.array_equal(after[..., 3], before[..., 3])
    rows = list(csv.DictReader((out / TABLE).open()))
    assert [row["name"] for row in rows] == ["a.png", "sub/b.png", "sub/c.png"]
    expected = {f"{type(op).__name__}.{c}" for op in degradation(recipe).ops for c in op.columns}
    assert set(rows[0]) == {"name", "recipe", "seed"} | expected | ({"mirrored"} if recipe == "reflection" else set())


def test_the_table_is_enough_to_do_it_again(folder: Path, tmp_path: Path) -> None:
    degrade("noise?sigma=20", folder, tmp_path / "out")
    (row,) = (row for row in csv.DictReader((tmp_path / "out" / TABLE).open()) if row["name"] == "a.png")
    params = np.array([float(row[f"GaussianNoise.{column}"]) for column in views.GaussianNoise.columns])
    before, after = (cv2.imread(str(root / "a.png")) for root in (folder, tmp_path / "out"))
    assert before is not None
    unit = (before[..., ::-1] / 255).astype(np.float32)
    again = views.render(unit, views.Pipeline((views.GaussianNoise(20 / 255),)), params)
    assert np.abs(np.clip(again, 0, 1)[..., ::-1] * 255 - after).max() < 0.51


def test_the_kernel_beside_a_picture_is_what_blurred_it(folder: Path, tmp_path: Path) -> None:
    degrade("blur?size=5&shortest=2", folder, tmp_path / "out")
    kernel = read_kernel(kernel_file_beside(tmp_path / "out", "sub/b.png") or "")
    assert kernel is not None
    before, after = (cv2.imread(str(root / "sub/b.png"), cv2.IMREAD_UNCHANGED) for root in (folder, tmp_path / "out"))
    pipeline = views.Pipeline((views.Blur(kernel),))
    unit = (before / 65535).astype(np.float32)  # type: ignore[operator]
    made = views.render(unit, pipeline, pipeline.sample(np.random.default_rng(0), *unit.shape[:2]))
    assert np.abs(made * 65535 - after).max() < 20  # type: ignore[operator]


def test_another_picture_is_mirrored(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "lamps"
    other.mkdir()
    cv2.imwrite(str(other / "lamp.png"), np.full((9, 30, 3), 255, np.uint8))
    degrade("reflection", folder, tmp_path / "own")
    for row in csv.DictReader((tmp_path / "own" / TABLE).open()):
        assert row["mirrored"] != row["name"]
    degrade(f"reflection?of={other}&kind=linear", folder, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / TABLE).open()))
    assert {row["mirrored"] for row in rows} == {"lamp.png"}
    before, after = (cv2.imread(str(root / "a.png")) for root in (folder, tmp_path / "out"))
    alpha = float(rows[0]["Reflection.alpha"])
    wanted = alpha * before.astype(float) + (1 - alpha) * 255  # type: ignore[union-attr]
    assert np.abs(after - wanted).max() < 1
    with pytest.raises(UserError, match="perceptual"):
        degrade("reflection?kind=mirror", folder, tmp_path / "none")


def test_a_damaged_picture_costs_no_other_its_reflection(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "lamps"
    other.mkdir()
    cv2.imwrite(str(other / "lamp.png"), np.full((9, 30, 3), 255, np.uint8))
    (other / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    cv2.imwrite(str(folder / "grey.png"), np.full((20, 24), 40, np.uint8))
    assert degrade(f"reflection?of={other}", folder, tmp_path / "out") == 4
    assert {row["mirrored"] for row in csv.DictReader((tmp_path / "out" / TABLE).open())} == {"lamp.png"}
    grey = cv2.imread(str(tmp_path / "out" / "grey.png"), cv2.IMREAD_UNCHANGED)
    assert grey is not None
    assert grey.shape == (20, 24)
    (other / "lamp.png").unlink()
    with pytest.raises(UserError, match="no other picture of lamps/ that could be mirrored"):
        degrade(f"reflection?of={other}", folder, tmp_path / "none")


def test_chance_is_of_the_seed_and_the_name(folder: Path, tmp_path: Path) -> None:
    for out, seed in (("one", 0), ("two", 0), ("three", 1)):
        degrade("noise?sigma=10", folder, tmp_path / out, seed=seed)
    one, two, three = ((tmp_path / out / "a.png").read_bytes() for out in ("one", "two", "three"))
    assert one == two != three


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean noise"):
        degrade("nois", folder, tmp_path / "out")
    with pytest.raises(UserError, match="no option 'size'"):
        degrade("noise?size=3", folder, tmp_path / "out")
    with pytest.raises(UserError, match="the input"):
        degrade("noise", folder, folder)
    degrade("noise", folder, tmp_path / "out")
    with pytest.raises(UserError, match=r"holds results of other options \(degrade noise on .*overwrite"):
        degrade("noise", folder, tmp_path / "out", seed=1)
    assert degrade("noise", folder, tmp_path / "out", seed=1, overwrite=True) == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    with pytest.raises(UserError, match="mine: holds what degrade did not write; choose another folder") as error:
        degrade("noise", folder, tmp_path / "mine")
    assert "--out" not in str(error.value)  # it has no such option


def test_what_another_recipe_left_beside_a_picture_goes_with_it(folder: Path, tmp_path: Path) -> None:
    degrade("blur?size=5&shortest=2", folder, tmp_path / "out")
    assert (tmp_path / "out" / "a.kernel.txt").exists()
    degrade("noise", folder, tmp_path / "out", overwrite=True)
    assert not list((tmp_path / "out").rglob("*.kernel.txt"))


def test_a_name_too_long_for_a_kernel_beside_it_is_listed(folder: Path, tmp_path: Path) -> None:
    (folder / "a.png").rename(folder / ("n" * 246 + ".png"))
    assert degrade("noise", folder, tmp_path / "noisy") == 3
    blurred = degrade("blur?size=5&shortest=2", folder, tmp_path / "blurred")
    assert (blurred, [reason[:20] for _, reason in blurred.skipped]) == (2, ["its name is too long"])


@pytest.mark.parametrize("recipe", ["blur?size=5&shortest=2", "rolling-shutter?readout=2&between=linear"])
def test_killed_at_every_seam_it_goes_on_to_the_same(recipe: str, folder: Path, tmp_path: Path) -> None:
    if recipe.startswith("rolling"):
        rng = np.random.default_rng(1)
        for t in range(5):
            (folder / "film").mkdir(exist_ok=True)
            cv2.imwrite(str(folder / "film" / f"{t}.png"), rng.integers(0, 256, (20, 24, 3), dtype=np.uint8))
        given = folder / "film"
    else:
        given = folder
    with killing(None) as passed:
        whole = degrade(recipe, given, tmp_path / "whole")
    expected = content(tmp_path / "whole")
    assert passed[0] > 10
    for moment in range(0, passed[0], 3):  # before and after by turns
        out = tmp_path / f"cut{moment}"
        with pytest.raises(Killed), killing(moment):
            degrade(recipe, given, out)
        found = degrade(recipe, given, out)
        assert found + found.kept == whole
        assert {n: c for n, c in content(out).items() if n != "work.json"} == {
            n: c for n, c in expected.items() if n != "work.json"
        }


def test_where_no_picture_can_be_degraded_it_is_said_why(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of its \d+ samples can be used, the first because"):
        degrade("text?fonts=nowhere", folder, tmp_path / "out")
    assert degrade("noise", folder, tmp_path / "out") > 0


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("low-res", "low-res?scale=4"),
        ("snow", "snow?strength=0.5"),
        ("blur?size=9", "blur?size=9&shortest=5.0&roughness=0.3"),
    ],
)
def test_the_table_says_the_whole_recipe_which_can_be_given_again(
    recipe: str, told: str, folder: Path, tmp_path: Path
) -> None:
    for out, given in (("out", recipe), ("again", told)):
        degrade(given, folder, tmp_path / out)
        assert {row["recipe"] for row in csv.DictReader((tmp_path / out / TABLE).open())} == {told}
    one, other = (cv2.imread(str(tmp_path / out / "a.png")) for out in ("out", "again"))
    assert np.array_equal(one, other)  # type: ignore[arg-type]


def test_videos_are_told_which_recipes_there_are(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "film.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"recipe noise: is for pictures.*rolling-shutter"):
        degrade("noise", tmp_path / "in", tmp_path / "out")


def test_it_goes_on_keeps_what_is_whole_and_makes_again_what_changed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = degrade("noise", folder, out)
    assert (first, first.kept) == (3, 0)
    cv2.imwrite(str(folder / "a.png"), np.full((48, 52, 3), 99, np.uint8))
    cv2.imwrite(str(folder / "new.png"), np.full((48, 52, 3), 99, np.uint8))
    again = degrade("noise", folder, out)
    assert (again, again.kept) == (2, 2)
    rows = list(csv.DictReader((out / TABLE).open()))
    assert [row["name"] for row in rows] == ["a.png", "new.png", "sub/b.png", "sub/c.png"]
    with applying.held(out / ".lock", out), pytest.raises(UserError, match="is writing to it"):
        degrade("noise", folder, out)


def test_the_command_and_a_recipe_from_a_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("views:\n  - ops: [{Downsample: {scale: 2}}, {JPEG: {quality: [20, 40]}}]\n")
    assert main(["degrade", str(recipe), str(folder), str(tmp_path / "out")]) == 0
    assert "3 written" in capsys.readouterr().out
    assert main(["degrade", "noise", str(folder), str(tmp_path / "out")]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_videos_become_rolling_shutter_pairs_that_can_be_read_again(tmp_path: Path) -> None:
    from selftaught.data import open_source
    from selftaught.data.rolling_shutter import DualReversed, rolled_pair

    rng = np.random.default_rng(1)
    film = rng.integers(0, 256, (7, 20, 24, 3), dtype=np.uint8)
    (tmp_path / "in" / "one").mkdir(parents=True)
    for t, frame in enumerate(film):
        cv2.imwrite(str(tmp_path / "in" / "one" / f"{t}.png"), frame[..., ::-1])
    out = tmp_path / "out"
    assert degrade("rolling-shutter?readout=2&between=linear", tmp_path / "in", out) == 3
    rows = list(csv.DictReader((out / TABLE).open()))
    assert [(row["name"], row["first frame"]) for row in rows] == [
        ("one/000000.png", "0"), ("one/000001.png", "2"), ("one/000002.png", "4"),
    ]  # fmt: skip
    pairs = DualReversed(open_source(f"pairs:{out}?t2b=t2b&b2t=b2t&gs=gs", modality="clip", split="all"))
    np.testing.assert_array_equal(pairs.read(1), rolled_pair(film[2:5], "linear"))
    np.testing.assert_array_equal(pairs.sample(1, ["gs"])["gs"], film[2:5])
    with pytest.raises(UserError, match="other options"):
        degrade("rolling-shutter?readout=2", tmp_path / "in", out)
    assert degrade("rolling-shutter?readout=4&between=linear", tmp_path / "in", out, overwrite=True) == 1
    assert len(list(out.rglob("gs/one/*.png"))) == 5
    with pytest.raises(UserError, match="between=blend"):
        degrade("rolling-shutter?between=blend", tmp_path / "in", tmp_path / "other")


def test_the_boxes_beside_a_picture_hold_what_was_drawn(folder: Path, tmp_path: Path) -> None:
    degrade("text?words=2", folder, tmp_path / "out")
    before, after = (cv2.imread(str(root / "a.png"), cv2.IMREAD_UNCHANGED) for root in (folder, tmp_path / "out"))
    changed = (before != after).any(2)  # type: ignore[union-attr]
    inside = np.zeros_like(changed)
    boxes = np.loadtxt(tmp_path / "out" / "a.boxes.txt", dtype=int, ndmin=2)
    for left, top, right, bottom in boxes:
        inside[top:bottom, left:right] = True
    assert changed.any()
    assert not (changed & ~inside).any()
    source = Lettered(open_source(str(tmp_path / "out"), split="all"), dilation=(0, 0))
    mask = source.sample(list(source.names).index("a.png"))[LETTERING]
    assert ((mask == 0) >= changed).all()


@pytest.mark.parametrize(("recipe", "what"), [("blur?size=9", "kernel"), ("text?words=1", "boxes")])
def test_pictures_that_differ_in_their_suffix_alone_keep_what_is_theirs(tmp_path: Path, recipe: str, what: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (160, 200, 3), np.uint8)
    (tmp_path / "in").mkdir()
    for name in ("photo.png", "photo.bmp", "other.png"):
        cv2.imwrite(str(tmp_path / "in" / name), picture)
    out = tmp_path / "out"
    degrade(recipe, tmp_path / "in", out, seed=1)
    beside = {"kernel": kernel_file_beside, "boxes": boxes_beside}[what]
    found = {name: beside(out, name) for name in ("photo.png", "photo.bmp", "other.png")}
    assert [path.name for path in found.values() if path] == [
        f"photo.png.{what}.txt", f"photo.bmp.{what}.txt", f"other.{what}.txt"
    ]  # fmt: skip
    one, two = (np.loadtxt(path, ndmin=2) for path in list(found.values())[:2] if path)
    assert one.shape != two.shape or not np.allclose(one, two)
    for name in ("photo.png", "photo.bmp"):  # as each alone makes it
        degrade(recipe, tmp_path / "in" / name, tmp_path / f"alone {name[-3:]}", seed=1)
        alone = next((tmp_path / f"alone {name[-3:]}").glob(f"*.{what}.txt"))
        assert alone.read_bytes() == (found[name] or out).read_bytes()
    degrade("noise", tmp_path / "in", out, seed=1, overwrite=True)
    assert not list(out.glob(f"*.{what}.txt"))
