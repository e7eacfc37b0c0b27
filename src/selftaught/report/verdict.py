"""One honest sentence from the numbers of a run, and one that says what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from selftaught._words import plural
from selftaught.report import health
from selftaught.report.adapted import from_prompts, from_refinement
from selftaught.report.curves import ROLE_NAMES, last_learning, role_of
from selftaught.report.forgetting import from_unlearning
from selftaught.report.suspects import from_suspects
from selftaught.report.tables import protocol_rows
from selftaught.report.text import direction, interval, known, number

Tone = Literal["gain", "mixed", "none", "unknown", "sound", "collapsed"]

_WANTED_LABELS = 10
#: Mean PSNR gain below which a difference is hardly seen: no clear gain, even when every picture is better.
_SEEN_DB = 0.5


@dataclass(frozen=True)
class Verdict:
    """What the page says first.

    Attributes:
        sentence: the numbers.
        judgement: what they mean; empty when the numbers say it themselves.
        tone: "gain" (clear of every baseline), "mixed", "none" (no better), "unknown" (nothing to compare); without
            labels "sound" (no sign of collapse) or "collapsed".
    """

    sentence: str
    judgement: str
    tone: Tone


@dataclass(frozen=True)
class Score:
    """One measured value of one contender."""

    name: str
    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def sure(self) -> bool:
        """Whether it has an interval; seeds that all gave the same value tell no uncertainty, so that is none."""
        return self.low is not None and self.high is not None and self.high > self.low


def verdict(run: Mapping[str, Any]) -> Verdict:
    """The verdict on a validated run: from what it forgot, suspicious labels, prompts, refinement, label efficiency,
    restoration, protocols, collapse or loss.

    It is never "gain" where any baseline of the page is better than the model at anything, but for forgetting, whose
    baselines are aims.
    """
    if run.get("verdict"):
        return Verdict(str(run["verdict"]), "", "unknown")
    for source in (
        from_unlearning,
        from_suspects,
        from_prompts,
        from_refinement,
        _from_labels,
        _from_restoration,
        _from_protocols,
        health.from_diagnostics,
        _from_loss,
    ):
        found = source(run)
        if isinstance(found, tuple):
            found = Verdict(*found)
            if source is from_unlearning:
                return found
        if found is not None:
            return _tempered(found, run) if found.tone == "gain" else found
    return Verdict("Nothing was measured in this run.", "", "unknown")


def compare(this: Score, other: Score, better: str = "high") -> Literal["above", "level", "below"]:
    """Whether ``this`` is better than, level with or worse than ``other``.

    Better or worse only when the two intervals do not touch; a value without an interval counts as a point.
    """
    sign = -1 if better == "low" else 1
    (a_low, a_high), (b_low, b_high) = (_ends(s) for s in (this, other))
    if sign > 0:
        return "above" if a_low > b_high else "below" if a_high < b_low else "level"
    return "above" if a_high < b_low else "below" if a_low > b_high else "level"


def _ends(score: Score) -> tuple[float, float]:
    low = score.mean if score.low is None else score.low
    return low, score.mean if score.high is None else score.high


def judge(this: Score, rivals: Sequence[Score], chance: float | None = None, better: str = "high") -> tuple[str, Tone]:
    """The sentence that says what a comparison with the baselines amounts to, and its tone."""
    if not rivals:
        return (
            "Nothing to compare it with: an untrained encoder and raw input were not measured, so it says little.",
            "unknown",
        )
    outcome = {rival.name: compare(this, rival, better) for rival in rivals}
    won = [name for name, result in outcome.items() if result == "above"]
    level = [name for name, result in outcome.items() if result == "level"]
    lost = [name for name, result in outcome.items() if result == "below"]
    unsure = not all(score.sure for score in (this, *rivals))
    caveat = " Not every value has an interval: repeat with more seeds before relying on it." if unsure else ""
    if chance is not None and better == "high" and _ends(this)[0] <= chance:
        return f"Not distinguishable from chance.{caveat}", "none"
    if len(won) == len(rivals):
        if unsure:
            return f"Better than {_and(won)}.{caveat}", "unknown"
        return f"Better than {_and(won)}, by more than the intervals.", "gain"
    parts = []
    if won:
        parts.append(f"better than {_and(won)}")
    if level:
        parts.append(f"no better than {_and(level)}{'' if unsure else ' (the intervals overlap)'}")
    if lost:
        parts.append(f"worse than {_and(lost)}")
    text = (
        ", but ".join([", and ".join(parts[:1]), " and ".join(parts[1:])])
        if won and len(parts) > 1
        else " and ".join(parts)
    )
    return f"{text[0].upper()}{text[1:]}.{caveat}", "mixed" if won else "none"


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def with_article(name: str, role: str) -> str:
    """``an untrained encoder``, ``raw pixels``, ``the supervised encoder``: how a contender is called in a sentence."""
    words = name[:1].lower() + name[1:] if name[1:2].islower() else name
    if role == "original" and not words.startswith("the "):
        return f"the {words}"
    if role != "random" or words.startswith(("a ", "an ", "the ")):
        return words
    return f"{'an' if words[:1].lower() in 'aeiou' else 'a'} {words}"


def label_scores(section: Mapping[str, Any]) -> tuple[float, Score | None, list[Score]] | None:
    """At 10 labels per class (else the nearest count measured): the count, this encoder, and the baselines."""
    x = section.get("x") or []
    curves = section.get("curves") or []
    own = [c for c in curves if role_of(c) == "this"]
    at = [i for i in range(len(x)) if x[i] is not None and any(c["mean"][i] is not None for c in own or curves)]
    if not at:
        return None
    i = min(at, key=lambda k: (abs(x[k] - _WANTED_LABELS), x[k]))
    this: Score | None = None
    rivals: dict[str, list[Score]] = {"original": [], "random": [], "raw": [], "other": []}
    for curve in curves:
        score, role = _score_at(curve, i), role_of(curve)
        if score is None:
            continue
        score = replace(score, name=with_article(score.name, role))
        if role == "this" and this is None:
            this = score
        elif role in rivals:
            rivals[role].append(score)
    return x[i], this, [score for scores in rivals.values() for score in scores]


def _from_labels(run: Mapping[str, Any]) -> Verdict | None:
    section = run.get("label_efficiency") or {}
    found = label_scores(section)
    if found is None:
        return None
    count, this, rivals = found
    if this is None:
        return None
    chance = section.get("chance")
    metric = section.get("metric") or "accuracy"
    noun = "label" if count == 1 else "labels"
    sentence = f"At {number(count)} {noun} per class: {metric} {number(this.mean, 2)}"
    return Verdict(_against(sentence, rivals, chance, 2), *judge(this, rivals, chance, direction(metric)))


def _against(sentence: str, rivals: Sequence[Score], chance: float | None, places: int) -> str:
    if rivals:
        sentence += ", against " + _and([f"{number(r.mean, places)} for {r.name}" for r in rivals])
    if chance is not None:
        sentence += f" (chance {number(chance, places)})"
    return f"{sentence}."


def _from_restoration(run: Mapping[str, Any]) -> Verdict | None:
    items = run.get("restoration") or []
    if not items:
        return None
    pairs = _judged_pairs(run) or [
        (i["psnr"], i["psnr_noisy"]) for i in items if i.get("psnr") is not None and i.get("psnr_noisy") is not None
    ]
    if not pairs:
        after = known([i.get("psnr") for i in items])
        if after:
            text = (
                f"{number(sum(after) / len(after), 2)} dB PSNR over {plural(len(after), 'picture')} after restoration."
            )
            return Verdict(text, "The PSNR of the input is not known, so the gain is not either.", "unknown")
        text = f"{plural(len(items), 'picture')} restored; there is no clean original to measure against."
        return Verdict(
            text,
            "Judge by eye: compare below, and look for blur and left-over noise in the enlarged parts.",
            "unknown",
        )
    after, before = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
    gains = [a - b for a, b in pairs]
    better = sum(gain > 0 for gain in gains)
    over = "On one picture" if len(pairs) == 1 else f"On {len(pairs)} pictures"
    sentence = f"{over}: {number(after, 2)} dB PSNR after restoration, against {number(before, 2)} dB before."
    lowest, highest = number(min(gains), 2), number(max(gains), 2)
    reach = f"{lowest} dB" if lowest == highest else f"{lowest} to {highest} dB"
    judgement = f"Closer to the clean picture on {better} of {len(pairs)}; gain {reach}."
    clear = better == len(pairs) and after - before >= _SEEN_DB
    return Verdict(sentence, judgement, "gain" if clear else "mixed" if better else "none")


def _judged_pairs(run: Mapping[str, Any]) -> list[tuple[float, float]]:
    """PSNR after and before of every picture that was judged, of which the page may show a few only."""
    for protocol in run.get("protocols") or []:
        if protocol.get("name") == "restoration":
            sides = [
                ((protocol.get(role) or {}).get("figures") or {}).get("per_image") or {} for role in ("this", "raw")
            ]
            after, before = (side.get("psnr") or [] for side in sides)
            return list(zip(after, before, strict=True)) if len(after) == len(before) else []
    return []


def _from_protocols(run: Mapping[str, Any]) -> Verdict | None:
    protocols = run.get("protocols") or []
    rows = [r for r in protocol_rows(protocols) if r.cells["this"] and r.better != "none"]
    if not rows:
        return None
    row = min(rows, key=lambda r: (not _familiar(r.protocol), "accuracy" not in r.metric.lower()))
    scores = {
        role: Score(with_article(ROLE_NAMES[role], role), cell["mean"], cell.get("low"), cell.get("high"))
        for role, cell in row.cells.items()
        if cell is not None
    }
    rivals = [scores[role] for role in ("original", "random", "raw") if role in scores]
    this = scores["this"]
    sentence = f"{row.protocol}: {row.label} {number(this.mean, row.places)}"
    if this.low is not None and this.high is not None:
        sentence += f" ({interval(this.low, this.high, row.places)})"
    seen = next((p["seen"] for p in protocols if p.get("name") == row.protocol and p.get("seen")), "")
    judgement, tone = judge(this, rivals, None, row.better)
    if seen:
        sentence += f" on {seen}"
        judgement += " How good it is on others, those will tell: evaluate it with --data."
        tone = "mixed" if tone == "gain" else tone
    return Verdict(_against(sentence, rivals, None, row.places), judgement, tone)


def _tempered(found: Verdict, run: Mapping[str, Any]) -> Verdict:
    """A gain is mixed once a baseline anywhere on the page is better than the model."""
    lost = _defeats(run)
    if not lost:
        return found
    more = f", and {len(lost) - 1} more" if len(lost) > 1 else ""
    return Verdict(
        found.sentence, f"{found.judgement} But elsewhere on this page it is beaten: {lost[0]}{more}.", "mixed"
    )


def _defeats(run: Mapping[str, Any]) -> list[str]:
    """Every measurement of the page in which a baseline is better than the model by more than the intervals."""
    lost = []
    section = run.get("label_efficiency") or {}
    better = direction(section.get("metric") or "accuracy")
    curves = section.get("curves") or []
    for i, x in enumerate(section.get("x") or []):
        scores = [(role_of(curve), _score_at(curve, i)) for curve in curves]
        this = next((score for role, score in scores if role == "this" and score), None)
        for role, other in scores:
            if this and other and role != "this" and compare(this, other, better) == "below":
                at = f"{plural(x, 'label')} per class" if x is not None else "label efficiency"
                lost.append(
                    f"{with_article(other.name, role)} {number(other.mean, 2)} against {number(this.mean, 2)} at {at}"
                )
    protocols = run.get("protocols") or []
    untouched = {(p.get("name"), metric) for p in protocols for metric in p.get("untouched") or ()}
    for row in protocol_rows(protocols):
        cells = {
            role: Score(ROLE_NAMES[role], c["mean"], c.get("low"), c.get("high"))
            for role, c in row.cells.items()
            if c and not (role == "raw" and (row.protocol, row.metric) in untouched)
        }
        for role in ("original", "random", "raw"):
            if row.better != "none" and {"this", role} <= cells.keys():
                this, other = cells["this"], cells[role]
                if compare(this, other, row.better) == "below":
                    numbers = f"{number(other.mean, row.places)} against {number(this.mean, row.places)}"
                    lost.append(f"{row.protocol}, {row.label}: {with_article(other.name, role)} {numbers}")
    return lost


def _score_at(curve: Mapping[str, Any], i: int) -> Score | None:
    """The i-th value of a label-efficiency curve."""
    if curve["mean"][i] is None:
        return None
    low, high = (curve[k][i] if curve.get(k) else None for k in ("low", "high"))
    return Score(curve.get("name") or ROLE_NAMES.get(role_of(curve), "another baseline"), curve["mean"][i], low, high)


def _familiar(protocol: str) -> bool:
    return any(word in protocol.lower() for word in ("k-nn", "knn", "linear", "nearest"))


def _from_loss(run: Mapping[str, Any]) -> Verdict | None:
    stage, metrics = last_learning(run.get("metrics") or {})
    loss = known((metrics.get("series") or {}).get("loss"))
    if not loss:
        return None
    steps = known(metrics.get("step"))
    taken = (
        f" in {plural(int(steps[-1]), 'step')}"
        if steps and not stage
        else f" in its last stage, {stage}"
        if stage
        else ""
    )
    went = f"went from {number(loss[0])} to {number(loss[-1])}" if len(loss) > 1 else f"was {number(loss[0])}"
    sentence = f"The loss {went}{taken}."
    return Verdict(sentence, "Nothing was evaluated, so this says nothing yet about what was learnt.", "unknown")


def verdict_of_many(runs: Sequence[Mapping[str, Any]], titles: Sequence[str]) -> Verdict:
    """The verdict on several runs: who leads at 10 labels per class and whether the lead is clear."""
    scores = []
    counts = set()
    beside: dict[str, str] = {}
    for run, title in zip(runs, titles, strict=True):
        found = label_scores(run.get("label_efficiency") or {})
        if found and found[1]:
            counts.add(found[0])
            scores.append(Score(title, found[1].mean, found[1].low, found[1].high))
            chance = (run.get("label_efficiency") or {}).get("chance")
            others = [f"{rival.name} {number(rival.mean, 2)}" for rival in found[2]]
            beside[title] = ", ".join([*others, *([f"chance {number(chance, 2)}"] if chance is not None else [])])
    if len(scores) < 2 or len(counts) != 1:
        text = f"{len(runs)} runs side by side; they share no label-efficiency measurement to rank them by."
        return Verdict(text, "", "unknown")
    ranked = sorted(scores, key=lambda s: -s.mean)
    first, second = ranked[0], ranked[1]
    (count,) = counts
    noun = "label" if count == 1 else "labels"
    told = ranked if len(ranked) <= 4 else ranked[:3]
    sentence = f"At {number(count)} {noun} per class: " + ", ".join(f"{s.name} {number(s.mean, 2)}" for s in told)
    if len(ranked) > len(told):
        sentence += f", {len(ranked) - len(told)} more down to {number(ranked[-1].mean, 2)}"
    sentence += f"; beside the first, {beside[first.name]}." if beside[first.name] else "."
    if not (first.sure and second.sure):
        return Verdict(sentence, "Without intervals this order may be chance.", "unknown")
    if compare(first, second) == "above":
        return Verdict(sentence, f"{first.name} leads by more than the intervals.", "gain")
    return Verdict(sentence, "The two best overlap: no clear winner.", "mixed")
