"""The infinite schedule: its values, its joints, its limits, and what it refuses."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from selftaught.engine.schedules import InfiniteSchedule, anneal_from, infinite_lr, repeated_cosine, wsd
from selftaught.errors import UserError


def test_the_sheets_values() -> None:
    found = {n: infinite_lr(n, 1000) for n in (0, 25, 50, 175, 300, 550, 800, 900, 1000, 1200)}
    expected = {0: 0, 25: 0.5, 50: 1, 175: 0.625, 300: 0.25, 550: 0.25, 800: 0.25, 1000: 0.1, 1200: 0.1}
    for n, value in expected.items():
        assert found[n] == pytest.approx(value), n
    assert found[900] == pytest.approx(math.sqrt(0.25 * 0.1)), "log-linear"
    assert [infinite_lr(n, 1000, task=1) for n in (0, 400, 800)] == [0.25] * 3
    assert infinite_lr(1000, 1000, task=3) == pytest.approx(0.1)


@pytest.mark.parametrize("cooldown", ["cosine", "linear", "inv_sqrt"])
@pytest.mark.parametrize("annealing", ["exponential", "linear", "sqrt"])
def test_it_is_continuous_and_never_rises_after_the_warm_up(cooldown: str, annealing: str) -> None:
    rates = [infinite_lr(n, 4000, cooldown=cooldown, annealing=annealing) for n in range(4001)]
    steps = [b - a for a, b in pairwise(rates)]
    assert max(map(abs, steps)) < 0.02
    assert max(steps[200:]) < 1e-12
    assert rates[200] == 1
    assert rates[1200] == pytest.approx(0.25)
    assert rates[-1] == pytest.approx(0.1)


def test_shapes_of_the_cooldown() -> None:
    schedule = InfiniteSchedule(0, 100, 200, 300, 1.0, 0.2, 0.1, cooldown="inv_sqrt")
    f = lambda u: 1 / math.sqrt(1 + 10 * u) - 1  # noqa: E731
    assert schedule(30) == pytest.approx(1 + (0.2 - 1) * f(0.3) / f(1))
    assert schedule(0) == 1
    assert InfiniteSchedule(0, 100, 200, 300, 1.0, 0.2, 0.1, cooldown="linear")(25) == pytest.approx(0.8)
    assert InfiniteSchedule(10, 100, 200, 300, 1.0, 0.2, 0.1, cooldown="constant")(11) == 0.2


def test_limits() -> None:
    assert [wsd(n, 100) for n in (0, 5, 50, 80)] == [0, 1, 1, 1]
    assert wsd(100, 100) == pytest.approx(0.1)
    assert anneal_from(1000, 1000, 50, eta_const=0.5, eta_min=0.05) == 0.5
    assert anneal_from(1025, 1000, 50, eta_const=0.5, eta_min=0.05) == pytest.approx(math.sqrt(0.5 * 0.05))
    assert anneal_from(1050, 1000, 50, eta_const=0.5, eta_min=0.05) == pytest.approx(0.05)
    never = InfiniteSchedule(5, 30, 100, 100, eta_min=0.0)
    assert [never(n) for n in (100, 1000)] == [0.25, 0.25]
    twice = [repeated_cosine(n, [100, 200], warmup=0.1, eta_min=0.2) for n in (0, 10, 100, 120, 300, 400)]
    assert twice == pytest.approx([0, 1, 0, 1, 0.2, 0.2])
    assert repeated_cosine(55, [100, 200], warmup=10) == pytest.approx(0.5)


def test_what_makes_no_sense_is_refused() -> None:
    for call, message in (
        (lambda: infinite_lr(0, 100, warmup=0.4), "must not fall"),
        (lambda: infinite_lr(0, 100, minimum=0.0), "never reaches a rate of 0"),
        (lambda: infinite_lr(0, 100, minimum=0.5), "rates need"),
        (lambda: infinite_lr(-1, 100), "negative"),
        (lambda: infinite_lr(0, 100, cooldown="steep"), "cooldown=steep"),
        (lambda: anneal_from(3, 5, 10, eta_const=1, eta_min=0.1), "has no step 3"),
        (lambda: repeated_cosine(0, [10], warmup=12), "leaves nothing"),
    ):
        with pytest.raises(UserError, match=message):
            call()
