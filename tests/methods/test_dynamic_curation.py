"""Dynamic curation as wired: when it chooses, by whose features, what it writes, and that it goes on after a cut."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import selftaught
from selftaught import methods
from selftaught.data import open_source
from selftaught.engine.loader import DataModule
from selftaught.engine.orders import Shuffled
from selftaught.engine.reselection import Reselection, ReselectionOptions, jaccard, label_entropy
from selftaught.errors import UserError
from selftaught.run import reporting
from tests.methods.resuming import cut_and_whole

TINY: dict[str, Any] = {
    "encoder": "cnn-small", "image_size": 16, "projector": "24-12", "augment": "grey", "local_crops": 0,
    "prototypes": 9, "cluster_least": 50,
}  # fmt: skip
RUN: dict[str, Any] = TINY | {
    "batch_size": 20, "workers": 0, "loggers": ["none"], "knn_every": 0, "quiet": True, "rho": 0.2,
    "select_after": 1, "select_every": 2,
}  # fmt: skip


def archive(many: int = 150, few: int = 10, seed: int = 0) -> dict[str, np.ndarray]:
    """Three kinds of pictures: bars across many times over, bars down and squares seldom."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], [many, few, few])
    images = np.zeros((len(labels), 16, 16), np.float32)
    for image, label in zip(images, labels, strict=True):
        at = int(rng.integers(2, 10))
        if label == 0:
            image[at : at + 3] = 1
        elif label == 1:
            image[:, at : at + 3] = 1
        else:
            image[at : at + 4, at : at + 4] = 1
    images = np.clip(200 * images + 20 * rng.random(images.shape), 0, 255)
    return {"images": images.astype(np.uint8), "labels": labels}


def test_when_a_choice_is_due_and_what_the_options_refuse() -> None:
    due = Reselection(ReselectionOptions(select_after=2, select_every=3)).due
    assert [e for e in range(12) if due(e)] == [2, 5, 8, 11]
    once = Reselection(ReselectionOptions(select_after=2, select_every=0)).due
    assert [e for e in range(12) if once(e)] == [2]
    assert not any(map(Reselection(ReselectionOptions(rho=1.0)).due, range(9)))
    told = ReselectionOptions.of("rho=0.3,select_every=0,eta=1,leaf=closest,rescale_epochs=true")
    assert (told.rho, told.select_every, told.eta, told.leaf, told.rescale_epochs) == (0.3, 0, 1.0, "closest", True)
    assert ReselectionOptions.of("0.25").rho == 0.25
    for wrong, said in (
        ("rho=2", 'curate="rho=2"; it may be'),
        ("rate=1", "no option 'rate'"),
        ("select_after=0", "untrained"),
    ):
        with pytest.raises(UserError, match=said):
            ReselectionOptions.of(wrong)


def test_all_of_it_is_plain_training_to_the_bit() -> None:
    plain, whole = Shuffled(57), Reselection(ReselectionOptions(rho=1.0)).order(open_source("digits?n=57"), 8, 3)
    assert whole.length == 57
    assert all(np.array_equal(plain.epoch(3, e), whole.epoch(3, e)) for e in range(4))


def test_the_features_are_those_of_teacher_or_student_before_or_in_the_head() -> None:
    batch = {"views": [torch.randn(4, 1, 16, 16)]}
    made: dict[tuple[str, str], torch.Tensor] = {}
    for who in ("teacher", "student"):
        for layer in ("backbone", "bottleneck"):
            torch.manual_seed(0)
            method = methods.get("dynamic-curation")(
                channels=1, selection_features=who, selection_layer=layer, **TINY
            ).eval()
            with torch.no_grad():
                for p in method.momentum.parameters():
                    p.mul_(1.5)
                made[who, layer] = method.selection_features(batch)
    assert torch.equal(made["student", "backbone"], method.encoder(batch["views"][0]))
    assert torch.equal(made["teacher", "backbone"], method.momentum.average[0](batch["views"][0]))
    assert made["student", "bottleneck"].shape == (4, 12)
    assert not torch.equal(made["teacher", "bottleneck"], made["student", "bottleneck"])


