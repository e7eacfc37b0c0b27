"""Samples of several pictures: are they those that a method knows as its pairs?"""

from __future__ import annotations

from typing import Any

from selftaught.data import Source
from selftaught.errors import UserError

__all__ = ["check_pairs"]


def check_pairs(method: Any, source: Source, *, first: bool = False) -> None:
    """Refuse samples of several pictures that a method of pairs doesn't know by their names.

    It would take the first for what it learns from, is judged on or restores, and leave the others alone.

    Args:
        method: of pairs by its ``pair_fields`` (input, target), or ``given_fields`` where its data have others; or its
            class. Any other passes.
        source: the samples.
        first: the input is all that is needed, as the first of them.

    Raises:
        UserError: the fields are called otherwise.
    """
    wanted = tuple(getattr(method, "given_fields", ()) or getattr(method, "pair_fields", ()))
    pictures = [name for name, field in source.fields.items() if field.kind in ("image", "clip")]
    if not wanted or len(pictures) < 2 or (not first and set(wanted) <= set(pictures)):
        return
    if first and source.main == wanted[0]:
        return
    spec = "&".join(f"{name}=FOLDER" for name in (wanted[:1] if first else wanted))
    told = "the one to restore is" if first else "its pairs are"
    raise UserError(
        f"{source.name} has the pictures {', '.join(pictures)}; {told} {' and '.join(wanted[:1] if first else wanted)}"
        f"{', named first' if first else ''} ('pairs:?{spec}')"
    )
