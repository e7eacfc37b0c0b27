"""What a model that learns tasks one after another still knows of the earlier ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selftaught.errors import UserError

__all__ = ["continual"]


def continual(accuracy: Sequence[Sequence[float]]) -> dict[str, float]:
    """Average accuracy, backward transfer and forgetting.

        A_t = mean_{i <= t} a_{t,i}
        BWT = mean_{i < T} (a_{T,i} - a_{i,i})
        F   = mean_{i < T} (max_t a_{t,i} - a_{T,i})

    Args:
        accuracy: row t holds a_{t,0} ... a_{t,t}: after task t, on task i; longer rows are cut there. NaN: not known.

    Returns:
        ``average`` (A_T), ``average_over_time`` (mean of all A_t), ``backward_transfer`` and ``forgetting`` (0 for a
        single task).

    Raises:
        UserError: no row, or a row shorter than its number.
    """
    rows = [list(row) for row in accuracy]
    if not rows or any(len(row) < t + 1 for t, row in enumerate(rows)):
        raise UserError("row t of the accuracies needs a value for each of the tasks 0 to t")
    table = np.full((len(rows), len(rows)), np.nan)
    for t, row in enumerate(rows):
        table[t, : t + 1] = row[: t + 1]
    averages = [float(table[t, : t + 1].mean()) for t in range(len(rows))]
    last, earlier = table[-1, :-1], range(len(rows) - 1)
    found = {"average": averages[-1], "average_over_time": float(np.mean(averages))}
    if not len(last):
        return found | {"backward_transfer": 0.0, "forgetting": 0.0}
    first = np.array([table[i, i] for i in earlier])
    best = np.array([np.max(table[i:, i]) for i in earlier])
    return found | {"backward_transfer": float((last - first).mean()), "forgetting": float((best - last).mean())}
