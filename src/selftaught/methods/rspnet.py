"""RSPNet: clips of one speed are nearer than clips of two, and a video is itself at any speed (Chen et al., AAAI 2021,
arXiv 2011.07949).

    L = A-VID + RSP
    A-VID = CE([q_A.k_A, q_A.Queue] / tau) + CE([q_A.k-_A, q_A.Queue] / tau)
    RSP = mean max(0, 1 - (q_M.k_M - q_M.k-_M) / tau)

Two heads over one encoder, A for appearance and M for motion; q and k are clips of one speed, k- one of the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught import objectives
from selftaught.catalog.rules import NonNegative, Positive, Range
from selftaught.engine.distributed import gather
from selftaught.engine.method import LearningRateScaling, Optimizer
from selftaught.methods._momentum_clips import MomentumClipConfig, MomentumClips
from selftaught.methods._queue import fitted_queue
from selftaught.views import Recipe, SpeedClips, View

__all__ = ["RSPNet"]


@dataclass
class Config(MomentumClipConfig):
    """RSPNet's options; the defaults are the authors' code (a learning rate of 0.05 for r2plus1d and the like)."""

    augment: Literal["paper", "small", "crop", "none"] = "paper"
    temperature: Positive = 0.07
    """Temperature tau."""
    fast: Annotated[int, Range(2)] = 2
    """How many times faster the other speed is."""
    margin: NonNegative = 1.0
    """Margin of the speeds' order, in units of the temperature."""
    appearance_weight: NonNegative = 1.0
    """Weight of A-VID."""
    speed_weight: NonNegative = 1.0
    """Weight of RSP."""
    queue: int = 16384
    queue_key: Literal["other-speed", "same-speed"] = "other-speed"
    """Which keys enter the queue: those at the other speed (the code's two-head version) or at the query's."""
    optimizer: Optimizer = "sgd"
    lr: float = 0.1
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 1e-4


PRESETS = {
    "kinetics400": {"epochs": 200, "batch_size": 64},
    "r2plus1d": {"epochs": 200, "batch_size": 64, "encoder": "r2plus1d-18", "lr": 0.05},
    "benchmark": {"epochs": 200, "batch_size": 64, "encoder": "r2plus1d-18", "lr": 0.05},
    "laptop": {
        "encoder": "cnn-small-video", "frames": 8, "stride": 1, "fast": 4, "image_size": 32, "augment": "none",
        "appearance_weight": 0.1, "projection": 64, "queue": 128, "target_decay": 0.9, "optimizer": "adam",
        "lr": 2e-3, "weight_decay": 0.0, "steps": 400, "batch_size": 16,
    },
}  # fmt: skip


class RSPNet(MomentumClips):
    """RSPNet on clips of one or more channels."""

    slug = "rspnet"
    config_class = Config
    config: Config

    def build(self) -> None:
        """Encoder, two heads, momentum copy of all, queue."""
        super().build()
        self.queue = fitted_queue(self.config.queue, self.config.projection, self.samples)

    def heads(self) -> dict[str, nn.Module]:
        """A linear layer each for appearance and motion."""
        dim, out = int(self.encoder.dim), self.config.projection
        return {"appearance": nn.Linear(dim, out), "motion": nn.Linear(dim, out)}

    def recipe(self) -> Recipe:
        """Two clips at one speed (``query``, ``key``) and one at the other (``other``), each augmented anew."""
        c, ops = self.config, self.augmentation()
        ops = (*ops, self.blur(0.5)) if c.augment == "paper" else ops
        names = ("query", "key", "other")
        views = [View(name, "_clips", (self.part(place), *ops)) for place, name in enumerate(names)]
        return Recipe((View("_clips", "clip", (SpeedClips(c.frames, c.stride, speeds=(1, c.fast)),)), *views))

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Both terms; then keys enter the queue."""
        c = self.config
        q, k, other = self.embed(batch["query"]), self.keys(batch["key"]), self.keys(batch["other"])
        found: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        for name in ("appearance", "motion"):
            a, b, d = (normalize(z[name].float(), dim=1) for z in (q, k, other))
            found[name] = (a, b, d)
        terms = objectives.rspnet_terms(
            found["appearance"], found["motion"], self.queue.items.clone(), temperature=c.temperature,
            margin=c.margin, weights=(c.appearance_weight, c.speed_weight),
        )  # fmt: skip
        self.queue.push(gather(found["appearance"][2 if c.queue_key == "other-speed" else 1]))
        return terms
