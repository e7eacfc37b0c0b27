import json
import math

import numpy as np
import pytest
from scipy import stats

from selftaught.errors import UserError
from selftaught.evaluation import Difference, Number, Result, paired_difference, table


def test_number_of_is_students_interval():
    values = [0.71, 0.74, 0.69, 0.80, 0.77]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    number = Number.of(values)
    assert number.values == tuple(values)
    np.testing.assert_allclose([number.mean, number.low, number.high], [np.mean(values), low, high], rtol=1e-12)
    np.testing.assert_allclose(
        Number.of(values, level=0.5).high,
        stats.t.interval(0.5, 4, loc=np.mean(values), scale=stats.sem(values))[1],
        rtol=1e-12,
    )


def test_a_single_value_has_no_interval():
    assert Number.of(0.5) == Number.of([0.5]) == Number(0.5, None, None, (0.5,))
    assert Number.bootstrap([3.0]).low is None


def test_an_interval_ends_where_no_truth_can_lie():
    """Three accuracies near 1: Student's interval reaches 1.06, an accuracy does not."""
    values = [0.9, 0.99, 1.0]
    plain, bounded = Number.of(values), Number.of(values, within=(0.0, 1.0))
    assert plain.high > 1.05
    assert (bounded.mean, bounded.low, bounded.high) == (plain.mean, plain.low, 1.0)


def test_equal_values_are_not_shown_as_certainty():
    """Three seeds with the same result: the seed made no difference, which bounds nothing."""
    number = Number.of([0.9, 0.9, 0.9])
    assert (number.mean, number.low, number.high) == (0.9, None, None)
    assert str(number) == "0.900"
    assert Number.bootstrap([0.5] * 10).low is None
    assert Number.bootstrap(np.full((4, 2), 3.0), lambda rows: float(rows.mean())).low is None
    same = paired_difference([0.9, 0.8], [0.7, 0.6])
    assert paired_difference([1.5, 2.5], [1.0, 2.0]).low is None
    assert str(paired_difference([1.5, 2.5], [1.0, 2.0])) == "+0.500"
    assert same.mean == pytest.approx(0.2)


def test_no_values_is_an_error():
    with pytest.raises(UserError, match="at least one"):
        Number.of([])
    with pytest.raises(UserError, match="at least one"):
        Number.bootstrap([])


def test_bootstrap_agrees_with_the_normal_interval_of_a_mean(rng):
    items = rng.normal(5, 2, 4000)
    number = Number.bootstrap(items)
    half = 1.96 * items.std() / math.sqrt(len(items))
    assert number.mean == pytest.approx(items.mean())
    assert number.mean - number.low == pytest.approx(half, rel=0.12)
    assert number.high - number.mean == pytest.approx(half, rel=0.12)


def test_bootstrap_of_right_and_wrong_covers_as_it_says():
    """Of 300 simulated test sets, about 95 % of the intervals hold the true accuracy."""
    rng = np.random.default_rng(0)
    numbers = [Number.bootstrap(rng.random(200) < 0.8, seed=s) for s in range(300)]
    held = np.mean([n.low <= 0.8 <= n.high for n in numbers])
    assert 0.90 <= held <= 0.985


def test_bootstrap_of_a_statistic_uses_whole_rows(rng):
    a = rng.normal(size=500)
    pair = np.stack([a, 2 * a], 1)
    number = Number.bootstrap(pair, lambda rows: float(np.corrcoef(rows.T)[0, 1]), resamples=50)
    assert number.mean == pytest.approx(1)
    assert number.low == pytest.approx(1)


def test_all_right_does_not_claim_certainty():
    number = Number.bootstrap(np.ones(20))
    low = stats.binomtest(20, 20).proportion_ci(0.95, method="exact").low
    assert (number.mean, number.high) == (1.0, 1.0)
    assert number.low == pytest.approx(low)
    assert Number.bootstrap(np.zeros(20)).high == pytest.approx(1 - low)