def test_another_encoder_chooses_others_the_same_one_the_same() -> None:
    source = open_source("digits?n=300")
    method = methods.get("dynamic-curation")(channels=1, rho=0.2, **TINY)
    method.reselection.order(source, 16, 0)
    first, again = (method.reselection.choose(method).indices for _ in range(2))
    assert method.training
    assert all(module.training for module in method.projector.modules())
    assert np.array_equal(first, again)
    assert len(first) == 60
    other = methods.get("dynamic-curation")(channels=1, rho=0.2, **TINY)
    other.reselection.order(source, 16, 0)
    assert jaccard(first, other.reselection.choose(other).indices) < 0.9
    method.selection_features = lambda batch: torch.ones(len(batch["views"][0]), 3)
    assert method.reselection.choose(method).mode == "random"


def test_a_method_with_an_order_of_its_own_takes_no_choice() -> None:
    class Ordered(methods.get("simclr")):
        def order(self, source: Any, role: str) -> Any:
            return Shuffled(len(source))

    method = Ordered(encoder="cnn-small", image_size=16, channels=1)
    method.reselection = Reselection(ReselectionOptions())
    with pytest.raises(UserError, match="orders its samples itself"):
        DataModule("digits?n=40", method, batch_size=8)


@pytest.mark.slow
def test_rare_kinds_come_to_their_right_and_the_kept_lists_are_sources(tmp_path: Path) -> None:
    run = selftaught.train(
        "dynamic-curation", archive(), out=str(tmp_path / "run"), steps=8, split="all", levels="24-6", **RUN
    )
    assert run.settings.steps == 8
    rows = list(csv.DictReader((tmp_path / "run/selections.csv").open()))
    assert [(int(row["step"]), int(row["epoch"])) for row in rows] == [(1, 1), (3, 3), (5, 5), (7, 7)]
    assert [int(row["images_embedded"]) for row in rows] == [170, 340, 510, 680]
    assert [int(row["images_trained"]) for row in rows] == [20, 60, 100, 140]
    whole = label_entropy(archive()["labels"])
    assert all(float(row["label_entropy"]) > whole + 0.15 for row in rows)
    names = (tmp_path / "run/selections/step-00000007.txt").read_text().split()
    assert len(names) == len(set(names)) == 34
    checkpoint = torch.load(tmp_path / "run/checkpoints/train.ckpt", weights_only=True)
    source = open_source(archive(), split="all")
    saved = checkpoint["DataModule"]["orders"]["data"]["active"]
    assert [source.names[i] for i in saved] == names
    kept = open_source(archive(), split="all", only=str(tmp_path / "run/selections/step-00000007.txt"))
    assert list(kept.names) == names
    assert run.apply(archive(), tmp_path / "found.npy") == 170
    (listing,) = reporting.selections(run.layout)
    assert [row[:3] for row in listing["rows"]] == [[1, 1, 34], [3, 3, 34], [5, 5, 34], [7, 7, 34]]
    assert "bits of the classes" in listing["columns"]


@pytest.mark.slow
def test_a_cut_run_goes_on_with_the_same_choices(tmp_path: Path) -> None:
    options = {name: value for name, value in RUN.items() if name != "quiet"} | {"batch_size": 90, "quiet": True}
    whole, cut = cut_and_whole("dynamic-curation", tmp_path, options, data="digits?n=900", steps=12)
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    tables = [list(csv.DictReader((tmp_path / name / "selections.csv").open())) for name in ("whole", "cut")]
    for row in (row for table in tables for row in table):
        row.pop("seconds")
    assert tables[0] == tables[1]
    assert len(tables[0]) >= 3


@pytest.mark.slow
def test_any_method_with_features_chooses_by_them(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "encoder": "cnn-small", "image_size": 16, "projector": "16-8", "augment": "grey", "batch_size": 20,
        "workers": 0, "loggers": ["none"], "knn_every": 0, "quiet": True, "split": "all", "preset": "laptop",
    }  # fmt: skip
    curate = "rho=0.25,select_after=1,select_every=0,rescale_epochs=true"
    run = selftaught.train("simclr", archive(), out=str(tmp_path / "a"), epochs=2, curate=curate, **options)
    assert len(list((tmp_path / "a/selections").glob("*.txt"))) == 1
    assert run.layout.read_state()["stages"]["train"]["steps"] == 16  # as many as two passes over all 170
    with pytest.raises(UserError, match="options of its own"):
        selftaught.train("dynamic-curation", archive(), curate="0.5", out=str(tmp_path / "b"), **options)
    with pytest.raises(UserError, match="no features"):
        selftaught.train("c-bsn", "photos", curate="0.5", out=str(tmp_path / "c"), steps=1, quiet=True)
