"""The options that every method has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from selftaught.catalog.rules import NonNegative, Positive, PositiveShare, Range, Share, check_options

Optimizer = Literal["adamw", "adam", "sgd", "lars"]
LearningRateScaling = Literal["linear", "none"]
Schedule = Literal["cosine", "constant", "step", "linear", "infinite", "wsd"]


@dataclass
class MethodConfig:
    """Options that every method has: the optimiser and its schedule."""

    optimizer: Optimizer = "adamw"
    """Optimiser; biases and norms are left out of weight decay and of LARS' adaptation."""
    lr: NonNegative = 1e-3
    """Base learning rate, for a batch of 256 when lr_scaling is linear."""
    lr_scaling: LearningRateScaling = "linear"
    """linear: lr times (batch over all processes) / 256."""
    weight_decay: NonNegative = 1e-4
    """Weight decay (decoupled in AdamW)."""
    momentum: Annotated[float, Range(0, below=1)] = 0.9
    """Momentum of SGD and LARS, first beta of Adam."""
    lars_eta: Positive = 0.001
    """Trust coefficient of LARS."""
    lars_clip: bool = False
    """LARS never steps further than plain SGD would."""
    warmup_epochs: NonNegative = 0.0
    """Epochs of linear warm-up from 0, at most a fifth of the run."""
    schedule: Schedule = "cosine"
    """What the learning rate does after the warm-up; infinite and wsd need not know the end (see --anneal, --then)."""
    final_lr: Share = 0.0
    """Share of the learning rate that the cosine and the line end at."""
    warmup_end: NonNegative = 0.05
    """Where the warm-up of the schedules infinite and wsd ends: a share of the run up to 1, else a step."""
    cooldown_end: NonNegative = 0.3
    """Where the cooldown of the infinite schedule ends: a share of the run up to 1, else a step."""
    cooldown_shape: Literal["cosine", "linear", "inv_sqrt", "constant"] = "cosine"
    """How the infinite schedule cools down to its constant rate."""
    constant_lr: PositiveShare = 0.25
    """Constant rate of the infinite schedule, as a share of lr."""
    anneal_start: Positive = 0.8
    """Where annealing of infinite and wsd begins: a share of the run up to 1 (1: never), else a step."""
    anneal_shape: Literal["exponential", "linear", "sqrt"] = "exponential"
    """How infinite and wsd anneal."""
    anneal_lr: Share = 0.1
    """Last rate of infinite and wsd, as a share of lr."""
    decay_every: Share = 0.2
    """Share of the run between decays of the step schedule; from where on the linear one falls."""
    decay_factor: Share = 0.5
    """Factor of each decay of the step schedule."""

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def learns(self) -> bool:
        """Whether steps change anything; where they don't, a run is one step, which shows the loss."""
        return True
