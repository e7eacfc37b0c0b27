from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from selftaught import report
from selftaught.report.images import encode
from selftaught.report.verdict import Score, compare, judge, verdict_of_many
from tests.report import samples


def labels(
    this: float, random: float, raw: float, half: float | None = 0.02, x: list[float] | None = None, **more: Any
) -> dict[str, Any]:
    curves = []
    for name, mean in (("raw pixels", raw), ("untrained encoder", random), ("this encoder", this)):
        curve: dict[str, Any] = {"name": name, "mean": [mean]}
        if half is not None:
            curve |= {"low": [mean - half], "high": [mean + half]}
        curves.append(curve)
    return {"label_efficiency": {"x": x or [10], "curves": curves, "chance": 1 / 18} | more}


def verdict(run: dict[str, Any]) -> report.Verdict:
    return report.verdict(report.validate(run))


def test_a_gain_names_the_numbers() -> None:
    found = verdict(labels(0.81, 0.46, 0.39))
    against = "against 0.46 for an untrained encoder and 0.39 for raw pixels (chance 0.06)."
    assert found.sentence == f"At 10 labels per class: accuracy 0.81, {against}"
    assert found.judgement == "Better than an untrained encoder and raw pixels, by more than the intervals."
    assert found.tone == "gain"


def test_no_gain_is_said_as_such() -> None:
    found = verdict(labels(0.47, 0.46, 0.39))
    assert found.judgement == "Better than raw pixels, but no better than an untrained encoder (the intervals overlap)."
    assert found.tone == "mixed"
    found = verdict(labels(0.40, 0.41, 0.39))
    assert found.judgement == "No better than an untrained encoder and raw pixels (the intervals overlap)."
    assert found.tone == "none"


def test_a_loss_is_said_as_such() -> None:
    assert verdict(labels(0.30, 0.46, 0.39)).judgement == "Worse than an untrained encoder and raw pixels."
    assert verdict(labels(0.42, 0.50, 0.30)).judgement == "Better than raw pixels, but worse than an untrained encoder."
    assert (
        verdict(labels(0.42, 0.50, 0.41)).judgement
        == "No better than raw pixels (the intervals overlap) and worse than an untrained encoder."
    )
    assert verdict(labels(0.30, 0.46, 0.39)).tone == "none"


def test_chance_level_is_said_first() -> None:
    found = verdict(labels(0.07, 0.02, 0.02, 0.02))
    assert found.judgement == "Not distinguishable from chance."
    assert found.tone == "none"


def test_without_intervals_no_gain_is_certified() -> None:
    found = verdict(labels(0.81, 0.46, 0.39, None))
    assert found.tone == "unknown"
    assert found.judgement.startswith("Better than an untrained encoder and raw pixels. Not every value has an interv")


def test_baselines_are_called_what_the_run_calls_them() -> None:
    run = labels(0.69, 0.65, 0.91, 0.05)
    run["label_efficiency"]["curves"][1] |= {"name": "untrained encoder", "role": "random"}
    found = verdict(run)
    assert found.sentence.endswith("against 0.65 for an untrained encoder and 0.91 for raw pixels (chance 0.06).")
    assert found.judgement.startswith("No better than an untrained encoder (the intervals overlap) and worse than raw")


def test_without_baselines_nothing_is_claimed() -> None:
    section = {"x": [10], "curves": [{"name": "this encoder", "mean": [0.99], "low": [0.98], "high": [1.0]}]}
    found = verdict({"label_efficiency": section})
    assert found.sentence == "At 10 labels per class: accuracy 0.99."
    assert "Nothing to compare it with" in found.judgement
    assert found.tone == "unknown"


@pytest.mark.parametrize(("x", "at"), [([1, 5, 10, 50], 10), ([1, 4], 4), ([8, 12], 8), ([100], 100), ([1], 1)])
def test_the_count_nearest_to_ten_is_quoted(x: list[int], at: int) -> None:
    mean = [0.001 * v for v in x]
    found = verdict({"label_efficiency": {"x": x, "curves": [{"name": "mine", "mean": mean}]}})
    assert found.sentence.startswith(f"At {at} label{'' if at == 1 else 's'} per class: ")


