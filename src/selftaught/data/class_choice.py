"""Some classes of a labelled source: the first or the second half of them, or those that are named."""

from __future__ import annotations

import numpy as np

from selftaught.data.source import Source
from selftaught.data.spec import near
from selftaught.errors import UserError

__all__ = ["of_classes"]


def of_classes(source: Source, which: str) -> Source:
    """The samples of some classes, numbered anew in the order of the source's list.

    Args:
        source: labelled, with named classes.
        which: "base", the first half of the list of classes (the larger one); "new", the other half; or names,
            separated by commas.

    Raises:
        UserError: no named classes, an unknown name, fewer than one class.
    """
    if source.labels is None or not source.classes:
        raise UserError(f"{source.name}: classes={which} needs named classes; it has none")
    names, half = list(source.classes), -(-len(source.classes) // 2)
    if which in ("base", "new"):
        kept = names[:half] if which == "base" else names[half:]
    else:
        kept = [name.strip() for name in which.split(",") if name.strip()]
    for name in kept:
        if name not in names:
            raise UserError(f"{source.name} has no class {name!r}{near(name, names)}; it has {', '.join(names[:8])}")
    numbers = np.full(len(names), -1, dtype=np.int64)
    for number, name in enumerate(n for n in names if n in kept):
        numbers[names.index(name)] = number
    labels = np.asarray(source.labels)
    rows = np.flatnonzero((labels >= 0) & (numbers[np.maximum(labels, 0)] >= 0))
    if not len(rows):
        raise UserError(f"{source.name}: no sample of the classes {which}")
    found = source.subset(rows, f"classes {which}")
    found.labels, found.classes = numbers[labels[rows]], [n for n in names if n in kept]
    return found
