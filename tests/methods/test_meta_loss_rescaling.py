"""STORM as wired: the two-level gradient by finite differences, what leaves plain training alone, resuming, texts."""

from __future__ import annotations

import copy

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from selftaught import methods, objectives
from selftaught.errors import UserError
from selftaught.objectives.meta_loss_rescaling import features_of


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
        for k in torch.randperm(p.numel(), generator=torch.Generator().manual_seed(3))[:4].tolist():
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
    with pytest.raises(UserError, match="give the weights with --weights"):
        toy(mode="static")