def test_a_missing_value_at_ten_moves_on_to_the_next() -> None:
    curve = {"name": "this", "mean": [0.5, float("nan")]}
    assert verdict({"label_efficiency": {"x": [5, 10], "curves": [curve]}}).sentence.startswith("At 5 labels per class")


def test_lower_is_better_where_the_metric_says_so() -> None:
    assert compare(Score("a", 0.1, 0.09, 0.11), Score("b", 0.5, 0.4, 0.6), "low") == "above"
    assert compare(Score("a", 0.1, 0.09, 0.11), Score("b", 0.5, 0.4, 0.6), "high") == "below"
    assert compare(Score("a", 0.45, 0.38, 0.5), Score("b", 0.5, 0.4, 0.6), "high") == "level"
    assert verdict(labels(0.1, 0.5, 0.6, metric="error", chance=None)).tone == "gain"


def test_touching_intervals_are_level() -> None:
    assert compare(Score("a", 0.5, 0.4, 0.6), Score("b", 0.3, 0.2, 0.4)) == "level"
    assert compare(Score("a", 0.5, 0.4001, 0.6), Score("b", 0.3, 0.2, 0.4)) == "above"


def test_three_rivals_read_as_a_list() -> None:
    text, tone = judge(Score("this", 0.9, 0.89, 0.91), [Score(n, 0.1, 0.0, 0.2) for n in ("a", "b", "c")])
    assert text == "Better than a, b and c, by more than the intervals."
    assert tone == "gain"


def test_protocols_speak_where_there_is_no_label_efficiency() -> None:
    found = verdict({"protocols": samples.protocols()})
    assert (
        found.sentence
        == "k-NN: accuracy 0.794 (0.773–0.815), against 0.452 for an untrained encoder and 0.387 for raw input."
    )
    assert found.tone == "gain"
    diagnostics = [{"name": "Collapse", "numbers": {"effective rank": {"mean": 3.0}}}]
    assert verdict({"protocols": diagnostics}).sentence == "Nothing was measured in this run."


def picture(rng: np.random.Generator, noise: float) -> dict[str, Any]:
    clean = samples.photo("coffee")[:64, :64].astype(float)
    noisy = np.clip(clean + 20 * rng.normal(size=clean.shape), 0, 255)
    restored = np.clip(clean + noise * rng.normal(size=clean.shape), 0, 255)
    shown = {"clean": clean, "noisy": noisy, "restored": restored}
    return {k: report.images.encode(v.astype(np.uint8), format="png") for k, v in shown.items()}


def test_restoration_is_judged_against_its_input() -> None:
    rng = np.random.default_rng(0)
    assert "Clear gain" in report.render([{"restoration": [picture(rng, 5), picture(rng, 5)]}])
    worse = report.render([{"restoration": [picture(rng, 40)]}])
    assert "No gain" in worse
    assert "Closer to the clean picture on 0 of 1" in worse
    slight = verdict({"restoration": [picture(rng, 5) | {"psnr": 30.2, "psnr_noisy": 30.0}]})
    assert slight.sentence == "On one picture: 30.20 dB PSNR after restoration, against 30.00 dB before."
    assert slight.tone == "mixed"


def test_restoration_without_clean_pictures_claims_nothing() -> None:
    item = picture(np.random.default_rng(0), 5)
    del item["clean"]
    found = verdict({"restoration": [item]})
    assert found.sentence == "1 picture restored; there is no clean original to measure against."
    assert found.tone == "unknown"
    assert "gain is not" in verdict({"restoration": [item | {"psnr": 31.0}]}).judgement


