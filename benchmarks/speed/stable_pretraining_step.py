"""stable-pretraining's SimCLR on CIFAR-sized tiles, as its CIFAR-10 benchmark has it; prints images per second.

    python benchmarks/speed/stable_pretraining_step.py STEPS

Its data set, views, module, loss, half precision (bf16 on a CPU) and the callbacks it puts into every Trainer, with
the network, optimiser and batch of the other contenders. A process of its own, for these callbacks get into every
Trainer of a process, ours included.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch import Callback
from peers import peer, stable_pretraining_views
from step import BATCH, SIDE, WARM, Tiles, network, pictures
from torch.utils.data import DataLoader


class Clock(Callback):
    """When every step was done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())


def main(steps: int) -> None:
    """Steps to warm up, then ``steps`` that count."""
    spt = peer("stable-pretraining")
    from stable_pretraining.forward import simclr

    dataset = spt.data.FromTorchDataset(
        Tiles(pictures(4096)), names=["image", "label"], transform=stable_pretraining_views(SIDE)
    )
    options: dict[str, Any] = {"batch_size": BATCH, "shuffle": True, "drop_last": True}
    data = spt.data.DataModule(train=DataLoader(dataset, num_workers=2, persistent_workers=True, **options))
    encoder, projector = network()
    module = spt.Module(
        backbone=encoder, projector=projector, forward=simclr, hparams={},
        simclr_loss=spt.losses.NTXEntLoss(temperature=0.5),
        optim={"optimizer": {"type": "SGD", "lr": 0.06}, "scheduler": "ConstantLR", "interval": "step"},
    )  # fmt: skip
    clock = Clock()
    trainer = L.Trainer(
        max_steps=steps + WARM, accelerator="cpu", precision="bf16-mixed", logger=False, num_sanity_val_steps=0,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(module, data)
    print(BATCH * steps / (clock.times[-1] - clock.times[WARM - 1]))


if __name__ == "__main__":
    main(int(sys.argv[1]))
