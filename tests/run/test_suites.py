"""The suites of a run: folders of photographs whose structure is known, and the numbers that follow from it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import selftaught
from selftaught import UserError, evaluation
from selftaught.cli import main
from selftaught.data import open_copies, open_source, read_metadata
from selftaught.data.builtin.photos import PHOTOS, pixels
from selftaught.run import suites
from selftaught.run.contenders import spoken
from tests.conftest import TINY

NAMES = [photo.name for photo in PHOTOS]
SIX = ("astronaut", "brick", "coins", "grass", "hubble", "ihc")


def write(path: Path, image: np.ndarray, *flags: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(image[..., ::-1]), flags)


def write_table(path: Path, columns: str, rows: list[tuple]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns.split(","))
        writer.writerows(rows)


def tile(name: str, k: int, side: int = 64) -> np.ndarray:
    """The k-th of the tiles along a photograph's diagonal."""
    image = pixels(NAMES.index(name))
    room = min(image.shape[:2]) - side
    at = (k * 37) % room
    return image[at : at + side, at : at + side]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of tiles of six photographs, twelve each."""
    folder = tmp_path_factory.mktemp("photographs")
    for name in SIX:
        for k in range(12):
            write(folder / name / f"{k:02d}.png", tile(name, k))
    return folder


@pytest.fixture(scope="module")
def run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> selftaught.Run:
    """SimCLR after twenty steps."""
    out = tmp_path_factory.mktemp("runs") / "simclr"
    return selftaught.train("simclr", str(photographs), out=str(out), augment="small", **TINY | {"steps": 20})


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole photographs, oblong, and three kinds of copies: exact, JPEG at quality 20, cut out and blurred."""
    folder = tmp_path_factory.mktemp("copies")
    for k, name in enumerate(NAMES[:12]):
        image = cv2.resize(pixels(k), (96, 72), interpolation=cv2.INTER_AREA)
        write(folder / f"database/{name}.png", image)
        write(folder / f"queries/exact/{name}_0.png", image)
        write(folder / f"queries/jpeg/{name}_1.jpg", image, cv2.IMWRITE_JPEG_QUALITY, 20)
        cut = cv2.GaussianBlur(cv2.resize(image[10:46, 20:68], (96, 72)), (0, 0), 2)
        write(folder / f"queries/strong/{name}_2.png", cut)
    for k, name in enumerate(NAMES[12:]):
        for j in range(4):
            write(folder / f"distractors/{name}-{j}.png", tile(name, 5 * j))
            write(folder / f"whitening/{name}-{j}.png", tile(name, 5 * j + 2, 72 + k))
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photographs at places 1000 km and more from one another; each tile near its photograph's."""
    folder, rows = tmp_path_factory.mktemp("places"), []
    for p, name in enumerate(SIX):
        for k in range(8):
            part = "test" if k % 4 == 0 else "train"
            source = k - 1 if part == "test" and k else k + 1 if part == "test" else k
            write(folder / part / f"{name}{k}.png", tile(name, source))  # a test tile equals its neighbour in train
            rows.append((f"{part}/{name}{k}.png", 10 * p - 20 + 0.001 * source, 15 * p))
    write_table(folder / "locations.csv", "name,latitude,longitude", rows)
    return folder