def test_loss_alone_says_little() -> None:
    metrics = {"step": [1, 2, 3], "series": {"loss": [5.5, None, 3.25]}}
    found = verdict({"metrics": metrics})
    assert found.sentence == "The loss went from 5.500 to 3.250 in 3 steps."
    assert "nothing yet" in found.judgement
    assert verdict({}).sentence == "Nothing was measured in this run."
    assert verdict({"verdict": "Mine."}).sentence == "Mine."


def test_of_several_runs_the_leader_is_named_only_when_clear() -> None:
    runs = [labels(0.5, 0.2, 0.1), labels(0.8, 0.2, 0.1), labels(0.79, 0.2, 0.1)]
    found = verdict_of_many([report.validate(run) for run in runs], ["a", "b", "c"])
    assert found.sentence.startswith(
        "At 10 labels per class: b 0.80, c 0.79, a 0.50; beside the first, an untrained encoder 0.20"
    )
    assert found.judgement == "The two best overlap: no clear winner."
    found = verdict_of_many([report.validate(run) for run in runs[:2]], ["a", "b"])
    assert found.judgement == "b leads by more than the intervals."
    assert found.tone == "gain"
    found = verdict_of_many([report.validate(run) for run in (runs[0], {})], ["a", "b"])
    assert "no label-efficiency measurement" in found.sentence
    found = verdict_of_many([report.validate(labels(v, 0.1, 0.1, None)) for v in (0.3, 0.9)], ["a", "b"])
    assert found.judgement == "Without intervals this order may be chance."


def test_a_restoration_is_judged_by_all_pictures_not_by_those_shown() -> None:
    picture = encode(np.zeros((4, 4, 3), np.uint8))
    shown = {"name": "worst", "psnr": 20.0, "psnr_noisy": 21.0, "noisy": picture, "restored": picture}
    sides = {"this": [20.0, 30.0, 31.0], "raw": [21.0, 25.0, 25.0]}
    results = {
        kind: {"name": "restoration", "numbers": {"psnr": {"mean": 1.0}}, "figures": {"per_image": {"psnr": values}}}
        for kind, values in sides.items()
    }
    run = {"restoration": [shown], "protocols": [{"name": "restoration", **results}]}
    found = verdict(run)
    assert found.sentence == "On 3 pictures: 27.00 dB PSNR after restoration, against 23.67 dB before."
    assert found.tone == "mixed"
    assert "on 2 of 3; gain -1.00 to 6.00 dB" in found.judgement.replace("\u2212", "-").replace("−", "-")


def diagnostics(**numbers: float) -> dict[str, Any]:
    return {"numbers": {name: {"mean": value} for name, value in numbers.items()}}


def test_without_labels_collapse_is_told_and_nothing_else() -> None:
    this = diagnostics(effective_rank=83.24, std_ratio=0.91, dead_features=0.02, neighbour_stability=0.61)
    untrained = diagnostics(effective_rank=9.4, std_ratio=0.2, dead_features=0.0, neighbour_stability=0.8)
    raw = diagnostics(effective_rank=21.7, dead_features=0.0)
    run = {"protocols": [{"name": "diagnostics", "this": this, "random": untrained, "raw": raw}]}
    found = verdict(run)
    assert found.sentence == (
        "Effective rank 83.2 (untrained 9.4), spread 91 % of a full sphere's, "
        "61 % of the neighbours stay in a second view (untrained 80 %)."
    )
    assert found.tone == "sound"
    page = report.render([run])
    assert "No sign of collapse" in page
    assert "No gain" not in page
    assert 'class="verdict tone-none"' not in page


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"effective_rank": 1.2}, "The embeddings use hardly more than one direction (effective rank 1.2)."),
        ({"effective_rank": 9.0, "std_ratio": 0.01}, "They lie close together (1 % of the spread over a full sphere)."),
        ({"effective_rank": 9.0, "dead_features": 0.9}, "90 % of the features are constant."),
    ],
)
def test_signs_of_collapse_are_named(numbers: dict[str, float], said: str) -> None:
    found = verdict({"protocols": [{"name": "diagnostics", **diagnostics(**numbers)}]})
    assert (found.judgement, found.tone) == (said, "collapsed")


