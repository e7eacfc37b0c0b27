"""A classifier on another set that has only some of its classes: logits restricted to the classes they share.

ImageNet-A (arXiv 1907.07174) and -R (arXiv 2006.16241) have 200 of ImageNet's classes, ObjectNet (Barbu et al., NeurIPS
2019) overlaps in 113; Sketch and V2 have all; ReaL (arXiv 2006.07159) gives every picture all labels that are right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from selftaught._words import plural
from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_features, join_notes
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.result import Number, Result

__all__ = ["restricted"]


@protocol("restricted", "a classifier on another set, among the classes they share", inputs="named-scores")
def restricted(
    scores: Array,
    classes: Sequence[str],
    truth: Sequence[str | Collection[str]],
    *,
    other_classes: Iterable[str] | None = None,
    mapping: Mapping[str, str | Collection[str]] | None = None,
) -> Result:
    """Accuracy among the classes that another set shares with the classifier.

    Args:
        scores: ``(n, k)`` logits for the pictures of the other set.
        classes: names of the classifier's k classes.
        truth: ``(n,)`` the class of each picture as the other set calls it; or a collection of classes that are all
            right (ReaL), any of which counts.
        other_classes: all classes of the other set; default those that occur in ``truth``.
        mapping: name in the other set -> name or names in the classifier, where they differ (ObjectNet); names that it
            does not hold are looked up as they are (see `matching`).

    Returns:
        ``Result`` "restricted": ``accuracy`` with the logits restricted to the shared classes, ``top5`` from 11 shared
        classes on, ``accuracy_all_classes`` without the restriction; intervals over pictures. Pictures without a shared
        class are left out, with a note. Figure ``shared``: names of the shared classes.

    Raises:
        UserError: lengths that do not match, NaN, no class in common.
    """
    logits = as_features(scores, "scores").cpu().numpy()
    if logits.shape[1] != len(classes) or len(truth) != len(logits):
        raise UserError(
            f"scores: shape {logits.shape} for {len(classes)} classes and {len(truth)} labels; pass one name per "
            "column and one label per row"
        )
    labels = [(label,) if isinstance(label, str) else tuple(label) for label in truth]
    names = set(other_classes if other_classes is not None else ()) | {name for label in labels for name in label}
    known = {name: matching(classes, _mapped(name, mapping or {})) for name in names}
    shared = np.unique(np.concatenate([np.empty(0, np.int64), *known.values()]))
    columns = [np.unique(np.concatenate([np.empty(0, np.int64), *(known[n] for n in label)])) for label in labels]
    kept = np.flatnonzero([len(c) for c in columns])
    if not len(kept):
        shown = ", ".join(sorted(names)[:3])
        raise UserError(f"classes: the classifier has none of {shown} ...; rename the folders or give a mapping")
    right = np.zeros((len(kept), len(classes)), dtype=bool)
    for row, i in enumerate(kept):
        right[row, columns[i]] = True
    within, answers = logits[kept][:, shared], right[:, shared]
    numbers = {"accuracy": Number.bootstrap(np.take_along_axis(answers, within.argmax(1)[:, None], 1)[:, 0])}
    if len(shared) > 10:
        first = np.argsort(-within, axis=1, kind="stable")[:, :5]
        among: np.ndarray = np.any(np.take_along_axis(answers, first, 1), axis=1)
        numbers["top5"] = Number.bootstrap(among)
    everywhere = np.take_along_axis(right, logits[kept].argmax(1)[:, None], 1)[:, 0]
    numbers["accuracy_all_classes"] = Number.bootstrap(everywhere)
    lost = len(logits) - len(kept)
    note = join_notes(
        f"{len(shared)} of {len(classes)} classes shared",
        f"{plural(lost, 'image')} without a shared class left out" if lost else "",
    )
    return Result("restricted", numbers, {"shared": [classes[c] for c in shared]}, note)


def matching(classes: Sequence[str], names: Collection[str]) -> np.ndarray:
    """Which classes go by one of some names.

    A class goes by its whole name and, where it holds several with commas between ("hog, pig"), by the first. Capital
    letters, underscores and hyphens make no difference, unless a name is spelt exactly as a class is.

    Args:
        classes: names of the classes.
        names: to look for.

    Returns:
        Sorted indices, int64.
    """
    exact = {name: k for k, name in enumerate(classes)}
    found = {exact[name] for name in names if name in exact}
    wanted = {_plain(name) for name in names if name not in exact}
    found |= {k for k, name in enumerate(classes) if wanted & {_plain(name), _plain(name.split(",")[0])}}
    return np.array(sorted(found), dtype=np.int64)


@lru_cache(maxsize=1 << 17)
def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def _mapped(name: str, mapping: Mapping[str, str | Collection[str]]) -> Collection[str]:
    found = mapping.get(name, name)
    return (found,) if isinstance(found, str) else found
