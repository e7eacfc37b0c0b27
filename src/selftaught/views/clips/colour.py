"""Changes of colour that look at a whole clip."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from selftaught.views.operation import FRAMED, executor, find_executor
from selftaught.views.spec import ColorJitter

__all__ = ["ClipColorJitter"]


@dataclasses.dataclass(frozen=True, repr=False)
class ClipColorJitter(ColorJitter):
    """:class:`ColorJitter` on a clip as on one tall image: contrast acts about the mean of all its frames (CVRL).

    Images are treated as by ColorJitter.
    """


@executor(ClipColorJitter, *FRAMED)
def _tall(x: np.ndarray, op: ClipColorJitter, values: list[float]) -> np.ndarray:
    function: Any = find_executor(ColorJitter, "image", False)
    return function(x.reshape(-1, *x.shape[2:]), op, values).reshape(x.shape)


@executor(ClipColorJitter, *FRAMED, device=True)
def _tall_batch(x: Any, op: ClipColorJitter, values: np.ndarray) -> Any:
    function: Any = find_executor(ColorJitter, "image", True)
    return function(x.flatten(2, 3).contiguous(), op, values).reshape(x.shape)
