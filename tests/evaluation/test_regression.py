import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.preprocessing import StandardScaler

from selftaught.errors import UserError
from selftaught.evaluation import regression


def data(rng, n, d, noise=0.5):
    x, t = rng.normal(size=(n, d)) * rng.uniform(0.1, 5, d) + 3, rng.normal(size=(80, d)) + 3
    weight = rng.normal(size=d) / np.sqrt(d)
    return x, x @ weight + noise * rng.normal(size=n) + 50, t, t @ weight + noise * rng.normal(size=80) + 50


@pytest.mark.parametrize(("n", "d"), [(60, 8), (30, 70)])
def test_predictions_and_left_out_errors_equal_scikit_learn(rng, n, d):
    x, y, t, truth = data(rng, n, d)
    scaler = StandardScaler().fit(x)
    penalties = (0.1, 10.0, 1000.0)
    result = regression(x, y, t, truth, penalties=penalties)
    errors = []
    for penalty in penalties:
        left_out = cross_val_predict(Ridge(alpha=penalty), scaler.transform(x), y, cv=LeaveOneOut())
        errors.append(np.mean((left_out - y) ** 2))
    assert result.figures["regularisation"]["leave_one_out"] == pytest.approx(errors, rel=1e-6)
    chosen = penalties[int(np.argmin(errors))]
    assert result.figures["regularisation"]["chosen"] == chosen
    expected = Ridge(alpha=chosen).fit(scaler.transform(x), y).predict(scaler.transform(t))
    assert np.array(result.figures["scatter"]["predicted"])[:, 0] == pytest.approx(expected)
    assert result["mae"].mean == pytest.approx(np.abs(expected - truth).mean())
    assert result["rmse"].mean == pytest.approx(np.sqrt(np.mean((expected - truth) ** 2)))
    assert result["rho"].mean == pytest.approx(np.corrcoef(expected, truth)[0, 1])
    assert result["mape"].mean == pytest.approx(100 * np.mean(np.abs(expected - truth) / truth))


def test_several_targets_and_a_zero_target(rng):
    x, y, t, truth = data(rng, 60, 8)
    both = regression(x, np.stack([y, -y], 1), t, np.stack([truth, -truth], 1), penalties=[1.0])
    assert both["mae@0"].mean == pytest.approx(both["mae@1"].mean)
    assert both["mae@0"].mean == pytest.approx(regression(x, y, t, truth, penalties=[1.0])["mae"].mean)
    truth[0] = 0
    assert "mape" not in regression(x, y, t, truth).numbers


def test_shuffled_targets_do_not_correlate(rng):
    x, y, t, truth = data(rng, 200, 8)
    rho = regression(x, rng.permutation(y), t, rng.permutation(truth))["rho"]
    assert rho.low < 0 < rho.high
    assert regression(x, y, t, truth)["rho"].low > 0.5


def test_a_constant_target_is_predicted(rng):
    x, _, t, _ = data(rng, 20, 4)
    result = regression(x, np.full(20, 7.0), t, np.full(80, 7.0))
    assert result["mae"].mean == pytest.approx(0, abs=1e-9)
    assert str(result["rho"]) == "-"


def test_bad_targets(rng):
    x, y, t, truth = data(rng, 20, 4)
    with pytest.raises(UserError, match="train targets: NaN"):
        regression(x, np.where(np.arange(20) == 3, np.nan, y), t, truth)
    with pytest.raises(UserError, match="columns"):
        regression(x, y, t, np.stack([truth, truth], 1))
    with pytest.raises(UserError, match="penalties"):
        regression(x, y, t, truth, penalties=[0.0])
    with pytest.raises(UserError, match="at least two"):
        regression(x[:1], y[:1], t, truth)
    with pytest.raises(UserError, match="pass numbers"):
        regression(x, ["a"] * 20, t, truth)
