"""Two networks that learn in turn: accumulation, clipping, schedules, averages, stages and resume as for one."""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selftaught.data import open_source
from selftaught.engine.fit import fit
from selftaught.engine.method import Method, MethodConfig, Optim, Stage
from selftaught.errors import UserError
from selftaught.run_settings import Settings


@dataclass
class Config(MethodConfig):
    """Two small networks."""

    every: int = 1
    clip_first: float = -1.0


class Toy(Method):
    """``first`` predicts the channel means from noise, ``second`` scores it; they share the graph."""

    slug = "toy"
    config_class = Config
    config: Config
    modalities = ("series",)
    seen: list[tuple[str, int]]

    def build(self) -> None:
        self.first, self.second = nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
        self.calls: list[str] = []
        self.norms: list[float] = []

    def optimisers(self) -> dict[str, Optim]:
        c = self.config
        return {
            "second": Optim(self.second, lr=1e-2, betas=(0.5, 0.9), schedule="step", milestones=(0.5,), every=c.every),
            "first": Optim(
                self.first, optimizer="sgd", momentum=0.0, lr=1e-2, schedule="cosine",
                clip=None if c.clip_first < 0 else c.clip_first,
            ),
        }  # fmt: skip

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        x = batch["series"].mean(2)
        noise = torch.randn_like(x)
        made = self.first(noise)
        real, fake = self.second(x), self.second(made.detach())
        judged = {"loss": nn.functional.softplus(-real).mean() + nn.functional.softplus(fake).mean()}
        shown = {"judge": self.minimise(judged, optimiser="second")["loss"]}
        terms = {"loss": nn.functional.softplus(-self.second(made)).mean()}
        return shown | self.minimise(terms, optimiser="first")

    def before_step(self) -> None:
        self.calls.append(f"before {self.steps}")

    def after_step(self) -> None:
        self.calls.append(f"after {self.steps}")

    def edit_gradients(self, optimizer: Any) -> None:
        self.norms.append(
            math.sqrt(sum(float(p.grad.square().sum()) for g in optimizer.param_groups for p in g["params"]))
        )

    def deliverable(self) -> nn.Module:
        return self.first


SETTINGS: dict[str, Any] = {
    "steps": 12, "batch_size": 8, "workers": 0, "loggers": ["none"], "precision": "32", "log_every": 3, "knn_every": 0,
}  # fmt: skip


def series() -> Any:
    x = np.random.default_rng(0).normal(size=(40, 6, 16)).astype(np.float32)
    return open_source({"x": x}, modality="series", split="all")


def run(folder: Path, kind: type[Method] = Toy, options: dict[str, Any] | None = None, **settings: Any) -> Any:
    torch.manual_seed(0)
    method = kind(channels=6, length=16, **(options or {}))
    done = fit(method, {"data": series()}, Settings(**SETTINGS | settings), folder, quiet=True)
    return method, done


def test_both_networks_move_and_what_belongs_to_a_step_is_called_once(tmp_path: Path) -> None:
    method, done = run(tmp_path, accumulate=2)
    assert done["steps"] == 12
    assert method.calls == [f"{when} {k}" for k in range(12) for when in ("before", "after")]
    assert len(method.norms) == 24
    torch.manual_seed(0)
    fresh = Toy(channels=6, length=16)
    for name in ("first", "second"):
        pairs = zip(getattr(method, name).parameters(), getattr(fresh, name).parameters(), strict=True)
        assert all(not torch.equal(a, b) for a, b in pairs), name


