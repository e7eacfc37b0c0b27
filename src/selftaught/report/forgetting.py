"""What a page says first of a model that was made to forget: what it still knows of the samples, and of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selftaught.report.measured import Words, compared, numbers_of
from selftaught.report.text import number


def from_unlearning(run: Mapping[str, Any]) -> Words | None:
    """Sentence, judgement and tone from the protocol "unlearning"; None where there is none, or it has no accuracies.

    A class that is to be forgotten is forgotten where fewer of its samples are recognised than before. Samples of
    classes that stay are forgotten where they are recognised no better than samples that were never seen.
    """
    own, before, anew = (numbers_of(run, "unlearning", role) for role in ("this", "original", "retrained"))
    if not {"forget", "remain"} <= own.keys():
        return None
    told = [_told(own, before, anew, name) for name in ("forget", "remain")]
    sentence = f"Accuracy {told[0]} on the samples to forget, {told[1]} on those to keep."
    if not {"forget", "remain"} <= before.keys():
        return (
            sentence,
            "The original model was not measured beside it, so it is not known what was forgotten.",
            "unknown",
        )
    whole_class = "test_forget" in own
    if whole_class:
        gone = compared(own["forget"], before["forget"]) < 0
    else:
        gone = compared(own["forget"], own["test"]) <= 0
    kept = compared(own["remain"], before["remain"]) >= 0
    if not gone:
        known = "the class is recognised as before" if whole_class else "they are recognised better than unseen samples"
        return sentence, f"Not forgotten: {known}. Train longer, or with a larger learning rate.", "none"
    if not kept:
        return sentence, "Forgotten, but some of what was to stay is lost, too.", "mixed"
    return sentence, "Forgotten, and what was to stay is still known.", "gain"


def _told(own: Mapping[str, Any], before: Mapping[str, Any], anew: Mapping[str, Any], name: str) -> str:
    others = [
        f"{number(n[name]['mean'], 2)} {when}" for n, when in ((before, "before"), (anew, "retrained")) if name in n
    ]
    return number(own[name]["mean"], 2) + (f" ({', '.join(others)})" if others else "")