def test_bootstrap_is_reproducible(rng):
    items = rng.normal(size=30)
    assert Number.bootstrap(items) == Number.bootstrap(items)
    assert Number.bootstrap(items) != Number.bootstrap(items, seed=1)


def test_paired_difference_is_the_paired_t_test(rng):
    a, b = rng.normal(0.8, 0.1, 6), rng.normal(0.7, 0.1, 6)
    difference, reference = paired_difference(Number.of(a), b), stats.ttest_rel(a, b)
    interval = reference.confidence_interval(0.95)
    assert difference.p == pytest.approx(reference.pvalue)
    np.testing.assert_allclose([difference.low, difference.high], [interval.low, interval.high], rtol=1e-10)
    assert difference.mean == pytest.approx((a - b).mean())


def test_paired_difference_at_the_edges():
    assert paired_difference([1.0, 2.0], [1.0, 2.0]).p == 1.0
    assert paired_difference([1.5, 2.5], [1.0, 2.0]).p == 0.0
    assert paired_difference([1.0], [0.5]) == Difference(0.5, None, None, (0.5,), None)
    with pytest.raises(UserError, match="same seeds"):
        paired_difference([1.0, 2.0], [1.0])


def test_result_survives_json():
    figures = {"curve": np.arange(3.0), "nested": [{"m": np.eye(2, dtype=int)}, (1, math.nan)], 5: np.float32(0.5)}
    numbers = {"accuracy": Number.of([0.1, 0.2]), "single": Number.of(1.0), "gain": paired_difference([2, 3], [1, 1])}
    result = Result("knn", numbers, figures, "a note")
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert Result.from_dict(json.loads(text)) == result
    assert result.figures == {"curve": [0.0, 1.0, 2.0], "nested": [{"m": [[1, 0], [0, 1]]}, [1, None]], "5": 0.5}


def test_not_finite_numbers_become_null_and_back():
    data = Number(math.nan, values=(math.nan, 1.0)).to_dict()
    assert data == {"mean": None, "low": None, "high": None, "values": [None, 1.0]}
    back = Number.from_dict(data)
    assert math.isnan(back.mean)
    assert back.values[1] == 1.0


def test_one_readable_line():
    result = Result("knn", {"accuracy": Number(0.8734, 0.8612, 0.8851), "psnr": Number(31.234)}, note="k clipped")
    assert str(result) == "knn: accuracy 0.873 [0.861, 0.885] · psnr 31.23 (k clipped)"
    assert str(Number(math.nan)) == "-"
    assert str(paired_difference([0.9, 0.8, 0.9], [0.5, 0.6, 0.5])).startswith("+0.333 [")
    assert "p = " in str(paired_difference([0.9, 0.8, 0.9], [0.5, 0.6, 0.5]))


def test_table_lines_up_what_is_there():
    rows = {
        "this encoder": Result("linear", {"accuracy": Number(0.9, 0.8, 0.95), "auc": Number(0.99)}),
        "raw | input": Result("linear", {"accuracy": Number(0.5)}),
    }
    lines = table(rows, corner="features").splitlines()
    assert lines[0] == "| features | accuracy | auc |"
    assert lines[1] == "| --- | ---: | ---: |"
    assert lines[2] == "| this encoder | 0.900 [0.800, 0.950] | 0.990 |"
    assert lines[3] == "| raw \\| input | 0.500 | - |"
    assert table(rows, columns=["auc"]).splitlines()[0] == "|  | auc |"
    with pytest.raises(UserError, match="empty"):
        table({})


def test_many_numbers_stand_upright() -> None:
    rows = {"this": Result("x", {"a": Number(1.0), "b": Number(2.0)}), "raw": Result("x", {"a": Number(3.0)})}
    assert table(rows, upright=True).splitlines() == [
        "|  | this | raw |",
        "| --- | ---: | ---: |",
        "| a | 1.000 | 3.000 |",
        "| b | 2.000 | - |",
    ]
