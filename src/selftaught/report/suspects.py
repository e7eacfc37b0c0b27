"""What a page says first of a model that weighs labels: whether its weights find wrong ones, or how many to look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selftaught.report.measured import Words, compared, ends, numbers_of
from selftaught.report.text import interval, number


def has_suspects(run: Mapping[str, Any]) -> bool:
    """Whether a table of the page lists labels that a reader may correct."""
    return any(item.get("classes") and item.get("rows") for item in run.get("listings") or [])


def from_suspects(run: Mapping[str, Any]) -> Words | None:
    """Sentence, judgement and tone of a page with suspicious labels; None where it has none.

    Where it is known which labels are wrong, the area under the curve of finding them stands beside the yardstick's; it
    is a gain where it lies above chance and above every other by more than the intervals.
    """
    if not has_suspects(run):
        return None
    own, others = _aucs(run)
    if own is None:
        listed = sum(len(item["rows"]) for item in run["listings"] if item.get("classes"))
        sentence = f"{number(listed)} labels to look at, the least trusted first."
        return sentence, "Whether they are wrong isn't known here: read some of them before relying on it.", "unknown"
    against = " and ".join(f"{number(value['mean'], 2)} for {name}" for name, value in others.items())
    sentence = f"AUC of finding wrong labels {number(own['mean'], 2)} ({interval(*ends(own), 2)})"
    sentence += f", against {against} (chance 0.50)." if against else " (chance 0.50)."
    if ends(own)[0] <= 0.5:
        return sentence, "Not distinguishable from chance.", "none"
    beside = {name: compared(own, value) for name, value in others.items()}
    lost, level = ([name for name, side in beside.items() if side == which] for which in (-1, 0))
    told = [f"worse than {' and '.join(lost)}"] * bool(lost) + [f"no better than {' and '.join(level)}"] * bool(level)
    if told:
        return sentence, f"Better than chance, but {' and '.join(told)}.", "mixed"
    return sentence, "Better than chance, by more than the intervals.", "gain"


def _aucs(run: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, dict[str, Mapping[str, Any]]]:
    """The model's area under the curve, and those that stand beside it by what they are called."""
    contenders = {"this": "", "random": "untrained weights", "raw": "confident learning"}
    found = {called: numbers_of(run, "label-noise", role).get("auc") for role, called in contenders.items()}
    known = {called: value for called, value in found.items() if value}
    return known.pop("", None), known
