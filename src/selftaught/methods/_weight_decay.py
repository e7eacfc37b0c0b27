"""Weight decay that follows a cosine over the run, as the vision transformers' recipes have it."""

from __future__ import annotations

from typing import Any

from selftaught.engine.ema import cosine_decay
from selftaught.engine.method import Method


class CosineWeightDecay(Method):
    """Weight decay from ``weight_decay`` to ``final_weight_decay`` of the config; stands before the other bases."""

    @property
    def weight_decay(self) -> float:
        """Weight decay of this step."""
        c: Any = self.config
        return cosine_decay(self.steps, self.total_steps, c.weight_decay, c.final_weight_decay)

    def edit_gradients(self, optimizer: Any) -> None:
        """The weight decay of this step, for those weights that have any."""
        super().edit_gradients(optimizer)
        for group in optimizer.param_groups:
            if group["weight_decay"] > 0:
                group["weight_decay"] = self.weight_decay
