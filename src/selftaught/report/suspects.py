"""What a page says first of a model that weighs labels: whether its weights find wrong ones, or how many to look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from selftaught.report.text import interval, number

Words = tuple[str, str, Literal["gain", "mixed", "none", "unknown"]]


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
    sentence = f"AUC of finding wrong labels {number(own['mean'], 2)} ({interval(*_ends(own), 2)})"
    sentence += f", against {against} (chance 0.50)." if against else " (chance 0.50)."
    if _ends(own)[0] <= 0.5:
        return sentence, "Not distinguishable from chance.", "none"
    level = [name for name, value in others.items() if _ends(own)[0] <= _ends(value)[1]]
    lost = [name for name in level if _ends(own)[1] < _ends(others[name])[0]]
    level = [name for name in level if name not in lost]
    told = [f"worse than {' and '.join(lost)}"] * bool(lost) + [f"no better than {' and '.join(level)}"] * bool(level)
    if told:
        return sentence, f"Better than chance, but {' and '.join(told)}.", "mixed"
    return sentence, "Better than chance, by more than the intervals.", "gain"


def _aucs(run: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, dict[str, Mapping[str, Any]]]:
    """The model's area under the curve, and those that stand beside it by what they are called."""
    protocol: Mapping[str, Any] = next((p for p in run.get("protocols") or [] if p.get("name") == "label-noise"), {})
    found = {
        called: (protocol.get(role) or {}).get("numbers", {}).get("auc")
        for role, called in (("this", ""), ("random", "untrained weights"), ("raw", "confident learning"))
    }
    known = {called: value for called, value in found.items() if value and value.get("mean") is not None}
    return known.pop("", None), known


def _ends(value: Mapping[str, Any]) -> tuple[float, float]:
    mean = float(value["mean"])
    low, high = (mean if value.get(end) is None else float(value[end]) for end in ("low", "high"))
    return low, high
