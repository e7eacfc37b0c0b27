"""What the folders that files lie in mean: classes, a given split, and what belongs to neither."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from selftaught._words import plural
from selftaught.data.labelling import class_values
from selftaught.data.source import LEFT_OUT, TEST, TRAIN, UNLABELLED, VAL, Source

_SET = r"(?:[_-]?(?:images?|imgs?|pics|photos|set|data|split|\d{2,4}))?"
_SPLITS = (
    (re.compile(rf"(?:images?_|imgs?_|seg_)?(?:train|training){_SET}"), TRAIN),
    (re.compile(rf"(?:images?_|imgs?_|seg_)?(?:val|valid|validation|dev){_SET}"), VAL),
    (re.compile(rf"(?:images?_|imgs?_|seg_)?(?:test|testing|pred|eval|evaluation|hold_?out){_SET}"), TEST),
    (re.compile(rf"(?:images?_)?(?:unlabell?ed|unsup|unsupervised|extra){_SET}"), UNLABELLED),
)
_PARTS_OF_A_SAMPLE = {
    "image", "images", "img", "imgs", "jpegimages", "mask", "masks", "label", "labels", "annotation", "annotations",
    "gt", "groundtruth", "ground_truth", "segmentation", "segmentations",
}  # fmt: skip
_STRAY = 0.25


class Layout(NamedTuple):
    """What a list of names means.

    Attributes:
        labels: int64 (n,), -1 where a name has no class; or None.
        classes: name of each label, sorted; or None.
        given: int8 (n,) of TRAIN, VAL, TEST, UNLABELLED, LEFT_OUT; or None.
        notes: what was understood otherwise than the folders may suggest, a line each.
    """

    labels: np.ndarray | None
    classes: list[str] | None
    given: np.ndarray | None
    notes: list[str]


def layout(names: Sequence[str], listed: Mapping[str, str] | None = None) -> Layout:
    """What the folders in these names mean.

    Folders that all names share, and one of a single name inside every class (``CLASS/images/``), mean nothing.
    ``train`` beside ``val``, ``test`` or ``unlabeled`` (any case, also ``train2017``, ``seg_train``) is a given split,
    at the top or inside every class; what lies beside them is in none of its parts. Sub-folders, at least two of them,
    are classes where all files lie directly in them; a few files beside them have no label. A test part without
    classes is in no part where the training part has some: it can't be tested on, and must not be trained on.

    Args:
        names: relative paths with "/" between folders.
        listed: classes that a file of annotations gives to names.
    """
    parts = unwrapped([name.split("/") for name in names])
    listed = listed or {}
    codes = _codes(parts)
    notes: list[str] = []
    outer = [""] * len(parts)
    if codes is None:
        codes, parts = _split_inside(parts)
    else:
        others = Counter(p[0] + "/" if len(p) > 1 else "" for p, c in zip(parts, codes, strict=True) if c < 0)
        notes += [
            f"left out: {_files(count)}{f' of {folder}' if folder else ''} beside the folders of the split"
            for folder, count in others.items()
        ]
        outer = [p[0] for p in parts]
        parts = [p[1:] if c >= 0 else p for p, c in zip(parts, codes, strict=True)]
    chosen = np.zeros(len(parts), dtype=np.int8) if codes is None else codes
    found, reasons = _classes_by_part(parts, chosen, outer, [listed.get(name) for name in names])
    return _finish(chosen, found, reasons, notes)


def understand(source: Source, names: list[str], listed: Mapping[str, str] | None = None) -> None:
    """Give a source of files its names, labels, classes, split, targets and notes, by what `layout` makes of its names.

    All names become samples; those that belong to no part of the split lie in none.

    Args:
        source: whose samples are the files.
        names: of all files, relative, with "/" between folders.
        listed: as `layout`.
    """
    meant = layout(names, listed)
    source.names, source.notes = names, meant.notes
    source.labels, source.classes, source.given = meant.labels, meant.classes, meant.given
    source.targets = class_values(meant.labels, meant.classes)


def unwrapped(parts: list[list[str]], known: set[str] | None = None) -> list[list[str]]:
    """Without the folders that all share, down to the first that is a known class."""
    while parts and parts[0][0] not in (known or ()) and all(len(p) > 1 and p[0] == parts[0][0] for p in parts):
        parts = [p[1:] for p in parts]
    return parts


def split_code(folder: str) -> int:
    """The part of a split that a folder or file is called after: TRAIN ("train2017"), VAL, TEST, UNLABELLED; or -1."""
    return next((code for pattern, code in _SPLITS if pattern.fullmatch(folder.lower())), -1)


def _codes(parts: list[list[str]]) -> np.ndarray | None:
    """The split of each name by its first folder, -1 where that is none; None where the folders are no split."""
    by_folder = {folder: split_code(folder) for folder in {p[0] for p in parts if len(p) > 1}}
    found = set(by_folder.values())
    if TRAIN not in found or len(found - {-1}) < 2:
        return None
    return np.array([by_folder[p[0]] if len(p) > 1 else -1 for p in parts], dtype=np.int8)


def _split_inside(parts: list[list[str]]) -> tuple[np.ndarray | None, list[list[str]]]:
    """``CLASS/train/x.png``: the split inside every class, and the names without it."""
    if not all(len(p) == 3 for p in parts) or not parts:
        return None, parts
    codes = [split_code(p[1]) for p in parts]
    if min(codes) < 0 or TRAIN not in codes or len(set(codes)) < 2:
        return None, parts
    return np.array(codes, dtype=np.int8), [[p[0], p[2]] for p in parts]


def _classes_by_part(
    parts: list[list[str]], codes: np.ndarray, outer: list[str], listed: list[str | None]
) -> tuple[list[str | None], dict[int, str]]:
    """The class of each name (None: it has none), and for each part of the split why it has no classes."""
    found: list[str | None] = [None] * len(parts)
    reasons: dict[int, str] = {}
    known: set[str] | None = None
    for code in (TRAIN, VAL, TEST, UNLABELLED):
        at = np.flatnonzero(codes == code).tolist()
        if not at or code == UNLABELLED:
            continue
        # folders of one part are read apart (seg_test/ has classes, seg_pred/ has none); those to train on are one
        for folder in {outer[i]: None for i in at} if code != TRAIN else ("",):
            here = [i for i in at if code == TRAIN or outer[i] == folder]
            classes, why = _classes([parts[i] for i in here], known)
            if why:
                reasons[code] = why
            for i, name in zip(here, classes, strict=True):
                found[i] = name if name is not None else listed[i]
        if code == TRAIN:
            known = {name for name in found if name is not None} or None
    return found, reasons


def _classes(parts: list[list[str]], known: set[str] | None) -> tuple[list[str | None], str]:
    """The class of each name of one part, and why there are none although folders are there."""
    none: list[str | None] = [None] * len(parts)
    parts = unwrapped(parts, known)
    deep = [p for p in parts if len(p) > 1]
    if not deep:
        return none, ""
    if all(len(p) == 3 for p in deep) and len({p[1] for p in deep}) == 1:  # CLASS/images/x.png
        parts = [[p[0], p[-1]] if len(p) == 3 else p for p in parts]
        deep = [p for p in parts if len(p) > 1]
    folders = {p[0] for p in deep}
    strays = len(parts) - len(deep)
    if len(folders) < 2 and not (known and folders <= known):
        return none, "" if not strays else f"{_files(strays)} beside its one sub-folder"
    if any(len(p) > 2 for p in deep):
        return none, "its sub-folders have sub-folders of several names"
    if {f.lower() for f in folders} <= _PARTS_OF_A_SAMPLE:
        return none, f"its sub-folders {', '.join(sorted(folders))} are parts of a sample, not classes"
    if strays > _STRAY * len(deep):
        return none, f"{strays:,} of {_files(len(parts))} lie beside its sub-folders"
    return [p[0] if len(p) > 1 else None for p in parts], ""


def _finish(codes: np.ndarray, found: list[str | None], reasons: dict[int, str], notes: list[str]) -> Layout:
    labelled = np.array([name is not None for name in found], dtype=bool)
    codes = np.where(codes < 0, LEFT_OUT, codes).astype(np.int8)
    if not (labelled & (codes == TRAIN)).any():
        why = next(iter(reasons.values()), "")
        if why:
            notes.append(f"no labels: {why}; put each class in one sub-folder of its own to have them")
        elif labelled.any():
            notes.append("labels dropped: the training part has none")
        codes[codes == UNLABELLED] = TRAIN  # all of it is unlabelled
        return Layout(None, None, _several(codes), notes)
    for code, called in ((TRAIN, "training"), (VAL, "validation"), (TEST, "test")):
        bare = (codes == code) & ~labelled
        if not bare.any():
            continue
        if not (labelled & (codes == code)).any():
            notes.append(f"left out: the {called} part, whose {_files(int(bare.sum()))} have no classes")
        elif code != TRAIN:
            notes.append(f"left out: {_files(int(bare.sum()))} beside the class folders of the {called} part")
        else:
            notes.append(f"{_files(int(bare.sum()))} beside the class folders, without label")
        codes[bare] = UNLABELLED if code == TRAIN else LEFT_OUT
    if (codes == UNLABELLED).any():
        count = _files(int((codes == UNLABELLED).sum()))
        notes.append(f"{count} without label: split=pretrain takes them too, split=train leaves them out")
    found = _as_in_training(codes, found, notes)
    classes = sorted({name for name in found if name is not None})
    code_of = {name: k for k, name in enumerate(classes)}
    labels = np.array([-1 if name is None else code_of[name] for name in found], dtype=np.int64)
    return Layout(labels, classes, _several(codes), notes)


def _as_in_training(codes: np.ndarray, found: list[str | None], notes: list[str]) -> list[str | None]:
    """The classes of each name, those of the other parts spelt as the training part spells them; and what differs."""
    trained = {name for name, code in zip(found, codes, strict=True) if code == TRAIN and name is not None}
    alike = Counter(name.casefold() for name in trained)
    spelt = {name.casefold(): name for name in trained if alike[name.casefold()] == 1}
    others = {name for name, code in zip(found, codes, strict=True) if name is not None and code in (VAL, TEST)}
    renamed = {name: spelt[name.casefold()] for name in others - trained if name.casefold() in spelt}
    if renamed:
        pairs = ", ".join(f"{name} as {renamed[name]}" for name in sorted(renamed)[:3])
        notes.append(f"{plural(len(renamed), 'class')} taken as spelt in the training part: {pairs}")
    unknown = sorted(others - trained - renamed.keys())
    if unknown:
        named = ", ".join(unknown[:3]) + (" ..." if len(unknown) > 3 else "")
        notes.append(f"{plural(len(unknown), 'class')} without a training sample: {named}")
    return [renamed.get(name, name) if name is not None else None for name in found]


def _several(codes: np.ndarray) -> np.ndarray | None:
    return codes if len(np.unique(codes)) > 1 else None


def _files(count: int) -> str:
    return plural(count, "file")
