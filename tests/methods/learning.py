"""What tests of many methods share: a short run must learn, and two processes must learn what one learns."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import nn

import selftaught
from selftaught import DataModule, methods
from selftaught.engine.trainer import quiet_lightning
from tests.two_processes import by_two

PHOTOS: dict[str, Any] = {
    "encoder": "cnn-small", "image_size": 32, "augment": "grey", "crop": 0.08, "batch_size": 64, "workers": 0,
    "knn_every": 0, "quiet": True, "loggers": ["none"],
}  # fmt: skip
"""A short run on tiles of photographs, of a network without BatchNorm, whose statistics alone would raise a k-NN."""


def assert_learns_photographs(slug: str, out: Path, *, margin: float = 0.03, **options: Any) -> selftaught.Run:
    """A run of 60 steps whose encoder's k-NN beats the untrained one's by ``margin``, and raw pixels' clearly."""
    return _assert_learns(slug, "photos?train=80&test=30", out, margin, 0.2, options)


@functools.cache
def waves() -> str:
    """A file of 400 pictures to learn from and 200 to judge: waves of four lengths; all else about them is chance.

    Brightness, contrast, direction and phase are drawn for each picture, so that pixels tell little (0.31 are right,
    0.25 by chance) and an untrained network half; what views of one picture share is the length of its wave.
    """
    rng, count = np.random.default_rng(0), 600
    x, y = np.meshgrid(np.arange(32) / 32, np.arange(32) / 32)
    labels = np.arange(count) % 4
    cycles = np.array([2, 4, 7, 12])[labels] * rng.uniform(0.9, 1.1, count)
    turn, phase = rng.uniform(0, np.pi, count), rng.uniform(0, 2 * np.pi, count)
    along = np.cos(turn)[:, None, None] * x + np.sin(turn)[:, None, None] * y
    wave = np.sin(2 * np.pi * cycles[:, None, None] * along + phase[:, None, None])
    bright, contrast = rng.uniform(0.25, 0.75, count), rng.uniform(0.05, 0.2, count)
    pictures = bright[:, None, None] + contrast[:, None, None] * wave + 0.03 * rng.standard_normal(wave.shape)
    pixels = np.rint(255 * pictures.clip(0, 1)).astype(np.uint8)[..., None]
    path = Path(tempfile.mkdtemp(prefix="selftaught-waves-")) / "waves.npz"
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    names = ("train_images", "train_labels", "test_images", "test_labels")
    np.savez(path, **dict(zip(names, (pixels[:400], labels[:400], pixels[400:], labels[400:]), strict=True)))
    return str(path)


def assert_learns_waves(slug: str, out: Path, *, margin: float = 0.15, **options: Any) -> selftaught.Run:
    """A run of 60 steps whose encoder's k-NN beats the untrained one's by ``margin``, and raw pixels' by a quarter."""
    return _assert_learns(slug, waves(), out, margin, 0.25, {"crop": 0.5} | options)


def _assert_learns(
    slug: str, data: str, out: Path, margin: float, over_raw: float, options: dict[str, Any]
) -> selftaught.Run:
    run = selftaught.train(slug, data, out=str(out), **PHOTOS | {"steps": 60} | options)
    found = {kind: result["accuracy"].mean for kind, result in run.evaluate(protocols=["knn"])["knn"].items()}
    assert found["this"] > found["random"] + margin, found
    assert found["this"] > found["raw"] + over_raw, found
    return run


class Flat(nn.Module):
    """A network without BatchNorm, whose statistics are per process on a CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.dim = nn.Sequential(nn.Linear(256, 32), nn.Tanh(), nn.Linear(32, 24)), 24

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.flatten(1))


class _Held(lightning.Callback):
    """How many rows of a table per sample a process holds after each step."""

    def __init__(self) -> None:
        self.rows: set[int] = set()

    def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
        if hasattr(module, "state"):
            self.rows.add(len(module.state.s))


def learnt(devices: int, slug: str, options: dict[str, Any], data: str, steps: int) -> dict[str, Any]:
    """Tensors of a method's state after some steps with 32 digits in all, and the rows ``held`` of its table."""
    quiet_lightning()

    class Small(methods.get(slug)):
        def build(self) -> None:
            super().build()
            self.encoder, self.projector = Flat(), nn.Linear(24, 8)
            if hasattr(self, "predictor"):
                self.predictor = nn.Linear(8, 8)
            if hasattr(self, "momentum"):
                self.momentum = type(self.momentum)(self.followed(), self.config.target_decay)

    lightning.seed_everything(0, verbose=False)
    usual = {"encoder": "resnet10-narrow", "image_size": 16, "channels": 1, "projector": "16-8", "augment": "grey"}
    usual |= {"optimizer": "sgd", "lr": 0.05, "lr_scaling": "none", "schedule": "constant", "warmup_epochs": 0.0}
    method = Small(**usual | options).double()
    source = DataModule(data, method, batch_size=32 // devices, workers=0, seed=3, total_batches=steps)
    held = _Held()
    trainer = lightning.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", max_steps=steps,
        precision="64-true", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, callbacks=[held],
    )  # fmt: skip
    trainer.fit(method, datamodule=source)
    state = {name: value for name, value in method.state_dict().items() if torch.is_tensor(value)}
    return {"state": state, "held": sorted(held.rows)}


def by_one_and_two(
    slug: str, options: dict[str, Any], *, data: str = "digits", steps: int = 6
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What one process learns and what two with half the batch each do (as rank 0 has it)."""
    return learnt(1, slug, options, data, steps), by_two(learnt, 2, slug, options, data, steps)[0]


def assert_alike(one: dict[str, Any], two: dict[str, Any], rtol: float = 1e-7, atol: float = 1e-9) -> None:
    """Two states have the same tensors, and they agree."""
    assert one.keys() == two.keys()
    assert len(one) > 4
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")
