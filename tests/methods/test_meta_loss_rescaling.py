"""STORM as wired: the two-level gradient by finite differences, what leaves plain training alone, resuming, texts."""

from __future__ import annotations

import copy
import csv
import re
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import selftaught
from selftaught import methods, objectives
from selftaught.data import open_source
from selftaught.errors import UserError
from selftaught.objectives.meta_loss_rescaling import features_of
from selftaught.run.outputs import weights
from selftaught.run.suites import weighing


class Toy(methods.MetaLossRescaling):
    """Vectors in place of images, and what the optimisers got."""

    slug = "meta-loss-rescaling"

    def build(self) -> None:
        super().build()
        self.encoder = nn.Sequential(nn.Linear(6, 5), nn.Tanh())
        self.encoder.dim = 5
        self.classifier = nn.Linear(5, self.classes)
        self.got: list[dict[str, torch.Tensor]] = []

    def inputs(self, batch):
        return batch["x"]

    def edit_gradients(self, optimizer) -> None:
        names = {id(p): name for name, p in self.named_parameters()}
        found = [p for group in optimizer.param_groups for p in group["params"]]
        self.got.append({names[id(p)]: p.grad.clone() for p in found if p.grad is not None})


SMALL = {"encoder": "cnn-small", "image_size": 16, "lr": 0.05, "schedule": "constant"}


def toy(classes: int = 3, **options) -> Toy:
    torch.manual_seed(0)
    return Toy(SMALL | options, channels=1, classes=classes, modality="image").double()


def batches(count: int, rows: int = 12, classes: int = 3, seed: int = 1) -> list[dict]:
    g = torch.Generator().manual_seed(seed)

    def one():
        x = torch.randn(rows, 6, generator=g, dtype=torch.float64)
        return {"index": torch.arange(rows), "label": torch.randint(0, classes, (rows,), generator=g), "x": x}

    return [{"data": one(), "meta": one()} for _ in range(count)]


def fit(method: Toy, given: list[dict]) -> Toy:
    trainer = L.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", precision="64-true",
    )  # fmt: skip
    trainer.fit(method, DataLoader(copy.deepcopy(given), batch_size=None))
    return method


def outer(method: Toy, batch: dict, optimizer: str, lr: float, weighted: bool, kept: dict) -> float:
    """The meta loss after one first step, written out: no dropout, so that all passes agree.

    Features are constants: those of the meta batch are ``kept`` from the first call on.
    """
    learner = nn.Sequential(copy.deepcopy(method.encoder), copy.deepcopy(method.classifier)).double()
    rescalers = copy.deepcopy(method.rescalers).train()

    def losses_and_weights(role):
        part = batch[role]
        logits = learner(part["x"])
        losses = cross_entropy(logits, part["label"], reduction="none")
        stacked = losses.detach().expand(3, -1), logits.detach().softmax(1).expand(3, -1, -1)
        features = features_of(objectives.dropout_statistics(*stacked, part["label"]))
        return losses, rescalers(kept.setdefault(role, features), part["label"])

    losses, weights = losses_and_weights("data")
    gradients = torch.autograd.grad((weights.detach() * losses).mean(), list(learner.parameters()))
    with torch.no_grad():
        for p, g in zip(learner.parameters(), gradients, strict=True):
            p -= lr * (g if optimizer == "sgd" else g / (g.abs() + 1e-8))
    losses, weights = losses_and_weights("meta")
    return float((weights * losses).mean() if weighted else losses.mean())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_rescalers_gradient_goes_through_the_learners_step(optimizer: str, weighted: bool) -> None:
    options = {"optimizer": optimizer, "dropout": 0.0, "meta_loss_rescaling": weighted}
    start, (batch,) = toy(**options), batches(1)
    trained = fit(toy(**options), [batch])
    gradient = next(g for g in trained.got if any("rescalers" in name for name in g))
    kept: dict = {}
    outer(start, batch, optimizer, 0.05, weighted, kept)
    checked = 0
    for name, p in start.rescalers.named_parameters():
        found = gradient[f"rescalers.{name}"].flatten()
        for k in torch.randperm(p.numel(), generator=torch.Generator().manual_seed(3))[:12].tolist():
            values = []
            for change in (1e-5, -1e-5):
                p.data.view(-1)[k] += change
                values.append(outer(start, batch, optimizer, 0.05, weighted, kept))
                p.data.view(-1)[k] -= change
            slope = (values[0] - values[1]) / 2e-5
            assert float(found[k]) == pytest.approx(slope, rel=2e-3, abs=1e-9)
            checked += abs(slope) > 1e-8
    assert checked > 10


