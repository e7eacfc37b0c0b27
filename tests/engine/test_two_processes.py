"""Two processes with half the batch each learn what one process with the whole batch learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning
import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from selftaught import DataModule
from selftaught.data import open_source
from selftaught.engine.method import Method, MethodConfig, Optim
from selftaught.engine.trainer import quiet_lightning
from tests.methods.learning import assert_alike, by_one_and_two
from tests.two_processes import by_two

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("slug", ["simclr", "dcl", "barlow-twins"])
def test_two_processes_equal_one_with_the_doubled_batch(slug: str) -> None:
    one, two = by_one_and_two(slug, {})
    assert_alike(one["state"], two["state"])


@dataclass
class Config(MethodConfig):
    pass


class Toy(Method):
    """Two networks that alternate, and one that belongs to an optimiser and gets no gradient."""

    slug, config_class, modalities = "toy", Config, ("series",)

    def build(self) -> None:
        self.first, self.second = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.unused = nn.Linear(2, 2)

    def optimisers(self) -> dict[str, Optim]:
        second = Optim([*self.second.parameters(), *self.unused.parameters()], lr=1e-2, every=2)
        return {"second": second, "first": Optim(self.first, lr=1e-2, clip=0.01)}

    def step(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        x = batch["series"].double().mean(2)
        made = self.first(x.roll(1, 1))
        judged = {"loss": softplus(-self.second(x)).mean() + softplus(self.second(made.detach())).mean()}
        shown = {"judge": self.minimise(judged, optimiser="second")["loss"]}
        return shown | self.minimise({"loss": softplus(-self.second(made)).mean()}, optimiser="first")

    def deliverable(self) -> nn.Module:
        return self.first


def alternate(devices: int) -> dict[str, Any]:
    """State of the toy after twelve batches, two of which make a step."""
    quiet_lightning()
    torch.manual_seed(0)
    method = Toy(channels=3, length=8).double()
    method.accumulate = 2
    x = torch.randn(64, 3, 8, generator=torch.Generator().manual_seed(1)).numpy()
    source = open_source({"x": x}, modality="series", split="all")
    data = DataModule(source, method, batch_size=16 // devices, workers=0, seed=3, total_batches=12)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", max_epochs=1,
        precision="64-true", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(method, datamodule=data)
    assert method.steps == 6, method.steps
    return dict(method.state_dict())


def test_several_optimisers_learn_on_two_processes_what_they_learn_on_one() -> None:
    """Their gradients are averaged by hand: accumulated, clipped, and one of them moving in every second step only."""
    one, (two, other) = alternate(1), by_two(alternate, 2)
    torch.manual_seed(0)
    start = torch.nn.Linear(3, 3)
    assert not torch.allclose(one["first.weight"], start.weight.double())
    for name in one:
        assert torch.equal(two[name], other[name]), name
    assert_alike(one, two)
