"""Pictures with instructions of how to edit them, the captions before and after, and a judge's questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from selftaught._words import plural
from selftaught.data.combining.captioned import TEXT, captioned
from selftaught.data.fields import Field
from selftaught.data.formats.text import NAME_COLUMNS, TEXT_COLUMNS, read_rows
from selftaught.data.naming import finder
from selftaught.data.scaling import ValueRange
from selftaught.data.source import PER_SAMPLE, Source, digest
from selftaught.errors import SampleError, UserError

__all__ = ["EDITED", "EDIT_KINDS", "INSTRUCTION", "TARGET", "Edit", "Edits", "edits", "questions"]

INSTRUCTION, TARGET, EDITED = "instruction", "target", "edited"
"""Fields of an edit: what is to be done, the caption of the imagined result, the result where one exists."""

EDIT_KINDS = {
    "add": "Does image 2 show {target}, with what was asked for added?",
    "remove": "Does image 2 show {target}, with what was to go taken away?",
    "replace": "Does image 2 show {target} in place of what was replaced?",
    "attribute": "Does image 2 show {target}?",
    "action": "Does image 2 show {target}, in the action or pose that was asked for?",
    "background": "Does image 2 show {target}, before the background that was asked for?",
    "text": "Does image 2 show {target}, with the writing that was asked for?",
    "style": "Does image 2 show {target}, in the style that was asked for?",
    "subject": "Does image 2 show the subject of image 1 as {target}?",
    "other": "Does image 2 show {target}, as the instruction asks?",
}
"""Kind of edit -> the question whether it has been carried out; yes is the wanted answer."""

_IDENTITY = "Apart from what was asked for, is image 2 the same as image 1?"
_IDENTITY_OF = {"subject": "Is the subject in image 2 the same as the one in image 1?"}
_TABLES = tuple(f"edits{suffix}" for suffix in (".csv", ".tsv", ".jsonl"))


@dataclass(frozen=True)
class Edit:
    """One edit of one picture.

    Attributes:
        instruction: "make it blue".
        caption: of the picture as it is.
        target: caption of the imagined result.
        kind: one of `EDIT_KINDS`; decides the questions.
    """

    instruction: str
    caption: str
    target: str
    kind: str = "other"

    def __post_init__(self) -> None:
        if self.kind not in EDIT_KINDS:
            raise UserError(f"an edit of the kind {self.kind!r}; it may be {', '.join(EDIT_KINDS)}")
        if not (self.instruction.strip() and self.target.strip()):
            raise UserError(f"an edit needs an instruction and a caption of its result, got {self}")


def questions(target: str, kind: str = "other") -> tuple[str, str]:
    """What a judge is asked of a picture and its edit, yes being wanted: was it carried out, and did the rest stay?

    Raises:
        UserError: an unknown kind of edit.
    """
    if kind not in EDIT_KINDS:
        raise UserError(f"an edit of the kind {kind!r}; it may be {', '.join(EDIT_KINDS)}")
    return EDIT_KINDS[kind].replace("{target}", target), _IDENTITY_OF.get(kind, _IDENTITY)


class Edits(Source):
    """A sample for every edit: the picture (its main field), ``text``, ``instruction``, ``target``, ``kind``; where
    results exist, ``edited``.

    ``values["picture"]`` is the number of the picture among those of the source; all edits of one share a group.
    """

    def __init__(
        self,
        source: Source,
        which: Sequence[int],
        wanted: Sequence[Edit],
        *,
        after: Source | None = None,
        after_at: Sequence[int] | None = None,
    ) -> None:
        """Set edits beside pictures.

        Args:
            source: the pictures; further fields of them are left out.
            which: the picture of each edit.
            wanted: the edits.
            after: results, for supervised training and exact tests only; None: there are none.
            after_at: the place of each edit's result in ``after``; None: the edit's own number.

        Raises:
            UserError: lengths that differ, no edit at all.
        """
        if not len(which) or len(which) != len(wanted):
            raise UserError(f"{source.name}: {len(wanted)} edits of {len(which)} pictures; give one or more, as many")
        self.source, self.wanted = source, list(wanted)
        self.which = np.asarray(which, dtype=np.int64)
        self.after = after
        self.after_at = np.arange(len(which)) if after_at is None else np.asarray(after_at, dtype=np.int64)
        self.name, self.modality, self.names = source.name, source.modality, _names(source.names, self.which)
        self.channels, self.depth, self.generated = source.channels, source.depth, source.generated
        self.bands = source.bands
        self.classes, self.notes, self.left_out = source.classes, source.notes, source.left_out
        for attribute in PER_SAMPLE:
            rows = getattr(source, attribute)
            setattr(self, attribute, None if rows is None else rows[self.which])
        if self.groups is None:
            self.groups = self.which
        self.values = {"picture": self.which.astype(np.float32)}

    @property
    def fields(self) -> dict[str, Field]:
        """The picture, its caption, instruction, the result's caption, the kind of edit; the result where it exists."""
        main = next(iter(self.source.fields.values()))
        found = {self.source.main: main} | {name: Field("text") for name in (TEXT, INSTRUCTION, TARGET, "kind")}
        found |= {EDITED: main} if self.after is not None else {}
        return found | self._known_fields()

    def read(self, i: int, min_side: int | None = None, **which: Any) -> Any:
        """The picture as it is; see `Source.read`."""
        return self.source.read(int(self.which[i]), min_side, **which)

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        edit = self.wanted[i]
        texts = {TEXT: edit.caption, INSTRUCTION: edit.instruction, TARGET: edit.target, "kind": edit.kind}
        if name in texts:
            if not texts[name]:
                raise SampleError(self.names[i], f"no {name}")
            return texts[name]
        if name == EDITED and self.after is not None:
            return self.after.read(int(self.after_at[i]), min_side)
        return super()._field(name, i, min_side, frames)

    def any_depth(self) -> None:
        """Of the pictures."""
        super().any_depth()
        self.source.any_depth()

    @property
    def value_range(self) -> ValueRange | None:
        """The pictures'."""
        return self.source.value_range

    def range_of(self, field: str) -> ValueRange | None:
        """The pictures', of the results too."""
        return self.value_range if field in (self.main, EDITED) else None

    def origin(self) -> str:
        """The pictures'."""
        return self.source.origin()

    def fingerprint(self) -> str:
        """Of the pictures and of the edits."""
        said = [f"{e.instruction}\0{e.caption}\0{e.target}\0{e.kind}" for e in self.wanted]
        return digest("edits", self.source.fingerprint(), self.which, said, self.after_at)

    def _counted(self) -> str:
        return f"{plural(len(self), 'edit')} of {plural(len(np.unique(self.which)), 'image')}"


