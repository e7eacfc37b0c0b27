"""Samples that a run watches and does not learn from (``--validation``), and which weights it ends with."""

from __future__ import annotations

import dataclasses
from typing import Any

from selftaught.data import Source, open_source
from selftaught.data.kinds import kind_of
from selftaught.engine.fit import watchable
from selftaught.engine.method import Method
from selftaught.engine.stages import Stage
from selftaught.errors import UserError
from selftaught.run_settings import Settings

__all__ = ["check", "open_watched", "plan_of", "share_of"]

_MOST = 0.9


def share_of(settings: Settings) -> float | None:
    """The share of the training samples that is held out; None where a source is named, 0 where nothing is watched.

    Raises:
        UserError: a number that is no share.
    """
    try:
        share = float(settings.validation or 0)
    except ValueError:
        return None
    if not 0 <= share <= _MOST:
        raise UserError(f"--validation {settings.validation}: a share of the training samples in [0, {_MOST}]")
    return share


def check(kind: type[Method], settings: Settings, roles: list[str]) -> None:
    """Refuse, before anything is made, what can't be watched or kept.

    Raises:
        UserError: it names the option.
    """
    chosen = settings.keep_weights
    if chosen == "best" and settings.ema:
        raise UserError("--keep-weights best: with --ema the run ends with the averaged weights; leave one of them out")
    if settings.patience and chosen == "last":
        raise UserError("--patience ends a run with its best weights; leave out --keep-weights last")
    if settings.patience and not settings.validation and chosen != "best":
        raise UserError("--patience watches a loss: give --validation 0.1, or --keep-weights best for that of training")
    if settings.patience and settings.ema:
        raise UserError("--patience ends a run with its best weights, --ema with averaged ones; leave one of them out")
    if chosen == "best" and kind.loss is Method.loss and kind.step is not Method.step and not settings.validation:
        raise UserError(f"--keep-weights best: {kind.slug} {watchable(kind, roles)}")
    if share_of(settings) == 0:
        return
    if problem := watchable(kind, roles):
        raise UserError(f"--validation: {kind.slug} {problem}; leave it out, and judge the run by evaluate")
    if settings.then or settings.class_tasks > 1:
        raise UserError("--validation watches one set; it doesn't go with a stream of tasks")


def plan_of(plan: Stage, settings: Settings) -> Stage:
    """A stage's plan with what was asked of the run: what is watched, kept, and when it ends early."""
    watched = share_of(settings) != 0
    if watched:
        plan = dataclasses.replace(plan, validation=share_of(settings) or 0.0, watch="")
    keep: Any = {"auto": "best" if watched and not settings.ema else plan.keep}.get(
        settings.keep_weights, settings.keep_weights
    )
    patience = settings.patience or (plan.patience if keep == "best" else 0)
    return dataclasses.replace(plan, keep=keep, patience=patience)


def open_watched(
    kind: type[Method], given: Any, config: Any, settings: Settings, facts: dict[str, Any]
) -> Source | None:
    """The source that ``--validation`` names, arranged as the training samples are; None where none is named.

    Args:
        kind: the method's class.
        given: what was named; None takes the name in ``settings``.
        config: the method's options.
        settings: of the run.
        facts: of the training samples.

    Raises:
        UserError: samples of other channels, or none.
    """
    if share_of(settings) is not None:
        return None
    modality = facts["modality"]
    source = open_source(settings.validation if given is None else given, modality=modality, split="all")
    source = kind.arranged({kind.roles[0]: kind.takes(source)}, config)[kind.roles[0]]
    source.check_read()
    have, wanted = source.channels, facts["channels"]
    if not len(source):
        raise UserError(f"--validation {source.name}: there is no sample in it")
    if have is not None and have != wanted:
        problem = kind_of(modality).misfit(have, wanted, bool(source.bands)) or f"has {have} channels, not {wanted}"
        raise UserError(f"--validation {source.name} {problem}")
    return source
