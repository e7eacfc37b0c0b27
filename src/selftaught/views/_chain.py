"""From a pipeline to the functions that carry it out: which operation of which kind is done by what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selftaught.errors import UserError
from selftaught.views.operation import FRAMED, Executor, Op, find_executor
from selftaught.views.pipeline import Pipeline

Step = tuple[Executor, Op, int, int]
"""The function, its operation, and the start and stop of the operation's columns in the parameters."""

Wrappers = Mapping[str, Any]
"""How an executor reaches other kinds through its functions for images: "frames", "rows" and "plane" -> wrapper."""


def chain(pipeline: Pipeline, kind: str, device: bool, wrappers: Wrappers) -> tuple[Step, ...]:
    """The steps of a pipeline on one kind, found once and kept with the pipeline.

    Raises:
        UserError: an operation that can't be done to this kind.
    """
    kept = pipeline._chains  # type: ignore[attr-defined]
    if (kind, device) not in kept:
        rows = pipeline.per_frame and kind in FRAMED
        steps = [(_function(op, kind, device, rows, wrappers), op, start, stop) for op, start, stop in pipeline.spans]
        kept[kind, device] = tuple(step for step in steps if step[0] is not None)
    return kept[kind, device]


def _function(op: Op, kind: str, device: bool, rows: bool, wrappers: Wrappers) -> Executor | None:
    """What carries out one operation; None where it leaves the kind as it is."""
    name, own, images = type(op), find_executor(type(op), kind, device), find_executor(type(op), "image", device)
    if rows:
        if images is None:
            raise UserError(f"{name.__name__}: acts on a whole {kind}; take it out of the view that draws per frame")
        return wrappers["rows"](images)
    if own is not None:
        return own
    if kind in op.skips:
        return None
    if images is not None and kind in FRAMED:
        return wrappers["frames"](images)
    if images is not None and kind in ("mask", "depth") and op.any_dtype:
        return wrappers["plane"](images)
    raise UserError(f"{name.__name__}: can't be done to a field of kind {kind!r}; leave it out of that field's view")


def add_facts(facts: dict[str, Any] | None, told: Mapping[str, Any], op: Op) -> None:
    """Take in what an operation reports, refusing what it had not announced."""
    if unknown := set(told) - set(op.facts):
        raise TypeError(f"{type(op).__name__} reported {min(unknown)!r}, which its `facts` do not name")
    if facts is not None:
        facts.update(told)
