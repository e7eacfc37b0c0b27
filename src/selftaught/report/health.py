"""What can be said of embeddings without labels: whether they have collapsed, and how steady their neighbours are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from selftaught.report.text import number

#: Below this share of the embeddings' dimensions, or this ratio of the spread to that of the full sphere, or above this
#: share of constant features, there is a sign of collapse. Far from what a healthy run shows, so that few are accused.
_FEW_DIMENSIONS, _LITTLE_SPREAD, _MANY_DEAD = 2.0, 0.05, 0.5

Words = tuple[str, str, Literal["sound", "collapsed"]]


def from_diagnostics(run: Mapping[str, Any]) -> Words | None:
    """Sentence, judgement and tone from the collapse diagnostics; None where none was measured."""
    for protocol in run.get("protocols") or []:
        own = _means(protocol, "this")
        if protocol.get("name") == "diagnostics" and "effective_rank" in own:
            return _said(own, _means(protocol, "random"))
    return None


def signs(own: Mapping[str, float]) -> list[str]:
    """The signs of collapse in these numbers, each in words."""
    found = []
    if own.get("effective_rank", _FEW_DIMENSIONS) < _FEW_DIMENSIONS:
        found.append(
            f"the embeddings use hardly more than one direction (effective rank {number(own['effective_rank'], 1)})"
        )
    if own.get("std_ratio", 1.0) < _LITTLE_SPREAD:
        found.append(f"they lie close together ({_percent(own['std_ratio'])} of the spread over a full sphere)")
    if own.get("dead_features", 0.0) > _MANY_DEAD:
        found.append(f"{_percent(own['dead_features'])} of the features are constant")
    return found


def _said(own: Mapping[str, float], untrained: Mapping[str, float]) -> Words:
    measured = [f"Effective rank {number(own['effective_rank'], 1)}{_beside(untrained, 'effective_rank', 1)}"]
    if "std_ratio" in own:
        measured.append(f"spread {_percent(own['std_ratio'])} of a full sphere's")
    if "neighbour_stability" in own:
        beside = (
            f" (untrained {_percent(untrained['neighbour_stability'])})" if "neighbour_stability" in untrained else ""
        )
        measured.append(f"{_percent(own['neighbour_stability'])} of the neighbours stay in a second view{beside}")
    sentence = f"{', '.join(measured)}."
    found = signs(own)
    if found:
        return sentence, f"{found[0][0].upper()}{'; '.join(found)[1:]}.", "collapsed"
    look = "The data has no labels, so there is no score of what was learnt: look at the neighbours below."
    return sentence, look, "sound"


def _beside(untrained: Mapping[str, float], name: str, places: int) -> str:
    return f" (untrained {number(untrained[name], places)})" if name in untrained else ""


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _means(protocol: Mapping[str, Any], role: str) -> dict[str, float]:
    own = protocol.get(role) or (protocol if role == "this" else {})
    return {k: v["mean"] for k, v in (own.get("numbers") or {}).items() if v.get("mean") is not None}
