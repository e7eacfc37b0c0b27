"""Branch points: the whole state at the end of a constant phase, and starting a further task from one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from selftaught.engine.checkpoint import save_atomically

__all__ = ["BranchPoint", "KeptOptimiser", "branch_file"]


def branch_file(checkpoint: Path) -> Path:
    """Where the branch point of a stage lies, beside its last checkpoint: ``train.ckpt`` -> ``train.branch.ckpt``."""
    return checkpoint.with_suffix(".branch.ckpt")


class BranchPoint(Callback):
    """Keep the state at one step: weights, optimiser moments, place in the data, generators.

    Args:
        path: file to write.
        step: the step after which it is written; 0 or less writes nothing.
        warn: called with one line when it can't be written.
    """

    def __init__(self, path: Path, step: int, warn: Any = print) -> None:
        self.path, self.step, self.warn = path, step, warn

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save when the step has just been done."""
        if module.steps != self.step or self.step < 1 or self.path.exists():
            return
        problem = save_atomically(trainer, self.path)
        if problem:
            self.warn(problem)


class KeptOptimiser(Callback):
    """Begin with the optimisers' moments of another run of the same method; rates and decays stay the new run's.

    Args:
        checkpoint: of the other run.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Give every optimiser its moments."""
        content = torch.load(self.checkpoint, map_location=module.device, weights_only=True)
        for optimiser, state in zip(trainer.optimizers, content["optimizer_states"], strict=True):
            groups = [{k: v for k, v in group.items() if k != "params"} for group in optimiser.param_groups]
            optimiser.load_state_dict(state)
            for group, own in zip(optimiser.param_groups, groups, strict=True):
                group.update(own)