def test_only_the_direct_part_is_left_without_a_step() -> None:
    (batch,) = batches(1)
    none = fit(toy(optimizer="sgd", lr=0.0, dropout=0.0, meta_loss_rescaling=False), [batch]).got
    rescalers = next(g for g in none if any("rescalers" in name for name in g))
    assert max(float(g.abs().max()) for g in rescalers.values()) < 1e-12
    direct = fit(toy(optimizer="sgd", lr=0.0, dropout=0.0), [batch]).got
    rescalers = next(g for g in direct if any("rescalers" in name for name in g))
    assert max(float(g.abs().max()) for g in rescalers.values()) > 1e-4


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_simulating_is_plain_training_to_the_bit(optimizer: str) -> None:
    given, options = batches(6), {"optimizer": optimizer, "dropout": 0.3}
    plain, simulated, used = (fit(toy(mode=mode, **options), given) for mode in ("plain", "simulate", "storm"))
    for a, b, c in zip(*(m.learner.parameters() for m in (plain, simulated, used)), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    moved = zip(simulated.rescalers.parameters(), toy(**options).rescalers.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in moved)


@pytest.mark.parametrize(
    "options",
    [
        {"statistics": "loss", "agreement": False}, {"class_separation": False, "categories": False}, {"window": 3},
        {"window": 0}, {"rounds": 3}, {"threshold": 0.5}, {"passes": 0}, {"mode": "agra"}, {"optimizer": "adamw"},
    ],
)  # fmt: skip
def test_every_variant_learns(options: dict) -> None:
    method, start = fit(toy(**options), batches(4)), toy(**options)
    pairs = zip(method.learner.parameters(), start.learner.parameters(), strict=True)
    assert all(torch.isfinite(a).all() and not torch.equal(a, b) for a, b in pairs)
    rescalers = list(zip(method.rescalers.parameters(), start.rescalers.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in rescalers) == (options.get("mode") == "agra")


def test_a_step_of_another_optimiser_is_refused() -> None:
    with pytest.raises(UserError, match="LARS can't be differentiated"):
        fit(toy(optimizer="lars"), batches(1))
    with pytest.raises(UserError, match="give the weights with weights"):
        toy(mode="static")


# ---- runs ------------------------------------------------------------------------------------------------------------
WORDS = {
    "good": ["fine", "lovely", "great", "warm", "clever", "funny"],
    "bad": ["dull", "poor", "cold", "stupid", "empty", "boring"],
}


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's table: 160 reviews of two classes, as many words of each."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("user") / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "review", "sentiment"])
        for i in range(160):
            kind = "good" if i % 2 else "bad"
            words = [*rng.choice(WORDS[kind], 4), *rng.choice(["film", "story", "actors", "music"], 3)]
            writer.writerow([f"r{i}", " ".join(rng.permutation(words)), kind])
    return path


TEXT = {"preset": "laptop-text", "batch_size": 16, "vocabulary": 50, "loggers": ["none"], "quiet": True}


def test_an_encoder_that_learns_nothing_has_one_row_in_what_judges_features(reviews: Path, tmp_path: Path) -> None:
    run = selftaught.train("meta-loss-rescaling", str(reviews), out=str(tmp_path / "run"), **TEXT | {"steps": 2})
    found = run.evaluate(protocols=["knn", "classify"])
    assert set(found["knn"]) == {"this"}, "TF-IDF, trained or not, is the raw input"
    assert "untrained encoder and the raw input give the same features" in found["knn"]["this"].note
    assert set(found["classify"]) == {"this", "random"}, "the classifier on it does learn"
    assert "same features" not in found["classify"]["this"].note
    learnt = TEXT | {"steps": 2, "encoder": "words", "max_length": 8}
    other = selftaught.train("meta-loss-rescaling", str(reviews), out=str(tmp_path / "other"), **learnt)
    assert set(other.evaluate(protocols=["knn"])["knn"]) == {"this", "random", "raw"}


@pytest.mark.slow
def test_a_users_table_from_training_to_the_list_of_suspects(reviews: Path, tmp_path: Path) -> None:
    data = f"{reviews}?wrong_labels=0.2"
    run = selftaught.train("meta-loss-rescaling", data, out=str(tmp_path / "run"), epochs=12, **TEXT)
    found = run.evaluate(protocols=["classify", "label-noise"])
    noise = found["label-noise"]
    assert noise["this"]["auc"].mean > 0.8
    assert set(noise) == {"this", "random", "raw"}
    assert found["classify"]["this"]["accuracy"].mean > 0.9
    assert run.apply(data, tmp_path / "weights.csv") == 160
    with (tmp_path / "weights.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"name", "class", "label", "weight", "rank", "confidence", "agrees", "probabilities_1"} <= set(rows[0])
    whole = selftaught.data.open_source(data, split="all")
    said = {name: whole.read(i) for i, name in enumerate(whole.names)}
    assert all(row["text"] == said[row["name"]] for row in rows), "one can't correct labels of texts unseen"
    assert sorted(int(row["rank"]) for row in rows) == list(range(1, 161))
    rows.sort(key=lambda row: int(row["rank"]))
    weights = [float(row["weight"]) for row in rows]
    assert weights == sorted(weights)
    page = run.report().read_text(encoding="utf-8")
    assert "Labels to look at" in page
    named = set(re.findall(r"\br\d+\b", page))
    assert named <= set(selftaught.data.open_source(data, split="train").names)
    listed = [row for row in rows if row["name"] in named]
    assert len(listed) >= 100  # and some that other sections show
    lightest = listed[0]
    assert int(lightest["rank"]) <= 5, "some of all samples are judged only"
    assert "rank by cleanlab" in page
    with (tmp_path / "corrected.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(row | {"corrected": row["class"] if row is lightest else ""} for row in rows)
    right = selftaught.data.open_source(f"{data}&corrections={tmp_path / 'corrected.csv'}", split="train")
    changed = [right.classes[k] for name, k in zip(right.names, right.labels, strict=True) if name == lightest["name"]]
    assert changed == [lightest["class"]]
    exported = run.export("safetensors", tmp_path / "exported")
    assert exported.exists()
    with pytest.raises(UserError, match="takes what its vocabulary makes of texts"):
        run.export("onnx")
    static = {"mode": "static", "weights": str(tmp_path / "weights.csv"), "steps": 3}
    again = selftaught.train("meta-loss-rescaling", data, out=str(tmp_path / "static"), **TEXT | static)
    assert torch.equal(again.method.bag.vocabulary.spelt, run.method.bag.vocabulary.spelt)
    static = {"mode": "static", "weights": str(tmp_path / "none.csv"), "steps": 3}
    with pytest.raises(UserError, match="no table with the columns name and weight"):
        selftaught.train("meta-loss-rescaling", data, out=str(tmp_path / "other"), **TEXT | static)


@pytest.mark.slow
def test_a_cut_run_ends_in_the_same_weights(reviews: Path, tmp_path: Path) -> None:
    options = TEXT | {"steps": 8, "checkpoint_steps": 4, "encoder": "words", "max_length": 8, "window": 3}
    kind, whole = methods.MetaLossRescaling, tmp_path / "whole"
    selftaught.train("meta-loss-rescaling", reviews, out=str(whole), **options)
    after = kind.after_step

    def power_cut(self) -> None:
        after(self)
        if self.steps == 5:
            raise RuntimeError("power cut")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kind, "after_step", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            selftaught.train("meta-loss-rescaling", reviews, out=str(tmp_path / "cut"), **options)
    selftaught.train("meta-loss-rescaling", resume=tmp_path / "cut", quiet=True)
    states = [
        torch.load(folder / "checkpoints/train.ckpt", weights_only=True)["state_dict"]
        for folder in (whole, tmp_path / "cut")
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.slow
def test_images_series_and_clean_meta_batches(tmp_path: Path) -> None:
    options = {"loggers": ["none"], "quiet": True, "steps": 3, "batch_size": 16}
    digits = {"encoder": "cnn-small", "image_size": 16, "meta": "digits?n=40"}
    run = selftaught.train(
        "meta-loss-rescaling", "digits?wrong_labels=0.3&n=200", out=str(tmp_path / "a"), **options | digits
    )
    assert run.apply("digits?n=30", tmp_path / "w.npy") == 30
    assert np.load(tmp_path / "w.npy").shape == (30,)
    shown = weights.listing(
        run.method, open_source("digits?wrong_labels=0.3&n=60", split="all"), run.config["data"]["classes"]
    )
    assert len(shown["rows"]) == len(shown["pictures"]) == 60
    assert shown["columns"][-1] == "known to be wrong"
    rng = np.random.default_rng(0)
    series = {"x": rng.normal(size=(60, 2, 32)).astype(np.float32), "y": np.arange(60) % 2}
    series = open_source(series, modality="series", split="all")
    run = selftaught.train("meta-loss-rescaling", series, out=str(tmp_path / "b"), **options)
    assert run.method.modality == "series"
    weighed = weighing.weigh(run.method, series, ["0", "1"])
    assert ((weighed.weight > 0) & (weighed.weight < 1)).all()
    with pytest.raises(UserError, match="its classes are not those"):
        methods.MetaLossRescaling.streams(series, {"meta": "digits"}, lambda spec: open_source(spec, split="all"))
