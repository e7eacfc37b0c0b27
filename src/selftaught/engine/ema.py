"""A slowly moving copy of a network: the teacher of the momentum methods, or smoother weights for evaluation."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.errors import UserError


def cosine_decay(step: int, total: int, base: float, final: float = 1.0) -> float:
    """Decay that rises from ``base`` to ``final`` over ``total`` steps along half a cosine (BYOL, arXiv 2006.07733).

    final - (final - base) (cos(pi step / total) + 1) / 2, and ``final`` afterwards.
    """
    progress = min(max(step / max(total, 1), 0.0), 1.0)
    return final - (final - base) * (math.cos(math.pi * progress) + 1) / 2


class MovingAverage(nn.Module):
    """Exponential moving average of a module: average <- decay * average + (1 - decay) * weights, after every step.

    It is a module itself: called, it runs the averaged copy; kept as a member, it travels in checkpoints, number of
    updates included, so that a resumed run goes on exactly. Parameters are averaged and need no gradient. Buffers
    (running statistics of BatchNorm, counters) are copied.

    Args:
        module: what to follow; pass it again to :meth:`update`.
        decay: share of the old average in [0, 1]; 0 copies, 1 stands still.
        total: number of updates over which the decay rises to ``final`` along half a cosine; None keeps it fixed.
        final: where the decay ends.

    Raises:
        UserError: a decay outside [0, 1].
    """

    def __init__(self, module: nn.Module, decay: float = 0.99, *, total: int | None = None, final: float = 1.0) -> None:
        super().__init__()
        if not (0 <= decay <= 1 and 0 <= final <= 1):
            raise UserError(f"the decay of a moving average must lie in [0, 1], got {decay} and {final}")
        self.base, self.final, self.total = decay, final, total
        self.updates = 0
        self.average = copy.deepcopy(module).requires_grad_(False)
        self._followed = (module,)  # a tuple, so that it is no member: neither in the state nor among the parameters

    def restart(self) -> None:
        """Take over the weights of what it follows, as at the beginning: after these were loaded from elsewhere."""
        self.average.load_state_dict(self._followed[0].state_dict())
        self.updates = 0

    @property
    def decay(self) -> float:
        """The decay that the next update takes."""
        if self.total is None:
            return self.base
        return cosine_decay(self.updates, self.total, self.base, self.final)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the weights of ``module`` and copy its buffers.

        Raises:
            UserError: the module has other parameters than the copy.
        """
        average, current = dict(self.average.named_parameters()), dict(module.named_parameters())
        if average.keys() != current.keys():
            raise UserError("the module has other parameters than its moving average; make a new MovingAverage")
        step = 1 - self.decay
        for name, parameter in average.items():
            parameter.lerp_(current[name].detach().to(parameter.device, parameter.dtype), step)
        source = dict(module.named_buffers())
        for name, buffer in self.average.named_buffers():
            buffer.copy_(source[name])
        self.updates += 1

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the averaged copy."""
        return self.average(*args, **kwargs)

    def get_extra_state(self) -> Tensor:
        """The number of updates so far, for ``state_dict``."""
        return torch.tensor(self.updates)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the number of updates, from ``load_state_dict``."""
        self.updates = int(state)
