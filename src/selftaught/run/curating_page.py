"""What the page about a selection shows: pictures of duplicates, crowded clusters and rare ones."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from selftaught.data import Source, as_uint8
from selftaught.errors import SampleError
from selftaught.report import images
from selftaught.report.curated import ClusterRow, DuplicateRow, SelectionPage, Thumb, shares
from selftaught.run.reasons import ALIKE, RARE, REASONS, REPEATED, UNREAD

if TYPE_CHECKING:
    from selftaught.run.curating import Curated

_SIDE, _PAIRS, _ROWS, _EACH = 96, 24, 8, 6


def page(found: Curated) -> SelectionPage:
    """The page's content."""
    archive, why, selection = found.archive, found.why, found.selection
    kept, n = len(np.unique(found.indices)), len(archive)
    counts = [(reason, why.count(reason)) for reason in REASONS]
    tree, told = selection.tree, dict(counts)
    levels = " in ".join(str(len(c)) for c in tree.centroids) if tree is not None else "none"
    o = found.options
    amount = f"--keep {o['keep']:g}" if o["keep"] is not None else f"--eps {o['eps']:g}"
    thumb = partial(_thumb, archive)
    return {
        "title": f"What was kept of {archive.name}",
        "sentence": f"{kept:,} of {n:,} samples are kept ({kept / n:.1%}); {told[REPEATED]:,} of those that "
        "are not repeat a kept one.",
        "note": selection.note,
        "generated": archive.generated,
        "facts": [
            ("Data", archive.describe()),
            ("Seen by", "pixels: alike means alike in every pixel" if o["encoder"] == "pixels" else o["encoder"]),
            ("Rule", f"{selection.mode}, {amount}, seed {o['seed']}"),
            ("Clusters", levels),
        ],
        "tiles": [
            ("kept", f"{kept:,}", f"of {n:,}"),
            ("near-duplicates dropped", f"{told[REPEATED]:,}", f"cosine above {ALIKE:g}"),
            ("dropped for another reason", f"{n - kept - told[REPEATED] - told[UNREAD]:,}", ""),
            ("kept as rare", f"{told[RARE]:,}", "their clusters stay whole"),
            ("time", f"{sum(found.seconds):.0f} s", f"{found.seconds[0]:.0f} s to embed"),
        ],
        "reasons": shares(counts),
        "duplicates": _duplicates(found, thumb),
        "crowded": _crowded(found, thumb),
        "rare": _rare(found, thumb),
        "command": f"selftaught train dino --data '{archive.name}?only={found.path / 'kept.txt'}'",
    }


def _duplicates(found: Curated, thumb: Any) -> list[DuplicateRow]:
    """Pairs from all over: the most alike of every kept sample, the most alike first."""
    why = found.why
    order = np.argsort(-np.nan_to_num(why.cosine, nan=-2.0), kind="stable")
    order = order[why.nearest[order] >= 0]
    first = np.sort(np.unique(why.nearest[order], return_index=True)[1])[:_PAIRS]
    repeated = [i for i in order[first].tolist() if why.reason[i] == REPEATED]
    return [{"dropped": thumb(i), "kept": thumb(int(why.nearest[i])), "cosine": float(why.cosine[i])} for i in repeated]


def _members(found: Curated) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kept and dropped samples of every cluster."""
    stays = np.zeros(len(found.archive), dtype=bool)
    stays[found.indices] = True
    leaf = found.why.leaf
    return [
        (np.flatnonzero((leaf == k) & stays), np.flatnonzero((leaf == k) & ~stays)) for k in np.unique(leaf[leaf >= 0])
    ]


def _crowded(found: Curated, thumb: Any) -> list[ClusterRow]:
    if found.selection.tree is None:
        return []
    rows = sorted(enumerate(_members(found)), key=lambda row: -len(row[1][1]))[:_ROWS]
    return [_row(number, kept, gone, thumb) for number, (kept, gone) in rows if len(gone)]


def _rare(found: Curated, thumb: Any) -> list[ClusterRow]:
    if found.selection.tree is None:
        return []
    clusters = enumerate(_members(found))
    whole = [(number, kept) for number, (kept, gone) in clusters if len(kept) and found.why.reason[kept[0]] == RARE]
    return [_row(number, kept, kept[:0], thumb) for number, kept in sorted(whole, key=lambda row: len(row[1]))[:_ROWS]]


def _row(number: int, kept: np.ndarray, gone: np.ndarray, thumb: Any) -> ClusterRow:
    def some(members: np.ndarray) -> list[Thumb]:
        at = np.unique(np.linspace(0, len(members) - 1, min(_EACH, len(members))).astype(int))
        return [thumb(int(i)) for i in members[at]]

    size = len(kept) + len(gone)
    return {
        "title": f"Cluster {number + 1}", "size": size, "count": len(kept), "kept": some(kept), "dropped": some(gone),
    }  # fmt: skip


def _thumb(archive: Source, i: int) -> Thumb:
    """A sample's picture, "" where it has none."""
    name = str(archive.names[i])
    if archive.modality != "image":
        return {"name": name, "picture": ""}
    try:
        image = as_uint8(archive.read(i, _SIDE), archive.value_range)
    except SampleError:
        return {"name": name, "picture": ""}
    return {"name": name, "picture": images.encode(image, size=_SIDE)}
