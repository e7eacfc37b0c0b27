"""What fine-tuning forgot at each mixture of start and end (WiSE-FT, Wortsman et al., CVPR 2022, arXiv 2109.01903)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selftaught.errors import UserError
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.result import Number, Result

__all__ = ["forgetting"]


@protocol("forgetting", "what fine-tuning forgot, for every mixture with its start", inputs="mixtures")
def forgetting(
    rows: Sequence[Mapping[str, float]], kept: float, *, of_start: Sequence[str] = (), note: str = ""
) -> Result:
    """Scores of mixed weights, and what those that are kept lost of the start's.

    Args:
        rows: a row for every share of the trained weights, from 0 (the start) on: ``share``, and scores by their names,
            higher is better.
        kept: the share that is kept; one of the rows'.
        of_start: names of scores on the start's data; what was lost of them is a number, too.
        note: what a reader must know.

    Returns:
        The scores at ``kept``, ``NAME, lost`` for those of ``of_start``; figures ``sweep`` (the rows) and ``kept``.

    Raises:
        UserError: no row of the share that is kept or of share 0, rows of unlike scores.
    """
    by_share = {row["share"]: row for row in rows}
    if 0 not in by_share or kept not in by_share or any(row.keys() != by_share[0].keys() for row in rows):
        raise UserError(f"forgetting: rows of the same scores, for shares 0 and {kept:g} among others")
    start, at = by_share[0], by_share[kept]
    numbers = {name: Number.of(value) for name, value in at.items() if name != "share"}
    numbers |= {f"{name}, lost": Number.of(start[name] - at[name]) for name in start if name in of_start}
    better = {f"{name}, lost": "low" for name in of_start}
    figures = {"sweep": [dict(row) for row in rows], "kept": kept, "better": better}
    return Result("forgetting", numbers, figures=figures, note=note)
