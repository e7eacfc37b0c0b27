"""Claims: fair pairs, honest verdicts, and a stored result for every method that is built."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from selftaught import catalog, methods
from selftaught.benchmark import claims, demo
from selftaught.claims import Arm, Claim, claim_of, claimed, fact_of
from selftaught.errors import UserError
from tests.conftest import TINY

STORED = Path(__file__).parents[2] / "benchmarks/claims"
ARMS = (Arm("dcl", "dcl"), Arm("infonce", "dcl", {"objective": "infonce"}))

NOT_TIMED_WHOLE = {"glare", "sit"}
"""Whose first measurement was of one seed: how long a plain call takes, of all the claim's seeds, isn't stored."""


def _timed(stored: dict[str, Any]) -> int:
    """How many seeds the stored ``seconds`` are of: those of the first measurement."""
    return stored["seeds"] - sum(part.get("seeds", 0) for part in stored.get("added", ()))


def test_every_built_method_has_a_claim_whose_arms_differ_only_in_what_it_is_about() -> None:
    arms = {arm.method for slug in claimed() for arm in claim_of(slug).arms}
    benchmarks = {c.slug for c in catalog.all_cards() if c.job == "benchmark"}
    assert (set(claimed()) | arms) - benchmarks == set(methods.built())  # a baseline may be judged as an arm alone
    assert {c.slug for c in catalog.all_cards() if c.built and not c.baseline} - {"medmnist-benchmark"} <= set(
        claimed()
    )
    for slug in claimed():
        claim = claim_of(slug)
        assert claim.method == slug
        assert len(claim.arms) >= 2
        assert claim.seeds >= 3
        shared = set(claim.common) - {"steps", "epochs"}
        for arm in claim.arms:
            own = set(arm.options)
            if arm.options.get("steps") == 1:  # one that is not trained, in none of its stages
                own = {name for name in own if name != "lr" and not name.endswith(("_steps", "_epochs"))}
            assert not shared & own, f"{claim.method}: {arm.name} overrides what is common"


@pytest.mark.parametrize("slug", sorted(path.stem for path in STORED.glob("*.json") if path.stem in claimed()))
def test_stored_results_are_whole_and_from_the_definition_of_today(slug: str) -> None:
    stored = json.loads((STORED / f"{slug}.json").read_text())
    claim = claim_of(slug)
    assert stored["claim"] == claim.says
    assert stored["arms"] == {arm.name: {"method": arm.method} | arm.options for arm in claim.arms}
    assert stored["data"] == claim.data
    assert stored["score"] == " ".join(claim.score)
    assert stored["conditions"] == claim.conditions
    assert stored["options"] == claim.common
    assert stored["environment"]["cores"] >= 1
    assert _timed(stored) >= claim.seeds or slug in NOT_TIMED_WHOLE
    assert stored["seconds"] < 15 * 60
    for arms in stored["values"][stored["score"]].values():
        assert {len(values) for values in arms.values()} == {stored["seeds"]}
    assert (STORED / f"{slug}.svg").stat().st_size > 1000
    assert ("fact" in stored) == (fact_of(slug) is not None)  # whether it says so still: test_facts
    if not any("better" in verdict for verdict in stored["verdict"].split(";")):
        assert stored["fact"]["holds"], "where the effect doesn't show, the fact that does hold must stand beside"


@pytest.mark.slow
def test_a_claim_is_measured_in_pairs_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = {k: v for k, v in TINY.items() if k not in ("quiet", "knn_every")} | {
        "augment": "grey",
        "loggers": ["none"],
    }
    claim = Claim("dcl", "A claim.", "digits", ARMS, common, ("knn", "accuracy"), {"a": {}, "b": {"temperature": 0.5}})
    monkeypatch.setattr(claims, "claim_of", lambda slug: claim)
    (result,) = claims.run("dcl", seeds=2, out=tmp_path, say=lambda line: None)
    values = result["values"]["knn accuracy"]
    assert set(values) == {"a", "b"}
    for condition, arms in values.items():
        pairs = zip(arms["dcl"], arms["infonce"], strict=True)
        mean = sum(a - b for a, b in pairs) / 2
        assert result["differences"][condition]["infonce"]["mean"] == pytest.approx(mean)
    assert json.loads((tmp_path / "dcl.json").read_text())["verdict"] == result["verdict"]
    assert "<svg" in (tmp_path / "dcl.svg").read_text()
    assert result["fact"]["holds"]
    assert result["fact"]["says"] in claims.as_text(result)
    (longer,) = claims.run("dcl", seeds=3, add=True, out=tmp_path, say=lambda line: None)
    assert longer["values"]["knn accuracy"]["b"]["dcl"][:2] == values["b"]["dcl"]
    assert {len(v) for arms in longer["values"]["knn accuracy"].values() for v in arms.values()} == {3}
    (brought,) = longer["added"]
    assert (longer["seconds"], brought["seeds"]) == (result["seconds"], 1)
    assert longer["seconds_in_all"] == pytest.approx(result["seconds"] + brought["seconds"])
    assert f"(3 seeds, {longer['seconds_in_all']:.0f} s)" in claims.as_text(longer)
    with pytest.raises(UserError, match="3 seeds already"):
        claims.run("dcl", seeds=3, add=True, out=tmp_path, say=lambda line: None)
    claim = dataclasses.replace(claim, common=common | {"steps": 3})
    with pytest.raises(UserError, match="measured with another options"):
        claims.run("dcl", seeds=4, add=True, out=tmp_path, say=lambda line: None)


def test_the_verdict_says_better_worse_or_nothing_shown() -> None:
    def verdict(low: float | None, high: float | None) -> str:
        return claims._verdict({"differences": {"": {"base": {"mean": 0.0, "low": low, "high": high}}}})

    assert verdict(0.1, 0.2) == "against base: better"
    assert verdict(-0.2, -0.1) == "against base: worse"
    assert "no difference" in verdict(-0.1, 0.1)
    assert "no difference" in verdict(None, None)
    with pytest.raises(UserError, match="there are claims for"):
        claims.run("bicubic")


@pytest.mark.slow
def test_demo_runs_the_whole_way_and_beats_an_untrained_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert demo.DEMO["data"] == "embedded:photos"
    monkeypatch.setitem(demo.DEMO, "data", "photos?train=40&test=20")  # less of the same
    run = demo.run(out=str(tmp_path / "demo"), steps=25, say=lambda line: None)
    stored = json.loads((run.path / "evaluation.json").read_text())["fewlabel"]
    at_ten = {kind: result["numbers"]["accuracy@10"]["mean"] for kind, result in stored.items()}
    assert at_ten["this"] > at_ten["random"] + 0.02
    assert at_ten["this"] > at_ten["raw"] + 0.1
    page = (run.path / "report.html").read_text()
    for words in ("Label efficiency", "Embedding map", "Nearest neighbours", "What the model saw"):
        assert words in page
