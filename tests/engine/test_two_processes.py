"""Two processes with half the batch each learn what one process with the whole batch learns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

CODE = """
import sys, torch, lightning as L
from torch import nn
from selftaught import DataModule, methods
from selftaught.engine.fit import quiet_lightning
quiet_lightning()
devices, batch, out, slug = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]

class Flat(nn.Module):  # no BatchNorm: its statistics are per process on a CPU
    def __init__(self):
        super().__init__()
        self.net, self.dim = nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.Tanh(), nn.Linear(32, 24)), 24
    def forward(self, x):
        return self.net(x.flatten(1))

L.seed_everything(0, verbose=False)
method = methods.get(slug)(encoder="resnet10-narrow", image_size=16, channels=1, projector="16-8", augment="grey",
                           optimizer="sgd", lr=0.05, lr_scaling="none", schedule="constant", warmup_epochs=0.0)
method.encoder, method.projector = Flat(), nn.Linear(24, 8)
method = method.double()
data = DataModule("digits", method, batch_size=batch, workers=0, seed=3, total_batches=6)
trainer = L.Trainer(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", max_steps=6,
                    precision="64-true", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                    enable_model_summary=False, use_distributed_sampler=False)
trainer.fit(method, datamodule=data)
if trainer.is_global_zero:
    torch.save({k: v for k, v in method.state_dict().items()}, out)
"""


@pytest.mark.parametrize("slug", ["simclr", "dcl", "barlow-twins"])
def test_two_processes_equal_one_with_the_doubled_batch(tmp_path: Path, slug: str) -> None:
    script = tmp_path / "job.py"
    script.write_text(CODE)
    env = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "RANK", "WORLD_SIZE")}
    env |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for devices, batch in ((1, 32), (2, 16)):
        done = subprocess.run(
            [sys.executable, str(script), str(devices), str(batch), str(tmp_path / f"{devices}.pt"), slug],
            env=env, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


SEVERAL = """
import sys, torch, lightning as L
from dataclasses import dataclass
from torch import nn
from torch.nn.functional import softplus
from selftaught import DataModule
from selftaught.engine.fit import quiet_lightning
from selftaught.engine.method import Method, MethodConfig, Optim
quiet_lightning()
devices, batch, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

@dataclass
class Config(MethodConfig):
    pass

class Toy(Method):
    slug, config_class, modalities = "toy", Config, ("series",)

    def build(self):
        self.first, self.second = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.unused = nn.Linear(2, 2)  # belongs to an optimiser and gets no gradient

    def optimisers(self):
        return {"second": Optim([*self.second.parameters(), *self.unused.parameters()], lr=1e-2, every=2),
                "first": Optim(self.first, lr=1e-2, clip=0.01)}

    def step(self, batch):
        x = batch["series"].double().mean(2)
        made = self.first(x.roll(1, 1))
        judged = {"loss": softplus(-self.second(x)).mean() + softplus(self.second(made.detach())).mean()}
        shown = {"judge": self.minimise(judged, optimiser="second")["loss"]}
        return shown | self.minimise({"loss": softplus(-self.second(made)).mean()}, optimiser="first")

    def deliverable(self):
        return self.first

torch.manual_seed(0)
method = Toy(channels=3, length=8).double()
method.accumulate = 2
x = torch.randn(64, 3, 8, generator=torch.Generator().manual_seed(1)).numpy()
from selftaught.data import open_source
source = open_source({"x": x}, modality="series", split="all")
data = DataModule(source, method, batch_size=batch, workers=0, seed=3, total_batches=12)
trainer = L.Trainer(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", max_epochs=1,
                    precision="64-true", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                    enable_model_summary=False, use_distributed_sampler=False)
trainer.fit(method, datamodule=data)
assert method.steps == 6, method.steps
torch.save(method.state_dict(), f"{out}.{trainer.global_rank}")
"""


def test_several_optimisers_learn_on_two_processes_what_they_learn_on_one(tmp_path: Path) -> None:
    """Their gradients are averaged by hand: accumulated, clipped, and one of them moving in every second step only."""
    script = tmp_path / "job.py"
    script.write_text(SEVERAL)
    env = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "RANK", "WORLD_SIZE")}
    env |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for devices, batch in ((1, 16), (2, 8)):
        done = subprocess.run(
            [sys.executable, str(script), str(devices), str(batch), str(tmp_path / str(devices))],
            env=env, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    one, two, other = (torch.load(tmp_path / name, weights_only=True) for name in ("1.0", "2.0", "2.1"))
    torch.manual_seed(0)
    start = torch.nn.Linear(3, 3)
    assert not torch.allclose(one["first.weight"], start.weight.double())
    for name in one:
        assert torch.equal(two[name], other[name]), name
        torch.testing.assert_close(one[name], two[name], rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
