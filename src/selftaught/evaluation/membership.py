"""What a model gives away of its training samples, and what is left after it was made to forget some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_features, as_labels
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.result import Number, Result

__all__ = ["Attack", "Labelled", "fit_attack", "membership", "sorted_softmax", "unlearning"]

AttackKind = Literal["trees", "logistic"]
MOST = 5000
"""Members, and as many non-members, that an attack learns from at most."""


@dataclass(frozen=True)
class Labelled:
    """Class scores of some samples, and their labels where they are known.

    Attributes:
        scores: ``(n, k)`` logits.
        labels: ``(n,)`` int64, or None.
    """

    scores: Array
    labels: Array | None = None


@dataclass(frozen=True)
class Attack:
    """A fitted membership attack: a classifier of sorted softmax vectors, 1 for members of the training set."""

    model: Any

    def probability(self, scores: Array) -> np.ndarray:
        """How likely each sample was trained on, ``(n,)`` in [0, 1].

        Args:
            scores: ``(n, k)`` logits of as many classes as the attack was fitted with.
        """
        x = sorted_softmax(scores)
        if x.shape[1] != self.model.n_features_in_:
            raise UserError(f"scores of {x.shape[1]} classes, the attack was fitted on {self.model.n_features_in_}")
        return self.model.predict_proba(x)[:, 1]


def sorted_softmax(scores: Array) -> np.ndarray:
    """``(n, k)`` logits as probabilities in ascending order: how sure the model is, whatever of."""
    return np.sort(as_features(scores, "scores").double().softmax(1).cpu().numpy(), axis=1)


def fit_attack(members: Array, others: Array, *, attack: AttackKind = "trees", seed: int = 0) -> Attack:
    """Learn to tell training samples from others by the model's own scores.

    Args:
        members: ``(n, k)`` logits of samples that the model was trained on.
        others: ``(m, k)`` logits of samples that it never saw.
        attack: ``"trees"``: 100 gradient-boosted trees of depth 3; ``"logistic"``: logistic regression on standardised
            values. Members and non-members weigh the same whatever their number.
        seed: of the trees, and of the draw where there are more than 5,000 on a side.

    Raises:
        UserError: another attack, scores of different widths, fewer than two samples on a side.
    """
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if attack not in ("trees", "logistic"):
        raise UserError(f"attack must be trees or logistic; got {attack!r}")
    rng = np.random.default_rng(seed)
    sides = [_some(sorted_softmax(x), rng) for x in (members, others)]
    if sides[0].shape[1] != sides[1].shape[1]:
        raise UserError(f"members have {sides[0].shape[1]} classes, the others {sides[1].shape[1]}")
    if min(map(len, sides)) < 2:
        raise UserError("a membership attack needs at least two members and two others to learn from")
    truth = np.repeat([1, 0], [len(side) for side in sides])
    weight = np.repeat([len(truth) / (2 * len(side)) for side in sides], [len(side) for side in sides])
    x = np.concatenate(sides)
    if attack == "trees":
        model: Any = GradientBoostingClassifier(n_estimators=100, random_state=seed).fit(x, truth, sample_weight=weight)
    else:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(x, truth, logisticregression__sample_weight=weight)
    return Attack(model)


def membership(
    members: Array, others: Array, targets: Array, unseen: Array, *, attack: AttackKind = "trees", seed: int = 0
) -> Result:
    """A membership-inference attack on ``targets`` (arXiv 2404.00506, section on evaluation).

    Args:
        members: ``(n, k)`` logits of training samples that the attacker knows to be such.
        others: ``(m, k)`` logits of samples known not to be.
        targets: ``(t, k)`` logits of the samples in question, all counted as members.
        unseen: ``(u, k)`` logits of further samples that never were; as many as there are targets are drawn.
        attack: ``"trees"`` or ``"logistic"``, see :func:`fit_attack`.
        seed: of the attack and the draws.

    Returns:
        ``success``: share of targets and of as many unseen samples that the attack puts right (0.5: it knows nothing;
        below: targets look less like members than strangers do); ``found``: share of the targets called members;
        ``auc`` of the attack's probability. Intervals over the samples.

    Raises:
        UserError: what :func:`fit_attack` refuses; no target or no unseen sample.
    """
    from sklearn.metrics import roc_auc_score

    fitted = fit_attack(members, others, attack=attack, seed=seed)
    p, q = fitted.probability(targets), fitted.probability(unseen)
    rng = np.random.default_rng([seed, 1])
    q = q[np.sort(rng.permutation(len(q))[: len(p)])]
    items = np.concatenate([np.stack([p, np.ones(len(p))], 1), np.stack([q, np.zeros(len(q))], 1)])

    def auc(rows: np.ndarray) -> float:
        return float(roc_auc_score(rows[:, 1], rows[:, 0])) if 0 < rows[:, 1].mean() < 1 else float("nan")

    found = p > 0.5
    # Targets and strangers weigh the same where there are too few strangers.
    right = np.concatenate([found, q <= 0.5])
    success = Number.bootstrap(right) if len(p) == len(q) else Number(float((found.mean() + (q <= 0.5).mean()) / 2))
    numbers = {"success": success, "found": Number.bootstrap(found), "auc": Number.bootstrap(items, auc, resamples=200)}
    short = f"only {len(q)} unseen samples for {len(p)} targets" if len(q) < len(p) else ""
    return Result("membership", numbers, note=short)


@protocol("unlearning", "what a classifier still knows of forgotten samples", inputs="forgotten")
def unlearning(
    remain: Labelled,
    forget: Labelled,
    test: Labelled,
    *,
    reference: Result | None = None,
    attack: AttackKind | None = "trees",
    seed: int = 0,
) -> Result:
    """What a classifier still knows of the samples that it was to forget, and of the others (arXiv 2404.00506).

    Args:
        remain: training samples that it was to keep.
        forget: training samples that it was to forget.
        test: samples that it never saw; half of them, drawn at random, teach the membership attack, the others are
            what the samples to forget are told from.
        reference: this function's result for the model trained without the samples to forget, on the same samples.
        attack: ``"trees"`` or ``"logistic"``, see :func:`fit_attack`; None makes no attack.
        seed: of the attack and the draws.

    Returns:
        where there are labels, ``balance`` (below) first, then the accuracies ``remain`` and ``forget`` on training
        samples and ``test``; where a class occurs in ``forget`` and not in ``remain``, ``test_remain`` and
        ``test_forget``, over the other classes and over such ones, and ``balance``, the harmonic mean of
        ``test_remain`` and of ``1 - forget``. ``attack``, the success rate of :func:`membership`, and
        ``attack_auc``. With a reference ``tug_of_war``, the product of 1 - |difference to it| over ``remain``,
        ``forget`` and ``test_remain`` (else ``test``): 1 is the same as training anew (arXiv 2406.01257).

    Raises:
        UserError: fewer than four test samples; labels outside the classes; a reference without the same numbers.
    """
    numbers, note = _accuracies({"remain": remain, "forget": forget, "test": test}), ""
    if attack is not None:
        scores = as_features(test.scores, "test scores")
        if len(scores) < 4:
            raise UserError(f"the membership attack needs at least four test samples, got {len(scores)}")
        order = np.random.default_rng([seed, 2]).permutation(len(scores))
        taught, unseen = scores[np.sort(order[: len(order) // 2])], scores[np.sort(order[len(order) // 2 :])]
        members = as_features(remain.scores, "remain scores")
        found = membership(members, taught, forget.scores, unseen, attack=attack, seed=seed)
        numbers |= {"attack": found["success"], "attack_auc": found["auc"]}
        note = found.note
    if reference is not None and "forget" in numbers:
        numbers["tug_of_war"] = Number(_tug_of_war(numbers, reference.numbers))
    return Result("unlearning", numbers, note=note)


def _accuracies(sides: Mapping[str, Labelled]) -> dict[str, Number]:
    """Accuracies over the labelled sides, those of gone classes apart, and their balance first where it is known."""
    right, labels = {}, {}
    for name, side in sides.items():
        if side.labels is None:
            continue
        logits = as_features(side.scores, f"{name} scores").cpu().numpy()
        labels[name] = as_labels(side.labels, len(logits), f"{name} labels")
        if labels[name].min() < 0 or labels[name].max() >= logits.shape[1]:
            raise UserError(f"{name} labels: must lie in 0 .. {logits.shape[1] - 1}, the classes of the scores")
        right[name] = (logits.argmax(1) == labels[name]).astype(float)
    numbers = {name: Number.bootstrap(items) for name, items in right.items()}
    if len(right) < 3:
        return numbers
    gone = np.isin(labels["test"], np.setdiff1d(labels["forget"], labels["remain"]))
    if not gone.any() or gone.all():
        return numbers
    numbers["test_remain"], numbers["test_forget"] = (Number.bootstrap(right["test"][side]) for side in (~gone, gone))
    kept, lost = numbers["test_remain"].mean, 1 - numbers["forget"].mean
    return {"balance": Number(2 * kept * lost / (kept + lost) if kept + lost else 0.0)} | numbers


def _tug_of_war(numbers: Mapping[str, Number], reference: Mapping[str, Number]) -> float:
    names = ["remain", "forget", "test_remain" if "test_remain" in numbers else "test"]
    missing = [name for name in names if name not in numbers or name not in reference]
    if missing:
        raise UserError(f"reference: it lacks {', '.join(missing)}; judge both models on the same labelled samples")
    return float(np.prod([1 - abs(numbers[name].mean - reference[name].mean) for name in names]))


def _some(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return x if len(x) <= MOST else x[np.sort(rng.permutation(len(x))[:MOST])]
