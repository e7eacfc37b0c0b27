"""A Lightning trainer of one's own, with a loader of one's own: what counts epochs counts real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from selftaught import DataModule, UserError, methods
from selftaught.data import open_source
from selftaught.engine.method import Method, MethodConfig
from selftaught.engine.trainer import quiet_lightning
from tests.engine.test_several_optimisers import Toy as Pair
from tests.engine.test_several_optimisers import series


@dataclass
class Config(MethodConfig):
    warmup_epochs: float = 2.0
    lr: float = 1.0
    optimizer: str = "sgd"
    schedule: str = "constant"
    lr_scaling: str = "linear"


class Toy(Method):
    slug, config_class, modalities = "toy", Config, ("series",)

    def build(self) -> None:
        self.net = nn.Linear(2, 1)

    def loss(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"loss": self.net(batch["series"].mean(2)).square().mean()}


class Rows(Dataset[dict[str, Any]]):
    """60 samples, as a loader of one's own may give them."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"index": i, "series": torch.full((2, 8), float(i))}


class Endless(IterableDataset[dict[str, Any]]):
    def __iter__(self) -> Any:
        while True:
            yield Rows()[0]


class Seen(L.Callback):
    """Learning rate and epochs done before each batch."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.epochs: list[float] = []

    def on_train_batch_start(self, trainer: Any, method: Any, batch: Any, index: int) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.epochs.append(method.epochs_done)


def fit(data: Any, accumulate: int = 1, **limits: Any) -> tuple[Toy, Seen]:
    quiet_lightning()
    method, seen = Toy(channels=2, length=8), Seen()
    method.accumulate = accumulate
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[seen], **limits,
    )  # fmt: skip
    trainer.fit(method, data if isinstance(data, DataLoader) else data(method))
    return method, seen


def module(method: Toy) -> DataModule:
    x = np.zeros((60, 2, 8), np.float32)
    return DataModule(open_source({"x": x}, modality="series", split="all"), method, batch_size=12, workers=0)


OWN = DataLoader(Rows(), batch_size=12)


@pytest.mark.parametrize("data", [OWN, module])
@pytest.mark.parametrize("limits", [{"max_epochs": 10}, {"max_steps": 50}, {"max_epochs": 10, "max_steps": 50}])
def test_a_warm_up_of_two_epochs_takes_two_epochs(data: Any, limits: dict[str, int]) -> None:
    method, seen = fit(data, **limits)
    assert (method.epoch_batches, method.total_steps, method.steps) == (5, 50, 50)
    full = 12 / 256  # lr 1 at 256 samples of a step
    assert seen.rates[:11] == pytest.approx([full * min(1, k / 10) for k in range(11)], abs=full / 9)
    assert seen.rates[5] < 0.7 * full
    assert seen.rates[10] == pytest.approx(full)
    assert seen.epochs == pytest.approx([k / 5 for k in range(50)])


@pytest.mark.parametrize("data", [OWN, module])
def test_limited_epochs_are_the_trainers(data: Any) -> None:
    method, seen = fit(data, max_epochs=20, limit_train_batches=2)
    assert (method.epoch_batches, method.total_steps) == (2, 40)
    assert seen.epochs[4] == 2
    assert seen.rates[4] == pytest.approx(12 / 256)


@pytest.mark.parametrize("limits", [{"max_epochs": 12}, {"max_steps": 30}])
def test_accumulated_batches_make_longer_steps_and_no_other_epochs(limits: dict[str, int]) -> None:
    method, seen = fit(OWN, accumulate=2, **limits)
    assert (method.epoch_batches, method.total_steps, method.steps) == (5, 30, 30)
    assert seen.epochs[10] == 2
    assert seen.rates[-1] == pytest.approx(24 / 256)


def test_what_has_no_length_is_said_and_can_be_planned() -> None:
    endless = DataLoader(Endless(), batch_size=4)
    with pytest.warns(UserWarning, match="toy: the data have no length, so that every batch counts as an epoch"):
        fit(endless, max_steps=3)
    with pytest.raises(UserError, match="toy: schedules need an end; give the Trainer max_steps"):
        fit(endless, max_epochs=3)
    assert fit(endless, max_epochs=3, limit_train_batches=4)[0].total_steps == 12
    method = Toy(channels=2, length=8)
    method.plan(40, 4)
    assert (method.total_steps, method.epoch_batches) == (40, 4)


class Pictures(Dataset[dict[str, Any]]):
    """Two views of six pictures, already made."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> dict[str, Any]:
        views = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(i))
        return {"index": i, "views": list(views)}


def test_the_teacher_and_the_prototypes_of_dino_go_by_epochs() -> None:
    """Three batches an epoch: the temperature rises over two epochs, the prototypes stand still in the first."""
    quiet_lightning()
    options: dict[str, Any] = {"encoder": "vit-nano", "image_size": 16, "local_crops": 0, "prototypes": 8, "lr": 0.1}
    options |= {"teacher_temperature": 0.07, "teacher_warmup_epochs": 2.0, "freeze_epochs": 1.0, "optimizer": "sgd"}
    method = methods.DINO(channels=1, projector="8-8-4", warmup_epochs=0.0, **options)
    seen: list[tuple[float, torch.Tensor]] = []

    class Look(L.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            weights = next(p for p in method.projector.prototypes.parameters() if p.requires_grad)
            seen.append((method.teacher_temperature, weights.detach().clone()))

    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Look()], max_epochs=3,
    )  # fmt: skip
    trainer.fit(method, DataLoader(Pictures(), batch_size=2))
    temperatures = [temperature for temperature, _ in seen]
    assert temperatures == pytest.approx([0.04 + 0.03 * min(1, k / 6) for k in range(9)])
    moved = [not torch.equal(seen[0][1], weights) for _, weights in seen]
    assert moved == [False] * 4 + [True] * 5  # before the batches 0 to 3 of three an epoch; then it learns


@pytest.mark.parametrize("every", [1, 3])
def test_max_steps_are_those_of_a_method_of_several_optimisers(every: int) -> None:
    """Twelve steps are twelve, and both schedules come to their end with them."""
    method = Pair({"every": every}, channels=6, length=16)
    quiet_lightning()
    trainer = L.Trainer(
        max_steps=12, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(method, datamodule=DataModule(series(), method, batch_size=8, workers=0))
    assert method.steps == trainer.global_step == 12
    second, first = (optimiser.param_groups[0]["lr"] for optimiser in trainer.optimizers)
    assert first == pytest.approx(0.0, abs=1e-9)
    assert second == pytest.approx(1e-3)
