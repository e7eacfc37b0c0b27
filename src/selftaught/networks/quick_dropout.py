"""Dropout whose masks cost little on a processor."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["quick_dropout"]


class quick_dropout(TorchFunctionMode):
    """Within it dropout on the CPU is drawn by numpy's SFC64, seeded by torch's generator; gradients go as ever.

    torch's Bernoulli numbers take several times as long there, and in a small transformer a fifth of a training step.
    The draws are other ones than torch's of the same seed. Dropout in place, on other devices and within attention
    is torch's own.
    """

    def __enter__(self) -> Self:
        """Draw the seed."""
        self._bits = np.random.SFC64(int(torch.randint(1 << 62, ())))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Dropout by the rule above; all else as torch does it."""
        found = self._dropped(*args, **(kwargs or {})) if function is F.dropout else None
        return function(*args, **(kwargs or {})) if found is None else found

    def _dropped(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor | None:
        if not training or inplace or not 0 < p < 1 or input.device.type != "cpu":
            return None
        count = input.numel()
        drawn = self._bits.random_raw(count // 2 + 1).view(np.uint32)[:count]
        kept = torch.from_numpy(drawn >= np.uint32(p * 2**32)).to(input.dtype)
        return input * kept.mul_(1 / (1 - p)).view(input.shape)