def _names(names: Sequence[str], which: np.ndarray) -> list[str]:
    """The pictures' names; of one with several edits with a number before the suffix."""
    count, seen = np.bincount(which, minlength=len(names)), np.zeros(len(names), dtype=np.int64)
    found = []
    for i in which.tolist():
        seen[i] += 1
        path = PurePosixPath(names[i])
        found.append(names[i] if count[i] == 1 else str(path.with_name(f"{path.stem}-edit{seen[i]}{path.suffix}")))
    return found


# ---- where edits come from -------------------------------------------------------------------------------------------
def edits(source: Source, each: int = 4) -> Source:
    """A source with edits: as it is if it has some; by a table ``edits.csv`` in or beside its folder; else of captions.

    The table (.csv, .tsv, .jsonl) has the columns name, instruction and target; text (the caption), kind and edited
    (the name of the result, a picture of the folder) may be there. Without a table every picture is to become what
    another picture's caption says: "turn it into ...", where class names may stand for captions.

    Args:
        source: pictures.
        each: edits of each picture that are made of captions.

    Raises:
        UserError: no captions, no classes and no table; a single caption for all pictures; a table that doesn't fit.
    """
    if INSTRUCTION in source.fields and TARGET in source.fields:
        return source
    found = _table(source)
    if found is not None:
        return _of_table(source, *found)
    return _of_captions(captioned(source), each)


