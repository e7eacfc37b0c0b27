"""The membership attack and the unlearning protocol on scores whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught.errors import UserError
from selftaught.evaluation.membership import Labelled, fit_attack, membership, sorted_softmax, unlearning


def scores(n: int, sure: float, seed: int, labels: np.ndarray | None = None, k: int = 4) -> np.ndarray:
    """Noisy logits that stand out by ``sure`` at the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n) if labels is None else labels
    return rng.normal(size=(n, k)) + sure * np.eye(k)[labels]


def test_sorted_softmax_is_ascending_sums_to_one_and_forgets_which_class() -> None:
    x = scores(50, 2.0, 0)
    p = sorted_softmax(x)
    assert (np.diff(p, axis=1) >= 0).all()
    assert p.sum(1) == pytest.approx(1)
    assert np.allclose(sorted_softmax(x[:, ::-1].copy()), p)


@pytest.mark.parametrize("attack", ["trees", "logistic"])
def test_finds_what_was_trained_on_and_nothing_where_there_is_nothing(attack: str) -> None:
    members, others = scores(400, 6.0, 1), scores(400, 1.0, 2)
    kept = membership(members, others, scores(150, 6.0, 3), scores(150, 1.0, 4), attack=attack)  # type: ignore[arg-type]
    gone = membership(members, others, scores(150, 1.0, 5), scores(150, 1.0, 4), attack=attack)  # type: ignore[arg-type]
    assert kept["success"].mean > 0.9
    assert kept["auc"].mean > 0.95
    assert gone["success"].mean < 0.65
    assert gone["found"].mean < 0.3
    assert kept["success"].low is not None
    assert kept["success"].low < kept["success"].mean < kept["success"].high  # type: ignore[operator]


def test_success_is_the_share_that_the_attack_puts_right() -> None:
    members, others, targets, unseen = (scores(60, s, i) for i, s in enumerate((5.0, 1.0, 3.0, 1.0)))
    fitted = fit_attack(members, others, attack="logistic")
    right = np.concatenate([fitted.probability(targets) > 0.5, fitted.probability(unseen) <= 0.5])
    assert membership(members, others, targets, unseen, attack="logistic")["success"].mean == pytest.approx(
        right.mean()
    )


def test_few_unseen_samples_weigh_as_much_as_the_targets_and_are_named() -> None:
    members, others, targets, unseen = (
        scores(n, s, i) for i, (n, s) in enumerate(((60, 5.0), (60, 1.0), (40, 5.0), (7, 1.0)))
    )
    found = membership(members, others, targets, unseen, attack="logistic")
    fitted = fit_attack(members, others, attack="logistic")
    wanted = ((fitted.probability(targets) > 0.5).mean() + (fitted.probability(unseen) <= 0.5).mean()) / 2
    assert found["success"].mean == pytest.approx(wanted)
    assert "7 unseen" in found.note


def test_a_minority_of_members_does_not_tip_the_attack() -> None:
    few = fit_attack(scores(20, 1.0, 0), scores(800, 1.0, 1), attack="logistic")
    assert 0.2 < (few.probability(scores(500, 1.0, 2)) > 0.5).mean() < 0.8


def sides(seed: int = 0, forgotten: bool = True) -> dict[str, Labelled]:
    rng = np.random.default_rng(seed)
    kept, gone, test = rng.integers(1, 4, 300), np.zeros(80, int), rng.integers(0, 4, 200)
    told = np.where(test == 0, 1, test) if forgotten else test
    return {
        "remain": Labelled(scores(300, 8.0, seed, kept), kept),
        "forget": Labelled(scores(80, 8.0, seed + 1, rng.integers(1, 4, 80) if forgotten else gone), gone),
        "test": Labelled(scores(200, 8.0, seed + 2, told), test),
    }


def test_numbers_of_a_class_that_is_gone() -> None:
    parts = sides()
    result = unlearning(**parts, attack="logistic")
    assert next(iter(result.numbers)) == "balance"
    assert result["forget"].mean < 0.05
    assert result["test_forget"].mean < 0.05
    assert result["remain"].mean > 0.95
    assert result["test_remain"].mean > 0.95
    kept, lost = result["test_remain"].mean, 1 - result["forget"].mean
    assert result["balance"].mean == pytest.approx(2 * kept * lost / (kept + lost))
    assert unlearning(**sides(forgotten=False), attack="logistic")["balance"].mean < 0.2


def test_tug_of_war_is_one_beside_itself_and_less_beside_another() -> None:
    ideal = unlearning(**sides(), attack=None)
    assert "attack" not in ideal.numbers
    again = unlearning(**sides(), reference=ideal, attack="logistic")
    other = unlearning(**sides(forgotten=False), reference=ideal, attack="logistic")
    assert again["tug_of_war"].mean == 1.0
    assert other["tug_of_war"].mean < 0.1


def test_samples_of_classes_that_stay_have_no_balance() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 300)
    x = scores(300, 5.0, 0, y)
    parts = [Labelled(x[i::3], y[i::3]) for i in range(3)]
    assert list(unlearning(*parts, attack="logistic").numbers) == ["remain", "forget", "test", "attack", "attack_auc"]


def test_without_labels_the_attack_is_what_is_left() -> None:
    parts = {name: Labelled(side.scores) for name, side in sides().items()}
    assert list(unlearning(**parts, attack="logistic").numbers) == ["attack", "attack_auc"]


def test_bad_input_is_refused() -> None:
    good = sides()
    wrong = Labelled(good["forget"].scores, np.full(80, 9))
    for call in (
        lambda: fit_attack(scores(9, 1, 0), scores(9, 1, 0, k=5)),
        lambda: fit_attack(scores(1, 1, 0), scores(9, 1, 0)),
        lambda: fit_attack(scores(9, 1, 0), scores(9, 1, 0), attack="magic"),  # type: ignore[arg-type]
        lambda: unlearning(good["remain"], wrong, good["test"]),
        lambda: unlearning(good["remain"], good["forget"], Labelled(np.zeros((3, 4)), np.zeros(3))),
    ):
        with pytest.raises(UserError):
            call()
