"""Labelled sources with some labels made wrong, the same ones every time."""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught._words import plural
from selftaught.data.fields import LABEL
from selftaught.data.source import Source, digest, require_labels
from selftaught.data.spec import near
from selftaught.errors import UserError

__all__ = ["Mislabelled", "Relabelled", "mislabelled"]

WRONG = "mislabelled"
"""Name of the values (n,) that are 1 where a label was made wrong, else 0."""


class Relabelled(Source):
    """Another source's samples with labels of their own.

    Args:
        parent: labelled source.
        labels: (n,) int64.
        tag: joins the line of `describe`.
    """

    def __init__(self, parent: Source, labels: np.ndarray, tag: str = "") -> None:
        self.__dict__.update({k: v for k, v in parent.__dict__.items() if k not in ("parent", "indices", "tag")})
        self.parent, self.tag, self.modality = parent, tag, parent.modality
        self.labels = labels

    @property
    def fields(self) -> dict[str, Any]:
        """The parent's: which labels are wrong may be known here, but is no field to learn from."""
        return self.parent.fields

    def read(self, i: int, min_side: int | None = None, **which: Any) -> np.ndarray:
        """One sample of the parent; see `Source.read`."""
        return self.parent.read(i, min_side, **which)

    def sample(self, i: int, want: Any = None, min_side: int | None = None, frames: Any = None) -> dict[str, Any]:
        """The fields of one sample of the parent, its label from here; see `Source.sample`."""
        found = self.parent.sample(i, want, min_side, frames)
        assert self.labels is not None
        return found | ({LABEL: int(self.labels[i])} if LABEL in found else {})

    def frames(self, i: int) -> int:
        """Of the parent's clip."""
        return self.parent.frames(i)

    def read_checked(self, i: int) -> np.ndarray:
        """One sample of the parent, as its file has it."""
        return self.parent.read_checked(i)

    @property
    def value_range(self) -> Any:
        """The parent's."""
        return self.parent.value_range

    def range_of(self, field: str) -> Any:
        """The parent's."""
        return self.parent.range_of(field)

    def origin(self) -> str:
        """The parent's, and how labels were changed."""
        return f"{self.parent.origin()} {self.tag}"

    def fingerprint(self) -> str:
        """The parent's, and these labels."""
        return digest(self.parent.fingerprint(), self.labels)

    def describe(self) -> str:
        """One line, the changed labels named at the end."""
        return f"{self.parent.describe()} ({self.tag})"


class Mislabelled(Relabelled):
    """Another source's samples, some labels made wrong.

    Attributes:
        values: ``mislabelled`` (n,) float32, 1 where the label is not the parent's.
    """

    def __init__(self, parent: Source, labels: np.ndarray, tag: str = "") -> None:
        super().__init__(parent, labels, tag)
        self.values = dict(parent.values) | {WRONG: (labels != parent.labels).astype(np.float32)}


def mislabelled(source: Source, wrong: str, seed: int = 0) -> Mislabelled:
    """A labelled source with a share of its labels made wrong, each evenly one of the other classes.

    Args:
        source: labelled, of two classes or more.
        wrong: the share in (0, 1), such as ``0.2``; ``0.6:0,1,2`` changes it in these classes only (names or indices).
        seed: of the draw. The labels that a smaller share changes are among those of a larger one.

    Raises:
        UserError: no labels, one class, a share or class that can't be.
    """
    labels = require_labels(source)
    classes = source.classes or [str(k) for k in range(int(labels.max(initial=0)) + 1)]
    if len(classes) < 2:
        raise UserError(f"{source.name} has one class only: wrong_labels={wrong} needs two or more")
    text, _, named = wrong.partition(":")
    share = _share(text, wrong)
    chosen = [_class(name.strip(), classes, wrong) for name in named.split(",")] if named else range(len(classes))
    rng = np.random.default_rng([seed, 4])
    order, step = rng.permutation(len(labels)), rng.integers(1, len(classes), len(labels))
    changed = labels.copy()
    for k in chosen:
        members = order[labels[order] == k]
        members = members[: round(share * len(members))]
        changed[members] = (labels[members] + step[members]) % len(classes)
    count = int((changed != labels).sum())
    return Mislabelled(source, changed, f"{plural(count, 'label')} wrong")


def _share(text: str, wrong: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise UserError(f"wrong_labels={wrong}: the share must lie between 0 and 1, such as 0.2 or 0.6:0,1,2")
    return share


def _class(name: str, classes: list[str], wrong: str) -> int:
    if name in classes:
        return classes.index(name)
    if name.isdigit() and int(name) < len(classes):
        return int(name)
    raise UserError(f"wrong_labels={wrong}: there is no class {name}{near(name, classes)}")