def test_the_strongest_baseline_of_the_page_counts() -> None:
    run = labels(0.81, 0.46, 0.39)
    assert verdict(run).tone == "gain"
    section = run["label_efficiency"]
    statistics = {"name": "channel means and deviations", "role": "other", "mean": [0.9], "low": [0.88], "high": [0.92]}
    found = verdict({"label_efficiency": {**section, "curves": [*section["curves"], statistics]}})
    assert found.tone == "mixed"
    assert "worse than channel means and deviations" in found.judgement
    assert "0.90 for channel means and deviations" in found.sentence
    beaten = {
        "name": "linear",
        "this": {"numbers": {"accuracy": samples.number(0.8, 0.01)}},
        "raw": {"numbers": {"accuracy": samples.number(0.9, 0.01)}},
    }
    found = verdict(run | {"protocols": [beaten]})
    assert found.tone == "mixed"
    assert found.judgement.endswith("it is beaten: linear, accuracy: raw input 0.900 against 0.800.")
    assert "Clear gain" not in report.render([run | {"protocols": [beaten]}])
    level = {**beaten, "raw": {"numbers": {"accuracy": samples.number(0.805, 0.01)}}}
    assert verdict(run | {"protocols": [level]}).tone == "gain"


def test_what_was_measured_on_training_data_is_no_clear_gain() -> None:
    found = {"name": "text-retrieval"} | {
        role: {"numbers": {"image_to_text_r1": samples.number(mean, 0.01)}}
        for role, mean in (("this", 0.98), ("random", 0.05))
    }
    assert verdict({"protocols": [found]}).tone == "gain"
    seen = verdict({"protocols": [found | {"seen": "the pairs that it learnt from"}]})
    assert seen.tone == "mixed"
    assert "on the pairs that it learnt from, against 0.050" in seen.sentence
    assert seen.judgement.endswith("evaluate it with --data.")


def test_raw_input_that_wins_by_being_untouched_takes_nothing_away() -> None:
    """An editor's input is kept best by who does nothing to it; an untrained editor that keeps more counts."""
    numbers = {"this": (0.7, 0.6), "random": (0.2, 0.1), "raw": (0.1, 1.0)}
    editing = {"name": "editing", "untouched": ["kept"]} | {
        role: {"numbers": {"overall": samples.number(a, 0.02), "kept": samples.number(b, 0.02)}}
        for role, (a, b) in numbers.items()
    }
    assert verdict({"protocols": [editing]}).tone == "gain"
    untrained = editing | {"random": editing["raw"]}
    assert verdict({"protocols": [untrained]}).judgement.endswith("kept: an untrained encoder 1.000 against 0.600.")
    assert verdict({"protocols": [{**editing, "untouched": []}]}).tone == "mixed"


def test_a_baseline_that_wins_with_more_labels_takes_the_clear_gain_away() -> None:
    run = labels(0.81, 0.46, 0.39, x=[10])
    section = run["label_efficiency"]
    section["x"] = [10, 100]
    for curve, last in zip(section["curves"], (0.95, 0.5, 0.9), strict=True):
        for key, half in (("mean", 0), ("low", -0.02), ("high", 0.02)):
            curve[key] = [*curve[key], last + half]
    found = verdict(run)
    assert found.tone == "mixed"
    assert found.judgement.endswith("raw pixels 0.95 against 0.90 at 100 labels per class.")


def test_equal_seeds_are_no_certainty() -> None:
    found = verdict(labels(0.81, 0.46, 0.39, half=0.0))
    assert found.tone == "unknown"
    assert "repeat with more seeds" in found.judgement
    assert "0.810–0.810" not in report.render([labels(0.81, 0.46, 0.39, half=0.0)])


