"""``selftaught benchmark claims``: a method and its baselines side by side, and the paired difference."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selftaught.claims import Arm, Claim, claim_of, claimed, fact_of, fact_text
from selftaught.errors import UserError
from selftaught.evaluation import Number, paired_difference
from selftaught.evaluation.result import extent
from selftaught.run import train
from selftaught.run.layout import environment, read_json, write_json
from selftaught.run.tasks import numbers as forgetting

SECONDS = ("run", "seconds")


def run(
    method: str | None = None,
    *,
    full: bool = False,
    seeds: int | None = None,
    add: bool = False,
    out: str | Path | None = None,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Measure the claims of one method or of all, store each as JSON with its figure.

    Args:
        method: slug; None for every method that has a claim.
        full: the longer form.
        seeds: repetitions; None takes the claim's own.
        add: keep the repetitions that are stored in ``out``, and measure those that are missing.
        out: folder for METHOD.json and METHOD.svg; default benchmarks/claims in a checkout, else claims.
        say: called with a line for each part.

    Returns:
        one dict per claim, as stored. ``seconds`` are its first measurement's, ``added`` what each later one with
        ``add`` brought, with its own seconds, and ``seconds_in_all`` their sum.

    Raises:
        UserError: a method without a claim; with ``add`` nothing stored, or what is stored is of another definition.
    """
    if method is not None:
        claim_of(method)
    checkout = Path("benchmarks/claims")
    folder = Path(out) if out is not None else checkout if checkout.is_dir() else Path("claims")
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for slug in [method] if method else claimed():
        claim = claim_of(slug)
        name = f"{slug}-full" if full else slug
        known = _stored(folder / f"{name}.json", claim, full) if add else None
        count = seeds or (claim.full_seeds if full else claim.seeds)
        result = measure(claim, full=full, seeds=count, known=known, say=say)
        write_json(folder / f"{name}.json", result)
        _figure(result, folder / f"{name}.svg")
        say(as_text(result))
        found.append(result)
    return found


def _defined(claim: Claim, full: bool) -> dict[str, Any]:
    """What a claim measures, as stored: seeds of two measurements belong together where all of it is equal."""
    options = claim.common | (claim.full if full else {})
    data = str(options.pop("data", claim.data))
    return {
        "method": claim.method,
        "claim": claim.says,
        "data": data,
        "judged_on": claim.judged_on or data,
        "options": options,
        "arms": {arm.name: {"method": arm.method} | arm.options for arm in claim.arms},
        "conditions": claim.conditions,
        "start": vars(claim.start) if claim.start else None,
        "reference": claim.reference,
        "score": _label(claim.score),
    }


def _stored(path: Path, claim: Claim, full: bool) -> dict[str, Any]:
    """What was measured before, of the same definition."""
    if not path.exists():
        raise UserError(f"--add: {path} is not there; measure the claim without --add first")
    found = read_json(path, "measure the claim without --add")
    wanted = json.loads(json.dumps(_defined(claim, full)))
    changed = [name for name, value in wanted.items() if found.get(name) != value and (value or found.get(name))]
    labels = [_label(pair) for pair in (claim.score, *claim.also)]
    changed += [label for label in labels if label not in found.get("values", {})]
    if changed:
        raise UserError(f"--add: {path} was measured with another {changed[0]}; measure all of it again, without --add")
    return found


