"""Friedman and Nemenyi against Demsar's (2006) own example and tables, and scipy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from selftaught.benchmark import figures, ranking
from selftaught.errors import UserError

AUC = np.array(
    [
        [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.975, 0.973], [0.957, 0.978, 0.946, 0.970],
    ]
)  # fmt: skip
"""AUC of four variants of C4.5 on 14 data sets that give the mean ranks of Demsar 2006, table 6."""
NAMES = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
CRITICAL = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}
"""q at 0.05 for k classifiers: Demsar 2006, table 5a."""


def test_the_example_of_the_paper() -> None:
    found = ranking.compare(NAMES, AUC)
    ranks = dict(zip(found.names, found.ranks, strict=True))
    assert ranks == pytest.approx({"C4.5": 3.143, "C4.5+m": 2.000, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}, abs=5e-4)
    assert found.names == ("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5")
    assert found.blocks == 14
    assert found.difference == pytest.approx(1.25, abs=5e-3)
    assert ranking.critical_difference(4, 14, alpha=0.1) == pytest.approx(1.12, abs=5e-3)
    plain = 12 * 14 / 20 * (sum(r * r for r in found.ranks) - 4 * 25 / 4)
    assert plain == pytest.approx(9.28, abs=5e-3)  # without the correction for ties
    assert found.statistic == pytest.approx(stats.friedmanchisquare(*AUC.T).statistic)
    assert found.p == pytest.approx(stats.friedmanchisquare(*AUC.T).pvalue)
    assert found.groups() == [(0, 3)]  # 3.143 - 1.964 = 1.18 < 1.25: Nemenyi finds no pair at 0.05
    pairs = ranking.compare(NAMES, AUC, alpha=0.1).groups()
    assert pairs == [(0, 2), (1, 3)] or pairs[0][1] == 2  # at 0.1 the first and the last differ


@pytest.mark.parametrize("k", sorted(CRITICAL))
def test_critical_values_of_the_paper(k: int) -> None:
    assert ranking.critical_difference(k, 1) / math.sqrt(k * (k + 1) / 6) == pytest.approx(CRITICAL[k], abs=1.5e-3)


def test_without_ties_and_with_two_methods() -> None:
    scores = np.random.default_rng(3).normal(size=(9, 5))
    found = ranking.compare("abcde", scores, better="low")
    expected = stats.friedmanchisquare(*scores.T)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)
    order = np.argsort(stats.rankdata(scores, axis=1).mean(0), kind="stable")
    assert found.names == tuple("abcde"[i] for i in order)
    two = ranking.compare("ab", [[1.0, 0.0]] * 6)
    assert two.ranks == (1.0, 2.0)
    assert two.statistic == pytest.approx(6.0)  # N (R_1 - R_2)^2
    assert "differ" in two.sentence()


def test_all_alike_shows_nothing() -> None:
    found = ranking.compare("abc", np.ones((5, 3)))
    assert found.ranks == (2.0, 2.0, 2.0)
    assert found.statistic == 0
    assert "no difference" in found.sentence()
    assert found.groups() == [(0, 2)]


def test_groups_by_hand() -> None:
    def groups(ranks: tuple[float, ...], difference: float) -> list[tuple[int, int]]:
        names = tuple(str(i) for i in range(len(ranks)))
        return ranking.Comparison(names, ranks, 5, 1.0, 0.1, difference, 0.05).groups()

    assert groups((1.0, 1.5, 3.0, 3.2), 1.0) == [(0, 1), (2, 3)]
    assert groups((1.0, 2.0, 3.0), 0.5) == []
    assert groups((1.0, 1.8, 2.6, 3.4), 1.7) == [(0, 2), (1, 3)]


@pytest.mark.parametrize(
    ("names", "scores", "said"),
    [
        ("a", [[1.0], [2.0]], "two data sets"),
        ("ab", [[1.0, 2.0]], "two data sets"),
        ("ab", [[1, np.nan], [2, 3]], "miss"),
    ],
)
def test_bad_input(names: str, scores: list, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ranking.compare(names, scores)
    with pytest.raises(UserError, match="out of range"):
        ranking.critical_difference(1, 5)


def test_the_diagram_is_drawn_with_every_name(tmp_path: Path) -> None:
    found = ranking.compare(NAMES, AUC)
    path = figures.critical_difference(found, tmp_path / "ranks.svg")
    text = path.read_text()
    assert "<svg" in text
    assert len(text) > 5000
    again = figures.critical_difference(found, tmp_path / "again.svg").read_text()
    assert again == text  # no date, no random names