def unlearnt(this: dict[str, float], before: dict[str, float] | None, **more: dict[str, float]) -> report.Verdict:
    """Of a run judged by "unlearning", every accuracy known to 0.03."""
    models = {"this": this, "original": before} | more
    numbers = {
        role: {"numbers": {name: {"mean": v, "low": v - 0.03, "high": v + 0.03} for name, v in found.items()}}
        for role, found in models.items()
        if found is not None
    }
    return verdict(labels(0.81, 0.46, 0.39) | {"protocols": [{"name": "unlearning"} | numbers]})


def test_a_model_that_was_to_forget_is_judged_by_what_it_forgot() -> None:
    before = {"remain": 0.92, "forget": 0.9, "test": 0.88, "test_forget": 0.87}
    found = unlearnt(before | {"remain": 0.91, "forget": 0.1}, before, retrained=before | {"forget": 0.0})
    told = "0.10 (0.90 before, 0.00 retrained) on the samples to forget, 0.91 (0.92 before, 0.92 retrained) on those"
    assert found.sentence == f"Accuracy {told} to keep."
    assert (found.judgement, found.tone) == ("Forgotten, and what was to stay is still known.", "gain")
    assert unlearnt(before | {"remain": 0.6, "forget": 0.1}, before).tone == "mixed"
    known = unlearnt(before | {"forget": 0.85}, before)
    assert known.judgement.startswith("Not forgotten: the class is recognised as before.")
    assert known.tone == "none"
    assert unlearnt(before, None).tone == "unknown"


def test_samples_of_a_class_that_stays_are_forgotten_where_they_are_like_unseen_ones() -> None:
    before = {"remain": 0.98, "forget": 0.98, "test": 0.88}
    assert unlearnt(before | {"forget": 0.9}, before).tone == "gain"
    assert unlearnt(before | {"forget": 0.95}, before).judgement.startswith(
        "Not forgotten: they are recognised better than unseen samples."
    )


def test_what_an_adapted_model_began_from_is_a_baseline_of_the_page() -> None:
    run = labels(0.81, 0.46, 0.39)
    curve = {"name": "original model", "role": "original", "mean": [0.8], "low": [0.79], "high": [0.83]}
    run["label_efficiency"]["curves"].insert(0, curve)
    found = verdict(run)
    assert found.sentence.startswith("At 10 labels per class: accuracy 0.81, against 0.80 for the original model, 0.46")
    assert found.judgement.endswith("no better than the original model (the intervals overlap).")
    numbers = {"accuracy": {"mean": 0.7, "low": 0.69, "high": 0.71}}
    better = {"accuracy": {"mean": 0.75, "low": 0.74, "high": 0.76}}
    rows = [{"name": "knn", "this": {"numbers": numbers}, "original": {"numbers": better}}]
    lost = verdict(labels(0.81, 0.46, 0.39) | {"protocols": rows})
    assert "beaten: knn, accuracy: the original model 0.750 against 0.700" in lost.judgement


def test_a_loss_that_was_noted_once_went_nowhere() -> None:
    said = verdict({"metrics": {"step": [6], "series": {"loss": [0.957]}}})
    assert "The loss was 0.957 in 6 steps." in said.sentence


def suspicious(this: tuple[float, float, float] | None, **others: tuple[float, float, float]) -> report.Verdict:
    """Of a run that lists suspicious labels; the areas under the curve as (mean, low, high)."""
    listing = {
        "title": "Labels to look at", "note": "", "columns": ["name", "label"], "rows": [["r1", "pos"], ["r2", "neg"]],
        "pictures": None, "classes": ["neg", "pos"],
    }  # fmt: skip
    models = ({"this": this} if this is not None else {}) | others
    found = {
        role: {"numbers": {"auc": dict(zip(("mean", "low", "high"), v, strict=True))}} for role, v in models.items()
    }
    more = {"protocols": [{"name": "label-noise"} | found]} if found else {}
    return verdict(labels(0.52, 0.52, 0.52) | {"listings": [listing]} | more)