def test_it_is_the_plain_loop_written_out(tmp_path: Path) -> None:
    """Accumulation, clipping, the step schedule of one and the cosine of the other, against a loop of plain torch."""
    method, _ = run(tmp_path, options={"clip_first": 0.05}, accumulate=2, clip=0.5)
    torch.manual_seed(0)
    plain = Toy(channels=6, length=16)
    from selftaught.engine.loader import DataModule

    data = DataModule(series(), plain, batch_size=8, workers=0, total_batches=24)
    torch.manual_seed(0)
    adam = torch.optim.Adam(plain.second.parameters(), lr=1e-2, betas=(0.5, 0.9))
    sgd = torch.optim.SGD(plain.first.parameters(), lr=1e-2)
    for number, batch in enumerate(data.train_dataloader()):
        step = number // 2
        x = batch["series"].mean(2)
        made = plain.first(torch.randn_like(x))
        real, fake = plain.second(x), plain.second(made.detach())
        loss = (nn.functional.softplus(-real).mean() + nn.functional.softplus(fake).mean()) / 2
        for p, g in zip(
            plain.second.parameters(), torch.autograd.grad(loss, list(plain.second.parameters())), strict=True
        ):
            p.grad = g if p.grad is None else p.grad + g
        if number % 2:
            nn.utils.clip_grad_norm_(plain.second.parameters(), 0.5)
            adam.param_groups[0]["lr"] = 1e-2 * (1.0 if step < 6 else 0.1)
            adam.step()
            adam.zero_grad()
        loss = nn.functional.softplus(-plain.second(made)).mean() / 2
        for p, g in zip(
            plain.first.parameters(), torch.autograd.grad(loss, list(plain.first.parameters())), strict=True
        ):
            p.grad = g if p.grad is None else p.grad + g
        if number % 2:
            nn.utils.clip_grad_norm_(plain.first.parameters(), 0.05)
            sgd.param_groups[0]["lr"] = 1e-2 * (1 + math.cos(math.pi * step / 12)) / 2
            sgd.step()
            sgd.zero_grad()
    for a, b in zip(method.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_an_optimiser_may_move_in_every_third_step_only(tmp_path: Path) -> None:
    method, _ = run(tmp_path, options={"every": 3})
    assert len(method.norms) == 12 + 4
    assert method.trainer.optimizers[0].state[next(method.second.parameters())]["step"] == 4


@pytest.mark.parametrize("cut", [1, 5, 8])
def test_killed_and_resumed_it_ends_in_the_same_weights(tmp_path: Path, cut: int) -> None:
    options = {"checkpoint_steps": 1, "accumulate": 2, "clip": 1.0, "ema": 0.8}
    whole, _ = run(tmp_path / "whole", **options)

    class Cut(Toy):
        armed = True

        def after_step(self) -> None:
            super().after_step()
            if Cut.armed and self.steps == cut:
                raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "cut", Cut, **options)
    Cut.armed = False
    again, done = run(tmp_path / "cut", Cut, **options)
    assert done["steps"] == 12
    for (name, a), b in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    rows = [(tmp_path / n / "metrics.csv").read_text().splitlines() for n in ("whole", "cut")]
    speed = rows[0][0].split(",").index("per_second")
    strip = [[[v for k, v in enumerate(r.split(",")) if k != speed] for r in table] for table in rows]
    assert strip[0] == strip[1]


def test_the_average_is_what_a_stage_ends_with_and_is_settled_again_after_a_kill(tmp_path: Path) -> None:
    plain, _ = run(tmp_path / "plain")
    averaged, _ = run(tmp_path / "averaged", ema=0.8)
    assert torch.equal(plain.second[0].weight, averaged.second[0].weight)
    assert not torch.equal(plain.first.weight, averaged.first.weight)
    saved = torch.load(tmp_path / "averaged/checkpoints/train.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(saved["first.weight"], plain.first.weight)
    again, _ = run(tmp_path / "averaged", ema=0.8)  # nothing is left to train: the ending alone
    assert torch.equal(again.first.weight, averaged.first.weight)


def test_a_term_that_is_not_finite_is_named(tmp_path: Path) -> None:
    class Bad(Toy):
        def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
            terms = super().step(batch)
            return terms | {"judge": terms["judge"] / (0.0 if self.steps == 3 else 1.0)}

    with pytest.raises(UserError, match="loss term judge became NaN or infinite at step 4"):
        run(tmp_path, Bad)


def test_the_best_weights_are_kept_and_patience_ends_a_stage(tmp_path: Path) -> None:
    looks: list[Tensor] = []  # not the method's: whatever a look leaves in that is put back

    class Watched(Toy):
        scores = (3.0, 1.0, 2.0, 2.5, 2.6, 9.0, 9.0)

        def validate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
            if not looks or not torch.equal(looks[-1], self.first.weight):
                looks.append(self.first.weight.detach().clone())
            return {"loss": torch.tensor(self.scores[len(looks) - 1])}

    torch.manual_seed(0)
    method = Watched(channels=6, length=16)
    held = series().subset(np.arange(8))
    settings = Settings(**SETTINGS | {"steps": 40})
    plan = Stage(keep="best", validation=0.2, patience=3)
    done = fit(method, {"data": series()}, settings, tmp_path, plan=plan, held_out=held, quiet=True)
    assert done["steps"] == 25  # looks after 5, 10, 15, 20 and 25 steps; the second was best
    assert (done["kept_step"], done["kept_loss"]) == (10, 1.0)
    assert torch.equal(method.first.weight, looks[1])


def test_what_minimise_refuses() -> None:
    method = Toy(channels=6, length=16)
    with pytest.raises(UserError, match="under a trainer only"):
        method.minimise({"loss": method.first.weight.sum()})
    with pytest.raises(UserError, match="every 1 or more"):
        Optim(method.first, every=0)
    with pytest.raises(UserError, match="patience goes with"):
        Stage(patience=2)


def test_the_signals_are_given_back_however_training_ends(tmp_path: Path) -> None:
    """Else Ctrl-C would do nothing for the rest of the session."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    class Broken(Toy):
        def after_step(self) -> None:
            raise RuntimeError("a fault")

    run(tmp_path / "whole")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(RuntimeError, match="a fault"):
        run(tmp_path / "broken", Broken)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
