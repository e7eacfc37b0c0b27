"""TDL: a clip agrees with itself under another still appearance, not with other times of its video (Wang et al., 2020,
arXiv 2008.02129).

    L = CE([q.k, q.Queue, q.n] / tau, 0)

q embeds the anchor, into whose frames a little of one of its own frames is mixed; k is the momentum copy's embedding of
the same clip, n the trained network's of another clip of the video.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught import objectives
from selftaught.catalog.rules import Positive, Share
from selftaught.engine.distributed import gather
from selftaught.engine.method import LearningRateScaling, Optim, Optimizer, Schedule
from selftaught.methods._momentum_clips import MomentumClipConfig, MomentumClips
from selftaught.methods._queue import fitted_queue
from selftaught.views import ClipPair, Recipe, View

__all__ = ["TDL"]


@dataclass
class Config(MomentumClipConfig):
    """TDL's options; the defaults are the authors' launch on UCF101."""

    augment: Literal["paper", "small", "crop", "none"] = "small"
    temperature: Positive = 0.07
    """Temperature tau."""
    queue: int = 9536
    mix: Share = 0.1
    """Largest share of the still frame in the anchor's frames."""
    queue_start: Literal["uniform", "unit"] = "uniform"
    """What stands in the queue before it is full: uniform numbers (the authors' code) or unit vectors."""
    optimizer: Optimizer = "sgd"
    lr: float = 0.003
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 1e-4
    schedule: Schedule = "step"
    decay_factor: float = 0.1


PRESETS = {
    "ucf101": {"epochs": 240, "batch_size": 16},
    "hmdb51": {"epochs": 240, "batch_size": 16, "queue": 3569},
    "benchmark": {"epochs": 200, "batch_size": 16, "encoder": "r2plus1d-18", "queue": 16384},
    "laptop": {
        "encoder": "cnn-small-video", "frames": 8, "stride": 2, "image_size": 32, "flip": 0.0, "crop": 0.5,
        "projection": 64, "queue": 128, "target_decay": 0.9, "optimizer": "adam", "lr": 2e-3, "weight_decay": 0.0,
        "schedule": "cosine", "steps": 400, "batch_size": 16,
    },
}  # fmt: skip


class TDL(MomentumClips):
    """TDL on clips of one or more channels."""

    slug = "tdl"
    config_class = Config
    config: Config

    def build(self) -> None:
        """Encoder, projection, momentum copy, queue."""
        super().build()
        c = self.config
        self.queue = fitted_queue(c.queue, c.projection, self.samples)
        if c.queue_start == "uniform":
            bound = (c.projection / 3) ** -0.5
            self.queue.items.uniform_(-bound, bound)

    def heads(self) -> dict[str, nn.Module]:
        """One linear projection."""
        return {"projection": nn.Linear(int(self.encoder.dim), self.config.projection)}

    def recipe(self) -> Recipe:
        """The anchor, the same clip augmented anew (``positive``), and another clip of the video (``negative``)."""
        c, ops = self.config, self.augmentation()
        pair = ClipPair(c.frames, c.stride, interval="apart")
        places = {"anchor": 0, "positive": 0, "negative": 1}
        views = [View(name, "_pair", (self.part(place), *ops)) for name, place in places.items()]
        return Recipe((View("_pair", "clip", (pair,)), *views))

    def optimisers(self) -> dict[str, Optim]:
        """SGD that falls at a half, two thirds and five sixths of the run (epochs 120, 160, 200 of 240)."""
        found = super().optimisers()
        found["main"].milestones = [max(1, round(self.total_steps * share)) for share in (1 / 2, 2 / 3, 5 / 6)]
        return found

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Compare, then the keys enter the queue."""
        c, clip = self.config, batch["anchor"]
        frame = torch.randint(clip.shape[2], (len(clip),), device=clip.device)
        share = c.mix * torch.rand(len(clip), device=clip.device)
        anchor = objectives.intra_video_mix(clip, frame, share)
        q, n = (normalize(self.embed(x)["projection"].float(), dim=1) for x in (anchor, batch["negative"]))
        k = normalize(self.keys(batch["positive"])["projection"].float(), dim=1)
        terms = objectives.tdl_terms(q, k, n, self.queue.items.clone(), temperature=c.temperature)
        self.queue.push(gather(k))
        return terms