def test_a_model_that_weighs_labels_is_judged_by_the_wrong_ones_that_it_finds() -> None:
    found = suspicious((0.74, 0.7, 0.78), random=(0.5, 0.45, 0.55), raw=(0.66, 0.62, 0.69))
    assert found.sentence == (
        "AUC of finding wrong labels 0.74 (0.70–0.78), against 0.50 for untrained weights and 0.66 for confident "
        "learning (chance 0.50)."
    )
    assert (found.judgement, found.tone) == ("Better than chance, by more than the intervals.", "gain")
    level = suspicious((0.64, 0.6, 0.68), raw=(0.66, 0.62, 0.7))
    assert (level.judgement, level.tone) == ("Better than chance, but no better than confident learning.", "mixed")
    assert suspicious((0.6, 0.56, 0.64), raw=(0.7, 0.66, 0.74)).judgement.endswith("worse than confident learning.")
    assert suspicious((0.52, 0.48, 0.56)).tone == "none"
    unknown = suspicious(None)
    assert unknown.sentence == "2 labels to look at, the least trusted first."
    assert unknown.tone == "unknown"


def adapted(protocol: str, this: dict[str, float], before: dict[str, float] | None = None) -> report.Verdict:
    """Of a run judged by a protocol beside its start, every number known to 0.03."""
    models = {"this": this} | ({"original": before} if before is not None else {})
    numbers = {
        role: {"numbers": {name: {"mean": v, "low": v - 0.03, "high": v + 0.03} for name, v in found.items()}}
        for role, found in models.items()
    }
    return verdict(labels(0.5, 0.5, 0.4) | {"protocols": [{"name": protocol} | numbers]})


def test_learnt_prompts_are_judged_on_classes_and_not_by_frozen_features() -> None:
    before = {"accuracy": 0.4, "base": 0.5, "new": 0.4, "harmonic": 0.44}
    found = adapted("base-to-new", before | {"base": 0.7, "new": 0.42}, before)
    told = (
        "0.70 on the classes that it learnt (0.50 by the original model), 0.42 on new ones (0.40 by the original model)"
    )
    assert found.sentence == f"Accuracy {told}."
    assert found.tone == "gain"
    assert adapted("base-to-new", before | {"base": 0.7, "new": 0.3}, before).tone == "mixed"
    assert adapted("base-to-new", before, before).tone == "none"
    assert adapted("base-to-new", before).tone == "unknown"
    whole = adapted("base-to-new", {"accuracy": 0.6}, {"accuracy": 0.4})
    assert whole.sentence == "Accuracy 0.60 (0.40 by the original model)."
    own, both = (
        {"name": name, "this": {"numbers": {k: samples.number(v, 0.02) for k, v in numbers.items()}}}
        for name, numbers in (("base-to-new", {"accuracy": 0.6}), ("base-to-new on pets/", {"base": 0.7, "new": 0.5}))
    )
    led = verdict({"protocols": [own, both]}).sentence
    assert led == "Accuracy on pets/: 0.70 on the classes that it learnt, 0.50 on new ones.", "what says more leads"
    elsewhere = adapted("base-to-new on pets/", {"accuracy": 0.6}, {"accuracy": 0.4})
    assert elsewhere.sentence == "Accuracy on pets/: 0.60 (0.40 by the original model)."
    assert whole.tone == "gain"


def test_a_refined_encoder_is_judged_beside_its_start() -> None:
    numbers = {"balanced_accuracy": 0.81, "balanced_accuracy_start": 0.75}
    found = adapted("refinement", numbers | {"gain": 0.06})
    assert found.sentence == (
        "Balanced accuracy 0.810 by a linear probe, against 0.750 before it was refined "
        "(difference 0.060, 0.030–0.090)."
    )
    assert found.tone == "gain"
    assert adapted("refinement", numbers | {"gain": 0.02}).tone == "none"
    elsewhere = adapted("refinement on clinic/", numbers | {"gain": 0.06})
    assert elsewhere.sentence.startswith("Balanced accuracy on clinic/: 0.810 by a linear probe, against 0.750 before")
    assert elsewhere.tone == "gain"
    assert adapted("refinement", numbers | {"gain": -0.06}).judgement.startswith("Worse than")