def measure(
    claim: Claim, *, full: bool, seeds: int, say: Callable[[str], None], known: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Train and score every arm under every condition and seed; seeds that are ``known`` are not measured again.

    Raises:
        UserError: as many seeds are known already.
    """
    began = time.monotonic()
    defined = _defined(claim, full)
    options, data = defined["options"], defined["data"]
    values: dict[str, dict[str, dict[str, list[float]]]] = copy.deepcopy(known["values"]) if known else {}
    first = known["seeds"] if known else 0
    if first >= seeds:
        raise UserError(f"--add: {claim.method} has {first} seeds already; ask for more with --seeds")
    with tempfile.TemporaryDirectory(prefix="claim-starts-") as starts:
        for condition, change in claim.conditions.items():
            for seed in range(first, seeds):
                begin = _begin(claim, Path(starts), seed, say)
                reference = Path(starts) / f"reference-{seed}-{condition}" if claim.reference else None
                for arm in sorted(claim.arms, key=lambda arm: arm.name != claim.reference):
                    own = options | change | begin
                    scores = _cell(claim, arm, own.pop("data", data), own, seed, reference)
                    for name, value in scores.items():
                        values.setdefault(name, {}).setdefault(condition, {}).setdefault(arm.name, []).append(value)
                    main = scores[_label(claim.score)]
                    say(f"{claim.method}: {condition or data} seed {seed}: {arm.name} {_label(claim.score)} {main:.4f}")
    spent: dict[str, Any] = {"seconds": round(time.monotonic() - began, 1), "environment": environment()}
    if known:
        before = known.get("added", [])
        spent = {k: known[k] for k in spent} | {"added": [*before, {"seeds": seeds - first} | spent]}
    spent["seconds_in_all"] = round(spent["seconds"] + sum(part["seconds"] for part in spent.get("added", ())), 1)
    result = defined | {
        "seeds": seeds,
        "full": full,
        "values": values,
        "differences": _differences(values[_label(claim.score)], claim),
        **spent,
    }
    fact = fact_of(claim.method)
    beside = {"fact": fact().to_dict()} if fact is not None else {}
    return result | {"verdict": _verdict(result)} | beside


def _label(score: tuple[str, str]) -> str:
    return " ".join(score)


def _begin(claim: Claim, folder: Path, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The option by which arms begin with the claim's start, trained at its first use with a seed; none without one."""
    first = claim.start
    if first is None:
        return {}
    run = folder / str(seed)
    if not run.exists():
        say(f"{claim.method}: seed {seed}: pre-training with {first.method} on {first.data}")
        train(first.method, first.data, out=str(run), seed=seed, quiet=True, knn_every=0, **first.options)
    return {"init": str(run)}


def _cell(
    claim: Claim, arm: Arm, data: str, options: dict[str, Any], seed: int, reference: Path | None = None
) -> dict[str, float]:
    """One run and its scores; the run's folder is kept where it is the reference of the others."""
    folder = Path(tempfile.mkdtemp(prefix="claim-"))
    merged = options | arm.options
    if "steps" in arm.options:
        merged.pop("epochs", None)
    out = reference if reference is not None and arm.name == claim.reference else folder / "run"
    try:
        done = train(arm.method, data, out=str(out), seed=seed, quiet=True, knn_every=0, **merged)
        wanted = (claim.score, *claim.also)
        names = list(dict.fromkeys(protocol for protocol, _ in wanted if protocol not in ("run", "tasks")))
        beside: dict[str, Any] = {"reference": str(reference)} if reference is not None else {}
        found: Any = {}
        if names:
            given: dict[str, Any] = {"protocols": names, "baselines": arm.kind != "this"} | claim.judging | beside
            found = done.evaluate(claim.judged_on, **given)
        kept = forgetting(done.layout) if any(protocol == "tasks" for protocol, _ in wanted) else {}
        learnt = sum(stage["seconds"] for stage in done.layout.read_state()["stages"].values())
        return {
            _label(pair): learnt
            if pair == SECONDS
            else kept[pair[1]]
            if pair[0] == "tasks"
            else found[pair[0]][arm.kind].numbers[pair[1]].mean
            for pair in wanted
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _differences(values: dict[str, dict[str, list[float]]], claim: Claim) -> dict[str, dict[str, Any]]:
    """Proposed minus each baseline, paired by seed, per condition."""
    proposed = claim.arms[0].name
    return {
        condition: {arm.name: paired_difference(arms[proposed], arms[arm.name]).to_dict() for arm in claim.arms[1:]}
        for condition, arms in values.items()
    }


def _verdict(result: dict[str, Any]) -> str:
    """One honest sentence per comparison: shown, reversed, or no difference at this size."""
    rows = []
    for condition, arms in result["differences"].items():
        for name, difference in arms.items():
            low, high = difference.get("low"), difference.get("high")
            if low is None or high is None or low <= 0 <= high:
                said = "no difference that this size could show"
            else:
                said = "better" if low > 0 else "worse"
            rows.append(f"against {name}{', ' + condition if condition else ''}: {said}")
    return "; ".join(rows)


def as_text(result: dict[str, Any]) -> str:
    """The result as a few lines for a terminal."""
    lines = [f"\n{result['method']}: {result['claim']}"]
    within = extent(result["score"].partition(" ")[2])
    for condition, arms in result["values"][result["score"]].items():
        for name, values in arms.items():
            lines.append(f"  {condition:12s} {name:22s} {result['score']} {Number.of(values, within=within)}")
        for name, difference in result["differences"][condition].items():
            low, high = difference.get("low"), difference.get("high")
            interval = f" [{low:+.4f}, {high:+.4f}]" if low is not None else ""
            lines.append(f"  {condition:12s} minus {name:16s} {difference['mean']:+.4f}{interval}")
    lines.append(f"  {result['verdict']} ({result['seeds']} seeds, {result['seconds_in_all']:.0f} s)")
    if "fact" in result:
        fact = result["fact"]
        lines.append(f"  {'holds' if fact['holds'] else 'does NOT hold'} at any size: {fact_text(fact)}")
    return "\n".join(lines)


def _figure(result: dict[str, Any], path: Path) -> None:
    from selftaught.report.figures import claims_figure

    proposed = next(iter(result["arms"]))
    rows = [
        {
            "setting": f"{condition + ': ' if condition else ''}against {baseline}",
            "method": {"name": proposed, "values": result["values"][result["score"]][condition][proposed]},
            "baseline": {"name": baseline, "values": result["values"][result["score"]][condition][baseline]},
            "difference": difference,
        }
        for condition, arms in result["differences"].items()
        for baseline, difference in arms.items()
    ]
    note = f"95 % interval of the paired difference, {result['seeds']} seeds"
    metric = result["score"].replace("_", " ")
    claims_figure({"title": result["claim"], "metric": metric, "note": note, "rows": rows}, path)  # type: ignore[typeddict-item]
