"""Why each sample of an archive was kept or dropped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selftaught.data.curation.density import unit_rows
from selftaught.data.curation.selection import Selection

__all__ = ["ALIKE", "CHOSEN", "CROWDED", "OTHERS", "RARE", "REASONS", "REPEATED", "UNREAD", "Why", "reasons"]

ALIKE = 0.95
"""Cosine from which on a dropped sample is called a near-duplicate of a kept one of its cluster."""
CHOSEN, RARE = "kept", "kept: its cluster is rare and stays whole"
REPEATED, CROWDED, UNREAD = "dropped: near-duplicate of a kept one", "dropped: its cluster is crowded", "unreadable"
OTHERS = {
    "random": "dropped: not drawn",
    "semdedup": "dropped: more alike than those that are kept",
    "prototypes": "dropped: close to its prototype",
}
REASONS = (CHOSEN, RARE, REPEATED, CROWDED, *OTHERS.values(), UNREAD)


@dataclass(frozen=True)
class Why:
    """Reasons, a row per sample.

    Attributes:
        reason: what became of each sample, one of `REASONS`.
        leaf: (n,) cluster, -1 for none.
        nearest: (n,) for a dropped sample the most similar kept one of its cluster, else -1.
        cosine: (n,) of the two, NaN where there is none.
    """

    reason: list[str]
    leaf: np.ndarray
    nearest: np.ndarray
    cosine: np.ndarray

    def count(self, reason: str) -> int:
        """Samples of a reason."""
        return self.reason.count(reason)


def reasons(x: np.ndarray, selection: Selection) -> Why:
    """Why each sample was kept or dropped.

    Args:
        x: (n, D) features that it was chosen by.
        selection: the choice.
    """
    n, tree = len(x), selection.tree
    kept = np.zeros(n, dtype=bool)
    kept[selection.indices] = True
    usable = np.isfinite(x).all(1)
    leaf = np.full(n, -1, dtype=np.int64) if tree is None else tree.labels
    nearest, cosine = np.full(n, -1, dtype=np.int64), np.full(n, np.nan)
    unit = np.zeros((n, x.shape[1]), dtype=np.float32)
    unit[usable] = unit_rows(x[usable])
    order = np.argsort(leaf, kind="stable")
    rare = np.zeros(n, dtype=bool)
    for members in np.split(order, np.flatnonzero(np.diff(leaf[order])) + 1):
        if leaf[members[0]] < 0:
            continue
        stay, go = members[kept[members]], members[~kept[members]]
        rare[members] = selection.mode not in OTHERS and not len(go)
        for part in np.array_split(go, max(1, len(go) * len(stay) // (1 << 22))):
            if len(part) and len(stay):
                alike = unit[part] @ unit[stay].T
                nearest[part], cosine[part] = stay[alike.argmax(1)], alike.max(1)
    said = np.where(
        kept, np.where(rare, RARE, CHOSEN), np.where(cosine > ALIKE, REPEATED, OTHERS.get(selection.mode, CROWDED))
    )
    return Why(np.where(usable, said, UNREAD).tolist(), leaf, nearest, cosine)