@pytest.fixture(scope="module")
def people(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of group 1 come twice with the same gender; those of group 2 twice with different ones."""
    folder, rows = tmp_path_factory.mktemp("people"), []
    for k in range(24):
        for copy in range(2):
            name = SIX[k % 6]
            write(folder / f"{k:02d}-{copy}.png", tile(name, k // 6))
            gender = ("female", "male")[(k + k // 6 + (copy if k % 2 else 0)) % 2]
            rows.append(
                (f"{k:02d}-{copy}.png", gender, 1 + k % 2, 20 + k, (100, 1000, 5000)[k % 3], "ABC"[k % 3], name)
            )
    write_table(folder / "metadata.csv", "name,gender,skin,age,income,region,labels", rows)
    return folder


# ---- copies ------------------------------------------------------------------------------------------------------
def test_exact_copies_find_their_originals(run, copies: Path) -> None:
    found = run.evaluate(str(copies), protocols=["copy-detection"])["copy-detection"]
    assert set(found) == {"this", "random", "raw"}
    for result in found.values():
        assert result["map: exact"].mean == 1.0
        assert result["map_trapezoid"].mean <= result["map"].mean
    assert found["raw"]["map: strong"].mean < 1.0
    chance = np.mean([1 / (r + 1) for r in range(12 + 20)])
    assert found["this"]["map: jpeg"].mean > 2 * chance
    larger = run.evaluate(str(copies), protocols=["copy-detection"], size=64, baselines=False)
    assert set(larger["copy-detection"]) == {"this"}
    assert larger["copy-detection"]["this"]["map: exact"].mean == 1.0


def test_copydays_as_inria_names_it(run, copies: Path, tmp_path: Path) -> None:
    for k, path in enumerate(sorted((copies / "database").iterdir())):
        image = cv2.imread(str(path))[..., ::-1]
        write(tmp_path / f"original/20{k:02d}00.jpg", image, cv2.IMWRITE_JPEG_QUALITY, 95)
        write(tmp_path / f"strong/20{k:02d}01.jpg", image, cv2.IMWRITE_JPEG_QUALITY, 60)
        write(tmp_path / f"crops/50/20{k:02d}00.jpg", image[12:60, 16:80])
    opened = open_copies(tmp_path)
    assert {kind: groups.tolist() for kind, groups in opened.query_groups.items()} == {
        "crops/50": list(range(12)),
        "strong": list(range(12)),
    }
    found = run.evaluate(str(tmp_path), protocols=["copy-detection"], baselines=False)["copy-detection"]["this"]
    assert found["map: strong"].mean > 0.8
    assert "whitening learnt on" in found.note


def test_copies_are_matched_by_name(tmp_path: Path) -> None:
    image = tile("brick", 0)
    for name in ("a", "a_b"):
        write(tmp_path / f"database/{name}.png", image)
    for name in ("a_1", "a_b_1", "a_b", "stray_1"):
        write(tmp_path / f"queries/{name}.png", image)
    opened = open_copies(tmp_path)
    names = [Path(n).stem for n in opened.queries["queries"].names]
    assert dict(zip(names, opened.query_groups["queries"].tolist(), strict=True)) == {
        "a_1": 0, "a_b": 1, "a_b_1": 1, "stray_1": 2,
    }  # fmt: skip
    assert opened.distractors is None


# ---- places ------------------------------------------------------------------------------------------------------
def test_equal_pictures_are_put_at_the_right_place(run, places: Path) -> None:
    found = run.evaluate(str(places), protocols=["geolocalisation"])["geolocalisation"]
    for result in found.values():
        assert result["within 1 km"].mean == 1.0
        assert result["median_error_km"].mean < 0.5


def test_a_database_in_a_folder_of_its_own(run, tmp_path: Path) -> None:
    for side, shift in (("database", 0.0), ("asked", 2.0)):
        rows = []
        for p, name in enumerate(SIX):
            write(tmp_path / side / f"{name}.png", tile(name, 3))
            rows.append((name, 10 * p + shift, 0))  # two degrees of latitude: 222 km
        write_table(tmp_path / side / "locations.csv", "name,latitude,longitude", rows)
    given = {"reference": str(tmp_path / "database"), "baselines": False}
    found = run.evaluate(str(tmp_path / "asked"), protocols=["geolocalisation"], **given)["geolocalisation"]["this"]
    assert found["within 200 km"].mean == 0
    assert found["within 750 km"].mean == 1
    assert found["median_error_km"].mean == pytest.approx(222.4, abs=0.1)


# ---- fairness ----------------------------------------------------------------------------------------------------
def test_retrieval_is_right_for_those_whose_twin_has_the_same_gender(run, people: Path) -> None:
    found = run.evaluate(str(people), protocols=["fairness-retrieval"], by=["skin"])["fairness-retrieval"]
    for result in found.values():
        assert result["precision@1: skin 1"].mean == 1.0
        assert result["precision@1: skin 2"].mean == 0.0
        assert result["precision@1: skin gap"].mean == 1.0
        assert result["precision@1"].mean == 0.5
    crossed = run.evaluate(str(people), protocols=["fairness-retrieval"], baselines=False)["fairness-retrieval"]["this"]
    assert "precision@1: age 18-30" in crossed.numbers
    assert any(name.startswith("precision@5: gender × skin × age × region female × 1 ×") for name in crossed.numbers)
    own = run.evaluate(str(people), protocols=["fairness-retrieval"], attribute="labels", by=["skin"], baselines=False)
    assert own["fairness-retrieval"]["this"]["precision@1"].mean == 1.0


@pytest.mark.slow
def test_labels_of_people_by_group(run, people: Path, tmp_path: Path) -> None:
    sets = tmp_path / "sets.yaml"
    sets.write_text("wall: [brick]\nfield: grass\nnothing: [zebra]\n")
    options = {"labels": str(sets), "threshold": 0.5, "by": ["labels"]}
    found = run.evaluate(str(people), protocols=["fairness-labels"], **options)["fairness-labels"]
    assert found["this"]["wall: labels gap"].mean >= 0.5
    for kind in ("this", "random", "raw"):
        assert found[kind]["wall: labels brick"].mean >= found[kind]["wall: labels hubble"].mean
        assert "no class of nothing" in found[kind].note
        assert "linear head on" in found[kind].note
    with pytest.raises(UserError, match="none of their names is a class"):
        run.evaluate(str(people), protocols=["fairness-labels"])


def test_hit_rate_by_income_and_region(run, people: Path, tmp_path: Path) -> None:
    found = run.evaluate(str(people), protocols=["hit-rate"])["hit-rate"]
    for result in found.values():
        assert result["hit_rate"].mean == pytest.approx(1.0, abs=0.1)
        assert {"hit_rate: income low", "hit_rate: income medium", "hit_rate: region gap"} <= set(result.numbers)
    reader = list(csv.reader((people / "metadata.csv").open()))
    rows = [(*r[:6], r[6] if int(r[4]) > 200 else "moon") for r in reader[1:]]
    for r in rows:
        write(tmp_path / r[0], cv2.imread(str(people / r[0]))[..., ::-1])
    write_table(tmp_path / "metadata.csv", ",".join(reader[0]), rows)
    some = run.evaluate(str(tmp_path), protocols=["hit-rate"], baselines=False)["hit-rate"]["this"]
    assert "16 images with no label" in some.note
    assert "hit_rate: income low" not in some.numbers


# ---- classes and layers ------------------------------------------------------------------------------------------
def test_a_linear_head_on_another_set_with_some_of_the_classes(run, tmp_path: Path) -> None:
    for name, called in (("brick", "brick"), ("grass", "lawn"), ("coins", "Coins")):
        for k in range(6):
            write(tmp_path / f"set/{called}/{k}.png", tile(name, k + 3))
    mapping = tmp_path / "names.json"
    mapping.write_text(json.dumps({"lawn": ["grass"]}))
    found = run.evaluate(str(tmp_path / "set"), protocols=["restricted"], labels=mapping)["restricted"]
    for result in found.values():
        assert result.figures["shared"] == ["brick", "coins", "grass"]
        assert result["accuracy"].mean >= result["accuracy_all_classes"].mean
    assert found["this"]["accuracy"].mean > 0.6
    lost = run.evaluate(str(tmp_path / "set"), protocols=["restricted"], baselines=False)["restricted"]["this"]
    assert "6 images without a shared class" in lost.note


@pytest.mark.slow
def test_a_classifier_is_judged_by_its_own_logits(photographs: Path, tmp_path: Path) -> None:
    options = {k: v for k, v in TINY.items() if k != "projector"} | {"steps": 20}
    run = selftaught.train("supervised", str(photographs), out=str(tmp_path / "run"), augment="small", **options)
    for name in SIX[:3]:
        for k in range(4):
            write(tmp_path / f"set/{name}/{k}.png", tile(name, k))
    found = run.evaluate(str(tmp_path / "set"), protocols=["restricted"])["restricted"]
    assert set(found) == {"this", "random", "raw"}
    assert "linear head" not in found["this"].note
    source = open_source(str(tmp_path / "set"), split="all")
    from selftaught.run.features import embed

    logits, labels, _ = embed(run.method, source, predict=True)
    three = [run.config["data"]["classes"].index(name) for name in SIX[:3]]
    assert found["this"]["accuracy"].mean == pytest.approx((logits[:, three].argmax(1) == labels).mean())
    rows = [(f"{name}/{k}.png", f"{name}|coins") for name in SIX[:3] for k in range(4)]
    write_table(tmp_path / "set/metadata.csv", "name,labels", rows)
    several = run.evaluate(str(tmp_path / "set"), protocols=["restricted"], baselines=False)["restricted"]["this"]
    right = [{three[k // 4], three[2]} for k in range(12)]
    answers = [three[c] for c in logits[:, three].argmax(1)]
    assert several["accuracy"].mean == pytest.approx(np.mean([a in r for a, r in zip(answers, right, strict=True)]))


@pytest.mark.slow
def test_every_layer_is_probed_and_the_best_one_named(run) -> None:
    found = run.evaluate(protocols=["layerwise"])["layerwise"]
    figure = found["this"].figures["layers"]
    assert figure["names"][-5:] == [*(f"model.layer{k}" for k in (1, 2, 3, 4)), "h"]
    assert figure["widths"][-2:] == [256, 256]
    assert figure["best"]["linear"] in figure["names"]
    means = [found["this"][f"{name} linear"].mean for name in figure["names"]]
    assert found["this"]["best linear"].mean == max(means)
    assert found["raw"].figures["layers"]["names"] == ["input"]
    cells = run.evaluate(protocols=["layerwise"], grid="2x1", baselines=False)["layerwise"]["this"].figures["layers"]
    assert cells["widths"][-3:] == [2 * 128, 2 * 256, 256]


def test_the_number_of_neighbours_may_be_said(run, capsys: pytest.CaptureFixture[str]) -> None:
    usual = run.evaluate(protocols=["knn"], baselines=False)["knn"]["this"]
    assert main(["evaluate", str(run.path), "--protocol", "knn", "--neighbours", "1"]) == 0
    assert "note: k = 1" in capsys.readouterr().out
    nearest = run.evaluate(protocols=["knn"], neighbours=1, baselines=False)["knn"]["this"]
    assert nearest["accuracy"].mean != usual["accuracy"].mean
    few = run.evaluate(protocols=["layerwise"], neighbours=1, baselines=False)["layerwise"]["this"]
    assert few["h knn"].mean == nearest["accuracy"].mean


def test_fine_tuning_on_a_share_of_the_labels(run) -> None:
    found = run.evaluate(protocols=["finetune"], fraction=0.2, baselines=False)
    assert list(found) == ["finetune 20%"]
    assert 0 < found["finetune 20%"]["this"]["accuracy"].mean <= 1
    with pytest.raises(UserError, match="fraction=0"):
        run.evaluate(protocols=["finetune"], fraction=0)


# ---- what a user sees --------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_suites_stand_beside_other_protocols_in_store_and_report(run, places: Path, people: Path) -> None:
    found = run.evaluate(str(people), protocols=["fairness-retrieval", "diagnostics"], by=["skin"])
    assert list(found) == ["fairness-retrieval", "diagnostics"]
    (kept,) = (run.path / "evaluations").glob("people*/evaluation.json")
    stored = json.loads(kept.read_text())
    assert stored["fairness-retrieval"]["this"]["numbers"]["precision@1: skin gap"]["mean"] == 1.0
    page = run.report().read_text()
    assert "precision@1: skin gap" in page
    assert "fairness-retrieval" in page
    assert f"judged on {people.name}/" in page


def test_the_command_prints_a_line_per_subgroup(run, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(run.path), "--protocol", "fairness-retrieval", "--data", str(people), "--by", "skin"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "|  | this model | untrained | raw input |" in lines
    (gap,) = [line for line in lines if line.startswith("| precision@1: skin gap |")]
    assert gap.count("1.000") >= 3
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    told = "".join(capsys.readouterr().out.split())
    assert [name for name in evaluation.PROTOCOLS if name not in told] == []


@pytest.mark.parametrize(
    ("protocol", "broken", "said"),
    [
        ("copy-detection", "nowhere", "needs data=FOLDER"),
        ("copy-detection", "empty", "no database/"),
        ("copy-detection", "no-queries", "no queries/"),
        ("copy-detection", "strangers", "no query has an original"),
        ("geolocalisation", "images", "locations.csv: no such file"),
        ("geolocalisation", "no-longitude", "no column 'longitude'"),
        ("geolocalisation", "no-number", "latitude is 'north'"),
        ("fairness-retrieval", "images", "metadata.csv: no such file"),
        ("fairness-retrieval", "no-gender", "no column 'gender'"),
        ("fairness-retrieval", "others", "no line names an image"),
        ("fairness-labels", "no-gender", "no column gender or skin or age"),
        ("hit-rate", "no-gender", "no column 'labels'"),
        ("restricted", "images", "no class folders"),
        ("layerwise", "images", "needs labels"),
    ],
)
def test_what_is_missing_is_said_in_one_line(run, tmp_path: Path, protocol: str, broken: str, said: str) -> None:
    folder = tmp_path / broken
    for k in range(10 * (broken not in ("nowhere", "empty"))):
        inside = {"no-queries": "database/", "strangers": "database/"}.get(broken, "")
        write(folder / f"{inside}{k}.png", tile("brick", k))
    if broken == "empty":
        folder.mkdir()
    if broken == "strangers":
        write(folder / "queries/x_1.png", tile("brick", 0))
    if broken in ("no-longitude", "no-number"):
        columns = "name,latitude" + (",longitude" if broken == "no-number" else "")
        write_table(
            folder / "locations.csv", columns, [(f"{k}.png", "north", 1)[: columns.count(",") + 1] for k in range(10)]
        )
    if broken in ("no-gender", "others"):
        columns = "name,length" if broken == "no-gender" else "name,gender"
        write_table(folder / "metadata.csv", columns, [(k if broken == "no-gender" else f"q{k}", 1) for k in range(10)])
    with pytest.raises(UserError, match=said) as error:
        run.evaluate(str(folder), protocols=[protocol])
    assert "\n" not in str(error.value)


def test_options_are_checked(run, people: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean reference"):
        run.evaluate(str(people), protocols=["hit-rate"], referense="x")
    with pytest.raises(UserError, match="neighbours=-1: 1 or more"):
        run.evaluate(protocols=["knn"], neighbours=-1)
    with pytest.raises(UserError, match="grid=2: rows x columns"):
        run.evaluate(protocols=["layerwise"], grid="2")
    with pytest.raises(UserError, match="no such folder"):
        run.evaluate(str(people), protocols=["fairness-retrieval"], reference="nowhere")
    with pytest.raises(UserError, match="no column 'shoes'"):
        run.evaluate(str(people), protocols=["fairness-retrieval"], by=["shoes"])
    (tmp_path / "sets.yaml").write_text("a: {b: 1}\n")
    with pytest.raises(UserError, match="a should be a name of a class"):
        run.evaluate(str(people), protocols=["fairness-labels"], labels=tmp_path / "sets.yaml")
    assert set(suites.NAMES) < set(evaluation.PROTOCOLS)


@pytest.mark.slow
def test_series_have_layers_but_no_pictures(tmp_path: Path) -> None:
    options = {"steps": 3, "batch_size": 16, "workers": 0, "quiet": True, "knn_every": 0}
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = rng.standard_normal((60, 2, 64)).astype(np.float32) + y[:, None, None]
    np.savez(tmp_path / "x.npz", x=x, y=y)
    run = selftaught.train("frame-projections", str(tmp_path / "x.npz"), out=str(tmp_path / "run"), **options)
    found = run.evaluate(protocols=["layerwise"])["layerwise"]
    assert found["this"]["best knn"].mean > 0.8
    with pytest.raises(UserError, match="is for images"):
        run.evaluate(protocols=["copy-detection"])


def test_names_in_a_table_may_be_paths_file_names_or_stems(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/2.png", "b/3.png"):
        write(tmp_path / name, tile("brick", 0))
    source = open_source(str(tmp_path), split="all")
    write_table(tmp_path / "metadata.csv", "Name, Skin ", [("b/2.png", "x"), ("1", "y"), ("3.png", "z"), ("4", "lost")])
    about = read_metadata(tmp_path / "metadata.csv", source, ["skin"])
    assert about.rows.tolist() == [0, 2, 3]
    assert about.column("SKIN") == ["y", "x", "z"]
    assert about.some(np.array([3, 0])).column("skin") == ["z", "y"]
    write_table(tmp_path / "metadata.csv", "name,skin", [("1", "y"), ("2", "whose")])
    with pytest.raises(UserError, match=r"metadata.csv: 2 may be a/2.png or b/2.png; write names with their folders"):
        read_metadata(tmp_path / "metadata.csv", source)


def test_imagenet_folders_are_read_as_words() -> None:
    assert spoken(["n02395406", "n04005630"])[0].startswith("hog")
    assert spoken(["n02395406", "brick"]) == ["n02395406", "brick"]
    assert spoken(["n99999999"]) == ["n99999999"]
