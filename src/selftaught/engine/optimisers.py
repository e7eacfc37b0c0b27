"""What a method says of its optimisers: which parameters, which rule, which schedule, how often, how far clipped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from selftaught.engine.optim import build_optimizer, learning_rate_factor
from selftaught.engine.sharding import apart
from selftaught.errors import UserError


@dataclass
class Optim:
    """One optimiser of a method.

    Attributes:
        parameters: a module, parameters, or groups as :func:`selftaught.engine.optim.parameter_groups` makes them.
            What needs no gradient is left out.
        optimizer: "adamw", "adam", "sgd" or "lars".
        lr: learning rate.
        betas: of Adam and AdamW.
        momentum: of SGD and LARS.
        weight_decay: of the groups that bring none.
        eta: trust coefficient of LARS.
        lars_clip: LARS never steps further than SGD would.
        schedule: "constant", "cosine", "step" or "linear" (constant up to the first milestone, then in a line).
        warmup: steps of linear warm-up.
        final_lr: share of the learning rate that the cosine and the line end at.
        milestones: for "step" and "linear": steps (numbers of 1 or more) or shares of the stage (below 1) at which the
            rate falls.
        gamma: factor of each fall.
        every: this optimiser moves in every so-manyth step of the method only.
        clip: largest norm of its gradient; None takes the run's ``--clip``, 0 does not clip.

    Raises:
        UserError: ``every`` below 1 or a negative ``clip``.
    """

    parameters: Any
    optimizer: str = "adam"
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    weight_decay: float = 0.0
    eta: float = 0.001
    lars_clip: bool = False
    schedule: str = "constant"
    warmup: int = 0
    final_lr: float = 0.0
    milestones: Sequence[float] = ()
    gamma: float = 0.1
    every: int = 1
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"every={self.every}: an optimiser moves every 1 or more steps")
        if self.clip is not None and not self.clip >= 0:
            raise UserError(f"clip={self.clip}: the largest gradient norm must be at least 0 (0 does not clip)")

    def build(self, name: str, *, fused: bool | None = None) -> Optimizer:
        """The torch optimiser.

        Raises:
            UserError: nothing to optimise, or an unknown rule.
        """
        listed = _groups(self.parameters)
        groups = apart(listed)
        if not groups:
            raise UserError(f"optimiser {name}: none of its parameters needs a gradient; unfreeze some")
        if self.optimizer == "sgd" and groups is not listed:
            fused = False  # torch has no fused SGD for shares
        return build_optimizer(
            self.optimizer, groups, lr=self.lr, weight_decay=self.weight_decay, momentum=self.momentum,
            betas=self.betas, eta=self.eta, clip=self.lars_clip, fused=fused,
        )  # fmt: skip

    def moved(self) -> set[int]:
        """The identities of the parameters that it moves."""
        groups = _groups(self.parameters)
        return {id(p) for item in groups for p in (item["params"] if isinstance(item, dict) else [item])}

    def factor(self, step: int, total: int) -> float:
        """Factor on the learning rate at the optimiser's ``step``, of ``total`` that it will take."""
        return learning_rate_factor(
            step,
            total=total,
            warmup=self.warmup,
            schedule=self.schedule,
            minimum=self.final_lr,
            milestones=[round(m * total) if 0 < m < 1 else int(m) for m in self.milestones],
            gamma=self.gamma,
        )


def _groups(parameters: Any) -> list[Any]:
    """Parameters that need a gradient, or groups of them; empty groups are left out."""
    found: Iterable[Any] = parameters.parameters() if isinstance(parameters, nn.Module) else parameters
    groups: list[Any] = []
    for item in found:
        if isinstance(item, dict):
            kept = [p for p in item["params"] if p.requires_grad]
            groups += [item | {"params": kept}] if kept else []
        elif item.requires_grad:
            groups.append(item)
    return groups