def _table(source: Source) -> tuple[Path, Sequence[str]] | None:
    """``edits.csv`` and the like in the folder that the pictures lie in, or right beside it; the names of all pictures
    of that folder.
    """
    inner: Any = source
    while getattr(inner, "root", None) is None:
        inner = getattr(inner, "parent", None) or getattr(inner, "source", None)
        if inner is None:
            return None
    root = Path(inner.root)
    places = (root, root.resolve().parent)
    found = next((place / name for place in places for name in _TABLES if (place / name).is_file()), None)
    return None if found is None else (found, inner.names)


def _of_table(source: Source, table: Path, everything: Sequence[str]) -> Source:
    rows = [{str(column).strip().lower(): cell for column, cell in row.items()} for row in read_rows(table)]
    has = rows[0] if rows else {}
    key = next((name for name in NAME_COLUMNS if name in has), None)
    if key is None or INSTRUCTION not in has or TARGET not in has:
        raise UserError(f"{table}: needs the columns name, instruction and target; it has {', '.join(has) or 'none'}")
    called = finder(everything, table)
    place = {name: i for i, name in enumerate(source.names)}
    which, wanted, after = [], [], []
    strange: list[str] = []
    for number, row in enumerate(rows, start=1):
        name = called(row[key])
        strange += [str(row[key])] if name is None else []
        if name not in place:  # of no picture, or of one of another part
            continue
        at = place[name]
        caption = next((str(row[column]) for column in TEXT_COLUMNS if row.get(column)), "") or _caption(source, at)
        try:
            said = (str(row[INSTRUCTION] or ""), caption, str(row[TARGET] or ""))
            wanted.append(Edit(*said, str(row.get("kind") or "other").strip().lower()))
        except UserError as error:
            raise UserError(f"{table}: row {number}, of {row[key]}: {error}") from None
        which.append(at)
        result = called(row[EDITED]) if row.get(EDITED) else ""
        if result is None:
            raise UserError(
                f"{table}: row {number}, of {row[key]}: its result {row[EDITED]} is no picture of the folder"
            )
        after.append(place.get(result, -1))
    if not which:
        raise UserError(f"{table}: names none of the {len(source):,} pictures of {source.name}; call them as the files")
    whole = all(at >= 0 for at in after)
    found = Edits(source, which, wanted, after=source, after_at=after) if whole else Edits(source, which, wanted)
    found.notes = [*found.notes, *_said(table, strange, sum(at >= 0 for at in after), len(after))]
    return found


def _said(table: Path, strange: list[str], results: int, edits_in_all: int) -> list[str]:
    """What of a table is not made use of."""
    notes = []
    if strange:
        few = ", ".join(list(dict.fromkeys(strange))[:3])
        notes.append(f"{table.name}: {plural(len(strange), 'edit')} of no picture here left out ({few})")
    if 0 < results < edits_in_all:
        notes.append(
            f"{table.name}: {results:,} of {edits_in_all:,} edits have a result; it takes all to make use of them"
        )
    return notes


def _caption(source: Source, at: int) -> str:
    """A picture's first caption, or its class; "" without either."""
    if TEXT in source.fields:
        try:
            found = source.sample(at, [TEXT])[TEXT]
        except SampleError:
            return ""
        return found if isinstance(found, str) else str(found[0])
    labelled = source.labels is not None and source.classes and source.labels[at] >= 0
    return source.classes[int(source.labels[at])].replace("_", " ") if labelled else ""  # type: ignore[index]


def _of_captions(source: Source, each: int) -> Source:
    said = [_caption(source, i) for i in range(len(source))]
    others = sorted({caption for caption in said if caption})
    if len(others) < 2:
        raise UserError(
            f"{source.name}: all pictures have one caption ({others[0] if others else 'none'}), so there is nothing to "
            "edit them into; put edits.csv (name, instruction, target) beside them"
        )
    which, wanted = [], []
    for i, caption in enumerate(said):
        if not caption:
            continue
        choices = [other for other in others if other != caption]
        drawn = np.random.default_rng([i, len(others)]).permutation(len(choices))[:each]
        for k in drawn.tolist():
            which.append(i)
            wanted.append(Edit(f"turn it into {choices[k]}", caption, choices[k], "replace"))
    return Edits(source, which, wanted)
