"""SEER: SwAV with sharper codes, more rounds and, if asked for, a power-law prior."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from selftaught.objectives.swav import Join, swav

__all__ = ["seer"]


def seer(
    *scores: Tensor,
    crops_for_assign: Sequence[int] = (0, 1),
    temperature: float | Tensor = 0.1,
    eps: float = 0.03,
    iters: int = 10,
    power_law: float = 0.0,
    hard: bool = False,
    queue: Sequence[Tensor] | None = None,
    join: Join | None = None,
) -> Tensor:
    """SEER's objective (Goyal et al. 2022, arXiv 2202.08360): :func:`swav` with sharper codes and more rounds.

    ``power_law`` above 0 gives up the equal partition for cluster sizes that fall as (k + 1)^(-a), as they may in
    uncurated images. Arguments, result and errors as in :func:`swav`.
    """
    return swav(
        *scores, crops_for_assign=crops_for_assign, temperature=temperature, eps=eps, iters=iters,
        power_law=power_law, hard=hard, queue=queue, join=join,
    )  # fmt: skip
