"""Labels: which class a sample is of."""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught.data.kinds._kind import Kind
from selftaught.errors import SampleError

__all__ = ["Label"]


class Label(Kind):
    """The number of a class, from 0; -1 where a sample of a labelled source has none."""

    name, plural, description = "label", "labels", "a label"
    layout, batched = "()", "(N,)"

    def check(self, sample: Any, name: str) -> None:
        """A whole number from -1."""
        if isinstance(sample, bool) or not isinstance(sample, int | np.integer) or sample < -1:
            raise SampleError(name, f"{sample!r} where a label is a whole number from -1")

    def stack(self, samples: list[Any]) -> Any:
        """Labels as (N,) int64."""
        import torch

        return torch.tensor([int(s) for s in samples], dtype=torch.int64)
