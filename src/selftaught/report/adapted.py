"""What a page says first of a model that was made of another one: prompts for classes, an encoder that was refined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selftaught.report.measured import Words, compared, ends, numbers_of, place_of
from selftaught.report.text import interval, number


def from_prompts(run: Mapping[str, Any]) -> Words | None:
    """Sentence, judgement and tone from the protocol "base-to-new"; None where there is none.

    Prompts are better where the classes that they were learnt on are told apart better than by the original model, and
    those that they weren't learnt on are told apart no worse.
    """
    place = place_of(run, "base-to-new", rather="new")
    own, before = (numbers_of(run, place, role) for role in ("this", "original"))
    parts = {"base": "on the classes that it learnt", "new": "on new ones"} if "new" in own else {"accuracy": ""}
    if not parts.keys() <= own.keys():
        return None
    told = [
        " ".join([number(own[name]["mean"], 2), *([where] if where else [])])
        + (f" ({number(before[name]['mean'], 2)} by the original model)" if name in before else "")
        for name, where in parts.items()
    ]
    sentence = f"Accuracy{_where(place)} {', '.join(told)}."
    if not parts.keys() <= before.keys():
        return sentence, "The original model was not measured beside it.", "unknown"
    sides = {name: compared(own[name], before[name]) for name in parts}
    learnt, new = sides[next(iter(parts))], sides.get("new", 0)
    if learnt > 0 and new >= 0:
        kept = ", and no worse on classes that it did not learn" if "new" in parts else ""
        return sentence, f"Better than the original model{kept}, by more than the intervals.", "gain"
    if learnt > 0:
        return sentence, "Better on the classes that it learnt, but worse on new ones.", "mixed"
    if learnt < 0 or new < 0:
        return sentence, "Worse than the original model. Train with a smaller learning rate.", "none"
    return sentence, "No better than the original model (the intervals overlap).", "none"


def from_refinement(run: Mapping[str, Any]) -> Words | None:
    """Sentence, judgement and tone from the protocol "refinement"; None where there is none."""
    place = place_of(run, "refinement")
    own = numbers_of(run, place, "this")
    if not {"gain", "balanced_accuracy", "balanced_accuracy_start"} <= own.keys():
        return None
    after, before, gain = own["balanced_accuracy"], own["balanced_accuracy_start"], own["gain"]
    sentence = f"Balanced accuracy{_where(place)} {number(after['mean'], 3)} by a linear probe, against "
    sentence += f"{number(before['mean'], 3)} before"
    low, high = ends(gain)
    if low == high:
        return f"{sentence} it was refined.", "One seed tells no uncertainty: repeat with more.", "unknown"
    sentence = f"{sentence} it was refined (difference {number(gain['mean'], 3)}, {interval(low, high, 3)})."
    if low > 0:
        return sentence, "Better than the encoder that it began as, by more than the interval.", "gain"
    if high < 0:
        return sentence, "Worse than the encoder that it began as.", "none"
    return sentence, "No better than the encoder that it began as (the interval holds 0).", "none"


def _where(place: str) -> str:
    """ " on clinic/" of "refinement on clinic/"; nothing where it is the run's own data."""
    _, on, data = place.partition(" on ")
    return f" on {data}:" if on else ""
