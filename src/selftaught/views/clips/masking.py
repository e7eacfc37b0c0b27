"""Which tokens of a clip an encoder may see."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from selftaught.errors import UserError
from selftaught.views.arithmetic import pair
from selftaught.views.operation import Drawn, Op, checked_size, executor, freeze

__all__ = ["TubeMask"]

_SEEDS = 2.0**53


@dataclasses.dataclass(frozen=True, repr=False)
class TubeMask(Op):
    """Masks over the tokens of a clip, one spatial pattern each, repeated over time (VideoMAE, Tong et al. 2022).

    The pixels stay as they are. Reports the masks, (count, N) bool, True where a token is hidden, with N =
    (T / tubelet) (H / patch) (W / patch) tokens in the order time, row, column. Of the P tokens of a time step exactly
    int(ratio P) are hidden. An image is a clip of one time step.

    Args:
        ratio: share of tokens that are hidden, 0 to below 1 (default 0.9).
        tubelet: frames per token (default 2; an image has one).
        patch: side of a token in pixels, or (height, width) (default 16).
        count: how many masks, independently drawn (default 1).
        fact: the name under which they are reported (default "mask"), where one view has several of these.

    Raises:
        UserError: values that make no sense; clips whose sides the tokens don't divide.
    """

    ratio: float = 0.9
    tubelet: int = 2
    patch: int | tuple[int, int] = 16
    count: int = 1
    fact: str = "mask"

    columns: ClassVar = ("seed",)
    draws: ClassVar = 1
    any_dtype: ClassVar = True

    def __post_init__(self) -> None:
        if isinstance(self.ratio, bool) or not isinstance(self.ratio, int | float) or not 0 <= self.ratio < 1:
            raise UserError(f"TubeMask: ratio is a share from 0 to below 1, got {self.ratio!r}")
        for name in ("tubelet", "count"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"TubeMask: {name} is a whole number, 1 or more, got {value!r}")
        freeze(self, patch=checked_size("TubeMask", self.patch), facts=(self.fact,))

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw the seed of the patterns."""
        return (np.floor(u[0] * _SEEDS),), height, width

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Tokens along time, rows and columns of a clip of this size.

        Raises:
            UserError: the tokens don't divide it.
        """
        down, right = pair(self.patch)
        if frames % self.tubelet or height % down or width % right:
            raise UserError(
                f"TubeMask: tokens of {self.tubelet}x{down}x{right} don't divide a clip of {frames}x{height}x{width}"
            )
        return frames // self.tubelet, height // down, width // right

    def masks(self, params: Any, frames: int, height: int, width: int) -> np.ndarray:
        """The masks (count, N) bool that parameters stand for, over a clip of this size in frames and pixels."""
        steps, rows, columns = self.grid(frames, height, width)
        scores = np.random.default_rng(int(params[0])).random((self.count, rows * columns))
        pattern = scores.argsort(1).argsort(1) < int(self.ratio * rows * columns)
        return np.tile(pattern, (1, steps))


@executor(TubeMask, "image", "clip", "volume")
def _tell(x: np.ndarray, op: TubeMask, values: list[float]) -> tuple[np.ndarray, dict[str, Any]]:
    frames = x.shape[0] if x.ndim == 4 else op.tubelet
    return x, {op.fact: op.masks(values, frames, *x.shape[-3:-1])}


@executor(TubeMask, "image", "clip", "volume", device=True)
def _tell_batch(x: Any, op: TubeMask, values: np.ndarray) -> tuple[Any, dict[str, Any]]:
    import torch

    frames = x.shape[2] if x.ndim == 5 else op.tubelet
    masks = np.stack([op.masks(row, frames, *x.shape[-2:]) for row in values])
    return x, {op.fact: torch.from_numpy(masks).to(x.device)}
